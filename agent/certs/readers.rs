//! Who reads each of a node's certificates: units by their own settings, and kubeconfigs, which name a pair and embed the
//! cluster's CA. Pure. A test in `tests/cli/golden.rs` compares it with what the units are really told.

use super::kubeconfig;
use super::needs::{self, ADMIN_CLIENT, Need};
use crate::config::kubeadm;
use crate::config::settings::{Role, Settings};
use crate::config::values::{RootPath, UnitName};

/// The agent's own unit that applies what a cluster lacks, as the administrator.
const CLUSTER: &str = "nodeagent-cluster.service";
/// The agent's own unit that takes snapshots of the store, as one of its clients.
const SNAPSHOT: &str = "nodeagent-etcd-snapshot.service";
/// The pair that it shows.
const SNAPSHOT_CLIENT: &str = "etcd-server";

/// Who reads a file.
#[derive(Debug, Default)]
pub(super) struct Readers {
    /// The units that do.
    pub units: Vec<UnitName>,
    /// The kubeconfigs that name it, or embed it.
    pub kubeconfigs: Vec<RootPath>,
}

impl Readers {
    /// These units alone.
    pub fn of(units: &[&str]) -> Self {
        Self { units: units.iter().map(|unit| UnitName::literal(unit)).collect(), kubeconfigs: Vec::new() }
    }

    /// These units, and the kubeconfig that a kubelet has which kubeadm set up.
    pub fn of_kubeadm(units: &[&str]) -> Self {
        Self { kubeconfigs: vec![RootPath::literal(kubeadm::JOINED)], ..Self::of(units) }
    }

    /// Those of a CA, by its name.
    pub fn of_authority(name: &str, settings: &Settings) -> Self {
        let is_controller = settings.role == Role::Controller;
        let when = |yes: bool, units: &'static [&str]| units.iter().filter(move |_| yes).copied();
        let units: Vec<&str> = match name {
            "etcd-ca" => when(settings.etcd.member, &[needs::ETCD])
                .chain(when(takes_snapshots(settings), &[SNAPSHOT]))
                .chain(when(is_controller, &[needs::API_SERVER]))
                .collect(),
            "front-proxy-ca" => when(is_controller, &[needs::API_SERVER, needs::CONTROLLER_MANAGER]).collect(),
            _ => when(settings.role.has_pairs_of_pods(), &[needs::KUBELET])
                .chain(when(is_controller, &[needs::API_SERVER, needs::CONTROLLER_MANAGER, needs::SCHEDULER, CLUSTER]))
                .collect(),
        };
        // Whom the API server trusts is of no interest to its clients but for the cluster's own CA.
        let programs = if name == "ca" { kubeconfig::of_role(settings) } else { Vec::new() };
        let kubeconfigs = programs.iter().map(|program| RootPath::literal(program.path)).collect();
        Self { kubeconfigs, ..Self::of(&units) }
    }

    /// Those of a pair that the role needs.
    pub fn of_need(need: &Need, settings: &Settings) -> Self {
        let mut all = Self { units: need.reader.iter().cloned().collect(), kubeconfigs: Vec::new() };
        for program in kubeconfig::of_role(settings).into_iter().filter(|program| program.client == need.name) {
            all.kubeconfigs.push(RootPath::literal(program.path));
            all.units.extend(program.reader.map(UnitName::literal));
        }
        let is_administrators = settings.role == Role::Controller && need.name == ADMIN_CLIENT;
        let is_shown_for_snapshots = takes_snapshots(settings) && need.name == SNAPSHOT_CLIENT;
        all.units.extend(is_administrators.then(|| UnitName::literal(CLUSTER)));
        all.units.extend(is_shown_for_snapshots.then(|| UnitName::literal(SNAPSHOT)));
        all.units.sort();
        all.units.dedup();
        all
    }
}

fn takes_snapshots(settings: &Settings) -> bool {
    settings.etcd.member && settings.etcd.snapshots.enabled
}
