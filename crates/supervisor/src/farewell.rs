//! The end of the supervisor, after that of all workers: the assistant may have something to send, and the same signal may come
//! once more.

use std::os::fd::AsFd;
use std::thread;
use std::time::{Duration, Instant};

use anygate_sys::poll;
use anygate_sys::process;
use anygate_sys::signals::Signal;

use crate::children::SAME_SIGNAL;
use crate::notice::Reaping;
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
            let told_again =
                self.signals.take().iter().any(is_impatient) && self.same_signal_until().is_none();
            if left.is_zero() || told_again {
                return;
            }
            // Its end is a signal, too.
            if let Err(error) = poll::wait_any_readable(&[self.signals.as_fd()], Some(left)) {
                return tracing::error!("cannot wait for the assistant: {error}");
            }
        }
    }

    /// How long a signal to end is still the same as the one that has come.
    pub(crate) fn same_signal_until(&self) -> Option<Duration> {
        SAME_SIGNAL.checked_sub(self.told_at?.elapsed())
    }

    /// Waits until a signal to end is another one, which the program in which this runs then takes with handlers of its own.
    pub(crate) fn await_same_signal(&self) {
        if let (Reaping::Own, Some(left)) = (self.reaping, self.same_signal_until()) {
            thread::sleep(left);
        }
    }
}
