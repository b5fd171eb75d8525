//! Running programs: nothing here waits without a deadline, and no child outlives the lab.

use std::{
    ffi::OsStr,
    fs::{self, File},
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::{Mutex, OnceLock, mpsc},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, bail};

use super::cgroup::Cgroups;

/// The shortest and the longest pause before a condition is asked again. In between it is as long as asking took, so that
/// asking has half a processor at most.
const POLL: [Duration; 2] = [Duration::from_millis(20), Duration::from_secs(1)];

/// How many lines of a program's complaints an error repeats.
const TAIL: usize = 20;

/// What `timeout` exits with when the deadline passed.
const TIMED_OUT: i32 = 124;

/// Asks `ready` until it answers, and says why it last did not when the deadline passes.
pub fn wait_until<T>(what: &str, deadline: Duration, mut ready: impl FnMut() -> Result<T>) -> Result<T> {
    let start = Instant::now();
    loop {
        let asked = Instant::now();
        match ready() {
            Ok(value) => return Ok(value),
            Err(reason) if start.elapsed() >= deadline => {
                return Err(reason.context(format!("waited {:.0?} for {what}", start.elapsed())));
            }
            Err(_) => thread::sleep(asked.elapsed().clamp(POLL[0], POLL[1])),
        }
    }
}

/// Runs a program to its end; its status is the caller's to judge.
pub fn output<S: AsRef<OsStr>>(args: &[S], deadline: Duration) -> Result<Output> {
    let mut command = Command::new("timeout");
    command.args(["--kill-after=5", "--"]).arg(deadline.as_secs_f64().to_string()).args(args);
    let output = command.stdin(Stdio::null()).output().context("run timeout(1): install coreutils")?;
    if output.status.code() == Some(TIMED_OUT) {
        bail!("`{}` did not end within {deadline:.0?}{}", shown(args), tail(&output.stderr));
    }
    Ok(output)
}

/// Runs a program that must succeed and returns what it printed.
pub fn ok<S: AsRef<OsStr>>(args: &[S], deadline: Duration) -> Result<String> {
    let output = output(args, deadline)?;
    if !output.status.success() {
        bail!("`{}` ended with {}{}", shown(args), output.status, tail(&output.stderr));
    }
    String::from_utf8(output.stdout).with_context(|| format!("`{}` printed no UTF-8", shown(args)))
}

/// The command as a person would type it.
fn shown<S: AsRef<OsStr>>(args: &[S]) -> String {
    args.iter().map(|arg| arg.as_ref().to_string_lossy()).collect::<Vec<_>>().join(" ")
}

/// The end of what a program complained, on lines of its own.
fn tail(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    let lines: Vec<_> = text.trim_end().lines().collect();
    let end = &lines[lines.len().saturating_sub(TAIL)..];
    if end.is_empty() { String::new() } else { format!("\n    {}", end.join("\n    ")) }
}

/// Starts a child from the one thread that lives as long as this process.
///
/// A child's parent-death signal comes when the *thread* that started it ends, and test threads end early.
fn spawn(command: Command) -> Result<Child> {
    type Job = (Command, mpsc::Sender<std::io::Result<Child>>);
    static SPAWNER: OnceLock<Mutex<mpsc::Sender<Job>>> = OnceLock::new();
    let spawner = SPAWNER.get_or_init(|| {
        let (jobs, queue) = mpsc::channel::<Job>();
        thread::spawn(move || {
            for (mut command, answer) in queue {
                // Nobody waits for the answer only when the asking thread is gone, and then its child must go too.
                if let Err(mpsc::SendError(Ok(mut orphan))) = answer.send(command.spawn()) {
                    let _ = orphan.kill();
                }
            }
        });
        Mutex::new(jobs)
    });
    let (answer, answered) = mpsc::channel();
    let jobs = spawner.lock().map_err(|_| anyhow!("the spawner's lock is poisoned"))?.clone();
    jobs.send((command, answer)).map_err(|_| anyhow!("the spawner thread is gone"))?;
    answered.recv().context("the spawner thread is gone")?.context("start a child process")
}

/// A service of the lab, in a process namespace of its own: killed, with all that it started, when dropped or when the
/// lab's process dies.
pub struct Daemon {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Daemon {
    /// Starts `args` in `cgroups` with its output in `log`.
    pub fn start<S: AsRef<OsStr>>(
        name: &str,
        args: &[S],
        envs: &[(&str, &str)],
        log: &Path,
        cgroups: &Cgroups,
    ) -> Result<Self> {
        let out = File::create(log).with_context(|| format!("create {}", log.display()))?;
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]);
        // The shell holds the process at its door until a line says that it is in its cgroups; if the lab dies first, the
        // end of the pipe sends it away.
        command.args(["sh", "-c", r#"read -r _ && exec "$@" </dev/null"#, "sh"]);
        // With the first process of a process namespace all others end: a web server's workers, a node's services.
        command.args(["unshare", "--pid", "--mount-proc", "--fork", "--kill-child=KILL", "--"]);
        command.args(args).envs(envs.iter().copied());
        command.stdin(Stdio::piped()).stderr(out.try_clone()?).stdout(out);
        let mut child = spawn(command).with_context(|| format!("start {name}"))?;
        let door = child.stdin.take();
        let daemon = Self { name: name.to_owned(), child, log: log.to_owned() };
        cgroups.enter(daemon.pid())?;
        let mut door = door.with_context(|| format!("{name} has no standard input"))?;
        std::io::Write::write_all(&mut door, b"go\n").with_context(|| format!("let {name} begin"))?;
        Ok(daemon)
    }

    /// The process that everything of this service descends from.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until `ready` holds, and stops waiting at once when the service has ended.
    pub fn wait_until<T>(&mut self, what: &str, deadline: Duration, ready: impl Fn() -> Result<T>) -> Result<T> {
        let what = format!("{what} ({})", self.name);
        let found = wait_until(&what, deadline, || {
            let ended = self.child.try_wait().context("ask for a child's state")?;
            Ok(if ended.is_some() { Err(ended) } else { Ok(ready()?) })
        });
        match found {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(ended)) => Err(anyhow!("{} ended early ({ended:?}){}", self.name, self.log_tail())),
            Err(reason) => Err(reason.context(format!("{} is not ready{}", self.name, self.log_tail()))),
        }
    }

    /// Waits for it to end by itself.
    pub fn wait_for_end(&mut self, deadline: Duration) -> Result<()> {
        wait_until(&format!("the end of {}", self.name), deadline, || {
            self.child.try_wait()?.map(drop).context("it still runs")
        })
    }

    /// Asks the program itself to end, and waits until it has.
    pub fn terminate(&mut self, deadline: Duration) -> Result<()> {
        let children = format!("/proc/{0}/task/{0}/children", self.pid());
        let children = fs::read_to_string(&children).with_context(|| format!("read {children}"))?;
        let program = children.split_whitespace().next().with_context(|| format!("{} has ended", self.name))?;
        let program = nix::unistd::Pid::from_raw(program.parse()?);
        nix::sys::signal::kill(program, nix::sys::signal::Signal::SIGTERM)?;
        self.wait_for_end(deadline)
    }

    /// Ends it, and all that it started, without asking.
    pub fn kill(&mut self) {
        // Either call fails only when the process has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    fn log_tail(&self) -> String {
        tail(&fs::read(&self.log).unwrap_or_default())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Whether a program ended with a status of its own, not by a signal.
pub fn exited(output: &Output) -> Option<i32> {
    output.status.signal().is_none().then(|| output.status.code()).flatten()
}
