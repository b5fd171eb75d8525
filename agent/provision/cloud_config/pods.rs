//! Which machine's pods get which addresses.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::config::cluster::Cluster;
use crate::config::kept::Allocations;
use crate::config::values::{Cidr, NodeName};
use crate::engine::fault::{Class, Explain};

/// How many bits the addresses of one machine's pods share: kube-controller-manager's `--node-cidr-mask-size-ipv4` and
/// `-ipv6`.
const PREFIX_V4: u8 = 24;
const PREFIX_V6: u8 = 64;

/// A machine has no pod network.
#[derive(Debug, thiserror::Error)]
pub enum NoPodNetwork {
    /// There are not enough addresses.
    #[error("give {node} a pod network: no /{prefix} of podCIDR {of} is left")]
    NoneLeft {
        /// The machine.
        node: NodeName,
        /// How many bits the addresses of one network share.
        prefix: u8,
        /// What all are parts of.
        of: Cidr,
    },
    /// The pods of all machines had other addresses.
    #[error("give {node} a pod network: allocations.yaml has {cidr} for it, which is no part of podCIDR {of}")]
    Elsewhere {
        /// The machine.
        node: NodeName,
        /// What it was given.
        cidr: Cidr,
        /// What all are to be parts of.
        of: Cidr,
    },
}

impl Explain for NoPodNetwork {
    fn class(&self) -> Class {
        Class::Usage
    }

    fn advice(&self) -> Option<String> {
        Some(
            match self {
                Self::NoneLeft { .. } => {
                    "take machines that are gone for good out of allocations.yaml, or give each machine a smaller podCIDR of its \
                     own; a larger podCIDR is for a new cluster"
                }
                Self::Elsewhere { .. } => {
                    "the podCIDR of a cluster does not change: write the old one again; if no machine has booted yet, remove \
                     allocations.yaml"
                }
            }
            .to_owned(),
        )
    }
}

/// The pod network of each machine that runs pods: what `cluster.yaml` says, else what it got before, else the next that
/// is free, in the order of names. What was given stays given: a machine that is added changes no other, and one that is
/// taken away leaves its network unused until its line in `allocations.yaml` goes, too.
pub(super) fn allocate(cluster: &Cluster, kept: &mut Allocations) -> Result<BTreeMap<NodeName, Cidr>, NoPodNetwork> {
    let mut pods = BTreeMap::new();
    if !cluster.bridged {
        return Ok(pods);
    }
    let machines = || cluster.machines.iter().filter(|(_, machine)| machine.role().runs_pods());
    for (name, machine) in machines() {
        if let Some(cidr) = machine.pod_cidr {
            kept.pod_cidrs.insert(name.clone(), cidr);
        }
    }
    for (name, machine) in machines() {
        let cidr = match kept.pod_cidrs.get(name) {
            Some(cidr) if machine.pod_cidr.is_none() && !cluster.pod_cidr.contains(cidr.nth(0)) => {
                return Err(NoPodNetwork::Elsewhere { node: name.clone(), cidr: *cidr, of: cluster.pod_cidr });
            }
            Some(cidr) => *cidr,
            None => next(name, &cluster.pod_cidr, kept)?,
        };
        kept.pod_cidrs.insert(name.clone(), cidr);
        pods.insert(name.clone(), cidr);
    }
    Ok(pods)
}

/// The first part of `of` that shares no address with what is given already.
fn next(node: &NodeName, of: &Cidr, kept: &Allocations) -> Result<Cidr, NoPodNetwork> {
    let prefix = if of.nth(0).is_ipv4() { PREFIX_V4 } else { PREFIX_V6 };
    let is_free = |cidr: &Cidr| {
        let overlaps = |given: &Cidr| given.contains(cidr.nth(0)) || cidr.contains(given.nth(0));
        !kept.pod_cidrs.values().any(overlaps)
    };
    // One more than there are machines are enough to find a free one, unless larger networks were given by hand.
    parts(of, prefix).find(is_free).ok_or_else(|| NoPodNetwork::NoneLeft { node: node.clone(), prefix, of: *of })
}

/// The parts of a network that have so long a prefix, in order.
fn parts(of: &Cidr, prefix: u8) -> impl Iterator<Item = Cidr> {
    let bits = prefix.checked_sub(of.prefix());
    let count = bits.map_or(0, |bits| 1_u64.checked_shl(bits.into()).unwrap_or(u64::MAX));
    let first = of.nth(0);
    (0..count).filter_map(move |number| {
        let address: IpAddr = match first {
            IpAddr::V4(first) => IpAddr::V4((u32::from(first) + (u32::try_from(number).ok()? << (32 - prefix))).into()),
            IpAddr::V6(first) => IpAddr::V6((u128::from(first) + (u128::from(number) << (128 - prefix))).into()),
        };
        format!("{address}/{prefix}").parse().ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Source;

    fn cluster(text: &str) -> Cluster {
        let sample = include_str!("../../../cloud-config/cluster.yaml");
        let (before, _) = sample.split_once("nodes:").expect("nodes");
        let text = format!("{before}{text}").into_bytes();
        Cluster::load(Source { name: "c".to_owned(), text }).unwrap_or_else(|error| panic!("{error}"))
    }

    fn shown(pods: &BTreeMap<NodeName, Cidr>) -> String {
        pods.iter().map(|(name, cidr)| format!("{name}={cidr}")).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn who_has_one_keeps_it_whoever_comes() {
        let mut kept = Allocations::default();
        let two = cluster("nodes: {b: {address: 10.0.0.2}, c: {address: 10.0.0.3}}");
        assert_eq!(shown(&allocate(&two, &mut kept).expect("room")), "b=10.244.0.0/24 c=10.244.1.0/24");
        let more = cluster(
            "nodes: {a: {address: 10.0.0.1}, c: {address: 10.0.0.3}, d: {address: 10.0.0.4, podCIDR: 10.244.2.0/23},\n  e: {role: etcd, address: 10.0.0.5}}",
        );
        // b's is not given away, d's is its own, and a member of etcd runs no pods.
        assert_eq!(
            shown(&allocate(&more, &mut kept).expect("room")),
            "a=10.244.4.0/24 c=10.244.1.0/24 d=10.244.2.0/23"
        );
        let again = shown(&allocate(&more, &mut kept).expect("room"));
        assert_eq!(again, "a=10.244.4.0/24 c=10.244.1.0/24 d=10.244.2.0/23");
    }

    #[test]
    fn there_may_be_none_left_or_none_at_all() {
        let of = |pods: &str| format!("podCIDR: {pods}\nnodes: {{a: {{address: 10.0.0.1}}, b: {{address: 10.0.0.2}}}}");
        let sample = |text: &str| {
            let base = include_str!("../../../cloud-config/cluster.yaml").replace("podCIDR: 10.244.0.0/16\n", "");
            let (before, _) = base.split_once("nodes:").expect("nodes");
            let text = format!("{before}{text}").into_bytes();
            Cluster::load(Source { name: "c".to_owned(), text }).unwrap_or_else(|error| panic!("{error}"))
        };
        for (pods, wanted) in [("10.0.0.0/24", "give b a pod network"), ("10.0.0.0/25", "give a a pod network")] {
            let error = allocate(&sample(&of(pods)), &mut Allocations::default()).expect_err(pods);
            assert!(error.to_string().contains(wanted), "{error}");
        }
        let mut kept = Allocations::default();
        allocate(&sample(&of("10.0.0.0/16")), &mut kept).expect("room");
        let error = allocate(&sample(&of("10.1.0.0/16")), &mut kept).expect_err("others");
        let wanted =
            "give a a pod network: allocations.yaml has 10.0.0.0/24 for it, which is no part of podCIDR 10.1.0.0/16";
        assert_eq!(error.to_string(), wanted);
        let six = allocate(&sample(&of("fd00::/48")), &mut Allocations::default()).expect("room");
        assert_eq!(shown(&six), "a=fd00::/64 b=fd00:0:0:1::/64");
        let none = format!("network: none\n{}", of("10.0.0.0/24"));
        assert!(allocate(&sample(&none), &mut Allocations::default()).expect("none is needed").is_empty());
    }
}
