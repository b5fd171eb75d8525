//! `nodeagent cluster` against a real API server.
//!
//! | what | file |
//! | --- | --- |
//! | what it approves and what it leaves | `approver.rs` |
//! | what it applies and how often | `objects.rs` |
//! | which of two controllers works, and what a lost API server changes | `turns.rs` |
//! | its unit | `unit.rs` |

mod approver;
mod objects;
mod turns;
mod unit;

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use nodeagent::{
    certs::{
        key::Key,
        request::{Usage, Wanted, request},
    },
    config::settings::KeyKind,
    host::facts::Facts,
};
use serde_json::{Value, json};

use crate::harness::{CONTROLLER, ControlPlane, Lab, WORKER, process::Daemon};

/// The token of worker-01.
const TOKEN: &str = "abcdef.0123456789abcdef";

/// For the service to have done what it is going to do.
const SOON: Duration = Duration::from_mins(2);

/// What a request has to be left alone for before it counts as left.
const A_WHILE: Duration = Duration::from_secs(3);

const TOKENS: &str = "apiVersion: nodeagent.io/v1alpha1\nkind: BootstrapTokens\ntokens:\n\
                      \x20 worker-01: { token: abcdef.0123456789abcdef, expires: 2099-01-01T00:00:00Z }\n\
                      \x20 worker-02: { token: second.0123456789abcdef, expires: 2099-01-01T00:00:00Z }\n\
                      \x20 edge-01: { token: expire.0123456789abcdef, expires: 2020-01-01T00:00:00Z }\n";

/// A controller's tree, and the service on it.
pub struct Controller<'lab> {
    lab: &'lab Lab,
    root: PathBuf,
    runs: u32,
}

impl<'lab> Controller<'lab> {
    /// A controller of this file's own cluster, whose API server is [`ControlPlane`].
    pub fn new(lab: &'lab Lab) -> Result<Self> {
        let root = lab.directory().join("controller");
        for directory in ["etc/nodeagent", "etc/kubernetes/pki", "etc/kubernetes/addons"] {
            fs::create_dir_all(root.join(directory))?;
        }
        let facts = serde_json::to_string(&Facts::sample())?.replace(WORKER, CONTROLLER);
        fs::write(lab.directory().join("controller-facts.json"), facts)?;
        let plane = lab.directory().join("control-plane");
        let pair = [fs::read_to_string(plane.join("admin.pem"))?, fs::read_to_string(plane.join("admin-key.pem"))?];
        let controller = Self { lab, root, runs: 0 };
        controller.write("etc/kubernetes/pki/admin-client.pem", &pair.concat())?;
        controller.write("etc/kubernetes/pki/ca.pem", &lab.ca.pem()?)?;
        controller.write("etc/nodeagent/bootstrap-tokens.yaml", TOKENS)?;
        controller.write("etc/nodeagent/node.yaml", &node_yaml("eth0", CONTROLLER))?;
        Ok(controller)
    }

    /// Writes a file of the controller's, for root alone.
    pub fn write(&self, path: &str, text: &str) -> Result<()> {
        let path = self.root.join(path);
        fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
        Ok(fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?)
    }

    /// Starts the service.
    pub fn start(&mut self) -> Result<Running> {
        self.runs += 1;
        let log = self.lab.directory().join(format!("cluster-{}.log", self.runs));
        let facts = self.lab.directory().join("controller-facts.json");
        let agent = Lab::binary()?;
        let args: [&Path; 6] =
            [&agent, Path::new("cluster"), Path::new("--root"), &self.root, Path::new("--facts"), &facts];
        let args: Vec<&str> = args.iter().map(|arg| arg.to_str().context("a path in UTF-8")).collect::<Result<_>>()?;
        let daemon = self.lab.start_in_network("nodeagent cluster", &args, &log)?;
        Ok(Running { daemon, log })
    }
}

/// The configuration of a controller that has this address on this link.
fn node_yaml(link: &str, address: &str) -> String {
    format!(
        "apiVersion: nodeagent.io/v1alpha1\nkind: NodeConfig\nrole: controller\n\
         node: {{ name: controller-01, interface: {link} }}\n\
         cluster:\n  apiServer: https://{CONTROLLER}:6443\n  nodes:\n\
         \x20   controller-01: {{ role: controller, address: {address} }}\n\
         \x20   worker-01: {{ address: {WORKER} }}\n\
         \x20   worker-02: {{ address: 10.10.30.22 }}\n\
         \x20   edge-01: {{ role: edge, address: 10.10.30.41 }}\n\
         kubernetes: {{ version: v1.20.2, artifacts: {{ etcd: {{ version: v3.4.23 }} }} }}\n\
         pki:\n  ca: /etc/kubernetes/pki/ca.pem\n\
         \x20 signer: {{ local: {{ key: /etc/kubernetes/pki/ca-key.pem }} }}\n\
         \x20 etcd:\n    ca: /etc/kubernetes/pki/etcd-ca.pem\n\
         \x20   signer: {{ local: {{ key: /etc/kubernetes/pki/etcd-ca-key.pem }} }}\n"
    )
}

/// A service that runs, and what it tells.
pub struct Running {
    daemon: Daemon,
    log: PathBuf,
}

impl Running {
    /// All that it told, which is no token.
    pub fn told(&self) -> Result<String> {
        let told = fs::read_to_string(&self.log)?;
        ensure!(!told.contains("0123456789abcdef"), "a token's secret is told: {told}");
        Ok(told)
    }

    /// Waits until it has told this.
    pub fn tells(&mut self, part: &str) -> Result<()> {
        let log = self.log.clone();
        self.daemon.wait_until(&format!("{part:?} to be told"), SOON, || {
            let told = fs::read_to_string(&log)?;
            ensure!(told.contains(part), "{told}");
            Ok(())
        })
    }
}

fn wanted(common_name: &str, organization: Option<&str>) -> Wanted {
    Wanted {
        common_name: common_name.into(),
        organization: organization.map(Into::into),
        dns: Vec::new(),
        ips: Vec::new(),
        usages: vec![Usage::Client],
        key: KeyKind::EcdsaP256,
    }
}

fn client(node: &str) -> Wanted {
    wanted(&format!("system:node:{node}"), Some("system:nodes"))
}

/// Asks for a certificate as whoever the arguments to kubectl say.
fn ask(lab: &Lab, plane: &ControlPlane<'_>, name: &str, signer: &str, wanted: &Wanted, who: &[&str]) -> Result<()> {
    let pem = request(wanted, &Key::generate(wanted.key)?)?;
    let object = json!({
        "apiVersion": "certificates.k8s.io/v1",
        "kind": "CertificateSigningRequest",
        "metadata": { "name": name },
        "spec": {
            "request": openssl::base64::encode_block(pem.as_bytes()),
            "signerName": format!("kubernetes.io/{signer}"),
            "usages": ["digital signature", "key encipherment", wanted.usages[0].to_string()],
        },
    });
    let file = lab.directory().join(format!("{name}.json"));
    fs::write(&file, object.to_string())?;
    let create = ["create", "--validate=false", "-f", file.to_str().context("a path in UTF-8")?];
    plane.kubectl_as(&[who, &create].concat()).map(drop)
}

fn get(plane: &ControlPlane<'_>, args: &[&str]) -> Result<Value> {
    Ok(serde_json::from_str(&plane.kubectl(&[&["get", "-o", "json"], args].concat())?)?)
}
