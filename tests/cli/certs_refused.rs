//! What a certs step is given and cannot use: it says which file or server, and why, and the pairs that are there stay.

use std::{
    collections::BTreeMap,
    fs,
    io::{Read as _, Write as _},
    net::{Ipv4Addr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use nodeagent::host::facts::Facts;
use openssl::{
    asn1::Asn1Time,
    hash::MessageDigest,
    pkey::PKey,
    ssl::{SslAcceptor, SslFiletype, SslMethod},
    x509::{X509, X509Builder, extension::BasicConstraints},
};
use serde_json::{Value, json};

use crate::certs::{make_ca, openssl, path, sign_locally};
use crate::world::{Tree, World, agent, ca::Ca, scratch};

pub const EC: [&str; 4] = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"];

/// Asks for other keys: every pair is then to be made anew.
pub const ANEW: &str = "pki: { key: rsa-2048 }\n";

pub fn pki(tree: &Tree<'_>) -> PathBuf {
    tree.root().join("etc/kubernetes/pki")
}

pub fn wish(tree: &Tree<'_>, yaml: &str) -> Result<()> {
    let dir = tree.root().join("etc/nodeagent/node.d");
    fs::create_dir_all(&dir)?;
    fs::write(dir.join("10.yaml"), yaml).context("write a drop-in")
}

/// A bad CA file: what it is called here, its bytes if there is one, the code that the step ends with, and why and advice.
type Bad<'a> = (&'a str, Option<Vec<u8>>, i32, [&'a str; 2]);

/// The bytes of each pair.
pub fn pairs(tree: &Tree<'_>) -> Result<BTreeMap<&'static str, Vec<u8>>> {
    let read = |name| Ok((name, fs::read(pki(tree).join(format!("{name}.pem")))?));
    ["kubelet-client", "kubelet-server", "kube-proxy-client"].map(read).into_iter().collect()
}

/// The step must end with this code, say all of this, and leave the pairs alone.
fn refused(tree: &Tree<'_>, name: &str, code: i32, says: &[&str]) -> Result<()> {
    let before = pairs(tree)?;
    let ran = tree.run(&["certs"])?;
    ensure!(ran.ended == Ok(code), "{name}: {:?}: {}", ran.ended, ran.told);
    for text in says {
        ensure!(ran.told.contains(text), "{name}: it does not say {text:?}: {}", ran.told);
    }
    ensure!(!ran.told.contains("mistake in nodeagent"), "{name}: it blames itself: {}", ran.told);
    ensure!(!ran.told.contains("PRIVATE KEY"), "{name}: a key is in a message");
    ensure!(pairs(tree)? == before, "{name}: a pair was replaced");
    Ok(())
}

/// A certificate of the CA's, and of its key, that is good from then to then: seconds from now.
fn valid(certificate: &Path, key: &Path, from: i64, until: i64) -> Result<Vec<u8>> {
    let key = PKey::private_key_from_pem(&fs::read(key)?)?;
    let old = X509::from_pem(&fs::read(certificate)?)?;
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_secs();
    let at = |seconds: i64| Asn1Time::from_unix(i64::try_from(now).unwrap_or_default() + seconds);
    let mut builder = X509Builder::new()?;
    builder.set_version(2)?;
    builder.set_subject_name(old.subject_name())?;
    builder.set_issuer_name(old.subject_name())?;
    builder.set_pubkey(&key)?;
    let (from, until) = (at(from)?, at(until)?);
    builder.set_not_before(&from)?;
    builder.set_not_after(&until)?;
    builder.append_extension(BasicConstraints::new().critical().ca().build()?)?;
    builder.sign(&key, MessageDigest::sha256())?;
    Ok(builder.build().to_pem()?)
}

#[test]
fn a_bad_ca_or_key_is_named_and_the_pairs_stay() -> Result<()> {
    let world = World::new()?;
    let tree = world.copy(&world.start())?;
    let (certificate, private) = make_ca(&tree, &EC)?;
    sign_locally(&tree, &private, "")?;
    tree.ok(&["certs"])?;
    wish(&tree, ANEW)?;
    let key = pki(&tree).join("ca-key.pem");
    let (good_ca, good_key) = (fs::read(&certificate)?, fs::read(&key)?);

    let other = tree.beside("other-key.pem");
    openssl(&["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", path(&other)?])?;
    let encrypted = tree.beside("encrypted-key.pem");
    openssl(&["pkey", "-in", path(&key)?, "-aes128", "-passout", "pass:x", "-out", path(&encrypted)?])?;
    let leaf = tree.beside("leaf.pem");
    let mut args = vec!["req", "-x509", "-key", path(&key)?, "-subj", "/CN=lab CA", "-out", path(&leaf)?];
    args.extend(["-addext", "basicConstraints=critical,CA:FALSE"]);
    openssl(&args)?;
    let stranger = tree.beside("stranger.pem");
    openssl(&["req", "-x509", "-key", path(&other)?, "-subj", "/CN=stranger", "-out", path(&stranger)?])?;

    let in_key = "/etc/kubernetes/pki/ca-key.pem: ";
    let keys: [(&str, Option<Vec<u8>>, i32, &str); 4] = [
        ("another CA's key", Some(fs::read(&other)?), 4, "the key is not that of DC=com"),
        ("an encrypted key", Some(fs::read(&encrypted)?), 1, "encrypted with a passphrase"),
        (
            "no key",
            Some(b"-----BEGIN PRIVATE KEY-----\nx\n-----END PRIVATE KEY-----\n".to_vec()),
            1,
            "it holds no readable private key",
        ),
        ("no file", None, 1, "there is no such file"),
    ];
    for (name, bytes, code, why) in keys {
        match bytes {
            Some(bytes) => fs::write(&key, bytes)?,
            None => fs::remove_file(&key)?,
        }
        refused(&tree, name, code, &[in_key, why])?;
    }
    fs::write(&key, &good_key)?;

    let in_ca = "/etc/kubernetes/pki/ca.pem: ";
    let expired = valid(&certificate, &private, -3600, -60)?;
    let tomorrow = valid(&certificate, &private, 86_400, 172_800)?;
    let (bring, own) = ("put the cluster's CA certificate in PEM into /etc", "put the CA's own certificate there");
    let both = [good_ca.as_slice(), &good_key].concat();
    let cas: [Bad<'_>; 7] = [
        ("a CA with its key", Some(both), 4, ["it holds a private key, and everybody", "into a file of its own"]),
        ("an expired CA", Some(expired), 4, ["expired on", "make a new CA certificate"]),
        ("a CA that starts tomorrow", Some(tomorrow), 4, ["starts on", "set this machine's clock"]),
        ("no CA:TRUE", Some(fs::read(&leaf)?), 4, ["is not a CA (no basic constraint CA:TRUE)", own]),
        ("garbage", Some(b"\0garbage".to_vec()), 4, ["it holds no readable certificate", bring]),
        ("no CA file", None, 1, ["there is no such file", bring]),
        ("another CA", Some(fs::read(&stranger)?), 4, ["ca-key.pem: the key is not that of CN=stranger", "of one CA"]),
    ];
    for (name, bytes, code, [why, advice]) in cas {
        match bytes {
            Some(bytes) => fs::write(&certificate, bytes)?,
            None => fs::remove_file(&certificate)?,
        }
        let about = if name == "another CA" { in_key } else { in_ca };
        refused(&tree, name, code, &[about, why, advice])?;
    }

    // Several blocks, in an order that nobody would choose, are no fault.
    let ours = fs::read(pki(&tree).join("kubelet-client.pem"))?;
    let parameters = b"-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n";
    let ours = String::from_utf8(ours)?;
    let (_, ours) = ours.split_at(ours.find("-----BEGIN CERTIFICATE").context("a certificate")?);
    let ours = &ours[..ours.find("-----BEGIN PRIVATE").unwrap_or(ours.len())];
    let words = b"the cluster's:\n".as_slice();
    fs::write(&certificate, [words, parameters, ours.as_bytes(), &fs::read(&leaf)?, &good_ca].concat())?;
    fs::write(&key, [good_ca.as_slice(), parameters, &good_key].concat())?;
    let before = pairs(&tree)?;
    tree.ok(&["certs"])?;
    let after = pairs(&tree)?;
    ensure!(before.iter().all(|(name, bytes)| after[name] != *bytes), "each was made anew");
    let kubeconfig = fs::read_to_string(tree.root().join("etc/kubernetes/kubelet.conf"))?;
    let kubeconfig: Value = serde_json::from_str(&kubeconfig)?;
    let embedded = kubeconfig["clusters"][0]["cluster"]["certificate-authority-data"].as_str().context("a CA")?;
    ensure!(openssl::base64::decode_block(embedded)? == good_ca, "the CA's certificate alone is embedded");
    Ok(())
}

/// Stands in for a cfssl that answers every request with this, under a certificate of the CA's. It ends with the process.
pub fn answering(ca: &Ca, status: &'static str, body: String) -> Result<u16> {
    let files = scratch()?;
    ca.issue_server(files.path(), "stub", Ipv4Addr::LOCALHOST.into())?;
    let mut acceptor = SslAcceptor::mozilla_intermediate(SslMethod::tls_server())?;
    acceptor.set_private_key_file(files.path().join("stub-key.pem"), SslFiletype::PEM)?;
    acceptor.set_certificate_file(files.path().join("stub.pem"), SslFiletype::PEM)?;
    let acceptor = Arc::new(acceptor.build());
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let port = listener.local_addr()?.port();
    thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let (acceptor, body) = (Arc::clone(&acceptor), body.clone());
            thread::spawn(move || answer(&acceptor, client, status, &body));
        }
    });
    Ok(port)
}

fn answer(acceptor: &SslAcceptor, client: TcpStream, status: &str, body: &str) -> Result<()> {
    client.set_read_timeout(Some(Duration::from_secs(10)))?;
    let mut client = acceptor.accept(client)?;
    let mut request = Vec::new();
    let mut part = [0; 4096];
    // A request is over when its body has the length that its head says.
    loop {
        let read = client.read(&mut part)?;
        ensure!(read > 0, "the client went");
        request.extend_from_slice(&part[..read]);
        let text = String::from_utf8_lossy(&request).to_lowercase();
        let Some((head, sent)) = text.split_once("\r\n\r\n") else { continue };
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
        if sent.len() >= length.unwrap_or(0) {
            break;
        }
    }
    let length = body.len();
    write!(client, "HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}")?;
    Ok(client.flush()?)
}

#[test]
fn a_signers_bad_answer_is_named_and_the_pairs_stay() -> Result<()> {
    let world = World::new()?;
    let tree = world.copy(&world.start())?;
    tree.ok(&["certs"])?;
    // A new CA: every pair is to be made anew, and the signer that is asked for them speaks in the new one's name.
    let (ca, stranger) = (Ca::new()?, Ca::new()?);
    fs::write(pki(&tree).join("ca.pem"), ca.pem()?)?;
    let signed = |certificate: &str| {
        json!({ "success": true, "result": { "certificate": certificate }, "errors": [], "messages": [] }).to_string()
    };
    let refusal = |code: i64, message: &str| {
        let errors = json!([{ "code": code, "message": message }]);
        json!({ "success": false, "result": null, "errors": errors, "messages": [] }).to_string()
    };
    let files = scratch()?;
    let of = |ca: &Ca| -> Result<String> {
        ca.issue_server(files.path(), "leaf", Ipv4Addr::LOCALHOST.into())?;
        Ok(fs::read_to_string(files.path().join("leaf.pem"))?)
    };
    let table = [
        ("for another key", "200 OK", signed(&of(&ca)?), 4, "it is for another key"),
        ("by another CA", "200 OK", signed(&of(&stranger)?), 4, "not by the key of CN=nodeagent lab CA"),
        ("garbage for a certificate", "200 OK", signed("-----BEGIN"), 4, "it holds no readable certificate"),
        ("no JSON", "200 OK", "<html>".to_owned(), 1, "the answer is not JSON"),
        ("policy", "400 Bad Request", refusal(5500, "names not whitelisted"), 1, "refuses by the policy of profile"),
        ("wrong token", "400 Bad Request", refusal(400, "invalid token"), 1, "refuses the authentication key in"),
        ("not found", "404 Not Found", "404 page not found".to_owned(), 1, "HTTP 404: 404 page not found"),
    ];
    for (name, status, body, code, why) in table {
        let url = format!("https://127.0.0.1:{}", answering(&ca, status, body)?);
        wish(&tree, &format!("pki: {{ signer: {{ cfssl: {{ url: \"{url}\" }} }} }}\n"))?;
        refused(&tree, name, code, &[&url, why])?;
    }
    Ok(())
}

#[test]
fn a_machine_without_an_address_asks_for_no_certificate() -> Result<()> {
    let world = World::new()?;
    let tree = world.copy(&world.start())?;
    tree.ok(&["certs"])?;
    wish(&tree, ANEW)?;
    let before = pairs(&tree)?;
    let (mut facts, file) = (Facts::sample(), tree.beside("no-address.json"));
    facts.links.iter_mut().for_each(|link| link.addresses.clear());
    facts.routes.clear();
    facts.default_routes.clear();
    fs::write(&file, serde_json::to_vec(&facts)?)?;
    let mut command = Command::new(agent());
    command.args(["certs", "--root", path(&tree.root())?, "--facts", path(&file)?]).env_clear();
    let output = command.output().context("run the agent")?;
    let told = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.code() == Some(1), "{:?}: {told}", output.status);
    for text in ["find the node's address", "eth0: no address", "no default route", "set node.interface or node.cidr"] {
        ensure!(told.contains(text), "it does not say {text:?}: {told}");
    }
    ensure!(pairs(&tree)? == before, "a pair was replaced");
    Ok(())
}
