//! A snapshot in the place of a member's data.
//!
//! New data is made beside what is there while the member still runs; only then it is stopped, and two renames within the
//! data directory (which may be a mount of its own) change the one for the other. What was there stays, under a name with
//! the time. A record says, from before the first rename until the member was started, which snapshot goes where: whoever
//! runs the command again after it was killed comes to the same end, and never restores twice.

mod cannot;
mod record;

use std::fmt::Write as _;
use std::str::FromStr;
use std::time::Duration;

use serde::Serialize;

use self::cannot::CannotRestore;
use self::record::{ASIDE, Record, WORK};
use super::seal::{self, Sealed};
use super::tool::{Membership, Tool};
use super::{guard, member::Member};
use crate::certs::client::{self, ClientPair};
use crate::certs::{ADMIN_CLIENT, pair_path};
use crate::config::settings::{Role, Settings};
use crate::config::values::{BadValue, HttpUrl, NodeName, RootPath, Sha256, UnitName};
use crate::engine::change::{Meta, Verb};
use crate::engine::fault::Fault;
use crate::host::Host;
use crate::host::http::Http;
use crate::host::lock;
use crate::host::root::Root;
use crate::host::seen::Entry;
use crate::host::systemd::SystemdError;
use crate::identity::Identity;
use crate::journal::{Event, Teller, size};
use crate::units;

/// What a member has besides its store: two segments of its log, of 64 MB each (etcd's `wal.SegmentSizeBytes`).
const LOG: u64 = 2 * (64 << 20);

/// How long another run is waited for, and units that stop or start.
const OTHER: Duration = Duration::from_mins(1);
const STOP: Duration = Duration::from_mins(2);
const START: Duration = Duration::from_mins(5);

/// How long a member that needs others is waited for: these may not have been restored yet.
const START_OF_SEVERAL: Duration = Duration::from_secs(20);

/// For a start to be queued that nobody waits for.
const QUEUED: Duration = Duration::from_secs(1);

/// What is stopped and started.
const STORE: &str = "etcd.service";
const API_SERVER: &str = "kube-apiserver.service";

/// What speaks to the API by what it has seen before, and runs on a controller.
const WATCHERS: [&str; 5] = [
    "kube-controller-manager.service",
    "kube-scheduler.service",
    "kube-proxy.service",
    "kubelet.service",
    "nodeagent-cluster.service",
];

/// What is to be done.
#[derive(Debug)]
pub struct Restore {
    file: String,
    sealed: Sealed,
    member: Membership,
    /// The other members, by name.
    others: Vec<String>,
    data_dir: RootPath,
    tool: Tool,
    /// Whether an API server runs here.
    serves_api: bool,
    /// Whether an earlier run has put this very snapshot in place, and did not see that the member was ready.
    placed: bool,
}

/// Every member's name and URL among peers, as etcd's flag of that name has them: `NAME=URL,…`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InitialCluster(Vec<(String, String)>);

impl FromStr for InitialCluster {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let member = |part: &str| {
            let (name, url) = part.split_once('=').ok_or_else(|| format!("{part:?} is not NAME=URL"))?;
            let name: NodeName = name.parse().map_err(|error: BadValue| error.to_string())?;
            let url: HttpUrl = url.parse().map_err(|error: BadValue| error.to_string())?;
            if !url.is_https() {
                return Err(format!("{url} must start with https://: members speak TLS"));
            }
            Ok((name.to_string(), url.to_string()))
        };
        text.split(',').map(member).collect::<Result<_, _>>().map(Self)
    }
}

/// What a program sees of it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Shown<'a> {
    snapshot: &'a str,
    sha256: &'a Sha256,
    data_dir: &'a RootPath,
    member: &'a str,
    initial_cluster: &'a str,
    cluster_token: &'a str,
    others: &'a [String],
    tool: &'a RootPath,
    bumps_revision: bool,
    units: Vec<&'static str>,
    /// Whether it is in place already: then the member is only started and asked.
    placed: bool,
    /// How it ended; nothing where it was only shown.
    #[serde(skip_serializing_if = "Option::is_none")]
    result: Option<&'a Restored>,
}

/// How it ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Restored {
    /// Where the data is that was there before; nothing if there was none.
    pub kept: Option<RootPath>,
    /// Whether the member is ready; else it waits for others.
    pub ready: bool,
    /// Whether what watches the API must be started anew by a person, on all nodes.
    pub watchers_are_stale: bool,
    /// Whether an API server runs here.
    pub serves_api: bool,
}

impl Restore {
    /// Reads and judges the snapshot, and finds out what would be done. Touches nothing. With `again` one that is in place
    /// already is put there once more.
    pub async fn plan(
        host: &Host,
        settings: &Settings,
        identity: &Identity,
        file: &RootPath,
        initial_cluster: Option<&InitialCluster>,
        again: bool,
    ) -> Result<Self, Fault> {
        let root = &host.root;
        if !settings.etcd.member {
            return Err(CannotRestore::NoMember.into());
        }
        let sealed = seal::verify(root, file)?;
        if !host.is_live() {
            return Err(CannotRestore::NotLive(root.display(&RootPath::literal("/"))).into());
        }
        let (listed, peer_url) = units::etcd_peers(settings, identity);
        let own = identity.name.as_str();
        let cluster = match (initial_cluster, &settings.etcd.discovery) {
            (Some(InitialCluster(named)), _) if !named.iter().any(|(name, _)| name == own) => {
                return Err(CannotRestore::NotAmong(own.to_owned()).into());
            }
            (Some(InitialCluster(named)), _) => named.clone(),
            (None, Some(domain)) => return Err(CannotRestore::InDns(domain.to_string()).into()),
            (None, None) => listed,
        };
        let member = Membership {
            name: identity.name.to_string(),
            peer_url,
            cluster: cluster.iter().map(|(name, url)| format!("{name}={url}")).collect::<Vec<_>>().join(","),
            // Not the unit's, by which members of the old cluster would take this one for their own, and give it back what
            // it is to forget: one that follows from the snapshot, so that those who restore the same one find each other.
            token: format!("{}-{}", settings.cluster.name, sealed.sha256.short()),
        };
        let others = cluster.into_iter().map(|(name, _)| name).filter(|name| *name != member.name).collect();
        let data_dir = settings.etcd.data_dir.clone();
        let earlier = Record::read(root)?.filter(|record| record.is_of(&sealed.sha256, &data_dir));
        let placed = !again && earlier.map_or(Ok(false), |record| record.is_placed(root))?;
        Ok(Self {
            file: root.display(file),
            sealed,
            member,
            others,
            placed,
            data_dir,
            tool: Tool::find(root).await?,
            serves_api: settings.role == Role::Controller,
        })
    }

    /// What a program sees of it, and of how it ended.
    pub fn shown<'a>(&'a self, result: Option<&'a Restored>) -> Shown<'a> {
        Shown {
            snapshot: &self.file,
            sha256: &self.sealed.sha256,
            data_dir: &self.data_dir,
            member: &self.member.name,
            initial_cluster: &self.member.cluster,
            cluster_token: &self.member.token,
            others: &self.others,
            tool: self.tool.path(),
            bumps_revision: self.tool.bumps,
            units: self.units(),
            placed: self.placed,
            result,
        }
    }

    /// The same for people.
    pub fn text(&self) -> String {
        if self.placed {
            return format!(
                "{} is in place already, as the data of the member {} in {}: an earlier run put it there, and did not see \
                 the member ready\n\
                 \x20 {} would be started, and asked whether they serve; the data stays as it is\n\
                 With --again it is put there once more: what was written since is gone then.\n",
                self.file,
                self.member.name,
                self.data_dir,
                self.units().join(" and "),
            );
        }
        let mut text = format!(
            "restore {} ({}, its SHA-256 is right)\n\
             \x20 as the data of the member {} in {}, by {}\n\
             \x20 of the cluster {}\n\
             \x20 what is there now stays beside it, as {ASIDE}TIME\n\
             \x20 {} would be stopped and started again\n\
             What was written since the snapshot was taken is gone then, from the whole cluster.\n",
            self.file,
            size(self.sealed.bytes),
            self.member.name,
            self.data_dir,
            self.tool.path(),
            self.member.cluster,
            self.units().join(" and "),
        );
        if !self.others.is_empty() {
            // Writing to a String cannot fail.
            let _ = writeln!(
                text,
                "Stop etcd.service on every member first, and restore this same file on each: {} too. A member waits for \
                 the others.",
                self.others.join(", ")
            );
        }
        text
    }

    /// Does it. Whoever was killed runs it again.
    pub async fn run(
        &self,
        host: &Host,
        http: &Http,
        settings: &Settings,
        identity: &Identity,
        tell: &Teller,
    ) -> Result<Restored, Fault> {
        let root = &host.root;
        let told = |holder: &str| {
            let why = format!("held by {holder}");
            tell.tell(&Event::TargetAwaited { target: "the lock", why: &why });
        };
        // No bootstrap and no renewal starts units meanwhile.
        let _lock = lock::take(root, "etcd restore", OTHER, told).await?;
        let record = self.place(host, tell).await?;
        let ready = self.start(host, tell).await?;
        let watchers_are_stale = !self.tool.bumps;
        if ready {
            self.prove(root, http, settings, identity).await?;
            if watchers_are_stale && self.serves_api {
                jobs(host, &WATCHERS, Verb::Restart, START, tell).await?;
            }
            // Not before: whoever runs it again must not lose what was written to the restored store.
            Record::end(root)?;
        }
        let kept = record.kept.map(|name| self.data_dir.join(&name));
        Ok(Restored { kept, ready, watchers_are_stale, serves_api: self.serves_api })
    }

    /// Puts the new data where the old was, unless an earlier run has.
    async fn place(&self, host: &Host, tell: &Teller) -> Result<Record, Fault> {
        let root = &host.root;
        let mut earlier = Record::read(root)?.filter(|record| record.is_of(&self.sealed.sha256, &self.data_dir));
        if let Some(record) = &earlier
            && record.is_placed(root)?
        {
            if self.placed {
                return Ok(record.clone());
            }
            earlier = None;
        }
        self.make(root).await?;
        // From here on a start without data is refused, whatever happens.
        guard::remember(root, &self.data_dir)?;
        let record = match earlier {
            Some(record) => record,
            None => Record::begin(root, &self.sealed.sha256, &self.data_dir)?,
        };
        let units: Vec<&str> = self.units().into_iter().rev().collect();
        jobs(host, &units, Verb::Stop, STOP, tell).await?;
        record.change(root)?;
        let kept = record.kept.as_ref().map(|name| self.data_dir.join(name));
        tell.tell(&Event::StoreRestored { from: &self.file, data_dir: &self.data_dir, kept: kept.as_ref() });
        Ok(record)
    }

    /// Makes the new data, in a directory of its own.
    async fn make(&self, root: &Root) -> Result<(), Fault> {
        let work = self.data_dir.join(WORK);
        root.make_own_dirs(&self.data_dir, Meta::root(0o700))?;
        root.remove_tree(&work)?;
        let (needs, free) = (self.sealed.bytes + LOG, root.free_space(&self.data_dir)?);
        if needs > free {
            return Err(CannotRestore::NoRoom { path: root.display(&self.data_dir), needs, free }.into());
        }
        if let Err(fault) = self.tool.restore(&self.file, work.as_str(), &self.member).await {
            // Best effort: the next run removes what stays.
            let _ = root.remove_tree(&work);
            return Err(fault);
        }
        if let Entry::Dir(owner) = root.entry(&self.data_dir, false)? {
            root.give_tree(&work, owner)?;
        }
        Ok(root.flush(&work)?)
    }

    /// Starts what was stopped, and says whether it is ready. A member of several is not, before most of them are.
    async fn start(&self, host: &Host, tell: &Teller) -> Result<bool, Fault> {
        let several = !self.others.is_empty();
        let deadline = if several { START_OF_SEVERAL } else { START };
        let not_ready = |error: SystemdError| CannotRestore::NotReady(error.to_string());
        let ready = match jobs(host, &[STORE], Verb::Start, deadline, tell).await {
            Ok(()) => true,
            Err(SystemdError::JobDeadline { .. }) if several => false,
            Err(error) => return Err(not_ready(error).into()),
        };
        if self.serves_api {
            let deadline = if ready { START } else { QUEUED };
            match jobs(host, &[API_SERVER], Verb::Start, deadline, tell).await {
                // It waits for the store by itself.
                Err(SystemdError::JobDeadline { .. }) if !ready => {}
                other => other.map_err(not_ready)?,
            }
        }
        Ok(ready)
    }

    /// Whether the store answers, and the API from it.
    async fn prove(&self, root: &Root, http: &Http, settings: &Settings, identity: &Identity) -> Result<(), Fault> {
        let member = Member::of(root, settings, None)?;
        let not_ready = |error: crate::host::http::HttpError| CannotRestore::NotReady(error.to_string());
        member.connect(http)?.get("/health").await.map_err(not_ready)?;
        if self.serves_api {
            let url = HttpUrl::https(identity.address, settings.cluster.api_port);
            let ca = client::needed(root, &settings.certs.ca)?;
            let pair = ClientPair::read(root, &pair_path(settings, ADMIN_CLIENT))?;
            let server = http.server(&url, &ca, pair.login())?;
            server.get("/api/v1/namespaces/kube-system").await.map_err(not_ready)?;
        }
        Ok(())
    }

    /// What is started, in that order.
    fn units(&self) -> Vec<&'static str> {
        std::iter::once(STORE).chain(self.serves_api.then_some(API_SERVER)).collect()
    }
}

/// Queues jobs together and waits for them. The first that did not end well is the error.
async fn jobs(host: &Host, units: &[&str], verb: Verb, deadline: Duration, tell: &Teller) -> Result<(), SystemdError> {
    let jobs: Vec<(UnitName, Verb)> = units.iter().map(|unit| (UnitName::literal(unit), verb)).collect();
    let told = |unit: &UnitName, says: &str| tell.tell(&Event::JobWaits { unit, says });
    let results = host.systemd().await?.run_jobs(&jobs, deadline, told).await;
    results.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_named_as_etcd_takes_them() {
        let two = "a=https://a.example.com:2380,b=https://10.0.0.2:2380".parse::<InitialCluster>().expect("two");
        assert_eq!(two.0.len(), 2);
        for (text, why) in [
            ("", "is not NAME=URL"),
            ("a", "is not NAME=URL"),
            ("a=https://a:2380,", "is not NAME=URL"),
            ("a=http://a:2380", "must start with https://"),
            ("A_B=https://a:2380", "A_B"),
            ("a=a:2380", "a:2380"),
        ] {
            let error = text.parse::<InitialCluster>().expect_err(text);
            assert!(error.contains(why), "{text}: {error}");
        }
    }
}
