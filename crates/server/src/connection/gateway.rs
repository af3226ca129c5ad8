//! Requests that front servers pack: SCGI and uwsgi packets, FastCGI records.

use anygate_config::Protocol;
use anygate_proto::cgi::Mount;
use anygate_proto::http1::Framing;
use anygate_proto::{cgi, scgi, uwsgi};

use super::fastcgi::Arrived;
use super::refusals::{broken, ignored, refused, too_large};
use super::{Connection, Next, State, refuse};
use crate::exchange::Exchange;
use crate::rules::ReadRules;

impl Connection {
    /// Takes a packet of variables. Returns how much was taken; 0 if more is needed.
    pub(super) fn packet(
        &mut self,
        bytes: &[u8],
        rules: &ReadRules,
        spare: &mut Vec<Box<Exchange>>,
    ) -> Result<usize, Next> {
        let exchange = self.exchange.get_or_insert_with(|| spare.pop().unwrap_or_default());
        let (head, ends) = (&mut exchange.head, &self.endpoints);
        let (consumed, decoded) = if self.protocol == Protocol::Scgi {
            match scgi::decode(bytes, &rules.plan.limits) {
                Ok(Some(packet)) => {
                    (packet.consumed, cgi::decode(packet.variables(), &rules.plan.mount, ends, head))
                }
                Ok(None) => return Ok(0),
                Err(error @ scgi::Error::TooLarge) => return Err(refuse(too_large(&error, ends))),
                Err(error) => return Err(Next::Broken(broken(&error, bytes, self.protocol))),
            }
        } else {
            match uwsgi::decode(bytes, &rules.plan.limits) {
                Ok(Some(uwsgi::Packet::Request { variables, takes_mount, consumed })) => {
                    let mount = match &rules.plan.mount {
                        Mount::Automatic if takes_mount => &Mount::OffPathInfo,
                        mount => mount,
                    };
                    (consumed, cgi::decode(uwsgi::variables(variables), mount, ends, head))
                }
                Ok(Some(uwsgi::Packet::Ping)) => {
                    // A ping only checks that the server is alive; a peer that has gone needs no pong.
                    let _ = self.pipe.stream().send(uwsgi::PONG);
                    return Err(Next::Close);
                }
                Ok(None) => return Ok(0),
                Err(error @ uwsgi::Error::TooLarge) => return Err(refuse(too_large(&error, ends))),
                Err(error) => return Err(Next::Broken(broken(&error, bytes, self.protocol))),
            }
        };
        exchange.set_form(self.protocol);
        let decoded = decoded.map_err(|error| refuse(refused(error, &self.endpoints)))?;
        if let Some(name) = &decoded.ignored {
            ignored(name);
        }
        exchange.endpoints = Some(decoded.endpoints);
        exchange.keep_alive = false;
        let framing = match decoded.length {
            None | Some(0) => Framing::None,
            Some(length) => Framing::Length(length),
        };
        let taken = self.headed(framing, false, bytes.get(consumed..).unwrap_or_default(), rules)?;
        Ok(consumed + taken)
    }

    /// Takes a FastCGI request whose body did not come in time; returns whether there was one.
    pub(crate) fn take_late(&mut self) -> bool {
        let late = self.requests.as_mut().and_then(|requests| requests.take_any());
        let is_late = late.is_some();
        self.exchange = late.or(self.exchange.take());
        is_late
    }

    /// Takes FastCGI records. Returns how much was taken; 0 if more is needed.
    pub(super) fn records(
        &mut self,
        bytes: &[u8],
        rules: &ReadRules,
        spare: &mut Vec<Box<Exchange>>,
    ) -> (usize, Result<(), Next>) {
        let requests = self.requests.get_or_insert_default();
        let (taken, arrived) = match requests.receive(bytes, rules, &self.endpoints, spare) {
            Ok(received) => received,
            Err(error) => return (bytes.len(), Err(Next::Broken(broken(&error, bytes, self.protocol)))),
        };
        self.state = if requests.is_idle() && taken > 0 {
            State::Idle
        } else {
            State::Records { body: requests.has_body() }
        };
        let arrived = match arrived {
            Arrived::Nothing => Ok(()),
            Arrived::Request(exchange) => {
                self.coming = None;
                self.exchange = Some(exchange);
                self.headed(Framing::None, false, &[], rules).map(|_| ())
            }
            Arrived::Refused(exchange, status) => {
                self.exchange = Some(exchange);
                Err(refuse(status))
            }
            // Nothing waits in the outbox between responses, so this goes straight to the socket, and it is far smaller than
            // the socket's own buffer.
            Arrived::Record { record, keep } => match self.pipe.stream().send(&record) {
                Ok(sent) if sent == record.len() && keep => Ok(()),
                _ => Err(Next::Close),
            },
        };
        (taken, arrived)
    }
}
