//! The corpus of WebSocket frames against the decoder: whole, byte by byte, in any two pieces, and in random pieces; and
//! the opening handshake.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "in a test a panic is the report")]

use anygate_proto::head::{RequestHead, ResponseHead, Version};
use anygate_proto::http1::HeadDecoder;
use anygate_proto::limits::Limits as HeadLimits;
use anygate_proto::websocket::deflate::{self, Agreed, Preference};
use anygate_proto::websocket::handshake::{self, Offer, Origins, Refusal};
use anygate_proto::websocket::{Close, Decoder, Encoder, Error, Event, Kind, Limits, Message};
use proptest::prelude::*;
use serde_json::{Value, json};

fn text(bytes: &[u8]) -> String {
    bytes.iter().map(|&byte| char::from(byte)).collect()
}

fn bytes(text: &str) -> Vec<u8> {
    text.chars().map(|character| u8::try_from(u32::from(character)).expect("the corpus is Latin-1")).collect()
}

fn agreed() -> Agreed {
    deflate::negotiate([&b"permessage-deflate"[..]].into_iter(), &Preference::default()).unwrap()
}

/// The events that bytes mean, and the error after them.
fn decode(pieces: &[&[u8]], compression: bool, limits: Limits) -> (Vec<Event>, Option<Error>) {
    let agreed = agreed();
    let mut decoder = Decoder::new(limits, compression.then_some(&agreed));
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
                Err(error) => {
                    assert_eq!(decoder.decode(rest), Err(error), "an error stays");
                    return (events, Some(error));
                }
            }
        }
    }
    (events, None)
}

fn corpus(kind: &str) -> Vec<Value> {
    let path = format!("{}/../../tests/corpus/websocket/{kind}.json", env!("CARGO_MANIFEST_DIR"));
    let cases: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    cases.as_array().unwrap().clone()
}

fn wire(case: &Value) -> (Vec<u8>, bool) {
    (bytes(case["wire"].as_str().unwrap()), case["deflate"] == true)
}

fn shown(events: &[Event]) -> Value {
    let shown = events.iter().map(|event| match event {
        Event::Message(Message { kind: Kind::Text, data }) => json!(["text", text(data)]),
        Event::Message(Message { kind: Kind::Binary, data }) => json!(["binary", text(data)]),
        Event::Ping(data) => json!(["ping", text(data)]),
        Event::Pong(data) => json!(["pong", text(data)]),
        Event::Close(Close { code, reason }) => json!(["close", code, text(reason.as_bytes())]),
    });
    shown.collect()
}

#[test]
fn valid_frames_mean_what_they_say() {
    for case in corpus("valid") {
        let (wire, compression) = wire(&case);
        let (events, error) = decode(&[&wire], compression, Limits::default());
        assert_eq!(error, None, "{}", case["name"]);
        assert_eq!(shown(&events), case["events"], "{}", case["name"]);
    }
}

#[test]
fn invalid_frames_are_refused_with_their_code() {
    for case in corpus("invalid") {
        let (wire, compression) = wire(&case);
        let (events, error) = decode(&[&wire], compression, Limits::default());
        assert_eq!(json!(error.map(Error::code)), case["code"], "{}", case["name"]);
        assert_eq!(shown(&events), case["events"], "{}", case["name"]);
    }
}

#[test]
fn two_pieces_mean_the_same_as_one_and_so_do_single_bytes() {
    for case in corpus("valid").into_iter().chain(corpus("invalid")) {
        let (wire, compression) = wire(&case);
        let whole = decode(&[&wire], compression, Limits::default());
        for cut in (0..wire.len()).filter(|cut| wire.len() < 300 || cut % 997 == 0) {
            let pieces = [&wire[..cut], &wire[cut..]];
            assert_eq!(
                decode(&pieces, compression, Limits::default()),
                whole,
                "{} cut at {cut}",
                case["name"]
            );
        }
        let single: Vec<&[u8]> = wire.chunks(1).collect();
        assert_eq!(decode(&single, compression, Limits::default()), whole, "{} byte by byte", case["name"]);
    }
}

#[test]
fn limits_are_exact() {
    let limits = Limits { message_max_bytes: 5, fragments_max: 3 };
    let decode = |wire: &[u8], compression| {
        let (events, error) = decode(&[wire], compression, limits);
        (events.len(), error)
    };
    assert_eq!(decode(b"\x81\x85\0\0\0\0Hello", false), (1, None));
    assert_eq!(decode(b"\x81\x86\0\0\0\0Hello!", false), (0, Some(Error::TooLong)));
    assert_eq!(decode(b"\x01\x83\0\0\0\0Hel\x80\x83\0\0\0\0lo!", false), (0, Some(Error::TooLong)));
    // What compression adds does not count, what comes out of it does.
    assert_eq!(decode(b"\xc1\x8b\0\0\0\0\0\x05\0\xfa\xffHello\0", true), (1, None));
    assert_eq!(decode(b"\xc1\x8c\0\0\0\0\0\x06\0\xf9\xffHello!\0", true), (0, Some(Error::TooLong)));
    let empty = b"\0\x80\0\0\0\0";
    let message = |count| [&b"\x01\x80\0\0\0\0"[..], &empty.repeat(count), b"\x80\x80\0\0\0\0"].concat();
    assert_eq!(decode(&message(1), false), (1, None));
    assert_eq!(decode(&message(2), false), (0, Some(Error::TooManyFragments)));
}

#[test]
fn messages_of_all_sizes_of_length_come_through() {
    for length in [0, 125, 126, 65_535, 65_536, 1 << 20] {
        let data = vec![b'z'; length];
        let mut room = Vec::new();
        let (head, payload) = Encoder::new(None).message(Kind::Text, &data, &mut room);
        let mut wire = head.as_ref().to_vec();
        wire[1] |= 0x80;
        wire.extend([0; 4]);
        wire.extend(payload);
        let message = Event::Message(Message { kind: Kind::Text, data });
        assert_eq!(decode(&[&wire], false, Limits::default()), (vec![message], None), "{length}");
    }
}

#[test]
fn a_decoder_between_messages_is_small() {
    assert!(size_of::<Decoder>() <= 200, "{}", size_of::<Decoder>());
    assert!(size_of::<Encoder>() <= 64, "{}", size_of::<Encoder>());
}

proptest! {
    /// Any bytes at all, cut anywhere: the same meaning, and no panic.
    #[test]
    fn any_split_of_any_bytes_means_the_same(
        case in 0usize..1000,
        mutations in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
        message_max_bytes in prop::sample::select(vec![10, 200, 1 << 20]),
    ) {
        let all: Vec<Value> = corpus("valid").into_iter().chain(corpus("invalid")).collect();
        let (mut wire, compression) = wire(&all[case % all.len()]);
        for (place, byte) in mutations {
            // Most of what can be wrong is near the beginning.
            let place = place.index(wire.len().min(64));
            wire[place] = byte;
        }
        let limits = Limits { message_max_bytes, ..Limits::default() };
        let whole = decode(&[&wire], compression, limits);
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(wire.len())).collect();
        cuts.sort_unstable();
        let mut pieces = Vec::new();
        let mut from = 0;
        for cut in cuts {
            pieces.push(&wire[from..cut]);
            from = cut;
        }
        pieces.push(&wire[from..]);
        prop_assert_eq!(decode(&pieces, compression, limits), whole);
    }

    /// What the encoder makes of a message is that message for a decoder, once it is masked.
    #[test]
    fn messages_come_out_as_they_went_in(
        data in prop::collection::vec(prop::sample::select(vec![0u8, 1, 7, 255]), 0..3000),
        key in any::<[u8; 4]>(),
    ) {
        let agreed = agreed();
        let mut encoder = Encoder::new(Some(&agreed));
        let mut room = Vec::new();
        let (head, payload) = encoder.message(Kind::Binary, &data, &mut room);
        let mut wire = head.as_ref().to_vec();
        wire[1] |= 0x80;
        wire.extend(key);
        wire.extend(payload.iter().zip(key.iter().cycle()).map(|(byte, mask)| byte ^ mask));
        let message = Event::Message(Message { kind: Kind::Binary, data });
        prop_assert_eq!(decode(&[&wire], true, Limits::default()), (vec![message], None));
    }
}

fn request(text: &str) -> RequestHead {
    let mut head = RequestHead::default();
    let decoded = HeadDecoder::default().decode(text.as_bytes(), &HeadLimits::default(), &mut head).unwrap();
    assert!(decoded.is_some(), "{text:?} is whole");
    head
}

/// The example of RFC 6455 section 1.3 with other fields.
fn ask(replace: &str, with: &str) -> RequestHead {
    let whole = "GET /chat HTTP/1.1\r\nHost: server.example.com\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
        Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nOrigin: http://server.example.com\r\n\
        Sec-WebSocket-Protocol: chat, superchat\r\nSec-WebSocket-Version: 13\r\n\r\n";
    assert!(whole.contains(replace), "{replace}");
    request(&whole.replace(replace, with))
}

fn check(head: &RequestHead) -> Result<Option<Offer>, Refusal> {
    handshake::check(head, &Origins::Same, Some(&Preference::default()))
}

#[test]
fn the_handshake_of_the_rfc_gets_the_response_there() {
    let head = ask("", "");
    let offer = check(&head).unwrap().unwrap();
    assert_eq!(offer.accept.as_deref(), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
    assert_eq!(handshake::protocols(&head).collect::<Vec<_>>(), [&b"chat"[..], b"superchat"]);
    let mut own = ResponseHead::default();
    own.push_field(b"X-Own", b"yes").unwrap();
    own.push_field(b"sec-webSocket-Accept", b"no").unwrap();
    let response = handshake::response(&own, &offer, Some(b"chat")).unwrap();
    assert_eq!((response.status(), response.fields().count()), (101, 3));
    assert_eq!(response.field("sec-websocket-accept"), Some(&b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="[..]));
    assert_eq!(response.field("sec-websocket-protocol"), Some(&b"chat"[..]));
    assert_eq!(response.field("sec-websocket-extensions"), None);
    assert!(handshake::response(&own, &offer, Some(b"a\r\nb")).is_err());
}

#[test]
fn a_request_that_asks_for_no_websocket_is_like_any_other() {
    for (replace, with) in [
        ("GET", "POST"),
        ("HTTP/1.1", "HTTP/1.0"),
        ("Upgrade: websocket", "Upgrade: h2c"),
        ("Upgrade: websocket", "Upgrade: websockets"),
        ("Connection: Upgrade", "Connection: keep-alive"),
    ] {
        assert_eq!(check(&ask(replace, with)), Ok(None), "{with}");
    }
}

#[test]
fn a_websocket_may_be_asked_for_in_many_ways() {
    for (replace, with) in [
        ("Upgrade: websocket", "upgrade: h2c, WebSocket"),
        ("Connection: Upgrade", "Connection: keep-alive,  upgrade"),
        ("Connection: Upgrade", "Connection: keep-alive\r\nConnection: upgrade"),
        ("Origin: http://server.example.com\r\n", ""),
        ("dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZSBub25jZR=="),
        ("Version: 13", "Version: 13\r\nSec-WebSocket-Extensions: unheard-of"),
    ] {
        let offer = check(&ask(replace, with)).unwrap().unwrap();
        assert!(offer.accept.is_some() && offer.compression.is_none(), "{with}");
    }
    let offer = check(&ask("Version: 13", "Version: 13\r\nSec-WebSocket-Extensions: permessage-deflate"));
    assert!(offer.unwrap().unwrap().compression.is_some());
}

#[test]
fn a_handshake_that_is_wrong_is_refused_with_its_status() {
    for (replace, with, status) in [
        ("Version: 13", "Version: 8", 426),
        ("Version: 13", "Version: 13, 8", 426),
        ("Version: 13", "Version: 013", 426),
        ("Version: 13", "Version: 13\r\nSec-WebSocket-Version: 13", 426),
        ("Sec-WebSocket-Version: 13\r\n", "", 426),
        ("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", "", 400),
        ("dGhlIHNhbXBsZSBub25jZQ==", "", 400),
        ("dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZSBub25jZQ", 400),
        ("dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZSBub25jZQQ=", 400),
        ("dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZSBub25jZQQQ", 400),
        ("dGhlIHNhbXBsZSBub25jZQ==", "dGhl!HNhbXBsZSBub25jZQ==", 400),
        ("Sec-WebSocket-Key:", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Key:", 400),
        ("Origin: http://server.example.com", "Origin: http://evil.example.com", 403),
        ("Origin: http://server.example.com", "Origin: http://server.example.com.evil.com", 403),
        ("Origin: http://server.example.com", "Origin: http://server.example.com:81", 403),
        ("Origin: http://server.example.com", "Origin: null", 403),
        ("Origin: http://server.example.com", "Origin: server.example.com", 403),
        ("Origin:", "Origin: http://evil.example.com\r\nOrigin:", 403),
    ] {
        assert_eq!(check(&ask(replace, with)).map_err(Refusal::status), Err(status), "{with}");
    }
}

#[test]
fn origins_are_the_same_in_any_case_and_with_their_usual_port() {
    let allowed = |origin: &str, host: &str, origins: &Origins| {
        let head = request(&format!(
            "GET / HTTP/1.1\r\nHost: {host}\r\nOrigin: {origin}\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        ));
        handshake::check(&head, origins, None).is_ok()
    };
    for (origin, host) in [
        ("http://A.example", "a.Example"),
        ("http://a.example", "a.example:80"),
        ("https://a.example", "a.example:443"),
        ("HTTPS://a.example:8443", "a.example:8443"),
        ("http://[::1]:8000", "[::1]:8000"),
    ] {
        assert!(allowed(origin, host, &Origins::Same), "{origin} {host}");
    }
    let listed = Origins::Listed(vec!["https://b.example".to_owned()]);
    assert!(allowed("https://B.example", "a.example", &listed));
    assert!(allowed("https://a.example", "a.example", &listed));
    for origin in ["http://b.example", "https://b.example:81", "https://c.example", "null"] {
        assert!(!allowed(origin, "a.example", &listed), "{origin}");
        assert!(allowed(origin, "a.example", &Origins::Any), "{origin}");
    }
}

#[test]
fn an_extended_connect_needs_no_key() {
    let mut head = ask("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", "");
    head.set_version(Version::Http2);
    let offer = handshake::check_connect(&head, &Origins::Same, None).unwrap();
    assert_eq!(offer, Offer { accept: None, compression: None });
    assert_eq!(check(&head), Ok(None));
}
