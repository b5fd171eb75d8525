//! One machine's first boot, in the formats that machines read.
//!
//! All of them do the same, and no more: they write the node's configuration and its own secrets, have the agent
//! fetched and its digest checked, and start it without waiting for it.

use serde_json::{Map, Value, json};

use super::yaml;
use crate::config::cluster::Agent;

/// The agent's units, as they are in the repository.
const FETCH: (&str, &str) = ("nodeagent-fetch.service", include_str!("../../../units/nodeagent-fetch.service"));
const START: (&str, &str) = ("nodeagent.service", include_str!("../../../units/nodeagent.service"));
const TIMER: (&str, &str) = ("nodeagent.timer", include_str!("../../../units/nodeagent.timer"));

/// The link by which the agent is called.
const LINK: &str = "/opt/bin/nodeagent";

/// A file that a machine gets at its first boot.
#[derive(Debug, Clone)]
pub(super) struct File {
    /// Where.
    pub path: String,
    /// Its permission bits.
    pub mode: u32,
    /// Its content.
    pub content: String,
}

/// What a machine gets at its first boot.
pub(super) struct Boot<'c> {
    /// One line that says who wrote it, and for whom.
    pub header: String,
    /// The configuration, certificates and the machine's own secrets.
    pub files: Vec<File>,
    /// The agent to run.
    pub agent: &'c Agent,
}

impl Boot<'_> {
    /// For cloud-init.
    pub fn cloud_init(&self) -> String {
        let unit = |(name, text): (&str, &str)| File {
            path: format!("/etc/systemd/system/{name}"),
            mode: 0o644,
            content: text.to_owned(),
        };
        let files = self.files.iter().cloned().chain(self.fetched()).chain([unit(FETCH), unit(START)]);
        self.cloud_config(json!({
            "write_files": files.map(|file| written(&file)).collect::<Vec<_>>(),
            "runcmd": [
                ["systemctl", "daemon-reload"],
                // Later boots start it as well.
                ["systemctl", "enable", START.0],
                // cloud-init flushes nothing of what it writes, and remembers that it wrote it: a power cut from here on
                // must not leave an empty node.yaml for good.
                ["sync"],
                // Not waited for: cloud-init has its own deadlines, and other work.
                ["systemctl", "start", "--no-block", START.0],
            ],
        }))
    }

    /// For coreos-cloudinit, which waits for the units that it starts: it starts a timer.
    pub fn coreos(&self) -> String {
        let files = self.files.iter().cloned().chain(self.fetched());
        let unit = |(name, text): (&str, &str)| json!({ "name": name, "content": text });
        let (timer, text) = TIMER;
        self.cloud_config(json!({
            "write_files": files.map(|file| written(&file)).collect::<Vec<_>>(),
            "coreos": {
                "units": [
                    unit(FETCH),
                    unit(START),
                    { "name": timer, "enable": true, "command": "start", "content": text },
                ],
            },
        }))
    }

    /// For Butane, which makes Ignition's configuration of it.
    pub fn butane(&self) -> String {
        let mut config = Map::new();
        config.insert("variant".to_owned(), "flatcar".into());
        config.insert("version".to_owned(), "1.0.0".into());
        config.extend(self.ignited(|content| json!({ "inline": content })));
        format!("# {}\n{}", self.header, yaml::print(&config))
    }

    /// For Ignition: what Butane would make of [`Self::butane`], without Butane.
    pub fn ignition(&self) -> String {
        let mut config = Map::new();
        // What Butane's flatcar 1.0.0 stands for; the digests are from 3.2.0 on.
        config.insert("ignition".to_owned(), json!({ "version": "3.3.0" }));
        config.extend(self.ignited(|content| json!({ "source": data_url(content) })));
        format!("{:#}\n", Value::Object(config))
    }

    /// What Butane and Ignition have in common. Ignition itself fetches the agent and checks its digest, so that there is
    /// nothing to fetch when the machine is up.
    fn ignited(&self, contents: impl Fn(&str) -> Value) -> Map<String, Value> {
        let agent = self.place();
        let file = |file: &File| {
            json!({
                "path": file.path,
                // A machine that is set up again may have the last one's.
                "overwrite": true,
                "mode": file.mode,
                "contents": contents(&file.content),
            })
        };
        let fetched = json!({
            "path": agent,
            "overwrite": true,
            "mode": 0o755,
            "contents": {
                "source": self.agent.url,
                "verification": { "hash": format!("sha256-{}", self.agent.sha256) },
            },
        });
        let files: Vec<Value> = self.files.iter().map(file).chain([fetched]).collect();
        let (name, text) = START;
        let config = json!({
            "storage": {
                "files": files,
                "links": [{ "path": LINK, "overwrite": true, "target": agent, "hard": false }],
            },
            "systemd": { "units": [{ "name": name, "enabled": true, "contents": text }] },
        });
        config.as_object().cloned().unwrap_or_default()
    }

    /// Where the agent is kept, in a directory that is named by its digest.
    fn place(&self) -> String {
        format!("/opt/nodeagent/releases/nodeagent/{}/bin/nodeagent", self.agent.sha256)
    }

    /// What `nodeagent-fetch.service` reads.
    fn fetched(&self) -> [File; 2] {
        let Agent { url, sha256 } = self.agent;
        let file = |path: &str, content| File { path: path.to_owned(), mode: 0o644, content };
        [
            file("/etc/nodeagent/agent.env", format!("NODEAGENT_URL={url}\nNODEAGENT_SHA256={sha256}\n")),
            file("/etc/nodeagent/nodeagent.sha256", format!("{sha256}  /opt/nodeagent/partial/nodeagent\n")),
        ]
    }

    fn cloud_config(&self, config: Value) -> String {
        let config = config.as_object().cloned().unwrap_or_default();
        // The first line must be this one alone.
        format!("#cloud-config\n# {}\n{}", self.header, yaml::print(&config))
    }
}

/// A file as cloud-init and coreos-cloudinit write it.
fn written(file: &File) -> Value {
    json!({ "path": file.path, "permissions": format!("{:04o}", file.mode), "content": file.content })
}

/// A text as a URL of its own (RFC 2397).
pub(super) fn data_url(text: &str) -> String {
    format!("data:,{}", percent_encoded(text))
}

/// All but what a URL may hold anywhere (RFC 3986, unreserved, and `/`, `:` and `,`, which part nothing behind `data:,`).
pub(super) fn percent_encoded(text: &str) -> String {
    let encode = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' | b':' | b',' => {
            char::from(byte).to_string()
        }
        other => format!("%{other:02X}"),
    };
    text.bytes().map(encode).collect()
}
