//! Every certificate on the node: whose it is, whether it is good or why not, and who reads it. Pure.

use std::time::SystemTime;

use openssl::asn1::Asn1Time;
use openssl::x509::{X509, X509Ref};
use serde::Serialize;

use super::authority::{Authority, name_text, seconds_between, unix};
use super::check::{Flaw, check, names};
use super::key::Key;
use super::{Need, needs, pair_path};
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
    let pairs = needs(settings, identity).into_iter().map(|need| pair_path(settings, need.name));
    let files = pairs.chain([settings.certs.ca.clone()]).chain(others.iter().cloned());
    files.map(Thing::File).chain([Thing::Clock]).collect()
}

/// The CA's certificates, the role's pairs, and what else in `others` is a certificate.
pub fn show(
    settings: &Settings,
    identity: &Identity,
    others: &[RootPath],
    seen: &Seen,
) -> Result<Vec<Shown>, CannotTell> {
    let now = seen.now()?;
    let ca_file = &settings.certs.ca;
    let ca_pem = seen.bytes(ca_file)?;
    let authority = Authority::read(ca_file, ca_pem, now);
    let ca_flaw = authority.as_ref().err().map(|error| error.flaw.to_string());
    let mut all = Vec::new();
    let ca_row = |says| Shown {
        file: ca_file.clone(),
        purpose: "the cluster's CA".to_owned(),
        read_by: Vec::new(),
        says,
        flaws: ca_flaw.iter().cloned().collect(),
    };
    let cas = X509::stack_from_pem(ca_pem.unwrap_or_default()).unwrap_or_default();
    all.extend(cas.iter().map(|ca| ca_row(Some(says(ca, None, now)))));
    if cas.is_empty() {
        all.push(ca_row(None));
    }
    let needs = needs(settings, identity);
    for need in &needs {
        let path = pair_path(settings, need.name);
        let pem = seen.bytes(&path)?;
        let flaws = match &authority {
            Ok(ca) => check(pem, &need.wanted, ca, now).iter().map(Flaw::to_string).collect(),
            Err(error) => vec![format!("it cannot be judged: {error}")],
        };
        all.push(of_need(need, path, pem, flaws, now));
    }
    for path in others.iter().filter(|path| all.iter().all(|shown| shown.file != **path)).collect::<Vec<_>>() {
        let Ok(Some(pem)) = seen.bytes(path) else { continue };
        let Ok(certificate) = X509::from_pem(pem) else { continue };
        let foreign = authority.as_ref().is_ok_and(|ca| ca.issuer_of(&certificate).is_none());
        all.push(Shown {
            file: path.clone(),
            purpose: "nothing that this role needs".to_owned(),
            read_by: Vec::new(),
            says: Some(says(&certificate, Key::from_pem(pem).ok().as_ref(), now)),
            flaws: foreign.then(|| "it is not signed by the cluster's CA".to_owned()).into_iter().collect(),
        });
    }
    Ok(all)
}

fn of_need(need: &Need, file: RootPath, pem: Option<&[u8]>, flaws: Vec<String>, now: SystemTime) -> Shown {
    let certificate = pem.and_then(|pem| X509::from_pem(pem).ok());
    let key = pem.and_then(|pem| Key::from_pem(pem).ok());
    Shown {
        file,
        purpose: need.purpose.to_owned(),
        read_by: vec![need.reader.to_string()],
        says: certificate.map(|certificate| says(&certificate, key.as_ref(), now)),
        flaws,
    }
}

fn says(certificate: &X509Ref, key: Option<&Key>, now: SystemTime) -> Says {
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
