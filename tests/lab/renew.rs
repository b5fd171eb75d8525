//! Renewal on a real node: by its timer, under a real signer that fails and comes back.

use anyhow::{Context, Result, ensure};

use crate::agent::{AGENT, agent, on_each};
use crate::harness::Node;

const SERVICE: &str = "nodeagent-renew.service";
const TIMER: &str = "nodeagent-renew.timer";
const CLIENT: &str = "/etc/kubernetes/pki/kubelet-client.pem";
const SERVER: &str = "/etc/kubernetes/pki/kubelet-server.pem";
const PROXY: &str = "/etc/kubernetes/pki/kube-proxy-client.pem";

/// The event that says that certificates are still the old ones (docs/journal.md).
const NOT_RENEWED: &str = "MESSAGE_ID=78cff39b56c3409c914e1aeeb2904d23";

/// The timer as a test can wait for it.
const OFTEN: &str = "[Timer]\nOnCalendar=\nOnCalendar=*:*:0/5\nAccuracySec=100ms\nRandomizedDelaySec=0\n";

/// Which invocations of the kubelet and of kube-proxy run.
fn runs(node: &Node<'_>) -> Result<(String, String)> {
    Ok((node.property("kubelet.service", "InvocationID")?, node.property("kube-proxy.service", "InvocationID")?))
}

/// Starts the renewal as its timer does, waits for its end, and returns its result and what it said.
fn renew(node: &Node<'_>) -> Result<(String, String)> {
    // It fails when the renewal does, which is the caller's to judge.
    node.run_within(AGENT, &["systemctl", "start", SERVICE])?;
    let invocation = format!("_SYSTEMD_INVOCATION_ID={}", node.property(SERVICE, "InvocationID")?);
    node.ok(&["journalctl", "--sync"])?;
    let said = node.ok(&["journalctl", "--no-pager", "--output=cat", &invocation])?;
    Ok((node.property(SERVICE, "Result")?, said))
}

#[test]
fn certificates_are_renewed_and_a_signer_that_fails_leaves_the_old_ones() -> Result<()> {
    on_each("renew", |lab, node| {
        assert_eq!(node.property(TIMER, "ActiveState")?, "active");
        assert_eq!(node.property(TIMER, "UnitFileState")?, "enabled");
        // Looking is not renewing.
        let (first, began) = (node.read(CLIENT)?, runs(node)?);
        let (result, said) = renew(node)?;
        assert!(result == "success" && said.contains("renew: nothing to do"), "{result}: {said}");

        // Clients' certificates of minutes, which the timer finds when less than a third of them is left.
        node.write("/etc/nodeagent/node.d/20-test.yaml", b"pki: { signer: { cfssl: { profile: brief } } }\n")?;
        node.ok(&["rm", CLIENT, PROXY])?;
        let (result, said) = renew(node)?;
        assert_eq!(result, "success", "{said}");
        let brief = (node.read(CLIENT)?, node.read(PROXY)?);
        assert_ne!(brief.0, first);
        node.write(&format!("/etc/systemd/system/{TIMER}.d/95-test.conf"), OFTEN.as_bytes())?;
        node.ok(&["systemctl", "daemon-reload"])?;
        node.ok(&["systemctl", "restart", TIMER])?;
        node.wait_until("the timer to renew both", AGENT, |node| {
            ensure!(node.read(CLIENT)? != brief.0 && node.read(PROXY)? != brief.1, "they are the old ones");
            Ok(())
        })?;
        node.ok(&["systemctl", "stop", TIMER])?;
        node.wait_until("the last renewal's end", AGENT, |node| {
            let state = node.property(SERVICE, "ActiveState")?;
            ensure!(state == "inactive", "it is {state}");
            Ok(())
        })?;
        for (pair, purpose) in [(CLIENT, "sslclient"), (PROXY, "sslclient"), (SERVER, "sslserver")] {
            judge(node, pair, purpose)?;
        }
        assert_ne!(public_key(node, CLIENT)?, public_key_of(node, &brief.0)?, "a new certificate has a new key");
        assert_eq!(node.ok(&["stat", "--format=%a %U:%G", CLIENT])?.trim(), "600 root:root");
        assert_eq!(runs(node)?, began, "clients read their new pairs by themselves");
        node.ok(&["rm", "/etc/nodeagent/node.d/20-test.yaml"])?;

        // A serving pair that is not for this node, and nobody who would sign another.
        node.ok(&["cp", CLIENT, SERVER])?;
        let wrong = node.read(SERVER)?;
        node.ok(&["ip", "route", "add", "prohibit", "10.10.30.1/32"])?;
        let (result, said) = renew(node)?;
        node.ok(&["ip", "route", "del", "prohibit", "10.10.30.1/32"])?;
        assert_eq!(result, "exit-code", "{said}");
        assert!(said.contains("certs/kubelet-server: ") && said.contains(&lab.signer.url), "{said}");
        assert_eq!(node.read(SERVER)?, wrong, "what was there stays");
        assert_eq!(runs(node)?, began, "nothing was restarted for nothing");
        let shouts = node.journal(&[NOT_RENEWED])?;
        let shout = shouts.last().context("an event of its own")?;
        let field = |name: &str| shout.get(name).and_then(serde_json::Value::as_str).unwrap_or_default();
        assert!(field("MESSAGE").contains(&format!("{SERVER} (less than a day left)")), "{shout}");
        assert_eq!((field("PRIORITY"), field("NODEAGENT_STEP")), ("3", "certs"), "{shout}");

        // The signer is back. The kubelet has to be told of what it serves with; kube-proxy is none of that.
        let (result, said) = renew(node)?;
        assert_eq!(result, "success", "{said}");
        judge(node, SERVER, "sslserver")?;
        let now = runs(node)?;
        assert!(now.0 != began.0 && now.1 == began.1, "{began:?}, then {now:?}");

        // What is embedded in the kubeconfigs has to be read anew by both.
        let ca = node.read("/etc/kubernetes/pki/ca.pem")?;
        node.write("/etc/kubernetes/pki/ca.pem", &[ca.as_slice(), b"\n", &ca].concat())?;
        let (result, said) = renew(node)?;
        assert_eq!(result, "success", "{said}");
        let after = runs(node)?;
        assert!(after.0 != now.0 && after.1 != now.1, "{now:?}, then {after:?}");

        // A node that was taken down stays down.
        let (code, undone, told) = agent(node, &["uninstall"])?;
        assert_eq!(code, 0, "{undone}{told}");
        assert_eq!(node.property(TIMER, "LoadState")?, "not-found");
        node.ok(&["rm", SERVER])?;
        let (code, _, told) = agent(node, &["certs", "renew"])?;
        assert!(code == 0 && told.contains("holds this node") && !node.exists(SERVER), "{told}");
        Ok(())
    })
}

/// The pair passes openssl's strict judgement.
fn judge(node: &Node<'_>, pair: &str, purpose: &str) -> Result<()> {
    let ca = "/etc/kubernetes/pki/ca.pem";
    node.ok(&["openssl", "verify", "-x509_strict", "-purpose", purpose, "-CAfile", ca, pair])?;
    Ok(())
}

fn public_key(node: &Node<'_>, path: &str) -> Result<String> {
    node.ok(&["openssl", "x509", "-in", path, "-noout", "-pubkey"])
}

fn public_key_of(node: &Node<'_>, pem: &[u8]) -> Result<String> {
    node.write("/root/old.pem", pem)?;
    public_key(node, "/root/old.pem")
}
