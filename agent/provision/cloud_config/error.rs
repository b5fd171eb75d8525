//! Why nothing is made.

use super::PKI;
use super::files::MOST;
use crate::config::values::NodeName;
use crate::engine::fault::{Class, Explain};

/// Why nothing was made.
#[derive(Debug, thiserror::Error)]
pub enum CloudConfigError {
    /// Metadata services would not take it.
    #[error("{file} of {node} would have {size} bytes, and metadata services take {MOST}")]
    TooLarge {
        /// Whose.
        node: NodeName,
        /// Which.
        file: &'static str,
        /// In bytes.
        size: usize,
    },
    /// It would carry a key to where many can read it.
    #[error("{file} of {node} would hold the secret {secret}")]
    HoldsSecret {
        /// Whose.
        node: NodeName,
        /// Which.
        file: &'static str,
        /// Which secret, by its place on the machine.
        secret: String,
    },
    /// What was made for the cluster has another CA.
    #[error("take the CA in {dir}: the cluster of this inventory has another one")]
    AnotherCa {
        /// Where.
        dir: String,
    },
    /// Whether it has another CA cannot be told.
    #[error("see from {file} which CA the cluster of this inventory has: {why}")]
    UnknownCa {
        /// The administrator's kubeconfig.
        file: String,
        /// Why not.
        why: &'static str,
    },
    /// Its directory has another use.
    #[error("make files for a machine of the name {PKI}: {dir} is the directory of the CAs")]
    Reserved {
        /// Which.
        dir: String,
    },
}

impl Explain for CloudConfigError {
    fn class(&self) -> Class {
        Class::Usage
    }

    fn advice(&self) -> Option<String> {
        Some(
            match self {
                Self::TooLarge { .. } => {
                    "a web server or a config drive takes it (--any-size); else lock digests in a file (kubernetes.lock), rather than \
                     list each artifact, and give the larger pieces of `config` in another way"
                }
                Self::HoldsSecret { .. } => {
                    "many can read a machine's user-data: take it out of `defaults`, `roles` and `config`, and bring it to the \
                     machine by hand, in a file of /etc/nodeagent/node.d with mode 0600"
                }
                Self::AnotherCa { .. } => {
                    "name the directory that has it with --pki, or bring it there; a new cluster wants an inventory of its own (--to), \
                     and one that is to get another CA no admin.conf of the old one"
                }
                Self::UnknownCa { .. } => {
                    "remove it once you are sure that the CAs (--pki) are this cluster's: another one is made"
                }
                Self::Reserved { .. } => "name another directory for the CAs with --pki",
            }
            .to_owned(),
        )
    }
}
