//! A request's wish for a WebSocket, and what became of it.

use std::sync::Arc;

use anygate_proto::websocket::handshake::Offer;

use crate::attention::Attention;
use crate::outbox::Upgraded;

/// A request's wish for a WebSocket, and what became of it.
pub(crate) struct Upgrade {
    pub(crate) offer: Offer,
    /// Where attention is called to data on the connection; set when it leaves the reactor.
    pub(crate) caller: Option<(Arc<Attention>, usize)>,
    /// Bytes that came after the request.
    pub(crate) early: Vec<u8>,
    pub(crate) upgraded: Option<Arc<dyn Upgraded>>,
}

impl Upgrade {
    pub(crate) fn new(offer: Offer) -> Self {
        Upgrade { offer, caller: None, early: Vec::new(), upgraded: None }
    }
}
