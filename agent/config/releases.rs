//! What is installed: a release of Kubernetes, a program, its version.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use super::values::{BadValue, checked_string, refuse};

checked_string! {
    /// A Kubernetes release: `v` and a semantic version, such as `v1.34.2`.
    Version, "version", version
}
checked_string! {
    /// The name of an artifact, and of the program that it installs: a file name of lower-case letters, digits, `-`, `.`, `_`.
    ArtifactName, "artifact", artifact_name
}
checked_string! {
    /// An artifact's version: part of the path where it is kept, so a file name.
    ArtifactVersion, "artifact-version", artifact_version
}

impl Version {
    /// The 34 of v1.34.2.
    pub fn minor(&self) -> u32 {
        // Checked when it was made: three numbers of less than ten digits.
        self.0.split('.').nth(1).and_then(|minor| minor.parse().ok()).unwrap_or(0)
    }

    /// Its minor release: the 1 and 34 of v1.34.2.
    pub fn release(&self) -> (u32, u32) {
        // Checked when it was made: three numbers of less than ten digits.
        let major = self.0[1..].split('.').next().and_then(|major| major.parse().ok()).unwrap_or(0);
        (major, self.minor())
    }

    /// Whether it is this minor release, or a later one.
    pub fn is_at_least(&self, major: u32, minor: u32) -> bool {
        self.release() >= (major, minor)
    }
}

fn version(text: &str) -> Result<String, BadValue> {
    const WANTED: &str = "a Kubernetes version such as v1.34.2";
    let Some(rest) = text.strip_prefix('v') else {
        return Err(refuse(text, WANTED, "it does not start with v"));
    };
    let (core, suffix) = rest.split_at(rest.find(['-', '+']).unwrap_or(rest.len()));
    let numbers: Vec<&str> = core.split('.').collect();
    let number_ok = |n: &&str| {
        !n.is_empty() && n.len() < 10 && n.bytes().all(|b| b.is_ascii_digit()) && (*n == "0" || !n.starts_with('0'))
    };
    if numbers.len() != 3 || !numbers.iter().all(number_ok) {
        return Err(refuse(text, WANTED, "it needs three numbers"));
    }
    if !suffix.chars().all(|c| c.is_ascii_alphanumeric() || "-+.".contains(c)) || suffix.len() == 1 {
        return Err(refuse(text, WANTED, "what follows the numbers is not a semantic version's"));
    }
    Ok(text.to_owned())
}

fn artifact_name(text: &str) -> Result<String, BadValue> {
    const WANTED: &str = "an artifact's name";
    let good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-._".contains(c);
    if text.is_empty() || text.len() > 64 || !text.chars().all(good) || text.starts_with(['.', '-']) {
        return Err(refuse(text, WANTED, "it must be a file name of lower-case letters, digits, '-', '.' and '_'"));
    }
    Ok(text.to_owned())
}

fn artifact_version(text: &str) -> Result<String, BadValue> {
    const WANTED: &str = "an artifact's version";
    let good = |c: char| c.is_ascii_alphanumeric() || "-._+".contains(c);
    if text.is_empty() || text.len() > 64 || !text.chars().all(good) || !text.starts_with(char::is_alphanumeric) {
        return Err(refuse(text, WANTED, "it must be a file name of letters, digits, '-', '.', '_' and '+'"));
    }
    Ok(text.to_owned())
}
