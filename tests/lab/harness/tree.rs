//! The node's file system: built once from the distribution's packages, cached, and never written to afterwards.

use std::{
    fs::{self, File},
    io::Write,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, anyhow};

use super::{digest, mounts, process, rundir::lock};

/// Time to fetch and unpack packages, on a slow machine with a slow mirror.
const INSTALL: Duration = Duration::from_mins(15);

/// What a node's tree is made of. A change of anything here makes a new tree beside the old one.
#[derive(Debug)]
struct Recipe {
    suite: &'static str,
    /// Installed by debootstrap, which cannot choose between packages that provide the same thing.
    packages: &'static [&'static str],
    /// Installed afterwards by apt, which can.
    later: &'static [&'static str],
    /// Would reach out to the network, slow the boot, or need hardware that a container does not have.
    masked: &'static [&'static str],
    /// Directories of settings that packages bring, each with the one where an empty name hides them. A node's kernel is
    /// the machine's own, which must not get the distribution's defaults because a node boots on it.
    hidden: &'static [(&'static str, &'static str)],
    /// Enabled as `(unit that wants it, unit)`.
    enabled: &'static [(&'static str, &'static str)],
    files: &'static [(&'static str, &'static str)],
}

const RECIPE: Recipe = Recipe {
    suite: "bookworm",
    packages: &[
        "ca-certificates",
        "conntrack",
        "containerd",
        "containernetworking-plugins",
        "curl",
        "dbus",
        "ethtool",
        "iproute2",
        "ipset",
        "iptables",
        "kmod",
        "netbase",
        "openssl",
        "procps",
        "runc",
        "socat",
        "strace",
        "systemd",
        "systemd-sysv",
    ],
    later: &["cloud-init"],
    masked: &[
        "apt-daily.timer",
        "apt-daily-upgrade.timer",
        "cloud-init-hotplugd.socket",
        "dpkg-db-backup.timer",
        "e2scrub_all.timer",
        "e2scrub_reap.service",
        "fstrim.timer",
        "getty@tty1.service",
        "getty-static.service",
        "systemd-networkd-wait-online.service",
        "systemd-networkd.service",
        "systemd-networkd.socket",
        "systemd-pstore.service",
    ],
    hidden: &[("usr/lib/sysctl.d", "etc/sysctl.d"), ("usr/lib/modules-load.d", "etc/modules-load.d")],
    enabled: &[("network-online.target", "lab-network.service"), ("sysinit.target", "lab-machine.service")],
    files: &[
        // systemd-networkd waits for udev when /sys is writable, as the agent needs it to be; there is no udev here.
        (
            "etc/systemd/system/lab-network.service",
            "[Unit]\n\
             Description=The address that the lab gave this node\n\
             DefaultDependencies=no\n\
             After=local-fs.target cloud-init-local.service\n\
             Before=network.target network-online.target cloud-init.service\n\
             Wants=network.target\n\
             \n\
             [Service]\n\
             Type=oneshot\n\
             RemainAfterExit=yes\n\
             EnvironmentFile=/etc/lab-network\n\
             ExecStart=ip address replace ${ADDRESS} dev host0\n\
             ExecStart=ip link set host0 up\n\
             ExecStart=ip route replace default via ${GATEWAY}\n\
             # No cloud answers here, and the kubelet is to learn that at once.\n\
             ExecStart=ip route replace unreachable 169.254.169.254\n\
             \n\
             [Install]\n\
             WantedBy=network-online.target\n",
        ),
        // What a container lacks of a machine that runs pods.
        (
            "etc/systemd/system/lab-machine.service",
            "[Unit]\n\
             Description=The cgroups and the sysctls of this container, which stands for a machine\n\
             ConditionVirtualization=container\n\
             DefaultDependencies=no\n\
             After=local-fs.target\n\
             Before=sysinit.target\n\
             \n\
             [Service]\n\
             Type=oneshot\n\
             RemainAfterExit=yes\n\
             ExecStart=sh -eu /usr/local/lib/lab-machine\n\
             \n\
             [Install]\n\
             WantedBy=sysinit.target\n",
        ),
        (
            "usr/local/lib/lab-machine",
            "# Pods get cgroups below this node's own, in hierarchies that systemd-nspawn mounts read-only.\n\
             while read -r _ point kind _; do\n\
             \x20   [ \"$kind\" != cgroup ] || mount -o remount,bind,rw \"$point\"\n\
             done </proc/self/mounts\n\
             # The kubelet and kube-proxy set these, which are the host's kernel's for all namespaces: to them, a file.\n\
             for key in kernel/panic kernel/panic_on_oops vm/overcommit_memory net/netfilter/nf_conntrack_max; do\n\
             \x20   mkdir -p \"/run/lab/${key%/*}\"\n\
             \x20   cat \"/proc/sys/$key\" >\"/run/lab/$key\"\n\
             \x20   mount --bind \"/run/lab/$key\" \"/proc/sys/$key\"\n\
             done\n\
             mkdir -p /sys/module/nf_conntrack/parameters\n\
             echo 262144 >/sys/module/nf_conntrack/parameters/hashsize\n",
        ),
        // kube-proxy's unit has a /proc of its own.
        (
            "etc/systemd/system/kube-proxy.service.d/lab.conf",
            "[Service]\n\
             BindPaths=-/run/lab/net/netfilter/nf_conntrack_max:/proc/sys/net/netfilter/nf_conntrack_max\n",
        ),
        // Debian's, and: nothing in a container may lower an OOM score, as runc does for a pod's first process; and no
        // registry can be reached, so that the first process comes from an archive (`image.rs`).
        (
            "etc/containerd/config.toml",
            "version = 2\n\
             [plugins.\"io.containerd.grpc.v1.cri\"]\n\
             \x20 restrict_oom_score_adj = true\n\
             \x20 sandbox_image = \"lab.example/pause:1\"\n\
             [plugins.\"io.containerd.grpc.v1.cri\".cni]\n\
             \x20 bin_dir = \"/usr/lib/cni\"\n\
             \x20 conf_dir = \"/etc/cni/net.d\"\n\
             [plugins.\"io.containerd.internal.v1.opt\"]\n\
             \x20 path = \"/var/lib/containerd/opt\"\n",
        ),
        // The kernel's own messages are the host's, and none of a node's business. A node that failed is read later,
        // so its journal must be on disk.
        ("etc/systemd/journald.conf.d/lab.conf", "[Journal]\nReadKMsg=no\nStorage=persistent\n"),
        // One data source, so that no other is asked for over the network; none of the accounts and keys that a
        // cloud's image would want, which cost time and need packages that this tree lacks.
        (
            "etc/cloud/cloud.cfg.d/99-lab.cfg",
            "datasource_list: [NoCloud]\n\
             network: {config: disabled}\n\
             locale: false\n\
             users: []\n\
             ssh_genkeytypes: []\n\
             no_ssh_fingerprints: true\n",
        ),
        ("etc/resolv.conf", ""),
    ],
};

/// A distribution's release, hence a version of systemd.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Suite {
    /// Debian 12: systemd 252.
    Bookworm,
    /// Debian 13: systemd 257.
    Trixie,
}

impl Suite {
    /// Each of them.
    pub const ALL: [Self; 2] = [Self::Bookworm, Self::Trixie];

    fn recipe(self) -> Recipe {
        match self {
            Self::Bookworm => RECIPE,
            Self::Trixie => Recipe { suite: "trixie", ..RECIPE },
        }
    }
}

/// The cached tree's path; builds the tree first when it is not there.
pub fn tree(cache: &Path, suite: Suite) -> Result<PathBuf> {
    let recipe = suite.recipe();
    let path = cache.join(format!("tree-{}", &digest(format!("{recipe:?}").as_bytes())[..16]));
    let _guard = lock(&path.with_extension("lock"))?;
    if !path.exists() {
        let unfinished = path.with_extension("unfinished");
        mounts::remove_tree(&unfinished)?;
        build(&recipe, &unfinished).with_context(|| format!("build the node tree {}", path.display()))?;
        fs::rename(&unfinished, &path).with_context(|| format!("finish {}", path.display()))?;
    }
    Ok(path)
}

fn build(recipe: &Recipe, root: &Path) -> Result<()> {
    eprintln!("lab: building the node tree of {}, once: about two minutes", recipe.suite);
    let include = format!("--include={}", recipe.packages.join(","));
    let root_arg = root.to_str().context("the cache directory's path is not UTF-8")?;
    let mirror = mirror()?;
    process::ok(&["debootstrap", "--variant=minbase", &include, recipe.suite, root_arg, &mirror], INSTALL)?;

    // Keeps packages from starting services in the tree that is being built.
    let policy = root.join("usr/sbin/policy-rc.d");
    write(&policy, "#!/bin/sh\nexit 101\n")?;
    fs::set_permissions(&policy, fs::Permissions::from_mode(0o755)).context("make policy-rc.d executable")?;
    let mut install = vec!["chroot", root_arg, "env", "DEBIAN_FRONTEND=noninteractive", "LC_ALL=C"];
    install.extend(["apt-get", "install", "--yes", "--no-install-recommends"]);
    install.extend(recipe.later);
    process::ok(&install, INSTALL)?;
    process::ok(&["chroot", root_arg, "apt-get", "clean"], INSTALL)?;
    fs::remove_file(&policy).context("remove policy-rc.d")?;

    let units = root.join("etc/systemd/system");
    for unit in recipe.masked {
        link("/dev/null", &units.join(unit))?;
    }
    for (brought, hiding) in recipe.hidden {
        let brought = root.join(brought);
        // A release may bring none of a kind.
        if !brought.exists() {
            continue;
        }
        for entry in fs::read_dir(&brought).with_context(|| format!("list {}", brought.display()))? {
            link("/dev/null", &root.join(hiding).join(entry?.file_name()))?;
        }
    }
    for (path, text) in recipe.files {
        write(&root.join(path), text)?;
    }
    for (wanting, unit) in recipe.enabled {
        link(&format!("../{unit}"), &units.join(format!("{wanting}.wants")).join(unit))?;
    }
    // Each node gets one of its own: an empty file would make every boot a first boot, with presets and questions.
    let _ = fs::remove_file(root.join("etc/machine-id"));
    mounts::unmount_below(root)
}

/// The Debian mirror that this machine itself uses.
pub fn mirror() -> Result<String> {
    let format = "$(ORIGIN)|$(LABEL)|$(SITE)";
    let deadline = Duration::from_secs(30);
    let targets = process::ok(&["apt-get", "indextargets", "--format", format, "Created-By: Packages"], deadline)?;
    targets.lines().find_map(|line| line.strip_prefix("Debian|Debian|")).map(str::to_owned).ok_or_else(|| {
        anyhow!("apt knows no Debian mirror on this machine: add one to its sources and run `apt-get update`")
    })
}

fn write(path: &Path, text: &str) -> Result<()> {
    let parent = path.parent().context("a file has a directory")?;
    fs::create_dir_all(parent).with_context(|| format!("create {}", parent.display()))?;
    // A package may have put a link there, which must not be followed out of the tree.
    let _ = fs::remove_file(path);
    let mut file = File::create_new(path).with_context(|| format!("create {}", path.display()))?;
    file.write_all(text.as_bytes()).with_context(|| format!("write {}", path.display()))
}

fn link(to: &str, path: &Path) -> Result<()> {
    let parent = path.parent().context("a link has a directory")?;
    fs::create_dir_all(parent).with_context(|| format!("create {}", parent.display()))?;
    let _ = fs::remove_file(path);
    symlink(to, path).with_context(|| format!("link {} to {to}", path.display()))
}
