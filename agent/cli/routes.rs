//! `nodeagent routes`: the routes to other nodes' pods, kept for as long as it runs. `nodeagent-routes.service` runs it.

use std::collections::BTreeSet;
use std::time::Duration;

use clap::Args;

use super::node;
use super::{Exit, Global};
use crate::engine::fault::{Class, Explain, Fault};
use crate::host::notify;
use crate::host::routes::{self, PodRoute, Watch};
use crate::journal::{Event, Teller};

/// A look from time to time, should a change ever go unheard.
const PATIENCE: Duration = Duration::from_mins(5);

/// How soon a route that was refused is tried again, if nothing is heard.
const AGAIN: Duration = Duration::from_secs(5);

/// Arguments of `routes`.
#[derive(Args)]
pub struct RoutesArgs {
    /// Each other node's pods, and that node's address; none to remove all that
    /// were ever made
    #[arg(value_name = "CIDR=ADDRESS")]
    routes: Vec<PodRoute>,
}

/// Routes are the running kernel's.
#[derive(Debug, thiserror::Error)]
#[error("--root: routes are the running kernel's, and no tree's")]
struct NotThisMachine;

impl Explain for NotThisMachine {
    fn class(&self) -> Class {
        Class::Usage
    }

    fn advice(&self) -> Option<String> {
        Some("`nodeagent units --root DIR` writes what keeps them; the node does so when it boots".to_owned())
    }
}

/// Puts the routes in place, says that they are, and does so again whenever something changed.
pub async fn run(args: RoutesArgs, global: &Global, tell: &Teller) -> Result<Exit, Fault> {
    if !node::host(global)?.is_live() {
        return Err(NotThisMachine.into());
    }
    let wanted: BTreeSet<PodRoute> = args.routes.into_iter().collect();
    // Before the first look: nothing is missed between the two.
    let mut watch = Watch::new()?;
    let mut complaint = String::new();
    loop {
        let kept = routes::keep(&wanted)?;
        if !kept.added.is_empty() || !kept.removed.is_empty() {
            tell.tell(&Event::RoutesChanged { added: &list(&kept.added), removed: &list(&kept.removed) });
        }
        let refused = list(&kept.refused);
        // Also where one machine cannot be reached: all others' pods can, and nobody must wait for that one.
        notify::ready();
        if refused.is_empty() {
            notify::status(&format!("{} routes to other nodes' pods", wanted.len()));
        } else {
            notify::status(&refused);
        }
        if refused != complaint && !refused.is_empty() {
            tell.tell(&Event::RouteRefused { why: &refused });
        }
        let patience = if refused.is_empty() { PATIENCE } else { AGAIN };
        complaint = refused;
        watch.changed(patience).await;
    }
}

fn list(all: &[impl ToString]) -> String {
    all.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}
