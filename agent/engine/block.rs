//! Our marked block in a file that others write too.

const BEGIN: &str = "# BEGIN nodeagent (this block is rewritten; put your own lines outside)";
const END: &str = "# END nodeagent";

/// The lines of our block; nothing if there is none.
pub fn lines(text: &str) -> Option<Vec<String>> {
    let mut inside = text.lines().skip_while(|line| *line != BEGIN).peekable();
    inside.next()?;
    Some(inside.take_while(|line| *line != END).map(str::to_owned).collect())
}

/// The text with our block holding exactly these lines, in its place if there is one, else at the end. Without lines
/// there is no block. Everything outside stays byte for byte.
pub fn with_lines(text: &str, lines: &[String]) -> String {
    let block = if lines.is_empty() { String::new() } else { format!("{BEGIN}\n{}\n{END}\n", lines.join("\n")) };
    let begin = match text.find(BEGIN) {
        Some(at) if at == 0 || text.as_bytes()[at - 1] == b'\n' => at,
        _ if block.is_empty() => return text.to_owned(),
        _ => {
            let gap = if text.is_empty() || text.ends_with('\n') { "" } else { "\n" };
            return format!("{text}{gap}{block}");
        }
    };
    let end = text[begin..].find(END).map_or(text.len(), |at| {
        let end = begin + at + END.len();
        if text[end..].starts_with('\n') { end + 1 } else { end }
    });
    format!("{}{block}{}", &text[..begin], &text[end..])
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn other_lines_stay(before in "([a-z #.]{0,12}\n){0,4}", after in "([a-z #.]{0,12}\n){0,4}", ours in prop::collection::vec("[a-z0-9. ]{1,12}", 1..4)) {
            let once = with_lines(&before, &ours);
            let text = format!("{once}{after}");
            prop_assert_eq!(lines(&text), Some(ours.clone()));
            prop_assert_eq!(with_lines(&text, &ours), text.clone(), "writing it again changes nothing");
            prop_assert_eq!(with_lines(&text, &[]), format!("{}{}", before, after), "removing it leaves the rest");
        }
    }
}
