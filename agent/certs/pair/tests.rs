use super::*;
use crate::certs::signer::Signing;
use crate::certs::testing::{Ca, CaKind, DAY, Issue, new_key, now, seen_files, server};
use crate::config::settings::{DownloadSettings, KeyKind};
use crate::host::http::Http;
use crate::host::root::Root;
use crate::journal::Teller;

/// A signer that is never asked.
struct Nobody;

impl Signer for Nobody {
    fn describe(&self) -> String {
        "nobody".into()
    }
    fn reads(&self) -> Vec<Thing> {
        Vec::new()
    }
    fn advice(&self) -> String {
        "ask somebody".into()
    }
    fn leaves(&self) -> Vec<RootPath> {
        vec![RootPath::literal("/request.key"), RootPath::literal("/request.csr")]
    }
    fn sign<'a>(&'a self, _: Order<'a>, _: &'a Seen, _: &'a Peers) -> Signing<'a> {
        unreachable!("no test asks")
    }
}

fn pair() -> Pair {
    Pair {
        purpose: "kubelet's serving certificate".into(),
        path: RootPath::literal("/etc/kubernetes/pki/kubelet-server.pem"),
        ca: RootPath::literal("/etc/kubernetes/pki/ca.pem"),
        wanted: server(),
        signer: Box::new(Nobody),
    }
}

/// The machine with this CA file and this pair file.
fn seen(ca: &[u8], file: Option<(&[u8], Meta)>) -> Seen {
    let Pair { path, ca: ca_path, .. } = pair();
    seen_files(&[(&ca_path, Some((ca, Meta::FILE))), (&path, file)])
}

fn shown(seen: &Seen) -> Vec<String> {
    match pair().diff(seen).expect("a difference") {
        Diff::Same => Vec::new(),
        Diff::Differs { shown, .. } => shown.into_iter().map(|delta| delta.what).collect(),
    }
}

#[test]
fn what_was_obtained_is_the_same_at_the_next_run() {
    for kind in [CaKind::Rsa, CaKind::Ec] {
        let ca = Ca::valid(kind);
        let key = new_key();
        let answer = ca.issue(&server(), &key, &Issue::default());
        let file = pair().complete(&answer, &key, &ca.authority(), now()).expect("a pair");
        assert!(file.starts_with(b"-----BEGIN CERTIFICATE-----"), "{kind:?}: certificate first");
        assert_eq!(shown(&seen(&ca.pem(), Some((&file, Meta::SECRET)))), [""; 0], "{kind:?}");
        assert_eq!(shown(&seen(&ca.pem(), Some((&file, Meta::FILE)))), ["mode and owner"], "{kind:?}: exposed");
        assert_eq!(shown(&seen(&ca.pem(), Some((&file, Meta::root(0o400))))), [""; 0], "{kind:?}: stricter");
        assert_eq!(shown(&seen(&ca.pem(), None)), ["pair"], "{kind:?}: absent");
    }
}

#[test]
fn the_key_of_an_open_request_is_kept_until_it_is_used() {
    let (pair, ca) = (pair(), Ca::valid(CaKind::Ec));
    let tree = tempfile::tempdir().expect("a directory");
    let root = Root::open(tree.path()).expect("a root");
    let http = Http::new(Teller::silent(), root.clone(), DownloadSettings::default());
    let peers = Peers { http, root: root.clone(), tell: Teller::silent() };
    let file = pair.pending();
    let pending = |pair: &Pair, seen: &Seen| {
        let key = pair.pending_key(seen, &peers).expect("a key");
        let Entry::File { meta, bytes: Some(bytes), .. } = root.entry(&file, true).expect("looked at") else {
            panic!("no key was kept")
        };
        assert_eq!(meta.mode, 0o600);
        assert_eq!(*bytes, **key.to_pem().expect("PEM"), "another key was kept than is used");
        bytes
    };
    let none = seen(&ca.pem(), None);
    let first = pending(&pair, &none);
    assert_eq!(pending(&pair, &none), first, "the next run goes on with it");

    let key = Key::from_pem(&first).expect("a key");
    let in_use = [ca.issue(&server(), &key, &Issue::default()), first.to_vec()].concat();
    let second = pending(&pair, &seen(&ca.pem(), Some((&in_use, Meta::SECRET))));
    assert_ne!(second, first, "a renewal is for a new key");

    root.put(&file, b"garbage", Meta::SECRET).expect("written");
    assert_ne!(pending(&pair, &none), second, "garbage is replaced");
    let rsa = Pair { wanted: Wanted { key: KeyKind::Rsa2048, ..server() }, ..pair };
    assert!(pending(&rsa, &none).len() > first.len() * 2, "another kind is asked for");
}

#[tokio::test]
async fn what_a_killed_run_left_of_a_request_is_destroyed_and_nobody_is_asked() {
    let (ca, key, pair) = (Ca::valid(CaKind::Ec), new_key(), pair());
    let file = [ca.issue(&server(), &key, &Issue::default()), key.to_pem().expect("PEM").to_vec()].concat();
    let mut seen = seen(&ca.pem(), Some((&file, Meta::SECRET)));
    let left = RootPath::literal("/request.key");
    seen.0.extend(seen_files(&[(&left, Some((b"key", Meta::SECRET))), (&pair.signer.leaves()[1], None)]).0);
    let Ok(Diff::Differs { known, .. }) = pair.diff(&seen) else { panic!("it was left there") };
    assert!(matches!(known.as_slice(), [Change::Destroy { path }] if *path == left), "{known:?}");
    let tree = tempfile::tempdir().expect("a directory");
    let root = Root::open(tree.path()).expect("a root");
    let http = Http::new(Teller::silent(), root.clone(), DownloadSettings::default());
    let peers = Peers { http, root, tell: Teller::silent() };
    let obtained = pair.obtain(known, &seen, &peers).await.expect("nothing to obtain");
    assert_eq!(obtained.len(), 1, "{obtained:?}");
}

#[test]
fn a_key_that_others_could_read_is_not_brought_into_use() {
    let (path, pem) = (RootPath::literal("/request.key"), new_key().to_pem().expect("PEM"));
    let bring = |meta| brought_key(path.clone(), &seen_files(&[(&path, Some((pem.as_slice(), meta)))]));
    assert!(bring(Meta::SECRET).is_ok());
    let fault = Fault::from(bring(Meta::FILE).expect_err("open"));
    assert_eq!(fault.to_string(), "use the key /request.key: others can read it (0644 0:0)");
    assert!(fault.advice.is_some_and(|advice| advice.contains("certs csr")));
}

#[test]
fn an_answer_with_more_in_it_gives_its_certificate_only() {
    let ca = Ca::valid(CaKind::Ec);
    let key = new_key();
    let certificate = ca.issue(&server(), &key, &Issue::default());
    let answer = [b"hello\n".as_slice(), &certificate, &ca.pem(), &ca.key_pem()].concat();
    let file = pair().complete(&answer, &key, &ca.authority(), now()).expect("a pair");
    assert_eq!(*file, [certificate, key.to_pem().expect("PEM").to_vec()].concat());
}

#[test]
fn an_intermediate_ca_signs_where_the_ca_file_has_it_in_any_order() {
    let (root, key) = (Ca::valid(CaKind::Rsa), new_key());
    let between = root.intermediate();
    let certificate = between.issue(&server(), &key, &Issue::default());
    let chain = [certificate.as_slice(), &between.pem(), &root.pem()].concat();
    let authority = |file: &[u8]| Authority::read(&pair().ca, Some(file), now()).expect("a CA");
    for file in [[root.pem(), between.pem()].concat(), [between.pem(), root.pem()].concat()] {
        let pair_file = pair().complete(&chain, &key, &authority(&file), now()).expect("a pair");
        assert_eq!(*pair_file, [certificate.clone(), key.to_pem().expect("PEM").to_vec()].concat());
        assert_eq!(shown(&seen(&file, Some((&pair_file, Meta::SECRET)))), [""; 0]);
        assert_eq!(authority(&file).pem(), file, "kubeconfigs embed both");
    }
    let refused = pair().complete(&chain, &key, &authority(&root.pem()), now()).expect_err("the root alone");
    let why = "it is signed by CN=test-intermediate, not by the key of CN=test-ca";
    assert!(refused.to_string().ends_with(why), "{refused}");
}

#[test]
fn a_bad_answer_is_a_failed_verification_that_says_why() {
    let (ca, other) = (Ca::valid(CaKind::Ec), Ca::valid(CaKind::Ec));
    let key = new_key();
    let good = Issue::default;
    let elsewhere = Wanted { dns: vec!["elsewhere".into()], ..server() };
    let table = [
        ("garbage", b"<html>".to_vec(), "it holds no readable certificate", "ask somebody"),
        ("another key", ca.issue(&server(), &new_key(), &good()), "it is for another key", "ask somebody"),
        (
            "another CA",
            other.issue(&server(), &key, &good()),
            "it is signed by CN=test-ca, not by the key of CN=test-ca",
            "ask somebody",
        ),
        (
            "other names",
            ca.issue(&elsewhere, &key, &good()),
            "it is for the names [10.10.30.21, elsewhere], not [10.10.30.21, worker-01]",
            "ask somebody",
        ),
        (
            "no usage",
            ca.issue(&server(), &key, &Issue { extended: false, ..good() }),
            r#"it lacks the usage "server auth""#,
            "ask somebody",
        ),
        (
            "expired",
            ca.issue(&server(), &key, &Issue { valid: (-2 * DAY, -DAY), ..good() }),
            "it expired on Sep  8 00:00:00 2026 GMT",
            "compare this machine's clock with the signer's",
        ),
    ];
    for (name, answer, why, advice) in table {
        let fault = pair().complete(&answer, &key, &ca.authority(), now()).expect_err(name);
        assert_eq!(fault.class, Class::Verification, "{name}");
        assert_eq!(fault.advice.as_deref(), Some(advice), "{name}");
        let text = format!("use the certificate that nobody sent for /etc/kubernetes/pki/kubelet-server.pem: {why}");
        assert_eq!(fault.to_string(), text, "{name}");
    }
}

#[test]
fn a_bad_ca_is_no_difference_but_a_thing_that_cannot_be_told() {
    let leaf = Ca::new(CaKind::Ec, false, -DAY, DAY).pem();
    let table: [(&str, &[u8], &str); 2] = [
        ("garbage", b"garbage", "/etc/kubernetes/pki/ca.pem: it holds no readable certificate"),
        ("leaf", &leaf, "/etc/kubernetes/pki/ca.pem: CN=test-ca is not a CA (no basic constraint CA:TRUE)"),
    ];
    for (name, ca, text) in table {
        assert_eq!(pair().diff(&seen(ca, None)).expect_err(name).to_string(), text, "{name}");
    }
}
