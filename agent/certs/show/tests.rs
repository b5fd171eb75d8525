use super::*;
use crate::certs::testing::{Ca, CaKind, DAY, Issue, client, new_key, seen_files};
use crate::engine::change::Meta;
use crate::host::seen::{Entry, Sight};

const PKI: &str = "/etc/kubernetes/pki";

/// What lies in the directory of pairs: a file's name, its bytes and its mode.
type File<'a> = (&'a str, Vec<u8>, u32);

/// What is shown of a machine where these files are, and this link.
fn shown(settings: &Settings, files: &[File<'_>], link: Option<(&str, &str)>) -> Vec<Shown> {
    let identity = Identity::sample();
    let path =
        |name: &str| RootPath::literal(&if name.starts_with('/') { name.into() } else { format!("{PKI}/{name}") });
    let files: Vec<(RootPath, &File<'_>)> = files.iter().map(|file| (path(file.0), file)).collect();
    let others: Vec<RootPath> = files.iter().map(|(path, _)| path.clone()).collect();
    let there = files.iter().map(|(path, (_, bytes, mode))| (path, Some((bytes.as_slice(), Meta::root(*mode)))));
    let mut seen = seen_files(&there.collect::<Vec<_>>());
    if let Some((name, to)) = link {
        seen.0.insert(Thing::File(path(name)), Ok(Sight::Entry(Entry::Link(to.to_owned()))));
    }
    for thing in reads(settings, &identity, &others) {
        seen.0.entry(thing).or_insert(Ok(Sight::Entry(Entry::Absent)));
    }
    show(settings, &identity, &others, &seen).expect("the time is known")
}

/// What is said against the certificates in a file, each.
fn against(all: &[Shown], name: &str) -> Vec<String> {
    let file = if name.starts_with('/') { name.to_owned() } else { format!("{PKI}/{name}") };
    all.iter().filter(|shown| shown.file.as_str() == file).map(|shown| shown.flaws.join("; ")).collect()
}

fn load(text: &str) -> Settings {
    let source = crate::config::Source { name: "node.yaml".into(), text: text.as_bytes().to_vec() };
    crate::config::load(vec![source]).unwrap_or_else(|errors| panic!("{errors}"))
}

/// A certificate with its key, valid from then to then in days.
fn pair(ca: &Ca, from: i64, until: i64) -> Vec<u8> {
    let key = new_key();
    let certificate = ca.issue(&client(), &key, &Issue { valid: (from * DAY, until * DAY), ..Issue::default() });
    [certificate, key.to_pem().expect("PEM").to_vec()].concat()
}

#[test]
fn every_row_is_asked_for_its_time() {
    let (ca, old) = (Ca::valid(CaKind::Ec), Ca::new(CaKind::Ec, true, -20 * DAY, -DAY));
    let files = [
        ("ca.pem", [ca.pem(), old.pem()].concat(), 0o644),
        ("old-leaf.pem", pair(&ca, -20, -1), 0o600),
        ("next-leaf.crt", pair(&ca, 1, 20), 0o600),
        ("leaf.pem", pair(&ca, -1, 1), 0o600),
        ("stranger.pem", pair(&Ca::valid(CaKind::Ec), -1, 20), 0o600),
    ];
    let all = shown(&Settings::sample(), &files, None);
    let cas = against(&all, "ca.pem");
    assert!(cas.len() == 2 && cas[0].is_empty() && cas[1].contains("CN=test-ca expired on"), "{cas:?}");
    assert!(against(&all, "old-leaf.pem")[0].starts_with("it expired on "), "{all:?}");
    assert!(against(&all, "next-leaf.crt")[0].starts_with("it starts on "), "{all:?}");
    assert_eq!(against(&all, "leaf.pem"), [""], "{all:?}");
    assert_eq!(against(&all, "stranger.pem"), ["no CA of this node's signed it"]);

    let with_key = [ca.pem(), ca.key_pem()].concat();
    let all = shown(&Settings::sample(), &[("ca.pem", with_key, 0o644)], None);
    assert!(against(&all, "ca.pem")[0].starts_with("it holds a private key"), "{all:?}");
}

#[test]
fn a_pair_that_would_be_replaced_is_not_good() {
    let ca = Ca::valid(CaKind::Ec);
    let files = |mode| [("ca.pem", ca.pem(), 0o644), ("kubelet-client.pem", pair(&ca, -1, 300), mode)];
    let settings = Settings::sample();
    assert_eq!(against(&shown(&settings, &files(0o600), None), "kubelet-client.pem"), [""]);
    let open = against(&shown(&settings, &files(0o644), None), "kubelet-client.pem");
    assert_eq!(open, ["others can read its key: mode and owner 0644 0:0, not 0600 0:0"]);
    // What cannot be read is a row, and the others are shown.
    let all = shown(&settings, &files(0o600), Some(("kubelet-server.pem", "/root/server.pem")));
    assert_eq!(against(&all, "kubelet-server.pem"), ["a link to /root/server.pem is where a file should be"]);
    assert_eq!(against(&all, "kubelet-client.pem"), [""]);
    assert_eq!(against(&all, "kube-proxy-client.pem"), ["there is no pair"]);
}

#[test]
fn what_the_controller_manager_signs_with_is_of_use() {
    let settings = load(
        "\
apiVersion: nodeagent.io/v1alpha1
kind: NodeConfig
role: controller
node: { name: worker-01 }
cluster: { apiServer: 'https://10.10.30.21:6443' }
kubernetes: { version: v1.34.2, artifacts: { etcd: { version: v3.6.1 } } }
pki:
  ca: /etc/kubernetes/pki/ca.pem
  signer: { local: { key: /etc/kubernetes/pki/ca-key.pem } }
  etcd: { ca: /etc/kubernetes/pki/etcd-ca.pem, signer: { local: { key: /etc/kubernetes/pki/etcd-ca-key.pem } } }
",
    );
    let (ca, stranger) = (Ca::valid(CaKind::Ec), Ca::valid(CaKind::Ec));
    for (signing, flaw) in [(&ca, ""), (&stranger, "it is not among those of /etc/kubernetes/pki/ca.pem")] {
        let all = shown(&settings, &[("ca.pem", ca.pem(), 0o644), ("signing-ca.pem", signing.pem(), 0o644)], None);
        assert_eq!(against(&all, "signing-ca.pem"), [flaw]);
        let row = all.iter().find(|shown| shown.file.name() == "signing-ca.pem").expect("a row");
        assert!(
            row.kind == Kind::Authority && row.read_by == [UnitName::literal(needs::CONTROLLER_MANAGER)],
            "{row:?}"
        );
    }
    let administrators = all_of(&settings, "admin-client.pem");
    assert_eq!(administrators.0, ["nodeagent-cluster.service"]);
    assert_eq!(administrators.1, ["/etc/kubernetes/admin.conf"]);
}

/// Who reads a file of a machine that has none yet: units and kubeconfigs.
fn all_of(settings: &Settings, name: &str) -> (Vec<String>, Vec<String>) {
    let all = shown(settings, &[], None);
    let row = all.into_iter().find(|shown| shown.file.name() == name).expect("a row");
    let text = |path: &RootPath| path.to_string();
    (row.read_by.iter().map(ToString::to_string).collect(), row.kubeconfigs.iter().map(text).collect())
}

#[test]
fn what_kubeadm_has_is_shown_as_its_own() {
    const NODE: &str = "\
apiVersion: nodeagent.io/v1alpha1
kind: NodeConfig
role: kubeadm
node: { name: worker-01 }
cluster: { apiServer: 'https://10.10.30.11:6443' }
kubernetes: { version: v1.34.2 }
";
    const GIVEN: &str =
        "pki: { ca: /etc/nodeagent/ca.pem, signer: { kubernetes: { tokenFile: /etc/nodeagent/token } } }\n";
    let (ca, stranger) = (Ca::valid(CaKind::Ec), Ca::valid(CaKind::Ec));
    let made = "/var/lib/kubelet/pki/kubelet-client-2026-09-01-00-00-00.pem";
    let link = (kubeadm::CLIENT_PAIR, made);
    for settings in [load(NODE), load(&format!("{NODE}{GIVEN}"))] {
        assert_eq!(shown(&settings, &[], None).len(), 0, "it has not joined yet");
        for (signer, flaw) in [(&ca, ""), (&stranger, "it is signed by CN=test-ca, not by the key of CN=test-ca")] {
            // The kubelet renews its pair when less is left than this program would leave.
            let files = [
                (kubeadm::CA, ca.pem(), 0o644),
                (made, pair(signer, -300, 20), 0o600),
                (kubeadm::SERVING, stranger.pem(), 0o644),
            ];
            let all = shown(&settings, &files, Some(link));
            let names: Vec<&str> = all.iter().map(|shown| shown.file.as_str()).collect();
            assert_eq!(names, [kubeadm::CA, kubeadm::CLIENT_PAIR, kubeadm::SERVING]);
            assert_eq!(against(&all, kubeadm::CLIENT_PAIR), [flaw]);
            assert_eq!(against(&all, kubeadm::SERVING), [""]);
            assert!(
                all[0].kubeconfigs == [RootPath::literal(kubeadm::JOINED)] && all[1].kind == Kind::Other,
                "{all:?}"
            );
            assert!(all[1].says.as_ref().is_some_and(|says| says.key.is_some()), "{all:?}");
        }
    }
}
