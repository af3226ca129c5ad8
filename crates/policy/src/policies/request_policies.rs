//! One request on its way through a site: what answers it in the application's place, and what becomes of the
//! application's answer.

use std::fs::File;
use std::mem;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::SystemTime;

use anygate_proto::application::{Failed, Response, SendError, Socket};
use anygate_proto::head::{RequestHead, ResponseHead};

use super::identity::Names;
use super::{Reply, Site};
use crate::cache::{Begin, Lookup, Recorder, Stored, Waiter};
use crate::compression::Encoder;
use crate::network::Client;
use crate::rate_limit::RateFields;
use crate::refusal::Refusal;
use crate::shared_memory::counters::Permit;

/// Bodies whose length is known, up to this, are compressed as a whole, so that their length is known again.
const GATHER_MAX_BYTES: u64 = 256 * 1024;
/// A file that must be read is read in such pieces.
const PIECE_BYTES: usize = 64 * 1024;

/// What accompanies one request. Dropped, it lets nobody wait for it and counts no longer.
#[derive(Debug)]
pub struct Passage {
    site: Arc<Site>,
    client: Client,
    https: bool,
    names: Option<Names>,
    pub(super) permit: Option<Permit>,
    pub(super) rates: Option<RateFields>,
    /// What is answered in the application's place.
    instead: Option<Instead>,
    recorder: Option<Box<Recorder>>,
    state: State,
    /// Bytes of body that were taken.
    taken: u64,
}

#[derive(Debug)]
enum Instead {
    Reply(Box<Reply>),
    Stored(Box<Stored>),
}

/// How far the answer is.
#[derive(Debug, Default)]
enum State {
    /// Nothing was said.
    #[default]
    Silent,
    /// The head waits for the whole body, which has so many bytes.
    Gathering { head: ResponseHead, body: Vec<u8>, length: u64 },
    /// What comes goes on.
    Open { encoder: Option<Box<Encoder>> },
    /// What comes is for the recorder alone: the client has its answer. Whether the application has begun one.
    Hidden { begun: bool },
}

impl Passage {
    pub(super) fn new(site: Arc<Site>, client: Client, https: bool, names: Option<Names>) -> Passage {
        Passage {
            site,
            client,
            https,
            names,
            permit: None,
            rates: None,
            instead: None,
            recorder: None,
            state: State::Silent,
            taken: 0,
        }
    }

    /// What the request is called, if it has an identifier.
    pub fn id(&self) -> Option<&str> {
        self.names.as_ref()?.id.as_deref()
    }

    /// The trace that the request belongs to, if that is known: 32 hexadecimal digits.
    pub fn trace(&self) -> Option<&str> {
        self.names.as_ref()?.trace.as_deref()
    }

    /// Whether [`prepare`](Self::prepare) and [`answer`](Self::answer) may take long: they ask what nodes share, or compress
    /// a file.
    pub fn may_take_long(&self, request: &RequestHead) -> bool {
        let covers = || self.site.files.as_ref().is_some_and(|files| files.covers(request.path()));
        self.site.may_block() || (self.site.compression.is_some() && covers())
    }

    /// Finds out whether the application is to be asked, and puts the request right for it. To be called once, before
    /// [`answer`](Self::answer). It may wait for another request, and if the site [may block](Site::may_block), for what
    /// nodes share.
    pub fn prepare(&mut self, request: &mut RequestHead) {
        if let Some(waiter) = self.try_prepare(request) {
            waiter.wait();
            self.prepare_again(waiter, request);
        }
    }

    /// The same, but does not wait for another request: gives what is to be waited for. Then it is to be prepared
    /// [again](Self::prepare_again).
    pub fn try_prepare(&mut self, request: &mut RequestHead) -> Option<Waiter> {
        let site = Arc::clone(&self.site);
        if site.rates.may_block()
            && let Err(refusal) = site.count(request, self.client, self)
        {
            let reply = site.refusal(&refusal, request, self.id());
            self.instead = Some(Instead::Reply(Box::new(reply)));
            return None;
        }
        let cache = site.cache.as_ref()?;
        let is_file = site.files.as_ref().is_some_and(|files| files.covers(request.path()));
        if is_file {
            return None;
        }
        match cache.lookup(request, self.https, SystemTime::now()) {
            Lookup::Wait(waiter) => Some(waiter),
            found => {
                self.found(found, request);
                None
            }
        }
    }

    /// Goes on after waiting, and does not wait again.
    pub fn prepare_again(&mut self, waiter: Waiter, request: &mut RequestHead) {
        let site = Arc::clone(&self.site);
        let Some(cache) = &site.cache else { return };
        let found = cache.lookup_again(waiter, request, self.https, SystemTime::now());
        self.found(found, request);
    }

    fn found(&mut self, found: Lookup, request: &mut RequestHead) {
        match found {
            Lookup::Hit(mut stored) => {
                if let Some(recorder) = stored.take_refresh() {
                    self.record(recorder, request);
                }
                self.instead = Some(Instead::Stored(stored));
            }
            Lookup::Miss(recorder) => self.record(recorder, request),
            Lookup::Refuse(refusal) => {
                let reply = self.site.refusal(&refusal, request, self.id());
                self.instead = Some(Instead::Reply(Box::new(reply)));
            }
            // Who has waited is not asked to wait again.
            Lookup::Wait(_) | Lookup::Bypass => {}
        }
    }

    fn record(&mut self, recorder: Box<Recorder>, request: &mut RequestHead) {
        // Without the conditions the application answers in full, which is right as well.
        let _ = recorder.prepare(request);
        self.recorder = Some(recorder);
    }

    /// Answers in the application's place; `None`: the application is to be asked. What it then answers into a [`Through`]
    /// may be for the cache alone.
    pub fn answer(
        &mut self,
        request: &RequestHead,
        out: &mut (dyn Response + Send),
    ) -> Option<Result<(), Failed>> {
        match self.instead.take() {
            Some(Instead::Reply(reply)) => {
                let Reply { head, body, .. } = *reply;
                Some(self.reply(request, head, &body, out).map_err(|_| Failed))
            }
            Some(Instead::Stored(stored)) => {
                let refresh = self.recorder.take();
                let sent = self.stored(request, &stored, out).and_then(|()| match refresh {
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
            None => {
                let site = Arc::clone(&self.site);
                let sent = site.file(request, &mut Through { passage: self, request, out });
                sent.map(|sent| self.finish(request, sent.map_err(|_| Failed), out))
            }
        }
    }

    /// Ends the answer: `result` is what the application returned, the value is whether the answer is whole.
    pub fn finish(
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
            let is_said = matches!(self.state, State::Open { .. }) || out.started();
            if is_said {
                return result;
            }
            self.state = State::Silent;
            if let Some(stored) = recorder.and_then(|recorder| recorder.failed(SystemTime::now())) {
                return self.stored(request, &stored, out).map_err(|_| Failed);
            }
            let page = self.site.pages.as_ref();
            let page = page.map(|pages| pages.page(500, request.field("accept"), self.id()));
            let Some((head, body)) = page else { return result };
            return self.reply(request, head, &body, out).map_err(|_| Failed);
        }
        self.complete(out).map_err(|_| Failed)?;
        if let Some(recorder) = recorder {
            recorder.finish(SystemTime::now());
        }
        Ok(())
    }

    /// Answers that the body is longer than it may be, in place of an application that came to its end.
    ///
    /// Errors: the application has said something.
    pub fn refuse_body(
        &mut self,
        request: &RequestHead,
        out: &mut (dyn Response + Send),
    ) -> Result<(), Failed> {
        if !matches!(self.state, State::Silent | State::Gathering { .. }) {
            return Err(Failed);
        }
        self.state = State::Silent;
        let Reply { head, body, .. } = self.site.refusal(&Refusal::too_large(), request, self.id());
        self.reply(request, head, &body, out).map_err(|_| Failed)
    }

    /// Gives an answer of ours, which nobody records.
    pub(super) fn reply(
        &mut self,
        request: &RequestHead,
        head: ResponseHead,
        body: &[u8],
        out: &mut (dyn Response + Send),
    ) -> Result<(), SendError> {
        self.recorder = None;
        self.open(request, head, Some(body.len() as u64), out)?;
        self.put(request, body, out)?;
        self.complete(out)
    }

    fn stored(
        &mut self,
        request: &RequestHead,
        stored: &Stored,
        out: &mut (dyn Response + Send),
    ) -> Result<(), SendError> {
        self.reply(request, stored.head().clone(), stored.body(), out)
    }

    /// Takes the application's head.
    fn start(
        &mut self,
        request: &RequestHead,
        head: &ResponseHead,
        body_length: Option<u64>,
        out: &mut (dyn Response + Send),
    ) -> Result<(), SendError> {
        match &mut self.state {
            State::Silent => {}
            State::Hidden { begun: begun @ false } => {
                *begun = true;
                if let Some(recorder) = &mut self.recorder {
                    // The client has its answer, whatever this one is.
                    let _ = recorder.start(head, SystemTime::now());
                }
                return Ok(());
            }
            _ => return Err(SendError::Order),
        }
        let Some(recorder) = &mut self.recorder else {
            return self.open(request, head.clone(), body_length, out);
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

    /// Sends a head with all that the site adds to it, or keeps it until its body is there.
    fn open(
        &mut self,
        request: &RequestHead,
        mut head: ResponseHead,
        body_length: Option<u64>,
        out: &mut (dyn Response + Send),
    ) -> Result<(), SendError> {
        let site = &self.site;
        if let Some(cors) = &site.cors {
            cors.apply(request, &mut head);
        }
        site.security.apply(self.https, &mut head);
        if let Some(rates) = &self.rates {
            // They are ours, and valid.
            let _ = rates.apply(&mut head);
        }
        if let Some(names) = &self.names {
            names.apply(&mut head);
        }
        let compression = site.compression.as_ref();
        match compression.and_then(|compression| compression.length_to_code(request, &head, body_length)) {
            Some(length) if length <= GATHER_MAX_BYTES => {
                self.state = State::Gathering { head, body: Vec::new(), length };
                Ok(())
            }
            _ => self.begin(request, head, body_length, out),
        }
    }

    /// Sends a head, and decides how what follows is coded.
    fn begin(
        &mut self,
        request: &RequestHead,
        mut head: ResponseHead,
        body_length: Option<u64>,
        out: &mut (dyn Response + Send),
    ) -> Result<(), SendError> {
        let compression = self.site.compression.as_ref();
        let was_coded = head.has_field("content-encoding");
        let encoder =
            compression.and_then(|compression| compression.negotiate(request, &mut head, body_length));
        // Of an answer to HEAD that would be coded nobody knows the length.
        let is_coded = !was_coded && head.has_field("content-encoding");
        out.start(&head, if is_coded { None } else { body_length })?;
        self.state = State::Open { encoder: encoder.map(Box::new) };
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

    /// Sends bytes of a body, in the form that was agreed on.
    fn put(
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
                // What cannot be coded to its end must not look whole.
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

    /// Sends what was gathered, which is whole.
    fn compress(&mut self, request: &RequestHead, out: &mut (dyn Response + Send)) -> Result<(), SendError> {
        let State::Gathering { mut head, body, length } = mem::take(&mut self.state) else { return Ok(()) };
        self.state = State::Open { encoder: None };
        let compression = self.site.compression.as_ref();
        // More than was announced is the application's mistake, for which the server has an answer.
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

    /// Sends what is left: there will be no more. What was gathered goes as it is.
    fn complete(&mut self, out: &mut (dyn Response + Send)) -> Result<(), SendError> {
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
            // An application that gives its body in pieces wants each to be seen.
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
        if self.recorder.is_none() && matches!(self.state, State::Open { encoder: None }) {
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

    /// Whether what the application gives goes on as it is, so that it need not be pushed through.
    pub fn passes_on(&self) -> bool {
        self.recorder.is_none() && matches!(self.state, State::Open { encoder: None })
    }

    /// Whether the application has begun an answer; `started`: whether the client got the beginning of one.
    pub fn has_begun(&self, started: bool) -> bool {
        match self.state {
            State::Silent => started,
            State::Hidden { begun } => begun,
            State::Gathering { .. } | State::Open { .. } => true,
        }
    }

    /// Bytes of body that the application has given.
    pub fn body_bytes(&self) -> u64 {
        self.taken
    }
}

/// What an application answers into: the passage changes what goes on to the client.
pub struct Through<'a> {
    /// The request's.
    pub passage: &'a mut Passage,
    /// What is answered.
    pub request: &'a RequestHead,
    /// Where the answer goes.
    pub out: &'a mut (dyn Response + Send),
}

impl Response for Through<'_> {
    fn entered(&mut self) {
        self.out.entered();
    }

    fn start(&mut self, head: &ResponseHead, body_length: Option<u64>) -> Result<(), SendError> {
        self.passage.start(self.request, head, body_length, self.out)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), SendError> {
        self.passage.write(self.request, bytes, self.out)
    }

    fn flush(&mut self) -> Result<(), SendError> {
        self.passage.flush(self.request, self.out)
    }

    fn hold_back(&mut self) -> bool {
        self.passage.hold_back(self.out)
    }

    fn send_file(&mut self, file: OwnedFd, offset: u64, length: u64) -> Result<(), SendError> {
        self.passage.send_file(self.request, file, offset, length, self.out)
    }

    fn interim(&mut self, head: &ResponseHead) -> Result<(), SendError> {
        match self.passage.state {
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
        self.out.accept_websocket(head, protocol)
    }

    fn take_over(&mut self) -> Result<OwnedFd, SendError> {
        self.out.take_over()
    }

    fn started(&self) -> bool {
        self.passage.has_begun(self.out.started())
    }

    fn body_bytes(&self) -> u64 {
        self.passage.taken
    }
}
