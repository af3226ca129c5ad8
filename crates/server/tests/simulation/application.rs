//! The application of a simulation, for app threads and as a hub: it reads the body, waits at its gate, and responds with
//! bytes that only its request has.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::thread;

use anygate_proto::application::{
    Application, Body, Call, Failed, Hub, HubQueue, LongCall, News, Request, Response, SendError,
};
use anygate_proto::head::{RequestHead, ResponseHead};
use anygate_sys::poll;

use crate::ledger::{CallState, Ledger};
use crate::plan::{Id, Plan};
use crate::random::{Random, checksum};

pub(crate) struct Simulated {
    pub(crate) plan: Arc<Plan>,
    pub(crate) ledger: Arc<Ledger>,
}

impl Simulated {
    fn id(&self, head: &RequestHead) -> Result<Id, Failed> {
        let path = String::from_utf8_lossy(head.path()).into_owned();
        let mut parts = path.rsplit('/').map(str::parse::<usize>);
        match (parts.next(), parts.next()) {
            (Some(Ok(index)), Some(Ok(client))) if self.plan.request((client, index)).is_some() => {
                Ok((client, index))
            }
            _ => {
                self.ledger.problem(format!("called for {path}, which no client has sent"));
                Err(Failed)
            }
        }
    }

    fn head(&self, id: Id, sum: u64) -> (ResponseHead, Option<u64>) {
        let request = &self.plan.clients[id.0].requests[id.1];
        let mut head = ResponseHead::new();
        head.set_status_line(b"200 OK").unwrap();
        head.push_field(b"X-Id", format!("{}/{}", id.0, id.1).as_bytes()).unwrap();
        head.push_field(b"X-Sum", sum.to_string().as_bytes()).unwrap();
        (head, request.length_known.then_some(request.response_bytes as u64))
    }

    /// Ends a call, as the client was lost or not.
    fn ended(&self, id: Id, result: Result<(), SendError>) {
        match result {
            Ok(()) => self.ledger.end(id, CallState::Whole),
            Err(SendError::Disconnected) => self.ledger.end(id, CallState::Broken),
            Err(other) => self.ledger.problem(format!("the response to {id:?} failed: {other}")),
        }
    }

    fn respond(&self, id: Id, sum: u64, response: &mut (dyn Response + Send)) -> Result<(), SendError> {
        let request = &self.plan.clients[id.0].requests[id.1];
        if request.gated && !request.early {
            self.ledger.wait(id);
        }
        let (head, length) = self.head(id, sum);
        response.start(&head, length)?;
        for (number, block) in self.plan.response(id).chunks(request.response_block).enumerate() {
            response.write(block)?;
            if request.flushes || request.early && number == 0 {
                response.flush()?;
            }
            if request.gated && request.early && number == 0 {
                self.ledger.wait(id);
            }
        }
        Ok(())
    }
}

impl Application for Simulated {
    fn start_thread(&self, name: &str, work: Box<dyn FnMut() + Send>) -> io::Result<()> {
        thread::Builder::new().name(name.to_owned()).spawn(work).map(drop)
    }

    fn call(&self, request: Request<'_>, response: &mut (dyn Response + Send)) -> Result<(), Failed> {
        response.entered();
        let id = self.id(request.head)?;
        self.ledger.begin(id);
        let mut sum = 0;
        if let Some(mut body) = request.body {
            let mut buffer = [0; 5_000];
            loop {
                match body.read(&mut buffer) {
                    Ok(0) => break,
                    Ok(count) => sum = checksum(sum, &buffer[..count]),
                    Err(_) => {
                        self.ledger.end(id, CallState::Broken);
                        return Err(Failed);
                    }
                }
            }
        }
        let result = self.respond(id, sum, response);
        self.ended(id, result);
        Ok(())
    }

    fn run_signal_handlers(&self) {}

    fn attend_to(&self, _call: &LongCall) {}
}

/// The same application as a hub. Which of its calls goes on next is a matter of the seed.
pub(crate) struct SimulatedHub(pub(crate) Simulated);

/// One call of the hub.
struct Greenlet {
    call: Box<dyn Call>,
    id: Id,
    body: Option<Box<dyn Body>>,
    sum: u64,
    passed: bool,
    started: bool,
    written: usize,
}

enum Step {
    Done(CallState),
    More,
    Waits,
}

impl Hub for SimulatedHub {
    fn run(&self, queue: Arc<dyn HubQueue>) -> Result<(), Failed> {
        let mut random = Random::new(self.0.plan.seed);
        let mut greenlets = BTreeMap::new();
        let mut ready: Vec<u64> = Vec::new();
        loop {
            let news = if ready.is_empty() || random.chance(50) { queue.take() } else { None };
            match news {
                Some(News::Call(call)) => {
                    let greenlet = self.begin(call)?;
                    ready.push(greenlet.call.number());
                    greenlets.insert(greenlet.call.number(), greenlet);
                }
                Some(News::Of(number)) if greenlets.contains_key(&number) && !ready.contains(&number) => {
                    ready.push(number)
                }
                Some(News::Of(_) | News::Long(_)) => {}
                Some(News::Closed) => return Ok(()),
                None if ready.is_empty() => {
                    poll::wait_readable(queue.bell(), None).map_err(|_| Failed)?;
                }
                None => {
                    let number = ready.swap_remove(random.below(ready.len()));
                    let Some(greenlet) = greenlets.get_mut(&number) else { continue };
                    match self.step(greenlet, &queue) {
                        Step::More => ready.push(number),
                        Step::Waits => {}
                        Step::Done(state) => {
                            self.0.ledger.end(greenlet.id, state);
                            let Some(greenlet) = greenlets.remove(&number) else { continue };
                            let whole = state == CallState::Whole || greenlet.started;
                            greenlet.call.finish(if whole { Ok(()) } else { Err(Failed) });
                        }
                    }
                }
            }
        }
    }

    fn attend_to(&self, _call: &LongCall) -> bool {
        true
    }
}

impl SimulatedHub {
    fn begin(&self, mut call: Box<dyn Call>) -> Result<Greenlet, Failed> {
        let request = call.request().ok_or(Failed)?;
        let (id, body) = (self.0.id(request.head)?, request.body);
        self.0.ledger.begin(id);
        Ok(Greenlet { call, id, body, sum: 0, passed: false, started: false, written: 0 })
    }

    /// Goes on with a call until something has happened, or nothing can.
    fn step(&self, greenlet: &mut Greenlet, queue: &Arc<dyn HubQueue>) -> Step {
        let plan = &self.0.plan.clients[greenlet.id.0].requests[greenlet.id.1];
        if let Some(step) = greenlet.read() {
            return step;
        }
        let at_gate = !plan.early || greenlet.written > 0;
        if plan.gated && !greenlet.passed && at_gate {
            let (told, number) = (Arc::clone(queue), greenlet.call.number());
            if !self.0.ledger.is_open(greenlet.id, move || told.tell(number)) {
                return Step::Waits;
            }
            greenlet.passed = true;
        }
        if !greenlet.has_room() {
            return Step::Waits;
        }
        match self.write(greenlet) {
            Ok(true) => Step::Done(CallState::Whole),
            Ok(false) => Step::More,
            Err(error) => {
                if error != SendError::Disconnected {
                    self.0.ledger.problem(format!("the response to {:?} failed: {error}", greenlet.id));
                }
                greenlet.started = true;
                Step::Done(CallState::Broken)
            }
        }
    }

    /// Writes one block; returns whether it was the last.
    fn write(&self, greenlet: &mut Greenlet) -> Result<bool, SendError> {
        let request = &self.0.plan.clients[greenlet.id.0].requests[greenlet.id.1];
        if !greenlet.started {
            let (head, length) = self.0.head(greenlet.id, greenlet.sum);
            greenlet.call.start(&head, length)?;
            greenlet.started = true;
        }
        let response = self.0.plan.response(greenlet.id);
        let rest = &response[greenlet.written..];
        let block = &rest[..rest.len().min(request.response_block)];
        if !block.is_empty() {
            greenlet.call.write(block)?;
            greenlet.written += block.len();
        }
        if request.flushes || request.early {
            greenlet.call.flush()?;
        }
        let waits = request.gated && request.early && !greenlet.passed && !response.is_empty();
        Ok(greenlet.written == response.len() && !waits)
    }
}

impl Greenlet {
    /// Reads a piece of the body; `None` after its end.
    fn read(&mut self) -> Option<Step> {
        let body = self.body.as_mut()?;
        let mut buffer = [0; 5_000];
        let mut result = body.read(&mut buffer);
        if result.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock) {
            self.call.want_news();
            result = body.read(&mut buffer);
        }
        match result {
            Ok(0) => {
                self.body = None;
                None
            }
            Ok(count) => {
                self.sum = checksum(self.sum, &buffer[..count]);
                Some(Step::More)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Some(Step::Waits),
            Err(_) => Some(Step::Done(CallState::Broken)),
        }
    }

    fn has_room(&mut self) -> bool {
        if self.call.has_room() {
            return true;
        }
        self.call.want_news();
        self.call.has_room()
    }
}
