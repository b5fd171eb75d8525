//! What a cluster needs that no single node can give itself: the objects that a fresh one lacks, and an approver of
//! certificate requests.
//!
//! Replaces what people run once by hand after the control plane is up (`kubectl apply` of bindings and add-ons, `kubeadm
//! token create`, `kubectl label` and `taint`), and `kubectl certificate approve` for every node, each time.
//!
//! *Inputs*: the inventory `cluster.nodes`, the administrator's pair and the CA in `pki.dir`, the bootstrap tokens in
//! `/etc/nodeagent/bootstrap-tokens.yaml`, the manifests in `/etc/kubernetes/addons/`.
//! *Outputs*: objects in the cluster, through the API server of this controller; nothing on this machine.
//! *What makes it idempotent*: of all controllers one works, the holder of a Lease ([`election`]). Each text of a manifest is
//! applied once, which stands on the object ([`apply`]); what is to be done once even where its object is gone is noted in
//! the cluster ([`memo`]); a request that is decided is never touched.

mod api;
mod apply;
mod approver;
mod basis;
mod complete;
mod core_dns;
mod election;
mod judge;
mod memo;
mod nodes;
mod objects;
mod pass;
pub mod tokens;

use std::convert::Infallible;
use std::net::IpAddr;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use self::api::Api;
use self::approver::{Approver, Left, REQUESTS};
use self::basis::Basis;
use self::election::{Election, PAUSE, Standing};
use self::nodes::{Marker, NODES};
use self::pass::Pass;
use crate::config::Settings;
use crate::config::values::{HttpUrl, NodeName};
use crate::engine::fault::Fault;
use crate::host::Host;
use crate::host::http::{Http, HttpError};
use crate::host::notify;
use crate::host::retry::{News, Policy};
use crate::host::signals::Ending;
use crate::journal::{Event, Teller};

/// Between two beginnings. An API server that starts anew takes seconds.
const PAUSES: Policy =
    Policy { first: Duration::from_millis(200), cap: Duration::from_secs(5), growth: 2.0, jitter: 0.5 };

/// What has worked for this long begins anew without a pause.
const GOOD: Duration = Duration::from_secs(30);

/// For letting go of the Lease at the end.
const FAREWELL: Duration = Duration::from_secs(8);

/// A controller that looks after the cluster while it holds the Lease.
pub struct Service<'a, S> {
    /// This machine's files.
    pub host: &'a Host,
    /// The one HTTP client.
    pub http: &'a Http,
    /// Where it tells what it does.
    pub tell: &'a Teller,
    /// Who this controller is.
    pub name: NodeName,
    /// Where its API server listens.
    pub address: IpAddr,
    /// Reads the configuration as it is now.
    pub settings: S,
}

impl<S: Fn() -> Result<Settings, Fault>> Service<'_, S> {
    /// Works, or stands by, until somebody asks it to end.
    pub async fn run(&self, mut ending: Ending) -> Result<(), Fault> {
        let mut election = Election::new(format!("{}_{}", self.name, basis::nonce()?));
        tokio::select! {
            () = ending.asked() => {}
            never = self.always(&mut election) => match never {},
        }
        notify::stopping();
        // Who waits for the Lease gets it fifteen seconds later at the latest.
        let _ = timeout(FAREWELL, self.farewell(&mut election)).await;
        Ok(())
    }

    async fn farewell(&self, election: &mut Election) -> Result<(), Fault> {
        let basis = self.basis()?;
        let url = self.url(&basis);
        Ok(election.give_up(&self.api(&basis, &url)?).await?)
    }

    /// One session after the other.
    async fn always(&self, election: &mut Election) -> Infallible {
        let mut news = News::default();
        let mut pauses = PAUSES.pauses();
        let mut left = Left::new();
        loop {
            let begun = Instant::now();
            match self.session(election, &mut left).await {
                // Another inventory has other reasons.
                Ok(()) => left.clear(),
                Err(fault) => {
                    let why = fault.to_string();
                    if news.is_new(&why) {
                        let advice = fault.advice.as_deref().unwrap_or_default();
                        self.tell.tell(&Event::ClusterInterrupted { why: &why, advice });
                    }
                    if begun.elapsed() > GOOD {
                        pauses = PAUSES.pauses();
                    }
                    sleep(pauses.next().unwrap_or(PAUSES.cap)).await;
                }
            }
        }
    }

    /// Stands by, then works, until something fails, or what it works by has changed.
    async fn session(&self, election: &mut Election, left: &mut Left) -> Result<(), Fault> {
        let basis = self.basis()?;
        let url = self.url(&basis);
        let api = self.api(&basis, &url)?;
        tokio::select! {
            never = self.stand_by(election, &api) => never?,
            () = self.changed(&basis) => return Ok(()),
        }
        let settings = &basis.settings;
        let inventory = &settings.cluster.nodes;
        let mut approver = Approver::new(&api, self.tell, inventory, left);
        let mut marker = Marker::new(&api, self.tell, inventory, &settings.install.version).await?;
        let mut pass = Pass::new(&api, self.tell, &self.host.root, &basis).await?;
        let never: Result<Infallible, HttpError> = tokio::select! {
            () = self.changed(&basis) => return Ok(()),
            lost = election.keep(&api) => lost,
            failed = api.follow(REQUESTS, async |met, object| approver.see(met, object).await) => failed,
            failed = api.follow(NODES, async |met, object| marker.see(met, object).await) => failed,
            failed = pass.always() => failed,
        };
        match never? {}
    }

    /// Returns when this process holds the Lease.
    async fn stand_by(&self, election: &mut Election, api: &Api<'_>) -> Result<(), HttpError> {
        let mut told = String::new();
        loop {
            let standing = election.claim(api).await?;
            let (holder, ours) = match &standing {
                Standing::Ours => (self.name.as_str(), true),
                Standing::Theirs(holder) => (holder.as_str(), false),
            };
            if told != holder {
                holder.clone_into(&mut told);
                self.tell.tell(&Event::ClusterLed { holder, ours });
                notify::ready();
            }
            if ours {
                return Ok(());
            }
            sleep(PAUSE).await;
        }
    }

    /// Returns when what the session began with is not what it would begin with now.
    async fn changed(&self, basis: &Basis) {
        let mut news = News::default();
        loop {
            sleep(basis::REREAD).await;
            match self.basis() {
                Ok(now) if now == *basis => {}
                Ok(_) => return,
                // What was read last still holds.
                Err(fault) => {
                    let why = fault.to_string();
                    if news.is_new(&why) {
                        let advice = fault.advice.as_deref().unwrap_or_default();
                        self.tell.tell(&Event::ClusterObjectFailed { what: "the configuration", why: &why, advice });
                    }
                }
            }
        }
    }

    fn basis(&self) -> Result<Basis, Fault> {
        Basis::read(&self.host.root, (self.settings)()?)
    }

    /// This controller's own API server: it answers whatever has become of the others, and of what stands before them.
    fn url(&self, basis: &Basis) -> HttpUrl {
        HttpUrl::https(self.address, basis.settings.cluster.api_port)
    }

    fn api<'b>(&'b self, basis: &Basis, url: &'b HttpUrl) -> Result<Api<'b>, Fault> {
        Ok(Api(self.http.server(url, &basis.ca, basis.login())?))
    }
}
