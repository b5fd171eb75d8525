//! What a certificate must say, and the request (PKCS#10) that asks a signer for it.

use std::net::IpAddr;

use rcgen::{CertificateParams, DistinguishedName, DnType, SanType};

use super::key::Key;
use crate::config::settings::KeyKind;
pub use crate::config::settings::Usage;
use crate::engine::fault::Explain;

/// What stands before a node's name in the user name of its kubelet: the Node authorizer's rule
/// (kubernetes.io/docs/reference/access-authn-authz/node).
pub const NODE_USER: &str = "system:node:";

/// A request could not be made.
#[derive(Debug, thiserror::Error)]
#[error("make the certificate request for {subject}")]
pub struct RequestError {
    subject: String,
    #[source]
    cause: rcgen::Error,
}

impl Explain for RequestError {}

/// What a certificate must say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// Kubernetes' user name.
    pub common_name: String,
    /// Kubernetes' group; nothing for a user without one.
    pub organization: Option<String>,
    /// DNS names that it vouches for.
    pub dns: Vec<String>,
    /// Addresses that it vouches for.
    pub ips: Vec<IpAddr>,
    /// What it must be good for.
    pub usages: Vec<Usage>,
    /// What kind of key it is for.
    pub key: KeyKind,
}

impl Wanted {
    /// The subject as people write it.
    pub fn subject(&self) -> String {
        match &self.organization {
            Some(organization) => format!("O={organization}, CN={}", self.common_name),
            None => format!("CN={}", self.common_name),
        }
    }

    /// The subject's alternative names, in the order of the request.
    pub fn names(&self) -> Vec<String> {
        self.dns.iter().cloned().chain(self.ips.iter().map(ToString::to_string)).collect()
    }
}

/// The certificate request for `wanted`, signed by `key`, in PEM.
///
/// Usages are not in it: the signer's profile decides them, and the answer is checked.
pub fn request(wanted: &Wanted, key: &Key) -> Result<String, RequestError> {
    let make = || {
        let mut params = CertificateParams::default();
        // The default carries a common name of rcgen's own.
        params.distinguished_name = DistinguishedName::new();
        if let Some(organization) = &wanted.organization {
            params.distinguished_name.push(DnType::OrganizationName, organization.as_str());
        }
        params.distinguished_name.push(DnType::CommonName, wanted.common_name.as_str());
        for name in &wanted.dns {
            params.subject_alt_names.push(SanType::DnsName(name.as_str().try_into()?));
        }
        params.subject_alt_names.extend(wanted.ips.iter().map(|ip| SanType::IpAddress(*ip)));
        params.serialize_request(key)?.pem()
    };
    make().map_err(|cause| RequestError { subject: wanted.subject(), cause })
}

#[cfg(test)]
mod tests {
    use openssl::nid::Nid;
    use openssl::x509::X509Req;

    use super::*;
    use crate::certs::testing::{client, new_key, server};

    #[test]
    fn openssl_reads_back_what_was_asked() {
        for wanted in [client(), server()] {
            let key = new_key();
            let pem = request(&wanted, &key).expect("a request");
            let parsed = X509Req::from_pem(pem.as_bytes()).expect("OpenSSL reads it");
            let public = parsed.public_key().expect("a public key");
            assert!(parsed.verify(&public).expect("verified"), "{wanted:?}: the request's own signature");
            assert!(key.fits(&public), "{wanted:?}");

            let subject: Vec<(Nid, String)> = parsed
                .subject_name()
                .entries()
                .map(|entry| (entry.object().nid(), entry.data().to_string().expect("text")))
                .collect();
            let expected =
                [(Nid::ORGANIZATIONNAME, "system:nodes".into()), (Nid::COMMONNAME, "system:node:worker-01".into())];
            assert_eq!(subject, expected, "{wanted:?}");

            let text = String::from_utf8(parsed.to_text().expect("text")).expect("UTF-8");
            let names = text.lines().skip_while(|line| !line.contains("Subject Alternative Name")).nth(1);
            let expected = (!wanted.names().is_empty()).then_some("DNS:worker-01, IP Address:10.10.30.21");
            assert_eq!(names.map(str::trim), expected, "{wanted:?}");
        }
    }

    #[test]
    fn a_name_that_no_certificate_can_hold_is_refused() {
        let wanted = Wanted { dns: vec!["wörker".into()], ..server() };
        let error = request(&wanted, &new_key()).expect_err("not IA5");
        assert_eq!(error.to_string(), "make the certificate request for O=system:nodes, CN=system:node:worker-01");
    }
}
