//! A member of etcd: TLS towards clients and peers alike, and both must show a certificate.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::{Component, Node};
use crate::config::values::{NodeName, UnitName};

/// etcd's registered ports (<https://www.iana.org/assignments/service-names-port-numbers>).
const CLIENTS: u16 = 2379;
const PEERS: u16 = 2380;

pub fn component(node: &Node<'_>) -> Component {
    let unit = UnitName::literal("etcd.service");
    let (etcd, own) = (&node.settings.etcd, node.identity.address);
    let [server, peer] = ["etcd-server", "etcd-peer"].map(|name| node.pair(name));
    let ca = &node.settings.certs.etcd.ca;
    let name = &node.identity.name;
    let of = |(name, address): (&NodeName, &IpAddr)| format!("{name}={}", url(*address, PEERS));
    let mut members: Vec<String> = etcd.members.iter().map(of).collect();
    if members.is_empty() {
        members.push(of((name, &own)));
    }
    let (clients, peers) = (url(own, CLIENTS), url(own, PEERS));
    Component {
        unit_file: include_str!("../../../units/etcd.service"),
        files: Vec::new(),
        args: vec![
            format!("--name={name}"),
            format!("--data-dir={}", etcd.data_dir),
            format!("--listen-client-urls={clients},{}", url(Ipv4Addr::LOCALHOST.into(), CLIENTS)),
            format!("--advertise-client-urls={clients}"),
            format!("--listen-peer-urls={peers}"),
            format!("--initial-advertise-peer-urls={peers}"),
            format!("--initial-cluster={}", members.join(",")),
            format!("--initial-cluster-state={}", if etcd.join { "existing" } else { "new" }),
            format!("--initial-cluster-token={}", node.settings.cluster.name),
            format!("--cert-file={server}"),
            format!("--key-file={server}"),
            "--client-cert-auth=true".to_owned(),
            format!("--trusted-ca-file={ca}"),
            format!("--peer-cert-file={peer}"),
            format!("--peer-key-file={peer}"),
            "--peer-client-cert-auth=true".to_owned(),
            format!("--peer-trusted-ca-file={ca}"),
        ],
        wait: vec![format!("file:{server}"), format!("file:{peer}")],
        vars: vec![("DATA_DIR", etcd.data_dir.to_string())],
        unit,
    }
}

fn url(address: IpAddr, port: u16) -> String {
    format!("https://{}", SocketAddr::new(address, port))
}
