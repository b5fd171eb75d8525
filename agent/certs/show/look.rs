//! What is seen of each certificate, and what is to be said against it.

use std::collections::BTreeMap;
use std::time::SystemTime;

use openssl::asn1::Asn1Time;
use openssl::x509::{X509, X509Ref};

use super::{Kind, KnownCa, Says, Shown, Waiting};
use crate::certs::authority::{Authority, AuthorityFlaw, flaw_of, name_text, seconds_between, unix};
use crate::certs::carried::Carried;
use crate::certs::check::{check_strangers, exposed, judge, names};
use crate::certs::flaw::Flaw;
use crate::certs::key::Key;
use crate::certs::needs::{self, Need, node_client, pair_path};
use crate::certs::readers::Readers;
use crate::certs::request::Wanted;
use crate::certs::signer::Offline;
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
        let pem = self.seen.bytes(&file).ok().flatten().unwrap_or_default();
        let certificates = X509::stack_from_pem(pem).unwrap_or_default();
        let read = Authority::seen(&file, self.seen);
        let row = |says, flaw: Option<String>| Shown {
            file: file.clone(),
            kind: Kind::Authority,
            purpose: purpose.to_owned(),
            read_by: readers.units.clone(),
            kubeconfigs: readers.kubeconfigs.clone(),
            says,
            flaws: flaw.into_iter().collect(),
            request: None,
        };
        let why = read.as_ref().err().map(|cannot| cannot.why.clone());
        if certificates.is_empty() {
            self.all.push(row(None, why.clone()));
        }
        self.all.extend(certificates.iter().map(|ca| {
            let flaw = flaw_of(ca, self.now).map(|flaw| flaw.to_string());
            row(Some(says(ca, None, self.now)), flaw.or_else(|| why.clone()))
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
            request: None,
        });
    }

    /// A pair that this role needs: what is said against it is why it would be made anew.
    pub(super) fn need(&mut self, settings: &Settings, need: &Need) {
        let file = pair_path(settings, &need.name);
        let flaws = texts(self.judged(&file, &need.wanted, &need.ca.ca));
        let request = Offline::of(need).and_then(|files| self.request(settings, need, files, flaws.is_empty()));
        let row = self.row(&file, Kind::Pair, &need.purpose, Readers::of_need(need, settings), flaws);
        self.all.push(Shown { request, ..row });
    }

    /// What a person has to do with the request for a pair, if anything.
    fn request(&self, settings: &Settings, need: &Need, files: Offline, is_good: bool) -> Option<Waiting> {
        if is_good && !files.all().iter().any(|file| matches!(self.seen.entry(file), Ok(Entry::File { .. }))) {
            return None;
        }
        let carried = Carried::new(settings, need, files);
        let next = if is_good { Ok(carried.no_more()) } else { carried.next(self.seen) };
        Some(Waiting {
            next: next.unwrap_or_else(|cannot| cannot.to_string()),
            file: carried.files.request,
            certificate: carried.files.certificate,
        })
    }

    /// All that is wrong with a pair, or why that cannot be told. One that is not there needs no CA to be judged by.
    fn judged(&self, file: &RootPath, wanted: &Wanted, ca: &RootPath) -> Result<Vec<Flaw>, String> {
        judge(file, wanted, ca, self.seen).or_else(|cannot| match self.seen.bytes(file) {
            Ok(None) => Ok(vec![Flaw::Absent]),
            Ok(Some(_)) => Err(format!("it cannot be judged: {cannot}")),
            Err(cannot) => Err(cannot.why),
        })
    }

    /// The kubelet's own pair where kubeadm joined the node: the kubelet renews it, in files to which a link leads.
    pub(super) fn kubelets_client(&mut self, settings: &Settings, identity: &Identity) {
        let file = RootPath::literal(kubeadm::CLIENT_PAIR);
        if self.is_absent(&file) {
            return;
        }
        // A link that leads elsewhere is told as what it is.
        let target = Some(self.target(&file)).filter(|target| self.seen.entry(target).is_ok());
        let target = target.unwrap_or_else(|| file.clone());
        let flaws = self.judged(&target, &node_client(settings, identity), &RootPath::literal(kubeadm::CA));
        // When it is renewed, and with what kind of key, is the kubelet's to say.
        let flaws = flaws.map(|all| all.into_iter().filter(|flaw| !flaw.leaves_it_working()).collect());
        let purpose = "kubelet's client certificate, which it renews itself";
        let readers = Readers::of_kubeadm(&[needs::KUBELET]);
        let row = self.row(&target, Kind::Other, purpose, readers, texts(flaws));
        self.all.push(Shown { file, ..row });
    }

    /// A certificate that this program did not make, if it is one.
    pub(super) fn brought(&mut self, file: &RootPath, purpose: &str, readers: Readers, signed: Signed<'a>) {
        let pem = self.seen.bytes(file);
        let certificate = pem.as_ref().ok().copied().flatten().and_then(|pem| X509::from_pem(pem).ok());
        let flaws = match (pem, certificate) {
            (Err(cannot), _) => vec![cannot.why],
            (Ok(Some(pem)), Some(certificate)) => {
                let key = Key::from_pem(pem).ok();
                let mut flaws = texts(Ok(check_strangers(&certificate, key.as_ref(), self.now)));
                flaws.extend(self.stranger(&certificate, signed));
                let open = self.seen.entry(file).ok().and_then(exposed).filter(|_| key.is_some());
                flaws.extend(open.map(|open| Flaw::Exposed(open).to_string()));
                flaws
            }
            (Ok(None), _) if matches!(signed, Signed::By(_)) => vec![Flaw::Absent.to_string()],
            (Ok(_), _) if matches!(signed, Signed::By(_)) => vec![Flaw::Garbage("certificate").to_string()],
            (Ok(_), _) => return,
        };
        let row = self.row(file, Kind::Other, purpose, readers, flaws);
        self.all.push(row);
    }

    /// That nobody signed it who should have.
    fn stranger(&self, certificate: &X509Ref, signed: Signed<'a>) -> Option<String> {
        let has_signed = |ca: &Authority| ca.issuer_of(certificate).is_some();
        match signed {
            Signed::By(ca) => (!self.cas.get(ca).and_then(|ca| ca.as_ref().ok()).is_some_and(has_signed))
                .then(|| format!("no CA of {ca} signed it")),
            Signed::ByAnyOfOurs => {
                (!self.cas.values().flatten().any(has_signed)).then(|| "no CA of this node's signed it".to_owned())
            }
            Signed::ByItself => None,
        }
    }

    /// What is in a file that should hold a certificate and may hold its key.
    fn row(&self, file: &RootPath, kind: Kind, purpose: &str, readers: Readers, flaws: Vec<String>) -> Shown {
        let pem = self.seen.bytes(file).ok().flatten();
        let certificate = pem.and_then(|pem| X509::from_pem(pem).ok());
        let key = pem.and_then(|pem| Key::from_pem(pem).ok());
        Shown {
            file: file.clone(),
            kind,
            purpose: purpose.to_owned(),
            read_by: readers.units,
            kubeconfigs: readers.kubeconfigs,
            says: certificate.map(|certificate| says(&certificate, key.as_ref(), self.now)),
            flaws,
            request: None,
        }
    }
}

/// All that is wrong, in words.
fn texts(flaws: Result<Vec<Flaw>, String>) -> Vec<String> {
    flaws.map_or_else(|why| vec![why], |flaws| flaws.iter().map(Flaw::to_string).collect())
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
