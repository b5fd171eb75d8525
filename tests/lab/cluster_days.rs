//! A cluster's days after the first: requests that nobody may approve, an upgrade and its rollback, machines that are
//! late, of which one is an edge, and one whose address changes.

use std::time::Duration;

use anyhow::{Result, ensure};
use openssl::{
    hash::MessageDigest,
    nid::Nid,
    stack::Stack,
    x509::{X509Name, X509Req, X509ReqBuilder, extension::SubjectAlternativeName},
};
use serde_json::{Value, json};

use crate::agent::{AGENT, agent};
use crate::bootstrap::{bootstrapped, nothing_to_do};
use crate::cluster::{unchanged, written};
use crate::cluster_late;
use crate::cluster_skew::refuses_what_the_cluster_is_not_ready_for;
use crate::edge::{self, EDGE};
use crate::harness::{
    CONTROLLER, Cluster, Lab, Node, SERVICES, THREE,
    cluster::{self, Machine},
    kubernetes, process,
};

/// What nothing says but the lab: the programs of [`kubernetes::VERSION`] under another number.
const NEXT: &str = "v1.20.3";

/// For the approver to have looked at what was asked.
const JUDGED: Duration = Duration::from_mins(3);

/// A request for a certificate, as it is put into a `CertificateSigningRequest`.
struct Wanted<'a> {
    name: &'a str,
    signer: &'a str,
    organization: Option<&'a str>,
    common_name: &'a str,
    address: Option<&'a str>,
}

impl Wanted<'_> {
    fn request(&self) -> Result<X509Req> {
        let key = crate::harness::new_key()?;
        let mut name = X509Name::builder()?;
        if let Some(organization) = self.organization {
            name.append_entry_by_nid(Nid::ORGANIZATIONNAME, organization)?;
        }
        name.append_entry_by_nid(Nid::COMMONNAME, self.common_name)?;
        let mut builder: X509ReqBuilder = X509Req::builder()?;
        builder.set_subject_name(&name.build())?;
        builder.set_pubkey(&key)?;
        if let Some(address) = self.address {
            let mut extensions = Stack::new()?;
            extensions.push(SubjectAlternativeName::new().ip(address).build(&builder.x509v3_context(None))?)?;
            builder.add_extensions(&extensions)?;
        }
        builder.sign(&key, MessageDigest::sha256())?;
        Ok(builder.build())
    }

    fn object(&self) -> Result<Value> {
        let serving = self.signer == "kubelet-serving";
        let usage = if serving { "server auth" } else { "client auth" };
        Ok(json!({
            "apiVersion": "certificates.k8s.io/v1",
            "kind": "CertificateSigningRequest",
            "metadata": { "name": self.name },
            "spec": {
                "request": openssl::base64::encode_block(&self.request()?.to_pem()?),
                "signerName": format!("kubernetes.io/{}", self.signer),
                // What Kubernetes 1.20 wants of a serving certificate, whatever the key.
                "usages": ["digital signature", "key encipherment", usage],
            },
        }))
    }
}

/// Asks from a machine, as whoever the arguments say.
fn ask(node: &Node<'_>, wanted: &Wanted<'_>, who: &[&str]) -> Result<()> {
    let file = format!("/root/{}.json", wanted.name);
    node.write(&file, wanted.object()?.to_string().as_bytes())?;
    node.ok(&[&["kubectl"], who, &["create", "-f", &file]].concat()).map(drop)
}

/// The conditions of a request, by type.
fn conditions(cluster: &Cluster<'_>, request: &str) -> Result<Vec<String>> {
    let request = cluster.get(&["csr", request])?;
    let all = request["status"]["conditions"].as_array().cloned().unwrap_or_default();
    Ok(all.iter().filter_map(|condition| condition["type"].as_str().map(str::to_owned)).collect())
}

/// What no node and no holder of a token may get is left to a person, and only what a node may have is approved.
fn judged(cluster: &Cluster<'_>, token_of_the_late: &str) -> Result<()> {
    const NODE: [&str; 1] = ["--kubeconfig=/etc/kubernetes/kubelet.conf"];
    let worker = cluster.node("worker-1")?;
    let serving = |name, address| Wanted {
        name,
        signer: "kubelet-serving",
        organization: Some("system:nodes"),
        common_name: "system:node:worker-1",
        address: Some(address),
    };
    let token = [format!("--token={token_of_the_late}"), format!("--server=https://{CONTROLLER}:6443")];
    let token = [&token[0], &token[1], "--certificate-authority=/etc/kubernetes/pki/ca.pem"];
    let another_node = Wanted {
        name: "another-nodes-name",
        signer: "kube-apiserver-client-kubelet",
        organization: Some("system:nodes"),
        common_name: "system:node:controller-1",
        address: None,
    };
    ask(worker, &another_node, &token)?;
    ask(worker, &serving("another-nodes-address", CONTROLLER), &NODE)?;
    let another_user = Wanted {
        name: "another-user",
        signer: "kube-apiserver-client",
        organization: None,
        common_name: "system:kube-controller-manager",
        address: None,
    };
    ask(worker, &another_user, &NODE)?;
    // Last, so that the others were looked at before.
    ask(worker, &serving("its-own-address", "10.10.30.21"), &NODE)?;
    process::wait_until("the right request to be approved", JUDGED, || {
        let conditions = conditions(cluster, "its-own-address")?;
        ensure!(conditions == ["Approved"], "it is {conditions:?}");
        Ok(())
    })?;
    let controller = cluster.node("controller-1")?;
    controller.ok(&["journalctl", "--sync"])?;
    let journal = controller.ok(&["journalctl", "--no-pager", "--unit=nodeagent-cluster.service"])?;
    for name in ["another-nodes-name", "another-nodes-address", "another-user"] {
        ensure!(conditions(cluster, name)?.is_empty(), "{name} has an answer");
        ensure!(journal.matches(&format!("left {name} of ")).count() == 1, "{name} is not told of, once:\n{journal}");
    }
    Ok(())
}

/// The container of a machine's greeter, and how often it was started again.
fn container(cluster: &Cluster<'_>, machine: &str) -> Result<Value> {
    let pod = cluster.get(&["pod", &cluster::greeter(machine)])?;
    let status = &pod["status"]["containerStatuses"][0];
    ensure!(status["containerID"].is_string(), "it has no container: {pod}");
    Ok(json!([status["containerID"], status["restartCount"]]))
}

/// One line, and a worker runs another version; `rollback`, and it runs the one before. Its pod notices neither.
fn upgraded_and_rolled_back(lab: &Lab, cluster: &Cluster<'_>) -> Result<()> {
    let node = cluster.node("worker-1")?;
    let kubelet = || node.ok(&["readlink", "/opt/bin/kubelet"]);
    let runs = |version: &str| -> Result<()> {
        ensure!(kubelet()?.contains(&format!("/{version}/")), "the kubelet is {}", kubelet()?);
        let pid = node.property("kubelet.service", "MainPID")?;
        let exe = node.ok(&["readlink", &format!("/proc/{pid}/exe")])?;
        ensure!(exe.contains(&format!("/{version}/")), "the kubelet that runs is {exe}");
        cluster.wait_for_heartbeat("worker-1")
    };
    runs(kubernetes::VERSION)?;
    let before = container(cluster, "worker-1")?;
    let lock = lab.lay_out_real(NEXT)?;
    let line = format!(
        "kubernetes: {{ version: {NEXT}, lock: {{ url: 'http://{SERVICES}/release/{NEXT}.lock.json', sha256: {lock} }} }}\n"
    );
    node.write("/etc/nodeagent/node.d/10-version.yaml", line.as_bytes())?;
    let (code, _, told) = agent(node, &["bootstrap"])?;
    ensure!(code == 0, "{told}");
    runs(NEXT)?;
    nothing_to_do(node)?;
    ensure!(container(cluster, "worker-1")? == before, "the upgrade touched the pod");

    let (code, undone, told) = agent(node, &["rollback"])?;
    ensure!(code == 0, "{undone}{told}");
    runs(kubernetes::VERSION)?;
    ensure!(container(cluster, "worker-1")? == before, "the rollback touched the pod");
    Ok(())
}

/// A machine gets another address: the operator says so in `cluster.yaml` and carries the new configurations; the machine
/// renews what its old address is in, and is reached at the new one.
fn moved(lab: &Lab, cluster: &mut Cluster<'_>) -> Result<()> {
    const TO: &str = "10.10.30.32";
    let [controller, stays, mut moves] = THREE;
    moves.address = TO;
    cluster.cloud_config(&yaml(lab, &[controller, stays, moves, EDGE])?)?;
    cluster.power_off(&[moves.name])?;
    cluster.node(moves.name)?.readdress(TO)?;
    for name in [controller.name, stays.name, moves.name] {
        let node = cluster.node(name)?;
        node.write("/etc/nodeagent/node.yaml", &cluster.node_yaml(name)?)?;
        if name != moves.name {
            let (code, _, told) = agent(node, &["bootstrap"])?;
            ensure!(code == 0, "{name}: {told}");
        }
    }
    cluster.power_on(&[moves.name])?;
    cluster.wait_until_ready(&[moves.name])?;
    bootstrapped(cluster.node(moves.name)?)?;
    nothing_to_do(cluster.node(moves.name)?)?;
    // A kubelet that began before the agent has posted the old one once more.
    process::wait_until("the new address", JUDGED, || {
        let addresses = cluster.get(&["node", moves.name])?["status"]["addresses"].to_string();
        ensure!(addresses.contains(TO), "its addresses are {addresses}");
        Ok(())
    })?;
    cluster.pods_reach_each_other(&[stays.name, moves.name])?;
    // The API server speaks to its kubelet at the new address, and looks at its certificate.
    runs_commands(cluster, moves.name)?;
    renewed(cluster, moves.name)
}

/// A worker asks for its next certificates as itself, from inside of the confined unit that does so every hour.
fn renewed(cluster: &Cluster<'_>, machine: &str) -> Result<()> {
    let node = cluster.node(machine)?;
    let pairs = ["kubelet-client", "kubelet-server", "kube-proxy-client"];
    let serials = || -> Result<Vec<String>> {
        let file = |pair: &str| format!("/etc/kubernetes/pki/{pair}.pem");
        let serial = |pair: &&str| node.ok(&["openssl", "x509", "-noout", "-serial", "-in", &file(pair)]);
        pairs.iter().map(serial).collect()
    };
    let before = serials()?;
    // Another kind of key is as good a reason as age.
    node.write("/etc/nodeagent/node.d/30-key.yaml", b"pki: { key: ecdsa-p256 }\n")?;
    let done = node.run_within(AGENT, &["systemctl", "start", "nodeagent-renew.service"])?;
    ensure!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    for (before, after) in before.iter().zip(serials()?) {
        ensure!(*before != after, "{after} was not renewed");
    }
    cluster.wait_for_heartbeat(machine)?;
    runs_commands(cluster, machine)
}

/// A command in a machine's pod, by way of the API server and the kubelet.
fn runs_commands(cluster: &Cluster<'_>, machine: &str) -> Result<()> {
    process::wait_until("a command to be run in a pod", JUDGED, || {
        let said = cluster.kubectl(&["exec", &cluster::greeter(machine), "--", "/greeter", "--version"])?;
        ensure!(said.starts_with("greeter stand-in"), "it said: {said}");
        Ok(())
    })
}

/// A cluster with RSA keys: the other test's has the default.
fn yaml(lab: &Lab, machines: &[Machine]) -> Result<String> {
    Ok(cluster::yaml(lab, machines)?.replace("\nnodes:\n", "\npki: { key: rsa-2048 }\nnodes:\n"))
}

#[test]
fn the_days_after() -> Result<()> {
    Lab::run("days", |lab| {
        let machines = [&THREE[..], &[EDGE]].concat();
        let mut cluster = Cluster::new(lab, &yaml(lab, &machines)?, &machines)?;
        let early = ["controller-1", "worker-1"];
        cluster.power_on(&early)?;
        cluster.wait_until_ready(&early)?;
        cluster.pods_reach_each_other(&["worker-1"])?;
        process::wait_until("its pod to run", JUDGED, || cluster.pod_address(&cluster::greeter("worker-1")))?;
        for name in early {
            bootstrapped(cluster.node(name)?)?;
        }
        judged(&cluster, &cluster.token("worker-2")?)?;
        // Before anything is held by a rollback.
        refuses_what_the_cluster_is_not_ready_for(&cluster, "worker-1")?;
        upgraded_and_rolled_back(lab, &cluster)?;

        // The last of the inventory come, one of them too late for its token, and nothing changes on the others.
        cluster_late::is_held_up(&mut cluster, "worker-2")?;
        cluster_late::gets_another_token(&cluster, &yaml(lab, &machines)?, "worker-2", &["worker-1", EDGE.name])?;
        let before = early.iter().map(|name| written(cluster.node(name)?)).collect::<Result<Vec<_>>>()?;
        cluster_late::bring(&cluster, "worker-2")?;
        cluster.power_on(&[EDGE.name])?;
        cluster.wait_until_ready(&["worker-2", EDGE.name])?;
        cluster.pods_reach_each_other(&["worker-1", "worker-2"])?;
        for (name, before) in early.iter().zip(&before) {
            unchanged(name, before, &written(cluster.node(name)?)?, None)?;
        }
        runs_commands(&cluster, "worker-2")?;
        edge::runs_only_what_tolerates_it(&cluster, "worker-1")?;
        moved(lab, &mut cluster)
    })
}
