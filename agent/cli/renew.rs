//! `nodeagent certs renew`: the certs step as `nodeagent-renew.service` runs it, without anybody who looks on.
//!
//! It differs from `nodeagent certs` in two things: the hold of a rollback keeps it from writing, and when it fails it says
//! which pairs are still the old ones and for how long they work.

use super::bootstrap::{execute, is_held};
use super::node::{self, Node};
use super::{Exit, Global, clock};
use crate::certs::show::{self, Kind, Shown};
use crate::engine::commit::Hand;
use crate::engine::fault::Fault;
use crate::engine::history::RENEW;
use crate::engine::id::Step;
use crate::engine::ledger;
use crate::host::Host;
use crate::journal::{Event, Teller};

/// Renews what is due.
pub async fn run(global: &Global, tell: &Teller) -> Result<Exit, Fault> {
    let host = node::host(global)?;
    let settings = node::settings(global, &host)?;
    if is_held(&settings, &ledger::read(&host.root)?, tell) {
        return Ok(Exit::Done);
    }
    let node = node::awaited(global, &host, tell).await?;
    let result = renew(&node, &host, global, tell).await;
    if !matches!(result, Ok(Exit::Done)) {
        tell_what_is_left(&node, &host, tell).await;
    }
    result
}

async fn renew(node: &Node, host: &Host, global: &Global, tell: &Teller) -> Result<Exit, Fault> {
    clock::ready(&node.settings, host, tell).await?;
    let hand = Hand::take(host, tell, RENEW, Some(node.settings.digest.clone())).await?;
    // Asked again: somebody may have rolled back while this run waited for an address or the lock.
    if is_held(&node.settings, hand.records(), tell) {
        return Ok(Exit::Done);
    }
    execute(RENEW, &node.plan().only(Step::Certs), node, host, hand, global, tell).await
}

/// Tells which pairs are not as they should be, and how long each still works. Why they are not was told before.
async fn tell_what_is_left(node: &Node, host: &Host, tell: &Teller) {
    let seen = host.see(&show::reads(&node.settings, &node.identity, &[])).await;
    let Ok(mut all) = show::show(&node.settings, &node.identity, &[], &seen) else { return };
    all.retain(|shown| shown.kind == Kind::Pair && !shown.flaws.is_empty() && !shown.read_by.is_empty());
    let ends = all.iter().filter_map(|shown| shown.says.as_ref()).map(|says| says.days_left).min();
    if let Some(days_left) = ends {
        let pairs = all.iter().map(line).collect::<Vec<_>>().join(", ");
        tell.tell(&Event::NotRenewed { pairs: &pairs, days_left });
    }
}

fn line(shown: &Shown) -> String {
    match &shown.says {
        Some(says) => format!("{} ({})", shown.file, says.left()),
        None => format!("{} (none there)", shown.file),
    }
}
