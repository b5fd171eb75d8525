//! Our block in any file: it reads back, writing it again changes nothing, and nothing of others is lost.
#![no_main]

use libfuzzer_sys::fuzz_target;
use nodeagent::engine::block::{lines, with_lines};

const MARK: &[u8] = b"# BEGIN nodeagent (this block is rewritten; put your own lines outside)";

fuzz_target!(|data: &[u8]| {
    let ours = ["10.10.30.21 worker-01".to_owned()];
    let once = with_lines(data, &ours);
    assert_eq!(lines(&once).as_deref(), Some(&ours[..]));
    assert_eq!(with_lines(&once, &ours), once);
    let without = with_lines(&once, &[]);
    if lines(data).is_none() {
        assert!(without.starts_with(data) && without.len() <= data.len() + 1);
    }
    // Another block, if a file holds several, is the only thing that may be left of ours.
    assert!(lines(&without).is_none() || without.windows(MARK.len()).any(|part| part == MARK));
});
