//! The cluster's CA certificate where only the hash of its key is known: fetched from the API server's `cluster-info`, as
//! kubeadm does.
//!
//! The connection vouches for nothing. What came over it is vouched for twice: by the bootstrap token, whose secret half
//! signs it (RFC 7515, HS256, detached), and by the hash, which the CA's key must have.

use std::time::SystemTime;

use openssl::base64::{decode_block, encode_block};
use openssl::error::ErrorStack;
use openssl::x509::X509;
use serde_json::Value;

use super::authority::{AuthorityError, AuthorityFlaw, flaw_of, key_hash};
use super::signer::{KubernetesError, Token, hmac_sha256};
use crate::config::values::{HttpUrl, KeyHash, RootPath};
use crate::engine::change::{Body, Change, Meta};
use crate::engine::fault::{Class, Explain, Fault};
use crate::engine::resource::{CannotTell, Delta, Diff, Obtained, Resource, Seen, Thing};
use crate::host::http::HttpError;
use crate::host::peers::Peers;

/// Where everybody may read how to reach the cluster, and whom to trust there.
const CLUSTER_INFO: &str = "/api/v1/namespaces/kube-public/configmaps/cluster-info";

/// The file of the CA certificate whose key has this hash.
pub(super) struct ClusterCa {
    /// The file.
    pub path: RootPath,
    /// The API server.
    pub url: HttpUrl,
    /// The file that holds the bootstrap token.
    pub token_file: RootPath,
    /// The hash of the CA's key.
    pub hash: KeyHash,
}

/// The CA's certificate was not found, or is not the one.
#[derive(Debug, thiserror::Error)]
pub enum DiscoveryError {
    /// There is no usable token to check with.
    #[error(transparent)]
    Token(#[from] KubernetesError),
    /// OpenSSL could not.
    #[error("check what {url} says of its CA")]
    Crypto {
        /// Who was asked.
        url: HttpUrl,
        /// OpenSSL's reason.
        source: ErrorStack,
    },
    /// There was no answer.
    #[error("ask {url} for its CA")]
    Unanswered {
        /// Who was asked.
        url: HttpUrl,
        /// What happened.
        source: Box<HttpError>,
    },
    /// The cluster shows no such thing.
    #[error("{url} shows no cluster-info in kube-public")]
    NoClusterInfo {
        /// Who was asked.
        url: HttpUrl,
    },
    /// The token does not vouch for it.
    #[error("the cluster-info of {url} is not signed by the bootstrap token {token}")]
    Unsigned {
        /// Who was asked.
        url: HttpUrl,
        /// The half of the token that is no secret.
        token: String,
    },
    /// Somebody else signed it.
    #[error("the signature on the cluster-info of {url} is not made with the bootstrap token {token}")]
    Forged {
        /// Who was asked.
        url: HttpUrl,
        /// The half of the token that is no secret.
        token: String,
    },
    /// It is another CA's.
    #[error("the CA of {url} has {}, not {hash}", keys(found))]
    OtherKey {
        /// Who was asked.
        url: HttpUrl,
        /// The hashes of what came.
        found: Vec<String>,
        /// The hash that it must have.
        hash: KeyHash,
    },
}

/// Keys by their hashes.
fn keys(found: &[String]) -> String {
    if found.is_empty() { "no certificate".to_owned() } else { format!("a key with the hash {}", found.join(" or ")) }
}

impl Explain for DiscoveryError {
    fn class(&self) -> Class {
        match self {
            Self::Token(error) => error.class(),
            Self::Unanswered { source, .. } => source.class(),
            Self::Forged { .. } | Self::OtherKey { .. } => Class::Verification,
            Self::Crypto { .. } | Self::NoClusterInfo { .. } | Self::Unsigned { .. } => Class::Failed,
        }
    }

    fn advice(&self) -> Option<String> {
        Some(match self {
            Self::Token(error) => return error.advice(),
            Self::Unanswered { source, .. } => return source.advice(),
            Self::Crypto { .. } => return None,
            Self::NoClusterInfo { .. } => {
                "a controller's nodeagent-cluster.service makes it (in kubeadm's clusters: kubeadm init phase bootstrap-token); or put the CA's certificate on this machine and \
                 leave caHash out"
                    .to_owned()
            }
            Self::Unsigned { .. } => {
                "it may have expired, or may not be for signing: make another one (nodeagent cloud-config on the operator's \
                 machine; in kubeadm's clusters kubeadm token create)"
                    .to_owned()
            },
            Self::Forged { .. } => "check cluster.apiServer: it may be another cluster's, or somebody in between".to_owned(),
            Self::OtherKey { .. } => {
                "check caHash: `sha256:` and, where the CA's certificate is, what openssl x509 -in ca.crt -noout -pubkey | openssl \
                 pkey -pubin -outform der | sha256sum prints"
                    .to_owned()
            }
        })
    }
}

impl Resource for ClusterCa {
    fn summary(&self) -> String {
        format!("{} (the CA of {}, known by its key's hash)", self.path, self.url)
    }

    fn reads(&self) -> Vec<Thing> {
        vec![Thing::File(self.path.clone()), Thing::File(self.token_file.clone()), Thing::Clock]
    }

    fn makes(&self) -> Vec<Thing> {
        vec![Thing::File(self.path.clone())]
    }

    fn diff(&self, seen: &Seen) -> Result<Diff, CannotTell> {
        let (pem, now) = (seen.bytes(&self.path)?.unwrap_or_default(), seen.now()?);
        let shown = match self.expired(pem, now) {
            // The cluster may have another certificate for the same key by now.
            Some(_) => Delta::new("certificate", "expired", "one for the same key"),
            None if !self.ours(pem, now).is_empty() => return Ok(Diff::Same),
            None => {
                let now: Vec<String> = hashes(pem).into_iter().map(|(hash, _)| hash).collect();
                Delta::new("key", now.join(", "), &self.hash)
            }
        };
        Ok(Diff::Differs {
            shown: vec![shown],
            known: vec![Change::Dir { path: self.path.parent(), meta: Meta::PROGRAM }],
        })
    }

    fn obtain<'a>(&'a self, mut known: Vec<Change>, seen: &'a Seen, peers: &'a Peers) -> Obtained<'a> {
        Box::pin(async move {
            let (pem, now) = (seen.bytes(&self.path)?.unwrap_or_default(), seen.now()?);
            let asked = async {
                let token = Token::read(&self.token_file, seen)?;
                self.certificate(&self.ask(peers).await?, &token)
            };
            let ca = match (asked.await, self.expired(pem, now)) {
                // That there is no other one says less than that this one's time is over.
                (Ok(ca), Some(flaw)) if self.expired(&ca, now).is_some() => return Err(self.unusable(flaw)),
                (Err(_), Some(flaw)) => return Err(self.unusable(flaw)),
                (asked, _) => asked?,
            };
            known.push(Change::Put { path: self.path.clone(), body: Body::Bytes(ca), meta: Meta::FILE });
            Ok::<_, Fault>(known)
        })
    }
}

impl ClusterCa {
    /// What is wrong, by its time, with each certificate that has our key.
    fn ours(&self, pem: &[u8], now: SystemTime) -> Vec<Option<AuthorityFlaw>> {
        let ours = hashes(pem).into_iter().filter(|(hash, _)| *hash == self.hash.as_str());
        ours.map(|(_, pem)| X509::from_pem(&pem).ok().and_then(|ca| flaw_of(&ca, now))).collect()
    }

    /// That the time of all of those is over, where there are any.
    fn expired(&self, pem: &[u8], now: SystemTime) -> Option<AuthorityFlaw> {
        let mut flaws = self.ours(pem, now);
        let is_over = |flaw: &Option<AuthorityFlaw>| matches!(flaw, Some(AuthorityFlaw::Expired { .. }));
        if flaws.iter().all(is_over) { flaws.pop().flatten() } else { None }
    }

    fn unusable(&self, flaw: AuthorityFlaw) -> Fault {
        AuthorityError { path: self.path.clone(), flaw }.into()
    }

    /// Asks as nobody: who answers is not known yet.
    async fn ask(&self, peers: &Peers) -> Result<Value, DiscoveryError> {
        let unanswered = |error| match error {
            HttpError::Status { status: 401 | 403 | 404, .. } => {
                DiscoveryError::NoClusterInfo { url: self.url.clone() }
            }
            error => DiscoveryError::Unanswered { url: self.url.clone(), source: Box::new(error) },
        };
        let server = peers.http.unknown_server(&self.url).map_err(unanswered)?;
        server.get(CLUSTER_INFO).await.map_err(unanswered)
    }

    /// The CA's certificate in PEM from an answer that the token signed, if its key has the hash.
    fn certificate(&self, answer: &Value, token: &Token) -> Result<Vec<u8>, DiscoveryError> {
        let (url, id) = (|| self.url.clone(), || token.id().to_owned());
        let data = &answer["data"];
        let info = data["kubeconfig"].as_str().ok_or_else(|| DiscoveryError::NoClusterInfo { url: url() })?;
        let signature = data[format!("jws-kubeconfig-{}", token.id())].as_str();
        let signature = signature.ok_or_else(|| DiscoveryError::Unsigned { url: url(), token: id() })?;
        let signed = is_signed(info, signature, token);
        if !signed.map_err(|source| DiscoveryError::Crypto { url: url(), source })? {
            return Err(DiscoveryError::Forged { url: url(), token: id() });
        }
        let all = hashes(&authority_data(info).unwrap_or_default());
        let fits = all.iter().filter(|(hash, _)| *hash == self.hash.as_str());
        let ca: Vec<u8> = fits.flat_map(|(_, pem)| pem.iter().copied()).collect();
        if ca.is_empty() {
            let found = all.into_iter().map(|(hash, _)| hash).collect();
            return Err(DiscoveryError::OtherKey { url: url(), found, hash: self.hash.clone() });
        }
        Ok(ca)
    }
}

/// Whether the token signed this text. `signature` is header and signature with nothing between their dots.
fn is_signed(text: &str, signature: &str, token: &Token) -> Result<bool, ErrorStack> {
    let Some((header, made)) = signature.split_once("..") else { return Ok(false) };
    let signed = format!("{header}.{}", url_safe(&encode_block(text.as_bytes())));
    let wanted = url_safe(&encode_block(&hmac_sha256(token.secret().as_bytes(), signed.as_bytes())?));
    Ok(wanted.len() == made.len() && openssl::memcmp::eq(wanted.as_bytes(), made.as_bytes()))
}

/// The base64 of URLs (RFC 4648, 5), without padding.
fn url_safe(base64: &str) -> String {
    base64.trim_end_matches('=').replace('+', "-").replace('/', "_")
}

/// The CA certificates in a kubeconfig: what stands behind the one key that can hold them, in YAML of any style.
fn authority_data(kubeconfig: &str) -> Option<Vec<u8>> {
    let (_, rest) = kubeconfig.split_once("certificate-authority-data")?;
    let rest = rest.trim_start_matches(|c: char| c.is_whitespace() || "\"':".contains(c));
    let end = rest.find(|c: char| !(c.is_ascii_alphanumeric() || "+/=".contains(c))).unwrap_or(rest.len());
    decode_block(&rest[..end]).ok()
}

/// Each certificate in a PEM file, and the hash of its key.
pub(super) fn hashes(pem: &[u8]) -> Vec<(String, Vec<u8>)> {
    let all = X509::stack_from_pem(pem).unwrap_or_default();
    all.iter().filter_map(|certificate| Some((key_hash(certificate).ok()?, certificate.to_pem().ok()?))).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::certs::testing::{Ca, CaKind, DAY, seen_file, seen_files};
    use crate::config::settings::DownloadSettings;
    use crate::host::http::Http;
    use crate::host::root::Root;
    use crate::journal::Teller;

    const TOKEN: &[u8] = b"abcdef.0123456789abcdef";

    fn token() -> Token {
        let path = RootPath::literal("/token");
        Token::read(&path, &seen_file(&path, Some(TOKEN))).map_err(|error| error.to_string()).expect("a token")
    }

    fn discovery(ca: &Ca) -> ClusterCa {
        ClusterCa {
            path: RootPath::literal("/etc/kubernetes/pki/ca.pem"),
            url: "https://10.10.30.11:6443".parse().expect("a URL"),
            token_file: RootPath::literal("/token"),
            hash: key_hash(&ca.certificate).expect("a hash").parse().expect("a hash"),
        }
    }

    /// The answer of a cluster with this CA, signed with this secret.
    fn answer(ca: &Ca, secret: &str) -> Value {
        let info = format!(
            "clusters:\n- cluster:\n    certificate-authority-data: {}\n    server: x\n",
            encode_block(&ca.pem())
        );
        let header = url_safe(&encode_block(br#"{"alg":"HS256","kid":"abcdef"}"#));
        let signed = format!("{header}.{}", url_safe(&encode_block(info.as_bytes())));
        let mac = hmac_sha256(secret.as_bytes(), signed.as_bytes()).expect("a signature");
        let signature = format!("{header}..{}", url_safe(&encode_block(&mac)));
        json!({ "kind": "ConfigMap", "data": { "kubeconfig": info, "jws-kubeconfig-abcdef": signature } })
    }

    #[test]
    fn the_token_and_the_hash_must_both_hold() {
        let (ca, other) = (Ca::valid(CaKind::Rsa), Ca::valid(CaKind::Ec));
        let good = answer(&ca, "0123456789abcdef");
        let pem = discovery(&ca).certificate(&good, &token()).map_err(|error| error.to_string()).expect("a CA");
        assert_eq!(pem, ca.pem());

        let without = |key: &str| {
            let mut answer = good.clone();
            answer["data"].as_object_mut().expect("a map").remove(key);
            answer
        };
        let mut altered = good.clone();
        altered["data"]["kubeconfig"] = answer(&other, "x")["data"]["kubeconfig"].clone();
        let url = "https://10.10.30.11:6443";
        let table = [
            (without("kubeconfig"), format!("{url} shows no cluster-info in kube-public"), Class::Failed),
            (
                without("jws-kubeconfig-abcdef"),
                format!("the cluster-info of {url} is not signed by the bootstrap token abcdef"),
                Class::Failed,
            ),
            (
                answer(&ca, "fedcba9876543210"),
                format!("the signature on the cluster-info of {url} is not made with the bootstrap token abcdef"),
                Class::Verification,
            ),
            (
                altered,
                format!("the signature on the cluster-info of {url} is not made with the bootstrap token abcdef"),
                Class::Verification,
            ),
            (
                answer(&other, "0123456789abcdef"),
                format!(
                    "the CA of {url} has a key with the hash {}, not {}",
                    discovery(&other).hash,
                    discovery(&ca).hash
                ),
                Class::Verification,
            ),
        ];
        for (answer, text, class) in table {
            let fault = Fault::from(discovery(&ca).certificate(&answer, &token()).expect_err(&text));
            assert_eq!((fault.to_string(), fault.class), (text.clone(), class));
            assert!(fault.advice.is_some(), "{text}");
        }
    }

    #[test]
    fn a_ca_that_expired_is_asked_for_again() {
        let good = Ca::valid(CaKind::Ec);
        let old = Ca::new(CaKind::Ec, true, -2 * DAY, -DAY);
        let table: [(&Ca, Vec<u8>, Option<&str>); 4] = [
            (&good, good.pem(), None),
            (&good, [old.pem(), good.pem()].concat(), None),
            (&good, old.pem(), Some("key")),
            (&old, old.pem(), Some("certificate")),
        ];
        for (ca, pem, wanted) in table {
            let resource = discovery(ca);
            let diff = resource.diff(&seen_file(&resource.path, Some(&pem))).expect("a diff");
            match (diff, wanted) {
                (Diff::Same, None) => (),
                (Diff::Differs { shown, .. }, Some(what)) => assert_eq!(shown[0].what, what),
                (diff, wanted) => panic!("{diff:?} instead of {wanted:?}"),
            }
        }
    }

    #[tokio::test]
    async fn that_a_ca_expired_is_said_where_there_is_no_other() {
        let (old, good) = (Ca::new(CaKind::Ec, true, -2 * DAY, -DAY), Ca::valid(CaKind::Ec));
        let tree = tempfile::tempdir().expect("a directory");
        let root = Root::open(tree.path()).expect("a root");
        let http = Http::new(Teller::silent(), root.clone(), DownloadSettings::default());
        let peers = Peers { http, root, tell: Teller::silent() };
        for (ca, class, says) in [
            (&old, Class::Verification, "trust the CA certificate /etc/kubernetes/pki/ca.pem: CN=test-ca expired on "),
            (&good, Class::Failed, "/token"),
        ] {
            let resource = discovery(ca);
            // There is no token any more.
            let seen =
                seen_files(&[(&resource.path, Some((old.pem().as_slice(), Meta::FILE))), (&resource.token_file, None)]);
            let fault = resource.obtain(Vec::new(), &seen, &peers).await.map(drop).expect_err("no CA");
            assert!(fault.class == class && fault.to_string().contains(says), "{:?} {fault}", fault.class);
        }
    }

    #[test]
    fn the_hash_is_kubeadms() {
        // As kubeadm's documentation computes it, of a key that openssl made.
        let key = "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=\n-----END PUBLIC KEY-----\n";
        let public = openssl::pkey::PKey::public_key_from_pem(key.as_bytes()).expect("a key");
        let hash = crate::certs::authority::hash_of(&public).expect("a hash");
        assert_eq!(hash, "sha256:a1e9156054e04fac899ae9f275132cdc07a5dbc4ea2c2ad3a1ffc6e0d253681f");
    }
}
