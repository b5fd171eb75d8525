//! A bootstrap token for each machine that joins by one.

use std::time::{Duration, SystemTime};

use openssl::error::ErrorStack;
use openssl::rand::rand_bytes;

use crate::config::kept::{BootstrapToken, BootstrapTokens, Moment, TokenText};
use crate::config::values::NodeName;
use crate::engine::fault::Explain;
use crate::host::clock;

/// A token could not be made.
#[derive(Debug, thiserror::Error)]
#[error("make a bootstrap token: {why}")]
pub struct NoToken {
    why: String,
}

impl Explain for NoToken {}

/// Sees to it that each of the machines has a token that can still be used, and no other machine has one. Those that have
/// one keep it, unless `all` are to be new.
pub(super) fn renew(
    kept: &mut BootstrapTokens,
    machines: &[&NodeName],
    life: Duration,
    all: bool,
    now: SystemTime,
) -> Result<(), NoToken> {
    let moment = |at| Moment::try_from(clock::text(at)).map_err(|why| NoToken { why: why.to_owned() });
    let (now, until) = (moment(now)?, moment(now + life)?);
    kept.tokens.retain(|name, token| !all && machines.contains(&name) && token.expires > now);
    for name in machines {
        if !kept.tokens.contains_key(*name) {
            let token = BootstrapToken { token: random()?, expires: until.clone() };
            kept.tokens.insert((*name).clone(), token);
        }
    }
    Ok(())
}

fn random() -> Result<TokenText, NoToken> {
    let [id, secret] = TokenText::LENGTHS;
    let part = |length| word(length).map_err(|error| NoToken { why: error.to_string() });
    TokenText::try_from(format!("{}.{}", part(id)?, part(secret)?)).map_err(|why| NoToken { why: why.to_owned() })
}

/// Characters of the alphabet, each as likely as any other.
fn word(length: usize) -> Result<String, ErrorStack> {
    let letters = TokenText::ALPHABET;
    // A byte beyond the last whole round of the alphabet would favour its beginning.
    let rounds = 256 / letters.len() * letters.len();
    let mut word = String::new();
    while word.len() < length {
        let mut byte = [0];
        rand_bytes(&mut byte)?;
        let at = usize::from(byte[0]);
        if at < rounds {
            word.push(char::from(letters[at % letters.len()]));
        }
    }
    Ok(word)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::tokens::{FILE, read};
    use crate::config::values::RootPath;
    use crate::engine::change::Meta;
    use crate::host::root::Root;
    use crate::provision::cloud_config::node::tokens_yaml;

    const DAY: Duration = Duration::from_hours(24);

    fn names() -> [NodeName; 2] {
        ["a", "b"].map(|name| name.parse().expect("a name"))
    }

    #[test]
    fn a_token_is_kept_until_it_expires() {
        let [a, b] = names();
        let (mut kept, start) = (BootstrapTokens::default(), SystemTime::UNIX_EPOCH);
        renew(&mut kept, &[&a], DAY, false, start).expect("tokens");
        let first = kept.tokens.clone();
        renew(&mut kept, &[&a, &b], DAY, false, start + DAY / 2).expect("tokens");
        assert_eq!((&kept.tokens[&a], kept.tokens.len()), (&first[&a], 2));
        let second = kept.tokens.clone();
        renew(&mut kept, &[&a, &b], DAY, false, start + DAY).expect("tokens");
        assert_ne!(kept.tokens[&a], second[&a], "its time is over at the very second");
        assert_eq!(kept.tokens[&b], second[&b]);
        renew(&mut kept, &[&b], DAY, true, start + DAY).expect("tokens");
        assert!(!kept.tokens.contains_key(&a) && kept.tokens[&b] != second[&b]);
    }

    #[test]
    fn controllers_read_them() {
        let [a, b] = names();
        let mut kept = BootstrapTokens::default();
        let dir = tempfile::tempdir().expect("a directory");
        let root = Root::open(dir.path()).expect("a tree");
        root.make_own_dirs(&RootPath::literal(FILE).parent(), Meta::PROGRAM).expect("directories");
        for machines in [vec![], vec![&a, &b]] {
            renew(&mut kept, &machines, DAY, false, SystemTime::UNIX_EPOCH).expect("tokens");
            let text = tokens_yaml(&kept, "for controllers alone");
            root.put(&RootPath::literal(FILE), text.as_bytes(), Meta::SECRET).expect("written");
            let read = read(&root, "1970-01-01T00:00:00Z").unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(read.len(), machines.len());
            for (node, token) in read {
                assert_eq!(token, kept.tokens[&node]);
            }
        }
    }
}
