//! A pair's file and a CA file, a zero byte between them: what is good is good again after it was written by us, and
//! judging never fails.
#![no_main]

use std::time::{Duration, UNIX_EPOCH};

use libfuzzer_sys::fuzz_target;
use nodeagent::certs::authority::Authority;
use nodeagent::certs::check::check;
use nodeagent::certs::key::Key;
use nodeagent::certs::request::{Usage, Wanted};
use nodeagent::config::settings::KeyKind;
use nodeagent::config::values::RootPath;

fuzz_target!(|data: &[u8]| {
    let now = UNIX_EPOCH + Duration::from_secs(1_795_219_200);
    let (pair, ca_file) = match data.iter().position(|byte| *byte == 0) {
        Some(at) => (&data[..at], &data[at + 1..]),
        None => (data, data),
    };
    if let Ok(key) = Key::from_pem(pair) {
        let written = key.to_pem().expect("a key that was read can be written");
        let again = Key::from_pem(&written).expect("what was written can be read");
        assert_eq!(*again.to_pem().expect("and written"), *written);
    }
    let path = RootPath::literal("/etc/kubernetes/pki/ca.pem");
    match Authority::read(&path, Some(ca_file), now) {
        Err(error) => assert!(error.to_string().contains(path.as_str())),
        Ok(ca) => {
            let written = ca.pem();
            let again = Authority::read(&path, Some(written), now).expect("what was written can be read");
            assert_eq!(again.pem(), written);
            let wanted = Wanted {
                common_name: "system:node:worker-01".to_owned(),
                organization: Some("system:nodes".to_owned()),
                dns: vec!["worker-01".to_owned()],
                ips: vec!["10.10.30.21".parse().expect("an address")],
                usages: vec![Usage::Server],
                key: KeyKind::default(),
            };
            for flaw in check(Some(pair), &wanted, &ca, now) {
                let _ = (flaw.to_string(), flaw.delta());
            }
        }
    }
});
