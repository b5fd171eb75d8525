//! What most commands begin with: the configuration, the machine's facts, and who the node is.

use std::time::Duration;

use crate::config::settings::Settings;
use crate::config::{self, ConfigErrors};
use crate::engine::fault::{Explain, Fault};
use crate::engine::plan::Plan;
use crate::host::facts::Facts;
use crate::host::root::Root;
use crate::host::{Host, gather, sources};
use crate::identity::{self, Identity, NoIdentity};
use crate::journal::{Event, Teller};
use crate::steps;

use super::Global;

/// How long bootstrap waits for an address: as long as a slow DHCP server and a switch that learns.
const IDENTITY_DEADLINE: Duration = Duration::from_mins(2);

/// How often it looks again.
const IDENTITY_PAUSE: Duration = Duration::from_millis(500);

/// The node, as far as it is known before planning.
pub struct Node {
    /// What is wanted.
    pub settings: Settings,
    /// What the machine is.
    pub facts: Facts,
    /// Who it is.
    pub identity: Identity,
}

impl Node {
    /// The plan for it.
    pub fn plan(&self) -> Plan {
        steps::plan(&self.settings, &self.facts, &self.identity)
    }
}

/// The machine, or the tree that `--root` names.
pub fn host(global: &Global) -> Result<Host, Fault> {
    Ok(Host::new(Root::open(&global.root)?))
}

/// The configuration.
pub fn settings(global: &Global, host: &Host) -> Result<Settings, Fault> {
    let sources = sources::read(&host.root, global.config.as_deref())?;
    config::load(sources).map_err(|errors: ConfigErrors| errors.into())
}

/// Configuration, facts and identity as they are now.
pub fn now(global: &Global, host: &Host) -> Result<Node, Fault> {
    let settings = settings(global, host)?;
    let facts = facts(global, &settings)?;
    let identity = identity::choose(&settings.node, &settings.cluster, &facts)?;
    Ok(Node { settings, facts, identity })
}

/// The same, waiting for an address until the deadline.
pub async fn awaited(global: &Global, host: &Host, tell: &Teller) -> Result<Node, Fault> {
    let settings = settings(global, host)?;
    let end = tokio::time::Instant::now() + IDENTITY_DEADLINE;
    let mut told = String::new();
    loop {
        let facts = facts(global, &settings)?;
        let missing: NoIdentity = match identity::choose(&settings.node, &settings.cluster, &facts) {
            Ok(identity) => {
                tell.tell(&Event::IdentityChosen {
                    name: identity.name.as_str(),
                    address: identity.address,
                    link: &identity.link,
                    why: &identity.why,
                });
                return Ok(Node { settings, facts, identity });
            }
            Err(missing) => missing,
        };
        // Facts from a file do not change.
        if global.facts.is_some() || tokio::time::Instant::now() >= end {
            return Err(missing.into());
        }
        let why = missing.to_string();
        if why != told {
            tell.tell(&Event::IdentityAwaited { why: &why });
            told = why;
        }
        tokio::time::sleep(IDENTITY_PAUSE).await;
    }
}

/// The file that `--facts` names cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("read facts {path}: {why}")]
struct BadFacts {
    path: String,
    why: String,
}

impl Explain for BadFacts {
    fn class(&self) -> crate::engine::fault::Class {
        crate::engine::fault::Class::Usage
    }

    fn advice(&self) -> Option<String> {
        Some("`nodeagent plan -o json` prints the facts of a machine under \"facts\"".to_owned())
    }
}

fn facts(global: &Global, settings: &Settings) -> Result<Facts, Fault> {
    let Some(path) = &global.facts else {
        return Ok(gather::gather(&identity::peers(&settings.cluster))?);
    };
    let bad = |why: String| BadFacts { path: path.display().to_string(), why };
    let text = sources::text(path).map_err(|e| bad(e.to_string()))?;
    Ok(serde_json::from_slice(&text).map_err(|e| bad(e.to_string()))?)
}
