//! Which pairs a role needs: subject, names, usages and reader of each.
//!
//! Sources: kubernetes.io/docs/setup/best-practices/certificates for Kubernetes' own, etcd.io/docs (op-guide/security) for
//! those of the store. Users and groups are those of Kubernetes' default roles and bindings
//! (kubernetes.io/docs/reference/access-authn-authz/rbac).

use std::net::{IpAddr, Ipv4Addr};

use super::request::{NODE_USER, Usage, Wanted};
use super::signer::Profile;
use crate::config::settings::{CaSettings, Role, Settings};
use crate::config::values::{RootPath, UnitName};
use crate::identity::Identity;

/// The kubelet's client pair, in the directory of `pki.dir`.
pub const KUBELET_CLIENT: &str = "kubelet-client";
/// The kubelet's serving pair: its `--tls-cert-file` and its `--tls-private-key-file`.
pub const KUBELET_SERVER: &str = "kubelet-server";
/// kube-proxy's client pair.
pub const PROXY_CLIENT: &str = "kube-proxy-client";
/// An administrator's client pair, for whoever works on a controller.
pub const ADMIN_CLIENT: &str = "admin-client";
/// The controller manager's client pair.
pub const CONTROLLER_MANAGER_CLIENT: &str = "controller-manager-client";
/// The scheduler's client pair.
pub const SCHEDULER_CLIENT: &str = "scheduler-client";

/// An administrator's user.
pub(super) const ADMINISTRATOR: &str = "kubernetes-admin";
/// The API server's user at kubelets. A binding gives it what it needs, and no more: kubeadm's is one of system:masters.
pub const API_SERVER_AT_KUBELETS: &str = "kube-apiserver-kubelet-client";
/// The API server's user at the store.
const API_SERVER_AT_ETCD: &str = "kube-apiserver-etcd-client";
/// The API server's user at its extensions.
pub const FRONT_PROXY: &str = "front-proxy-client";
const CONTROLLER_MANAGER_USER: &str = "system:kube-controller-manager";
const SCHEDULER_USER: &str = "system:kube-scheduler";

/// The users of a controller that have no group.
pub(super) const CONTROL_PLANE_CLIENTS: [&str; 5] =
    [API_SERVER_AT_KUBELETS, API_SERVER_AT_ETCD, FRONT_PROXY, CONTROLLER_MANAGER_USER, SCHEDULER_USER];

pub(super) const KUBELET: &str = "kubelet.service";
pub(super) const KUBE_PROXY: &str = "kube-proxy.service";
pub(super) const API_SERVER: &str = "kube-apiserver.service";
pub(super) const CONTROLLER_MANAGER: &str = "kube-controller-manager.service";
pub(super) const SCHEDULER: &str = "kube-scheduler.service";
pub(super) const FLANNELD: &str = "flanneld.service";
pub(super) const ETCD: &str = "etcd.service";

/// client-go reads the files that a kubeconfig names every five minutes, and opens its connections anew when they differ,
/// since Kubernetes 1.18 (kubernetes/kubernetes#79083, `client-go/transport/cert_rotation.go`). What is embedded in a
/// kubeconfig, the CA, it reads only at its start.
const CLIENTS_RELOAD: bool = true;

/// The kubelet watches its serving pair since Kubernetes 1.31 (#124574, feature gate `ReloadKubeletServerCertificateFile`,
/// beta), with inotify alone: it is reported to miss replacements and then to serve a certificate until after its end
/// (#133001, #141913). A restart costs its pods nothing (`KillMode=process`).
const KUBELET_SERVER_RELOADS: bool = false;

/// The API server reads its serving pair anew every minute, since Kubernetes 1.17 (#84200), and etcd reads all of its own
/// at each handshake, since 3.2 (etcd-io/etcd#7829), its clients too.
const SERVERS_RELOAD: bool = true;

/// What the API server shows to kubelets and to its extensions it reads once.
const API_SERVER_RELOADS_AS_CLIENT: bool = false;

/// A pair that the role needs, before anybody has signed it.
pub struct Need {
    /// The file's stem, and the resource's name.
    pub name: String,
    /// What it is, in a few words.
    pub purpose: String,
    /// What its certificate must say.
    pub wanted: Wanted,
    /// What it is for, in the signer's terms.
    pub profile: Profile,
    /// The CA that must have signed it, and who signs for that.
    pub ca: CaSettings,
    /// The setting that says so.
    pub why: &'static str,
    /// The unit that reads it.
    pub reader: Option<UnitName>,
    /// Whether its reader takes a new one without being started anew.
    pub reloads: bool,
}

/// The file of a pair, certificate and key: `/etc/kubernetes/pki/kubelet-client.pem`.
pub fn pair_path(settings: &Settings, name: &str) -> RootPath {
    settings.certs.dir.join(&format!("{name}.pem"))
}

/// The pairs of this node's role, and those that the configuration adds.
pub fn needs(settings: &Settings, identity: &Identity) -> Vec<Need> {
    let node = Node { settings, identity };
    let mut all = Vec::new();
    if settings.etcd.member {
        all.extend(node.member());
    }
    if settings.role == Role::Controller {
        all.extend(node.controller());
    }
    if settings.role.has_pairs_of_pods() {
        all.extend(node.pods());
    }
    all.extend(node.extra());
    all
}

/// The CAs that sign for this node: each one's name, and the setting that has it.
pub(super) fn of_own(settings: &Settings) -> Vec<(&'static str, &'static str, CaSettings)> {
    let certs = &settings.certs;
    let mut all = vec![("ca", "pki.signer", certs.cluster())];
    if settings.etcd.member || settings.role == Role::Controller {
        all.push(("etcd-ca", "pki.etcd.signer", certs.etcd.clone()));
    }
    all.extend(certs.front_proxy.clone().map(|ca| ("front-proxy-ca", "pki.frontProxy.signer", ca)));
    all
}

/// What makes a machine a node: the Node authorizer's rule (kubernetes.io/docs/reference/access-authn-authz/node).
///
/// Without alternative names: nobody connects to a client, and Kubernetes' own signer refuses a kubelet's client
/// certificate that has any.
pub(super) fn node_client(settings: &Settings, identity: &Identity) -> Wanted {
    let user = format!("{NODE_USER}{}", identity.name);
    Wanted { organization: Some("system:nodes".to_owned()), ..client(settings, &user) }
}

/// A client without a group.
fn client(settings: &Settings, user: &str) -> Wanted {
    Wanted {
        common_name: user.to_owned(),
        organization: None,
        dns: Vec::new(),
        ips: Vec::new(),
        usages: vec![Usage::Client],
        key: settings.certs.key,
    }
}

struct Node<'a> {
    settings: &'a Settings,
    identity: &'a Identity,
}

impl Node<'_> {
    fn pods(&self) -> Vec<Need> {
        let kubelet_client = node_client(self.settings, self.identity);
        let (dns, ips) = self.own_names();
        let kubelet_server = Wanted { dns, ips, usages: vec![Usage::Server], ..kubelet_client.clone() };
        // The user that the default cluster role binding system:node-proxier names.
        let proxy_client = client(self.settings, "system:kube-proxy");
        vec![
            self.need(KUBELET_CLIENT, "kubelet's client certificate", kubelet_client, Profile::Node)
                .read_by(KUBELET, CLIENTS_RELOAD),
            self.need(KUBELET_SERVER, "kubelet's serving certificate", kubelet_server, Profile::Serving)
                .read_by(KUBELET, KUBELET_SERVER_RELOADS),
            self.need(PROXY_CLIENT, "kube-proxy's client certificate", proxy_client, Profile::Client)
                .read_by(KUBE_PROXY, CLIENTS_RELOAD),
        ]
    }

    fn controller(&self) -> Vec<Need> {
        let user = |user: &str| client(self.settings, user);
        let administrator = Wanted { organization: Some("system:masters".to_owned()), ..user(ADMINISTRATOR) };
        let of_etcd = self.need(
            "api-server-etcd-client",
            "API server's client certificate for etcd",
            user(API_SERVER_AT_ETCD),
            Profile::Client,
        );
        let mut all = vec![
            self.need("api-server", "API server's serving certificate", self.api_server(), Profile::Serving)
                .read_by(API_SERVER, SERVERS_RELOAD),
            self.need(
                "api-server-kubelet-client",
                "API server's client certificate for kubelets",
                user(API_SERVER_AT_KUBELETS),
                Profile::Client,
            )
            .read_by(API_SERVER, API_SERVER_RELOADS_AS_CLIENT),
            of_etcd.signed_for(&self.settings.certs.etcd, "pki.etcd").read_by(API_SERVER, SERVERS_RELOAD),
            self.need(
                CONTROLLER_MANAGER_CLIENT,
                "controller manager's client certificate",
                user(CONTROLLER_MANAGER_USER),
                Profile::Client,
            )
            .read_by(CONTROLLER_MANAGER, CLIENTS_RELOAD),
            self.need(SCHEDULER_CLIENT, "scheduler's client certificate", user(SCHEDULER_USER), Profile::Client)
                .read_by(SCHEDULER, CLIENTS_RELOAD),
            self.need(ADMIN_CLIENT, "administrator's client certificate", administrator, Profile::Client),
        ];
        if let Some(front_proxy) = &self.settings.certs.front_proxy {
            let purpose = "API server's client certificate for its extensions";
            let need = self.need("front-proxy-client", purpose, user(FRONT_PROXY), Profile::Client);
            let need = need.signed_for(front_proxy, "pki.frontProxy");
            all.push(need.read_by(API_SERVER, API_SERVER_RELOADS_AS_CLIENT));
        }
        all
    }

    /// A member serves its clients and its peers, and is a client of both: of its peers, and of itself, by way of the
    /// gateway that turns JSON into gRPC.
    fn member(&self) -> Vec<Need> {
        let (mut dns, mut ips) = self.own_names();
        let both = vec![Usage::Server, Usage::Client];
        let user = client(self.settings, self.identity.name.as_str());
        let own = self.identity.name.as_str();
        // By the names that SRV records have: without a CA of one's own etcd asks peers for the domain's certificate, with
        // one for that of the name to which the record leads.
        if let Some(domain) = &self.settings.etcd.discovery {
            if !own.ends_with(&format!(".{domain}")) {
                dns.push(format!("{own}.{domain}"));
            }
            dns.push(domain.to_string());
        }
        let peer = Wanted { dns: dns.clone(), ips: ips.clone(), usages: both.clone(), ..user.clone() };
        dns.push("localhost".to_owned());
        ips.push(Ipv4Addr::LOCALHOST.into());
        let server = Wanted { dns, ips, usages: both, ..user };
        let etcd = |name, purpose, wanted| {
            let need = self.need(name, purpose, wanted, Profile::Peer);
            need.signed_for(&self.settings.certs.etcd, "pki.etcd").read_by(ETCD, SERVERS_RELOAD)
        };
        vec![
            etcd("etcd-server", "etcd's serving certificate", server),
            etcd("etcd-peer", "etcd's certificate among its members", peer),
        ]
    }

    fn extra(&self) -> Vec<Need> {
        let extra = self.settings.certs.extra.iter().map(|(name, given)| {
            let wanted = Wanted {
                common_name: given.common_name.clone(),
                organization: given.organization.clone(),
                dns: given.dns.iter().map(ToString::to_string).collect(),
                ips: given.addresses.clone(),
                usages: given.usages.clone(),
                key: self.settings.certs.key,
            };
            let profile = match (given.usages.contains(&Usage::Client), given.usages.contains(&Usage::Server)) {
                (true, true) => Profile::Peer,
                (false, true) => Profile::Serving,
                _ => Profile::Client,
            };
            let need = self.need(name.as_str(), "certificate that pki.extra asks for", wanted, profile);
            Need { why: "pki.extra", reader: given.restart.clone(), ..need }
        });
        extra.collect()
    }

    /// Everything by which the API server is reached: its address and the machine's name, the cluster's name for it, and
    /// that of the service `kubernetes`, which is the first address of the service network.
    fn api_server(&self) -> Wanted {
        let cluster = &self.settings.cluster;
        let service = ["kubernetes", "kubernetes.default", "kubernetes.default.svc"].map(str::to_owned);
        let full = format!("kubernetes.default.svc.{}", cluster.domain);
        let (own_dns, own_ips) = self.own_names();
        let mut dns: Vec<String> = service.into_iter().chain([full, "localhost".to_owned()]).chain(own_dns).collect();
        let mut ips = vec![cluster.service_cidr.nth(1), Ipv4Addr::LOCALHOST.into()];
        ips.extend(own_ips);
        let (host, _) = cluster.api_server.host_port();
        match host.parse::<IpAddr>() {
            Ok(address) => ips.push(address),
            Err(_) => dns.push(host),
        }
        dedup(&mut dns);
        dedup(&mut ips);
        Wanted { dns, ips, usages: vec![Usage::Server], ..client(self.settings, "kube-apiserver") }
    }

    /// The node's own name and address, and what else the inventory calls it.
    fn own_names(&self) -> (Vec<String>, Vec<IpAddr>) {
        let entry = self.settings.cluster.nodes.get(&self.identity.name);
        let others = entry.into_iter().flat_map(|entry| &entry.names).map(ToString::to_string);
        let mut dns: Vec<String> = std::iter::once(self.identity.name.to_string()).chain(others).collect();
        dedup(&mut dns);
        (dns, vec![self.identity.address])
    }

    /// A pair that the cluster's CA signs, and that nobody reads yet.
    fn need(&self, name: &str, purpose: &str, wanted: Wanted, profile: Profile) -> Need {
        Need {
            name: name.to_owned(),
            purpose: purpose.to_owned(),
            wanted,
            profile,
            ca: self.settings.certs.cluster(),
            why: "pki.signer",
            reader: None,
            reloads: false,
        }
    }
}

impl Need {
    fn signed_for(self, ca: &CaSettings, why: &'static str) -> Self {
        Self { ca: ca.clone(), why, ..self }
    }

    fn read_by(self, unit: &str, reloads: bool) -> Self {
        Self { reader: Some(UnitName::literal(unit)), reloads, ..self }
    }
}

/// Each once, in the order of the first.
fn dedup<T: PartialEq + Clone>(all: &mut Vec<T>) {
    let mut seen: Vec<T> = Vec::with_capacity(all.len());
    for one in all.drain(..) {
        if !seen.contains(&one) {
            seen.push(one);
        }
    }
    *all = seen;
}
