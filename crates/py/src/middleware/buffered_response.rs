//! Response that the server has not taken yet.

use std::fs::File;
use std::io;
use std::mem;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;

use anygate_proto::application::{Response, SendError};
use anygate_proto::head::{RequestHead, ResponseHead};

/// Maximum bytes in memory of a response that is not read in pieces; more wait in a temporary file.
const MEMORY_MAX: usize = 1 << 20;
/// A file is given in such pieces.
const PIECE_BYTES: usize = 64 * 1024;

/// A response that is taken from here.
pub(super) struct BufferedResponse {
    is_head_request: bool,
    /// The head, until it is taken.
    head: Option<ResponseHead>,
    is_started: bool,
    status: Option<u16>,
    /// The head once more, if it is kept for the log.
    logged_head: Option<ResponseHead>,
    keeps_head: bool,
    spools: bool,
    pieces: Vec<Piece>,
    /// How much of them was put into memory.
    memory_bytes: usize,
    body_bytes: u64,
}

enum Piece {
    Memory(Vec<u8>),
    /// A part of a file, which is ours to write to if it is a spool.
    File {
        file: File,
        at: u64,
        left: u64,
        is_spool: bool,
    },
}

impl BufferedResponse {
    pub(super) fn new(request: &RequestHead) -> BufferedResponse {
        BufferedResponse {
            is_head_request: request.method() == b"HEAD",
            head: None,
            is_started: false,
            status: None,
            logged_head: None,
            keeps_head: false,
            spools: false,
            pieces: Vec::new(),
            memory_bytes: 0,
            body_bytes: 0,
        }
    }

    /// Whether what is written may be long without being anywhere else yet.
    pub(super) fn spool(&mut self, spools: bool) {
        self.spools = spools;
    }

    /// Keeps the head for the log as well.
    pub(super) fn keep_head(&mut self) {
        self.keeps_head = true;
    }

    /// Returns the status, and the head if it was kept.
    pub(super) fn take_outcome(&mut self) -> (Option<u16>, Option<ResponseHead>) {
        (self.status, self.logged_head.take())
    }

    /// Bytes of the body that the server has taken or takes.
    pub(super) fn sent_bytes(&self) -> u64 {
        if self.is_head_request { 0 } else { self.body_bytes }
    }

    /// The application has responded with this status in a way of its own.
    pub(super) fn set_status(&mut self, status: u16) {
        self.status = Some(status);
    }

    /// So many bytes went to the server without coming here.
    pub(super) fn passed_on(&mut self, bytes: u64) {
        self.body_bytes = self.body_bytes.saturating_add(bytes);
    }

    /// Whether what is written goes nowhere.
    pub(super) fn is_head_request(&self) -> bool {
        self.is_head_request
    }

    /// Whether there is, or was, a head.
    pub(super) fn is_started(&self) -> bool {
        self.is_started
    }

    /// The head, once.
    pub(super) fn take_head(&mut self) -> Option<ResponseHead> {
        self.head.take()
    }

    /// Whether the next bytes are to be read from a file.
    pub(super) fn reads_next(&self) -> bool {
        matches!(self.pieces.first(), Some(Piece::File { .. }))
    }

    /// The next bytes; none if there are none.
    pub(super) fn take(&mut self) -> io::Result<Vec<u8>> {
        match self.pieces.first_mut() {
            None => Ok(Vec::new()),
            Some(Piece::Memory(bytes)) => {
                let bytes = mem::take(bytes);
                self.pieces.remove(0);
                Ok(bytes)
            }
            Some(Piece::File { file, at, left, .. }) => {
                let mut bytes = vec![0; usize::try_from(*left).unwrap_or(usize::MAX).min(PIECE_BYTES)];
                let count = file.read_at(&mut bytes, *at)?;
                if count == 0 {
                    let message = "a file became shorter while it was sent";
                    return Err(io::Error::new(io::ErrorKind::UnexpectedEof, message));
                }
                bytes.truncate(count);
                *at += count as u64;
                *left = left.saturating_sub(count as u64);
                if *left == 0 {
                    self.pieces.remove(0);
                }
                Ok(bytes)
            }
        }
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        let memory_bytes = self.memory_bytes.saturating_add(bytes.len());
        let fits = !self.spools || memory_bytes <= MEMORY_MAX;
        match self.pieces.last_mut() {
            Some(Piece::File { file, at, left, is_spool: true }) => {
                file.write_all_at(bytes, at.saturating_add(*left))?;
                *left = left.saturating_add(bytes.len() as u64);
                return Ok(());
            }
            Some(Piece::Memory(memory)) if fits => memory.extend_from_slice(bytes),
            _ if fits => self.pieces.push(Piece::Memory(bytes.to_vec())),
            _ => {
                let file = tempfile::tempfile()?;
                file.write_all_at(bytes, 0)?;
                self.pieces.push(Piece::File { file, at: 0, left: bytes.len() as u64, is_spool: true });
                return Ok(());
            }
        }
        self.memory_bytes = memory_bytes;
        Ok(())
    }
}

impl Response for BufferedResponse {
    fn entered(&mut self) {}

    fn start(&mut self, head: &ResponseHead, body_length: Option<u64>) -> Result<(), SendError> {
        if mem::replace(&mut self.is_started, true) {
            return Err(SendError::Order);
        }
        let mut head = head.clone();
        let has_body = head.status() >= 200 && !matches!(head.status(), 204 | 304);
        // Without a body, zero only says that the application made none for HEAD.
        let known = body_length.filter(|&length| has_body && (!self.is_head_request || length > 0));
        if let Some(length) = known.filter(|_| !head.has_field("content-length")) {
            let pushed = head.push_field(b"Content-Length", length.to_string().as_bytes());
            debug_assert!(pushed.is_ok(), "a number is a valid value");
        }
        self.status = Some(head.status());
        self.logged_head = self.keeps_head.then(|| head.clone());
        self.head = Some(head);
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), SendError> {
        self.body_bytes = self.body_bytes.saturating_add(bytes.len() as u64);
        if self.is_head_request || bytes.is_empty() {
            return Ok(());
        }
        self.put(bytes).map_err(|_| SendError::Spool)
    }

    fn flush(&mut self) -> Result<(), SendError> {
        Ok(())
    }

    fn hold_back(&mut self) -> bool {
        false
    }

    fn send_file(&mut self, file: OwnedFd, offset: u64, length: u64) -> Result<(), SendError> {
        self.body_bytes = self.body_bytes.saturating_add(length);
        if !self.is_head_request && length > 0 {
            self.pieces.push(Piece::File { file: file.into(), at: offset, left: length, is_spool: false });
        }
        Ok(())
    }

    /// Servers of other packages have their own ways for these.
    fn interim(&mut self, _head: &ResponseHead) -> Result<(), SendError> {
        Ok(())
    }

    fn started(&self) -> bool {
        self.is_started
    }

    fn body_bytes(&self) -> u64 {
        self.body_bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(method: &str) -> BufferedResponse {
        let mut request = RequestHead::default();
        let method = request.push_text(method.as_bytes()).expect("it is short");
        request.set_method(method);
        BufferedResponse::new(&request)
    }

    fn head(line: &str) -> ResponseHead {
        let mut head = ResponseHead::new();
        head.set_status_line(line.as_bytes()).expect("a test has valid heads");
        head
    }

    fn all(kept: &mut BufferedResponse) -> Vec<u8> {
        let mut body = Vec::new();
        loop {
            let bytes = kept.take().expect("files of a test can be read");
            if bytes.is_empty() {
                return body;
            }
            body.extend(bytes);
        }
    }

    #[test]
    fn what_is_long_waits_in_a_file() {
        let mut kept = kept("GET");
        kept.spool(true);
        let (small, large) = (vec![b'a'; MEMORY_MAX - 1], vec![b'b'; 100_000]);
        for bytes in [&small, &large, &small, &large] {
            kept.write(bytes).expect("there is room");
        }
        assert_eq!(kept.memory_bytes, small.len());
        kept.spool(false);
        let file = tempfile::tempfile().expect("there is room");
        file.write_all_at(b"0123456789", 0).expect("there is room");
        kept.send_file(file.into(), 3, 4).expect("it is kept");
        kept.write(b"end").expect("there is room");
        let expected = [&small[..], &large, &small, &large, b"3456end"].concat();
        assert_eq!(kept.body_bytes(), expected.len() as u64);
        assert!(all(&mut kept) == expected);
    }

    #[test]
    fn a_file_that_became_shorter_is_an_error() {
        let mut kept = kept("GET");
        kept.send_file(tempfile::tempfile().expect("there is room").into(), 0, 1).expect("it is kept");
        assert!(kept.take().is_err());
    }

    #[test]
    fn a_length_that_is_known_is_told() {
        for (method, line, length, told) in [
            ("GET", "200 OK", Some(3), Some("3")),
            ("GET", "200 OK", Some(0), Some("0")),
            ("GET", "200 OK", None, None),
            ("HEAD", "200 OK", Some(3), Some("3")),
            ("HEAD", "200 OK", Some(0), None),
            ("GET", "204 No Content", Some(0), None),
            ("GET", "304 Not Modified", Some(0), None),
        ] {
            let mut kept = kept(method);
            kept.start(&head(line), length).expect("it is the first");
            assert_eq!(kept.start(&head(line), length), Err(SendError::Order));
            kept.write(b"abc").expect("there is room");
            let head = kept.take_head().expect("it was given");
            assert_eq!(head.field("content-length"), told.map(str::as_bytes), "{method} {line}");
            assert!(kept.take_head().is_none() && kept.started());
            assert_eq!(all(&mut kept).is_empty(), method == "HEAD");
        }
    }
}
