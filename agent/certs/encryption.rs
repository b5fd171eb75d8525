//! How Secrets are encrypted at rest: the API server's `--encryption-provider-config`, from a file of keys.
//!
//! One key of 32 bytes in base64 per line. The first encrypts, all of them decrypt: a new key comes last on every controller,
//! then, when all of them can read with it, first; the old one goes when all Secrets were written anew
//! (kubernetes.io/docs/tasks/administer-cluster/encrypt-data).

use openssl::base64::decode_block;
use serde_json::json;
use zeroize::Zeroizing;

use super::check::exposed;
use crate::config::values::{RootPath, Sha256};
use crate::engine::change::{Body, Change, Meta};
use crate::engine::resource::{CannotTell, Delta, Diff, Resource, Seen, Thing};

/// What XSalsa20-Poly1305, the provider `secretbox`, wants.
const KEY_BYTES: usize = 32;

/// The API server's configuration of encryption at rest.
pub(super) struct Encryption {
    /// The file of keys.
    pub keys: RootPath,
    /// The file to write.
    pub path: RootPath,
}

impl Encryption {
    /// The configuration for the file of keys.
    fn render(&self, keys: &[u8]) -> Result<Zeroizing<Vec<u8>>, CannotTell> {
        let refuse = |why: String| {
            let advice = "one key per line, each 32 random bytes in base64: openssl rand -base64 32".to_owned();
            CannotTell { advice: Some(advice), ..CannotTell::new(&self.keys, why) }
        };
        let text = std::str::from_utf8(keys).map_err(|_| refuse("it is not text".to_owned()))?;
        let lines =
            text.lines().enumerate().map(|(at, line)| (at + 1, line.trim())).filter(|(_, line)| !line.is_empty());
        let mut named = Vec::new();
        for (number, line) in lines {
            let key = Zeroizing::new(decode_block(line).unwrap_or_default());
            if key.len() != KEY_BYTES {
                return Err(refuse(format!("line {number} is not {KEY_BYTES} bytes in base64")));
            }
            // Named by what it is: the name is stored with each Secret, and must not move to another key.
            named.push(json!({ "name": format!("key-{}", Sha256::of(&key).short()), "secret": line }));
        }
        if named.is_empty() {
            return Err(refuse("it holds no key".to_owned()));
        }
        let config = json!({
            "apiVersion": "apiserver.config.k8s.io/v1",
            "kind": "EncryptionConfiguration",
            "resources": [{
                "resources": ["secrets"],
                // The last one reads what was written before there was a key.
                "providers": [{ "secretbox": { "keys": named } }, { "identity": {} }],
            }],
        });
        Ok(Zeroizing::new(format!("{config:#}\n").into_bytes()))
    }
}

impl Resource for Encryption {
    fn summary(&self) -> String {
        format!("{} (Secrets are encrypted at rest, with the keys of {})", self.path, self.keys)
    }

    fn reads(&self) -> Vec<Thing> {
        vec![Thing::File(self.keys.clone()), Thing::File(self.path.clone())]
    }

    fn makes(&self) -> Vec<Thing> {
        vec![Thing::File(self.path.clone())]
    }

    fn diff(&self, seen: &Seen) -> Result<Diff, CannotTell> {
        let Some(keys) = seen.bytes(&self.keys)? else {
            let advice = "put the cluster's keys there, the same on every controller; only where no Secret was ever encrypted, take \
                          pki.encryptionKey away";
            let why = "there is no such file";
            return Err(CannotTell { advice: Some(advice.to_owned()), ..CannotTell::new(&self.keys, why) });
        };
        if let Some(open) = exposed(seen.entry(&self.keys)?) {
            let why = format!("others than root could read it ({})", open.now);
            let advice =
                "chmod 600 it, and replace the key: a new one as the last line on every controller, then as the first";
            return Err(CannotTell { advice: Some(advice.to_owned()), ..CannotTell::new(&self.keys, why) });
        }
        let config = self.render(keys)?;
        let mut shown: Vec<Delta> = exposed(seen.entry(&self.path)?).into_iter().collect();
        if seen.bytes(&self.path)? != Some(config.as_slice()) {
            shown.push(Delta::new("content", "", format!("sha256 {}", Sha256::of(&config).short())));
        }
        if shown.is_empty() {
            return Ok(Diff::Same);
        }
        Ok(Diff::Differs {
            shown,
            known: vec![
                Change::Dir { path: self.path.parent(), meta: Meta::PROGRAM },
                Change::Put { path: self.path.clone(), body: Body::Credential(config), meta: Meta::SECRET },
            ],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::certs::testing::seen_files;

    fn resource() -> Encryption {
        Encryption {
            keys: RootPath::literal("/etc/kubernetes/pki/encryption.key"),
            path: RootPath::literal("/etc/kubernetes/encryption.conf"),
        }
    }

    #[test]
    fn the_first_key_encrypts_and_all_decrypt() {
        let keys =
            format!("{}\n\n{}\n", openssl::base64::encode_block(&[7; 32]), openssl::base64::encode_block(&[8; 32]));
        let config = resource().render(keys.as_bytes()).expect("two keys");
        let config: serde_json::Value = serde_json::from_slice(&config).expect("JSON");
        let providers = &config["resources"][0]["providers"];
        let keys = providers[0]["secretbox"]["keys"].as_array().expect("keys");
        assert_eq!(keys.len(), 2);
        assert_eq!(keys[0]["secret"], openssl::base64::encode_block(&[7; 32]));
        assert_ne!(keys[0]["name"], keys[1]["name"]);
        assert!(providers[1]["identity"].is_object(), "what was there before stays readable");
    }

    #[test]
    fn what_is_no_key_is_named_by_its_line_and_never_shown() {
        for (text, why) in
            [("", "no key"), ("c2hvcnQ=\n", "line 1 is not 32 bytes"), ("\nsecret!", "line 2 is not 32 bytes")]
        {
            let error = resource().render(text.as_bytes()).expect_err(text);
            assert!(error.why.contains(why) && !error.why.contains("secret!"), "{}", error.why);
        }
    }

    #[test]
    fn what_was_written_is_the_same_at_the_next_run() {
        let (resource, keys) = (resource(), openssl::base64::encode_block(&[7; 32]));
        let keys_file = (keys.as_bytes(), Meta::SECRET);
        let seen = seen_files(&[(&resource.keys, Some(keys_file)), (&resource.path, None)]);
        let Diff::Differs { known, .. } = resource.diff(&seen).expect("a difference") else {
            panic!("nothing to write")
        };
        let Some(Change::Put { body: Body::Credential(bytes), meta, .. }) = known.last() else { panic!("{known:?}") };
        let written = (bytes.as_slice(), *meta);
        let again = seen_files(&[(&resource.keys, Some(keys_file)), (&resource.path, Some(written))]);
        assert!(matches!(resource.diff(&again), Ok(Diff::Same)));
        let open =
            seen_files(&[(&resource.keys, Some((keys.as_bytes(), Meta::FILE))), (&resource.path, Some(written))]);
        assert!(resource.diff(&open).is_err_and(|error| error.why.contains("0644")));
    }
}
