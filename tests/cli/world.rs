//! What a bootstrap of a file tree needs: a mirror and a signer on loopback, and the tree that it begins with.

use std::{
    env,
    fs::{self, File},
    net::{Ipv4Addr, TcpStream},
    os::unix::{
        fs::{PermissionsExt as _, symlink},
        process::ExitStatusExt as _,
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nodeagent::host::facts::Facts;
use serde_json::json;
use tempfile::TempDir;

use crate::faulty::{Answer, Faulty};
use crate::free_port::free_port;
use crate::snapshot::digest;

#[allow(dead_code, reason = "the lab's own, shared with tests that need less of it")]
#[path = "../lab/harness/ca.rs"]
pub mod ca;

/// The signer's authentication key.
const AUTH_KEY: &str = "00112233445566778899aabbccddeeff";

/// How long the signer may take to open its port, and a client to send its request.
const PATIENCE: Duration = Duration::from_secs(20);

/// How long one run of the agent may take, under strace on a busy machine.
const RUN: Duration = Duration::from_mins(1);

/// The programs of a worker. The mirror's are small: what is torn does not depend on the size.
const PROGRAMS: [&str; 3] = ["kube-proxy", "kubectl", "kubelet"];

/// The agent under test: the release binary where the caller names it, because only that one is shipped.
pub fn agent() -> PathBuf {
    let named = env::var_os("NODEAGENT_RELEASE").map_or_else(|| env!("CARGO_BIN_EXE_nodeagent").into(), PathBuf::from);
    // A run may begin in another directory.
    named.canonicalize().unwrap_or(named)
}

/// A directory in memory where there is one: thousands of trees are copied, and none need survive anything.
pub fn scratch() -> Result<TempDir> {
    let memory = Path::new("/dev/shm");
    let made = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
    made.context("make a temporary directory")
}

/// A child that does not outlive the test.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        // Either call fails only when it has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A mirror, a signer, and a tree that asks for a worker.
pub struct World {
    files: TempDir,
    _signer: Killed,
}

impl World {
    /// Starts both on loopback and lays out the tree.
    pub fn new() -> Result<Self> {
        let files = scratch()?;
        let mirror = Faulty::start()?;
        for (path, bytes) in programs() {
            mirror.script(&path, [Answer::File(Arc::new(bytes))]);
        }
        let (path, bytes) = archive()?;
        let tools = format!(
            "{{ url: \"{}\", version: v1, sha256: {}, members: {{ crictl: bin/crictl }} }}",
            mirror.url(path),
            digest(&bytes)
        );
        mirror.script(path, [Answer::File(Arc::new(bytes))]);
        let authority = ca::Ca::new()?;
        let (signer, port) = sign(&authority, &files.path().join("signer"))?;
        fs::write(files.path().join("facts.json"), serde_json::to_vec(&Facts::sample())?)?;
        lay_out(&files.path().join("start"), &node_yaml(&mirror.url("/release"), &tools, port), &authority.pem()?)?;
        Ok(Self { files, _signer: signer })
    }

    /// A tree as a person left it, with a description of the node that it should be.
    pub fn start(&self) -> PathBuf {
        self.files.path().join("start")
    }

    /// A fresh copy of a tree.
    pub fn copy(&self, of: &Path) -> Result<Tree<'_>> {
        let files = scratch()?;
        copy(of, &files.path().join("tree"))?;
        Ok(Tree { world: self, mount: None, files })
    }

    /// A fresh copy of a tree on a file system of its own, with these options of tmpfs(5).
    pub fn copy_on(&self, of: &Path, options: &str) -> Result<Tree<'_>> {
        let files = scratch()?;
        let mount = Mount::tmpfs(&files.path().join("tree"), options)?;
        for entry in fs::read_dir(of)? {
            let entry = entry?;
            copy(&entry.path(), &files.path().join("tree").join(entry.file_name()))?;
        }
        Ok(Tree { world: self, mount: Some(mount), files })
    }
}

/// A tree that may be written to. Gone when dropped.
pub struct Tree<'w> {
    world: &'w World,
    mount: Option<Mount>,
    files: TempDir,
}

/// Something mounted, until it is dropped.
pub struct Mount(PathBuf);

impl Mount {
    /// A new file system in memory, on a directory that is made for it.
    pub fn tmpfs(at: &Path, options: &str) -> Result<Self> {
        fs::create_dir_all(at)?;
        let what = || format!("mount a tmpfs at {} ({options}): this needs root", at.display());
        mount(Some("tmpfs"), at, Some("tmpfs"), MsFlags::empty(), Some(options)).with_context(what)?;
        Ok(Self(at.to_owned()))
    }

    /// A directory mounted on itself, but read-only.
    pub fn read_only(at: &Path) -> Result<Self> {
        let what = || format!("mount {} read-only: this needs root", at.display());
        let none = None::<&str>;
        mount(Some(at), at, none, MsFlags::MS_BIND, none).with_context(what)?;
        let mounted = Self(at.to_owned());
        let flags = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
        mount(none, at, none, flags, none).with_context(what)?;
        Ok(mounted)
    }

    /// Changes the options of a tmpfs.
    pub fn remount(&self, options: &str) -> Result<()> {
        mount(None::<&str>, &self.0, None::<&str>, MsFlags::MS_REMOUNT, Some(options))
            .with_context(|| format!("mount {} anew ({options})", self.0.display()))
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        if let Err(errno) = umount2(&self.0, MntFlags::MNT_DETACH) {
            eprintln!("unmount {}: {errno}", self.0.display());
        }
    }
}

/// How a run of the agent ended.
#[derive(Debug)]
pub struct Ran {
    /// Its exit code, or the signal that ended it.
    pub ended: Result<i32, i32>,
    /// What it printed.
    pub out: String,
    /// What it told.
    pub told: String,
}

impl Tree<'_> {
    /// Its root.
    pub fn root(&self) -> PathBuf {
        self.files.path().join("tree")
    }

    /// The file system that it has to itself.
    pub fn mount(&self) -> Result<&Mount> {
        self.mount.as_ref().context("this tree has no file system of its own")
    }

    /// A file beside it, which is no part of it.
    pub fn beside(&self, name: &str) -> PathBuf {
        self.files.path().join(name)
    }

    /// Runs the agent on it.
    pub fn run(&self, args: &[&str]) -> Result<Ran> {
        self.run_under(&[], args)
    }

    /// Runs the agent on it as the argument of another command: strace, or a shell that sets a limit.
    pub fn run_under(&self, wrapper: &[&str], args: &[&str]) -> Result<Ran> {
        let agent = agent();
        let mut command = Command::new("timeout");
        // It ends the wrapper and what that runs: they are one process group.
        command.args(["--kill-after=5", &RUN.as_secs().to_string()]);
        command.args(wrapper).arg(&agent).args(args);
        command.arg("--root").arg(self.root()).arg("--facts").arg(self.world.files.path().join("facts.json"));
        // Neither a proxy nor anything else of the caller's reaches the agent.
        command.env_clear().env("PATH", env::var_os("PATH").unwrap_or_default()).stdin(Stdio::null());
        let output = command.output().context("run timeout(1)")?;
        let ended = output.status.code().ok_or_else(|| output.status.signal().unwrap_or_default());
        let ran = Ran { ended, out: text(&output.stdout), told: text(&output.stderr) };
        ensure!(ran.ended != Ok(124), "{} {args:?} did not end within {RUN:?}: {}", agent.display(), ran.told);
        // timeout(1) reports a child's signal as the shell does.
        Ok(match ran.ended {
            Ok(code @ 129..) => Ran { ended: Err(code - 128), ..ran },
            _ => ran,
        })
    }

    /// Runs the agent, which must succeed.
    pub fn ok(&self, args: &[&str]) -> Result<Ran> {
        let ran = self.run(args)?;
        ensure!(ran.ended == Ok(0), "{args:?} ended with {:?}:\n{}{}", ran.ended, ran.out, ran.told);
        Ok(ran)
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Copies a tree of directories, files and links with their modes.
pub fn copy(from: &Path, to: &Path) -> Result<()> {
    let here = || format!("copy {}", from.display());
    let meta = from.symlink_metadata().with_context(here)?;
    if meta.is_dir() {
        fs::create_dir(to).with_context(here)?;
        for entry in fs::read_dir(from).with_context(here)? {
            let entry = entry.with_context(here)?;
            copy(&entry.path(), &to.join(entry.file_name()))?;
        }
        fs::set_permissions(to, meta.permissions()).with_context(here)
    } else if meta.is_symlink() {
        symlink(fs::read_link(from).with_context(here)?, to).with_context(here)
    } else {
        fs::copy(from, to).map(drop).with_context(here)
    }
}

/// What the mirror has: each program under the path that a release mirror gives it.
fn programs() -> Vec<(String, Vec<u8>)> {
    let program = |name: &str| format!("#!/bin/sh\n# stands for {name}\n").into_bytes();
    PROGRAMS.iter().map(|name| (format!("/release/v1.34.2/bin/linux/amd64/{name}"), program(name))).collect()
}

/// An archive that the mirror has as well, with a program in it that the node wants.
fn archive() -> Result<(&'static str, Vec<u8>)> {
    let mut tar = tar::Builder::new(flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast()));
    for (path, content) in [("LICENSE", "none of the node's\n"), ("bin/crictl", "#!/bin/sh\n# stands for crictl\n")] {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o755);
        tar.append_data(&mut header, path, content.as_bytes())?;
    }
    Ok(("/release/tools.tar.gz", tar.into_inner()?.finish()?))
}

/// Starts a real `cfssl serve` on a port of loopback.
fn sign(authority: &ca::Ca, directory: &Path) -> Result<(Killed, u16)> {
    fs::create_dir(directory)?;
    authority.write(directory)?;
    authority.issue_server(directory, "signer", Ipv4Addr::LOCALHOST.into())?;
    let profile = |usages: &[&str]| {
        let usages = [&["signing", "digital signature"], usages].concat();
        json!({ "auth_key": "node", "expiry": "24h", "usages": usages })
    };
    let (client, server) = (profile(&["client auth"]), profile(&["server auth"]));
    let policy = json!({
        "auth_keys": { "node": { "type": "standard", "key": AUTH_KEY } },
        "signing": {
            "default": client,
            "profiles": { "client": client, "server": server, "peer": profile(&["server auth", "client auth"]) },
        },
    });
    fs::write(directory.join("policy.json"), policy.to_string())?;
    let port = free_port();
    let file = |name: &str| directory.join(name).display().to_string();
    let log = File::create(directory.join("log"))?;
    let mut cfssl = Command::new("cfssl");
    cfssl.args(["serve", "-address=127.0.0.1", &format!("-port={port}"), &format!("-ca={}", file("ca.pem"))]);
    cfssl.args([format!("-ca-key={}", file("ca-key.pem")), format!("-config={}", file("policy.json"))]);
    cfssl.args([format!("-tls-cert={}", file("signer.pem")), format!("-tls-key={}", file("signer-key.pem"))]);
    let child = cfssl.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn();
    let signer = Killed(child.context("start cfssl (Debian: golang-cfssl)")?);
    let begun = Instant::now();
    while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
        let log = || fs::read_to_string(directory.join("log")).unwrap_or_default();
        ensure!(begun.elapsed() < PATIENCE, "cfssl did not open its port within {PATIENCE:?}: {}", log());
        thread::sleep(Duration::from_millis(20));
    }
    Ok((signer, port))
}

fn node_yaml(mirror: &str, tools: &str, signer: u16) -> String {
    let line = |(path, bytes): &(String, Vec<u8>)| {
        let name = path.rsplit('/').next().unwrap_or_default();
        format!("    {name}: {{ sha256: \"{}\" }}\n", digest(bytes))
    };
    let artifacts = programs().iter().map(line).collect::<Vec<_>>().concat();
    format!(
        "apiVersion: nodeagent.io/v1alpha1\nkind: NodeConfig\nrole: worker\n\
         cluster: {{ apiServer: \"https://10.10.30.11:6443\" }}\n\
         kubernetes:\n  version: v1.34.2\n  mirrors: [\"{mirror}\"]\n  artifacts:\n{artifacts}    tools: {tools}\n\
         pki:\n  ca: /etc/kubernetes/pki/ca.pem\n  signer:\n    cfssl:\n      url: https://127.0.0.1:{signer}\n\
         \x20     authKeyFile: /etc/nodeagent/cfssl.key\n      acceptAdminEquivalentKey: true\n"
    )
}

/// The tree before the agent: bare directories, what cloud-config writes, and something of a person's in the place of
/// each kind of thing that the agent puts, so that undoing has something to restore.
fn lay_out(root: &Path, node_yaml: &str, authority: &str) -> Result<()> {
    for directory in
        ["etc/nodeagent", "etc/kubernetes/pki", "etc/systemd/system", "opt/bin", "run", "var/lib", "usr/bin"]
    {
        fs::create_dir_all(root.join(directory))?;
    }
    let files: [(&str, &str, u32); 7] = [
        ("etc/nodeagent/node.yaml", node_yaml, 0o644),
        ("etc/nodeagent/cfssl.key", AUTH_KEY, 0o600),
        ("etc/kubernetes/pki/ca.pem", authority, 0o644),
        ("etc/hosts", "127.0.0.1 localhost\n", 0o644),
        ("etc/network-environment", "DEFAULT_IPV4=192.0.2.1\n", 0o640),
        ("etc/kubernetes/kube-proxy.env", "ARGS=mine\n", 0o600),
        // Kept aside before it is replaced.
        ("etc/systemd/system/kubelet.service", "[Service]\nExecStart=/usr/bin/kubelet\n", 0o640),
    ];
    for (path, content, mode) in files {
        let path = root.join(path);
        fs::write(&path, content)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(mode))?;
    }
    symlink("/usr/bin/kubectl", root.join("opt/bin/kubectl"))?;
    symlink("mine.yaml", root.join("etc/kubernetes/kubelet-config.yaml"))?;
    Ok(())
}

/// Fails unless the machine has what these tests run.
pub fn need(program: &str, package: &str) -> Result<()> {
    let path = env::var_os("PATH").unwrap_or_default();
    if env::split_paths(&path).any(|dir| dir.join(program).is_file()) {
        return Ok(());
    }
    bail!("{program} is missing: install the package {package}, or run `make setup`")
}
