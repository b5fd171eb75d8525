//! A file on its way: written and hashed by a thread of its own, so that neither holds back the network.
//!
//! What was fetched stays in the scratch directory when a run ends or is killed, with a note beside it of which mirror
//! it came from and what that mirror called it. The next run reads the bytes once, to hash them, and asks for the rest.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, Write as _};
use std::thread::JoinHandle;

use bytes::Bytes;
use openssl::sha;
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};

use super::Digest;
use super::answer::validator;
use crate::config::values::{RootPath, Sha256, Sha512};
use crate::engine::change::Meta;
use crate::host::root::{FileError, Root};

/// Pieces that wait to be written: each is at most what one read of a socket gives (some 400 KB), so that a file takes
/// at most 2 MB of memory, and a kill loses no more.
const QUEUE: usize = 4;

/// Where the last bytes of a partial file came from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Note {
    /// The URL that was asked.
    pub url: String,
    /// What the mirror called the file then: `If-Range` is for this mirror only.
    pub validator: String,
}

/// The digests of what was fetched so far.
#[derive(Debug, Clone)]
pub struct Digests {
    /// Always.
    pub sha256: Sha256,
    /// If it was asked for.
    pub sha512: Option<Sha512>,
}

impl Digests {
    /// The digest of this kind, which is not the wanted one; nothing if it is.
    pub fn other_than(&self, want: &Digest) -> Option<String> {
        match (want, &self.sha512) {
            (Digest::Sha256(want), _) => (*want != self.sha256).then(|| self.sha256.to_string()),
            (Digest::Sha512(want), Some(got)) => (want != got).then(|| got.to_string()),
            (Digest::Sha512(_), None) => Some("unknown".to_owned()),
        }
    }
}

/// A file on its way.
pub struct Partial {
    place: Option<(Root, RootPath)>,
    name: String,
    orders: mpsc::Sender<Order>,
    thread: Option<JoinHandle<Result<(), FileError>>>,
    bytes: u64,
    note: Option<Note>,
}

impl Partial {
    /// Takes up what an earlier run left at `to`, or begins anew. Without `to` nothing is kept.
    pub fn open(root: &Root, to: Option<&RootPath>, want: &Digest) -> Result<Self, FileError> {
        let place = to.map(|to| (root.clone(), to.clone()));
        let (mut file, mut bytes, mut note) = (None, 0, None);
        if let Some((root, to)) = &place {
            root.make_own_dirs(&to.parent(), Meta::root(0o700))?;
            let opened = root.open_append(to)?;
            bytes = opened.metadata().map_err(|e| root.error("stat", to, e))?.len();
            file = Some(opened);
            // A note that cannot be read, or be sent, only costs the If-Range.
            note = root.read(&note_path(to)).ok().flatten().and_then(|text| serde_json::from_slice::<Note>(&text).ok());
            note = note.filter(|note| validator(Some(&note.validator), Some(&note.validator)).is_some());
        }
        let (orders, queue) = mpsc::channel(QUEUE);
        let name = to.map_or_else(String::new, |to| root.display(to));
        let writer = Writer { file, name: name.clone(), hashes: Hashes::new(want) };
        let thread = Some(std::thread::spawn(move || writer.work(queue)));
        Ok(Self { place, name, orders, thread, bytes, note })
    }

    /// How many bytes there are.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// What a mirror called the file that these bytes are from, if they are from this one.
    pub fn validator_of(&self, url: &str) -> Option<&str> {
        self.note.as_ref().filter(|note| note.url == url).map(|note| note.validator.as_str())
    }

    /// Appends a piece. Waits while too many wait already.
    pub async fn write(&mut self, piece: Bytes) -> Result<(), FileError> {
        let length = piece.len() as u64;
        self.order(Order::Write(piece)).await?;
        self.bytes += length;
        Ok(())
    }

    /// Throws everything away.
    pub async fn restart(&mut self) -> Result<(), FileError> {
        self.order(Order::Restart).await?;
        self.bytes = 0;
        self.set_note(None)
    }

    /// Writes down where the next bytes come from.
    pub fn set_note(&mut self, note: Option<Note>) -> Result<(), FileError> {
        if self.note == note {
            return Ok(());
        }
        if let Some((root, to)) = &self.place {
            match &note {
                // Plain data cannot fail to serialise.
                Some(note) => {
                    root.put(&note_path(to), &serde_json::to_vec(note).unwrap_or_default(), Meta::SECRET)?;
                }
                None => drop(root.remove(&note_path(to))?),
            }
        }
        self.note = note;
        Ok(())
    }

    /// The digests of everything that was written.
    pub async fn digests(&mut self) -> Result<Digests, FileError> {
        let (answer, digests) = oneshot::channel();
        self.order(Order::Digests(answer)).await?;
        match digests.await {
            Ok(digests) => Ok(digests),
            Err(_) => Err(self.failure()),
        }
    }

    /// The file is complete and right: it is flushed, and stays where it is, without its note.
    pub async fn keep(mut self) -> Result<(), FileError> {
        // Waited for here, not when the thread is joined: other downloads go on meanwhile.
        let (answer, synced) = oneshot::channel();
        self.order(Order::Sync(answer)).await?;
        if synced.await.is_err() {
            return Err(self.failure());
        }
        self.end()?;
        self.set_note(None)
    }

    /// The file is not complete: what there is stays for the next run, if there is anything.
    pub fn leave(mut self) -> Result<(), FileError> {
        self.end()?;
        if self.bytes == 0 {
            self.set_note(None)?;
            if let Some((root, to)) = &self.place {
                root.remove(to)?;
            }
        }
        Ok(())
    }

    async fn order(&mut self, order: Order) -> Result<(), FileError> {
        if self.orders.send(order).await.is_err() {
            return Err(self.failure());
        }
        Ok(())
    }

    /// Lets the thread finish what it was given.
    fn end(&mut self) -> Result<(), FileError> {
        let (closed, _) = mpsc::channel(1);
        self.orders = closed;
        match self.thread.take().map(JoinHandle::join) {
            None | Some(Ok(Ok(()))) => Ok(()),
            Some(Ok(Err(error))) => Err(error),
            Some(Err(_)) => Err(self.panicked()),
        }
    }

    /// Why the thread takes no more orders.
    fn failure(&mut self) -> FileError {
        self.end().err().unwrap_or_else(|| self.panicked())
    }

    fn panicked(&self) -> FileError {
        FileError::new("write", self.name.clone(), io::Error::other("the writing thread ended"))
    }
}

fn note_path(to: &RootPath) -> RootPath {
    to.parent().join(&format!("{}.from", to.name()))
}

/// The scratch files that a file on its way to `to` consists of.
pub fn files(to: &RootPath) -> [RootPath; 2] {
    [to.clone(), note_path(to)]
}

enum Order {
    Write(Bytes),
    Restart,
    Digests(oneshot::Sender<Digests>),
    Sync(oneshot::Sender<()>),
}

struct Writer {
    file: Option<File>,
    name: String,
    hashes: Hashes,
}

impl Writer {
    fn work(mut self, mut orders: mpsc::Receiver<Order>) -> Result<(), FileError> {
        self.hash_what_is_there().map_err(|e| self.error("read", e))?;
        while let Some(order) = orders.blocking_recv() {
            match order {
                Order::Write(piece) => {
                    if let Some(file) = &mut self.file {
                        let written = file.write_all(&piece);
                        written.map_err(|e| self.error("write", e))?;
                    }
                    self.hashes.update(&piece);
                }
                Order::Restart => {
                    self.hashes = self.hashes.anew();
                    let truncated = self.file.as_ref().map_or(Ok(()), |file| file.set_len(0));
                    truncated.map_err(|e| self.error("truncate", e))?;
                }
                // Nobody waits for an answer only when the fetch was given up.
                Order::Digests(answer) => drop(answer.send(self.hashes.digests())),
                Order::Sync(answer) => {
                    let synced = self.file.as_ref().map_or(Ok(()), File::sync_data);
                    synced.map_err(|e| self.error("sync", e))?;
                    let _ = answer.send(());
                }
            }
        }
        Ok(())
    }

    fn hash_what_is_there(&mut self) -> io::Result<()> {
        let Some(file) = &mut self.file else { return Ok(()) };
        file.rewind()?;
        let mut buffer = vec![0; 1 << 18];
        loop {
            match file.read(&mut buffer)? {
                0 => return Ok(()),
                n => self.hashes.update(&buffer[..n]),
            }
        }
    }

    fn error(&self, doing: &'static str, source: io::Error) -> FileError {
        FileError::new(doing, self.name.clone(), source)
    }
}

struct Hashes {
    sha256: sha::Sha256,
    sha512: Option<sha::Sha512>,
}

impl Hashes {
    fn new(want: &Digest) -> Self {
        Self { sha256: sha::Sha256::new(), sha512: matches!(want, Digest::Sha512(_)).then(sha::Sha512::new) }
    }

    fn anew(&self) -> Self {
        Self { sha256: sha::Sha256::new(), sha512: self.sha512.as_ref().map(|_| sha::Sha512::new()) }
    }

    fn update(&mut self, bytes: &[u8]) {
        self.sha256.update(bytes);
        if let Some(sha512) = &mut self.sha512 {
            sha512.update(bytes);
        }
    }

    fn digests(&self) -> Digests {
        Digests {
            sha256: Sha256::from_raw(&self.sha256.clone().finish()),
            sha512: self.sha512.clone().map(|sha512| Sha512::from_raw(&sha512.finish())),
        }
    }
}
