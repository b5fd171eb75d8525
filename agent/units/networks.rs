//! Which network the pods of a node have, and what of another one goes.

use super::components::Node;
use super::retired::{Gone, retire};
use super::{flannel, planned, pod_network, program, service};
use crate::config::settings::Origin;
use crate::config::values::{RootPath, UnitName};
use crate::engine::change::Debt;
use crate::engine::file::ManagedFile;
use crate::engine::resource::{Planned, Thing};

/// What starts the networks' units at each boot.
const BOOT: &str = "multi-user.target";

/// Adds what the network needs, and returns what must run.
pub fn plan(node: &Node<'_>, all: &mut Vec<Planned>) -> Vec<Planned> {
    let why = node.settings.origins.of("cluster.network");
    let mut running = Vec::new();
    match pod_network::plan(node) {
        Some((bridge, routes)) => {
            all.push(planned("pod-network".to_owned(), &why, Vec::new(), Box::new(bridge)));
            running.push(program(routes, &why, all));
        }
        None => retire(pod_network::UNIT, BOOT, &pod_network::files(), &why, all),
    }
    if node.flannel().is_some() {
        running.push(with_flannel(&why, all));
    } else {
        retire(flannel::GATE.0, BOOT, &[flannel::CONFLIST, flannel::CLEARING.0].map(RootPath::literal), &why, all);
        let files = ["flanneld.env", "flannel.conf", "flannel-network.json"].map(super::components::etc);
        retire(flannel::UNIT, BOOT, &files, &why, all);
    }
    let waits = if node.settings.role.runs_pods() { flannel::waiting(node.settings) } else { Vec::new() };
    if waits.is_empty() {
        let files = flannel::waiting_paths().collect();
        let gone = Gone { what: "waits for flannel".to_owned(), files, links: Vec::new(), after: None };
        all.push(planned("flannel-waits-gone".to_owned(), &why, vec![Debt::DaemonReload], Box::new(gone)));
    }
    if node.flannel().is_some() && flannel::must_wait(node.settings) {
        let files = ["flannel.conf", "flannel-network.json"].map(super::components::etc).into();
        let what = "what flannel asked the API server by".to_owned();
        let gone = Gone { what, files, links: Vec::new(), after: None };
        all.push(planned("flannel-api-gone".to_owned(), &why, Vec::new(), Box::new(gone)));
    }
    for (name, drop_in) in waits {
        // What runs has no need of it until the next boot.
        all.push(planned(name.to_owned(), &why, vec![Debt::DaemonReload], Box::new(drop_in)));
    }
    running
}

/// Adds what tells container runtimes of flannel, and returns its start.
fn with_flannel(why: &Origin, all: &mut Vec<Planned>) -> Planned {
    let gate = UnitName::literal(flannel::GATE.0);
    let (conflist, (path, text)) = (flannel::conflist(), flannel::CLEARING);
    let clearing = ManagedFile::new(RootPath::literal(path), text.to_owned());
    let after = vec![Thing::Stat(conflist.path.clone()), Thing::Stat(clearing.path.clone())];
    all.push(planned("flannel-cni".to_owned(), why, vec![Debt::Restart(gate.clone())], Box::new(conflist)));
    all.push(planned("flannel-clearing".to_owned(), why, Vec::new(), clearing));
    service(&gate, flannel::GATE.1, after, why, all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::settings::{FlannelBackend, FlannelEtcd, FlannelSettings, FlannelStore, Role, Settings};
    use crate::host::facts::Facts;
    use crate::identity::Identity;

    #[test]
    fn nothing_is_made_or_taken_away_twice() {
        let etcd = FlannelEtcd {
            endpoints: Vec::new(),
            prefix: RootPath::literal("/p"),
            ca: RootPath::literal("/c"),
            pair: RootPath::literal("/k"),
        };
        let stores = [None, Some(FlannelStore::Kubernetes), Some(FlannelStore::Etcd(etcd))];
        for role in [Role::Etcd, Role::Controller, Role::Worker, Role::Edge, Role::Kubeadm] {
            for store in &stores {
                let mut settings = Settings::sample();
                settings.role = role;
                settings.cluster.flannel =
                    store.clone().map(|store| FlannelSettings { backend: FlannelBackend::Vxlan, store });
                let (facts, identity) = (Facts::sample(), Identity::sample());
                let node = Node { settings: &settings, facts: &facts, identity: &identity };
                let mut all = Vec::new();
                let running = plan(&node, &mut all);
                let mut made: Vec<String> = Vec::new();
                for planned in all.iter().chain(&running) {
                    let things = planned.what.makes().into_iter().filter(|thing| !thing.is_of_units());
                    for thing in things.map(|thing| format!("{thing:?}")) {
                        assert!(!made.contains(&thing), "{role} {store:?}: {thing} by {}", planned.id);
                        made.push(thing);
                    }
                }
            }
        }
    }
}
