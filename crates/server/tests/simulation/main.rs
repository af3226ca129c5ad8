//! Seeded simulations of a worker: clients that connect, send requests in pieces, pipeline, half-close and reset; calls
//! that wait at gates, so that the reactor is handed over; a drain at any moment. Every request is responded to exactly once,
//! in order, with its own bytes, and after the drain no connection is left. The one exception: a client that has half-closed
//! its connection while its request waits in a queue counts as gone, and the request may be dropped.
//!
//! The seed determines what is done and in which order; only the scheduler's choices are not its own. `SIMULATION_SEED`
//! repeats one simulation, `SIMULATION_SECONDS` runs new ones for so long.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "in a test a panic is the report")]

mod application;
mod client;
mod ledger;
mod plan;
mod random;

use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime};
use std::{env, io};

use anygate_config::Protocol;
use anygate_server::{Ended, Events, Handle, Runner, Service, Worker};
use anygate_sys::{Address, Families, Listener, UnixOptions};

use application::{Simulated, SimulatedHub};
use client::{Client, State};
use ledger::{CallState, Ledger};
use plan::{End, Plan, Workers};
use random::Random;

/// Seeds of each kind of worker without further wishes.
const SEEDS: u64 = 12;
/// A simulation that takes longer hangs.
const PATIENCE: Duration = Duration::from_secs(300);
/// Steps in which nothing happened, after which a gate is opened.
const IDLE_STEPS: usize = 12;

#[test]
fn requests_of_app_threads_are_responded_to_exactly_once_and_in_order() {
    simulate(false);
}

#[test]
fn requests_of_a_hub_are_responded_to_exactly_once_and_in_order() {
    simulate(true);
}

#[expect(clippy::print_stdout, reason = "whoever lets it run for long wants to know how far it got")]
fn simulate(hub: bool) {
    let number = |name: &str| env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    if let Some(seed) = number("SIMULATION_SEED") {
        return run(seed, hub);
    }
    let Some(seconds) = number("SIMULATION_SECONDS") else {
        return (0..SEEDS).for_each(|seed| run(seed, hub));
    };
    let until = Instant::now() + Duration::from_secs(seconds);
    let now = SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs();
    let first = Random::new(now).number() >> 1;
    let seeds = (first..).take_while(|_| Instant::now() < until).map(|seed| run(seed, hub));
    println!("{} simulations from seed {first}", seeds.count());
}

fn run(seed: u64, hub: bool) {
    let plan = Arc::new(Plan::new(seed, hub));
    let ledger = Arc::new(Ledger::default());
    let mut simulation = Simulation::start(&plan, &ledger);
    if let Err(problem) = simulation.play() {
        let clients: Vec<_> = simulation.clients.iter().map(Client::summary).collect();
        let calls: Vec<_> = (0..simulation.clients.len()).flat_map(|client| ledger.calls(client)).collect();
        let workers = plan.workers;
        panic!(
            "{problem}\n{plan:#?}\n{}\ncalls: {calls:?}\nproblems: {:?}\nAgain ({workers:?}): SIMULATION_SEED={seed} cargo \
             test -p anygate-server --test simulation",
            clients.join("\n"),
            ledger.problems()
        );
    }
}

struct Simulation<'a> {
    plan: &'a Plan,
    ledger: &'a Ledger,
    random: Random,
    clients: Vec<Client>,
    address: Address,
    handle: Handle,
    worker: Option<JoinHandle<io::Result<Ended>>>,
    draining: bool,
    /// The worker was told to drain before all requests had their responses.
    early: bool,
    _folder: tempfile::TempDir,
}

struct Unwatched;

impl Events for Unwatched {
    fn beat(&mut self, _traffic: bool, _held: Option<Duration>) {}
    fn draining(&mut self) {}
    fn retiring(&mut self) {}
}

impl<'a> Simulation<'a> {
    fn start(plan: &'a Arc<Plan>, ledger: &'a Arc<Ledger>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let listener = match plan.unix {
            true => Listener::bind_unix(&folder.path().join("socket"), UnixOptions::default(), 64),
            false => Listener::bind_tcp("127.0.0.1:0".parse().unwrap(), Families::System, 64),
        };
        let listener = listener.unwrap();
        let address = listener.local().clone();
        let application = Simulated { plan: Arc::clone(plan), ledger: Arc::clone(ledger) };
        let runner = match plan.workers {
            Workers::Threads(threads) => Runner::Threads(Arc::new(application), threads),
            Workers::Hub(calls) => Runner::Hub(Arc::new(SimulatedHub(application)), calls),
        };
        let service = Service {
            runner,
            access_log: None,
            reopen_logs: None,
            write_stacks: None,
            files: None,
            site: None,
            tls: None,
            counts: None,
            tracer: None,
            routes: None,
            peers: None,
            requests_max: None,
        };
        let listeners = vec![(Protocol::Http, listener)];
        let (worker, handle) = Worker::new(&plan.server(), listeners, service, None).unwrap();
        let worker = thread::spawn(move || worker.run(Box::new(Unwatched)));
        Simulation {
            plan,
            ledger,
            random: Random::new(!plan.seed),
            clients: (0..plan.clients.len()).map(|number| Client::new(plan, number)).collect(),
            address,
            handle,
            worker: Some(worker),
            draining: false,
            early: false,
            _folder: folder,
        }
    }

    /// Steps until the worker has ended and every client has noticed, then looks at what has happened.
    fn play(&mut self) -> Result<(), String> {
        let until = Instant::now() + PATIENCE;
        let mut idle = 0;
        for step in 0.. {
            if !self.draining {
                self.drain_in_time(step);
            }
            let happened = self.step()?;
            idle = if happened { 0 } else { idle + 1 };
            if idle >= IDLE_STEPS || self.random.chance(1) {
                idle = 0;
                let random = &mut self.random;
                if !self.ledger.open_one(|count| random.below(count)) {
                    let client = self.random.below(self.clients.len());
                    self.clients[client].wait(Duration::from_millis(1));
                }
            }
            let gone = |client: &Client| !matches!(client.state, State::Open);
            let ended = self.worker.as_ref().is_some_and(JoinHandle::is_finished);
            if self.draining && ended && self.clients.iter().all(gone) {
                break;
            }
            if Instant::now() > until {
                return Err("it hangs".to_owned());
            }
        }
        self.check()
    }

    /// Has the worker drain when the plan wants it, or all clients have what they are to receive.
    fn drain_in_time(&mut self, step: usize) {
        let plan = self.plan;
        let is_done = |client: &Client| match client.state {
            State::Unconnected => false,
            State::Left | State::Ended => true,
            State::Open => {
                plan.clients[client.number].end == End::Stay
                    && client.responses == client.whole_requests(plan)
            }
        };
        let done = self.clients.iter().all(is_done);
        if done || plan.drain_at.is_some_and(|at| at <= step) {
            self.handle.drain();
            self.draining = true;
            self.early = !done;
        }
    }

    /// One client does one thing.
    fn step(&mut self) -> Result<bool, String> {
        let number = self.random.below(self.clients.len());
        let piece = self.plan.clients[number].piece;
        let client = &mut self.clients[number];
        match client.state {
            State::Unconnected if self.draining => Ok(false),
            State::Unconnected => {
                client
                    .connect(&self.address)
                    .map_err(|error| format!("client {number} cannot connect: {error}"))?;
                Ok(true)
            }
            State::Open if self.random.chance(60) => {
                Ok(client.send(self.plan, self.random.between(1, piece)))
            }
            State::Open => client.receive(self.plan, self.random.between(1, piece.max(3_000))),
            State::Ended | State::Left => Ok(false),
        }
    }

    fn check(&mut self) -> Result<(), String> {
        let ended = self.worker.take().map(JoinHandle::join);
        if !matches!(ended, Some(Ok(Ok(Ended::Drained)))) {
            return Err(format!("the worker has ended so: {ended:?}"));
        }
        if let Some(problem) = self.ledger.problems().first() {
            return Err(problem.clone());
        }
        for client in &self.clients {
            self.check_client(client)?;
        }
        Ok(())
    }

    /// Whether requests of a client may have been dropped: it had half-closed its connection, and while it waited all calls
    /// that there may be were in progress, or some request was in the queue for too long. Such a client counts as gone.
    fn may_have_lost_requests(&self, client: &Client) -> bool {
        let (Some(from), Some(until)) = (client.half_closed_at, client.ended_at) else { return false };
        let (Workers::Threads(calls) | Workers::Hub(calls)) = self.plan.workers;
        let others = || self.clients.iter().filter(|other| other.number != client.number);
        let occupied: Vec<_> = others().flat_map(|other| self.occupied(other)).collect();
        let times = occupied.iter().map(|(start, _)| *start).filter(|at| (from..=until).contains(at));
        let was_full = times
            .chain([from])
            .any(|at| occupied.iter().filter(|(start, end)| *start <= at && at <= *end).count() >= calls);
        // The worker counts from the beginning of the turn in which the request came. On a busy machine that may be as much
        // earlier as makes a request too old at once.
        let waits = |(number, index, sent): (usize, usize, Instant)| {
            sent <= until && self.ledger.begun((number, index)).is_none_or(|begun| begun >= from)
        };
        let sent = self.clients.iter().flat_map(|other| {
            let sent = other.sent_at.iter().enumerate();
            sent.map(|(index, sent)| (other.number, index, *sent))
        });
        was_full || sent.into_iter().any(waits)
    }

    /// The times in which requests of a client may have occupied a call each: from the call's beginning, or earlier when the
    /// request was whole, until the response was whole. The worker's own view is somewhere between.
    fn occupied(&self, client: &Client) -> Vec<(Instant, Instant)> {
        let requests = 0..self.plan.clients[client.number].requests.len();
        let occupied = |index| {
            let begun = self.ledger.begun((client.number, index));
            let start = client.sent_at.get(index).copied().into_iter().chain(begun).min()?;
            let end = client.received_at.get(index).copied().or(client.ended_at);
            Some((start, end.unwrap_or_else(Instant::now)))
        };
        requests.filter_map(occupied).collect()
    }

    fn check_client(&self, client: &Client) -> Result<(), String> {
        let number = client.number;
        let calls = self.ledger.calls(number);
        if let Some(call) = calls.iter().find(|(_, state)| *state == CallState::Begun) {
            return Err(format!("the call {call:?} has not ended"));
        }
        if let End::ResetAfter(_) = self.plan.clients[number].end
            && client.state == State::Left
        {
            return Ok(());
        }
        let whole = calls.iter().filter(|(_, state)| *state == CallState::Whole).count();
        if client.responses != whole {
            return Err(format!("client {number} has {} responses of {whole} calls", client.responses));
        }
        let wanted = client.whole_requests(self.plan);
        if !self.early && client.responses != wanted && !self.may_have_lost_requests(client) {
            return Err(format!("client {number} has {} responses to {wanted} requests", client.responses));
        }
        Ok(())
    }
}
