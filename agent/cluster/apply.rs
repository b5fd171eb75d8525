//! Server-side apply (Kubernetes 1.18), once for each text of a manifest: what a person changes afterwards stays, and when the
//! manifest has changed, the API server itself says whether somebody else has set the same fields.
//!
//! That it was applied stands on the object. Applying it again and again would not do: the API server takes `0.1` and the
//! `100m` that it makes of it for a difference, and writes each time.

use std::collections::BTreeMap;

use serde_json::Value;

use super::api::{Api, is_answer, said};
use super::complete::complete;
use crate::config::values::Sha256;
use crate::engine::fault::Explain;
use crate::host::http::HttpError;

/// As whom fields are owned.
const MANAGER: &str = "nodeagent";

/// The annotation that says which text was applied.
const APPLIED: &str = "nodeagent.io/applied";

/// The namespace of an object that names none, as kubectl has it.
const NAMESPACE: &str = "default";

/// What became of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Applied {
    /// It was as wanted.
    Same,
    /// It was made.
    Made,
    /// It was changed.
    Changed,
}

/// An object could not be applied; others can.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// It does not say what it is.
    #[error("{0}")]
    Malformed(&'static str),
    /// The API knows no such thing.
    #[error("the API server knows no {kind} in {version}")]
    UnknownKind {
        /// Its `apiVersion`.
        version: String,
        /// Its `kind`.
        kind: String,
    },
    /// Somebody else set some of its fields.
    #[error("left as it is: {0}")]
    Conflict(String),
    /// The API server says no.
    #[error("{0}")]
    Refused(String),
    /// The API server does not answer.
    #[error(transparent)]
    Http(HttpError),
}

impl Explain for ApplyError {
    fn advice(&self) -> Option<String> {
        Some(match self {
            Self::Malformed(_) => "see kubernetes.io/docs/concepts/overview/working-with-objects".to_owned(),
            Self::UnknownKind { .. } => "`kubectl api-resources` lists what it knows".to_owned(),
            Self::Conflict(_) => format!(
                "say the same in the file, or take the fields back: kubectl apply --server-side --force-conflicts \
                 --field-manager={MANAGER} -f FILE"
            ),
            Self::Refused(_) | Self::Http(_) => return None,
        })
    }
}

impl From<HttpError> for ApplyError {
    fn from(error: HttpError) -> Self {
        match &error {
            HttpError::Status { status: 409, .. } => Self::Conflict(said(&error)),
            _ if is_answer(&error) => Self::Refused(said(&error)),
            _ => Self::Http(error),
        }
    }
}

/// What an object is called in the API's paths.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Resource {
    name: String,
    namespaced: bool,
}

/// Applies objects, and remembers what the API server has said of kinds.
pub struct Applier<'a> {
    api: &'a Api<'a>,
    kinds: BTreeMap<(String, String), Resource>,
}

impl<'a> Applier<'a> {
    /// Knows nothing yet.
    pub fn new(api: &'a Api<'a>) -> Self {
        Self { api, kinds: BTreeMap::new() }
    }

    /// Makes the object what it says, as far as it says something, unless that was done before. With `force` also what others
    /// have set.
    pub async fn apply(&mut self, object: &Value, force: bool) -> Result<Applied, ApplyError> {
        let named = Named::of(object)?;
        let path = self.path(&named).await?;
        let found = self.api.find(&path).await?;
        let digest = Sha256::of(object.to_string().as_bytes()).short().to_owned();
        if found.as_ref().is_some_and(|found| found["metadata"]["annotations"][APPLIED] == digest) {
            return Ok(Applied::Same);
        }
        let mut object = complete(object);
        object["metadata"]["annotations"][APPLIED] = Value::String(digest);
        let query = format!("{path}?fieldManager={MANAGER}&force={force}");
        self.api.0.patch(&query, "application/apply-patch+yaml", &object).await?;
        Ok(if found.is_some() { Applied::Changed } else { Applied::Made })
    }

    /// The object's path.
    async fn path(&mut self, named: &Named<'_>) -> Result<String, ApplyError> {
        let api = if named.version.contains('/') { "apis" } else { "api" };
        let group = format!("/{api}/{}", named.version);
        let key = (named.version.to_owned(), named.kind.to_owned());
        if !self.kinds.contains_key(&key) {
            // Not one by one: the next object is likely of the same group.
            let found = self.api.find(&group).await?.unwrap_or_default();
            for (kind, resource) in resources(&found) {
                self.kinds.insert((named.version.to_owned(), kind), resource);
            }
        }
        let unknown = || ApplyError::UnknownKind { version: key.0.clone(), kind: key.1.clone() };
        let Resource { name, namespaced } = self.kinds.get(&key).ok_or_else(unknown)?;
        let namespace = match (namespaced, named.namespace) {
            (true, namespace) => format!("/namespaces/{}", namespace.unwrap_or(NAMESPACE)),
            (false, _) => String::new(),
        };
        Ok(format!("{group}{namespace}/{name}/{}", named.name))
    }
}

/// The kinds in an `APIResourceList`. What has a slash in its name is a part of another.
fn resources(list: &Value) -> impl Iterator<Item = (String, Resource)> {
    let all = list["resources"].as_array().into_iter().flatten();
    all.filter_map(|entry| {
        let name = entry["name"].as_str().filter(|name| !name.contains('/'))?.to_owned();
        let resource = Resource { name, namespaced: entry["namespaced"].as_bool()? };
        Some((entry["kind"].as_str()?.to_owned(), resource))
    })
}

/// What an object says it is, fit to stand in a path.
struct Named<'a> {
    version: &'a str,
    kind: &'a str,
    name: &'a str,
    namespace: Option<&'a str>,
}

impl<'a> Named<'a> {
    fn of(object: &'a Value) -> Result<Self, ApplyError> {
        // A path's parts: RFC 3986 leaves these characters as they are, and none of them climbs.
        let plain = |text: &&str| {
            let fits = |c: char| c.is_ascii_alphanumeric() || "-_.:~".contains(c);
            !text.is_empty() && text.chars().all(fits) && *text != "." && *text != ".."
        };
        let text = |value: &'a Value| value.as_str().filter(plain);
        if !matches!(object["metadata"]["annotations"], Value::Null | Value::Object(_)) {
            return Err(ApplyError::Malformed("metadata.annotations is no map"));
        }
        let version = object["apiVersion"].as_str().filter(|text| text.split('/').all(|part| plain(&part)));
        let metadata = &object["metadata"];
        let namespace = match &metadata["namespace"] {
            Value::Null => None,
            some => Some(text(some).ok_or(ApplyError::Malformed("metadata.namespace cannot be one"))?),
        };
        Ok(Self {
            version: version.ok_or(ApplyError::Malformed("apiVersion is missing, or cannot be one"))?,
            kind: object["kind"].as_str().ok_or(ApplyError::Malformed("kind is missing"))?,
            name: text(&metadata["name"]).ok_or(ApplyError::Malformed("metadata.name is missing, or cannot be one"))?,
            namespace,
        })
    }
}

/// An object as people name it: `Deployment kube-system/coredns`.
pub fn shown(object: &Value) -> String {
    let text = |value: &Value| crate::engine::fault::quote(value.as_str().unwrap_or("?"));
    let metadata = &object["metadata"];
    let namespace = metadata["namespace"].as_str().map(|_| text(&metadata["namespace"]) + "/").unwrap_or_default();
    format!("{} {namespace}{}", text(&object["kind"]), text(&metadata["name"]))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_object_that_cannot_be_named_is_refused() {
        let good =
            json!({ "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": "a", "namespace": "b" } });
        let named = Named::of(&good).expect("named");
        assert_eq!((named.version, named.kind, named.name, named.namespace), ("apps/v1", "Deployment", "a", Some("b")));
        assert_eq!(shown(&good), "Deployment b/a");
        for (pointer, value) in [
            ("/apiVersion", json!(null)),
            ("/apiVersion", json!("../v1")),
            ("/apiVersion", json!("")),
            ("/kind", json!(1)),
            ("/metadata/name", json!("a/b")),
            ("/metadata/name", json!("..")),
            ("/metadata/name", json!("a?b")),
            ("/metadata/name", json!(null)),
            ("/metadata/namespace", json!("../x")),
            ("/metadata/namespace", json!(7)),
            ("/metadata", json!({ "name": "a", "annotations": "x" })),
        ] {
            let mut bad = good.clone();
            *bad.pointer_mut(pointer).expect("a place") = value.clone();
            assert!(matches!(Named::of(&bad), Err(ApplyError::Malformed(_))), "{pointer} {value}");
        }
    }

    #[test]
    fn parts_of_objects_are_no_kinds() {
        let list = json!({ "resources": [
            { "name": "pods", "kind": "Pod", "namespaced": true },
            { "name": "pods/eviction", "kind": "Eviction", "namespaced": true },
            { "name": "nodes", "kind": "Node", "namespaced": false },
            { "kind": "broken" },
        ] });
        let all: Vec<_> = resources(&list).map(|(kind, found)| (kind, found.name, found.namespaced)).collect();
        assert_eq!(all, [("Pod".into(), "pods".into(), true), ("Node".into(), "nodes".into(), false)]);
    }
}
