//! `nodeagent cluster` against a real API server: what it approves and what it leaves, what it applies and how often, and
//! which of two controllers works.

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

use crate::{
    bootstrap::confined_as_documented,
    csr::{Worker, wait_until_token_may},
    harness::{CONTROLLER, ControlPlane, Lab, WORKER, process, process::Daemon},
};

/// The token of worker-01, and one that is over.
const TOKEN: &str = "abcdef.0123456789abcdef";
const EXPIRED: &str = "expire.0123456789abcdef";

/// For the service to have done what it is going to do.
const SOON: Duration = Duration::from_secs(30);

/// What a request has to be left alone for before it counts as left.
const A_WHILE: Duration = Duration::from_secs(3);

const TOKENS: &str = "apiVersion: nodeagent.io/v1alpha1\nkind: BootstrapTokens\ntokens:\n\
                      \x20 worker-01: { token: abcdef.0123456789abcdef, expires: 2099-01-01T00:00:00Z }\n\
                      \x20 worker-02: { token: second.0123456789abcdef, expires: 2099-01-01T00:00:00Z }\n\
                      \x20 edge-01: { token: expire.0123456789abcdef, expires: 2020-01-01T00:00:00Z }\n";

/// A controller's tree, and the service on it.
struct Controller<'lab> {
    lab: &'lab Lab,
    root: PathBuf,
    runs: u32,
}

impl<'lab> Controller<'lab> {
    fn new(lab: &'lab Lab) -> Result<Self> {
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

    fn write(&self, path: &str, text: &str) -> Result<()> {
        let path = self.root.join(path);
        fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
        Ok(fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?)
    }

    /// Starts the service.
    fn start(&mut self) -> Result<Running> {
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
struct Running {
    daemon: Daemon,
    log: PathBuf,
}

impl Running {
    fn told(&self) -> Result<String> {
        let told = fs::read_to_string(&self.log)?;
        ensure!(!told.contains("0123456789abcdef"), "a token's secret is told: {told}");
        Ok(told)
    }

    fn tells(&mut self, part: &str) -> Result<()> {
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

fn server(node: &str, names: &[&str], address: &str) -> Result<Wanted> {
    let dns = names.iter().map(|name| (*name).to_owned()).collect();
    Ok(Wanted { dns, ips: vec![address.parse()?], usages: vec![Usage::Server], ..client(node) })
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

/// Every object that the service makes, but the Lease, with the version that it has.
fn versions(plane: &ControlPlane<'_>) -> Result<Vec<String>> {
    let kinds = "clusterrolebindings,roles,rolebindings,configmaps,secrets,nodes,deployments";
    let list = get(plane, &[kinds, "--all-namespaces"])?;
    let items = list["items"].as_array().context("a list")?;
    let line = |item: &Value| {
        let meta = &item["metadata"];
        format!("{} {} {} {}", item["kind"], meta["namespace"], meta["name"], meta["resourceVersion"])
    };
    Ok(items.iter().map(line).collect())
}

#[test]
fn a_machines_own_requests_are_approved_and_no_others() -> Result<()> {
    Lab::run("cluster-approver", |lab| {
        let plane = lab.start_control_plane()?;
        let mut controller = Controller::new(lab)?;
        let mut service = controller.start()?;
        service.tells("this controller looks after the cluster")?;
        wait_until_token_may(&plane, lab, TOKEN, "yes")?;

        let worker = Worker::new(lab, "worker", TOKEN, &lab.ca.pem()?, "30s")?;
        worker.certs(0)?;
        for pair in ["kubelet-client", "kubelet-server", "kube-proxy-client"] {
            ensure!(worker.pair(pair).exists(), "{pair} was not made");
            let approved = format!("approved worker-01-{pair}-");
            ensure!(service.told()?.contains(&approved), "{approved}: {}", service.told()?);
        }
        // Its next client certificate, with the one that it has, and by the name of the node that the certificate says.
        let token = format!("--token={TOKEN}");
        let ca = format!("--certificate-authority={}", lab.directory().join("control-plane/ca.pem").display());
        let server_at = format!("--server=https://{CONTROLLER}:6443");
        let pair = worker.pair("kubelet-client").display().to_string();
        let (certificate, key) = (format!("--client-certificate={pair}"), format!("--client-key={pair}"));
        let by_token = [server_at.as_str(), &ca, &token];
        let by_node = [server_at.as_str(), &ca, &certificate, &key];
        ask(lab, &plane, "renewal", "kube-apiserver-client-kubelet", &client("worker-01"), &by_node)?;
        service.tells("approved renewal of system:node:worker-01: the next client certificate of worker-01")?;

        let config = format!("--kubeconfig={}", lab.directory().join("control-plane/admin.conf").display());
        let nodes = ["--as-group=system:nodes", "--as-group=system:authenticated"];
        let by_stranger = [config.as_str(), "--as=system:node:stranger", nodes[0], nodes[1]];
        let by_somebody = [config.as_str(), "--as=somebody", "--as-group=system:bootstrappers"];
        let proxy = wanted("system:kube-proxy", None);
        let kubelet = "kube-apiserver-client-kubelet";
        let foreign = server("worker-01", &["worker-01", "kubernetes.default"], WORKER)?;
        let elsewhere = server("worker-01", &["worker-01"], CONTROLLER)?;
        let table: [(&str, &str, Wanted, &[&str], &str); 8] = [
            ("another-worker", kubelet, client("worker-02"), &by_token, "CN=system:node:worker-02 is not what"),
            ("a-controller", kubelet, client("controller-01"), &by_token, "CN=system:node:controller-01 is not what"),
            ("token-proxy", "kube-apiserver-client", proxy.clone(), &by_token, "CN=system:kube-proxy is not what"),
            ("foreign-name", "kubelet-serving", foreign, &by_node, "kubernetes.default is not its name"),
            ("foreign-address", "kubelet-serving", elsewhere, &by_node, "10.10.30.11 is not the address of worker-01"),
            ("of-another", kubelet, client("worker-02"), &by_node, "system:node:worker-01 may ask for"),
            ("stranger-proxy", "kube-apiserver-client", proxy, &by_stranger, "stranger is not in cluster.nodes"),
            ("of-a-person", kubelet, client("worker-01"), &by_somebody, "is no node, and no bootstrap token"),
        ];
        for (name, signer, wanted, who, _) in &table {
            ask(lab, &plane, name, signer, wanted, who).with_context(|| (*name).to_owned())?;
        }
        for (name, _, _, _, why) in &table {
            service.tells(&format!("left {name} of "))?;
            let told = service.told()?;
            let line = told.lines().find(|line| line.contains(&format!("left {name} of "))).unwrap_or_default();
            ensure!(line.contains(why), "{name}: {line}");
        }
        std::thread::sleep(A_WHILE);
        for (name, ..) in &table {
            let request = get(&plane, &["csr", name])?;
            ensure!(request["status"]["conditions"].is_null(), "{name} was decided: {}", request["status"]);
            let times = service.told()?.matches(&format!("left {name} of ")).count();
            ensure!(times == 1, "{name} was told of {times} times");
        }

        // A machine that is added to the inventory gets what waits for it.
        let path = controller.root.join("etc/nodeagent/node.yaml");
        let yaml = fs::read_to_string(&path)?
            .replace("    worker-02:", "    stranger: { address: 10.10.30.29 }\n    worker-02:");
        fs::write(&path, yaml)?;
        service.tells("approved stranger-proxy of system:node:stranger")
    })
}

fn node(name: &str) -> Value {
    json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": name, "labels": { "own": "1" } } })
}

/// Several documents, and one that the API server itself completes.
const GOOD: &str = "\
apiVersion: v1
kind: ConfigMap
metadata: { name: first, namespace: default }
data: { a: '1', b: '2' }
---
apiVersion: apps/v1
kind: Deployment
metadata: { name: dns, namespace: kube-system }
spec:
  selector: { matchLabels: { app: dns } }
  template:
    metadata: { labels: { app: dns } }
    spec:
      containers:
      - { name: dns, image: dns, resources: { limits: { cpu: 0.1 } }, ports: [{ containerPort: 53, protocol: UDP }, { containerPort: 53, name: tcp }] }
      volumes: [{ name: v, configMap: { name: first, defaultMode: 0644 } }]
";
const BAD: &str = "kind: ConfigMap\n---\napiVersion: example.com/v1\nkind: Thing\nmetadata: { name: x }\n---\n\
                   apiVersion: v1\nkind: ConfigMap\nmetadata: { name: in-bad-company }\n---\n\
                   apiVersion: v1\nkind: Service\nmetadata: { name: invalid }\nspec: { ports: [{ port: 70000 }] }\n---\n\
                   apiVersion: v1\nkind: Pod\nmetadata: { name: mistyped }\n\
                   spec: { containers: [{ name: a, image: [] }] }\n";
const BROKEN: &str = "apiVersion: v1\nkind: ConfigMap\nmetadata: { name: never }\n---\nkind: [\n";
const LAST: &str = "apiVersion: v1\nkind: ConfigMap\nmetadata: { name: last }\n";

#[test]
fn a_fresh_cluster_gets_what_it_lacks_once() -> Result<()> {
    Lab::run("cluster-objects", |lab| {
        let plane = lab.start_control_plane()?;
        let mut controller = Controller::new(lab)?;
        plane.apply(&["controller-01", "worker-01", "edge-01", "stranger"].map(node))?;
        for (name, text) in
            [("10-good.yaml", GOOD), ("20-bad.yml", BAD), ("30-broken.yaml", BROKEN), ("40-last.json", LAST)]
        {
            controller.write(&format!("etc/kubernetes/addons/{name}"), text)?;
        }
        controller.write("etc/kubernetes/addons/notes.txt", "no manifest")?;
        let mut service = controller.start()?;
        service.tells("ConfigMap last: made")?;
        service.tells("Node edge-01: has the label and the taint of its role, edge")?;
        service.tells("Node controller-01: has the label and the taint of its role, controller")?;
        let told = service.told()?;
        for part in [
            "addons/20-bad.yml:1: ConfigMap ?: apiVersion is missing",
            "addons/20-bad.yml:3: Thing x: the API server knows no Thing in example.com/v1",
            "addons/20-bad.yml:11: Service invalid: ",
            "addons/20-bad.yml:16: Pod mistyped: ",
            "image: expected string",
            "addons/30-broken.yaml:6:1: this is not YAML",
        ] {
            ensure!(told.contains(part), "{part}: {told}");
        }
        ensure!(!told.contains("notes.txt"), "{told}");
        plane.kubectl(&["get", "configmap", "first", "in-bad-company", "last"])?;
        let deployment = get(&plane, &["deployment", "--namespace=kube-system", "dns"])?;
        let mode = &deployment["spec"]["template"]["spec"]["volumes"][0]["configMap"]["defaultMode"];
        ensure!(*mode == 0o644, "0644 became {mode}");

        marked(&plane)?;
        let can = |args: &[&str]| plane.kubectl(&[&["auth", "can-i"], args].concat());
        let kubelet_client = "--as=kube-apiserver-kubelet-client";
        ensure!(can(&["get", "nodes", "--subresource=log", kubelet_client])?.contains("yes"), "no right to kubelets");
        ensure!(
            get(&plane, &["secrets", "--namespace=kube-system"])?["items"].as_array().is_some_and(|all| {
                let ids = all.iter().filter(|secret| secret["type"] == "bootstrap.kubernetes.io/token").count();
                ids == 2
            }),
            "not one Secret for each token that is good"
        );
        wait_until_token_may(&plane, lab, EXPIRED, "Unauthorized")?;
        process::wait_until("cluster-info to be signed", SOON, || {
            let info = get(&plane, &["configmap", "--namespace=kube-public", "cluster-info"])?;
            let signed = info["data"].as_object().is_some_and(|data| {
                data.contains_key("jws-kubeconfig-abcdef") && data.contains_key("jws-kubeconfig-second")
            });
            ensure!(signed, "{info}");
            Ok(())
        })?;

        // What a person does stays done: a taint taken, a token revoked, a value changed.
        plane.kubectl(&["taint", "node", "controller-01", "node-role.kubernetes.io/master-"])?;
        plane.kubectl(&["delete", "secret", "--namespace=kube-system", "bootstrap-token-second"])?;
        let patch = r#"{"data":{"b":"3"}}"#;
        plane.kubectl(&["patch", "configmap", "first", "--type=merge", "-p", patch])?;
        // The signer of cluster-info takes back the signature of the token that is gone.
        process::wait_until("the signature to be gone", SOON, || {
            let info = get(&plane, &["configmap", "--namespace=kube-public", "cluster-info"])?;
            ensure!(info["data"]["jws-kubeconfig-second"].is_null(), "{info}");
            Ok(())
        })?;
        let before = versions(&plane)?;
        ensure!(before.len() > 10, "{before:?}");
        service.daemon.terminate(SOON)?;
        let mut again = controller.start()?;
        again.tells("Service invalid")?;
        again.tells("addons/30-broken.yaml")?;
        std::thread::sleep(A_WHILE);
        let after = versions(&plane)?;
        let differ: Vec<_> = after.iter().filter(|line| !before.contains(line)).collect();
        ensure!(before == after, "a second pass wrote {differ:?}: {}", again.told()?);
        for part in ["made", "brought to what is wanted", "the taint of its role"] {
            ensure!(!again.told()?.contains(part), "{part}: {}", again.told()?);
        }
        // A manifest that changes does not take what somebody else has set.
        controller.write("etc/kubernetes/addons/10-good.yaml", &GOOD.replace("a: '1'", "a: '9'"))?;
        again.tells("addons/10-good.yaml:1: ConfigMap default/first: left as it is: Apply failed with 1 conflict")?;
        let data = &get(&plane, &["configmap", "first"])?["data"];
        ensure!(*data == json!({ "a": "1", "b": "3" }), "{data}");
        controller.write("etc/kubernetes/addons/10-good.yaml", &GOOD.replace("a: '1', b: '2'", "a: '9', b: '3'"))?;
        again.tells("addons/10-good.yaml:1: ConfigMap default/first: brought to what is wanted")?;
        // Each mistake once, although every five seconds there is a pass.
        std::thread::sleep(Duration::from_secs(7));
        let times = again.told()?.matches("knows no Thing").count();
        ensure!(times == 1, "told {times} times: {}", again.told()?);
        Ok(())
    })
}

/// Each node has the labels and taints of its role, and keeps its own.
fn marked(plane: &ControlPlane<'_>) -> Result<()> {
    const MASTER: &str = "node-role.kubernetes.io/master";
    const EDGE: &str = "node-role.kubernetes.io/edge";
    for (name, keys, tainted) in [
        ("controller-01", &["node-role.kubernetes.io/control-plane", MASTER][..], &[MASTER][..]),
        ("edge-01", &[EDGE], &[EDGE]),
        ("worker-01", &[], &[]),
        ("stranger", &[], &[]),
    ] {
        let node = get(plane, &["node", name])?;
        let labels = node["metadata"]["labels"].as_object().context("labels")?;
        let roles: Vec<&str> = labels.keys().map(String::as_str).filter(|key| key.contains("node-role")).collect();
        ensure!(roles == keys && labels.contains_key("own"), "{name}: {labels:?}");
        let taints = node["spec"]["taints"].as_array().cloned().unwrap_or_default();
        let roles: Vec<Value> =
            taints.into_iter().filter(|t| t["key"].as_str().is_some_and(|k| k.contains("role"))).collect();
        let want: Vec<Value> = tainted.iter().map(|key| json!({ "key": key, "effect": "NoSchedule" })).collect();
        ensure!(roles == want, "{name}: {roles:?}");
    }
    Ok(())
}

#[test]
fn of_two_controllers_one_works_and_the_other_takes_over() -> Result<()> {
    Lab::run("cluster-lease", |lab| {
        let plane = lab.start_control_plane()?;
        let mut controller = Controller::new(lab)?;
        let mut first = controller.start()?;
        first.tells("this controller looks after the cluster")?;
        let mut second = controller.start()?;
        second.tells("looks after the cluster; this controller stands by")?;
        let holder = || get(&plane, &["lease", "--namespace=kube-system", "nodeagent"]);
        let before = holder()?;
        std::thread::sleep(Duration::from_secs(20));
        let after = holder()?;
        ensure!(before["spec"]["holderIdentity"] == after["spec"]["holderIdentity"], "{before} became {after}");
        ensure!(before["spec"]["renewTime"] != after["spec"]["renewTime"], "it is not renewed: {after}");
        ensure!(!second.told()?.contains("this controller looks after the cluster"), "both work");

        // Killed, it says nothing: its Lease has to run out.
        first.daemon.kill();
        let begun = std::time::Instant::now();
        second.tells("this controller looks after the cluster")?;
        let took = begun.elapsed();
        ensure!((Duration::from_secs(10)..Duration::from_secs(20)).contains(&took), "taken over after {took:?}");
        println!("taken over from a killed one after {took:.1?}");

        // Asked to end, it lets go.
        let mut third = controller.start()?;
        third.tells("this controller stands by")?;
        second.daemon.terminate(Duration::from_secs(10))?;
        let begun = std::time::Instant::now();
        third.tells("this controller looks after the cluster")?;
        let took = begun.elapsed();
        ensure!(took < Duration::from_secs(5), "taken over after {took:?}");
        println!("taken over from one that was asked to end after {took:.1?}");
        ensure!(holder()?["spec"]["leaseTransitions"] == 2, "{}", holder()?);
        Ok(())
    })
}

/// The process whose command line has this in it, and its arguments.
fn program(part: &str) -> Result<(nix::unistd::Pid, Vec<String>)> {
    for entry in fs::read_dir("/proc")?.filter_map(Result::ok) {
        let Ok(pid) = entry.file_name().to_string_lossy().parse() else { continue };
        let line = fs::read_to_string(entry.path().join("cmdline")).unwrap_or_default();
        let args: Vec<String> = line.split_terminator('\0').map(str::to_owned).collect();
        // Not those that only wait for it.
        if args.first().is_some_and(|name| name.ends_with("kube-apiserver")) && line.contains(part) {
            return Ok((nix::unistd::Pid::from_raw(pid), args));
        }
    }
    anyhow::bail!("no process has {part} in its command line")
}

#[test]
fn an_api_server_that_starts_anew_is_found_again() -> Result<()> {
    Lab::run("cluster-anew", |lab| {
        let plane = lab.start_control_plane()?;
        let mut controller = Controller::new(lab)?;
        let mut service = controller.start()?;
        service.tells("Secret kube-system/bootstrap-token-second: made")?;
        let (pid, args) = program(&lab.directory().display().to_string())?;
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL)?;
        service.tells("looking after the cluster begins anew")?;
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let _again = lab.start_in_network("kube-apiserver", &args, &lab.directory().join("again.log"))?;
        process::wait_until("the API server to be ready", SOON, || plane.kubectl(&["get", "--raw=/readyz"]))?;

        let config = format!("--kubeconfig={}", lab.directory().join("control-plane/admin.conf").display());
        let groups = ["--as-group=system:nodes", "--as-group=system:authenticated"];
        let by_node = [config.as_str(), "--as=system:node:worker-01", groups[0], groups[1]];
        ask(lab, &plane, "renewal", "kube-apiserver-client-kubelet", &client("worker-01"), &by_node)?;
        service.tells("approved renewal of system:node:worker-01")?;
        let told = service.told()?;
        ensure!(told.lines().count() < 40, "it tells too much: {told}");
        // No second process took the Lease, nor was it let go.
        let lease = get(&plane, &["lease", "--namespace=kube-system", "nodeagent"])?;
        ensure!(lease["spec"]["leaseTransitions"] == 0, "{lease}");
        service.daemon.terminate(SOON)
    })
}

#[test]
fn its_unit_is_confined_as_documented_and_can_work_so() -> Result<()> {
    const UNIT: &str = "nodeagent-cluster.service";
    const OWN: &str = "10.10.30.12";
    Lab::run("cluster-unit", |lab| {
        // Its API server is on its own machine, and here is none: what it cannot reach is all that is wrong.
        let node = lab.node("controller-01", OWN).boot()?;
        let unit = concat!(env!("CARGO_MANIFEST_DIR"), "/units/nodeagent-cluster.service");
        node.write(&format!("/etc/systemd/system/{UNIT}"), &fs::read(unit)?)?;
        node.write("/opt/bin/nodeagent", &fs::read(Lab::binary()?)?)?;
        node.ok(&["chmod", "755", "/opt/bin/nodeagent"])?;
        node.write("/etc/nodeagent/node.yaml", node_yaml("host0", OWN).as_bytes())?;
        lab.ca.issue_administrator(lab.directory(), "admin")?;
        let pair = ["admin.pem", "admin-key.pem"].map(|file| fs::read(lab.directory().join(file)));
        let [certificate, key] = pair;
        node.write("/etc/kubernetes/pki/admin-client.pem", &[certificate?, key?].concat())?;
        node.ok(&["chmod", "600", "/etc/kubernetes/pki/admin-client.pem"])?;
        node.write("/etc/kubernetes/pki/ca.pem", lab.ca.pem()?.as_bytes())?;
        confined_as_documented(&node, UNIT)?;

        node.ok(&["systemctl", "daemon-reload"])?;
        node.ok(&["systemctl", "start", "--no-block", UNIT])?;
        let tries_again = "MESSAGE_ID=bdec490dae1c4201a097b8354c24d2a3";
        let said = node.wait_until("it to look for its API server", SOON, |node| {
            let entry = node.journal(&[tries_again])?.pop().context("it says nothing")?;
            Ok(entry["MESSAGE"].as_str().unwrap_or_default().to_owned())
        })?;
        ensure!(said.contains(&format!("https://{OWN}:6443")) && said.contains("refused"), "{said}");
        ensure!(node.property(UNIT, "ActiveState")? == "activating", "it says that it is ready");
        node.ok(&["systemctl", "stop", UNIT])?;
        ensure!(node.property(UNIT, "Result")? == "success", "it did not end well");
        Ok(())
    })
}
