//! A node that kubeadm joins when a person says so: `plan` and `bootstrap` tell that it waits, and for what.

use super::node::Node;
use crate::config::kubeadm::JOINED;
use crate::config::settings::{Join, Role};
use crate::config::values::RootPath;
use crate::engine::fault::Fault;
use crate::host::Host;
use crate::journal::{Event, Teller};

/// Tells it where it is so.
pub(super) fn tell_if_awaited(node: &Node, host: &Host, tell: &Teller) -> Result<(), Fault> {
    let by_hand = node.settings.role == Role::Kubeadm && node.settings.kubeadm.join == Join::ByHand;
    if !by_hand || host.root.entry(&RootPath::literal(JOINED), false)?.has_content() {
        return Ok(());
    }
    // kubeadm takes the hostname for the node's name, and waits for the Node of that name.
    let name = &node.identity.name;
    let more = if node.facts.hostname == name.as_str() { String::new() } else { format!(", with --node-name={name}") };
    tell.tell(&Event::JoinAwaited { more: &more });
    Ok(())
}
