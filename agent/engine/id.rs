//! Names of steps and of resources.

use std::fmt;

use serde::{Deserialize, Serialize};

/// One bootstrap job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Step {
    /// The env file.
    Network,
    /// Modules, sysctls, hosts entry.
    Kernel,
    /// Fetch, verify, place.
    Install,
    /// Keys, certificates, kubeconfigs.
    Certs,
    /// Drop-ins and live properties.
    Limits,
    /// Units: write, reload, enable, start.
    Units,
}

impl Step {
    /// All steps in their order.
    pub const ALL: [Self; 6] = [Self::Network, Self::Kernel, Self::Install, Self::Certs, Self::Limits, Self::Units];

    /// The step's name, which is also its command's.
    pub fn name(self) -> &'static str {
        match self {
            Self::Network => "network",
            Self::Kernel => "kernel",
            Self::Install => "install",
            Self::Certs => "certs",
            Self::Limits => "limits",
            Self::Units => "units",
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A resource's name, unique in a plan and the same in every run: `install/kubelet`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Id(String);

impl Id {
    /// The resource `name` of `step`.
    pub fn new(step: Step, name: impl fmt::Display) -> Self {
        Self(format!("{step}/{name}"))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
