//! The member of this node, asked through etcd's own gateway from JSON to gRPC (etcd.io/docs, "Why gRPC gateway"; `/v3`
//! since etcd 3.4), as itself: its serving pair is one for clients too.

use serde_json::{Value, json};

use crate::certs::client::{self, ClientPair};
use crate::certs::pair_path;
use crate::config::settings::Settings;
use crate::config::values::HttpUrl;
use crate::engine::fault::Fault;
use crate::host::http::cluster::Server;
use crate::host::http::{Http, HttpError};
use crate::host::root::Root;
use crate::units::ETCD_CLIENTS;

/// The pair by which a member serves its clients.
const PAIR: &str = "etcd-server";

/// Where a member of this node's is, and what it takes to speak to it.
pub struct Member {
    url: HttpUrl,
    ca: Vec<u8>,
    pair: ClientPair,
}

impl Member {
    /// Reads what it takes. Without a URL it is the member of this node.
    pub fn of(root: &Root, settings: &Settings, url: Option<HttpUrl>) -> Result<Self, Fault> {
        let here = || HttpUrl::https(std::net::Ipv4Addr::LOCALHOST.into(), ETCD_CLIENTS);
        Ok(Self {
            url: url.unwrap_or_else(here),
            ca: client::needed(root, &settings.certs.etcd.ca)?,
            pair: ClientPair::read(root, &pair_path(settings, PAIR))?,
        })
    }

    /// Where it is.
    pub fn url(&self) -> &HttpUrl {
        &self.url
    }

    /// Connections to it.
    pub fn connect<'a>(&'a self, http: &'a Http) -> Result<Server<'a>, HttpError> {
        http.server(&self.url, &self.ca, self.pair.login())
    }
}

/// The revision that the member's store has reached, if it says so. Transient failures are retried for a minute.
pub async fn revision(server: &Server<'_>) -> Result<Option<u64>, HttpError> {
    let status = server.post("/v3/maintenance/status", &json!({})).await?;
    Ok(number(&status["header"]["revision"]))
}

/// A 64-bit number, which JSON of protocol buffers has as text.
pub fn number(value: &Value) -> Option<u64> {
    value.as_str().map_or_else(|| value.as_u64(), |text| text.parse().ok())
}
