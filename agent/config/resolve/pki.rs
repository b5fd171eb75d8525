//! Keys, certificates and signers.

use std::collections::BTreeMap;

use super::Resolver;
use crate::config::defaults;
use crate::config::document::{Authority, Cfssl, ExtraCertificate, KubernetesSigner, Local, Pki, Signer as Given};
use crate::config::settings::{self, CaSettings, CertsSettings, KeyKind, Role, Signer, Usage};
use crate::config::values::{CertName, CommonName, RootPath};

/// The names of the pairs that roles need, and of the CAs and keys beside them.
const OF_ROLES: [&str; 19] = [
    "admin-client",
    "api-server",
    "api-server-etcd-client",
    "api-server-kubelet-client",
    "ca",
    "ca-key",
    "controller-manager-client",
    "etcd-ca",
    "etcd-ca-key",
    "etcd-peer",
    "etcd-server",
    "front-proxy-ca",
    "front-proxy-client",
    "kube-proxy-client",
    "kubelet-client",
    "kubelet-server",
    "sa-key",
    "scheduler-client",
    "signing-ca",
];

impl Resolver<'_> {
    pub(super) fn certs(&mut self, pki: Option<Pki>) -> Option<CertsSettings> {
        if self.role == Role::Kubeadm {
            return self.certs_of_kubeadm(pki);
        }
        let Some(pki) = pki else {
            self.refuse("pki", "is missing, and required: Keys, certificates and who signs them");
            return None;
        };
        let dir = self.or_default("pki.dir", pki.dir, RootPath::literal(defaults::PKI_DIR));
        let key = self.or_default("pki.key", pki.key, KeyKind::default());
        if self.role != Role::Controller {
            let controllers_own = [
                ("pki.frontProxy", pki.front_proxy.is_some()),
                ("pki.serviceAccountKey", pki.service_account_key.is_some()),
                ("pki.encryptionKey", pki.encryption_key.is_some()),
            ];
            for (key, _) in controllers_own.into_iter().filter(|(_, given)| *given) {
                self.refuse(
                    key,
                    format!("is for controllers alone: take it, and the file, away from this {}", self.role),
                );
            }
        }
        let signer = self.signer("pki.signer", pki.signer);
        let etcd = match (pki.etcd, self.role) {
            (None, Role::Worker | Role::Edge) => signer.clone().map(|signer| CaSettings { ca: pki.ca.clone(), signer }),
            (given, _) => self.etcd_authority(given, &pki.ca),
        };
        let front_proxy = pki.front_proxy.and_then(|given| {
            let why = "whoever it signs for may name any user to the API server";
            self.authority("pki.frontProxy", given, &pki.ca, why)
        });
        let (signer, etcd) = (signer?, etcd?);
        let has_etcds = matches!(self.role, Role::Controller | Role::Etcd);
        let signers = [
            ("pki.signer", Some(&signer)),
            ("pki.etcd.signer", Some(&etcd.signer).filter(|_| has_etcds)),
            ("pki.frontProxy.signer", front_proxy.as_ref().map(|ca| &ca.signer)),
        ];
        for (key, signer) in signers {
            // The certificate that is brought would lie where its pair is to be, and be destroyed with the request.
            if matches!(signer, Some(Signer::Offline { dir: requests }) if *requests == dir) {
                self.refuse(
                    &format!("{key}.offline.dir"),
                    format!("is pki.dir, too: choose {dir}/{}", defaults::OFFLINE_DIR),
                );
            }
        }
        let service_account_key = match (pki.service_account_key, self.role) {
            (given, Role::Controller) => {
                self.or_default("pki.serviceAccountKey", given, dir.join(defaults::SERVICE_ACCOUNT_KEY))
            }
            (_, _) => dir.join(defaults::SERVICE_ACCOUNT_KEY),
        };
        let extra = self.extra(pki.extra, &signer);
        let encryption_key = pki.encryption_key;
        Some(CertsSettings {
            dir,
            ca: pki.ca,
            key,
            signer,
            etcd,
            front_proxy,
            service_account_key,
            encryption_key,
            extra,
        })
    }

    /// The store's own CA, which is not to be the cluster's.
    fn etcd_authority(&mut self, given: Option<Authority>, cluster: &RootPath) -> Option<CaSettings> {
        const WHY: &str = "every node's certificate would open the store, and all Secrets with it";
        let Some(given) = given else {
            let message = format!(
                "is missing: etcd wants a CA of its own (`nodeagent certs ca DIR --etcd` makes one), for with the cluster's {WHY}"
            );
            self.refuse("pki.etcd", message);
            return None;
        };
        if matches!(self.role, Role::Worker | Role::Edge) {
            self.refuse("pki.etcd", format!("a {} never speaks to etcd: take it away", self.role));
            return None;
        }
        self.authority("pki.etcd", given, cluster, WHY)
    }

    /// A CA besides the cluster's; `why` it must not be the same.
    fn authority(&mut self, key: &str, given: Authority, cluster: &RootPath, why: &str) -> Option<CaSettings> {
        if given.ca == *cluster {
            self.refuse(&format!("{key}.ca"), format!("{cluster} is the cluster's, too: with that one {why}"));
        }
        let signer = self.signer(&format!("{key}.signer"), given.signer)?;
        if matches!(signer, Signer::Kubernetes { .. }) {
            self.refuse(&format!("{key}.signer"), "the cluster's own signers sign for the cluster's CA alone");
        }
        Some(CaSettings { ca: given.ca, signer })
    }

    pub(super) fn signer(&mut self, key: &str, given: Given) -> Option<Signer> {
        match (given.kubernetes, given.local, given.cfssl, given.offline) {
            (Some(kubernetes), None, None, None) => {
                if matches!(self.role, Role::Controller | Role::Etcd) {
                    let message = format!(
                        "a {}'s certificates must be there before the API server is, and cannot come from it: use local, \
                         cfssl or offline",
                        self.role
                    );
                    self.refuse(key, message);
                }
                Some(self.kubernetes_signer(key, kubernetes))
            }
            (None, Some(local), None, None) => Some(self.local(key, local)),
            (None, None, Some(cfssl), None) => Some(self.cfssl(key, cfssl)),
            (None, None, None, Some(offline)) => Some(Signer::Offline { dir: offline.dir }),
            _ => {
                // The check has already asked for exactly one signer.
                self.refuse(key, "wants exactly one signer");
                None
            }
        }
    }

    fn extra(
        &mut self,
        given: BTreeMap<CertName, ExtraCertificate>,
        signer: &Signer,
    ) -> BTreeMap<CertName, settings::ExtraCertificate> {
        let mut extra = BTreeMap::new();
        for (name, certificate) in given {
            let key = format!("pki.extra.{name}");
            if OF_ROLES.contains(&name.as_str()) {
                self.refuse(&key, format!("{name} is the name of a pair of nodeagent's own: choose another"));
            }
            let serves = certificate.usages.contains(&Usage::Server);
            if serves && matches!(signer, Signer::Kubernetes { .. }) {
                let message = "the cluster's own signers sign a kubelet's serving certificate, and no other's: use another \
                               pki.signer, or have it sign for clients only";
                self.refuse(&format!("{key}.usages"), message);
            }
            if certificate.usages.is_empty() {
                self.refuse(
                    &format!("{key}.usages"),
                    "is empty: it would be good for nothing; give client, server or both",
                );
            }
            if serves && certificate.dns.is_empty() && certificate.addresses.is_empty() {
                self.refuse(&key, "is for a server, and names none: give dns or addresses");
            }
            let settings = settings::ExtraCertificate {
                common_name: certificate.common_name.into(),
                organization: certificate.organization.map(CommonName::into),
                dns: certificate.dns,
                addresses: certificate.addresses,
                usages: certificate.usages,
                restart: certificate.restart,
            };
            extra.insert(name, settings);
        }
        extra
    }

    fn kubernetes_signer(&mut self, key: &str, given: KubernetesSigner) -> Signer {
        let deadline =
            self.or_default(&format!("{key}.kubernetes.deadline"), given.deadline, defaults::APPROVAL_DEADLINE);
        Signer::Kubernetes { token_file: given.token_file, ca_hash: given.ca_hash, deadline: deadline.duration() }
    }

    fn local(&mut self, key: &str, local: Local) -> Signer {
        let remove_after_use = self.or_default(&format!("{key}.local.removeAfterUse"), local.remove_after_use, false);
        Signer::Local { key: local.key, remove_after_use }
    }

    fn cfssl(&mut self, key: &str, cfssl: Cfssl) -> Signer {
        let key = format!("{key}.cfssl");
        self.https(
            &format!("{key}.url"),
            &cfssl.url,
            "whoever answers in its place would choose the node's certificates",
        );
        let holds_less = matches!(self.role, Role::Worker | Role::Edge);
        if holds_less && !cfssl.accept_admin_equivalent_key {
            let message = "a cfssl authentication key on a worker is as strong as a cluster administrator's: whoever \
                           reads it can have cluster-admin certificates signed, whatever the server's policy says; if \
                           you accept that, write acceptAdminEquivalentKey: true";
            self.refuse(&key, message);
        }
        let default = defaults::CFSSL_PROFILE.to_owned();
        let profile = self.or_default(&format!("{key}.profile"), cfssl.profile, default);
        Signer::Cfssl { url: cfssl.url, auth_key_file: cfssl.auth_key_file, profile }
    }
}
