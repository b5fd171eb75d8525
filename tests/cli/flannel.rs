//! `cluster.network: flannel` on a file tree: what a worker has with each store, and that nothing stays of it with another.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use nodeagent::host::facts::Facts;

use crate::golden::copy;

/// A worker without a network of pods; its pairs are in place, and its programs nobody looks at here.
const WORKER: &str = "tests/golden/01-worker/root";

const KUBERNETES: &str = "cluster: { network: flannel }\n";
const ETCD: &str = "cluster:\n  network: flannel\n  flannel:\n    backend: host-gw\n    etcd:\n      \
                    endpoints: ['https://10.10.30.41:2379']\n      ca: /etc/f/ca.pem\n      pair: /etc/f/client.pem\n";

struct Tree(tempfile::TempDir);

impl Tree {
    fn new() -> Self {
        let tree = Self(tempfile::tempdir().expect("a temporary directory"));
        copy(&Path::new(env!("CARGO_MANIFEST_DIR")).join(WORKER), &tree.0.path().join("root"));
        // git keeps no modes, and a pair that others may read is made anew.
        for file in fs::read_dir(tree.0.path().join("root/etc/kubernetes/pki")).expect("the directory of keys") {
            fs::set_permissions(file.expect("a file").path(), Permissions::from_mode(0o600)).expect("mode of a secret");
        }
        fs::write(tree.0.path().join("facts.json"), serde_json::to_vec(&Facts::sample()).expect("facts"))
            .expect("facts");
        tree
    }

    /// Runs the steps that flannel is in, and then again without a change.
    fn settle(&self, network: &str) {
        let digest = "aaaa1111".repeat(8);
        let artifacts =
            ["flannel", "flannel-cni"].map(|name| format!("{name}: {{ version: v1.0.0, sha256: {digest} }}"));
        let drop_in = self.0.path().join("root/etc/nodeagent/node.d/10-network.yaml");
        fs::create_dir_all(drop_in.parent().expect("a parent")).expect("a directory");
        fs::write(drop_in, format!("{network}kubernetes: {{ artifacts: {{ {} }} }}\n", artifacts.join(", ")))
            .expect("written");
        let steps = || {
            for step in ["kernel", "certs", "units"] {
                self.run(&[step]);
            }
            // A run that changes nothing writes nothing there.
            self.read("var/lib/nodeagent/ledger")
        };
        let first = steps();
        assert_eq!(first, steps(), "it is not settled");
    }

    fn run(&self, args: &[&str]) -> String {
        let mut command = Command::new(env!("CARGO_BIN_EXE_nodeagent"));
        command.args(args).arg("--root").arg(self.0.path().join("root"));
        let output = command.arg("--facts").arg(self.0.path().join("facts.json")).output().expect("run the program");
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("text")
    }

    /// Everything of flannel's, and what waits for it.
    fn of_flannel(&self) -> Vec<String> {
        let root = self.0.path().join("root");
        let mut found = Vec::new();
        let mut directories = vec![root.join("etc")];
        while let Some(directory) = directories.pop() {
            for entry in fs::read_dir(directory).expect("a directory") {
                let path = entry.expect("an entry").path();
                let name = path.strip_prefix(&root).expect("below the root").display().to_string();
                if path.is_dir() {
                    directories.push(path);
                } else if !name.contains("node.d") && (name.contains("flannel") || name.contains("flanneld")) {
                    found.push(name);
                }
            }
        }
        found.sort();
        found
    }

    fn read(&self, path: &str) -> String {
        fs::read_to_string(self.0.path().join("root").join(path)).unwrap_or_else(|e| panic!("read {path}: {e}"))
    }
}

#[test]
fn a_worker_has_what_its_flannel_takes_and_nothing_of_it_without() {
    let tree = Tree::new();
    tree.settle(KUBERNETES);
    let by_api = [
        "etc/kubernetes/flannel-network.json",
        "etc/kubernetes/flannel.conf",
        "etc/kubernetes/flannel.conflist",
        "etc/kubernetes/flanneld.env",
        "etc/systemd/system/flanneld.service",
        "etc/systemd/system/multi-user.target.wants/flanneld.service",
        "etc/systemd/system/multi-user.target.wants/nodeagent-flannel.service",
        "etc/systemd/system/nodeagent-flannel.service",
        "etc/tmpfiles.d/nodeagent-flannel.conf",
    ];
    assert_eq!(tree.of_flannel(), by_api);
    assert!(tree.read("etc/modules-load.d/90-nodeagent.conf").contains("\nvxlan\n"));
    assert!(!tree.read("etc/kubernetes/kubelet.env").contains("subnet.env"), "its Node would never be");
    assert!(tree.read("etc/kubernetes/flannel.conf").contains("kubelet-client.pem"));
    insta::assert_snapshot!(tree.read("etc/kubernetes/flannel-network.json"), @r#"
    {
      "Network": "10.244.0.0/16",
      "Backend": {
        "Type": "vxlan"
      }
    }
    "#);
    insta::assert_snapshot!(tree.read("etc/kubernetes/flannel.conflist"), @r#"
    {
      "cniVersion": "0.4.0",
      "name": "nodeagent",
      "plugins": [
        {
          "type": "flannel",
          "delegate": {
            "hairpinMode": true,
            "isDefaultGateway": true
          }
        },
        {
          "type": "portmap",
          "capabilities": {
            "portMappings": true
          }
        }
      ]
    }
    "#);

    tree.settle(ETCD);
    let found = tree.of_flannel();
    for runtime in ["containerd", "docker"] {
        let drop_in = format!("etc/systemd/system/{runtime}.service.d/40-flannel.conf");
        assert!(found.contains(&drop_in), "{found:?}");
        assert!(tree.read(&drop_in).contains("file:/run/flannel/subnet.env"));
    }
    assert!(tree.read("etc/kubernetes/kubelet.env").contains("file:/run/flannel/subnet.env"));
    assert!(!tree.read("etc/modules-load.d/90-nodeagent.conf").contains("vxlan"));
    assert!(!found.iter().any(|path| by_api[..2].contains(&path.as_str())), "{found:?}");

    // A person's own file of one of these names is nobody else's to remove.
    let own = tree.0.path().join("root/etc/systemd/system/docker.service.d/40-flannel.conf");
    fs::write(&own, "[Service]\nNice=1\n").expect("written");
    tree.settle("cluster: { network: none }\n");
    assert_eq!(tree.of_flannel(), ["etc/systemd/system/docker.service.d/40-flannel.conf"]);
    assert!(!tree.read("etc/kubernetes/kubelet.env").contains("subnet.env"));
}
