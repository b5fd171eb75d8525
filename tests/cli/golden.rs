//! Golden nodes: `tests/golden/NN-name/root` becomes what `expected` says, and a second run changes nothing.
//!
//! `expected.txt` lists every entry with its mode, or a link with its target; `expected/` holds the content of each file
//! that the node's configuration determines. Run with `UPDATE_GOLDEN=1` to write both anew, and read the difference.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use nodeagent::host::facts::Facts;

/// What differs from run to run, or is an input: listed, but not compared by content.
const VOLATILE: [&str; 4] = ["var/lib/nodeagent/", "run/nodeagent/", "receipt.json", "opt/nodeagent/releases/"];

/// Where keys are made, each time other ones: those that are there from the start stay as they are.
const PKI: &str = "etc/kubernetes/pki";

/// A golden node's tree in a temporary directory.
struct Tree {
    dir: tempfile::TempDir,
    golden: PathBuf,
}

impl Tree {
    fn new(golden: &Path) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        copy(&golden.join("root"), &dir.path().join("root"));
        // git keeps no modes but the executable bit, and a pair that others may read is made anew.
        let entries = |dir: PathBuf| fs::read_dir(dir).into_iter().flatten();
        let etc = dir.path().join("root/etc");
        for entry in entries(dir.path().join("root").join(PKI)).chain(entries(etc.join("nodeagent"))) {
            let path = entry.expect("a file").path();
            if path.is_dir() {
                continue;
            }
            let is_secret = path.extension().is_some_and(|kind| kind == "key")
                || path.file_name().is_some_and(|name| name == "bootstrap-token")
                || String::from_utf8_lossy(&fs::read(&path).expect("a file")).contains("PRIVATE KEY");
            if is_secret {
                fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("mode of a secret");
            }
        }
        let facts = serde_json::to_vec(&Facts::sample()).expect("facts");
        fs::write(dir.path().join("facts.json"), facts).expect("facts");
        Self { dir, golden: golden.to_owned() }
    }

    fn root(&self) -> PathBuf {
        self.dir.path().join("root")
    }

    fn run(&self, args: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_nodeagent"));
        command.args(args).arg("--root").arg(self.root()).arg("--facts").arg(self.dir.path().join("facts.json"));
        command.output().expect("run the program")
    }

    /// Every entry by its path: mode, or target.
    fn listing(&self) -> BTreeMap<String, String> {
        let mut all = BTreeMap::new();
        list(&self.root(), &self.root(), &mut all);
        all
    }

    fn content(&self, path: &str) -> Vec<u8> {
        fs::read(self.root().join(path)).unwrap_or_else(|e| panic!("read {path}: {e}"))
    }
}

/// Copies a directory with all that is in it.
pub fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a directory");
    for entry in fs::read_dir(from).expect("a golden directory") {
        let entry = entry.expect("an entry");
        let to = to.join(entry.file_name());
        if entry.file_type().expect("its type").is_dir() {
            copy(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), &to).expect("a copy");
        }
    }
}

fn list(root: &Path, dir: &Path, all: &mut BTreeMap<String, String>) {
    for entry in fs::read_dir(dir).expect("a directory") {
        let path = entry.expect("an entry").path();
        let name = path.strip_prefix(root).expect("below the root").display().to_string();
        let meta = path.symlink_metadata().expect("metadata");
        if meta.is_symlink() {
            all.insert(name, format!("link -> {}", fs::read_link(&path).expect("a target").display()));
        } else if meta.is_dir() {
            all.insert(name, format!("dir {:04o}", meta.permissions().mode() & 0o7777));
            list(root, &path, all);
        } else {
            all.insert(name, format!("file {:04o}", meta.permissions().mode() & 0o7777));
        }
    }
}

/// The listing as it is compared: kept originals are named by digest, which says nothing to a reader.
fn listing_text(listing: &BTreeMap<String, String>) -> String {
    let shown = listing.iter().filter(|(path, _)| !path.starts_with("var/lib/nodeagent/kept/"));
    let lines: Vec<String> = shown.map(|(path, what)| format!("{what} {path}")).collect();
    lines.join("\n") + "\n"
}

fn is_compared(golden: &Path, path: &str, what: &str) -> bool {
    let made = path.starts_with(PKI) && !golden.join("root").join(path).exists();
    what.starts_with("file") && !made && !VOLATILE.iter().any(|volatile| path.contains(volatile))
}

fn goldens() -> Vec<PathBuf> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let mut all: Vec<PathBuf> =
        fs::read_dir(dir).expect("goldens").map(|entry| entry.expect("a golden").path()).collect();
    all.sort();
    assert!(all.len() >= 3, "the golden nodes were not found: {all:?}");
    all
}

fn update(tree: &Tree, listing: &BTreeMap<String, String>) {
    let expected = tree.golden.join("expected");
    let _ = fs::remove_dir_all(&expected);
    for (path, _) in listing.iter().filter(|(path, what)| is_compared(&tree.golden, path, what)) {
        if tree.golden.join("root").join(path).exists()
            && fs::read(tree.golden.join("root").join(path)).ok() == Some(tree.content(path))
        {
            continue;
        }
        let to = expected.join(path);
        fs::create_dir_all(to.parent().expect("a parent")).expect("a directory");
        fs::write(to, tree.content(path)).expect("expected content");
    }
    fs::write(tree.golden.join("expected.txt"), listing_text(listing)).expect("expected listing");
}

#[test]
fn golden_nodes_are_reached_and_then_left_alone() {
    for golden in goldens() {
        let name = golden.display();
        let tree = Tree::new(&golden);
        let first = tree.run(&["bootstrap"]);
        assert!(first.status.success(), "{name}: {}", String::from_utf8_lossy(&first.stderr));
        let listing = tree.listing();
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            update(&tree, &listing);
        }
        let expected = fs::read_to_string(golden.join("expected.txt")).expect("expected.txt");
        assert_eq!(listing_text(&listing), expected, "{name}");
        let mut compared = 0;
        for (path, _) in listing.iter().filter(|(path, what)| is_compared(&golden, path, what)) {
            // What is not in `expected` must be as it was in `root`.
            let want = [golden.join("expected").join(path), golden.join("root").join(path)];
            let want =
                want.iter().find(|path| path.exists()).unwrap_or_else(|| panic!("{name}: {path} is not expected"));
            let want = String::from_utf8_lossy(&fs::read(want).expect("expected content")).into_owned();
            assert_eq!(String::from_utf8_lossy(&tree.content(path)), want, "{name}: {path}");
            compared += 1;
        }
        assert!(compared > 10, "{name}: only {compared} files were compared");

        let ledger = tree.content("var/lib/nodeagent/ledger");
        let second = tree.run(&["bootstrap"]);
        let told = String::from_utf8_lossy(&second.stderr).into_owned();
        assert!(second.status.success() && told.contains("nothing to do"), "{name}: {told}");
        assert_eq!(tree.listing(), listing, "{name}: the second run changed an entry");
        assert_eq!(tree.content("var/lib/nodeagent/ledger"), ledger, "{name}: the second run wrote to the ledger");
        assert_eq!(tree.run(&["plan", "--exit-code"]).status.code(), Some(0), "{name}");
    }
}

#[test]
fn certs_show_names_whoever_is_told_of_a_certificate() {
    let mut compared = 0;
    for golden in goldens() {
        let name = golden.display();
        let tree = Tree::new(&golden);
        assert!(tree.run(&["bootstrap"]).status.success(), "{name}");
        let shown = tree.run(&["certs", "show", "-o", "json"]);
        let rows: serde_json::Value = serde_json::from_slice(&shown.stdout).expect("JSON");
        for row in rows.as_array().expect("rows") {
            assert_eq!(row["flaws"], serde_json::json!([]), "{name}: {row}");
            let file = row["file"].as_str().expect("a file");
            let has = |list: &str, who: &str| row[list].as_array().is_some_and(|all| all.iter().any(|one| one == who));
            for entry in fs::read_dir(tree.root().join("etc/kubernetes")).expect("etc/kubernetes") {
                let path = entry.expect("an entry").path();
                if !path.is_file() || !String::from_utf8_lossy(&fs::read(&path).expect("a file")).contains(file) {
                    continue;
                }
                let config = path.file_name().expect("a name").to_string_lossy().into_owned();
                let stem = config.strip_suffix(".env").or_else(|| config.strip_suffix("-config.yaml"));
                let is_named = match stem {
                    Some(unit) => has("readBy", &format!("{unit}.service")),
                    None => has("kubeconfigs", &format!("/etc/kubernetes/{config}")),
                };
                assert!(is_named, "{name}: {config} names {file}: {row}");
                compared += 1;
            }
            for kubeconfig in row["kubeconfigs"].as_array().expect("kubeconfigs") {
                let path = kubeconfig.as_str().expect("a path").trim_start_matches('/');
                assert!(tree.root().join(path).exists(), "{name}: {row}");
            }
        }
    }
    assert!(compared > 20, "only {compared} were compared");
}

#[test]
fn a_rollback_restores_every_golden_node() {
    for golden in goldens() {
        let name = golden.display();
        let tree = Tree::new(&golden);
        let before = tree.listing();
        let contents: BTreeMap<String, Vec<u8>> = before
            .iter()
            .filter(|(_, what)| what.starts_with("file"))
            .map(|(path, _)| (path.clone(), tree.content(path)))
            .collect();
        assert!(tree.run(&["bootstrap"]).status.success(), "{name}");
        let rollback = tree.run(&["rollback"]);
        assert!(rollback.status.success(), "{name}: {}", String::from_utf8_lossy(&rollback.stderr));
        let mut after = tree.listing();
        after.retain(|path, _| before.contains_key(path) || !is_own(path));
        assert_eq!(after, before, "{name}: entries");
        for (path, content) in contents {
            assert!(tree.content(&path) == content, "{name}: {path} is not what it was");
        }
        let held = tree.run(&["bootstrap"]);
        assert!(String::from_utf8_lossy(&held.stderr).contains("holds this node"), "{name}");
        assert_eq!(tree.run(&["plan", "--exit-code"]).status.code(), Some(6), "{name}: held, and still pending");
    }
}

#[test]
fn points_can_be_gone_back_to_and_uninstall_goes_back_to_the_first() {
    let tree = Tree::new(&goldens()[0]);
    let before = tree.listing();
    let drop_in = "etc/systemd/system/containerd.service.d/90-nodeagent.conf";
    let limit = |files: &str| {
        let dir = tree.root().join("etc/nodeagent/node.d");
        fs::create_dir_all(&dir).expect("node.d");
        let text = format!("limits: {{ containerd.service: {{ LimitNOFILE: {files} }} }}\n");
        fs::write(dir.join("10.yaml"), text).expect("a drop-in");
        assert!(tree.run(&["bootstrap"]).status.success(), "{files}");
    };
    for files in ["1000", "2000", "3000"] {
        limit(files);
    }
    let runs: serde_json::Value =
        serde_json::from_slice(&tree.run(&["rollback", "--list", "-o", "json"]).stdout).expect("JSON");
    assert_eq!(runs.as_array().map(Vec::len), Some(3), "{runs}");
    assert_eq!(tree.run(&["rollback", "--to", "7"]).status.code(), Some(2), "there is no such run");
    assert!(tree.run(&["rollback", "--to", "1"]).status.success());
    assert!(String::from_utf8_lossy(&tree.content(drop_in)).contains("LimitNOFILE=1000"));

    fs::remove_dir_all(tree.root().join("etc/nodeagent/node.d")).expect("node.d");
    let uninstall = tree.run(&["uninstall"]);
    assert!(uninstall.status.success(), "{}", String::from_utf8_lossy(&uninstall.stderr));
    let mut after = tree.listing();
    after.retain(|path, _| before.contains_key(path) || !is_own(path));
    assert_eq!(after, before);
    let again = tree.run(&["uninstall"]);
    assert!(String::from_utf8_lossy(&again.stdout).contains("Nothing to undo"), "{again:?}");
}

#[test]
fn what_a_person_changed_in_a_unit_is_shown_kept_aside_and_brought_back() {
    let tree = Tree::new(&goldens()[0]);
    assert!(tree.run(&["bootstrap"]).status.success());
    let unit = "etc/systemd/system/kubelet.service";
    let ours = tree.content(unit);
    let theirs = String::from_utf8_lossy(&ours).replace("RestartSec=5s", "# slower\nRestartSec=30s\nNice=-5");
    fs::write(tree.root().join(unit), &theirs).expect("a person's change");
    let plan = String::from_utf8_lossy(&tree.run(&["plan"]).stdout).into_owned();
    for line in [
        "[Service] RestartSec: 30s -> 5s",
        "[Service] Nice: - -5",
        "comment: - # slower",
        "not written by nodeagent: kubelet.service -> kept as kubelet.service.kept-",
    ] {
        assert!(plan.contains(line), "no {line:?} in {plan}");
    }
    let ran = tree.run(&["bootstrap"]);
    let told = String::from_utf8_lossy(&ran.stderr).into_owned();
    assert!(ran.status.success() && told.contains("kubelet.service was changed by hand"), "{told}");
    assert_eq!(tree.content(unit), ours);
    let kept: Vec<String> = tree.listing().into_keys().filter(|path| path.contains(".kept-")).collect();
    assert_eq!(kept.len(), 1, "{kept:?}");
    assert_eq!(tree.content(&kept[0]), theirs.as_bytes());
    assert_eq!(tree.run(&["plan", "--exit-code"]).status.code(), Some(0), "a kept file is no difference");
    assert!(tree.run(&["rollback"]).status.success());
    assert_eq!(tree.content(unit), theirs.as_bytes());
    assert!(!tree.root().join(&kept[0]).exists(), "what was kept is back in its place");
}

#[test]
fn what_cannot_be_told_is_shown_with_what_to_do() {
    let tree = Tree::new(&goldens()[0]);
    assert!(tree.run(&["bootstrap"]).status.success());
    let unit = tree.root().join("etc/systemd/system/kubelet.service");
    fs::remove_file(&unit).expect("the unit");
    std::os::unix::fs::symlink("/dev/null", &unit).expect("a mask");
    let (reason, advice) = (
        "/etc/systemd/system/kubelet.service: the unit is masked",
        "somebody wants it never to start: systemctl unmask kubelet.service, if that is over",
    );
    let plan = String::from_utf8_lossy(&tree.run(&["plan"]).stdout).into_owned();
    assert!(plan.contains(&format!("\n      cannot tell: {reason}\n      -> {advice}\n")), "{plan}");
    let plan: serde_json::Value = serde_json::from_slice(&tree.run(&["plan", "-o", "json"]).stdout).expect("JSON");
    let masked = plan["resources"].as_array().expect("resources").iter().find(|one| one["status"] == "cannot-tell");
    let masked = masked.unwrap_or_else(|| panic!("nothing that cannot be told: {plan}"));
    assert_eq!((&masked["reason"], &masked["advice"]), (&reason.into(), &advice.into()), "{masked}");
}

#[test]
fn a_restart_that_the_configuration_forbids_is_shown_as_owed() {
    // The second node's docker has `restart: false`.
    let plan = String::from_utf8_lossy(&Tree::new(&goldens()[1]).run(&["plan"]).stdout).into_owned();
    assert!(plan.contains("then restart docker.service: owed until you do it"), "{plan}");
    assert!(plan.contains("then restart containerd.service\n"), "{plan}");
}

/// The agent's own state, and keys, which no undoing removes.
fn is_own(path: &str) -> bool {
    [
        PKI,
        "etc/kubernetes/encryption.conf",
        "etc/kubernetes/nodeagent-kubeadm-join.yaml",
        "var",
        "run",
        "opt/nodeagent/partial",
    ]
    .iter()
    .any(|own| path == *own || path.starts_with(&format!("{own}/")))
}

#[test]
fn a_plan_is_the_same_twice_and_changes_nothing() {
    let golden = &goldens()[0];
    let tree = Tree::new(golden);
    let before = tree.listing();
    let (one, two) = (tree.run(&["plan", "-o", "json"]), tree.run(&["plan", "-o", "json"]));
    assert_eq!(String::from_utf8_lossy(&one.stdout), String::from_utf8_lossy(&two.stdout));
    assert_eq!(tree.listing(), before);
    let plan: serde_json::Value = serde_json::from_slice(&one.stdout).expect("JSON");
    assert_eq!(plan["kind"], "Plan");
    let resources = plan["resources"].as_array().expect("resources");
    assert!(resources.iter().any(|r| r["status"] == "differs" && r["differences"][0]["what"] == "file"), "{plan}");
    assert!(resources.iter().any(|r| r["status"] == "skipped"), "{plan}");
    // The facts that a plan prints are the ones that --facts reads.
    let facts: Facts = serde_json::from_value(plan["facts"].clone()).expect("facts");
    assert_eq!(facts, Facts::sample());
}
