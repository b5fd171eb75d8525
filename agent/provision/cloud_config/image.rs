//! The config drive: a small ISO 9660 image (ECMA-119) with the label `config-2`, as `OpenStack` hands it to its machines.
//!
//! Names are in lower case, which the standard does not have and every reader accepts: they must be the same for one that
//! folds names and one that does not. Nothing in the image depends on the time or on the machine that makes it.

/// The size of a sector, and of what everything in an image is a multiple of.
const SECTOR: usize = 2048;

/// Sectors that belong to the system, at the start.
const SYSTEM_AREA: usize = 16;

/// The label that cloud-init and coreos-cloudinit look for.
const LABEL: &str = "config-2";

/// 1970-01-01, midnight, UTC, as a directory has it (ECMA-119, 9.1.5) …
const RECORDED: [u8; 7] = [70, 1, 1, 0, 0, 0, 0];
/// … and as a volume has it (8.4.26.1): no date.
const NO_DATE: [u8; 17] = *b"0000000000000000\0";

/// Where the user-data of an `OpenStack` machine is, by the version of the format. coreos-cloudinit knows `latest` alone;
/// cloud-init takes the newest version that it knows, and `latest` only where there is none. So each gets its own.
const FOR_COREOS: &str = "latest";
const FOR_CLOUD_INIT: &str = "2012-08-10";

/// The config drive of a machine.
pub(super) fn config_drive(cloud_init: &str, coreos: &str, meta_data: &str) -> Vec<u8> {
    let version = |name: &'static str, user_data: &str| {
        let file = |name, content: &str| Item { name, what: What::File(content.as_bytes().to_vec()) };
        let items = vec![file("meta_data.json", meta_data), file("user_data", user_data)];
        Item { name, what: What::Dir(items) }
    };
    let versions = vec![version(FOR_CLOUD_INIT, cloud_init), version(FOR_COREOS, coreos)];
    image(vec![Item { name: "openstack", what: What::Dir(versions) }])
}

/// A file or a directory. A directory's items are in the order of their names.
struct Item {
    name: &'static str,
    what: What,
}

enum What {
    File(Vec<u8>),
    Dir(Vec<Item>),
}

/// A directory on its way into the image: its place among the directories is that of the path table.
struct Dir {
    name: &'static str,
    parent: usize,
    children: Vec<Child>,
}

struct Child {
    name: &'static str,
    target: Target,
}

#[derive(Clone, Copy)]
enum Target {
    Dir(usize),
    File(usize),
}

/// The image: descriptors, path tables, a sector for each directory, then the files.
fn image(root: Vec<Item>) -> Vec<u8> {
    let (dirs, files) = laid_out(root);
    let (little, big) =
        (path_table(&dirs, u32::to_le_bytes, u16::to_le_bytes), path_table(&dirs, u32::to_be_bytes, u16::to_be_bytes));
    let mut sectors: Vec<usize> = Vec::new();
    let mut next = FIRST_DIR + dirs.len();
    for file in &files {
        sectors.push(next);
        next += file.len().div_ceil(SECTOR);
    }
    let extent = |target: Target| match target {
        Target::Dir(at) => (FIRST_DIR + at, SECTOR),
        Target::File(at) => (sectors[at], files[at].len()),
    };
    let mut image = vec![0; SYSTEM_AREA * SECTOR];
    image.extend(padded(primary_descriptor(next, little.len(), &record(b"\0", Target::Dir(0), extent))));
    image.extend(padded(b"\xffCD001\x01".to_vec()));
    image.extend(padded(little));
    image.extend(padded(big));
    for (at, dir) in dirs.iter().enumerate() {
        let mut sector = record(b"\0", Target::Dir(at), extent);
        sector.extend(record(b"\x01", Target::Dir(dir.parent), extent));
        for child in &dir.children {
            let name = match child.target {
                Target::Dir(_) => child.name.to_owned(),
                // A file's name has an extension, be it empty, and a version.
                Target::File(_) if child.name.contains('.') => format!("{};1", child.name),
                Target::File(_) => format!("{}.;1", child.name),
            };
            sector.extend(record(name.as_bytes(), child.target, extent));
        }
        image.extend(padded(sector));
    }
    image.extend(files.into_iter().flat_map(padded));
    image
}

/// Behind the system's area: two descriptors, two path tables.
const LITTLE_TABLE: usize = SYSTEM_AREA + 2;
const BIG_TABLE: usize = LITTLE_TABLE + 1;
const FIRST_DIR: usize = BIG_TABLE + 1;

/// All directories, level by level as the path table wants them, and all files.
fn laid_out(root: Vec<Item>) -> (Vec<Dir>, Vec<Vec<u8>>) {
    let mut dirs = vec![Dir { name: "\0", parent: 0, children: Vec::new() }];
    let mut files = Vec::new();
    let mut waiting = std::collections::VecDeque::from([(0, root)]);
    while let Some((at, items)) = waiting.pop_front() {
        for Item { name, what } in items {
            let target = match what {
                What::File(content) => {
                    files.push(content);
                    Target::File(files.len() - 1)
                }
                What::Dir(items) => {
                    dirs.push(Dir { name, parent: at, children: Vec::new() });
                    waiting.push_back((dirs.len() - 1, items));
                    Target::Dir(dirs.len() - 1)
                }
            };
            dirs[at].children.push(Child { name, target });
        }
    }
    (dirs, files)
}

/// A file's or directory's entry (9.1).
fn record(name: &[u8], target: Target, extent: impl Fn(Target) -> (usize, usize)) -> Vec<u8> {
    let (sector, size) = extent(target);
    // The length of the whole is even.
    let length = (33 + name.len()).next_multiple_of(2);
    let mut record = vec![byte(length), 0];
    record.extend(both_32(sector));
    record.extend(both_32(size));
    record.extend(RECORDED);
    record.extend([u8::from(matches!(target, Target::Dir(_))) << 1, 0, 0]);
    record.extend(both_16(1));
    record.push(byte(name.len()));
    record.extend(name);
    record.resize(length, 0);
    record
}

/// All directories, by name and parent (9.4), in one of the two orders of bytes.
fn path_table(dirs: &[Dir], four: fn(u32) -> [u8; 4], two: fn(u16) -> [u8; 2]) -> Vec<u8> {
    let mut table = Vec::new();
    for (at, dir) in dirs.iter().enumerate() {
        table.extend([byte(dir.name.len()), 0]);
        table.extend(four(word(FIRST_DIR + at)));
        // Directories are counted from 1 here.
        table.extend(two(half(dir.parent + 1)));
        table.extend(dir.name.as_bytes());
        if dir.name.len() % 2 == 1 {
            table.push(0);
        }
    }
    table
}

/// What the image is, and where its root is (8.4).
fn primary_descriptor(sectors: usize, table: usize, root: &[u8]) -> Vec<u8> {
    let text = |text: &str, length: usize| format!("{text:<length$}").into_bytes();
    let mut descriptor = b"\x01CD001\x01\0".to_vec();
    descriptor.extend(text("", 32));
    descriptor.extend(text(LABEL, 32));
    descriptor.extend([0; 8]);
    descriptor.extend(both_32(sectors));
    descriptor.extend([0; 32]);
    // One disk, the first.
    descriptor.extend(both_16(1));
    descriptor.extend(both_16(1));
    descriptor.extend(both_16(SECTOR));
    descriptor.extend(both_32(table));
    descriptor.extend(word(LITTLE_TABLE).to_le_bytes());
    descriptor.extend([0; 4]);
    descriptor.extend(word(BIG_TABLE).to_be_bytes());
    descriptor.extend([0; 4]);
    descriptor.extend(root);
    // Volume set, publisher, preparer, application; copyright, abstract, bibliography.
    descriptor.extend(text("", 4 * 128 + 3 * 37));
    for _ in 0..4 {
        descriptor.extend(NO_DATE);
    }
    descriptor.push(1);
    descriptor
}

fn padded(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes.resize(bytes.len().next_multiple_of(SECTOR), 0);
    bytes
}

/// A number in both orders of bytes.
fn both_32(number: usize) -> Vec<u8> {
    [word(number).to_le_bytes(), word(number).to_be_bytes()].concat()
}

fn both_16(number: usize) -> Vec<u8> {
    [half(number).to_le_bytes(), half(number).to_be_bytes()].concat()
}

// An image holds a machine's user-data: some kilobytes in four directories.
fn word(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

fn half(number: usize) -> u16 {
    u16::try_from(number).unwrap_or(u16::MAX)
}

fn byte(number: usize) -> u8 {
    u8::try_from(number).unwrap_or(u8::MAX)
}
