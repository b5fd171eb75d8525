//! Container images: archives that are fetched and verified as programs are, and imported into containerd.
//!
//! Which images an archive holds is read once, when it is placed, and kept in its receipt. containerd is asked through its
//! own `ctr`, which every containerd brings: its gRPC API would add tonic, prost and h2 to this program for two calls.

use std::io::{self, Read, Write};
use std::time::{Duration, Instant};

use serde::Deserialize;

use super::archive::{self, ArchiveError};
use super::{Artifact, trust::Trust};
use crate::config::settings::{Form, Settings};
use crate::config::values::{ArtifactName, Sha256};
use crate::engine::fault::{Class, Explain, Fault, quote};
use crate::engine::id::{Id, Step};
use crate::engine::receipt::Receipt;
use crate::host::process::{self, ProcessError};
use crate::host::root::Root;
use crate::host::seen::Entry;
use crate::journal::{Event, Teller};

/// The longest index that is read, in bytes: a few hundred per image.
const LONGEST_INDEX: usize = 1 << 22;

/// The longest name of an image (255 for the repository, 128 for the tag, and some for the rest).
const LONGEST_NAME: usize = 512;

/// The label of an image in containerd that says out of which archive, by its digest, it was imported.
const LABEL: &str = "nodeagent.io/archive";

/// The label that keeps the kubelet from removing an image that could not be fetched again. A containerd that is too old to
/// know it ignores it (containerd's pull request 8867).
const PINNED: &str = "io.cri-containerd.pinned=pinned";

/// For containerd to answer a question.
const ASK: Duration = Duration::from_secs(30);

/// For containerd to import one archive: some gigabytes on a slow disk.
const IMPORT: Duration = Duration::from_mins(8);

/// The name of an archive's resource.
pub fn id(name: &ArtifactName) -> Id {
    Id::new(Step::Install, format!("images-{name}"))
}

/// The archives that the configuration asks for.
pub fn archives(settings: &Settings, architecture: &str) -> Vec<Artifact> {
    let install = &settings.install;
    let archive = |(name, wanted): (&ArtifactName, &crate::config::settings::ImageSettings)| Artifact {
        name: name.clone(),
        version: wanted.sha256.short().to_owned(),
        urls: vec![wanted.url.as_str().replace("{arch}", architecture)],
        trust: Trust::Pinned(wanted.sha256.clone()),
        release: install.version.clone(),
        architecture: architecture.to_owned(),
        form: Form::Images,
        rehash: install.rehash,
    };
    install.images.iter().map(archive).collect()
}

/// A file is no archive of images that a node could use.
#[derive(Debug, thiserror::Error)]
pub enum ImagesError {
    /// It cannot be read.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// It is a tar archive, but not of images.
    #[error("it is no archive of container images: {0}")]
    NotImages(String),
    /// An image has no name by which a pod could ask for it.
    #[error("an image in it has no name that a pod could ask for, such as registry.example/pause:3.10: {0}")]
    Nameless(String),
}

impl Explain for ImagesError {
    fn class(&self) -> Class {
        match self {
            Self::Archive(error) => error.class(),
            _ => Class::Verification,
        }
    }

    fn advice(&self) -> Option<String> {
        match self {
            Self::Archive(error) => error.advice(),
            _ => Some("make it with `docker save NAME:TAG` or `ctr images export FILE NAME:TAG`".to_owned()),
        }
    }
}

/// An OCI image layout's `index.json`.
#[derive(Deserialize)]
struct Index {
    manifests: Vec<Descriptor>,
}

#[derive(Deserialize)]
struct Descriptor {
    #[serde(default)]
    annotations: Annotations,
}

#[derive(Default, Deserialize)]
struct Annotations {
    #[serde(rename = "io.containerd.image.name")]
    full: Option<String>,
    #[serde(rename = "org.opencontainers.image.ref.name")]
    reference: Option<String>,
}

/// An entry of `manifest.json`, as docker writes it.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Saved {
    repo_tags: Option<Vec<String>>,
}

/// The names of the images in an archive, as containerd will call them: at least one, sorted.
///
/// As containerd does, the OCI layout is believed where there is one, and docker's manifest else.
pub fn names(archive: impl Read) -> Result<Vec<String>, ImagesError> {
    let [layout, index, saved] = indexes(archive)?;
    let mut names = match (layout, index, saved) {
        (Some(_), Some(index), _) => of_index(&index)?,
        (_, _, Some(saved)) => of_docker(&saved)?,
        _ => {
            let why = "it has neither manifest.json (docker) nor oci-layout and index.json (OCI)";
            return Err(ImagesError::NotImages(why.to_owned()));
        }
    };
    names.sort();
    names.dedup();
    if names.is_empty() {
        return Err(ImagesError::NotImages("it lists no image".to_owned()));
    }
    Ok(names)
}

/// The files of an archive that say what is in it.
fn indexes(archive: impl Read) -> Result<[Option<Vec<u8>>; 3], ImagesError> {
    const FILES: [&str; 3] = ["oci-layout", "index.json", "manifest.json"];
    let mut kept: [Vec<u8>; 3] = Default::default();
    let cells = std::cell::RefCell::new(&mut kept);
    let taken = archive::take_some(archive, &FILES, |at| Ok(Kept { all: &cells, at }));
    let (taken, _) = taken.map_err(|error| match error {
        ArchiveError::Write(why) => ImagesError::NotImages(why.to_string()),
        other => other.into(),
    })?;
    let mut taken = taken.into_iter();
    Ok(kept.map(|bytes| taken.next().flatten().map(|_| bytes)))
}

/// One of the files, in memory.
struct Kept<'a, 'b> {
    all: &'a std::cell::RefCell<&'b mut [Vec<u8>; 3]>,
    at: usize,
}

impl Write for Kept<'_, '_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let file = &mut self.all.borrow_mut()[self.at];
        if file.len() + bytes.len() > LONGEST_INDEX {
            return Err(io::Error::other(format!("its index is longer than {} MiB", LONGEST_INDEX >> 20)));
        }
        file.extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn of_index(bytes: &[u8]) -> Result<Vec<String>, ImagesError> {
    let index: Index = parse("index.json", bytes)?;
    let name = |descriptor: Descriptor| match descriptor.annotations {
        Annotations { full: Some(name), .. } => checked(name),
        // `ctr` gives a mere tag a repository that changes by the day.
        Annotations { reference: Some(name), .. } if name.contains(['/', ':', '@']) => checked(name),
        Annotations { reference, .. } => {
            let tag = reference.map_or_else(|| "nothing names it".to_owned(), |tag| format!("{:?}", quote(&tag)));
            Err(ImagesError::Nameless(tag))
        }
    };
    index.manifests.into_iter().map(name).collect()
}

fn of_docker(bytes: &[u8]) -> Result<Vec<String>, ImagesError> {
    let all: Vec<Saved> = parse("manifest.json", bytes)?;
    let tags = |saved: Saved| match saved.repo_tags {
        Some(tags) if !tags.is_empty() => tags.into_iter().map(|tag| checked(normal(&tag))).collect(),
        _ => vec![Err(ImagesError::Nameless("nothing names it".to_owned()))],
    };
    all.into_iter().flat_map(tags).collect()
}

fn parse<'b, T: Deserialize<'b>>(name: &str, bytes: &'b [u8]) -> Result<T, ImagesError> {
    serde_json::from_slice(bytes)
        .map_err(|error| ImagesError::NotImages(format!("{name}: {}", quote(&error.to_string()))))
}

/// Docker's short names in full, as containerd stores them: `pause` is `docker.io/library/pause:latest`.
fn normal(tag: &str) -> String {
    let (domain, path) = match tag.split_once('/') {
        Some(("index.docker.io", path)) => ("docker.io", path),
        Some((domain, path)) if domain.contains(['.', ':']) || domain == "localhost" => (domain, path),
        _ => ("docker.io", tag),
    };
    let official = if domain == "docker.io" && !path.contains('/') { "library/" } else { "" };
    let latest = if path.contains([':', '@']) { "" } else { ":latest" };
    format!("{domain}/{official}{path}{latest}")
}

/// A name that is safe as an argument and in a message.
fn checked(name: String) -> Result<String, ImagesError> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-/:@+[]".contains(c);
    let begins = name.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '[');
    if begins && name.len() <= LONGEST_NAME && name.chars().all(plain) {
        return Ok(name);
    }
    Err(ImagesError::Nameless(format!("{:?}", quote(&name))))
}

/// An archive's images are not in containerd.
#[derive(Debug, thiserror::Error)]
enum ImportError {
    /// It is not there.
    #[error("{path}: not installed, or not verified")]
    NotInstalled { path: String },
    /// It is not the file that was verified.
    #[error("{path}: touched since it was verified")]
    Touched { path: String },
    /// containerd, or `ctr`, has a reason.
    #[error(transparent)]
    Ctr(#[from] ProcessError),
    /// Not all archives could be imported.
    #[error("{failed} of {all} archives of images are not imported")]
    Some { failed: usize, all: usize, class: Class },
}

impl Explain for ImportError {
    fn class(&self) -> Class {
        match self {
            Self::NotInstalled { .. } => Class::Failed,
            Self::Touched { .. } => Class::Verification,
            Self::Ctr(error) => error.class(),
            Self::Some { class, .. } => *class,
        }
    }

    fn advice(&self) -> Option<String> {
        match self {
            Self::NotInstalled { .. } | Self::Touched { .. } => {
                Some("run `nodeagent install`, which fetches and verifies it".to_owned())
            }
            Self::Ctr(ProcessError::Start { .. }) => {
                Some("install containerd, which brings ctr, or ask for it in kubernetes.artifacts".to_owned())
            }
            Self::Ctr(_) => Some("look at `systemctl status containerd.service`".to_owned()),
            Self::Some { .. } => None,
        }
    }
}

/// Imports each archive of which containerd lacks an image. One that cannot be imported does not hold back the others.
pub async fn import(archives: &[Artifact], root: &Root, tell: &Teller) -> Result<(), Fault> {
    let (begun, mut changed, mut failed) = (Instant::now(), 0, Vec::new());
    for archive in archives {
        let (id, started) = (id(&archive.name), Instant::now());
        match import_one(archive, root).await {
            Ok(0) => {}
            Ok(count) => {
                changed += 1;
                let summary = format!("{count} images of {} in containerd", archive.name);
                tell.tell(&Event::Changed { step: Step::Install, id: &id, summary: &summary, took: started.elapsed() });
            }
            Err(fault) => {
                let (why, advice) = (fault.to_string(), fault.advice.as_deref().unwrap_or_default());
                tell.tell(&Event::ResourceFailed { step: Some(Step::Install), id: &id, why: &why, advice });
                failed.push(fault.class);
            }
        }
    }
    match failed.iter().max() {
        None => {
            let (total, took) = (archives.len(), begun.elapsed());
            tell.tell(&Event::RunEnded { command: "images", result: "done", changed, total, took });
            Ok(())
        }
        Some(class) => Err(ImportError::Some { failed: failed.len(), all: archives.len(), class: *class }.into()),
    }
}

/// How many of its images were not in containerd, and now are.
async fn import_one(archive: &Artifact, root: &Root) -> Result<usize, Fault> {
    let place = archive.place(&archive.name);
    let path = root.display(&place);
    let absent = || ImportError::NotInstalled { path: path.clone() };
    let receipt = root.read(&archive.receipt())?.and_then(|bytes| serde_json::from_slice::<Receipt>(&bytes).ok());
    let receipt = receipt.ok_or_else(absent)?;
    let verified = receipt.files.get(place.name()).ok_or_else(absent)?;
    match root.entry(&place, false)? {
        Entry::File { stamp, .. } if stamp == verified.stamp => {}
        Entry::File { .. } => return Err(ImportError::Touched { path }.into()),
        _ => return Err(absent().into()),
    }
    let there = imported(&verified.sha256).await?;
    let missing: Vec<&String> = receipt.images.iter().filter(|name| !there.contains(name)).collect();
    if missing.is_empty() {
        return Ok(0);
    }
    ctr(&["import", &path], IMPORT).await.map_err(|error| Fault::from(error).context(format!("import {path}")))?;
    let label = format!("{LABEL}={}", verified.sha256);
    for name in &missing {
        ctr(&["label", name, &label, PINNED], ASK).await?;
    }
    Ok(missing.len())
}

/// The names in containerd of the images that were imported out of an archive. A name alone would not do: another version
/// of the archive may give it to another image.
async fn imported(archive: &Sha256) -> Result<Vec<String>, ImportError> {
    let filter = format!("labels.\"{LABEL}\"=={archive}");
    let list = ctr(&["list", "--quiet", &filter], ASK).await?;
    Ok(String::from_utf8_lossy(&list).lines().map(str::to_owned).collect())
}

/// Runs `ctr images` on the images that pods use.
async fn ctr(args: &[&str], deadline: Duration) -> Result<Vec<u8>, ImportError> {
    Ok(process::run("ctr", &[&["--namespace", "k8s.io", "images"], args].concat(), deadline).await?)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn tar(files: &[(&str, &[u8])]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (name, content) in files {
            let mut header = tar::Header::new_gnu();
            header.set_size(content.len() as u64);
            header.set_mode(0o644);
            builder.append_data(&mut header, name, *content).expect("in memory");
        }
        builder.into_inner().expect("in memory")
    }

    fn names_of(files: &[(&str, &[u8])]) -> Result<Vec<String>, String> {
        names(&tar(files)[..]).map_err(|error| error.to_string())
    }

    const LAYOUT: (&str, &[u8]) = ("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#);

    #[test]
    fn names_are_containerds() {
        for (tag, name) in [
            ("registry.example/pause:3.10", "registry.example/pause:3.10"),
            ("localhost:5000/a/b", "localhost:5000/a/b:latest"),
            ("localhost/x:1", "localhost/x:1"),
            ("pause:1", "docker.io/library/pause:1"),
            ("flannel/flannel:v1", "docker.io/flannel/flannel:v1"),
            ("docker.io/busybox", "docker.io/library/busybox:latest"),
            ("index.docker.io/library/x:1", "docker.io/library/x:1"),
        ] {
            let saved = serde_json::json!([{ "Config": "c", "RepoTags": [tag], "Layers": [] }]).to_string();
            assert_eq!(names_of(&[("manifest.json", saved.as_bytes())]), Ok(vec![name.to_owned()]), "{tag}");
        }
    }

    #[test]
    fn the_oci_layout_is_believed_first() {
        let index = br#"{"schemaVersion":2,"manifests":[
            {"annotations":{"io.containerd.image.name":"b.example/x:1","org.opencontainers.image.ref.name":"1"}},
            {"annotations":{"org.opencontainers.image.ref.name":"a.example/x:1"}}]}"#;
        let saved = br#"[{"RepoTags":["other:1"]}]"#;
        let wanted = Ok(vec!["a.example/x:1".to_owned(), "b.example/x:1".to_owned()]);
        assert_eq!(names_of(&[LAYOUT, ("index.json", index), ("manifest.json", saved)]), wanted);
        // Without the layout's own mark containerd takes docker's.
        let docker = Ok(vec!["docker.io/library/other:1".to_owned()]);
        assert_eq!(names_of(&[("index.json", index), ("manifest.json", saved)]), docker);
    }

    #[test]
    fn what_no_pod_could_ask_for_is_refused() {
        for (files, wanted) in [
            (&[("bin/kubelet", &b"x"[..])][..], "it has neither manifest.json (docker) nor oci-layout and index.json"),
            (&[("manifest.json", b"{}")], "manifest.json: invalid type: map"),
            (&[("manifest.json", b"[]")], "it lists no image"),
            (&[("manifest.json", br#"[{"RepoTags":null}]"#)], "no name that a pod could ask for"),
            (&[("manifest.json", br#"[{"RepoTags":["x:1"]},{}]"#)], "nothing names it"),
            (&[("manifest.json", br#"[{"RepoTags":["x.io/a b"]}]"#)], "\"x.io/a b:latest\""),
            (&[("manifest.json", br#"[{"RepoTags":["-x.io/--all:1"]}]"#)], "\"-x.io/--all:1\""),
            (&[LAYOUT, ("index.json", br#"{"manifests":[{}]}"#)], "nothing names it"),
            (
                &[
                    LAYOUT,
                    (
                        "index.json",
                        br#"{"manifests":[{"annotations":{"org.opencontainers.image.ref.name":"latest"}}]}"#,
                    ),
                ],
                "no name that a pod could ask for, such as registry.example/pause:3.10: \"latest\"",
            ),
        ] {
            let error = names_of(files).expect_err(wanted);
            assert!(error.contains(wanted), "{wanted}: {error}");
        }
        let long = vec![b' '; LONGEST_INDEX + 1];
        let error = names_of(&[("manifest.json", &long)]).expect_err("too long");
        assert_eq!(error, "it is no archive of container images: its index is longer than 4 MiB");
    }

    proptest! {
        #[test]
        fn any_index_is_answered_in_one_line(index in "\\PC*", tag in "\\PC*") {
            let saved = serde_json::json!([{ "RepoTags": [tag] }]).to_string();
            for files in [&[("manifest.json", index.as_bytes())][..], &[("manifest.json", saved.as_bytes())],
                &[LAYOUT, ("index.json", index.as_bytes())]] {
                match names_of(files) {
                    Ok(names) => prop_assert!(names.iter().all(|name| !name.is_empty() && !name.contains(char::is_whitespace))),
                    Err(error) => prop_assert!(!error.contains('\n') && error.len() < 2000, "{error:?}"),
                }
            }
        }
    }
}
