//! One file of a release: fetched, verified, and placed; an archive, the programs in it.

use std::collections::BTreeMap;
use std::io::Read as _;

use super::lock::{Lock, LockError};
use super::trust::{self, Trust};
use super::{IMAGES, RELEASES, archive, elf, images, lockfile};
use crate::config::settings::Form;
use crate::config::values::{ArtifactName, RootPath, Sha256, Version};
use crate::engine::apply::Unreadable;
use crate::engine::change::{Body, Change, Meta, SCRATCH};
use crate::engine::fault::Fault;
use crate::engine::receipt::Receipt;
use crate::engine::resource::{CannotTell, Delta, Diff, Obtained, Resource, Seen, Thing};
use crate::host::fetch::{self, Digest, Expect, Wanted};
use crate::host::peers::Peers;
use crate::host::root::Root;
use crate::host::seen::{Entry, Stamp};

/// A file that is fetched and verified, and whose programs are kept by version.
pub struct Artifact {
    /// Its name, and the program's.
    pub name: ArtifactName,
    /// Its version.
    pub version: String,
    /// Where it may be fetched, in the order of preference.
    pub urls: Vec<String>,
    /// What vouches for it.
    pub trust: Trust,
    /// The release of Kubernetes that a lock file must be for.
    pub release: Version,
    /// The machine that it must be for.
    pub architecture: String,
    /// What it is.
    pub form: Form,
    /// Whether what is placed is read whole, rather than recognised by its receipt.
    pub rehash: bool,
}

/// What is known of the file before any server is asked.
struct Want {
    sha256: Sha256,
    size: Option<u64>,
}

/// What becomes of the fetched file.
struct Ready {
    /// Each program, or the archive of images: where it is in scratch, its place, its digest.
    files: Vec<(RootPath, RootPath, Sha256)>,
    /// The names of the images.
    images: Vec<String>,
}

impl Artifact {
    fn dir(&self) -> RootPath {
        let kept = if self.form == Form::Images { IMAGES } else { RELEASES };
        RootPath::literal(kept).join(self.name.as_str()).join(&self.version)
    }

    /// The names of its programs; an archive of images is one file of its own name.
    pub fn programs(&self) -> Vec<&ArtifactName> {
        match &self.form {
            Form::Program | Form::Images => vec![&self.name],
            Form::Archive(members) => members.keys().collect(),
        }
    }

    /// Where a program is kept.
    pub fn place(&self, program: &ArtifactName) -> RootPath {
        match self.form {
            Form::Images => self.dir().join("images.tar"),
            Form::Program | Form::Archive(_) => self.dir().join("bin").join(program.as_str()),
        }
    }

    fn meta(&self) -> Meta {
        if self.form == Form::Images { Meta::FILE } else { Meta::PROGRAM }
    }

    /// Where its receipt is kept.
    pub fn receipt(&self) -> RootPath {
        self.dir().join("receipt.json")
    }

    /// Where it is fetched to. Only a pinned digest is known early enough to be part of the name; a version is as good,
    /// because what is there is hashed in any case.
    fn to(&self) -> RootPath {
        match &self.trust {
            Trust::Pinned(sha256) => {
                fetch::scratch(self.name.as_str(), &Expect::Pinned(Digest::Sha256(sha256.clone())))
            }
            Trust::Lock(_) | Trust::Published => {
                RootPath::literal(SCRATCH).join(&format!("{}-{}", self.name, self.version))
            }
        }
    }

    /// What the configuration or the lock file says of the file; nothing if only its server can tell.
    fn want(&self, seen: &Seen) -> Result<Option<Want>, CannotTell> {
        match &self.trust {
            Trust::Pinned(sha256) => Ok(Some(Want { sha256: sha256.clone(), size: None })),
            Trust::Published => Ok(None),
            Trust::Lock(lock) => {
                let path = lockfile::place(lock);
                let bytes = seen.bytes(&path)?.ok_or_else(|| lockfile::cannot_tell(&path, &LockError::Absent))?;
                let locked = Lock::parse_for(bytes, &self.release)
                    .and_then(|lock| lock.find(&self.name, &self.version, &self.architecture).cloned());
                let locked = locked.map_err(|error| lockfile::cannot_tell(&path, &error))?;
                Ok(Some(Want { sha256: locked.sha256, size: Some(locked.size) }))
            }
        }
    }

    /// How what is in place differs from what was verified, or from what is wanted now.
    fn difference(&self, seen: &Seen, want: Option<&Want>) -> Result<Option<Delta>, CannotTell> {
        let receipt = seen.bytes(&self.receipt())?.and_then(|bytes| serde_json::from_slice::<Receipt>(bytes).ok());
        let wanted =
            || want.map_or_else(|| "what its server vouches for".into(), |w| format!("sha256 {}", w.sha256.short()));
        for program in self.programs() {
            let verified = receipt.as_ref().and_then(|receipt| receipt.files.get(self.place(program).name()));
            let place = self.place(program);
            let delta = match (seen.entry(&place)?, verified) {
                (Entry::Absent, _) => Delta::new(self.noun(), "", wanted()),
                (Entry::File { .. }, None) => Delta::new("receipt", "", "verified"),
                (Entry::File { meta, stamp, .. }, Some(verified)) => {
                    if verified.stamp != *stamp {
                        Delta::new(self.noun(), touched(&verified.stamp, stamp), "as verified")
                    } else if *meta != self.meta() {
                        Delta::new("mode", format!("{:04o}", meta.mode), format!("{:04o}", self.meta().mode))
                    } else if let Some(read) = self.rehash.then(|| seen.digest(&place)).transpose()?.flatten()
                        && *read != verified.sha256
                    {
                        Delta::new("sha256 as read", read.short(), verified.sha256.short())
                    } else {
                        continue;
                    }
                }
                (other, _) => {
                    let why = format!("no file can be put there: {other:?}");
                    return Err(CannotTell::new(place, why));
                }
            };
            return Ok(Some(delta));
        }
        let fetched = receipt.as_ref().and_then(|receipt| match self.form {
            Form::Program => receipt.files.get(self.name.as_str()).map(|verified| &verified.sha256),
            Form::Archive(_) | Form::Images => receipt.archive.as_ref(),
        });
        let other = want.filter(|want| fetched != Some(&want.sha256));
        Ok(other.map(|want| Delta::new("sha256", fetched.map_or("", |f| f.short()), want.sha256.short())))
    }

    /// What the file must be, which its server may have to be asked for.
    async fn expect(&self, want: Option<&Want>, peers: &Peers) -> Result<Expect, Fault> {
        if let Some(want) = want {
            return Ok(Expect::Pinned(Digest::Sha256(want.sha256.clone())));
        }
        let mut why = None;
        for url in &self.urls {
            match trust::published(&peers.http, url).await {
                Ok((digest, _)) => return Ok(Expect::Published(digest)),
                // The first is the preferred one: its reason counts.
                Err(error) => drop(why.get_or_insert(error)),
            }
        }
        let why = why.map_or_else(|| trust::TrustError::NotHttps { url: String::new() }.into(), Fault::from);
        Err(why.context(format!("find a checksum of {} {}", self.name, self.version)))
    }

    /// Its programs in scratch, each for this machine; an archive of images without its compression.
    async fn unpack(&self, fetched: &Sha256, peers: &Peers) -> Result<Ready, Fault> {
        let to = self.to();
        let scratch = |program: &ArtifactName| to.parent().join(&format!("{}.{program}", to.name()));
        // On a thread of its own: other downloads go on meanwhile.
        let unpacked = |fault: Fault| fault.context(format!("unpack {} {}", self.name, self.version));
        let members = match &self.form {
            Form::Archive(members) => members,
            Form::Program => {
                let mut head = Vec::new();
                let file = peers.root.open_file(&to)?;
                file.take(elf::HEAD as u64).read_to_end(&mut head).map_err(|e| peers.root.error("read", &to, e))?;
                elf::check(self.name.as_str(), &head, &self.architecture)?;
                return Ok(Ready { files: vec![(to, self.place(&self.name), fetched.clone())], images: Vec::new() });
            }
            Form::Images => {
                let (root, from, into) = (peers.root.clone(), to.clone(), scratch(&self.name));
                let made = on_a_thread(move || decompress(&root, &from, &into)).await.map_err(unpacked)?;
                let (from, sha256, images) = match made {
                    (Some(sha256), images) => (scratch(&self.name), sha256, images),
                    (None, images) => (to, fetched.clone(), images),
                };
                return Ok(Ready { files: vec![(from, self.place(&self.name), sha256)], images });
            }
        };
        let files: Vec<RootPath> = members.keys().map(scratch).collect();
        let paths: Vec<String> = members.values().map(|path| path.replace("{arch}", &self.architecture)).collect();
        let (root, from, into) = (peers.root.clone(), to.clone(), files.clone());
        let taken = on_a_thread(move || take(&root, &from, &paths, &into)).await.map_err(unpacked)?;
        let mut ready = Vec::new();
        for ((program, from), taken) in members.keys().zip(files).zip(taken) {
            elf::check(program.as_str(), &taken.head, &self.architecture).map_err(|e| unpacked(e.into()))?;
            ready.push((from, self.place(program), taken.sha256));
        }
        Ok(Ready { files: ready, images: Vec::new() })
    }

    fn receipt_change(&self, fetched: &Sha256, images: Vec<String>, files: Vec<(RootPath, Sha256)>) -> Change {
        let archive = (self.form != Form::Program).then(|| fetched.clone());
        let body = Body::Receipt { trust: self.trust.word().to_owned(), archive, images, files };
        Change::Put { path: self.receipt(), body, meta: Meta::FILE }
    }

    /// What a diff calls what is in place.
    fn noun(&self) -> &'static str {
        if self.form == Form::Images { "archive" } else { "program" }
    }

    /// The digest of a program that is right but has lost its receipt (a run was killed in between).
    fn in_place(&self, want: Option<&Want>, seen: &Seen, root: &Root) -> Result<Option<Sha256>, Fault> {
        let Some(want) = want.filter(|_| self.form == Form::Program) else { return Ok(None) };
        let place = self.place(&self.name);
        if !matches!(seen.entry(&place), Ok(Entry::File { meta, .. }) if *meta == Meta::PROGRAM) {
            return Ok(None);
        }
        Ok(crate::host::digest(root, &place)?.filter(|digest| *digest == want.sha256))
    }
}

/// Takes the members of an archive out, each to a scratch file.
fn take(root: &Root, from: &RootPath, members: &[String], into: &[RootPath]) -> Result<Vec<archive::Taken>, Fault> {
    let archive = root.open_file(from)?;
    for path in into {
        // What a killed run left.
        root.remove(path)?;
    }
    let members: Vec<&str> = members.iter().map(String::as_str).collect();
    let open = |at: usize| root.create_scratch(&into[at]).map_err(std::io::Error::other);
    Ok(archive::take(archive, &members, open)?)
}

/// Writes an archive of images without its compression, if it has one; its digest then, and the names in it.
fn decompress(root: &Root, from: &RootPath, into: &RootPath) -> Result<(Option<Sha256>, Vec<String>), Fault> {
    // What a killed run left.
    root.remove(into)?;
    let open = || root.create_scratch(into).map_err(std::io::Error::other);
    let sha256 = archive::decompress(&mut root.open_file(from)?, open)?;
    let names = images::names(root.open_file(if sha256.is_some() { into } else { from })?)?;
    Ok((sha256, names))
}

/// Runs what takes long and is not asynchronous.
async fn on_a_thread<T: Send + 'static>(work: impl FnOnce() -> Result<T, Fault> + Send + 'static) -> Result<T, Fault> {
    tokio::task::spawn_blocking(work).await.map_err(|error| Fault::from(Panicked(error.to_string())))?
}

/// The thread that unpacks panicked.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Panicked(String);

impl crate::engine::fault::Explain for Panicked {}

impl Resource for Artifact {
    fn summary(&self) -> String {
        let of = if self.form == Form::Images { "images of " } else { "" };
        format!("{of}{} {} ({})", self.name, self.version, self.trust)
    }

    fn reads(&self) -> Vec<Thing> {
        let mut things = self.makes();
        if self.rehash {
            things.extend(self.programs().into_iter().map(|program| Thing::Digest(self.place(program))));
        }
        if let Trust::Lock(lock) = &self.trust {
            things.push(Thing::File(lockfile::place(lock)));
        }
        things
    }

    fn makes(&self) -> Vec<Thing> {
        let programs = self.programs().into_iter().map(|program| Thing::Stat(self.place(program)));
        programs.chain([Thing::File(self.receipt())]).collect()
    }

    fn diff(&self, seen: &Seen) -> Result<Diff, CannotTell> {
        let want = self.want(seen)?;
        let Some(delta) = self.difference(seen, want.as_ref())? else { return Ok(Diff::Same) };
        let dir = if self.form == Form::Images { self.dir() } else { self.dir().join("bin") };
        let dir = Change::Dir { path: dir, meta: Meta::PROGRAM };
        Ok(Diff::Differs { shown: vec![delta], known: vec![dir] })
    }

    fn scratch(&self) -> Vec<RootPath> {
        fetch::scratch_files(&self.to()).into()
    }

    fn obtain<'a>(&'a self, known: Vec<Change>, seen: &'a Seen, peers: &'a Peers) -> Obtained<'a> {
        Box::pin(async move {
            let mut changes = known;
            let want = self.want(seen).map_err(Unreadable)?;
            if let Some(digest) = self.in_place(want.as_ref(), seen, &peers.root)? {
                changes.push(self.receipt_change(&digest, Vec::new(), vec![(self.place(&self.name), digest.clone())]));
                return Ok(changes);
            }
            let expect = self.expect(want.as_ref(), peers).await?;
            let name = format!("{} {}", self.name, self.version);
            let size = want.and_then(|want| want.size);
            let wanted = Wanted { name, urls: self.urls.clone(), size, expect, to: Some(self.to()) };
            let fetched = peers.http.fetch(&peers.root, &wanted).await?.sha256;
            let mut files = Vec::new();
            let ready = self.unpack(&fetched, peers).await?;
            for (from, path, sha256) in ready.files {
                files.push((path.clone(), sha256.clone()));
                changes.push(Change::Put { path, body: Body::Scratch { from, sha256 }, meta: self.meta() });
            }
            changes.push(self.receipt_change(&fetched, ready.images, files));
            Ok(changes)
        })
    }
}

/// In a few words how a file differs from the one that was verified.
fn touched(then: &Stamp, now: &Stamp) -> String {
    let parts: BTreeMap<&str, bool> = BTreeMap::from([
        ("size", then.size != now.size),
        ("inode", then.inode != now.inode),
        ("mtime", then.mtime_ns != now.mtime_ns),
        ("ctime", then.ctime_ns != now.ctime_ns),
    ]);
    let names: Vec<&str> = parts.into_iter().filter_map(|(name, differs)| differs.then_some(name)).collect();
    format!("touched since ({})", names.join(", "))
}
