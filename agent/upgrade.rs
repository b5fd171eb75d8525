//! Whether programs of a living cluster may be replaced by those that are asked for: asked before anything is touched.
//!
//! Sources: kubernetes.io/releases/version-skew-policy (no kubelet is newer than the API server that it speaks to, and a
//! minor upgrade of a kubelet wants its node drained), etcd.io/docs (op-guide/downgrade: data that a newer minor release
//! wrote is not for an older one), and the same for what the API server has stored.
//!
//! A run that replaces no kubelet asks nobody: later boots need no API server.

use std::time::Duration;

use serde_json::Value;

use crate::certs::client::{self, ClientPair};
use crate::certs::node_pair;
use crate::config::settings::{Role, Settings};
use crate::config::values::{HttpUrl, RootPath, Version};
use crate::engine::fault::{Explain, Fault};
use crate::engine::rollback::Relinked;
use crate::host::http::cluster::{Login, Server};
use crate::host::http::{Http, HttpError};
use crate::host::root::{FileError, Root};
use crate::host::seen::Entry;
use crate::identity::Identity;
use crate::install::{BIN, RELEASES};
use crate::journal::{Event, Teller};

/// How long the API server may take to say what it is: an upgrade is begun by a person, or by a boot that has a deadline.
const PATIENCE: Duration = Duration::from_secs(10);

/// What stores something, or decides how it is stored.
const STORES: [&str; 2] = ["etcd", "kube-apiserver"];

/// What was put in place of what, as far as versions go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replacement {
    /// What is in place; nothing if there is no such program, or one that the agent did not put there.
    pub from: Option<Version>,
    /// What is asked for.
    pub to: Version,
}

impl Replacement {
    /// Whether it goes to another minor release of what is there.
    fn is_minor(&self) -> bool {
        self.from.as_ref().is_some_and(|from| from.release() != self.to.release())
    }
}

/// Why programs may not be replaced.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// The kubelet would be newer than the API server.
    #[error("install kubelet {kubelet}: the API server {url} is {server}, and no kubelet may be newer than that")]
    NewerKubelet {
        /// What is asked for.
        kubelet: Version,
        /// What the API server is.
        server: Version,
        /// Where that is.
        url: HttpUrl,
    },
    /// Pods would meet another kubelet than the one that started them.
    #[error("replace kubelet {from} by {to}, another minor release: the node {node} is not drained ({why})")]
    NotDrained {
        /// The node.
        node: String,
        /// What is in place.
        from: String,
        /// What is asked for.
        to: Version,
        /// What is left to do.
        why: String,
    },
    /// Whether the node is drained could not be asked.
    #[error(
        "replace kubelet {from} by {to}, another minor release: whether the node {node} is drained cannot be told: {why}"
    )]
    Unasked {
        /// The node.
        node: String,
        /// What is in place.
        from: String,
        /// What is asked for.
        to: Version,
        /// Why not.
        why: String,
    },
    /// What was stored by a newer minor release is not for an older one.
    #[error(
        "replace {program} {from} by {to}, an older minor release: what the newer one has stored, the older one may not read"
    )]
    Downgrade {
        /// The program.
        program: &'static str,
        /// What is in place.
        from: Version,
        /// What would be.
        to: Version,
    },
    /// A link could not be looked at.
    #[error(transparent)]
    File(#[from] FileError),
}

impl Explain for Refused {
    fn advice(&self) -> Option<String> {
        Some(match self {
            Self::NewerKubelet { server, .. } => {
                format!("upgrade the controllers first, or set kubernetes.version to {server}; nothing was touched")
            }
            Self::NotDrained { node, .. } => format!(
                "on an operator's machine: kubectl drain {node} --ignore-daemonsets; or accept that its pods are \
                 restarted: --no-drain; nothing was touched"
            ),
            Self::Unasked { .. } => {
                "make the API server reachable, or accept what may happen to the node's pods: --no-drain; nothing was \
                 touched"
                    .to_owned()
            }
            Self::Downgrade { program, .. } => format!(
                "restore a snapshot of etcd that was taken before the upgrade (nodeagent etcd restore), or go on with the \
                 newer {program}; nothing was touched"
            ),
            Self::File(error) => return error.advice(),
        })
    }
}

/// The version of a program that the agent has put in place.
fn placed(root: &Root, program: &str) -> Result<Option<Version>, FileError> {
    match root.entry(&RootPath::literal(BIN).join(program), false)? {
        Entry::Link(to) => Ok(version_of(program, &to)),
        _ => Ok(None),
    }
}

/// The version in `/opt/nodeagent/releases/PROGRAM/VERSION/bin/PROGRAM`.
fn version_of(program: &str, link: &str) -> Option<Version> {
    let below = link.strip_prefix(RELEASES)?.strip_prefix('/')?.strip_prefix(program)?.strip_prefix('/')?;
    below.split('/').next()?.parse().ok()
}

/// The version of a program that is asked for. One of somebody's own making follows no policy.
fn asked_for(settings: &Settings, program: &str) -> Option<Version> {
    let artifact = settings.install.artifacts.iter().find(|(name, _)| name.as_str() == program);
    artifact.and_then(|(_, artifact)| artifact.version.parse().ok())
}

/// The kubelet that is asked for, if that is not the one in place.
fn kubelet(settings: &Settings, root: &Root) -> Result<Option<Replacement>, FileError> {
    let Some(to) = asked_for(settings, "kubelet") else { return Ok(None) };
    let from = placed(root, "kubelet")?;
    Ok((from.as_ref() != Some(&to)).then_some(Replacement { from, to }))
}

/// Refuses programs that may not read what those in place have stored, and a kubelet that the cluster is not ready for, or
/// whose node is not.
///
/// An API server that cannot be asked holds up no first start, and no patch release: that it was not asked is told.
pub async fn check(
    settings: &Settings,
    identity: &Identity,
    root: &Root,
    http: &Http,
    no_drain: bool,
    tell: &Teller,
) -> Result<(), Fault> {
    for program in STORES {
        if let (Some(from), Some(to)) = (placed(root, program).map_err(Refused::File)?, asked_for(settings, program)) {
            newer_stays(program, from, to)?;
        }
    }
    if !settings.role.runs_pods() {
        return Ok(());
    }
    let Some(replacement) = kubelet(settings, root).map_err(Refused::File)? else { return Ok(()) };
    let url = identity.api_server(settings);
    if settings.role == Role::Controller && placed(root, "kube-apiserver").map_err(Refused::File)?.is_none() {
        // A first start: the one that would answer is yet to be fetched, and it is known which one that is.
        let server = asked_for(settings, "kube-apiserver");
        let known = server.map(|server| judge(&replacement, identity, &url, &Answers { server, node: None }));
        return Ok(known.transpose().map(drop)?);
    }
    // A node that has never joined has no pods to move, and nobody whom it could ask as.
    let is_there = root.entry(&node_pair(settings), false).map_err(Refused::File)? != Entry::Absent;
    let wants_drain = replacement.is_minor() && !no_drain && is_there;
    let asked = ask(settings, identity, root, http, &url, wants_drain).await;
    match asked {
        Ok(mut cluster) => {
            // A controller's own comes with it: the one that answers may be the one that goes.
            if settings.role == Role::Controller {
                cluster.server = asked_for(settings, "kube-apiserver").unwrap_or(cluster.server);
            }
            Ok(judge(&replacement, identity, &url, &cluster)?)
        }
        Err(why) => {
            if let (Some(from), true) = (&replacement.from, wants_drain) {
                let (node, from, to) = (identity.name.to_string(), from.to_string(), replacement.to);
                return Err(Refused::Unasked { node, from, to, why }.into());
            }
            tell.tell(&Event::NotCompared { kubelet: replacement.to.as_str(), why: &why });
            Ok(())
        }
    }
}

/// What the API server said.
struct Answers {
    server: Version,
    /// The Node and its pods, where it matters whether it is drained.
    node: Option<(Value, Value)>,
}

async fn ask(
    settings: &Settings,
    identity: &Identity,
    root: &Root,
    http: &Http,
    url: &HttpUrl,
    drained: bool,
) -> Result<Answers, String> {
    let ca = client::needed(root, &settings.certs.ca).map_err(|fault| fault.to_string())?;
    // Everybody may ask for the version (kubernetes.io, "Default roles": system:public-info-viewer).
    let pair = ClientPair::read(root, &node_pair(settings)).ok();
    let login = pair.as_ref().map_or(Login::Anonymous, ClientPair::login);
    let server = http.server(url, &ca, login).map_err(|error| error.to_string())?;
    let asking = answers(&server, identity.name.as_str(), drained);
    match tokio::time::timeout(PATIENCE, asking).await {
        Ok(answers) => answers,
        Err(_) => Err(format!("{url} did not answer within {} s", PATIENCE.as_secs())),
    }
}

async fn answers(server: &Server<'_>, name: &str, drained: bool) -> Result<Answers, String> {
    let text = |error: HttpError| error.to_string();
    let version = server.get("/version").await.map_err(text)?;
    let version = version["gitVersion"].as_str().unwrap_or_default();
    let version = version.parse().map_err(|_| format!("it says that it is {version:?}"))?;
    let node = if drained {
        let node = server.get(&format!("/api/v1/nodes/{name}")).await.map_err(text)?;
        let pods = server.get(&format!("/api/v1/pods?fieldSelector=spec.nodeName%3D{name}")).await.map_err(text)?;
        Some((node, pods))
    } else {
        None
    };
    Ok(Answers { server: version, node })
}

fn judge(replacement: &Replacement, identity: &Identity, url: &HttpUrl, answers: &Answers) -> Result<(), Refused> {
    let Replacement { from, to } = replacement;
    if to.release() > answers.server.release() {
        return Err(Refused::NewerKubelet { kubelet: to.clone(), server: answers.server.clone(), url: url.clone() });
    }
    let why = answers.node.as_ref().and_then(|(node, pods)| undrained(node, pods));
    match (why, from) {
        (Some(why), Some(from)) => {
            let (node, from) = (identity.name.to_string(), from.to_string());
            Err(Refused::NotDrained { node, from, to: to.clone(), why })
        }
        _ => Ok(()),
    }
}

/// What is left to drain: as `kubectl drain --ignore-daemonsets` sees it.
fn undrained(node: &Value, pods: &Value) -> Option<String> {
    const SHOWN: usize = 5;
    if node["spec"]["unschedulable"] != true {
        return Some("new pods may still come".to_owned());
    }
    let stays = |pod: &Value| {
        let owners = pod["metadata"]["ownerReferences"].as_array();
        let of_set =
            owners.into_iter().flatten().any(|owner| owner["kind"] == "DaemonSet" && owner["controller"] == true);
        let mirror = !pod["metadata"]["annotations"]["kubernetes.io/config.mirror"].is_null();
        let over = matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed"));
        !(of_set || mirror || over)
    };
    let name = |pod: &Value| {
        let part = |name: &str| pod["metadata"][name].as_str().unwrap_or("?").to_owned();
        format!("{}/{}", part("namespace"), part("name"))
    };
    let left: Vec<String> = pods["items"].as_array().into_iter().flatten().filter(|pod| stays(pod)).map(name).collect();
    let more = if left.len() > SHOWN { format!(" and {} more", left.len() - SHOWN) } else { String::new() };
    let shown = left.iter().take(SHOWN).cloned().collect::<Vec<_>>().join(", ");
    (!left.is_empty()).then(|| format!("it runs {shown}{more}"))
}

/// Refuses to go back to programs that may not read what those in place have stored.
pub fn check_undoing(root: &Root, relinked: &[Relinked]) -> Result<(), Refused> {
    for program in STORES {
        let link = RootPath::literal(BIN).join(program);
        let Some(to) = relinked.iter().find(|relinked| relinked.path == link).and_then(|relinked| relinked.to.as_ref())
        else {
            continue;
        };
        if let (Some(from), Some(to)) = (placed(root, program)?, version_of(program, to)) {
            newer_stays(program, from, to)?;
        }
    }
    Ok(())
}

/// Refuses an older minor release.
fn newer_stays(program: &'static str, from: Version, to: Version) -> Result<(), Refused> {
    if to.release() < from.release() { Err(Refused::Downgrade { program, from, to }) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use serde_json::json;

    use super::*;
    use crate::engine::change::Meta;

    fn version(text: &str) -> Version {
        text.parse().expect("a version")
    }

    fn refusal(from: Option<&str>, to: &str, server: &str, node: Option<(Value, Value)>) -> Option<String> {
        let replacement = Replacement { from: from.map(version), to: version(to) };
        let answers = Answers { server: version(server), node };
        let url = "https://10.10.30.11:6443".parse().expect("a URL");
        judge(&replacement, &Identity::sample(), &url, &answers).err().map(|refused| refused.to_string())
    }

    #[test]
    fn no_kubelet_is_newer_than_the_api_server() {
        for (to, server, refused) in [
            ("v1.20.2", "v1.20.2", false),
            ("v1.20.9", "v1.20.2", false),
            ("v1.19.1", "v1.20.2", false),
            ("v1.21.0", "v1.20.9", true),
            ("v2.0.0", "v1.99.0", true),
        ] {
            let said = refusal(None, to, server, None);
            assert_eq!(said.is_some(), refused, "{to} with {server}: {said:?}");
            assert!(said.is_none_or(|said| said.contains(to) && said.contains(server)));
        }
    }

    #[test]
    fn a_minor_upgrade_wants_a_drained_node() {
        let cordoned = json!({ "spec": { "unschedulable": true } });
        let pod = |name: &str, more: Value| {
            let mut pod =
                json!({ "metadata": { "namespace": "default", "name": name }, "status": { "phase": "Running" } });
            for (key, value) in more.as_object().expect("an object") {
                pod[key] = value.clone();
            }
            pod
        };
        let of_set =
            json!({ "metadata": { "name": "set", "ownerReferences": [{ "kind": "DaemonSet", "controller": true }] } });
        let mirror = json!({ "metadata": { "name": "static", "annotations": { "kubernetes.io/config.mirror": "x" } } });
        let over = json!({ "status": { "phase": "Succeeded" } });
        let stay = json!({ "items": [pod("a", of_set), pod("b", mirror), pod("c", over)] });
        let go = json!({ "items": [pod("web", json!({}))] });
        let ask = |node: &Value, pods: &Value| {
            refusal(Some("v1.19.1"), "v1.20.2", "v1.20.2", Some((node.clone(), pods.clone())))
        };
        assert_eq!(ask(&cordoned, &stay), None);
        assert!(ask(&json!({ "spec": {} }), &stay).is_some_and(|said| said.contains("new pods may still come")));
        assert!(ask(&cordoned, &go).is_some_and(|said| said.contains("it runs default/web")));
        assert_eq!(refusal(Some("v1.20.1"), "v1.20.2", "v1.20.2", None), None, "a patch release asks nobody");
    }

    #[test]
    fn a_kubelet_in_place_is_known_by_its_link() {
        let tree = tempfile::tempdir().expect("a directory");
        let root = Root::open(tree.path()).expect("a root");
        let mut settings = Settings::sample();
        let wanted = kubelet(&settings, &root).expect("looked at");
        assert_eq!(wanted, Some(Replacement { from: None, to: version("v1.34.2") }));
        root.make_own_dirs(&RootPath::literal(BIN), Meta::PROGRAM).expect("a directory");
        symlink("/opt/nodeagent/releases/kubelet/v1.33.1/bin/kubelet", tree.path().join("opt/bin/kubelet"))
            .expect("a link");
        let wanted = kubelet(&settings, &root).expect("looked at").expect("another one");
        assert!(wanted.is_minor() && wanted.from == Some(version("v1.33.1")), "{wanted:?}");
        for artifact in settings.install.artifacts.values_mut() {
            "v1.33.1".clone_into(&mut artifact.version);
        }
        assert_eq!(kubelet(&settings, &root).expect("looked at"), None);
    }

    #[test]
    fn what_has_stored_something_is_not_replaced_by_an_older_minor_release() {
        let tree = tempfile::tempdir().expect("a directory");
        let root = Root::open(tree.path()).expect("a root");
        root.make_own_dirs(&RootPath::literal(BIN), Meta::PROGRAM).expect("a directory");
        let link = |program: &str, version: &str| format!("/opt/nodeagent/releases/{program}/{version}/bin/{program}");
        for program in ["etcd", "kube-apiserver", "kubelet"] {
            symlink(link(program, "v1.20.2"), tree.path().join("opt/bin").join(program)).expect("a link");
        }
        for (program, to, refused) in [
            ("etcd", Some("v1.19.9"), true),
            ("kube-apiserver", Some("v1.19.9"), true),
            ("kube-apiserver", Some("v1.20.1"), false),
            ("kube-apiserver", Some("v1.21.0"), false),
            ("kubelet", Some("v1.19.9"), false),
            ("etcd", None, false),
        ] {
            let path = RootPath::literal(BIN).join(program);
            let relinked = [Relinked { path, to: to.map(|version| link(program, version)) }];
            assert_eq!(check_undoing(&root, &relinked).is_err(), refused, "{program} {to:?}");
        }
    }
}
