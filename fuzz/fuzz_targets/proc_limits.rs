//! `/proc/PID/limits`: at most one row of each kind, and the kernel's own text for what was read reads back.
#![no_main]

use libfuzzer_sys::fuzz_target;
use nodeagent::config::settings::Rlimit;
use nodeagent::host::kernel::parse_limits;

fuzz_target!(|text: &str| {
    let rows = parse_limits(text);
    assert!(rows.len() <= Rlimit::ALL.len());
    let number = |value: u64| if value == u64::MAX { "unlimited".to_owned() } else { value.to_string() };
    let line = |(limit, soft, hard): &(Rlimit, u64, u64)| {
        format!("{:<25} {:<20} {:<20} units\n", limit.proc_row(), number(*soft), number(*hard))
    };
    assert_eq!(parse_limits(&rows.iter().map(line).collect::<String>()), rows);
});
