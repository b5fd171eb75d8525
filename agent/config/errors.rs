//! What is wrong with a configuration: every problem at once, each at its place.

use std::fmt;

use serde::Serialize;

use super::tree::Position;
use crate::engine::fault::{Class, Explain};

/// One thing that is wrong, and where.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// The file, as the user named it.
    pub file: String,
    /// Its line, from 1.
    pub line: usize,
    /// The character in the line, from 1.
    pub column: usize,
    /// The dotted key; empty when the text is not even YAML.
    pub key: String,
    /// What is wrong, and what to write instead.
    pub message: String,
    /// The source's place among the sources: `node.d/` sorts after `node.yaml`, whatever the alphabet says.
    #[serde(skip)]
    order: usize,
}

impl Problem {
    /// A problem with `key`.
    pub(super) fn new(at: &Position, key: &str, message: impl Into<String>) -> Self {
        Self {
            file: at.file.to_string(),
            line: at.line,
            column: at.column,
            // A key in quotes can hold anything, and one problem is one line.
            key: visible(key),
            message: message.into(),
            order: at.order,
        }
    }
}

/// The text with its control characters spelt out.
fn visible(text: &str) -> String {
    let spell = |c: char| if c.is_control() { c.escape_default().to_string() } else { c.to_string() };
    text.chars().map(spell).collect()
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}: ", self.file, self.line, self.column)?;
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.message)
    }
}

/// A configuration was refused: everything that is wrong with it, in the order of its files and lines.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct ConfigErrors {
    problems: Vec<Problem>,
}

impl ConfigErrors {
    /// Puts the problems in the order in which a person meets them.
    pub(super) fn new(mut problems: Vec<Problem>) -> Self {
        problems.sort_by(|a, b| {
            (a.order, a.line, a.column, &a.key, &a.message).cmp(&(b.order, b.line, b.column, &b.key, &b.message))
        });
        Self { problems }
    }

    /// The problems, in the order of files and lines.
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }
}

/// One problem per line as `file:line:column: key: message`, which editors can jump to, then how many there are.
impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for problem in &self.problems {
            writeln!(f, "{problem}")?;
        }
        match self.problems.len() {
            1 => f.write_str("1 error in the configuration"),
            count => write!(f, "{count} errors in the configuration"),
        }
    }
}

impl std::error::Error for ConfigErrors {}

impl Explain for ConfigErrors {
    fn class(&self) -> Class {
        Class::Usage
    }

    fn advice(&self) -> Option<String> {
        Some("correct the lines above; nothing on this machine was touched".to_owned())
    }
}
