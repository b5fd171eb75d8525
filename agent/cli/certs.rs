//! `nodeagent certs`: the step alone, and a look at what is there.

use std::collections::BTreeSet;
use std::path::PathBuf;

use clap::builder::{PossibleValuesParser, TypedValueParser as _};
use clap::{Args, Subcommand};

use super::bootstrap::{self, StepArgs};
use super::node;
use super::output::{self, Format};
use super::{Exit, Global, renew};
use crate::certs;
use crate::certs::issue::LIFETIME;
use crate::certs::show::{self, Shown};
use crate::config::settings::KeyKind;
use crate::config::values::RootPath;
use crate::engine::apply::Unreadable;
use crate::engine::commit::Hand;
use crate::engine::fault::Fault;
use crate::engine::id::Step;
use crate::engine::plan::Plan;
use crate::engine::resource::Thing;
use crate::host::seen::Entry;
use crate::journal::Teller;
use crate::provision::authority::{self, Made, NewAuthority};
use crate::provision::sign::{self, Signed, Whose};

/// Arguments of `certs`.
#[derive(Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct CertsArgs {
    #[command(flatten)]
    step: StepArgs,
    #[command(subcommand)]
    command: Option<CertsCommand>,
}

#[derive(Subcommand)]
enum CertsCommand {
    /// Show every certificate on the node: whose, until when, good or why not
    Show,
    /// Renew what is due, as nodeagent-renew.service does every hour
    Renew,
    /// Make keys and requests for a person to carry to the CA
    Csr(CsrArgs),
    /// Sign nodes' requests, on an operator's machine
    Sign(SignArgs),
    /// Make a cluster's CA, on an operator's machine
    Ca(CaArgs),
}

/// Arguments of `certs csr`.
#[derive(Args)]
struct CsrArgs {
    /// Where keys and requests are kept [default: the dir of the signer offline, or else offline in pki.dir]
    #[arg(long, value_name = "DIR")]
    dir: Option<RootPath>,
}

/// Arguments of `certs sign`.
#[derive(Args)]
struct SignArgs {
    /// The requests, as `nodeagent certs csr` makes them on a node
    #[arg(value_name = "FILE.csr", required = true)]
    files: Vec<PathBuf>,
    /// The CA's certificate
    #[arg(long, value_name = "FILE")]
    ca: PathBuf,
    /// The CA's private key
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// Sign what controllers and members of etcd ask for, too: an
    /// administrator's certificate is among it
    #[arg(long)]
    control_plane: bool,
    /// How many days the certificates are good for
    #[arg(long, value_name = "N", default_value_t = LIFETIME, value_parser = clap::value_parser!(u32).range(1..=3650))]
    days: u32,
    /// The directory for the certificates [default: beside each request]
    #[arg(long, value_name = "DIR")]
    to: Option<PathBuf>,
}

/// Arguments of `certs ca`.
#[derive(Args)]
struct CaArgs {
    /// The directory for ca.pem and ca-key.pem; it must be there. A CA that is in
    /// it is never replaced, and what a killed run left is finished
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// Make a CA of its own for etcd, too: etcd-ca.pem and etcd-ca-key.pem
    #[arg(long)]
    etcd: bool,
    /// Make a CA of its own for the API server's extensions, too
    #[arg(long)]
    front_proxy: bool,
    /// What kind of keys to make
    #[arg(long, value_name = "KIND", default_value = KEY_KINDS[0], value_parser = PossibleValuesParser::new(KEY_KINDS).try_map(|kind| key_kind(&kind)))]
    key: KeyKind,
    /// How many days they are good for
    #[arg(long, value_name = "N", default_value_t = 3650, value_parser = clap::value_parser!(u32).range(1..=36500))]
    days: u32,
}

/// The kinds of keys in the words of `pki.key`; the first is the default.
const KEY_KINDS: [&str; 3] = ["ecdsa-p256", "rsa-2048", "rsa-4096"];

/// One of [`KEY_KINDS`].
fn key_kind(text: &str) -> Result<KeyKind, String> {
    let all = [KeyKind::EcdsaP256, KeyKind::Rsa2048, KeyKind::Rsa4096];
    all.into_iter().find(|kind| kind.to_string() == text).ok_or_else(|| format!("{text} is not made here"))
}

/// Runs the step, or what was asked instead.
pub async fn run(args: CertsArgs, global: &Global, tell: &Teller) -> Result<Exit, Fault> {
    match args.command {
        None => bootstrap::run_step(Step::Certs, args.step, global, tell).await,
        Some(CertsCommand::Show) => show(global).await,
        Some(CertsCommand::Renew) => renew::run(global, tell).await,
        Some(CertsCommand::Csr(args)) => csr(args, global, tell).await,
        Some(CertsCommand::Sign(args)) => {
            global.no_node("certs sign")?;
            let whose = if args.control_plane { Whose::ControlPlane } else { Whose::Nodes };
            let signed = sign::sign(&args.files, whose, &args.ca, &args.key, args.days, args.to.as_deref())?;
            match global.output {
                Format::Json => output::json(&signed),
                Format::Text => output::print(&signed.iter().map(line).collect::<Vec<_>>().concat()),
            }
            Ok(Exit::Done)
        }
        Some(CertsCommand::Ca(args)) => {
            global.no_node("certs ca")?;
            let made = authority::make(&args.dir, &args.wanted(), args.key, args.days)?;
            match global.output {
                Format::Json => output::json(&made),
                Format::Text => output::print(&made.iter().map(files).collect::<Vec<_>>().concat()),
            }
            Ok(Exit::Done)
        }
    }
}

impl CaArgs {
    fn wanted(&self) -> Vec<NewAuthority> {
        let etcd = self.etcd.then_some(NewAuthority::ETCD);
        let front_proxy = self.front_proxy.then_some(NewAuthority::FRONT_PROXY);
        std::iter::once(NewAuthority::CLUSTER).chain(etcd).chain(front_proxy).collect()
    }
}

/// Makes what is to be carried away, and prints where it is. No signer is asked, and none has to be reachable.
async fn csr(args: CsrArgs, global: &Global, tell: &Teller) -> Result<Exit, Fault> {
    const COMMAND: &str = "certs csr";
    let host = node::host(global)?;
    let node = node::awaited(global, &host, tell).await?;
    let requests = certs::requests(&node.settings, &node.identity, args.dir.as_ref());
    let made: Vec<Thing> = requests.iter().flat_map(|request| request.what.makes()).collect();
    let plan = Plan { steps: vec![(Step::Certs, requests)], no_restart: BTreeSet::new() };
    let hand = Hand::take(&host, tell, COMMAND, Some(node.settings.digest.clone())).await?;
    let exit = bootstrap::execute(COMMAND, &plan, &node, &host, hand, global, tell).await?;
    if global.output == Format::Text && exit == Exit::Done {
        for thing in made {
            if let Thing::File(file) = thing
                && file.name().strip_suffix(".csr").is_some()
                && !matches!(host.root.entry(&file, false)?, Entry::Absent)
            {
                output::print(&(host.root.display(&file) + "\n"));
            }
        }
    }
    Ok(exit)
}

/// Where a CA is.
fn files(made: &Made) -> String {
    format!("{}\n{}\n", made.certificate, made.key)
}

/// What was signed, for whom.
fn line(signed: &Signed) -> String {
    let names = if signed.names.is_empty() { String::new() } else { format!(" for {}", signed.names.join(", ")) };
    format!("{}: {}{names} ({})\n", signed.certificate, signed.subject, signed.usages.join(", "))
}

async fn show(global: &Global) -> Result<Exit, Fault> {
    let host = node::host(global)?;
    let node = node::now(global, &host)?;
    let is_pem = |name: &str| [".pem", ".crt"].iter().any(|end| name.ends_with(end));
    let mut others: Vec<RootPath> = Vec::new();
    for dir in show::places(&node.settings) {
        let names = host.root.list(&dir)?;
        // A name that no path can have is none of ours.
        others.extend(names.iter().filter(|name| is_pem(name)).filter_map(|name| dir.child(name)));
    }
    let seen = host.see(&show::reads(&node.settings, &node.identity, &others)).await;
    let all = show::show(&node.settings, &node.identity, &others, &seen).map_err(Unreadable)?;
    match global.output {
        Format::Json => output::json(&all),
        Format::Text => output::print(&all.iter().map(text).collect::<Vec<_>>().join("\n")),
    }
    Ok(Exit::Done)
}

/// All of them behind a few words; nothing where there is none.
fn listed(words: &str, all: &[impl ToString]) -> String {
    let all: Vec<String> = all.iter().map(ToString::to_string).collect();
    if all.is_empty() { String::new() } else { format!("{words}{}", all.join(", ")) }
}

/// A paragraph for each.
fn text(shown: &Shown) -> String {
    let left = shown.says.as_ref().map(|says| format!(", {}", says.left()));
    let verdict = if shown.flaws.is_empty() { "good".to_owned() } else { shown.flaws.join("; ") };
    let readers = listed(", read by ", &shown.read_by);
    let mut lines =
        vec![format!("{}: {verdict}{}", shown.file, left.unwrap_or_default()), format!("  {}{readers}", shown.purpose)];
    if !shown.kubeconfigs.is_empty() {
        lines.push(listed("  in ", &shown.kubeconfigs));
    }
    if let Some(says) = &shown.says {
        let key = says.key.as_ref().map(|key| format!(", {key}")).unwrap_or_default();
        lines.push(format!("  {}{key}", says.subject));
        if !says.names.is_empty() {
            lines.push(format!("  for {}", says.names.join(", ")));
        }
        lines.push(format!("  signed by {}, until {}", says.issuer, says.not_after));
    }
    lines.extend(shown.request.as_ref().map(|request| format!("  next: {}", request.next)));
    lines.join("\n") + "\n"
}
