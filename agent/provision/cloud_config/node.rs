//! What one machine gets: at its first boot, and beside it.

use zeroize::Zeroizing;

use super::formats::File;
use super::keys::{Keys, OtherCa};
use super::yaml;
use crate::cluster::tokens;
use crate::config::cluster::NodeConfig;
use crate::config::kept::{BootstrapToken, BootstrapTokens};
use crate::config::settings::{CaSettings, CertsSettings, Role, Signer};
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
    for Held { path, certificate, .. } in authorities(config, keys) {
        files.push(file(path.as_str(), 0o644, certificate));
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
    for Held { signer, key, .. } in authorities(config, keys) {
        if let (Signer::Local { key: path, .. }, Some(key)) = (signer, key) {
            secrets.push(secret(path, key));
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

/// A CA of a machine's.
struct Held<'a> {
    /// Where the machine has its certificate.
    path: &'a RootPath,
    /// Who signs for it.
    signer: &'a Signer,
    certificate: &'a str,
    key: Option<&'a str>,
}

/// The CAs of a machine.
fn authorities<'a>(config: &'a NodeConfig, keys: &'a Keys) -> Vec<Held<'a>> {
    let CertsSettings { ca, signer, etcd, front_proxy, .. } = &config.settings.certs;
    let cluster = Held { path: ca, signer, certificate: &keys.cluster.certificate, key: Some(&keys.cluster.key) };
    let other = |settings: &'a CaSettings, ca: &'a OtherCa| Held {
        path: &settings.ca,
        signer: &settings.signer,
        certificate: &ca.certificate,
        key: ca.key.as_ref().map(|key| key.as_str()),
    };
    let mut all = vec![cluster];
    if matches!(config.settings.role, Role::Controller | Role::Etcd) {
        all.push(other(etcd, &keys.etcd));
    }
    let front_proxy = front_proxy.as_ref().zip(keys.front_proxy.as_ref());
    all.extend(front_proxy.map(|(settings, ca)| other(settings, ca)));
    all
}

/// The document of all tokens.
pub(super) fn tokens_yaml(tokens: &BootstrapTokens, header: &str) -> Zeroizing<String> {
    let document = serde_json::to_value(tokens).unwrap_or_default();
    let empty = serde_json::Map::new();
    Zeroizing::new(format!("# {header}\n{}", yaml::print(document.as_object().unwrap_or(&empty))))
}
