//! `nodeagent cluster`: what `nodeagent-cluster.service` runs on each controller.

use clap::Args;

use super::node::{self, Node};
use super::{Exit, Global};
use crate::cluster::Service;
use crate::config::settings::Role;
use crate::engine::fault::{Class, Explain, Fault};
use crate::host::http::Http;
use crate::host::signals::Ending;
use crate::journal::Teller;

/// Arguments of `cluster`.
#[derive(Args)]
pub struct ClusterArgs {}

/// It cannot run here.
#[derive(Debug, thiserror::Error)]
enum NotHere {
    #[error("this machine's role is {0}: only a controller looks after the cluster")]
    Role(Role),
    #[error("listen for signals: {0}")]
    Signals(std::io::Error),
}

impl Explain for NotHere {
    fn class(&self) -> Class {
        match self {
            Self::Role(_) => Class::Usage,
            Self::Signals(_) => Class::Failed,
        }
    }

    fn advice(&self) -> Option<String> {
        match self {
            Self::Role(_) => Some("run it on a machine whose node.yaml says `role: controller`".to_owned()),
            Self::Signals(_) => None,
        }
    }
}

/// Looks after the cluster until it is asked to end.
pub async fn run(_: ClusterArgs, global: &Global, tell: &Teller) -> Result<Exit, Fault> {
    let ending = Ending::listen().map_err(NotHere::Signals)?;
    let host = node::host(global)?;
    let Node { settings, identity, .. } = node::awaited(global, &host, tell).await?;
    if settings.role != Role::Controller {
        return Err(NotHere::Role(settings.role).into());
    }
    let http = Http::new(tell.clone(), host.root.clone(), settings.download.clone());
    let service = Service {
        host: &host,
        http: &http,
        tell,
        name: identity.name,
        address: identity.place.address,
        settings: || node::settings(global, &host),
    };
    service.run(ending).await?;
    Ok(Exit::Done)
}
