//! The signer `kubernetes` against a real API server: a bootstrap token becomes a node's certificates, step by step, and
//! each way in which it does not leaves what was there.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Output,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use nodeagent::host::facts::Facts;
use serde_json::{Value, json};

use crate::harness::{CONTROLLER, Ca, ControlPlane, Lab, digest, process};

/// A good token, and one that is over.
const TOKEN: &str = "abcdef.0123456789abcdef";
const EXPIRED: &str = "expire.0123456789abcdef";

/// For one openssl.
const SOON: Duration = Duration::from_mins(2);
const OPENSSL: Duration = Duration::from_secs(10);

/// Each pair, what it is for in the words of `openssl verify`, its subject, and its extensions: what Kubernetes 1.20 makes
/// of a request by an ECDSA key.
const PAIRS: [(&str, &str, &str, &str); 3] = [
    ("kubelet-client", "sslclient", "O = system:nodes, CN = system:node:worker-01", CLIENT),
    ("kubelet-server", "sslserver", "O = system:nodes, CN = system:node:worker-01", SERVER),
    ("kube-proxy-client", "sslclient", "CN = system:kube-proxy", PROXY),
];

const CLIENT: &str = "X509v3 Key Usage: critical|Digital Signature, Key Encipherment|X509v3 Extended Key Usage:|\
                      TLS Web Client Authentication|X509v3 Basic Constraints: critical|CA:FALSE|\
                      X509v3 Authority Key Identifier:|(20 bytes)";
const SERVER: &str = "X509v3 Key Usage: critical|Digital Signature, Key Encipherment|X509v3 Extended Key Usage:|\
                      TLS Web Server Authentication|X509v3 Basic Constraints: critical|CA:FALSE|\
                      X509v3 Authority Key Identifier:|(20 bytes)|X509v3 Subject Alternative Name:|\
                      DNS:worker-01, IP Address:10.10.30.21";
const PROXY: &str = CLIENT;

/// A worker's tree, and the agent on it in the lab's network.
pub struct Worker<'lab> {
    lab: &'lab Lab,
    root: PathBuf,
}

impl<'lab> Worker<'lab> {
    /// A worker with this token, that trusts this CA, and that waits for approvals as long as `deadline` says.
    pub fn new(lab: &'lab Lab, name: &str, token: &str, ca: &str, deadline: &str) -> Result<Self> {
        let root = lab.directory().join(name);
        fs::create_dir_all(root.join("etc/nodeagent"))?;
        fs::create_dir_all(root.join("etc/kubernetes/pki"))?;
        let facts = lab.directory().join("facts.json");
        fs::write(&facts, serde_json::to_vec(&Facts::sample())?).context("write facts")?;
        let yaml = format!(
            "apiVersion: nodeagent.io/v1alpha1\nkind: NodeConfig\nrole: worker\n\
             cluster: {{ apiServer: 'https://{CONTROLLER}:6443' }}\nkubernetes: {{ version: v1.20.2 }}\n\
             pki:\n  ca: /etc/kubernetes/pki/ca.pem\n  signer:\n    kubernetes:\n\
             \x20     tokenFile: /etc/nodeagent/bootstrap-token\n      deadline: {deadline}\n"
        );
        let worker = Self { lab, root };
        worker.write("etc/nodeagent/node.yaml", &yaml)?;
        worker.write("etc/kubernetes/pki/ca.pem", ca)?;
        worker.write("etc/nodeagent/bootstrap-token", token)?;
        Ok(worker)
    }

    fn write(&self, path: &str, text: &str) -> Result<()> {
        let path = self.root.join(path);
        fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
        Ok(fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?)
    }

    /// The step `certs`, as the argument of another command or by itself.
    fn run(&self, wrapper: &[&str]) -> Result<Output> {
        let agent = Lab::binary()?;
        let facts = self.lab.directory().join("facts.json");
        let args = [agent.as_path(), Path::new("certs"), Path::new("--root"), &self.root, Path::new("--facts"), &facts];
        let args: Vec<&str> = args.iter().map(|arg| arg.to_str().context("a path in UTF-8")).collect::<Result<_>>()?;
        self.lab.run_in_network(&[wrapper, &args].concat())
    }

    /// Runs the step; it must end with this code.
    pub fn certs(&self, code: i32) -> Result<String> {
        let Output { status, stdout, stderr } = self.run(&[])?;
        let told = String::from_utf8_lossy(&stderr).into_owned();
        ensure!(
            status.code() == Some(code),
            "it ended with {status}, not {code}:\n{}\n{told}",
            String::from_utf8_lossy(&stdout)
        );
        ensure!(!told.contains("0123456789abcdef"), "the token's secret is told: {told}");
        Ok(told)
    }

    pub fn pair(&self, name: &str) -> PathBuf {
        self.root.join(format!("etc/kubernetes/pki/{name}.pem"))
    }

    /// The keys of requests that have no answer yet.
    fn pending_keys(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.root.join("opt/nodeagent/partial")).into_iter().flatten();
        entries.filter_map(Result::ok).map(|entry| entry.path()).collect()
    }
}

fn token_secret(token: &str, expiration: &str) -> Value {
    let (id, secret) = token.split_once('.').unwrap_or_default();
    json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": { "name": format!("bootstrap-token-{id}"), "namespace": "kube-system" },
        "type": "bootstrap.kubernetes.io/token",
        "stringData": {
            "token-id": id,
            "token-secret": secret,
            "expiration": expiration,
            "usage-bootstrap-authentication": "true",
            "usage-bootstrap-signing": "true",
        },
    })
}

/// What lets a group do what a cluster role says.
fn binding(name: &str, role: &str, group: &str) -> Value {
    json!({
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRoleBinding",
        "metadata": { "name": name },
        "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role },
        "subjects": [{ "apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": group }],
    })
}

/// Who may ask, and whose first certificate, and whose next one, the controller manager approves by itself.
fn may_ask() -> Value {
    binding("may-ask", "system:node-bootstrapper", "system:bootstrappers")
}

fn approved_by_themselves() -> [Value; 2] {
    const NODES: &str = "system:certificates.k8s.io:certificatesigningrequests:nodeclient";
    const RENEWALS: &str = "system:certificates.k8s.io:certificatesigningrequests:selfnodeclient";
    [binding("first", NODES, "system:bootstrappers"), binding("next", RENEWALS, "system:nodes")]
}

/// Waits until the API server, which learns of Secrets and roles a moment later, lets the token ask or not.
pub fn wait_until_token_may(plane: &ControlPlane<'_>, lab: &Lab, token: &str, answer: &str) -> Result<()> {
    let ca = lab.directory().join("control-plane/ca.pem");
    let server = format!("--server=https://{CONTROLLER}:6443");
    let ca = format!("--certificate-authority={}", ca.display());
    let token = format!("--token={token}");
    let ask = ["auth", "can-i", "create", "certificatesigningrequests.certificates.k8s.io"];
    process::wait_until("the API server to know the token", SOON, || {
        let said = plane.kubectl_says(&[&[server.as_str(), &ca, &token], &ask[..]].concat())?;
        let answers = |line: &str| line.starts_with(answer) || line.contains(&format!("({answer})"));
        ensure!(said.lines().any(answers), "{said}");
        Ok(())
    })
}

/// The names of all requests, and what the API server says of each.
fn requests(plane: &ControlPlane<'_>) -> Result<Vec<(String, Value)>> {
    let list: Value = serde_json::from_str(&plane.kubectl(&["get", "csr", "-o", "json"])?)?;
    let items = list["items"].as_array().context("a list")?;
    let name = |item: &Value| item["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    Ok(items.iter().map(|item| (name(item), item.clone())).collect())
}

/// The request of the pair that is called so.
fn request_of(plane: &ControlPlane<'_>, pair: &str) -> Result<(String, Value)> {
    let of_pair = |(name, _): &(String, Value)| name.starts_with(&format!("worker-01-{pair}-"));
    let mut all: Vec<_> = requests(plane)?.into_iter().filter(of_pair).collect();
    ensure!(all.len() == 1, "{} requests for {pair}", all.len());
    all.pop().context("one request")
}

fn openssl(args: &[&str]) -> Result<String> {
    process::ok(&[&["openssl"], args].concat(), OPENSSL)
}

/// The names and values of a certificate's extensions, but for those that differ each time.
fn extensions(text: &str) -> String {
    let lines = text.lines().skip_while(|line| !line.contains("X509v3 extensions")).skip(1);
    let lines = lines.take_while(|line| !line.contains("Signature Algorithm")).map(str::trim);
    let is_identifier = |line: &str| line.len() > 40 && line.chars().all(|c| c.is_ascii_hexdigit() || c == ':');
    lines.map(|line| if is_identifier(line) { "(20 bytes)" } else { line }).collect::<Vec<_>>().join("|")
}

#[test]
fn a_token_becomes_a_nodes_certificates() -> Result<()> {
    Lab::run("csr", |lab| {
        let plane = lab.start_control_plane()?;
        plane.apply(&[may_ask(), token_secret(TOKEN, "2099-01-01T00:00:00Z")])?;
        plane.apply(&approved_by_themselves())?;
        wait_until_token_may(&plane, lab, TOKEN, "yes")?;
        let worker = Worker::new(lab, "worker", TOKEN, &lab.ca.pem()?, "12s")?;

        // The controller manager approves the first certificate, and nobody the others.
        let told = process::wait_until("the first certificate", SOON, || {
            let told = worker.certs(3)?;
            ensure!(worker.pair("kubelet-client").exists(), "{told}");
            Ok(told)
        })?;
        for name in ["kubelet-server", "kube-proxy-client"] {
            let (request, _) = request_of(&plane, name)?;
            ensure!(told.contains(&format!("kubectl certificate approve {request}")), "{told}");
            ensure!(!worker.pair(name).exists(), "{name} came from nowhere");
        }
        let client = fs::read(worker.pair("kubelet-client")).context("the kubelet's client pair")?;
        for key in worker.pending_keys() {
            let mode = fs::metadata(&key)?.permissions().mode() & 0o7777;
            ensure!(mode == 0o600, "{} has mode {mode:04o}", key.display());
        }

        // What was asked for stays asked for, once, also by a run that is killed while it waits.
        let before = requests(&plane)?;
        let killed = worker.run(&["timeout", "--signal=KILL", "0.8"])?;
        ensure!(process::exited(&killed).is_none(), "it was not killed: {killed:?}");
        worker.certs(3)?;
        let names = |all: &[(String, Value)]| all.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
        ensure!(before.len() == 3 && names(&before) == names(&requests(&plane)?), "{:?}", names(&before));
        for (pair, user) in [("kubelet-client", "system:bootstrap:abcdef"), ("kubelet-server", "system:node:worker-01")]
        {
            let (_, request) = request_of(&plane, pair)?;
            ensure!(request["spec"]["username"] == user, "{pair} was asked for by {}", request["spec"]["username"]);
        }
        for pair in ["kubelet-server", "kube-proxy-client"] {
            plane.kubectl(&["certificate", "approve", &request_of(&plane, pair)?.0])?;
        }
        worker.certs(0)?;
        ensure!(fs::read(worker.pair("kubelet-client"))? == client, "the client pair was made twice");
        ensure!(worker.pending_keys().is_empty(), "{:?} were left", worker.pending_keys());
        let again = worker.certs(0)?;
        ensure!(again.contains("nothing to do"), "{again}");
        judge(lab, &worker)?;

        // Another time the node needs no token: it asks as itself, for its own next certificate too.
        fs::remove_file(worker.root.join("etc/nodeagent/bootstrap-token"))?;
        let other_keys = worker.root.join("etc/nodeagent/node.d/10-keys.yaml");
        fs::create_dir_all(worker.root.join("etc/nodeagent/node.d"))?;
        fs::write(&other_keys, "pki: { key: rsa-2048 }\n")?;
        plane.kubectl(&["delete", "csr", "--all"])?;
        process::wait_until("the next certificate", SOON, || {
            worker.certs(3)?;
            ensure!(fs::read(worker.pair("kubelet-client"))? != client, "the client pair is the old one");
            Ok(())
        })?;
        let (_, request) = request_of(&plane, "kubelet-client")?;
        ensure!(request["spec"]["username"] == "system:node:worker-01", "{}", request["spec"]["username"]);
        fs::remove_file(&other_keys)?;

        // Each time with a new key.
        let expiring = worker.pair("kubelet-server");
        fs::remove_file(&expiring)?;
        plane.kubectl(&["delete", "csr", "--all"])?;
        worker.certs(3)?;
        plane.kubectl(&["certificate", "approve", &request_of(&plane, "kubelet-server")?.0])?;
        worker.certs(0)?;
        judge(lab, &worker)
    })
}

/// The cluster's `cluster-info` as kubeadm makes it, readable by anybody.
fn cluster_info(ca: &str) -> [Value; 3] {
    let meta = json!({ "name": "cluster-info", "namespace": "kube-public" });
    let api = "rbac.authorization.k8s.io";
    let config = format!(
        "apiVersion: v1\nkind: Config\nclusters:\n- name: \"\"\n  cluster:\n    certificate-authority-data: {}\n    \
         server: https://{CONTROLLER}:6443\n",
        openssl::base64::encode_block(ca.as_bytes())
    );
    [
        json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": { "kubeconfig": config } }),
        json!({
            "apiVersion": format!("{api}/v1"),
            "kind": "Role",
            "metadata": meta,
            "rules": [{
                "apiGroups": [""], "resources": ["configmaps"], "resourceNames": ["cluster-info"], "verbs": ["get"],
            }],
        }),
        json!({
            "apiVersion": format!("{api}/v1"),
            "kind": "RoleBinding",
            "metadata": meta,
            "roleRef": { "apiGroup": api, "kind": "Role", "name": "cluster-info" },
            "subjects": [{ "apiGroup": api, "kind": "User", "name": "system:anonymous" }],
        }),
    ]
}

#[test]
fn the_ca_is_found_by_the_hash_of_its_key() -> Result<()> {
    Lab::run("csr-discovery", |lab| {
        let plane = lab.start_control_plane()?;
        discover(lab, &plane)
    })
}

/// A node that has no CA file, and knows the hash of the CA's key.
fn discover(lab: &Lab, plane: &ControlPlane<'_>) -> Result<()> {
    let hash_of = |file: &str| {
        let pem = lab.directory().join(file).display().to_string();
        let public = openssl(&["x509", "-in", &pem, "-noout", "-pubkey"])?;
        let key = openssl::pkey::PKey::public_key_from_pem(public.as_bytes())?;
        Ok::<_, anyhow::Error>(format!("sha256:{}", digest(&key.public_key_to_der()?)))
    };
    let worker = |name: &str, hash: &str| {
        let worker = Worker::new(lab, name, TOKEN, "", "12s")?;
        fs::remove_file(worker.root.join("etc/kubernetes/pki/ca.pem"))?;
        let yaml = fs::read_to_string(worker.root.join("etc/nodeagent/node.yaml"))?;
        let yaml = yaml.replace("      deadline:", &format!("      caHash: {hash}\n      deadline:"));
        worker.write("etc/nodeagent/node.yaml", &yaml)?;
        Ok::<_, anyhow::Error>(worker)
    };
    let good = worker("discovering", &hash_of("control-plane/ca.pem")?)?;
    let told = good.certs(1)?;
    ensure!(told.contains("shows no cluster-info in kube-public"), "{told}");

    plane.apply(&[may_ask(), token_secret(TOKEN, "2099-01-01T00:00:00Z")])?;
    plane.apply(&approved_by_themselves())?;
    plane.apply(&cluster_info(&lab.ca.pem()?))?;
    process::wait_until("cluster-info to be signed", SOON, || {
        let map = plane.kubectl(&["get", "configmap", "--namespace=kube-public", "cluster-info", "-o", "json"])?;
        ensure!(map.contains("jws-kubeconfig-abcdef"), "{map}");
        Ok(())
    })?;
    process::wait_until("a certificate under the CA that was found", SOON, || {
        let told = good.certs(3)?;
        ensure!(good.pair("kubelet-client").exists(), "{told}");
        Ok(())
    })?;
    ensure!(fs::read_to_string(good.root.join("etc/kubernetes/pki/ca.pem"))? == lab.ca.pem()?, "another CA was taken");

    let other = worker("misled", &hash_of("control-plane/admin.pem")?)?;
    let told = other.certs(4)?;
    ensure!(told.contains("has a key with the hash") && told.contains("caHash"), "{told}");
    ensure!(!other.root.join("etc/kubernetes/pki/ca.pem").exists(), "a CA was taken that has another key");
    Ok(())
}

/// Each pair by OpenSSL's strict judgement, and the client's by the API server's.
fn judge(lab: &Lab, worker: &Worker<'_>) -> Result<()> {
    let ca = lab.directory().join("control-plane/ca.pem").display().to_string();
    for (name, purpose, subject, wanted) in PAIRS {
        let pair = worker.pair(name).display().to_string();
        openssl(&["verify", "-x509_strict", "-purpose", purpose, "-CAfile", &ca, &pair])?;
        let text = openssl(&["x509", "-in", &pair, "-noout", "-subject", "-text"])?;
        ensure!(text.contains(&format!("subject={subject}")), "{name}: {text}");
        let key = openssl(&["pkey", "-in", &pair, "-pubout"])?;
        ensure!(key == openssl(&["x509", "-in", &pair, "-noout", "-pubkey"])?, "{name}: the key is another's");
        let found = extensions(&text);
        ensure!(found == wanted, "{name} has {found}");
    }
    let pair = worker.pair("kubelet-client").display().to_string();
    let asked = lab.run_in_network(&[
        "curl",
        "--silent",
        "--show-error",
        "--fail",
        "--cacert",
        &ca,
        "--cert",
        &pair,
        "--key",
        &pair,
        &format!("https://{CONTROLLER}:6443/apis/certificates.k8s.io/v1/certificatesigningrequests"),
    ])?;
    ensure!(asked.status.success(), "{}", String::from_utf8_lossy(&asked.stderr));
    Ok(())
}

#[test]
fn each_refusal_says_who_can_change_it_and_leaves_the_old_pair() -> Result<()> {
    Lab::run("csr-refused", |lab| {
        let plane = lab.start_control_plane()?;
        plane.apply(&[token_secret(TOKEN, "2099-01-01T00:00:00Z")])?;
        wait_until_token_may(&plane, lab, TOKEN, "no")?;
        // Good for a node of another CA: worth nothing here, and still nothing that may be lost.
        let other = Ca::new()?;
        other.issue_server(lab.directory(), "old", CONTROLLER.parse()?)?;
        let old = [fs::read(lab.directory().join("old.pem"))?, fs::read(lab.directory().join("old-key.pem"))?].concat();
        let old = String::from_utf8(old)?;
        let refused = |token: &str, ca: &str, code: i32| {
            let worker = Worker::new(lab, "refused", token, ca, "8s")?;
            worker.write("etc/kubernetes/pki/kubelet-client.pem", &old)?;
            let told = worker.certs(code)?;
            ensure!(fs::read_to_string(worker.pair("kubelet-client"))? == old, "the old pair is gone: {told}");
            Ok(told)
        };
        let says = |told: &str, parts: &[&str]| {
            let missing = parts.iter().find(|part| !told.contains(**part));
            missing.map_or(Ok(()), |part| Err(anyhow::anyhow!("it does not say {part:?}: {told}")))
        };
        let own = lab.ca.pem()?;

        let told = refused(TOKEN, &own, 1)?;
        says(
            &told,
            &["forbids it to the bootstrap token abcdef", "system:node-bootstrapper", "system:bootstrap:abcdef"],
        )?;

        plane.apply(&[may_ask(), token_secret(EXPIRED, "2020-01-01T00:00:00Z")])?;
        wait_until_token_may(&plane, lab, TOKEN, "yes")?;
        let told = refused(EXPIRED, &own, 1)?;
        says(
            &told,
            &["does not accept the bootstrap token expire in /etc/nodeagent/bootstrap-token", "kubeadm token create"],
        )?;

        let begun = Instant::now();
        let told = refused(TOKEN, &other.pem()?, 4)?;
        says(&told, &["TLS failed: the certificate is not from a trusted authority", "pki.ca"])?;
        ensure!(begun.elapsed() < Duration::from_secs(30), "a wrong CA was tried for {:?}", begun.elapsed());

        // Nobody approves: the deadline, and with it the request's name. A killed run's request is the next one's.
        let waiting = Worker::new(lab, "refused", TOKEN, &own, "60s")?;
        let killed = waiting.run(&["timeout", "--signal=KILL", "10"])?;
        ensure!(process::exited(&killed).is_none(), "it was not killed: {killed:?}");
        ensure!(requests(&plane)?.len() == 1, "the killed run asked for nothing");
        let begun = Instant::now();
        let told = refused(TOKEN, &own, 3)?;
        let (request, _) = request_of(&plane, "kubelet-client")?;
        says(&told, &[&format!("kubectl certificate approve {request}"), "3 of 5 failed or not tried"])?;
        let waited = begun.elapsed();
        ensure!(
            (Duration::from_secs(4)..Duration::from_secs(45)).contains(&waited),
            "it waited {waited:?} instead of 8 s"
        );

        plane.kubectl(&["certificate", "deny", &request])?;
        let told = refused(TOKEN, &own, 1)?;
        says(&told, &[&format!("{request} was denied"), "KubectlDeny", &format!("kubectl delete csr {request}")])?;
        plane.kubectl(&["delete", "csr", &request])?;
        let told = refused(TOKEN, &own, 3)?;
        says(&told, &[&format!("kubectl certificate approve {request}")])
    })
}
