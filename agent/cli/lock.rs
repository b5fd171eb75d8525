//! `nodeagent lock`: on the operator's machine, pins a release's digests into a lock file.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;

use super::{Exit, Global, output};
use crate::config::catalogue::RELEASES;
use crate::config::settings::DownloadSettings;
use crate::config::values::{ArtifactName, ArtifactVersion, BadValue, HttpUrl, RootPath};
use crate::engine::change::Meta;
use crate::engine::fault::{Class, Explain, Fault};
use crate::host::http::Http;
use crate::host::root::Root;
use crate::host::sources;
use crate::install::elf;
use crate::install::lock::{Lock, LockError};
use crate::journal::Teller;
use crate::provision::lock::{self, Mirror, Release};

/// For everything together: an operator may have a slow line, and a lock is made once.
const DEADLINE: Duration = Duration::from_hours(12);

/// Arguments of `lock`.
#[derive(Args)]
pub struct LockArgs {
    /// The release: v1.34.2, or stable, or stable-1.34
    #[arg(value_name = "VERSION", required_unless_present_any = ["verify", "mirror"])]
    version: Option<String>,
    /// Lock for this architecture (amd64, arm64, arm); may be repeated [default: amd64 and arm64]
    #[arg(long, value_name = "ARCH", value_parser = elf::architectures(), hide_possible_values = true)]
    arch: Vec<String>,
    /// Lock this release too, such as cni-plugins=v1.6.2; may be repeated
    #[arg(long, value_name = "NAME=VERSION", value_parser = other)]
    add: Vec<(ArtifactName, ArtifactVersion)>,
    /// Where the release is fetched
    #[arg(long, value_name = "URL", default_value = RELEASES, value_parser = url)]
    from: HttpUrl,
    /// A file of CA certificates (PEM) that servers may have too, besides those that the system trusts
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// The lock file: to write, or for --verify and --mirror to read [default: VERSION.lock.json]
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Check that a mirror, a directory or a URL, has what the lock file says
    #[arg(long, value_name = "DIR|URL", conflicts_with_all = ["version", "mirror", "arch", "add"], requires = "file")]
    verify: Option<String>,
    /// Fetch what the lock file says into a directory that any web server can serve
    #[arg(long, value_name = "DIR", conflicts_with_all = ["version", "arch", "add"], requires = "file")]
    mirror: Option<PathBuf>,
}

fn url(text: &str) -> Result<HttpUrl, BadValue> {
    text.parse()
}

fn other(text: &str) -> Result<(ArtifactName, ArtifactVersion), String> {
    let (name, version) = text.split_once('=').ok_or("write NAME=VERSION")?;
    let bad = |error: BadValue| error.to_string();
    Ok((name.parse().map_err(bad)?, version.parse().map_err(bad)?))
}

/// A file that the command line names cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {why}")]
struct BadFile {
    path: String,
    why: String,
}

impl Explain for BadFile {
    fn class(&self) -> Class {
        Class::Usage
    }
}

fn bad_file(path: &Path, why: impl ToString) -> BadFile {
    BadFile { path: path.display().to_string(), why: why.to_string() }
}

/// Makes a lock file, or compares a mirror with one, or makes a mirror of one.
pub async fn run(args: LockArgs, global: &Global, tell: &Teller) -> Result<Exit, Fault> {
    global.no_node("lock")?;
    let root = Root::open(Path::new("/"))?;
    let roots = args.ca.iter().map(|path| absolute(path)).collect::<Result<_, _>>()?;
    let http = Http::new(
        tell.clone(),
        root.clone(),
        DownloadSettings { roots, deadline: DEADLINE, ..DownloadSettings::default() },
    );
    if let (Some(place), Some(file)) = (&args.verify, &args.file) {
        let mirror = if place.starts_with("https://") || place.starts_with("http://") {
            Mirror::Url(place.parse().map_err(|e: BadValue| bad_file(Path::new("--verify"), e))?)
        } else {
            Mirror::Dir(Root::open(Path::new(place))?)
        };
        let count = lock::verify(&http, &root, &read(file)?, &mirror).await?;
        output::print(&format!("{place} has all {count} files of {}.\n", file.display()));
    } else if let (Some(place), Some(file)) = (&args.mirror, &args.file) {
        let lock = read(file)?;
        let count = lock::mirror(&http, &Root::create(place)?, &lock, &args.from).await?;
        let (version, place) = (&lock.version, place.display());
        output::print(&format!("{place} has all {count} files, and the lock file as {version}.lock.json.\n"));
    } else {
        make(&args, &http, &root).await?;
    }
    Ok(Exit::Done)
}

async fn make(args: &LockArgs, http: &Http, root: &Root) -> Result<(), Fault> {
    let word = args.version.as_deref().unwrap_or_default();
    let version = lock::resolve(http, &args.from, word).await?;
    let file = args.file.clone().unwrap_or_else(|| PathBuf::from(format!("{version}.lock.json")));
    // Before anything is fetched: a directory that is not there costs no half gigabyte.
    let (dir, name) = place(&file)?;
    let architectures =
        if args.arch.is_empty() { vec!["amd64".to_owned(), "arm64".to_owned()] } else { args.arch.clone() };
    let release = Release { version: &version, architectures: &architectures, others: &args.add, from: &args.from };
    let lock = lock::make(http, root, &release).await?;
    let bytes = lock.print();
    dir.put(&name, &bytes, Meta::FILE)?;
    let sha256 = crate::config::values::Sha256::of(&bytes);
    let count = lock.files().count();
    output::print(&format!("{}: {count} files of {version}. Its own sha256 is {sha256}.\n", file.display()));
    Ok(())
}

fn read(file: &Path) -> Result<Lock, BadFile> {
    let bytes = sources::text(file).map_err(|error| bad_file(file, error))?;
    Lock::parse(&bytes).map_err(|error: LockError| bad_file(file, error))
}

/// A file's directory, and its place in there.
fn place(file: &Path) -> Result<(Root, RootPath), Fault> {
    let dir = file.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let name = file.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let name: RootPath = format!("/{name}").parse().map_err(|error: BadValue| bad_file(file, error))?;
    Ok((Root::open(dir)?, name))
}

fn absolute(path: &Path) -> Result<RootPath, BadFile> {
    let whole = std::path::absolute(path).map_err(|error| bad_file(path, error))?;
    let text = whole.to_str().ok_or_else(|| bad_file(path, "its name is not UTF-8"))?;
    text.parse().map_err(|error: BadValue| bad_file(path, error))
}
