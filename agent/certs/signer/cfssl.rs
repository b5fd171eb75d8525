//! The signer `cfssl`: `POST /api/v1/cfssl/authsign`.
//!
//! The inner JSON names the request, the profile and the hosts (`hosts` overrides the request's names, and an empty list
//! means none). The outer JSON carries its bytes and their HMAC-SHA256 under the authentication key, both in base64
//! (cfssl: `auth/auth.go`, `api/signhandler`).

use openssl::base64::encode_block;
use openssl::error::ErrorStack;
use serde::Deserialize;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::{Order, Signer, Signing, hmac_sha256};
use crate::config::values::{HttpUrl, RootPath};
use crate::engine::fault::{Class, Explain, quote};
use crate::engine::resource::{CannotTell, Seen, Thing};
use crate::host::http::HttpError;
use crate::host::http::cluster::Login;
use crate::host::peers::Peers;

/// The profile of serving certificates: cfssl's documentation and every guide call it so.
pub(super) const SERVER_PROFILE: &str = "server";

/// The profile of certificates that are for both: the same sources.
pub(super) const PEER_PROFILE: &str = "peer";

/// Where cfssl takes authenticated requests.
pub(super) const ENDPOINT: &str = "/api/v1/cfssl/authsign";

/// A cfssl server.
pub struct Cfssl {
    /// Its base URL.
    pub url: HttpUrl,
    /// The file that holds the authentication key in hexadecimal digits.
    pub auth_key_file: RootPath,
    /// The signing profile.
    pub profile: String,
}

/// cfssl did not sign. Never holds a byte of the authentication key.
#[derive(Debug, thiserror::Error)]
pub enum CfsslError {
    /// The key file is not there.
    #[error("read the cfssl authentication key {path}: there is no such file")]
    KeyAbsent {
        /// The file.
        path: RootPath,
    },
    /// The key file holds something else.
    #[error("read the cfssl authentication key {path}: {why}")]
    KeyMalformed {
        /// The file.
        path: RootPath,
        /// What is wrong, without what is in it.
        why: &'static str,
    },
    /// The key file could not be read.
    #[error("read the cfssl authentication key")]
    KeyUnseen(#[from] CannotTell),
    /// OpenSSL could not make the token.
    #[error("authenticate a request to {url}")]
    Token {
        /// Whom it was for.
        url: HttpUrl,
        /// OpenSSL's reason.
        source: ErrorStack,
    },
    /// There was no answer, or it was not cfssl's.
    #[error("ask {url} for a certificate of profile {profile:?}")]
    Unanswered {
        /// Who was asked.
        url: HttpUrl,
        /// The profile that was asked for.
        profile: String,
        /// What happened.
        source: Box<HttpError>,
    },
    /// The token was made with another key than the server's.
    #[error("{url} refuses the authentication key in {path} for profile {profile:?}")]
    WrongKey {
        /// Who refused.
        url: HttpUrl,
        /// The key's file.
        path: RootPath,
        /// The profile that was asked for.
        profile: String,
    },
    /// The profile takes no authenticated requests, or is not there and the default one takes none.
    #[error("{url} has no profile {profile:?} with an authentication key")]
    ProfileUnauthenticated {
        /// Who refused.
        url: HttpUrl,
        /// The profile that was asked for.
        profile: String,
    },
    /// The request breaks the profile's policy.
    #[error("{url} refuses by the policy of profile {profile:?}: {message} (cfssl code {code})")]
    Policy {
        /// Who refused.
        url: HttpUrl,
        /// The profile that was asked for.
        profile: String,
        /// cfssl's code: 5xxx.
        code: i64,
        /// cfssl's words.
        message: String,
    },
    /// Another refusal.
    #[error("{url} refuses to sign with profile {profile:?}: {message} (cfssl code {code})")]
    Refused {
        /// Who refused.
        url: HttpUrl,
        /// The profile that was asked for.
        profile: String,
        /// cfssl's code.
        code: i64,
        /// cfssl's words.
        message: String,
    },
    /// The answer is not one of cfssl's.
    #[error("understand the answer of {url}: {why}")]
    Unintelligible {
        /// Who answered.
        url: HttpUrl,
        /// What is missing.
        why: String,
    },
}

impl Explain for CfsslError {
    fn class(&self) -> Class {
        match self {
            Self::Unanswered { source, .. } => source.class(),
            _ => Class::Failed,
        }
    }

    fn advice(&self) -> Option<String> {
        Some(match self {
            Self::KeyAbsent { path } | Self::KeyMalformed { path, .. } => {
                format!(
                    "put the auth_keys entry of the server's configuration into {path}: hexadecimal digits, nothing else"
                )
            }
            Self::WrongKey { path, profile, .. } => {
                format!("put the key that the server's profile {profile:?} names as auth_key into {path}")
            }
            Self::ProfileUnauthenticated { profile, .. } => {
                format!("give the server a profile {profile:?} with an auth_key, or set pki.signer.cfssl.profile")
            }
            Self::Policy { profile, .. } => {
                format!(
                    "let the server's profile {profile:?} allow this node's name and address, or choose another profile"
                )
            }
            Self::Unintelligible { .. } => "check that pki.signer.cfssl.url is a cfssl server's base URL".to_owned(),
            Self::Unanswered { source, .. } => return source.advice(),
            Self::Refused { .. } => "see the cfssl server's log".to_owned(),
            Self::KeyUnseen(_) | Self::Token { .. } => return None,
        })
    }
}

impl Signer for Cfssl {
    fn describe(&self) -> String {
        format!("cfssl at {}, profile {:?}", self.url, self.profile)
    }

    fn reads(&self) -> Vec<Thing> {
        vec![Thing::File(self.auth_key_file.clone())]
    }

    fn advice(&self) -> String {
        // cfssl answers for a profile that it does not have with its default one, and does not say so.
        format!("check that {} has the profile {:?}, with these usages, and signs with this CA", self.url, self.profile)
    }

    fn sign<'a>(&'a self, order: Order<'a>, seen: &'a Seen, peers: &'a Peers) -> Signing<'a> {
        Box::pin(async move {
            let key = self.auth_key(seen)?;
            let body = self.message(&order, &key)?;
            let server = peers.http.server(&self.url, order.ca.pem(), Login::Anonymous);
            let server = server.map_err(|error| self.unanswered(error))?;
            let answer = match server.post(ENDPOINT, &body).await {
                Ok(answer) => answer,
                // cfssl refuses with a status of 4xx and its reason in the body.
                Err(error) => error.json().ok_or_else(|| self.unanswered(error))?,
            };
            Ok(self.certificate(&answer)?)
        })
    }
}

/// cfssl's envelope (`api.Response`).
#[derive(Deserialize)]
struct Answer {
    success: bool,
    result: Option<Signed>,
    #[serde(default)]
    errors: Vec<Refusal>,
}

#[derive(Deserialize)]
struct Signed {
    certificate: String,
}

#[derive(Deserialize)]
struct Refusal {
    code: i64,
    message: String,
}

impl Cfssl {
    pub(super) fn auth_key(&self, seen: &Seen) -> Result<Zeroizing<Vec<u8>>, CfsslError> {
        let path = self.auth_key_file.clone();
        match seen.bytes(&path)? {
            None => Err(CfsslError::KeyAbsent { path }),
            Some(text) => from_hex(text.trim_ascii()).map_err(|why| CfsslError::KeyMalformed { path, why }),
        }
    }

    /// The body to post: the request and its token.
    pub(super) fn message(&self, order: &Order<'_>, key: &[u8]) -> Result<Value, CfsslError> {
        let request = json!({
            "certificate_request": order.request,
            "profile": self.profile,
            "hosts": order.wanted.names(),
        });
        let request = request.to_string();
        let token = hmac_sha256(key, request.as_bytes());
        let token = token.map_err(|source| CfsslError::Token { url: self.url.clone(), source })?;
        Ok(json!({ "token": encode_block(&token), "request": encode_block(request.as_bytes()) }))
    }

    /// The certificate in an answer, or why there is none.
    pub fn certificate(&self, answer: &Value) -> Result<Vec<u8>, CfsslError> {
        let unintelligible = |why: String| CfsslError::Unintelligible { url: self.url.clone(), why };
        let answer = Answer::deserialize(answer).map_err(|error| unintelligible(quote(&error.to_string())))?;
        if let Some(refusal) = answer.errors.into_iter().next() {
            return Err(self.refused(refusal));
        }
        match answer.result {
            Some(signed) if answer.success => Ok(signed.certificate.into_bytes()),
            _ => Err(unintelligible("it has neither a certificate nor an error".to_owned())),
        }
    }

    fn refused(&self, Refusal { code, message }: Refusal) -> CfsslError {
        let (url, profile) = (self.url.clone(), self.profile.clone());
        match (code, message.as_str()) {
            (400, "invalid token") => CfsslError::WrongKey { url, path: self.auth_key_file.clone(), profile },
            (400, "no authentication provider") => CfsslError::ProfileUnauthenticated { url, profile },
            (5000..6000, _) => CfsslError::Policy { url, profile, code, message: quote(&message) },
            _ => CfsslError::Refused { url, profile, code, message: quote(&message) },
        }
    }

    fn unanswered(&self, error: HttpError) -> CfsslError {
        CfsslError::Unanswered { url: self.url.clone(), profile: self.profile.clone(), source: Box::new(error) }
    }
}

/// The bytes that hexadecimal digits stand for.
fn from_hex(text: &[u8]) -> Result<Zeroizing<Vec<u8>>, &'static str> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Ok(byte - b'0'),
        b'a'..=b'f' => Ok(byte - b'a' + 10),
        b'A'..=b'F' => Ok(byte - b'A' + 10),
        _ => Err("it holds more than hexadecimal digits"),
    };
    if text.is_empty() {
        return Err("it is empty");
    }
    if !text.len().is_multiple_of(2) {
        return Err("it has an odd number of digits");
    }
    // All of its room at once: growing would leave copies behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(text.len() / 2));
    for pair in text.chunks_exact(2) {
        bytes.push(digit(pair[0])? << 4 | digit(pair[1])?);
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use openssl::base64::decode_block;

    use super::*;
    use crate::certs::testing::{Ca, CaKind, client, seen_file, server};

    fn cfssl() -> Cfssl {
        Cfssl {
            url: "https://10.10.30.11:8888".parse().expect("a URL"),
            auth_key_file: RootPath::literal("/etc/nodeagent/cfssl.key"),
            profile: "client".into(),
        }
    }

    #[test]
    fn the_token_authenticates_the_very_bytes_that_are_sent() {
        // RFC 4231, test case 2.
        let token = hmac_sha256(b"Jefe", b"what do ya want for nothing?").expect("a token");
        assert_eq!(token, *from_hex(b"5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843").expect("hex"));

        let wanted = server();
        let ca = Ca::valid(CaKind::Ec).authority();
        let order = Order { request: "CSR", wanted: &wanted, ca: &ca };
        let message = cfssl().message(&order, b"key").expect("a message");
        let part = |name: &str| decode_block(message[name].as_str().expect(name)).expect(name);
        assert_eq!(part("token"), hmac_sha256(b"key", &part("request")).expect("a token"));
        let request: Value = serde_json::from_slice(&part("request")).expect("JSON");
        let want = json!({ "certificate_request": "CSR", "profile": "client", "hosts": ["worker-01", "10.10.30.21"] });
        assert_eq!(request, want);
    }

    #[test]
    fn no_names_are_asked_for_as_an_empty_list() {
        let wanted = client();
        let ca = Ca::valid(CaKind::Ec).authority();
        let message = cfssl().message(&Order { request: "CSR", wanted: &wanted, ca: &ca }, b"key").expect("a message");
        let request = decode_block(message["request"].as_str().expect("text")).expect("base64");
        assert!(String::from_utf8_lossy(&request).contains(r#""hosts":[]"#));
    }

    #[test]
    fn the_key_file_is_hexadecimal_and_errors_do_not_show_it() {
        let cfssl = cfssl();
        let read = |bytes: Option<&[u8]>| cfssl.auth_key(&seen_file(&cfssl.auth_key_file, bytes));
        assert_eq!(*read(Some(b"  00fFa1\n")).expect("a key"), [0, 0xff, 0xa1]);
        let table: [(Option<&[u8]>, &str); 4] = [
            (None, "read the cfssl authentication key /etc/nodeagent/cfssl.key: there is no such file"),
            (Some(b" \n"), "read the cfssl authentication key /etc/nodeagent/cfssl.key: it is empty"),
            (
                Some(b"abc"),
                "read the cfssl authentication key /etc/nodeagent/cfssl.key: it has an odd number of digits",
            ),
            (
                Some(b"swordfish!"),
                "read the cfssl authentication key /etc/nodeagent/cfssl.key: it holds more than hexadecimal digits",
            ),
        ];
        for (bytes, text) in table {
            assert_eq!(read(bytes).expect_err(text).to_string(), text);
        }
    }

    #[test]
    fn answers() {
        let refusal = |code: i64, message: &str| json!({ "success": false, "result": null, "errors": [{ "code": code, "message": message }], "messages": [] });
        let table = [
            (
                refusal(400, "invalid token"),
                r#"https://10.10.30.11:8888 refuses the authentication key in /etc/nodeagent/cfssl.key for profile "client""#,
            ),
            (
                refusal(400, "no authentication provider"),
                r#"https://10.10.30.11:8888 has no profile "client" with an authentication key"#,
            ),
            (
                refusal(5200, "Invalid or unknown policy"),
                r#"https://10.10.30.11:8888 refuses by the policy of profile "client": Invalid or unknown policy (cfssl code 5200)"#,
            ),
            (
                refusal(9002, "CSR decode failed"),
                r#"https://10.10.30.11:8888 refuses to sign with profile "client": CSR decode failed (cfssl code 9002)"#,
            ),
            (
                json!({ "success": true, "result": null, "errors": [], "messages": [] }),
                "understand the answer of https://10.10.30.11:8888: it has neither a certificate nor an error",
            ),
            (
                refusal(9002, "two\nlines \u{1b}[2J"),
                "https://10.10.30.11:8888 refuses to sign with profile \"client\": two\u{fffd}lines \u{fffd}[2J (cfssl code 9002)",
            ),
            (json!({ "kind": "Status" }), "understand the answer of https://10.10.30.11:8888: missing field `success`"),
        ];
        for (answer, text) in table {
            let error = cfssl().certificate(&answer).expect_err(text);
            assert_eq!(error.to_string(), text);
            assert!(error.advice().is_some(), "{text}: no advice");
        }
        let good = json!({ "success": true, "result": { "certificate": "PEM" }, "errors": [], "messages": [] });
        assert_eq!(cfssl().certificate(&good).expect("a certificate"), b"PEM");
    }
}
