//! Bootstrap tokens: a Secret for each that `cloud-config` made and that has not expired.
//!
//! Each is made once: whoever deletes its Secret revokes it. The controller manager's `tokencleaner` removes the expired.

use std::time::SystemTime;

use openssl::base64::encode_block;
use serde_json::{Value, json};

use crate::certs::signer::Token;
use crate::config::Source;
use crate::config::manifests::manifests;
use crate::config::values::{NodeName, RootPath};
use crate::engine::fault::Explain;
use crate::host::clock;
use crate::host::root::{FileError, Root};
use crate::host::seen::Entry;

/// Where `cloud-config` puts them, on controllers only.
pub const FILE: &str = "/etc/nodeagent/bootstrap-tokens.yaml";

/// Says of a Secret for which machine its token is.
pub const NODE_ANNOTATION: &str = "nodeagent.io/node";

/// A token, and for which machine.
pub struct BootstrapToken {
    /// The only machine that it is good for.
    pub node: NodeName,
    /// The token itself.
    pub token: Token,
    /// Until when.
    pub expires: SystemTime,
}

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
    /// It says something else.
    #[error("use {path}: {why}")]
    Malformed {
        /// The file.
        path: String,
        /// What is wrong.
        why: String,
    },
}

impl Explain for TokensError {
    fn advice(&self) -> Option<String> {
        Some(match self {
            Self::File(error) => return error.advice(),
            Self::Exposed { path, .. } => {
                format!("chmod 600 {path}, and have `nodeagent cloud-config` make new tokens")
            }
            Self::Malformed { .. } => "`nodeagent cloud-config` writes this file; docs/cluster.md shows it".to_owned(),
        })
    }
}

/// The tokens of this machine's file; none where there is no file.
pub fn read(root: &Root) -> Result<Vec<BootstrapToken>, TokensError> {
    const OTHERS: u32 = 0o077;
    let path = RootPath::literal(FILE);
    let malformed = |why: String| TokensError::Malformed { path: root.display(&path), why };
    match root.entry(&path, true)? {
        Entry::Absent => Ok(Vec::new()),
        Entry::File { meta, .. } if meta.mode & OTHERS != 0 => {
            Err(TokensError::Exposed { path: root.display(&path), mode: meta.mode })
        }
        Entry::File { bytes, .. } => parse(bytes.unwrap_or_default()).map_err(malformed),
        _ => Err(malformed("it is no file".to_owned())),
    }
}

/// What a file says; else what is wrong with it, by key and never by value.
fn parse(text: Vec<u8>) -> Result<Vec<BootstrapToken>, String> {
    let source = Source { name: String::new(), text };
    let mut all = manifests(&source).map_err(|problem| format!("line {}: {}", problem.line, problem.message))?;
    let object = match (all.pop(), all.is_empty()) {
        (Some(manifest), true) => manifest.object,
        _ => return Err("it does not hold one document".to_owned()),
    };
    if object["apiVersion"] != "nodeagent.io/v1alpha1" || object["kind"] != "BootstrapTokens" {
        return Err("it is not of the kind BootstrapTokens of nodeagent.io/v1alpha1".to_owned());
    }
    let tokens = object["tokens"].as_object().ok_or("tokens is no map of machines' names")?;
    let one = |(node, entry): (&String, &Value)| {
        let token = entry["token"].as_str().and_then(|text| Token::parse(text.as_bytes()));
        let expires = entry["expires"].as_str().and_then(clock::parse);
        Ok(BootstrapToken {
            node: node.parse().map_err(|_| "a key of tokens is no machine's name".to_owned())?,
            token: token.ok_or_else(|| format!("tokens.{node}.token is not of the form abcdef.0123456789abcdef"))?,
            expires: expires.ok_or_else(|| format!("tokens.{node}.expires is no time such as 2026-11-22T12:00:00Z"))?,
        })
    };
    tokens.iter().map(one).collect()
}

impl BootstrapToken {
    /// The key under which it is noted that it was made, and what is noted.
    pub fn note(&self) -> (String, String) {
        (format!("token.{}", self.token.id()), format!("{} {}", self.node, clock::text(self.expires)))
    }

    /// Its Secret (Kubernetes, "Authenticating with Bootstrap Tokens").
    pub fn secret(&self) -> Value {
        let text = |text: &str| encode_block(text.as_bytes());
        json!({
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {
                "name": format!("bootstrap-token-{}", self.token.id()),
                "namespace": "kube-system",
                "annotations": { NODE_ANNOTATION: self.node },
            },
            "type": "bootstrap.kubernetes.io/token",
            "data": {
                "token-id": text(self.token.id()),
                "token-secret": text(self.token.secret()),
                "expiration": text(&clock::text(self.expires)),
                "usage-bootstrap-authentication": text("true"),
                "usage-bootstrap-signing": text("true"),
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "apiVersion: nodeagent.io/v1alpha1\nkind: BootstrapTokens\ntokens:\n  worker-1: { token: \
                        abcdef.fedcba9876543210, expires: 2026-11-22T12:00:00Z }\n";

    #[test]
    fn a_file_becomes_secrets_for_one_machine_each() {
        let all = parse(GOOD.as_bytes().to_vec()).expect("read");
        let [token] = all.as_slice() else { panic!("{} tokens", all.len()) };
        assert_eq!(token.note(), ("token.abcdef".to_owned(), "worker-1 2026-11-22T12:00:00Z".to_owned()));
        let secret = token.secret();
        assert_eq!(secret["metadata"]["annotations"], json!({ "nodeagent.io/node": "worker-1" }));
        assert_eq!(secret["data"]["token-secret"], encode_block(b"fedcba9876543210"));
        assert_eq!(secret["data"]["expiration"], encode_block(b"2026-11-22T12:00:00Z"));
    }

    #[test]
    fn what_is_wrong_is_told_by_its_key_and_never_shows_a_token() {
        for (from, to, part) in [
            ("BootstrapTokens", "Tokens", "not of the kind"),
            ("abcdef.", "ABCDEF.", "tokens.worker-1.token"),
            ("2026-11-22T12:00:00Z", "tomorrow", "tokens.worker-1.expires"),
            ("worker-1:", "Worker 1:", "a key of tokens"),
            ("tokens:\n", "tokens: []\nx:\n", "no map"),
            ("tokens:\n", "tokens: &a\n", "line 4: anchors"),
            ("apiVersion", "---\nkind: x\n---\napiVersion", "one document"),
        ] {
            let why = parse(GOOD.replacen(from, to, 1).into_bytes()).map(drop).expect_err(to);
            assert!(why.contains(part) && !why.contains("fedcba9876543210"), "{to}: {why}");
        }
    }
}
