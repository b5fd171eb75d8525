//! Making a lock file, and the mirrors that it is checked against.
//!
//! This is where a release is trusted, once: each file is fetched over https and compared with the checksum that its
//! maintainers publish beside it. What was trusted is written down with each digest. From then on the digests count, and
//! no server has to be trusted again.

use futures_util::future::join_all;

use crate::config::catalogue::{self, KUBERNETES};
use crate::config::values::{ArtifactName, ArtifactVersion, BadValue, HttpUrl, RootPath, Version};
use crate::engine::change::Meta;
use crate::engine::fault::{Class, Explain, Fault, quote};
use crate::host::fetch::{Digest, Expect, Wanted};
use crate::host::http::Http;
use crate::host::root::Root;
use crate::host::seen::Entry;
use crate::install::lock::{Lock, Locked};
use crate::install::trust;

/// The longest `stable.txt` that is read, in bytes.
const LONGEST_VERSION: usize = 64;

/// Where the files of a mirror are while they are fetched, below its directory.
const PARTIAL: &str = "/.partial";

/// A release to lock.
pub struct Release<'a> {
    /// Its version.
    pub version: &'a Version,
    /// For which machines.
    pub architectures: &'a [String],
    /// Other releases to lock with it.
    pub others: &'a [(ArtifactName, ArtifactVersion)],
    /// Where it is fetched.
    pub from: &'a HttpUrl,
}

/// A lock cannot be made, or a mirror is not what the lock says.
#[derive(Debug, thiserror::Error)]
pub enum LockingError {
    /// A release server has no version of that name.
    #[error("{url}: {why}")]
    NoVersion {
        /// Where it was asked for.
        url: String,
        /// What is wrong with the answer.
        why: String,
    },
    /// Nobody here knows where it stands.
    #[error("--add {name}: unknown; known are {}", catalogue::KNOWN.map(|known| known.name).join(", "))]
    Unknown {
        /// Its name.
        name: ArtifactName,
    },
    /// Files of a mirror are missing or wrong.
    #[error("{} of {all} files are missing or wrong: {}", wrong.len(), wrong.join("; "))]
    Wrong {
        /// Each with its reason.
        wrong: Vec<String>,
        /// How many files there are.
        all: usize,
        /// The class of the worst.
        class: Class,
    },
}

impl Explain for LockingError {
    fn class(&self) -> Class {
        match self {
            Self::NoVersion { .. } => Class::Failed,
            Self::Unknown { .. } => Class::Usage,
            Self::Wrong { class, .. } => *class,
        }
    }

    fn advice(&self) -> Option<String> {
        match self {
            Self::NoVersion { .. } => Some("name a version, such as v1.34.2".to_owned()),
            Self::Unknown { .. } => Some("pin its sha256 in node.yaml instead (kubernetes.artifacts)".to_owned()),
            Self::Wrong { .. } => Some("make the mirror anew: nodeagent lock --mirror DIR --file LOCK".to_owned()),
        }
    }
}

/// The version that a word such as `stable` or `stable-1.34` stands for today; a version stands for itself.
pub async fn resolve(http: &Http, from: &HttpUrl, word: &str) -> Result<Version, Fault> {
    let named = word.parse::<Version>();
    let Some(channel) = word.strip_prefix("stable").filter(|rest| rest.is_empty() || channel(rest)) else {
        return Ok(named.map_err(NotAVersion)?);
    };
    let url = from.join(&format!("stable{channel}.txt"));
    if !url.is_https() {
        return Err(trust::TrustError::NotHttps { url: url.to_string() }.into());
    }
    let answer = http.read(url.as_str(), LONGEST_VERSION).await?;
    let text = String::from_utf8_lossy(&answer);
    let bad = |error: BadValue| LockingError::NoVersion { url: url.to_string(), why: quote(&error.to_string()) };
    Ok(text.trim().parse().map_err(bad)?)
}

/// `-1.34`
fn channel(rest: &str) -> bool {
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    rest.strip_prefix('-').and_then(|rest| rest.split_once('.')).is_some_and(|(a, b)| digits(a) && digits(b))
}

/// The word is neither a version nor a channel.
#[derive(Debug, thiserror::Error)]
#[error("{0}; nor is it stable, or stable-1.34")]
struct NotAVersion(BadValue);

impl Explain for NotAVersion {
    fn class(&self) -> Class {
        Class::Usage
    }
}

/// Fetches every file of a release, compares it with its published checksum, and writes down what it is.
pub async fn make(http: &Http, root: &Root, release: &Release<'_>) -> Result<Lock, Fault> {
    let mut wanted = Vec::new();
    for architecture in release.architectures {
        for name in KUBERNETES {
            let path = catalogue::kubernetes_path(release.version.as_str(), architecture, name);
            let url = release.from.join(&path);
            wanted.push((architecture, name.to_owned(), release.version.to_string(), path, url.to_string()));
        }
        for (name, version) in release.others {
            let known = catalogue::known(name.as_str()).ok_or_else(|| LockingError::Unknown { name: name.clone() })?;
            let url = catalogue::fill(known.url, version.as_str()).replace("{arch}", architecture);
            let path = catalogue::mirror_path(name.as_str(), version.as_str(), &url);
            wanted.push((architecture, name.to_string(), version.to_string(), path, url));
        }
    }
    let files = wanted.into_iter().map(|(architecture, name, version, path, url)| async move {
        let (digest, trusted) = trust::published(http, &url).await?;
        let what = Wanted {
            name: format!("{name} {version} {architecture}"),
            urls: vec![url],
            size: None,
            expect: Expect::Published(digest),
            to: None,
        };
        let fetched = http.fetch(root, &what).await?;
        let path = path.try_into().map_err(|why| LockingError::NoVersion { url: trusted.clone(), why })?;
        let version = version.parse().map_err(NotAVersion)?;
        let locked = Locked { version, path, size: fetched.bytes, sha256: fetched.sha256, trusted };
        Ok::<_, Fault>((architecture, name.parse().map_err(NotAVersion)?, locked))
    });
    let mut lock = Lock::new(release.version.clone());
    for file in join_all(files).await {
        let (architecture, name, locked) = file?;
        lock.add(architecture, name, locked);
    }
    Ok(lock)
}

/// A release mirror.
pub enum Mirror {
    /// A directory.
    Dir(Root),
    /// Anything that serves one.
    Url(HttpUrl),
}

/// Compares every file of a mirror with the lock. Returns how many there are.
pub async fn verify(http: &Http, root: &Root, lock: &Lock, mirror: &Mirror) -> Result<usize, LockingError> {
    let files = lock.files().map(|(architecture, name, locked)| async move {
        match mirror {
            Mirror::Dir(dir) => verify_file(dir, locked),
            Mirror::Url(base) => {
                let url = base.join(locked.path.as_str()).to_string();
                let what = wanted(architecture, name, locked, vec![url], None);
                http.fetch(root, &what).await.map(drop).map_err(|e| (e.class(), e.to_string()))
            }
        }
    });
    judge(join_all(files).await)
}

fn verify_file(dir: &Root, locked: &Locked) -> Result<(), (Class, String)> {
    let path = below(locked);
    let shown = dir.display(&path);
    let failed = |e: crate::host::root::FileError| (Class::Failed, e.to_string());
    match dir.entry(&path, false).map_err(failed)? {
        Entry::File { stamp, .. } if stamp.size != locked.size => {
            Err((Class::Verification, format!("{shown}: it has {} bytes, not {}", stamp.size, locked.size)))
        }
        Entry::File { .. } => match crate::host::digest(dir, &path).map_err(failed)? {
            Some(got) if got == locked.sha256 => Ok(()),
            Some(got) => Err((Class::Verification, format!("{shown}: its sha256 is {got}, not {}", locked.sha256))),
            None => Err((Class::Failed, format!("{shown}: it is no file"))),
        },
        Entry::Absent => Err((Class::Failed, format!("{shown}: there is no such file"))),
        _ => Err((Class::Failed, format!("{shown}: it is no file"))),
    }
}

fn judge(results: Vec<Result<(), (Class, String)>>) -> Result<usize, LockingError> {
    let all = results.len();
    let wrong: Vec<(Class, String)> = results.into_iter().filter_map(Result::err).collect();
    match wrong.iter().map(|(class, _)| *class).max() {
        None => Ok(all),
        Some(class) => Err(LockingError::Wrong { wrong: wrong.into_iter().map(|(_, why)| why).collect(), all, class }),
    }
}

/// Fetches every file of the lock that a directory has not, each verified before it has its name, and puts the lock
/// beside them. Returns how many files there are.
pub async fn mirror(http: &Http, dir: &Root, lock: &Lock, from: &HttpUrl) -> Result<usize, Fault> {
    let partial = RootPath::literal(PARTIAL);
    let partial = &partial;
    let files = lock.files().map(|(architecture, name, locked)| async move {
        if verify_file(dir, locked).is_ok() {
            return Ok(());
        }
        let known = catalogue::known(name.as_str());
        let upstream =
            known.map(|known| catalogue::fill(known.url, locked.version.as_str()).replace("{arch}", architecture));
        let own = from.as_str() != catalogue::RELEASES || upstream.is_none();
        let urls = own.then(|| from.join(locked.path.as_str()).to_string()).into_iter().chain(upstream).collect();
        let to = partial.join(&format!("{name}-{}", locked.sha256.short()));
        http.fetch(dir, &wanted(architecture, name, locked, urls, Some(to.clone()))).await?;
        let path = below(locked);
        dir.make_own_dirs(&path.parent(), Meta::PROGRAM)?;
        Ok::<_, Fault>(dir.place(&to, &path, Meta::FILE)?)
    });
    let results: Vec<Result<(), Fault>> = join_all(files).await;
    let all = judge(results.into_iter().map(|r| r.map_err(|fault| (fault.class, fault.to_string()))).collect())?;
    dir.put(&RootPath::literal("/").join(&format!("{}.lock.json", lock.version)), &lock.print(), Meta::FILE)?;
    // What another one left is not gone on from.
    dir.remove_tree(partial)?;
    Ok(all)
}

/// A file's place in a mirror's directory.
fn below(locked: &Locked) -> RootPath {
    RootPath::literal("/").join(locked.path.as_str())
}

fn wanted(architecture: &str, name: &ArtifactName, locked: &Locked, urls: Vec<String>, to: Option<RootPath>) -> Wanted {
    Wanted {
        name: format!("{name} {} {architecture}", locked.version),
        urls,
        size: Some(locked.size),
        expect: Expect::Pinned(Digest::Sha256(locked.sha256.clone())),
        to,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn channels() {
        for (rest, good) in [("-1.34", true), ("-1", false), ("-1.x", false), (".1.2", false), ("-1.34.2", false)] {
            assert_eq!(channel(rest), good, "{rest}");
        }
    }

    #[test]
    fn a_mirror_is_judged_file_by_file() {
        let dir = tempfile::tempdir().expect("a directory");
        let root = Root::open(dir.path()).expect("the directory");
        let locked = |path: &str, content: &[u8]| Locked {
            version: "v1".parse().expect("a version"),
            path: path.to_owned().try_into().expect("a path"),
            size: content.len() as u64,
            sha256: crate::config::values::Sha256::of(content),
            trusted: String::new(),
        };
        for (name, content) in [("good", b"good"), ("long", b"more"), ("flip", b"flip")] {
            root.put(&RootPath::literal("/").join(name), content, Meta::FILE).expect("written");
        }
        root.make_own_dirs(&RootPath::literal("/dir"), Meta::PROGRAM).expect("made");
        for (locked, wanted) in [
            (locked("good", b"good"), None),
            (locked("long", b"mor"), Some("it has 4 bytes, not 3")),
            (locked("flip", b"flop"), Some("its sha256 is ")),
            (locked("none", b""), Some("there is no such file")),
            (locked("dir", b""), Some("it is no file")),
        ] {
            let why = verify_file(&root, &locked).err().map(|(_, why)| why);
            let as_wanted = match (&why, wanted) {
                (Some(why), Some(wanted)) => why.contains(wanted) && why.contains(locked.path.as_str()),
                (None, None) => true,
                _ => false,
            };
            assert!(as_wanted, "{}: {why:?}", locked.path.as_str());
        }
    }
}
