//! A response while it is given: framing, counting, handing bytes to the outbox, in the form of the request's protocol.
//!
//! Whether another request may follow on the connection is decided here (RFC 9112 section 9); carrying it out is the
//! connection's.

use std::io::IoSlice;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use anygate_policy::spans::record::Outcome;
use anygate_proto::application::{Endpoints, Response, SendError, SharedBytes, Socket};
use anygate_proto::cgi::{self, StatusForm};
use anygate_proto::fastcgi;
use anygate_proto::head::{RequestHead, ResponseHead, Version};
use anygate_proto::http1::{self, BodyFraming, CHUNK_END, LAST_CHUNK};
use anygate_proto::http2;
use anygate_proto::websocket::handshake;

use super::progress::{Announced, Ending, Given, Progress, wants_more};
use super::{Admitted, BodyStream, Exchange, Form, KEPT_BYTES, refusal};
use crate::attention::Attention;
use crate::date::DateCache;
use crate::finished::Finished;
use crate::gathering::Gathered;
use crate::outbox::{FilePart, Pipe, Records, Upgraded};
use crate::rules::{OutboxRules, ResponseRules};
use crate::sampling::Started;
use crate::websocket::{Relay, Session, Upgrade};

/// Bodies' pieces up to this size are copied behind the head, so that one system call sends both; larger ones are
/// sent from where they lie.
const COPY_MAX_BYTES: usize = 16 * 1024;
/// FastCGI records that one system call sends.
const RECORDS_AT_ONCE: usize = 16;

/// A response that is being given; see `proto::application::Response` for its rules. All that it must remember is in its
/// exchange.
pub(crate) struct ResponseWriter<'a> {
    pipe: &'a Arc<Pipe>,
    limits: &'a OutboxRules,
    /// Its bytes are passed on as they come.
    streamed: bool,
    pub(super) rules: &'a ResponseRules,
    date: &'a mut DateCache,
    draining: &'a AtomicBool,
    out: &'a mut Vec<u8>,
    /// Owner of what is being written, if it may be kept.
    shared: Option<SharedBytes>,
    held: &'a mut bool,
    ends: &'a mut bool,
    /// Whether the response replaces the application's, which is ignored from now on.
    in_place: bool,
    form: Form,
    version: Version,
    pub(super) admitted: Option<Admitted>,
    pub(super) head: &'a RequestHead,
    upgrade: Option<&'a mut Upgrade>,
    given: &'a mut Given,
}

impl<'a> ResponseWriter<'a> {
    /// Goes on with the response of an exchange.
    pub(crate) fn resume(
        exchange: &'a mut Exchange,
        pipe: &'a Arc<Pipe>,
        rules: &'a ResponseRules,
        date: &'a mut DateCache,
        draining: &'a AtomicBool,
    ) -> (Self, &'a RequestHead, Option<&'a Endpoints>) {
        let Exchange { admitted, head, endpoints, form, streamed, upgrade, given, out, held, ends, .. } =
            exchange;
        let writer = ResponseWriter {
            pipe,
            streamed: *streamed,
            limits: if *streamed { &rules.streamed_outbox } else { &rules.outbox },
            rules,
            date,
            draining,
            out,
            shared: None,
            held,
            ends,
            in_place: false,
            form: *form,
            version: head.version(),
            admitted: *admitted,
            head,
            upgrade: upgrade.as_deref_mut(),
            given,
        };
        (writer, head, endpoints.as_ref())
    }

    /// From now on it is given in place of the application's, which is not heard any more.
    pub(crate) fn in_place(mut self) -> Self {
        self.in_place = true;
        self
    }

    /// Ends the message; its last bytes are left in the exchange, for [`Connection::send_rest`]. `failed`: the application
    /// broke off, so that the client must not take it for whole.
    ///
    /// [`Connection::send_rest`]: crate::connection::Connection::send_rest
    pub(crate) fn finish(mut self, failed: bool) -> Finished {
        if let Some(upgraded) = self.upgrade.as_deref().and_then(|upgrade| upgrade.upgraded.as_deref()) {
            *self.ends = self.form == Form::Http2;
            return Finished {
                keep_alive: false,
                status: if self.form == Form::Http2 { 200 } else { 101 },
                body_bytes: upgraded.finish(failed),
                head: self.given.kept_head.take(),
                sample: None,
                noted: self.given.noted(),
                outcome: self.outcome(failed),
                upgraded: true,
            };
        }
        if self.given.progress.framing().is_none() {
            if !failed {
                tracing::error!("the application returned without a response");
            }
            let of_client = failed.then(|| self.refusal_of_body()).flatten();
            self.refuse(of_client.unwrap_or(500));
        }
        let ending = self.end(failed);
        let whole = ending == Ending::Whole;
        let seized = self.pipe.seized();
        *self.ends = self.form == Form::Http2 && whole && !self.given.progress.is_concluded();
        if seized.is_none() && ending == Ending::Short {
            self.cut_short();
        }
        Finished {
            keep_alive: self.given.keep_alive && whole && seized.is_none(),
            status: seized.unwrap_or(self.given.status),
            body_bytes: self.given.sent_bytes,
            head: self.given.kept_head.take(),
            sample: self.given.usage.noted().map(Started::ended),
            noted: self.given.noted(),
            outcome: self.outcome(failed),
            upgraded: false,
        }
    }

    /// Nothing is broken off where the client has left.
    fn outcome(&self, failed: bool) -> Outcome {
        if failed && !self.pipe.is_over() { Outcome::BrokenOff } else { Outcome::Whole }
    }

    /// The status of a response in place of one that failed because of the client's body.
    fn refusal_of_body(&self) -> Option<u16> {
        let of_stream = || refusal(self.pipe.stream().http2()?.body_failure()?);
        self.given.body.as_ref().and_then(BodyStream::refusal).or_else(of_stream)
    }

    /// The response must not look complete. Where only the close ends it nothing more is sent: reset at once. A client that
    /// knows its length gets what there is, and then a reset instead of an orderly end, which some front servers (nginx
    /// without buffering, lighttpd) would take for one.
    fn cut_short(&mut self) {
        match self.given.progress.framing() {
            Some(BodyFraming::Length(_) | BodyFraming::Chunked) => self.pipe.set_short(),
            // Frames tell an end from a reset.
            Some(BodyFraming::UntilClose) if self.form == Form::Http2 => self.pipe.set_short(),
            _ => {
                // What the application gave before it failed is sent, as if it had not been gathered.
                self.pipe.send_gathered();
                self.pipe.break_off();
            }
        }
    }

    /// Writes the end of the message behind what there is.
    fn end(&mut self, failed: bool) -> Ending {
        if self.given.progress.is_concluded() {
            return Ending::Whole;
        }
        let ending = |whole| if whole { Ending::Whole } else { Ending::Short };
        let ending = match self.given.progress.framing() {
            Some(BodyFraming::Length(_))
                if self.given.announced.left > 0 && !failed && !self.pipe.is_over() =>
            {
                tracing::error!(
                    "the application announced {} bytes in Content-Length and sent {}; the connection is closed",
                    self.given.body_bytes + self.given.announced.left,
                    self.given.body_bytes
                );
                Ending::Short
            }
            Some(BodyFraming::Length(_)) => ending(self.given.announced.left == 0),
            Some(BodyFraming::Chunked) if !failed => {
                self.out.extend_from_slice(LAST_CHUNK);
                Ending::Whole
            }
            Some(BodyFraming::Empty) => Ending::Whole,
            // Its records say where a FastCGI response ends, its frames where one of HTTP/2 does.
            Some(BodyFraming::UntilClose) if matches!(self.form, Form::FastCgi { .. } | Form::Http2) => {
                ending(!failed)
            }
            Some(BodyFraming::UntilClose) if !failed => Ending::Close,
            Some(BodyFraming::UntilClose | BodyFraming::Chunked) | None => Ending::Short,
        };
        if let Form::FastCgi { id } = self.form
            && ending == Ending::Whole
        {
            fastcgi::encode_end(self.out, id);
        }
        ending
    }

    /// Whether more may be written without waiting.
    pub(crate) fn has_room(&self) -> bool {
        self.pipe.has_room(if self.upgraded().is_some() { &self.rules.websocket.outbox } else { self.limits })
    }

    /// Writes the head. Returns how the body is framed and whether the connection may stay.
    fn encode(
        &mut self,
        head: &ResponseHead,
        body_length: Option<u64>,
    ) -> Result<(BodyFraming, bool), SendError> {
        let is_received = |body: &BodyStream| body.is_received();
        // FastCGI has no way to tell that a connection ends: the reactor closes it between requests.
        let ends = self.draining.load(Ordering::Relaxed) && !matches!(self.form, Form::FastCgi { .. });
        let keep_alive = self.given.keep_alive && !ends && self.given.body.as_ref().is_none_or(is_received);
        match self.form {
            Form::Http => {
                let options = http1::ResponseOptions {
                    version: self.version,
                    head_request: self.is_head_request(),
                    keep_alive,
                    body_length,
                    date_line: self.date.line_at(self.given.time()),
                    server_line: &self.rules.server_line,
                };
                http1::encode_head(self.out, head, &options)
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
                let options = http2::ResponseOptions {
                    head_request: self.is_head_request(),
                    body_length,
                    date: self.date.at(self.given.time()),
                    server: &self.rules.server,
                };
                let (message, framing) = http2::encode_head(head, &options)?;
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

    /// What the connection became, if the response made something of it.
    fn upgraded(&self) -> Option<&dyn Upgraded> {
        self.upgrade.as_deref()?.upgraded.as_deref()
    }

    fn is_head_request(&self) -> bool {
        self.head.method() == b"HEAD"
    }

    /// What the request asks for, as long as nothing was started, and who is to be told.
    fn wish(&mut self) -> Result<(&mut Upgrade, Arc<Attention>, usize), SendError> {
        if self.started() {
            return Err(SendError::Order);
        }
        let upgrade = self.upgrade.as_deref_mut().ok_or(SendError::NoWebSocket)?;
        let (attention, token) = upgrade.caller.clone().ok_or(SendError::NoWebSocket)?;
        Ok((upgrade, attention, token))
    }

    fn send(&mut self, more: &[u8]) -> Result<(), SendError> {
        let result = match (more, &self.shared) {
            ([_, ..], Some(shared)) => self.pipe.send_shared(self.out, shared, more.len(), self.limits),
            ([], _) => self.pipe.send(&mut [IoSlice::new(self.out)], self.limits),
            (_, None) => self.pipe.send(&mut [IoSlice::new(self.out), IoSlice::new(more)], self.limits),
        };
        self.out.clear();
        self.pipe.nudge();
        result
    }

    /// Whether everything that was announced was written.
    fn is_complete(&self) -> bool {
        matches!(self.given.progress.framing(), Some(BodyFraming::Length(_) | BodyFraming::Empty))
            && self.given.announced.left == 0
    }

    /// Sends `bytes` from where they lie, in FastCGI records, and with them the end of a response that is complete.
    fn send_records(&mut self, id: u16, bytes: &[u8]) -> Result<(), SendError> {
        let mut end = Vec::new();
        if self.is_complete() {
            self.given.progress.conclude();
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
        self.given.sent_bytes += bytes.len() as u64;
        match self.form {
            Form::FastCgi { id } if bytes.len() > COPY_MAX_BYTES => return self.send_records(id, bytes),
            Form::FastCgi { id } => fastcgi::encode_stdout(self.out, id, bytes),
            _ if bytes.len() > COPY_MAX_BYTES => return self.send(bytes),
            _ => self.out.extend_from_slice(bytes),
        }
        if self.out.len() > KEPT_BYTES { self.send(&[]) } else { Ok(()) }
    }
}

impl Response for ResponseWriter<'_> {
    fn entered(&mut self) {
        self.given.entered.note(Instant::now);
        self.given.usage.note(Started::now);
    }

    fn set_route(&mut self, route: &str) {
        if self.given.first_byte.is_wanted() {
            self.given.route = Some(route.into());
        }
        self.given.route_slot = self.rules.routes.as_ref().and_then(|routes| routes.named(route));
    }

    fn start(&mut self, head: &ResponseHead, body_length: Option<u64>) -> Result<(), SendError> {
        if self.started() {
            return Err(SendError::Order);
        }
        self.given.first_byte.note(Instant::now);
        let before = self.out.len();
        match self.encode(head, body_length) {
            Ok((framing, keep_alive)) => {
                self.given.progress = Progress::Started(framing);
                self.given.keep_alive = keep_alive;
            }
            Err(error) => {
                self.out.truncate(before);
                return Err(error);
            }
        }
        self.given.announced = Announced::new(self.given.progress.framing());
        self.given.is_prompt =
            self.streamed || (self.given.progress.is_of_unknown_length() && head.is_event_stream());
        self.given.status = head.status();
        if let Some(kept) = &mut self.given.kept_head {
            kept.clone_from(head);
        }
        if self.pipe.is_over() && !self.in_place { Err(SendError::Disconnected) } else { Ok(()) }
    }

    fn write_shared(&mut self, bytes: &SharedBytes) -> Result<(), SendError> {
        self.shared = Some(Arc::clone(bytes));
        let written = self.write((**bytes).as_ref());
        self.shared = None;
        written
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), SendError> {
        if bytes.is_empty() {
            return Ok(());
        }
        self.given.body_bytes += bytes.len() as u64;
        match self.given.progress.framing() {
            None => Err(SendError::Order),
            Some(BodyFraming::Empty) => Ok(()),
            Some(BodyFraming::UntilClose) => self.put(bytes),
            Some(BodyFraming::Length(_)) => {
                let allowed =
                    usize::try_from(self.given.announced.take(bytes.len() as u64)).unwrap_or(bytes.len());
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
        if self.out.is_empty() && !std::mem::take(self.held) {
            return if self.pipe.is_over() { Err(SendError::Disconnected) } else { Ok(()) };
        }
        self.send(&[])
    }

    fn hold_back(&mut self) -> bool {
        if self.out.is_empty() {
            return *self.held && !self.pipe.is_over();
        }
        let is_complete = self.is_complete();
        if !is_complete && self.given.is_prompt {
            return false;
        }
        let held = self.pipe.hold_back(self.out, is_complete, &self.rules.gathering);
        *self.held |= held;
        held
    }

    fn holds_end(&mut self) -> bool {
        *self.held && self.is_complete()
    }

    fn wants_more(&mut self) -> bool {
        !self.pipe.is_abandoned()
            && wants_more(self.given.progress.framing(), &self.given.announced, self.given.body_bytes)
    }

    fn conclude(&mut self) -> Result<(), SendError> {
        if !self.started() {
            return Err(SendError::Order);
        }
        if self.end(false) != Ending::Whole {
            return self.flush();
        }
        self.given.progress.conclude();
        if std::mem::take(self.held) {
            self.pipe.take_held(self.out);
        }
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
            Form::FastCgi { .. } => !self.given.keep_alive,
        };
        if ends_with_connection {
            self.pipe.end_writing();
        }
        sent
    }

    fn send_file(&mut self, file: OwnedFd, offset: u64, length: u64) -> Result<(), SendError> {
        self.given.body_bytes = self.given.body_bytes.saturating_add(length);
        let length = match self.given.progress.framing() {
            None => return Err(SendError::Order),
            Some(BodyFraming::Empty) => return Ok(()),
            Some(BodyFraming::UntilClose) => length,
            Some(BodyFraming::Length(_)) => self.given.announced.take(length),
            Some(BodyFraming::Chunked) if length == 0 => 0,
            Some(BodyFraming::Chunked) => {
                http1::encode_chunk_head(self.out, usize::try_from(length).map_err(|_| SendError::Order)?);
                length
            }
        };
        self.given.sent_bytes += length;
        let records = match self.form {
            Form::FastCgi { id } => Some(Records::new(id)),
            Form::Http | Form::Cgi(_) | Form::Http2 => None,
        };
        let part = FilePart { file: Arc::new(file), offset, left: length, records };
        let sent = self.pipe.send_file(self.out, part, self.limits);
        self.out.clear();
        self.pipe.nudge();
        sent?;
        if matches!(self.given.progress.framing(), Some(BodyFraming::Chunked)) && length > 0 {
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
        let head = handshake::response(head, &upgrade.offer, protocol).map_err(|_| SendError::Subprotocol)?;
        let early = std::mem::take(&mut upgrade.early);
        let caller = (Arc::clone(&attention), token);
        let session = Session::new(pipe, caller, Arc::clone(rules), &upgrade.offer, protocol, early);
        let session = Arc::new(session);
        upgrade.upgraded = Some(Arc::clone(&session) as _);
        let sent = match pipe.stream().http2() {
            Some(stream) => {
                let options = http2::ResponseOptions {
                    head_request: false,
                    body_length: None,
                    date: self.date.at(self.given.time()),
                    server: &self.rules.server,
                };
                let sent =
                    http2::encode_head(&head, &options).and_then(|(message, _)| stream.start(message, false));
                stream.nudge();
                sent
            }
            None => {
                http1::encode_switch(self.out, &head, b"websocket", self.rules.server.as_bytes());
                self.send(&[])
            }
        };
        // A WebSocket may live long and keeps no memory for another response.
        *self.out = Vec::new();
        if let Some(kept) = &mut self.given.kept_head {
            *kept = head;
        }
        pipe.set_upgraded(Arc::clone(&session) as _);
        attention.call_on(token);
        sent?;
        Ok(session)
    }

    fn take_over(&mut self) -> Result<OwnedFd, SendError> {
        // A library that speaks WebSocket itself would respond as HTTP/1.1 does.
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
        self.given.progress != Progress::NotStarted || self.upgraded().is_some()
    }

    fn body_bytes(&self) -> u64 {
        self.given.body_bytes
    }
}
