//! A target of `nodeagent wait`: its text reads back as the same target, and a refusal shows what was refused. The same
//! text as its `--status`: it reads back as the same statuses.
#![no_main]

use libfuzzer_sys::fuzz_target;
use nodeagent::wait::http::Statuses;
use nodeagent::wait::target::Target;

fuzz_target!(|text: &str| {
    match text.parse::<Target>() {
        Ok(target) => assert_eq!(target.to_string().parse(), Ok(target)),
        Err(error) => {
            let shown = error.to_string();
            assert!(!shown.contains(char::is_control), "{shown:?}");
            assert!(shown.contains(&format!("{text:?}")), "{shown:?}");
        }
    }
    if let Ok(statuses) = text.parse::<Statuses>() {
        assert_eq!(statuses.to_string().parse(), Ok(statuses));
    }
});
