//! Swap, off and kept off: the kubelet does not start beside it unless told to
//! (<https://kubernetes.io/docs/concepts/cluster-administration/swap-memory-management/>).
//!
//! In use now: systemd has a unit for each swap, wherever it came from, and stops it. At later boots: one drop-in for
//! all units of the type gives them a condition that never holds, so that neither fstab, nor a unit, nor a generator
//! (zram, GPT) brings swap back; and the few services that call `swapon` themselves are masked. Nobody's fstab is
//! edited, and removing two kinds of files undoes it.

use crate::config::values::{RootPath, UnitName};
use crate::engine::change::{Change, Verb};
use crate::engine::file::{ManagedFile, ManagedLink};
use crate::engine::resource::{CannotTell, Delta, Diff, Resource, Seen, Thing};
use crate::engine::unitfile::UnitFile;
use crate::host::seen::Entry;
use crate::host::swap::Swap;

/// The drop-in for every unit of the type (systemd.unit(5), since systemd 244).
const DROP_IN: &str = "/etc/systemd/system/swap.d/90-nodeagent.conf";

const CONDITION: &str = "# Written by nodeagent: a Kubernetes node runs without swap (kernel.swap in node.yaml).\n\
                         [Unit]\n\
                         # Never holds.\n\
                         ConditionPathExists=!/\n";

/// Services that call `swapon` themselves, which no condition of a swap unit can prevent: of Debian's zram-tools, of
/// Raspberry Pi OS, of Ubuntu's zram-config.
pub(super) const SERVICES: [&str; 3] = ["zramswap.service", "dphys-swapfile.service", "zram-config.service"];

/// Where packages put unit files: on a merged `/usr` both are one.
const VENDOR: [&str; 2] = ["/usr/lib/systemd/system", "/lib/systemd/system"];

/// No swap in use.
pub(super) struct SwapOff;

impl Resource for SwapOff {
    fn summary(&self) -> String {
        "no swap in use".to_owned()
    }

    fn reads(&self) -> Vec<Thing> {
        vec![Thing::Swaps]
    }

    fn makes(&self) -> Vec<Thing> {
        vec![Thing::Swaps]
    }

    fn diff(&self, seen: &Seen) -> Result<Diff, CannotTell> {
        let ours: Vec<(&Swap, &UnitName)> =
            seen.swaps()?.iter().filter_map(|swap| Some((swap, swap.unit.as_ref()?))).collect();
        if ours.is_empty() {
            return Ok(Diff::Same);
        }
        let shown = ours.iter().map(|(swap, _)| Delta::new("swap", size(swap), "off")).collect();
        let stop = |unit: &UnitName| Change::Job { unit: unit.clone(), verb: Verb::Stop };
        Ok(Diff::Differs { shown, known: ours.iter().map(|(_, unit)| stop(unit)).collect() })
    }

    fn proof_reads(&self) -> Vec<Thing> {
        self.reads()
    }

    /// Swap that systemd has no unit for belongs to whoever runs this container, and cannot be turned off from here.
    fn prove(&self, seen: &Seen) -> Result<(), CannotTell> {
        let left: Vec<String> = seen.swaps()?.iter().map(size).collect();
        if left.is_empty() {
            return Ok(());
        }
        let why = "still in use, and systemd here has no unit for it: turn it off on the machine that runs this \
                   container, or set kernel.swap: true";
        Err(CannotTell::new(left.join(", "), why))
    }
}

fn size(swap: &Swap) -> String {
    format!("{} ({} MiB)", swap.path, swap.bytes >> 20)
}

/// The drop-in that keeps swap units off.
///
/// It waits for [`SwapOff`], so that undo, which goes backwards, takes the condition away before it starts swap again.
pub(super) struct UnitsKeptOff {
    file: ManagedFile,
    wanted: bool,
}

impl UnitsKeptOff {
    /// The drop-in is `wanted`, or goes where an earlier configuration wanted it.
    pub(super) fn new(wanted: bool) -> Self {
        Self { file: ManagedFile::unit(RootPath::literal(DROP_IN), &UnitFile::parse(CONDITION)), wanted }
    }
}

impl Resource for UnitsKeptOff {
    fn summary(&self) -> String {
        let what = if self.wanted { "no swap" } else { "swap as the machine has it" };
        format!("{what} at later boots ({DROP_IN})")
    }

    fn reads(&self) -> Vec<Thing> {
        [self.file.reads(), vec![Thing::Swaps]].concat()
    }

    fn makes(&self) -> Vec<Thing> {
        self.file.makes()
    }

    fn diff(&self, seen: &Seen) -> Result<Diff, CannotTell> {
        if self.wanted {
            return self.file.diff(seen);
        }
        // Only ours is removed.
        match seen.entry(&self.file.path)? {
            Entry::File { bytes: Some(bytes), .. } if **bytes == *CONDITION.as_bytes() => Ok(Diff::Differs {
                shown: vec![Delta::new("file", "condition of swap units", "")],
                known: vec![Change::Remove { path: self.file.path.clone() }],
            }),
            _ => Ok(Diff::Same),
        }
    }
}

/// A service that turns swap on is masked, where it is installed.
pub(super) struct ServiceKeptOff {
    vendor: Vec<RootPath>,
    mask: ManagedLink,
}

impl ServiceKeptOff {
    pub(super) fn new(service: &str) -> Self {
        let vendor = VENDOR.map(|dir| RootPath::literal(dir).join(service)).into();
        let path = RootPath::literal("/etc/systemd/system").join(service);
        let purpose = format!("{service} masked: it turns swap on");
        Self { vendor, mask: ManagedLink { path, to: "/dev/null".into(), purpose, after: vec![Thing::Swaps] } }
    }
}

impl Resource for ServiceKeptOff {
    fn summary(&self) -> String {
        self.mask.purpose.clone()
    }

    fn reads(&self) -> Vec<Thing> {
        self.vendor.iter().cloned().map(Thing::Stat).chain(self.mask.reads()).collect()
    }

    fn makes(&self) -> Vec<Thing> {
        self.mask.makes()
    }

    fn diff(&self, seen: &Seen) -> Result<Diff, CannotTell> {
        for path in &self.vendor {
            if !matches!(seen.entry(path)?, Entry::Absent) {
                return self.mask.diff(seen);
            }
        }
        Ok(Diff::Same)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::host::seen::Sight;

    fn seen(swaps: &[Swap]) -> Seen {
        Seen(BTreeMap::from([(Thing::Swaps, Ok(Sight::Swaps(swaps.to_vec())))]))
    }

    #[test]
    fn what_systemd_knows_is_stopped_and_the_rest_is_told() {
        let ours = Swap { path: "/dev/vda2".into(), bytes: 512 << 20, unit: Some(UnitName::literal("dev-vda2.swap")) };
        let theirs = Swap { path: "/dev/sda9".into(), bytes: 1 << 30, unit: None };
        let diff = |swaps: &[Swap]| SwapOff.diff(&seen(swaps)).expect("a difference");
        assert!(matches!(diff(&[]), Diff::Same));
        assert!(matches!(diff(std::slice::from_ref(&theirs)), Diff::Same), "nobody here could stop it");
        let Diff::Differs { shown, known } = diff(&[ours, theirs.clone()]) else { panic!("swap is in use") };
        assert_eq!(shown, [Delta::new("swap", "/dev/vda2 (512 MiB)", "off")]);
        assert!(
            matches!(&known[..], [Change::Job { unit, verb: Verb::Stop }] if unit.as_str() == "dev-vda2.swap"),
            "{known:?}"
        );
        assert_eq!(SwapOff.prove(&seen(&[])), Ok(()));
        let error = SwapOff.prove(&seen(&[theirs])).expect_err("it is in use");
        assert!(error.to_string().starts_with("/dev/sda9 (1024 MiB): still in use"), "{error}");
    }

    #[test]
    fn a_service_is_masked_only_where_it_is_installed() {
        let service = ServiceKeptOff::new(SERVICES[0]);
        let tree = |vendor: Entry| {
            let there = [vendor, Entry::Absent, Entry::Absent];
            let paths = service.vendor.iter().chain([&service.mask.path]);
            Seen(paths.zip(there).map(|(path, entry)| (Thing::Stat(path.clone()), Ok(Sight::Entry(entry)))).collect())
        };
        assert!(matches!(service.diff(&tree(Entry::Absent)), Ok(Diff::Same)));
        assert!(matches!(service.diff(&tree(Entry::Link("x".into()))), Ok(Diff::Differs { .. })));
    }
}
