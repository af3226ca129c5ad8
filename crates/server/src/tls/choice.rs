//! Which certificate a client gets: one that has the very name that it asks for, one with a wildcard for it, or the
//! first of all.

use std::collections::HashMap;
use std::sync::Arc;

use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::certificates::Pair;

#[derive(Debug)]
pub(super) struct Choice {
    /// A name may have several, of different kinds of keys.
    by_name: HashMap<String, Vec<Arc<CertifiedKey>>>,
    first: Vec<Arc<CertifiedKey>>,
}

impl Choice {
    pub(super) fn new(pairs: Vec<Pair>) -> Choice {
        let mut by_name: HashMap<String, Vec<Arc<CertifiedKey>>> = HashMap::new();
        let first = pairs.first().map(|pair| Arc::clone(&pair.key)).into_iter().collect();
        for Pair { key, names } in pairs {
            for name in names {
                by_name.entry(name).or_default().push(Arc::clone(&key));
            }
        }
        Choice { by_name, first }
    }

    /// Those for a name, best first.
    fn for_name(&self, name: Option<&str>) -> &[Arc<CertifiedKey>] {
        let Some(name) = name.map(str::to_ascii_lowercase) else { return &self.first };
        let wildcard = || {
            // RFC 6125 section 6.4.3: a wildcard stands for one label, the left-most.
            let (_, domain) = name.split_once('.')?;
            self.by_name.get(&format!("*.{domain}"))
        };
        self.by_name.get(&name).or_else(wildcard).unwrap_or(&self.first)
    }
}

impl ResolvesServerCert for Choice {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let those = self.for_name(hello.server_name());
        let usable = those.iter().find(|key| key.key.choose_scheme(hello.signature_schemes()).is_some());
        usable.or(those.first()).cloned()
    }
}
