//! One cgroup per node in every hierarchy, so that two nodes do not share the names below theirs, and so that nothing
//! that a lab started can be lost from sight.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::process::wait_until;

/// How long the kernel may take to let go of a killed node's processes.
const EMPTY: Duration = Duration::from_mins(1);

/// The same directory in each cgroup hierarchy that this machine has.
pub struct Cgroups {
    directories: Vec<PathBuf>,
}

impl Cgroups {
    /// Makes `name` in the cgroups of the lab that is labelled so.
    pub fn new(label: &str, name: &str) -> Result<Self> {
        let mut directories = Vec::new();
        for root in hierarchies()? {
            let lab = root.join(label);
            make(&lab)?;
            directories.push(lab.join(name));
        }
        directories.iter().try_for_each(|directory| make(directory))?;
        Ok(Self { directories })
    }

    /// Moves a process in; what it starts later stays in.
    pub fn enter(&self, pid: u32) -> Result<()> {
        for directory in &self.directories {
            let procs = directory.join("cgroup.procs");
            fs::write(&procs, pid.to_string())
                .with_context(|| format!("move process {pid} into {}", procs.display()))?;
        }
        Ok(())
    }

    /// Ends whatever is still in the cgroups of a lab, and removes them. `label` may be followed by a name in it.
    pub fn remove(label: &str) -> Result<()> {
        for root in hierarchies()? {
            let directory = root.join(label);
            wait_until(&format!("cgroup {} to be empty", directory.display()), EMPTY, || remove(&directory))?;
        }
        Ok(())
    }
}

/// A cpuset takes no process before it has processors and memory nodes.
fn make(directory: &Path) -> Result<()> {
    fs::create_dir_all(directory).with_context(|| format!("create cgroup {}", directory.display()))?;
    for setting in ["cpuset.cpus", "cpuset.mems"] {
        let (inherited, own) = (directory.with_file_name(setting), directory.join(setting));
        if inherited.exists() && own.exists() {
            let value = fs::read(&inherited).with_context(|| format!("read {}", inherited.display()))?;
            fs::write(&own, value).with_context(|| format!("write {}", own.display()))?;
        }
    }
    Ok(())
}

/// Where cgroup hierarchies are mounted: one for v2, one per controller for v1.
fn hierarchies() -> Result<Vec<PathBuf>> {
    let mounts = fs::read_to_string("/proc/self/mounts").context("read the mount table")?;
    let fields = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    Ok(fields
        .filter(|fields| matches!(fields[..], [_, _, "cgroup" | "cgroup2", ..]))
        .map(|fields| PathBuf::from(fields[1]))
        .filter(|point| point.starts_with("/sys/fs/cgroup"))
        .collect())
}

/// A cgroup can be removed only after those in it, and after the last process has left it.
fn remove(directory: &Path) -> Result<()> {
    if !directory.exists() {
        return Ok(());
    }
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove(&entry.path())?;
        }
    }
    for pid in fs::read_to_string(directory.join("cgroup.procs"))?.lines().map(str::parse) {
        // It may have ended by itself meanwhile.
        let _ = kill(Pid::from_raw(pid?), Signal::SIGKILL);
    }
    fs::remove_dir(directory).with_context(|| format!("remove cgroup {}", directory.display()))
}
