//! What systemd makes of an `EnvironmentFile=`: its parser's states (`parse_env_file_internal` in `src/basic/env-file.c`)
//! and what it refuses afterwards (`utf8_is_valid`, `env_name_is_valid`, `env_value_is_valid`). A unit test and a fuzz
//! target include it, so that the writer is held to one reading.

use std::collections::BTreeMap;

/// The variables, or the line or value that systemd would complain of.
pub fn read(text: &str) -> Result<BTreeMap<String, String>, String> {
    let mut found = BTreeMap::new();
    let mut rest = text.chars().peekable();
    while let Some(first) = rest.next() {
        if matches!(first, '#' | ';') {
            // A backslash takes the next character along, be it the end of the line.
            while let Some(c) = rest.next() {
                match c {
                    '\\' => drop(rest.next()),
                    '\n' | '\r' => break,
                    _ => {}
                }
            }
            continue;
        }
        if first.is_ascii_whitespace() {
            continue;
        }
        let mut key = String::from(first);
        for c in rest.by_ref() {
            match c {
                '=' => break,
                '\n' | '\r' => return Err(format!("{key:?} has no =")),
                c => key.push(c),
            }
        }
        let value = value(&mut rest);
        let key = key.trim_end().to_owned();
        let name = |c: char| c.is_ascii_alphanumeric() || c == '_';
        if !key.chars().all(name) || key.starts_with(|c: char| c.is_ascii_digit()) {
            return Err(format!("{key:?} is no name"));
        }
        if let Some(bad) = value.chars().find(|c| refused(*c)) {
            return Err(format!("{bad:?} in the value of {key}: the whole file is refused"));
        }
        if found.insert(key.clone(), value).is_some() {
            return Err(format!("{key} is there twice"));
        }
    }
    Ok(found)
}

fn value(rest: &mut std::iter::Peekable<std::str::Chars<'_>>) -> String {
    let mut value = String::new();
    let mut spaces = String::new();
    while rest.peek().is_some_and(|c| matches!(c, ' ' | '\t')) {
        rest.next();
    }
    while let Some(c) = rest.next() {
        match c {
            '\n' | '\r' => break,
            '"' => double_quoted(rest, &mut value),
            '\'' => value.extend(rest.by_ref().take_while(|c| *c != '\'')),
            '\\' => match rest.next() {
                Some('\n' | '\r') | None => {}
                Some(c) => value.push(c),
            },
            ' ' | '\t' => {
                spaces.push(c);
                continue;
            }
            c => {
                value.push_str(&spaces);
                value.push(c);
            }
        }
        spaces.clear();
    }
    value
}

fn double_quoted(rest: &mut std::iter::Peekable<std::str::Chars<'_>>, value: &mut String) {
    while let Some(c) = rest.next() {
        match c {
            '"' => return,
            '\\' => match rest.next() {
                Some(c @ ('"' | '\\' | '`' | '$')) => value.push(c),
                Some('\n') | None => {}
                Some(c) => value.extend(['\\', c]),
            },
            c => value.push(c),
        }
    }
}

/// Control characters but for tab and line feed, and what is no character of Unicode's (`unichar_is_valid`).
fn refused(c: char) -> bool {
    let code = u32::from(c);
    (c.is_ascii_control() && !matches!(c, '\t' | '\n')) || (0xfdd0..=0xfdef).contains(&code) || code & 0xfffe == 0xfffe
}
