//! Whole clusters, from an operator's `cluster.yaml`: real Kubernetes, etcd and containerd on real nodes.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    time::Duration,
};

use anyhow::{Context, Result, ensure};

use crate::bootstrap::{bootstrapped, nothing_to_do};
use crate::harness::{
    Cluster, Lab, Node, THREE,
    cluster::{self, greeter},
    image::DNS,
    process::wait_until,
    release, timeline,
};

/// All of [`THREE`].
const ALL: [&str; 3] = ["controller-1", "worker-1", "worker-2"];

/// The workers of them.
const WORKERS: [&str; 2] = ["worker-1", "worker-2"];

/// The kubeconfigs, of the administrator and of a node, in the hands of a kubectl of this decade.
fn kubeconfigs_serve_a_new_kubectl(cluster: &Cluster<'_>) -> Result<()> {
    let kubectl = release::new_kubectl()?;
    let said = cluster.kubectl_by(&kubectl, &["version"])?;
    ensure!(said.contains("Client Version: v1.32.") && said.contains("Server Version: v1.20."), "{said}");
    let said = cluster.kubectl_by(&kubectl, &["get", "nodes", "--output=name"])?;
    ensure!(said.lines().count() == ALL.len(), "{said}");
    let worker = cluster.node("worker-1")?;
    worker.write_as("/root/kubectl", &fs::read(&kubectl)?, 0o755)?;
    let as_node = ["/root/kubectl", "--kubeconfig=/etc/kubernetes/kubelet.conf", "get", "node", "worker-1"];
    wait_until("the node to see itself", Duration::from_mins(1), || {
        ensure!(worker.ok(&as_node)?.contains(" Ready "), "it is not Ready");
        Ok(())
    })
}

/// The container runtime has its limits, for which it is restarted, before the kubelet begins to speak to it.
fn the_runtime_was_ready_for_the_kubelet(node: &Node<'_>) -> Result<()> {
    let started = |unit: &str| -> Result<u64> {
        let said = node.ok(&["systemctl", "show", "--value", "--property=ExecMainStartTimestampMonotonic", unit])?;
        said.trim().parse().with_context(|| format!("{unit} started at {said:?}"))
    };
    let (runtime, kubelet) = (started("containerd.service")?, started("kubelet.service")?);
    ensure!(runtime < kubelet, "containerd started {} us after the kubelet", runtime - kubelet);
    Ok(())
}

/// Pods look names up at the cluster's DNS, and in the cluster's domain: their resolver, the service's address, the rules of
/// kube-proxy, and a `CoreDNS` that got its Corefile (here a stand-in, for want of the real one's image).
fn pods_look_names_up(cluster: &Cluster<'_>) -> Result<()> {
    let pod = greeter(WORKERS[0]);
    wait_until("the cluster's DNS to answer a pod", Duration::from_mins(2), || {
        let found = cluster.kubectl(&["exec", &pod, "--", "/greeter", "resolve", "some.default.svc.cluster.local"])?;
        ensure!(found.trim() == "192.0.2.53", "it found {found:?}");
        // Completed by what the kubelet was told the domain is.
        let found = cluster.kubectl(&["exec", &pod, "--", "/greeter", "resolve", "kubernetes.default"])?;
        ensure!(found.trim() == "192.0.2.53", "it found {found:?}");
        Ok(())
    })?;
    wait_until("both of the cluster's DNS to be ready", Duration::from_mins(3), || {
        let dns = cluster.get(&["deployment", "coredns", "--namespace=kube-system"])?;
        ensure!(dns["status"]["readyReplicas"] == dns["spec"]["replicas"], "{}", dns["status"]);
        Ok(())
    })
}

/// The same `cluster.yaml`, with a DNS service.
fn with_dns(yaml: &str) -> String {
    format!("{yaml}coreDNS: {{ image: {DNS} }}\n")
}

/// All that is where the agent writes on a machine: of each path its kind, mode and owner, and the end of a link or the
/// digest of a file.
pub fn written(node: &Node<'_>) -> Result<BTreeMap<String, String>> {
    // Whole trees: what else the system has there changes as little.
    const PLACES: [&str; 3] = ["/etc", "/opt", "/var/lib/nodeagent"];
    let find = |what: &[&str]| node.ok(&[&["find"], &PLACES[..], what].concat());
    let mut all = BTreeMap::new();
    for row in find(&["-printf", "%p\\t%y %04m %u:%g %l\\0"])?.split_terminator('\0') {
        let (path, what) = row.split_once('\t').context("two columns")?;
        all.insert(path.to_owned(), what.to_owned());
    }
    let digests = find(&["-type", "f", "-exec", "sha256sum", "--zero", "{}", "+"])?;
    for row in digests.split_terminator('\0') {
        let (digest, path) = row.split_once("  ").context("two columns")?;
        all.get_mut(path).with_context(|| format!("{path} is new"))?.push_str(digest);
    }
    for path in ["/etc/nodeagent/node.yaml", "/etc/network-environment", "/opt/bin/kubelet", NOTED] {
        ensure!(all.contains_key(path), "there is no {path}");
    }
    Ok(all)
}

/// What a boot adds to, and nothing else: the units that it has not started yet when the agent looks, the agent starts, and
/// notes that.
pub const NOTED: &str = "/var/lib/nodeagent/ledger";

/// Fails unless a machine is as it was, but for one file.
pub fn unchanged(
    name: &str,
    before: &BTreeMap<String, String>,
    after: &BTreeMap<String, String>,
    but: Option<&str>,
) -> Result<()> {
    let paths: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    let changed = paths.into_iter().filter(|path| but != Some(path.as_str()) && before.get(*path) != after.get(*path));
    let changed: Vec<String> =
        changed.map(|path| format!("{path}: {:?}, before {:?}", after.get(path), before.get(path))).collect();
    ensure!(changed.is_empty(), "on {name} there changed {changed:#?}");
    Ok(())
}

#[test]
fn three_machines_become_a_cluster_and_come_back_unchanged() -> Result<()> {
    Lab::run("cluster", |lab| {
        let mut cluster = Cluster::new(lab, &with_dns(&cluster::yaml(lab, &THREE)?), &THREE)?;
        cluster.power_on(&ALL)?;
        let ready = cluster.wait_until_ready(&ALL)?;
        cluster.pods_reach_each_other(&WORKERS)?;
        eprintln!("{}", timeline::table(&cluster, &ready)?);
        kubeconfigs_serve_a_new_kubectl(&cluster)?;
        pods_look_names_up(&cluster)?;
        let own = ["kubectl", "--kubeconfig=/etc/kubernetes/admin.conf", "get", "nodes", "--output=name"];
        let nodes = cluster.node("controller-1")?.ok(&own)?;
        ensure!(nodes.lines().count() == ALL.len(), "an administrator on the controller sees {nodes}");

        let mut before = Vec::new();
        for name in ALL {
            let node = cluster.node(name)?;
            bootstrapped(node)?;
            nothing_to_do(node)?;
            the_runtime_was_ready_for_the_kubelet(node)?;
            before.push(written(node)?);
        }
        cluster.power_off(&ALL)?;
        cluster.power_on(&ALL)?;
        let ready = cluster.wait_until_ready(&ALL)?;
        eprintln!("{}", timeline::table(&cluster, &ready)?);
        for (name, before) in ALL.iter().zip(before) {
            let node = cluster.node(name)?;
            bootstrapped(node)?;
            nothing_to_do(node)?;
            unchanged(name, &before, &written(node)?, Some(NOTED))?;
        }
        cluster.pods_reach_each_other(&WORKERS).map(drop)
    })
}
