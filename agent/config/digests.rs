//! Digests, as they are written in configurations, locks and receipts.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use super::values::{BadValue, checked_string, refuse};

checked_string! {
    /// A SHA-256 in 64 lower-case hexadecimal digits.
    Sha256, "sha256", sha256
}
checked_string! {
    /// The SHA-256 of a public key, as kubeadm writes it: `sha256:` and 64 hexadecimal digits.
    KeyHash, "key-hash", key_hash
}
checked_string! {
    /// A SHA-512 in 128 lower-case hexadecimal digits.
    Sha512, "sha512", sha512
}

impl Sha256 {
    /// The digest of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Self::from_raw(&openssl::sha::sha256(bytes))
    }

    /// The digest whose 32 bytes are `raw`.
    pub fn from_raw(raw: &[u8; 32]) -> Self {
        Self(hex(raw))
    }

    /// Enough of it to tell two apart on a screen.
    pub fn short(&self) -> &str {
        &self.0[..12]
    }
}

impl Sha512 {
    /// The digest whose 64 bytes are `raw`.
    pub fn from_raw(raw: &[u8; 64]) -> Self {
        Self(hex(raw))
    }

    /// Enough of it to tell two apart on a screen.
    pub fn short(&self) -> &str {
        &self.0[..12]
    }
}

fn hex(raw: &[u8]) -> String {
    use fmt::Write as _;
    let mut text = String::with_capacity(2 * raw.len());
    for byte in raw {
        let _ = write!(text, "{byte:02x}");
    }
    text
}

fn sha256(text: &str) -> Result<String, BadValue> {
    hex_digits(text, "a SHA-256", 64)
}

fn key_hash(text: &str) -> Result<String, BadValue> {
    const WANTED: &str = "a public key's hash such as sha256: and 64 hexadecimal digits";
    let Some(digits) = text.strip_prefix("sha256:") else {
        return Err(refuse(text, WANTED, "it does not start with sha256:"));
    };
    match sha256(digits) {
        Ok(digits) => Ok(format!("sha256:{digits}")),
        Err(error) => Err(refuse(text, WANTED, error.why())),
    }
}

fn sha512(text: &str) -> Result<String, BadValue> {
    hex_digits(text, "a SHA-512", 128)
}

fn hex_digits(text: &str, wanted: &'static str, count: usize) -> Result<String, BadValue> {
    if text.len() != count {
        return Err(refuse(text, wanted, format!("it has {} characters, not {count}", text.len())));
    }
    if !text.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err(refuse(text, wanted, "it holds something other than hexadecimal digits"));
    }
    Ok(text.to_ascii_lowercase())
}
