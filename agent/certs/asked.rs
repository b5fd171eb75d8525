//! What a certificate request (PKCS#10) of somebody else's asks for, and whether a node may have it.

use std::collections::BTreeSet;
use std::net::IpAddr;

use openssl::error::ErrorStack;
use openssl::nid::Nid;
use openssl::pkey::{PKey, Public};
use openssl::x509::{X509, X509Req};

use super::authority::{entry_text, name_text};
use super::check::names;
use super::key::Key;
use super::needs::{ADMINISTRATOR, CONTROL_PLANE_CLIENTS};
use super::request::{NODE_USER, Usage, Wanted};
use crate::config::settings::KeyKind;
use crate::config::values::{DnsDomain, NodeName};
use crate::engine::fault::{Class, Explain};

/// A request as it was read, its own signature verified.
pub struct Asked {
    common_name: Vec<String>,
    organization: Vec<String>,
    /// How many parts its subject has.
    parts: usize,
    subject: String,
    names: BTreeSet<String>,
    public: PKey<Public>,
}

/// A request that is not signed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AskedError {
    /// It is no request.
    #[error("it holds no readable certificate request")]
    Garbage,
    /// Whoever made it does not have the key.
    #[error("it is not signed by its own key")]
    Forged,
    /// Another program may read something else in it.
    #[error("it can be read in more than one way")]
    Ambiguous,
    /// Its key is not one that is made here.
    #[error("its key is none of ecdsa-p256, rsa-2048, rsa-4096")]
    Key,
    /// It is not what a controller or a member of the store asks for.
    #[error("{subject} is what neither a node nor a controller nor a member of etcd asks for{why}")]
    NotTheControlPlanes {
        /// Whose certificate it would be.
        subject: String,
        /// What is wrong, where that is not all of it.
        why: String,
    },
    /// It is not what a node asks for.
    #[error("{subject} is not what a node asks for{why}")]
    NotANodes {
        /// Whose certificate it would be.
        subject: String,
        /// What is wrong, where that is not all of it.
        why: String,
    },
}

impl Explain for AskedError {
    fn class(&self) -> Class {
        Class::Verification
    }

    fn advice(&self) -> Option<String> {
        Some("sign what `nodeagent certs csr` made on the node; for other certificates there is openssl".to_owned())
    }
}

impl Asked {
    /// Reads a request in PEM.
    pub fn read(pem: &[u8]) -> Result<Self, AskedError> {
        let garbage = |_: ErrorStack| AskedError::Garbage;
        let request = X509Req::from_pem(pem).map_err(garbage)?;
        let public = request.public_key().map_err(garbage)?;
        if !request.verify(&public).unwrap_or(false) {
            return Err(AskedError::Forged);
        }
        let subject = request.subject_name();
        let all = |nid| subject.entries_by_nid(nid).map(entry_text).collect();
        Ok(Self {
            common_name: all(Nid::COMMONNAME),
            organization: all(Nid::ORGANIZATIONNAME),
            parts: subject.entries().count(),
            subject: name_text(subject),
            names: requested_names(&request).map_err(garbage)?,
            public,
        })
    }

    /// Reads a request that somebody else will sign, and may have been made to deceive: this program must read in it what
    /// the signer will. Hence one block of PEM in its only form, with nothing around it (decoders differ in what they skip),
    /// and at most one extension of names (OpenSSL takes the first set of extensions, and Go the last).
    pub fn read_exactly(pem: &[u8]) -> Result<Self, AskedError> {
        const NAMES: &[u8] = &[0x06, 0x03, 0x55, 0x1d, 0x11];
        let asked = Self::read(pem)?;
        let request = X509Req::from_pem(pem).and_then(|request| Ok((request.to_pem()?, request.to_der()?)));
        let (again, der) = request.map_err(|_| AskedError::Garbage)?;
        let same = |a: &[u8], b: &[u8]| {
            let solid =
                |text: &[u8]| text.iter().copied().filter(|byte| !byte.is_ascii_whitespace()).collect::<Vec<u8>>();
            solid(a) == solid(b)
        };
        let extensions = der.windows(NAMES.len()).filter(|window| *window == NAMES).count();
        let read = usize::from(!asked.names.is_empty());
        if same(pem, &again) && extensions == read { Ok(asked) } else { Err(AskedError::Ambiguous) }
    }

    /// Whether it asks for exactly this, with this key.
    pub fn is_for(&self, wanted: &Wanted, key: &Key) -> bool {
        key.fits(&self.public)
            && self.common_name == [wanted.common_name.as_str()]
            && self.organization == Vec::from_iter(wanted.organization.clone())
            && self.names == wanted.names().into_iter().collect()
    }

    /// The certificate that it asks for, if that is one of a node's: the kubelet's, to show (no names) or to serve with
    /// (the node's own name, and addresses), or kube-proxy's.
    pub fn wanted(&self) -> Result<Wanted, AskedError> {
        self.wanted_with(&[])
    }

    /// The same of a node that is also called by these names.
    pub fn wanted_with(&self, further: &[DnsDomain]) -> Result<Wanted, AskedError> {
        let refuse = |why: &str| AskedError::NotANodes { subject: self.subject.clone(), why: why.to_owned() };
        let [common_name] = self.common_name.as_slice() else { return Err(refuse("")) };
        if self.parts != 1 + self.organization.len() {
            return Err(refuse(": its subject has more than CN and O"));
        }
        let node = common_name.strip_prefix(NODE_USER).and_then(|name| name.parse::<NodeName>().ok());
        match (node, self.organization.as_slice()) {
            (Some(_), [nodes]) if nodes == "system:nodes" => {}
            (None, []) if common_name == "system:kube-proxy" && self.names.is_empty() => {}
            (None, []) if common_name == "system:kube-proxy" => {
                return Err(refuse(": nobody connects to a kube-proxy"));
            }
            _ => return Err(refuse("")),
        }
        let own = common_name.strip_prefix(NODE_USER).unwrap_or_default();
        let ips = self.names.iter().filter_map(|name| name.parse().ok()).collect();
        let dns: Vec<String> = self.names.iter().filter(|name| name.parse::<IpAddr>().is_err()).cloned().collect();
        let is_its_own = |name: &str| name == own || further.iter().any(|further| further.as_str() == name);
        if let Some(other) = dns.iter().find(|name| !is_its_own(name)) {
            return Err(refuse(&format!(": {other} is not its name")));
        }
        Ok(Wanted {
            common_name: common_name.clone(),
            organization: self.organization.first().cloned(),
            usages: vec![if self.names.is_empty() { Usage::Client } else { Usage::Server }],
            dns,
            ips,
            key: self.kind()?,
        })
    }

    /// The certificate that it asks for, if that is one of any machine's of a cluster. What else a node is called is in the
    /// inventory, which is not here: whoever asks for this has looked.
    pub fn wanted_of_anybody(&self) -> Result<Wanted, AskedError> {
        let names = self.names.iter().filter(|name| name.parse::<IpAddr>().is_err());
        let names: Vec<DnsDomain> = names.filter_map(|name| name.parse().ok()).collect();
        self.wanted_with(&names).or_else(|_| self.wanted_of_control_plane())
    }

    /// What people do to sign it.
    pub(super) fn to_sign(&self) -> &'static str {
        if self.wanted().is_ok() {
            "`nodeagent certs sign` it"
        } else if self.wanted_of_anybody().is_ok() {
            "`nodeagent certs sign --control-plane` it"
        } else {
            "sign it with openssl"
        }
    }

    /// The certificate that it asks for, if that is one of a controller's or of a member of the store.
    fn wanted_of_control_plane(&self) -> Result<Wanted, AskedError> {
        const MASTERS: &str = "system:masters";
        let refuse = |why: &str| AskedError::NotTheControlPlanes { subject: self.subject.clone(), why: why.to_owned() };
        let [common_name] = self.common_name.as_slice() else { return Err(refuse("")) };
        if self.parts != 1 + self.organization.len() {
            return Err(refuse(": its subject has more than CN and O"));
        }
        let groups: Vec<&str> = self.organization.iter().map(String::as_str).collect();
        let nameless = self.names.is_empty();
        let usages = match (common_name.as_str(), groups.as_slice()) {
            ("kube-apiserver", []) if !nameless => vec![Usage::Server],
            (name, []) if CONTROL_PLANE_CLIENTS.contains(&name) && nameless => vec![Usage::Client],
            (ADMINISTRATOR, [MASTERS]) if nameless => vec![Usage::Client],
            // A member of the store is called as its machine is, which is one of its names.
            (name, []) if self.names.contains(name) && name.parse::<NodeName>().is_ok() => {
                vec![Usage::Server, Usage::Client]
            }
            _ => return Err(refuse("")),
        };
        let (ips, dns) = self.names.iter().partition::<Vec<_>, _>(|name| name.parse::<IpAddr>().is_ok());
        Ok(Wanted {
            common_name: common_name.clone(),
            organization: self.organization.first().cloned(),
            usages,
            dns: dns.into_iter().cloned().collect(),
            ips: ips.into_iter().filter_map(|ip| ip.parse().ok()).collect(),
            key: self.kind()?,
        })
    }

    fn kind(&self) -> Result<KeyKind, AskedError> {
        let described = Key::describe_public(&self.public);
        let known = [KeyKind::EcdsaP256, KeyKind::Rsa2048, KeyKind::Rsa4096];
        known.into_iter().find(|kind| kind.to_string() == described).ok_or(AskedError::Key)
    }
}

/// The alternative names that a request asks for. The openssl crate shows them of certificates only: hence one that
/// nobody signs, with the same extensions.
fn requested_names(request: &X509Req) -> Result<BTreeSet<String>, ErrorStack> {
    let mut unsigned = X509::builder()?;
    // A request without extensions is an error to OpenSSL, and one whose extensions cannot be read has none.
    for extension in request.extensions().into_iter().flatten() {
        unsigned.append_extension2(&extension)?;
    }
    Ok(names(&unsigned.build()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::certs::request::request;
    use crate::certs::testing::{client, new_key, server};

    fn ask(wanted: &Wanted) -> Result<Wanted, AskedError> {
        let pem = request(wanted, &Key::generate(wanted.key).expect("a key")).expect("a request");
        Asked::read(pem.as_bytes()).expect("read").wanted()
    }

    fn proxy() -> Wanted {
        Wanted { common_name: "system:kube-proxy".into(), organization: None, ..client() }
    }

    #[test]
    fn what_a_node_asks_for_is_read_back() {
        let v6 = Wanted { ips: vec!["fd00::21".parse().expect("an address")], dns: Vec::new(), ..server() };
        let rsa = Wanted { key: KeyKind::Rsa2048, ..server() };
        for wanted in [client(), server(), proxy(), v6, rsa] {
            assert_eq!(ask(&wanted), Ok(wanted.clone()), "{wanted:?}");
            let key = new_key();
            let read = Asked::read(request(&wanted, &key).expect("a request").as_bytes()).expect("read");
            assert!(read.is_for(&wanted, &key) && !read.is_for(&wanted, &new_key()), "{wanted:?}");
            assert!(!read.is_for(&Wanted { common_name: "x".into(), ..wanted.clone() }, &key), "{wanted:?}");
        }
    }

    #[test]
    fn people_are_told_what_signs_it() {
        let user = |common_name: &str| Wanted { common_name: common_name.into(), ..proxy() };
        let also_called = Wanted { dns: vec!["worker-01".into(), "w1.example.com".into()], ..server() };
        for (wanted, told) in [
            (client(), "`nodeagent certs sign` it"),
            (also_called, "`nodeagent certs sign --control-plane` it"),
            (user("system:kube-scheduler"), "`nodeagent certs sign --control-plane` it"),
            (user("ingress"), "sign it with openssl"),
        ] {
            let pem = request(&wanted, &new_key()).expect("a request");
            assert_eq!(Asked::read(pem.as_bytes()).expect("read").to_sign(), told, "{wanted:?}");
        }
    }

    #[test]
    fn what_no_node_asks_for_is_refused() {
        let masters = Wanted { organization: Some("system:masters".into()), ..client() };
        let table = [
            ("an administrator", masters, "O=system:masters, CN=system:node:worker-01 is not what a node asks for"),
            (
                "a node without its group",
                Wanted { organization: None, ..client() },
                "CN=system:node:worker-01 is not what a node asks for",
            ),
            (
                "no node's name",
                Wanted { common_name: "system:node:A b".into(), ..client() },
                "O=system:nodes, CN=system:node:A b is not what a node asks for",
            ),
            (
                "anybody",
                Wanted { common_name: "system:kube-controller-manager".into(), ..proxy() },
                "CN=system:kube-controller-manager is not what a node asks for",
            ),
            (
                "a serving proxy",
                Wanted { dns: vec!["worker-01".into()], ..proxy() },
                "CN=system:kube-proxy is not what a node asks for: nobody connects to a kube-proxy",
            ),
            (
                "another's name",
                Wanted { dns: vec!["kubernetes".into(), "worker-01".into()], ..server() },
                "O=system:nodes, CN=system:node:worker-01 is not what a node asks for: kubernetes is not its name",
            ),
        ];
        for (name, wanted, text) in table {
            assert_eq!(ask(&wanted).expect_err(name).to_string(), text, "{name}");
        }
    }

    #[test]
    fn what_is_no_request_is_named() {
        let pem = request(&client(), &new_key()).expect("a request");
        let der = X509Req::from_pem(pem.as_bytes()).and_then(|request| request.to_der()).expect("DER");
        let mut forged = der.clone();
        *forged.last_mut().expect("a signature") ^= 1;
        let forged = X509Req::from_der(&forged).and_then(|request| request.to_pem()).expect("PEM");
        for (name, pem, error) in [
            ("empty", Vec::new(), AskedError::Garbage),
            ("torn", pem.as_bytes()[..pem.len() / 2].to_vec(), AskedError::Garbage),
            ("forged", forged, AskedError::Forged),
        ] {
            assert_eq!(Asked::read(&pem).map(drop), Err(error), "{name}");
        }
    }

    #[test]
    fn what_two_readers_may_read_differently_is_refused() {
        let pem = |wanted: &Wanted| request(wanted, &new_key()).expect("a request");
        for wanted in [client(), server(), proxy()] {
            for good in [pem(&wanted), pem(&wanted).replace('\n', "\r\n"), format!("\n{}\n", pem(&wanted))] {
                assert!(Asked::read_exactly(good.as_bytes()).is_ok(), "{good}");
            }
        }
        let ambiguous = [
            ("a second block", format!("{}{}", pem(&client()), pem(&server()))),
            ("text in front", format!("-----BEGIN CERTIFICATE REQUEST-----\nx: y\n{}", pem(&client()))),
            ("a header", pem(&client()).replacen("REQUEST-----\n", "REQUEST-----\nProc-Type: x\n\n", 1)),
            ("two sets of names", two_sets_of_names(false)),
            ("two extensions of names", two_sets_of_names(true)),
        ];
        for (name, pem) in ambiguous {
            let read = Asked::read_exactly(pem.as_bytes()).map(drop);
            assert!(matches!(read, Err(AskedError::Ambiguous | AskedError::Garbage)), "{name}: {read:?}\n{pem}");
        }
    }

    /// A request, well signed, that names the node and then somebody else: no library makes such a thing.
    fn two_sets_of_names(in_one_attribute: bool) -> String {
        use openssl::hash::MessageDigest;
        use openssl::sign::Signer;

        use crate::certs::authority::elements;

        let tlv = |tag: u8, content: &[u8]| {
            let length = u16::try_from(content.len()).expect("a short request").to_be_bytes();
            [&[tag, 0x82][..], &length, content].concat()
        };
        let content = |der: &[u8]| elements(der).next().expect("an element").1.to_vec();
        let key = new_key();
        let info = |name: &str| {
            let pem =
                request(&Wanted { dns: vec![name.into()], ips: Vec::new(), ..server() }, &key).expect("a request");
            let der = X509Req::from_pem(pem.as_bytes()).and_then(|request| request.to_der()).expect("DER");
            content(&content(&der))
        };
        let (one, other) = (info("worker-01"), info("kubernetes"));
        let attribute = |info: &[u8]| elements(info).nth(3).expect("attributes").1.to_vec();
        let parts: Vec<Vec<u8>> = elements(&one).take(3).map(|(tag, content)| tlv(tag, content)).collect();
        let attributes = if in_one_attribute {
            // Attribute, its values, the extensions.
            let identifier = |attribute: &[u8]| {
                let attribute = content(attribute);
                let (tag, identifier) = elements(&attribute).next().expect("an identifier");
                tlv(tag, identifier)
            };
            let extensions = |attribute: &[u8]| {
                let attribute = content(attribute);
                content(elements(&attribute).nth(1).expect("values").1)
            };
            let both = [extensions(&attribute(&one)), extensions(&attribute(&other))].concat();
            tlv(0x30, &[identifier(&attribute(&one)), tlv(0x31, &tlv(0x30, &both))].concat())
        } else {
            [attribute(&one), attribute(&other)].concat()
        };
        let info = tlv(0x30, &[parts.concat(), tlv(0xa0, &attributes)].concat());
        let secret = PKey::private_key_from_pem(&key.to_pem().expect("PEM")).expect("a key");
        let signature = Signer::new(MessageDigest::sha256(), &secret).and_then(|mut s| s.sign_oneshot_to_vec(&info));
        let signature = [vec![0], signature.expect("a signature")].concat();
        // ecdsa-with-SHA256
        let algorithm = [0x30, 0x0a, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02];
        let der = tlv(0x30, &[info, algorithm.to_vec(), tlv(0x03, &signature)].concat());
        let pem = X509Req::from_der(&der).and_then(|request| request.to_pem()).expect("OpenSSL reads it");
        assert!(Asked::read(&pem).is_ok(), "it is well signed");
        String::from_utf8(pem).expect("PEM")
    }
}
