//! systemd over D-Bus: units, jobs, properties, reload. Nothing else in this program talks to systemd.
//!
//! The interface is systemd's own (org.freedesktop.systemd1(5)). Every call has a deadline. A call that the bus or systemd
//! lost, because either was being restarted, is made again until then: each may be made twice.

mod clock;
mod error;
mod jobs;
pub mod report;

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::Instant;
use zbus::{ObjectPath, OwnedObjectPath, OwnedVariant, Variant};

pub use self::clock::ClockSync;
use self::error::is_transient;
pub use self::error::{JobEnd, SystemdError};
use self::report::Report;
use super::retry::{GaveUp, Policy, Tried, retry};
use super::seen::{ManagerSight, UnitSight};
use crate::config::settings::Rlimit;
use crate::config::values::{Limit, UnitName};
use crate::engine::change::PropertyName;

/// How long systemd may take to answer a call. Jobs have their own deadline.
const CALL_DEADLINE: Duration = Duration::from_secs(30);

/// How long a daemon-reload may take: systemd reads every unit file and runs every generator.
const RELOAD_DEADLINE: Duration = Duration::from_mins(2);

/// Interfaces of units.
const UNIT: &str = "org.freedesktop.systemd1.Unit";
const SERVICE: &str = "org.freedesktop.systemd1.Service";

#[zbus::proxy(
    interface = "org.freedesktop.systemd1.Manager",
    default_service = "org.freedesktop.systemd1",
    default_path = "/org/freedesktop/systemd1",
    assume_defaults = true
)]
trait Manager {
    fn subscribe(&self) -> zbus::Result<()>;
    fn reload(&self) -> zbus::Result<()>;
    fn get_unit_processes(&self, name: &str) -> zbus::Result<Vec<(String, u32, String)>>;
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

/// The connection to systemd: made when it is first needed, and again when it was lost.
#[derive(Default)]
pub struct Systemd {
    link: Mutex<Option<Link>>,
}

/// One connection.
#[derive(Clone)]
struct Link {
    connection: zbus::Connection,
    manager: ManagerProxy<'static>,
}

impl Link {
    async fn make() -> zbus::Result<Self> {
        let connection = zbus::Connection::system().await?;
        let manager = ManagerProxy::new(&connection).await?;
        manager.subscribe().await?;
        Ok(Self { connection, manager })
    }
}

impl Systemd {
    /// Connects to the system bus, unless it is connected.
    pub async fn connect(&self) -> Result<(), SystemdError> {
        self.call("connect to", "systemd", async |_| Ok(())).await
    }

    /// The unit as systemd has it loaded; nothing if there is no such unit.
    pub async fn unit(&self, unit: &UnitName) -> Result<Option<UnitSight>, SystemdError> {
        let all = self.properties(unit.as_str(), UNIT).await?;
        if text(&all, "LoadState") == "not-found" {
            return Ok(None);
        }
        let own = self.own_properties(unit).await?;
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

    /// Tells that something about the unit changed. What happens after this returns is not missed.
    pub async fn changes(&self, unit: &UnitName) -> Result<zbus::proxy::SignalStream<'static>, SystemdError> {
        let name = unit.as_str();
        let listen = async |link: &Link| {
            let path = link.manager.load_unit(name).await?;
            let builder = PropertiesProxy::builder(&link.connection).path(path);
            let proxy = builder.cache_properties(zbus::proxy::CacheProperties::No).build().await?;
            proxy.inner().receive_signal("PropertiesChanged").await
        };
        self.call("listen to", name, listen).await
    }

    /// The main process of a service, if it has one.
    pub async fn main_pid(&self, unit: &UnitName) -> Result<Option<u32>, SystemdError> {
        let own = self.own_properties(unit).await?;
        Ok(own.get("MainPID").and_then(|v| u32::try_from(v).ok()).filter(|pid| *pid != 0))
    }

    /// The processes of a unit's own control group; those of groups below it are others' to limit. Nothing if there is no
    /// such unit.
    pub async fn processes(&self, unit: &UnitName) -> Result<Option<Vec<u32>>, SystemdError> {
        if self.unit(unit).await?.is_none() {
            return Ok(None);
        }
        let own = text(&self.own_properties(unit).await?, "ControlGroup");
        let name = unit.as_str();
        let all = self.call("list the processes of", name, async |link| link.manager.get_unit_processes(name).await);
        Ok(Some(all.await?.into_iter().filter(|(group, ..)| *group == own).map(|(_, pid, _)| pid).collect()))
    }

    /// The files that a unit is loaded from, in the order in which systemd reads them.
    pub async fn unit_files(&self, unit: &str) -> Result<Vec<String>, SystemdError> {
        let all = self.properties(unit, UNIT).await?;
        let fragment = Some(text(&all, "FragmentPath")).filter(|path| !path.is_empty());
        let drop_ins = all.get("DropInPaths").and_then(|v| Vec::<String>::try_from(v.try_clone().ok()?).ok());
        Ok(fragment.into_iter().chain(drop_ins.unwrap_or_default()).collect())
    }

    /// What systemd itself says. The files that it has this from are the caller's to add.
    pub async fn manager(&self) -> Result<ManagerSight, SystemdError> {
        let read = async |link: &Link| {
            let path = link.manager.inner().path().to_owned();
            let builder = PropertiesProxy::builder(&link.connection).path(path);
            let proxy = builder.cache_properties(zbus::proxy::CacheProperties::No).build().await?;
            proxy.get_all("org.freedesktop.systemd1.Manager").await
        };
        let all = self.call("read the properties of", "systemd", read).await?;
        let (soft, hard) = (number(&all, "DefaultLimitNOFILESoft"), number(&all, "DefaultLimitNOFILE"));
        Ok(ManagerSight {
            version: text(&all, "Version"),
            tasks_max: number(&all, "DefaultTasksMax"),
            no_file: soft.zip(hard).map(|(soft, hard)| Limit { soft, hard }),
            files: Vec::new(),
        })
    }

    /// Makes systemd read all unit files again, and its own defaults.
    pub async fn reload(&self) -> Result<(), SystemdError> {
        self.bounded("reload", "systemd", RELOAD_DEADLINE, async |link| link.manager.reload().await).await
    }

    /// Sets a property of a loaded unit at once, for this boot only.
    pub async fn set_property(&self, unit: &UnitName, name: PropertyName, value: u64) -> Result<(), SystemdError> {
        let set = async |link: &Link| {
            let properties = [(name.as_str(), Variant::from(value))];
            link.manager.set_unit_properties(unit.as_str(), true, &properties).await
        };
        self.call("set TasksMax of", unit.as_str(), set).await
    }

    /// What a unit says of itself; with `lines`, also the last ones of its journal. What cannot be read is left out: this
    /// stands behind a message that matters more.
    pub(super) async fn report(&self, unit: &UnitName, lines: bool) -> Report {
        let Ok(all) = self.properties(unit.as_str(), UNIT).await else { return Report::default() };
        let own = self.own_properties(unit).await.unwrap_or_default();
        let ended = |name: &str| own.get(name).and_then(|v| i32::try_from(v).ok()).unwrap_or_default();
        let exit = match (ended("ExecMainCode"), ended("ExecMainStatus")) {
            (_, 0) => String::new(),
            // The codes of waitid(2): 1 is CLD_EXITED, 2 CLD_KILLED, 3 CLD_DUMPED.
            (2 | 3, signal) => format!("signal {signal}"),
            (_, status) => format!("exit status {status}"),
        };
        // When it last began to be something else than inactive.
        let since = number(&all, "InactiveExitTimestamp").filter(|since| lines && *since > 0);
        let last = match since {
            Some(since) => report::last_lines(unit, since).await.unwrap_or_default(),
            None => Vec::new(),
        };
        let result = Some(text(&own, "Result")).filter(|result| result != "success").unwrap_or_default();
        let says = text(&own, "StatusText");
        Report { active: text(&all, "ActiveState"), sub: text(&all, "SubState"), result, exit, says, last }
    }

    /// The properties that units of a service have; none for other types.
    async fn own_properties(&self, unit: &UnitName) -> Result<PropertyMap, SystemdError> {
        match unit.as_str().rsplit_once('.') {
            Some((_, "service")) => self.properties(unit.as_str(), SERVICE).await,
            _ => Ok(PropertyMap::new()),
        }
    }

    async fn properties(&self, unit: &str, interface: &str) -> Result<PropertyMap, SystemdError> {
        let read = async |link: &Link| {
            let path = link.manager.load_unit(unit).await?;
            let builder = PropertiesProxy::builder(&link.connection).path(path);
            builder.cache_properties(zbus::proxy::CacheProperties::No).build().await?.get_all(interface).await
        };
        self.call("read the properties of", unit, read).await
    }

    /// Asks for signals once more. Whoever is subscribed already is told so, which is as good.
    async fn subscribe_again(&self) {
        let _ = self.call("subscribe to", "systemd", async |link| Ok(link.manager.subscribe().await.ok())).await;
    }

    async fn call<T>(
        &self,
        doing: &'static str,
        object: &str,
        call: impl AsyncFn(&Link) -> zbus::Result<T>,
    ) -> Result<T, SystemdError> {
        self.bounded(doing, object, CALL_DEADLINE, call).await
    }

    /// Makes a call, and makes it again while the bus or systemd is being restarted.
    async fn bounded<T>(
        &self,
        doing: &'static str,
        object: &str,
        after: Duration,
        call: impl AsyncFn(&Link) -> zbus::Result<T>,
    ) -> Result<T, SystemdError> {
        let failed = |cause: zbus::Error| {
            let again = is_transient(&cause);
            let error = SystemdError::Call { doing, object: object.to_owned(), cause: Box::new(cause) };
            if again { Tried::Transient(error) } else { Tried::Permanent(error) }
        };
        let attempt = async || call(&self.link().await?).await.map_err(failed);
        retry(Instant::now() + after, &Policy::default(), |_, _| (), attempt).await.map_err(|gave_up| match gave_up {
            GaveUp::Permanent { error, .. } | GaveUp::Deadline { last: Some(error), .. } => error,
            GaveUp::Deadline { last: None, .. } => SystemdError::Silent { doing, object: object.to_owned(), after },
        })
    }

    /// The connection. One that cannot be made at first is an error at once; one that was lost will be back.
    async fn link(&self) -> Result<Link, Tried<SystemdError>> {
        let mut slot = self.link.lock().await;
        if let Some(link) = slot.as_ref().filter(|link| !link.connection.is_closed()) {
            return Ok(link.clone());
        }
        match Link::make().await {
            Ok(link) => Ok(slot.insert(link).clone()),
            Err(error) => {
                let again = slot.is_some();
                let error = SystemdError::NoBus(Box::new(error));
                Err(if again { Tried::Transient(error) } else { Tried::Permanent(error) })
            }
        }
    }
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
