//! The FastCGI requests of one connection while they are received, each with its own body.

use anygate_proto::application::Endpoints;
use anygate_proto::cgi;
use anygate_proto::fastcgi::{self, Decoder, Event};

use super::refusals::refused;
use crate::exchange::BodySpool;
use crate::exchange::{Exchange, Form, RequestBody};
use crate::rules::ReadRules;

/// Requests that are not complete.
#[derive(Default)]
pub(crate) struct OpenRequests {
    decoder: Decoder,
    open: Vec<OpenRequest>,
}

struct OpenRequest {
    id: u16,
    exchange: Box<Exchange>,
    spool: BodySpool,
    received: u64,
    announced: Option<u64>,
}

/// Result of taking some bytes.
pub(crate) enum Arrived {
    /// Nothing yet.
    Nothing,
    /// A request is complete.
    Request(Box<Exchange>),
    /// A request gets the error page of this status.
    Refused(Box<Exchange>, u16),
    /// A record is to be sent back; whether the connection stays after it.
    Record { record: Vec<u8>, keep: bool },
}

impl OpenRequests {
    /// Whether nothing is being received.
    pub(crate) fn is_idle(&self) -> bool {
        self.decoder.is_idle()
    }

    /// Whether a body is being received.
    pub(crate) fn has_body(&self) -> bool {
        !self.open.is_empty()
    }

    /// Takes bytes in; returns how many and what came of them. `ends` are those of the connection.
    pub(crate) fn receive(
        &mut self,
        bytes: &[u8],
        rules: &ReadRules,
        ends: &Endpoints,
        spare: &mut Vec<Box<Exchange>>,
    ) -> Result<(usize, Arrived), fastcgi::Error> {
        let (taken, event) = self.decoder.decode(bytes, &rules.plan.limits)?;
        let arrived = match event {
            Event::More => Arrived::Nothing,
            Event::Send { record, keep } => Arrived::Record { record, keep },
            Event::TooLarge { id } => {
                tracing::debug!(
                    "refused a request from {}: too many or too large variables",
                    ends.remote_addr
                );
                let mut exchange: Box<Exchange> = spare.pop().unwrap_or_default();
                exchange.form = Form::FastCgi { id };
                Arrived::Refused(exchange, 431)
            }
            Event::Head { id, keep, variables } => {
                let mut exchange: Box<Exchange> = spare.pop().unwrap_or_default();
                exchange.form = Form::FastCgi { id };
                exchange.keep_alive = keep;
                match cgi::decode(fastcgi::variables(&variables), &rules.plan.mount, ends, &mut exchange.head)
                {
                    Ok(decoded) => {
                        exchange.endpoints = Some(decoded.endpoints);
                        let max = rules.body_max_bytes(&exchange.head);
                        if decoded.length.is_some_and(|length| length > max) {
                            return Ok((taken, Arrived::Refused(exchange, 413)));
                        }
                        let (spool, announced) = (BodySpool::new(decoded.length), decoded.length);
                        self.open.push(OpenRequest { id, exchange, spool, received: 0, announced });
                        Arrived::Nothing
                    }
                    Err(error) => Arrived::Refused(exchange, refused(error, ends)),
                }
            }
            Event::Body { id, data } => self.body(id, bytes.get(data).unwrap_or_default(), rules),
            Event::End { id } => match self.take(id) {
                None => Arrived::Nothing,
                // Less than was announced: the client went away on the way, and the application must not take it for all.
                Some(OpenRequest { exchange, announced: Some(announced), received, .. })
                    if received != announced =>
                {
                    Arrived::Refused(exchange, 400)
                }
                Some(OpenRequest { mut exchange, spool, .. }) => {
                    exchange.body = spool.finish().map_or(RequestBody::None, RequestBody::Received);
                    Arrived::Request(exchange)
                }
            },
            Event::Aborted { id, keep } => {
                self.take(id);
                let mut record = Vec::new();
                fastcgi::encode_end(&mut record, id);
                Arrived::Record { record, keep }
            }
        };
        Ok((taken, arrived))
    }

    fn body(&mut self, id: u16, data: &[u8], rules: &ReadRules) -> Arrived {
        let Some(request) = self.open.iter_mut().find(|request| request.id == id) else {
            return Arrived::Nothing;
        };
        request.received = request.received.saturating_add(data.len() as u64);
        let status = if request.received > rules.body_max_bytes(&request.exchange.head) {
            413
        } else if request.announced.is_some_and(|announced| request.received > announced) {
            400
        } else {
            match request.spool.push(data, &rules.body_memory, rules.plan.temp_dir.as_deref()) {
                Ok(()) => return Arrived::Nothing,
                Err(error) => {
                    tracing::error!("cannot spool a request body to a temporary file: {error}");
                    503
                }
            }
        };
        self.take(id).map_or(Arrived::Nothing, |request| Arrived::Refused(request.exchange, status))
    }

    /// Takes a request that is not complete.
    pub(crate) fn take_any(&mut self) -> Option<Box<Exchange>> {
        self.open.pop().map(|request| request.exchange)
    }

    fn take(&mut self, id: u16) -> Option<OpenRequest> {
        let place = self.open.iter().position(|stream| stream.id == id)?;
        Some(self.open.swap_remove(place))
    }
}
