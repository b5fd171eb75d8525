//! The files by which kubeadm and this program know of each other on a node that kubeadm joins.

/// The node's kubeconfig: the kubelet writes it when the cluster has taken the node in, and kubeadm refuses to join where
/// there is one.
pub const JOINED: &str = "/etc/kubernetes/kubelet.conf";

/// The kubelet's kubeconfig until then.
pub const JOINING: &str = "/etc/kubernetes/bootstrap-kubelet.conf";

/// The cluster's CA certificate (`caCertPath`).
pub const CA: &str = "/etc/kubernetes/pki/ca.crt";

/// The kubelet's client pair, in one file: the kubelet renews it by itself (`rotateCertificates`).
pub const CLIENT_PAIR: &str = "/var/lib/kubelet/pki/kubelet-client-current.pem";

/// The kubelet's serving certificate, which it makes itself where nobody has configured another (`tlsCertFile`).
pub const SERVING: &str = "/var/lib/kubelet/pki/kubelet.crt";

/// What this program tells it, with the bootstrap token: there until the node has joined.
pub const JOIN_CONFIG: &str = "/etc/kubernetes/nodeagent-kubeadm-join.yaml";
