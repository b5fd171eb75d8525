//! What a unit says of itself, to stand behind a message: its state, how its process ended, its status line, and the last
//! lines of its own journal.

use std::fmt;
use std::time::Duration;

use serde::Deserialize;

use crate::config::values::UnitName;
use crate::engine::fault::quote;
use crate::host::process::{self, ProcessError};

/// How long the journal may take: it is part of a message, and the message must come.
const JOURNAL_DEADLINE: Duration = Duration::from_secs(10);

/// How many lines a failed unit's journal gives.
const LINES: usize = 5;

/// What a unit says of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// `ActiveState`.
    pub active: String,
    /// `SubState`.
    pub sub: String,
    /// `Result` of a service, where that is not `success`.
    pub result: String,
    /// How its main process ended, where it did not end well: `exit status 3`, `signal 9`.
    pub exit: String,
    /// `StatusText`: its own last status line.
    pub says: String,
    /// The last lines that it wrote to the journal.
    pub last: Vec<String>,
}

/// ` (failed (failed), result exit-code, exit status 3); its last lines: a | b`. Nothing for what nothing is known of.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.active.is_empty() {
            return Ok(());
        }
        write!(f, " ({} ({})", self.active, self.sub)?;
        if !self.result.is_empty() {
            write!(f, ", result {}", self.result)?;
        }
        if !self.exit.is_empty() {
            write!(f, ", {}", self.exit)?;
        }
        if !self.says.is_empty() {
            write!(f, ", it says: {}", self.says)?;
        }
        f.write_str(")")?;
        if !self.last.is_empty() {
            write!(f, "; its last lines: {}", self.last.join(" | "))?;
        }
        Ok(())
    }
}

/// A process may write its first line before systemd has noted that its unit started, in microseconds. Shorter than the
/// shortest pause between two activations (`RestartSec=`, 100 ms), whose lines are not to be mixed.
const HEAD_START: u64 = 50_000;

/// The last lines of a unit that started at this time (microseconds since the epoch), oldest first: its own, or systemd's
/// about it if it wrote none. Not by its invocation: the journal does not know that of a process that was gone when it
/// looked.
pub async fn last_lines(unit: &UnitName, started: u64) -> Result<Vec<String>, ProcessError> {
    // What the unit wrote at its end may still be on its way.
    process::run("journalctl", &["--sync"], JOURNAL_DEADLINE).await?;
    let since = started.saturating_sub(HEAD_START);
    let since = format!("--since=@{}.{:06}", since / 1_000_000, since % 1_000_000);
    for field in ["_SYSTEMD_UNIT", "UNIT"] {
        let (lines, by) = (format!("--lines={LINES}"), format!("{field}={unit}"));
        let args = ["--output=json", "--all", "--no-pager", "--quiet", "--boot", &since, &lines, &by];
        let lines = parse(&process::run("journalctl", &args, JOURNAL_DEADLINE).await?);
        if !lines.is_empty() {
            return Ok(lines);
        }
    }
    Ok(Vec::new())
}

/// The messages in `journalctl --output=json`: an object a line, whose message is text or, where that is not UTF-8, a
/// list of bytes.
pub fn parse(output: &[u8]) -> Vec<String> {
    #[derive(Deserialize)]
    struct Line {
        #[serde(rename = "MESSAGE")]
        message: Message,
    }
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Message {
        Text(String),
        Bytes(Vec<u8>),
    }
    let lines = output.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice::<Line>(line).ok());
    let messages = lines.map(|line| match line.message {
        Message::Text(text) => quote(text.trim_end()),
        Message::Bytes(bytes) => quote(String::from_utf8_lossy(&bytes).trim_end()),
    });
    messages.filter(|message| !message.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn journal_lines_are_text_or_bytes() {
        let output =
            b"{\"MESSAGE\":\"one\",\"PRIORITY\":\"6\"}\n{\"MESSAGE\":[255,104,105]}\nnonsense\n{\"MESSAGE\":null}\n";
        assert_eq!(parse(output), ["one", "\u{fffd}hi"]);
    }

    #[test]
    fn a_report_says_what_is_known() {
        assert_eq!(Report::default().to_string(), "");
        let report = Report {
            active: "failed".into(),
            sub: "failed".into(),
            result: "exit-code".into(),
            exit: "exit status 3".into(),
            says: String::new(),
            last: vec!["a".into(), "b".into()],
        };
        assert_eq!(report.to_string(), " (failed (failed), result exit-code, exit status 3); its last lines: a | b");
    }
}
