//! The corpus of gateway requests against every codec that carries them: the same variables give the same head whatever
//! packs them, in whatever pieces the bytes arrive.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "in a test a panic is the report"
)]

use anygate_proto::application::Endpoints;
use anygate_proto::cgi::{self, Mount};
use anygate_proto::fastcgi::{self, Event};
use anygate_proto::head::RequestHead;
use anygate_proto::limits::Limits;
use anygate_proto::{proxy, scgi, uwsgi};
use proptest::prelude::*;
use serde_json::Value;

const CODECS: [&str; 3] = ["scgi", "uwsgi", "fastcgi"];

fn corpus(kind: &str) -> Vec<Value> {
    let path = format!("{}/../../tests/corpus/gateways/{kind}.json", env!("CARGO_MANIFEST_DIR"));
    let cases: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    cases.as_array().unwrap().clone()
}

fn bytes(value: &Value) -> Vec<u8> {
    let text = value.as_str().unwrap();
    text.chars().map(|character| u8::try_from(u32::from(character)).expect("the corpus is Latin-1")).collect()
}

fn text(bytes: &[u8]) -> String {
    bytes.iter().map(|&byte| char::from(byte)).collect()
}

fn variables(case: &Value) -> Vec<(Vec<u8>, Vec<u8>)> {
    case["variables"].as_array().unwrap().iter().map(|pair| (bytes(&pair[0]), bytes(&pair[1]))).collect()
}

/// A request as a front server would send it.
fn pack(codec: &str, case: &Value) -> Vec<u8> {
    let (variables, body) = (variables(case), bytes(&case["body"]));
    match codec {
        "scgi" => {
            let packed: Vec<u8> = variables
                .iter()
                .flat_map(|(name, value)| [name, &b"\0"[..], value, b"\0"].concat())
                .collect();
            [format!("{}:", packed.len()).as_bytes(), &packed, b",", &body].concat()
        }
        "uwsgi" => {
            let sized = |text: &Vec<u8>| {
                [&u16::try_from(text.len()).unwrap().to_le_bytes(), text.as_slice()].concat()
            };
            let packed: Vec<u8> =
                variables.iter().flat_map(|(name, value)| [sized(name), sized(value)].concat()).collect();
            let [low, high] = u16::try_from(packed.len()).unwrap().to_le_bytes();
            [&[0, low, high, 0][..], &packed, &body].concat()
        }
        _ => {
            let sizes = |text: &Vec<u8>| match u8::try_from(text.len()) {
                Ok(short @ ..=127) => vec![short],
                _ => (u32::try_from(text.len()).unwrap() | 1 << 31).to_be_bytes().to_vec(),
            };
            let packed: Vec<u8> = variables
                .iter()
                .flat_map(|(name, value)| {
                    [&sizes(name), &sizes(value), name, value].map(Vec::as_slice).concat()
                })
                .collect();
            let mut wire = record(1, 7, &[0, 1, 1, 0, 0, 0, 0, 0]);
            for (kind, stream) in [(4, &packed), (5, &body)] {
                // Records end where they please, even inside a name.
                for piece in stream.chunks(50) {
                    wire.extend(record(kind, 7, piece));
                }
                wire.extend(record(kind, 7, b""));
            }
            wire
        }
    }
}

/// A record with as much padding as its content is long, modulo 9.
fn record(kind: u8, id: u16, content: &[u8]) -> Vec<u8> {
    let padding = content.len() % 9;
    let [id1, id0] = id.to_be_bytes();
    let [length1, length0] = u16::try_from(content.len()).unwrap().to_be_bytes();
    let header = [1, kind, id1, id0, length1, length0, u8::try_from(padding).unwrap(), 0];
    [&header[..], content, &vec![0xee; padding]].concat()
}

fn ends() -> Endpoints {
    Endpoints {
        remote_addr: "127.0.0.1".into(),
        remote_port: "1".into(),
        server_name: "local".into(),
        server_port: "1".into(),
        ..Endpoints::default()
    }
}

/// What was understood: the head, the announced length and the ends as text, and the body.
type Understood = (String, Vec<u8>);

/// Decodes as a connection does; an error is its `Debug` text.
fn decode(codec: &str, pieces: &[&[u8]]) -> Result<Option<Understood>, String> {
    let limits = Limits::default();
    let mut head = RequestHead::default();
    let mut decoder = fastcgi::Decoder::default();
    let (mut input, mut body, mut summary) = (Vec::new(), Vec::new(), None);
    let mut announced = 0;
    let mut complete = false;
    let debug = |error: &dyn std::fmt::Debug| format!("{error:?}");
    for piece in pieces {
        input.extend_from_slice(piece);
        if codec == "fastcgi" {
            loop {
                let (taken, event) = decoder.decode(&input, &limits).map_err(|error| debug(&error))?;
                match event {
                    Event::More => {}
                    Event::Head { id, keep, variables } => {
                        assert_eq!((id, keep), (7, true));
                        let decoded = cgi::decode(
                            fastcgi::variables(&variables),
                            &Mount::Automatic,
                            &ends(),
                            &mut head,
                        );
                        summary = Some(describe(&head, &decoded.map_err(|error| debug(&error))?));
                    }
                    Event::Body { id, data } => {
                        assert_eq!(id, 7);
                        body.extend_from_slice(&input[data]);
                    }
                    Event::End { id } => {
                        assert_eq!(id, 7);
                        complete = true;
                    }
                    other => panic!("{other:?}"),
                }
                input.drain(..taken);
                if taken == 0 {
                    break;
                }
            }
            continue;
        }
        if summary.is_none() {
            let (consumed, decoded) = match codec {
                "scgi" => match scgi::decode(&input, &limits).map_err(|error| debug(&error))? {
                    None => continue,
                    Some(packet) => {
                        let decoded = cgi::decode(packet.variables(), &Mount::Automatic, &ends(), &mut head);
                        (packet.consumed, decoded)
                    }
                },
                "uwsgi" => match uwsgi::decode(&input, &limits).map_err(|error| debug(&error))? {
                    None => continue,
                    Some(uwsgi::Packet::Ping) => return Ok(Some(("ping".to_owned(), Vec::new()))),
                    Some(uwsgi::Packet::Request { variables, consumed, .. }) => {
                        let decoded =
                            cgi::decode(uwsgi::variables(variables), &Mount::Automatic, &ends(), &mut head);
                        (consumed, decoded)
                    }
                },
                _ => match proxy::decode(&input).map_err(|error| debug(&error))? {
                    None => continue,
                    Some(preface) => {
                        let rest = input.split_off(preface.consumed);
                        return Ok(Some((format!("{:?}", preface.forwarded), rest)));
                    }
                },
            };
            let decoded = decoded.map_err(|error| debug(&error))?;
            announced = usize::try_from(decoded.length.unwrap_or(0)).unwrap();
            summary = Some(describe(&head, &decoded));
            input.drain(..consumed);
        }
        complete = input.len() >= announced;
        body.clone_from(&input);
    }
    Ok(summary.filter(|_| complete).map(|summary| (summary, body)))
}

fn describe(head: &RequestHead, decoded: &cgi::Decoded) -> String {
    let pairs = |pairs: Vec<(&[u8], &[u8])>| -> Vec<Vec<String>> {
        pairs.iter().map(|(name, value)| vec![text(name), text(value)]).collect()
    };
    serde_json::json!({
        "method": text(head.method()),
        "target": text(head.target()),
        "script_name": text(head.script_name()),
        "path": text(head.path()),
        "query": text(head.query()),
        "version": head.version().as_str(),
        "authority": text(head.authority()),
        "fields": pairs(head.fields().collect()),
        "extras": pairs(head.variables().collect()),
        "remote_addr": decoded.endpoints.remote_addr.as_str(),
        "server_name": decoded.endpoints.server_name.as_str(),
        "server_port": decoded.endpoints.server_port.as_str(),
        "https": decoded.endpoints.https,
    })
    .to_string()
}

/// What the corpus expects.
fn expected(case: &Value) -> Understood {
    let mut expected = case.clone();
    for key in ["name", "variables", "body"] {
        expected.as_object_mut().unwrap().remove(key);
    }
    (expected.to_string(), bytes(&case["body"]))
}

#[test]
fn every_codec_understands_the_same() {
    for case in corpus("valid") {
        for codec in CODECS {
            let wire = pack(codec, &case);
            assert_eq!(decode(codec, &[&wire]), Ok(Some(expected(&case))), "{codec} {}", case["name"]);
        }
    }
}

#[test]
fn byte_by_byte_the_meaning_is_the_same() {
    for case in corpus("valid") {
        for codec in CODECS {
            let wire = pack(codec, &case);
            let pieces: Vec<&[u8]> = wire.chunks(1).collect();
            assert_eq!(decode(codec, &pieces), Ok(Some(expected(&case))), "{codec} {}", case["name"]);
            for end in 0..wire.len() {
                let part = decode(codec, &[&wire[..end]]);
                assert_eq!(part, Ok(None), "{codec} {} cut at {end}", case["name"]);
            }
        }
    }
}

#[test]
fn what_is_broken_is_refused_whole_and_in_pieces() {
    for case in corpus("invalid") {
        let (codec, wire) = (case["codec"].as_str().unwrap(), bytes(&case["wire"]));
        let error = Err(case["error"].as_str().unwrap().to_owned());
        assert_eq!(decode(codec, &[&wire]), error, "{codec} {}", case["name"]);
        assert_eq!(decode(codec, &wire.chunks(1).collect::<Vec<_>>()), error, "{codec} {}", case["name"]);
    }
}

#[test]
fn limits_hold_in_every_codec() {
    let limits = Limits { request_line_max_bytes: 100, fields_max_bytes: 100, ..Limits::default() };
    assert_eq!(scgi::decode(b"201:", &limits), Err(scgi::Error::TooLarge));
    assert_eq!(uwsgi::decode(&[0, 201, 0, 0], &limits), Err(uwsgi::Error::TooLarge));
    // What follows of such a request is passed over, and the next one is served.
    let begin = record(1, 1, &[0, 1, 0, 0, 0, 0, 0, 0]);
    let end = [record(4, 1, b""), record(5, 1, b"late"), record(5, 1, b"")].concat();
    let next = [&begin[..], &record(4, 1, b"\x01\x01AB"), &record(4, 1, b"")].concat();
    let expected =
        [Event::TooLarge { id: 1 }, Event::Head { id: 1, keep: false, variables: b"\x01\x01AB".to_vec() }];
    let large = record(4, 1, &[0; 201]);
    let many: Vec<u8> = b"\x01\x01AB".repeat(Limits::default().variables_max() + 1);
    for (variables, limits) in [(large, limits), (record(4, 1, &many), Limits::default())] {
        let wire = [&begin[..], &variables, &end, &next].concat();
        assert_eq!(events_within(&wire, &limits), expected);
    }
}

fn events(wire: &[u8]) -> Vec<Event> {
    events_within(wire, &Limits::default())
}

fn events_within(wire: &[u8], limits: &Limits) -> Vec<Event> {
    let mut decoder = fastcgi::Decoder::default();
    let (mut rest, mut events) = (wire, Vec::new());
    loop {
        let (taken, event) = decoder.decode(rest, limits).unwrap();
        if event != Event::More {
            events.push(event);
        }
        if taken == 0 {
            return events;
        }
        rest = &rest[taken..];
    }
}

#[test]
fn interleaved_requests_are_kept_apart() {
    let begin = |id| record(1, id, &[0, 1, 0, 0, 0, 0, 0, 0]);
    let wire = [
        begin(1),
        begin(2),
        record(4, 2, b"\x01\x01AB"),
        record(4, 1, b"\x01\x01CD"),
        record(4, 1, b""),
        record(4, 2, b""),
        record(5, 2, b""),
        record(5, 1, b""),
    ];
    let head = |id, variables: &[u8]| Event::Head { id, keep: false, variables: variables.to_vec() };
    let expected =
        [head(1, b"\x01\x01CD"), head(2, b"\x01\x01AB"), Event::End { id: 2 }, Event::End { id: 1 }];
    assert_eq!(events(&wire.concat()), expected);
}

#[test]
fn management_and_unknown_records_get_a_response() {
    let asked = b"\x0f\x00FCGI_MPXS_CONNS\x04\x00NONE";
    let sent = events(&record(9, 0, asked));
    let response = |record: &[u8], keep| [Event::Send { record: record.to_vec(), keep }];
    assert_eq!(sent, response(b"\x01\x0a\0\0\0\x12\0\0\x0f\x01FCGI_MPXS_CONNS1", true));
    let unknown = events(&record(77, 0, b"whatever"));
    assert_eq!(unknown, response(b"\x01\x0b\0\0\0\x08\0\0\x4d\0\0\0\0\0\0\0", true));
    for keep in [false, true] {
        let filter = events(&record(1, 5, &[0, 3, u8::from(keep), 0, 0, 0, 0, 0]));
        assert_eq!(filter, response(b"\x01\x03\0\x05\0\x08\0\0\0\0\0\0\x03\0\0\0", keep));
    }
}

#[test]
fn a_body_that_ends_before_its_variables_is_refused() {
    let wire = [record(1, 1, &[0, 1, 1, 0, 0, 0, 0, 0]), record(4, 1, b"\x01\x01AB"), record(5, 1, b"")];
    let mut decoder = fastcgi::Decoder::default();
    let (mut rest, limits) = (&wire.concat()[..], Limits::default());
    let error = loop {
        match decoder.decode(rest, &limits) {
            Ok((taken, event)) => {
                assert!(taken > 0 && event == Event::More);
                rest = &rest[taken..];
            }
            Err(error) => break error,
        }
    };
    assert_eq!(error, fastcgi::Error::Order);
}

#[test]
fn an_abort_ends_its_request_and_later_records_of_it_are_ignored() {
    let wire = [
        record(1, 1, &[0, 1, 1, 0, 0, 0, 0, 0]),
        record(4, 1, b"\x01\x01AB"),
        record(2, 1, b""),
        record(4, 1, b""),
        record(5, 1, b"late"),
        record(5, 1, b""),
        record(2, 9, b""),
    ];
    assert_eq!(events(&wire.concat()), [Event::Aborted { id: 1, keep: true }]);
}

#[test]
fn pings_and_prefaces_are_understood() {
    assert_eq!(decode("uwsgi", &[&[100, 0, 0, 0]]), Ok(Some(("ping".to_owned(), Vec::new()))));
    let v1 = b"PROXY TCP4 192.0.2.1 192.0.2.2 4711 80\r\nrest";
    let v2 = [
        &b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x17"[..],
        &[192, 0, 2, 1, 192, 0, 2, 2],
        &[0x12, 0x67, 0, 80],
        b"\x20\x00\x08\x01\x00\x00\x00\x00\x21\x00\x00rest",
    ]
    .concat();
    for (wire, https) in [(&v1[..], false), (&v2, true)] {
        for pieces in [vec![wire], wire.chunks(1).collect::<Vec<_>>()] {
            let (forwarded, _) = decode("proxy", &pieces).unwrap().unwrap();
            let expected = proxy::Forwarded {
                source: ("192.0.2.1".parse().unwrap(), 4711),
                destination: ("192.0.2.2".parse().unwrap(), 80),
                https,
            };
            assert_eq!(forwarded, format!("{:?}", Some(expected)));
        }
    }
    for local in
        [&b"PROXY UNKNOWN\r\n"[..], b"\r\n\r\n\0\r\nQUIT\n\x20\x00\x00\x00", b"PROXY UNKNOWN ::1 ::1 1 1\r\n"]
    {
        assert_eq!(decode("proxy", &[local]), Ok(Some(("None".to_owned(), Vec::new()))));
    }
}

proptest! {
    #[test]
    fn any_split_of_the_same_bytes_gives_the_same_messages(
        case in 0usize..6, codec in 0usize..3, cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..6)
    ) {
        let case = &corpus("valid")[case];
        let wire = pack(CODECS[codec], case);
        let mut places: Vec<usize> = cuts.iter().map(|cut| cut.index(wire.len())).collect();
        places.extend([0, wire.len()]);
        places.sort_unstable();
        let pieces: Vec<&[u8]> = places.windows(2).map(|pair| &wire[pair[0]..pair[1]]).collect();
        prop_assert_eq!(decode(CODECS[codec], &pieces), Ok(Some(expected(case))));
    }

    #[test]
    fn nothing_panics(wire in proptest::collection::vec(any::<u8>(), 0..200), codec in 0usize..4) {
        let codec = ["scgi", "uwsgi", "proxy", "scgi"][codec];
        let _ = decode(codec, &[&wire]);
    }
}
