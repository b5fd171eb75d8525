//! Resolve: the document and the role's defaults become Settings; values that do not go together are refused.
//!
//! The schema has already accepted each value by itself. What is found here is reported all at once as well, and each
//! default that was used is written down, so that `plan` can show it.

mod cluster;
mod etcd;
mod flannel;
mod install;
mod kubeadm;
mod machine;
mod pki;

use std::fmt::Display;
use std::str::FromStr;

use super::document::{Document, Node};
use super::errors::Problem;
use super::places::Places;
use super::settings::{AddressChoice, ClockSettings, DefaultUsed, NameChoice, NodeSettings, Role, Settings};
use super::values::{BadValue, HttpUrl, Sha256};

/// The Settings of a document whose digest is `digest`, or everything in it that does not go together.
pub(super) fn resolve(document: Document, places: &Places, digest: Sha256) -> Result<Settings, Vec<Problem>> {
    let role = document.role;
    let mut resolver = Resolver { role, places, problems: Vec::new(), defaults: Vec::new() };
    let node = resolver.node(document.node);
    let cluster = resolver.cluster(document.cluster, &node.name);
    let etcd = resolver.etcd(document.etcd, &cluster, &node.name);
    resolver.flannel_apart(&cluster, &etcd);
    let kernel = resolver.kernel(document.kernel, cluster.flannel.as_ref());
    let install = resolver.install(document.kubernetes, etcd.member, cluster.flannel.is_some());
    let download = resolver.download(document.download);
    let certs = resolver.certs(document.pki);
    let kubeadm = resolver.kubeadm(document.kubeadm, certs.as_ref(), &cluster);
    let limits = resolver.limits(document.limits, etcd.member);
    let manager = resolver.manager(&document.systemd);
    let Resolver { problems, mut defaults, .. } = resolver;
    // Where there is no signer there is a problem that says so.
    let Some(certs) = certs.filter(|_| problems.is_empty()) else { return Err(problems) };
    defaults.sort_by(|a, b| a.key.cmp(&b.key));
    Ok(Settings {
        role,
        node,
        cluster,
        etcd,
        kernel,
        install,
        download,
        certs,
        kubeadm,
        limits,
        clock: ClockSettings { require_sync: document.clock.require_sync },
        manager,
        origins: places.origins(),
        defaults,
        digest,
    })
}

struct Resolver<'p> {
    role: Role,
    places: &'p Places,
    problems: Vec<Problem>,
    defaults: Vec<DefaultUsed>,
}

impl Resolver<'_> {
    fn refuse(&mut self, key: &str, message: impl Into<String>) {
        self.problems.push(Problem::new(self.places.at(key), key, message));
    }

    /// Writes down that a default holds.
    fn used(&mut self, key: &str, value: impl Display) {
        self.defaults.push(DefaultUsed { key: key.to_owned(), value: value.to_string() });
    }

    /// The given value, else the default.
    fn or_default<T: Display>(&mut self, key: &str, given: Option<T>, default: T) -> T {
        given.unwrap_or_else(|| {
            self.used(key, &default);
            default
        })
    }

    fn https(&mut self, key: &str, url: &HttpUrl, why: &str) {
        if !url.is_https() {
            self.refuse(key, format!("{url} must start with https://: {why}"));
        }
    }

    fn node(&mut self, node: Node) -> NodeSettings {
        let name = node.name.map_or_else(
            || {
                self.used("node.name", "the hostname in lower case");
                NameChoice::Hostname
            },
            NameChoice::Pinned,
        );
        let address = match (node.interface, node.cidr) {
            (Some(interface), None) => AddressChoice::Interface(interface),
            (None, Some(cidr)) => AddressChoice::Network(cidr),
            (None, None) => {
                self.used("node.interface", "the one that the kernel uses towards the API server");
                AddressChoice::Automatic
            }
            (Some(interface), Some(cidr)) => {
                let message = format!("{cidr} and node.interface {interface} exclude each other: keep one of them");
                self.refuse("node.cidr", message);
                AddressChoice::Automatic
            }
        };
        NodeSettings { name, address, coreos_environment: node.coreos_environment, labels: node.labels }
    }
}

/// A value that the program itself wrote down.
///
/// # Panics
/// When the literal is a bad value, which any test that loads a configuration would show.
pub(super) fn literal<T: FromStr<Err = BadValue>>(text: &str) -> T {
    match text.parse() {
        Ok(value) => value,
        Err(error) => panic!("{error}"),
    }
}
