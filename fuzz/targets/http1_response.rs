//! A response's head out of whatever an application gives: it is refused, or its bytes are one head and nothing else.
#![no_main]

use anygate_proto::head::{ResponseHead, Version};
use anygate_proto::http1::{ResponseOptions, encode_head};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let mut parts = data.split(|&byte| byte == b'|');
    let flags = parts.next().and_then(|part| part.first().copied()).unwrap_or(0);
    let mut head = ResponseHead::default();
    if head.set_status_line(parts.next().unwrap_or_default()).is_err() {
        return;
    }
    let mut fields = 0;
    while let (Some(name), Some(value)) = (parts.next(), parts.next()) {
        fields += usize::from(head.push_field(name, value).is_ok());
    }
    let options = ResponseOptions {
        version: if flags & 1 == 0 { Version::Http11 } else { Version::Http10 },
        head_request: flags & 2 != 0,
        keep_alive: flags & 4 != 0,
        body_length: (flags & 8 != 0).then_some(7),
        date_line: b"Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n",
        server_line: b"Server: anygate\r\n",
    };
    let mut out = Vec::new();
    if encode_head(&mut out, &head, &options).is_err() {
        return;
    }
    let end = out.windows(4).position(|window| window == b"\r\n\r\n").expect("a head ends");
    assert_eq!(end + 4, out.len(), "nothing follows a head");
    let lines = out.split(|&byte| byte == b'\n').count() - 2;
    // At most the server's own: a length or a coding, Connection, Date, Server.
    assert!(lines <= 1 + fields + 4, "a field was split");
    assert!(!out.contains(&0));
});
