//! WebSocket frames: no input panics, and a split anywhere means the same.
#![no_main]

use anygate_proto::websocket::deflate::{self, Preference};
use anygate_proto::websocket::{Decoder, Error, Event, Kind, Limits};
use libfuzzer_sys::fuzz_target;

fn decode(pieces: &[&[u8]], compression: bool, limits: Limits) -> (Vec<Event>, Option<Error>) {
    let offer = deflate::negotiate([&b"permessage-deflate"[..]].into_iter(), &Preference::default());
    let mut decoder = Decoder::new(limits, offer.as_ref().filter(|_| compression));
    let mut events = Vec::new();
    for piece in pieces {
        let mut rest = *piece;
        while !rest.is_empty() {
            match decoder.decode(rest) {
                Ok(step) => {
                    assert!(step.event.is_some() || step.consumed == rest.len());
                    rest = &rest[step.consumed..];
                    events.extend(step.event);
                }
                Err(error) => return (events, Some(error)),
            }
        }
    }
    (events, None)
}

fuzz_target!(|data: &[u8]| {
    let [options, cut, wire @ ..] = data else { return };
    let compression = options & 1 == 1;
    let limits = Limits { message_max_bytes: 1 << (options >> 4), fragments_max: 20 };
    let whole = decode(&[wire], compression, limits);
    let cut = usize::from(*cut).min(wire.len());
    assert_eq!(decode(&[&wire[..cut], &wire[cut..]], compression, limits), whole);
    assert_eq!(decode(&wire.chunks(1).collect::<Vec<_>>(), compression, limits), whole);
    for event in whole.0 {
        match event {
            Event::Message(message) => {
                assert!(message.data.len() <= limits.message_max_bytes);
                assert!(message.kind == Kind::Binary || std::str::from_utf8(&message.data).is_ok());
            }
            Event::Ping(payload) | Event::Pong(payload) => assert!(payload.len() <= 125),
            Event::Close(close) => assert!(close.reason.len() <= 123),
        }
    }
});
