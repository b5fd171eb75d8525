//! What is asked, as whom, and what each answer means. The real API server is asked in the lab.

use serde_json::{Value, json};

use super::*;
use crate::certs::request::request;
use crate::certs::testing::{Ca, CaKind, Content, DAY, Issue, client, new_key, seen_files, server};
use crate::config::settings::KeyKind;
use crate::engine::change::Meta;
use crate::engine::fault::{Class, Fault};

const TOKEN: &[u8] = b"abcdef.0123456789abcdef\n";

fn signer(profile: Profile) -> Kubernetes {
    Kubernetes {
        url: "https://10.10.30.11:6443".parse().expect("a URL"),
        profile,
        label: "worker-01-kubelet-client".into(),
        token_file: RootPath::literal("/etc/nodeagent/bootstrap-token"),
        client: RootPath::literal("/etc/kubernetes/pki/kubelet-client.pem"),
        node: client(),
        release: "v1.34.2".parse().expect("a version"),
        deadline: Duration::from_mins(5),
    }
}

/// The machine with a token, and with this client pair.
fn seen(signer: &Kubernetes, pair: Option<&[u8]>) -> Seen {
    let pair: Option<Content<'_>> = pair.map(|pem| (pem, Meta::SECRET));
    seen_files(&[(&signer.token_file, Some((TOKEN, Meta::SECRET))), (&signer.client, pair)])
}

fn proof(profile: Profile, pair: Option<&[u8]>, ca: &Ca) -> Result<&'static str, KubernetesError> {
    let (signer, wanted, ca) = (signer(profile), client(), ca.authority());
    let order = Order { request: "", wanted: &wanted, ca: &ca };
    signer.proof(&order, &seen(&signer, pair)).map(|proof| match proof {
        Proof::Token(_) => "token",
        Proof::Pair { .. } => "pair",
    })
}

#[test]
fn a_node_asks_as_itself_as_soon_as_it_can() {
    let (ca, other) = (Ca::valid(CaKind::Ec), Ca::valid(CaKind::Ec));
    let key = new_key();
    let pair = |ca: &Ca, wanted: &Wanted, valid| {
        let certificate = ca.issue(wanted, &key, &Issue { valid, ..Issue::default() });
        [certificate, key.to_pem().expect("PEM").to_vec()].concat()
    };
    let renamed = Wanted { common_name: "system:node:worker-02".into(), ..client() };
    let long = (-DAY, 300 * DAY);
    let table = [
        ("none", None, "token"),
        ("good", Some(pair(&ca, &client(), long)), "pair"),
        ("due for renewal", Some(pair(&ca, &client(), (-300 * DAY, DAY))), "pair"),
        ("expired", Some(pair(&ca, &client(), (-2 * DAY, -DAY))), "token"),
        ("another node's", Some(pair(&ca, &renamed, long)), "token"),
        ("another CA's", Some(pair(&other, &client(), long)), "token"),
        ("garbage", Some(b"garbage".to_vec()), "token"),
    ];
    for (name, file, want) in table {
        assert_eq!(proof(Profile::Node, file.as_deref(), &ca).expect(name), want, "{name}");
        // A token is for a node's first certificate alone.
        for profile in [Profile::Serving, Profile::Client] {
            match proof(profile, file.as_deref(), &ca) {
                Ok(proof) => assert_eq!((proof, want), ("pair", "pair"), "{name}"),
                Err(error) => {
                    assert!(matches!(error, KubernetesError::NoClient { .. }) && want == "token", "{name}: {error:?}");
                }
            }
        }
    }
}

#[test]
fn usages_are_those_that_the_release_wants() {
    let rsa = |wanted: Wanted| Wanted { key: KeyKind::Rsa2048, ..wanted };
    let table = [
        (client(), "v1.34.2", "digital signature, client auth"),
        (server(), "v1.27.0", "digital signature, server auth"),
        (server(), "v1.26.15", "key encipherment, digital signature, server auth"),
        (client(), "v1.20.2", "key encipherment, digital signature, client auth"),
        (client(), "v2.0.0-rc.1", "digital signature, client auth"),
        (rsa(server()), "v1.34.2", "key encipherment, digital signature, server auth"),
    ];
    for (wanted, release, want) in table {
        let usages = object::usages(&wanted, &release.parse().expect(release));
        assert_eq!(usages.join(", "), want, "{release} {wanted:?}");
    }
}

#[test]
fn what_is_sent() {
    let object =
        object::request("worker-01-kubelet-client-0123", "kubernetes.io/kubelet-serving", "PEM", &["x".into()]);
    let want = json!({
        "apiVersion": "certificates.k8s.io/v1",
        "kind": "CertificateSigningRequest",
        "metadata": { "name": "worker-01-kubelet-client-0123" },
        "spec": { "request": "UEVN", "signerName": "kubernetes.io/kubelet-serving", "usages": ["x"] },
    });
    assert_eq!(object, want);
}

#[test]
fn a_request_has_its_own_name_and_the_same_one_at_the_next_run() {
    let ca = Ca::valid(CaKind::Ec).authority();
    let key = new_key();
    let name = |signer: &Kubernetes, key: &Key, wanted: &Wanted| {
        let request = request(wanted, key).expect("a request");
        signer.request_name(&Order { request: &request, wanted, ca: &ca }).expect("a name")
    };
    let first = name(&signer(Profile::Node), &key, &client());
    // ECDSA signs differently each time: the request's bytes are others, what it asks for is not.
    assert_eq!(name(&signer(Profile::Node), &key, &client()), first);
    let digits = first.strip_prefix("worker-01-kubelet-client-").expect("for people");
    assert!(digits.len() == 16 && digits.bytes().all(|b| b.is_ascii_hexdigit()), "{first}");
    let others = [
        ("key", name(&signer(Profile::Node), &new_key(), &client())),
        ("signer", name(&signer(Profile::Client), &key, &client())),
        ("names", name(&signer(Profile::Node), &key, &server())),
    ];
    for (what, other) in others {
        assert_ne!(other, first, "{what}");
    }
    let long = Kubernetes { label: "a".repeat(300), ..signer(Profile::Node) };
    assert!(name(&long, &key, &client()).len() <= 253);
}

fn csr(status: Value) -> Value {
    json!({ "kind": "CertificateSigningRequest", "metadata": { "name": "r" }, "status": status })
}

fn condition(kind: &str, reason: &str, message: &str) -> Value {
    json!({ "type": kind, "status": "True", "reason": reason, "message": message })
}

#[test]
fn answers() {
    let verdict = |object: &Value| signer(Profile::Serving).verdict("r", object);
    let good = csr(json!({ "conditions": [condition("Approved", "", "")], "certificate": "UEVN" }));
    assert_eq!(verdict(&good).expect("a certificate"), b"PEM");

    let waits = "the certificate signing request r waits for an approver: kubectl certificate approve r";
    let url = "understand the answer of https://10.10.30.11:6443";
    let denied = csr(json!({ "conditions": [condition("Denied", "Policy", "not\nhere")], "certificate": "UEVN" }));
    let approved = csr(json!({ "conditions": [condition("Approved", "KubectlApprove", "by hand")] }));
    let failed = csr(
        json!({ "conditions": [condition("Approved", "", ""), condition("Failed", "SignerValidationFailure", "usages did not match")] }),
    );
    let table = [
        (json!({ "kind": "CertificateSigningRequest" }), waits.to_owned(), Class::Deadline),
        (csr(json!({})), waits.to_owned(), Class::Deadline),
        (csr(json!({ "certificate": "" })), waits.to_owned(), Class::Deadline),
        (
            approved,
            "the certificate signing request r is approved, and kubernetes.io/kubelet-serving has not signed it yet"
                .into(),
            Class::Deadline,
        ),
        (denied, "the certificate signing request r was denied at https://10.10.30.11:6443: Policy: not\u{fffd}here".into(), Class::Failed),
        (
            csr(json!({ "conditions": [{ "type": "Denied" }] })),
            "the certificate signing request r was denied at https://10.10.30.11:6443: no reason was given".into(),
            Class::Failed,
        ),
        (
            failed,
            "kubernetes.io/kubelet-serving could not sign the certificate signing request r at https://10.10.30.11:6443: \
             SignerValidationFailure: usages did not match"
                .into(),
            Class::Failed,
        ),
        (csr(json!({ "certificate": "%%" })), format!("{url}: its certificate is not base64"), Class::Failed),
        (json!({ "kind": "Status" }), format!("{url}: it is a \"Status\""), Class::Failed),
        (json!({}), format!("{url}: missing field `kind`"), Class::Failed),
        (csr(json!("gone")), format!("{url}: invalid type: string \"gone\", expected struct Status"), Class::Failed),
    ];
    for (object, text, class) in table {
        let fault = Fault::from(verdict(&object).expect_err(&text));
        assert_eq!((fault.to_string(), fault.class), (text, class), "{object}");
        assert!(fault.advice.is_some(), "{object}: no advice");
    }
}

#[test]
fn refusals_name_who_was_refused_and_who_can_change_it() {
    let signer = signer(Profile::Node);
    let token = || Proof::Token(Token::read(&signer.token_file, &seen(&signer, None)).map_err(drop).expect("a token"));
    let pair = || Proof::Pair { certificate: Vec::new(), key: Zeroizing::new(Vec::new()) };
    let status = |status, message: &str| HttpError::Status {
        url: "https://10.10.30.11:6443/apis".into(),
        status,
        body: json!({ "kind": "Status", "message": message }).to_string(),
        retry_after: None,
    };
    let table = [
        (
            status(401, "Unauthorized"),
            token(),
            "https://10.10.30.11:6443 does not accept the bootstrap token abcdef in /etc/nodeagent/bootstrap-token",
            "kubeadm token create",
        ),
        (
            status(401, "Unauthorized"),
            pair(),
            "https://10.10.30.11:6443 does not accept the client certificate /etc/kubernetes/pki/kubelet-client.pem",
            "--client-ca-file",
        ),
        (
            status(403, "User \"system:bootstrap:abcdef\" cannot\ncreate"),
            token(),
            "https://10.10.30.11:6443 forbids it to the bootstrap token abcdef in /etc/nodeagent/bootstrap-token: User \
             \"system:bootstrap:abcdef\" cannot\u{fffd}create",
            "system:node-bootstrapper",
        ),
        (
            status(403, "no"),
            pair(),
            "https://10.10.30.11:6443 forbids it to the client certificate /etc/kubernetes/pki/kubelet-client.pem: no",
            "--authorization-mode=Node,RBAC",
        ),
        (status(404, ""), token(), "https://10.10.30.11:6443 has no certificates.k8s.io/v1", "1.19"),
    ];
    for (error, proof, text, advice) in table {
        let fault = Fault::from(signer.refusal(error, &proof));
        assert_eq!((fault.to_string().as_str(), fault.class), (text, Class::Failed));
        assert!(fault.advice.as_deref().is_some_and(|says| says.contains(advice)), "{text}: {:?}", fault.advice);
        assert!(!format!("{fault} {fault:?}").contains("0123456789abcdef"), "{text}: the token's secret is in it");
    }
    let refused = signer.refusal(status(422, "spec.request: bad"), &token());
    assert_eq!(
        refused.to_string(),
        "https://10.10.30.11:6443 refuses the certificate signing request: spec.request: bad"
    );
}
