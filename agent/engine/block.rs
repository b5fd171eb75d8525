//! Our marked block in a file that others write too.
//!
//! It works on bytes: such a file need not be UTF-8 (an old `/etc/hosts` has Latin-1 in its comments), and what others
//! wrote is theirs.

const BEGIN: &str = "# BEGIN nodeagent (this block is rewritten; put your own lines outside)";
const END: &str = "# END nodeagent";

/// The lines of our block; nothing if there is none. A block without its end has no lines: see [`with_lines`].
pub fn lines(text: &[u8]) -> Option<Vec<String>> {
    let (begin, end) = find(text)?;
    let inside = pieces(&text[begin..end]).skip(1).map(content).take_while(|line| *line != END.as_bytes());
    Some(inside.map(|line| String::from_utf8_lossy(line).into_owned()).collect())
}

/// The text with our block holding exactly these lines, in its place if there is one, else at the end. Without lines
/// there is no block. Everything outside stays byte for byte.
///
/// Where somebody deleted the end mark, nobody can tell our lines from theirs: then the block is its first mark alone,
/// and what follows stays.
pub fn with_lines(text: &[u8], lines: &[String]) -> Vec<u8> {
    let block = if lines.is_empty() { String::new() } else { format!("{BEGIN}\n{}\n{END}\n", lines.join("\n")) };
    match find(text) {
        Some((begin, end)) => [&text[..begin], block.as_bytes(), &text[end..]].concat(),
        None if block.is_empty() || text.is_empty() || text.ends_with(b"\n") => [text, block.as_bytes()].concat(),
        None => [text, b"\n", block.as_bytes()].concat(),
    }
}

/// Where our first block begins and ends, its marks included.
fn find(text: &[u8]) -> Option<(usize, usize)> {
    let mut at = 0;
    let mut begin = None;
    for piece in pieces(text) {
        let next = at + piece.len();
        match begin {
            None if content(piece) == BEGIN.as_bytes() => begin = Some((at, next)),
            Some((begin, _)) if content(piece) == END.as_bytes() => return Some((begin, next)),
            _ => {}
        }
        at = next;
    }
    begin
}

/// The lines, each with its line break.
fn pieces(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split_inclusive(|byte| *byte == b'\n')
}

/// A line without its break, which an editor may have changed into that of Windows.
fn content(line: &[u8]) -> &[u8] {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    line.strip_suffix(b"\r").unwrap_or(line)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn with(text: &str, ours: &[&str]) -> String {
        let ours: Vec<String> = ours.iter().map(|line| (*line).to_owned()).collect();
        String::from_utf8(with_lines(text.as_bytes(), &ours)).expect("text")
    }

    #[test]
    fn only_whole_lines_are_marks() {
        // Each of these was once taken for a mark by one of the two functions, and not by the other.
        for other in [format!("x {BEGIN}\n"), format!("{BEGIN} and more\n"), format!("{END}\n"), format!("x {END}\n")] {
            assert_eq!(lines(other.as_bytes()), None, "{other:?}");
            let text = with(&other, &["one"]);
            assert_eq!(text, format!("{other}{BEGIN}\none\n{END}\n"));
            assert_eq!(with(&text, &["two"]), format!("{other}{BEGIN}\ntwo\n{END}\n"));
            assert_eq!(with(&text, &[]), other);
        }
        let text = with("", &["not # END nodeagent", "one"]);
        assert_eq!(lines(text.as_bytes()), Some(vec!["not # END nodeagent".to_owned(), "one".to_owned()]));
        assert_eq!(with(&text, &[]), "");
    }

    #[test]
    fn without_an_end_mark_nothing_of_others_is_lost() {
        let torn = format!("before\n{BEGIN}\none\ntheirs\n");
        assert_eq!(lines(torn.as_bytes()), Some(Vec::new()));
        assert_eq!(with(&torn, &["two"]), format!("before\n{BEGIN}\ntwo\n{END}\none\ntheirs\n"));
        assert_eq!(with(&torn, &[]), "before\none\ntheirs\n");
    }

    #[test]
    fn bytes_that_are_not_utf_8_stay() {
        let text = with_lines(b"10.0.0.1 caf\xe9\n", &["one".to_owned()]);
        assert!(text.starts_with(b"10.0.0.1 caf\xe9\n# BEGIN"));
        assert_eq!(with_lines(&text, &[]), b"10.0.0.1 caf\xe9\n");
    }

    #[test]
    fn windows_line_breaks_are_read() {
        let text = with("a\n", &["one"]).replace('\n', "\r\n");
        assert_eq!(lines(text.as_bytes()), Some(vec!["one".to_owned()]));
        assert_eq!(with(&text, &[]), "a\r\n");
    }

    proptest! {
        #[test]
        fn other_lines_stay(before in "([a-z #.]{0,12}\n){0,4}", after in "([a-z #.]{0,12}\n){0,4}", ours in prop::collection::vec("[a-z0-9. ]{1,12}", 1..4)) {
            let once = with_lines(before.as_bytes(), &ours);
            let text = [once.as_slice(), after.as_bytes()].concat();
            prop_assert_eq!(lines(&text), Some(ours.clone()));
            prop_assert_eq!(with_lines(&text, &ours), text.clone(), "writing it again changes nothing");
            prop_assert_eq!(with_lines(&text, &[]), [before, after].concat().into_bytes(), "removing it leaves the rest");
        }

        #[test]
        fn any_file_takes_the_block_and_gives_it_back(
            parts in prop::collection::vec(prop_oneof![
                Just(BEGIN.as_bytes().to_vec()),
                Just(END.as_bytes().to_vec()),
                Just(b"\n".to_vec()),
                Just(b"\r\n".to_vec()),
                prop::collection::vec(any::<u8>(), 0..6),
            ], 0..12),
            ours in prop::collection::vec("[a-z0-9. #]{0,12}", 1..4),
        ) {
            let text = parts.concat();
            let once = with_lines(&text, &ours);
            prop_assert_eq!(lines(&once), Some(ours.clone()));
            prop_assert_eq!(with_lines(&once, &ours), once.clone());
            let without = with_lines(&text, &[]);
            let gap: &[u8] = if find(&text).is_none() && !text.is_empty() && !text.ends_with(b"\n") { b"\n" } else { b"" };
            prop_assert_eq!(with_lines(&once, &[]), [&without, gap].concat());
        }
    }
}
