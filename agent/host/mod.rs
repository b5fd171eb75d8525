//! The only door to the machine: rooted files, D-Bus, HTTP, facts, what was seen.
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "this is the door that clippy.toml speaks of")]

pub mod clock;
pub mod console;
pub mod facts;
pub mod gather;
pub mod http;
pub mod kernel;
pub mod lock;
pub mod notify;
pub mod peers;
pub mod probe;
pub mod retry;
pub mod root;
pub mod seen;
pub mod sources;
pub mod systemd;

use std::io::Read as _;

use tokio::sync::OnceCell;

use crate::config::values::{RootPath, Sha256};
use crate::engine::fault::Explain;
use crate::engine::resource::{CannotTell, Seen, Thing};
use root::{FileError, Root};
use seen::Sight;
use systemd::{Systemd, SystemdError};

/// The machine, or another machine's tree.
pub struct Host {
    /// Its files.
    pub root: Root,
    systemd: OnceCell<Systemd>,
}

impl Host {
    /// The machine whose tree this is.
    pub fn new(root: Root) -> Self {
        Self { root, systemd: OnceCell::new() }
    }

    /// Whether live things (jobs, properties, sysctls, modules) are this tree's own.
    pub fn is_live(&self) -> bool {
        self.root.is_running_machine()
    }

    /// The connection to systemd, made when it is first needed.
    pub async fn systemd(&self) -> Result<&Systemd, SystemdError> {
        self.systemd.get_or_try_init(Systemd::connect).await
    }

    /// The identity of this boot. A tree that is not the running machine has no boot: whatever boots it later sees
    /// everything that was written.
    pub fn boot_id(&self) -> Result<String, kernel::KernelError> {
        if self.is_live() { kernel::boot_id() } else { Ok("offline".to_owned()) }
    }

    /// Reads what was asked for. What could not be read is in the answer too, with the reason.
    pub async fn see(&self, things: &[Thing]) -> Seen {
        let mut seen = Seen::default();
        for thing in things {
            if !seen.0.contains_key(thing) {
                let sight = self.look(thing).await;
                seen.0.insert(thing.clone(), sight);
            }
        }
        seen
    }

    async fn look(&self, thing: &Thing) -> Result<Sight, CannotTell> {
        if thing.is_live() && !self.is_live() {
            return Err(CannotTell::new(thing, "not the running machine"));
        }
        match thing {
            Thing::File(path) => sight(thing, self.root.entry(path, true), Sight::Entry),
            Thing::Stat(path) => sight(thing, self.root.entry(path, false), Sight::Entry),
            Thing::Digest(path) => sight(thing, digest(&self.root, path), Sight::Digest),
            Thing::Unit(unit) => {
                let systemd = self.systemd().await.map_err(|e| CannotTell::because(thing, &e))?;
                sight(thing, systemd.unit(unit).await, Sight::Unit)
            }
            Thing::Limits(unit) => {
                let systemd = self.systemd().await.map_err(|e| CannotTell::because(thing, &e))?;
                let pid = systemd.main_pid(unit).await.map_err(|e| CannotTell::because(thing, &e))?;
                sight(thing, pid.map(kernel::limits).transpose(), Sight::Limits)
            }
            Thing::Sysctl(key) => sight(thing, kernel::sysctl(key), Sight::Sysctl),
            Thing::Module(name) => Ok(Sight::Module(kernel::has_module(name))),
            Thing::Clock => Ok(Sight::Clock(clock::now())),
        }
    }
}

/// What a reading shows, or why it shows nothing.
fn sight<T, E: Explain>(thing: &Thing, read: Result<T, E>, wrap: impl FnOnce(T) -> Sight) -> Result<Sight, CannotTell> {
    read.map(wrap).map_err(|error| CannotTell::because(thing, &error))
}

/// The digest of a file of any size; nothing if there is no file, but something else.
pub fn digest(root: &Root, path: &RootPath) -> Result<Option<Sha256>, FileError> {
    let mut file = match root.open_file(path) {
        Err(error) if error.is_absent() => return Ok(None),
        other => other?,
    };
    if !file.metadata().map_err(|e| root.error("stat", path, e))?.is_file() {
        return Ok(None);
    }
    let mut hasher = openssl::sha::Sha256::new();
    let mut buffer = vec![0; 1 << 18];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(Some(Sha256::from_raw(&hasher.finish()))),
            Ok(n) => hasher.update(&buffer[..n]),
            Err(source) => return Err(root.error("read", path, source)),
        }
    }
}
