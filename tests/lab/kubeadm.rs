//! Nodes that kubeadm joins: a cluster that the real kubeadm made, of images of the lab's own programs, one node that
//! joins by its cloud-config alone, and one that waits for a person.
//!
//! The first controller is a node of role `kubeadm` too, on which a person runs `kubeadm init`. kubeadm's add-ons
//! (its DNS server, kube-proxy) are left out: no registry can be reached, and neither has an image of the lab's own programs
//! (kube-proxy's wants iptables beside it). Pods are reached by their own addresses, over nodeagent's bridge and routes.

use std::{fmt::Write as _, fs, time::Duration};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::{
    bootstrap::{bootstrapped, nothing_to_do},
    cluster::{NOTED, unchanged, written},
    harness::{
        CONTROLLER, Lab, Node, SERVICES,
        cluster::{greeter, greeting},
        digest,
        image::{self, GREETER},
        kubeadm::{self, REPOSITORY},
        kubernetes::VERSION,
    },
};

/// Each node, and its pods' addresses.
const NODES: [(&str, &str, &str); 3] = [
    ("controller-1", CONTROLLER, "10.244.0.0/24"),
    ("worker-1", "10.10.30.21", "10.244.1.0/24"),
    ("worker-2", "10.10.30.22", "10.244.2.0/24"),
];

/// Debian has no crictl.
const IGNORED: &str = "FileExisting-crictl";

/// For `kubeadm init`, and for a node to become Ready, on a busy machine.
const PATIENCE: Duration = Duration::from_mins(5);

/// What is the lab's in a node's configuration: the release, the images, the addresses of pods.
fn lab_drop_in(lab: &Lab, lock: &str, images: &[(&str, &[u8])]) -> Result<String> {
    let mut listed = String::new();
    for (name, bytes) in images {
        let file = format!("{name}.tar.gz");
        fs::write(lab.docroot().join(&file), bytes).with_context(|| format!("write {file}"))?;
        writeln!(listed, "    {name}: {{ url: http://{SERVICES}/{file}, sha256: {} }}", digest(bytes))?;
    }
    let node = |(name, address, pods): &(&str, &str, &str)| {
        format!("    {name}: {{ role: kubeadm, address: {address}, podCIDR: {pods} }}\n")
    };
    let nodes: String = NODES.iter().map(node).collect();
    Ok(format!(
        "cluster:\n  nodes:\n{nodes}\
         kubernetes:\n\
         \x20 version: {VERSION}\n\
         \x20 mirrors: [http://{SERVICES}/release]\n\
         \x20 lock: {{ url: http://{SERVICES}/release/{VERSION}.lock.json, sha256: {lock} }}\n\
         \x20 images:\n{listed}\
         kubeadm: {{ ignorePreflightErrors: [{IGNORED}] }}\n"
    ))
}

/// What `kubeadm init` is told: the lab's images, and what a container is to blame for.
fn init_configuration() -> String {
    let documents = [
        json!({
            "apiVersion": "kubeadm.k8s.io/v1beta2",
            "kind": "InitConfiguration",
            "localAPIEndpoint": { "advertiseAddress": CONTROLLER },
            "nodeRegistration": { "criSocket": "/run/containerd/containerd.sock" },
        }),
        json!({
            "apiVersion": "kubeadm.k8s.io/v1beta2",
            "kind": "ClusterConfiguration",
            "kubernetesVersion": VERSION,
            "imageRepository": REPOSITORY,
            "controlPlaneEndpoint": format!("{CONTROLLER}:6443"),
        }),
        json!({
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            // What nodeagent's own flag has to set right: nothing is managed by systemd in the lab's containerd.
            "cgroupDriver": "systemd",
            // The disk is the host's, and how full that is says nothing here.
            "evictionHard": { "nodefs.available": "1%", "imagefs.available": "1%", "nodefs.inodesFree": "1%" },
            "imageGCHighThresholdPercent": 100,
        }),
    ];
    documents.map(|document| document.to_string()).join("\n---\n")
}

/// kubectl, as the administrator that kubeadm made.
fn kubectl(controller: &Node<'_>, args: &[&str]) -> Result<String> {
    controller.ok(&[&["kubectl", "--kubeconfig=/etc/kubernetes/admin.conf"], args].concat())
}

fn get(controller: &Node<'_>, args: &[&str]) -> Result<Value> {
    let text = kubectl(controller, &[&["get", "--output=json"], args].concat())?;
    serde_json::from_str(&text).with_context(|| format!("read what kubectl get {} printed", args.join(" ")))
}

/// Waits until the kubelet of this boot of a node says that it is ready, at the address that nodeagent chose.
fn ready(controller: &Node<'_>, node: &Node<'_>, name: &str, address: &str) -> Result<()> {
    controller
        .wait_until(&format!("{name} to be Ready"), PATIENCE, |controller| {
            let found = get(controller, &["node", name])?;
            let conditions = found["status"]["conditions"].as_array().into_iter().flatten();
            let state =
                conditions.into_iter().find(|condition| condition["type"] == "Ready").cloned().unwrap_or_default();
            ensure!(state["status"] == "True", "{name}: {}", state["message"]);
            let boot = node.read("/proc/sys/kernel/random/boot_id")?;
            ensure!(
                found["status"]["nodeInfo"]["bootID"] == *String::from_utf8_lossy(&boot).trim(),
                "of an earlier boot"
            );
            let addresses = found["status"]["addresses"].as_array().cloned().unwrap_or_default();
            let listed = addresses.iter().any(|one| one["type"] == "InternalIP" && one["address"] == address);
            ensure!(listed, "{name} is at {addresses:?}");
            Ok(())
        })
        .with_context(|| {
            let units = ["--unit=kubelet.service", "--unit=nodeagent-kubeadm-join.service", "--unit=nodeagent.service"];
            let tail = ["journalctl", "--no-pager", "--lines=20", "--output=cat"];
            format!("{name}: {}", node.ok(&[&tail[..], &units].concat()).unwrap_or_default())
        })
}

/// The node waits: all is in place, nothing runs in a loop, and what it waits for is said, without any secret.
fn waits_for_a_person(node: &Node<'_>) -> Result<()> {
    bootstrapped(node)?;
    nothing_to_do(node)?;
    for command in [&["nodeagent", "plan"][..], &["nodeagent", "bootstrap"]] {
        let said = String::from_utf8(node.run(command)?.stderr)?;
        ensure!(said.contains("waits for a person to join it"), "{command:?} says: {said}");
    }
    ensure!(node.property("kubelet.service", "ActiveState")? == "inactive", "the kubelet runs with nothing");
    ensure!(node.property("kubelet.service", "NRestarts")? == "0", "the kubelet is started in a loop");
    ensure!(node.property("kubelet.service", "UnitFileState")? == "enabled", "the kubelet does not start at a boot");
    ensure!(!node.exists("/etc/kubernetes/nodeagent-kubeadm-join.yaml"), "there is nothing to be told");
    Ok(())
}

/// Has a person make a cluster here.
fn init(controller: &Node<'_>) -> Result<()> {
    controller.write_as("/root/init.yaml", init_configuration().as_bytes(), 0o600)?;
    // kubeadm pulls images by crictl while it checks, and no registry has its add-ons.
    let phases = "--skip-phases=preflight,addon";
    let output = controller.run_within(PATIENCE, &["kubeadm", "init", "--config=/root/init.yaml", phases])?;
    let said = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// A pod on each worker, greeted by the other one's, which it knows by its own address.
fn pods_greet(controller: &Node<'_>, workers: [&str; 2]) -> Result<()> {
    for name in workers {
        let pod = json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": { "name": greeter(name) },
            "spec": {
                "nodeName": name,
                "automountServiceAccountToken": false,
                "containers": [{ "name": "greeter", "image": GREETER, "imagePullPolicy": "Never" }],
            },
        });
        controller.write("/root/pod.json", pod.to_string().as_bytes())?;
        kubectl(controller, &["apply", "-f", "/root/pod.json"])?;
    }
    let address = |name: &str| -> Result<String> {
        let pod = get(controller, &["pod", &greeter(name)])?;
        let address = pod["status"]["podIP"].as_str().with_context(|| format!("it is {}", pod["status"]))?;
        Ok(address.to_owned())
    };
    for name in workers {
        for from in workers.into_iter().filter(|other| *other != name) {
            controller.wait_until(&format!("the pod of {name}"), PATIENCE, |controller| {
                let (url, asking) = (format!("http://{}:8080/", address(name)?), address(from)?);
                let said = kubectl(controller, &["exec", &greeter(from), "--", "/greeter", "fetch", &url])?;
                ensure!(said == greeting(name, &asking), "asked from {asking} it said: {said}");
                Ok(())
            })?;
        }
    }
    Ok(())
}

#[test]
fn a_cluster_of_kubeadms_is_joined_by_cloud_config_and_by_hand() -> Result<()> {
    Lab::run("kubeadm", |lab| {
        let lock = lab.lay_out_real(VERSION)?;
        let pods = image::of_pods(&fs::read(Lab::stand_in()?)?)?;
        let of_workers = lab_drop_in(lab, &lock, &[("pods", &pods)])?;
        let of_controller =
            lab_drop_in(lab, &lock, &[("pods", &pods), ("control-plane", &kubeadm::control_plane(lab)?)])?;

        // Machines without a word of how to join: they wait.
        let [controller, worker_1, worker_2] = NODES;
        let by_hand = "pki: null\n";
        let boot = |(name, address, _): (&'static str, &str, &str), drop_in: &str| -> Result<Node<'_>> {
            let mut node = kubeadm::node(lab, name, address, "", "")?.create()?;
            node.write("/etc/nodeagent/node.d/10-lab.yaml", format!("{drop_in}{by_hand}").as_bytes())?;
            node.power_on()?;
            Ok(node)
        };
        let first = boot(controller, &of_controller)?;
        let mut third = boot(worker_2, &of_workers)?;
        waits_for_a_person(&first)?;
        init(&first)?;
        ready(&first, &first, controller.0, controller.1)?;
        nothing_to_do(&first)?;

        // One that has its cloud-config, a token and the CA's certificate.
        let token = first.ok(&["kubeadm", "token", "create"])?;
        let ca = String::from_utf8(first.read("/etc/kubernetes/pki/ca.crt")?)?;
        let mut second = kubeadm::node(lab, worker_1.0, worker_1.1, &ca, token.trim())?.create()?;
        second.write("/etc/nodeagent/node.d/10-lab.yaml", of_workers.as_bytes())?;
        // An earlier join got no further than this.
        second.write("/etc/kubernetes/pki/ca.crt", ca.as_bytes())?;
        second.power_on()?;

        // Meanwhile a person joins the other.
        waits_for_a_person(&third)?;
        let command = first.ok(&["kubeadm", "token", "create", "--print-join-command"])?;
        let ignored = format!("--ignore-preflight-errors={IGNORED}");
        let join: Vec<&str> = command.split_whitespace().chain([ignored.as_str()]).collect();
        let output = third.run_within(PATIENCE, &join)?;
        let said = [output.stdout, output.stderr].concat();
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&said));

        ready(&first, &second, worker_1.0, worker_1.1)?;
        ready(&first, &third, worker_2.0, worker_2.1)?;
        pods_greet(&first, [worker_1.0, worker_2.0])?;

        // Nobody needs the token any more, and nobody told it.
        let (id, secret) = token.trim().split_once('.').context("a token")?;
        first.ok(&["kubeadm", "token", "delete", id])?;
        let told = second.ok(&["journalctl", "--no-pager", "--output=cat"])?;
        ensure!(told.contains("joined the cluster") && !told.contains(secret), "the journal has the token: {told}");
        for (node, name, address) in [(&mut second, worker_1.0, worker_1.1), (&mut third, worker_2.0, worker_2.1)] {
            bootstrapped(node)?;
            nothing_to_do(node)?;
            let before = written(node)?;
            ensure!(!before.contains_key("/etc/kubernetes/nodeagent-kubeadm-join.yaml"), "{name}: the token stays");
            let again = String::from_utf8(node.run(&["nodeagent", "bootstrap"])?.stderr)?;
            ensure!(again.contains("nothing to do"), "{name}: {again}");
            node.reboot()?;
            ready(&first, node, name, address)?;
            bootstrapped(node)?;
            nothing_to_do(node)?;
            unchanged(name, &before, &written(node)?, Some(NOTED))?;
        }
        pods_greet(&first, [worker_1.0, worker_2.0])
    })
}
