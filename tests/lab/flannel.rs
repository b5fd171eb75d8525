//! Flannel: no pod before a node has its subnet, from the cluster's API or from an etcd. flanneld and its CNI plugin are
//! stand-ins (`standin/flannel.rs`): no package has the real ones.

use std::{fs, time::Duration};

use anyhow::{Context, Result, ensure};
use flate2::{Compression, write::GzEncoder};
use nodeagent::config::catalogue;

use crate::agent::agent;
use crate::bootstrap::{bootstrapped, confined_as_documented, nothing_to_do};
use crate::harness::{Ca, Cluster, Lab, Node, SERVICES, THREE, WORKER, cluster, digest, process::wait_until, release};

/// What the stand-ins are offered as.
const VERSIONS: [(&str, &str); 2] = [("flannel", "v0.26.7"), ("flannel-cni", "v1.6.2-flannel1")];

const ALL: [&str; 3] = ["controller-1", "worker-1", "worker-2"];
const WORKERS: [&str; 2] = ["worker-1", "worker-2"];

/// For units to come up, or not to.
const SOON: Duration = Duration::from_mins(3);

const SUBNET_FILE: &str = "/run/flannel/subnet.env";
const CONFLIST: &str = "/etc/cni/net.d/10-flannel.conflist";

/// Has the mirror offer the stand-ins as flannel's maintainers pack the real ones. Returns the artifacts' settings.
fn offer(lab: &Lab) -> Result<String> {
    let program = fs::read(Lab::stand_in()?)?;
    let mut artifacts = Vec::new();
    for (name, version) in VERSIONS {
        let known = catalogue::known(name).context("the catalogue knows it")?;
        let url = catalogue::fill(known.url, version).replace("{arch}", "amd64");
        let mut archive = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
        for (_, inside) in known.members {
            let mut header = tar::Header::new_gnu();
            header.set_size(program.len().try_into()?);
            header.set_mode(0o755);
            archive.append_data(&mut header, inside.replace("{arch}", "amd64"), program.as_slice())?;
        }
        let bytes = archive.into_inner()?.finish()?;
        let to = lab.docroot().join("release").join(catalogue::mirror_path(name, version, &url));
        fs::create_dir_all(to.parent().context("a directory")?)?;
        fs::write(&to, &bytes).with_context(|| format!("write {}", to.display()))?;
        artifacts.push(format!("{name}: {{ version: {version}, sha256: {} }}", digest(&bytes)));
    }
    Ok(artifacts.join(", "))
}

/// Debian's containerd looks for plugins where Debian puts its own.
fn has_plugins_where_debian_looks(node: &Node<'_>) -> Result<()> {
    node.write_as("/usr/lib/cni/flannel", b"#!/bin/sh\nexec /opt/cni/bin/flannel \"$@\"\n", 0o755)
}

/// The subnet that this node has: `10.244.1` of 10.244.1.0/24.
fn subnet(node: &Node<'_>) -> Result<String> {
    let file = String::from_utf8(node.read(SUBNET_FILE)?)?;
    let line = file.lines().find_map(|line| line.strip_prefix("FLANNEL_SUBNET=")).context("a subnet")?;
    Ok(line.strip_suffix(".1/24").with_context(|| format!("a /24: {line}"))?.to_owned())
}

/// Each worker's pod has an address of the subnet that flannel has for it.
fn pods_have_addresses_of_their_nodes(cluster: &Cluster<'_>) -> Result<()> {
    for name in WORKERS {
        let (subnet, address) = (subnet(cluster.node(name)?)?, cluster.pod_address(&cluster::greeter(name))?);
        let cidr = cluster.get(&["node", name])?["spec"]["podCIDR"].clone();
        ensure!(cidr == format!("{subnet}.0/24"), "{name} has {subnet}, its Node {cidr}");
        ensure!(address.starts_with(&format!("{subnet}.")), "{name} has {subnet}, its pod {address}");
    }
    Ok(())
}

/// flanneld asks as its node: what it needs of others it may read, and it can write to none of them.
fn a_node_speaks_for_itself_alone(cluster: &Cluster<'_>) -> Result<()> {
    let config = "--kubeconfig=/etc/kubernetes/flannel.conf";
    let annotate = |node: &str| {
        let command = ["/opt/bin/kubectl", config, "annotate", "node", node, "--overwrite", "example.com/by=worker-1"];
        cluster.node("worker-1")?.run(&command)
    };
    ensure!(annotate("worker-1")?.status.success(), "a node cannot write to its own Node");
    let other = annotate("worker-2")?;
    let said = String::from_utf8_lossy(&other.stderr).into_owned();
    ensure!(!other.status.success() && said.contains("is not allowed to modify node"), "{said}");
    // Before 1.32 the Node authorizer lets nodes read all Nodes; it knows none of this name, so that the role decides.
    let may = |group: &str| {
        let as_group = format!("--as-group={group}");
        cluster.kubectl(&["auth", "can-i", "watch", "nodes", "--as=somebody", &as_group])
    };
    ensure!(may("system:nodes")?.trim() == "yes");
    ensure!(may("system:unknown").is_err(), "everybody may read Nodes");
    Ok(())
}

/// A node whose flannel has no subnet in this boot is not ready, whatever it had in the one before.
fn is_not_ready_before_it_has_a_subnet(cluster: &mut Cluster<'_>, name: &'static str) -> Result<()> {
    const HOLD: &str = "/etc/systemd/system/flanneld.service.d/00-hold.conf";
    let hold = "[Service]\nExecStartPre=/opt/bin/nodeagent wait --timeout 5m file:/etc/go\n";
    cluster.node(name)?.write(HOLD, hold.as_bytes())?;
    cluster.node(name)?.ok(&["sync"])?;
    cluster.node_mut(name)?.kill()?;
    cluster.power_on(&[name])?;
    wait_until("the node to say why it is not ready", SOON, || {
        let node = cluster.get(&["node", name])?;
        let boot = cluster.node(name)?.read("/proc/sys/kernel/random/boot_id")?;
        ensure!(node["status"]["nodeInfo"]["bootID"] == *String::from_utf8_lossy(&boot).trim(), "an earlier boot");
        let conditions = node["status"]["conditions"].as_array().context("conditions")?;
        let ready = conditions.iter().find(|condition| condition["type"] == "Ready").context("Ready")?;
        ensure!(ready["status"] == "False" && ready["message"].to_string().contains("network"), "{ready}");
        Ok(())
    })?;
    let node = cluster.node(name)?;
    ensure!(!node.exists(CONFLIST) && !node.exists(SUBNET_FILE), "it has a network of the boot before");
    node.write("/etc/go", b"")?;
    cluster.wait_until_ready(&[name])?;
    ensure!(node_has_network(cluster.node(name)?), "it has none");
    cluster.node(name)?.ok(&["rm", HOLD])?;
    cluster.node(name)?.ok(&["systemctl", "daemon-reload"])?;
    Ok(())
}

fn node_has_network(node: &Node<'_>) -> bool {
    node.exists(CONFLIST) && node.exists(SUBNET_FILE)
}

/// With another network nothing of flannel stays, and it comes back with its own.
fn goes_with_its_network(node: &Node<'_>) -> Result<()> {
    const DROP_IN: &str = "/etc/nodeagent/node.d/20-network.yaml";
    let bootstrap = |expected: bool| -> Result<()> {
        let (code, shown, told) = agent(node, &["bootstrap"])?;
        ensure!(code == 0, "it ended with {code}: {shown}\n{told}");
        nothing_to_do(node)?;
        for unit in ["flanneld.service", "nodeagent-flannel.service"] {
            let state = node.property(unit, "ActiveState")?;
            ensure!((state == "active") == expected, "{unit} is {state}");
            ensure!(node.exists(&format!("/etc/systemd/system/{unit}")) == expected, "{unit}'s file");
            ensure!(node.exists(&format!("/etc/systemd/system/multi-user.target.wants/{unit}")) == expected, "{unit}");
        }
        ensure!(node.exists("/etc/tmpfiles.d/nodeagent-flannel.conf") == expected);
        node.wait_until("the CNI configuration to be as the network", SOON, |node| {
            ensure!(node.exists(CONFLIST) == expected, "it is not");
            Ok(())
        })
    };
    node.write(DROP_IN, b"cluster: { network: none, flannel: null }\n")?;
    bootstrap(false)?;
    node.ok(&["rm", DROP_IN])?;
    bootstrap(true)
}

#[test]
fn the_clusters_api_gives_subnets_and_nodes_are_ready_when_they_have_them() -> Result<()> {
    Lab::run("flannel", |lab| {
        let artifacts = offer(lab)?;
        let yaml = cluster::yaml(lab, &THREE)?.replace("artifacts: { ", &format!("artifacts: {{ {artifacts}, "));
        let yaml = format!("{yaml}network: flannel\nflannel: {{ backend: host-gw }}\n");
        let mut cluster = Cluster::new(lab, &yaml, &THREE)?;
        for name in ALL {
            has_plugins_where_debian_looks(cluster.node(name)?)?;
        }
        cluster.power_on(&ALL)?;
        cluster.wait_until_ready(&ALL)?;
        for name in ALL {
            let node = cluster.node(name)?;
            bootstrapped(node)?;
            nothing_to_do(node)?;
            ensure!(node_has_network(node), "{name} is ready without a network");
        }
        for unit in ["flanneld.service", "nodeagent-flannel.service"] {
            confined_as_documented(cluster.node("worker-1")?, unit)?;
        }
        cluster.pods_reach_each_other(&WORKERS)?;
        pods_have_addresses_of_their_nodes(&cluster)?;
        a_node_speaks_for_itself_alone(&cluster)?;
        is_not_ready_before_it_has_a_subnet(&mut cluster, "worker-2")?;
        goes_with_its_network(cluster.node("worker-1")?)
    })
}

/// What a unit is, and what it says that it waits for.
fn waits_for_the_subnet(node: &Node<'_>, unit: &str) -> Result<()> {
    node.wait_until(&format!("{unit} to wait"), SOON, |node| {
        let state = node.property(unit, "ActiveState")?;
        let says = node.property(unit, "StatusText")?;
        ensure!(state == "activating" && says.contains(SUBNET_FILE), "it is {state} and says: {says}");
        Ok(())
    })
}

fn is_active(node: &Node<'_>, unit: &str) -> Result<()> {
    node.wait_until(&format!("{unit} to run"), SOON, |node| {
        let state = node.property(unit, "ActiveState")?;
        ensure!(state == "active", "it is {state}");
        Ok(())
    })
}

#[test]
fn an_etcd_of_flannels_own_gives_subnets_and_everything_waits_for_them() -> Result<()> {
    Lab::run("flannel-etcd", |lab| {
        let _api_server = lab.start_stand_in_api_server()?;
        let directory = lab.directory().join("flannel");
        fs::create_dir_all(&directory)?;
        let ca = Ca::new()?;
        ca.write(&directory)?;
        ca.issue_server(&directory, "etcd", SERVICES.parse()?)?;
        ca.issue_administrator(&directory, "flannel")?;
        let file = |name: &str| directory.join(name).display().to_string();
        let program = |name: &str| Ok::<_, anyhow::Error>(release::packaged(&crate::harness::cache()?)?.join(name));
        let url = format!("https://{SERVICES}:2379");
        let args = [
            program("etcd")?.display().to_string(),
            format!("--data-dir={}", file("data")),
            format!("--listen-client-urls={url}"),
            format!("--advertise-client-urls={url}"),
            "--listen-peer-urls=http://127.0.0.1:2380".to_owned(),
            format!("--cert-file={}", file("etcd.pem")),
            format!("--key-file={}", file("etcd-key.pem")),
            "--client-cert-auth=true".to_owned(),
            format!("--trusted-ca-file={}", file("ca.pem")),
        ];
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let _etcd = lab.start_in_network("flannels-etcd", &args, &directory.join("etcd.log"))?;
        let etcdctl = |args: &[&str]| -> Result<()> {
            let program = program("etcdctl")?.display().to_string();
            let login = [("cacert", "ca.pem"), ("cert", "flannel.pem"), ("key", "flannel-key.pem")]
                .map(|(flag, name)| format!("--{flag}={}", file(name)));
            let endpoints = format!("--endpoints={url}");
            let login: Vec<&str> = login.iter().map(String::as_str).collect();
            let said =
                lab.run_in_network(&[&["env", "ETCDCTL_API=3", &program, &endpoints], &login[..], args].concat())?;
            ensure!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
            Ok(())
        };
        // As docs/network.md has it.
        let configure = || {
            etcdctl(&[
                "put",
                "/coreos.com/network/config",
                r#"{"Network":"10.244.0.0/16","Backend":{"Type":"host-gw"}}"#,
            ])
        };

        let mut node = lab.worker("worker1", WORKER)?.create()?;
        let yaml = format!(
            "cluster:\n  network: flannel\n  flannel:\n    backend: host-gw\n    etcd:\n      endpoints: ['{url}']\n\
             \x20     ca: /etc/nodeagent/flannel-ca.pem\n      pair: /etc/nodeagent/flannel.pem\n\
             kubernetes: {{ artifacts: {{ {} }} }}\n",
            offer(lab)?
        );
        node.write("/etc/nodeagent/node.d/10-flannel.yaml", yaml.as_bytes())?;
        node.write("/etc/nodeagent/flannel-ca.pem", &fs::read(file("ca.pem"))?)?;
        let pair = [fs::read(file("flannel.pem"))?, fs::read(file("flannel-key.pem"))?].concat();
        node.write_as("/etc/nodeagent/flannel.pem", &pair, 0o600)?;
        node.write_as("/usr/bin/etcdctl", &fs::read(program("etcdctl")?)?, 0o755)?;
        node.power_on()?;

        // The etcd has no configuration yet, and so nobody has a subnet. containerd ran before the agent came, which restarts
        // it for its limits, and starts the kubelet afterwards.
        waits_for_the_subnet(&node, "containerd.service")?;
        is_active(&node, "flanneld.service")?;
        ensure!(!node.exists(CONFLIST), "there is a network without a subnet");
        ensure!(node.property("kubelet.service", "MainPID")? == "0", "the kubelet runs without a subnet");
        configure()?;
        bootstrapped(&node)?;
        nothing_to_do(&node)?;
        is_active(&node, "kubelet.service")?;
        ensure!(node_has_network(&node) && subnet(&node)? == "10.244.1");

        // From then on containerd waits, too, even where the last boot ended without a word.
        etcdctl(&["del", "/coreos.com/network/config"])?;
        node.ok(&["sync"])?;
        node.kill()?;
        node.power_on()?;
        waits_for_the_subnet(&node, "containerd.service")?;
        waits_for_the_subnet(&node, "nodeagent-flannel.service")?;
        ensure!(!node.exists(CONFLIST), "there is a network of the boot before");
        ensure!(node.property("kubelet.service", "MainPID")? == "0", "the kubelet runs without a subnet");
        configure()?;
        is_active(&node, "containerd.service")?;
        is_active(&node, "kubelet.service")?;
        bootstrapped(&node)?;
        ensure!(node_has_network(&node) && subnet(&node)? == "10.244.1", "it has another subnet");
        Ok(())
    })
}
