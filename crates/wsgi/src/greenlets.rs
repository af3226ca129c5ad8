//! Calls in greenlets. Python runs them (`anygate.greenlets`), because a greenlet must not be switched away from below a
//! frame of ours: greenlets of a thread share its stack. So nothing here calls the application or waits; the rules of
//! responses are those of [`application`](crate::application), step by step.

use std::os::fd::{AsRawFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use anygate_lock::Mutex;
use anygate_proto::application::{Failed, Hub, HubQueue, LongCall, News};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyTuple};

use crate::call::{Call, over};
use crate::delivery::{blocks, bytes, send_file};
use crate::early_hints::EarlyHints;
use crate::environ::Environs;
use crate::failures::{FailedRequest, Failures, failed, log, say, settle, settle_closing, traceback};
use crate::ffi::{self, ThreadNumber};
use crate::forks;
use crate::interrupt;
use crate::options::{Options, template};
use crate::routes::Routes;
use crate::start_response::{StartResponse, begin};
use crate::websocket::WebSocket;

/// A WSGI application whose calls are greenlets.
pub struct WsgiHub {
    callable: Py<PyAny>,
    environs: Arc<Environs>,
    failures: Arc<Failures>,
    routes: Arc<Routes>,
    /// The thread of the hub, from its beginning.
    thread: Arc<OnceLock<ThreadNumber>>,
    /// The code that a greenlet's lowest frame runs.
    respond: OnceLock<Py<PyAny>>,
    /// Seconds; 0 for never.
    websocket_accept_after: f64,
}

impl WsgiHub {
    /// Wraps `callable`. gevent has patched the standard library already.
    ///
    /// Errors: what making Python objects gives, such as out of memory.
    pub fn new(py: Python<'_>, callable: Py<PyAny>, mut options: Options) -> PyResult<Self> {
        forks::count(py)?;
        let failures = Failures::of(&mut options);
        let websocket_accept_after = options.websocket_accept_after.unwrap_or_default().as_secs_f64();
        let routes = Arc::new(Routes::new(py, options.routes));
        let environs = Environs::new(py, template(py, options)?)?;
        Ok(WsgiHub {
            websocket_accept_after,
            callable,
            environs: Arc::new(environs),
            routes,
            failures: Arc::new(failures),
            thread: Arc::default(),
            respond: OnceLock::new(),
        })
    }
}

impl Hub for WsgiHub {
    fn run(&self, queue: Arc<dyn HubQueue>) -> Result<(), Failed> {
        Python::attach(|py| {
            let run = || -> PyResult<()> {
                let module = py.import("anygate.greenlets")?;
                let respond = module.getattr("CallRunner")?.getattr("respond")?.getattr("__code__")?;
                // A hub runs once.
                let _ = self.respond.set(respond.unbind());
                let _ = self.thread.set(ffi::thread(py));
                let (environs, thread) = (Arc::clone(&self.environs), Arc::clone(&self.thread));
                let (failures, routes) = (Arc::clone(&self.failures), Arc::clone(&self.routes));
                let websocket_accept_after = self.websocket_accept_after;
                let queue =
                    GreenletQueue { queue, environs, failures, routes, thread, websocket_accept_after };
                let queue = Bound::new(py, queue)?;
                module.call_method1("run", (&self.callable, queue, &self.failures.on_error))?;
                Ok(())
            };
            run().map_err(|error| {
                log(py, &error, "its greenlets cannot go on");
                Failed
            })
        })
    }

    fn attend_to(&self, call: &LongCall) -> bool {
        Python::attach(|py| {
            let attended = self.attend_to_running(py, call).unwrap_or_else(|error| {
                log(py, &error, "cannot inspect a slow request");
                false
            });
            self.failures.overdue(py, call);
            attended
        })
    }
}

impl WsgiHub {
    /// Says where the hub's thread is if it is inside that call, and interrupts it if the call is overdue; returns whether it
    /// was.
    fn attend_to_running(&self, py: Python<'_>, long: &LongCall) -> PyResult<bool> {
        let (timeouts, exception) = (py.import("anygate.timeouts")?, interrupt::exception(py)?);
        let frames = py.import("sys")?.getattr("_current_frames")?;
        let (Some(&thread), Some(respond)) = (self.thread.get(), self.respond.get()) else {
            return Ok(false);
        };
        let stack: String = timeouts.call_method1("stack_of_thread", (thread,))?.extract()?;
        // From here to the exception no Python runs, so that the thread stays where it is.
        let mut frame = frames.call0()?.get_item(thread)?;
        while !frame.is_none() {
            if frame.getattr("f_code")?.is(respond) {
                let call = frame.getattr("f_locals")?.get_item("call")?;
                let call = call.cast::<GreenletCall>()?.get();
                if call.number != long.number {
                    return Ok(false);
                }
                if long.is_overdue {
                    call.interrupted.store(true, Ordering::Release);
                    ffi::raise_in_thread(py, thread, Some(&exception));
                }
                py.detach(|| interrupt::say(long, &stack));
                return Ok(true);
            }
            frame = frame.getattr("f_back")?;
        }
        Ok(false)
    }
}

/// Where Python finds what is to be done.
#[pyclass(frozen, name = "HubQueue", module = "anygate")]
struct GreenletQueue {
    queue: Arc<dyn HubQueue>,
    environs: Arc<Environs>,
    failures: Arc<Failures>,
    routes: Arc<Routes>,
    thread: Arc<OnceLock<ThreadNumber>>,
    websocket_accept_after: f64,
}

#[pymethods]
impl GreenletQueue {
    /// Logs an exception that is no call's.
    fn log(&self, error: &Bound<'_, PyAny>, what: &str) {
        log(error.py(), &PyErr::from_value(error.clone()), what);
    }

    /// Seconds after which a WebSocket that the application holds and does not use is accepted; 0 for never.
    #[getter]
    fn websocket_accept_after(&self) -> f64 {
        self.websocket_accept_after
    }

    /// Readable while there is something to take.
    fn fileno(&self) -> RawFd {
        self.queue.bell().as_raw_fd()
    }

    /// Seconds that a client may take to send more of a streamed body.
    #[getter]
    fn body_timeout(&self) -> f64 {
        self.queue.body_timeout().as_secs_f64()
    }

    /// Whether calls must be found by their number, because their duration is watched.
    #[getter]
    fn has_time_limit(&self) -> bool {
        self.queue.has_time_limit()
    }

    /// A [`GreenletCall`], the number of one for which there are news, a [`LongGreenlet`], `False` at the end, or
    /// `None`. `write_class` makes the callable that `start_response` gives.
    fn take<'py>(
        &self,
        py: Python<'py>,
        write_class: &Bound<'py, PyAny>,
    ) -> PyResult<Option<Bound<'py, PyAny>>> {
        Ok(match self.queue.take() {
            None => None,
            Some(News::Closed) => Some(false.into_pyobject(py)?.to_owned().into_any()),
            Some(News::Of(number)) => Some(number.into_pyobject(py)?.into_any()),
            Some(News::Long(call)) => Some(Bound::new(py, LongGreenlet(call))?.into_any()),
            Some(News::Call(call)) => {
                let number = call.number();
                let start_response = StartResponse { call: Call::owning(call) };
                let call = GreenletCall {
                    number,
                    environs: Arc::clone(&self.environs),
                    failures: Arc::clone(&self.failures),
                    routes: Arc::clone(&self.routes),
                    environ: Mutex::default(),
                    write_class: write_class.clone().unbind(),
                    thread: Arc::clone(&self.thread),
                    interrupted: AtomicBool::new(false),
                    queue: Arc::clone(&self.queue),
                    websocket: Mutex::default(),
                };
                Some(Bound::new(py, (call, start_response))?.into_any())
            }
        })
    }
}

/// A call that takes long and waits, as far as the hub's thread knows.
#[pyclass(frozen, name = "LongCall", module = "anygate")]
struct LongGreenlet(LongCall);

#[pymethods]
impl LongGreenlet {
    #[getter]
    fn number(&self) -> u64 {
        self.0.number
    }

    /// Whether it is to be interrupted.
    #[getter]
    fn is_overdue(&self) -> bool {
        self.0.is_overdue
    }

    /// Tells where it is.
    fn say(&self, py: Python<'_>, stack: &str) {
        py.detach(|| self.0.within(&mut || interrupt::say(&self.0, stack)));
    }
}

/// One call: the `start_response` of its application, and what its greenlet needs to respond.
#[pyclass(frozen, extends = StartResponse, name = "Call", module = "anygate")]
struct GreenletCall {
    number: u64,
    environs: Arc<Environs>,
    failures: Arc<Failures>,
    routes: Arc<Routes>,
    /// Until the end of the call, where its route is wanted.
    environ: Mutex<Option<Py<PyDict>>>,
    write_class: Py<PyAny>,
    thread: Arc<OnceLock<ThreadNumber>>,
    /// While it was running, so that the exception may not have been raised yet.
    interrupted: AtomicBool,
    queue: Arc<dyn HubQueue>,
    /// Until the end of the call, since it has the call too.
    websocket: Mutex<Option<Py<WebSocket>>>,
}

impl GreenletCall {
    fn websocket(&self, py: Python<'_>) -> Option<Py<WebSocket>> {
        self.websocket.lock().as_ref().map(|websocket| websocket.clone_ref(py))
    }
}

/// What is told of a call's WebSocket has the number of the call with this bit.
const OF_WEBSOCKET: u64 = 1 << 63;

#[pymethods]
impl GreenletCall {
    /// The names are those of `StartResponse`.
    #[pyo3(signature = (status, response_headers = None, exc_info = None, *, headers = None))]
    fn __call__<'py>(
        slf: &Bound<'py, Self>,
        status: &Bound<'py, PyAny>,
        response_headers: Option<&Bound<'py, PyAny>>,
        exc_info: Option<&Bound<'py, PyAny>>,
        headers: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        begin(call(slf), status, response_headers.or(headers), exc_info)?;
        slf.get().write_class.bind(slf.py()).call1((slf,))
    }

    #[getter]
    fn number(&self) -> u64 {
        self.number
    }

    /// The environ, whether reading `wsgi.input` raises BlockingIOError while nothing is there, and the WebSocket that the
    /// request asks for.
    fn environ<'py>(
        slf: &Bound<'py, Self>,
    ) -> PyResult<(Bound<'py, PyDict>, bool, Option<Bound<'py, WebSocket>>)> {
        let (py, this) = (slf.py(), slf.get());
        let (environ, version, streamed, websocket) = call(slf).owned(|call| {
            let request = call.request().ok_or_else(over)?;
            let streamed = request.body.as_ref().is_some_and(|body| body.may_block());
            let (websocket, version) = (request.websocket, request.head.version());
            Ok((this.environs.make(py, request)?, version, streamed, websocket))
        })?;
        EarlyHints::offer(slf.as_super(), &environ, version)?;
        if this.routes.are_wanted() {
            *this.environ.lock() = Some(environ.clone().unbind());
        }
        if !websocket {
            return Ok((environ, streamed, None));
        }
        let websocket = WebSocket::new(slf.as_super(), &environ)?;
        *this.websocket.lock() = Some(websocket.clone().unbind());
        Ok((environ, streamed, Some(websocket)))
    }

    /// What is told when a message came for the WebSocket.
    #[getter]
    fn number_of_websocket(&self) -> u64 {
        self.number | OF_WEBSOCKET
    }

    /// Asks for news of the call's WebSocket, from now on.
    fn want_news_of_websocket(&self, websocket: &Bound<'_, WebSocket>) -> PyResult<()> {
        let py = websocket.py();
        let (queue, number) = (Arc::clone(&self.queue), self.number_of_websocket());
        websocket.get().on_news(py, Box::new(move || queue.tell(number)))
    }

    /// Whether more may be written now.
    fn has_room(slf: &Bound<'_, Self>) -> PyResult<bool> {
        let call = call(slf);
        slf.py().detach(|| call.owned(|call| Ok(call.has_room())))
    }

    /// Asks for news: room, more of the body, or the client's end. Another look must follow.
    fn want_news(slf: &Bound<'_, Self>) -> PyResult<()> {
        call(slf).owned(|call| {
            call.want_news();
            Ok(())
        })
    }

    /// Sends blocks of a list or tuple from a place on; returns where to go on when there is room, `None` at the end.
    fn blocks(slf: &Bound<'_, Self>, iterable: &Bound<'_, PyAny>, from: usize) -> PyResult<Option<usize>> {
        if let Ok(list) = iterable.cast_exact::<PyList>() {
            return blocks(call(slf), list.len(), from, |index| list.get_item(index));
        }
        let tuple = iterable.cast::<PyTuple>()?;
        blocks(call(slf), tuple.len(), from, |index| tuple.get_item(index))
    }

    /// Sends what the application returned if it is a file; says whether it was.
    fn file(slf: &Bound<'_, Self>, iterable: &Bound<'_, PyAny>) -> PyResult<bool> {
        send_file(call(slf), iterable)
    }

    /// Sends one block, together with those that follow it soon. `whole`: it is all of the body. Returns whether more is
    /// wanted.
    fn block(slf: &Bound<'_, Self>, block: &Bound<'_, PyAny>, whole: bool) -> PyResult<bool> {
        call(slf).block(bytes(block)?, whole)
    }

    /// Takes what the application gives to `write`.
    fn write(slf: &Bound<'_, Self>, data: &Bound<'_, PyAny>) -> PyResult<()> {
        call(slf).written(data)
    }

    /// All blocks were given.
    fn end_of_blocks(slf: &Bound<'_, Self>) -> PyResult<()> {
        call(slf).start(Some(0), &[])
    }

    /// Sends what waits for further blocks, before `iterable` is closed.
    fn before_close(slf: &Bound<'_, Self>, iterable: &Bound<'_, PyAny>) {
        call(slf).before_close(iterable);
    }

    /// Tells of what the application raised; returns whether the site's function is to know of it.
    fn settle(slf: &Bound<'_, Self>, error: &Bound<'_, PyAny>) -> bool {
        let websocket = slf.get().websocket(slf.py());
        let error = PyErr::from_value(error.clone());
        call(slf).end_if_forked(slf.py(), Some(&error));
        settle(slf.py(), call(slf), websocket.as_ref().map(Py::get), &error, |error| say_of(slf, error, None))
    }

    /// Tells of what closing its response raised.
    fn settle_closing(slf: &Bound<'_, Self>, error: &Bound<'_, PyAny>, also: bool) {
        let error = PyErr::from_value(error.clone());
        settle_closing(slf.py(), &error, also, |error, what| say_of(slf, error, Some(what)));
    }

    /// Ends the call; `error` is what it failed with.
    fn finish(slf: &Bound<'_, Self>, error: Option<&Bound<'_, PyAny>>) {
        let (py, this, owner) = (slf.py(), slf.get(), call(slf));
        owner.end_if_forked(py, error.map(|error| PyErr::from_value(error.clone())).as_ref());
        if let (true, Some(&thread)) = (this.interrupted.swap(false, Ordering::AcqRel), this.thread.get()) {
            ffi::raise_in_thread(py, thread, None);
        }
        if let Some(environ) = this.environ.lock().take() {
            this.routes.tell(owner, environ.bind(py));
        }
        let error = error.map(|error| PyErr::from_value(error.clone()));
        let websocket = this.websocket.lock().take();
        let error = match websocket {
            None => error,
            Some(websocket) => WebSocket::end(websocket.bind(py), error.map_or(Ok(()), Err)).err(),
        };
        let Some(mut call) = owner.take() else { return };
        let result = match error {
            None => Ok(()),
            Some(error) => {
                let asked = call.request();
                let asked = asked.as_ref().map(FailedRequest::from);
                let page = asked.and_then(|asked| this.failures.page(py, owner, &error, asked));
                page.map_or(Err(Failed), |page| page.send(&mut *call))
            }
        };
        call.finish(result);
    }

    /// Notes an exception that is not the response's.
    fn log(slf: &Bound<'_, Self>, error: &Bound<'_, PyAny>, what: &str) {
        let error = PyErr::from_value(error.clone());
        if !interrupt::is_interruption(slf.py(), &error) {
            say_of(slf, &error, Some(what));
        }
    }
}

/// The response of a call.
fn call<'a>(greenlet: &'a Bound<'_, GreenletCall>) -> &'a Call {
    &greenlet.as_super().get().call
}

/// Logs an exception as a part of the call; `what` happened, if it is not that the call failed.
fn say_of(greenlet: &Bound<'_, GreenletCall>, error: &PyErr, what: Option<&str>) {
    let (py, call) = (greenlet.py(), call(greenlet));
    let text = traceback(py, error);
    let said = py.detach(|| {
        call.owned(|call| {
            call.within(&mut |head| match what {
                Some(what) => say(what, &text),
                None => say(&failed(head), &text),
            });
            Ok(())
        })
    });
    if said.is_err() {
        // It is over.
        log(py, error, what.unwrap_or("a request failed"));
    }
}
