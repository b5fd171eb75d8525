//! `nodeagent cloud-config`: from one cluster.yaml to each machine's first boot, on an operator's machine.

use std::path::PathBuf;

use clap::Args;

use super::output::{self, Format};
use super::{Exit, Global};
use crate::config::Source;
use crate::engine::fault::{Class, Fault};
use crate::host::root::FileError;
use crate::host::sources;
use crate::journal::{Event, Teller};
use crate::provision::cloud_config::{self, Made, Order};

/// Arguments of `cloud-config`.
#[derive(Args)]
pub struct CloudConfigArgs {
    /// The description of the cluster
    #[arg(value_name = "cluster.yaml", required_unless_present = "schema")]
    file: Option<PathBuf>,
    /// The directory for what is made, and where it is found again
    #[arg(long, value_name = "DIR", default_value = "inventory")]
    to: PathBuf,
    /// The directory of CAs and keys [default: pki in the directory for what is made]
    #[arg(long, value_name = "DIR")]
    pki: Option<PathBuf>,
    /// Give every machine a new bootstrap token, and not only those whose token has expired
    #[arg(long)]
    new_tokens: bool,
    /// Make user-data larger than metadata services take (16 KiB): for a web server or a config drive
    #[arg(long)]
    any_size: bool,
    /// Print the JSON Schema of cluster.yaml instead
    #[arg(long, exclusive = true)]
    schema: bool,
}

/// Makes the inventory, and says what has to be brought where.
pub async fn run(args: CloudConfigArgs, global: &Global, tell: &Teller) -> Result<Exit, Fault> {
    global.no_node("cloud-config")?;
    let Some(file) = args.file else {
        output::json(&crate::config::cluster::json_schema());
        return Ok(Exit::Done);
    };
    let name = file.display().to_string();
    let text = sources::text(&file).map_err(|source| {
        let mut fault = Fault::from(FileError::new("read", name.clone(), source)).of(Class::Usage);
        fault.advice = Some("name the file that describes the cluster: docs/cloud-config.md has one".to_owned());
        fault
    })?;
    let source = Source { name, text };
    let order = Order { source, to: args.to, pki: args.pki, new_tokens: args.new_tokens, any_size: args.any_size };
    let told = |holder: &str| {
        let why = format!("held by {holder}");
        tell.tell(&Event::TargetAwaited { target: "the lock", why: &why });
    };
    let made = cloud_config::make(order, told).await?;
    for (name, node) in &made.nodes {
        if let Some(key) = &node.stray_key {
            tell.tell(&Event::KeyStray { node: name.as_str(), key });
        }
    }
    match global.output {
        Format::Json => output::json(&made),
        Format::Text => output::print(&text_of(&made)),
    }
    Ok(Exit::Done)
}

fn text_of(made: &Made) -> String {
    let mut lines: Vec<String> = made.written.iter().map(|file| format!("wrote {file}")).collect();
    lines.extend(made.removed.iter().map(|file| format!("removed {file}")));
    if lines.is_empty() {
        lines.push("everything is there already".to_owned());
    }
    for (name, node) in made.nodes.iter().filter(|(_, node)| !node.secrets.is_empty()) {
        lines.push(format!("{name} also needs, root's:"));
        lines.extend(
            node.secrets.iter().map(|secret| format!("  {} as {} ({})", secret.file, secret.path, secret.mode)),
        );
    }
    if !made.left.is_empty() {
        lines.push(format!(
            "left as they are: {}: cluster.yaml has no such machines any more. Remove them when the machines are gone for good: \
             they hold secrets. Each keeps its pod network until its line in allocations.yaml is removed, too",
            made.left.join(", ")
        ));
    }
    lines.join("\n") + "\n"
}
