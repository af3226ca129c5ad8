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
use crate::control::{BetterPeer, Peers};
use crate::outbox::Pipe;
use crate::transport::Transport;

/// Maximum connections accepted in one turn; one where another worker could take the next.
const ACCEPTS_PER_TURN: usize = 64;
const ACCEPTS_PER_TURN_SHARED: usize = 1;
/// Number of looks in a row that leave a client to a worker with fewer connections, before this one takes it.
const DEFERRALS_MAX: u32 = 10;
/// The same where the other worker could serve it at once and this one could not.
const DEFERRALS_WHILE_BUSY_MAX: u32 = 500;
/// The same while no worker could serve it at once.
const DEFERRALS_WHILE_ALL_BUSY_MAX: u32 = 5;
/// Time between two such looks.
const DEFERRAL: Duration = Duration::from_millis(1);
/// Time in which the other workers are not waited for after one that let a client wait for so long.
const ALONE: Duration = Duration::from_secs(1);
/// Pause in accepting when the machine has no descriptors or memory left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Time between two messages about that.
const REFUSED_PAUSE: Duration = Duration::from_secs(60);

impl Reactor {
    /// All app threads are busy, or not any more.
    pub(crate) fn set_busy(&mut self, busy: bool) {
        if busy && !self.busy {
            // While they wait, their clients may leave.
            for token in self.ready.tokens() {
                self.watch(token);
            }
        }
        self.busy = busy;
        self.tell_queued();
        let manner = if busy { Manner::Busy } else { Manner::Prompt };
        if self.rules.peers.is_none() || manner == self.acceptance.manner || self.drain.is_some() {
            return;
        }
        self.tell_peers();
        // It is to be woken in another way.
        self.stop_accepting();
        self.acceptance.manner = manner;
        self.acceptance.look_at(self.now);
    }

    /// Tells the other workers how much this one has to do.
    pub(super) fn tell_peers(&self) {
        if let Some(peers) = self.rules.peers.as_deref().filter(|_| self.drain.is_none()) {
            peers.tell(self.clients(), self.is_free());
        }
    }

    /// Number of connections that were accepted.
    pub(super) fn clients(&self) -> usize {
        self.connections.len() - self.streams
    }

    /// Whether a request could begin at once. A connection that is new is about to have one.
    fn is_free(&self) -> bool {
        !self.busy && self.newcomers < self.rules.calls_max
    }

    /// A connection that was new has had a response, or is gone.
    pub(super) fn is_settled(&mut self, token: usize) {
        if let Some(Entry::Here(connection)) = self.connections.get_mut(token)
            && std::mem::take(&mut connection.newcomer)
        {
            self.newcomers -= 1;
            self.tell_peers();
        }
    }

    /// Another worker wants this one to take the clients that wait.
    pub(super) fn accept_all_waiting(&mut self) {
        self.acceptance.until_empty = true;
        self.acceptance.look_at(self.now);
    }

    /// Handles an event of the listeners, or a retry that is due.
    pub(super) fn look_at_listeners(&mut self, event: bool) {
        let due = self.acceptance.due().is_some_and(|at| at <= self.now);
        if !due && !event {
            return;
        }
        let better = self.better_peer();
        let deferrals_max = match better {
            Some(better) if better.free && !self.is_free() => DEFERRALS_WHILE_BUSY_MAX,
            Some(_) => DEFERRALS_MAX,
            // Some other may be about to get free.
            None if self.peers().is_some() && !self.is_free() => DEFERRALS_WHILE_ALL_BUSY_MAX,
            None => 0,
        };
        if self.acceptance.deferrals >= deferrals_max {
            if better.is_some() {
                self.acceptance.alone_until = Some(self.now + ALONE);
            }
            return self.accept(event);
        }
        // Watching again later, it is woken after the others.
        self.stop_accepting();
        if !self.has_waiting_clients() {
            return self.wait_for_connections();
        }
        if let (Some(better), Some(peers)) = (better, self.peers())
            && let Err(error) = peers.ring(better)
        {
            tracing::error!("cannot wake another worker: {error}");
        }
        self.acceptance.deferrals += 1;
        self.acceptance.look_at(self.now + DEFERRAL);
    }

    fn has_waiting_clients(&self) -> bool {
        self.listeners.iter().any(|(_, listener)| poll::is_readable(listener.as_fd()))
    }

    /// The other workers, if there are any now.
    fn peers(&self) -> Option<&dyn Peers> {
        self.rules.peers.as_deref().filter(|peers| peers.are_there())
    }

    /// The worker that should rather take the next client, if one may be waited for.
    pub(super) fn better_peer(&self) -> Option<BetterPeer> {
        if self.acceptance.alone_until.is_some_and(|until| self.now < until) {
            return None;
        }
        self.peers()?.better_than(self.clients(), self.is_free())
    }

    /// No client waits to be accepted: waits for the next one.
    fn wait_for_connections(&mut self) {
        self.acceptance.looked();
        self.acceptance.deferrals = 0;
        self.acceptance.until_empty = false;
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
                    self.acceptance.manner == Manner::Prompt,
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

    /// `announced`: the poll has just announced a client.
    fn accept(&mut self, announced: bool) {
        let most = if self.peers().is_some() { ACCEPTS_PER_TURN_SHARED } else { ACCEPTS_PER_TURN };
        self.accept_up_to(most, self.connections_max, announced);
    }

    /// Before the listeners are closed: takes all clients that wait already, unless other workers may. They are no more than
    /// the system lets wait, and would be lost.
    pub(super) fn accept_last(&mut self) {
        match &self.rules.peers {
            Some(peers) if peers.remain() => self.accept(false),
            _ => self.accept_up_to(usize::MAX, usize::MAX, false),
        }
    }

    fn accept_up_to(&mut self, mut left: usize, connections_max: usize, announced: bool) {
        self.acceptance.looked();
        let mut is_expected = announced && self.listeners.len() == 1;
        for index in 0..self.listeners.len() {
            while left > 0 {
                if self.clients() >= connections_max && self.close_idle() == 0 {
                    // Others may accept; we go on when a connection ends, or has been idle for long enough.
                    self.stop_accepting();
                    self.acceptance.look_at(self.now + ACCEPT_PAUSE);
                    return;
                }
                let Some((protocol, listener)) = self.listeners.get(index) else { return };
                // The system makes a socket before it looks for a client, so that asking first costs less.
                if !std::mem::take(&mut is_expected) && !poll::is_readable(listener.as_fd()) {
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
                        if self.acceptance.refused_at.is_none_or(|at| at + REFUSED_PAUSE <= self.now) {
                            self.acceptance.refused_at = Some(self.now);
                            tracing::warn!("cannot accept connections for now: {error}");
                        }
                        self.close_idle();
                        self.stop_accepting();
                        if let Some(peers) = &self.rules.peers {
                            peers.leave();
                        }
                        self.acceptance.look_at(self.now + ACCEPT_PAUSE);
                        return;
                    }
                }
            }
        }
        if left == 0 && (self.acceptance.until_empty || self.acceptance.deferrals > 0) {
            // The poll may not announce a client that waits already.
            self.acceptance.look_at(self.now);
        } else {
            self.wait_for_connections();
        }
    }

    fn adopt(&mut self, protocol: Protocol, stream: Transport, endpoints: Arc<Endpoints>) {
        if let Some(row) = self.rules.row() {
            row.counts().add(metrics::CONNECTIONS_TOTAL, 1);
        }
        // A router's connections are its clients', whom it has counted.
        let site = self.rules.read.site.as_ref().filter(|_| protocol != Protocol::Routed);
        let permit = match site.map(|site| site.connect(&endpoints)).transpose() {
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
        let preface = protocol == Protocol::Routed
            || (self.rules.read.plan.proxy_protocol && self.rules.read.forwarding.trusts(&endpoints));
        let mut connection = Connection::new(token, Pipe::new(stream), endpoints, protocol, preface);
        connection.permit = permit;
        connection.newcomer = true;
        self.newcomers += 1;
        place.insert(Entry::Here(Box::new(connection)));
        self.deadlines.set_after(token, self.rules.timeouts.header);
        self.tell_peers();
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
