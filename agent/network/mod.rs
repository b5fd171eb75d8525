//! The network step: writes down who the node is, for units and scripts to read.
//!
//! Replaces the writing half of `setup-network-environment`; [`crate::identity`] is the choosing half.
//!
//! - **Inputs**: Facts (links, addresses, default routes), the Identity, the cluster's networks.
//! - **Output**: `/etc/network-environment`: `DEFAULT_IPV4` and one `<IFACE>_IPV4` for each link that has an IPv4
//!   address, with the old tool's values; and what it lacked: `DEFAULT_INTERFACE`, `DEFAULT_GATEWAY`, `DEFAULT_PREFIX`,
//!   `DEFAULT_MTU`, `DEFAULT_MAC`, `DEFAULT_IPV6`, `NODE_NAME`, and as comments the reason and what was rejected.
//! - **Idempotence**: the content is a pure function of Facts and Identity, and the file is compared before it is
//!   written. What comes and goes as the node works is left out of it, so that a later run finds nothing to do:
//!   - links of containers, pods and overlays ([`crate::identity::container_link`]). The old tool listed `docker0` and
//!     `flannel.1`, when they happened to be there: it ran before Docker and flannel at a first boot, so no unit could
//!     rely on `DOCKER0_IPV4`. A second bootstrap after the first pod would differ for their sake;
//!   - rejected addresses that are shared or flawed, or IPv6: they are in the plan and in the journal.

mod envfile;

pub use envfile::render;

use crate::config::settings::{AddressChoice, Settings};
use crate::config::values::RootPath;
use crate::engine::file::ManagedFile;
use crate::engine::id::{Id, Step};
use crate::engine::resource::Planned;
use crate::host::facts::Facts;
use crate::identity::Identity;

/// Where units and scripts look for it, as since `setup-network-environment`.
pub const ENV_FILE: &str = "/etc/network-environment";

/// The env file.
pub fn plan(settings: &Settings, facts: &Facts, identity: &Identity) -> Vec<Planned> {
    let asked_by = match settings.node.address {
        AddressChoice::Interface(_) => "node.interface",
        AddressChoice::Network(_) => "node.cidr",
        AddressChoice::Automatic => "cluster.apiServer",
    };
    vec![Planned {
        id: Id::new(Step::Network, "environment"),
        why: settings.origins.of(asked_by),
        owes: Vec::new(),
        what: ManagedFile::new(RootPath::literal(ENV_FILE), render(&settings.cluster, facts, identity)),
    }]
}
