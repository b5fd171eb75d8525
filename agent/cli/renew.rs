//! `nodeagent certs renew`: the certs step as `nodeagent-renew.service` runs it, without anybody who looks on.
//!
//! It differs from `nodeagent certs` in two things: the hold of a rollback keeps it from writing, and when it fails it says
//! which pairs are still the old ones and for how long they work.

use super::bootstrap::{execute, is_held};
use super::node::{self, Node};
use super::{Exit, Global, clock};
use crate::certs::left::{self, Left};
use crate::engine::commit::Hand;
use crate::engine::fault::Fault;
use crate::engine::history::RENEW;
use crate::engine::id::Step;
use crate::engine::ledger;
use crate::engine::resource::Thing;
use crate::host::Host;
use crate::journal::{Event, Teller};

/// Renews what is due.
pub async fn run(global: &Global, tell: &Teller) -> Result<Exit, Fault> {
    let host = node::host(global)?;
    let mut node = None;
    let result = renew(&mut node, &host, global, tell).await;
    if !matches!(result, Ok(Exit::Done)) {
        tell_what_is_left(node.as_ref(), &host, tell).await;
    }
    result
}

/// The same, and `known` is the node as soon as its settings and its address are there.
async fn renew(known: &mut Option<Node>, host: &Host, global: &Global, tell: &Teller) -> Result<Exit, Fault> {
    let settings = node::settings(global, host)?;
    if is_held(&settings, &ledger::read(&host.root)?, tell) {
        return Ok(Exit::Done);
    }
    let node = known.insert(node::awaited(global, host, tell).await?);
    clock::ready(&node.settings, host, tell).await?;
    let hand = Hand::take(host, tell, RENEW, Some(node.settings.digest.clone())).await?;
    // Asked again: somebody may have rolled back while this run waited for an address or the lock.
    if is_held(&node.settings, hand.records(), tell) {
        return Ok(Exit::Done);
    }
    execute(RENEW, &node.plan().only(Step::Certs), node, host, hand, global, tell).await
}

/// Tells which pairs are not as they should be, and how long each still works. Why they are not is told elsewhere. Without
/// settings or an address nothing says how they should be: then it is told of all that this program put in place.
async fn tell_what_is_left(node: Option<&Node>, host: &Host, tell: &Teller) {
    let left = if let Some(node) = node {
        let seen = host.see(&left::reads(&node.settings, &node.identity)).await;
        Left::of_node(&node.settings, &node.identity, &seen)
    } else {
        let files = left::placed(&ledger::read(&host.root).unwrap_or_default());
        let seen = host.see(&files.iter().cloned().map(Thing::File).chain([Thing::Clock]).collect::<Vec<_>>()).await;
        Left::of_files(&files, &seen)
    };
    let left = left.unwrap_or_default();
    if node.is_none() || !left.is_none() {
        let (old, without) = (left.old(), left.without());
        tell.tell(&Event::NotRenewed { old: &old, without: &without, days_left: left.days_left() });
    }
}
