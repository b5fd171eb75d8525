//! Keys and certificates, judged by the `openssl` program and not by our own code.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};

use crate::world::{Tree, World, agent, need, scratch};

/// Each pair of a worker, what it is for in the words of `openssl verify`, and its subject.
pub const PAIRS: [(&str, &str, &str); 3] = [
    ("kubelet-client", "sslclient", "O = system:nodes, CN = system:node:worker-01"),
    ("kubelet-server", "sslserver", "O = system:nodes, CN = system:node:worker-01"),
    ("kube-proxy-client", "sslclient", "CN = system:kube-proxy"),
];

/// What openssl shows of their extensions under an ECDSA key. RSA adds key encipherment.
pub const EXTENSIONS: &str = "\
kubelet-client:
  X509v3 Basic Constraints: critical
  CA:FALSE
  X509v3 Key Usage: critical
  Digital Signature
  X509v3 Extended Key Usage:
  TLS Web Client Authentication
  X509v3 Subject Key Identifier:
  (20 bytes)
  X509v3 Authority Key Identifier:
  (20 bytes)
kubelet-server:
  X509v3 Basic Constraints: critical
  CA:FALSE
  X509v3 Key Usage: critical
  Digital Signature
  X509v3 Extended Key Usage:
  TLS Web Server Authentication
  X509v3 Subject Key Identifier:
  (20 bytes)
  X509v3 Authority Key Identifier:
  (20 bytes)
  X509v3 Subject Alternative Name:
  DNS:worker-01, IP Address:10.10.30.21
kube-proxy-client:
  X509v3 Basic Constraints: critical
  CA:FALSE
  X509v3 Key Usage: critical
  Digital Signature
  X509v3 Extended Key Usage:
  TLS Web Client Authentication
  X509v3 Subject Key Identifier:
  (20 bytes)
  X509v3 Authority Key Identifier:
  (20 bytes)
";

/// Runs openssl, which must succeed, and returns what it printed.
pub fn openssl(args: &[&str]) -> Result<String> {
    need("openssl", "openssl")?;
    let output = Command::new("openssl").args(args).output().context("run openssl")?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.success(), "openssl {args:?}: {said}");
    Ok(String::from_utf8(output.stdout)?)
}

/// A CA in a directory of the tree's own, made by openssl as an operator would: certificate and key.
///
/// Its name has two parts of one kind, as Active Directory names its CAs.
pub fn make_ca(tree: &Tree<'_>, key: &[&str]) -> Result<(PathBuf, PathBuf)> {
    let (certificate, private) = (tree.root().join("etc/kubernetes/pki/ca.pem"), tree.beside("ca-key.pem"));
    let mut args = vec!["req", "-x509", "-nodes", "-days", "30", "-subj", "/DC=com/DC=example/O=Lab & Sons/CN=lab CA"];
    args.extend(["-addext", "keyUsage=critical,keyCertSign,cRLSign", "-addext", "basicConstraints=critical,CA:TRUE"]);
    args.extend(key);
    args.extend(["-keyout", path(&private)?, "-out", path(&certificate)?]);
    openssl(&args)?;
    Ok((certificate, private))
}

pub fn path(path: &Path) -> Result<&str> {
    path.to_str().context("a path in UTF-8")
}

/// The tree's worker has its certificates signed by a key in the tree.
pub fn sign_locally(tree: &Tree<'_>, key: &Path, more: &str) -> Result<()> {
    let there = tree.root().join("etc/kubernetes/pki/ca-key.pem");
    fs::copy(key, there)?;
    choose(tree, &format!("local: {{ key: /etc/kubernetes/pki/ca-key.pem{more} }}"))
}

/// The tree's worker has its certificates from this signer.
pub fn choose(tree: &Tree<'_>, signer: &str) -> Result<()> {
    let yaml = tree.root().join("etc/nodeagent/node.yaml");
    let text = fs::read_to_string(&yaml)?;
    let (before, _) = text.split_once("  signer:").context("the sample has a signer")?;
    fs::write(&yaml, format!("{before}  signer: {{ {signer} }}\n")).context("write node.yaml")
}

#[test]
fn what_the_cas_key_signs_here_passes_openssls_strict_judgement() -> Result<()> {
    let world = World::new()?;
    let ec = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"];
    let rsa = ["-newkey", "rsa:2048"];
    for (ca_key, node_key, kind) in [
        (&ec[..], "ecdsa-p256", "ASN1 OID: prime256v1"),
        (&rsa[..], "ecdsa-p256", "ASN1 OID: prime256v1"),
        (&ec[..], "rsa-2048", "Public-Key: (2048 bit)"),
        (&ec[..], "rsa-4096", "Public-Key: (4096 bit)"),
    ] {
        let tree = world.copy(&world.start())?;
        let (ca, private) = make_ca(&tree, ca_key)?;
        sign_locally(&tree, &private, "")?;
        let yaml = tree.root().join("etc/nodeagent/node.yaml");
        fs::write(&yaml, fs::read_to_string(&yaml)?.replace("pki:\n", &format!("pki:\n  key: {node_key}\n")))?;
        let ran = tree.ok(&["certs"])?;
        ensure!(ran.told.contains("can sign a cluster administrator"), "a worker is warned: {}", ran.told);

        let (mut shown, mut serials) = (String::new(), BTreeSet::new());
        for (name, purpose, subject) in PAIRS {
            let pair = tree.root().join(format!("etc/kubernetes/pki/{name}.pem"));
            let pair = path(&pair)?;
            openssl(&["verify", "-x509_strict", "-purpose", purpose, "-CAfile", path(&ca)?, pair])
                .with_context(|| format!("{name} of {ca_key:?} and {node_key}"))?;
            let text = openssl(&["x509", "-in", pair, "-noout", "-subject", "-issuer", "-text"])?;
            ensure!(text.contains(&format!("subject={subject}")), "{name}: {text}");
            ensure!(text.contains("issuer=DC = com, DC = example, O = Lab & Sons, CN = lab CA"), "{name}: {text}");
            ensure!(text.contains(kind), "{name} is of another kind than {kind}: {text}");
            let key = openssl(&["pkey", "-in", pair, "-pubout"])?;
            ensure!(key == openssl(&["x509", "-in", pair, "-noout", "-pubkey"])?, "{name}: the key is another's");
            serials.insert(openssl(&["x509", "-in", pair, "-noout", "-serial"])?);
            shown.push_str(&extensions(name, &text));
        }
        ensure!(serials.len() == PAIRS.len(), "no two certificates of a CA have one serial: {serials:?}");
        if node_key == "ecdsa-p256" {
            ensure!(shown == EXTENSIONS, "{shown}");
        }
        let again = tree.ok(&["certs"])?;
        ensure!(again.told.contains("nothing to do"), "it was done: {}", again.told);
    }
    Ok(())
}

/// The names and values of a certificate's extensions, but for those that differ each time.
pub fn extensions(name: &str, text: &str) -> String {
    let lines = text.lines().skip_while(|line| !line.contains("X509v3 extensions")).skip(1);
    let lines = lines.take_while(|line| !line.contains("Signature Algorithm")).map(str::trim);
    let is_identifier = |line: &str| line.len() > 40 && line.chars().all(|c| c.is_ascii_hexdigit() || c == ':');
    let lines = lines.map(|line| if is_identifier(line) { "(20 bytes)" } else { line });
    format!("{name}:\n  {}\n", lines.collect::<Vec<_>>().join("\n  "))
}

#[test]
fn a_node_shows_its_certificates_and_what_is_wrong_with_them() -> Result<()> {
    let world = World::new()?;
    let tree = world.copy(&world.start())?;
    let (ca, private) = make_ca(&tree, &["-newkey", "rsa:2048"])?;
    sign_locally(&tree, &private, "")?;
    let before = tree.ok(&["certs", "show"])?.out;
    ensure!(before.contains("/etc/kubernetes/pki/kubelet-server.pem: there is no pair\n"), "{before}");

    tree.ok(&["certs"])?;
    let pki = tree.root().join("etc/kubernetes/pki");
    fs::copy(pki.join("kubelet-client.pem"), pki.join("kubelet-server.pem"))?;
    fs::copy(&ca, pki.join("old.crt"))?;
    // Whether the second since the CA was made is over already.
    let shown = tree.ok(&["certs", "show"])?.out.replace("30 days left", "29 days left");
    for line in [
        "/etc/kubernetes/pki/ca.pem: good, 29 days left\n  the cluster's CA, read by kubelet.service\n  \
         in /etc/kubernetes/kubelet.conf, /etc/kubernetes/kube-proxy.conf\n  DC=com, DC=example, O=Lab & Sons, CN=lab CA\n",
        "/etc/kubernetes/pki/kubelet-client.pem: good, 29 days left\n  kubelet's client certificate, read by kubelet.service\n",
        "/etc/kubernetes/pki/kubelet-server.pem: it is for the names [], not [10.10.30.21, worker-01]; it lacks the usage \"server auth\", 29 days left\n",
        "  CN=system:kube-proxy, ecdsa-p256\n  signed by DC=com, DC=example, O=Lab & Sons, CN=lab CA, until ",
        "/etc/kubernetes/pki/old.crt: good, 29 days left\n  nothing that this role needs\n",
    ] {
        ensure!(shown.contains(line), "it does not say {line:?}:\n{shown}");
    }
    let json: serde_json::Value = serde_json::from_str(&tree.ok(&["certs", "show", "-o", "json"])?.out)?;
    let of = |name: &str| {
        let rows = json.as_array().into_iter().flatten();
        rows.into_iter().find(|row| row["file"].as_str().is_some_and(|file| file.ends_with(name))).cloned()
    };
    let server = of("kubelet-server.pem").context("a row")?;
    ensure!(server["flaws"].as_array().is_some_and(|flaws| flaws.len() == 2), "{server}");
    ensure!(
        server["daysLeft"].as_i64().is_some_and(|days| (29..=30).contains(&days))
            && server["readBy"][0] == "kubelet.service"
            && server["kind"] == "pair",
        "{server}"
    );
    let client = of("kubelet-client.pem").context("a row")?;
    ensure!(client["kubeconfigs"] == serde_json::json!(["/etc/kubernetes/kubelet.conf"]), "{client}");

    // What the next run would replace is not good, and what cannot be read is told beside the rest.
    fs::set_permissions(pki.join("kubelet-client.pem"), fs::Permissions::from_mode(0o644))?;
    fs::remove_file(pki.join("kube-proxy-client.pem"))?;
    std::os::unix::fs::symlink("kubelet-client.pem", pki.join("kube-proxy-client.pem"))?;
    let shown = tree.ok(&["certs", "show"])?.out;
    for line in [
        "kubelet-client.pem: others can read its key: mode and owner 0644 0:0, not 0600 0:0, ",
        "kube-proxy-client.pem: a link to kubelet-client.pem is where a file should be\n",
        "old.crt: good, ",
    ] {
        ensure!(shown.contains(line), "it does not say {line:?}:\n{shown}");
    }
    Ok(())
}

#[test]
fn the_cas_key_is_destroyed_after_use_and_its_copies_are_named() -> Result<()> {
    let world = World::new()?;
    let tree = world.copy(&world.start())?;
    let (_, private) = make_ca(&tree, &["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"])?;
    sign_locally(&tree, &private, ", removeAfterUse: true")?;
    let key = tree.root().join("etc/kubernetes/pki/ca-key.pem");
    let plan = tree.ok(&["certs", "--dry-run"])?;
    ensure!(plan.out.contains("destroyed once the certificates stand"), "{}", plan.out);
    let ran = tree.ok(&["certs"])?;
    ensure!(!key.exists(), "the key is still there");
    ensure!(!ran.told.contains("administrator"), "there is nothing left to warn of: {}", ran.told);
    tree.ok(&["certs"])?;

    // cloud-init keeps what it was given, of every instance, in its own indentation; Ignition keeps its file.
    let cloud = tree.root().join("var/lib/cloud");
    fs::create_dir_all(cloud.join("instances/i-0"))?;
    symlink("instances/i-0", cloud.join("instance"))?;
    let user_data = cloud.join("instances/i-0/user-data.txt");
    let text = fs::read_to_string(&private)?;
    let indented = text.replace('\n', "\n      ");
    fs::write(&user_data, format!("#cloud-config\nwrite_files:\n  - path: /x\n    content: |\n      {indented}\n"))?;
    let ignition = tree.root().join("oem/config.ign");
    fs::create_dir_all(tree.root().join("oem"))?;
    let source = format!("data:,{}", text.replace('\n', "%0A").replace(' ', "%20").replace('+', "%2B"));
    fs::write(
        &ignition,
        serde_json::json!({ "storage": { "files": [{ "contents": { "source": source } }] } }).to_string(),
    )?;
    let ran = tree.run(&["certs"])?;
    ensure!(ran.ended == Ok(1), "{:?} {}", ran.ended, ran.told);
    for says in [
        "/var/lib/cloud/instance/user-data.txt: holds the CA's private key (also in /oem/config.ign): ",
        "; take the key out of the machine's user-data, and remove these copies",
    ] {
        ensure!(ran.told.contains(says), "it does not say {says:?}: {}", ran.told);
    }

    // What is too large to be looked into is not clean.
    fs::remove_file(&user_data)?;
    fs::File::create(&ignition)?.set_len((16 << 20) + 1)?;
    let ran = tree.run(&["certs"])?;
    ensure!(ran.ended == Ok(1), "{:?} {}", ran.ended, ran.told);
    let says = "user-data: could not look into /oem/config.ign: it is larger than 16 MiB";
    ensure!(ran.told.contains(says), "{}", ran.told);
    fs::remove_file(&ignition)?;
    tree.ok(&["certs"])?;

    // Undoing brings no secret back.
    tree.ok(&["uninstall", "--purge"])?;
    ensure!(!key.exists(), "a destroyed secret came back");
    Ok(())
}

#[test]
fn a_ca_for_a_cluster_is_made_once_and_its_key_is_the_operators_alone() -> Result<()> {
    let files = scratch()?;
    let dir = path(files.path())?;
    let certs = |args: &[&str]| Command::new(agent()).args(["certs", "ca", dir]).args(args).output();
    for (args, kind) in [(&["--etcd", "--front-proxy"][..], "prime256v1"), (&["--key", "rsa-2048"], "(2048 bit)")] {
        let output = certs(args)?;
        ensure!(output.status.success(), "{output:?}");
        let made: Vec<PathBuf> = String::from_utf8(output.stdout)?.lines().map(PathBuf::from).collect();
        ensure!(made.len() == if args.len() == 2 && args[0] == "--etcd" { 6 } else { 2 }, "{made:?}");
        for pair in made.chunks(2) {
            let (certificate, key) = (path(&pair[0])?, path(&pair[1])?);
            openssl(&["verify", "-x509_strict", "-check_ss_sig", "-CAfile", certificate, certificate])?;
            let text = openssl(&["x509", "-in", certificate, "-noout", "-text"])?;
            for says in ["CA:TRUE, pathlen:0", "Basic Constraints: critical", "Key Usage: critical", kind] {
                ensure!(text.contains(says), "{certificate} does not say {says}: {text}");
            }
            ensure!(
                openssl(&["pkey", "-in", key, "-pubout"])?
                    == openssl(&["x509", "-in", certificate, "-noout", "-pubkey"])?,
                "{key} is another's"
            );
            let bits = fs::metadata(key)?.permissions().mode() & 0o7777;
            ensure!(bits == 0o600, "{key} has mode {bits:04o}");
        }
        let again = certs(args)?;
        ensure!(again.status.code() == Some(2), "{again:?}");
        let told = String::from_utf8_lossy(&again.stderr).into_owned();
        ensure!(told.contains("ca-key.pem: there is something already"), "{told}");
        // A run that was killed between the two is finished by the next, with the key that it has made.
        let (certificate, key) = (&made[0], &made[1]);
        let before = fs::read(key)?;
        fs::remove_file(certificate)?;
        let finished = certs(args)?;
        ensure!(finished.status.success() && fs::read(key)? == before, "{finished:?}");
        ensure!(String::from_utf8(finished.stdout)?.lines().eq([path(certificate)?, path(key)?]), "it made more");
        openssl(&["verify", "-x509_strict", "-CAfile", path(certificate)?, path(certificate)?])?;
        for file in made {
            fs::remove_file(file)?;
        }
    }
    Ok(())
}
