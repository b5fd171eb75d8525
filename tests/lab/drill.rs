//! The limits drill, in a virtual machine: there the kernel enforces what a container of the lab's only shows.
//!
//! `DefaultTasksMax=512` is what systemd 228 gave to every unit, and what made "Resource temporarily unavailable" the best
//! known message of that year's clusters.

use anyhow::{Result, ensure};
use serde_json::json;

use crate::harness::{Lab, SERVICES, WORKER};

/// Starts 800 threads, and says how it went.
const HUNGRY: &str = "\
import ctypes, os
libc = ctypes.CDLL(None)
wait = ctypes.cast(libc.pause, ctypes.c_void_p)
for started in range(800):
    error = libc.pthread_create(ctypes.byref(ctypes.c_ulong()), None, wait, None)
    if error:
        print(started, 'threads, then:', os.strerror(error), flush=True)
        os._exit(1)
print('all 800 threads', flush=True)
libc.pause()
";

/// What the drill does: each line that it prints is a fact to be judged.
const DRILL: &str = "\
state() { echo \"$1 is $(systemctl show --value -p ActiveState hungry.service)\"; }
said() { echo \"$1: $(journalctl -b -o cat -n 1 _SYSTEMD_UNIT=hungry.service)\"; }
until_said() { until [ $(journalctl -b -o cat _SYSTEMD_UNIT=hungry.service | wc -l) = $1 ]; do sleep 1; done; }
group() { echo \"$1 pids.max=$(cat /sys/fs/cgroup/system.slice/hungry.service/pids.max)\"; }
files() { echo \"$1 files=$(grep '^Max open files' /proc/$(systemctl show --value -p MainPID hungry.service)/limits | tr -s ' ')\"; }
agent() { /opt/bin/nodeagent --no-progress \"$@\" 2>&1 | sed 's/^/agent: /'; }
cd /root
systemctl daemon-reload
echo \"default is $(systemctl show --value -p DefaultTasksMax)\"
systemctl start hungry.service; until_said 1; said before

printf 'limits: { hungry.service: { TasksMax: infinity, LimitNOFILE: 1024:900000 } }\\n' >/etc/nodeagent/node.d/20.yaml
agent limits
systemctl start hungry.service; until_said 2; said after; state after; group after; files after

printf 'limits: { hungry.service: { TasksMax: 5000, LimitNOFILE: 3000:1000000, inPlace: true } }\\n' >/etc/nodeagent/node.d/20.yaml
pid=$(systemctl show --value -p MainPID hungry.service)
agent limits
group raised; files raised
[ $pid = $(systemctl show --value -p MainPID hungry.service) ] && echo 'not restarted'

mkdir -p /etc/systemd/system/system.slice.d
printf '[Slice]\\nTasksMax=4000\\n' >/etc/systemd/system/system.slice.d/10-mine.conf
systemctl daemon-reload
agent limits

printf 'systemd: { DefaultTasksMax: infinity }\\n' >/etc/nodeagent/node.d/20.yaml
agent limits
systemctl start plain.service
echo \"plain pids.max=$(cat /sys/fs/cgroup/system.slice/plain.service/pids.max)\"
agent rollback --to 0
echo \"default is again $(systemctl show --value -p DefaultTasksMax)\"
echo 'end of report'
";

/// All that the machine is told: the drill, and enough of a node for the agent's limits step.
fn user_data() -> String {
    let node = "apiVersion: nodeagent.io/v1alpha1\nkind: NodeConfig\nrole: worker\n\
        cluster: { apiServer: 'https://10.10.30.11:6443' }\n\
        kubernetes:\n  version: v1.34.2\n  artifacts:\n    kubelet: { sha256: DIGEST }\n    kube-proxy: { sha256: DIGEST }\n    kubectl: { sha256: DIGEST }\n\
        pki: { ca: /etc/kubernetes/pki/ca.pem, signer: { cfssl: { url: 'https://10.10.30.1:8888', authKeyFile: /key, acceptAdminEquivalentKey: true } } }\n";
    let node = node.replace("DIGEST", &"a".repeat(64));
    let file = |path: &str, content: &str| json!({ "path": path, "content": content });
    let files = [
        file("/etc/nodeagent/node.yaml", &node),
        file("/etc/nodeagent/node.d/20.yaml", "{}\n"),
        file("/root/hungry.py", HUNGRY),
        file("/root/drill.sh", DRILL),
        file("/etc/systemd/system.conf.d/10-drill.conf", "[Manager]\nDefaultTasksMax=512\n"),
        file("/etc/systemd/system/hungry.service", "[Service]\nExecStart=python3 -u /root/hungry.py\n"),
        file("/etc/systemd/system/plain.service", "[Service]\nExecStart=sleep 600\n"),
        file(
            "/etc/systemd/system/drill.service",
            "[Service]\nExecStart=sh -c 'sh /root/drill.sh >/dev/ttyS1'\nTasksMax=infinity\n",
        ),
    ];
    let fetch = format!(
        "mkdir -p /opt/bin && curl -sf -o /opt/bin/nodeagent http://{SERVICES}/nodeagent && chmod 0755 /opt/bin/nodeagent"
    );
    let run = [json!(fetch), json!("systemctl daemon-reload && systemctl start --no-block drill.service")];
    format!("#cloud-config\n{}\n", json!({ "write_files": files, "runcmd": run }))
}

#[test]
fn a_limit_that_stops_a_program_is_lifted_and_proven() -> Result<()> {
    Lab::run("drill", |lab| {
        let mut machine = lab.node("worker1", WORKER).user_data(user_data().as_bytes()).create_vm()?;
        machine.power_on(None)?;
        let report = machine.report()?;
        eprintln!("{report}");
        for fact in [
            "default is 512",
            "threads, then: Resource temporarily unavailable",
            "after: all 800 threads",
            "after is active",
            "after pids.max=max",
            "after files=Max open files 1024 900000 files",
            "raised pids.max=5000",
            "raised files=Max open files 3000 1000000 files",
            "not restarted",
            "system.slice is above it and has pids.max=4000 (/etc/systemd/system/system.slice.d/10-mine.conf says 4000)",
            "plain pids.max=max",
            "default is again 512",
        ] {
            ensure!(report.contains(fact), "the drill does not say {fact:?}:\n{report}");
        }
        machine.remove()
    })
}
