//! Calls in greenlets. Python runs them (`anygate.greenlets`), because a greenlet must not be switched away from below a
//! frame of ours: greenlets of a thread share its stack. So nothing here calls the application or waits; the rules of
//! answers are those of [`application`](crate::application), step by step.

use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;

use anygate_proto::application::{Desk, Failed, Hub, News};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyTuple};

use crate::application::{Options, blocks, bytes, log, send_file, settle, template};
use crate::environ::Environs;
use crate::start_response::{Call, begin};

/// A WSGI application whose calls are greenlets.
pub struct WsgiHub {
    callable: Py<PyAny>,
    environs: Arc<Environs>,
}

impl WsgiHub {
    /// Wraps `callable`. gevent has patched the standard library already.
    ///
    /// Errors: what making Python objects gives, such as out of memory.
    pub fn new(py: Python<'_>, callable: Py<PyAny>, options: Options) -> PyResult<Self> {
        let environs = Environs::new(py, template(py, options)?)?;
        Ok(WsgiHub { callable, environs: Arc::new(environs) })
    }
}

impl Hub for WsgiHub {
    fn run(&self, desk: Arc<dyn Desk>) -> Result<(), Failed> {
        Python::attach(|py| {
            let run = || -> PyResult<()> {
                let desk = GreenletDesk { desk, environs: Arc::clone(&self.environs) };
                let (desk, callable) = (Bound::new(py, desk)?, self.callable.bind(py));
                py.import("anygate.greenlets")?.call_method1("run", (callable, desk))?;
                Ok(())
            };
            run().map_err(|error| {
                log(py, &error, "its greenlets cannot go on");
                Failed
            })
        })
    }
}

/// Where Python finds what is to be done.
#[pyclass(frozen, name = "Desk", module = "anygate")]
struct GreenletDesk {
    desk: Arc<dyn Desk>,
    environs: Arc<Environs>,
}

#[pymethods]
impl GreenletDesk {
    /// Readable while there is something to take.
    fn fileno(&self) -> RawFd {
        self.desk.bell().as_raw_fd()
    }

    /// Seconds that a client may take to send more of a streamed body.
    #[getter]
    fn body_timeout(&self) -> f64 {
        self.desk.body_timeout().as_secs_f64()
    }

    /// A [`GreenletCall`], the number of one for which there are news, `False` at the end, or `None`. `write_class`
    /// makes the callable that `start_response` gives.
    fn take<'py>(
        &self,
        py: Python<'py>,
        write_class: &Bound<'py, PyAny>,
    ) -> PyResult<Option<Bound<'py, PyAny>>> {
        Ok(match self.desk.take() {
            None => None,
            Some(News::Closed) => Some(false.into_pyobject(py)?.to_owned().into_any()),
            Some(News::Of(number)) => Some(number.into_pyobject(py)?.into_any()),
            Some(News::Call(call)) => {
                let number = call.number();
                let call = GreenletCall {
                    call: Call::owning(call),
                    number,
                    environs: Arc::clone(&self.environs),
                    write_class: write_class.clone().unbind(),
                };
                Some(Bound::new(py, call)?.into_any())
            }
        })
    }
}

/// One call: the `start_response` of its application, and what its greenlet needs to answer.
#[pyclass(frozen, name = "Call", module = "anygate")]
struct GreenletCall {
    call: Call,
    number: u64,
    environs: Arc<Environs>,
    write_class: Py<PyAny>,
}

#[pymethods]
impl GreenletCall {
    #[pyo3(signature = (status, response_headers, exc_info = None, /))]
    fn __call__<'py>(
        slf: &Bound<'py, Self>,
        status: &Bound<'py, PyAny>,
        response_headers: &Bound<'py, PyAny>,
        exc_info: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let call = slf.get();
        begin(&call.call, status, response_headers, exc_info)?;
        call.write_class.bind(slf.py()).call1((slf,))
    }

    #[getter]
    fn number(&self) -> u64 {
        self.number
    }

    /// The environ, and whether reading `wsgi.input` raises BlockingIOError while nothing is there.
    fn environ<'py>(&self, py: Python<'py>) -> PyResult<(Bound<'py, PyDict>, bool)> {
        self.call.owned(|call| {
            let request = call.request().ok_or_else(crate::start_response::over)?;
            let streamed = request.body.as_ref().is_some_and(|body| body.may_block());
            Ok((self.environs.make(py, request)?, streamed))
        })
    }

    /// Whether more may be written now.
    fn has_room(&self, py: Python<'_>) -> PyResult<bool> {
        py.detach(|| self.call.owned(|call| Ok(call.has_room())))
    }

    /// Asks for news: room, more of the body, or the client's end. Another look must follow.
    fn want_news(&self) -> PyResult<()> {
        self.call.owned(|call| {
            call.want_news();
            Ok(())
        })
    }

    /// Sends blocks of a list or tuple from a place on; gives where to go on when there is room, `None` at the end.
    fn blocks(&self, iterable: &Bound<'_, PyAny>, from: usize) -> PyResult<Option<usize>> {
        if let Ok(list) = iterable.cast_exact::<PyList>() {
            return blocks(&self.call, list.len(), from, |index| list.get_item(index));
        }
        let tuple = iterable.cast::<PyTuple>()?;
        blocks(&self.call, tuple.len(), from, |index| tuple.get_item(index))
    }

    /// Sends what the application returned if it is a file; says whether it was.
    fn file(&self, iterable: &Bound<'_, PyAny>) -> PyResult<bool> {
        send_file(&self.call, iterable)
    }

    /// Sends one block at once. `whole`: it is all of the body.
    fn block(&self, block: &Bound<'_, PyAny>, whole: bool) -> PyResult<()> {
        self.call.block(bytes(block)?, whole)
    }

    /// Takes what the application gives to `write`.
    fn write(&self, data: &Bound<'_, PyAny>) -> PyResult<()> {
        self.call.written(data)
    }

    /// All blocks were given.
    fn end_of_blocks(&self) -> PyResult<()> {
        self.call.start(Some(0))
    }

    /// Ends the call; `error` is what the application raised.
    fn finish(&self, error: Option<&Bound<'_, PyAny>>) {
        let Some(mut call) = self.call.take() else { return };
        let result = match (error, call.request()) {
            (None, _) => Ok(()),
            (Some(error), Some(request)) => {
                settle(error.py(), &self.call, &PyErr::from_value(error.clone()), request.head);
                Err(Failed)
            }
            (Some(_), None) => Err(Failed),
        };
        call.finish(result);
    }

    /// Notes an exception that is not the answer's.
    #[expect(clippy::unused_self, reason = "one object is all that Python needs")]
    fn log(&self, error: &Bound<'_, PyAny>, what: &str) {
        log(error.py(), &PyErr::from_value(error.clone()), what);
    }
}
