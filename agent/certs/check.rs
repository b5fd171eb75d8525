//! Whether a pair satisfies what is wanted of it: asked of the file on disk at every run and whenever it is shown, and of a
//! signer's answer before it replaces anything. Pure.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::SystemTime;

use openssl::asn1::Asn1Time;
use openssl::error::ErrorStack;
use openssl::nid::Nid;
use openssl::stack::Stack;
use openssl::x509::store::X509StoreBuilder;
use openssl::x509::verify::{X509VerifyFlags, X509VerifyParam};
use openssl::x509::{GeneralNameRef, X509, X509ExtendedKeyUsage, X509KeyUsage, X509Ref, X509StoreContext};

use super::authority::{Authority, entry_text, name_text, seconds_between, unix};
use super::flaw::Flaw;
use super::key::{Key, KeyError};
use super::request::{Usage, Wanted};
use crate::config::values::RootPath;
use crate::engine::change::Meta;
use crate::engine::fault::quote;
use crate::engine::resource::{CannotTell, Delta, Seen};
use crate::host::seen::Entry;

/// A pair is replaced when less than this part of its life is left.
const RENEW_AT_PART: i64 = 3;

/// How far a signer's clock may be ahead of ours, in seconds (DESIGN.md, First boot: Time).
const CLOCK_SKEW: i64 = 300;

/// All that is wrong with the pair in `file`, by the CA of the file `ca`: what it says, and who can read it. No new pair
/// mends a bad CA: that is for people, and nothing can be told of the pair.
pub(super) fn judge(file: &RootPath, wanted: &Wanted, ca: &RootPath, seen: &Seen) -> Result<Vec<Flaw>, CannotTell> {
    let ca = Authority::seen(ca, seen)?;
    let mut flaws = check(seen.bytes(file)?, wanted, &ca, seen.now()?);
    flaws.extend(exposed(seen.entry(file)?).map(Flaw::Exposed));
    Ok(flaws)
}

/// What is wrong with a certificate of which nothing is known to be wanted, and with the key beside it, if there is one.
pub(super) fn check_strangers(certificate: &X509Ref, key: Option<&Key>, now: SystemTime) -> Vec<Flaw> {
    let key = key.filter(|key| !key.is_of(certificate)).map(|_| Flaw::KeyMismatch);
    key.into_iter().chain(check_time(certificate, now).filter(|flaw| !flaw.leaves_it_working())).collect()
}

/// A key that others could read is no secret any more: it is replaced, not only its mode.
pub(super) fn exposed(entry: &Entry) -> Option<Delta> {
    const OTHERS: u32 = 0o077;
    let Entry::File { meta, .. } = entry else { return None };
    let text = |meta: &Meta| format!("{:04o} {}:{}", meta.mode, meta.uid, meta.gid);
    let exposed = meta.mode & OTHERS != 0 || (meta.uid, meta.gid) != (Meta::SECRET.uid, Meta::SECRET.gid);
    exposed.then(|| Delta::new("mode and owner", text(meta), text(&Meta::SECRET)))
}

/// All that is wrong with the pair in `pem`, certificate and key in one file; nothing when it is good.
pub fn check(pem: Option<&[u8]>, wanted: &Wanted, ca: &Authority, now: SystemTime) -> Vec<Flaw> {
    let Some(pem) = pem else { return vec![Flaw::Absent] };
    // The first one is the leaf: what follows it would be intermediates, and a pinned CA signs directly.
    let Ok(certificate) = X509::from_pem(pem) else { return vec![Flaw::Garbage("certificate")] };
    match Key::from_pem(pem) {
        Ok(key) => check_certificate(&certificate, &key, wanted, ca, now),
        Err(KeyError::Encrypted) => vec![Flaw::EncryptedKey],
        Err(_) => vec![Flaw::Garbage("private key")],
    }
}

/// All that is wrong with a certificate for `key`.
fn check_certificate(certificate: &X509Ref, key: &Key, wanted: &Wanted, ca: &Authority, now: SystemTime) -> Vec<Flaw> {
    let mut flaws = Vec::new();
    if !key.is_of(certificate) {
        flaws.push(Flaw::KeyMismatch);
    }
    if key.describe() != wanted.key.to_string() {
        flaws.push(Flaw::OtherKind { now: key.describe(), want: wanted.key.to_string() });
    }
    let issuer = ca.issuer_of(certificate);
    if issuer.is_none() {
        flaws.push(Flaw::ForeignIssuer { issuer: name_text(certificate.issuer_name()), ca: ca.subjects() });
    }
    flaws.extend(check_time(certificate, now));
    flaws.extend(check_subject(certificate, wanted));
    flaws.extend(check_names(certificate, wanted));
    flaws.extend(
        wanted.usages.iter().filter(|usage| !allows(certificate, **usage)).map(|usage| Flaw::UsageMissing(*usage)),
    );
    if let (Some(issuer), true) = (issuer, flaws.is_empty()) {
        // What we have no words of our own for: name constraints, unknown critical extensions, weak signatures.
        let verdict = verify(certificate, issuer, unix(now)).unwrap_or_else(|error| Some(error.to_string()));
        flaws.extend(verdict.map(Flaw::Rejected));
    }
    flaws
}

fn check_time(certificate: &X509Ref, now: SystemTime) -> Option<Flaw> {
    time_flaw(certificate, unix(now)).unwrap_or(Some(Flaw::Garbage("validity")))
}

fn time_flaw(certificate: &X509Ref, now: i64) -> Result<Option<Flaw>, ErrorStack> {
    let (from, until) = (certificate.not_before(), certificate.not_after());
    let left = seconds_between(Asn1Time::from_unix(now)?.as_ref(), until)?;
    Ok(if from > Asn1Time::from_unix(now.saturating_add(CLOCK_SKEW))?.as_ref() {
        Some(Flaw::NotYetValid { from: from.to_string() })
    } else if left < 0 {
        Some(Flaw::Expired { until: until.to_string() })
    } else if left.saturating_mul(RENEW_AT_PART) < seconds_between(from, until)? {
        Some(Flaw::RenewalDue { until: until.to_string() })
    } else {
        None
    })
}

/// Kubernetes takes the user from CN and the groups from every O; the rest of a name means nothing to it.
fn check_subject(certificate: &X509Ref, wanted: &Wanted) -> Option<Flaw> {
    let all = |nid| -> Vec<String> { certificate.subject_name().entries_by_nid(nid).map(entry_text).collect() };
    let same = all(Nid::COMMONNAME) == [wanted.common_name.clone()]
        && all(Nid::ORGANIZATIONNAME) == Vec::from_iter(wanted.organization.clone());
    (!same).then(|| Flaw::Subject { now: name_text(certificate.subject_name()), want: wanted.subject() })
}

fn check_names(certificate: &X509Ref, wanted: &Wanted) -> Option<Flaw> {
    let now = names(certificate);
    let want: BTreeSet<String> = wanted.names().into_iter().collect();
    (now != want).then(|| Flaw::Names { now: now.into_iter().collect(), want: want.into_iter().collect() })
}

/// The names and addresses that a certificate vouches for.
pub(super) fn names(certificate: &X509Ref) -> BTreeSet<String> {
    certificate.subject_alt_names().iter().flatten().map(san_text).collect()
}

/// The addresses that the first certificate of a PEM file is for; nothing if it holds none that can be read.
pub fn addresses_of(pem: &[u8]) -> Option<Vec<IpAddr>> {
    let names = X509::from_pem(pem).ok()?.subject_alt_names();
    Some(names.iter().flatten().filter_map(san_address).collect())
}

fn san_address(name: &GeneralNameRef) -> Option<IpAddr> {
    let bytes = name.ipaddress()?;
    <[u8; 4]>::try_from(bytes).map(IpAddr::from).or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).ok()
}

fn san_text(name: &GeneralNameRef) -> String {
    None.or_else(|| name.dnsname().map(str::to_owned))
        .or_else(|| san_address(name).map(|ip| ip.to_string()))
        .or_else(|| name.email().map(|email| format!("email:{email}")))
        .or_else(|| name.uri().map(|uri| format!("URI:{uri}")))
        .map_or_else(|| "a name of another kind".to_owned(), |name| quote(&name))
}

/// Whether TLS peers would take the certificate in this part. Without the extension every usage is allowed (RFC 5280),
/// but a certificate that a node asks for is to say what it is for.
fn allows(certificate: &X509Ref, usage: Usage) -> bool {
    let extended = certificate.extended_key_usage().unwrap_or(X509ExtendedKeyUsage::empty());
    let needed = match usage {
        Usage::Client => X509ExtendedKeyUsage::SSL_CLIENT,
        Usage::Server => X509ExtendedKeyUsage::SSL_SERVER,
    };
    // TLS 1.3 proves a key by signing with it, whatever its kind.
    let signs = certificate.key_usage().is_none_or(|usage| usage.contains(X509KeyUsage::DIGITAL_SIGNATURE));
    extended.contains(needed) && signs
}

/// OpenSSL's own objection to the chain from `issuer` to `certificate`, if it has one.
fn verify(certificate: &X509Ref, issuer: &X509Ref, now: i64) -> Result<Option<String>, ErrorStack> {
    let mut param = X509VerifyParam::new()?;
    // Not before its start: the skew that was allowed above must not come back here.
    param.set_time(now.max(seconds_between(Asn1Time::from_unix(0)?.as_ref(), certificate.not_before())?));
    // A pinned CA is trusted as it is, even if another CA signed it.
    param.set_flags(X509VerifyFlags::PARTIAL_CHAIN)?;
    let mut store = X509StoreBuilder::new()?;
    store.add_cert(issuer.to_owned())?;
    store.set_param(&param)?;
    let untrusted = Stack::new()?;
    X509StoreContext::new()?.init(&store.build(), certificate, &untrusted, |context| {
        let accepted = context.verify_cert()?;
        Ok((!accepted).then(|| context.error().error_string().to_owned()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::certs::testing::{Ca, CaKind, DAY, Issue, client, new_key, now, server};

    /// A pair as [`super::super::pair`] writes it.
    fn pair(certificate: &[u8], key: &Key) -> Vec<u8> {
        [certificate, &key.to_pem().expect("PEM")].concat()
    }

    fn flaws(pem: &[u8], wanted: &Wanted, ca: &Ca) -> Vec<Flaw> {
        check(Some(pem), wanted, &ca.authority(), now())
    }

    fn at(offset: i64) -> String {
        Asn1Time::from_unix(unix(now()) + offset).expect("a time").to_string()
    }

    #[test]
    fn a_good_pair_has_no_flaw_under_either_kind_of_ca() {
        for kind in [CaKind::Rsa, CaKind::Ec] {
            let ca = Ca::valid(kind);
            for wanted in [client(), server()] {
                let key = new_key();
                let certificate = ca.issue(&wanted, &key, &Issue::default());
                assert_eq!(flaws(&pair(&certificate, &key), &wanted, &ca), [], "{kind:?} {wanted:?}");
                let key_first = [key.to_pem().expect("PEM").to_vec(), certificate].concat();
                assert_eq!(flaws(&key_first, &wanted, &ca), [], "{kind:?} {wanted:?}: key first");
            }
        }
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        let ca = Ca::valid(CaKind::Ec);
        let key = new_key();
        let certificate = ca.issue(&client(), &key, &Issue::default());
        let whole = pair(&certificate, &key);
        let encrypted = openssl::pkey::PKey::private_key_from_pem(&key.to_pem().expect("PEM"))
            .and_then(|key| key.private_key_to_pem_pkcs8_passphrase(openssl::symm::Cipher::aes_128_cbc(), b"x"))
            .expect("an encrypted key");
        let table: [(&str, Vec<u8>, Flaw); 6] = [
            ("empty file", Vec::new(), Flaw::Garbage("certificate")),
            ("no PEM", b"\0\x01 nothing".to_vec(), Flaw::Garbage("certificate")),
            ("key alone", key.to_pem().expect("PEM").to_vec(), Flaw::Garbage("certificate")),
            ("certificate alone", certificate.clone(), Flaw::Garbage("private key")),
            ("torn key", whole[..whole.len() - 60].to_vec(), Flaw::Garbage("private key")),
            ("encrypted key", [certificate, encrypted].concat(), Flaw::EncryptedKey),
        ];
        for (name, pem, flaw) in table {
            assert_eq!(flaws(&pem, &client(), &ca), [flaw], "{name}");
        }
        assert_eq!(check(None, &client(), &ca.authority(), now()), [Flaw::Absent]);
    }

    #[test]
    fn the_key_must_be_the_certificates() {
        let ca = Ca::valid(CaKind::Ec);
        let certificate = ca.issue(&client(), &new_key(), &Issue::default());
        let other = new_key();
        assert_eq!(flaws(&pair(&certificate, &other), &client(), &ca), [Flaw::KeyMismatch]);
    }

    #[test]
    fn the_ca_is_known_by_its_key_and_not_by_its_name() {
        let (ca, namesake) = (Ca::valid(CaKind::Ec), Ca::valid(CaKind::Ec));
        let key = new_key();
        let certificate = namesake.issue(&client(), &key, &Issue::default());
        let flaw = Flaw::ForeignIssuer { issuer: "CN=test-ca".into(), ca: "CN=test-ca".into() };
        assert_eq!(flaws(&pair(&certificate, &key), &client(), &ca), [flaw]);

        let both = [ca.pem(), namesake.pem()].concat();
        let path = crate::config::values::RootPath::literal("/ca.pem");
        let authority = Authority::read(&path, Some(&both), now()).expect("a CA file with two");
        assert_eq!(check(Some(&pair(&certificate, &key)), &client(), &authority, now()), [], "a CA being replaced");
    }

    #[test]
    fn time() {
        let ca = Ca::valid(CaKind::Ec);
        let key = new_key();
        let table = [
            ((-DAY, 300 * DAY), None),
            ((CLOCK_SKEW, 300 * DAY), None),
            ((CLOCK_SKEW + 1, 300 * DAY), Some(Flaw::NotYetValid { from: at(CLOCK_SKEW + 1) })),
            ((-2 * DAY, DAY), None),
            ((-2 * DAY, DAY - 1), Some(Flaw::RenewalDue { until: at(DAY - 1) })),
            ((-2 * DAY, 0), Some(Flaw::RenewalDue { until: at(0) })),
            ((-2 * DAY, -1), Some(Flaw::Expired { until: at(-1) })),
        ];
        for (valid, flaw) in table {
            let certificate = ca.issue(&client(), &key, &Issue { valid, ..Issue::default() });
            assert_eq!(flaws(&pair(&certificate, &key), &client(), &ca), Vec::from_iter(flaw), "valid {valid:?}");
        }
    }

    #[test]
    fn names_and_subject_must_be_this_nodes() {
        let ca = Ca::valid(CaKind::Ec);
        let key = new_key();
        let moved = Wanted { ips: vec![IpAddr::from([10, 10, 30, 22])], ..server() };
        let certificate = ca.issue(&server(), &key, &Issue::default());
        let flaw = Flaw::Names {
            now: vec!["10.10.30.21".into(), "worker-01".into()],
            want: vec!["10.10.30.22".into(), "worker-01".into()],
        };
        assert_eq!(flaws(&pair(&certificate, &key), &moved, &ca), [flaw], "another address");

        let renamed = Wanted { common_name: "system:node:worker-02".into(), ..server() };
        let flaw = Flaw::Subject { now: "O=system:nodes, CN=system:node:worker-01".into(), want: renamed.subject() };
        assert_eq!(flaws(&pair(&certificate, &key), &renamed, &ca), [flaw], "another name");

        let groupless = Wanted { organization: None, ..server() };
        let flaw = Flaw::Subject { now: server().subject(), want: groupless.subject() };
        assert_eq!(flaws(&pair(&certificate, &key), &groupless, &ca), [flaw], "a group too many");

        let v6 = Wanted { ips: vec!["fd00::21".parse().expect("an address")], ..server() };
        let certificate = ca.issue(&v6, &key, &Issue::default());
        assert_eq!(flaws(&pair(&certificate, &key), &v6, &ca), [], "IPv6");
    }

    #[test]
    fn usage_must_be_said() {
        let ca = Ca::valid(CaKind::Ec);
        let key = new_key();
        let for_client = ca.issue(&Wanted { usages: vec![Usage::Client], ..server() }, &key, &Issue::default());
        let silent = ca.issue(&server(), &key, &Issue { extended: false, ..Issue::default() });
        let signless = ca.issue(&server(), &key, &Issue { signs: false, ..Issue::default() });
        for (name, certificate) in [("client only", for_client), ("silent", silent), ("cannot sign", signless)] {
            assert_eq!(flaws(&pair(&certificate, &key), &server(), &ca), [Flaw::UsageMissing(Usage::Server)], "{name}");
        }
    }

    #[test]
    fn every_flaw_is_shown_at_once() {
        let (ca, other) = (Ca::valid(CaKind::Ec), Ca::valid(CaKind::Ec));
        let key = new_key();
        let how = Issue { valid: (-2 * DAY, -DAY), extended: false, ..Issue::default() };
        let wanted = Wanted { dns: vec!["other".into()], ..server() };
        let certificate = other.issue(&wanted, &key, &how);
        let found = flaws(&pair(&certificate, &new_key()), &server(), &ca);
        let text: Vec<String> = found.iter().map(ToString::to_string).collect();
        let want = [
            "it is for another key",
            "it is signed by CN=test-ca, not by the key of CN=test-ca",
            "it expired on Sep  8 00:00:00 2026 GMT",
            "it is for the names [10.10.30.21, other], not [10.10.30.21, worker-01]",
            r#"it lacks the usage "server auth""#,
        ];
        assert_eq!(text, want);
    }

    #[test]
    fn openssls_own_objections_are_passed_on() {
        let ca = Ca::valid(CaKind::Ec);
        let key = new_key();
        let certificate = ca.issue(&client(), &key, &Issue { strange: true, ..Issue::default() });
        let found = flaws(&pair(&certificate, &key), &client(), &ca);
        assert_eq!(found, [Flaw::Rejected("unhandled critical extension".into())]);
    }
}
