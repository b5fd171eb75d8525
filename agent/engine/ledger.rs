//! The ledger: the crash-safe record of every Change made here and of what was there before.
//!
//! `/var/lib/nodeagent/ledger` is append-only. Each record is one line: eight hexadecimal digits of CRC-32 (the one of
//! zlib and gzip) over the JSON that follows a space. A record is on the disk before the Change that it announces is
//! made, so after a kill the last record may announce what was not done: diff and [`super::undo`] look at the machine
//! and find out. A tail that a power cut tore is dropped; a bad line anywhere else is an error, never guessed at.
//!
//! The bytes that a Change replaced are kept beside it, in `kept/`, under their digest. What the records mean together is
//! in [`super::history`].

use std::fs::File;
use std::io::{Read as _, Write as _};

use serde::{Deserialize, Serialize};

use super::change::{Debt, Meta, ProcessLimit, PropertyName, Verb};
use super::fault::Explain;
use super::id::Id;
use super::{compaction, history};
use crate::config::values::{ModuleName, RootPath, Sha256, SysctlKey, UnitName};
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

/// What one line of the ledger says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "record", rename_all = "kebab-case")]
pub enum Record {
    /// A run of a command begins.
    Run {
        /// Its number, from 1.
        run: u64,
        /// The boot that it runs in.
        boot: String,
        /// When, in seconds since the epoch.
        at: u64,
        /// The command.
        command: String,
        /// Digest of the configuration.
        config: Option<Sha256>,
    },
    /// A Change is about to be made.
    Change(Box<Made>),
    /// A debt was paid.
    Paid {
        /// Which.
        debt: Debt,
    },
    /// The Change with this number was undone, as far as it could be.
    Undone {
        /// Its number.
        seq: u64,
        /// What it made is still there and still ours: a key without `--purge`, a directory that is not empty.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        stays: bool,
    },
    /// A rollback asks later bootstraps to do nothing while the configuration is this one.
    Hold {
        /// Digest of the configuration.
        config: Option<Sha256>,
        /// When, in seconds since the epoch.
        at: u64,
    },
    /// The hold was lifted by `--resume`.
    Resume,
    /// The run ended by itself.
    End {
        /// Whether everything succeeded.
        done: bool,
    },
}

/// A Change that was announced.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Made {
    /// Its number: unique, rising.
    pub seq: u64,
    /// The run that made it.
    pub run: u64,
    /// The boot that it was made in.
    pub boot: String,
    /// The resource that wanted it.
    pub id: Id,
    /// What was done.
    pub change: Logged,
    /// What was there before.
    pub before: Before,
    /// What units must be made to see.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub owes: Vec<Debt>,
}

/// A Change without its bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Logged {
    /// A file was put.
    Put {
        /// Where.
        path: RootPath,
        /// What is there since.
        sha256: Sha256,
        /// Mode and owner since.
        meta: Meta,
        /// A key or a certificate.
        credential: bool,
    },
    /// A link was put.
    Link {
        /// Where.
        path: RootPath,
        /// Its target.
        to: String,
    },
    /// One directory was made.
    Dir {
        /// Where.
        path: RootPath,
        /// Mode and owner.
        meta: Meta,
    },
    /// Our block in a shared file was written.
    Block {
        /// The shared file.
        path: RootPath,
        /// The lines between the marks.
        lines: Vec<String>,
    },
    /// A file, link or empty directory was removed.
    Remove {
        /// Where.
        path: RootPath,
    },
    /// A secret was removed.
    Destroy {
        /// Where.
        path: RootPath,
    },
    /// A sysctl was set.
    Sysctl {
        /// Which.
        key: SysctlKey,
        /// To what.
        value: String,
    },
    /// A module was loaded.
    Module {
        /// Which.
        name: ModuleName,
    },
    /// A property was set.
    Property {
        /// Whose.
        unit: UnitName,
        /// Which.
        name: PropertyName,
        /// To what.
        value: u64,
    },
    /// Resource limits of running processes were set.
    Rlimits {
        /// Whose processes.
        unit: UnitName,
        /// To what.
        processes: Vec<ProcessLimit>,
    },
    /// A job was queued.
    Job {
        /// Whose.
        unit: UnitName,
        /// Which.
        verb: Verb,
    },
}

/// What was there before a Change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Before {
    /// Nothing.
    Absent,
    /// A file whose bytes are kept.
    Kept {
        /// Their digest, which is also the kept file's name.
        sha256: Sha256,
        /// Mode and owner.
        meta: Meta,
    },
    /// A secret, or a file too large to keep: its bytes are gone.
    DigestOnly {
        /// Mode and owner.
        meta: Meta,
    },
    /// A link.
    Link {
        /// Its target.
        to: String,
    },
    /// A directory.
    Dir {
        /// Mode and owner.
        meta: Meta,
    },
    /// Our block's lines in a shared file; none if the file had no such block.
    Lines(Option<Vec<String>>),
    /// A sysctl's value.
    Value(String),
    /// A property's value.
    Number(u64),
    /// Resource limits of processes.
    Limits(Vec<ProcessLimit>),
    /// A unit's state.
    Unit {
        /// `ActiveState`.
        active: String,
        /// `InvocationID`: differs after each start.
        invocation: String,
    },
    /// Nothing that could be restored.
    Nothing,
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
    parse(&bytes, &root.display(&path)).map(|(records, _)| records)
}

fn path() -> RootPath {
    RootPath::literal(DIR).join("ledger")
}

fn kept(sha256: &Sha256) -> RootPath {
    RootPath::literal(DIR).join("kept").join(sha256.as_str())
}

/// The records in `bytes`, and how many bytes they are: what follows is a torn tail. `path` is for the error.
///
/// A last line without its newline is torn. So is a last line whose checksum is wrong: a power cut can leave the length
/// of an append without its data. A bad line with a good one behind it is damage.
pub fn parse(bytes: &[u8], path: &str) -> Result<(Vec<Record>, usize), LedgerError> {
    let mut records = Vec::new();
    let mut offset = 0;
    while offset < bytes.len() {
        let rest = &bytes[offset..];
        let Some(end) = rest.iter().position(|b| *b == b'\n') else { break };
        match decode(&rest[..end]) {
            Ok(record) => records.push(record),
            // Written whole, and not by this program: it must neither be dropped nor guessed at.
            Err(Bad::Unknown(why)) => {
                let why = format!("it was written by another version of nodeagent ({why})");
                return Err(LedgerError::Corrupt { path: path.to_owned(), offset, why });
            }
            Err(Bad::Damaged(why)) => {
                let more =
                    rest[end + 1..].split(|b| *b == b'\n').any(|line| !matches!(decode(line), Err(Bad::Damaged(_))));
                if more {
                    return Err(LedgerError::Corrupt { path: path.to_owned(), offset, why });
                }
                break;
            }
        }
        offset += end + 1;
    }
    Ok((records, offset))
}

/// A record as its line in the ledger.
pub fn encode(record: &Record) -> Result<Vec<u8>, serde_json::Error> {
    let json = serde_json::to_string(record)?;
    Ok(format!("{} {json}\n", checksum(&json)).into_bytes())
}

fn checksum(json: &str) -> String {
    format!("{:08x}", crc32fast::hash(json.as_bytes()))
}

/// The record in a line without its line break, or what is wrong with it.
/// Why a line is no record.
#[derive(Debug)]
enum Bad {
    /// It is not what was written.
    Damaged(String),
    /// It is what was written, but by whom?
    Unknown(String),
}

fn decode(line: &[u8]) -> Result<Record, Bad> {
    let text = std::str::from_utf8(line).map_err(|e| Bad::Damaged(e.to_string()))?;
    let (sum, json) = text.split_once(' ').ok_or_else(|| Bad::Damaged("it has no checksum".to_owned()))?;
    // As text: a number has several spellings, and only one of them was written here.
    if sum != checksum(json) {
        return Err(Bad::Damaged("its checksum does not match".to_owned()));
    }
    serde_json::from_str(json).map_err(|e| Bad::Unknown(e.to_string()))
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
        let (records, good) = parse(&bytes, &root.display(&path))?;
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
            if !named {
                self.root.remove(&dir.join(&name))?;
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
    use proptest::prelude::*;

    use super::*;
    use crate::engine::id::Step;

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
    fn a_checksum_has_one_spelling() {
        let line = encode(&run(1, "bootstrap")).expect("a line");
        let text = String::from_utf8(line).expect("text");
        let (sum, json) = text.trim_end().split_once(' ').expect("a checksum");
        assert!(decode(text.trim_end().as_bytes()).is_ok());
        for other in
            [sum.to_uppercase().replace(|c: char| c.is_ascii_digit(), "0"), format!("+{sum}"), format!("0{sum}")]
        {
            assert!(decode(format!("{other} {json}").as_bytes()).is_err(), "{other}");
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

    fn sha256() -> impl Strategy<Value = Sha256> {
        any::<[u8; 32]>().prop_map(|raw| Sha256::from_raw(&raw))
    }

    fn path() -> impl Strategy<Value = RootPath> {
        "(/\\PC{1,8}){1,3}".prop_filter_map("climbs", |text| text.parse().ok())
    }

    fn unit() -> impl Strategy<Value = UnitName> {
        "[a-zA-Z0-9:_.@-]{1,20}\\.(service|socket|slice)".prop_map(|text| UnitName::literal(&text))
    }

    fn meta() -> impl Strategy<Value = Meta> {
        any::<(u32, u32, u32)>().prop_map(|(mode, uid, gid)| Meta { mode, uid, gid })
    }

    fn debts_owed() -> impl Strategy<Value = Vec<Debt>> {
        prop::collection::vec(prop_oneof![Just(Debt::DaemonReload), unit().prop_map(Debt::Restart)], 0..3)
    }

    fn logged() -> impl Strategy<Value = Logged> {
        let verb = prop_oneof![Just(Verb::Start), Just(Verb::Stop), Just(Verb::Restart)];
        prop_oneof![
            (path(), sha256(), meta(), any::<bool>()).prop_map(|(path, sha256, meta, credential)| Logged::Put {
                path,
                sha256,
                meta,
                credential
            }),
            (path(), any::<String>()).prop_map(|(path, to)| Logged::Link { path, to }),
            (path(), meta()).prop_map(|(path, meta)| Logged::Dir { path, meta }),
            (path(), any::<Vec<String>>()).prop_map(|(path, lines)| Logged::Block { path, lines }),
            path().prop_map(|path| Logged::Remove { path }),
            path().prop_map(|path| Logged::Destroy { path }),
            ("[a-z0-9_]{1,9}(\\.[a-z0-9_/-]{1,9}[a-z]){1,3}", any::<String>())
                .prop_filter_map("a sysctl", |(key, value)| { Some(Logged::Sysctl { key: key.parse().ok()?, value }) }),
            "[a-z0-9_]{1,20}".prop_map(|name| Logged::Module { name: name.parse().expect("a module") }),
            (unit(), any::<u64>()).prop_map(|(unit, value)| Logged::Property {
                unit,
                name: PropertyName::TasksMax,
                value
            }),
            (unit(), verb).prop_map(|(unit, verb)| Logged::Job { unit, verb }),
        ]
    }

    fn before() -> impl Strategy<Value = Before> {
        prop_oneof![
            Just(Before::Absent),
            (sha256(), meta()).prop_map(|(sha256, meta)| Before::Kept { sha256, meta }),
            meta().prop_map(|meta| Before::DigestOnly { meta }),
            any::<String>().prop_map(|to| Before::Link { to }),
            meta().prop_map(|meta| Before::Dir { meta }),
            any::<Option<Vec<String>>>().prop_map(Before::Lines),
            any::<String>().prop_map(Before::Value),
            any::<u64>().prop_map(Before::Number),
            any::<(String, String)>().prop_map(|(active, invocation)| Before::Unit { active, invocation }),
            Just(Before::Nothing),
        ]
    }

    fn record() -> impl Strategy<Value = Record> {
        let step = prop::sample::select(&Step::ALL);
        let made = (any::<(u64, u64, String)>(), (step, any::<String>()), logged(), before(), debts_owed());
        prop_oneof![
            (any::<(u64, String, u64, String)>(), prop::option::of(sha256()))
                .prop_map(|((run, boot, at, command), config)| Record::Run { run, boot, at, command, config }),
            made.prop_map(|((seq, run, boot), (step, name), change, before, owes)| {
                Record::Change(Box::new(Made { seq, run, boot, id: Id::new(step, name), change, before, owes }))
            }),
            unit().prop_map(|unit| Record::Paid { debt: Debt::Restart(unit) }),
            any::<(u64, bool)>().prop_map(|(seq, stays)| Record::Undone { seq, stays }),
            (prop::option::of(sha256()), any::<u64>()).prop_map(|(config, at)| Record::Hold { config, at }),
            Just(Record::Resume),
            any::<bool>().prop_map(|done| Record::End { done }),
        ]
    }

    proptest! {
        #[test]
        fn records_are_read_back_up_to_any_tear(records in prop::collection::vec(record(), 1..5), cut in any::<prop::sample::Index>()) {
            let lines: Vec<Vec<u8>> = records.iter().map(|record| encode(record).expect("a line")).collect();
            let whole = lines.concat();
            let (read, good) = parse(&whole, "ledger").expect("what was written");
            prop_assert_eq!((&read, good), (&records, whole.len()));

            let cut = cut.index(whole.len());
            let (read, good) = parse(&whole[..cut], "ledger").expect("a torn tail is no damage");
            let whole_lines = whole[..cut].split(|byte| *byte == b'\n').count() - 1;
            prop_assert_eq!(&read[..], &records[..whole_lines]);
            prop_assert_eq!(good, lines[..whole_lines].concat().len());
        }

        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&bytes, "ledger");
        }
    }
}
