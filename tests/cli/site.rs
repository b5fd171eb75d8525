//! A tree to install into, and a mirror that may misbehave.

use std::{
    fs,
    io::Read as _,
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use nodeagent::host::facts::Facts;
use tempfile::TempDir;

use crate::faulty::{Answer, Faulty};
use crate::snapshot::digest;
use crate::world::{agent, scratch};

/// Where the file that things happen to is placed, and where it is on its way.
pub const PLACED: &str = "opt/nodeagent/releases/kubectl/v1.34.2/bin/kubectl";
pub const PARTIAL: &str = "opt/nodeagent/partial";

/// How long the agent may take for anything here.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Some megabytes that no compression makes smaller, the same each time.
pub fn file() -> Arc<Vec<u8>> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let word = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    Arc::new(std::iter::repeat_with(word).take(3 << 17).flatten().collect())
}

/// A tree that asks for three programs: two small ones from a mirror that behaves, and kubectl.
pub struct Site {
    /// Where everything comes from.
    pub mirror: Faulty,
    files: TempDir,
    /// What kubectl is.
    pub file: Arc<Vec<u8>>,
}

impl Site {
    /// kubectl comes from these mirrors, in this order: paths of the stand-in, or URLs.
    pub fn new(mirrors: &[&str], download: &str) -> Result<Self> {
        let (mirror, files, file) = (Faulty::start()?, scratch()?, file());
        let small = Arc::new(b"small".to_vec());
        for name in ["kubelet", "kube-proxy"] {
            mirror.script(&format!("/{name}"), [Answer::File(Arc::clone(&small))]);
        }
        let site = Self { mirror, files, file };
        fs::create_dir_all(site.root().join("etc/nodeagent"))?;
        fs::write(site.files.path().join("facts.json"), serde_json::to_vec(&Facts::sample())?)?;
        site.configure(mirrors, download)?;
        Ok(site)
    }

    /// Writes node.yaml, with this under `download`.
    pub fn configure(&self, mirrors: &[&str], download: &str) -> Result<()> {
        let small = digest(b"small");
        let from =
            |name: &str| format!("{name}: {{ sha256: {small}, url: \"{}\" }}", self.mirror.url(&format!("/{name}")));
        let url = |mirror: &&str| if mirror.starts_with('/') { self.mirror.url(mirror) } else { (*mirror).to_owned() };
        let urls: Vec<String> = mirrors.iter().map(|mirror| format!("\"{}\"", url(mirror))).collect();
        let yaml = format!(
            "apiVersion: nodeagent.io/v1alpha1\nkind: NodeConfig\nrole: worker\n\
             cluster: {{ apiServer: \"https://10.10.30.11:6443\" }}\n\
             kubernetes:\n  version: v1.34.2\n  mirrors: [{}]\n  artifacts:\n    {}\n    {}\n    kubectl: {{ sha256: {} }}\n\
             download: {{ {download} }}\n\
             pki: {{ ca: /etc/ca.pem, signer: {{ cfssl: {{ url: \"https://127.0.0.1:1\", authKeyFile: /etc/key, acceptAdminEquivalentKey: true }} }} }}\n",
            urls.join(", "),
            from("kubelet"),
            from("kube-proxy"),
            digest(&self.file),
        );
        Ok(fs::write(self.root().join("etc/nodeagent/node.yaml"), yaml)?)
    }

    /// The path of kubectl below a mirror's.
    pub fn path(mirror: &str) -> String {
        format!("{mirror}/v1.34.2/bin/linux/amd64/kubectl")
    }

    /// What a mirror answers to requests for kubectl.
    pub fn script(&self, mirror: &str, answers: impl IntoIterator<Item = Answer>) {
        self.mirror.script(&Self::path(mirror), answers);
    }

    /// The tree.
    pub fn root(&self) -> PathBuf {
        self.files.path().join("tree")
    }

    /// Starts the agent on it.
    pub fn start(&self, args: &[&str]) -> Result<Running> {
        let mut command = Command::new(agent());
        command.args(args).arg("--root").arg(self.root()).arg("--facts").arg(self.files.path().join("facts.json"));
        command.env_clear().stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Ok(Running(command.spawn().context("start the agent")?))
    }

    /// Runs `nodeagent install`; its exit code, and what it told.
    pub fn run(&self) -> Result<(i32, String)> {
        self.start(&["install"])?.end()
    }

    /// The whole file is in place, or nothing is.
    pub fn check_placed(&self, code: i32) -> Result<()> {
        match fs::read(self.root().join(PLACED)) {
            Ok(bytes) => ensure!(code == 0 && bytes == *self.file, "{} wrong bytes are in place", bytes.len()),
            Err(_) => ensure!(code != 0, "nothing is in place"),
        }
        Ok(())
    }

    /// The names of what is kept for the next run.
    pub fn partials(&self) -> Result<Vec<String>> {
        let dir = self.root().join(PARTIAL);
        if !dir.exists() {
            return Ok(Vec::new());
        }
        let mut names = Vec::new();
        for entry in fs::read_dir(dir)? {
            names.push(entry?.file_name().to_string_lossy().into_owned());
        }
        names.sort();
        Ok(names)
    }

    /// The name of kubectl on its way.
    pub fn partial(&self) -> PathBuf {
        self.root().join(PARTIAL).join(format!("kubectl-{}", &digest(&self.file)[..12]))
    }

    /// Leaves what a run would have left.
    pub fn leave(&self, bytes: &[u8], validator: &str) -> Result<()> {
        fs::create_dir_all(self.root().join(PARTIAL))?;
        fs::write(self.partial(), bytes)?;
        let note = serde_json::json!({ "url": self.mirror.url(&Self::path("/a")), "validator": validator });
        Ok(fs::write(format!("{}.from", self.partial().display()), note.to_string())?)
    }

    /// The ranges that a mirror was asked for, request by request.
    pub fn ranges(&self, mirror: &str) -> Vec<Option<String>> {
        self.mirror.asked(&Self::path(mirror)).into_iter().map(|asked| asked.range).collect()
    }
}

/// A run of the agent, killed if the test ends before it.
pub struct Running(Child);

impl Running {
    /// Waits for its end.
    pub fn end(mut self) -> Result<(i32, String)> {
        let begun = Instant::now();
        let mut told = String::new();
        let mut stderr = self.0.stderr.take().context("its stderr")?;
        let reader = thread::spawn(move || stderr.read_to_string(&mut told).map(|_| told));
        let status = loop {
            if let Some(status) = self.0.try_wait()? {
                break status;
            }
            ensure!(begun.elapsed() < PATIENCE, "the agent did not end within {PATIENCE:?}");
            thread::sleep(Duration::from_millis(5));
        };
        let told = reader.join().map_err(|_| anyhow::anyhow!("the reader panicked"))??;
        Ok((status.code().context("it was killed")?, told))
    }

    /// What it prints, messages included, when it is short enough for a pipe.
    pub fn printed(mut self) -> Result<String> {
        let mut printed = String::new();
        self.0.stdout.take().context("its stdout")?.read_to_string(&mut printed)?;
        Ok(printed + &self.end()?.1)
    }

    /// Kills it.
    pub fn kill(mut self) -> Result<()> {
        self.0.kill()?;
        self.0.wait()?;
        Ok(())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Either call fails only when it has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
