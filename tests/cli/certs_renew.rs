//! `certs renew` on file trees: what it leaves alone, what it says when it fails, and what undoing makes of it.

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::PathBuf,
    process::Command,
};

use anyhow::{Context as _, Result, ensure};
use nodeagent::host::facts::Facts;

use crate::certs::{make_ca, sign_locally};
use crate::world::{Ran, Tree, World, agent};

/// Asks for other keys, so that every pair is to be made anew.
const ANEW: &str = "pki: { key: rsa-2048 }\n";

fn wish(tree: &Tree<'_>, file: &str, yaml: &str) -> Result<()> {
    let dir = tree.root().join("etc/nodeagent/node.d");
    fs::create_dir_all(&dir)?;
    fs::write(dir.join(file), yaml).context("write a drop-in")
}

fn client(tree: &Tree<'_>) -> PathBuf {
    tree.root().join("etc/kubernetes/pki/kubelet-client.pem")
}

#[test]
fn without_a_key_to_renew_with_it_says_so_once_and_for_how_long_the_pairs_work() -> Result<()> {
    let world = World::new()?;
    let tree = world.copy(&world.start())?;
    let (_, private) = make_ca(&tree, &["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"])?;
    sign_locally(&tree, &private, ", removeAfterUse: true")?;
    let plan = tree.ok(&["certs", "--dry-run"])?.out;
    ensure!(plan.contains("until it is put back, nothing renews them"), "{plan}");
    tree.ok(&["certs"])?;
    let ran = tree.ok(&["certs", "renew"])?;
    ensure!(ran.told.contains("renew: nothing to do") && !ran.told.contains("not renewed"), "{}", ran.told);

    wish(&tree, "10.yaml", ANEW)?;
    let before = fs::read(client(&tree))?;
    let ran = tree.run(&["certs", "renew"])?;
    // Whether the second since the CA was made is over already.
    let told = ran.told.replace("30 days left", "29 days left");
    ensure!(ran.ended == Ok(1), "{:?} {told}", ran.ended);
    let pki = "/etc/kubernetes/pki";
    let left = format!(
        "not renewed, and still in use as they are: {pki}/kubelet-client.pem (29 days left), {pki}/kubelet-server.pem \
         (29 days left), {pki}/kube-proxy-client.pem (29 days left)\n"
    );
    ensure!(told.contains(&left) && told.matches("not renewed").count() == 1, "{told}");
    ensure!(told.contains("removeAfterUse had it destroyed: put it back"), "{told}");
    ensure!(fs::read(client(&tree))? == before, "the old pair was touched");

    let key = tree.root().join("etc/kubernetes/pki/ca-key.pem");
    fs::copy(&private, &key)?;
    tree.ok(&["certs", "renew"])?;
    ensure!(fs::read(client(&tree))? != before && !key.exists(), "renewed, and the key is gone again");
    Ok(())
}

/// A worker whose pairs stand and cannot be made anew, for want of the CA's key.
fn cannot_renew(world: &World) -> Result<Tree<'_>> {
    let tree = world.copy(&world.start())?;
    let (_, private) = make_ca(&tree, &["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"])?;
    sign_locally(&tree, &private, ", removeAfterUse: true")?;
    wish(&tree, "05.yaml", "pki: { extra: { ingress: { commonName: ingress, usages: [client] } } }\n")?;
    tree.ok(&["certs"])?;
    wish(&tree, "10.yaml", ANEW)?;
    Ok(tree)
}

/// The one line in which a failed renewal says what it leaves, without the directory of the pairs.
fn left(ran: &Ran) -> Result<String> {
    let lines: Vec<&str> = ran.told.lines().filter(|line| line.contains("not renewed")).collect();
    ensure!(lines.len() == 1 && ran.ended != Ok(0), "{:?} {}", ran.ended, ran.told);
    // Whether the second since the CA was made is over already.
    let line = lines[0].replace("30 days left", "29 days left").replace("/etc/kubernetes/pki/", "");
    Ok(line[line.find("not renewed").context("what is not renewed")?..].to_owned())
}

const ALL_LEFT: &str = "not renewed, and still in use as they are: ingress.pem (29 days left), kubelet-client.pem (29 days \
                        left), kubelet-server.pem (29 days left), kube-proxy-client.pem (29 days left)";

fn sorted(line: &str) -> Vec<String> {
    let (_, pairs) = line.split_once(": ").unwrap_or_default();
    let mut pairs: Vec<String> = pairs.split(", ").map(str::to_owned).collect();
    pairs.sort();
    pairs
}

#[test]
fn a_failed_renewal_tells_of_every_pair_that_it_leaves() -> Result<()> {
    let world = World::new()?;
    let tree = cannot_renew(&world)?;
    let pki = tree.root().join("etc/kubernetes/pki");
    let told = left(&tree.run(&["certs", "renew"])?)?;
    ensure!(sorted(&told) == sorted(ALL_LEFT), "one that no unit reads is among them: {told}");

    fs::remove_file(pki.join("kubelet-server.pem"))?;
    fs::remove_file(pki.join("kube-proxy-client.pem"))?;
    symlink("elsewhere.pem", pki.join("kube-proxy-client.pem"))?;
    let told = left(&tree.run(&["certs", "renew"])?)?;
    let (old, without) = told.split_once("; ").context("two kinds")?;
    ensure!(old.contains("kubelet-client.pem (29 days left)") && old.contains("ingress.pem (29 days left)"), "{told}");
    let says = "not renewed either: kubelet-server.pem (there is no pair), kube-proxy-client.pem (a link to elsewhere.pem is where a \
                file should be)";
    ensure!(without == says, "{told}");

    // A key that others could read is to be replaced, and nothing else is wrong with its pair.
    let others = world.copy(&world.start())?;
    let (_, private) = make_ca(&others, &["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"])?;
    sign_locally(&others, &private, ", removeAfterUse: true")?;
    others.ok(&["certs"])?;
    fs::set_permissions(client(&others), fs::Permissions::from_mode(0o644))?;
    let told = left(&others.run(&["certs", "renew"])?)?;
    ensure!(told == "not renewed, and still in use as they are: kubelet-client.pem (29 days left)", "{told}");

    for pair in ["ingress.pem", "kubelet-client.pem"] {
        fs::write(pki.join(pair), "garbage")?;
    }
    let told = left(&tree.run(&["certs", "renew"])?)?;
    ensure!(
        !told.contains("in use") && told.contains("kubelet-client.pem (it holds no readable certificate)"),
        "{told}"
    );
    Ok(())
}

#[test]
fn without_settings_or_an_address_a_renewal_tells_of_all_that_stands() -> Result<()> {
    let world = World::new()?;
    let tree = cannot_renew(&world)?;
    let facts = tree.beside("no-address.json");
    let mut nowhere = Facts::sample();
    nowhere.links.iter_mut().for_each(|link| link.addresses.clear());
    nowhere.routes.clear();
    nowhere.default_routes.clear();
    fs::write(&facts, serde_json::to_vec(&nowhere)?)?;
    let mut command = Command::new(agent());
    command.args(["certs", "renew", "--root"]).arg(tree.root()).arg("--facts").arg(&facts).env_clear();
    let output = command.output().context("run the agent")?;
    let told = String::from_utf8(output.stderr)?;
    let ran = Ran { ended: output.status.code().ok_or(0), out: String::new(), told };
    ensure!(ran.told.contains("address"), "{}", ran.told);
    ensure!(sorted(&left(&ran)?) == sorted(ALL_LEFT), "{}", ran.told);

    wish(&tree, "99.yaml", "pki: { nosuchkey: true }\n")?;
    let ran = tree.run(&["certs", "renew"])?;
    ensure!(ran.ended == Ok(2) && ran.told.contains("nosuchkey"), "{:?} {}", ran.ended, ran.told);
    ensure!(sorted(&left(&ran)?) == sorted(ALL_LEFT), "{}", ran.told);

    let bare = world.copy(&world.start())?;
    wish(&bare, "99.yaml", "pki: { nosuchkey: true }\n")?;
    ensure!(left(&bare.run(&["certs", "renew"])?)? == "not renewed: no pair of this node's is known");
    Ok(())
}

#[test]
fn a_rollback_undoes_the_bootstrap_before_a_renewal_and_holds_the_next_one() -> Result<()> {
    let world = World::new()?;
    let tree = world.copy(&world.start())?;
    let drop_in = tree.root().join("etc/systemd/system/containerd.service.d/90-nodeagent.conf");
    for files in ["1000", "2000"] {
        wish(&tree, "10.yaml", &format!("limits: {{ containerd.service: {{ LimitNOFILE: {files} }} }}\n"))?;
        tree.ok(&["bootstrap"])?;
    }
    wish(&tree, "20.yaml", ANEW)?;
    let old = fs::read(client(&tree))?;
    tree.ok(&["certs", "renew"])?;
    let renewed = fs::read(client(&tree))?;
    ensure!(renewed != old, "it was renewed");

    let undone = tree.ok(&["rollback"])?.out;
    ensure!(fs::read_to_string(&drop_in)?.contains("LimitNOFILE=1000"), "the second bootstrap was undone: {undone}");
    ensure!(fs::read(client(&tree))? == renewed && undone.contains("3 kept"), "pairs stay: {undone}");
    fs::remove_file(client(&tree))?;
    let ran = tree.ok(&["certs", "renew"])?;
    ensure!(ran.told.contains("holds this node") && !client(&tree).exists(), "{}", ran.told);
    Ok(())
}

#[test]
fn the_renewals_unit_may_write_where_the_pairs_are() -> Result<()> {
    let world = World::new()?;
    let tree = world.copy(&world.start())?;
    let drop_in = tree.root().join("etc/systemd/system/nodeagent-renew.service.d/90-nodeagent.conf");
    tree.ok(&["units"])?;
    ensure!(!drop_in.exists(), "its own unit file allows the default directory");
    wish(&tree, "10.yaml", "pki: { dir: \"/srv/my keys/100%\" }\n")?;
    tree.ok(&["units"])?;
    let text = fs::read_to_string(&drop_in)?;
    ensure!(text.ends_with("[Service]\nReadWritePaths=\"-/srv/my keys/100%%\"\n"), "{text}");
    Ok(())
}
