//! What is wrong with a cluster, although each of its machines would take its part.

use std::collections::BTreeMap;

use crate::config::cluster::NodeConfig;
use crate::config::settings::Role;
use crate::config::values::{NodeName, Version};
use crate::engine::fault::{Class, Explain, Fault};
use crate::units::versions::{self, Program};

/// No cluster would come of it.
#[derive(Debug, thiserror::Error)]
pub enum NotWhole {
    /// There is nothing to join.
    #[error("make a cluster: none of its nodes is a controller")]
    NoController,
    /// A machine's kubelet would be newer than an API server.
    #[error("make {node}: its kubelet is {kubelet}, and the API server of {controller} is {server}")]
    NewerKubelet {
        /// Whose kubelet.
        node: NodeName,
        /// Which.
        kubelet: Version,
        /// Whose API server.
        controller: NodeName,
        /// Which.
        server: Version,
    },
}

impl Explain for NotWhole {
    fn class(&self) -> Class {
        Class::Usage
    }

    fn advice(&self) -> Option<String> {
        Some(match self {
            Self::NoController => "give one node, or three, role: controller".to_owned(),
            Self::NewerKubelet { server, .. } => {
                format!(
                    "no kubelet may be newer than an API server: upgrade the controllers first, or stay with {server}"
                )
            }
        })
    }
}

/// Refuses, before anything is made, what each machine would have to refuse later.
pub(super) fn check(configs: &BTreeMap<NodeName, NodeConfig>) -> Result<(), Fault> {
    for (node, config) in configs {
        versions::check(&config.settings).map_err(|error| Fault::from(error).context(format!("make {node}")))?;
    }
    let controllers = configs.iter().filter(|(_, config)| config.settings.role == Role::Controller);
    let servers = controllers.map(|(name, config)| (Program::ApiServer.version(&config.settings), name));
    let (server, controller) = servers.min().ok_or(NotWhole::NoController)?;
    for (node, config) in configs.iter().filter(|(_, config)| config.settings.role.runs_pods()) {
        let kubelet = Program::Kubelet.version(&config.settings);
        if kubelet.release() > server.release() {
            let (node, controller) = (node.clone(), controller.clone());
            return Err(NotWhole::NewerKubelet { node, kubelet, controller, server }.into());
        }
    }
    Ok(())
}
