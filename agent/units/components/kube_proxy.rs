//! The service proxy, by `kubeproxy.config.k8s.io/v1alpha1`.

use serde_json::json;

use super::{Component, Node, config_file, etc};
use crate::config::values::UnitName;
use crate::units::versions::Program;

pub fn component(node: &Node<'_>) -> Component {
    let unit = UnitName::literal("kube-proxy.service");
    let path = etc("kube-proxy-config.yaml");
    let config = json!({
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        // Otherwise it looks for its Node object, which the kubelet may not have made yet: that cost half a minute.
        "bindAddress": node.identity.address,
        "kind": "KubeProxyConfiguration",
        "clientConnection": { "kubeconfig": etc("kube-proxy.conf") },
        "clusterCIDR": node.settings.cluster.pod_cidr,
        "hostnameOverride": node.identity.name,
        "mode": "iptables"
    });
    Component {
        unit_file: include_str!("../../../units/kube-proxy.service"),
        files: vec![config_file(path.clone(), &unit, &node.config(Program::KubeProxy, config))],
        args: node.args(Program::KubeProxy, vec![format!("--config={path}")]),
        wait: vec![node.api_server()],
        vars: Vec::new(),
        unit,
    }
}
