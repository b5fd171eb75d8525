//! What a Node's role says of it: labels and taints that no kubelet may give itself (`NodeRestriction`), once per Node.
//!
//! Once: a taint that somebody removed to run pods on a controller stays away, until the machine registers anew or has
//! another role in the inventory.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::api::{Api, Met, is_answer, said};
use super::memo::Memo;
use crate::config::settings::{NodeEntry, Role};
use crate::config::values::{NodeName, Version};
use crate::host::http::HttpError;
use crate::journal::{Event, Teller};

/// Where Nodes are.
pub const NODES: &str = "/api/v1/nodes";

const CONTROL_PLANE: &str = "node-role.kubernetes.io/control-plane";
/// What `control-plane` was called before 1.24 (kubernetes/enhancements 2067).
const MASTER: &str = "node-role.kubernetes.io/master";
const EDGE: &str = "node-role.kubernetes.io/edge";
/// What controllers may have of these.
const BOTH: [&str; 2] = [CONTROL_PLANE, MASTER];

/// What a role stands for.
#[derive(Debug, Clone, Copy, Default)]
struct Marks {
    labels: &'static [&'static str],
    /// Each with `NoSchedule`.
    taints: &'static [&'static str],
}

/// The marks of a role. What came with releases before 1.24 tolerates `master` alone, although `control-plane` was a label
/// since 1.20; 1.24 has both taints (kubernetes/enhancements 2067).
fn marks(role: Role, release: &Version) -> Marks {
    match role {
        Role::Controller if release.is_at_least(1, 25) => Marks { labels: &[CONTROL_PLANE], taints: &[CONTROL_PLANE] },
        Role::Controller if release.is_at_least(1, 24) => Marks { labels: &[CONTROL_PLANE], taints: &BOTH },
        Role::Controller => Marks { labels: &BOTH, taints: &[MASTER] },
        Role::Edge => Marks { labels: &[EDGE], taints: &[EDGE] },
        _ => Marks::default(),
    }
}

/// Marks the Nodes of the inventory.
pub struct Marker<'a> {
    api: &'a Api<'a>,
    tell: &'a Teller,
    inventory: &'a BTreeMap<NodeName, NodeEntry>,
    release: &'a Version,
    memo: Memo,
}

impl<'a> Marker<'a> {
    /// Reads what was done before.
    pub async fn new(
        api: &'a Api<'a>,
        tell: &'a Teller,
        inventory: &'a BTreeMap<NodeName, NodeEntry>,
        release: &'a Version,
    ) -> Result<Self, HttpError> {
        Ok(Self { api, tell, inventory, release, memo: Memo::load(api).await? })
    }

    /// Gives a Node its role's marks, unless that was done already.
    pub async fn see(&mut self, met: Met, node: &Value) -> Result<(), HttpError> {
        let Some(name) = node["metadata"]["name"].as_str().and_then(|name| name.parse::<NodeName>().ok()) else {
            return Ok(());
        };
        let key = format!("node.{name}");
        if met == Met::Gone {
            return self.memo.note(self.api, &key, None).await;
        }
        let Some(entry) = self.inventory.get(&name) else { return Ok(()) };
        let uid = node["metadata"]["uid"].as_str().unwrap_or_default();
        let before = self.memo.of(&key).and_then(|text| text.split_once(' '));
        let before = before.filter(|(_, of)| *of == uid).map(|(role, _)| role);
        let role = entry.role.to_string();
        if before == Some(&role) || (before.is_none() && marks(entry.role, self.release).labels.is_empty()) {
            return Ok(());
        }
        // What another release would have called it goes as well.
        let old_role = [Role::Controller, Role::Edge].into_iter().find(|role| before == Some(&role.to_string()));
        let old = match old_role {
            Some(Role::Controller) => Marks { labels: &BOTH, taints: &BOTH },
            Some(role) => marks(role, self.release),
            None => Marks::default(),
        };
        if let Some(patch) = patch(node, old, marks(entry.role, self.release)) {
            match self.api.0.patch(&format!("{NODES}/{name}"), "application/merge-patch+json", &patch).await {
                Ok(_) => self.tell.tell(&Event::ClusterChanged {
                    what: &format!("Node {name}"),
                    how: &format!("has the label and the taint of its role, {role}"),
                }),
                // Changed or gone meanwhile: that comes by the watch, too.
                Err(HttpError::Status { status: 404 | 409, .. }) => return Ok(()),
                Err(error) if is_answer(&error) => {
                    let what = format!("Node {name}");
                    self.tell.tell(&Event::ClusterObjectFailed { what: &what, why: &said(&error), advice: "" });
                    return Ok(());
                }
                Err(error) => return Err(error),
            }
        }
        self.memo.note(self.api, &key, Some(&format!("{role} {uid}"))).await
    }
}

/// What changes a Node's marks (RFC 7386); nothing if they are right. Taints are one list, so the patch names the version of
/// the Node that it is for.
fn patch(node: &Value, old: Marks, new: Marks) -> Option<Value> {
    let gone = |old: &[&'static str], new: &[&str]| -> Vec<&'static str> {
        old.iter().copied().filter(|key| !new.contains(key)).collect()
    };
    let has = &node["metadata"]["labels"];
    let mut labels = Map::new();
    let no_labels = gone(old.labels, new.labels);
    labels.extend(no_labels.iter().filter(|key| !has[**key].is_null()).map(|key| ((*key).to_owned(), Value::Null)));
    labels.extend(new.labels.iter().filter(|key| has[**key].is_null()).map(|key| ((*key).to_owned(), json!(""))));

    let is = |taint: &Value, key: &str| taint["key"] == key && taint["effect"] == "NoSchedule";
    let now: Vec<Value> = node["spec"]["taints"].as_array().cloned().unwrap_or_default();
    let no_taints = gone(old.taints, new.taints);
    let mut taints: Vec<Value> =
        now.iter().filter(|taint| !no_taints.iter().any(|key| is(taint, key))).cloned().collect();
    let missing = new.taints.iter().filter(|key| !now.iter().any(|taint| is(taint, key)));
    taints.extend(missing.map(|key| json!({ "key": key, "effect": "NoSchedule" })));

    if labels.is_empty() && taints == now {
        return None;
    }
    let metadata = json!({ "labels": labels, "resourceVersion": node["metadata"]["resourceVersion"] });
    Some(json!({ "metadata": metadata, "spec": { "taints": taints } }))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: Marks = Marks { labels: &[], taints: &[] };
    const OF_EDGE: Marks = Marks { labels: &[EDGE], taints: &[EDGE] };

    #[test]
    fn a_role_is_a_label_and_a_taint_and_a_controller_has_those_of_its_release() {
        let old: Version = "v1.20.2".parse().expect("a version");
        let new: Version = "v1.34.2".parse().expect("a version");
        let both = |role, release: &Version| (marks(role, release).labels, marks(role, release).taints);
        assert_eq!(both(Role::Controller, &old), (&[CONTROL_PLANE, MASTER][..], &[MASTER][..]));
        assert_eq!(both(Role::Controller, &new), (&[CONTROL_PLANE][..], &[CONTROL_PLANE][..]));
        assert_eq!(both(Role::Edge, &old), (&[EDGE][..], &[EDGE][..]));
        assert!(marks(Role::Worker, &old).labels.is_empty());
    }

    #[test]
    fn a_patch_adds_what_is_missing_and_takes_what_another_role_had() {
        let not_ready = json!({ "key": "node.kubernetes.io/not-ready", "effect": "NoSchedule" });
        let edge = json!({ "key": EDGE, "effect": "NoSchedule" });
        let node = |labels: Value, taints: Value| json!({ "metadata": { "labels": labels, "resourceVersion": "7" }, "spec": { "taints": taints } });
        let fresh = node(json!({ "a": "b" }), json!([not_ready]));
        let got = patch(&fresh, NONE, OF_EDGE).expect("a patch");
        assert_eq!(got["metadata"], json!({ "labels": { EDGE: "" }, "resourceVersion": "7" }));
        assert_eq!(got["spec"]["taints"], json!([not_ready, edge]));

        let bare = patch(&json!({ "metadata": {}, "spec": {} }), NONE, OF_EDGE).expect("a patch");
        assert_eq!(bare["spec"]["taints"], json!([edge]));

        let marked = node(json!({ EDGE: "" }), json!([edge, not_ready]));
        assert_eq!(patch(&marked, NONE, OF_EDGE), None);
        let got = patch(&marked, OF_EDGE, NONE).expect("a patch");
        assert_eq!((&got["metadata"]["labels"], &got["spec"]["taints"]), (&json!({ EDGE: null }), &json!([not_ready])));
        assert_eq!(patch(&fresh, OF_EDGE, NONE), None, "there was nothing to take");
    }
}
