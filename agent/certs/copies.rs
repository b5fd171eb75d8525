//! Copies of the CA's key in what the machine was given: from there the next boot would bring it back.

use super::authority::Authority;
use super::key::Key;
use super::wrapped::{self, Beyond};
use crate::config::values::RootPath;
use crate::engine::resource::{CannotTell, Diff, Resource, Seen, Thing};

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
        vec![Thing::File(self.ca.clone()), Thing::UserData, Thing::Clock]
    }

    fn makes(&self) -> Vec<Thing> {
        Vec::new()
    }

    fn diff(&self, seen: &Seen) -> Result<Diff, CannotTell> {
        let ca = Authority::seen(&self.ca, seen)?;
        let (mut copies, mut dark) = (Vec::new(), Vec::new());
        for (place, bytes) in seen.user_data()? {
            match bytes.as_ref().map(|bytes| holds_key_of(&ca, bytes)) {
                Ok(Ok(true)) => copies.push(place.as_str()),
                Ok(Ok(false)) => {}
                Ok(Err(beyond)) => dark.push(CannotTell::new(place, beyond)),
                Err(cannot) => dark.push(cannot.clone()),
            }
        }
        verdict(&copies, dark)
    }
}

/// What to say of the places that hold the key and of those that could not be looked into: such a one is not clean.
fn verdict(copies: &[&str], dark: Vec<CannotTell>) -> Result<Diff, CannotTell> {
    let not_looked: Vec<String> = dark.iter().map(|cannot| format!("{}: {}", cannot.object, cannot.why)).collect();
    let not_looked = format!("could not look into {}", not_looked.join(", nor into "));
    let Some((first, others)) = copies.split_first() else {
        let Some(first) = dark.into_iter().next() else { return Ok(Diff::Same) };
        let advice =
            first.advice.unwrap_or_else(|| format!("see whether {} holds the key, and remove it", first.object));
        return Err(CannotTell { advice: Some(advice), ..CannotTell::new("user-data", not_looked) });
    };
    let also = if others.is_empty() { String::new() } else { format!(" (also in {})", others.join(", ")) };
    let not_looked = if dark.is_empty() { String::new() } else { format!("; {not_looked}") };
    let why =
        format!("holds the CA's private key{also}: the next boot, or whoever reads it, has the key again{not_looked}");
    let advice = "take the key out of the machine's user-data, and remove these copies".to_owned();
    Err(CannotTell { advice: Some(advice), ..CannotTell::new(first, why) })
}

/// Whether a file has a private key of the CA's in PEM, in whatever wrapping.
fn holds_key_of(ca: &Authority, bytes: &[u8]) -> Result<bool, Beyond> {
    wrapped::any(bytes, &|text| {
        private_keys(text).any(|der| Key::from_der(&der).is_ok_and(|key| ca.certificate_of(&key).is_some()))
    })
}

/// What stands behind each `-----BEGIN … PRIVATE KEY-----`, whatever indentation, line ends or quotes are in it. What
/// stands behind an END is no key.
fn private_keys(text: &[u8]) -> impl Iterator<Item = wrapped::Piece> + '_ {
    const HEAD: &[u8] = b"PRIVATE KEY-----";
    wrapped::positions(text, HEAD).filter_map(|at| {
        let body = &text[at + HEAD.len()..];
        let end = wrapped::positions(body, b"-----").next().unwrap_or(body.len());
        let pieces: Vec<&[u8]> = body[..end].split(|byte| !wrapped::is_base64(*byte)).collect();
        wrapped::decoded(&pieces)
    })
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use flate2::{Compression, write::GzEncoder};
    use openssl::base64::encode_block;

    use super::*;
    use crate::certs::testing::{Ca, CaKind, new_key, seen_file};
    use crate::engine::change::Meta;
    use crate::host::root::Root;
    use crate::host::seen::Sight;
    use crate::host::user_data;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(bytes).and_then(|()| encoder.finish()).expect("gzip")
    }

    /// Base64 in lines of 76, as base64(1) and MIME fold it.
    fn folded(bytes: &[u8], indent: &str) -> String {
        let encoded = encode_block(bytes);
        let lines: Vec<&str> =
            encoded.as_bytes().chunks(76).map(|line| std::str::from_utf8(line).expect("ASCII")).collect();
        lines.join(&format!("\n{indent}"))
    }

    fn percent(text: &str) -> String {
        text.bytes()
            .map(
                |byte| if byte.is_ascii_alphanumeric() { char::from(byte).to_string() } else { format!("%{byte:02X}") },
            )
            .collect()
    }

    /// The file in each form in which cloud-config and Ignition carry one.
    fn forms(pem: &str) -> Vec<(&'static str, Vec<u8>)> {
        let entry = |encoding: &str, content: &str| {
            format!(
                "#cloud-config\nwrite_files:\n- path: /k\n  encoding: {encoding}\n  content: {content}\n  owner: root\n"
            )
        };
        let block = |indent: &str| format!("|\n{indent}{}", pem.trim_end().replace('\n', &format!("\n{indent}")));
        let ignition = |source: &str| {
            serde_json::json!({ "storage": { "files": [{ "path": "/k", "contents": { "source": source } }] } })
                .to_string()
        };
        let mime = format!(
            "Content-Transfer-Encoding: base64\n\n{}\n--==b--\n",
            folded(entry("b64", &folded(pem.as_bytes(), "    ")).as_bytes(), "")
        );
        vec![
            ("plain", pem.into()),
            ("YAML", entry("text", &block("      ")).into()),
            ("YAML of two levels", entry("text", &block("\t ")).replace('\n', "\r\n").into()),
            ("JSON", serde_json::json!({ "content": pem }).to_string().into()),
            (
                "JSON in JSON",
                serde_json::json!({ "a": serde_json::json!({ "content": pem }).to_string() }).to_string().into(),
            ),
            ("b64", entry("b64", &encode_block(pem.as_bytes())).into()),
            ("b64 folded", entry("b64", &format!("|\n    {}", folded(pem.as_bytes(), "    "))).into()),
            ("b64 folded behind its key", entry("b64", &folded(pem.as_bytes(), "    ")).into()),
            ("b64 in a shell's document", format!("base64 -d >/k <<EOF\n{}\nEOF\n", folded(pem.as_bytes(), "")).into()),
            ("gz+b64", entry("gz+b64", &encode_block(&gzip(pem.as_bytes()))).into()),
            (
                "gz+b64 folded",
                entry("gz+b64", &format!("!!binary |\n   {}", folded(&gzip(pem.as_bytes()), "   "))).into(),
            ),
            ("gzipped as a whole", gzip(entry("text", &block("    ")).as_bytes())),
            (
                "gzipped in a pickle",
                [
                    b"\x80\x04\x95X".as_slice(),
                    &gzip(entry("gz+b64", &encode_block(&gzip(pem.as_bytes()))).as_bytes()),
                    b"\x94.",
                ]
                .concat(),
            ),
            ("MIME", mime.into()),
            ("data URL", ignition(&format!("data:,{}", percent(pem))).into()),
            ("data URL in base64", ignition(&format!("data:;base64,{}", encode_block(pem.as_bytes()))).into()),
            (
                "data URL in gzip",
                ignition(&format!("data:;base64,{}", percent(&encode_block(&gzip(pem.as_bytes()))))).into(),
            ),
        ]
    }

    #[test]
    fn the_cas_key_is_found_in_every_form_and_no_other() {
        for kind in [CaKind::Rsa, CaKind::Ec] {
            let ca = Ca::valid(kind);
            let authority = ca.authority();
            let text = |pem: Vec<u8>| String::from_utf8(pem).expect("text");
            for (form, bytes) in forms(&text(ca.key_pem())) {
                assert_eq!(holds_key_of(&authority, &bytes), Ok(true), "{kind:?} {form}");
            }
            let other = new_key().to_pem().expect("PEM").to_vec();
            for (what, pem) in [("another key", other), ("its certificate", ca.pem()), ("nothing", Vec::new())] {
                for (form, bytes) in forms(&text(pem)) {
                    assert_eq!(holds_key_of(&authority, &bytes), Ok(false), "{kind:?}: {what}, {form}");
                }
            }
        }
    }

    #[test]
    fn the_cas_key_is_found_in_every_place_in_every_form() {
        let ca = Ca::valid(CaKind::Ec);
        let copies = NoCopies { ca: RootPath::literal("/etc/kubernetes/pki/ca.pem") };
        let pem = String::from_utf8(ca.key_pem()).expect("text");
        let judged = |root: &Root| {
            let mut seen = seen_file(&copies.ca, Some(&ca.pem()));
            seen.0.insert(Thing::UserData, Ok(Sight::UserData(user_data::read(root))));
            copies.diff(&seen)
        };
        for place in [
            "/var/lib/cloud/instances/i-1/user-data.txt",
            "/var/lib/cloud/instances/i-0/user-data.txt.i",
            "/var/lib/cloud/instances/i-0/obj.pkl",
            "/var/lib/cloud/instances/i-0/vendor-data2.txt",
            "/var/lib/cloud/instances/i-1/scripts/part-001",
            "/var/lib/cloud/instance/cloud-config.txt",
            "/var/lib/cloud/seed/nocloud-net/user-data",
            "/var/lib/cloud/seed/config_drive/openstack/2012-08-10/user_data",
            "/etc/cloud/cloud.cfg.d/99-ours.cfg",
            "/run/cloud-init/instance-data-sensitive.json",
            "/media/configdrive/openstack/latest/user_data",
            "/media/configdrive/openstack/content/0000",
            "/media/configvirtfs/openstack/latest/user_data",
            "/var/lib/coreos-install/user_data",
            "/var/lib/coreos-vagrant/vagrantfile-user-data",
            "/usr/share/oem/config.ign",
            "/oem/cloud-config.yml",
            "/run/ignition.json",
        ] {
            let tree = tempfile::tempdir().expect("a directory");
            let root = Root::open(tree.path()).expect("a root");
            let place = RootPath::literal(place);
            root.make_own_dirs(&place.parent(), Meta::PROGRAM).expect("directories");
            for (form, bytes) in forms(&pem) {
                root.put(&place, &bytes, Meta::FILE).expect("put");
                let error = judged(&root).expect_err(form);
                assert_eq!(error.object, place.as_str(), "{form}: {error}");
                assert!(error.why.starts_with("holds the CA's private key: "), "{form}: {error}");
            }
            root.put(&place, b"#cloud-config\n", Meta::FILE).expect("put");
            assert!(matches!(judged(&root), Ok(Diff::Same)), "{place}");
        }
    }

    #[test]
    fn what_could_not_be_looked_into_is_not_clean() {
        let dark =
            || vec![CannotTell::new("/a", "it is larger than 16 MiB"), CannotTell::new("/dev/b", "it is not mounted")];
        let error = verdict(&[], dark()).expect_err("two places");
        let says = "user-data: could not look into /a: it is larger than 16 MiB, nor into /dev/b: it is not mounted";
        assert_eq!(error.to_string(), says);
        assert_eq!(error.advice.as_deref(), Some("see whether /a holds the key, and remove it"));

        let error = verdict(&["/c", "/d"], dark()).expect_err("two copies");
        assert!(error.to_string().starts_with("/c: holds the CA's private key (also in /d): "), "{error}");
        assert!(error.to_string().contains("; could not look into /a: it is larger"), "{error}");
        assert!(error.advice.is_some_and(|advice| advice.contains("remove these copies")));
        assert!(matches!(verdict(&[], Vec::new()), Ok(Diff::Same)));
    }
}
