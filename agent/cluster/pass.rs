//! One look after the other at all objects that are to be as they are written down.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::time::Duration;

use serde_json::Value;
use tokio::time::sleep;

use super::api::Api;
use super::apply::{Applied, Applier, ApplyError, shown};
use super::basis::Basis;
use super::core_dns;
use super::memo::Memo;
use super::objects::objects;
use super::tokens;
use crate::config::Source;
use crate::config::manifests::manifests;
use crate::config::values::RootPath;
use crate::engine::fault::{Explain as _, quote};
use crate::host::clock;
use crate::host::http::HttpError;
use crate::host::root::Root;
use crate::journal::{Event, Teller};

/// The directory of manifests.
const ADDONS: &str = "/etc/kubernetes/addons";

/// Between two passes.
const PAUSE: Duration = Duration::from_mins(1);

/// After one in which something failed: a definition of resources takes a moment to hold.
const AGAIN: Duration = Duration::from_secs(5);

/// Applies what is written down.
pub struct Pass<'a> {
    api: &'a Api<'a>,
    tell: &'a Teller,
    root: &'a Root,
    basis: &'a Basis,
    memo: Memo,
    /// What was wrong in the last pass, by object.
    wrong: BTreeMap<String, String>,
    /// What is wrong in this one.
    now: BTreeMap<String, String>,
    /// The objects of this one, each with what it was written down as.
    applied: BTreeMap<String, String>,
}

impl<'a> Pass<'a> {
    /// Reads what was done before.
    pub async fn new(api: &'a Api<'a>, tell: &'a Teller, root: &'a Root, basis: &'a Basis) -> Result<Self, HttpError> {
        let memo = Memo::load(api).await?;
        let (wrong, now, applied) = Default::default();
        Ok(Self { api, tell, root, basis, memo, wrong, now, applied })
    }

    /// Passes until the API server fails.
    pub async fn always(&mut self) -> Result<Infallible, HttpError> {
        loop {
            let mut applier = Applier::new(self.api);
            self.applied.clear();
            let settings = &self.basis.settings;
            for object in objects(settings, &self.basis.ca).into_iter().chain(core_dns::objects(settings)) {
                self.apply(&mut applier, &object, &shown(&object), false).await?;
            }
            self.tokens(&mut applier).await?;
            self.addons(&mut applier).await?;
            self.wrong = std::mem::take(&mut self.now);
            sleep(if self.wrong.is_empty() { PAUSE } else { AGAIN }).await;
        }
    }

    /// Applies one object. Only what keeps all others from being applied as well is an error.
    async fn apply(
        &mut self,
        applier: &mut Applier<'_>,
        object: &Value,
        what: &str,
        force: bool,
    ) -> Result<bool, HttpError> {
        // One that is written down twice would be changed to and fro for ever.
        if let Some(first) = self.applied.get(&identity(object)) {
            let why = format!("it is {first} already, which is what holds");
            self.complain(what, why, "take one of the two away");
            return Ok(false);
        }
        self.applied.insert(identity(object), what.to_owned());
        match applier.apply(object, force).await {
            Ok(Applied::Same) => {}
            Ok(Applied::Made) => self.tell.tell(&Event::ClusterChanged { what, how: "made" }),
            Ok(Applied::Changed) => self.tell.tell(&Event::ClusterChanged { what, how: "brought to what is wanted" }),
            Err(ApplyError::Http(error)) => return Err(error),
            Err(error) => {
                let advice = error.advice().unwrap_or_default();
                self.complain(what, error.to_string(), &advice);
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Tells what is wrong, unless it was told in the last pass.
    fn complain(&mut self, what: &str, why: String, advice: &str) {
        if self.wrong.get(what) != Some(&why) {
            self.tell.tell(&Event::ClusterObjectFailed { what, why: &why, advice });
        }
        self.now.insert(what.to_owned(), why);
    }

    async fn tokens(&mut self, applier: &mut Applier<'_>) -> Result<(), HttpError> {
        let all = match tokens::read(self.root, &clock::text(clock::now())) {
            Ok(all) => all,
            Err(error) => {
                self.complain("bootstrap tokens", error.to_string(), &error.advice().unwrap_or_default());
                return Ok(());
            }
        };
        for (node, token) in &all {
            let (key, text) = tokens::note(node, token);
            if self.memo.of(&key) != Some(&text) {
                let secret = tokens::secret(node, token);
                if self.apply(applier, &secret, &shown(&secret), true).await? {
                    self.memo.note(self.api, &key, Some(&text)).await?;
                }
            }
        }
        Ok(())
    }

    async fn addons(&mut self, applier: &mut Applier<'_>) -> Result<(), HttpError> {
        let dir = RootPath::literal(ADDONS);
        let mut names = match self.root.list(&dir) {
            Ok(names) => names,
            Err(error) => {
                self.complain(ADDONS, error.to_string(), &error.advice().unwrap_or_default());
                return Ok(());
            }
        };
        let is_manifest = |name: &String| {
            let ending = name.rsplit_once('.').map_or("", |(_, ending)| ending);
            !name.starts_with('.') && matches!(ending, "yaml" | "yml" | "json")
        };
        names.retain(is_manifest);
        for name in names {
            let Some(path) = dir.child(&name) else {
                self.complain(ADDONS, format!("{} is no name that a file can be read by", quote(&name)), "rename it");
                continue;
            };
            let file = self.root.display(&path);
            let text = match self.root.read(&path) {
                Ok(text) => text.unwrap_or_default(),
                Err(error) => {
                    self.complain(&file, error.to_string(), &error.advice().unwrap_or_default());
                    continue;
                }
            };
            let all = match manifests(&Source { name: file.clone(), text }) {
                Ok(all) => all,
                Err(problem) => {
                    let place = format!("{file}:{}:{}", problem.line, problem.column);
                    self.complain(&place, problem.message, "nothing of this file was applied");
                    continue;
                }
            };
            for manifest in all {
                let what = format!("{}:{}: {}", manifest.file, manifest.line, shown(&manifest.object));
                self.apply(applier, &manifest.object, &what, false).await?;
            }
        }
        Ok(())
    }
}

/// Which object it is, whatever it says: of one kind there is one of a name. The version of its API is not a part of that.
fn identity(object: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let api = text(&object["apiVersion"]);
    let group = api.rsplit_once('/').map_or("", |(group, _)| group);
    let meta = &object["metadata"];
    let namespace = meta["namespace"].as_str().unwrap_or("default");
    format!("{group}/{} {namespace}/{}", text(&object["kind"]), text(&meta["name"]))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_object_is_the_same_whatever_it_says() {
        let object = |api: &str, namespace: Option<&str>, name: &str| {
            let metadata = json!({ "namespace": namespace, "name": name });
            json!({ "apiVersion": api, "kind": "Deployment", "metadata": metadata })
        };
        let one = identity(&object("apps/v1", None, "coredns"));
        assert_eq!(one, identity(&object("apps/v1beta1", Some("default"), "coredns")));
        for other in [
            object("extensions/v1", None, "coredns"),
            object("apps/v1", Some("kube-system"), "coredns"),
            object("apps/v1", None, "other"),
        ] {
            assert_ne!(one, identity(&other));
        }
    }
}
