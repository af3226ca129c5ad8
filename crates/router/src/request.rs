//! A request on its way to its application: who its client is, then HTTP/1.1, written anew from what was understood of it, so
//! that nothing that the client wrote decides where it ends.

use std::io;

use anygate_proto::application::{Body, Request};
use anygate_proto::routed;

/// Maximum number of bytes of a body that are taken at once.
const PIECE_BYTES: usize = 64 * 1024;
/// Fields about the connection between the client and us, and those that are written anew. Others that a `Connection` field
/// names stay: no client takes off what the router says.
const OWN_FIELDS: [&str; 14] = [
    "connection",
    "content-length",
    "expect",
    "host",
    "http2-settings",
    "keep-alive",
    "proxy-connection",
    "sec-websocket-extensions",
    "sec-websocket-key",
    "sec-websocket-version",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];
/// A wish for a WebSocket. Its key guards against caches between client and server, and here is none.
const UPGRADE: &[u8] = b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
    Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n";

/// A request that is being sent.
pub(crate) struct Outgoing {
    /// Not yet sent.
    bytes: Vec<u8>,
    /// How many of them are.
    sent: usize,
    body: Option<Box<dyn Body>>,
    chunked: bool,
}

/// What is to be done about a request.
pub(crate) enum Fill {
    /// Send what is there.
    Send,
    /// All of it was sent.
    Done,
    /// Its client is to send more of the body.
    Wait,
    /// The body cannot be read.
    Broken,
}

impl Outgoing {
    /// Writes the head of `request`, whose application is at `mount`.
    pub(crate) fn new(mut request: Request<'_>, mount: &[u8]) -> Outgoing {
        let mut bytes = Vec::with_capacity(2048);
        routed::encode(&mut bytes, &request, mount);
        let body = request.body.take();
        let (head, ends) = (request.head, request.endpoints);
        let method: &[u8] = if request.websocket { b"GET" } else { head.method() };
        for part in [method, b" ", head.target(), b" HTTP/1.1\r\nHost: "] {
            bytes.extend_from_slice(part);
        }
        if head.authority().is_empty() {
            // A client of HTTP/1.0 need not name one.
            bytes.extend_from_slice(
                format!("{}:{}", bracketed(&ends.server_name), ends.server_port).as_bytes(),
            );
        } else {
            bytes.extend_from_slice(head.authority());
        }
        bytes.extend_from_slice(b"\r\n");
        bytes.extend_from_slice(if request.websocket { UPGRADE } else { b"Connection: close\r\n" });
        let is_own = |name: &[u8]| OWN_FIELDS.iter().any(|own| name.eq_ignore_ascii_case(own.as_bytes()));
        for (name, value) in head.fields().filter(|(name, _)| !is_own(name)) {
            for part in [name, b": ", value, b"\r\n"] {
                bytes.extend_from_slice(part);
            }
        }
        let length = body.as_ref().map(|body| body.length());
        match length {
            Some(Some(length)) => bytes.extend_from_slice(format!("Content-Length: {length}\r\n").as_bytes()),
            Some(None) => bytes.extend_from_slice(b"Transfer-Encoding: chunked\r\n"),
            None if head.field("content-length").is_some() => {
                bytes.extend_from_slice(b"Content-Length: 0\r\n")
            }
            None => {}
        }
        bytes.extend_from_slice(b"\r\n");
        Outgoing { bytes, sent: 0, body, chunked: length == Some(None) }
    }

    /// What is to be sent next.
    pub(crate) fn bytes(&self) -> &[u8] {
        self.bytes.get(self.sent..).unwrap_or_default()
    }

    /// So much was sent.
    pub(crate) fn sent(&mut self, count: usize) {
        self.sent += count;
    }

    /// Nothing more is to be sent.
    pub(crate) fn stop(&mut self) {
        (self.body, self.bytes, self.sent) = (None, Vec::new(), 0);
    }

    /// The application takes its time, not the client.
    pub(crate) fn stop_waiting(&mut self) {
        if let Some(body) = &mut self.body {
            body.stop_waiting();
        }
    }

    /// Takes more of the body when nothing is left to be sent.
    pub(crate) fn fill(&mut self) -> Fill {
        if !self.bytes().is_empty() {
            return Fill::Send;
        }
        let Some(body) = &mut self.body else {
            self.stop();
            return Fill::Done;
        };
        self.sent = 0;
        self.bytes.resize(PIECE_BYTES, 0);
        let read = body.read(&mut self.bytes);
        let count = *read.as_ref().unwrap_or(&0);
        self.bytes.truncate(count);
        match read {
            Ok(0) => {
                self.body = None;
                if !self.chunked {
                    return Fill::Done;
                }
                self.bytes.extend_from_slice(b"0\r\n\r\n");
                Fill::Send
            }
            Ok(count) => {
                if self.chunked {
                    let line = format!("{count:x}\r\n");
                    self.bytes.splice(..0, line.into_bytes());
                    self.bytes.extend_from_slice(b"\r\n");
                }
                Fill::Send
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Fill::Wait,
            // The server knows why.
            Err(_) => Fill::Broken,
        }
    }
}

fn bracketed(name: &str) -> String {
    if name.contains(':') { format!("[{name}]") } else { name.to_owned() }
}

#[cfg(test)]
mod tests {
    use anygate_proto::application::Endpoints;
    use anygate_proto::head::RequestHead;

    use super::*;

    struct Pieces(Vec<&'static [u8]>, Option<u64>);

    impl Body for Pieces {
        fn length(&self) -> Option<u64> {
            self.1
        }

        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            if self.0.is_empty() {
                return Ok(0);
            }
            io::Read::read(&mut self.0.remove(0), buffer)
        }

        fn may_block(&self) -> bool {
            true
        }
    }

    fn written(fields: &[(&str, &str)], body: Option<Pieces>, websocket: bool) -> String {
        let mut head = RequestHead::default();
        let span = head.push_text(b"POST").unwrap();
        head.set_method(span);
        let span = head.push_text(b"/a%20b?c").unwrap();
        head.set_target(span);
        for (name, value) in fields {
            let (name, value) =
                (head.push_text(name.as_bytes()).unwrap(), head.push_text(value.as_bytes()).unwrap());
            head.push_field(name, value);
        }
        let ends = Endpoints { server_name: "::1".into(), server_port: "80".into(), ..Endpoints::default() };
        let body = body.map(|body| Box::new(body) as Box<dyn Body>);
        let request =
            Request { head: &head, body, endpoints: &ends, hidden_client: false, websocket, number: 0 };
        let mut outgoing = Outgoing::new(request, b"");
        let mut all = Vec::new();
        while let Fill::Send = outgoing.fill() {
            all.extend_from_slice(outgoing.bytes());
            outgoing.sent(outgoing.bytes().len());
        }
        let start = all
            .windows(5)
            .position(|bytes| bytes == b"POST ")
            .or(all.windows(4).position(|bytes| bytes == b"GET "));
        String::from_utf8(all.split_off(start.unwrap())).unwrap()
    }

    #[test]
    fn framing_is_written_anew() {
        let sent = [
            ("Content-Length", "3"),
            ("Transfer-Encoding", "chunked"),
            ("Connection", "close, X-Kept"),
            ("X-Kept", "1"),
            ("Expect", "100-continue"),
            ("TE", "trailers"),
        ];
        let head = "POST /a%20b?c HTTP/1.1\r\nHost: [::1]:80\r\nConnection: close\r\nX-Kept: 1\r\n";
        let whole = Pieces(vec![b"abc", b"de"], Some(5));
        assert_eq!(written(&sent, Some(whole), false), format!("{head}Content-Length: 5\r\n\r\nabcde"));
        let streamed = Pieces(vec![b"abcdefghijklmnop", b"q"], None);
        assert_eq!(
            written(&sent, Some(streamed), false),
            format!("{head}Transfer-Encoding: chunked\r\n\r\n10\r\nabcdefghijklmnop\r\n1\r\nq\r\n0\r\n\r\n")
        );
        assert_eq!(written(&sent, None, false), format!("{head}Content-Length: 0\r\n\r\n"));
        assert_eq!(written(&[], None, false), head.replace("X-Kept: 1\r\n", "\r\n"));
    }

    #[test]
    fn a_wish_for_a_websocket_is_the_routers_own() {
        let fields = [
            ("Upgrade", "websocket"),
            ("Sec-WebSocket-Key", "x"),
            ("Sec-WebSocket-Extensions", "permessage-deflate"),
            ("Sec-WebSocket-Protocol", "chat"),
        ];
        let text = written(&fields, None, true);
        assert!(text.starts_with("GET /a%20b?c HTTP/1.1\r\n"), "{text}");
        assert_eq!(text.matches("Upgrade: websocket").count(), 1);
        assert!(!text.contains("deflate") && text.contains("Sec-WebSocket-Protocol: chat\r\n"), "{text}");
    }
}
