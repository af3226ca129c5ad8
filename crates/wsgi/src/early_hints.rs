//! `environ['wsgi.early_hints']`: sends a response of status 103 (RFC 8297), so that the client begins to fetch what the
//! page will need while the application still works on it. Offered where clients can be trusted to know interim responses:
//! over HTTP/2.

use anygate_proto::head::{ResponseHead, Version};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::start_response::{StartResponse, add_fields};

/// The callable that an application gets.
#[pyclass(frozen, module = "anygate")]
pub(crate) struct EarlyHints {
    start_response: Py<StartResponse>,
}

impl EarlyHints {
    /// Puts it into the environ of a request of that version whose client knows interim responses.
    pub(crate) fn offer(
        start_response: &Bound<'_, StartResponse>,
        environ: &Bound<'_, PyDict>,
        version: Version,
    ) -> PyResult<()> {
        let call = &start_response.get().call;
        if version == Version::Http2 && call.response.with(|response| response.offers_interim()) == Some(true)
        {
            let hints = EarlyHints { start_response: start_response.clone().unbind() };
            environ.set_item(intern!(environ.py(), "wsgi.early_hints"), hints)?;
        }
        Ok(())
    }
}

#[pymethods]
impl EarlyHints {
    /// Sends the fields, a list of (name, value) tuples; may be called several times, before the response's head is sent.
    #[pyo3(signature = (headers, /))]
    fn __call__(&self, py: Python<'_>, headers: &Bound<'_, PyAny>) -> PyResult<()> {
        let mut head = ResponseHead::default();
        let line = head.set_status_line(b"103 Early Hints");
        debug_assert!(line.is_ok(), "our own status is valid");
        add_fields(&mut head, headers)?;
        let call = &self.start_response.get().call;
        py.detach(|| call.on_response(|response| response.interim(&head)))
    }
}
