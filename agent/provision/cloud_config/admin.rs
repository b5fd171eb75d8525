//! The kubeconfig of the cluster's administrator, with its own pair in it.

use std::time::SystemTime;

use openssl::base64::{decode_block, encode_block};
use openssl::x509::X509;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::keys::Ca;
use crate::certs::check::check;
use crate::certs::issue::{IssueError, LIFETIME};
use crate::certs::key::{Key, KeyError};
use crate::certs::request::{RequestError, Usage, Wanted, request};
use crate::config::Source;
use crate::config::cluster::Cluster;
use crate::config::manifests::manifests;
use crate::config::settings::KeyKind;
use crate::engine::fault::Explain;

/// The administrator: kubeadm's name for it, in the group that may do everything.
const USER: &str = "kubernetes-admin";
const GROUP: &str = "system:masters";

/// The administrator's pair could not be made.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// OpenSSL could not make a key.
    #[error("make the administrator's key")]
    Key(#[from] KeyError),
    /// The request could not be made.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// OpenSSL could not sign it.
    #[error(transparent)]
    Issue(#[from] IssueError),
}

impl Explain for AdminError {}

/// The kubeconfig. The pair in the one that is `there` stays in use as long as a new one would be no better.
pub(super) fn kubeconfig(
    cluster: &Cluster,
    ca: &Ca,
    there: Option<&[u8]>,
    now: SystemTime,
) -> Result<Zeroizing<String>, AdminError> {
    let wanted = Wanted {
        common_name: USER.to_owned(),
        organization: Some(GROUP.to_owned()),
        dns: Vec::new(),
        ips: Vec::new(),
        usages: vec![Usage::Client],
        key: cluster.pki.key.unwrap_or_default(),
    };
    let good = |(certificate, key): &Pair| {
        let both = Zeroizing::new([certificate.as_slice(), key.as_slice()].concat());
        check(Some(&both), &wanted, &ca.authority, now).is_empty()
    };
    let (certificate, key) = match there.and_then(pair_of).filter(good) {
        Some(pair) => pair,
        None => make(&wanted, ca, now)?,
    };
    let secret = Zeroizing::new(encode_block(&key));
    let context = format!("{USER}@{}", cluster.name);
    let config = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{
            "name": cluster.name,
            "cluster": {
                "server": cluster.api_server,
                "certificate-authority-data": encode_block(ca.certificate.as_bytes()),
            },
        }],
        "users": [{
            "name": USER,
            "user": { "client-certificate-data": encode_block(&certificate), "client-key-data": secret.as_str() },
        }],
        "contexts": [{ "name": context, "context": { "cluster": cluster.name, "user": USER } }],
        "current-context": context,
    });
    // JSON is YAML, and kubectl reads either.
    Ok(Zeroizing::new(format!("{config:#}\n")))
}

/// Whether a kubeconfig is that of a cluster with another CA: another key, because a certificate may be renewed. An error
/// says why that cannot be told.
pub(super) fn is_of_another(kubeconfig: &[u8], ca: &Ca) -> Result<bool, &'static str> {
    let config = read(kubeconfig).ok_or("it is no kubeconfig")?;
    let clusters = config["clusters"].as_array().into_iter().flatten();
    let data = clusters.filter_map(|cluster| cluster["cluster"]["certificate-authority-data"].as_str());
    // kubectl sorts them by their names, others' among them.
    let embedded: Vec<X509> =
        data.filter_map(|data| X509::stack_from_pem(&decode_block(data).ok()?).ok()).flatten().collect();
    if embedded.is_empty() {
        return Err("it embeds no CA");
    }
    let key = Key::from_pem(ca.key.as_bytes()).map_err(|_| "the CA's key cannot be read")?;
    Ok(!embedded.iter().any(|certificate| key.is_of(certificate)))
}

/// What a kubeconfig says. Ours is JSON; kubectl makes YAML of it where it sets something in there.
fn read(kubeconfig: &[u8]) -> Option<Value> {
    let source = Source { name: "admin.conf".to_owned(), text: kubeconfig.to_vec() };
    Some(manifests(&source).ok()?.into_iter().next()?.object)
}

/// A certificate and its key, in PEM.
type Pair = (Vec<u8>, Zeroizing<Vec<u8>>);

fn make(wanted: &Wanted, ca: &Ca, now: SystemTime) -> Result<Pair, AdminError> {
    let kind: KeyKind = wanted.key;
    let key = Key::generate(kind)?;
    let certificate = ca.issuer.sign(request(wanted, &key)?.as_bytes(), wanted, now, LIFETIME)?;
    Ok((certificate, key.to_pem()?))
}

/// The pair in a kubeconfig.
fn pair_of(kubeconfig: &[u8]) -> Option<Pair> {
    let config = read(kubeconfig)?;
    let user = &config["users"].as_array()?.iter().find(|user| user["name"] == USER)?["user"];
    let part = |name: &str| decode_block(user[name].as_str()?).ok();
    Some((part("client-certificate-data")?, Zeroizing::new(part("client-key-data")?)))
}
