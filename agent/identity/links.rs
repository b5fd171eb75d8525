//! Which links belong to containers, virtual machines and the pod network, and never carry the node's address.
//!
//! The kernel's kind alone does not tell: a bridge may carry the machine's only network card, and inside a container
//! the machine's own link is a `veth`. So overlays are known by kind, everything else by the names that the programs
//! which make them use.

use crate::host::facts::Link;

/// Names, `*` at the end standing for any rest, and whose they are.
const NAMES: [(&str, &str); 39] = [
    ("antrea-gw*", "Antrea"),
    ("azv*", "a pod (Azure CNI)"),
    ("cali*", "a pod (Calico)"),
    ("cbr*", "kubenet"),
    ("cilium*", "Cilium"),
    ("cni*", "a CNI bridge"),
    ("datapath", "Weave"),
    ("docker*", "Docker"),
    ("flannel*", "flannel"),
    ("genev_sys*", "Open vSwitch"),
    ("gke*", "a pod (GKE)"),
    ("incusbr*", "Incus"),
    ("kilo*", "Kilo"),
    ("kube-bridge", "kube-router"),
    ("kube-dummy-if", "kube-router"),
    ("kube-ipvs*", "kube-proxy"),
    ("lxc*", "LXC, or a pod (Cilium)"),
    ("lxdbr*", "LXD"),
    ("nerdctl*", "nerdctl"),
    ("nodelocaldns", "the node-local DNS cache"),
    ("ovn*", "OVN"),
    ("ovs-system", "Open vSwitch"),
    ("podman*", "Podman"),
    ("romana*", "Romana"),
    ("tunl*", "an IP-in-IP tunnel (Calico)"),
    ("vb-*", "systemd-nspawn"),
    ("vboxnet*", "VirtualBox"),
    ("ve-*", "systemd-nspawn"),
    ("veth*", "a container"),
    ("virbr*", "libvirt"),
    ("vmnet*", "VMware"),
    ("vnet*", "libvirt"),
    ("vxlan-v6.calico", "Calico"),
    ("vxlan.calico", "Calico"),
    ("vxlan_sys*", "Open vSwitch"),
    ("vz-*", "systemd-nspawn"),
    ("weave*", "Weave"),
    ("wg-v6.cali", "Calico"),
    ("wireguard.cali", "Calico"),
];

/// Whose link it is, when it is not the machine's own.
pub fn container_link(link: &Link) -> Option<&'static str> {
    let named = |pattern: &str| match pattern.strip_suffix('*') {
        Some(start) => link.name.starts_with(start),
        None => link.name == pattern,
    };
    if let Some((_, whose)) = NAMES.iter().find(|(pattern, _)| named(pattern)) {
        return Some(whose);
    }
    if docker_network(&link.name) {
        return Some("a Docker network");
    }
    match link.kind.as_str() {
        "vxlan" | "geneve" => Some("an overlay network"),
        // The machine's side of a pod's link on AWS; the machine's own cards are never of this kind there.
        "veth" if link.name.starts_with("eni") => Some("a pod (AWS VPC CNI)"),
        _ => None,
    }
}

/// `br-` and twelve hexadecimal digits of the network's id.
fn docker_network(name: &str) -> bool {
    name.strip_prefix("br-").is_some_and(|id| id.len() == 12 && id.bytes().all(|b| b.is_ascii_hexdigit()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::facts::Facts;

    #[test]
    fn by_name_and_by_kind() {
        let table = [
            ("docker0", "bridge", true),
            ("cni0", "bridge", true),
            ("cbr0", "bridge", true),
            ("flannel.1", "vxlan", true),
            ("cali1234567890a", "veth", true),
            ("veth0a1b2c3", "veth", true),
            ("kube-ipvs0", "dummy", true),
            ("virbr0", "bridge", true),
            ("weave", "bridge", true),
            ("cilium_host", "veth", true),
            ("br-0123456789ab", "bridge", true),
            ("overlay7", "vxlan", true),
            ("eni0123456789a", "veth", true),
            ("eth0", "", false),
            ("br0", "bridge", false),
            ("br-lan", "bridge", false),
            ("bond0.30", "vlan", false),
            ("host0", "veth", false),
            ("eth0", "veth", false),
            ("wg0", "wireguard", false),
            ("enp3s0", "", false),
        ];
        for (name, kind, want) in table {
            let link = Link { name: name.into(), kind: kind.into(), ..Facts::sample().links[1].clone() };
            assert_eq!(container_link(&link).is_some(), want, "{name} of kind {kind:?}");
        }
    }
}
