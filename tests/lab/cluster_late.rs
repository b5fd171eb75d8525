//! A machine that comes so late that its bootstrap token is over.

use std::time::Duration;

use anyhow::{Result, ensure};

use crate::harness::{Cluster, process::wait_until};

/// Where each machine has its token, and each controller all of them.
const TOKEN: &str = "/etc/nodeagent/bootstrap-token";
const TOKENS: &str = "/etc/nodeagent/bootstrap-tokens.yaml";

/// For a first boot to come to where a certificate is asked for.
const ASKED: Duration = Duration::from_mins(3);

/// Boots a machine a day after its token was made. It cannot join, and says what to do about it, and no secret.
pub fn is_held_up(cluster: &mut Cluster<'_>, machine: &'static str) -> Result<()> {
    let token = cluster.token(machine)?;
    let (id, secret) = token.split_once('.').unwrap_or_default();
    // As the controller manager's tokencleaner does then.
    cluster.kubectl(&["delete", "secret", "--namespace=kube-system", &format!("bootstrap-token-{id}")])?;
    cluster.let_expire(machine)?;
    cluster.power_on(&[machine])?;
    let node = cluster.node(machine)?;
    wait_until("the machine to say why it cannot join", ASKED, || {
        let said = node.ok(&["journalctl", "--no-pager", "--unit=nodeagent.service", "--output=cat"])?;
        let refused = format!("does not accept the bootstrap token {id} in {TOKEN}");
        ensure!(said.contains(&refused), "it says {said}");
        let again = "nodeagent cloud-config again on the operator's machine";
        for part in [again, "bootstrap-tokens.yaml", &format!("put it into {TOKEN}")] {
            ensure!(said.contains(part), "no {part:?} in {said}");
        }
        ensure!(!said.contains(secret), "it tells the secret");
        Ok(())
    })
}

/// As that advice has it: the operator runs `nodeagent cloud-config` again, and brings the controllers their list of tokens.
/// The machine that has none is brought its own by [`bring`].
pub fn gets_another_token(cluster: &Cluster<'_>, yaml: &str, machine: &str, others: &[&str]) -> Result<()> {
    let tokens = |names: &[&str]| names.iter().map(|name| cluster.token(name)).collect::<Result<Vec<_>>>();
    let (old, kept) = (cluster.token(machine)?, tokens(others)?);
    cluster.cloud_config(yaml)?;
    ensure!(cluster.token(machine)? != old, "it has the old one still");
    ensure!(tokens(others)? == kept, "another machine has another one");
    let file = "controller-1/secrets/bootstrap-tokens.yaml";
    cluster.node("controller-1")?.write_as(TOKENS, &cluster.made(file)?, 0o600)
}

/// Brings a machine its token.
pub fn bring(cluster: &Cluster<'_>, machine: &str) -> Result<()> {
    cluster.node(machine)?.write_as(TOKEN, cluster.token(machine)?.as_bytes(), 0o600)
}
