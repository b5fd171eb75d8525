//! Running another program: the one place, for the few things that no library, system call or D-Bus does.

use std::io;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use tokio::process::Command;

use crate::engine::fault::{Class, Explain, quote};

/// A program did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    /// It could not be started.
    #[error("start {program}: {source}")]
    Start {
        /// Which.
        program: String,
        /// The cause.
        source: io::Error,
    },
    /// It ended badly.
    #[error("{program}: {status}: {says}")]
    Failed {
        /// Which.
        program: String,
        /// How it ended.
        status: ExitStatus,
        /// The end of what it wrote to stderr.
        says: String,
    },
    /// It did not end in time, and was killed.
    #[error("{program}: not finished after {} s", after.as_secs())]
    Deadline {
        /// Which.
        program: String,
        /// The deadline that passed.
        after: Duration,
    },
}

impl Explain for ProcessError {
    fn class(&self) -> Class {
        match self {
            Self::Deadline { .. } => Class::Deadline,
            _ => Class::Failed,
        }
    }

    fn advice(&self) -> Option<String> {
        match self {
            Self::Start { program, source } if source.kind() == io::ErrorKind::NotFound => {
                Some(format!("install {program}, or add its directory to PATH"))
            }
            _ => None,
        }
    }
}

/// Runs a program without input and returns what it wrote to stdout. It must end well before the deadline.
///
/// Arguments are visible to every user of the machine: no secret may be among them.
pub async fn run(program: &str, args: &[&str], deadline: Duration) -> Result<Vec<u8>, ProcessError> {
    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::null()).kill_on_drop(true);
    let output = match tokio::time::timeout(deadline, command.output()).await {
        Ok(output) => output.map_err(|source| ProcessError::Start { program: program.to_owned(), source })?,
        Err(_) => return Err(ProcessError::Deadline { program: program.to_owned(), after: deadline }),
    };
    if output.status.success() {
        return Ok(output.stdout);
    }
    let says = last_line(&output.stderr);
    Err(ProcessError::Failed { program: program.to_owned(), status: output.status, says })
}

fn last_line(stderr: &[u8]) -> String {
    let text = String::from_utf8_lossy(stderr);
    quote(text.trim_end().lines().next_back().unwrap_or("it says nothing"))
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn failure(program: &str, args: &[&str], deadline: Duration) -> String {
        run(program, args, deadline).await.expect_err("it fails").to_string()
    }

    #[tokio::test]
    async fn status_and_last_words_are_not_lost() {
        let minute = Duration::from_mins(1);
        assert_eq!(run("printf", &["%s", "a b"], minute).await.expect("printf works"), b"a b");
        let error = failure("ls", &["/nowhere"], minute).await;
        assert!(error.starts_with("ls: exit status: 2: ") && error.contains("/nowhere"), "{error}");
        assert!(failure("/nowhere/at-all", &[], minute).await.starts_with("start /nowhere/at-all: "));
        assert_eq!(failure("sleep", &["60"], Duration::from_millis(10)).await, "sleep: not finished after 0 s");
    }
}
