//! What the agent asks of systemd, on nodes with the oldest and the newest systemd that it is tried with.

use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::agent::{AGENT, agent, on_each};
use crate::harness::{Lab, Node, Suite, WORKER, release};

/// The node's wishes besides its `node.yaml`.
fn wish(node: &Node<'_>, yaml: &str) -> Result<()> {
    node.write("/etc/nodeagent/node.d/20-test.yaml", yaml.as_bytes())
}

/// A soft and a hard limit of a process, by its row in `/proc/PID/limits`.
fn limits(node: &Node<'_>, pid: &str, row: &str) -> Result<(String, String)> {
    let limits = node.ok(&["cat", &format!("/proc/{pid}/limits")])?;
    let line = limits.lines().find_map(|line| line.strip_prefix(row)).with_context(|| format!("no row {row}"))?;
    let mut words = line.split_whitespace().map(str::to_owned);
    Ok((words.next().context("a soft limit")?, words.next().context("a hard limit")?))
}

#[test]
fn nodes_have_systemd_252_and_257() -> Result<()> {
    Lab::run("suites", |lab| {
        for (suite, version) in Suite::ALL.into_iter().zip(["systemd 252", "systemd 257"]) {
            let node = lab.node("worker1", WORKER).suite(suite).boot()?;
            let says = node.ok(&["systemctl", "--version"])?;
            assert!(says.starts_with(version), "{suite:?}: {says}");
            assert_eq!(node.property("containerd.service", "ActiveState")?, "active", "{suite:?}");
        }
        Ok(())
    })
}

const LOAD: &str = "while :; do\n\
    curl -sf -o /dev/null -d '{\"key\":\"Zm9v\",\"value\":\"YmFy\"}' http://127.0.0.1:2379/v3/kv/put || echo failed >>/tmp/failed\n\
    echo put >>/tmp/puts\n\
    done\n";

/// A real etcd, and what keeps it busy: each request that fails leaves a line in `/tmp/failed`.
fn start_etcd_under_load(lab: &Lab, node: &Node<'_>) -> Result<()> {
    let etcd = lab.docroot().join("release").join(release::VERSION).join("bin/linux/amd64/etcd");
    node.write("/opt/bin/etcd", &std::fs::read(&etcd).with_context(|| format!("read {}", etcd.display()))?)?;
    node.ok(&["chmod", "0755", "/opt/bin/etcd"])?;
    node.write(
        "/etc/systemd/system/etcd.service",
        b"[Service]\nType=notify\nExecStart=/opt/bin/etcd --data-dir /var/lib/etcd\nLimitCORE=0:2000000\n",
    )?;
    node.write("/root/load.sh", LOAD.as_bytes())?;
    node.write("/etc/systemd/system/load.service", b"[Service]\nExecStart=sh /root/load.sh\n")?;
    node.ok(&["systemctl", "daemon-reload"])?;
    // One after the other: before etcd answers, each request fails.
    node.ok(&["systemctl", "start", "etcd.service"])?;
    node.ok(&["systemctl", "start", "load.service"]).map(drop)
}

fn puts(node: &Node<'_>) -> Result<usize> {
    if !node.exists("/tmp/puts") {
        return Ok(0);
    }
    Ok(String::from_utf8(node.read("/tmp/puts")?)?.lines().count())
}

#[test]
fn limits_of_a_busy_etcd_are_raised_without_a_restart() -> Result<()> {
    on_each("in-place", |lab, node| {
        start_etcd_under_load(lab, node)?;
        node.wait_until("etcd to be busy", AGENT, |node| {
            ensure!(puts(node)? > 20, "it has taken {} puts", puts(node)?);
            Ok(())
        })?;
        let (pid, run) = (node.property("etcd.service", "MainPID")?, node.property("etcd.service", "InvocationID")?);
        assert_eq!(limits(node, &pid, "Max core file size")?.0, "0");
        // What a node here cannot have is a higher hard limit: those are tried in a virtual machine.
        wish(node, "limits: { etcd.service: { LimitCORE: '1000000:2000000', TasksMax: 300, inPlace: true } }\n")?;
        let (_, plan, _) = agent(node, &["limits", "--dry-run"])?;
        assert!(plan.contains("LimitCORE of 1 process: 0:2000000 -> 1000000:2000000"), "{plan}");
        assert!(!plan.contains("restart etcd.service"), "{plan}");
        let before = puts(node)?;
        let (code, _, told) = agent(node, &["limits"])?;
        assert_eq!(code, 0, "{told}");
        assert_eq!(limits(node, &pid, "Max core file size")?.0, "1000000");
        assert_eq!(node.property("etcd.service", "LimitCORESoft")?, "1000000", "and so at its next start");
        assert_eq!(node.property("etcd.service", "TasksMax")?, "300");
        node.wait_until("etcd to be still at work", AGENT, |node| {
            ensure!(puts(node)? > before + 20, "it has taken {} puts, {before} of them before", puts(node)?);
            Ok(())
        })?;
        assert_eq!(node.property("etcd.service", "InvocationID")?, run, "it was not restarted");
        assert!(!node.exists("/tmp/failed"), "no request failed");
        let (code, plan, _) = agent(node, &["plan", "--exit-code"])?;
        assert_eq!(code, 0, "{plan}");

        let (code, undone, told) = agent(node, &["rollback"])?;
        assert_eq!(code, 0, "{undone}{told}");
        assert_eq!(limits(node, &pid, "Max core file size")?.0, "0", "as it was before");
        assert_eq!(node.property("etcd.service", "InvocationID")?, run, "nor was it restarted for that");
        Ok(())
    })
}

#[test]
fn the_file_that_wins_is_named_and_a_person_s_own_is_kept() -> Result<()> {
    on_each("wins", |_, node| {
        let dir = "/etc/systemd/system/containerd.service.d";
        node.write(&format!("{dir}/95-mine.conf"), b"[Service]\nTasksMax=77\n")?;
        node.write(&format!("{dir}/90-nodeagent.conf"), b"[Service]\nTasksMax=88\n")?;
        let (code, _, told) = agent(node, &["limits"])?;
        assert_eq!(code, 0, "{told}");
        assert!(told.contains("90-nodeagent.conf was changed by hand"), "{told}");
        assert!(told.contains(&format!("systemd has TasksMax=77, not infinity: {dir}/95-mine.conf says 77")), "{told}");
        let files = node.property("containerd.service", "DropInPaths")?;
        assert!(files.contains("90-nodeagent.conf") && !files.contains("kept"), "{files}");
        assert!(node.ok(&["ls", dir])?.contains("90-nodeagent.conf.kept-"), "the person's file is beside it");
        node.ok(&["rm", &format!("{dir}/95-mine.conf")])?;
        node.ok(&["systemctl", "daemon-reload"])?;
        let (code, _, told) = agent(node, &["limits"])?;
        assert!(code == 0 && !told.contains("not in force: containerd.service: systemd has"), "{told}");
        Ok(())
    })
}

#[test]
fn systemd_s_own_defaults_are_taken_at_a_reload() -> Result<()> {
    on_each("defaults", |_, node| {
        let show = |name: &str| -> Result<String> {
            Ok(node.ok(&["systemctl", "show", "--value", "--property", name])?.trim().to_owned())
        };
        let old = show("DefaultTasksMax")?;
        wish(node, "systemd: { DefaultTasksMax: 1234, DefaultLimitNOFILE: '1000:4000' }\n")?;
        let (code, _, told) = agent(node, &["limits"])?;
        assert_eq!(code, 0, "{told}");
        assert!(!told.contains("limits/systemd: set, but not in force"), "{told}");
        assert_eq!((show("DefaultTasksMax")?, show("DefaultLimitNOFILE")?), ("1234".into(), "4000".into()));
        node.ok(&["systemd-run", "--property=Type=exec", "--unit=sleeper", "sleep", "600"])?;
        assert_eq!(node.property("sleeper.service", "TasksMax")?, "1234");
        let pid = node.property("sleeper.service", "MainPID")?;
        assert_eq!(limits(node, &pid, "Max open files")?, ("1000".into(), "4000".into()));
        // One that is read later wins, and is named.
        node.write("/etc/systemd/system.conf.d/95-mine.conf", b"[Manager]\nDefaultTasksMax=55\n")?;
        node.ok(&["systemctl", "daemon-reload"])?;
        let (_, _, told) = agent(node, &["limits"])?;
        assert!(
            told.contains("DefaultTasksMax=55, not 1234: /etc/systemd/system.conf.d/95-mine.conf says 55"),
            "{told}"
        );
        node.ok(&["rm", "/etc/systemd/system.conf.d/95-mine.conf"])?;
        let (code, undone, told) = agent(node, &["rollback"])?;
        assert_eq!(code, 0, "{undone}{told}");
        assert_eq!(show("DefaultTasksMax")?, old);
        Ok(())
    })
}

/// Spoils the kubelet's unit with a drop-in, and stops it.
fn spoil(node: &Node<'_>, text: &str) -> Result<()> {
    const DROP_IN: &str = "/etc/systemd/system/kubelet.service.d/95-test.conf";
    // What was spoilt before cannot even be stopped.
    node.ok(&["rm", "-f", DROP_IN])?;
    node.ok(&["systemctl", "daemon-reload"])?;
    node.ok(&["systemctl", "stop", "kubelet.service"])?;
    node.ok(&["systemctl", "reset-failed"])?;
    node.write(DROP_IN, text.as_bytes())?;
    node.ok(&["systemctl", "daemon-reload"]).map(drop)
}

#[test]
fn a_start_survives_a_systemd_and_a_bus_that_begin_anew() -> Result<()> {
    on_each("reexec", |_, node| {
        for anew in [["systemctl", "daemon-reexec"].as_slice(), &["systemctl", "restart", "dbus.service"]] {
            spoil(node, "[Service]\nExecStartPre=sh -c 'until [ -e /tmp/go ]; do sleep 0.1; done'\n")?;
            node.ok(&["rm", "-f", "/tmp/go"])?;
            let jobs = node.ok(&["systemctl", "show", "--value", "--property=NJobs"])?;
            node.ok(&["systemd-run", "--unit=agent", "--property=Type=exec", "/opt/bin/nodeagent", "units"])?;
            node.wait_until("the kubelet's job", AGENT, |node| {
                let sub = node.property("kubelet.service", "SubState")?;
                ensure!(sub == "start-pre", "it is {sub}; {jobs} jobs before");
                Ok(())
            })?;
            node.ok(anew)?;
            node.wait_until("systemd to answer", AGENT, |node| node.ok(&["systemctl", "is-active", "dbus.service"]))?;
            node.write("/tmp/go", b"")?;
            node.wait_until("the agent's end", AGENT, |node| {
                let state = node.property("agent.service", "ActiveState")?;
                ensure!(state == "inactive" || state == "failed", "it is {state}");
                Ok(())
            })?;
            node.ok(&["journalctl", "--sync"])?;
            let said = node.ok(&["journalctl", "--no-pager", "--output=cat", "--unit=agent.service"])?;
            assert!(said.contains("units: done") || said.contains("kubelet-running"), "{anew:?}: {said}");
            assert_eq!(node.property("agent.service", "Result")?, "success", "{anew:?}: {said}");
            assert_eq!(node.property("kubelet.service", "ActiveState")?, "active", "{anew:?}");
        }
        Ok(())
    })
}

#[test]
fn what_a_unit_said_last_is_found_by_its_unit() -> Result<()> {
    on_each("last", |_, node| {
        // A journald that reads late would find none of a process that has ended by then.
        let journald = node.property("systemd-journald.service", "MainPID")?;
        node.ok(&["kill", "-STOP", &journald])?;
        let run = ["systemd-run", "--no-block", "--unit=brief", "--property=StandardError=file:/root/said"];
        node.ok(&[run.as_slice(), &["/opt/bin/nodeagent", "wait", "--timeout=1s", "file:/run/never"]].concat())?;
        node.wait_until("its last words", AGENT, |node| {
            let said = String::from_utf8(node.read("/root/said")?)?;
            ensure!(said.contains("not ready within"), "so far it says: {said}");
            Ok(())
        })?;
        std::thread::sleep(Duration::from_millis(500));
        node.ok(&["kill", "-CONT", &journald])?;
        node.wait_until("its end", AGENT, |node| {
            let state = node.property("brief.service", "ActiveState")?;
            ensure!(state == "inactive" || state == "failed", "it is {state}");
            Ok(())
        })?;
        let said = node.journal(&["_SYSTEMD_UNIT=brief.service", "SYSLOG_IDENTIFIER=nodeagent"])?;
        assert!(
            said.iter().any(|entry| entry["MESSAGE"].as_str().is_some_and(|text| text.contains("not ready within"))),
            "{said:?}"
        );
        Ok(())
    })
}

#[test]
fn each_no_of_systemd_has_its_own_message() -> Result<()> {
    const NOWAIT: &str = "[Service]\nExecStartPre=\nRestart=no\n";
    on_each("no", |_, node| {
        node.write("/etc/systemd/system/broken.service", b"[Service]\nType=oneshot\nExecStart=/bin/false\n")?;
        node.write("/etc/systemd/system/slow.service", b"[Service]\nType=oneshot\nExecStart=sleep 600\n")?;
        // The drop-in, and what is said: of the kubelet, and what to do.
        let table = [
            (
                "[Service]\nType=oneshot\nExecStart=\nExecStart=sh -c 'echo last words; exit 3'\n".to_owned(),
                vec![
                    "start kubelet.service: it failed",
                    "exit status 3",
                    "its last lines: last words",
                    "journalctl -b -u",
                ],
            ),
            (
                "[Unit]\nRequires=broken.service\nAfter=broken.service\n".to_owned(),
                vec!["start kubelet.service: blocked by broken.service", "see journalctl -b -u broken.service"],
            ),
            (
                "[Unit]\nWants=slow.service\nAfter=slow.service\nJobTimeoutSec=2\n".to_owned(),
                vec!["JobTimeoutSec=", "systemctl list-jobs --before kubelet.service"],
            ),
            (
                "[Service]\nTimeoutStartSec=1\nExecStartPre=sleep 600\n".to_owned(),
                vec!["it did not come up in the time that its unit gives it", "see what it waited for"],
            ),
            ("[Unit]\nRequires=nowhere.service\n".to_owned(), vec!["nowhere.service not found", "install what brings"]),
            (
                "[Service]\nExecStart=\n".to_owned(),
                vec!["bad unit file setting", "systemd-analyze verify kubelet.service"],
            ),
        ];
        for (text, says) in table {
            let text = text.replace("[Service]\n", NOWAIT);
            spoil(node, &text)?;
            refused(node, &says).with_context(|| text)?;
            node.ok(&["systemctl", "stop", "slow.service"])?;
        }
        spoil(
            node,
            &format!("[Unit]\nStartLimitBurst=1\nStartLimitIntervalSec=1h\n{NOWAIT}ExecStart=\nExecStart=sleep 600\n"),
        )?;
        node.ok(&["systemctl", "start", "kubelet.service"])?;
        node.ok(&["systemctl", "stop", "kubelet.service"])?;
        refused(node, &["started too often", "systemctl reset-failed kubelet.service"])?;

        spoil(node, NOWAIT)?;
        let unit = "/etc/systemd/system/kubelet.service";
        node.ok(&["mv", unit, "/root/"])?;
        node.ok(&["ln", "-s", "/dev/null", unit])?;
        refused(node, &["the unit is masked", "systemctl unmask kubelet.service"])?;
        node.ok(&["mv", "/root/kubelet.service", unit])?;
        node.ok(&["systemctl", "daemon-reload"])?;

        // A unit of somebody else's that is masked while it runs.
        wish(node, "limits: { containerd.service: { LimitNOFILE: '1024:4096' } }\n")?;
        node.ok(&["ln", "-s", "/dev/null", "/etc/systemd/system/containerd.service"])?;
        let (code, _, told) = agent(node, &["limits"])?;
        assert!(code == 1 && told.contains("masked") && told.contains("systemctl unmask containerd.service"), "{told}");
        node.ok(&["rm", "/etc/systemd/system/containerd.service", "/etc/nodeagent/node.d/20-test.yaml"])?;
        node.ok(&["systemctl", "daemon-reload"])?;

        spoil(node, &format!("{NOWAIT}ExecStartPre=sleep 600\n"))?;
        node.ok(&["systemd-run", "--unit=canceller", "sh", "-c", CANCEL])?;
        refused(node, &["somebody cancelled the job"])?;

        // The bus's policy refuses what root asks.
        spoil(node, NOWAIT)?;
        node.write("/etc/dbus-1/system.d/deny.conf", DENY.as_bytes())?;
        node.ok(&["systemctl", "reload", "dbus.service"])?;
        refused(node, &["start kubelet.service", "run as root"])?;
        node.ok(&["rm", "/etc/dbus-1/system.d/deny.conf"])?;
        node.ok(&["systemctl", "reload", "dbus.service"])?;

        node.write(unit, b"[Unit]\n")?;
        node.ok(&["mount", "--bind", "/etc", "/etc"])?;
        node.ok(&["mount", "-o", "remount,bind,ro", "/etc"])?;
        refused(node, &["Read-only file system", "remount it writable"])?;
        node.ok(&["umount", "/etc"])?;

        // As after `systemd.volatile=`: it works, and is said to last until the next boot.
        node.ok(&["sh", "-c", "cp -a /etc /run/etc && mount -t tmpfs tmpfs /etc && cp -a /run/etc/. /etc"])?;
        let (code, _, told) = agent(node, &["units"])?;
        assert!(code == 0 && told.contains("/etc is in memory"), "{told}");
        Ok(())
    })
}

const CANCEL: &str = "until [ \"$(systemctl show --value -p SubState kubelet.service)\" = start-pre ]; do sleep 0.1; done; \
                      systemctl stop kubelet.service";

const DENY: &str = "<busconfig><policy user=\"root\">\
    <deny send_destination=\"org.freedesktop.systemd1\" send_interface=\"org.freedesktop.systemd1.Manager\" \
    send_member=\"StartUnit\"/></policy></busconfig>";

/// The units step must fail, say all of this, and say how much failed.
fn refused(node: &Node<'_>, says: &[&str]) -> Result<()> {
    let (code, _, told) = agent(node, &["units"])?;
    ensure!(code == 1, "it ended with {code}: {told}");
    for text in says {
        ensure!(told.contains(text), "it does not say {text:?}: {told}");
    }
    ensure!(told.contains(" failed or not tried"), "{told}");
    Ok(())
}

#[test]
fn unit_files_are_read_as_systemd_reads_them() -> Result<()> {
    const FOREIGN: &str = "; a comment\nIgnored=here\n[Unit]\n Description = two  words \nnonsense\n=none\n[Service]\n\
        ExecStart=/bin/true\nEnvironment=A=1 \\\n# between\n  B=2\nTasksMax=7\\\n\nTasksMax=\\\n5\r\n";
    const BROKEN: &str =
        "[Unit]\nDescription=one\n[Service]\nExecStart=/bin/true\nTasksMax=6\n[Broken\n[Service]\nTasksMax=9\n";
    Lab::run("syntax", |lab| {
        let file = nodeagent::engine::unitfile::UnitFile::parse(FOREIGN);
        let last = |section, key| file.values(section, key).last().copied().unwrap_or_default().to_owned();
        for suite in Suite::ALL {
            let node = lab.node("worker1", WORKER).suite(suite).boot()?;
            node.write("/etc/systemd/system/foreign.service", FOREIGN.as_bytes())?;
            node.ok(&["systemctl", "daemon-reload"])?;
            assert_eq!(node.property("foreign.service", "Description")?, last("Unit", "Description"), "{suite:?}");
            assert_eq!(node.property("foreign.service", "TasksMax")?, last("Service", "TasksMax"), "{suite:?}");
            let words = |text: String| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
            let environment = words(node.property("foreign.service", "Environment")?);
            assert_eq!(environment, words(last("Service", "Environment")), "{suite:?}");
            // A broken header ends the reading, and what stands before it holds.
            let broken = nodeagent::engine::unitfile::UnitFile::parse(BROKEN);
            assert_eq!(broken.values("Service", "TasksMax"), ["6"]);
            node.write("/etc/systemd/system/sleeper.service", b"[Service]\nExecStart=/bin/true\nTasksMax=5\n")?;
            node.write("/etc/systemd/system/sleeper.service.d/50.conf", BROKEN.as_bytes())?;
            node.ok(&["systemctl", "daemon-reload"])?;
            assert_eq!(node.property("sleeper.service", "TasksMax")?, "6", "{suite:?}");
        }
        Ok(())
    })
}

/// Each file of `units/`, by its path there.
fn units() -> Result<Vec<(String, Vec<u8>)>> {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("units");
    let mut found = Vec::new();
    let mut directories = vec![root.clone()];
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(&directory).with_context(|| format!("list {}", directory.display()))? {
            let path = entry?.path();
            if path.is_dir() {
                directories.push(path);
                continue;
            }
            let name = path.strip_prefix(&root)?.display().to_string();
            found.push((name, std::fs::read(&path).with_context(|| format!("read {}", path.display()))?));
        }
    }
    ensure!(found.len() > 9, "units/ has only {found:?}");
    Ok(found)
}

#[test]
fn systemd_accepts_each_unit_file() -> Result<()> {
    Lab::run("verify", |lab| {
        for suite in Suite::ALL {
            let node = lab.node("worker1", WORKER).suite(suite).boot()?;
            // Its drop-in is verified with the unit that it belongs to.
            node.write("/etc/systemd/system/docker.service", b"[Service]\nExecStart=dockerd --host=fd://\n")?;
            let units = units()?;
            for (name, bytes) in &units {
                node.write(&format!("/etc/systemd/system/{name}"), bytes)?;
            }
            // What they start only has to be there.
            let programs = ["nodeagent", "etcd", "flanneld", "kubeadm"].map(|name| format!("/opt/bin/{name}"));
            let programs = programs.iter().map(String::as_str).chain(["/usr/local/bin/dockerd"]);
            let kubernetes =
                ["apiserver", "controller-manager", "scheduler", "proxy"].map(|n| format!("/opt/bin/kube-{n}"));
            for program in programs.chain(kubernetes.iter().map(String::as_str)).chain(["/opt/bin/kubelet"]) {
                node.write(program, b"")?;
                node.ok(&["chmod", "0755", program])?;
            }
            let mut names: Vec<&str> =
                units.iter().map(|(name, _)| name.as_str()).filter(|n| !n.contains('/')).collect();
            names.extend(["docker.service", "containerd.service"]);
            for name in names {
                let verify = ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", name];
                let said = node.run(&verify)?;
                let text = String::from_utf8_lossy(&said.stderr).into_owned();
                ensure!(said.status.success() && text.is_empty(), "{suite:?}: {name}: {}: {text}", said.status);
            }
            // It must be able to object.
            node.write("/etc/systemd/system/bad.service", b"[Service]\nExecStart=/bin/true\nProtectSystem=perhaps\n")?;
            let said = node.run(&["systemd-analyze", "verify", "--man=no", "bad.service"])?;
            ensure!(String::from_utf8_lossy(&said.stderr).contains("perhaps"), "{suite:?} accepts anything");
        }
        Ok(())
    })
}
