//! A machine on a public address, in a cluster of others: what tolerates it runs there, and nothing else.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::bootstrap::{bootstrapped, nothing_to_do};
use crate::harness::{Cluster, cluster::Machine, image, process::wait_until};

/// The machine.
pub const EDGE: Machine = Machine { name: "edge-1", role: "edge", address: "10.10.30.41" };

/// Its label and its taint (docs/cluster.md).
const ROLE: &str = "node-role.kubernetes.io/edge";

/// For the cluster's controllers and its scheduler to have looked, and for a pod to start.
const SOON: Duration = Duration::from_mins(3);

/// A pod that wants to be where the edge is.
fn pod(name: &str, tolerations: &Value) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": { "name": name },
        "spec": {
            "nodeSelector": { ROLE: "" },
            "tolerations": tolerations,
            "terminationGracePeriodSeconds": 0,
            "containers": [{ "name": "greeter", "image": image::GREETER, "imagePullPolicy": "Never" }],
        },
    })
}

/// The machine is a node that is set apart for ingress; `neighbour` is another machine.
pub fn runs_only_what_tolerates_it(cluster: &Cluster<'_>, neighbour: &str) -> Result<()> {
    let edge = cluster.node(EDGE.name)?;
    bootstrapped(edge)?;
    nothing_to_do(edge)?;
    wait_until("the edge to have its label and its taint", SOON, || {
        let node = cluster.get(&["node", EDGE.name])?;
        let (label, taints) = (&node["metadata"]["labels"][ROLE], &node["spec"]["taints"]);
        ensure!(*label == "" && *taints == json!([{ "key": ROLE, "effect": "NoSchedule" }]), "{label} {taints}");
        Ok(())
    })?;
    let tolerates = json!([{ "key": ROLE, "operator": "Exists", "effect": "NoSchedule" }]);
    cluster.apply(&[pod("ingress", &tolerates), pod("stranger", &json!([]))])?;
    wait_until("the ingress to answer", SOON, || {
        let url = format!("http://{}:8080/", cluster.pod_address("ingress")?);
        let said = cluster.node(neighbour)?.ok(&["curl", "--silent", "--show-error", "--max-time", "2", &url])?;
        ensure!(said.contains("this is ingress"), "it said: {said}");
        Ok(())
    })?;
    ensure!(cluster.get(&["pod", "ingress"])?["spec"]["nodeName"] == EDGE.name, "the ingress runs elsewhere");

    // The scheduler has looked at the other as well, and says why it runs nowhere.
    wait_until("the stranger to be turned away", SOON, || {
        let stranger = cluster.get(&["pod", "stranger"])?;
        ensure!(stranger["spec"]["nodeName"].is_null(), "it runs on {}", stranger["spec"]["nodeName"]);
        let conditions = stranger["status"]["conditions"].as_array().context("no conditions yet")?;
        let why = conditions.iter().find(|condition| condition["reason"] == "Unschedulable");
        let why = why.and_then(|condition| condition["message"].as_str()).context("the scheduler has not said why")?;
        ensure!(why.contains(ROLE) && why.contains("didn't tolerate"), "{why}");
        Ok(())
    })?;
    cluster.kubectl(&["delete", "pod", "ingress", "stranger", "--now", "--wait=false"]).map(drop)
}
