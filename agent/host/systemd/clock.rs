//! Whether the clock is right, as systemd-timedated has it from the kernel (org.freedesktop.timedate1(5)). The agent's own
//! sandbox forbids adjtimex(2).

use std::time::Duration;

use super::{PropertiesProxy, Systemd, SystemdError};

/// How long timedated may take: systemd starts it when it is asked. Where there is none, nobody need wait for it long.
const DEADLINE: Duration = Duration::from_secs(5);

const NAME: &str = "org.freedesktop.timedate1";

/// Whether the clock is right, as far as the machine itself knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClockSync {
    /// A time service has set it.
    Done,
    /// A time service is at work and has not set it yet.
    UnderWay,
    /// No time service is enabled.
    Nobody,
}

impl Systemd {
    /// Whether a time service has set the clock.
    pub async fn clock(&self) -> Result<ClockSync, SystemdError> {
        let read = async |link: &super::Link| {
            let builder = PropertiesProxy::builder(&link.connection).destination(NAME);
            let builder = builder.path("/org/freedesktop/timedate1");
            builder.cache_properties(zbus::proxy::CacheProperties::No).build().await?.get_all(NAME).await
        };
        let all = self.bounded("ask", "systemd-timedated for the clock's state", DEADLINE, read).await?;
        let is = |name: &str| all.get(name).and_then(|v| bool::try_from(v).ok()).unwrap_or_default();
        Ok(match (is("NTPSynchronized"), is("NTP")) {
            (true, _) => ClockSync::Done,
            (false, true) => ClockSync::UnderWay,
            (false, false) => ClockSync::Nobody,
        })
    }
}
