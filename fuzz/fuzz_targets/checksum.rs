//! Checksum files and signatures: a digest stands in the file, and is that of the name that was asked for; nothing but
//! the right signature is one.
#![no_main]

use libfuzzer_sys::fuzz_target;
use nodeagent::host::fetch::Digest;
use nodeagent::install::trust::{checksum, verify_signature};

const KEY: &[u8] = include_bytes!("../corpus/checksum/key.pem");

fuzz_target!(|bytes: &[u8]| {
    match checksum(bytes, "kubelet") {
        Ok(digest) => {
            let text = String::from_utf8_lossy(bytes).to_ascii_lowercase();
            let hex = match &digest {
                Digest::Sha256(hex) => hex.as_str(),
                Digest::Sha512(hex) => hex.as_str(),
            };
            assert!(text.lines().any(|line| line.trim().starts_with(hex)), "{hex}");
            assert!(text.trim() == hex || text.contains("kubelet"), "{text:?}");
        }
        Err(why) => assert!(why.len() < 2000 && !why.contains(char::is_control), "{why:?}"),
    }
    // Nobody has the private key of this one.
    assert!(verify_signature("it", KEY, bytes, b"lock").is_err());
    assert!(verify_signature("it", bytes, b"", b"lock").is_err());
});
