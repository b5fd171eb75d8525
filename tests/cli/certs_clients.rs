//! Certificates of the agent's in the hands of the programs that they are for: a web server and a store that ask their
//! clients for one, and clients that show theirs.

use std::{
    fs::{self, File},
    net::{Ipv4Addr, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};

use crate::certs::{make_ca, path, sign_locally};
use crate::free_port::free_port;
use crate::world::{Tree, World, need};

/// How long a server may take to open its port.
const PATIENCE: Duration = Duration::from_secs(20);

/// The name in the kubelet's serving certificate.
const NAME: &str = "worker-01";

/// A server that does not outlive the test.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        // Either call fails only when it has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Server {
    /// Starts it, with its output in a log, and waits for its port.
    fn start(command: &mut Command, log: &Path, port: u16) -> Result<Self> {
        let out = File::create(log)?;
        command.stdin(Stdio::null()).stdout(out.try_clone()?).stderr(out);
        let mut server = Self(command.spawn().with_context(|| format!("start {command:?}"))?);
        let begun = Instant::now();
        while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
            let said = || fs::read_to_string(log).unwrap_or_default();
            if let Some(ended) = server.0.try_wait()? {
                bail!("{command:?} ended with {ended}: {}", said());
            }
            ensure!(begun.elapsed() < PATIENCE, "{command:?} did not open its port within {PATIENCE:?}: {}", said());
            thread::sleep(Duration::from_millis(20));
        }
        Ok(server)
    }
}

/// A worker's pairs, and a pair of the same names under a CA of somebody else's.
struct Pairs<'w> {
    tree: Tree<'w>,
    strangers: Tree<'w>,
}

impl<'w> Pairs<'w> {
    fn new(world: &'w World, ca_key: &[&str]) -> Result<Self> {
        let make = || {
            let tree = world.copy(&world.start())?;
            let (_, private) = make_ca(&tree, ca_key)?;
            sign_locally(&tree, &private, "")?;
            tree.ok(&["certs"])?;
            Ok::<_, anyhow::Error>(tree)
        };
        Ok(Self { tree: make()?, strangers: make()? })
    }

    fn pki(&self) -> PathBuf {
        self.tree.root().join("etc/kubernetes/pki")
    }

    /// What curl says of `https://worker-01:PORT/PATH`, asked as the client of this pair: status and body, or its error.
    fn ask(&self, port: u16, what: &str, pair: Option<&Path>) -> Result<Result<(u16, String), String>> {
        need("curl", "curl")?;
        let mut curl = Command::new("curl");
        curl.args(["--silent", "--show-error", "--noproxy", "*", "--max-time", "20", "--write-out", "\n%{http_code}"]);
        // In TLS 1.3 a client learns that it is refused only after it has asked, if the connection lasts that long.
        curl.args(["--tls-max", "1.2", "--resolve", &format!("{NAME}:{port}:127.0.0.1")])
            .arg("--cacert")
            .arg(self.pki().join("ca.pem"));
        if let Some(pair) = pair {
            // Certificate and key are in one file, as the kubelet reads them.
            curl.arg("--cert").arg(pair).arg("--key").arg(pair);
        }
        let output = curl.arg(format!("https://{NAME}:{port}{what}")).output().context("run curl")?;
        if !output.status.success() {
            return Ok(Err(String::from_utf8_lossy(&output.stderr).into_owned()));
        }
        let text = String::from_utf8(output.stdout)?;
        let (body, status) = text.rsplit_once('\n').context("a status")?;
        Ok(Ok((status.parse()?, body.to_owned())))
    }

    /// The pairs of clients: name, file, and what a server makes of it.
    fn clients(&self) -> [(&'static str, Option<PathBuf>, bool); 5] {
        let strangers = self.strangers.root().join("etc/kubernetes/pki/kubelet-client.pem");
        [
            ("the kubelet", Some(self.pki().join("kubelet-client.pem")), true),
            ("kube-proxy", Some(self.pki().join("kube-proxy-client.pem")), true),
            ("nobody", None, false),
            ("a kubelet under another CA", Some(strangers), false),
            ("the kubelet with the pair that it serves with", Some(self.pki().join("kubelet-server.pem")), false),
        ]
    }
}

const EC: &[&str] = &["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"];
const RSA: &[&str] = &["-newkey", "rsa:2048"];

#[test]
fn nginx_takes_the_pairs_that_are_for_clients_and_serves_with_the_one_for_servers() -> Result<()> {
    need("nginx", "nginx-light")?;
    let world = World::new()?;
    for ca_key in [EC, RSA] {
        let pairs = Pairs::new(&world, ca_key)?;
        let (here, pki) = (pairs.tree.beside("nginx"), pairs.pki());
        fs::create_dir(&here)?;
        let port = free_port();
        let user = if nix::unistd::geteuid().is_root() { "user root;" } else { "" };
        let (dir, pki) = (path(&here)?, path(&pki)?);
        let configuration = format!(
            "{user} daemon off; master_process off; pid {dir}/pid; error_log {dir}/error.log;\n\
             events {{ worker_connections 64; }}\n\
             http {{\n\
                 access_log off; client_body_temp_path {dir}/1; proxy_temp_path {dir}/2; fastcgi_temp_path {dir}/3;\n\
                 uwsgi_temp_path {dir}/4; scgi_temp_path {dir}/5;\n\
                 server {{\n\
                     listen 127.0.0.1:{port} ssl;\n\
                     ssl_certificate {pki}/kubelet-server.pem; ssl_certificate_key {pki}/kubelet-server.pem;\n\
                     ssl_client_certificate {pki}/ca.pem; ssl_verify_client on;\n\
                     location / {{ return 200 \"$ssl_client_s_dn\"; }}\n\
                 }}\n\
             }}\n"
        );
        fs::write(here.join("nginx.conf"), configuration)?;
        let mut nginx = Command::new("nginx");
        nginx.arg("-c").arg(here.join("nginx.conf"));
        let _nginx = Server::start(&mut nginx, &here.join("log"), port)?;
        for (name, pair, taken) in pairs.clients() {
            let answer = pairs.ask(port, "/", pair.as_deref())?;
            let want = match (name, taken) {
                ("the kubelet", _) => (200, "CN=system:node:worker-01,O=system:nodes"),
                (_, true) => (200, "CN=system:kube-proxy"),
                (_, false) => (400, "SSL"),
            };
            let (status, body) = answer.map_err(anyhow::Error::msg).with_context(|| format!("{name}, {ca_key:?}"))?;
            ensure!(status == want.0 && body.contains(want.1), "{name}, {ca_key:?}: {status}: {body}");
        }
    }
    Ok(())
}

#[test]
fn etcd_takes_the_pairs_that_are_for_clients() -> Result<()> {
    need("etcd", "etcd-server")?;
    let world = World::new()?;
    for ca_key in [EC, RSA] {
        let pairs = Pairs::new(&world, ca_key)?;
        let here = pairs.tree.beside("etcd");
        fs::create_dir(&here)?;
        let (clients, peers) = (free_port(), free_port());
        let server = pairs.pki().join("kubelet-server.pem");
        let mut etcd = Command::new("etcd");
        etcd.arg("--data-dir").arg(here.join("data")).env_clear();
        etcd.arg("--cert-file").arg(&server).arg("--key-file").arg(&server);
        etcd.arg("--client-cert-auth").arg("--trusted-ca-file").arg(pairs.pki().join("ca.pem"));
        let at = |port| format!("https://127.0.0.1:{port}");
        etcd.args(["--listen-client-urls", &at(clients), "--advertise-client-urls", &at(clients)]);
        let peer = format!("http://127.0.0.1:{peers}");
        etcd.args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer]);
        etcd.args(["--initial-cluster", &format!("default={peer}")]);
        let _etcd = Server::start(&mut etcd, &here.join("log"), clients)?;
        let healthy = |pair: Option<&Path>| pairs.ask(clients, "/health", pair);
        let begun = Instant::now();
        let kubelet = pairs.pki().join("kubelet-client.pem");
        // It listens before it has elected itself.
        while !matches!(healthy(Some(&kubelet))?, Ok((200, _))) {
            let said = || fs::read_to_string(here.join("log")).unwrap_or_default();
            ensure!(begun.elapsed() < PATIENCE, "etcd is not healthy after {PATIENCE:?}: {}", said());
            thread::sleep(Duration::from_millis(50));
        }
        for (name, pair, taken) in pairs.clients() {
            match (healthy(pair.as_deref())?, taken) {
                (Ok((200, body)), true) => ensure!(body.contains("\"health\":\"true\""), "{name}: {body}"),
                (Err(why), false) => ensure!(why.contains("alert bad certificate"), "{name}: {why}"),
                (answer, _) => bail!("{name}, {ca_key:?}: {answer:?}"),
            }
        }
    }
    Ok(())
}
