//! A whole cluster of real machines: from an operator's `cluster.yaml`, by what `nodeagent cloud-config` makes of it.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use nix::sys::statvfs::statvfs;
use serde_json::{Value, json};

use super::{
    AGENT, Lab, SERVICES, digest, image,
    kubernetes::{self, VERSION},
    net::CONTROLLER,
    node::Node,
    process::{self, wait_until},
    release::ETCD,
    stand_in,
    timeline::{self, Times},
};

/// From power-on until Kubernetes says of every machine that it is ready: on a busy machine.
const READY: Duration = Duration::from_mins(5);

/// For a command of the operator's.
const OPERATOR: Duration = Duration::from_secs(30);

/// Where the mirror has the images of the pods.
const PODS: &str = "pods.tar.gz";

/// Which machine has which bootstrap token, in the inventory.
const TOKENS: &str = "bootstrap-tokens.yaml";

/// A machine of a cluster, as its `cluster.yaml` lists it.
#[derive(Debug, Clone, Copy)]
pub struct Machine {
    /// Its name.
    pub name: &'static str,
    /// What it is for.
    pub role: &'static str,
    /// Its address.
    pub address: &'static str,
}

/// One controller with its own etcd, and two workers.
pub const THREE: [Machine; 3] = [
    Machine { name: "controller-1", role: "controller", address: CONTROLLER },
    Machine { name: "worker-1", role: "worker", address: "10.10.30.21" },
    Machine { name: "worker-2", role: "worker", address: "10.10.30.22" },
];

/// A cluster's machines, and its operator's directory.
pub struct Cluster<'lab> {
    /// The machines, by name: those that are not booted yet as well.
    pub nodes: BTreeMap<&'static str, Node<'lab>>,
    /// When each was powered on.
    pub powered_on: Times,
    /// The controller that the operator asks, where the cluster's name for them means nothing on this machine.
    pub server: Option<&'static str>,
    lab: &'lab Lab,
    directory: PathBuf,
    inventory: PathBuf,
    kubectl: PathBuf,
}

/// The `cluster.yaml` of these machines, with the real programs of Kubernetes and the images of the lab's pods.
pub fn yaml(lab: &Lab, machines: &[Machine]) -> Result<String> {
    let lock = lab.lay_out_real(VERSION)?;
    let pods = image::of_pods(&fs::read(stand_in(&lab.agent)?).context("read the stand-in")?)?;
    fs::write(lab.docroot().join(PODS), &pods).context("write the pods' images")?;
    let node =
        |Machine { name, role, address }: &Machine| format!("  {name}: {{ role: {role}, address: {address} }}\n");
    let nodes: Vec<String> = machines.iter().map(node).collect();
    Ok(format!(
        "apiVersion: nodeagent.io/v1alpha1\n\
         kind: Cluster\n\
         apiServer: https://{CONTROLLER}:6443\n\
         agent:\n\
         \x20 url: http://{SERVICES}/{AGENT}\n\
         \x20 sha256: {agent}\n\
         kubernetes:\n\
         \x20 version: {VERSION}\n\
         \x20 mirrors: [http://{SERVICES}/release]\n\
         \x20 lock: {{ url: http://{SERVICES}/release/{VERSION}.lock.json, sha256: {lock} }}\n\
         \x20 artifacts: {{ etcd: {{ version: {ETCD} }} }}\n\
         \x20 images: {{ pods: {{ url: http://{SERVICES}/{PODS}, sha256: {pods} }} }}\n\
         nodes:\n{}",
        nodes.concat(),
        agent = lab.agent_digest,
        pods = digest(&pods),
    ))
}

/// Kubelets evict pods while less than 15 % of the file system with their images is free, and all of them have this one.
fn ensure_room(cache: &Path) -> Result<()> {
    const LEAST: u64 = 16;
    let of = statvfs(cache).with_context(|| format!("look at the file system of {}", cache.display()))?;
    let free = of.blocks_available() * 100 / of.blocks().max(1);
    ensure!(
        free >= LEAST,
        "{free} % of the file system of {} is free: make it {LEAST}, or no pod stays",
        cache.display()
    );
    Ok(())
}

impl<'lab> Cluster<'lab> {
    /// Runs `nodeagent cloud-config` on `yaml`, and makes the machines that it lists, each with what an operator would
    /// carry to it. None is booted.
    pub fn new(lab: &'lab Lab, yaml: &str, machines: &[Machine]) -> Result<Self> {
        ensure_room(lab.cache())?;
        let directory = lab.directory().join("operator");
        fs::create_dir_all(&directory).with_context(|| format!("create {}", directory.display()))?;
        let kubectl = kubernetes::programs(lab.cache())?.join("kubectl");
        // It is the controller's own.
        lab.net().give_up(CONTROLLER)?;
        let inventory = directory.join("inventory");
        let mut cluster = Self {
            nodes: BTreeMap::new(),
            powered_on: BTreeMap::new(),
            server: None,
            lab,
            directory,
            inventory,
            kubectl,
        };
        let made = cluster.cloud_config(yaml)?;
        for machine in machines {
            let node = cluster.make(*machine, &made["nodes"][machine.name])?;
            cluster.nodes.insert(machine.name, node);
        }
        Ok(cluster)
    }

    /// Writes `cluster.yaml`, and has the agent make the inventory of it. Returns what it says it made.
    pub fn cloud_config(&self, yaml: &str) -> Result<Value> {
        let file = self.directory.join("cluster.yaml");
        fs::write(&file, yaml).with_context(|| format!("write {}", file.display()))?;
        let mut command =
            vec![self.lab.agent.clone(), "cloud-config".into(), file, "--to".into(), self.inventory.clone()];
        command.extend(["--output".into(), "json".into()]);
        let made = process::ok(&command, OPERATOR).context("make the inventory")?;
        serde_json::from_str(&made).with_context(|| format!("read what cloud-config printed: {made}"))
    }

    /// A machine with its user-data as it was made, and with the secret files that `made` lists, carried to its disk.
    fn make(&self, machine: Machine, made: &Value) -> Result<Node<'lab>> {
        let user_data = self.inventory.join(machine.name).join("user-data");
        let bytes = fs::read(&user_data).with_context(|| format!("read {}", user_data.display()))?;
        let node = self.lab.node(machine.name, machine.address).user_data(&bytes).create()?;
        for secret in made["secrets"].as_array().context("a list of secrets")? {
            let text = |key: &str| secret[key].as_str().with_context(|| format!("a secret's {key}"));
            let bytes = fs::read(text("file")?).with_context(|| format!("read {secret}"))?;
            node.write_as(text("path")?, &bytes, u32::from_str_radix(text("mode")?, 8)?)?;
        }
        Ok(node)
    }

    /// A machine's configuration, as it was made last.
    pub fn node_yaml(&self, name: &str) -> Result<Vec<u8>> {
        self.made(&format!("{name}/node.yaml"))
    }

    /// A file of the inventory.
    pub fn made(&self, path: &str) -> Result<Vec<u8>> {
        let file = self.inventory.join(path);
        fs::read(&file).with_context(|| format!("read {}", file.display()))
    }

    /// Has the operator's list say that a machine's token is over, as it will when its time has come.
    pub fn let_expire(&self, name: &str) -> Result<()> {
        let file = self.inventory.join(TOKENS);
        let text = String::from_utf8(self.made(TOKENS)?)?;
        let at = text.find(&format!("{name}:")).with_context(|| format!("no token for {name}"))?;
        let of_machine = text[at..].find("expires:").with_context(|| format!("no end for {name}'s token"))?;
        let (before, after) = text.split_at(at + of_machine);
        let year = after.find("20").context("a time of this century")?;
        let text = format!("{before}{}19{}", &after[..year], &after[year + 2..]);
        fs::write(&file, text).with_context(|| format!("write {}", file.display()))
    }

    /// The bootstrap token that was made for a machine.
    pub fn token(&self, name: &str) -> Result<String> {
        let text = String::from_utf8(self.made(TOKENS)?)?;
        let of_machine = text.split_once(&format!("{name}:")).with_context(|| format!("no token for {name}"))?.1;
        let token = of_machine.split_once("token:").with_context(|| format!("no token for {name}"))?.1;
        let token = token.split([',', '\n', '}']).next().unwrap_or_default();
        Ok(token.trim().trim_matches(['"', '\'']).to_owned())
    }

    /// Powers machines on, all at once.
    pub fn power_on(&mut self, names: &[&'static str]) -> Result<()> {
        for name in names {
            let node = self.nodes.get_mut(name).with_context(|| format!("no machine {name}"))?;
            self.powered_on.insert(name, timeline::now()?);
            node.power_on()?;
        }
        Ok(())
    }

    /// Shuts machines down, all at once.
    pub fn power_off(&mut self, names: &[&'static str]) -> Result<()> {
        for name in names {
            self.node(name)?.begin_power_off()?;
        }
        names.iter().try_for_each(|name| self.node_mut(name)?.end_power_off())
    }

    /// A machine.
    pub fn node(&self, name: &str) -> Result<&Node<'lab>> {
        self.nodes.get(name).with_context(|| format!("no machine {name}"))
    }

    /// A machine, to power it on and off.
    pub fn node_mut(&mut self, name: &str) -> Result<&mut Node<'lab>> {
        self.nodes.get_mut(name).with_context(|| format!("no machine {name}"))
    }

    /// Runs kubectl on the operator's machine as an administrator, and returns what it printed.
    pub fn kubectl(&self, args: &[&str]) -> Result<String> {
        self.kubectl_by(&self.kubectl, args)
    }

    /// The same, by a kubectl of the caller's.
    pub fn kubectl_by(&self, kubectl: &Path, args: &[&str]) -> Result<String> {
        let config = format!("--kubeconfig={}", self.inventory.join("admin.conf").display());
        let home = format!("HOME={}", self.directory.display());
        let kubectl = kubectl.to_str().context("a path in UTF-8")?;
        let server = self.server.map(|address| format!("--server=https://{address}:6443"));
        let command = ["env", "--ignore-environment", &home, kubectl, &config];
        let command = [&command[..], &server.iter().map(String::as_str).collect::<Vec<_>>(), args].concat();
        process::ok(&self.lab.net().inside(&command), OPERATOR)
    }

    /// The same, of what is printed as JSON.
    pub fn get(&self, args: &[&str]) -> Result<Value> {
        let text = self.kubectl(&[&["get", "--output=json"], args].concat())?;
        serde_json::from_str(&text).with_context(|| format!("read what kubectl get {} printed", args.join(" ")))
    }

    /// Brings objects into being.
    pub fn apply(&self, objects: &[Value]) -> Result<()> {
        let list = json!({ "apiVersion": "v1", "kind": "List", "items": objects });
        let file = self.directory.join("apply.json");
        fs::write(&file, list.to_string()).with_context(|| format!("write {}", file.display()))?;
        self.kubectl(&["apply", "-f", file.to_str().context("a path in UTF-8")?]).map(drop)
    }

    /// Waits until Kubernetes says that these machines are ready, each in the boot that it is in. Returns when it first
    /// said so of each.
    pub fn wait_until_ready(&self, names: &[&'static str]) -> Result<Times> {
        let mut ready = Times::new();
        wait_until("all machines to be ready", READY, || {
            let nodes = self.get(&["nodes"])?;
            let nodes = nodes["items"].as_array().context("a list of nodes")?;
            let (now, mut reasons) = (timeline::now()?, Vec::new());
            for name in names {
                let node = nodes.iter().find(|node| node["metadata"]["name"] == *name);
                match node.map_or(Err("is unknown".to_owned()), |node| self.is_ready(name, node)) {
                    Ok(()) => {
                        ready.entry(*name).or_insert(now);
                    }
                    Err(reason) => reasons.push(format!("{name} {reason}")),
                }
            }
            ensure!(reasons.is_empty(), "{}", reasons.join("; "));
            Ok(())
        })
        .with_context(|| self.last_words(names))?;
        Ok(ready)
    }

    /// Whether the kubelet of this boot says that it is ready.
    fn is_ready(&self, name: &str, node: &Value) -> Result<(), String> {
        let conditions = node["status"]["conditions"].as_array().into_iter().flatten();
        let ready = conditions.into_iter().find(|condition| condition["type"] == "Ready");
        let Some(ready) = ready else { return Err("has no condition Ready".to_owned()) };
        if ready["status"] != "True" {
            return Err(format!("is not ready: {}", ready["message"]));
        }
        let boot = self.node(name).and_then(|node| node.read("/proc/sys/kernel/random/boot_id"));
        let boot = boot.map_err(|error| format!("{error:#}"))?;
        if node["status"]["nodeInfo"]["bootID"] == *String::from_utf8_lossy(&boot).trim() {
            Ok(())
        } else {
            Err("was ready before it was booted".to_owned())
        }
    }

    /// The ends of what the agents of these machines said.
    fn last_words(&self, names: &[&str]) -> String {
        let of = |name: &&str| {
            let tail = ["journalctl", "--no-pager", "--lines=12", "--output=cat"];
            let units = ["--unit=nodeagent.service", "--unit=nodeagent-fetch.service", "--unit=kubelet.service"];
            let said = self.node(name).and_then(|node| node.ok(&[&tail[..], &units].concat()));
            format!("{name}'s last words:\n{}", said.unwrap_or_else(|error| format!("{error:#}")))
        };
        names.iter().map(of).collect()
    }

    /// Waits until a machine's kubelet has renewed its lease, which it does every ten seconds as long as it works.
    pub fn wait_for_heartbeat(&self, name: &str) -> Result<()> {
        let lease = || -> Result<Value> {
            Ok(self.get(&["lease", "--namespace=kube-node-lease", name])?["spec"]["renewTime"].clone())
        };
        let before = lease()?;
        wait_until(&format!("a heartbeat of {name}"), READY, || {
            let now = lease()?;
            ensure!(now != before, "the last one is of {before}");
            Ok(())
        })
    }

    /// Starts a pod that greets on each of these machines, and waits until each of them is greeted by the others' pods, which
    /// it knows by their own addresses, and by their machines. Returns whose pod asked, and what the one that it asked said.
    pub fn pods_reach_each_other(&self, names: &[&'static str]) -> Result<Vec<(&'static str, String)>> {
        let pod = |name: &&str| {
            json!({
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": { "name": greeter(name), "labels": { "app": "greeter" } },
                "spec": {
                    "nodeSelector": { "kubernetes.io/hostname": name },
                    "terminationGracePeriodSeconds": 0,
                    "containers": [{ "name": "greeter", "image": image::GREETER, "imagePullPolicy": "Never" }],
                },
            })
        };
        self.apply(&names.iter().map(pod).collect::<Vec<_>>())?;
        let mut greetings = Vec::new();
        for name in names {
            for other in names.iter().filter(|other| *other != name) {
                let said = wait_until(&format!("{other}'s pod to be greeted by {name}'s"), READY, || {
                    // Asked each time: a pod whose machine was booted again gets another one.
                    let [asked, asking] = [name, other].map(|name| self.pod_address(&greeter(name)));
                    let (url, asking) = (format!("http://{}:8080/", asked?), asking?);
                    let said = self.kubectl(&["exec", &greeter(other), "--", "/greeter", "fetch", &url])?;
                    ensure!(said == greeting(name, &asking), "asked from {asking} it said: {said}");
                    // As the API server asks a webhook: a machine, not a pod of it.
                    let heard = self.node(other)?.ok(&["curl", "--silent", "--show-error", "--max-time", "2", &url])?;
                    ensure!(heard.starts_with(&format!("this is {}, ", greeter(name))), "to {other} it said: {heard}");
                    Ok(said)
                })?;
                greetings.push((*other, said));
            }
        }
        Ok(greetings)
    }

    /// The address of a pod that runs.
    pub fn pod_address(&self, pod: &str) -> Result<String> {
        let pod = self.get(&["pod", pod])?;
        ensure!(pod["status"]["phase"] == "Running", "it is {}", pod["status"]);
        pod["status"]["podIP"].as_str().map(str::to_owned).context("it has no address")
    }
}

/// The name of the pod that greets on a machine.
pub fn greeter(machine: &str) -> String {
    format!("greeter-{machine}")
}

/// What the pod that greets on a machine says to whom it sees at this address.
pub fn greeting(machine: &str, asking: &str) -> String {
    format!("this is {}, asked by {asking}\n", greeter(machine))
}
