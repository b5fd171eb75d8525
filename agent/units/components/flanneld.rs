//! flanneld, which gets this node's part of the pod network and keeps the ways to all others' (flannel-io/flannel,
//! `Documentation/configuration.md`; its flags are in `main.go`). It is configured by flags, and by what it finds in its store.

use serde_json::json;

use super::{Component, Node, config_file, etc, target};
use crate::config::settings::{FlannelSettings, FlannelStore};
use crate::config::values::UnitName;
use crate::units::flannel::{SUBNET_FILE, UNIT};

pub fn component(node: &Node<'_>, flannel: &FlannelSettings) -> Component {
    let unit = UnitName::literal(UNIT);
    let mut args = vec![
        // The link that has it, and what others send to.
        format!("--iface={}", node.identity.address),
        "--ip-masq=true".to_owned(),
        format!("--subnet-file={SUBNET_FILE}"),
    ];
    let mut files = Vec::new();
    let mut vars = Vec::new();
    let wait = match &flannel.store {
        FlannelStore::Kubernetes => {
            let network = json!({
                "Network": node.settings.cluster.pod_cidr,
                "Backend": { "Type": flannel.backend.to_string() }
            });
            let path = etc("flannel-network.json");
            args.push("--kube-subnet-mgr=true".to_owned());
            args.push(format!("--kubeconfig-file={}", etc("flannel.conf")));
            args.push(format!("--net-config-path={path}"));
            files.push(config_file(path, &unit, &network));
            // It has no flag for this; in a pod it would ask for the pod's node.
            vars.push(("NODE_NAME", node.identity.name.to_string()));
            vec![node.api_server()]
        }
        FlannelStore::Etcd(etcd) => {
            let endpoints: Vec<&str> = etcd.endpoints.iter().map(|url| url.as_str().trim_end_matches('/')).collect();
            args.push(format!("--etcd-endpoints={}", endpoints.join(",")));
            args.push(format!("--etcd-prefix={}", etcd.prefix));
            args.push(format!("--etcd-cafile={}", etcd.ca));
            args.push(format!("--etcd-certfile={}", etcd.pair));
            args.push(format!("--etcd-keyfile={}", etcd.pair));
            // One member that answers is enough.
            std::iter::once("--any".to_owned()).chain(etcd.endpoints.iter().map(target)).collect()
        }
    };
    Component { unit, unit_file: include_str!("../../../units/flanneld.service"), files, args, wait, vars }
}
