//! What vouches for a release: locked, mirrored and checked by an operator, and installed by a node. A real nginx serves
//! it, over https and plain, in the layout of Kubernetes' own server.

use std::fs::{self, File};
use std::io::Read as _;
use std::net::{Ipv4Addr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use nodeagent::host::facts::Facts;
use openssl::{ec, ecdsa::EcdsaSig, nid::Nid, pkey::Private};
use serde_json::Value;
use tar::EntryType;
use tempfile::TempDir;

use crate::free_port::free_port;
use crate::snapshot::digest;
use crate::world::{agent, ca, need, scratch};

/// All that a release of Kubernetes has for a node.
const PROGRAMS: [&str; 7] =
    ["kube-apiserver", "kube-controller-manager", "kube-proxy", "kube-scheduler", "kubeadm", "kubectl", "kubelet"];

/// How long nginx may take to open its port.
const PATIENCE: Duration = Duration::from_secs(20);

/// A release server, a key that signs, and a tree that is a node.
struct Server {
    files: TempDir,
    nginx: Child,
    https: u16,
    http: u16,
    key: ec::EcKey<Private>,
}

impl Drop for Server {
    fn drop(&mut self) {
        // Either call fails only when it has ended already.
        let _ = self.nginx.kill();
        let _ = self.nginx.wait();
    }
}

/// The bytes of a program: an ELF file's first ones for `machine`, and then its name.
fn program(name: &str, machine: u8) -> Vec<u8> {
    let mut bytes = vec![0; 64];
    bytes[..6].copy_from_slice(b"\x7fELF\x02\x01");
    bytes[18] = machine;
    bytes.extend(name.as_bytes());
    bytes
}

const AMD64: u8 = 62;
const ARM64: u8 = 183;

/// An archive with the right member and one more file.
fn archive(name: &str, content: &[u8]) -> Result<Vec<u8>> {
    entry(EntryType::Regular, name, "", content)
}

impl Server {
    fn start() -> Result<Self> {
        need("nginx", "nginx-light")?;
        let files = scratch()?;
        let here = files.path();
        let authority = ca::Ca::new()?;
        authority.issue_server(here, "server", Ipv4Addr::LOCALHOST.into())?;
        fs::write(here.join("ca.pem"), authority.pem()?)?;
        fs::create_dir_all(here.join("docroot"))?;
        let (https, http) = (free_port(), free_port());
        let at = here.display();
        let configuration = format!(
            "daemon off; master_process off; pid {at}/nginx.pid; error_log {at}/error.log;\n\
             events {{ worker_connections 64; }}\n\
             http {{ access_log off; root {at}/docroot;\n\
                 client_body_temp_path {at}/body; proxy_temp_path {at}/proxy; fastcgi_temp_path {at}/fastcgi;\n\
                 uwsgi_temp_path {at}/uwsgi; scgi_temp_path {at}/scgi;\n\
                 ssl_certificate {at}/server.pem; ssl_certificate_key {at}/server-key.pem;\n\
                 server {{ listen 127.0.0.1:{http}; }} server {{ listen 127.0.0.1:{https} ssl; }} }}\n"
        );
        // The worker stays the user that may read the files.
        let user = if nix::unistd::geteuid().is_root() { "user root;\n" } else { "" };
        fs::write(here.join("nginx.conf"), format!("{user}{configuration}"))?;
        let log = File::create(here.join("log"))?;
        let mut nginx = Command::new("nginx");
        nginx.args(["-e", &format!("{at}/error.log"), "-c", &format!("{at}/nginx.conf")]);
        let nginx = nginx.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn().context("start nginx")?;
        let key = ec::EcKey::generate(&*ec::EcGroup::from_curve_name(Nid::X9_62_PRIME256V1)?)?;
        let server = Self { files, nginx, https, http, key };
        let begun = Instant::now();
        while TcpStream::connect((Ipv4Addr::LOCALHOST, https)).is_err() {
            let log = || fs::read_to_string(server.path("log")).unwrap_or_default();
            ensure!(begun.elapsed() < PATIENCE, "nginx did not open its port within {PATIENCE:?}: {}", log());
            std::thread::sleep(Duration::from_millis(20));
        }
        for name in PROGRAMS {
            server.publish(&format!("v1.34.2/bin/linux/amd64/{name}"), &program(name, AMD64))?;
        }
        server.serve("stable-1.34.txt", b"v1.34.2")?;
        Ok(server)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.files.path().join(name)
    }

    fn https(&self) -> String {
        format!("https://127.0.0.1:{}/release", self.https)
    }

    fn http(&self) -> String {
        format!("http://127.0.0.1:{}/release", self.http)
    }

    fn serve(&self, path: &str, bytes: &[u8]) -> Result<()> {
        let path = self.path("docroot/release").join(path);
        fs::create_dir_all(path.parent().context("a directory")?)?;
        fs::write(&path, bytes).with_context(|| format!("write {}", path.display()))
    }

    /// Serves a file with its checksum beside it.
    fn publish(&self, path: &str, bytes: &[u8]) -> Result<()> {
        let sha512 = hex(&openssl::sha::sha512(bytes));
        self.serve(path, bytes)?;
        self.serve(&format!("{path}.sha512"), sha512.as_bytes())
    }

    /// Serves a lock file with its signature, as `cosign sign-blob` makes it.
    fn serve_lock(&self, lock: &[u8]) -> Result<()> {
        let signature = EcdsaSig::sign(&openssl::sha::sha256(lock), &self.key)?.to_der()?;
        self.serve("lock.json", lock)?;
        self.serve("lock.json.sig", openssl::base64::encode_block(&signature).as_bytes())
    }

    /// Runs the agent. Returns its exit code, what it printed, and what it told.
    #[allow(clippy::unused_self, reason = "it is this server's client")]
    fn agent(&self, args: &[&str]) -> Result<(i32, String, String)> {
        let output = Command::new(agent()).args(args).env_clear().stdin(Stdio::null()).output()?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Ok((output.status.code().context("killed")?, text(&output.stdout), text(&output.stderr)))
    }

    /// The operator's `nodeagent lock`, over https.
    fn lock(&self, version: &str, file: &str) -> Result<(i32, String, String)> {
        let (ca, file) = (self.path("ca.pem"), self.path(file));
        let [ca, file] = [&ca, &file].map(|path| path.to_string_lossy().into_owned());
        self.agent(&["lock", version, "--arch", "amd64", "--from", &self.https(), "--ca", &ca, "--file", &file])
    }

    /// A fresh tree whose node asks for this under `kubernetes`, and what `nodeagent install` says to it.
    fn install(&self, name: &str, kubernetes: &str) -> Result<Node<'_>> {
        let root = self.path(name);
        for directory in ["etc/nodeagent", "opt", "run", "var/lib"] {
            fs::create_dir_all(root.join(directory))?;
        }
        let indented = kubernetes.replace('\n', "\n  ");
        let config = format!(
            "apiVersion: nodeagent.io/v1alpha1\nkind: NodeConfig\nrole: worker\n\
             cluster: {{ apiServer: \"https://10.10.30.11:6443\" }}\n\
             download: {{ ca: /etc/nodeagent/mirror-ca.pem, deadline: 30s }}\n\
             kubernetes:\n  version: v1.34.2\n  {indented}\n\
             pki: {{ ca: /etc/ca.pem, signer: {{ cfssl: {{ url: \"https://127.0.0.1:9\", authKeyFile: /etc/key, \
             acceptAdminEquivalentKey: true }} }} }}\n"
        );
        fs::write(root.join("etc/nodeagent/node.yaml"), config)?;
        fs::copy(self.path("ca.pem"), root.join("etc/nodeagent/mirror-ca.pem"))?;
        fs::write(root.join("etc/nodeagent/lock.pub"), self.key.public_key_to_pem()?)?;
        fs::write(self.path("facts.json"), serde_json::to_vec(&Facts::sample())?)?;
        Ok(Node { server: self, root })
    }
}

fn hex(bytes: &[u8]) -> String {
    let digit = |nibble: u8| char::from(b"0123456789abcdef"[usize::from(nibble)]);
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

struct Node<'s> {
    server: &'s Server,
    root: PathBuf,
}

impl Node<'_> {
    fn run(&self, command: &[&str]) -> Result<(i32, String, String)> {
        let (root, facts) = (self.root.to_string_lossy(), self.server.path("facts.json"));
        let more = ["--root", &root, "--facts", &facts.to_string_lossy()];
        self.server.agent(&[command, &more].concat())
    }

    fn exists(&self, path: &str) -> bool {
        self.root.join(path).symlink_metadata().is_ok()
    }

    /// Nothing is where it could be run, nor is a receipt that says it might be.
    fn has_nothing_of(&self, name: &str) -> bool {
        let releases = format!("opt/nodeagent/releases/{name}");
        !self.exists(&format!("opt/bin/{name}")) && fs::read_dir(self.root.join(releases)).is_err()
    }
}

fn says(ran: &(i32, String, String), code: i32, words: &[&str]) {
    let (ended, out, told) = ran;
    assert_eq!(*ended, code, "{out}{told}");
    for word in words {
        assert!(out.contains(word) || told.contains(word), "{word:?} is not in:\n{out}{told}");
    }
}

#[test]
fn a_release_is_locked_mirrored_and_checked() -> Result<()> {
    let server = Server::start()?;
    let lock = |name: &str| server.path(name).to_string_lossy().into_owned();
    says(&server.lock("stable-1.34", "a.json")?, 0, &["a.json: 7 files of v1.34.2. Its own sha256 is "]);
    says(&server.lock("v1.34.2", "b.json")?, 0, &[]);
    let bytes = fs::read(server.path("a.json"))?;
    assert_eq!(bytes, fs::read(server.path("b.json"))?, "the same release, the same bytes");
    let parsed: Value = serde_json::from_slice(&bytes)?;
    let kubelet = &parsed["artifacts"]["amd64"]["kubelet"];
    assert_eq!(kubelet["sha256"], digest(&program("kubelet", AMD64)));
    assert_eq!(kubelet["size"], program("kubelet", AMD64).len());
    assert_eq!(kubelet["path"], "v1.34.2/bin/linux/amd64/kubelet");
    assert_eq!(kubelet["trusted"], format!("{}/v1.34.2/bin/linux/amd64/kubelet.sha512", server.https()));

    // A mirror of it, over plain http: the digests are known now.
    let mirror = lock("mirror");
    // Another one was interrupted there.
    fs::create_dir_all(server.path("mirror/.partial"))?;
    fs::write(server.path("mirror/.partial/kubelet-0123456789ab"), "half")?;
    let make = ["lock", "--mirror", &mirror, "--file", &lock("a.json"), "--from", &server.http()];
    says(&server.agent(&make)?, 0, &["has all 7 files"]);
    assert_eq!(fs::read(server.path("mirror/v1.34.2.lock.json"))?, bytes);
    assert!(!server.path("mirror/.partial").exists());
    for place in [&mirror, &server.http()] {
        says(&server.agent(&["lock", "--verify", place, "--file", &lock("a.json")])?, 0, &["has all 7 files"]);
    }

    // What is wrong is named, and made right by making it again.
    let kubectl = server.path("mirror/v1.34.2/bin/linux/amd64/kubectl");
    let mut flipped = fs::read(&kubectl)?;
    flipped[63] ^= 1;
    fs::write(&kubectl, flipped)?;
    let verify = ["lock", "--verify", &mirror, "--file", &lock("a.json")];
    says(&server.agent(&verify)?, 4, &["1 of 7 files", "kubectl: its sha256 is ", "make the mirror anew"]);
    fs::remove_file(&kubectl)?;
    says(&server.agent(&verify)?, 1, &["kubectl: there is no such file"]);
    says(&server.agent(&make)?, 0, &[]);
    says(&server.agent(&verify)?, 0, &[]);
    server.serve("v1.34.2/bin/linux/amd64/kubectl", b"other")?;
    let there = server.http();
    says(&server.agent(&["lock", "--verify", &there, "--file", &lock("a.json")])?, 4, &["1 of 7 files", &there]);
    Ok(())
}

#[test]
fn a_lock_is_not_made_of_what_nothing_vouches_for() -> Result<()> {
    let server = Server::start()?;
    let kubectl = "v1.34.2/bin/linux/amd64/kubectl";
    for (path, content, code, words) in [
        (format!("{kubectl}.sha512"), "0".repeat(128), 4, "kubectl: its sha512 is"),
        (
            format!("{kubectl}.sha512"),
            format!("{}  kubelet", "0".repeat(128)),
            4,
            "it is the checksum of kubelet, not of kubectl",
        ),
        (format!("{kubectl}.sha512"), "<html>".to_owned(), 4, "\"<html>\" is no checksum"),
        (
            "stable-1.34.txt".to_owned(),
            "<html>".to_owned(),
            1,
            "stable-1.34.txt: \"<html>\" is not a Kubernetes version",
        ),
    ] {
        let before = fs::read(server.path("docroot/release").join(&path))?;
        server.serve(&path, content.as_bytes())?;
        says(&server.lock("stable-1.34", "x.json")?, code, &[words]);
        assert!(!server.path("x.json").exists(), "{content}");
        server.serve(&path, &before)?;
    }
    says(&server.lock("stable-9.99", "x.json")?, 1, &["stable-9.99.txt: HTTP 404"]);
    says(&server.lock("1.34.2", "x.json")?, 2, &["\"1.34.2\" is not a Kubernetes version"]);
    let plain = server.agent(&["lock", "v1.34.2", "--from", &server.http()])?;
    says(&plain, 1, &["plain http: a published checksum is worth as much as the connection"]);
    for (content, words) in [("{}", "missing field `apiVersion`"), ("<html>", "expected value at line 1")] {
        fs::write(server.path("garbage.json"), content)?;
        let file = server.path("garbage.json").to_string_lossy().into_owned();
        says(&server.agent(&["lock", "--verify", "/", "--file", &file])?, 2, &["it is no lock file", words]);
    }
    Ok(())
}

/// The lock of a release with these files besides, or in the place of its own.
fn lock_with(server: &Server, files: &[(&str, &str, &str, &[u8])]) -> Result<Vec<u8>> {
    says(&server.lock("v1.34.2", "lock.json")?, 0, &[]);
    let mut lock: Value = serde_json::from_slice(&fs::read(server.path("lock.json"))?)?;
    for (name, version, path, bytes) in files {
        server.serve(path, bytes)?;
        lock["artifacts"]["amd64"][name] = serde_json::json!({
            "version": version, "path": path, "size": bytes.len(), "sha256": digest(bytes), "trusted": "this test",
        });
    }
    Ok(lock.to_string().into_bytes())
}

const CRICTL: &str = "crictl/v1.34.0/crictl-v1.34.0-linux-amd64.tar.gz";

#[test]
fn a_node_installs_what_its_lock_says() -> Result<()> {
    let server = Server::start()?;
    let tar = archive("README.md", b"read me")?;
    let lock = lock_with(&server, &[("crictl", "v1.34.0", CRICTL, &tar)])?;
    server.serve_lock(&lock)?;
    let at = server.http();
    let signed = format!(
        "mirrors: [\"{at}\"]\nlock: {{ url: \"{at}/lock.json\", key: /etc/nodeagent/lock.pub }}\n\
         artifacts: {{ crictl: {{ version: v1.34.0 }} }}"
    );
    let node = server.install("signed", &signed)?;
    let plan = ["install", "--dry-run"];
    says(&node.run(&plan)?, 0, &["which /etc/nodeagent/lock.pub must have signed", "after install/lock"]);
    says(&node.run(&["install"])?, 0, &[]);
    for name in ["kubelet", "kube-proxy", "kubectl", "crictl"] {
        let link = fs::read_link(node.root.join("opt/bin").join(name))?;
        let placed = node.root.join(link.strip_prefix("/")?);
        assert_eq!(fs::read(&placed)?, program(name, AMD64), "{name}");
    }
    assert!(!node.exists("opt/nodeagent/releases/crictl/v1.34.0/bin/README.md"), "nobody asked for it");
    // Later boots need no server: what was verified is kept, with its proof.
    fs::rename(server.path("docroot/release"), server.path("docroot/gone"))?;
    says(&node.run(&plan)?, 0, &["Nothing to do"]);
    says(&node.run(&["install"])?, 0, &[]);
    // A lock file that was touched is noticed.
    fs::write(
        node.root.join("opt/nodeagent/lock.json"),
        String::from_utf8(lock.clone())?.replace("v1.34.0", "v1.34.9"),
    )?;
    says(&node.run(&plan)?, 0, &["the signature is not the key's over these bytes"]);
    says(&node.run(&["install"])?, 1, &["lock.json: HTTP 404"]);
    fs::rename(server.path("docroot/gone"), server.path("docroot/release"))?;

    // Pinned by digest, and as a file on the node.
    let pinned = format!("mirrors: [\"{at}\"]\nlock: {{ url: \"{at}/lock.json\", sha256: {} }}", digest(&lock));
    says(&server.install("pinned", &pinned)?.run(&["install"])?, 0, &[]);
    let node = server.install("file", &format!("mirrors: [\"{at}\"]\nlock: {{ file: /etc/nodeagent/lock.json }}"))?;
    says(&node.run(&["install"])?, 1, &["lock file /etc/nodeagent/lock.json: there is no such file"]);
    fs::write(node.root.join("etc/nodeagent/lock.json"), &lock)?;
    says(&node.run(&["install"])?, 0, &[]);
    Ok(())
}

#[test]
fn what_the_lock_does_not_vouch_for_is_not_installed() -> Result<()> {
    let server = Server::start()?;
    let at = server.http();
    let lock = lock_with(&server, &[])?;
    let signed = format!("mirrors: [\"{at}\"]\nlock: {{ url: \"{at}/lock.json\", key: /etc/nodeagent/lock.pub }}");
    let pinned = format!("mirrors: [\"{at}\"]\nlock: {{ url: \"{at}/lock.json\", sha256: {} }}", digest(&lock));
    let text = String::from_utf8(lock.clone())?;
    let (other, garbage) = (text.replace("v1.34.2", "v1.34.3"), "<html>".to_owned());
    // Altered after it was signed.
    server.serve_lock(&lock)?;
    server.serve("lock.json", text.replace("\"size\":", "\"size\": ").as_bytes())?;
    let node = server.install("altered", &signed)?;
    says(&node.run(&["install"])?, 4, &["lock.json: the signature is not the key's over these bytes", "cosign"]);
    assert!(node.has_nothing_of("kubelet") && !node.exists("opt/nodeagent/lock.json"));
    let node = server.install("wrong-digest", &pinned)?;
    says(&node.run(&["install"])?, 4, &["lock.json: its sha256 is "]);
    assert!(node.has_nothing_of("kubelet") && !node.exists("opt/nodeagent/lock.json"));
    // Signed, but not what is wanted.
    for (name, content, words) in [
        ("other", other, "it is for v1.34.3, not for v1.34.2"),
        ("garbage", garbage, "it is no lock file: expected value"),
        ("lacks", text.replace("\"kubectl\"", "\"kubectl2\""), "it has no kubectl v1.34.2 for amd64"),
    ] {
        server.serve_lock(content.as_bytes())?;
        let node = server.install(name, &signed)?;
        says(&node.run(&["install"])?, 1, &[words]);
        assert!(node.has_nothing_of("kubectl"), "{name}");
    }
    Ok(())
}

#[test]
fn a_file_that_is_right_but_not_for_this_node_is_not_installed() -> Result<()> {
    let server = Server::start()?;
    let at = server.http();
    let kubelet = "v1.34.2/bin/linux/amd64/kubelet";
    let arm = program("kubelet", ARM64);
    let cases = [
        ("arm", ("kubelet", "v1.34.2", kubelet, arm), "kubelet is a program for arm64, and this machine is amd64"),
        (
            "climbs",
            ("crictl", "v1.34.0", CRICTL, archive("../../etc/passwd", b"x")?),
            "\"../../etc/passwd\" would lie outside",
        ),
        ("absolute", ("crictl", "v1.34.0", CRICTL, archive("/etc/passwd", b"x")?), "\"/etc/passwd\" would lie outside"),
        ("twice", ("crictl", "v1.34.0", CRICTL, archive("crictl", b"x")?), "\"crictl\" is there twice"),
        (
            "no-archive",
            ("crictl", "v1.34.0", CRICTL, b"<html>".repeat(999)),
            "unpack crictl v1.34.0: it is no tar archive",
        ),
        (
            "device",
            ("crictl", "v1.34.0", CRICTL, entry(EntryType::Char, "dev/mem", "", b"")?),
            "\"dev/mem\" is a device",
        ),
        (
            "symbolic-link",
            ("crictl", "v1.34.0", CRICTL, entry(EntryType::Symlink, "bin", "/etc", b"")?),
            "\"bin\" is a symbolic link to the outside",
        ),
        (
            "hard-link",
            ("crictl", "v1.34.0", CRICTL, entry(EntryType::Link, "bin", "../../etc/shadow", b"")?),
            "\"bin\" is a hard link to the outside",
        ),
        ("bomb", ("crictl", "v1.34.0", CRICTL, bomb()?), "unpack crictl v1.34.0: it unpacks to more than 3 GiB"),
        (
            "arm-member",
            ("crictl", "v1.34.0", CRICTL, only("crictl", &program("crictl", ARM64))?),
            "crictl is a program for arm64",
        ),
    ];
    for (name, (artifact, version, path, bytes), words) in cases {
        server.serve_lock(&lock_with(&server, &[(artifact, version, path, &bytes)])?)?;
        let node = server.install(
            name,
            &format!(
                "mirrors: [\"{at}\"]\nlock: {{ url: \"{at}/lock.json\", key: /etc/nodeagent/lock.pub }}\n\
                 artifacts: {{ crictl: {{ version: v1.34.0 }} }}"
            ),
        )?;
        let ran = node.run(&["install"])?;
        // In the first case there is no crictl in the lock, which is said too; what did not verify decides.
        says(&ran, 4, &[words]);
        assert!(node.has_nothing_of(artifact), "{name}");
        assert!(node.exists("opt/bin/kube-proxy"), "{name}: the rest of the step goes on");
        server.publish(kubelet, &program("kubelet", AMD64))?;
    }
    Ok(())
}

/// An archive, compressed by gzip, with the right member and this.
fn entry(kind: EntryType, name: &str, link: &str, content: &[u8]) -> Result<Vec<u8>> {
    let mut tar = tar::Builder::new(gzip());
    let mut put = |kind: EntryType, name: &str, link: &str, content: &[u8]| {
        let mut header = tar::Header::new_gnu();
        // As tar's own writer would refuse to.
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_entry_type(kind);
        header.set_size(content.len() as u64);
        header.set_mode(0o755);
        header.set_cksum();
        tar.append(&header, content)
    };
    put(EntryType::Regular, "crictl", "", &program("crictl", AMD64))?;
    put(kind, name, link, content)?;
    Ok(tar.into_inner()?.finish()?)
}

/// Some 14 MB that unpack to more than any release: zeros that nobody asks for, beside the right member.
fn bomb() -> Result<Vec<u8>> {
    const ZEROS: u64 = (3 << 30) + 1;
    let mut tar = tar::Builder::new(gzip());
    for (name, size) in [("zeros", ZEROS), ("crictl", 4)] {
        let mut header = tar::Header::new_gnu();
        header.set_size(size);
        header.set_cksum();
        tar.append_data(&mut header, name, std::io::repeat(0).take(size))?;
    }
    Ok(tar.into_inner()?.finish()?)
}

fn gzip() -> flate2::write::GzEncoder<Vec<u8>> {
    flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast())
}

/// An archive with one file and nothing else, not compressed.
fn only(name: &str, content: &[u8]) -> Result<Vec<u8>> {
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(content.len() as u64);
    header.set_cksum();
    tar.append_data(&mut header, name, content)?;
    Ok(tar.into_inner()?)
}

#[test]
fn without_a_digest_only_an_https_server_vouches() -> Result<()> {
    let server = Server::start()?;
    let node = server.install("https", &format!("mirrors: [\"{}\"]", server.https()))?;
    says(
        &node.run(&["install", "--dry-run"])?,
        0,
        &["checksum published by its server: trusted as far as its certificate"],
    );
    says(&node.run(&["install"])?, 0, &[]);
    let receipt = node.root.join("opt/nodeagent/releases/kubelet/v1.34.2/receipt.json");
    assert_eq!(serde_json::from_slice::<Value>(&fs::read(receipt)?)?["trust"], "published");
    says(&node.run(&["install", "--dry-run"])?, 0, &["Nothing to do"]);

    let sum = "v1.34.2/bin/linux/amd64/kubelet.sha512";
    for (name, content, words) in [
        ("wrong", "0".repeat(128), "not the published 000000"),
        ("of-another", format!("{}  kubectl", "0".repeat(128)), "it is the checksum of kubectl, not of kubelet"),
    ] {
        server.serve(sum, content.as_bytes())?;
        let node = server.install(name, &format!("mirrors: [\"{}\"]", server.https()))?;
        says(&node.run(&["install"])?, 4, &[words]);
        assert!(node.has_nothing_of("kubelet"), "{name}");
    }
    let node = server.install("plain", &format!("mirrors: [\"{}\"]", server.http()))?;
    says(&node.run(&["install"])?, 2, &["nothing vouches for what", "over plain http"]);
    Ok(())
}
