//! The bridge to Python: one request in, one response out, PEP 3333 clause by clause. It knows `proto` and nothing of
//! sockets, threads or processes.
//!
//! * [`application`]: calls the application in a thread, iterates its response, closes it.
//! * [`greenlets`]: the same in steps, for calls in greenlets, which Python runs.
//! * [`stepwise`]: the same for an application under another server, with something of ours in between.
//! * [`call`]: one response while the application gives it. * [`delivery`]: carries what it returned to the response.
//! * [`failures`]: says what went wrong. * [`interrupt`]: breaking off calls that take too long.
//! * [`forks`]: processes that the application forks in a request.
//! * [`environ`]: the dictionary. * [`options`]: what is the same in all of them. * [`input`], [`errors`]: its two streams.
//! * [`ignored_fields`]: tells of fields that get lost on their way.
//! * [`start_response`]: the callable, its rules, and `write()`. * [`early_hints`]: another, for interim responses.
//! * [`file_wrapper`]: files without copying. * [`routes`]: templates of paths.
//! * [`websocket`]: what an application gets for a WebSocket.
//! * [`ffi`]: the only unsafe code: strings as Latin-1, the loan of a response to Python, contexts, forking.

#![deny(unsafe_code)]

mod application;
mod call;
mod delivery;
mod early_hints;
mod environ;
mod errors;
mod failures;
#[expect(unsafe_code, reason = "the one room of this crate that may; each block says why it is sound")]
pub mod ffi;
mod file_wrapper;
mod forks;
mod greenlets;
mod ignored_fields;
mod input;
mod interrupt;
mod options;
mod routes;
mod start_response;
mod stepwise;
mod websocket;

pub use application::WsgiApplication;
pub use call::Lender;
pub use environ::HIDDEN_CLIENT;
pub use errors::ErrorSink;
pub use failures::Page as FailurePage;
pub use file_wrapper::FileWrapper;
pub use greenlets::WsgiHub;
pub use interrupt::say as tell_of_long_call;
pub use options::Options;
pub use stepwise::Steps;
pub use websocket::{WebSocket, WebSocketError};
