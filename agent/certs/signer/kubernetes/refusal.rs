//! Why the cluster gave no certificate, and who can do what about it.

use std::time::Duration;

use openssl::error::ErrorStack;

use super::{Kubernetes, Proof};
use crate::certs::key::KeyError;
use crate::config::values::{HttpUrl, RootPath};
use crate::engine::fault::{Class, Explain, quote};
use crate::engine::resource::CannotTell;
use crate::host::http::HttpError;

/// The cluster did not sign. Never holds the secret part of a token.
#[derive(Debug, thiserror::Error)]
pub enum KubernetesError {
    /// There is no token.
    #[error("read the bootstrap token {path}: there is no such file")]
    TokenAbsent {
        /// Where it should be.
        path: RootPath,
    },
    /// The token is no secret any more.
    #[error("read the bootstrap token {path}: others may read it (mode {mode:04o})")]
    TokenExposed {
        /// The file.
        path: RootPath,
        /// Its permission bits.
        mode: u32,
    },
    /// The file holds something else.
    #[error("read the bootstrap token {path}: it is not of the form abcdef.0123456789abcdef")]
    TokenMalformed {
        /// The file.
        path: RootPath,
    },
    /// Something on this machine could not be read.
    #[error(transparent)]
    Unseen(#[from] CannotTell),
    /// The node has no certificate yet with which it could ask for this one.
    #[error("ask as this node: its client pair {path} is not usable: {}", flaws.join("; "))]
    NoClient {
        /// The pair.
        path: RootPath,
        /// All that is wrong with it.
        flaws: Vec<String>,
    },
    /// The node's own key cannot be used.
    #[error("ask as this node with {path}")]
    Key {
        /// The pair.
        path: RootPath,
        /// OpenSSL's reason.
        source: KeyError,
    },
    /// OpenSSL could not.
    #[error("put together a certificate signing request")]
    Crypto(#[from] ErrorStack),
    /// There was no answer, or none of an API server's.
    #[error("ask {url} for a certificate")]
    Unanswered {
        /// Who was asked.
        url: HttpUrl,
        /// What happened.
        source: Box<HttpError>,
    },
    /// The API server does not know who asks.
    #[error("{url} does not accept {who}")]
    Unknown {
        /// Who refused.
        url: HttpUrl,
        /// The token or the certificate.
        who: String,
        /// The token's file, if it was a token.
        token: Option<RootPath>,
    },
    /// Who asks may not.
    #[error("{url} forbids it to {who}: {message}")]
    Forbidden {
        /// Who refused.
        url: HttpUrl,
        /// The token or the certificate.
        who: String,
        /// The API server's words.
        message: String,
        /// Whether it was a token.
        token: bool,
    },
    /// The API server has no such API, or is none.
    #[error("{url} has no certificates.k8s.io/v1")]
    NoApi {
        /// Who was asked.
        url: HttpUrl,
    },
    /// The API server takes no such request.
    #[error("{url} refuses the certificate signing request: {message}")]
    Refused {
        /// Who refused.
        url: HttpUrl,
        /// The API server's words.
        message: String,
    },
    /// The answer is not an API server's.
    #[error("understand the answer of {url}: {why}")]
    Unintelligible {
        /// Who answered.
        url: HttpUrl,
        /// What is wrong with it.
        why: String,
    },
    /// Somebody is still to act.
    #[error("{}", waiting(request, signer, *approved))]
    Waiting {
        /// The request.
        request: String,
        /// The signer.
        signer: &'static str,
        /// Whether it is only the signer.
        approved: bool,
    },
    /// Nobody did in time.
    #[error("wait {} s for a certificate from {url}", within.as_secs())]
    Late {
        /// Where it was asked for.
        url: HttpUrl,
        /// The deadline.
        within: Duration,
        /// How it stood last.
        #[source]
        last: Box<KubernetesError>,
    },
    /// Somebody removed the request while it was waited for.
    #[error("the certificate signing request {request} was removed from {url}")]
    Removed {
        /// Where it was asked for.
        url: HttpUrl,
        /// The request.
        request: String,
    },
    /// An approver said no.
    #[error("the certificate signing request {request} was denied at {url}: {why}")]
    Denied {
        /// Where it was asked for.
        url: HttpUrl,
        /// The request.
        request: String,
        /// The approver's words.
        why: String,
    },
    /// The signer could not.
    #[error("{signer} could not sign the certificate signing request {request} at {url}: {why}")]
    Failed {
        /// Where it was asked for.
        url: HttpUrl,
        /// The request.
        request: String,
        /// The signer.
        signer: &'static str,
        /// The signer's words.
        why: String,
    },
}

fn waiting(request: &str, signer: &str, approved: bool) -> String {
    if approved {
        format!("the certificate signing request {request} is approved, and {signer} has not signed it yet")
    } else {
        format!(
            "the certificate signing request {request} waits for an approver: kubectl certificate approve {request}"
        )
    }
}

impl Explain for KubernetesError {
    fn class(&self) -> Class {
        match self {
            Self::Unanswered { source, .. } => source.class(),
            Self::Late { .. } | Self::Waiting { .. } => Class::Deadline,
            _ => Class::Failed,
        }
    }

    fn advice(&self) -> Option<String> {
        const ANOTHER_TOKEN: &str = "make another one: nodeagent cloud-config again on the operator's machine, which also wants \
                                     the controllers' bootstrap-tokens.yaml brought to them; in kubeadm's clusters kubeadm token \
                                     create";
        Some(match self {
            Self::TokenAbsent { path } | Self::TokenMalformed { path } => {
                format!("{ANOTHER_TOKEN}; put it into {path}, mode 0600")
            }
            Self::TokenExposed { path, .. } => {
                format!(
                    "chmod 0600 {path}; if somebody else may have read it, revoke it (kubectl delete secret \
                     --namespace=kube-system bootstrap-token-ID; the ID is what stands before the dot), and give every \
                     machine that is still to join a new one: nodeagent cloud-config --new-tokens"
                )
            }
            Self::Unknown { token: Some(path), .. } => {
                format!("it may have expired; {ANOTHER_TOKEN}; put it into {path}")
            }
            Self::Unknown { token: None, .. } => {
                "check that the API server's --client-ca-file is pki.ca; to join again by token, remove that pair".to_owned()
            }
            Self::Forbidden { token: true, .. } => {
                "let bootstrap tokens ask: kubectl create clusterrolebinding nodeagent-bootstrap \
                 --clusterrole=system:node-bootstrapper --group=system:bootstrappers"
                    .to_owned()
            }
            Self::Forbidden { token: false, .. } => {
                "let nodes ask: start the API server with --authorization-mode=Node,RBAC".to_owned()
            }
            Self::NoApi { .. } => {
                "check that cluster.apiServer is an API server of Kubernetes 1.19 or newer".to_owned()
            }
            Self::Unintelligible { .. } => "check that cluster.apiServer is an API server's base URL".to_owned(),
            Self::Late { last, .. } => return last.advice(),
            Self::Waiting { approved: false, .. } => {
                "kubectl get csr lists all that wait; the next run goes on with this one".to_owned()
            }
            Self::Waiting { approved: true, .. } => {
                "check that kube-controller-manager runs with --cluster-signing-cert-file and --cluster-signing-key-file; \
                 the next run goes on with this request"
                    .to_owned()
            }
            Self::Denied { request, .. } | Self::Failed { request, .. } => {
                format!("once that is mended: kubectl delete csr {request}, and the next run asks again")
            }
            Self::Removed { .. } => "the next run asks again".to_owned(),
            Self::Unanswered { source, .. } => return source.advice(),
            Self::Unseen(cannot) => return cannot.advice.clone(),
            Self::Key { source, .. } => return source.advice(),
            Self::NoClient { .. } | Self::Crypto(_) | Self::Refused { .. } => return None,
        })
    }
}

impl Kubernetes {
    /// What a request that did not succeed means.
    pub(super) fn refusal(&self, error: HttpError, proof: &Proof) -> KubernetesError {
        let url = self.url.clone();
        let message = || {
            let said = error.json().and_then(|status| Some(status["message"].as_str()?.to_owned()));
            quote(&said.unwrap_or_else(|| error.to_string()))
        };
        let (who, token) = match proof {
            Proof::Token(token) => {
                (format!("the bootstrap token {} in {}", token.id(), self.token_file), Some(self.token_file.clone()))
            }
            Proof::Pair { .. } => (format!("the client certificate {}", self.client), None),
        };
        match &error {
            HttpError::Status { status: 401, .. } => KubernetesError::Unknown { url, who, token },
            HttpError::Status { status: 403, .. } => {
                KubernetesError::Forbidden { url, who, message: message(), token: token.is_some() }
            }
            HttpError::Status { status: 404, .. } => KubernetesError::NoApi { url },
            HttpError::Status { status: 400..500, .. } => KubernetesError::Refused { url, message: message() },
            _ => KubernetesError::Unanswered { url, source: Box::new(error) },
        }
    }
}
