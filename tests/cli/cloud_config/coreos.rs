//! A stand-in for coreos-cloudinit, which no registry packages. It knows what the documentation of coreos-cloudinit names
//! (`Documentation/cloud-config.md` and `config-drive.md` of its repository), and refuses whatever is not there: the real
//! one would log an unknown key, and go on without it.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::{Operator, example, unpacked, yaml_1_1};

/// Where it looks on a config drive, of which it knows the label `config-2`.
const ON_THE_DRIVE: &str = "openstack/latest/user_data";

/// Each part's keys.
const TOP: &[&str] = &["coreos", "hostname", "manage_etc_hosts", "ssh_authorized_keys", "users", "write_files"];
const COREOS: &[&str] = &["etcd", "etcd2", "flannel", "fleet", "locksmith", "oem", "units", "update"];
const UNIT: &[&str] = &["command", "content", "drop-ins", "enable", "mask", "name", "runtime"];
const FILE: &[&str] = &["content", "encoding", "owner", "path", "permissions"];

/// What it replaces by the machine's addresses wherever it stands, in a file's content as well.
const SUBSTITUTED: [&str; 4] = ["$private_ipv4", "$public_ipv4", "$private_ipv6", "$public_ipv6"];

fn has_only(of: &str, value: &Value, known: &[&str]) -> Result<()> {
    let map = value.as_object().with_context(|| format!("{of} is no map: {value}"))?;
    let unknown: Vec<&String> = map.keys().filter(|key| !known.contains(&key.as_str())).collect();
    ensure!(unknown.is_empty(), "{of} has {unknown:?}, which coreos-cloudinit does not know");
    Ok(())
}

fn list<'v>(value: &'v Value, key: &str) -> Result<&'v Vec<Value>> {
    value[key].as_array().with_context(|| format!("{key} is no list"))
}

fn text<'v>(value: &'v Value, key: &str) -> Result<&'v str> {
    value[key].as_str().with_context(|| format!("{key} is no text in {value}"))
}

/// Whether the stand-in takes this user-data as it is meant.
pub(super) fn stand_in_for_coreos_cloudinit(path: &Path) -> Result<()> {
    let user_data = fs::read_to_string(path)?;
    ensure!(user_data.lines().next() == Some("#cloud-config"), "the first line is not what it looks for");
    for word in SUBSTITUTED {
        ensure!(!user_data.contains(word), "{word} would be replaced");
    }
    let config = yaml_1_1(path)?;
    has_only("the document", &config, TOP)?;
    for file in list(&config, "write_files")? {
        has_only("a file", file, FILE)?;
        ensure!(text(file, "path")?.starts_with('/') && !text(file, "content")?.is_empty(), "{file}");
        let mode = text(file, "permissions")?;
        ensure!(mode.len() == 4 && mode.starts_with('0') && u32::from_str_radix(mode, 8)? <= 0o777, "{mode}");
    }
    let coreos = &config["coreos"];
    has_only("coreos", coreos, COREOS)?;
    for unit in list(coreos, "units")? {
        has_only("a unit", unit, UNIT)?;
        let (name, content) = (text(unit, "name")?, text(unit, "content")?);
        ensure!(content.contains("[Unit]"), "{name} is no unit: {content}");
        for flag in ["enable", "mask", "runtime"] {
            ensure!(unit[flag].is_null() || unit[flag].is_boolean(), "{flag} of {name}");
        }
        // It waits for what it starts, and gives up after ten minutes.
        let is_timer = Path::new(name).extension().is_some_and(|extension| extension == "timer");
        ensure!(unit["command"].is_null() || (unit["command"] == "start" && is_timer), "{unit}");
    }
    let started = list(coreos, "units")?.iter().filter(|unit| unit["command"] == "start").count();
    ensure!(started == 1, "{started} units are started");
    Ok(())
}

#[test]
fn coreos_cloudinit_knows_each_key_by_its_documentation() -> Result<()> {
    for cluster in ["cluster.yaml", "cluster-etcd.yaml"] {
        let operator = Operator::of(&example(cluster)?)?;
        let mut judged = 0;
        for (path, _) in operator.all()? {
            if path.file_name().is_some_and(|name| name == "user-data.coreos") {
                stand_in_for_coreos_cloudinit(&path).with_context(|| path.display().to_string())?;
                judged += 1;
            }
        }
        ensure!(judged >= 3, "{judged} machines");
    }
    // The stand-in can say no.
    let operator = Operator::of(&example("cluster.yaml")?)?;
    let (good, bad) = (operator.text("worker-1/user-data.coreos")?, operator.path("bad"));
    for (from, to) in [
        ("#cloud-config\n", "# cloud-config\n"),
        ("coreos:\n", "core-os:\n"),
        ("permissions: \"0644\"", "permissions: 0644"),
        ("permissions: \"0644\"", "mode: \"0644\""),
        ("name: nodeagent.timer", "name: nodeagent.service"),
        ("role: worker", "role: $public_ipv4"),
    ] {
        ensure!(good.contains(from), "{from} is not in\n{good}");
        fs::write(&bad, good.replacen(from, to, 1))?;
        ensure!(stand_in_for_coreos_cloudinit(&bad).is_err(), "{to} was taken");
    }
    Ok(())
}

#[test]
fn coreos_cloudinit_finds_its_own_user_data_on_the_drive() -> Result<()> {
    let operator = Operator::of(&example("cluster.yaml")?)?;
    let drive = unpacked(&operator, "worker-1/config-2.img")?;
    let found = drive.join(ON_THE_DRIVE);
    stand_in_for_coreos_cloudinit(&found)?;
    ensure!(fs::read_to_string(found)? == operator.text("worker-1/user-data.coreos")?, "another machine's");
    Ok(())
}
