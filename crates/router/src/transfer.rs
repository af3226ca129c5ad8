//! One request that is passed on, until its response is complete: what the client sends goes to the application, and what
//! the application sends to the client, each as fast as the other side takes it. Nothing here waits.

use std::fmt;
use std::io::{self, Read, Write};
use std::time::{Duration, Instant};

use anygate_proto::application::{Call, Failed, Request, SendError};
use anygate_proto::head::ResponseHead;
use mio::net::UnixStream;

use crate::request::{Fill, Outgoing};
use crate::response::{self, BodyReader, Malformed};

/// Maximum number of bytes that are received at once.
const PIECE_BYTES: usize = 64 * 1024;
/// Maximum pieces in a row of one response before others have their turn.
const PIECES_PER_TURN: usize = 16;

/// A request on its way.
pub(crate) struct Transfer {
    pub(crate) call: Box<dyn Call>,
    /// Place of the application among the routes.
    pub(crate) route: usize,
    pub(crate) stream: UnixStream,
    request: Outgoing,
    /// Received and not used.
    pub(crate) input: Vec<u8>,
    progress: Progress,
    /// The socket may take more, or have more, as far as is known.
    can_write: bool,
    can_read: bool,
    /// The body's client is late then.
    pub(crate) late_at: Option<Instant>,
    /// As the server says.
    body_timeout: Duration,
    /// Something was written that was not flushed.
    unflushed: bool,
    head_request: bool,
    websocket: bool,
}

enum Progress {
    /// The head of the response is to come.
    Head,
    Body(BodyReader),
}

/// What becomes of a transfer.
pub(crate) enum Step {
    /// It waits for news.
    Wait,
    /// It has had its turn, and can go on at once.
    Again,
    /// The application has accepted the WebSocket, with this head.
    Upgrade(ResponseHead),
    /// It is over.
    Over(Result<(), Failed>),
}

/// Why there is no whole response of the application.
enum Fault {
    /// Its client is gone, or sent a broken body; the server knows.
    Client,
    /// The application ended the connection.
    Ended,
    Malformed(Malformed),
    Io(io::Error),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Client => f.write_str("the client is gone"),
            Fault::Ended => f.write_str("its process ended before the response did"),
            Fault::Malformed(malformed) => malformed.fmt(f),
            Fault::Io(error) => error.fmt(f),
        }
    }
}

impl From<Malformed> for Fault {
    fn from(malformed: Malformed) -> Self {
        Fault::Malformed(malformed)
    }
}

impl From<SendError> for Fault {
    fn from(error: SendError) -> Self {
        match error {
            SendError::Disconnected | SendError::Spool => Fault::Client,
            SendError::ContentLength => Fault::Malformed(Malformed("its length is wrong")),
            SendError::Order | SendError::NoWebSocket | SendError::Subprotocol => {
                Fault::Malformed(Malformed("its parts are out of order"))
            }
        }
    }
}

impl Transfer {
    /// Begins to pass `call` on over `stream`. `mount`: where the application is. `None`: the call has no request any more.
    pub(crate) fn new(
        mut call: Box<dyn Call>,
        route: usize,
        mount: &[u8],
        stream: UnixStream,
        body_timeout: Duration,
    ) -> Option<Transfer> {
        let request: Request<'_> = call.request()?;
        let (head_request, websocket) = (request.head.method() == b"HEAD", request.websocket);
        let request = Outgoing::new(request, mount);
        call.entered();
        Some(Transfer {
            call,
            route,
            stream,
            request,
            input: Vec::new(),
            progress: Progress::Head,
            can_write: true,
            can_read: true,
            late_at: None,
            body_timeout,
            unflushed: false,
            head_request,
            websocket,
        })
    }

    /// The socket can do more than before.
    pub(crate) fn note(&mut self, readable: bool, writable: bool) {
        self.can_read |= readable;
        self.can_write |= writable;
    }

    /// Goes on as far as possible. `application`: its name, for messages.
    pub(crate) fn go_on(&mut self, application: &str, now: Instant) -> Step {
        match self.turn(now) {
            Ok(Step::Wait) => {
                // What came before the wish for news would not be told.
                self.call.want_news();
                self.turn(now).unwrap_or_else(|fault| self.end(&fault, application))
            }
            Ok(step) => step,
            Err(fault) => self.end(&fault, application),
        }
    }

    fn turn(&mut self, now: Instant) -> Result<Step, Fault> {
        if !self.call.started() && !self.call.wants_more() {
            return Err(Fault::Client);
        }
        self.send(now)?;
        let step = self.receive()?;
        if let Step::Wait | Step::Again = step
            && std::mem::take(&mut self.unflushed)
        {
            self.call.flush()?;
        }
        let goes_on = matches!(step, Step::Wait | Step::Again);
        // As for an application whose response is not iterated to its end (PEP 3333).
        Ok(if goes_on && self.call.started() && !self.call.wants_more() { Step::Over(Ok(())) } else { step })
    }

    /// Sends the request as far as the application takes it.
    fn send(&mut self, now: Instant) -> Result<(), Fault> {
        self.late_at = None;
        while self.can_write {
            match self.request.fill() {
                Fill::Done => return Ok(()),
                Fill::Broken => return Err(Fault::Client),
                Fill::Wait => {
                    self.late_at = Some(now + self.body_timeout);
                    return Ok(());
                }
                Fill::Send => match (&self.stream).write(self.request.bytes()) {
                    Ok(count) => self.request.sent(count),
                    Err(error) if is_pause(&error) => self.can_write = false,
                    // It takes no more, but may have responded.
                    Err(_) => {
                        self.request.stop();
                        return Ok(());
                    }
                },
            }
        }
        self.request.stop_waiting();
        Ok(())
    }

    /// Receives as much of the response as its client takes.
    fn receive(&mut self) -> Result<Step, Fault> {
        for _ in 0..PIECES_PER_TURN {
            if let Some(step) = self.use_input()? {
                return Ok(step);
            }
            if !self.can_read || (self.call.started() && !self.call.has_room()) {
                return Ok(Step::Wait);
            }
            let before = self.input.len();
            self.input.resize(before + PIECE_BYTES, 0);
            let read = (&self.stream).read(self.input.get_mut(before..).unwrap_or_default());
            self.input.truncate(before + read.as_ref().unwrap_or(&0));
            match read {
                Ok(0) => return Err(Fault::Ended),
                Ok(_) => {}
                Err(error) if is_pause(&error) => self.can_read = false,
                Err(error) => return Err(Fault::Io(error)),
            }
        }
        Ok(Step::Again)
    }

    /// Uses what was received; `None`: more must come.
    fn use_input(&mut self) -> Result<Option<Step>, Fault> {
        loop {
            let step = match &mut self.progress {
                Progress::Head => match self.head()? {
                    None => return Ok(None),
                    Some(step) => step,
                },
                Progress::Body(reader) => {
                    let piece = reader.read(&self.input)?;
                    let data = self.input.get(piece.data).unwrap_or_default();
                    if !data.is_empty() {
                        self.call.write(data)?;
                        self.unflushed = true;
                    }
                    self.input.drain(..piece.consumed);
                    if !piece.done && piece.consumed == 0 {
                        return Ok(None);
                    }
                    piece.done.then_some(Step::Over(Ok(())))
                }
            };
            if step.is_some() {
                return Ok(step);
            }
        }
    }

    /// Takes a head. `None`: it is not complete; `Some(None)`: there is more to take.
    fn head(&mut self) -> Result<Option<Option<Step>>, Fault> {
        if self.input.is_empty() {
            return Ok(None);
        }
        let Some(head) = response::head(&self.input, self.head_request)? else { return Ok(None) };
        self.input.drain(..head.consumed);
        match head.head.status() {
            101 if self.websocket => return Ok(Some(Some(Step::Upgrade(head.head)))),
            101 => return Err(Malformed("it changes the protocol unasked").into()),
            100..200 => {
                // A client that does not know them gets none.
                if head.head.status() != 100 && self.call.offers_interim() {
                    self.call.interim(&head.head)?;
                }
                return Ok(Some(None));
            }
            _ => {}
        }
        self.call.start(&head.head, None)?;
        self.unflushed = true;
        let reader = BodyReader::new(head.framing)?;
        if reader.is_done() {
            return Ok(Some(Some(Step::Over(Ok(())))));
        }
        self.progress = Progress::Body(reader);
        Ok(Some(None))
    }

    /// Ends for a fault.
    fn end(&mut self, fault: &Fault, application: &str) -> Step {
        if let Fault::Client = fault {
            return Step::Over(Err(Failed));
        }
        self.call.within(&mut |head| {
            let (method, target) = (head.method().escape_ascii(), head.target().escape_ascii());
            tracing::warn!("application {application:?} did not respond to {method} {target}: {fault}");
        });
        if self.call.started() {
            // The client is to see that it is not whole.
            return Step::Over(Err(Failed));
        }
        Step::Over(refuse(self.call.as_mut(), Refusal::BadGateway))
    }
}

/// What a client gets when there is no response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// No application is at this path and host.
    NotFound,
    /// Its response cannot be used.
    BadGateway,
    /// It does not run, or has too much to do.
    Unavailable,
}

/// Responds in an application's place.
pub(crate) fn refuse(response: &mut (dyn Call + '_), refusal: Refusal) -> Result<(), Failed> {
    let (line, more): (&str, &[(&str, &str)]) = match refusal {
        Refusal::NotFound => ("404 Not Found", &[]),
        Refusal::BadGateway => ("502 Bad Gateway", &[]),
        Refusal::Unavailable => ("503 Service Unavailable", &[("Retry-After", "5")]),
    };
    let mut head = ResponseHead::new();
    let fields = [("Content-Type", "text/plain; charset=utf-8")];
    let made = head.set_status_line(line.as_bytes()).and_then(|()| {
        fields
            .iter()
            .chain(more)
            .try_for_each(|(name, value)| head.push_field(name.as_bytes(), value.as_bytes()))
    });
    made.map_err(|_| Failed)?;
    let body = format!("{line}\n");
    response.start(&head, Some(body.len() as u64)).map_err(|_| Failed)?;
    response.write(body.as_bytes()).map_err(|_| Failed)
}

fn is_pause(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}
