//! The bytes of a file, any of which may be a secret.

use std::fmt;
use std::io::{self, Read};
use std::ops::Deref;

use zeroize::Zeroizing;

/// What a file holds. Its memory is cleared when it goes, and `Debug` says no more than how much there is.
#[derive(Clone, PartialEq, Eq)]
pub struct FileBytes(Zeroizing<Vec<u8>>);

impl FileBytes {
    /// Reads all that there is. What is `expected` is read to where it stays; where there is more, what it grows out of is
    /// cleared. More than `most` bytes is an error of the kind [`io::ErrorKind::FileTooLarge`].
    pub fn read(mut from: impl Read, expected: usize, most: usize) -> io::Result<Self> {
        // One byte more, for the read that finds the end.
        let mut bytes = Zeroizing::new(vec![0; expected.min(most) + 1]);
        let mut filled = 0;
        loop {
            if filled > most {
                let why = format!("it is larger than {} MiB", most >> 20);
                return Err(io::Error::new(io::ErrorKind::FileTooLarge, why));
            }
            if filled == bytes.len() {
                let mut larger = Zeroizing::new(vec![0; (2 * filled).min(most + 1)]);
                larger[..filled].copy_from_slice(&bytes);
                bytes = larger;
            }
            match from.read(&mut bytes[filled..]) {
                Ok(0) => {
                    bytes.truncate(filled);
                    return Ok(Self(bytes));
                }
                Ok(more) => filled += more,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// The bytes for whoever has a use for them that ends with this process's own memory: nothing clears them any more.
    pub fn into_vec(mut self) -> Vec<u8> {
        std::mem::take(&mut *self.0)
    }
}

impl From<&[u8]> for FileBytes {
    fn from(bytes: &[u8]) -> Self {
        Self(Zeroizing::new(bytes.to_vec()))
    }
}

impl Deref for FileBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for FileBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::change::Meta;
    use crate::host::seen::{Entry, Sight, Stamp};

    #[test]
    fn all_is_read_whatever_was_expected_and_never_more_than_the_most() {
        let text: Vec<u8> = (0..=255).collect();
        for expected in [0, 1, 255, 256, 257, 9000] {
            for most in [256, 257, 9000] {
                let read = FileBytes::read(text.as_slice(), expected, most).expect("read");
                assert_eq!(&*read, text, "{expected} expected, at most {most}");
            }
            let error = FileBytes::read(text.as_slice(), expected, 255).expect_err("more than the most");
            assert_eq!(error.kind(), io::ErrorKind::FileTooLarge, "{expected} expected");
        }
        assert!(FileBytes::read(io::empty(), 0, 0).expect("read").is_empty());
    }

    #[test]
    fn what_was_seen_of_a_file_shows_no_byte_of_it() {
        let stamp = Stamp { size: 6, inode: 1, mtime_ns: 0, ctime_ns: 0 };
        let secret = b"Hunter".as_slice();
        let seen = Sight::Entry(Entry::File { meta: Meta::SECRET, stamp, bytes: Some(secret.into()) });
        let shown = format!("{seen:?}");
        assert!(shown.contains("6 bytes"), "{shown}");
        let bytes = format!("{secret:?}");
        assert!(!shown.contains("Hunter") && !shown.contains(bytes.trim_matches(['[', ']'])), "{shown}");
    }
}
