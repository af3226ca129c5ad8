//! The contract between the server, which owns sockets and time, and an application, which owns everything behind
//! `environ`. `server` calls it, `wsgi` implements it; neither knows the other.

use std::any::Any;
use std::io;
use std::net::IpAddr;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use compact_str::{CompactString, ToCompactString};

use crate::head::{RequestHead, ResponseHead};
use crate::websocket::{Close, Kind, Message};

/// An application that app threads can call.
pub trait Application: Send + Sync {
    /// Starts an app thread, as threads of the application's language are started, and runs `work` on it once. What the
    /// language keeps per thread is made before and freed after, never per request. `work` is dropped when the thread has
    /// left the application for good.
    ///
    /// Errors: there can be no more threads.
    fn start_thread(&self, name: &str, work: Box<dyn FnMut() + Send>) -> io::Result<()>;

    /// Responds to one request, on a thread that [`start_thread`](Self::start_thread) or the application's language
    /// has started.
    ///
    /// An error means that the application failed and that its failure is already in the error log; the server then
    /// responds with 500 if no head was sent, else ends the connection so that the client sees a broken response.
    fn call(&self, request: Request<'_>, response: &mut (dyn Response + Send)) -> Result<(), Failed>;

    /// Enters the application's language for a moment, on the thread that runs the worker, and runs the handlers of signals
    /// that came. It waits as long as a call holds the language's interpreter.
    fn run_signal_handlers(&self);

    /// Has a byte written to `to` whenever a signal came whose handler is to run, whichever thread the system has told; `ends`:
    /// no longer. Called on the thread that runs the worker.
    fn tell_signals(&self, _to: BorrowedFd<'_>, _ends: bool) {}

    /// Tells in the error log where a call is that takes long. One that is overdue is interrupted, and no other: its thread
    /// leaves the application as soon as it can. What the call sends meanwhile goes nowhere. Called on a thread that is
    /// made for it, and may wait.
    fn attend_to(&self, call: &LongCall);
}

/// A call that takes long.
#[derive(Clone)]
pub struct LongCall {
    /// [`Request::number`].
    pub number: u64,
    /// It takes longer than it may, and got its response in place of the application. If not, it is only slow.
    pub is_overdue: bool,
    /// The client's address.
    pub client: String,
    /// Method, printable.
    pub method: String,
    /// Target, printable.
    pub target: String,
    /// How long it has taken.
    pub age: Duration,
    /// For [`within`](Self::within).
    pub scope: Scope,
}

/// Runs what it is given in a place of its own.
pub type Scope = Arc<dyn Fn(&mut dyn FnMut()) + Send + Sync>;

impl LongCall {
    /// As [`Call::within`].
    pub fn within(&self, work: &mut dyn FnMut()) {
        (self.scope)(work);
    }
}

/// An application that has all its calls on one thread, side by side: each of them waits in a way that lets the others
/// go on (greenlets). It finds its calls in a [`HubQueue`] and responds to each through its own [`Call`].
pub trait Hub: Send + Sync {
    /// Responds to calls on the calling thread until the queue is closed. An error was logged where the details were known.
    fn run(&self, queue: Arc<dyn HubQueue>) -> Result<(), Failed>;

    /// As [`Application::attend_to`], if the call is what the hub's thread does now. `false` if it is not: then it waits,
    /// and finds [`News::Long`] in the queue.
    fn attend_to(&self, call: &LongCall) -> bool;
}

/// Where a hub finds what is to be done. Nothing of it waits, and only the hub's thread takes from it.
pub trait HubQueue: Send + Sync {
    /// Readable while there is something to take.
    fn bell(&self) -> BorrowedFd<'_>;

    /// What is to be done next; `None` when there is nothing.
    fn take(&self) -> Option<News>;

    /// Puts [`News::Of`] a number into the queue; from any thread.
    fn tell(&self, number: u64);

    /// How long a client may take to send more of a streamed body.
    fn body_timeout(&self) -> Duration;

    /// Whether the duration of calls is watched.
    fn has_time_limit(&self) -> bool;
}

/// What a hub finds in its queue.
pub enum News {
    /// A request is to get its response.
    Call(Box<dyn Call>),
    /// The call of that number [wanted news](Call::want_news), and now there are some.
    Of(u64),
    /// A call takes long.
    Long(LongCall),
    /// There are no more calls; calls in progress are abandoned.
    Closed,
}

/// One request with its response, in the hands of a hub. A call that is dropped has failed.
///
/// None of it waits: [`Body::read`] gives `WouldBlock` when nothing is there, and a writer asks
/// [`has_room`](Self::has_room) before.
pub trait Call: Response + Send {
    /// Number that no other call of the queue has.
    fn number(&self) -> u64;

    /// The request, until the end of the call. It has its body the first time only.
    fn request(&mut self) -> Option<Request<'_>>;

    /// Whether more may be written without filling the outbox beyond its limit. Also `true` when nothing can be sent any
    /// more: writing says so then.
    fn has_room(&mut self) -> bool;

    /// Puts [`News::Of`] into the queue once, when there may be room, more of the body, or no client any more. To be
    /// followed by another look, since that may be the case already.
    fn want_news(&mut self);

    /// Runs `work` as a part of the call: what it logs is told apart from what others do.
    fn within(&mut self, work: &mut dyn FnMut(&RequestHead)) {
        if let Some(request) = self.request() {
            work(request.head);
        }
    }

    /// Ends the call, as the return of [`Application::call`] does.
    fn finish(self: Box<Self>, result: Result<(), Failed>);
}

/// The application failed, and that was logged where the details were known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failed;

/// One request, complete unless its body is [streamed](Body::may_block).
pub struct Request<'a> {
    /// Method, target and fields.
    pub head: &'a RequestHead,
    /// The body; `None` when there is none (no framing fields, or a length of zero).
    pub body: Option<Box<dyn Body>>,
    /// Addresses of both ends.
    pub endpoints: &'a Endpoints,
    /// Its client is behind a proxy that did not say who it is, or is not believed: `endpoints` have the proxy.
    pub hidden_client: bool,
    /// It asks for a WebSocket in a way that can be accepted; see [`Response::accept_websocket`].
    pub websocket: bool,
    /// Tells it from all others that have a time limit; 0 if it has none.
    pub number: u64,
}

/// What a peer forwards for a client that it does not name: the ends at hand are the peer's own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Unnamed {
    /// Nothing: the ends at hand are the client's, as far as the connection tells.
    #[default]
    Nothing,
    /// Requests, which it has read.
    Requests,
    /// The bytes of a connection (the PROXY protocol's UNKNOWN, LOCAL and UNSPEC): whatever is in them may be the client's
    /// own words.
    Connection,
}

/// The two ends of a connection as text ready for meta-variables (RFC 3875 section 4.1).
#[derive(Debug, Default)]
pub struct Endpoints {
    /// REMOTE_ADDR: an IP address without brackets or zone; `127.0.0.1` for a peer on a unix socket.
    pub remote_addr: CompactString,
    /// REMOTE_PORT: decimal; empty on a unix socket.
    pub remote_port: CompactString,
    /// SERVER_NAME: the local address. It is not taken from the request, which can claim any host.
    pub server_name: CompactString,
    /// SERVER_PORT: decimal.
    pub server_port: CompactString,
    /// The peer is on a unix socket.
    pub unix: bool,
    /// What the peer forwards without a name for its client.
    pub unnamed: Unnamed,
    /// Whether the client spoke TLS, so that the scheme is `https`.
    pub https: bool,
    /// Further facts about the connection, such as SSL_PROTOCOL, by name.
    pub variables: Vec<(&'static str, String)>,
    /// Whether they apply to one request only, not to all requests of a connection.
    pub of_one_request: bool,
    /// What the application keeps for the connection.
    pub kept: PerConnection,
}

impl Endpoints {
    /// Returns the endpoints of a connection on a unix socket.
    pub fn local() -> Self {
        Endpoints {
            remote_addr: CompactString::const_new("127.0.0.1"),
            server_name: CompactString::const_new("localhost"),
            server_port: CompactString::const_new("80"),
            unix: true,
            ..Endpoints::default()
        }
    }

    /// These, of a peer that says that it forwards the connection, and not for whom.
    #[must_use]
    pub fn of_unnamed_connection(&self) -> Self {
        Endpoints {
            remote_addr: self.remote_addr.clone(),
            remote_port: self.remote_port.clone(),
            server_name: self.server_name.clone(),
            server_port: self.server_port.clone(),
            unix: self.unix,
            unnamed: Unnamed::Connection,
            https: self.https,
            variables: self.variables.clone(),
            of_one_request: self.of_one_request,
            kept: PerConnection::default(),
        }
    }

    /// Returns the endpoints of a connection between two addresses with their ports.
    pub fn between(client: (IpAddr, u16), server: (IpAddr, u16)) -> Self {
        Endpoints {
            remote_addr: client.0.to_canonical().to_compact_string(),
            remote_port: client.1.to_compact_string(),
            server_name: server.0.to_canonical().to_compact_string(),
            server_port: server.1.to_compact_string(),
            ..Endpoints::default()
        }
    }
}

/// What an application keeps as long as a connection lives, such as texts that it has converted already.
#[derive(Debug, Default)]
pub struct PerConnection(OnceLock<Box<dyn Any + Send + Sync>>);

impl PerConnection {
    /// What was kept, if it is a `T`.
    pub fn get<T: Any>(&self) -> Option<&T> {
        self.0.get()?.downcast_ref()
    }

    /// Keeps `value`; the first one stays.
    pub fn set<T: Any + Send + Sync>(&self, value: T) {
        self.0.get_or_init(|| Box::new(value));
    }
}

/// A request's body.
pub trait Body: Send {
    /// Bytes in the whole body; `None` when it is streamed and its length is not known (chunked).
    fn length(&self) -> Option<u64>;

    /// Reads into `buffer` as `std::io::Read::read` does: `Ok(0)` is the end of a *complete* body.
    ///
    /// Errors: `UnexpectedEof` when the client went away before the end, `InvalidData` when it broke the framing,
    /// `FileTooLarge` when it sent more than it may, `TimedOut` when it was too slow, `WouldBlock` when nothing is there yet and the reader is a [`Hub`], and whatever reading the spool file
    /// gives.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize>;

    /// A [`Hub`]'s reader, which `read` told to wait, waits no longer: the application's own time is not its client's.
    fn stop_waiting(&mut self) {}

    /// Takes all that was not read, if it lies in memory; it counts as read from then on.
    fn take_rest(&mut self) -> Option<Box<dyn AsRef<[u8]> + Send + Sync>> {
        None
    }

    /// Whether [`read`](Self::read) may wait for the network: then a bridge lets other threads run meanwhile.
    fn may_block(&self) -> bool;
}

/// Bytes that several owners share, and that never change.
pub type SharedBytes = Arc<dyn AsRef<[u8]> + Send + Sync>;

/// Where a response goes. The order of calls is: any number of `interim`, one `start`, then `write`, `flush` and
/// `send_file` in any mix; or `accept_websocket` or `take_over` in place of all these. The server ends the message when [`Application::call`] returns.
pub trait Response {
    /// The application's own code begins now: whatever had to be waited for before it (an interpreter's lock) is had.
    /// The server tells by it how long calls wait in themselves.
    fn entered(&mut self);

    /// Takes the template of the request's path, such as `/users/<id>`, by which requests can be told apart in figures.
    fn set_route(&mut self, _route: &str) {}

    /// Takes the head. `body_length` is the whole body's length in bytes if the application knows it although it set
    /// no Content-Length, so that the message needs no chunks.
    ///
    /// A Content-Length field of the application frames the message: bytes past it are dropped and logged, and a
    /// shorter body ends the connection (RFC 9112 section 6.3). Hop-by-hop fields are the server's to set.
    fn start(&mut self, head: &ResponseHead, body_length: Option<u64>) -> Result<(), SendError>;

    /// Takes bytes of the body, in order. Small ones may wait for [`flush`](Self::flush) or the end of the call.
    fn write(&mut self, bytes: &[u8]) -> Result<(), SendError>;

    /// The same for many bytes that the application lets the server keep as long as their client takes: they need no copy.
    fn write_shared(&mut self, bytes: &SharedBytes) -> Result<(), SendError> {
        self.write((**bytes).as_ref())
    }

    /// Sends what was written. It returns at once: what the client does not take goes to a bounded buffer, then to a
    /// temporary file, and only past the spool's limit does the thread wait (PEP 3333, "Buffering and Streaming"); a
    /// hub's never does.
    fn flush(&mut self) -> Result<(), SendError>;

    /// Instead of [`flush`](Self::flush): whether what was written may wait for what follows it, or for the end of the call.
    /// It may when the server sends it soon even if the call goes on for long. Never waits.
    fn hold_back(&mut self) -> bool;

    /// Whether what is [held back](Self::hold_back) is a whole response.
    fn holds_end(&mut self) -> bool {
        false
    }

    /// Whether the client can get more of the body. It cannot when it is gone, has asked for none (HEAD), the status has none, or the
    /// application gives more than it announced: then the application need not go on (PEP 3333, "Handling the
    /// Content-Length Header": "should stop iterating over the response when enough data has been sent").
    fn wants_more(&mut self) -> bool {
        true
    }

    /// Ends the message, which is whole, although the call goes on: its client need not wait for the rest of the call.
    fn conclude(&mut self) -> Result<(), SendError> {
        self.flush()
    }

    /// Sends `length` bytes of `file` from `offset`; a file that turns out shorter ends the connection.
    fn send_file(&mut self, file: OwnedFd, offset: u64, length: u64) -> Result<(), SendError>;

    /// Sends an interim response, for example 103 (RFC 9110 section 15.2). Nothing happens for HTTP/1.0 clients.
    fn interim(&mut self, head: &ResponseHead) -> Result<(), SendError>;

    /// Whether an application may send interim responses: some clients of HTTP/1.1 take them for the response.
    fn offers_interim(&self) -> bool {
        false
    }

    /// Accepts the WebSocket that the request asks for, in place of `start`: from now on until the call ends the
    /// connection is a WebSocket. `head` has fields to add (its status is not looked at), `protocol` is one of those that
    /// the client named.
    ///
    /// Errors: the request asks for none, or names no such protocol; then an ordinary response is still possible.
    fn accept_websocket(
        &mut self,
        _head: &ResponseHead,
        _protocol: Option<&[u8]>,
    ) -> Result<Arc<dyn Socket>, SendError> {
        Err(SendError::NoWebSocket)
    }

    /// Hands the connection's bytes over as they are, in place of `start`, for a program that accepts the WebSocket itself.
    /// What is written into the socket goes to the client, and the other way; the call's end ends both.
    ///
    /// Errors: the request asks for no WebSocket, or there are no descriptors left.
    fn take_over(&mut self) -> Result<OwnedFd, SendError> {
        Err(SendError::NoWebSocket)
    }

    /// Whether `start` was called, or what stands in its place, so that a status can no longer be changed.
    fn started(&self) -> bool;

    /// How many bytes of body were taken so far, before dropping any for HEAD.
    fn body_bytes(&self) -> u64;
}

/// An accepted WebSocket. It lives as long as its call: afterwards it is closed, even if it is still referred to. The server
/// responds to pings and notices closes, whether or not the application receives.
pub trait Socket: Send + Sync {
    /// Sends a message. It waits while the client is too slow to take what was sent before.
    ///
    /// Errors: the WebSocket is closed.
    fn send(&self, kind: Kind, data: &[u8]) -> Result<(), SendError>;

    /// Sends a ping with at most 125 bytes. Its pong is the server's affair.
    ///
    /// Errors: the WebSocket is closed.
    fn ping(&self, payload: &[u8]) -> Result<(), SendError>;

    /// The next message, if there is one. Never waits.
    fn try_receive(&self) -> Received;

    /// Waits until [`try_receive`](Self::try_receive) has something to give; `false` when `longest` passed first.
    fn wait(&self, longest: Option<Duration>) -> bool;

    /// Has `news` called whenever `try_receive` may give something new, by any thread; once now if it already may. It must
    /// not wait, in particular not for an interpreter's lock.
    fn on_news(&self, news: Box<dyn Fn() + Send + Sync>);

    /// Sends a close, unless one was sent; what was received and not taken is dropped. Never waits.
    fn close(&self, code: u16, reason: &str);

    /// Whether nothing more can be sent.
    fn is_closed(&self) -> bool;

    /// The subprotocol that was agreed on.
    fn protocol(&self) -> Option<&[u8]>;
}

/// Result of receiving from a WebSocket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Received {
    /// A message.
    Message(Message),
    /// Nothing yet.
    Nothing,
    /// Nothing any more; 1006 where the client was lost without a close.
    Closed(Close),
}

/// Why a response cannot be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SendError {
    /// The client went away, was too slow, or the connection broke. Not the application's fault; end quietly.
    Disconnected,
    /// The application's own Content-Length is not a number, is repeated with another value, or was exceeded.
    ContentLength,
    /// The calls came in the wrong order.
    Order,
    /// The spool could not be written (disk full).
    Spool,
    /// The request asks for no WebSocket.
    NoWebSocket,
    /// The client named no such subprotocol.
    Subprotocol,
}

impl std::fmt::Display for SendError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            SendError::Disconnected => "the client disconnected",
            SendError::ContentLength => {
                "the application's Content-Length is invalid or shorter than its body"
            }
            SendError::Order => "the response was used out of order",
            SendError::Spool => "the response could not be spooled to a temporary file",
            SendError::NoWebSocket => "the request asks for no WebSocket",
            SendError::Subprotocol => "the client named no such subprotocol",
        })
    }
}

impl std::error::Error for SendError {}
