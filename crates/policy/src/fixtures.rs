//! Requests and responses for the tests of this crate.

use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;

use anygate_proto::application::{Response, SendError};
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

/// The head of a response.
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

/// A response that is kept as it was given.
#[derive(Default)]
pub(crate) struct TakenResponse {
    pub(crate) head: Option<ResponseHead>,
    pub(crate) body: Vec<u8>,
    /// How many parts of files are in the body.
    pub(crate) files: usize,
}

impl TakenResponse {
    pub(crate) fn status(&self) -> u16 {
        self.head.as_ref().unwrap().status()
    }

    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        field(self.head.as_ref().unwrap(), name)
    }
}

impl Response for TakenResponse {
    fn entered(&mut self) {}

    fn start(&mut self, head: &ResponseHead, _body_length: Option<u64>) -> Result<(), SendError> {
        assert!(self.head.is_none(), "started twice");
        self.head = Some(head.clone());
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), SendError> {
        assert!(self.head.is_some(), "written before the head");
        self.body.extend_from_slice(bytes);
        Ok(())
    }

    fn flush(&mut self) -> Result<(), SendError> {
        Ok(())
    }

    fn hold_back(&mut self) -> bool {
        false
    }

    fn send_file(&mut self, file: OwnedFd, offset: u64, length: u64) -> Result<(), SendError> {
        let mut bytes = vec![0; usize::try_from(length).unwrap()];
        std::fs::File::from(file).read_exact_at(&mut bytes, offset).unwrap();
        self.files += 1;
        self.write(&bytes)
    }

    fn interim(&mut self, _head: &ResponseHead) -> Result<(), SendError> {
        Ok(())
    }

    fn started(&self) -> bool {
        self.head.is_some()
    }

    fn body_bytes(&self) -> u64 {
        self.body.len() as u64
    }
}
