//! Which try answers for which target, and what counts as ready.

use std::cell::OnceCell;
use std::path::{Path, PathBuf};

use tokio::time::Instant;

use super::target::{HttpTarget, Target};
use crate::host::probe::{Asker, BadAsker, Reason, connect, connect_unix, exists, is_local};

/// Tries targets. Its HTTP clients are made at the first use.
#[derive(Debug, Default)]
pub struct Prober {
    ca: Option<PathBuf>,
    plain: OnceCell<Asker>,
    tls: OnceCell<Asker>,
}

impl Prober {
    /// `https` servers are verified against the certificates in `ca`, else against the machine's own store.
    pub fn new(ca: Option<PathBuf>) -> Self {
        Self { ca, ..Self::default() }
    }

    /// Makes what these targets will need, so that a bad CA file is an error at once and not a reason to wait.
    pub fn prepare(&self, targets: &[Target]) -> Result<(), BadAsker> {
        for target in targets {
            if let Target::Http(http) = target {
                self.asker(http.tls)?;
            }
        }
        Ok(())
    }

    /// One try, which ends by `until`.
    pub async fn probe(&self, target: &Target, until: Instant) -> Result<(), Reason> {
        match target {
            Target::Tcp(server) => connect(&server.host, server.port, until).await,
            Target::Http(http) => self.get(http, until).await,
            Target::Unix(path) => connect_unix(Path::new(path.as_str()), until).await,
            Target::File(path) => exists(Path::new(path.as_str())),
        }
    }

    /// 2xx and 3xx are ready: they are what `curl --fail` accepts, and so `wupiao` did.
    async fn get(&self, http: &HttpTarget, until: Instant) -> Result<(), Reason> {
        let asker = self.asker(http.tls).map_err(|error| Reason::Other(error.to_string()))?;
        match asker.get(&http.to_string(), &http.server.host, http.server.port, until).await? {
            200..=399 => Ok(()),
            status => Err(Reason::Status(status)),
        }
    }

    fn asker(&self, tls: bool) -> Result<&Asker, BadAsker> {
        let cell = if tls { &self.tls } else { &self.plain };
        if let Some(asker) = cell.get() {
            return Ok(asker);
        }
        let asker = match &self.ca {
            _ if !tls => Asker::plain()?,
            Some(ca) => Asker::trusting(ca)?,
            None => Asker::system()?,
        };
        Ok(cell.get_or_init(|| asker))
    }
}

/// Whether the target is on this machine. A name other than `localhost` is not looked up for this, and counts as far.
pub fn is_near(target: &Target) -> bool {
    match target {
        Target::Unix(_) | Target::File(_) => true,
        Target::Tcp(server) | Target::Http(HttpTarget { server, .. }) => {
            server.host == "localhost" || server.ip().is_some_and(is_local)
        }
    }
}
