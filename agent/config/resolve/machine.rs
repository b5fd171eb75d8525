//! Modules, sysctls, swap and limits.

use std::collections::BTreeMap;

use super::{Resolver, literal};
use crate::config::defaults;
use crate::config::document::{Kernel, Limits, Manager};
use crate::config::settings::{FlannelBackend, FlannelSettings, KernelSettings, ManagerLimits, Rlimit, UnitLimits};
use crate::config::values::{Limit, ModuleName, UnitName};

impl Resolver<'_> {
    pub(super) fn kernel(&mut self, kernel: Kernel, flannel: Option<&FlannelSettings>) -> KernelSettings {
        let modules = self.modules(kernel.modules, flannel);
        let mut sysctls = kernel.sysctls;
        let bridge = modules.contains(&literal(defaults::BRIDGE_MODULE));
        let of_pods = if self.role.runs_pods() { defaults::POD_SYSCTLS.as_slice() } else { &[] };
        for (name, value) in of_pods.iter().copied() {
            if name.starts_with(defaults::BRIDGE_SYSCTLS) && !bridge {
                continue;
            }
            sysctls.entry(literal(name)).or_insert_with(|| {
                self.used(&format!("kernel.sysctls.{name}"), value);
                value.to_owned()
            });
        }
        // It is the kubelet that wants none.
        let swap = self.or_default("kernel.swap", kernel.swap, !self.role.runs_pods());
        KernelSettings { modules, sysctls, swap }
    }

    /// The role's modules with the user's on top.
    fn modules(&mut self, given: BTreeMap<String, bool>, flannel: Option<&FlannelSettings>) -> Vec<ModuleName> {
        let mut wanted = BTreeMap::new();
        for (text, load) in given {
            let key = format!("kernel.modules.{text}");
            match text.parse::<ModuleName>() {
                Ok(name) if name.as_str() == text => drop(wanted.insert(name, load)),
                // The kernel takes both spellings for one module, and merging by key would take them for two.
                Ok(name) => self.refuse(&key, format!("write {name}: the kernel spells modules with underscores")),
                Err(error) => self.refuse(&key, error.to_string()),
            }
        }
        let of_pods = if self.role.runs_pods() { defaults::POD_MODULES.as_slice() } else { &[] };
        let vxlan = flannel.is_some_and(|flannel| flannel.backend == FlannelBackend::Vxlan) && self.role.runs_pods();
        for name in of_pods.iter().copied().chain(vxlan.then_some(defaults::VXLAN_MODULE)) {
            let module: ModuleName = literal(name);
            wanted.entry(module).or_insert_with(|| {
                self.used(&format!("kernel.modules.{name}"), true);
                true
            });
        }
        wanted.into_iter().filter_map(|(name, load)| load.then_some(name)).collect()
    }

    /// The role's limits with the user's on top, directive by directive.
    pub(super) fn limits(
        &mut self,
        mut given: BTreeMap<UnitName, Limits>,
        member: bool,
    ) -> BTreeMap<UnitName, UnitLimits> {
        for unit in defaults::limited_units(self.role, member) {
            given.entry(UnitName::literal(unit)).or_default();
        }
        let units = given.into_iter();
        let units = units.map(|(unit, limits)| {
            let settings = self.unit_limits(&unit, &limits);
            (unit, settings)
        });
        units.collect()
    }

    fn unit_limits(&mut self, unit: &UnitName, given: &Limits) -> UnitLimits {
        let key = format!("limits.{unit}");
        let by_rlimit = [
            (Rlimit::NoFile, given.no_file),
            (Rlimit::NProc, given.n_proc),
            (Rlimit::MemLock, given.mem_lock),
            (Rlimit::Core, given.core),
        ];
        let rlimits = by_rlimit.into_iter().filter_map(|(rlimit, limit)| {
            let limit = self.limit_or_default(unit, rlimit.directive(), limit)?;
            Some((rlimit, limit))
        });
        let rlimits = rlimits.collect();
        let tasks = self.limit_or_default(unit, defaults::TASKS_MAX, given.tasks_max);
        let tasks_max = tasks.map(|tasks| self.one_number(&format!("{key}.{}", defaults::TASKS_MAX), tasks));
        let restart = self.or_default(&format!("{key}.restart"), given.restart, true);
        UnitLimits { rlimits, tasks_max, restart, in_place: given.in_place.unwrap_or(false) }
    }

    pub(super) fn manager(&mut self, given: &Manager) -> ManagerLimits {
        let tasks_max = given.tasks_max.map(|tasks| self.one_number("systemd.DefaultTasksMax", tasks));
        ManagerLimits { tasks_max, no_file: given.no_file }
    }

    /// A control group's limit.
    fn one_number(&mut self, key: &str, tasks: Limit) -> u64 {
        if tasks.soft != tasks.hard {
            let message = format!("{tasks} has two parts: a control group has one limit, a number or infinity");
            self.refuse(key, message);
        }
        tasks.soft
    }

    fn limit_or_default(&mut self, unit: &UnitName, directive: &str, given: Option<Limit>) -> Option<Limit> {
        let known = defaults::LIMITS.iter().find(|(u, d, _)| *u == unit.as_str() && *d == directive);
        match (given, known) {
            (Some(limit), _) => Some(limit),
            (None, Some((_, _, text))) => {
                self.used(&format!("limits.{unit}.{directive}"), text);
                Some(literal(text))
            }
            (None, None) => None,
        }
    }
}
