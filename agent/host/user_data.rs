//! What the machine was given to set itself up with, wherever cloud-init, coreos-cloudinit and Ignition keep it or read it
//! again at the next boot.

use std::collections::BTreeSet;
use std::error::Error as _;
use std::os::unix::fs::MetadataExt as _;

use super::bytes::FileBytes;
use super::root::{FileError, Root, read_whole};
use super::swap::unescape;
use crate::config::values::RootPath;
use crate::engine::resource::CannotTell;

/// A place where user-data was looked for, and what lies there, or why that cannot be said.
pub type Place = (String, Result<FileBytes, CannotTell>);

/// The files, where `*` stands for each name in a directory.
///
/// Sources: docs.cloud-init.io ("Instance data", "Seed directories", `NoCloud`, "Config drive"), coreos-cloudinit's
/// `Documentation/config-drive.md` and its units, coreos.github.io/ignition.
const PLACES: [&str; 20] = [
    // Every instance that the disk was: a clone keeps its parent's. What was given is there as it came (user-data.txt), in
    // parts, merged, and pickled; the current one has a second name.
    "/var/lib/cloud/instance/*",
    "/var/lib/cloud/instance/scripts/*",
    "/var/lib/cloud/instances/*/*",
    "/var/lib/cloud/instances/*/scripts/*",
    "/var/lib/cloud/seed/*/*",
    "/var/lib/cloud/seed/config_drive/openstack/*/*",
    "/var/lib/cloud/seed/config_drive/ec2/*/*",
    "/etc/cloud/cloud.cfg.d/*",
    "/run/cloud-init/instance-data-sensitive.json",
    "/run/cloud-init/combined-cloud-config.json",
    "/media/configdrive/openstack/*/*",
    "/media/configdrive/ec2/*/*",
    "/media/configvirtfs/openstack/*/*",
    "/var/lib/coreos-install/user_data",
    "/var/lib/coreos-vagrant/vagrantfile-user-data",
    "/usr/share/oem/cloud-config.yml",
    "/usr/share/oem/config.ign",
    "/oem/cloud-config.yml",
    "/oem/config.ign",
    "/run/ignition.json",
];

/// The labels of the file systems that bring user-data: a config drive's, and those of `NoCloud`.
const LABELS: [&str; 4] = ["config-2", "CONFIG-2", "cidata", "CIDATA"];

/// What lies on those.
const ON_DRIVE: [&str; 4] = ["openstack/*/*", "ec2/*/*", "user-data", "vendor-data"];

/// What cloud-init was given, as it came. It unmounts a drive as soon as it has read it, and keeps this of it.
const KEPT: &str = "/var/lib/cloud/instance/user-data.txt";

/// All that there is, each file once, however many names lead to it. Nothing is mounted: a drive that is not is told of,
/// unless cloud-init has kept what it read.
pub fn read(root: &Root) -> Vec<Place> {
    let is_kept = matches!(root.follow(&RootPath::literal(KEPT)), Ok(Some(_)));
    let (mut patterns, mut all) = (PLACES.map(str::to_owned).to_vec(), Vec::new());
    match drives(root) {
        Err(error) => all.push(cannot("/run/udev/data", &error)),
        Ok(drives) => {
            for (label, mounted) in drives {
                match mounted {
                    Some(on) => patterns.extend(ON_DRIVE.map(|below| format!("{on}/{below}"))),
                    None if is_kept => {}
                    None => all.push(not_mounted(label)),
                }
            }
        }
    }
    let mut known = BTreeSet::new();
    for pattern in patterns {
        match matches(root, &pattern) {
            Err(error) => all.push(cannot(&pattern, &error)),
            Ok(paths) => all.extend(paths.iter().filter_map(|path| file(root, path, &mut known))),
        }
    }
    all
}

fn cannot(place: &str, error: &FileError) -> Place {
    let why = error.source().map(ToString::to_string).unwrap_or_default();
    (place.to_owned(), Err(CannotTell { why, ..CannotTell::because(place, error) }))
}

fn not_mounted(label: &str) -> Place {
    let device = format!("/dev/disk/by-label/{label}");
    let mut why = CannotTell::new(&device, "it is not mounted");
    why.advice = Some(format!("mount it, read-only, at any place (mount -o ro {device} /mnt), or detach it"));
    (device, Err(why))
}

/// A file's bytes; nothing where there is no file, or one that is known by another name.
fn file(root: &Root, path: &RootPath, known: &mut BTreeSet<(u64, u64)>) -> Option<Place> {
    let mut read = || {
        let file = match root.follow(path) {
            Err(error) if error.is_no_directory() => return Ok(None),
            other => other?,
        };
        let Some(file) = file else { return Ok(None) };
        let fail = |error| root.error("read", path, error);
        let meta = file.metadata().map_err(fail)?;
        if !meta.is_file() || !known.insert((meta.dev(), meta.ino())) {
            return Ok(None);
        }
        read_whole(file).map(Some).map_err(fail)
    };
    match read() {
        Ok(bytes) => Some((path.to_string(), Ok(bytes?))),
        Err(error) => Some(cannot(path.as_str(), &error)),
    }
}

/// The paths of a pattern.
fn matches(root: &Root, pattern: &str) -> Result<Vec<RootPath>, FileError> {
    let mut paths = vec![RootPath::literal("/")];
    for part in pattern.split('/').filter(|part| !part.is_empty()) {
        let mut below = Vec::new();
        for path in paths {
            if part == "*" {
                // A name that is no path is nothing that any of those programs wrote.
                let names = names(root, &path)?;
                below.extend(names.iter().filter_map(|name| format!("{path}/{name}").parse().ok()));
            } else {
                below.push(path.join(part));
            }
        }
        paths = below;
    }
    Ok(paths)
}

/// The names in a directory; none where there is no directory.
fn names(root: &Root, path: &RootPath) -> Result<Vec<String>, FileError> {
    match root.list(path) {
        Err(error) if error.is_no_directory() => Ok(Vec::new()),
        other => other,
    }
}

/// The labelled block devices that udev knows, each with the place where it is mounted.
///
/// Not by `/dev/disk/by-label`: the agent's own unit sees no devices (`PrivateDevices=`). What udev knows of device 11:0 is
/// in `/run/udev/data/b11:0`, a line `S:disk/by-label/config-2` for each link to it.
fn drives(root: &Root) -> Result<Vec<(&'static str, Option<RootPath>)>, FileError> {
    let text = |path: &RootPath| Ok(String::from_utf8_lossy(&root.read(path)?.unwrap_or_default()).into_owned());
    let dir = RootPath::literal("/run/udev/data");
    let mounts = text(&RootPath::literal("/proc/self/mountinfo"))?;
    let mut all = Vec::new();
    for name in names(root, &dir)? {
        let (Some(number), Some(path)) = (name.strip_prefix('b'), dir.child(&name)) else { continue };
        let links = text(&path)?;
        let mut labels = links.lines().filter_map(|line| line.strip_prefix("S:disk/by-label/"));
        let label = labels.find_map(|link| LABELS.into_iter().find(|label| *label == link));
        all.extend(label.map(|label| (label, mounted(&mounts, number))));
    }
    Ok(all)
}

/// Where the whole of a device is mounted, by `/proc/self/mountinfo` (proc(5)): its third word is the device, the fourth
/// what of it, the fifth where.
fn mounted(mounts: &str, device: &str) -> Option<RootPath> {
    mounts.lines().find_map(|line| {
        let mut words = line.split(' ').skip(2);
        let whole = words.next() == Some(device) && words.next() == Some("/");
        unescape(words.next().filter(|_| whole)?).parse().ok()
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::engine::change::Meta;

    fn tree(files: &[(&str, &str)]) -> (tempfile::TempDir, Root) {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let root = Root::open(dir.path()).expect("open it as a root");
        for (path, text) in files {
            let path = RootPath::literal(path);
            root.make_own_dirs(&path.parent(), Meta::PROGRAM).expect("directories");
            root.put(&path, text.as_bytes(), Meta::FILE).expect("put");
        }
        (dir, root)
    }

    /// Each place, and its text or why there is none.
    fn said(root: &Root) -> Vec<String> {
        let text = |bytes: FileBytes| String::from_utf8(bytes.into_vec()).expect("text");
        read(root).into_iter().map(|(place, seen)| format!("{place}: {}", seen.map_or_else(|e| e.why, text))).collect()
    }

    #[test]
    fn a_file_of_two_names_is_one_and_what_is_no_file_is_none() {
        let given = "/var/lib/cloud/instances/i-1/user-data.txt";
        let (dir, root) =
            tree(&[(given, "given"), ("/var/lib/cloud/instances/i-1/sem/x", ""), ("/oem", "no directory")]);
        let cloud = dir.path().join("var/lib/cloud");
        symlink("/var/lib/cloud/instances/i-1", cloud.join("instance")).expect("as cloud-init has it");
        symlink("gone", cloud.join("instances/i-1/cloud-config.txt")).expect("a link to nothing");
        std::fs::write(cloud.join("instances/README"), "no instance").expect("a file");
        assert_eq!(said(&root), ["/var/lib/cloud/instance/user-data.txt: given"]);
    }

    #[test]
    fn what_cannot_be_read_is_told() {
        let (dir, root) = tree(&[("/oem/config.ign", "")]);
        std::fs::File::create(dir.path().join("oem/config.ign"))
            .and_then(|file| file.set_len((16 << 20) + 1))
            .expect("large");
        symlink("run", dir.path().join("run")).expect("a link to itself");
        let said = said(&root);
        assert!(said.contains(&"/oem/config.ign: it is larger than 16 MiB".to_owned()), "{said:?}");
        for place in ["/run/ignition.json", "/run/udev/data"] {
            let told = |said: &String| said.starts_with(&format!("{place}: ")) && said.ends_with("(os error 40)");
            assert!(said.iter().any(told), "{place}: {said:?}");
        }
    }

    #[test]
    fn a_drive_is_looked_into_where_it_is_mounted_and_told_of_where_it_is_not() {
        const LABELLED: &str = "S:disk/by-id/x\nS:disk/by-label/config-2\nE:ID_FS_LABEL=config-2\n";
        let files = [
            ("/run/udev/data/b11:0", LABELLED),
            ("/run/udev/data/b254:1", "S:disk/by-label/root\n"),
            ("/run/udev/data/c1:1", LABELLED),
            ("/mnt/my drive/openstack/latest/user_data", "given"),
            ("/mnt/my drive/user-data", "too"),
        ];
        let (_dir, root) = tree(&files);
        let not_mounted = "/dev/disk/by-label/config-2: it is not mounted";
        assert_eq!(said(&root), [not_mounted]);
        let kept = RootPath::literal(KEPT);
        root.make_own_dirs(&kept.parent(), Meta::PROGRAM).expect("directories");
        root.put(&kept, b"given", Meta::SECRET).expect("put");
        assert_eq!(said(&root), [format!("{KEPT}: given")], "cloud-init has what was on it");
        root.remove(&kept).expect("removed");

        let mountinfo = RootPath::literal("/proc/self/mountinfo");
        root.make_own_dirs(&mountinfo.parent(), Meta::PROGRAM).expect("directories");
        let mount = |device: &str, what: &str| {
            let rows = format!(
                "1 0 254:1 / / rw - ext4 /dev/vda1 rw\n9 1 {device} {what} /mnt/my\\040drive ro - iso9660 /dev/sr0 ro\n"
            );
            root.put(&mountinfo, rows.as_bytes(), Meta::FILE).expect("put");
            said(&root)
        };
        assert_eq!(mount("11:1", "/"), [not_mounted], "another device is");
        assert_eq!(mount("11:0", "/openstack"), [not_mounted], "only a part of it is");
        assert_eq!(
            mount("11:0", "/"),
            ["/mnt/my drive/openstack/latest/user_data: given", "/mnt/my drive/user-data: too"]
        );
    }
}
