//! Defaults: what holds where the document says nothing. Data, each with where it comes from.

use super::settings::Role;
use super::values::{Every, Keep, Parallel, Port, Rate, Span};

/// Addresses of pods: what flannel's own manifest uses, and with it most hand-made clusters.
pub(super) const POD_CIDR: &str = "10.244.0.0/16";

/// Addresses of services: kubeadm's (kubeadm config v1beta4, `networking.serviceSubnet`).
pub(super) const SERVICE_CIDR: &str = "10.96.0.0/12";

/// The DNS service's address, counted from the start of the service network: kubeadm's convention. The first belongs
/// to the `kubernetes` service itself.
pub(super) const DNS_OFFSET: u8 = 10;

/// The cluster's DNS domain: kubeadm's (`networking.dnsDomain`) and the kubelet's convention.
pub(super) const DOMAIN: &str = "cluster.local";

/// Files downloaded at the same time: enough to fill a link of which each connection gets a share, few enough that a small
/// machine's memory and a mirror are not strained.
pub(super) const PARALLEL: Parallel = Parallel::of(3);

/// The least that a mirror must send: half of what the slowest line that anyone boots a node over gives, and a
/// thousand times what a mirror sends that only keeps its connection open.
pub(super) const MINIMUM_RATE: Rate = Rate::bytes_per_second(1000);

/// The time over which that is measured: curl's default for `--speed-time`.
pub(super) const STALL_AFTER: Span = Span::from_secs(30);

/// All downloads of a run together: 460 MB in that time is 3 Mbit/s, and what is fetched by then is kept for the next.
pub(super) const DOWNLOAD_DEADLINE: Span = Span::from_secs(20 * 60);

/// Keys and certificates: kubeadm's `certificatesDir`.
pub(super) const PKI_DIR: &str = "/etc/kubernetes/pki";

/// Requests that a person carries away, below that directory.
pub(super) const OFFLINE_DIR: &str = "offline";

/// The cfssl profile for certificates that authenticate clients.
pub(super) const CFSSL_PROFILE: &str = "client";

/// How long an approval is waited for: an approver that is a program answers in seconds, and a person is not waited for
/// with a node's whole bootstrap. The next run goes on with the same request.
pub(super) const APPROVAL_DEADLINE: Span = Span::from_secs(5 * 60);

/// The programs that run pods, and those that run a cluster: each one's unit, if one runs it. Those of Kubernetes stand on
/// a release mirror as `VERSION/bin/linux/ARCH/NAME`.
const OF_NODES: [(&str, Option<&str>); 2] = [("kubectl", None), ("kubelet", Some("kubelet.service"))];
/// kube-proxy is a pod where kubeadm joins the node.
const OF_PODS: [(&str, Option<&str>); 1] = [("kube-proxy", Some("kube-proxy.service"))];
const OF_KUBEADM: [(&str, Option<&str>); 1] = [("kubeadm", None)];
const OF_CONTROLLERS: [(&str, Option<&str>); 3] = [
    ("kube-apiserver", Some("kube-apiserver.service")),
    ("kube-controller-manager", Some("kube-controller-manager.service")),
    ("kube-scheduler", Some("kube-scheduler.service")),
];
const OF_FLANNEL: [(&str, Option<&str>); 2] = [("flannel", Some("flanneld.service")), ("flannel-cni", None)];
const OF_ETCD: [(&str, Option<&str>); 1] = [("etcd", Some("etcd.service"))];

/// The programs of a role, with or without a member of etcd and flannel.
pub(super) fn artifacts(role: Role, member: bool, flannel: bool) -> Vec<(&'static str, Option<&'static str>)> {
    let mut all = Vec::new();
    if role.runs_pods() {
        all.extend(OF_NODES);
        all.extend(if role == Role::Kubeadm { OF_KUBEADM } else { OF_PODS });
        all.extend(OF_FLANNEL.into_iter().filter(|_| flannel));
    }
    if role == Role::Controller {
        all.extend(OF_CONTROLLERS);
    }
    if member {
        all.extend(OF_ETCD);
    }
    all
}

/// The cluster's name: kubeadm's (kubeadm config v1beta4, `clusterName`).
pub(super) const CLUSTER_NAME: &str = "kubernetes";

/// Where the API is served: kubeadm's (`localAPIEndpoint.bindPort`), and the API server's own (`--secure-port`).
pub(super) const API_PORT: Port = Port::of(6443);

/// Where a member keeps its data: etcd's packages have it there, and kubeadm too.
pub(super) const ETCD_DATA: &str = "/var/lib/etcd";

/// Where flannel's keys begin in its etcd: flannel's own (`--etcd-prefix`).
pub(super) const FLANNEL_PREFIX: &str = "/coreos.com/network";

/// How many bits the addresses of one node's pods share: flannel's own (`SubnetLen`), and kube-controller-manager's
/// (`--node-cidr-mask-size`).
pub(super) const FLANNEL_SUBNET: u8 = 24;

/// How often a member's snapshot is taken: what a cluster that loses its store loses with it is a quarter of a day at most.
/// A snapshot reads the whole store once, which a member that is busy feels: more often is for those who ask.
pub(super) const SNAPSHOT_EVERY: Every = Every::hours(6);

/// How many are kept: two days of them, so that what was deleted in the evening is still there when it is missed the day
/// after. A store has at most 2 GB unless it is told otherwise (etcd's `--quota-backend-bytes`): with the one that is being
/// taken they are 18 GB at most.
pub(super) const SNAPSHOTS_KEPT: Keep = Keep::of(8);

/// Where they are kept: beside the member's data, not in it.
pub(super) const SNAPSHOTS: &str = "/var/lib/etcd-snapshots";

/// Where etcd's clients are served (<https://www.iana.org/assignments/service-names-port-numbers>, etcd-client).
pub(super) const ETCD_CLIENT_PORT: u16 = 2379;

/// The file of the service accounts' key, below `pki.dir`.
pub(super) const SERVICE_ACCOUNT_KEY: &str = "sa-key.pem";

/// Modules of a node that runs pods: overlay for the container runtime's snapshots, `br_netfilter` so that bridged traffic meets
/// kube-proxy's rules. From Kubernetes' "Container Runtimes"
/// (<https://kubernetes.io/docs/setup/production-environment/container-runtimes/>): its older editions ask for both
/// modules and all of [`POD_SYSCTLS`], today's leaves all but `net.ipv4.ip_forward` to the network plugin.
pub(super) const POD_MODULES: [&str; 2] = ["overlay", BRIDGE_MODULE];

/// The module of flannel's default backend. The kernel would load it by itself when the link is made; loaded before, it is
/// missed where it is asked for, and not in flannel's log.
pub(super) const VXLAN_MODULE: &str = "vxlan";

/// The module that brings [`BRIDGE_SYSCTLS`] into being.
pub(super) const BRIDGE_MODULE: &str = "br_netfilter";

/// The prefix of the sysctls that exist only with [`BRIDGE_MODULE`].
pub(super) const BRIDGE_SYSCTLS: &str = "net.bridge.";

/// Sysctls of a node that runs pods, from the same document.
pub(super) const POD_SYSCTLS: [(&str, &str); 3] = [
    ("net.bridge.bridge-nf-call-ip6tables", "1"),
    ("net.bridge.bridge-nf-call-iptables", "1"),
    ("net.ipv4.ip_forward", "1"),
];

/// The units of a role that get limits without being named.
pub(super) fn limited_units(role: Role, member: bool) -> Vec<&'static str> {
    let of_pods = role.runs_pods().then_some(["containerd.service", "kubelet.service"]);
    of_pods.into_iter().flatten().chain(member.then_some("etcd.service")).collect()
}

/// Limits by unit and directive, for the units of a role and for those that the document names.
///
/// - container runtimes' files: systemd's own default since v240, on which the runtimes' own units rely since
///   [containerd#8924](https://github.com/containerd/containerd/pull/8924) and
///   [moby#45534](https://github.com/moby/moby/pull/45534); `infinity` makes programs that walk all descriptors crawl.
///   Their tasks: infinity as in their own units, since pods have limits of their own.
/// - etcd's files: its own unit's (`contrib/systemd/etcd.service`).
/// - the kubelet's files: the kernel's default `fs.nr_open`, just above the kubelet's own `maxOpenFiles` of 1000000
///   (`KubeletConfiguration` v1beta1).
pub(super) const LIMITS: [(&str, &str, &str); 6] = [
    ("containerd.service", "LimitNOFILE", "1024:524288"),
    ("containerd.service", TASKS_MAX, "infinity"),
    ("docker.service", "LimitNOFILE", "1024:524288"),
    ("docker.service", TASKS_MAX, "infinity"),
    ("etcd.service", "LimitNOFILE", "65536"),
    ("kubelet.service", "LimitNOFILE", "1048576"),
];

/// The directive that is no resource limit but the control group's (systemd.resource-control(5)).
pub(super) const TASKS_MAX: &str = "TasksMax";
