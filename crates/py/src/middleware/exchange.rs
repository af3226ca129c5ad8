//! One request with its response, in the steps in which Python calls the application.

use std::sync::Arc;

use anygate_lock::Mutex;
use anygate_policy::policies::OwnResponse;
use anygate_proto::application::{Endpoints, Failed, Response};
use anygate_proto::head::RequestHead;
use anygate_server::{Call, CallRecord, CallReport, error_response};
use anygate_wsgi::{FailurePage, FileWrapper, Lender, Steps};
use pyo3::exceptions::PyOSError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList, PyString};

use super::buffered_response::BufferedResponse;
use super::process::ServingProcess;
use super::request;

/// A request that a process has received.
pub(super) struct ReceivedRequest {
    pub(super) process: Arc<ServingProcess>,
    pub(super) head: RequestHead,
    pub(super) endpoints: Endpoints,
    pub(super) hidden_client: bool,
    /// Of its body, if that is known.
    pub(super) length: Option<u64>,
}

/// One request with its response.
#[pyclass(frozen, module = "anygate._anygate")]
pub(crate) struct Exchange {
    inner: Arc<Held>,
    steps: Steps,
}

struct Held(Mutex<Inner>);

struct Inner {
    received: ReceivedRequest,
    /// Until the response is over.
    call: Option<Call>,
    out: BufferedResponse,
    /// Until it is counted and logged.
    record: Option<CallRecord>,
}

impl Inner {
    fn new(received: ReceivedRequest, call: Option<Call>) -> Inner {
        let ReceivedRequest { process, head, endpoints, length, .. } = &received;
        let records = &process.records;
        let record = (!records.is_empty())
            .then(|| records.begin(head, endpoints, call.as_ref(), length.unwrap_or_default()));
        let mut out = BufferedResponse::new(head);
        if records.wants_response_fields() {
            out.keep_head();
        }
        Inner { received, call, out, record }
    }

    /// The response is over, as far as it is the application's or ours: it is counted and logged, once.
    fn conclude(&mut self) {
        let Some(record) = self.record.take() else { return };
        let ReceivedRequest { process, head, endpoints, .. } = &self.received;
        process.locations.leave(record.number());
        let body_bytes = self.out.sent_bytes();
        let (status, response) = self.out.take_outcome();
        // What raises instead of responding gets the server's own page.
        let report = CallReport { status: status.unwrap_or(500), body_bytes, head: response };
        process.records.end(&record, endpoints, head, report);
        process.upkeep.look();
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.conclude();
    }
}

impl Held {
    fn passes_on(&self) -> bool {
        let Inner { call, out, .. } = &*self.0.lock();
        call.as_ref().is_some_and(Call::passes_on) && !out.is_head_request()
    }
}

impl Lender for Held {
    fn lend(&self, work: &mut dyn FnMut(&mut (dyn Response + Send))) {
        let Inner { call, received, out, .. } = &mut *self.0.lock();
        if let Some(call) = call {
            call.with_response(&received.head, out, |out| work(out));
        }
    }
}

#[pymethods]
impl Exchange {
    /// Returns the request's name in the error log, until its response is complete; `None` if it has none.
    #[getter]
    fn name(&self) -> Option<String> {
        self.inner.0.lock().call.as_ref()?.name()
    }

    /// The client's response is there, whatever becomes of the application's.
    #[getter]
    fn has_response(&self) -> bool {
        self.inner.0.lock().out.is_started()
    }

    /// The application is to be received.
    #[getter]
    fn is_open(&self) -> bool {
        self.inner.0.lock().call.is_some()
    }

    /// The application may make something else of the connection, in a way that is its server's.
    #[getter]
    fn is_upgrade(&self) -> bool {
        let inner = self.inner.0.lock();
        inner.received.head.field("upgrade").is_some_and(|name| name.eq_ignore_ascii_case(b"websocket"))
    }

    /// From now on blocks need not be given here: they go on as they are.
    #[getter]
    fn passes_on(&self) -> bool {
        self.inner.passes_on()
    }

    /// Whether the route is to be told that the application names.
    #[getter]
    fn wants_route(&self) -> bool {
        let inner = self.inner.0.lock();
        inner.record.is_some() && inner.received.process.records.wants_routes()
    }

    /// Takes the route that the application has named.
    #[pyo3(signature = (route, /))]
    fn set_route(&self, route: &Bound<'_, PyString>) {
        let route = route.to_string_lossy();
        let Inner { received, record, .. } = &mut *self.inner.0.lock();
        if let Some(record) = record {
            received.process.records.name_route(record, &route);
        }
    }

    /// What `start_response` does, but for its result.
    #[pyo3(signature = (status, response_headers, exc_info, /))]
    fn start(
        &self,
        status: &Bound<'_, PyAny>,
        response_headers: &Bound<'_, PyAny>,
        exc_info: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        self.steps.begin(status, response_headers, exc_info)
    }

    /// Takes what the application gives to `write`.
    #[pyo3(signature = (data, /))]
    fn write(&self, data: &Bound<'_, PyAny>) -> PyResult<()> {
        self.steps.write(data)
    }

    /// Takes one block. `whole`: it is all of the body.
    #[pyo3(signature = (block, whole, /))]
    fn block(&self, block: &Bound<'_, PyAny>, whole: bool) -> PyResult<()> {
        self.steps.block(block, whole)
    }

    /// Takes the blocks of a list or a tuple, unless they go on as they are; says whether it took them.
    #[pyo3(signature = (blocks, /))]
    fn blocks(&self, blocks: &Bound<'_, PyAny>) -> PyResult<bool> {
        let are_taken = self.steps.blocks(blocks, || !self.inner.passes_on())?;
        if !are_taken {
            let lengths = blocks.try_iter()?.map(|block| block?.len());
            let bytes = lengths.sum::<PyResult<usize>>()?;
            self.inner.0.lock().out.passed_on(bytes as u64);
        }
        Ok(are_taken)
    }

    /// Whether blocks that go on as they are are to be counted.
    #[getter]
    fn counts(&self) -> bool {
        self.inner.0.lock().record.is_some()
    }

    /// So many bytes of a block went on as they are.
    #[pyo3(signature = (bytes, /))]
    fn passed_on(&self, bytes: u64) {
        self.inner.0.lock().out.passed_on(bytes);
    }

    /// Takes the head of a response that is a file, if the application has set it; returns whether the file goes on as it is.
    #[pyo3(signature = (file, /))]
    fn file(&self, file: &Bound<'_, FileWrapper>) -> PyResult<bool> {
        let length = self.steps.file(file)?;
        if !self.inner.passes_on() {
            return Ok(false);
        }
        let inner = &mut *self.inner.0.lock();
        inner.out.passed_on(length.unwrap_or_default());
        // What is to be counted has a length.
        Ok(length.is_some() || inner.record.is_none())
    }

    /// All blocks were given.
    fn end_of_blocks(&self) -> PyResult<()> {
        self.steps.end_of_blocks()
    }

    /// Ends the response; returns whether it is whole. Where the application failed it is if there is something to be said
    /// in its place.
    #[pyo3(signature = (failed, /))]
    fn finish(&self, py: Python<'_>, failed: bool) -> bool {
        py.detach(|| {
            let mut inner = self.inner.0.lock();
            let Inner { call, received, out, .. } = &mut *inner;
            let Some(call) = call.take() else { return false };
            let is_whole = call.end(&received.head, if failed { Err(Failed) } else { Ok(()) }, out).is_ok();
            if is_whole {
                inner.conclude();
            }
            is_whole
        })
    }

    /// Responses that the request body is too large; returns whether that was possible.
    fn refuse_body(&self) -> bool {
        let Inner { call, received, out, .. } = &mut *self.inner.0.lock();
        call.take().is_some_and(|call| call.refuse_body(&received.head, out).is_ok())
    }

    /// Responds with the page that shows an exception, if the client may see it and nothing was started; returns whether.
    #[pyo3(signature = (error, /))]
    fn show(&self, error: &Bound<'_, PyAny>) -> bool {
        let py = error.py();
        let head = {
            let Inner { received, .. } = &*self.inner.0.lock();
            let ReceivedRequest { process, head, endpoints, hidden_client, .. } = received;
            let may_see = process
                .debug
                .as_ref()
                .is_some_and(|hosts| hosts.hold_client(head, endpoints, *hidden_client));
            may_see.then(|| head.clone())
        };
        let Some(head) = head else { return false };
        // This runs code of the application, so that the lock is free.
        let page = FailurePage::new(py, &PyErr::from_value(error.clone()), &head, false);
        py.detach(|| {
            let mut inner = self.inner.0.lock();
            let Inner { call, received, out, .. } = &mut *inner;
            let Some(given) = call else { return false };
            if given.with_response(&received.head, out, |out| page.send(out)).is_err() {
                return false;
            }
            let Some(call) = call.take() else { return false };
            let is_whole = call.end(&received.head, Ok(()), out).is_ok();
            inner.conclude();
            is_whole
        })
    }

    /// What the application makes of the connection is its server's affair; `status`: the one it responded with, if it did.
    #[pyo3(signature = (status, /))]
    fn end_upgrade(&self, status: Option<u16>) {
        let mut inner = self.inner.0.lock();
        inner.call = None;
        inner.out.set_status(status.unwrap_or(101));
        inner.conclude();
    }

    /// Lets go of what accompanies the request; nothing more comes of it.
    fn end(&self) {
        let mut inner = self.inner.0.lock();
        inner.call = None;
        inner.conclude();
    }

    /// Status and headers for the server, once they are there, and once only.
    fn head<'py>(&self, py: Python<'py>) -> PyResult<Option<(Bound<'py, PyString>, Bound<'py, PyList>)>> {
        let Some(head) = self.inner.0.lock().out.take_head() else { return Ok(None) };
        request::head_in_python(py, &head).map(Some)
    }

    /// Bytes of the body that are there; none if there are none.
    fn take<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        let take = || self.inner.0.lock().out.take();
        let is_read = self.inner.0.lock().out.reads_next();
        Ok(PyBytes::new(py, &if is_read { py.detach(take) } else { take() }?))
    }
}

impl Exchange {
    /// Begins a call. Whatever policies respond in the application's place is there then.
    ///
    /// Errors: that cannot be sent.
    pub(super) fn begin(py: Python<'_>, received: ReceivedRequest, mut call: Call) -> PyResult<Exchange> {
        let mut inner = Inner::new(received, None);
        let number = inner.record.as_ref().map_or(0, CallRecord::number);
        if number > 0 {
            inner.received.process.locations.enter(py, number)?;
        }
        let result = py.detach(|| {
            let Inner { received, out, .. } = &mut inner;
            call.prepare(&mut received.head);
            out.spool(true);
            let result = call.respond_in_place(None, &received.head, out);
            out.spool(false);
            result
        });
        match result {
            Some(Err(Failed)) => return Err(PyOSError::new_err("cannot send a cached response or a file")),
            Some(Ok(())) => inner.conclude(),
            None => {
                inner.call = Some(call);
                if inner.out.is_started() {
                    // The client has its response, and the application's is for the cache.
                    inner.conclude();
                }
            }
        }
        Ok(Exchange::holding(inner))
    }

    /// The response of policies to a request that is no call.
    ///
    /// Errors: it cannot be sent.
    pub(super) fn of_policies(received: ReceivedRequest, response: OwnResponse) -> PyResult<Exchange> {
        received.process.records.rejected(response.status());
        let mut inner = Inner::new(received, None);
        let sent = response.send(&inner.received.head, &mut inner.out);
        sent.map_err(|error| PyOSError::new_err(error.to_string()))?;
        inner.conclude();
        Ok(Exchange::holding(inner))
    }

    /// The response to a request that is none.
    ///
    /// Errors: it cannot be sent.
    pub(super) fn refuse(received: ReceivedRequest, https: bool, status: u16) -> PyResult<Exchange> {
        let mut inner = Inner::new(received, None);
        let Inner { received, out, .. } = &mut inner;
        let (head, body) =
            error_response(Some(&received.process.policies), &received.head, false, https, status);
        let sent = out.start(&head, Some(body.len() as u64)).and_then(|()| out.write(&body));
        sent.map_err(|error| PyOSError::new_err(error.to_string()))?;
        inner.conclude();
        Ok(Exchange::holding(inner))
    }

    /// Puts what the request has become into the environ, if the application is to see it.
    pub(super) fn tell_fields(&self, environ: &Bound<'_, PyDict>, before: &RequestHead) -> PyResult<()> {
        let head = {
            let inner = self.inner.0.lock();
            inner.call.is_some().then(|| inner.received.head.clone())
        };
        let Some(head) = head else { return Ok(()) };
        request::tell_fields(environ, before, &head)?;
        request::tell_user(environ, &head)
    }

    fn holding(inner: Inner) -> Exchange {
        let inner = Arc::new(Held(Mutex::new(inner)));
        let steps = Steps::new(Arc::clone(&inner) as Arc<dyn Lender>);
        Exchange { inner, steps }
    }
}
