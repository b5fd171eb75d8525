//! What systemd answers when it does not do what was asked: each reason its own message and its own advice.

use std::fmt;
use std::time::Duration;

use super::report::Report;
use crate::config::values::UnitName;
use crate::engine::change::Verb;
use crate::engine::fault::{Class, Explain};

/// systemd did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum SystemdError {
    /// There is no system bus.
    #[error("connect to the system bus: {0}")]
    NoBus(#[source] Box<zbus::Error>),
    /// A call failed.
    #[error("{doing} {object}: {}", says(cause))]
    Call {
        /// What was asked.
        doing: &'static str,
        /// Of whom.
        object: String,
        /// systemd's answer.
        #[source]
        cause: Box<zbus::Error>,
    },
    /// A call was not answered.
    #[error("{doing} {object}: no answer in {} s", after.as_secs())]
    Silent {
        /// What was asked.
        doing: &'static str,
        /// Of whom.
        object: String,
        /// The deadline that passed.
        after: Duration,
    },
    /// A job did not end well.
    #[error("{verb} {unit}: {end}{report}")]
    Job {
        /// What was asked.
        verb: Verb,
        /// Of which unit.
        unit: UnitName,
        /// How the job ended.
        end: JobEnd,
        /// What the unit itself says.
        report: Box<Report>,
    },
    /// The bus went away while a job ran, and did not come back.
    #[error("{verb} {unit}: the system bus was lost before the job ended, and is not back: {cause}")]
    BusLost {
        /// What was asked.
        verb: Verb,
        /// Of which unit.
        unit: UnitName,
        /// Why it could not be reached again.
        cause: String,
    },
    /// A job did not end in time. It goes on.
    #[error("{verb} {unit}: not finished after {} s{report}", after.as_secs())]
    JobDeadline {
        /// What was asked.
        verb: Verb,
        /// Of which unit.
        unit: UnitName,
        /// The deadline that passed.
        after: Duration,
        /// What the unit itself says.
        report: Box<Report>,
    },
}

/// How a job ended that did not end well: the results of `JobRemoved` (org.freedesktop.systemd1(5)), told further apart
/// by what the unit says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JobEnd {
    /// The unit failed.
    Failed,
    /// The unit was started too often in too short a time.
    StartLimit,
    /// The unit did not come up in the time that it has itself (`TimeoutStartSec=`).
    UnitTimeout,
    /// The job waited longer than it may (`JobTimeoutSec=`).
    JobTimeout,
    /// Units that it requires failed.
    Blocked(Vec<String>),
    /// Somebody cancelled the job.
    Canceled,
    /// What else systemd says: `assert`, `unsupported` …
    Other(String),
}

impl fmt::Display for JobEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed => f.write_str("it failed"),
            Self::StartLimit => f.write_str("it was started too often in too short a time, and systemd gave up"),
            Self::UnitTimeout => f.write_str("it did not come up in the time that its unit gives it"),
            Self::JobTimeout => f.write_str("the job waited longer than its unit's JobTimeoutSec= lets it"),
            Self::Blocked(by) if by.is_empty() => f.write_str("blocked: a unit that it requires failed"),
            Self::Blocked(by) => write!(f, "blocked by {}, which it requires", by.join(" and ")),
            Self::Canceled => f.write_str("somebody cancelled the job, or queued another that excludes it"),
            Self::Other(result) => write!(f, "systemd says {result}"),
        }
    }
}

/// Why systemd refused a call, by the error's name on the bus.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Refusal {
    Masked,
    NoSuchUnit,
    BadUnit,
    NotPermitted,
    ShuttingDown,
    Destructive,
}

fn refusal(error: &zbus::Error) -> Option<Refusal> {
    match error {
        zbus::Error::FDO(fdo) => match fdo.as_ref() {
            zbus::fdo::Error::AccessDenied(_) | zbus::fdo::Error::InteractiveAuthorizationRequired(_) => {
                Some(Refusal::NotPermitted)
            }
            _ => None,
        },
        zbus::Error::MethodError(name, ..) => match name.as_str().strip_prefix("org.freedesktop.systemd1.")? {
            "UnitMasked" => Some(Refusal::Masked),
            "NoSuchUnit" => Some(Refusal::NoSuchUnit),
            "BadUnitSetting" | "LoadFailed" => Some(Refusal::BadUnit),
            "ShuttingDown" => Some(Refusal::ShuttingDown),
            "TransactionIsDestructive" => Some(Refusal::Destructive),
            _ => None,
        },
        _ => None,
    }
}

/// The answer in systemd's own words, without the name that they have on the bus.
fn says(error: &zbus::Error) -> String {
    match error {
        zbus::Error::MethodError(_, Some(text), _) => text.trim_end_matches('.').to_owned(),
        other => other.to_string(),
    }
}

/// Whether the same call may succeed in a moment: the bus or systemd itself is being restarted.
pub(super) fn is_transient(error: &zbus::Error) -> bool {
    use zbus::fdo::Error as Fdo;
    match error {
        zbus::Error::InputOutput(_) => true,
        zbus::Error::FDO(fdo) => matches!(
            fdo.as_ref(),
            Fdo::Disconnected(_)
                | Fdo::NoReply(_)
                | Fdo::ServiceUnknown(_)
                | Fdo::NameHasNoOwner(_)
                | Fdo::Timeout(_)
                | Fdo::TimedOut(_)
                | Fdo::SpawnChildExited(_)
                | Fdo::SpawnExecFailed(_)
                | Fdo::SpawnFailed(_)
        ),
        _ => false,
    }
}

impl Explain for SystemdError {
    fn class(&self) -> Class {
        match self {
            Self::Silent { .. } | Self::JobDeadline { .. } => Class::Deadline,
            _ => Class::Failed,
        }
    }

    fn advice(&self) -> Option<String> {
        Some(match self {
            Self::NoBus(_) => {
                "nodeagent needs systemd and its system bus (dbus.service); use --root DIR to work on another machine's tree".to_owned()
            }
            Self::Call { object, cause, .. } => refused(object, cause),
            Self::Silent { .. } => "see journalctl -b _PID=1".to_owned(),
            Self::BusLost { .. } => "the job goes on; run again when dbus.service is back".to_owned(),
            Self::Job { unit, end, .. } => end.advice(unit),
            Self::JobDeadline { unit, .. } => format!("the job goes on; see systemctl status {unit}"),
        })
    }
}

fn refused(object: &str, cause: &zbus::Error) -> String {
    match refusal(cause) {
        Some(Refusal::Masked) => {
            format!("somebody masked it so that nothing starts it: systemctl unmask {object}, if that is over")
        }
        Some(Refusal::NoSuchUnit) => format!("install what brings {object}, then run again"),
        Some(Refusal::BadUnit) => format!("systemd-analyze verify {object} says what is wrong with its file"),
        Some(Refusal::NotPermitted) => "run as root; nobody is there to answer when polkit asks".to_owned(),
        Some(Refusal::ShuttingDown) => "the machine is shutting down; the next boot goes on".to_owned(),
        Some(Refusal::Destructive) => {
            "a job that excludes it is queued (systemctl list-jobs); run again later".to_owned()
        }
        None => "see journalctl -b _PID=1".to_owned(),
    }
}

impl JobEnd {
    fn advice(&self, unit: &UnitName) -> String {
        match self {
            Self::Failed | Self::Other(_) => format!("see journalctl -b -u {unit}"),
            Self::StartLimit => {
                format!("mend the cause (journalctl -b -u {unit}), then systemctl reset-failed {unit} and run again")
            }
            Self::UnitTimeout => format!("see what it waited for: journalctl -b -u {unit}"),
            Self::JobTimeout => format!("see what the job waited for: systemctl list-jobs --before {unit}"),
            Self::Blocked(by) => {
                let by = by.first().map_or_else(|| unit.to_string(), Clone::clone);
                format!("see journalctl -b -u {by}")
            }
            Self::Canceled => "see journalctl -b _PID=1 for who did; run again".to_owned(),
        }
    }
}
