//! What people read of an event.

use std::net::IpAddr;
use std::time::Duration;

use super::event::Event;
use crate::config::settings::STRAY_KEY;

impl Event<'_> {
    /// The text for people, one line.
    pub fn text(&self) -> String {
        match self {
            Self::RunStarted { command } => format!("{command} started, nodeagent {}", env!("CARGO_PKG_VERSION")),
            Self::RunEnded { command, result: "done", changed: 0, total, took } => {
                format!("{command}: nothing to do, {total} resources as wanted ({})", seconds(*took))
            }
            Self::RunEnded { command, result, changed, total, took } => {
                format!("{command}: {result}, {changed} of {total} resources changed ({})", seconds(*took))
            }
            Self::IdentityChosen { name, address, link, why } => {
                format!("this node is {name}, {address} on {link}: {why}")
            }
            Self::IdentityAwaited { why } => format!("waiting for an address: {why}"),
            Self::AddressChanged { was, now, link } => {
                format!(
                    "the address is {now} on {link}, and was {was} before: what others know of this node is out of date"
                )
            }
            Self::AddressNotInCertificate { address, certificate, has } => {
                let has = has.iter().map(IpAddr::to_string).collect::<Vec<_>>().join(", ");
                format!("the address is {address}, and {certificate} is for [{has}]: the next renewal has it made anew")
            }
            Self::AddressInside { address, reason } => {
                format!("{address} is what others would reach, and is {reason}: change the one or the other")
            }
            Self::NotCompared { kubelet, why } => {
                format!("whether kubelet {kubelet} is newer than the API server was not asked: {why}")
            }
            Self::LeftOut { what } => (*what).to_owned(),
            Self::Refreshed { path } => format!("wrote {path}"),
            Self::RoutesChanged { added, removed: "" } => format!("routes to other nodes' pods: {added}"),
            Self::RoutesChanged { added: "", removed } => format!("routes to other nodes' pods removed: {removed}"),
            Self::RoutesChanged { added, removed } => {
                format!("routes to other nodes' pods: {added}; removed: {removed}")
            }
            Self::RouteRefused { why } => format!("{why}; do the nodes share one network, and is this one's link up?"),
            Self::ClockAwaited { why } => format!("waiting for the clock: {why}"),
            Self::ClockUnsynchronised { why } => format!("the clock may be wrong: {why}"),
            Self::Changed { id, summary, took, .. } => format!("{id}: {summary} ({})", seconds(*took)),
            Self::CommandFailed { why, advice: "" } => format!("nodeagent: {why}"),
            Self::CommandFailed { why, advice } => format!("nodeagent: {why}\n  -> {advice}"),
            Self::ResourceFailed { id, why, advice: "", .. } => format!("{id}: {why}"),
            Self::ResourceFailed { id, why, advice, .. } => format!("{id}: {why}; {advice}"),
            Self::Fetching { what, bytes, total, from_network, took } => {
                let of = total.map_or_else(String::new, |total| format!(" of {}", size(total)));
                format!("fetching {what}: {}{of} ({}/s)", size(*bytes), size(per_second(*from_network, *took)))
            }
            Self::Fetched { what, url: None, bytes, .. } => {
                format!("{what} had been fetched before, {}, verified", size(*bytes))
            }
            Self::Fetched { url: Some(url), bytes, from_network, took, .. } => {
                let old = bytes.saturating_sub(*from_network);
                let old = if old > 0 { format!(" ({} of it before)", size(old)) } else { String::new() };
                format!("fetched {url}, {}{old}, verified ({})", size(*bytes), seconds(*took))
            }
            Self::Retrying { what, why } => format!("trying {what} again: {why}"),
            Self::TargetAwaited { target, why } => format!("waiting for {target}: {why}"),
            Self::TargetReady { target, took } => format!("{target} is ready ({})", seconds(*took)),
            Self::ApprovalAwaited { why } => (*why).to_owned(),
            Self::ClusterLed { ours: true, .. } => "this controller looks after the cluster".to_owned(),
            Self::ClusterLed { holder, .. } => format!("{holder} looks after the cluster; this controller stands by"),
            Self::ClusterInterrupted { why, advice: "" } => format!("looking after the cluster begins anew: {why}"),
            Self::ClusterInterrupted { why, advice } => {
                format!("looking after the cluster begins anew: {why}\n  -> {advice}")
            }
            Self::ClusterChanged { what, how } => format!("{what}: {how}"),
            Self::ClusterObjectFailed { what, why, advice: "" } => format!("{what}: {why}"),
            Self::ClusterObjectFailed { what, why, advice } => format!("{what}: {why}\n  -> {advice}"),
            Self::RequestApproved { request, requestor, what } => {
                format!("approved {request} of {requestor}: {what}")
            }
            Self::RequestLeft { request, requestor, why } => format!(
                "left {request} of {requestor} to a person: {why} (kubectl certificate approve or deny {request})"
            ),
            Self::JobWaits { unit, says } => format!("{unit}: still starting{says}"),
            Self::DebtPaid { debt } => format!("{debt}: done"),
            Self::NotProven { id, why } => format!("{id}: done, but {why}"),
            Self::Volatile { path } => {
                format!("{path} is in memory (a volatile boot): what is written there is gone with the next boot")
            }
            Self::KeptAside { path, to } => {
                format!("{path} was changed by hand or is not nodeagent's, and is replaced; it is kept as {to}")
            }
            Self::JoinAwaited { more } => format!(
                "this node waits for a person to join it: run here what `kubeadm token create --print-join-command` prints on \
                 a control-plane node{more}"
            ),
            Self::NotRenewed { old: "", without: "", .. } => "not renewed: no pair of this node's is known".to_owned(),
            Self::NotRenewed { old: "", without, .. } => format!("not renewed: {without}"),
            Self::NotRenewed { old, without: "", .. } => {
                format!("not renewed, and still in use as they are: {old}")
            }
            Self::NotRenewed { old, without, .. } => {
                format!("not renewed, and still in use as they are: {old}; not renewed either: {without}")
            }
            Self::SnapshotTaken { path, bytes, revision, took } => {
                let revision =
                    revision.map_or_else(String::new, |revision| format!(" at revision {revision} or later"));
                format!("took {path}, a snapshot of etcd{revision}, {} ({})", size(*bytes), seconds(*took))
            }
            Self::SnapshotFailed { why, advice: "" } => format!("snapshot of etcd failed: {why}"),
            Self::SnapshotFailed { why, advice } => format!("snapshot of etcd failed: {why}\n  -> {advice}"),
            Self::StoreRestored { from, data_dir, kept } => {
                let kept = kept.map_or_else(String::new, |kept| format!("; what was there is kept as {kept}"));
                format!("{data_dir} holds the snapshot {from}{kept}")
            }
            Self::KeyStray { node, key } => format!("{node} is to have {key}: {STRAY_KEY}"),
            Self::Held { since } => format!(
                "nothing done: a rollback at {since} holds this node until its configuration changes or bootstrap --resume"
            ),
            Self::Undone { what } => format!("undone: {what}"),
            Self::Kept { what, why } => format!("kept: {what}: {why}"),
        }
    }
}

/// A duration as people read it: milliseconds below a second.
fn seconds(took: Duration) -> String {
    if took < Duration::from_secs(1) {
        format!("{} ms", took.as_millis())
    } else {
        format!("{:.1} s", took.as_secs_f64())
    }
}

#[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "for people")]
fn per_second(bytes: u64, took: Duration) -> u64 {
    (bytes as f64 / took.as_secs_f64().max(0.001)) as u64
}

/// A size in bytes as people read it.
#[expect(clippy::cast_precision_loss, reason = "a size for people, with one decimal")]
pub fn size(bytes: u64) -> String {
    match bytes {
        0..1_000 => format!("{bytes} B"),
        1_000..1_000_000 => format!("{:.1} kB", bytes as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} MB", bytes as f64 / 1e6),
        _ => format!("{:.1} GB", bytes as f64 / 1e9),
    }
}
