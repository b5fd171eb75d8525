//! A member of etcd: TLS towards clients and peers alike, and both must show a certificate.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::{Component, Node};
use crate::config::settings::Settings;
use crate::config::values::UnitName;
use crate::identity::Identity;

/// etcd's registered ports (<https://www.iana.org/assignments/service-names-port-numbers>).
pub const CLIENTS: u16 = 2379;
const PEERS: u16 = 2380;

pub fn component(node: &Node<'_>) -> Component {
    let unit = UnitName::literal("etcd.service");
    let (etcd, own) = (&node.settings.etcd, node.identity.address);
    let [server, peer] = ["etcd-server", "etcd-peer"].map(|name| node.pair(name));
    let ca = &node.settings.certs.etcd.ca;
    let name = &node.identity.name;
    let (members, peers) = peers(node.settings, node.identity);
    let cluster = if let Some(domain) = &etcd.discovery {
        format!("--discovery-srv={domain}")
    } else {
        let members: Vec<String> = members.iter().map(|(name, url)| format!("{name}={url}")).collect();
        format!("--initial-cluster={}", members.join(","))
    };
    let clients = url(own, CLIENTS);
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
            cluster,
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

/// Where members reach each other: every member's name and URL, as far as they are listed, and this one's URL.
pub fn peers(settings: &Settings, identity: &Identity) -> (Vec<(String, String)>, String) {
    let own = url(identity.address, PEERS);
    let of = |address: &IpAddr| url(*address, PEERS);
    let mut all: Vec<(String, String)> =
        settings.etcd.members.iter().map(|(name, address)| (name.to_string(), of(address))).collect();
    if all.is_empty() {
        all.push((identity.name.to_string(), own.clone()));
    }
    (all, own)
}

fn url(address: IpAddr, port: u16) -> String {
    format!("https://{}", SocketAddr::new(address, port))
}
