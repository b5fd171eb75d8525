//! Waiting for journald to have read what this process told it.
//!
//! A message carries its process's number, and journald looks in `/proc` for the unit of that process. Of one that has
//! ended by then it knows none ([systemd issue 2913]): the message is kept, and neither `journalctl --unit` nor
//! `systemctl status` shows it, which is where people look for why a unit failed.
//!
//! [systemd issue 2913]: https://github.com/systemd/systemd/issues/2913

use std::env;
use std::io;
use std::path::Path;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::notify;

/// Where journald takes requests, root's only; `journalctl --sync` uses it. An older systemd has none.
const SOCKET: &str = "/run/systemd/journal/io.systemd.journal";

/// A [varlink](https://varlink.org) call: one JSON object, ended by a zero byte. journald answers when it has handled
/// the messages that were sent before; it also begins to bring them to the disk, for which newer ones wait.
const SYNCHRONIZE: &[u8] = b"{\"method\":\"io.systemd.Journal.Synchronize\"}\0";

/// How long an exit is held back for that: a machine under load takes a second or two; a journald that answers later
/// is broken, or drowned in the messages of others.
const READ_WITHIN: Duration = Duration::from_secs(10);

/// Waits until journald has read what this process told it, for ten seconds at most. Outside units there is nothing to
/// wait for. Nothing here fails: a journald that cannot be asked keeps messages all the same.
pub async fn wait_until_read() {
    // systemd sets it for every process of a unit (systemd.exec(5)).
    if env::var_os("INVOCATION_ID").is_some() {
        // A start that has used up its time is not to be cut off here.
        notify::extend_timeout(READ_WITHIN + Duration::from_secs(1));
        let _ = timeout(READ_WITHIN, synchronize(Path::new(SOCKET))).await;
    }
}

async fn synchronize(socket: &Path) -> io::Result<()> {
    let mut journald = UnixStream::connect(socket).await?;
    journald.write_all(SYNCHRONIZE).await?;
    // Whatever the answer: once it has begun, messages from before have been handled, or journald has no such method.
    journald.read_u8().await.map(drop)
}
