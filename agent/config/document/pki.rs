//! The part `pki`.

use std::collections::BTreeMap;
use std::net::IpAddr;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::config::settings::{KeyKind, Usage};
use crate::config::values::{CertName, CommonName, DnsDomain, HttpUrl, KeyHash, RootPath, Span, UnitName};

/// Keys, certificates and who signs them.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Pki {
    /// The file of the cluster's CA certificate.
    pub ca: RootPath,
    /// The directory of keys and certificates. Default: /etc/kubernetes/pki.
    pub dir: Option<RootPath>,
    /// What kind of keys are made. Default: ecdsa-p256.
    pub key: Option<KeyKind>,
    /// Who signs the node's certificates: exactly one signer.
    pub signer: Signer,
    /// The CA of the cluster's store. Default: the cluster's.
    pub etcd: Option<Authority>,
    /// The CA of the API server's aggregation layer. Default: none, and no such layer.
    pub front_proxy: Option<Authority>,
    /// The file of the key that signs service accounts' tokens, the same on every controller; its public key is beside it.
    /// Default: sa-key.pem in `dir`.
    pub service_account_key: Option<RootPath>,
    /// The file of the key (32 bytes in base64) that Secrets are encrypted with at rest, the same on every controller.
    pub encryption_key: Option<RootPath>,
    /// Further pairs, by the name of their file in `dir`.
    #[serde(default)]
    #[schemars(extend("propertyNames" = { "format": "cert-name" }))]
    pub extra: BTreeMap<CertName, ExtraCertificate>,
}

/// A CA besides the cluster's.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Authority {
    /// The file of its certificate.
    pub ca: RootPath,
    /// Who signs for it: exactly one signer.
    pub signer: Signer,
}

/// A pair that no role needs.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ExtraCertificate {
    /// Whose it is: the user's name to Kubernetes.
    pub common_name: CommonName,
    /// The user's group to Kubernetes.
    pub organization: Option<CommonName>,
    /// The DNS names that it is for.
    #[serde(default)]
    pub dns: Vec<DnsDomain>,
    /// The addresses that it is for.
    #[serde(default)]
    pub addresses: Vec<IpAddr>,
    /// What it is good for.
    pub usages: Vec<Usage>,
    /// The unit to restart when it is replaced.
    pub restart: Option<UnitName>,
}

/// Who signs the node's certificates: exactly one signer.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("minProperties" = 1, "maxProperties" = 1))]
pub struct Signer {
    /// The cluster's own signers, asked by way of its API server: what a worker should use.
    pub kubernetes: Option<KubernetesSigner>,
    /// The CA's own key, on this machine.
    pub local: Option<Local>,
    /// A cfssl server's authenticated API.
    pub cfssl: Option<Cfssl>,
    /// A person, who carries requests to the CA and certificates back.
    pub offline: Option<Offline>,
}

/// The cluster's own signers, asked by way of its API server.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct KubernetesSigner {
    /// The file that holds the bootstrap token, such as abcdef.0123456789abcdef; root alone may read it.
    pub token_file: RootPath,
    /// The hash of the CA's key (sha256:…, as `kubeadm token create --print-join-command` shows it), if the CA's certificate
    /// is not on the machine: it is then taken from the cluster's cluster-info and written to `pki.ca`.
    pub ca_hash: Option<KeyHash>,
    /// How long an approval is waited for; the next run goes on with the same request. Default: 5m.
    pub deadline: Option<Span>,
}

/// The CA's own key, on this machine.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Local {
    /// The file that holds the CA's private key (PEM).
    pub key: RootPath,
    /// Whether the key is destroyed here once the certificates stand. Default: false.
    pub remove_after_use: Option<bool>,
}

/// A cfssl server's authenticated API.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Cfssl {
    /// The server's https URL.
    pub url: HttpUrl,
    /// The file that holds the authentication key in hexadecimal digits.
    pub auth_key_file: RootPath,
    /// The signing profile. Default: client.
    pub profile: Option<String>,
    /// Must be true on a worker, where such a key is worth as much as a cluster administrator's.
    #[serde(default)]
    pub accept_admin_equivalent_key: bool,
}

/// A person, who carries requests to the CA and certificates back (`nodeagent certs csr`, `nodeagent certs sign`).
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Offline {
    /// The directory of keys and requests, and of the certificates that are brought.
    pub dir: RootPath,
}
