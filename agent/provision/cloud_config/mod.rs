//! `nodeagent cloud-config`: from one `cluster.yaml` to all that the first boot of each machine needs.
//!
//! | what | file |
//! | --- | --- |
//! | what no machine sees of the others | `whole.rs` |
//! | CAs and shared keys, made once | `keys.rs` |
//! | the machines' pod networks, remembered | `pods.rs` |
//! | bootstrap tokens, remembered until they expire | `tokens.rs` |
//! | what a machine gets in its user-data, and what beside it | `node.rs`, `files.rs` |
//! | the same for cloud-init, coreos-cloudinit, Butane and Ignition | `formats.rs`, `yaml.rs` |
//! | the config drive | `image.rs` |
//! | the administrator's kubeconfig | `admin.rs` |
//!
//! A run that finds everything as it would make it writes nothing. What it makes depends on nothing but `cluster.yaml` and
//! the files that it keeps beside what it makes.

mod admin;
mod error;
mod files;
mod formats;
mod image;
mod keys;
mod node;
mod pods;
mod store;
mod tokens;
mod whole;
mod yaml;

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Serialize;
use zeroize::Zeroizing;

use crate::config::Source;
use crate::config::cluster::{Cluster, NodeConfig};
use crate::config::kept::{self, Allocations, BootstrapTokens};
use crate::config::settings::{Role, Signer};
use crate::config::values::{Cidr, NodeName, RootPath};
use crate::engine::change::Meta;
use crate::engine::fault::Fault;
use crate::host::clock;

pub use error::CloudConfigError;
use files::Files;
use keys::{Keys, Wanted};
use store::Store;

/// The directory of CAs and keys, in the inventory unless another is named.
const PKI: &str = "pki";

/// What to make, and where.
pub struct Order {
    /// `cluster.yaml`.
    pub source: Source,
    /// The directory of the inventory.
    pub to: PathBuf,
    /// The directory of CAs and keys, if not the inventory's own.
    pub pki: Option<PathBuf>,
    /// Whether every machine gets a new token.
    pub new_tokens: bool,
    /// Whether user-data may be larger than metadata services take.
    pub any_size: bool,
}

/// What was made.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Made {
    /// The files that were written: none where all were there.
    pub written: Vec<String>,
    /// Secrets that were made for a machine before, and that it needs no more: they are gone.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub removed: Vec<String>,
    /// The administrator's kubeconfig.
    pub kubeconfig: String,
    /// The machines, by name.
    pub nodes: BTreeMap<NodeName, MadeNode>,
    /// The directories of machines that the cluster does not have any more. Nothing there is touched.
    pub left: Vec<String>,
}

/// What was made for one machine.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct MadeNode {
    /// What it is for.
    pub role: Role,
    /// The directory of its files.
    pub dir: String,
    /// The addresses of its pods, if it has some.
    #[serde(rename = "podCIDR", skip_serializing_if = "Option::is_none")]
    pub pod_cidr: Option<Cidr>,
    /// What has to be brought to it besides its user-data, before it can become what it is to be.
    pub secrets: Vec<MadeSecret>,
    /// The place there of the one that is the key of the cluster's CA, if it has no right to that and would keep it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stray_key: Option<RootPath>,
}

/// A secret that has to be brought to a machine.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct MadeSecret {
    /// Where it is here.
    pub file: String,
    /// Where it belongs there, root's.
    pub path: RootPath,
    /// The mode that it has there, in octal digits.
    pub mode: String,
}

/// Makes it: each file whole, and none before all is known to be good. CAs and keys that are missing are made first.
/// `told` hears of another run that is at work in a directory, and is waited for.
pub async fn make(order: Order, told: impl Fn(&str)) -> Result<Made, Fault> {
    let cluster = Cluster::load(order.source)?;
    let own_pki = order.to.join(PKI);
    if order.pki.is_none() && cluster.machines.keys().any(|name| name.as_str() == PKI) {
        return Err(CloudConfigError::Reserved { dir: own_pki.display().to_string() }.into());
    }
    let mut store = Store::open(&order.to)?;
    let _alone_here = store.lock(&told).await?;
    let now = clock::now();
    let allocations_file = RootPath::literal("/allocations.yaml");
    let tokens_file = RootPath::literal("/bootstrap-tokens.yaml");
    let mut allocations: Allocations = kept_or_new(&store, &allocations_file)?;
    let mut tokens: BootstrapTokens = kept_or_new(&store, &tokens_file)?;

    let pods = pods::allocate(&cluster, &mut allocations)?;
    let configs = cluster.node_configs(&pods)?;
    whole::check(&configs)?;
    let by_token: Vec<&NodeName> =
        configs.iter().filter(|(_, config)| joins_by_token(config)).map(|(name, _)| name).collect();
    tokens::renew(&mut tokens, &by_token, cluster.token_life, order.new_tokens, now)?;

    let pki = order.pki.unwrap_or(own_pki);
    let kubeconfig_file = RootPath::literal("/admin.conf");
    let there = store.read(&kubeconfig_file)?.map(Zeroizing::new);
    // A slip in --pki must not make another cluster of this one.
    let another_ca = || CloudConfigError::AnotherCa { dir: pki.display().to_string() };
    if there.is_some() && !keys::has_ca(&pki)? {
        return Err(another_ca().into());
    }
    let mut pki_store = Store::open_closed(&pki)?;
    // Another inventory may have the same CAs.
    let _alone_there = if store.is_same_as(&pki_store) { None } else { pki_store.lock(&told).await? };
    let keys = Keys::find(&pki, &mut pki_store, &Wanted::of(&cluster, &configs), now)?;
    if let Some(there) = &there {
        let file = store.display(&kubeconfig_file);
        match admin::is_of_another(there, &keys.cluster) {
            Ok(false) => (),
            Ok(true) => return Err(another_ca().into()),
            Err(why) => return Err(CloudConfigError::UnknownCa { file, why }.into()),
        }
    }
    let tokens_text = node::tokens_yaml(&tokens, "Written by nodeagent cloud-config: for controllers alone.");

    let mut ready = Vec::new();
    for (name, config) in &configs {
        let token = tokens.tokens.get(name);
        let files = Files::new(name, config, &cluster, &keys, token, &tokens_text);
        files.judge(name, &keys, order.any_size)?;
        ready.push((name, config, files));
    }

    let document = serde_json::to_value(&allocations).unwrap_or_default();
    let header = "# Written by nodeagent cloud-config, which gives a machine that is listed here the same again.\n";
    let text = format!("{header}{}", yaml::print(document.as_object().unwrap_or(&serde_json::Map::new())));
    store.put(&allocations_file, text.as_bytes(), Meta::FILE)?;
    store.put(&tokens_file, tokens_text.as_bytes(), Meta::SECRET)?;
    let kubeconfig = admin::kubeconfig(&cluster, &keys.cluster, there.as_ref().map(|bytes| bytes.as_slice()), now)?;
    store.put(&kubeconfig_file, kubeconfig.as_bytes(), Meta::SECRET)?;

    let mut nodes = BTreeMap::new();
    for (name, config, files) in ready {
        let dir = RootPath::literal("/").join(name.as_str());
        let secrets = files.write(&mut store, &dir)?;
        let (role, pod_cidr) = (config.settings.role, pods.get(name).copied());
        let stray_key = config.settings.stray_key().cloned();
        nodes.insert(name.clone(), MadeNode { role, dir: store.display(&dir), pod_cidr, secrets, stray_key });
    }
    let kubeconfig = store.display(&kubeconfig_file);
    let left = left(&store, &cluster)?;
    let (pki, own) = (pki_store.done(), store.done());
    Ok(Made { written: [pki.written, own.written].concat(), removed: own.removed, kubeconfig, nodes, left })
}

/// The directories that hold what an earlier run made for machines that are gone from `cluster.yaml`.
fn left(store: &Store, cluster: &Cluster) -> Result<Vec<String>, Fault> {
    let mut left = Vec::new();
    for name in store.names()? {
        let Ok(name) = name.parse::<NodeName>() else { continue };
        let dir = RootPath::literal("/").join(name.as_str());
        if !cluster.machines.contains_key(&name) && store.has_dir(&dir)? && store.has(&dir.join("node.yaml"))? {
            left.push(store.display(&dir));
        }
    }
    left.sort_unstable();
    Ok(left)
}

/// A document that an earlier run kept, or an empty one.
fn kept_or_new<T>(store: &Store, path: &RootPath) -> Result<T, Fault>
where
    T: Default + serde::de::DeserializeOwned + schemars::JsonSchema,
{
    match store.read(path)? {
        None => Ok(T::default()),
        Some(text) => Ok(kept::load(Source { name: store.display(path), text })?),
    }
}

fn joins_by_token(config: &NodeConfig) -> bool {
    matches!(config.settings.certs.signer, Signer::Kubernetes { .. })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::certs;
    use crate::config::settings::STRAY_KEY;
    use crate::engine::resource::{CannotTell, Diff, Seen, Thing};
    use crate::host::facts::Facts;
    use crate::host::seen::{Entry, Sight, Stamp};
    use crate::identity::Identity;

    /// What the machine will say of the keys that it was brought and that none of its Changes destroys.
    fn said_there(config: &NodeConfig) -> Vec<CannotTell> {
        let planned = certs::plan(&config.settings, &Facts::sample(), &Identity::sample());
        let stamp = Stamp { size: 241, inode: 1, mtime_ns: 0, ctime_ns: 0 };
        let brought = || Ok(Sight::Entry(Entry::File { meta: Meta::SECRET, stamp, bytes: None }));
        let proofs = planned.iter().filter_map(|planned| {
            let things: Vec<Thing> = planned.what.proof_reads();
            let seen = Seen(things.into_iter().map(|thing| (thing, brought())).collect());
            let stays = !seen.0.is_empty() && matches!(planned.what.diff(&seen), Ok(Diff::Same));
            stays.then(|| planned.what.prove(&seen).err()).flatten()
        });
        proofs.collect()
    }

    #[test]
    fn what_is_said_of_a_stray_key_is_what_the_machine_will_say() {
        let example = include_str!("../../../cloud-config/cluster-etcd.yaml");
        let mut stray = Vec::new();
        for more in ["", ", removeAfterUse: true"] {
            let text = format!(
                "{example}\ndefaults: {{ pki: {{ signer: {{ local: {{ key: /etc/mine/ca.key{more} }} }} }} }}\n"
            );
            let source = Source { name: "cluster.yaml".to_owned(), text: text.into_bytes() };
            let cluster = Cluster::load(source).unwrap_or_else(|errors| panic!("{errors}"));
            let configs = cluster.node_configs(&BTreeMap::new()).unwrap_or_else(|errors| panic!("{errors}"));
            for (name, config) in configs {
                let here: Vec<CannotTell> =
                    config.settings.stray_key().into_iter().map(|key| CannotTell::new(key, STRAY_KEY)).collect();
                assert_eq!(here, said_there(&config), "{name}{more}");
                stray.extend(here.first().map(|_| name.to_string()));
            }
        }
        assert_eq!(stray, ["edge-1", "etcd-1", "etcd-2", "etcd-3"]);
    }
}
