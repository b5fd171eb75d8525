//! What kind of thing stderr is.

use std::io::IsTerminal as _;

/// Whether systemd connected stderr to the journal (`JOURNAL_STREAM`, systemd.exec(5)): device and inode must match,
/// since the variable is also inherited by children whose stderr is something else.
pub fn stderr_is_journal() -> bool {
    let Ok(stream) = std::env::var("JOURNAL_STREAM") else { return false };
    let Ok(stat) = nix::sys::stat::fstat(std::io::stderr()) else { return false };
    stream == format!("{}:{}", stat.st_dev, stat.st_ino)
}

/// Whether a person is looking at stderr.
pub fn stderr_is_terminal() -> bool {
    std::io::stderr().is_terminal()
}

/// Writes data to stdout. A reader that went away (`| head`) is no error of ours.
pub fn print(text: &str) {
    use std::io::Write as _;
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// Writes a message to stderr.
pub fn complain(text: &str) {
    use std::io::Write as _;
    let _ = writeln!(std::io::stderr().lock(), "{}", text.trim_end());
}
