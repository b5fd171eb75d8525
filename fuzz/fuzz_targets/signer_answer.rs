//! What a cfssl server or an API server answers: a certificate's text as it was sent, or an error that names the server or
//! the request.
#![no_main]

use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use nodeagent::certs::request::{Usage, Wanted};
use nodeagent::certs::signer::{Cfssl, Kubernetes, Profile};
use nodeagent::config::settings::KeyKind;
use nodeagent::config::values::RootPath;
use nodeagent::engine::fault::Explain;

fuzz_target!(|data: &[u8]| {
    let Ok(answer) = serde_json::from_slice::<serde_json::Value>(data) else { return };
    let cfssl = Cfssl {
        url: "https://10.10.30.11:8888".parse().expect("a URL"),
        auth_key_file: RootPath::literal("/etc/nodeagent/cfssl.key"),
        profile: "client".to_owned(),
    };
    match cfssl.certificate(&answer) {
        Ok(pem) => assert_eq!(answer["result"]["certificate"].as_str().map(str::as_bytes), Some(pem.as_slice())),
        Err(error) => one_line(&error, "https://10.10.30.11:8888"),
    }
    match kubernetes().verdict("worker-01-kubelet-client", &answer) {
        Ok(_) => assert!(answer["status"]["certificate"].is_string(), "{answer} has no certificate"),
        Err(error) => one_line(&error, "10.10.30.11:6443|worker-01-kubelet-client"),
    }
});

/// One short line that names one of the objects, and says what to do.
fn one_line(error: &impl Explain, objects: &str) {
    let shown = error.to_string();
    assert!(objects.split('|').any(|object| shown.contains(object)) && error.advice().is_some(), "{shown:?}");
    assert!(!shown.contains(char::is_control), "{shown:?} is more than one line of text");
    assert!(shown.len() < 2000, "{} bytes of error", shown.len());
}

fn kubernetes() -> Kubernetes {
    Kubernetes {
        url: "https://10.10.30.11:6443".parse().expect("a URL"),
        profile: Profile::Node,
        label: "worker-01-kubelet-client".to_owned(),
        token_file: RootPath::literal("/etc/nodeagent/bootstrap-token"),
        client: RootPath::literal("/etc/kubernetes/pki/kubelet-client.pem"),
        node: Wanted {
            common_name: "system:node:worker-01".to_owned(),
            organization: Some("system:nodes".to_owned()),
            dns: Vec::new(),
            ips: Vec::new(),
            usages: vec![Usage::Client],
            key: KeyKind::default(),
        },
        release: "v1.34.2".parse().expect("a version"),
        deadline: Duration::from_mins(5),
    }
}
