//! A cfssl server's answer: a certificate's text as it was sent, or an error that names the server.
#![no_main]

use libfuzzer_sys::fuzz_target;
use nodeagent::certs::signer::Cfssl;
use nodeagent::config::values::RootPath;
use nodeagent::engine::fault::Explain as _;

fuzz_target!(|data: &[u8]| {
    let Ok(answer) = serde_json::from_slice::<serde_json::Value>(data) else { return };
    let signer = Cfssl {
        url: "https://10.10.30.11:8888".parse().expect("a URL"),
        auth_key_file: RootPath::literal("/etc/nodeagent/cfssl.key"),
        profile: "client".to_owned(),
    };
    match signer.certificate(&answer) {
        Ok(pem) => assert_eq!(answer["result"]["certificate"].as_str().map(str::as_bytes), Some(pem.as_slice())),
        Err(error) => {
            let shown = error.to_string();
            assert!(shown.contains("https://10.10.30.11:8888") && error.advice().is_some(), "{shown:?}");
            assert!(!shown.contains(char::is_control), "{shown:?} is more than one line of text");
            assert!(shown.len() < 2000, "{} bytes of error", shown.len());
        }
    }
});
