//! Whether the clock can be relied on, before anything is judged by it: certificates above all.
//!
//! A machine that boots may think that it is 1970, or be right although nothing has said so. So a clock that a time service
//! is about to set is waited for, and then only one that is wrong for sure is refused: before the CA's start, before this
//! program was built, or, when the signer is asked, minutes from the signer's (`host/http.rs`).

use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use crate::certs::authority::{Authority, AuthorityFlaw};
use crate::config::settings::Settings;
use crate::engine::fault::{Class, Explain, Fault};
use crate::host::systemd::ClockSync;
use crate::host::{Host, clock};
use crate::journal::{Event, Teller};

/// How long a time service may take: systemd-timesyncd's first answer comes within seconds, or its server is not reached.
const PATIENCE: Duration = Duration::from_secs(30);

/// How often it is asked.
const PAUSE: Duration = Duration::from_millis(500);

/// When this program was built, in seconds since the epoch: where the build says so, as `make build` does.
const BUILT: Option<&str> = option_env!("SOURCE_DATE_EPOCH");

/// The clock cannot be relied on.
#[derive(Debug, thiserror::Error)]
enum ClockError {
    /// It is wrong for sure.
    #[error("rely on the clock: it is {now}, and this program was built on {built}")]
    BeforeBuild { now: String, built: String },
    /// The configuration asks for more than a good guess.
    #[error("rely on the clock: {why} (clock.requireSync)")]
    Unsynchronised { why: String },
}

impl Explain for ClockError {
    fn class(&self) -> Class {
        match self {
            Self::BeforeBuild { .. } => Class::Failed,
            Self::Unsynchronised { .. } => Class::Deadline,
        }
    }

    fn advice(&self) -> Option<String> {
        Some(
            match self {
                Self::BeforeBuild { .. } => {
                    "set this machine's clock, or enable a time service (timedatectl set-ntp true)"
                }
                Self::Unsynchronised { .. } => "see timedatectl; a time service must be enabled and reach its servers",
            }
            .to_owned(),
        )
    }
}

/// Waits for the clock as long as that can help; refuses one that is wrong, and warns of one that nothing has set.
pub async fn ready(settings: &Settings, host: &Host, tell: &Teller) -> Result<(), Fault> {
    if !host.is_live() {
        return Ok(());
    }
    let end = Instant::now() + PATIENCE;
    let mut told = false;
    loop {
        let unset = unset(host).await;
        let Some((why, may_change)) = unset else { return wrong(settings, host, clock::now()) };
        if !may_change || Instant::now() >= end {
            wrong(settings, host, clock::now())?;
            if settings.clock.require_sync {
                return Err(ClockError::Unsynchronised { why }.into());
            }
            tell.tell(&Event::ClockUnsynchronised { why: &why });
            return Ok(());
        }
        if !told {
            tell.tell(&Event::ClockAwaited { why: &why });
            told = true;
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Why the clock is not known to be set, and whether that may change by itself; nothing if it is set.
async fn unset(host: &Host) -> Option<(String, bool)> {
    let systemd = match host.systemd().await {
        Ok(systemd) => systemd,
        Err(error) => return Some((error.to_string(), false)),
    };
    match systemd.clock().await {
        Ok(ClockSync::Done) => None,
        Ok(ClockSync::UnderWay) => Some(("a time service is enabled and has not set it yet".to_owned(), true)),
        Ok(ClockSync::Nobody) => Some(("no time service is enabled, so nothing sets it".to_owned(), false)),
        Err(error) => Some((error.to_string(), false)),
    }
}

/// Refuses a time that cannot be: before the CA's certificate began, or before this program was built.
fn wrong(settings: &Settings, host: &Host, now: SystemTime) -> Result<(), Fault> {
    let built = BUILT.and_then(|seconds| seconds.parse().ok());
    not_before(built, now)?;
    // Whatever else is wrong with the file is the certs step's to say.
    let ca = &settings.certs.ca;
    let pem = host.root.read(ca).ok().flatten();
    match Authority::read(ca, pem.as_deref(), now) {
        Err(error) if matches!(error.flaw, AuthorityFlaw::NotYetValid { .. }) => Err(error.into()),
        _ => Ok(()),
    }
}

fn not_before(built: Option<u64>, now: SystemTime) -> Result<(), ClockError> {
    match built {
        Some(built) if clock::seconds(now) < built => {
            Err(ClockError::BeforeBuild { now: clock::text(now), built: clock::text_of(built) })
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;
    use crate::certs::testing::{Ca, CaKind, DAY, now};
    use crate::engine::change::Meta;
    use crate::host::root::Root;

    #[test]
    fn a_ca_that_has_yet_to_begin_means_a_clock_that_is_behind() {
        let dir = tempfile::tempdir().expect("a directory");
        let host = Host::new(Root::open(dir.path()).expect("a root"));
        let settings = Settings::sample();
        let file = &settings.certs.ca;
        host.root.make_own_dirs(&file.parent(), Meta::PROGRAM).expect("its directory");
        let judge = |from, until| {
            host.root.put(file, &Ca::new(CaKind::Ec, true, from, until).pem(), Meta::FILE).expect("a CA");
            wrong(&settings, &host, now())
        };
        let fault = judge(DAY, 2 * DAY).expect_err("it starts tomorrow");
        assert!(fault.to_string().contains("CN=test-ca starts on"), "{fault}");
        assert_eq!((fault.class, fault.advice.as_deref()), (Class::Verification, Some("set this machine's clock")));
        // One that is over may as well be over: what is wrong with it is told by whatever needs it.
        judge(-2 * DAY, -DAY).expect("the clock may be right");
        judge(-DAY, DAY).expect("the clock may be right");
    }

    #[test]
    fn no_machine_is_older_than_its_program() {
        let at = |seconds| UNIX_EPOCH + Duration::from_secs(seconds);
        for (built, now, good) in
            [(None, 0, true), (Some(1000), 1000, true), (Some(1000), 1001, true), (Some(1000), 999, false)]
        {
            let got = not_before(built, at(now));
            assert_eq!(got.is_ok(), good, "built {built:?}, now {now}: {got:?}");
        }
        let error = not_before(Some(1_795_219_200), at(0)).expect_err("1970");
        assert_eq!(
            error.to_string(),
            "rely on the clock: it is 1970-01-01T00:00:00Z, and this program was built on 2026-11-21T00:00:00Z"
        );
    }
}
