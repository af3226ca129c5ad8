//! The thread that runs a worker, while app threads run its requests: it waits for the worker's end, and enters the
//! application's language once a second and whenever a signal came, so that handlers of the application's own run there. How
//! long it waits to be let in tells whether the interpreter is held by a call that lets no other thread run.

use std::io;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use anygate_lock::Mutex;
use anygate_proto::application::Application;
use anygate_sys::ours::Ours;
use anygate_sys::{Bell, poll};

/// How often it enters without a signal.
const VISIT: Duration = Duration::from_secs(1);

/// Since when the thread waits to be let in, if it does.
#[derive(Default)]
pub(crate) struct Visits(Mutex<Option<Instant>>);

impl Visits {
    /// How long the interpreter has been held.
    pub(crate) fn held(&self) -> Option<Duration> {
        self.0.lock().map(|since| since.elapsed())
    }

    /// Enters the application's language again and again until `end` rings.
    pub(crate) fn run(&self, application: &dyn Application, end: &Bell) {
        if let Err(error) = self.visit(application, end) {
            tracing::error!("the main thread of the worker cannot wait: {error}");
        }
    }

    fn visit(&self, application: &dyn Application, end: &Bell) -> io::Result<()> {
        // The system tells the thread whose child has ended, not this one.
        let signals = Bell::new()?;
        let _marks = [Ours::mark(&signals.as_fd()), Ours::mark(&signals.button())];
        application.tell_signals(signals.button(), false);
        loop {
            poll::wait_any_readable(&[end.as_fd(), signals.as_fd()], Some(VISIT))?;
            if poll::is_readable(end.as_fd()) {
                application.tell_signals(signals.button(), true);
                return Ok(());
            }
            signals.silence()?;
            *self.0.lock() = Some(Instant::now());
            application.run_signal_handlers();
            *self.0.lock() = None;
        }
    }
}
