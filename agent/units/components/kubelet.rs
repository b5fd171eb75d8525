//! The kubelet, by `kubelet.config.k8s.io/v1beta1`: no anonymous access, the API server decides who may do what,
//! certificates from the certs step.

use serde_json::{Value, json};

use super::{Component, ConfigFile, Node, RUNTIME, etc, text};
use crate::config::values::{RootPath, UnitName};
use crate::engine::change::Meta;
use crate::engine::file::{ManagedDir, ManagedFile};
use crate::engine::resource::{CannotTell, Diff, Resource, Seen, Thing};
use crate::host::seen::Entry;
use crate::units::flannel;
use crate::units::versions::Program;

/// Plugins for volumes: their default lies below /usr, which is read-only on Flatcar.
pub const VOLUME_PLUGINS: &str = "/var/lib/kubelet/volumeplugins";

pub fn component(node: &Node<'_>) -> Component {
    let unit = UnitName::literal("kubelet.service");
    let Node { settings, identity, .. } = node;
    let pair = node.pair("kubelet-server");
    let path = etc("kubelet-config.yaml");
    let manifests = etc("manifests");
    let config = json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": node.any_address(),
        "authentication": {
            "anonymous": { "enabled": false },
            "webhook": { "enabled": true },
            "x509": { "clientCAFile": settings.certs.ca }
        },
        "authorization": { "mode": "Webhook" },
        "clusterDNS": [settings.cluster.dns],
        "clusterDomain": settings.cluster.domain,
        "failSwapOn": !settings.kernel.swap,
        // The agent renews both pairs: the kubelet asks for none of its own.
        "rotateCertificates": false,
        "serverTLSBootstrap": false,
        "staticPodPath": manifests,
        "tlsCertFile": pair,
        "tlsPrivateKeyFile": pair,
        "volumePluginDir": VOLUME_PLUGINS
    });
    let mut args = vec![
        format!("--config={path}"),
        format!("--kubeconfig={}", etc("kubelet.conf")),
        format!("--hostname-override={}", identity.name),
        format!("--node-ip={}", identity.address),
    ];
    args.extend(labels(node));
    let mut wait = vec![node.api_server(), RUNTIME.to_owned()];
    if flannel::must_wait(settings) {
        wait.push(format!("file:{}", flannel::SUBNET_FILE));
    }
    let what = Box::new(KubeletConfig { path: path.clone(), config: node.config(Program::Kubelet, config) });
    Component {
        unit_file: include_str!("../../../units/kubelet.service"),
        files: vec![
            ConfigFile { name: "kubelet-config".to_owned(), path, what },
            // Where it does not exist the kubelet complains every second.
            ConfigFile {
                name: "manifests".to_owned(),
                path: manifests.clone(),
                what: Box::new(manifests_dir(manifests)),
            },
        ],
        args: node.args(Program::Kubelet, args),
        wait,
        vars: Vec::new(),
        unit,
    }
}

/// The labels with which the node registers: there is no field for them.
pub fn labels(node: &Node<'_>) -> Option<String> {
    let labels = &node.settings.node.labels;
    let labels: Vec<String> = labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    (!labels.is_empty()).then(|| format!("--node-labels={}", labels.join(",")))
}

/// Where people may put static pods: root's alone, as kubeadm makes it.
pub fn manifests_dir(path: RootPath) -> ManagedDir {
    ManagedDir { path, meta: Meta::root(0o700) }
}

/// Where containerd's configuration is: who manages control groups there must do so for the kubelet, too. The second is
/// Flatcar's own, which its unit names and which is in force until there is a first.
pub const CONTAINERD: [&str; 2] = ["/etc/containerd/config.toml", "/usr/share/containerd/config.toml"];

/// What programs resolve names by.
const RESOLVER: &str = "/etc/resolv.conf";

/// What systemd-resolved writes for programs that cannot ask it: pods have no way to its stub at 127.0.0.53, and a DNS
/// server of the cluster that is sent there asks itself.
const BEHIND_STUB: &str = "/run/systemd/resolve/resolv.conf";

/// The kubelet's configuration file, with what follows from files of this machine.
struct KubeletConfig {
    path: RootPath,
    /// What follows from Settings, Facts and Identity.
    config: Value,
}

impl Resource for KubeletConfig {
    fn summary(&self) -> String {
        self.path.to_string()
    }

    fn reads(&self) -> Vec<Thing> {
        let containerd = CONTAINERD.map(|path| Thing::File(RootPath::literal(path)));
        let own = [Thing::File(self.path.clone()), Thing::Stat(RootPath::literal(RESOLVER))];
        containerd.into_iter().chain(own).collect()
    }

    fn makes(&self) -> Vec<Thing> {
        vec![Thing::File(self.path.clone())]
    }

    fn diff(&self, seen: &Seen) -> Result<Diff, CannotTell> {
        let mut config = self.config.clone();
        config["cgroupDriver"] = json!(cgroup_driver_of(seen)?);
        if matches!(seen.entry(&RootPath::literal(RESOLVER))?, Entry::Link(to) if to.ends_with("/stub-resolv.conf")) {
            config["resolvConf"] = json!(BEHIND_STUB);
        }
        ManagedFile::new(self.path.clone(), text(&config)).diff(seen)
    }
}

/// Who manages control groups on this machine, by the first of [`CONTAINERD`] that is there.
pub fn cgroup_driver_of(seen: &Seen) -> Result<&'static str, CannotTell> {
    let mut containerd = None;
    for path in CONTAINERD {
        containerd = containerd.or(seen.bytes(&RootPath::literal(path))?);
    }
    Ok(cgroup_driver(containerd.unwrap_or_default()))
}

/// Who manages control groups. containerd leaves them to runc unless `SystemdCgroup` says otherwise. Since 1.34 a kubelet
/// asks the runtime itself (`KubeletCgroupDriverFromCRI`), and takes this where the runtime cannot tell: containerd 1.
fn cgroup_driver(containerd: &[u8]) -> &'static str {
    let says_systemd = |line: &str| {
        let line = line.split('#').next().unwrap_or_default();
        let Some((key, value)) = line.split_once('=') else { return false };
        key.trim() == "SystemdCgroup" && value.trim() == "true"
    };
    if String::from_utf8_lossy(containerd).lines().any(says_systemd) { "systemd" } else { "cgroupfs" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_groups_are_managed_as_containerd_does() {
        for (config, driver) in [
            ("", "cgroupfs"),
            ("version = 2\n[plugins.x.options]\n  SystemdCgroup = true\n", "systemd"),
            ("SystemdCgroup=true # as systemd wants it\n", "systemd"),
            ("# SystemdCgroup = true\nSystemdCgroup = false\n", "cgroupfs"),
            ("NoSystemdCgroup = true\n", "cgroupfs"),
        ] {
            assert_eq!(cgroup_driver(config.as_bytes()), driver, "{config:?}");
        }
    }
}
