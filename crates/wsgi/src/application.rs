//! Calls the application and carries its response to the server (PEP 3333, "The Server/Gateway Side").

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};

use anygate_lock::Mutex;
use anygate_proto::application::{Application, Failed, LongCall, Request, Response};
use pyo3::exceptions::{PyKeyboardInterrupt, PySystemExit, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyTuple};

use crate::call::{Call, Reach};
use crate::delivery::{blocks, deliver};
use crate::early_hints::EarlyHints;
use crate::environ::Environs;
use crate::failures::{FailedRequest, Failures, call_within, failed, log, settle, settle_closing};
use crate::ffi::Context;
use crate::forks;
use crate::interrupt::Interrupts;
use crate::options::{Options, template};
use crate::routes::Routes;
use crate::start_response::StartResponse;
use crate::websocket::WebSocket;

/// A WSGI application that a server can call.
pub struct WsgiApplication {
    callable: Py<PyAny>,
    environs: Environs,
    interrupts: Interrupts,
    failures: Failures,
    routes: Routes,
    /// Seconds; 0 for never.
    websocket_accept_after: f64,
}

impl WsgiApplication {
    /// Wraps `callable`.
    ///
    /// Errors: what making Python objects gives, such as out of memory.
    pub fn new(py: Python<'_>, callable: Py<PyAny>, mut options: Options) -> PyResult<Self> {
        forks::count(py)?;
        let failures = Failures::of(&mut options);
        let websocket_accept_after = options.websocket_accept_after.unwrap_or_default().as_secs_f64();
        Ok(WsgiApplication {
            websocket_accept_after,
            callable,
            routes: Routes::new(py, options.routes),
            environs: Environs::new(py, template(py, options)?)?,
            interrupts: Interrupts::default(),
            failures,
        })
    }

    /// Responds to a request. What went wrong has been told of when this gives it back.
    fn respond(&self, request: Request<'_>, start_response: &Bound<'_, StartResponse>) -> PyResult<()> {
        let (py, call, head) = (start_response.py(), &start_response.get().call, request.head);
        let (environ, websocket) = self.offer(request, start_response).inspect_err(|error| {
            settle(py, call, None, error, |error| log(py, error, &failed(head)));
        })?;
        let mut closing = None;
        let result = self.run(call, &environ, start_response, &mut closing);
        call.end_if_forked(py, result.as_ref().err());
        self.routes.tell(call, &environ);
        if let Err(error) = &result {
            let websocket = websocket.as_ref().map(Bound::get);
            if settle(py, call, websocket, error, |error| log(py, error, &failed(head))) {
                self.failures.tell(&environ, error);
            }
        }
        if let Some(iterable) = closing {
            self.close(call, &environ, &iterable, result.as_ref().err());
        }
        match &websocket {
            Some(websocket) => WebSocket::end(websocket, result),
            None => result,
        }
    }

    /// Returns the arguments of the application.
    fn offer<'py>(
        &self,
        request: Request<'_>,
        start_response: &Bound<'py, StartResponse>,
    ) -> PyResult<(Bound<'py, PyDict>, Option<Bound<'py, WebSocket>>)> {
        let py = start_response.py();
        let (websocket, version) = (request.websocket, request.head.version());
        let environ = self.environs.make(py, request)?;
        EarlyHints::offer(start_response, &environ, version)?;
        if !websocket {
            return Ok((environ, None));
        }
        let websocket = WebSocket::new(start_response, &environ)?;
        py.import("anygate.websocket")?
            .call_method1(intern!(py, "offer"), (&environ, &websocket, self.websocket_accept_after))?;
        Ok((environ, Some(websocket)))
    }

    /// Calls the application and delivers its response, which is left in `closing` if it may want to be closed.
    fn run<'py>(
        &self,
        call: &Call,
        environ: &Bound<'py, PyDict>,
        start_response: &Bound<'py, StartResponse>,
        closing: &mut Option<Bound<'py, PyAny>>,
    ) -> PyResult<()> {
        let iterable = self.callable.bind(environ.py()).call1((environ, start_response))?;
        if let Ok(list) = iterable.cast_exact::<PyList>() {
            return blocks(call, list.len(), 0, |index| list.get_item(index)).map(|_| ());
        }
        if let Ok(tuple) = iterable.cast_exact::<PyTuple>() {
            return blocks(call, tuple.len(), 0, |index| tuple.get_item(index)).map(|_| ());
        }
        deliver(call, closing.insert(iterable))
    }

    /// Closes a response. `failed`: why it is not whole.
    ///
    /// PEP 3333: "If the iterable returned by the application has a close() method, the server or gateway must call that
    /// method upon completion of the current request, whether the request was completed normally, or terminated early
    /// due to an application error during iteration or an early disconnect of the browser." As in the `finally` of its
    /// example, `sys.exc_info()` says there which of these it is.
    fn close(
        &self,
        call: &Call,
        environ: &Bound<'_, PyDict>,
        iterable: &Bound<'_, PyAny>,
        failed: Option<&PyErr>,
    ) {
        let closed = iterable.getattr_opt(intern!(iterable.py(), "close")).and_then(|close| {
            let Some(close) = close else { return Ok(()) };
            call.before_close(iterable);
            match failed {
                None => close.call0().map(|_| ()),
                Some(error) => call_within(error, &close),
            }
        });
        // What was sent stands: the client need not suffer.
        if let Err(error) = closed {
            let py = environ.py();
            settle_closing(py, &error, failed.is_some(), |error, what| log(py, error, what));
            self.failures.tell(environ, &error);
        }
    }
}

/// What an app thread does; to be called once.
#[pyclass(frozen, module = "anygate")]
struct ThreadWork(Mutex<Option<Box<dyn FnMut() + Send>>>);

#[pymethods]
impl ThreadWork {
    fn __call__(&self, py: Python<'_>) {
        let Some(mut work) = self.0.lock().take() else { return };
        // The thread state is Python's own and lives as long as the thread: calls only take and leave the lock.
        py.detach(&mut work);
        // A thread that waits for that may end the interpreter next, so this thread must have it for the last time.
        drop(work);
    }
}

impl Application for WsgiApplication {
    fn start_thread(&self, name: &str, work: Box<dyn FnMut() + Send>) -> io::Result<()> {
        Python::attach(|py| {
            let work = Bound::new(py, ThreadWork(Mutex::new(Some(work))))?;
            py.import("anygate.app_threads")?.call_method1("start", (name, work))?;
            Ok(())
        })
        .map_err(|error: PyErr| io::Error::other(error.to_string()))
    }

    fn call(&self, request: Request<'_>, response: &mut (dyn Response + Send)) -> Result<(), Failed> {
        Python::attach(|py| {
            response.entered();
            let asked = FailedRequest::from(&request);
            let start_response = Bound::new(py, StartResponse::default()).map_err(|error| {
                log(py, &error, "there is no memory for a request");
                Failed
            })?;
            let call = &start_response.get().call;
            // One for the call, the iteration and the close, and none of it for the next request of this thread.
            let context = Context::enter(py).map_err(|error| {
                log(py, &error, "there is no memory for a request");
                Failed
            })?;
            let interruptible = self.interrupts.begin(py, request.number);
            let Reach::Lent(loan) = &call.response else { return Err(Failed) };
            let result = loan.during(response, || self.respond(request, &start_response));
            call.end_if_forked(py, result.as_ref().err());
            call.end();
            drop(interruptible);
            drop(context);
            result.or_else(|error| match self.failures.page(py, call, &error, asked) {
                // It may be long, and its client slow.
                Some(page) => py.detach(|| page.send(response)),
                None => Err(Failed),
            })
        })
    }

    fn run_signal_handlers(&self) {
        Python::attach(|py| {
            // What a handler raises goes to the main thread, and this is all that the main thread does. The end of a worker
            // is its supervisor's order, so that an exit is none.
            if let Err(error) = py.check_signals()
                && !error.is_instance_of::<PySystemExit>(py)
                && !error.is_instance_of::<PyKeyboardInterrupt>(py)
            {
                log(py, &error, "a handler of a signal failed");
            }
        });
    }

    fn tell_signals(&self, to: BorrowedFd<'_>, ends: bool) {
        Python::attach(|py| {
            if let Err(error) = tell_signals(py, to.as_raw_fd(), ends) {
                log(py, &error, "handlers of signals may run late");
            }
        });
    }

    fn attend_to(&self, call: &LongCall) {
        Python::attach(|py| {
            if let Err(error) = self.interrupts.attend_to(py, call) {
                log(py, &error, "cannot inspect a slow request");
            }
            self.failures.overdue(py, call);
        });
    }
}

/// Has a byte written to `to` whenever a signal came, unless the application has chosen another place; `ends`: no longer.
fn tell_signals(py: Python<'_>, to: RawFd, ends: bool) -> PyResult<()> {
    let signal = py.import("signal")?;
    let options = PyDict::new(py);
    // A byte that waits there tells as much.
    options.set_item("warn_on_full_buffer", false)?;
    let set = |to: RawFd| signal.call_method("set_wakeup_fd", (to,), Some(&options))?.extract::<RawFd>();
    let before = match set(if ends { -1 } else { to }) {
        Ok(before) => before,
        // A program's own main thread runs its handlers.
        Err(error) if error.is_instance_of::<PyValueError>(py) => return Ok(()),
        Err(error) => return Err(error),
    };
    let is_ours = before == -1 || before == to;
    if is_ours { Ok(()) } else { set(before).map(|_| ()) }
}
