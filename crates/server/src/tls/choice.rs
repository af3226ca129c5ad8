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

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair};
    use rustls::crypto::aws_lc_rs;
    use rustls::pki_types::PrivatePkcs8KeyDer;

    use super::*;

    fn pair(names: &[&str]) -> Pair {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(names.clone()).unwrap().self_signed(&key).unwrap();
        let key = PrivatePkcs8KeyDer::from(key.serialize_der()).into();
        let chain = vec![certificate.der().clone()];
        Pair {
            key: Arc::new(CertifiedKey::from_der(chain, key, &aws_lc_rs::default_provider()).unwrap()),
            names,
        }
    }

    #[test]
    fn the_exact_name_comes_before_a_wildcard_and_the_first_last() {
        let pairs =
            vec![pair(&["first"]), pair(&["*.a.example"]), pair(&["x.a.example"]), pair(&["x.a.example"])];
        let keys: Vec<_> = pairs.iter().map(|pair| Arc::clone(&pair.key)).collect();
        let choice = Choice::new(pairs);
        for (name, places) in [
            (Some("x.a.example"), vec![2, 3]),
            (Some("X.A.Example"), vec![2, 3]),
            (Some("y.a.example"), vec![1]),
            (Some("z.y.a.example"), vec![0]),
            (Some("a.example"), vec![0]),
            (Some("other"), vec![0]),
            (None, vec![0]),
        ] {
            let found = choice.for_name(name);
            let expected: Vec<_> = places.iter().map(|place| Arc::as_ptr(&keys[*place])).collect();
            assert_eq!(found.iter().map(Arc::as_ptr).collect::<Vec<_>>(), expected, "{name:?}");
        }
    }
}
