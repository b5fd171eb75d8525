//! A certificate request: what is signed for it is a node's, with names of its own and no others.
#![no_main]

use libfuzzer_sys::fuzz_target;
use nodeagent::certs::asked::Asked;

fuzz_target!(|data: &[u8]| {
    let Ok(asked) = Asked::read(data) else { return };
    match asked.wanted() {
        Ok(wanted) => {
            let node = wanted.common_name.strip_prefix("system:node:");
            assert_eq!(wanted.organization.as_deref(), node.map(|_| "system:nodes"));
            assert!(node.is_some() || wanted.common_name == "system:kube-proxy", "{wanted:?}");
            assert!(wanted.dns.iter().all(|name| Some(name.as_str()) == node), "{wanted:?}");
        }
        Err(error) => assert!(!error.to_string().contains(char::is_control), "{error}"),
    }
});
