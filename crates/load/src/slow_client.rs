//! A client that is slow: it sends the beginning of a request, then a byte at a time, and never ends it.

use std::io::{self, Write};
use std::net::SocketAddr;

use mio::net::TcpStream;
use mio::{Interest, Registry, Token};

/// Its request, whose last field goes on.
const BEGINNING: &[u8] = b"GET / HTTP/1.1\r\nHost: localhost\r\nX-Slow: ";

#[derive(Debug, Default)]
pub(crate) struct SlowClient {
    socket: Option<TcpStream>,
    sent: usize,
}

impl SlowClient {
    /// Sends a byte, or connects if it is not connected.
    ///
    /// Errors: this process cannot have another socket.
    pub(crate) fn step(&mut self, registry: &Registry, token: Token, address: SocketAddr) -> io::Result<()> {
        let Some(socket) = &mut self.socket else {
            let mut socket = TcpStream::connect(address)?;
            registry.register(&mut socket, token, Interest::READABLE)?;
            *self = SlowClient { socket: Some(socket), sent: 0 };
            return Ok(());
        };
        let rest = BEGINNING.get(self.sent..).filter(|rest| !rest.is_empty()).unwrap_or(b"x");
        match socket.write(rest) {
            Ok(count) => self.sent += count,
            Err(error) if is_temporary(&error) => {}
            Err(_) => self.socket = None,
        }
        Ok(())
    }

    /// The server has responded, or closed the connection: the next step begins anew.
    pub(crate) fn end(&mut self) {
        self.socket = None;
    }
}

/// Whether the socket may take the byte later.
fn is_temporary(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted | io::ErrorKind::NotConnected
    )
}
