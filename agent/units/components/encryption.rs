//! The encryption of Secrets at rest: a configuration file that is itself a secret.

use openssl::base64::{decode_block, encode_block};
use serde_json::json;
use zeroize::Zeroizing;

use super::text;
use crate::config::values::{RootPath, Sha256};
use crate::engine::change::{Body, Change, Meta};
use crate::engine::file::{Kind, ManagedFile};
use crate::engine::resource::{CannotTell, Diff, Resource, Seen, Thing};

/// The size of a `secretbox` key in bytes.
const KEY: usize = 32;

/// The API server's `EncryptionConfiguration`, with the key of `pki.encryptionKey` in it.
pub struct EncryptionConfig {
    /// Where.
    pub path: RootPath,
    /// The file with 32 random bytes in base64.
    pub key: RootPath,
}

impl EncryptionConfig {
    /// Secrets are written with the key, and read with it or, where they are older than it, without.
    ///
    /// `secretbox` (XSalsa20 and Poly1305) is what Kubernetes recommends of those that need no server of their own
    /// (<https://kubernetes.io/docs/tasks/administer-cluster/encrypt-data/>). The key's name is kept with each Secret; it
    /// is taken from the key, so that another key has another name.
    fn render(&self, file: &[u8]) -> Result<Zeroizing<String>, CannotTell> {
        let bad = |why: &str| {
            let advice = format!("make one by `head -c {KEY} /dev/urandom | base64`, the same for every controller");
            CannotTell { advice: Some(advice), ..CannotTell::new(&self.key, why) }
        };
        let base64 = str::from_utf8(file).map_err(|_| bad("it is no text: wants 32 bytes in base64"))?;
        let key = Zeroizing::new(decode_block(base64.trim()).map_err(|_| bad("it is not base64"))?);
        if key.len() != KEY {
            return Err(bad(&format!("it holds {} bytes, not {KEY}", key.len())));
        }
        let name = format!("key-{}", Sha256::of(&key).short());
        let secret = Zeroizing::new(encode_block(&key));
        Ok(Zeroizing::new(text(&json!({
            "apiVersion": "apiserver.config.k8s.io/v1",
            "kind": "EncryptionConfiguration",
            "resources": [{
                "resources": ["secrets"],
                "providers": [
                    { "secretbox": { "keys": [{ "name": name, "secret": secret.as_str() }] } },
                    { "identity": {} }
                ]
            }]
        }))))
    }
}

impl Resource for EncryptionConfig {
    fn summary(&self) -> String {
        format!("{} (Secrets encrypted at rest with {})", self.path, self.key)
    }

    fn reads(&self) -> Vec<Thing> {
        vec![Thing::File(self.path.clone()), Thing::File(self.key.clone())]
    }

    fn makes(&self) -> Vec<Thing> {
        vec![Thing::File(self.path.clone())]
    }

    fn diff(&self, seen: &Seen) -> Result<Diff, CannotTell> {
        let Some(key) = seen.bytes(&self.key)? else {
            let advice = "pki.encryptionKey names it; `nodeagent cloud-config` makes it, the same for every controller";
            return Err(CannotTell {
                advice: Some(advice.to_owned()),
                ..CannotTell::new(&self.key, "there is no such file")
            });
        };
        let content = self.render(key)?.to_string();
        let file = ManagedFile { path: self.path.clone(), content, meta: Meta::SECRET, kind: Kind::Plain };
        Ok(match file.diff(seen)? {
            Diff::Same => Diff::Same,
            Diff::Differs { shown, known } => {
                Diff::Differs { shown, known: known.into_iter().map(as_credential).collect() }
            }
        })
    }
}

/// The bytes of a secret are not kept for an undo.
fn as_credential(change: Change) -> Change {
    match change {
        Change::Put { path, body: Body::Bytes(bytes), meta } => {
            Change::Put { path, body: Body::Credential(Zeroizing::new(bytes)), meta }
        }
        other => other,
    }
}
