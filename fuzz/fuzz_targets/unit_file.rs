//! Any text as a unit file, and what stands behind its first null byte as another: each prints as it was, and only files
//! of the same text have no differences.
#![no_main]

use libfuzzer_sys::fuzz_target;
use nodeagent::engine::unitfile::{UnitFile, differences};

fuzz_target!(|text: &str| {
    let (one, two) = text.split_once('\0').unwrap_or((text, text));
    let (first, second) = (UnitFile::parse(one), UnitFile::parse(two));
    assert_eq!(first.to_string(), one);
    assert_eq!(second.to_string(), two);
    assert_eq!(differences(&first, &second).is_empty(), one == two);
});
