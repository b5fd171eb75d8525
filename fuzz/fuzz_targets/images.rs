//! Archives of container images: a name that is read is safe as an argument; an error is one line.
#![no_main]

use libfuzzer_sys::fuzz_target;
use nodeagent::install::images::names;

fuzz_target!(|bytes: &[u8]| match names(bytes) {
    Ok(names) => {
        assert!(!names.is_empty() && names.is_sorted());
        for name in names {
            assert!(!name.starts_with('-') && name.bytes().all(|b| b.is_ascii_graphic()), "{name:?}");
        }
    }
    Err(error) => {
        let said = error.to_string();
        assert!(!said.contains('\n') && said.len() < 20_000, "{said:?}");
    }
});
