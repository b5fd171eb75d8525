//! Resolve: the document and the role's defaults become Settings; values that do not go together are refused.
//!
//! The schema has already accepted each value by itself. What is found here is reported all at once as well, and each
//! default that was used is written down, so that `plan` can show it.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::str::FromStr;

use super::defaults;
use super::document::{Artifact, Cfssl, Cluster, Document, Kernel, Kubernetes, Limits, Node, Pki};
use super::errors::Problem;
use super::places::Places;
use super::settings::{
    AddressChoice, ArtifactSettings, CertsSettings, ClusterSettings, DefaultUsed, InstallSettings, KernelSettings,
    NameChoice, NodeSettings, Rlimit, Settings, Signer, UnitLimits,
};
use super::values::{ArtifactName, BadValue, Cidr, HttpUrl, Limit, ModuleName, RootPath, Sha256, UnitName, Version};

/// The Settings of a document whose digest is `digest`, or everything in it that does not go together.
pub(super) fn resolve(document: Document, places: &Places, digest: Sha256) -> Result<Settings, Vec<Problem>> {
    let mut resolver = Resolver { places, problems: Vec::new(), defaults: Vec::new() };
    let node = resolver.node(document.node);
    let cluster = resolver.cluster(document.cluster);
    let kernel = resolver.kernel(document.kernel);
    let install = resolver.install(document.kubernetes);
    let certs = resolver.certs(document.pki);
    let limits = resolver.limits(document.limits);
    let Resolver { problems, mut defaults, .. } = resolver;
    // Where there is no signer there is a problem that says so.
    let Some(certs) = certs.filter(|_| problems.is_empty()) else { return Err(problems) };
    defaults.sort_by(|a, b| a.key.cmp(&b.key));
    Ok(Settings {
        role: document.role,
        node,
        cluster,
        kernel,
        install,
        certs,
        limits,
        origins: places.origins(),
        defaults,
        digest,
    })
}

struct Resolver<'p> {
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
        NodeSettings { name, address }
    }

    fn cluster(&mut self, cluster: Cluster) -> ClusterSettings {
        self.https("cluster.apiServer", &cluster.api_server, "the kubelet sends its credentials there");
        let pod_cidr = self.or_default("cluster.podCIDR", cluster.pod_cidr, literal(defaults::POD_CIDR));
        let service_cidr =
            self.or_default("cluster.serviceCIDR", cluster.service_cidr, literal(defaults::SERVICE_CIDR));
        if overlap(&pod_cidr, &service_cidr) {
            let message = format!("{pod_cidr} overlaps serviceCIDR {service_cidr}: no address may be both");
            let key = if cluster.pod_cidr.is_some() { "cluster.podCIDR" } else { "cluster.serviceCIDR" };
            self.refuse(key, message);
        }
        let dns = self.or_default("cluster.dns", cluster.dns, service_cidr.nth(defaults::DNS_OFFSET));
        if !service_cidr.contains(dns) && cluster.dns.is_some() {
            self.refuse("cluster.dns", format!("{dns} does not lie in serviceCIDR {service_cidr}"));
        } else if !service_cidr.contains(dns) {
            let message = format!("{service_cidr} is too small for {dns}, the default of cluster.dns: set cluster.dns");
            self.refuse("cluster.serviceCIDR", message);
        } else if dns == service_cidr.nth(1) {
            self.refuse("cluster.dns", format!("{dns} is the first of serviceCIDR: it belongs to the API server"));
        }
        let domain = self.or_default("cluster.domain", cluster.domain, literal(defaults::DOMAIN));
        ClusterSettings { api_server: cluster.api_server, pod_cidr, service_cidr, dns, domain: domain.into() }
    }

    fn kernel(&mut self, kernel: Kernel) -> KernelSettings {
        let modules = self.modules(kernel.modules);
        let mut sysctls = kernel.sysctls;
        let bridge = modules.contains(&literal(defaults::BRIDGE_MODULE));
        for (name, value) in defaults::WORKER_SYSCTLS {
            if name.starts_with(defaults::BRIDGE_SYSCTLS) && !bridge {
                continue;
            }
            sysctls.entry(literal(name)).or_insert_with(|| {
                self.used(&format!("kernel.sysctls.{name}"), value);
                value.to_owned()
            });
        }
        KernelSettings { modules, sysctls }
    }

    /// The role's modules with the user's on top.
    fn modules(&mut self, given: BTreeMap<String, bool>) -> Vec<ModuleName> {
        let mut wanted = BTreeMap::new();
        for (text, load) in given {
            let key = format!("kernel.modules.{text}");
            match text.parse::<ModuleName>() {
                Ok(name) if name.as_str() == text => drop(wanted.insert(name, load)),
                // The kernel takes both spellings for one module, and merging by key would take them for two.
                Ok(name) => self.refuse(&key, format!("write {name}: the kernel spells modules with underscores")),
                Err(error) => self.refuse(&key, error.to_string()),
            }
        }
        for name in defaults::WORKER_MODULES {
            let module: ModuleName = literal(name);
            wanted.entry(module).or_insert_with(|| {
                self.used(&format!("kernel.modules.{name}"), true);
                true
            });
        }
        wanted.into_iter().filter_map(|(name, load)| load.then_some(name)).collect()
    }

    fn install(&mut self, kubernetes: Kubernetes) -> InstallSettings {
        let version = kubernetes.version;
        let mirrors = kubernetes.mirrors.unwrap_or_else(|| {
            self.used("kubernetes.mirrors", defaults::MIRROR);
            vec![literal(defaults::MIRROR)]
        });
        for (name, _) in defaults::WORKER_ARTIFACTS {
            if !kubernetes.artifacts.contains_key(&literal::<ArtifactName>(name)) {
                let message = format!(
                    "has no digest, and nothing unverified is installed: give sha256 from \
                     {}/{version}/bin/linux/ARCH/{name}.sha256 (ARCH: amd64 or arm64)",
                    defaults::MIRROR
                );
                self.refuse(&format!("kubernetes.artifacts.{name}"), message);
            }
        }
        let artifacts = kubernetes.artifacts.into_iter();
        let artifacts = artifacts.map(|(name, given)| {
            let settings = self.artifact(&name, given, &version, &mirrors);
            (name, settings)
        });
        let artifacts = artifacts.collect();
        InstallSettings { version, mirrors, artifacts }
    }

    fn artifact(
        &mut self,
        name: &ArtifactName,
        given: Artifact,
        release: &Version,
        mirrors: &[HttpUrl],
    ) -> ArtifactSettings {
        let key = format!("kubernetes.artifacts.{name}");
        let known = defaults::WORKER_ARTIFACTS.iter().find(|(known, _)| *known == name.as_str());
        if known.is_none() {
            self.foreign_artifact(&key, &given);
        }
        let run_by = known.and_then(|(_, unit)| *unit).map(UnitName::literal).into_iter().collect();
        let given_version = given.version.map(|version| version.as_str().to_owned());
        let version = self.or_default(&format!("{key}.version"), given_version, release.to_string());
        let url_key = format!("{key}.url");
        let urls = match given.url {
            Some(url) => self.template(&url_key, &url, &version).into_iter().collect(),
            None => self.mirrored(&url_key, name, &version, mirrors),
        };
        ArtifactSettings { version, urls, sha256: given.sha256, run_by }
    }

    /// A program that is not Kubernetes's own: neither its place nor its version follows from the release.
    fn foreign_artifact(&mut self, key: &str, given: &Artifact) {
        for (name, missing) in [("url", given.url.is_none()), ("version", given.version.is_none())] {
            if missing {
                let own = defaults::WORKER_ARTIFACTS.map(|(name, _)| name).join(", ");
                self.refuse(&format!("{key}.{name}"), format!("is missing, and required for all but {own}"));
            }
        }
    }

    fn mirrored(&mut self, key: &str, name: &ArtifactName, version: &str, mirrors: &[HttpUrl]) -> Vec<HttpUrl> {
        if mirrors.is_empty() {
            self.refuse(key, "is missing, and kubernetes.mirrors is empty: there is nowhere to fetch it from");
            return Vec::new();
        }
        let urls = mirrors.iter().map(|mirror| mirror.join(&format!("{version}/bin/linux/{{arch}}/{name}")));
        let urls: Vec<HttpUrl> = urls.collect();
        let shown: Vec<&str> = urls.iter().map(HttpUrl::as_str).collect();
        self.used(key, shown.join(", "));
        urls
    }

    /// The URL with `{version}` filled in. `{arch}` stays: the architecture is a Fact, and Settings know none.
    fn template(&mut self, key: &str, url: &HttpUrl, version: &str) -> Option<HttpUrl> {
        let filled = url.as_str().replace("{version}", version);
        if filled.replace("{arch}", "").contains(['{', '}']) {
            self.refuse(key, format!("{url}: only {{arch}} and {{version}} can stand in braces"));
            return None;
        }
        filled.parse().map_err(|error: BadValue| self.refuse(key, error.to_string())).ok()
    }

    fn certs(&mut self, pki: Pki) -> Option<CertsSettings> {
        let dir = self.or_default("pki.dir", pki.dir, RootPath::literal(defaults::PKI_DIR));
        let Some(cfssl) = pki.signer.cfssl else {
            // The check has already asked for exactly one signer.
            self.refuse("pki.signer", "wants exactly one signer");
            return None;
        };
        Some(CertsSettings { dir, ca: pki.ca, signer: self.cfssl(cfssl) })
    }

    fn cfssl(&mut self, cfssl: Cfssl) -> Signer {
        const KEY: &str = "pki.signer.cfssl";
        self.https(
            &format!("{KEY}.url"),
            &cfssl.url,
            "whoever answers in its place would choose the node's certificates",
        );
        if !cfssl.accept_admin_equivalent_key {
            let message = "a cfssl authentication key on a worker is as strong as a cluster administrator's: whoever \
                           reads it can have cluster-admin certificates signed, whatever the server's policy says; if \
                           you accept that, write acceptAdminEquivalentKey: true";
            self.refuse(KEY, message);
        }
        let default = defaults::CFSSL_PROFILE.to_owned();
        let profile = self.or_default(&format!("{KEY}.profile"), cfssl.profile, default);
        Signer::Cfssl { url: cfssl.url, auth_key_file: cfssl.auth_key_file, profile }
    }

    /// The role's limits with the user's on top, directive by directive.
    fn limits(&mut self, mut given: BTreeMap<UnitName, Limits>) -> BTreeMap<UnitName, UnitLimits> {
        for (unit, _, _) in defaults::WORKER_LIMITS {
            given.entry(UnitName::literal(unit)).or_default();
        }
        let units = given.into_iter();
        let units = units.map(|(unit, limits)| {
            let settings = self.unit_limits(&unit, &limits);
            (unit, settings)
        });
        units.collect()
    }

    fn unit_limits(&mut self, unit: &UnitName, given: &Limits) -> UnitLimits {
        let key = format!("limits.{unit}");
        let by_rlimit = [
            (Rlimit::NoFile, given.no_file),
            (Rlimit::NProc, given.n_proc),
            (Rlimit::MemLock, given.mem_lock),
            (Rlimit::Core, given.core),
        ];
        let rlimits = by_rlimit.into_iter().filter_map(|(rlimit, limit)| {
            let limit = self.limit_or_default(unit, rlimit.directive(), limit)?;
            Some((rlimit, limit))
        });
        let rlimits = rlimits.collect();
        let tasks = self.limit_or_default(unit, defaults::TASKS_MAX, given.tasks_max);
        if let Some(tasks) = tasks.filter(|tasks| tasks.soft != tasks.hard) {
            let message = format!("{tasks} has two parts: a control group has one limit, a number or infinity");
            self.refuse(&format!("{key}.{}", defaults::TASKS_MAX), message);
        }
        let restart = self.or_default(&format!("{key}.restart"), given.restart, true);
        UnitLimits { rlimits, tasks_max: tasks.map(|tasks| tasks.soft), restart }
    }

    fn limit_or_default(&mut self, unit: &UnitName, directive: &str, given: Option<Limit>) -> Option<Limit> {
        let of_role = defaults::WORKER_LIMITS.iter().find(|(u, d, _)| *u == unit.as_str() && *d == directive);
        match (given, of_role) {
            (Some(limit), _) => Some(limit),
            (None, Some((_, _, text))) => {
                self.used(&format!("limits.{unit}.{directive}"), text);
                Some(literal(text))
            }
            (None, None) => None,
        }
    }
}

/// Whether two networks share an address: then the first of one lies in the other.
fn overlap(a: &Cidr, b: &Cidr) -> bool {
    a.contains(b.nth(0)) || b.contains(a.nth(0))
}

/// A value that the program itself wrote down.
///
/// # Panics
/// When the literal is a bad value, which any test that loads a configuration would show.
fn literal<T: FromStr<Err = BadValue>>(text: &str) -> T {
    match text.parse() {
        Ok(value) => value,
        Err(error) => panic!("{error}"),
    }
}
