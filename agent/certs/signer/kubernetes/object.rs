//! The object `CertificateSigningRequest` of `certificates.k8s.io/v1`: what is sent, and what its status says.

use openssl::base64::{decode_block, encode_block};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::certs::request::Wanted;
use crate::config::settings::KeyKind;
use crate::config::values::Version;
use crate::engine::fault::quote;

/// The object to create.
pub(super) fn request(name: &str, signer: &str, pem: &str, usages: &[String]) -> Value {
    json!({
        "apiVersion": "certificates.k8s.io/v1",
        "kind": "CertificateSigningRequest",
        "metadata": { "name": name },
        "spec": {
            "request": encode_block(pem.as_bytes()),
            "signerName": signer,
            "usages": usages,
        },
    })
}

/// What the certificate may be used for, exactly as the built-in signers and approvers want it.
///
/// Up to 1.26 they wanted a kubelet's certificates to have key encipherment, which means nothing to a key that is not RSA
/// and is not allowed there (RFC 8813, 3); since then the kubelet asks for it with RSA alone (kubernetes#111660).
pub(super) fn usages(wanted: &Wanted, release: &Version) -> Vec<String> {
    let rsa = wanted.key != KeyKind::EcdsaP256;
    let encipherment = (rsa || !release.is_at_least(1, 27)).then(|| "key encipherment".to_owned());
    let signs = "digital signature".to_owned();
    encipherment.into_iter().chain([signs]).chain(wanted.usages.iter().map(ToString::to_string)).collect()
}

/// How a request stands.
#[derive(Debug, PartialEq, Eq)]
pub enum State {
    /// Nobody has said anything yet.
    Unapproved,
    /// Approved, and the signer has not signed yet.
    Unsigned,
    /// Signed: the certificate in PEM, not yet checked.
    Signed(Vec<u8>),
    /// An approver said no, and why.
    Denied(String),
    /// The signer could not sign it, and why.
    Failed(String),
}

#[derive(Deserialize)]
struct Object {
    kind: String,
    #[serde(default)]
    status: Status,
}

#[derive(Default, Deserialize)]
struct Status {
    #[serde(default)]
    conditions: Vec<Condition>,
    certificate: Option<String>,
}

#[derive(Deserialize)]
struct Condition {
    r#type: String,
    #[serde(default)]
    reason: String,
    #[serde(default)]
    message: String,
}

impl Condition {
    /// What people are told of it, on one short line.
    fn text(&self) -> String {
        let parts: Vec<&str> =
            [self.reason.trim(), self.message.trim()].into_iter().filter(|s| !s.is_empty()).collect();
        if parts.is_empty() { "no reason was given".to_owned() } else { quote(&parts.join(": ")) }
    }
}

impl State {
    /// Reads an object; the reason if it is none of the kind.
    pub fn of(object: &Value) -> Result<Self, String> {
        let object = Object::deserialize(object).map_err(|error| quote(&error.to_string()))?;
        if object.kind != "CertificateSigningRequest" {
            return Err(format!("it is a {:?}", quote(&object.kind)));
        }
        let condition = |kind: &str| object.status.conditions.iter().find(|condition| condition.r#type == kind);
        // A refusal stands, whatever else does.
        if let Some(denied) = condition("Denied") {
            return Ok(Self::Denied(denied.text()));
        }
        if let Some(failed) = condition("Failed") {
            return Ok(Self::Failed(failed.text()));
        }
        match object.status.certificate.as_deref().filter(|text| !text.is_empty()) {
            Some(text) => decode_block(text).map(Self::Signed).map_err(|_| "its certificate is not base64".to_owned()),
            None if condition("Approved").is_some() => Ok(Self::Unsigned),
            None => Ok(Self::Unapproved),
        }
    }
}
