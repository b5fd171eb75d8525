//! The inventory: what is kept in it, whose it is, and what never gets into it.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use nix::fcntl::{Flock, FlockArg};
use openssl::base64::decode_block;
use openssl::x509::X509;
use serde_json::Value;

use super::{Operator, example};

#[test]
fn a_second_run_writes_nothing_and_one_more_machine_changes_no_other_s_network() -> Result<()> {
    let operator = Operator::of(&example("cluster.yaml")?)?;
    let before = operator.all()?;
    let again = operator.run(&[])?;
    ensure!(String::from_utf8_lossy(&again.stdout).starts_with("everything is there already\n"), "{again:?}");
    ensure!(operator.all()? == before, "a second run wrote something");

    let more = example("cluster.yaml")?.replace("nodes:\n", "nodes:\n  a-worker: { address: 10.10.30.20 }\n");
    fs::write(operator.dir.path().join("cluster.yaml"), more)?;
    ensure!(operator.run(&[])?.status.success(), "one more machine");
    let nodes = operator.json("worker-1/node.yaml")?["cluster"]["nodes"].clone();
    let cidrs = ["controller-1", "worker-1", "worker-2", "a-worker"].map(|name| nodes[name]["podCIDR"].clone());
    ensure!(cidrs == ["10.244.0.0/24", "10.244.1.0/24", "10.244.2.0/24", "10.244.3.0/24"], "{cidrs:?}");
    let after = operator.all()?;
    for kept in ["pki/ca-key.pem", "pki/sa-key.pem", "admin.conf", "controller-1/secrets/ca-key.pem"] {
        ensure!(after[&operator.path(kept)] == before[&operator.path(kept)], "{kept} was made again");
    }
    let token = |node: &str| -> Result<Value> { Ok(operator.json("bootstrap-tokens.yaml")?["tokens"][node].clone()) };
    let old = token("worker-1")?;
    ensure!(operator.text("worker-1/user-data")?.contains(old["token"].as_str().context("a token")?), "its own token");
    ensure!(operator.run(&["--new-tokens"])?.status.success(), "new tokens");
    ensure!(token("worker-1")? != old, "the token is still {old}");
    Ok(())
}

#[test]
fn what_is_secret_is_its_owners_alone_and_listed() -> Result<()> {
    let operator = Operator::of(&example("cluster-etcd.yaml")?)?;
    for (path, (mode, _, bytes)) in operator.all()? {
        let holds_key = String::from_utf8_lossy(&bytes).contains("PRIVATE KEY");
        let open = ["node.yaml", "secrets.yaml", "allocations.yaml", "ca.pem", "etcd-ca.pem", "front-proxy-ca.pem"];
        let open = path.file_name().and_then(|name| name.to_str()).is_some_and(|name| open.contains(&name));
        ensure!(mode == if open { 0o644 } else { 0o600 }, "{} has mode {mode:o}", path.display());
        let in_place = path.components().any(|part| ["pki", "secrets"].iter().any(|dir| part.as_os_str() == *dir));
        ensure!(!holds_key || in_place, "{} holds a key", path.display());
    }
    for closed in ["pki", "controller-1/secrets", "etcd-1/secrets"] {
        let mode = fs::metadata(operator.path(closed))?.permissions().mode() & 0o7777;
        ensure!(mode == 0o700, "{closed} has mode {mode:o}");
    }
    let listed = |node: &str| -> Result<Vec<String>> {
        let listed = operator.json(&format!("{node}/secrets.yaml"))?;
        let listed = listed.as_object().context("a map")?;
        let mut there: Vec<String> = fs::read_dir(operator.path(node).join("secrets"))?
            .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
            .collect::<Result<_>>()?;
        there.sort();
        let mut names: Vec<String> = listed.keys().cloned().collect();
        names.sort();
        ensure!(there == names, "{node}: {there:?} and {names:?}");
        ensure!(listed.values().all(|entry| entry["mode"] == "0600"), "{listed:?}");
        Ok(names)
    };
    let of_controllers = [
        "bootstrap-tokens.yaml",
        "ca-key.pem",
        "encryption-key",
        "etcd-ca-key.pem",
        "front-proxy-ca-key.pem",
        "sa-key.pem",
    ];
    ensure!(listed("controller-1")? == of_controllers, "{:?}", listed("controller-1")?);
    ensure!(listed("etcd-1")? == ["etcd-ca-key.pem"], "{:?}", listed("etcd-1")?);
    ensure!(!operator.path("edge-1/secrets").exists(), "an edge node needs none");
    let same = |name: &str| fs::read(operator.path(&format!("controller-1/secrets/{name}")));
    ensure!(same("sa-key.pem")? == fs::read(operator.path("controller-3/secrets/sa-key.pem"))?, "one key for all");
    Ok(())
}

#[test]
fn the_administrators_kubeconfig_is_signed_by_the_cluster() -> Result<()> {
    let operator = Operator::of(&example("cluster.yaml")?)?;
    let config: Value = serde_json::from_str(&operator.text("admin.conf")?)?;
    let data = |at: &Value| -> Result<Vec<u8>> { Ok(decode_block(at.as_str().context("no data")?)?) };
    let ca = X509::from_pem(&data(&config["clusters"][0]["cluster"]["certificate-authority-data"])?)?;
    let certificate = X509::from_pem(&data(&config["users"][0]["user"]["client-certificate-data"])?)?;
    let key = openssl::pkey::PKey::private_key_from_pem(&data(&config["users"][0]["user"]["client-key-data"])?)?;
    ensure!(certificate.verify(&*ca.public_key()?)? && certificate.public_key()?.public_eq(&key), "the pair");
    let subject: Vec<String> =
        certificate.subject_name().entries().map(|entry| Ok(entry.data().to_string()?)).collect::<Result<_>>()?;
    ensure!(subject == ["system:masters", "kubernetes-admin"], "{subject:?}");
    ensure!(config["clusters"][0]["cluster"]["server"] == "https://10.10.30.11:6443", "{config}");
    ensure!(config["current-context"] == config["contexts"][0]["name"], "{config}");
    Ok(())
}

#[test]
fn what_cannot_be_is_refused_before_anything_is_made() -> Result<()> {
    let good = example("cluster.yaml")?;
    let line = |n| format!("  machine-with-a-long-name-{n}: {{ address: 10.9.0.{n} }}\n");
    let many = (0..250).map(line).collect::<Vec<_>>().concat();
    let table = [
        (
            good.replace("apiServer", "apiserver"),
            vec!["cluster.yaml:5:1: apiserver: unknown key; did you mean apiServer?", "2 errors"],
        ),
        (
            good.replace("v1.34.2\n", "1.34\n").replace("10.10.30.21", "10.10.30"),
            vec!["cluster.yaml:17:12: kubernetes.version", "nodes.worker-1.address", "2 errors"],
        ),
        (
            good.replace("nodes:\n", &format!("nodes:\n{many}")),
            vec!["would have", "metadata services take 16384", "--any-size"],
        ),
        (good.replace("worker-1:", "pki:"), vec!["machine of the name pki", "--pki"]),
        // What a key is called in this file, and not in the machines'.
        (
            good.replace("10.10.30.22", "10.10.30.21"),
            vec![" nodes.worker-2.address: 10.10.30.21 is that of worker-1, too", "1 error"],
        ),
        (
            good.replace("10.10.30.21", "127.0.0.1").replace("10.10.30.22", "169.254.1.1"),
            vec!["127.0.0.1 is the loopback address of each machine", "169.254.1.1 is link-local", "2 errors"],
        ),
        (
            format!("{good}defaults: {{ cluster: {{ podCIDR: 10.9.0.0/16 }} }}\n"),
            vec!["defaults.cluster.podCIDR: is podCIDR at the top, for all machines alike"],
        ),
        (format!("{good}tokens: {{ ttl: 31d }}\n"), vec!["tokens.ttl: \"31d\" is not a time", "10m and 30d"]),
        (good.replace("worker-1:", &format!("{}:", "w".repeat(64))), vec!["at most 63 characters between dots"]),
        // What each machine would have refused later.
        (good.replace("role: controller, ", ""), vec!["none of its nodes is a controller", "role: controller"]),
        (
            good.replace("version: v1.34.2", "version: v1.18.2"),
            vec!["make controller-1: ", "v1.18.2 is older than v1.20"],
        ),
        (
            good.replace("roles:\n", "roles:\n  worker: { kubernetes: { version: v1.36.0 } }\n"),
            vec!["make worker-1: its kubelet is v1.36.0, and the API server of controller-1 is v1.34.2"],
        ),
    ];
    for (text, wanted) in table {
        let operator = Operator::new(&text)?;
        let output = operator.run(&[])?;
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(output.status.code() == Some(2), "{told}");
        for words in wanted {
            ensure!(told.contains(words), "{words:?} is not in\n{told}");
        }
        ensure!(!operator.path("worker-2").exists() && !operator.path("admin.conf").exists(), "something was made");
        if told.contains("--any-size") {
            ensure!(operator.run(&["--any-size"])?.status.success(), "any size");
        }
    }
    Ok(())
}

#[test]
fn a_slip_in_the_directory_of_cas_makes_no_other_cluster() -> Result<()> {
    let operator = Operator::of(&example("cluster.yaml")?)?;
    let before = operator.all()?;
    let another = Operator::of(&example("cluster.yaml")?)?;
    let dir = operator.dir.path().join("another");
    fs::create_dir(&dir)?;
    for file in fs::read_dir(another.path("pki"))? {
        let file = file?;
        fs::copy(file.path(), dir.join(file.file_name()))?;
    }
    // Where there is none, and where there is another cluster's.
    for slip in ["ikp", "another"] {
        let output = operator.run(&["--pki", slip])?;
        let told = String::from_utf8(output.stderr)?;
        ensure!(output.status.code() == Some(2), "{told}");
        ensure!(told.contains(&format!("take the CA in {slip}")) && told.contains("--to"), "{told}");
        ensure!(operator.all()? == before && !operator.dir.path().join("ikp").exists(), "something was made");
    }

    // kubectl writes YAML where it changes something in there.
    let config = operator.json("admin.conf")?;
    let part = |at: &str| config.pointer(at).and_then(Value::as_str).context("a part of admin.conf");
    let (ca, pair) = ("/clusters/0/cluster/certificate-authority-data", "/users/0/user/client-certificate-data");
    let yaml = format!(
        "apiVersion: v1\nclusters:\n- cluster: {{ server: https://a }}\n  name: aaa\n- cluster:\n    certificate-authority-data: {}\n  name: kubernetes\nkind: Config\n\
         users:\n- name: aaa\n  user: {{ token: x }}\n- name: kubernetes-admin\n  user:\n    client-certificate-data: {}\n    client-key-data: {}\n",
        part(ca)?,
        part(pair)?,
        part("/users/0/user/client-key-data")?
    );
    for (text, slip, says) in [
        (yaml.as_str(), &["--pki", "another"][..], "take the CA in another"),
        ("no: kubeconfig\n", &[], "it embeds no CA"),
        ("\0", &[], "it is no kubeconfig"),
    ] {
        fs::write(operator.path("admin.conf"), text)?;
        let before = operator.all()?;
        let output = operator.run(slip)?;
        let told = String::from_utf8(output.stderr)?;
        ensure!(output.status.code() == Some(2) && told.contains(says), "{told}");
        ensure!(operator.all()? == before, "something was made");
    }
    fs::write(operator.path("admin.conf"), &yaml)?;
    ensure!(operator.run(&[])?.status.success(), "its own CA");
    ensure!(operator.json("admin.conf")?.pointer(pair) == config.pointer(pair), "the administrator's pair is another");
    Ok(())
}

#[test]
fn a_ca_that_is_there_is_taken_and_half_a_one_is_not() -> Result<()> {
    let operator = Operator::new(&example("cluster.yaml")?)?;
    let own = operator.dir.path().join("own");
    fs::create_dir(&own)?;
    let made = Command::new(env!("CARGO_BIN_EXE_nodeagent")).args(["certs", "ca"]).arg(&own).output()?;
    ensure!(made.status.success(), "{made:?}");
    ensure!(operator.run(&["--pki", "own"])?.status.success(), "with a CA of one's own");
    let ca = fs::read_to_string(own.join("ca.pem"))?;
    let yaml = operator.json("worker-1/user-data")?;
    let files = yaml["write_files"].as_array().context("files")?;
    let written = files.iter().find(|file| file["path"] == "/etc/kubernetes/pki/ca.pem").context("the CA")?;
    ensure!(written["content"] == *ca, "another CA");
    ensure!(!operator.path("pki").exists(), "a directory that nobody asked for");

    // The inventory itself may be the directory.
    let here = Operator::new(&example("cluster.yaml")?)?;
    for run in ["first", "second"] {
        let output = here.run(&["--pki", "inventory"])?;
        ensure!(output.status.success(), "{run}: {}", String::from_utf8_lossy(&output.stderr));
    }

    // With its key beside it, as some tools keep it: the machines get the certificate alone.
    let key = fs::read_to_string(own.join("ca-key.pem"))?;
    fs::write(own.join("ca.pem"), format!("{ca}{key}"))?;
    ensure!(operator.run(&["--pki", "own"])?.status.success(), "both in one file");
    ensure!(!operator.text("worker-1/user-data")?.contains("PRIVATE KEY"), "a key in user-data");

    fs::remove_file(own.join("ca-key.pem"))?;
    let output = operator.run(&["--pki", "own"])?;
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.code() == Some(2) && told.contains("own/ca-key.pem: there is no such file"), "{told}");
    ensure!(!own.join("ca-key.pem").exists(), "a new key for an old CA");
    Ok(())
}

#[test]
fn runs_at_the_same_time_take_turns() -> Result<()> {
    let operator = Operator::new(&example("cluster-etcd.yaml")?)?;
    let start = || -> Result<_> {
        let mut command = Command::new(env!("CARGO_BIN_EXE_nodeagent"));
        let command = command.args(["cloud-config", "cluster.yaml"]).current_dir(operator.dir.path());
        Ok(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?)
    };
    let runs = (0..4).map(|_| start()).collect::<Result<Vec<_>>>()?;
    let mut made = 0;
    for run in runs {
        let output = run.wait_with_output()?;
        let (said, told) = (String::from_utf8(output.stdout)?, String::from_utf8(output.stderr)?);
        ensure!(output.status.success(), "{told}");
        made +=
            usize::from(said.lines().any(|line| line.starts_with("wrote ") && line.ends_with("/inventory/pki/ca.pem")));
        ensure!(
            said.contains("wrote ") != said.starts_with("everything is there already\n"),
            "it made a part:\n{said}"
        );
    }
    ensure!(made == 1, "{made} of them made a CA");

    // One that does not end is not waited for for ever, and named.
    let lock = fs::File::options().append(true).open(operator.path(".lock"))?;
    let _held = Flock::lock(lock, FlockArg::LockExclusive).map_err(|(_, error)| error)?;
    fs::write(operator.path(".lock"), "pid 1 (cloud-config) since long ago\n")?;
    let before = operator.all()?;
    let output = operator.run(&["--new-tokens"])?;
    let told = String::from_utf8(output.stderr)?;
    ensure!(output.status.code() == Some(3) && output.stdout.is_empty(), "{told}");
    ensure!(told.contains("inventory/.lock: still held after 10 s by pid 1 (cloud-config) since long ago"), "{told}");
    ensure!(operator.all()? == before, "it wrote something");
    Ok(())
}

#[test]
fn what_was_made_for_a_machine_that_is_gone_is_told_of_and_left() -> Result<()> {
    let operator = Operator::of(&example("cluster.yaml")?)?;
    // A directory of the operator's own is none of the command's business.
    fs::create_dir(operator.path("notes"))?;
    let there = |operator: &Operator| fs::read(operator.path("worker-2/user-data"));
    let before = there(&operator)?;
    let fewer = example("cluster.yaml")?.replace("  worker-2: { address: 10.10.30.22 }\n", "");
    fs::write(operator.dir.path().join("cluster.yaml"), fewer)?;
    let output = operator.run(&[])?;
    let said = String::from_utf8(output.stdout)?;
    let told = said.lines().filter(|line| line.contains("no such machines")).collect::<Vec<_>>();
    ensure!(told.len() == 1 && told[0].contains("/inventory/worker-2: cluster.yaml has no"), "{said}");
    ensure!(there(&operator)? == before, "it was touched");
    ensure!(!operator.text("bootstrap-tokens.yaml")?.contains("worker-2"), "its token is still good");
    let output = operator.run(&["--output", "json"])?;
    let said: Value = serde_json::from_slice(&output.stdout)?;
    let left: Vec<&str> = said["left"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    ensure!(left.len() == 1 && Path::new(left[0]).ends_with("inventory/worker-2"), "{said}");

    fs::remove_dir_all(operator.path("worker-2"))?;
    let said = String::from_utf8(operator.run(&[])?.stdout)?;
    ensure!(said.starts_with("everything is there already\n") && !said.contains("left"), "{said}");
    Ok(())
}

/// Somebody else signs for etcd and for the aggregation layer: their certificates are enough, and no key is carried around.
#[test]
fn other_signers_take_the_place_of_ours_and_keep_their_keys() -> Result<()> {
    let others = "  controller:\n    pki:\n\
                  \x20     etcd: { signer: { offline: { dir: /etc/requests } } }\n\
                  \x20     frontProxy: { signer: { offline: { dir: /etc/requests } } }\n";
    let operator = Operator::new(&example("cluster.yaml")?.replace("  controller:\n", others))?;
    let own = operator.dir.path().join("own");
    fs::create_dir(&own)?;
    let mut command = Command::new(env!("CARGO_BIN_EXE_nodeagent"));
    let made = command.args(["certs", "ca", "--etcd", "--front-proxy"]).arg(&own).output()?;
    ensure!(made.status.success(), "{made:?}");
    for key in ["etcd-ca-key.pem", "front-proxy-ca-key.pem"] {
        fs::remove_file(own.join(key))?;
    }
    let output = operator.run(&["--pki", "own"])?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let node = operator.json("controller-1/node.yaml")?;
    for (authority, name) in [("etcd", "etcd-ca"), ("frontProxy", "front-proxy-ca")] {
        let of = &node["pki"][authority];
        ensure!(of["signer"].as_object().is_some_and(|signer| signer.keys().eq(["offline"])), "{of}");
        let user_data = operator.json("controller-1/user-data")?;
        let files = user_data["write_files"].as_array().context("files")?;
        let file = files.iter().find(|file| file["path"] == of["ca"]).with_context(|| name.to_owned())?;
        ensure!(file["content"] == *fs::read_to_string(own.join(format!("{name}.pem")))?, "another {name}");
        ensure!(!own.join(format!("{name}-key.pem")).exists(), "a new key for an old CA");
    }
    let brought = operator.json("controller-1/secrets.yaml")?;
    let brought: BTreeSet<&str> = brought.as_object().context("a map")?.keys().map(String::as_str).collect();
    ensure!(brought == ["bootstrap-tokens.yaml", "ca-key.pem", "sa-key.pem"].into(), "{brought:?}");

    // A machine that signs itself needs the key, whoever else does not.
    fs::write(operator.dir.path().join("cluster.yaml"), example("cluster.yaml")?)?;
    let told = String::from_utf8(operator.run(&["--pki", "own"])?.stderr)?;
    ensure!(told.contains("own/etcd-ca-key.pem: there is no such file"), "{told}");
    Ok(())
}

/// What the machine itself will warn of when it is too late is said here, of that machine alone.
#[test]
fn a_machine_that_would_keep_the_cas_key_without_right_is_warned_of() -> Result<()> {
    let signs_itself = |more: &str| -> Result<String> {
        let config = format!("config: {{ pki: {{ signer: {{ local: {{ key: /etc/mine/ca.key{more} }} }} }} }}");
        Ok(example("cluster.yaml")?.replace("address: 10.10.30.21 }", &format!("address: 10.10.30.21, {config} }}")))
    };
    let operator = Operator::new(&signs_itself("")?)?;
    // What is there already is warned of, too.
    for run in ["first", "second"] {
        let output = operator.run(&["-o", "json"])?;
        let told = String::from_utf8(output.stderr)?;
        ensure!(output.status.success(), "{run}: {told}");
        let why = "whoever reads this key on a worker can sign a cluster administrator; set \
                   pki.signer.local.removeAfterUse: true, or choose another pki.signer";
        ensure!(told == format!("worker-1 is to have /etc/mine/ca.key: {why}\n"), "{run}: {told}");
        let made: Value = serde_json::from_slice(&output.stdout)?;
        let stray = |node: &str| made["nodes"][node]["strayKey"].clone();
        ensure!(stray("worker-1") == "/etc/mine/ca.key", "{run}: {made}");
        ensure!(stray("worker-2").is_null() && stray("controller-1").is_null(), "{run}: {made}");
    }
    fs::write(operator.dir.path().join("cluster.yaml"), signs_itself(", removeAfterUse: true")?)?;
    let output = operator.run(&[])?;
    ensure!(output.status.success() && output.stderr.is_empty(), "one that it destroys: {output:?}");
    ensure!(operator.path("worker-1/secrets/ca.key").exists(), "it is brought");
    Ok(())
}

/// A CA that another server has cannot be made here: every machine would be given one that nobody signs with.
#[test]
fn no_ca_is_invented_for_a_signer_that_has_one() -> Result<()> {
    let elsewhere = "  controller:\n    pki:\n\
                     \x20     etcd: { signer: { cfssl: { url: 'https://10.10.30.1:8888', authKeyFile: /etc/nodeagent/key } } }\n";
    let operator = Operator::new(&example("cluster.yaml")?.replace("  controller:\n", elsewhere))?;
    let output = operator.run(&[])?;
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.code() == Some(2) && told.contains("pki/etcd-ca.pem: there is no such file"), "{told}");
    ensure!(!operator.path("pki/etcd-ca.pem").exists() && !operator.path("worker-1").exists(), "something was made");
    Ok(())
}

/// What an operator keeps beside the secrets is not of ours to remove; what was ours goes with its reason.
#[test]
fn only_secrets_that_were_listed_are_removed() -> Result<()> {
    let operator = Operator::of(&example("cluster.yaml")?)?;
    let secrets = operator.path("controller-1/secrets");
    fs::write(secrets.join("deploy.key"), "an operator's")?;
    ensure!(secrets.join("front-proxy-ca-key.pem").exists(), "it is brought");
    let without = format!("{}pki: {{ noAggregation: true }}\n", example("cluster.yaml")?);
    fs::write(operator.dir.path().join("cluster.yaml"), without)?;
    let output = operator.run(&[])?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let told = String::from_utf8_lossy(&output.stdout);
    ensure!(told.contains("\nremoved ") && told.contains("/secrets/front-proxy-ca-key.pem\n"), "{told}");
    ensure!(!secrets.join("front-proxy-ca-key.pem").exists(), "it is brought no more");
    ensure!(fs::read_to_string(secrets.join("deploy.key"))? == "an operator's", "it is not ours");
    Ok(())
}

/// One line of a key is enough to be one too many: whoever put it into `cluster.yaml`, and wherever.
#[test]
fn a_key_that_would_get_into_user_data_is_refused_before_anything_is_written() -> Result<()> {
    let good = example("cluster.yaml")?;
    let owner = Operator::of(&good)?;
    let before = owner.all()?;
    let pki = owner.path("pki");
    let pki = pki.to_str().context("a path in UTF-8")?;
    for (key, node, place) in [
        ("ca-key.pem", "controller-1", |sysctls: &str, good: &str| format!("{good}defaults: {sysctls}\n")),
        ("etcd-ca-key.pem", "worker-1", |sysctls: &str, good: &str| {
            good.replace("\nroles:\n", &format!("\nroles:\n  worker: {sysctls}\n"))
        }),
        ("sa-key.pem", "worker-2", |sysctls: &str, good: &str| {
            let address = "address: 10.10.30.22";
            good.replace(address, &format!("{address}, config: {sysctls}"))
        }),
    ] as [(_, _, fn(&str, &str) -> String); 3]
    {
        let text = owner.text(&format!("pki/{key}"))?;
        let line = text.lines().nth(1).context("the key's first line")?;
        let bad = place(&format!("{{ kernel: {{ sysctls: {{ kernel.domainname: \"{line}\" }} }} }}"), &good);
        // Where all was made before, and where nothing was.
        let fresh = Operator::new(&bad)?;
        fs::write(owner.dir.path().join("cluster.yaml"), &bad)?;
        for (operator, args) in [(&owner, &[][..]), (&fresh, &["--pki", pki])] {
            let output = operator.run(args)?;
            let told = String::from_utf8_lossy(&output.stderr).into_owned();
            ensure!(output.status.code() == Some(2), "{key}: {told}");
            let wanted = format!("user-data of {node} would hold the secret {key}");
            ensure!(told.contains(&wanted), "{wanted:?} is not in {told}");
            ensure!(told.contains("take it out of `defaults`, `roles` and `config`"), "{told}");
            ensure!(!told.contains(line) && output.stdout.is_empty(), "the key is told: {told}");
        }
        ensure!(owner.all()? == before, "{key}: something was written");
        ensure!(fresh.all()?.is_empty(), "{key}: {:?} was made", fresh.all()?.keys());
    }
    Ok(())
}
