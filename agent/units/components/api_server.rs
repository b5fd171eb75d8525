//! The API server: no insecure port, the Node authorizer and RBAC, service accounts' tokens by a key of their own.

use super::{Component, Node, etc, target};
use crate::config::values::{HttpUrl, UnitName};
use crate::units::versions::Program;

pub fn component(node: &Node<'_>) -> Component {
    let unit = UnitName::literal("kube-apiserver.service");
    let Node { settings, identity, .. } = node;
    let (cluster, certs) = (&settings.cluster, &settings.certs);
    // Each pair is one file: Go's TLS loader takes the certificate and the key out of it.
    let [serving, kubelet, store] = ["api-server", "api-server-kubelet-client", "api-server-etcd-client"];
    let [serving, kubelet, store] = [serving, kubelet, store].map(|name| node.pair(name));
    let endpoints: Vec<&str> = settings.etcd.endpoints.iter().map(HttpUrl::as_str).collect();
    let mut args = vec![
        format!("--advertise-address={}", identity.address),
        "--allow-privileged=true".to_owned(),
        "--authorization-mode=Node,RBAC".to_owned(),
        format!("--bind-address={}", node.any_address()),
        format!("--client-ca-file={}", certs.ca),
        "--enable-admission-plugins=NodeRestriction".to_owned(),
        "--enable-bootstrap-token-auth=true".to_owned(),
        format!("--etcd-cafile={}", certs.etcd.ca),
        format!("--etcd-certfile={store}"),
        format!("--etcd-keyfile={store}"),
        format!("--etcd-servers={}", endpoints.join(",")),
        format!("--kubelet-certificate-authority={}", certs.ca),
        format!("--kubelet-client-certificate={kubelet}"),
        format!("--kubelet-client-key={kubelet}"),
        "--kubelet-preferred-address-types=InternalIP".to_owned(),
        "--profiling=false".to_owned(),
        format!("--secure-port={}", cluster.api_port),
        // kubeadm's issuer: what checks a token inside the cluster can find its keys there.
        format!("--service-account-issuer=https://kubernetes.default.svc.{}", cluster.domain),
        format!("--service-account-key-file={}", certs.service_account_key.parent().join("sa.pub")),
        format!("--service-account-signing-key-file={}", certs.service_account_key),
        format!("--service-cluster-ip-range={}", cluster.service_cidr),
        format!("--tls-cert-file={serving}"),
        format!("--tls-private-key-file={serving}"),
    ];
    if let Some(front_proxy) = &certs.front_proxy {
        let client = node.pair("front-proxy-client");
        args.extend([
            format!("--proxy-client-cert-file={client}"),
            format!("--proxy-client-key-file={client}"),
            "--requestheader-allowed-names=front-proxy-client".to_owned(),
            format!("--requestheader-client-ca-file={}", front_proxy.ca),
            "--requestheader-extra-headers-prefix=X-Remote-Extra-".to_owned(),
            "--requestheader-group-headers=X-Remote-Group".to_owned(),
            "--requestheader-username-headers=X-Remote-User".to_owned(),
        ]);
    }
    if certs.encryption_key.is_some() {
        // The certs step writes it: there is a key in it.
        args.push(format!("--encryption-provider-config={}", etc("encryption.conf")));
    }
    Component {
        unit_file: include_str!("../../../units/kube-apiserver.service"),
        files: Vec::new(),
        args: node.args(Program::ApiServer, args),
        wait: vec![store_target(node)],
        vars: Vec::new(),
        unit,
    }
}

/// The store, where it is one place. Of several members any will do, which the API server itself finds out.
fn store_target(node: &Node<'_>) -> String {
    match node.settings.etcd.endpoints.as_slice() {
        _ if node.settings.etcd.member => "tcp://127.0.0.1:2379".to_owned(),
        [only] => target(only),
        _ => format!("file:{}", node.pair("api-server-etcd-client")),
    }
}
