//! Names of things in the cluster: labels of nodes, users, and the files of their certificates.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use super::values::{BadValue, DnsDomain, Sha256, checked_string, refuse};

checked_string! {
    /// A label's key, with or without a prefix: `example.com/rack`. Of Kubernetes' own only those that a kubelet may set.
    LabelKey, "label-key", label_key
}
checked_string! {
    /// A label's value.
    LabelValue, "label-value", label_value
}
checked_string! {
    /// What a certificate's subject says as its common name or its organization: a user or a group to Kubernetes.
    CommonName, "common-name", common_name
}
checked_string! {
    /// A container image by its full name with a tag, a digest or both: `registry.example/coredns:v1.12.1`.
    ImageName, "image-name", image_name
}
checked_string! {
    /// The name of a pair: its file's, without `.pem`.
    CertName, "cert-name", cert_name
}

/// What kubelets may say of their own node in Kubernetes' name (kubernetes.io/docs/reference/access-authn-authz/
/// admission-controllers, `NodeRestriction`; the kubelet's own list is `well_known_labels.go` of k8s.io/kubelet): a kubelet
/// that is given another one does not start.
const KUBELETS_OWN: [&str; 11] = [
    "kubernetes.io/hostname",
    "kubernetes.io/arch",
    "kubernetes.io/os",
    "beta.kubernetes.io/arch",
    "beta.kubernetes.io/os",
    "beta.kubernetes.io/instance-type",
    "node.kubernetes.io/instance-type",
    "failure-domain.beta.kubernetes.io/region",
    "failure-domain.beta.kubernetes.io/zone",
    "topology.kubernetes.io/region",
    "topology.kubernetes.io/zone",
];

/// The same by prefix.
const KUBELETS_PREFIXES: [&str; 2] = ["kubelet.kubernetes.io", "node.kubernetes.io"];

fn label_key(text: &str) -> Result<String, BadValue> {
    const WANTED: &str = "a label's key";
    let (prefix, name) = text.rsplit_once('/').map_or((None, text), |(prefix, name)| (Some(prefix), name));
    if !is_label_word(name) {
        return Err(refuse(text, WANTED, LABEL_WORD));
    }
    let Some(prefix) = prefix else { return Ok(text.to_owned()) };
    if let Err(error) = prefix.parse::<DnsDomain>() {
        return Err(refuse(text, WANTED, format!("before the slash stands a DNS domain: {}", error.why())));
    }
    let within = |domain: &str| prefix == domain || prefix.ends_with(&format!(".{domain}"));
    let allowed = KUBELETS_OWN.contains(&text) || KUBELETS_PREFIXES.into_iter().any(within);
    if (within("kubernetes.io") || within("k8s.io")) && !allowed {
        let why = format!(
            "a kubelet may not set it, and does not start with it; it may set those of {}: give this one with kubectl label",
            KUBELETS_PREFIXES.join(", ")
        );
        return Err(refuse(text, WANTED, why));
    }
    Ok(text.to_owned())
}

fn label_value(text: &str) -> Result<String, BadValue> {
    if text.is_empty() || is_label_word(text) {
        return Ok(text.to_owned());
    }
    Err(refuse(text, "a label's value", LABEL_WORD))
}

const LABEL_WORD: &str =
    "it must be letters, digits, '-', '_' and '.', at most 63, the first and the last a letter or a digit";

/// kubernetes.io/docs/concepts/overview/working-with-objects/labels.
fn is_label_word(text: &str) -> bool {
    let ends =
        text.starts_with(|c: char| c.is_ascii_alphanumeric()) && text.ends_with(|c: char| c.is_ascii_alphanumeric());
    ends && text.len() <= 63 && text.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
}

fn common_name(text: &str) -> Result<String, BadValue> {
    const WANTED: &str = "a name in a certificate's subject";
    // RFC 5280, ub-common-name and ub-organization-name.
    const LONGEST: usize = 64;
    if text.is_empty() || text.chars().count() > LONGEST || text.chars().any(char::is_control) {
        return Err(refuse(
            text,
            WANTED,
            format!("it must have 1 to {LONGEST} characters, none of them a control character"),
        ));
    }
    Ok(text.to_owned())
}

fn cert_name(text: &str) -> Result<String, BadValue> {
    const WANTED: &str = "the name of a pair";
    let good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-._".contains(c);
    if text.len() > 64 || !text.chars().all(good) || !text.starts_with(|c: char| c.is_ascii_alphanumeric()) {
        let why = "it must be a file name of lower-case letters, digits, '-', '.' and '_', without the .pem";
        return Err(refuse(text, WANTED, why));
    }
    match text.strip_suffix(".pem") {
        Some(_) => Err(refuse(text, WANTED, "the .pem is added")),
        None => Ok(text.to_owned()),
    }
}

/// github.com/distribution/reference, and stricter: with a registry, and never "whatever is the latest".
fn image_name(text: &str) -> Result<String, BadValue> {
    let bad = |why: &str| Err(refuse(text, "a container image's name", why));
    let (name, digest) = text.split_once('@').map_or((text, None), |(name, digest)| (name, Some(digest)));
    if digest.is_some_and(|digest| digest.strip_prefix("sha256:").is_none_or(|hex| hex.parse::<Sha256>().is_err())) {
        return bad("behind the @ stands sha256: and 64 hexadecimal digits");
    }
    let (path, tag) = match name.rsplit_once(':') {
        Some((path, tag)) if !tag.contains('/') => (path, Some(tag)),
        _ => (name, None),
    };
    let in_tag = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
    if tag
        .is_some_and(|tag| tag.is_empty() || tag.len() > 128 || tag.starts_with(['.', '-']) || !tag.chars().all(in_tag))
    {
        return bad("its tag must be letters, digits, '_', '.' and '-', at most 128");
    }
    if tag.is_none() && digest.is_none() {
        return bad("it has neither a tag nor a digest: what runs must not change by itself");
    }
    let Some((registry, path)) = path.split_once('/').filter(|(registry, _)| registry.contains(['.', ':'])) else {
        return bad("it begins with the registry: registry.k8s.io/coredns/coredns:v1.12.1");
    };
    let in_registry = |c: char| c.is_ascii_alphanumeric() || "-.:[]".contains(c);
    let in_path = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "._-".contains(c);
    let is_part = |part: &str| {
        part.chars().all(in_path) && part.starts_with(char::is_alphanumeric) && part.ends_with(char::is_alphanumeric)
    };
    if !registry.chars().all(in_registry) || !path.split('/').all(is_part) || text.len() > 255 {
        return bad(
            "the registry is a host, and what follows it lower-case letters, digits, '.', '_' and '-' between slashes",
        );
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images() {
        let digest = format!("registry.example/a@sha256:{}", "ab".repeat(32));
        for good in
            ["registry.k8s.io/coredns/coredns:v1.12.1", "10.10.30.1:5000/dns:1", "lab.example/coredns:1", &digest]
        {
            assert_eq!(good.parse::<ImageName>().map(String::from), Ok(good.to_owned()));
        }
        let table = [
            ("coredns:1", "begins with the registry"),
            ("library/coredns:1", "begins with the registry"),
            ("registry.example/coredns", "neither a tag nor a digest"),
            ("registry.example:5000/coredns", "neither a tag nor a digest"),
            ("registry.example/coredns:", "its tag"),
            ("registry.example/coredns:a b", "its tag"),
            ("registry.example/CoreDNS:1", "lower-case"),
            ("registry.example/../x:1", "lower-case"),
            ("registry.example//x:1", "lower-case"),
            ("registry.example/x@sha256:12", "64 hexadecimal digits"),
        ];
        for (bad, why) in table {
            let error = bad.parse::<ImageName>().expect_err(bad).to_string();
            assert!(error.contains(why), "{bad}: {error}");
        }
    }

    #[test]
    fn labels() {
        for good in ["rack", "example.com/rack", "x.node.kubernetes.io/pool", "topology.kubernetes.io/zone", "a.B_c-1"]
        {
            assert_eq!(good.parse::<LabelKey>().map(String::from), Ok(good.to_owned()));
        }
        let table = [
            ("", "letters"),
            ("-rack", "letters"),
            ("ra ck", "letters"),
            ("Example/rack", "DNS domain"),
            ("/rack", "DNS domain"),
            ("node-role.kubernetes.io/worker", "kubectl label"),
            ("x.k8s.io/y", "kubectl label"),
            ("topology.kubernetes.io/rack", "kubectl label"),
            ("failure-domain.kubernetes.io/zone", "kubectl label"),
        ];
        for (bad, why) in table {
            let error = bad.parse::<LabelKey>().expect_err(bad).to_string();
            assert!(error.contains(why), "{bad}: {error}");
        }
        assert!("".parse::<LabelValue>().is_ok() && "r1".parse::<LabelValue>().is_ok());
        assert!("a,b".parse::<LabelValue>().is_err() && "r1.".parse::<LabelValue>().is_err());
    }

    #[test]
    fn names_of_pairs_and_users() {
        assert!("ingress".parse::<CertName>().is_ok());
        for bad in ["", "a/b", "Ingress", "x.pem", ".x"] {
            assert!(bad.parse::<CertName>().is_err(), "{bad}");
        }
        assert!("system:masters".parse::<CommonName>().is_ok());
        assert!("".parse::<CommonName>().is_err() && "a\nb".parse::<CommonName>().is_err());
        assert!("x".repeat(65).parse::<CommonName>().is_err());
    }
}
