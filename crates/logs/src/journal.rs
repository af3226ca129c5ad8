//! An entry of systemd's journal (<https://systemd.io/JOURNAL_NATIVE_PROTOCOL/>): one datagram, a field a line. A field
//! whose value has lines itself gives its length.

use crate::severity::Severity;

/// An entry longer than this is cut: what a socket takes at once is limited, too.
const MESSAGE_MAX: usize = 64 * 1024;

/// Makes an entry.
pub(crate) fn entry(identifier: &str, facility: u8, severity: Severity, message: &[u8]) -> Vec<u8> {
    let message = message.get(..MESSAGE_MAX).unwrap_or(message);
    let mut entry =
        format!("PRIORITY={}\nSYSLOG_FACILITY={facility}\nSYSLOG_IDENTIFIER={identifier}\n", severity as u8)
            .into_bytes();
    entry.extend_from_slice(b"MESSAGE");
    if message.contains(&b'\n') {
        entry.push(b'\n');
        entry.extend_from_slice(&(message.len() as u64).to_le_bytes());
    } else {
        entry.push(b'=');
    }
    entry.extend_from_slice(message);
    entry.push(b'\n');
    entry
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_of_one_line_is_a_line() {
        assert_eq!(
            entry("anygate", 3, Severity::Warning, b"one line"),
            b"PRIORITY=4\nSYSLOG_FACILITY=3\nSYSLOG_IDENTIFIER=anygate\nMESSAGE=one line\n"
        );
    }

    #[test]
    fn a_message_of_more_lines_has_its_length() {
        let made = entry("anygate", 3, Severity::Error, b"two\nlines");
        assert!(made.ends_with(b"\nMESSAGE\n\x09\0\0\0\0\0\0\0two\nlines\n"), "{}", made.escape_ascii());
    }

    #[test]
    fn a_message_that_is_too_long_is_cut() {
        assert!(entry("a", 3, Severity::Info, &[b'x'; 1 << 20]).len() < MESSAGE_MAX + 100);
    }
}
