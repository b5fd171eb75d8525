//! Archives of container images: fetched, verified and placed. What containerd makes of them is the lab's to show.

use std::{fs, io::Write as _, os::unix::fs::PermissionsExt as _, process::Command, sync::Arc};

use anyhow::{Context as _, Result, ensure};

use crate::faulty::Answer;
use crate::site::Site;
use crate::snapshot::digest;
use crate::world::scratch;

/// A tar archive, made by the real tar(1), with these files.
fn tar(files: &[(&str, &str)]) -> Result<Vec<u8>> {
    let dir = scratch()?;
    for (name, content) in files {
        fs::write(dir.path().join(name), content)?;
    }
    let output = Command::new("tar").arg("-cC").arg(dir.path()).args(files.iter().map(|(name, _)| name)).output()?;
    ensure!(output.status.success(), "{output:?}");
    Ok(output.stdout)
}

fn image(tag: &str) -> Result<Vec<u8>> {
    tar(&[("manifest.json", &format!("[{{\"Config\":\"c\",\"RepoTags\":[\"{tag}\"],\"Layers\":[]}}]")), ("c", "{}")])
}

fn gzip(bytes: &[u8]) -> Result<Vec<u8>> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes)?;
    Ok(encoder.finish()?)
}

/// A tree whose programs are in place.
fn site() -> Result<Site> {
    let site = Site::new(&["/a"], "deadline: 10s")?;
    site.script("/a", [Answer::File(Arc::clone(&site.file))]);
    Ok(site)
}

/// Asks for an archive of these bytes, and installs it.
fn install(site: &Site, bytes: &[u8], args: &[&str]) -> Result<(i32, String)> {
    site.mirror.script("/pause.tar", [Answer::File(Arc::new(bytes.to_vec()))]);
    let url = site.mirror.url("/pause.tar");
    let yaml = format!("kubernetes: {{ images: {{ pause: {{ url: \"{url}\", sha256: {} }} }} }}\n", digest(bytes));
    fs::create_dir_all(site.root().join("etc/nodeagent/node.d"))?;
    fs::write(site.root().join("etc/nodeagent/node.d/10-images.yaml"), yaml)?;
    site.start(&[&["install"], args].concat())?.end()
}

#[test]
fn an_archive_is_placed_once_and_without_its_compression() -> Result<()> {
    let (site, plain) = (site()?, image("registry.example/pause:1")?);
    for bytes in [plain.clone(), gzip(&plain)?] {
        let (code, told) = install(&site, &bytes, &[])?;
        ensure!(code == 0, "{told}");
        let dir = site.root().join("opt/nodeagent/images/pause").join(&digest(&bytes)[..12]);
        let placed = dir.join("images.tar");
        ensure!(fs::read(&placed)? == plain, "ctr knows no compressed archive");
        assert_eq!(fs::metadata(&placed)?.permissions().mode() & 0o7777, 0o644);
        let receipt: serde_json::Value = serde_json::from_slice(&fs::read(dir.join("receipt.json"))?)?;
        assert_eq!(receipt["images"], serde_json::json!(["registry.example/pause:1"]));
        assert_eq!(receipt["archive"], digest(&bytes));

        // Once, until something touches it.
        let asked = site.mirror.asked("/pause.tar").len();
        let (code, told) = install(&site, &bytes, &["--rehash"])?;
        ensure!(code == 0 && told.contains("nothing to do"), "{told}");
        assert_eq!(site.mirror.asked("/pause.tar").len(), asked);
        fs::write(&placed, b"other")?;
        let (code, told) = install(&site, &bytes, &[])?;
        ensure!(code == 0 && fs::read(&placed)? == plain, "{told}");
    }
    assert_eq!(site.partials()?, [""; 0], "nothing stays in scratch");
    Ok(())
}

#[test]
fn what_is_no_archive_of_images_is_not_placed() -> Result<()> {
    let site = site()?;
    let whole = gzip(&image("x:1")?)?;
    let dir = site.root().join("opt/nodeagent/images/pause");
    let placed = |bytes: &[u8]| dir.join(&digest(bytes)[..12]).join("images.tar");
    for (bytes, wanted) in [
        (b"<html>".repeat(200), "it is no tar archive"),
        (whole[..whole.len() - 20].to_vec(), "it is no tar archive (plain, gzip or zstd), or it is damaged"),
        (tar(&[("kubelet", "x")])?, "it is no archive of container images: it has neither manifest.json"),
        (image("x.example/a b:1")?, "has no name that a pod could ask for"),
    ] {
        let (code, told) = install(&site, &bytes, &[])?;
        ensure!(code == 4 && told.contains(wanted), "{wanted}: {code}: {told}");
        ensure!(!placed(&bytes).exists());
    }
    // Other bytes than were asked for.
    let (good, bad) = (image("x:1")?, image("x:2")?);
    install(&site, &good, &["--dry-run"])?;
    site.mirror.script("/pause.tar", [Answer::File(Arc::new(bad))]);
    let (code, told) = site.run()?;
    ensure!(code == 4 && !placed(&good).exists(), "{told}");
    Ok(())
}

#[test]
fn old_archives_are_pruned() -> Result<()> {
    let site = site()?;
    let all = [image("x:1")?, image("x:2")?, image("x:3")?];
    for bytes in &all {
        let (code, told) = install(&site, bytes, &[])?;
        ensure!(code == 0, "{told}");
    }
    let (code, told) = install(&site, &all[2], &["--prune"])?;
    ensure!(code == 0, "{told}");
    let left = fs::read_dir(site.root().join("opt/nodeagent/images/pause"))?;
    let mut left: Vec<String> =
        left.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect::<Result<_>>()?;
    left.sort();
    let mut wanted: Vec<String> = all[1..].iter().map(|bytes| digest(bytes)[..12].to_owned()).collect();
    wanted.sort();
    assert_eq!(left, wanted);
    Ok(())
}

#[test]
fn a_unit_imports_them_only_where_there_are_any() -> Result<()> {
    let site = site()?;
    let plan = |site: &Site| site.start(&["units", "--dry-run"])?.printed();
    ensure!(!plan(&site)?.contains("nodeagent-images"), "no images, no unit");
    let (code, told) = install(&site, &image("x:1")?, &[])?;
    ensure!(code == 0, "{told}");
    ensure!(plan(&site)?.contains("~ nodeagent-images.service"), "{}", plan(&site)?);
    let (code, told) = site.start(&["images"])?.end()?;
    ensure!(code == 2 && told.contains("into the running machine's containerd"), "{told}");
    Ok(())
}

#[test]
fn what_a_configuration_may_not_say() -> Result<()> {
    let site = site()?;
    fs::create_dir_all(site.root().join("etc/nodeagent/node.d"))?;
    let sha256 = digest(b"");
    for (image, wanted) in [
        ("{ url: \"https://x/x.tar\" }".to_owned(), "kubernetes.images.x.sha256: is missing, and required"),
        (format!("{{ sha256: {sha256} }}"), "kubernetes.images.x.url: is missing, and required"),
        (
            format!("{{ sha256: {sha256}, url: \"https://x/{{version}}.tar\" }}"),
            "kubernetes.images.x.url: https://x/{version}.tar: only {arch} can stand in braces",
        ),
    ] {
        let yaml = format!("kubernetes: {{ images: {{ x: {image} }} }}\n");
        fs::write(site.root().join("etc/nodeagent/node.d/10-images.yaml"), yaml)?;
        let (code, told) = site.run().context("install")?;
        ensure!(code == 2 && told.contains(wanted), "{wanted}: {told}");
    }
    Ok(())
}
