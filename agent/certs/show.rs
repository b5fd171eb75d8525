//! Every certificate on the node: whose it is, whether it is good or why not, and who reads it. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::time::SystemTime;

use openssl::asn1::Asn1Time;
use openssl::x509::{X509, X509Ref};
use serde::Serialize;

use super::authority::{Authority, AuthorityError, name_text, seconds_between, unix};
use super::check::{Flaw, check, names};
use super::key::Key;
use super::needs::{Need, needs, of_own, pair_path};
use crate::config::settings::Settings;
use crate::config::values::RootPath;
use crate::engine::resource::{CannotTell, Seen, Thing};
use crate::identity::Identity;

/// One certificate, or the place where one should be.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Shown {
    /// The file.
    pub file: RootPath,
    /// What it is for.
    pub purpose: String,
    /// The units that read it.
    pub read_by: Vec<String>,
    /// What it says; nothing if there is no certificate to read.
    #[serde(flatten)]
    pub says: Option<Says>,
    /// All that is wrong with it; nothing when it is good.
    pub flaws: Vec<String>,
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

/// What [`show`] wants to see; `others` are files beside the pairs.
pub fn reads(settings: &Settings, identity: &Identity, others: &[RootPath]) -> Vec<Thing> {
    let pairs = needs(settings, identity).into_iter().map(|need| pair_path(settings, &need.name));
    let cas = of_own(settings).into_iter().map(|(_, _, ca)| ca.ca);
    pairs.chain(cas).chain(others.iter().cloned()).map(Thing::File).chain([Thing::Clock]).collect()
}

/// The CAs' certificates, the role's pairs, and what else in `others` is a certificate.
pub fn show(
    settings: &Settings,
    identity: &Identity,
    others: &[RootPath],
    seen: &Seen,
) -> Result<Vec<Shown>, CannotTell> {
    let now = seen.now()?;
    let mut all = Vec::new();
    let mut authorities = BTreeMap::new();
    for (name, _, ca) in of_own(settings) {
        let pem = seen.bytes(&ca.ca)?;
        let authority = Authority::read(&ca.ca, pem, now);
        all.extend(of_ca(name, &ca.ca, pem, authority.as_ref().err(), now));
        authorities.insert(ca.ca, authority);
    }
    for need in needs(settings, identity) {
        let path = pair_path(settings, &need.name);
        let pem = seen.bytes(&path)?;
        let flaws = match authorities.get(&need.ca.ca) {
            Some(Ok(ca)) => check(pem, &need.wanted, ca, now).iter().map(Flaw::to_string).collect(),
            Some(Err(error)) => vec![format!("it cannot be judged: {error}")],
            None => vec!["its CA is none of this node's".to_owned()],
        };
        all.push(of_need(need, path, pem, flaws, now));
    }
    let known: BTreeSet<RootPath> = all.iter().map(|shown| shown.file.clone()).collect();
    for path in others.iter().filter(|path| !known.contains(path)) {
        let Ok(Some(pem)) = seen.bytes(path) else { continue };
        let Ok(certificate) = X509::from_pem(pem) else { continue };
        let ours = authorities.values().flatten().any(|ca| ca.issuer_of(&certificate).is_some());
        all.push(Shown {
            file: path.clone(),
            purpose: "nothing that this role needs".to_owned(),
            read_by: Vec::new(),
            says: Some(says(&certificate, Key::from_pem(pem).ok().as_ref(), now)),
            flaws: (!ours).then(|| "no CA of this node's signed it".to_owned()).into_iter().collect(),
        });
    }
    Ok(all)
}

/// A row for each certificate of a CA's file; one that says so if there is none.
fn of_ca(
    name: &str,
    file: &RootPath,
    pem: Option<&[u8]>,
    error: Option<&AuthorityError>,
    now: SystemTime,
) -> Vec<Shown> {
    let purpose = match name {
        "etcd-ca" => "the CA of the cluster's store",
        "front-proxy-ca" => "the CA of the API server's extensions",
        _ => "the cluster's CA",
    };
    let row = |says| Shown {
        file: file.clone(),
        purpose: purpose.to_owned(),
        read_by: Vec::new(),
        says,
        flaws: error.map(|error| error.flaw.to_string()).into_iter().collect(),
    };
    let all = X509::stack_from_pem(pem.unwrap_or_default()).unwrap_or_default();
    if all.is_empty() { vec![row(None)] } else { all.iter().map(|ca| row(Some(says(ca, None, now)))).collect() }
}

fn of_need(need: Need, file: RootPath, pem: Option<&[u8]>, flaws: Vec<String>, now: SystemTime) -> Shown {
    let certificate = pem.and_then(|pem| X509::from_pem(pem).ok());
    let key = pem.and_then(|pem| Key::from_pem(pem).ok());
    Shown {
        file,
        purpose: need.purpose,
        read_by: need.reader.iter().map(ToString::to_string).collect(),
        says: certificate.map(|certificate| says(&certificate, key.as_ref(), now)),
        flaws,
    }
}

pub(super) fn says(certificate: &X509Ref, key: Option<&Key>, now: SystemTime) -> Says {
    const DAY: i64 = 86_400;
    let left = Asn1Time::from_unix(unix(now)).and_then(|now| seconds_between(&now, certificate.not_after()));
    Says {
        subject: name_text(certificate.subject_name()),
        issuer: name_text(certificate.issuer_name()),
        names: names(certificate).into_iter().collect(),
        key: key.map(Key::describe),
        not_before: certificate.not_before().to_string(),
        not_after: certificate.not_after().to_string(),
        // OpenSSL accepted both times before; a difference beyond all calendars has no days to show.
        days_left: left.map_or(0, |seconds| seconds.div_euclid(DAY)),
    }
}
