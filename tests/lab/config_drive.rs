//! A machine that knows nothing but its config drive: a virtual one, because a container's kernel mounts no ISO 9660 here.
//! Debian's kernel mounts the image, the real cloud-init finds it by its label, and a real API server gives the machine its
//! certificates for the token in it.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::{
    cluster_service::Controller,
    harness::{CONTROLLER, Lab, SERVICES, WORKER, kubernetes, process, release},
    power::converged,
};

/// For the operator's command.
const OPERATOR: Duration = Duration::from_secs(30);

/// Where cloud-init keeps what it knows of the machine that it is on.
const CLOUD: &str = "var/lib/cloud";

/// The inventory of a cluster of the lab's release, with the lab's own CA.
fn inventory(lab: &Lab) -> Result<PathBuf> {
    let directory = lab.directory().join("operator");
    let (file, pki, to) = (directory.join("cluster.yaml"), directory.join("pki"), directory.join("inventory"));
    fs::create_dir_all(&pki)?;
    lab.ca.write(&pki)?;
    let agent = fs::read_to_string(lab.docroot().join("nodeagent.sha256")).context("read the agent's digest")?;
    // The API server is of another release than the stand-ins claim to be, and no kubelet may be newer than that.
    let release = lab.docroot().join("release");
    symlink(release::VERSION, release.join(kubernetes::VERSION)).context("offer the stand-ins as another release")?;
    let pinned = |names: &[&str], digest: &dyn Fn(&str) -> String| {
        let pinned: Vec<String> =
            names.iter().map(|name| format!("{name}: {{ sha256: \"{}\" }}", digest(name))).collect();
        pinned.join(", ")
    };
    // The controller is never booted: nobody fetches its programs.
    let any = |_: &str| "0".repeat(64);
    let yaml = format!(
        "apiVersion: nodeagent.io/v1alpha1\nkind: Cluster\napiServer: https://{CONTROLLER}:6443\n\
         agent: {{ url: http://{SERVICES}/nodeagent, sha256: \"{agent}\" }}\n\
         kubernetes:\n  version: {}\n  mirrors: [http://{SERVICES}/release]\n  artifacts: {{ {} }}\n\
         nodes:\n  controller-1: {{ role: controller, address: {CONTROLLER} }}\n  worker-1: {{ address: {WORKER} }}\n\
         roles:\n  controller:\n    kubernetes:\n      artifacts: {{ {}, etcd: {{ version: {}, sha256: \"{}\" }} }}\n",
        kubernetes::VERSION,
        pinned(&["kubelet", "kube-proxy", "kubectl"], &|name| lab.digests[name].clone()),
        pinned(&["kube-apiserver", "kube-controller-manager", "kube-scheduler"], &any),
        release::ETCD,
        any("etcd"),
    );
    fs::write(&file, yaml)?;
    let (agent, option) = (Lab::binary()?, Path::new);
    let command: [&Path; 7] = [&agent, option("cloud-config"), &file, option("--to"), &to, option("--pki"), &pki];
    process::ok(&command, OPERATOR).context("make the inventory")?;
    Ok(to)
}

#[test]
fn a_machine_is_made_of_its_config_drive_alone() -> Result<()> {
    Lab::run("config-drive", |lab| {
        let plane = lab.start_control_plane()?;
        let inventory = inventory(lab)?;
        let read = |name: &str| fs::read(inventory.join(name)).with_context(|| format!("read {name}"));
        let text = |name: &str| read(name).and_then(|bytes| Ok(String::from_utf8(bytes)?));

        // A controller approves, with what was made for it.
        let mut controller = Controller::new(lab)?;
        controller.write("etc/nodeagent/node.yaml", &text("controller-1/node.yaml")?)?;
        controller.write("etc/nodeagent/bootstrap-tokens.yaml", &text("bootstrap-tokens.yaml")?)?;
        let mut service = controller.start()?;
        service.tells("this controller looks after the cluster")?;

        let begun = Instant::now();
        let mut vm = lab.node("worker-1", WORKER).config_drive(&read("worker-1/config-2.img")?).create_vm()?;
        vm.power_on(None)?;
        let report = vm.report().with_context(|| service.told().unwrap_or_default())?;
        eprintln!("config drive: from power-on to the report in {:.0?}", begun.elapsed());
        converged(&report)?;
        for pair in ["kubelet-client", "kubelet-server", "kube-proxy-client"] {
            service.tells(&format!("approved worker-1-{pair}-"))?;
        }
        ensure!(plane.kubectl(&["get", "csr", "-o", "name"])?.lines().count() == 3, "it asked more than once");
        vm.kill()?;

        // Where cloud-init says that it had everything from, and as which machine it knows this one.
        let (disk, tree) = (vm.disk(), lab.directory().join("tree"));
        disk.recover()?;
        disk.extract(&["/etc", "/var/lib/cloud"], &tree)?;
        let there = |path: &str| fs::read_to_string(tree.join(path)).with_context(|| format!("read {path}"));
        let meta_data: Value = serde_json::from_str(&on_the_drive(&inventory)?)?;
        let uuid = meta_data["uuid"].as_str().context("a uuid")?;
        ensure!(there(&format!("{CLOUD}/data/instance-id"))?.trim() == uuid, "it is another machine");
        let source = there(&format!("{CLOUD}/instances/{uuid}/datasource"))?;
        ensure!(source.contains("DataSourceConfigDrive") && source.contains("/dev/vdb"), "{source}");
        let user_data = there(&format!("{CLOUD}/instances/{uuid}/user-data.txt"))?;
        ensure!(user_data == text("worker-1/user-data")?, "it was given another user-data:\n{user_data}");
        ensure!(there("etc/hostname")?.trim() == "worker-1", "it is called {}", there("etc/hostname")?);
        ensure!(there("etc/nodeagent/node.yaml")? == text("worker-1/node.yaml")?, "another node.yaml");
        vm.remove()
    })
}

/// The meta-data that cloud-init is to find.
fn on_the_drive(inventory: &Path) -> Result<String> {
    let image = inventory.join("worker-1/config-2.img");
    let image = image.to_str().context("a path in UTF-8")?;
    process::ok(&["bsdtar", "-xOf", image, "openstack/2012-08-10/meta_data.json"], OPERATOR)
}
