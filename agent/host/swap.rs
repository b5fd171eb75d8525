//! Swap that is in use, and what systemd calls it.

use std::fmt::Write as _;
use std::io;

use super::kernel::KernelError;
use crate::config::values::UnitName;

/// One swap device or file in use, from a row of `/proc/swaps` (proc(5)).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Swap {
    /// The device or file.
    pub path: String,
    /// Its size in bytes.
    pub bytes: u64,
    /// The unit that systemd makes for it (systemd.swap(5)); nothing where its name does not fit one.
    pub unit: Option<UnitName>,
}

/// All swap in use.
pub fn in_use() -> Result<Vec<Swap>, KernelError> {
    let file = "/proc/swaps";
    match std::fs::read_to_string(file) {
        Ok(text) => Ok(parse(&text)),
        // A kernel without swap.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(source) => Err(KernelError::new("read", file, source)),
    }
}

/// The rows of `/proc/swaps`. White space in a path stands there as an octal escape; the sizes are in KiB.
fn parse(text: &str) -> Vec<Swap> {
    let row = |line: &str| {
        let mut words = line.split_whitespace();
        let path = unescape(words.next()?);
        // What was deleted while in use keeps its name with a remark behind it, and no unit fits it.
        let kib: u64 = words.nth(1)?.parse().ok()?;
        let unit = unit_of(&path);
        Some(Swap { path, bytes: kib << 10, unit })
    };
    text.lines().skip(1).filter_map(row).collect()
}

/// `\040` and its like, which the kernel writes for white space and backslashes (`seq_file_path`).
pub(super) fn unescape(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        let octal = tail.get(..3).and_then(|digits| std::str::from_utf8(digits).ok());
        let escaped = octal.and_then(|digits| u8::from_str_radix(digits, 8).ok()).filter(|_| *first == b'\\');
        bytes.push(escaped.unwrap_or(*first));
        rest = if escaped.is_some() { &tail[3..] } else { tail };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The `.swap` unit of a path: "string escaping for inclusion in unit names" of systemd.unit(5).
fn unit_of(path: &str) -> Option<UnitName> {
    let mut name = String::new();
    for (at, byte) in path.trim_matches('/').bytes().enumerate() {
        match byte {
            b'/' => name.push('-'),
            b'.' if at == 0 => name.push_str("\\x2e"),
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b':' | b'_' | b'.' => name.push(char::from(byte)),
            other => write!(name, "\\x{other:02x}").ok()?,
        }
    }
    format!("{name}.swap").parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_read_as_the_kernel_prints_them() {
        let text = "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n\
                    /dev/vda2                               partition\t524284\t\t0\t\t-2\n\
                    /var/my\\040swap                         file\t\t1048572\t\t12\t\t-3\n\
                    /dev/disk/by-id/x-1                     partition\t4\t\t0\t\t100\n";
        let rows: Vec<_> = parse(text)
            .into_iter()
            .map(|swap| (swap.path, swap.bytes, swap.unit.map(|unit| unit.to_string()).unwrap_or_default()))
            .collect();
        let row = |path: &str, kib: u64, unit: &str| (path.to_owned(), kib << 10, unit.to_owned());
        assert_eq!(
            rows,
            [
                row("/dev/vda2", 524_284, "dev-vda2.swap"),
                row("/var/my swap", 1_048_572, "var-my\\x20swap.swap"),
                row("/dev/disk/by-id/x-1", 4, "dev-disk-by\\x2did-x\\x2d1.swap"),
            ]
        );
        assert_eq!(parse("Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n"), []);
        assert_eq!(parse(""), []);
    }
}
