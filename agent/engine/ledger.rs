//! The ledger: the crash-safe record of every Change made here and of what was there before.
//!
//! `/var/lib/nodeagent/ledger` is append-only, a line per [`Record`]. A record is on the disk before the Change that it
//! announces is made, so after a kill the last record may announce what was not done: diff and [`super::undo`] look at
//! the machine and find out. A tail that a power cut tore is dropped; a bad line anywhere else is an error, never guessed
//! at.
//!
//! The bytes that a Change replaced are kept beside it, in `kept/`, under their digest. What the records mean together is
//! in [`super::history`].

use std::fs::File;
use std::io::{Read as _, Write as _};

use super::change::Meta;
use super::fault::Explain;
use super::record::{self, Before, Damage, Record, encode};
use super::{compaction, history};
use crate::config::values::{RootPath, Sha256};
use crate::host::digest;
use crate::host::root::{self, FileError, Root};

/// From this size on the ledger is compacted when it is opened, in bytes: some hundred bootstraps that changed something.
const COMPACT_FROM: u64 = 256 << 10;

/// Where the ledger and the kept originals are.
pub const DIR: &str = "/var/lib/nodeagent";

/// The ledger cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// Reading or writing it failed.
    #[error(transparent)]
    File(#[from] FileError),
    /// Reading or writing the opened file failed.
    #[error("{doing} ledger {path}: {source}")]
    Io {
        /// What was being done.
        doing: &'static str,
        /// The file.
        path: String,
        /// The cause.
        source: std::io::Error,
    },
    /// A record is not what was written.
    #[error("read ledger {path}: the record at byte {offset} is damaged: {why}")]
    Corrupt {
        /// The file.
        path: String,
        /// Where the bad line begins.
        offset: usize,
        /// What is wrong with it.
        why: String,
    },
    /// Bytes that undo needs are not there.
    #[error("read kept original {path}: {why}")]
    Kept {
        /// The file.
        path: String,
        /// What is wrong with it.
        why: &'static str,
    },
}

impl Explain for LedgerError {
    fn advice(&self) -> Option<String> {
        match self {
            Self::File(error) => error.advice(),
            Self::Io { source, .. } => root::advice(source),
            Self::Corrupt { path, .. } => Some(format!(
                "nothing was changed; keep a copy of {path} and move it away: bootstrap then goes on, but what was done before cannot be undone"
            )),
            Self::Kept { .. } => Some("that file cannot be restored; everything else can".to_owned()),
        }
    }
}

/// The opened ledger: its records, and the file that they are appended to.
pub struct Ledger {
    root: Root,
    file: File,
    path: RootPath,
    records: Vec<Record>,
    /// A line that could be neither finished nor taken back stands at the end.
    torn: bool,
}

/// All records of the ledger, without opening it for writing. None if there is no ledger yet.
pub fn read(root: &Root) -> Result<Vec<Record>, LedgerError> {
    let path = path();
    let Some(bytes) = root.read(&path)? else { return Ok(Vec::new()) };
    parse(&bytes, root).map(|(records, _)| records)
}

fn path() -> RootPath {
    RootPath::literal(DIR).join("ledger")
}

/// The records in the ledger's bytes, and how many bytes they are.
fn parse(bytes: &[u8], root: &Root) -> Result<(Vec<Record>, usize), LedgerError> {
    record::parse(bytes).map_err(|Damage { offset, why }| {
        let path = root.display(&path());
        LedgerError::Corrupt { path, offset, why }
    })
}

fn kept(sha256: &Sha256) -> RootPath {
    RootPath::literal(DIR).join("kept").join(sha256.as_str())
}

impl Ledger {
    /// Opens the ledger for writing, makes it if there is none, and drops a torn tail. The caller holds the lock.
    pub fn open(root: &Root) -> Result<Self, LedgerError> {
        let dir = RootPath::literal(DIR);
        root.make_own_dirs(&dir, Meta::root(0o700))?;
        root.make_own_dirs(&dir.join("kept"), Meta::root(0o700))?;
        root.remove_temporaries(&dir)?;
        root.remove_temporaries(&dir.join("kept"))?;
        let path = path();
        let mut file = root.open_append(&path)?;
        let fail = |doing| {
            let path = root.display(&path);
            move |source| LedgerError::Io { doing, path, source }
        };
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(fail("read"))?;
        let (records, good) = parse(&bytes, root)?;
        if good < bytes.len() {
            file.set_len(good as u64).map_err(fail("drop the torn tail of"))?;
            file.sync_all().map_err(fail("sync"))?;
        }
        Ok(Self { root: root.clone(), file, path, records, torn: false })
    }

    /// Makes the ledger small again if it has grown, by replacing it whole: a kill leaves the old one or the new one.
    ///
    /// The bytes that no record names any more are removed afterwards; a kill in between leaves some, which the next
    /// compaction removes.
    pub fn compact_if_large(&mut self, boot: &str) -> Result<(), LedgerError> {
        let path = self.root.display(&self.path);
        let fail = |doing: &'static str| {
            let path = path.clone();
            move |source: std::io::Error| LedgerError::Io { doing, path, source }
        };
        if self.file.metadata().map_err(fail("stat"))?.len() < COMPACT_FROM
            || !history::debts(&self.records, boot).is_empty()
            || history::interrupted_undoing(&self.records).is_some()
        {
            return Ok(());
        }
        self.replace(compaction::compacted(&self.records))
    }

    /// Replaces all records.
    pub(super) fn replace(&mut self, records: Vec<Record>) -> Result<(), LedgerError> {
        let path = self.root.display(&self.path);
        let mut bytes = Vec::new();
        for record in &records {
            let encoded = encode(record);
            bytes.extend(encoded.map_err(|e| LedgerError::Io {
                doing: "encode a record of",
                path: path.clone(),
                source: e.into(),
            })?);
        }
        self.root.put(&self.path, &bytes, Meta::SECRET)?;
        self.file = self.root.open_append(&self.path)?;
        self.records = records;
        let dir = RootPath::literal(DIR).join("kept");
        for name in self.root.list(&dir)? {
            let named = history::changes(&self.records)
                .any(|made| matches!(&made.before, Before::Kept { sha256, .. } if sha256.as_str() == name));
            if let Some(path) = dir.child(&name).filter(|_| !named) {
                self.root.remove(&path)?;
            }
        }
        Ok(())
    }

    /// All records.
    pub fn records(&self) -> &[Record] {
        &self.records
    }

    /// The number that the next Change gets.
    pub fn next_seq(&self) -> u64 {
        history::changes(&self.records).map(|made| made.seq.saturating_add(1)).max().unwrap_or(1)
    }

    /// The number that the next run gets.
    pub fn next_run(&self) -> u64 {
        let runs = self.records.iter().filter_map(|r| if let Record::Run { run, .. } = r { Some(*run) } else { None });
        runs.max().unwrap_or(0).saturating_add(1)
    }

    /// Appends a record; it is on the disk when this returns.
    pub fn append(&mut self, record: Record) -> Result<(), LedgerError> {
        let path = self.root.display(&self.path);
        let fail = |doing: &'static str| {
            let path = path.clone();
            move |source| LedgerError::Io { doing, path, source }
        };
        if self.torn {
            return Err(fail("append to")(std::io::Error::other("an earlier record could not be written whole")));
        }
        let line = encode(&record).map_err(|e| fail("encode a record of")(e.into()))?;
        let before = self.file.metadata().map_err(fail("stat"))?.len();
        if let Err(source) = self.file.write_all(&line).and_then(|()| self.file.sync_data()) {
            // A half-written line must not have a good one appended to it: that would be damage in the middle.
            self.torn = self.file.set_len(before).is_err();
            return Err(fail("append to")(source));
        }
        self.records.push(record);
        Ok(())
    }

    /// Keeps a file that is about to be replaced, whatever its size; its bytes are on the disk when this returns.
    pub fn keep(&self, path: &RootPath) -> Result<Sha256, LedgerError> {
        let name = self.root.display(path);
        let sha256 = digest(&self.root, path)?.ok_or(LedgerError::Kept { path: name, why: "it vanished" })?;
        if digest(&self.root, &kept(&sha256))?.as_ref() != Some(&sha256) {
            self.copy(path, &kept(&sha256), &sha256, Meta::SECRET)?;
        }
        Ok(sha256)
    }

    /// Puts kept bytes in place, atomically and durably.
    pub fn restore(&self, sha256: &Sha256, path: &RootPath, meta: Meta) -> Result<(), LedgerError> {
        self.copy(&kept(sha256), path, sha256, meta)
    }

    fn copy(&self, from: &RootPath, to: &RootPath, sha256: &Sha256, meta: Meta) -> Result<(), LedgerError> {
        let copied = match self.root.copy(from, to, sha256, meta) {
            Err(error) if error.is_absent() => Err("it is not there"),
            other => other?.then_some(()).ok_or("its bytes are not the ones that were recorded"),
        };
        copied.map_err(|why| LedgerError::Kept { path: self.root.display(from), why })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::disallowed_methods, reason = "tests prepare their own files")]
    use super::*;
    use crate::engine::change::Debt;
    use crate::engine::id::{Id, Step};
    use crate::engine::record::{Logged, Made};

    fn ledger_in(dir: &tempfile::TempDir) -> (Root, Ledger) {
        let root = Root::open(dir.path()).expect("open the root");
        let ledger = Ledger::open(&root).expect("open the ledger");
        (root, ledger)
    }

    fn change(seq: u64, run: u64, owes: Vec<Debt>) -> Record {
        Record::Change(Box::new(Made {
            seq,
            run,
            boot: "boot-1".into(),
            id: Id::new(Step::Kernel, "x"),
            change: Logged::Remove { path: RootPath::literal("/x") },
            before: Before::Absent,
            owes,
        }))
    }

    fn run(run: u64, command: &str) -> Record {
        Record::Run { run, boot: "boot-1".into(), at: 0, command: command.into(), config: None }
    }

    #[test]
    fn what_is_appended_is_read_back() {
        let dir = tempfile::tempdir().expect("directory");
        let (root, mut ledger) = ledger_in(&dir);
        let records = vec![run(1, "bootstrap"), change(1, 1, vec![Debt::DaemonReload]), Record::End { done: true }];
        for record in &records {
            ledger.append(record.clone()).expect("append");
        }
        assert_eq!(read(&root).expect("read"), records);
        assert_eq!((ledger.next_seq(), ledger.next_run()), (2, 2));
    }

    #[test]
    fn every_torn_tail_is_dropped_and_every_damaged_middle_is_named() {
        let dir = tempfile::tempdir().expect("directory");
        let (root, mut ledger) = ledger_in(&dir);
        for record in [run(1, "bootstrap"), change(1, 1, vec![]), change(2, 1, vec![])] {
            ledger.append(record).expect("append");
        }
        let file = dir.path().join("var/lib/nodeagent/ledger");
        let whole = std::fs::read(&file).expect("ledger");
        let second = whole.iter().position(|b| *b == b'\n').expect("a line") + 1;
        let third = second + whole[second..].iter().position(|b| *b == b'\n').expect("a line") + 1;
        for cut in third..whole.len() {
            std::fs::write(&file, &whole[..cut]).expect("tear");
            let mut ledger = Ledger::open(&root).unwrap_or_else(|e| panic!("cut at {cut}: {e}"));
            assert_eq!(ledger.records().len(), 2, "cut at {cut}");
            ledger.append(Record::Resume).expect("append after the tear");
            assert_eq!(read(&root).expect("read").len(), 3, "cut at {cut}");
        }
        for at in second..third - 1 {
            let mut damaged = whole.clone();
            damaged[at] ^= 1;
            if damaged[at] == b'\n' {
                continue;
            }
            std::fs::write(&file, &damaged).expect("damage");
            let error = Ledger::open(&root).err().unwrap_or_else(|| panic!("damage at {at} was not seen"));
            assert!(error.to_string().contains(&format!("at byte {second}")), "damage at {at}: {error}");
        }
    }

    #[test]
    fn the_largest_numbers_have_a_successor() {
        let dir = tempfile::tempdir().expect("directory");
        let (_, mut ledger) = ledger_in(&dir);
        ledger.append(run(u64::MAX, "bootstrap")).expect("append");
        ledger.append(change(u64::MAX, u64::MAX, vec![])).expect("append");
        assert_eq!((ledger.next_seq(), ledger.next_run()), (u64::MAX, u64::MAX));
    }
}
