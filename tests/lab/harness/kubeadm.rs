//! What a cluster takes that kubeadm makes: the control plane's images, of the lab's own programs, and its nodes.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

use super::{
    AGENT, Lab, SERVICES,
    image::{self, Image},
    kubernetes::{self, VERSION},
    net::CONTROLLER,
    node::NodeSpec,
    release,
};

/// Where the images come from, in their names.
pub const REPOSITORY: &str = "lab.example";

/// The version of etcd that this kubeadm asks for, which is not quite the one that is in the image: Debian's.
const ETCD_TAG: &str = "3.4.13-0";

/// What Debian's etcd is linked with.
const LIBRARIES: [&str; 2] = ["lib64/ld-linux-x86-64.so.2", "lib/x86_64-linux-gnu/libc.so.6"];

/// The control plane's images as kubeadm calls them, in one archive.
pub fn control_plane(lab: &Lab) -> Result<Vec<u8>> {
    let read = |path: PathBuf| fs::read(&path).with_context(|| format!("read {}", path.display()));
    let programs = kubernetes::programs(lab.cache())?;
    let mut parts = Vec::new();
    for name in ["kube-apiserver", "kube-controller-manager", "kube-scheduler"] {
        let program = (format!("usr/local/bin/{name}"), read(programs.join(name))?);
        parts.push((format!("{REPOSITORY}/{name}:{VERSION}"), vec![program]));
    }
    let mut etcd = vec![("usr/local/bin/etcd".to_owned(), read(release::packaged(lab.cache())?.join("etcd"))?)];
    for library in LIBRARIES {
        etcd.push((library.to_owned(), read(lab.tree().join(library))?));
    }
    parts.push((format!("{REPOSITORY}/etcd:{ETCD_TAG}"), etcd));
    let files: Vec<Vec<(&str, u32, &[u8])>> = parts
        .iter()
        .map(|(_, files)| files.iter().map(|(path, bytes)| (path.as_str(), 0o755, bytes.as_slice())).collect())
        .collect();
    // Each one's static pod names its command.
    let images: Vec<Image<'_>> =
        parts.iter().zip(&files).map(|((name, _), files)| Image { name, entrypoint: &[], files }).collect();
    image::archive(&images)
}

/// A node as a user would make it: from `cloud-config/kubeadm.yaml` byte for byte, and with the meta-data that its template
/// asks for.
pub fn node<'lab>(lab: &'lab Lab, name: &str, address: &str, ca: &str, token: &str) -> Result<NodeSpec<'lab>> {
    if address == CONTROLLER {
        lab.net().give_up(CONTROLLER)?;
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("cloud-config/kubeadm.yaml");
    let user_data = fs::read(&path).with_context(|| format!("read {}", path.display()))?;
    let mut node = lab
        .node(name, address)
        .user_data(&user_data)
        .meta_data("nodeagent_url", &format!("http://{SERVICES}/{AGENT}"))
        .meta_data("nodeagent_sha256", &lab.agent_digest)
        .meta_data("cluster_ca", ca)
        .meta_data("bootstrap_token", token);
    let digests = kubernetes::digests(&kubernetes::programs(lab.cache())?)?;
    for program in ["kubeadm", "kubelet", "kubectl"] {
        let digest = digests.get(program).with_context(|| format!("no digest of {program}"))?;
        node = node.meta_data(&format!("sha256_{program}"), digest);
    }
    Ok(node)
}
