//! `nodeagent wait`: returns when targets are ready, or says why they are not.

use std::path::PathBuf;
use std::time::Duration;

use super::Exit;
use crate::engine::fault::Fault;
use crate::journal::{Event, Teller};
use crate::wait::probe::Prober;
use crate::wait::target::Target;
use crate::wait::{How, Progress, wait};

// An attribute, because rustdoc would want the forms written as links.
const TARGETS_HELP: &str = "What to wait for: tcp://HOST:PORT or HOST:PORT, http(s)://HOST[:PORT][/PATH] \
                            (an answer of 2xx or 3xx), unix:///PATH, file:/PATH";

/// Wait until targets are ready, or say why they are not
#[derive(Debug, clap::Args)]
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

    /// Trust https servers by the PEM certificates in FILE alone, not by this
    /// machine's certificate store
    #[arg(long, value_name = "FILE")]
    pub ca: Option<PathBuf>,
}

/// Waits, and tells each new reason and, every few seconds, that it still waits.
pub async fn run(args: WaitArgs, teller: &Teller) -> Result<Exit, Fault> {
    let how = if args.any { How::Any } else { How::All };
    let timeout = Some(args.timeout).filter(|timeout| !timeout.is_zero());
    let prober = Prober::new(args.ca);
    let tell = |progress: &Progress<'_>| tell(teller, progress);
    wait(&prober, &args.targets, how, timeout, tell).await?;
    Ok(Exit::Done)
}

fn tell(teller: &Teller, progress: &Progress<'_>) {
    let awaited = |target: &Target, why: &str| {
        teller.tell(&Event::TargetAwaited { target: &target.to_string(), why });
    };
    match progress {
        Progress::Changed { target, reason } => awaited(target, &reason.to_string()),
        Progress::Ready { target, after } => {
            teller.tell(&Event::TargetReady { target: &target.to_string(), took: *after });
        }
        Progress::Still { pending, .. } => {
            for one in *pending {
                let why =
                    one.reason.as_ref().map_or_else(|| "the first try still runs".to_owned(), ToString::to_string);
                awaited(&one.target, &why);
            }
        }
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
