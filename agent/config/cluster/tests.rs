use super::*;
use crate::config::settings::Signer;

/// A cluster of three, as `cloud-config/cluster.yaml` shows it.
const THREE: &str = include_str!("../../../cloud-config/cluster.yaml");

fn load(text: &str) -> Result<Cluster, ConfigErrors> {
    Cluster::load(Source { name: "cluster.yaml".to_owned(), text: text.as_bytes().to_vec() })
}

fn problems(text: &str) -> Vec<String> {
    let found = match load(text) {
        Err(errors) => errors,
        Ok(cluster) => cluster.node_configs(&BTreeMap::new()).map(drop).expect_err(text),
    };
    found.problems().iter().map(ToString::to_string).collect()
}

fn settings(text: &str, node: &str) -> Settings {
    let cluster = load(text).unwrap_or_else(|error| panic!("{error}"));
    let mut configs = cluster.node_configs(&BTreeMap::new()).unwrap_or_else(|error| panic!("{error}"));
    configs.remove(&node.parse::<NodeName>().expect("a name")).expect("a machine").settings
}

#[test]
fn everything_wrong_with_it_is_said_at_once_each_at_its_line() {
    let text = "apiVersion: nodeagent.io/v1alpha1\nkind: NodeConfig\napiserver: x\nagent: {url: http://x/y}\n\
                kubernetes: {version: 1.34}\nnodes:\n  w: {address: 10.0.0.300}\n  UP: {}\n";
    let shown = problems(text).join("\n");
    for wanted in [
        "cluster.yaml:1:1: apiServer: is missing",
        "cluster.yaml:2:7: kind: \"NodeConfig\" is not known here; it must be: Cluster",
        "cluster.yaml:3:1: apiserver: unknown key; did you mean apiServer?",
        "cluster.yaml:4:1: agent.sha256: is missing",
        "cluster.yaml:5:23: kubernetes.version: wants text",
        "cluster.yaml:7:16: nodes.w.address: \"10.0.0.300\" is not an IP address",
        "cluster.yaml:8:3: nodes.UP: \"UP\" is not",
        "cluster.yaml:8:3: nodes.UP.address: is missing",
    ] {
        assert!(shown.contains(wanted), "{wanted}\nis not in\n{shown}");
    }
}

#[test]
fn what_is_wrong_in_a_part_of_a_node_config_is_said_at_its_line_of_the_cluster() {
    let line = |text: &str, key: &str| {
        let found = problems(text);
        assert_eq!(found.len(), 1, "said once: {found:#?}");
        assert!(found[0].contains(key), "{found:?}");
        let wanted = text.lines().position(|line| line.contains("# here")).expect("a mark") + 1;
        assert_eq!(found[0].split(':').nth(1), Some(wanted.to_string().as_str()), "{found:?}");
    };
    line(&format!("{THREE}defaults:\n  kernel:\n    moduls: {{}} # here\n"), "kernel.moduls: unknown key");
    line(&format!("{THREE}defaults: [] # here\n"), "defaults: wants a map");
    let (before, _) = THREE.split_once("nodes:").expect("nodes");
    line(&format!("{before}nodes: {{}} # here\n"), "nodes: lists no machine");
    line(
        &THREE.replace("10.10.30.22 }", "10.10.30.21 } # here"),
        " nodes.worker-2.address: 10.10.30.21 is that of worker-1",
    );
    line(
        &THREE.replace("10.10.30.22 }", "10.10.30.22, config: { role: edge } } # here"),
        "nodes.worker-2.config.role: is the role of nodes.NAME",
    );
    line(&format!("{THREE}defaults: {{ cluster: {{ nodes: {{}} }} }} # here\n"), "is made of nodes");
}

#[test]
fn each_role_gets_what_it_may_hold() {
    let controller = settings(THREE, "controller-1");
    assert_eq!(controller.role, Role::Controller);
    assert_eq!(controller.certs.etcd.ca.as_str(), "/etc/kubernetes/pki/etcd-ca.pem");
    assert!(controller.certs.front_proxy.is_some());
    assert!(controller.cluster.core_dns.is_some());
    let worker = settings(THREE, "worker-1");
    assert!(worker.cluster.core_dns.is_none());
    assert!(matches!(worker.certs.signer, super::super::settings::Signer::Kubernetes { .. }));
    assert_eq!(worker.cluster.nodes.len(), 3);
    // A member of etcd is not given the cluster's CA key.
    let apart = THREE.replace("nodes:\n", "nodes:\n  etcd-1: { role: etcd, address: 10.10.30.9 }\n");
    let apart = apart.replace(
        "  controller:\n",
        "  etcd: { kubernetes: { artifacts: { etcd: { version: v3.5.16 } } } }\n  controller:\n",
    );
    let member = settings(&apart, "etcd-1");
    assert_eq!(member.certs.etcd.ca.as_str(), "/etc/kubernetes/pki/etcd-ca.pem");
    assert!(matches!(member.certs.signer, Signer::Offline { .. }));
}

#[test]
fn the_machines_own_word_wins_over_its_roles_and_that_over_the_defaults() {
    let swap = |text: &str| settings(text, "worker-2").kernel.swap;
    let own = |text: &str| text.replace("10.10.30.22 }", "10.10.30.22, config: { kernel: { swap: true } } }");
    let defaults = format!("{THREE}defaults: {{ kernel: {{ swap: true }} }}\n");
    assert!(!swap(THREE));
    assert!(swap(&defaults));
    let role = defaults.replace("roles:\n", "roles:\n  worker: { kernel: { swap: false } }\n");
    assert!(!swap(&role));
    assert!(swap(&own(&role)));
}

#[test]
fn another_signer_takes_the_place_of_ours() {
    let text = format!("{THREE}defaults: {{ pki: {{ signer: {{ offline: {{ dir: /etc/requests }} }} }} }}\n");
    let worker = settings(&text, "worker-1");
    assert!(matches!(worker.certs.signer, Signer::Offline { .. }));

    // Of each CA by itself.
    for (authority, of_etcd) in [("etcd", true), ("frontProxy", false)] {
        let ours = format!(
            "  controller:\n    pki: {{ {authority}: {{ signer: {{ offline: {{ dir: /etc/requests }} }} }} }}\n"
        );
        let certs = settings(&THREE.replace("  controller:\n", &ours), "controller-1").certs;
        let offline = |signer: &Signer| matches!(signer, Signer::Offline { .. });
        let front_proxy = certs.front_proxy.expect("a layer");
        assert_eq!([offline(&certs.etcd.signer), offline(&front_proxy.signer)], [of_etcd, !of_etcd]);
        assert!(!offline(&certs.signer));
        assert_eq!(certs.etcd.ca.as_str(), "/etc/kubernetes/pki/etcd-ca.pem");
    }
}

#[test]
fn flannel_is_every_machines() {
    let digest = "aaaa1111".repeat(8);
    let artifacts = format!(
        "  artifacts:\n    flannel: {{ version: v0.26.7, sha256: {digest} }}\n    flannel-cni: {{ version: v1.6.2, sha256: {digest} }}\n"
    );
    let text = THREE
        .replace("  artifacts:\n    cni", &format!("{artifacts}    cni"))
        .replace("\nnodes:\n", "\nnetwork: flannel\nflannel: { backend: host-gw }\n\nnodes:\n");
    for node in ["controller-1", "worker-1"] {
        let flannel = settings(&text, node).cluster.flannel.expect("flannel");
        assert_eq!(flannel.backend.to_string(), "host-gw", "{node}");
    }
    assert!(!load(&text).unwrap_or_else(|error| panic!("{error}")).bridged);
    let own = text.replace("10.10.30.21 }", "10.10.30.21, podCIDR: 10.244.1.0/24 }");
    assert!(problems(&own).join("\n").contains("flannel gives each node its part"), "{own}");
}

/// The check knows only a part of JSON Schema: what it would not know must not be there.
#[test]
fn the_schema_of_fragments_is_the_only_one_that_is_free() {
    let schema = json_schema();
    assert_eq!(schema["properties"]["defaults"]["type"], json!(["object", "null"]));
    let roles = schema["$defs"]["Roles"]["properties"].as_object().expect("a map");
    assert_eq!(roles.keys().collect::<Vec<_>>(), ROLES);
}

#[test]
fn a_cluster_of_ours_is_not_one_that_kubeadm_joins() {
    let text = THREE.replace("10.10.30.22 }", "10.10.30.22, role: kubeadm }");
    let found = problems(&text);
    assert_eq!(found.len(), 1, "{found:#?}");
    assert!(found[0].contains("nodes.worker-2.role: kubeadm joins a cluster that kubeadm made"), "{found:?}");
}
