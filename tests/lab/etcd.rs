//! A store of two machines, by what `nodeagent cloud-config` makes of it: real etcd, whose members and clients must show a
//! certificate of its own CA, which never begins anew where its data is gone, and which goes back to a snapshot.

use std::{
    fs,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use openssl::base64::decode_block;
use serde_json::Value;

use crate::agent::agent;
use crate::bootstrap::{bootstrapped, nothing_to_do};
use crate::harness::{
    CONTROLLER, Cluster, Lab, Node,
    cluster::{self, Machine},
};

pub const FIRST: &str = "10.10.30.31";
pub const SECOND: &str = "10.10.30.32";

pub const MACHINES: [Machine; 2] = [
    Machine { name: "etcd-1", role: "etcd", address: FIRST },
    Machine { name: "etcd-2", role: "etcd", address: SECOND },
];

/// For both members to have found each other.
pub const HEALTHY: Duration = Duration::from_mins(3);

const PKI: &str = "/etc/kubernetes/pki";

/// The arguments of a pair in `pki.dir`, or of a file elsewhere.
pub fn pair(file: &str) -> [String; 2] {
    let path = if file.starts_with('/') { file.to_owned() } else { format!("{PKI}/{file}") };
    [format!("--cert={path}"), format!("--key={path}")]
}

/// What the agent said when a command of it failed.
pub fn failures(node: &Node<'_>) -> Result<String> {
    let told = node.journal(&["MESSAGE_ID=ee5c77b004da4fbf82ac38dc00421a35"])?;
    Ok(told.iter().filter_map(|entry| entry["MESSAGE"].as_str()).collect::<Vec<_>>().join("\n"))
}

/// What members answer while they choose their leader.
const CHANGES: [&str; 3] = ["etcdserver: leader changed", "etcdserver: no leader", "etcdserver: request timed out"];

/// Runs etcdctl against both members, as whoever has this pair.
pub fn etcdctl(node: &Node<'_>, pair: &[String], args: &[&str]) -> Result<String> {
    ask(node, &format!("https://{FIRST}:2379,https://{SECOND}:2379"), pair, args)
}

/// Runs etcdctl against the machine's own member.
pub fn ask_own(node: &Node<'_>, args: &[&str]) -> Result<String> {
    ask(node, "https://127.0.0.1:2379", &pair("etcd-server.pem"), args)
}

fn ask(node: &Node<'_>, endpoints: &str, pair: &[String], args: &[&str]) -> Result<String> {
    let endpoints = format!("--endpoints={endpoints}");
    let ca = format!("--cacert={PKI}/etcd-ca.pem");
    let login: Vec<&str> = pair.iter().map(String::as_str).collect();
    let limits = ["--dial-timeout=3s", "--command-timeout=15s"];
    let command = [&["env", "ETCDCTL_API=3", "/opt/bin/etcdctl", &endpoints, &ca], &limits[..], &login, args].concat();
    let begun = Instant::now();
    loop {
        let said = node.ok(&command);
        // A disk that is slow for a second costs a small cluster its leader, and every client asks again.
        let why = said.as_ref().map_or_else(|error| format!("{error:#}"), |_| String::new());
        if !CHANGES.iter().any(|change| why.contains(change)) || begun.elapsed() > HEALTHY {
            return said;
        }
    }
}

/// What curl says of a peer's port.
fn peer(node: &Node<'_>, address: &str, pair: Option<&str>) -> Result<String> {
    let url = format!("https://{address}:2380/members");
    // What a member says on this port is HTTP/1; over HTTP/2 it breaks off.
    let mut command = vec!["curl", "--http1.1", "--silent", "--show-error", "--fail", "--max-time", "30", "--cacert"];
    let ca = format!("{PKI}/etcd-ca.pem");
    command.push(&ca);
    let file = pair.map(|pair| format!("{PKI}/{pair}"));
    if let Some(file) = &file {
        command.extend(["--cert", file, "--key", file]);
    }
    command.push(&url);
    node.ok(&command)
}

/// An administrator of the whole cluster, by the cluster's CA, whom the store does not know.
fn an_administrator_of_kubernetes(lab: &Lab, node: &Node<'_>) -> Result<[String; 2]> {
    let config = fs::read(lab.directory().join("operator/inventory/admin.conf")).context("read admin.conf")?;
    let config: Value = serde_json::from_slice(&config).context("admin.conf is JSON")?;
    let user = &config["users"][0]["user"];
    let part = |name: &str| decode_block(user[name].as_str().unwrap_or_default()).context("base64");
    let both = [part("client-certificate-data")?, part("client-key-data")?].concat();
    ensure!(both.len() > 500, "there is no pair in {user}");
    node.write_as("/root/administrator.pem", &both, 0o600)?;
    Ok(pair("/root/administrator.pem"))
}

fn serial(node: &Node<'_>) -> Result<String> {
    let server = format!("{PKI}/etcd-server.pem");
    let connect = format!("{FIRST}:2379");
    let script = ["openssl", "s_client", "-connect", &connect, "-cert", &server, "-key", &server];
    let shown = node.run(&[&["timeout", "30"], &script[..]].concat())?;
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    let from = shown.find("-----BEGIN CERTIFICATE-----").with_context(|| format!("no certificate: {shown}"))?;
    node.write("/root/served.pem", &shown.as_bytes()[from..])?;
    node.ok(&["openssl", "x509", "-in", "/root/served.pem", "-noout", "-serial"])
}

/// A snapshot of one member, restored on both: what came since is gone, and they find each other, although the first is
/// started long before there is a second one of its kind.
fn restored_on_both(first: &Node<'_>, second: &Node<'_>) -> Result<()> {
    const COPY: &str = "/root/snapshot.db";
    let server = pair("etcd-server.pem");
    let (code, file, told) = agent(first, &["etcd", "snapshot"])?;
    ensure!(code == 0, "{told}");
    second.write_as(COPY, &first.read(file.trim())?, 0o600)?;
    etcdctl(first, &server, &["put", "greeting", "good bye"])?;
    etcdctl(first, &server, &["put", "late", "yes"])?;
    let before = cluster_id(first)?;
    for node in [first, second] {
        node.ok(&["systemctl", "stop", "etcd.service"])?;
    }
    let (code, shown, told) = agent(first, &["etcd", "restore", file.trim(), "--yes"])?;
    ensure!(code == 0 && shown.contains("The member waits for the others"), "{code}: {shown}{told}");
    ensure!(first.property("etcd.service", "ActiveState")? == "activating", "alone it is no cluster");
    let kept = first.ok(&["sh", "-c", "ls -d /var/lib/etcd/member-before-*"])?;
    ensure!(kept.lines().count() == 1, "{kept}");
    let (code, shown, told) = agent(second, &["etcd", "restore", COPY, "--yes"])?;
    // Where both need longer than the command waits, it says so, and is as good.
    let ended = shown.contains("The member is ready.") || shown.contains("The member waits for the others");
    ensure!(code == 0 && ended, "{code}: {shown}{told}");
    first.wait_until("both members to be healthy", HEALTHY, |node| etcdctl(node, &server, &["endpoint", "health"]))?;
    for node in [first, second] {
        ensure!(
            etcdctl(node, &server, &["get", "--print-value-only", "greeting"])?.trim() == "hello",
            "it is not back"
        );
        ensure!(etcdctl(node, &server, &["get", "late"])?.trim().is_empty(), "what came since is there");
    }
    ensure!(cluster_id(first)? == cluster_id(second)? && cluster_id(first)? != before, "it is the old cluster");
    // The first did not see itself ready: whoever repeats the command there loses nothing of what came since.
    etcdctl(second, &server, &["put", "since", "kept"])?;
    let (code, shown, told) = agent(first, &["etcd", "restore", file.trim(), "--yes", "--output=json"])?;
    let said: Value = serde_json::from_str(&shown).with_context(|| format!("{shown}{told}"))?;
    ensure!(code == 0 && said["placed"] == true && said["result"]["ready"] == true, "{code}: {shown}{told}");
    ensure!(
        etcdctl(first, &server, &["get", "--print-value-only", "since"])?.trim() == "kept",
        "it was restored again"
    );
    ensure!(!first.exists("/var/lib/nodeagent/etcd-restore"), "it is over");
    // They were members before, and are: the guard lets them start again.
    second.ok(&["systemctl", "restart", "etcd.service"])?;
    second.wait_until("the member to come back", HEALTHY, |node| {
        etcdctl(node, &server, &["endpoint", "health"])?;
        etcdctl(node, &server, &["put", "after", "yes"])
    })?;
    Ok(())
}

/// What a member takes its cluster for: it says so in each answer to a peer.
pub fn cluster_id(node: &Node<'_>) -> Result<String> {
    let status: Value = serde_json::from_str(&ask_own(node, &["endpoint", "status", "--write-out=json"])?)?;
    Ok(status[0]["Status"]["header"]["cluster_id"].to_string())
}

/// The `cluster.yaml` of these members, and of a controller that is listed and never booted.
pub fn yaml(lab: &Lab, members: &[Machine]) -> Result<String> {
    let controller = [Machine { name: "controller-1", role: "controller", address: CONTROLLER }];
    cluster::yaml(lab, &[members, &controller].concat())
}

/// Powers both on, until they are a store and have nothing more to do.
pub fn power_on<'c, 'lab>(cluster: &'c mut Cluster<'lab>) -> Result<[&'c Node<'lab>; 2]> {
    cluster.power_on(&["etcd-1", "etcd-2"])?;
    let both = [cluster.node("etcd-1")?, cluster.node("etcd-2")?];
    let health = ["endpoint", "health"];
    let server = pair("etcd-server.pem");
    both[0].wait_until("both members to be healthy", HEALTHY, |node| etcdctl(node, &server, &health))?;
    for node in both {
        bootstrapped(node)?;
        nothing_to_do(node)?;
    }
    Ok(both)
}

#[test]
fn members_and_clients_show_certificates_of_the_stores_own_ca() -> Result<()> {
    Lab::run("etcd", |lab| {
        let mut cluster = Cluster::new(lab, &yaml(lab, &MACHINES)?, &MACHINES)?;
        let [first, second] = power_on(&mut cluster)?;
        let server = pair("etcd-server.pem");
        for node in [first, second] {
            ensure!(!node.exists("/opt/bin/kubelet"), "a store runs no pods");
        }

        // What one has, the other has: they talk, and only members do.
        etcdctl(first, &server, &["put", "greeting", "hello"])?;
        ensure!(etcdctl(second, &server, &["get", "--print-value-only", "greeting"])?.trim() == "hello");
        ensure!(peer(first, SECOND, Some("etcd-peer.pem"))?.contains(SECOND));
        let nobody = peer(first, SECOND, None).err().context("a peer without a certificate was let in")?;
        ensure!(format!("{nobody:#}").contains("alert"), "{nobody:#}");

        // Clients: without a certificate, and with one that Kubernetes would give everything to.
        ensure!(etcdctl(first, &[], &["get", "greeting"]).is_err(), "a client without a certificate was let in");
        let administrator = an_administrator_of_kubernetes(lab, first)?;
        ensure!(etcdctl(first, &administrator, &["get", "greeting"]).is_err(), "another CA's client was let in");
        ensure!(etcdctl(first, &server, &["get", "greeting"]).is_ok(), "the store is still there");

        // A new pair is served without a restart.
        let (before, run) = (serial(first)?, first.property("etcd.service", "InvocationID")?);
        first.ok(&["rm", &format!("{PKI}/etcd-server.pem")])?;
        let (code, _, told) = agent(first, &["certs"])?;
        ensure!(code == 0, "{told}");
        ensure!(serial(first)? != before, "the old certificate is still served");
        ensure!(first.property("etcd.service", "InvocationID")? == run, "etcd was restarted");

        // A former member without its data does not begin a new, empty cluster.
        second.ok(&["systemctl", "stop", "etcd.service"])?;
        second.ok(&["mv", "/var/lib/etcd/member", "/var/lib/member-away"])?;
        ensure!(second.run(&["systemctl", "start", "etcd.service"])?.status.code() != Some(0), "it was started");
        let said = failures(second)?;
        ensure!(
            said.contains("it holds no data of etcd, but a member of the cluster was ready on this node"),
            "{said}"
        );
        second.ok(&["systemctl", "stop", "etcd.service"])?;
        second.ok(&["mv", "/var/lib/member-away", "/var/lib/etcd/member"])?;
        second.ok(&["systemctl", "start", "etcd.service"])?;
        second
            .wait_until("the member to come back", HEALTHY, |node| etcdctl(node, &server, &["endpoint", "health"]))?;
        restored_on_both(first, second)
    })
}
