//! Releases that people put on nodes besides Kubernetes' own programs: where they stand, and what to take out of them.
//!
//! A version is the user's to choose. Digests are not kept here: they come from the configuration or from a lock file.

/// A release archive.
pub struct Known {
    /// The artifact's name.
    pub name: &'static str,
    /// Where its maintainers publish it. `{version}`, `{number}` (the version without its v) and `{arch}` are filled in.
    pub url: &'static str,
    /// The programs in it: each one's name, and its path in the archive.
    pub members: &'static [(&'static str, &'static str)],
    /// Those that came later: since which minor release, the name, and the path.
    pub since: &'static [((u32, u32), &'static str, &'static str)],
    /// The directory where its programs are linked.
    pub into: &'static str,
}

/// Where programs are linked: `/usr` is read-only on Flatcar.
pub const BIN: &str = "/opt/bin";

/// Where CNI plugins are linked: containerd's and the kubelet's default. Network add-ons put plugins of their own there:
/// hence links, one each.
pub const PLUGINS: &str = "/opt/cni/bin";

/// The unit that imports container images into containerd.
pub const IMAGES_UNIT: &str = "nodeagent-images.service";

/// All of them.
pub const KNOWN: [Known; 6] = [
    Known {
        name: "cni-plugins",
        url: "https://github.com/containernetworking/plugins/releases/download/{version}/cni-plugins-linux-{arch}-{version}.tgz",
        // Those that every release since v1.0 has.
        members: &[
            ("bandwidth", "bandwidth"),
            ("bridge", "bridge"),
            ("dhcp", "dhcp"),
            ("firewall", "firewall"),
            ("host-device", "host-device"),
            ("host-local", "host-local"),
            ("ipvlan", "ipvlan"),
            ("loopback", "loopback"),
            ("macvlan", "macvlan"),
            ("portmap", "portmap"),
            ("ptp", "ptp"),
            ("sbr", "sbr"),
            ("static", "static"),
            ("tuning", "tuning"),
            ("vlan", "vlan"),
            ("vrf", "vrf"),
        ],
        since: &[],
        into: PLUGINS,
    },
    Known {
        name: "containerd",
        url: "https://github.com/containerd/containerd/releases/download/{version}/containerd-{number}-linux-{arch}.tar.gz",
        members: &[
            ("containerd", "bin/containerd"),
            ("containerd-shim-runc-v2", "bin/containerd-shim-runc-v2"),
            ("ctr", "bin/ctr"),
        ],
        since: &[],
        into: BIN,
    },
    Known {
        name: "crictl",
        url: "https://github.com/kubernetes-sigs/cri-tools/releases/download/{version}/crictl-{version}-linux-{arch}.tar.gz",
        members: &[("crictl", "crictl")],
        since: &[],
        into: BIN,
    },
    Known {
        name: "etcd",
        url: "https://github.com/etcd-io/etcd/releases/download/{version}/etcd-{version}-linux-{arch}.tar.gz",
        members: &[("etcd", "etcd-{version}-linux-{arch}/etcd"), ("etcdctl", "etcd-{version}-linux-{arch}/etcdctl")],
        // What restores a snapshot: etcdctl no longer does since 3.6.
        since: &[((3, 5), "etcdutl", "etcd-{version}-linux-{arch}/etcdutl")],
        into: BIN,
    },
    Known {
        name: "flannel",
        url: "https://github.com/flannel-io/flannel/releases/download/{version}/flannel-{version}-linux-{arch}.tar.gz",
        members: &[("flanneld", "flanneld")],
        since: &[],
        into: BIN,
    },
    Known {
        // It is not among the cni-plugins since their v1.0.
        name: "flannel-cni",
        url: "https://github.com/flannel-io/cni-plugin/releases/download/{version}/cni-plugin-flannel-linux-{arch}-{version}.tgz",
        members: &[("flannel", "flannel-{arch}")],
        since: &[],
        into: PLUGINS,
    },
];

impl Known {
    /// The programs of a release. One whose version says nothing of its minor release has all of them.
    pub fn programs(&self, version: &str) -> impl Iterator<Item = (&'static str, &'static str)> {
        let release = release(version);
        let later = self.since.iter().filter(move |(since, ..)| release.is_none_or(|release| release >= *since));
        self.members.iter().copied().chain(later.map(|(_, name, path)| (*name, *path)))
    }
}

/// The major and minor number of a version: 3 and 6 of `v3.6.1`.
fn release(version: &str) -> Option<(u32, u32)> {
    let mut numbers = version.trim_start_matches('v').split('.').map(|number| number.parse().ok());
    Some((numbers.next()??, numbers.next()??))
}

/// The one of this name.
pub fn known(name: &str) -> Option<&'static Known> {
    KNOWN.iter().find(|known| known.name == name)
}

/// Kubernetes' own programs, in each of its releases as `VERSION/bin/linux/ARCH/NAME`.
pub const KUBERNETES: [&str; 7] =
    ["kube-apiserver", "kube-controller-manager", "kube-proxy", "kube-scheduler", "kubeadm", "kubectl", "kubelet"];

/// Where Kubernetes publishes its releases (<https://kubernetes.io/releases/download/>).
pub const RELEASES: &str = "https://dl.k8s.io/release";

/// The path of a program of Kubernetes below a release mirror.
pub fn kubernetes_path(version: &str, architecture: &str, name: &str) -> String {
    format!("{version}/bin/linux/{architecture}/{name}")
}

/// The path of any other file below a release mirror, by where its maintainers publish it.
pub fn mirror_path(name: &str, version: &str, url: &str) -> String {
    format!("{name}/{version}/{}", url.rsplit('/').next().unwrap_or(name))
}

/// A template without its braces, but for `{arch}`: the architecture is a Fact.
pub fn fill(template: &str, version: &str) -> String {
    template.replace("{version}", version).replace("{number}", version.trim_start_matches('v'))
}
