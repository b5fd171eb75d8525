//! What was done once and must not be done again: the `ConfigMap` `nodeagent` in `kube-system`.
//!
//! A token whose Secret somebody deleted has been revoked, and a taint that somebody removed is not wanted: neither can be
//! told from what is not there yet, unless it is written down. Not at the object itself: a kubelet may annotate its Node.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::api::Api;
use crate::host::http::HttpError;

const MAPS: &str = "/api/v1/namespaces/kube-system/configmaps";
const NAME: &str = "nodeagent";

/// The notes, by key.
pub struct Memo(BTreeMap<String, String>);

impl Memo {
    /// All that was noted so far.
    pub async fn load(api: &Api<'_>) -> Result<Self, HttpError> {
        let map = api.find(&format!("{MAPS}/{NAME}")).await?.unwrap_or_default();
        let data = map["data"].as_object().into_iter().flatten();
        Ok(Self(data.filter_map(|(key, text)| Some((key.clone(), text.as_str()?.to_owned()))).collect()))
    }

    /// What is noted of this.
    pub fn of(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(String::as_str)
    }

    /// Notes it; nothing to forget it. Other notes are not touched, whoever made them meanwhile.
    pub async fn note(&mut self, api: &Api<'_>, key: &str, text: Option<&str>) -> Result<(), HttpError> {
        if self.of(key) == text {
            return Ok(());
        }
        let data = json!({ key: text });
        let patch = json!({ "data": data });
        match api.0.patch(&format!("{MAPS}/{NAME}"), "application/merge-patch+json", &patch).await {
            Err(HttpError::Status { status: 404, .. }) => api.0.post(MAPS, &new(data)).await?,
            other => other?,
        };
        match text {
            Some(text) => self.0.insert(key.to_owned(), text.to_owned()),
            None => self.0.remove(key),
        };
        Ok(())
    }
}

fn new(data: Value) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": NAME,
            "namespace": "kube-system",
            "annotations": { "nodeagent.io/what": "what `nodeagent cluster` has done once and will not do again" },
        },
        "data": data,
    })
}
