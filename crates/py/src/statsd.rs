//! Sends metrics to a StatsD server, from one process for all; their lines are `anygate_admin`'s.

use std::net::{ToSocketAddrs, UdpSocket};
use std::sync::Arc;
use std::time::Duration;
use std::{io, thread};

use anygate_admin::Statsd;
use anygate_config::StatsdPlan;
use anygate_lock::Mutex;
use anygate_policy::metrics::Totals;

/// How often metrics are sent to StatsD, as its own server flushes.
const PUSH: Duration = Duration::from_secs(10);

/// Returns the numbers of all processes; `None`: another process sends them.
pub(crate) type Figures = Box<dyn Fn() -> Option<Totals> + Send + Sync>;

/// Sender of metrics to a StatsD server.
pub(crate) struct Push {
    plan: StatsdPlan,
    figures: Figures,
    /// What was sent, as long as this process sends.
    statsd: Mutex<Option<Statsd>>,
}

impl Push {
    /// Starts the thread that sends. What is counted from now on is sent.
    ///
    /// Errors: it cannot be started.
    pub(crate) fn start(plan: StatsdPlan, figures: Figures) -> io::Result<Arc<Push>> {
        let push = Arc::new(Push { plan, figures, statsd: Mutex::default() });
        push.packets();
        let sender = Arc::clone(&push);
        let work = move || {
            loop {
                thread::sleep(PUSH);
                sender.send();
            }
        };
        thread::Builder::new().name("statsd".to_owned()).spawn(work)?;
        Ok(push)
    }

    /// Sends what has changed.
    pub(crate) fn send(&self) {
        if let Err(error) = self.try_send(&self.packets()) {
            tracing::warn!("cannot send metrics to {}:{}: {error}", self.plan.host, self.plan.port);
        }
    }

    fn packets(&self) -> Vec<String> {
        let mut statsd = self.statsd.lock();
        let Some(now) = (self.figures)() else {
            *statsd = None;
            return Vec::new();
        };
        match &mut *statsd {
            Some(statsd) => statsd.packets(&now),
            None => {
                *statsd = Some(Statsd::new(self.plan.prefix.clone(), self.plan.tags, &now));
                Vec::new()
            }
        }
    }

    fn try_send(&self, packets: &[String]) -> io::Result<()> {
        if packets.is_empty() {
            return Ok(());
        }
        let mut addresses = (self.plan.host.as_str(), self.plan.port).to_socket_addrs()?;
        let address = addresses.next().ok_or_else(|| io::Error::other("the name has no address"))?;
        let socket = UdpSocket::bind(if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" })?;
        packets.iter().try_for_each(|packet| socket.send_to(packet.as_bytes(), address).map(|_| ()))
    }
}
