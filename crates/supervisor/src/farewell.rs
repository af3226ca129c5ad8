//! The end of the assistant, after that of all workers: it may have something to send.

use std::time::Instant;

use anygate_sys::poll;
use anygate_sys::process;
use anygate_sys::signals::Signal;
use std::os::fd::AsFd;

use crate::supervisor::Supervisor;

impl Supervisor<'_> {
    /// Waits for the assistant, which was told to finish, as long as it may take. Another signal to end is obeyed at once.
    pub(crate) fn await_assistant(&mut self) {
        let Some(pid) = self.assistant.as_ref().and_then(|assistant| assistant.pid) else { return };
        let until = Instant::now() + self.body.farewell();
        loop {
            // One that cannot be asked for has ended.
            if !matches!(process::reap_one(pid), Ok(None)) {
                return;
            }
            let left = until.saturating_duration_since(Instant::now());
            let is_impatient = |signal: &Signal| matches!(signal, Signal::Int | Signal::Term | Signal::Quit);
            if left.is_zero() || self.signals.take().iter().any(is_impatient) {
                return;
            }
            // Its end is a signal, too.
            if let Err(error) = poll::wait_any_readable(&[self.signals.as_fd()], Some(left)) {
                return tracing::error!("cannot wait for the assistant: {error}");
            }
        }
    }
}
