//! What a node talks to: a real web server as mirror and a real signer, both inside the lab's network only.

use std::{
    fs,
    net::IpAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result};
use serde_json::json;

use super::{
    ca::Ca,
    cgroup::Cgroups,
    hex,
    net::{Net, SERVICES},
    process::{self, Daemon},
};

/// Time for a service to open its port.
const START: Duration = Duration::from_mins(1);

/// Where a web server listens, and what it says.
pub enum Site<'a> {
    /// Plain HTTP on port 80, serving a directory.
    Mirror { docroot: &'a Path },
    /// TLS on the API server's port, where nothing but `/readyz` and `/healthz` is answered.
    StandInApiServer { ca: &'a Ca },
}

/// A real nginx in the foreground, gone when dropped.
pub struct Web {
    _daemon: Daemon,
    log: PathBuf,
}

impl Web {
    /// Starts it on `address` with its own configuration, logs and scratch below `directory`.
    pub fn start(net: &Net, cgroups: &Cgroups, directory: &Path, address: IpAddr, site: &Site<'_>) -> Result<Self> {
        fs::create_dir_all(directory).with_context(|| format!("create {}", directory.display()))?;
        let (name, port, server) = match site {
            Site::Mirror { docroot } => {
                ("mirror (nginx)", 80, format!("listen {address}:80; root {};", docroot.display()))
            }
            Site::StandInApiServer { ca } => {
                ca.issue_server(directory, "api-server", address)?;
                let certificate = directory.join("api-server");
                let server = format!(
                    "listen {address}:6443 ssl; ssl_certificate {0}.pem; ssl_certificate_key {0}-key.pem; \
                     location ~ ^/(readyz|healthz)$ {{ return 200 ok; }} \
                     location / {{ return 501 \"a stand-in for the API server\"; }}",
                    certificate.display(),
                );
                ("API server's stand-in (nginx)", 6443, server)
            }
        };
        let here = directory.display();
        // The worker stays root because the lab's files are in root's own directories.
        let configuration = format!(
            "user root; worker_processes 1; daemon off; pid {here}/nginx.pid; error_log {here}/error.log;\n\
             events {{ worker_connections 256; }}\n\
             http {{\n\
                 access_log {here}/access.log; sendfile on; default_type application/octet-stream;\n\
                 client_body_temp_path {here}/body; proxy_temp_path {here}/proxy; fastcgi_temp_path {here}/fastcgi;\n\
                 uwsgi_temp_path {here}/uwsgi; scgi_temp_path {here}/scgi;\n\
                 server {{ {server} }}\n\
             }}\n"
        );
        let file = directory.join("nginx.conf");
        fs::write(&file, configuration).with_context(|| format!("write {}", file.display()))?;
        let args = ["nginx".to_owned(), "-c".to_owned(), file.display().to_string()];
        let mut daemon = Daemon::start(name, &net.inside(&args), &[], &directory.join("output.log"), cgroups)?;
        wait_for_port(&mut daemon, net, address, port)?;
        Ok(Self { _daemon: daemon, log: directory.join("access.log") })
    }

    /// The requests so far, one line each.
    pub fn requests(&self) -> Result<Vec<String>> {
        let log = fs::read_to_string(&self.log).with_context(|| format!("read {}", self.log.display()))?;
        Ok(log.lines().map(str::to_owned).collect())
    }
}

/// A real `cfssl serve`, which signs only for those who know its authentication key.
pub struct Signer {
    /// Where it listens.
    pub url: String,
    /// The authentication key: hexadecimal, as cfssl wants it.
    pub auth_key: String,
    _daemon: Daemon,
}

impl Signer {
    /// Starts it with the authority's key, in `directory`.
    pub fn start(net: &Net, cgroups: &Cgroups, directory: &Path, ca: &Ca) -> Result<Self> {
        const PORT: u16 = 8888;
        fs::create_dir_all(directory).with_context(|| format!("create {}", directory.display()))?;
        let address: IpAddr = SERVICES.parse()?;
        ca.write(directory)?;
        ca.issue_server(directory, "signer", address)?;
        let auth_key = random_hex()?;
        let policy = directory.join("policy.json");
        fs::write(&policy, signing_policy(&auth_key).to_string())
            .with_context(|| format!("write {}", policy.display()))?;
        let file = |name: &str| directory.join(name).display().to_string();
        let args = [
            "cfssl".to_owned(),
            "serve".to_owned(),
            format!("-address={address}"),
            format!("-port={PORT}"),
            format!("-ca={}", file("ca.pem")),
            format!("-ca-key={}", file("ca-key.pem")),
            format!("-config={}", policy.display()),
            format!("-tls-cert={}", file("signer.pem")),
            format!("-tls-key={}", file("signer-key.pem")),
        ];
        let mut daemon =
            Daemon::start("signer (cfssl)", &net.inside(&args), &[], &directory.join("output.log"), cgroups)?;
        wait_for_port(&mut daemon, net, address, PORT)?;
        Ok(Self { url: format!("https://{address}:{PORT}"), auth_key, _daemon: daemon })
    }
}

/// One profile per use. The default profile asks for the key too: without that, cfssl's plain `/sign` stays open to all.
fn signing_policy(auth_key: &str) -> serde_json::Value {
    let profile = |usages: &[&str]| {
        let usages: Vec<_> = ["signing", "digital signature", "key encipherment"].iter().chain(usages).collect();
        json!({ "auth_key": "node", "expiry": "24h", "usages": usages })
    };
    // cfssl lets a certificate begin five minutes ago, by the full minute: a third of these is left after a minute or less.
    let mut brief = profile(&["client auth"]);
    brief["expiry"] = json!("8m30s");
    json!({
        "auth_keys": { "node": { "type": "standard", "key": auth_key } },
        "signing": {
            "default": profile(&["client auth"]),
            "profiles": {
                "brief": brief,
                "client": profile(&["client auth"]),
                "server": profile(&["server auth"]),
                "peer": profile(&["client auth", "server auth"]),
            },
        },
    })
}

fn random_hex() -> Result<String> {
    let mut bytes = [0; 16];
    openssl::rand::rand_bytes(&mut bytes)?;
    Ok(hex(&bytes))
}

/// Asks the kernel rather than the service: a probe of ours would be in its log, and use up what a test counts.
pub(super) fn wait_for_port(daemon: &mut Daemon, net: &Net, address: IpAddr, port: u16) -> Result<()> {
    let filter = format!("sport = :{port} and src {address}");
    daemon.wait_until(&format!("{address}:{port} to be open"), START, || {
        let listening = process::ok(&net.inside(&["ss", "-Hltn", &filter]), START)?;
        anyhow::ensure!(!listening.trim().is_empty(), "nothing listens on {address}:{port}");
        Ok(())
    })
}
