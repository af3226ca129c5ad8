//! Questions to another server: GET requests (RFC 9112), each within one time. Connections are kept for the next ones. There
//! is no TLS: the server is on this machine or on a network that is trusted.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::ToSocketAddrs;
use std::time::{Duration, Instant};

use anygate_config::site::ServerAddress;
use anygate_lock::Mutex;
use anygate_proto::http1::{BodyDecoder, Framing};
use anygate_proto::limits::Limits;
use socket2::{Domain, SockAddr, Socket, Type};

/// Longest head of a response.
const HEAD_MAX_BYTES: usize = 64 * 1024;
const FIELDS_MAX: usize = 128;
/// Longest body of a response.
const BODY_MAX_BYTES: u64 = 64 * 1024;
const READ_BYTES: usize = 16 * 1024;
/// So many connections are kept, as long as they are used again within this time.
const KEPT_MAX: usize = 16;
const KEPT_FOR: Duration = Duration::from_secs(15);

/// A response.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Response {
    pub(super) status: u16,
    pub(super) reason: String,
    pub(super) fields: Vec<(String, Vec<u8>)>,
    pub(super) body: Vec<u8>,
    /// The version is HTTP/1.1.
    pub(super) is_persistent: bool,
}

/// Why there is no response.
#[derive(Debug)]
pub(super) enum NoResponse {
    /// It cannot be reached, or left.
    Io(io::Error),
    /// There was none in time.
    Timeout,
    /// It is no response of HTTP/1, or too long.
    Malformed,
}

impl fmt::Display for NoResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NoResponse::Io(error) => error.fmt(f),
            NoResponse::Timeout => f.write_str("it does not respond in time"),
            NoResponse::Malformed => f.write_str("its response is not one of HTTP/1, or too long"),
        }
    }
}

impl From<io::Error> for NoResponse {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => NoResponse::Timeout,
            _ => NoResponse::Io(error),
        }
    }
}

/// The way to another server, and connections that no request uses now.
#[derive(Debug)]
pub(super) struct Server {
    address: ServerAddress,
    kept: Mutex<Vec<IdleConnection>>,
}

/// A connection between two requests.
#[derive(Debug)]
struct IdleConnection {
    socket: Socket,
    since: Instant,
    /// Reads what is left of a body that was not wanted.
    rest: Option<BodyDecoder>,
}

impl Server {
    pub(super) fn new(address: &ServerAddress) -> Server {
        Server { address: address.clone(), kept: Mutex::default() }
    }

    /// Sends a request and returns the response. `wants_body`: whether a response of that status is wanted as a whole.
    pub(super) fn ask(
        &self,
        timeout: Duration,
        request: &[u8],
        wants_body: impl Fn(u16) -> bool,
    ) -> Result<Response, NoResponse> {
        let until = Instant::now() + timeout;
        while let Some(socket) = self.idle() {
            // It may have been closed meanwhile, which is no failure of the server.
            match self.exchange(socket, until, request, &wants_body) {
                Err((NoResponse::Io(_) | NoResponse::Malformed, false)) => {}
                result => return result.map_err(|(error, _)| error),
            }
        }
        let socket = connect(&self.address, until)?;
        self.exchange(socket, until, request, &wants_body).map_err(|(error, _)| error)
    }

    /// A connection that can be used again.
    fn idle(&self) -> Option<Socket> {
        loop {
            let kept = self.kept.lock().pop()?;
            if kept.since.elapsed() < KEPT_FOR
                && let Some(socket) = kept.ready()
            {
                return Some(socket);
            }
        }
    }

    /// Sends a request over a connection, and keeps that for others; an error has with it whether any of the response came.
    fn exchange(
        &self,
        socket: Socket,
        until: Instant,
        request: &[u8],
        wants_body: impl Fn(u16) -> bool,
    ) -> Result<Response, (NoResponse, bool)> {
        let mut has_come = false;
        let mut receive = |buffer: &mut [u8]| {
            socket.set_read_timeout(Some(left(until)?))?;
            let count = (&socket).read(buffer)?;
            has_come |= count > 0;
            Ok(count)
        };
        let sent = left(until).and_then(|left| {
            socket.set_write_timeout(Some(left))?;
            Ok((&socket).write_all(request)?)
        });
        let read = sent.and_then(|()| read(&mut receive, wants_body));
        let (response, end) = read.map_err(|error| (error, has_come))?;
        if let End::Known(rest) = end {
            let mut kept = self.kept.lock();
            if kept.len() < KEPT_MAX {
                kept.push(IdleConnection { socket, since: Instant::now(), rest });
            }
        }
        Ok(response)
    }
}

impl IdleConnection {
    /// The connection, if the last response on it has come to its end, and nothing after it.
    fn ready(mut self) -> Option<Socket> {
        self.socket.set_nonblocking(true).ok()?;
        let mut buffer = [0; 4096];
        loop {
            match (&self.socket).read(&mut buffer) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock && self.rest.is_none() => break,
                Ok(count) if count > 0 => {
                    let mut bytes = buffer.get(..count)?;
                    let rest = self.rest.as_mut()?;
                    if pass(rest, &mut bytes)? {
                        self.rest = None;
                    }
                    if !bytes.is_empty() {
                        return None;
                    }
                }
                _ => return None,
            }
        }
        self.socket.set_nonblocking(false).ok()?;
        Some(self.socket)
    }
}

/// Passes over a body; says whether it is complete. `None`: it is none.
fn pass(decoder: &mut BodyDecoder, input: &mut &[u8]) -> Option<bool> {
    loop {
        let step = decoder.decode(input).ok()?;
        *input = input.get(step.consumed..)?;
        if step.done || decoder.is_done() {
            return Some(true);
        }
        if step.consumed == 0 {
            return Some(false);
        }
    }
}

/// Where a response ends.
enum End {
    /// With its connection.
    Closes,
    /// There, or where this decoder says.
    Known(Option<BodyDecoder>),
}

/// The rest of the time.
fn left(until: Instant) -> Result<Duration, NoResponse> {
    let left = until.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(NoResponse::Timeout) } else { Ok(left) }
}

fn connect(address: &ServerAddress, until: Instant) -> Result<Socket, NoResponse> {
    match address {
        ServerAddress::Unix(path) => {
            let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
            // Connecting waits as long as sending does, where too many others wait to be accepted (unix(7)).
            socket.set_write_timeout(Some(left(until)?))?;
            socket.connect(&SockAddr::unix(path)?)?;
            Ok(socket)
        }
        ServerAddress::Tcp(host, port) => {
            let mut last = NoResponse::Io(io::Error::new(io::ErrorKind::NotFound, "its name has no address"));
            for address in (host.as_str(), *port).to_socket_addrs()? {
                let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
                match socket.connect_timeout(&address.into(), left(until)?) {
                    Ok(()) => return Ok(socket),
                    Err(error) => last = error.into(),
                }
            }
            Err(last)
        }
    }
}

/// Reads a response to its end.
fn read(
    receive: &mut impl FnMut(&mut [u8]) -> Result<usize, NoResponse>,
    wants_body: impl Fn(u16) -> bool,
) -> Result<(Response, End), NoResponse> {
    let (mut input, mut buffer) = (Vec::new(), vec![0; READ_BYTES]);
    let mut more = |input: &mut Vec<u8>| {
        let count = receive(&mut buffer)?;
        input.extend_from_slice(buffer.get(..count).unwrap_or_default());
        Ok::<_, NoResponse>(count > 0)
    };
    let mut response = loop {
        if let Some((taken, response)) = head(&input)? {
            input.drain(..taken);
            // RFC 9110 section 15.2: interim responses precede the one that is waited for.
            if !(100..200).contains(&response.status) {
                break response;
            }
            continue;
        }
        if input.len() > HEAD_MAX_BYTES || !more(&mut input)? {
            return Err(NoResponse::Malformed);
        }
    };
    let framing = framing(&response);
    if !wants_body(response.status) {
        let end = framing.ok().flatten().map_or(End::Closes, |framing| end_of(framing, &response, &input));
        return Ok((response, end));
    }
    let Some(framing) = framing? else {
        // Until the connection closes.
        while more(&mut input)? {
            if input.len() as u64 > BODY_MAX_BYTES {
                return Err(NoResponse::Malformed);
            }
        }
        response.body = input;
        return Ok((response, End::Closes));
    };
    let mut decoder = decoder(framing).ok_or(NoResponse::Malformed)?;
    while !decoder.is_done() {
        let step = decoder.decode(&input).map_err(|_| NoResponse::Malformed)?;
        response.body.extend_from_slice(input.get(step.data).unwrap_or_default());
        input.drain(..step.consumed);
        if !step.done && step.consumed == 0 && !more(&mut input)? {
            return Err(NoResponse::Malformed);
        }
        if step.done {
            break;
        }
    }
    let is_kept = input.is_empty() && keeps(&response);
    Ok((response, if is_kept { End::Known(None) } else { End::Closes }))
}

fn decoder(framing: Framing) -> Option<BodyDecoder> {
    BodyDecoder::new(framing, &Limits { body_max_bytes: BODY_MAX_BYTES, ..Limits::default() }).ok()
}

/// Where a response ends whose body is not wanted, of which `input` has come.
fn end_of(framing: Framing, response: &Response, mut input: &[u8]) -> End {
    if !keeps(response) {
        return End::Closes;
    }
    let Some(mut decoder) = decoder(framing) else { return End::Closes };
    match decoder.is_done().then_some(true).or_else(|| pass(&mut decoder, &mut input)) {
        Some(true) if input.is_empty() => End::Known(None),
        Some(false) => End::Known(Some(decoder)),
        _ => End::Closes,
    }
}

/// Whether the server keeps the connection (RFC 9112 section 9.3).
fn keeps(response: &Response) -> bool {
    let is_connection = |field: &&(String, Vec<u8>)| field.0.eq_ignore_ascii_case("connection");
    let mut fields = response.fields.iter().filter(is_connection);
    response.is_persistent
        && !fields.any(|(_, value)| {
            value.split(|&byte| byte == b',').any(|word| word.trim_ascii().eq_ignore_ascii_case(b"close"))
        })
}

/// Takes a head off; `None` if more must come.
fn head(input: &[u8]) -> Result<Option<(usize, Response)>, NoResponse> {
    let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
    let mut parsed = httparse::Response::new(&mut fields);
    let taken = match parsed.parse(input) {
        Ok(httparse::Status::Complete(taken)) => taken,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(_) => return Err(NoResponse::Malformed),
    };
    let fields = parsed.headers.iter().map(|field| (field.name.to_owned(), field.value.to_vec())).collect();
    let (status, reason) = (parsed.code.unwrap_or_default(), parsed.reason.unwrap_or_default().to_owned());
    let is_persistent = parsed.version == Some(1);
    Ok(Some((taken, Response { status, reason, fields, body: Vec::new(), is_persistent })))
}

/// How the body of a response to GET ends (RFC 9112 section 6.3); `None`: with the connection.
fn framing(response: &Response) -> Result<Option<Framing>, NoResponse> {
    let values = |name: &'static str| {
        let is = move |field: &&(String, Vec<u8>)| field.0.eq_ignore_ascii_case(name);
        response.fields.iter().filter(is).map(|(_, value)| value.trim_ascii())
    };
    if matches!(response.status, 204 | 304) {
        return Ok(Some(Framing::None));
    }
    if let Some(coding) = values("transfer-encoding").next() {
        let is_chunked = coding.eq_ignore_ascii_case(b"chunked") && values("transfer-encoding").count() == 1;
        return if is_chunked { Ok(Some(Framing::Chunked)) } else { Err(NoResponse::Malformed) };
    }
    let Some(length) = values("content-length").next() else { return Ok(None) };
    if values("content-length").any(|other| other != length) || !length.iter().all(u8::is_ascii_digit) {
        return Err(NoResponse::Malformed);
    }
    let length = std::str::from_utf8(length).ok().and_then(|length| length.parse().ok());
    Ok(Some(Framing::Length(length.ok_or(NoResponse::Malformed)?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The response that is read from these bytes, whatever pieces they come in.
    fn response(text: &str) -> Option<(u16, String)> {
        let whole = |pieces: usize| {
            let mut left = text.as_bytes();
            let mut receive = |buffer: &mut [u8]| {
                let (piece, rest) = left.split_at(pieces.min(left.len()).min(buffer.len()));
                buffer[..piece.len()].copy_from_slice(piece);
                left = rest;
                Ok(piece.len())
            };
            let (response, _) = read(&mut receive, |status| status >= 300).ok()?;
            Some((response.status, String::from_utf8(response.body).unwrap()))
        };
        let found = whole(usize::MAX);
        for pieces in [1, 2, 7].iter().copied().filter(|_| text.len() < 1000) {
            assert_eq!(whole(pieces), found, "{text:?}");
        }
        found
    }

    #[test]
    fn responses_are_read_to_their_end() {
        let is = |status: u16, body: &str| Some((status, body.to_owned()));
        assert_eq!(response("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"), is(200, ""));
        assert_eq!(response("HTTP/1.1 401 No\r\nContent-Length: 2\r\n\r\nNo"), is(401, "No"));
        assert_eq!(response("HTTP/1.0 403 No\r\n\r\nuntil the end"), is(403, "until the end"));
        assert_eq!(response("HTTP/1.1 304 Same\r\nContent-Length: 9\r\n\r\n"), is(304, ""));
        let chunked = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 302 X\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n1\r\nd\r\n0\r\n\r\n";
        assert_eq!(response(chunked), is(302, "abcd"));
    }

    #[test]
    fn what_is_no_whole_response_is_none() {
        let long = "x".repeat(100_000);
        for wrong in [
            "",
            "HTTP/1.1 401 No\r\n",
            "SSH-2.0-OpenSSH\r\n\r\n",
            "HTTP/1.1 401 No\r\nContent-Length: 5\r\n\r\nNo",
            "HTTP/1.1 401 No\r\nContent-Length: +2\r\n\r\nNo",
            "HTTP/1.1 401 No\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nNo",
            "HTTP/1.1 401 No\r\nTransfer-Encoding: gzip, chunked\r\n\r\nNo",
            "HTTP/1.1 401 No\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nNo",
            &format!("HTTP/1.1 401 No\r\nX: {long}\r\n\r\n"),
            &format!("HTTP/1.1 401 No\r\n\r\n{long}"),
            &format!("HTTP/1.1 401 No\r\nContent-Length: 100000\r\n\r\n{long}"),
        ] {
            assert_eq!(response(wrong), None, "{wrong:.60?}");
        }
    }
}
