//! One call of the application: its steps and their order, which are written here alone.
//!
//! 1. [`begin`](Call::begin): the call is numbered and watched if it has a time limit, shown among the requests in flight,
//!    and timed if calls are counted or logged. The policies of the request, its body and its name (its identifier and trace)
//!    are the call's from here on.
//! 2. [`prepare`](Call::prepare): the policies decide whether the application is to be called. They may wait.
//! 3. [`respond`](Call::respond): the policies or a static file in the application's place, else the application, whose
//!    response goes through the policies' filter.
//! 4. [`end`](Call::end): the policies end the response and let go of the request; what failed is replaced or broken off; the
//!    call is watched no longer, counted, and logged.
//!
//! An app thread goes through them in one go ([`run`](Call::run)), the hub in steps. A CGI program and the middleware have
//! responses of their own and no worker around them ([`admit`](Call::admit)): `call_records` watches, counts and logs the
//! middleware's calls, and nothing does a CGI program's. What needs no call has the last step only ([`respond`]).
//!
//! A panic in a step is a fault of ours, or of a policy; it is logged and stays this call's.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use anygate_policy::cache::Waiter;
use anygate_policy::metrics;
use anygate_policy::policies::{Admission, Arrival, OwnResponse, ProcessPolicies, RequestPolicies};
use anygate_policy::web2py_static::Web2pyStatic;
use anygate_proto::application::{Application, Body, Endpoints, Failed, Request, Response};
use anygate_proto::head::RequestHead;

use crate::access_log::AccessLog;
use crate::accounting::{Timing, account, hide, show};
use crate::attention::Attention;
use crate::connection::Connection;
use crate::date::DateCache;
use crate::exchange::{BodyStream, Exchange, RequestBody, ResponseWriter, Wanted};
use crate::finished::Finished;
use crate::panics::panic_text;
use crate::request_name::{NameGuard, RequestName};
use crate::rules::Rules;
use crate::sampling::Sampling;
use crate::threads::call_limits::CallLimits;

/// What a worker has around its calls.
#[derive(Clone, Copy)]
pub(crate) struct Surroundings<'a> {
    pub(crate) rules: &'a Rules,
    pub(crate) attention: &'a Attention,
    pub(crate) sampling: &'a Sampling,
    /// Where calls have a time limit.
    pub(crate) limits: Option<&'a CallLimits>,
}

/// One call. Dropping it without its [end](Self::end) lets go of the request's policies and nothing else.
pub struct Call {
    /// What the policies do with the request and its response, until either is over.
    policies: Option<Box<RequestPolicies>>,
    /// What the request is called in the error log.
    name: RequestName,
    /// The policies have panicked, so that there is nothing to expect of this call.
    is_broken: bool,
    /// Tells it from others that are watched.
    number: u64,
    /// The request's body, until the application has it,
    body: Option<Box<dyn Body>>,
    /// and the same if it is passed on as it arrives.
    stream: Option<BodyStream>,
    hidden_client: bool,
    websocket: bool,
    timing: Timing,
    /// Its place among the requests in flight.
    place: Option<usize>,
}

/// What an ended call leaves for its connection.
struct Ended {
    finished: Finished,
    stream: Option<BodyStream>,
}

// Step 1.

impl Call {
    /// Begins a call without a worker: the policies of its process decide about the request. `Err` is the response.
    pub fn admit(
        process: Option<&Arc<ProcessPolicies>>,
        arrival: Arrival<'_>,
    ) -> Result<Call, Box<OwnResponse>> {
        let policies = match process.map(|process| process.admit(arrival)) {
            None => None,
            Some(Admission::Passed(policies)) => policies,
            Some(Admission::Responded(response)) => return Err(response),
        };
        Ok(Call {
            name: RequestName::new(policies.as_deref().and_then(RequestPolicies::name)),
            policies,
            is_broken: false,
            number: 0,
            body: None,
            stream: None,
            hidden_client: false,
            websocket: false,
            timing: Timing::default(),
            place: None,
        })
    }

    /// Begins the call of a ready exchange. `measured`: how much of it is waiting is to be learnt. `unwatched` numbers a
    /// call that has no time limit.
    pub(crate) fn begin(
        around: Surroundings<'_>,
        connection: &Connection,
        exchange: &mut Exchange,
        measured: bool,
        unwatched: impl FnOnce() -> u64,
    ) -> Call {
        let (log, row) = (around.rules.access_log.as_ref(), around.rules.row());
        let begun = (log.is_some() || around.rules.is_timed()).then(Instant::now);
        let number = around
            .limits
            .map_or_else(unwatched, |limits| limits.watch(&connection.pipe, exchange, &connection.endpoints));
        let keep_head = log.is_some_and(AccessLog::wants_response_fields);
        let (timed, traced) = (around.rules.is_timed(), exchange.span.is_some());
        exchange.begin_response(Wanted { keep_head, measured, timed, traced });
        let (body, stream): (Option<Box<dyn Body>>, _) = match std::mem::take(&mut exchange.body) {
            RequestBody::None => (None, None),
            RequestBody::Received(body) => (Some(body), None),
            RequestBody::Stream(body) => (Some(Box::new(body.clone())), Some(body)),
        };
        let received = body.as_ref().and_then(|body| body.length()).unwrap_or_default();
        Call {
            policies: exchange.policies.take(),
            name: exchange.name.clone(),
            is_broken: false,
            number,
            body,
            stream,
            hidden_client: exchange.hidden_client,
            websocket: exchange.upgrade.is_some(),
            timing: Timing {
                begun,
                ready: exchange.ready,
                received,
                span: exchange.span.take(),
                proxy_queue: exchange.proxy_queue,
            },
            place: row.zip(begun).and_then(|(row, begun)| show(row, begun, &exchange.head)),
        }
    }

    /// Its number.
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// What the request waited until now it waited for its greenlet.
    pub(crate) fn taken_up(&mut self) {
        if let Some(begun) = &mut self.timing.begun {
            *begun = Instant::now();
        }
    }

    /// The request as the application gets it, with its body the first time only.
    pub(crate) fn request<'a>(&mut self, head: &'a RequestHead, endpoints: &'a Endpoints) -> Request<'a> {
        Request {
            head,
            body: self.body.take(),
            endpoints,
            hidden_client: self.hidden_client,
            websocket: self.websocket,
            number: self.number,
        }
    }

    /// What the request is called, for what is logged as a part of it.
    pub(crate) fn request_name(&self) -> &RequestName {
        &self.name
    }

    /// What this thread logs belongs to the request as long as what is returned is there, so that no step need say so.
    pub(crate) fn enter(&mut self) -> NameGuard {
        std::mem::take(&mut self.name).enter()
    }

    /// The identifier of the request and its trace, as the error log shows them; `None` if it has neither.
    pub fn name(&self) -> Option<String> {
        Some((**self.policies.as_ref()?.name()?).to_owned())
    }
}

// Step 2.

impl Call {
    /// Whether any policy has to do with the request. If none has, the other steps change nothing.
    pub fn has_policies(&self) -> bool {
        self.policies.is_some()
    }

    /// Whether preparing may take long.
    pub(crate) fn may_take_long(&self, head: &RequestHead) -> bool {
        self.policies.as_ref().is_some_and(|policies| policies.may_take_long(head))
    }

    /// Prepares the request for the application, which sees what becomes of it. It may wait for another request.
    pub fn prepare(&mut self, head: &mut RequestHead) {
        self.with_policies(|policies| policies.prepare(head));
    }

    /// The same, but does not wait: returns what is to be waited for. Then it is to be called again with that.
    pub(crate) fn try_prepare(&mut self, head: &mut RequestHead, waited: Option<Waiter>) -> Option<Waiter> {
        let waiter = self.with_policies(|policies| match waited {
            None => policies.try_prepare(head),
            Some(waiter) => {
                policies.prepare_again(waiter, head);
                None
            }
        });
        waiter.flatten()
    }

    fn with_policies<R>(&mut self, work: impl FnOnce(&mut RequestPolicies) -> R) -> Option<R> {
        let policies = self.policies.as_mut()?;
        let _entered = self.name.enter();
        let worked = guarded(|| work(policies));
        if worked.is_none() {
            self.policies = None;
            self.is_broken = true;
        }
        worked
    }
}

// Step 3.

impl Call {
    /// Sends a response: in the application's place if possible, else the application's. The result is for
    /// [`end`](Self::end).
    pub fn respond(
        &mut self,
        application: &dyn Application,
        request: Request<'_>,
        files: Option<&Web2pyStatic>,
        out: &mut (dyn Response + Send),
    ) -> Result<(), Failed> {
        let head = request.head;
        if let Some(result) = self.respond_in_place(files, head, out) {
            return result;
        }
        let call = || self.with_response(head, out, |out| application.call(request, out));
        guarded(call).unwrap_or(Err(Failed))
    }

    /// Responds in the application's place; `None`: the application is to be called. What it then writes may be for the
    /// cache alone.
    pub fn respond_in_place(
        &mut self,
        files: Option<&Web2pyStatic>,
        head: &RequestHead,
        out: &mut (dyn Response + Send),
    ) -> Option<Result<(), Failed>> {
        if self.is_broken {
            return Some(Err(Failed));
        }
        if files.is_none() && self.policies.is_none() {
            return None;
        }
        let file = |out: &mut (dyn Response + Send)| files.and_then(|files| files.respond(head, out));
        let Call { policies, name, .. } = self;
        let _entered = name.enter();
        let result = guarded(|| match policies {
            None => file(out).map(|sent| sent.map_err(|_| Failed)),
            Some(policies) => policies.respond(head, out).or_else(|| {
                let sent = file(&mut policies.filter(head, out))?;
                Some(policies.finish(head, sent.map_err(|_| Failed), out))
            }),
        });
        let result = result.unwrap_or(Some(Err(Failed)));
        if result.is_some() {
            // From now on the request counts no longer.
            self.policies = None;
        }
        result
    }

    /// Lets the application use its response.
    pub fn with_response<R>(
        &mut self,
        head: &RequestHead,
        out: &mut (dyn Response + Send),
        work: impl FnOnce(&mut (dyn Response + Send)) -> R,
    ) -> R {
        let _entered = self.name.enter();
        match &mut self.policies {
            None => work(out),
            Some(policies) => work(&mut policies.filter(head, out)),
        }
    }

    /// Whether what the application writes goes on unchanged, so that it need not go through here.
    pub fn passes_on(&self) -> bool {
        self.policies.as_ref().is_none_or(|policies| policies.passes_on())
    }

    /// Whether the application has begun a response; `started`: whether the client got the beginning of one.
    pub(crate) fn has_begun(&self, started: bool) -> bool {
        self.policies.as_ref().map_or(started, |policies| policies.has_begun(started))
    }

    /// Bytes of body that the application has written; `sent`: those that were taken for the client.
    pub(crate) fn body_bytes(&self, sent: u64) -> u64 {
        self.policies.as_ref().map_or(sent, |policies| policies.body_bytes())
    }
}

// Step 4.

impl Call {
    /// Whether the end may wait for what nodes share.
    pub(crate) fn may_block_at_its_end(&self, rules: &Rules) -> bool {
        self.has_policies() && rules.read.site.as_ref().is_some_and(|site| site.may_block())
    }

    /// Ends the call with what the application returned; returns whether its response is whole. Without a worker that is
    /// all; nothing was sent of what failed if [nothing was started](Response::started).
    pub fn end(
        mut self,
        head: &RequestHead,
        result: Result<(), Failed>,
        out: &mut (dyn Response + Send),
    ) -> Result<(), Failed> {
        self.end_response(head, result, out)
    }

    /// Ends the call with the response that the body is longer than it may be.
    ///
    /// Errors: the application has begun a response.
    pub fn refuse_body(mut self, head: &RequestHead, out: &mut (dyn Response + Send)) -> Result<(), Failed> {
        self.with_policies(|policies| policies.refuse_body(head, out)).unwrap_or(Err(Failed))
    }

    fn end_response(
        &mut self,
        head: &RequestHead,
        result: Result<(), Failed>,
        out: &mut (dyn Response + Send),
    ) -> Result<(), Failed> {
        let Some(mut policies) = self.policies.take() else { return result };
        let _entered = self.name.enter();
        // When this is over, the request counts no longer.
        guarded(move || policies.finish(head, result, out)).unwrap_or(Err(Failed))
    }

    /// The same in a worker. What is to be sent is left in the exchange, and that in its connection.
    pub(crate) fn end_in(
        self,
        around: Surroundings<'_>,
        connection: &mut Connection,
        mut exchange: Box<Exchange>,
        date: &mut DateCache,
        result: Result<(), Failed>,
    ) {
        let (rules, draining) = (&around.rules.response, around.attention.draining());
        let (writer, head, endpoints) =
            ResponseWriter::resume(&mut exchange, &connection.pipe, rules, date, draining);
        let ended = self.conclude(around, writer, head, endpoints.unwrap_or(&connection.endpoints), result);
        ended.leave(connection, exchange);
    }

    fn conclude(
        mut self,
        around: Surroundings<'_>,
        mut writer: ResponseWriter<'_>,
        head: &RequestHead,
        endpoints: &Endpoints,
        result: Result<(), Failed>,
    ) -> Ended {
        let result = self.end_response(head, result, &mut writer);
        if let Some(limits) = around.limits {
            limits.release(self.number);
        }
        let _entered = self.name.enter();
        let finished = writer.finish(result.is_err());
        if let Some(sample) = finished.sample {
            around.sampling.sample(sample);
        }
        if let (Some(row), Some(place)) = (around.rules.row(), self.place) {
            hide(row, place);
        }
        account(around.rules, around.attention, endpoints, head, &finished, &self.timing);
        Ended { finished, stream: self.stream }
    }
}

impl Ended {
    fn leave(self, connection: &mut Connection, exchange: Box<Exchange>) {
        connection.end_exchange(&self.finished, self.stream.as_ref());
        connection.exchange = Some(exchange);
    }
}

impl Call {
    /// All steps in one go, on a thread that may wait and is inside [`Application::with_thread`].
    pub(crate) fn run(
        around: Surroundings<'_>,
        connection: &mut Connection,
        date: &mut DateCache,
        measured: bool,
        application: &dyn Application,
    ) {
        let Some(mut exchange) = connection.exchange.take() else { return };
        let mut call = Call::begin(around, connection, &mut exchange, measured, || 0);
        let _entered = call.enter();
        call.prepare(&mut exchange.head);
        let (rules, draining) = (around.rules, around.attention.draining());
        let (mut writer, head, endpoints) =
            ResponseWriter::resume(&mut exchange, &connection.pipe, &rules.response, date, draining);
        let endpoints = endpoints.unwrap_or(&connection.endpoints);
        let request = call.request(head, endpoints);
        let result = call.respond(application, request, rules.files.as_ref(), &mut writer);
        let ended = call.conclude(around, writer, head, endpoints, result);
        ended.leave(connection, exchange);
    }
}

/// Responds without a call: an error page of ours, or what the policies respond. What is to be sent is left in the exchange,
/// and that in its connection. `keep_alive`: another request may follow.
pub(crate) fn respond(
    rules: &Rules,
    attention: &Attention,
    connection: &mut Connection,
    keep_alive: bool,
    give: impl FnOnce(&mut ResponseWriter<'_>),
) {
    let mut exchange = connection.exchange.take().unwrap_or_default();
    exchange.keep_alive = keep_alive;
    exchange.set_form(connection.protocol);
    let keep_head = rules.access_log.as_ref().is_some_and(AccessLog::wants_response_fields);
    let tracer = rules.read.tracer.as_deref();
    let span = exchange.span.take().or_else(|| tracer.filter(|_| !exchange.entered)?.begin_without_head());
    exchange.begin_response(Wanted { keep_head, traced: span.is_some(), ..Wanted::default() });
    let (ready, proxy_queue) = (exchange.ready, exchange.proxy_queue);
    let (mut date, draining) = (DateCache::default(), AtomicBool::new(!keep_alive));
    let (mut writer, head, endpoints) =
        ResponseWriter::resume(&mut exchange, &connection.pipe, &rules.response, &mut date, &draining);
    give(&mut writer);
    let finished = writer.finish(false);
    if let (Some(row), 429 | 503) = (rules.row(), finished.status) {
        row.counts().add(metrics::REJECTED, 1);
    }
    let timing = Timing { begun: Some(Instant::now()), ready, span, proxy_queue, received: 0 };
    let endpoints = endpoints.unwrap_or(&connection.endpoints);
    account(rules, attention, endpoints, head, &finished, &timing);
    Ended { finished, stream: None }.leave(connection, exchange);
}

/// What `work` returns; `None` if it panicked, which is logged.
fn guarded<R>(work: impl FnOnce() -> R) -> Option<R> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(worked) => Some(worked),
        Err(panic) => {
            tracing::error!("a response failed inside anygate: {}", panic_text(panic.as_ref()));
            None
        }
    }
}
