//! What one machine gets: at its first boot, and beside it.

use zeroize::Zeroizing;

use super::formats::File;
use super::keys::{Ca, Keys};
use super::yaml;
use crate::cluster::tokens;
use crate::config::cluster::NodeConfig;
use crate::config::kept::{BootstrapToken, BootstrapTokens};
use crate::config::settings::{CertsSettings, Role, Signer};
use crate::config::values::RootPath;

/// Where a machine's configuration is.
const NODE_YAML: &str = "/etc/nodeagent/node.yaml";

/// What no user-data may hold: it is brought to the machine in another way.
pub(super) struct Secret {
    /// Where it is on the machine.
    pub path: RootPath,
    /// Its content.
    pub content: Zeroizing<String>,
}

/// A machine's configuration as text.
pub(super) fn node_yaml(config: &NodeConfig, header: &str) -> String {
    let empty = serde_json::Map::new();
    format!("# {header}\n{}", yaml::print(config.document.as_object().unwrap_or(&empty)))
}

/// What the machine's user-data holds: its configuration, the certificates of its CAs, and its own token.
pub(super) fn files(config: &NodeConfig, text: &str, keys: &Keys, token: Option<&BootstrapToken>) -> Vec<File> {
    let file = |path: &str, mode, content: &str| File { path: path.to_owned(), mode, content: content.to_owned() };
    let mut files = vec![file(NODE_YAML, 0o644, text)];
    for (path, _, ca) in authorities(config, keys) {
        files.push(file(path.as_str(), 0o644, &ca.certificate));
    }
    if let (Signer::Kubernetes { token_file, .. }, Some(token)) = (&config.settings.certs.signer, token) {
        files.push(file(token_file.as_str(), 0o600, &format!("{}\n", token.token.as_str())));
    }
    files
}

/// What is brought to the machine by hand: the keys of the CAs that it signs with, and what controllers share.
pub(super) fn secrets(config: &NodeConfig, keys: &Keys, all_tokens: &str) -> Vec<Secret> {
    let secret =
        |path: &RootPath, content: &str| Secret { path: path.clone(), content: Zeroizing::new(content.to_owned()) };
    let mut secrets = Vec::new();
    for (_, signer, ca) in authorities(config, keys) {
        if let Signer::Local { key, .. } = signer {
            secrets.push(secret(key, &ca.key));
        }
    }
    if config.settings.role == Role::Controller {
        let CertsSettings { service_account_key, encryption_key, .. } = &config.settings.certs;
        secrets.push(secret(service_account_key, &keys.service_account));
        if let (Some(path), Some(key)) = (encryption_key, &keys.encryption) {
            secrets.push(secret(path, key));
        }
        secrets.push(secret(&RootPath::literal(tokens::FILE), all_tokens));
    }
    secrets
}

/// The CAs of a machine: where it has the certificate of each, and who signs.
fn authorities<'a>(config: &'a NodeConfig, keys: &'a Keys) -> Vec<(&'a RootPath, &'a Signer, &'a Ca)> {
    let CertsSettings { ca, signer, etcd, front_proxy, .. } = &config.settings.certs;
    let mut all = vec![(ca, signer, &keys.cluster)];
    if matches!(config.settings.role, Role::Controller | Role::Etcd) {
        all.push((&etcd.ca, &etcd.signer, &keys.etcd));
    }
    let front_proxy = front_proxy.as_ref().zip(keys.front_proxy.as_ref());
    all.extend(front_proxy.map(|(settings, key)| (&settings.ca, &settings.signer, key)));
    all
}

/// The document of all tokens.
pub(super) fn tokens_yaml(tokens: &BootstrapTokens, header: &str) -> Zeroizing<String> {
    let document = serde_json::to_value(tokens).unwrap_or_default();
    let empty = serde_json::Map::new();
    Zeroizing::new(format!("# {header}\n{}", yaml::print(document.as_object().unwrap_or(&empty))))
}
