//! A request's head and body: no input panics, and a split anywhere means the same.
#![no_main]

use anygate_proto::head::RequestHead;
use anygate_proto::http1::{BodyDecoder, Error, HeadDecoder};
use anygate_proto::limits::Limits;
use libfuzzer_sys::fuzz_target;

type Meaning = Result<Option<(Vec<u8>, Vec<(Vec<u8>, Vec<u8>)>, Vec<u8>, usize)>, Error>;

fn decode(pieces: &[&[u8]], limits: &Limits) -> Meaning {
    let mut head = RequestHead::default();
    let mut decoder = HeadDecoder::default();
    let mut body = None;
    let (mut input, mut data) = (Vec::new(), Vec::new());
    let mut done = false;
    for piece in pieces {
        input.extend_from_slice(piece);
        if body.is_none() {
            let Some(decoded) = decoder.decode(&input, limits, &mut head)? else { continue };
            assert!(decoded.consumed <= input.len());
            input.drain(..decoded.consumed);
            body = Some(BodyDecoder::new(decoded.framing, limits)?);
        }
        while let Some(body) = &mut body
            && !done
        {
            let step = body.decode(&input)?;
            data.extend_from_slice(&input[step.data.clone()]);
            input.drain(..step.consumed);
            done = step.done;
            if step.consumed == 0 {
                break;
            }
        }
    }
    if !done {
        return Ok(None);
    }
    assert!(data.len() as u64 <= limits.body_max_bytes);
    let fields = head.fields().map(|(name, value)| (name.to_vec(), value.to_vec())).collect();
    Ok(Some((head.path().to_vec(), fields, data, input.len())))
}

fuzz_target!(|data: &[u8]| {
    let Some((&cut, wire)) = data.split_first() else { return };
    let limits = Limits { fields_max: 20, fields_max_bytes: 2048, body_max_bytes: 4096, ..Limits::default() };
    let whole = decode(&[wire], &limits);
    let cut = usize::from(cut).min(wire.len());
    assert_eq!(decode(&[&wire[..cut], &wire[cut..]], &limits), whole);
    assert_eq!(decode(&wire.chunks(1).collect::<Vec<_>>(), &limits), whole);
    if let Ok(Some((path, fields, _, _))) = whole {
        assert!(!path.is_empty() && !path.contains(&0));
        for (name, value) in fields {
            assert!(!name.is_empty() && !name.iter().any(|byte| b" :\r\n\0".contains(byte)));
            assert!(!value.iter().any(|byte| b"\r\n\0".contains(byte)));
        }
    }
});
