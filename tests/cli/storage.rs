//! Storage that fails, for real: full, read-only, on two devices, in the way, planted. Needs root, for the mounts.
//!
//! Each fault gives an error that names the file and the cause, tears nothing, and leaves what is outside the tree alone;
//! once the fault is gone, the next run reaches the golden tree.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context as _, Result, ensure};

use crate::faulty::Answer;
use crate::kill::{Stage, is_bootstrapped};
use crate::site::Site;
use crate::world::{Mount, Tree, copy, need};

/// Bootstraps a tree in which something is wrong: it must fail, and say all of this.
fn fails(tree: &Tree<'_>, says: &[&str]) -> Result<()> {
    let ran = tree.run(&["bootstrap"])?;
    ensure!(ran.ended == Ok(1), "it ended with {:?}: {}", ran.ended, ran.told);
    for text in says {
        ensure!(ran.told.contains(text), "it does not say {text:?}: {}", ran.told);
    }
    Ok(())
}

/// Bootstraps on a small file system that grows until it is large enough: it runs out at every place there is.
fn runs_out(option: &str, first: usize, step: usize, enough: &str) -> Result<()> {
    let stage = Stage::set()?;
    let (mut size, mut faults) = (first, 0);
    loop {
        let tree = stage.world.copy_on(&stage.world.start(), &format!("{option}={size},mode=755"))?;
        let at = || format!("with {option}={size}");
        if tree.run(&["bootstrap"])?.ended == Ok(0) {
            break;
        }
        // The same again: what is full stays full, and nothing gets worse.
        fails(&tree, &["No space left on device", "free some space or inodes", &tree.root().display().to_string()])
            .with_context(at)?;
        tree.mount()?.remount(&format!("{option}={enough}"))?;
        is_bootstrapped(&tree, &stage.golden).with_context(at)?;
        faults += 1;
        size += step;
    }
    eprintln!("out of space: {faults} sizes from {option}={first}");
    ensure!(faults > 10, "it ran out only {faults} times");
    Ok(())
}

#[test]
fn without_space() -> Result<()> {
    runs_out("size", 48 << 10, 8 << 10, "4m")
}

#[test]
fn without_inodes() -> Result<()> {
    runs_out("nr_inodes", 28, 3, "1000")
}

#[test]
fn on_a_read_only_file_system() -> Result<()> {
    let stage = Stage::set()?;
    let tree = stage.world.copy(&stage.world.start())?;
    for (directory, file) in [
        ("", "/run/nodeagent"),
        ("etc", "/etc/network-environment"),
        ("opt", "/opt/"),
        ("var/lib", "/var/lib/nodeagent"),
    ] {
        let _mount = Mount::read_only(&tree.root().join(directory))?;
        let file = format!("{}{file}", tree.root().display());
        fails(&tree, &["Read-only file system", "remount it writable", &file])
            .with_context(|| format!("{directory} is read-only"))?;
    }
    is_bootstrapped(&tree, &stage.golden)
}

#[test]
fn a_scratch_directory_on_another_device() -> Result<()> {
    let stage = Stage::set()?;
    let tree = stage.world.copy(&stage.world.start())?;
    fs::create_dir(tree.root().join("opt/nodeagent"))?;
    let mount = Mount::tmpfs(&tree.root().join("opt/nodeagent/partial"), "mode=700")?;
    fails(
        &tree,
        &["rename into place", "/opt/nodeagent/releases/kubelet/v1.34.2/bin/kubelet", "keep /opt/nodeagent on one"],
    )?;
    drop(mount);
    is_bootstrapped(&tree, &stage.golden)
}

/// Puts something in the way of each of these, one after the other, and takes it away again.
fn in_the_way(paths: &[&str], make: impl Fn(&Path) -> Result<()>, clear: impl Fn(&Path) -> Result<()>) -> Result<()> {
    let stage = Stage::set()?;
    let start = stage.world.start();
    for path in paths {
        let tree = stage.world.copy(&start)?;
        let (there, original) = (tree.root().join(path), start.join(path));
        let at = || format!("at {path}");
        fs::create_dir_all(there.parent().context("a parent")?)?;
        if original.symlink_metadata().is_ok() {
            fs::remove_file(&there)?;
        }
        make(&there).with_context(at)?;
        fails(&tree, &[&format!("/{path}")]).with_context(at)?;
        clear(&there).with_context(at)?;
        if original.symlink_metadata().is_ok() {
            copy(&original, &there)?;
        }
        is_bootstrapped(&tree, &stage.golden).with_context(at)?;
    }
    Ok(())
}

#[test]
fn a_directory_where_a_file_should_be() -> Result<()> {
    let paths = [
        "etc/network-environment",
        "etc/hosts",
        "opt/bin/kubectl",
        "opt/nodeagent/releases/kubelet/v1.34.2/bin/kubelet",
        "opt/nodeagent/releases/kubelet/v1.34.2/receipt.json",
        "etc/kubernetes/pki/kubelet-client.pem",
        "etc/systemd/system/multi-user.target.wants/kubelet.service",
        "var/lib/nodeagent/ledger",
        "run/nodeagent/lock",
        // At the temporary name of a file, where not even the agent's own leftovers are directories.
        "etc/.network-environment.nodeagent-new",
    ];
    let mine = |path: &Path| path.join("mine");
    in_the_way(
        &paths,
        |path| Ok(fs::create_dir(path).and_then(|()| fs::write(mine(path), "mine"))?),
        // That it can be read says that it is still there, whole.
        |path| Ok(fs::remove_file(mine(path)).and_then(|()| fs::remove_dir(path))?),
    )
}

#[test]
fn a_file_where_a_directory_should_be() -> Result<()> {
    let drop_ins = "etc/systemd/system/kubelet.service.d";
    let paths = ["etc/sysctl.d", drop_ins, "var/lib/nodeagent", "run/nodeagent", "opt/nodeagent/partial"];
    in_the_way(&paths, |path| Ok(fs::write(path, "mine")?), |path| Ok(fs::remove_file(path)?))
}

#[test]
fn a_pipe_where_a_file_should_be_is_not_waited_for() -> Result<()> {
    let paths = ["etc/network-environment", "etc/hosts", "opt/nodeagent/releases/kubelet/v1.34.2/bin/kubelet"];
    let mode = nix::sys::stat::Mode::from_bits_truncate(0o600);
    in_the_way(&paths, |path| Ok(nix::unistd::mkfifo(path, mode)?), |path| Ok(fs::remove_file(path)?))
}

/// Sets or clears a file's attributes until it is dropped: an immutable file could not be removed with its tree.
struct Immutable(PathBuf);

impl Immutable {
    fn new(path: &Path) -> Result<Self> {
        chattr("+i", path)?;
        Ok(Self(path.to_owned()))
    }
}

impl Drop for Immutable {
    fn drop(&mut self) {
        if let Err(error) = chattr("-i", &self.0) {
            eprintln!("{error:#}");
        }
    }
}

fn chattr(flag: &str, path: &Path) -> Result<()> {
    let output = std::process::Command::new("chattr").arg(flag).arg(path).output().context("run chattr")?;
    ensure!(output.status.success(), "chattr {flag} {}: {}", path.display(), String::from_utf8_lossy(&output.stderr));
    Ok(())
}

#[test]
fn an_immutable_file_or_directory() -> Result<()> {
    need("chattr", "e2fsprogs")?;
    let stage = Stage::set()?;
    let tree = stage.world.copy(&stage.world.start())?;
    for (path, named) in [("etc/network-environment", "etc/network-environment"), ("etc/kubernetes", "etc/kubernetes/")]
    {
        let _flag = Immutable::new(&tree.root().join(path))?;
        let named = format!("{}/{named}", tree.root().display());
        fails(&tree, &["Operation not permitted", "immutable flag (lsattr)", &named])
            .with_context(|| format!("{path} is immutable"))?;
    }
    is_bootstrapped(&tree, &stage.golden)
}

#[test]
fn planted_links_are_never_followed_out_of_the_tree() -> Result<()> {
    let stage = Stage::set()?;
    let outside = crate::world::scratch()?;
    let victim = outside.path().join("victim");
    fs::write(&victim, "safe")?;
    // Where nothing has to stay, a planted link is replaced.
    let partial = tree_partial(&stage)?;
    for path in [
        "etc/network-environment",
        "etc/.network-environment.nodeagent-new",
        "opt/bin/.kubectl.nodeagent-new",
        "etc/kubernetes/pki/kubelet-client.pem",
        "etc/kubernetes/pki/.kubelet-client.pem.nodeagent-new",
        "var/lib/nodeagent/.ledger.nodeagent-new",
        &partial,
    ] {
        let tree = stage.world.copy(&stage.world.start())?;
        plant(&tree, path, &victim)?;
        let ran = tree.run(&["bootstrap"])?;
        let at = || format!("a link planted at {path}: {ran:?}");
        ensure!(fs::read(&victim)? == b"safe", "the victim was written: {}", at());
        if ran.ended != Ok(0) {
            ensure!(ran.told.contains(&format!("/{path}")), "it does not name the link: {}", at());
            fs::remove_file(tree.root().join(path))?;
        }
        is_bootstrapped(&tree, &stage.golden).with_context(at)?;
    }
    // Where the agent's own state has to be, or a directory, it is refused.
    for path in ["run/nodeagent/lock", "var/lib/nodeagent/ledger", "etc/sysctl.d", "opt/nodeagent", "var/lib/nodeagent"]
    {
        let tree = stage.world.copy(&stage.world.start())?;
        let target = if path.ends_with("lock") || path.ends_with("ledger") { victim.as_path() } else { outside.path() };
        plant(&tree, path, target)?;
        let at = || format!("a link planted at {path}");
        fails(&tree, &[&format!("/{path}")]).with_context(at)?;
        fs::remove_file(tree.root().join(path))?;
        is_bootstrapped(&tree, &stage.golden).with_context(at)?;
    }
    ensure!(fs::read(&victim)? == b"safe", "the victim was written");
    ensure!(fs::read_dir(outside.path())?.count() == 1, "something was made outside");
    Ok(())
}

fn plant(tree: &Tree<'_>, path: &str, target: &Path) -> Result<()> {
    let path = tree.root().join(path);
    fs::create_dir_all(path.parent().context("a parent")?)?;
    if path.symlink_metadata().is_ok() {
        fs::remove_file(&path)?;
    }
    symlink(target, &path).with_context(|| format!("plant {}", path.display()))
}

/// The name under which kubelet is fetched: it begins with its digest.
fn tree_partial(stage: &Stage) -> Result<String> {
    let program = stage.bootstrapped.join("opt/nodeagent/releases/kubelet/v1.34.2/bin/kubelet");
    let digest = crate::snapshot::digest(&fs::read(program)?);
    Ok(format!("opt/nodeagent/partial/kubelet-{}", &digest[..12]))
}

#[test]
fn the_callers_umask_environment_and_descriptors_do_not_matter() -> Result<()> {
    let stage = Stage::set()?;
    for setting in [
        "umask 0",
        "umask 0777",
        "export TMPDIR=/nowhere HOME=/nowhere XDG_CACHE_HOME=/nowhere LC_ALL=tlh LANG=tlh PATH=",
        "unset HOME PATH",
        "cd / && exec <&- >&- 2>&-",
        "exec 2>/dev/full >/dev/full",
        "ulimit -c 0; ulimit -n 64",
    ] {
        let tree = stage.world.copy(&stage.world.start())?;
        let script = format!("{setting}; exec \"$@\"");
        let ran = tree.run_under(&["sh", "-c", &script, "sh"], &["bootstrap"])?;
        ensure!(ran.ended == Ok(0), "{setting}: {ran:?}");
        is_bootstrapped(&tree, &stage.golden).with_context(|| setting.to_owned())?;
    }
    Ok(())
}

#[test]
fn without_room_for_a_download() -> Result<()> {
    let site = Site::new(&["/a"], "deadline: 5s")?;
    site.script("/a", [Answer::File(Arc::clone(&site.file))]);
    fs::create_dir_all(site.root().join("opt"))?;
    let mount = Mount::tmpfs(&site.root().join("opt/nodeagent"), "size=2m,mode=755")?;
    let (code, told) = site.run()?;
    ensure!(code == 1, "{code}: {told}");
    // Both numbers, and nothing was fetched in vain.
    for says in
        ["/opt/nodeagent/partial/kubectl-", "No space left on device", "3.1 MB are to be written", "2.1 MB are free"]
    {
        ensure!(told.contains(says), "it does not say {says:?}: {told}");
    }
    ensure!(told.contains("install --prune"), "{told}");
    ensure!(site.partials()?.is_empty(), "{:?}", site.partials()?);
    mount.remount("size=8m")?;
    let (code, told) = site.run()?;
    ensure!(code == 0, "{told}");
    site.check_placed(code)
}
