//! The lock file: what is accepted is printed and reads back; no path in it leads out of a mirror; what is refused is
//! refused in one short line.
#![no_main]

use libfuzzer_sys::fuzz_target;
use nodeagent::install::lock::Lock;

fuzz_target!(|bytes: &[u8]| match Lock::parse(bytes) {
    Ok(lock) => {
        assert_eq!(Lock::parse(&lock.print()).as_ref(), Ok(&lock));
        for (architecture, name, locked) in lock.files() {
            let path = locked.path.as_str();
            assert!(!path.starts_with('/') && !path.split('/').any(|part| part.is_empty() || part == ".."), "{path:?}");
            assert_eq!(lock.find(name, locked.version.as_str(), architecture), Ok(locked));
        }
    }
    Err(error) => {
        let said = error.to_string();
        assert!(said.len() < 2000 && !said.contains(char::is_control), "{said:?}");
    }
});
