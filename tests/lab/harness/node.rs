//! One machine of the lab: a real systemd in systemd-nspawn over the cached tree, first booted by cloud-init.

use std::{
    fs::{self, File},
    io::{Read, Write},
    os::{fd::AsFd, unix::fs::PermissionsExt},
    path::{Path, PathBuf},
    process::Output,
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use nix::{
    fcntl::{OFlag, OpenHow, ResolveFlag, openat2},
    sys::stat::Mode,
};
use serde_json::{Map, Value};

use super::{
    Lab, Suite,
    cgroup::Cgroups,
    mounts,
    net::{BRIDGE, SERVICES},
    process::{self, Daemon, wait_until},
};

/// From power-on until systemd and cloud-init have nothing left to do.
pub const BOOT: Duration = Duration::from_mins(5);

/// For a command on a node that names no other deadline.
pub const COMMAND: Duration = Duration::from_mins(1);

/// For a node to end what runs on it: an API server alone takes the twenty seconds that its unit gives it.
const POWER_OFF: Duration = Duration::from_mins(3);

/// Where cloud-init's `NoCloud` source finds what a cloud would tell the node.
pub(super) const SEED: &str = "/var/lib/cloud/seed/nocloud";

/// Two data sources, so that cloud-init has to find out which one there is: with one, it would take that for granted. Read
/// after the tree's own.
const OF_A_DRIVE: (&str, &str) =
    ("/etc/cloud/cloud.cfg.d/99-of-a-drive.cfg", "datasource_list: [NoCloud, ConfigDrive]\n");

/// What `lab-network.service` reads.
const NETWORK: &str = "/etc/lab-network";

fn network(address: &str) -> Vec<u8> {
    format!("ADDRESS={address}/24\nGATEWAY={SERVICES}\n").into_bytes()
}

/// A path, and the bytes there.
pub(super) type SeedFile = (String, Vec<u8>);

/// What a node is before it boots.
pub struct NodeSpec<'lab> {
    lab: &'lab Lab,
    name: String,
    address: String,
    suite: Suite,
    user_data: Vec<u8>,
    meta_data: Map<String, Value>,
    drive: Option<Vec<u8>>,
}

impl<'lab> NodeSpec<'lab> {
    pub(super) fn new(lab: &'lab Lab, name: &str, address: &str) -> Self {
        let mut meta_data = Map::new();
        meta_data.insert("instance-id".into(), name.into());
        meta_data.insert("local-hostname".into(), name.into());
        let user_data = b"#cloud-config\n{}\n".to_vec();
        Self {
            lab,
            name: name.into(),
            address: address.into(),
            suite: Suite::Bookworm,
            user_data,
            meta_data,
            drive: None,
        }
    }

    /// The distribution's release, if not the one that most nodes have.
    pub fn suite(mut self, suite: Suite) -> Self {
        self.suite = suite;
        self
    }

    /// What the cloud hands to cloud-init, byte for byte.
    pub fn user_data(mut self, user_data: &[u8]) -> Self {
        user_data.clone_into(&mut self.user_data);
        self
    }

    /// One value of the instance's meta-data, for the user-data's template.
    pub fn meta_data(mut self, key: &str, value: &str) -> Self {
        self.meta_data.insert(key.into(), value.into());
        self
    }

    /// A virtual machine that gets this image as a second disk, and nothing in any other way: not even its host name.
    pub fn config_drive(mut self, image: &[u8]) -> Self {
        self.drive = Some(image.to_owned());
        self
    }

    /// Its host name, and the files that make this machine out of the tree that all share.
    pub(super) fn seed(&self) -> Result<(String, Vec<SeedFile>)> {
        let machine_id = fs::read_to_string("/proc/sys/kernel/random/uuid").context("make a machine id")?;
        let mut files = vec![
            ("/etc/machine-id".into(), machine_id.replace('-', "").into_bytes()),
            (NETWORK.into(), network(&self.address)),
        ];
        match self.drive {
            Some(_) => files.push((OF_A_DRIVE.0.into(), OF_A_DRIVE.1.into())),
            None => files.extend([
                ("/etc/hostname".into(), format!("{}\n", self.name).into_bytes()),
                // JSON is YAML.
                (format!("{SEED}/meta-data"), Value::Object(self.meta_data.clone()).to_string().into_bytes()),
                (format!("{SEED}/user-data"), self.user_data.clone()),
            ]),
        }
        Ok((self.name.clone(), files))
    }

    /// The image that a machine of this kind gets as a second disk.
    pub(super) fn drive(&self) -> Option<&[u8]> {
        self.drive.as_deref()
    }

    pub(super) fn lab(&self) -> &'lab Lab {
        self.lab
    }

    /// Makes the node's disk, without booting it: a test may write to it first.
    pub fn create(self) -> Result<Node<'lab>> {
        ensure!(self.drive.is_none(), "{} is a container, whose kernel mounts no config drive", self.name);
        let (name, files) = self.seed()?;
        let directory = self.lab.directory().join(&name);
        // Of a machine of this name that the lab has had before: this is another one.
        mounts::remove_tree(&directory)?;
        // containerd's own overlays cannot lie on another one.
        for part in ["upper", "work", "merged", "containerd"] {
            let path = directory.join(part);
            fs::create_dir_all(&path).with_context(|| format!("create {}", path.display()))?;
        }
        let (upper, merged) = (directory.join("upper"), directory.join("merged"));
        mounts::overlay(&self.lab.tree_of(self.suite)?, &upper, &directory.join("work"), &merged)?;
        let node =
            Node { lab: self.lab, machine: format!("{}-{name}", self.lab.label()), name, directory, running: None };
        for (path, bytes) in files {
            node.write(&path, &bytes)?;
        }
        Ok(node)
    }

    /// Makes the node and boots it.
    pub fn boot(self) -> Result<Node<'lab>> {
        let mut node = self.create()?;
        node.boot()?;
        Ok(node)
    }
}

/// A node, killed when dropped. What remains of its disk is the lab's to keep or remove.
pub struct Node<'lab> {
    lab: &'lab Lab,
    name: String,
    machine: String,
    directory: PathBuf,
    running: Option<Running>,
}

struct Running {
    nspawn: Daemon,
    /// The node's first process, by its number on the host.
    init: u32,
}

impl Node<'_> {
    /// Where the files are that this node has and the cached tree has not.
    pub fn changed_files(&self) -> PathBuf {
        self.directory.join("upper")
    }

    /// Powers the node on and waits until cloud-init is done. `nodeagent.service` may still be at work then: cloud-init
    /// does not wait for it, and neither does this.
    pub fn boot(&mut self) -> Result<()> {
        self.power_on()?;
        self.wait_for_boot()
    }

    /// Powers the node on without waiting for anything but its first process.
    pub fn power_on(&mut self) -> Result<()> {
        ensure!(self.running.is_none(), "node {} runs already", self.name);
        let cgroups = Cgroups::new(&self.lab.label(), &self.name)?;
        let merged = self.directory.join("merged").display().to_string();
        let containerd = self.directory.join("containerd").display().to_string();
        let args = self.lab.net().inside(&[
            "systemd-nspawn",
            &format!("--directory={merged}"),
            &format!("--machine={}", self.machine),
            // There is no machine manager to register with, nor a service manager to ask for a scope.
            "--register=no",
            "--keep-unit",
            &format!("--network-bridge={BRIDGE}"),
            "--capability=all",
            "--system-call-filter=add_key keyctl bpf perf_event_open",
            "--bind=/dev/kmsg",
            &format!("--bind={containerd}:/var/lib/containerd"),
            "--console=pipe",
            "--boot",
        ]);
        let envs = [("SYSTEMD_NSPAWN_API_VFS_WRITABLE", "1"), ("SYSTEMD_NSPAWN_USE_CGNS", "1")];
        let log = self.directory.join("console.log");
        let mut nspawn = Daemon::start(&self.machine, &args, &envs, &log, &cgroups)?;
        let pid = nspawn.pid();
        let init = nspawn.wait_until(&format!("the first process of {}", self.name), BOOT, || init_of(pid))?;
        self.running = Some(Running { nspawn, init });
        Ok(())
    }

    fn wait_for_boot(&self) -> Result<()> {
        wait_until(&format!("node {} to boot", self.name), BOOT, || {
            // Of all units only cloud-init's last stage is waited for: "running" would mean that no job is left at all,
            // the agent's included.
            let state = self.ok(&["systemctl", "show", "--property=ActiveState", "--value", "cloud-final.service"])?;
            match state.trim() {
                "active" | "failed" => Ok(()),
                state => bail!("cloud-final.service is {state}"),
            }
        })
        .with_context(|| format!("console: {}", self.directory.join("console.log").display()))
    }

    /// Runs a command on the node; its status is the caller's to judge.
    pub fn run(&self, args: &[&str]) -> Result<Output> {
        self.run_within(COMMAND, args)
    }

    /// As [`Self::run`], with a deadline of the caller's.
    pub fn run_within(&self, deadline: Duration, args: &[&str]) -> Result<Output> {
        process::output(&self.inside(args)?, deadline).with_context(|| format!("on node {}", self.name))
    }

    /// Runs a command on the node that must succeed and returns what it printed.
    pub fn ok(&self, args: &[&str]) -> Result<String> {
        process::ok(&self.inside(args)?, COMMAND).with_context(|| format!("on node {}", self.name))
    }

    fn inside(&self, args: &[&str]) -> Result<Vec<String>> {
        let init = self.running()?.init.to_string();
        // Nothing of the host's environment belongs on the node.
        let enter = ["nsenter", "--target", &init, "--all", "--", "env", "--ignore-environment"];
        let environment = ["PATH=/opt/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root"];
        Ok(enter.iter().chain(&environment).chain(args).map(|&arg| arg.to_owned()).collect())
    }

    fn running(&self) -> Result<&Running> {
        self.running.as_ref().with_context(|| format!("node {} is off", self.name))
    }

    /// The journal's entries that match, oldest first: all fields of each.
    pub fn journal(&self, matches: &[&str]) -> Result<Vec<Value>> {
        // What was said a moment ago may not be there yet.
        self.ok(&["journalctl", "--sync"])?;
        let mut args = vec!["journalctl", "--no-pager", "--all", "--output=json"];
        args.extend(matches);
        let lines = self.ok(&args)?;
        lines.lines().map(|line| serde_json::from_str(line).context("read a journal entry")).collect()
    }

    /// One property of a unit, as systemd shows it.
    pub fn property(&self, unit: &str, property: &str) -> Result<String> {
        let shown = self.ok(&["systemctl", "show", "--value", "--property", property, unit])?;
        Ok(shown.trim_end().to_owned())
    }

    /// A file's bytes. Links are followed as the node would follow them.
    pub fn read(&self, path: &str) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.open(path, OFlag::O_RDONLY)?
            .read_to_end(&mut bytes)
            .with_context(|| format!("read {path} on {}", self.name))?;
        Ok(bytes)
    }

    /// Writes a file, with its directories.
    pub fn write(&self, path: &str, bytes: &[u8]) -> Result<()> {
        let relative = path.trim_start_matches('/');
        if let Some(parent) = Path::new(relative).parent() {
            let parent = self.root().join(parent);
            fs::create_dir_all(&parent).with_context(|| format!("create {}", parent.display()))?;
        }
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_TRUNC;
        self.open(path, flags)?.write_all(bytes).with_context(|| format!("write {path} on {}", self.name))
    }

    /// Writes a file with this mode, and no byte of it before.
    pub fn write_as(&self, path: &str, bytes: &[u8], mode: u32) -> Result<()> {
        self.write(path, b"")?;
        let mut file = self.open(path, OFlag::O_WRONLY)?;
        file.set_permissions(fs::Permissions::from_mode(mode)).with_context(|| format!("chmod {path}"))?;
        file.write_all(bytes).with_context(|| format!("write {path} on {}", self.name))
    }

    /// Whether there is anything at a path, a dangling link included.
    pub fn exists(&self, path: &str) -> bool {
        self.root().join(path.trim_start_matches('/')).symlink_metadata().is_ok()
    }

    /// Opens a file of the node's; a link cannot lead out to the host's.
    fn open(&self, path: &str, flags: OFlag) -> Result<File> {
        let root = File::open(self.root()).with_context(|| format!("open the root of {}", self.name))?;
        let mut how = OpenHow::new().flags(flags | OFlag::O_CLOEXEC).resolve(ResolveFlag::RESOLVE_IN_ROOT);
        if flags.contains(OFlag::O_CREAT) {
            how = how.mode(Mode::from_bits_truncate(0o644));
        }
        let file = openat2(root.as_fd(), path, how).with_context(|| format!("open {path} on {}", self.name))?;
        Ok(file.into())
    }

    /// The node's root: of a running one as it sees it itself, `/run` included.
    fn root(&self) -> PathBuf {
        match &self.running {
            Some(running) => format!("/proc/{}/root", running.init).into(),
            None => self.directory.join("merged"),
        }
    }

    /// The files this node has of its own, seed included, that contain any of `needles`.
    pub fn files_containing(&self, needles: &[Vec<u8>]) -> Result<Vec<PathBuf>> {
        let mut found = Vec::new();
        search(&self.changed_files(), needles, &mut found)?;
        Ok(found)
    }

    /// Waits until `ready` holds on this node.
    pub fn wait_until<T>(&self, what: &str, deadline: Duration, ready: impl Fn(&Self) -> Result<T>) -> Result<T> {
        wait_until(&format!("{what} on {}", self.name), deadline, || ready(self))
    }

    /// Gives the node another address, from its next boot on.
    pub fn readdress(&self, address: &str) -> Result<()> {
        self.write(NETWORK, &network(address))
    }

    /// Shuts the node down as a person would, and waits for its end.
    pub fn power_off(&mut self) -> Result<()> {
        self.begin_power_off()?;
        self.end_power_off()
    }

    /// Asks the node to shut down.
    pub fn begin_power_off(&self) -> Result<()> {
        self.ok(&["systemctl", "poweroff", "--no-block"]).map(drop)
    }

    /// Waits until it has.
    pub fn end_power_off(&mut self) -> Result<()> {
        if let Some(mut running) = self.running.take() {
            running.nspawn.wait_for_end(POWER_OFF)?;
        }
        self.leave()
    }

    /// Shuts the node down and boots it again.
    pub fn reboot(&mut self) -> Result<()> {
        self.power_off()?;
        self.boot()
    }

    /// Cuts the node's power: no process gets to say a last word.
    pub fn kill(&mut self) -> Result<()> {
        if let Some(mut running) = self.running.take() {
            running.nspawn.kill();
        }
        self.leave()
    }

    /// Waits until nothing is left of the node but its disk, so that it can be powered on again.
    fn leave(&self) -> Result<()> {
        Cgroups::remove(&format!("{}/{}", self.lab.label(), self.name))?;
        self.lab.net().unplug(&self.machine)
    }
}

impl Drop for Node<'_> {
    fn drop(&mut self) {
        // So that whoever inspects a kept node reads all of its journal.
        if self.running.is_some() {
            let _ = self.ok(&["journalctl", "--sync"]);
        }
        if let Err(error) = self.kill() {
            eprintln!("lab: {error:#}");
        }
    }
}

/// The node's first process. It comes last in a line of descendants: `unshare`, systemd-nspawn, at times a helper of
/// that, and then the one that is number 1 in the innermost namespace.
fn init_of(daemon: u32) -> Result<u32> {
    let mut pid = daemon;
    loop {
        let path = format!("/proc/{pid}/task/{pid}/children");
        let children = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
        let child = children.split_whitespace().next();
        pid =
            child.with_context(|| format!("process {pid} has not started it"))?.parse().context("read a process id")?;
        let comm = fs::read_to_string(format!("/proc/{pid}/comm"))?;
        if comm.trim() == "systemd" {
            let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
            let numbers = status.lines().find_map(|line| line.strip_prefix("NSpid:")).context("no NSpid")?;
            ensure!(numbers.split_whitespace().last() == Some("1"), "process {pid} is not the first of its namespace");
            return Ok(pid);
        }
    }
}

fn search(directory: &Path, needles: &[Vec<u8>], found: &mut Vec<PathBuf>) -> Result<()> {
    // A node that runs removes files, too.
    let Some(entries) = if_there(fs::read_dir(directory), directory)? else { return Ok(()) };
    for entry in entries {
        let entry = entry?;
        let (path, kind) = (entry.path(), entry.file_type()?);
        if kind.is_dir() {
            search(&path, needles, found)?;
        } else if kind.is_file()
            && let Some(bytes) = if_there(fs::read(&path), &path)?
            && needles.iter().any(|needle| contains(&bytes, needle))
        {
            found.push(path);
        }
    }
    Ok(())
}

fn if_there<T>(read: std::io::Result<T>, path: &Path) -> Result<Option<T>> {
    match read {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        read => read.map(Some).with_context(|| format!("read {}", path.display())),
    }
}

fn contains(bytes: &[u8], needle: &[u8]) -> bool {
    let Some((first, rest)) = needle.split_first() else { return true };
    bytes.iter().enumerate().any(|(at, byte)| byte == first && bytes[at + 1..].starts_with(rest))
}
