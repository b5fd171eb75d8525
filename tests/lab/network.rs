//! Networks as they are in the world, each built for real in a network namespace of its own, and the address that the
//! agent takes there. The table in `docs/network.md` comes from here: `UPDATE_DOCS=1` writes it anew.
//!
//! Link types that this machine's kernel may lack (bonds, VLANs, dummies) are built in a virtual machine, once; the
//! kernel's answers are kept in `tests/data/netlink`, and every run replays them.

use std::{
    fmt::Write,
    fs,
    net::IpAddr,
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::{ExitStatus, Output},
    time::Duration,
};

use anyhow::{Context, Result, anyhow, ensure};
use nodeagent::{
    config::values::RootPath,
    host::{facts::Facts, gather::netlink},
    journal::Event,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{
    bootstrap::bootstrapped,
    harness::{Lab, Node, SERVICES, WORKER, process},
};

/// For one network to be built and looked at: the resolver's patience included.
const SHAPE: Duration = Duration::from_mins(1);

/// Where the table stands in `docs/network.md`.
const TABLE: (&str, &str) = ("<!-- BEGIN table, written by the tests: UPDATE_DOCS=1 -->\n", "<!-- END table -->\n");

/// What a shape's script may call: a link with something at its other end, ready when it has a carrier.
const FUNCTIONS: &str = r#"
ready() { until ip -brief link show dev "$1" | grep -q ' UP '; do :; done; }
link() { ip link add "$1" type veth peer name "far-$1"; ip link set "far-$1" up; ip link set "$1" up; ready "$1"; }
address() { ip address add "$2" dev "$1" ${3:+$3 $4}; }
"#;

/// What every namespace begins with. Nothing answers as a name server, and asking is soon given up.
const BEGIN: &str = "hostname worker-01; ip link set lo up; \
                     echo 'options timeout:1 attempts:1' >/tmp/resolv.conf; mount --bind /tmp/resolv.conf /etc/resolv.conf";

/// Where a shape can be built.
#[derive(Clone, Copy, PartialEq)]
enum Kernel {
    /// In a namespace of this machine.
    Any,
    /// In the virtual machine, which has these link types.
    Modules,
}

/// A network, and what is to be made of it.
struct Shape {
    name: &'static str,
    kernel: Kernel,
    /// What builds it.
    build: &'static str,
    /// The configuration's `node:` and `cluster:`; nothing for none at all.
    config: Option<&'static str>,
    /// The address and a part of the reason; or a part of the error.
    want: Result<(&'static str, &'static str), &'static str>,
}

const API: Option<&str> = Some("cluster: { apiServer: 'https://10.10.30.11:6443' }");
const REMOTE: Option<&str> = Some("cluster: { apiServer: 'https://192.0.2.10:6443' }");

const fn shape(
    name: &'static str,
    config: Option<&'static str>,
    build: &'static str,
    want: Result<(&'static str, &'static str), &'static str>,
) -> Shape {
    Shape { name, kernel: Kernel::Any, build, config, want }
}

const fn in_vm(
    name: &'static str,
    config: Option<&'static str>,
    build: &'static str,
    want: Result<(&'static str, &'static str), &'static str>,
) -> Shape {
    Shape { name, kernel: Kernel::Modules, build, config, want }
}

const SHAPES: [Shape; 33] = [
    shape(
        "one link",
        API,
        "link eth0; address eth0 10.10.30.21/24; ip route add default via 10.10.30.1",
        Ok(("10.10.30.21", "source address towards 10.10.30.11:6443")),
    ),
    shape(
        "two links, the default route on the wrong one (Vagrant's NAT)",
        API,
        "link eth0; address eth0 10.0.2.15/24; ip route add default via 10.0.2.2; link eth1; address eth1 10.10.30.21/24",
        Ok(("10.10.30.21", "source address towards")),
    ),
    shape(
        "two default routes, the better one listed last",
        REMOTE,
        "link eth0; address eth0 10.0.2.15/24; link eth1; address eth1 10.10.30.21/24; \
         ip route add default via 10.0.2.2 metric 200; ip route add default via 10.10.30.1 metric 100",
        Ok(("10.10.30.21", "source address towards 192.0.2.10:6443")),
    ),
    shape(
        "a multipath default route",
        REMOTE,
        "link eth0; address eth0 10.0.2.15/24; link eth1; address eth1 10.10.30.21/24; \
         ip route add default nexthop via 10.10.30.1 dev eth1 nexthop via 10.0.2.2 dev eth0",
        Ok(("10.10.30.21", "source address towards")),
    ),
    shape(
        "a multipath default route with a preferred source",
        REMOTE,
        "link eth0; address eth0 10.0.2.15/24; link eth1; address eth1 10.10.30.21/24; \
         ip route add default src 10.0.2.15 nexthop via 10.10.30.1 dev eth1 nexthop via 10.0.2.2 dev eth0",
        Ok(("10.0.2.15", "source address towards")),
    ),
    shape(
        "policy routing: a rule sends the cluster's network by another table",
        API,
        "link eth0; address eth0 10.0.2.15/24; link eth1; address eth1 10.0.3.15/24; ip route add default via 10.0.2.2; \
         ip rule add to 10.10.30.0/24 lookup 100; ip route add default via 10.0.3.1 table 100",
        Ok(("10.0.3.15", "source address towards")),
    ),
    shape(
        "a route with a preferred source",
        API,
        "link eth0; address eth0 10.0.2.15/24; address eth0 10.0.2.77/24; \
         ip route add 10.10.30.0/24 via 10.0.2.2 src 10.0.2.77",
        Ok(("10.0.2.77", "source address towards")),
    ),
    shape(
        "several addresses on a link, the cluster in the second one's network",
        API,
        "link eth0; address eth0 192.168.7.7/24; address eth0 10.10.30.21/24; ip route add default via 192.168.7.1",
        Ok(("10.10.30.21", "source address towards")),
    ),
    shape(
        "several addresses on a link, and no cluster to ask about",
        None,
        "link eth0; address eth0 192.168.7.7/24; address eth0 10.0.2.15/24; ip route add default via 10.0.2.2",
        Ok(("10.0.2.15", "default route via 10.0.2.2 by eth0")),
    ),
    shape(
        "a point-to-point link",
        API,
        "link wan0; ip address add 10.8.0.6 peer 10.8.0.1 dev wan0; ip route add default dev wan0",
        Ok(("10.8.0.6", "source address towards")),
    ),
    shape(
        "a VPN's tunnel that nobody serves any more",
        API,
        "link eth0; address eth0 10.10.30.21/24; ip tuntap add tun0 mode tun; ip link set tun0 up; \
         address tun0 10.8.0.6/24; ip route add default via 10.8.0.1",
        Ok(("10.10.30.21", "source address towards")),
    ),
    shape(
        "a macvlan link",
        API,
        "link eth0; ip link add lan0 link eth0 type macvlan mode bridge; ip link set lan0 up; ready lan0; \
         address lan0 10.10.30.21/24",
        Ok(("10.10.30.21", "source address towards")),
    ),
    shape(
        "the machine's only link in a bridge, which has the address",
        API,
        "link eth0; ip link add br0 type bridge; ip link set eth0 master br0; ip link set br0 up; ready br0; \
         address br0 10.10.30.21/24; ip route add default via 10.10.30.1",
        Ok(("10.10.30.21", "source address towards")),
    ),
    shape(
        "containers, a pod network and an overlay beside it",
        API,
        "ip link add docker0 type bridge; address docker0 172.17.0.1/16; ip link set docker0 up; \
         link eth0; address eth0 10.10.30.21/24; ip link add cni0 type bridge; address cni0 10.244.1.1/24; \
         ip link add flannel.1 type vxlan id 1 dev eth0 dstport 8472; address flannel.1 10.244.1.0/32; \
         ip link set flannel.1 up; ip route add default via 10.10.30.1",
        Ok(("10.10.30.21", "source address towards")),
    ),
    shape(
        "nothing but a container bridge",
        API,
        "ip link add docker0 type bridge; address docker0 172.17.0.1/16; ip link set docker0 up",
        Err("docker0: 172.17.0.1/16: the link belongs to Docker"),
    ),
    shape(
        "the link of the cluster's network is down",
        API,
        "link eth0; address eth0 10.0.2.15/24; link eth1; address eth1 10.10.30.21/24; ip link set eth1 down; \
         ip route add default via 10.0.2.2",
        Ok(("10.0.2.15", "source address towards")),
    ),
    shape(
        "a pinned link without a carrier",
        Some("{ node: { interface: eth1 }, cluster: { apiServer: 'https://10.10.30.11:6443' } }"),
        "link eth0; address eth0 10.0.2.15/24; link eth1; address eth1 10.10.30.21/24; ip link set far-eth1 down; \
         until ip -brief link show dev eth1 | grep -q DOWN; do :; done",
        Err("eth1: 10.10.30.21/24: the link is down or has no carrier"),
    ),
    shape(
        "a pinned network",
        Some("{ node: { cidr: 10.0.2.0/24 }, cluster: { apiServer: 'https://10.10.30.11:6443' } }"),
        "link eth0; address eth0 10.0.2.15/24; link eth1; address eth1 10.10.30.21/24",
        Ok(("10.0.2.15", "inside the pinned network 10.0.2.0/24")),
    ),
    shape(
        "no default route, the API server on the link",
        API,
        "link eth0; address eth0 10.10.30.21/24",
        Ok(("10.10.30.21", "source address towards")),
    ),
    shape(
        "no default route, a route to the API server's network alone",
        REMOTE,
        "link eth0; address eth0 10.10.30.21/24; ip route add 192.0.2.0/24 via 10.10.30.1",
        Ok(("10.10.30.21", "source address towards 192.0.2.10:6443")),
    ),
    shape(
        "no default route and no cluster to ask about, but only one address",
        None,
        "link eth0; address eth0 10.10.30.21/24",
        Ok(("10.10.30.21", "only address that is fit")),
    ),
    shape(
        "a cloud that gives nothing but a /32",
        REMOTE,
        "link eth0; address eth0 203.0.113.7/32; ip route add 172.31.1.1 dev eth0; \
         ip route add default via 172.31.1.1 dev eth0",
        Ok(("203.0.113.7", "source address towards")),
    ),
    shape(
        "both families",
        API,
        "link eth0; address eth0 10.10.30.21/24; ip address add fd00::21/64 dev eth0 nodad; \
         ip route add default via 10.10.30.1",
        Ok(("10.10.30.21", "source address towards")),
    ),
    shape(
        "IPv6 alone, with addresses that are tentative and deprecated",
        Some("cluster: { apiServer: 'https://[fd00::11]:6443' }"),
        "link eth0; echo 250 >/proc/sys/net/ipv6/conf/eth0/dad_transmits; \
         ip address add fd00::13/64 dev eth0; \
         ip address add fd00::14/64 dev eth0 nodad preferred_lft 0; ip address add fd00::15/64 dev eth0 nodad",
        Ok(("fd00::15", "source address towards [fd00::11]:6443")),
    ),
    shape(
        "the API server on 127.0.0.1: the other machines tell",
        Some("cluster: { apiServer: 'https://127.0.0.1:6443', peers: { core-02: 'https://10.10.30.12:2379' } }"),
        "link eth0; address eth0 10.0.2.15/24; ip route add default via 10.0.2.2; link eth1; address eth1 10.10.30.21/24",
        Ok(("10.10.30.21", "source address towards 10.10.30.12:2379")),
    ),
    shape(
        "the API server on 127.0.0.1, and no other machine is named",
        Some("cluster: { apiServer: 'https://127.0.0.1:6443' }"),
        "link eth0; address eth0 10.0.2.15/24; ip route add default via 10.0.2.2; link eth1; address eth1 10.10.30.21/24",
        Ok(("10.0.2.15", "default route via 10.0.2.2 by eth0")),
    ),
    shape(
        "a controller that holds the API server's virtual address",
        API,
        "link eth0; address eth0 10.0.2.15/24; ip route add default via 10.0.2.2; \
         link eth1; address eth1 10.10.30.21/24; address eth1 10.10.30.11/32",
        Ok(("10.10.30.21", "own address beside the shared 10.10.30.11")),
    ),
    shape(
        "the API server's own address is the only one towards the cluster",
        API,
        "link eth0; address eth0 10.0.2.15/24; ip route add default via 10.0.2.2; link eth1; address eth1 10.10.30.11/24",
        Err("if it is this machine's for good, say so with node.cidr: 10.10.30.11/32"),
    ),
    shape(
        "the API server's name does not resolve",
        Some("cluster: { apiServer: 'https://api.example.invalid:6443' }"),
        "link eth0; address eth0 10.0.2.15/24; ip route add default via 10.0.2.2",
        Err("api.example.invalid:6443: the name does not resolve"),
    ),
    shape(
        "the machine's network lies in the pod network",
        API,
        "link eth0; address eth0 10.0.2.15/24; link eth1; address eth1 10.244.3.7/24; \
         ip route add default via 10.0.2.2; ip route add 10.10.30.0/24 via 10.244.3.1",
        Err("inside the pod network 10.244.0.0/16"),
    ),
    in_vm(
        "a bond",
        API,
        "link port0; link port1; ip link add bond0 type bond mode active-backup miimon 100; \
         for port in port0 port1; do ip link set $port down; ip link set $port master bond0; done; \
         ip link set bond0 up; ready bond0; address bond0 10.10.30.21/24; ip route add default via 10.10.30.1",
        Ok(("10.10.30.21", "source address towards")),
    ),
    in_vm(
        "a VLAN beside the untagged network",
        API,
        "link eth0; address eth0 10.0.2.15/24; ip route add default via 10.0.2.2; \
         ip link add eth0.30 link eth0 type vlan id 30; ip link set eth0.30 up; ready eth0.30; \
         address eth0.30 10.10.30.21/24",
        Ok(("10.10.30.21", "source address towards")),
    ),
    in_vm(
        "a load balancer's address on a dummy link",
        API,
        "link eth0; address eth0 10.10.30.21/24; ip route add default via 10.10.30.1; \
         ip link add lb0 type dummy; ip link set lb0 up; address lb0 10.10.30.11/32",
        Ok(("10.10.30.21", "default route via 10.10.30.1 by eth0")),
    ),
];

impl Shape {
    /// The file's name of what is recorded of it.
    fn slug(&self) -> String {
        self.name
            .split(|c: char| !c.is_ascii_alphanumeric())
            .filter(|word| !word.is_empty())
            .collect::<Vec<_>>()
            .join("-")
    }

    /// The script that builds it and asks `agent` what it makes of it.
    fn script(&self, agent: &str, root: &str) -> String {
        let build = self.build;
        format!("set -e\n{FUNCTIONS}\n{BEGIN}\n{build}\nexec {agent} network --dry-run --output json --root {root}")
    }

    /// The tree with the shape's configuration, as `--root` wants it.
    fn root(&self, directory: &Path) -> Result<PathBuf> {
        let root = directory.join(self.slug());
        let etc = root.join("etc/nodeagent");
        fs::create_dir_all(etc.join("node.d")).with_context(|| format!("create {}", etc.display()))?;
        if let Some(config) = self.config {
            fs::write(etc.join("node.yaml"), COMMON)?;
            fs::write(etc.join("node.d/shape.yaml"), config)?;
        }
        Ok(root)
    }

    /// Compares what the agent said with what is wanted, and returns the row of the table.
    fn judge(&self, output: &Output) -> Result<String> {
        let told = String::from_utf8_lossy(&output.stderr);
        let name = self.name;
        match self.want {
            Ok((address, why)) => {
                ensure!(output.status.success(), "{name}: {told}");
                let said: Value =
                    serde_json::from_slice(&output.stdout).with_context(|| format!("{name}: read JSON"))?;
                let who = if said["identity"].is_object() { &said["identity"] } else { &said };
                let reason = who["why"].as_str().unwrap_or_default();
                ensure!(who["address"] == address && reason.contains(why), "{name}: {who:#}");
                let v6 = who["ipv6"].as_str().filter(|v6| *v6 != address);
                let v6 = v6.map(|v6| format!(", beside it {v6}")).unwrap_or_default();
                Ok(format!("| {name} | {} | {address}{v6} | {reason} |\n", has(&said["facts"])))
            }
            Err(part) => {
                ensure!(!output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stdout));
                ensure!(told.contains(part), "{name}: no {part:?} in:\n{told}");
                let links: Vec<String> = told.lines().filter_map(surveyed).collect();
                Ok(format!("| {name} | {} | none | {part} |\n", links.join(", ")))
            }
        }
    }
}

/// A line of an error, `  eth0: 10.0.2.15/24: usable, …`, as `eth0 10.0.2.15/24`.
fn surveyed(line: &str) -> Option<String> {
    let (name, rest) = line.strip_prefix("  ")?.split_once(": ")?;
    let (address, _) = rest.split_once(": ")?;
    let told = name != "lo" && address.contains('/') && !address.contains(' ') && !address.starts_with("fe80:");
    told.then(|| format!("{name} {address}"))
}

/// What a machine has, as a row of the table says it.
fn has(facts: &Value) -> String {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mut parts = Vec::new();
    for link in list(&facts["links"]).iter().filter(|link| link["loopback"] == false) {
        for address in list(&link["addresses"]) {
            let ip = text(&address["ip"]);
            if !ip.starts_with("fe80:") {
                let flaw = address["flaw"].as_str().map(|flaw| format!(" ({flaw})")).unwrap_or_default();
                let down = if link["up"] == true { "" } else { " (down)" };
                parts.push(format!("{} {ip}/{}{flaw}{down}", text(&link["name"]), address["prefix"]));
            }
        }
    }
    for route in list(&facts["defaultRoutes"]) {
        let via = route["gateway"].as_str().map(|via| format!(" via {via}")).unwrap_or_default();
        let metric = if route["metric"] == 0 { String::new() } else { format!(" metric {}", route["metric"]) };
        parts.push(format!("default{via} by {}{metric}", text(&route["link"])));
    }
    parts.join(", ")
}

/// What the shapes' configurations have in common.
const COMMON: &str = "\
apiVersion: nodeagent.io/v1alpha1
kind: NodeConfig
role: worker
kubernetes:
  version: v1.34.2
  artifacts:
    kubelet: {sha256: aaaa1111aaaa1111aaaa1111aaaa1111aaaa1111aaaa1111aaaa1111aaaa1111}
    kube-proxy: {sha256: bbbb2222bbbb2222bbbb2222bbbb2222bbbb2222bbbb2222bbbb2222bbbb2222}
    kubectl: {sha256: abcdabcdabcdabcdabcdabcdabcdabcdabcdabcdabcdabcdabcdabcdabcdabcd}
pki:
  ca: /etc/kubernetes/pki/ca.pem
  signer: {cfssl: {url: 'https://10.10.30.1:8888', authKeyFile: /etc/nodeagent/key, acceptAdminEquivalentKey: true}}
";

/// Runs a script with a network, a hostname and mounts of its own: all is gone with its last process.
fn apart(script: &str) -> Result<Output> {
    let apart = ["unshare", "--net", "--uts", "--mount", "--propagation", "private", "sh", "-c"];
    // Nothing that is mounted or written there is anybody else's.
    let script = format!("mount -t tmpfs tmpfs /tmp\n{script}");
    process::output(&[&apart[..], &[&script]].concat(), SHAPE)
}

fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

#[test]
fn every_shape_has_its_address_and_the_document_says_so() -> Result<()> {
    let agent = Lab::binary()?;
    let directory = tempfile::Builder::new().prefix("nodeagent-shapes-").tempdir_in("/var/tmp")?;
    let mut table = String::from("| network | what the machine has | address | reason |\n| --- | --- | --- | --- |\n");
    for shape in &SHAPES {
        let row = match shape.kernel {
            Kernel::Any => {
                let root = shape.root(directory.path())?;
                let output = apart(&shape.script(&agent.display().to_string(), &root.display().to_string()))?;
                shape.judge(&output)?
            }
            // What the virtual machine's kernel answered, read anew.
            Kernel::Modules => {
                let root = shape.root(directory.path())?;
                let facts = root.join("facts.json");
                fs::write(&facts, serde_json::to_vec(&Recording::load(shape)?.facts()?)?)?;
                let agent = agent.display().to_string();
                let (root, facts) = (root.display().to_string(), facts.display().to_string());
                let args = ["network", "--dry-run", "--output", "json", "--root", &root, "--facts", &facts];
                shape.judge(&process::output(&[&[agent.as_str()][..], &args].concat(), SHAPE)?)?
            }
        };
        table.write_str(&row)?;
    }
    compare_with_document(&table)
}

/// The table in the document is this one; with `UPDATE_DOCS=1` it becomes so.
fn compare_with_document(table: &str) -> Result<()> {
    let path = repository("docs/network.md");
    let document = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    let (before, rest) = document.split_once(TABLE.0).context("the document has no place for the table")?;
    let (now, after) = rest.split_once(TABLE.1).context("the document's table has no end")?;
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(&path, [before, TABLE.0, table, TABLE.1, after].concat())?;
        return Ok(());
    }
    ensure!(now == table, "docs/network.md is out of date (UPDATE_DOCS=1 writes it); it should say:\n{table}");
    Ok(())
}

/// What a kernel answered the agent, and what the agent took for the facts.
#[derive(Serialize, Deserialize)]
struct Recording {
    /// The answers to the requests for links, addresses and routes, in hexadecimal digits.
    answers: [String; 3],
    facts: Facts,
}

impl Recording {
    fn path(shape: &Shape) -> PathBuf {
        repository("tests/data/netlink").join(format!("{}.json", shape.slug()))
    }

    fn load(shape: &Shape) -> Result<Self> {
        let path = Self::path(shape);
        let text = fs::read(&path).with_context(|| format!("read {}", path.display()))?;
        serde_json::from_slice(&text).with_context(|| format!("read {}", path.display()))
    }

    /// The facts, with what the kernel answered read anew; it must say what it said when it was recorded.
    fn facts(self) -> Result<Facts> {
        let answers = self.answers.map(|hex| {
            let byte = |pair: &[u8]| -> Result<u8> { Ok(u8::from_str_radix(str::from_utf8(pair)?, 16)?) };
            hex.as_bytes().chunks(2).map(byte).collect::<Result<Vec<u8>>>()
        });
        let [links, addresses, routes] = answers;
        let network = netlink::replay(&links?, &addresses?, &routes?)?;
        ensure!(network.links == self.facts.links, "read as {:?}, not {:?}", network.links, self.facts.links);
        ensure!(network.default_routes == self.facts.default_routes, "read as {:?}", network.default_routes);
        Ok(Facts { links: network.links, default_routes: network.default_routes, ..self.facts })
    }

    /// What strace saw: the bytes of each datagram as lines of ` | OFFSET  HEX…  text |`.
    fn of(strace: &str, facts: Facts) -> Result<Self> {
        let mut answers = Vec::new();
        let mut answer = String::new();
        for datagram in strace.split("recvfrom(").skip(1) {
            let rows = datagram.lines().filter_map(|line| line.strip_prefix(" | ")?.get(7..56));
            let bytes: String = rows.flat_map(str::split_whitespace).collect();
            // The message that ends a dump: 20 bytes of type 3.
            let ends = bytes.starts_with("140000000300")
                || bytes.len() >= 40 && bytes[bytes.len() - 40..].starts_with("140000000300");
            answer.push_str(&bytes);
            if ends {
                answers.push(std::mem::take(&mut answer));
            }
        }
        let answers = <[String; 3]>::try_from(answers).map_err(|found| anyhow!("{} dumps: {strace}", found.len()))?;
        Ok(Self { answers, facts })
    }
}

/// Runs each shape that this machine's kernel may lack in a virtual machine; `UPDATE_DOCS=1` keeps what it answered.
#[test]
fn link_types_of_another_kernel() -> Result<()> {
    Lab::run("vm-network", |lab| {
        let shapes: Vec<&Shape> = SHAPES.iter().filter(|shape| shape.kernel == Kernel::Modules).collect();
        let mut files = Vec::new();
        let mut file = |path: String, content: String| files.push(json!({ "path": path, "content": content }));
        let mut all = format!(
            "mkdir -p /opt/bin && curl --silent --fail --output /opt/bin/nodeagent http://{SERVICES}/nodeagent && \
             chmod 0755 /opt/bin/nodeagent && modprobe --all bonding 8021q dummy\n{{\n"
        );
        for shape in &shapes {
            let root = format!("/root/{}", shape.slug());
            file(format!("{root}/etc/nodeagent/node.yaml"), COMMON.to_owned());
            file(format!("{root}/etc/nodeagent/node.d/shape.yaml"), shape.config.unwrap_or_default().to_owned());
            let agent = format!("strace --quiet=all -e trace=recvfrom -e read=all -o {root}/strace /opt/bin/nodeagent");
            file(format!("{root}/build"), format!("mount -t tmpfs tmpfs /tmp\n{}", shape.script(&agent, &root)));
            write!(
                all,
                "timeout 300 unshare --net --uts --mount sh {root}/build >{root}/out 2>{root}/err; echo $?\n\
                 for part in out err strace; do base64 --wrap=0 {root}/$part; echo; done\n"
            )?;
        }
        all.push_str("echo 'end of report'\n} >/dev/ttyS1\n");
        file("/root/all".to_owned(), all);
        let user_data =
            format!("#cloud-config\n{}\n", json!({ "write_files": files, "runcmd": [["sh", "/root/all"]] }));
        let mut vm = lab.node("worker1", WORKER).user_data(user_data.as_bytes()).create_vm()?;
        vm.power_on(None)?;
        let report = vm.report()?;
        vm.kill()?;
        let mut lines = report.lines().map(str::trim_end);
        for shape in shapes {
            let mut next = || lines.next().with_context(|| format!("the report ends before {:?}", shape.name));
            let status = next()?.parse::<i32>().with_context(|| format!("{}: read the exit code", shape.name))?;
            let mut part = || -> Result<Vec<u8>> { Ok(openssl::base64::decode_block(next()?)?) };
            let (stdout, stderr, strace) = (part()?, part()?, part()?);
            let said: Value = serde_json::from_slice(&stdout)
                .with_context(|| format!("{}: {}", shape.name, String::from_utf8_lossy(&stderr)))?;
            shape.judge(&Output { status: ExitStatus::from_raw(status << 8), stdout, stderr })?;
            let facts: Facts = serde_json::from_value(said["facts"].clone())?;
            let recording = Recording::of(&String::from_utf8_lossy(&strace), facts.clone())?;
            if std::env::var_os("UPDATE_DOCS").is_some() {
                let path = Recording::path(shape);
                fs::create_dir_all(path.parent().context("a directory")?)?;
                fs::write(&path, serde_json::to_string_pretty(&recording)? + "\n")?;
            }
            ensure!(recording.facts()? == facts, "{}: what was recorded reads otherwise", shape.name);
        }
        Ok(())
    })
}

/// For a unit of the node's to do what a test waits for.
const UNIT: Duration = Duration::from_mins(2);

/// The text of the agent's events of this kind since the node's last boot.
fn told(node: &Node<'_>, event: &Event<'_>) -> Result<Vec<String>> {
    let boot = node.ok(&["cat", "/proc/sys/kernel/random/boot_id"])?.trim().replace('-', "");
    let entries = node.journal(&[&format!("MESSAGE_ID={}", event.message_id()), &format!("_BOOT_ID={boot}")])?;
    Ok(entries.iter().filter_map(|entry| Some(entry["MESSAGE"].as_str()?.to_owned())).collect())
}

#[test]
fn another_address_after_a_reboot_is_written_and_warned_of() -> Result<()> {
    const MOVED: &str = "10.10.30.22";
    Lab::run("moved", |lab| {
        let _api_server = lab.start_stand_in_api_server()?;
        let mut node = lab.worker("worker1", WORKER)?.boot()?;
        bootstrapped(&node)?;
        let unit = "nodeagent-network.service";
        assert_eq!(node.ok(&["systemctl", "is-enabled", unit])?.trim(), "enabled");

        // The next boot is without a bootstrap and a renewal, which would have the certificate made anew.
        node.ok(&["systemctl", "disable", "nodeagent.service", "nodeagent-renew.timer"])?;
        node.write("/etc/lab-network", format!("ADDRESS={MOVED}/24\nGATEWAY={SERVICES}\n").as_bytes())?;
        node.reboot()?;
        node.wait_until("the refresh", UNIT, |node| {
            let state = node.property(unit, "SubState")?;
            ensure!(state == "exited", "{unit} is {state}");
            Ok(())
        })?;
        let (was, now): (IpAddr, IpAddr) = (WORKER.parse()?, MOVED.parse()?);
        let path = RootPath::literal("/etc/kubernetes/pki/kubelet-server.pem");
        let has = [was];
        for event in [
            Event::AddressChanged { was, now, link: "host0" },
            Event::AddressNotInCertificate { address: now, certificate: &path, has: &has },
        ] {
            assert_eq!(told(&node, &event)?, [event.text()]);
        }
        let file = String::from_utf8(node.read("/etc/network-environment")?)?;
        assert!(file.contains(&format!("\nDEFAULT_IPV4={MOVED}\n")), "{file}");

        // systemd itself takes every line, and every value is the one that was meant.
        let read =
            ["systemd-run", "--quiet", "--wait", "--pipe", "-p", "EnvironmentFile=/etc/network-environment", "env"];
        let seen = node.ok(&read)?;
        for line in file.lines().filter(|line| !line.starts_with('#')) {
            assert!(seen.lines().any(|seen| seen == line.replace('"', "")), "systemd has no {line}:\n{seen}");
        }
        let complaints =
            node.ok(&["journalctl", "--no-pager", "--boot", "_PID=1", "--grep", "network-environment|-- No"]);
        assert!(!complaints.unwrap_or_default().contains("invalid"), "systemd ignored a line");

        // A renewal makes the certificate for the address that it is.
        node.ok(&["systemctl", "start", "nodeagent-renew.service"])?;
        let names = node.ok(&["openssl", "x509", "-in", path.as_str(), "-noout", "-ext", "subjectAltName"])?;
        assert!(names.contains(MOVED) && !names.contains(WORKER), "{names}");

        // Bootstrap finds both files as it wants them, and the rest out of date.
        node.ok(&["systemctl", "enable", "nodeagent.service"])?;
        let plan = String::from_utf8(node.run(&["nodeagent", "plan"])?.stdout)?;
        assert!(
            plan.contains("~ kubelet.env") && !plan.contains("network\n  ~") && !plan.contains("certs\n"),
            "{plan}"
        );
        node.ok(&["nodeagent", "bootstrap"])?;
        node.ok(&["nodeagent", "plan", "--exit-code"])?;

        // Without an address it waits, says so, and goes on by itself.
        node.ok(&["systemctl", "stop", unit])?;
        node.ok(&["ip", "address", "flush", "dev", "host0", "scope", "global"])?;
        node.ok(&["systemctl", "start", "--no-block", unit])?;
        node.wait_until("the refresh to wait", UNIT, |node| {
            let says = node.property(unit, "StatusText")?;
            ensure!(says.contains("waiting for an address"), "its status is {says:?}");
            Ok(())
        })?;
        node.ok(&["ip", "address", "add", &format!("{MOVED}/24"), "dev", "host0"])?;
        node.wait_until("the refresh to go on", UNIT, |node| {
            let state = node.property(unit, "SubState")?;
            ensure!(state == "exited", "{unit} is {state}");
            Ok(())
        })?;

        // The ledger does not know what the refreshes wrote, and still the file is ours.
        node.ok(&["nodeagent", "uninstall"])?;
        assert!(!node.exists("/etc/network-environment"), "it was not taken away");
        Ok(())
    })
}

#[test]
fn called_by_the_old_tools_name_it_does_that_tools_job() -> Result<()> {
    let directory = tempfile::Builder::new().prefix("nodeagent-old-tool-").tempdir_in("/var/tmp")?;
    let tool = directory.path().join("setup-network-environment");
    std::os::unix::fs::symlink(Lab::binary()?, &tool)?;
    let file = directory.path().join("environment");
    let run = |build: &str| {
        // A host that nobody has named: the old tool did not care.
        let (tool, file) = (tool.display(), file.display());
        apart(&format!("set -e\n{FUNCTIONS}\n{BEGIN}\nhostname localhost\n{build}\nexec {tool} -o {file}"))
    };
    let output =
        run("link eth0; address eth0 10.0.2.15/24; ip link add br-lan type bridge; address br-lan 192.168.1.1/24; \
                      ip route add default via 10.0.2.2")?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = fs::read_to_string(&file)?;
    let lines: Vec<&str> = text.lines().collect();
    for line in ["DEFAULT_IPV4=10.0.2.15", "ETH0_IPV4=10.0.2.15", "BR_LAN_IPV4=192.168.1.1", "LO_IPV4=127.0.0.1"] {
        assert!(lines.contains(&line), "no {line} in:\n{text}");
    }
    assert!(!text.contains("NODE_NAME"), "localhost is no node's name:\n{text}");

    // Two addresses and no default route: the links' own lines, success, and the reason on stderr.
    let output = run("link eth0; address eth0 10.0.2.15/24; link eth1; address eth1 10.10.30.21/24")?;
    let told = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{told}");
    assert!(told.contains("no default route") && told.contains("DEFAULT_IPV4 is left out"), "{told}");
    let text = fs::read_to_string(&file)?;
    assert!(text.contains("\nETH1_IPV4=10.10.30.21\n") && !text.contains("\nDEFAULT_IPV4="), "{text}");
    Ok(())
}
