//! What every cluster of this program's needs and Kubernetes does not make by itself.

use openssl::base64::encode_block;
use serde_json::{Value, json};

use crate::config::settings::Settings;

/// The API group of rights.
pub const RBAC: &str = "rbac.authorization.k8s.io";

/// The objects, in the order in which they are applied.
///
/// There is no binding for the controller manager's own approver (`…:nodeclient`, `…:selfnodeclient`): it would approve
/// any node's name for any token.
pub fn objects(settings: &Settings, ca: &[u8]) -> Vec<Value> {
    let bootstrappers = subject("Group", "system:bootstrappers");
    let api_server = subject("User", "kube-apiserver-kubelet-client");
    let mut all = vec![
        // A token may ask for certificates.
        cluster_role_binding("nodeagent:node-bootstrapper", "system:node-bootstrapper", &bootstrappers),
        // The API server may ask kubelets: logs, exec, metrics.
        cluster_role_binding("nodeagent:kubelet-api-admin", "system:kubelet-api-admin", &api_server),
    ];
    all.extend(cluster_info(settings, ca));
    all
}

/// What a machine needs that knows of the cluster no more than a token: where it is, and its CA, which the controller
/// manager's `bootstrapsigner` signs with each token. Anybody may read it, and that alone.
fn cluster_info(settings: &Settings, ca: &[u8]) -> [Value; 3] {
    const NAME: &str = "nodeagent:cluster-info";
    let kubeconfig = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{
            "name": "",
            "cluster": { "certificate-authority-data": encode_block(ca), "server": settings.cluster.api_server },
        }],
    });
    let meta = |name: &str| json!({ "name": name, "namespace": "kube-public" });
    [
        json!({
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": meta("cluster-info"),
            "data": { "kubeconfig": format!("{kubeconfig:#}\n") },
        }),
        json!({
            "apiVersion": format!("{RBAC}/v1"),
            "kind": "Role",
            "metadata": meta(NAME),
            "rules": [{
                "apiGroups": [""], "resources": ["configmaps"], "resourceNames": ["cluster-info"], "verbs": ["get"],
            }],
        }),
        json!({
            "apiVersion": format!("{RBAC}/v1"),
            "kind": "RoleBinding",
            "metadata": meta(NAME),
            "roleRef": { "apiGroup": RBAC, "kind": "Role", "name": NAME },
            "subjects": [subject("User", "system:anonymous")],
        }),
    ]
}

fn cluster_role_binding(name: &str, role: &str, subject: &Value) -> Value {
    json!({
        "apiVersion": format!("{RBAC}/v1"),
        "kind": "ClusterRoleBinding",
        "metadata": { "name": name },
        "roleRef": { "apiGroup": RBAC, "kind": "ClusterRole", "name": role },
        "subjects": [subject],
    })
}

fn subject(kind: &str, name: &str) -> Value {
    json!({ "apiGroup": RBAC, "kind": kind, "name": name })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_gets_more_than_is_said() {
        let all = objects(&Settings::sample(), b"a CA");
        let bound: Vec<String> = all
            .iter()
            .filter(|object| object["kind"].as_str().is_some_and(|kind| kind.ends_with("Binding")))
            .map(|b| format!("{} -> {}", b["subjects"][0]["name"], b["roleRef"]["name"]).replace('"', ""))
            .collect();
        assert_eq!(
            bound,
            [
                "system:bootstrappers -> system:node-bootstrapper",
                "kube-apiserver-kubelet-client -> system:kubelet-api-admin",
                "system:anonymous -> nodeagent:cluster-info",
            ]
        );
        let info = all.iter().find(|object| object["kind"] == "ConfigMap").expect("cluster-info");
        let config: Value = serde_json::from_str(info["data"]["kubeconfig"].as_str().expect("text")).expect("JSON");
        assert_eq!(config["clusters"][0]["cluster"]["server"], "https://10.10.30.11:6443");
        assert_eq!(config["clusters"][0]["cluster"]["certificate-authority-data"], "YSBDQQ==");
    }
}
