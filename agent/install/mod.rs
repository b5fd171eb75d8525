//! The install step: what `kubernetes-install.sh` did, verified.
//!
//! In: `kubernetes` of Settings and the architecture. Out: `/opt/nodeagent/releases/NAME/VERSION/bin/PROGRAM` with a
//! receipt for each file fetched, and `/opt/bin/PROGRAM` as a link to it. A file is fetched to the scratch directory,
//! verified there by what vouches for it ([`trust`]), and only then are programs renamed to where they could be run.
//! Idempotent because the receipt says which very files were verified.

pub mod archive;
mod artifact;
pub mod elf;
pub mod images;
pub mod lock;
mod lockfile;
pub mod prune;
pub mod trust;

use crate::config::catalogue::IMAGES_UNIT;
use crate::config::settings::{ArtifactSettings, Settings, Vouch};
use crate::config::values::{ArtifactName, HttpUrl, UnitName, Version};
use crate::engine::change::Debt;
use crate::engine::fault::{Class, Explain};
use crate::engine::file::ManagedLink;
use crate::engine::id::{Id, Step};
use crate::engine::resource::{Planned, Thing};
use crate::host::facts::Facts;
use crate::identity::Identity;

pub use artifact::Artifact;
use lockfile::LockFile;
use trust::Trust;

/// Where a node's programs are linked.
pub use crate::config::catalogue::BIN;

/// The first minor release of Kubernetes 1 without node programs for 32-bit arm.
const WITHOUT_ARM: u32 = 27;

/// The release has no programs for this machine.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "kubernetes.version: {version} has no {name} for {architecture}: from v1.{WITHOUT_ARM} on Kubernetes ships none"
)]
pub struct NoSuchProgram {
    name: ArtifactName,
    version: String,
    architecture: String,
}

impl Explain for NoSuchProgram {
    fn class(&self) -> Class {
        Class::Usage
    }

    fn advice(&self) -> Option<String> {
        Some("nothing was touched; use arm64, an older release, or name a url of your own for each program".to_owned())
    }
}

/// Refuses, before anything is touched, a release that the machine cannot run.
pub fn check(settings: &Settings, facts: &Facts) -> Result<(), NoSuchProgram> {
    let missing = |(_, wanted): &(&ArtifactName, &ArtifactSettings)| {
        wanted.of_kubernetes
            && facts.architecture == "arm"
            && wanted.version.parse::<Version>().is_ok_and(|version| version.minor() >= WITHOUT_ARM)
    };
    match settings.install.artifacts.iter().find(missing) {
        None => Ok(()),
        Some((name, wanted)) => Err(NoSuchProgram {
            name: name.clone(),
            version: wanted.version.clone(),
            architecture: facts.architecture.clone(),
        }),
    }
}

/// Where every version of a program is kept.
pub const RELEASES: &str = "/opt/nodeagent/releases";

/// Where every version of an archive of container images is kept.
pub const IMAGES: &str = "/opt/nodeagent/images";

/// The resources of this step.
pub fn plan(settings: &Settings, facts: &Facts, _identity: &Identity) -> Vec<Planned> {
    let mut all = Vec::new();
    let release = &settings.install.version;
    if let Some(lock) = settings.install.lock.as_ref().and_then(|lock| LockFile::of(lock, release)) {
        let why = settings.origins.of("kubernetes.lock.url");
        all.push(Planned { id: Id::new(Step::Install, "lock"), why, owes: Vec::new(), what: Box::new(lock) });
    }
    for (name, wanted) in &settings.install.artifacts {
        let why = settings.origins.of(&format!("kubernetes.artifacts.{name}"));
        let for_machine = |url: &HttpUrl| url.as_str().replace("{arch}", &facts.architecture);
        let trust = match (&wanted.vouch, &settings.install.lock) {
            (Vouch::Pinned(sha256), _) => Trust::Pinned(sha256.clone()),
            (Vouch::Lock, Some(lock)) => Trust::Lock(lock.clone()),
            (Vouch::Published, _) | (Vouch::Lock, None) => Trust::Published,
        };
        let artifact = Artifact {
            name: name.clone(),
            version: wanted.version.clone(),
            urls: wanted.urls.iter().map(for_machine).collect(),
            trust,
            release: release.clone(),
            architecture: facts.architecture.clone(),
            form: wanted.form.clone(),
            rehash: settings.install.rehash,
        };
        let links: Vec<ManagedLink> = artifact
            .programs()
            .into_iter()
            .map(|program| ManagedLink {
                path: wanted.into.join(program.as_str()),
                to: artifact.place(program).to_string(),
                purpose: format!("{program} {} in use", wanted.version),
                after: vec![Thing::Stat(artifact.place(program))],
            })
            .collect();
        let id = Id::new(Step::Install, name);
        all.push(Planned { id, why: why.clone(), owes: Vec::new(), what: Box::new(artifact) });
        let programs: Vec<String> = links.iter().map(|link| link.path.name().to_owned()).collect();
        for link in links {
            let program = link.path.name();
            let of = if program == name.as_str() { String::new() } else { format!("{name}-") };
            let id = Id::new(Step::Install, format!("{of}{program}-link"));
            // Helpers that came with a later release of this program restart nothing.
            let runs = |unit: &&UnitName| unit.stem() == program || !programs.iter().any(|name| name == unit.stem());
            let owes = wanted.run_by.iter().filter(runs).cloned().map(Debt::Restart).collect();
            all.push(Planned { id, why: why.clone(), owes, what: Box::new(link) });
        }
    }
    for archive in images::archives(settings, &facts.architecture) {
        let why = settings.origins.of(&format!("kubernetes.images.{}", archive.name));
        let owes = vec![Debt::Restart(UnitName::literal(IMAGES_UNIT))];
        all.push(Planned { id: images::id(&archive.name), why, owes, what: Box::new(archive) });
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_32_bit_machine_is_told_before_anything_is_touched() {
        for (version, architecture, wanted) in [
            ("v1.34.2", "amd64", None),
            ("v1.34.2", "arm64", None),
            ("v1.26.15", "arm", None),
            ("v1.27.0", "arm", Some("kubernetes.version: v1.27.0 has no kube-proxy for arm: from v1.27 on Kubernetes")),
        ] {
            let mut settings = Settings::sample();
            for artifact in settings.install.artifacts.values_mut() {
                version.clone_into(&mut artifact.version);
            }
            let facts = Facts { architecture: architecture.to_owned(), ..Facts::sample() };
            let error = check(&settings, &facts).err().map(|error| error.to_string());
            let same = match (&error, wanted) {
                (Some(error), Some(wanted)) => error.starts_with(wanted),
                (None, None) => true,
                _ => false,
            };
            assert!(same, "{version} on {architecture}: {error:?}");
        }
    }
}
