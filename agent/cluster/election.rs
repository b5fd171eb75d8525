//! Which of the controllers works: whoever holds the Lease `nodeagent` in `kube-system`.
//!
//! The times are those of kube-controller-manager (`--leader-elect-lease-duration` and its neighbours). As in client-go, no
//! clock of another machine is believed: a holder is gone when its record has not changed for as long as it says itself,
//! by this machine's clock. A holder that cannot renew stops five seconds before that.

use std::convert::Infallible;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::{Instant, sleep, timeout_at};

use super::api::Api;
use crate::host::clock;
use crate::host::http::HttpError;

/// How long a Lease holds that is not renewed.
pub const DURATION: Duration = Duration::from_secs(15);

/// How long its holder may fail to renew it before it stops to work.
const RENEW_WITHIN: Duration = Duration::from_secs(10);

/// How often it is renewed, or asked for.
pub const PAUSE: Duration = Duration::from_secs(2);

const LEASES: &str = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases";
const NAME: &str = "nodeagent";

/// Who works.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// This process.
    Ours,
    /// The one of this name.
    Theirs(String),
}

/// This process's part in the election.
pub struct Election {
    me: String,
    holds: bool,
    /// What was read last, and since when it is so.
    seen: Option<(Value, Instant)>,
}

impl Election {
    /// For a process that is called so, as none other is.
    pub fn new(me: String) -> Self {
        Self { me, holds: false, seen: None }
    }

    /// Takes or renews the Lease, unless somebody else holds it.
    pub async fn claim(&mut self, api: &Api<'_>) -> Result<Standing, HttpError> {
        let standing = self.try_claim(api).await?;
        self.holds = standing == Standing::Ours;
        Ok(standing)
    }

    async fn try_claim(&mut self, api: &Api<'_>) -> Result<Standing, HttpError> {
        let path = format!("{LEASES}/{NAME}");
        let answer = match api.find(&path).await? {
            None => api.0.post(LEASES, &self.lease(&json!({}))).await,
            Some(found) => match self.holder(&found, Instant::now()) {
                Some(other) => return Ok(Standing::Theirs(other)),
                None => api.0.put(&path, &self.lease(&found)).await,
            },
        };
        match answer {
            Ok(_) => Ok(Standing::Ours),
            // Somebody else was faster.
            Err(HttpError::Status { status: 409, .. }) => Ok(Standing::Theirs("another".to_owned())),
            Err(error) => Err(error),
        }
    }

    /// Renews the Lease for as long as that works.
    pub async fn keep(&mut self, api: &Api<'_>) -> Result<Infallible, HttpError> {
        let lost = |why: &str| HttpError::BadAnswer { url: format!("the Lease {NAME}"), why: why.to_owned() };
        let mut end = Instant::now() + RENEW_WITHIN;
        loop {
            sleep(PAUSE).await;
            match timeout_at(end, self.try_claim(api)).await {
                Ok(Ok(Standing::Ours)) => end = Instant::now() + RENEW_WITHIN,
                Ok(Ok(Standing::Theirs(other))) => {
                    self.holds = false;
                    return Err(lost(&format!("{other} has taken it")));
                }
                Ok(Err(error)) => {
                    if Instant::now() >= end {
                        return Err(error);
                    }
                }
                Err(_) => return Err(lost(&format!("not renewed within {} s", RENEW_WITHIN.as_secs()))),
            }
        }
    }

    /// Lets the next one take over at once.
    pub async fn give_up(&mut self, api: &Api<'_>) -> Result<(), HttpError> {
        if !std::mem::take(&mut self.holds) {
            return Ok(());
        }
        let path = format!("{LEASES}/{NAME}");
        let Some(mut lease) = api.find(&path).await? else { return Ok(()) };
        if lease["spec"]["holderIdentity"] == self.me {
            lease["spec"]["holderIdentity"] = Value::Null;
            lease["spec"]["leaseDurationSeconds"] = json!(1);
            api.0.put(&path, &lease).await?;
        }
        Ok(())
    }

    /// Who else holds this Lease, as far as can be told now.
    fn holder(&mut self, lease: &Value, now: Instant) -> Option<String> {
        let spec = &lease["spec"];
        let holder = spec["holderIdentity"].as_str().filter(|holder| !holder.is_empty() && *holder != self.me)?;
        let since = match &self.seen {
            Some((seen, since)) if seen == spec => *since,
            _ => now,
        };
        self.seen = Some((spec.clone(), since));
        let duration = spec["leaseDurationSeconds"].as_u64().map_or(DURATION, Duration::from_secs);
        (now < since + duration).then(|| holder.to_owned())
    }

    /// The Lease with this process as its holder.
    fn lease(&self, found: &Value) -> Value {
        let now = clock::text(clock::now()).replace('Z', ".000000Z");
        let was = &found["spec"];
        let renewed = was["holderIdentity"] == self.me;
        let transitions = was["leaseTransitions"].as_i64().unwrap_or(0);
        let mut lease = found.clone();
        lease["apiVersion"] = json!("coordination.k8s.io/v1");
        lease["kind"] = json!("Lease");
        lease["metadata"]["name"] = json!(NAME);
        lease["metadata"]["namespace"] = json!("kube-system");
        lease["spec"] = json!({
            "holderIdentity": self.me,
            "leaseDurationSeconds": DURATION.as_secs(),
            "acquireTime": if renewed { was["acquireTime"].clone() } else { json!(now) },
            "renewTime": now,
            "leaseTransitions": transitions + i64::from(!renewed && !was.is_null()),
        });
        lease
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held_by(holder: &str, renewed: &str) -> Value {
        json!({ "spec": { "holderIdentity": holder, "leaseDurationSeconds": 15, "renewTime": renewed } })
    }

    #[test]
    fn a_holder_is_gone_when_its_record_has_not_changed_for_its_own_time() {
        let mut election = Election::new("b".to_owned());
        let start = Instant::now();
        let mut look = |lease: &Value, seconds: u64| election.holder(lease, start + Duration::from_secs(seconds));
        let theirs = Some("a".to_owned());
        // However old its times are: they are another clock's.
        assert_eq!(look(&held_by("a", "1970-01-01T00:00:00Z"), 0), theirs);
        assert_eq!(look(&held_by("a", "1970-01-01T00:00:00Z"), 14), theirs);
        assert_eq!(look(&held_by("a", "1970-01-01T00:00:02Z"), 15), theirs, "renewed");
        assert_eq!(look(&held_by("a", "1970-01-01T00:00:02Z"), 29), theirs);
        assert_eq!(look(&held_by("a", "1970-01-01T00:00:02Z"), 30), None);
        assert_eq!(look(&held_by("", "1970-01-01T00:00:02Z"), 0), None, "given up");
        assert_eq!(look(&json!({ "spec": { "leaseDurationSeconds": 1 } }), 0), None, "given up");
        assert_eq!(look(&held_by("b", "1970-01-01T00:00:02Z"), 0), None, "our own");
    }

    #[test]
    fn what_others_wrote_stays_and_each_taking_is_counted() {
        let election = Election::new("b".to_owned());
        let mut found = held_by("a", "x");
        found["metadata"] = json!({ "resourceVersion": "7", "labels": { "l": "1" } });
        found["spec"]["leaseTransitions"] = json!(3);
        let taken = election.lease(&found);
        assert_eq!(taken["metadata"]["resourceVersion"], "7");
        assert_eq!(taken["metadata"]["labels"]["l"], "1");
        assert_eq!((&taken["spec"]["leaseTransitions"], &taken["spec"]["holderIdentity"]), (&json!(4), &json!("b")));
        let renewed = election.lease(&taken);
        assert_eq!(renewed["spec"]["leaseTransitions"], 4);
        assert_eq!(renewed["spec"]["acquireTime"], taken["spec"]["acquireTime"]);
        assert_eq!(election.lease(&json!({}))["spec"]["leaseTransitions"], 0);
    }
}
