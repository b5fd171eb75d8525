//! The controllers of Kubernetes. They have no configuration file that is stable.

use super::{Component, Node, etc};
use crate::config::settings::{FlannelSettings, PodNetwork, Signer};
use crate::config::values::UnitName;
use crate::units::versions::Program;

pub fn component(node: &Node<'_>) -> Component {
    let unit = UnitName::literal("kube-controller-manager.service");
    let (cluster, certs) = (&node.settings.cluster, &node.settings.certs);
    let kubeconfig = etc("controller-manager.conf");
    let mut args = vec![
        format!("--authentication-kubeconfig={kubeconfig}"),
        format!("--authorization-kubeconfig={kubeconfig}"),
        format!("--kubeconfig={kubeconfig}"),
        "--bind-address=127.0.0.1".to_owned(),
        format!("--client-ca-file={}", certs.ca),
        format!("--cluster-name={}", cluster.name),
        // What bootstrap tokens need, and is off by default: their Secrets' end, and cluster-info's signature.
        "--controllers=*,bootstrapsigner,tokencleaner".to_owned(),
        "--leader-elect=true".to_owned(),
        "--profiling=false".to_owned(),
        format!("--root-ca-file={}", certs.ca),
        format!("--service-account-private-key-file={}", certs.service_account_key),
        "--use-service-account-credentials=true".to_owned(),
    ];
    // Where another holds the CA's key, or nobody may keep it, certificates are not signed through Kubernetes.
    if let Signer::Local { key, remove_after_use: false } = &certs.signer {
        // One certificate, where pki.ca may hold several.
        args.push(format!("--cluster-signing-cert-file={}", certs.dir.join("signing-ca.pem")));
        args.push(format!("--cluster-signing-key-file={key}"));
    }
    if let Some(front_proxy) = &certs.front_proxy {
        args.push(format!("--requestheader-client-ca-file={}", front_proxy.ca));
    }
    args.extend(match cluster.network {
        // The inventory says which pods' addresses a node has.
        PodNetwork::Bridge => vec!["--allocate-node-cidrs=false".to_owned()],
        // Nodes agree on them elsewhere.
        PodNetwork::Flannel if !cluster.flannel.as_ref().is_some_and(FlannelSettings::asks_kubernetes) => {
            vec!["--allocate-node-cidrs=false".to_owned()]
        }
        // Flannel and its like ask the Node object.
        PodNetwork::Flannel | PodNetwork::Foreign => vec![
            "--allocate-node-cidrs=true".to_owned(),
            format!("--cluster-cidr={}", cluster.pod_cidr),
            format!("--service-cluster-ip-range={}", cluster.service_cidr),
        ],
    });
    Component {
        unit_file: include_str!("../../../units/kube-controller-manager.service"),
        files: Vec::new(),
        args: node.args(Program::ControllerManager, args),
        wait: vec![node.api_server()],
        vars: Vec::new(),
        unit,
    }
}
