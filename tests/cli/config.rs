//! What a broken configuration or command line gets: exit 2, every problem with its line, nothing touched.

use std::fs;
use std::process::Command;

fn run(root: &std::path::Path, args: &[&str]) -> (i32, String, String) {
    let output =
        Command::new(env!("CARGO_BIN_EXE_nodeagent")).args(args).arg("--root").arg(root).output().expect("run");
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    (output.status.code().expect("an exit code"), text(output.stdout), text(output.stderr))
}

#[test]
fn every_problem_at_once_and_nothing_touched() {
    let dir = tempfile::tempdir().expect("a directory");
    fs::create_dir_all(dir.path().join("etc/nodeagent")).expect("a directory");
    let yaml = "apiVersion: nodeagent.io/v1alpha1\nkind: NodeConfig\nrole: worker\ncluster:\n  apiserver: https://x\n\
                kubernetes:\n  version: 1.34\npki:\n  ca: relative\n  signer: {}\n";
    fs::write(dir.path().join("etc/nodeagent/node.yaml"), yaml).expect("node.yaml");
    for command in ["bootstrap", "plan", "install", "certs"] {
        let (code, out, told) = run(dir.path(), &[command]);
        assert_eq!((code, out.as_str()), (2, ""), "{command}: {told}");
        for part in [
            "node.yaml:5:3: cluster.apiserver",
            "did you mean apiServer",
            "node.yaml:7:",
            "node.yaml:9:",
            "errors in the configuration",
        ] {
            assert!(told.contains(part), "{command}: no {part:?} in:\n{told}");
        }
    }
    let entries: Vec<_> =
        fs::read_dir(dir.path()).expect("the root").map(|e| e.expect("an entry").file_name()).collect();
    assert_eq!(entries, ["etc"], "something was touched");
}

#[test]
fn a_drop_in_that_leads_nowhere_is_not_passed_over() {
    let dir = tempfile::tempdir().expect("a directory");
    let drop_ins = dir.path().join("etc/nodeagent/node.d");
    fs::create_dir_all(&drop_ins).expect("a directory");
    fs::write(dir.path().join("etc/nodeagent/node.yaml"), "kind: NodeConfig\n").expect("node.yaml");
    std::os::unix::fs::symlink("/nowhere", drop_ins.join("10-x.yaml")).expect("a link");
    let (code, _, told) = run(dir.path(), &["plan"]);
    assert!(code == 2 && told.contains("node.d/10-x.yaml: it is a link to what is not there"), "{code}: {told}");
}

#[test]
fn a_missing_configuration_says_where_it_was_looked_for() {
    let dir = tempfile::tempdir().expect("a directory");
    let (code, _, told) = run(dir.path(), &["bootstrap"]);
    assert_eq!(code, 2, "{told}");
    assert!(told.contains("etc/nodeagent/node.yaml") && told.contains("nodeagent schema"), "{told}");
}

#[test]
fn an_operators_command_refuses_what_says_which_node_is_meant() {
    let dir = tempfile::tempdir().expect("a directory");
    let commands = [
        ("lock", &["lock", "v1.34.2"][..]),
        ("lock", &["lock", "--verify", ".", "--file", "v1.34.2.lock.json"]),
        ("cloud-config", &["cloud-config", "cluster.yaml"]),
        ("certs ca", &["certs", "ca", "."]),
        ("certs sign", &["certs", "sign", "node.csr", "--ca", "ca.pem", "--key", "ca-key.pem"]),
    ];
    for (name, args) in commands {
        for option in ["--root", "--config", "--facts"] {
            let mut command = Command::new(env!("CARGO_BIN_EXE_nodeagent"));
            let output = command.args(args).args([option, "there"]).current_dir(dir.path()).output().expect("run");
            let told = String::from_utf8_lossy(&output.stderr);
            assert_eq!((output.status.code(), output.stdout.len()), (Some(2), 0), "{args:?} {option}: {told}");
            let refused = format!("nodeagent: {option} means nothing to `nodeagent {name}`\n  -> ");
            assert!(told.starts_with(&refused) && told.contains("leave the option out"), "{args:?}: {told}");
        }
    }
    assert_eq!(fs::read_dir(dir.path()).expect("the directory").count(), 0, "something was made");
}

#[test]
fn usage_errors_are_2_and_help_is_data() {
    let dir = tempfile::tempdir().expect("a directory");
    for args in [&["frobnicate"][..], &["plan", "--no-such-option"], &["wait"], &["wait", ":80"]] {
        let (code, out, told) = run(dir.path(), args);
        assert_eq!((code, out.as_str()), (2, ""), "{args:?}: {told}");
    }
    let (code, out, told) = run(dir.path(), &["plan", "--help"]);
    assert_eq!((code, told.as_str()), (0, ""), "{out}");
    let (code, out, _) = run(dir.path(), &["schema"]);
    let schema: serde_json::Value = serde_json::from_str(&out).expect("a JSON schema");
    assert_eq!(code, 0);
    assert!(schema["properties"]["kubernetes"].is_object(), "{out}");
}
