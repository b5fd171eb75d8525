//! A controller with its own etcd whose Secrets are encrypted at rest: what lies in the store, a snapshot of it by the unit
//! that takes them, and the way back: all that was made since is gone, and what was deleted is there again.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::agent::agent;
use crate::bootstrap::{bootstrapped, confined_as_documented, nothing_to_do};
use crate::harness::{CONTROLLER, Cluster, Lab, Node, cluster, cluster::Machine, process::wait_until};

const MACHINES: [Machine; 1] = [Machine { name: "controller-1", role: "controller", address: CONTROLLER }];

/// What no file of the store may hold.
const PLAIN: &str = "swordfish-7d1f";

/// For controllers to do what they do, and for an API server that was just started to serve.
const DONE: Duration = Duration::from_mins(2);

const UNIT: &str = "nodeagent-etcd-snapshot.service";
const TIMER: &str = "nodeagent-etcd-snapshot.timer";
const KEYS: &str = "/etc/kubernetes/pki/encryption-key";

fn secret(name: &str) -> Value {
    json!({ "apiVersion": "v1", "kind": "Secret", "metadata": { "name": name }, "stringData": { "password": PLAIN } })
}

fn config_map(name: &str) -> Value {
    json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": name }, "data": { "a": "b" } })
}

/// What the store itself has under a key.
fn stored(node: &Node<'_>, key: &str) -> Result<Vec<u8>> {
    const PKI: &str = "/etc/kubernetes/pki";
    let (ca, pair) = (format!("--cacert={PKI}/etcd-ca.pem"), format!("{PKI}/etcd-server.pem"));
    let (cert, key_file) = (format!("--cert={pair}"), format!("--key={pair}"));
    let command = ["env", "ETCDCTL_API=3", "/opt/bin/etcdctl", &ca, &cert, &key_file, "get", "--print-value-only", key];
    let output = node.run(&command)?;
    ensure!(output.status.success(), "etcdctl get {key}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(output.stdout)
}

/// The name of the key by which a Secret is encrypted in the store, where nothing of it can be read.
fn encrypted_by(node: &Node<'_>, name: &str) -> Result<String> {
    const BEGIN: &str = "k8s:enc:secretbox:v1:";
    let value = stored(node, &format!("/registry/secrets/default/{name}"))?;
    let text = String::from_utf8_lossy(&value);
    ensure!(!text.contains(PLAIN), "{name} can be read in the store");
    let rest = text.strip_prefix(BEGIN).with_context(|| format!("{name} is not encrypted: {text:.40}"))?;
    Ok(rest.split(':').next().unwrap_or_default().to_owned())
}

/// What the API says of a Secret.
fn reads(cluster: &Cluster<'_>, name: &str) -> Result<()> {
    let secret = cluster.get(&["secret", name])?;
    let password = secret["data"]["password"].as_str().context("a password")?;
    ensure!(openssl::base64::decode_block(password)? == PLAIN.as_bytes(), "it is {password}");
    Ok(())
}

/// Secrets are no text in the store; a new key in front encrypts what is written from then on, and the old one still reads.
fn encrypted_at_rest(cluster: &Cluster<'_>, node: &Node<'_>) -> Result<()> {
    // This could find it if it were there.
    cluster.apply(&[config_map("plain"), secret("first")])?;
    let plain = stored(node, "/registry/configmaps/default/plain")?;
    ensure!(String::from_utf8_lossy(&plain).contains("plain"), "what is not encrypted can be read");
    let old_key = encrypted_by(node, "first")?;

    let keys = node.read(KEYS)?;
    let mut new = [0; 32];
    openssl::rand::rand_bytes(&mut new)?;
    let both = [format!("{}\n", openssl::base64::encode_block(&new)).into_bytes(), keys].concat();
    node.write_as(KEYS, &both, 0o600)?;
    let (code, _, told) = agent(node, &["bootstrap"])?;
    ensure!(code == 0, "{told}");
    wait_until("the API server to read with the old key", DONE, || reads(cluster, "first"))?;
    cluster.apply(&[secret("second")])?;
    let new_key = encrypted_by(node, "second")?;
    ensure!(new_key != old_key && encrypted_by(node, "first")? == old_key, "{old_key}, then {new_key}");
    reads(cluster, "second")
}

/// A snapshot by the confined unit. Returns the file.
fn snapshot(node: &Node<'_>) -> Result<String> {
    node.ok(&["systemctl", "start", UNIT])?;
    let (code, listed, told) = agent(node, &["etcd", "snapshots", "--verify", "--output", "json"])?;
    ensure!(code == 0, "{told}");
    let listed: Value = serde_json::from_str(&listed)?;
    let newest = listed.as_array().and_then(|all| all.last()).context("a snapshot")?;
    ensure!(newest["intact"] == true && newest["age"].as_u64() < Some(60), "{newest}");
    let file = newest["file"].as_str().context("a file")?;
    let modes = node.ok(&["stat", "--format=%a %U", "/var/lib/etcd-snapshots", file])?;
    ensure!(modes == "700 root\n600 root\n", "{modes}");
    let told = node.journal(&["MESSAGE_ID=c2d6261e405743c4aa1aef24c5cf2d94"])?;
    let told = told.last().context("an event")?["MESSAGE"].as_str().unwrap_or_default().to_owned();
    ensure!(told.contains(file) && told.contains("at revision "), "{told}");
    // etcd's own tool agrees.
    node.ok(&["env", "ETCDCTL_API=3", "/opt/bin/etcdctl", "snapshot", "status", file])?;
    Ok(file.to_owned())
}

/// What came after the snapshot goes, what went comes back, and the cluster works.
fn restored(cluster: &Cluster<'_>, node: &Node<'_>, file: &str) -> Result<()> {
    cluster.apply(&[config_map("late")])?;
    cluster.kubectl(&["delete", "configmap", "plain"])?;
    let run = node.property("etcd.service", "InvocationID")?;
    let (code, shown, told) = agent(node, &["etcd", "restore", file])?;
    ensure!(code == 0 && shown.contains("Nothing was done: run it again with --yes"), "{shown}{told}");
    ensure!(node.property("etcd.service", "InvocationID")? == run, "it was only to be shown");

    let (code, shown, told) = agent(node, &["etcd", "restore", file, "--yes"])?;
    ensure!(code == 0 && shown.contains("The member is ready."), "{code}: {shown}{told}");
    ensure!(!told.contains("swordfish") && !node.exists("/var/lib/nodeagent/etcd-restore"), "{told}");
    let kept = node.ok(&["sh", "-c", "echo /var/lib/etcd/member-before-*/snap/db /var/lib/etcd/.nodeagent-*"])?;
    ensure!(kept.matches("/snap/db").count() == 1 && kept.ends_with(".nodeagent-*\n"), "{kept}");
    let modes = node.ok(&["stat", "--format=%a %U", "/var/lib/etcd", "/var/lib/etcd/member"])?;
    ensure!(modes == "700 root\n700 root\n", "{modes}");
    wait_until("what was deleted to be back", DONE, || cluster.get(&["configmap", "plain"]).map(drop))?;
    let late = cluster.get(&["configmap", "late"]).err().context("what was made since is there")?;
    ensure!(format!("{late:#}").contains("NotFound"), "{late:#}");
    reads(cluster, "first")?;
    reads(cluster, "second")?;

    // The node is Ready by what its kubelet says now, and those who watch hear of what is new.
    cluster.wait_for_heartbeat("controller-1")?;
    cluster.wait_until_ready(&["controller-1"])?;
    cluster.kubectl(&["create", "namespace", "after"])?;
    wait_until("the controller manager to see a namespace", DONE, || {
        cluster.get(&["serviceaccount", "--namespace=after", "default"]).map(drop)
    })?;
    // And it stays: the marks are such that later starts need nobody.
    node.ok(&["systemctl", "restart", "etcd.service"])?;
    wait_until("the namespace to be there still", DONE, || cluster.get(&["namespace", "after"]).map(drop))
}

/// The timer is the setting's.
fn switched_off_and_on(node: &Node<'_>) -> Result<()> {
    const DROP_IN: &str = "/etc/nodeagent/node.d/20-snapshots.yaml";
    let states = |active: &str, enabled: &str| -> Result<()> {
        let is = (node.property(TIMER, "ActiveState")?, node.property(TIMER, "UnitFileState")?);
        ensure!(is == (active.to_owned(), enabled.to_owned()), "{is:?}");
        Ok(())
    };
    let bootstrap = |yaml: &str| -> Result<()> {
        node.write(DROP_IN, yaml.as_bytes())?;
        let (code, _, told) = agent(node, &["bootstrap"])?;
        ensure!(code == 0, "{told}");
        nothing_to_do(node)
    };
    states("active", "enabled")?;
    let calendar = node.property(TIMER, "TimersCalendar")?;
    ensure!(
        calendar.contains("OnCalendar=*-*-* 00/6:00:00") && calendar.matches("OnCalendar").count() == 1,
        "{calendar}"
    );
    bootstrap("etcd: { snapshots: { enabled: false } }\n")?;
    states("inactive", "")?;
    ensure!(!node.exists(&format!("/etc/systemd/system/{UNIT}")), "nothing starts it any more");
    bootstrap("etcd: { snapshots: { every: 30m, keep: 2, dir: /srv/backup/etcd } }\n")?;
    states("active", "enabled")?;
    ensure!(node.property(TIMER, "TimersCalendar")?.contains("OnCalendar=*-*-* *:00/30:00"), "the new time holds");
    for _ in 0..3 {
        node.ok(&["systemctl", "start", UNIT])?;
        // Their names have whole seconds.
        node.ok(&["sleep", "1"])?;
    }
    let kept = node.ok(&["sh", "-c", "ls /srv/backup/etcd | wc -l; stat --format=%a /srv/backup/etcd"])?;
    ensure!(kept == "2\n700\n", "{kept}");
    Ok(())
}

#[test]
fn a_snapshot_is_a_way_back_and_secrets_are_no_text_in_it() -> Result<()> {
    Lab::run("snapshots", |lab| {
        let yaml = cluster::yaml(lab, &MACHINES)?.replace("\nnodes:\n", "\npki: { encryptSecrets: true }\nnodes:\n");
        let mut cluster = Cluster::new(lab, &yaml, &MACHINES)?;
        cluster.power_on(&["controller-1"])?;
        cluster.wait_until_ready(&["controller-1"])?;
        let node = cluster.node("controller-1")?;
        bootstrapped(node)?;
        nothing_to_do(node)?;
        confined_as_documented(node, UNIT)?;
        encrypted_at_rest(&cluster, node)?;
        let file = snapshot(node)?;
        ensure!(node.files_containing(&[PLAIN.as_bytes().to_vec()])?.is_empty(), "the plain text is on the disk");
        restored(&cluster, node, &file)?;
        switched_off_and_on(node)
    })
}
