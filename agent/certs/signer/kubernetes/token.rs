//! The bootstrap token: `ID.SECRET`, of which the first half may be shown (Kubernetes, "Authenticating with Bootstrap
//! Tokens").

use zeroize::Zeroizing;

use super::KubernetesError;
use crate::config::values::RootPath;
use crate::engine::resource::Seen;
use crate::host::seen::Entry;

/// Letters and digits before the dot.
const ID: usize = 6;

/// Letters and digits after it.
const SECRET: usize = 16;

/// A bootstrap token. It has no form in which it could be shown.
pub struct Token(Zeroizing<String>);

impl Token {
    /// Reads the token's file, which nobody else may read.
    pub fn read(path: &RootPath, seen: &Seen) -> Result<Self, KubernetesError> {
        const OTHERS: u32 = 0o077;
        let path = || path.clone();
        let bytes = seen.bytes(&path())?.ok_or_else(|| KubernetesError::TokenAbsent { path: path() })?;
        if let Entry::File { meta, .. } = seen.entry(&path())?
            && meta.mode & OTHERS != 0
        {
            return Err(KubernetesError::TokenExposed { path: path(), mode: meta.mode });
        }
        Self::parse(bytes).ok_or_else(|| KubernetesError::TokenMalformed { path: path() })
    }

    fn parse(bytes: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(bytes.trim_ascii()).ok()?;
        let (id, secret) = text.split_once('.')?;
        let part = |part: &str, length| {
            part.len() == length && part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
        };
        (part(id, ID) && part(secret, SECRET)).then(|| Self(Zeroizing::new(text.to_owned())))
    }

    /// The part that is no secret: that of the token's Secret `bootstrap-token-ID` in `kube-system`.
    pub fn id(&self) -> &str {
        &self.0[..ID]
    }

    /// The part that is one, with which it signs.
    pub(in crate::certs) fn secret(&self) -> &str {
        &self.0[ID + 1..]
    }

    /// All of it, for the API server alone.
    pub(in crate::certs) fn text(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::certs::testing::{Content, seen_files};
    use crate::engine::change::Meta;
    use crate::engine::fault::Explain as _;

    #[test]
    fn its_form_is_checked_and_no_error_shows_it() {
        let path = RootPath::literal("/etc/nodeagent/bootstrap-token");
        let read = |file| Token::read(&path, &seen_files(&[(&path, file)]));
        let good = b" abcdef.0123456789abcdef\n".as_slice();
        let token = read(Some((good, Meta::SECRET))).map_err(|error| error.to_string()).expect("a token");
        assert_eq!(
            (token.id(), token.secret(), token.text()),
            ("abcdef", "0123456789abcdef", "abcdef.0123456789abcdef")
        );

        let malformed = "/etc/nodeagent/bootstrap-token: it is not of the form abcdef.0123456789abcdef";
        let table: [(&str, Option<Content<'_>>, &str); 8] = [
            ("absent", None, "/etc/nodeagent/bootstrap-token: there is no such file"),
            ("readable", Some((good, Meta::FILE)), "/etc/nodeagent/bootstrap-token: others may read it (mode 0644)"),
            ("empty", Some((b"\n", Meta::SECRET)), malformed),
            ("no dot", Some((b"swordfish", Meta::SECRET)), malformed),
            ("upper case", Some((b"ABCDEF.0123456789abcdef", Meta::SECRET)), malformed),
            ("too long", Some((b"abcdef.0123456789abcdef0", Meta::SECRET)), malformed),
            ("two lines", Some((b"abcdef.0123456789abcde\nx", Meta::SECRET)), malformed),
            ("no text", Some((b"abcdef.\xff123456789abcdef", Meta::SECRET)), malformed),
        ];
        for (name, file, text) in table {
            let error = read(file).map(drop).expect_err(name);
            assert_eq!(error.to_string(), format!("read the bootstrap token {text}"), "{name}");
            assert!(error.advice().is_some(), "{name}");
        }
    }
}
