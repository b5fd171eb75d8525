//! The stages together: what `load` makes of whole configurations.

use proptest::prelude::*;

use super::settings::{AddressChoice, NameChoice, Origin, Signer};
use super::*;

mod flannel;

fn source(name: &str, text: &str) -> Source {
    Source { name: name.to_owned(), text: text.as_bytes().to_vec() }
}

fn load_with(drop_in: &str) -> Result<Settings, ConfigErrors> {
    load(vec![source("node.yaml", SAMPLE), source("node.d/10.yaml", drop_in)])
}

fn settings_with(drop_in: &str) -> Settings {
    load_with(drop_in).unwrap_or_else(|errors| panic!("{drop_in:?}:\n{errors}"))
}

/// What DESIGN.md and the documents say that a worker needs.
#[test]
fn a_worker_needs_no_more_than_this() {
    let text = "\
apiVersion: nodeagent.io/v1alpha1
kind: NodeConfig
role: worker
cluster:
  apiServer: https://10.10.30.11:6443
kubernetes:
  version: v1.34.2
pki:
  ca: /etc/kubernetes/pki/ca.pem
  signer: { kubernetes: { tokenFile: /etc/nodeagent/bootstrap-token } }
";
    let settings = load(vec![source("node.yaml", text)]).unwrap_or_else(|errors| panic!("{errors}"));
    let Signer::Kubernetes { token_file, deadline, ca_hash: None } = &settings.certs.signer else {
        panic!("{:?}", settings.certs.signer)
    };
    assert_eq!((token_file.as_str(), deadline.as_secs()), ("/etc/nodeagent/bootstrap-token", 300));
    let default = settings.defaults.iter().find(|default| default.key == "pki.signer.kubernetes.deadline");
    assert_eq!(default.map(|default| default.value.as_str()), Some("5m"));
}

#[test]
fn the_sample_and_its_defaults() {
    let settings = Settings::sample();
    assert_eq!(settings.cluster.api_server.as_str(), "https://10.10.30.11:6443");
    assert_eq!(settings.cluster.dns.to_string(), "10.96.0.10");
    assert_eq!(settings.node.name, NameChoice::Hostname);
    assert_eq!(settings.node.address, AddressChoice::Automatic);
    let Signer::Cfssl { url, profile, .. } = &settings.certs.signer else { panic!("{:?}", settings.certs.signer) };
    assert_eq!((url.as_str(), profile.as_str()), ("https://10.10.30.1:8888", "client"));
    let shown: Vec<String> = settings.defaults.iter().map(|d| format!("{} = {}", d.key, d.value)).collect();
    insta::assert_snapshot!(shown.join("\n"), @r#"
    cluster.apiPort = 6443
    cluster.dns = 10.96.0.10
    cluster.domain = cluster.local
    cluster.name = kubernetes
    cluster.network = none
    cluster.podCIDR = 10.244.0.0/16
    cluster.serviceCIDR = 10.96.0.0/12
    download.deadline = 20m
    download.minimumRate = 1k
    download.parallel = 3
    download.stallAfter = 30s
    kernel.modules.br_netfilter = true
    kernel.modules.overlay = true
    kernel.swap = false
    kernel.sysctls.net.bridge.bridge-nf-call-ip6tables = 1
    kernel.sysctls.net.bridge.bridge-nf-call-iptables = 1
    kernel.sysctls.net.ipv4.ip_forward = 1
    kubernetes.artifacts.kube-proxy.url = http://10.10.30.1/release/v1.34.2/bin/linux/{arch}/kube-proxy
    kubernetes.artifacts.kube-proxy.version = v1.34.2
    kubernetes.artifacts.kubectl.url = http://10.10.30.1/release/v1.34.2/bin/linux/{arch}/kubectl
    kubernetes.artifacts.kubectl.version = v1.34.2
    kubernetes.artifacts.kubelet.url = http://10.10.30.1/release/v1.34.2/bin/linux/{arch}/kubelet
    kubernetes.artifacts.kubelet.version = v1.34.2
    limits.containerd.service.LimitNOFILE = 1024:524288
    limits.containerd.service.TasksMax = infinity
    limits.containerd.service.restart = true
    limits.kubelet.service.LimitNOFILE = 1048576
    limits.kubelet.service.restart = true
    node.interface = the one that the kernel uses towards the API server
    node.name = the hostname in lower case
    pki.dir = /etc/kubernetes/pki
    pki.key = ecdsa-p256
    pki.signer.cfssl.profile = client
    "#);
}

#[test]
fn every_problem_of_a_broken_file_at_once() {
    let main = "\
apiVersion: nodeagent.io/v1alpha2
kind: NodeConfig
rol: worker
node: [core-01]
cluster:
  apiserver: https://10.10.30.11:6443
  podCIDR: 10.244.0.0/33
  dns: 10.96.0
  dns: 10.96.0.10
kubernetes:
  version: 1.34
  mirrors: http://10.10.30.1/release
  artifacts:
    kubelet: {sha256: abc, url: ftp://x}
    Kube_Proxy: {}
pki:
  ca: pki/ca.pem
  signer:
    cfssl:
      url: https://10.10.30.1:8888
      acceptAdminEquivalentKey: \"yes\"
kernel:
  modules: {overlay: on}
  sysctls: {net.ipv4.ip_forward: true}
limits:
  kubelet: {LimitNOFILE: 1048576}
  etcd.service: {LimitNOFILES: 65536, TasksMax: lots}
";
    let drop_in = "cluster:\n  podCidr: 10.0.0.0/8\nrole: boss\n";
    let errors = load(vec![source("node.yaml", main), source("node.d/10.yaml", drop_in)]).expect_err("broken");
    insta::assert_snapshot!(errors.to_string(), @r#"
    node.yaml:1:13: apiVersion: "nodeagent.io/v1alpha2" is not known here; it must be: nodeagent.io/v1alpha1
    node.yaml:3:1: rol: unknown key; did you mean role?
    node.yaml:4:7: node: wants a map of keys, has a list
    node.yaml:5:1: cluster.apiServer: is missing, and required: The API server's https URL
    node.yaml:6:3: cluster.apiserver: unknown key; did you mean apiServer?
    node.yaml:7:12: cluster.podCIDR: "10.244.0.0/33" is not a network in CIDR notation such as 10.10.30.0/24: the prefix must be 0 to 32
    node.yaml:9:3: cluster.dns: the key is here twice: first in line 8
    node.yaml:11:12: kubernetes.version: wants text, has the number 1.34: "1.34" is not a Kubernetes version such as v1.34.2: it does not start with v
    node.yaml:12:12: kubernetes.mirrors: wants a list, has the text "http://10.10.30.1/release": write [value]
    node.yaml:14:23: kubernetes.artifacts.kubelet.sha256: "abc" is not a SHA-256: it has 3 characters, not 64
    node.yaml:14:33: kubernetes.artifacts.kubelet.url: "ftp://x" is not an http(s) URL: it does not start with https:// or http://
    node.yaml:15:5: kubernetes.artifacts.Kube_Proxy: "Kube_Proxy" is not an artifact's name: it must be a file name of lower-case letters, digits, '-', '.' and '_'
    node.yaml:17:7: pki.ca: "pki/ca.pem" is not an absolute path: it does not start with /
    node.yaml:19:5: pki.signer.cfssl.authKeyFile: is missing, and required: The file that holds the authentication key in hexadecimal digits
    node.yaml:21:33: pki.signer.cfssl.acceptAdminEquivalentKey: wants true or false, has the text "yes": write true, without quotes
    node.yaml:23:22: kernel.modules.overlay: wants true or false, has the text "on": write true, without quotes
    node.yaml:24:34: kernel.sysctls.net.ipv4.ip_forward: wants text or a whole number, has true: if that is meant, write it in quotes: "true"
    node.yaml:26:3: limits.kubelet: "kubelet" is not a unit name such as kubelet.service: it has no type such as .service
    node.yaml:27:18: limits.etcd.service.LimitNOFILES: unknown key; did you mean LimitNOFILE?
    node.yaml:27:49: limits.etcd.service.TasksMax: "lots" is not a limit: a number, soft:hard, or infinity: "lots" is no number
    node.d/10.yaml:2:3: cluster.podCidr: unknown key; did you mean podCIDR?
    node.d/10.yaml:3:7: role: "boss" is not known here; it must be: etcd, controller, worker, edge, kubeadm
    22 errors in the configuration
    "#);
}

#[test]
fn what_does_not_go_together_is_refused_where_it_stands() {
    let table = [
        ("node: {interface: eth0, cidr: 10.0.0.0/8}", "10.yaml:1:25: node.cidr: 10.0.0.0/8 and node.interface eth0"),
        (
            "cluster: {apiServer: http://10.0.0.1:8080}",
            "10.yaml:1:11: cluster.apiServer: http://10.0.0.1:8080 must start",
        ),
        ("cluster: {podCIDR: 10.96.0.0/16}", "10.yaml:1:11: cluster.podCIDR: 10.96.0.0/16 overlaps serviceCIDR"),
        ("cluster: {serviceCIDR: 10.0.0.0/8}", "10.yaml:1:11: cluster.serviceCIDR: 10.244.0.0/16 overlaps"),
        ("cluster: {dns: 10.0.0.10}", "10.yaml:1:11: cluster.dns: 10.0.0.10 does not lie in serviceCIDR 10.96.0.0/12"),
        ("cluster: {dns: 10.96.0.1}", "10.yaml:1:11: cluster.dns: 10.96.0.1 is the first of serviceCIDR"),
        (
            "cluster: {serviceCIDR: 10.96.0.0/30}",
            "10.yaml:1:11: cluster.serviceCIDR: 10.96.0.0/30 is too small for 10.96.0.10",
        ),
        (
            "kubernetes: {artifacts: {kubelet: null}}",
            "node.yaml:9:3: kubernetes.artifacts.kubelet: has no digest, and nothing vouches for what \
             http://10.10.30.1/release/v1.34.2/bin/linux/{arch}/kubelet gives over plain http: give kubernetes.lock",
        ),
        ("kubernetes: {mirrors: []}", "kubernetes.artifacts.kubectl.url: is missing, and kubernetes.mirrors is empty"),
        (
            "kubernetes: {artifacts: {kubectl: {url: 'https://x/{os}/{arch}'}}}",
            "10.yaml:1:36: kubernetes.artifacts.kubectl.url: https://x/{os}/{arch}: only {arch} and {version}",
        ),
        (
            "kubernetes: {lock: {key: /k}}",
            "10.yaml:1:14: kubernetes.lock: wants either file, or url with sha256, or url with key",
        ),
        ("kubernetes: {lock: {file: /l, url: 'https://x/l'}}", "10.yaml:1:14: kubernetes.lock: wants either file"),
        ("kubernetes: {lock: {url: 'http://x/l'}}", "10.yaml:1:14: kubernetes.lock: wants either file"),
        (
            "kubernetes: {lock: {file: /l, signature: 'http://x/l.sig'}}",
            "kubernetes.lock.signature: there is no key that could have made it",
        ),
        (
            "kubernetes: {artifacts: {crictl: {url: 'https://x/crictl'}}}",
            "kubernetes.artifacts.crictl.version: is missing: it does not follow from the release of Kubernetes",
        ),
        (
            "kubernetes: {artifacts: {x: {url: 'https://x/x', version: v1, members: {x: ../x}}}}",
            "kubernetes.artifacts.x.members.x: ../x: wants a plain path such as bin/x",
        ),
        (
            "kubernetes: {artifacts: {x: {url: 'https://x/x', version: v1, members: {kubelet: x}}}}",
            "kubernetes.artifacts.x: kubelet would be linked twice: kubelet has a program of that name, too",
        ),
        (
            "pki: {signer: {cfssl: {url: http://10.0.0.1}}}",
            "pki.signer.cfssl.url: http://10.0.0.1 must start with https",
        ),
        ("pki: {signer: {cfssl: {acceptAdminEquivalentKey: false}}}", "can have cluster-admin certificates signed"),
        ("kernel: {modules: {br-netfilter: false}}", "10.yaml:1:20: kernel.modules.br-netfilter: write br_netfilter"),
        ("limits: {a.service: {TasksMax: 1:2}}", "10.yaml:1:22: limits.a.service.TasksMax: 1:2 has two parts"),
    ];
    for (drop_in, wanted) in table {
        let errors = load_with(drop_in).expect_err(drop_in).to_string();
        assert!(errors.contains(wanted), "{drop_in:?}:\n{errors}");
    }
}

#[test]
fn a_foreign_artifact_needs_its_own_place_and_version() {
    let digest = "c".repeat(64);
    let bare = format!("kubernetes: {{artifacts: {{runc: {{sha256: {digest}}}}}}}");
    let errors = load_with(&bare).expect_err("no place").to_string();
    let errors_without = load_with("kubernetes: {artifacts: {runc: {version: v1, url: 'https://x/runc'}}}");
    let errors_without = errors_without.expect_err("no digest").to_string();
    assert!(errors_without.contains("runc.sha256: is missing"), "{errors_without}");
    for key in ["runc.url", "runc.version"] {
        assert!(errors.contains(&format!("{key}: is missing")), "{errors}");
    }
    let whole = format!(
        "kubernetes: {{artifacts: {{runc: {{sha256: {digest}, version: v1.3.0, \
         url: 'https://x/{{version}}/runc.{{arch}}'}}}}}}"
    );
    let settings = settings_with(&whole);
    let runc = &settings.install.artifacts[&"runc".parse().expect("a name")];
    assert_eq!(runc.urls[0].as_str(), "https://x/v1.3.0/runc.{arch}");
    let kubelet = &settings.install.artifacts[&"kubelet".parse().expect("a name")];
    assert_eq!(kubelet.urls[0].as_str(), "http://10.10.30.1/release/v1.34.2/bin/linux/{arch}/kubelet");
}

#[test]
fn the_strongest_that_vouches_counts() {
    let digests = "kubernetes:\n  artifacts: {kubelet: null, kube-proxy: null, kubectl: null}\n";
    let vouch = |more: &str| {
        let settings = settings_with(&format!("{digests}{more}"));
        settings.install.artifacts.values().map(|artifact| artifact.vouch.clone()).collect::<Vec<_>>()
    };
    let pinned = settings::Vouch::Pinned(values::Sha256::of(b"x"));
    let sha256 = values::Sha256::of(b"x");
    let https = "  mirrors: [https://x/release]\n";
    assert_eq!(vouch(https), [settings::Vouch::Published, settings::Vouch::Published, settings::Vouch::Published]);
    // With a lock file any mirror will do.
    assert_eq!(vouch("  lock: {file: /l}\n"), [settings::Vouch::Lock, settings::Vouch::Lock, settings::Vouch::Lock]);
    let one = format!("kubernetes: {{lock: {{file: /l}}, artifacts: {{kubelet: {{sha256: {sha256}}}}}}}");
    assert_eq!(settings_with(&one).install.artifacts[&"kubelet".parse().expect("a name")].vouch, pinned);
    let locks = [
        ("{url: 'http://x/l', sha256: SUM}", "Pinned { url: HttpUrl(\"http://x/l\"), sha256: "),
        (
            "{url: 'http://x/l', key: /k}",
            "Signed { url: HttpUrl(\"http://x/l\"), signature: HttpUrl(\"http://x/l.sig\"), ",
        ),
    ];
    for (lock, wanted) in locks {
        let settings = settings_with(&format!("kubernetes: {{lock: {}}}", lock.replace("SUM", sha256.as_str())));
        let shown = format!("{:?}", settings.install.lock.expect("a lock"));
        assert!(shown.starts_with(wanted), "{lock}: {shown}");
    }
}

#[test]
fn known_releases_need_a_version_and_no_more() {
    let settings = settings_with("kubernetes: {lock: {file: /l}, artifacts: {etcd: {version: v3.6.1}}}");
    let etcd = &settings.install.artifacts[&"etcd".parse().expect("a name")];
    let urls: Vec<&str> = etcd.urls.iter().map(values::HttpUrl::as_str).collect();
    let file = "etcd-v3.6.1-linux-{arch}.tar.gz";
    let upstream = format!("https://github.com/etcd-io/etcd/releases/download/v3.6.1/{file}");
    assert_eq!(urls, [format!("http://10.10.30.1/release/etcd/v3.6.1/{file}"), upstream]);
    let settings::Form::Archive(members) = &etcd.form else { panic!("{etcd:?}") };
    assert_eq!(members[&"etcdctl".parse().expect("a name")], "etcd-v3.6.1-linux-{arch}/etcdctl");
    let programs = |version| catalogue::known("etcd").expect("it is known").programs(version).count();
    assert_eq!(["v3.4.23", "v3.5.0", "v3.6.1", "v4.0.0"].map(programs), [2, 3, 3, 3]);
}

#[test]
fn the_user_extends_and_removes_by_name() {
    let settings = settings_with(
        "kernel:\n  modules: {br_netfilter: false, ip_vs: true}\n  \
         sysctls: {vm.max_map_count: 262144, kernel.umask: 0700}\n\
         limits:\n  containerd.service: {LimitNOFILE: infinity}\n",
    );
    let modules: Vec<&str> = settings.kernel.modules.iter().map(values::ModuleName::as_str).collect();
    assert_eq!(modules, ["ip_vs", "overlay"]);
    // Without the module its sysctls do not exist, so the role's defaults for them go too.
    let sysctls: Vec<String> = settings.kernel.sysctls.iter().map(|(k, v)| format!("{k}={v}")).collect();
    assert_eq!(sysctls, ["kernel.umask=0700", "net.ipv4.ip_forward=1", "vm.max_map_count=262144"]);
    let containerd = &settings.limits[&values::UnitName::literal("containerd.service")];
    assert_eq!(containerd.rlimits[&settings::Rlimit::NoFile].to_string(), "infinity");
    assert_eq!(containerd.tasks_max, Some(values::Limit::INFINITY));
}

#[test]
fn origins_name_the_file_that_decided() {
    let settings = settings_with("cluster:\n  domain: k8s.example\nlimits: {a.service: {LimitCORE: 0}}\n");
    let table = [
        ("cluster.domain", "node.d/10.yaml:2"),
        ("limits.a.service.LimitCORE", "node.d/10.yaml:3"),
        ("cluster.apiServer", "node.yaml:5"),
        ("kubernetes.mirrors", "node.yaml:8"),
        ("cluster.podCIDR", "default"),
        ("limits.kubelet.service.LimitNOFILE", "default"),
    ];
    for (key, origin) in table {
        assert_eq!(settings.origins.of(key).to_string(), origin, "{key}");
    }
    assert_eq!(settings.origins.of("node.name"), Origin::Default);
}

#[test]
fn the_digest_sees_meaning_only() {
    let digest = |drop_in: &str| settings_with(drop_in).digest;
    let plain = digest("kind: NodeConfig");
    for same in ["# a comment\nkind: NodeConfig", "kubernetes: {version: 'v1.34.2'}", "node:", "node: {name: null}"] {
        assert_eq!(digest(same), plain, "{same:?}");
    }
    let mut reordered: Vec<&str> = SAMPLE.split_inclusive("\nkind: NodeConfig\n").collect();
    reordered.reverse();
    let reordered = load(vec![source("other.yaml", &reordered.concat())]).expect("the same document");
    assert_eq!(reordered.digest, plain);
    for other in ["kubernetes: {version: v1.34.3}", "node: {name: a}", "kernel: {modules: {ip_vs: true}}"] {
        assert_ne!(digest(other), plain, "{other:?}");
    }
}

#[test]
fn every_unreadable_file_is_reported() {
    let errors = load(vec![source("a", "x: ["), source("b", ""), source("c", "kind: NodeConfig")]).expect_err("broken");
    let files: Vec<&str> = errors.problems().iter().map(|p| p.file.as_str()).collect();
    assert_eq!(files, ["a", "b"], "{errors}");
    assert!(load(Vec::new()).expect_err("nothing").to_string().contains("there is no configuration"));
}

#[test]
fn errors_are_data_too() {
    let errors = load_with("role: boss").expect_err("no such role");
    let data = serde_json::to_value(&errors).expect("plain data");
    assert_eq!(
        data,
        serde_json::json!([{
            "file": "node.d/10.yaml",
            "line": 1,
            "column": 7,
            "key": "role",
            "message": "\"boss\" is not known here; it must be: etcd, controller, worker, edge, kubeadm",
        }])
    );
}

/// The parser reads ahead; a hostile file must not make it read for ever.
#[test]
fn a_hostile_file_is_refused_quickly() {
    let started = std::time::Instant::now();
    for text in [
        "[".repeat(1 << 20),
        "{a: ".repeat(1 << 18),
        "- ".repeat(1 << 19),
        "? ".repeat(1 << 19),
        "a: [\n".repeat(1 << 17),
    ] {
        assert!(load(vec![source("n", &text)]).is_err(), "{}", &text[..10]);
    }
    let elapsed = started.elapsed();
    assert!(elapsed.as_secs() < 10, "{elapsed:?}");
}

/// Text that looks enough like a configuration to get past the first stages.
fn almost_a_configuration() -> impl Strategy<Value = String> {
    let word = prop::sample::select(vec![
        "role",
        "worker",
        "cluster",
        "apiServer",
        "kubernetes",
        "artifacts",
        "pki",
        "signer",
        "cfssl",
        "limits",
        "a.service",
        "LimitNOFILE",
        "https://x",
        "10.0.0.0/8",
        "1",
        "true",
        "null",
        ":",
        ": ",
        "\n",
        "\n  ",
        "- ",
        "[",
        "]",
        "{",
        "}",
        ",",
        "'",
        "\"",
        "|",
        ">",
        "&a",
        "*a",
        "!t",
        "#",
        "---\n",
        "...\n",
        "%",
        "?",
        "<<",
        "\t",
        "\u{feff}",
        "é",
        "\\",
    ]);
    prop::collection::vec(word, 0..40).prop_map(|words| words.concat())
}

proptest! {
    #[test]
    fn any_bytes_are_answered(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = load(vec![Source { name: "n".to_owned(), text: bytes }]);
    }

    #[test]
    fn any_text_is_answered(text in "\\PC*", other in almost_a_configuration()) {
        let _ = load(vec![source("n", &text)]);
        let _ = load(vec![source("n", &other)]);
        let _ = load_with(&other);
    }

    #[test]
    fn a_damaged_configuration_is_answered(at in 0..SAMPLE.len(), cut in 0..20_usize, put in almost_a_configuration()) {
        let end = (at + cut).min(SAMPLE.len());
        let text = format!("{}{put}{}", &SAMPLE[..at], &SAMPLE[end..]);
        let _ = load(vec![source("n", &text)]);
    }
}

/// A controller, as its own node.yaml and with a drop-in.
fn controller_with(drop_in: &str) -> Result<Settings, ConfigErrors> {
    controller_with_all(&[drop_in])
}

/// The same, with several drop-ins, one over the other.
fn controller_with_all(drop_ins: &[&str]) -> Result<Settings, ConfigErrors> {
    const MAIN: &str = "\
apiVersion: nodeagent.io/v1alpha1
kind: NodeConfig
role: controller
node: { name: c1 }
cluster:
  apiServer: https://10.10.30.11:6443
  nodes:
    c1: { role: controller, address: 10.10.30.11, podCIDR: 10.244.0.0/24 }
    w1: { address: 10.10.30.21, podCIDR: 10.244.1.0/24 }
kubernetes: { version: v1.34.2, lock: { file: /l }, artifacts: { etcd: { version: v3.6.1 } } }
pki:
  ca: /etc/kubernetes/pki/ca.pem
  signer: { local: { key: /etc/kubernetes/pki/ca-key.pem } }
  etcd: { ca: /etc/kubernetes/pki/etcd-ca.pem, signer: { local: { key: /etc/kubernetes/pki/etcd-ca-key.pem } } }
";
    let drop_ins = drop_ins.iter().enumerate().map(|(at, text)| source(&format!("node.d/1{at}.yaml"), text));
    load(std::iter::once(source("node.yaml", MAIN)).chain(drop_ins).collect())
}

#[test]
fn a_controller_and_its_defaults() {
    let settings = controller_with("{}").unwrap_or_else(|errors| panic!("{errors}"));
    assert!(settings.etcd.member);
    let members: Vec<String> = settings.etcd.members.iter().map(|(name, at)| format!("{name} {at}")).collect();
    assert_eq!(members, ["c1 10.10.30.11"]);
    assert_eq!(settings.etcd.endpoints, ["https://10.10.30.11:2379".parse().expect("a URL")]);
    assert_eq!(settings.cluster.network, settings::PodNetwork::Bridge);
    let programs: Vec<&str> = settings.install.artifacts.keys().map(values::ArtifactName::as_str).collect();
    let wanted =
        ["etcd", "kube-apiserver", "kube-controller-manager", "kube-proxy", "kube-scheduler", "kubectl", "kubelet"];
    assert_eq!(programs, wanted);
    assert_eq!(settings.certs.service_account_key.as_str(), "/etc/kubernetes/pki/sa-key.pem");
    assert!(settings.limits.contains_key(&values::UnitName::literal("etcd.service")));
    let of_snapshots = settings.defaults.iter().filter(|used| used.key.starts_with("etcd.snapshots."));
    let of_snapshots: Vec<&str> = of_snapshots.map(|used| used.value.as_str()).collect();
    assert_eq!(of_snapshots, ["/var/lib/etcd-snapshots", "true", "6h", "8"]);

    let apart = controller_with("cluster: { nodes: { e1: { role: etcd, address: 10.10.30.31 } } }");
    let apart = apart.unwrap_or_else(|errors| panic!("{errors}"));
    let in_dns = controller_with("etcd: { discovery: etcd.example.com, join: true }");
    let in_dns = in_dns.unwrap_or_else(|errors| panic!("{errors}"));
    assert!(in_dns.etcd.members.is_empty() && in_dns.etcd.discovery.is_some(), "{:?}", in_dns.etcd);
    assert_eq!(in_dns.etcd.endpoints, settings.etcd.endpoints, "the inventory has them");
    assert!(!apart.etcd.member, "the store has machines of its own");
    assert_eq!(apart.etcd.endpoints, ["https://10.10.30.31:2379".parse().expect("a URL")]);
}

#[test]
fn what_does_not_go_together_in_a_cluster() {
    let table = [
        ("cluster: { nodes: { w1: { address: 10.244.9.9 } } }", "lies in podCIDR 10.244.0.0/16"),
        ("cluster: { nodes: { w1: { address: 10.96.0.9 } } }", "lies in serviceCIDR"),
        ("cluster: { nodes: { w1: { address: 10.10.30.11 } } }", "that of c1, too"),
        ("cluster: { nodes: { w1: { podCIDR: 10.245.1.0/24 } } }", "no part of cluster.podCIDR"),
        ("cluster: { nodes: { w1: { podCIDR: 10.244.0.128/25 } } }", "overlaps that of c1"),
        ("cluster: { nodes: { w1: { address: 'fd00::21' } } }", "not of the family of its address fd00::21"),
        ("cluster: { nodes: { w1: { podCIDR: 10.244.1.4/31 } } }", "no room for a bridge and pods"),
        ("cluster: { nodes: { e1: { role: etcd, address: 10.10.30.31, podCIDR: 10.244.2.0/24 } } }", "runs no pods"),
        ("cluster: { nodes: { c1: { role: worker } } }", "not what role says: controller"),
        ("node: { name: c9 }", "this node, c9, is not among them"),
        ("cluster: { network: bridge, nodes: { w2: { address: 10.10.30.22 } } }", "there is none for w2"),
        ("etcd: { members: { c2: 10.10.30.12 } }", "a member runs on this node, c1"),
        ("etcd: { join: true }", "no other member to join"),
        ("etcd: { endpoints: [] }", "the API server has to know a member"),
        ("etcd: { discovery: etcd.example.com, members: { c1: 10.10.30.11 } }", "exclude each other"),
        ("etcd: { discovery: etcd.example.com, member: false }", "no member of etcd runs here, and none is listed"),
        ("etcd: { snapshots: { every: 5h } }", "divides an hour or a day"),
        ("etcd: { snapshots: { every: 1m } }", "it is less than 5m"),
        ("etcd: { snapshots: { keep: 0 } }", "a number from 1 to 1000"),
        ("etcd: { snapshots: { dir: /var/lib/etcd/snapshots } }", "what loses the one would lose the other"),
        ("etcd: { dataDir: /srv/etcd, snapshots: { dir: /srv/etcd } }", "lies in etcd.dataDir"),
        ("etcd: { snapshots: { dir: 'var/lib' } }", "etcd.snapshots.dir"),
        ("etcd: { endpoints: ['http://10.10.30.11:2379'] }", "must start with https://"),
        ("pki: { etcd: { ca: /etc/kubernetes/pki/ca.pem } }", "every node's certificate would open the store"),
        (
            "pki: { etcd: { signer: { local: null, offline: { dir: /etc/kubernetes/pki } } } }",
            "pki.etcd.signer.offline.dir: is pki.dir, too: choose /etc/kubernetes/pki/offline",
        ),
        ("pki: { extra: { web: { commonName: web, usages: [server] } } }", "names none: give dns or addresses"),
        ("pki: { extra: { web: { commonName: web, usages: [] } } }", "good for nothing"),
        ("node: { labels: { node-role.kubernetes.io/x: '' } }", "kubectl label"),
        ("role: worker", "a worker never speaks to etcd"),
        ("{ role: worker, pki: { encryptionKey: /k } }", "is for controllers alone"),
        ("{ role: etcd, etcd: { member: false } }", "a member is all that"),
        (
            "{ role: etcd, kubernetes: { images: { x: { url: 'http://m/x', sha256: aaaa1111aaaa1111aaaa1111aaaa1111aaaa1111aaaa1111aaaa1111aaaa1111 } } } }",
            "no container runs on a node of role etcd",
        ),
    ];
    for (drop_in, message) in table {
        let errors = controller_with(drop_in).err().unwrap_or_else(|| panic!("{drop_in}: accepted")).to_string();
        assert!(errors.contains(message), "{drop_in}:\n{errors}");
    }
    let by_token = "pki: { signer: { local: null, kubernetes: { tokenFile: /t } } }";
    let errors = controller_with(by_token).expect_err("there is no API server yet").to_string();
    assert!(errors.contains("must be there before the API server is"), "{errors}");
}
