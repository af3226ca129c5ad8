//! A connection whose bytes the application rules: what it writes into its end of a pair of sockets goes to the client, and
//! what the client sends comes out there. A thread carries them, in the clear on one side and through TLS, where it is
//! spoken, on the other. Programs that take a connection over wait for it in a thread of their own anyway.

use std::io::{self, IoSlice, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use anygate_lock::Mutex;
use anygate_sys::poll::{self, Wanted};

use crate::outbox::{Flushed, Pipe, Upgraded};
use crate::request_name::RequestName;
use crate::rules::OutboxRules;

/// Maximum number of bytes carried at once.
const PIECE_BYTES: usize = 16 * 1024;
/// The thread's own need is small.
const STACK_BYTES: usize = 128 * 1024;

/// The connection's side.
pub(crate) struct Relay {
    ours: UnixStream,
    thread: Mutex<Option<JoinHandle<u64>>>,
    /// The call is over: what the application wrote is taken from it at once.
    over: Arc<AtomicBool>,
}

impl Relay {
    /// Starts carrying. Returns the application's end. `early`: what came behind the request.
    ///
    /// Errors: no descriptors or threads are left.
    pub(crate) fn start(
        pipe: &Arc<Pipe>,
        limits: &OutboxRules,
        early: Vec<u8>,
    ) -> io::Result<(Relay, OwnedFd)> {
        let (ours, theirs) = UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        let over = Arc::new(AtomicBool::new(false));
        let carrier = Carrier {
            pipe: Arc::clone(pipe),
            limits: limits.clone(),
            app: ours.try_clone()?,
            over: Arc::clone(&over),
            arrived: early,
            sent_bytes: 0,
        };
        let name = RequestName::current();
        let work = move || name.within(|| carrier.run());
        let thread = thread::Builder::new().name("relay".to_owned()).stack_size(STACK_BYTES).spawn(work)?;
        Ok((Relay { ours, thread: Mutex::new(Some(thread)), over }, theirs.into()))
    }
}

impl Upgraded for Relay {
    /// Tells the application that nothing more comes.
    fn go_away(&self) {
        // It fails where that is so already.
        let _ = self.ours.shutdown(Shutdown::Write);
    }

    /// The call is over: what was written is sent, or waits in the outbox; nothing more is taken. Returns how many bytes the
    /// application sent.
    fn finish(&self, _failed: bool) -> u64 {
        self.over.store(true, Ordering::Release);
        // What was written can still be read; then comes the end, which wakes the thread.
        let _ = self.ours.shutdown(Shutdown::Both);
        let thread = self.thread.lock().take();
        // A panic in there is a fault of ours that ends this connection only.
        thread.and_then(|thread| thread.join().ok()).unwrap_or_default()
    }

    fn lingers(&self) -> bool {
        true
    }
}

struct Carrier {
    pipe: Arc<Pipe>,
    limits: OutboxRules,
    app: UnixStream,
    over: Arc<AtomicBool>,
    /// Of the client, not yet given to the application.
    arrived: Vec<u8>,
    sent_bytes: u64,
}

impl Carrier {
    fn run(mut self) -> u64 {
        let mut piece = vec![0; PIECE_BYTES];
        let mut client_ended = false;
        loop {
            let over = self.over.load(Ordering::Acquire);
            let mut progress = false;
            if !client_ended && self.arrived.is_empty() && !over {
                match self.pipe.stream().recv(&mut piece) {
                    Ok(0) => client_ended = true,
                    Ok(count) => {
                        self.arrived.extend_from_slice(piece.get(..count).unwrap_or_default());
                        progress = true;
                    }
                    Err(error) if is_pause(&error) => {}
                    Err(_) => client_ended = true,
                }
                if client_ended {
                    let _ = self.app.shutdown(Shutdown::Write);
                }
            }
            if !self.arrived.is_empty() {
                match self.app.write(&self.arrived) {
                    Ok(count) => {
                        self.arrived.drain(..count);
                        progress |= count > 0;
                    }
                    Err(error) if is_pause(&error) => {}
                    // The application reads no more.
                    Err(_) => self.arrived = Vec::new(),
                }
            }
            let blocked = match self.pipe.flush() {
                Flushed::Empty => false,
                Flushed::Blocked => true,
                Flushed::Broken => {
                    let _ = self.app.shutdown(Shutdown::Both);
                    return self.sent_bytes;
                }
            };
            // At the end all goes to the outbox, which the reactor sends on.
            if !blocked || over {
                match self.app.read(&mut piece) {
                    Ok(0) => return self.sent_bytes,
                    Ok(count) => {
                        let bytes = piece.get(..count).unwrap_or_default();
                        if self.pipe.send(&mut [IoSlice::new(bytes)], &self.limits).is_err() {
                            let _ = self.app.shutdown(Shutdown::Both);
                            return self.sent_bytes;
                        }
                        self.sent_bytes += count as u64;
                        progress = true;
                    }
                    Err(error) if is_pause(&error) => {}
                    Err(_) => return self.sent_bytes,
                }
            }
            if progress {
                continue;
            }
            let client = Wanted { read: self.arrived.is_empty() && !client_ended, write: blocked };
            let app = Wanted { read: !blocked, write: !self.arrived.is_empty() };
            // Streams of HTTP/2 are not taken over.
            let Some(socket) = self.pipe.stream().socket() else { return self.sent_bytes };
            if let Err(error) = poll::wait_either((socket.as_fd(), client), (self.app.as_fd(), app)) {
                tracing::error!("cannot wait for a connection that was taken over: {error}");
                self.pipe.break_off();
                return self.sent_bytes;
            }
        }
    }
}

fn is_pause(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}
