//! Exit codes: one enum, documented in `docs/commands.md`.

use std::process::ExitCode;

use crate::engine::fault::Class;

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Done, or nothing to do.
    Done = 0,
    /// Failed.
    Failed = 1,
    /// Usage or configuration is invalid, and nothing was touched.
    Usage = 2,
    /// A deadline passed.
    Deadline = 3,
    /// A digest, signature or chain did not verify.
    Verification = 4,
    /// Changes are pending (`plan --exit-code` only).
    Pending = 6,
}

impl From<Class> for Exit {
    fn from(class: Class) -> Self {
        match class {
            Class::Failed => Self::Failed,
            Class::Deadline => Self::Deadline,
            Class::Verification => Self::Verification,
            Class::Usage => Self::Usage,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}
