//! What a router says before a request: no input panics, a part of it means nothing else, and what was understood says the
//! same when it is said again.
#![no_main]

use anygate_proto::application::Request;
use anygate_proto::head::RequestHead;
use anygate_proto::routed::{self, Preface};
use libfuzzer_sys::fuzz_target;

fn head(preface: &Preface) -> Option<RequestHead> {
    let mut head = RequestHead::default();
    head.set_version(preface.version);
    preface.apply(&mut head).ok()?;
    Some(head)
}

fuzz_target!(|data: &[u8]| {
    let Some((&[cut], wire)) = data.split_first_chunk::<1>() else { return };
    let part = wire.get(..usize::from(cut)).unwrap_or(wire);
    match routed::decode(wire) {
        Ok(Some((preface, length))) => {
            assert!(length <= wire.len());
            assert!(wire.get(..length - 1).is_none_or(|less| matches!(routed::decode(less), Ok(None))));
            let Some(head) = head(&preface) else { return };
            let request = Request {
                head: &head,
                body: None,
                endpoints: &preface.endpoints,
                hidden_client: preface.hidden_client,
                websocket: false,
                number: 0,
            };
            let mut again = Vec::new();
            routed::encode(&mut again, &request, b"");
            let (second, whole) = routed::decode(&again).expect("it was written here").expect("all of it is there");
            assert_eq!((format!("{second:?}"), whole), (format!("{preface:?}"), again.len()));
        }
        Ok(None) => assert!(matches!(routed::decode(part), Ok(None))),
        Err(_) => assert!(!matches!(routed::decode(part), Ok(Some(_)))),
    }
});
