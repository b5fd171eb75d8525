//! `node.yaml` and its drop-ins: every problem has a place that exists, is one line, and what is accepted can be
//! planned, whose waits can be waited for.
#![no_main]

use libfuzzer_sys::fuzz_target;
use nodeagent::config::{Settings, Source, load};
use nodeagent::host::facts::Facts;
use nodeagent::identity::Identity;
use nodeagent::wait::target::Target;

/// Between one file and the next: a byte that is in no YAML.
const NEXT_FILE: u8 = 0xff;

fuzz_target!(|data: &[u8]| {
    let sources: Vec<Source> = data
        .split(|byte| *byte == NEXT_FILE)
        .enumerate()
        .map(|(at, text)| Source { name: format!("{at}.yaml"), text: text.to_vec() })
        .collect();
    match load(sources.clone()) {
        Err(errors) => {
            assert!(!errors.problems().is_empty(), "refused without a reason");
            for problem in errors.problems() {
                let source = sources.iter().find(|source| source.name == problem.file).expect("a file that was given");
                let lines = source.text.iter().filter(|byte| matches!(byte, b'\n' | b'\r')).count() + 1;
                assert!((1..=lines + 1).contains(&problem.line), "{problem}: of {lines} lines");
                assert!(problem.column >= 1, "{problem}");
                let shown = problem.to_string();
                assert!(!shown.contains(char::is_control), "{shown:?} is more than one line of text");
            }
        }
        Ok(settings) => plan(&settings, load(sources).expect("the same again").digest == settings.digest),
    }
});

fn plan(settings: &Settings, same: bool) {
    assert!(same, "two readings differ");
    let (host, port) = nodeagent::identity::peers(&settings.cluster).remove(0);
    let wait = format!("tcp://{}", Facts::peer_key(&host, port));
    assert!(wait.parse::<Target>().is_ok(), "units wait for {wait:?}, and wait refuses it");
    nodeagent::steps::plan(settings, &Facts::sample(), &Identity::sample());
}
