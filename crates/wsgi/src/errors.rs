//! `wsgi.errors`: text that the application writes goes to the error log as it is.

use std::sync::Arc;

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
    #[expect(clippy::unused_self, reason = "the protocol wants a method")]
    fn flush(&self) {}
}
