//! Between the reactor, which the steward runs all the time where the application is a hub, and the one thread of that
//! hub: requests go through the [`HubQueue`], and each [`HubCall`] gives its connection back when it has its response.
//!
//! The hub's thread never owns the reactor and never waits outside its own loop: what it waits for is told by the queue.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anygate_lock::{Mutex, MutexGuard};
use anygate_policy::cache::Waiter;
use anygate_proto::application::{self, Failed, News, Request, Response, SendError, SharedBytes, Socket};
use anygate_proto::head::{RequestHead, ResponseHead};
use anygate_sys::Bell;

use crate::connection::Connection;
use crate::date::DateCache;
use crate::exchange::{Exchange, Form, ResponseWriter};
use crate::threads::blocking_pool::BlockingPool;
use crate::threads::call::Call;
use crate::threads::shared::Shared;

/// What is to be done by the hub.
pub(crate) struct HubQueue {
    calls: Mutex<Tray>,
    closed: AtomicBool,
    /// The hub has several calls to begin, and gives back what has its response in between without a word.
    batch: AtomicBool,
    /// Such connections wait.
    put_down: AtomicBool,
    /// The hub has looked since [`standing`](Self::standing) was asked,
    taken: AtomicBool,
    /// or has not since then.
    standing: Mutex<Option<Instant>>,
    bell: Bell,
    /// Calls that were handed over and are not finished.
    open: AtomicUsize,
    open_max: usize,
    numbers: AtomicU64,
    /// Where the site may have to wait.
    blocking_pool: Option<BlockingPool>,
    /// Calls that wait for another one's response, in the order in which they began to.
    waiting: Mutex<VecDeque<Waiting>>,
    /// Some of them need not wait any more.
    landed: Arc<AtomicBool>,
    date: Mutex<DateCache>,
    shared: Arc<Shared>,
}

/// A call that waits for another one's response. The hub does not know of it, and it has no place there.
struct Waiting {
    waiter: Waiter,
    until: Instant,
    call: Box<HubCall>,
}

/// On whose thread a call ends.
#[derive(Clone, Copy)]
enum Ender {
    /// The reactor's, which looks for what came back anyway.
    Reactor,
    /// The hub's, which says once a batch that something came back.
    Hub,
    Other,
}

/// Contents of a queue.
#[derive(Default)]
struct Tray {
    /// Not begun.
    calls: VecDeque<Box<HubCall>>,
    /// Of calls that were begun.
    news: VecDeque<News>,
}

impl HubQueue {
    /// A queue of at most `open_max` calls at a time.
    ///
    /// Errors: no descriptors are left.
    pub(crate) fn new(shared: Arc<Shared>, open_max: usize) -> io::Result<HubQueue> {
        Ok(HubQueue {
            calls: Mutex::default(),
            closed: AtomicBool::new(false),
            batch: AtomicBool::new(false),
            put_down: AtomicBool::new(false),
            taken: AtomicBool::new(false),
            standing: Mutex::default(),
            bell: Bell::new()?,
            open: AtomicUsize::new(0),
            open_max: open_max.max(1),
            numbers: AtomicU64::new(1),
            blocking_pool: {
                let takes_long = shared.rules.read.site.as_ref().is_some_and(|site| site.may_take_long());
                takes_long.then(BlockingPool::start).transpose()?
            },
            waiting: Mutex::default(),
            landed: Arc::default(),
            date: Mutex::default(),
            shared,
        })
    }

    /// Whether the hub may have one more call.
    pub(crate) fn has_place(&self) -> bool {
        self.open.load(Ordering::Acquire) < self.open_max
    }

    /// Hands over a connection with its ready exchange, unless it can get its response here. To be followed by
    /// [`ring`](Self::ring).
    pub(crate) fn hand_over(self: &Arc<Self>, mut connection: Box<Connection>, now: Instant) {
        let Some(exchange) = connection.exchange.take() else { return };
        self.open.fetch_add(1, Ordering::AcqRel);
        let call = Box::new(HubCall::begin(Arc::clone(self), connection, exchange, now));
        self.look_at(call, None);
    }

    /// Has the site look at a call, for the first time or after it has waited.
    fn look_at(self: &Arc<Self>, mut call: Box<HubCall>, waited: Option<Waiter>) {
        match &self.blocking_pool {
            Some(blocking_pool) if call.takes_long() => {
                let queue = Arc::clone(self);
                blocking_pool.run(move || {
                    let waiter = call.prepare(waited);
                    queue.take_up(call, waiter, Ender::Other);
                    queue.ring();
                });
            }
            _ => {
                let waiter = call.prepare(waited);
                self.take_up(call, waiter, Ender::Reactor);
            }
        }
    }

    /// Puts a call into the queue, unless it has to wait or can get its response here.
    fn take_up(&self, mut call: Box<HubCall>, waiter: Option<Waiter>, ender: Ender) {
        if let Some(waiter) = waiter {
            self.wait_for(waiter, call);
            if matches!(ender, Ender::Other) {
                // There is a place for another one.
                self.shared.attention.wake();
            }
            return;
        }
        match call.respond_here() {
            Some(result) => call.end(result, ender),
            None => {
                call.set_waits(true);
                self.lock().calls.push_back(call);
            }
        }
    }

    fn wait_for(&self, waiter: Waiter, call: Box<HubCall>) {
        let (landed, attention) = (Arc::clone(&self.landed), Arc::clone(&self.shared.attention));
        // A thread that looks because of this news finds the call, which is there when the lock is free.
        let mut waiting = self.waiting.lock();
        waiter.then(move || {
            if !landed.swap(true, Ordering::AcqRel) {
                attention.wake();
            }
        });
        waiting.push_back(Waiting { until: Instant::now() + waiter.longest(), waiter, call });
        self.open.fetch_sub(1, Ordering::AcqRel);
    }

    /// Goes on with calls that have waited for another one's response, as long as there is place. To be followed by
    /// [`ring`](Self::ring).
    pub(crate) fn go_on(self: &Arc<Self>, now: Instant) {
        let mut waiting = self.waiting.lock();
        let landed = self.landed.swap(false, Ordering::AcqRel);
        if !landed && waiting.front().is_none_or(|first| first.until > now) {
            return;
        }
        let is_over = |waiting: &Waiting| waiting.until <= now || waiting.waiter.is_over();
        let (over, rest) = waiting.drain(..).partition(is_over);
        *waiting = rest;
        drop(waiting);
        let mut over: VecDeque<Waiting> = over;
        while self.has_place()
            && let Some(Waiting { waiter, call, .. }) = over.pop_front()
        {
            self.open.fetch_add(1, Ordering::AcqRel);
            self.look_at(call, Some(waiter));
        }
        if !over.is_empty() {
            // They are looked at again when some call has ended.
            let mut waiting = self.waiting.lock();
            over.append(&mut waiting);
            *waiting = over;
            self.landed.store(true, Ordering::Release);
        }
    }

    /// Wakes the hub if there is anything for it.
    pub(crate) fn ring(&self) {
        let calls = self.lock();
        let count = calls.calls.len() + calls.news.len();
        drop(calls);
        if count > 1 {
            self.batch.store(true, Ordering::Release);
        }
        let nothing = count == 0 && !self.closed.load(Ordering::Acquire);
        if !nothing && let Err(error) = self.bell.ring() {
            tracing::error!("cannot wake the application's thread: {error}");
        }
    }

    /// Whether connections may come back without a word. Waking the reactor for each of them would cost more than
    /// responding to it.
    pub(crate) fn is_in_batch(&self) -> bool {
        self.batch.load(Ordering::Acquire)
    }

    fn give_back(&self, connection: Box<Connection>, ender: Ender) {
        match ender {
            Ender::Reactor => self.shared.inbox.put_down(connection),
            Ender::Hub if self.is_in_batch() => {
                self.shared.inbox.put_down(connection);
                self.put_down.store(true, Ordering::Release);
            }
            Ender::Hub | Ender::Other => self.shared.inbox.give_back(connection),
        }
    }

    /// How long the hub has taken nothing although there was something to take, as far as this was asked.
    pub(crate) fn standing(&self, now: Instant) -> Option<Duration> {
        let mut standing = self.standing.lock();
        let tray = self.lock();
        let is_empty = tray.calls.is_empty() && tray.news.is_empty();
        drop(tray);
        if self.taken.swap(false, Ordering::AcqRel) {
            *standing = None;
        }
        // What was there may have been refused meanwhile, but the bell still rings.
        if is_empty && standing.is_none() {
            return None;
        }
        Some(now.saturating_duration_since(*standing.get_or_insert(now)))
    }

    /// Responds with 503 to requests that the hub has not begun within `queue_timeout`.
    pub(crate) fn refuse_late(&self, now: Instant) {
        let patience = self.shared.rules.timeouts.queue;
        loop {
            let mut tray = self.lock();
            if tray.calls.front().is_none_or(|call| call.since + patience > now) {
                return;
            }
            let Some(mut call) = tray.calls.pop_front() else { return };
            drop(tray);
            let refused = call.refuse(503);
            call.end(refused, Ender::Reactor);
        }
    }

    /// There will be no more calls.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.ring();
    }

    /// Puts something into the queue.
    pub(crate) fn tell(&self, news: News) {
        self.lock().news.push_back(news);
        self.ring();
    }

    fn pop(&self) -> Option<News> {
        loop {
            let mut calls = self.lock();
            if let Some(news) = calls.news.pop_front() {
                return Some(news);
            }
            let call = calls.calls.pop_front();
            drop(calls);
            match call {
                // It took too long although it was never begun, or its client has left. Dropping it is all that is left to do.
                Some(call) if call.is_over() => {}
                Some(call) => {
                    call.set_waits(false);
                    return Some(News::Call(call));
                }
                None => return self.closed.load(Ordering::Acquire).then_some(News::Closed),
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Tray> {
        self.calls.lock()
    }
}

impl application::HubQueue for HubQueue {
    fn bell(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }

    fn take(&self) -> Option<News> {
        self.taken.store(true, Ordering::Release);
        self.pop().or_else(|| {
            if let Err(error) = self.bell.silence() {
                tracing::error!("cannot listen for requests: {error}");
            }
            self.batch.store(false, Ordering::Release);
            if self.put_down.swap(false, Ordering::AcqRel) {
                self.shared.attention.wake();
            }
            self.pop()
        })
    }

    fn tell(&self, number: u64) {
        HubQueue::tell(self, News::Of(number));
    }

    fn body_timeout(&self) -> Duration {
        self.shared.rules.read.plan.body_rate.timeout
    }

    fn has_time_limit(&self) -> bool {
        self.shared.call_limits.is_some()
    }
}

/// One call in the hands of the hub.
struct HubCall {
    inside: Option<Inside>,
    number: u64,
    is_taken: bool,
    /// When it was handed over.
    since: Instant,
    queue: Arc<HubQueue>,
}

/// A call with its connection, until its end.
struct Inside {
    call: Call,
    connection: Box<Connection>,
    exchange: Box<Exchange>,
}

impl Inside {
    /// What goes on with the response, and the request.
    fn resume<'a>(
        &'a mut self,
        shared: &'a Shared,
        date: &'a mut DateCache,
    ) -> (&'a mut Call, ResponseWriter<'a>, &'a RequestHead) {
        let Inside { call, connection, exchange } = self;
        let (rules, draining) = (&shared.rules.response, shared.attention.draining());
        let (writer, head, _) = ResponseWriter::resume(exchange, &connection.pipe, rules, date, draining);
        (call, writer, head)
    }
}

impl HubCall {
    fn begin(
        queue: Arc<HubQueue>,
        connection: Box<Connection>,
        mut exchange: Box<Exchange>,
        now: Instant,
    ) -> Self {
        let unwatched = || queue.numbers.fetch_add(1, Ordering::Relaxed);
        let call = Call::begin(queue.shared.surroundings(), &connection, &mut exchange, false, unwatched);
        HubCall {
            number: call.number(),
            inside: Some(Inside { call, connection, exchange }),
            is_taken: false,
            since: now,
            queue,
        }
    }

    /// Whether the site may take long to find out what to do with the request.
    fn takes_long(&self) -> bool {
        self.inside.as_ref().is_some_and(|inside| inside.call.may_take_long(&inside.exchange.head))
    }

    /// Whether the site may wait when the call ends.
    fn may_block(&self) -> bool {
        let rules = &self.queue.shared.rules;
        self.inside.as_ref().is_some_and(|inside| inside.call.may_block_at_its_end(rules))
    }

    /// Lets the site look at the request, for the first time or after it has waited. It may take long. Returns what the
    /// request has to wait for.
    fn prepare(&mut self, waited: Option<Waiter>) -> Option<Waiter> {
        let Inside { call, exchange, .. } = self.inside.as_mut()?;
        call.try_prepare(&mut exchange.head, waited)
    }

    /// Whether it got its response in place of the application, or no client waits for its response. A client that got a
    /// stored response may leave: the application refreshes it all the same.
    fn is_over(&self) -> bool {
        let is_over = |connection: &Connection| {
            connection.pipe.seized().is_some() || (connection.is_abandoned() && !connection.pipe.has_begun())
        };
        self.inside.as_ref().is_none_or(|inside| is_over(&inside.connection))
    }

    /// Lets the reactor know whether the hub has taken it.
    fn set_waits(&self, waits: bool) {
        if let Some(inside) = &self.inside {
            inside.connection.pipe.set_waits_for_hub(waits);
        }
    }

    /// Goes on with the response; `None` after the end.
    fn with_response<R>(&mut self, work: impl FnOnce(&mut (dyn Response + Send)) -> R) -> Option<R> {
        let mut date = self.queue.date.lock();
        let (call, mut writer, head) = self.inside.as_mut()?.resume(&self.queue.shared, &mut date);
        Some(call.with_response(head, &mut writer, work))
    }

    /// Responds to a request that needs no application.
    fn respond_here(&mut self) -> Option<Result<(), Failed>> {
        // The hub's thread does not wait for what is looked for here.
        let mut date = DateCache::default();
        let (call, mut writer, head) = self.inside.as_mut()?.resume(&self.queue.shared, &mut date);
        call.respond_in_place(self.queue.shared.rules.files.as_ref(), head, &mut writer)
    }

    /// Responds in place of the application.
    fn refuse(&mut self, status: u16) -> Result<(), Failed> {
        let mut date = self.queue.date.lock();
        let Some(inside) = self.inside.as_mut() else { return Err(Failed) };
        let (_, mut writer, _) = inside.resume(&self.queue.shared, &mut date);
        writer.refuse(status);
        Ok(())
    }

    /// Ends the call with what the application returned.
    fn end(&mut self, result: Result<(), Failed>, ender: Ender) {
        let Some(Inside { call, mut connection, exchange }) = self.inside.take() else { return };
        let mut date = self.queue.date.lock();
        call.end_in(self.queue.shared.surroundings(), &mut connection, exchange, &mut date, result);
        drop(date);
        self.queue.open.fetch_sub(1, Ordering::AcqRel);
        self.queue.give_back(connection, ender);
    }
}

impl Drop for HubCall {
    fn drop(&mut self) {
        self.end(Err(Failed), Ender::Other);
    }
}

impl application::Call for HubCall {
    fn number(&self) -> u64 {
        self.number
    }

    fn request(&mut self) -> Option<Request<'_>> {
        let Inside { call, connection, exchange } = self.inside.as_mut()?;
        if !std::mem::replace(&mut self.is_taken, true) {
            call.taken_up();
        }
        let endpoints = exchange.endpoints.as_ref().unwrap_or(&connection.endpoints);
        Some(call.request(&exchange.head, endpoints))
    }

    fn has_room(&mut self) -> bool {
        let (shared, mut date) = (&self.queue.shared, DateCache::default());
        let Some(inside) = &mut self.inside else { return true };
        let (_, writer, _) = inside.resume(shared, &mut date);
        writer.has_room()
    }

    fn want_news(&mut self) {
        if let Some(Inside { connection, .. }) = &self.inside {
            let (queue, number) = (Arc::clone(&self.queue), self.number);
            connection.pipe.want_news(Box::new(move || queue.tell(News::Of(number))));
        }
    }

    fn within(&mut self, work: &mut dyn FnMut(&RequestHead)) {
        if let Some(inside) = &self.inside {
            inside.call.request_name().within(|| work(&inside.exchange.head));
        }
    }

    fn finish(mut self: Box<Self>, result: Result<(), Failed>) {
        let queue = Arc::clone(&self.queue);
        match &queue.blocking_pool {
            Some(blocking_pool) if self.may_block() => {
                blocking_pool.run(move || self.end(result, Ender::Other))
            }
            _ => self.end(result, Ender::Hub),
        }
    }
}

impl Response for HubCall {
    fn entered(&mut self) {}

    fn set_route(&mut self, route: &str) {
        self.with_response(|response| response.set_route(route));
    }

    fn start(&mut self, head: &ResponseHead, body_length: Option<u64>) -> Result<(), SendError> {
        self.with_response(|response| response.start(head, body_length)).unwrap_or(Err(SendError::Order))
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), SendError> {
        self.with_response(|response| response.write(bytes)).unwrap_or(Err(SendError::Order))
    }

    fn write_shared(&mut self, bytes: &SharedBytes) -> Result<(), SendError> {
        self.with_response(|response| response.write_shared(bytes)).unwrap_or(Err(SendError::Order))
    }

    fn flush(&mut self) -> Result<(), SendError> {
        self.with_response(|response| response.flush()).unwrap_or(Err(SendError::Order))
    }

    fn hold_back(&mut self) -> bool {
        self.with_response(|response| response.hold_back()).unwrap_or(false)
    }

    fn holds_end(&mut self) -> bool {
        self.with_response(|response| response.holds_end()).unwrap_or(false)
    }

    fn wants_more(&mut self) -> bool {
        self.with_response(|response| response.wants_more()).unwrap_or(false)
    }

    fn send_file(&mut self, file: OwnedFd, offset: u64, length: u64) -> Result<(), SendError> {
        self.with_response(|response| response.send_file(file, offset, length))
            .unwrap_or(Err(SendError::Order))
    }

    fn interim(&mut self, head: &ResponseHead) -> Result<(), SendError> {
        self.with_response(|response| response.interim(head)).unwrap_or(Err(SendError::Order))
    }

    fn offers_interim(&self) -> bool {
        self.inside.as_ref().is_some_and(|inside| inside.exchange.form == Form::Http2)
    }

    fn accept_websocket(
        &mut self,
        head: &ResponseHead,
        protocol: Option<&[u8]>,
    ) -> Result<Arc<dyn Socket>, SendError> {
        self.with_response(|response| response.accept_websocket(head, protocol))
            .unwrap_or(Err(SendError::Order))
    }

    fn take_over(&mut self) -> Result<OwnedFd, SendError> {
        self.with_response(|response| response.take_over()).unwrap_or(Err(SendError::Order))
    }

    fn started(&self) -> bool {
        self.inside.as_ref().is_some_and(|inside| inside.call.has_begun(inside.exchange.response_has_begun()))
    }

    fn body_bytes(&self) -> u64 {
        self.inside.as_ref().map_or(0, |inside| inside.call.body_bytes(inside.exchange.body_bytes()))
    }
}
