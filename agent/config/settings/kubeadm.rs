//! How kubeadm joins a node to its cluster.

use crate::config::values::RootPath;

/// What kubeadm is told, on a node of its role.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KubeadmSettings {
    /// Who has it join.
    pub join: Join,
    /// The errors of its preflight checks that are only warnings.
    pub ignored_errors: Vec<String>,
}

/// Who has kubeadm join the node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Join {
    /// The agent, with a bootstrap token.
    ByToken {
        /// The file that holds it.
        token_file: RootPath,
    },
    /// A person, or nobody: the node is none of kubeadm's.
    ByHand,
}
