//! SCGI, FastCGI, uwsgi and PROXY: no input panics, a split anywhere means the same, and a head that comes out is one
//! that HTTP could have carried.
#![no_main]

use anygate_proto::application::Endpoints;
use anygate_proto::cgi::{self, Mount};
use anygate_proto::fastcgi::{self, Event};
use anygate_proto::head::RequestHead;
use anygate_proto::limits::Limits;
use anygate_proto::{proxy, scgi, uwsgi};
use libfuzzer_sys::fuzz_target;

fn check<'v>(variables: impl Iterator<Item = (&'v [u8], &'v [u8])>, mount: &Mount) -> String {
    let mut head = RequestHead::default();
    let decoded = match cgi::decode(variables, mount, &Endpoints::default(), &mut head) {
        Ok(decoded) => decoded,
        Err(error) => return error.to_string(),
    };
    assert!(!head.method().is_empty());
    assert!(!head.target().is_empty() && head.target().is_ascii());
    for (name, value) in head.fields().chain(head.variables()) {
        assert!(!name.is_empty() && !name.iter().any(|byte| b" :\r\n\0".contains(byte)));
        assert!(!value.iter().any(|byte| b"\r\n\0".contains(byte)));
    }
    assert!(head.variables().all(|(name, _)| !name.starts_with(b"UWSGI_") && !name.starts_with(b"HTTP_")));
    let remote = &decoded.endpoints.remote_addr;
    assert!(remote.is_empty() || remote.parse::<std::net::IpAddr>().is_ok());
    format!("{head:?} {decoded:?}")
}

/// What FastCGI records mean, with the pieces of each body put together.
fn records(pieces: &[&[u8]], limits: &Limits) -> Result<Vec<String>, fastcgi::Error> {
    let mut decoder = fastcgi::Decoder::default();
    let (mut input, mut meaning) = (Vec::new(), Vec::new());
    let mut body: Option<(u16, Vec<u8>)> = None;
    for piece in pieces {
        input.extend_from_slice(piece);
        loop {
            let (taken, event) = decoder.decode(&input, limits)?;
            assert!(taken <= input.len());
            if let Event::Body { id, data } = event {
                match &mut body {
                    Some((other, bytes)) if *other == id => bytes.extend_from_slice(&input[data]),
                    _ => {
                        let before = body.replace((id, input[data].to_vec()));
                        meaning.extend(before.map(|before| format!("{before:?}")));
                    }
                }
            } else if event != Event::More {
                meaning.extend(body.take().map(|before| format!("{before:?}")));
                if let Event::Head { variables, .. } = &event {
                    assert!(variables.len() <= limits.variables_max_bytes());
                    meaning.push(check(fastcgi::variables(variables), &Mount::Automatic));
                }
                meaning.push(format!("{event:?}"));
            }
            input.drain(..taken);
            if taken == 0 {
                break;
            }
        }
        // What waits for more is never more than a record's header.
        assert!(input.len() < fastcgi::HEADER_BYTES);
    }
    meaning.extend(body.map(|before| format!("{before:?}")));
    Ok(meaning)
}

fuzz_target!(|data: &[u8]| {
    let Some((&[choice, cut], wire)) = data.split_first_chunk::<2>() else { return };
    let limits = Limits { fields_max: 20, fields_max_bytes: 2048, ..Limits::default() };
    let part = wire.get(..usize::from(cut)).unwrap_or(wire);
    match choice % 4 {
        0 => match scgi::decode(wire, &limits) {
            Ok(Some(packet)) => {
                assert!(packet.consumed <= wire.len());
                check(packet.variables(), &Mount::AsGiven);
            }
            // More bytes make nothing of less whole, and what is broken stays so.
            Ok(None) => assert_eq!(scgi::decode(part, &limits), Ok(None)),
            Err(error) => assert!(matches!(scgi::decode(part, &limits), Ok(None)) || scgi::decode(part, &limits) == Err(error)),
        },
        1 => match uwsgi::decode(wire, &limits) {
            Ok(Some(uwsgi::Packet::Request { variables, consumed, .. })) => {
                assert!(consumed <= wire.len());
                check(uwsgi::variables(variables), &Mount::At(b"/a".to_vec()));
            }
            Ok(Some(uwsgi::Packet::Ping)) => {}
            Ok(None) => assert_eq!(uwsgi::decode(part, &limits), Ok(None)),
            Err(error) => {
                assert!(matches!(uwsgi::decode(part, &limits), Ok(None)) || uwsgi::decode(part, &limits) == Err(error));
            }
        },
        2 => {
            let whole = records(&[wire], &limits);
            assert_eq!(records(&[part, &wire[part.len()..]], &limits), whole);
            assert_eq!(records(&wire.chunks(1).collect::<Vec<_>>(), &limits), whole);
        }
        _ => match proxy::decode(wire) {
            Ok(Some(preface)) => assert!(preface.consumed <= wire.len()),
            Ok(None) => assert_eq!(proxy::decode(part), Ok(None)),
            Err(error) => assert!(matches!(proxy::decode(part), Ok(None)) || proxy::decode(part) == Err(error)),
        },
    }
});
