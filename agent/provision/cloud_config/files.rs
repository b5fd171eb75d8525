//! All files of one machine, and whether they can be given away.

use serde_json::json;
use zeroize::Zeroizing;

use super::formats::{self, Boot};
use super::keys::Keys;
use super::node::{self, Secret};
use super::store::Store;
use super::{CloudConfigError, MadeSecret, image, yaml};
use crate::config::cluster::{Cluster, NodeConfig};
use crate::config::kept;
use crate::config::settings::Proxy;
use crate::config::values::{NodeName, RootPath, Sha256};
use crate::engine::change::Meta;
use crate::engine::fault::Fault;

/// The most that metadata services take as user-data: EC2's 16 KiB, and less than any other's.
pub(super) const MOST: usize = 16 << 10;

/// The names in a `secrets.yaml` of ours: its keys at the top, each in a line of its own.
fn listed_in(listing: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(listing);
    let keys = text.lines().filter(|line| !line.starts_with([' ', '#'])).filter_map(|line| line.split_once(':'));
    keys.map(|(name, _)| name.trim_matches('"').to_owned()).filter(|name| !name.contains('/')).collect()
}

/// All files of one machine.
pub(super) struct Files {
    node_yaml: String,
    user_data: [(&'static str, Zeroizing<String>); 4],
    config_drive: Zeroizing<Vec<u8>>,
    secrets: Vec<Secret>,
    /// Whether the configuration holds the password of a proxy.
    proxy_login: bool,
}

impl Files {
    pub fn new(
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
    pub fn judge(&self, name: &NodeName, keys: &Keys, any_size: bool) -> Result<(), CloudConfigError> {
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

    pub fn write(&self, store: &mut Store, dir: &RootPath) -> Result<Vec<MadeSecret>, Fault> {
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
        // What another role or another setting had brought here is not to be brought any more. What was never listed is
        // somebody else's.
        let names = self.secret_names();
        let listing = dir.join("secrets.yaml");
        let before = store.read(&listing)?.map(|text| listed_in(&text)).unwrap_or_default();
        let gone = before.iter().filter(|name| !names.contains(name));
        for file in gone.filter_map(|name| closed.child(name)) {
            store.remove(&file)?;
        }
        if names.is_empty() {
            store.remove(&listing)?;
        }
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
        ("etcd-ca-key.pem", etcd.key.as_ref()),
        ("front-proxy-ca-key.pem", front_proxy.as_ref().and_then(|ca| ca.key.as_ref())),
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
    use crate::config::settings::KeyKind;
    use crate::host::clock;
    use crate::provision::cloud_config::keys::{Holder, Wanted};

    fn keys(dir: &std::path::Path) -> Keys {
        let wanted = Wanted {
            key: KeyKind::default(),
            etcd_key: Holder::Machines,
            front_proxy_key: Some(Holder::Machines),
            encryption: true,
        };
        let mut store = Store::open_closed(dir).expect("a directory");
        Keys::find(dir, &mut store, &wanted, clock::now()).unwrap_or_else(|fault| panic!("{fault}"))
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
            ("etcd-ca-key.pem", keys.etcd.key.clone().expect("a key")),
            ("front-proxy-ca-key.pem", keys.front_proxy.as_ref().and_then(|ca| ca.key.clone()).expect("a key")),
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

    #[test]
    fn a_listing_is_read_back() {
        let mut listed = serde_json::Map::new();
        for name in ["ca-key.pem", "on", "etc-kubernetes-pki-ca-key.pem"] {
            listed.insert(name.to_owned(), json!({ "path": "/etc/kubernetes/pki/ca-key.pem", "mode": "0600" }));
        }
        let text = format!("# Bring them: all.\n{}", yaml::print(&listed));
        assert_eq!(listed_in(text.as_bytes()), listed.keys().cloned().collect::<Vec<_>>(), "{text}");
    }
}
