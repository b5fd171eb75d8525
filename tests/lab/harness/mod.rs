//! A lab of real nodes on one machine.
//!
//! A [`Lab`] is a network namespace with a release mirror (nginx), a signer (cfssl) and a CA in it. A [`Node`] boots a
//! real systemd from a cached tree inside that network, and cloud-init hands it its user-data as a cloud would.
//! Everything ends with the value that made it: when a test passes, fails, panics, or its process is killed.
//!
//! What lies where, below the user's cache directory:
//!
//! | path | what |
//! | --- | --- |
//! | `lab/tree-HASH/` | a node's file system, one per recipe ([`tree`]) |
//! | `lab/vm-HASH/` | a kernel, and the same tree on a disk ([`vm`]) |
//! | `lab/programs-HASH/` | programs taken from packages ([`release`]) |
//! | `lab/kubernetes-HASH/` | a cluster's programs, built from Debian's source ([`kubernetes`]) |
//! | `lab/run/PID-N-NAME/` | a living lab ([`rundir`]) |
//! | `lab/kept/PID-N-NAME/` | what a failed lab left for inspection |

mod ca;
mod cgroup;
pub mod cluster;
mod control_plane;
pub mod disk;
pub mod image;
pub mod kubeadm;
pub mod kubernetes;
mod mounts;
pub mod net;
mod node;
pub mod process;
pub mod recording;
pub mod release;
mod rundir;
mod services;
pub mod timeline;
mod tree;
pub mod vm;

use std::{
    env,
    fmt::Write,
    fs,
    path::{Path, PathBuf},
    process::Output,
};

use anyhow::{Context, Result, anyhow, ensure};

pub use self::{
    ca::{Ca, new_key},
    cluster::{Cluster, THREE},
    control_plane::ControlPlane,
    net::{CONTROLLER, SERVICES, WORKER},
    node::{COMMAND, Node, NodeSpec},
    services::{Signer, Site, Web},
    tree::Suite,
};
use self::{cgroup::Cgroups, net::Net, release::Digests, rundir::RunDir};

/// Where the mirror has the agent itself.
const AGENT: &str = "nodeagent";

/// A network with what a node needs in it. Its fields are dropped in this order: services, network, directory.
pub struct Lab {
    /// The release mirror on port 80.
    pub mirror: Web,
    /// The signer on port 8888.
    pub signer: Signer,
    /// The cluster's authority.
    pub ca: Ca,
    /// SHA-256 of each program of the release.
    pub digests: Digests,
    agent: PathBuf,
    agent_digest: String,
    cache: PathBuf,
    tree: PathBuf,
    cgroups: Cgroups,
    net: Net,
    run: RunDir,
}

impl Lab {
    /// A lab around the agent that this test run has built, or around the one that `NODEAGENT` names.
    pub fn new(name: &str) -> Result<Self> {
        Self::with_binary(name, &Self::binary()?)
    }

    /// A lab whose mirror has `agent` as the agent.
    pub fn with_binary(name: &str, agent: &Path) -> Result<Self> {
        ensure!(nix::unistd::geteuid().is_root(), "the lab makes namespaces and mounts: run it as root");
        let cache = cache()?;
        let tree = tree::tree(&cache, Suite::Bookworm)?;
        let run = RunDir::new(&cache, name)?;
        let net = Net::new(&run.label())?;
        let docroot = run.path().join("docroot");
        let digests = release::lay_out(&cache, &docroot, &stand_in(agent)?)?;
        let agent_digest = release::publish(agent, &docroot.join(AGENT))?;
        let cgroups = Cgroups::new(&run.label(), "services")?;
        let ca = Ca::new()?;
        let signer = Signer::start(&net, &cgroups, &run.path().join("signer"), &ca)?;
        let mirror = Web::start(
            &net,
            &cgroups,
            &run.path().join("mirror"),
            SERVICES.parse()?,
            &Site::Mirror { docroot: &docroot },
        )?;
        let agent = agent.to_owned();
        Ok(Self { mirror, signer, ca, digests, agent, agent_digest, cache, tree, cgroups, net, run })
    }

    /// Runs `test` in a lab of its own: what an error or a panic leaves behind is kept for inspection.
    pub fn run(name: &str, test: impl FnOnce(&Self) -> Result<()>) -> Result<()> {
        let mut lab = Self::new(name)?;
        test(&lab)?;
        lab.passed();
        Ok(())
    }

    /// The agent under test.
    pub fn binary() -> Result<PathBuf> {
        let built = option_env!("CARGO_BIN_EXE_nodeagent").map(PathBuf::from);
        env::var_os("NODEAGENT").map(PathBuf::from).or(built).context("name the agent's binary in NODEAGENT")
    }

    /// The program that stands for components which no package has.
    pub fn stand_in() -> Result<PathBuf> {
        stand_in(&Self::binary()?)
    }

    /// From here on nothing of this lab needs to be kept.
    pub fn passed(&mut self) {
        self.run.passed();
    }

    /// A node with this host name and address, and with user-data that asks for nothing.
    pub fn node(&self, name: &str, address: &str) -> NodeSpec<'_> {
        NodeSpec::new(self, name, address)
    }

    /// A worker as a user would make it: from `cloud-config/worker.yaml` byte for byte, and with the meta-data that its
    /// template asks for.
    pub fn worker(&self, name: &str, address: &str) -> Result<NodeSpec<'_>> {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("cloud-config/worker.yaml");
        let user_data = fs::read(&path).with_context(|| format!("read {}", path.display()))?;
        let mut node = self
            .node(name, address)
            .user_data(&user_data)
            .meta_data("nodeagent_url", &format!("http://{SERVICES}/{AGENT}"))
            .meta_data("nodeagent_sha256", &self.agent_digest)
            .meta_data("cluster_ca", &self.ca.pem()?)
            .meta_data("cfssl_auth_key", &self.signer.auth_key);
        for (program, digest) in &self.digests {
            node = node.meta_data(&format!("sha256_{}", program.replace('-', "_")), digest);
        }
        Ok(node)
    }

    /// Opens the API server's port, with a certificate of the cluster's authority. There is no API server behind it.
    pub fn start_stand_in_api_server(&self) -> Result<Web> {
        let directory = self.directory().join("stand-in-api-server");
        Web::start(&self.net, &self.cgroups, &directory, CONTROLLER.parse()?, &Site::StandInApiServer { ca: &self.ca })
    }

    /// Starts a real API server, with etcd and a controller manager that approves and signs.
    pub fn start_control_plane(&self) -> Result<ControlPlane<'_>> {
        ControlPlane::start(self)
    }

    /// Has the mirror serve the real programs of Kubernetes as this version, and etcd, besides the release of stand-ins.
    /// Returns the digest of their lock file.
    pub fn lay_out_real(&self, version: &str) -> Result<String> {
        release::lay_out_real(&self.cache, &self.docroot(), version)
    }

    /// What the mirror serves.
    pub fn docroot(&self) -> PathBuf {
        self.directory().join("docroot")
    }

    /// Runs a command of the host's in the lab's network.
    pub fn run_in_network(&self, args: &[&str]) -> Result<Output> {
        process::output(&self.net.inside(args), COMMAND)
    }

    /// Starts a command of the host's that stays, in the lab's network.
    pub fn start_in_network(&self, name: &str, args: &[&str], log: &Path) -> Result<process::Daemon> {
        process::Daemon::start(name, &self.net.inside(args), &[], log, &self.cgroups)
    }

    /// The lab's own directory: one directory per node, and the services' files.
    pub fn directory(&self) -> &Path {
        self.run.path()
    }

    fn label(&self) -> String {
        self.run.label()
    }

    fn net(&self) -> &Net {
        &self.net
    }

    fn cache(&self) -> &Path {
        &self.cache
    }

    /// The tree that virtual machines and most nodes have.
    fn tree(&self) -> &Path {
        &self.tree
    }

    fn tree_of(&self, suite: Suite) -> Result<PathBuf> {
        match suite {
            Suite::Bookworm => Ok(self.tree.clone()),
            Suite::Trixie => tree::tree(&self.cache, suite),
        }
    }
}

/// Where trees and packages stay between runs.
pub fn cache() -> Result<PathBuf> {
    let home = || env::var_os("HOME").map(|home| Path::new(&home).join(".cache"));
    let base = env::var_os("XDG_CACHE_HOME").map(PathBuf::from).or_else(home).context("set HOME or XDG_CACHE_HOME")?;
    let cache = base.join("nodeagent/lab");
    fs::create_dir_all(&cache).with_context(|| format!("create {}", cache.display()))?;
    cache.canonicalize().with_context(|| format!("resolve {}", cache.display()))
}

/// The stand-in that this build made: cargo puts examples in a directory beside the agent's binary.
fn stand_in(agent: &Path) -> Result<PathBuf> {
    let this = env::current_exe().context("find this program")?;
    // A test is in `deps/` and the demo in `examples/` of the directory where the agent is.
    let roots = [agent.parent(), this.parent().and_then(Path::parent)];
    let places = roots.into_iter().flatten().map(|root| root.join("examples/standin"));
    places.into_iter().find(|path| path.is_file()).ok_or_else(|| {
        anyhow!(
            "the stand-in for kubelet is not built: run `cargo build --profile lab --example standin`, or `make test`"
        )
    })
}

/// SHA-256 in hexadecimal.
pub fn digest(bytes: &[u8]) -> String {
    hex(&openssl::sha::sha256(bytes))
}

/// Two digits per byte, as every tool here writes and wants them.
fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
