//! One request and its answer. The exchange keeps the memory that both need and is used again by another connection
//! when it is over; an [`Answer`] lives while the application answers: it frames, counts and hands bytes to the pipe.
//!
//! What may follow an answer on its connection is decided here (RFC 9112 section 9); carrying it out is `connection`'s.

pub(crate) mod body;

use std::io::IoSlice;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Instant, SystemTime};

use anygate_config::Protocol;
use anygate_policy::policies::{OwnResponse, RequestPolicies};
use anygate_proto::application::{Body, Endpoints, Response, SendError, Socket};
use anygate_proto::cgi::{self, StatusForm};
use anygate_proto::fastcgi;
use anygate_proto::head::{RequestHead, ResponseHead, Version};
use anygate_proto::http1::{self, BodyFraming, CHUNK_END, LAST_CHUNK};
use anygate_proto::http2;
use anygate_proto::status::reason;
use anygate_proto::websocket::handshake;
use tracing::Span;

use crate::attention::Attention;
use crate::date::DateCache;
use crate::finished::Finished;
use crate::outbox::{FilePart, Pipe, Records, Upgraded};
use crate::rules::{OutboxLimits, ResponseRules};
use crate::sampling::Begun;
use crate::websocket::{Relay, Session, Upgrade};
use body::BodyStream;

/// Bodies' pieces up to this size are copied behind the head, so that one system call sends both; larger ones are
/// sent from where they lie.
const COPY_MAX_BYTES: usize = 16 * 1024;
/// FastCGI records that one system call sends.
const RECORDS_AT_ONCE: usize = 16;
/// An exchange that is used again keeps no more output memory than this.
const KEPT_BYTES: usize = 64 * 1024;

/// One request, complete or streamed, with the memory for its answer.
#[derive(Default)]
pub(crate) struct Exchange {
    pub(crate) head: RequestHead,
    pub(crate) body: RequestBody,
    /// Between whom the request travelled, where the connection's own ends do not say.
    pub(crate) endpoints: Option<Endpoints>,
    /// They, or the connection's, have a proxy in place of the client.
    pub(crate) hidden_client: bool,
    /// How the answer is written.
    pub(crate) form: Form,
    /// Whether the client lets the connection stay after this exchange.
    pub(crate) keep_alive: bool,
    /// The path is one of those whose bodies are passed on as they arrive.
    pub(crate) streamed: bool,
    /// The request asks for a WebSocket.
    pub(crate) upgrade: Option<Box<Upgrade>>,
    /// Its head [was looked at](Exchange::enter).
    pub(crate) entered: bool,
    /// What the site does with the request and its answer.
    pub(crate) passage: Option<Box<RequestPolicies>>,
    /// What is logged of a request that has a name.
    span: Option<Span>,
    /// The site has looked at the request.
    pub(crate) admitted: Option<Admitted>,
    /// Since when the request is complete, where somebody counts.
    pub(crate) ready: Option<Instant>,
    /// How far the answer is.
    progress: Progress,
    pub(crate) out: Vec<u8>,
    /// The pipe holds the end of the answer back.
    pub(crate) held: bool,
    /// What is left to be sent ends a stream of HTTP/2.
    pub(crate) ends: bool,
}

impl Exchange {
    /// Says how the answer is to be written.
    pub(crate) fn set_form(&mut self, protocol: Protocol) {
        match protocol {
            // Only a request knows that it is one of HTTP/2.
            Protocol::Http | Protocol::Https | Protocol::Redirect => {}
            Protocol::Scgi => self.form = Form::Cgi(StatusForm::Field),
            Protocol::Uwsgi => self.form = Form::Cgi(StatusForm::Line),
            // Each of its requests knows its number already.
            Protocol::FastCgi => {}
        }
    }

    /// A copy that has what an answer of our own must know.
    pub(crate) fn outline(&self) -> Box<Exchange> {
        let (head, span) = (self.head.clone(), self.span.clone());
        Box::new(Exchange { head, form: self.form, admitted: self.admitted, span, ..Exchange::default() })
    }

    /// The site lets the request go on.
    pub(crate) fn pass(&mut self, passage: Option<Box<RequestPolicies>>) {
        self.span = passage.as_deref().and_then(span);
        self.passage = passage;
    }

    /// What is logged inside is told apart from what other requests do.
    pub(crate) fn span(&self) -> Span {
        self.span.clone().unwrap_or_else(Span::none)
    }

    /// Whether the head of the answer was given.
    pub(crate) fn is_answered(&self) -> bool {
        is_answered(&self.progress, self.upgrade.as_deref())
    }

    /// Bytes of the answer's body so far.
    pub(crate) fn answered_bytes(&self) -> u64 {
        self.progress.body_bytes
    }

    /// Forgets the request but keeps a sensible amount of memory.
    pub(crate) fn clear(&mut self) {
        self.head.clear();
        if self.head.capacity_bytes() > KEPT_BYTES {
            self.head = RequestHead::default();
        }
        self.body = RequestBody::default();
        self.endpoints = None;
        self.hidden_client = false;
        self.form = Form::default();
        self.upgrade = None;
        self.entered = false;
        self.passage = None;
        self.span = None;
        self.admitted = None;
        self.ready = None;
        self.progress = Progress::default();
        self.out.clear();
        self.out.shrink_to(KEPT_BYTES);
        self.keep_alive = false;
        self.streamed = false;
        self.held = false;
        self.ends = false;
    }
}

/// The span of a request, if it has a name.
pub(crate) fn span(passage: &RequestPolicies) -> Option<Span> {
    let (id, trace) = (passage.id(), passage.trace());
    (id.is_some() || trace.is_some()).then(|| tracing::error_span!(parent: None, "request", id, trace))
}

/// What a site knows of a request that it has looked at.
#[derive(Clone, Copy)]
pub(crate) struct Admitted {
    pub(crate) https: bool,
}

/// How an answer is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Form {
    /// An HTTP/1 message.
    #[default]
    Http,
    /// CGI text; its end is that of the connection.
    Cgi(StatusForm),
    /// CGI text in the records of one FastCGI request.
    FastCgi { id: u16 },
    /// A message of HTTP/2; its stream is its connection's socket.
    Http2,
}

/// The body that the application will get.
#[derive(Default)]
pub(crate) enum RequestBody {
    #[default]
    None,
    Received(Box<dyn Body>),
    Stream(BodyStream),
}

/// What the application announced with Content-Length and has not yet given.
#[derive(Default)]
pub(crate) struct Announced {
    pub(crate) left: u64,
    exceeded: bool,
}

impl Announced {
    pub(crate) fn new(framing: Option<BodyFraming>) -> Announced {
        let left = if let Some(BodyFraming::Length(length)) = framing { length } else { 0 };
        Announced { left, exceeded: false }
    }

    /// How many of `length` more bytes may be sent; says so once when the application gives more than it announced.
    pub(crate) fn take(&mut self, length: u64) -> u64 {
        if length > self.left && !self.exceeded {
            self.exceeded = true;
            tracing::error!("the application gave more bytes than its Content-Length; the rest is dropped");
        }
        let taken = length.min(self.left);
        self.left -= taken;
        taken
    }
}

/// How far an answer is.
#[derive(Default)]
struct Progress {
    keep_alive: bool,
    framing: Option<BodyFraming>,
    announced: Announced,
    body_bytes: u64,
    sent_bytes: u64,
    status: u16,
    /// The client has the end of the message, although the call goes on.
    concluded: bool,
    /// The head, kept when the access log may want a field of it.
    kept_head: Option<ResponseHead>,
    /// The beginning of the application's own code, if this call is measured.
    begun: Option<Begun>,
    measured: bool,
    /// When the application's own code began, if somebody counts.
    entered: Option<Instant>,
    timed: bool,
}

/// What the connection became, if the answer made something of it.
fn upgraded(upgrade: Option<&Upgrade>) -> Option<&dyn Upgraded> {
    upgrade?.upgraded.as_deref()
}

fn is_answered(progress: &Progress, upgrade: Option<&Upgrade>) -> bool {
    progress.framing.is_some() || upgraded(upgrade).is_some()
}

/// An answer that is being given; see `proto::application::Response` for its rules. All that it must remember is in its
/// exchange.
pub(crate) struct Answer<'a> {
    pipe: &'a Arc<Pipe>,
    limits: &'a OutboxLimits,
    rules: &'a ResponseRules,
    date: &'a mut DateCache,
    draining: &'a AtomicBool,
    out: &'a mut Vec<u8>,
    held: &'a mut bool,
    ends: &'a mut bool,
    /// It is given in place of the application's, which is not heard any more.
    in_place: bool,
    form: Form,
    version: Version,
    admitted: Option<Admitted>,
    head: &'a RequestHead,
    upgrade: Option<&'a mut Upgrade>,
    progress: &'a mut Progress,
}

impl<'a> Answer<'a> {
    /// Begins the answer of an exchange.
    pub(crate) fn new(
        exchange: &'a mut Exchange,
        pipe: &'a Arc<Pipe>,
        rules: &'a ResponseRules,
        date: &'a mut DateCache,
        options: AnswerOptions<'a>,
    ) -> (Self, &'a RequestHead, RequestBody, Option<&'a Endpoints>) {
        exchange.progress = Progress {
            keep_alive: exchange.keep_alive,
            kept_head: options.keep_head.then(ResponseHead::default),
            measured: options.measured,
            timed: options.timed,
            ..Progress::default()
        };
        let body = std::mem::take(&mut exchange.body);
        let (mut answer, head, endpoints) = Answer::resume(exchange, pipe, rules, date, options.draining);
        answer.in_place = options.in_place;
        (answer, head, body, endpoints)
    }

    /// Goes on with the answer of an exchange.
    pub(crate) fn resume(
        exchange: &'a mut Exchange,
        pipe: &'a Arc<Pipe>,
        rules: &'a ResponseRules,
        date: &'a mut DateCache,
        draining: &'a AtomicBool,
    ) -> (Self, &'a RequestHead, Option<&'a Endpoints>) {
        let Exchange {
            ready: _,
            entered: _,
            passage: _,
            span: _,
            admitted,
            head,
            body: _,
            endpoints,
            hidden_client: _,
            form,
            keep_alive: _,
            streamed,
            upgrade,
            progress,
            out,
            held,
            ends,
        } = exchange;
        let answer = Answer {
            pipe,
            limits: if *streamed { &rules.streamed_outbox } else { &rules.outbox },
            rules,
            date,
            draining,
            out,
            held,
            ends,
            in_place: false,
            form: *form,
            version: head.version(),
            admitted: *admitted,
            head,
            upgrade: upgrade.as_deref_mut(),
            progress,
        };
        (answer, head, endpoints.as_ref())
    }

    /// Ends the message; its last bytes are left in the exchange, for [`Connection::send_rest`]. `failed`: the application
    /// broke off, so that the client must not take it for whole.
    ///
    /// [`Connection::send_rest`]: crate::connection::Connection::send_rest
    pub(crate) fn finish(mut self, failed: bool) -> Finished {
        if let Some(upgraded) = upgraded(self.upgrade.as_deref()) {
            *self.ends = self.form == Form::Http2;
            return Finished {
                keep_alive: false,
                status: if self.form == Form::Http2 { 200 } else { 101 },
                body_bytes: upgraded.finish(failed),
                head: self.progress.kept_head.take(),
                sample: None,
                entered: self.progress.entered,
                upgraded: true,
            };
        }
        if self.progress.framing.is_none() {
            if !failed {
                tracing::error!("the application returned without an answer");
            }
            self.refuse(500);
        }
        let whole = self.end(failed);
        // Whoever receives an answer that only the close ends must not take half of it for all: reset instead.
        let seized = self.pipe.seized();
        let ends_by_closing = failed && matches!(self.progress.framing, Some(BodyFraming::UntilClose));
        *self.ends = self.form == Form::Http2 && whole && !self.progress.concluded;
        if seized.is_none() && (ends_by_closing || (self.form == Form::Http2 && !whole)) {
            self.pipe.break_off();
        }
        Finished {
            keep_alive: self.progress.keep_alive && whole && seized.is_none(),
            status: seized.unwrap_or(self.progress.status),
            body_bytes: self.progress.sent_bytes,
            head: self.progress.kept_head.take(),
            sample: self.progress.begun.as_ref().map(Begun::ended),
            entered: self.progress.entered,
            upgraded: false,
        }
    }

    /// Writes the end of the message behind what there is; gives whether the message is whole.
    fn end(&mut self, failed: bool) -> bool {
        if self.progress.concluded {
            return true;
        }
        let whole = match self.progress.framing {
            Some(BodyFraming::Length(_))
                if self.progress.announced.left > 0 && !failed && !self.pipe.is_over() =>
            {
                tracing::error!(
                    "the application announced {} bytes with Content-Length and gave {}; the connection is closed",
                    self.progress.body_bytes + self.progress.announced.left,
                    self.progress.body_bytes
                );
                false
            }
            Some(BodyFraming::Length(_)) => self.progress.announced.left == 0,
            Some(BodyFraming::Chunked) if !failed => {
                self.out.extend_from_slice(LAST_CHUNK);
                true
            }
            Some(BodyFraming::Empty) => true,
            // Its records say where a FastCGI answer ends, its frames where one of HTTP/2 does.
            Some(BodyFraming::UntilClose) => {
                !failed && matches!(self.form, Form::FastCgi { .. } | Form::Http2)
            }
            Some(BodyFraming::Chunked) | None => false,
        };
        if let Form::FastCgi { id } = self.form
            && whole
        {
            fastcgi::encode_end(self.out, id);
        }
        whole
    }

    /// Whether more may be written without waiting.
    pub(crate) fn has_room(&self) -> bool {
        let upgraded = upgraded(self.upgrade.as_deref()).is_some();
        self.pipe.has_room(if upgraded { &self.rules.websocket.outbox } else { self.limits })
    }

    /// Answers with an error page of our own; possible while nothing was started.
    pub(crate) fn refuse(&mut self, status: u16) {
        let (mut head, text) = error_page(status);
        let mut body = text.into_bytes();
        if let Some(site) = &self.rules.site {
            let https = self.admitted.is_some_and(|admitted| admitted.https);
            body = site.dress(self.head, self.admitted.is_some(), https, &mut head, body);
        }
        // Nothing can fail here but the socket, and then there is nobody to tell.
        let _ = self.start(&head, Some(body.len() as u64)).and_then(|()| self.write(&body));
    }

    /// Gives an answer of the site's; possible while nothing was started.
    pub(crate) fn reply(&mut self, reply: OwnResponse) {
        let request = self.head;
        // As above.
        let _ = reply.send(request, self);
    }

    /// Sends the client elsewhere; possible while nothing was started.
    pub(crate) fn redirect(&mut self, status: u16, place: &str) {
        let (mut head, body) = error_page(status);
        if head.push_field(b"Location", place.as_bytes()).is_err() {
            return self.refuse(400);
        }
        // As above.
        let _ = self.start(&head, Some(body.len() as u64)).and_then(|()| self.write(body.as_bytes()));
    }

    /// Writes the head. Gives how the body is framed and whether the connection may stay.
    fn encode(
        &mut self,
        head: &ResponseHead,
        body_length: Option<u64>,
    ) -> Result<(BodyFraming, bool), SendError> {
        let keep_alive = self.progress.keep_alive && !self.draining.load(Ordering::Relaxed);
        match self.form {
            Form::Http => {
                let answer = http1::Answer {
                    version: self.version,
                    head_request: self.is_head_request(),
                    keep_alive,
                    body_length,
                    date: self.date.at(SystemTime::now()),
                    server: &self.rules.server_header,
                };
                http1::encode_head(self.out, head, &answer)
            }
            Form::Cgi(form) => {
                let framing = cgi::encode_head(self.out, head, form, self.is_head_request(), body_length)?;
                Ok((framing, false))
            }
            Form::FastCgi { id } => {
                let mut text = Vec::new();
                let framing = cgi::encode_head(
                    &mut text,
                    head,
                    StatusForm::Field,
                    self.is_head_request(),
                    body_length,
                )?;
                fastcgi::encode_stdout(self.out, id, &text);
                Ok((framing, keep_alive))
            }
            Form::Http2 => {
                let answer = http2::Answer {
                    head_request: self.is_head_request(),
                    body_length,
                    date: self.date.at(SystemTime::now()),
                    server: &self.rules.server_header,
                };
                let (message, framing) = http2::encode_head(head, &answer)?;
                let end = matches!(framing, BodyFraming::Empty | BodyFraming::Length(0));
                // A client that is gone shows in the pipe.
                let is_ours = self.in_place || self.pipe.claim();
                let stream = self.pipe.stream().http2().filter(|_| is_ours);
                let sent = stream.map(|stream| stream.start(message, end));
                if sent.is_some_and(|sent| sent.is_err()) {
                    self.pipe.break_off();
                }
                Ok((framing, false))
            }
        }
    }

    fn is_head_request(&self) -> bool {
        self.head.method() == b"HEAD"
    }

    /// What the request asks for, as long as nothing was answered, and who is to be told.
    fn wish(&mut self) -> Result<(&mut Upgrade, Arc<Attention>, usize), SendError> {
        if self.started() {
            return Err(SendError::Order);
        }
        let upgrade = self.upgrade.as_deref_mut().ok_or(SendError::NoWebSocket)?;
        let (attention, token) = upgrade.caller.clone().ok_or(SendError::NoWebSocket)?;
        Ok((upgrade, attention, token))
    }

    fn send(&mut self, more: &[u8]) -> Result<(), SendError> {
        let result = match more {
            [] => self.pipe.send(&mut [IoSlice::new(self.out)], self.limits),
            _ => self.pipe.send(&mut [IoSlice::new(self.out), IoSlice::new(more)], self.limits),
        };
        self.out.clear();
        self.pipe.nudge();
        result
    }

    /// Whether everything that was announced was written.
    fn is_complete(&self) -> bool {
        matches!(self.progress.framing, Some(BodyFraming::Length(_) | BodyFraming::Empty))
            && self.progress.announced.left == 0
    }

    /// Sends `bytes` from where they lie, in FastCGI records, and with them the end of an answer that is complete.
    fn send_records(&mut self, id: u16, bytes: &[u8]) -> Result<(), SendError> {
        let mut end = Vec::new();
        if self.is_complete() {
            self.progress.concluded = true;
            fastcgi::encode_end(&mut end, id);
        }
        let mut groups = bytes.chunks(RECORDS_AT_ONCE * fastcgi::CONTENT_MAX_BYTES).peekable();
        while let Some(bytes) = groups.next() {
            let contents = bytes.chunks(fastcgi::CONTENT_MAX_BYTES);
            let headers = contents.clone().map(|content| fastcgi::stdout_header(id, content.len()));
            let headers: Vec<_> = headers.collect();
            let records = headers.iter().zip(contents);
            let mut parts = vec![IoSlice::new(self.out)];
            parts.extend(records.flat_map(|(header, content)| [IoSlice::new(header), IoSlice::new(content)]));
            if groups.peek().is_none() {
                parts.push(IoSlice::new(&end));
            }
            let result = self.pipe.send(&mut parts, self.limits);
            self.out.clear();
            result?;
        }
        Ok(())
    }

    fn put(&mut self, bytes: &[u8]) -> Result<(), SendError> {
        self.progress.sent_bytes += bytes.len() as u64;
        if let Form::FastCgi { id } = self.form {
            if bytes.len() > COPY_MAX_BYTES {
                return self.send_records(id, bytes);
            }
            fastcgi::encode_stdout(self.out, id, bytes);
            return if self.out.len() > KEPT_BYTES { self.send(&[]) } else { Ok(()) };
        }
        if bytes.len() > COPY_MAX_BYTES {
            return self.send(bytes);
        }
        self.out.extend_from_slice(bytes);
        if self.out.len() > KEPT_BYTES { self.send(&[]) } else { Ok(()) }
    }
}

/// How one answer differs from another.
#[derive(Clone, Copy)]
pub(crate) struct AnswerOptions<'a> {
    /// The worker is draining, so that connections end with their answers; looked at as late as possible.
    pub(crate) draining: &'a AtomicBool,
    pub(crate) keep_head: bool,
    pub(crate) measured: bool,
    pub(crate) timed: bool,
    /// The answer is one in place of the application's.
    pub(crate) in_place: bool,
}

impl Response for Answer<'_> {
    fn entered(&mut self) {
        if self.progress.timed {
            self.progress.entered = Some(Instant::now());
        }
        if self.progress.measured {
            self.progress.begun = Some(Begun::now());
        }
    }

    fn start(&mut self, head: &ResponseHead, body_length: Option<u64>) -> Result<(), SendError> {
        if self.started() {
            return Err(SendError::Order);
        }
        let before = self.out.len();
        match self.encode(head, body_length) {
            Ok((framing, keep_alive)) => {
                self.progress.framing = Some(framing);
                self.progress.keep_alive = keep_alive;
            }
            Err(error) => {
                self.out.truncate(before);
                return Err(error);
            }
        }
        self.progress.announced = Announced::new(self.progress.framing);
        self.progress.status = head.status();
        if let Some(kept) = &mut self.progress.kept_head {
            kept.clone_from(head);
        }
        if self.pipe.is_over() && !self.in_place { Err(SendError::Disconnected) } else { Ok(()) }
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), SendError> {
        if bytes.is_empty() {
            return Ok(());
        }
        self.progress.body_bytes += bytes.len() as u64;
        match self.progress.framing {
            None => Err(SendError::Order),
            Some(BodyFraming::Empty) => Ok(()),
            Some(BodyFraming::UntilClose) => self.put(bytes),
            Some(BodyFraming::Length(_)) => {
                let allowed =
                    usize::try_from(self.progress.announced.take(bytes.len() as u64)).unwrap_or(bytes.len());
                self.put(bytes.get(..allowed).unwrap_or(bytes))
            }
            Some(BodyFraming::Chunked) => {
                http1::encode_chunk_head(self.out, bytes.len());
                self.put(bytes)?;
                self.out.extend_from_slice(CHUNK_END);
                Ok(())
            }
        }
    }

    fn flush(&mut self) -> Result<(), SendError> {
        if self.out.is_empty() {
            return if self.pipe.is_over() { Err(SendError::Disconnected) } else { Ok(()) };
        }
        self.send(&[])
    }

    fn hold_back(&mut self) -> bool {
        *self.held |= self.is_complete() && !self.out.is_empty() && self.pipe.hold_back(self.out);
        *self.held
    }

    fn conclude(&mut self) -> Result<(), SendError> {
        if !self.started() {
            return Err(SendError::Order);
        }
        if !self.end(false) {
            return self.flush();
        }
        self.progress.concluded = true;
        let sent = match self.form {
            Form::Http2 => self.pipe.send_last(self.out, self.limits),
            Form::Http | Form::Cgi(_) | Form::FastCgi { .. } => {
                self.pipe.send(&mut [IoSlice::new(self.out)], self.limits)
            }
        };
        self.out.clear();
        self.pipe.nudge();
        let ends_with_connection = match self.form {
            Form::Http | Form::Http2 => false,
            Form::Cgi(_) => true,
            Form::FastCgi { .. } => !self.progress.keep_alive,
        };
        if ends_with_connection {
            self.pipe.end_writing();
        }
        sent
    }

    fn send_file(&mut self, file: OwnedFd, offset: u64, length: u64) -> Result<(), SendError> {
        self.progress.body_bytes = self.progress.body_bytes.saturating_add(length);
        let length = match self.progress.framing {
            None => return Err(SendError::Order),
            Some(BodyFraming::Empty) => return Ok(()),
            Some(BodyFraming::UntilClose) => length,
            Some(BodyFraming::Length(_)) => self.progress.announced.take(length),
            Some(BodyFraming::Chunked) if length == 0 => 0,
            Some(BodyFraming::Chunked) => {
                http1::encode_chunk_head(self.out, usize::try_from(length).map_err(|_| SendError::Order)?);
                length
            }
        };
        self.progress.sent_bytes += length;
        let records = match self.form {
            Form::FastCgi { id } => Some(Records::new(id)),
            Form::Http | Form::Cgi(_) | Form::Http2 => None,
        };
        let part = FilePart { file, offset, left: length, records };
        let sent = self.pipe.send_file(self.out, part, self.limits);
        self.out.clear();
        self.pipe.nudge();
        sent?;
        if matches!(self.progress.framing, Some(BodyFraming::Chunked)) && length > 0 {
            self.out.extend_from_slice(CHUNK_END);
        }
        Ok(())
    }

    fn accept_websocket(
        &mut self,
        head: &ResponseHead,
        protocol: Option<&[u8]>,
    ) -> Result<Arc<dyn Socket>, SendError> {
        let (pipe, rules, request) = (self.pipe, &self.rules.websocket, self.head);
        let (upgrade, attention, token) = self.wish()?;
        if protocol.is_some_and(|protocol| !handshake::protocols(request).any(|offered| offered == protocol))
        {
            return Err(SendError::Subprotocol);
        }
        let head = handshake::answer(head, &upgrade.offer, protocol).map_err(|_| SendError::Subprotocol)?;
        let early = std::mem::take(&mut upgrade.early);
        let caller = (Arc::clone(&attention), token);
        let session = Session::new(pipe, caller, Arc::clone(rules), &upgrade.offer, protocol, early);
        let session = Arc::new(session);
        upgrade.upgraded = Some(Arc::clone(&session) as _);
        let sent = match pipe.stream().http2() {
            Some(stream) => {
                let answer = http2::Answer {
                    head_request: false,
                    body_length: None,
                    date: self.date.at(SystemTime::now()),
                    server: &self.rules.server_header,
                };
                let sent =
                    http2::encode_head(&head, &answer).and_then(|(message, _)| stream.start(message, false));
                stream.nudge();
                sent
            }
            None => {
                http1::encode_switch(self.out, &head, b"websocket", &self.rules.server_header);
                self.send(&[])
            }
        };
        // A WebSocket may live long and keeps no memory for another answer.
        *self.out = Vec::new();
        if let Some(kept) = &mut self.progress.kept_head {
            *kept = head;
        }
        pipe.set_upgraded(Arc::clone(&session) as _);
        attention.call_on(token);
        sent?;
        Ok(session)
    }

    fn take_over(&mut self) -> Result<OwnedFd, SendError> {
        // A library that speaks WebSocket itself would answer as HTTP/1.1 does.
        if self.form == Form::Http2 {
            return Err(SendError::NoWebSocket);
        }
        let (pipe, outbox) = (self.pipe, &self.rules.websocket.outbox);
        let (upgrade, attention, token) = self.wish()?;
        let early = std::mem::take(&mut upgrade.early);
        let (relay, end) = Relay::start(pipe, outbox, early).map_err(|error| {
            tracing::error!("cannot hand over a connection: {error}");
            SendError::Disconnected
        })?;
        let relay: Arc<dyn Upgraded> = Arc::new(relay);
        upgrade.upgraded = Some(Arc::clone(&relay));
        pipe.set_upgraded(relay);
        attention.call_on(token);
        Ok(end)
    }

    fn interim(&mut self, head: &ResponseHead) -> Result<(), SendError> {
        if self.started() {
            return Err(SendError::Order);
        }
        // RFC 9110 section 15.2: "A server MUST NOT send a 1xx response to an HTTP/1.0 client."
        if self.version >= Version::Http11 && self.form == Form::Http {
            http1::encode_interim(self.out, head);
            self.send(&[])?;
            self.pipe.begin();
        }
        if let Some(stream) = self.pipe.stream().http2() {
            stream.interim(http2::encode_interim(head)?)?;
            stream.nudge();
        }
        Ok(())
    }

    fn offers_interim(&self) -> bool {
        self.form == Form::Http2
    }

    fn started(&self) -> bool {
        is_answered(self.progress, self.upgrade.as_deref())
    }

    fn body_bytes(&self) -> u64 {
        self.progress.body_bytes
    }
}

/// Seconds after which a client of an overloaded server may try again (RFC 9110 section 10.2.3).
const RETRY_AFTER: &[u8] = b"10";

/// A page for what the server itself answers. It repeats nothing of the request, so that nothing can be
/// reflected into a browser.
pub(crate) fn error_page(status: u16) -> (ResponseHead, String) {
    let line = format!("{status} {}", reason(status));
    let mut head = ResponseHead::default();
    let built = head
        .set_status_line(line.as_bytes())
        .and_then(|()| head.push_field(b"Content-Type", b"text/plain; charset=utf-8"));
    let built = match status {
        // RFC 6455 section 4.2.2: the answer to another version names the ones that are spoken.
        426 => built
            .and_then(|()| head.push_field(b"Upgrade", b"websocket"))
            .and_then(|()| head.push_field(b"Sec-WebSocket-Version", handshake::VERSION.as_bytes())),
        503 => built.and_then(|()| head.push_field(b"Retry-After", RETRY_AFTER)),
        _ => built,
    };
    debug_assert!(built.is_ok(), "our own pages are valid");
    (head, line + "\n")
}
