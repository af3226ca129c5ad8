//! Asks the admin addresses of applications with processes of their own, for the assistant of their router.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anygate_admin::AppReport;
use anygate_config::AppRoute;

/// An application that does not respond within this time is left out. Stacks take up to four seconds.
const PATIENCE: Duration = Duration::from_secs(2);
const PATIENCE_OF_ORDERS: Duration = Duration::from_secs(6);
/// Maximum of a response.
const BYTES_MAX: u64 = 8 << 20;

/// Asks all that have an admin address, at the same time.
pub(crate) fn ask(routes: &[AppRoute], method: &str, target: &str) -> Vec<AppReport> {
    let mut routes: Vec<&AppRoute> = routes.iter().collect();
    // One may be at several paths and hosts.
    routes.dedup_by_key(|route| &route.name);
    let watched = routes.into_iter().filter_map(|route| Some((route, route.admin.as_deref()?)));
    thread::scope(|scope| {
        let asked: Vec<_> = watched
            .map(|(route, path)| {
                (route.name.clone(), scope.spawn(move || ask_one(path, method, target).ok()))
            })
            .collect();
        // A thread that panicked has no body.
        asked
            .into_iter()
            .map(|(app, body)| AppReport { app, body: body.join().unwrap_or_default() })
            .collect()
    })
}

/// A body of a response with 2xx.
fn ask_one(path: &Path, method: &str, target: &str) -> io::Result<String> {
    let patience = if method == "GET" { PATIENCE } else { PATIENCE_OF_ORDERS };
    let until = Instant::now() + patience;
    let mut stream = UnixStream::connect(path)?;
    stream.set_write_timeout(Some(patience))?;
    let head = format!(
        "{method} {target} HTTP/1.1\r\nHost: localhost\r\nX-Anygate: 1\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(head.as_bytes())?;
    let (mut bytes, mut block) = (Vec::new(), [0; 16 * 1024]);
    let mut limited = stream.try_clone()?.take(BYTES_MAX);
    loop {
        let rest = until.saturating_duration_since(Instant::now());
        if rest.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        stream.set_read_timeout(Some(rest))?;
        let count = limited.read(&mut block)?;
        if count == 0 {
            break;
        }
        bytes.extend_from_slice(block.get(..count).unwrap_or_default());
    }
    let text = String::from_utf8(bytes).map_err(io::Error::other)?;
    let (head, body) = text.split_once("\r\n\r\n").ok_or(io::ErrorKind::InvalidData)?;
    if !head.starts_with("HTTP/1.1 2") {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    Ok(body.to_owned())
}
