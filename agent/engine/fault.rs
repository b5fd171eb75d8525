//! Why something went wrong, in the form that every command reports it: the cause chain, its class, and what to do.

use std::fmt;

/// The classes of failure that exit codes tell apart.
///
/// The order is that of precedence when several things failed: the last one decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// It failed.
    Failed,
    /// A deadline passed.
    Deadline,
    /// A digest, signature or chain did not verify.
    Verification,
    /// The command line or the configuration is invalid, and nothing was touched.
    Usage,
}

/// What every module's error enum says of itself, besides its message.
pub trait Explain: std::error::Error + Send + Sync + 'static {
    /// The class, which decides the exit code.
    fn class(&self) -> Class {
        Class::Failed
    }

    /// What the person who reads it should do.
    fn advice(&self) -> Option<String> {
        None
    }
}

/// What another machine says, fit to be part of a message: one line of bounded length, and nothing that a terminal obeys.
pub fn quote(text: &str) -> String {
    const LONGEST: usize = 300;
    let mut quoted: String =
        text.chars().take(LONGEST).map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect();
    if text.chars().nth(LONGEST).is_some() {
        quoted.push('…');
    }
    quoted
}

/// Any module's error, on its way to the person.
#[derive(Debug)]
pub struct Fault {
    /// The class, which decides the exit code.
    pub class: Class,
    /// What to do.
    pub advice: Option<String>,
    cause: anyhow::Error,
}

impl Fault {
    /// Puts what was being done in front of the cause.
    pub fn context(self, doing: impl fmt::Display + Send + Sync + 'static) -> Self {
        Self { cause: self.cause.context(doing), ..self }
    }
}

impl<E: Explain> From<E> for Fault {
    fn from(error: E) -> Self {
        Self { class: error.class(), advice: error.advice(), cause: anyhow::Error::new(error) }
    }
}

/// The whole chain on one line, outermost first: a cause is never printed twice.
impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#}", self.cause)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_are_one_short_line() {
        assert_eq!(quote("plain words, \u{e9}"), "plain words, \u{e9}");
        assert_eq!(quote("a\nb\u{1b}[2J"), "a\u{fffd}b\u{fffd}[2J");
        assert_eq!(quote(&"x".repeat(300)).len(), 300);
        assert_eq!(quote(&"x".repeat(301)), format!("{}…", "x".repeat(300)));
    }
}
