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
    /// The same in another class.
    pub fn of(self, class: Class) -> Self {
        Self { class, ..self }
    }

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

/// The whole chain on one line, outermost first. Many errors print their cause themselves, since they are also shown
/// alone: such a cause is not printed again.
impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = String::new();
        for cause in self.cause.chain().map(ToString::to_string) {
            if text.is_empty() {
                text = cause;
            } else if !text.ends_with(&cause) {
                text.push_str(": ");
                text.push_str(&cause);
            }
        }
        f.write_str(&text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("read {path}: {source}")]
    struct Outer {
        path: &'static str,
        source: std::io::Error,
    }

    impl Explain for Outer {}

    #[test]
    fn no_cause_is_printed_twice() {
        let fault = Fault::from(Outer { path: "/x", source: std::io::Error::other("broken") });
        assert_eq!(fault.to_string(), "read /x: broken");
        assert_eq!(fault.context("fetch y").to_string(), "fetch y: read /x: broken");
    }

    #[test]
    fn quotes_are_one_short_line() {
        assert_eq!(quote("plain words, \u{e9}"), "plain words, \u{e9}");
        assert_eq!(quote("a\nb\u{1b}[2J"), "a\u{fffd}b\u{fffd}[2J");
        assert_eq!(quote(&"x".repeat(300)).len(), 300);
        assert_eq!(quote(&"x".repeat(301)), format!("{}…", "x".repeat(300)));
    }
}
