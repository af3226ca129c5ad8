//! One response while the application gives it: the state that `start_response`, `write`, the iteration and the WebSocket of
//! one call share, and the ways to its response.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anygate_lock::{Mutex, MutexGuard};
use anygate_proto::application::{self, Response, SendError, SharedBytes};
use anygate_proto::head::ResponseHead;
use pyo3::exceptions::{
    PyAssertionError, PyBrokenPipeError, PyOSError, PyRuntimeError, PyTypeError, PyValueError,
};
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::PyBytes;

use crate::ffi::{self, Loan};
use crate::forks::{self, Origin};
use crate::ignored_fields::{has_dropped, is_chunked_already, tell_of_dropped};

/// Items up to this size are copied without letting other threads run; longer ones may take a while.
const COPY_BYTES: usize = 16 * 1024;
/// Items of more bytes are kept until they are sent, and not copied.
const SHARED_BYTES_MIN: usize = 64 * 1024;

/// One response while the application gives it. Python objects share it; what they can reach of the response ends with
/// the call.
#[derive(Default)]
pub(crate) struct Call {
    pub(crate) response: Reach,
    head: Mutex<Option<ResponseHead>>,
    disconnected: AtomicBool,
    /// The connection became something else: what the application responds is dropped.
    upgraded: AtomicBool,
    /// Blocks may wait for those that follow them.
    gathers: AtomicBool,
    /// A process that was forked since the call began has no part in its response.
    origin: Origin,
}

/// Owner of the response between two steps.
pub trait Lender: Send + Sync {
    /// Has `work` use the response once; not at all when the response is over. It must not attach to the interpreter.
    fn lend(&self, work: &mut dyn FnMut(&mut (dyn Response + Send)));
}

/// Way to the response.
pub(crate) enum Reach {
    /// With the thread that called the application, as long as its call lasts.
    Lent(Loan),
    /// Here, until the call is over.
    Owned(Mutex<Option<Box<dyn application::Call>>>),
    /// With a lender, for each step.
    Elsewhere(Arc<dyn Lender>),
}

impl Default for Reach {
    fn default() -> Self {
        Reach::Lent(Loan::default())
    }
}

impl Reach {
    /// Uses the response; `None` when the call is over.
    pub(crate) fn with<R>(&self, work: impl FnOnce(&mut (dyn Response + Send)) -> R) -> Option<R> {
        match self {
            Reach::Lent(loan) => loan.with(work),
            Reach::Owned(owned) => {
                let mut owned = owned.lock();
                Some(work(owned.as_deref_mut()?))
            }
            Reach::Elsewhere(lender) => {
                let (mut work, mut result) = (Some(work), None);
                lender.lend(&mut |response| result = work.take().map(|work| work(response)));
                result
            }
        }
    }
}

impl Call {
    /// A call of a hub.
    pub(crate) fn owning(call: Box<dyn application::Call>) -> Self {
        Call { response: Reach::Owned(Mutex::new(Some(call))), ..Call::default() }
    }

    /// A call whose response is lent.
    pub(crate) fn lent_by(lender: Arc<dyn Lender>) -> Self {
        Call { response: Reach::Elsewhere(lender), ..Call::default() }
    }

    /// Uses the call of a hub.
    pub(crate) fn owned<R>(
        &self,
        work: impl FnOnce(&mut (dyn application::Call + 'static)) -> PyResult<R>,
    ) -> PyResult<R> {
        let Reach::Owned(owned) = &self.response else { return Err(over()) };
        work(owned.lock().as_deref_mut().ok_or_else(over)?)
    }

    /// Takes the call of a hub, which is over then.
    pub(crate) fn take(&self) -> Option<Box<dyn application::Call>> {
        let Reach::Owned(owned) = &self.response else { return None };
        let call = owned.lock().take();
        self.end();
        call
    }

    /// Whether the client went away before the end.
    pub(crate) fn is_disconnected(&self) -> bool {
        self.disconnected.load(Ordering::Relaxed)
    }

    /// Whether the connection became a WebSocket, or is another process's.
    pub(crate) fn is_upgraded(&self) -> bool {
        self.upgraded.load(Ordering::Relaxed) || self.origin.is_elsewhere()
    }

    /// Ends this process if the application has forked it in this call: the call has returned in it.
    pub(crate) fn end_if_forked(&self, py: Python<'_>, error: Option<&PyErr>) {
        if self.origin.is_elsewhere() {
            forks::end(py, error);
        }
    }

    /// Makes something else of the connection. Never attached, since it may wait.
    pub(crate) fn upgrade<T>(
        &self,
        work: impl FnOnce(&mut (dyn Response + Send)) -> Result<T, SendError>,
    ) -> PyResult<Result<T, SendError>> {
        // Another thread may do so while the application responds: the next holder of the response knows.
        let work = |response: &mut (dyn Response + Send)| {
            let upgraded = work(response);
            self.upgraded.fetch_or(upgraded.is_ok(), Ordering::Relaxed);
            upgraded
        };
        self.response.with(work).ok_or_else(over)
    }

    /// Whether the head was sent, so that it cannot be replaced.
    pub(crate) fn is_started(&self) -> PyResult<bool> {
        self.response.with(|response| response.started()).ok_or_else(over)
    }

    /// The announced length, if the application set one that is a number.
    pub(crate) fn content_length(&self) -> Option<u64> {
        let head = self.head();
        std::str::from_utf8(head.as_ref()?.field("content-length")?).ok()?.parse().ok()
    }

    /// Whether the application has given a head.
    pub(crate) fn has_head(&self) -> bool {
        self.head().is_some()
    }

    /// Sends the head if it was not sent; `body_length` as in [`Response::start`]. `first`: what the body begins with, as far
    /// as it is known.
    pub(crate) fn start(&self, body_length: Option<u64>, first: &[u8]) -> PyResult<()> {
        self.start_before(body_length, || Ok(first))
    }

    /// The same for a body whose beginning is only looked at if the head calls for it.
    pub(crate) fn start_before<B: AsRef<[u8]>>(
        &self,
        body_length: Option<u64>,
        first: impl FnOnce() -> PyResult<B>,
    ) -> PyResult<()> {
        if self.is_started()? {
            return Ok(());
        }
        let head = self.head();
        let Some(head) = head.as_ref() else {
            // PEP 3333: "the application must invoke the start_response() callable before the iterable yields its first body".
            let message = "the application gave a body, or ended, without calling start_response()";
            return Err(PyAssertionError::new_err(message));
        };
        if has_dropped(head) {
            if is_chunked_already(head, first()?.as_ref()) {
                // PEP 3333: "servers should check for errors in the headers at the time start_response is called, so that an
                // error can be raised while the application is still running"; hop-by-hop features are "a fatal error".
                let message = "the application frames its response itself (Transfer-Encoding: chunked, with chunks in its \
                               body); framing is the server's affair (PEP 3333), so it should yield the data alone";
                return Err(PyAssertionError::new_err(message));
            }
            tell_of_dropped(head);
        }
        self.on_response(|response| response.start(head, body_length))
    }

    /// Whether more may be written without filling the outbox; where a thread may wait it always may.
    pub(crate) fn has_room(&self) -> bool {
        let Reach::Owned(owned) = &self.response else { return true };
        owned.lock().as_deref_mut().is_none_or(|call| call.has_room())
    }

    /// Takes bytes of the body.
    pub(crate) fn write(&self, object: &Bound<'_, PyBytes>) -> PyResult<()> {
        let (py, bytes) = (object.py(), object.as_bytes());
        let length = bytes.len();
        if length <= COPY_BYTES {
            return self.on_response(|response| response.write(bytes));
        }
        if length <= SHARED_BYTES_MIN || !object.is_exact_instance_of::<PyBytes>() {
            return py.detach(|| self.on_response(|response| response.write(bytes)));
        }
        let shared: SharedBytes = Arc::new(PyBackedBytes::from(object.clone()));
        // If all are sent by then, this thread lets go of them, which is attached again.
        py.detach(|| self.on_response(|response| response.write_shared(&shared)))
    }

    /// Sends a block, together with those that follow it soon (PEP 3333: the server must "guarantee that
    /// [it] will continue transmission even while the application is producing its next block"). `whole`: it is all of the
    /// body. Returns whether more is wanted.
    pub(crate) fn block(&self, block: &Bound<'_, PyBytes>, whole: bool) -> PyResult<bool> {
        let length = block.as_bytes().len();
        if length == 0 {
            // It may have nothing else for ever, for a client that is gone.
            return self.response.with(|response| response.wants_more()).ok_or_else(over);
        }
        self.start(whole.then_some(length as u64), block.as_bytes())?;
        self.write(block)?;
        if self.is_upgraded() {
            return Ok(true);
        }
        let state = |response: &mut (dyn Response + Send)| (response.hold_back(), response.wants_more());
        let (is_held, wants_more) = self.response.with(state).ok_or_else(over)?;
        if !is_held {
            self.flush(block.py())?;
        } else if !whole && self.response.with(|response| response.holds_end()) != Some(true) {
            // A response that one block makes whole is sent with others of this moment, even if `close()` takes long.
            self.gathers.store(true, Ordering::Relaxed);
        }
        Ok(wants_more)
    }

    /// Takes what the application gives to `write`, and sends it at once.
    pub(crate) fn written(&self, data: &Bound<'_, PyAny>) -> PyResult<()> {
        let bytes = data
            .cast::<PyBytes>()
            .map_err(|_| PyTypeError::new_err(format!("write() takes bytes, not {}", data.get_type())))?;
        self.start(None, bytes.as_bytes())?;
        if bytes.as_bytes().is_empty() {
            return Ok(());
        }
        self.write(bytes)?;
        self.flush(data.py())
    }

    /// Sends the blocks that wait for others, before the `close()` of what yielded them. That of a generator, which has
    /// ended, does nothing.
    pub(crate) fn before_close(&self, iterable: &Bound<'_, PyAny>) {
        if self.gathers.load(Ordering::Relaxed) && !ffi::is_generator(iterable) {
            // A client that is gone does not matter any more; the response cannot be taken for whole.
            let _ = self.flush(iterable.py());
        }
    }

    /// Sends what was taken.
    pub(crate) fn flush(&self, py: Python<'_>) -> PyResult<()> {
        py.detach(|| self.on_response(|response| response.flush()))
    }

    pub(crate) fn on_response(
        &self,
        work: impl FnOnce(&mut (dyn Response + Send)) -> Result<(), SendError>,
    ) -> PyResult<()> {
        if self.is_upgraded() {
            return Ok(());
        }
        let work = |response: &mut (dyn Response + Send)| {
            if self.is_upgraded() { Ok(()) } else { work(response) }
        };
        match self.response.with(work) {
            None => Err(over()),
            Some(Ok(())) => Ok(()),
            Some(Err(error)) => {
                if error == SendError::Disconnected {
                    self.disconnected.store(true, Ordering::Relaxed);
                }
                Err(send_error(error))
            }
        }
    }

    /// Ends the response: the memory of its head is used by the thread's next one.
    pub(crate) fn end(&self) {
        if let Some(mut head) = self.head().take() {
            head.clear();
            SPARE_HEAD.set(head);
        }
    }

    /// The head that the application has given.
    pub(crate) fn head(&self) -> MutexGuard<'_, Option<ResponseHead>> {
        self.head.lock()
    }
}

thread_local! {
    static SPARE_HEAD: Cell<ResponseHead> = const { Cell::new(ResponseHead::new()) };
}

/// A head without fields, in memory that a response before has used.
pub(crate) fn spare_head() -> ResponseHead {
    let mut head = SPARE_HEAD.take();
    head.clear();
    head
}

pub(crate) fn over() -> PyErr {
    PyRuntimeError::new_err("the request is over; its response can no longer be used")
}

/// Converts a failure to send into a Python exception.
fn send_error(error: SendError) -> PyErr {
    let text = error.to_string();
    match error {
        SendError::Disconnected => PyBrokenPipeError::new_err(text),
        SendError::ContentLength | SendError::Subprotocol => PyValueError::new_err(text),
        SendError::Order | SendError::NoWebSocket => PyRuntimeError::new_err(text),
        SendError::Spool => PyOSError::new_err(text),
    }
}
