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
        self.enter(|| application.tell_signals(signals.button(), false));
        loop {
            poll::wait_any_readable(&[end.as_fd(), signals.as_fd()], Some(VISIT))?;
            if poll::is_readable(end.as_fd()) {
                self.enter(|| application.tell_signals(signals.button(), true));
                return Ok(());
            }
            signals.silence()?;
            self.enter(|| application.run_signal_handlers());
        }
    }

    /// Enters the application's language for `work`: app threads run already before the first time.
    fn enter(&self, work: impl FnOnce()) {
        *self.0.lock() = Some(Instant::now());
        work();
        *self.0.lock() = None;
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::BorrowedFd;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use anygate_proto::application::{Failed, LongCall, Request, Response};

    use super::*;

    /// An application that counts the entries in which it finds that the thread is said to wait.
    struct Held {
        visits: Visits,
        known: AtomicUsize,
        end: Bell,
    }

    impl Held {
        fn entered(&self) {
            self.known.fetch_add(self.visits.held().into_iter().count(), Ordering::Relaxed);
        }
    }

    impl Application for Held {
        fn start_thread(&self, _name: &str, _work: Box<dyn FnMut() + Send>) -> io::Result<()> {
            Ok(())
        }

        fn call(&self, _request: Request<'_>, _response: &mut (dyn Response + Send)) -> Result<(), Failed> {
            Ok(())
        }

        fn run_signal_handlers(&self) {
            self.entered();
            self.end.ring().unwrap();
        }

        fn tell_signals(&self, _to: BorrowedFd<'_>, _ends: bool) {
            self.entered();
        }

        fn attend_to(&self, _call: &LongCall) {}
    }

    #[test]
    fn a_thread_that_waits_to_be_let_in_is_known_to_wait_from_its_first_entry_on() {
        let application =
            Held { visits: Visits::default(), known: AtomicUsize::new(0), end: Bell::new().unwrap() };
        application.visits.run(&application, &application.end);
        assert_eq!(application.known.load(Ordering::Relaxed), 3);
        assert_eq!(application.visits.held(), None);
    }
}
