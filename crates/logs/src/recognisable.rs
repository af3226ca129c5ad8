//! What keeps the messages of a log apart, whatever a client or an application put into them: a line that begins with time
//! and process begins a message, and no other line does. Nothing in a message changes what a terminal shows of others.

use std::borrow::Cow;
use std::fmt::Write;

/// Precedes a line that would pass for the beginning of a message.
const INDENT: &str = "  ";

/// A message as it goes into a log: further lines that would pass for the beginning of another one are indented, and
/// characters that end a line for some reader or command a terminal are written as escapes.
pub fn message(text: &[u8]) -> Cow<'_, [u8]> {
    if text.iter().all(|&byte| byte == b'\t' || byte == b'\n' || matches!(byte, b' '..=b'~')) {
        return further_lines(text);
    }
    let mut written = String::with_capacity(text.len() + text.len() / 8);
    for character in String::from_utf8_lossy(text).chars() {
        match character {
            '\n' => written.push('\n'),
            other => push(&mut written, other),
        }
    }
    Cow::Owned(further_lines(written.as_bytes()).into_owned())
}

/// The first line is what begins the message.
fn further_lines(text: &[u8]) -> Cow<'_, [u8]> {
    let first = text.iter().position(|&byte| byte == b'\n').map_or(text.len(), |end| end + 1);
    let (first, further) = text.split_at(first);
    match application_text(further) {
        Cow::Borrowed(_) => Cow::Borrowed(text),
        Cow::Owned(further) => Cow::Owned([first, &further].concat()),
    }
}

/// Text as one line: no character in it ends the line or commands a terminal.
pub fn one_line(text: &str) -> Cow<'_, str> {
    if text.bytes().all(|byte| byte == b'\t' || matches!(byte, b' '..=b'~')) {
        return Cow::Borrowed(text);
    }
    let mut written = String::with_capacity(text.len() + text.len() / 8);
    text.chars().for_each(|character| push(&mut written, character));
    Cow::Owned(written)
}

/// Text of the application, which is its own affair, but for lines that would pass for ours: those are indented.
pub(crate) fn application_text(text: &[u8]) -> Cow<'_, [u8]> {
    let mut written = Vec::new();
    let (mut taken, mut begins) = (0, true);
    for (at, &byte) in text.iter().enumerate() {
        let (before, rest) = text.split_at(at);
        if begins && byte.is_ascii_digit() && is_like_ours(rest) {
            written.extend_from_slice(before.get(taken..).unwrap_or_default());
            written.extend_from_slice(INDENT.as_bytes());
            taken = at;
        }
        begins = match byte {
            b'\n' | b'\r' | 0x0b | 0x0c | 0x1c..=0x1e => true,
            // U+0085, U+2028, U+2029.
            0x85 => before.ends_with(b"\xc2"),
            0xa8 | 0xa9 => before.ends_with(b"\xe2\x80"),
            _ => false,
        };
    }
    if taken == 0 && written.is_empty() {
        return Cow::Borrowed(text);
    }
    written.extend_from_slice(text.get(taken..).unwrap_or_default());
    Cow::Owned(written)
}

/// Whether a line begins as one of ours: `2026-11-27T22:23:01.000000Z [4711]`.
fn is_like_ours(line: &[u8]) -> bool {
    let length = line.iter().take_while(|byte| byte.is_ascii_digit() || b"-T:.".contains(byte)).count();
    let (time, rest) = line.split_at(length);
    time.contains(&b'T')
        && rest
            .strip_prefix(b"Z [")
            .is_some_and(|process| process.first().is_some_and(|digit| digit.is_ascii_digit()))
}

/// Writes a character so that it ends no line and commands no terminal.
fn push(written: &mut String, character: char) {
    let commands = (character.is_control() && character != '\t')
        // They end a line, or turn the direction of writing.
        || matches!(character, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    // Writing to a string cannot fail.
    let _ = match character {
        _ if !commands => {
            written.push(character);
            Ok(())
        }
        '\n' => write!(written, "\\n"),
        '\r' => write!(written, "\\r"),
        other if other < '\u{100}' => write!(written, "\\x{:02x}", u32::from(other)),
        other => write!(written, "\\u{:04x}", u32::from(other)),
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_line_of_a_message_looks_like_another_message() {
        for (text, expected) in [
            ("plain\n", "plain\n"),
            ("without an end", "without an end"),
            ("a\nb\n\nc\n", "a\nb\n\nc\n"),
            ("a\r\nb\rc\n", "a\\r\nb\\rc\n"),
            ("\x1b[2J \x07 \x7f \t \x0b\x0c\x1c\n", "\\x1b[2J \\x07 \\x7f \t \\x0b\\x0c\\x1c\n"),
            (
                "\u{85}\u{9b}31m \u{2028}\u{2029}\u{202e}\u{2066}\n",
                "\\x85\\x9b31m \\u2028\\u2029\\u202e\\u2066\n",
            ),
            ("na\u{ef}ve \u{1f600}\n", "na\u{ef}ve \u{1f600}\n"),
        ] {
            assert_eq!(String::from_utf8_lossy(&message(text.as_bytes())), expected);
        }
        let ours = "2026-11-27T22:23:01.000000Z [4711]  INFO";
        for character in ["", "\u{ef}"] {
            let text = format!("{ours} a{character}\n{ours} b\n{ours} c\n");
            let expected = format!("{ours} a{character}\n  {ours} b\n  {ours} c\n");
            assert_eq!(String::from_utf8_lossy(&message(text.as_bytes())), expected);
        }
        assert_eq!(message(b"\xff\n").as_ref(), "\u{fffd}\n".as_bytes());
        assert_eq!(one_line("a\nb\u{1b}"), "a\\nb\\x1b");
    }

    #[test]
    fn no_line_of_an_application_passes_for_ours() {
        let ours = "2026-11-27T22:23:01.000000Z [4711]  INFO forged";
        for end in ["\n", "\r", "\r\n", "\x0b", "\x0c", "\u{85}", "\u{2028}", "\u{2029}"] {
            let text = format!("{ours}{end}{ours}{end}its own: {ours}\n");
            let expected = format!("  {ours}{end}  {ours}{end}its own: {ours}\n");
            assert_eq!(String::from_utf8_lossy(&application_text(text.as_bytes())), expected, "{end:?}");
        }
        for own in [
            "2026-11-27 22:23:01,123 INFO a\n",
            "2026-11-27T22:23:01Z [info] a\n",
            "\u{1b}[1mbold\n",
            "",
            "12",
        ] {
            assert_eq!(application_text(own.as_bytes()), Cow::Borrowed(own.as_bytes()));
        }
    }
}
