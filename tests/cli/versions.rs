//! What each release of Kubernetes gets: `tests/data/versions/v1.NN.txt` holds all flags and configuration files of a
//! controller, of an edge node what is its own, and of one that kubeadm joins what kubeadm is told. `UPDATE_GOLDEN=1` writes them anew: read the difference.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use nodeagent::host::facts::{Cgroups, Facts};
use nodeagent::units::versions::{self, NEWEST, OLDEST};

/// A machine that has yet to become a node.
struct Machine(tempfile::TempDir);

impl Machine {
    /// One with this release and role, on control groups of version 1: the later releases want to be told.
    fn new(version: &str, role: &str) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let etcd = match role {
            "controller" => {
                "\n  etcd: { ca: /etc/kubernetes/pki/etcd-ca.pem, signer: { local: { key: /etc/kubernetes/pki/etcd-ca-key.pem } } }"
            }
            _ => "",
        };
        let pki = match role {
            "kubeadm" => {
                "{ ca: /etc/nodeagent/ca.pem, signer: { kubernetes: { tokenFile: /etc/nodeagent/token } } }".to_owned()
            }
            _ => format!(
                "\n  ca: /etc/kubernetes/pki/ca.pem\n  signer: {{ local: {{ key: /etc/kubernetes/pki/ca-key.pem }} }}{etcd}"
            ),
        };
        let config = format!(
            "apiVersion: nodeagent.io/v1alpha1
kind: NodeConfig
role: {role}
node: {{ name: node-1, labels: {{ example.com/rack: r1 }} }}
cluster:
  apiServer: https://api.example.com:6443
  nodes:
    node-1: {{ role: {role}, address: 10.10.30.21, podCIDR: 10.244.0.0/24 }}
    node-2: {{ address: 10.10.30.22, podCIDR: 10.244.1.0/24 }}
kubernetes:
  version: {version}
  artifacts: {{ etcd: {{ version: v3.6.5 }} }}
pki: {pki}
"
        );
        let to = dir.path().join("root/etc/nodeagent");
        fs::create_dir_all(&to).expect("a tree");
        if role == "kubeadm" {
            let ca =
                Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/01-worker/root/etc/kubernetes/pki/ca.pem");
            fs::copy(ca, to.join("ca.pem")).expect("a CA");
            fs::write(to.join("token"), "abcdef.0123456789abcdef").expect("a token");
            fs::set_permissions(to.join("token"), fs::Permissions::from_mode(0o600)).expect("its mode");
        }
        fs::write(to.join("node.yaml"), config).expect("a configuration");
        let facts = Facts { cgroups: Cgroups::Hybrid, ..Facts::sample() };
        fs::write(dir.path().join("facts.json"), serde_json::to_vec(&facts).expect("facts")).expect("facts");
        Self(dir)
    }

    fn run(&self, args: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_nodeagent"));
        command.args(args).arg("--root").arg(self.0.path().join("root"));
        command.arg("--facts").arg(self.0.path().join("facts.json")).output().expect("run the program")
    }

    /// What these steps make of it: the configuration of every program whose name begins so.
    fn configured(&self, steps: &[&str], prefix: &str) -> String {
        for step in steps {
            let output = self.run(&[step]);
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        }
        let etc = self.0.path().join("root/etc/kubernetes");
        let mut files: Vec<PathBuf> =
            fs::read_dir(&etc).expect("files").map(|file| file.expect("one").path()).collect();
        files.retain(|path| {
            path.is_file() && path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(prefix))
        });
        files.sort();
        let mut out = String::new();
        for path in files {
            let text = fs::read_to_string(&path).expect("a file");
            // One flag per line: a difference between two releases is then a line.
            let text =
                if path.extension().is_some_and(|end| end == "env") { text.replace(" --", "\n  --") } else { text };
            writeln!(out, "== {}\n{text}", path.file_name().expect("a name").display()).expect("text");
        }
        out
    }
}

#[test]
fn each_release_gets_what_is_written_down() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/versions");
    for minor in OLDEST..=NEWEST {
        let version = format!("v1.{minor}.0");
        let controller = Machine::new(&version, "controller").configured(&["units"], "");
        let edge = Machine::new(&version, "edge").configured(&["units"], "kubelet");
        let joins = Machine::new(&version, "kubeadm").configured(&["certs", "units"], "");
        let now = format!("=== controller\n{controller}=== edge\n{edge}=== kubeadm\n{joins}");
        let path = dir.join(format!("v1.{minor}.txt"));
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            fs::create_dir_all(&dir).expect("a directory");
            fs::write(&path, &now).expect("a golden file");
        }
        let golden = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        assert_eq!(now, golden, "{}", path.display());
    }
}

#[test]
fn a_release_that_is_too_old_is_refused_and_one_that_is_too_new_is_said_to_be() {
    let old = Machine::new("v1.19.16", "worker").run(&["plan"]);
    let told = String::from_utf8_lossy(&old.stderr).into_owned();
    assert_eq!(old.status.code(), Some(2), "{told}");
    assert!(told.contains("kubelet v1.19.16 is older than v1.20"), "{told}");

    for (version, known) in [
        ("v1.20.2".to_owned(), "run"),
        (format!("v1.{NEWEST}.1"), "from documentation"),
        (format!("v1.{}.0", NEWEST + 1), "newer than this nodeagent knows"),
    ] {
        let plan = Machine::new(&version, "worker").run(&["plan"]);
        let text = String::from_utf8_lossy(&plan.stdout).into_owned();
        assert!(text.contains(&format!("Kubernetes {version}: flags and fields {known}")), "{text}");
    }
    let newest = Machine::new(&format!("v1.{NEWEST}.0"), "edge").configured(&["units"], "kubelet");
    let newer = Machine::new(&format!("v1.{}.0", NEWEST + 1), "edge").configured(&["units"], "kubelet");
    assert_eq!(newer, newest, "as the newest that is known");
}

/// The tables in the document are these; with `UPDATE_DOCS=1` they become so.
#[test]
fn the_document_has_the_tables_of_the_program() {
    const MARKS: [&str; 2] = ["<!-- BEGIN tables, written by the tests: UPDATE_DOCS=1 -->\n", "<!-- END tables -->\n"];
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/versions.md");
    let text = fs::read_to_string(&path).expect("docs/versions.md");
    let (before, rest) = text.split_once(MARKS[0]).expect("the first mark");
    let (now, after) = rest.split_once(MARKS[1]).expect("the second mark");
    let tables = versions::document();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        let [begin, end] = MARKS;
        fs::write(&path, format!("{before}{begin}{tables}{end}{after}")).expect("docs/versions.md");
    } else {
        assert_eq!(now, tables, "docs/versions.md is out of date: UPDATE_DOCS=1 writes it");
    }
}
