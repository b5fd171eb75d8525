//! The step `certs`: keys, certificates and kubeconfigs.
//!
//! Replaces `generate-tls-keys.sh`, which brought the CA's private key to every worker, signed the same `CN=worker` for
//! all of them without a usage, and took any file of the right name for a good certificate.
//!
//! *Inputs*: the CA's certificate, the signer of `pki.signer`, the node's name and address.
//! *Outputs*: one file per pair below `pki/`, certificate then key, root's alone; the kubeconfigs that point to them.
//! *What makes it idempotent*: a pair is judged by what it says ([`check`]), never by whether a file exists. It is made
//! anew when it no longer fits the key, the CA, the name, the address or the usage, or when less than a third of its
//! life is left; a signer's answer must pass the same judgement before it replaces anything.

pub mod authority;
pub mod check;
pub mod key;
pub mod kubeconfig;
pub mod pair;
pub mod request;
pub mod signer;
#[cfg(test)]
mod testing;

use self::kubeconfig::Kubeconfig;
use self::pair::Pair;
use self::request::{Usage, Wanted};
use self::signer::{Profile, chosen};
use crate::config::settings::{Role, Settings};
use crate::config::values::{RootPath, UnitName};
use crate::engine::change::Debt;
use crate::engine::id::{Id, Step};
use crate::engine::resource::Planned;
use crate::host::facts::Facts;
use crate::identity::Identity;

/// The kubelet's kubeconfig, where kubeadm has it too.
pub const KUBELET_CONF: &str = "/etc/kubernetes/kubelet.conf";
/// kube-proxy's kubeconfig.
pub const PROXY_CONF: &str = "/etc/kubernetes/kube-proxy.conf";
/// The kubelet's client pair, in the directory of `pki.dir`.
pub const KUBELET_CLIENT: &str = "kubelet-client";
/// The kubelet's serving pair: its `--tls-cert-file` and its `--tls-private-key-file`.
pub const KUBELET_SERVER: &str = "kubelet-server";
/// kube-proxy's client pair.
pub const PROXY_CLIENT: &str = "kube-proxy-client";

/// The keys, certificates and kubeconfigs of this node.
pub fn plan(settings: &Settings, _facts: &Facts, identity: &Identity) -> Vec<Planned> {
    match settings.role {
        Role::Worker => worker(settings, identity),
    }
}

/// The file of a pair, certificate and key: `/etc/kubernetes/pki/kubelet-client.pem`.
pub fn pair_path(settings: &Settings, name: &str) -> RootPath {
    settings.certs.dir.join(&format!("{name}.pem"))
}

fn worker(settings: &Settings, identity: &Identity) -> Vec<Planned> {
    let kubelet = UnitName::literal("kubelet.service");
    let proxy = UnitName::literal("kube-proxy.service");
    // The Node authorizer's rule (kubernetes.io/docs/reference/access-authn-authz/node). Without alternative names:
    // nobody connects to a client, and Kubernetes' own signer refuses a kubelet's client certificate that has any.
    let kubelet_client = Wanted {
        common_name: format!("system:node:{}", identity.name),
        organization: Some("system:nodes".to_owned()),
        dns: Vec::new(),
        ips: Vec::new(),
        usages: vec![Usage::Client],
    };
    let kubelet_server = Wanted {
        dns: vec![identity.name.to_string()],
        ips: vec![identity.address],
        usages: vec![Usage::Server],
        ..kubelet_client.clone()
    };
    // The user that the default cluster role binding system:node-proxier names.
    let proxy_client =
        Wanted { common_name: "system:kube-proxy".to_owned(), organization: None, ..kubelet_client.clone() };

    let pair = |name: &str, purpose: &str, wanted: Wanted, profile: Profile, reader: &UnitName| Planned {
        id: Id::new(Step::Certs, name),
        why: settings.origins.of("pki.signer"),
        owes: vec![Debt::Restart(reader.clone())],
        what: Box::new(Pair {
            purpose: purpose.to_owned(),
            path: pair_path(settings, name),
            ca: settings.certs.ca.clone(),
            wanted,
            signer: chosen(&settings.certs.signer, profile),
        }),
    };
    let kubeconfig = |path: &str, client: &str, reader: &UnitName| {
        let path = RootPath::literal(path);
        Planned {
            id: Id::new(Step::Certs, path.name()),
            why: settings.origins.of("cluster.apiServer"),
            owes: vec![Debt::Restart(reader.clone())],
            what: Box::new(Kubeconfig {
                path,
                server: settings.cluster.api_server.clone(),
                ca: settings.certs.ca.clone(),
                pair: pair_path(settings, client),
            }),
        }
    };
    vec![
        pair(KUBELET_CLIENT, "kubelet's client certificate", kubelet_client, Profile::Configured, &kubelet),
        pair(KUBELET_SERVER, "kubelet's serving certificate", kubelet_server, Profile::Server, &kubelet),
        pair(PROXY_CLIENT, "kube-proxy's client certificate", proxy_client, Profile::Configured, &proxy),
        kubeconfig(KUBELET_CONF, KUBELET_CLIENT, &kubelet),
        kubeconfig(PROXY_CONF, PROXY_CLIENT, &proxy),
    ]
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::config::settings::{
        AddressChoice, CertsSettings, ClusterSettings, InstallSettings, KernelSettings, NameChoice, NodeSettings,
        Origin, Origins, Signer,
    };
    use crate::config::values::Sha256;
    use crate::engine::resource::Thing;

    fn parse<T: std::str::FromStr>(text: &str) -> T
    where
        T::Err: std::fmt::Debug,
    {
        text.parse().expect(text)
    }

    fn settings() -> Settings {
        let line = Origin::File { file: "node.yaml".into(), line: 9 };
        Settings {
            role: Role::Worker,
            node: NodeSettings { name: NameChoice::Hostname, address: AddressChoice::Automatic },
            cluster: ClusterSettings {
                api_server: parse("https://10.10.30.11:6443"),
                pod_cidr: parse("10.244.0.0/16"),
                service_cidr: parse("10.96.0.0/12"),
                dns: parse("10.96.0.10"),
                domain: "cluster.local".into(),
            },
            kernel: KernelSettings { modules: Vec::new(), sysctls: BTreeMap::new() },
            install: InstallSettings { version: parse("v1.34.2"), mirrors: Vec::new(), artifacts: BTreeMap::new() },
            certs: CertsSettings {
                dir: parse("/etc/kubernetes/pki"),
                ca: parse("/etc/kubernetes/pki/ca.pem"),
                signer: Signer::Cfssl {
                    url: parse("https://10.10.30.11:8888"),
                    auth_key_file: parse("/etc/nodeagent/cfssl.key"),
                    profile: "client".into(),
                },
            },
            limits: BTreeMap::new(),
            origins: Origins(BTreeMap::from([("pki.signer".into(), line)])),
            defaults: Vec::new(),
            digest: Sha256::of(b""),
        }
    }

    fn identity() -> Identity {
        Identity {
            name: parse("worker-01"),
            address: parse("10.10.30.21"),
            link: "eth0".into(),
            why: "the kernel's route".into(),
            rejected: Vec::new(),
        }
    }

    #[test]
    fn a_workers_plan() {
        let plan = plan(&settings(), &Facts::sample(), &identity());
        let line = |planned: &Planned| {
            let owes: Vec<String> = planned.owes.iter().map(ToString::to_string).collect();
            format!("{} [{}] {} | {}", planned.id, planned.why, planned.what.summary(), owes.join(", "))
        };
        insta::assert_snapshot!(plan.iter().map(line).collect::<Vec<_>>().join("\n"), @r#"
        certs/kubelet-client [node.yaml:9] kubelet's client certificate (O=system:nodes, CN=system:node:worker-01, signed by cfssl at https://10.10.30.11:8888, profile "client") | restart kubelet.service
        certs/kubelet-server [node.yaml:9] kubelet's serving certificate (O=system:nodes, CN=system:node:worker-01, signed by cfssl at https://10.10.30.11:8888, profile "server") | restart kubelet.service
        certs/kube-proxy-client [node.yaml:9] kube-proxy's client certificate (CN=system:kube-proxy, signed by cfssl at https://10.10.30.11:8888, profile "client") | restart kube-proxy.service
        certs/kubelet.conf [default] /etc/kubernetes/kubelet.conf (https://10.10.30.11:6443, as the client of kubelet-client.pem) | restart kubelet.service
        certs/kube-proxy.conf [default] /etc/kubernetes/kube-proxy.conf (https://10.10.30.11:6443, as the client of kube-proxy-client.pem) | restart kube-proxy.service
        "#);
    }

    #[test]
    fn each_resource_makes_one_file_that_no_other_makes() {
        let made: Vec<Thing> =
            plan(&settings(), &Facts::sample(), &identity()).iter().flat_map(|planned| planned.what.makes()).collect();
        let file = |path: &str| Thing::File(RootPath::literal(path));
        let want = [
            file("/etc/kubernetes/pki/kubelet-client.pem"),
            file("/etc/kubernetes/pki/kubelet-server.pem"),
            file("/etc/kubernetes/pki/kube-proxy-client.pem"),
            file("/etc/kubernetes/kubelet.conf"),
            file("/etc/kubernetes/kube-proxy.conf"),
        ];
        assert_eq!(made, want);
    }
}
