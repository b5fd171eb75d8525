//! How web servers are asked, and which answers will do.

use std::fmt;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::str::FromStr;

use super::target::HostPort;
use crate::host::probe::TlsFiles;

/// What holds for all `http` and `https` targets of a wait.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HttpOptions {
    /// The request's method.
    pub method: Method,
    /// The statuses that will do.
    pub statuses: Statuses,
    /// Text that must be in the answer's body.
    pub body: Option<String>,
    /// Authorities, client certificate and key.
    pub tls: TlsFiles,
    /// Whether `http_proxy` and the like are obeyed.
    pub use_proxy: bool,
}

/// The cluster, as `node.yaml` has it: where `apiserver` is, and what it is asked with unless options say otherwise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cluster {
    /// The API server.
    pub api_server: HostPort,
    /// The cluster's CA certificate.
    pub ca: PathBuf,
    /// The kubelet's client certificate and key, if they are there already.
    pub cert: Option<PathBuf>,
}

/// A request's method.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
#[value(rename_all = "UPPER")]
pub enum Method {
    /// The answer and its body.
    #[default]
    Get,
    /// The answer without its body.
    Head,
    /// What the server can do.
    Options,
    /// Sends nothing, with the method that some health checks want.
    Post,
}

impl Method {
    /// As it is sent.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Head => "HEAD",
            Self::Options => "OPTIONS",
            Self::Post => "POST",
        }
    }
}

/// The statuses that will do: `200`, `2xx`, `200-204`, several with commas.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statuses(Vec<RangeInclusive<u16>>);

impl Statuses {
    /// Whether this one will do.
    pub fn accept(&self, status: u16) -> bool {
        self.0.iter().any(|range| range.contains(&status))
    }
}

/// 2xx and 3xx: what `curl --fail` accepts, and so `wupiao` did.
impl Default for Statuses {
    fn default() -> Self {
        Self(vec![200..=399])
    }
}

impl FromStr for Statuses {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        text.split(',').map(range).collect::<Result<_, _>>().map(Self)
    }
}

fn range(text: &str) -> Result<RangeInclusive<u16>, String> {
    let status = |text: &str| {
        let number = text.parse().ok().filter(|number| (100..=599).contains(number) && text.len() == 3);
        number.ok_or_else(|| format!("{text:?} is not a status from 100 to 599, nor a class such as 2xx"))
    };
    if let Some(class) = text.strip_suffix("xx").filter(|class| class.len() == 1) {
        let first = status(&format!("{class}00"))?;
        return Ok(first..=first + 99);
    }
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (status(first)?, status(last)?);
    if first > last {
        return Err(format!("{text:?} ends before it begins"));
    }
    Ok(first..=last)
}

/// Text that parses to the same.
impl fmt::Display for Statuses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, range) in self.0.iter().enumerate() {
            let between = if place == 0 { "" } else { "," };
            write!(f, "{between}{}", range.start())?;
            if range.start() != range.end() {
                write!(f, "-{}", range.end())?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses() {
        for (text, shown, yes, no) in [
            ("200", "200", 200, 201),
            ("2xx,401", "200-299,401", 401, 403),
            ("200-204,3xx", "200-204,300-399", 302, 205),
        ] {
            let statuses: Statuses = text.parse().unwrap_or_else(|why| panic!("{text}: {why}"));
            assert_eq!(statuses.to_string(), shown);
            assert_eq!(shown.parse(), Ok(statuses.clone()), "{shown}");
            assert!(statuses.accept(yes) && !statuses.accept(no), "{text}");
        }
        for text in ["", "20", "2000", "6xx", "xx", "200,", "204-200", "+20", "200-", "2xx-3xx"] {
            assert!(text.parse::<Statuses>().is_err(), "{text:?} was accepted");
        }
    }
}
