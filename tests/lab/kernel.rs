//! What needs a kernel of its own: modules that are really loaded, sysctls, swap that really was in use, and a clock that
//! nobody else sets.

use anyhow::{Result, ensure};

use nodeagent::journal::Event;

use crate::harness::{Lab, NodeSpec, SERVICES, WORKER, vm::Vm};

/// A worker of which only the kernel step is tried: nothing answers at these addresses.
const NODE_YAML: &str = "\
apiVersion: nodeagent.io/v1alpha1
kind: NodeConfig
role: worker
node: { interface: host0 }
cluster: { apiServer: 'https://10.10.30.11:6443' }
kernel:
  sysctls: { vm.overcommit_memory: 1 }
kubernetes:
  version: v1.34.2
  artifacts:
    kubelet: { sha256: '0000000000000000000000000000000000000000000000000000000000000000' }
    kube-proxy: { sha256: '0000000000000000000000000000000000000000000000000000000000000000' }
    kubectl: { sha256: '0000000000000000000000000000000000000000000000000000000000000000' }
pki:
  ca: /etc/kubernetes/pki/ca.pem
  signer:
    cfssl: { url: 'https://10.10.30.1:8888', authKeyFile: /etc/nodeagent/cfssl-auth-key, acceptAdminEquivalentKey: true }
";

/// The first boot: a machine with a module that is compressed, as newer distributions ship theirs, and with three kinds
/// of swap (fstab, a unit, a service with zram). Then the step.
const FIRST: &str = "\
curl --fail --silent --output /opt/bin/nodeagent http://SERVICES/nodeagent
chmod 0755 /opt/bin/nodeagent
module=/lib/modules/$(uname -r)/kernel/net/bridge/br_netfilter.ko
python3 -c \"
import lzma, sys
plain = open(sys.argv[1], 'rb').read()
open(sys.argv[1] + '.xz', 'wb').write(lzma.compress(plain, check=lzma.CHECK_CRC32))
\" $module && rm $module
depmod --all
for file in /swap-of-fstab /swap-of-unit; do
    dd if=/dev/zero of=$file bs=1M count=16 status=none; chmod 0600 $file; mkswap $file >/dev/null
done
echo '/swap-of-fstab none swap sw 0 0' >>/etc/fstab
printf '[Swap]\\nWhat=/swap-of-unit\\n[Install]\\nWantedBy=multi-user.target\\n' >'/etc/systemd/system/swap\\x2dof\\x2dunit.swap'
printf '#!/bin/sh\\nmodprobe zram && echo 16M >/sys/block/zram0/disksize && mkswap /dev/zram0 && swapon /dev/zram0\\n' \\
    >/usr/local/sbin/zramswap
chmod 0755 /usr/local/sbin/zramswap
printf '[Service]\\nType=oneshot\\nRemainAfterExit=yes\\nExecStart=/usr/local/sbin/zramswap\\n[Install]\\nWantedBy=multi-user.target\\n' \\
    >/usr/lib/systemd/system/zramswap.service
systemctl daemon-reload
systemctl enable --quiet 'swap\\x2dof\\x2dunit.swap' zramswap.service
systemctl start 'swap\\x2dof\\x2dfstab.swap' 'swap\\x2dof\\x2dunit.swap' zramswap.service
show before
/opt/bin/nodeagent kernel
echo \"step exited with $?\"
show after
/opt/bin/nodeagent kernel
echo \"again exited with $?\"
/opt/bin/nodeagent certs
mkdir -p /etc/nodeagent/node.d
echo 'clock: { requireSync: true }' >/etc/nodeagent/node.d/10-clock.yaml
/opt/bin/nodeagent certs
echo \"without a clock exited with $?\"
rm /etc/nodeagent/node.d/10-clock.yaml
sync
";

/// The second: what held, and what undoing brings back.
const SECOND: &str = "\
show rebooted
/opt/bin/nodeagent kernel
echo \"rebooted exited with $?\"
/opt/bin/nodeagent rollback
echo \"rollback exited with $?\"
show undone
";

/// Runs at every boot, once cloud-init is done with the rest.
const DRILL: &str = "\
#!/bin/sh
exec >/dev/ttyS1 2>&1
show() {
    echo \"$1 swaps:\" $(tail -n +2 /proc/swaps | cut -d ' ' -f 1 | sort)
    for name in br_netfilter overlay; do [ -d /sys/module/$name ] && echo \"$1 module: $name\"; done
    for key in net/ipv4/ip_forward net/bridge/bridge-nf-call-iptables vm/overcommit_memory; do
        echo \"$1 sysctl: $key=$(cat /proc/sys/$key)\"
    done
}
if [ ! -e /var/lib/booted ]; then
touch /var/lib/booted
FIRST
else
SECOND
fi
echo 'end of report'
";

#[test]
fn modules_sysctls_and_swap_on_a_kernel_of_their_own() -> Result<()> {
    Lab::run("kernel", |lab| {
        let mut vm = machine(lab.node("worker1", WORKER))?;
        vm.power_on(None)?;
        let report = vm.report()?;
        vm.kill()?;
        said(
            &report,
            &[
                "before swaps: /dev/zram0 /swap-of-fstab /swap-of-unit",
                "before sysctl: vm/overcommit_memory=0",
                "step exited with 0",
                "after swaps:",
                "after module: br_netfilter",
                "after module: overlay",
                "after sysctl: net/ipv4/ip_forward=1",
                "after sysctl: net/bridge/bridge-nf-call-iptables=1",
                "after sysctl: vm/overcommit_memory=1",
                "again exited with 0",
            ],
        )?;
        // Whether its CA is there is asked only after the clock.
        let unset = "no time service is enabled, so nothing sets it";
        let warning = Event::ClockUnsynchronised { why: unset }.text();
        for text in [&warning, &format!("{unset} (clock.requireSync)"), "timedatectl", "without a clock exited with 3"]
        {
            ensure!(report.contains(text), "never said: {text}\n{report}");
        }
        for never in ["before module: br_netfilter", ": done, but "] {
            ensure!(!report.contains(never), "said: {never}\n{report}");
        }

        vm.power_on(None)?;
        let report = vm.report()?;
        vm.kill()?;
        said(
            &report,
            &[
                "rebooted swaps:",
                "rebooted module: br_netfilter",
                "rebooted sysctl: net/bridge/bridge-nf-call-iptables=1",
                "rebooted sysctl: vm/overcommit_memory=1",
                "rebooted exited with 0",
                "rollback exited with 0",
                "undone swaps: /swap-of-fstab /swap-of-unit",
                "undone sysctl: vm/overcommit_memory=0",
            ],
        )
    })
}

/// The report has each of these lines.
fn said(report: &str, lines: &[&str]) -> Result<()> {
    let all: Vec<&str> = report.lines().map(str::trim_end).collect();
    let missing: Vec<&&str> = lines.iter().filter(|line| !all.contains(line)).collect();
    ensure!(missing.is_empty(), "not said: {missing:?}\n{report}");
    Ok(())
}

/// A machine that runs the drill at every boot.
fn machine(spec: NodeSpec<'_>) -> Result<Vm<'_>> {
    let script = DRILL.replace("FIRST", FIRST).replace("SECOND", SECOND).replace("SERVICES", SERVICES);
    let file =
        |path: &str, mode: &str, text: &str| serde_json::json!({ "path": path, "permissions": mode, "content": text });
    let user_data = serde_json::json!({ "write_files": [
        file("/etc/nodeagent/node.yaml", "0644", NODE_YAML),
        file("/opt/bin/README", "0644", "made so that the directory is there\n"),
        file("/var/lib/cloud/scripts/per-boot/drill", "0755", &script),
    ] });
    spec.user_data(format!("#cloud-config\n{user_data}\n").as_bytes()).create_vm()
}
