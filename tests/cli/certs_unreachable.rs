//! A signer whom nobody reaches, or who is somebody else, and keys that are another's: what is wrong is named, and the pairs
//! stay.

use std::{fs, process::Command};

use anyhow::{Context as _, Result, ensure};
use nodeagent::host::facts::Facts;
use openssl::{pkey::PKey, x509::X509};

use crate::certs::{choose, make_ca, openssl, path, sign_locally};
use crate::certs_refused::{ANEW, EC, answering, pairs, pki, wish};
use crate::free_port::free_port;
use crate::world::{Tree, World, agent, ca::Ca, scratch};

/// The step must fail with this code, however long its deadlines are, say all of this, and leave the pairs alone.
fn fails(tree: &Tree<'_>, code: i32, says: &[&str]) -> Result<()> {
    let before = pairs(tree)?;
    let (root, facts) = (tree.root(), tree.beside("facts.json"));
    fs::write(&facts, serde_json::to_vec(&Facts::sample())?)?;
    let mut command = Command::new(agent());
    command.args(["certs", "--root", path(&root)?, "--facts", path(&facts)?]).env_clear();
    let output = command.output().context("run the agent")?;
    let told = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.code() == Some(code), "{:?}: {told}", output.status);
    for text in says {
        ensure!(told.contains(text), "it does not say {text:?}: {told}");
    }
    ensure!(pairs(tree)? == before, "a pair was replaced");
    Ok(())
}

/// Asks for other keys, of a cfssl at this URL.
fn other_cfssl(tree: &Tree<'_>, url: &str) -> Result<()> {
    wish(tree, &format!("pki: {{ key: rsa-2048, signer: {{ cfssl: {{ url: \"{url}\" }} }} }}\n"))
}

/// A node with its pairs is made to `ask` at a URL where nobody is: this resource must say so.
fn fails_where_nobody_is(resource: &str, ask: impl FnOnce(&Tree<'_>, &str) -> Result<()>) -> Result<()> {
    let world = World::new()?;
    let tree = world.copy(&world.start())?;
    tree.ok(&["certs"])?;
    let url = format!("https://127.0.0.1:{}", free_port());
    ask(&tree, &url)?;
    fails(&tree, 3, &[&format!("{resource}: "), &url, "Connection refused"])
}

#[test]
fn a_signer_whom_nobody_reaches_is_named_with_the_cause() -> Result<()> {
    fails_where_nobody_is("certs/kubelet-server", other_cfssl)
}

#[test]
fn an_api_server_whom_nobody_reaches_is_named_with_the_cause() -> Result<()> {
    fails_where_nobody_is("certs/kubelet-client", |tree, url| {
        choose(tree, "kubernetes: { tokenFile: /etc/nodeagent/bootstrap-token, deadline: 1s }")?;
        wish(tree, &format!("cluster: {{ apiServer: \"{url}\" }}\n{ANEW}"))
    })
}

#[test]
fn a_server_of_another_ca_is_named_with_the_cause() -> Result<()> {
    let world = World::new()?;
    let tree = world.copy(&world.start())?;
    tree.ok(&["certs"])?;
    let url = format!("https://127.0.0.1:{}", answering(&Ca::new()?, "200 OK", String::new())?);
    other_cfssl(&tree, &url)?;
    fails(&tree, 4, &[&url, "TLS failed"])
}

#[test]
fn a_carried_certificate_for_another_key_replaces_nothing() -> Result<()> {
    let world = World::new()?;
    let tree = world.copy(&world.start())?;
    let (ca, key) = make_ca(&tree, &EC)?;
    sign_locally(&tree, &key, "")?;
    tree.ok(&["certs"])?;
    fs::remove_file(pki(&tree).join("ca-key.pem"))?;
    choose(&tree, "offline: { dir: /etc/kubernetes/pki/offline }")?;
    wish(&tree, ANEW)?;
    tree.ok(&["certs", "csr"])?;
    // Somebody's request in the place of the node's own: the same subject, and another key.
    let (office, offline) = (scratch()?, pki(&tree).join("offline"));
    let (request, own) = (office.path().join("kubelet-client.csr"), office.path().join("own.key"));
    let new = ["req", "-new", "-nodes", "-newkey", "rsa:2048", "-subj", "/O=system:nodes/CN=system:node:worker-01"];
    openssl(&[&new[..], &["-keyout", path(&own)?, "-out", path(&request)?]].concat())?;
    let mut sign = Command::new(agent());
    sign.args(["certs", "sign", path(&request)?, "--ca", path(&ca)?, "--key", path(&key)?, "--to", path(&offline)?]);
    let output = sign.output()?;
    ensure!(output.status.success(), "{output:?}");
    fails(&tree, 4, &["certs/kubelet-client: ", "/etc/kubernetes/pki/kubelet-client.pem: it is for another key"])
}

#[test]
fn a_pair_with_a_foreign_key_is_shown_and_made_anew() -> Result<()> {
    let world = World::new()?;
    let tree = world.copy(&world.start())?;
    tree.ok(&["certs"])?;
    let (client, server) = (pki(&tree).join("kubelet-client.pem"), pki(&tree).join("kubelet-server.pem"));
    let (certificate, foreign) =
        (X509::from_pem(&fs::read(&client)?)?, PKey::private_key_from_pem(&fs::read(&server)?)?);
    fs::write(&client, [certificate.to_pem()?, foreign.private_key_to_pem_pkcs8()?].concat())?;
    let shown = tree.ok(&["certs", "show"])?.out;
    ensure!(shown.contains("kubelet-client.pem: it is for another key, "), "{shown}");
    tree.ok(&["certs"])?;
    let now = fs::read(&client)?;
    let key = PKey::private_key_from_pem(&now)?;
    ensure!(X509::from_pem(&now)?.public_key()?.public_eq(&key), "it is no pair");
    ensure!(!key.public_eq(&foreign), "the key is another's");
    Ok(())
}
