//! What is fetched, from where, and what vouches for it.

use std::collections::BTreeMap;

use super::{Resolver, literal};
use crate::config::document::{Artifact, Download, Image, Kubernetes, Lock};
use crate::config::settings::{
    ArtifactSettings, DownloadSettings, Form, ImageSettings, InstallSettings, LockSettings, Proxy, Vouch,
};
use crate::config::values::{ArtifactName, BadValue, HttpUrl, RootPath, Sha256, UnitName, Version};
use crate::config::{catalogue, defaults};

/// What all artifacts have in common.
struct Release<'a> {
    version: &'a Version,
    mirrors: &'a [HttpUrl],
    /// Whether the user named the mirrors.
    own_mirrors: bool,
    /// Whether there is a lock file.
    locked: bool,
    /// The programs of the role, with their units.
    of_role: Vec<(&'static str, Option<&'static str>)>,
}

impl Resolver<'_> {
    pub(super) fn install(&mut self, kubernetes: Kubernetes, member: bool, flannel: bool) -> InstallSettings {
        let version = kubernetes.version;
        let own_mirrors = kubernetes.mirrors.is_some();
        let mirrors = kubernetes.mirrors.unwrap_or_else(|| {
            self.used("kubernetes.mirrors", catalogue::RELEASES);
            vec![literal(catalogue::RELEASES)]
        });
        let lock = kubernetes.lock.and_then(|lock| self.lock(lock));
        let mut given = kubernetes.artifacts;
        let of_role = defaults::artifacts(self.role, member, flannel);
        for (name, _) in &of_role {
            given.entry(literal(name)).or_default();
        }
        let locked = lock.is_some();
        let release = Release { version: &version, mirrors: &mirrors, own_mirrors, locked, of_role };
        let artifacts = given.into_iter();
        let artifacts = artifacts.map(|(name, given)| {
            let settings = self.artifact(&name, given, &release);
            (name, settings)
        });
        let artifacts: BTreeMap<_, _> = artifacts.collect();
        self.no_link_twice(&artifacts);
        if !self.role.runs_pods() && !kubernetes.images.is_empty() {
            let message = format!("no container runs on a node of role {}: take them away", self.role);
            self.refuse("kubernetes.images", message);
        }
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
            let own =
                known.programs(&version).map(|(program, path)| (literal(program), catalogue::fill(path, &version)));
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
        let of_role = release.of_role.iter().find(|(of_role, _)| *of_role == name.as_str());
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

    pub(super) fn download(&mut self, given: Download) -> DownloadSettings {
        let proxy = match (given.proxy, given.no_proxy) {
            (Some(url), bypass) => Proxy::Named { url, bypass: bypass.unwrap_or_default() },
            (None, None) => Proxy::OfEnvironment,
            (None, Some(_)) => {
                self.refuse("download.noProxy", "there is no download.proxy that it could be an exception to");
                Proxy::OfEnvironment
            }
        };
        let parallel = self.or_default("download.parallel", given.parallel, defaults::PARALLEL).get().into();
        let minimum_rate = self.or_default("download.minimumRate", given.minimum_rate, defaults::MINIMUM_RATE);
        let stall_after = self.or_default("download.stallAfter", given.stall_after, defaults::STALL_AFTER).duration();
        let deadline = self.or_default("download.deadline", given.deadline, defaults::DOWNLOAD_DEADLINE).duration();
        let roots = given.ca.into_iter().collect();
        DownloadSettings { parallel, proxy, roots, minimum_rate, stall_after, deadline }
    }
}
