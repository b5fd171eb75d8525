//! A virtual machine of the lab, for what a container cannot show: here the disk is a real one, with a write cache that
//! loses what was not flushed when the power fails.
//!
//! It boots the distribution's own kernel from a copy of one cached image, which has the same tree as a [`super::Node`]
//! and gets its user-data in the same way. QEMU emulates all of it, so neither nested virtualisation nor `/dev/kvm` is
//! needed, and a boot takes some ten times as long as a container's.

use std::{
    fs::{self, File},
    io::Write,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, ensure};

use super::{
    Lab, NodeSpec,
    cgroup::Cgroups,
    digest,
    disk::Disk,
    mounts,
    net::Tap,
    node::SEED,
    process::{self, Daemon},
    release::unpack,
    rundir::lock,
};

/// From power-on until the agent's work is reported: a busy machine emulates slowly.
pub const REPORT: Duration = Duration::from_mins(20);

/// For making the image, once.
const BUILD: Duration = Duration::from_mins(5);

/// The size of the file system, in MiB: the tree, the release's programs, and room.
const SIZE_MIB: u64 = 1100;

/// The first sector behind the file system, where the guest leaves its marks in the order of its other writes.
pub const MARK_SECTOR: u64 = SIZE_MIB << 11;

/// The last line of what a guest reports.
const END_OF_REPORT: &str = "end of report";

/// Depends on the newest kernel package of the suite.
const KERNEL: &str = "linux-image-cloud-amd64";

/// The drivers that the kernel has as modules, in the order of their dependencies; below `kernel/drivers`.
const DRIVERS: [&str; 10] = [
    "virtio/virtio_ring",
    "virtio/virtio",
    "virtio/virtio_pci_legacy_dev",
    "virtio/virtio_pci_modern_dev",
    "virtio/virtio_pci",
    "block/virtio_blk",
    "char/hw_random/virtio-rng",
    "../net/core/failover",
    "net/net_failover",
    "net/virtio_net",
];

/// The first program. Without `auto_da_alloc` ext4 does not flush a file that is renamed over another, and with a long
/// commit interval nothing else flushes it by chance: either would hide that the agent did not.
const INIT: &str = "#!/busybox sh\n\
    /busybox mkdir -p /proc /dev /root\n\
    /busybox mount -t proc proc /proc\n\
    /busybox mount -t devtmpfs dev /dev\n\
    for driver in $(/busybox cat /drivers/order); do /busybox insmod /drivers/$driver; done\n\
    /busybox mount -t ext4 -o noauto_da_alloc,commit=300 /dev/vda /root || /busybox poweroff -f\n\
    exec /busybox switch_root /root /sbin/init\n";

/// What a virtual machine's tree has besides the one that it shares with the nodes.
const FILES: [(&str, &str, u32); 8] = [
    // There is no udev that would name the interface, or load its driver: the initrd did that.
    (
        "etc/systemd/system/lab-network.service.d/vm.conf",
        "[Service]\nExecStartPre=ip link set dev eth0 name host0\n",
        0o644,
    ),
    // A unit of its own, because the agent's are confined and rightly know no disks.
    (
        "etc/systemd/system/lab-begin.service",
        "[Unit]\nDescription=Mark in the disk's log where the bootstrap begins\nDefaultDependencies=no\n\
         [Service]\nType=oneshot\nExecStart=/usr/local/sbin/lab-mark begin\n",
        0o644,
    ),
    (
        "etc/systemd/system/nodeagent-fetch.service.d/lab.conf",
        "[Unit]\nWants=lab-begin.service\nAfter=lab-begin.service\n",
        0o644,
    ),
    (
        "etc/systemd/system/nodeagent.service.d/lab.conf",
        "[Unit]\nWants=lab-neighbour.service\nOnSuccess=lab-report.service\n",
        0o644,
    ),
    (
        "etc/systemd/system/lab-report.service",
        "[Unit]\nDescription=Tell the lab how the bootstrap ended\n\
         [Service]\nType=oneshot\nExecStart=/usr/local/sbin/lab-report\n",
        0o644,
    ),
    // On a real machine others flush too, and with their files the file system commits the names of all, of files
    // that were not flushed as well: those are empty after a cut. Without a neighbour that does so, an agent that
    // flushes nothing would be found out at its end only.
    (
        "etc/systemd/system/lab-neighbour.service",
        "[Unit]\nDescription=Flush a file that is none of the agent's business\n\
         [Service]\nExecStart=/usr/local/sbin/lab-neighbour\n",
        0o644,
    ),
    (
        "usr/local/sbin/lab-neighbour",
        "#!/bin/sh\n\
         while sleep 0.2; do dd if=/dev/zero of=/var/lib/lab-neighbour bs=512 count=1 conv=fsync status=none; done\n",
        0o755,
    ),
    // The mark comes first: what the agent has promised by then must not depend on the `sync` after it.
    (
        "usr/local/sbin/lab-report",
        "#!/bin/sh\n\
         lab-mark end\n\
         sync\n\
         {\n\
         /opt/bin/nodeagent plan --exit-code 2>&1; echo \"plan exited with $?\"\n\
         for unit in kubelet kube-proxy; do echo \"$unit is $(systemctl is-active $unit.service)\"; done\n\
         echo 'end of report'\n\
         } >/dev/ttyS1\n",
        0o755,
    ),
];

/// Leaves a mark on the disk behind the file system, past all caches of the guest's.
fn mark_script() -> String {
    format!(
        "#!/bin/sh\nprintf '%-512s' \"mark $1\" | \
         dd of=/dev/vda bs=512 seek={MARK_SECTOR} count=1 iflag=fullblock oflag=direct conv=notrunc status=none\n"
    )
}

/// What all virtual machines of a recipe boot from.
struct Image {
    directory: PathBuf,
}

impl Image {
    /// The cached image over `tree`; builds it first when it is not there.
    fn get(cache: &Path, tree: &Path) -> Result<Self> {
        let package = kernel_package()?;
        let recipe = format!("{} {package} {SIZE_MIB} {DRIVERS:?} {INIT} {FILES:?} {}", tree.display(), mark_script());
        let directory = cache.join(format!("vm-{}", &digest(recipe.as_bytes())[..16]));
        let _guard = lock(&directory.with_extension("lock"))?;
        if !directory.exists() {
            let unfinished = directory.with_extension("unfinished");
            mounts::remove_tree(&unfinished)?;
            build(&unfinished, tree, &package)
                .with_context(|| format!("build the virtual machines' image {}", directory.display()))?;
            fs::rename(&unfinished, &directory).with_context(|| format!("finish {}", directory.display()))?;
        }
        Ok(Self { directory })
    }

    fn part(&self, name: &str) -> String {
        self.directory.join(name).display().to_string()
    }
}

/// The package that has the kernel: its name changes with each version.
fn kernel_package() -> Result<String> {
    let depends = process::ok(&["apt-cache", "depends", KERNEL], Duration::from_secs(30))?;
    let package = depends.lines().find_map(|line| line.trim().strip_prefix("Depends: "));
    package.map(str::to_owned).with_context(|| format!("apt knows no {KERNEL}: run `apt-get update`"))
}

fn build(directory: &Path, tree: &Path, package: &str) -> Result<()> {
    eprintln!("lab: building the virtual machines' image, once: about half a minute");
    let (kernel, busybox) = (unpack(package)?, unpack("busybox-static")?);
    let parts = ["upper", "work", "merged", "initrd-tree/drivers"].map(|part| directory.join(part));
    for part in &parts {
        fs::create_dir_all(part).with_context(|| format!("create {}", part.display()))?;
    }
    let [upper, work, merged, drivers] = &parts;
    let boot = kernel.path().join("boot");
    let version = package.trim_start_matches("linux-image-");
    copy(&boot.join(format!("vmlinuz-{version}")), &directory.join("kernel"))?;

    let modules = kernel.path().join("lib/modules").join(version);
    make_initrd(directory, drivers, &modules, &busybox.path().join("bin/busybox"))?;

    mounts::overlay(tree, upper, work, merged)?;
    let made = fill(merged, &kernel.path().join("lib/modules"), version).and_then(|()| make_disk(directory, merged));
    mounts::unmount_below(directory)?;
    made?;
    for part in ["upper", "work", "merged", "initrd-tree"] {
        mounts::remove_tree(&directory.join(part))?;
    }
    Ok(())
}

fn make_initrd(directory: &Path, drivers: &Path, modules: &Path, busybox: &Path) -> Result<()> {
    let tree = directory.join("initrd-tree");
    let mut order = String::new();
    for driver in DRIVERS {
        let name = format!("{}.ko", driver.rsplit('/').next().unwrap_or(driver));
        copy(&modules.join("kernel/drivers").join(format!("{driver}.ko")), &drivers.join(&name))?;
        order.push_str(&name);
        order.push('\n');
    }
    fs::write(drivers.join("order"), order).context("write the order of the drivers")?;
    copy(busybox, &tree.join("busybox"))?;
    put(&tree.join("init"), INIT, 0o755)?;
    // busybox has cpio as well, and this one runs anywhere.
    let pack = "find . | ./busybox cpio -o -H newc >../initrd";
    process::ok(&["env", "-C", text(&tree)?, "sh", "-c", pack], BUILD).map(drop)
}

/// Turns the nodes' tree into a virtual machine's.
fn fill(root: &Path, modules: &Path, version: &str) -> Result<()> {
    let there = root.join("usr/lib/modules");
    process::ok(&["cp", "--archive", "--no-target-directory", text(modules)?, text(&there)?], BUILD)?;
    process::ok(&["chroot", text(root)?, "depmod", version], BUILD)?;
    // Nobody reads them there, and each virtual machine copies what the image has.
    for surplus in ["usr/share/doc", "usr/share/man", "usr/share/locale", "var/lib/apt/lists", "var/cache/apt"] {
        mounts::remove_tree(&root.join(surplus))?;
    }
    for (path, text, mode) in FILES {
        put(&root.join(path), text, mode)?;
    }
    put(&root.join("usr/local/sbin/lab-mark"), &mark_script(), 0o755)?;
    // A name of its own and the seed are written into each copy.
    let seed = root.join(SEED.trim_start_matches('/'));
    fs::create_dir_all(&seed).with_context(|| format!("create {}", seed.display()))?;
    for own in ["etc/hostname", "etc/machine-id"] {
        let _ = fs::remove_file(root.join(own));
    }
    // Somebody who logs in is not expected, and a terminal's unit would wait for udev.
    symlink("/dev/null", root.join("etc/systemd/system/serial-getty@ttyS0.service")).context("mask the serial terminal")
}

fn make_disk(directory: &Path, tree: &Path) -> Result<()> {
    let disk = directory.join("disk.img");
    // Everything is initialised now: a kernel thread that does it later would be noise among the agent's writes.
    let options = ["-q", "-F", "-b", "4096", "-E", "lazy_itable_init=0,lazy_journal_init=0", "-d", text(tree)?];
    let size = format!("{SIZE_MIB}M");
    process::ok(&[&["mkfs.ext4"], &options[..], &[text(&disk)?, &size]].concat(), BUILD)?;
    let file = File::options().write(true).open(&disk).with_context(|| format!("open {}", disk.display()))?;
    file.set_len((SIZE_MIB + 1) << 20).with_context(|| format!("make room for marks on {}", disk.display()))
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::copy(from, to).map(drop).with_context(|| format!("copy {} to {}", from.display(), to.display()))
}

fn put(path: &Path, text: &str, mode: u32) -> Result<()> {
    let parent = path.parent().context("a file has a directory")?;
    fs::create_dir_all(parent).with_context(|| format!("create {}", parent.display()))?;
    let mut file = File::create(path).with_context(|| format!("create {}", path.display()))?;
    file.write_all(text.as_bytes()).with_context(|| format!("write {}", path.display()))?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).with_context(|| format!("chmod {}", path.display()))
}

fn text(path: &Path) -> Result<&str> {
    path.to_str().with_context(|| format!("{} is not UTF-8", path.display()))
}

/// A virtual machine, off until it is powered on, and killed when dropped.
pub struct Vm<'lab> {
    lab: &'lab Lab,
    image: Image,
    name: String,
    directory: PathBuf,
    /// The second disk, if it has one.
    drive: Option<PathBuf>,
    running: Option<Running>,
}

/// Dropped in this order: the machine, then its end of the network.
struct Running {
    qemu: Daemon,
    _tap: Tap,
}

impl<'lab> NodeSpec<'lab> {
    /// Makes a virtual machine of this node, without booting it.
    pub fn create_vm(self) -> Result<Vm<'lab>> {
        let lab = self.lab();
        let image = Image::get(lab.cache(), lab.tree())?;
        let (name, files) = self.seed()?;
        let directory = lab.directory().join(&name);
        fs::create_dir_all(&directory).with_context(|| format!("create {}", directory.display()))?;
        let drive = self.drive().map(|image| (directory.join("drive.img"), image));
        if let Some((path, image)) = &drive {
            fs::write(path, image).with_context(|| format!("write {}", path.display()))?;
        }
        let vm = Vm { lab, image, name, directory, drive: drive.map(|(path, _)| path), running: None };
        let disk = Disk::at(Path::new(&vm.image.part("disk.img"))).copy_to(&vm.disk_path())?;
        for (path, bytes) in files {
            disk.write(&path, &bytes)?;
        }
        Ok(vm)
    }
}

impl<'lab> Vm<'lab> {
    /// Another machine of the same name with a disk of the caller's.
    pub fn with_disk(&self, name: &str, disk: &Path) -> Result<Vm<'lab>> {
        let directory = self.lab.directory().join(name);
        fs::create_dir_all(&directory).with_context(|| format!("create {}", directory.display()))?;
        let image = Image { directory: self.image.directory.clone() };
        let vm = Vm { lab: self.lab, image, name: name.to_owned(), directory, drive: None, running: None };
        fs::rename(disk, vm.disk_path()).with_context(|| format!("move {}", disk.display()))?;
        Ok(vm)
    }

    /// Its disk.
    pub fn disk(&self) -> Disk {
        Disk::at(&self.disk_path())
    }

    fn disk_path(&self) -> PathBuf {
        self.directory.join("disk.img")
    }

    fn console(&self) -> PathBuf {
        self.directory.join("console.log")
    }

    /// Powers it on. With a `log`, each write and each flush of its disk is recorded there.
    pub fn power_on(&mut self, log: Option<&Path>) -> Result<()> {
        ensure!(self.running.is_none(), "virtual machine {} runs already", self.name);
        let tap = self.lab.net().tap()?;
        let report = self.report_path();
        fs::write(&report, "").with_context(|| format!("create {}", report.display()))?;
        let args = self.command(&tap, log)?;
        let cgroups = Cgroups::new(&self.lab.label(), &self.name)?;
        let output = self.directory.join("qemu.log");
        let qemu = Daemon::start(&format!("qemu of {}", self.name), &args, &[], &output, &cgroups)?;
        self.running = Some(Running { qemu, _tap: tap });
        Ok(())
    }

    fn command(&self, tap: &Tap, log: Option<&Path>) -> Result<Vec<std::ffi::OsString>> {
        let mut args: Vec<String> = [
            "qemu-system-x86_64 -accel tcg,thread=multi -cpu max -smp 2 -m 1024",
            "-nodefaults -no-user-config -display none -no-reboot",
            "-object rng-random,id=entropy,filename=/dev/urandom -device virtio-rng-pci,rng=entropy",
        ]
        .iter()
        .flat_map(|line| line.split(' '))
        .map(str::to_owned)
        .collect();
        let mut add = |option: &str, value: String| args.extend([option.to_owned(), value]);
        add("-kernel", self.image.part("kernel"));
        add("-initrd", self.image.part("initrd"));
        let kernel = "console=ttyS0 quiet mitigations=off panic=-1 systemd.show_status=false \
                      systemd.journald.forward_to_console=1 systemd.journald.max_level_console=info";
        add("-append", kernel.to_owned());
        add("-serial", format!("file:{}", self.console().display()));
        add("-serial", format!("file:{}", self.report_path().display()));
        // What the host does with a flush is of no interest: its own power stays on.
        let file = |node: &str, path: &Path| {
            format!("driver=file,node-name={node},filename={},cache.no-flush=on", path.display())
        };
        if let Some(log) = log {
            File::create(log).with_context(|| format!("create {}", log.display()))?;
            add("-blockdev", file("disk-file", &self.disk_path()));
            add("-blockdev", file("log-file", log));
            add("-blockdev", "driver=blklogwrites,node-name=disk,file=disk-file,log=log-file".to_owned());
        } else {
            add("-blockdev", file("disk", &self.disk_path()));
        }
        // The log adds two vectors to each write, and a merged one may already have all that pwritev(2) takes: it would
        // fail, and the guest would see a broken disk.
        let disk = "virtio-blk-pci,drive=disk,write-cache=on,logical_block_size=512,request-merging=off";
        add("-device", disk.to_owned());
        if let Some(drive) = &self.drive {
            add("-blockdev", format!("driver=file,node-name=drive,filename={},read-only=on", drive.display()));
            add("-device", "virtio-blk-pci,drive=drive".to_owned());
        }
        add("-netdev", format!("tap,id=net,ifname={},script=no,downscript=no", tap.name()));
        add("-device", "virtio-net-pci,netdev=net,romfile=".to_owned());
        Ok(self.lab.net().inside(&args))
    }

    fn report_path(&self) -> PathBuf {
        self.directory.join("report.log")
    }

    /// Waits until the guest has said how its bootstrap ended, and returns what it said.
    pub fn report(&mut self) -> Result<String> {
        let (path, console) = (self.report_path(), self.console());
        let running = self.running.as_mut().with_context(|| format!("virtual machine {} is off", self.name))?;
        let report = running.qemu.wait_until(&format!("{} to report", self.name), REPORT, || {
            let report = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
            ensure!(
                report.lines().any(|line| line.trim_end() == END_OF_REPORT),
                "it has said nothing, or not all: {report:?}"
            );
            Ok(report)
        });
        report.with_context(|| format!("console: {}", console.display()))
    }

    /// Cuts its power. What the guest had written by then is on its disk: to lose some of it is the caller's part.
    pub fn kill(&mut self) -> Result<()> {
        if let Some(mut running) = self.running.take() {
            running.qemu.kill();
        }
        Cgroups::remove(&format!("{}/{}", self.lab.label(), self.name))
    }

    /// Removes a machine that has served: its disk need not be kept.
    pub fn remove(mut self) -> Result<()> {
        self.kill()?;
        mounts::remove_tree(&self.directory)
    }
}

impl Drop for Vm<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.kill() {
            eprintln!("lab: {error:#}");
        }
    }
}
