//! Downloads from a real nginx, on loopback: ranges, changed files, redirects and TLS as they are in the world.

use std::{
    fmt::Write as _,
    fs,
    net::{Ipv4Addr, TcpStream},
    path::PathBuf,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use tempfile::TempDir;

use crate::free_port::free_port;
use crate::site::{PATIENCE, Site};
use crate::world::{ca::Ca, need, scratch};

/// Two hosts, since loopback has many: certificates name them by address.
const HOST: Ipv4Addr = Ipv4Addr::LOCALHOST;
const OTHER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

/// A real nginx in the foreground, as one process that is gone when dropped.
struct Nginx {
    child: Child,
    files: TempDir,
    ca: Ca,
    plain: u16,
    tls: u16,
}

impl Nginx {
    /// Serves `root/` on a plain port and, for both hosts, on a TLS port. `locations` go into every server;
    /// `PLAIN` and `TLS` in them stand for the ports.
    fn start(locations: &str) -> Result<Self> {
        need("nginx", "nginx-light")?;
        let (files, ca) = (scratch()?, Ca::new()?);
        let here = files.path().display().to_string();
        let (plain, tls) = (free_port(), free_port());
        let locations = locations.replace("PLAIN", &plain.to_string()).replace("TLS", &tls.to_string());
        let mut servers = format!("server {{ listen {HOST}:{plain}; {locations} }}\n");
        for host in [HOST, OTHER] {
            ca.issue_server(files.path(), &host.to_string(), host.into())?;
            // Writing to a String cannot fail.
            let _ = writeln!(
                servers,
                "server {{ listen {host}:{tls} ssl; ssl_certificate {here}/{host}.pem; \
                 ssl_certificate_key {here}/{host}-key.pem; {locations} }}"
            );
        }
        fs::create_dir(files.path().join("root"))?;
        let user = if nix::unistd::geteuid().is_root() { "user root;" } else { "" };
        let configuration = format!(
            "{user} daemon off; master_process off; pid {here}/pid; error_log {here}/error.log;\n\
             events {{ worker_connections 64; }}\n\
             http {{\n\
                 log_format asked escape=none '$host $uri $status $http_range $http_if_range';\n\
                 access_log {here}/access.log asked; root {here}/root; default_type application/octet-stream;\n\
                 client_body_temp_path {here}/1; proxy_temp_path {here}/2; fastcgi_temp_path {here}/3;\n\
                 uwsgi_temp_path {here}/4; scgi_temp_path {here}/5;\n\
                 {servers}\
             }}\n"
        );
        fs::write(files.path().join("nginx.conf"), configuration)?;
        let mut command = Command::new("nginx");
        command.arg("-c").arg(files.path().join("nginx.conf")).stdin(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().context("start nginx")?;
        let mut nginx = Self { child, files, ca, plain, tls };
        let begun = Instant::now();
        while TcpStream::connect((HOST, plain)).is_err() {
            let log = || fs::read_to_string(nginx.files.path().join("error.log")).unwrap_or_default();
            if let Some(ended) = nginx.child.try_wait()? {
                bail!("nginx ended with {ended}: {}", log());
            }
            ensure!(begun.elapsed() < PATIENCE, "nginx did not open its port within {PATIENCE:?}: {}", log());
            thread::sleep(Duration::from_millis(10));
        }
        Ok(nginx)
    }

    /// Where the files for mirror `path` lie.
    fn put(&self, mirror: &str, bytes: &[u8]) -> Result<PathBuf> {
        let file = self.files.path().join("root").join(Site::path(mirror).trim_start_matches('/'));
        fs::create_dir_all(file.parent().context("a parent")?)?;
        fs::write(&file, bytes)?;
        Ok(file)
    }

    fn plain(&self, mirror: &str) -> String {
        format!("http://{HOST}:{}{mirror}", self.plain)
    }

    fn tls(&self, host: Ipv4Addr, mirror: &str) -> String {
        format!("https://{host}:{}{mirror}", self.tls)
    }

    /// Requests for kubectl: host, path, status, `Range`, `If-Range`.
    fn asked(&self) -> Result<Vec<Vec<String>>> {
        let log = fs::read_to_string(self.files.path().join("access.log"))?;
        let words = |line: &str| line.split(' ').map(str::to_owned).collect();
        Ok(log.lines().filter(|line| line.contains("kubectl")).map(words).collect())
    }

    /// Runs the agent until half of the file is on the disk, and kills it.
    fn kill_at_half(site: &Site) -> Result<()> {
        let running = site.start(&["install"])?;
        let (begun, half) = (Instant::now(), site.file.len() as u64 / 2);
        while fs::metadata(site.partial()).map_or(0, |meta| meta.len()) < half {
            ensure!(begun.elapsed() < PATIENCE, "half of the file did not come within {PATIENCE:?}");
            thread::sleep(Duration::from_millis(2));
        }
        running.kill()
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // Either call fails only when it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Slow enough to be killed in the middle: the file takes three seconds.
const SLOW: &str = "limit_rate 1m;";

#[test]
fn a_killed_download_is_resumed() -> Result<()> {
    let nginx = Nginx::start(SLOW)?;
    let site = Site::new(&[&nginx.plain("/a")], "deadline: 20s")?;
    nginx.put("/a", &site.file)?;
    Nginx::kill_at_half(&site)?;
    let there = fs::metadata(site.partial())?.len();
    let (code, told) = site.run()?;
    ensure!(code == 0, "{told}");
    site.check_placed(code)?;
    let asked = nginx.asked()?;
    // The request that was cut off is logged too, once nginx has noticed.
    let resumed = asked.iter().find(|words| words[2] == "206").with_context(|| format!("no 206: {asked:?}"))?;
    assert_eq!(resumed[3], format!("bytes={there}-"), "what was on the disk is not fetched twice");
    ensure!(resumed[4].starts_with('"'), "no If-Range: {asked:?}");
    Ok(())
}

#[test]
fn a_file_that_changed_upstream_begins_anew() -> Result<()> {
    let nginx = Nginx::start(SLOW)?;
    let site = Site::new(&[&nginx.plain("/a")], "deadline: 20s")?;
    let file = nginx.put("/a", &vec![0; site.file.len()])?;
    Nginx::kill_at_half(&site)?;
    // The right file takes its place: another time, another ETag.
    fs::remove_file(&file)?;
    nginx.put("/a", &site.file)?;
    let hour_ago = std::time::SystemTime::now() - Duration::from_hours(1);
    fs::File::options().write(true).open(&file)?.set_modified(hour_ago)?;
    let (code, told) = site.run()?;
    ensure!(code == 0, "{told}");
    site.check_placed(code)?;
    let asked = nginx.asked()?;
    ensure!(asked.iter().all(|words| words[2] == "200"), "it was resumed: {asked:?}");
    let conditional = asked.iter().filter(|words| words[3].starts_with("bytes=") && words[4].starts_with('"')).count();
    assert_eq!((asked.len(), conditional), (2, 1), "it was asked for with If-Range, and came whole: {asked:?}");
    Ok(())
}

#[test]
fn a_private_authority_is_trusted_where_the_configuration_says_so() -> Result<()> {
    let nginx = Nginx::start("")?;
    let mirror = nginx.tls(HOST, "/a");
    let site = Site::new(&[&mirror], "")?;
    nginx.put("/a", &site.file)?;
    // At once, however long the downloads may take: it will be no other when asked again.
    let (code, told) = site.run()?;
    let why = "TLS failed: the certificate is not from a trusted authority";
    ensure!(code == 4 && told.contains(&format!("{mirror}/")) && told.contains(why), "{code}: {told}");
    ensure!(told.contains("download.ca") && nginx.asked()?.is_empty(), "{told}");
    site.check_placed(code)?;
    fs::write(site.root().join("etc/mirror.pem"), nginx.ca.pem()?)?;
    site.configure(&[&mirror], "deadline: 10s, ca: /etc/mirror.pem")?;
    let (code, told) = site.run()?;
    ensure!(code == 0, "{told}");
    site.check_placed(code)
}

#[test]
fn redirects_lead_to_other_https_hosts_and_never_to_plain_http() -> Result<()> {
    let nginx = Nginx::start(&format!(
        "location /other {{ rewrite ^/other(.*)$ https://{OTHER}:TLS/a$1 redirect; }} \
         location /plain {{ rewrite ^/plain(.*)$ http://{HOST}:PLAIN/a$1 redirect; }}"
    ))?;
    for (from, code) in [("/other", 0), ("/plain", 1)] {
        let mirror = nginx.tls(HOST, from);
        let site = Site::new(&[&mirror], "deadline: 10s, ca: /etc/mirror.pem")?;
        fs::write(site.root().join("etc/mirror.pem"), nginx.ca.pem()?)?;
        nginx.put("/a", &site.file)?;
        let (ended, told) = site.run()?;
        ensure!(ended == code, "{from}: {ended}: {told}");
        site.check_placed(ended).context(from)?;
        let refused =
            told.contains(&mirror) && told.contains(&format!("redirects from https to http://{HOST}: refused"));
        ensure!(code == 0 || refused, "{from}: {told}");
    }
    let asked = nginx.asked()?;
    let given: Vec<&str> = asked.iter().filter(|words| words[2] == "200").map(|words| words[0].as_str()).collect();
    assert_eq!(given, [OTHER.to_string()], "{asked:?}");
    Ok(())
}
