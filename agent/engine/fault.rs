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
        let mut text = String::new();
        for cause in self.cause.chain().map(ToString::to_string) {
            // Most errors name their cause themselves.
            if text.is_empty() {
                text = cause;
            } else if !text.contains(&cause) {
                text = format!("{text}: {cause}");
            }
        }
        f.write_str(&text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("read /file: {source}")]
    struct Names {
        source: std::io::Error,
    }

    impl Explain for Names {}

    #[test]
    fn a_cause_is_never_printed_twice() {
        let fault = Fault::from(Names { source: std::io::Error::other("the disk fails") });
        assert_eq!(fault.to_string(), "read /file: the disk fails");
        assert_eq!(fault.context("fetch").to_string(), "fetch: read /file: the disk fails");
    }
}
