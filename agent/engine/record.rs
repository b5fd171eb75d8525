//! The ledger's records, and the lines that they are.
//!
//! Each record is one line: eight hexadecimal digits of CRC-32 (the one of zlib and gzip) over the JSON that follows a
//! space.

use serde::{Deserialize, Serialize};

use super::change::{Debt, Meta, ProcessLimit, PropertyName, Verb};
use super::id::Id;
use crate::config::values::{ModuleName, RootPath, Sha256, SysctlKey, UnitName};

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

/// A line that is not what was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// Where it begins, in bytes.
    pub offset: usize,
    /// What is wrong with it.
    pub why: String,
}

/// The records in `bytes`, and how many bytes they are: what follows is a torn tail.
///
/// A last line without its newline is torn. So is a last line whose checksum is wrong: a power cut can leave the length
/// of an append without its data. A bad line with a good one behind it is damage.
pub fn parse(bytes: &[u8]) -> Result<(Vec<Record>, usize), Damage> {
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
                return Err(Damage { offset, why });
            }
            Err(Bad::Damaged(why)) => {
                let more =
                    rest[end + 1..].split(|b| *b == b'\n').any(|line| !matches!(decode(line), Err(Bad::Damaged(_))));
                if more {
                    return Err(Damage { offset, why });
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

/// Why a line is no record.
#[derive(Debug)]
enum Bad {
    /// It is not what was written.
    Damaged(String),
    /// It is what was written, but by whom?
    Unknown(String),
}

/// The record in a line without its line break.
fn decode(line: &[u8]) -> Result<Record, Bad> {
    let text = std::str::from_utf8(line).map_err(|e| Bad::Damaged(e.to_string()))?;
    let (sum, json) = text.split_once(' ').ok_or_else(|| Bad::Damaged("it has no checksum".to_owned()))?;
    // As text: a number has several spellings, and only one of them was written here.
    if sum != checksum(json) {
        return Err(Bad::Damaged("its checksum does not match".to_owned()));
    }
    serde_json::from_str(json).map_err(|e| Bad::Unknown(e.to_string()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::engine::id::Step;

    #[test]
    fn a_checksum_has_one_spelling() {
        let line = encode(&Record::Resume).expect("a line");
        let text = String::from_utf8(line).expect("text");
        let (sum, json) = text.trim_end().split_once(' ').expect("a checksum");
        assert!(decode(text.trim_end().as_bytes()).is_ok());
        for other in
            [sum.to_uppercase().replace(|c: char| c.is_ascii_digit(), "0"), format!("+{sum}"), format!("0{sum}")]
        {
            assert!(decode(format!("{other} {json}").as_bytes()).is_err(), "{other}");
        }
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
            let (read, good) = parse(&whole).expect("what was written");
            prop_assert_eq!((&read, good), (&records, whole.len()));

            let cut = cut.index(whole.len());
            let (read, good) = parse(&whole[..cut]).expect("a torn tail is no damage");
            let whole_lines = whole[..cut].split(|byte| *byte == b'\n').count() - 1;
            prop_assert_eq!(&read[..], &records[..whole_lines]);
            prop_assert_eq!(good, lines[..whole_lines].concat().len());
        }

        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&bytes);
        }
    }
}
