//! A seal: the last line of a file says, by a digest of the lines above it, that nobody has changed them since.
//!
//! The env file needs it. It is refreshed at each boot by a unit that may not wait for the agent's lock, hence not write to
//! the ledger: a bootstrap may hold the lock while it waits for units that wait for this one. So the ledger's digest goes
//! out of date, and the seal tells undo what is still ours, and the next boot what the last one chose.

use crate::config::values::{RootPath, Sha256};

/// The files that have a seal.
const SEALED: [&str; 1] = ["/etc/network-environment"];

/// How the last line begins.
const MARK: &str = "# Unchanged since nodeagent wrote it: ";

/// Whether the file at this path has a seal.
pub fn is_sealed(path: &RootPath) -> bool {
    SEALED.contains(&path.as_str())
}

/// The text, which ends in a line end, with its seal.
pub fn seal(text: &str) -> String {
    format!("{text}{MARK}{}\n", Sha256::of(text.as_bytes()))
}

/// Whether the seal is there and whole.
pub fn holds(bytes: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else { return false };
    let Some(at) = text.rfind(MARK) else { return false };
    text == seal(&text[..at])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn whatever_was_sealed_holds_until_a_byte_changes(
            lines in "([ -~]{0,20}\n){0,5}", at in any::<prop::sample::Index>(), bit in 0_u8..8,
        ) {
            let sealed = seal(&lines).into_bytes();
            prop_assert!(holds(&sealed));
            let mut changed = sealed.clone();
            let at = at.index(changed.len());
            changed[at] ^= 1 << bit;
            prop_assert!(!holds(&changed), "byte {}", at);
            prop_assert!(!holds(&sealed[..at]));
        }
    }

    #[test]
    fn a_line_more_breaks_it() {
        assert!(holds(seal("").as_bytes()));
        for text in [String::new(), format!("{}ETH0_IPV4=10.0.0.1\n", seal("A=1\n")), "A=1\n".to_owned()] {
            assert!(!holds(text.as_bytes()), "{text:?}");
        }
    }
}
