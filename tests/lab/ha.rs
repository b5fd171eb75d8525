//! Three controllers behind one name, each with a member of the store, and one of them is lost.

use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::bootstrap::{bootstrapped, nothing_to_do};
use crate::harness::{CONTROLLER, Cluster, Lab, cluster, cluster::Machine, process::wait_until};

/// What all machines call the API server, whichever controller that is.
const NAME: &str = "k8s.lab.example";

const CONTROLLERS: [Machine; 3] = [
    Machine { name: "controller-1", role: "controller", address: CONTROLLER },
    Machine { name: "controller-2", role: "controller", address: "10.10.30.12" },
    Machine { name: "controller-3", role: "controller", address: "10.10.30.13" },
];

const WORKERS: [Machine; 2] = [
    Machine { name: "worker-1", role: "worker", address: "10.10.30.21" },
    Machine { name: "worker-2", role: "worker", address: "10.10.30.22" },
];

/// For the others to notice: a Lease's 15 s, and those of Kubernetes' own controllers.
const NOTICED: Duration = Duration::from_mins(3);

fn holder(cluster: &Cluster<'_>) -> Result<String> {
    let lease = cluster.get(&["lease", "--namespace=kube-system", "nodeagent"])?;
    lease["spec"]["holderIdentity"].as_str().map(str::to_owned).context("nobody holds the Lease")
}

#[test]
fn a_cluster_outlives_one_controller_of_three() -> Result<()> {
    Lab::run("ha", |lab| {
        let machines = [&CONTROLLERS[..], &WORKERS].concat();
        let name = format!("https://{NAME}:6443");
        let yaml = cluster::yaml(lab, &machines)?.replace(&format!("https://{CONTROLLER}:6443"), &name);
        let mut cluster = Cluster::new(lab, &yaml, &machines)?;
        // What a name server would say. In each machine's own order, so that not all of them ask the same one first.
        for (at, machine) in machines.iter().enumerate() {
            let from_here = CONTROLLERS.iter().cycle().skip(at).take(CONTROLLERS.len());
            let lines: Vec<String> = from_here.map(|controller| format!("{} {NAME}\n", controller.address)).collect();
            let hosts = format!("127.0.0.1 localhost\n{}", lines.concat());
            cluster.node(machine.name)?.write("/etc/hosts", hosts.as_bytes())?;
        }
        let early = ["controller-1", "controller-2", "controller-3", "worker-1"];
        cluster.server = Some(CONTROLLERS[0].address);
        cluster.power_on(&early)?;
        cluster.wait_until_ready(&early)?;
        for name in early {
            bootstrapped(cluster.node(name)?)?;
            nothing_to_do(cluster.node(name)?)?;
        }

        // The one that looks after the cluster goes, without a last word.
        let before = holder(&cluster)?;
        let lost = early.into_iter().find(|name| before.starts_with(&format!("{name}_"))).context("a controller")?;
        let heir = CONTROLLERS.iter().find(|machine| machine.name != lost).context("another controller")?;
        cluster.server = Some(heir.address);
        cluster.node_mut(lost)?.kill()?;
        wait_until("another controller to look after the cluster", NOTICED, || {
            let now = holder(&cluster)?;
            ensure!(now != before, "it is still {now}");
            Ok(())
        })?;
        cluster.wait_for_heartbeat("worker-1")?;

        // Two are enough for whatever comes: a machine that joins, pods, and what is stored.
        cluster.power_on(&["worker-2"])?;
        cluster.wait_until_ready(&["worker-2"])?;
        cluster.pods_reach_each_other(&["worker-1", "worker-2"])?;

        // And it comes back as what it was.
        cluster.power_on(&[lost])?;
        cluster.wait_until_ready(&[lost])?;
        nothing_to_do(cluster.node(lost)?)?;
        let health = ["env", "ETCDCTL_API=3", "/opt/bin/etcdctl", "--cacert=/etc/kubernetes/pki/etcd-ca.pem"];
        let pair = "/etc/kubernetes/pki/etcd-server.pem";
        let (cert, key) = (format!("--cert={pair}"), format!("--key={pair}"));
        let rest = [cert.as_str(), key.as_str(), "endpoint", "health", "--cluster"];
        wait_until("all members to be healthy", NOTICED, || {
            cluster.node(heir.name)?.ok(&[&health[..], &rest].concat()).map(drop)
        })
    })
}
