//! Approves what [`super::judge`] finds right, and leaves everything else to a person, with one line in the journal.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::Deserialize as _;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::api::{Api, Met, is_answer, said};
use super::judge::Request;
use super::tokens::NODE_ANNOTATION;
use crate::config::settings::NodeEntry;
use crate::config::values::NodeName;
use crate::engine::fault::quote;
use crate::host::clock;
use crate::host::http::HttpError;
use crate::host::retry::{GaveUp, Policy, Tried, retry};
use crate::journal::{Event, Teller};

/// Where certificate signing requests are.
pub const REQUESTS: &str = "/apis/certificates.k8s.io/v1/certificatesigningrequests";

/// How long an administrator may be forbidden to approve: an API server that has just begun has not made its roles yet, and
/// its admission asks those, not the certificate (k8s.io/kubernetes, plugin `CertificateApproval`).
const YOUNG: Duration = Duration::from_secs(20);

/// How often it is tried again.
const PAUSES: Policy =
    Policy { first: Duration::from_millis(250), cap: Duration::from_secs(2), growth: 2.0, jitter: 0.2 };

/// The approver.
pub struct Approver<'a> {
    api: &'a Api<'a>,
    tell: &'a Teller,
    inventory: &'a BTreeMap<NodeName, NodeEntry>,
    left: &'a mut Left,
}

/// The open requests that were told of already, by what no two objects have in common.
pub type Left = BTreeSet<String>;

impl<'a> Approver<'a> {
    /// For the machines of this inventory.
    pub fn new(
        api: &'a Api<'a>,
        tell: &'a Teller,
        inventory: &'a BTreeMap<NodeName, NodeEntry>,
        left: &'a mut Left,
    ) -> Self {
        Self { api, tell, inventory, left }
    }

    /// Decides on a request, as often as it is met.
    pub async fn see(&mut self, met: Met, object: &Value) -> Result<(), HttpError> {
        let uid = object["metadata"]["uid"].as_str().unwrap_or_default();
        let request = Request::deserialize(object);
        if met == Met::Gone || request.as_ref().is_ok_and(|request| !request.is_open()) {
            self.left.remove(uid);
            return Ok(());
        }
        let (name, requestor) = match &request {
            Ok(request) => (request.metadata.name.as_str(), request.spec.username.as_str()),
            Err(_) => (object["metadata"]["name"].as_str().unwrap_or_default(), ""),
        };
        let verdict = match &request {
            Ok(request) => match self.verdict(request).await? {
                Ok(what) => match self.approve(object, &request.metadata.name, &what).await {
                    Ok(()) => Ok(what),
                    // Somebody else has decided or changed it: that comes by the watch, too.
                    Err(HttpError::Status { status: 404 | 409, .. }) => return Ok(()),
                    Err(error) if is_answer(&error) => Err(said(&error)),
                    Err(error) => return Err(error),
                },
                Err(why) => Err(why),
            },
            Err(error) => Err(quote(&error.to_string())),
        };
        let (request, requestor) = (quote(name), quote(requestor));
        match verdict {
            Ok(what) => {
                self.tell.tell(&Event::RequestApproved { request: &request, requestor: &requestor, what: &what });
            }
            Err(why) => {
                if self.left.insert(uid.to_owned()) {
                    self.tell.tell(&Event::RequestLeft { request: &request, requestor: &requestor, why: &why });
                }
            }
        }
        Ok(())
    }

    async fn verdict(&self, request: &Request) -> Result<Result<String, String>, HttpError> {
        let owner = match request.token() {
            Some(id) => self.owner(id).await?,
            None => None,
        };
        Ok(request.judge(self.inventory, owner.as_deref()))
    }

    /// The machine that a token is for. Only an administrator can write what says so.
    async fn owner(&self, id: &str) -> Result<Option<String>, HttpError> {
        if id.is_empty() || !id.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit()) {
            return Ok(None);
        }
        let secret = self.api.find(&format!("/api/v1/namespaces/kube-system/secrets/bootstrap-token-{id}")).await?;
        Ok(secret.and_then(|secret| secret["metadata"]["annotations"][NODE_ANNOTATION].as_str().map(str::to_owned)))
    }

    /// Approves this very version of the request.
    async fn approve(&self, object: &Value, name: &str, what: &str) -> Result<(), HttpError> {
        let now = clock::text(clock::now());
        let mut object = object.clone();
        // The items of a list do not say what they are.
        object["apiVersion"] = json!("certificates.k8s.io/v1");
        object["kind"] = json!("CertificateSigningRequest");
        object["status"]["conditions"] = json!([{
            "type": "Approved",
            "status": "True",
            "reason": "NodeagentApproved",
            "message": what,
            "lastUpdateTime": now,
            "lastTransitionTime": now,
        }]);
        let path = format!("{REQUESTS}/{name}/approval");
        let attempt = async || match self.api.0.put(&path, &object).await {
            Ok(_) => Ok(()),
            Err(error @ HttpError::Status { status: 403, .. }) => Err(Tried::Transient(error)),
            Err(error) => Err(Tried::Permanent(error)),
        };
        let silence = |attempts| HttpError::Deadline { attempts, last: format!("{path}: no answer") };
        retry(Instant::now() + YOUNG, &PAUSES, |_, _| (), attempt).await.map_err(|gave_up| match gave_up {
            GaveUp::Permanent { error, .. } => error,
            GaveUp::Deadline { attempts, last } => last.unwrap_or_else(|| silence(attempts)),
        })
    }
}
