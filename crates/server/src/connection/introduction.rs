//! What comes before the first request: the PROXY preface of a forwarder, or a router's word about its only request.

use std::sync::Arc;

use anygate_config::Protocol;
use anygate_proto::application::Endpoints;
use anygate_proto::{proxy, routed};

use super::{Connection, Next};

impl Connection {
    /// Takes a PROXY preface: the connection's ends are those of the client. Returns how much was taken; 0 if more is needed.
    pub(super) fn introduced(&mut self, bytes: &[u8]) -> Result<usize, Next> {
        if self.protocol == Protocol::Routed {
            let decoded = routed::decode(bytes).map_err(|error| Next::Broken(error.to_string()))?;
            let Some((mut preface, consumed)) = decoded else { return Ok(0) };
            self.preface = false;
            self.endpoints = Arc::new(std::mem::take(&mut preface.endpoints));
            self.routed = Some(Box::new(preface));
            return Ok(consumed);
        }
        let preface = match proxy::decode(bytes) {
            Ok(Some(preface)) => preface,
            Ok(None) => return Ok(0),
            Err(error) => return Err(Next::Broken(error.to_string())),
        };
        self.preface = false;
        self.endpoints = Arc::new(match preface.forwarded {
            Some(forwarded) => {
                let ends = Endpoints::between(forwarded.source, forwarded.destination);
                Endpoints { https: forwarded.https, ..ends }
            }
            None => self.endpoints.of_unnamed_connection(),
        });
        Ok(preface.consumed)
    }
}
