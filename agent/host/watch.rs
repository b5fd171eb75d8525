//! Hearing that something appeared at a path, by inotify(7).

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, InotifyEvent, WatchDescriptor};
use tokio::io::unix::AsyncFd;

/// How often [`FileWatch::arm`] goes down again because a directory was made while it looked.
const DESCENTS: usize = 16;

/// Watches for a path that may not exist, by the nearest of its directories that does.
///
/// It hears of most changes, not of all: what is behind a link or on a network's file system may come unheard. Whoever
/// waits looks again from time to time.
#[derive(Debug)]
pub struct FileWatch {
    inotify: AsyncFd<Listening>,
    path: PathBuf,
    /// What is watched, and the name that is awaited in it.
    watched: Option<(WatchDescriptor, PathBuf)>,
}

/// What nix itself does not say of its handle, and tokio asks for.
#[derive(Debug)]
struct Listening(Inotify);

impl AsFd for Listening {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsRawFd for Listening {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

impl FileWatch {
    /// Watches nothing before it is armed.
    pub fn new(path: &Path) -> io::Result<Self> {
        let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?;
        #[expect(
            deprecated,
            reason = "what replaces it is unsafe; this handle owns its descriptor for as long as it lives"
        )]
        let inotify = AsyncFd::new(Listening(inotify))?;
        Ok(Self { inotify, path: path.to_owned(), watched: None })
    }

    /// Begins to listen where the path would appear next. To be called before each look at the path, so that nothing
    /// is missed between the look and the listening. False when nothing can be heard.
    pub fn arm(&mut self) -> bool {
        for _ in 0..DESCENTS {
            let Some((descriptor, awaited)) = self.nearest() else { return false };
            let before = self.watched.replace((descriptor, awaited.clone()));
            if let Some((old, _)) = before.filter(|(old, _)| *old != descriptor) {
                // The kernel has forgotten it already when its directory is gone.
                let _ = self.inotify.get_ref().0.rm_watch(old);
            }
            // A directory on the way that was made meanwhile is where to listen now.
            if awaited == self.path || !awaited.is_dir() {
                return true;
            }
        }
        false
    }

    /// The nearest directory on the way that can be watched, from now on, and what is awaited in it.
    fn nearest(&self) -> Option<(WatchDescriptor, PathBuf)> {
        let flags = AddWatchFlags::IN_CREATE
            | AddWatchFlags::IN_MOVED_TO
            | AddWatchFlags::IN_ATTRIB
            | AddWatchFlags::IN_DELETE_SELF
            | AddWatchFlags::IN_MOVE_SELF
            | AddWatchFlags::IN_ONLYDIR;
        let mut awaited = self.path.as_path();
        while let Some(directory) = awaited.parent() {
            if let Ok(descriptor) = self.inotify.get_ref().0.add_watch(directory, flags) {
                return Some((descriptor, awaited.to_owned()));
            }
            awaited = directory;
        }
        None
    }

    /// Returns when the path, or the next directory on the way to it, may have come or changed.
    pub async fn changed(&mut self) {
        loop {
            // The guard fails only when the runtime ends.
            let Ok(mut ready) = self.inotify.readable().await else { return std::future::pending().await };
            match ready.get_inner().0.read_events() {
                Ok(events) if events.iter().any(|event| self.concerns(event)) => return,
                Ok(_) | Err(Errno::EAGAIN) => ready.clear_ready(),
                // What cannot be read is as good as news.
                Err(_) => return,
            }
        }
    }

    fn concerns(&self, event: &InotifyEvent) -> bool {
        // Events without a name are about the directory itself, or say that some were lost.
        let Some(name) = &event.name else { return true };
        self.watched.as_ref().is_some_and(|(_, awaited)| awaited.file_name() == Some(name))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[tokio::test]
    async fn a_path_whose_directories_come_one_by_one() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("a/b/file");
        let mut watch = FileWatch::new(&path).expect("inotify");
        for made in ["a", "a/b"] {
            assert!(watch.arm(), "{made}");
            fs::create_dir(folder.path().join(made)).expect("a directory");
            watch.changed().await;
        }
        assert!(watch.arm());
        fs::write(folder.path().join("a/b/other"), "").expect("a file");
        fs::write(folder.path().join("new"), "").expect("a file");
        fs::rename(folder.path().join("new"), &path).expect("moved there");
        watch.changed().await;
        assert!(path.exists());
    }

    #[tokio::test]
    async fn other_names_are_not_news() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut watch = FileWatch::new(&folder.path().join("file")).expect("inotify");
        assert!(watch.arm());
        fs::write(folder.path().join("other"), "").expect("a file");
        tokio::select! {
            biased;
            () = watch.changed() => panic!("another file was taken for it"),
            () = tokio::task::yield_now() => (),
        }
        fs::write(folder.path().join("file"), "").expect("a file");
        watch.changed().await;
    }
}
