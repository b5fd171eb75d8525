//! An operator's `cluster.yaml`: a whole cluster, from which the `NodeConfig` of each of its machines follows.
//!
//! It is read as strictly as a `NodeConfig`, and what it passes on to the machines is checked as theirs: a machine's
//! document is put together as a tree whose every value still knows its line of `cluster.yaml`.

use std::collections::BTreeMap;
use std::sync::LazyLock;
use std::time::Duration;

use serde_json::{Value as Json, json};

use super::errors::{ConfigErrors, Problem};
use super::merge::merge;
use super::places::Places;
use super::settings::{PodNetwork, Role, Settings};
use super::tree::{Entry, Map, Node, Position, Scalar, Value};
use super::values::{Cidr, HttpUrl, Life, NodeName};
use super::{SCHEMA, Source, check, defaults, read, resolve};
use document::Document;
pub use document::{Agent, Machine, Pki};

mod document;

/// Made once: it is the same every time.
static CLUSTER: LazyLock<Json> = LazyLock::new(json_schema);

/// The JSON Schema of a `cluster.yaml`.
pub fn json_schema() -> Json {
    schemars::schema_for!(Document).to_value()
}

/// The places of the files that the machines' documents name.
const PKI: &str = "/etc/kubernetes/pki";

/// The parts of `pki` that say who signs: for the cluster's CA, and for the others.
const SIGNED: [&[&str]; 3] = [&[], &["etcd"], &["frontProxy"]];

/// Where a machine's bootstrap token is.
const TOKEN: &str = "/etc/nodeagent/bootstrap-token";

/// A cluster as its operator describes it.
pub struct Cluster {
    /// Its name.
    pub name: String,
    /// Where its API server answers.
    pub api_server: HttpUrl,
    /// Addresses of pods.
    pub pod_cidr: Cidr,
    /// Whether its machines get pod networks of their own.
    pub bridged: bool,
    /// The agent that its machines run.
    pub agent: Agent,
    /// The CAs and keys to make.
    pub pki: Pki,
    /// How long a bootstrap token can be used.
    pub token_life: Duration,
    /// Its machines.
    pub machines: BTreeMap<NodeName, Machine>,
    /// The document, and where its keys stand.
    tree: Node,
    places: Places,
}

/// The `NodeConfig` of one machine.
pub struct NodeConfig {
    /// The document, its keys at the top in the order of the format's description.
    pub document: Json,
    /// What the agent makes of it.
    pub settings: Settings,
}

impl Cluster {
    /// Reads it. The parts of `NodeConfig`s in it are read with [`Self::node_configs`].
    pub fn load(source: Source) -> Result<Self, ConfigErrors> {
        let (tree, mut problems) = read(&[source]).map_err(ConfigErrors::new)?;
        problems.extend(no_machine(&tree));
        match check::check(&CLUSTER, &without_fragments(&tree)) {
            Ok(typed) if problems.is_empty() => {
                let places = Places::of(&tree);
                let document: Document = serde_json::from_value(typed).map_err(|error| {
                    let message = format!("the check passed, but {error}: please report this");
                    ConfigErrors::new(vec![Problem::new(places.at(""), "", message)])
                })?;
                let cluster = Self::new(document, tree, places);
                let problems = [cluster.given_twice(), cluster.of_kubeadm()].concat();
                if problems.is_empty() { Ok(cluster) } else { Err(ConfigErrors::new(problems)) }
            }
            Ok(_) => Err(ConfigErrors::new(problems)),
            Err(more) => {
                problems.extend(more);
                Err(ConfigErrors::new(problems))
            }
        }
    }

    fn new(document: Document, tree: Node, places: Places) -> Self {
        Self {
            name: document.name.map_or_else(|| defaults::CLUSTER_NAME.to_owned(), String::from),
            api_server: document.api_server,
            pod_cidr: document.pod_cidr.unwrap_or_else(|| resolve::literal(defaults::POD_CIDR)),
            bridged: matches!(document.network, None | Some(PodNetwork::Bridge)),
            agent: document.agent,
            pki: document.pki,
            token_life: document.tokens.ttl.map_or(TOKEN_LIFE, Life::duration),
            machines: document.nodes,
            tree,
            places,
        }
    }

    /// Machines that could join no cluster of this kind.
    fn of_kubeadm(&self) -> Vec<Problem> {
        let machines = self.machines.iter().filter(|(_, machine)| machine.role() == Role::Kubeadm);
        let problem = |(name, _): (&NodeName, &Machine)| {
            let key = format!("nodes.{name}.role");
            let message = "kubeadm joins a cluster that kubeadm made, and this one is nodeagent's: make it a worker, or write \
                           that machine's NodeConfig yourself (docs/kubeadm.md)";
            Problem::new(self.places.at(&key), &key, message)
        };
        machines.map(problem).collect()
    }

    /// What the list of machines says already, and would have two answers.
    fn given_twice(&self) -> Vec<Problem> {
        const OURS: [(&str, &str); 7] = [
            ("apiVersion", "is added"),
            ("kind", "is added"),
            ("role", "is the role of nodes.NAME"),
            ("node.name", "is the name in nodes"),
            ("cluster.nodes", "is made of nodes"),
            ("cluster.podCIDR", "is podCIDR at the top, for all machines alike"),
            ("cluster.serviceCIDR", "is serviceCIDR at the top, for all machines alike"),
        ];
        let mut problems = Vec::new();
        let names = self.machines.keys().map(|name| format!("nodes.{name}.config"));
        let roles = self.entry(&["roles"]).map(|entry| &entry.node.value);
        let roles = roles.into_iter().flat_map(|value| match value {
            Value::Map(map) => map.keys().map(|role| format!("roles.{role}")).collect(),
            _ => Vec::new(),
        });
        for fragment in std::iter::once("defaults".to_owned()).chain(roles).chain(names) {
            for (key, why) in OURS {
                let key = format!("{fragment}.{key}");
                if let Some(at) = self.places.of_key(&key) {
                    problems.push(Problem::new(at, &key, format!("{why}: take it away here")));
                }
            }
        }
        problems
    }

    /// The machines' documents, each checked as the machine itself will check it. `pods` are the pod networks of those
    /// that run pods.
    pub fn node_configs(
        &self,
        pods: &BTreeMap<NodeName, Cidr>,
    ) -> Result<BTreeMap<NodeName, NodeConfig>, ConfigErrors> {
        let mut problems: Vec<Problem> = Vec::new();
        let mut configs = BTreeMap::new();
        for (name, machine) in &self.machines {
            let tree = self.node_tree(name, machine, pods);
            let checked = check::check(&SCHEMA, &tree);
            match checked.and_then(|typed| Ok((super::settle(typed.clone(), &tree)?, typed))) {
                Ok((settings, typed)) => {
                    configs.insert(name.clone(), NodeConfig { document: in_order(typed), settings });
                }
                // What stands in `kubernetes` or `defaults` is wrong for each machine alike, and said once.
                Err(errors) => {
                    for error in errors.into_iter().map(|error| self.in_its_words(error)) {
                        if !problems.iter().any(|told| (&told.key, &told.message) == (&error.key, &error.message)) {
                            problems.push(error);
                        }
                    }
                }
            }
        }
        if problems.is_empty() { Ok(configs) } else { Err(ConfigErrors::new(problems)) }
    }

    /// A problem of a machine's document by the key that `cluster.yaml` has for it.
    fn in_its_words(&self, mut problem: Problem) -> Problem {
        let name = problem.key.rsplit('.').next().unwrap_or_default();
        if let Some(key) = self.places.named(name, problem.line, problem.column) {
            problem.key = key.to_owned();
        }
        problem
    }

    /// What the document says, then `defaults`, then the role's, then the machine's own.
    fn node_tree(&self, name: &NodeName, machine: &Machine, pods: &BTreeMap<NodeName, Cidr>) -> Node {
        let here = self.places.at(&format!("nodes.{name}"));
        let role = machine.role();
        let mut tree = plant(
            &json!({
                "apiVersion": "nodeagent.io/v1alpha1",
                "kind": "NodeConfig",
                "role": role,
                "node": { "name": name },
            }),
            here,
        );
        let mut cluster = Map::new();
        let of_controllers = (role == Role::Controller).then_some("coreDNS");
        let of_all = ["name", "apiServer", "podCIDR", "serviceCIDR", "network", "flannel"];
        for key in of_all.into_iter().chain(of_controllers) {
            cluster.extend(self.entry(&[key]).map(|entry| (key.to_owned(), entry.clone())));
        }
        cluster.insert("nodes".to_owned(), self.inventory(pods));
        let kubernetes = self.entry(&["kubernetes"]).map(|entry| ("kubernetes".to_owned(), of_role(entry, role)));
        let given = kubernetes.into_iter().chain([("cluster".to_owned(), entry(here, map_node(here, cluster)))]);
        tree = merge(tree, map_node(here, given.collect()));

        let own: [&[&str]; 3] = [&["defaults"], &["roles", &role.to_string()], &["nodes", name.as_str(), "config"]];
        let own: Vec<Node> = own.into_iter().filter_map(|path| Some(self.entry(path)?.node.clone())).collect();
        let mut pki = self.pki_of(role);
        // Another signer takes the place of ours, and does not come beside it.
        for authority in SIGNED {
            let signer = [&["pki"], authority, &["signer"]].concat();
            if own.iter().any(|node| inside(node, &signer).is_some()) {
                let ours = authority.iter().try_fold(&mut pki, |pki, key| pki.get_mut(*key));
                ours.and_then(Json::as_object_mut).map(|ours| ours.remove("signer"));
            }
        }
        tree = merge(tree, plant(&json!({ "pki": pki }), here));
        own.into_iter().fold(tree, merge)
    }

    /// Which files hold a machine's CAs, and who signs.
    fn pki_of(&self, role: Role) -> Json {
        let authority = |stem: &str| {
            json!({
                "ca": format!("{PKI}/{stem}.pem"),
                "signer": { "local": { "key": format!("{PKI}/{stem}-key.pem") } },
            })
        };
        let mut pki = match role {
            Role::Controller => authority("ca"),
            // A member of etcd needs no certificate of the cluster's CA, and is not given its key.
            Role::Etcd => {
                json!({ "ca": format!("{PKI}/ca.pem"), "signer": { "offline": { "dir": format!("{PKI}/offline") } } })
            }
            _ => json!({ "ca": format!("{PKI}/ca.pem"), "signer": { "kubernetes": { "tokenFile": TOKEN } } }),
        };
        if matches!(role, Role::Controller | Role::Etcd) {
            pki["etcd"] = authority("etcd-ca");
        }
        if let Some(kind) = self.pki.key {
            pki["key"] = kind.to_string().into();
        }
        if role == Role::Controller {
            if !self.pki.no_aggregation {
                pki["frontProxy"] = authority("front-proxy-ca");
            }
            if self.pki.encrypt_secrets {
                pki["encryptionKey"] = format!("{PKI}/encryption-key").into();
            }
        }
        pki
    }

    /// The machines as a `NodeConfig` lists them.
    fn inventory(&self, pods: &BTreeMap<NodeName, Cidr>) -> Entry {
        let at = self.places.at("nodes");
        let mut nodes = Map::new();
        for (name, machine) in &self.machines {
            let Some(given) = self.entry(&["nodes", name.as_str()]) else { continue };
            let Value::Map(map) = &given.node.value else { continue };
            let mut map = map.clone();
            map.remove("config");
            if machine.role() == Role::Worker {
                map.remove("role");
            }
            if let Some(cidr) = pods.get(name) {
                map.entry("podCIDR".to_owned())
                    .or_insert_with(|| entry(&given.key_at, plant(&cidr.to_string().into(), &given.key_at)));
            }
            nodes.insert(name.to_string(), entry(&given.key_at, map_node(&given.node.at, map)));
        }
        entry(at, map_node(at, nodes))
    }

    /// What stands under a key, if it is not null.
    fn entry(&self, path: &[&str]) -> Option<&Entry> {
        inside(&self.tree, path).filter(|entry| !entry.node.is_null())
    }
}

/// What of the cluster's `kubernetes` a machine of this role has a use for: a store runs no containers, and only the store
/// and controllers run etcd.
fn of_role(kubernetes: &Entry, role: Role) -> Entry {
    const STORE: &str = "etcd";
    let mut entry = kubernetes.clone();
    let Value::Map(map) = &mut entry.node.value else { return entry };
    if role == Role::Etcd {
        map.remove("images");
    }
    if let Some(Value::Map(artifacts)) = map.get_mut("artifacts").map(|entry| &mut entry.node.value) {
        artifacts.retain(|name, _| match role {
            Role::Controller => true,
            Role::Etcd => name == STORE,
            Role::Worker | Role::Edge | Role::Kubeadm => name != STORE,
        });
    }
    entry
}

/// The default of `tokens.ttl`: kubeadm's.
const TOKEN_LIFE: Duration = Duration::from_hours(24);

fn child<'n>(node: &'n Node, name: &str) -> Option<&'n Entry> {
    match &node.value {
        Value::Map(map) => map.get(name),
        _ => None,
    }
}

fn inside<'n>(node: &'n Node, path: &[&str]) -> Option<&'n Entry> {
    let (first, rest) = path.split_first()?;
    rest.iter().try_fold(child(node, first)?, |entry, name| child(&entry.node, name))
}

/// A cluster of no machines: to the check, a map that says nothing is not there.
fn no_machine(tree: &Node) -> Option<Problem> {
    let nodes = child(tree, "nodes")?;
    let none = matches!(&nodes.node.value, Value::Map(map) if map.is_empty());
    none.then(|| Problem::new(&nodes.key_at, "nodes", "lists no machine: name each with its address"))
}

/// The document without the parts of `NodeConfig`s, as long as they are maps: the check says what it wants of others.
fn without_fragments(tree: &Node) -> Node {
    fn cut(map: &mut Map, name: &str) {
        if map.get(name).is_some_and(|entry| matches!(entry.node.value, Value::Map(_))) {
            map.remove(name);
        }
    }
    fn below<'m>(map: &'m mut Map, name: &str) -> Option<&'m mut Map> {
        map.get_mut(name).and_then(|entry| inner(&mut entry.node))
    }
    fn inner(node: &mut Node) -> Option<&mut Map> {
        match &mut node.value {
            Value::Map(map) => Some(map),
            _ => None,
        }
    }
    let mut tree = tree.clone();
    let Some(map) = inner(&mut tree) else { return tree };
    cut(map, "defaults");
    if let Some(roles) = below(map, "roles") {
        for role in ROLES {
            cut(roles, role);
        }
    }
    for machine in below(map, "nodes").into_iter().flat_map(|nodes| nodes.values_mut()) {
        if let Some(machine) = inner(&mut machine.node) {
            cut(machine, "config");
        }
    }
    tree
}

/// The keys of [`document::Roles`].
const ROLES: [&str; 4] = ["etcd", "controller", "worker", "edge"];

/// A value of our own, as if it stood at a place of the document.
fn plant(value: &Json, at: &Position) -> Node {
    let scalar = |text: String, plain| Value::Scalar(Scalar { text, plain });
    let value = match value {
        Json::Object(map) => {
            Value::Map(map.iter().map(|(name, value)| (name.clone(), entry(at, plant(value, at)))).collect())
        }
        Json::Array(items) => Value::List(items.iter().map(|item| plant(item, at)).collect()),
        Json::String(text) => scalar(text.clone(), false),
        other => scalar(other.to_string(), true),
    };
    Node { at: at.clone(), value }
}

fn map_node(at: &Position, map: Map) -> Node {
    Node { at: at.clone(), value: Value::Map(map) }
}

fn entry(key_at: &Position, node: Node) -> Entry {
    Entry { key_at: key_at.clone(), node }
}

/// The keys at the top in the order in which the format describes them.
fn in_order(document: Json) -> Json {
    let Json::Object(mut map) = document else { return document };
    let order = SCHEMA["properties"].as_object().into_iter().flat_map(serde_json::Map::keys);
    let mut ordered: serde_json::Map<String, Json> =
        order.filter_map(|key| map.remove(key).map(|value| (key.clone(), value))).collect();
    ordered.extend(map);
    Json::Object(ordered)
}

#[cfg(test)]
mod tests;
