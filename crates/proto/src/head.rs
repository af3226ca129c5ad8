//! What a request and a response say before their bodies. One buffer holds all the text of a head; everything else
//! is a span of it, so that a head is one allocation that is used again for the next request.
//!
//! Heads are filled by codecs (see `http1`) and read by the application bridge, the policies and the access log.

use crate::error::InvalidHead;
use crate::http1::target;

/// A part of a head's text: `start..end` in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    start: u32,
    end: u32,
}

impl Span {
    fn of(self, text: &[u8]) -> &[u8] {
        text.get(self.start as usize..self.end as usize).unwrap_or_default()
    }

    /// Reaches to the end of the other one, if that one begins where this one ends; says whether it does.
    pub(crate) fn join(&mut self, other: Span) -> bool {
        let joined = self.end == other.start;
        if joined {
            self.end = other.end;
        }
        joined
    }
}

/// The version of HTTP that the client spoke (RFC 9110 section 2.5).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// HTTP/1.0
    Http10,
    /// HTTP/1.1
    #[default]
    Http11,
    /// HTTP/2
    Http2,
    /// HTTP/3, which only a front server can speak to a client of ours.
    Http3,
}

impl Version {
    /// As SERVER_PROTOCOL wants it (RFC 3875 section 4.1.16).
    pub fn as_str(self) -> &'static str {
        match self {
            Version::Http10 => "HTTP/1.0",
            Version::Http11 => "HTTP/1.1",
            Version::Http2 => "HTTP/2.0",
            Version::Http3 => "HTTP/3.0",
        }
    }
}

/// One request's head.
///
/// Text is as the client sent it, save for [`path`](Self::path), which is percent-decoded. A codec promises that a
/// complete head has a method that is a token, field names that are tokens, and field values without CR, LF, NUL.
#[derive(Clone, Debug, Default)]
pub struct RequestHead {
    text: Vec<u8>,
    method: Span,
    target: Span,
    script_name: Span,
    prefix: Span,
    path: Span,
    query: Span,
    authority: Span,
    version: Version,
    fields: Vec<(Span, Span)>,
    variables: Vec<(Span, Span)>,
}

impl RequestHead {
    /// Forgets everything but keeps the memory, for the next request.
    pub fn clear(&mut self) {
        self.text.clear();
        self.fields.clear();
        self.variables.clear();
        self.method = Span::default();
        self.target = Span::default();
        self.script_name = Span::default();
        self.prefix = Span::default();
        self.path = Span::default();
        self.query = Span::default();
        self.authority = Span::default();
        self.version = Version::default();
    }

    /// Takes in text and says where it lies. Heads are capped by `Limits` far below 4 GiB; past that text is refused.
    pub fn push_text(&mut self, bytes: &[u8]) -> Result<Span, InvalidHead> {
        push(&mut self.text, bytes)
    }

    /// Takes in a text byte by byte.
    pub fn push_bytes(&mut self, bytes: impl Iterator<Item = u8>) -> Result<Span, InvalidHead> {
        let start = u32::try_from(self.text.len()).map_err(|_| InvalidHead::TooLong)?;
        self.text.extend(bytes);
        let end = u32::try_from(self.text.len()).map_err(|_| InvalidHead::TooLong)?;
        Ok(Span { start, end })
    }

    /// The span of `inner`, when the whole of `inner` lies `offset` bytes into `outer`.
    pub fn sub_span(&self, outer: Span, offset: usize, length: usize) -> Result<Span, InvalidHead> {
        let start = u32::try_from(offset).ok().and_then(|o| outer.start.checked_add(o));
        let end = u32::try_from(length).ok().zip(start).and_then(|(l, s)| s.checked_add(l));
        match (start, end) {
            (Some(start), Some(end)) if end <= outer.end => Ok(Span { start, end }),
            _ => Err(InvalidHead::TooLong),
        }
    }

    /// Sets the method, for example `GET`.
    pub fn set_method(&mut self, span: Span) {
        self.method = span;
    }

    /// Sets the request target exactly as it came.
    pub fn set_target(&mut self, span: Span) {
        self.target = span;
    }

    /// Sets where the application is mounted.
    pub fn set_script_name(&mut self, span: Span) {
        self.script_name = span;
    }

    /// Says which part of the script name, its beginning, is what a proxy took off.
    pub fn set_prefix(&mut self, span: Span) {
        self.prefix = span;
    }

    /// Sets the percent-decoded path.
    pub fn set_path(&mut self, span: Span) {
        self.path = span;
    }

    /// Sets the query without its `?`.
    pub fn set_query(&mut self, span: Span) {
        self.query = span;
    }

    /// Sets the authority: of an absolute-form target, else of the Host field (RFC 9112 section 3.2.2).
    pub fn set_authority(&mut self, span: Span) {
        self.authority = span;
    }

    /// Sets the protocol version.
    pub fn set_version(&mut self, version: Version) {
        self.version = version;
    }

    /// Adds a field line. Order is kept; names may repeat.
    pub fn push_field(&mut self, name: Span, value: Span) {
        self.fields.push((name, value));
    }

    /// Adds a variable of a front server.
    pub fn push_variable(&mut self, name: Span, value: Span) {
        self.variables.push((name, value));
    }

    /// Removes the fields whose names are not wanted.
    pub fn retain_fields(&mut self, wanted: impl Fn(&[u8]) -> bool) {
        let text = &self.text;
        self.fields.retain(|(name, _)| wanted(name.of(text)));
    }

    /// Removes the variables whose names are not wanted.
    pub fn retain_variables(&mut self, wanted: impl Fn(&[u8]) -> bool) {
        let text = &self.text;
        self.variables.retain(|(name, _)| wanted(name.of(text)));
    }

    /// The method, for example `GET`.
    pub fn method(&self) -> &[u8] {
        self.method.of(&self.text)
    }

    /// The request target exactly as it came: `/a%20b?c`, `*`, or absolute-form.
    pub fn target(&self) -> &[u8] {
        self.target.of(&self.text)
    }

    /// The path and the query of the target as they came, if the application sees no others: a front server may have
    /// rewritten them. The [prefix](Self::prefix) is not in them.
    pub fn own_target(&self) -> Option<&[u8]> {
        let target = std::str::from_utf8(self.target()).ok()?;
        let own = if target.starts_with('/') {
            target
        } else {
            // absolute-form (RFC 9112 section 3.2.2); the authority ends at the first of these (RFC 3986 section 3.2).
            let (_, rest) = target.split_once("://")?;
            rest.get(rest.find(['/', '?'])?..)?
        };
        let (path, query) = own.split_once('?').unwrap_or((own, ""));
        let below = self.script_name().strip_prefix(self.prefix())?;
        let seen = [below, self.path()].concat();
        let is_own = query.as_bytes() == self.query()
            && match path.contains('%') {
                true => target::percent_decode(path).is_ok_and(|path| path == seen),
                false => path.as_bytes() == seen,
            };
        is_own.then_some(own.as_bytes())
    }

    /// Where the application is mounted, percent-decoded; empty at the root. It precedes [`path`](Self::path).
    pub fn script_name(&self) -> &[u8] {
        self.script_name.of(&self.text)
    }

    /// The beginning of the [script name](Self::script_name) that a proxy took off the path before it came here.
    pub fn prefix(&self) -> &[u8] {
        self.prefix.of(&self.text)
    }

    /// The percent-decoded path; `*` for `OPTIONS *`.
    pub fn path(&self) -> &[u8] {
        self.path.of(&self.text)
    }

    /// The query without its `?`, still encoded; empty when there is none.
    pub fn query(&self) -> &[u8] {
        self.query.of(&self.text)
    }

    /// Host and optional port that the client asked for; empty when it named none (HTTP/1.0).
    pub fn authority(&self) -> &[u8] {
        self.authority.of(&self.text)
    }

    /// The protocol version that the client spoke.
    pub fn version(&self) -> Version {
        self.version
    }

    /// Field lines in the order they came: name as sent, value without surrounding white space.
    pub fn fields(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.fields.iter().map(|(name, value)| (name.of(&self.text), value.of(&self.text)))
    }

    /// The value of the first field of that name, in any case.
    pub fn field(&self, name: &str) -> Option<&[u8]> {
        self.fields().find(|(n, _)| n.eq_ignore_ascii_case(name.as_bytes())).map(|(_, value)| value)
    }

    /// Variables that a front server added, such as `REMOTE_USER`, in order; names may repeat.
    pub fn variables(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.variables.iter().map(|(name, value)| (name.of(&self.text), value.of(&self.text)))
    }

    /// Bytes of memory that the head keeps for its next use.
    pub fn capacity_bytes(&self) -> usize {
        self.text.capacity() + self.fields.capacity() * size_of::<(Span, Span)>()
    }
}

/// One response's head as the application gave it, checked: nothing in it can split a message. Its text has fields as
/// HTTP/1.1 sends them, so that those that were added one after the other are sent in one go.
#[derive(Clone, Debug, Default)]
pub struct ResponseHead {
    text: Vec<u8>,
    status: u16,
    reason: Span,
    fields: Vec<(Span, Span)>,
}

impl ResponseHead {
    /// An empty head, which holds no memory.
    pub const fn new() -> Self {
        ResponseHead { text: Vec::new(), status: 0, reason: Span { start: 0, end: 0 }, fields: Vec::new() }
    }

    /// Becomes a copy of another, in the memory that it has.
    pub fn copy(&mut self, other: &ResponseHead) {
        self.text.clone_from(&other.text);
        self.fields.clone_from(&other.fields);
        self.status = other.status;
        self.reason = other.reason;
    }

    /// Forgets everything but keeps the memory.
    pub fn clear(&mut self) {
        self.text.clear();
        self.fields.clear();
        self.status = 0;
        self.reason = Span::default();
    }

    /// Sets the status from what PEP 3333 calls the status string: three digits, a space, a reason (`"200 OK"`). The
    /// space and reason may be missing, as RFC 9112 section 4 lets the reason be empty.
    ///
    /// Errors: not three digits, a number outside 100..=999, control characters in the reason (obs-text is allowed).
    pub fn set_status_line(&mut self, line: &[u8]) -> Result<(), InvalidHead> {
        if line == b"200 OK" {
            self.status = 200;
            self.reason = push(&mut self.text, b"OK")?;
            return Ok(());
        }
        let (digits, rest) = line.split_at_checked(3).ok_or(InvalidHead::Status)?;
        if !digits.iter().all(u8::is_ascii_digit) || digits.first() == Some(&b'0') {
            return Err(InvalidHead::Status);
        }
        let reason = match rest.split_first() {
            None => &[][..],
            Some((b' ', reason)) => reason,
            Some(_) => return Err(InvalidHead::Status),
        };
        if !is_value(reason) {
            return Err(InvalidHead::Status);
        }
        self.status = digits.iter().fold(0, |number, digit| number * 10 + u16::from(digit - b'0'));
        self.reason = push(&mut self.text, reason)?;
        Ok(())
    }

    /// Adds a field line.
    ///
    /// Errors: a name that is no token (RFC 9110 section 5.1), a value with control characters or surrounding white
    /// space removed that still holds CR, LF or NUL (section 5.5). Nothing is added then.
    pub fn push_field(&mut self, name: &[u8], value: &[u8]) -> Result<(), InvalidHead> {
        let field = self.push_pair(name, value)?;
        self.fields.push(field);
        Ok(())
    }

    /// Adds the fields of another head, behind its own. They were checked when they were added there.
    ///
    /// Errors: the text would be longer than 4 GB. Nothing is added then.
    pub fn append_fields(&mut self, other: &ResponseHead) -> Result<(), InvalidHead> {
        let offset = push(&mut self.text, &other.text)?.start;
        let moved = |span: &Span| Span { start: span.start + offset, end: span.end + offset };
        self.fields.extend(other.fields.iter().map(|(name, value)| (moved(name), moved(value))));
        Ok(())
    }

    /// Makes `value` the only one of the field `name`, in the place of the first one or at the end.
    ///
    /// Errors: as [`push_field`](Self::push_field). Nothing is changed then.
    pub fn set_field(&mut self, name: &[u8], value: &[u8]) -> Result<(), InvalidHead> {
        let field = self.push_pair(name, value)?;
        let text = &self.text;
        let mut place = Some(field);
        self.fields.retain_mut(|old| {
            if !old.0.of(text).eq_ignore_ascii_case(name) {
                return true;
            }
            // The first one becomes the new one, whatever comes after it goes.
            place.take().map(|new| *old = new).is_some()
        });
        self.fields.extend(place);
        Ok(())
    }

    /// Removes every field of that name, in any case.
    pub fn remove_field(&mut self, name: &str) {
        let text = &self.text;
        self.fields.retain(|(n, _)| !n.of(text).eq_ignore_ascii_case(name.as_bytes()));
    }

    /// The status code, 100..=999; 0 before it was set.
    pub fn status(&self) -> u16 {
        self.status
    }

    /// The reason phrase; may be empty.
    pub fn reason(&self) -> &[u8] {
        self.reason.of(&self.text)
    }

    /// Whether there is no field.
    pub fn is_empty(&self) -> bool {
        self.fields.is_empty()
    }

    /// Field lines in the order they were added.
    pub fn fields(&self) -> impl ExactSizeIterator<Item = (&[u8], &[u8])> {
        self.fields.iter().map(|(name, value)| (name.of(&self.text), value.of(&self.text)))
    }

    /// The same, each with the place of its line, from the name to the end of the line.
    pub(crate) fn lines(&self) -> impl ExactSizeIterator<Item = (&[u8], &[u8], Span)> {
        self.fields.iter().map(|(name, value)| {
            let line = Span { start: name.start, end: value.end + LINE_END_BYTES };
            (name.of(&self.text), value.of(&self.text), line)
        })
    }

    /// The text at the place of lines.
    pub(crate) fn text(&self, lines: Span) -> &[u8] {
        lines.of(&self.text)
    }

    /// The value of the first field of that name, in any case.
    pub fn field(&self, name: &str) -> Option<&[u8]> {
        self.fields().find(|(n, _)| n.eq_ignore_ascii_case(name.as_bytes())).map(|(_, value)| value)
    }

    /// Whether the body is a stream of events, each of which its client waits for (server-sent events).
    pub fn is_event_stream(&self) -> bool {
        const TYPE: &[u8] = b"text/event-stream";
        let begin = self.field("content-type").and_then(|value| value.get(..TYPE.len()));
        begin.is_some_and(|begin| begin.eq_ignore_ascii_case(TYPE))
    }

    /// Whether there is a field of that name, in any case.
    pub fn has_field(&self, name: &str) -> bool {
        self.field(name).is_some()
    }

    /// Takes in a name and a value, checked, but makes no field of them yet.
    fn push_pair(&mut self, name: &[u8], value: &[u8]) -> Result<(Span, Span), InvalidHead> {
        if name.is_empty() || !is_token(name) {
            return Err(InvalidHead::FieldName);
        }
        if !is_value(value) {
            return Err(InvalidHead::FieldValue);
        }
        let value = value.trim_ascii();
        self.text.reserve(name.len() + SEPARATOR.len() + value.len() + LINE_END.len());
        let name = push(&mut self.text, name)?;
        self.text.extend_from_slice(SEPARATOR);
        let value = push(&mut self.text, value)?;
        value.end.checked_add(LINE_END_BYTES).ok_or(InvalidHead::TooLong)?;
        self.text.extend_from_slice(LINE_END);
        Ok((name, value))
    }
}

/// Between the name and the value of a field (RFC 9112 section 5).
const SEPARATOR: &[u8] = b": ";
/// The end of a field's line
const LINE_END: &[u8] = b"\r\n";
/// and its length.
const LINE_END_BYTES: u32 = 2;

fn push(text: &mut Vec<u8>, bytes: &[u8]) -> Result<Span, InvalidHead> {
    let start = u32::try_from(text.len()).map_err(|_| InvalidHead::TooLong)?;
    let end = u32::try_from(text.len() + bytes.len()).map_err(|_| InvalidHead::TooLong)?;
    text.extend_from_slice(bytes);
    Ok(Span { start, end })
}

/// Whether each byte may stand in a token. Every byte of every field name is looked up here.
#[expect(clippy::indexing_slicing, reason = "in a constant an index out of range does not compile")]
const TOKEN_BYTES: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0_u8;
    while byte < 128 {
        // `tchar` of RFC 9110 section 5.6.2.
        table[byte as usize] = matches!(
            byte,
            b'!' | b'#'..=b'\'' | b'*' | b'+' | b'-' | b'.' | b'^' | b'_' | b'`' | b'|' | b'~'
        ) || byte.is_ascii_alphanumeric();
        byte += 1;
    }
    table
};

/// Whether a byte may stand in a token (`tchar` of RFC 9110 section 5.6.2).
pub fn is_token_byte(byte: u8) -> bool {
    TOKEN_BYTES.get(usize::from(byte)).copied().unwrap_or_default()
}

/// Whether all bytes may stand in a token. All are looked at: names are hardly ever wrong.
fn is_token(bytes: &[u8]) -> bool {
    bytes.iter().fold(true, |good, &byte| good & is_token_byte(byte))
}

/// What a field value may hold (RFC 9110 section 5.5): HTAB, SP, VCHAR, obs-text. No other control character.
pub fn is_value_byte(byte: u8) -> bool {
    byte == b'\t' || (byte >= b' ' && byte != 0x7f)
}

/// Whether all bytes may stand in a field value. All are looked at, many at a time: values are hardly ever wrong.
pub fn is_value(bytes: &[u8]) -> bool {
    bytes.iter().fold(true, |good, &byte| good & is_value_byte(byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_line_needs_three_digits() {
        let mut head = ResponseHead::default();
        for good in ["200 OK", "200 ", "200", "999 Odd", "404 N\u{e9}"] {
            head.set_status_line(good.as_bytes()).unwrap();
        }
        for bad in
            ["", "20", "20 OK", "2000 OK", "099 Low", "abc", "200OK", "200 a\r\nb", "200 \x7f", "+20 OK"]
        {
            assert!(head.set_status_line(bad.as_bytes()).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn response_fields_cannot_split_a_message() {
        let mut head = ResponseHead::default();
        head.push_field(b"X-A", b" a\tb ").unwrap();
        assert_eq!(head.field("x-a"), Some(&b"a\tb"[..]));
        for (name, value) in [
            ("X A", "b"),
            ("", "b"),
            ("X:", "b"),
            ("X", "a\r\nY: b"),
            ("X", "a\nb"),
            ("X", "\0"),
            ("X\u{e9}", "a"),
        ] {
            assert!(head.push_field(name.as_bytes(), value.as_bytes()).is_err(), "{name:?} {value:?}");
        }
        assert_eq!(head.fields().count(), 1);
    }

    #[test]
    fn a_field_that_is_set_is_the_only_one() {
        let mut head = ResponseHead::new();
        for (name, value) in [("Vary", "A"), ("ETag", "1"), ("vary", "B"), ("X", "y")] {
            head.push_field(name.as_bytes(), value.as_bytes()).unwrap();
        }
        head.set_field(b"VARY", b" C ").unwrap();
        head.set_field(b"Z", b"z").unwrap();
        let fields: Vec<_> = head.fields().collect();
        let expected: [(&[u8], &[u8]); 4] = [(b"VARY", b"C"), (b"ETag", b"1"), (b"X", b"y"), (b"Z", b"z")];
        assert_eq!(fields, expected);
    }

    #[test]
    fn setting_a_field_checks_as_pushing_does() {
        let mut head = ResponseHead::new();
        head.push_field(b"X", b"a").unwrap();
        assert_eq!(head.set_field(b"X", b"a\r\nY: b"), Err(InvalidHead::FieldValue));
        assert_eq!(head.set_field(b"X Y", b"a"), Err(InvalidHead::FieldName));
        assert_eq!(head.fields().collect::<Vec<_>>(), [(&b"X"[..], &b"a"[..])]);
    }

    #[test]
    fn removing_a_field_takes_all_of_its_name() {
        let mut head = ResponseHead::new();
        for name in ["A", "B", "a", "AB"] {
            head.push_field(name.as_bytes(), b"1").unwrap();
        }
        assert!(head.has_field("a"));
        head.remove_field("a");
        head.remove_field("missing");
        assert!(!head.has_field("A"));
        assert_eq!(head.fields().map(|(name, _)| name).collect::<Vec<_>>(), [&b"B"[..], &b"AB"[..]]);
    }

    #[test]
    fn sub_span_stays_inside() {
        let mut head = RequestHead::default();
        let all = head.push_text(b"GET /a").unwrap();
        let target = head.sub_span(all, 4, 2).unwrap();
        head.set_target(target);
        assert_eq!(head.target(), b"/a");
        assert!(head.sub_span(all, 4, 3).is_err());
        assert!(head.sub_span(all, usize::MAX, 1).is_err());
    }
}
