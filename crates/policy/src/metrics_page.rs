//! The metrics as a page of the site: at one path, for clients that may see them. What the figures are is handed in.

use std::fmt;
use std::sync::Arc;

use anygate_config::site::{Admitted, MetricsPagePlan};
use anygate_proto::application::Endpoints;
use anygate_proto::head::{RequestHead, ResponseHead};
use anygate_proto::local_host::LocalHosts;

use crate::access_list::AccessList;
use crate::network::Client;

/// Returns the metrics of all processes in Prometheus' text format.
pub type Figures = Arc<dyn Fn() -> String + Send + Sync>;

/// A page with the metrics.
#[derive(Clone)]
pub struct MetricsPage {
    path: String,
    /// Networks whose clients may see it; empty: clients on this machine may.
    allow: AccessList,
    hosts: LocalHosts,
    figures: Figures,
}

impl fmt::Debug for MetricsPage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MetricsPage").field("path", &self.path).finish_non_exhaustive()
    }
}

impl MetricsPage {
    /// `hosts` mean this machine.
    pub fn new(plan: &MetricsPagePlan, hosts: LocalHosts, figures: Figures) -> MetricsPage {
        let admitted = |source| Admitted { prefix: "/".to_owned(), source };
        let allow: Vec<Admitted> = plan.allow.iter().copied().map(admitted).collect();
        MetricsPage { path: plan.path.clone(), allow: AccessList::new(&allow, &[]), hosts, figures }
    }

    /// Whether a request is for this page.
    pub(crate) fn is_asked_for(&self, head: &RequestHead) -> bool {
        head.path() == self.path.as_bytes() && matches!(head.method(), b"GET" | b"HEAD")
    }

    /// Whether the client of a request may see it. `hidden_client`: a proxy is in its place.
    pub(crate) fn is_for(&self, head: &RequestHead, endpoints: &Endpoints, hidden_client: bool) -> bool {
        if self.allow.is_empty() {
            return self.hosts.hold_client(head, endpoints, hidden_client);
        }
        !hidden_client && self.allow.check(head, Client::of(endpoints)).is_ok()
    }

    /// Returns its head and body.
    pub(crate) fn page(&self) -> (ResponseHead, Vec<u8>) {
        let mut head = ResponseHead::new();
        let built = head
            .set_status_line(b"200 OK")
            .and_then(|()| head.push_field(b"Content-Type", b"text/plain; version=0.0.4; charset=utf-8"))
            .and_then(|()| head.push_field(b"Cache-Control", b"no-store"));
        debug_assert!(built.is_ok(), "our own pages are valid");
        (head, (self.figures)().into_bytes())
    }
}
