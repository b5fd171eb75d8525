//! `nodeagent cloud-config`: from one `cluster.yaml` to all that the first boot of each machine needs.
//!
//! | what | file |
//! | --- | --- |
//! | CAs and shared keys, made once | `keys.rs` |
//! | the machines' pod networks, remembered | `pods.rs` |
//! | bootstrap tokens, remembered until they expire | `tokens.rs` |
//! | what a machine gets in its user-data, and what beside it | `node.rs` |
//! | the same for cloud-init, coreos-cloudinit, Butane and Ignition | `formats.rs`, `yaml.rs` |
//! | the config drive | `image.rs` |
//! | the administrator's kubeconfig | `admin.rs` |
//!
//! A run that finds everything as it would make it writes nothing. What it makes depends on nothing but `cluster.yaml` and
//! the files that it keeps beside what it makes.

mod admin;
mod formats;
mod image;
mod keys;
mod node;
mod pods;
mod store;
mod tokens;
mod yaml;

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Serialize;
use serde_json::json;
use zeroize::Zeroizing;

use crate::config::Source;
use crate::config::cluster::{Cluster, NodeConfig};
use crate::config::kept::{self, Allocations, BootstrapTokens};
use crate::config::settings::{Proxy, Role, Signer};
use crate::config::values::{Cidr, NodeName, RootPath, Sha256};
use crate::engine::change::Meta;
use crate::engine::fault::{Class, Explain, Fault};
use crate::host::clock;

use formats::Boot;
use keys::Keys;
use node::Secret;
use store::Store;

/// The most that metadata services take as user-data: EC2's 16 KiB, and less than any other's.
const MOST: usize = 16 << 10;

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
    /// The administrator's kubeconfig.
    pub kubeconfig: String,
    /// The machines, by name.
    pub nodes: BTreeMap<NodeName, MadeNode>,
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

/// Why nothing was made.
#[derive(Debug, thiserror::Error)]
pub enum CloudConfigError {
    /// Metadata services would not take it.
    #[error("{file} of {node} would have {size} bytes, and metadata services take {MOST}")]
    TooLarge {
        /// Whose.
        node: NodeName,
        /// Which.
        file: &'static str,
        /// In bytes.
        size: usize,
    },
    /// It would carry a key to where many can read it.
    #[error("{file} of {node} would hold the secret {secret}")]
    HoldsSecret {
        /// Whose.
        node: NodeName,
        /// Which.
        file: &'static str,
        /// Which secret, by its place on the machine.
        secret: String,
    },
    /// Its directory has another use.
    #[error("make files for a machine of the name {PKI}: {dir} is the directory of the CAs")]
    Reserved {
        /// Which.
        dir: String,
    },
}

impl Explain for CloudConfigError {
    fn class(&self) -> Class {
        Class::Usage
    }

    fn advice(&self) -> Option<String> {
        Some(
            match self {
                Self::TooLarge { .. } => {
                    "a web server or a config drive takes it (--any-size); else lock digests in a file (kubernetes.lock), rather than \
                     list each artifact, and give the larger pieces of `config` in another way"
                }
                Self::HoldsSecret { .. } => {
                    "many can read a machine's user-data: take it out of `defaults`, `roles` and `config`, and bring it to the \
                     machine by hand, in a file of /etc/nodeagent/node.d with mode 0600"
                }
                Self::Reserved { .. } => "name another directory for the CAs with --pki",
            }
            .to_owned(),
        )
    }
}

/// Makes it: each file whole, and none before all is known to be good. CAs and keys that are missing are made first.
pub fn make(order: Order) -> Result<Made, Fault> {
    let now = clock::now();
    let cluster = Cluster::load(order.source)?;
    let own_pki = order.to.join(PKI);
    if order.pki.is_none() && cluster.machines.keys().any(|name| name.as_str() == PKI) {
        return Err(CloudConfigError::Reserved { dir: own_pki.display().to_string() }.into());
    }
    let mut store = Store::open(&order.to)?;
    let allocations_file = RootPath::literal("/allocations.yaml");
    let tokens_file = RootPath::literal("/bootstrap-tokens.yaml");
    let mut allocations: Allocations = kept_or_new(&store, &allocations_file)?;
    let mut tokens: BootstrapTokens = kept_or_new(&store, &tokens_file)?;

    let pods = pods::allocate(&cluster, &mut allocations)?;
    let configs = cluster.node_configs(&pods)?;
    let by_token: Vec<&NodeName> =
        configs.iter().filter(|(_, config)| joins_by_token(config)).map(|(name, _)| name).collect();
    tokens::renew(&mut tokens, &by_token, cluster.token_life, order.new_tokens, now)?;

    let pki = order.pki.unwrap_or(own_pki);
    let mut pki_store = Store::open_closed(&pki)?;
    let keys = Keys::find(&pki, &mut pki_store, cluster.pki, now)?;
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
    let kubeconfig_file = RootPath::literal("/admin.conf");
    let there = store.read(&kubeconfig_file)?.map(Zeroizing::new);
    let kubeconfig = admin::kubeconfig(&cluster, &keys.cluster, there.as_ref().map(|bytes| bytes.as_slice()), now)?;
    store.put(&kubeconfig_file, kubeconfig.as_bytes(), Meta::SECRET)?;

    let mut nodes = BTreeMap::new();
    for (name, config, files) in ready {
        let dir = RootPath::literal("/").join(name.as_str());
        let secrets = files.write(&mut store, &dir)?;
        let (role, pod_cidr) = (config.settings.role, pods.get(name).copied());
        nodes.insert(name.clone(), MadeNode { role, dir: store.display(&dir), pod_cidr, secrets });
    }
    let kubeconfig = store.display(&kubeconfig_file);
    let written = pki_store.written().into_iter().chain(store.written()).collect();
    Ok(Made { written, kubeconfig, nodes })
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

/// All files of one machine.
struct Files {
    node_yaml: String,
    user_data: [(&'static str, Zeroizing<String>); 4],
    config_drive: Zeroizing<Vec<u8>>,
    secrets: Vec<Secret>,
    /// Whether the configuration holds the password of a proxy.
    proxy_login: bool,
}

impl Files {
    fn new(
        name: &NodeName,
        config: &NodeConfig,
        cluster: &Cluster,
        keys: &Keys,
        token: Option<&kept::BootstrapToken>,
        tokens: &str,
    ) -> Self {
        let node_yaml = node::node_yaml(
            config,
            "Written by nodeagent cloud-config: change cluster.yaml, or put what is for this node alone into node.d/.",
        );
        let boot = Boot {
            header: format!(
                "{name} of the cluster {}, made by nodeagent cloud-config from its cluster.yaml.",
                cluster.name
            ),
            files: node::files(config, &node_yaml, keys, token),
            agent: &cluster.agent,
        };
        let user_data = [
            ("user-data", boot.cloud_init()),
            ("user-data.coreos", boot.coreos()),
            ("config.bu", boot.butane()),
            ("config.ign", boot.ignition()),
        ];
        let meta_data = json!({ "uuid": uuid(name, keys), "name": name, "hostname": name }).to_string();
        let [(_, cloud_init), (_, coreos), ..] = &user_data;
        let config_drive = Zeroizing::new(image::config_drive(cloud_init, coreos, &meta_data));
        let user_data = user_data.map(|(file, text)| (file, Zeroizing::new(text)));
        let proxy_login = match &config.settings.download.proxy {
            Proxy::Named { url, .. } => url.login().is_some(),
            Proxy::OfEnvironment => false,
        };
        Self { node_yaml, user_data, config_drive, secrets: node::secrets(config, keys, tokens), proxy_login }
    }

    /// Whether these can be given away: no key in what many can read, and not more than is taken.
    fn judge(&self, name: &NodeName, keys: &Keys, any_size: bool) -> Result<(), CloudConfigError> {
        for (file, text) in &self.user_data {
            if let Some(secret) = held(text, keys) {
                return Err(CloudConfigError::HoldsSecret { node: name.clone(), file, secret: secret.to_owned() });
            }
            if self.proxy_login {
                let secret = "download.proxy's password".to_owned();
                return Err(CloudConfigError::HoldsSecret { node: name.clone(), file, secret });
            }
            if text.len() > MOST && !any_size && *file != "config.bu" {
                return Err(CloudConfigError::TooLarge { node: name.clone(), file, size: text.len() });
            }
        }
        Ok(())
    }

    /// What each secret's file is called here: as on the machine, or by its whole path where another one is called so.
    fn secret_names(&self) -> Vec<String> {
        let namesakes = |name: &str| self.secrets.iter().filter(|secret| secret.path.name() == name).count();
        let name = |secret: &Secret| match secret.path.name() {
            name if namesakes(name) == 1 => name.to_owned(),
            _ => secret.path.relative().replace('/', "-"),
        };
        self.secrets.iter().map(name).collect()
    }

    fn write(&self, store: &mut Store, dir: &RootPath) -> Result<Vec<MadeSecret>, Fault> {
        store.dir(dir, Meta::PROGRAM)?;
        store.put(&dir.join("node.yaml"), self.node_yaml.as_bytes(), Meta::FILE)?;
        for (file, text) in &self.user_data {
            // It may hold a token.
            store.put(&dir.join(file), text.as_bytes(), Meta::SECRET)?;
        }
        store.put(&dir.join("config-2.img"), &self.config_drive, Meta::SECRET)?;
        let mut brought = Vec::new();
        let mut listed = serde_json::Map::new();
        let closed = dir.join("secrets");
        // What another role or another setting had brought here is not to be brought any more: the listing goes first.
        let names = self.secret_names();
        if names.is_empty() {
            store.remove(&dir.join("secrets.yaml"))?;
        }
        store.remove_others(&closed, &names)?;
        if names.is_empty() {
            return Ok(brought);
        }
        store.dir(&closed, Meta::root(0o700))?;
        for (Secret { path, content }, name) in self.secrets.iter().zip(names) {
            let (file, mode) = (closed.join(&name), format!("{:04o}", Meta::SECRET.mode));
            store.put(&file, content.as_bytes(), Meta::SECRET)?;
            listed.insert(name, json!({ "path": path, "mode": mode }));
            brought.push(MadeSecret { file: store.display(&file), path: path.clone(), mode });
        }
        let header = "# Bring each file of secrets/ to its path on the machine, root's, with this mode.\n";
        store.put(&dir.join("secrets.yaml"), format!("{header}{}", yaml::print(&listed)).as_bytes(), Meta::FILE)?;
        Ok(brought)
    }
}

/// The same for a machine as long as it is one of this cluster: cloud-init takes a machine with another one for a new
/// machine, and gives it new host keys.
fn uuid(name: &NodeName, keys: &Keys) -> String {
    let digest = Sha256::of(format!("{}{name}", keys.cluster.certificate).as_bytes());
    let hex = digest.as_str();
    // RFC 9562, version 8: its own kind of digest.
    format!("{}-{}-8{}-8{}-{}", &hex[..8], &hex[8..12], &hex[13..16], &hex[17..20], &hex[20..32])
}

/// A secret that the text holds, in any of the forms in which the formats write text.
fn held(text: &str, keys: &Keys) -> Option<&'static str> {
    // A line of PEM is this long, and none of it is found by chance.
    const TELLING: usize = 32;
    let Keys { cluster, etcd, front_proxy, service_account, encryption, .. } = keys;
    let secrets = [
        ("ca-key.pem", Some(&cluster.key)),
        ("etcd-ca-key.pem", Some(&etcd.key)),
        ("front-proxy-ca-key.pem", front_proxy.as_ref().map(|ca| &ca.key)),
        ("sa-key.pem", Some(service_account)),
        ("encryption-key", encryption.as_ref()),
    ];
    let holds = |line: &str| text.contains(line) || text.contains(&formats::percent_encoded(line));
    for (name, secret) in secrets {
        let mut lines = secret.iter().flat_map(|secret| secret.lines());
        if lines.any(|line| line.len() >= TELLING && holds(line)) {
            return Some(name);
        }
    }
    holds("PRIVATE KEY-----").then_some("of a private key")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(dir: &std::path::Path) -> Keys {
        let wanted = crate::config::cluster::Pki { encrypt_secrets: true, ..Default::default() };
        let mut store = Store::open_closed(dir).expect("a directory");
        Keys::find(dir, &mut store, wanted, clock::now()).unwrap_or_else(|fault| panic!("{fault}"))
    }

    /// Whatever way a key got into the user-data: in a file of it, in each of the formats.
    #[test]
    fn a_key_in_user_data_is_found_in_every_format() {
        let dir = tempfile::tempdir().expect("a directory");
        let keys = keys(&dir.path().join("pki"));
        let agent = crate::config::cluster::Agent {
            url: "http://10.10.30.1/nodeagent".parse().expect("a URL"),
            sha256: Sha256::of(b"agent"),
        };
        let boot = |content: &str| {
            let file = formats::File { path: "/etc/x".to_owned(), mode: 0o600, content: content.to_owned() };
            let boot = Boot { header: "x".to_owned(), files: vec![file], agent: &agent };
            [boot.cloud_init(), boot.coreos(), boot.butane(), boot.ignition()]
        };
        for text in boot(&keys.cluster.certificate) {
            assert_eq!(held(&text, &keys), None, "a certificate is no secret");
        }
        let table = [
            ("ca-key.pem", keys.cluster.key.clone()),
            ("etcd-ca-key.pem", keys.etcd.key.clone()),
            ("front-proxy-ca-key.pem", keys.front_proxy.as_ref().expect("a CA").key.clone()),
            ("sa-key.pem", keys.service_account.clone()),
            ("encryption-key", keys.encryption.clone().expect("a key")),
        ];
        for (name, secret) in &table {
            for text in boot(secret) {
                assert_eq!(held(&text, &keys), Some(*name), "{text}");
            }
        }
        for text in boot("-----BEGIN EC PRIVATE KEY-----\nsomebody else's\n") {
            assert_eq!(held(&text, &keys), Some("of a private key"), "{text}");
        }
    }

    #[test]
    fn a_machine_keeps_its_uuid_and_shares_it_with_none() {
        let dir = tempfile::tempdir().expect("a directory");
        let (one, other) = (keys(&dir.path().join("one")), keys(&dir.path().join("other")));
        let [a, b] = ["a", "b"].map(|name| name.parse::<NodeName>().expect("a name"));
        let again = keys(&dir.path().join("one"));
        assert_eq!(uuid(&a, &one), uuid(&a, &again));
        assert_ne!(uuid(&a, &one), uuid(&b, &one));
        assert_ne!(uuid(&a, &one), uuid(&a, &other));
        assert_eq!(uuid(&a, &one).split('-').map(str::len).collect::<Vec<_>>(), [8, 4, 4, 4, 12]);
    }
}
