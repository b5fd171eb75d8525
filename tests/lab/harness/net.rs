//! The lab's network: a namespace of its own with one bridge, and no way out.

use std::{
    ffi::OsString,
    path::Path,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use anyhow::{Context, Result, bail};

use super::process;

/// Where the mirror and the signer listen; also the nodes' default route.
pub const SERVICES: &str = "10.10.30.1";

/// Stands for the address at which the cluster's API server is reached.
pub const CONTROLLER: &str = "10.10.30.11";

/// The address of the first worker.
pub const WORKER: &str = "10.10.30.21";

/// What the bridge is called inside the namespace.
pub const BRIDGE: &str = "br0";

const DEADLINE: Duration = Duration::from_mins(1);

/// A network namespace, gone when dropped.
pub struct Net {
    name: String,
}

impl Net {
    /// Makes the namespace, its bridge, and the two addresses that services listen on.
    pub fn new(name: &str) -> Result<Self> {
        process::ok(&["ip", "netns", "add", name], DEADLINE).context("make the lab's network (needs root)")?;
        let net = Self { name: name.to_owned() };
        for change in [
            "link set lo up".to_owned(),
            format!("link add {BRIDGE} type bridge forward_delay 0"),
            format!("address add {SERVICES}/24 dev {BRIDGE}"),
            format!("address add {CONTROLLER}/24 dev {BRIDGE}"),
            format!("link set {BRIDGE} up"),
        ] {
            let mut args = vec!["ip", "-n", name];
            args.extend(change.split(' '));
            process::ok(&args, DEADLINE)?;
        }
        Ok(net)
    }

    /// Gives an address up, so that a node may have it.
    pub fn give_up(&self, address: &str) -> Result<()> {
        process::ok(&["ip", "-n", &self.name, "address", "delete", &format!("{address}/24"), "dev", BRIDGE], DEADLINE)
            .map(drop)
    }

    /// `args` prefixed by what makes a command run in this network. Not `ip netns exec`: that remounts `/sys`, and
    /// systemd-nspawn then cannot see which cgroup hierarchies there are.
    pub fn inside<S: Into<OsString> + Clone>(&self, args: &[S]) -> Vec<OsString> {
        let mut all: Vec<OsString> =
            vec!["nsenter".into(), format!("--net=/run/netns/{}", self.name).into(), "--".into()];
        all.extend(args.iter().cloned().map(Into::into));
        all
    }

    /// Takes a machine off the bridge, and waits until the bridge knows nothing of it: of one that was killed the kernel
    /// takes its interfaces away in its own time, and until then the machine cannot come back under its name.
    pub fn unplug(&self, machine: &str) -> Result<()> {
        // systemd-nspawn's name for its end on the bridge, if too long for a name then as an alternative one.
        let end = format!("vb-{machine}");
        process::wait_until(&format!("{end} to be gone"), DEADLINE, || {
            let on_link = |verb| process::output(&["ip", "-n", &self.name, "link", verb, "dev", &end], DEADLINE);
            // Either is refused when it is gone by then.
            if on_link("show")?.status.success() {
                on_link("delete")?;
                bail!("it is there");
            }
            Ok(())
        })
    }

    /// A tap on the bridge, for a virtual machine.
    pub fn tap(&self) -> Result<Tap> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let tap = Tap { namespace: self.name.clone(), name: format!("vm{}", COUNT.fetch_add(1, Ordering::Relaxed)) };
        let on = |args: &[&str]| process::ok(&[&["ip", "-n", &tap.namespace][..], args].concat(), DEADLINE);
        on(&["tuntap", "add", "dev", &tap.name, "mode", "tap"]).context("make a tap (needs /dev/net/tun)")?;
        on(&["link", "set", &tap.name, "master", BRIDGE, "up"])?;
        Ok(tap)
    }

    /// Removes the namespace that `name` had, whoever made it.
    pub fn remove(name: &str) -> Result<()> {
        if Path::new("/run/netns").join(name).exists() {
            process::ok(&["ip", "netns", "delete", name], DEADLINE)?;
        }
        Ok(())
    }
}

/// A virtual machine's end of the bridge, gone when dropped.
pub struct Tap {
    namespace: String,
    name: String,
}

impl Tap {
    /// The interface's name.
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        if let Err(error) = process::ok(&["ip", "-n", &self.namespace, "link", "delete", &self.name], DEADLINE) {
            eprintln!("lab: {error:#}");
        }
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        if let Err(error) = Self::remove(&self.name) {
            eprintln!("lab: {error:#}");
        }
    }
}
