//! Messages as JSON objects (RFC 8259), one a line, with the names that the access log's objects have.

use std::fmt::Write;

use jiff::Timestamp;

use crate::severity::Severity;

/// A message as one line.
pub(crate) fn line(severity: Severity, text: &[u8], now: Timestamp) -> Vec<u8> {
    let mut line = format!(
        "{{\"time\":\"{now:.6}\",\"level\":\"{level}\",\"pid\":{},\"message\":\"",
        std::process::id(),
        level = severity.word()
    );
    for character in String::from_utf8_lossy(text).chars() {
        match character {
            '"' | '\\' => line.extend(['\\', character]),
            '\n' => line.push_str("\\n"),
            // Writing to a string cannot fail.
            other if other.is_control() => drop(write!(line, "\\u{:04x}", u32::from(other))),
            other => line.push(other),
        }
    }
    line.push_str("\"}\n");
    line.into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_one_line_whatever_is_in_it() {
        let now = Timestamp::from_microsecond(1_790_000_000_000_001).unwrap();
        let line = line(Severity::Error, "a \"b\"\\\n\tc \u{85}\u{e9}".as_bytes(), now);
        let pid = std::process::id();
        assert_eq!(
            String::from_utf8(line).unwrap(),
            format!(
                "{{\"time\":\"2026-09-21T14:13:20.000001Z\",\"level\":\"error\",\"pid\":{pid},\
                 \"message\":\"a \\\"b\\\"\\\\\\n\\u0009c \\u0085\u{e9}\"}}\n"
            )
        );
    }
}
