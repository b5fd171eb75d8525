//! The ledger, as its bytes and as lines that get a good checksum here: what is accepted is a prefix, reads back as the
//! same records, and can be asked everything; what is damaged is named by the start of a line.
#![no_main]

use libfuzzer_sys::fuzz_target;
use nodeagent::engine::record::{self, Record};
use nodeagent::engine::{compaction, history};

fuzz_target!(|data: &[u8]| {
    check(data);
    let lines = String::from_utf8_lossy(data);
    let lines = lines.lines().map(|line| {
        let json = line.split_once(' ').map_or(line, |(_, json)| json);
        format!("{:08x} {json}\n", crc32fast::hash(json.as_bytes()))
    });
    check(lines.collect::<String>().as_bytes());
});

fn check(bytes: &[u8]) {
    match record::parse(bytes) {
        Ok((records, good)) => {
            assert!(good <= bytes.len());
            assert!(good == 0 || bytes[good - 1] == b'\n');
            assert_eq!(records.len(), bytes[..good].iter().filter(|byte| **byte == b'\n').count());
            let written = records.iter().flat_map(|record| record::encode(record).expect("a record"));
            let written: Vec<u8> = written.collect();
            assert_eq!(record::parse(&written).expect("what was written").0, records);
            ask(&records);
        }
        Err(record::Damage { offset, .. }) => {
            assert!(offset == 0 || bytes[offset - 1] == b'\n', "byte {offset} begins no line");
        }
    }
}

fn ask(records: &[Record]) {
    let _ = (history::debts(records, "boot-1"), history::hold(records), history::is_point(records, 1));
    let changes = history::changes(records).count();
    assert!(history::last_run(records).len() <= changes);
    assert!(history::since(records, 0).len() <= changes);
    assert!(history::leftovers(records).len() <= changes);
    assert!(history::changes(&compaction::compacted(records)).count() <= changes);
}
