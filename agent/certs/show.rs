//! Every certificate on the node: whose it is, whether it is good or why not, and who reads it. Pure.

mod look;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use serde::Serialize;

pub(super) use self::look::says;
use self::look::{Look, Signed};
use super::needs::{self, needs, of_own, pair_path};
use super::readers::Readers;
use super::signer::Offline;
use super::signing_ca::SigningCa;
use crate::config::kubeadm;
use crate::config::settings::{FlannelEtcd, FlannelStore, Role, Settings};
use crate::config::values::{RootPath, UnitName};
use crate::engine::resource::{CannotTell, Seen, Thing};
use crate::identity::Identity;

/// One certificate, or the place where one should be.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Shown {
    /// The file.
    pub file: RootPath,
    /// Whose business it is.
    pub kind: Kind,
    /// What it is for.
    pub purpose: String,
    /// The units that read it.
    pub read_by: Vec<UnitName>,
    /// The kubeconfigs that name it, or embed it.
    pub kubeconfigs: Vec<RootPath>,
    /// What it says; nothing if there is no certificate to read.
    #[serde(flatten)]
    pub says: Option<Says>,
    /// All that is wrong with it; nothing when it is good.
    pub flaws: Vec<String>,
    /// Its request, where a person signs it and something is left to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request: Option<Waiting>,
}

/// A request that a person carries to the CA.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Waiting {
    /// Where it is, or is to be.
    pub file: RootPath,
    /// Where its certificate is to be put.
    pub certificate: RootPath,
    /// What to do next.
    pub next: String,
}

/// Whose business a certificate is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A CA's, which people bring and replace.
    Authority,
    /// Of a pair that this program makes and renews.
    Pair,
    /// Somebody else's, or nobody's.
    Other,
}

/// What a certificate says.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Says {
    /// Whose it is.
    pub subject: String,
    /// Who signed it.
    pub issuer: String,
    /// The names and addresses that it vouches for.
    pub names: Vec<String>,
    /// What kind of key lies beside it; nothing where there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// From when on it is valid, as OpenSSL prints it.
    pub not_before: String,
    /// Until when.
    pub not_after: String,
    /// Whole days until then; negative afterwards.
    pub days_left: i64,
}

impl Says {
    /// How much of its life is left, in words.
    pub fn left(&self) -> String {
        match self.days_left {
            ..0 => "no days left".to_owned(),
            0 => "less than a day left".to_owned(),
            1 => "1 day left".to_owned(),
            days => format!("{days} days left"),
        }
    }
}

/// A CA that this node knows.
struct KnownCa {
    file: RootPath,
    purpose: &'static str,
    readers: Readers,
}

/// Every CA that this node knows.
fn authorities(settings: &Settings) -> Vec<KnownCa> {
    if settings.role == Role::Kubeadm {
        let file = RootPath::literal(kubeadm::CA);
        let readers = Readers::of_kubeadm(&[needs::KUBELET]);
        let own = KnownCa { file, purpose: "the cluster's CA, where kubeadm has it", readers };
        // Where a person joins the node, none was given.
        let given = (settings.certs.ca != own.file).then(|| KnownCa {
            file: settings.certs.ca.clone(),
            purpose: "the cluster's CA, by which kubeadm is to know the cluster",
            readers: Readers::default(),
        });
        return std::iter::once(own).chain(given).collect();
    }
    let own = of_own(settings).into_iter().map(|(name, _, ca)| KnownCa {
        file: ca.ca,
        purpose: match name {
            "etcd-ca" => "the CA of the cluster's store",
            "front-proxy-ca" => "the CA of the API server's extensions",
            _ => "the cluster's CA",
        },
        readers: Readers::of_authority(name, settings),
    });
    let flannels = flannel_etcd(settings).map(|etcd| KnownCa {
        file: etcd.ca.clone(),
        purpose: "the CA of flannel's own store",
        readers: Readers::of(&[needs::FLANNELD]),
    });
    own.chain(flannels).collect()
}

/// The store of flannel's own, on a node where flannel runs.
fn flannel_etcd(settings: &Settings) -> Option<&FlannelEtcd> {
    let flannel = settings.cluster.flannel.as_ref().filter(|_| settings.role.runs_pods())?;
    match &flannel.store {
        FlannelStore::Etcd(etcd) => Some(etcd),
        FlannelStore::Kubernetes => None,
    }
}

/// The directories whose certificates [`show`] is to be given as `others`.
pub fn places(settings: &Settings) -> Vec<RootPath> {
    let kubelets = (settings.role == Role::Kubeadm).then(|| RootPath::literal(kubeadm::CLIENT_PAIR).parent());
    std::iter::once(settings.certs.dir.clone()).chain(kubelets).collect()
}

/// What [`show`] wants to see; `others` are files in [`places`].
pub fn reads(settings: &Settings, identity: &Identity, others: &[RootPath]) -> Vec<Thing> {
    let mut files: BTreeSet<RootPath> = others.iter().cloned().collect();
    files.extend(authorities(settings).into_iter().map(|ca| ca.file));
    for need in needs(settings, identity) {
        files.extend(Offline::of(&need).into_iter().flat_map(|offline| offline.all()));
        files.insert(pair_path(settings, &need.name));
    }
    files.extend(SigningCa::of(settings).map(|signing| signing.path));
    files.extend(flannel_etcd(settings).map(|etcd| etcd.pair.clone()));
    if settings.role == Role::Kubeadm {
        files.extend([kubeadm::CLIENT_PAIR, kubeadm::SERVING].map(RootPath::literal));
    }
    files.into_iter().map(Thing::File).chain([Thing::Clock]).collect()
}

/// The CAs' certificates, the role's pairs, what others keep here, and what else in `others` is a certificate.
pub fn show(
    settings: &Settings,
    identity: &Identity,
    others: &[RootPath],
    seen: &Seen,
) -> Result<Vec<Shown>, CannotTell> {
    let mut look = Look::new(seen)?;
    let is_kubeadms = settings.role == Role::Kubeadm;
    for ca in authorities(settings) {
        // What kubeadm makes is there once it has joined the node, and what it is told by is wanted no more then.
        if !is_kubeadms || !look.is_absent(&ca.file) {
            look.authority(ca);
        }
    }
    if let Some(signing) = SigningCa::of(settings) {
        look.signing_ca(&signing);
    }
    for need in needs(settings, identity) {
        look.need(settings, &need);
    }
    if let Some(etcd) = flannel_etcd(settings) {
        let readers = Readers::of(&[needs::FLANNELD]);
        look.brought(&etcd.pair, "flannel's client certificate for its own store", readers, Signed::By(&etcd.ca));
    }
    if is_kubeadms {
        look.kubelets_client(settings, identity);
        let serving = RootPath::literal(kubeadm::SERVING);
        let purpose = "kubelet's serving certificate, which it made itself";
        look.brought(&serving, purpose, Readers::of(&[needs::KUBELET]), Signed::ByItself);
    }
    // A file to which a link leads that is shown already is no other.
    let known: BTreeSet<RootPath> =
        look.all.iter().flat_map(|shown| [shown.file.clone(), look.target(&shown.file)]).collect();
    for path in others.iter().filter(|path| !known.contains(path)) {
        look.brought(path, "nothing that this role needs", Readers::default(), Signed::ByAnyOfOurs);
    }
    Ok(look.all)
}
