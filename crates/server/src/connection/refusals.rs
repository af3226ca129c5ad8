//! What is said of clients and front servers that send what cannot be understood.

use std::sync::Once;

use anygate_config::Protocol;
use anygate_proto::application::Endpoints;
use anygate_proto::cgi;

use super::protocol_hint;

/// Said once: a front server may be told to send HTTP_HOST twice.
static SECOND_HOST: Once = Once::new();
/// Said once: a variable would have uWSGI load an application.
static UWSGI_VARIABLE: Once = Once::new();

/// Describes the fault of a peer that breaks the protocol, or uses another one.
pub(super) fn broken(error: &dyn std::error::Error, bytes: &[u8], expected: Protocol) -> String {
    match protocol_hint::advice(bytes, expected) {
        Some(advice) => format!("{error}; {advice}"),
        None => error.to_string(),
    }
}

/// Logs variables that cannot be understood; returns the status.
pub(super) fn refused(error: cgi::Error, ends: &Endpoints) -> u16 {
    tracing::debug!("refused a request from {}: {error}", ends.remote_addr);
    if error == cgi::Error::Host {
        SECOND_HOST.call_once(|| {
            tracing::warn!(
                "a request was refused: {error}; if all are, the front server sets HTTP_HOST twice: \
                 nginx's stock parameters may set it already"
            );
        });
    }
    error.status()
}

/// Says once that a variable has no effect, although uWSGI would load an application for it.
pub(super) fn ignored(name: &str) {
    UWSGI_VARIABLE.call_once(|| {
        tracing::warn!(
            "the front server sets {}, which is ignored: which application runs, and in which folder, is said where anygate is \
             started",
            name.escape_debug()
        );
    });
}

/// Logs a client that sent too much; returns the status. That is not its front server's fault: one that got no response
/// would count this server among the failed ones.
pub(super) fn too_large(error: &dyn std::error::Error, ends: &Endpoints) -> u16 {
    tracing::debug!("refused a request from {}: {error}", ends.remote_addr);
    431
}
