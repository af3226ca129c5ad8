//! `start_response`, which is the `write` callable too (PEP 3333, "The start_response() Callable").

use anygate_proto::error::InvalidHead;
use anygate_proto::head::ResponseHead;
use pyo3::exceptions::{PyAssertionError, PyTypeError, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList, PyString, PyTuple};

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
    ///
    /// It is its own `write` callable (PEP 3333, "The write() Callable"), which takes `data` alone: hardly any application uses
    /// that one, so that a second object would be made for nothing.
    #[pyo3(signature = (status = None, response_headers = None, exc_info = None, *, headers = None, data = None))]
    fn __call__<'py>(
        slf: &Bound<'py, Self>,
        status: Option<&Bound<'py, PyAny>>,
        response_headers: Option<&Bound<'py, PyAny>>,
        exc_info: Option<&Bound<'py, PyAny>>,
        headers: Option<&Bound<'py, PyAny>>,
        data: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Option<Bound<'py, Self>>> {
        let (call, headers) = (&slf.get().call, response_headers.or(headers));
        if headers.is_none() && exc_info.is_none() {
            let is_data = |given: &&Bound<'_, PyAny>| given.is_instance_of::<PyBytes>() || call.has_head();
            if let Some(data) = data.or_else(|| status.filter(is_data)) {
                return call.written(data).map(|()| None);
            }
        }
        begin(call, status.ok_or_else(missing)?, headers, exc_info)?;
        Ok(Some(slf.clone()))
    }
}

/// What `start_response` does before it gives the `write` callable.
pub(crate) fn begin(
    call: &Call,
    status: &Bound<'_, PyAny>,
    response_headers: Option<&Bound<'_, PyAny>>,
    exc_info: Option<&Bound<'_, PyAny>>,
) -> PyResult<()> {
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

fn missing() -> PyErr {
    PyTypeError::new_err("start_response() takes a status and a list of headers")
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
    if let Ok(list) = headers.cast::<PyList>() {
        return list.iter().try_for_each(|header| add_field(head, &header));
    }
    // PEP 3333: "it must be a Python list". gunicorn and waitress take whatever has pairs, and applications rely on it.
    let pairs = headers.try_iter().ok().filter(|_| !headers.is_instance_of::<PyDict>()).ok_or_else(|| {
        let class = headers.get_type();
        PyTypeError::new_err(format!("the headers must be a list of (name, value) tuples, not {class}"))
    })?;
    pairs.into_iter().try_for_each(|header| add_field(head, &header?))
}

fn add_field(head: &mut ResponseHead, header: &Bound<'_, PyAny>) -> PyResult<()> {
    let of_list;
    let pair = match header.cast::<PyTuple>() {
        Ok(pair) => pair,
        Err(_) => {
            of_list = header.cast::<PyList>().map_err(|_| invalid_pair(header))?.to_tuple();
            &of_list
        }
    };
    let [name, value] = pair.as_slice() else { return Err(invalid_pair(header)) };
    let name_bytes =
        latin1_bytes(native(name, "a header name")?).ok_or_else(|| not_latin1("a header name", name))?;
    let value_bytes =
        latin1_bytes(native(value, "a header value")?).ok_or_else(|| not_latin1("a header value", value))?;
    head.push_field(name_bytes, value_bytes).map_err(|error| invalid(error, header))
}

fn invalid_pair(header: &Bound<'_, PyAny>) -> PyErr {
    PyTypeError::new_err(format!("a header must be a (name, value) tuple, not {header:?}"))
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
