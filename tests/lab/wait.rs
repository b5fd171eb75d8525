//! Waiting where only a real systemd, a network's own ways to fail, and a name server that errs can show it.

use std::{
    fs,
    net::{Ipv4Addr, TcpListener, UdpSocket},
    process::Output,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};

use crate::harness::{COMMAND, Lab, Node, WORKER, process};

/// What never comes is given up after this long.
const GIVE_UP: &str = "5s";

/// For systemd to end a start that hangs: its own timeout, the time that the wait asked for last, and leisure.
const KILLED: Duration = Duration::from_mins(1);

/// A booted node with the agent on it, and no more.
fn node(lab: &Lab) -> Result<Node<'_>> {
    let node = lab.node("worker1", WORKER).boot()?;
    node.ok(&["mkdir", "-p", "/opt/bin"])?;
    node.write("/opt/bin/nodeagent", &fs::read(Lab::binary()?)?)?;
    node.ok(&["chmod", "0755", "/opt/bin/nodeagent"])?;
    Ok(node)
}

/// A unit whose start waits. Its own timeout is shorter than any wait here.
fn unit(node: &Node<'_>, name: &str, notify_access: &str, wait: &str) -> Result<()> {
    let text = format!(
        "[Service]\nType=oneshot\nRemainAfterExit=yes\nTimeoutStartSec=10s\nNotifyAccess={notify_access}\n\
         ExecStartPre=/opt/bin/nodeagent wait {wait}\nExecStart=/bin/true\n"
    );
    node.write(&format!("/etc/systemd/system/{name}"), text.as_bytes())
}

/// Waits until a unit is in this state.
fn becomes(node: &Node<'_>, unit: &str, state: &str) -> Result<()> {
    node.wait_until(&format!("{unit} to be {state}"), KILLED, |node| {
        let now = node.property(unit, "ActiveState")?;
        ensure!(now == state, "it is {now}");
        Ok(())
    })
}

#[test]
fn a_start_that_waits_is_extended_and_one_that_hangs_is_killed() -> Result<()> {
    Lab::run("extend", |lab| {
        let node = node(lab)?;
        unit(&node, "held.service", "exec", "--timeout 2m file:/run/go")?;
        unit(&node, "deaf.service", "none", "--timeout 2m file:/run/go")?;
        unit(&node, "late.service", "exec", "--timeout 12s file:/run/never")?;
        unit(&node, "hung.service", "exec", "--timeout 2m file:/run/never")?;
        node.ok(&["systemctl", "daemon-reload"])?;
        let started = Instant::now();
        for unit in ["held.service", "deaf.service", "late.service", "hung.service"] {
            node.ok(&["systemctl", "start", "--no-block", unit])?;
        }
        // A wait that does not run cannot ask for more time.
        node.wait_until("hung.service's wait to be under way", COMMAND, |node| {
            let says = node.property("hung.service", "StatusText")?;
            ensure!(says.contains("file:/run/never: it does not exist"), "its status is {says:?}");
            Ok(())
        })?;
        let pid = node.property("hung.service", "ControlPID")?;
        node.ok(&["kill", "-STOP", &pid])?;

        // systemd does not hear the one, and ends it at its own timeout.
        becomes(&node, "deaf.service", "failed")?;
        assert_eq!(node.property("deaf.service", "Result")?, "timeout");
        // The other's own deadline is later than systemd's, and it is the wait that gives up and says why.
        becomes(&node, "late.service", "failed")?;
        assert_eq!(node.property("late.service", "Result")?, "exit-code");
        assert!(node.property("late.service", "ExecStartPre")?.contains("status=3"), "exit code 3");
        let told = node.journal(&["MESSAGE_ID=ee5c77b004da4fbf82ac38dc00421a35", "_SYSTEMD_UNIT=late.service"])?;
        let last = told.last().and_then(|entry| entry["MESSAGE"].as_str()).context("its last words")?;
        assert!(last.contains("file:/run/never: it does not exist"), "{last}");

        becomes(&node, "hung.service", "failed")?;
        assert_eq!(node.property("hung.service", "Result")?, "timeout");
        let outlived = started.elapsed();
        ensure!(outlived > Duration::from_secs(12), "systemd ended the hung start after {outlived:?}, unextended");
        assert_eq!(node.property("held.service", "ActiveState")?, "activating", "after {:?}", started.elapsed());
        node.write("/run/go", b"")?;
        becomes(&node, "held.service", "active")
    })
}

#[test]
fn units_as_targets() -> Result<()> {
    Lab::run("unit-target", |lab| {
        let node = node(lab)?;
        let wait = |timeout: &str, target: &str| -> Result<(i32, String)> {
            let output = node.run(&["nodeagent", "wait", "--timeout", timeout, target])?;
            Ok((output.status.code().context("it was killed")?, String::from_utf8(output.stderr)?))
        };
        assert_eq!(wait("60s", "unit:containerd.service")?.0, 0);

        node.write("/etc/systemd/system/bad.service", b"[Service]\nType=oneshot\nExecStart=/bin/false\n")?;
        node.ok(&["systemctl", "daemon-reload"])?;
        node.run(&["systemctl", "start", "bad.service"])?;
        for (target, words) in [
            ("unit:bad.service", "the unit has failed"),
            ("unit:bad.service", "exit status 1"),
            ("unit:no-such.service", "there is no such unit"),
            ("unit:emergency.target", "the unit is not active: inactive (dead)"),
        ] {
            let (code, told) = wait(GIVE_UP, target)?;
            assert!(code == 3 && told.contains(words), "{target}: {code}: {told}");
        }

        // One wait holds the next: a change of the unit ends it.
        unit(&node, "first.service", "exec", "--timeout 2m file:/run/go")?;
        unit(&node, "second.service", "exec", "--timeout 2m unit:first.service")?;
        node.ok(&["systemctl", "daemon-reload"])?;
        node.ok(&["systemctl", "start", "--no-block", "first.service", "second.service"])?;
        node.wait_until("second.service to wait", COMMAND, |node| {
            let says = node.property("second.service", "StatusText")?;
            ensure!(says.contains("unit:first.service: the unit is not active: activating"), "its status is {says:?}");
            Ok(())
        })?;
        node.write("/run/go", b"")?;
        becomes(&node, "second.service", "active")
    })
}

/// Waits in the lab's network for something that never comes, and returns what was told.
fn given_up(output: &Output) -> Result<String> {
    let told = String::from_utf8(output.stderr.clone())?;
    ensure!(output.status.code() == Some(3), "{}: {told}", output.status);
    Ok(told)
}

#[test]
fn a_network_that_has_no_way_or_no_answer() -> Result<()> {
    Lab::run("no-way", |lab| {
        let agent = Lab::binary()?.display().to_string();
        // Frames for this neighbour are sent, and nobody takes them: as behind a firewall that drops.
        let neighbour = ["ip", "neigh", "add", "10.10.30.99", "lladdr", "02:00:00:00:00:99", "dev", "br0"];
        let added = lab.run_in_network(&neighbour)?;
        ensure!(added.status.success(), "{added:?}");
        for (target, words) in [
            ("tcp://192.0.2.1:80", "no route to it"),
            ("http://192.0.2.1/", "no route to it"),
            ("tcp://10.10.30.99:80", "no answer to the connection request (filtered"),
            ("http://10.10.30.99/", "no answer to the connection request (filtered"),
            ("tcp://10.10.30.1:81", "connection refused"),
        ] {
            let output = lab.run_in_network(&[&agent, "wait", "--timeout", GIVE_UP, target])?;
            let told = given_up(&output)?;
            ensure!(told.contains(words), "{target}: {told}");
        }
        Ok(())
    })
}

/// A stand-in for a name server, on a loopback address of its own. It knows an address of every name but `silent`, of
/// which it says nothing; asked for an IPv6 address, it fails.
fn stand_in_name_server(address: Ipv4Addr) -> Result<()> {
    const A: u8 = 1;
    const HEADER: usize = 12;
    let socket = UdpSocket::bind((address, 53)).context("listen on port 53 of a loopback address (needs root)")?;
    thread::spawn(move || -> std::io::Result<()> {
        let mut query = [0; 512];
        loop {
            let (length, from) = socket.recv_from(&mut query)?;
            let query = &query[..length];
            if query.windows(6).any(|window| window == b"silent") {
                continue;
            }
            let name = query[HEADER..].iter().position(|byte| *byte == 0).unwrap_or_default();
            let question = &query[HEADER..HEADER + name + 5];
            let is_v4 = question[name + 2] == A;
            let mut answer = query[..2].to_vec();
            // One question, and one answer or SERVFAIL.
            answer.extend([0x81, if is_v4 { 0x80 } else { 0x82 }, 0, 1, 0, u8::from(is_v4), 0, 0, 0, 0]);
            answer.extend(question);
            if is_v4 {
                // The name of the question, A, IN, a minute, four bytes.
                answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
                answer.extend(Ipv4Addr::LOCALHOST.octets());
            }
            socket.send_to(&answer, from)?;
        }
    });
    Ok(())
}

#[test]
fn a_name_server_that_fails_for_ipv6_or_says_nothing() -> Result<()> {
    let address = Ipv4Addr::new(127, 77, 0, 1);
    stand_in_name_server(address)?;
    let folder = tempfile::tempdir()?;
    let resolv_conf = folder.path().join("resolv.conf").display().to_string();
    fs::write(&resolv_conf, format!("nameserver {address}\n"))?;
    let agent = Lab::binary()?.display().to_string();
    let wait = |timeout: &str, target: &str| {
        let script = r#"mount --bind "$1" /etc/resolv.conf && shift && exec "$@""#;
        let enter = ["unshare", "--mount", "--propagation=private", "sh", "-c", script, "sh"];
        let args = [resolv_conf.as_str(), &agent, "wait", "--timeout", timeout, target];
        process::output(&[&enter[..], &args].concat(), COMMAND)
    };
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let port = listener.local_addr()?.port();
    for target in ["dns:api.test".to_owned(), format!("tcp://api.test:{port}")] {
        let output = wait("60s", &target)?;
        ensure!(output.status.success(), "{target}: {}", String::from_utf8_lossy(&output.stderr));
    }
    // The resolver itself would ask for ten seconds and more.
    let start = Instant::now();
    let told = given_up(&wait("1s", "dns:silent.test")?)?;
    ensure!(told.contains("no answer from the resolver"), "{told}");
    ensure!(start.elapsed() < Duration::from_secs(9), "it gave up after {:?}", start.elapsed());
    Ok(())
}
