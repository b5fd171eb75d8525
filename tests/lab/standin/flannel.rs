//! Stand-ins for flanneld and for flannel's CNI plugin, which no package has. They take the flags, files and variables that
//! the real ones take (flannel-io/flannel `main.go` and `pkg/subnet`, flannel-io/cni-plugin), and refuse others; they ask the
//! same questions of the same stores, by curl and etcdctl; and they make routes, as the backend host-gw does.

use std::{
    collections::BTreeMap,
    env, fs,
    io::{self, Error, Read, Write},
    path::Path,
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use openssl::base64::decode_block;
use serde_json::{Value, json};

/// The flags that matter here, of those that the real one knows: it ends at any other.
const FLAGS: [&str; 11] = [
    "iface",
    "ip-masq",
    "subnet-file",
    "kube-subnet-mgr",
    "kubeconfig-file",
    "net-config-path",
    "etcd-endpoints",
    "etcd-prefix",
    "etcd-cafile",
    "etcd-certfile",
    "etcd-keyfile",
];

/// Between two looks at the other nodes, and at a configuration that is not there.
const PAUSE: Duration = Duration::from_secs(1);

/// What a link of the lab's carries.
const MTU: u16 = 1500;

type Flags = BTreeMap<String, String>;

/// A subnet of this node's, and what lies where else.
struct Lease {
    network: String,
    subnet: String,
    /// The subnet and address of each other node.
    others: Vec<(String, String)>,
}

/// Gets a subnet, says so, and keeps routes to the others.
pub fn daemon(args: &[String]) -> io::Result<()> {
    let flags = parse(args)?;
    let masquerade = flag(&flags, "ip-masq")?;
    let mut told = false;
    loop {
        let lease = if flags.get("kube-subnet-mgr").is_some_and(|value| value == "true") {
            of_kubernetes(&flags)?
        } else {
            of_etcd(&flags)?
        };
        for (subnet, address) in &lease.others {
            run(Command::new("ip").args(["route", "replace", subnet, "via", address]), None)?;
        }
        if !told {
            let file = Path::new(flag(&flags, "subnet-file")?);
            // The first address is the bridge's.
            let (base, length) = lease.subnet.rsplit_once(".0/").ok_or_else(|| Error::other(lease.subnet.clone()))?;
            let text = format!(
                "FLANNEL_NETWORK={}\nFLANNEL_SUBNET={base}.1/{length}\nFLANNEL_MTU={MTU}\nFLANNEL_IPMASQ={masquerade}\n",
                lease.network
            );
            let unfinished = file.with_extension("unfinished");
            fs::write(&unfinished, text)?;
            fs::rename(&unfinished, file)?;
            println!("stand-in for flanneld: this node has {} of {}", lease.subnet, lease.network);
            told = true;
        }
        thread::sleep(PAUSE);
    }
}

fn parse(args: &[String]) -> io::Result<Flags> {
    let mut flags = Flags::new();
    for arg in args {
        let parts = arg.strip_prefix("--").and_then(|flag| flag.split_once('='));
        let Some((name, value)) = parts.filter(|(name, value)| FLAGS.contains(name) && !value.is_empty()) else {
            return Err(Error::other(format!("flag provided but not defined: {arg}")));
        };
        if flags.insert(name.to_owned(), value.to_owned()).is_some() {
            return Err(Error::other(format!("{name} is given twice")));
        }
    }
    Ok(flags)
}

fn flag<'f>(flags: &'f Flags, name: &str) -> io::Result<&'f str> {
    flags.get(name).map(String::as_str).ok_or_else(|| Error::other(format!("--{name} is missing")))
}

/// By the cluster's API: the subnet is the Node's `podCIDR`, and its annotations say to others where it is.
fn of_kubernetes(flags: &Flags) -> io::Result<Lease> {
    const PREFIX: &str = "flannel.alpha.coreos.com";
    let name =
        env::var("NODE_NAME").map_err(|_| Error::other("env variables POD_NAME and POD_NAMESPACE must be set"))?;
    let config = json_file(flag(flags, "net-config-path")?)?;
    let kubeconfig = json_file(flag(flags, "kubeconfig-file")?)?;
    let cluster = &kubeconfig["clusters"][0]["cluster"];
    let user = &kubeconfig["users"][0]["user"];
    let ca = decode_block(text(&cluster["certificate-authority-data"])?)?;
    // Its temporary directory is its own.
    fs::write("/tmp/ca.pem", ca)?;
    let ask = |path: &str, patch: Option<&Value>| -> io::Result<Value> {
        let mut curl = Command::new("curl");
        curl.args(["--silent", "--show-error", "--fail", "--max-time", "10", "--cacert", "/tmp/ca.pem"]);
        curl.args(["--cert", text(&user["client-certificate"])?, "--key", text(&user["client-key"])?]);
        if patch.is_some() {
            curl.args(["--request", "PATCH", "--data-binary", "@-"]);
            curl.args(["--header", "Content-Type: application/strategic-merge-patch+json"]);
        }
        curl.arg(format!("{}{path}", text(&cluster["server"])?));
        let body = patch.map(ToString::to_string);
        Ok(serde_json::from_slice(&run(&mut curl, body.as_deref().map(str::as_bytes))?)?)
    };
    let nodes = ask("/api/v1/nodes", None)?;
    let nodes = nodes["items"].as_array().map(Vec::as_slice).unwrap_or_default();
    let own = nodes.iter().find(|node| node["metadata"]["name"] == *name);
    let own = own.ok_or_else(|| Error::other(format!("node {name:?} not found")))?;
    let Some(subnet) = own["spec"]["podCIDR"].as_str() else {
        return Err(Error::other(format!("node {name:?} pod cidr not assigned")));
    };
    let backend = text(&config["Backend"]["Type"])?;
    let annotation = |node: &Value, key: &str| node["metadata"]["annotations"][format!("{PREFIX}/{key}")].clone();
    if annotation(own, "kube-subnet-manager") != "true" {
        let annotations = json!({
            format!("{PREFIX}/backend-type"): backend,
            format!("{PREFIX}/public-ip"): flag(flags, "iface")?,
            format!("{PREFIX}/kube-subnet-manager"): "true",
        });
        let patch = json!({ "metadata": { "annotations": annotations } });
        ask(&format!("/api/v1/nodes/{name}/status"), Some(&patch))?;
    }
    let others = nodes.iter().filter(|node| node["metadata"]["name"] != *name);
    let others = others.filter_map(|node| {
        let address = annotation(node, "public-ip").as_str()?.to_owned();
        Some((node["spec"]["podCIDR"].as_str()?.to_owned(), address))
    });
    let others = others.collect();
    Ok(Lease { network: text(&config["Network"])?.to_owned(), subnet: subnet.to_owned(), others })
}

/// By an etcd: the subnet is the first that nobody has.
fn of_etcd(flags: &Flags) -> io::Result<Lease> {
    let prefix = flag(flags, "etcd-prefix")?;
    let etcdctl = |args: &[&str]| -> io::Result<String> {
        let mut command = Command::new("etcdctl");
        command.env("ETCDCTL_API", "3").args(["--dial-timeout=3s", "--command-timeout=5s"]);
        command.arg(format!("--endpoints={}", flag(flags, "etcd-endpoints")?));
        command.arg(format!("--cacert={}", flag(flags, "etcd-cafile")?));
        command.arg(format!("--cert={}", flag(flags, "etcd-certfile")?));
        command.arg(format!("--key={}", flag(flags, "etcd-keyfile")?));
        let out = run(command.args(args), None)?;
        Ok(String::from_utf8_lossy(&out).trim().to_owned())
    };
    let config = loop {
        let found = etcdctl(&["get", "--print-value-only", &format!("{prefix}/config")])?;
        if !found.is_empty() {
            break serde_json::from_str::<Value>(&found)?;
        }
        eprintln!("Couldn't fetch network config: flannel config not found in etcd store");
        thread::sleep(PAUSE);
    };
    let network = text(&config["Network"])?;
    let first = network.split_once(".0.0/").ok_or_else(|| Error::other(format!("{network} is no /16")))?.0;
    let address = flag(flags, "iface")?;
    let stored = etcdctl(&["get", "--prefix", &format!("{prefix}/subnets/")])?;
    let lines: Vec<&str> = stored.lines().collect();
    let mut leases: Vec<(String, String)> = lines
        .chunks(2)
        .filter_map(|pair| Some((pair[0].rsplit('/').next()?.replace('-', "/"), (*pair.get(1)?).to_owned())))
        .collect();
    let own = leases.iter().position(|(_, attrs)| attrs.contains(&format!("\"{address}\"")));
    let subnet = if let Some(at) = own {
        leases.remove(at).0
    } else {
        let all = (1..255).map(|n| format!("{first}.{n}.0/24"));
        let free = all.into_iter().find(|subnet| leases.iter().all(|(taken, _)| taken != subnet));
        let subnet = free.ok_or_else(|| Error::other("no free subnet"))?;
        let attrs = json!({ "PublicIP": address, "BackendType": config["Backend"]["Type"] });
        etcdctl(&["put", &format!("{prefix}/subnets/{}", subnet.replace('/', "-")), &attrs.to_string()])?;
        subnet
    };
    let others = leases.into_iter().filter_map(|(subnet, attrs)| {
        let attrs: Value = serde_json::from_str(&attrs).ok()?;
        Some((subnet, attrs["PublicIP"].as_str()?.to_owned()))
    });
    Ok(Lease { network: network.to_owned(), subnet, others: others.collect() })
}

/// The CNI plugin: what the subnet file says, for the bridge's plugin to do.
pub fn plugin() -> io::Result<()> {
    let mut given = String::new();
    io::stdin().read_to_string(&mut given)?;
    let config: Value = serde_json::from_str(&given)?;
    let mut delegate = config["delegate"].clone();
    if env::var("CNI_COMMAND").is_ok_and(|command| command != "VERSION") {
        let file = fs::read_to_string("/run/flannel/subnet.env")?;
        let vars: BTreeMap<&str, &str> = file.lines().filter_map(|line| line.split_once('=')).collect();
        let var = |name: &str| vars.get(name).copied().ok_or_else(|| Error::other(format!("{name} is missing")));
        let (base, length) = var("FLANNEL_SUBNET")?.rsplit_once(".1/").ok_or_else(|| Error::other("no subnet"))?;
        delegate["ipMasq"] = (var("FLANNEL_IPMASQ")? != "true").into();
        delegate["mtu"] = var("FLANNEL_MTU")?.parse::<u16>().map_err(Error::other)?.into();
        delegate["isGateway"] = true.into();
        delegate["ipam"] = json!({
            "type": "host-local",
            "ranges": [[{ "subnet": format!("{base}.0/{length}") }]],
            "routes": [{ "dst": var("FLANNEL_NETWORK")? }],
        });
    }
    delegate["type"] = "bridge".into();
    for key in ["name", "cniVersion"] {
        delegate[key] = config[key].clone();
    }
    let path = env::var("CNI_PATH").map_err(Error::other)?;
    let bridge = path.split(':').map(|dir| Path::new(dir).join("bridge")).find(|path| path.exists());
    let mut bridge = Command::new(bridge.ok_or_else(|| Error::other(format!("no bridge in {path}")))?);
    // What it has to say goes to whoever asked, an error included.
    let mut child = bridge.stdin(Stdio::piped()).spawn()?;
    child.stdin.take().ok_or_else(|| Error::other("no input"))?.write_all(delegate.to_string().as_bytes())?;
    std::process::exit(child.wait()?.code().unwrap_or(1));
}

fn json_file(path: &str) -> io::Result<Value> {
    let bytes = fs::read(path).map_err(|error| Error::other(format!("{path}: {error}")))?;
    Ok(serde_json::from_slice(&bytes)?)
}

fn text(value: &Value) -> io::Result<&str> {
    value.as_str().ok_or_else(|| Error::other(format!("{value} is no text")))
}

/// What a program that must succeed printed.
fn run(command: &mut Command, input: Option<&[u8]>) -> io::Result<Vec<u8>> {
    let piped = if input.is_some() { Stdio::piped() } else { Stdio::null() };
    let mut child = command.stdin(piped).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    if let (Some(input), Some(mut stdin)) = (input, child.stdin.take()) {
        stdin.write_all(input)?;
    }
    let output = child.wait_with_output()?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(Error::other(format!("{}: {}", command.get_program().display(), said.trim())))
}
