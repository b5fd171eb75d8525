//! systemd over D-Bus: units, jobs, properties, reload. Nothing else in this program talks to systemd.
//!
//! The interface is systemd's own (org.freedesktop.systemd1(5)). Every call has a deadline, a job's result is the one
//! that its `JobRemoved` signal carries, and the signal is subscribed to before the job is queued.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::StreamExt as _;
use zbus::{ObjectPath, OwnedObjectPath, OwnedVariant, Variant};

use super::seen::UnitSight;
use crate::config::settings::Rlimit;
use crate::config::values::UnitName;
use crate::engine::change::{PropertyName, Verb};
use crate::engine::fault::{Class, Explain};

/// How long systemd may take to answer a call. Jobs have their own deadline.
const CALL_DEADLINE: Duration = Duration::from_secs(30);

/// How long a daemon-reload may take: systemd reads every unit file and runs every generator.
const RELOAD_DEADLINE: Duration = Duration::from_mins(2);

#[zbus::proxy(
    interface = "org.freedesktop.systemd1.Manager",
    default_service = "org.freedesktop.systemd1",
    default_path = "/org/freedesktop/systemd1",
    assume_defaults = true
)]
trait Manager {
    fn subscribe(&self) -> zbus::Result<()>;
    fn reload(&self) -> zbus::Result<()>;
    fn load_unit(&self, name: &str) -> zbus::Result<OwnedObjectPath>;
    fn start_unit(&self, name: &str, mode: &str) -> zbus::Result<OwnedObjectPath>;
    fn stop_unit(&self, name: &str, mode: &str) -> zbus::Result<OwnedObjectPath>;
    fn try_restart_unit(&self, name: &str, mode: &str) -> zbus::Result<OwnedObjectPath>;
    fn set_unit_properties(&self, name: &str, runtime: bool, properties: &[(&str, Variant<'_>)]) -> zbus::Result<()>;
    #[zbus(signal)]
    fn job_removed(&self, id: u32, job: ObjectPath<'_>, unit: &str, result: &str) -> zbus::Result<()>;
}

#[zbus::proxy(interface = "org.freedesktop.DBus.Properties", default_service = "org.freedesktop.systemd1")]
trait Properties {
    fn get_all(&self, interface: &str) -> zbus::Result<BTreeMap<String, OwnedVariant>>;
}

/// systemd did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum SystemdError {
    /// There is no system bus.
    #[error("connect to the system bus: {0}")]
    NoBus(#[source] Box<zbus::Error>),
    /// A call failed.
    #[error("{doing} {object}: {cause}")]
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
    #[error("{verb} {unit}: {result}{detail}")]
    Job {
        /// What was asked.
        verb: Verb,
        /// Of which unit.
        unit: UnitName,
        /// The job's result (`failed`, `dependency`, `timeout` …).
        result: String,
        /// What the unit itself says.
        detail: String,
    },
    /// The bus went away while a job ran.
    #[error("{verb} {unit}: the system bus was lost before the job ended")]
    BusLost {
        /// What was asked.
        verb: Verb,
        /// Of which unit.
        unit: UnitName,
    },
    /// A job did not end in time. It goes on.
    #[error("{verb} {unit}: not finished after {} s{detail}", after.as_secs())]
    JobDeadline {
        /// What was asked.
        verb: Verb,
        /// Of which unit.
        unit: UnitName,
        /// The deadline that passed.
        after: Duration,
        /// What the unit itself says.
        detail: String,
    },
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
            Self::Call { .. } | Self::Silent { .. } => "see journalctl -b _PID=1".to_owned(),
            Self::BusLost { .. } => "the job goes on; run again when dbus.service is back".to_owned(),
            Self::Job { unit, .. } => format!("see journalctl -b -u {unit}"),
            Self::JobDeadline { unit, .. } => format!("the job goes on; see systemctl status {unit}"),
        })
    }
}

/// The connection to systemd.
pub struct Systemd {
    connection: zbus::Connection,
    manager: ManagerProxy<'static>,
}

impl Systemd {
    /// Connects to the system bus.
    pub async fn connect() -> Result<Self, SystemdError> {
        let no_bus = |error| SystemdError::NoBus(Box::new(error));
        let connection = match tokio::time::timeout(CALL_DEADLINE, zbus::Connection::system()).await {
            Ok(connection) => connection.map_err(no_bus)?,
            Err(_) => {
                return Err(SystemdError::Silent {
                    doing: "connect to",
                    object: "the system bus".into(),
                    after: CALL_DEADLINE,
                });
            }
        };
        let manager = ManagerProxy::new(&connection).await.map_err(no_bus)?;
        let systemd = Self { connection, manager };
        systemd.call("subscribe to", "systemd", systemd.manager.subscribe()).await?;
        Ok(systemd)
    }

    /// The unit as systemd has it loaded; nothing if there is no such unit.
    pub async fn unit(&self, unit: &UnitName) -> Result<Option<UnitSight>, SystemdError> {
        let all = self.properties(unit, "org.freedesktop.systemd1.Unit").await?;
        if text(&all, "LoadState") == "not-found" {
            return Ok(None);
        }
        let own = match unit.as_str().rsplit_once('.') {
            Some((_, "service")) => self.properties(unit, "org.freedesktop.systemd1.Service").await?,
            _ => BTreeMap::new(),
        };
        let rlimits = Rlimit::ALL.into_iter().filter_map(|limit| {
            let hard = number(&own, limit.directive())?;
            let soft = number(&own, &format!("{}Soft", limit.directive()))?;
            Some((limit, soft, hard))
        });
        Ok(Some(UnitSight {
            active: text(&all, "ActiveState"),
            sub: text(&all, "SubState"),
            invocation: bytes_as_hex(&all, "InvocationID"),
            tasks_max: number(&own, "TasksMax"),
            rlimits: rlimits.collect(),
        }))
    }

    /// The main process of a service, if it has one.
    pub async fn main_pid(&self, unit: &UnitName) -> Result<Option<u32>, SystemdError> {
        let own = self.properties(unit, "org.freedesktop.systemd1.Service").await?;
        Ok(own.get("MainPID").and_then(|v| u32::try_from(v).ok()).filter(|pid| *pid != 0))
    }

    /// Makes systemd read all unit files again.
    pub async fn reload(&self) -> Result<(), SystemdError> {
        self.bounded("reload", "systemd", RELOAD_DEADLINE, self.manager.reload()).await
    }

    /// Sets a property of a loaded unit at once, for this boot only.
    pub async fn set_property(&self, unit: &UnitName, name: PropertyName, value: u64) -> Result<(), SystemdError> {
        let properties = [(name.as_str(), Variant::from(value))];
        self.call("set TasksMax of", unit.as_str(), self.manager.set_unit_properties(unit.as_str(), true, &properties))
            .await
    }

    /// Queues all jobs together, so that systemd orders them, and waits for each one's result. Results come in the
    /// order of the jobs. `told` hears each waiting unit's status line about every two seconds.
    pub async fn run_jobs(
        &self,
        jobs: &[(UnitName, Verb)],
        deadline: Duration,
        mut told: impl FnMut(&UnitName, &str),
    ) -> Vec<Result<(), SystemdError>> {
        let mut results: Vec<Option<Result<(), SystemdError>>> = jobs.iter().map(|_| None).collect();
        let mut removed = match self.manager.receive_job_removed().await {
            Ok(stream) => stream,
            Err(error) => {
                let failed = |(unit, _): &(UnitName, Verb)| {
                    Err(call_error("listen for the job of", unit.as_str(), error.clone()))
                };
                return jobs.iter().map(failed).collect();
            }
        };
        let mut waiting: BTreeMap<String, usize> = BTreeMap::new();
        for (at, (unit, verb)) in jobs.iter().enumerate() {
            match self.queue(unit, *verb).await {
                Ok(job) => drop(waiting.insert(job.to_string(), at)),
                Err(error) => results[at] = Some(Err(error)),
            }
        }
        let end = tokio::time::Instant::now() + deadline;
        let mut lost = false;
        let mut look = tokio::time::interval(Duration::from_secs(2));
        look.tick().await;
        while !waiting.is_empty() {
            tokio::select! {
                signal = removed.next() => {
                    let Some(signal) = signal else {
                        lost = true;
                        break;
                    };
                    let Ok(args) = signal.args() else { continue };
                    if let Some(at) = waiting.remove(args.job().as_str()) {
                        let (unit, verb) = &jobs[at];
                        results[at] = Some(self.job_result(unit, *verb, args.result()).await);
                    }
                }
                _ = look.tick() => {
                    for at in waiting.values() {
                        let status = self.detail(&jobs[*at].0).await;
                        told(&jobs[*at].0, &status);
                    }
                }
                () = tokio::time::sleep_until(end) => break,
            }
        }
        let mut all = Vec::with_capacity(jobs.len());
        for (result, (unit, verb)) in results.into_iter().zip(jobs) {
            all.push(match result {
                Some(result) => result,
                None if lost => Err(SystemdError::BusLost { verb: *verb, unit: unit.clone() }),
                None => Err(SystemdError::JobDeadline {
                    verb: *verb,
                    unit: unit.clone(),
                    after: deadline,
                    detail: self.detail(unit).await,
                }),
            });
        }
        all
    }

    async fn queue(&self, unit: &UnitName, verb: Verb) -> Result<OwnedObjectPath, SystemdError> {
        let name = unit.as_str();
        match verb {
            Verb::Start => self.call("start", name, self.manager.start_unit(name, "replace")).await,
            Verb::Stop => self.call("stop", name, self.manager.stop_unit(name, "replace")).await,
            Verb::Restart => self.call("restart", name, self.manager.try_restart_unit(name, "replace")).await,
        }
    }

    async fn job_result(&self, unit: &UnitName, verb: Verb, result: &str) -> Result<(), SystemdError> {
        match result {
            // "skipped" is what a condition that does not hold gives: the unit decided, and systemd calls it success.
            "done" | "skipped" => Ok(()),
            _ => Err(SystemdError::Job {
                verb,
                unit: unit.clone(),
                result: result.to_owned(),
                detail: self.detail(unit).await,
            }),
        }
    }

    /// What a unit says of itself, to stand behind a message: result, exit status and its own status line.
    async fn detail(&self, unit: &UnitName) -> String {
        let Ok(all) = self.properties(unit, "org.freedesktop.systemd1.Unit").await else { return String::new() };
        let own = self.properties(unit, "org.freedesktop.systemd1.Service").await.unwrap_or_default();
        let mut parts = vec![format!("{} ({})", text(&all, "ActiveState"), text(&all, "SubState"))];
        let result = text(&own, "Result");
        if !result.is_empty() && result != "success" {
            parts.push(format!("result {result}"));
        }
        if let Some(status) = own.get("ExecMainStatus").and_then(|v| i32::try_from(v).ok()).filter(|s| *s != 0) {
            parts.push(format!("exit status {status}"));
        }
        let status = text(&own, "StatusText");
        if !status.is_empty() {
            parts.push(format!("it says: {status}"));
        }
        format!(" ({})", parts.join(", "))
    }

    async fn properties(
        &self,
        unit: &UnitName,
        interface: &str,
    ) -> Result<BTreeMap<String, OwnedVariant>, SystemdError> {
        let name = unit.as_str();
        let path = self.call("load", name, self.manager.load_unit(name)).await?;
        let proxy = async {
            let builder = PropertiesProxy::builder(&self.connection).path(path);
            builder.cache_properties(zbus::proxy::CacheProperties::No).build().await?.get_all(interface).await
        };
        self.call("read the properties of", name, proxy).await
    }

    async fn call<T>(
        &self,
        doing: &'static str,
        object: &str,
        call: impl Future<Output = zbus::Result<T>>,
    ) -> Result<T, SystemdError> {
        self.bounded(doing, object, CALL_DEADLINE, call).await
    }

    async fn bounded<T>(
        &self,
        doing: &'static str,
        object: &str,
        after: Duration,
        call: impl Future<Output = zbus::Result<T>>,
    ) -> Result<T, SystemdError> {
        match tokio::time::timeout(after, call).await {
            Ok(answer) => answer.map_err(|error| call_error(doing, object, error)),
            Err(_) => Err(SystemdError::Silent { doing, object: object.to_owned(), after }),
        }
    }
}

fn call_error(doing: &'static str, object: &str, error: zbus::Error) -> SystemdError {
    SystemdError::Call { doing, object: object.to_owned(), cause: Box::new(error) }
}

type PropertyMap = BTreeMap<String, OwnedVariant>;

fn text(all: &PropertyMap, name: &str) -> String {
    all.get(name).and_then(|v| <&str>::try_from(v).ok()).unwrap_or_default().to_owned()
}

fn number(all: &PropertyMap, name: &str) -> Option<u64> {
    all.get(name).and_then(|v| u64::try_from(v).ok())
}

fn bytes_as_hex(all: &PropertyMap, name: &str) -> String {
    use std::fmt::Write as _;
    let bytes = all.get(name).and_then(|v| Vec::<u8>::try_from(v.try_clone().ok()?).ok()).unwrap_or_default();
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
