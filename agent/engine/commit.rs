//! The one place that writes to the machine: records what was there, then makes the Change.

use std::collections::BTreeSet;
use std::time::Duration;

use super::block;
use super::change::{Body, Change, Debt, Meta, ProcessLimit, SCRATCH, Verb};
use super::fault::{Explain, Fault};
use super::file::aside;
use super::history;
use super::id::Id;
use super::ledger::{Ledger, LedgerError};
use super::receipt::{Receipt, Verified};
use super::record::{Before, Logged, Made, Record};
use super::undo;
use crate::config::values::{RootPath, Sha256, UnitName};
use crate::host::bytes::FileBytes;
use crate::host::lock::{self, Lock};
use crate::host::root::{FileError, Root};
use crate::host::seen::Entry;
use crate::host::systemd::SystemdError;
use crate::host::{Host, clock, kernel};
use crate::journal::{Event, Teller};

/// How long a unit's job may take before the run reports it and goes on.
pub const JOB_DEADLINE: Duration = Duration::from_mins(10);

/// How long another run may hold the lock.
const LOCK_DEADLINE: Duration = Duration::from_mins(1);

/// A Change could not be made, besides what the machine itself refuses.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// Something that is no file stands where a file is to be put.
    #[error("replace {path}: it is a {what}")]
    InTheWay {
        /// Where.
        path: String,
        /// What stands there.
        what: &'static str,
    },
    /// systemd could not load a module.
    #[error("load module {name}: it is not there after systemd-modules-load.service ran")]
    NoModule {
        /// Which.
        name: String,
    },
    /// The file that a receipt is for is not there.
    #[error("write the receipt of {path}: the file is not there")]
    NothingToReceipt {
        /// Which.
        path: String,
    },
}

impl Explain for CommitError {
    fn advice(&self) -> Option<String> {
        Some(match self {
            Self::InTheWay { .. } => "move it away: nodeagent replaces files and links only".to_owned(),
            Self::NoModule { name } => {
                format!("this kernel has no {name}: install its modules package, or set kernel.modules.{name}: false")
            }
            Self::NothingToReceipt { .. } => "run again".to_owned(),
        })
    }
}

impl Explain for CannotEncode {}

/// A receipt could not be written as JSON.
#[derive(Debug, thiserror::Error)]
#[error("encode a receipt: {0}")]
pub struct CannotEncode(#[from] serde_json::Error);

/// Removes the temporary file of a Change that a kill interrupted. It can only be the last one that was announced.
fn sweep(root: &Root, records: &[Record]) {
    if let Some(Logged::Put { path, .. } | Logged::Link { path, .. } | Logged::Block { path, .. }) =
        history::changes(records).next_back().map(|made| &made.change)
    {
        // Best effort: it is in nobody's way, and whoever puts something there again removes it or says why not.
        let _ = root.remove_temporary(path);
    }
}

/// Whose Changes are being made.
#[derive(Debug, Clone, Copy)]
pub struct By<'a> {
    /// The resource.
    pub id: &'a Id,
    /// What units must be made to see.
    pub owes: &'a [Debt],
}

/// The hand that writes: holds the lock and the ledger. Nothing else can commit.
pub struct Hand<'h> {
    pub(super) host: &'h Host,
    pub(super) ledger: Ledger,
    pub(super) boot: String,
    pub(super) tell: Teller,
    /// The run, recorded with its first Change: a run that changes nothing writes nothing.
    run: Option<u64>,
    command: &'static str,
    config: Option<Sha256>,
    _lock: Lock,
}

impl<'h> Hand<'h> {
    /// Takes the lock and opens the ledger.
    pub async fn take(
        host: &'h Host,
        tell: &Teller,
        command: &'static str,
        config: Option<Sha256>,
    ) -> Result<Self, Fault> {
        let told = |holder: &str| {
            let why = format!("held by {holder}");
            tell.tell(&Event::TargetAwaited { target: "the lock", why: &why });
        };
        let lock = lock::take(&host.root, command, LOCK_DEADLINE, told).await?;
        let mut ledger = Ledger::open(&host.root)?;
        sweep(&host.root, ledger.records());
        let boot = host.boot_id()?;
        ledger.compact_if_large(&boot)?;
        Ok(Self { host, ledger, boot, tell: tell.clone(), run: None, command, config, _lock: lock })
    }

    /// What was recorded so far, by this run and by earlier ones.
    pub fn records(&self) -> &[Record] {
        self.ledger.records()
    }

    /// Records something besides a Change.
    pub(super) fn note(&mut self, record: Record) -> Result<(), LedgerError> {
        self.announce()?;
        self.ledger.append(record)
    }

    /// Lifts the hold that a rollback left.
    pub fn resume(&mut self) -> Result<(), LedgerError> {
        self.note(Record::Resume)
    }

    /// Records that the run came to its end.
    ///
    /// A run that changed nothing says nothing, unless it found complete what an earlier one had left incomplete.
    pub fn end(&mut self, done: bool) -> Result<(), LedgerError> {
        let completes = done && history::runs(self.records()).last().is_some_and(|last| !last.done && !last.undoes());
        if completes {
            self.announce()?;
        }
        if self.run.is_some() {
            self.ledger.append(Record::End { done })?;
        }
        Ok(())
    }

    /// Removes from the scratch directory what nobody will go on from.
    pub fn clear_scratch(&self, keep: &BTreeSet<RootPath>) {
        // Best effort: it is in nobody's way, and the next run tries again.
        let _ = self.try_to_clear_scratch(keep);
    }

    /// Only the agent's own fetch, by cloud-config, may be at work there besides the holder of the lock.
    fn try_to_clear_scratch(&self, keep: &BTreeSet<RootPath>) -> Result<(), FileError> {
        let dir = RootPath::literal(SCRATCH);
        let names = self.host.root.list(&dir)?;
        for path in names.iter().filter(|name| *name != "nodeagent").filter_map(|name| dir.child(name)) {
            if !keep.contains(&path) {
                self.host.root.remove(&path)?;
            }
        }
        Ok(())
    }

    /// Makes a resource's Changes in their order. Jobs are handed back, so that all of a round are queued together.
    pub async fn commit(&mut self, by: By<'_>, changes: Vec<Change>) -> Result<Vec<(UnitName, Verb)>, Fault> {
        let mut jobs = Vec::new();
        for change in changes {
            match change {
                Change::Job { unit, verb } => jobs.push((unit, verb)),
                other => self.make(by, other).await?,
            }
        }
        Ok(jobs)
    }

    /// Queues jobs together and waits for each one's result, in their order. A job never runs against stale unit files.
    pub async fn run_jobs(
        &mut self,
        jobs: &[(By<'_>, UnitName, Verb)],
    ) -> Result<Vec<Result<(), SystemdError>>, Fault> {
        if jobs.is_empty() {
            return Ok(Vec::new());
        }
        self.reload_if_owed().await?;
        let systemd = self.host.systemd().await?;
        for (by, unit, verb) in jobs {
            let sight = systemd.unit(unit).await?;
            let before = match sight {
                Some(sight) => Before::Unit { active: sight.active, invocation: sight.invocation },
                None => Before::Nothing,
            };
            self.record(*by, Logged::Job { unit: unit.clone(), verb: *verb }, before)?;
        }
        let queue: Vec<(UnitName, Verb)> = jobs.iter().map(|(_, unit, verb)| (unit.clone(), *verb)).collect();
        let tell = self.tell.clone();
        Ok(systemd.run_jobs(&queue, JOB_DEADLINE, |unit, says| tell.tell(&Event::JobWaits { unit, says })).await)
    }

    /// Reads unit files again if a Change of this boot has yet to be seen.
    pub async fn reload_if_owed(&mut self) -> Result<(), Fault> {
        let owed = history::debts(self.records(), &self.boot).iter().any(|(debt, _)| *debt == Debt::DaemonReload);
        if owed && self.host.is_live() {
            self.host.systemd().await?.reload().await?;
            self.pay(Debt::DaemonReload)?;
        }
        Ok(())
    }

    /// Records, and tells, that a debt was paid.
    pub(super) fn pay(&mut self, debt: Debt) -> Result<(), LedgerError> {
        self.tell.tell(&Event::DebtPaid { debt: &debt });
        self.forgive(debt)
    }

    /// Records that a debt is owed no longer, although nobody had to do anything for it.
    pub(super) fn forgive(&mut self, debt: Debt) -> Result<(), LedgerError> {
        self.note(Record::Paid { debt })
    }

    /// Makes one Change. One that failed and left everything as it was is forgotten: nothing is to be undone, and no unit
    /// must be restarted for it.
    async fn make(&mut self, by: By<'_>, change: Change) -> Result<(), Fault> {
        let first = self.ledger.next_seq();
        let result = self.record_and_make(by, change).await;
        if result.is_err() {
            let announced: Vec<Made> = history::changes(self.records()).filter(|m| m.seq >= first).cloned().collect();
            for made in announced {
                let now = self.host.see(&undo::reads(&made)).await;
                if undo::undo(&made, &now, false).is_ok_and(|changes| changes.is_empty()) {
                    // What failed is reported; that this could not be noted as well changes nothing about it.
                    let _ = self.note(Record::Undone { seq: made.seq, stays: false });
                }
            }
        }
        result
    }

    /// Records one Change, then makes it.
    async fn record_and_make(&mut self, by: By<'_>, change: Change) -> Result<(), Fault> {
        let host = self.host;
        let root = &host.root;
        match change {
            Change::Put { path, body, meta } => self.put(by, &path, body, meta)?,
            Change::KeepAside { path } => self.keep_aside(by, &path)?,
            Change::Link { path, to } => {
                let before = self.entry_before(&path, true)?;
                self.record(by, Logged::Link { path: path.clone(), to: to.clone() }, before)?;
                root.link(&path, &to)?;
            }
            Change::Dir { path, meta } => {
                for path in root.missing_dirs(&path)? {
                    self.record(by, Logged::Dir { path: path.clone(), meta }, Before::Absent)?;
                    root.make_dir(&path, meta)?;
                }
            }
            Change::Block { path, lines } => self.block(by, &path, lines)?,
            Change::Remove { path } => {
                let before = self.entry_before(&path, true)?;
                if before != Before::Absent {
                    self.record(by, Logged::Remove { path: path.clone() }, before)?;
                    root.remove(&path)?;
                }
            }
            Change::Destroy { path } => {
                let before = self.entry_before(&path, false)?;
                if before != Before::Absent {
                    self.record(by, Logged::Destroy { path: path.clone() }, before)?;
                    root.remove(&path)?;
                }
            }
            Change::Sysctl { key, value } => {
                let before = kernel::sysctl(&key)?.map_or(Before::Nothing, Before::Value);
                self.record(by, Logged::Sysctl { key: key.clone(), value: value.clone() }, before)?;
                kernel::set_sysctl(&key, &value)?;
            }
            Change::Module { name } => {
                self.record(by, Logged::Module { name: name.clone() }, Before::Absent)?;
                // systemd's own loader knows compressed modules, aliases and the blacklist.
                let loader = UnitName::literal("systemd-modules-load.service");
                let restart = [(loader.clone(), Verb::Stop), (loader, Verb::Start)];
                let results = host.systemd().await?.run_jobs(&restart[..1], JOB_DEADLINE, |_, _| ()).await;
                results.into_iter().collect::<Result<Vec<()>, _>>()?;
                let started = host.systemd().await?.run_jobs(&restart[1..], JOB_DEADLINE, |_, _| ()).await;
                if !kernel::has_module(&name) {
                    started.into_iter().collect::<Result<Vec<()>, _>>()?;
                    return Err(CommitError::NoModule { name: name.to_string() }.into());
                }
            }
            Change::Property { unit, name, value } => {
                let systemd = host.systemd().await?;
                let before = systemd.unit(&unit).await?.and_then(|sight| sight.tasks_max);
                let before = before.map_or(Before::Nothing, Before::Number);
                self.record(by, Logged::Property { unit: unit.clone(), name, value }, before)?;
                systemd.set_property(&unit, name, value).await?;
            }
            Change::Rlimits { unit, processes } => {
                let old = |wanted: &ProcessLimit| {
                    let limit = kernel::process(wanted.pid).ok()??.limit(wanted.started, wanted.rlimit)?;
                    Some(ProcessLimit { limit, ..wanted.clone() })
                };
                let before = Before::Limits(processes.iter().filter_map(old).collect());
                self.record(by, Logged::Rlimits { unit, processes: processes.clone() }, before)?;
                for process in &processes {
                    kernel::set_limit(process)?;
                }
            }
            // A job alone (undo makes them so) is a queue of one.
            Change::Job { unit, verb } => {
                self.run_jobs(&[(by, unit, verb)]).await?.into_iter().collect::<Result<Vec<()>, _>>()?;
            }
        }
        Ok(())
    }

    /// Makes Changes one after the other, jobs included: undo goes strictly backwards.
    pub(super) async fn make_in_order(&mut self, by: By<'_>, changes: Vec<Change>) -> Result<(), Fault> {
        for change in changes {
            self.make(by, change).await?;
        }
        Ok(())
    }

    fn put(&mut self, by: By<'_>, path: &RootPath, body: Body, meta: Meta) -> Result<(), Fault> {
        let credential = matches!(body, Body::Credential(_));
        let before = self.entry_before(path, !credential)?;
        let logged = |sha256| Logged::Put { path: path.clone(), sha256, meta, credential };
        match body {
            Body::Bytes(bytes) => {
                self.record(by, logged(Sha256::of(&bytes)), before)?;
                self.host.root.put(path, &bytes, meta)?;
            }
            Body::Credential(bytes) => {
                self.record(by, logged(Sha256::of(&bytes)), before)?;
                self.host.root.put(path, &bytes, meta)?;
            }
            Body::Kept(sha256) => {
                self.record(by, logged(sha256.clone()), before)?;
                self.ledger.restore(&sha256, path, meta)?;
            }
            Body::Scratch { from, sha256 } => {
                self.record(by, logged(sha256), before)?;
                self.host.root.place(&from, path, meta)?;
            }
            Body::Receipt { trust, archive, images, files } => {
                let receipt = Receipt { archive, images, ..self.receipt(trust, &files)? };
                let mut bytes = serde_json::to_vec_pretty(&receipt).map_err(CannotEncode)?;
                bytes.push(b'\n');
                self.record(by, logged(Sha256::of(&bytes)), before)?;
                self.host.root.put(path, &bytes, meta)?;
            }
        }
        Ok(())
    }

    /// Copies a file as it is now, and says so: whoever wrote it will look for it.
    fn keep_aside(&mut self, by: By<'_>, path: &RootPath) -> Result<(), Fault> {
        let Entry::File { meta, bytes: Some(bytes), .. } = self.host.root.entry(path, true)? else { return Ok(()) };
        let to = aside(path, &Sha256::of(&bytes));
        // A run that was killed before it replaced the file has kept it already.
        if self.host.root.entry(&to, false)? == Entry::Absent {
            self.put(by, &to, Body::Bytes(bytes.into_vec()), meta)?;
        }
        self.tell.tell(&Event::KeptAside { path: &self.host.root.display(path), to: &self.host.root.display(&to) });
        Ok(())
    }

    fn receipt(&self, trust: String, files: &[(RootPath, Sha256)]) -> Result<Receipt, Fault> {
        let mut receipt =
            Receipt { trust, archive: None, images: Vec::new(), files: std::collections::BTreeMap::new() };
        for (path, sha256) in files {
            let Entry::File { stamp, .. } = self.host.root.entry(path, false)? else {
                return Err(CommitError::NothingToReceipt { path: self.host.root.display(path) }.into());
            };
            receipt.files.insert(path.name().to_owned(), Verified { sha256: sha256.clone(), stamp });
        }
        Ok(receipt)
    }

    fn block(&mut self, by: By<'_>, path: &RootPath, lines: Vec<String>) -> Result<(), Fault> {
        let root = &self.host.root;
        let (text, meta, before) = match root.entry(path, true)? {
            Entry::Absent => (Vec::new(), Meta::FILE, Before::Absent),
            Entry::File { meta, bytes, .. } => {
                let text = bytes.map(FileBytes::into_vec).unwrap_or_default();
                let before = Before::Lines(block::lines(&text));
                (text, meta, before)
            }
            other => return Err(self.in_the_way(path, &other).into()),
        };
        self.record(by, Logged::Block { path: path.clone(), lines: lines.clone() }, before)?;
        Ok(self.host.root.put(path, &block::with_lines(&text, &lines), meta)?)
    }

    /// What is at a path before a Change. Its bytes are kept unless they are secret.
    fn entry_before(&self, path: &RootPath, keep: bool) -> Result<Before, Fault> {
        let root = &self.host.root;
        Ok(match root.entry(path, false)? {
            Entry::Absent => Before::Absent,
            Entry::Link(to) => Before::Link { to },
            Entry::Dir(meta) => Before::Dir { meta },
            Entry::File { meta, .. } if !keep => Before::DigestOnly { meta },
            Entry::File { meta, .. } => Before::Kept { sha256: self.ledger.keep(path)?, meta },
            other @ Entry::Other(_) => return Err(self.in_the_way(path, &other).into()),
        })
    }

    fn in_the_way(&self, path: &RootPath, entry: &Entry) -> CommitError {
        let what = match entry {
            Entry::Dir(_) => "directory",
            Entry::Link(_) => "link",
            Entry::Other(what) => what,
            Entry::Absent | Entry::File { .. } => "file",
        };
        CommitError::InTheWay { path: self.host.root.display(path), what }
    }

    /// Announces a Change: it is on the disk when this returns.
    fn record(&mut self, by: By<'_>, change: Logged, before: Before) -> Result<(), LedgerError> {
        let run = self.announce()?;
        let made = Made {
            seq: self.ledger.next_seq(),
            run,
            boot: self.boot.clone(),
            id: by.id.clone(),
            change,
            before,
            owes: by.owes.to_vec(),
        };
        self.ledger.append(Record::Change(Box::new(made)))
    }

    /// Records the run itself, once.
    fn announce(&mut self) -> Result<u64, LedgerError> {
        if let Some(run) = self.run {
            return Ok(run);
        }
        let run = self.ledger.next_run();
        self.ledger.append(Record::Run {
            run,
            boot: self.boot.clone(),
            at: clock::seconds(clock::now()),
            command: self.command.to_owned(),
            config: self.config.clone(),
        })?;
        self.run = Some(run);
        Ok(run)
    }
}
