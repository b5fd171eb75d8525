//! A proxy's URL, whose password no message ever shows.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;

use super::values::{BadValue, HttpUrl, refuse};

/// `http://HOST[:PORT]` or `https://…`, with `USER:PASSWORD@` before the host if the proxy wants to know who asks.
///
/// Neither `Display` nor `Debug` shows user or password, nor does an error about one that is refused.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct ProxyUrl {
    server: HttpUrl,
    login: Option<(String, String)>,
}

impl ProxyUrl {
    /// The proxy itself.
    pub fn server(&self) -> &HttpUrl {
        &self.server
    }

    /// User and password.
    pub fn login(&self) -> Option<(&str, &str)> {
        self.login.as_ref().map(|(user, password)| (user.as_str(), password.as_str()))
    }
}

impl FromStr for ProxyUrl {
    type Err = BadValue;
    fn from_str(text: &str) -> Result<Self, BadValue> {
        const WANTED: &str = "a proxy's URL, http://[USER:PASSWORD@]HOST[:PORT]";
        let bad = |why: String| refuse("(not shown: it may hold a password)", WANTED, why);
        let (scheme, rest) =
            text.split_once("://").ok_or_else(|| bad("it does not start with https:// or http://".to_owned()))?;
        // A password may hold any character but those that end it.
        let (login, host) = match rest.rsplit_once('@') {
            Some((login, host)) => (Some(login), host),
            None => (None, rest),
        };
        let server: HttpUrl =
            format!("{scheme}://{host}").parse().map_err(|error: BadValue| bad(error.why().to_owned()))?;
        if server.as_str().matches('/').count() > 2 {
            return Err(bad("a proxy has no path".to_owned()));
        }
        let login = match login.map(|login| login.split_once(':')) {
            None => None,
            Some(Some((user, password))) if !user.is_empty() => Some((decoded(user), decoded(password))),
            Some(_) => return Err(bad("before the @ stands no USER:PASSWORD".to_owned())),
        };
        Ok(Self { server, login })
    }
}

/// Resolves `%XX`, by which a URL writes a `/` or an `@` of a password.
fn decoded(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let hex = bytes.get(at + 1..at + 3).filter(|_| bytes[at] == b'%');
        let byte = hex.and_then(|hex| u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok());
        out.push(byte.unwrap_or(bytes[at]));
        at += if byte.is_some() { 3 } else { 1 };
    }
    String::from_utf8_lossy(&out).into_owned()
}

impl TryFrom<String> for ProxyUrl {
    type Error = BadValue;
    fn try_from(text: String) -> Result<Self, BadValue> {
        text.parse()
    }
}

impl fmt::Display for ProxyUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.server.fmt(f)
    }
}

impl fmt::Debug for ProxyUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ProxyUrl({})", self.server)
    }
}

impl JsonSchema for ProxyUrl {
    fn schema_name() -> Cow<'static, str> {
        "ProxyUrl".into()
    }
    fn inline_schema() -> bool {
        true
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "format": "proxy-url" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_login_is_read_and_never_shown() {
        for (text, server, login) in [
            ("http://proxy:3128", "http://proxy:3128", None),
            ("https://proxy", "https://proxy", None),
            ("http://me:s3cret@proxy:3128/", "http://proxy:3128", Some(("me", "s3cret"))),
            ("http://me:a:b%40c@[fd00::1]:8080", "http://[fd00::1]:8080", Some(("me", "a:b@c"))),
            ("http://me:50%@proxy", "http://proxy", Some(("me", "50%"))),
        ] {
            let url: ProxyUrl = text.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!((url.server().as_str(), url.login()), (server, login), "{text}");
            assert_eq!(url.to_string(), server, "{text}");
            let debug = format!("{url:?}");
            assert!(!debug.contains("s3cret") && !debug.contains("me:"), "{text}: {debug}");
        }
    }

    #[test]
    fn a_bad_one_is_refused_without_being_shown() {
        for text in [
            "proxy:3128",
            "socks5://me:s3cret@proxy",
            "http://s3cret@proxy",
            "http://:s3cret@proxy",
            "http://me:s3cret@",
            "http://me:s3cret@proxy/path",
            "http://me:s3cret@proxy:0",
            "http://me:s3cret@pro xy",
        ] {
            let error = text.parse::<ProxyUrl>().expect_err(text).to_string();
            assert!(!error.contains("s3cret"), "{text}: {error}");
        }
    }
}
