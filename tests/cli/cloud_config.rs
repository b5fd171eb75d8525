//! `nodeagent cloud-config`, judged by those for whom its output is: the real cloud-init, the real Ignition, and a reader of
//! YAML 1.1.
//!
//! The examples in `cloud-config/` are what it makes of the clusters there, with what differs from run to run blotted out.
//! Run with `UPDATE_GOLDEN=1` to write them anew, and read the difference.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::SystemTime;

use anyhow::{Context as _, Result, ensure};
use openssl::base64::decode_block;
use openssl::x509::X509;
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

    /// Every file of the inventory.
    fn all(&self) -> Result<Files> {
        fn walk(dir: &Path, all: &mut Files) -> Result<()> {
            for entry in fs::read_dir(dir)? {
                let (path, metadata) = {
                    let entry = entry?;
                    (entry.path(), entry.metadata()?)
                };
                if metadata.is_dir() {
                    walk(&path, all)?;
                } else {
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

#[test]
fn the_examples_are_what_it_makes() -> Result<()> {
    let formats = ["user-data", "user-data.coreos", "config.bu", "config.ign"];
    for (cluster, nodes) in
        [("cluster.yaml", ["controller-1", "worker-1"]), ("cluster-etcd.yaml", ["etcd-1", "edge-1"])]
    {
        let operator = Operator::of(&example(cluster)?)?;
        for node in nodes {
            let dir = repository("cloud-config").join(node.trim_end_matches("-1"));
            for format in formats {
                let made = operator.blotted(&operator.text(&format!("{node}/{format}"))?)?;
                let file = dir.join(format);
                if std::env::var_os("UPDATE_GOLDEN").is_some() {
                    fs::create_dir_all(&dir)?;
                    fs::write(&file, &made)?;
                }
                let golden = fs::read_to_string(&file).with_context(|| file.display().to_string())?;
                ensure!(
                    golden == made,
                    "{}: it is not what the command makes (UPDATE_GOLDEN=1):\n{made}",
                    file.display()
                );
            }
        }
    }
    Ok(())
}

#[test]
fn the_units_in_the_examples_for_pasting_are_those_of_the_repository() -> Result<()> {
    let examples = ["worker.yaml", "kubeadm.yaml"];
    let units = ["nodeagent-fetch.service", "nodeagent.service"];
    for (name, unit) in examples.into_iter().flat_map(|name| units.map(|unit| (name, unit))) {
        let user_data = example(name)?;
        let text = fs::read_to_string(repository("units").join(unit))?;
        let indented: String = text
            .lines()
            .map(|line| if line.is_empty() { "\n".to_owned() } else { format!("      {line}\n") })
            .collect();
        let head = format!("  - path: /etc/systemd/system/{unit}\n    permissions: \"0644\"\n    content: |\n");
        ensure!(user_data.contains(&format!("{head}{indented}\n")), "cloud-config/{name} has another {unit}");
    }
    Ok(())
}

#[test]
fn the_real_cloud_init_and_the_real_ignition_take_it() -> Result<()> {
    for cluster in ["cluster.yaml", "cluster-etcd.yaml"] {
        let operator = Operator::of(&example(cluster)?)?;
        for (path, _) in operator.all()? {
            match path.file_name().and_then(|name| name.to_str()) {
                Some("user-data") => schema_check(&path)?,
                Some("config.ign") => ignition_validate(&path)?,
                _ => {}
            }
        }
        // The judges can say no.
        let bad = operator.path("bad");
        // A mode without its quotes is a number.
        fs::write(&bad, operator.text("controller-1/user-data")?.replace("\"0644\"", "0644"))?;
        ensure!(schema_check(&bad).is_err(), "cloud-init took what it cannot know");
        fs::write(&bad, operator.text("controller-1/config.ign")?.replace("sha256-", "sha1-"))?;
        ensure!(ignition_validate(&bad).is_err(), "Ignition took a digest of no known kind");
    }
    Ok(())
}

/// All formats of a machine write the same files, with the same modes; and what they have fetched is pinned.
#[test]
fn all_formats_say_the_same() -> Result<()> {
    let operator = Operator::of(&example("cluster.yaml")?)?;
    for node in ["controller-1", "worker-1"] {
        let files = |config: &Value| -> Result<BTreeMap<String, (u64, String)>> {
            let mut files = BTreeMap::new();
            for file in config["write_files"].as_array().context("write_files")? {
                let text = |key: &str| file[key].as_str().with_context(|| format!("{key} of {file}"));
                let mode = u64::from_str_radix(text("permissions")?, 8)?;
                files.insert(text("path")?.to_owned(), (mode, text("content")?.to_owned()));
            }
            Ok(files)
        };
        let mut cloud_init = files(&operator.json(&format!("{node}/user-data"))?)?;
        let coreos = operator.json(&format!("{node}/user-data.coreos"))?;
        for unit in ["nodeagent-fetch.service", "nodeagent.service"] {
            let (_, content) = cloud_init.remove(&format!("/etc/systemd/system/{unit}")).context(unit)?;
            ensure!(content == fs::read_to_string(repository("units").join(unit))?, "{node}: {unit}");
            let units = coreos["coreos"]["units"].as_array().context("units")?;
            ensure!(units.iter().any(|there| there["name"] == *unit && there["content"] == *content), "{node}: {unit}");
        }
        ensure!(files(&coreos)? == cloud_init, "{node}: user-data.coreos has other files");
        ensure!(cloud_init.contains_key("/etc/nodeagent/bootstrap-token") == (node == "worker-1"), "{node}");
        for (path, (mode, _)) in &cloud_init {
            ensure!((*mode == 0o600) == path.ends_with("token"), "{node}: {path} {mode:o}");
        }

        let (butane, ignition) =
            (operator.json(&format!("{node}/config.bu"))?, operator.text(&format!("{node}/config.ign"))?);
        let ignition: Value = serde_json::from_str(&ignition)?;
        let pinned = "sha256-a7f3d1c05b9e42688d1f0c37ea52b946f80d3c1927be64a5d09e8f7216c4b35a";
        for (config, inline) in [(&butane, true), (&ignition, false)] {
            let mut ignited = BTreeMap::new();
            for file in config["storage"]["files"].as_array().context("files")? {
                let path = file["path"].as_str().context("path")?.to_owned();
                let (contents, mode) = (&file["contents"], file["mode"].as_u64().context("mode")?);
                if path.ends_with("/bin/nodeagent") {
                    ensure!(contents["verification"]["hash"] == *pinned && mode == 0o755, "{node}: {file}");
                    ensure!(config["storage"]["links"][0]["target"] == *path, "{node}: the link");
                    continue;
                }
                let content = if inline {
                    contents["inline"].as_str().context("inline")?.to_owned()
                } else {
                    unescaped(contents["source"].as_str().context("source")?)?
                };
                ignited.insert(path, (mode, content));
            }
            // Ignition fetches the agent itself.
            let mut wanted = cloud_init.clone();
            wanted.remove("/etc/nodeagent/agent.env");
            wanted.remove("/etc/nodeagent/nodeagent.sha256");
            ensure!(ignited == wanted, "{node}: Butane or Ignition has other files");
            let unit = &config["systemd"]["units"][0];
            ensure!(unit["name"] == "nodeagent.service" && unit["enabled"] == true, "{node}: {unit}");
            ensure!(
                unit["contents"] == *fs::read_to_string(repository("units/nodeagent.service"))?,
                "{node}: the unit"
            );
        }
    }
    Ok(())
}

/// What a data URL holds.
fn unescaped(url: &str) -> Result<String> {
    let mut parts = url.strip_prefix("data:,").context("no data URL")?.split('%');
    let mut bytes = parts.next().unwrap_or_default().as_bytes().to_vec();
    for part in parts {
        let (code, rest) = part.split_at_checked(2).context("half an escape")?;
        bytes.push(u8::from_str_radix(code, 16)?);
        bytes.extend(rest.as_bytes());
    }
    Ok(String::from_utf8(bytes)?)
}

/// Each of its readers finds its own user-data on the drive: cloud-init by its own code, coreos-cloudinit in the only place
/// where it looks.
#[test]
fn the_config_drive_is_read_by_cloud_init_and_by_others() -> Result<()> {
    need("bsdtar", "libarchive-tools")?;
    need("blkid", "util-linux")?;
    let operator = Operator::of(&example("cluster.yaml")?)?;
    let image = operator.path("worker-1/config-2.img");
    let probed = Command::new("blkid").args(["--probe", "--output", "export"]).arg(&image).output()?.stdout;
    let probed = String::from_utf8(probed)?;
    ensure!(probed.contains("LABEL=config-2\n") && probed.contains("TYPE=iso9660\n"), "{probed}");

    let drive = operator.path("drive");
    fs::create_dir(&drive)?;
    let unpacked = Command::new("bsdtar").arg("-xf").arg(&image).current_dir(&drive).output()?;
    ensure!(unpacked.status.success(), "{}", String::from_utf8_lossy(&unpacked.stderr));
    let coreos = fs::read_to_string(drive.join("openstack/latest/user_data"))?;
    ensure!(coreos == operator.text("worker-1/user-data.coreos")?, "coreos-cloudinit's user-data");

    let script = "import json, sys\n\
                  from cloudinit.sources.DataSourceConfigDrive import FS_TYPES, LABEL_TYPES\n\
                  from cloudinit.sources.helpers.openstack import ConfigDriveReader\n\
                  read = ConfigDriveReader(sys.argv[1]).read_v2()\n\
                  print(json.dumps([FS_TYPES, LABEL_TYPES, read['userdata'].decode(), read['metadata']]))";
    let output = cloud_init(script, &[&drive])?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let said: Value = serde_json::from_slice(&output.stdout)?;
    let has = |list: &Value, word: &str| list.as_array().is_some_and(|all| all.iter().any(|one| one == word));
    ensure!(has(&said[0], "iso9660") && has(&said[1], "config-2"), "{said}");
    ensure!(said[2] == *operator.text("worker-1/user-data")?, "cloud-init's user-data");
    let metadata = &said[3];
    ensure!(metadata["hostname"] == "worker-1" && metadata["instance-id"] == metadata["uuid"], "{metadata}");
    ensure!(metadata["uuid"].as_str().is_some_and(|uuid| uuid.len() == 36), "{metadata}");
    Ok(())
}

#[test]
fn a_second_run_writes_nothing_and_one_more_machine_changes_no_other_s_network() -> Result<()> {
    let operator = Operator::of(&example("cluster.yaml")?)?;
    let before = operator.all()?;
    let again = operator.run(&[])?;
    ensure!(String::from_utf8_lossy(&again.stdout).starts_with("everything is there already\n"), "{again:?}");
    ensure!(operator.all()? == before, "a second run wrote something");

    let more = example("cluster.yaml")?.replace("nodes:\n", "nodes:\n  a-worker: { address: 10.10.30.20 }\n");
    fs::write(operator.dir.path().join("cluster.yaml"), more)?;
    ensure!(operator.run(&[])?.status.success(), "one more machine");
    let nodes = operator.json("worker-1/node.yaml")?["cluster"]["nodes"].clone();
    let cidrs = ["controller-1", "worker-1", "worker-2", "a-worker"].map(|name| nodes[name]["podCIDR"].clone());
    ensure!(cidrs == ["10.244.0.0/24", "10.244.1.0/24", "10.244.2.0/24", "10.244.3.0/24"], "{cidrs:?}");
    let after = operator.all()?;
    for kept in ["pki/ca-key.pem", "pki/sa-key.pem", "admin.conf", "controller-1/secrets/ca-key.pem"] {
        ensure!(after[&operator.path(kept)] == before[&operator.path(kept)], "{kept} was made again");
    }
    let token = |node: &str| -> Result<Value> { Ok(operator.json("bootstrap-tokens.yaml")?["tokens"][node].clone()) };
    let old = token("worker-1")?;
    ensure!(operator.text("worker-1/user-data")?.contains(old["token"].as_str().context("a token")?), "its own token");
    ensure!(operator.run(&["--new-tokens"])?.status.success(), "new tokens");
    ensure!(token("worker-1")? != old, "the token is still {old}");
    Ok(())
}

#[test]
fn what_is_secret_is_its_owners_alone_and_listed() -> Result<()> {
    let operator = Operator::of(&example("cluster-etcd.yaml")?)?;
    for (path, (mode, _, bytes)) in operator.all()? {
        let holds_key = String::from_utf8_lossy(&bytes).contains("PRIVATE KEY");
        let open = ["node.yaml", "secrets.yaml", "allocations.yaml", "ca.pem", "etcd-ca.pem", "front-proxy-ca.pem"];
        let open = path.file_name().and_then(|name| name.to_str()).is_some_and(|name| open.contains(&name));
        ensure!(mode == if open { 0o644 } else { 0o600 }, "{} has mode {mode:o}", path.display());
        let in_place = path.components().any(|part| ["pki", "secrets"].iter().any(|dir| part.as_os_str() == *dir));
        ensure!(!holds_key || in_place, "{} holds a key", path.display());
    }
    for closed in ["pki", "controller-1/secrets", "etcd-1/secrets"] {
        let mode = fs::metadata(operator.path(closed))?.permissions().mode() & 0o7777;
        ensure!(mode == 0o700, "{closed} has mode {mode:o}");
    }
    let listed = |node: &str| -> Result<Vec<String>> {
        let listed = operator.json(&format!("{node}/secrets.yaml"))?;
        let listed = listed.as_object().context("a map")?;
        let mut there: Vec<String> = fs::read_dir(operator.path(node).join("secrets"))?
            .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
            .collect::<Result<_>>()?;
        there.sort();
        let mut names: Vec<String> = listed.keys().cloned().collect();
        names.sort();
        ensure!(there == names, "{node}: {there:?} and {names:?}");
        ensure!(listed.values().all(|entry| entry["mode"] == "0600"), "{listed:?}");
        Ok(names)
    };
    let of_controllers = [
        "bootstrap-tokens.yaml",
        "ca-key.pem",
        "encryption-key",
        "etcd-ca-key.pem",
        "front-proxy-ca-key.pem",
        "sa-key.pem",
    ];
    ensure!(listed("controller-1")? == of_controllers, "{:?}", listed("controller-1")?);
    ensure!(listed("etcd-1")? == ["etcd-ca-key.pem"], "{:?}", listed("etcd-1")?);
    ensure!(!operator.path("edge-1/secrets").exists(), "an edge node needs none");
    let same = |name: &str| fs::read(operator.path(&format!("controller-1/secrets/{name}")));
    ensure!(same("sa-key.pem")? == fs::read(operator.path("controller-3/secrets/sa-key.pem"))?, "one key for all");
    Ok(())
}

#[test]
fn the_administrators_kubeconfig_is_signed_by_the_cluster() -> Result<()> {
    let operator = Operator::of(&example("cluster.yaml")?)?;
    let config: Value = serde_json::from_str(&operator.text("admin.conf")?)?;
    let data = |at: &Value| -> Result<Vec<u8>> { Ok(decode_block(at.as_str().context("no data")?)?) };
    let ca = X509::from_pem(&data(&config["clusters"][0]["cluster"]["certificate-authority-data"])?)?;
    let certificate = X509::from_pem(&data(&config["users"][0]["user"]["client-certificate-data"])?)?;
    let key = openssl::pkey::PKey::private_key_from_pem(&data(&config["users"][0]["user"]["client-key-data"])?)?;
    ensure!(certificate.verify(&*ca.public_key()?)? && certificate.public_key()?.public_eq(&key), "the pair");
    let subject: Vec<String> =
        certificate.subject_name().entries().map(|entry| Ok(entry.data().to_string()?)).collect::<Result<_>>()?;
    ensure!(subject == ["system:masters", "kubernetes-admin"], "{subject:?}");
    ensure!(config["clusters"][0]["cluster"]["server"] == "https://10.10.30.11:6443", "{config}");
    ensure!(config["current-context"] == config["contexts"][0]["name"], "{config}");
    Ok(())
}

#[test]
fn what_cannot_be_is_refused_before_anything_is_made() -> Result<()> {
    let good = example("cluster.yaml")?;
    let line = |n| format!("  machine-with-a-long-name-{n}: {{ address: 10.9.0.{n} }}\n");
    let many = (0..250).map(line).collect::<Vec<_>>().concat();
    let table = [
        (
            good.replace("apiServer", "apiserver"),
            vec!["cluster.yaml:5:1: apiserver: unknown key; did you mean apiServer?", "2 errors"],
        ),
        (
            good.replace("v1.34.2\n", "1.34\n").replace("10.10.30.21", "10.10.30"),
            vec!["cluster.yaml:16:12: kubernetes.version", "nodes.worker-1.address", "2 errors"],
        ),
        (
            good.replace("nodes:\n", &format!("nodes:\n{many}")),
            vec!["would have", "metadata services take 16384", "--any-size"],
        ),
        (good.replace("worker-1:", "pki:"), vec!["machine of the name pki", "--pki"]),
    ];
    for (text, wanted) in table {
        let operator = Operator::new(&text)?;
        let output = operator.run(&[])?;
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(output.status.code() == Some(2), "{told}");
        for words in wanted {
            ensure!(told.contains(words), "{words:?} is not in\n{told}");
        }
        ensure!(!operator.path("worker-2").exists() && !operator.path("admin.conf").exists(), "something was made");
        if told.contains("--any-size") {
            ensure!(operator.run(&["--any-size"])?.status.success(), "any size");
        }
    }
    Ok(())
}

#[test]
fn a_ca_that_is_there_is_taken_and_half_a_one_is_not() -> Result<()> {
    let operator = Operator::new(&example("cluster.yaml")?)?;
    let own = operator.dir.path().join("own");
    fs::create_dir(&own)?;
    let made = Command::new(env!("CARGO_BIN_EXE_nodeagent")).args(["certs", "ca"]).arg(&own).output()?;
    ensure!(made.status.success(), "{made:?}");
    ensure!(operator.run(&["--pki", "own"])?.status.success(), "with a CA of one's own");
    let ca = fs::read_to_string(own.join("ca.pem"))?;
    let yaml = operator.json("worker-1/user-data")?;
    let files = yaml["write_files"].as_array().context("files")?;
    let written = files.iter().find(|file| file["path"] == "/etc/kubernetes/pki/ca.pem").context("the CA")?;
    ensure!(written["content"] == *ca, "another CA");
    ensure!(!operator.path("pki").exists(), "a directory that nobody asked for");

    // With its key beside it, as some tools keep it: the machines get the certificate alone.
    let key = fs::read_to_string(own.join("ca-key.pem"))?;
    fs::write(own.join("ca.pem"), format!("{ca}{key}"))?;
    ensure!(operator.run(&["--pki", "own"])?.status.success(), "both in one file");
    ensure!(!operator.text("worker-1/user-data")?.contains("PRIVATE KEY"), "a key in user-data");

    fs::remove_file(own.join("ca-key.pem"))?;
    let output = operator.run(&["--pki", "own"])?;
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.code() == Some(2) && told.contains("own/ca-key.pem: there is no such file"), "{told}");
    ensure!(!own.join("ca-key.pem").exists(), "a new key for an old CA");
    Ok(())
}
