//! What is decided when the head of a request is complete: where the application is mounted, who the client is, and whether
//! the site admits the request or responds itself.

use std::sync::Once;
use std::sync::atomic::Ordering;
use std::time::SystemTime;

use anygate_config::Protocol;
use anygate_policy::forwarded::Applied;
use anygate_policy::policies::{self, Admission, OwnResponse};
use anygate_policy::proxy_queue::proxy_queue;
use anygate_proto::application::Endpoints;
use anygate_proto::cgi::{self, Mount};
use anygate_proto::error::InvalidHead;
use anygate_proto::head::RequestHead;
use anygate_proto::routed::Preface;
use anygate_proto::websocket::handshake::{Offer, Refusal};

use super::{Admitted, Exchange, Form};
use crate::redirect::to_https;
use crate::rules::ReadRules;
use crate::websocket::Upgrade;

/// Said once: a proxy may be in front that the settings do not name.
static UNTRUSTED: Once = Once::new();
/// Said once: a page of a friend may want to open WebSockets.
static FOREIGN: Once = Once::new();

/// A response that is sent in place of calling the application.
#[derive(Debug)]
pub(crate) enum EarlyResponse {
    /// The error page of this status; the connection closes.
    Error(u16),
    /// A redirect of this status to this place; the connection closes.
    Redirect(u16, String),
    /// What the site responds; another request may follow if the exchange says so.
    Site(Box<OwnResponse>),
}

impl Exchange {
    /// Takes the mount point off the path of HTTP; gateways say both.
    pub(crate) fn mount(&mut self, at: &Mount) -> Result<(), EarlyResponse> {
        if let (Mount::At(prefix), Form::Http | Form::Http2) = (at, self.form) {
            mount(&mut self.head, prefix).map_err(|_| EarlyResponse::Error(431))?;
        }
        Ok(())
    }

    /// Takes over what a router has decided about the request.
    pub(crate) fn take_over(&mut self, preface: &Preface) -> Result<(), EarlyResponse> {
        self.hidden_client = preface.hidden_client;
        preface.apply(&mut self.head).map_err(|_| EarlyResponse::Error(431))
    }

    /// The head is complete: what a proxy said of the client holds, and the site admits or refuses the request. `ends`
    /// are those of the connection, `length` is that of the body if it is known.
    pub(crate) fn enter(
        &mut self,
        ends: &Endpoints,
        protocol: Protocol,
        length: Option<u64>,
        rules: &ReadRules,
    ) -> Result<(), EarlyResponse> {
        self.entered = true;
        let peer = self.endpoints.as_ref().unwrap_or(ends);
        // A router has decided whom to believe.
        let is_routed = protocol == Protocol::Routed;
        let applied = match is_routed {
            true => Applied::Nothing,
            false => rules.forwarding.apply(&mut self.head, peer),
        };
        if !is_routed {
            self.hidden_client = applied.hides_client(&self.head, peer);
        }
        match applied {
            Applied::Nothing => {}
            // Front servers that speak another protocol say who the client is in its variables.
            Applied::Removed if rules.forwarding.is_empty() && protocol.is_http() => UNTRUSTED.call_once(|| {
                tracing::info!(
                    "X-Forwarded-For or a similar field from {} was removed; if your own proxy set it, name the proxy: \
                     --trusted-proxies",
                    if peer.unix { "a unix socket" } else { peer.remote_addr.as_str() }
                );
            }),
            Applied::Removed => {}
            Applied::Believed { ends, .. } => self.endpoints = Some(ends),
        }
        let is_trusted = || is_routed || rules.forwarding.trusts(ends);
        if !rules.forwarding.is_empty() {
            self.proxy_queue = proxy_queue(&self.head, SystemTime::now(), is_trusted);
        }
        if let Some(tracer) = &rules.tracer {
            self.span = tracer.begin(&mut self.head, is_trusted);
        }
        if protocol == Protocol::Redirect {
            let place = to_https(&self.head, rules.https_port);
            return Err(place.map_or(EarlyResponse::Error(400), |(status, place)| {
                EarlyResponse::Redirect(status, place)
            }));
        }
        if rules.site.is_none() && rules.is_overloaded.load(Ordering::Relaxed) {
            return Err(EarlyResponse::Error(503));
        }
        if let Some(site) = &rules.site {
            let client = self.endpoints.as_ref().unwrap_or(ends);
            let pages = site.page_reload();
            let arrival = policies::Arrival {
                reloads: pages.is_some_and(|pages| pages.is_for(&self.head, client, self.hidden_client)),
                hidden_client: self.hidden_client,
                head: &mut self.head,
                endpoints: client,
                is_trusted: is_trusted(),
                length,
            };
            let https = arrival.endpoints.https;
            self.admitted = Some(Admitted { https });
            match site.admit(arrival) {
                Admission::Passed(policies) => self.pass(policies),
                Admission::Responded(response) => return Err(EarlyResponse::Site(response)),
            }
        }
        Ok(())
    }

    /// Notes the WebSocket that the request asks for, if it does so in a way that can be accepted.
    pub(crate) fn offer(
        &mut self,
        offer: Result<Option<Offer>, Refusal>,
        ends: &Endpoints,
    ) -> Result<(), EarlyResponse> {
        let offer = offer.map_err(|refusal| {
            let _entered = self.name.enter();
            tracing::debug!("refused a WebSocket of {}: {refusal}", ends.remote_addr);
            if refusal == Refusal::Origin {
                let origin = self.head.field("origin").unwrap_or_default().escape_ascii();
                FOREIGN.call_once(|| {
                    tracing::info!(
                        "a WebSocket for a page of {origin} was refused; to allow that origin, name it: \
                         --websocket-origins"
                    );
                });
            }
            EarlyResponse::Error(refusal.status())
        })?;
        self.upgrade = offer.map(|offer| Box::new(Upgrade::new(offer)));
        Ok(())
    }
}

/// Takes the mount point off an HTTP request's path.
fn mount(head: &mut RequestHead, prefix: &[u8]) -> Result<(), InvalidHead> {
    let (script_name, path) = cgi::split(head.path(), prefix);
    let (script_name, path) = (script_name.to_vec(), path.to_vec());
    let span = head.push_text(&script_name)?;
    head.set_script_name(span);
    let span = head.push_text(&path)?;
    head.set_path(span);
    Ok(())
}
