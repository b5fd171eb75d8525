//! Configuration: text -> positioned tree -> merge -> check -> Settings.
//!
//! | stage | file | what goes wrong there |
//! | --- | --- | --- |
//! | text to a positioned tree | `tree.rs` | it is not YAML, or YAML's dangerous half |
//! | later files over earlier ones | `merge.rs` | nothing |
//! | the tree against the JSON Schema | `check.rs` | unknown, missing and mistyped keys, bad values |
//! | the document to [`Settings`] | `resolve.rs` | values that do not go together |
//!
//! Each stage reports everything that it finds, and the next one starts only when it found nothing. The schema comes
//! from the types in `document.rs`, the defaults stand in `defaults.rs`. Nothing here touches a file: [`load`] is a
//! pure function of the sources' text.

mod addresses;
pub mod catalogue;
mod check;
pub mod cluster;
mod defaults;
mod digests;
mod document;
mod errors;
pub mod kept;
pub mod manifests;
mod merge;
mod names;
mod places;
mod proxy;
mod quantities;
mod releases;
mod resolve;
pub mod settings;
#[cfg(test)]
mod tests;
mod tree;
pub mod values;

pub use errors::{ConfigErrors, Problem};
pub use settings::Settings;

use std::sync::LazyLock;

use document::Document;
use places::Places;
use values::Sha256;

/// One configuration file's name and content.
#[derive(Debug, Clone)]
pub struct Source {
    /// Its name, as messages shall show it.
    pub name: String,
    /// Its bytes, which need not even be text.
    pub text: Vec<u8>,
}

/// Made once: it is the same every time, and takes longer than reading a file.
static SCHEMA: LazyLock<serde_json::Value> = LazyLock::new(document::schema);

/// The Settings that the sources describe: `node.yaml`, then the drop-ins in name order; later ones win.
pub fn load(sources: Vec<Source>) -> Result<Settings, ConfigErrors> {
    let (tree, mut problems) = read(&sources).map_err(ConfigErrors::new)?;
    let checked = check::check(&SCHEMA, &tree);
    let typed = match checked {
        Ok(typed) if problems.is_empty() => typed,
        Ok(_) => return Err(ConfigErrors::new(problems)),
        Err(more) => {
            problems.extend(more);
            return Err(ConfigErrors::new(problems));
        }
    };
    settle(typed, &tree).map_err(ConfigErrors::new)
}

/// The Settings of a tree that passed the check, as which it is `typed`.
fn settle(typed: serde_json::Value, tree: &tree::Node) -> Result<Settings, Vec<Problem>> {
    let digest = Sha256::of(typed.to_string().as_bytes());
    let places = Places::of(tree);
    let document: Document = serde_json::from_value(typed).map_err(|error| {
        // Schema and types come from the same place: this would be our own mistake, and still no reason to panic.
        vec![Problem::new(places.at(""), "", format!("the check passed, but {error}: please report this"))]
    })?;
    resolve::resolve(document, &places, digest)
}

/// All sources as one tree, and what is wrong without making it unreadable; else why there is no tree.
fn read(sources: &[Source]) -> Result<(tree::Node, Vec<Problem>), Vec<Problem>> {
    let mut problems = Vec::new();
    let mut merged = None;
    let mut unreadable = false;
    for (order, source) in sources.iter().enumerate() {
        match tree::parse(order, source, &mut problems) {
            Ok(node) => {
                merged = Some(match merged.take() {
                    None => node,
                    Some(earlier) => merge::merge(earlier, node),
                });
            }
            Err(problem) => {
                problems.push(problem);
                unreadable = true;
            }
        }
    }
    match merged {
        Some(tree) if !unreadable => Ok((tree, problems)),
        None if !unreadable => {
            let nowhere = tree::Position { order: 0, file: "node.yaml".into(), line: 1, column: 1 };
            Err(vec![Problem::new(&nowhere, "", "there is no configuration: no file was given")])
        }
        _ => Err(problems),
    }
}

/// The JSON Schema of `NodeConfig` v1alpha1.
///
/// It says the same as [`load`]'s check, but for two things: `load` takes a null for an absent key, and it applies the
/// `format`s, which other validators do not know.
pub fn json_schema() -> serde_json::Value {
    document::schema()
}

/// A worker as the lab builds them, with digests of nothing.
const SAMPLE: &str = "\
apiVersion: nodeagent.io/v1alpha1
kind: NodeConfig
role: worker
cluster:
  apiServer: https://10.10.30.11:6443
kubernetes:
  version: v1.34.2
  mirrors: [http://10.10.30.1/release]
  artifacts:
    kubelet: {sha256: aaaa1111aaaa1111aaaa1111aaaa1111aaaa1111aaaa1111aaaa1111aaaa1111}
    kube-proxy: {sha256: bbbb2222bbbb2222bbbb2222bbbb2222bbbb2222bbbb2222bbbb2222bbbb2222}
    kubectl: {sha256: abcdabcdabcdabcdabcdabcdabcdabcdabcdabcdabcdabcdabcdabcdabcdabcd}
pki:
  ca: /etc/kubernetes/pki/ca.pem
  signer:
    cfssl:
      url: https://10.10.30.1:8888
      authKeyFile: /etc/nodeagent/cfssl.key
      acceptAdminEquivalentKey: true
";

impl Settings {
    /// A worker as the lab builds them, for tests of what plans from Settings.
    ///
    /// # Panics
    /// Never: its text is a constant, and a test loads it.
    pub fn sample() -> Self {
        let source = Source { name: "/etc/nodeagent/node.yaml".to_owned(), text: SAMPLE.as_bytes().to_vec() };
        match load(vec![source]) {
            Ok(settings) => settings,
            Err(errors) => panic!("the sample configuration: {errors}"),
        }
    }
}
