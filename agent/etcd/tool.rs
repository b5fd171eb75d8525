//! etcd's own program that makes a member's data of a snapshot: no other knows the format of every release.

use std::time::Duration;

use crate::config::values::RootPath;
use crate::engine::fault::{Class, Explain, Fault};
use crate::host::process;
use crate::host::root::Root;
use crate::host::seen::Entry;
use crate::install::BIN;

/// `etcdutl` restores since etcd 3.5; `etcdctl` did before, and no longer does since 3.6 (etcd's `CHANGELOG-3.6.md`).
const PROGRAMS: [&str; 2] = ["etcdutl", "etcdctl"];

/// How long a restore may take: 8 GB are read and written once.
const RESTORE: Duration = Duration::from_mins(30);

/// How long a program may take to print its help.
const HELP: Duration = Duration::from_secs(10);

/// By how much a restored store's revision goes up: what etcd's documentation advises (op-guide/recovery, "Restoring with
/// revision bump"), more writes than any cluster makes between two snapshots.
const BUMP: u64 = 1_000_000_000;

/// The program.
#[derive(Debug)]
pub struct Tool {
    path: RootPath,
    /// Whether it can keep the revision from going back.
    pub bumps: bool,
}

/// What a member is told about its cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Membership {
    /// The member's name.
    pub name: String,
    /// Where its peers reach it.
    pub peer_url: String,
    /// Every member, `NAME=URL`, with commas between.
    pub cluster: String,
    /// What tells this cluster from all others.
    pub token: String,
}

/// There is none.
#[derive(Debug, thiserror::Error)]
#[error("find etcdutl or etcdctl in {BIN}: neither is there")]
struct NoTool;

impl Explain for NoTool {
    fn class(&self) -> Class {
        Class::Usage
    }

    fn advice(&self) -> Option<String> {
        Some(
            "both come in etcd's release: name them in kubernetes.artifacts.etcd.members, and run `nodeagent install`"
                .to_owned(),
        )
    }
}

impl Tool {
    /// The one that is installed here.
    pub async fn find(root: &Root) -> Result<Self, Fault> {
        for name in PROGRAMS {
            let path = RootPath::literal(BIN).join(name);
            if root.entry(&path, false)? != Entry::Absent {
                let help = process::run(path.as_str(), &["snapshot", "restore", "--help"], HELP).await?;
                let help = String::from_utf8_lossy(&help);
                let bumps = ["--bump-revision", "--mark-compacted"].iter().all(|flag| help.contains(flag));
                return Ok(Self { path, bumps });
            }
        }
        Err(NoTool.into())
    }

    /// Where it is.
    pub fn path(&self) -> &RootPath {
        &self.path
    }

    /// Makes a member's data of a snapshot, in a directory that is not there yet.
    pub async fn restore(&self, snapshot: &str, to: &str, member: &Membership) -> Result<(), Fault> {
        let mut args = vec!["snapshot".to_owned(), "restore".to_owned(), snapshot.to_owned()];
        args.push(format!("--data-dir={to}"));
        args.push(format!("--name={}", member.name));
        args.push(format!("--initial-cluster={}", member.cluster));
        args.push(format!("--initial-cluster-token={}", member.token));
        args.push(format!("--initial-advertise-peer-urls={}", member.peer_url));
        if self.bumps {
            args.extend([format!("--bump-revision={BUMP}"), "--mark-compacted".to_owned()]);
        }
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        process::run(self.path.as_str(), &args, RESTORE).await?;
        Ok(())
    }
}
