//! The power cut drill: a bootstrap in a virtual machine is recorded as its disk saw it, and cut off at random moments.
//!
//! To kill an emulator loses nothing, because the host keeps what the guest wrote. So the disk is rebuilt from the
//! recording: everything up to the last flush before the cut, and of the writes after it some, none, or parts. One
//! recording gives as many cuts as one likes. Each is judged from the outside ([`Model::problems`]), and some are booted.
//!
//! That the drill can see a loss at all is shown by the same drill with an agent whose fsync does nothing.
//!
//! `POWER_CUTS` says how many cuts are booted, `POWER_POINTS` how many are judged, and `POWER_SEED` repeats a drill.

use std::{
    collections::{BTreeMap, BTreeSet},
    env, fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    str::FromStr,
    time::Instant,
};

use anyhow::{Context, Result, bail, ensure};
use nodeagent::{
    config::values::Sha256,
    engine::{
        change::Meta,
        history, ledger,
        record::{Before, Logged, Record},
    },
    host::root::Root,
};

use crate::harness::{
    Lab, WORKER,
    disk::Disk,
    recording::{Dice, Recording},
    vm::Vm,
};

/// Cuts that are booted, and cuts that are judged, when nobody asks for more.
const CUTS: usize = 3;
const POINTS: usize = 40;

/// Where the agent writes.
const DIRECTORIES: [&str; 3] = ["/etc", "/opt", "/var/lib/nodeagent"];

/// Where only the agent and cloud-config write, so that a second file is one too many.
const OURS: [&str; 6] =
    ["etc/kubernetes", "etc/nodeagent", "etc/systemd/system", "etc/sysctl.d", "etc/modules-load.d", "opt"];

/// Replaces the agent by one whose fsync does nothing and says that all went well.
const WITHOUT_FSYNC: (&str, &str) = (
    "/etc/systemd/system/nodeagent.service.d/without-fsync.conf",
    "[Service]\nExecStart=\nExecStart=+strace --follow-forks --seccomp-bpf --quiet=all --output=/dev/null \
     --trace=fsync,fdatasync --inject=fsync,fdatasync:retval=0 /opt/bin/nodeagent bootstrap\n",
);

#[test]
fn a_power_cut_at_any_moment_is_survived() -> Result<()> {
    Lab::run("power", |lab| {
        let _api_server = lab.start_stand_in_api_server()?;
        let mut drill = Drill::record(lab, true)?;
        let judged = drill.judge(number("POWER_POINTS", POINTS)?)?;
        if let Some((at, problems)) = judged.failed.first_key_value() {
            drill.keep(*at)?;
            bail!(
                "{} of {} cuts lost something; the first, after request {at} (seed {}):\n{}",
                judged.failed.len(),
                judged.points,
                drill.seed,
                problems.join("\n")
            );
        }
        let cuts = number("POWER_CUTS", CUTS)?;
        for at in drill.points(cuts) {
            drill.boot(at).with_context(|| format!("the cut after request {at} (seed {})", drill.seed))?;
        }
        eprintln!("power: {cuts} cuts booted, {cuts} converged; {judged}; seed {}", drill.seed);
        Ok(())
    })
}

#[test]
fn a_power_cut_without_fsync_is_not_survived() -> Result<()> {
    Lab::run("power-control", |lab| {
        let _api_server = lab.start_stand_in_api_server()?;
        let mut drill = Drill::record(lab, false)?;
        let judged = drill.judge(number("POWER_POINTS", POINTS)?)?;
        let Some((at, problems)) = judged.failed.first_key_value() else {
            bail!("an agent without fsync lost nothing in {judged} (seed {}): the drill proves nothing", drill.seed)
        };
        eprintln!("power: control without fsync: {judged}; seed {}; after request {at}: {}", drill.seed, problems[0]);
        Ok(())
    })
}

/// What came out of judging.
struct Judged {
    points: usize,
    /// How many writes were lost in all of them, or lost in part.
    lost: usize,
    /// What is wrong, by the request that was the last one before the cut.
    failed: BTreeMap<usize, Vec<String>>,
}

impl std::fmt::Display for Judged {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let intact = self.points - self.failed.len();
        write!(f, "{} cuts judged ({} writes dropped or torn), {intact} intact", self.points, self.lost)
    }
}

/// A recorded bootstrap.
struct Drill<'lab> {
    directory: PathBuf,
    vm: Vm<'lab>,
    recording: Recording,
    /// The disk as it was before the machine was powered on.
    base: Disk,
    /// The requests between which cuts are made: when the agent was about to be fetched, and after it said "done".
    begin: usize,
    end: usize,
    model: Model,
    seed: u64,
}

impl<'lab> Drill<'lab> {
    /// Boots a worker with its disk under observation, until its bootstrap is done.
    fn record(lab: &'lab Lab, fsync: bool) -> Result<Self> {
        let started = Instant::now();
        let mut vm = lab.worker("worker1", WORKER)?.create_vm()?;
        if !fsync {
            vm.disk().write(WITHOUT_FSYNC.0, WITHOUT_FSYNC.1.as_bytes())?;
        }
        let directory = lab.directory().to_owned();
        let base = vm.disk().copy_to(&directory.join("base.img"))?;
        let log = directory.join("write.log");
        vm.power_on(Some(&log))?;
        let report = vm.report()?;
        vm.kill()?;
        converged(&report)?;

        let recording = Recording::open(&log)?;
        let (begin, end) = (recording.mark("begin")?, recording.mark("end")?);
        ensure!(begin < end, "the bootstrap ended (request {end}) before it began (request {begin})");
        let exposed = (begin..end).any(|at| recording.is_exposed(at));
        ensure!(exposed, "the guest flushed each write of its own accord: there is nothing to lose");
        let before = base.copy_to(&directory.join("before.img"))?;
        recording.apply(&before, 0, begin)?;
        let [before, after] = [(&before, "before"), (&vm.disk(), "after")].map(|(disk, name)| {
            let tree = directory.join(name);
            disk.recover().and_then(|()| disk.extract(&DIRECTORIES, &tree)).map(|()| tree)
        });
        let model = Model::of(&before?, &after?)?;
        let seed = number("POWER_SEED", u64::from_ne_bytes(random()?))?;
        eprintln!(
            "power: recorded in {:.0?}: {} requests between the bootstrap's begin and end, {} of them flushes, \
             {} changes at {} paths; seed {seed}",
            started.elapsed(),
            end - begin,
            recording.flushes(begin, end),
            history::changes(&model.records).count(),
            model.states.len(),
        );
        Ok(Self { directory, vm, recording, base, begin, end, model, seed })
    }

    /// That many moments of the bootstrap at which there is something to lose, in their order; the last one is its very
    /// end.
    fn points(&self, count: usize) -> Vec<usize> {
        let mut dice = Dice::new(self.seed ^ count as u64);
        let exposed: Vec<_> = (self.begin..self.end).filter(|at| self.recording.is_exposed(*at)).collect();
        let mut points: Vec<_> = (1..count).map(|_| exposed[dice.below(exposed.len())]).collect();
        points.push(self.end);
        points.sort_unstable();
        points
    }

    /// Turns a disk on which everything up to `from` was done into what a cut after request `at` leaves. Returns how
    /// many writes were lost.
    fn cut(&self, disk: &Disk, from: usize, at: usize) -> Result<usize> {
        let flushed = self.recording.flushed(at);
        self.recording.apply(disk, from, flushed)?;
        // So that a cut can be repeated without those before it.
        let mut dice = Dice::new(self.seed.wrapping_add(at as u64));
        self.recording.apply_some(disk, flushed, at, &mut dice)
    }

    /// Judges cuts from the outside, without booting them.
    fn judge(&mut self, points: usize) -> Result<Judged> {
        let started = Instant::now();
        let mut judged = Judged { points, lost: 0, failed: BTreeMap::new() };
        let safe = self.base.copy_to(&self.directory.join("safe.img"))?;
        let mut applied = 0;
        for at in self.points(points) {
            let flushed = self.recording.flushed(at);
            self.recording.apply(&safe, applied, flushed)?;
            applied = flushed;
            let disk = safe.copy_to(&self.directory.join("cut.img"))?;
            judged.lost += self.cut(&disk, flushed, at)?;
            let (problems, _) = self.look_at(&disk, at)?;
            if !problems.is_empty() {
                judged.failed.insert(at, problems);
            }
        }
        eprintln!("power: {points} cuts judged in {:.0?}", started.elapsed());
        Ok(judged)
    }

    /// What is wrong on a disk that was cut off after request `at`, and its ledger.
    fn look_at(&self, disk: &Disk, at: usize) -> Result<(Vec<String>, Vec<Record>)> {
        disk.recover().with_context(|| format!("recover from the cut after request {at} (seed {})", self.seed))?;
        let tree = self.directory.join("cut");
        disk.extract(&DIRECTORIES, &tree)?;
        self.model.problems(&tree, at >= self.end)
    }

    /// Rebuilds the disk of a cut for whoever wants to look at it.
    fn keep(&self, at: usize) -> Result<()> {
        let disk = self.base.copy_to(&self.directory.join(format!("cut-{at}.img")))?;
        self.cut(&disk, 0, at).map(drop)
    }

    /// Boots what a cut leaves, and demands that the bootstrap comes to the same end.
    fn boot(&self, at: usize) -> Result<()> {
        let started = Instant::now();
        let disk = self.base.copy_to(&self.directory.join("boot.img"))?;
        let lost = self.cut(&disk, 0, at)?;
        let (problems, records) = self.look_at(&disk.copy_to(&self.directory.join("cut.img"))?, at)?;
        ensure!(problems.is_empty(), "{}", problems.join("\n"));

        let mut vm = self.vm.with_disk(&format!("cut-{at}"), disk.path())?;
        vm.power_on(None)?;
        let report = vm.report()?;
        vm.kill()?;
        converged(&report)?;
        vm.disk().recover()?;
        let tree = self.directory.join("converged");
        vm.disk().extract(&DIRECTORIES, &tree)?;
        let differences = self.model.differences(&tree, &self.directory.join("after"))?;
        ensure!(differences.is_empty(), "it is not what an undisturbed bootstrap makes:\n{}", differences.join("\n"));
        let now = read_ledger(&tree)?;
        ensure!(now.starts_with(&records), "the ledger lost records that the cut had left");
        eprintln!(
            "power: cut after request {at} ({lost} writes dropped or torn, {} of {} records left): converged in {:.0?}",
            records.len(),
            self.model.records.len(),
            started.elapsed()
        );
        vm.remove()
    }
}

/// What a guest says of itself when its bootstrap is done.
pub fn converged(report: &str) -> Result<()> {
    for line in ["plan exited with 0", "kubelet is active", "kube-proxy is active"] {
        ensure!(report.lines().any(|said| said.trim_end() == line), "{line:?} is not what the guest says:\n{report}");
    }
    Ok(())
}

/// What is at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Sight {
    Absent,
    File { sha256: Sha256, meta: Meta },
    Link(String),
    Dir(Meta),
    Other,
}

impl Sight {
    fn of(tree: &Path, path: &str) -> Result<Self> {
        let path = tree.join(path.trim_start_matches('/'));
        let look = || -> std::io::Result<Self> {
            let status = match fs::symlink_metadata(&path) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Self::Absent),
                other => other?,
            };
            let meta = Meta { mode: status.mode() & 0o7777, uid: status.uid(), gid: status.gid() };
            Ok(if status.is_symlink() {
                Self::Link(fs::read_link(&path)?.to_string_lossy().into_owned())
            } else if status.is_dir() {
                Self::Dir(meta)
            } else if status.is_file() {
                Self::File { sha256: Sha256::of(&fs::read(&path)?), meta }
            } else {
                Self::Other
            })
        };
        look().with_context(|| format!("look at {}", path.display()))
    }

    /// Whether it is the same but for the bytes: a key is made anew, a receipt has numbers of its own.
    fn resembles(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::File { meta: one, .. }, Self::File { meta: other, .. }) => one == other,
            _ => self == other,
        }
    }
}

/// What an undisturbed bootstrap did, from its own ledger.
struct Model {
    records: Vec<Record>,
    /// By path: what was there before, and what each Change, by its number, put there.
    states: BTreeMap<String, Vec<(u64, Sight)>>,
    /// The paths whose bytes are another machine's, or another run's, to choose.
    unlike: BTreeSet<String>,
}

impl Model {
    /// The trees are the ones from before and after it.
    fn of(before: &Path, after: &Path) -> Result<Self> {
        let records = read_ledger(after)?;
        let mut states: BTreeMap<String, Vec<(u64, Sight)>> = BTreeMap::new();
        let mut unlike = BTreeSet::new();
        for made in history::changes(&records) {
            let (path, sight) = match &made.change {
                Logged::Put { path, sha256, meta, credential } => {
                    if *credential || path.name() == "receipt.json" {
                        unlike.insert(path.to_string());
                    }
                    (path, Sight::File { sha256: sha256.clone(), meta: *meta })
                }
                Logged::Link { path, to } => (path, Sight::Link(to.clone())),
                Logged::Dir { path, meta } => (path, Sight::Dir(*meta)),
                Logged::Remove { path } | Logged::Destroy { path } => (path, Sight::Absent),
                // The record has the block's lines only; nothing else writes this file during a bootstrap.
                Logged::Block { path, .. } => (path, Sight::of(after, path.as_str())?),
                Logged::Sysctl { .. }
                | Logged::Module { .. }
                | Logged::Property { .. }
                | Logged::Rlimits { .. }
                | Logged::Job { .. } => {
                    continue;
                }
            };
            let path = path.to_string();
            let history = match states.entry(path) {
                std::collections::btree_map::Entry::Occupied(known) => known.into_mut(),
                std::collections::btree_map::Entry::Vacant(new) => {
                    let first = Sight::of(before, new.key())?;
                    new.insert(vec![(0, first)])
                }
            };
            history.push((made.seq, sight));
        }
        let model = Self { records, states, unlike };
        ensure!(model.states.len() > 20, "a bootstrap writes more than to {:?}", model.states.keys());
        let (wrong, _) = model.problems(after, true)?;
        ensure!(wrong.is_empty(), "the recorded bootstrap is not what its own ledger says:\n{}", wrong.join("\n"));
        Ok(model)
    }

    /// What must not be in a tree that a power cut left; also its ledger's records. `done` says that the agent had
    /// already reported its end.
    fn problems(&self, tree: &Path, done: bool) -> Result<(Vec<String>, Vec<Record>)> {
        let mut problems = Vec::new();
        let records = match read_ledger(tree) {
            Ok(records) => records,
            Err(error) => {
                problems.push(format!("the ledger cannot be read: {error:#}"));
                Vec::new()
            }
        };
        if !self.records.starts_with(&records) {
            problems.push("the ledger has records that were never written".to_owned());
        }
        if done && records.len() < self.records.len() {
            let (left, of) = (records.len(), self.records.len());
            problems.push(format!("the agent was done, but the ledger has {left} of its {of} records"));
        }
        // Whatever was recorded is done, except for a Change that nothing was recorded after.
        let recorded = history::changes(&records).map(|made| made.seq).max().unwrap_or(0);
        let settled = if let Some(Record::Change(_)) = records.last() { recorded - 1 } else { recorded };
        for (path, states) in &self.states {
            let sight = Sight::of(tree, path)?;
            if let Some(problem) = judge(path, &sight, states, settled, recorded) {
                problems.push(problem);
            }
        }
        for made in history::changes(&records) {
            if let Before::Kept { sha256, .. } = &made.before {
                let kept = format!("{}/kept/{}", ledger::DIR, sha256.as_str());
                if !matches!(Sight::of(tree, &kept)?, Sight::File { sha256: found, .. } if found == *sha256) {
                    problems.push(format!("{kept} is not what change {} needs for its undo", made.seq));
                }
            }
        }
        Ok((problems, records))
    }

    /// How a tree differs from what the undisturbed bootstrap left in `after`.
    fn differences(&self, tree: &Path, after: &Path) -> Result<Vec<String>> {
        let mut differences = Vec::new();
        for path in self.states.keys() {
            let (is, was) = (Sight::of(tree, path)?, Sight::of(after, path)?);
            let same = if self.unlike.contains(path) { is.resembles(&was) } else { is == was };
            if !same {
                differences.push(format!("{path} is {is:?}, not {was:?}"));
            }
        }
        let (mut is, mut was) = (BTreeSet::new(), BTreeSet::new());
        for directory in OURS {
            list(tree, Path::new(directory), &mut is)?;
            list(after, Path::new(directory), &mut was)?;
        }
        differences.extend(is.difference(&was).map(|path| format!("{} is too many", path.display())));
        differences.extend(was.difference(&is).map(|path| format!("{} is missing", path.display())));
        Ok(differences)
    }
}

/// What is wrong with a path, given all its states, that Changes up to `recorded` may be there, and that those up to
/// `settled` must be.
fn judge(path: &str, sight: &Sight, states: &[(u64, Sight)], settled: u64, recorded: u64) -> Option<String> {
    let least = states.iter().rposition(|(seq, _)| *seq <= settled).unwrap_or(0);
    let most = states.iter().rposition(|(seq, _)| *seq <= recorded).unwrap_or(0);
    if states[least..=most].iter().any(|(_, state)| state == sight) {
        return None;
    }
    Some(match states.iter().position(|(_, state)| state == sight) {
        Some(at) if at > most => format!("{path} is there already, but change {} is not in the ledger", states[at].0),
        Some(_) => format!("{path} lost change {}, which was done: it is {sight:?}", states[least].0),
        None => format!("{path} is torn: it is {sight:?}, not one of {states:?}"),
    })
}

fn read_ledger(tree: &Path) -> Result<Vec<Record>> {
    Ok(ledger::read(&Root::open(tree)?)?)
}

/// Everything below a directory, links not followed.
fn list(tree: &Path, directory: &Path, found: &mut BTreeSet<PathBuf>) -> Result<()> {
    let here = tree.join(directory);
    for entry in fs::read_dir(&here).with_context(|| format!("list {}", here.display()))? {
        let entry = entry?;
        let path = directory.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            list(tree, &path, found)?;
        }
        found.insert(path);
    }
    Ok(())
}

fn number<T: FromStr>(name: &str, default: T) -> Result<T> {
    match env::var(name) {
        Ok(text) => text.parse().ok().with_context(|| format!("{name} is {text:?}: give it a number")),
        Err(_) => Ok(default),
    }
}

fn random() -> Result<[u8; 8]> {
    let mut bytes = [0; 8];
    openssl::rand::rand_bytes(&mut bytes)?;
    Ok(bytes)
}

#[test]
fn a_path_is_judged_by_what_the_ledger_says() {
    let link = |to: &str| Sight::Link(to.to_owned());
    let states = [(0, Sight::Absent), (3, link("old")), (7, link("new"))];
    let verdict = |sight: &Sight, settled, recorded| judge("/x", sight, &states, settled, recorded);
    // Recorded and perhaps done: both are right.
    assert_eq!(verdict(&link("old"), 6, 7), None);
    assert_eq!(verdict(&link("new"), 6, 7), None);
    for (sight, settled, recorded, says) in [
        (link("new"), 5, 6, "not in the ledger"),
        (link("old"), 7, 7, "lost change 7"),
        (Sight::Absent, 6, 7, "lost change 3"),
        (link("half"), 6, 7, "torn"),
    ] {
        let verdict = verdict(&sight, settled, recorded).unwrap_or_default();
        assert!(verdict.contains(says), "{sight:?} after {settled}..{recorded}: {verdict:?}");
    }
}
