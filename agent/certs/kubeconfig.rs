//! Kubeconfigs of this node's programs: where the API server is, whom to trust, and which pair to show.

use openssl::base64::encode_block;
use serde_json::json;

use super::authority::Authority;
use super::needs;
use crate::config::settings::{FlannelSettings, Role, Settings};
use crate::config::values::{HttpUrl, RootPath};
use crate::engine::change::Meta;
use crate::engine::file::{Kind, ManagedFile};
use crate::engine::resource::{CannotTell, Diff, Resource, Seen, Thing};

/// Names inside a kubeconfig: they mean nothing outside it.
const CONTEXT: &str = "default";
const USER: &str = "default";

/// A program of the node's that has a kubeconfig.
pub(super) struct Program {
    /// The kubeconfig, where kubeadm has it too.
    pub path: &'static str,
    /// The client's pair in it, by its name.
    pub client: &'static str,
    /// The unit that reads it.
    pub reader: Option<&'static str>,
}

const fn program(path: &'static str, client: &'static str, reader: Option<&'static str>) -> Program {
    Program { path, client, reader }
}

const OF_PODS: [Program; 2] = [
    program("/etc/kubernetes/kubelet.conf", needs::KUBELET_CLIENT, Some(needs::KUBELET)),
    program("/etc/kubernetes/kube-proxy.conf", needs::PROXY_CLIENT, Some(needs::KUBE_PROXY)),
];
/// That of flannel, where it asks the cluster's API server: as this node's kubelet, which the API server lets write to this
/// very node alone (admission `NodeRestriction`). An identity of flannel's own could redirect all nodes' packets.
const OF_FLANNEL: Program = program("/etc/kubernetes/flannel.conf", needs::KUBELET_CLIENT, Some(needs::FLANNELD));
const OF_CONTROLLERS: [Program; 3] = [
    program("/etc/kubernetes/admin.conf", needs::ADMIN_CLIENT, None),
    program(
        "/etc/kubernetes/controller-manager.conf",
        needs::CONTROLLER_MANAGER_CLIENT,
        Some(needs::CONTROLLER_MANAGER),
    ),
    program("/etc/kubernetes/scheduler.conf", needs::SCHEDULER_CLIENT, Some(needs::SCHEDULER)),
];

/// The programs of a node that have kubeconfigs of ours.
pub(super) fn of_role(settings: &Settings) -> Vec<&'static Program> {
    let of_pods = OF_PODS.iter().filter(|_| settings.role.has_pairs_of_pods());
    let asks = settings.cluster.flannel.as_ref().is_some_and(FlannelSettings::asks_kubernetes);
    let of_flannel = (asks && settings.role.runs_pods()).then_some(&OF_FLANNEL);
    let of_controllers = OF_CONTROLLERS.iter().filter(|_| settings.role == Role::Controller);
    of_pods.chain(of_flannel).chain(of_controllers).collect()
}

/// A kubeconfig with the CA's certificate embedded and the client's pair by path, so that a renewal leaves it alone.
pub struct Kubeconfig {
    /// Where.
    pub path: RootPath,
    /// The cluster's name.
    pub cluster: String,
    /// The API server.
    pub server: HttpUrl,
    /// The cluster's CA certificate.
    pub ca: RootPath,
    /// The client's pair: certificate and key in one file.
    pub pair: RootPath,
}

impl Kubeconfig {
    fn file(&self, seen: &Seen) -> Result<ManagedFile, CannotTell> {
        let authority = Authority::seen(&self.ca, seen)?;
        // There is no secret in it, but kubeadm gives it to root alone, and nobody else needs it.
        let content = self.render(authority.pem());
        Ok(ManagedFile { path: self.path.clone(), content, meta: Meta::SECRET, kind: Kind::Plain })
    }

    /// JSON, which is YAML: no quoting rules of our own, and the order of the keys is ours.
    fn render(&self, ca: &[u8]) -> String {
        let config = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{
                "name": self.cluster,
                "cluster": {
                    "server": self.server.as_str(),
                    "certificate-authority-data": encode_block(ca),
                },
            }],
            "users": [{
                "name": USER,
                "user": {
                    "client-certificate": self.pair.as_str(),
                    "client-key": self.pair.as_str(),
                },
            }],
            "contexts": [{
                "name": CONTEXT,
                "context": { "cluster": self.cluster, "user": USER },
            }],
            "current-context": CONTEXT,
        });
        format!("{config:#}\n")
    }
}

impl Resource for Kubeconfig {
    fn summary(&self) -> String {
        format!("{} ({}, as the client of {})", self.path, self.server, self.pair.name())
    }

    fn reads(&self) -> Vec<Thing> {
        vec![Thing::File(self.path.clone()), Thing::File(self.ca.clone()), Thing::Clock]
    }

    fn makes(&self) -> Vec<Thing> {
        vec![Thing::File(self.path.clone())]
    }

    fn diff(&self, seen: &Seen) -> Result<Diff, CannotTell> {
        self.file(seen)?.diff(seen)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::certs::testing::{Ca, CaKind, seen_files};
    use crate::engine::change::{Body, Change};

    fn kubeconfig() -> Kubeconfig {
        Kubeconfig {
            path: RootPath::literal("/etc/kubernetes/kubelet.conf"),
            cluster: "kubernetes".into(),
            server: "https://10.10.30.11:6443".parse().expect("a URL"),
            ca: RootPath::literal("/etc/kubernetes/pki/ca.pem"),
            pair: RootPath::literal("/etc/kubernetes/pki/kubelet-client.pem"),
        }
    }

    #[test]
    fn looks_like_this() {
        insta::assert_snapshot!(kubeconfig().render(b"CA"), @r#"
        {
          "apiVersion": "v1",
          "kind": "Config",
          "clusters": [
            {
              "name": "kubernetes",
              "cluster": {
                "server": "https://10.10.30.11:6443",
                "certificate-authority-data": "Q0E="
              }
            }
          ],
          "users": [
            {
              "name": "default",
              "user": {
                "client-certificate": "/etc/kubernetes/pki/kubelet-client.pem",
                "client-key": "/etc/kubernetes/pki/kubelet-client.pem"
              }
            }
          ],
          "contexts": [
            {
              "name": "default",
              "context": {
                "cluster": "kubernetes",
                "user": "default"
              }
            }
          ],
          "current-context": "default"
        }
        "#);
    }

    #[test]
    fn what_was_written_is_the_same_at_the_next_run() {
        let config = kubeconfig();
        let ca = Ca::valid(CaKind::Ec);
        let files = |file| seen_files(&[(&config.ca, Some((ca.pem().as_slice(), Meta::FILE))), (&config.path, file)]);
        let Diff::Differs { known, .. } = config.diff(&files(None)).expect("a difference") else {
            panic!("nothing to write")
        };
        let [Change::Dir { .. }, Change::Put { path, body: Body::Bytes(bytes), meta }] = known.as_slice() else {
            panic!("{known:?}")
        };
        assert_eq!((path, *meta), (&config.path, Meta::SECRET));
        let again = config.diff(&files(Some((bytes.as_slice(), *meta)))).expect("a difference");
        assert!(matches!(again, Diff::Same), "{again:?}");
    }
}
