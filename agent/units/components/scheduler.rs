//! The scheduler: since Kubernetes 1.23 by `kubescheduler.config.k8s.io`, before by flags alone.

use serde_json::json;

use super::{Component, Node, config_file, etc};
use crate::config::values::UnitName;
use crate::units::versions::Program;

/// The first release whose configuration file opens no port that asks nobody who they are.
const CONFIGURED: u32 = 23;

pub fn component(node: &Node<'_>) -> Component {
    let unit = UnitName::literal("kube-scheduler.service");
    let kubeconfig = etc("scheduler.conf");
    let mut args = vec![
        format!("--authentication-kubeconfig={kubeconfig}"),
        format!("--authorization-kubeconfig={kubeconfig}"),
        "--bind-address=127.0.0.1".to_owned(),
        format!("--client-ca-file={}", node.settings.certs.ca),
    ];
    let mut files = Vec::new();
    if node.minor(Program::Scheduler) >= CONFIGURED {
        let path = etc("kube-scheduler-config.yaml");
        args.push(format!("--config={path}"));
        let config = json!({
            "kind": "KubeSchedulerConfiguration",
            "clientConnection": { "kubeconfig": kubeconfig },
            "enableProfiling": false,
            "leaderElection": { "leaderElect": true }
        });
        files.push(config_file(path, &unit, &node.config(Program::Scheduler, config)));
    }
    Component {
        unit_file: include_str!("../../../units/kube-scheduler.service"),
        files,
        args: node.args(Program::Scheduler, args),
        wait: vec![node.api_server()],
        vars: Vec::new(),
        unit,
    }
}
