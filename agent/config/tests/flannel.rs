//! `cluster.network: flannel`, and what does not go together with it.

use super::*;
use crate::config::settings::{FlannelBackend, FlannelStore, PodNetwork};

const ETCD: &str = "etcd: { endpoints: ['https://10.10.30.41:2379'], ca: /etc/f/ca.pem, pair: /etc/f/client.pem }";

/// The controller of the other tests, with flannel instead of bridges.
fn flannel_with(flannel: &str, drop_in: &str) -> Result<Settings, ConfigErrors> {
    let digest = "aaaa1111".repeat(8);
    let text = format!(
        "cluster:\n  network: flannel\n  flannel: {flannel}\n  nodes: {{ c1: {{ podCIDR: null }}, w1: {{ podCIDR: null }} }}\n\
         kubernetes:\n  artifacts:\n    flannel: {{ version: v0.26.7, sha256: {digest} }}\n    \
         flannel-cni: {{ version: v1.6.2-flannel1, sha256: {digest} }}\n"
    );
    controller_with_all(&[&text, drop_in])
}

#[test]
fn flannel_and_its_defaults() {
    let settings = flannel_with("null", "{}").unwrap_or_else(|errors| panic!("{errors}"));
    assert_eq!(settings.cluster.network, PodNetwork::Flannel);
    let flannel = settings.cluster.flannel.expect("flannel");
    assert_eq!((flannel.backend, flannel.asks_kubernetes()), (FlannelBackend::Vxlan, true));
    assert!(settings.kernel.modules.iter().any(|module| module.as_str() == "vxlan"));
    let artifact = |name: &str| &settings.install.artifacts[&name.parse::<values::ArtifactName>().expect("a name")];
    assert_eq!(artifact("flannel").run_by, [values::UnitName::literal("flanneld.service")]);
    assert_eq!(artifact("flannel-cni").into.as_str(), "/opt/cni/bin");

    let settings = flannel_with(&format!("{{ backend: host-gw, {ETCD} }}"), "{}");
    let settings = settings.unwrap_or_else(|errors| panic!("{errors}"));
    assert!(!settings.kernel.modules.iter().any(|module| module.as_str() == "vxlan"));
    let Some(FlannelStore::Etcd(etcd)) = settings.cluster.flannel.map(|flannel| flannel.store) else {
        panic!("it is asked of Kubernetes")
    };
    assert_eq!(etcd.prefix.as_str(), "/coreos.com/network");
}

#[test]
fn what_does_not_go_together_with_flannel() {
    let own_store = "{ etcd: { endpoints: ['https://10.10.30.11:2379'], ca: /c, pair: /p } }";
    let plain = "{ etcd: { endpoints: ['http://10.10.30.41:2379'], ca: /c, pair: /p } }";
    let named = "etcd: { endpoints: ['https://store.example:2379'] }";
    for (flannel, drop_in, message) in [
        ("{ backend: vxlan }", "cluster: { network: none }", "cluster.network is none: set it to flannel"),
        ("{}", "cluster: { nodes: { w1: { podCIDR: 10.244.1.0/24 } } }", "flannel gives each node its part"),
        ("{}", "cluster: { podCIDR: 10.244.0.0/25 }", "no room for a /24"),
        ("{}", "cluster: { podCIDR: 'fd00:10::/56' }", "IPv4 alone"),
        ("{}", "kubernetes: { artifacts: { flannel: null } }", "kubernetes.artifacts.flannel.version: is missing"),
        (
            "{}",
            "kubernetes: { artifacts: { flannel-cni: null } }",
            "kubernetes.artifacts.flannel-cni.version: is missing",
        ),
        (own_store, "{}", "the API server's own store"),
        // Of members in DNS a node knows by the inventory.
        (
            own_store,
            "etcd: { discovery: store.example.com, endpoints: ['https://store.example.com:2379'] }",
            "the API server's own store",
        ),
        (plain, "{}", "must start with https://"),
        ("{ etcd: { endpoints: [], ca: /c, pair: /p } }", "{}", "names no member"),
        ("{ etcd: { endpoints: ['https://10.10.30.41:2379'] } }", "{}", "flannel.etcd.pair: is missing"),
        (
            "{ etcd: { endpoints: ['https://store.example:2379'], ca: /c, pair: /p } }",
            named,
            "the API server's own store",
        ),
        ("{ backend: udp }", "{}", "vxlan, host-gw"),
    ] {
        let errors = flannel_with(flannel, drop_in).err().unwrap_or_else(|| panic!("{flannel} {drop_in}: accepted"));
        assert!(errors.to_string().contains(message), "{flannel} {drop_in}:\n{errors}");
    }
}
