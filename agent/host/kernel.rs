//! The running kernel: sysctls, modules, the limits of processes, the boot's identity.

use std::io;
use std::path::Path;

use super::seen::LimitsSight;
use crate::config::settings::Rlimit;
use crate::config::values::{Limit, ModuleName, SysctlKey};
use crate::engine::fault::Explain;

const SET: &str = "set sysctl";

/// The kernel refused.
#[derive(Debug, thiserror::Error)]
#[error("{doing} {object}: {source}")]
pub struct KernelError {
    doing: &'static str,
    object: String,
    source: io::Error,
}

impl Explain for KernelError {
    fn advice(&self) -> Option<String> {
        match self.source.kind() {
            io::ErrorKind::PermissionDenied => Some("run as root, outside a container that protects /proc".to_owned()),
            io::ErrorKind::ReadOnlyFilesystem => {
                Some("/proc/sys is read-only here; run on the machine itself".to_owned())
            }
            io::ErrorKind::NotFound if self.doing == SET => {
                Some("this kernel has no such key; a module may be missing".to_owned())
            }
            _ => None,
        }
    }
}

/// The sysctl's value, tabs as single spaces; nothing if this kernel has no such sysctl.
pub fn sysctl(key: &SysctlKey) -> Result<Option<String>, KernelError> {
    match std::fs::read_to_string(key.file()) {
        Ok(text) => Ok(Some(text.split_whitespace().collect::<Vec<_>>().join(" "))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(KernelError { doing: "read sysctl", object: key.to_string(), source }),
    }
}

/// Sets a sysctl of the running kernel.
pub fn set_sysctl(key: &SysctlKey, value: &str) -> Result<(), KernelError> {
    std::fs::write(key.file(), value).map_err(|source| KernelError {
        doing: SET,
        object: format!("{key}={value}"),
        source,
    })
}

/// Where a feature shows that some kernels have built in, in which case `/sys/module` need not have it.
const WITNESSES: [(&str, &str); 1] = [("br_netfilter", "/proc/sys/net/bridge")];

/// Whether the module is loaded or built in.
pub fn has_module(name: &ModuleName) -> bool {
    let name = name.as_str();
    Path::new("/sys/module").join(name).exists()
        || WITNESSES.iter().any(|(module, path)| *module == name && Path::new(path).exists())
        || has_file_system(name)
}

fn has_file_system(name: &str) -> bool {
    let all = std::fs::read_to_string("/proc/filesystems").unwrap_or_default();
    all.lines().any(|line| line.split_whitespace().next_back() == Some(name))
}

/// What the kernel really enforces on a process, and what systemd itself could give at most.
pub fn limits(pid: u32) -> Result<LimitsSight, KernelError> {
    let read = |path: String| {
        std::fs::read_to_string(&path).map_err(|source| KernelError { doing: "read", object: path, source })
    };
    let own = parse_limits(&read(format!("/proc/{pid}/limits"))?);
    let ceiling = parse_limits(&read("/proc/1/limits".to_owned())?);
    let cgroup = read(format!("/proc/{pid}/cgroup"))?;
    Ok(LimitsSight {
        pid,
        rlimits: own,
        pids_max: pids_max(&cgroup),
        ceiling: ceiling.into_iter().map(|(limit, _, hard)| (limit, hard)).collect(),
    })
}

/// Soft and hard limits from the text of `/proc/PID/limits` (proc(5)).
pub fn parse_limits(text: &str) -> Vec<(Rlimit, u64, u64)> {
    let number = |word: &str| if word == "unlimited" { Some(Limit::INFINITY) } else { word.parse().ok() };
    let row = |limit: Rlimit| {
        let line = text.lines().find_map(|line| line.strip_prefix(limit.proc_row()))?;
        let mut words = line.split_whitespace();
        Some((limit, number(words.next()?)?, number(words.next()?)?))
    };
    Rlimit::ALL.into_iter().filter_map(row).collect()
}

/// `pids.max` of the control group that `/proc/PID/cgroup` names; nothing where the controller is not there.
fn pids_max(cgroup: &str) -> Option<u64> {
    let paths = cgroup.lines().filter_map(|line| {
        let mut fields = line.splitn(3, ':');
        let (_, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
        match controllers {
            "" => Some(format!("/sys/fs/cgroup{path}/pids.max")),
            "pids" => Some(format!("/sys/fs/cgroup/pids{path}/pids.max")),
            _ => None,
        }
    });
    let text = paths.into_iter().find_map(|path| std::fs::read_to_string(path).ok())?;
    match text.trim() {
        "max" => Some(Limit::INFINITY),
        number => number.parse().ok(),
    }
}

/// The identity of this boot (random(4)).
pub fn boot_id() -> Result<String, KernelError> {
    let path = "/proc/sys/kernel/random/boot_id";
    let fail = |source| KernelError { doing: "read", object: path.to_owned(), source };
    std::fs::read_to_string(path).map(|id| id.trim().replace('-', "")).map_err(fail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_read_as_the_kernel_prints_them() {
        let text = "Limit                     Soft Limit           Hard Limit           Units     \n\
                    Max core file size        0                    unlimited            bytes     \n\
                    Max processes             95717                95717                processes \n\
                    Max open files            1024                 524288               files     \n";
        assert_eq!(
            parse_limits(text),
            [(Rlimit::NoFile, 1024, 524_288), (Rlimit::NProc, 95717, 95717), (Rlimit::Core, 0, Limit::INFINITY)]
        );
    }

    #[test]
    fn this_process_has_limits_and_this_boot_an_identity() {
        let sight = limits(std::process::id()).expect("own limits");
        assert!(sight.rlimits.iter().any(|(limit, _, hard)| *limit == Rlimit::NoFile && *hard > 0));
        assert_eq!(boot_id().expect("boot id").len(), 32);
    }
}
