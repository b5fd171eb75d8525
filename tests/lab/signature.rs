//! Signatures of lock files: made by the real cosign, offline, as docs/lock.md tells people to.

use std::{fs, path::Path, time::Duration};

use anyhow::{Context, Result};
use nodeagent::install::trust::verify_signature;

use crate::harness::{process, release};

/// For cosign to make a key from a passphrase.
const COSIGN: Duration = Duration::from_mins(1);

/// Runs it in a directory, away from any home or environment of the caller's.
fn cosign(there: &Path, args: &[&str]) -> Result<()> {
    let cosign = release::cosign()?;
    let cosign = cosign.to_str().context("the cache directory's path is not UTF-8")?;
    let there = there.to_str().context("the scratch directory's path is not UTF-8")?;
    let home = format!("HOME={there}");
    let command = ["env", "--ignore-environment", "-C", there, &home, "COSIGN_PASSWORD=", cosign];
    process::ok(&[&command[..], args].concat(), COSIGN).map(drop)
}

#[test]
fn what_cosign_signs_is_accepted_and_nothing_else() -> Result<()> {
    let scratch = tempfile::tempdir()?;
    let here = scratch.path();
    for name in ["own", "other"] {
        cosign(here, &["generate-key-pair", "--output-key-prefix", name])?;
    }
    let lock = b"{\"kind\": \"ReleaseLock\"}\n";
    fs::write(here.join("lock.json"), lock)?;
    let sign = ["sign-blob", "--yes", "--key", "own.key", "--tlog-upload=false", "--output-signature", "lock.json.sig"];
    cosign(here, &[&sign[..], &["lock.json"]].concat())?;

    let read = |name: &str| fs::read(here.join(name)).with_context(|| format!("read {name}"));
    let (key, other, signature) = (read("own.pub")?, read("other.pub")?, read("lock.json.sig")?);
    verify_signature("lock.json", &key, &signature, lock).map_err(|error| anyhow::anyhow!("{error}"))?;
    assert!(verify_signature("lock.json", &other, &signature, lock).is_err(), "signed by another key");
    assert!(verify_signature("lock.json", &key, &signature, &lock[1..]).is_err(), "altered since");
    Ok(())
}
