//! What a request is called, so that what different programs say of it can be put together: an identifier of ours or of
//! a trusted peer (`X-Request-ID`), and a trace context (<https://www.w3.org/TR/trace-context/>).

use std::cell::RefCell;
use std::mem;
use std::ops::Range;
use std::sync::Arc;

use anygate_proto::head::{RequestHead, ResponseHead};

use crate::spans::context::{TRACESTATE, TraceParent, remove, trace_digits};

const REQUEST_ID: &str = "X-Request-ID";
/// Longest identifier that is accepted.
const ID_MAX_BYTES: usize = 128;
/// Digits of a trace.
const TRACE_DIGITS: usize = 32;

/// Rules for identifiers and trace contexts.
#[derive(Clone, Copy, Debug)]
pub(super) struct Identity {
    has_id: bool,
    has_trace: bool,
    /// A random number that tells this process from all others, and from the one that it was forked from.
    process: u64,
}

/// Identifier and trace context of one request, which has at least one of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Names {
    /// Both, as messages of the error log show them: `request{id="..." trace="..."}`.
    text: Arc<str>,
    /// Place of the identifier in the text, which is empty if there is none.
    id: Range<usize>,
}

impl Identity {
    /// Names requests in this process.
    pub(super) fn new(has_id: bool, has_trace: bool) -> Identity {
        let mut process = [0; 8];
        let is_random = (has_id || has_trace) && getrandom::fill(&mut process).is_ok();
        let process = if is_random { u64::from_ne_bytes(process) } else { std::process::id().into() };
        Identity { has_id, has_trace, process }
    }

    /// Names a request, and tells the application in its fields. `None` if names are not wanted.
    pub(super) fn identify(self, head: &mut RequestHead, is_trusted: bool) -> Option<Names> {
        if !self.has_id && !self.has_trace {
            return None;
        }
        let mut text = NamesText::new();
        let mut id = 0..0;
        if self.has_id {
            let given = head.field(REQUEST_ID);
            id = match given.filter(|id| is_trusted && is_id(id)) {
                Some(given) => text.add(b"id=\"", given),
                None => text.add(b"id=\"", &trace_digits(u128::from_ne_bytes(self.random()))),
            };
            if given.is_some() {
                remove(head, REQUEST_ID);
            }
            push(head, REQUEST_ID, text.get(&id));
        }
        if self.has_trace {
            let context = TraceParent::of(head).unwrap_or_else(|| {
                let (trace, span) = (u128::from_ne_bytes(self.random()), u64::from_ne_bytes(self.random()));
                // The recorder decides whether this one is sampled.
                let own = TraceParent { trace: trace.max(1), span: span.max(1), is_sampled: false };
                own.put(head);
                // Section 3.3: without a valid parent the state means nothing.
                remove(head, TRACESTATE);
                own
            });
            text.add(b"trace=\"", &trace_digits(context.trace));
        }
        Some(Names { text: text.end(), id })
    }

    /// Returns random bytes that no request had before.
    fn random<const COUNT: usize>(self) -> [u8; COUNT] {
        RANDOMNESS.with_borrow_mut(|randomness| randomness.take(self.process))
    }

    /// What a request was called.
    pub(super) fn of(self, head: &RequestHead) -> Option<&str> {
        let id = head.field(REQUEST_ID).filter(|id| self.has_id && is_id(id))?;
        std::str::from_utf8(id).ok()
    }
}

impl Names {
    /// Both names, as messages show them.
    pub(super) fn text(&self) -> &Arc<str> {
        &self.text
    }

    /// The identifier.
    pub(super) fn id(&self) -> Option<&str> {
        self.text.get(self.id.clone()).filter(|id| !id.is_empty())
    }

    /// Tells the client, unless the application has.
    pub(super) fn apply(&self, head: &mut ResponseHead) {
        if let Some(id) = self.id()
            && !head.has_field("x-request-id")
        {
            let pushed = head.push_field(REQUEST_ID.as_bytes(), id.as_bytes());
            debug_assert!(pushed.is_ok(), "it was checked");
        }
    }
}

/// The text of names as it grows, which needs no memory of its own before it is complete.
struct NamesText {
    bytes: [u8; Self::BYTES_MAX],
    length: usize,
}

impl NamesText {
    const BEGIN: &str = "request{";
    const BYTES_MAX: usize = Self::BEGIN.len() + "id=\"\" trace=\"\"}".len() + ID_MAX_BYTES + TRACE_DIGITS;

    fn new() -> NamesText {
        let mut text = NamesText { bytes: [0; Self::BYTES_MAX], length: 0 };
        text.push(Self::BEGIN.as_bytes());
        text
    }

    /// Adds a name, none of whose characters would have to be escaped, behind what begins it. Returns its place.
    fn add(&mut self, begin: &[u8], name: &[u8]) -> Range<usize> {
        if self.length > Self::BEGIN.len() {
            self.push(b" ");
        }
        self.push(begin);
        let start = self.length;
        self.push(name);
        let end = self.length;
        self.push(b"\"");
        start..end
    }

    fn get(&self, place: &Range<usize>) -> &[u8] {
        self.bytes.get(place.clone()).unwrap_or_default()
    }

    fn end(mut self) -> Arc<str> {
        self.push(b"}");
        // Names are ASCII.
        std::str::from_utf8(self.get(&(0..self.length))).unwrap_or_default().into()
    }

    fn push(&mut self, part: &[u8]) {
        let end = self.length + part.len();
        if let Some(place) = self.bytes.get_mut(self.length..end) {
            place.copy_from_slice(part);
            self.length = end;
        }
    }
}

/// Adds a field. A head that is too long stays without.
fn push(head: &mut RequestHead, name: &str, value: &[u8]) {
    if let (Ok(name), Ok(value)) = (head.push_text(name.as_bytes()), head.push_text(value)) {
        head.push_field(name, value);
    }
}

/// Nothing that could mean something to a log, a page or a header.
fn is_id(id: &[u8]) -> bool {
    (1..=ID_MAX_BYTES).contains(&id.len())
        && id.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-_.:+/=".contains(byte))
}

/// Random bytes of a thread, of which the system is asked for many at a time.
struct Randomness {
    bytes: [u8; RANDOM_BYTES],
    used: usize,
    /// The process that asked: one that was forked from it would have the same.
    process: u64,
}

/// Random bytes that the system is asked for at a time.
const RANDOM_BYTES: usize = 1024;

thread_local! {
    static RANDOMNESS: RefCell<Randomness> =
        const { RefCell::new(Randomness { bytes: [0; RANDOM_BYTES], used: RANDOM_BYTES, process: 0 }) };
}

impl Randomness {
    /// Bytes that no request had before; at most [`RANDOM_BYTES`]. What a process has from the one that it was forked from
    /// is not taken.
    fn take<const COUNT: usize>(&mut self, process: u64) -> [u8; COUNT] {
        if self.used + COUNT > RANDOM_BYTES || self.process != process {
            // The system's generator does not fail once it is seeded (getrandom(2)).
            if getrandom::fill(&mut self.bytes).is_err() {
                self.bytes.fill(1);
            }
            (self.used, self.process) = (0, process);
        }
        let bytes = self.bytes.get_mut(self.used..).and_then(<[u8]>::first_chunk_mut);
        self.used += COUNT;
        // Memory does not tell what a request was called.
        bytes.map_or([0; COUNT], |bytes| mem::replace(bytes, [0; COUNT]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures;
    use crate::spans::context::TRACEPARENT;

    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    /// The trace of a request.
    fn trace(names: &Names) -> Option<&str> {
        names.text().split_once("trace=\"")?.1.strip_suffix("\"}")
    }

    #[test]
    fn an_identifier_is_made_or_believed() {
        let both = Identity::new(true, true);
        for (given, is_trusted, is_kept) in [
            ("abc-1", true, true),
            (&"x".repeat(128), true, true),
            ("abc-1", false, false),
            ("a b", true, false),
            ("", true, false),
            ("<script>", true, false),
            (&"x".repeat(129), true, false),
        ] {
            let mut head = fixtures::request("GET", "/", &[("x-request-id", given)]);
            let names = both.identify(&mut head, is_trusted).unwrap();
            let (id, trace) = (names.id().unwrap(), trace(&names).unwrap());
            assert_eq!(id == given, is_kept, "{given}");
            assert_eq!(both.of(&head), Some(id));
            assert_eq!(**names.text(), format!("request{{id=\"{id}\" trace=\"{trace}\"}}"));
            assert_eq!(
                head.fields().filter(|(name, _)| name.eq_ignore_ascii_case(b"x-request-id")).count(),
                1
            );
            let mut response = fixtures::response("200 OK", &[]);
            names.apply(&mut response);
            names.apply(&mut response);
            assert_eq!(fixtures::field(&response, "x-request-id"), Some(id));
        }
        let of_none = |identity: Identity| identity.identify(&mut fixtures::request("GET", "/", &[]), true);
        assert_ne!(of_none(both).unwrap().id(), of_none(both).unwrap().id());
        let id = of_none(Identity::new(true, false)).unwrap();
        assert_eq!((id.id().map(str::len), trace(&id)), (Some(32), None));
        let traced = of_none(Identity::new(false, true)).unwrap();
        assert_eq!((traced.id(), trace(&traced).map(str::len)), (None, Some(32)));
        assert!(of_none(Identity::new(false, false)).is_none());
    }

    #[test]
    fn no_two_requests_have_the_same_name() {
        let identity = Identity::new(true, true);
        let random =
            move || String::from_utf8(trace_digits(u128::from_ne_bytes(identity.random())).to_vec()).unwrap();
        let names: std::collections::HashSet<String> = (0..1000).map(|_| random()).collect();
        assert_eq!(names.len(), 1000);
        assert!(names.iter().all(|name| name.len() == 32
            && TraceParent::parse(format!("00-{name}-{:016}-00", 1).as_bytes()).is_some()));
        let elsewhere = std::thread::spawn(random).join().unwrap();
        assert!(!names.contains(&elsewhere));
    }

    #[test]
    fn a_process_takes_none_of_the_bytes_of_the_one_that_it_was_forked_from() {
        let (parent, child) = (Identity::new(true, false), Identity::new(true, false));
        let mut inherited = Randomness { bytes: [7; RANDOM_BYTES], used: 0, process: parent.process };
        assert_eq!(inherited.take(parent.process), [7; 16]);
        assert_ne!(inherited.take(child.process), [7; 16]);
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
            let names = Identity::new(true, true).identify(&mut head, false).unwrap();
            let told = head.field(TRACEPARENT).unwrap();
            let named = TraceParent::parse(told).map(|told| format!("{:032x}", told.trace));
            assert_eq!(named.as_deref(), trace(&names), "{given}");
            assert_eq!(told == given.as_bytes(), is_kept, "{given}");
            assert_eq!(head.field(TRACESTATE).is_some(), is_kept, "{given}");
        }
    }
}
