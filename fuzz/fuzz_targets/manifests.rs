//! Files of objects for the cluster: each object has a line that exists, or the file is refused in one line.
#![no_main]

use libfuzzer_sys::fuzz_target;
use nodeagent::config::Source;
use nodeagent::config::manifests::manifests;

fuzz_target!(|data: &[u8]| {
    let source = Source { name: "x.yaml".to_owned(), text: data.to_vec() };
    let lines = data.iter().filter(|byte| matches!(byte, b'\n' | b'\r')).count() + 1;
    match manifests(&source) {
        Ok(all) => {
            for manifest in &all {
                assert!((1..=lines + 1).contains(&manifest.line), "{manifest:?}: of {lines} lines");
            }
            assert_eq!(manifests(&source).expect("the same again"), all, "two readings differ");
        }
        Err(problem) => {
            assert!((1..=lines + 1).contains(&problem.line), "{problem}: of {lines} lines");
            assert!(!problem.to_string().contains(char::is_control), "{problem:?} is more than one line of text");
        }
    }
});
