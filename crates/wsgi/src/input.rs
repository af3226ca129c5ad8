//! `wsgi.input`: the request's body as a file (PEP 3333, "Input and Error Streams"). A body was received completely
//! before the application runs, unless its path is streamed; then reading may wait, and a client that breaks off is an
//! OSError, never a short body.

use std::io;

use anygate_lock::Mutex;
use anygate_proto::application::Body;
use pyo3::exceptions::{PyMemoryError, PyOSError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList, PyMemoryView, PySlice, PyTuple};

use crate::ffi;

/// Size of one read for `readline`.
const REFILL_BYTES: usize = 16 * 1024;
/// Maximum size of one read of a body of unknown length.
const PIECE_MAX_BYTES: usize = 1 << 20;

/// Attribute of exceptions that a client's body caused.
const OF_CLIENT: &str = "_anygate_client";

/// The stream; without a body it is always at its end.
#[pyclass(frozen, module = "anygate")]
pub(crate) struct InputStream {
    reader: Option<Mutex<Reader>>,
}

struct Reader {
    body: Box<dyn Body>,
    /// Read from the body and not yet taken: what follows a line.
    buffer: Vec<u8>,
    start: usize,
    /// Bytes that the body still has, if it says.
    left: Option<u64>,
    /// Bytes that the body has given.
    received: u64,
}

impl InputStream {
    pub(crate) fn new(body: Option<Box<dyn Body>>) -> Self {
        let reader = body.map(|body| {
            let left = body.length();
            Mutex::new(Reader { body, buffer: Vec::new(), start: 0, left, received: 0 })
        });
        InputStream { reader }
    }

    /// Runs `work` on the reader; other threads run meanwhile if it may wait for the network.
    fn with<T: Send>(
        &self,
        py: Python<'_>,
        work: impl FnOnce(&mut Reader) -> io::Result<T> + Send,
    ) -> PyResult<Option<T>> {
        let Some(reader) = &self.reader else { return Ok(None) };
        // Waiting for the lock happens detached as well: another thread may hold it while it waits for the network.
        let result = py.detach(|| work(&mut reader.lock()));
        result.map(Some).map_err(|failed| error(py, failed))
    }

    /// All that is left of a body that lies in memory, if so much is asked for and no other thread is reading.
    fn whole<'py>(
        py: Python<'py>,
        reader: &Mutex<Reader>,
        most: Option<usize>,
    ) -> Option<PyResult<Bound<'py, PyBytes>>> {
        let rest = reader.try_lock()?.take_rest(most)?;
        Some(ffi::bytes(py, (*rest).as_ref()))
    }

    fn line<'py>(&self, py: Python<'py>, size: Option<isize>) -> PyResult<Bound<'py, PyBytes>> {
        let most = size.and_then(|size| usize::try_from(size).ok()).unwrap_or(usize::MAX);
        let line = self.with(py, |reader| reader.line(most))?;
        Ok(PyBytes::new(py, line.as_deref().unwrap_or_default()))
    }
}

/// Converts a failure to read the body into an OSError.
fn error(py: Python<'_>, error: io::Error) -> PyErr {
    use io::ErrorKind::WouldBlock;
    use io::ErrorKind::{ConnectionReset, FileTooLarge, InvalidData, OutOfMemory, TimedOut, UnexpectedEof};
    let kind = error.kind();
    let raised = match kind {
        OutOfMemory => PyMemoryError::new_err(()),
        TimedOut | WouldBlock => error.into(),
        _ if error.raw_os_error().is_some() => error.into(),
        _ => PyOSError::new_err(error.to_string()),
    };
    if matches!(kind, ConnectionReset | FileTooLarge | InvalidData | TimedOut | UnexpectedEof) {
        // Without the mark it is logged as a failure of the application, which is harmless.
        let _ = raised.value(py).setattr(intern!(py, OF_CLIENT), true);
    }
    raised
}

/// Whether an exception says that the client did not send the body as it should: the application is not at fault.
pub(crate) fn is_of_client(py: Python<'_>, error: &PyErr) -> bool {
    error.is_instance_of::<PyOSError>(py) && error.value(py).hasattr(intern!(py, OF_CLIENT)).unwrap_or(false)
}

#[pymethods]
impl InputStream {
    #[pyo3(signature = (size = None))]
    fn read<'py>(&self, py: Python<'py>, size: Option<isize>) -> PyResult<Bound<'py, PyBytes>> {
        let most = size.and_then(|size| usize::try_from(size).ok());
        let Some(reader) = &self.reader else { return Ok(PyBytes::new(py, b"")) };
        if let Some(whole) = Self::whole(py, reader, most) {
            return whole;
        }
        // A body that is here is read straight into the object that Python gets.
        let known = {
            let reader = py.detach(|| reader.lock().known());
            reader.map(|known| most.map_or(known, |most| most.min(known)))
        };
        match known {
            Some(length) => {
                PyBytes::new_with(py, length, |bytes| self.with(py, |reader| reader.fill(bytes)).map(|_| ()))
            }
            None => {
                let bytes = self.with(py, |reader| reader.some(most))?;
                Ok(PyBytes::new(py, bytes.as_deref().unwrap_or_default()))
            }
        }
    }

    #[pyo3(signature = (size = None))]
    fn readline<'py>(&self, py: Python<'py>, size: Option<isize>) -> PyResult<Bound<'py, PyBytes>> {
        self.line(py, size)
    }

    #[pyo3(signature = (hint = None))]
    fn readlines<'py>(&self, py: Python<'py>, hint: Option<isize>) -> PyResult<Bound<'py, PyList>> {
        let enough = hint.and_then(|hint| usize::try_from(hint).ok()).filter(|&hint| hint > 0);
        let lines = PyList::empty(py);
        let mut total = 0;
        loop {
            let line = self.line(py, None)?;
            let length = line.as_bytes().len();
            if length == 0 {
                return Ok(lines);
            }
            total += length;
            lines.append(line)?;
            if enough.is_some_and(|enough| total >= enough) {
                return Ok(lines);
            }
        }
    }

    /// Up to `size` bytes, as many as come at once: what `io.TextIOWrapper` reads.
    #[pyo3(signature = (size = None))]
    fn read1<'py>(&self, py: Python<'py>, size: Option<isize>) -> PyResult<Bound<'py, PyBytes>> {
        let most = size.and_then(|size| usize::try_from(size).ok()).unwrap_or(REFILL_BYTES);
        let bytes = self.with(py, |reader| {
            let mut bytes = vec![0; most.min(PIECE_MAX_BYTES)];
            let count = reader.read(&mut bytes)?;
            bytes.truncate(count);
            Ok(bytes)
        })?;
        Ok(PyBytes::new(py, bytes.as_deref().unwrap_or_default()))
    }

    /// Fills a buffer, as far as the body goes; returns how many bytes that are.
    fn readinto(&self, buffer: &Bound<'_, PyAny>) -> PyResult<usize> {
        let py = buffer.py();
        let view = PyMemoryView::from(buffer)?.call_method1(intern!(py, "cast"), ("B",))?;
        let bytes = self.read(py, Some(isize::try_from(view.len()?)?))?;
        let count = bytes.as_bytes().len();
        view.set_item(PySlice::new(py, 0, isize::try_from(count)?, 1), bytes)?;
        Ok(count)
    }

    /// A reader that has met `BlockingIOError` does not go on to wait.
    fn stop_waiting(&self, py: Python<'_>) -> PyResult<()> {
        self.with(py, |reader| {
            reader.body.stop_waiting();
            Ok(())
        })
        .map(|_| ())
    }

    fn readable(&self) -> bool {
        true
    }

    fn writable(&self) -> bool {
        false
    }

    /// The body is read once, from its beginning to its end.
    fn seekable(&self) -> bool {
        false
    }

    #[pyo3(signature = (*arguments))]
    fn seek(&self, arguments: &Bound<'_, PyTuple>) -> PyResult<()> {
        let unsupported = arguments.py().import("io")?.getattr("UnsupportedOperation")?;
        Err(PyErr::from_value(unsupported.call1(("the body of a request cannot be read again",))?))
    }

    /// How many bytes were read.
    fn tell(&self, py: Python<'_>) -> PyResult<u64> {
        let place = self.with(py, |reader| Ok(reader.received - reader.buffered().len() as u64))?;
        Ok(place.unwrap_or_default())
    }

    #[getter]
    fn closed(&self) -> bool {
        false
    }

    /// PEP 3333: the stream is the server's. What wraps it closes it at its own end, which changes nothing.
    fn close(&self) {}

    fn flush(&self) {}

    fn isatty(&self) -> bool {
        false
    }

    fn __enter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    #[pyo3(signature = (*_error))]
    fn __exit__(&self, _error: &Bound<'_, PyTuple>) {}

    fn __iter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __next__<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyBytes>>> {
        let line = self.line(py, None)?;
        Ok((!line.as_bytes().is_empty()).then_some(line))
    }
}

impl Reader {
    /// Bytes that are left, if the body is here completely.
    fn known(&self) -> Option<usize> {
        if self.body.may_block() {
            return None;
        }
        let left = usize::try_from(self.left?).ok()?;
        (self.buffer.len() - self.start).checked_add(left)
    }

    /// All that is left, if it lies in memory and is no more than `most` bytes.
    fn take_rest(&mut self, most: Option<usize>) -> Option<Box<dyn AsRef<[u8]> + Send + Sync>> {
        let known = self.known()?;
        if !self.buffered().is_empty() || most.is_some_and(|most| most < known) {
            return None;
        }
        let rest = self.body.take_rest()?;
        self.count_down(known);
        Some(rest)
    }

    fn buffered(&self) -> &[u8] {
        self.buffer.get(self.start..).unwrap_or_default()
    }

    /// Fills all of `bytes`, of which the body has at least as many.
    fn fill(&mut self, bytes: &mut [u8]) -> io::Result<()> {
        let mut filled = 0;
        while let Some(rest) = bytes.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match self.read(rest)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                count => filled += count,
            }
        }
        Ok(())
    }

    /// Up to `most` bytes, as many as the body has; all of them for `None`.
    fn some(&mut self, most: Option<usize>) -> io::Result<Vec<u8>> {
        let most = most.unwrap_or(usize::MAX);
        let mut bytes = Vec::new();
        if self.buffered().len() <= most {
            self.buffer.drain(..self.start);
            self.start = 0;
            bytes = std::mem::take(&mut self.buffer);
        }
        while bytes.len() < most {
            let begun = bytes.len();
            let piece = begun.clamp(REFILL_BYTES, PIECE_MAX_BYTES).min(most - begun);
            bytes.try_reserve(piece).map_err(|_| io::ErrorKind::OutOfMemory)?;
            bytes.resize(begun + piece, 0);
            let read = self.read(bytes.get_mut(begun..).unwrap_or_default());
            bytes.truncate(begun + read.as_ref().unwrap_or(&0));
            if read.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock) {
                // The rest comes later; what is here is for the next attempt.
                self.buffer = std::mem::take(&mut bytes);
            }
            let count = read?;
            if count == 0 {
                break;
            }
        }
        Ok(bytes)
    }

    /// One line with its line feed, but at most `most` bytes.
    fn line(&mut self, most: usize) -> io::Result<Vec<u8>> {
        let mut searched = 0;
        loop {
            let buffered = self.buffered();
            let fresh = buffered.get(searched..).unwrap_or_default();
            let line = fresh.iter().position(|&byte| byte == b'\n').map(|at| searched + at + 1);
            let length = line.unwrap_or(buffered.len()).min(most);
            searched = buffered.len();
            if line.is_some() || length == most || !self.refill()? {
                let line = self.buffered().get(..length).unwrap_or_default().to_vec();
                self.start += length;
                return Ok(line);
            }
        }
    }

    /// Reads more behind what is buffered; `false` at the end.
    fn refill(&mut self) -> io::Result<bool> {
        if self.start > 0 {
            self.buffer.drain(..self.start);
            self.start = 0;
        }
        let end = self.buffer.len();
        self.buffer.resize(end + REFILL_BYTES, 0);
        let result = self.body.read(self.buffer.get_mut(end..).unwrap_or_default());
        let count = *result.as_ref().unwrap_or(&0);
        self.buffer.truncate(end + count);
        self.count_down(count);
        result.map(|count| count > 0)
    }

    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let mut buffered = self.buffered();
        if !buffered.is_empty() {
            let count = io::Read::read(&mut buffered, bytes)?;
            self.start += count;
            return Ok(count);
        }
        let count = self.body.read(bytes)?;
        self.count_down(count);
        Ok(count)
    }

    fn count_down(&mut self, count: usize) {
        self.received += count as u64;
        if let Some(left) = &mut self.left {
            *left = left.saturating_sub(count as u64);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Slow(&'static [u8], bool);

    impl Body for Slow {
        fn length(&self) -> Option<u64> {
            (!self.1).then_some(self.0.len() as u64)
        }

        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let (now, later) = self.0.split_at(self.0.len().min(buffer.len()).min(3));
            self.0 = later;
            buffer[..now.len()].copy_from_slice(now);
            Ok(now.len())
        }

        fn may_block(&self) -> bool {
            self.1
        }
    }

    #[test]
    fn reading_and_lines_mix_like_in_a_file() {
        Python::initialize();
        Python::attach(|py| {
            for streamed in [false, true] {
                let input = InputStream::new(Some(Box::new(Slow(b"one\ntwo two\n\nlast", streamed))));
                let bytes = |result: PyResult<Bound<'_, PyBytes>>| result.unwrap().as_bytes().to_vec();
                assert_eq!(bytes(input.readline(py, None)), b"one\n");
                assert_eq!(bytes(input.readline(py, Some(2))), b"tw");
                assert_eq!(bytes(input.read(py, Some(3))), b"o t");
                assert_eq!(bytes(input.read(py, Some(0))), b"");
                assert_eq!(bytes(input.readline(py, Some(-1))), b"wo\n");
                assert_eq!(bytes(input.readline(py, Some(0))), b"");
                assert_eq!(input.readlines(py, Some(1)).unwrap().len(), 1);
                assert_eq!(bytes(input.read(py, Some(-1))), b"last");
                assert_eq!(bytes(input.read(py, None)), b"");
                assert!(input.__next__(py).unwrap().is_none());
            }
        });
    }

    #[test]
    fn what_wraps_a_file_can_wrap_the_body() {
        Python::initialize();
        Python::attach(|py| {
            let code = c"
import io
def check(new):
    body = new()
    into = bytearray(6)
    assert (body.readinto(into), into, body.tell()) == (6, b'one\\ntw', 6)
    assert body.readline() == b'o two\\n' and body.tell() == 12
    assert body.read1(2) and not body.seekable() and body.readable() and not body.closed
    try:
        body.seek(0)
    except io.UnsupportedOperation:
        pass
    else:
        raise AssertionError
    text = io.TextIOWrapper(new(), 'ascii')
    assert list(text) == ['one\\n', 'two two\\n', '\\n', 'last']
    assert io.BufferedReader(new()).read() == b'one\\ntwo two\\n\\nlast'
";
            let check =
                PyModule::from_code(py, code, c"check.py", c"check").unwrap().getattr("check").unwrap();
            for streamed in [false, true] {
                let new = pyo3::types::PyCFunction::new_closure(py, None, None, move |arguments, _| {
                    Bound::new(
                        arguments.py(),
                        InputStream::new(Some(Box::new(Slow(b"one\ntwo two\n\nlast", streamed)))),
                    )
                    .map(Bound::unbind)
                });
                check.call1((new.unwrap(),)).unwrap();
            }
        });
    }

    #[test]
    fn a_missing_body_is_at_its_end() {
        Python::initialize();
        Python::attach(|py| {
            let input = InputStream::new(None);
            assert_eq!(input.read(py, Some(7)).unwrap().as_bytes(), b"");
            assert_eq!(input.readline(py, None).unwrap().as_bytes(), b"");
            assert_eq!(input.readlines(py, None).unwrap().len(), 0);
        });
    }
}
