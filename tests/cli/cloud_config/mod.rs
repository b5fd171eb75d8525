//! `nodeagent cloud-config`, judged by those for whom its output is: the real cloud-init, the real Ignition, and a reader of
//! YAML 1.1.
//!
//! | what | file |
//! | --- | --- |
//! | the examples in `cloud-config/`, and who takes them | `formats.rs` |
//! | stand-ins for those that no registry packages | `butane.rs`, `coreos.rs` |
//! | the config drive | `drive.rs` |
//! | the inventory, its secrets, and what is refused | `inventory.rs` |

mod butane;
mod coreos;
mod drive;
mod formats;
mod inventory;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::SystemTime;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tempfile::TempDir;

use crate::world::{need, scratch};

const PYTHON: &str = "/usr/bin/python3";

fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn example(name: &str) -> Result<String> {
    Ok(fs::read_to_string(repository("cloud-config").join(name))?)
}

/// Each file's mode, when it was written, and its bytes.
type Files = BTreeMap<PathBuf, (u32, SystemTime, Vec<u8>)>;

/// An operator's directory with a cluster.yaml.
struct Operator {
    dir: TempDir,
}

impl Operator {
    fn new(cluster: &str) -> Result<Self> {
        let dir = scratch()?;
        fs::write(dir.path().join("cluster.yaml"), cluster)?;
        Ok(Self { dir })
    }

    /// The same, after a run that went well.
    fn of(cluster: &str) -> Result<Self> {
        let operator = Self::new(cluster)?;
        let output = operator.run(&[])?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Ok(operator)
    }

    fn run(&self, args: &[&str]) -> Result<Output> {
        let mut command = Command::new(env!("CARGO_BIN_EXE_nodeagent"));
        Ok(command.args(["cloud-config", "cluster.yaml"]).args(args).current_dir(self.dir.path()).output()?)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join("inventory").join(name)
    }

    fn text(&self, name: &str) -> Result<String> {
        fs::read_to_string(self.path(name)).with_context(|| name.to_owned())
    }

    /// Every file of the inventory, but for those that say who was in it last.
    fn all(&self) -> Result<Files> {
        fn walk(dir: &Path, all: &mut Files) -> Result<()> {
            for entry in fs::read_dir(dir)? {
                let (path, metadata) = {
                    let entry = entry?;
                    (entry.path(), entry.metadata()?)
                };
                if metadata.is_dir() {
                    walk(&path, all)?;
                } else if !path.ends_with(".lock") {
                    let mode = metadata.permissions().mode() & 0o7777;
                    all.insert(path.clone(), (mode, metadata.modified()?, fs::read(path)?));
                }
            }
            Ok(())
        }
        let mut all = BTreeMap::new();
        walk(&self.dir.path().join("inventory"), &mut all)?;
        Ok(all)
    }

    /// A text without what differs from run to run.
    fn blotted(&self, text: &str) -> Result<String> {
        const BLOT: &str = "(base64)";
        let mut text = text.to_owned();
        for name in ["ca.pem", "etcd-ca.pem", "front-proxy-ca.pem"] {
            let pem = self.text(&format!("pki/{name}"))?;
            let body: Vec<&str> = pem.lines().filter(|line| !line.starts_with("-----")).collect();
            let encoded = body.join("%0A").replace('+', "%2B").replace('=', "%3D");
            text = text.replace(&encoded, BLOT).replace(body[0], BLOT);
            let lines = text.split_inclusive('\n');
            text = lines.filter(|line| !body.contains(&line.trim())).collect();
        }
        let tokens = self.json("bootstrap-tokens.yaml")?;
        for (_, token) in tokens["tokens"].as_object().into_iter().flatten() {
            text = text.replace(token["token"].as_str().context("a token")?, "abcdef.0123456789abcdef");
        }
        Ok(text)
    }

    /// A YAML file as YAML 1.1 has it.
    fn json(&self, name: &str) -> Result<Value> {
        yaml_1_1(&self.path(name))
    }
}

/// What `bsdtar` finds in an image of the inventory, unpacked.
fn unpacked(operator: &Operator, image: &str) -> Result<PathBuf> {
    need("bsdtar", "libarchive-tools")?;
    let drive = operator.path("drive");
    fs::create_dir(&drive)?;
    let output = Command::new("bsdtar").arg("-xf").arg(operator.path(image)).current_dir(&drive).output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(drive)
}

/// What a reader of YAML 1.1 finds in a file: `PyYAML`, which is also cloud-init's.
fn yaml_1_1(path: &Path) -> Result<Value> {
    let script = "import json, sys, yaml; json.dump(yaml.safe_load(open(sys.argv[1])), sys.stdout)";
    let output = Command::new(PYTHON).args(["-c", script]).arg(path).output().context("python3: run `make setup`")?;
    ensure!(output.status.success(), "{}: {}", path.display(), String::from_utf8_lossy(&output.stderr));
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// The real cloud-init, unpacked by tests/lab/setup.sh and not installed: a script that runs with its modules.
fn cloud_init(script: &str, args: &[&Path]) -> Result<Output> {
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache"))).context("no HOME")?;
    let modules = cache.join("nodeagent/tools/cloud-init/usr/lib/python3/dist-packages");
    ensure!(modules.is_dir(), "cloud-init is missing: run `make setup`");
    let mut command = Command::new(PYTHON);
    command.env("PYTHONPATH", modules).args(["-c", script]).args(args).current_dir("/");
    Ok(command.output()?)
}

/// What cloud-init's own check says of user-data.
fn schema_check(path: &Path) -> Result<()> {
    let script = "import sys; sys.argv = ['cloud-init', 'schema', '--config-file', sys.argv[1]]\n\
                  from cloudinit.cmd.main import main; sys.exit(main())";
    let output = cloud_init(script, &[path])?;
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success() && said.contains("Valid cloud-config"), "{}: {said}", path.display());
    Ok(())
}

fn ignition_validate(path: &Path) -> Result<()> {
    need("ignition-validate", "ignition")?;
    let output = Command::new("ignition-validate").arg(path).output()?;
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success() && said.trim().is_empty(), "{}: {said}", path.display());
    Ok(())
}
