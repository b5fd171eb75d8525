//! The only door to the machine: rooted files, D-Bus, HTTP, facts, what was seen.
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "this is the door that clippy.toml speaks of")]

pub mod bytes;
pub mod clock;
pub mod console;
pub mod facts;
pub mod fetch;
pub mod gather;
pub mod http;
pub mod journald;
pub mod kernel;
pub mod listen;
pub mod lock;
pub mod notify;
pub mod peers;
pub mod probe;
pub mod process;
pub mod resolve;
pub mod retry;
pub mod root;
pub mod routes;
pub mod seen;
pub mod signals;
pub mod sources;
pub mod swap;
pub mod systemd;
pub mod user_data;
pub mod watch;

use std::collections::BTreeMap;
use std::io::Read as _;

use crate::config::values::{Limit, RootPath, Sha256, UnitName};
use crate::engine::fault::Explain;
use crate::engine::resource::{CannotTell, Seen, Thing};
use crate::engine::unitfile::UnitFile;
use crate::engine::{history, ledger};
use root::{FileError, Root};
use seen::{Entry, LimitsSight, ManagerSight, ProcessesSight, ReadFile, Sight};
use systemd::{Systemd, SystemdError};

/// The machine, or another machine's tree.
pub struct Host {
    /// Its files.
    pub root: Root,
    systemd: Systemd,
}

impl Host {
    /// The machine whose tree this is.
    pub fn new(root: Root) -> Self {
        Self { root, systemd: Systemd::default() }
    }

    /// Whether live things (jobs, properties, sysctls, modules) are this tree's own.
    pub fn is_live(&self) -> bool {
        self.root.is_running_machine()
    }

    /// The connection to systemd, made when it is first needed.
    pub async fn systemd(&self) -> Result<&Systemd, SystemdError> {
        self.systemd.connect().await?;
        Ok(&self.systemd)
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

    /// The unit, if systemd has it loaded.
    async fn known(&self, unit: Option<UnitName>) -> Result<Option<UnitName>, SystemdError> {
        let Some(unit) = unit else { return Ok(None) };
        let sight = self.systemd().await?.unit(&unit).await?;
        Ok(sight.map(|_| unit))
    }

    async fn look(&self, thing: &Thing) -> Result<Sight, CannotTell> {
        if thing.is_live() && !self.is_live() {
            return Err(CannotTell::new(thing, "not the running machine"));
        }
        match thing {
            Thing::File(path) => sight(thing, self.root.entry(path, true), Sight::Entry),
            Thing::Stat(path) => sight(thing, self.root.entry(path, false), Sight::Entry),
            Thing::Digest(path) => sight(thing, digest(&self.root, path), Sight::Digest),
            Thing::Written(path) => {
                let records = ledger::read(&self.root);
                sight(thing, records.map(|records| history::written(&records, path)), Sight::Written)
            }
            Thing::Unit(unit) => sight(thing, self.systemd.unit(unit).await, Sight::Unit),
            Thing::Limits(unit) => sight(thing, self.limits(unit).await, Sight::Limits),
            Thing::Processes(unit) => sight(thing, self.processes(unit).await, Sight::Processes),
            Thing::UnitFiles(unit) => sight(thing, self.unit_files(unit.as_str()).await, Sight::Files),
            Thing::Manager => sight(thing, self.manager().await, Sight::Manager),
            Thing::Sysctl(key) => sight(thing, kernel::sysctl(key), Sight::Sysctl),
            Thing::Module(name) => Ok(Sight::Module(kernel::has_module(name))),
            Thing::Swaps => {
                let mut swaps = swap::in_use().map_err(|e| CannotTell::because(thing, &e))?;
                for swap in &mut swaps {
                    swap.unit = self.known(swap.unit.take()).await.map_err(|e| CannotTell::because(thing, &e))?;
                }
                Ok(Sight::Swaps(swaps))
            }
            Thing::UserData => Ok(Sight::UserData(user_data::read(&self.root))),
            Thing::Clock => Ok(Sight::Clock(clock::now())),
        }
    }

    async fn limits(&self, unit: &UnitName) -> Result<Option<LimitsSight>, Unseen> {
        let Some(pid) = self.systemd.main_pid(unit).await? else { return Ok(None) };
        let mut sight = kernel::limits(pid)?;
        // Who limits a slice is only of interest where it is limited.
        for group in sight.groups.iter_mut().skip(1).filter(|group| group.pids_max != Limit::INFINITY) {
            group.files = self.unit_files(&group.name).await.unwrap_or_default();
        }
        Ok(Some(sight))
    }

    async fn processes(&self, unit: &UnitName) -> Result<Option<ProcessesSight>, Unseen> {
        let Some(pids) = self.systemd.processes(unit).await? else { return Ok(None) };
        let all = pids.into_iter().filter_map(|pid| kernel::process(pid).transpose());
        let all = all.collect::<Result<Vec<_>, _>>()?;
        Ok(Some(ProcessesSight { may_raise: kernel::may_raise_limits(), most_files: kernel::most_files(), all }))
    }

    async fn unit_files(&self, unit: &str) -> Result<Vec<ReadFile>, Unseen> {
        let paths = self.systemd.unit_files(unit).await?;
        Ok(self.read_files(paths)?)
    }

    async fn manager(&self) -> Result<ManagerSight, Unseen> {
        let mut sight = self.systemd.manager().await?;
        sight.files = self.read_files(self.manager_files()?)?;
        Ok(sight)
    }

    /// systemd's own configuration, in the order in which it reads it (systemd-system.conf(5)): a file of one directory
    /// replaces one of the same name in those before it.
    fn manager_files(&self) -> Result<Vec<String>, FileError> {
        let mut main = None;
        let mut drop_ins = BTreeMap::new();
        for dir in ["/usr/lib/systemd", "/usr/local/lib/systemd", "/run/systemd", "/etc/systemd"].map(RootPath::literal)
        {
            if self.root.entry(&dir.join("system.conf"), false)? != Entry::Absent {
                main = Some(dir.join("system.conf").to_string());
            }
            let dir = dir.join("system.conf.d");
            let names = self.root.list(&dir)?.into_iter().filter(|name| name.strip_suffix(".conf").is_some());
            drop_ins.extend(names.map(|name| (name.clone(), format!("{dir}/{name}"))));
        }
        Ok(main.into_iter().chain(drop_ins.into_values()).collect())
    }

    /// Files of systemd's. One that is gone by now says nothing.
    fn read_files(&self, paths: Vec<String>) -> Result<Vec<ReadFile>, FileError> {
        let mut files = Vec::new();
        for path in paths {
            let bytes = path.parse().ok().map(|at| self.root.read(&at)).transpose()?.flatten().unwrap_or_default();
            let content = UnitFile::parse(&String::from_utf8_lossy(&bytes));
            files.push(ReadFile { path, content });
        }
        Ok(files)
    }
}

/// Something live cannot be read.
#[derive(Debug, thiserror::Error)]
enum Unseen {
    #[error(transparent)]
    Systemd(#[from] SystemdError),
    #[error(transparent)]
    Kernel(#[from] kernel::KernelError),
    #[error(transparent)]
    File(#[from] FileError),
}

impl Explain for Unseen {
    fn advice(&self) -> Option<String> {
        match self {
            Self::Systemd(error) => error.advice(),
            Self::Kernel(error) => error.advice(),
            Self::File(error) => error.advice(),
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
