//! How a message looks in files and standard streams.

use std::borrow::Cow;
use std::time::SystemTime;

use anygate_config::MessageFormat;
use anygate_config::log_format::{MessageAtom, Piece};
use jiff::Timestamp;

use crate::severity::Severity;
use crate::{json, recognisable};

/// Makes the text of a message for standard error, which an [`Outlet`](crate::Outlet) would keep open.
pub fn plain(severity: Severity, text: &[u8], time: SystemTime) -> Vec<u8> {
    let now = Timestamp::try_from(time).unwrap_or_default();
    message(&MessageFormat::Text, severity, recognisable::message(text).trim_ascii_end(), now)
}

/// A message without its line's end, as it is written.
pub(crate) fn message(format: &MessageFormat, severity: Severity, text: &[u8], now: Timestamp) -> Vec<u8> {
    let pid = std::process::id();
    let level = severity.word().to_ascii_uppercase();
    match format {
        MessageFormat::Text => {
            let mut line = format!("{now:.6} [{pid}] {level:>5} ").into_bytes();
            line.extend_from_slice(text);
            line.push(b'\n');
            line
        }
        MessageFormat::Json => json::line(severity, text, now),
        MessageFormat::Own(pieces) => {
            let text = indented(text);
            let mut line = Vec::with_capacity(text.len() + 64);
            for piece in pieces {
                match piece {
                    Piece::Text(own) => line.extend_from_slice(own.as_bytes()),
                    Piece::Atom(MessageAtom::Time) => line.extend_from_slice(format!("{now:.6}").as_bytes()),
                    Piece::Atom(MessageAtom::Level) => line.extend_from_slice(level.as_bytes()),
                    Piece::Atom(MessageAtom::Pid) => line.extend_from_slice(pid.to_string().as_bytes()),
                    Piece::Atom(MessageAtom::Message) => line.extend_from_slice(&text),
                }
            }
            line.push(b'\n');
            line
        }
    }
}

/// Indents all lines but the first, any of which could pass for a message in a format that is not ours.
fn indented(text: &[u8]) -> Cow<'_, [u8]> {
    if !text.contains(&b'\n') {
        return Cow::Borrowed(text);
    }
    let lines: Vec<&[u8]> = text.split(|&byte| byte == b'\n').collect();
    Cow::Owned(lines.join(b"\n  ".as_slice()))
}

#[cfg(test)]
mod tests {
    use anygate_config::log_format;

    use super::*;

    #[test]
    fn a_message_looks_as_its_format_says() {
        let now = Timestamp::from_microsecond(1_790_000_000_000_001).unwrap();
        let time = "2026-09-21T14:13:20.000001Z";
        let pid = std::process::id();
        let own = log_format::read_message("<%(level)s> %(message)s (%(pid)s, %(time)s) 1%%").unwrap();
        for (format, severity, expected) in [
            (MessageFormat::Text, Severity::Info, format!("{time} [{pid}]  INFO one\ntwo\n")),
            (MessageFormat::Text, Severity::Critical, format!("{time} [{pid}] CRITICAL one\ntwo\n")),
            (MessageFormat::Own(own), Severity::Warning, format!("<WARN> one\n  two ({pid}, {time}) 1%\n")),
        ] {
            assert_eq!(String::from_utf8(message(&format, severity, b"one\ntwo", now)).unwrap(), expected);
        }
    }
}
