//! What a mirror says of the bytes that it sends: what is made of it is never more than it said, and can be sent back.
#![no_main]

use std::time::{Duration, SystemTime};

use libfuzzer_sys::fuzz_target;
use nodeagent::host::fetch::answer::{content_range, retry_after, validator};

fuzz_target!(|text: &str| {
    if let Some(range) = content_range(text) {
        if let Some(total) = range.total {
            assert!(range.from < total, "{text:?}: {range:?}");
            let again = format!("bytes {}-{}/{total}", range.from, total - 1);
            assert_eq!(content_range(&again), Some(range), "{text:?}");
        }
    }
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
    if let Some(pause) = retry_after(text, now) {
        let again = retry_after(&pause.as_secs().to_string(), now);
        assert_eq!(again.map(|again| again.as_secs()), Some(pause.as_secs()), "{text:?}");
    }
    for (etag, modified) in [(Some(text), None), (None, Some(text)), (Some(text), Some(text))] {
        if let Some(name) = validator(etag, modified) {
            assert!(name.len() <= 200 && name.bytes().all(|b| (b' '..=b'~').contains(&b)), "{text:?}: {name:?}");
            assert!(text.contains(name), "{text:?}: {name:?}");
            assert_eq!(validator(Some(name), Some(name)), Some(name), "{text:?}");
        }
    }
});
