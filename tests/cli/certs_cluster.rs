//! A controller's and an etcd member's certificates, judged by the `openssl` program and not by our own code.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use anyhow::{Context as _, Result, ensure};
use nodeagent::host::facts::Facts;
use tempfile::TempDir;

use crate::certs::{extensions, openssl, path};
use crate::world::{World, agent, scratch};

/// Each pair of a controller with a member of the store: its CA, what it is for in the words of `openssl verify`, and its
/// subject.
const PAIRS: [(&str, &str, &[&str], &str); 14] = [
    ("admin-client", "ca", &["sslclient"], "O = system:masters, CN = kubernetes-admin"),
    ("api-server", "ca", &["sslserver"], "CN = kube-apiserver"),
    ("api-server-etcd-client", "etcd-ca", &["sslclient"], "CN = kube-apiserver-etcd-client"),
    ("api-server-kubelet-client", "ca", &["sslclient"], "CN = kube-apiserver-kubelet-client"),
    ("controller-manager-client", "ca", &["sslclient"], "CN = system:kube-controller-manager"),
    ("etcd-peer", "etcd-ca", &["sslclient", "sslserver"], "CN = worker-01"),
    ("etcd-server", "etcd-ca", &["sslclient", "sslserver"], "CN = worker-01"),
    ("front-proxy-client", "front-proxy-ca", &["sslclient"], "CN = front-proxy-client"),
    ("kube-proxy-client", "ca", &["sslclient"], "CN = system:kube-proxy"),
    ("kubelet-client", "ca", &["sslclient"], "O = system:nodes, CN = system:node:worker-01"),
    ("kubelet-server", "ca", &["sslserver"], "O = system:nodes, CN = system:node:worker-01"),
    ("metrics", "ca", &["sslclient"], "O = readers, CN = metrics"),
    ("scheduler-client", "ca", &["sslclient"], "CN = system:kube-scheduler"),
    ("web", "ca", &["sslserver"], "CN = web"),
];

/// What openssl shows of a certificate's extensions under an ECDSA key, but for usage and names.
const COMMON: &str = "  X509v3 Basic Constraints: critical
  CA:FALSE
  X509v3 Key Usage: critical
  Digital Signature
  X509v3 Extended Key Usage:
  USAGE
  X509v3 Subject Key Identifier:
  (20 bytes)
  X509v3 Authority Key Identifier:
  (20 bytes)
";

/// The names of those that somebody connects to.
const NAMES: [(&str, &str); 5] = [
    (
        "api-server",
        "DNS:kubernetes, DNS:kubernetes.default, DNS:kubernetes.default.svc, DNS:kubernetes.default.svc.cluster.local, \
         DNS:localhost, DNS:worker-01, DNS:c1.example.com, DNS:k8s.example.com, IP Address:10.96.0.1, \
         IP Address:127.0.0.1, IP Address:10.10.30.21",
    ),
    ("etcd-peer", "DNS:worker-01, DNS:c1.example.com, IP Address:10.10.30.21"),
    ("etcd-server", "DNS:worker-01, DNS:c1.example.com, DNS:localhost, IP Address:10.10.30.21, IP Address:127.0.0.1"),
    ("kubelet-server", "DNS:worker-01, DNS:c1.example.com, IP Address:10.10.30.21"),
    ("web", "DNS:www.example.com, IP Address:192.0.2.1"),
];

/// A controller's tree, with CAs that `nodeagent certs ca` made.
struct Controller {
    files: TempDir,
}

impl Controller {
    fn new(key: &str, signers: [&str; 3]) -> Result<Self> {
        let files = scratch()?;
        let [cluster, etcd, front_proxy] = signers;
        let yaml = format!(
            "apiVersion: nodeagent.io/v1alpha1\nkind: NodeConfig\nrole: controller\n\
             cluster:\n  apiServer: https://k8s.example.com:6443\n  nodes:\n\
             \x20   worker-01: {{ role: controller, address: 10.10.30.21, names: [c1.example.com] }}\n\
             kubernetes: {{ version: v1.20.2, artifacts: {{ etcd: {{ version: v3.4.23 }} }} }}\n\
             pki:\n  key: {key}\n  ca: /etc/kubernetes/pki/ca.pem\n  signer: {{ {cluster} }}\n\
             \x20 etcd: {{ ca: /etc/kubernetes/pki/etcd-ca.pem, signer: {{ {etcd} }} }}\n\
             \x20 frontProxy: {{ ca: /etc/kubernetes/pki/front-proxy-ca.pem, signer: {{ {front_proxy} }} }}\n\
             \x20 extra:\n\
             \x20   metrics: {{ commonName: metrics, organization: readers, usages: [client] }}\n\
             \x20   web: {{ commonName: web, dns: [www.example.com], addresses: [192.0.2.1], usages: [server] }}\n"
        );
        let controller = Self { files };
        fs::create_dir_all(controller.pki())?;
        fs::create_dir_all(controller.root().join("etc/nodeagent"))?;
        fs::write(controller.root().join("etc/nodeagent/node.yaml"), yaml).context("write node.yaml")?;
        fs::write(controller.files.path().join("facts.json"), serde_json::to_vec(&Facts::sample())?)?;
        let made = Command::new(agent())
            .args(["certs", "ca", path(&controller.pki())?, "--etcd", "--front-proxy", "--key", key])
            .output()?;
        ensure!(made.status.success(), "{made:?}");
        Ok(controller)
    }

    /// One whose CAs' keys are all there.
    fn signing(key: &str) -> Result<Self> {
        let local = |ca: &str| format!("local: {{ key: /etc/kubernetes/pki/{ca}-key.pem }}");
        let [cluster, etcd, front_proxy] = ["ca", "etcd-ca", "front-proxy-ca"].map(local);
        Self::new(key, [&cluster, &etcd, &front_proxy])
    }

    fn root(&self) -> PathBuf {
        self.files.path().join("tree")
    }

    fn pki(&self) -> PathBuf {
        self.root().join("etc/kubernetes/pki")
    }

    fn run(&self, args: &[&str]) -> Result<Output> {
        let mut command = Command::new(agent());
        command.args(args).arg("--root").arg(self.root());
        command.arg("--facts").arg(self.files.path().join("facts.json")).output().context("run nodeagent")
    }

    /// Runs the agent, which must succeed, and returns what it told.
    fn ok(&self, args: &[&str]) -> Result<String> {
        let output = self.run(args)?;
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(output.status.success(), "{args:?}: {}\n{told}", String::from_utf8_lossy(&output.stdout));
        Ok(told)
    }

    /// Each pair passes openssl's strict judgement, for what it is for.
    fn judge(&self) -> Result<()> {
        for (name, ca, purposes, subject) in PAIRS {
            let (pair, ca) = (self.pki().join(format!("{name}.pem")), self.pki().join(format!("{ca}.pem")));
            let (pair, ca) = (path(&pair)?, path(&ca)?);
            for purpose in purposes {
                openssl(&["verify", "-x509_strict", "-purpose", purpose, "-CAfile", ca, pair]).context(name)?;
            }
            let shown = openssl(&["x509", "-in", pair, "-noout", "-subject"])?;
            ensure!(shown.trim_end() == format!("subject={subject}"), "{name}: {shown}");
            let key = openssl(&["pkey", "-in", pair, "-pubout"])?;
            ensure!(key == openssl(&["x509", "-in", pair, "-noout", "-pubkey"])?, "{name}: the key is another's");
            ensure!(mode(Path::new(pair))? == 0o600, "{name} is open");
        }
        Ok(())
    }
}

fn mode(path: &Path) -> Result<u32> {
    let meta = fs::metadata(path).with_context(|| format!("look at {}", path.display()))?;
    Ok(meta.permissions().mode() & 0o7777)
}

/// What a certificate's extensions are to look like.
fn expected(name: &str, purposes: &[&str]) -> String {
    // A member is a server first.
    let usages = purposes.iter().rev().map(|purpose| match *purpose {
        "sslserver" => "TLS Web Server Authentication",
        _ => "TLS Web Client Authentication",
    });
    let common = COMMON.replace("USAGE", &usages.collect::<Vec<_>>().join(", "));
    let names = NAMES.iter().find(|(named, _)| *named == name);
    let names = names.map(|(_, names)| format!("  X509v3 Subject Alternative Name:\n  {names}\n")).unwrap_or_default();
    format!("{name}:\n{common}{names}")
}

#[test]
fn a_controllers_certificates_pass_openssls_strict_judgement() -> Result<()> {
    let controller = Controller::signing("ecdsa-p256")?;
    let told = controller.ok(&["certs"])?;
    ensure!(!told.contains("can sign a cluster administrator"), "a controller holds the CA's key by right: {told}");
    controller.judge()?;
    for (name, _, purposes, _) in PAIRS {
        let pair = controller.pki().join(format!("{name}.pem"));
        let text = openssl(&["x509", "-in", path(&pair)?, "-noout", "-text"])?;
        ensure!(extensions(name, &text) == expected(name, purposes), "{}", extensions(name, &text));
    }
    let again = controller.ok(&["certs"])?;
    ensure!(again.contains("nothing to do"), "{again}");

    // Tokens of service accounts are signed by a key of its own, which no certificate is for.
    let key = controller.pki().join("sa-key.pem");
    let public = openssl(&["pkey", "-in", path(&key)?, "-pubout"])?;
    ensure!(mode(&key)? == 0o600, "{} is open", key.display());
    ensure!(fs::read_to_string(controller.pki().join("sa.pub"))? == public, "sa.pub is another's");
    for (name, ..) in PAIRS {
        let pair = controller.pki().join(format!("{name}.pem"));
        ensure!(openssl(&["pkey", "-in", path(&pair)?, "-pubout"])? != public, "{name} has the service accounts' key");
    }

    let shown = controller.run(&["certs", "show"])?;
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    for line in [
        "pki/etcd-ca.pem: good, ",
        "\n  the CA of the cluster's store, read by etcd.service, nodeagent-etcd-snapshot.service, kube-apiserver.service\n",
        "pki/front-proxy-ca.pem: good, ",
        "pki/etcd-peer.pem: good, ",
        "etcd's certificate among its members, read by etcd.service\n",
        "pki/admin-client.pem: good, ",
    ] {
        ensure!(shown.contains(line), "it does not say {line:?}:\n{shown}");
    }
    Ok(())
}

#[test]
fn rsa_keys_do_for_a_controller_too() -> Result<()> {
    let controller = Controller::signing("rsa-2048")?;
    controller.ok(&["certs"])?;
    controller.judge()?;
    for (name, ..) in PAIRS {
        let pair = controller.pki().join(format!("{name}.pem"));
        let text = openssl(&["x509", "-in", path(&pair)?, "-noout", "-text"])?;
        ensure!(text.contains("Public-Key: (2048 bit)") && text.contains("Key Encipherment"), "{name}: {text}");
    }
    Ok(())
}

#[test]
fn one_of_several_controllers_wants_the_clusters_own_key_for_service_accounts() -> Result<()> {
    let controller = Controller::signing("ecdsa-p256")?;
    let more = controller.root().join("etc/nodeagent/node.d");
    fs::create_dir_all(&more)?;
    let other = "cluster: { nodes: { other: { role: controller, address: 10.10.30.22 } } }\n";
    fs::write(more.join("10-other.yaml"), other)?;
    let output = controller.run(&["certs"])?;
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.code() == Some(1), "{output:?}");
    let says = "pki/sa-key.pem: there is no such file, and other controllers must have the same";
    ensure!(told.contains(says) && told.contains("the same on every controller"), "{told}");
    ensure!(!controller.pki().join("sa-key.pem").exists(), "it made one that no other has");
    Ok(())
}

#[test]
fn secrets_are_encrypted_with_the_key_that_was_brought() -> Result<()> {
    let controller = Controller::signing("ecdsa-p256")?;
    let more = controller.root().join("etc/nodeagent/node.d");
    fs::create_dir_all(&more)?;
    fs::write(more.join("10-key.yaml"), "pki: { encryptionKey: /etc/kubernetes/pki/encryption.key }\n")?;
    let keys = controller.pki().join("encryption.key");
    let key = openssl(&["rand", "-base64", "32"])?;
    fs::write(&keys, &key)?;
    fs::set_permissions(&keys, fs::Permissions::from_mode(0o600))?;
    let told = controller.ok(&["certs"])?;
    let config = controller.root().join("etc/kubernetes/encryption.conf");
    ensure!(mode(&config)? == 0o600, "{} is open", config.display());
    ensure!(fs::read_to_string(&config)?.contains(key.trim()), "the key is not in it");
    let plan = controller.run(&["plan", "-o", "json"])?;
    for said in [told.as_bytes(), &plan.stdout, &plan.stderr] {
        ensure!(!String::from_utf8_lossy(said).contains(key.trim()), "the key is told");
    }
    Ok(())
}

/// `certs sign` by a CA of the office's; what it printed, or what it told when it refused.
fn sign(office: &Path, ca: &str, more: &[&str], requests: &[PathBuf]) -> Result<Result<String, String>> {
    let mut command = Command::new(agent());
    command.args(["certs", "sign"]).args(more).arg("--ca").arg(office.join(format!("{ca}.pem")));
    let output = command.arg("--key").arg(office.join(format!("{ca}-key.pem"))).args(requests).output()?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ok(if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) })
}

#[test]
fn a_person_signs_a_controllers_requests_when_told_that_they_are() -> Result<()> {
    let offline = "offline: { dir: /etc/kubernetes/pki/offline }";
    let controller = Controller::new("ecdsa-p256", [offline; 3])?;
    fs::write(
        controller.root().join("etc/nodeagent/node.yaml"),
        fs::read_to_string(controller.root().join("etc/nodeagent/node.yaml"))?
            .lines()
            // Whoever signs for nodeagent signs what it knows.
            .filter(|line| !line.contains("metrics:") && !line.contains("web:") && !line.contains("extra:"))
            .fold(String::new(), |text, line| text + line + "\n"),
    )?;
    // The CAs' keys are in an office, and never on the machine.
    let office = scratch()?;
    for ca in ["ca", "etcd-ca", "front-proxy-ca"] {
        let (certificate, key) = (format!("{ca}.pem"), format!("{ca}-key.pem"));
        fs::copy(controller.pki().join(&certificate), office.path().join(&certificate))?;
        fs::copy(controller.pki().join(&key), office.path().join(&key))?;
        fs::remove_file(controller.pki().join(&key))?;
    }
    controller.ok(&["certs", "csr"])?;
    let dir = controller.pki().join("offline");
    let requests = |ca: &str| -> Vec<PathBuf> {
        let own = PAIRS.iter().filter(|(name, of, ..)| *of == ca && !["metrics", "web"].contains(name));
        own.map(|(name, ..)| dir.join(format!("{name}.csr"))).collect()
    };
    let refused = sign(office.path(), "ca", &[], &requests("ca"))?.err().context("an administrator was signed")?;
    ensure!(refused.contains("is not what a node asks for") && refused.contains("--control-plane"), "{refused}");
    for ca in ["ca", "front-proxy-ca"] {
        let signed = sign(office.path(), ca, &["--control-plane"], &requests(ca))?;
        signed.map_err(anyhow::Error::msg)?;
    }
    // By the wrong CA: whoever carries them mixes them up.
    sign(office.path(), "ca", &["--control-plane"], &requests("etcd-ca"))?.map_err(anyhow::Error::msg)?;
    let output = controller.run(&["certs"])?;
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.code() == Some(4), "{output:?}");
    ensure!(told.contains("signed by CN=kubernetes-ca, not by the key of CN=etcd-ca"), "{told}");
    ensure!(!controller.pki().join("etcd-peer.pem").exists(), "a pair of another CA is in place");

    let signed = sign(office.path(), "etcd-ca", &["--control-plane"], &requests("etcd-ca"))?;
    let shown = signed.map_err(anyhow::Error::msg)?;
    ensure!(shown.contains("etcd-server.pem: CN=worker-01 for c1.example.com, localhost, worker-01, 10.10.30.21, 127.0.0.1 (server auth, client auth)"), "{shown}");
    controller.ok(&["certs"])?;
    ensure!(fs::read_dir(&dir)?.next().is_none(), "something was left in {}", dir.display());
    for (name, ca, ..) in PAIRS.iter().filter(|(name, ..)| !["metrics", "web"].contains(name)) {
        let (pair, ca) = (controller.pki().join(format!("{name}.pem")), office.path().join(format!("{ca}.pem")));
        openssl(&["verify", "-x509_strict", "-CAfile", path(&ca)?, path(&pair)?])?;
    }
    Ok(())
}

#[test]
fn a_members_certificates_come_from_a_real_cfssl_by_its_profile_for_peers() -> Result<()> {
    let world = World::new()?;
    let start = world.start();
    let yaml = fs::read_to_string(start.join("etc/nodeagent/node.yaml"))?;
    let (_, rest) = yaml.split_once("      url: ").context("the sample has a signer")?;
    let url = rest.lines().next().unwrap_or_default();
    let cfssl = format!("cfssl: {{ url: '{url}', authKeyFile: /etc/nodeagent/cfssl.key }}");
    let local = |ca: &str| format!("local: {{ key: /etc/kubernetes/pki/{ca}-key.pem }}");
    let controller = Controller::new("ecdsa-p256", [&local("ca"), &cfssl, &local("front-proxy-ca")])?;
    // The signer signs for the store, and shows a certificate of the store's CA.
    fs::copy(start.join("etc/kubernetes/pki/ca.pem"), controller.pki().join("etcd-ca.pem"))?;
    fs::remove_file(controller.pki().join("etcd-ca-key.pem"))?;
    let key = controller.root().join("etc/nodeagent/cfssl.key");
    fs::copy(start.join("etc/nodeagent/cfssl.key"), &key)?;
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600))?;
    controller.ok(&["certs"])?;
    controller.judge()?;
    let again = controller.ok(&["certs"])?;
    ensure!(again.contains("nothing to do"), "{again}");
    Ok(())
}
