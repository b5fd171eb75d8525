//! The step `certs`: keys, certificates and kubeconfigs.
//!
//! Replaces `generate-tls-keys.sh`, which brought the CA's private key to every worker, signed the same `CN=worker` for
//! all of them without a usage, and took any file of the right name for a good certificate.
//!
//! *Inputs*: the CAs' certificates, the signer of each, the node's name and address, the inventory.
//! *Outputs*: one file per pair below `pki/`, certificate then key, root's alone ([`needs`] has them by role); the
//! kubeconfigs that point to them; on controllers the service accounts' key and the encryption of Secrets.
//! *What makes it idempotent*: a pair is judged by what it says ([`check`]), never by whether a file exists. It is made
//! anew when it no longer fits the key, the CA, the name, the address or the usage, or when less than a third of its
//! life is left; a signer's answer must pass the same judgement before it replaces anything.

pub mod asked;
pub mod authority;
mod ca_key;
mod carried;
pub mod check;
pub mod client;
mod copies;
mod discovery;
mod encryption;
pub mod flaw;
pub mod issue;
pub mod join;
pub mod key;
pub mod kubeconfig;
pub mod left;
pub mod needs;
pub mod pair;
mod readers;
pub mod request;
mod service_account;
pub mod show;
pub mod signer;
mod signing_ca;
#[cfg(test)]
pub(crate) mod testing;
mod wrapped;

use self::ca_key::ca_keys;
pub use self::carried::requests;
pub use self::check::addresses_of;
use self::discovery::ClusterCa;
use self::encryption::Encryption;
use self::kubeconfig::{Kubeconfig, Program};
pub use self::needs::{ADMIN_CLIENT, KUBELET_CLIENT, KUBELET_SERVER, pair_path};
use self::needs::{Need, needs};
use self::pair::Pair;
use self::service_account::ServiceAccountKey;
use self::signer::chosen;
use self::signing_ca::SigningCa;
use crate::config::kubeadm;
use crate::config::settings::{Role, Settings, Signer};
use crate::config::values::{RootPath, UnitName};
use crate::engine::change::Debt;
use crate::engine::id::{Id, Step};
use crate::engine::resource::Planned;
use crate::host::facts::Facts;
use crate::identity::Identity;

/// How the API server encrypts Secrets at rest.
pub const ENCRYPTION_CONF: &str = "/etc/kubernetes/encryption.conf";

/// The file of the pair by which this node's kubelet is known to the API server.
pub fn node_pair(settings: &Settings) -> RootPath {
    if settings.role == Role::Kubeadm {
        return RootPath::literal(kubeadm::CLIENT_PAIR);
    }
    pair_path(settings, KUBELET_CLIENT)
}

/// The keys, certificates and kubeconfigs of this node.
pub fn plan(settings: &Settings, _facts: &Facts, identity: &Identity) -> Vec<Planned> {
    let needs = needs(settings, identity);
    let ca_keys = ca_keys(settings, &needs);
    let programs = kubeconfig::of_role(settings);
    let kubeconfigs: Vec<Planned> = programs.iter().map(|program| kubeconfig(settings, identity, program)).collect();
    let pairs = needs.into_iter().map(|need| pair(settings, identity, need));
    let shared = shared_secrets(settings);
    cluster_ca(settings).into_iter().chain(shared).chain(pairs).chain(kubeconfigs).chain(ca_keys).collect()
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

/// Whether no other controller has to have what this one makes. Where none is listed the store tells: one of several
/// members, or of those that DNS has, is mostly one of several controllers.
fn is_only_controller(settings: &Settings) -> bool {
    let controllers = settings.cluster.nodes.values().filter(|entry| entry.role == Role::Controller).count();
    let several_members = settings.etcd.members.len() > 1 || settings.etcd.discovery.is_some();
    controllers == 1 || (controllers == 0 && !several_members)
}

/// What all controllers of a cluster have in common, besides its CAs.
fn shared_secrets(settings: &Settings) -> Vec<Planned> {
    if settings.role != Role::Controller {
        return Vec::new();
    }
    let api_server = || Debt::Restart(UnitName::literal(needs::API_SERVER));
    let readers = || vec![api_server(), Debt::Restart(UnitName::literal(needs::CONTROLLER_MANAGER))];
    let service_accounts = Planned {
        id: Id::new(Step::Certs, "service-accounts"),
        why: settings.origins.of("pki.serviceAccountKey"),
        owes: readers(),
        what: Box::new(ServiceAccountKey::new(&settings.certs.service_account_key, is_only_controller(settings))),
    };
    let encryption = settings.certs.encryption_key.as_ref().map(|keys| Planned {
        id: Id::new(Step::Certs, "encryption"),
        why: settings.origins.of("pki.encryptionKey"),
        owes: vec![api_server()],
        what: Box::new(Encryption { keys: keys.clone(), path: RootPath::literal(ENCRYPTION_CONF) }),
    });
    let signing = SigningCa::of(settings).map(|signing| Planned {
        id: Id::new(Step::Certs, "signing-ca"),
        why: settings.origins.of("pki.ca"),
        owes: vec![Debt::Restart(UnitName::literal(needs::CONTROLLER_MANAGER))],
        what: Box::new(signing),
    });
    std::iter::once(service_accounts).chain(encryption).chain(signing).collect()
}

fn pair(settings: &Settings, identity: &Identity, need: Need) -> Planned {
    Planned {
        id: Id::new(Step::Certs, &need.name),
        why: settings.origins.of(need.why),
        owes: need.reader.filter(|_| !need.reloads).map(Debt::Restart).into_iter().collect(),
        what: Box::new(Pair {
            path: pair_path(settings, &need.name),
            signer: chosen(settings, identity, &need.ca.signer, &need.name, need.profile),
            purpose: need.purpose,
            ca: need.ca.ca,
            wanted: need.wanted,
        }),
    }
}

fn kubeconfig(settings: &Settings, identity: &Identity, program: &Program) -> Planned {
    let path = RootPath::literal(program.path);
    Planned {
        id: Id::new(Step::Certs, path.name()),
        why: settings.origins.of("cluster.apiServer"),
        owes: program.reader.map(|reader| Debt::Restart(UnitName::literal(reader))).into_iter().collect(),
        what: Box::new(Kubeconfig {
            path,
            cluster: settings.cluster.name.clone(),
            server: identity.api_server(settings),
            ca: settings.certs.ca.clone(),
            pair: pair_path(settings, program.client),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::resource::Thing;

    fn parse<T: std::str::FromStr>(text: &str) -> T
    where
        T::Err: std::fmt::Debug,
    {
        text.parse().expect(text)
    }

    fn settings() -> Settings {
        Settings::sample()
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
        certs/kubelet-client [/etc/nodeagent/node.yaml:17] kubelet's client certificate (O=system:nodes, CN=system:node:worker-01, signed by cfssl at https://10.10.30.1:8888, profile "client") | 
        certs/kubelet-server [/etc/nodeagent/node.yaml:17] kubelet's serving certificate (O=system:nodes, CN=system:node:worker-01, signed by cfssl at https://10.10.30.1:8888, profile "server") | restart kubelet.service
        certs/kube-proxy-client [/etc/nodeagent/node.yaml:17] kube-proxy's client certificate (CN=system:kube-proxy, signed by cfssl at https://10.10.30.1:8888, profile "client") | 
        certs/kubelet.conf [/etc/nodeagent/node.yaml:5] /etc/kubernetes/kubelet.conf (https://10.10.30.11:6443, as the client of kubelet-client.pem) | restart kubelet.service
        certs/kube-proxy.conf [/etc/nodeagent/node.yaml:5] /etc/kubernetes/kube-proxy.conf (https://10.10.30.11:6443, as the client of kube-proxy-client.pem) | restart kube-proxy.service
        "#);
    }

    /// A controller of two that has a member of the store, with all that can be asked of one.
    const CONTROLLER: &str = "\
apiVersion: nodeagent.io/v1alpha1
kind: NodeConfig
role: controller
node: { name: worker-01 }
cluster:
  apiServer: https://k8s.example.com:443
  nodes:
    worker-01: { role: controller, address: 10.10.30.21, names: [c1.example.com] }
    other: { role: controller, address: 10.10.30.22 }
kubernetes: { version: v1.34.2, artifacts: { etcd: { version: v3.6.1 } } }
pki:
  ca: /etc/kubernetes/pki/ca.pem
  signer: { local: { key: /etc/kubernetes/pki/ca-key.pem } }
  etcd: { ca: /etc/kubernetes/pki/etcd-ca.pem, signer: { cfssl: { url: 'https://10.10.30.1:8888', authKeyFile: /etc/key } } }
  frontProxy: { ca: /etc/kubernetes/pki/front.pem, signer: { local: { key: /etc/front-key.pem, removeAfterUse: true } } }
  encryptionKey: /etc/kubernetes/pki/encryption.key
  extra:
    ingress: { commonName: ingress, dns: [www.example.com], usages: [server], restart: nginx.service }
";

    fn load(text: &str) -> Settings {
        let source = crate::config::Source { name: "node.yaml".into(), text: text.as_bytes().to_vec() };
        crate::config::load(vec![source]).unwrap_or_else(|errors| panic!("{errors}"))
    }

    #[test]
    fn a_controllers_plan() {
        let plan = plan(&load(CONTROLLER), &Facts::sample(), &identity());
        let line = |planned: &Planned| {
            let owes: Vec<String> = planned.owes.iter().map(ToString::to_string).collect();
            format!("{} {} | {}", planned.id, planned.what.summary(), owes.join(", "))
        };
        insta::assert_snapshot!(plan.iter().map(line).collect::<Vec<_>>().join("\n"), @r#"
        certs/service-accounts key that signs service accounts' tokens, /etc/kubernetes/pki/sa-key.pem | restart kube-apiserver.service, restart kube-controller-manager.service
        certs/encryption /etc/kubernetes/encryption.conf (Secrets are encrypted at rest, with the keys of /etc/kubernetes/pki/encryption.key) | restart kube-apiserver.service
        certs/signing-ca /etc/kubernetes/pki/signing-ca.pem (the certificate of /etc/kubernetes/pki/ca-key.pem, for the controller manager) | restart kube-controller-manager.service
        certs/etcd-server etcd's serving certificate (CN=worker-01, signed by cfssl at https://10.10.30.1:8888, profile "peer") | 
        certs/etcd-peer etcd's certificate among its members (CN=worker-01, signed by cfssl at https://10.10.30.1:8888, profile "peer") | 
        certs/api-server API server's serving certificate (CN=kube-apiserver, signed by the CA's key /etc/kubernetes/pki/ca-key.pem on this machine) | 
        certs/api-server-kubelet-client API server's client certificate for kubelets (CN=kube-apiserver-kubelet-client, signed by the CA's key /etc/kubernetes/pki/ca-key.pem on this machine) | restart kube-apiserver.service
        certs/api-server-etcd-client API server's client certificate for etcd (CN=kube-apiserver-etcd-client, signed by cfssl at https://10.10.30.1:8888, profile "client") | 
        certs/controller-manager-client controller manager's client certificate (CN=system:kube-controller-manager, signed by the CA's key /etc/kubernetes/pki/ca-key.pem on this machine) | 
        certs/scheduler-client scheduler's client certificate (CN=system:kube-scheduler, signed by the CA's key /etc/kubernetes/pki/ca-key.pem on this machine) | 
        certs/admin-client administrator's client certificate (O=system:masters, CN=kubernetes-admin, signed by the CA's key /etc/kubernetes/pki/ca-key.pem on this machine) | 
        certs/front-proxy-client API server's client certificate for its extensions (CN=front-proxy-client, signed by the CA's key /etc/front-key.pem on this machine) | restart kube-apiserver.service
        certs/kubelet-client kubelet's client certificate (O=system:nodes, CN=system:node:worker-01, signed by the CA's key /etc/kubernetes/pki/ca-key.pem on this machine) | 
        certs/kubelet-server kubelet's serving certificate (O=system:nodes, CN=system:node:worker-01, signed by the CA's key /etc/kubernetes/pki/ca-key.pem on this machine) | restart kubelet.service
        certs/kube-proxy-client kube-proxy's client certificate (CN=system:kube-proxy, signed by the CA's key /etc/kubernetes/pki/ca-key.pem on this machine) | 
        certs/ingress certificate that pki.extra asks for (CN=ingress, signed by the CA's key /etc/kubernetes/pki/ca-key.pem on this machine) | restart nginx.service
        certs/kubelet.conf /etc/kubernetes/kubelet.conf (https://10.10.30.21:6443, as the client of kubelet-client.pem) | restart kubelet.service
        certs/kube-proxy.conf /etc/kubernetes/kube-proxy.conf (https://10.10.30.21:6443, as the client of kube-proxy-client.pem) | restart kube-proxy.service
        certs/admin.conf /etc/kubernetes/admin.conf (https://10.10.30.21:6443, as the client of admin-client.pem) | 
        certs/controller-manager.conf /etc/kubernetes/controller-manager.conf (https://10.10.30.21:6443, as the client of controller-manager-client.pem) | restart kube-controller-manager.service
        certs/scheduler.conf /etc/kubernetes/scheduler.conf (https://10.10.30.21:6443, as the client of scheduler-client.pem) | restart kube-scheduler.service
        certs/front-proxy-ca-key the CA's key /etc/front-key.pem destroyed once the certificates stand; until it is put back, nothing renews them | 
        certs/front-proxy-ca-key-copies no copy of the CA's key in user-data |
        "#);
    }

    #[test]
    fn a_person_is_asked_for_what_a_person_signs_and_where_its_signer_looks_for_it() {
        let etcds = load(&CONTROLLER.replace(
            "cfssl: { url: 'https://10.10.30.1:8888', authKeyFile: /etc/key }",
            "offline: { dir: /srv/requests }",
        ));
        let asked = |settings: &Settings, dir: Option<&RootPath>| -> Vec<String> {
            let all = requests(settings, &identity(), dir).into_iter();
            all.flat_map(|planned| planned.what.makes())
                .filter_map(|thing| match thing {
                    Thing::File(path) if path.name().strip_suffix(".csr").is_some() => Some(path.to_string()),
                    _ => None,
                })
                .collect()
        };
        let files =
            |dir: &str| ["etcd-server", "etcd-peer", "api-server-etcd-client"].map(|it| format!("{dir}/{it}.csr"));
        assert_eq!(asked(&etcds, None), files("/srv/requests"));
        assert_eq!(asked(&etcds, Some(&parse("/root/mine"))), files("/root/mine"));
        // Where no person signs, all of them can be carried all the same.
        let all = asked(&load(CONTROLLER), None);
        assert_eq!((all.len(), all[0].as_str()), (13, "/etc/kubernetes/pki/offline/etcd-server.csr"));
    }

    #[test]
    fn each_of_a_controllers_certificates_says_what_it_is_for() {
        let line = |need: Need| {
            let usages: Vec<String> = need.wanted.usages.iter().map(ToString::to_string).collect();
            let names = need.wanted.names().join(" ");
            format!("{}: {} [{}] {} {names}", need.name, need.wanted.subject(), usages.join(", "), need.ca.ca.name())
        };
        let lines: Vec<String> = needs(&load(CONTROLLER), &identity()).into_iter().map(line).collect();
        insta::assert_snapshot!(lines.join("\n"), @r#"
        etcd-server: CN=worker-01 [server auth, client auth] etcd-ca.pem worker-01 c1.example.com localhost 10.10.30.21 127.0.0.1
        etcd-peer: CN=worker-01 [server auth, client auth] etcd-ca.pem worker-01 c1.example.com 10.10.30.21
        api-server: CN=kube-apiserver [server auth] ca.pem kubernetes kubernetes.default kubernetes.default.svc kubernetes.default.svc.cluster.local localhost worker-01 c1.example.com k8s.example.com 10.96.0.1 127.0.0.1 10.10.30.21
        api-server-kubelet-client: CN=kube-apiserver-kubelet-client [client auth] ca.pem 
        api-server-etcd-client: CN=kube-apiserver-etcd-client [client auth] etcd-ca.pem 
        controller-manager-client: CN=system:kube-controller-manager [client auth] ca.pem 
        scheduler-client: CN=system:kube-scheduler [client auth] ca.pem 
        admin-client: O=system:masters, CN=kubernetes-admin [client auth] ca.pem 
        front-proxy-client: CN=front-proxy-client [client auth] front.pem 
        kubelet-client: O=system:nodes, CN=system:node:worker-01 [client auth] ca.pem 
        kubelet-server: O=system:nodes, CN=system:node:worker-01 [server auth] ca.pem worker-01 c1.example.com 10.10.30.21
        kube-proxy-client: CN=system:kube-proxy [client auth] ca.pem 
        ingress: CN=ingress [server auth] ca.pem www.example.com
        "#);
    }

    #[test]
    fn what_controllers_share_is_made_only_where_there_is_one() {
        let mut settings = load(CONTROLLER);
        settings.cluster.nodes.clear();
        settings.etcd.members.clear();
        assert!(is_only_controller(&settings), "nobody else is listed");
        settings.etcd.discovery = Some(parse("store.example.com"));
        assert!(!is_only_controller(&settings), "DNS may have more members");
        let entry = |address: &str| crate::config::settings::NodeEntry {
            role: Role::Controller,
            address: parse(address),
            pod_cidr: None,
            names: Vec::new(),
        };
        settings.cluster.nodes.insert(parse("c1"), entry("10.10.30.11"));
        assert!(is_only_controller(&settings), "the inventory has one");
        settings.cluster.nodes.insert(parse("c2"), entry("10.10.30.12"));
        assert!(!is_only_controller(&settings), "it has two");
    }

    #[test]
    fn a_member_of_the_store_alone_has_nothing_of_kubernetes() {
        let text = CONTROLLER.replace("role: controller", "role: etcd");
        let text: Vec<&str> =
            text.lines().filter(|line| !line.contains("frontProxy") && !line.contains("encryption")).collect();
        let settings = load(&text.join("\n"));
        let ids: Vec<String> =
            plan(&settings, &Facts::sample(), &identity()).iter().map(|p| p.id.to_string()).collect();
        assert_eq!(ids, ["certs/etcd-server", "certs/etcd-peer", "certs/ingress", "certs/ca-key"]);
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
            (needs::PROXY_CLIENT, "kubernetes.io/kube-apiserver-client", false),
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
    fn no_pair_of_pki_extra_takes_the_name_of_a_roles() {
        let settings = load(CONTROLLER);
        let own = needs(&settings, &identity())
            .into_iter()
            .filter(|need| !settings.certs.extra.contains_key(&parse(&need.name)));
        for need in own {
            let text = CONTROLLER.replace("ingress:", &format!("{}:", need.name));
            let source = crate::config::Source { name: "node.yaml".into(), text: text.into_bytes() };
            let error = crate::config::load(vec![source]).err().map(|errors| errors.to_string()).unwrap_or_default();
            assert!(error.contains("is the name of a pair of nodeagent's own"), "{}: {error}", need.name);
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
