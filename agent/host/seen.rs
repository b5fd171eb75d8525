//! What reading a [`Thing`] shows, and typed access to it for diffs.

use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use super::bytes::FileBytes;
use super::swap::Swap;
use super::user_data::Place;
use crate::config::settings::Rlimit;
use crate::config::values::{Limit, ModuleName, RootPath, Sha256, SysctlKey, UnitName};
use crate::engine::change::{Meta, ProcessLimit};
use crate::engine::resource::{CannotTell, Seen, Thing};
use crate::engine::unitfile::UnitFile;

/// What was seen of one thing.
#[derive(Debug, Clone)]
pub enum Sight {
    /// Of a path.
    Entry(Entry),
    /// Of a file; nothing when there is none.
    Digest(Option<Sha256>),
    /// Of what we wrote to a path.
    Written(Vec<Sha256>),
    /// Of a unit; nothing when systemd knows no such unit.
    Unit(Option<UnitSight>),
    /// Of a unit's main process; nothing when it has none.
    Limits(Option<LimitsSight>),
    /// Of a unit's processes; nothing when systemd knows no such unit.
    Processes(Option<ProcessesSight>),
    /// Of the files that a unit is loaded from, in the order in which systemd reads them.
    Files(Vec<ReadFile>),
    /// Of systemd itself.
    Manager(ManagerSight),
    /// Of a sysctl; nothing when this kernel does not have it.
    Sysctl(Option<String>),
    /// Whether the module is loaded or built in.
    Module(bool),
    /// Swap in use; the unit of each is there if systemd has it loaded.
    Swaps(Vec<Swap>),
    /// Of user-data, wherever it is kept.
    UserData(Vec<Place>),
    /// The time.
    Clock(SystemTime),
}

/// What is at a path. A link is never followed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// Nothing.
    Absent,
    /// A file.
    File {
        /// Mode and owner.
        meta: Meta,
        /// What identifies this very file.
        stamp: Stamp,
        /// Its bytes, if the thing was [`Thing::File`].
        bytes: Option<FileBytes>,
    },
    /// A directory.
    Dir(Meta),
    /// A symbolic link, and its target as written.
    Link(String),
    /// A socket, a device or a pipe.
    Other(&'static str),
}

impl Entry {
    /// Whether there is something, and not an empty file: that is what a power cut leaves of one that nobody flushed.
    pub fn has_content(&self) -> bool {
        match self {
            Self::Absent => false,
            Self::File { stamp, .. } => stamp.size > 0,
            _ => true,
        }
    }
}

/// What changes when a file is replaced or written: receipts are compared by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamp {
    /// Size in bytes.
    pub size: u64,
    /// Inode number.
    pub inode: u64,
    /// Last write, in nanoseconds since the epoch.
    pub mtime_ns: i128,
    /// Last change of the inode, in nanoseconds since the epoch.
    pub ctime_ns: i128,
}

/// A unit as systemd has it loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnitSight {
    /// `active`, `inactive`, `failed`, `activating` … (`ActiveState`).
    pub active: String,
    /// Its finer state (`SubState`).
    pub sub: String,
    /// The identity of this activation; empty when it never ran. Differs after each start (`InvocationID`).
    pub invocation: String,
    /// Most tasks; [`u64::MAX`] for no limit; nothing if the unit has no control group.
    pub tasks_max: Option<u64>,
    /// Soft and hard resource limits as systemd has them.
    pub rlimits: Vec<(Rlimit, u64, u64)>,
}

/// The limits that are really in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LimitsSight {
    /// The unit's main process.
    pub pid: u32,
    /// Soft and hard, from `/proc/PID/limits`; [`u64::MAX`] for unlimited.
    pub rlimits: Vec<(Rlimit, u64, u64)>,
    /// Its control group and those above it, from the inside out; none where the pids controller is not delegated.
    pub groups: Vec<Group>,
    /// The hard limits of systemd itself: nothing that it starts can have more without `CAP_SYS_RESOURCE`.
    pub ceiling: Vec<(Rlimit, u64)>,
    /// The most open files that the kernel allows to any process (`fs.nr_open`).
    pub most_files: u64,
}

/// A control group, and the most tasks that it may have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// Its name, which is that of its unit: `system.slice`.
    pub name: String,
    /// Its `pids.max`; [`u64::MAX`] for no limit.
    pub pids_max: u64,
    /// The files that its unit is loaded from, where the group has a limit.
    pub files: Vec<ReadFile>,
}

/// A file of systemd's as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadFile {
    /// Where.
    pub path: String,
    /// Its content.
    pub content: UnitFile,
}

/// The processes of a unit's own control group.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ProcessesSight {
    /// Whether this program may raise hard limits (`CAP_SYS_RESOURCE`).
    pub may_raise: bool,
    /// The most open files that the kernel allows to any process (`fs.nr_open`).
    pub most_files: u64,
    /// Each process.
    pub all: Vec<ProcessSight>,
}

impl ProcessesSight {
    /// The limit that the process has which this one is of; nothing if there is no such process any more.
    pub fn limit(&self, of: &ProcessLimit) -> Option<Limit> {
        self.all.iter().find(|process| process.pid == of.pid)?.limit(of.started, of.rlimit)
    }
}

/// One process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProcessSight {
    /// Its number.
    pub pid: u32,
    /// When it started, in clock ticks since the boot.
    pub started: u64,
    /// Soft and hard, from `/proc/PID/limits`.
    pub rlimits: Vec<(Rlimit, u64, u64)>,
}

impl ProcessSight {
    /// One of its limits, if it is the process that started then.
    pub fn limit(&self, started: u64, rlimit: Rlimit) -> Option<Limit> {
        let (_, soft, hard) = self.rlimits.iter().find(|(other, ..)| *other == rlimit && self.started == started)?;
        Some(Limit { soft: *soft, hard: *hard })
    }
}

/// What systemd itself says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManagerSight {
    /// `252.39-1~deb12u1`
    pub version: String,
    /// What a unit gets that says nothing; nothing where this systemd has no such default.
    pub tasks_max: Option<u64>,
    /// The same for open files.
    pub no_file: Option<Limit>,
    /// The files that it has this from, in the order in which it reads them.
    pub files: Vec<ReadFile>,
}

impl Seen {
    /// What is at the path.
    pub fn entry(&self, path: &RootPath) -> Result<&Entry, CannotTell> {
        let sight = self.0.get(&Thing::File(path.clone())).or_else(|| self.0.get(&Thing::Stat(path.clone())));
        match sight {
            Some(Ok(Sight::Entry(entry))) => Ok(entry),
            other => Err(not_seen(path, other)),
        }
    }

    /// The bytes of the file at the path; nothing if there is no file.
    pub fn bytes(&self, path: &RootPath) -> Result<Option<&[u8]>, CannotTell> {
        match self.entry(path)? {
            Entry::File { bytes, .. } => Ok(bytes.as_deref()),
            Entry::Absent => Ok(None),
            Entry::Dir(_) => Err(CannotTell::new(path, "a directory is where a file should be")),
            Entry::Link(to) => Err(CannotTell::new(path, format!("a link to {to} is where a file should be"))),
            Entry::Other(what) => Err(CannotTell::new(path, format!("a {what} is where a file should be"))),
        }
    }

    /// The digest of the file at the path; nothing if there is no file.
    pub fn digest(&self, path: &RootPath) -> Result<Option<&Sha256>, CannotTell> {
        match self.0.get(&Thing::Digest(path.clone())) {
            Some(Ok(Sight::Digest(digest))) => Ok(digest.as_ref()),
            other => Err(not_seen(path, other)),
        }
    }

    /// The digests of what we wrote to the path.
    pub fn written(&self, path: &RootPath) -> Result<&[Sha256], CannotTell> {
        match self.0.get(&Thing::Written(path.clone())) {
            Some(Ok(Sight::Written(digests))) => Ok(digests),
            other => Err(not_seen(path, other)),
        }
    }

    /// The unit; nothing if systemd knows no such unit.
    pub fn unit(&self, unit: &UnitName) -> Result<Option<&UnitSight>, CannotTell> {
        match self.0.get(&Thing::Unit(unit.clone())) {
            Some(Ok(Sight::Unit(sight))) => Ok(sight.as_ref()),
            other => Err(not_seen(unit, other)),
        }
    }

    /// The limits in force; nothing if the unit has no main process.
    pub fn limits(&self, unit: &UnitName) -> Result<Option<&LimitsSight>, CannotTell> {
        match self.0.get(&Thing::Limits(unit.clone())) {
            Some(Ok(Sight::Limits(sight))) => Ok(sight.as_ref()),
            other => Err(not_seen(unit, other)),
        }
    }

    /// The unit's processes; nothing if systemd knows no such unit.
    pub fn processes(&self, unit: &UnitName) -> Result<Option<&ProcessesSight>, CannotTell> {
        match self.0.get(&Thing::Processes(unit.clone())) {
            Some(Ok(Sight::Processes(sight))) => Ok(sight.as_ref()),
            other => Err(not_seen(unit, other)),
        }
    }

    /// The files that the unit is loaded from.
    pub fn unit_files(&self, unit: &UnitName) -> Result<&[ReadFile], CannotTell> {
        match self.0.get(&Thing::UnitFiles(unit.clone())) {
            Some(Ok(Sight::Files(files))) => Ok(files),
            other => Err(not_seen(unit, other)),
        }
    }

    /// What systemd itself says.
    pub fn manager(&self) -> Result<&ManagerSight, CannotTell> {
        match self.0.get(&Thing::Manager) {
            Some(Ok(Sight::Manager(sight))) => Ok(sight),
            other => Err(not_seen(&"systemd", other)),
        }
    }

    /// The sysctl's value; nothing if this kernel has no such sysctl.
    pub fn sysctl(&self, key: &SysctlKey) -> Result<Option<&str>, CannotTell> {
        match self.0.get(&Thing::Sysctl(key.clone())) {
            Some(Ok(Sight::Sysctl(value))) => Ok(value.as_deref()),
            other => Err(not_seen(key, other)),
        }
    }

    /// Whether the module is there.
    pub fn module(&self, name: &ModuleName) -> Result<bool, CannotTell> {
        match self.0.get(&Thing::Module(name.clone())) {
            Some(Ok(Sight::Module(loaded))) => Ok(*loaded),
            other => Err(not_seen(name, other)),
        }
    }

    /// The swap in use.
    pub fn swaps(&self) -> Result<&[Swap], CannotTell> {
        match self.0.get(&Thing::Swaps) {
            Some(Ok(Sight::Swaps(swaps))) => Ok(swaps),
            other => Err(not_seen(&"swap", other)),
        }
    }

    /// What the machine was given, wherever it is kept.
    pub fn user_data(&self) -> Result<&[Place], CannotTell> {
        match self.0.get(&Thing::UserData) {
            Some(Ok(Sight::UserData(places))) => Ok(places),
            other => Err(not_seen(&"user-data", other)),
        }
    }

    /// The time at which the rest was seen.
    pub fn now(&self) -> Result<SystemTime, CannotTell> {
        match self.0.get(&Thing::Clock) {
            Some(Ok(Sight::Clock(now))) => Ok(*now),
            other => Err(not_seen(&"the clock", other)),
        }
    }
}

fn not_seen(object: &dyn ToString, sight: Option<&Result<Sight, CannotTell>>) -> CannotTell {
    match sight {
        Some(Err(cannot)) => cannot.clone(),
        _ => CannotTell::new(object.to_string(), "the resource did not say that it reads this"),
    }
}
