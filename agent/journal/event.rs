//! The catalogue of events.
//!
//! A `MESSAGE_ID` is a 128-bit constant, made once with `systemd-id128 new` and never changed: people and programs
//! search by it (`journalctl MESSAGE_ID=…`). The catalogue is documented in `docs/journal.md`.

use std::net::IpAddr;
use std::time::Duration;

use crate::config::values::{RootPath, UnitName};
use crate::engine::change::Debt;
use crate::engine::id::{Id, Step};
use crate::identity::Reason;

/// How much an event matters, by syslog's priorities (syslog(3)).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// 3: something failed.
    Error,
    /// 4: it went on, but somebody should know.
    Warning,
    /// 6: what was done.
    Info,
    /// 7: only with `-v`.
    Debug,
}

/// A certificate that was not renewed is a matter for today when fewer days than these are left.
const LAST_DAYS: i64 = 7;

/// Something that a person or a program would search for.
#[derive(Debug)]
pub enum Event<'a> {
    /// A run of a command begins.
    RunStarted {
        /// The command.
        command: &'a str,
    },
    /// A run ended.
    RunEnded {
        /// The command.
        command: &'a str,
        /// `done`, or what went wrong in a word.
        result: &'a str,
        /// Resources changed.
        changed: usize,
        /// All resources.
        total: usize,
        /// How long it took.
        took: Duration,
    },
    /// Name and address were chosen.
    IdentityChosen {
        /// The node's name.
        name: &'a str,
        /// Its address.
        address: IpAddr,
        /// The link.
        link: &'a str,
        /// Why.
        why: &'a str,
    },
    /// The identity is being waited for.
    IdentityAwaited {
        /// Why there is none yet.
        why: &'a str,
    },
    /// The address is another than at the last boot.
    AddressChanged {
        /// What it was.
        was: IpAddr,
        /// What it is.
        now: IpAddr,
        /// The link that carries it.
        link: &'a str,
    },
    /// The certificate that the node shows to others is not for its address.
    AddressNotInCertificate {
        /// The address.
        address: IpAddr,
        /// The certificate's file.
        certificate: &'a RootPath,
        /// The addresses that it is for.
        has: &'a [IpAddr],
    },
    /// The address that the kernel would use lies in a network of the cluster's own, so it is not taken.
    AddressInside {
        /// The address.
        address: IpAddr,
        /// In which network, and whose that is.
        reason: &'a Reason,
    },
    /// The kubelet's version was not compared with the API server's.
    NotCompared {
        /// The kubelet's version.
        kubelet: &'a str,
        /// Why not.
        why: &'a str,
    },
    /// Something could not stand in the env file.
    LeftOut {
        /// What, and why.
        what: &'a str,
    },
    /// The env file was written outside of a run.
    Refreshed {
        /// The file.
        path: &'a RootPath,
    },
    /// Routes to other nodes' pods were put in place or removed.
    RoutesChanged {
        /// Which, as `ip route` shows them.
        added: &'a str,
        /// Those of nodes that are no longer listed.
        removed: &'a str,
    },
    /// A route to another node's pods could not be put in place.
    RouteRefused {
        /// Which, and why not.
        why: &'a str,
    },
    /// The clock is being waited for.
    ClockAwaited {
        /// What is wrong with it.
        why: &'a str,
    },
    /// Nothing has synchronised the clock.
    ClockUnsynchronised {
        /// What systemd says of it.
        why: &'a str,
    },
    /// A resource was brought to what is wanted.
    Changed {
        /// Its step.
        step: Step,
        /// Its name.
        id: &'a Id,
        /// What it is.
        summary: &'a str,
        /// How long that took, obtaining included.
        took: Duration,
    },
    /// A command ended with an error.
    CommandFailed {
        /// The cause.
        why: &'a str,
        /// What to do; may be empty.
        advice: &'a str,
    },
    /// A resource failed.
    ResourceFailed {
        /// Its step; none while undoing.
        step: Option<Step>,
        /// Its name.
        id: &'a Id,
        /// The cause.
        why: &'a str,
        /// What to do; may be empty.
        advice: &'a str,
    },
    /// A download goes on.
    Fetching {
        /// Of what.
        what: &'a str,
        /// How much of it is there.
        bytes: u64,
        /// How large it is, if the server says so.
        total: Option<u64>,
        /// How much of it this run fetched.
        from_network: u64,
        /// In which time.
        took: Duration,
    },
    /// A download is complete and verified.
    Fetched {
        /// Of what.
        what: &'a str,
        /// Where from; nothing if an earlier run had fetched it whole.
        url: Option<&'a str>,
        /// How large it is.
        bytes: u64,
        /// How much of it this run fetched.
        from_network: u64,
        /// How long it took.
        took: Duration,
        /// Attempts that failed before.
        retries: u32,
    },
    /// A request is tried again.
    Retrying {
        /// The object: a URL.
        what: &'a str,
        /// Why the last attempt failed.
        why: &'a str,
    },
    /// Something that is being waited for is not ready yet.
    TargetAwaited {
        /// The target.
        target: &'a str,
        /// Why it is not ready.
        why: &'a str,
    },
    /// What was being waited for is ready.
    TargetReady {
        /// The target.
        target: &'a str,
        /// How long it took.
        took: Duration,
    },
    /// A certificate signing request waits for its approval, or for its signer.
    ApprovalAwaited {
        /// For which, and what somebody has to do.
        why: &'a str,
    },
    /// This controller begins to look after the cluster, or another one does.
    ClusterLed {
        /// Who holds the Lease.
        holder: &'a str,
        /// Whether it is this process.
        ours: bool,
    },
    /// Looking after the cluster was interrupted, and begins anew.
    ClusterInterrupted {
        /// By what.
        why: &'a str,
        /// What to do; may be empty.
        advice: &'a str,
    },
    /// An object of the cluster was made or changed.
    ClusterChanged {
        /// Which.
        what: &'a str,
        /// What became of it.
        how: &'a str,
    },
    /// An object of the cluster is not as it should be.
    ClusterObjectFailed {
        /// Which, and where it stands.
        what: &'a str,
        /// Why not.
        why: &'a str,
        /// What to do; may be empty.
        advice: &'a str,
    },
    /// A certificate request was approved.
    RequestApproved {
        /// Its name.
        request: &'a str,
        /// Who asked.
        requestor: &'a str,
        /// For what.
        what: &'a str,
    },
    /// A certificate request is left to a person.
    RequestLeft {
        /// Its name.
        request: &'a str,
        /// Who asked.
        requestor: &'a str,
        /// Why it was not approved.
        why: &'a str,
    },
    /// A unit's job goes on.
    JobWaits {
        /// The unit.
        unit: &'a UnitName,
        /// What the unit says of itself.
        says: &'a str,
    },
    /// A debt was paid.
    DebtPaid {
        /// Which.
        debt: &'a Debt,
    },
    /// What was asked for is not what is in force.
    NotProven {
        /// The resource.
        id: &'a Id,
        /// What was found.
        why: &'a str,
    },
    /// What is written to this machine's configuration is gone with the next boot.
    Volatile {
        /// The directory that is in memory.
        path: &'a str,
    },
    /// A file that somebody else wrote is about to be replaced; a copy of it is kept.
    KeptAside {
        /// The file.
        path: &'a str,
        /// The copy.
        to: &'a str,
    },
    /// All is prepared for kubeadm, and it is a person who has the node join.
    JoinAwaited {
        /// What kubeadm has to be told besides what it prints itself; nothing, or with a comma before it.
        more: &'a str,
    },
    /// Certificates that should have been renewed are still the old ones.
    NotRenewed {
        /// The old ones: each file, with what is left of its life.
        old: &'a str,
        /// Those that are not there or cannot be read: each file, with the reason.
        without: &'a str,
        /// Whole days until the first of the old ones ends, negative afterwards; nothing if there is none.
        days_left: Option<i64>,
    },
    /// A snapshot of etcd was taken.
    SnapshotTaken {
        /// The file.
        path: &'a RootPath,
        /// Its size.
        bytes: u64,
        /// The revision that the store had reached just before, if the member said so.
        revision: Option<u64>,
        /// How long it took.
        took: Duration,
    },
    /// A snapshot of etcd was not taken, or older ones not removed.
    SnapshotFailed {
        /// Why not.
        why: &'a str,
        /// What to do; may be empty.
        advice: &'a str,
    },
    /// A member's data was replaced by a snapshot.
    StoreRestored {
        /// The snapshot.
        from: &'a str,
        /// The member's data directory.
        data_dir: &'a RootPath,
        /// Where the data is that was there before.
        kept: Option<&'a RootPath>,
    },
    /// A machine is to be brought the key of the cluster's CA, to which it has no right.
    KeyStray {
        /// Which machine.
        node: &'a str,
        /// Where it is to have the key.
        key: &'a RootPath,
    },
    /// Bootstrap does nothing because a rollback asked for that.
    Held {
        /// When the rollback was.
        since: &'a str,
    },
    /// A Change was undone.
    Undone {
        /// What was undone.
        what: &'a str,
    },
    /// A Change was not undone.
    Kept {
        /// What.
        what: &'a str,
        /// Why.
        why: &'a str,
    },
}

impl Event<'_> {
    /// The constant that it is found by.
    pub fn message_id(&self) -> &'static str {
        match self {
            Self::RunStarted { .. } => "a4210d40d408428b89bbd4e0aa9734a4",
            Self::RunEnded { .. } => "2915e37b50d34b9f981281bc1e949ee1",
            Self::IdentityChosen { .. } => "7874d355fddd40bea13e6a83d02d3da2",
            Self::IdentityAwaited { .. } => "5a687ab917474a3aae46af4026bad81d",
            Self::AddressChanged { .. } => "b6408f4eaa394fe8a64a12394abc3e67",
            Self::AddressNotInCertificate { .. } => "197c694a44094dda8254d207a5aeb747",
            Self::AddressInside { .. } => "e87610fa216149edbe9ded21bce2db58",
            Self::NotCompared { .. } => "0b772c4261e74b659103e82f0bdc3b22",
            Self::LeftOut { .. } => "30117f62a70e471e959855807da22520",
            Self::Refreshed { .. } => "54c35e2e1eb04002be4de1f62566d108",
            Self::RoutesChanged { .. } => "1887bd45a56d4afaae3e151cc22fa2d4",
            Self::RouteRefused { .. } => "c3220c6152e946689287584361d5d22a",
            Self::ClockAwaited { .. } => "ae58cb729d75424bbef254015cee4fbf",
            Self::ClockUnsynchronised { .. } => "807cb8befcb74d38976a2bbc27f6242c",
            Self::Changed { .. } => "bd38940bc9eb46388dbe639a096736da",
            Self::CommandFailed { .. } => "ee5c77b004da4fbf82ac38dc00421a35",
            Self::ResourceFailed { .. } => "b0e46aa44ae34c3e80287c644aec80cb",
            Self::Fetching { .. } => "d504731cfd814141bab8c7d8be2246a2",
            Self::Fetched { .. } => "fbee1c8caef04616b7604c1f499d2d4f",
            Self::Retrying { .. } => "bdec490dae1c4201a097b8354c24d2a3",
            Self::TargetAwaited { .. } => "6ad6cdc83fdb46b5aa59398aeb8a969b",
            Self::TargetReady { .. } => "e094f5ed5ac54a03873acb8879b46c43",
            Self::ApprovalAwaited { .. } => "42fc47a792c3420d9455925405e2b763",
            Self::ClusterLed { .. } => "e7565ab0ca834fc982f6876925d9be44",
            Self::ClusterInterrupted { .. } => "0218d74fecd34b13a990daa778b8e4ac",
            Self::ClusterChanged { .. } => "6c8cccc56c8547c29344158666054fd1",
            Self::ClusterObjectFailed { .. } => "fa4a6430a9114a4cbb3c54c55b9990cd",
            Self::RequestApproved { .. } => "9eaa475dee264017afe20e10782430fc",
            Self::RequestLeft { .. } => "e7146931ba0b4fa683f3b62f7a99b0b4",
            Self::JobWaits { .. } => "d16481672e9a44b29e0e435178868341",
            Self::DebtPaid { .. } => "34ac12a47dd84eeba2297a1ea0049daa",
            Self::NotProven { .. } => "08dbf08ef8d44a94963887949f3cc016",
            Self::Volatile { .. } => "8ef1338f45ef4d7faeeb0bd0d48c2a5a",
            Self::KeptAside { .. } => "3af50c34f715463f95b6b8eb8f39a920",
            Self::JoinAwaited { .. } => "dff2980283c14326bdc621d6c27995ac",
            Self::NotRenewed { .. } => "78cff39b56c3409c914e1aeeb2904d23",
            Self::SnapshotTaken { .. } => "c2d6261e405743c4aa1aef24c5cf2d94",
            Self::SnapshotFailed { .. } => "6c87a8da9fef40e186defb872c7e633c",
            Self::StoreRestored { .. } => "9ed553bc35194209851a36011322a730",
            Self::KeyStray { .. } => "28cb803b47b84c4ab970b2057ee7ef8c",
            Self::Held { .. } => "933ad59b4d404cb3bf0da277e270685a",
            Self::Undone { .. } => "e82de099e1264071bef65cdb430f53c2",
            Self::Kept { .. } => "3da418399ff54af0bb35df8bcc75dd27",
        }
    }

    /// How much it matters.
    pub fn level(&self) -> Level {
        match self {
            Self::CommandFailed { .. } | Self::ResourceFailed { .. } | Self::SnapshotFailed { .. } => Level::Error,
            // A pair of which nothing can be said may have ended.
            Self::NotRenewed { days_left, .. } if days_left.is_none_or(|days| days < LAST_DAYS) => Level::Error,
            Self::NotProven { .. }
            | Self::Volatile { .. }
            | Self::KeptAside { .. }
            | Self::NotRenewed { .. }
            | Self::StoreRestored { .. }
            | Self::KeyStray { .. }
            | Self::Held { .. }
            | Self::Kept { .. }
            | Self::Retrying { .. }
            | Self::ClusterInterrupted { .. }
            | Self::ClusterObjectFailed { .. }
            | Self::RequestLeft { .. }
            | Self::AddressChanged { .. }
            | Self::AddressNotInCertificate { .. }
            | Self::AddressInside { .. }
            | Self::LeftOut { .. }
            | Self::RouteRefused { .. }
            | Self::ClockUnsynchronised { .. } => Level::Warning,
            Self::RunEnded { result, .. } if *result != "done" => Level::Error,
            _ => Level::Info,
        }
    }
}
