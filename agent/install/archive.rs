//! Taking single files out of an archive: tar, plain or compressed by gzip or zstd.
//!
//! Only members that were asked for are written, each to a file that the caller opened: no name in an archive ever
//! becomes a path. An archive that tries to reach outside (`..`, an absolute path, a link out, a device) or to fill the
//! disk is refused as a whole all the same: whoever made it meant harm, and its other members are worth as much.

use std::cell::Cell;
use std::io::{self, BufRead, BufReader, Read, Seek, Write};
use std::rc::Rc;

use tar::EntryType;

use super::elf;
use crate::config::values::Sha256;
use crate::engine::fault::{Class, Explain, quote};

/// The most that an archive may unpack to, in bytes: six times the largest release there is (containerd's and
/// Kubernetes' node archives are some 500 MB unpacked).
const MOST_BYTES: u64 = 3 << 30;

/// The most entries.
const MOST_ENTRIES: usize = 50_000;

/// The most that may stand between two entries' contents: headers, and names of any length, which are read into memory.
const MOST_BETWEEN: u64 = 1 << 20;

/// The most names that an error tells.
const MOST_NAMED: usize = 12;

/// How what gzip (RFC 1952) and zstd (RFC 8878) write begins.
const GZIP: [u8; 2] = [0x1f, 0x8b];
const ZSTD: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// Nothing is taken out of an archive.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// It is no archive, or damaged. The reader's own words hold names out of the archive.
    #[error("it is no tar archive (plain, gzip or zstd), or it is damaged: {}", quote(&.0.to_string()))]
    Damaged(io::Error),
    /// It reaches outside.
    #[error("its entry {entry:?} {why}")]
    Unsafe {
        /// The entry's name.
        entry: String,
        /// What it tries.
        why: String,
    },
    /// It is a bomb.
    #[error("it unpacks to more than {0}")]
    TooMuch(String),
    /// It lacks a member.
    #[error("it has no file {member:?}; it has: {has}")]
    Missing {
        /// The member.
        member: String,
        /// Some of what it has instead.
        has: String,
    },
    /// A member cannot be written.
    #[error("write what is taken out: {0}")]
    Write(io::Error),
}

impl Explain for ArchiveError {
    fn class(&self) -> Class {
        match self {
            Self::Write(_) => Class::Failed,
            _ => Class::Verification,
        }
    }

    fn advice(&self) -> Option<String> {
        match self {
            Self::Write(error) => crate::host::root::advice(error),
            Self::Missing { .. } => Some("correct the artifact's members".to_owned()),
            _ => Some("nothing of it was installed; look at who made it".to_owned()),
        }
    }
}

/// A member that was taken out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Taken {
    /// Its digest.
    pub sha256: Sha256,
    /// Its first bytes, for [`elf::check`].
    pub head: Vec<u8>,
}

/// Takes the `members` out, in their order. `open` opens the file for each, and is called at most once for each.
///
/// Reads as a stream; what stays in memory does not depend on the archive (zstd's window, at most 100 MiB, does).
pub fn take<W: Write>(
    archive: impl Read,
    members: &[&str],
    open: impl FnMut(usize) -> io::Result<W>,
) -> Result<Vec<Taken>, ArchiveError> {
    let (taken, has) = take_some(archive, members, open)?;
    let missing = |at: usize| ArchiveError::Missing { member: members[at].to_owned(), has: has.join(", ") };
    taken.into_iter().enumerate().map(|(at, taken)| taken.ok_or_else(|| missing(at))).collect()
}

/// Those of the `members` that are there, in their order; and some of what is there instead.
pub(super) fn take_some<W: Write>(
    archive: impl Read,
    members: &[&str],
    mut open: impl FnMut(usize) -> io::Result<W>,
) -> Result<(Vec<Option<Taken>>, Vec<String>), ArchiveError> {
    let budget = Rc::new(Budget::new(MOST_BETWEEN));
    let damaged = |error| budget.judge(error);
    let stream = Metered { from: plain(archive).map_err(ArchiveError::Damaged)?, budget: Rc::clone(&budget) };
    let mut tar = tar::Archive::new(stream);
    let mut taken: Vec<Option<Taken>> = vec![None; members.len()];
    let mut has = Vec::new();
    let mut entries = tar.entries().map_err(damaged)?;
    for count in 0.. {
        if count > MOST_ENTRIES {
            return Err(ArchiveError::TooMuch(format!("{MOST_ENTRIES} entries")));
        }
        let Some(entry) = entries.next() else { break };
        let mut entry = entry.map_err(damaged)?;
        budget.entry.set(entry.size().saturating_add(MOST_BETWEEN));
        let shown = quote(&String::from_utf8_lossy(&entry.path_bytes()));
        let refuse = |why: &str| ArchiveError::Unsafe { entry: shown.clone(), why: why.to_owned() };
        let name = inside(&entry.path_bytes(), 0).ok_or_else(|| refuse("would lie outside of the archive"))?;
        let kind = entry.header().entry_type();
        if let Some(why) = reaches_out(kind, &name, entry.link_name_bytes().as_deref()) {
            return Err(refuse(why));
        }
        let Some(at) = members.iter().position(|member| *member == name) else {
            if kind.is_file() && has.len() < MOST_NAMED {
                has.push(quote(&name));
            }
            continue;
        };
        if !matches!(kind, EntryType::Regular | EntryType::Continuous) {
            return Err(refuse("is wanted as a file, and is none"));
        }
        if taken[at].is_some() {
            return Err(refuse("is there twice"));
        }
        if entry.size() > MOST_BYTES {
            return Err(ArchiveError::TooMuch(format!("{} GiB", MOST_BYTES >> 30)));
        }
        let mut to = open(at).map_err(ArchiveError::Write)?;
        taken[at] = Some(copy(&mut entry, &mut to, damaged)?);
    }
    Ok((taken, has))
}

/// Writes the archive without its compression; nothing if it has none. `to` is opened only then.
pub(super) fn decompress<W: Write>(
    archive: &mut (impl Read + Seek),
    to: impl FnOnce() -> io::Result<W>,
) -> Result<Option<Sha256>, ArchiveError> {
    let mut head = Vec::new();
    archive.take(4).read_to_end(&mut head).and_then(|_| archive.rewind()).map_err(ArchiveError::Damaged)?;
    if !head.starts_with(&GZIP) && !head.starts_with(&ZSTD) {
        return Ok(None);
    }
    let budget = Rc::new(Budget::new(MOST_BYTES));
    let mut stream = Metered { from: plain(archive).map_err(ArchiveError::Damaged)?, budget: Rc::clone(&budget) };
    let mut to = to().map_err(ArchiveError::Write)?;
    copy(&mut stream, &mut to, |error| budget.judge(error)).map(|taken| Some(taken.sha256))
}

fn copy(
    from: &mut impl Read,
    to: &mut impl Write,
    damaged: impl Fn(io::Error) -> ArchiveError,
) -> Result<Taken, ArchiveError> {
    let mut hasher = openssl::sha::Sha256::new();
    let mut head = Vec::new();
    let mut buffer = vec![0; 1 << 16];
    loop {
        let read = from.read(&mut buffer).map_err(&damaged)?;
        if read == 0 {
            to.flush().map_err(ArchiveError::Write)?;
            return Ok(Taken { sha256: Sha256::from_raw(&hasher.finish()), head });
        }
        let piece = &buffer[..read];
        head.extend(piece.iter().take(elf::HEAD - head.len()));
        hasher.update(piece);
        to.write_all(piece).map_err(ArchiveError::Write)?;
    }
}

/// The archive without its compression, which its first bytes tell: names lie.
fn plain<'r>(archive: impl Read + 'r) -> io::Result<Box<dyn Read + 'r>> {
    let mut archive = BufReader::with_capacity(1 << 16, archive);
    Ok(match archive.fill_buf()? {
        head if head.starts_with(&GZIP) => Box::new(flate2::bufread::MultiGzDecoder::new(archive)),
        head if head.starts_with(&ZSTD) => {
            Box::new(ruzstd::decoding::StreamingDecoder::new(archive).map_err(io::Error::other)?)
        }
        _ => Box::new(archive),
    })
}

/// The name without `.` and double slashes, as it is inside of the archive; nothing if it leads out. `depth` is how many
/// directories it may climb.
fn inside(name: &[u8], depth: usize) -> Option<String> {
    let name = std::str::from_utf8(name).ok()?;
    if name.starts_with('/') || name.contains('\0') {
        return None;
    }
    let mut parts = Vec::new();
    let mut climbed = 0;
    for part in name.split('/') {
        match part {
            "" | "." => {}
            ".." if depth == 0 => return None,
            ".." => climbed += usize::from(parts.pop().is_none()),
            part => parts.push(part),
        }
    }
    (climbed <= depth).then(|| parts.join("/"))
}

/// What no honest archive of programs holds.
fn reaches_out(kind: EntryType, name: &str, link: Option<&[u8]>) -> Option<&'static str> {
    match kind {
        EntryType::Char | EntryType::Block => Some("is a device"),
        EntryType::Fifo => Some("is a pipe"),
        // A hard link names another entry, a symbolic one a place beside itself.
        EntryType::Link if link.is_none_or(|to| inside(to, 0).is_none()) => Some("is a hard link to the outside"),
        EntryType::Symlink if link.is_none_or(|to| inside(to, name.matches('/').count()).is_none()) => {
            Some("is a symbolic link to the outside")
        }
        _ => None,
    }
}

/// How much may still be read, of this entry and of all.
struct Budget {
    entry: Cell<u64>,
    all: Cell<u64>,
    spent: Cell<bool>,
}

impl Budget {
    fn new(entry: u64) -> Self {
        Self { entry: Cell::new(entry), all: Cell::new(MOST_BYTES), spent: Cell::new(false) }
    }

    /// What an error of the reader means.
    fn judge(&self, error: io::Error) -> ArchiveError {
        if self.spent.get() {
            ArchiveError::TooMuch(format!("{} GiB, or has endless headers", MOST_BYTES >> 30))
        } else {
            ArchiveError::Damaged(error)
        }
    }
}

/// A reader that fails when the budget is spent.
struct Metered<R> {
    from: R,
    budget: Rc<Budget>,
}

impl<R: Read> Read for Metered<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.budget.entry.get().min(self.budget.all.get());
        if left == 0 && !buffer.is_empty() {
            self.budget.spent.set(true);
            return Err(io::Error::other("too much"));
        }
        let most = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        let read = self.from.read(&mut buffer[..most])?;
        self.budget.entry.set(self.budget.entry.get() - read as u64);
        self.budget.all.set(self.budget.all.get() - read as u64);
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    /// An archive of one entry besides an honest one, with a name and a link that tar's own writer would refuse.
    fn tar_with(kind: EntryType, name: &str, link: &str, content: &[u8]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        let mut put = |kind: EntryType, name: &str, link: &str, content: &[u8]| {
            let mut header = tar::Header::new_gnu();
            header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
            header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
            header.set_entry_type(kind);
            header.set_mode(0o755);
            header.set_size(content.len() as u64);
            header.set_cksum();
            builder.append(&header, content).expect("in memory");
        };
        put(EntryType::Regular, "./pkg/bin/tool", "", b"the tool");
        put(kind, name, link, content);
        builder.into_inner().expect("in memory")
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).expect("in memory");
        encoder.finish().expect("in memory")
    }

    /// What is taken out of an archive, or why nothing is.
    fn taken(archive: &[u8], members: &[&str]) -> Result<Vec<Vec<u8>>, String> {
        struct Into<'a>(&'a RefCell<Vec<Vec<u8>>>, usize);
        impl Write for Into<'_> {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                self.0.borrow_mut()[self.1].extend(bytes);
                Ok(bytes.len())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let files = RefCell::new(vec![Vec::new(); members.len()]);
        let all = take(archive, members, |at| Ok(Into(&files, at))).map_err(|error| error.to_string())?;
        let files = files.into_inner();
        for (taken, file) in all.iter().zip(&files) {
            assert_eq!(taken.sha256, Sha256::of(file));
            assert_eq!(taken.head, file[..file.len().min(elf::HEAD)]);
        }
        Ok(files)
    }

    #[test]
    fn members_are_found_whatever_the_compression() {
        let tar = tar_with(EntryType::Symlink, "pkg/tool", "../pkg/bin/tool", b"");
        let zstd = ruzstd::encoding::compress_to_vec(&tar[..], ruzstd::encoding::CompressionLevel::Fastest);
        for archive in [tar.clone(), gzip(&tar), zstd] {
            assert_eq!(taken(&archive, &["pkg/bin/tool"]), Ok(vec![b"the tool".to_vec()]));
        }
    }

    #[test]
    fn whoever_reaches_out_is_refused() {
        use EntryType as Kind;
        for (kind, name, link, wanted) in [
            (Kind::Regular, "../../etc/passwd", "", "would lie outside"),
            (Kind::Regular, "pkg/../../x", "", "would lie outside"),
            (Kind::Regular, "pkg/../x", "", "would lie outside"),
            (Kind::Regular, "/etc/passwd", "", "would lie outside"),
            (Kind::Directory, "..", "", "would lie outside"),
            (Kind::Symlink, "pkg/bin", "/etc", "symbolic link to the outside"),
            (Kind::Symlink, "pkg/bin", "../../etc", "symbolic link to the outside"),
            (Kind::Symlink, "pkg/bin", "x/../../../etc", "symbolic link to the outside"),
            (Kind::Link, "pkg/bin", "../etc/passwd", "hard link to the outside"),
            (Kind::Link, "pkg/bin", "/etc/passwd", "hard link to the outside"),
            (Kind::Char, "pkg/mem", "", "is a device"),
            (Kind::Block, "pkg/sda", "", "is a device"),
            (Kind::Fifo, "pkg/pipe", "", "is a pipe"),
            (Kind::Regular, "pkg/bin/tool", "", "is there twice"),
        ] {
            let error = taken(&tar_with(kind, name, link, b""), &["pkg/bin/tool"]).expect_err(name);
            assert!(error.contains(wanted) && error.contains(name), "{name} -> {link}: {error}");
        }
    }

    #[test]
    fn a_member_must_be_a_file_and_be_there() {
        let link = tar_with(EntryType::Symlink, "pkg/link", "bin/tool", b"");
        assert!(taken(&link, &["pkg/link"]).expect_err("a link").contains("is wanted as a file"));
        let error = taken(&link, &["bin/tool"]).expect_err("nothing of that name");
        assert_eq!(error, "it has no file \"bin/tool\"; it has: pkg/bin/tool");
    }

    #[test]
    fn what_is_no_archive_is_refused() {
        let whole = gzip(&tar_with(EntryType::Regular, "pkg/x", "", &[7; 9000]));
        for bytes in [b"<html>no such file</html>".repeat(100), whole[..whole.len() / 2].to_vec(), vec![0x1f, 0x8b, 1]]
        {
            let error = taken(&bytes, &["pkg/x"]).expect_err("damaged");
            assert!(error.starts_with("it is no tar archive") || error.starts_with("it has no file"), "{error}");
        }
    }

    /// Zeros without end, as gzip packs them.
    struct Zeros(u64);

    impl Read for Zeros {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let most = usize::try_from(self.0).unwrap_or(usize::MAX).min(buffer.len());
            buffer[..most].fill(0);
            self.0 -= most as u64;
            Ok(most)
        }
    }

    #[test]
    fn bombs_are_defused() {
        let header = |kind: EntryType, size: u64| {
            let mut header = tar::Header::new_gnu();
            header.set_path("big").expect("short");
            header.set_entry_type(kind);
            header.set_size(size);
            header.set_cksum();
            header.as_bytes().to_vec()
        };
        // A member, something that is skipped, and a name that would be read into memory.
        for (kind, members) in
            [(EntryType::Regular, &["big"][..]), (EntryType::Regular, &["x"]), (EntryType::GNULongName, &["x"])]
        {
            let endless = io::Cursor::new(header(kind, 1 << 42)).chain(Zeros(1 << 42));
            let error = take(endless, members, |_| Ok(io::sink())).expect_err("a bomb");
            assert!(matches!(error, ArchiveError::TooMuch(_)), "{kind:?}: {error}");
        }
    }
}
