//! The running kernel: sysctls, modules, the limits of processes, the boot's identity.

use std::io;
use std::path::Path;

use nix::errno::Errno;

use super::seen::{Group, LimitsSight, ProcessSight};
use crate::config::settings::Rlimit;
use crate::config::values::{Limit, ModuleName, SysctlKey};
use crate::engine::change::ProcessLimit;
use crate::engine::fault::Explain;

const SET: &str = "set sysctl";
const SET_LIMIT: &str = "set";

/// The kernel refused.
#[derive(Debug, thiserror::Error)]
#[error("{doing} {object}: {source}")]
pub struct KernelError {
    doing: &'static str,
    object: String,
    source: io::Error,
}

impl KernelError {
    pub(super) fn new(doing: &'static str, object: &str, source: io::Error) -> Self {
        Self { doing, object: object.to_owned(), source }
    }
}

impl Explain for KernelError {
    fn advice(&self) -> Option<String> {
        match self.source.kind() {
            io::ErrorKind::PermissionDenied if self.doing == SET_LIMIT => {
                Some("it needs CAP_SYS_RESOURCE; set inPlace: false to restart the unit instead".to_owned())
            }
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

/// Where a feature shows that some kernels have built in: `/sys/module` has a built-in module only if it has parameters,
/// and a container need not have the kernel's own list.
const WITNESSES: [(&str, &str); 1] = [("br_netfilter", "/proc/sys/net/bridge")];

/// Whether the module is loaded or built in.
pub fn has_module(name: &ModuleName) -> bool {
    let name = name.as_str();
    Path::new("/sys/module").join(name).exists()
        || WITNESSES.iter().any(|(module, path)| *module == name && Path::new(path).exists())
        || has_file_system(name)
        || is_built_in(name)
}

/// Whether the running kernel's own list has the module (`modules.builtin`, kbuild: one path a line).
fn is_built_in(name: &str) -> bool {
    let Ok(kernel) = nix::sys::utsname::uname() else { return false };
    let list = Path::new("/lib/modules").join(kernel.release()).join("modules.builtin");
    std::fs::read_to_string(list).is_ok_and(|text| lists_module(&text, name))
}

/// File names have dashes where module names have underscores.
fn lists_module(text: &str, name: &str) -> bool {
    let mut files = text.lines().filter_map(|path| path.rsplit('/').next()?.split_once(".ko"));
    files.any(|(stem, _)| stem.replace('-', "_") == name)
}

fn has_file_system(name: &str) -> bool {
    let all = std::fs::read_to_string("/proc/filesystems").unwrap_or_default();
    all.lines().any(|line| line.split_whitespace().next_back() == Some(name))
}

/// What the kernel really enforces on a process, and what systemd itself could give at most. The files of its control
/// groups' units are the caller's to add.
pub fn limits(pid: u32) -> Result<LimitsSight, KernelError> {
    let own = parse_limits(&read(format!("/proc/{pid}/limits"))?);
    let ceiling = parse_limits(&read("/proc/1/limits".to_owned())?);
    let cgroup = read(format!("/proc/{pid}/cgroup"))?;
    Ok(LimitsSight {
        pid,
        rlimits: own,
        groups: groups(&cgroup),
        ceiling: ceiling.into_iter().map(|(limit, _, hard)| (limit, hard)).collect(),
        most_files: most_files(),
    })
}

/// The most open files that any process may be allowed: `fs.nr_open` (proc(5)).
pub fn most_files() -> u64 {
    let text = std::fs::read_to_string("/proc/sys/fs/nr_open").unwrap_or_default();
    text.trim().parse().unwrap_or(Limit::INFINITY)
}

fn read(path: String) -> Result<String, KernelError> {
    std::fs::read_to_string(&path).map_err(|source| KernelError { doing: "read", object: path, source })
}

/// One process; nothing if it has ended.
pub fn process(pid: u32) -> Result<Option<ProcessSight>, KernelError> {
    let ended = |error: &KernelError| {
        error.source.kind() == io::ErrorKind::NotFound || error.source.raw_os_error() == Some(Errno::ESRCH as i32)
    };
    let parts = read(format!("/proc/{pid}/stat")).and_then(|stat| Ok((stat, read(format!("/proc/{pid}/limits"))?)));
    match parts {
        Err(error) if ended(&error) => Ok(None),
        Err(error) => Err(error),
        // The second field is the program's name in parentheses, which may have any characters; the 22nd is the start.
        Ok((stat, limits)) => Ok(stat
            .rsplit_once(')')
            .and_then(|(_, rest)| rest.split_whitespace().nth(19)?.parse().ok())
            .map(|started| ProcessSight { pid, started, rlimits: parse_limits(&limits) })),
    }
}

/// Sets a resource limit of a process, unless it has ended.
pub fn set_limit(to: &ProcessLimit) -> Result<(), KernelError> {
    let fail = |source: io::Error| KernelError {
        doing: SET_LIMIT,
        object: format!("{} of process {} to {}", to.rlimit.directive(), to.pid, to.limit),
        source,
    };
    let pid = i32::try_from(to.pid).ok().and_then(rustix::process::Pid::from_raw);
    let Some(pid) = pid.filter(|_| process(to.pid).is_ok_and(|now| now.is_some_and(|p| p.started == to.started)))
    else {
        return Ok(());
    };
    let value = |number: u64| (number != Limit::INFINITY).then_some(number);
    let limit = rustix::process::Rlimit { current: value(to.limit.soft), maximum: value(to.limit.hard) };
    match rustix::process::prlimit(Some(pid), resource(to.rlimit), limit) {
        Ok(_) => Ok(()),
        Err(error) if error == rustix::io::Errno::SRCH => Ok(()),
        Err(error) => Err(fail(error.into())),
    }
}

fn resource(rlimit: Rlimit) -> rustix::process::Resource {
    match rlimit {
        Rlimit::NoFile => rustix::process::Resource::Nofile,
        Rlimit::NProc => rustix::process::Resource::Nproc,
        Rlimit::MemLock => rustix::process::Resource::Memlock,
        Rlimit::Core => rustix::process::Resource::Core,
    }
}

/// Whether this program may raise hard limits: `CAP_SYS_RESOURCE`, the 24th of capabilities(7).
pub fn may_raise_limits() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    effective.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()).is_some_and(|bits| bits & (1 << 24) != 0)
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

/// The control group that `/proc/PID/cgroup` names and those above it, with their `pids.max`; none where the controller is
/// not there.
fn groups(cgroup: &str) -> Vec<Group> {
    let paths = cgroup.lines().filter_map(|line| {
        let mut fields = line.splitn(3, ':');
        let (_, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
        match controllers {
            "" => Some(("/sys/fs/cgroup", path)),
            "pids" => Some(("/sys/fs/cgroup/pids", path)),
            _ => None,
        }
    });
    let chains = paths.into_iter().map(|(mount, path)| {
        let above = Path::new(path).ancestors().filter_map(|group| {
            let name = group.file_name()?.to_str()?.to_owned();
            let text = std::fs::read_to_string(format!("{mount}{}/pids.max", group.display())).ok()?;
            let pids_max = if text.trim() == "max" { Some(Limit::INFINITY) } else { text.trim().parse().ok() };
            Some(Group { name, pids_max: pids_max?, files: Vec::new() })
        });
        above.collect::<Vec<_>>()
    });
    chains.into_iter().find(|chain| !chain.is_empty()).unwrap_or_default()
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
    fn built_in_modules_are_found_by_their_name() {
        let text = "kernel/fs/overlayfs/overlay.ko\nkernel/net/netfilter/nf-log-syslog.ko.zst\nkernel/x/bridge2.ko\n";
        for (name, there) in [("overlay", true), ("nf_log_syslog", true), ("bridge", false), ("overlay.ko", false)] {
            assert_eq!(lists_module(text, name), there, "{name}");
        }
    }

    #[test]
    fn this_process_has_limits_and_this_boot_an_identity() {
        let sight = limits(std::process::id()).expect("own limits");
        assert!(sight.rlimits.iter().any(|(limit, _, hard)| *limit == Rlimit::NoFile && *hard > 0));
        let own = process(std::process::id()).expect("readable").expect("it runs");
        assert!(own.started > 0 && own.rlimits == sight.rlimits, "{own:?}");
        assert_eq!(process(u32::MAX >> 1).expect("readable"), None, "no such process");
        assert_eq!(boot_id().expect("boot id").len(), 32);
    }
}
