//! What a request is called, so that what different programs say of it can be put together: an identifier of ours or of
//! a trusted peer (`X-Request-ID`), and a trace context (<https://www.w3.org/TR/trace-context/>).

use std::cell::RefCell;

use anygate_proto::head::{RequestHead, ResponseHead};

const REQUEST_ID: &str = "X-Request-ID";
const TRACEPARENT: &str = "traceparent";
const TRACESTATE: &str = "tracestate";
/// Longest identifier that is accepted.
const ID_MAX_BYTES: usize = 128;

/// Rules for identifiers and trace contexts.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Identity {
    pub(super) has_id: bool,
    pub(super) has_trace: bool,
}

/// Identifier and trace context of one request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Names {
    /// Its identifier.
    pub(super) id: Option<String>,
    /// The trace that it belongs to: 32 hexadecimal digits.
    pub(super) trace: Option<String>,
}

impl Identity {
    /// Names a request, and tells the application in its fields. `None` if names are not wanted.
    pub(super) fn identify(self, head: &mut RequestHead, is_trusted: bool) -> Option<Names> {
        if !self.has_id && !self.has_trace {
            return None;
        }
        let mut names = Names::default();
        if self.has_id {
            let given = head.field(REQUEST_ID).filter(|id| is_trusted && is_id(id));
            let id = given.map_or_else(random::<16>, |id| String::from_utf8_lossy(id).into_owned());
            replace(head, REQUEST_ID, &id);
            names.id = Some(id);
        }
        if self.has_trace {
            let known = head.field(TRACEPARENT).and_then(trace_id);
            names.trace = Some(known.unwrap_or_else(|| {
                let trace = random::<16>();
                // The recorder decides whether this one is sampled.
                replace(head, TRACEPARENT, &format!("00-{trace}-{}-00", random::<8>()));
                // Section 3.3: without a valid parent the state means nothing.
                head.retain_fields(|name| !name.eq_ignore_ascii_case(TRACESTATE.as_bytes()));
                trace
            }));
        }
        Some(names)
    }

    /// What a request was called.
    pub(super) fn of(self, head: &RequestHead) -> Option<&str> {
        let id = head.field(REQUEST_ID).filter(|id| self.has_id && is_id(id))?;
        std::str::from_utf8(id).ok()
    }
}

impl Names {
    /// Tells the client, unless the application has.
    pub(super) fn apply(&self, head: &mut ResponseHead) {
        if let Some(id) = &self.id
            && !head.has_field("x-request-id")
        {
            let pushed = head.push_field(REQUEST_ID.as_bytes(), id.as_bytes());
            debug_assert!(pushed.is_ok(), "it was checked");
        }
    }
}

/// Makes `value` the only one of a field. A head that is too long stays without.
fn replace(head: &mut RequestHead, name: &str, value: &str) {
    head.retain_fields(|own| !own.eq_ignore_ascii_case(name.as_bytes()));
    if let (Ok(name), Ok(value)) = (head.push_text(name.as_bytes()), head.push_text(value.as_bytes())) {
        head.push_field(name, value);
    }
}

/// Nothing that could mean something to a log, a page or a header.
fn is_id(id: &[u8]) -> bool {
    (1..=ID_MAX_BYTES).contains(&id.len())
        && id.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-_.:+/=".contains(byte))
}

/// The trace of a valid traceparent (section 3.2.2): `00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01`. Later
/// versions may have more behind it.
fn trace_id(value: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(value).ok()?;
    let mut parts = text.split('-');
    let (version, trace, parent, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let is_hex = |part: &str, length: usize| {
        part.len() == length && part.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    };
    let is_something = |part: &str| part.bytes().any(|byte| byte != b'0');
    let is_valid = is_hex(version, 2)
        && version != "ff"
        && is_hex(trace, 32)
        && is_something(trace)
        && is_hex(parent, 16)
        && is_something(parent)
        && is_hex(flags, 2)
        && (version != "00" || parts.next().is_none());
    is_valid.then(|| trace.to_owned())
}

/// Random bytes of a thread, of which the system is asked for many at a time.
struct Randomness {
    bytes: [u8; RANDOM_BYTES],
    used: usize,
    /// The process that asked: one that was forked from it would have the same.
    process: u32,
}

/// Random bytes that the system is asked for at a time.
const RANDOM_BYTES: usize = 1024;

thread_local! {
    static RANDOMNESS: RefCell<Randomness> =
        const { RefCell::new(Randomness { bytes: [0; RANDOM_BYTES], used: RANDOM_BYTES, process: 0 }) };
}

impl Randomness {
    /// Bytes that no request had before, never all zero.
    fn take<const COUNT: usize>(&mut self) -> [u8; COUNT] {
        let process = std::process::id();
        if self.used + COUNT > RANDOM_BYTES || self.process != process {
            // The system's generator does not fail once it is seeded (getrandom(2)).
            if getrandom::fill(&mut self.bytes).is_err() {
                self.bytes.fill(1);
            }
            (self.used, self.process) = (0, process);
        }
        let mut taken = [0; COUNT];
        if let Some(bytes) = self.bytes.get_mut(self.used..self.used + COUNT) {
            taken.copy_from_slice(bytes);
            bytes.fill(0);
        }
        self.used += COUNT;
        if taken.iter().all(|&byte| byte == 0) { [1; COUNT] } else { taken }
    }
}

/// Returns `COUNT` random bytes as hexadecimal digits, never all zero.
fn random<const COUNT: usize>() -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let bytes: [u8; COUNT] = RANDOMNESS.with_borrow_mut(Randomness::take);
    let mut text = String::with_capacity(2 * COUNT);
    for byte in bytes {
        for digit in [byte >> 4, byte & 15] {
            text.extend(DIGITS.get(usize::from(digit)).map(|&digit| char::from(digit)));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures;

    const BOTH: Identity = Identity { has_id: true, has_trace: true };
    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn an_identifier_is_made_or_believed() {
        for (given, is_trusted, is_kept) in [
            ("abc-1", true, true),
            ("abc-1", false, false),
            ("a b", true, false),
            ("", true, false),
            ("<script>", true, false),
            (&"x".repeat(129), true, false),
        ] {
            let mut head = fixtures::request("GET", "/", &[("x-request-id", given)]);
            let names = BOTH.identify(&mut head, is_trusted).unwrap();
            let id = names.id.clone().unwrap();
            assert_eq!(id == given, is_kept, "{given}");
            assert_eq!(BOTH.of(&head), Some(id.as_str()));
            assert_eq!(
                head.fields().filter(|(name, _)| name.eq_ignore_ascii_case(b"x-request-id")).count(),
                1
            );
            let mut answer = fixtures::response("200 OK", &[]);
            names.apply(&mut answer);
            names.apply(&mut answer);
            assert_eq!(fixtures::field(&answer, "x-request-id"), Some(id.as_str()));
        }
        let id = || BOTH.identify(&mut fixtures::request("GET", "/", &[]), true).unwrap().id.unwrap();
        assert_ne!(id(), id());
        assert!(Identity::default().identify(&mut fixtures::request("GET", "/", &[]), true).is_none());
    }

    #[test]
    fn no_two_requests_have_the_same_name() {
        let names: std::collections::HashSet<String> = (0..1000).map(|_| random::<16>()).collect();
        assert_eq!(names.len(), 1000);
        assert!(
            names
                .iter()
                .all(|name| name.len() == 32
                    && trace_id(format!("00-{name}-{:016}-00", 1).as_bytes()).is_some())
        );
        let elsewhere = std::thread::spawn(random::<16>).join().unwrap();
        assert!(!names.contains(&elsewhere));
    }

    #[test]
    fn a_process_takes_none_of_the_bytes_of_the_one_that_it_was_forked_from() {
        let inherited = || Randomness { bytes: [7; RANDOM_BYTES], used: 0, process: 0 };
        assert_ne!(inherited().take::<16>(), [7; 16]);
        let mut own = Randomness { process: std::process::id(), ..inherited() };
        assert_eq!((own.take::<16>(), own.take::<8>()), ([7; 16], [7; 8]));
    }

    #[test]
    fn a_valid_trace_goes_on_and_another_begins_anew() {
        let later = format!("cc-{}-and-more", PARENT.strip_prefix("00-").unwrap());
        for (given, is_kept) in [
            (PARENT, true),
            (later.as_str(), true),
            (&format!("{PARENT}-x"), false),
            (&PARENT.replace("4bf9", "4BF9"), false),
            ("00-00000000000000000000000000000000-00f067aa0ba902b7-01", false),
            ("00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01", false),
            ("ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", false),
            ("nonsense", false),
        ] {
            let mut head = fixtures::request("GET", "/", &[(TRACEPARENT, given), (TRACESTATE, "a=b")]);
            let trace = BOTH.identify(&mut head, false).unwrap().trace.unwrap();
            let told = head.field(TRACEPARENT).unwrap();
            assert_eq!(trace_id(told), Some(trace), "{given}");
            assert_eq!(told == given.as_bytes(), is_kept, "{given}");
            assert_eq!(head.field(TRACESTATE).is_some(), is_kept, "{given}");
        }
    }
}
