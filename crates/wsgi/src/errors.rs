//! `wsgi.errors`: text that the application writes goes to the error log as it is. It has what text files have, since
//! loggers and terminal libraries ask for it.

use std::sync::Arc;

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyString;

/// Takes text for the error log.
pub type ErrorSink = Arc<dyn Fn(&str) + Send + Sync>;

/// The stream (PEP 3333, "Input and Error Streams").
#[pyclass(frozen, module = "anygate")]
pub(crate) struct ErrorStream {
    sink: ErrorSink,
}

impl ErrorStream {
    pub(crate) fn new(sink: ErrorSink) -> Self {
        ErrorStream { sink }
    }
}

#[expect(clippy::unused_self, reason = "the protocol wants methods")]
#[pymethods]
impl ErrorStream {
    fn write(&self, text: &Bound<'_, PyString>) -> PyResult<usize> {
        let (sink, owned) = (&self.sink, text.to_string_lossy());
        let lossy: &str = &owned;
        text.py().detach(|| sink(lossy));
        text.len()
    }

    fn writelines(&self, lines: &Bound<'_, PyAny>) -> PyResult<()> {
        for line in lines.try_iter()? {
            self.write(line?.cast::<PyString>()?)?;
        }
        Ok(())
    }

    /// Nothing waits here.
    fn flush(&self) {}

    /// PEP 3333: "applications must not close" it; what wraps it does so at its own end, which changes nothing.
    fn close(&self) {}

    #[getter]
    fn closed(&self) -> bool {
        false
    }

    #[getter]
    fn encoding(&self) -> &str {
        "utf-8"
    }

    /// What has no place in the encoding is replaced.
    #[getter]
    fn errors(&self) -> &str {
        "replace"
    }

    #[getter]
    fn name(&self) -> &str {
        "<wsgi.errors>"
    }

    #[getter]
    fn mode(&self) -> &str {
        "w"
    }

    fn isatty(&self) -> bool {
        false
    }

    fn readable(&self) -> bool {
        false
    }

    fn writable(&self) -> bool {
        true
    }

    fn seekable(&self) -> bool {
        false
    }

    /// Errors: always; the text of many requests goes through one log.
    fn fileno(&self, py: Python<'_>) -> PyResult<()> {
        let unsupported = py.import("io")?.getattr(intern!(py, "UnsupportedOperation"))?;
        Err(PyErr::from_value(unsupported.call1(("wsgi.errors has no descriptor of its own",))?))
    }
}
