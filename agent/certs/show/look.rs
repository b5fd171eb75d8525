//! What is seen of each certificate, and what is to be said against it.

use std::collections::BTreeMap;
use std::time::SystemTime;

use openssl::asn1::Asn1Time;
use openssl::x509::{X509, X509Ref};

use super::{Kind, KnownCa, Says, Shown};
use crate::certs::authority::{Authority, AuthorityFlaw, flaw_of, name_text, seconds_between, unix};
use crate::certs::check::{Flaw, check, names, time_flaw};
use crate::certs::key::Key;
use crate::certs::needs::{self, Need, node_client, pair_path};
use crate::certs::pair::exposed;
use crate::certs::readers::Readers;
use crate::certs::signing_ca::SigningCa;
use crate::config::kubeadm;
use crate::config::settings::Settings;
use crate::config::values::{RootPath, UnitName};
use crate::engine::resource::{CannotTell, Seen};
use crate::host::seen::Entry;
use crate::identity::Identity;

/// Who must have signed what this program did not make.
pub(super) enum Signed<'a> {
    /// The CA of this file.
    By(&'a RootPath),
    /// One that this node knows.
    ByAnyOfOurs,
    /// Nobody whom this node knows.
    ByItself,
}

/// What was seen, and what has been made of it so far.
pub(super) struct Look<'a> {
    seen: &'a Seen,
    now: SystemTime,
    /// Each CA's file, read.
    cas: BTreeMap<RootPath, Result<Authority, CannotTell>>,
    /// The rows.
    pub(super) all: Vec<Shown>,
}

impl<'a> Look<'a> {
    /// Nothing is shown yet.
    pub(super) fn new(seen: &'a Seen) -> Result<Self, CannotTell> {
        Ok(Self { seen, now: seen.now()?, cas: BTreeMap::new(), all: Vec::new() })
    }

    /// Whether nothing is there.
    pub(super) fn is_absent(&self, file: &RootPath) -> bool {
        matches!(self.seen.entry(file), Ok(Entry::Absent))
    }

    /// The file to which a link leads, as the kubelet's own does; a file itself.
    pub(super) fn target(&self, file: &RootPath) -> RootPath {
        let Ok(Entry::Link(to)) = self.seen.entry(file) else { return file.clone() };
        let to = if to.starts_with('/') { to.clone() } else { format!("{}/{to}", file.parent()) };
        to.parse().unwrap_or_else(|_| file.clone())
    }

    /// A row for each certificate of a CA's file; one that says so if there is none.
    pub(super) fn authority(&mut self, KnownCa { file, purpose, readers }: KnownCa) {
        let bytes = self.seen.bytes(&file);
        let pem = bytes.as_ref().ok().copied().flatten().unwrap_or_default();
        let certificates = X509::stack_from_pem(pem).unwrap_or_default();
        let read = bytes.and_then(|pem| Ok(Authority::read(&file, pem, self.now)?));
        let row = |says, flaw: Option<String>| Shown {
            file: file.clone(),
            kind: Kind::Authority,
            purpose: purpose.to_owned(),
            read_by: readers.units.clone(),
            kubeconfigs: readers.kubeconfigs.clone(),
            says,
            flaws: flaw.into_iter().collect(),
        };
        if certificates.is_empty() {
            self.all.push(row(None, read.as_ref().err().map(|cannot| cannot.why.clone())));
        }
        self.all.extend(certificates.iter().map(|ca| {
            let flaw = flaw_of(ca, self.now).map(|flaw| flaw.to_string());
            row(Some(says(ca, None, self.now)), flaw)
        }));
        self.cas.insert(file, read);
    }

    /// The one of the cluster's CA certificates that the controller manager signs with.
    pub(super) fn signing_ca(&mut self, signing: &SigningCa) {
        let bytes = self.seen.bytes(&signing.path);
        let certificate = bytes.as_ref().ok().copied().flatten().and_then(|pem| X509::from_pem(pem).ok());
        let flaw = match (&bytes, &certificate) {
            (Err(cannot), _) => Some(cannot.why.clone()),
            (Ok(None), _) => Some(AuthorityFlaw::Absent.to_string()),
            (Ok(Some(_)), None) => Some(AuthorityFlaw::Garbage.to_string()),
            (Ok(Some(_)), Some(certificate)) => {
                let is_ours = |ca: &Result<Authority, CannotTell>| ca.as_ref().is_ok_and(|ca| ca.has(certificate));
                let stranger = || format!("it is not among those of {}", signing.ca);
                let flaw = flaw_of(certificate, self.now).map(|flaw| flaw.to_string());
                flaw.or_else(|| (!self.cas.get(&signing.ca).is_some_and(is_ours)).then(stranger))
            }
        };
        self.all.push(Shown {
            file: signing.path.clone(),
            kind: Kind::Authority,
            purpose: "the cluster's CA, as the controller manager signs".to_owned(),
            read_by: vec![UnitName::literal(needs::CONTROLLER_MANAGER)],
            kubeconfigs: Vec::new(),
            says: certificate.map(|certificate| says(&certificate, None, self.now)),
            flaws: flaw.into_iter().collect(),
        });
    }

    /// A pair that this role needs: what is said against it is why it would be made anew.
    pub(super) fn need(&mut self, settings: &Settings, need: Need) {
        let file = pair_path(settings, &need.name);
        let readers = Readers::of_need(&need, settings);
        let flaws = match self.seen.bytes(&file) {
            Err(cannot) => vec![cannot.why],
            Ok(pem) => match self.cas.get(&need.ca.ca) {
                Some(Ok(ca)) => check(pem, &need.wanted, ca, self.now).iter().map(Flaw::to_string).collect(),
                Some(Err(error)) => vec![format!("it cannot be judged: {error}")],
                None => vec!["its CA is none of this node's".to_owned()],
            },
        };
        self.pair(file.clone(), &file, Kind::Pair, need.purpose, readers, flaws);
    }

    /// The kubelet's own pair where kubeadm joined the node: the kubelet renews it, in files to which a link leads.
    pub(super) fn kubelets_client(&mut self, settings: &Settings, identity: &Identity) {
        let file = RootPath::literal(kubeadm::CLIENT_PAIR);
        let target = self.target(&file);
        if self.is_absent(&file) {
            return;
        }
        // A link that leads elsewhere is told as what it is.
        let pem = self.seen.bytes(&target).or_else(|_| self.seen.bytes(&file));
        let flaws = match (pem, self.cas.get(&RootPath::literal(kubeadm::CA))) {
            (Err(cannot), _) => vec![cannot.why],
            (Ok(pem), Some(Ok(ca))) => {
                let flaws = check(pem, &node_client(settings, identity), ca, self.now);
                // When it is renewed, and with what kind of key, is the kubelet's to say.
                let is_its_own = |flaw: &Flaw| matches!(flaw, Flaw::RenewalDue { .. } | Flaw::OtherKind { .. });
                flaws.iter().filter(|flaw| !is_its_own(flaw)).map(Flaw::to_string).collect()
            }
            (Ok(_), _) => vec!["it cannot be judged without the cluster's CA".to_owned()],
        };
        let purpose = "kubelet's client certificate, which it renews itself".to_owned();
        self.pair(file, &target, Kind::Other, purpose, Readers::of_kubeadm(&[needs::KUBELET]), flaws);
    }

    /// A certificate that this program did not make, if it is one.
    pub(super) fn brought(&mut self, file: &RootPath, purpose: &str, readers: Readers, signed: Signed<'a>) {
        let mut flaws = Vec::new();
        match self.seen.bytes(file) {
            Err(cannot) => flaws.push(cannot.why),
            Ok(pem) => {
                let Some(certificate) = pem.and_then(|pem| X509::from_pem(pem).ok()) else {
                    if matches!(signed, Signed::By(_)) {
                        let flaw = if pem.is_none() { Flaw::Absent } else { Flaw::Garbage("certificate") };
                        self.pair(file.clone(), file, Kind::Other, purpose.to_owned(), readers, vec![flaw.to_string()]);
                    }
                    return;
                };
                let key = pem.and_then(|pem| Key::from_pem(pem).ok());
                let fits = |key: Key| certificate.public_key().is_ok_and(|public| key.fits(&public));
                if key.is_some_and(|key| !fits(key)) {
                    flaws.push(Flaw::KeyMismatch.to_string());
                }
                flaws.extend(time_flaw(&certificate, self.now).map(|flaw| flaw.to_string()));
                let has_signed = |ca: &Authority| ca.issuer_of(&certificate).is_some();
                let stranger = match signed {
                    Signed::By(ca) => (!self.cas.get(ca).and_then(|ca| ca.as_ref().ok()).is_some_and(has_signed))
                        .then(|| format!("no CA of {ca} signed it")),
                    Signed::ByAnyOfOurs => (!self.cas.values().flatten().any(has_signed))
                        .then(|| "no CA of this node's signed it".to_owned()),
                    Signed::ByItself => None,
                };
                flaws.extend(stranger);
            }
        }
        self.pair(file.clone(), file, Kind::Other, purpose.to_owned(), readers, flaws);
    }

    /// A row for what should be a certificate and may have its key beside it, in `target`.
    fn pair(
        &mut self,
        file: RootPath,
        target: &RootPath,
        kind: Kind,
        purpose: String,
        readers: Readers,
        mut flaws: Vec<String>,
    ) {
        let pem = self.seen.bytes(target).ok().flatten();
        let certificate = pem.and_then(|pem| X509::from_pem(pem).ok());
        let key = pem.and_then(|pem| Key::from_pem(pem).ok());
        let open = self.seen.entry(target).ok().and_then(exposed).filter(|_| kind == Kind::Pair || key.is_some());
        flaws
            .extend(open.map(|open| format!("others can read its key: {} {}, not {}", open.what, open.now, open.want)));
        self.all.push(Shown {
            file,
            kind,
            purpose,
            read_by: readers.units,
            kubeconfigs: readers.kubeconfigs,
            says: certificate.map(|certificate| says(&certificate, key.as_ref(), self.now)),
            flaws,
        });
    }
}

/// What a certificate says, and the key beside it.
pub fn says(certificate: &X509Ref, key: Option<&Key>, now: SystemTime) -> Says {
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
