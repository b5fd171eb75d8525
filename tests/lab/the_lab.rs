//! The lab itself: what the other tests rely on.

use std::{
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use openssl::{hash::MessageDigest, pkey::PKey, sign::Signer as Hmac};
use serde_json::{Value, json};

use crate::harness::{COMMAND, CONTROLLER, Lab, SERVICES, WORKER, process, release};

#[test]
fn a_node_boots_as_cloud_init_was_told() -> Result<()> {
    Lab::run("boots", |lab| {
        let user_data = b"## template: jinja\n#cloud-config\nwrite_files:\n- path: /etc/told\n  content: '{{ ds.meta_data.word }}'\n";
        let mut node = lab.node("worker1", WORKER).user_data(user_data).meta_data("word", "hello").boot()?;
        assert_eq!(node.read("/etc/told")?, b"hello");
        assert_eq!(node.ok(&["hostname"])?.trim(), "worker1");
        let state =
            || -> Result<String> { Ok(String::from_utf8(node.run(&["systemctl", "is-system-running"])?.stdout)?) };
        process::wait_until("no unit to have failed", COMMAND, || {
            let state = state()?;
            ensure!(state.trim() == "running", "{state}{}", node.ok(&["systemctl", "list-jobs", "--failed"])?);
            Ok(())
        })?;
        assert_eq!(node.property("containerd.service", "ActiveState")?, "active");

        let first = node.ok(&["cat", "/proc/sys/kernel/random/boot_id"])?;
        node.write("/etc/kept", b"over a reboot")?;
        node.reboot()?;
        assert_ne!(node.ok(&["cat", "/proc/sys/kernel/random/boot_id"])?, first, "a reboot is another boot");
        assert_eq!(node.read("/etc/kept")?, b"over a reboot");
        Ok(())
    })
}

#[test]
fn a_node_reaches_the_lab_and_nothing_else() -> Result<()> {
    Lab::run("network", |lab| {
        let node = lab.node("worker1", WORKER).boot()?;
        let program = format!("release/{}/bin/linux/amd64/kubectl", release::VERSION);
        node.ok(&["curl", "--fail", "--silent", "--output", "/tmp/kubectl", &format!("http://{SERVICES}/{program}")])?;
        assert!(node.ok(&["sha256sum", "/tmp/kubectl"])?.starts_with(&lab.digests["kubectl"]));
        assert!(lab.mirror.requests()?.iter().any(|line| line.contains(&program)), "the mirror logs its requests");

        // Every link of the lab's network is the lab's own: the loopback, the bridge, the node's end of a cable.
        let links = String::from_utf8(lab.run_in_network(&["ip", "-brief", "link"])?.stdout)?;
        assert_eq!(links.lines().count(), 3, "{links}");
        // A documentation address, which nothing has: what counts is that the lab's gateway refuses to carry it on.
        let outside = node.run(&["curl", "--silent", "--max-time", "2", "http://192.0.2.1/"])?;
        assert_ne!(outside.status.code(), Some(0), "nothing leads out of the lab");

        let url = format!("https://{CONTROLLER}:6443/readyz");
        let closed = node.run(&["curl", "--silent", "--max-time", "20", "--insecure", &url])?;
        assert_eq!(process::exited(&closed), Some(7), "before it is started, nothing listens on the API server's port");
        let _stand_in = lab.start_stand_in_api_server()?;
        node.write("/tmp/ca.pem", lab.ca.pem()?.as_bytes())?;
        assert_eq!(node.ok(&["curl", "--silent", "--fail", "--cacert", "/tmp/ca.pem", &url])?, "ok");
        Ok(())
    })
}

#[test]
fn two_labs_at_once_do_not_meet() -> Result<()> {
    Lab::run("one", |one| {
        Lab::run("other", |other| {
            let mine = one.node("worker1", WORKER).boot()?;
            // The same name and address: only the networks keep them apart.
            let mut theirs = other.node("worker1", WORKER).boot()?;
            // A unit of the same name on each: a shared cgroup would end both.
            let start = ["systemd-run", "--unit=sleeper", "sleep", "600"];
            mine.ok(&start)?;
            theirs.ok(&start)?;
            theirs.ok(&["systemctl", "stop", "sleeper.service"])?;
            assert_eq!(mine.property("sleeper.service", "ActiveState")?, "active");
            theirs.kill()?;
            assert_eq!(mine.property("sleeper.service", "ActiveState")?, "active");
            assert_ne!(one.signer.auth_key, other.signer.auth_key);
            Ok(())
        })
    })
}

#[test]
fn the_journal_is_read_with_its_fields() -> Result<()> {
    Lab::run("journal", |lab| {
        let node = lab.node("worker1", WORKER).boot()?;
        let id = "MESSAGE_ID=0123456789abcdef0123456789abcdef";
        assert!(node.journal(&[id])?.is_empty());
        node.write("/tmp/entry", format!("MESSAGE=two words\n{id}\nNODEAGENT_STEP=test\n").as_bytes())?;
        node.ok(&["logger", "--journald=/tmp/entry"])?;
        let entries = node.wait_until("the entry", COMMAND, |node| {
            let entries = node.journal(&[id])?;
            ensure!(!entries.is_empty(), "the journal has no such entry");
            Ok(entries)
        })?;
        assert_eq!(entries[0]["MESSAGE"], "two words");
        assert_eq!(entries[0]["NODEAGENT_STEP"], "test");
        Ok(())
    })
}

#[test]
fn a_failed_node_is_kept_with_its_journal() -> Result<()> {
    let mut directory = None;
    let failed = Lab::run("kept-on-purpose", |lab| {
        let node = lab.node("worker1", WORKER).boot()?;
        node.ok(&["logger", "--id", "last words"])?;
        node.write("/etc/evidence", b"here")?;
        directory = Some(lab.directory().to_owned());
        anyhow::bail!("this test fails on purpose")
    });
    assert!(failed.is_err());
    let run = directory.context("the lab ran")?;
    assert!(!run.exists(), "a lab that ended is not among the living");
    let name = run.file_name().context("a run directory has a name")?;
    let kept = run.with_file_name("../kept").join(name);
    let upper = kept.join("worker1/upper");
    assert_eq!(fs::read(upper.join("etc/evidence"))?, b"here");
    let journal = upper.join("var/log/journal").display().to_string();
    let lines = process::ok(&["journalctl", "--directory", &journal, "--no-pager"], COMMAND)?;
    assert!(lines.contains("last words"), "{lines}");
    let mounts = fs::read_to_string("/proc/self/mounts")?;
    assert!(!mounts.contains(&*run.to_string_lossy()), "no mount is left: {mounts}");
    fs::remove_dir_all(&kept).context("remove what was kept on purpose")
}

#[test]
fn a_node_whose_power_was_cut_boots_again() -> Result<()> {
    Lab::run("power", |lab| {
        let mut node = lab.node("worker1", WORKER).boot()?;
        node.kill()?;
        assert!(node.run(&["true"]).is_err(), "a node without power runs nothing");
        node.boot()?;
        assert_eq!(node.ok(&["echo", "again"])?, "again\n");
        node.power_off()?;
        Ok(())
    })
}

#[test]
fn the_signer_signs_for_nobody_without_the_key() -> Result<()> {
    Lab::run("signer", |lab| {
        let request = json!({ "certificate_request": request()?, "hosts": [WORKER] });
        // The default profile asks for a key, so cfssl does not even have the path that asks for none.
        assert_eq!(post(lab, "sign", &request)?, Value::from("404 page not found\n"));

        let signed = post(lab, "authsign", &authenticated(&request, "client", &lab.signer.auth_key)?)?;
        assert_eq!(signed["success"], true, "{signed}");
        let wrong = authenticated(&request, "client", &"0".repeat(32))?;
        let refused = post(lab, "authsign", &wrong)?;
        assert_eq!(refused["success"], false, "{refused}");
        Ok(())
    })
}

/// A certificate request with a new key.
fn request() -> Result<String> {
    let command =
        ["openssl", "req", "-new", "-nodes", "-newkey", "rsa:2048", "-keyout", "/dev/null", "-subj", "/CN=test"];
    process::ok(&command, Duration::from_secs(30))
}

/// What `authsign` wants: the request as text, and its authentication code.
fn authenticated(request: &Value, profile: &str, key: &str) -> Result<Value> {
    let mut request = request.clone();
    request["profile"] = profile.into();
    let text = request.to_string();
    let key: Vec<u8> =
        (0..key.len()).step_by(2).map(|at| u8::from_str_radix(&key[at..at + 2], 16)).collect::<Result<_, _>>()?;
    let key = PKey::hmac(&key)?;
    let token = Hmac::new(MessageDigest::sha256(), &key)?.sign_oneshot_to_vec(text.as_bytes())?;
    let encode = openssl::base64::encode_block;
    Ok(json!({ "token": encode(&token), "request": encode(text.as_bytes()) }))
}

/// The signer's answer: what it says in JSON, or the text of a page that is none.
fn post(lab: &Lab, what: &str, body: &Value) -> Result<Value> {
    let url = format!("{}/api/v1/cfssl/{what}", lab.signer.url);
    let ca = lab.directory().join("signer/ca.pem").display().to_string();
    let answer = lab.run_in_network(&["curl", "--silent", "--cacert", &ca, "--data", &body.to_string(), &url])?;
    let text = String::from_utf8(answer.stdout).with_context(|| format!("{url} answered no text"))?;
    Ok(serde_json::from_str(&text).unwrap_or_else(|_| text.into()))
}

#[test]
fn a_killed_lab_leaves_no_process() -> Result<()> {
    const VICTIM: &str = "NODEAGENT_LAB_VICTIM";
    if std::env::var_os(VICTIM).is_some() {
        // This is the process that gets killed: it says where its lab is, and waits for that.
        return Lab::run("victim", |lab| {
            let _node = lab.node("worker1", WORKER).boot()?;
            println!("\nlab {}", lab.directory().display());
            std::thread::sleep(COMMAND);
            anyhow::bail!("nobody killed this lab")
        });
    }
    let mut victim = Command::new(std::env::current_exe()?)
        .args(["--exact", "the_lab::a_killed_lab_leaves_no_process", "--nocapture"])
        .env(VICTIM, "1")
        .stdout(Stdio::piped())
        .spawn()
        .context("start a lab to kill")?;
    let lines = BufReader::new(victim.stdout.take().context("the victim has an output")?).lines();
    let told = lines.map_while(Result::ok).find_map(|line| line.strip_prefix("lab ").map(PathBuf::from));
    victim.kill()?;
    victim.wait()?;
    let directory = told.context("the victim's lab did not come up")?;

    let label = format!("nodeagent-lab-{}-0", victim.id());
    process::wait_until("its processes to end", COMMAND, || {
        let left = process::ok(
            &["find", "/sys/fs/cgroup", "-path", &format!("*/{label}/*"), "-name", "cgroup.procs"],
            COMMAND,
        )?;
        let left: Vec<_> = left.lines().filter(|procs| fs::read(procs).is_ok_and(|pids| !pids.is_empty())).collect();
        ensure!(left.is_empty(), "there are processes in {left:?}");
        Ok(())
    })?;

    // The next lab takes away what is no process.
    Lab::run("sweeper", |_| Ok(()))?;
    assert!(!directory.exists(), "{} is swept", directory.display());
    assert!(!Path::new("/run/netns").join(&label).exists(), "the network namespace {label} is swept");
    let name = directory.file_name().context("a run directory has a name")?;
    fs::remove_dir_all(directory.with_file_name("../kept").join(name)).context("remove what was kept on purpose")
}
