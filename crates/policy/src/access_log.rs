//! One line for each request. Whatever a client or an application sent is escaped, so that a line stays one line and
//! no terminal is told anything. Writing lines is the server's.

use std::cell::RefCell;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anygate_config::AccessLogFormat;
use anygate_config::log_format::{Atom, Piece};
use anygate_proto::application::Endpoints;
use anygate_proto::head::{RequestHead, ResponseHead};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::authentication;

/// Facts about one request.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// Addresses of both ends.
    pub endpoints: &'a Endpoints,
    /// Head of the request; empty when it could not be parsed.
    pub head: &'a RequestHead,
    /// Status of the response.
    pub status: u16,
    /// The head of the response, if [`Formatter::wants_response_fields`].
    pub response: Option<&'a ResponseHead>,
    /// Bytes of body.
    pub body_bytes: u64,
    /// From the beginning of the call to the complete response.
    pub duration: Duration,
    /// Time at which processing began; the duration counts from it.
    pub time: SystemTime,
}

/// How lines look.
#[derive(Clone, Debug)]
pub struct Formatter {
    format: AccessLogFormat,
    has_response_fields: bool,
    pid: u32,
}

impl Formatter {
    /// A formatter for this process.
    pub fn new(format: AccessLogFormat) -> Self {
        let has_response_fields = match &format {
            AccessLogFormat::Json | AccessLogFormat::Web2py => false,
            AccessLogFormat::Text(pieces) => {
                pieces.iter().any(|piece| matches!(piece, Piece::Atom(Atom::ResponseField(_))))
            }
        };
        Formatter { format, has_response_fields, pid: std::process::id() }
    }

    /// Whether lines hold fields of responses, so that heads must be kept until the end.
    pub fn wants_response_fields(&self) -> bool {
        self.has_response_fields
    }

    /// Adds one line, with its line feed.
    pub fn line(&self, line: &mut Vec<u8>, record: &Record<'_>) {
        match &self.format {
            AccessLogFormat::Json => json(line, record, self.pid),
            AccessLogFormat::Web2py => web2py(line, record),
            AccessLogFormat::Text(pieces) => {
                for piece in pieces {
                    match piece {
                        Piece::Text(text) => line.extend_from_slice(text.as_bytes()),
                        Piece::Atom(atom) => self.atom(line, atom, record),
                    }
                }
            }
        }
        line.push(b'\n');
    }

    fn atom(&self, line: &mut Vec<u8>, atom: &Atom, record: &Record<'_>) {
        let Record { endpoints, head, duration, .. } = record;
        match atom {
            Atom::RemoteAddr => line.extend_from_slice(endpoints.remote_addr.as_bytes()),
            Atom::Dash => line.push(b'-'),
            Atom::User => escape_or_dash(line, user(head).as_deref()),
            Atom::Time => clf_time(line, record.time),
            Atom::RequestLine if head.method().is_empty() => line.push(b'-'),
            Atom::RequestLine => {
                escape(line, head.method());
                line.push(b' ');
                escape(line, head.target());
                line.push(b' ');
                line.extend_from_slice(head.version().as_str().as_bytes());
            }
            Atom::Method => escape_or_dash(line, Some(head.method())),
            Atom::Path => escape(line, head.path()),
            Atom::Query => escape(line, head.query()),
            Atom::Protocol => line.extend_from_slice(head.version().as_str().as_bytes()),
            Atom::Status => number(line, u64::from(record.status)),
            Atom::BytesOrDash if record.body_bytes == 0 => line.push(b'-'),
            Atom::Bytes | Atom::BytesOrDash => number(line, record.body_bytes),
            Atom::Referer => escape_or_dash(line, head.field("referer")),
            Atom::UserAgent => escape_or_dash(line, head.field("user-agent")),
            Atom::Seconds => number(line, duration.as_secs()),
            Atom::Milliseconds => number(line, duration.as_millis().try_into().unwrap_or(u64::MAX)),
            Atom::Microseconds => number(line, duration.as_micros().try_into().unwrap_or(u64::MAX)),
            Atom::DecimalSeconds => decimal_seconds(line, *duration),
            Atom::Pid => number(line, u64::from(self.pid)),
            Atom::RequestField(name) => escape_or_dash(line, head.field(name)),
            Atom::ResponseField(name) => {
                escape_or_dash(line, record.response.and_then(|response| response.field(name)));
            }
        }
    }
}

/// As `gluon.main.appfactory` writes it, with the time of the end. Its readers split at commas, so those of a path are
/// escaped.
fn web2py(line: &mut Vec<u8>, record: &Record<'_>) {
    line.extend_from_slice(record.endpoints.remote_addr.as_bytes());
    line.extend_from_slice(b", ");
    let ended = record.time.checked_add(record.duration).unwrap_or(record.time);
    let time = jiff::Timestamp::try_from(ended).unwrap_or_default();
    let local = time.to_zoned(jiff::tz::TimeZone::system());
    line.extend_from_slice(local.strftime("%Y-%m-%d %H:%M:%S").to_string().as_bytes());
    line.extend_from_slice(b", ");
    escape_or_dash(line, Some(record.head.method()));
    line.extend_from_slice(b", ");
    for (place, part) in record.head.path().split(|&byte| byte == b',').enumerate() {
        if place > 0 {
            line.extend_from_slice(b"%2C");
        }
        escape(line, part);
    }
    line.extend_from_slice(b", ");
    line.extend_from_slice(record.head.version().as_str().as_bytes());
    line.extend_from_slice(b", ");
    number(line, u64::from(record.status));
    line.extend_from_slice(b", ");
    decimal_seconds(line, record.duration);
}

fn json(line: &mut Vec<u8>, record: &Record<'_>, pid: u32) {
    let Record { endpoints, head, .. } = record;
    line.extend_from_slice(b"{\"time\":\"");
    iso_time(line, record.time);
    line.push(b'"');
    let texts: [(&str, Option<&[u8]>); 7] = [
        ("remote_addr", Some(endpoints.remote_addr.as_bytes())),
        ("method", Some(head.method())),
        ("host", Some(head.authority())),
        ("target", Some(head.target())),
        ("protocol", Some(head.version().as_str().as_bytes())),
        ("referer", head.field("referer")),
        ("user_agent", head.field("user-agent")),
    ];
    for (name, value) in texts {
        line.extend_from_slice(b",\"");
        line.extend_from_slice(name.as_bytes());
        line.extend_from_slice(b"\":");
        match value {
            None => line.extend_from_slice(b"null"),
            Some(value) => json_string(line, value),
        }
    }
    line.extend_from_slice(b",\"status\":");
    number(line, u64::from(record.status));
    line.extend_from_slice(b",\"body_bytes\":");
    number(line, record.body_bytes);
    line.extend_from_slice(b",\"duration\":");
    decimal_seconds(line, record.duration);
    line.extend_from_slice(b",\"pid\":");
    number(line, u64::from(pid));
    line.push(b'}');
}

/// The user that the request was found to be of, or else that of its Basic credentials (RFC 7617 section 2), right or wrong.
fn user(head: &RequestHead) -> Option<Vec<u8>> {
    if let Some(user) = authentication::user(head) {
        return Some(user.to_vec());
    }
    let value = head.field("authorization")?;
    let (scheme, credentials) = value.split_at_checked(6)?;
    if !scheme.eq_ignore_ascii_case(b"basic ") {
        return None;
    }
    let mut decoded = STANDARD.decode(credentials.trim_ascii()).ok()?;
    let colon = decoded.iter().position(|&byte| byte == b':')?;
    decoded.truncate(colon);
    Some(decoded)
}

fn escape_or_dash(line: &mut Vec<u8>, bytes: Option<&[u8]>) {
    match bytes {
        None | Some(b"") => line.push(b'-'),
        Some(bytes) => escape(line, bytes),
    }
}

/// Whether nothing in a text must be escaped. All of it is looked at, many bytes at a time: hardly ever something must.
fn is_plain(bytes: &[u8]) -> bool {
    bytes
        .iter()
        .fold(true, |plain, &byte| plain & (b' '..=b'~').contains(&byte) & (byte != b'"') & (byte != b'\\'))
}

/// As Apache does: everything but printable ASCII becomes `\xhh`; quotes and backslashes get a backslash.
fn escape(line: &mut Vec<u8>, bytes: &[u8]) {
    if is_plain(bytes) {
        return line.extend_from_slice(bytes);
    }
    for &byte in bytes {
        match byte {
            b'"' | b'\\' => line.extend_from_slice(&[b'\\', byte]),
            b' '..=b'~' => line.push(byte),
            _ => hexadecimal(line, b"\\x", byte),
        }
    }
}

/// A string of RFC 8259 section 7. Bytes that are not UTF-8 become the four characters `\xhh`.
fn json_string(line: &mut Vec<u8>, bytes: &[u8]) {
    line.push(b'"');
    if is_plain(bytes) {
        line.extend_from_slice(bytes);
        return line.push(b'"');
    }
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            match character {
                '"' => line.extend_from_slice(b"\\\""),
                '\\' => line.extend_from_slice(b"\\\\"),
                // All control characters are below U+0100.
                _ if character.is_control() => {
                    hexadecimal(line, b"\\u00", u8::try_from(u32::from(character)).unwrap_or_default());
                }
                _ => line.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
        for &byte in chunk.invalid() {
            hexadecimal(line, b"\\\\x", byte);
        }
    }
    line.push(b'"');
}

fn hexadecimal(line: &mut Vec<u8>, prefix: &[u8], byte: u8) {
    line.extend_from_slice(prefix);
    for half in [byte >> 4, byte & 15] {
        line.push(if half < 10 { b'0' + half } else { b'a' + half - 10 });
    }
}

fn number(line: &mut Vec<u8>, number: u64) {
    line.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

fn padded(line: &mut Vec<u8>, value: u64, width: usize) {
    let mut buffer = itoa::Buffer::new();
    let digits = buffer.format(value).as_bytes();
    line.resize(line.len() + width.saturating_sub(digits.len()), b'0');
    line.extend_from_slice(digits);
}

fn decimal_seconds(line: &mut Vec<u8>, duration: Duration) {
    number(line, duration.as_secs());
    line.push(b'.');
    padded(line, u64::from(duration.subsec_micros()), 6);
}

/// A moment in the calendar, in UTC.
struct Civil {
    year: u64,
    month: u64,
    day: u64,
    hour: u64,
    minute: u64,
    second: u64,
}

/// A second since 1970 in the proleptic Gregorian calendar (after Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms").
fn civil(second: u64) -> Civil {
    let (days, second) = (second / 86_400, second % 86_400);
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    Civil {
        year: era * 400 + year_of_era + u64::from(month <= 2),
        month,
        day: day_of_year - (153 * month_from_march + 2) / 5 + 1,
        hour: second / 3600,
        minute: second / 60 % 60,
        second: second % 60,
    }
}

/// A second as text, which most requests have in common with those before them.
struct Second {
    /// Since 1970.
    number: u64,
    text: Vec<u8>,
}

impl Second {
    const NONE: Second = Second { number: 0, text: Vec::new() };

    /// Adds the second of `time` to a line. `write` makes its text.
    fn add(&mut self, line: &mut Vec<u8>, time: SystemTime, write: fn(&mut Vec<u8>, &Civil)) {
        let number = time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        if self.number != number || self.text.is_empty() {
            self.text.clear();
            write(&mut self.text, &civil(number));
            self.number = number;
        }
        line.extend_from_slice(&self.text);
    }
}

thread_local! {
    /// The second of the last line of this thread, in the format of Apache
    static CLF_SECOND: RefCell<Second> = const { RefCell::new(Second::NONE) };
    /// and in that of RFC 3339.
    static ISO_SECOND: RefCell<Second> = const { RefCell::new(Second::NONE) };
}

fn clf_time(line: &mut Vec<u8>, time: SystemTime) {
    CLF_SECOND.with_borrow_mut(|second| second.add(line, time, clf_second));
}

fn clf_second(line: &mut Vec<u8>, at: &Civil) {
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    line.push(b'[');
    padded(line, at.day, 2);
    line.push(b'/');
    let month = usize::try_from(at.month.saturating_sub(1)).ok().and_then(|index| MONTHS.get(index));
    line.extend_from_slice(month.copied().unwrap_or_default().as_bytes());
    for (separator, value) in [(b'/', at.year), (b':', at.hour), (b':', at.minute), (b':', at.second)] {
        line.push(separator);
        padded(line, value, 2);
    }
    line.extend_from_slice(b" +0000]");
}

/// RFC 3339 with milliseconds.
fn iso_time(line: &mut Vec<u8>, time: SystemTime) {
    ISO_SECOND.with_borrow_mut(|second| second.add(line, time, iso_second));
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    line.push(b'.');
    padded(line, u64::from(since.subsec_millis()), 3);
    line.push(b'Z');
}

fn iso_second(line: &mut Vec<u8>, at: &Civil) {
    padded(line, at.year, 4);
    let parts = [(b'-', at.month), (b'-', at.day), (b'T', at.hour), (b':', at.minute), (b':', at.second)];
    for (separator, value) in parts {
        line.push(separator);
        padded(line, value, 2);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use anygate_config::log_format;
    use anygate_proto::head::Version;

    fn request(target: &str, fields: &[(&str, &[u8])]) -> RequestHead {
        let mut head = RequestHead::default();
        let method = head.push_text(b"GET").unwrap();
        head.set_method(method);
        let target = head.push_text(target.as_bytes()).unwrap();
        head.set_target(target);
        head.set_version(Version::Http11);
        for (name, value) in fields {
            let name = head.push_text(name.as_bytes()).unwrap();
            let value = head.push_text(value).unwrap();
            head.push_field(name, value);
        }
        head
    }

    fn line(format: &str, head: &RequestHead) -> String {
        let endpoints = Endpoints { remote_addr: "192.0.2.7".into(), ..Endpoints::default() };
        let record = Record {
            endpoints: &endpoints,
            head,
            status: 200,
            response: None,
            body_bytes: 13,
            duration: Duration::from_micros(1_002_003),
            time: UNIX_EPOCH + Duration::from_millis(971_186_136_045),
        };
        let format = match format {
            "json" => AccessLogFormat::Json,
            "web2py" => AccessLogFormat::Web2py,
            text => AccessLogFormat::Text(log_format::read(text).unwrap()),
        };
        let mut line = Vec::new();
        Formatter { pid: 7, ..Formatter::new(format) }.line(&mut line, &record);
        String::from_utf8(line).unwrap()
    }

    #[test]
    fn combined_is_what_apache_writes() {
        let head =
            request("/a?b=1", &[("User-Agent", b"curl/8"), ("authorization", b"Basic YWxpY2U6c2VjcmV0")]);
        assert_eq!(
            line(log_format::COMBINED, &head),
            "192.0.2.7 - alice [10/Oct/2000:13:55:36 +0000] \"GET /a?b=1 HTTP/1.1\" 200 13 \"-\" \"curl/8\"\n"
        );
    }

    #[test]
    fn nothing_of_a_client_can_break_a_line_or_a_quote() {
        let head = request("/\x1b[31m", &[("User-Agent", b"a\"b\\c\r\nd\xff\xc2\x9b")]);
        assert_eq!(
            line("%(r)s %(a)s", &head),
            "GET /\\x1b[31m HTTP/1.1 a\\\"b\\\\c\\x0d\\x0ad\\xff\\xc2\\x9b\n"
        );
        let json = line("json", &head);
        assert!(json.contains(r#""user_agent":"a\"b\\c\u000d\u000ad\\xff\u009b""#), "{json}");
        assert!(json.contains(r#""target":"/\u001b[31m""#), "{json}");
    }

    #[test]
    fn json_has_times_numbers_and_nulls() {
        let json = line("json", &request("/", &[]));
        assert_eq!(
            json,
            concat!(
                r#"{"time":"2000-10-10T13:55:36.045Z","remote_addr":"192.0.2.7","method":"GET","host":"","target":"/","#,
                r#""protocol":"HTTP/1.1","referer":null,"user_agent":null,"status":200,"body_bytes":13,"#,
                r#""duration":1.002003,"pid":7}"#,
                "\n"
            )
        );
    }

    #[test]
    fn web2py_has_the_time_of_the_end() {
        let ended = UNIX_EPOCH + Duration::from_millis(971_186_136_045) + Duration::from_micros(1_002_003);
        let local = jiff::Timestamp::try_from(ended).unwrap().to_zoned(jiff::tz::TimeZone::system());
        assert_eq!(
            line("web2py", &request("/", &[])),
            format!("192.0.2.7, {}, GET, , HTTP/1.1, 200, 1.002003\n", local.strftime("%Y-%m-%d %H:%M:%S"))
        );
    }

    #[test]
    fn durations_have_four_units() {
        assert_eq!(line("%(T)s %(M)s %(D)s %(L)s %(p)s", &request("/", &[])), "1 1002 1002003 1.002003 7\n");
    }

    #[test]
    fn the_calendar_knows_leap_days() {
        for (seconds, date) in
            [(0, "[01/Jan/1970"), (951_782_400, "[29/Feb/2000"), (1_709_164_800, "[29/Feb/2024")]
        {
            let mut line = Vec::new();
            clf_time(&mut line, UNIX_EPOCH + Duration::from_secs(seconds));
            assert!(line.starts_with(date.as_bytes()), "{seconds}");
        }
    }
}
