//! `make cluster`: three machines, from an operator's `cluster.yaml` to pods that reach each other, for people to watch.
//!
//! Takes the agent's binary as its argument; with `--kubernetes`, it only has the cluster's programs built. Everything happens inside a lab that is gone at the end; what an unfinished
//! one leaves is kept for inspection, as that of a failed test.

#![allow(clippy::disallowed_methods, reason = "the lab runs programs and writes files on the machine that tests")]

#[allow(dead_code, unused_imports, reason = "the tests use more of the lab than this shows")]
mod harness;

use std::{env, path::PathBuf, time::Instant};

use anyhow::{Context, Result};
use harness::{Cluster, Lab, THREE, cluster, kubernetes, timeline};

fn main() -> Result<()> {
    let agent = env::args_os().nth(1).map(PathBuf::from).context("usage: cluster PATH-OF-NODEAGENT | --kubernetes")?;
    if agent.as_os_str() == "--kubernetes" {
        println!("{}", kubernetes::programs(&harness::cache()?)?.display());
        return Ok(());
    }
    let mut lab = Lab::with_binary("cluster", &agent)?;
    let names = THREE.map(|machine| machine.name);
    let workers: Vec<_> = THREE.iter().filter(|machine| machine.role == "worker").map(|machine| machine.name).collect();
    let yaml = cluster::yaml(&lab, &THREE)?;
    println!("\n\x1b[1mcluster.yaml\x1b[0m\n{yaml}");
    {
        let start = Instant::now();
        let say = |what: &str| println!("\n\x1b[1m[{:5.1} s] {what}\x1b[0m", start.elapsed().as_secs_f64());
        say(
            "nodeagent cloud-config cluster.yaml; each machine gets its user-data, and the controller its secret files",
        );
        let mut cluster = Cluster::new(&lab, &yaml, &THREE)?;
        say("power on");
        cluster.power_on(&names)?;
        let ready = cluster.wait_until_ready(&names)?;
        say("all machines are ready: kubectl get nodes");
        print!("{}", cluster.kubectl(&["get", "nodes", "--output=wide"])?);
        say("a pod on each worker, asked by the other worker's");
        for (asking, said) in cluster.pods_reach_each_other(&workers)? {
            print!("to the pod on {asking}: {said}");
        }
        say("from cluster.yaml to here; where the time went:");
        print!("{}", timeline::table(&cluster, &ready)?);
        say("done; the lab is taken down");
    }
    lab.passed();
    Ok(())
}
