//! Resolve: the document and the role's defaults become Settings; values that do not go together are refused.
//!
//! The schema has already accepted each value by itself. What is found here is reported all at once as well, and each
//! default that was used is written down, so that `plan` can show it.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::str::FromStr;

use super::document::{
    Artifact, Cfssl, Cluster, Document, Download, Image, Kernel, Kubernetes, KubernetesSigner, Limits, Local, Lock,
    Manager, Node, Pki,
};
use super::errors::Problem;
use super::places::Places;
use super::settings::{
    AddressChoice, ArtifactSettings, CertsSettings, ClockSettings, ClusterSettings, DefaultUsed, DownloadSettings,
    Form, ImageSettings, InstallSettings, KernelSettings, KeyKind, LockSettings, ManagerLimits, NameChoice,
    NodeSettings, Proxy, Rlimit, Role, Settings, Signer, UnitLimits, Vouch,
};
use super::values::{ArtifactName, BadValue, Cidr, HttpUrl, Limit, ModuleName, RootPath, Sha256, UnitName, Version};
use super::{catalogue, defaults};

/// The Settings of a document whose digest is `digest`, or everything in it that does not go together.
pub(super) fn resolve(document: Document, places: &Places, digest: Sha256) -> Result<Settings, Vec<Problem>> {
    let mut resolver = Resolver { places, problems: Vec::new(), defaults: Vec::new() };
    let node = resolver.node(document.node);
    let cluster = resolver.cluster(document.cluster);
    let kernel = resolver.kernel(document.kernel);
    let install = resolver.install(document.kubernetes);
    let download = resolver.download(document.download);
    let certs = resolver.certs(document.pki);
    let limits = resolver.limits(document.role, document.limits);
    let manager = resolver.manager(&document.systemd);
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
        download,
        certs,
        limits,
        clock: ClockSettings { require_sync: document.clock.require_sync },
        manager,
        origins: places.origins(),
        defaults,
        digest,
    })
}

/// What all artifacts have in common.
struct Release<'a> {
    version: &'a Version,
    mirrors: &'a [HttpUrl],
    /// Whether the user named the mirrors.
    own_mirrors: bool,
    /// Whether there is a lock file.
    locked: bool,
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
        NodeSettings { name, address, coreos_environment: node.coreos_environment }
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
        let Cluster { api_server, peers, .. } = cluster;
        ClusterSettings { api_server, peers, pod_cidr, service_cidr, dns, domain: domain.into() }
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
        let swap = self.or_default("kernel.swap", kernel.swap, false);
        KernelSettings { modules, sysctls, swap }
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
        let own_mirrors = kubernetes.mirrors.is_some();
        let mirrors = kubernetes.mirrors.unwrap_or_else(|| {
            self.used("kubernetes.mirrors", catalogue::RELEASES);
            vec![literal(catalogue::RELEASES)]
        });
        let lock = kubernetes.lock.and_then(|lock| self.lock(lock));
        let mut given = kubernetes.artifacts;
        for (name, _) in defaults::WORKER_ARTIFACTS {
            given.entry(literal(name)).or_default();
        }
        let release = Release { version: &version, mirrors: &mirrors, own_mirrors, locked: lock.is_some() };
        let artifacts = given.into_iter();
        let artifacts = artifacts.map(|(name, given)| {
            let settings = self.artifact(&name, given, &release);
            (name, settings)
        });
        let artifacts: BTreeMap<_, _> = artifacts.collect();
        self.no_link_twice(&artifacts);
        let images = kubernetes.images.into_iter().map(|(name, given)| {
            let settings = self.image(&name, given);
            (name, settings)
        });
        let images = images.collect();
        InstallSettings { version, mirrors, lock, artifacts, images, rehash: false }
    }

    fn image(&mut self, name: &ArtifactName, given: Image) -> ImageSettings {
        if given.url.as_str().replace("{arch}", "").contains(['{', '}']) {
            let message = format!("{}: only {{arch}} can stand in braces", given.url);
            self.refuse(&format!("kubernetes.images.{name}.url"), message);
        }
        ImageSettings { url: given.url, sha256: given.sha256 }
    }

    fn lock(&mut self, lock: Lock) -> Option<LockSettings> {
        const KEY: &str = "kubernetes.lock";
        if lock.signature.is_some() && lock.key.is_none() {
            self.refuse(
                &format!("{KEY}.signature"),
                "there is no key that could have made it: give kubernetes.lock.key",
            );
        }
        match (lock.file, lock.url, lock.sha256, lock.key) {
            (Some(file), None, None, None) => Some(LockSettings::File(file)),
            (None, Some(url), Some(sha256), None) => Some(LockSettings::Pinned { url, sha256 }),
            (None, Some(url), None, Some(key)) => {
                let default = url.with_suffix(".sig");
                let signature = self.or_default(&format!("{KEY}.signature"), lock.signature, default);
                Some(LockSettings::Signed { url, signature, key })
            }
            _ => {
                self.refuse(KEY, "wants either file, or url with sha256, or url with key");
                None
            }
        }
    }

    fn artifact(&mut self, name: &ArtifactName, given: Artifact, release: &Release<'_>) -> ArtifactSettings {
        let key = format!("kubernetes.artifacts.{name}");
        let known = catalogue::known(name.as_str());
        let of_kubernetes = catalogue::KUBERNETES.contains(&name.as_str()) && given.url.is_none();
        if known.is_none() && !catalogue::KUBERNETES.contains(&name.as_str()) {
            self.foreign_artifact(&key, &given, release);
        } else if known.is_some() && given.version.is_none() {
            self.refuse(&format!("{key}.version"), "is missing: it does not follow from the release of Kubernetes");
        }
        let given_version = given.version.map(|version| version.as_str().to_owned());
        let version = self.or_default(&format!("{key}.version"), given_version, release.version.to_string());
        let url_key = format!("{key}.url");
        let urls = match given.url {
            Some(url) => self.template(&url_key, &url, &version).into_iter().collect(),
            None => self.mirrored(&url_key, name, &version, known, release),
        };
        let vouch = self.vouch(&key, given.sha256, &urls, release);
        let members = given.members.into_iter().map(|(program, path)| (program, catalogue::fill(&path, &version)));
        let mut members: BTreeMap<ArtifactName, String> = members.collect();
        if let (Some(known), true) = (known, members.is_empty()) {
            let own = known.members.iter().map(|(program, path)| (literal(program), catalogue::fill(path, &version)));
            members = own.collect();
        }
        for (program, path) in &members {
            let odd = |part: &str| part.is_empty() || part == "." || part == "..";
            if path.replace("{arch}", "").contains(['{', '}']) || path.split('/').any(odd) {
                let message = format!(
                    "{path}: wants a plain path such as bin/{program}; {{arch}} and {{version}} may stand in it"
                );
                self.refuse(&format!("{key}.members.{program}"), message);
            }
        }
        let of_role = defaults::WORKER_ARTIFACTS.iter().find(|(of_role, _)| *of_role == name.as_str());
        ArtifactSettings {
            version,
            urls,
            of_kubernetes,
            vouch,
            form: if members.is_empty() { Form::Program } else { Form::Archive(members) },
            into: literal(known.map_or(catalogue::BIN, |known| known.into)),
            run_by: of_role.and_then(|(_, unit)| *unit).map(UnitName::literal).into_iter().collect(),
        }
    }

    /// What vouches for an artifact: the strongest that there is. Plain http needs a digest.
    fn vouch(&mut self, key: &str, given: Option<Sha256>, urls: &[HttpUrl], release: &Release<'_>) -> Vouch {
        match given {
            Some(sha256) => return Vouch::Pinned(sha256),
            None if release.locked => return Vouch::Lock,
            None => {}
        }
        if let Some(url) = urls.iter().find(|url| !url.is_https()) {
            let message = format!(
                "has no digest, and nothing vouches for what {url} gives over plain http: give kubernetes.lock \
                 (`nodeagent lock {}` makes it) or sha256, or fetch over https",
                release.version
            );
            self.refuse(key, message);
        }
        self.used(&format!("{key}.sha256"), "the checksum beside it on its server");
        Vouch::Published
    }

    /// A program that nobody here knows: neither its place nor its version follows from the release.
    fn foreign_artifact(&mut self, key: &str, given: &Artifact, release: &Release<'_>) {
        let undigested = given.sha256.is_none() && !release.locked;
        for (name, missing) in
            [("url", given.url.is_none()), ("version", given.version.is_none()), ("sha256", undigested)]
        {
            if missing {
                let others = catalogue::KUBERNETES.into_iter().chain(catalogue::KNOWN.iter().map(|known| known.name));
                let others: Vec<&str> = others.collect();
                self.refuse(
                    &format!("{key}.{name}"),
                    format!("is missing, and required for all but {}", others.join(", ")),
                );
            }
        }
    }

    /// Two programs of one name would take turns at their link.
    fn no_link_twice(&mut self, artifacts: &BTreeMap<ArtifactName, ArtifactSettings>) {
        let mut linked: BTreeMap<(&RootPath, &ArtifactName), &ArtifactName> = BTreeMap::new();
        for (name, artifact) in artifacts {
            let programs: Vec<&ArtifactName> = match &artifact.form {
                Form::Program => vec![name],
                Form::Archive(members) => members.keys().collect(),
                Form::Images => Vec::new(),
            };
            for program in programs {
                if let Some(other) = linked.insert((&artifact.into, program), name) {
                    let message = format!("{program} would be linked twice: {other} has a program of that name, too");
                    self.refuse(&format!("kubernetes.artifacts.{name}"), message);
                }
            }
        }
    }

    /// Where a release mirror has it; of other maintainers' releases, then where they publish it themselves.
    fn mirrored(
        &mut self,
        key: &str,
        name: &ArtifactName,
        version: &str,
        known: Option<&catalogue::Known>,
        release: &Release<'_>,
    ) -> Vec<HttpUrl> {
        let upstream = known.map(|known| literal::<HttpUrl>(&catalogue::fill(known.url, version)));
        let path = match &upstream {
            Some(url) => catalogue::mirror_path(name.as_str(), version, url.as_str()),
            None => catalogue::kubernetes_path(version, "{arch}", name.as_str()),
        };
        // Kubernetes' own server has only Kubernetes.
        let mirrors = release.mirrors.iter().filter(|_| release.own_mirrors || upstream.is_none());
        let mut urls: Vec<HttpUrl> = mirrors.map(|mirror| mirror.join(&path)).collect();
        urls.extend(upstream);
        if urls.is_empty() {
            self.refuse(key, "is missing, and kubernetes.mirrors is empty: there is nowhere to fetch it from");
            return Vec::new();
        }
        let shown: Vec<&str> = urls.iter().map(HttpUrl::as_str).collect();
        self.used(key, shown.join(", "));
        urls
    }

    /// The URL with `{version}` filled in. `{arch}` stays: the architecture is a Fact, and Settings know none.
    fn template(&mut self, key: &str, url: &HttpUrl, version: &str) -> Option<HttpUrl> {
        let filled = catalogue::fill(url.as_str(), version);
        if filled.replace("{arch}", "").contains(['{', '}']) {
            self.refuse(key, format!("{url}: only {{arch}} and {{version}} can stand in braces"));
            return None;
        }
        filled.parse().map_err(|error: BadValue| self.refuse(key, error.to_string())).ok()
    }

    fn download(&mut self, given: Download) -> DownloadSettings {
        let proxy = match (given.proxy, given.no_proxy) {
            (Some(url), bypass) => Proxy::Named { url, bypass: bypass.unwrap_or_default() },
            (None, None) => Proxy::OfEnvironment,
            (None, Some(_)) => {
                self.refuse("download.noProxy", "there is no download.proxy that it could be an exception to");
                Proxy::OfEnvironment
            }
        };
        let parallel = self.or_default("download.parallel", given.parallel, defaults::PARALLEL).get();
        let minimum_rate = self.or_default("download.minimumRate", given.minimum_rate, defaults::MINIMUM_RATE);
        let stall_after = self.or_default("download.stallAfter", given.stall_after, defaults::STALL_AFTER).duration();
        let deadline = self.or_default("download.deadline", given.deadline, defaults::DOWNLOAD_DEADLINE).duration();
        let roots = given.ca.into_iter().collect();
        DownloadSettings { parallel, proxy, roots, minimum_rate, stall_after, deadline }
    }

    fn certs(&mut self, pki: Pki) -> Option<CertsSettings> {
        let dir = self.or_default("pki.dir", pki.dir, RootPath::literal(defaults::PKI_DIR));
        let key = self.or_default("pki.key", pki.key, KeyKind::default());
        let signer = match (pki.signer.kubernetes, pki.signer.local, pki.signer.cfssl, pki.signer.offline) {
            (Some(kubernetes), None, None, None) => self.kubernetes_signer(kubernetes),
            (None, Some(local), None, None) => self.local(local),
            (None, None, Some(cfssl), None) => self.cfssl(cfssl),
            (None, None, None, Some(offline)) => Signer::Offline { dir: offline.dir },
            _ => {
                // The check has already asked for exactly one signer.
                self.refuse("pki.signer", "wants exactly one signer");
                return None;
            }
        };
        Some(CertsSettings { dir, ca: pki.ca, key, signer })
    }

    fn kubernetes_signer(&mut self, given: KubernetesSigner) -> Signer {
        let deadline = self.or_default("pki.signer.kubernetes.deadline", given.deadline, defaults::APPROVAL_DEADLINE);
        Signer::Kubernetes { token_file: given.token_file, ca_hash: given.ca_hash, deadline: deadline.duration() }
    }

    fn local(&mut self, local: Local) -> Signer {
        let remove_after_use = self.or_default("pki.signer.local.removeAfterUse", local.remove_after_use, false);
        Signer::Local { key: local.key, remove_after_use }
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
    fn limits(&mut self, role: Role, mut given: BTreeMap<UnitName, Limits>) -> BTreeMap<UnitName, UnitLimits> {
        for unit in defaults::limited_units(role) {
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
        let tasks_max = tasks.map(|tasks| self.one_number(&format!("{key}.{}", defaults::TASKS_MAX), tasks));
        let restart = self.or_default(&format!("{key}.restart"), given.restart, true);
        UnitLimits { rlimits, tasks_max, restart, in_place: given.in_place.unwrap_or(false) }
    }

    fn manager(&mut self, given: &Manager) -> ManagerLimits {
        let tasks_max = given.tasks_max.map(|tasks| self.one_number("systemd.DefaultTasksMax", tasks));
        ManagerLimits { tasks_max, no_file: given.no_file }
    }

    /// A control group's limit.
    fn one_number(&mut self, key: &str, tasks: Limit) -> u64 {
        if tasks.soft != tasks.hard {
            let message = format!("{tasks} has two parts: a control group has one limit, a number or infinity");
            self.refuse(key, message);
        }
        tasks.soft
    }

    fn limit_or_default(&mut self, unit: &UnitName, directive: &str, given: Option<Limit>) -> Option<Limit> {
        let known = defaults::LIMITS.iter().find(|(u, d, _)| *u == unit.as_str() && *d == directive);
        match (given, known) {
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
