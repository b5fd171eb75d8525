//! The network of pods where `cluster.network` is `flannel`: what stands around flanneld itself
//! ([`super::components`]).
//!
//! Nothing but the subnet file says that a node has its part of the pod network. Until it is there, container runtimes see
//! no CNI configuration, so that the kubelet says that the node is not ready: [`GATE`] puts one in place then, and each boot
//! begins without. The kubelet itself may wait for the file only where the subnets are in an etcd: by the cluster's API a
//! node gets one when its kubelet has made its Node.

use serde_json::json;

use super::pod_network::CNI_VERSION;
use crate::config::settings::{FlannelStore, Settings};
use crate::config::values::RootPath;
use crate::engine::file::ManagedFile;
use crate::engine::unitfile::UnitFile;

/// The unit that runs flanneld.
pub const UNIT: &str = "flanneld.service";

/// The unit that tells container runtimes of the network, once this node has its part of it.
pub const GATE: (&str, &str) =
    ("nodeagent-flannel.service", include_str!("../../units/nodeagent-flannel.service"));

/// What flanneld writes when it has a subnet (`--subnet-file`), and where flannel's CNI plugin looks for it.
pub const SUBNET_FILE: &str = "/run/flannel/subnet.env";

/// The CNI configuration before it is in force. [`GATE`] and [`CLEARING`] name the place where it is then.
pub const CONFLIST: &str = "/etc/kubernetes/flannel.conflist";

/// What systemd-tmpfiles does at each boot before anything else runs: a CNI configuration of the last boot promises a
/// subnet that is not there yet.
pub const CLEARING: (&str, &str) = (
    "/etc/tmpfiles.d/nodeagent-flannel.conf",
    "# Written by nodeagent: nodeagent-flannel.service makes it anew.\nr! /etc/cni/net.d/10-flannel.conflist\n",
);

/// What makes container runtimes wait for the subnet file.
const WAITING: [(&str, &str); 2] = [
    ("containerd.service.d/40-flannel.conf", include_str!("../../units/containerd.service.d/40-flannel.conf")),
    ("docker.service.d/40-flannel.conf", include_str!("../../units/docker.service.d/40-flannel.conf")),
];

/// The drop-ins, where container runtimes can wait: one for each that a machine may have.
pub fn waiting(settings: &Settings) -> Vec<(&'static str, ManagedFile)> {
    let wanted = must_wait(settings);
    let drop_in = |(name, text): (&'static str, &str)| {
        (name, ManagedFile::unit(RootPath::literal(super::UNIT_DIR).join(name), &UnitFile::parse(text)))
    };
    WAITING.into_iter().filter(|_| wanted).map(drop_in).collect()
}

/// Where the drop-ins are, or were.
pub fn waiting_paths() -> impl Iterator<Item = RootPath> {
    WAITING.into_iter().map(|(name, _)| RootPath::literal(super::UNIT_DIR).join(name))
}

/// Whether kubelet and container runtimes can wait for the subnet file: it comes without their doing.
pub fn must_wait(settings: &Settings) -> bool {
    let flannel = settings.cluster.flannel.as_ref();
    flannel.is_some_and(|flannel| matches!(flannel.store, FlannelStore::Etcd(_)))
}

/// The configuration of CNI plugins: flannel's asks the bridge's for the rest, with what the subnet file says.
pub fn conflist() -> ManagedFile {
    let config = json!({
        "cniVersion": CNI_VERSION,
        "name": "nodeagent",
        "plugins": [
            // A pod reaches itself by its service, and what is not on its link by its node.
            { "type": "flannel", "delegate": { "hairpinMode": true, "isDefaultGateway": true } },
            { "type": "portmap", "capabilities": { "portMappings": true } }
        ]
    });
    *ManagedFile::new(RootPath::literal(CONFLIST), format!("{config:#}\n"))
}
