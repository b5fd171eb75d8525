//! What the mirror serves: a Kubernetes release in the layout of the real ones, real programs where Debian packages
//! them and clearly named stand-ins where it does not.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Error, Result, bail};
use nodeagent::{
    config::catalogue,
    install::lock::{Lock, Locked, MirrorPath},
};
use tempfile::TempDir;

use super::{digest, kubernetes, mounts, process, rundir::lock, tree::mirror};

/// The release that the mirror claims to be. The packaged programs are older and say so themselves.
pub const VERSION: &str = "v1.34.2";

/// Program, package that has it, and where in it.
const PACKAGED: [(&str, &str, &str); 3] = [
    ("etcd", "etcd-server", "usr/bin/etcd"),
    ("etcdctl", "etcd-client", "usr/bin/etcdctl"),
    ("kubectl", "kubernetes-client", "usr/bin/kubectl"),
];

/// Those of them that are in the release.
const RELEASED: [&str; 2] = ["etcd", "kubectl"];

/// What the packaged etcd says it is.
pub const ETCD: &str = "v3.4.23";

/// Programs that no package has: the stand-in answers for them, under their names.
const STAND_INS: [&str; 2] = ["kubelet", "kube-proxy"];

const FETCH: Duration = Duration::from_mins(5);

/// Name of each program of the release, with the SHA-256 of its bytes.
pub type Digests = BTreeMap<String, String>;

/// Lays the release out below `docroot` as the mirrors do, each program with its digest in a file beside it.
pub fn lay_out(cache: &Path, docroot: &Path, stand_in: &Path) -> Result<Digests> {
    let directory = docroot.join("release").join(VERSION).join("bin/linux/amd64");
    fs::create_dir_all(&directory).with_context(|| format!("create {}", directory.display()))?;
    let packaged = packaged(cache)?;
    let mut digests = Digests::new();
    let real = RELEASED.iter().map(|name| (*name, packaged.join(name)));
    for (name, from) in real.chain(STAND_INS.iter().map(|name| (*name, stand_in.to_owned()))) {
        digests.insert(name.to_owned(), publish(&from, &directory.join(name))?);
    }
    Ok(digests)
}

/// Lays out real programs as the release `version`, which they are when that is [`kubernetes::VERSION`], and etcd as its
/// maintainers pack it, with a lock file of them all at `VERSION.lock.json`. Returns the lock file's digest.
pub fn lay_out_real(cache: &Path, docroot: &Path, version: &str) -> Result<String> {
    const ARCH: &str = "amd64";
    let mirror = docroot.join("release");
    let mut lock = Lock::new(version.parse()?);
    let mut offer = |name: &str, version: &str, path: String, from: &Path, sha256: &str| {
        let (to, size) = (mirror.join(&path), fs::metadata(from)?.len());
        let parent = to.parent().context("a file has a directory")?;
        fs::create_dir_all(parent).with_context(|| format!("create {}", parent.display()))?;
        // Served from where it is: half a gigabyte, and never written to.
        if !to.exists() {
            symlink(from, &to).with_context(|| format!("link {} to {}", to.display(), from.display()))?;
        }
        let (version, path, sha256) =
            (version.parse()?, MirrorPath::try_from(path).map_err(Error::msg)?, sha256.parse()?);
        let trusted = "this machine, which built it or has its package".to_owned();
        lock.add(ARCH, name.parse()?, Locked { version, path, size, sha256, trusted });
        Ok::<_, Error>(())
    };
    let programs = kubernetes::programs(cache)?;
    for (name, sha256) in kubernetes::digests(&programs)? {
        offer(&name, version, catalogue::kubernetes_path(version, ARCH, &name), &programs.join(&name), &sha256)?;
    }
    let known = catalogue::known("etcd").context("the catalogue knows etcd")?;
    let url = catalogue::fill(known.url, ETCD).replace("{arch}", ARCH);
    let archive = etcd_archive(cache, known)?;
    let sha256 = digest(&fs::read(&archive).with_context(|| format!("read {}", archive.display()))?);
    offer(known.name, ETCD, catalogue::mirror_path(known.name, ETCD, &url), &archive, &sha256)?;
    let (bytes, file) = (lock.print(), mirror.join(format!("{version}.lock.json")));
    fs::write(&file, &bytes).with_context(|| format!("write {}", file.display()))?;
    Ok(digest(&bytes))
}

/// etcd's release archive, packed once.
fn etcd_archive(cache: &Path, known: &catalogue::Known) -> Result<PathBuf> {
    let programs = packaged(cache)?;
    let path = programs.with_extension("etcd.tar.gz");
    let _guard = lock(&path.with_extension("lock"))?;
    if !path.exists() {
        let unfinished = path.with_extension("unfinished");
        let file = fs::File::create(&unfinished).with_context(|| format!("create {}", unfinished.display()))?;
        let mut archive = tar::Builder::new(flate2::write::GzEncoder::new(file, flate2::Compression::fast()));
        for (program, inside) in known.members {
            let inside = catalogue::fill(inside, ETCD).replace("{arch}", "amd64");
            archive.append_path_with_name(programs.join(program), inside).with_context(|| format!("pack {program}"))?;
        }
        archive.into_inner()?.finish()?;
        fs::rename(&unfinished, &path).with_context(|| format!("finish {}", path.display()))?;
    }
    Ok(path)
}

/// Copies a program to where the mirror serves it, with its digest beside it, and returns the digest.
pub fn publish(from: &Path, to: &Path) -> Result<String> {
    fs::copy(from, to).with_context(|| format!("copy {} to {}", from.display(), to.display()))?;
    let digest = digest(&fs::read(to).with_context(|| format!("read {}", to.display()))?);
    let beside = PathBuf::from(format!("{}.sha256", to.display()));
    fs::write(&beside, &digest).with_context(|| format!("write {}", beside.display()))?;
    Ok(digest)
}

/// The directory of programs taken from Debian's packages, fetched once.
pub fn packaged(cache: &Path) -> Result<PathBuf> {
    let path = cache.join(format!("programs-{}", &digest(format!("{PACKAGED:?}").as_bytes())[..16]));
    let _guard = lock(&path.with_extension("lock"))?;
    if !path.exists() {
        let unfinished = path.with_extension("unfinished");
        mounts::remove_tree(&unfinished)?;
        fs::create_dir_all(&unfinished).with_context(|| format!("create {}", unfinished.display()))?;
        for (name, package, inside) in PACKAGED {
            fetch(&unfinished, name, package, inside)
                .with_context(|| format!("fetch {name} from package {package}"))?;
        }
        fs::rename(&unfinished, &path).with_context(|| format!("finish {}", path.display()))?;
    }
    Ok(path)
}

fn fetch(into: &Path, name: &str, package: &str, inside: &str) -> Result<()> {
    let unpacked = unpack(package)?;
    let from = unpacked.path().join(inside);
    fs::copy(&from, into.join(name)).with_context(|| format!("copy {}", from.display()))?;
    Ok(())
}

/// The real cosign, which Debian has from trixie on.
pub fn cosign() -> Result<PathBuf> {
    of_trixie("cosign")
}

/// A kubectl of this decade: 1.32.
pub fn new_kubectl() -> Result<PathBuf> {
    of_trixie("kubectl")
}

/// A program of Debian 13, which this machine need not be, out of the package of its name.
fn of_trixie(program: &str) -> Result<PathBuf> {
    const SUITE: &str = "trixie";
    let path = super::cache()?.join(format!("{program}-{SUITE}"));
    let _guard = lock(&path.with_extension("lock"))?;
    if !path.exists() {
        let lists = tempfile::tempdir().context("make a scratch directory")?;
        let there = lists.path().display();
        let source =
            format!("deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] {} {SUITE} main\n", mirror()?);
        fs::write(lists.path().join("sources.list"), source).context("write sources.list")?;
        for directory in ["lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(lists.path().join(directory)).context("make apt's directories")?;
        }
        // Lists of its own: those of the machine stay what they are.
        let own = [
            format!("Dir::Etc::SourceList={there}/sources.list"),
            "Dir::Etc::SourceParts=/dev/null".to_owned(),
            format!("Dir::State::Lists={there}/lists"),
            format!("Dir::Cache={there}/cache"),
        ];
        let own: Vec<&str> = own.iter().flat_map(|option| ["-o", option]).collect();
        process::ok(&[&["apt-get", "-o", "APT::Sandbox::User=root"], &own[..], &["update"]].concat(), FETCH)?;
        let unpacked = unpack_with(&own, &format!("{program}/{SUITE}"))?;
        let unfinished = path.with_extension("unfinished");
        let from = unpacked.path().join("usr/bin").join(program);
        fs::copy(&from, &unfinished).with_context(|| format!("copy {program} out of its package"))?;
        fs::rename(&unfinished, &path).with_context(|| format!("finish {}", path.display()))?;
    }
    Ok(path)
}

/// A package's files, in a directory that is gone when dropped. Nothing of it is installed, and none of its scripts run.
pub fn unpack(package: &str) -> Result<TempDir> {
    unpack_with(&[], package)
}

/// The same, with options for apt.
fn unpack_with(options: &[&str], package: &str) -> Result<TempDir> {
    // apt writes to the working directory, and drops root for that: a directory that anyone may enter.
    let scratch = tempfile::tempdir().context("make a scratch directory")?;
    let there = scratch.path().to_str().context("the scratch directory's path is not UTF-8")?;
    let download = ["env", "-C", there, "apt-get", "-o", "APT::Sandbox::User=root"];
    process::ok(&[&download[..], options, &["download", package]].concat(), FETCH)?;
    let mut debs = fs::read_dir(there)?.filter_map(Result::ok).map(|entry| entry.path());
    let Some(deb) = debs.find(|path| path.extension().is_some_and(|extension| extension == "deb")) else {
        bail!("apt-get downloaded no package: run `apt-get update`");
    };
    let deb = deb.to_str().context("the package's path is not UTF-8")?;
    process::ok(&["dpkg-deb", "--extract", deb, there], FETCH)?;
    fs::remove_file(deb).with_context(|| format!("remove {deb}"))?;
    Ok(scratch)
}
