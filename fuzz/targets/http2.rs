//! HTTP/2: frames are counted alike in any pieces, and whatever `h2` may hand over becomes a head that HTTP/1.1 could
//! have carried, or an error.
#![no_main]

use anygate_proto::head::{RequestHead, Version};
use anygate_proto::http2::{FrameCount, Frames, decode};
use anygate_proto::limits::Limits;
use http::{HeaderName, HeaderValue, Request};
use libfuzzer_sys::fuzz_target;

fn counted(bytes: &[u8], size: usize) {
    let mut pieces = Frames::new();
    let mut count = FrameCount::default();
    for piece in bytes.chunks(size) {
        let FrameCount { idle, windows, resets } = pieces.count(piece);
        count.idle += idle;
        count.windows += windows;
        count.resets += resets;
    }
    let mut whole = Frames::new();
    assert_eq!(count, whole.count(bytes));
    assert_eq!(pieces.take_malformed(), whole.take_malformed());
    assert!((count.idle + count.windows) as usize <= bytes.len() / 9);
}

fn decoded(bytes: &[u8]) -> Option<()> {
    let mut parts = bytes.split(|byte| *byte == b'|');
    let mut request = Request::builder().method(parts.next()?).uri(parts.next()?);
    while let (Some(name), Some(value)) = (parts.next(), parts.next()) {
        request = request.header(HeaderName::from_bytes(name).ok()?, HeaderValue::from_bytes(value).ok()?);
    }
    let (parts, ()) = request.body(()).ok()?.into_parts();
    let mut head = RequestHead::default();
    decode(&parts, false, &Limits::default(), &mut head).ok()?;
    assert_eq!(head.version(), Version::Http2);
    assert_eq!(head.method(), parts.method.as_str().as_bytes());
    assert!(
        head.target().is_ascii()
            && !head.target().iter().any(|byte| byte.is_ascii_control() || *byte == b' ')
    );
    assert!(!head.path().contains(&0));
    assert_eq!(head.fields().count(), parts.headers.len());
    for (name, value) in head.fields() {
        assert!(!name.is_empty() && !name.iter().any(|byte| b" :\r\n\0".contains(byte)));
        assert!(!value.iter().any(|byte| b"\r\n\0".contains(byte)));
    }
    assert!(!head.authority().iter().any(|byte| b"/@ \r\n\0".contains(byte)));
    Some(())
}

fuzz_target!(|data: &[u8]| {
    let Some((size, bytes)) = data.split_first() else { return };
    counted(bytes, usize::from(*size).max(1));
    decoded(bytes);
});
