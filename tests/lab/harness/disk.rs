//! A disk image with an ext4 file system, read and written without mounting it: a file system that was cut off in the
//! middle of something does not belong in the kernel of the machine that tests.

use std::{
    fmt::Write as _,
    fs::{self, File},
    io::Write as _,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, ensure};

use super::{mounts, process};

/// For any one of e2fsprogs' programs.
const DEADLINE: Duration = Duration::from_mins(2);

/// An image file.
pub struct Disk {
    path: PathBuf,
}

impl Disk {
    /// The one in this file.
    pub fn at(path: &Path) -> Self {
        Self { path: path.to_owned() }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Copies what is in use of it.
    pub fn copy_to(&self, to: &Path) -> Result<Self> {
        let args = ["cp", "--reflink=auto", "--sparse=auto", "--", text(&self.path)?, text(to)?];
        process::ok(&args, DEADLINE)?;
        Ok(Self::at(to))
    }

    /// Adds a file to a directory that it has.
    pub fn write(&self, path: &str, bytes: &[u8]) -> Result<()> {
        let (directory, name) = path.rsplit_once('/').with_context(|| format!("{path} is no absolute path"))?;
        let mut from = tempfile::NamedTempFile::new().context("make a scratch file")?;
        from.write_all(bytes).context("write a scratch file")?;
        let from = from.path();
        // The commands' own status says nothing, so what they did is read back.
        self.debugfs(
            &["-w"],
            &format!("cd {directory}\nwrite {} {name}\nset_inode_field {name} mode 0100644\n", text(from)?),
        )?;
        let back = process::output(&["debugfs", "-R", &format!("cat {path}"), text(&self.path)?], DEADLINE)?.stdout;
        ensure!(back == bytes, "{path} could not be written to {}", self.path.display());
        Ok(())
    }

    /// Copies these directories, with owners and modes, to `into`, which is emptied first.
    pub fn extract(&self, directories: &[&str], into: &Path) -> Result<()> {
        mounts::remove_tree(into)?;
        let mut commands = String::new();
        for directory in directories {
            let parent = into.join(directory.rsplit_once('/').map_or("", |(parent, _)| parent).trim_start_matches('/'));
            fs::create_dir_all(&parent).with_context(|| format!("create {}", parent.display()))?;
            let _ = writeln!(commands, "rdump {directory} {}", text(&parent)?);
        }
        self.debugfs(&[], &commands)
    }

    fn debugfs(&self, options: &[&str], commands: &str) -> Result<()> {
        let mut script = tempfile::NamedTempFile::new().context("make a scratch file")?;
        script.write_all(commands.as_bytes()).context("write a scratch file")?;
        let args = [&["debugfs"], options, &["-f", text(script.path())?, text(&self.path)?]].concat();
        process::ok(&args, DEADLINE).map(drop)
    }

    /// Replays the journal and repairs what is left to repair, as a boot would. What needs more than that is an error:
    /// this disk was not rebuilt as a real one would be.
    pub fn recover(&self) -> Result<()> {
        let output = process::output(&["e2fsck", "-fy", text(&self.path)?], DEADLINE)?;
        let status = process::exited(&output).context("e2fsck was killed")?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        ensure!(status <= 1, "e2fsck of {} ended with status {status}:\n{said}", self.path.display());
        ensure!(!said.contains("lost+found"), "e2fsck of {} found lost files:\n{said}", self.path.display());
        Ok(())
    }

    /// Opens it for writing to its sectors.
    pub fn open(&self) -> Result<File> {
        File::options().write(true).open(&self.path).with_context(|| format!("open {}", self.path.display()))
    }
}

fn text(path: &Path) -> Result<&str> {
    path.to_str().with_context(|| format!("{} is not UTF-8", path.display()))
}
