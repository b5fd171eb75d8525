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
