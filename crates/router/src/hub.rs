//! All requests that are being passed on, side by side on one thread.

use std::collections::HashMap;
use std::io;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anygate_proto::application::{Call, Failed, Hub, HubQueue, LongCall, News};
use mio::net::UnixStream;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};

use crate::routes::{self, Route};
use crate::transfer::{Refusal, Step, Transfer, refuse};
use crate::websocket::{self, Link};

/// The token of the queue's bell. Numbers of calls never come so far.
const BELL: Token = Token(usize::MAX);
const EVENTS: usize = 1024;

/// Passes requests on to applications with processes of their own.
pub struct Router {
    routes: Vec<Route>,
    /// Maximum number of requests that one application has at a time, so that one that hangs leaves room for others.
    share: usize,
}

impl Router {
    /// A router of these routes, for at most so many requests at a time.
    pub fn new(mut routes: Vec<Route>, calls_max: usize) -> Router {
        routes::rank(&mut routes);
        let share = (calls_max / routes.len().max(1)).max(1);
        Router { routes, share }
    }
}

impl Hub for Router {
    fn run(&self, queue: Arc<dyn HubQueue>) -> Result<(), Failed> {
        let ran = Floor::new(self, queue).and_then(|mut floor| floor.run());
        ran.map_err(|error| {
            tracing::error!("cannot pass requests on: {error}");
            Failed
        })
    }

    fn attend_to(&self, _call: &LongCall) -> bool {
        // No call occupies the thread.
        false
    }
}

/// What the thread works with.
struct Floor<'r> {
    router: &'r Router,
    queue: Arc<dyn HubQueue>,
    poll: Poll,
    transfers: HashMap<u64, Transfer>,
    /// Requests that became WebSockets, which have threads of their own.
    websockets: HashMap<u64, (usize, Arc<Link>)>,
    /// Requests that each application has.
    counts: Vec<usize>,
    /// Applications that could not be reached, so that this is logged once.
    unreachable: Vec<bool>,
    /// Transfers that have had their turn.
    again: Vec<u64>,
    /// Transfers that wait for a body of their client, and until when.
    bodies: HashMap<u64, Instant>,
}

impl<'r> Floor<'r> {
    fn new(router: &'r Router, queue: Arc<dyn HubQueue>) -> io::Result<Self> {
        let poll = Poll::new()?;
        poll.registry().register(&mut SourceFd(&queue.bell().as_raw_fd()), BELL, Interest::READABLE)?;
        Ok(Floor {
            router,
            queue,
            poll,
            transfers: HashMap::new(),
            websockets: HashMap::new(),
            counts: vec![0; router.routes.len()],
            unreachable: vec![false; router.routes.len()],
            again: Vec::new(),
            bodies: HashMap::new(),
        })
    }

    fn run(&mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(EVENTS);
        loop {
            let now = Instant::now();
            for number in std::mem::take(&mut self.again) {
                self.go_on(number, now);
            }
            match self.poll.poll(&mut events, self.patience()) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                polled => polled?,
            }
            let now = Instant::now();
            for event in &events {
                if event.token() == BELL {
                    continue;
                }
                let number = event.token().0 as u64;
                if let Some(transfer) = self.transfers.get_mut(&number) {
                    let ended = event.is_error() || event.is_read_closed() || event.is_write_closed();
                    transfer.note(event.is_readable() || ended, event.is_writable() || ended);
                    self.go_on(number, now);
                }
            }
            // The bell may have rung while others were looked after; asking costs nothing.
            while let Some(news) = self.queue.take() {
                match news {
                    News::Call(call) => self.begin(call, now),
                    News::Of(number) => self.hear(number, now),
                    News::Long(long) => self.attend_to(&long),
                    News::Closed => return Ok(()),
                }
            }
            self.look_for_late(now);
        }
    }

    /// How long nothing is due.
    fn patience(&self) -> Option<Duration> {
        if !self.again.is_empty() {
            return Some(Duration::ZERO);
        }
        let now = Instant::now();
        let due = self.bodies.values().min();
        due.map(|due| due.saturating_duration_since(now))
    }

    /// Goes on with those whose clients are late, so that the body says so.
    fn look_for_late(&mut self, now: Instant) {
        let late = self.bodies.iter().filter(|(_, at)| **at <= now).map(|(number, _)| *number);
        for number in late.collect::<Vec<u64>>() {
            self.go_on(number, now);
        }
    }

    fn begin(&mut self, mut call: Box<dyn Call>, now: Instant) {
        let number = call.number();
        let mut found = None;
        call.within(&mut |head| found = routes::find(&self.router.routes, head));
        let Some(place) = found else {
            let refused = refuse(call.as_mut(), Refusal::NotFound);
            return call.finish(refused);
        };
        let Some(stream) = self.connect(place, number) else {
            let refused = refuse(call.as_mut(), Refusal::Unavailable);
            return call.finish(refused);
        };
        let route = self.router.routes.get(place).filter(|route| !route.keep_path);
        let mount = route.map(|route| route.path.as_bytes()).unwrap_or_default();
        let Some(transfer) = Transfer::new(call, place, mount, stream, self.queue.body_timeout()) else {
            return;
        };
        self.count(place, 1);
        self.transfers.insert(number, transfer);
        self.go_on(number, now);
    }

    /// Connects to an application; says why if that cannot be.
    fn connect(&mut self, place: usize, number: u64) -> Option<UnixStream> {
        let (route, was) = (self.router.routes.get(place)?, self.unreachable.get_mut(place)?);
        if self.counts.get(place).is_some_and(|count| *count >= self.router.share) {
            if !std::mem::replace(was, true) {
                tracing::warn!(
                    "application {:?} has {} requests and gets no more",
                    route.name,
                    self.router.share
                );
            }
            return None;
        }
        let token = Token(usize::try_from(number).ok()?);
        let connected = UnixStream::connect(&route.socket).and_then(|mut stream| {
            self.poll.registry().register(&mut stream, token, Interest::READABLE | Interest::WRITABLE)?;
            Ok(stream)
        });
        match connected {
            Ok(stream) => {
                *was = false;
                Some(stream)
            }
            Err(error) => {
                if !std::mem::replace(was, true) {
                    let reason = match error.kind() {
                        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                            "it does not run".to_owned()
                        }
                        io::ErrorKind::WouldBlock => "too many requests wait for it (backlog)".to_owned(),
                        _ => error.to_string(),
                    };
                    tracing::warn!("application {:?} gets no requests: {reason}", route.name);
                }
                None
            }
        }
    }

    fn count(&mut self, place: usize, more: isize) {
        if let Some(count) = self.counts.get_mut(place) {
            *count = count.saturating_add_signed(more);
        }
    }

    fn go_on(&mut self, number: u64, now: Instant) {
        let Some(transfer) = self.transfers.get_mut(&number) else { return };
        let name =
            self.router.routes.get(transfer.route).map(|route| route.name.as_str()).unwrap_or_default();
        let step = transfer.go_on(name, now);
        match transfer.late_at {
            Some(at) => self.bodies.insert(number, at),
            None => self.bodies.remove(&number),
        };
        match step {
            Step::Wait => {}
            Step::Again => self.again.push(number),
            Step::Over(result) => {
                if let Some(transfer) = self.take(number) {
                    self.count(transfer.route, -1);
                    transfer.call.finish(result);
                }
            }
            Step::Upgrade(head) => {
                let Some(transfer) = self.take(number) else { return };
                let place = transfer.route;
                let queue = Arc::clone(&self.queue);
                match websocket::start(transfer.call, queue, &head, transfer.stream, transfer.input) {
                    Some(link) => {
                        self.websockets.insert(number, (place, link));
                    }
                    None => self.count(place, -1),
                }
            }
        }
    }

    /// Takes a transfer away.
    fn take(&mut self, number: u64) -> Option<Transfer> {
        self.bodies.remove(&number);
        let mut transfer = self.transfers.remove(&number)?;
        // It fails for a socket that is not watched, which is as good.
        let _ = self.poll.registry().deregister(&mut transfer.stream);
        Some(transfer)
    }

    fn hear(&mut self, number: u64, now: Instant) {
        let Some((place, link)) = self.websockets.get(&number) else { return self.go_on(number, now) };
        match link.take_ended() {
            None => link.wake(),
            Some((call, result)) => {
                let place = *place;
                self.websockets.remove(&number);
                self.count(place, -1);
                call.finish(result);
            }
        }
    }

    /// A call takes long: it is told where it is, and let go if the server has responded in its place.
    fn attend_to(&mut self, long: &LongCall) {
        let Some(transfer) = self.transfers.get(&long.number) else { return };
        let name =
            self.router.routes.get(transfer.route).map(|route| route.name.as_str()).unwrap_or_default();
        let LongCall { method, target, client, age, .. } = long;
        long.within(&mut || {
            tracing::warn!(
                "{method} {target} from {client} has taken {:.1} s: it waits for application {name:?}",
                age.as_secs_f64()
            );
        });
        if long.is_overdue
            && let Some(transfer) = self.take(long.number)
        {
            self.count(transfer.route, -1);
            transfer.call.finish(Err(Failed));
        }
    }
}
