//! What is to be sent, and what is right.

use std::net::SocketAddr;
use std::time::Duration;

/// One kind of request, and the right response to it.
#[derive(Clone, Debug)]
pub struct Request {
    /// Its bytes, as they are sent.
    pub bytes: Vec<u8>,
    /// Status of a right response.
    pub status: u16,
    /// Body of a right response; `None`: it may be any.
    pub body: Option<Vec<u8>>,
}

/// What is to be sent.
#[derive(Clone, Debug)]
pub struct Load {
    /// Address of the server.
    pub address: SocketAddr,
    /// Kinds of requests.
    pub requests: Vec<Request>,
    /// Order in which they are sent, again and again, as places in `requests`; those that are none are left out.
    pub order: Vec<usize>,
    /// Connections, over all threads.
    pub connections: usize,
    /// Threads.
    pub threads: usize,
    /// How long it lasts.
    pub duration: Duration,
    /// Requests per second, over all threads; `None`: each connection sends its next request when it has its response.
    pub rate: Option<f64>,
    /// Connections beside these that send a request slowly, a byte at a time, without end.
    pub slow_clients: usize,
    /// Time after which a request counts as failed.
    pub timeout: Duration,
}
