//! What stays installed, what goes, and how a program that changed is noticed.

use std::{fs, os::unix::fs::MetadataExt as _, sync::Arc};

use anyhow::{Result, ensure};

use crate::faulty::Answer;
use crate::site::{PLACED, Site};
use crate::snapshot::digest;

/// Installs another version of kubectl, with these bytes.
fn install_version(site: &Site, version: &str, bytes: &[u8], args: &[&str]) -> Result<(i32, String)> {
    let path = format!("/a/{version}/bin/linux/amd64/kubectl");
    site.mirror.script(&path, [Answer::File(Arc::new(bytes.to_vec()))]);
    let url = site.mirror.url(&path);
    let yaml = format!(
        "kubernetes: {{ artifacts: {{ kubectl: {{ version: {version}, url: \"{url}\", sha256: {} }} }} }}\n",
        digest(bytes)
    );
    fs::create_dir_all(site.root().join("etc/nodeagent/node.d"))?;
    fs::write(site.root().join("etc/nodeagent/node.d/10-version.yaml"), yaml)?;
    site.start(&[&["install"], args].concat())?.end()
}

fn versions(site: &Site) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(site.root().join("opt/nodeagent/releases/kubectl"))? {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

#[test]
fn prune_keeps_the_version_in_use_and_the_one_before() -> Result<()> {
    let site = Site::new(&["/a"], "deadline: 10s")?;
    for version in ["v1.34.1", "v1.34.2", "v1.34.3"] {
        let (code, told) = install_version(&site, version, version.as_bytes(), &[])?;
        ensure!(code == 0, "{told}");
    }
    assert_eq!(versions(&site)?, ["v1.34.1", "v1.34.2", "v1.34.3"], "nothing goes unasked");
    // Back to the one before: now v1.34.3 is the one before, and what was placed first still goes.
    let dry = site.start(&["install", "--prune", "--dry-run"])?.printed()?;
    ensure!(dry.contains("~ kubectl-v1.34.1-old") && !dry.contains("v1.34.2-old"), "{dry}");
    let (code, told) = install_version(&site, "v1.34.2", b"v1.34.2", &["--prune"])?;
    ensure!(code == 0, "{told}");
    assert_eq!(versions(&site)?, ["v1.34.2", "v1.34.3"]);
    let link = fs::read_link(site.root().join("opt/bin/kubectl"))?;
    assert_eq!(link.display().to_string(), "/opt/nodeagent/releases/kubectl/v1.34.2/bin/kubectl");
    let (code, told) = install_version(&site, "v1.34.2", b"v1.34.2", &["--prune"])?;
    ensure!(code == 0 && told.contains("nothing to do"), "{told}");

    // The run before can be gone back to; one whose program is gone cannot.
    let ran = site.start(&["rollback", "--to", "1"])?.end()?;
    ensure!(ran.0 != 0 && link == fs::read_link(site.root().join("opt/bin/kubectl"))?, "{ran:?}");
    let ran = site.start(&["rollback"])?.end()?;
    ensure!(ran.0 == 0, "{ran:?}");
    let link = fs::read_link(site.root().join("opt/bin/kubectl"))?;
    assert_eq!(link.display().to_string(), "/opt/nodeagent/releases/kubectl/v1.34.3/bin/kubectl");
    assert_eq!(fs::read(site.root().join(link.strip_prefix("/")?))?, b"v1.34.3");
    let ran = site.start(&["uninstall"])?.end()?;
    ensure!(ran.0 == 0 && !site.root().join("opt/bin/kubectl").is_symlink(), "{ran:?}");
    ensure!(!site.root().join("opt/nodeagent/releases/kubectl").exists(), "{ran:?}");
    Ok(())
}

#[test]
fn a_program_that_changed_is_noticed() -> Result<()> {
    let site = Site::new(&["/a"], "deadline: 10s")?;
    site.script("/a", [Answer::File(Arc::clone(&site.file))]);
    let (code, told) = site.run()?;
    ensure!(code == 0, "{told}");
    let placed = site.root().join(PLACED);
    let asked = || site.ranges("/a").len();

    // Truncated: its size and times differ from the receipt's, without reading it.
    fs::OpenOptions::new().write(true).open(&placed)?.set_len(1000)?;
    let plan = site.start(&["install", "--dry-run"])?.printed()?;
    ensure!(plan.contains("touched since (ctime, mtime, size)"), "{plan}");
    let (code, told) = site.run()?;
    ensure!(code == 0 && asked() == 2, "{told}");
    site.check_placed(code)?;

    // Written to, and its old time put back: ctime gives it away.
    let time = fs::metadata(&placed)?.modified()?;
    let mut wrong = site.file.to_vec();
    wrong[5] ^= 1;
    fs::write(&placed, wrong)?;
    fs::File::options().write(true).open(&placed)?.set_modified(time)?;
    let (code, told) = site.run()?;
    ensure!(code == 0 && asked() == 3, "{told}");
    site.check_placed(code)?;

    // A disk that gives other bytes leaves no trace in the numbers: only reading finds out. The receipt is made to agree.
    let receipt = site.root().join("opt/nodeagent/releases/kubectl/v1.34.2/receipt.json");
    let mut wrong = site.file.to_vec();
    wrong[5] ^= 1;
    fs::write(&placed, wrong)?;
    let meta = fs::metadata(&placed)?;
    let mut content: serde_json::Value = serde_json::from_slice(&fs::read(&receipt)?)?;
    let nanos = |seconds: i64, nanos: i64| i128::from(seconds) * 1_000_000_000 + i128::from(nanos);
    let stamp = nodeagent::host::seen::Stamp {
        size: meta.len(),
        inode: meta.ino(),
        mtime_ns: nanos(meta.mtime(), meta.mtime_nsec()),
        ctime_ns: nanos(meta.ctime(), meta.ctime_nsec()),
    };
    content["files"]["kubectl"]["stamp"] = serde_json::to_value(stamp)?;
    fs::write(&receipt, content.to_string())?;
    let (code, told) = site.run()?;
    ensure!(code == 0 && asked() == 3, "the numbers agree: {told}");
    let (code, told) = site.start(&["install", "--rehash"])?.end()?;
    ensure!(code == 0 && asked() == 4, "{told}");
    site.check_placed(code)
}
