//! What a fresh cluster lacks, and what a person does to it afterwards.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::{A_WHILE, Controller, SOON, get};
use crate::{
    csr::wait_until_token_may,
    harness::{ControlPlane, Lab, process},
};

/// A token that is over.
const EXPIRED: &str = "expire.0123456789abcdef";

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
