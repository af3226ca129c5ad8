//! Requests and answers for the tests of this crate.

use anygate_proto::head::{RequestHead, ResponseHead};

/// A request for a target, whose path is decoded as codecs do.
pub(crate) fn request(method: &str, target: &str, fields: &[(&str, &str)]) -> RequestHead {
    let mut head = RequestHead::default();
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let mut decoded = Vec::new();
    let mut bytes = path.bytes();
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'%' => {
                let digits = [bytes.next().unwrap(), bytes.next().unwrap()];
                u8::from_str_radix(std::str::from_utf8(&digits).unwrap(), 16).unwrap()
            }
            byte => byte,
        });
    }
    let mut push = |text: &[u8]| head.push_text(text).unwrap();
    let spans = [push(method.as_bytes()), push(target.as_bytes()), push(&decoded), push(query.as_bytes())];
    let fields: Vec<_> =
        fields.iter().map(|(name, value)| (push(name.as_bytes()), push(value.as_bytes()))).collect();
    head.set_method(spans[0]);
    head.set_target(spans[1]);
    head.set_path(spans[2]);
    head.set_query(spans[3]);
    fields.into_iter().for_each(|(name, value)| head.push_field(name, value));
    head
}

/// The head of an answer.
pub(crate) fn response(status: &str, fields: &[(&str, &str)]) -> ResponseHead {
    let mut head = ResponseHead::new();
    head.set_status_line(status.as_bytes()).unwrap();
    for (name, value) in fields {
        head.push_field(name.as_bytes(), value.as_bytes()).unwrap();
    }
    head
}

/// The value of a field as text.
pub(crate) fn field<'h>(head: &'h ResponseHead, name: &str) -> Option<&'h str> {
    head.field(name).map(|value| std::str::from_utf8(value).unwrap())
}
