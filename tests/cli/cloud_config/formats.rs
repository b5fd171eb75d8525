//! What a machine reads at its first boot, in each format, judged by those for whom it is.
//!
//! The examples in `cloud-config/` are what the command makes of the clusters there, with what differs from run to run
//! blotted out. Run with `UPDATE_GOLDEN=1` to write them anew, and read the difference.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use super::butane::{held, stand_in_for_butane};
use super::coreos::stand_in_for_coreos_cloudinit;
use super::{Operator, cloud_init, example, ignition_validate, repository, schema_check, yaml_1_1};
use crate::world::scratch;

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
                    held(contents)?.context("it would be fetched")?
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

/// No example that nobody looks at: each file in `cloud-config/` is taken by whom it is for, as it is there.
#[test]
fn each_example_is_taken_by_whom_it_is_for() -> Result<()> {
    let (mut dirs, mut judged) = (vec![repository("cloud-config")], BTreeMap::new());
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(dir)? {
            let path = entry?.path();
            if path.is_dir() {
                dirs.push(path);
                continue;
            }
            let name = path.file_name().and_then(|name| name.to_str()).context("a name")?.to_owned();
            match name.as_str() {
                "user-data" => schema_check(&path),
                "user-data.coreos" => stand_in_for_coreos_cloudinit(&path),
                "config.ign" => ignition_validate(&path),
                "config.bu" => stand_in_for_butane(&yaml_1_1(&path)?).map(drop),
                "worker.yaml" | "kubeadm.yaml" => template_check(&path),
                "cluster.yaml" | "cluster-etcd.yaml" => Operator::of(&fs::read_to_string(&path)?).map(drop),
                _ => bail!("nobody looks at {}", path.display()),
            }
            .with_context(|| path.display().to_string())?;
            *judged.entry(name).or_insert(0) += 1;
        }
    }
    let of_roles = ["user-data", "user-data.coreos", "config.ign", "config.bu"].map(|name| judged.get(name).copied());
    ensure!(of_roles == [Some(4); 4] && judged.len() == 8, "{judged:?}");
    Ok(())
}

/// The real cloud-init fills the template in, with meta-data for each name that the file's head promises, and takes it.
fn template_check(path: &Path) -> Result<()> {
    let text = fs::read_to_string(path)?;
    let head = text.lines().take_while(|line| line.starts_with('#'));
    let promised =
        head.flat_map(|line| line.split([' ', ',', '#'])).filter(|word| word.contains('_') && !word.contains('`'));
    let promised: BTreeMap<&str, &str> = promised.map(|name| (name, "0000")).collect();
    let script = "import json, sys\n\
                  from cloudinit.handlers.jinja_template import render_jinja_payload\n\
                  data = {'ds': {'meta_data': json.loads(sys.argv[2])}}\n\
                  print(render_jinja_payload(open(sys.argv[1]).read(), 'worker.yaml', data))";
    let data = serde_json::to_string(&promised)?;
    let output = cloud_init(script, &[path, Path::new(&data)])?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let rendered = String::from_utf8(output.stdout)?;
    // What has no value is filled in by its own name, with this before it.
    ensure!(!rendered.contains("CI_MISSING_JINJA_VAR"), "it asks for more than its head says:\n{rendered}");
    let dir = scratch()?;
    let file = dir.path().join("rendered");
    fs::write(&file, rendered)?;
    schema_check(&file)
}
