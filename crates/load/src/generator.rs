//! One thread of a load: its connections, and the loop that serves them.

use std::collections::VecDeque;
use std::io;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anygate_sys::clock;
use anygate_sys::timer::Timer;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};

use crate::client::{Client, Progress, State};
use crate::outcome::{ErrorKind, Outcome};
use crate::plan::{Load, Request};
use crate::schedule::Schedule;
use crate::slow_client::SlowClient;

/// How often it looks for requests that take too long, connections that are to be made anew, and its end.
const SWEEP: Duration = Duration::from_millis(100);
/// How long responses to requests that were due before the end are waited for.
const GRACE: Duration = Duration::from_secs(1);
const BUFFER_BYTES: usize = 64 * 1024;
const TIMER: Token = Token(usize::MAX);

pub(crate) struct Generator<'a> {
    load: &'a Load,
    schedule: Schedule<'a>,
    end: Instant,
    poll: Poll,
    timer: Timer,
    clients: Vec<Client>,
    slow_clients: Vec<SlowClient>,
    /// Clients that had no request to send, at a constant rate.
    free: VecDeque<usize>,
    outcome: Outcome,
    buffer: Vec<u8>,
}

impl<'a> Generator<'a> {
    /// One of several threads; `place` counts from 0.
    pub(crate) fn new(
        load: &'a Load,
        order: &'a [usize],
        place: usize,
        threads: usize,
        begun: Instant,
    ) -> io::Result<Generator<'a>> {
        let share = |count: usize| count / threads + usize::from(place < count % threads);
        let end = begun.checked_add(load.duration).unwrap_or(begun);
        let poll = Poll::new()?;
        let timer = Timer::new()?;
        poll.registry().register(&mut SourceFd(&timer.as_raw_fd()), TIMER, Interest::READABLE)?;
        Ok(Generator {
            load,
            schedule: Schedule::new(load.rate, order, place, threads, (begun, end)),
            end,
            poll,
            timer,
            clients: (0..share(load.connections)).map(|_| Client::new(begun)).collect(),
            slow_clients: (0..share(load.slow_clients)).map(|_| SlowClient::default()).collect(),
            free: VecDeque::new(),
            outcome: Outcome::new(load.requests.len()),
            buffer: vec![0; BUFFER_BYTES],
        })
    }

    pub(crate) fn run(mut self, stop: &AtomicBool) -> io::Result<Outcome> {
        let mut events = Events::with_capacity(1024);
        let mut swept = None;
        loop {
            let now = Instant::now();
            if self.has_ended(now) || stop.load(Ordering::Relaxed) {
                break;
            }
            if swept.is_none_or(|swept| now.saturating_duration_since(swept) >= SWEEP) {
                swept = Some(now);
                self.sweep(now)?;
            }
            self.occupy(now)?;
            match self.poll.poll(&mut events, Some(self.longest_wait(now))) {
                Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
                _ => {}
            }
            for event in &events {
                if event.token() != TIMER {
                    self.attend(event.token().0, event.is_read_closed() || event.is_error())?;
                }
            }
        }
        self.leave();
        self.outcome.processor = clock::thread_usage().cpu;
        Ok(self.outcome)
    }

    /// Whether the load is over. At a constant rate, requests that were due have some time left for their responses.
    fn has_ended(&self, now: Instant) -> bool {
        let is_waited_for = || {
            let waits = self.clients.iter().any(|client| client.current.is_some());
            (waits || self.schedule.is_due(self.end)) && now < self.end + GRACE.min(self.load.duration)
        };
        now >= self.end && !(self.schedule.is_constant() && is_waited_for())
    }

    fn longest_wait(&self, now: Instant) -> Duration {
        let left = self.end.saturating_duration_since(now);
        if left.is_zero() { SWEEP } else { SWEEP.min(left) }
    }

    /// Gives requests that are due to clients that are free, and has the timer ring for the next one.
    fn occupy(&mut self, now: Instant) -> io::Result<()> {
        while let Some(place) = self.free.front().copied() {
            if !self.schedule.is_due(now) {
                return self.timer.set(self.schedule.next(now).saturating_duration_since(now));
            }
            self.free.pop_front();
            if self.clients.get(place).is_some_and(|client| client.state == State::Free) {
                self.next_request(place, now)?;
            }
        }
        Ok(())
    }

    /// What takes too long fails, and what is closed is connected.
    fn sweep(&mut self, now: Instant) -> io::Result<()> {
        // Slow clients are there before the others.
        let first = self.clients.len();
        for (place, client) in self.slow_clients.iter_mut().enumerate() {
            client.step(self.poll.registry(), Token(first + place), self.load.address)?;
        }
        for place in 0..self.clients.len() {
            let Some(client) = self.clients.get(place) else { continue };
            let is_late = now.saturating_duration_since(client.since) >= self.load.timeout;
            match client.state {
                State::Closed => self.connect(place, now)?,
                State::Connecting if is_late => self.fail(place, ErrorKind::Connect, now)?,
                State::Busy if is_late => self.fail(place, ErrorKind::Timeout, now)?,
                _ => {}
            }
        }
        Ok(())
    }

    /// Attends to a client of which there is news.
    fn attend(&mut self, place: usize, has_ended: bool) -> io::Result<()> {
        let Some(client) = self.clients.get_mut(place) else {
            if let Some(slow) = self.slow_clients.get_mut(place - self.clients.len())
                && has_ended
            {
                slow.end();
            }
            return Ok(());
        };
        match client.state {
            State::Connecting => match client.connected() {
                None => Ok(()),
                Some(Ok(())) => self.next_request(place, Instant::now()),
                Some(Err(kind)) => self.fail(place, kind, Instant::now()),
            },
            State::Busy => self.exchange(place, has_ended),
            State::Free => {
                if client.is_lost(&mut self.buffer) {
                    client.close();
                    self.connect(place, Instant::now())?;
                }
                Ok(())
            }
            State::Closed => Ok(()),
        }
    }

    /// Goes on with a request and its response.
    fn exchange(&mut self, place: usize, has_ended: bool) -> io::Result<()> {
        let Some((client, request)) = client_and_request(&mut self.clients, self.load, place) else {
            return Ok(());
        };
        client.send(request);
        let progress = client.receive(&mut self.buffer, request, has_ended, &mut self.outcome);
        match progress {
            Progress::Pending => Ok(()),
            Progress::Complete if client.state == State::Free => self.next_request(place, Instant::now()),
            Progress::Complete | Progress::Ended => {
                client.close();
                self.connect(place, Instant::now())
            }
            Progress::Failed(kind) => self.fail(place, kind, Instant::now()),
        }
    }

    /// Sends the next request of a client that is free, if one is due.
    fn next_request(&mut self, place: usize, now: Instant) -> io::Result<()> {
        let Some(client) = self.clients.get_mut(place) else { return Ok(()) };
        // One that was lost with its connection goes first.
        let Some(due) = client.current.take().or_else(|| self.schedule.take(now)) else {
            self.free.push_back(place);
            return Ok(());
        };
        client.begin(due, now);
        if let Some((client, request)) = client_and_request(&mut self.clients, self.load, place) {
            client.send(request);
        }
        Ok(())
    }

    /// Counts a request as failed. What fails again and again is tried again at the next sweep only.
    fn fail(&mut self, place: usize, kind: ErrorKind, now: Instant) -> io::Result<()> {
        self.outcome.error(kind);
        let Some(client) = self.clients.get_mut(place) else { return Ok(()) };
        if client.give_up() || kind == ErrorKind::Connect {
            return Ok(());
        }
        self.connect(place, now)
    }

    fn connect(&mut self, place: usize, now: Instant) -> io::Result<()> {
        let Some(client) = self.clients.get_mut(place) else { return Ok(()) };
        client.connect(self.poll.registry(), Token(place), self.load.address, now)
    }

    /// Counts what was due and has no response, at a constant rate. Otherwise a request is due only once it is sent, and
    /// as many as there are connections are always under way.
    fn leave(&mut self) {
        if !self.schedule.is_constant() {
            return;
        }
        let end = Instant::now();
        let waiting: Vec<_> = self.clients.iter().filter_map(|client| client.current).collect();
        let rest = std::iter::from_fn(|| self.schedule.take(end));
        for due in waiting.into_iter().chain(rest) {
            self.outcome.unfinished(due.kind, end.saturating_duration_since(due.since));
        }
    }
}

/// A client and the request that it has.
fn client_and_request<'a>(
    clients: &'a mut [Client],
    load: &'a Load,
    place: usize,
) -> Option<(&'a mut Client, &'a Request)> {
    let client = clients.get_mut(place)?;
    let request = load.requests.get(client.current?.kind)?;
    Some((client, request))
}
