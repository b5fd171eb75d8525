//! A store whose two members are listed nowhere but in DNS: real etcd, and a real name server.

use std::time::Duration;

use anyhow::{Result, ensure};

use crate::agent::agent;
use crate::etcd::{self, FIRST, MACHINES, SECOND, etcdctl, pair};
use crate::harness::{Cluster, Lab, SERVICES, process::wait_until};

const DOMAIN: &str = "store.lab.example";

/// For the name server to answer.
const NAMES: Duration = Duration::from_secs(20);

#[test]
fn members_find_each_other_by_dns() -> Result<()> {
    Lab::run("discovery", |lab| {
        // dnsmasq(8): no file of this machine's is read, and nobody else is asked.
        let mut command: Vec<String> = ["dnsmasq", "--keep-in-foreground", "--no-resolv", "--no-hosts", "--no-daemon"]
            .into_iter()
            .chain(["--conf-file=/dev/null", "--pid-file=", "--user=root", "--bind-interfaces"])
            .map(str::to_owned)
            .collect();
        command.push(format!("--listen-address={SERVICES}"));
        for (name, address) in [("etcd-1", FIRST), ("etcd-2", SECOND)] {
            command.push(format!("--host-record={name}.{DOMAIN},{address}"));
            command.push(format!("--srv-host=_etcd-server-ssl._tcp.{DOMAIN},{name}.{DOMAIN},2380"));
        }
        let words: Vec<&str> = command.iter().map(String::as_str).collect();
        let log = lab.directory().join("dnsmasq.log");
        let _names = lab.start_in_network("dnsmasq", &words, &log)?;
        wait_until("the name server to have read its records", NAMES, || {
            let said = std::fs::read_to_string(&log)?;
            ensure!(said.contains("started"), "it says {said}");
            Ok(())
        })?;

        let yaml = etcd::yaml(lab, &MACHINES)?;
        let yaml = format!("{yaml}roles: {{ etcd: {{ etcd: {{ discovery: {DOMAIN} }} }} }}\n");
        let mut cluster = Cluster::new(lab, &yaml, &MACHINES)?;
        for machine in MACHINES {
            cluster.node(machine.name)?.write("/etc/resolv.conf", format!("nameserver {SERVICES}\n").as_bytes())?;
        }
        let [first, second] = etcd::power_on(&mut cluster)?;
        let server = pair("etcd-server.pem");
        for node in [first, second] {
            let env = String::from_utf8_lossy(&node.read("/etc/kubernetes/etcd.env")?).into_owned();
            ensure!(env.contains(&format!("--discovery-srv={DOMAIN}")) && !env.contains("--initial-cluster="), "{env}");
        }
        etcdctl(first, &server, &["put", "greeting", "hello"])?;
        ensure!(etcdctl(second, &server, &["get", "--print-value-only", "greeting"])?.trim() == "hello");
        // They know each other by the names that DNS has, and the certificates are for these.
        let members = etcdctl(first, &server, &["member", "list"])?;
        ensure!(members.contains(&format!("https://etcd-2.{DOMAIN}:2380")), "{members}");

        // A restore does not ask DNS: it wants them named.
        let (code, file, told) = agent(first, &["etcd", "snapshot"])?;
        ensure!(code == 0, "{told}");
        let (code, _, told) = agent(first, &["etcd", "restore", file.trim()])?;
        ensure!(code == 2 && told.contains("the members are in DNS") && told.contains("--initial-cluster"), "{told}");
        // The first member's own URL is its address, and DNS says that both are one.
        let named = format!("--initial-cluster=etcd-1=https://{FIRST}:2380,etcd-2=https://{SECOND}:2380");
        let (code, shown, told) = agent(first, &["etcd", "restore", file.trim(), &named])?;
        ensure!(code == 0 && shown.contains(&named["--initial-cluster=".len()..]), "{shown}{told}");
        Ok(())
    })
}
