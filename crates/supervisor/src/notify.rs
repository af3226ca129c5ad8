//! What the service manager is told (sd_notify(3)): that the site serves, reloads and ends, and that the supervisor lives.

use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::{Duration, Instant};

use anygate_sys::{clock, stream};

/// Time beyond a limit in which the supervisor enforces it and ends itself.
const MARGIN: Duration = Duration::from_secs(10);

/// The service manager, if there is one that wants to be told.
#[derive(Debug, Default)]
pub struct ServiceManager {
    socket: Option<UnixDatagram>,
    /// It is told at least this often that the supervisor lives,
    interval: Option<Duration>,
    /// next then.
    next: Option<Instant>,
}

impl ServiceManager {
    /// Prepares to notify the manager at `address` (NOTIFY_SOCKET), which wants to be told every `watchdog` that the
    /// supervisor lives (WATCHDOG_USEC).
    pub fn new(address: &std::ffi::OsStr, watchdog: Option<Duration>) -> ServiceManager {
        let connect = || {
            let address = match address.as_bytes().strip_prefix(b"@") {
                Some(name) => stream::abstract_address(name)?,
                None => SocketAddr::from_pathname(address)?,
            };
            let socket = UnixDatagram::unbound()?;
            socket.connect_addr(&address)?;
            socket.set_nonblocking(true)?;
            Ok(socket)
        };
        match connect() {
            Ok(socket) => {
                // Half of it, as sd_watchdog_enabled(3) recommends.
                let interval = watchdog.map(|watchdog| watchdog / 2);
                ServiceManager { socket: Some(socket), interval, next: interval.map(|_| Instant::now()) }
            }
            Err(error) => {
                let error: std::io::Error = error;
                tracing::warn!("cannot tell the service manager at NOTIFY_SOCKET {address:?}: {error}");
                ServiceManager::default()
            }
        }
    }

    /// The first workers start, for at most so long.
    pub(crate) fn starting(&self, limit: Duration) {
        self.tell(&format!("STATUS=Starting workers\n{}", extension(limit)));
    }

    pub(crate) fn serving(&self, workers: usize) {
        self.tell(&format!("READY=1\nSTATUS=Serving with {workers} workers"));
    }

    /// The number of workers has changed.
    pub(crate) fn scaled(&self, workers: usize) {
        self.tell(&format!("STATUS=Serving with {workers} workers"));
    }

    /// New workers start beside the old ones, for at most so long.
    pub(crate) fn reloading(&self, limit: Duration) {
        let now = clock::monotonic().as_micros();
        let extension = extension(limit);
        self.tell(&format!("RELOADING=1\nMONOTONIC_USEC={now}\nSTATUS=Starting new workers\n{extension}"));
    }

    /// Balancers are told of the end for `delay`; then requests finish, for at most `limit`.
    pub(crate) fn leaving(&self, delay: Duration, limit: Duration) {
        let extension = extension(delay.saturating_add(limit));
        self.tell(&format!(
            "STOPPING=1\nSTATUS=Serving until balancers know of the end ({delay:?})\n{extension}"
        ));
    }

    /// Requests finish, for at most so long.
    pub(crate) fn stopping(&self, limit: Duration) {
        self.tell(&format!("STOPPING=1\nSTATUS=Finishing requests\n{}", extension(limit)));
    }

    /// Tells that the supervisor lives, if it is time; returns how long it will not be.
    pub(crate) fn turn(&mut self, now: Instant) -> Option<Duration> {
        let (interval, next) = (self.interval?, self.next?);
        if next > now {
            return Some(next - now);
        }
        self.tell("WATCHDOG=1");
        self.next = Some(now + interval);
        Some(interval)
    }

    fn tell(&self, text: &str) {
        let Some(socket) = &self.socket else { return };
        if let Err(error) = socket.send(text.as_bytes()) {
            tracing::warn!("cannot tell the service manager {text:?}: {error}");
        }
    }
}

/// Asks for so much time, and a little more: a service manager must not cut off what has a limit of its own.
fn extension(limit: Duration) -> String {
    format!("EXTEND_TIMEOUT_USEC={}", limit.saturating_add(MARGIN).as_micros())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_manager_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let listener = UnixDatagram::bind(&path).unwrap();
        let mut manager = ServiceManager::new(path.as_os_str(), Some(Duration::from_secs(2)));
        let heard = || {
            let mut bytes = [0; 256];
            let count = listener.recv(&mut bytes).unwrap();
            String::from_utf8_lossy(&bytes[..count]).into_owned()
        };
        manager.serving(3);
        assert_eq!(heard(), "READY=1\nSTATUS=Serving with 3 workers");
        manager.starting(Duration::from_secs(60));
        assert_eq!(heard(), "STATUS=Starting workers\nEXTEND_TIMEOUT_USEC=70000000");
        manager.reloading(Duration::MAX);
        assert!(heard().starts_with("RELOADING=1\nMONOTONIC_USEC="));
        let now = Instant::now();
        assert_eq!(manager.turn(now), Some(Duration::from_secs(1)));
        assert_eq!(heard(), "WATCHDOG=1");
        assert_eq!(manager.turn(now), Some(Duration::from_secs(1)));
    }
}
