//! The CA's private key on a machine that only needed certificates: destroyed once they stand, and looked for where
//! cloud-config leaves copies.

use openssl::base64::decode_block;

use super::authority::Authority;
use super::key::Key;
use crate::config::values::RootPath;
use crate::engine::change::Change;
use crate::engine::resource::{CannotTell, Delta, Diff, Resource, Seen, Thing};
use crate::host::seen::Entry;

/// Where cloud-init, coreos-cloudinit and Ignition keep what they were given, or read it again at the next boot.
const COPIES: [&str; 12] = [
    "/var/lib/cloud/instance/user-data.txt",
    "/var/lib/cloud/instance/user-data.txt.i",
    "/var/lib/cloud/instance/vendor-data.txt",
    "/var/lib/cloud/instance/cloud-config.txt",
    "/var/lib/cloud/seed/nocloud/user-data",
    "/var/lib/cloud/seed/nocloud-net/user-data",
    "/run/cloud-init/instance-data-sensitive.json",
    "/run/cloud-init/combined-cloud-config.json",
    "/var/lib/coreos-install/user_data",
    "/media/configdrive/openstack/latest/user_data",
    "/usr/share/oem/cloud-config.yml",
    "/oem/config.ign",
];

/// The CA's key goes once every pair stands, or stays and is warned of.
pub(super) struct CaKey {
    pub(super) key: RootPath,
    /// The pairs that it signs.
    pub(super) pairs: Vec<RootPath>,
    /// Whether it goes.
    pub(super) remove: bool,
}

impl Resource for CaKey {
    fn summary(&self) -> String {
        let what = if self.remove {
            "destroyed once the certificates stand; until it is put back, nothing renews them"
        } else {
            "on this machine"
        };
        format!("the CA's key {} {what}", self.key)
    }

    fn reads(&self) -> Vec<Thing> {
        self.pairs.iter().cloned().map(Thing::Stat).chain([Thing::Stat(self.key.clone())]).collect()
    }

    /// Nothing that others wait for: the pairs read the key, and this waits for them.
    fn makes(&self) -> Vec<Thing> {
        Vec::new()
    }

    fn diff(&self, seen: &Seen) -> Result<Diff, CannotTell> {
        if !self.remove || matches!(seen.entry(&self.key)?, Entry::Absent) {
            return Ok(Diff::Same);
        }
        Ok(Diff::Differs {
            shown: vec![Delta::new("CA's key", &self.key, "")],
            known: vec![Change::Destroy { path: self.key.clone() }],
        })
    }

    fn proof_reads(&self) -> Vec<Thing> {
        vec![Thing::Stat(self.key.clone())]
    }

    fn prove(&self, seen: &Seen) -> Result<(), CannotTell> {
        if matches!(seen.entry(&self.key)?, Entry::Absent) {
            return Ok(());
        }
        let why = "whoever reads this key on a worker can sign a cluster administrator; set \
                   pki.signer.local.removeAfterUse: true, or choose another pki.signer";
        Err(CannotTell::new(&self.key, why))
    }
}

/// No copy of the CA's key where the next boot would bring it back from. It is told from other keys by the CA's own
/// certificate, so the key itself need not be there any more.
pub(super) struct NoCopies {
    pub(super) ca: RootPath,
}

impl Resource for NoCopies {
    fn summary(&self) -> String {
        "no copy of the CA's key in user-data".to_owned()
    }

    fn reads(&self) -> Vec<Thing> {
        let files = COPIES.iter().map(|path| RootPath::literal(path)).chain([self.ca.clone()]);
        files.map(Thing::File).chain([Thing::Clock]).collect()
    }

    fn makes(&self) -> Vec<Thing> {
        Vec::new()
    }

    fn diff(&self, seen: &Seen) -> Result<Diff, CannotTell> {
        let ca = Authority::read(&self.ca, seen.bytes(&self.ca)?, seen.now()?)?;
        let has_key = |path: &RootPath| match seen.entry(path) {
            Ok(Entry::File { bytes: Some(bytes), .. }) => holds_key_of(&ca, &String::from_utf8_lossy(bytes)),
            // What cannot be read cannot be judged; most machines have one or two of these files at the most.
            _ => false,
        };
        let copies: Vec<RootPath> =
            COPIES.iter().map(|path| RootPath::literal(path)).filter(|path| has_key(path)).collect();
        let Some(first) = copies.first() else { return Ok(Diff::Same) };
        let also: Vec<&str> = copies.iter().skip(1).map(RootPath::as_str).collect();
        let also = if also.is_empty() { String::new() } else { format!(" (also in {})", also.join(", ")) };
        let why = format!(
            "holds the CA's private key{also}: the next boot, or whoever reads it, has the key again; take it out of \
             the machine's user-data, and remove these copies"
        );
        Err(CannotTell::new(first, why))
    }
}

/// Whether a text has a private key of the CA's: in PEM with any indentation or escaped line ends, or in base64.
fn holds_key_of(ca: &Authority, text: &str) -> bool {
    // The shortest key is some hundred bytes; what is shorter in base64 is a digest or a name.
    const SHORTEST: usize = 160;
    let lines = text.replace("\\n", "\n");
    if pem_blocks(&lines).any(|block| is_key_of(ca, &block)) {
        return true;
    }
    let base64 = |c: char| c.is_ascii_alphanumeric() || "+/=".contains(c);
    let runs = text.split(|c: char| !base64(c)).filter(|run| run.len() >= SHORTEST);
    runs.filter_map(|run| String::from_utf8(decode_block(run).ok()?).ok())
        .any(|decoded| pem_blocks(&decoded).any(|block| is_key_of(ca, &block)))
}

fn is_key_of(ca: &Authority, block: &str) -> bool {
    Key::from_pem(block.as_bytes()).is_ok_and(|key| ca.certificate_of(&key).is_some())
}

/// Each `-----BEGIN … PRIVATE KEY-----` and what follows to its end, without the indentation and quotes around it.
fn pem_blocks(text: &str) -> impl Iterator<Item = String> {
    let mut lines = text.lines().map(|line| {
        let line = line.trim_matches(|c: char| c.is_whitespace() || "\"',".contains(c));
        line.find("-----BEGIN ").map_or(line, |at| &line[at..])
    });
    std::iter::from_fn(move || {
        let first = lines.find(|line| line.starts_with("-----BEGIN ") && line.ends_with("PRIVATE KEY-----"))?;
        let mut block = format!("{first}\n");
        for line in lines.by_ref() {
            block.push_str(line);
            block.push('\n');
            if line.starts_with("-----END ") {
                break;
            }
        }
        Some(block)
    })
}

#[cfg(test)]
mod tests {
    use openssl::base64::encode_block;

    use super::*;
    use crate::certs::testing::{Ca, CaKind, new_key};

    #[test]
    fn the_cas_key_is_found_in_every_form_and_no_other() {
        for kind in [CaKind::Rsa, CaKind::Ec] {
            let ca = Ca::valid(kind);
            let authority = ca.authority();
            let pem = String::from_utf8(ca.key_pem()).expect("text");
            let indented = format!("      {}", pem.replace('\n', "\n      "));
            let escaped = serde_json::json!({ "content": pem }).to_string();
            let encoded = format!("  encoding: b64\n  content: {}\n", encode_block(pem.as_bytes()));
            for (form, text) in [("YAML", indented), ("JSON", escaped), ("base64", encoded), ("plain", pem)] {
                assert!(holds_key_of(&authority, &text), "{kind:?} {form}");
            }
            let other = String::from_utf8(new_key().to_pem().expect("PEM").to_vec()).expect("text");
            let certificate = String::from_utf8(ca.pem()).expect("text");
            for (form, text) in [("another key", other), ("its certificate", certificate), ("nothing", String::new())] {
                assert!(!holds_key_of(&authority, &text), "{kind:?} {form}");
            }
        }
    }
}
