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
pub const GATE: (&str, &str) = ("nodeagent-flannel.service", include_str!("../../units/nodeagent-flannel.service"));

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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::settings::{FlannelBackend, FlannelEtcd, FlannelSettings};
    use crate::host::facts::Facts;
    use crate::identity::Identity;
    use crate::units::components::{Component, Node};

    fn settings(store: FlannelStore) -> Settings {
        let mut settings = Settings::sample();
        settings.cluster.flannel = Some(FlannelSettings { backend: FlannelBackend::Vxlan, store });
        settings
    }

    fn etcd() -> FlannelStore {
        let url = |host: &str| format!("https://{host}:2379/").parse().expect("a URL");
        FlannelStore::Etcd(FlannelEtcd {
            endpoints: vec![url("10.10.30.41"), url("10.10.30.42")],
            prefix: RootPath::literal("/coreos.com/network"),
            ca: RootPath::literal("/etc/f/ca.pem"),
            pair: RootPath::literal("/etc/f/client.pem"),
        })
    }

    fn component(settings: &Settings, unit: &str) -> Component {
        let node = Node { settings, facts: &Facts::sample(), identity: &Identity::sample() };
        node.components().into_iter().find(|component| component.unit.as_str() == unit).expect(unit)
    }

    #[test]
    fn flanneld_is_told_its_store() {
        let by_api = component(&settings(FlannelStore::Kubernetes), UNIT);
        insta::assert_snapshot!(by_api.args.join("\n"), @r"
        --iface=10.10.30.21
        --ip-masq=true
        --subnet-file=/run/flannel/subnet.env
        --kube-subnet-mgr=true
        --kubeconfig-file=/etc/kubernetes/flannel.conf
        --net-config-path=/etc/kubernetes/flannel-network.json
        ");
        assert_eq!(by_api.vars, [("NODE_NAME", Identity::sample().name.to_string())]);
        let by_etcd = component(&settings(etcd()), UNIT);
        insta::assert_snapshot!(by_etcd.args.join("\n"), @r"
        --iface=10.10.30.21
        --ip-masq=true
        --subnet-file=/run/flannel/subnet.env
        --etcd-endpoints=https://10.10.30.41:2379,https://10.10.30.42:2379
        --etcd-prefix=/coreos.com/network
        --etcd-cafile=/etc/f/ca.pem
        --etcd-certfile=/etc/f/client.pem
        --etcd-keyfile=/etc/f/client.pem
        ");
        assert_eq!(by_etcd.wait, ["--any", "tcp://10.10.30.41:2379", "tcp://10.10.30.42:2379"]);
    }

    #[test]
    fn only_who_can_wait_for_the_subnet_does() {
        for (store, waits) in [(FlannelStore::Kubernetes, false), (etcd(), true)] {
            let settings = settings(store);
            let kubelet = component(&settings, "kubelet.service");
            assert_eq!(kubelet.wait.contains(&format!("file:{SUBNET_FILE}")), waits, "{:?}", kubelet.wait);
            assert_eq!(waiting(&settings).len(), if waits { 2 } else { 0 });
        }
    }

    #[test]
    fn the_units_name_the_places_that_this_module_does() {
        let place = "/etc/cni/net.d/10-flannel.conflist";
        assert!(GATE.1.contains(&format!("{CONFLIST} {place}\n")) && CLEARING.1.contains(&format!("r! {place}\n")));
        assert!(GATE.1.contains(SUBNET_FILE) && WAITING.iter().all(|(_, text)| text.contains(SUBNET_FILE)));
    }
}
