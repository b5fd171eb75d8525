//! Whether limits are in force, and if not, which file or slice wins.

use crate::config::settings::{Rlimit, UnitLimits};
use crate::config::values::{Limit, RootPath, UnitName};
use crate::engine::resource::{CannotTell, Seen};
use crate::host::seen::{LimitsSight, ReadFile};

/// Compares what was asked for with systemd's properties, with the main process's own limits and with its control groups.
/// `ours` is the drop-in that asks for them.
///
/// A unit that is not loaded or does not run has nothing to prove: it gets its limits when it starts.
pub fn prove(unit: &UnitName, wanted: &UnitLimits, ours: &RootPath, seen: &Seen) -> Result<(), CannotTell> {
    let Some(sight) = seen.unit(unit)? else { return Ok(()) };
    let (files, version) = (seen.unit_files(unit)?, &seen.manager()?.version);
    let judge = |key, want, now: Option<String>| {
        property(&Asked { section: "Service", key, want, ours }, now.as_deref(), files, version)
    };
    let mut wrong = Vec::new();
    for (rlimit, limit) in &wanted.rlimits {
        let now = sight.rlimits.iter().find(|(other, ..)| other == rlimit);
        let now = now.map(|(_, soft, hard)| Limit { soft: *soft, hard: *hard }.to_string());
        wrong.extend(judge(rlimit.directive(), limit.to_string(), now));
    }
    if let Some(want) = wanted.tasks_max {
        wrong.extend(judge("TasksMax", text(want), sight.tasks_max.map(text)));
    }
    if let Some(process) = seen.limits(unit)? {
        wrong.extend(in_force(wanted, process));
    }
    if wrong.is_empty() { Ok(()) } else { Err(CannotTell::new(unit, wrong.join("; "))) }
}

/// What a file of ours asks systemd for.
pub struct Asked<'a> {
    /// Where in the file it stands.
    pub section: &'static str,
    /// The directive, which is also the property's name.
    pub key: &'static str,
    /// The value.
    pub want: String,
    /// The file.
    pub ours: &'a RootPath,
}

/// Why systemd does not have what was asked for; nothing if it has. Of several files that set a directive the one that is
/// read last wins.
pub fn property(asked: &Asked<'_>, now: Option<&str>, files: &[ReadFile], version: &str) -> Option<String> {
    let Asked { key, want, ours, .. } = asked;
    let Some(now) = now else {
        return Some(format!("this systemd ({version}) does not know {key}: it needs a newer one"));
    };
    if now == want {
        return None;
    }
    let last = files.iter().rev().find_map(|file| Some((file, *file.content.values(asked.section, key).last()?)));
    let why = match last {
        Some((file, value)) if file.path != ours.as_str() => {
            let value = if value.is_empty() { "resets it".to_owned() } else { format!("says {value}") };
            format!("{} {value} and is read after {ours}", file.path)
        }
        // Ours is the last word, and it is well-formed: it was not read, or something at run time came after it.
        Some(_) => "systemd has not read it, or a property was set at run time: systemctl daemon-reload".to_owned(),
        None => format!("systemd has not read {ours}: systemctl daemon-reload"),
    };
    Some(format!("systemd has {key}={now}, not {want}: {why}"))
}

/// What the running process and its control groups have and should not.
///
/// A soft limit above the one asked for is the program's own doing: it may raise its own up to the hard limit, and every
/// Go program does so for its files (Go 1.19 release notes).
fn in_force(wanted: &UnitLimits, process: &LimitsSight) -> Vec<String> {
    let mut wrong = Vec::new();
    for (rlimit, limit) in &wanted.rlimits {
        let Some((_, soft, hard)) = process.rlimits.iter().find(|(other, ..)| other == rlimit) else { continue };
        let most = if *rlimit == Rlimit::NoFile { process.most_files } else { Limit::INFINITY };
        // Infinity is as much as the kernel gives.
        let within = |wanted: u64| if wanted == Limit::INFINITY { most } else { wanted };
        if *hard == within(limit.hard) && *soft >= within(limit.soft) {
            continue;
        }
        let now = Limit { soft: *soft, hard: *hard };
        let ceiling = process.ceiling.iter().find(|(other, _)| other == rlimit).map(|(_, hard)| *hard);
        let why = match ceiling.filter(|ceiling| *ceiling < limit.hard && *hard == *ceiling) {
            _ if *hard == most && most < limit.hard => {
                format!("the kernel gives no process more than fs.nr_open={most}")
            }
            Some(ceiling) => format!("systemd itself has a hard limit of {} here and cannot give more", text(ceiling)),
            None if wanted.in_place && *hard > limit.hard => "it was started with more, and keeps it".to_owned(),
            None => "it was started before; a restart is needed".to_owned(),
        };
        wrong.push(format!("process {} has {}={now}, not {limit}: {why}", process.pid, rlimit.directive()));
    }
    wrong.extend(wanted.tasks_max.and_then(|want| tasks(want, process)));
    wrong
}

/// Of a control group and those above it the tightest wins.
fn tasks(want: u64, process: &LimitsSight) -> Option<String> {
    let own = process.groups.first()?;
    if own.pids_max != want {
        return Some(format!("pids.max of its control group is {}, not {}", text(own.pids_max), text(want)));
    }
    let tightest = process.groups.iter().skip(1).min_by_key(|group| group.pids_max)?;
    if tightest.pids_max >= want {
        return None;
    }
    let from = tightest.files.iter().rev().find_map(|file| {
        let value = *file.content.values("Slice", "TasksMax").last()?;
        Some(format!(" ({} says {value})", file.path))
    });
    Some(format!(
        "{} is above it and has pids.max={}{}: no more than that for all units in it",
        tightest.name,
        text(tightest.pids_max),
        from.unwrap_or_default()
    ))
}

fn text(value: u64) -> String {
    Limit { soft: value, hard: value }.to_string()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::engine::resource::Thing;
    use crate::engine::unitfile::UnitFile;
    use crate::host::seen::{Group, ManagerSight, Sight, UnitSight};

    const OURS: &str = "/etc/systemd/system/containerd.service.d/90-nodeagent.conf";

    /// A node where everything is as asked for, to be spoilt by a test.
    struct Case {
        property: Option<u64>,
        process: u64,
        ceiling: u64,
        most_files: u64,
        groups: Vec<Group>,
        files: Vec<ReadFile>,
    }

    fn file(path: &str, text: &str) -> ReadFile {
        ReadFile { path: path.into(), content: UnitFile::parse(text) }
    }

    fn group(name: &str, pids_max: u64, files: Vec<ReadFile>) -> Group {
        Group { name: name.into(), pids_max, files }
    }

    fn good() -> Case {
        Case {
            property: Some(524_288),
            process: 524_288,
            ceiling: Limit::INFINITY,
            most_files: 1_048_576,
            groups: vec![group("containerd.service", 500, vec![]), group("system.slice", Limit::INFINITY, vec![])],
            files: vec![
                file("/usr/lib/systemd/system/containerd.service", "[Service]\nLimitNOFILE=1048576\n"),
                file(OURS, "[Service]\nLimitNOFILE=1024:524288\nTasksMax=500\n"),
            ],
        }
    }

    fn judge(case: Case) -> Result<(), CannotTell> {
        let unit = UnitName::literal("containerd.service");
        let wanted = UnitLimits {
            rlimits: BTreeMap::from([(Rlimit::NoFile, Limit { soft: 1024, hard: 524_288 })]),
            tasks_max: Some(500),
            restart: true,
            in_place: false,
        };
        let sight = UnitSight {
            active: "active".into(),
            sub: "running".into(),
            invocation: "x".into(),
            tasks_max: Some(500),
            rlimits: case.property.map(|hard| (Rlimit::NoFile, 1024, hard)).into_iter().collect(),
        };
        let limits = LimitsSight {
            pid: 42,
            rlimits: vec![(Rlimit::NoFile, 1024, case.process)],
            groups: case.groups,
            ceiling: vec![(Rlimit::NoFile, case.ceiling)],
            most_files: case.most_files,
        };
        let manager = ManagerSight { version: "219".into(), tasks_max: None, no_file: None, files: vec![] };
        let seen = Seen(BTreeMap::from([
            (Thing::Unit(unit.clone()), Ok(Sight::Unit(Some(sight)))),
            (Thing::Limits(unit.clone()), Ok(Sight::Limits(Some(limits)))),
            (Thing::UnitFiles(unit.clone()), Ok(Sight::Files(case.files))),
            (Thing::Manager, Ok(Sight::Manager(manager))),
        ]));
        prove(&unit, &wanted, &RootPath::literal(OURS), &seen)
    }

    #[test]
    fn each_difference_names_what_wins() {
        assert_eq!(judge(good()), Ok(()));
        let later = |text| {
            let mut files = good().files;
            files.push(file("/run/systemd/system/containerd.service.d/95-theirs.conf", text));
            files
        };
        let slice = file("/etc/systemd/system/system.slice.d/a.conf", "[Slice]\nTasksMax=100\n");
        let groups = vec![group("containerd.service", 500, vec![]), group("system.slice", 100, vec![slice])];
        let table = [
            (Case { property: None, ..good() }, "this systemd (219) does not know LimitNOFILE"),
            (
                Case { property: Some(7), files: later("[Service]\nLimitNOFILE=7\n"), ..good() },
                "LimitNOFILE=1024:7, not 1024:524288: /run/systemd/system/containerd.service.d/95-theirs.conf says 7",
            ),
            (
                Case { property: Some(7), files: later("[Service]\nLimitNOFILE=\n"), ..good() },
                "95-theirs.conf resets it",
            ),
            (Case { property: Some(7), ..good() }, "set at run time"),
            (Case { property: Some(7), files: vec![], ..good() }, "has not read /etc/systemd/system/containerd"),
            (Case { process: 4096, ..good() }, "a restart is needed"),
            (Case { process: 20_000, ceiling: 20_000, ..good() }, "hard limit of 20000"),
            (Case { process: 9000, most_files: 9000, ..good() }, "no process more than fs.nr_open=9000"),
            (Case { groups: vec![group("containerd.service", 9, vec![])], ..good() }, "control group is 9, not 500"),
            (
                Case { groups, ..good() },
                "system.slice is above it and has pids.max=100 (/etc/systemd/system/system.slice.d/a.conf says 100)",
            ),
        ];
        for (case, says) in table {
            let error = judge(case).expect_err(says);
            assert!(error.why.contains(says), "no {says:?} in {error}");
        }
    }
}
