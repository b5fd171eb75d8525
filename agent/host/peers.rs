//! What [`Resource::obtain`](crate::engine::resource::Resource::obtain) may use: the network, and the scratch directory.

use super::http::Http;
use super::root::Root;
use crate::journal::Teller;

/// Other machines, and a place to put what they send.
pub struct Peers {
    /// The one HTTP client.
    pub http: Http,
    /// The tree, of which only the scratch directory is written.
    pub root: Root,
    /// Where progress goes.
    pub tell: Teller,
}
