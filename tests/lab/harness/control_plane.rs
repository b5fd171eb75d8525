//! A real control plane: etcd, kube-apiserver and kube-controller-manager as processes in the lab's network.

use std::{
    ffi::OsString,
    fs,
    net::IpAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result};
use openssl::{pkey::PKey, rsa::Rsa};
use serde_json::json;
use tempfile::TempDir;

use super::{
    Lab, kubernetes,
    net::{CONTROLLER, Net},
    process::{self, Daemon, wait_until},
    release,
    services::wait_for_port,
};

/// For the API server to have made its own roles.
const START: Duration = Duration::from_mins(2);

/// For one kubectl.
const COMMAND: Duration = Duration::from_secs(30);

/// A control plane, gone when dropped. Nothing is in it that Kubernetes does not put there itself: no binding for bootstrap
/// tokens, and no token.
pub struct ControlPlane<'lab> {
    net: &'lab Net,
    directory: PathBuf,
    programs: PathBuf,
    daemons: Vec<Daemon>,
    _data: TempDir,
}

impl<'lab> ControlPlane<'lab> {
    /// Starts it at the API server's address, with the lab's authority, and waits until it is ready.
    pub(super) fn start(lab: &'lab Lab) -> Result<Self> {
        let programs = kubernetes::programs(&lab.cache)?;
        let directory = lab.directory().join("control-plane");
        fs::create_dir_all(&directory).with_context(|| format!("create {}", directory.display()))?;
        let address: IpAddr = CONTROLLER.parse()?;
        lab.ca.write(&directory)?;
        lab.ca.issue_server(&directory, "api-server", address)?;
        lab.ca.issue_administrator(&directory, "admin")?;
        write_service_account_key(&directory)?;
        write_kubeconfig(&directory)?;

        let file = |name: &str| directory.join(name).display().to_string();
        let start = |program: &Path, args: Vec<String>, port: (IpAddr, u16)| {
            let name = program.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let args: Vec<String> = [program.display().to_string()].into_iter().chain(args).collect();
            let log = directory.join(format!("{name}.log"));
            let mut daemon = Daemon::start(&name, &lab.net.inside(&args), &[], &log, &lab.cgroups)?;
            wait_for_port(&mut daemon, &lab.net, port.0, port.1)?;
            Ok::<_, anyhow::Error>(daemon)
        };
        let loopback: IpAddr = "127.0.0.1".parse()?;
        // In memory: each of the API server's own hundred objects would wait for whatever else this machine writes.
        let data = tempfile::tempdir_in("/dev/shm").context("make a directory for etcd")?;
        let etcd = start(
            &release::packaged(&lab.cache)?.join("etcd"),
            vec![
                format!("--data-dir={}", data.path().display()),
                "--listen-client-urls=http://127.0.0.1:2379".into(),
                "--advertise-client-urls=http://127.0.0.1:2379".into(),
                "--listen-peer-urls=http://127.0.0.1:2380".into(),
            ],
            (loopback, 2379),
        )?;
        let api_server = start(
            &programs.join("kube-apiserver"),
            vec![
                format!("--bind-address={address}"),
                format!("--advertise-address={address}"),
                "--etcd-servers=http://127.0.0.1:2379".into(),
                format!("--cert-dir={}", file("made")),
                format!("--tls-cert-file={}", file("api-server.pem")),
                format!("--tls-private-key-file={}", file("api-server-key.pem")),
                format!("--client-ca-file={}", file("ca.pem")),
                "--authorization-mode=Node,RBAC".into(),
                "--enable-admission-plugins=NodeRestriction".into(),
                "--enable-bootstrap-token-auth".into(),
                "--service-account-issuer=https://kubernetes.default.svc".into(),
                format!("--service-account-key-file={}", file("sa.pem")),
                format!("--service-account-signing-key-file={}", file("sa-key.pem")),
                "--service-cluster-ip-range=10.96.0.0/12".into(),
            ],
            (address, 6443),
        )?;
        let daemons = vec![etcd, api_server];
        let mut plane = Self { net: &lab.net, directory: directory.clone(), programs, daemons, _data: data };
        // The controller manager gives up for good if this takes longer than ten seconds.
        wait_until("the API server to be ready", START, || plane.kubectl(&["get", "--raw=/readyz"]))?;
        let controllers = start(
            &plane.programs.join("kube-controller-manager"),
            vec![
                format!("--kubeconfig={}", file("admin.conf")),
                "--bind-address=127.0.0.1".into(),
                format!("--cert-dir={}", file("made")),
                "--leader-elect=false".into(),
                "--controllers=csrapproving,csrsigning,csrcleaner,bootstrapsigner,tokencleaner".into(),
                format!("--cluster-signing-cert-file={}", file("ca.pem")),
                format!("--cluster-signing-key-file={}", file("ca-key.pem")),
            ],
            (loopback, 10257),
        )?;
        plane.daemons.push(controllers);
        Ok(plane)
    }

    /// Runs kubectl as an administrator, which must succeed, and returns what it printed.
    pub fn kubectl(&self, args: &[&str]) -> Result<String> {
        let config = format!("--kubeconfig={}", self.directory.join("admin.conf").display());
        self.kubectl_as(&[&[config.as_str()], args].concat())
    }

    /// Runs kubectl as whoever the arguments say.
    pub fn kubectl_as(&self, args: &[&str]) -> Result<String> {
        process::ok(&self.command(args), COMMAND)
    }

    /// As [`Self::kubectl_as`], and returns all that it printed, whether it succeeded or not.
    pub fn kubectl_says(&self, args: &[&str]) -> Result<String> {
        let output = process::output(&self.command(args), COMMAND)?;
        Ok(String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
    }

    fn command(&self, args: &[&str]) -> Vec<OsString> {
        let kubectl = self.programs.join("kubectl").display().to_string();
        // kubectl keeps what it learns of a server in its home.
        let home = format!("HOME={}", self.directory.display());
        let command = [&["env", "--ignore-environment", &home, &kubectl][..], args].concat();
        self.net.inside(&command)
    }

    /// Brings objects into being as an administrator.
    pub fn apply(&self, objects: &[serde_json::Value]) -> Result<()> {
        let list = json!({ "apiVersion": "v1", "kind": "List", "items": objects });
        let file = self.directory.join("apply.json");
        fs::write(&file, list.to_string()).with_context(|| format!("write {}", file.display()))?;
        self.kubectl(&["apply", "-f", file.to_str().context("a path in UTF-8")?]).map(drop)
    }
}

/// Of its own: never the key of a TLS server.
fn write_service_account_key(directory: &Path) -> Result<()> {
    let key = PKey::from_rsa(Rsa::generate(2048)?)?;
    fs::write(directory.join("sa-key.pem"), key.private_key_to_pem_pkcs8()?).context("write sa-key.pem")?;
    fs::write(directory.join("sa.pem"), key.public_key_to_pem()?).context("write sa.pem")
}

fn write_kubeconfig(directory: &Path) -> Result<()> {
    let file = |name: &str| directory.join(name).display().to_string();
    let config = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{
            "name": "lab",
            "cluster": { "server": format!("https://{CONTROLLER}:6443"), "certificate-authority": file("ca.pem") },
        }],
        "users": [{
            "name": "admin",
            "user": { "client-certificate": file("admin.pem"), "client-key": file("admin-key.pem") },
        }],
        "contexts": [{ "name": "lab", "context": { "cluster": "lab", "user": "admin" } }],
        "current-context": "lab",
    });
    fs::write(directory.join("admin.conf"), config.to_string()).context("write admin.conf")
}
