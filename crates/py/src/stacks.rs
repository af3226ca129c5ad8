//! Stacks of this worker's threads. The interpreter shows them; only where it is held by a call that lets no other thread run
//! does a signal's handler look at them from outside, which is safe then because no thread runs Python.

use std::fs::File;
use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use anygate_lock::Mutex;
use anygate_sys::signals;
use pyo3::prelude::*;
use pyo3::types::PyDict;

/// An interpreter that does not let a thread in within this time is held.
const PATIENCE: Duration = Duration::from_secs(1);

/// Takes the stacks of this process.
pub(crate) struct Stacks {
    /// What the signal's handler writes; one at a time.
    outside: Mutex<PipeReader>,
    /// The handler has its number.
    _written: PipeWriter,
}

impl Stacks {
    /// Prepares for taking them from outside.
    ///
    /// Errors: no descriptors are left, or Python cannot register the handler.
    pub(crate) fn new(py: Python<'_>) -> PyResult<Stacks> {
        let (read, write) = io::pipe()?;
        signals::set_nonblocking(read.as_fd())?;
        signals::set_nonblocking(write.as_fd())?;
        let options = PyDict::new(py);
        options.set_item("file", write.as_raw_fd())?;
        options.set_item("all_threads", true)?;
        py.import("faulthandler")?.call_method("register", (signals::stacks(),), Some(&options))?;
        Ok(Stacks { outside: Mutex::new(read), _written: write })
    }

    /// Returns the stacks. It may take a second, and is not to be called attached.
    ///
    /// Errors: there can be no more threads.
    pub(crate) fn take(&self) -> io::Result<String> {
        let (sender, receiver) = mpsc::channel();
        let ask = move || {
            let text = Python::attach(|py| -> PyResult<String> {
                py.import("anygate.stacks")?.call_method0("describe")?.extract()
            });
            // The waiter has given up if it came too late.
            let _ = sender.send(text);
        };
        thread::Builder::new().name("stacks".to_owned()).spawn(ask)?;
        match receiver.recv_timeout(PATIENCE) {
            Ok(text) => text.map_err(|error| io::Error::other(error.to_string())),
            Err(_) => self.take_from_outside(),
        }
    }

    fn take_from_outside(&self) -> io::Result<String> {
        let mut outside = self.outside.lock();
        // Its handler has run when this returns.
        signals::raise_stacks()?;
        let mut bytes = Vec::new();
        match outside.read_to_end(&mut bytes) {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(error),
            _ => Ok(String::from_utf8_lossy(&bytes).into_owned()),
        }
    }

    /// Writes them into `file`, on a thread that is made for it.
    pub(crate) fn write(self: &Arc<Self>, file: &File) {
        let stacks = Arc::clone(self);
        let written = file.try_clone().and_then(|mut file| {
            let work = move || {
                if let Err(error) = stacks.take().and_then(|text| file.write_all(text.as_bytes())) {
                    tracing::warn!("cannot write the stacks of this worker: {error}");
                }
            };
            thread::Builder::new().name("stacks".to_owned()).spawn(work)
        });
        if let Err(error) = written {
            tracing::warn!("cannot write the stacks of this worker: {error}");
        }
    }

    /// Logs that the interpreter has been held for so long, and where, on a thread that is made for it.
    pub(crate) fn log(self: &Arc<Self>, held: Duration) {
        let stacks = Arc::clone(self);
        let work = move || {
            let text = stacks.take().unwrap_or_else(|error| format!("(cannot say where: {error})"));
            tracing::error!(
                "no request can run since {:.0} s, because a call holds the interpreter or greenlets do not take turns; \
                 this worker is replaced when that has been so for worker_timeout:\n{}",
                held.as_secs_f64(),
                text.trim_end()
            );
        };
        if let Err(error) = thread::Builder::new().name("stacks".to_owned()).spawn(work) {
            tracing::warn!("cannot say where this worker is: {error}");
        }
    }
}
