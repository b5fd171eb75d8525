//! The config drive, read by others.

use std::fs;
use std::process::Command;

use anyhow::{Result, ensure};
use serde_json::Value;

use super::{Operator, cloud_init, example};
use crate::world::need;

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
