//! `nodeagent etcd`: what stands around a member's start, its snapshots, and the way back from one.

use std::fmt::Write as _;
use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::node::{self, Node};
use super::output::{self, Format};
use super::{Exit, Global};
use crate::config::values::{HttpUrl, RootPath};
use crate::engine::fault::{Class, Explain, Fault};
use crate::etcd::member::Member;
use crate::etcd::restore::{InitialCluster, Restore, Restored};
use crate::etcd::shelf::{Kept, Shelf};
use crate::etcd::{guard, snapshot};
use crate::host::http::Http;
use crate::host::root::absolute;
use crate::host::{Host, clock};
use crate::journal::{Event, Teller, size};

/// Arguments of `etcd`.
#[derive(Args)]
pub struct EtcdArgs {
    #[command(subcommand)]
    command: EtcdCommand,
}

#[derive(Subcommand)]
enum EtcdCommand {
    /// Before each start: refuse one that would make a new, empty cluster
    Guard(DataArgs),
    /// After each start: remember that a member was ready here
    Joined(DataArgs),
    /// Take a snapshot of this node's member
    Snapshot(SnapshotArgs),
    /// List the snapshots that are kept
    Snapshots(SnapshotsArgs),
    /// Put a snapshot in the place of this member's data
    Restore(RestoreArgs),
}

/// Arguments of both.
#[derive(Args)]
struct DataArgs {
    /// The member's data directory
    #[arg(long, value_name = "DIR")]
    data_dir: RootPath,
}

#[derive(Args)]
struct SnapshotArgs {
    /// Where to, in a directory that is there; without it, to etcd.snapshots.dir, of which the oldest are removed
    file: Option<PathBuf>,
    /// The member to ask [default: this node's]
    #[arg(long, value_name = "URL")]
    endpoint: Option<HttpUrl>,
}

#[derive(Args)]
struct SnapshotsArgs {
    /// Read each whole, and tell by its digest whether it is intact
    #[arg(long)]
    verify: bool,
}

#[derive(Args)]
struct RestoreArgs {
    /// The snapshot
    file: PathBuf,
    /// Every member and its URL among peers, where they are in DNS (etcd.discovery)
    #[arg(long, value_name = "NAME=URL,…")]
    initial_cluster: Option<InitialCluster>,
    /// Do it; without this it is only shown what would be done
    #[arg(long)]
    yes: bool,
    /// Put it in place once more, although an earlier run has: what was written
    /// since is gone then
    #[arg(long)]
    again: bool,
}

/// A member was asked for at a URL at which none can be.
#[derive(Debug, thiserror::Error)]
#[error("--endpoint {0}: it must start with https://: the whole cluster's Secrets come from there")]
struct NotHttps(HttpUrl);

impl Explain for NotHttps {
    fn class(&self) -> Class {
        Class::Usage
    }
}

/// Does what a unit, or a person, asks for.
pub async fn run(args: EtcdArgs, global: &Global, tell: &Teller) -> Result<Exit, Fault> {
    let host = node::host(global)?;
    match args.command {
        EtcdCommand::Guard(DataArgs { data_dir }) => guard::check(&host.root, &data_dir)?,
        EtcdCommand::Joined(DataArgs { data_dir }) => guard::remember(&host.root, &data_dir)?,
        EtcdCommand::Snapshot(args) => return snapshot(args, global, &host, tell).await,
        EtcdCommand::Snapshots(args) => list(&args, global, &host)?,
        EtcdCommand::Restore(args) => return restore(args, global, &host, tell).await,
    }
    Ok(Exit::Done)
}

async fn snapshot(args: SnapshotArgs, global: &Global, host: &Host, tell: &Teller) -> Result<Exit, Fault> {
    match take(args, global, host, tell).await {
        Ok(file) => output::print(&format!("{file}\n")),
        // Told as what it is: whoever watches the journal for lost snapshots finds them by one MESSAGE_ID.
        Err(fault) if fault.class != Class::Usage => {
            let advice = fault.advice.as_deref().unwrap_or_default();
            tell.tell(&Event::SnapshotFailed { why: &fault.to_string(), advice });
            return Ok(fault.class.into());
        }
        Err(fault) => return Err(fault),
    }
    Ok(Exit::Done)
}

async fn take(args: SnapshotArgs, global: &Global, host: &Host, tell: &Teller) -> Result<RootPath, Fault> {
    if let Some(url) = args.endpoint.as_ref().filter(|url| !url.is_https()) {
        return Err(NotHttps(url.clone()).into());
    }
    let settings = node::settings(global, host)?;
    let to = args.file.as_deref().map(absolute).transpose()?;
    let member = Member::of(&host.root, &settings, args.endpoint)?;
    let http = Http::new(tell.clone(), host.root.clone(), settings.download.clone());
    Ok(snapshot::take(&host.root, &http, tell, &member, to, &settings.etcd.snapshots).await?.file)
}

fn list(args: &SnapshotsArgs, global: &Global, host: &Host) -> Result<(), Fault> {
    let settings = node::settings(global, host)?;
    let shelf = Shelf { root: &host.root, dir: &settings.etcd.snapshots.dir };
    let all = shelf.all(clock::now(), args.verify)?;
    match global.output {
        Format::Json => output::json(&all),
        Format::Text => output::print(&all.iter().map(line).collect::<String>()),
    }
    Ok(())
}

fn line(kept: &Kept) -> String {
    let flaw = if kept.intact { "" } else { "  damaged" };
    let (hours, minutes) = (kept.age / 3600, kept.age / 60 % 60);
    format!("{}  {:>9}  {hours} h {minutes:02} min ago{flaw}\n", kept.file, size(kept.bytes))
}

async fn restore(args: RestoreArgs, global: &Global, host: &Host, tell: &Teller) -> Result<Exit, Fault> {
    let Node { settings, identity, .. } = node::now(global, host)?;
    let file = absolute(&args.file)?;
    let restore = Restore::plan(host, &settings, &identity, &file, args.initial_cluster.as_ref(), args.again).await?;
    let for_people = matches!(global.output, Format::Text);
    if for_people {
        output::print(&restore.text());
    }
    if !args.yes {
        if for_people {
            output::print("Nothing was done: run it again with --yes.\n");
        } else {
            output::json(&restore.shown(None));
        }
        return Ok(Exit::Done);
    }
    let http = Http::new(tell.clone(), host.root.clone(), settings.download.clone());
    let restored = restore.run(host, &http, &settings, &identity, tell).await?;
    if for_people {
        output::print(&ended(&restored));
    } else {
        output::json(&restore.shown(Some(&restored)));
    }
    Ok(Exit::Done)
}

fn ended(restored: &Restored) -> String {
    let mut text = String::new();
    if let Some(kept) = &restored.kept {
        // Writing to a String cannot fail, here and below.
        let _ = writeln!(text, "What was there is kept as {kept}: remove it when it is needed no more.");
    }
    let _ = if restored.ready {
        writeln!(text, "The member is ready.")
    } else {
        writeln!(text, "The member waits for the others: restore the same file there.")
    };
    if restored.watchers_are_stale {
        let own_are_done = restored.ready && restored.serves_api;
        let _ = writeln!(
            text,
            "This release of etcd cannot keep the store's revision from going back: restart kubelet.service and \
             kube-proxy.service on every other node, and on {} controllers all of Kubernetes' units, kube-apiserver first: \
             they would otherwise wait for changes that never come.",
            if own_are_done { "the other" } else { "all" }
        );
    }
    text
}
