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

pub mod asked;
pub mod authority;
mod ca_key;
mod carried;
pub mod check;
mod discovery;
pub mod issue;
pub mod key;
pub mod kubeconfig;
pub mod pair;
pub mod request;
pub mod show;
pub mod signer;
#[cfg(test)]
pub(crate) mod testing;

use self::ca_key::{CaKey, NoCopies};
use self::carried::Carried;
pub use self::check::addresses_of;
use self::discovery::ClusterCa;
use self::kubeconfig::Kubeconfig;
use self::pair::Pair;
use self::request::{Usage, Wanted};
use self::signer::{Offline, Profile, chosen};
use crate::config::settings::{Settings, Signer};
use crate::config::values::{RootPath, UnitName};
use crate::engine::change::Debt;
use crate::engine::id::{Id, Step};
use crate::engine::resource::{Planned, Resource};
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

/// client-go reads the files that a kubeconfig names every five minutes, and opens its connections anew when they differ,
/// since Kubernetes 1.18 (kubernetes/kubernetes#79083, `client-go/transport/cert_rotation.go`). What is embedded in a
/// kubeconfig, the CA, it reads only at its start.
const CLIENTS_RELOAD: bool = true;

/// The kubelet watches its serving pair since Kubernetes 1.31 (#124574, feature gate `ReloadKubeletServerCertificateFile`,
/// beta), with inotify alone: it is reported to miss replacements and then to serve a certificate until after its end
/// (#133001, #141913). A restart costs its pods nothing (`KillMode=process`).
const KUBELET_SERVER_RELOADS: bool = false;

const KUBELET: &str = "kubelet.service";
const KUBE_PROXY: &str = "kube-proxy.service";

/// The keys, certificates and kubeconfigs of this node.
pub fn plan(settings: &Settings, _facts: &Facts, identity: &Identity) -> Vec<Planned> {
    let needs = needs(settings, identity);
    let ca_key = ca_key(settings, &needs);
    let kubeconfigs = if settings.role.runs_pods() {
        vec![
            kubeconfig(settings, KUBELET_CONF, KUBELET_CLIENT, KUBELET),
            kubeconfig(settings, PROXY_CONF, PROXY_CLIENT, KUBE_PROXY),
        ]
    } else {
        Vec::new()
    };
    let pairs = needs.into_iter().map(|need| pair(settings, identity, need));
    cluster_ca(settings).into_iter().chain(pairs).chain(kubeconfigs).chain(ca_key).collect()
}

/// The keys and requests in `dir` for those of this node's pairs that are missing or due, for a person to carry.
pub fn requests(settings: &Settings, identity: &Identity, dir: &RootPath) -> Vec<Planned> {
    let carried = |need: Need| Planned {
        id: Id::new(Step::Certs, format!("{}.csr", need.name)),
        why: settings.origins.of("role"),
        owes: Vec::new(),
        what: Box::new(Carried {
            purpose: need.purpose,
            files: Offline::new(dir, need.name),
            pair: pair_path(settings, need.name),
            ca: settings.certs.ca.clone(),
            wanted: need.wanted,
        }),
    };
    needs(settings, identity).into_iter().map(carried).collect()
}

/// The file of a pair, certificate and key: `/etc/kubernetes/pki/kubelet-client.pem`.
pub fn pair_path(settings: &Settings, name: &str) -> RootPath {
    settings.certs.dir.join(&format!("{name}.pem"))
}

/// A pair that the role needs, before anybody is chosen to sign it.
pub struct Need {
    /// The file's stem, and the resource's name.
    pub name: &'static str,
    /// What it is, in a few words.
    pub purpose: &'static str,
    /// What its certificate must say.
    pub wanted: Wanted,
    /// What it is for, in the signer's terms.
    pub profile: Profile,
    /// The unit that reads it.
    pub reader: UnitName,
    /// Whether its reader takes a new one without being started anew.
    pub reloads: bool,
}

/// The pairs of this node's role.
pub fn needs(settings: &Settings, identity: &Identity) -> Vec<Need> {
    if settings.role.runs_pods() { worker(settings, identity) } else { Vec::new() }
}

/// What makes a machine a node: the Node authorizer's rule (kubernetes.io/docs/reference/access-authn-authz/node).
///
/// Without alternative names: nobody connects to a client, and Kubernetes' own signer refuses a kubelet's client
/// certificate that has any.
fn node_client(settings: &Settings, identity: &Identity) -> Wanted {
    Wanted {
        common_name: format!("system:node:{}", identity.name),
        organization: Some("system:nodes".to_owned()),
        dns: Vec::new(),
        ips: Vec::new(),
        usages: vec![Usage::Client],
        key: settings.certs.key,
    }
}

fn worker(settings: &Settings, identity: &Identity) -> Vec<Need> {
    let kubelet = UnitName::literal(KUBELET);
    let kubelet_client = node_client(settings, identity);
    let kubelet_server = Wanted {
        dns: vec![identity.name.to_string()],
        ips: vec![identity.address],
        usages: vec![Usage::Server],
        ..kubelet_client.clone()
    };
    // The user that the default cluster role binding system:node-proxier names.
    let proxy_client =
        Wanted { common_name: "system:kube-proxy".to_owned(), organization: None, ..kubelet_client.clone() };
    vec![
        Need {
            name: KUBELET_CLIENT,
            purpose: "kubelet's client certificate",
            wanted: kubelet_client,
            profile: Profile::Node,
            reader: kubelet.clone(),
            reloads: CLIENTS_RELOAD,
        },
        Need {
            name: KUBELET_SERVER,
            purpose: "kubelet's serving certificate",
            wanted: kubelet_server,
            profile: Profile::Serving,
            reader: kubelet,
            reloads: KUBELET_SERVER_RELOADS,
        },
        Need {
            name: PROXY_CLIENT,
            purpose: "kube-proxy's client certificate",
            wanted: proxy_client,
            profile: Profile::Client,
            reader: UnitName::literal(KUBE_PROXY),
            reloads: CLIENTS_RELOAD,
        },
    ]
}

/// The CA's certificate, where only its key's hash was given.
fn cluster_ca(settings: &Settings) -> Option<Planned> {
    let Signer::Kubernetes { token_file, ca_hash: Some(hash), .. } = &settings.certs.signer else { return None };
    Some(Planned {
        id: Id::new(Step::Certs, "ca"),
        why: settings.origins.of("pki.signer.kubernetes.caHash"),
        owes: Vec::new(),
        what: Box::new(ClusterCa {
            path: settings.certs.ca.clone(),
            url: settings.cluster.api_server.clone(),
            token_file: token_file.clone(),
            hash: hash.clone(),
        }),
    })
}

fn pair(settings: &Settings, identity: &Identity, need: Need) -> Planned {
    Planned {
        id: Id::new(Step::Certs, need.name),
        why: settings.origins.of("pki.signer"),
        owes: if need.reloads { Vec::new() } else { vec![Debt::Restart(need.reader)] },
        what: Box::new(Pair {
            purpose: need.purpose.to_owned(),
            path: pair_path(settings, need.name),
            ca: settings.certs.ca.clone(),
            wanted: need.wanted,
            signer: chosen(settings, identity, need.name, need.profile),
        }),
    }
}

fn kubeconfig(settings: &Settings, path: &str, client: &str, reader: &str) -> Planned {
    let path = RootPath::literal(path);
    Planned {
        id: Id::new(Step::Certs, path.name()),
        why: settings.origins.of("cluster.apiServer"),
        owes: vec![Debt::Restart(UnitName::literal(reader))],
        what: Box::new(Kubeconfig {
            path,
            server: settings.cluster.api_server.clone(),
            ca: settings.certs.ca.clone(),
            pair: pair_path(settings, client),
        }),
    }
}

/// What becomes of the CA's key where that is what signs.
fn ca_key(settings: &Settings, needs: &[Need]) -> Vec<Planned> {
    let Signer::Local { key, remove_after_use } = &settings.certs.signer else { return Vec::new() };
    let planned = |name: &str, what: Box<dyn Resource>| Planned {
        id: Id::new(Step::Certs, name),
        why: settings.origins.of("pki.signer.local"),
        owes: Vec::new(),
        what,
    };
    let pairs = needs.iter().map(|need| pair_path(settings, need.name)).collect();
    let mut all = vec![planned("ca-key", Box::new(CaKey { key: key.clone(), pairs, remove: *remove_after_use }))];
    if *remove_after_use {
        all.push(planned("ca-key-copies", Box::new(NoCopies { ca: settings.certs.ca.clone() })));
    }
    all
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::config::settings::{
        AddressChoice, CertsSettings, ClockSettings, ClusterSettings, InstallSettings, KernelSettings, KeyKind,
        NameChoice, NodeSettings, Origin, Origins,
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
            node: NodeSettings {
                name: NameChoice::Hostname,
                address: AddressChoice::Automatic,
                coreos_environment: false,
            },
            cluster: ClusterSettings {
                api_server: parse("https://10.10.30.11:6443"),
                peers: BTreeMap::new(),
                pod_cidr: parse("10.244.0.0/16"),
                service_cidr: parse("10.96.0.0/12"),
                dns: parse("10.96.0.10"),
                domain: "cluster.local".into(),
            },
            kernel: KernelSettings { modules: Vec::new(), sysctls: BTreeMap::new(), swap: false },
            download: crate::config::settings::DownloadSettings::default(),
            install: InstallSettings {
                version: parse("v1.34.2"),
                mirrors: Vec::new(),
                lock: None,
                artifacts: BTreeMap::new(),
                images: BTreeMap::new(),
                rehash: false,
            },
            certs: CertsSettings {
                dir: parse("/etc/kubernetes/pki"),
                ca: parse("/etc/kubernetes/pki/ca.pem"),
                key: KeyKind::default(),
                signer: Signer::Cfssl {
                    url: parse("https://10.10.30.11:8888"),
                    auth_key_file: parse("/etc/nodeagent/cfssl.key"),
                    profile: "client".into(),
                },
            },
            limits: BTreeMap::new(),
            clock: ClockSettings::default(),
            manager: crate::config::settings::ManagerLimits::default(),
            origins: Origins(BTreeMap::from([("pki.signer".into(), line)])),
            defaults: Vec::new(),
            digest: Sha256::of(b""),
        }
    }

    fn identity() -> Identity {
        Identity::sample()
    }

    #[test]
    fn a_workers_plan() {
        let plan = plan(&settings(), &Facts::sample(), &identity());
        let line = |planned: &Planned| {
            let owes: Vec<String> = planned.owes.iter().map(ToString::to_string).collect();
            format!("{} [{}] {} | {}", planned.id, planned.why, planned.what.summary(), owes.join(", "))
        };
        insta::assert_snapshot!(plan.iter().map(line).collect::<Vec<_>>().join("\n"), @r#"
        certs/kubelet-client [node.yaml:9] kubelet's client certificate (O=system:nodes, CN=system:node:worker-01, signed by cfssl at https://10.10.30.11:8888, profile "client") | 
        certs/kubelet-server [node.yaml:9] kubelet's serving certificate (O=system:nodes, CN=system:node:worker-01, signed by cfssl at https://10.10.30.11:8888, profile "server") | restart kubelet.service
        certs/kube-proxy-client [node.yaml:9] kube-proxy's client certificate (CN=system:kube-proxy, signed by cfssl at https://10.10.30.11:8888, profile "client") | 
        certs/kubelet.conf [default] /etc/kubernetes/kubelet.conf (https://10.10.30.11:6443, as the client of kubelet-client.pem) | restart kubelet.service
        certs/kube-proxy.conf [default] /etc/kubernetes/kube-proxy.conf (https://10.10.30.11:6443, as the client of kube-proxy-client.pem) | restart kube-proxy.service
        "#);
    }

    #[test]
    fn with_the_clusters_signer_the_node_comes_first_and_the_rest_waits_for_it() {
        let mut settings = settings();
        let token_file: RootPath = parse("/etc/nodeagent/bootstrap-token");
        settings.certs.signer = Signer::Kubernetes {
            token_file: token_file.clone(),
            ca_hash: None,
            deadline: std::time::Duration::from_mins(5),
        };
        let plan = plan(&settings, &Facts::sample(), &identity());
        let client = Thing::File(pair_path(&settings, KUBELET_CLIENT));
        for (name, signer, reads_token) in [
            (KUBELET_CLIENT, "kubernetes.io/kube-apiserver-client-kubelet", true),
            (KUBELET_SERVER, "kubernetes.io/kubelet-serving", false),
            (PROXY_CLIENT, "kubernetes.io/kube-apiserver-client", false),
        ] {
            let planned = plan.iter().find(|planned| planned.id == Id::new(Step::Certs, name)).expect(name);
            let signed = format!("signed by {signer} at https://10.10.30.11:6443)");
            assert!(planned.what.summary().contains(&signed), "{}", planned.what.summary());
            let reads = planned.what.reads();
            assert_eq!(reads.contains(&Thing::File(token_file.clone())), reads_token, "{name}");
            assert!(reads.contains(&client), "{name}");
            assert_eq!(planned.what.scratch(), [parse(&format!("/opt/nodeagent/partial/{name}.key"))], "{name}");
        }
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
