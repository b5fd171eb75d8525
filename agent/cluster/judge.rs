//! Which certificate requests are approved: those that a machine of the inventory makes for itself.
//!
//! | signer (`kubernetes.io/…`) | who asks | for what |
//! | --- | --- | --- |
//! | `kube-apiserver-client-kubelet` | the token whose Secret is annotated with the machine | the machine's first client certificate |
//! | `kube-apiserver-client-kubelet` | the machine | its next one |
//! | `kubelet-serving` | the machine | names and addresses of its entry in the inventory, and no others |
//! | `kube-apiserver-client` | the machine | `CN=system:kube-proxy` |
//!
//! The API server vouches for who asks; what is asked for is read from the request itself, and so that the signer cannot read
//! it differently ([`Asked::read_exactly`]).

use std::collections::BTreeMap;

use openssl::base64::decode_block;
use serde::Deserialize;

use crate::certs::asked::Asked;
use crate::certs::request::{NODE_USER, Usage, Wanted};
use crate::config::settings::{NodeEntry, Role};
use crate::config::values::NodeName;
use crate::engine::fault::quote;

/// A `CertificateSigningRequest`, as far as it matters here.
#[derive(Debug, Deserialize)]
pub struct Request {
    /// What it is called.
    pub metadata: Metadata,
    /// What is asked for, and by whom.
    pub spec: Spec,
    #[serde(default)]
    status: Status,
}

/// What an object is called.
#[derive(Debug, Deserialize)]
pub struct Metadata {
    /// Its name.
    pub name: String,
}

/// What is asked for. The API server fills in by whom, and lets nobody change it afterwards.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Spec {
    /// PKCS#10 in PEM, in base64.
    request: String,
    signer_name: String,
    #[serde(default)]
    usages: Vec<String>,
    /// Who asked.
    #[serde(default)]
    pub username: String,
    #[serde(default)]
    groups: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
struct Status {
    #[serde(default)]
    conditions: Vec<serde_json::Value>,
    #[serde(default)]
    certificate: Option<String>,
}

/// What is approved, in words for people.
pub type Approved = String;

/// Why something is left to a person.
pub type Left = String;

impl Request {
    /// Whether nobody has decided yet.
    pub fn is_open(&self) -> bool {
        self.status.conditions.is_empty() && self.status.certificate.as_deref().unwrap_or_default().is_empty()
    }

    /// The id of the bootstrap token with which it was asked.
    pub fn token(&self) -> Option<&str> {
        let id = self.spec.username.strip_prefix("system:bootstrap:")?;
        self.is_of("system:bootstrappers").then_some(id)
    }

    /// The node that asked, if one did.
    fn node(&self) -> Option<NodeName> {
        let name = self.spec.username.strip_prefix(NODE_USER)?;
        self.is_of("system:nodes").then(|| name.parse().ok())?
    }

    fn is_of(&self, group: &str) -> bool {
        self.spec.groups.iter().any(|found| found == group)
    }

    /// Whether the certificate would be good for this use and nothing else, as the signers want it to be said.
    fn is_for(&self, usage: Usage) -> bool {
        let mut usages = self.spec.usages.clone();
        // Means nothing to a key that is not RSA, and up to 1.26 has to be there all the same.
        usages.retain(|found| found != "key encipherment");
        usages.sort_unstable();
        let mut wanted = [usage.to_string(), "digital signature".to_owned()];
        wanted.sort_unstable();
        usages == wanted
    }

    /// Decides on it. `owner` is the machine that the Secret of its token is annotated with.
    pub fn judge(&self, inventory: &BTreeMap<NodeName, NodeEntry>, owner: Option<&str>) -> Result<Approved, Left> {
        let signer = self.spec.signer_name.strip_prefix("kubernetes.io/").unwrap_or_default();
        let usage = match signer {
            "kube-apiserver-client-kubelet" | "kube-apiserver-client" => Usage::Client,
            "kubelet-serving" => Usage::Server,
            _ => return Err(format!("no node needs a certificate of the signer {}", quote(&self.spec.signer_name))),
        };
        let asker = self.asker(inventory, owner)?;
        let entry = &inventory[&asker];
        let pem = decode_block(&self.spec.request).map_err(|_| "it is not base64".to_owned())?;
        let wanted = Asked::read_exactly(&pem).and_then(|asked| asked.wanted_with(&entry.names));
        let wanted = wanted.map_err(|error| quote(&error.to_string()))?;
        if wanted.usages != [usage] || !self.is_for(usage) {
            return Err(format!("it is not for {usage} alone"));
        }
        let is_asker = wanted.common_name == format!("{NODE_USER}{asker}");
        match (signer, self.token()) {
            ("kube-apiserver-client-kubelet", Some(id)) if is_asker => {
                Ok(format!("the first client certificate of {asker}, for whose machine the token {id} is"))
            }
            ("kube-apiserver-client-kubelet", None) if is_asker => {
                Ok(format!("the next client certificate of {asker}"))
            }
            ("kubelet-serving", None) if is_asker => serving(&wanted, &asker, entry),
            ("kube-apiserver-client", None) if wanted.common_name == "system:kube-proxy" => {
                Ok(format!("a client certificate for the kube-proxy of {asker}"))
            }
            _ => Err(format!("{} is not what {} may ask for", wanted.subject(), quote(&self.spec.username))),
        }
    }

    /// The machine of the inventory that asks, by itself or with its token.
    fn asker(&self, inventory: &BTreeMap<NodeName, NodeEntry>, owner: Option<&str>) -> Result<NodeName, Left> {
        let who = quote(&self.spec.username);
        let name = match (self.node(), self.token()) {
            (Some(node), _) => node,
            (None, Some(id)) => owner
                .and_then(|owner| owner.parse::<NodeName>().ok())
                .ok_or_else(|| format!("nothing says for which machine the token {} is", quote(id)))?,
            (None, None) => return Err(format!("{who} is no node, and no bootstrap token")),
        };
        let entry = inventory.get(&name).ok_or_else(|| format!("{name} is not in cluster.nodes"))?;
        match entry.role {
            Role::Etcd => Err(format!("{name} is an etcd node: it runs no kubelet")),
            Role::Controller if self.node().is_none() => {
                Err(format!("{name} is a controller: no token makes a machine one"))
            }
            _ => Ok(name),
        }
    }
}

/// A serving certificate's addresses must be the machine's. Its names were compared when the request was read.
fn serving(wanted: &Wanted, node: &NodeName, entry: &NodeEntry) -> Result<Approved, Left> {
    match wanted.ips.iter().find(|ip| **ip != entry.address) {
        Some(other) => Err(format!("{other} is not the address of {node}, which is {}", entry.address)),
        None => Ok(format!("a serving certificate of {node} for {}", wanted.names().join(", "))),
    }
}

#[cfg(test)]
mod tests;
