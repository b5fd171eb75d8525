//! Whose requests are approved, and whose are left to a person.

use std::fs;

use anyhow::{Context, Result, ensure};
use nodeagent::certs::request::{Usage, Wanted};

use super::{A_WHILE, Controller, TOKEN, ask, client, get, wanted};
use crate::{
    csr::{Worker, wait_until_token_may},
    harness::{CONTROLLER, Lab, WORKER},
};

fn server(node: &str, names: &[&str], address: &str) -> Result<Wanted> {
    let dns = names.iter().map(|name| (*name).to_owned()).collect();
    Ok(Wanted { dns, ips: vec![address.parse()?], usages: vec![Usage::Server], ..client(node) })
}

#[test]
fn a_machines_own_requests_are_approved_and_no_others() -> Result<()> {
    Lab::run("cluster-approver", |lab| {
        let plane = lab.start_control_plane()?;
        let mut controller = Controller::new(lab)?;
        let mut service = controller.start()?;
        service.tells("this controller looks after the cluster")?;
        wait_until_token_may(&plane, lab, TOKEN, "yes")?;

        let worker = Worker::new(lab, "worker", TOKEN, &lab.ca.pem()?, "30s")?;
        worker.certs(0)?;
        for pair in ["kubelet-client", "kubelet-server", "kube-proxy-client"] {
            ensure!(worker.pair(pair).exists(), "{pair} was not made");
            let approved = format!("approved worker-01-{pair}-");
            service.tells(&approved)?;
        }
        // Its next client certificate, with the one that it has, and by the name of the node that the certificate says.
        let token = format!("--token={TOKEN}");
        let ca = format!("--certificate-authority={}", lab.directory().join("control-plane/ca.pem").display());
        let server_at = format!("--server=https://{CONTROLLER}:6443");
        let pair = worker.pair("kubelet-client").display().to_string();
        let (certificate, key) = (format!("--client-certificate={pair}"), format!("--client-key={pair}"));
        let by_token = [server_at.as_str(), &ca, &token];
        let by_node = [server_at.as_str(), &ca, &certificate, &key];
        ask(lab, &plane, "renewal", "kube-apiserver-client-kubelet", &client("worker-01"), &by_node)?;
        service.tells("approved renewal of system:node:worker-01: the next client certificate of worker-01")?;

        let config = format!("--kubeconfig={}", lab.directory().join("control-plane/admin.conf").display());
        let nodes = ["--as-group=system:nodes", "--as-group=system:authenticated"];
        let by_stranger = [config.as_str(), "--as=system:node:stranger", nodes[0], nodes[1]];
        let by_somebody = [config.as_str(), "--as=somebody", "--as-group=system:bootstrappers"];
        let proxy = wanted("system:kube-proxy", None);
        let kubelet = "kube-apiserver-client-kubelet";
        let foreign = server("worker-01", &["worker-01", "kubernetes.default"], WORKER)?;
        let elsewhere = server("worker-01", &["worker-01"], CONTROLLER)?;
        let table: [(&str, &str, Wanted, &[&str], &str); 8] = [
            ("another-worker", kubelet, client("worker-02"), &by_token, "CN=system:node:worker-02 is not what"),
            ("a-controller", kubelet, client("controller-01"), &by_token, "CN=system:node:controller-01 is not what"),
            ("token-proxy", "kube-apiserver-client", proxy.clone(), &by_token, "CN=system:kube-proxy is not what"),
            ("foreign-name", "kubelet-serving", foreign, &by_node, "kubernetes.default is not its name"),
            ("foreign-address", "kubelet-serving", elsewhere, &by_node, "10.10.30.11 is not the address of worker-01"),
            ("of-another", kubelet, client("worker-02"), &by_node, "system:node:worker-01 may ask for"),
            ("stranger-proxy", "kube-apiserver-client", proxy, &by_stranger, "stranger is not in cluster.nodes"),
            ("of-a-person", kubelet, client("worker-01"), &by_somebody, "is no node, and no bootstrap token"),
        ];
        for (name, signer, wanted, who, _) in &table {
            ask(lab, &plane, name, signer, wanted, who).with_context(|| (*name).to_owned())?;
        }
        for (name, _, _, _, why) in &table {
            service.tells(&format!("left {name} of "))?;
            let told = service.told()?;
            let line = told.lines().find(|line| line.contains(&format!("left {name} of "))).unwrap_or_default();
            ensure!(line.contains(why), "{name}: {line}");
        }
        std::thread::sleep(A_WHILE);
        for (name, ..) in &table {
            let request = get(&plane, &["csr", name])?;
            ensure!(request["status"]["conditions"].is_null(), "{name} was decided: {}", request["status"]);
            let times = service.told()?.matches(&format!("left {name} of ")).count();
            ensure!(times == 1, "{name} was told of {times} times");
        }

        // A machine that is added to the inventory gets what waits for it.
        let path = controller.root.join("etc/nodeagent/node.yaml");
        let yaml = fs::read_to_string(&path)?
            .replace("    worker-02:", "    stranger: { address: 10.10.30.29 }\n    worker-02:");
        fs::write(&path, yaml)?;
        service.tells("approved stranger-proxy of system:node:stranger")
    })
}
