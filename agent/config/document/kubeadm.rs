//! The part `kubeadm`.

use schemars::JsonSchema;
use serde::Deserialize;

/// How kubeadm joins the node.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Kubeadm {
    /// The errors of its preflight checks that are only to be warnings, by the names that it gives them, such as
    /// `FileExisting-crictl`.
    #[serde(default)]
    pub ignore_preflight_errors: Vec<String>,
}
