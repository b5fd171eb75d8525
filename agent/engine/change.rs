//! Change: all that this program can do to a machine, on one page.
//!
//! The list is closed. Whoever adds to it adds the reading of what was there before ([`super::commit`]), the doing
//! ([`super::commit`]) and the undoing ([`super::undo`]): the compiler asks for all three.

use std::fmt;

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::config::settings::Rlimit;
use crate::config::values::{Limit, ModuleName, RootPath, Sha256, SysctlKey, UnitName};

/// One primitive write.
#[derive(Debug, Clone)]
pub enum Change {
    /// Put a whole file in place, atomically.
    Put {
        /// Where.
        path: RootPath,
        /// Its content.
        body: Body,
        /// Its mode and owner.
        meta: Meta,
    },
    /// Keep a copy of somebody else's file beside it ([`super::file::aside`]), before it is replaced.
    KeepAside {
        /// The file.
        path: RootPath,
    },
    /// Put a symbolic link in place, atomically.
    Link {
        /// Where.
        path: RootPath,
        /// Its target, as it is written into the link.
        to: String,
    },
    /// Make a directory, and those above it that are missing.
    Dir {
        /// Where.
        path: RootPath,
        /// Its mode and owner.
        meta: Meta,
    },
    /// Keep our marked block in a file that others write too; no lines removes the block.
    Block {
        /// The shared file.
        path: RootPath,
        /// What stands between our marks.
        lines: Vec<String>,
    },
    /// Remove a file or link, or a directory if it is empty.
    Remove {
        /// Where.
        path: RootPath,
    },
    /// Remove for good: a secret, or what can be fetched again. Its bytes are not kept, and there is no undo.
    Destroy {
        /// Where.
        path: RootPath,
    },
    /// Set a sysctl of the running kernel.
    Sysctl {
        /// Which.
        key: SysctlKey,
        /// Its value.
        value: String,
    },
    /// Load a kernel module. It stays: unloading one that others use since is not an undo.
    Module {
        /// Which.
        name: ModuleName,
    },
    /// Set a property of a loaded unit at once (`SetUnitProperties`, runtime only).
    Property {
        /// Whose.
        unit: UnitName,
        /// Which.
        name: PropertyName,
        /// Its value; [`u64::MAX`] is systemd's "infinity".
        value: u64,
    },
    /// Set resource limits of a unit's processes that already run (`prlimit`).
    Rlimits {
        /// Whose processes.
        unit: UnitName,
        /// What each gets.
        processes: Vec<ProcessLimit>,
    },
    /// Queue a job for a unit and wait for its result.
    Job {
        /// Whose.
        unit: UnitName,
        /// Which.
        verb: Verb,
    },
}

/// Where files are fetched to before they are verified and placed: on the same file system as their place.
pub const SCRATCH: &str = "/opt/nodeagent/partial";

/// The content of a file that is put in place.
#[derive(Clone)]
pub enum Body {
    /// These bytes. The bytes that they replace are kept for undo.
    Bytes(Vec<u8>),
    /// A key, or a certificate that is worth nothing without its key. Only its digest is recorded, and undo leaves it
    /// where it is: the bytes that it replaced are gone, and what was signed for it is in use.
    Credential(Zeroizing<Vec<u8>>),
    /// The bytes that were there before, as the ledger keeps them.
    Kept(Sha256),
    /// A verified file in the scratch directory, which is moved into place.
    Scratch {
        /// Where it is now.
        from: RootPath,
        /// What was verified.
        sha256: Sha256,
    },
    /// A receipt for placed files, completed at commit with the numbers that they then have.
    Receipt {
        /// What vouched for them, in a word: `pinned`, `lock`, `published`.
        trust: String,
        /// The digest of the archive that they were taken out of.
        archive: Option<Sha256>,
        /// The names of the container images that are in it.
        images: Vec<String>,
        /// Each file, and the digest that was verified.
        files: Vec<(RootPath, Sha256)>,
    },
}

/// The bytes of a [`Body`] are never part of a message.
impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bytes(bytes) => write!(f, "Bytes({} bytes)", bytes.len()),
            Self::Credential(_) => f.write_str("Credential"),
            Self::Kept(sha256) => write!(f, "Kept({sha256})"),
            Self::Scratch { from, .. } => write!(f, "Scratch({from})"),
            Self::Receipt { files, .. } => write!(f, "Receipt({} files)", files.len()),
        }
    }
}

/// Mode and owner of a file or directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Meta {
    /// Permission bits, `0o644` and the like.
    pub mode: u32,
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
}

impl Meta {
    /// A file that everyone may read.
    pub const FILE: Self = Self::root(0o644);
    /// A file that root alone may read.
    pub const SECRET: Self = Self::root(0o600);
    /// A program, or a directory that everyone may enter.
    pub const PROGRAM: Self = Self::root(0o755);

    /// Whether only its owner may read it: its content is then nobody else's business.
    pub fn is_secret(self) -> bool {
        self.mode.trailing_zeros() >= 6
    }

    /// Root's, with this mode.
    pub const fn root(mode: u32) -> Self {
        Self { mode, uid: 0, gid: 0 }
    }
}

/// The properties that are set on running units.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum PropertyName {
    /// Most tasks of the unit's control group (systemd.resource-control(5)).
    TasksMax,
}

impl PropertyName {
    /// The name on the bus and in a unit file.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::TasksMax => "TasksMax",
        }
    }
}

/// One resource limit of one process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessLimit {
    /// Its number.
    pub pid: u32,
    /// When it started, in clock ticks since the boot: another process may get its number.
    pub started: u64,
    /// Which limit.
    pub rlimit: Rlimit,
    /// Soft and hard.
    pub limit: Limit,
}

/// What a unit job does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verb {
    /// Start it.
    Start,
    /// Stop it.
    Stop,
    /// Restart it if it runs.
    Restart,
}

impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Start => "start",
            Self::Stop => "stop",
            Self::Restart => "restart",
        })
    }
}

/// What a unit has yet to see of a Change.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Debt {
    /// systemd must read its unit files again.
    DaemonReload,
    /// The unit must be restarted if it runs.
    Restart(UnitName),
}

impl fmt::Display for Debt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::DaemonReload => f.write_str("daemon-reload"),
            Self::Restart(unit) => write!(f, "restart {unit}"),
        }
    }
}
