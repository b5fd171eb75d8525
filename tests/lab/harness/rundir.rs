//! The directory of one lab, and the sweeping of what a killed lab left behind.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process,
    sync::atomic::{AtomicU32, Ordering},
};

use anyhow::{Context, Result};

use super::{cgroup::Cgroups, mounts, net::Net};

/// How many failed labs are kept for inspection.
const KEPT: usize = 8;

/// Everything that one lab makes on this machine carries this directory's name, so that whoever finds the directory
/// of a dead lab can remove the rest as well.
pub struct RunDir {
    path: PathBuf,
    kept: PathBuf,
    passed: bool,
    /// Held while the lab lives: the kernel releases it when the process ends, however it ends.
    _alive: File,
}

impl RunDir {
    /// Sweeps what dead labs left, then makes a directory for this one.
    pub fn new(cache: &Path, name: &str) -> Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let (run, kept) = (cache.join("run"), cache.join("kept"));
        for directory in [&run, &kept] {
            fs::create_dir_all(directory).with_context(|| format!("create {}", directory.display()))?;
        }
        // Nobody may take a directory for dead between its making and its locking.
        let guard = lock(&cache.join("run.lock"))?;
        sweep(&run, &kept)?;
        let path = run.join(format!("{}-{}-{name}", process::id(), COUNT.fetch_add(1, Ordering::Relaxed)));
        fs::create_dir(&path).with_context(|| format!("create {}", path.display()))?;
        let alive = lock(&path.join("alive"))?;
        drop(guard);
        Ok(Self { path, kept, passed: false, _alive: alive })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A name for what this lab makes outside its directory: short enough for any of the kernel's tables.
    pub fn label(&self) -> String {
        label(&self.path)
    }

    /// From here on nothing needs to be kept.
    pub fn passed(&mut self) {
        self.passed = true;
    }
}

impl Drop for RunDir {
    fn drop(&mut self) {
        let outcome = if self.passed { bury(&self.path) } else { keep(&self.path, &self.kept) };
        if let Err(error) = outcome {
            eprintln!("lab: {error:#}");
        }
    }
}

fn label(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let numbers: Vec<_> = name.splitn(3, '-').take(2).collect();
    format!("nodeagent-lab-{}", numbers.join("-"))
}

/// Waits for an exclusive lock; its holder is a process that is alive.
pub fn lock(path: &Path) -> Result<File> {
    let file = File::create(path).with_context(|| format!("create {}", path.display()))?;
    file.lock().with_context(|| format!("lock {}", path.display()))?;
    Ok(file)
}

/// Removes the rest of labs whose process has died. It was killed, so it told nobody what failed: keep its trees.
fn sweep(run: &Path, kept: &Path) -> Result<()> {
    for entry in fs::read_dir(run).with_context(|| format!("list {}", run.display()))? {
        let path = entry?.path();
        let dead = File::create(path.join("alive")).is_ok_and(|alive| alive.try_lock().is_ok());
        if dead {
            eprintln!("lab: sweeping {}, whose process is gone", path.display());
            keep(&path, kept)?;
        }
    }
    Ok(())
}

/// Takes away what the lab made outside its directory.
fn disarm(path: &Path) -> Result<()> {
    let label = label(path);
    Cgroups::remove(&label)?;
    mounts::unmount_below(path)?;
    Net::remove(&label)?;
    // systemd-nspawn's own directory for each of the lab's machines, which it leaves when it is killed.
    let left = fs::read_dir("/run/systemd/nspawn/propagate").into_iter().flatten().filter_map(Result::ok);
    for entry in left.filter(|entry| entry.file_name().to_string_lossy().starts_with(&format!("{label}-"))) {
        fs::remove_dir(entry.path()).with_context(|| format!("remove {}", entry.path().display()))?;
    }
    Ok(())
}

fn bury(path: &Path) -> Result<()> {
    disarm(path)?;
    mounts::remove_tree(path)
}

/// Moves the directory to where a person looks for it, and says so.
fn keep(path: &Path, kept: &Path) -> Result<()> {
    disarm(path)?;
    let to = kept.join(path.file_name().context("a run directory has a name")?);
    mounts::remove_tree(&to)?;
    fs::rename(path, &to).with_context(|| format!("keep {} as {}", path.display(), to.display()))?;
    eprintln!("lab: kept for inspection: {}", to.display());
    for node in fs::read_dir(&to)?.filter_map(Result::ok).map(|entry| entry.path().join("upper")) {
        if node.is_dir() {
            eprintln!("lab:   changed files: {}", node.display());
            eprintln!("lab:   journal:       journalctl --directory {}/var/log/journal", node.display());
        }
    }
    for machine in fs::read_dir(&to)?.filter_map(Result::ok).map(|entry| entry.path()) {
        if machine.join("disk.img").exists() {
            eprintln!("lab:   disk:          {}", machine.join("disk.img").display());
            eprintln!("lab:   console:       {}", machine.join("console.log").display());
        }
    }
    prune(kept)
}

/// The oldest kept labs make room for new ones.
fn prune(kept: &Path) -> Result<()> {
    let mut labs: Vec<_> = fs::read_dir(kept)?
        .filter_map(|entry| {
            let entry = entry.ok()?;
            Some((entry.metadata().ok()?.modified().ok()?, entry.path()))
        })
        .collect();
    labs.sort();
    let surplus = labs.len().saturating_sub(KEPT);
    labs.iter().take(surplus).try_for_each(|(_, path)| mounts::remove_tree(path))
}
