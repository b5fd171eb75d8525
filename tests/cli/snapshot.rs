//! A whole tree as something to compare: paths, types, modes, owners, contents.

use std::{collections::BTreeMap, fmt, fs, os::unix::fs::MetadataExt as _, path::Path};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

/// Where originals are kept, each under its digest.
pub const KEPT: &str = "var/lib/nodeagent/kept/";

/// SHA-256 in hexadecimal.
pub fn digest(bytes: &[u8]) -> String {
    nodeagent::config::values::Sha256::of(bytes).as_str().to_owned()
}

/// Everything below a directory, by its path relative to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot(BTreeMap<String, Entry>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    mode: u32,
    owner: (u32, u32),
    what: What,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum What {
    Directory,
    Link(String),
    File(String),
    Other,
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (uid, gid) = self.owner;
        match &self.what {
            What::Directory => write!(f, "directory {:04o} {uid}:{gid}", self.mode),
            What::Link(to) => write!(f, "link to {to} {uid}:{gid}"),
            What::File(content) => write!(f, "file {:04o} {uid}:{gid} {content:?}", self.mode),
            What::Other => f.write_str("something else"),
        }
    }
}

impl Snapshot {
    /// Reads a tree. What differs from run to run by its nature is checked here, and only its kind compared.
    pub fn of(root: &Path) -> Result<Self> {
        let mut all = BTreeMap::new();
        read(root, "", &mut all)?;
        Ok(Self(all))
    }

    /// Without the paths that `leave` matches.
    pub fn without(mut self, leave: impl Fn(&str) -> bool) -> Self {
        self.0.retain(|path, _| !leave(path));
        self
    }

    /// The paths.
    pub fn paths(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// What is different in `other`, a line for each path; nothing if nothing is.
    pub fn against(&self, other: &Self) -> Vec<String> {
        let mut all: Vec<&String> = self.0.keys().chain(other.0.keys()).collect();
        all.sort();
        all.dedup();
        let text = |entry: Option<&Entry>| entry.map_or_else(|| "nothing".to_owned(), ToString::to_string);
        let differs = all.into_iter().filter(|path| self.0.get(*path) != other.0.get(*path));
        differs.map(|path| format!("{path}: {}, not {}", text(other.0.get(path)), text(self.0.get(path)))).collect()
    }
}

fn read(root: &Path, at: &str, all: &mut BTreeMap<String, Entry>) -> Result<()> {
    let here = root.join(at);
    for entry in fs::read_dir(&here).with_context(|| format!("list {}", here.display()))? {
        let name = entry?.file_name().into_string().ok().context("a name that is not UTF-8")?;
        let relative = if at.is_empty() { name } else { format!("{at}/{name}") };
        let path = root.join(&relative);
        let meta = path.symlink_metadata().with_context(|| format!("look at {relative}"))?;
        let what = if meta.is_dir() {
            read(root, &relative, all)?;
            What::Directory
        } else if meta.is_symlink() {
            What::Link(fs::read_link(&path)?.display().to_string())
        } else if meta.is_file() {
            What::File(content(&relative, &fs::read(&path)?).with_context(|| format!("read {relative}"))?)
        } else {
            What::Other
        };
        all.insert(relative, Entry { mode: meta.mode() & 0o7777, owner: (meta.uid(), meta.gid()), what });
    }
    Ok(())
}

/// A file's content, or what stands for content that is never the same twice.
fn content(path: &str, bytes: &[u8]) -> Result<String> {
    let text = String::from_utf8_lossy(bytes);
    let is_pair = path.starts_with("etc/kubernetes/pki/") && !path.ends_with("/ca.pem");
    if path == "run/nodeagent/lock" || path == "var/lib/nodeagent/ledger" {
        Ok("of its own kind".to_owned())
    } else if let Some(name) = path.strip_prefix(KEPT) {
        ensure!(name == digest(bytes), "its bytes are not the ones that its name says");
        ensure!(!text.contains("PRIVATE KEY"), "a key is kept");
        Ok("kept".to_owned())
    } else if path.ends_with("/receipt.json") {
        let mut receipt: Value = serde_json::from_slice(bytes)?;
        for file in receipt["files"].as_object_mut().into_iter().flat_map(|files| files.values_mut()) {
            ensure!(file["stamp"].is_object(), "no stamp in {text}");
            file["stamp"] = "a stamp".into();
        }
        Ok(receipt.to_string())
    } else if is_pair {
        let has = |what: &str| text.matches(&format!("-----END {what}-----\n")).count() == 1;
        ensure!(has("CERTIFICATE") && has("PRIVATE KEY"), "it holds no whole pair");
        Ok("a pair".to_owned())
    } else {
        Ok(text.into_owned())
    }
}
