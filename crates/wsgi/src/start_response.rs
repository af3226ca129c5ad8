//! `start_response` and the `write` callable that it gives (PEP 3333, "The start_response() Callable").

use anygate_proto::error::InvalidHead;
use anygate_proto::head::ResponseHead;
use pyo3::exceptions::{PyAssertionError, PyTypeError, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyList, PyString, PyTuple};

use crate::call::{Call, spare_head};
use crate::ffi::latin1_bytes;

/// The callable that an application gets. That of a greenlet is a subclass, so code for the call of either takes this.
#[pyclass(frozen, subclass, module = "anygate")]
#[derive(Default)]
pub(crate) struct StartResponse {
    pub(crate) call: Call,
}

#[pymethods]
impl StartResponse {
    /// PEP 3333 has the names `status`, `response_headers` and `exc_info`; wsgiref and gunicorn say `headers`, and so do
    /// applications that pass it by name.
    #[pyo3(signature = (status, response_headers = None, exc_info = None, *, headers = None))]
    fn __call__(
        slf: &Bound<'_, Self>,
        status: &Bound<'_, PyAny>,
        response_headers: Option<&Bound<'_, PyAny>>,
        exc_info: Option<&Bound<'_, PyAny>>,
        headers: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Write> {
        begin(&slf.get().call, status, response_headers.or(headers), exc_info)?;
        Ok(Write { start_response: slf.clone().unbind() })
    }
}

/// What `start_response` does before it gives the `write` callable.
pub(crate) fn begin(
    call: &Call,
    status: &Bound<'_, PyAny>,
    response_headers: Option<&Bound<'_, PyAny>>,
    exc_info: Option<&Bound<'_, PyAny>>,
) -> PyResult<()> {
    let missing = || PyTypeError::new_err("start_response() takes a status and a list of headers");
    let response_headers = response_headers.ok_or_else(missing)?;
    if let Some(exc_info) = exc_info {
        // PEP 3333: "if exc_info is provided, and the HTTP headers have already been output, start_response must
        // raise an error, and should re-raise using the exc_info tuple".
        if call.is_started()? {
            return Err(reraised(exc_info)?);
        }
    } else if call.head().is_some() {
        // PEP 3333: "it is a fatal error to call start_response without the exc_info argument if start_response has
        // already been called within the current invocation of the application".
        let message = "start_response() was called twice; pass exc_info to replace the headers";
        return Err(PyAssertionError::new_err(message));
    }
    let head = head(status, response_headers)?;
    *call.head() = Some(head);
    Ok(())
}

fn reraised(exc_info: &Bound<'_, PyAny>) -> PyResult<PyErr> {
    let (_class, value, traceback): (Bound<'_, PyAny>, Bound<'_, PyAny>, Bound<'_, PyAny>) =
        exc_info.cast::<PyTuple>()?.extract()?;
    let value = value.call_method1(intern!(exc_info.py(), "with_traceback"), (traceback,))?;
    Ok(PyErr::from_value(value))
}

fn head(status: &Bound<'_, PyAny>, headers: &Bound<'_, PyAny>) -> PyResult<ResponseHead> {
    let mut head = spare_head();
    let line = native(status, "the status")?;
    let line = latin1_bytes(line).ok_or_else(|| not_latin1("the status", status))?;
    head.set_status_line(line).map_err(|error| invalid(error, status))?;
    if head.status() < 200 {
        let message = format!("{status:?} is an interim status; an application must send a final one");
        return Err(PyValueError::new_err(message));
    }
    add_fields(&mut head, headers)?;
    Ok(head)
}

/// Adds the fields that an application gave.
pub(crate) fn add_fields(head: &mut ResponseHead, headers: &Bound<'_, PyAny>) -> PyResult<()> {
    // PEP 3333: "it must be a Python list; i.e. type(response_headers) is ListType". A subclass does no harm.
    let headers = headers.cast::<PyList>().map_err(|_| {
        let class = headers.get_type();
        PyTypeError::new_err(format!("the headers must be a list of (name, value) tuples, not {class}"))
    })?;
    for header in headers.iter() {
        let pair = header.cast::<PyTuple>().ok().filter(|pair| pair.len() == 2);
        let Some(pair) = pair else {
            return Err(PyTypeError::new_err(format!(
                "a header must be a (name, value) tuple, not {header:?}"
            )));
        };
        let (name, value) = (pair.get_item(0)?, pair.get_item(1)?);
        let name_bytes = latin1_bytes(native(&name, "a header name")?)
            .ok_or_else(|| not_latin1("a header name", &name))?;
        let value_bytes = latin1_bytes(native(&value, "a header value")?)
            .ok_or_else(|| not_latin1("a header value", &value))?;
        head.push_field(name_bytes, value_bytes).map_err(|error| invalid(error, &header))?;
    }
    Ok(())
}

fn native<'a, 'py>(value: &'a Bound<'py, PyAny>, what: &str) -> PyResult<&'a Bound<'py, PyString>> {
    value.cast::<PyString>().map_err(|_| {
        let class = value.get_type();
        PyTypeError::new_err(format!("{what} must be a str, not {value:?} of {class}"))
    })
}

fn not_latin1(what: &str, value: &Bound<'_, PyAny>) -> PyErr {
    PyValueError::new_err(format!("{what} {value:?} has characters outside ISO-8859-1"))
}

fn invalid(error: InvalidHead, value: &Bound<'_, PyAny>) -> PyErr {
    PyValueError::new_err(format!("{error}, not {value:?}"))
}

/// The `write` callable (PEP 3333, "The write() Callable").
#[pyclass(frozen, module = "anygate")]
pub(crate) struct Write {
    start_response: Py<StartResponse>,
}

#[pymethods]
impl Write {
    fn __call__(&self, data: &Bound<'_, PyAny>) -> PyResult<()> {
        self.start_response.get().call.written(data)
    }
}
