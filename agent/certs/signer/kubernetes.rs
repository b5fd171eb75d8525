//! The signer `kubernetes`: the cluster's own, by way of its API server (`certificates.k8s.io/v1`, Kubernetes 1.19).
//!
//! The bootstrap token is good for one thing, the kubelet's client certificate; with that the node asks for all others,
//! and later for its successor. A request is an object that somebody must approve. Until then its key stays in the scratch
//! directory, and since its name follows from the key and from what it asks for, the next run finds the request that is
//! there already: one per certificate, however often the agent is started, and approved whenever somebody gets to it.

mod object;
mod refusal;
mod token;

use std::time::Duration;

use openssl::x509::{X509, X509Req};
use tokio::time::Instant;
use zeroize::Zeroizing;

pub use self::object::State;
pub use self::refusal::KubernetesError;
pub use self::token::Token;
use super::{KeyFrom, Order, Profile, Signer, Signing};
use crate::certs::check::check;
use crate::certs::key::Key;
use crate::certs::request::Wanted;
use crate::config::values::{HttpUrl, RootPath, Sha256, Version};
use crate::engine::resource::{Seen, Thing};
use crate::host::http::HttpError;
use crate::host::http::cluster::{Login, Server};
use crate::host::peers::Peers;
use crate::host::retry::{GaveUp, News, Policy, Tried, retry};
use crate::journal::Event;

/// Where certificate signing requests are.
const REQUESTS: &str = "/apis/certificates.k8s.io/v1/certificatesigningrequests";

/// How often the API server is asked. Where the controller manager approves, an answer is there within a second.
const PAUSES: Policy =
    Policy { first: Duration::from_millis(100), cap: Duration::from_secs(5), growth: 2.0, jitter: 0.5 };

/// How long a token may be unknown, or good for nothing: a cluster that has just begun learns of its tokens, and of what
/// they may do, some seconds after its API server answers.
const YOUNG: Duration = Duration::from_secs(20);

/// From which pause on people are told that somebody is waited for.
const WORTH_TELLING: Duration = Duration::from_secs(1);

/// The cluster's signers.
pub struct Kubernetes {
    /// The API server.
    pub url: HttpUrl,
    /// Which of the signers.
    pub profile: Profile,
    /// What the request is called, before what makes it unique: the node and the pair.
    pub label: String,
    /// The file that holds the bootstrap token.
    pub token_file: RootPath,
    /// This node's client pair.
    pub client: RootPath,
    /// What that must say.
    pub node: Wanted,
    /// The release that this node runs: the API server's is the same or a newer one.
    pub release: Version,
    /// How long an approval is waited for.
    pub deadline: Duration,
}

/// As whom the API server is asked.
enum Proof {
    Token(Token),
    Pair { certificate: Vec<u8>, key: Zeroizing<Vec<u8>> },
}

impl Proof {
    fn login(&self) -> Login<'_> {
        match self {
            Self::Token(token) => Login::Bearer(token.text()),
            Self::Pair { certificate, key } => Login::Pair { certificate, key },
        }
    }
}

impl Signer for Kubernetes {
    fn describe(&self) -> String {
        format!("{} at {}", self.name(), self.url)
    }

    /// The others wait for the client pair by reading it.
    fn reads(&self) -> Vec<Thing> {
        vec![Thing::File(if self.profile == Profile::Node { self.token_file.clone() } else { self.client.clone() })]
    }

    fn advice(&self) -> String {
        format!(
            "check that pki.ca is the CA of kube-controller-manager's --cluster-signing-cert-file, and that {} changes \
             nothing in what it signs",
            self.name()
        )
    }

    fn key(&self) -> KeyFrom {
        KeyFrom::Scratch
    }

    fn sign<'a>(&'a self, order: Order<'a>, seen: &'a Seen, peers: &'a Peers) -> Signing<'a> {
        Box::pin(async move {
            let proof = self.proof(&order, seen)?;
            let server = peers.http.server(&self.url, order.ca.pem(), proof.login());
            let server = server.map_err(|error| self.refusal(error, &proof))?;
            let request = self.request_name(&order)?;
            self.submit(&server, &request, &order, &proof).await?;
            Ok(self.answer(&server, &request, &proof, peers).await?)
        })
    }
}

impl Kubernetes {
    /// The signer's name in the API.
    fn name(&self) -> &'static str {
        match self.profile {
            Profile::Node => "kubernetes.io/kube-apiserver-client-kubelet",
            Profile::Serving => "kubernetes.io/kubelet-serving",
            // The configuration asks none of these signers for more.
            Profile::Client | Profile::Peer => "kubernetes.io/kube-apiserver-client",
        }
    }

    /// Only for its first certificate has a node nothing better than the token.
    fn proof(&self, order: &Order<'_>, seen: &Seen) -> Result<Proof, KubernetesError> {
        let pem = seen.bytes(&self.client)?;
        let mut flaws = check(pem, &self.node, order.ca, seen.now()?);
        flaws.retain(|flaw| !flaw.leaves_it_working());
        match pem.filter(|_| flaws.is_empty()) {
            Some(pem) => {
                let certificate = X509::from_pem(pem).and_then(|certificate| certificate.to_pem())?;
                let key = Key::from_pem(pem).and_then(|key| key.to_pem());
                let key = key.map_err(|source| KubernetesError::Key { path: self.client.clone(), source })?;
                Ok(Proof::Pair { certificate, key })
            }
            None if self.profile == Profile::Node => Token::read(&self.token_file, seen).map(Proof::Token),
            None => Err(KubernetesError::NoClient {
                path: self.client.clone(),
                flaws: flaws.iter().map(ToString::to_string).collect(),
            }),
        }
    }

    /// The request's name: the same for the same key, names and signer, and no other's.
    fn request_name(&self, order: &Order<'_>) -> Result<String, KubernetesError> {
        const DIGITS: usize = 16;
        // Room for the digits in the 253 that a name may have.
        const LONGEST: usize = 230;
        let public = X509Req::from_pem(order.request.as_bytes()).and_then(|request| request.public_key());
        let mut content = public.and_then(|public| public.public_key_to_der())?;
        let asked = [self.name().to_owned(), order.wanted.subject(), order.wanted.names().join(",")];
        content.extend_from_slice(asked.join("\n").as_bytes());
        let label: String = self.label.chars().take(LONGEST).collect();
        Ok(format!("{label}-{}", &Sha256::of(&content).as_str()[..DIGITS]))
    }

    /// Makes the request, unless an earlier run has.
    async fn submit(
        &self,
        server: &Server<'_>,
        request: &str,
        order: &Order<'_>,
        proof: &Proof,
    ) -> Result<(), KubernetesError> {
        let usages = object::usages(order.wanted, &self.release);
        let object = object::request(request, self.name(), order.request, &usages);
        let attempt = async || match server.post(REQUESTS, &object).await {
            Ok(_) | Err(HttpError::Status { status: 409, .. }) => Ok(()),
            Err(error @ HttpError::Status { status: 401 | 403, .. }) if matches!(proof, Proof::Token(_)) => {
                Err(Tried::Transient(self.refusal(error, proof)))
            }
            Err(error) => Err(Tried::Permanent(self.refusal(error, proof))),
        };
        let deadline = Instant::now() + YOUNG.min(self.deadline);
        retry(deadline, &PAUSES, |_, _| (), attempt).await.map_err(|gave_up| match gave_up {
            GaveUp::Permanent { error, .. } => error,
            GaveUp::Deadline { attempts, last } => last.unwrap_or_else(|| self.silence(attempts, proof)),
        })
    }

    /// Nobody has answered.
    fn silence(&self, attempts: u32, proof: &Proof) -> KubernetesError {
        self.refusal(HttpError::Deadline { attempts, last: format!("{}: no answer", self.url) }, proof)
    }

    /// Waits until the request is approved and signed, or refused.
    async fn answer(
        &self,
        server: &Server<'_>,
        request: &str,
        proof: &Proof,
        peers: &Peers,
    ) -> Result<Vec<u8>, KubernetesError> {
        let path = format!("{REQUESTS}/{request}");
        let mut news = News::default();
        let tell = |why: &KubernetesError, pause: Duration| {
            let why = why.to_string();
            if pause >= WORTH_TELLING && news.is_new(&why) {
                peers.tell.tell(&Event::ApprovalAwaited { why: &why });
            }
        };
        let attempt = async || match server.get(&path).await {
            Ok(object) => self.verdict(request, &object).map_err(|error| match error {
                KubernetesError::Waiting { .. } => Tried::Transient(error),
                other => Tried::Permanent(other),
            }),
            Err(HttpError::Status { status: 404, .. }) => {
                Err(Tried::Permanent(KubernetesError::Removed { url: self.url.clone(), request: request.to_owned() }))
            }
            // It may come back before the approval's own deadline.
            Err(error @ HttpError::Deadline { .. }) => Err(Tried::Transient(self.refusal(error, proof))),
            Err(error) => Err(Tried::Permanent(self.refusal(error, proof))),
        };
        retry(Instant::now() + self.deadline, &PAUSES, tell, attempt).await.map_err(|gave_up| match gave_up {
            GaveUp::Permanent { error, .. } => error,
            GaveUp::Deadline { attempts, last } => {
                let last = Box::new(last.unwrap_or_else(|| self.silence(attempts, proof)));
                KubernetesError::Late { url: self.url.clone(), within: self.deadline, last }
            }
        })
    }

    /// The certificate in the API server's object, or why there is none.
    pub fn verdict(&self, request: &str, object: &serde_json::Value) -> Result<Vec<u8>, KubernetesError> {
        let state = State::of(object);
        let state = state.map_err(|why| KubernetesError::Unintelligible { url: self.url.clone(), why })?;
        let (url, request) = (self.url.clone(), request.to_owned());
        match state {
            State::Signed(certificate) => Ok(certificate),
            State::Unapproved => Err(KubernetesError::Waiting { request, signer: self.name(), approved: false }),
            State::Unsigned => Err(KubernetesError::Waiting { request, signer: self.name(), approved: true }),
            State::Denied(why) => Err(KubernetesError::Denied { url, request, why }),
            State::Failed(why) => Err(KubernetesError::Failed { url, request, signer: self.name(), why }),
        }
    }
}

#[cfg(test)]
mod tests;
