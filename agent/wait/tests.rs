//! Real sockets on loopback, opened late, closed, silent, or wrong.

#![allow(clippy::disallowed_methods, reason = "tests prepare their own files and run openssl")]

use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, UnixListener};

use super::http::HttpOptions;
use super::*;
use crate::free_port::free_port;
use crate::host::probe::{TlsFault, TlsFiles};

/// Long enough for a busy machine: a test that succeeds never waits for it.
const PATIENCE: Option<Duration> = Some(Duration::from_mins(1));
const BRIEF: Duration = Duration::from_secs(1);
const LATE: Duration = Duration::from_millis(200);

fn target(text: impl AsRef<str>) -> Target {
    text.as_ref().parse().expect("a target")
}

fn trusting(ca: PathBuf) -> Prober {
    let tls = TlsFiles { ca: Some(ca), ..TlsFiles::default() };
    Prober::new(HttpOptions { tls, ..HttpOptions::default() }, None)
}

async fn wait_for(targets: &[Target], how: How, timeout: Option<Duration>) -> Result<Waited, WaitError> {
    wait(&Prober::default(), targets, how, timeout, |_| ()).await
}

/// Waits for a second and returns the one target's reason.
async fn reason(prober: &Prober, text: &str) -> Reason {
    match wait(prober, &[target(text)], How::All, Some(BRIEF), |_| ()).await {
        Err(WaitError::NotReady(mut error)) => {
            assert!(error.to_string().contains(text), "{error} does not name {text}");
            error.pending.remove(0).reason.expect("a reason")
        }
        other => panic!("{text}: {other:?}"),
    }
}

async fn listener() -> (TcpListener, u16) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a listener");
    let port = listener.local_addr().expect("its address").port();
    (listener, port)
}

/// Answers each connection with the next of these, and with the last one for ever; an empty one only closes it.
fn serve(listener: TcpListener, answers: &'static [&'static str]) {
    tokio::spawn(async move {
        for count in 0.. {
            let (mut stream, _) = listener.accept().await?;
            let mut request = [0; 1024];
            let _ = stream.read(&mut request).await?;
            stream.write_all(answers[answers.len().min(count + 1) - 1].as_bytes()).await?;
        }
        io::Result::Ok(())
    });
}

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
const UNAVAILABLE: &str = "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
const FORBIDDEN: &str = "HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";

#[tokio::test]
async fn a_port_that_opens_late() {
    let port = free_port();
    let opened = tokio::spawn(async move {
        sleep(LATE).await;
        let listener = TcpListener::bind(("127.0.0.1", port)).await.expect("the port is free");
        (listener, Instant::now())
    });
    let start = Instant::now();
    let told = Mutex::new(Vec::new());
    // As wupiao's callers write it.
    let targets = [target(format!("127.0.0.1:{port}"))];
    let tell = |progress: &Progress<'_>| told.lock().expect("a lock").push(progress.to_string());
    let waited = wait(&Prober::default(), &targets, How::All, PATIENCE, tell).await.expect("it opens");
    assert!(start.elapsed() >= LATE, "ready after {:?}, before it opened", start.elapsed());
    assert_eq!(waited.ready.len(), 1);
    assert_eq!(waited.ready[0].0, targets[0]);
    assert!(waited.ready[0].1 >= LATE);
    drop(opened.await.expect("the listener"));
    let told = told.into_inner().expect("a lock");
    assert_eq!(told[0], format!("waiting for {}: connection refused, nothing listens there", targets[0]));
    assert!(told[1].starts_with(&format!("{} is ready after ", targets[0])), "{told:?}");
    assert_eq!(told.len(), 2, "{told:?}");
}

/// A port of the ephemeral range may be chosen as the source of the very try for it, and that connection opens.
#[tokio::test]
async fn a_connection_to_itself_is_nobody_listening() {
    // The kernel gives odd ports to those who bind, and even ones to those who connect.
    let port = listener().await.1 & !1;
    let until = Instant::now() + Duration::from_mins(1);
    // As many tries as there are ephemeral ports, several times over.
    for count in 0..100_000 {
        let found = crate::host::probe::connect("127.0.0.1", port, until).await;
        assert_eq!(found, Err(Reason::Refused), "try {count}");
    }
    // What opened by chance is gone without a trace: a server can have the port.
    TcpListener::bind(("127.0.0.1", port)).await.expect("the port is free");
}

#[tokio::test]
async fn the_deadline_ends_it_with_each_reason() {
    let refused = target(format!("tcp://127.0.0.1:{}", free_port()));
    let absent = target("file:/nonexistent/file");
    let (open, port) = listener().await;
    let targets = [refused.clone(), target(format!("127.0.0.1:{port}")), absent.clone()];
    let start = Instant::now();
    let error = wait_for(&targets, How::All, Some(BRIEF)).await.expect_err("two are not ready");
    let elapsed = start.elapsed();
    drop(open);
    assert!(elapsed >= BRIEF && elapsed < BRIEF + Duration::from_secs(5), "gave up after {elapsed:?}");
    assert_eq!(error.class(), Class::Deadline);
    let message = error.to_string();
    let WaitError::NotReady(error) = error else { panic!("{error}") };
    assert_eq!(
        error.pending,
        [
            Pending { target: refused, reason: Some(Reason::Refused) },
            Pending { target: absent, reason: Some(Reason::Absent) },
        ]
    );
    assert!(message.contains("connection refused"), "{message}");
    assert!(message.contains("file:/nonexistent/file: it does not exist"), "{message}");
}

#[tokio::test]
async fn any_returns_with_the_first() {
    let (open, port) = listener().await;
    let first = target(format!("127.0.0.1:{port}"));
    let targets = [target("file:/nonexistent/file"), first.clone()];
    let waited = wait_for(&targets, How::Any, PATIENCE).await.expect("one is ready");
    drop(open);
    assert_eq!(waited.ready.len(), 1);
    assert_eq!(waited.ready[0].0, first);
}

#[tokio::test]
async fn a_name_that_does_not_resolve() {
    let found = reason(&Prober::default(), "tcp://no-such-name.invalid:80").await;
    assert!(matches!(found, Reason::Unresolved(_)), "{found}");
    let found = reason(&Prober::default(), "http://no-such-name.invalid:80/").await;
    assert!(matches!(found, Reason::Unresolved(_)), "{found}");
}

#[tokio::test]
async fn http_refused() {
    let port = free_port();
    assert_eq!(reason(&Prober::default(), &format!("http://127.0.0.1:{port}/")).await, Reason::Refused);
}

#[tokio::test]
async fn a_server_that_never_answers() {
    let (silent, port) = listener().await;
    assert_eq!(reason(&Prober::default(), &format!("http://127.0.0.1:{port}/")).await, Reason::NoAnswer);
    assert_eq!(reason(&Prober::default(), &format!("https://127.0.0.1:{port}/")).await, Reason::NoAnswer);
    drop(silent);
}

#[tokio::test]
async fn a_server_that_hangs_up() {
    let (listener, port) = listener().await;
    serve(listener, &[""]);
    assert_eq!(reason(&Prober::default(), &format!("http://127.0.0.1:{port}/")).await, Reason::NoAnswer);
}

#[tokio::test]
async fn a_server_that_speaks_something_else() {
    let (listener, port) = listener().await;
    serve(listener, &["SSH-2.0-OpenSSH_9.2\r\n"]);
    let found = reason(&Prober::default(), &format!("http://127.0.0.1:{port}/")).await;
    assert!(matches!(found, Reason::NotHttp(_)), "{found:?}");
    let found = reason(&Prober::default(), &format!("https://127.0.0.1:{port}/")).await;
    assert_eq!(found, Reason::Tls(TlsFault::NotTls));
}

#[tokio::test]
async fn http_503_then_200() {
    let (listener, port) = listener().await;
    serve(listener, &[UNAVAILABLE, UNAVAILABLE, OK]);
    let told = Mutex::new(Vec::new());
    let tell = |progress: &Progress<'_>| told.lock().expect("a lock").push(progress.to_string());
    let targets = [target(format!("http://127.0.0.1:{port}/readyz?verbose"))];
    wait(&Prober::default(), &targets, How::All, PATIENCE, tell).await.expect("the third answer is 200");
    let told = told.into_inner().expect("a lock");
    assert_eq!(told[0], format!("waiting for {}: HTTP status 503", targets[0]));
    assert_eq!(told.len(), 2, "a reason that stays is told once: {told:?}");
}

#[tokio::test]
async fn http_403_says_that_the_port_is_open() {
    let (listener, port) = listener().await;
    serve(listener, &[FORBIDDEN]);
    let found = reason(&Prober::default(), &format!("http://127.0.0.1:{port}/")).await;
    assert_eq!(found, Reason::Status(403));
    assert!(found.to_string().contains("the port is open"), "{found}");
}

#[tokio::test]
async fn a_unix_socket() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("socket");
    let text = format!("unix://{}", path.display());
    assert_eq!(reason(&Prober::default(), &text).await, Reason::Absent);
    std::fs::write(&path, "").expect("a file");
    assert_eq!(reason(&Prober::default(), &text).await, Reason::NotSocket);
    std::fs::remove_file(&path).expect("removed");
    let socket = UnixListener::bind(&path).expect("a socket");
    wait_for(&[target(&text)], How::All, PATIENCE).await.expect("it listens");
    drop(socket);
    assert_eq!(reason(&Prober::default(), &text).await, Reason::Refused);
}

#[tokio::test]
async fn a_file_that_appears() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("file");
    let targets = [target(format!("file:{}", path.display()))];
    let start = Instant::now();
    let writer = async {
        sleep(LATE).await;
        std::fs::write(&path, "").expect("a file");
    };
    let (waited, ()) = tokio::join!(wait_for(&targets, How::All, PATIENCE), writer);
    waited.expect("it appears");
    assert!(start.elapsed() >= LATE);
}

/// A key and a self-signed certificate for 127.0.0.1.
fn self_signed(folder: &Path) {
    let status = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"])
        .args(["-subj", "/CN=test", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", "key.pem", "-out", "ca.pem"])
        .current_dir(folder)
        .stderr(std::process::Stdio::null())
        .status();
    assert!(status.expect("openssl runs").success());
}

/// `openssl s_server`, ended when dropped.
struct TlsServer(std::process::Child);

impl TlsServer {
    fn start(folder: &Path, port: u16) -> Self {
        let child = Command::new("openssl")
            .args(["s_server", "-quiet", "-www", "-key", "key.pem", "-cert", "ca.pem"])
            .args(["-accept", &format!("127.0.0.1:{port}")])
            .current_dir(folder)
            .stdin(std::process::Stdio::null())
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .spawn();
        Self(child.expect("openssl runs"))
    }
}

impl Drop for TlsServer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test]
async fn tls_by_its_authority() {
    let folder = tempfile::tempdir().expect("a folder");
    self_signed(folder.path());
    let port = free_port();
    let _server = TlsServer::start(folder.path(), port);
    wait_for(&[target(format!("127.0.0.1:{port}"))], How::All, PATIENCE).await.expect("it listens");

    let url = format!("https://127.0.0.1:{port}/");
    assert_eq!(reason(&Prober::default(), &url).await, Reason::Tls(TlsFault::UntrustedAuthority));
    let trusting = trusting(folder.path().join("ca.pem"));
    wait(&trusting, &[target(&url)], How::All, PATIENCE, |_| ()).await.expect("the authority is trusted");
    let other_name = format!("https://localhost:{port}/");
    assert_eq!(reason(&trusting, &other_name).await, Reason::Tls(TlsFault::WrongName));
}

#[tokio::test]
async fn a_bad_ca_file_is_told_at_once() {
    let folder = tempfile::tempdir().expect("a folder");
    let ca = folder.path().join("ca.pem");
    let targets = [target("https://127.0.0.1:1/")];
    let unreadable = wait(&trusting(ca.clone()), &targets, How::All, PATIENCE, |_| ()).await;
    assert!(matches!(unreadable, Err(WaitError::Prober(BadAsker::Unreadable { .. }))), "{unreadable:?}");
    std::fs::write(&ca, "not a certificate").expect("a file");
    let empty = wait(&trusting(ca), &targets, How::All, PATIENCE, |_| ()).await;
    assert!(matches!(empty, Err(WaitError::Prober(BadAsker::Useless { .. }))), "{empty:?}");
}
