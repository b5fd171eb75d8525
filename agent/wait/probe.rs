//! Which try answers for which target, what counts as ready, and what tells that another try is worth it.

use std::cell::OnceCell;
use std::path::Path;

use tokio::time::Instant;

use super::http::{Cluster, HttpOptions};
use super::target::{HostPort, HttpTarget, Service, Target};
use crate::config::values::UnitName;
use crate::host::listen::ListenWatch;
use crate::host::probe::{
    Asker, BadAsker, Reason, TlsFiles, UnitProbe, addresses, connect, connect_unix, exists, is_local,
};
use crate::host::watch::FileWatch;

/// Tries targets. Its HTTP clients are made at the first use.
#[derive(Debug, Default)]
pub struct Prober {
    options: HttpOptions,
    cluster: Option<Cluster>,
    plain: OnceCell<Asker>,
    tls: OnceCell<Asker>,
    health: OnceCell<Asker>,
}

/// Which client a request goes through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Through {
    /// No TLS.
    Plain,
    /// With the files of the options.
    Tls,
    /// With those of `node.yaml` where the options name none.
    Health,
}

impl Prober {
    /// `cluster` is what `node.yaml` says, where there is one.
    pub fn new(options: HttpOptions, cluster: Option<Cluster>) -> Self {
        Self { options, cluster, ..Self::default() }
    }

    /// Makes what these targets will need, so that a bad CA file is an error at once and not a reason to wait.
    pub fn prepare(&self, targets: &[Target]) -> Result<(), BadAsker> {
        for (_, through) in targets.iter().filter_map(|target| self.request(target)) {
            self.asker(through)?;
        }
        Ok(())
    }

    /// What a target asks of a web server, if it does.
    fn request(&self, target: &Target) -> Option<(HttpTarget, Through)> {
        match target {
            Target::Http(http) => Some((http.clone(), if http.tls { Through::Tls } else { Through::Plain })),
            Target::Health(service, at) => {
                // etcd without certificates speaks plain http; the API server never does.
                let tls = *service == Service::ApiServer || self.health_files().ca.is_some();
                let server = at.clone().unwrap_or_else(|| self.usual_place(*service));
                let http = HttpTarget { tls, server, path: service.path().to_owned() };
                Some((http, if tls { Through::Health } else { Through::Plain }))
            }
            _ => None,
        }
    }

    fn usual_place(&self, service: Service) -> HostPort {
        match &self.cluster {
            Some(cluster) if service == Service::ApiServer => cluster.api_server.clone(),
            _ => HostPort { host: "127.0.0.1".to_owned(), port: service.port() },
        }
    }

    /// The options' files; where they name none, those of `node.yaml`.
    fn health_files(&self) -> TlsFiles {
        let TlsFiles { ca, cert, key } = self.options.tls.clone();
        let cluster = self.cluster.as_ref();
        let ca = ca.or_else(|| cluster.map(|cluster| cluster.ca.clone()));
        match cert {
            Some(cert) => TlsFiles { ca, cert: Some(cert), key },
            None => TlsFiles { ca, cert: cluster.and_then(|cluster| cluster.cert.clone()), key: None },
        }
    }

    async fn ask(&self, http: &HttpTarget, through: Through, until: Instant) -> Result<(), Reason> {
        let asker = self.asker(through).map_err(|error| Reason::Other(error.to_string()))?;
        let HttpOptions { method, statuses, body, .. } = &self.options;
        let server = (http.server.host.as_str(), http.server.port);
        let answer = asker.ask(method.as_str(), &http.to_string(), server, body.is_some(), until).await?;
        match body {
            _ if !statuses.accept(answer.status) => Err(Reason::Status(answer.status)),
            Some(text) if !answer.body.contains(text) => Err(Reason::Body(answer.status)),
            _ => Ok(()),
        }
    }

    fn asker(&self, through: Through) -> Result<&Asker, BadAsker> {
        let (cell, files) = match through {
            Through::Plain => (&self.plain, None),
            Through::Tls => (&self.tls, Some(self.options.tls.clone())),
            Through::Health => (&self.health, Some(self.health_files())),
        };
        if let Some(asker) = cell.get() {
            return Ok(asker);
        }
        let use_proxy = self.options.use_proxy;
        let asker = match files {
            None => Asker::plain(use_proxy)?,
            Some(files) => Asker::with_tls(&files, use_proxy)?,
        };
        Ok(cell.get_or_init(|| asker))
    }
}

/// One target under watch.
pub struct Watch<'p> {
    prober: &'p Prober,
    target: &'p Target,
    eye: Eye,
    near: bool,
    /// Nothing listened at the last try.
    refused: bool,
    /// Then, on this machine: what hears that something does.
    listen: Option<ListenWatch>,
}

/// What a target is seen by.
enum Eye {
    /// Tries alone.
    Tries,
    /// A web server.
    Http(HttpTarget, Through),
    /// Tries, and inotify, while it can be heard.
    File(Option<FileWatch>, bool),
    /// systemd, while the bus is there.
    Unit(Option<Box<UnitProbe>>),
}

impl<'p> Watch<'p> {
    /// Looks at nothing yet.
    pub fn new(prober: &'p Prober, target: &'p Target) -> Self {
        let eye = match (target, prober.request(target)) {
            (_, Some((http, through))) => Eye::Http(http, through),
            (Target::File(path) | Target::Unix(path), _) => {
                Eye::File(FileWatch::new(Path::new(path.as_str())).ok(), false)
            }
            (Target::Unit(_), _) => Eye::Unit(None),
            _ => Eye::Tries,
        };
        let mut watch = Self { prober, target, eye, near: false, refused: false, listen: None };
        watch.changed_its_answer();
        watch
    }

    /// The server that is connected to, for targets that are servers.
    fn server(&self) -> Option<&HostPort> {
        match (self.target, &self.eye) {
            (Target::Tcp(server), _) | (_, Eye::Http(HttpTarget { server, .. }, _)) => Some(server),
            _ => None,
        }
    }

    /// Whether the target is on this machine, as far as is known.
    pub fn is_near(&self) -> bool {
        self.near
    }

    /// Asks the kernel anew whether the target is on this machine, since addresses come and go.
    pub fn changed_its_answer(&mut self) {
        // A name other than `localhost` is not looked up for this, and counts as far.
        self.near = match self.server() {
            Some(server) => server.host == "localhost" || server.ip().is_some_and(is_local),
            None => !matches!(self.target, Target::Dns(_)),
        };
    }

    /// Whether changes are heard, so that tries are needed only in case one was not.
    pub fn hears(&self) -> bool {
        match &self.eye {
            // That a socket begins to listen makes no change to its file.
            Eye::File(_, armed) => *armed && !self.refused,
            Eye::Unit(probe) => probe.is_some(),
            Eye::Tries | Eye::Http(..) => self.listen.is_some(),
        }
    }

    /// One try, which ends by `until`.
    pub async fn probe(&mut self, until: Instant) -> Result<(), Reason> {
        if let Eye::File(Some(watch), armed) = &mut self.eye {
            *armed = watch.arm();
        }
        let found = match (self.target, &mut self.eye) {
            (Target::Tcp(server), _) => connect(&server.host, server.port, until).await,
            (Target::Unix(path), _) => connect_unix(Path::new(path.as_str()), until).await,
            (Target::File(path), _) => exists(Path::new(path.as_str())),
            (Target::Dns(name), _) => addresses(name, until).await.map(drop),
            (_, Eye::Http(http, through)) => {
                // Where nothing listened, a bare connection says ten times cheaper whether something does now.
                let knock = self.refused && !self.prober.options.use_proxy;
                let server = &http.server;
                let open = if knock { connect(&server.host, server.port, until).await } else { Ok(()) };
                match open {
                    Ok(()) => self.prober.ask(http, *through, until).await,
                    refused => refused,
                }
            }
            (Target::Unit(unit), Eye::Unit(probe)) => see(probe, unit, until).await,
            // `new` gives each target its eye.
            _ => Err(Reason::Other("nothing is known about it".to_owned())),
        };
        self.refused = found == Err(Reason::Refused);
        self.listen = match self.listen.take() {
            _ if !self.refused || !self.near => None,
            None => self.listen(until).await,
            old => old,
        };
        found
    }

    async fn listen(&self, until: Instant) -> Option<ListenWatch> {
        let HostPort { host, port } = self.server()?;
        let addresses = addresses(host, until).await.ok()?;
        ListenWatch::new(addresses.into_iter().map(|address| (address, *port).into()).collect())
    }

    /// Returns when another try is worth it; never where nothing tells.
    pub async fn changed(&mut self) {
        match &mut self.eye {
            Eye::File(Some(watch), true) => watch.changed().await,
            Eye::Unit(Some(probe)) => probe.changed().await,
            _ => match &mut self.listen {
                Some(listen) => {
                    listen.heard().await;
                    self.listen = None;
                }
                None => std::future::pending().await,
            },
        }
    }
}

/// Looks at a unit, connecting to the bus first where that is needed.
async fn see(probe: &mut Option<Box<UnitProbe>>, unit: &UnitName, until: Instant) -> Result<(), Reason> {
    let eye = match probe.take() {
        Some(eye) => eye,
        None => Box::new(UnitProbe::new(unit, until).await?),
    };
    let found = eye.look(until).await;
    // A bus that does not answer is connected to anew.
    *probe = (!matches!(found, Err(Reason::Other(_)))).then_some(eye);
    found
}
