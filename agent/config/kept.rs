//! What `nodeagent cloud-config` remembers from run to run: the pod network of each machine, and the bootstrap tokens.

use std::collections::BTreeMap;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::errors::{ConfigErrors, Problem};
use super::places::Places;
use super::values::{Cidr, NodeName};
use super::{Source, check, read};

/// `allocations.yaml`: which machine got which pod network. A machine keeps it for good.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Allocations {
    /// The version of this format.
    pub api_version: ApiVersion,
    /// The kind of document.
    pub kind: AllocationsKind,
    /// The pod network of each machine, by its name.
    #[serde(default, rename = "podCIDRs")]
    #[schemars(extend("propertyNames" = { "format": "node-name" }))]
    pub pod_cidrs: BTreeMap<NodeName, Cidr>,
}

/// `bootstrap-tokens.yaml`: with what each machine may join. Controllers alone have it.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BootstrapTokens {
    /// The version of this format.
    pub api_version: ApiVersion,
    /// The kind of document.
    pub kind: TokensKind,
    /// The token of each machine, by its name.
    #[serde(default)]
    #[schemars(extend("propertyNames" = { "format": "node-name" }))]
    pub tokens: BTreeMap<NodeName, BootstrapToken>,
}

/// A machine's token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BootstrapToken {
    /// The token: six letters or digits, a dot, and sixteen.
    pub token: TokenText,
    /// Until when it can be used: RFC 3339 in UTC, to the second.
    pub expires: Moment,
}

/// The version of these formats.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
pub enum ApiVersion {
    /// The only one.
    #[default]
    #[serde(rename = "nodeagent.io/v1alpha1")]
    V1Alpha1,
}

/// The kind of `allocations.yaml`.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
pub enum AllocationsKind {
    /// The only one.
    #[default]
    Allocations,
}

/// The kind of `bootstrap-tokens.yaml`.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
pub enum TokensKind {
    /// The only one.
    #[default]
    BootstrapTokens,
}

/// A bootstrap token (kubernetes.io/docs/reference/access-authn-authz/bootstrap-tokens): its first part names it, the
/// second is the secret.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TokenText(String);

impl TokenText {
    /// The characters of a token.
    pub const ALPHABET: &[u8; 36] = b"abcdefghijklmnopqrstuvwxyz0123456789";
    /// How many of them name it, and how many are the secret.
    pub const LENGTHS: [usize; 2] = [6, 16];

    /// The whole token.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The secret is never part of a message.
impl fmt::Debug for TokenText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TokenText({}…)", &self.0[..Self::LENGTHS[0]])
    }
}

impl TryFrom<String> for TokenText {
    type Error = &'static str;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        let [id, secret] = Self::LENGTHS;
        let is_part = |part: &str, length| part.len() == length && part.bytes().all(|b| Self::ALPHABET.contains(&b));
        match text.split_once('.') {
            Some((one, two)) if is_part(one, id) && is_part(two, secret) => Ok(Self(text)),
            _ => Err("a bootstrap token is six letters or digits, a dot, and sixteen more"),
        }
    }
}

impl From<TokenText> for String {
    fn from(token: TokenText) -> String {
        token.0
    }
}

impl JsonSchema for TokenText {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "TokenText".into()
    }
    fn inline_schema() -> bool {
        true
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string" })
    }
}

/// A time as RFC 3339 in UTC, to the second: as text it sorts as time does.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Moment(String);

impl TryFrom<String> for Moment {
    type Error = &'static str;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        const FORM: &str = "0000-00-00T00:00:00Z";
        let fits = |(c, form): (char, char)| if form == '0' { c.is_ascii_digit() } else { c == form };
        if text.len() == FORM.len() && text.chars().zip(FORM.chars()).all(fits) {
            Ok(Self(text))
        } else {
            Err("a time is written as 2026-11-22T12:00:00Z here")
        }
    }
}

impl From<Moment> for String {
    fn from(moment: Moment) -> String {
        moment.0
    }
}

impl JsonSchema for Moment {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Moment".into()
    }
    fn inline_schema() -> bool {
        true
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string" })
    }
}

/// Reads one of these documents, as strictly as a configuration.
pub fn load<T: DeserializeOwned + JsonSchema>(source: Source) -> Result<T, ConfigErrors> {
    let (tree, mut problems) = read(&[source]).map_err(ConfigErrors::new)?;
    let schema = schemars::schema_for!(T).to_value();
    match check::check(&schema, &tree) {
        Ok(typed) if problems.is_empty() => serde_json::from_value(typed).map_err(|error| {
            let places = Places::of(&tree);
            ConfigErrors::new(vec![Problem::new(places.at(""), "", error.to_string())])
        }),
        Ok(_) => Err(ConfigErrors::new(problems)),
        Err(more) => {
            problems.extend(more);
            Err(ConfigErrors::new(problems))
        }
    }
}
