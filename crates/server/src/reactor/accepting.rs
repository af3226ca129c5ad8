//! Taking in connections: as many as there is room for, and leaving them to other workers while this one is busy.

use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;
use std::time::Duration;

use anygate_config::Protocol;
use anygate_policy::metrics;
use anygate_proto::application::Endpoints;
use anygate_sys::{Address, Stream, poll};
use mio::unix::SourceFd;

use super::acceptance::Manner;
use super::{Entry, LISTENERS, Reactor};
use crate::connection::Connection;
use crate::control::Peers;
use crate::outbox::Pipe;
use crate::transport::Transport;

/// Maximum connections accepted in one turn; one where another worker could take the next.
const ACCEPTS_PER_TURN: usize = 64;
const ACCEPTS_PER_TURN_SHARED: usize = 1;
/// Deferring accepts: number of looks in a row that still found clients waiting, after which a busy worker takes them.
const LOOKS: u32 = 5;
/// The same while another worker has an idle thread. One that takes no client for so long is not waited for again.
const LOOKS_AT_IDLE_PEERS: u32 = 500;
/// Time between two such looks.
const DEFERRAL: Duration = Duration::from_millis(1);
/// Pause in accepting when the machine has no descriptors or memory left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

impl Reactor {
    /// All app threads are busy, or not any more. Where other workers share the listeners, a busy one takes only what nobody
    /// else takes, so that a connection goes to a worker that can serve it at once.
    pub(crate) fn set_busy(&mut self, busy: bool) {
        self.busy = busy;
        self.tell_queued();
        let Some(peers) = &self.rules.peers else { return };
        if busy == self.acceptance.defers() || self.drain.is_some() {
            return;
        }
        peers.set_idle(!busy);
        // It is to be woken in another way.
        self.stop_accepting();
        self.acceptance.manner = if busy { Manner::Deferring { looks: 0 } } else { Manner::Prompt };
        self.acceptance.look_at(self.now);
    }

    /// Handles an event of the listeners, or a retry that is due.
    pub(super) fn look_at_listeners(&mut self, event: bool) {
        let due = self.acceptance.due().is_some_and(|at| at <= self.now);
        match self.acceptance.manner {
            _ if !due && !event => {}
            Manner::Deferring { looks } if self.is_patient(looks) => {
                self.stop_accepting();
                if self.listeners.iter().any(|(_, listener)| poll::is_readable(listener.as_fd())) {
                    self.acceptance.manner = Manner::Deferring { looks: looks + 1 };
                    self.acceptance.look_at(self.now + DEFERRAL);
                } else {
                    self.wait_for_connections();
                }
            }
            Manner::Deferring { .. } | Manner::Prompt => self.accept(),
        }
    }

    /// The other workers, if there are any now.
    fn peers(&self) -> Option<&dyn Peers> {
        self.rules.peers.as_deref().filter(|peers| peers.are_there())
    }

    /// Whether another worker may still take the connections that were seen so often.
    fn is_patient(&self, looks: u32) -> bool {
        self.peers().is_some_and(|peers| looks < LOOKS || looks < LOOKS_AT_IDLE_PEERS && peers.any_idle())
    }

    fn wait_for_connections(&mut self) {
        self.acceptance.looked();
        if let Manner::Deferring { looks } = &mut self.acceptance.manner
            && *looks < LOOKS_AT_IDLE_PEERS
        {
            *looks = 0;
        }
        if self.drain.is_none()
            && let Err(error) = self.start_accepting()
        {
            tracing::error!("cannot watch the listeners: {error}");
            self.acceptance.look_at(self.now + ACCEPT_PAUSE);
        }
    }

    /// A connection has ended: if there was no room for more, there is now.
    pub(super) fn accept_again(&mut self) {
        if !self.acceptance.is_watching() && self.drain.is_none() {
            let at = self.acceptance.due().map_or(self.now, |at| at.min(self.now + ACCEPT_PAUSE));
            self.acceptance.look_at(at);
        }
    }

    pub(super) fn start_accepting(&mut self) -> io::Result<()> {
        if !self.acceptance.is_watching() {
            for (index, (_, listener)) in self.listeners.iter().enumerate() {
                poll::register_listener(
                    self.poll.registry().as_fd(),
                    listener.as_fd(),
                    (LISTENERS + index) as u64,
                    // A worker that defers is woken too, but in no other's place.
                    !self.acceptance.defers(),
                )?;
            }
            self.acceptance.set_watching(true);
        }
        Ok(())
    }

    pub(super) fn stop_accepting(&mut self) {
        if self.acceptance.is_watching() {
            for (_, listener) in &self.listeners {
                if let Err(error) = self.poll.registry().deregister(&mut SourceFd(&listener.as_raw_fd())) {
                    tracing::error!("cannot stop watching {}: {error}", listener.local());
                }
            }
            self.acceptance.set_watching(false);
        }
    }

    fn accept(&mut self) {
        self.accept_up_to(if self.peers().is_some() { ACCEPTS_PER_TURN_SHARED } else { ACCEPTS_PER_TURN });
    }

    /// Before the listeners are closed: takes everybody who waits already, unless there are others who may.
    pub(super) fn accept_last(&mut self) {
        match &self.rules.peers {
            Some(peers) if peers.remain() => self.accept(),
            _ => self.accept_up_to(usize::MAX),
        }
    }

    fn accept_up_to(&mut self, mut left: usize) {
        self.acceptance.looked();
        for index in 0..self.listeners.len() {
            while left > 0 {
                if self.connections.len() - self.streams >= self.connections_max {
                    // Others may accept; we go on when a connection ends.
                    self.stop_accepting();
                    return;
                }
                let Some((protocol, listener)) = self.listeners.get(index) else { return };
                // The system makes a socket before it looks whether somebody wants it, so that asking first costs less.
                if !poll::is_readable(listener.as_fd()) {
                    break;
                }
                match listener.accept() {
                    Ok((stream, peer)) => {
                        left -= 1;
                        let protocol = *protocol;
                        let tls = self.rules.tls.as_ref().filter(|_| protocol == Protocol::Https);
                        let endpoints = match &peer {
                            Address::Unix(_) if tls.is_none() => Arc::clone(&self.local),
                            peer => Arc::new(Endpoints {
                                https: tls.is_some(),
                                ..endpoints(&stream, peer, listener.local())
                            }),
                        };
                        let transport = match tls {
                            None => Ok(Transport::Plain(stream)),
                            Some(tls) => Transport::secured(stream, tls),
                        };
                        let transport = match transport {
                            Ok(transport) => transport,
                            Err(error) => {
                                tracing::error!("cannot begin TLS: {error}");
                                continue;
                            }
                        };
                        self.adopt(protocol, transport, endpoints);
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    // The client gave up before we came to it (accept(2), "Error handling").
                    Err(error) if is_clients_fault(&error) => left -= 1,
                    Err(error) => {
                        tracing::warn!("cannot accept connections for now: {error}");
                        self.stop_accepting();
                        self.acceptance.look_at(self.now + ACCEPT_PAUSE);
                        return;
                    }
                }
            }
        }
        if left == 0 && self.acceptance.defers() {
            // Nobody else wants the next either.
            self.acceptance.look_at(self.now);
        } else {
            self.wait_for_connections();
        }
    }

    fn adopt(&mut self, protocol: Protocol, stream: Transport, endpoints: Arc<Endpoints>) {
        if let Some(row) = self.rules.row() {
            row.counts().add(metrics::CONNECTIONS_TOTAL, 1);
        }
        let permit = match self.rules.read.site.as_ref().map(|site| site.connect(&endpoints)).transpose() {
            Ok(permit) => permit.flatten(),
            Err(_) => {
                if let Some(row) = self.rules.row() {
                    row.counts().add(metrics::REJECTED, 1);
                }
                let reason = "its address has as many connections as connections_per_client_max allows";
                return self.peer_warnings.add(self.now, &endpoints, reason);
            }
        };
        let place = self.connections.vacant_entry();
        let token = place.key();
        let preface = self.rules.read.proxy_protocol && self.rules.read.forwarding.trusts(&endpoints);
        let mut connection = Connection::new(token, Pipe::new(stream), endpoints, protocol, preface);
        connection.permit = permit;
        place.insert(Entry::Here(Box::new(connection)));
        self.deadlines.set(token, Some(self.now + self.rules.timeouts.header));
        if protocol == Protocol::Https {
            // The first word of a handshake comes later.
            return self.watch(token);
        }
        // Most clients have sent their request by now, and those of gateways close after its response: they need no watching.
        self.read(token);
    }
}

fn is_clients_fault(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::Interrupted
    )
}

/// The meta-variables of a connection. A peer on a unix socket is this machine itself.
fn endpoints(stream: &Stream, peer: &Address, listening: &Address) -> Endpoints {
    let (Address::Inet(peer), Address::Inet(listening)) = (peer, listening) else {
        return Endpoints::local();
    };
    let server = match listening.ip().is_unspecified().then(|| stream.local()) {
        Some(Ok(Address::Inet(local))) => local,
        _ => *listening,
    };
    Endpoints::between((peer.ip(), peer.port()), (server.ip(), server.port()))
}
