//! The config drive, read by others.

use std::fs;
use std::process::Command;

use anyhow::{Result, ensure};
use serde_json::Value;

use super::{Operator, cloud_init, example, unpacked};
use crate::world::need;

/// Its files, by the names that they have in the image, and what of the inventory they are.
const FILES: [(&str, Option<&str>); 4] = [
    ("/openstack/2012-08-10/meta_data.json;1", None),
    ("/openstack/2012-08-10/user_data.;1", Some("user-data")),
    ("/openstack/latest/meta_data.json;1", None),
    ("/openstack/latest/user_data.;1", Some("user-data.coreos")),
];

/// cloud-init finds its user-data by its own code, and which machine this is. What coreos-cloudinit finds: `coreos.rs`.
#[test]
fn the_config_drive_is_read_by_cloud_init() -> Result<()> {
    need("blkid", "util-linux")?;
    let operator = Operator::of(&example("cluster.yaml")?)?;
    let image = operator.path("worker-1/config-2.img");
    let probed = Command::new("blkid").args(["--probe", "--output", "export"]).arg(&image).output()?.stdout;
    let probed = String::from_utf8(probed)?;
    ensure!(probed.contains("LABEL=config-2\n") && probed.contains("TYPE=iso9660\n"), "{probed}");

    let drive = unpacked(&operator, "worker-1/config-2.img")?;
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

/// A reader that has nothing in common with the one that [`unpacked`] uses finds the same names and the same bytes. There
/// are no other names for them: neither Joliet's nor Rock Ridge's.
#[test]
fn another_reader_finds_the_same_on_the_drive() -> Result<()> {
    need("isoinfo", "genisoimage")?;
    let operator = Operator::of(&example("cluster.yaml")?)?;
    let image = operator.path("worker-1/config-2.img");
    let read = |args: &[&str]| -> Result<Vec<u8>> {
        let output = Command::new("isoinfo").args(args).arg("-i").arg(&image).output()?;
        ensure!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        Ok(output.stdout)
    };
    let described = String::from_utf8(read(&["-d"])?)?;
    let size = fs::metadata(&image)?.len() / 2048;
    for line in ["Volume id: config-2", "NO Joliet present", "NO Rock Ridge present"] {
        ensure!(described.lines().any(|said| said.trim_end() == line), "{line:?} is not in\n{described}");
    }
    ensure!(described.contains(&format!("Volume size is: {size}\n")), "{size} sectors: {described}");

    let listed = String::from_utf8(read(&["-f"])?)?;
    let mut names: Vec<&str> = listed.lines().map(str::trim_end).filter(|line| line.starts_with('/')).collect();
    names.sort_unstable();
    let dirs = ["/openstack", "/openstack/2012-08-10", "/openstack/latest"];
    let mut wanted: Vec<&str> = FILES.iter().map(|(name, _)| *name).chain(dirs).collect();
    wanted.sort_unstable();
    ensure!(names == wanted, "{names:?}");

    let tree = unpacked(&operator, "worker-1/config-2.img")?;
    for (name, source) in FILES {
        let found = read(&["-x", name])?;
        let path = name.trim_start_matches('/').trim_end_matches(";1").trim_end_matches('.');
        ensure!(found == fs::read(tree.join(path))?, "{name} is another file to each of two readers");
        match source {
            Some(file) => ensure!(found == operator.text(&format!("worker-1/{file}"))?.as_bytes(), "{name}"),
            None => ensure!(serde_json::from_slice::<Value>(&found)?["name"] == "worker-1", "{name}"),
        }
    }
    Ok(())
}
