//! The programs of a real cluster, built once from Debian's source package.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result};

use super::{digest, mounts, process, rundir::lock};

/// Fetches the source and builds it; a change of this recipe makes new programs beside the old ones.
const RECIPE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/lab/kubernetes.sh");

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
        eprintln!("lab: building Kubernetes, once: about twelve minutes");
        let to = unfinished.to_str().context("the cache directory's path is not UTF-8")?;
        // Other tests run meanwhile, and have deadlines.
        process::ok(&["nice", "-n", "19", RECIPE, to], BUILD).context("build Kubernetes")?;
        fs::rename(&unfinished, &path).with_context(|| format!("finish {}", path.display()))?;
    }
    Ok(path)
}
