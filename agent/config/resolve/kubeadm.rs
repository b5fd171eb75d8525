//! A node that kubeadm joins: what it is told, and the little that it leaves of `pki`.

use super::Resolver;
use crate::config::document::{Kubeadm, Pki};
use crate::config::settings::{
    CaSettings, CertsSettings, ClusterSettings, Join, KeyKind, KubeadmSettings, Role, Signer,
};
use crate::config::values::RootPath;
use crate::config::{defaults, kubeadm};

impl Resolver<'_> {
    pub(super) fn kubeadm(
        &mut self,
        given: Kubeadm,
        certs: Option<&CertsSettings>,
        cluster: &ClusterSettings,
    ) -> KubeadmSettings {
        const KEY: &str = "kubeadm.ignorePreflightErrors";
        let ignored_errors = given.ignore_preflight_errors;
        if self.role != Role::Kubeadm && !ignored_errors.is_empty() {
            self.refuse(KEY, format!("is for nodes of role kubeadm: take it away from this {}", self.role));
        }
        for (at, name) in ignored_errors.iter().enumerate() {
            let key = format!("{KEY}[{at}]");
            if name.eq_ignore_ascii_case("all") {
                self.refuse(&key, "kubeadm takes no \"all\" in a file: name each error, as it prints it");
            } else if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b)) {
                self.refuse(&key, format!("{name:?} is not the name of an error, such as FileExisting-crictl"));
            }
        }
        if self.role == Role::Kubeadm && cluster.flannel.is_some() {
            let message = "flannel is an add-on in a cluster that kubeadm made: write none, and apply its manifest there; or bridge";
            self.refuse("cluster.network", message);
        }
        let join = match certs.map(|certs| &certs.signer) {
            Some(Signer::Kubernetes { token_file, .. }) if self.role == Role::Kubeadm => {
                Join::ByToken { token_file: token_file.clone() }
            }
            _ => Join::ByHand,
        };
        KubeadmSettings { join, ignored_errors }
    }

    /// Keys and certificates where kubeadm makes them: it is only told how to find the cluster, and whom to trust there.
    pub(super) fn certs_of_kubeadm(&mut self, pki: Option<Pki>) -> Option<CertsSettings> {
        let dir = RootPath::literal(defaults::PKI_DIR);
        let Some(pki) = pki else {
            self.used("pki.signer", "none: the node waits for a person's kubeadm join");
            let ca = RootPath::literal(kubeadm::CA);
            // Nobody is asked: such a node has no pair that is nodeagent's.
            let signer = Signer::Offline { dir: dir.join(defaults::OFFLINE_DIR) };
            return Some(certs(dir, ca, signer));
        };
        let makes_its_own = [
            ("pki.dir", pki.dir.is_some()),
            ("pki.key", pki.key.is_some()),
            ("pki.etcd", pki.etcd.is_some()),
            ("pki.frontProxy", pki.front_proxy.is_some()),
            ("pki.serviceAccountKey", pki.service_account_key.is_some()),
            ("pki.encryptionKey", pki.encryption_key.is_some()),
            ("pki.extra", !pki.extra.is_empty()),
        ];
        for (key, _) in makes_its_own.into_iter().filter(|(_, given)| *given) {
            self.refuse(key, "kubeadm makes the node's keys and certificates itself: take it away");
        }
        if pki.ca.as_str() == kubeadm::CA {
            let message = format!(
                "{} is kubeadm's to write, and it refuses to join where it is there: put the certificate elsewhere, such \
                 as /etc/nodeagent/cluster-ca.pem",
                pki.ca
            );
            self.refuse("pki.ca", message);
        }
        let signer = self.signer("pki.signer", pki.signer)?;
        if !matches!(signer, Signer::Kubernetes { .. }) {
            let message = "kubeadm joins by a bootstrap token: give kubernetes.tokenFile, or take pki away and join the \
                           node by hand";
            self.refuse("pki.signer", message);
        }
        Some(certs(dir, pki.ca, signer))
    }
}

fn certs(dir: RootPath, ca: RootPath, signer: Signer) -> CertsSettings {
    CertsSettings {
        service_account_key: dir.join(defaults::SERVICE_ACCOUNT_KEY),
        etcd: CaSettings { ca: ca.clone(), signer: signer.clone() },
        dir,
        ca,
        key: KeyKind::default(),
        signer,
        front_proxy: None,
        encryption_key: None,
        extra: std::collections::BTreeMap::new(),
    }
}

#[cfg(test)]
mod tests {
    use crate::config::settings::{Join, Settings, Signer};
    use crate::config::values::ArtifactName;
    use crate::config::{ConfigErrors, Source, load};

    const NODE: &str = "\
apiVersion: nodeagent.io/v1alpha1
kind: NodeConfig
role: kubeadm
cluster: { apiServer: 'https://10.10.30.11:6443' }
kubernetes: { version: v1.34.2 }
";
    const BY_TOKEN: &str = "\
pki: { ca: /etc/nodeagent/cluster-ca.pem, signer: { kubernetes: { tokenFile: /etc/nodeagent/bootstrap-token } } }
";

    fn load_with(more: &[&str]) -> Result<Settings, ConfigErrors> {
        let sources = [NODE].iter().chain(more).enumerate();
        let source = |(at, text): (usize, &&str)| Source { name: format!("{at}.yaml"), text: text.as_bytes().to_vec() };
        load(sources.map(source).collect())
    }

    #[test]
    fn it_needs_no_more_than_this_and_a_token_to_join_by_itself() {
        let by_hand = load_with(&[]).unwrap_or_else(|errors| panic!("{errors}"));
        assert_eq!(by_hand.kubeadm.join, Join::ByHand);
        assert_eq!(by_hand.certs.ca.as_str(), "/etc/kubernetes/pki/ca.crt", "where kubeadm puts it");
        let programs: Vec<&str> = by_hand.install.artifacts.keys().map(ArtifactName::as_str).collect();
        assert_eq!(programs, ["kubeadm", "kubectl", "kubelet"], "kube-proxy is a pod");
        assert!(
            by_hand.defaults.iter().any(|used| used.value.contains("waits for a person")),
            "{:?}",
            by_hand.defaults
        );

        let by_token = load_with(&[BY_TOKEN]).unwrap_or_else(|errors| panic!("{errors}"));
        let Join::ByToken { token_file } = &by_token.kubeadm.join else { panic!("{:?}", by_token.kubeadm) };
        assert_eq!(token_file.as_str(), "/etc/nodeagent/bootstrap-token");
        assert!(matches!(by_token.certs.signer, Signer::Kubernetes { .. }));
    }

    #[test]
    fn what_is_kubeadms_own_or_not_its_kind_is_refused() {
        let table = [
            ("pki: { ca: /etc/kubernetes/pki/ca.crt }", "pki.ca: /etc/kubernetes/pki/ca.crt is kubeadm's to write"),
            ("pki: { key: rsa-2048 }", "pki.key: kubeadm makes the node's keys and certificates itself"),
            ("pki: { extra: { x: { commonName: x, usages: [client] } } }", "pki.extra: kubeadm makes"),
            (
                "pki: { signer: { kubernetes: null, offline: { dir: /o } } }",
                "pki.signer: kubeadm joins by a bootstrap token",
            ),
            (
                "kubeadm: { ignorePreflightErrors: [All] }",
                "ignorePreflightErrors[0]: kubeadm takes no \"all\" in a file",
            ),
            ("kubeadm: { ignorePreflightErrors: [Swap, 'a,b'] }", "ignorePreflightErrors[1]: \"a,b\" is not the name"),
            ("cluster: { network: flannel }", "flannel is an add-on in a cluster that kubeadm made"),
            ("etcd: { member: true }", "no member runs on a node of role kubeadm"),
            ("kubeadm: { ignoreErrors: [Swap] }", "unknown key"),
        ];
        for (drop_in, wanted) in table {
            let errors =
                load_with(&[BY_TOKEN, drop_in]).err().unwrap_or_else(|| panic!("{drop_in}: accepted")).to_string();
            assert!(errors.contains(wanted), "{drop_in}:\n{errors}");
        }
        let worker = "role: worker\nkubeadm: { ignorePreflightErrors: [Swap] }\n";
        let errors = load_with(&[BY_TOKEN, worker]).expect_err("it is no worker's").to_string();
        assert!(errors.contains("is for nodes of role kubeadm: take it away from this worker"), "{errors}");
        let errors = load_with(&["role: worker\n"]).expect_err("a worker's certificates are somebody's").to_string();
        assert!(errors.contains("pki: is missing, and required"), "{errors}");
    }
}
