//! Container images of local programs, as archives: no registry can be reached from the lab.

use anyhow::{Context, Result};
use serde_json::json;

use super::digest;

/// What the first process of every pod runs, as the nodes' containerd is told (`tree.rs`).
pub const PAUSE: &str = "lab.example/pause:1";

/// Answers every request on port 8080 with the name of its pod.
pub const GREETER: &str = "lab.example/greeter:1";

/// The stand-in for the cluster's DNS.
pub const DNS: &str = "lab.example/coredns:1";

/// One image.
pub struct Image<'a> {
    /// What pods call it.
    pub name: &'a str,
    /// What its process runs, with its arguments.
    pub entrypoint: &'a [&'a str],
    /// Its files: path, mode, content.
    pub files: &'a [(&'a str, u32, &'a [u8])],
}

/// Images in one archive, as `docker save` writes it, compressed.
pub fn archive(images: &[Image<'_>]) -> Result<Vec<u8>> {
    let packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    let mut archive = tar::Builder::new(packed);
    let mut manifest = Vec::new();
    for (number, image) in images.iter().enumerate() {
        let mut layer = tar::Builder::new(Vec::new());
        for (path, mode, bytes) in image.files {
            append(&mut layer, path, *mode, bytes)?;
        }
        let layer = layer.into_inner()?;
        let config = json!({
            "architecture": "amd64",
            "os": "linux",
            "config": { "Entrypoint": image.entrypoint },
            "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{}", digest(&layer))] },
        });
        let (config_file, layer_file) = (format!("{number}.json"), format!("{number}.tar"));
        append(&mut archive, &config_file, 0o644, config.to_string().as_bytes())?;
        append(&mut archive, &layer_file, 0o644, &layer)?;
        manifest.push(json!({ "Config": config_file, "RepoTags": [image.name], "Layers": [layer_file] }));
    }
    append(&mut archive, "manifest.json", 0o644, json!(manifest).to_string().as_bytes())?;
    Ok(archive.into_inner()?.finish()?)
}

/// What pods need that run on the lab's nodes: [`PAUSE`], [`GREETER`] and [`DNS`], all of the stand-in.
pub fn of_pods(stand_in: &[u8]) -> Result<Vec<u8>> {
    archive(&[
        Image { name: PAUSE, entrypoint: &["/pause"], files: &[("pause", 0o755, stand_in)] },
        Image { name: GREETER, entrypoint: &["/greeter"], files: &[("greeter", 0o755, stand_in)] },
        Image { name: DNS, entrypoint: &["/coredns"], files: &[("coredns", 0o755, stand_in)] },
    ])
}

fn append<W: std::io::Write>(tar: &mut tar::Builder<W>, name: &str, mode: u32, bytes: &[u8]) -> Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_size(bytes.len() as u64);
    header.set_mode(mode);
    tar.append_data(&mut header, name, bytes).with_context(|| format!("append {name}"))
}
