//! The programs of a real cluster, built once from Debian's source package.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::mpsc::{self, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};

use super::{digest, mounts, process, release::Digests, rundir::lock};

/// Fetches the source and builds it; a change of this recipe makes new programs beside the old ones.
const RECIPE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/lab/kubernetes.sh");

/// What its programs say they are.
pub const VERSION: &str = "v1.20.2";

/// Twelve minutes on two idle processors.
const BUILD: Duration = Duration::from_hours(1);

/// The directory of kube-apiserver, kube-controller-manager, kube-scheduler, kubelet, kube-proxy, kubeadm and kubectl;
/// builds them first when they are not there.
pub fn programs(cache: &Path) -> Result<PathBuf> {
    let recipe = fs::read(RECIPE).with_context(|| format!("read {RECIPE}"))?;
    let path = cache.join(format!("kubernetes-{}", &digest(&recipe)[..16]));
    let _guard = lock(&path.with_extension("lock"))?;
    if !path.exists() {
        let unfinished = path.with_extension("unfinished");
        mounts::remove_tree(&unfinished)?;
        let to = unfinished.to_str().context("the cache directory's path is not UTF-8")?;
        // Other tests run meanwhile, and have deadlines.
        build(&["nice", "-n", "19", RECIPE, to]).context("build Kubernetes")?;
        fs::rename(&unfinished, &path).with_context(|| format!("finish {}", path.display()))?;
    }
    Ok(path)
}

/// Runs the recipe, and says now and then for how long it has been at work.
fn build(recipe: &[&str]) -> Result<()> {
    const TELL: Duration = Duration::from_secs(30);
    let start = Instant::now();
    let (done, ended) = mpsc::channel::<()>();
    thread::scope(|scope| {
        scope.spawn(move || {
            let mut waited = Err(RecvTimeoutError::Timeout);
            while waited == Err(RecvTimeoutError::Timeout) {
                eprintln!("lab: building Kubernetes, once: {} s of some twelve minutes", start.elapsed().as_secs());
                waited = ended.recv_timeout(TELL);
            }
        });
        let built = process::ok(recipe, BUILD).map(drop);
        drop(done);
        built
    })
}

/// SHA-256 of each of them: read once, for they are half a gigabyte.
pub fn digests(programs: &Path) -> Result<Digests> {
    let known = programs.with_extension("digests");
    let _guard = lock(&programs.with_extension("lock"))?;
    if let Ok(text) = fs::read(&known) {
        return serde_json::from_slice(&text).with_context(|| format!("read {}", known.display()));
    }
    let mut digests = Digests::new();
    for entry in fs::read_dir(programs).with_context(|| format!("list {}", programs.display()))? {
        let path = entry?.path();
        let bytes = fs::read(&path).with_context(|| format!("read {}", path.display()))?;
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        digests.insert(name, digest(&bytes));
    }
    let unfinished = programs.with_extension("digests.unfinished");
    fs::write(&unfinished, serde_json::to_vec(&digests)?).context("write digests")?;
    fs::rename(&unfinished, &known).with_context(|| format!("finish {}", known.display()))?;
    Ok(digests)
}
