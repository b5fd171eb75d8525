//! The install step: what `kubernetes-install.sh` did, verified.
//!
//! In: `kubernetes` of Settings and the architecture. Out: `/opt/nodeagent/releases/NAME/VERSION/bin/NAME` with its
//! receipt, and `/opt/bin/NAME` as a link to it. A program is fetched to the scratch directory, verified there, and only
//! then renamed to where it could be run. Idempotent because the receipt says which very file was verified.

mod artifact;

use crate::config::settings::Settings;
use crate::config::values::{HttpUrl, RootPath};
use crate::engine::change::Debt;
use crate::engine::file::ManagedLink;
use crate::engine::id::{Id, Step};
use crate::engine::resource::{Planned, Thing};
use crate::host::facts::Facts;
use crate::identity::Identity;

pub use artifact::Artifact;

/// Where a node's programs are linked: `/usr` is read-only on Flatcar.
pub const BIN: &str = "/opt/bin";

/// The resources of this step.
pub fn plan(settings: &Settings, facts: &Facts, _identity: &Identity) -> Vec<Planned> {
    let mut all = Vec::new();
    for (name, wanted) in &settings.install.artifacts {
        let why = settings.origins.of(&format!("kubernetes.artifacts.{name}"));
        let for_machine = |url: &HttpUrl| url.as_str().replace("{arch}", &facts.architecture);
        let artifact = Artifact {
            name: name.clone(),
            version: wanted.version.clone(),
            urls: wanted.urls.iter().map(for_machine).collect(),
            sha256: wanted.sha256.clone(),
        };
        let program = artifact.program();
        all.push(Planned {
            id: Id::new(Step::Install, name),
            why: why.clone(),
            owes: Vec::new(),
            what: Box::new(artifact),
        });
        let link = ManagedLink {
            path: RootPath::literal(BIN).join(name.as_str()),
            to: program.to_string(),
            purpose: format!("{name} {} in use", wanted.version),
            after: vec![Thing::Stat(program)],
        };
        let id = Id::new(Step::Install, format!("{name}-link"));
        let owes = wanted.run_by.iter().cloned().map(Debt::Restart).collect();
        all.push(Planned { id, why, owes, what: Box::new(link) });
    }
    all
}
