//! A stand-in for Butane, which no registry packages. It makes Ignition's configuration out of `config.bu` by the rules that
//! Butane's documentation gives (`docs/config-flatcar-v1_0.md` of its repository), for the keys that stand there, and
//! knows no others. What it makes is put before the real Ignition, and must say what our own `config.ign` says.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read as _, Write as _};

use anyhow::{Context as _, Result, bail, ensure};
use flate2::{Compression, read::GzDecoder, write::GzEncoder};
use openssl::base64::{decode_block, encode_block};
use serde_json::{Map, Value, json};

use super::{Operator, example, ignition_validate};

/// What version 1.0.0 of the variant `flatcar` is translated to.
const IGNITION: &str = "3.3.0";

/// The keys of each part that `config.bu` has; in Ignition they are called the same.
const KEYS: [(&str, &[&str]); 8] = [
    ("", &["ignition", "kernel_arguments", "passwd", "storage", "systemd", "variant", "version"]),
    ("storage", &["directories", "disks", "files", "filesystems", "links", "luks", "raid", "trees"]),
    ("storage.files", &["append", "contents", "group", "mode", "overwrite", "path", "user"]),
    ("storage.files.contents", &["compression", "http_headers", "inline", "local", "source", "verification"]),
    ("storage.files.contents.verification", &["hash"]),
    ("storage.links", &["group", "hard", "overwrite", "path", "target", "user"]),
    ("systemd", &["units"]),
    ("systemd.units", &["contents", "dropins", "enabled", "mask", "name"]),
];

/// Ignition's configuration, of Butane's.
pub(super) fn stand_in_for_butane(config: &Value) -> Result<Value> {
    ensure!(config["variant"] == "flatcar" && config["version"] == "1.0.0", "it is of another kind");
    let Value::Object(mut made) = translated("", config)? else { bail!("it is no map") };
    made.retain(|key, _| !["variant", "version"].contains(&key.as_str()));
    made.insert("ignition".to_owned(), json!({ "version": IGNITION }));
    Ok(Value::Object(made))
}

fn translated(part: &str, value: &Value) -> Result<Value> {
    match value {
        Value::Object(map) => {
            let known = KEYS.iter().find(|(known, _)| *known == part).map(|(_, keys)| keys);
            let known = known.with_context(|| format!("{part} is nothing that this stand-in knows"))?;
            let mut made = Map::new();
            for (key, value) in map {
                ensure!(known.contains(&key.as_str()), "{part} has {key}, which Butane does not know");
                let inside = [part, key].into_iter().filter(|name| !name.is_empty()).collect::<Vec<_>>().join(".");
                made.insert(key.clone(), translated(&inside, value)?);
            }
            match part {
                "storage.files.contents" => embedded(&mut made)?,
                "storage.files" => {
                    let bits = made["mode"].as_u64().context("a mode is a number")?;
                    ensure!(bits <= 0o777, "the mode {bits:o} has bits that are not supported");
                    ensure!(made["overwrite"] != true || made.contains_key("contents"), "nothing to overwrite with");
                }
                "storage" => unique(&made, &["files", "links"], "path")?,
                "systemd" => unique(&made, &["units"], "name")?,
                _ => {}
            }
            Ok(Value::Object(made))
        }
        Value::Array(items) => {
            Ok(Value::Array(items.iter().map(|item| translated(part, item)).collect::<Result<_>>()?))
        }
        scalar => Ok(scalar.clone()),
    }
}

/// `inline` becomes the shortest of three URLs that hold it.
fn embedded(contents: &mut Map<String, Value>) -> Result<()> {
    let sources = ["inline", "local", "source"].iter().filter(|key| contents.contains_key(**key)).count();
    ensure!(sources == 1, "{sources} sources in {contents:?}");
    let Some(inline) = contents.remove("inline") else { return Ok(()) };
    let inline = inline.as_str().with_context(|| format!("inline is no text: {inline}"))?.as_bytes();
    let escaped = |byte: &u8| match byte {
        byte if byte.is_ascii_alphanumeric() || b"-_.!~*'()".contains(byte) => char::from(*byte).to_string(),
        byte => format!("%{byte:02X}"),
    };
    let plain = format!("data:,{}", inline.iter().map(escaped).collect::<String>());
    let encoded = format!("data:;base64,{}", encode_block(inline));
    let mut packed = GzEncoder::new(Vec::new(), Compression::best());
    packed.write_all(inline)?;
    let packed = format!("data:;base64,{}", encode_block(&packed.finish()?));
    let (url, compression) = if packed.len() + "gzip".len() < plain.len().min(encoded.len()) {
        (packed, "gzip")
    } else if encoded.len() < plain.len() {
        (encoded, "")
    } else {
        (plain, "")
    };
    contents.extend([("source".to_owned(), json!(url)), ("compression".to_owned(), json!(compression))]);
    Ok(())
}

fn unique(part: &Map<String, Value>, lists: &[&str], key: &str) -> Result<()> {
    let mut seen = BTreeSet::new();
    for item in lists.iter().filter_map(|list| part.get(*list)?.as_array()).flatten() {
        let name = item[key].as_str().with_context(|| format!("{key} of {item}"))?;
        ensure!(key != "path" || name.starts_with('/'), "{name} is no absolute path");
        ensure!(seen.insert(name), "{name} stands there twice");
    }
    Ok(())
}

/// What a data URL holds, as Ignition reads it.
pub(super) fn held(contents: &Value) -> Result<Option<String>> {
    let source = contents["source"].as_str().context("a source")?;
    let Some(data) = source.strip_prefix("data:") else { return Ok(None) };
    let bytes = if let Some(encoded) = data.strip_prefix(";base64,") {
        decode_block(encoded)?
    } else {
        let mut parts = data.strip_prefix(',').with_context(|| format!("{data} is no text"))?.split('%');
        let mut bytes = parts.next().unwrap_or_default().as_bytes().to_vec();
        for part in parts {
            let (code, rest) = part.split_at_checked(2).context("half an escape")?;
            bytes.push(u8::from_str_radix(code, 16)?);
            bytes.extend(rest.as_bytes());
        }
        bytes
    };
    let mut text = String::new();
    match contents["compression"].as_str() {
        Some("gzip") => GzDecoder::new(&bytes[..]).read_to_string(&mut text).map(drop)?,
        Some("") | None => text = String::from_utf8(bytes)?,
        Some(other) => bail!("Ignition knows no compression {other}"),
    }
    Ok(Some(text))
}

/// Ignition's configuration with what its data URLs hold in their place, however they hold it.
fn meant(config: &Value) -> Result<Value> {
    let mut config = config.clone();
    for file in config["storage"]["files"].as_array_mut().context("files")? {
        let contents = &mut file["contents"];
        if let Some(text) = held(contents)? {
            *contents = json!({ "text": text });
        }
    }
    Ok(config)
}

#[test]
fn butane_makes_of_it_by_its_documentation_what_ignition_is_given() -> Result<()> {
    for cluster in ["cluster.yaml", "cluster-etcd.yaml"] {
        let operator = Operator::of(&example(cluster)?)?;
        let (mut judged, mut packed) = (0, 0);
        for (path, _) in operator.all()? {
            if path.file_name().is_none_or(|name| name != "config.bu") {
                continue;
            }
            let node = path.parent().and_then(|dir| dir.file_name()?.to_str()).context("a machine")?.to_owned();
            let made = stand_in_for_butane(&operator.json(&format!("{node}/config.bu"))?).context(node.clone())?;
            let ours: Value = serde_json::from_str(&operator.text(&format!("{node}/config.ign"))?)?;
            ensure!(meant(&made)? == meant(&ours)?, "{node}: {:#}\n{:#}", meant(&made)?, meant(&ours)?);
            packed += made.to_string().matches("\"gzip\"").count();
            let file = operator.path("made.ign");
            fs::write(&file, made.to_string())?;
            ignition_validate(&file).context(node)?;
            judged += 1;
        }
        ensure!(judged >= 3 && packed >= judged, "{judged} machines, {packed} packed files");
    }
    Ok(())
}

#[test]
fn the_stand_in_for_butane_knows_what_it_does_not_know() -> Result<()> {
    type Change = fn(&mut Value);
    let operator = Operator::of(&example("cluster.yaml")?)?;
    let good = operator.json("worker-1/config.bu")?;
    stand_in_for_butane(&good)?;
    let bad: [(&str, Change); 7] = [
        ("a key of Ignition's", |config| config["ignition"] = json!({ "version": IGNITION })),
        ("a misspelt key", |config| config["storage"]["files"][0]["permissions"] = json!(420)),
        ("a mode in quotes", |config| config["storage"]["files"][0]["mode"] = json!("0644")),
        ("two sources", |config| config["storage"]["files"][0]["contents"]["source"] = json!("http://x/")),
        ("one path twice", |config| config["storage"]["links"][0]["path"] = json!("/etc/nodeagent/node.yaml")),
        ("a number", |config| config["storage"]["files"][0]["contents"]["inline"] = json!(1)),
        ("another version", |config| config["version"] = json!(1.0)),
    ];
    for (what, change) in bad {
        let mut config = good.clone();
        change(&mut config);
        ensure!(stand_in_for_butane(&config).is_err(), "{what} was taken");
    }
    Ok(())
}
