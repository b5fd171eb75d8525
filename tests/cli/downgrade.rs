//! No way back leads to an etcd or an API server of an older minor release: what the newer one has stored is not for it.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context as _, Result, ensure};

use crate::faulty::Answer;
use crate::site::Site;
use crate::snapshot::{Snapshot, digest};

const LEDGER: &str = "var/lib/nodeagent/ledger";

/// Versions of Kubernetes and of etcd.
type Versions = (&'static str, &'static str);

/// The cluster's only controller: it has what stores and what decides how it is stored.
struct Controller(Site);

impl Controller {
    fn new() -> Result<Self> {
        Ok(Self(Site::new(&["/unused"], "deadline: 10s")?))
    }

    /// Makes it one of these versions by `nodeagent install`.
    fn install(&self, (kubernetes, etcd): Versions) -> Result<()> {
        const PROGRAMS: [&str; 6] =
            ["kube-apiserver", "kube-controller-manager", "kube-proxy", "kube-scheduler", "kubectl", "kubelet"];
        let serve = |path: &str, bytes: Vec<u8>| {
            let sha256 = digest(&bytes);
            self.0.mirror.script(path, [Answer::File(Arc::new(bytes))]);
            sha256
        };
        let line = |name: &&str| {
            let path = format!("/release/{kubernetes}/bin/linux/amd64/{name}");
            format!("    {name}: {{ sha256: {} }}\n", serve(&path, format!("{name} {kubernetes}").into_bytes()))
        };
        let programs: String = PROGRAMS.iter().map(line).collect();
        let archive = format!("/{etcd}.tar");
        let sha256 = serve(&archive, tar("etcd", etcd)?);
        let (mirror, archive) = (self.0.mirror.url("/release"), self.0.mirror.url(&archive));
        let yaml = format!(
            "apiVersion: nodeagent.io/v1alpha1\nkind: NodeConfig\nrole: controller\n\
             cluster:\n  apiServer: https://10.10.30.21:6443\n\
             \x20 nodes: {{ worker-01: {{ role: controller, address: 10.10.30.21 }} }}\n\
             kubernetes:\n  version: {kubernetes}\n  mirrors: [\"{mirror}\"]\n  artifacts:\n{programs}\
             \x20   etcd: {{ version: {etcd}, url: \"{archive}\", sha256: {sha256}, members: {{ etcd: etcd }} }}\n\
             pki:\n  ca: /etc/ca.pem\n  signer: {{ local: {{ key: /etc/ca-key.pem }} }}\n\
             \x20 etcd: {{ ca: /etc/etcd-ca.pem, signer: {{ local: {{ key: /etc/etcd-ca-key.pem }} }} }}\n"
        );
        fs::write(self.root("etc/nodeagent/node.yaml"), yaml)?;
        let (code, told) = self.0.run()?;
        ensure!(code == 0, "{told}");
        self.has("kube-apiserver", kubernetes)?;
        self.has("etcd", etcd)
    }

    fn root(&self, path: &str) -> PathBuf {
        self.0.root().join(path)
    }

    /// Fails unless a program of this version is in use.
    fn has(&self, program: &str, version: &str) -> Result<()> {
        let link = fs::read_link(self.root("opt/bin").join(program)).with_context(|| program.to_owned())?;
        ensure!(link == release(program, version), "{program} is {}", link.display());
        Ok(())
    }

    /// Fails unless a command is refused, for the sake of this program, and leaves everything as it was.
    fn is_refused(&self, command: &[&str], (program, from, to): (&str, &str, &str)) -> Result<()> {
        let now = || Ok::<_, anyhow::Error>((Snapshot::of(&self.0.root())?, fs::read(self.root(LEDGER))?));
        let before = now()?;
        let (code, told) = self.0.start(command)?.end()?;
        ensure!(code == 1, "{command:?}: {code}: {told}");
        let advice = format!(
            "restore a snapshot of etcd that was taken before the upgrade (etcdutl snapshot restore), or go on with the newer {program}"
        );
        for part in [format!("replace {program} {from} by {to}, an older minor release"), advice] {
            ensure!(told.contains(&part), "{command:?}: no {part:?} in {told}");
        }
        let after = now()?;
        ensure!(before.0.against(&after.0).is_empty(), "{command:?}: {:#?}", before.0.against(&after.0));
        ensure!(before.1 == after.1, "{command:?}: the ledger was written to");
        Ok(())
    }

    /// Runs a command that is not refused.
    fn goes(&self, command: &[&str]) -> Result<()> {
        let (code, told) = self.0.start(command)?.end()?;
        ensure!(code == 0, "{command:?}: {code}: {told}");
        Ok(())
    }
}

/// Where a release's program is.
fn release(program: &str, version: &str) -> PathBuf {
    Path::new("/opt/nodeagent/releases").join(program).join(version).join("bin").join(program)
}

/// An archive of one file.
fn tar(name: &str, content: &str) -> Result<Vec<u8>> {
    let mut header = tar::Header::new_gnu();
    header.set_size(content.len() as u64);
    header.set_mode(0o755);
    let mut archive = tar::Builder::new(Vec::new());
    archive.append_data(&mut header, name, content.as_bytes())?;
    Ok(archive.into_inner()?)
}

#[test]
fn a_minor_release_is_not_gone_back_behind() -> Result<()> {
    let table: [(&str, [Versions; 3], [&str; 3]); 2] = [
        (
            "etcd",
            [("v1.34.2", "v3.5.24"), ("v1.34.2", "v3.6.5"), ("v1.34.2", "v3.6.6")],
            ["v3.5.24", "v3.6.5", "v3.6.6"],
        ),
        (
            "kube-apiserver",
            [("v1.33.9", "v3.6.5"), ("v1.34.1", "v3.6.5"), ("v1.34.2", "v3.6.5")],
            ["v1.33.9", "v1.34.1", "v1.34.2"],
        ),
    ];
    for (program, runs, [first, minor, patch]) in table {
        let controller = Controller::new()?;
        for run in runs {
            controller.install(run)?;
        }
        // Over both at once, when the last run alone could be undone.
        controller.is_refused(&["rollback", "--to", "1"], (program, patch, first))?;
        controller.goes(&["rollback", "--dry-run"])?;
        controller.has(program, patch)?;
        controller.goes(&["rollback"])?;
        controller.has(program, minor)?;
        for command in [
            &["rollback"][..],
            &["rollback", "--dry-run"],
            &["rollback", "--purge"],
            &["rollback", "--to", "1"],
            &["rollback", "--to", "1", "--dry-run"],
        ] {
            controller.is_refused(command, (program, minor, first))?;
        }
        // Nothing older comes back: the program goes, and what was stored waits for the next one.
        controller.goes(&["uninstall"])?;
        ensure!(!controller.root("opt/bin").join(program).is_symlink(), "{program} is still there");
    }
    Ok(())
}

/// A machine of an image has a release in place of which its ledger knows nothing.
#[test]
fn what_was_there_before_the_first_run_is_no_exception() -> Result<()> {
    for (program, from, to) in [("etcd", "v3.6.5", "v3.5.24"), ("kube-apiserver", "v1.34.2", "v1.33.9")] {
        let controller = Controller::new()?;
        fs::create_dir_all(controller.root("opt/bin"))?;
        symlink(release(program, to), controller.root("opt/bin").join(program))?;
        controller.install(("v1.34.2", "v3.6.5"))?;
        for command in [&["rollback"][..], &["rollback", "--to", "0"], &["uninstall"], &["uninstall", "--dry-run"]] {
            controller.is_refused(command, (program, from, to))?;
        }
    }
    Ok(())
}
