//! The signer `cfssl` against the real server from Debian's golang-cfssl, over TLS, without root.
// Tests are no part of the agent: they may run programs and write files.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use openssl::ssl::{SslConnector, SslMethod};
use openssl::x509::X509;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::Order;
use super::cfssl::{Cfssl, CfsslError};
use crate::certs::authority::{Authority, unix};
use crate::certs::check::check;
use crate::certs::flaw::Flaw;
use crate::certs::key::Key;
use crate::certs::request::{Usage, Wanted, request};
use crate::certs::testing::{Ca, CaKind, DAY, Issue, client, new_key, now, seen_file, server};
use crate::config::values::RootPath;
use crate::free_port::free_port;

const AUTH_KEY: &str = "00112233445566778899aabbccddeeff";

/// How long the server may take to answer its first connection.
const START: Duration = Duration::from_secs(20);

/// A running cfssl with its own CA, configuration and port.
struct Server {
    child: Child,
    ca: Ca,
    port: u16,
    _files: TempDir,
}

/// Only the process that was started here is ended.
impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Server {
    fn start(kind: CaKind) -> Self {
        // The server lives in the machine's own time, not in the tests'.
        let offset = unix(SystemTime::now()) - unix(now());
        let ca = Ca::new(kind, true, offset - DAY, offset + 30 * DAY);
        let key = new_key();
        let tls = Wanted { dns: vec!["localhost".into()], ..server() };
        let tls = ca.issue(&tls, &key, &Issue { valid: (offset - DAY, offset + DAY), ..Issue::default() });
        let profile = |usages: &[&str]| {
            let usages: Vec<&str> = ["signing", "digital signature"].iter().chain(usages).copied().collect();
            json!({ "usages": usages, "expiry": "720h", "auth_key": "node" })
        };
        let mut choosy = profile(&["client auth"]);
        choosy["name_whitelist"] = json!("^nobody$");
        let mut open = profile(&["client auth"]);
        open.as_object_mut().expect("an object").remove("auth_key");
        let config = json!({
            "signing": {
                "default": profile(&["client auth"]),
                "profiles": {
                    "client": profile(&["client auth"]),
                    "server": profile(&["server auth"]),
                    "choosy": choosy,
                    "open": open,
                },
            },
            "auth_keys": { "node": { "type": "standard", "key": AUTH_KEY } },
        });
        let files = TempDir::new().expect("a directory");
        let write = |name: &str, bytes: &[u8]| {
            let path = files.path().join(name);
            fs::write(&path, bytes).expect(name);
            path
        };
        let port = free_port();
        let child = Command::new("cfssl")
            .arg("serve")
            .args(["-address", "127.0.0.1", "-port", &port.to_string(), "-loglevel", "5"])
            .arg("-ca")
            .arg(write("ca.pem", &ca.pem()))
            .arg("-ca-key")
            .arg(write("ca-key.pem", &traditional(&ca)))
            .arg("-config")
            .arg(write("config.json", config.to_string().as_bytes()))
            .arg("-tls-cert")
            .arg(write("tls.pem", &tls))
            .arg("-tls-key")
            .arg(write("tls-key.pem", &key.to_pem().expect("PEM")))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("cfssl runs (Debian: golang-cfssl)");
        let mut server = Self { child, ca, port, _files: files };
        server.wait();
        server
    }

    fn wait(&mut self) {
        let begin = Instant::now();
        while TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            assert!(begin.elapsed() < START, "cfssl does not listen on {}", self.port);
            assert!(self.child.try_wait().expect("its state").is_none(), "cfssl ended");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn authority(&self) -> Authority {
        Authority::read(&RootPath::literal("/ca.pem"), Some(&self.ca.pem()), SystemTime::now()).expect("a CA")
    }

    /// Posts to the server, trusting its CA alone; status and JSON of the answer.
    fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        let mut connector = SslConnector::builder(SslMethod::tls()).expect("a connector");
        connector.cert_store_mut().add_cert(self.ca.certificate.clone()).expect("the CA");
        let stream = TcpStream::connect(("127.0.0.1", self.port)).expect("a connection");
        let mut stream = connector.build().connect("localhost", stream).expect("TLS under the pinned CA");
        let body = body.to_string();
        let head = format!("POST {path} HTTP/1.0\r\nHost: localhost\r\nContent-Type: application/json\r\n");
        write!(stream, "{head}Content-Length: {}\r\n\r\n{body}", body.len()).expect("sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
        (status, serde_json::from_str(body).unwrap_or_else(|_| Value::String(body.to_owned())))
    }

    /// Everything that `Cfssl::sign` does, but for who posts.
    fn sign(&self, wanted: &Wanted, key: &Key, profile: &str, auth_key: &str) -> Result<Vec<u8>, CfsslError> {
        let cfssl = Cfssl {
            url: format!("https://localhost:{}", self.port).parse().expect("a URL"),
            auth_key_file: RootPath::literal("/etc/nodeagent/cfssl.key"),
            profile: profile.into(),
        };
        let auth_key = cfssl.auth_key(&seen_file(&cfssl.auth_key_file, Some(auth_key.as_bytes())))?;
        let request = request(wanted, key).expect("a request");
        let ca = self.authority();
        let order = Order { request: &request, wanted, ca: &ca };
        let (status, answer) = self.post(super::cfssl::ENDPOINT, &cfssl.message(&order, &auth_key)?);
        assert_eq!(status == 200, answer["success"] == true, "{status} {answer}");
        cfssl.certificate(&answer)
    }
}

/// cfssl 1.2 reads RSA keys as PKCS#1 and EC keys as SEC1.
fn traditional(ca: &Ca) -> Vec<u8> {
    let rsa = || ca.key.rsa().and_then(|key| key.private_key_to_pem());
    let ec = || ca.key.ec_key().and_then(|key| key.private_key_to_pem());
    rsa().or_else(|_| ec()).expect("PEM")
}

/// The extensions of a certificate as OpenSSL prints them, without what differs from run to run.
fn extensions(certificate: &[u8]) -> String {
    let text = X509::from_pem(certificate).and_then(|certificate| certificate.to_text()).expect("text");
    let text = String::from_utf8(text).expect("UTF-8");
    let lines = text.lines().skip_while(|line| !line.contains("X509v3 extensions")).skip(1);
    let lines = lines.take_while(|line| !line.contains("Signature Algorithm")).map(|line| match line.trim() {
        name if name.starts_with("X509v3") => name.to_owned(),
        value if value.len() > 20 && value.chars().all(|c| c.is_ascii_hexdigit() || c == ':') => {
            "    (a digest)".into()
        }
        value => format!("    {value}"),
    });
    lines.collect::<Vec<_>>().join("\n")
}

#[test]
fn a_real_server_signs_what_is_asked() {
    for kind in [CaKind::Rsa, CaKind::Ec] {
        let server_process = Server::start(kind);
        let names = vec!["worker-01".to_owned()];
        for (wanted, profile) in
            [(client(), "client"), (server(), "server"), (Wanted { dns: names, ..client() }, "client")]
        {
            let key = new_key();
            let certificate = server_process.sign(&wanted, &key, profile, AUTH_KEY).expect("a certificate");
            let pair = [certificate.as_slice(), &key.to_pem().expect("PEM")].concat();
            let flaws = check(Some(&pair), &wanted, &server_process.authority(), SystemTime::now());
            assert_eq!(flaws, [], "{kind:?} {wanted:?}");
        }
    }
}

#[test]
fn the_extensions_of_each_certificate() {
    let process = Server::start(CaKind::Ec);
    let key = new_key();
    let of = |wanted: &Wanted, profile| extensions(&process.sign(wanted, &key, profile, AUTH_KEY).expect(profile));
    insta::assert_snapshot!(of(&client(), "client"), @r"
        X509v3 Key Usage: critical
            Digital Signature
        X509v3 Extended Key Usage:
            TLS Web Client Authentication
        X509v3 Basic Constraints: critical
            CA:FALSE
        X509v3 Subject Key Identifier:
            (a digest)
    ");
    insta::assert_snapshot!(of(&server(), "server"), @r"
        X509v3 Key Usage: critical
            Digital Signature
        X509v3 Extended Key Usage:
            TLS Web Server Authentication
        X509v3 Basic Constraints: critical
            CA:FALSE
        X509v3 Subject Key Identifier:
            (a digest)
        X509v3 Subject Alternative Name:
            DNS:worker-01, IP Address:10.10.30.21
    ");
}

#[test]
fn a_real_server_refuses_in_its_own_words() {
    let process = Server::start(CaKind::Ec);
    let key = new_key();
    let refuse = |profile, auth_key| process.sign(&client(), &key, profile, auth_key).expect_err(profile);
    let wrong = refuse("client", "ffeeddccbbaa99887766554433221100");
    assert!(matches!(wrong, CfsslError::WrongKey { .. }), "{wrong:?}");
    assert!(!format!("{wrong:?} {wrong}").contains("ffeedd"), "the key is in the message");
    let open = refuse("open", AUTH_KEY);
    assert!(matches!(open, CfsslError::ProfileUnauthenticated { .. }), "{open:?}");
    let choosy = refuse("choosy", AUTH_KEY);
    assert!(matches!(choosy, CfsslError::Policy { code: 5500, .. }), "{choosy:?}");
}

#[test]
fn a_profile_that_is_not_there_is_noticed_by_what_its_certificate_lacks() {
    let process = Server::start(CaKind::Ec);
    let key = new_key();
    let certificate = process.sign(&server(), &key, "srever", AUTH_KEY).expect("signed with the default profile");
    let pair = [certificate.as_slice(), &key.to_pem().expect("PEM")].concat();
    let flaws = check(Some(&pair), &server(), &process.authority(), SystemTime::now());
    assert_eq!(flaws, [Flaw::UsageMissing(Usage::Server)]);
}

#[test]
fn without_the_key_nothing_is_signed() {
    let process = Server::start(CaKind::Ec);
    let csr = request(&client(), &new_key()).expect("a request");
    let (status, answer) =
        process.post("/api/v1/cfssl/sign", &json!({ "certificate_request": csr, "profile": "client" }));
    assert_ne!(status, 200, "{answer}");
}
