//! `nodeagent network`: the network step alone; and the env file outside of any run, at boot, without a configuration, or
//! for those who call this program `setup-network-environment`.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use serde::Serialize;

use super::bootstrap::{self, StepArgs};
use super::node;
use super::output::{self, Format};
use super::{Exit, Global};
use crate::certs;
use crate::config::settings::{AddressChoice, Settings};
use crate::config::values::{NodeName, RootPath};
use crate::engine::change::Meta;
use crate::engine::fault::Fault;
use crate::engine::id::Step;
use crate::host::facts::Facts;
use crate::host::{Host, gather, lock, root};
use crate::identity::{self, Place};
use crate::journal::{Event, Teller};
use crate::network::{self, Rendered};

/// How long another refresh of the same file may take.
const TURN: Duration = Duration::from_secs(10);

/// How long the old tool's callers wait for an address that may never come: it did not wait at all.
const OLD_TOOLS_PATIENCE: Duration = Duration::from_secs(30);

/// Arguments of `network`.
#[derive(Args)]
pub struct NetworkArgs {
    /// Show what would be written and change nothing
    #[arg(long)]
    dry_run: bool,
    /// At boot: write the file at once, not as a run that can be undone, and
    /// warn when the address is another than before
    #[arg(long, conflicts_with = "dry_run")]
    boot: bool,
    /// The file, for those who call this program `setup-network-environment`.
    #[arg(skip)]
    for_old_tool: Option<PathBuf>,
}

impl NetworkArgs {
    /// To do as `setup-network-environment -o FILE` did.
    pub fn for_old_tool(file: PathBuf) -> Self {
        Self { dry_run: false, boot: false, for_old_tool: Some(file) }
    }
}

/// The step where there is a configuration, else the file alone: there is no node yet whose making could be undone.
pub async fn run(args: NetworkArgs, global: &Global, tell: &Teller) -> Result<Exit, Fault> {
    let host = node::host(global)?;
    let settings = node::settings_if_any(global, &host)?;
    if let Some(file) = &args.for_old_tool {
        let errand = Errand { global, host: &host, settings: settings.as_ref(), tell };
        return as_old_tool(&errand, &root::absolute(file)?).await;
    }
    if settings.is_some() && !args.boot {
        return bootstrap::run_step(Step::Network, StepArgs { dry_run: args.dry_run }, global, tell).await;
    }
    let errand = Errand { global, host: &host, settings: settings.as_ref(), tell };
    let patience = if args.dry_run { Duration::ZERO } else { node::PATIENCE };
    let found = errand.find(patience).await?;
    let content = errand.content(&found);
    let file = RootPath::literal(network::ENV_FILE);
    if args.dry_run {
        errand.show(&file, &found, &content);
        return Ok(Exit::Done);
    }
    if let Some(settings) = &settings {
        errand.compare_with_certificate(settings, &found)?;
    }
    errand.write(&file, &content).await?;
    if global.output == Format::Json {
        errand.show(&file, &found, &content);
    }
    Ok(Exit::Done)
}

/// What `setup-network-environment` did: each link's first address, and the default one. It succeeded without a default
/// address, and units that need only a link's rely on that; here that is at least said.
async fn as_old_tool(errand: &Errand<'_>, file: &RootPath) -> Result<Exit, Fault> {
    let content = match errand.find(OLD_TOOLS_PATIENCE).await {
        Ok(found) => errand.content(&found),
        Err(fault) => {
            errand.tell.tell(&Event::LeftOut { what: &fault.to_string() });
            let cluster = errand.settings.map(|settings| &settings.cluster);
            network::render(cluster, &gather::gather(&[])?, None, None)
        }
    };
    errand.write(file, &content).await?;
    Ok(Exit::Done)
}

/// Who this machine is, as far as that can be told.
struct Found {
    facts: Facts,
    /// Its name; without a configuration nobody asks for one, and a hostname that can be none is no error.
    name: Option<NodeName>,
    place: Place,
}

/// One writing of the file outside of a run: see [`crate::engine::seal`].
struct Errand<'a> {
    global: &'a Global,
    host: &'a Host,
    settings: Option<&'a Settings>,
    tell: &'a Teller,
}

impl Errand<'_> {
    /// Waits for an address, and tells what became of it.
    async fn find(&self, patience: Duration) -> Result<Found, Fault> {
        let last = node::last_address(self.host)?;
        let cluster = self.settings.map(|settings| &settings.cluster);
        let choose = |facts: &Facts, last| match self.settings {
            Some(settings) => identity::choose(&settings.node, &settings.cluster, facts, last)
                .map(|identity| (Some(identity.name), identity.place)),
            None => identity::place(&AddressChoice::Automatic, None, facts, last)
                .map(|place| (facts.hostname.to_lowercase().parse().ok(), place)),
        };
        let (facts, name, place) = node::chosen(self.global, cluster, patience, last, self.tell, choose).await?;
        node::announce(name.as_ref().map_or(&facts.hostname, NodeName::as_str), &place, last, self.tell);
        Ok(Found { facts, name, place })
    }

    fn content(&self, found: &Found) -> Rendered {
        let cluster = self.settings.map(|settings| &settings.cluster);
        network::render(cluster, &found.facts, found.name.as_ref(), Some(&found.place))
    }

    /// Warns when those who connect to this node will not take its certificate for its address.
    fn compare_with_certificate(&self, settings: &Settings, found: &Found) -> Result<(), Fault> {
        let certificate = certs::pair_path(settings, certs::KUBELET_SERVER);
        let file = self.host.root.read(&certificate)?.map(zeroize::Zeroizing::new);
        let has = file.and_then(|pem| certs::addresses_of(&pem));
        if let Some(has) = has.filter(|has| !has.contains(&found.place.address)) {
            let address = found.place.address;
            self.tell.tell(&Event::AddressNotInCertificate { address, certificate: &certificate, has: &has });
        }
        Ok(())
    }

    /// Writes the file unless it is as it should be.
    async fn write(&self, file: &RootPath, content: &Rendered) -> Result<(), Fault> {
        let turn = RootPath::literal("/run/nodeagent/network.lock");
        // Whoever names another file may be nobody who can write below /run.
        let _turn = match file.as_str() {
            network::ENV_FILE => Some(lock::take_at(turn, &self.host.root, "network", TURN, |_| ()).await?),
            _ => None,
        };
        for what in &content.left_out {
            self.tell.tell(&Event::LeftOut { what });
        }
        if self.host.root.read(file)?.as_deref() != Some(content.text.as_bytes()) {
            self.host.root.put_aside(file, content.text.as_bytes(), Meta::FILE)?;
            self.tell.tell(&Event::Refreshed { path: file });
        }
        Ok(())
    }

    fn show(&self, file: &RootPath, found: &Found, content: &Rendered) {
        match self.global.output {
            Format::Text => output::print(&content.text),
            Format::Json => output::json(&Document {
                api_version: "nodeagent.io/v1alpha1",
                kind: "Network",
                name: found.name.as_ref(),
                place: &found.place,
                file,
                content: &content.text,
                left_out: &content.left_out,
                facts: &found.facts,
            }),
        }
    }
}

/// `-o json`: where this machine is, and the file that says so.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Document<'a> {
    api_version: &'static str,
    kind: &'static str,
    name: Option<&'a NodeName>,
    #[serde(flatten)]
    place: &'a Place,
    file: &'a RootPath,
    content: &'a str,
    left_out: &'a [String],
    facts: &'a Facts,
}
