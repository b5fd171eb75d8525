//! The kernel step: what people put into `modprobe` and `sysctl` lines.
//!
//! In: `kernel` of Settings, and Identity. Out: `/etc/modules-load.d/90-nodeagent.conf` and
//! `/etc/sysctl.d/zz-nodeagent.conf` for later boots, the same in the running kernel now, swap off and kept off, and our
//! block in `/etc/hosts`. Idempotent because each value is read before it is set.

mod names;
mod swap;

use crate::config::settings::{NameChoice, Settings};
use crate::config::values::{ModuleName, RootPath, SysctlKey};
use crate::engine::change::{Change, Debt};
use crate::engine::file::ManagedFile;
use crate::engine::id::{Id, Step};
use crate::engine::resource::{CannotTell, Delta, Diff, Planned, Resource, Seen, Thing};
use crate::host::facts::Facts;
use crate::identity::Identity;
use names::{HostsEntry, LastingHostname};
use swap::{ServiceKeptOff, SwapOff, UnitsKeptOff};

/// The resources of this step.
pub fn plan(settings: &Settings, facts: &Facts, identity: &Identity) -> Vec<Planned> {
    let kernel = &settings.kernel;
    let id = |name: &str| Id::new(Step::Kernel, name);
    let planned = |name: &str, key: &str, what: Box<dyn Resource>| Planned {
        id: id(name),
        why: settings.origins.of(key),
        owes: Vec::new(),
        what,
    };
    let modules_file = RootPath::literal("/etc/modules-load.d/90-nodeagent.conf");
    let mut all = Vec::new();
    let modules = list(kernel.modules.iter().map(ToString::to_string));
    all.push(planned("modules-load", "kernel.modules", ManagedFile::new(modules_file.clone(), modules)));
    for name in &kernel.modules {
        let what = LoadedModule { name: name.clone(), listed_in: modules_file.clone() };
        all.push(planned(&format!("module-{name}"), &format!("kernel.modules.{name}"), Box::new(what)));
    }
    let sysctls = list(kernel.sysctls.iter().map(|(key, value)| format!("{key} = {value}")));
    // Of all files the last one by name wins (sysctl.d(5)), and /etc/sysctl.conf is read as 99-sysctl.conf: what is set
    // now must still be set after a reboot.
    let sysctl_file = RootPath::literal("/etc/sysctl.d/zz-nodeagent.conf");
    all.push(planned("sysctl.d", "kernel.sysctls", ManagedFile::new(sysctl_file, sysctls)));
    for (key, value) in &kernel.sysctls {
        // As the kernel shows it: tabs and runs of blanks are one blank.
        let value = value.split_whitespace().collect::<Vec<_>>().join(" ");
        let what = RunningSysctl { key: key.clone(), value, after: kernel.modules.clone() };
        all.push(planned(&format!("sysctl-{key}"), &format!("kernel.sysctls.{key}"), Box::new(what)));
    }
    all.extend(swap_resources(settings, planned));
    let hosts = HostsEntry { address: identity.address, name: identity.name.clone() };
    all.push(planned("hosts", "node.name", Box::new(hosts)));
    if settings.node.name == NameChoice::Hostname {
        all.push(planned("hostname", "node.name", Box::new(LastingHostname { now: facts.hostname.clone() })));
    }
    all
}

/// Swap off now, and by whatever might bring it back.
fn swap_resources(settings: &Settings, planned: impl Fn(&str, &str, Box<dyn Resource>) -> Planned) -> Vec<Planned> {
    const KEY: &str = "kernel.swap";
    let off = !settings.kernel.swap;
    let reload = |planned: Planned| Planned { owes: vec![Debt::DaemonReload], ..planned };
    let mut all = Vec::new();
    if off {
        all.push(planned("swap", KEY, Box::new(SwapOff)));
        for service in swap::SERVICES {
            all.push(reload(planned(&format!("swap-{service}"), KEY, Box::new(ServiceKeptOff::new(service)))));
        }
    }
    all.push(reload(planned("swap.d", KEY, Box::new(UnitsKeptOff::new(off)))));
    all
}

/// A file of one setting a line.
fn list(settings: impl Iterator<Item = String>) -> String {
    let header = "# Written by nodeagent; put your own settings into a file of another name.".to_owned();
    let lines: Vec<String> = std::iter::once(header).chain(settings).collect();
    lines.join("\n") + "\n"
}

/// A module of the running kernel.
struct LoadedModule {
    name: ModuleName,
    listed_in: RootPath,
}

impl Resource for LoadedModule {
    fn summary(&self) -> String {
        format!("module {} loaded", self.name)
    }

    // systemd's loader reads the list, so the list comes first.
    fn reads(&self) -> Vec<Thing> {
        vec![Thing::Module(self.name.clone()), Thing::Stat(self.listed_in.clone())]
    }

    fn makes(&self) -> Vec<Thing> {
        vec![Thing::Module(self.name.clone())]
    }

    fn diff(&self, seen: &Seen) -> Result<Diff, CannotTell> {
        if seen.module(&self.name)? {
            return Ok(Diff::Same);
        }
        Ok(Diff::Differs {
            shown: vec![Delta::new("module", "not loaded", "loaded")],
            known: vec![Change::Module { name: self.name.clone() }],
        })
    }
}

/// A sysctl of the running kernel.
struct RunningSysctl {
    key: SysctlKey,
    value: String,
    /// Some keys exist only once their module is loaded.
    after: Vec<ModuleName>,
}

impl Resource for RunningSysctl {
    fn summary(&self) -> String {
        format!("sysctl {}={}", self.key, self.value)
    }

    fn reads(&self) -> Vec<Thing> {
        let modules = self.after.iter().cloned().map(Thing::Module);
        std::iter::once(Thing::Sysctl(self.key.clone())).chain(modules).collect()
    }

    fn makes(&self) -> Vec<Thing> {
        vec![Thing::Sysctl(self.key.clone())]
    }

    fn diff(&self, seen: &Seen) -> Result<Diff, CannotTell> {
        match seen.sysctl(&self.key)? {
            None => Err(CannotTell::new(&self.key, "this kernel has no such key; a module may be missing")),
            Some(now) if now == self.value => Ok(Diff::Same),
            Some(now) => Ok(Diff::Differs {
                shown: vec![Delta::new(&self.key, now, &self.value)],
                known: vec![Change::Sysctl { key: self.key.clone(), value: self.value.clone() }],
            }),
        }
    }

    fn proof_reads(&self) -> Vec<Thing> {
        vec![Thing::Sysctl(self.key.clone())]
    }

    /// The kernel takes some values and keeps others, and other programs write sysctls too.
    fn prove(&self, seen: &Seen) -> Result<(), CannotTell> {
        match seen.sysctl(&self.key)? {
            Some(now) if now != self.value => {
                let why = format!("it is {now}, not {}: the kernel or another program changed it", self.value);
                Err(CannotTell::new(&self.key, why))
            }
            _ => Ok(()),
        }
    }
}
