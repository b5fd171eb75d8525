//! `nodeagent wait` against real servers: each reason that it gives, and each answer that will do.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::net::{IpAddr, Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use openssl::asn1::Asn1Time;
use openssl::ec::{EcGroup, EcKey};
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{PKey, Private};
use openssl::x509::extension::{BasicConstraints, SubjectAlternativeName};
use openssl::x509::{X509, X509NameBuilder};
use serde_json::Value;

use crate::free_port::free_port;

const DAY: i64 = 86_400;

/// What never comes is given up after this long; all wait at the same time.
const GIVE_UP: &str = "10s";

fn agent(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_nodeagent")).args(args).stdin(Stdio::null()).output().expect("the agent runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A program that ends with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start(program: &str, args: &[&str], folder: &Path, port: u16) -> Running {
    let mut command = Command::new(program);
    command.args(args).current_dir(folder).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let running = Running(command.spawn().unwrap_or_else(|error| panic!("{program}: {error}")));
    let opened = agent(&["wait", "--timeout", "60s", &format!("127.0.0.1:{port}")]);
    assert!(opened.status.success(), "{program}: {}", text(&opened.stderr));
    running
}

/// A real nginx with these `server` blocks, the last of which listens on `port`.
fn nginx(folder: &Path, servers: &str, port: u16) -> Running {
    let temporary: String =
        ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].map(|kind| format!("{kind}_temp_path {kind};")).concat();
    let file = folder.join("nginx.conf");
    let configuration = format!(
        "daemon off; master_process off; pid nginx.pid; error_log error.log;\n\
         events {{}}\nhttp {{ access_log off; {temporary}\n{servers} }}\n"
    );
    fs::write(&file, configuration).expect("nginx.conf");
    let prefix = format!("{}/", folder.display());
    start("nginx", &["-p", &prefix, "-e", "error.log", "-c", &file.display().to_string()], folder, port)
}

/// A certificate authority.
struct Ca {
    certificate: X509,
    key: PKey<Private>,
}

impl Ca {
    fn new() -> Self {
        let key = key();
        Self { certificate: certificate("test CA", &key, (-DAY, DAY), None, None), key }
    }

    /// Writes `NAME.pem`: a certificate for an address, and its key; valid between these times, in seconds from now.
    fn issue(&self, folder: &Path, name: &str, validity: (i64, i64), address: IpAddr) {
        let key = key();
        let certificate = certificate(name, &key, validity, Some(address), Some(self));
        let mut pem = certificate.to_pem().expect("PEM");
        pem.extend(key.private_key_to_pem_pkcs8().expect("PEM"));
        fs::write(folder.join(format!("{name}.pem")), pem).expect("a pair");
    }
}

fn key() -> PKey<Private> {
    let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1).expect("a curve");
    PKey::from_ec_key(EcKey::generate(&group).expect("a key")).expect("a key")
}

fn certificate(
    name: &str,
    key: &PKey<Private>,
    (from, until): (i64, i64),
    address: Option<IpAddr>,
    issuer: Option<&Ca>,
) -> X509 {
    let build = || {
        let now =
            i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).expect("a time").as_secs()).expect("small");
        let mut subject = X509NameBuilder::new()?;
        subject.append_entry_by_nid(Nid::COMMONNAME, name)?;
        let subject = subject.build();
        let mut builder = X509::builder()?;
        builder.set_version(2)?;
        builder.set_subject_name(&subject)?;
        builder.set_issuer_name(issuer.map_or(&subject, |ca| ca.certificate.subject_name()))?;
        builder.set_pubkey(key)?;
        builder.set_not_before(&*Asn1Time::from_unix(now + from)?)?;
        builder.set_not_after(&*Asn1Time::from_unix(now + until)?)?;
        match address {
            Some(address) => {
                let context = builder.x509v3_context(issuer.map(|ca| &*ca.certificate), None);
                let names = SubjectAlternativeName::new().ip(&address.to_string()).build(&context)?;
                builder.append_extension(names)?;
            }
            None => builder.append_extension(BasicConstraints::new().critical().ca().build()?)?,
        }
        builder.sign(issuer.map_or(key, |ca| &ca.key), MessageDigest::sha256())?;
        Ok::<_, openssl::error::ErrorStack>(builder.build())
    };
    build().expect("a certificate")
}

/// A folder with an authority and pairs for 127.0.0.1: one that is good, and one for each way not to be.
fn pairs() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a folder");
    let ca = Ca::new();
    fs::write(folder.path().join("ca.pem"), ca.certificate.to_pem().expect("PEM")).expect("ca.pem");
    let here = IpAddr::V4(Ipv4Addr::LOCALHOST);
    ca.issue(folder.path(), "good", (-DAY, DAY), here);
    ca.issue(folder.path(), "expired", (-DAY, -60), here);
    ca.issue(folder.path(), "early", (DAY, 2 * DAY), here);
    ca.issue(folder.path(), "other", (-DAY, DAY), IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2)));
    let path = folder.path().to_owned();
    (folder, path)
}

/// Waits with `-o json`; the code and the reason of the one target that is pending, or nothing when it became ready.
fn pending(args: &[&str]) -> Option<(String, String)> {
    let output = agent(&[&["wait", "--timeout", GIVE_UP, "-o", "json"], args].concat());
    let report: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{args:?}: {error}: {}", text(&output.stderr)));
    match output.status.code() {
        Some(0) => {
            assert_eq!(report["ready"].as_array().map(Vec::len), Some(1), "{args:?}: {report}");
            assert!(report["ready"][0]["afterMilliseconds"].is_u64(), "{args:?}: {report}");
            None
        }
        Some(3) => {
            let of = |key: &str| report["pending"][0][key].as_str().unwrap_or_default().to_owned();
            let told = text(&output.stderr);
            assert!(told.contains(&of("target")) && told.contains(&of("reason")), "{args:?}: {told}");
            Some((of("code"), of("reason")))
        }
        code => panic!("{args:?}: exit code {code:?}: {}", text(&output.stderr)),
    }
}

/// A target, options, and the reason's code and words of it; nothing where it is ready.
type Case<'a> = (String, Vec<&'a str>, Option<(&'a str, &'a str)>);

#[test]
fn each_reason_of_a_real_server_and_each_answer_that_will_do() {
    let (_folder, path) = pairs();
    let [closed, plain, good, expired, early, other, strict, picky] = std::array::from_fn(|_| free_port());
    let tls = |port: u16, pair: &str| {
        format!("listen 127.0.0.1:{port} ssl; ssl_certificate {pair}.pem; ssl_certificate_key {pair}.pem;")
    };
    let ok = "location / { return 200 well; }";
    let servers = [
        format!("{} {ok}", tls(good, "good")),
        format!("{} {ok}", tls(expired, "expired")),
        format!("{} {ok}", tls(early, "early")),
        format!("{} {ok}", tls(other, "other")),
        format!("{} ssl_client_certificate ca.pem; ssl_verify_client on; {ok}", tls(strict, "good")),
        format!(
            "listen 127.0.0.1:{plain}; {ok} location /down {{ return 503; }} location /login {{ return 401; }} \
             location /on {{ return 302 /; }} \
             location /post {{ if ($request_method != POST) {{ return 405; }} return 204; }}"
        ),
    ];
    let servers = servers.map(|server| format!("server {{ {server} }}\n")).concat();
    // nginx refuses a client without a certificate by HTTP; OpenSSL's own server, as etcd does, by a TLS alert.
    let _nginx = nginx(&path, &servers, plain);
    let accept = format!("127.0.0.1:{picky}");
    let args = ["s_server", "-quiet", "-www", "-cert", "good.pem", "-accept", &accept];
    let verify = ["-CAfile", "ca.pem", "-Verify", "1", "-verify_return_error"];
    let _openssl = start("openssl", &[&args[..], &verify].concat(), &path, picky);

    let file = |name: &str| path.join(name).display().to_string();
    let (ca, pair) = (file("ca.pem"), file("good.pem"));
    let http = |tail: &str| format!("http://127.0.0.1:{plain}{tail}");
    let https = |port: u16| format!("https://127.0.0.1:{port}/");
    let cases: Vec<Case<'_>> = vec![
        (format!("tcp://127.0.0.1:{closed}"), vec![], Some(("refused", "nothing listens there"))),
        ("dns:no-such-name.invalid".into(), vec![], Some(("unresolved", "does not resolve"))),
        ("http://no-such-name.invalid/".into(), vec![], Some(("unresolved", "does not resolve"))),
        ("dns:localhost".into(), vec![], None),
        (http("/"), vec![], None),
        (http("/on"), vec![], None),
        (http("/down"), vec![], Some(("http-status", "HTTP status 503"))),
        (http("/login"), vec![], Some(("http-status", "401 (the port is open"))),
        (http("/login"), vec!["--status", "2xx,401"], None),
        (http("/"), vec!["--status", "204"], Some(("http-status", "HTTP status 200"))),
        (http("/"), vec!["--body", "well"], None),
        (http("/"), vec!["--body", "better"], Some(("http-body", "without the wanted text"))),
        (http("/post"), vec!["--method", "POST"], None),
        (http("/post"), vec!["--method", "HEAD"], Some(("http-status", "HTTP status 405"))),
        (https(plain), vec!["--ca", &ca], Some(("not-tls", "does not speak TLS"))),
        (https(good), vec!["--ca", &ca], None),
        (https(good), vec![], Some(("tls-authority", "not from a trusted authority"))),
        (https(expired), vec!["--ca", &ca], Some(("tls-expired", "has expired"))),
        (https(early), vec!["--ca", &ca], Some(("tls-not-yet-valid", "not valid yet"))),
        (https(other), vec!["--ca", &ca], Some(("tls-name", "another name or address"))),
        (format!("https://localhost:{good}/"), vec!["--ca", &ca], Some(("tls-name", "another name or address"))),
        (https(strict), vec!["--ca", &ca], Some(("http-status", "HTTP status 400"))),
        (https(strict), vec!["--ca", &ca, "--cert", &pair], None),
        (https(strict), vec!["--ca", &ca, "--cert", &pair, "--key", &pair], None),
        (https(picky), vec!["--ca", &ca], Some(("tls-client-certificate", "wants a client certificate"))),
        (https(picky), vec!["--ca", &ca, "--cert", &pair], None),
        (format!("apiserver://127.0.0.1:{good}"), vec!["--ca", &ca, "--body", "well"], None),
        (format!("etcd://127.0.0.1:{plain}"), vec![], None),
        (format!("etcd://127.0.0.1:{strict}"), vec!["--ca", &ca, "--cert", &pair], None),
    ];
    std::thread::scope(|scope| {
        for (target, args, want) in &cases {
            scope.spawn(move || {
                let found = pending(&[&args[..], &[target.as_str()]].concat());
                match (found, want) {
                    (None, None) => (),
                    (Some((code, reason)), Some((want, words))) if code == *want && reason.contains(words) => (),
                    (found, _) => panic!("{target} {args:?}: {found:?}, not {want:?}"),
                }
            });
        }
    });
}

#[test]
fn the_api_server_of_node_yaml() {
    let (_folder, path) = pairs();
    let port = free_port();
    let server = format!(
        "server {{ listen 127.0.0.1:{port} ssl; ssl_certificate good.pem; ssl_certificate_key good.pem; \
         location = /readyz {{ return 200 ok; }} }}"
    );
    let _nginx = nginx(&path, &server, port);
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/01-worker/root/etc/nodeagent/node.yaml");
    let golden = fs::read_to_string(golden).expect("a worker's configuration");
    let yaml: String = golden
        .lines()
        .map(|line| match line.trim_start() {
            text if text.starts_with("apiServer:") => format!("  apiServer: https://127.0.0.1:{port}\n"),
            text if text.starts_with("ca:") => format!("  ca: {}\n", path.join("ca.pem").display()),
            _ => format!("{line}\n"),
        })
        .collect();
    let file = path.join("node.yaml").display().to_string();
    fs::write(&file, yaml).expect("node.yaml");
    assert_eq!(pending(&["--config", &file, "apiserver"]), None);

    fs::write(&file, "kind: nonsense\n").expect("node.yaml");
    let refused = agent(&["wait", "--config", &file, "apiserver"]);
    assert_eq!(refused.status.code(), Some(2), "{}", text(&refused.stderr));
}

#[test]
fn bad_usage_is_told_before_anything_is_waited_for() {
    let (_folder, path) = pairs();
    let file = |name: &str| path.join(name).display().to_string();
    let (ca, absent) = (file("ca.pem"), file("absent.pem"));
    for (args, code, words) in [
        (&["x"][..], 2, "names no port"),
        (&["--status", "2x", "http://x/"], 2, "a class such as 2xx"),
        (&["--key", &ca, "https://127.0.0.1:1/"], 2, "--cert"),
        (&["--timeout", "", "x:1"], 2, "write 90s"),
        (&["--ca", &absent, "https://127.0.0.1:1/"], 1, "read the CA certificate"),
        (&["--cert", &ca, "https://127.0.0.1:1/"], 1, "no client key"),
    ] {
        let output = agent(&[&["wait"], args].concat());
        let told = text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {told}");
        assert!(told.contains(words), "{args:?}: {told}");
    }
}

#[test]
fn called_as_wupiao() {
    let folder = tempfile::tempdir().expect("a folder");
    let port = free_port();
    let server = format!(
        "server {{ listen 127.0.0.1:{port}; location /v2/machines {{ return 200 x; }} \
         location /moved {{ return 302 /; }} location /login {{ return 403; }} }}"
    );
    let _nginx = nginx(folder.path(), &server, port);
    let link = folder.path().join("wupiao");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_nodeagent"), &link).expect("a link");
    let wupiao = |arg: &str| Command::new(&link).arg(arg).stdin(Stdio::null()).output().expect("it runs");
    for path in ["/v2/machines", "/moved"] {
        let output = wupiao(&format!("127.0.0.1:{port}{path}"));
        assert!(output.status.success(), "{path}: {}", text(&output.stderr));
    }
    let empty = wupiao(":8080");
    assert_eq!(empty.status.code(), Some(2));
    assert!(text(&empty.stderr).contains("an empty variable?"), "{}", text(&empty.stderr));

    let mut command = Command::new(&link);
    command.arg(format!("127.0.0.1:{port}/login")).stdin(Stdio::null()).stderr(Stdio::piped());
    let mut waiting = Running(command.spawn().expect("it runs"));
    let mut told = String::new();
    BufReader::new(waiting.0.stderr.take().expect("its messages")).read_line(&mut told).expect("a line");
    assert!(told.contains("HTTP status 403 (the port is open"), "{told}");
    assert!(waiting.0.try_wait().expect("its state").is_none(), "it waits on, as the script did");
}

#[test]
fn a_server_sees_its_connection_closed() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a listener");
    let port = listener.local_addr().expect("its address").port();
    let waited = agent(&["wait", "--timeout", "60s", &format!("127.0.0.1:{port}")]);
    assert!(waited.status.success(), "{}", text(&waited.stderr));
    let (mut stream, _) = listener.accept().expect("a connection");
    stream.set_read_timeout(Some(Duration::from_mins(1))).expect("a timeout");
    assert_eq!(stream.read(&mut [0; 1]).expect("an end, not an error"), 0);
}

#[test]
fn a_proxy_only_when_asked() {
    let folder = tempfile::tempdir().expect("a folder");
    let (port, closed) = (free_port(), free_port());
    let server = format!("server {{ listen 127.0.0.1:{port}; location / {{ return 200 x; }} }}");
    let _nginx = nginx(folder.path(), &server, port);
    let wait = |args: &[&str]| {
        Command::new(env!("CARGO_BIN_EXE_nodeagent"))
            .args(["wait", "--timeout", GIVE_UP])
            .args(args)
            .arg(format!("http://127.0.0.1:{port}/"))
            .env("http_proxy", format!("http://127.0.0.1:{closed}"))
            .output()
            .expect("the agent runs")
    };
    let without = wait(&[]);
    assert!(without.status.success(), "{}", text(&without.stderr));
    let through = wait(&["--use-proxy"]);
    assert_eq!(through.status.code(), Some(3), "{}", text(&through.stderr));
    assert!(text(&through.stderr).contains("connection refused"), "{}", text(&through.stderr));
}
