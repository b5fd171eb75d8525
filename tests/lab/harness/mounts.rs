//! What is mounted below a directory, and how to take it away before the directory is removed.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use nix::mount::{MntFlags, MsFlags, mount, umount2};

/// Mounts `lower` with `upper` over it at `merged`; `work` is overlayfs's own scratch.
///
/// It is volatile: what syncs a file on a node would have to wait for all that this machine writes beside it, compilers and
/// other nodes included. Nothing is lost by it but what a power cut of this machine takes; those of nodes are tried in virtual
/// machines.
pub fn overlay(lower: &Path, upper: &Path, work: &Path, merged: &Path) -> Result<()> {
    let options =
        format!("lowerdir={},upperdir={},workdir={},volatile", lower.display(), upper.display(), work.display());
    mount(Some("overlay"), merged, Some("overlay"), MsFlags::empty(), Some(options.as_str()))
        .with_context(|| format!("mount an overlay at {} ({options}): the lab needs root", merged.display()))
}

/// Unmounts everything at or below `directory`, innermost first.
pub fn unmount_below(directory: &Path) -> Result<()> {
    for point in below(directory)?.iter().rev() {
        umount2(point, MntFlags::MNT_DETACH).with_context(|| format!("unmount {}", point.display()))?;
    }
    Ok(())
}

/// Removes a tree of ours, but never through a mount that is still in it.
pub fn remove_tree(directory: &Path) -> Result<()> {
    unmount_below(directory)?;
    if let Some(point) = below(directory)?.first() {
        bail!("{} is still mounted: not removing {}", point.display(), directory.display());
    }
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("remove {}", directory.display()))
        }
        _ => Ok(()),
    }
}

/// Mount points at or below `directory`, outermost first.
fn below(directory: &Path) -> Result<Vec<PathBuf>> {
    let table = fs::read_to_string("/proc/self/mountinfo").context("read the mount table")?;
    let points = table.lines().filter_map(|line| line.split(' ').nth(4)).map(|point| PathBuf::from(unescape(point)));
    Ok(points.filter(|point| point.starts_with(directory)).collect())
}

/// The mount table writes blanks as octal escapes.
fn unescape(point: &str) -> String {
    point.replace(r"\040", " ").replace(r"\011", "\t").replace(r"\012", "\n").replace(r"\134", r"\")
}
