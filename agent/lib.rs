//! nodeagent turns a freshly booted machine into a Kubernetes node.
//!
//! | the script that people paste | the module that does its work |
//! | --- | --- |
//! | `setup-network-environment` | [`identity`] chooses, [`network`] writes |
//! | `wupiao` | [`wait`] |
//! | `kubernetes-install.sh` | [`install`]; its `stable.txt`: [`provision::lock`] |
//! | `generate-tls-keys.sh` | [`certs`] |
//! | `etcdctl snapshot save` by cron, and its restore by hand | [`etcd`] |
//! | `kubectl apply`, `label`, `taint` and `certificate approve` by hand | [`cluster`] |
//! | `build-cloud-config.sh`, `build-image.sh`, `configure-kubectl.sh` | [`provision::cloud_config`] |
//! | hand-written drop-ins (ulimits, `TasksMax`) | [`limits`] |
//! | hand-written units | [`units`] |
//! | `modprobe` and `sysctl` lines | [`kernel`] |
//!
//! The way that the data goes: [`config`] reads `node.yaml` into Settings, [`host`] gathers Facts, [`identity`] chooses
//! who the node is, each step folder plans its resources, and [`engine`] sees, diffs, obtains, commits and settles.
//! [`provision`] is the operator's side.

pub mod certs;
pub mod cli;
pub mod cluster;
pub mod config;
pub mod engine;
pub mod etcd;
pub mod host;
pub mod identity;
pub mod install;
pub mod journal;
pub mod kernel;
pub mod limits;
pub mod network;
pub mod provision;
pub mod steps;
pub mod units;
pub mod upgrade;
pub mod wait;

#[cfg(test)]
#[path = "../tests/cli/free_port.rs"]
mod free_port;
