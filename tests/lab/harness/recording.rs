//! What a virtual machine's disk was told, in its order, and the disk as a power cut at any moment would leave it.
//!
//! QEMU's `blklogwrites` writes the log in the format of the kernel's `dm-log-writes`: a superblock (magic, version,
//! number of entries, sector size), then one entry after the other, each a sector of numbers (sector, number of
//! sectors, flags, length of data) followed by the data. All numbers are little-endian.

use std::{
    fs::File,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};

use super::{disk::Disk, vm::MARK_SECTOR};

const MAGIC: u64 = 0x006a_7366_7773_6872;
const VERSION: u64 = 1;
const SECTOR: usize = 512;

/// The disk has promised that everything before this is safe.
const FLUSH: u64 = 1;
/// This write itself is safe when it is done.
const FUA: u64 = 2;
/// Carries no data.
const DISCARD: u64 = 4;

/// One request to the disk.
#[derive(Debug, Clone, Copy)]
struct Entry {
    sector: u64,
    sectors: u64,
    flags: u64,
    /// Where its data is in the log.
    data: u64,
}

impl Entry {
    fn is(&self, flag: u64) -> bool {
        self.flags & flag != 0
    }

    fn writes(&self) -> bool {
        self.sectors > 0 && !self.is(DISCARD)
    }
}

/// A recorded run of a virtual machine.
pub struct Recording {
    path: PathBuf,
    log: File,
    entries: Vec<Entry>,
}

impl Recording {
    /// Reads the entries of a log. Their data stays in the file.
    pub fn open(path: &Path) -> Result<Self> {
        let read = || -> Result<Self> {
            let log = File::open(path)?;
            let [magic, version, count, _] = numbers(&log, 0)?;
            ensure!(magic == MAGIC && version == VERSION, "it is no write log (magic {magic:#x}, version {version})");
            let mut entries = Vec::new();
            let sector_size = SECTOR as u64;
            let mut at = sector_size;
            for _ in 0..count {
                let [sector, sectors, flags, _] = numbers(&log, at)?;
                let entry = Entry { sector, sectors, flags, data: at + sector_size };
                at = entry.data + if entry.writes() { sectors * sector_size } else { 0 };
                entries.push(entry);
            }
            Ok(Self { path: path.to_owned(), log, entries })
        };
        read().with_context(|| format!("read the write log {}", path.display()))
    }

    /// The point right after the guest's first mark of this name: how many requests there were by then.
    pub fn mark(&self, name: &str) -> Result<usize> {
        let wanted = format!("mark {name}");
        for (at, entry) in self.entries.iter().enumerate().filter(|(_, entry)| entry.sector == MARK_SECTOR) {
            if self.data(entry)?.starts_with(wanted.as_bytes()) {
                return Ok(at + 1);
            }
        }
        anyhow::bail!("the guest left no {wanted:?} in {}", self.path.display())
    }

    /// The last moment up to `point` until which everything is safe.
    pub fn flushed(&self, point: usize) -> usize {
        self.entries[..point].iter().rposition(|entry| entry.is(FLUSH)).unwrap_or(0)
    }

    /// Whether a cut at `point` can lose a write.
    pub fn is_exposed(&self, point: usize) -> bool {
        self.entries[self.flushed(point)..point].iter().any(Entry::writes)
    }

    /// How many flushes there are between two points.
    pub fn flushes(&self, from: usize, to: usize) -> usize {
        self.entries[from..to].iter().filter(|entry| entry.is(FLUSH)).count()
    }

    /// Does to a disk everything that was done between two points.
    pub fn apply(&self, disk: &Disk, from: usize, to: usize) -> Result<()> {
        let file = disk.open()?;
        for entry in self.entries[from..to].iter().filter(|entry| entry.writes()) {
            self.write(&file, entry, |_| true)?;
        }
        Ok(())
    }

    /// Does to a disk what a power cut leaves of the requests between two points: any of them, none, or parts.
    /// Returns how many were lost, or lost in part.
    pub fn apply_some(&self, disk: &Disk, from: usize, to: usize, dice: &mut Dice) -> Result<usize> {
        let file = disk.open()?;
        // From cuts that lose everything to cuts that lose a little.
        let kept = dice.below(80);
        let mut lost = 0;
        for entry in self.entries[from..to].iter().filter(|entry| entry.writes()) {
            if entry.is(FUA) || dice.below(100) < kept {
                self.write(&file, entry, |_| true)?;
                continue;
            }
            lost += 1;
            if entry.sectors > 1 && dice.below(4) == 0 {
                self.write(&file, entry, |_| dice.below(2) == 0)?;
            }
        }
        Ok(lost)
    }

    /// Writes those sectors of an entry that `arrives` says yes to.
    fn write(&self, disk: &File, entry: &Entry, mut arrives: impl FnMut(u64) -> bool) -> Result<()> {
        let data = self.data(entry)?;
        let sectors: Vec<bool> = (0..entry.sectors).map(&mut arrives).collect();
        let mut at = 0;
        for run in sectors.chunk_by(|a, b| a == b) {
            let (from, to) = (at * SECTOR, (at + run.len()) * SECTOR);
            if run[0] {
                disk.write_all_at(&data[from..to], entry.sector * SECTOR as u64 + from as u64)
                    .context("write to a disk")?;
            }
            at += run.len();
        }
        Ok(())
    }

    fn data(&self, entry: &Entry) -> Result<Vec<u8>> {
        let mut data = vec![0; usize::try_from(entry.sectors)? * SECTOR];
        self.log
            .read_exact_at(&mut data, entry.data)
            .with_context(|| format!("read the data at byte {} of {}", entry.data, self.path.display()))?;
        Ok(data)
    }
}

fn numbers(log: &File, at: u64) -> Result<[u64; 4]> {
    let mut bytes = [0; 32];
    log.read_exact_at(&mut bytes, at).with_context(|| format!("read byte {at}"))?;
    let mut numbers = [0; 4];
    for (number, bytes) in numbers.iter_mut().zip(bytes.chunks_exact(8)) {
        *number = u64::from_le_bytes(bytes.try_into()?);
    }
    Ok(numbers)
}

/// Random numbers that a seed repeats (`SplitMix64`).
pub struct Dice(u64);

impl Dice {
    /// The ones of this seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number.
    pub fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `limit`.
    pub fn below(&mut self, limit: usize) -> usize {
        // What a usize holds, the remainder of one does.
        usize::try_from(self.roll() % limit as u64).unwrap_or(0)
    }
}
