//! `nodeagent wait`: returns when targets are ready, or says why they are not.

use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;

use super::{Exit, Format, Global, node, output};
use crate::certs::node_pair;
use crate::config::values::RootPath;
use crate::engine::fault::Fault;
use crate::host::probe::{Reason, TlsFiles, exists};
use crate::journal::{Event, StatusLine, Teller};
use crate::wait::http::{Cluster, HttpOptions, Method, Statuses};
use crate::wait::probe::Prober;
use crate::wait::target::{HostPort, Target};
use crate::wait::{How, NotReady, Pending, Progress, WaitError, wait};

/// How long a wait lasts at most when nothing is said.
const DEFAULT_TIMEOUT: Duration = Duration::from_mins(5);

// An attribute, because rustdoc would want the forms written as links.
const TARGETS_HELP: &str = "\
What to wait for:
  HOST:PORT, tcp://HOST:PORT      a port that accepts connections
  http(s)://HOST[:PORT][/PATH]    a web server's answer
  unix:///PATH                    a socket that accepts connections
  file:/PATH                      a file or directory
  unit:NAME                       a systemd unit that is active
  dns:NAME                        a name that has an address
  etcd, apiserver                 its health, here or as in node.yaml
  etcd://HOST, apiserver://HOST   its health there";

/// Wait until targets are ready, or say why they are not
#[derive(Debug, clap::Args)]
#[command(disable_help_flag = true)]
pub struct WaitArgs {
    /// What to wait for.
    #[arg(value_name = "TARGET", required = true, help = TARGETS_HELP)]
    pub targets: Vec<Target>,

    /// Return when the first target is ready, not all of them
    #[arg(long)]
    pub any: bool,

    /// Give up after this long, with exit code 3: 90s, 5m, 1h or seconds;
    /// 0 waits for ever
    #[arg(long, value_name = "TIME", default_value = "5m", value_parser = duration)]
    pub timeout: Duration,

    #[command(flatten)]
    http: HttpArgs,

    /// Print help
    // The short form, which fits a screen.
    #[arg(short, long, action = clap::ArgAction::HelpShort)]
    help: Option<bool>,
}

/// How web servers are asked: all that are among the targets alike.
#[derive(Debug, Default, clap::Args)]
#[command(next_help_heading = "Asking web servers")]
struct HttpArgs {
    /// Ask by this method: GET, HEAD, OPTIONS or POST
    #[arg(long, default_value = "GET", hide_possible_values = true)]
    method: Method,

    /// Statuses that will do, such as 200,401 or 2xx [default: 2xx,3xx]
    #[arg(long, value_name = "LIST")]
    status: Option<Statuses>,

    /// Text that must be in the answer's body
    #[arg(long, value_name = "TEXT")]
    body: Option<String>,

    /// Trust https servers by the PEM certificates in FILE alone, not by this
    /// machine's certificate store
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,

    /// Show https servers the PEM client certificate in FILE
    #[arg(long, value_name = "FILE")]
    cert: Option<PathBuf>,

    /// The PEM key of that certificate, if FILE of --cert is without it
    #[arg(long, value_name = "FILE", requires = "cert")]
    key: Option<PathBuf>,

    /// Go through the proxy that `http_proxy` or `https_proxy` names
    #[arg(long)]
    use_proxy: bool,
}

impl HttpArgs {
    fn options(self) -> HttpOptions {
        HttpOptions {
            method: self.method,
            statuses: self.status.unwrap_or_default(),
            body: self.body,
            tls: TlsFiles { ca: self.ca, cert: self.cert, key: self.key },
            use_proxy: self.use_proxy,
        }
    }
}

impl WaitArgs {
    /// As for one web server that is asked by HEAD, and no options.
    pub fn for_head(target: Target) -> Self {
        let http = HttpArgs { method: Method::Head, ..HttpArgs::default() };
        Self { targets: vec![target], any: false, timeout: DEFAULT_TIMEOUT, http, help: None }
    }
}

/// Waits, and tells each new reason.
pub async fn run(args: WaitArgs, global: &Global, teller: &Teller) -> Result<Exit, Fault> {
    let how = if args.any { How::Any } else { How::All };
    let timeout = Some(args.timeout).filter(|timeout| !timeout.is_zero());
    let cluster =
        if args.targets.iter().any(|target| matches!(target, Target::Health(..))) { cluster(global)? } else { None };
    let prober = Prober::new(args.http.options(), cluster);
    let line = teller.status_line();
    let waited = wait(&prober, &args.targets, how, timeout, |progress| tell(&line, progress)).await;
    drop(line);
    if global.output == Format::Json {
        match &waited {
            Ok(waited) => output::json(&Report::of(&waited.ready, &[])),
            Err(WaitError::NotReady(NotReady { pending, ready, .. })) => output::json(&Report::of(ready, pending)),
            Err(WaitError::Prober(_)) => (),
        }
    }
    waited?;
    Ok(Exit::Done)
}

/// What `node.yaml` says of the cluster, where there is one.
fn cluster(global: &Global) -> Result<Option<Cluster>, Fault> {
    let host = node::host(global)?;
    let Some(settings) = node::settings_if_any(global, &host)? else { return Ok(None) };
    let (host, port) = settings.cluster.api_server.host_port();
    let path = |path: &RootPath| global.root.join(path.relative());
    let cert = path(&node_pair(&settings));
    Ok(Some(Cluster {
        api_server: HostPort { host, port },
        ca: path(&settings.certs.ca),
        cert: Some(cert).filter(|cert| exists(cert).is_ok()),
    }))
}

fn tell(line: &StatusLine<'_>, progress: &Progress<'_>) {
    match progress {
        Progress::Changed { target, reason } => {
            line.tell(&Event::TargetAwaited { target: &target.to_string(), why: &reason.to_string() });
        }
        Progress::Ready { target, after } => {
            line.tell_for_good(&Event::TargetReady { target: &target.to_string(), took: *after });
        }
        Progress::Still { .. } => line.show(&progress.to_string()),
    }
}

/// What `-o json` prints, as `docs/wait.md` documents it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Report {
    ready: Vec<Ready>,
    pending: Vec<NotYet>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Ready {
    target: String,
    after_milliseconds: u64,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct NotYet {
    target: String,
    /// Both are null when the first try did not end.
    code: Option<&'static str>,
    reason: Option<String>,
}

impl Report {
    fn of(ready: &[(Target, Duration)], pending: &[Pending]) -> Self {
        let ready = ready.iter().map(|(target, after)| Ready {
            target: target.to_string(),
            after_milliseconds: u64::try_from(after.as_millis()).unwrap_or(u64::MAX),
        });
        let pending = pending.iter().map(|one| NotYet {
            target: one.target.to_string(),
            code: one.reason.as_ref().map(Reason::code),
            reason: one.reason.as_ref().map(ToString::to_string),
        });
        Self { ready: ready.collect(), pending: pending.collect() }
    }
}

/// Reads `90s`, `5m`, `1h`, or plain seconds.
fn duration(text: &str) -> Result<Duration, String> {
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    let seconds = match unit {
        "" | "s" => Some(1),
        "m" => Some(60),
        "h" => Some(60 * 60),
        _ => None,
    };
    number
        .parse::<u64>()
        .ok()
        .zip(seconds)
        .and_then(|(number, seconds)| number.checked_mul(seconds))
        .map(Duration::from_secs)
        .ok_or_else(|| "write 90s, 5m, 1h or a number of seconds".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory as _, Parser};

    use super::*;

    #[derive(Debug, Parser)]
    struct Cli {
        #[command(flatten)]
        wait: WaitArgs,
    }

    fn parse(args: &[&str]) -> Result<WaitArgs, String> {
        let args = ["wait"].iter().chain(args);
        Cli::try_parse_from(args).map(|cli| cli.wait).map_err(|error| error.to_string())
    }

    #[test]
    fn durations() {
        for (text, seconds) in [("90s", 90), ("5m", 300), ("1h", 3600), ("7", 7), ("0", 0)] {
            assert_eq!(duration(text), Ok(Duration::from_secs(seconds)), "{text:?}");
        }
        for text in ["", "s", "-1", "1.5s", "5min", "1 s", "99999999999999999999", "9999999999999999h"] {
            assert!(duration(text).is_err(), "{text:?} was accepted");
        }
    }

    #[test]
    fn arguments() {
        let args = parse(&["127.0.0.1:8080", "--any", "--timeout", "2m"]).expect("good arguments");
        assert_eq!(args.targets.len(), 1);
        assert!(args.any);
        assert_eq!(args.timeout, Duration::from_mins(2));
        assert_eq!(parse(&["x:1"]).expect("good arguments").timeout, Duration::from_mins(5));
        assert!(parse(&[]).is_err(), "no target was accepted");
        let error = parse(&[":8080"]).expect_err("an empty host");
        assert!(error.contains("names no host"), "{error}");
    }

    #[test]
    fn every_argument_has_help() {
        let command = Cli::command();
        for argument in command.get_arguments() {
            assert!(argument.get_help().is_some(), "{} has no help", argument.get_id());
        }
    }
}
