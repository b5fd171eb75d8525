//! What runs on a worker, and how it is configured.
//!
//! Configuration files rather than flags wherever the component has them; both are JSON, which is YAML. The fields are
//! those of `kubelet.config.k8s.io/v1beta1` and `kubeproxy.config.k8s.io/v1alpha1` in the Kubernetes documentation.

use serde_json::json;

use super::Component;
use crate::config::settings::Settings;
use crate::config::values::{RootPath, UnitName};
use crate::identity::Identity;

/// The directory of configuration files and kubeconfigs.
const ETC: &str = "/etc/kubernetes";

/// The kubelet: no anonymous access, the API server decides who may do what, certificates from the certs step.
pub fn kubelet(settings: &Settings, identity: &Identity) -> Component {
    let pair = settings.certs.dir.join("kubelet-server.pem");
    let config = json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": {
            "anonymous": { "enabled": false },
            "webhook": { "enabled": true },
            "x509": { "clientCAFile": settings.certs.ca }
        },
        "authorization": { "mode": "Webhook" },
        "clusterDNS": [settings.cluster.dns],
        "clusterDomain": settings.cluster.domain,
        "failSwapOn": !settings.kernel.swap,
        "containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock",
        // The agent renews both pairs: the kubelet asks for none of its own.
        "rotateCertificates": false,
        "serverTLSBootstrap": false,
        "staticPodPath": "/etc/kubernetes/manifests",
        "tlsCertFile": pair,
        "tlsPrivateKeyFile": pair
    });
    Component {
        unit: UnitName::literal("kubelet.service"),
        unit_file: include_str!("../../units/kubelet.service"),
        config: (path("kubelet-config.yaml"), text(&config)),
        args: vec![
            format!("--config={}", path("kubelet-config.yaml")),
            format!("--kubeconfig={}", path("kubelet.conf")),
            format!("--hostname-override={}", identity.name),
            format!("--node-ip={}", identity.address),
        ],
        wait: vec![api_server(settings), "unix:///run/containerd/containerd.sock".to_owned()],
    }
}

/// The service proxy.
pub fn kube_proxy(settings: &Settings, identity: &Identity) -> Component {
    let config = json!({
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "clientConnection": { "kubeconfig": path("kube-proxy.conf") },
        "clusterCIDR": settings.cluster.pod_cidr,
        "hostnameOverride": identity.name,
        "mode": "iptables"
    });
    Component {
        unit: UnitName::literal("kube-proxy.service"),
        unit_file: include_str!("../../units/kube-proxy.service"),
        config: (path("kube-proxy-config.yaml"), text(&config)),
        args: vec![format!("--config={}", path("kube-proxy-config.yaml"))],
        wait: vec![api_server(settings)],
    }
}

fn path(name: &str) -> RootPath {
    RootPath::literal(ETC).join(name)
}

fn api_server(settings: &Settings) -> String {
    let (host, port) = settings.cluster.api_server.host_port();
    if host.contains(':') { format!("tcp://[{host}]:{port}") } else { format!("tcp://{host}:{port}") }
}

fn text(config: &serde_json::Value) -> String {
    format!("{config:#}\n")
}
