//! What a resource is: a piece of desired state that can say what it reads, what it makes, and what is missing.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;

use serde::Serialize;

use super::change::{Change, Debt};
use super::fault::{Class, Explain, Fault};
use super::id::Id;
use crate::config::settings::Origin;
use crate::config::values::{ModuleName, RootPath, SysctlKey, UnitName};
use crate::host::peers::Peers;
use crate::host::seen::Sight;

/// One piece of desired state. Resources are an open set, defined in the step folders.
pub trait Resource {
    /// What it is, in a few words for people: `kubelet v1.34.2`.
    fn summary(&self) -> String;

    /// What [`Resource::diff`] wants to see. All of it lies on this machine.
    fn reads(&self) -> Vec<Thing>;

    /// What it changes. A resource that reads one of these waits until this one is done.
    fn makes(&self) -> Vec<Thing>;

    /// What differs from the machine as it was seen, and the Changes that would mend it. Pure.
    /// Asked for `plan`, and again just before [`Resource::obtain`].
    fn diff(&self, seen: &Seen) -> Result<Diff, CannotTell>;

    /// Completes the Changes with what has to be fetched or signed. Writes to scratch only.
    /// Only artifacts and certificates override it.
    fn obtain<'a>(&'a self, known: Vec<Change>, _seen: &'a Seen, _peers: &'a Peers) -> Obtained<'a> {
        Box::pin(std::future::ready(Ok(known)))
    }

    /// Its files in the scratch directory, from which the next run goes on if this one comes to no good end.
    fn scratch(&self) -> Vec<RootPath> {
        Vec::new()
    }

    /// What [`Resource::prove`] wants to see, once every debt is paid.
    fn proof_reads(&self) -> Vec<Thing> {
        Vec::new()
    }

    /// Whether the machine now behaves as asked, not only says so. Pure.
    fn prove(&self, _seen: &Seen) -> Result<(), CannotTell> {
        Ok(())
    }
}

/// The pending result of [`Resource::obtain`].
pub type Obtained<'a> = Pin<Box<dyn Future<Output = Result<Vec<Change>, Fault>> + 'a>>;

/// A resource in its place in the plan.
pub struct Planned {
    /// Its name.
    pub id: Id,
    /// Which setting asked for it.
    pub why: Origin,
    /// What units must be made to see when it changes.
    pub owes: Vec<Debt>,
    /// The resource.
    pub what: Box<dyn Resource>,
}

/// Something on this machine that can be read.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Thing {
    /// What is at a path, with its bytes if it is a file.
    File(RootPath),
    /// What is at a path, without reading it.
    Stat(RootPath),
    /// The digest of a file of any size.
    Digest(RootPath),
    /// The digests of all that we put at a path and never undid, as the ledger has them.
    Written(RootPath),
    /// A unit as systemd has it loaded.
    Unit(UnitName),
    /// The limits that the unit's main process and control group really have.
    Limits(UnitName),
    /// The limits of each of the unit's processes.
    Processes(UnitName),
    /// The files that systemd has loaded the unit from.
    UnitFiles(UnitName),
    /// What systemd itself says: its version, and what it gives to units that say nothing.
    Manager,
    /// A sysctl's value.
    Sysctl(SysctlKey),
    /// Whether a kernel module is there.
    Module(ModuleName),
    /// The swap in use.
    Swaps,
    /// What the machine was given to set itself up with, wherever that is kept.
    UserData,
    /// The time.
    Clock,
}

impl Thing {
    /// Live things are the running kernel's or systemd's; the others are in the file tree and follow `--root`.
    pub fn is_live(&self) -> bool {
        match self {
            Self::File(_) | Self::Stat(_) | Self::Digest(_) | Self::Written(_) | Self::UserData | Self::Clock => false,
            Self::Unit(_)
            | Self::Limits(_)
            | Self::Processes(_)
            | Self::UnitFiles(_)
            | Self::Manager
            | Self::Sysctl(_)
            | Self::Module(_)
            | Self::Swaps => true,
        }
    }

    /// Whether it is what systemd has of a unit, which a daemon-reload may change.
    pub fn is_of_units(&self) -> bool {
        matches!(self, Self::Unit(_) | Self::Limits(_) | Self::Processes(_) | Self::UnitFiles(_))
    }

    /// Whether making `self` changes what reading `other` shows.
    pub fn touches(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::File(a) | Self::Stat(a) | Self::Digest(a), Self::File(b) | Self::Stat(b) | Self::Digest(b)) => {
                a == b
            }
            (
                Self::Unit(a) | Self::Limits(a) | Self::UnitFiles(a),
                Self::Unit(b) | Self::Limits(b) | Self::UnitFiles(b) | Self::Processes(b),
            )
            // What a process has is not what its unit has.
            | (Self::Processes(a), Self::Processes(b) | Self::Limits(b)) => a == b,
            _ => self == other,
        }
    }
}

impl std::fmt::Display for Thing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File(path) | Self::Stat(path) | Self::Digest(path) => path.fmt(f),
            Self::Written(path) => write!(f, "what was written to {path}"),
            Self::Unit(unit) => unit.fmt(f),
            Self::Limits(unit) => write!(f, "limits of {unit}"),
            Self::Processes(unit) => write!(f, "processes of {unit}"),
            Self::UnitFiles(unit) => write!(f, "files of {unit}"),
            Self::Manager => f.write_str("systemd"),
            Self::Sysctl(key) => write!(f, "sysctl {key}"),
            Self::Module(name) => write!(f, "module {name}"),
            Self::Swaps => f.write_str("swap"),
            Self::UserData => f.write_str("user-data"),
            Self::Clock => f.write_str("the clock"),
        }
    }
}

/// What was seen of the things that were asked for.
#[derive(Debug, Default)]
pub struct Seen(pub BTreeMap<Thing, Result<Sight, CannotTell>>);

/// A thing could not be read, so nothing can be said: not the same as "it differs".
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{object}: {why}")]
pub struct CannotTell {
    /// The path, unit or key.
    pub object: String,
    /// The cause.
    pub why: String,
    /// What to do, if the cause knows.
    pub advice: Option<String>,
    /// The cause's class.
    pub class: Class,
}

impl CannotTell {
    /// `object` cannot be told because of `why`.
    pub fn new(object: impl ToString, why: impl ToString) -> Self {
        Self { object: object.to_string(), why: why.to_string(), advice: None, class: Class::Failed }
    }

    /// `object` cannot be told because of an error.
    pub fn because(object: impl ToString, error: &impl Explain) -> Self {
        Self { advice: error.advice(), class: error.class(), ..Self::new(object, error) }
    }
}

impl Explain for CannotTell {
    fn class(&self) -> Class {
        self.class
    }

    fn advice(&self) -> Option<String> {
        self.advice.clone()
    }
}

/// The difference between what a resource wants and what was seen.
#[derive(Debug)]
pub enum Diff {
    /// Nothing to do.
    Same,
    /// Something to do.
    Differs {
        /// What differs, for people and programs.
        shown: Vec<Delta>,
        /// The Changes that are known without asking anyone.
        known: Vec<Change>,
    },
}

/// One difference.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Delta {
    /// What differs: `content`, `mode`, `TasksMax` …
    pub what: String,
    /// What is there; empty when nothing is.
    pub now: String,
    /// What is wanted.
    pub want: String,
}

impl Delta {
    /// `what` is `now` and should be `want`.
    pub fn new(what: impl ToString, now: impl ToString, want: impl ToString) -> Self {
        Self { what: what.to_string(), now: now.to_string(), want: want.to_string() }
    }
}
