//! A store of three machines, of which one loses its data: by what the guard and docs/etcd.md advise, to the word, it joins
//! the others again.

use anyhow::{Context, Result, ensure};

use crate::agent::agent;
use crate::bootstrap::{bootstrapped, nothing_to_do};
use crate::etcd::{self, HEALTHY, ask_own, cluster_id, etcdctl, failures, pair};
use crate::harness::{Cluster, Lab, Node, cluster::Machine};

const MACHINES: [Machine; 3] =
    [etcd::MACHINES[0], etcd::MACHINES[1], Machine { name: "etcd-3", role: "etcd", address: "10.10.30.33" }];

/// The agent's own mark that a member was ready on the machine.
const MARK: &str = "/var/lib/nodeagent/etcd-member";

/// What the others have of a member: its number, and whether it ever started.
fn listed(node: &Node<'_>, url: &str) -> Result<(String, bool)> {
    let members = etcdctl(node, &pair("etcd-server.pem"), &["member", "list"])?;
    ensure!(members.lines().count() == MACHINES.len(), "{members}");
    let line = members.lines().find(|line| line.contains(url)).with_context(|| format!("no {url} in {members}"))?;
    let [id, state, ..] = line.split(", ").collect::<Vec<_>>()[..] else { panic!("columns of {line}") };
    Ok((id.to_owned(), state == "started"))
}

/// The member's own copy, whatever the others have.
fn has_the_data(node: &Node<'_>) -> Result<()> {
    ask_own(node, &["endpoint", "health"])?;
    let value = ask_own(node, &["get", "--consistency=s", "--print-value-only", "greeting"])?;
    ensure!(value.trim() == "hello", "it has {value:?}");
    Ok(())
}

#[test]
fn a_member_whose_data_is_lost_joins_the_others_again() -> Result<()> {
    Lab::run("etcd-join", |lab| {
        let mut cluster = Cluster::new(lab, &etcd::yaml(lab, &MACHINES)?, &MACHINES)?;
        cluster.power_on(&MACHINES.map(|machine| machine.name))?;
        let (first, lost) = (cluster.node("etcd-1")?, cluster.node("etcd-3")?);
        let server = pair("etcd-server.pem");
        for machine in MACHINES {
            let node = cluster.node(machine.name)?;
            bootstrapped(node)?;
            nothing_to_do(node)?;
        }
        etcdctl(first, &server, &["put", "greeting", "hello"])?;
        lost.wait_until("the third to have it too", HEALTHY, has_the_data)?;
        let url = format!("https://{}:2380", MACHINES[2].address);
        let (of_all, (old, _)) = (cluster_id(first)?, listed(first, &url)?);

        lost.ok(&["systemctl", "stop", "etcd.service"])?;
        lost.ok(&["rm", "-r", "/var/lib/etcd/member"])?;
        ensure!(!lost.run(&["systemctl", "start", "etcd.service"])?.status.success(), "it began a cluster of its own");
        let said = failures(lost)?;
        ensure!(said.contains("etcdctl member remove") && said.contains(MARK), "{said}");

        // What it says there. It is tried again every five seconds: if it were not stopped, it would begin anew in between.
        lost.ok(&["systemctl", "stop", "etcd.service"])?;
        etcdctl(first, &server, &["member", "remove", &old])?;
        first.wait_until("the others to take the member", HEALTHY, |node| {
            // For some seconds they are an "unhealthy cluster", as docs/etcd.md says.
            match etcdctl(node, &server, &["member", "add", "etcd-3", &format!("--peer-urls={url}")]) {
                // They had taken it when they changed their leader.
                Err(error) if format!("{error:#}").contains("already exists") => Ok(String::new()),
                said => said,
            }
        })?;
        lost.write("/etc/nodeagent/node.d/20-join.yaml", b"etcd: { join: true }\n")?;
        lost.ok(&["rm", MARK])?;
        let (code, shown, told) = agent(lost, &["bootstrap"])?;
        ensure!(code == 0, "{code}: {shown}{told}");

        lost.wait_until("the member to have what it had", HEALTHY, has_the_data)?;
        let (new, started) = listed(first, &url)?;
        ensure!(new != old && started, "{old} became {new}, which has started: {started}");
        for machine in MACHINES {
            let id = cluster_id(cluster.node(machine.name)?)?;
            ensure!(id == of_all, "{} is of the cluster {id}, which was {of_all}", machine.name);
        }
        // A member like the others: it may start again, and what is written there is everywhere.
        ensure!(lost.exists(MARK), "it is not remembered");
        nothing_to_do(lost)?;
        lost.ok(&["systemctl", "restart", "etcd.service"])?;
        lost.wait_until("the member to come back", HEALTHY, has_the_data)?;
        ask_own(lost, &["put", "answer", "42"])?;
        ensure!(etcdctl(first, &server, &["get", "--print-value-only", "answer"])?.trim() == "42");
        Ok(())
    })
}
