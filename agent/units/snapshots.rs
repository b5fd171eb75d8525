//! Snapshots of etcd: the unit that takes one, its timer, and what of both follows from the settings.

use super::retired::{Gone, retire};
use super::{RootPath, UNIT_DIR, planned, service, writable};
use crate::config::settings::Settings;
use crate::config::values::UnitName;
use crate::engine::change::{Debt, Meta};
use crate::engine::file::{ManagedDir, ManagedFile};
use crate::engine::resource::{Planned, Thing};
use crate::engine::unitfile::UnitFile;

const SERVICE: (&str, &str) =
    ("nodeagent-etcd-snapshot.service", include_str!("../../units/nodeagent-etcd-snapshot.service"));
const TIMER: (&str, &str) =
    ("nodeagent-etcd-snapshot.timer", include_str!("../../units/nodeagent-etcd-snapshot.timer"));

/// The directory that the unit file itself makes and may write to (`StateDirectory=`).
const USUAL: &str = "/var/lib/etcd-snapshots";

/// Where the timer is told how often, below the units' directory.
const EVERY_DROP_IN: &str = "nodeagent-etcd-snapshot.timer.d/80-nodeagent-every.conf";

/// Where the unit is told of another one, below the units' directory.
const DIR_DROP_IN: &str = "nodeagent-etcd-snapshot.service.d/80-nodeagent-dir.conf";

/// Members that were made together read their stores one after the other: spread over a tenth of the time between two.
const SPREAD: u64 = 10;

/// What a member's snapshots need, and the start of their timer; where they are switched off, its end.
pub fn plan(settings: &Settings, all: &mut Vec<Planned>) -> Vec<Planned> {
    let snapshots = &settings.etcd.snapshots;
    let why = settings.origins.of("etcd.snapshots");
    let timer = UnitName::literal(TIMER.0);
    let dir = RootPath::literal(UNIT_DIR);
    if !snapshots.enabled {
        let beside = [EVERY_DROP_IN, DIR_DROP_IN, SERVICE.0].map(|name| dir.join(name));
        retire(TIMER.0, "timers.target", &beside, &why, all);
        return Vec::new();
    }
    let mut after = Vec::new();
    let mut file = |name: &str, path: RootPath, text: &str, owes: Vec<Debt>| {
        after.push(Thing::Stat(path.clone()));
        let file = ManagedFile::unit(path, &UnitFile::parse(text));
        all.push(planned(name.to_owned(), &why, owes, Box::new(file)));
    };
    file(SERVICE.0, dir.join(SERVICE.0), SERVICE.1, vec![Debt::DaemonReload]);
    let every = snapshots.every;
    let spread = every.duration().as_secs() / SPREAD;
    let text = format!(
        "# Written by nodeagent: what etcd.snapshots.every says.\n\
         [Timer]\nOnCalendar=\nOnCalendar={}\nRandomizedDelaySec={spread}s\n",
        every.calendar()
    );
    file(
        "etcd-snapshots-every",
        dir.join(EVERY_DROP_IN),
        &text,
        vec![Debt::DaemonReload, Debt::Restart(timer.clone())],
    );
    if snapshots.dir.as_str() == USUAL {
        let files = vec![dir.join(DIR_DROP_IN)];
        let gone = Gone { what: "another directory of snapshots".to_owned(), files, links: Vec::new(), after: None };
        all.push(planned("etcd-snapshots-path-gone".to_owned(), &why, vec![Debt::DaemonReload], Box::new(gone)));
    } else {
        // With the dash: without it systemd would not start the agent where the directory is gone, and nobody would say so.
        let may_write = writable(&snapshots.dir).replacen("=\"", "=\"-", 1);
        let text = format!("# Written by nodeagent: where etcd.snapshots.dir is.\n[Service]\n{may_write}");
        let path = dir.join(DIR_DROP_IN);
        file("etcd-snapshots-path", path, &text, vec![Debt::DaemonReload]);
        // The unit cannot be given a directory that is not there.
        let made = ManagedDir { path: snapshots.dir.clone(), meta: Meta::root(0o700) };
        after.push(Thing::Stat(snapshots.dir.clone()));
        all.push(planned("etcd-snapshots-dir".to_owned(), &why, Vec::new(), Box::new(made)));
    }
    vec![service(&timer, TIMER.1, after, &why, all)]
}
