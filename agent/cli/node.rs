//! What most commands begin with: the configuration, the machine's facts, and who the node is.

use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use tokio::time::Instant;

use super::Global;
use crate::config::settings::{ClusterSettings, Settings};
use crate::config::values::RootPath;
use crate::config::{self, ConfigErrors};
use crate::engine::fault::{Class, Explain, Fault};
use crate::engine::plan::Plan;
use crate::host::facts::{Facts, PeerRoute};
use crate::host::root::Root;
use crate::host::{Host, gather, sources};
use crate::identity::{self, Identity, NoIdentity, Place};
use crate::journal::{Event, Teller};
use crate::units::versions;
use crate::{install, network, steps};

/// How long an address is waited for: as long as a slow DHCP server and a switch that learns.
pub const PATIENCE: Duration = Duration::from_mins(2);

/// How long the address of the last boot is waited for when there is another one: the link that carried it may only be
/// slower than the one with the default route, and a wrong address costs more than these seconds.
const GRACE: Duration = Duration::from_secs(15);

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

/// The configuration, where there is one.
pub fn settings_if_any(global: &Global, host: &Host) -> Result<Option<Settings>, Fault> {
    if sources::is_configured(&host.root, global.config.as_deref())? {
        settings(global, host).map(Some)
    } else {
        Ok(None)
    }
}

/// Configuration, facts and identity as they are now.
pub fn now(global: &Global, host: &Host) -> Result<Node, Fault> {
    let settings = settings(global, host)?;
    let facts = match &global.facts {
        Some(path) => facts_of(path)?,
        None => gather::gather(&identity::peers(&settings.cluster))?,
    };
    install::check(&settings, &facts)?;
    versions::check(&settings)?;
    let identity = identity::choose(&settings.node, &settings.cluster, &facts, last_address(host)?)?;
    Ok(Node { settings, facts, identity })
}

/// The same, waiting for an address until the deadline.
pub async fn awaited(global: &Global, host: &Host, tell: &Teller) -> Result<Node, Fault> {
    let settings = settings(global, host)?;
    let last = last_address(host)?;
    let choose = |facts: &Facts, last| {
        let identity = identity::choose(&settings.node, &settings.cluster, facts, last)?;
        Ok((identity.name, identity.place))
    };
    let (facts, name, place) = chosen(global, Some(&settings.cluster), PATIENCE, last, tell, choose).await?;
    install::check(&settings, &facts)?;
    versions::check(&settings)?;
    announce(name.as_str(), &place, last, tell);
    Ok(Node { settings, facts, identity: Identity { name, place } })
}

/// What `choose` makes of the machine's facts, as soon as it makes something of them. At the deadline the last boot's
/// address counts too.
pub async fn chosen<N>(
    global: &Global,
    cluster: Option<&ClusterSettings>,
    patience: Duration,
    last: Option<IpAddr>,
    tell: &Teller,
    choose: impl Fn(&Facts, Option<IpAddr>) -> Result<(N, Place), NoIdentity>,
) -> Result<(Facts, N, Place), Fault> {
    let peers = cluster.map(identity::peers).unwrap_or_default();
    let start = Instant::now();
    let end = start + patience;
    let mut told = String::new();
    loop {
        let facts = match &global.facts {
            Some(path) => facts_of(path)?,
            None => gathered(&peers, end).await?,
        };
        // Facts from a file do not change.
        let over = global.facts.is_some() || Instant::now() >= end;
        let (why, missing) = match choose(&facts, last.filter(|_| over)) {
            Ok((name, place)) => {
                let slow = last.filter(|last| !over && start.elapsed() < GRACE && is_missing(&facts, *last));
                let Some(last) = slow else { return Ok((facts, name, place)) };
                (format!("{} would do, but {last} of the last boot may yet come", place.address), None)
            }
            Err(missing) => (missing.to_string(), Some(missing)),
        };
        if why != told {
            if let Some(NoIdentity::Address { inside: Some((address, reason)), .. }) = &missing {
                tell.tell(&Event::AddressInside { address: *address, reason });
            }
            if !over {
                tell.tell(&Event::IdentityAwaited { why: &why });
            }
            told = why;
        }
        if let Some(missing) = missing.filter(|_| over) {
            let fault = Fault::from(missing);
            let waited = global.facts.is_none() && !patience.is_zero();
            return Err(if waited { fault.of(Class::Deadline) } else { fault });
        }
        tokio::time::sleep(IDENTITY_PAUSE).await;
    }
}

/// Whether no link has this address.
fn is_missing(facts: &Facts, address: IpAddr) -> bool {
    !facts.links.iter().flat_map(|link| &link.addresses).any(|found| found.ip == address)
}

/// The running machine's facts. The resolver has deadlines of its own, which know nothing of ours.
async fn gathered(peers: &[(String, u16)], end: Instant) -> Result<Facts, Fault> {
    let asked = peers.to_vec();
    let gathering = tokio::task::spawn_blocking(move || gather::gather(&asked));
    if let Ok(Ok(facts)) = tokio::time::timeout_at(end, gathering).await {
        return Ok(facts?);
    }
    // It still resolves, or is gone. The rest takes no time.
    let mut facts = gather::gather(&[])?;
    let why = || PeerRoute::Unresolved { why: "no answer before the deadline".to_owned() };
    facts.routes = peers.iter().map(|(host, port)| (Facts::peer_key(host, *port), why())).collect();
    Ok(facts)
}

/// Tells where the machine is, and whether it was elsewhere before.
pub fn announce(name: &str, place: &Place, last: Option<IpAddr>, tell: &Teller) {
    tell.tell(&Event::IdentityChosen { name, address: place.address, link: &place.link, why: &place.why });
    if let Some(was) = last.filter(|was| *was != place.address) {
        tell.tell(&Event::AddressChanged { was, now: place.address, link: &place.link });
    }
}

/// The address that the env file had so far.
pub fn last_address(host: &Host) -> Result<Option<IpAddr>, Fault> {
    let file = host.root.read(&RootPath::literal(network::ENV_FILE))?;
    Ok(file.and_then(|file| network::last_address(&file)))
}

/// The file that `--facts` names cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("read facts {path}: {why}")]
struct BadFacts {
    path: String,
    why: String,
}

impl Explain for BadFacts {
    fn class(&self) -> Class {
        Class::Usage
    }

    fn advice(&self) -> Option<String> {
        Some("`nodeagent plan -o json` prints the facts of a machine under \"facts\"".to_owned())
    }
}

fn facts_of(path: &Path) -> Result<Facts, Fault> {
    let bad = |why: String| BadFacts { path: path.display().to_string(), why };
    let text = sources::text(path).map_err(|e| bad(e.to_string()))?;
    Ok(serde_json::from_slice(&text).map_err(|e| bad(e.to_string()))?)
}
