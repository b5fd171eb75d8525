//! What `kubeadm join` is told: a `JoinConfiguration` with the bootstrap token, and the hash of the CA that it may trust.
//!
//! It is there only until the node has joined: the token is of no more use then, and no later run needs it.

use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::authority::Authority;
use super::check::exposed;
use super::discovery::hashes;
use super::signer::Token;
use crate::config::kubeadm::{CA, JOIN_CONFIG, JOINED, JOINING};
use crate::config::settings::{Join, Settings};
use crate::config::values::RootPath;
use crate::engine::change::{Body, Change, Meta};
use crate::engine::id::{Id, Step};
use crate::engine::resource::{CannotTell, Delta, Diff, Planned, Resource, Seen, Thing};
use crate::host::seen::Entry;

/// The errors of kubeadm's preflight checks by which a join that was not finished is in the way of the next one.
const LEFT_BEHIND: [&str; 3] =
    ["FileAvailable--etc-kubernetes-bootstrap-kubelet.conf", "FileAvailable--etc-kubernetes-pki-ca.crt", "Port-10250"];

/// What kubeadm is told where the agent has it join. `config` is all of it that is no secret.
pub fn plan(settings: &Settings, config: Value) -> Option<Planned> {
    let Join::ByToken { token_file } = &settings.kubeadm.join else { return None };
    Some(Planned {
        id: Id::new(Step::Certs, "kubeadm-join"),
        why: settings.origins.of("pki.signer"),
        owes: Vec::new(),
        what: Box::new(JoinConfig { config, token_file: token_file.clone(), ca: settings.certs.ca.clone() }),
    })
}

/// The file that `kubeadm join --config` reads.
struct JoinConfig {
    /// What depends on neither file.
    config: Value,
    /// The file of the token.
    token_file: RootPath,
    /// The CA's certificate.
    ca: RootPath,
}

impl JoinConfig {
    fn render(&self, seen: &Seen) -> Result<Zeroizing<Vec<u8>>, CannotTell> {
        let token = Token::read(&self.token_file, seen).map_err(|error| CannotTell::because(JOIN_CONFIG, &error))?;
        let ca = Authority::read(&self.ca, seen.bytes(&self.ca)?, seen.now()?)
            .map_err(|error| CannotTell::because(JOIN_CONFIG, &error))?;
        let pins: Vec<String> = hashes(ca.pem()).into_iter().map(|(hash, _)| hash).collect();
        let mut config = self.config.clone();
        if is_begun(seen, &pins)? {
            let ignored = &mut config["nodeRegistration"]["ignorePreflightErrors"];
            let given = ignored.as_array().into_iter().flatten().cloned();
            *ignored = given.chain(LEFT_BEHIND.map(Value::from)).collect();
        }
        config["discovery"]["bootstrapToken"]["caCertHashes"] = json!(pins);
        config["discovery"]["bootstrapToken"]["token"] = json!(token.text());
        Ok(Zeroizing::new(format!("{config:#}\n").into_bytes()))
    }
}

/// Whether an earlier join of this very cluster was begun here, and not finished: kubeadm then begins again, once it is told
/// that what it left is no obstacle. What another cluster's left is one.
fn is_begun(seen: &Seen, pins: &[String]) -> Result<bool, CannotTell> {
    let ca = RootPath::literal(CA);
    let Some(there) = seen.bytes(&ca)? else {
        return Ok(!matches!(seen.entry(&RootPath::literal(JOINING))?, Entry::Absent));
    };
    let found = hashes(there);
    // What has no certificate in it is what a power cut left of one.
    if found.is_empty() || found.iter().any(|(hash, _)| pins.contains(hash)) {
        return Ok(true);
    }
    let advice = "if this machine is to leave that cluster: kubeadm reset --force, then nodeagent bootstrap";
    let why = "it is another cluster's CA than that of pki.ca: this machine was in that cluster, or was to join it";
    Err(CannotTell { advice: Some(advice.to_owned()), ..CannotTell::new(ca, why) })
}

impl Resource for JoinConfig {
    fn summary(&self) -> String {
        format!(
            "{JOIN_CONFIG} (for kubeadm join, with the bootstrap token of {}, until the node has joined)",
            self.token_file
        )
    }

    fn reads(&self) -> Vec<Thing> {
        let states = [JOINED, JOINING].map(|path| Thing::Stat(RootPath::literal(path)));
        let files = [&self.token_file, &self.ca].map(|path| Thing::File(path.clone()));
        let own = [CA, JOIN_CONFIG].map(|path| Thing::File(RootPath::literal(path)));
        states.into_iter().chain(files).chain(own).chain([Thing::Clock]).collect()
    }

    fn makes(&self) -> Vec<Thing> {
        vec![Thing::File(RootPath::literal(JOIN_CONFIG))]
    }

    fn diff(&self, seen: &Seen) -> Result<Diff, CannotTell> {
        if seen.entry(&RootPath::literal(JOINED))?.has_content() {
            return Ok(Diff::Same);
        }
        let path = RootPath::literal(JOIN_CONFIG);
        let config = self.render(seen)?;
        let mut shown: Vec<Delta> = exposed(seen.entry(&path)?).into_iter().collect();
        if seen.bytes(&path)? != Some(config.as_slice()) {
            // Its digest would tell a guess of the token from a wrong one.
            shown.push(Delta::new("content", "", "kubeadm's configuration"));
        }
        if shown.is_empty() {
            return Ok(Diff::Same);
        }
        let mut known = vec![
            Change::Dir { path: path.parent(), meta: Meta::PROGRAM },
            Change::Put { path, body: Body::Credential(config), meta: Meta::SECRET },
        ];
        let ca = RootPath::literal(CA);
        if seen.bytes(&ca)?.is_some_and(|there| hashes(there).is_empty()) {
            // kubeadm writes it only where there is none.
            known.insert(0, Change::Destroy { path: ca });
        }
        Ok(Diff::Differs { shown, known })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::certs::testing::{Ca, CaKind, Content, seen_files};

    const TOKEN: &[u8] = b"abcdef.0123456789abcdef\n";

    fn resource() -> JoinConfig {
        JoinConfig {
            config: json!({ "nodeRegistration": { "ignorePreflightErrors": ["Swap"] } }),
            token_file: RootPath::literal("/etc/nodeagent/bootstrap-token"),
            ca: RootPath::literal("/etc/nodeagent/cluster-ca.pem"),
        }
    }

    /// A machine with token and CA, and with these files.
    fn machine(ca: &Ca, files: &[(&str, Content<'_>)]) -> Seen {
        let (resource, pem) = (resource(), ca.pem());
        let given = [(resource.token_file, (TOKEN, Meta::SECRET)), (resource.ca, (pem.as_slice(), Meta::FILE))];
        let paths = [JOINED, JOINING, CA, JOIN_CONFIG].map(RootPath::literal);
        let content = |path: &RootPath| files.iter().find(|(at, _)| *at == path.as_str()).map(|(_, content)| *content);
        let all = given.iter().map(|(path, content)| (path, Some(*content)));
        let mut seen = seen_files(&all.chain(paths.iter().map(|path| (path, content(path)))).collect::<Vec<_>>());
        for path in [JOINED, JOINING].map(RootPath::literal) {
            let sight = seen.0.remove(&Thing::File(path.clone())).expect("a sight");
            seen.0.insert(Thing::Stat(path), sight);
        }
        seen
    }

    fn written(diff: Result<Diff, CannotTell>) -> Value {
        let Ok(Diff::Differs { shown, known }) = diff else { panic!("nothing to write") };
        assert!(shown.iter().all(|delta| !delta.want.contains("0123456789abcdef")), "{shown:?}");
        let Some(Change::Put { body: Body::Credential(bytes), meta: Meta::SECRET, .. }) = known.last() else {
            panic!("{known:?}")
        };
        serde_json::from_slice(bytes).expect("JSON")
    }

    #[test]
    fn it_holds_the_token_and_the_hash_until_the_node_has_joined() {
        let ca = Ca::valid(CaKind::Ec);
        let config = written(resource().diff(&machine(&ca, &[])));
        let discovery = &config["discovery"]["bootstrapToken"];
        assert_eq!(discovery["token"], "abcdef.0123456789abcdef");
        assert_eq!(discovery["caCertHashes"], json!([hashes(&ca.pem())[0].0]));
        assert_eq!(config["nodeRegistration"]["ignorePreflightErrors"], json!(["Swap"]));

        let text = format!("{config:#}\n");
        let again = machine(&ca, &[(JOIN_CONFIG, (text.as_bytes(), Meta::SECRET))]);
        assert!(matches!(resource().diff(&again), Ok(Diff::Same)));
        let open = machine(&ca, &[(JOIN_CONFIG, (text.as_bytes(), Meta::FILE))]);
        assert!(matches!(resource().diff(&open), Ok(Diff::Differs { .. })), "others can read the token");
        // Neither token nor CA is looked at any more.
        let mut joined = machine(&ca, &[(JOINED, (b"kubeconfig", Meta::SECRET))]);
        joined.0.retain(|thing, _| *thing != Thing::File(resource().token_file));
        assert!(matches!(resource().diff(&joined), Ok(Diff::Same)));
    }

    #[test]
    fn a_join_that_was_not_finished_is_begun_again_but_not_that_of_another_cluster() {
        let (ca, other) = (Ca::valid(CaKind::Ec), Ca::valid(CaKind::Rsa));
        let all: Vec<&str> = ["Swap"].into_iter().chain(LEFT_BEHIND).collect();
        let (own, foreign) = (ca.pem(), other.pem());
        for left in [(CA, (own.as_slice(), Meta::FILE)), (JOINING, (b"kubeconfig".as_slice(), Meta::SECRET))] {
            let config = written(resource().diff(&machine(&ca, &[left])));
            assert_eq!(config["nodeRegistration"]["ignorePreflightErrors"], json!(all), "{}", left.0);
        }
        // A power cut left an empty one, or half of it.
        for torn in [&b""[..], &own[..40]] {
            let Ok(Diff::Differs { known, .. }) = resource().diff(&machine(&ca, &[(CA, (torn, Meta::FILE))])) else {
                panic!("nothing to write")
            };
            assert!(matches!(&known[0], Change::Destroy { path } if path.as_str() == CA), "{known:?}");
        }
        let error = resource().diff(&machine(&ca, &[(CA, (foreign.as_slice(), Meta::FILE))])).expect_err("another");
        assert!(error.to_string().starts_with("/etc/kubernetes/pki/ca.crt: it is another cluster's"), "{error}");
        assert!(error.advice.is_some_and(|advice| advice.contains("kubeadm reset")));
    }

    #[test]
    fn without_a_token_or_a_ca_it_says_which() {
        let ca = Ca::valid(CaKind::Ec);
        for (path, what) in [(resource().token_file, "bootstrap token"), (resource().ca, "CA certificate")] {
            let mut seen = machine(&ca, &[]);
            let absent = seen_files(&[(&path, None)]).0.remove(&Thing::File(path.clone())).expect("a sight");
            seen.0.insert(Thing::File(path.clone()), absent);
            let error = resource().diff(&seen).expect_err("missing").to_string();
            assert!(error.contains(what) && error.contains(path.as_str()), "{error}");
        }
    }
}
