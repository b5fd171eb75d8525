//! The command line: one file per command, and here only what they share.

mod bootstrap;
mod certs;
mod clock;
mod cloud_config;
mod cluster;
mod etcd;
mod exit;
mod images;
mod install;
mod join;
mod lock;
mod network;
mod node;
mod old_names;
mod output;
mod plan;
mod renew;
mod rollback;
mod routes;
mod schema;
mod wait;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::engine::fault::{Class, Explain, Fault};
use crate::engine::id::Step;
use crate::host::{console, journald, root};
use crate::journal::{self, Event, Teller};

pub use exit::Exit;
use output::Format;

/// Turns a freshly booted machine into a Kubernetes node.
///
/// One small file describes the node, /etc/nodeagent/node.yaml, and `nodeagent bootstrap` makes it so. It may be killed
/// at any instant and run again.
#[derive(Parser)]
#[command(name = "nodeagent", version, about, max_term_width = 80, arg_required_else_help = true)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

/// What every command takes.
#[derive(Args)]
pub(crate) struct Global {
    /// The node's configuration; *.yaml in node.d beside it is merged over it [default: /etc/nodeagent/node.yaml]
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Work on the file tree in DIR instead of the running machine; what is live is then skipped
    #[arg(long, global = true, value_name = "DIR", default_value = "/", hide_default_value = true)]
    root: PathBuf,
    /// Take the machine's facts from FILE (as `plan -o json` prints them) instead of gathering them
    #[arg(long, global = true, value_name = "FILE")]
    facts: Option<PathBuf>,
    /// How to print results
    #[arg(short, long, global = true, value_name = "FORMAT", default_value = "text", hide_possible_values = false)]
    output: Format,
    /// Tell more: in a plan also what is as wanted
    #[arg(short, long, global = true)]
    verbose: bool,
    /// Draw no progress bars
    #[arg(long, global = true)]
    no_progress: bool,
}

/// An option that says which node is meant, where none is.
#[derive(Debug, thiserror::Error)]
#[error("{option} means nothing to `nodeagent {command}`")]
struct NoNode {
    option: &'static str,
    command: &'static str,
}

impl Explain for NoNode {
    fn class(&self) -> Class {
        Class::Usage
    }

    fn advice(&self) -> Option<String> {
        Some(
            "it works for an operator, in the directories that it is given, and on no node: leave the option out"
                .to_owned(),
        )
    }
}

impl Global {
    /// Refuses what says which node is meant, for a command of the operator's.
    fn no_node(&self, command: &'static str) -> Result<(), NoNode> {
        let root = self.root != std::path::Path::new("/");
        let given = [("--config", self.config.is_some()), ("--root", root), ("--facts", self.facts.is_some())];
        let first = given.into_iter().find(|(_, given)| *given);
        first.map_or(Ok(()), |(option, _)| Err(NoNode { option, command }))
    }
}

/// As they are where none is given.
impl Default for Global {
    fn default() -> Self {
        Self {
            config: None,
            root: PathBuf::from("/"),
            facts: None,
            output: Format::Text,
            verbose: false,
            no_progress: false,
        }
    }
}

#[derive(Subcommand)]
enum Command {
    /// Make this machine the node that its configuration describes
    Bootstrap(bootstrap::BootstrapArgs),
    /// Show what bootstrap would change, and why; change nothing
    Plan(plan::PlanArgs),
    /// Only the network step: write /etc/network-environment
    Network(network::NetworkArgs),
    /// Only the kernel step: modules, sysctls, the hosts entry
    Kernel(bootstrap::StepArgs),
    /// Only the install step: fetch, verify and place programs
    Install(install::InstallArgs),
    /// Only the certs step: keys, certificates, kubeconfigs
    Certs(certs::CertsArgs),
    /// Only the limits step: drop-ins and running units' properties
    Limits(bootstrap::StepArgs),
    /// Only the units step: write, enable and start units
    Units(bootstrap::StepArgs),
    /// Wait until targets are ready, or say why they are not
    Wait(wait::WaitArgs),
    /// Undo the last run, or go back to a point
    Rollback(rollback::RollbackArgs),
    /// Undo everything that was ever done here
    Uninstall(rollback::UninstallArgs),
    /// Import the container images that containerd lacks
    Images(images::ImagesArgs),
    /// On a controller: approve nodes' certificates, and apply what a cluster
    /// lacks, as nodeagent-cluster.service does
    Cluster(cluster::ClusterArgs),
    /// Keep the routes to other nodes' pods
    Routes(routes::RoutesArgs),
    /// On a member of etcd: take, list and restore snapshots; what etcd.service
    /// runs around each start
    Etcd(etcd::EtcdArgs),
    /// Pin a release's digests in a lock file; make and check mirrors
    Lock(lock::LockArgs),
    /// Make each machine's user-data, CAs and kubeconfig from a cluster.yaml
    CloudConfig(cloud_config::CloudConfigArgs),
    /// Print the JSON Schema of node.yaml
    Schema,
}

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    root::clear_umask();
    let cli = match old_names::parse(std::env::args_os().collect()) {
        Ok(cli) => cli,
        Err(error) => return usage(&error).into(),
    };
    let tell = journal::start(journal::Options { verbose: cli.global.verbose, no_progress: cli.global.no_progress });
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            console::complain(&format!("start the runtime: {error}"));
            return Exit::Failed.into();
        }
    };
    let exit = runtime.block_on(async {
        let result = dispatch(cli.command, &cli.global, &tell).await;
        let exit = result.unwrap_or_else(|fault| report(&fault, &tell));
        journald::wait_until_read().await;
        exit
    });
    // A name that is still being resolved must not hold back an exit whose deadline has come.
    runtime.shutdown_background();
    exit.into()
}

async fn dispatch(command: Command, global: &Global, tell: &Teller) -> Result<Exit, Fault> {
    match command {
        Command::Bootstrap(args) => bootstrap::run(args, global, tell).await,
        Command::Plan(args) => plan::run(args, global, tell).await,
        Command::Network(args) => network::run(args, global, tell).await,
        Command::Kernel(args) => bootstrap::run_step(Step::Kernel, args, global, tell).await,
        Command::Install(args) => install::run(args, global, tell).await,
        Command::Certs(args) => certs::run(args, global, tell).await,
        Command::Limits(args) => bootstrap::run_step(Step::Limits, args, global, tell).await,
        Command::Units(args) => bootstrap::run_step(Step::Units, args, global, tell).await,
        Command::Wait(args) => wait::run(args, global, tell).await,
        Command::Rollback(args) => rollback::run(args, global, tell).await,
        Command::Uninstall(args) => rollback::uninstall(args, global, tell).await,
        Command::Images(args) => images::run(args, global, tell).await,
        Command::Cluster(args) => Box::pin(cluster::run(args, global, tell)).await,
        Command::Routes(args) => routes::run(args, global, tell).await,
        Command::Etcd(args) => etcd::run(args, global, tell).await,
        Command::CloudConfig(args) => cloud_config::run(args, global, tell).await,
        Command::Lock(args) => lock::run(args, global, tell).await,
        Command::Schema => {
            schema::run();
            Ok(Exit::Done)
        }
    }
}

/// Help and version are data; everything else clap has to say is a usage error.
fn usage(error: &clap::Error) -> Exit {
    if error.use_stderr() {
        console::complain(&error.render().to_string());
        Exit::Usage
    } else {
        output::print(&error.render().to_string());
        Exit::Done
    }
}

/// The fault that ended the command, and what to do about it.
fn report(fault: &Fault, tell: &Teller) -> Exit {
    let advice = fault.advice.as_deref().unwrap_or_default();
    tell.tell(&Event::CommandFailed { why: &fault.to_string(), advice });
    fault.class.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn every_argument_has_help_and_every_help_fits_a_screen() {
        let mut command = Cli::command();
        command.clone().debug_assert();
        command.build();
        for sub in std::iter::once(command.clone()).chain(command.get_subcommands().cloned()) {
            for argument in sub.get_arguments() {
                assert!(argument.get_help().is_some(), "{} {} has no help", sub.get_name(), argument.get_id());
            }
            let help = sub.clone().render_help().to_string();
            assert!(help.lines().all(|line| line.chars().count() <= 80), "{} is too wide:\n{help}", sub.get_name());
            assert!(help.lines().count() <= 50, "{} is too long:\n{help}", sub.get_name());
        }
    }
}
