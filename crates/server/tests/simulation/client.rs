//! A client of a simulation: it sends its requests in pieces, and checks every byte that it receives.

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use anygate_sys::{Address, poll};
use socket2::{Domain, SockAddr, Socket, Type};

use crate::plan::{End, Id, Plan};

pub(crate) struct Client {
    pub(crate) number: usize,
    bytes: Vec<u8>,
    /// Where each request ends in them.
    ends: Vec<usize>,
    sent: usize,
    /// When the end of each request was sent.
    pub(crate) sent_at: Vec<Instant>,
    socket: Option<Socket>,
    pub(crate) state: State,
    half_closed: bool,
    /// When it has half-closed the connection by itself.
    pub(crate) half_closed_at: Option<Instant>,
    /// When it has seen the end of the connection.
    pub(crate) ended_at: Option<Instant>,
    received: Vec<u8>,
    /// Responses to its requests.
    pub(crate) responses: usize,
    /// When each of them was whole.
    pub(crate) received_at: Vec<Instant>,
    /// A response to what was no whole request.
    pub(crate) refusals: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Unconnected,
    Open,
    /// The worker has closed the connection.
    Ended,
    /// The client has.
    Left,
}

impl Client {
    pub(crate) fn new(plan: &Plan, number: usize) -> Self {
        let (bytes, ends) = plan.bytes_of(number);
        Client {
            number,
            bytes,
            ends,
            sent: 0,
            sent_at: Vec::new(),
            socket: None,
            state: State::Unconnected,
            half_closed: false,
            half_closed_at: None,
            ended_at: None,
            received: Vec::new(),
            responses: 0,
            received_at: Vec::new(),
            refusals: 0,
        }
    }

    pub(crate) fn connect(&mut self, address: &Address) -> io::Result<()> {
        let socket = match address {
            Address::Inet(address) => {
                let socket = Socket::new(Domain::for_address(*address), Type::STREAM, None)?;
                socket.connect(&(*address).into())?;
                socket.set_tcp_nodelay(true)?;
                socket
            }
            Address::Unix(path) => {
                let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
                let path = path.as_ref().ok_or_else(|| io::Error::other("a socket without a path"))?;
                socket.connect(&SockAddr::unix(path)?)?;
                socket
            }
        };
        socket.set_nonblocking(true)?;
        self.socket = Some(socket);
        self.state = State::Open;
        Ok(())
    }

    /// Number of its requests that are sent as a whole, as far as the plan goes.
    pub(crate) fn whole_requests(&self, plan: &Plan) -> usize {
        let last = match plan.clients[self.number].end {
            End::CutAfter(after) | End::ResetAfter(after) => after,
            _ => self.bytes.len(),
        };
        self.ends.iter().filter(|&&end| end <= last).count()
    }

    /// Sends up to `length` bytes, then does what the plan says of the end. Returns whether anything has happened.
    pub(crate) fn send(&mut self, plan: &Plan, length: usize) -> bool {
        let wanted = &plan.clients[self.number];
        let mut until = match wanted.end {
            End::CutAfter(after) | End::ResetAfter(after) => after,
            _ => self.bytes.len(),
        };
        if self.sent == until {
            return self.finish(wanted.end);
        }
        if !wanted.pipelines {
            until = until.min(self.ends.get(self.responses).copied().unwrap_or(until));
        }
        let piece = self.bytes.get(self.sent..until.min(self.sent + length)).unwrap_or_default();
        let Some(socket) = &mut self.socket else { return false };
        if self.half_closed || piece.is_empty() {
            return false;
        }
        match socket.write(piece) {
            Ok(count) => {
                self.sent += count;
                let whole = self.ends.iter().filter(|&&end| end <= self.sent).count();
                self.sent_at.resize(whole, Instant::now());
                true
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => false,
            // The worker has closed the connection; what it has sent before can still be read.
            Err(_) => {
                self.half_closed = true;
                true
            }
        }
    }

    /// Everything is sent.
    fn finish(&mut self, end: End) -> bool {
        let Some(socket) = &self.socket else { return false };
        match end {
            End::Stay => false,
            End::Close if self.responses < self.ends.len() => false,
            End::Close => self.leave(),
            End::HalfClose | End::CutAfter(_) => {
                let now = Instant::now();
                let done = !self.half_closed && socket.shutdown(Shutdown::Write).is_ok();
                if done {
                    self.half_closed_at = Some(now);
                }
                self.half_closed = true;
                done
            }
            End::ResetAfter(_) => {
                // On a unix socket closing is all there is.
                let _ = socket.set_linger(Some(Duration::ZERO));
                self.leave()
            }
        }
    }

    fn end(&mut self) {
        (self.socket, self.state, self.ended_at) = (None, State::Ended, Some(Instant::now()));
    }

    fn leave(&mut self) -> bool {
        self.socket = None;
        self.state = State::Left;
        true
    }

    /// Receives up to `length` bytes. Returns whether anything has happened.
    ///
    /// Errors: what was received is not what was to be.
    pub(crate) fn receive(&mut self, plan: &Plan, length: usize) -> Result<bool, String> {
        let Some(socket) = &mut self.socket else { return Ok(false) };
        let mut buffer = vec![0; length];
        match socket.read(&mut buffer) {
            Ok(0) => {
                self.end();
                match self.received.is_empty() {
                    true => Ok(true),
                    false => Err(format!("client {}: the connection ended amid a response", self.number)),
                }
            }
            Ok(count) => {
                self.received.extend_from_slice(&buffer[..count]);
                while self.take_response(plan)? {}
                Ok(true)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
            Err(_) => {
                self.end();
                Ok(true)
            }
        }
    }

    /// Waits a little for something to receive.
    pub(crate) fn wait(&self, longest: Duration) {
        if let Some(socket) = &self.socket {
            // What is wrong with it shows when it is read.
            let _ = poll::wait_readable(socket.as_fd(), Some(longest));
        }
    }

    /// Takes a whole response off what was received, if there is one.
    fn take_response(&mut self, plan: &Plan) -> Result<bool, String> {
        let wrong = |what: &str| Err(format!("client {}, response {}: {what}", self.number, self.responses));
        let Some(end) = self.received.windows(4).position(|four| four == b"\r\n\r\n") else {
            return Ok(false);
        };
        let head = String::from_utf8_lossy(&self.received[..end]).into_owned();
        let field = |name: &str| {
            let named =
                |line: &&str| line.split(':').next().is_some_and(|first| first.eq_ignore_ascii_case(name));
            head.lines()
                .find(named)
                .and_then(|line| line.split_once(':'))
                .map(|(_, value)| value.trim().to_owned())
        };
        let body = match field("content-length").map(|length| length.parse::<usize>()) {
            Some(Ok(length)) => {
                self.received.get(end + 4..end + 4 + length).map(|body| (body.to_vec(), length))
            }
            Some(Err(_)) => return wrong(&head),
            None if field("transfer-encoding").is_some() => {
                unchunk(&self.received[end + 4..]).map_err(|()| head.clone())?
            }
            None => return wrong(&format!("no length: {head}")),
        };
        let Some((body, length)) = body else { return Ok(false) };
        let id: Id = (self.number, self.responses);
        let cut = matches!(plan.clients[self.number].end, End::CutAfter(_));
        if !head.starts_with("HTTP/1.1 200 ") {
            if !cut || self.responses < self.whole_requests(plan) || self.refusals > 0 {
                return wrong(&head);
            }
            self.refusals += 1;
        } else if id.1 >= self.ends.len() {
            return wrong(&format!("one too many: {head}"));
        } else if field("x-id") != Some(format!("{}/{}", id.0, id.1)) {
            return wrong(&format!("it is another request's: {head}"));
        } else if field("x-sum") != Some(plan.sum(id).to_string()) {
            return wrong("the application has received another body");
        } else if body != plan.response(id) {
            return wrong(&format!("its body is wrong, {} bytes", body.len()));
        } else {
            self.responses += 1;
            self.received_at.push(Instant::now());
        }
        self.received.drain(..end + 4 + length);
        Ok(true)
    }

    pub(crate) fn summary(&self) -> String {
        let Client { number, state, sent, responses, refusals, .. } = self;
        format!("client {number}: {state:?}, {sent} bytes sent, {responses} responses, {refusals} refusals")
    }
}

/// A chunked body and how many bytes it takes; `None` if it is not whole.
type Unchunked = Option<(Vec<u8>, usize)>;

fn unchunk(bytes: &[u8]) -> Result<Unchunked, ()> {
    let mut body = Vec::new();
    let mut at = 0;
    loop {
        let rest = &bytes[at..];
        let Some(line) = rest.windows(2).position(|two| two == b"\r\n") else { return Ok(None) };
        let size = std::str::from_utf8(&rest[..line]).map_err(|_| ())?;
        let size = usize::from_str_radix(size, 16).map_err(|_| ())?;
        let Some(chunk) = rest.get(line + 2..line + 2 + size + 2) else { return Ok(None) };
        at += line + 2 + size + 2;
        if !chunk.ends_with(b"\r\n") {
            return Err(());
        }
        body.extend_from_slice(&chunk[..size]);
        if size == 0 {
            return Ok(Some((body, at)));
        }
    }
}
