//! What runs on a node, and how each program is configured.
//!
//! Configuration files rather than flags wherever a program has them; they are JSON, which is YAML. A file per program
//! holds what every known release takes; what depends on the release is in [`super::versions`].

mod api_server;
mod controller_manager;
pub mod etcd;
mod flanneld;
mod kube_proxy;
pub mod kubelet;
mod scheduler;

use std::net::IpAddr;

use serde_json::{Map, Value};

use super::versions::{self, Program};
use crate::config::settings::{FlannelSettings, Role, Settings};
use crate::config::values::{HttpUrl, RootPath, UnitName};
use crate::engine::file::ManagedFile;
use crate::engine::resource::Resource;
use crate::host::facts::Facts;
use crate::identity::Identity;

/// Where the kubelet reaches the container runtime, and what is waited for before it starts.
pub const RUNTIME: &str = "unix:///run/containerd/containerd.sock";

/// The directory of configuration files and kubeconfigs.
const ETC: &str = "/etc/kubernetes";

/// A program that runs as a unit on this node.
pub struct Component {
    /// The unit that runs it.
    pub unit: UnitName,
    /// The unit file, from `units/`.
    pub unit_file: &'static str,
    /// Its configuration files.
    pub files: Vec<ConfigFile>,
    /// Its flags.
    pub args: Vec<String>,
    /// What each start waits for.
    pub wait: Vec<String>,
    /// Further variables that its unit file reads.
    pub vars: Vec<(&'static str, String)>,
}

/// A file that a program reads at its start.
pub struct ConfigFile {
    /// The resource's name.
    pub name: String,
    /// Where.
    pub path: RootPath,
    /// What makes it so.
    pub what: Box<dyn Resource>,
}

/// What programs are configured from.
pub struct Node<'a> {
    /// What is wanted.
    pub settings: &'a Settings,
    /// What the machine is.
    pub facts: &'a Facts,
    /// Who it is.
    pub identity: &'a Identity,
}

impl Node<'_> {
    /// The programs of this node's role.
    pub fn components(&self) -> Vec<Component> {
        let of_kubernetes = Program::of(self.settings.role).iter().filter_map(|program| match program {
            // Kubeadm configures it: `super::kubeadm`.
            Program::Kubelet if self.settings.role == Role::Kubeadm => None,
            Program::Kubelet => Some(kubelet::component(self)),
            Program::KubeProxy => Some(kube_proxy::component(self)),
            Program::ApiServer => Some(api_server::component(self)),
            Program::ControllerManager => Some(controller_manager::component(self)),
            Program::Scheduler => Some(scheduler::component(self)),
            Program::Kubeadm => None,
        });
        let etcd = self.settings.etcd.member.then(|| etcd::component(self));
        let flannel = self.flannel().map(|flannel| flanneld::component(self, flannel));
        etcd.into_iter().chain(flannel).chain(of_kubernetes).collect()
    }

    /// Flannel, where it connects pods of this node.
    pub fn flannel(&self) -> Option<&FlannelSettings> {
        self.settings.cluster.flannel.as_ref().filter(|_| self.settings.role.runs_pods())
    }

    /// The minor release of a program: the 34 of v1.34.2.
    pub fn minor(&self, program: Program) -> u32 {
        program.version(self.settings).minor()
    }

    /// The file of a pair, certificate and key.
    fn pair(&self, name: &str) -> RootPath {
        self.settings.certs.dir.join(&format!("{name}.pem"))
    }

    /// What is waited for before a client of the API server starts.
    pub fn api_server(&self) -> String {
        target(&self.identity.api_server(self.settings))
    }

    /// The address that stands for all of this machine's, of the family of the node's own.
    fn any_address(&self) -> &'static str {
        match self.identity.address {
            IpAddr::V4(_) => "0.0.0.0",
            IpAddr::V6(_) => "::",
        }
    }

    /// A configuration file: what every release takes, and what depends on it.
    pub fn config(&self, program: Program, of_all: Value) -> Value {
        let mut config: Map<String, Value> = match of_all {
            Value::Object(fields) => fields,
            _ => Map::new(),
        };
        config.append(&mut versions::fields(program, self));
        Value::Object(config)
    }

    /// The flags that every release takes, and those that depend on it.
    fn args(&self, program: Program, of_all: Vec<String>) -> Vec<String> {
        of_all.into_iter().chain(versions::flags(program, self)).collect()
    }
}

/// A file of [`ETC`].
pub fn etc(name: &str) -> RootPath {
    RootPath::literal(ETC).join(name)
}

/// The server of a URL, as `nodeagent wait` takes it.
fn target(url: &HttpUrl) -> String {
    let (host, port) = url.host_port();
    if host.contains(':') { format!("tcp://[{host}]:{port}") } else { format!("tcp://{host}:{port}") }
}

/// A file as it is written: readable, its keys in one order.
fn text(config: &Value) -> String {
    format!("{config:#}\n")
}

/// A configuration file that follows from Settings alone.
fn config_file(path: RootPath, unit: &UnitName, config: &Value) -> ConfigFile {
    let what: Box<dyn Resource> = ManagedFile::new(path.clone(), text(config));
    ConfigFile { name: format!("{}-config", unit.stem()), path, what }
}
