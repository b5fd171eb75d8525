//! Bootstrap tokens: a Secret for each that `cloud-config` made and that has not expired.
//!
//! Each is made once: whoever deletes its Secret revokes it. The controller manager's `tokencleaner` removes the expired.

use openssl::base64::encode_block;
use serde_json::{Value, json};

use crate::config::kept::{self, BootstrapToken, BootstrapTokens, Moment};
use crate::config::values::{NodeName, RootPath};
use crate::config::{ConfigErrors, Source};
use crate::engine::fault::Explain;
use crate::host::bytes::FileBytes;
use crate::host::root::{FileError, Root};
use crate::host::seen::Entry;

/// Where `cloud-config` puts them, on controllers only.
pub const FILE: &str = "/etc/nodeagent/bootstrap-tokens.yaml";

/// Says of a Secret for which machine its token is.
pub const NODE_ANNOTATION: &str = "nodeagent.io/node";

/// The file of tokens cannot be used. Never shows one.
#[derive(Debug, thiserror::Error)]
pub enum TokensError {
    /// It cannot be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// Others may read it.
    #[error("use {path}: others may read it (mode {mode:04o})")]
    Exposed {
        /// The file.
        path: String,
        /// Its mode.
        mode: u32,
    },
    /// It is no file.
    #[error("use {path}: it is no file")]
    NoFile {
        /// Where a file should be.
        path: String,
    },
    /// It says something else.
    #[error(transparent)]
    Malformed(#[from] ConfigErrors),
}

impl Explain for TokensError {
    fn advice(&self) -> Option<String> {
        Some(match self {
            Self::File(error) => return error.advice(),
            Self::Exposed { path, .. } => {
                format!("chmod 600 {path}, and have `nodeagent cloud-config --new-tokens` make others")
            }
            Self::NoFile { .. } | Self::Malformed(_) => {
                "`nodeagent cloud-config` writes this file; docs/cluster.md shows it".to_owned()
            }
        })
    }
}

/// The tokens of this machine's file that are good at this time, each with the machine that it is for; none where there is no
/// file.
pub fn read(root: &Root, now: &str) -> Result<Vec<(NodeName, BootstrapToken)>, TokensError> {
    const OTHERS: u32 = 0o077;
    let path = RootPath::literal(FILE);
    let name = root.display(&path);
    match root.entry(&path, true)? {
        Entry::Absent => Ok(Vec::new()),
        Entry::File { meta, .. } if meta.mode & OTHERS != 0 => {
            Err(TokensError::Exposed { path: name, mode: meta.mode })
        }
        Entry::File { bytes, .. } => {
            let text = bytes.map(FileBytes::into_vec).unwrap_or_default();
            Ok(good(Source { name, text }, now)?)
        }
        _ => Err(TokensError::NoFile { path: name }),
    }
}

fn good(source: Source, now: &str) -> Result<Vec<(NodeName, BootstrapToken)>, ConfigErrors> {
    let all: BootstrapTokens = kept::load(source)?;
    Ok(all.tokens.into_iter().filter(|(_, token)| text(&token.expires).as_str() > now).collect())
}

fn text(moment: &Moment) -> String {
    moment.clone().into()
}

/// The key under which it is noted that a token's Secret was made, and what is noted.
pub fn note(node: &NodeName, token: &BootstrapToken) -> (String, String) {
    let (id, _) = token.token.as_str().split_once('.').unwrap_or_default();
    (format!("token.{id}"), format!("{node} {}", text(&token.expires)))
}

/// A token's Secret (Kubernetes, "Authenticating with Bootstrap Tokens").
pub fn secret(node: &NodeName, token: &BootstrapToken) -> Value {
    let (id, secret) = token.token.as_str().split_once('.').unwrap_or_default();
    let base64 = |text: &str| encode_block(text.as_bytes());
    json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {
            "name": format!("bootstrap-token-{id}"),
            "namespace": "kube-system",
            "annotations": { NODE_ANNOTATION: node },
        },
        "type": "bootstrap.kubernetes.io/token",
        "data": {
            "token-id": base64(id),
            "token-secret": base64(secret),
            "expiration": base64(&text(&token.expires)),
            "usage-bootstrap-authentication": base64("true"),
            "usage-bootstrap-signing": base64("true"),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "apiVersion: nodeagent.io/v1alpha1\nkind: BootstrapTokens\ntokens:\n  worker-1: { token: \
                        abcdef.fedcba9876543210, expires: 2026-11-22T12:00:00Z }\n";

    fn read(text: &str, now: &str) -> Result<Vec<(NodeName, BootstrapToken)>, ConfigErrors> {
        good(Source { name: "tokens.yaml".to_owned(), text: text.as_bytes().to_vec() }, now)
    }

    #[test]
    fn a_token_is_a_secret_for_one_machine_until_it_is_over() {
        let all = read(GOOD, "2026-11-22T11:59:59Z").expect("read");
        let [(node, token)] = all.as_slice() else { panic!("{} tokens", all.len()) };
        assert_eq!(note(node, token), ("token.abcdef".to_owned(), "worker-1 2026-11-22T12:00:00Z".to_owned()));
        let secret = secret(node, token);
        assert_eq!(secret["metadata"]["annotations"], json!({ "nodeagent.io/node": "worker-1" }));
        assert_eq!(secret["metadata"]["name"], "bootstrap-token-abcdef");
        assert_eq!(secret["data"]["token-secret"], encode_block(b"fedcba9876543210"));
        assert_eq!(secret["data"]["expiration"], encode_block(b"2026-11-22T12:00:00Z"));
        assert_eq!(read(GOOD, "2026-11-22T12:00:00Z"), Ok(Vec::new()));
    }

    #[test]
    fn what_is_wrong_is_told_and_never_shows_a_token() {
        for (from, to) in [
            ("BootstrapTokens", "Tokens"),
            ("abcdef.", "ABCDEF."),
            ("2026-11-22T12:00:00Z", "tomorrow"),
            ("worker-1:", "Worker 1:"),
            ("token: abcdef.", "token: &a abcdef."),
            ("token:", "tokem:"),
            ("{ token: abcdef.fedcba9876543210,", "{ token: { abcdef.fedcba9876543210: 1 },"),
        ] {
            let why = read(&GOOD.replacen(from, to, 1), "").expect_err(to).to_string();
            assert!(!why.contains("fedcba9876543210"), "{to}: {why}");
        }
    }
}
