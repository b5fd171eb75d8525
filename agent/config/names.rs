//! Names of things in the cluster: labels of nodes, users, and the files of their certificates.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use super::values::{BadValue, DnsDomain, checked_string, refuse};

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
    /// The name of a pair: its file's, without `.pem`.
    CertName, "cert-name", cert_name
}

/// What kubelets may say of their own node in Kubernetes' name (kubernetes.io/docs/reference/access-authn-authz/
/// admission-controllers, `NodeRestriction`): the others are refused, and a kubelet that is given one does not start.
const KUBELETS_OWN: [&str; 10] = [
    "kubernetes.io/hostname",
    "kubernetes.io/arch",
    "kubernetes.io/os",
    "beta.kubernetes.io/instance-type",
    "node.kubernetes.io/instance-type",
    "failure-domain.beta.kubernetes.io/region",
    "failure-domain.beta.kubernetes.io/zone",
    "failure-domain.kubernetes.io/region",
    "failure-domain.kubernetes.io/zone",
    "topology.kubernetes.io/region",
];

/// The same by prefix.
const KUBELETS_PREFIXES: [&str; 3] = ["kubelet.kubernetes.io", "node.kubernetes.io", "topology.kubernetes.io"];

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels() {
        for good in ["rack", "example.com/rack", "node.kubernetes.io/pool", "topology.kubernetes.io/zone", "a.B_c-1"] {
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
