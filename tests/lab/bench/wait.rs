//! From the moment a port opens to the end of what waits for it, and what waiting costs.

use std::{
    io::{Read, Write},
    net::TcpListener,
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};

use super::figures::{Table, Unit, interleaved, run};

/// Enough for a p99.
const ROUNDS: usize = 100;

/// What people paste into cloud-config instead, written for this bench: a try a second.
const LOOP: &str = r#"until curl --silent --head --fail --output /dev/null "http://127.0.0.1:$1/"; do sleep 1; done"#;

/// Prints the tables of this topic.
pub fn bench(agent: &Path) -> Result<()> {
    let agent_wait = |port: u16| {
        let mut command = Command::new(agent);
        command.args(["wait", "--timeout", "60s", &format!("tcp://127.0.0.1:{port}")]);
        command
    };
    let curl_loop = |port: u16| {
        let mut command = Command::new("sh");
        command.args(["-c", LOOP, "sh", &port.to_string()]);
        command
    };
    let mut phase = 0;
    let mut ours = || reaction(&agent_wait, pause(&mut phase));
    let mut other_phase = 0;
    let mut theirs = || reaction(&curl_loop, pause(&mut other_phase));
    let samples = interleaved(ROUNDS, &mut [&mut ours, &mut theirs])?;
    let [ours, theirs] = <[_; 2]>::try_from(samples).ok().context("two programs")?;
    Table::new("wait: from the opening of a port on loopback to the program's end", Unit::Time)
        .row("nodeagent wait", ours, "median < 5 ms, p99 < 20 ms")
        .row("curl, a try a second", theirs, "")
        .print();

    let mut ours = || idle(agent, "10s");
    let samples = interleaved(3, &mut [&mut ours])?;
    Table::new("wait: share of one core during a wait of 10 s for a closed port on loopback", Unit::Percent)
        .row("nodeagent wait", samples.into_iter().next().context("a program")?, "< 0.5 %")
        .print();
    Ok(())
}

/// How long a program waits before the port opens: spread over a second, so that every phase of a loop is met.
fn pause(phase: &mut u64) -> Duration {
    *phase += 1;
    Duration::from_millis(300 + *phase * 618 % 1000)
}

/// Seconds from the opening of a port to the end of the program that waits for it.
fn reaction(waiter: &dyn Fn(u16) -> Command, pause: Duration) -> Result<f64> {
    let port = TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port();
    let mut child = Waiter(waiter(port).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?);
    thread::sleep(pause);
    let listener = TcpListener::bind(("127.0.0.1", port))?;
    let opened = Instant::now();
    thread::spawn(move || answer(&listener));
    let status = child.0.wait()?;
    let took = opened.elapsed();
    ensure!(status.success(), "it ended with {status}");
    Ok(took.as_secs_f64())
}

/// Answers one request, or sees one connection closed, and goes.
fn answer(listener: &TcpListener) {
    let served = listener.accept().and_then(|(mut client, _)| {
        client.set_read_timeout(Some(Duration::from_secs(5)))?;
        let read = client.read(&mut [0; 1024])?;
        if read > 0 { client.write_all(b"HTTP/1.0 200 OK\r\n\r\n") } else { Ok(()) }
    });
    if let Err(error) = served {
        eprintln!("bench: {error}");
    }
}

/// Hundredths of a core that a wait without success takes.
fn idle(agent: &Path, timeout: &str) -> Result<f64> {
    let port = TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port();
    let mut command = Command::new(agent);
    command.args(["wait", "--timeout", timeout, &format!("tcp://127.0.0.1:{port}")]).stderr(Stdio::null());
    let used = run(&mut command)?;
    ensure!(used.status.code() == Some(3), "it ended with {}", used.status);
    Ok(used.cpu.as_secs_f64() / used.took.as_secs_f64() * 100.0)
}

/// A program that must not outlive its measurement.
struct Waiter(Child);

impl Drop for Waiter {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
