//! Messages of syslog, one a line. Across the network they are those of RFC 5424; daemons of the same machine expect what
//! the C library's `syslog` writes into their socket, and show anything else as text.

use std::time::SystemTime;

use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::severity::Severity;

/// A line longer than this is cut, as rsyslog would do.
const LINE_MAX: usize = 8 * 1024;

/// Properties of all messages of a log.
#[derive(Debug)]
pub(crate) struct Sender {
    form: Form,
    identifier: &'static str,
    facility: u8,
    host: String,
}

/// How messages look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// `<30>1 2025-12-31T23:59:59.000000Z host anygate 4711 - - text` (RFC 5424 section 6).
    Network,
    /// `<30>Dec 31 23:59:59 anygate[4711]: text`, in local time.
    Local,
}

impl Sender {
    pub(crate) fn new(form: Form, identifier: &'static str, facility: u8) -> Self {
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        // "PRINTUSASCII", at most 255; a dash where there is none (section 6.2.4).
        let printable = (1..256).contains(&host.len()) && host.bytes().all(|byte| byte.is_ascii_graphic());
        Sender { form, identifier, facility, host: if printable { host } else { "-".to_owned() } }
    }

    /// Makes the message of one line.
    pub(crate) fn message(&self, severity: Severity, line: &[u8], time: SystemTime) -> Vec<u8> {
        let priority = self.facility * 8 + severity as u8;
        let (identifier, pid) = (self.identifier, std::process::id());
        let time = Timestamp::try_from(time).unwrap_or_default();
        let head = match self.form {
            Form::Network => {
                let time = time.strftime("%Y-%m-%dT%H:%M:%S.%6fZ");
                format!("<{priority}>1 {time} {} {identifier} {pid} - - ", self.host)
            }
            Form::Local => {
                let time = time.to_zoned(TimeZone::system());
                format!("<{priority}>{} {identifier}[{pid}]: ", time.strftime("%b %e %H:%M:%S"))
            }
        };
        let mut message = head.into_bytes();
        message.extend_from_slice(line.get(..LINE_MAX).unwrap_or(line));
        message
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, UNIX_EPOCH};

    #[test]
    fn messages_have_the_two_forms() {
        let time = UNIX_EPOCH + Duration::from_millis(971_186_136_045);
        let mut sender = Sender::new(Form::Network, "anygate", 16);
        sender.host = "web1".to_owned();
        let pid = std::process::id();
        assert_eq!(
            String::from_utf8(sender.message(Severity::Error, b"text", time)).unwrap(),
            format!("<131>1 2000-10-10T13:55:36.045000Z web1 anygate {pid} - - text")
        );
        sender.form = Form::Local;
        let local = String::from_utf8(sender.message(Severity::Info, b"text", time)).unwrap();
        assert!(local.starts_with("<134>Oct 1"), "{local}");
        assert!(local.ends_with(&format!(":36 anygate[{pid}]: text")), "{local}");
    }

    #[test]
    fn a_line_that_is_too_long_is_cut() {
        let sender = Sender::new(Form::Local, "anygate", 3);
        assert!(sender.message(Severity::Info, &[b'x'; 1 << 20], UNIX_EPOCH).len() < LINE_MAX + 100);
    }
}
