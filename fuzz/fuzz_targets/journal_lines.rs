//! What `journalctl -o json` prints: any bytes give short lines without anything that a terminal obeys.
#![no_main]

use libfuzzer_sys::fuzz_target;
use nodeagent::host::systemd::report::parse;

fuzz_target!(|data: &[u8]| {
    for line in parse(data) {
        assert!(!line.is_empty() && line.chars().count() <= 301 && !line.contains(char::is_control), "{line:?}");
    }
});
