//! What the service manager is told (sd_notify(3)): that the site serves, reloads and ends, and that the supervisor lives.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::{Duration, Instant};

use anygate_sys::clock;

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
    /// Prepares to tell whoever listens at `address` (NOTIFY_SOCKET), which wants to be told every `watchdog` that the
    /// supervisor lives (WATCHDOG_USEC).
    pub fn new(address: &std::ffi::OsStr, watchdog: Option<Duration>) -> ServiceManager {
        let connect = || {
            let address = match address.as_bytes().strip_prefix(b"@") {
                Some(name) => SocketAddr::from_abstract_name(name)?,
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

    pub(crate) fn serving(&self, workers: usize) {
        self.tell(&format!("READY=1\nSTATUS=Serving with {workers} workers"));
    }

    pub(crate) fn reloading(&self) {
        let now = clock::monotonic().as_micros();
        self.tell(&format!("RELOADING=1\nMONOTONIC_USEC={now}\nSTATUS=Starting new workers"));
    }

    pub(crate) fn stopping(&self) {
        self.tell("STOPPING=1\nSTATUS=Finishing requests");
    }

    /// Tells that the supervisor lives, if it is time; gives how long it will not be.
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
        manager.reloading();
        assert!(heard().starts_with("RELOADING=1\nMONOTONIC_USEC="));
        let now = Instant::now();
        assert_eq!(manager.turn(now), Some(Duration::from_secs(1)));
        assert_eq!(heard(), "WATCHDOG=1");
        assert_eq!(manager.turn(now), Some(Duration::from_secs(1)));
    }
}
