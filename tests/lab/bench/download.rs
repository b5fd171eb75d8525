//! The seven programs of a release, fetched over a link of a fixed rate and over loopback: verified by nodeagent, and as
//! the scripts do it, one `curl` after the other, with `sha256sum` behind it or without.
//!
//! Everything is in memory (server's files, and what is written), and in two network namespaces of the bench's own.

use std::{
    fmt::Write as _,
    fs,
    os::unix::process::ExitStatusExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use nodeagent::config::values::Sha256;
use nodeagent::host::facts::Facts;
use tempfile::TempDir;

use super::figures::{Table, Unit, interleaved, run};

/// The programs, and their sizes in megabytes about as v1.34 has them: 460 in all.
const PROGRAMS: [(&str, usize); 7] = [
    ("kube-apiserver", 90),
    ("kube-controller-manager", 75),
    ("kube-proxy", 45),
    ("kube-scheduler", 52),
    ("kubeadm", 75),
    ("kubectl", 61),
    ("kubelet", 62),
];

/// The link: its rate in bits a second, and as tc(8) wants it. The burst takes the largest packet that the kernel hands
/// to a virtual link, so that it is not cut into pieces, each with headers of its own; the queue is short, as on a switch.
const RATE: f64 = 400e6;
const SHAPE: [&str; 8] = ["tbf", "rate", "400mbit", "burst", "256kb", "limit", "512kb", "mtu"];
const LARGEST_PACKET: &str = "70000";

const SERVER: &str = "10.99.77.1";
const CLIENT: &str = "10.99.77.2";

/// For anything here.
const PATIENCE: Duration = Duration::from_mins(2);

/// Prints the tables of this topic.
pub fn bench(agent: &Path) -> Result<()> {
    let world = World::new(agent)?;
    let bytes = World::bytes();
    let mut peak = Vec::new();

    let mut ours = || world.nodeagent(Place::Link, Some(&mut peak));
    let mut curl = || world.curl(Place::Link);
    let mut checked = || Ok(world.curl(Place::Link)? + world.sums("sha256sum", &[])?);
    let [ours, curl, checked] = three(interleaved(2, &mut [&mut ours, &mut curl, &mut checked])?)?;
    Table::new(format!("download: {} MB over a link of {} Mbit/s", bytes / 1e6, RATE / 1e6), Unit::Time)
        .row("ideal (bytes / rate)", vec![bytes * 8.0 / RATE], "")
        .row("nodeagent, verified", ours, "within 5 % of the ideal, at or below curl")
        .row("curl, one after the other", curl, "")
        .row("the same, then sha256sum", checked, "")
        .print();

    let mut ours = || world.nodeagent(Place::Loopback, Some(&mut peak));
    let mut curl = || world.curl(Place::Loopback);
    let mut dgst = || world.sums("openssl", &["dgst", "-sha256"]);
    let samples = interleaved(5, &mut [&mut curl, &mut dgst, &mut ours])?;
    let mut sum = || world.sums("sha256sum", &[]);
    let sums = interleaved(1, &mut [&mut sum])?.into_iter().flatten().next().context("a sample")?;
    let [curl, dgst, ours] = three(samples)?;
    let checked = curl.iter().map(|seconds| seconds + sums).collect();
    Table::new("download: the same over loopback", Unit::Time)
        .row("curl alone, unverified", curl, "")
        .row("openssl dgst -sha256 alone", dgst, "")
        .row("nodeagent, verified", ours, "at most 1.2 times the slower of these two")
        .row("curl, then sha256sum", checked, "at least twice nodeagent's")
        .print();

    Table::new("download: most memory at a time", Unit::Size).row("nodeagent", peak, "< 32 MiB").print();

    let twice = world.fetched_twice()?;
    Table::new("download: fetched twice after a kill at half way (the link's own count)", Unit::Size)
        .row("nodeagent", vec![twice], "< 1 MiB")
        .print();
    Ok(())
}

fn three(samples: Vec<Vec<f64>>) -> Result<[Vec<f64>; 3]> {
    <[_; 3]>::try_from(samples).ok().context("three programs")
}

/// Where a program runs: at the other end of the link, or beside the server.
#[derive(Clone, Copy, PartialEq)]
enum Place {
    Link,
    Loopback,
}

/// A release, a server for it, and a link to it. Gone when dropped: first the server, then the link, then the files.
struct World {
    agent: PathBuf,
    _server: Killed,
    net: Net,
    files: TempDir,
}

impl World {
    fn new(agent: &Path) -> Result<Self> {
        let files = tempfile::tempdir_in("/dev/shm").context("make a directory in memory")?;
        let release = files.path().join("release");
        fs::create_dir(&release)?;
        fs::write(files.path().join("facts.json"), serde_json::to_vec(&Facts::sample())?)?;
        let mut random = 0x9e37_79b9_7f4a_7c15_u64;
        let mut artifacts = String::new();
        for (name, megabytes) in PROGRAMS {
            let content = incompressible(&mut random, megabytes);
            fs::write(release.join(name), &content)?;
            let url = "http://SERVER/".to_owned() + name;
            let sha256 = Sha256::of(&content);
            writeln!(artifacts, "    {name}: {{ version: v1.34.2, url: \"{url}\", sha256: {sha256} }}")?;
        }
        fs::write(files.path().join("artifacts"), artifacts)?;
        let net = Net::new()?;
        let server = net.serve(files.path(), &release)?;
        Ok(Self { agent: agent.to_owned(), _server: server, net, files })
    }

    #[expect(clippy::cast_precision_loss, reason = "some hundred millions")]
    fn bytes() -> f64 {
        PROGRAMS.iter().map(|(_, megabytes)| megabytes * 1_000_000).sum::<usize>() as f64
    }

    /// An empty tree that asks for the programs from the server as it is seen from the place.
    fn tree(&self, place: Place) -> Result<PathBuf> {
        let tree = self.files.path().join("tree");
        remove(&tree)?;
        fs::create_dir_all(tree.join("etc/nodeagent"))?;
        let artifacts = fs::read_to_string(self.files.path().join("artifacts"))?;
        let yaml = format!(
            "apiVersion: nodeagent.io/v1alpha1\nkind: NodeConfig\nrole: worker\n\
             cluster: {{ apiServer: \"https://10.10.30.11:6443\" }}\n\
             kubernetes:\n  version: v1.34.2\n  artifacts:\n{}\
             pki: {{ ca: /etc/ca.pem, signer: {{ cfssl: {{ url: \"https://127.0.0.1:1\", authKeyFile: /etc/key, acceptAdminEquivalentKey: true }} }} }}\n",
            artifacts.replace("SERVER", place.server())
        );
        fs::write(tree.join("etc/nodeagent/node.yaml"), yaml)?;
        Ok(tree)
    }

    fn install(&self, place: Place, tree: &Path) -> Command {
        let mut command = self.net.inside(place, &self.agent);
        command.arg("install").arg("--no-progress").arg("--root").arg(tree);
        command.arg("--facts").arg(self.files.path().join("facts.json"));
        command.env_clear().stdin(Stdio::null()).stderr(Stdio::null());
        command
    }

    /// Seconds for an installation into an empty tree.
    fn nodeagent(&self, place: Place, peak: Option<&mut Vec<f64>>) -> Result<f64> {
        let tree = self.tree(place)?;
        let used = run(&mut self.install(place, &tree))?;
        ensure!(used.status.success(), "nodeagent ended with {}", used.status);
        if let Some(peak) = peak {
            #[expect(clippy::cast_precision_loss, reason = "some millions")]
            peak.push(used.peak as f64);
        }
        remove(&tree)?;
        Ok(used.took.as_secs_f64())
    }

    /// Seconds for one `curl` after the other.
    fn curl(&self, place: Place) -> Result<f64> {
        let to = self.files.path().join("curl");
        remove(&to)?;
        fs::create_dir(&to)?;
        let mut seconds = 0.0;
        for (name, _) in PROGRAMS {
            let mut command = self.net.inside(place, Path::new("curl"));
            command.args(["--fail", "--silent", "--show-error", "--output"]).arg(to.join(name));
            command.arg(format!("http://{}/{name}", place.server()));
            let used = run(&mut command)?;
            ensure!(used.status.success(), "curl ended with {}", used.status);
            seconds += used.took.as_secs_f64();
        }
        remove(&to)?;
        Ok(seconds)
    }

    /// Seconds for hashing the files, one after the other.
    fn sums(&self, program: &str, args: &[&str]) -> Result<f64> {
        let mut seconds = 0.0;
        for (name, _) in PROGRAMS {
            let file = self.files.path().join("release").join(name);
            let used = run(Command::new(program).args(args).arg(file).stdout(Stdio::null()))?;
            ensure!(used.status.success(), "{program} ended with {}", used.status);
            seconds += used.took.as_secs_f64();
        }
        Ok(seconds)
    }

    /// What the server's end of the link sent more for an installation that was killed at half way and run again than for
    /// one that was not.
    fn fetched_twice(&self) -> Result<f64> {
        let before = self.net.sent()?;
        self.nodeagent(Place::Link, None)?;
        let middle = self.net.sent()?;
        let tree = self.tree(Place::Link)?;
        let mut first = Killed(self.install(Place::Link, &tree).spawn()?);
        let begun = Instant::now();
        while partial(&tree)? < Self::bytes() / 2.0 {
            ensure!(begun.elapsed() < PATIENCE && first.0.try_wait()?.is_none(), "it ended before half way");
            thread::sleep(Duration::from_millis(2));
        }
        first.0.kill()?;
        ensure!(first.0.wait()?.signal() == Some(9), "it was not killed");
        let used = run(&mut self.install(Place::Link, &tree))?;
        ensure!(used.status.success(), "nodeagent ended with {}", used.status);
        remove(&tree)?;
        Ok((self.net.sent()? - middle) - (middle - before))
    }
}

/// Bytes on their way in a tree.
#[expect(clippy::cast_precision_loss, reason = "some hundred millions")]
fn partial(tree: &Path) -> Result<f64> {
    let Ok(entries) = fs::read_dir(tree.join("opt/nodeagent/partial")) else { return Ok(0.0) };
    let mut bytes = 0;
    for entry in entries {
        // It may have been renamed into place since it was listed.
        bytes += entry?.metadata().map_or(0, |meta| meta.len());
    }
    Ok(bytes as f64)
}

fn remove(tree: &Path) -> Result<()> {
    match fs::remove_dir_all(tree) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}

/// The same bytes each time, of which no compression makes fewer.
fn incompressible(state: &mut u64, megabytes: usize) -> Vec<u8> {
    let mut content = Vec::with_capacity(megabytes * 1_000_000);
    for _ in 0..megabytes * 1_000_000 / 8 {
        *state ^= *state << 13;
        *state ^= *state >> 7;
        *state ^= *state << 17;
        content.extend_from_slice(&state.to_le_bytes());
    }
    content
}

/// A child that does not outlive the bench.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        // Either call fails only when it has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Two network namespaces with a link of a fixed rate between them, gone when dropped.
struct Net {
    server: String,
    client: String,
}

impl Net {
    fn new() -> Result<Self> {
        let name = |side: &str| format!("nodeagent-bench-{}-{side}", std::process::id());
        let net = Self { server: name("server"), client: name("client") };
        ip(&["netns", "add", &net.server])?;
        ip(&["netns", "add", &net.client])?;
        ip(&[
            "-n",
            &net.server,
            "link",
            "add",
            "link0",
            "type",
            "veth",
            "peer",
            "name",
            "link0",
            "netns",
            &net.client,
        ])?;
        for (namespace, address) in [(&net.server, SERVER), (&net.client, CLIENT)] {
            ip(&["-n", namespace, "address", "add", &format!("{address}/24"), "dev", "link0"])?;
            ip(&["-n", namespace, "link", "set", "link0", "up"])?;
            ip(&["-n", namespace, "link", "set", "lo", "up"])?;
        }
        let mut shape = vec!["-n", &net.server, "qdisc", "add", "dev", "link0", "root"];
        shape.extend(SHAPE);
        shape.push(LARGEST_PACKET);
        said("tc", &shape)?;
        Ok(net)
    }

    /// A real nginx in the server's namespace, for both places.
    fn serve(&self, here: &Path, release: &Path) -> Result<Killed> {
        let dir = here.display();
        let configuration = format!(
            "user root; worker_processes 1; daemon off; master_process off; pid {dir}/nginx.pid; error_log {dir}/nginx.log;\n\
             events {{ worker_connections 64; }}\n\
             http {{ access_log off; sendfile on; default_type application/octet-stream;\n\
             client_body_temp_path {dir}/n1; proxy_temp_path {dir}/n2; fastcgi_temp_path {dir}/n3; uwsgi_temp_path {dir}/n4; scgi_temp_path {dir}/n5;\n\
             server {{ listen 80; root {}; }} }}\n",
            release.display()
        );
        let file = here.join("nginx.conf");
        fs::write(&file, configuration)?;
        // Dies with the bench, however that dies.
        let mut command = self.inside(Place::Loopback, Path::new("setpriv"));
        command.args(["--pdeathsig", "KILL", "nginx", "-c"]).arg(&file).stdin(Stdio::null());
        let mut server = Killed(command.spawn().context("start nginx")?);
        let begun = Instant::now();
        loop {
            let mut probe = self.inside(Place::Loopback, Path::new("curl"));
            probe.args(["--silent", "--head", "--output", "/dev/null", "http://127.0.0.1/"]);
            if run(&mut probe)?.status.success() {
                return Ok(server);
            }
            if let Some(ended) = server.0.try_wait()? {
                bail!("nginx ended with {ended}: {}", fs::read_to_string(here.join("nginx.log")).unwrap_or_default());
            }
            ensure!(begun.elapsed() < PATIENCE, "nginx does not answer");
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// A program in a place.
    fn inside(&self, place: Place, program: &Path) -> Command {
        let namespace = if place == Place::Link { &self.client } else { &self.server };
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{namespace}")).arg("--").arg(program);
        command
    }

    /// What the server's end of the link has sent so far, in bytes.
    fn sent(&self) -> Result<f64> {
        let text = said("ip", &["-n", &self.server, "-s", "-j", "link", "show", "link0"])?;
        let shown: serde_json::Value = serde_json::from_str(&text)?;
        shown.pointer("/0/stats64/tx/bytes").and_then(serde_json::Value::as_f64).context("the link's counter")
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        for namespace in [&self.server, &self.client] {
            if Path::new("/run/netns").join(namespace).exists()
                && let Err(error) = ip(&["netns", "delete", namespace])
            {
                eprintln!("bench: {error:#}");
            }
        }
    }
}

impl Place {
    fn server(self) -> &'static str {
        if self == Self::Link { SERVER } else { "127.0.0.1" }
    }
}

fn ip(args: &[&str]) -> Result<String> {
    said("ip", args)
}

/// What a program printed, which must have succeeded.
fn said(program: &str, args: &[&str]) -> Result<String> {
    let output = Command::new(program).args(args).output().with_context(|| format!("run {program}"))?;
    let complaint = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{program} {}: {}", args.join(" "), complaint.trim());
    Ok(String::from_utf8(output.stdout)?)
}
