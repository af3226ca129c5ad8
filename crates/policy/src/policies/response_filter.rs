//! The response filter: changes an application's response on its way to the client. It adds fields, compresses, records for
//! the cache, and replaces what failed.

use std::cell::Cell;
use std::fs::File;
use std::mem;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::SystemTime;

use anygate_proto::application::{Failed, Response, SendError, SharedBytes, Socket};
use anygate_proto::head::{RequestHead, ResponseHead};

use super::full_response::FullResponse;
use super::identity::Names;
use super::process_policies::ProcessPolicies;
use crate::cache::{Begin, Recorder, Stored};
use crate::compression::Encoder;
use crate::page_reload::Insertion;
use crate::rate_limit::RateFields;
use crate::refusal::Refusal;
use crate::static_files::NamedFiles;

/// Bodies whose length is known, up to this, are compressed as a whole, so that their length is known again.
const GATHER_MAX_BYTES: u64 = 256 * 1024;
/// A file that must be read is read in such pieces.
const PIECE_BYTES: usize = 64 * 1024;

/// The filter of one request's response.
#[derive(Debug)]
pub(super) struct ResponseFilter {
    pub(super) process: Arc<ProcessPolicies>,
    pub(super) https: bool,
    names: Option<Names>,
    pub(super) rates: Option<RateFields>,
    /// Values of Set-Cookie that the server which authenticated the request has for the client.
    pub(super) cookies: Vec<Vec<u8>>,
    recorder: Option<Box<Recorder>>,
    /// What is added to a page.
    pub(super) insertion: Option<Box<Insertion>>,
    state: State,
    /// Bytes of body that the application has written.
    pub(super) taken: u64,
}

thread_local! {
    /// Memory for the head of the thread's next response.
    static SPARE_HEAD: Cell<ResponseHead> = const { Cell::new(ResponseHead::new()) };
}

/// How far the response is.
#[derive(Debug, Default)]
enum State {
    /// Nothing has been written.
    #[default]
    Silent,
    /// The head waits for the whole body, which has `length` bytes.
    Gathering { head: ResponseHead, body: Vec<u8>, length: u64 },
    /// The body is sent as it comes.
    Open { encoder: Option<Box<Encoder>> },
    /// The client has its response; the application's is for the cache alone. `begun`: the application has begun it.
    Hidden { begun: bool },
}

impl ResponseFilter {
    pub(super) fn new(process: Arc<ProcessPolicies>, https: bool, names: Option<Names>) -> ResponseFilter {
        let state = State::Silent;
        ResponseFilter {
            process,
            https,
            names,
            rates: None,
            cookies: Vec::new(),
            recorder: None,
            insertion: None,
            state,
            taken: 0,
        }
    }

    pub(super) fn id(&self) -> Option<&str> {
        self.names.as_ref()?.id()
    }

    pub(super) fn name(&self) -> Option<&Arc<str>> {
        self.names.as_ref().map(Names::text)
    }

    /// Records the application's response, for which it may be asked another question than the client's.
    pub(super) fn record(&mut self, recorder: Box<Recorder>, request: &mut RequestHead) {
        // Without the conditions the application responds in full, which is right as well.
        let _ = recorder.prepare(request);
        self.recorder = Some(recorder);
    }

    /// Sends a response of our own, which is not recorded.
    pub(super) fn respond(
        &mut self,
        request: &RequestHead,
        head: ResponseHead,
        body: &[u8],
        out: &mut (dyn Response + Send),
    ) -> Result<(), SendError> {
        self.recorder = None;
        self.open(request, head, Some(body.len() as u64), out)?;
        self.put(request, body, out)?;
        self.complete(request, out)
    }

    fn stored(
        &mut self,
        request: &RequestHead,
        stored: &Stored,
        out: &mut (dyn Response + Send),
    ) -> Result<(), SendError> {
        self.respond(request, stored.head().clone(), stored.body(), out)
    }

    /// Sends a stored response; `None`: it is to be refreshed, for which the application is called.
    pub(super) fn respond_from_cache(
        &mut self,
        request: &RequestHead,
        stored: &Stored,
        out: &mut (dyn Response + Send),
    ) -> Option<Result<(), Failed>> {
        let refresh = self.recorder.take();
        let sent = self.stored(request, stored, out).and_then(|()| match refresh {
            Some(_) => out.conclude(),
            None => Ok(()),
        });
        if sent.is_err() || refresh.is_none() {
            return Some(sent.map_err(|_| Failed));
        }
        self.state = State::Hidden { begun: false };
        self.recorder = refresh;
        None
    }

    /// Responds with a refusal, in place of an application that has ended.
    ///
    /// Errors: the application has begun a response.
    pub(super) fn refuse(
        &mut self,
        refusal: &Refusal,
        request: &RequestHead,
        out: &mut (dyn Response + Send),
    ) -> Result<(), Failed> {
        if !matches!(self.state, State::Silent | State::Gathering { .. }) {
            return Err(Failed);
        }
        self.state = State::Silent;
        let FullResponse { head, body } = self.process.refusal(refusal, request, self.id());
        self.respond(request, head, &body, out).map_err(|_| Failed)
    }

    /// Ends the response. `result` is what the application returned; returns whether the response is complete.
    pub(super) fn finish(
        &mut self,
        request: &RequestHead,
        result: Result<(), Failed>,
        out: &mut (dyn Response + Send),
    ) -> Result<(), Failed> {
        let recorder = self.recorder.take();
        if let State::Hidden { begun } = self.state {
            if let (Some(recorder), Ok(()), true) = (recorder, result, begun) {
                recorder.finish(SystemTime::now());
            }
            return Ok(());
        }
        if result.is_err() {
            let is_begun = matches!(self.state, State::Open { .. }) || out.started();
            if is_begun {
                return result;
            }
            self.state = State::Silent;
            if let Some(stored) = recorder.and_then(|recorder| recorder.failed(SystemTime::now())) {
                return self.stored(request, &stored, out).map_err(|_| Failed);
            }
            let page = self.process.pages.as_ref();
            let page = page.map(|pages| pages.page(500, request.field("accept"), self.id()));
            let Some((head, body)) = page else { return result };
            return self.respond(request, head, &body, out).map_err(|_| Failed);
        }
        self.complete(request, out).map_err(|_| Failed)?;
        if let Some(recorder) = recorder {
            recorder.finish(SystemTime::now());
        }
        Ok(())
    }

    /// Takes the application's head.
    fn start(
        &mut self,
        request: &RequestHead,
        head: &ResponseHead,
        body_length: Option<u64>,
        out: &mut (dyn Response + Send),
    ) -> Result<(), SendError> {
        let mut unnamed = None;
        let named = self.process.named_files.as_ref().filter(|files| files.is_named(head));
        if let Some(files) = named.cloned() {
            if (200..300).contains(&head.status()) {
                return self.send_named(&files, request, head, out);
            }
            unnamed = Some(files.without_name(head));
        }
        let head = unnamed.as_ref().unwrap_or(head);
        match &mut self.state {
            State::Silent => {}
            State::Hidden { begun: begun @ false } => {
                *begun = true;
                if let Some(recorder) = &mut self.recorder {
                    // The client has its response, whatever this one is.
                    let _ = recorder.start(head, SystemTime::now());
                }
                return Ok(());
            }
            _ => return Err(SendError::Order),
        }
        let Some(recorder) = &mut self.recorder else {
            let mut own = SPARE_HEAD.take();
            own.copy(head);
            return self.open(request, own, body_length, out);
        };
        match recorder.start(head, SystemTime::now()) {
            Begin::Pass(head) => self.open(request, head, body_length, out),
            Begin::NotModified(head) => {
                self.open(request, head, Some(0), out)?;
                self.state = State::Hidden { begun: true };
                Ok(())
            }
            Begin::Instead(stored) => {
                let recorder = self.recorder.take();
                self.stored(request, &stored, out)?;
                self.recorder = recorder;
                self.state = State::Hidden { begun: true };
                Ok(())
            }
        }
    }

    /// Sends the file that the application's head names. It is not recorded for the cache.
    fn send_named(
        &mut self,
        files: &NamedFiles,
        request: &RequestHead,
        head: &ResponseHead,
        out: &mut (dyn Response + Send),
    ) -> Result<(), SendError> {
        self.recorder = None;
        match self.state {
            State::Silent => {}
            State::Hidden { begun: false } => {
                self.state = State::Hidden { begun: true };
                return Ok(());
            }
            _ => return Err(SendError::Order),
        }
        let mut filtered = FilteredResponse { filter: self, request, out };
        files.respond(request, head, SystemTime::now(), &mut filtered)?;
        self.complete(request, out)?;
        // What the application still gives is dropped.
        self.state = State::Hidden { begun: true };
        Ok(())
    }

    /// Sends a head with all fields that policies add to it, or keeps it until its body is complete.
    fn open(
        &mut self,
        request: &RequestHead,
        mut head: ResponseHead,
        mut body_length: Option<u64>,
        out: &mut (dyn Response + Send),
    ) -> Result<(), SendError> {
        if let Some(insertion) = &mut self.insertion {
            body_length = insertion.apply(&mut head, body_length);
        }
        let process = &self.process;
        if let Some(cors) = &process.cors {
            cors.apply(request, &mut head);
        }
        process.security.apply(self.https, &mut head);
        if let Some(rates) = &self.rates {
            // The fields are our own, and valid.
            let _ = rates.apply(&mut head);
        }
        self.add_cookies(&mut head);
        if let Some(names) = &self.names {
            names.apply(&mut head);
        }
        let compression = self.process.compression(request, head.status(), body_length);
        match compression.and_then(|compression| compression.length_to_code(request, &head, body_length)) {
            Some(length) if length <= GATHER_MAX_BYTES => {
                self.state = State::Gathering { head, body: Vec::new(), length };
                Ok(())
            }
            _ => self.begin(request, head, body_length, out),
        }
    }

    fn add_cookies(&self, head: &mut ResponseHead) {
        for cookie in &self.cookies {
            // One that cannot be in a head is no cookie.
            let _ = head.push_field(b"Set-Cookie", cookie);
        }
    }

    /// Sends a head, and decides how the body is coded.
    fn begin(
        &mut self,
        request: &RequestHead,
        mut head: ResponseHead,
        body_length: Option<u64>,
        out: &mut (dyn Response + Send),
    ) -> Result<(), SendError> {
        let (mut encoder, mut body_length) = (None, body_length);
        if let Some(compression) = self.process.compression(request, head.status(), body_length) {
            let was_coded = head.has_field("content-encoding");
            encoder = compression.negotiate(request, &mut head, body_length);
            // The length of a response to HEAD that would be compressed is unknown.
            if !was_coded && head.has_field("content-encoding") {
                body_length = None;
            }
        }
        out.start(&head, body_length)?;
        self.state = State::Open { encoder: encoder.map(Box::new) };
        SPARE_HEAD.set(head);
        Ok(())
    }

    /// Takes bytes of the application's body.
    fn write(
        &mut self,
        request: &RequestHead,
        bytes: &[u8],
        out: &mut (dyn Response + Send),
    ) -> Result<(), SendError> {
        self.taken = self.taken.saturating_add(bytes.len() as u64);
        if let Some(recorder) = &mut self.recorder {
            recorder.write(bytes);
        }
        self.put(request, bytes, out)
    }

    /// Sends bytes of a body.
    fn put(
        &mut self,
        request: &RequestHead,
        bytes: &[u8],
        out: &mut (dyn Response + Send),
    ) -> Result<(), SendError> {
        let count = bytes.len();
        let taken = self.insertion.as_mut().map_or(count as u64, |insertion| insertion.take(count as u64));
        let taken = usize::try_from(taken).unwrap_or(count);
        self.code(request, bytes.get(..taken).unwrap_or(bytes), out)
    }

    /// Sends bytes in the coding that was agreed on.
    fn code(
        &mut self,
        request: &RequestHead,
        bytes: &[u8],
        out: &mut (dyn Response + Send),
    ) -> Result<(), SendError> {
        match &mut self.state {
            State::Silent | State::Hidden { begun: false } => Err(SendError::Order),
            State::Hidden { begun: true } => Ok(()),
            State::Open { encoder: None } => out.write(bytes),
            State::Open { encoder: Some(encoder) } => {
                let mut coded = Vec::new();
                // A body that cannot be coded to its end must not look complete.
                encoder.write(bytes, &mut coded).map_err(|_| SendError::Disconnected)?;
                out.write(&coded)
            }
            State::Gathering { body, length, .. } => {
                body.extend_from_slice(bytes);
                if (body.len() as u64) < *length {
                    return Ok(());
                }
                self.compress(request, out)
            }
        }
    }

    /// Compresses and sends the gathered body, which is complete.
    fn compress(&mut self, request: &RequestHead, out: &mut (dyn Response + Send)) -> Result<(), SendError> {
        let State::Gathering { mut head, body, length } = mem::take(&mut self.state) else { return Ok(()) };
        self.state = State::Open { encoder: None };
        let compression = self.process.compression.as_ref();
        // More bytes than were announced are the application's mistake, which the server handles.
        let coded = compression.filter(|_| body.len() as u64 == length);
        match coded.and_then(|compression| compression.compress(request, &mut head, &body)) {
            Some(coded) => {
                out.start(&head, Some(coded.len() as u64))?;
                out.write(&coded)
            }
            None => {
                out.start(&head, Some(length))?;
                out.write(&body)
            }
        }
    }

    /// Ends the body. A gathered one that is incomplete is sent as it is.
    fn complete(&mut self, request: &RequestHead, out: &mut (dyn Response + Send)) -> Result<(), SendError> {
        if let Some(mut insertion) = self.insertion.take()
            && matches!(self.state, State::Open { .. } | State::Gathering { .. })
        {
            self.code(request, insertion.end(), out)?;
        }
        match &mut self.state {
            State::Gathering { head, body, length } => {
                let (head, body, length) = (mem::take(head), mem::take(body), *length);
                self.state = State::Open { encoder: None };
                out.start(&head, Some(length))?;
                out.write(&body)
            }
            State::Open { encoder: ending @ Some(_) } => {
                let mut coded = Vec::new();
                if let Some(mut encoder) = ending.take() {
                    encoder.finish(&mut coded).map_err(|_| SendError::Disconnected)?;
                }
                out.write(&coded)
            }
            State::Silent | State::Open { encoder: None } | State::Hidden { .. } => Ok(()),
        }
    }

    fn flush(&mut self, request: &RequestHead, out: &mut (dyn Response + Send)) -> Result<(), SendError> {
        if let State::Gathering { head, body, length } = &mut self.state {
            // An application that flushes wants the client to see each piece.
            let (head, body, length) = (mem::take(head), mem::take(body), *length);
            self.begin(request, head, Some(length), out)?;
            self.put(request, &body, out)?;
        }
        match &mut self.state {
            State::Hidden { .. } => return Ok(()),
            State::Open { encoder: Some(encoder) } => {
                let mut coded = Vec::new();
                encoder.flush(&mut coded).map_err(|_| SendError::Disconnected)?;
                out.write(&coded)?;
            }
            State::Silent | State::Gathering { .. } | State::Open { encoder: None } => {}
        }
        out.flush()
    }

    fn hold_back(&mut self, out: &mut (dyn Response + Send)) -> bool {
        match &self.state {
            State::Hidden { .. } => true,
            State::Silent | State::Gathering { .. } | State::Open { encoder: Some(_) } => false,
            State::Open { encoder: None } => out.hold_back(),
        }
    }

    fn send_file(
        &mut self,
        request: &RequestHead,
        file: OwnedFd,
        offset: u64,
        length: u64,
        out: &mut (dyn Response + Send),
    ) -> Result<(), SendError> {
        if self.passes_on() {
            self.taken = self.taken.saturating_add(length);
            return out.send_file(file, offset, length);
        }
        let file = File::from(file);
        let (mut at, mut left) = (offset, length);
        let mut piece = vec![0; PIECE_BYTES.min(usize::try_from(length).unwrap_or(PIECE_BYTES))];
        while left > 0 {
            let most = usize::try_from(left).unwrap_or(usize::MAX).min(piece.len());
            // A file that turns out shorter ends the connection.
            let count = match file.read_at(piece.get_mut(..most).unwrap_or_default(), at) {
                Ok(0) | Err(_) => return Err(SendError::Disconnected),
                Ok(count) => count,
            };
            self.write(request, piece.get(..count).unwrap_or_default(), out)?;
            at += count as u64;
            left = left.saturating_sub(count as u64);
        }
        Ok(())
    }

    pub(super) fn passes_on(&self) -> bool {
        self.recorder.is_none()
            && !self.insertion.as_ref().is_some_and(|insertion| insertion.is_pending())
            && matches!(self.state, State::Open { encoder: None })
    }

    pub(super) fn has_begun(&self, started: bool) -> bool {
        match self.state {
            State::Silent => started,
            State::Hidden { begun } => begun,
            State::Gathering { .. } | State::Open { .. } => true,
        }
    }
}

/// The response that an application writes to: the filter changes what goes on to the client.
pub struct FilteredResponse<'a> {
    pub(super) filter: &'a mut ResponseFilter,
    pub(super) request: &'a RequestHead,
    /// Next receiver of the response.
    pub(super) out: &'a mut (dyn Response + Send),
}

impl Response for FilteredResponse<'_> {
    fn entered(&mut self) {
        self.out.entered();
    }

    fn set_route(&mut self, route: &str) {
        self.out.set_route(route);
    }

    fn start(&mut self, head: &ResponseHead, body_length: Option<u64>) -> Result<(), SendError> {
        self.filter.start(self.request, head, body_length, self.out)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), SendError> {
        self.filter.write(self.request, bytes, self.out)
    }

    fn write_shared(&mut self, bytes: &SharedBytes) -> Result<(), SendError> {
        if !self.filter.passes_on() {
            return self.write((**bytes).as_ref());
        }
        self.filter.taken = self.filter.taken.saturating_add((**bytes).as_ref().len() as u64);
        self.out.write_shared(bytes)
    }

    fn flush(&mut self) -> Result<(), SendError> {
        self.filter.flush(self.request, self.out)
    }

    fn hold_back(&mut self) -> bool {
        self.filter.hold_back(self.out)
    }

    fn holds_end(&mut self) -> bool {
        self.filter.passes_on() && self.out.holds_end()
    }

    fn wants_more(&mut self) -> bool {
        !self.filter.passes_on() || self.out.wants_more()
    }

    fn send_file(&mut self, file: OwnedFd, offset: u64, length: u64) -> Result<(), SendError> {
        self.filter.send_file(self.request, file, offset, length, self.out)
    }

    fn interim(&mut self, head: &ResponseHead) -> Result<(), SendError> {
        match self.filter.state {
            State::Hidden { .. } => Ok(()),
            State::Silent => self.out.interim(head),
            State::Gathering { .. } | State::Open { .. } => Err(SendError::Order),
        }
    }

    fn offers_interim(&self) -> bool {
        self.out.offers_interim()
    }

    fn accept_websocket(
        &mut self,
        head: &ResponseHead,
        protocol: Option<&[u8]>,
    ) -> Result<Arc<dyn Socket>, SendError> {
        if self.filter.cookies.is_empty() {
            return self.out.accept_websocket(head, protocol);
        }
        let mut own = head.clone();
        self.filter.add_cookies(&mut own);
        self.out.accept_websocket(&own, protocol)
    }

    fn take_over(&mut self) -> Result<OwnedFd, SendError> {
        self.out.take_over()
    }

    fn started(&self) -> bool {
        self.filter.has_begun(self.out.started())
    }

    fn body_bytes(&self) -> u64 {
        self.filter.taken
    }
}
