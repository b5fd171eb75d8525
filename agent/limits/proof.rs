//! Whether limits are in force, and if not, what wins.

use crate::config::settings::UnitLimits;
use crate::config::values::{Limit, UnitName};
use crate::engine::resource::{CannotTell, Seen};
use crate::host::seen::{LimitsSight, UnitSight};

/// Compares what was asked for with systemd's properties, with the main process's own limits and with its control group.
///
/// A unit that is not loaded or does not run has nothing to prove: it gets its limits when it starts.
pub fn prove(unit: &UnitName, wanted: &UnitLimits, seen: &Seen) -> Result<(), CannotTell> {
    let Some(sight) = seen.unit(unit)? else { return Ok(()) };
    let mut wrong = properties(wanted, sight);
    if let Some(process) = seen.limits(unit)? {
        wrong.extend(in_force(wanted, process));
    }
    if wrong.is_empty() { Ok(()) } else { Err(CannotTell::new(unit, wrong.join("; "))) }
}

/// What systemd has loaded and is not what was asked for: a drop-in that sorts later wins.
fn properties(wanted: &UnitLimits, sight: &UnitSight) -> Vec<String> {
    let mut wrong = Vec::new();
    for (rlimit, limit) in &wanted.rlimits {
        let now = sight
            .rlimits
            .iter()
            .find(|(other, ..)| other == rlimit)
            .map(|(_, soft, hard)| Limit { soft: *soft, hard: *hard });
        if let Some(now) = now.filter(|now| now != limit) {
            let name = rlimit.directive();
            wrong.push(format!(
                "systemd has {name}={now}, not {limit}: a later drop-in wins (systemctl cat shows which)"
            ));
        }
    }
    if let (Some(want), Some(now)) = (wanted.tasks_max, sight.tasks_max)
        && want != now
    {
        wrong.push(format!("systemd has TasksMax={}, not {}", text(now), text(want)));
    }
    wrong
}

/// What the running process and its control group have and should not.
///
/// A soft limit above the one asked for is the program's own doing: it may raise its own up to the hard limit, and every
/// Go program does so for its files (Go 1.19 release notes).
fn in_force(wanted: &UnitLimits, process: &LimitsSight) -> Vec<String> {
    let mut wrong = Vec::new();
    for (rlimit, limit) in &wanted.rlimits {
        let Some((_, soft, hard)) = process.rlimits.iter().find(|(other, ..)| other == rlimit) else { continue };
        if *hard == limit.hard && *soft >= limit.soft {
            continue;
        }
        let now = Limit { soft: *soft, hard: *hard };
        let ceiling = process.ceiling.iter().find(|(other, _)| other == rlimit).map(|(_, hard)| *hard);
        let why = match ceiling.filter(|ceiling| *ceiling < limit.hard && *hard == *ceiling) {
            Some(ceiling) => format!("systemd itself has a hard limit of {} here and cannot give more", text(ceiling)),
            None => "it was started before; a restart is needed".to_owned(),
        };
        wrong.push(format!("process {} has {}={now}, not {limit}: {why}", process.pid, rlimit.directive()));
    }
    if let (Some(want), Some(now)) = (wanted.tasks_max, process.pids_max)
        && want != now
    {
        wrong.push(format!("pids.max of its control group is {}, not {}", text(now), text(want)));
    }
    wrong
}

fn text(value: u64) -> String {
    Limit { soft: value, hard: value }.to_string()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::config::settings::Rlimit;
    use crate::engine::resource::Thing;
    use crate::host::seen::Sight;

    fn judge(property: u64, process: u64, ceiling: u64) -> Result<(), CannotTell> {
        let unit = UnitName::literal("containerd.service");
        let limit = Limit { soft: 1024, hard: 524_288 };
        let wanted = UnitLimits { rlimits: BTreeMap::from([(Rlimit::NoFile, limit)]), tasks_max: None, restart: true };
        let sight = UnitSight {
            active: "active".into(),
            sub: "running".into(),
            invocation: "x".into(),
            tasks_max: Some(7),
            rlimits: vec![(Rlimit::NoFile, 1024, property)],
        };
        let limits = LimitsSight {
            pid: 42,
            rlimits: vec![(Rlimit::NoFile, 1024, process)],
            pids_max: None,
            ceiling: vec![(Rlimit::NoFile, ceiling)],
        };
        let seen = Seen(BTreeMap::from([
            (Thing::Unit(unit.clone()), Ok(Sight::Unit(Some(sight)))),
            (Thing::Limits(unit.clone()), Ok(Sight::Limits(Some(limits)))),
        ]));
        prove(&unit, &wanted, &seen)
    }

    #[test]
    fn each_difference_names_what_wins() {
        assert_eq!(judge(524_288, 524_288, Limit::INFINITY), Ok(()));
        for (property, process, ceiling, says) in [
            (1024, 524_288, Limit::INFINITY, "a later drop-in wins"),
            (524_288, 4096, Limit::INFINITY, "a restart is needed"),
            (524_288, 20_000, 20_000, "hard limit of 20000"),
        ] {
            let error = judge(property, process, ceiling).expect_err("something is wrong");
            assert!(error.why.contains(says), "{property} {process} {ceiling}: {error}");
        }
    }
}
