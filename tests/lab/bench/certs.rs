//! A worker's certificates under a CA's key in a file, beside the three openssl commands that people run for one pair.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
    time::Instant,
};

use anyhow::{Context, Result, ensure};
use nodeagent::host::facts::Facts;

use super::figures::{Table, Unit, interleaved};

/// Enough for a median; an RSA key takes the time that its primes take to be found.
const ROUNDS: usize = 100;

const NODE: &str = "\
apiVersion: nodeagent.io/v1alpha1
kind: NodeConfig
role: worker
cluster: { apiServer: 'https://10.10.30.11:6443' }
kubernetes: { version: v1.34.2, mirrors: ['https://mirror.invalid'], lock: { file: /etc/nodeagent/lock.json } }
pki: { ca: /etc/kubernetes/pki/ca.pem, signer: { local: { key: /etc/kubernetes/pki/ca-key.pem } } }
";

/// What the old script wrote before it ran openssl, and its commands, written for this bench.
const EXTENSIONS: &str = "[req]\nreq_extensions = v3_req\ndistinguished_name = name\n[name]\n[v3_req]\n\
    basicConstraints = CA:FALSE\nkeyUsage = nonRepudiation, digitalSignature, keyEncipherment\n\
    subjectAltName = IP:10.10.30.21\n";
const COMMANDS: &str = "openssl genrsa -out worker-key.pem 2048 && \
    openssl req -new -key worker-key.pem -out worker.csr -subj /CN=worker -config worker.cnf && \
    openssl x509 -req -in worker.csr -CA etc/kubernetes/pki/ca.pem -CAkey etc/kubernetes/pki/ca-key.pem \
    -CAcreateserial -out worker.pem -days 365 -extensions v3_req -extfile worker.cnf";

/// Prints the table of this topic.
pub fn bench(agent: &Path) -> Result<()> {
    let files = tempfile::tempdir()?;
    let root = files.path();
    let pki = root.join("etc/kubernetes/pki");
    for dir in [&pki, &root.join("etc/nodeagent/node.d")] {
        fs::create_dir_all(dir)?;
    }
    fs::write(root.join("etc/nodeagent/node.yaml"), NODE)?;
    fs::write(root.join("facts.json"), serde_json::to_vec(&Facts::sample())?)?;
    fs::write(root.join("worker.cnf"), EXTENSIONS)?;
    // The old CA was RSA, too.
    took(Command::new(agent).args(["certs", "ca", "--key", "rsa-2048"]).arg(&pki))?;
    let certs = |key: &str| {
        for pair in ["kubelet-client", "kubelet-server", "kube-proxy-client"] {
            let path = pki.join(format!("{pair}.pem"));
            if path.exists() {
                fs::remove_file(path)?;
            }
        }
        fs::write(root.join("etc/nodeagent/node.d/10.yaml"), format!("pki: {{ key: {key} }}\n"))?;
        let mut command = Command::new(agent);
        command.arg("certs").arg("--root").arg(root).arg("--facts").arg(root.join("facts.json"));
        took(&mut command)
    };
    let mut ec = || certs("ecdsa-p256");
    let mut rsa = || certs("rsa-2048");
    let mut by_hand = || took(Command::new("sh").args(["-c", COMMANDS]).current_dir(root));
    let samples = interleaved(ROUNDS, &mut [&mut ec, &mut rsa, &mut by_hand])?;
    let [ec, rsa, by_hand] = <[_; 3]>::try_from(samples).ok().context("three programs")?;
    Table::new("certs: a worker's keys and certificates, signed by an RSA key in a file", Unit::Time)
        .row("nodeagent certs: three pairs, ECDSA P-256 (checked, synced, recorded)", ec, "")
        .row("nodeagent certs: three pairs, RSA 2048", rsa, "")
        .row("openssl genrsa, req, x509: one pair, RSA 2048", by_hand, "")
        .print();
    Ok(())
}

/// Seconds that a command takes, which must succeed.
fn took(command: &mut Command) -> Result<f64> {
    command.stdin(Stdio::null());
    let started = Instant::now();
    let output = command.output().with_context(|| format!("run {command:?}"))?;
    let took = started.elapsed();
    ensure!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(took.as_secs_f64())
}
