//! `nodeagent certs ca` and `certs sign` on an operator's machine: what is refused, and in which words.

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

use anyhow::{Context as _, Result, ensure};

use crate::certs::{openssl, path};
use crate::world::{agent, scratch};

fn certs(dir: &Path, args: &[&str]) -> Result<Output> {
    Command::new(agent()).arg("certs").args(args).current_dir(dir).output().context("run the agent")
}

/// It must end with this code and say all of this, and nothing that only a node knows or only OpenSSL understands.
fn refused(output: &Output, code: i32, says: &[&str]) -> Result<()> {
    let told = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.code() == Some(code), "{:?}, not {code}: {told}", output.status);
    for text in says {
        ensure!(told.contains(text), "it does not say {text:?}: {told}");
    }
    for text in ["pki.ca", "error:1", "os error", "open root"] {
        ensure!(!told.contains(text), "it says {text:?}: {told}");
    }
    Ok(())
}

#[test]
fn a_slip_of_the_operators_is_answered_plainly_and_overwrites_nothing() -> Result<()> {
    let files = scratch()?;
    let dir = files.path();
    let made = certs(dir, &["ca", ".", "-o", "json"])?;
    ensure!(made.status.success(), "{made:?}");
    let made: serde_json::Value = serde_json::from_slice(&made.stdout)?;
    let of = |what: &str| made[0][what].as_str().is_some_and(|file| Path::new(file).is_file());
    ensure!(made.as_array().is_some_and(|all| all.len() == 1) && of("certificate") && of("key"), "{made}");
    let key = fs::read(dir.join("ca-key.pem"))?;

    // A request of a node's, made elsewhere.
    let new = ["req", "-new", "-nodes", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"];
    let (request, own) = (dir.join("node.csr"), dir.join("node.key"));
    let subject =
        ["-subj", "/O=system:nodes/CN=system:node:worker-01", "-out", path(&request)?, "-keyout", path(&own)?];
    openssl(&[&new[..], &subject].concat())?;

    fs::create_dir(dir.join("begun"))?;
    fs::write(dir.join("begun/ca-key.pem"), &key)?;
    fs::write(dir.join("empty.pem"), "")?;
    let sign = |args: &[&'static str]| [&["sign", "node.csr"][..], args].concat();
    let not_a_key = "it holds no readable private key";
    let both = "--ca wants the CA's certificate in PEM, and --key its private key";
    fs::copy(&request, dir.join("request.pem"))?;
    fs::copy(&request, dir.join("ca.csr"))?;
    let by_ca = ["--ca", "ca.pem", "--key", "ca-key.pem"];
    let in_place = "that is what is signed, or what it is signed with";
    let table: [(Vec<&str>, i32, &[&str]); 12] = [
        ([&["sign", "request.pem"], &by_ca[..]].concat(), 2, &["/request.pem: ", in_place]),
        ([&["sign", "node.csr", "ca.csr"], &by_ca[..]].concat(), 2, &["/ca.pem: ", in_place]),
        (vec!["ca", "nope"], 2, &["use the directory nope: there is no such directory", "make it first"]),
        (vec!["ca", "ca.pem"], 2, &["use the directory ca.pem: it is no directory"]),
        (vec!["ca", ".", "--root", "begun"], 2, &["--root means nothing to `nodeagent certs ca`"]),
        (vec!["ca", "begun", "--key", "rsa-4096"], 2, &["begun/ca-key.pem: it is ecdsa-p256, not rsa-4096"]),
        (vec!["ca", "begun", "--key", "rsa-1024"], 2, &["ecdsa-p256, rsa-2048, rsa-4096"]),
        (sign(&["--ca", "ca-key.pem", "--key", "ca-key.pem"]), 4, &["it holds no readable certificate", both]),
        (sign(&["--ca", "ca.pem", "--key", "ca.pem"]), 1, &["ca.pem: ", not_a_key, both]),
        (sign(&["--ca", "ca.pem", "--key", "empty.pem"]), 1, &["empty.pem: ", not_a_key, both]),
        (sign(&["--ca", "ca.pem", "--key", "ca-key.pem", "--to", "nope"]), 2, &["directory nope: there is no such"]),
        (sign(&["--ca", "ca.pem", "--key", "ca-key.pem", "--config", "x"]), 2, &["--config means nothing to"]),
    ];
    for (args, code, says) in table {
        refused(&certs(dir, &args)?, code, says).with_context(|| format!("{args:?}"))?;
    }
    ensure!(!dir.join("node.pem").exists() && fs::read(dir.join("ca-key.pem"))? == key, "something was written");
    ensure!(fs::read(dir.join("request.pem"))? == fs::read(&request)?, "a request was overwritten");

    // What was begun is finished, and what is missing is made beside what is there.
    for args in [["ca", "begun"].as_slice(), &["ca", "begun", "--etcd"]] {
        let output = certs(dir, args)?;
        ensure!(output.status.success(), "{args:?}: {output:?}");
        ensure!(String::from_utf8_lossy(&output.stdout).lines().count() == 2, "{args:?}: {output:?}");
    }
    ensure!(fs::read(dir.join("begun/ca-key.pem"))? == key, "the key was replaced");
    refused(&certs(dir, &["ca", "begun", "--etcd"])?, 2, &["there is something already", "never replaced"])?;
    fs::remove_file(dir.join("begun/ca-key.pem"))?;
    refused(&certs(dir, &["ca", "begun"])?, 2, &["begun/ca.pem: there is something already"])
}
