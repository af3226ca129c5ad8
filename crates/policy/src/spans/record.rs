//! A span as bytes, which one process writes and another one reads: numbers, then texts with their lengths. What was written
//! by a process that is gone may be anything, so nothing of it is believed.

use anygate_proto::head::Version;

/// Longest texts, of which more is cut off.
const METHOD_MAX_BYTES: usize = 32;
const PATH_MAX_BYTES: usize = 256;
const HOST_MAX_BYTES: usize = 128;
const CLIENT_MAX_BYTES: usize = 64;
const USER_AGENT_MAX_BYTES: usize = 192;
const ROUTE_MAX_BYTES: usize = 128;
/// One that is longer is left out: a part of it means nothing.
const STATE_MAX_BYTES: usize = 512;

/// Moments of a request, as nanoseconds after its beginning.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moments {
    /// It was complete, and waited for a thread or greenlet.
    pub queued: Option<u64>,
    /// It had one, which waited for the interpreter lock.
    pub taken_up: Option<u64>,
    /// The application's own code began.
    pub entered: Option<u64>,
    /// The response began.
    pub first_byte: Option<u64>,
    /// The response ended.
    pub ended: u64,
}

/// How a response ended, beside its status.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing is missing.
    #[default]
    Whole,
    /// The application failed when the response had begun.
    BrokenOff,
}

/// One span. `T` is text: borrowed where it is written, owned where it was read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Record<T> {
    /// The trace.
    pub trace: u128,
    /// The span.
    pub span: u64,
    /// The span of the caller; 0 for none.
    pub parent: u64,
    /// Nanoseconds since 1970 at the beginning.
    pub begun: u64,
    /// When the rest happened.
    pub moments: Moments,
    /// Nanoseconds that a proxy had the request before.
    pub proxy_queue: Option<u64>,
    /// Bytes of the request's body.
    pub received: u64,
    /// Bytes of the response's body.
    pub sent: u64,
    /// Of the response.
    pub status: u16,
    /// Whether the response is whole.
    pub outcome: Outcome,
    /// The version that the client spoke.
    pub version: Version,
    /// Whether the client spoke TLS.
    pub https: bool,
    /// As sent.
    pub method: T,
    /// As sent, without its query.
    pub path: T,
    /// Host and port that the client asked for.
    pub host: T,
    /// The client's address.
    pub client: T,
    /// Its program.
    pub user_agent: T,
    /// The template of the path, if the application names it.
    pub route: T,
    /// What tracing systems added.
    pub state: T,
}

/// No such time.
const NEVER: u64 = u64::MAX;

impl Record<&[u8]> {
    /// Writes it into `bytes`, which are emptied before.
    pub(super) fn encode(&self, bytes: &mut Vec<u8>) {
        let Moments { queued, taken_up, entered, first_byte, ended } = self.moments;
        bytes.clear();
        bytes.extend_from_slice(&self.trace.to_le_bytes());
        for number in [self.span, self.parent, self.begun, ended, self.received, self.sent] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        for time in [queued, taken_up, entered, first_byte, self.proxy_queue] {
            bytes.extend_from_slice(&time.unwrap_or(NEVER).to_le_bytes());
        }
        bytes.extend_from_slice(&self.status.to_le_bytes());
        let version = match self.version {
            Version::Http10 => 0,
            Version::Http11 => 1,
            Version::Http2 => 2,
            Version::Http3 => 3,
        };
        let is_broken_off = u8::from(self.outcome == Outcome::BrokenOff);
        bytes.extend_from_slice(&[version, u8::from(self.https), is_broken_off]);
        let state = if self.state.len() > STATE_MAX_BYTES { &[] } else { self.state };
        for (text, longest) in [
            (self.method, METHOD_MAX_BYTES),
            (self.path, PATH_MAX_BYTES),
            (self.host, HOST_MAX_BYTES),
            (self.client, CLIENT_MAX_BYTES),
            (self.user_agent, USER_AGENT_MAX_BYTES),
            (self.route, ROUTE_MAX_BYTES),
            (state, STATE_MAX_BYTES),
        ] {
            let text = text.get(..longest).unwrap_or(text);
            bytes.extend_from_slice(&u16::try_from(text.len()).unwrap_or_default().to_le_bytes());
            bytes.extend_from_slice(text);
        }
    }
}

impl Record<String> {
    /// Reads one; `None` if it is none.
    pub fn decode(bytes: &[u8]) -> Option<Record<String>> {
        let mut rest = bytes;
        let mut number = || take::<8>(&mut rest).map(u64::from_le_bytes);
        // The lower half comes first.
        let trace = u128::from(number()?) | u128::from(number()?) << 64;
        let [span, parent, begun, ended, received, sent] =
            [number()?, number()?, number()?, number()?, number()?, number()?];
        let mut time = || number().map(|time| Some(time).filter(|&time| time != NEVER));
        let [queued, taken_up, entered, first_byte, proxy_queue] =
            [time()?, time()?, time()?, time()?, time()?];
        let status = u16::from_le_bytes(take(&mut rest)?);
        let [version, https, is_broken_off] = take(&mut rest)?;
        let mut text = || {
            let length = u16::from_le_bytes(take(&mut rest)?);
            let (text, after) = rest.split_at_checked(length.into())?;
            rest = after;
            Some(readable(text))
        };
        Some(Record {
            trace,
            span,
            parent,
            begun,
            moments: Moments { queued, taken_up, entered, first_byte, ended },
            proxy_queue,
            received,
            sent,
            status,
            outcome: if is_broken_off == 0 { Outcome::Whole } else { Outcome::BrokenOff },
            version: match version {
                0 => Version::Http10,
                1 => Version::Http11,
                2 => Version::Http2,
                _ => Version::Http3,
            },
            https: https != 0,
            method: text()?,
            path: text()?,
            host: text()?,
            client: text()?,
            user_agent: text()?,
            route: text()?,
            state: text()?,
        })
    }
}

fn take<const COUNT: usize>(bytes: &mut &[u8]) -> Option<[u8; COUNT]> {
    let (taken, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(*taken)
}

/// Text without what is left of a character at its end, and with a sign in place of all else that is none.
fn readable(text: &[u8]) -> String {
    match std::str::from_utf8(text) {
        Err(error) if error.error_len().is_none() => {
            String::from_utf8_lossy(text.get(..error.valid_up_to()).unwrap_or_default()).into_owned()
        }
        _ => String::from_utf8_lossy(text).into_owned(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::shared_memory::span_ring::RECORD_MAX_BYTES;

    fn round(record: &Record<&[u8]>) -> Record<String> {
        let mut bytes = b"what was there before".to_vec();
        record.encode(&mut bytes);
        assert!(bytes.len() <= RECORD_MAX_BYTES);
        Record::decode(&bytes).unwrap()
    }

    #[test]
    fn everything_comes_back() {
        let moments =
            Moments { queued: Some(1), taken_up: None, entered: Some(3), first_byte: Some(0), ended: 5 };
        let read = round(&Record {
            trace: 1 << 100 | 7,
            span: 8,
            parent: 9,
            begun: 10,
            moments,
            proxy_queue: Some(11),
            received: 12,
            sent: 13,
            status: 418,
            outcome: Outcome::BrokenOff,
            version: Version::Http2,
            https: true,
            method: b"BREW",
            path: b"/pot",
            host: b"a:1",
            client: b"::1",
            user_agent: "\u{e9}".as_bytes(),
            route: b"/<pot>",
            state: b"a=b",
        });
        assert_eq!((read.trace, read.span, read.parent, read.begun), (1 << 100 | 7, 8, 9, 10));
        assert_eq!((read.moments, read.proxy_queue, read.received, read.sent), (moments, Some(11), 12, 13));
        assert_eq!(
            (read.status, read.outcome, read.version, read.https),
            (418, Outcome::BrokenOff, Version::Http2, true)
        );
        let texts = [read.method, read.path, read.host, read.client, read.user_agent, read.route, read.state];
        assert_eq!(texts, ["BREW", "/pot", "a:1", "::1", "\u{e9}", "/<pot>", "a=b"]);
    }

    #[test]
    fn long_texts_are_cut_between_characters_and_a_long_state_is_left_out() {
        let long = "\u{20ac}".repeat(300);
        let long = long.as_bytes();
        let read = round(&Record {
            method: long,
            path: long,
            host: long,
            client: long,
            user_agent: long,
            route: long,
            state: long,
            ..Record::default()
        });
        assert_eq!(read.path.chars().filter(|&one| one == '\u{20ac}').count(), PATH_MAX_BYTES / 3);
        assert_eq!(read.path.len(), PATH_MAX_BYTES / 3 * 3);
        assert_eq!(read.state, "");
        assert_eq!(round(&Record { path: b"/\xff", ..Record::default() }).path, "/\u{fffd}");
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_record_or_none(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = Record::decode(&bytes);
        }
    }
}
