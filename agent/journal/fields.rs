//! What programs read of an event.

use std::time::Duration;

use super::event::Event;
use crate::engine::id::Step;

/// The fields of the journal's entry, as `docs/journal.md` documents them.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Fields {
    /// `NODEAGENT_STEP`
    pub step: Option<&'static str>,
    /// `NODEAGENT_RESOURCE`
    pub resource: Option<String>,
    /// `NODEAGENT_RESULT`
    pub result: Option<String>,
    /// `NODEAGENT_DURATION_USEC`
    pub duration: Option<Duration>,
    /// `NODEAGENT_BYTES`
    pub bytes: Option<u64>,
    /// `NODEAGENT_RETRIES`
    pub retries: Option<u32>,
}

impl Event<'_> {
    /// The structured fields, besides the message and its id.
    pub fn fields(&self) -> Fields {
        let mut fields = Fields::default();
        match self {
            Self::Changed { step, id, took, .. } => {
                fields.step = Some(step.name());
                fields.resource = Some(id.to_string());
                fields.result = Some("changed".into());
                fields.duration = Some(*took);
            }
            Self::ResourceFailed { step, id, .. } => {
                fields.step = step.map(Step::name);
                fields.resource = Some(id.to_string());
                fields.result = Some("failed".into());
            }
            Self::NotRenewed { .. } => {
                fields.step = Some(Step::Certs.name());
                fields.result = Some("failed".into());
            }
            Self::NotProven { id, .. } => {
                fields.resource = Some(id.to_string());
                fields.result = Some("not-proven".into());
            }
            Self::RunEnded { result, took, .. } => {
                fields.result = Some((*result).to_owned());
                fields.duration = Some(*took);
            }
            Self::RequestApproved { request, .. } => {
                fields.resource = Some((*request).to_owned());
                fields.result = Some("approved".into());
            }
            Self::RequestLeft { request, .. } => {
                fields.resource = Some((*request).to_owned());
                fields.result = Some("left".into());
            }
            Self::ClusterChanged { what, .. } => {
                fields.resource = Some((*what).to_owned());
                fields.result = Some("changed".into());
            }
            Self::ClusterObjectFailed { what, .. } => {
                fields.resource = Some((*what).to_owned());
                fields.result = Some("failed".into());
            }
            Self::TargetReady { took, .. } => fields.duration = Some(*took),
            Self::SnapshotTaken { path, bytes, took, .. } => {
                fields.resource = Some(path.to_string());
                fields.result = Some("taken".into());
                fields.bytes = Some(*bytes);
                fields.duration = Some(*took);
            }
            Self::SnapshotFailed { .. } => fields.result = Some("failed".into()),
            Self::StoreRestored { data_dir, .. } => {
                fields.resource = Some(data_dir.to_string());
                fields.result = Some("restored".into());
            }
            Self::Fetching { bytes, took, .. } => {
                fields.bytes = Some(*bytes);
                fields.duration = Some(*took);
            }
            Self::Fetched { from_network, took, retries, .. } => {
                fields.bytes = Some(*from_network);
                fields.duration = Some(*took);
                fields.retries = Some(*retries);
            }
            _ => {}
        }
        fields
    }
}
