//! What cloud-config and Ignition wrap files in, taken off again: gzip, base64, percent signs of a URL, escapes of JSON.

use std::io;

use flate2::bufread::GzDecoder;
use openssl::base64::decode_block;
use zeroize::Zeroizing;

use crate::host::bytes::FileBytes;

/// What was in a wrapping. Cleared when it goes, as it may be what is looked for.
pub(super) type Piece = Zeroizing<Vec<u8>>;

/// The most that a file may be, all that is in it taken together, when it is unwrapped. User-data is some 16 KiB.
const MOST: usize = 32 << 20;

/// How many wrappings there may be around each other. A user-data in gzip with an Ignition file in base64, with an inline
/// file that has percent signs, in base64 of gzip, has five.
const DEEPEST: usize = 6;

/// The shortest base64 that is looked into: no key is shorter, digests and names are.
const SHORTEST: usize = 160;

/// A file was not looked into to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Beyond {
    /// There is too much in it.
    #[error("unwrapped (base64, gzip) it is larger than {} MiB", MOST >> 20)]
    Size,
    /// It is nested too deeply.
    #[error("it is wrapped (base64, gzip) more than {DEEPEST} times over")]
    Depth,
}

/// Whether the bytes, or what is wrapped in them, are what is looked for.
pub(super) fn any(bytes: &[u8], wanted: &dyn Fn(&[u8]) -> bool) -> Result<bool, Beyond> {
    below(bytes, wanted, DEEPEST, &mut { MOST })
}

fn below(bytes: &[u8], wanted: &dyn Fn(&[u8]) -> bool, levels: usize, left: &mut usize) -> Result<bool, Beyond> {
    if wanted(bytes) {
        return Ok(true);
    }
    let mut pieces = gzip(bytes, *left)?;
    pieces.extend(base64(bytes));
    pieces.extend(percent_signs(bytes));
    pieces.extend(escapes(bytes));
    for piece in pieces {
        *left = left.checked_sub(piece.len()).ok_or(Beyond::Size)?;
        let levels = levels.checked_sub(1).ok_or(Beyond::Depth)?;
        if below(&piece, wanted, levels, left)? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// What is in gzip, wherever it begins: a pickle has it in its midst.
fn gzip(bytes: &[u8], most: usize) -> Result<Vec<Piece>, Beyond> {
    const MAGIC: &[u8] = &[0x1f, 0x8b, 8];
    let mut pieces = Vec::new();
    for at in positions(bytes, MAGIC) {
        match FileBytes::read(GzDecoder::new(&bytes[at..]), bytes.len(), most) {
            Ok(plain) => pieces.push(Zeroizing::new(plain.into_vec())),
            Err(error) if error.kind() == io::ErrorKind::FileTooLarge => return Err(Beyond::Size),
            // Three bytes that look like it, or gzip that nobody can unpack.
            Err(_) => {}
        }
    }
    Ok(pieces)
}

/// Base64 on one line, or folded over several, whatever their indentation.
fn base64(text: &[u8]) -> Vec<Piece> {
    let mut pieces = Vec::new();
    let mut folds: Vec<&[u8]> = Vec::new();
    let mut end = |folds: &mut Vec<&[u8]>| {
        let long = |folds: &&[&[u8]]| folds.iter().map(|fold| fold.len()).sum::<usize>() >= SHORTEST;
        // What ends the line before may be a word and no base64: `<<EOF`.
        let behind = folds.get(1..).filter(|behind| !behind.is_empty());
        pieces.extend([Some(folds.as_slice()), behind].into_iter().flatten().filter(long).filter_map(decoded));
        folds.clear();
    };
    for line in text.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii) {
        for (at, run) in line.split(|byte| !is_base64(*byte)).enumerate() {
            // A line that begins with base64 goes on with that of the line before.
            if at > 0 || line.is_empty() {
                end(&mut folds);
            }
            folds.push(run);
        }
    }
    end(&mut folds);
    pieces
}

/// `%0A` and its like.
fn percent_signs(text: &[u8]) -> Option<Piece> {
    replaced(text, |text| match text {
        [b'%', high, low, ..] => Some((hex(*high, *low)?, 3)),
        _ => None,
    })
}

/// `\n` and its like, as JSON has them.
fn escapes(text: &[u8]) -> Option<Piece> {
    replaced(text, |text| match text {
        [b'\\', b'n', ..] => Some((b'\n', 2)),
        [b'\\', b'r', ..] => Some((b'\r', 2)),
        [b'\\', b't', ..] => Some((b'\t', 2)),
        [b'\\', itself @ (b'"' | b'/' | b'\\'), ..] => Some((*itself, 2)),
        [b'\\', b'u', b'0', b'0', high, low, ..] => Some((hex(*high, *low)?, 6)),
        _ => None,
    })
}

/// The text with a byte for each escape, which is told from what begins with it; nothing if there is none.
fn replaced(text: &[u8], escape: impl Fn(&[u8]) -> Option<(u8, usize)>) -> Option<Piece> {
    let mut plain = Zeroizing::new(Vec::with_capacity(text.len()));
    let mut rest = text;
    while let Some(first) = rest.first() {
        let (byte, length) = escape(rest).unwrap_or((*first, 1));
        plain.push(byte);
        rest = &rest[length..];
    }
    (plain.len() < text.len()).then_some(plain)
}

fn hex(high: u8, low: u8) -> Option<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    u8::try_from(digit(high)? << 4 | digit(low)?).ok()
}

/// Base64 in several pieces, without its padding. What is too much at its end is left out.
pub(super) fn decoded(folds: &[&[u8]]) -> Option<Piece> {
    let length: usize = folds.iter().map(|fold| fold.len()).sum();
    let mut text = Zeroizing::new(String::with_capacity(length + 3));
    text.extend(folds.iter().flat_map(|fold| fold.iter().copied().map(char::from)));
    if length % 4 == 1 {
        text.pop();
    }
    while !text.len().is_multiple_of(4) {
        text.push('=');
    }
    decode_block(&text).ok().map(Zeroizing::new)
}

/// Whether it is one of base64's letters. The padding is none: it ends what it stands behind, and an `=` may stand before it.
pub(super) fn is_base64(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'+' || byte == b'/'
}

/// Where `needle` begins in `bytes`.
pub(super) fn positions<'b>(bytes: &'b [u8], needle: &'b [u8]) -> impl Iterator<Item = usize> + 'b {
    bytes.windows(needle.len()).enumerate().filter_map(move |(at, window)| (window == needle).then_some(at))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use flate2::{Compression, write::GzEncoder};

    use super::*;

    fn gzipped(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(bytes).and_then(|()| encoder.finish()).expect("gzip")
    }

    #[test]
    fn the_bounds_are_told_and_never_passed_for_clean() {
        let found = |bytes: &[u8]| any(bytes, &|text| text == b"wanted");
        let mut nested = b"wanted".to_vec();
        for _ in 0..DEEPEST {
            nested = gzipped(&nested);
        }
        assert_eq!(found(&nested), Ok(true));
        assert_eq!(found(&gzipped(&nested)), Err(Beyond::Depth));
        let half = gzipped(&vec![0; MOST / 2]);
        assert_eq!(found(&half), Ok(false));
        assert_eq!(found(&half.repeat(3)), Err(Beyond::Size));
        assert_eq!(found(&gzipped(&vec![0; MOST + 1])), Err(Beyond::Size));
    }

    #[test]
    fn text_that_looks_wrapped_is_none() {
        for text in ["100 %", "%zz", "\\", "\\x", "\\u12", "a=b", "\u{1f}\u{8b}"] {
            assert_eq!(any(text.as_bytes(), &|_| false), Ok(false), "{text}");
        }
        assert_eq!(any(b"\x1f\x8b\x08 and no more", &|_| false), Ok(false));
    }
}
