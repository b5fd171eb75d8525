//! Files inside the root, and the one way that a file is written.
//!
//! Every path is resolved by the kernel relative to the root's handle (`openat2(2)` with `RESOLVE_IN_ROOT`), so neither
//! a leading `/` nor a symbolic link can leave it. The last component is never followed.
//!
//! A file is written whole: a fixed temporary name beside it (a killed run's is removed by the next), opened
//! exclusively with mode 0600, then content, owner, mode, fsync, rename, fsync of the directory.

mod trees;

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, OpenHow, ResolveFlag};
use nix::sys::stat::{FileStat, Mode, SFlag};
use nix::unistd::{Gid, Uid, UnlinkatFlags};

use super::bytes::FileBytes;
use super::seen::{Entry, Stamp};
use crate::config::values::{RootPath, Sha256};
use crate::engine::change::Meta;
use crate::engine::fault::Explain;

/// The largest file that is read whole. Programs are larger, and are only ever streamed or stamped.
const MAX_READ: usize = 16 << 20;

/// A file operation failed.
#[derive(Debug, thiserror::Error)]
#[error("{doing} {path}: {source}")]
pub struct FileError {
    doing: &'static str,
    path: String,
    source: io::Error,
}

impl Explain for FileError {
    fn advice(&self) -> Option<String> {
        advice(&self.source)
    }
}

/// What to do about a file operation that failed.
pub fn advice(source: &io::Error) -> Option<String> {
    let errno = source.raw_os_error().map(Errno::from_raw)?;
    Some(match errno {
        Errno::ENOSPC | Errno::EDQUOT => "free some space or inodes on that file system, then run again".to_owned(),
        Errno::EROFS => {
            "that file system is read-only; remount it writable (dmesg says why, if it was not meant to be)".to_owned()
        }
        Errno::EACCES => "run as root".to_owned(),
        Errno::EPERM => "run as root; if you do, look for an immutable flag (lsattr)".to_owned(),
        Errno::EIO => "the disk fails; see dmesg".to_owned(),
        Errno::ENOSYS => {
            "nodeagent needs openat2 (Linux 5.6); in a unit of your own, RestrictSUIDSGID= forbids it".to_owned()
        }
        Errno::EXDEV => "keep /opt/nodeagent on one file system".to_owned(),
        Errno::EEXIST => "something else is there already; move it".to_owned(),
        Errno::ENOTDIR => "something that is no directory is in the way; move it".to_owned(),
        Errno::EISDIR => "a directory is in the way; move it".to_owned(),
        Errno::ELOOP => "a symbolic link is in the way; nodeagent does not follow it, remove it".to_owned(),
        _ => return None,
    })
}

impl FileError {
    /// `doing` something with the file at `path` failed.
    pub fn new(doing: &'static str, path: String, source: io::Error) -> Self {
        Self { doing, path, source }
    }

    /// Whether there was no such file.
    pub fn is_absent(&self) -> bool {
        self.source.kind() == io::ErrorKind::NotFound
    }

    /// Whether something that is no directory stands where one should be.
    pub fn is_no_directory(&self) -> bool {
        self.source.kind() == io::ErrorKind::NotADirectory
    }

    /// Whether nothing can be written there, by anyone or by whoever runs this.
    pub fn is_read_only(&self) -> bool {
        matches!(self.source.kind(), io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied)
    }
}

/// The tree that is read and written. Cheap to clone.
#[derive(Clone)]
pub struct Root {
    dir: Arc<OwnedFd>,
    path: PathBuf,
}

impl Root {
    /// Whether the other is the same directory, by whatever path.
    pub fn is_same_as(&self, other: &Self) -> bool {
        let id = |root: &Self| nix::sys::stat::fstat(&root.dir).map(|stat| (stat.st_dev, stat.st_ino));
        matches!((id(self), id(other)), (Ok(one), Ok(two)) if one == two)
    }

    /// Opens the tree at `path`; `/` is the running machine's.
    pub fn open(path: &Path) -> Result<Self, FileError> {
        let fail = |source| FileError { doing: "open root", path: path.display().to_string(), source };
        let path = path.canonicalize().map_err(fail)?;
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let dir = nix::fcntl::open(&path, flags, Mode::empty()).map_err(|e| fail(e.into()))?;
        Ok(Self { dir: Arc::new(dir), path })
    }

    /// Opens the tree at `path`, which is made if it is not there.
    pub fn create(path: &Path) -> Result<Self, FileError> {
        // The mode is said here, because no umask takes the others' right to write away ([`clear_umask`]).
        let made = std::fs::DirBuilder::new().recursive(true).mode(Meta::PROGRAM.mode).create(path);
        made.map_err(|e| FileError::new("make directory", path.display().to_string(), e))?;
        Self::open(path)
    }

    /// Whether it is the running machine's own tree, and live resources are therefore its own too.
    pub fn is_running_machine(&self) -> bool {
        self.path == Path::new("/")
    }

    /// The path as a person on this machine would name it.
    pub fn display(&self, path: &RootPath) -> String {
        self.path.join(path.relative()).display().to_string()
    }

    /// What is at the path; a link is not followed. The bytes of a file come with it if `read`.
    pub fn entry(&self, path: &RootPath, read: bool) -> Result<Entry, FileError> {
        let fail = |source| self.fail("read", path, source);
        let parent = match self.parent(path) {
            Err(Errno::ENOENT) => return Ok(Entry::Absent),
            other => other.map_err(fail)?,
        };
        let stat = match nix::sys::stat::fstatat(&parent, last(path), AtFlags::AT_SYMLINK_NOFOLLOW) {
            Err(Errno::ENOENT) => return Ok(Entry::Absent),
            other => other.map_err(fail)?,
        };
        let kind = SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits());
        Ok(match kind {
            SFlag::S_IFREG => {
                let bytes = if read { Some(self.read_at(&parent, path)?) } else { None };
                Entry::File { meta: self.meta(&stat), stamp: stamp(&stat), bytes }
            }
            SFlag::S_IFDIR => Entry::Dir(self.meta(&stat)),
            SFlag::S_IFLNK => {
                let target = nix::fcntl::readlinkat(&parent, last(path)).map_err(fail)?;
                Entry::Link(target.to_string_lossy().into_owned())
            }
            SFlag::S_IFSOCK => Entry::Other("socket"),
            SFlag::S_IFIFO => Entry::Other("pipe"),
            _ => Entry::Other("device"),
        })
    }

    /// The bytes of a file, following links inside the root; nothing if there is none.
    pub fn read(&self, path: &RootPath) -> Result<Option<Vec<u8>>, FileError> {
        let Some(file) = self.follow(path)? else { return Ok(None) };
        read_whole(file).map(|bytes| Some(bytes.into_vec())).map_err(|e| self.fail("read", path, e))
    }

    /// Opens whatever is there for reading, following links inside the root; nothing if there is nothing.
    pub fn follow(&self, path: &RootPath) -> Result<Option<File>, FileError> {
        let how = OpenHow::new().flags(OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK).resolve(RESOLVE);
        match nix::fcntl::openat2(&self.dir, path.relative(), how) {
            Err(Errno::ENOENT) => Ok(None),
            Err(errno) => Err(self.fail("read", path, errno)),
            Ok(file) => Ok(Some(File::from(file))),
        }
    }

    /// Whether a directory is in memory only, so that what is written there is gone with the next boot. What cannot be
    /// looked at is not said to be.
    pub fn is_volatile(&self, path: &RootPath) -> bool {
        let how = OpenHow::new().flags(OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC).resolve(RESOLVE);
        let kind = nix::fcntl::openat2(&self.dir, path.relative(), how).and_then(nix::sys::statfs::fstatfs);
        kind.is_ok_and(|stat| stat.filesystem_type() == nix::sys::statfs::TMPFS_MAGIC)
    }

    /// The names in a directory, sorted; none if there is no such directory.
    pub fn list(&self, path: &RootPath) -> Result<Vec<String>, FileError> {
        let how = OpenHow::new().flags(OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC).resolve(RESOLVE);
        let fd = match nix::fcntl::openat2(&self.dir, path.relative(), how) {
            Err(Errno::ENOENT) => return Ok(Vec::new()),
            other => other.map_err(|e| self.fail("list", path, e))?,
        };
        let mut dir = nix::dir::Dir::from_fd(fd).map_err(|e| self.fail("list", path, e))?;
        let mut names = Vec::new();
        for entry in dir.iter() {
            let entry = entry.map_err(|e| self.fail("list", path, e))?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if name != "." && name != ".." {
                names.push(name);
            }
        }
        names.sort();
        Ok(names)
    }

    /// How many bytes can still be written below a directory that exists.
    pub fn free_space(&self, path: &RootPath) -> Result<u64, FileError> {
        let how = OpenHow::new().flags(OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC).resolve(RESOLVE);
        let stat = nix::fcntl::openat2(&self.dir, path.relative(), how).and_then(nix::sys::statvfs::fstatvfs);
        let stat = stat.map_err(|e| self.fail("ask for the free space of", path, e))?;
        Ok(stat.blocks_available().saturating_mul(stat.fragment_size()))
    }

    /// Opens a file for reading; the last component is not followed.
    pub fn open_file(&self, path: &RootPath) -> Result<File, FileError> {
        let parent = self.parent(path).map_err(|e| self.fail("open", path, e))?;
        let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        let fd =
            nix::fcntl::openat(&parent, last(path), flags, Mode::empty()).map_err(|e| self.fail("open", path, e))?;
        Ok(File::from(fd))
    }

    /// Opens a file, made with mode 0600 if it is not there, for reading and for writing at its end.
    pub fn open_append(&self, path: &RootPath) -> Result<File, FileError> {
        let parent = self.parent(path).map_err(|e| self.fail("open", path, e))?;
        let flags = OFlag::O_RDWR | OFlag::O_APPEND | OFlag::O_CREAT | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let fd = nix::fcntl::openat(&parent, last(path), flags, Mode::from_bits_truncate(0o600))
            .map_err(|e| self.fail("open", path, e))?;
        sync_dir(&parent).map_err(|e| self.fail("sync the directory of", path, e))?;
        Ok(File::from(fd))
    }

    /// Makes an empty file that nobody else can read, in place of whatever a killed run left there.
    pub fn create_scratch(&self, path: &RootPath) -> Result<File, FileError> {
        let parent = self.parent(path).map_err(|e| self.fail("create", path, e))?;
        exclusive(&parent, last(path)).map_err(|e| self.fail("create", path, e))
    }

    /// Puts a whole file in place, atomically and durably.
    pub fn put(&self, path: &RootPath, bytes: &[u8], meta: Meta) -> Result<(), FileError> {
        self.replace(path, &temporary_name(path), meta, |file| {
            file.write_all(bytes).map(|()| true).map_err(|e| self.fail("write", path, e))
        })
        .map(drop)
    }

    /// The same for a file that is also written without the agent's lock, by a caller that has one of its own: a run that
    /// puts the same file in place at the same moment has another temporary file, so that the last one wins, whole.
    pub fn put_aside(&self, path: &RootPath, bytes: &[u8], meta: Meta) -> Result<(), FileError> {
        self.replace(path, &format!(".{}{ASIDE}", path.name()), meta, |file| {
            file.write_all(bytes).map(|()| true).map_err(|e| self.fail("write", path, e))
        })
        .map(drop)
    }

    /// Copies a file of any size into place, atomically and durably, if its bytes have this digest. Returns whether they
    /// have.
    pub fn copy(&self, from: &RootPath, path: &RootPath, sha256: &Sha256, meta: Meta) -> Result<bool, FileError> {
        let mut source = self.open_file(from)?;
        self.replace(path, &temporary_name(path), meta, |target| {
            let mut hasher = openssl::sha::Sha256::new();
            let mut buffer = vec![0; 1 << 18];
            loop {
                match source.read(&mut buffer).map_err(|e| self.fail("read", from, e))? {
                    0 => return Ok(Sha256::from_raw(&hasher.finish()) == *sha256),
                    n => {
                        hasher.update(&buffer[..n]);
                        target.write_all(&buffer[..n]).map_err(|e| self.fail("write", path, e))?;
                    }
                }
            }
        })
    }

    /// The one way in which a file comes to its place. `write` writes it, and may say that it is not to be placed after
    /// all.
    fn replace(
        &self,
        path: &RootPath,
        temporary: &str,
        meta: Meta,
        write: impl FnOnce(&mut File) -> Result<bool, FileError>,
    ) -> Result<bool, FileError> {
        let parent = self.parent(path).map_err(|e| self.fail("open the directory of", path, e))?;
        let mut file = exclusive(&parent, temporary).map_err(|e| self.fail_beside(path, e))?;
        let written = (|| {
            if !write(&mut file)? {
                return Ok(false);
            }
            self.finish(&file, meta).map_err(|e| self.fail("set owner and mode of", path, e))?;
            file.sync_all().map_err(|e| self.fail("sync", path, e))?;
            nix::fcntl::renameat(&parent, temporary, &parent, last(path))
                .map_err(|e| self.fail("rename into place", path, e))?;
            Ok(true)
        })();
        if !matches!(written, Ok(true)) {
            // Best effort: what stays is removed by the next run, which uses the same name.
            let _ = nix::unistd::unlinkat(&parent, temporary, UnlinkatFlags::NoRemoveDir);
            return written;
        }
        sync_dir(&parent).map_err(|e| self.fail("sync the directory of", path, e))?;
        Ok(true)
    }

    /// Moves a finished scratch file into place, atomically and durably.
    pub fn place(&self, from: &RootPath, path: &RootPath, meta: Meta) -> Result<(), FileError> {
        let file = self.open_file(from)?;
        self.finish(&file, meta).and_then(|()| file.sync_all()).map_err(|e| self.fail("finish", from, e))?;
        let old = self.parent(from).map_err(|e| self.fail("open the directory of", from, e))?;
        let new = self.parent(path).map_err(|e| self.fail("open the directory of", path, e))?;
        nix::fcntl::renameat(&old, last(from), &new, last(path))
            .map_err(|e| self.fail("rename into place", path, e))?;
        sync_dir(&new).and_then(|()| sync_dir(&old)).map_err(|e| self.fail("sync the directory of", path, e))
    }

    /// Puts a symbolic link in place, atomically and durably.
    pub fn link(&self, path: &RootPath, to: &str) -> Result<(), FileError> {
        let parent = self.parent(path).map_err(|e| self.fail("open the directory of", path, e))?;
        let temporary = temporary_name(path);
        remove_file_at(&parent, &temporary).map_err(|e| self.fail_beside(path, e))?;
        nix::unistd::symlinkat(to, &parent, temporary.as_str()).map_err(|e| self.fail("link", path, e))?;
        let renamed = nix::fcntl::renameat(&parent, temporary.as_str(), &parent, last(path));
        if renamed.is_err() {
            let _ = nix::unistd::unlinkat(&parent, temporary.as_str(), UnlinkatFlags::NoRemoveDir);
        }
        renamed.map_err(|e| self.fail("rename into place", path, e))?;
        sync_dir(&parent).map_err(|e| self.fail("sync the directory of", path, e))
    }

    /// Makes one directory in an existing one. That it is there already is no error.
    ///
    /// It has its mode from the first moment on ([`clear_umask`]): the next run would take a directory that a killed one
    /// left as it was made.
    pub fn make_dir(&self, path: &RootPath, meta: Meta) -> Result<(), FileError> {
        let parent = self.parent(path).map_err(|e| self.fail("make directory", path, e))?;
        match nix::sys::stat::mkdirat(&parent, last(path), Mode::from_bits_truncate(meta.mode)) {
            Err(Errno::EEXIST) => return Ok(()),
            other => other.map_err(|e| self.fail("make directory", path, e))?,
        }
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let made = nix::fcntl::openat(&parent, last(path), flags, Mode::empty())
            .map_err(|e| self.fail("open directory", path, e))?;
        self.finish(&File::from(made), meta).map_err(|e| self.fail("set owner and mode of", path, e))?;
        sync_dir(&parent).map_err(|e| self.fail("sync the directory of", path, e))
    }

    /// Makes a directory of the agent's own; those above it that are missing are everyone's to enter. Not for what undo
    /// must know of. One that is there already, made by somebody else, gets the owner and mode that it has to have: what
    /// is in it is trusted.
    pub fn make_own_dirs(&self, path: &RootPath, meta: Meta) -> Result<(), FileError> {
        let missing = self.missing_dirs(path)?;
        for dir in &missing {
            self.make_dir(dir, if dir == path { meta } else { Meta::PROGRAM })?;
        }
        if missing.is_empty() {
            let how = OpenHow::new().flags(OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC).resolve(RESOLVE);
            let dir = nix::fcntl::openat2(&self.dir, path.relative(), how)
                .map_err(|e| self.fail("open directory", path, e))?;
            let stat = nix::sys::stat::fstat(&dir).map_err(|e| self.fail("read", path, e))?;
            if self.meta(&stat) != meta {
                self.finish(&File::from(dir), meta).map_err(|e| self.fail("set owner and mode of", path, e))?;
            }
        }
        Ok(())
    }

    /// The directories on the way to `path`, itself included, that do not exist yet, outermost first.
    pub fn missing_dirs(&self, path: &RootPath) -> Result<Vec<RootPath>, FileError> {
        let mut missing = Vec::new();
        let mut at = path.clone();
        while at.as_str() != "/" {
            let how = OpenHow::new().flags(OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC).resolve(RESOLVE);
            match nix::fcntl::openat2(&self.dir, at.relative(), how) {
                Ok(_) => break,
                Err(Errno::ENOENT) => missing.push(at.clone()),
                Err(errno) => return Err(self.fail("open directory", &at, errno)),
            }
            at = at.parent();
        }
        missing.reverse();
        Ok(missing)
    }

    /// Removes a file or a link, or a directory if it is empty. Returns whether it was there.
    pub fn remove(&self, path: &RootPath) -> Result<bool, FileError> {
        let fail = |source| self.fail("remove", path, source);
        let parent = match self.parent(path) {
            Err(Errno::ENOENT) => return Ok(false),
            other => other.map_err(fail)?,
        };
        let removed = match nix::unistd::unlinkat(&parent, last(path), UnlinkatFlags::NoRemoveDir) {
            Err(Errno::EISDIR | Errno::EPERM) if self.is_dir(path) => {
                nix::unistd::unlinkat(&parent, last(path), UnlinkatFlags::RemoveDir)
            }
            other => other,
        };
        match removed {
            Err(Errno::ENOENT) => Ok(false),
            Err(errno) => Err(fail(errno)),
            Ok(()) => sync_dir(&parent).map(|()| true).map_err(fail),
        }
    }

    /// Removes what a killed run left beside the path when it was about to put something there.
    pub fn remove_temporary(&self, path: &RootPath) -> Result<bool, FileError> {
        self.remove(&path.parent().join(&temporary_name(path)))
    }

    /// Removes what killed runs left in a directory of the agent's own.
    pub fn remove_temporaries(&self, dir: &RootPath) -> Result<(), FileError> {
        let names = self.list(dir)?;
        for path in names.iter().filter(|name| name.ends_with(TEMPORARY)).filter_map(|name| dir.child(name)) {
            self.remove(&path)?;
        }
        Ok(())
    }

    fn is_dir(&self, path: &RootPath) -> bool {
        matches!(self.entry(path, false), Ok(Entry::Dir(_)))
    }

    /// A handle of the directory that holds the path.
    fn parent(&self, path: &RootPath) -> Result<OwnedFd, Errno> {
        let how = OpenHow::new().flags(OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC).resolve(RESOLVE);
        nix::fcntl::openat2(&self.dir, path.parent().relative(), how)
    }

    fn read_at(&self, parent: &OwnedFd, path: &RootPath) -> Result<FileBytes, FileError> {
        let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        let fd =
            nix::fcntl::openat(parent, last(path), flags, Mode::empty()).map_err(|e| self.fail("read", path, e))?;
        read_whole(File::from(fd)).map_err(|e| self.fail("read", path, e))
    }

    /// Owner and mode. In a tree of its own (an image build, a test) an ordinary user stands for root, which it could
    /// neither become nor give files to.
    fn finish(&self, file: &File, meta: Meta) -> io::Result<()> {
        let (uid, gid) = if self.user_stands_for_root() {
            (None, None)
        } else {
            (Some(Uid::from_raw(meta.uid)), Some(Gid::from_raw(meta.gid)))
        };
        nix::unistd::fchown(file.as_fd(), uid, gid)?;
        nix::sys::stat::fchmod(file.as_fd(), Mode::from_bits_truncate(meta.mode))?;
        Ok(())
    }

    fn meta(&self, stat: &FileStat) -> Meta {
        let mode = stat.st_mode & 0o7777;
        if self.user_stands_for_root() && stat.st_uid == nix::unistd::geteuid().as_raw() {
            return Meta::root(mode);
        }
        Meta { mode, uid: stat.st_uid, gid: stat.st_gid }
    }

    fn user_stands_for_root(&self) -> bool {
        !self.is_running_machine() && !nix::unistd::geteuid().is_root()
    }

    /// The error of an operation on an opened file of this tree.
    pub fn error(&self, doing: &'static str, path: &RootPath, source: io::Error) -> FileError {
        FileError { doing, path: self.display(path), source }
    }

    /// The error of a temporary file. It is named itself only when its name is what is in the way.
    fn fail_beside(&self, path: &RootPath, errno: Errno) -> FileError {
        match errno {
            Errno::EISDIR => self.fail("replace", &path.parent().join(&temporary_name(path)), errno),
            _ => self.fail("create a temporary file beside", path, errno),
        }
    }

    fn fail(&self, doing: &'static str, path: &RootPath, source: impl Into<io::Error>) -> FileError {
        self.error(doing, path, source.into())
    }
}

const RESOLVE: ResolveFlag = ResolveFlag::RESOLVE_IN_ROOT;

fn last(path: &RootPath) -> &str {
    match path.name() {
        "" => ".",
        name => name,
    }
}

/// The end of every temporary name.
const TEMPORARY: &str = ".nodeagent-new";

/// The end of the temporary names of [`Root::put_aside`].
const ASIDE: &str = ".nodeagent-aside";

fn temporary_name(path: &RootPath) -> String {
    format!(".{}{TEMPORARY}", path.name())
}

/// A path that the caller of this program gave, from where that caller is.
pub fn absolute(path: &Path) -> Result<RootPath, FileError> {
    let fail = |source| FileError { doing: "find", path: path.display().to_string(), source };
    let bad = |_| fail(io::Error::new(io::ErrorKind::InvalidFilename, "it is no plain path (`..`, not UTF-8)"));
    let absolute = std::path::absolute(path).map_err(fail)?;
    absolute.to_string_lossy().parse().map_err(bad)
}

/// Takes the caller's umask out of every mode: what this process makes has the mode that it asks for, at once, rather
/// than after a second call before which it may be killed. Every file is opened with a mode of its own.
pub fn clear_umask() {
    nix::sys::stat::umask(Mode::empty());
}

fn remove_file_at(parent: &OwnedFd, name: &str) -> Result<(), Errno> {
    match nix::unistd::unlinkat(parent, name, UnlinkatFlags::NoRemoveDir) {
        Err(Errno::ENOENT) => Ok(()),
        other => other,
    }
}

fn exclusive(parent: &OwnedFd, name: &str) -> Result<File, Errno> {
    remove_file_at(parent, name)?;
    let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    nix::fcntl::openat(parent, name, flags, Mode::from_bits_truncate(0o600)).map(File::from)
}

fn sync_dir(dir: &OwnedFd) -> Result<(), Errno> {
    nix::unistd::fsync(dir)
}

/// The bytes of an open file.
pub fn read_whole(file: File) -> io::Result<FileBytes> {
    // The kernel's own files say that they are empty.
    let expected = usize::try_from(file.metadata()?.len()).unwrap_or(MAX_READ);
    FileBytes::read(file, expected, MAX_READ)
}

fn stamp(stat: &FileStat) -> Stamp {
    let ns = |seconds: i64, nanos: i64| i128::from(seconds) * 1_000_000_000 + i128::from(nanos);
    Stamp {
        size: u64::try_from(stat.st_size).unwrap_or(0),
        inode: stat.st_ino,
        mtime_ns: ns(stat.st_mtime, stat.st_mtime_nsec),
        ctime_ns: ns(stat.st_ctime, stat.st_ctime_nsec),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree() -> (tempfile::TempDir, Root) {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let root = Root::open(dir.path()).expect("open it as a root");
        (dir, root)
    }

    #[test]
    fn put_replaces_whole_and_leaves_nothing_beside() {
        let (dir, root) = tree();
        let path = RootPath::literal("/etc/x/file");
        root.make_own_dirs(&path.parent(), Meta::PROGRAM).expect("directories");
        std::fs::write(dir.path().join("etc/x/.file.nodeagent-new"), "left by a killed run").expect("leftover");
        root.put(&path, b"one", Meta::SECRET).expect("put");
        root.put(&path, b"two", Meta::FILE).expect("put again");
        assert_eq!(root.read(&path).expect("read").as_deref(), Some(b"two".as_slice()));
        assert_eq!(root.list(&path.parent()).expect("list"), ["file"]);
        assert!(matches!(root.entry(&path, false), Ok(Entry::File { meta, .. }) if meta.mode == 0o644));
    }

    #[test]
    fn a_directory_of_our_own_that_others_made_is_closed_to_them() {
        use std::os::unix::fs::PermissionsExt as _;
        let (dir, root) = tree();
        let made = dir.path().join("var/lib/nodeagent");
        std::fs::create_dir_all(&made).expect("directories");
        std::fs::set_permissions(&made, std::fs::Permissions::from_mode(0o777)).expect("open to all");
        root.make_own_dirs(&RootPath::literal("/var/lib/nodeagent"), Meta::root(0o700)).expect("taken");
        assert_eq!(made.metadata().expect("metadata").permissions().mode() & 0o7777, 0o700);
    }

    #[test]
    fn a_link_cannot_leave_the_root() {
        let (dir, root) = tree();
        let outside = tempfile::tempdir().expect("outside");
        std::os::unix::fs::symlink(outside.path(), dir.path().join("etc")).expect("plant a link");
        let path = RootPath::literal("/etc/file");
        assert!(root.put(&path, b"x", Meta::FILE).is_err(), "the link's target does not exist inside the root");
        assert_eq!(std::fs::read_dir(outside.path()).expect("outside").count(), 0);
    }

    #[test]
    fn a_planted_link_at_the_destination_is_replaced_not_followed() {
        let (dir, root) = tree();
        std::fs::write(dir.path().join("victim"), "safe").expect("victim");
        std::os::unix::fs::symlink("victim", dir.path().join("file")).expect("plant a link");
        root.put(&RootPath::literal("/file"), b"new", Meta::FILE).expect("put");
        assert_eq!(std::fs::read(dir.path().join("victim")).expect("victim"), b"safe");
        assert_eq!(
            root.entry(&RootPath::literal("/file"), false).map(|e| matches!(e, Entry::File { .. })).ok(),
            Some(true)
        );
    }

    #[test]
    fn remove_takes_empty_directories_only() {
        let (dir, root) = tree();
        std::fs::create_dir_all(dir.path().join("a/b")).expect("directories");
        assert!(root.remove(&RootPath::literal("/a")).is_err(), "not empty");
        assert!(root.remove(&RootPath::literal("/a/b")).expect("empty"));
        assert!(!root.remove(&RootPath::literal("/nothing")).expect("absent"));
    }
}
