//! Which of two controllers works, and what they do when one of them, or the API server, is lost.

use std::{fs, time::Duration};

use anyhow::{Result, ensure};

use super::{Controller, SOON, ask, client, get};
use crate::harness::{Lab, process};

#[test]
fn of_two_controllers_one_works_and_the_other_takes_over() -> Result<()> {
    Lab::run("cluster-lease", |lab| {
        let plane = lab.start_control_plane()?;
        let mut controller = Controller::new(lab)?;
        let mut first = controller.start()?;
        first.tells("this controller looks after the cluster")?;
        let mut second = controller.start()?;
        second.tells("looks after the cluster; this controller stands by")?;
        let holder = || get(&plane, &["lease", "--namespace=kube-system", "nodeagent"]);
        let before = holder()?;
        std::thread::sleep(Duration::from_secs(20));
        let after = holder()?;
        ensure!(before["spec"]["holderIdentity"] == after["spec"]["holderIdentity"], "{before} became {after}");
        ensure!(before["spec"]["renewTime"] != after["spec"]["renewTime"], "it is not renewed: {after}");
        ensure!(!second.told()?.contains("this controller looks after the cluster"), "both work");

        // Killed, it says nothing: its Lease has to run out.
        first.daemon.kill();
        let begun = std::time::Instant::now();
        second.tells("this controller looks after the cluster")?;
        let took = begun.elapsed();
        // Its Lease has 15 seconds, of which a few may have been over, and is looked at every two.
        ensure!(took > Duration::from_secs(5), "taken over after {took:?}");
        println!("taken over from a killed one after {took:.1?}");

        // Asked to end, it lets go.
        let mut third = controller.start()?;
        third.tells("this controller stands by")?;
        second.daemon.terminate(SOON)?;
        let begun = std::time::Instant::now();
        third.tells("this controller looks after the cluster")?;
        let took = begun.elapsed();
        ensure!(took < Duration::from_secs(12), "taken over after {took:?}, as if its Lease had run out");
        println!("taken over from one that was asked to end after {took:.1?}");
        ensure!(holder()?["spec"]["leaseTransitions"] == 2, "{}", holder()?);
        Ok(())
    })
}

/// The process whose command line has this in it, and its arguments.
fn program(part: &str) -> Result<(nix::unistd::Pid, Vec<String>)> {
    for entry in fs::read_dir("/proc")?.filter_map(Result::ok) {
        let Ok(pid) = entry.file_name().to_string_lossy().parse() else { continue };
        let line = fs::read_to_string(entry.path().join("cmdline")).unwrap_or_default();
        let args: Vec<String> = line.split_terminator('\0').map(str::to_owned).collect();
        // Not those that only wait for it.
        if args.first().is_some_and(|name| name.ends_with("kube-apiserver")) && line.contains(part) {
            return Ok((nix::unistd::Pid::from_raw(pid), args));
        }
    }
    anyhow::bail!("no process has {part} in its command line")
}

#[test]
fn an_api_server_that_starts_anew_is_found_again() -> Result<()> {
    Lab::run("cluster-anew", |lab| {
        let plane = lab.start_control_plane()?;
        let mut controller = Controller::new(lab)?;
        let mut service = controller.start()?;
        service.tells("Secret kube-system/bootstrap-token-second: made")?;
        let (pid, args) = program(&lab.directory().display().to_string())?;
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL)?;
        service.tells("looking after the cluster begins anew")?;
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let _again = lab.start_in_network("kube-apiserver", &args, &lab.directory().join("again.log"))?;
        process::wait_until("the API server to be ready", SOON, || plane.kubectl(&["get", "--raw=/readyz"]))?;

        let config = format!("--kubeconfig={}", lab.directory().join("control-plane/admin.conf").display());
        let groups = ["--as-group=system:nodes", "--as-group=system:authenticated"];
        let by_node = [config.as_str(), "--as=system:node:worker-01", groups[0], groups[1]];
        ask(lab, &plane, "renewal", "kube-apiserver-client-kubelet", &client("worker-01"), &by_node)?;
        service.tells("approved renewal of system:node:worker-01")?;
        let told = service.told()?;
        ensure!(told.matches("begins anew").count() < 20, "it tells too much: {told}");
        // No second process took the Lease, nor was it let go.
        let lease = get(&plane, &["lease", "--namespace=kube-system", "nodeagent"])?;
        ensure!(lease["spec"]["leaseTransitions"] == 0, "{lease}");
        service.daemon.terminate(SOON)
    })
}
