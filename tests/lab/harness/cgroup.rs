//! One cgroup per node in every hierarchy, so that two nodes do not share the names below theirs.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result};

use super::process::wait_until;

/// How long the kernel may take to let go of a killed node's processes.
const EMPTY: Duration = Duration::from_secs(5);

/// The same directory in each cgroup hierarchy that this machine has.
pub struct Cgroups {
    directories: Vec<PathBuf>,
}

impl Cgroups {
    /// Makes them. A cpuset takes no process before it has processors and memory nodes.
    pub fn new(name: &str) -> Result<Self> {
        let directories: Vec<_> = hierarchies()?.iter().map(|root| root.join(name)).collect();
        let cgroups = Self { directories };
        for directory in &cgroups.directories {
            fs::create_dir_all(directory).with_context(|| format!("create cgroup {}", directory.display()))?;
            for setting in ["cpuset.cpus", "cpuset.mems"] {
                let inherited = directory.with_file_name(setting);
                if inherited.exists() {
                    let value = fs::read(&inherited).with_context(|| format!("read {}", inherited.display()))?;
                    let own = directory.join(setting);
                    fs::write(&own, value).with_context(|| format!("write {}", own.display()))?;
                }
            }
        }
        Ok(cgroups)
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

    /// Removes those that `name` had, whoever made them.
    pub fn remove(name: &str) -> Result<()> {
        for root in hierarchies()? {
            let directory = root.join(name);
            wait_until(&format!("cgroup {} to be empty", directory.display()), EMPTY, || remove(&directory))?;
        }
        Ok(())
    }
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

/// A cgroup can be removed only after those in it.
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
    fs::remove_dir(directory).with_context(|| format!("remove cgroup {}", directory.display()))
}
