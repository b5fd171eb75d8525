//! What needs root and what does not, tried as an ordinary user. `docs/privileges.md` says the same in words.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Output};

/// Nobody.
const USER: u32 = 65534;

/// The program as an ordinary user: this process's, or nobody if this one is root's.
fn program(dir: &Path, args: &[&str]) -> Output {
    // The build directory may be root's alone. Copied by a process of its own: a child that another test starts meanwhile
    // would inherit the file while it is open for writing, and it could not be run.
    let program = dir.join("nodeagent");
    let copied = Command::new("install").args(["--mode=0755", env!("CARGO_BIN_EXE_nodeagent")]).arg(&program).status();
    assert!(copied.expect("install(1)").success(), "a copy of the program");
    let mut command = Command::new(program);
    command.args(args).current_dir("/");
    if nix::unistd::geteuid().is_root() {
        command.uid(USER).gid(USER);
    }
    command.output().expect("run the program")
}

/// A directory that the ordinary user owns and can reach.
fn own_dir() -> tempfile::TempDir {
    let dir = tempfile::Builder::new().prefix("nodeagent-test-").tempdir_in("/tmp").expect("a directory");
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).expect("its mode");
    own(dir.path());
    dir
}

fn own(path: &Path) {
    if nix::unistd::geteuid().is_root() {
        chown(path, Some(USER), Some(USER)).expect("its owner");
    }
}

fn config(dir: &Path) -> String {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/01-worker/root/etc/nodeagent/node.yaml");
    let path = dir.join("node.yaml");
    fs::copy(golden, &path).expect("a configuration");
    path.display().to_string()
}

fn facts(dir: &Path) -> String {
    let path = dir.join("facts.json");
    fs::write(&path, serde_json::to_vec(&nodeagent::host::facts::Facts::sample()).expect("facts")).expect("facts");
    path.display().to_string()
}

#[test]
fn a_user_can_look_wait_and_work_on_a_tree_of_its_own() {
    let dir = own_dir();
    let (config, facts) = (config(dir.path()), facts(dir.path()));
    let tree = dir.path().join("tree");
    fs::create_dir(&tree).expect("a tree");
    own(&tree);
    let tree = tree.display().to_string();
    for args in [
        &["schema"][..],
        &["--help"],
        &["wait", "file:/", "--timeout", "5s"],
        &["plan", "--config", &config, "--facts", &facts, "--root", &tree],
        &["network", "--config", &config, "--facts", &facts, "--root", &tree],
        &["rollback", "--root", &tree],
    ] {
        let output = program(dir.path(), args);
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

#[test]
fn a_user_cannot_change_the_machine_and_is_told_so() {
    let dir = own_dir();
    let (config, facts) = (config(dir.path()), facts(dir.path()));
    for command in ["bootstrap", "network", "uninstall"] {
        let output = program(dir.path(), &[command, "--config", &config, "--facts", &facts]);
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{command}: {told}");
        assert!(told.contains("run as root"), "{command}: {told}");
        assert!(told.contains("/run/nodeagent"), "{command}: {told}");
    }
}

#[test]
fn the_callers_umask_and_environment_do_not_matter() {
    for umask in ["000", "077", "777"] {
        let dir = own_dir();
        let (config, facts) = (config(dir.path()), facts(dir.path()));
        let tree = dir.path().join("tree");
        fs::create_dir(&tree).expect("a tree");
        let shell = format!(
            "umask {umask}; exec env -i {} network --config {config} --facts {facts} --root {}",
            env!("CARGO_BIN_EXE_nodeagent"),
            tree.display()
        );
        let output = Command::new("/bin/sh").args(["-c", &shell]).output().expect("run the program");
        assert!(output.status.success(), "{umask}: {}", String::from_utf8_lossy(&output.stderr));
        let mode = |path: &str| fs::metadata(tree.join(path)).expect(path).permissions().mode() & 0o7777;
        assert_eq!((mode("etc"), mode("etc/network-environment")), (0o755, 0o644), "umask {umask}");
        assert_eq!((mode("var/lib/nodeagent"), mode("var/lib/nodeagent/ledger")), (0o700, 0o600), "umask {umask}");
    }
}
