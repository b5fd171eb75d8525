//! The network step: writes down who the node is, for units and scripts to read.
//!
//! Replaces the writing half of `setup-network-environment`; [`crate::identity`] is the choosing half.
//!
//! - **Inputs**: Facts (links, addresses, default routes), the Identity, the cluster's networks.
//! - **Output**: `/etc/network-environment`: `DEFAULT_IPV4` and one `<IFACE>_IPV4` for each link that has an IPv4
//!   address, with the old tool's values; and what it lacked: `DEFAULT_INTERFACE`, `DEFAULT_GATEWAY`, `DEFAULT_PREFIX`,
//!   `DEFAULT_MTU`, `DEFAULT_MAC`, `DEFAULT_IPV6`, `DEFAULT_HOSTNAME`, `NODE_NAME`, and as comments the reason and what
//!   was rejected. With `node.coreosEnvironment` also our block in `/etc/environment`.
//! - **Idempotence**: the content is a pure function of Facts and Identity, and the file is compared before it is
//!   written. What comes and goes as the node works is left out of it, so that a later run finds nothing to do:
//!   - links of containers, pods and overlays ([`crate::identity::container_link`]). The old tool listed `docker0` and
//!     `flannel.1`, when they happened to be there: it ran before Docker and flannel at a first boot, so no unit could
//!     rely on `DOCKER0_IPV4`. A second bootstrap after the first pod would differ for their sake;
//!   - rejected addresses that are shared or flawed, or IPv6: they are in the plan and in the journal.
//!
//! The same file is refreshed at each boot (`nodeagent network --boot`), outside of any run: see [`crate::engine::seal`].

mod coreos;
mod envfile;

pub use envfile::{Rendered, last_address, render};

use coreos::CoreosEnvironment;

use crate::config::settings::{AddressChoice, Settings};
use crate::config::values::RootPath;
use crate::engine::file::ManagedFile;
use crate::engine::id::{Id, Step};
use crate::engine::resource::{Planned, Resource};
use crate::host::facts::Facts;
use crate::identity::Identity;

/// Where units and scripts look for it, as since `setup-network-environment`.
pub const ENV_FILE: &str = "/etc/network-environment";

/// The env file, and our block in `/etc/environment` if it is wanted.
pub fn plan(settings: &Settings, facts: &Facts, identity: &Identity) -> Vec<Planned> {
    let asked_by = match settings.node.address {
        AddressChoice::Interface(_) => "node.interface",
        AddressChoice::Network(_) => "node.cidr",
        AddressChoice::Listed(_) => "cluster.nodes",
        AddressChoice::Automatic => "cluster.apiServer",
    };
    let planned = |name: &str, asked_by: &str, what: Box<dyn Resource>| Planned {
        id: Id::new(Step::Network, name),
        why: settings.origins.of(asked_by),
        owes: Vec::new(),
        what,
    };
    let content = render(Some(&settings.cluster), facts, Some(&identity.name), Some(&identity.place));
    let file = ManagedFile::new(RootPath::literal(ENV_FILE), content.text);
    let mut all = vec![planned("environment", asked_by, file)];
    if settings.node.coreos_environment {
        let what = CoreosEnvironment::new(&settings.cluster, facts, identity);
        all.push(planned("coreos-environment", "node.coreosEnvironment", Box::new(what)));
    }
    all
}
