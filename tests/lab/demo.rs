//! `make demo`: one node, from power-on to a plan with nothing to do, for people to watch.
//!
//! Takes the agent's binary as its argument. Everything happens inside a lab that is gone at the end; what an unfinished
//! demo leaves is kept for inspection, as that of a failed test.

#![allow(clippy::disallowed_methods, reason = "the lab runs programs and writes files on the machine that tests")]

#[allow(dead_code, unused_imports, reason = "the tests use more of the lab than the demo shows")]
mod harness;

use std::{
    env,
    io::{self, Write},
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use harness::{CONTROLLER, Lab, Node, WORKER};

/// From power-on until the node is what its configuration says.
const BOOTSTRAP: Duration = Duration::from_mins(3);

/// How often new lines are fetched from the node's journal.
const FOLLOW: Duration = Duration::from_millis(100);

/// Where the agent puts things.
const RESULTS: [&str; 7] = [
    "/etc/network-environment",
    "/etc/kubernetes",
    "/etc/modules-load.d",
    "/etc/sysctl.d",
    "/etc/systemd/system",
    "/opt",
    "/var/lib/nodeagent",
];

fn main() -> Result<()> {
    let agent = env::args_os().nth(1).map(PathBuf::from).context("usage: demo PATH-OF-NODEAGENT")?;
    let start = Instant::now();
    let say = |what: &str| println!("\n\x1b[1m[{:5.1} s] {what}\x1b[0m", start.elapsed().as_secs_f64());

    say("making a network with a release mirror, a signer, and a stand-in for the API server");
    let mut lab = Lab::with_binary("demo", &agent)?;
    {
        let _api_server = lab.start_stand_in_api_server()?;
        println!("API server's address: {CONTROLLER}; node's address: {WORKER}");

        say("booting worker1; cloud-init gets cloud-config/worker.yaml as it is; the agent's journal:");
        let mut node = lab.worker("worker1", WORKER)?.create()?;
        node.power_on()?;
        follow(&node)?;

        say("what it made");
        print(
            &node,
            &["find", "-H"],
            &RESULTS,
            &[
                "-newer",
                "/etc/nodeagent/node.yaml",
                "(",
                "-type",
                "f",
                "-o",
                "-type",
                "l",
                ")",
                "-printf",
                "%M %9s  %p  %l\n",
            ],
        )?;

        say("/etc/network-environment");
        print(&node, &["cat", "/etc/network-environment"], &[], &[])?;

        say("the node's units");
        print(
            &node,
            &["systemctl", "list-units", "--no-pager", "--no-legend", "--plain"],
            &["containerd.service", "kubelet.service", "kube-proxy.service"],
            &[],
        )?;

        say("nodeagent plan");
        print(&node, &["nodeagent", "plan", "--exit-code"], &[], &[])?;
    }
    lab.passed();
    say("done; the lab is taken down");
    Ok(())
}

/// Shows the agent's journal while it grows, until the agent has done its work.
fn follow(node: &Node<'_>) -> Result<()> {
    let start = Instant::now();
    loop {
        // Asked first, so that the lines of its last moment are shown as well.
        let done = finished(node);
        // The journal's own cursor file remembers what was shown. Before systemd is up there is nothing to show.
        let lines = node.ok(&[
            "journalctl",
            "--quiet",
            "--no-pager",
            "--no-hostname",
            "--output=short-precise",
            "--cursor-file=/run/demo.cursor",
            "--unit=nodeagent-fetch.service",
            "--unit=nodeagent.service",
        ]);
        print!("{}", lines.unwrap_or_default());
        io::stdout().flush()?;
        match done {
            Ok(true) => return Ok(()),
            Err(reason) if start.elapsed() > BOOTSTRAP => return Err(reason.context("the node does not come up")),
            Ok(false) if start.elapsed() > BOOTSTRAP => bail!("the agent has not finished within {BOOTSTRAP:.0?}"),
            _ => thread::sleep(FOLLOW),
        }
    }
}

fn finished(node: &Node<'_>) -> Result<bool> {
    let property = |name| node.property("nodeagent.service", name);
    let ended = !property("ExecMainExitTimestamp")?.is_empty();
    Ok(ended && property("ActiveState")? == "inactive" && property("Result")? == "success")
}

/// Runs a command on the node and shows what it prints.
fn print(node: &Node<'_>, command: &[&str], objects: &[&str], rest: &[&str]) -> Result<()> {
    print!("{}", node.ok(&[command, objects, rest].concat())?);
    Ok(io::stdout().flush()?)
}
