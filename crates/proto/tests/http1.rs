//! The corpus of HTTP/1 messages against the decoder: whole, byte by byte, in any two pieces, and in random pieces. The
//! first property of a codec is that any split of the same bytes gives the same messages.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "in a test a panic is the report")]

use anygate_proto::head::RequestHead;
use anygate_proto::http1::{BodyDecoder, Error, HeadDecoder};
use anygate_proto::limits::Limits;
use proptest::prelude::*;
use serde_json::Value;

#[derive(Debug, PartialEq, Eq)]
struct Message {
    method: String,
    target: String,
    path: String,
    query: String,
    version: String,
    authority: String,
    fields: Vec<(String, String)>,
    body: String,
    keep_alive: bool,
    rest: String,
}

/// What bytes mean: a message, not yet one, or an error.
type Meaning = Result<Option<Message>, Error>;

fn text(bytes: &[u8]) -> String {
    bytes.iter().map(|&byte| char::from(byte)).collect()
}

fn bytes(text: &str) -> Vec<u8> {
    text.chars().map(|character| u8::try_from(u32::from(character)).expect("the corpus is Latin-1")).collect()
}

/// Decodes as a connection does: what was not consumed is shown again with what follows.
fn decode(pieces: &[&[u8]]) -> Meaning {
    let limits = Limits::default();
    let mut head = RequestHead::default();
    let mut head_decoder = HeadDecoder::default();
    let mut body_decoder: Option<(BodyDecoder, bool)> = None;
    let (mut input, mut body) = (Vec::new(), Vec::new());
    let mut done = false;
    for piece in pieces {
        input.extend_from_slice(piece);
        if body_decoder.is_none() {
            let Some(decoded) = head_decoder.decode(&input, &limits, &mut head)? else { continue };
            input.drain(..decoded.consumed);
            body_decoder = Some((BodyDecoder::new(decoded.framing, &limits)?, decoded.keep_alive));
        }
        while let Some((decoder, _)) = &mut body_decoder
            && !done
        {
            let step = decoder.decode(&input)?;
            body.extend_from_slice(&input[step.data.clone()]);
            input.drain(..step.consumed);
            done = step.done;
            if step.consumed == 0 {
                break;
            }
        }
    }
    let Some((_, keep_alive)) = body_decoder.filter(|_| done) else { return Ok(None) };
    Ok(Some(Message {
        method: text(head.method()),
        target: text(head.target()),
        path: text(head.path()),
        query: text(head.query()),
        version: head.version().as_str().to_owned(),
        authority: text(head.authority()),
        fields: head.fields().map(|(name, value)| (text(name), text(value))).collect(),
        body: text(&body),
        keep_alive,
        rest: text(&input),
    }))
}

fn corpus(kind: &str) -> Vec<Value> {
    let path = format!("{}/../../tests/corpus/http1/{kind}.json", env!("CARGO_MANIFEST_DIR"));
    let cases: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    cases.as_array().unwrap().clone()
}

fn wire(case: &Value) -> Vec<u8> {
    bytes(case["wire"].as_str().unwrap())
}

#[test]
fn valid_messages_mean_what_they_say() {
    for case in corpus("valid") {
        let name = &case["name"];
        let message = decode(&[&wire(&case)]).unwrap_or_else(|error| panic!("{name}: {error}"));
        let message = message.unwrap_or_else(|| panic!("{name}: incomplete"));
        let expect = |key: &str| case[key].as_str().unwrap().to_owned();
        let fields = match case.get("fields") {
            None => message.fields.clone(),
            Some(fields) => serde_json::from_value(fields.clone()).unwrap(),
        };
        let expected = Message {
            method: expect("method"),
            target: expect("target"),
            path: expect("path"),
            query: expect("query"),
            version: expect("version"),
            authority: expect("authority"),
            fields,
            body: expect("body"),
            keep_alive: case["keep_alive"].as_bool().unwrap(),
            rest: expect("rest"),
        };
        assert_eq!(message, expected, "{name}");
    }
}

#[test]
fn invalid_messages_are_refused_with_their_status() {
    for case in corpus("invalid") {
        let name = &case["name"];
        match decode(&[&wire(&case)]) {
            Err(error) => assert_eq!(Value::from(error.status()), case["status"], "{name}: {error}"),
            Ok(meaning) => panic!("{name} was taken for {meaning:?}"),
        }
    }
}

#[test]
fn a_valid_message_is_not_complete_before_its_end() {
    for case in corpus("valid") {
        let wire = wire(&case);
        let end = wire.len() - bytes(case["rest"].as_str().unwrap()).len();
        for cut in 0..end {
            assert_eq!(decode(&[&wire[..cut]]), Ok(None), "{} cut at {cut}", case["name"]);
        }
    }
}

#[test]
fn two_pieces_mean_the_same_as_one_and_so_do_single_bytes() {
    for case in corpus("valid").into_iter().chain(corpus("invalid")) {
        let wire = wire(&case);
        let whole = decode(&[&wire]);
        for cut in (0..wire.len()).filter(|cut| wire.len() < 4096 || cut % 997 == 0) {
            assert_eq!(decode(&[&wire[..cut], &wire[cut..]]), whole, "{} cut at {cut}", case["name"]);
        }
        if wire.len() < 30_000 {
            let single: Vec<&[u8]> = wire.chunks(1).collect();
            assert_eq!(decode(&single), whole, "{} byte by byte", case["name"]);
        }
    }
}

proptest! {
    /// Any bytes at all, cut anywhere: the same meaning, and no panic.
    #[test]
    fn any_split_of_any_bytes_means_the_same(
        case in 0usize..1000,
        mutations in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
    ) {
        let all: Vec<Value> = corpus("valid").into_iter().chain(corpus("invalid")).collect();
        let mut wire = wire(&all[case % all.len()]);
        for (place, byte) in mutations {
            let place = place.index(wire.len());
            wire[place] = byte;
        }
        let whole = decode(&[&wire]);
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(wire.len())).collect();
        cuts.sort_unstable();
        let mut pieces = Vec::new();
        let mut from = 0;
        for cut in cuts {
            pieces.push(&wire[from..cut]);
            from = cut;
        }
        pieces.push(&wire[from..]);
        prop_assert_eq!(decode(&pieces), whole);
    }
}
