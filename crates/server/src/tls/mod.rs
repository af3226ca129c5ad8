//! TLS: the server's certificates (rustls speaks the protocol). The session of a connection is `transport`'s.
//!
//! In reading order:
//! * [`certificates`]: files become certificates with their keys. * [`choice`]: which one a client gets.
//! * [`tickets`]: clients that come again. * [`facts`]: what the application learns of a session.
//! * [`renewal`], [`snapshot`]: files that changed. * [`files`]: reading them.

mod certificates;
mod choice;
pub(crate) mod facts;
mod files;
pub(crate) mod renewal;
mod snapshot;
mod tickets;

use std::path::Path;
use std::sync::Arc;

use anygate_config::TlsPlan;
use anygate_lock::Mutex;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig, ServerConnection};

use choice::Choice;
pub use files::CertificateError;
use files::{read, shown};
use snapshot::Snapshot;
pub use tickets::Tickets;

/// Certificates with their keys, ready for connections. What the files hold may be taken in anew at any time; a
/// connection keeps what it began with.
#[derive(Clone, Debug)]
pub struct Tls(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    plan: TlsPlan,
    tickets: Tickets,
    current: Mutex<Arc<ServerConfig>>,
    /// State of the files before they were read.
    snapshot: Snapshot,
    warnings: Vec<String>,
}

impl Tls {
    /// Reads what the plan names. TLS 1.2 and 1.3 are spoken. Servers that share `tickets` know each other's clients.
    ///
    /// Errors: a file cannot be read, or is not what it should be.
    pub fn load(plan: &TlsPlan, tickets: &Tickets) -> Result<Tls, CertificateError> {
        let snapshot = Snapshot::of(plan);
        let (config, warnings) = config(plan, tickets)?;
        let current = Mutex::new(Arc::new(config));
        Ok(Tls(Arc::new(Inner { plan: plan.clone(), tickets: tickets.clone(), current, snapshot, warnings })))
    }

    /// Returns warnings for the operator: certificates outside their period of validity.
    pub fn warnings(&self) -> &[String] {
        &self.0.warnings
    }

    /// Reads everything again, for connections that come from now on. If that fails, what was there stays.
    fn reload(&self) -> Result<Vec<String>, CertificateError> {
        let (config, warnings) = config(&self.0.plan, &self.0.tickets)?;
        *self.0.current.lock() = Arc::new(config);
        Ok(warnings)
    }

    pub(crate) fn session(&self) -> Result<ServerConnection, rustls::Error> {
        let config = Arc::clone(&self.0.current.lock());
        ServerConnection::new(config)
    }
}

fn config(plan: &TlsPlan, tickets: &Tickets) -> Result<(ServerConfig, Vec<String>), CertificateError> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let (pairs, warnings) = certificates::load(plan, &provider)?;
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| CertificateError::Setting(error.to_string()))?;
    let (builder, authority) = match &plan.client_ca {
        None => (builder.with_no_client_auth(), Vec::new()),
        Some(path) => {
            let pem = read(path)?;
            let verifier = verifier(path, &pem, plan.client_cert_required, provider)?;
            (builder.with_client_cert_verifier(verifier), pem)
        }
    };
    let mut config = builder.with_cert_resolver(Arc::new(Choice::new(pairs)));
    config.alpn_protocols = plan.alpn.iter().map(|name| name.clone().into_bytes()).collect();
    // The best of what both can do, in our order: a client may put what is weak first.
    config.ignore_client_order = true;
    // A ticket tells of a client that was verified: it is no good where other clients are let in.
    config.ticketer = tickets.issuer(&[&[u8::from(plan.client_cert_required)], authority.as_slice()]);
    // What one worker remembers is no use in the next; tickets are.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    Ok((config, warnings))
}

/// Lets in clients with a certificate of one of the CAs in `pem`.
fn verifier(
    path: &Path,
    pem: &[u8],
    required: bool,
    provider: Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, CertificateError> {
    let unusable = |error: &dyn std::fmt::Display| {
        CertificateError::Content(format!("the client CA {} cannot be used: {error}", shown(path)))
    };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.map_err(|error| unusable(&error))?;
        roots.add(certificate).map_err(|error| unusable(&error))?;
    }
    if roots.is_empty() {
        return Err(CertificateError::Content(format!(
            "{} contains no certificate (PEM) of a client CA",
            shown(path)
        )));
    }
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
    let builder = if required { builder } else { builder.allow_unauthenticated() };
    builder.build().map_err(|error| unusable(&error))
}
