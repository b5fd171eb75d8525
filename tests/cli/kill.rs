//! Killed at every write, and run again; every write failed, and run again.
//!
//! The agent runs under strace, which kills it at the n-th call of a kind, or lets that call fail, for every n until the
//! run ends by itself. The Changes of a run are made by one thread, so n means the same call in every run. After each
//! fault the same command runs once more, without: it must succeed, and the whole tree must be what it would have been.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};

use crate::snapshot::{KEPT, Snapshot};
use crate::world::{Ran, Tree, World, need};

/// The calls that change a tree, and the one that every use of a path begins with.
const CALLS: [&str; 9] =
    ["write", "fsync", "fdatasync", "renameat", "symlinkat", "mkdirat", "unlinkat", "ftruncate", "openat2"];

/// Those of them between which a tree has states that differ.
const STATES: [&str; 5] = ["fdatasync", "renameat", "symlinkat", "mkdirat", "unlinkat"];

/// What a call fails with on a disk that is full or broken.
const ERRORS: [(&str, &str, &str); 9] = [
    ("write", "ENOSPC", "No space left on device"),
    ("openat", "ENOSPC", "No space left on device"),
    ("mkdirat", "ENOSPC", "No space left on device"),
    ("symlinkat", "ENOSPC", "No space left on device"),
    ("fsync", "EIO", "I/O error"),
    ("fdatasync", "EIO", "I/O error"),
    ("renameat", "EIO", "I/O error"),
    ("unlinkat", "EIO", "I/O error"),
    ("openat2", "EIO", "I/O error"),
];

/// A machine of continuous integration has two cores.
const WORKERS: usize = 2;

/// For all points of one test. There is no sampling: what does not fit is a failure.
const BUDGET: Duration = Duration::from_mins(30);

/// One command, the tree that it is interrupted in, and what must hold after it was run again.
struct Drill<'a> {
    name: &'a str,
    world: &'a World,
    from: &'a Path,
    command: &'a [&'a str],
    again: &'a (dyn Fn(&Tree<'_>) -> Result<()> + Sync),
    begun: Instant,
}

impl Drill<'_> {
    /// Kills the command at every call of each kind; prints and returns the number of points.
    fn kill_at_every(&self, calls: &[&str]) -> Result<usize> {
        self.all(calls.iter().map(|call| (*call, *call)), |call, n| self.kill_at(call, n))
    }

    /// Lets every call of each kind fail once; prints and returns the number of points.
    fn fail_every(&self, errors: &[(&str, &str, &str)]) -> Result<usize> {
        self.all(errors.iter().map(|error| (error.0, error)), |error, n| self.fail_at(error, n))
    }

    fn all<'k, K: Sync + Copy>(
        &self,
        kinds: impl Iterator<Item = (&'k str, K)>,
        point: impl Fn(K, usize) -> Result<bool> + Sync,
    ) -> Result<usize> {
        let (begun, mut sum, mut parts) = (Instant::now(), 0, Vec::new());
        for (call, kind) in kinds {
            let points = self.until_it_ends(|n| {
                point(kind, n).with_context(|| format!("{}: {:?} interrupted at {call} {n}", self.name, self.command))
            })?;
            sum += points;
            parts.push(format!("{call} {points}"));
        }
        eprintln!("{}: {sum} points in {:.0?}: {}", self.name, begun.elapsed(), parts.join(", "));
        ensure!(sum > 0, "{}: nothing was interrupted", self.name);
        Ok(sum)
    }

    /// Asks for n = 1, 2, … until the answer is that nothing was interrupted any more; returns how often something was.
    fn until_it_ends(&self, point: impl Fn(usize) -> Result<bool> + Sync) -> Result<usize> {
        let (next, end) = (AtomicUsize::new(1), AtomicUsize::new(usize::MAX));
        let work = || loop {
            let n = next.fetch_add(1, Ordering::Relaxed);
            if n >= end.load(Ordering::Relaxed) {
                return Ok(());
            }
            let more = point(n).and_then(|more| {
                ensure!(self.begun.elapsed() < BUDGET, "more points than fit into {BUDGET:?}: came to {n}");
                Ok(more)
            });
            if !matches!(more, Ok(true)) {
                end.fetch_min(n, Ordering::Relaxed);
                return more.map(drop);
            }
        };
        thread::scope(|scope| {
            let workers: Vec<_> = (0..WORKERS).map(|_| scope.spawn(work)).collect();
            workers.into_iter().try_for_each(|worker| worker.join().unwrap_or_else(|_| bail!("a worker panicked")))
        })?;
        Ok(end.into_inner() - 1)
    }

    fn kill_at(&self, call: &str, n: usize) -> Result<bool> {
        let tree = self.world.copy(self.from)?;
        let inject = format!("inject={call}:signal=KILL:when={n}");
        let trace = format!("trace={call}");
        let strace = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", &trace, "-e", &inject];
        let ran = tree.run_under(&strace, self.command)?;
        match ran.ended {
            Err(9) => (self.again)(&tree).map(|()| true),
            Ok(0) => Ok(false),
            _ => bail!("it was neither killed nor did it succeed: {ran:?}"),
        }
    }

    /// Of the run's own thread, which makes the Changes: a runtime whose other threads cannot wake it waits for ever, and
    /// no disk does that to it. What another thread writes, [`Self::fail_downloads`] lets fail.
    fn fail_at(&self, (call, error, text): &(&str, &str, &str), n: usize) -> Result<bool> {
        self.fail(&|_| Vec::new(), call, error, text, n)
    }

    /// Lets the writing of downloads fail, which a thread of its own does; prints and returns the number of points.
    fn fail_downloads(&self, errors: &[(&str, &str, &str)]) -> Result<usize> {
        let paths = self.downloads()?;
        let within = |root: &Path| -> Vec<String> {
            let each = paths.iter().map(|path| root.join(path).display().to_string());
            each.flat_map(|path| ["-P".to_owned(), path]).chain(["-f".to_owned()]).collect()
        };
        self.all(errors.iter().map(|error| (error.0, error)), |(call, error, text), n| {
            self.fail(&within, call, error, text, n)
        })
    }

    /// Where a run keeps what it downloads, below the tree's root.
    fn downloads(&self) -> Result<Vec<String>> {
        let tree = self.world.copy(self.from)?;
        let (log, root) = (tree.beside("strace.log").display().to_string(), tree.root().display().to_string());
        let ran = tree.run_under(&["strace", "-f", "-qq", "-y", "-o", &log, "-e", "trace=write"], self.command)?;
        ensure!(ran.ended == Ok(0), "{ran:?}");
        let log = fs::read_to_string(&log)?;
        let written = log.lines().filter_map(|line| line.split_once('<')?.1.split_once('>').map(|(path, _)| path));
        let below = written.filter_map(|path| path.strip_prefix(&root)?.strip_prefix('/'));
        let mut paths: Vec<String> =
            below.filter(|path| path.starts_with("opt/nodeagent/partial/")).map(str::to_owned).collect();
        paths.sort();
        paths.dedup();
        ensure!(!paths.is_empty(), "nothing was downloaded");
        Ok(paths)
    }

    fn fail(&self, of: &dyn Fn(&Path) -> Vec<String>, call: &str, error: &str, text: &str, n: usize) -> Result<bool> {
        let tree = self.world.copy(self.from)?;
        let log = tree.beside("strace.log").display().to_string();
        let inject = format!("inject={call}:error={error}:when={n}");
        let trace = format!("trace={call}");
        let of = of(&tree.root());
        let mut strace = vec!["strace", "-qq", "-y", "-o", &log, "-e", &trace, "-e", &inject];
        strace.extend(of.iter().map(String::as_str));
        let ran = tree.run_under(&strace, self.command)?;
        let log = fs::read_to_string(&log)?;
        // Each thread has an n-th call of its own.
        let failed = log.lines().filter(|line| line.contains("(INJECTED)")).collect::<Vec<_>>().join("\n");
        if failed.is_empty() {
            return Ok(false);
        }
        check_complaint(&ran, &tree.root(), &failed, text).with_context(|| format!("{failed}\n{ran:?}"))?;
        (self.again)(&tree).with_context(|| format!("after {failed}\n{ran:?}"))?;
        Ok(true)
    }
}

/// A failure is told with its cause and the file, and never ends the program in its middle.
fn check_complaint(ran: &Ran, root: &Path, failed: &str, text: &str) -> Result<()> {
    let root = root.display().to_string();
    // Without the runtime's own eventfd, by which it wakes itself, there is no going on.
    if failed.contains("anon_inode") {
        return Ok(());
    }
    let code = ran.ended.map_err(|signal| anyhow::anyhow!("it was ended by signal {signal}"))?;
    // Sockets, pipes and the machine's own files are not the tree's: whatever becomes of them, nothing may be torn.
    if code == 0 || !failed.contains(&root) {
        return Ok(());
    }
    ensure!(matches!(code, 1 | 2), "its exit code is {code}");
    ensure!(ran.told.contains(text), "it does not tell the cause");
    ensure!(ran.told.contains(&root), "it does not name the file");
    Ok(())
}

/// After the second run of bootstrap: the golden tree, and nothing left to do.
pub fn is_bootstrapped(tree: &Tree<'_>, golden: &Snapshot) -> Result<()> {
    tree.ok(&["bootstrap"]).context("run again")?;
    same(tree, golden)?;
    let plan = tree.run(&["plan", "--exit-code"])?;
    ensure!(plan.ended == Ok(0), "something is pending: {}", plan.out);
    Ok(())
}

/// The tree is the golden one, but for originals that were kept for nothing; nothing temporary is left.
pub fn same(tree: &Tree<'_>, golden: &Snapshot) -> Result<()> {
    let now = tidy(&tree.root())?;
    let different = golden.against(&now);
    ensure!(different.is_empty(), "the tree is not the golden one:\n{}", different.join("\n"));
    Ok(())
}

pub fn tidy(root: &Path) -> Result<Snapshot> {
    let all = Snapshot::of(root)?;
    let leftover = |path: &&str| path.contains("nodeagent-new") || path.starts_with("opt/nodeagent/partial/");
    let left: Vec<&str> = all.paths().filter(leftover).collect();
    ensure!(left.is_empty(), "left behind: {left:?}");
    Ok(all.without(|path| path.starts_with(KEPT)))
}

/// What an undoing leaves: the agent's own state, and keys unless they are purged.
fn is_own(path: &str) -> bool {
    ["var/lib/nodeagent", "run/nodeagent", "opt/nodeagent"].iter().any(|own| path.starts_with(own))
}

fn is_pair(path: &str) -> bool {
    path.starts_with("etc/kubernetes/pki/") && path != "etc/kubernetes/pki/ca.pem"
}

/// A world with a tree to begin with and the same bootstrapped.
pub struct Stage {
    pub world: World,
    /// The golden end.
    pub golden: Snapshot,
    /// A tree that is at it.
    pub bootstrapped: PathBuf,
    _files: tempfile::TempDir,
}

impl Stage {
    /// Starts what it needs, and bootstraps once without any fault.
    pub fn set() -> Result<Self> {
        need("strace", "strace")?;
        need("cfssl", "golang-cfssl")?;
        let world = World::new()?;
        let files = crate::world::scratch()?;
        let bootstrapped = files.path().join("bootstrapped");
        let tree = world.copy(&world.start())?;
        tree.ok(&["bootstrap"])?;
        let golden = tidy(&tree.root())?;
        fs::rename(tree.root(), &bootstrapped)?;
        drop(tree);
        Ok(Self { world, golden, bootstrapped, _files: files })
    }

    fn drill<'a>(
        &'a self,
        name: &'a str,
        from: &'a Path,
        command: &'a [&'a str],
        again: &'a (dyn Fn(&Tree<'_>) -> Result<()> + Sync),
    ) -> Drill<'a> {
        Drill { name, world: &self.world, from, command, again, begun: Instant::now() }
    }

    /// What the command makes of the bootstrapped tree, which is what was there before the bootstrap.
    fn undone(&self, command: &[&str], stays: impl Fn(&str) -> bool) -> Result<Snapshot> {
        let tree = self.world.copy(&self.bootstrapped)?;
        tree.ok(command)?;
        let undone = tidy(&tree.root())?;
        let different = Snapshot::of(&self.world.start())?.against(&undone.clone().without(stays));
        ensure!(different.is_empty(), "{command:?} does not bring back what was there:\n{}", different.join("\n"));
        Ok(undone)
    }
}

#[test]
fn bootstrap_killed_at_every_call_is_finished_by_the_next() -> Result<()> {
    let stage = Stage::set()?;
    let start = stage.world.start();
    let again = |tree: &Tree<'_>| is_bootstrapped(tree, &stage.golden);
    stage.drill("bootstrap killed", &start, &["bootstrap"], &again).kill_at_every(&CALLS)?;

    // Or undone by the next: what was recorded and never made is no obstacle.
    let purged = stage.undone(&["rollback", "--purge"], is_own)?.without(is_own);
    let undo = |tree: &Tree<'_>| {
        tree.ok(&["rollback", "--purge"])?;
        let different = purged.against(&tidy(&tree.root())?.without(is_own));
        ensure!(different.is_empty(), "not as before:\n{}", different.join("\n"));
        Ok(())
    };
    stage.drill("bootstrap killed, then rolled back", &start, &["bootstrap"], &undo).kill_at_every(&STATES)?;
    Ok(())
}

#[test]
fn rollback_killed_at_every_call_is_finished_by_the_next() -> Result<()> {
    let stage = Stage::set()?;
    let from = &stage.bootstrapped;
    let command = ["rollback"];
    let undone = stage.undone(&command, |path| is_own(path) || is_pair(path))?;
    let again = |tree: &Tree<'_>| tree.ok(&command).context("run again").and_then(|_| same(tree, &undone));
    stage.drill("rollback killed", from, &command, &again).kill_at_every(&CALLS)?;

    let command = ["rollback", "--purge"];
    let undone = stage.undone(&command, is_own)?;
    let again = |tree: &Tree<'_>| tree.ok(&command).context("run again").and_then(|_| same(tree, &undone));
    stage.drill("rollback --purge killed", from, &command, &again).kill_at_every(&STATES)?;
    Ok(())
}

#[test]
fn a_killed_rollback_never_goes_one_bootstrap_too_far() -> Result<()> {
    let stage = Stage::set()?;
    let tree = stage.world.copy(&stage.bootstrapped)?;
    let drop_in = tree.root().join("etc/nodeagent/node.d");
    fs::create_dir(&drop_in)?;
    fs::write(drop_in.join("10.yaml"), "limits: { containerd.service: { LimitNOFILE: 4096, TasksMax: 512 } }\n")?;
    tree.ok(&["bootstrap"])?;
    let is_input = |path: &str| path.starts_with("etc/nodeagent/node.d");
    let again = |tree: &Tree<'_>| {
        // One that was killed after it had recorded its end is over: another would rightly go further back.
        let ledger = fs::read_to_string(tree.root().join("var/lib/nodeagent/ledger"))?;
        let last = ledger.lines().last().unwrap_or_default();
        if !(ledger.contains(r#""command":"rollback""#) && last.contains(r#""record":"end""#)) {
            tree.ok(&["rollback"]).context("run again")?;
        }
        let different = stage.golden.against(&tidy(&tree.root())?.without(is_input));
        ensure!(different.is_empty(), "not as after the first bootstrap:\n{}", different.join("\n"));
        Ok(())
    };
    let from = tree.root();
    stage.drill("rollback of the second bootstrap killed", &from, &["rollback"], &again).kill_at_every(&STATES)?;
    Ok(())
}

#[test]
fn a_disk_that_fails_tears_nothing() -> Result<()> {
    let stage = Stage::set()?;
    let start = stage.world.start();
    let again = |tree: &Tree<'_>| is_bootstrapped(tree, &stage.golden);
    stage.drill("bootstrap on a bad disk", &start, &["bootstrap"], &again).fail_every(&ERRORS)?;
    stage.drill("downloads to a bad disk", &start, &["bootstrap"], &again).fail_downloads(&ERRORS)?;

    let command = ["rollback"];
    let undone = stage.undone(&command, |path| is_own(path) || is_pair(path))?;
    let again = |tree: &Tree<'_>| tree.ok(&command).context("run again").and_then(|_| same(tree, &undone));
    let errors: Vec<_> = ERRORS.into_iter().filter(|(call, ..)| STATES.contains(call)).collect();
    stage.drill("rollback on a bad disk", &stage.bootstrapped, &command, &again).fail_every(&errors)?;
    Ok(())
}
