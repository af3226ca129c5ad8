//! `wsgi.file_wrapper` (PEP 3333, "Optional Platform-Specific File Handling"): an iterable over a file-like object, and
//! the file behind it when the kernel can send it by itself.

use std::fs::File;
use std::os::unix::fs::MetadataExt;

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::pyclass::{PyTraverseError, PyVisit};
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyTuple, PyType};

use crate::ffi;

/// The wrapper. It is a plain iterable for middleware; returned to the server as it is, its file is sent by the kernel.
#[pyclass(frozen, module = "anygate._anygate")]
pub struct FileWrapper {
    #[pyo3(get)]
    filelike: Py<PyAny>,
    #[pyo3(get)]
    blksize: isize,
    /// Called when the file was closed.
    after: Option<Py<PyAny>>,
}

#[pymethods]
impl FileWrapper {
    /// The names are those of wsgiref.
    #[new]
    #[pyo3(signature = (filelike, blksize = 65536, *, after = None))]
    fn new(filelike: Py<PyAny>, blksize: isize, after: Option<Py<PyAny>>) -> Self {
        FileWrapper { filelike, blksize, after }
    }

    /// A file-like object may know its wrapper. Whatever is between them can be cleared.
    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.filelike)?;
        visit.call(&self.after)
    }

    fn __iter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __next__<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let block = self.filelike.bind(py).call_method1(intern!(py, "read"), (self.blksize,))?;
        Ok(block.is_truthy()?.then_some(block))
    }

    /// Whether the file can be read from another place, which frameworks ask before they send a part of it (RFC 9110
    /// section 14.2): without that they read all that is before the part.
    fn seekable(&self, py: Python<'_>) -> PyResult<bool> {
        let filelike = self.filelike.bind(py);
        match filelike.getattr_opt(intern!(py, "seekable"))? {
            Some(seekable) => seekable.call0()?.is_truthy(),
            None => filelike.hasattr(intern!(py, "seek")),
        }
    }

    #[pyo3(signature = (*arguments))]
    fn seek<'py>(&self, arguments: &Bound<'py, PyTuple>) -> PyResult<Bound<'py, PyAny>> {
        self.filelike.bind(arguments.py()).call_method1(intern!(arguments.py(), "seek"), arguments)
    }

    fn tell<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.filelike.bind(py).call_method0(intern!(py, "tell"))
    }

    fn close(&self, py: Python<'_>) -> PyResult<()> {
        let close = self.filelike.bind(py).getattr_opt(intern!(py, "close"))?;
        let closed = close.map_or(Ok(()), |close| close.call0().map(|_| ()));
        let after = self.after.as_ref().map_or(Ok(()), |after| after.call0(py).map(|_| ()));
        closed.and(after)
    }
}

/// The rest of a regular file.
pub(crate) struct FileRest {
    pub(crate) file: File,
    pub(crate) offset: u64,
    pub(crate) length: u64,
}

/// The classes whose bytes are those of their descriptor. A GzipFile, for one, has a descriptor but other bytes.
static RAW: PyOnceLock<[Py<PyType>; 4]> = PyOnceLock::new();

fn raw_classes(py: Python<'_>) -> PyResult<&[Py<PyType>; 4]> {
    RAW.get_or_try_init(py, || {
        let io = py.import("io")?;
        let class = |module: &Bound<'_, PyModule>, name| -> PyResult<Py<PyType>> {
            Ok(module.getattr(name)?.cast_into::<PyType>()?.unbind())
        };
        Ok([
            class(&io, "FileIO")?,
            class(&io, "BufferedReader")?,
            class(&io, "BufferedRandom")?,
            class(&py.import("tempfile")?, "_TemporaryFileWrapper")?,
        ])
    })
}

impl FileWrapper {
    /// The file from its current position to its end, if it is a regular file of the system; else `None`, and the wrapper
    /// is iterated like any other.
    pub(crate) fn rest(&self, py: Python<'_>) -> PyResult<Option<FileRest>> {
        let [file_io, reader, random, temporary] = raw_classes(py)?;
        let mut filelike = self.filelike.bind(py).clone();
        if filelike.is_exact_instance(temporary.bind(py)) {
            filelike = filelike.getattr(intern!(py, "file"))?;
        }
        let buffered =
            filelike.is_exact_instance(reader.bind(py)) || filelike.is_exact_instance(random.bind(py));
        let raw = if buffered { filelike.getattr(intern!(py, "raw"))? } else { filelike.clone() };
        if !raw.is_exact_instance(file_io.bind(py)) {
            return Ok(None);
        }
        let Some(file) = ffi::duplicate(raw.call_method0(intern!(py, "fileno"))?.extract()?) else {
            return Ok(None);
        };
        let Ok(metadata) = file.metadata() else { return Ok(None) };
        // Files of /proc and /sys are made when they are read: they occupy nothing, and their size, 0 or a page, says nothing.
        let is_made = metadata.blocks() == 0 && metadata.len() <= 4096;
        if !metadata.is_file() || is_made {
            return Ok(None);
        }
        let offset: u64 = filelike.call_method0(intern!(py, "tell"))?.extract()?;
        Ok(Some(FileRest { file, offset, length: metadata.len().saturating_sub(offset) }))
    }
}
