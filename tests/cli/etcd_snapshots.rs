//! Snapshots of etcd from a member that misbehaves, onto disks that are full, and what is no snapshot: whatever happens,
//! there is a whole one or none.

use std::{
    collections::VecDeque,
    fs,
    io::{Read as _, Write as _},
    net::{Ipv4Addr, TcpListener, TcpStream},
    os::unix::fs::PermissionsExt as _,
    path::PathBuf,
    process::Command,
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use nodeagent::host::facts::Facts;
use openssl::{
    base64::encode_block,
    sha::sha256,
    ssl::{SslAcceptor, SslFiletype, SslMethod, SslVerifyMode},
};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::world::{Mount, agent, ca::Ca, scratch};

const DIR: &str = "var/lib/etcd-snapshots";

/// What a member sends when it is asked for a snapshot.
#[derive(Clone)]
enum Answer {
    /// These lines, to a good end.
    Lines(Vec<String>),
    /// These, and then the connection is gone.
    BreaksOff(Vec<String>),
}

/// A store of so many pages, and its snapshot.
fn snapshot(pages: usize) -> Vec<u8> {
    let store: Vec<u8> = (0..pages * 512).map(|at| u8::try_from(at % 251).unwrap_or_default()).collect();
    [&store[..], &sha256(&store)].concat()
}

fn line(blob: &[u8], left: usize) -> String {
    let header = json!({ "cluster_id": "1", "member_id": "2" });
    // As the gateway writes 64-bit numbers; what is zero it leaves out.
    let result = if left == 0 {
        json!({ "header": header, "blob": encode_block(blob) })
    } else {
        json!({ "header": header, "remaining_bytes": left.to_string(), "blob": encode_block(blob) })
    };
    json!({ "result": result }).to_string()
}

/// A snapshot as etcd sends it: the store in pieces of 32 kB, then the digest.
fn sent(snapshot: &[u8]) -> Vec<String> {
    let (store, digest) = snapshot.split_at(snapshot.len() - 32);
    let pieces = store.chunks(32 << 10).enumerate();
    let lines = pieces.map(|(at, piece)| line(piece, store.len() - (at << 15) - piece.len()));
    lines.chain([line(digest, 0)]).collect()
}

/// A tree of a member, and a stand-in for its etcd, which asks clients for certificates as the real one does.
struct Member {
    files: TempDir,
    port: u16,
    answers: Arc<Mutex<VecDeque<Answer>>>,
}

impl Member {
    fn new() -> Result<Self> {
        let (files, ca) = (scratch()?, Ca::new()?);
        let pki = files.path().join("tree/etc/kubernetes/pki");
        fs::create_dir_all(&pki)?;
        fs::create_dir_all(files.path().join("tree/etc/nodeagent"))?;
        fs::write(pki.join("etcd-ca.pem"), ca.pem()?)?;
        ca.issue_administrator(files.path(), "client")?;
        let pem = |name: &str| fs::read_to_string(files.path().join(name));
        fs::write(pki.join("etcd-server.pem"), [pem("client.pem")?, pem("client-key.pem")?].concat())?;
        fs::write(files.path().join("facts.json"), serde_json::to_vec(&Facts::sample())?)?;
        let answers = Arc::new(Mutex::new(VecDeque::new()));
        let port = stand_in(&ca, &files, &answers)?;
        let member = Self { files, port, answers };
        member.configure("")?;
        Ok(member)
    }

    fn configure(&self, snapshots: &str) -> Result<()> {
        let yaml = format!(
            "apiVersion: nodeagent.io/v1alpha1\nkind: NodeConfig\nrole: etcd\nnode: {{ name: etcd-1 }}\n\
             cluster: {{ apiServer: 'https://10.10.30.11:6443' }}\netcd: {{ snapshots: {{ {snapshots} }} }}\n\
             kubernetes: {{ version: v1.20.2, artifacts: {{ etcd: {{ version: v3.4.23 }} }} }}\n\
             pki:\n  ca: /etc/kubernetes/pki/ca.pem\n  signer: {{ offline: {{ dir: /etc/kubernetes/pki/offline }} }}\n\
             \x20 etcd:\n    ca: /etc/kubernetes/pki/etcd-ca.pem\n\
             \x20   signer: {{ local: {{ key: /etc/kubernetes/pki/etcd-ca-key.pem }} }}\n"
        );
        Ok(fs::write(self.root().join("etc/nodeagent/node.yaml"), yaml)?)
    }

    fn root(&self) -> PathBuf {
        self.files.path().join("tree")
    }

    fn will(&self, answers: impl IntoIterator<Item = Answer>) {
        self.answers.lock().expect("no test panics here").extend(answers);
    }

    /// Runs `nodeagent etcd` with these: its exit code, and what it printed and told.
    fn run(&self, args: &[&str]) -> Result<(i32, String)> {
        let mut command = Command::new(agent());
        command.arg("etcd").args(args).arg("--root").arg(self.root());
        command.arg("--facts").arg(self.files.path().join("facts.json"));
        let output = command.output().context("run the program")?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let told = text(&output.stdout) + &text(&output.stderr);
        ensure!(!told.contains("PRIVATE KEY"), "a key is in a message: {told}");
        Ok((output.status.code().context("it was killed")?, told))
    }

    fn snapshot(&self, to: &[&str]) -> Result<(i32, String)> {
        let endpoint = format!("https://127.0.0.1:{}", self.port);
        self.run(&[&["snapshot", "--endpoint", &endpoint], to].concat())
    }

    /// The names in the directory of snapshots, those of unfinished files too.
    fn kept(&self) -> Result<Vec<String>> {
        let Ok(entries) = fs::read_dir(self.root().join(DIR)) else { return Ok(Vec::new()) };
        let mut names: Vec<String> =
            entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect::<Result<_>>()?;
        names.sort();
        Ok(names)
    }
}

/// Answers as it is told, once each. It ends with the process.
fn stand_in(ca: &Ca, files: &TempDir, answers: &Arc<Mutex<VecDeque<Answer>>>) -> Result<u16> {
    ca.issue_server(files.path(), "server", Ipv4Addr::LOCALHOST.into())?;
    let mut acceptor = SslAcceptor::mozilla_intermediate(SslMethod::tls_server())?;
    acceptor.set_private_key_file(files.path().join("server-key.pem"), SslFiletype::PEM)?;
    acceptor.set_certificate_file(files.path().join("server.pem"), SslFiletype::PEM)?;
    acceptor.set_ca_file(files.path().join("tree/etc/kubernetes/pki/etcd-ca.pem"))?;
    acceptor.set_verify(SslVerifyMode::PEER | SslVerifyMode::FAIL_IF_NO_PEER_CERT);
    let acceptor = Arc::new(acceptor.build());
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let port = listener.local_addr()?.port();
    let answers = Arc::clone(answers);
    thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let (acceptor, answers) = (Arc::clone(&acceptor), Arc::clone(&answers));
            thread::spawn(move || answer(&acceptor, client, &answers));
        }
    });
    Ok(port)
}

fn answer(acceptor: &SslAcceptor, client: TcpStream, answers: &Mutex<VecDeque<Answer>>) -> Result<()> {
    client.set_read_timeout(Some(Duration::from_secs(10)))?;
    let mut client = acceptor.accept(client)?;
    let mut request = Vec::new();
    let mut part = [0; 4096];
    while !request.ends_with(b"\r\n\r\n{}") {
        let read = client.read(&mut part)?;
        ensure!(read > 0, "the client went");
        request.extend_from_slice(&part[..read]);
    }
    if request.starts_with(b"POST /v3/maintenance/status ") {
        let body = json!({ "header": { "revision": "4711" }, "version": "3.4.23" }).to_string();
        let length = body.len();
        write!(client, "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}")?;
        return Ok(client.flush()?);
    }
    ensure!(request.starts_with(b"POST /v3/maintenance/snapshot "), "a strange request");
    let next = answers.lock().expect("no test panics here").pop_front().context("nothing is to be answered")?;
    let (Answer::Lines(lines) | Answer::BreaksOff(lines)) = &next;
    write!(client, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n")?;
    for line in lines {
        write!(client, "{:x}\r\n{line}\n\r\n", line.len() + 1)?;
    }
    if matches!(next, Answer::Lines(_)) {
        write!(client, "0\r\n\r\n")?;
    }
    Ok(client.flush()?)
}

#[test]
fn a_snapshot_is_kept_whole_closed_to_others_and_for_as_long_as_is_said() -> Result<()> {
    let member = Member::new()?;
    member.configure("keep: 2")?;
    let whole = snapshot(300);
    for at in 1..=3 {
        member.will([Answer::Lines(sent(&whole))]);
        let (code, told) = member.snapshot(&[])?;
        ensure!(code == 0 && told.contains("at revision 4711 or later, 153.6 kB"), "{code}: {told}");
        let kept = member.kept()?;
        ensure!(kept.len() == at.min(2), "{kept:?}");
        // Their names have whole seconds.
        thread::sleep(Duration::from_millis(1100));
    }
    let dir = member.root().join(DIR);
    let mode = |path: PathBuf| Ok::<_, anyhow::Error>(fs::metadata(path)?.permissions().mode() & 0o7777);
    ensure!(mode(dir.clone())? == 0o700, "others may look");
    for name in member.kept()? {
        ensure!(fs::read(dir.join(&name))? == whole && mode(dir.join(&name))? == 0o600, "{name}");
    }

    // To a place of one's own: nothing is removed for it, and nothing is added there.
    fs::create_dir(member.root().join("srv"))?;
    member.will([Answer::Lines(sent(&whole))]);
    let (code, told) = member.snapshot(&["/srv/mine.db"])?;
    ensure!(code == 0, "{told}");
    ensure!(fs::read(member.root().join("srv/mine.db"))? == whole && mode(member.root().join("srv/mine.db"))? == 0o600);
    ensure!(
        fs::read_dir(member.root().join("srv"))?.count() == 1 && member.kept()?.len() == 2,
        "something else is there"
    );

    // A damaged one is listed as such.
    let newest = member.kept()?.pop().context("one")?;
    let mut bytes = whole;
    bytes[1000] ^= 1;
    fs::write(dir.join(&newest), &bytes)?;
    let (code, told) = member.run(&["snapshots", "--verify", "--output", "json"])?;
    let listed: Value = serde_json::from_str(&told)?;
    let intact: Vec<bool> = listed.as_array().context("a list")?.iter().map(|kept| kept["intact"] == true).collect();
    ensure!(code == 0 && intact == [true, false], "{told}");
    let (code, told) = member.run(&["snapshots"])?;
    ensure!(code == 0 && told.lines().count() == 2 && told.contains("0 h 00 min ago"), "{told}");
    Ok(())
}

#[test]
fn a_member_that_breaks_off_is_asked_again() -> Result<()> {
    let member = Member::new()?;
    let (whole, failed) = (snapshot(300), json!({ "error": { "grpc_code": 14, "message": "etcdserver: stopped" } }));
    let lines = sent(&whole);
    member.will([
        Answer::BreaksOff(lines[..2].to_vec()),
        Answer::Lines([&lines[..3], &[failed.to_string()]].concat()),
        Answer::Lines(lines[..2].to_vec()),
        Answer::Lines(lines),
    ]);
    let (code, told) = member.snapshot(&[])?;
    ensure!(code == 0, "{code}: {told}");
    for says in ["trying the snapshot again", "etcdserver: stopped", "the member sent 65.5 kB of 153.6 kB, and no more"]
    {
        ensure!(told.contains(says), "it does not say {says:?}: {told}");
    }
    let kept = member.kept()?;
    ensure!(kept.len() == 1 && fs::read(member.root().join(DIR).join(&kept[0]))? == whole, "{kept:?}");
    Ok(())
}

/// It must end with this code, say all of this, and leave no snapshot and no part of one.
fn refused(member: &Member, name: &str, code: i32, says: &[&str]) -> Result<()> {
    let (ended, told) = member.snapshot(&[])?;
    ensure!(ended == code, "{name}: {ended}: {told}");
    for text in says.iter().chain(&["snapshot of etcd failed: "]) {
        ensure!(told.contains(text), "{name}: it does not say {text:?}: {told}");
    }
    ensure!(member.kept()?.is_empty(), "{name}: {:?}", member.kept()?);
    Ok(())
}

#[test]
fn what_is_no_whole_snapshot_is_not_kept() -> Result<()> {
    let member = Member::new()?;
    let whole = snapshot(300);
    let mut damaged = whole.clone();
    damaged[5000] ^= 1;
    let odd = [&whole[..], b"x"].concat();
    let not_base64 = vec![json!({ "result": { "blob": "???" } }).to_string()];
    for (name, answers, code, says) in [
        ("a bit that flipped", vec![sent(&damaged)], 4, "damaged"),
        ("a length that none has", vec![sent(&odd)], 4, "no snapshot ends there"),
        ("something else", vec![vec!["<html>".to_owned()]], 1, "a line is not JSON"),
        // The member is asked again, and then it is damaged for good.
        ("no base64", vec![not_base64, sent(&damaged)], 4, "not base64"),
    ] {
        member.will(answers.into_iter().map(Answer::Lines));
        refused(&member, name, code, &[says])?;
    }
    // Another CA than the member's.
    let ca = member.root().join("etc/kubernetes/pki/etcd-ca.pem");
    fs::write(&ca, Ca::new()?.pem()?)?;
    refused(&member, "another CA", 4, &["TLS failed", "pki.etcd.ca must vouch for it"])?;
    fs::remove_file(&ca)?;
    refused(&member, "no CA", 1, &["etcd-ca.pem: there is no such file"])
}

#[test]
fn a_member_that_is_not_there_is_waited_for_and_named() -> Result<()> {
    let mut member = Member::new()?;
    member.port = crate::free_port::free_port();
    let url = format!("https://127.0.0.1:{}/v3/maintenance/status", member.port);
    refused(&member, "nobody listens", 3, &[&url, "Connection refused", "systemctl status etcd"])
}

#[test]
fn a_full_disk_leaves_no_half_file() -> Result<()> {
    let member = Member::new()?;
    let mount = Mount::tmpfs(&member.root().join(DIR), "size=512k,mode=700")?;
    // It says beforehand how much it is.
    let large = snapshot(2000);
    member.will([Answer::Lines(sent(&large))]);
    refused(
        &member,
        "too large",
        1,
        &["No space left on device: 1.0 MB are to be written and as much is to stay free, 524.3 kB are free"],
    )?;
    // And if what it says is not true.
    let lines = [vec![line(&large[..32 << 10], 1)], sent(&large)].concat();
    member.will([Answer::Lines(lines)]);
    refused(&member, "larger than it says", 1, &["No space left on device", "free some space"])?;
    mount.remount("size=4m")?;
    member.will([Answer::Lines(sent(&large))]);
    let (code, told) = member.snapshot(&[])?;
    ensure!(code == 0 && member.kept()?.len() == 1, "{told}");
    Ok(())
}

#[test]
fn only_a_whole_snapshot_would_be_restored_and_only_on_a_member() -> Result<()> {
    let member = Member::new()?;
    let whole = snapshot(300);
    let put = |name: &str, bytes: &[u8]| fs::write(member.root().join(name), bytes);
    let mut flipped = whole.clone();
    flipped[77] ^= 1;
    put("good.db", &whole)?;
    put("short.db", &whole[..whole.len() - 100])?;
    put("flipped.db", &flipped)?;
    put("copy.db", &whole[..whole.len() - 32])?;
    put("text.db", b"not a snapshot\n")?;
    fs::create_dir(member.root().join("directory.db"))?;
    for (name, code, says) in [
        ("/short.db", 4, "short.db: it has"),
        ("/flipped.db", 4, "flipped.db: its SHA-256 is"),
        ("/copy.db", 4, "a copy of a member's file has no digest"),
        ("/text.db", 4, "text.db: it has 15 bytes"),
        ("/directory.db", 4, "directory.db"),
        ("/nothing.db", 1, "nothing.db: No such file"),
        // What is right in it is told before it is refused: a tree has no units to stop.
        ("/good.db", 2, "for the running machine alone"),
    ] {
        for yes in [&[][..], &["--yes"]] {
            let (ended, told) = member.run(&[&["restore", name], yes].concat())?;
            ensure!(ended == code && told.contains(says), "{name} {yes:?}: {ended}: {told}");
        }
    }
    ensure!(!member.root().join("var/lib/etcd").exists(), "something was made");
    Ok(())
}
