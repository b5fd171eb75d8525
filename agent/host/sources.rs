//! The configuration's files.

use std::io;
use std::path::Path;

use super::root::{FileError, Root};
use crate::config::Source;
use crate::config::values::{BadValue, RootPath};
use crate::engine::fault::{Class, Explain};

/// Where the configuration is, unless `--config` says otherwise.
const DEFAULT: &str = "/etc/nodeagent/node.yaml";

/// The configuration cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// There is none.
    #[error("read configuration {path}: there is no such file")]
    Missing {
        /// Where it was looked for.
        path: String,
    },
    /// A file cannot be read.
    #[error("read configuration {path}: {source}")]
    Unreadable {
        /// Which.
        path: String,
        /// The cause.
        source: io::Error,
    },
    /// A drop-in is there by name, and leads nowhere.
    #[error("read {path}: it is a link to what is not there")]
    Dangling {
        /// Which.
        path: String,
    },
    /// A file in the tree cannot be read.
    #[error(transparent)]
    File(#[from] FileError),
}

impl Explain for SourceError {
    fn class(&self) -> Class {
        Class::Usage
    }

    fn advice(&self) -> Option<String> {
        match self {
            Self::Missing { .. } => {
                Some("write one (`nodeagent schema` prints what may stand in it), or name one with --config".to_owned())
            }
            Self::Dangling { .. } => Some("remove it, or bring what it leads to".to_owned()),
            Self::Unreadable { .. } => None,
            Self::File(error) => error.advice(),
        }
    }
}

/// The main file, then `node.d/*.yaml` beside it in the order of their names.
///
/// Without `config` the files are the tree's own, so that `--root` finds what the machine itself would.
pub fn read(root: &Root, config: Option<&Path>) -> Result<Vec<Source>, SourceError> {
    match config {
        None => from_tree(root),
        Some(path) => from_path(path),
    }
}

/// Whether there is a configuration at all. One that was asked for by name has to be there.
pub fn is_configured(root: &Root, config: Option<&Path>) -> Result<bool, SourceError> {
    Ok(config.is_some() || root.read(&RootPath::literal(DEFAULT))?.is_some())
}

/// One file of the invoking machine.
pub fn text(path: &Path) -> io::Result<Vec<u8>> {
    std::fs::read(path)
}

fn from_tree(root: &Root) -> Result<Vec<Source>, SourceError> {
    let main = RootPath::literal(DEFAULT);
    let Some(text) = root.read(&main)? else { return Err(SourceError::Missing { path: root.display(&main) }) };
    let mut sources = vec![Source { name: root.display(&main), text }];
    let dir = main.parent().join("node.d");
    for name in root.list(&dir)?.into_iter().filter(|name| is_drop_in(name)) {
        // A name that no path can have must not pass unseen: somebody means its content.
        let path: RootPath = format!("{dir}/{name}").parse().map_err(|error: BadValue| SourceError::Unreadable {
            path: format!("{}/{name:?}", root.display(&dir)),
            source: io::Error::new(io::ErrorKind::InvalidInput, error.why().to_owned()),
        })?;
        let name = root.display(&path);
        let text = root.read(&path)?.ok_or_else(|| SourceError::Dangling { path: name.clone() })?;
        sources.push(Source { name, text });
    }
    Ok(sources)
}

fn from_path(path: &Path) -> Result<Vec<Source>, SourceError> {
    let read = |path: &Path| {
        let name = path.display().to_string();
        match std::fs::read(path) {
            Ok(text) => Ok(Source { name, text }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(SourceError::Missing { path: name }),
            Err(source) => Err(SourceError::Unreadable { path: name, source }),
        }
    };
    let mut sources = vec![read(path)?];
    let dir = path.with_file_name("node.d");
    let unreadable = |source| SourceError::Unreadable { path: dir.display().to_string(), source };
    let entries = match std::fs::read_dir(&dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(sources),
        other => other.map_err(unreadable)?,
    };
    let mut names =
        entries.map(|entry| entry.map(|e| e.file_name())).collect::<Result<Vec<_>, _>>().map_err(unreadable)?;
    names.sort();
    for name in names.into_iter().filter(|name| name.to_str().is_some_and(is_drop_in)) {
        sources.push(read(&dir.join(name))?);
    }
    Ok(sources)
}

/// Editors' backup files and hidden files are not configuration.
fn is_drop_in(name: &str) -> bool {
    name.strip_suffix(".yaml").is_some_and(|stem| !stem.is_empty() && !stem.starts_with('.'))
}
