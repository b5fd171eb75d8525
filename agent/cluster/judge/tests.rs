//! Who asks, for what, and the verdict.

use openssl::base64::encode_block;
use serde_json::{Value, json};

use super::*;
use crate::certs::request::request;
use crate::certs::testing::{client, new_key, server};

const TOKEN: &str = "system:bootstrap:abcdef";
const KUBELET: &str = "kubernetes.io/kube-apiserver-client-kubelet";
const SERVING: &str = "kubernetes.io/kubelet-serving";
const CLIENT: &str = "kubernetes.io/kube-apiserver-client";

fn inventory() -> BTreeMap<NodeName, NodeEntry> {
    let entry = |role, last, names: &[&str]| NodeEntry {
        role,
        address: [10, 10, 30, last].into(),
        pod_cidr: None,
        names: names.iter().map(|name| name.parse().expect("a domain")).collect(),
    };
    let name = |name: &str| name.parse().expect("a name");
    BTreeMap::from([
        (name("worker-01"), entry(Role::Worker, 21, &["worker.example.com"])),
        (name("worker-02"), entry(Role::Worker, 22, &[])),
        (name("edge-01"), entry(Role::Edge, 41, &[])),
        (name("controller-01"), entry(Role::Controller, 11, &[])),
        (name("etcd-01"), entry(Role::Etcd, 31, &[])),
    ])
}

fn of_node(name: &str, wanted: Wanted) -> Wanted {
    Wanted { common_name: format!("system:node:{name}"), ..wanted }
}

fn proxy() -> Wanted {
    Wanted { common_name: "system:kube-proxy".into(), organization: None, ..client() }
}

/// The object as the API server would show it.
fn object(who: &str, signer: &str, wanted: &Wanted, usages: &[&str]) -> Value {
    let groups = match who {
        node if node.starts_with("system:node:") => json!(["system:nodes", "system:authenticated"]),
        token if token.starts_with("system:bootstrap:") => json!(["system:bootstrappers", "system:authenticated"]),
        _ => json!(["system:authenticated"]),
    };
    let pem = request(wanted, &new_key()).expect("a request");
    json!({
        "metadata": { "name": "a-request" },
        "spec": {
            "request": encode_block(pem.as_bytes()),
            "signerName": signer,
            "usages": usages,
            "username": who,
            "groups": groups,
        },
        "status": {},
    })
}

fn judge(object: &Value, owner: Option<&str>) -> Result<String, String> {
    Request::deserialize(object).expect("a request").judge(&inventory(), owner)
}

const FOR_CLIENTS: &[&str] = &["key encipherment", "digital signature", "client auth"];
const FOR_SERVERS: &[&str] = &["digital signature", "server auth"];

#[test]
fn a_machine_of_the_inventory_gets_what_is_its_own() {
    let own = "system:node:worker-01";
    let further = Wanted { dns: vec!["worker-01".into(), "worker.example.com".into()], ..server() };
    let name_alone = Wanted { ips: Vec::new(), ..server() };
    let edge =
        of_node("edge-01", Wanted { dns: vec!["edge-01".into()], ips: vec![[10, 10, 30, 41].into()], ..server() });
    let controller = of_node("controller-01", client());
    let table = [
        (TOKEN, KUBELET, client(), "the first client certificate of worker-01, for whose machine the token abcdef is"),
        (own, KUBELET, client(), "the next client certificate of worker-01"),
        (own, SERVING, server(), "a serving certificate of worker-01 for worker-01, 10.10.30.21"),
        (own, SERVING, further, "a serving certificate of worker-01 for worker-01, worker.example.com, 10.10.30.21"),
        (own, SERVING, name_alone, "a serving certificate of worker-01 for worker-01"),
        (own, CLIENT, proxy(), "a client certificate for the kube-proxy of worker-01"),
        ("system:node:edge-01", SERVING, edge, "a serving certificate of edge-01 for edge-01, 10.10.30.41"),
        ("system:node:controller-01", KUBELET, controller, "the next client certificate of controller-01"),
        ("system:node:controller-01", CLIENT, proxy(), "a client certificate for the kube-proxy of controller-01"),
    ];
    for (who, signer, wanted, what) in table {
        let usages = if signer == SERVING { FOR_SERVERS } else { FOR_CLIENTS };
        assert_eq!(judge(&object(who, signer, &wanted, usages), Some("worker-01")).as_deref(), Ok(what), "{who}");
    }
}

#[test]
fn everything_else_is_left() {
    let own = "system:node:worker-01";
    let worker = Some("worker-01");
    let masters = Wanted { organization: Some("system:masters".into()), ..client() };
    let groupless = Wanted { organization: None, ..client() };
    let admin =
        Wanted { common_name: "kubernetes-admin".into(), organization: Some("system:masters".into()), ..client() };
    let manager = Wanted { common_name: "system:kube-controller-manager".into(), ..proxy() };
    let foreign_name = Wanted { dns: vec!["worker-01".into(), "kubernetes".into()], ..server() };
    let foreign_address = Wanted { ips: vec![[10, 10, 30, 11].into()], ..server() };
    let mapped = Wanted { ips: vec!["::ffff:10.10.30.21".parse().expect("an address")], ..server() };
    let others = of_node("worker-02", Wanted { dns: vec!["worker-02".into()], ..server() });
    let of_another = |name: &str| of_node(name, client());
    let table: [(&str, Option<&str>, &str, Wanted, &str); 27] = [
        // A token.
        (
            TOKEN,
            worker,
            KUBELET,
            of_another("worker-02"),
            "CN=system:node:worker-02 is not what system:bootstrap:abcdef",
        ),
        (TOKEN, worker, KUBELET, of_another("controller-01"), "CN=system:node:controller-01 is not what"),
        (TOKEN, Some("controller-01"), KUBELET, of_another("controller-01"), "controller-01 is a controller"),
        (TOKEN, Some("etcd-01"), KUBELET, of_another("etcd-01"), "etcd-01 is an etcd node"),
        (TOKEN, Some("stranger"), KUBELET, of_another("stranger"), "stranger is not in cluster.nodes"),
        (TOKEN, None, KUBELET, client(), "nothing says for which machine the token abcdef is"),
        (TOKEN, Some("A b"), KUBELET, client(), "nothing says for which machine the token abcdef is"),
        (
            TOKEN,
            worker,
            KUBELET,
            masters.clone(),
            "O=system:masters, CN=system:node:worker-01 is not what a node asks for",
        ),
        (TOKEN, worker, KUBELET, groupless, "CN=system:node:worker-01 is not what a node asks for"),
        (TOKEN, worker, KUBELET, server(), "it is not for client auth alone"),
        (TOKEN, worker, SERVING, server(), "is not what system:bootstrap:abcdef may ask for"),
        (TOKEN, worker, CLIENT, proxy(), "CN=system:kube-proxy is not what system:bootstrap:abcdef may ask for"),
        (TOKEN, worker, CLIENT, client(), "is not what system:bootstrap:abcdef may ask for"),
        // A node.
        (own, None, KUBELET, of_another("worker-02"), "is not what system:node:worker-01 may ask for"),
        (own, None, KUBELET, proxy(), "CN=system:kube-proxy is not what system:node:worker-01 may ask for"),
        (own, None, SERVING, others, "worker-02 may ask for"),
        (own, None, SERVING, foreign_name, "kubernetes is not its name"),
        (own, None, SERVING, foreign_address, "10.10.30.11 is not the address of worker-01, which is 10.10.30.21"),
        (own, None, SERVING, mapped, "is not the address of worker-01"),
        (own, None, SERVING, client(), "it is not for server auth alone"),
        (own, None, CLIENT, client(), "is not what system:node:worker-01 may ask for"),
        (own, None, CLIENT, admin, "O=system:masters, CN=kubernetes-admin is not what a node asks for"),
        (own, None, CLIENT, manager, "CN=system:kube-controller-manager is not what a node asks for"),
        ("system:node:stranger", None, CLIENT, proxy(), "stranger is not in cluster.nodes"),
        ("system:node:stranger", None, KUBELET, of_another("stranger"), "stranger is not in cluster.nodes"),
        // Anybody else.
        ("kubernetes-admin", None, KUBELET, client(), "kubernetes-admin is no node, and no bootstrap token"),
        (own, None, "example.com/signer", client(), "no node needs a certificate of the signer example.com/signer"),
    ];
    for (who, owner, signer, wanted, part) in table {
        let usages = if signer == SERVING { FOR_SERVERS } else { FOR_CLIENTS };
        let verdict = judge(&object(who, signer, &wanted, usages), owner);
        let why = verdict.expect_err(&format!("{who} asks for {}", wanted.subject()));
        // What another node's name is refused for depends on what is read first.
        let other = part.ends_with("worker-02 may ask for") && why.contains("system:node:worker-02");
        assert!(why.contains(part) || other, "{who} asks for {}: {why}", wanted.subject());
    }
}

#[test]
fn who_asks_is_who_the_groups_say_too() {
    for (who, part) in [("system:node:worker-01", "is no node"), (TOKEN, "no bootstrap token")] {
        let mut object = object(who, KUBELET, &client(), FOR_CLIENTS);
        object["spec"]["groups"] = json!(["system:authenticated"]);
        let why = judge(&object, Some("worker-01")).expect_err(who);
        assert!(why.contains(part), "{who}: {why}");
    }
}

#[test]
fn a_certificate_is_for_one_use() {
    let own = "system:node:worker-01";
    for usages in [
        &["digital signature", "client auth", "server auth"][..],
        &["digital signature", "server auth"],
        &["client auth"],
        &["client auth", "client auth"],
        &["any"],
        &[],
    ] {
        let why = judge(&object(own, KUBELET, &client(), usages), None).expect_err("another use");
        assert_eq!(why, "it is not for client auth alone", "{usages:?}");
    }
    assert!(judge(&object(own, KUBELET, &client(), &["client auth", "digital signature"]), None).is_ok());
}

#[test]
fn what_is_no_request_is_left() {
    let mut broken = object("system:node:worker-01", KUBELET, &client(), FOR_CLIENTS);
    for (request, part) in [("?", "not base64"), ("aGVsbG8=", "no readable certificate request"), ("", "no readable")] {
        broken["spec"]["request"] = json!(request);
        let why = judge(&broken, None).expect_err(request);
        assert!(why.contains(part), "{request}: {why}");
    }
}

#[test]
fn a_decision_stands() {
    let mut object = object("system:node:worker-01", KUBELET, &client(), FOR_CLIENTS);
    let is_open = |object: &Value| Request::deserialize(object).expect("a request").is_open();
    assert!(is_open(&object));
    object["status"] = json!({ "conditions": [{ "type": "Denied" }] });
    assert!(!is_open(&object));
    object["status"] = json!({ "certificate": "AAAA" });
    assert!(!is_open(&object));
}
