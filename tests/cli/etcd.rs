//! A former member of etcd whose data is gone does not begin a new cluster, and joins one only if it is told to.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output};

use crate::versions::Machine;

fn etcd(root: &Path, what: &str, data: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_nodeagent"));
    command.args(["etcd", what, "--data-dir", data, "--root"]).arg(root).output().expect("run the program")
}

#[test]
fn only_a_member_that_was_ready_and_has_lost_its_data_is_held_back() {
    let dir = tempfile::tempdir().expect("a tree");
    let root = dir.path();
    let starts = |data: &str| etcd(root, "guard", data).status.success();
    assert!(starts("/var/lib/etcd"), "a new node: nothing is there yet");

    // etcd makes its directory at once; a first start that came to nothing may be repeated, with or without it.
    fs::create_dir_all(root.join("var/lib/etcd/member")).expect("etcd's own");
    assert!(starts("/var/lib/etcd"), "never ready, and something is there");
    fs::remove_dir_all(root.join("var/lib/etcd")).expect("its removal");
    assert!(starts("/var/lib/etcd"), "never ready, and nothing is there");

    fs::create_dir_all(root.join("var/lib/etcd/member")).expect("etcd's own");
    for _ in 0..2 {
        assert!(etcd(root, "joined", "/var/lib/etcd").status.success());
    }
    let mark = root.join("var/lib/nodeagent/etcd-member");
    let mode = |path: &Path| fs::metadata(path).expect("it is there").permissions().mode() & 0o7777;
    assert_eq!((mode(mark.parent().expect("a directory")), mode(&mark)), (0o700, 0o600));
    assert!(starts("/var/lib/etcd"), "every later boot");

    // The disk is not mounted, somebody cleaned up, or etcd.dataDir names another place.
    fs::rename(root.join("var/lib/etcd/member"), root.join("elsewhere")).expect("a loss");
    for data in ["/var/lib/etcd", "/srv/etcd"] {
        let held = etcd(root, "guard", data);
        let told = String::from_utf8_lossy(&held.stderr).into_owned();
        assert_eq!(held.status.code(), Some(1), "{data}: {told}");
        for part in [data, "with data in /var/lib/etcd", "etcdctl member remove", "/var/lib/nodeagent/etcd-member"] {
            assert!(told.contains(part), "{data}: no {part:?} in {told}");
        }
    }
    fs::rename(root.join("elsewhere"), root.join("var/lib/etcd/member")).expect("its return");
    assert!(starts("/var/lib/etcd"), "the data is back");
    fs::remove_dir_all(root.join("var/lib/etcd/member")).expect("a loss");
    fs::remove_file(&mark).expect("a person's decision");
    assert!(starts("/var/lib/etcd"), "as the advice says");
}

#[test]
fn a_member_joins_a_cluster_that_is_there_only_if_it_is_told_to() {
    let machine = Machine::new("v1.34.2", "controller");
    let env = |join: &str| {
        machine.add(&format!("etcd: {{ members: {{ node-1: 10.10.30.21, node-2: 10.10.30.22 }}{join} }}\n"));
        machine.configured(&["units"], "etcd.env")
    };
    let new = env("");
    assert_eq!(new.matches("--initial-cluster-state=new\n").count(), 1, "{new}");
    assert_eq!(env(", join: true"), new.replace("--initial-cluster-state=new\n", "--initial-cluster-state=existing\n"));
}
