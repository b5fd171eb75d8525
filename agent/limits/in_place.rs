//! Limits of processes that already run, raised where they are: nothing is restarted, and no container dies.

use std::collections::BTreeMap;

use crate::config::settings::Rlimit;
use crate::config::values::{Limit, UnitName};
use crate::engine::change::{Change, ProcessLimit};
use crate::engine::resource::{CannotTell, Delta, Diff, Resource, Seen, Thing};

/// The resource limits of a unit's running processes.
///
/// They are raised, never lowered: a process may already use what it has. What has more than was asked for keeps it until
/// its next start, and so does what this program may not raise (a container has no `CAP_SYS_RESOURCE`); the proof says so.
pub struct RunningRlimits {
    /// Whose.
    pub unit: UnitName,
    /// At least so much.
    pub rlimits: BTreeMap<Rlimit, Limit>,
}

/// What a process that has `now` gets to have `want`.
fn raised(now: Limit, want: Limit, may_raise: bool) -> Limit {
    let hard = if may_raise { now.hard.max(want.hard) } else { now.hard };
    Limit { soft: now.soft.max(want.soft).min(hard), hard }
}

impl Resource for RunningRlimits {
    fn summary(&self) -> String {
        let limits = self.rlimits.iter().map(|(rlimit, limit)| format!("{}={limit}", rlimit.directive()));
        format!("{} running with {}", self.unit, limits.collect::<Vec<_>>().join(" "))
    }

    fn reads(&self) -> Vec<Thing> {
        vec![Thing::Processes(self.unit.clone())]
    }

    fn makes(&self) -> Vec<Thing> {
        self.reads()
    }

    fn diff(&self, seen: &Seen) -> Result<Diff, CannotTell> {
        let Some(sight) = seen.processes(&self.unit)? else { return Ok(Diff::Same) };
        let mut processes = Vec::new();
        // Many processes have the same limits: they are shown together.
        let mut alike: BTreeMap<(Rlimit, String, String), usize> = BTreeMap::new();
        for process in &sight.all {
            for (rlimit, want) in &self.rlimits {
                let Some(now) = process.limit(process.started, *rlimit) else { continue };
                let most = if *rlimit == Rlimit::NoFile { sight.most_files } else { Limit::INFINITY };
                let want = Limit { soft: want.soft.min(most), hard: want.hard.min(most) };
                let limit = raised(now, want, sight.may_raise);
                if limit != now {
                    *alike.entry((*rlimit, now.to_string(), limit.to_string())).or_default() += 1;
                    let (pid, started) = (process.pid, process.started);
                    processes.push(ProcessLimit { pid, started, rlimit: *rlimit, limit });
                }
            }
        }
        if processes.is_empty() {
            return Ok(Diff::Same);
        }
        let shown = alike.into_iter().map(|((rlimit, now, want), count)| {
            let those = if count == 1 { "1 process".to_owned() } else { format!("{count} processes") };
            Delta::new(format!("{} of {those}", rlimit.directive()), now, want)
        });
        let known = vec![Change::Rlimits { unit: self.unit.clone(), processes }];
        Ok(Diff::Differs { shown: shown.collect(), known })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_raised_and_never_lowered() {
        let limit = |soft, hard| Limit { soft, hard };
        for (now, want, may_raise, becomes) in [
            (limit(1, 2), limit(3, 4), true, limit(3, 4)),
            (limit(1, 2), limit(3, 4), false, limit(2, 2)),
            (limit(5, 6), limit(3, 4), true, limit(5, 6)),
            (limit(1, 9), limit(3, 4), true, limit(3, 9)),
            (limit(1, 2), limit(Limit::INFINITY, Limit::INFINITY), true, limit(Limit::INFINITY, Limit::INFINITY)),
        ] {
            assert_eq!(raised(now, want, may_raise), becomes, "{now} -> {want}, may raise: {may_raise}");
        }
    }
}
