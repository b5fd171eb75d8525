//! Certificates that a person carries: requests made on the node, signed elsewhere, and judged again on the node.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use anyhow::{Context as _, Result, ensure};

use crate::certs::{EXTENSIONS, PAIRS, choose, extensions, make_ca, openssl, path};
use crate::world::{Tree, World, agent, scratch};

const EC: [&str; 4] = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"];

/// Where the requests wait in a tree.
fn offline(tree: &Tree<'_>) -> PathBuf {
    tree.root().join("etc/kubernetes/pki/offline")
}

fn mode(path: &Path) -> Result<u32> {
    let meta = fs::metadata(path).with_context(|| format!("look at {}", path.display()))?;
    Ok(meta.permissions().mode() & 0o7777)
}

/// `certs sign` with this CA.
fn sign(ca: &(PathBuf, PathBuf), args: &[&Path]) -> Result<Output> {
    let mut command = Command::new(agent());
    command.args(["certs", "sign", "--ca"]).arg(&ca.0).arg("--key").arg(&ca.1).args(args);
    command.output().context("run nodeagent")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn what_was_carried_away_comes_back_as_pairs() -> Result<()> {
    let world = World::new()?;
    let tree = world.copy(&world.start())?;
    let ca = make_ca(&tree, &EC)?;
    choose(&tree, "offline: { dir: /etc/kubernetes/pki/offline }")?;
    let ran = tree.run(&["certs"])?;
    ensure!(ran.ended == Ok(1) && ran.told.contains("nodeagent certs csr"), "{:?} {}", ran.ended, ran.told);

    shows(&tree, "kubelet-client", "make key and request: nodeagent certs csr")?;
    let made = tree.ok(&["certs", "csr"])?.out;
    let requests: Vec<PathBuf> = made.lines().map(PathBuf::from).collect();
    ensure!(requests.len() == 3 && requests.iter().all(|path| path.starts_with(offline(&tree))), "{made}");
    ensure!(mode(&offline(&tree))? == 0o700, "others may enter {}", offline(&tree).display());
    for request in &requests {
        ensure!(mode(&request.with_extension("key"))? == 0o600, "{} has an exposed key", request.display());
    }
    let read = |paths: &[PathBuf]| paths.iter().map(fs::read).collect::<std::io::Result<Vec<_>>>();
    let before = read(&requests)?;
    let again = tree.ok(&["certs", "csr"])?;
    ensure!(again.told.contains("nothing to do") && read(&requests)? == before, "asked twice: {}", again.told);
    let ran = tree.run(&["certs"])?;
    let says = "there is no certificate /etc/kubernetes/pki/offline/kubelet-client.pem yet";
    ensure!(ran.ended == Ok(1) && ran.told.contains(says), "{:?} {}", ran.ended, ran.told);

    let dir = "/etc/kubernetes/pki/offline";
    for (name, ..) in PAIRS {
        let carry = format!(
            "carry {dir}/{name}.csr to where the CA's key is, `nodeagent certs sign` it there, and put the certificate into \
             {dir}/{name}.pem"
        );
        shows(&tree, name, &carry)?;
        ensure!(ran.told.contains(&carry), "it does not say {carry:?}: {}", ran.told);
    }

    let office = scratch()?;
    let carried: Vec<PathBuf> = requests
        .iter()
        .map(|request| {
            let to = office.path().join(request.file_name().context("a name")?);
            fs::copy(request, &to).context("carry a request")?;
            Ok(to)
        })
        .collect::<Result<_>>()?;
    let carried: Vec<&Path> = carried.iter().map(PathBuf::as_path).collect();
    let output = sign(&ca, &[&carried[..], &[Path::new("--days"), Path::new("20")]].concat())?;
    let shown = text(&output.stdout);
    ensure!(output.status.success(), "{shown}{}", text(&output.stderr));
    for line in [
        "kubelet-client.pem: O=system:nodes, CN=system:node:worker-01 (client auth)\n",
        "kubelet-server.pem: O=system:nodes, CN=system:node:worker-01 for worker-01, 10.10.30.21 (server auth)\n",
        "kube-proxy-client.pem: CN=system:kube-proxy (client auth)\n",
    ] {
        ensure!(shown.contains(line), "it does not show {line:?}: {shown}");
    }
    for (name, ..) in PAIRS {
        let file = format!("{name}.pem");
        fs::copy(office.path().join(&file), offline(&tree).join(&file)).context("carry a certificate")?;
    }
    let brought = format!("make the pair with {dir}/kubelet-client.pem, which was brought: nodeagent certs");
    shows(&tree, "kubelet-client", &brought)?;
    tree.ok(&["certs"])?;
    let mut shown = String::new();
    for (name, purpose, subject) in PAIRS {
        let pair = tree.root().join(format!("etc/kubernetes/pki/{name}.pem"));
        let pair = path(&pair)?;
        openssl(&["verify", "-x509_strict", "-purpose", purpose, "-CAfile", path(&ca.0)?, pair])?;
        let text = openssl(&["x509", "-in", pair, "-noout", "-subject", "-text"])?;
        ensure!(text.contains(&format!("subject={subject}")), "{name}: {text}");
        let key = openssl(&["pkey", "-in", pair, "-pubout"])?;
        ensure!(key == openssl(&["x509", "-in", pair, "-noout", "-pubkey"])?, "{name}: the key is another's");
        shown.push_str(&extensions(name, &text));
    }
    ensure!(shown == EXTENSIONS, "{shown}");
    ensure!(fs::read_dir(offline(&tree))?.next().is_none(), "keys and requests were left");
    for args in [&["certs"][..], &["certs", "csr"]] {
        let again = tree.ok(args)?;
        ensure!(again.told.contains("nothing to do") && again.out.is_empty(), "{args:?}: {}{}", again.out, again.told);
    }
    let all = tree.ok(&["certs", "show", "-o", "json"])?.out;
    ensure!(!all.contains("\"request\""), "nothing waits: {all}");

    // A key that others can read is to be replaced, and so is asked for.
    let client = tree.root().join("etc/kubernetes/pki/kubelet-client.pem");
    fs::set_permissions(&client, fs::Permissions::from_mode(0o644))?;
    let ran = tree.run(&["certs"])?;
    ensure!(ran.ended == Ok(1) && ran.told.contains("nodeagent certs csr"), "{:?} {}", ran.ended, ran.told);
    let made = tree.ok(&["certs", "csr"])?.out;
    ensure!(made.lines().eq([path(&offline(&tree).join("kubelet-client.csr"))?]), "{made}");
    // What nothing waits for any more goes.
    fs::set_permissions(&client, fs::Permissions::from_mode(0o600))?;
    let before = fs::read(&client)?;
    let over =
        format!("destroy {dir}/kubelet-client.csr and its key, for which nothing waits any more: nodeagent certs");
    shows(&tree, "kubelet-client", &over)?;
    tree.ok(&["certs"])?;
    ensure!(fs::read_dir(offline(&tree))?.next().is_none() && fs::read(&client)? == before, "they were left");
    Ok(())
}

/// `certs show` must say of the pair, to people and to programs, that this is to be done next, and where its request is.
fn shows(tree: &Tree<'_>, name: &str, next: &str) -> Result<()> {
    let pki = "/etc/kubernetes/pki";
    let text = tree.ok(&["certs", "show"])?.out;
    let paragraph = text.split("\n\n").find(|lines| lines.starts_with(&format!("{pki}/{name}.pem: ")));
    let paragraph = paragraph.with_context(|| format!("no {name}: {text}"))?;
    ensure!(paragraph.lines().any(|line| line == format!("  next: {next}")), "it does not say {next:?}: {paragraph}");
    let json: serde_json::Value = serde_json::from_str(&tree.ok(&["certs", "show", "-o", "json"])?.out)?;
    let row = json.as_array().into_iter().flatten().find(|row| row["file"] == format!("{pki}/{name}.pem"));
    let want = serde_json::json!({
        "file": format!("{pki}/offline/{name}.csr"),
        "certificate": format!("{pki}/offline/{name}.pem"),
        "next": next,
    });
    ensure!(row.is_some_and(|row| row["request"] == want), "{row:?}");
    Ok(())
}

#[test]
fn nothing_is_signed_that_no_node_asks_for() -> Result<()> {
    let world = World::new()?;
    let tree = world.copy(&world.start())?;
    let ca = make_ca(&tree, &EC)?;
    let files = scratch()?;
    let dir = files.path();
    let request = |name: &str, subject: &str| -> Result<PathBuf> {
        let file = dir.join(name);
        let key = dir.join("key.pem");
        let mut args = vec!["req", "-new", "-nodes", "-subj", subject, "-keyout", path(&key)?, "-out", path(&file)?];
        args.extend(EC);
        openssl(&args)?;
        Ok(file)
    };
    let good = request("good.csr", "/O=system:nodes/CN=system:node:worker-01")?;
    let masters = request("masters.csr", "/O=system:masters/CN=admin")?;
    let torn = dir.join("torn.csr");
    fs::write(&torn, &fs::read(&good)?[..100])?;
    fs::create_dir(dir.join("b"))?;
    let other = dir.join("b/good.csr");
    fs::copy(&good, &other)?;
    let to = [Path::new("--to"), dir];
    let table: [(&[&Path], i32, &str); 4] = [
        (&[&good, &masters], 4, "O=system:masters, CN=admin is not what a node asks for"),
        (&[&good, &torn], 4, "torn.csr: it holds no readable certificate request"),
        (&[&good, &other, to[0], to[1]], 2, "good.pem would hold the certificates of two requests"),
        (&[&dir.join("absent.csr")], 2, "absent.csr: there is no such file"),
    ];
    for (args, code, says) in table {
        let output = sign(&ca, args)?;
        let told = text(&output.stderr);
        ensure!(output.status.code() == Some(code) && told.contains(says), "{args:?}: {} {told}", output.status);
        ensure!(!dir.join("good.pem").exists(), "{args:?}: one was signed before the others were judged");
    }
    let another = world.copy(&world.start())?;
    let (_, foreign) = make_ca(&another, &EC)?;
    let output = sign(&(ca.0, foreign), &[&good])?;
    let told = text(&output.stderr);
    ensure!(output.status.code() == Some(4) && told.contains("the key is not that of"), "{} {told}", output.status);
    Ok(())
}
