//! Which clients may send requests: those on this machine, and those that know the token; never a page of another site in
//! a browser.

use anygate_proto::application::Endpoints;
use anygate_proto::head::RequestHead;
use anygate_proto::local_host::LocalHosts;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use subtle::ConstantTimeEq;

/// A client that runs outside of a page of ours says so with this field, which no other site's page can set without
/// asking first (Fetch, "CORS-preflight request").
pub const OWN_FIELD: &str = "X-Anygate";

/// The rules of one admin address.
#[derive(Clone, Debug, Default)]
pub struct Guard {
    /// Token that TCP clients need; without one, every client that reaches the address may send requests.
    pub token: Option<String>,
    /// Names and addresses that were given to bind, beside those of this machine itself.
    pub hosts: Vec<String>,
}

/// Why a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// The token is missing or wrong.
    Token,
    /// It is for another host: a foreign name that resolves to this machine (DNS rebinding).
    Host,
    /// It changes something and may come from a page of another site.
    Origin,
    /// It changes something and does not show that it is no form of another site.
    Form,
}

impl Guard {
    /// Checks a request. `changes`: it is to change something.
    pub fn check(&self, head: &RequestHead, endpoints: &Endpoints, changes: bool) -> Result<(), Refused> {
        // The rights of a unix socket's file say who may ask there, and no browser can.
        if !endpoints.unix {
            match &self.token {
                Some(token) if knows(head, token) => {}
                Some(_) => return Err(Refused::Token),
                None if self.is_own_host(head.authority(), endpoints) => {}
                None => return Err(Refused::Host),
            }
        }
        if changes {
            let site = head.field("Sec-Fetch-Site").unwrap_or(b"none");
            if !matches!(site, b"same-origin" | b"none") || !is_own_origin(head) {
                return Err(Refused::Origin);
            }
            let json = head.field("Content-Type").unwrap_or_default();
            let json = json.get(..16).is_some_and(|kind| kind.eq_ignore_ascii_case(b"application/json"));
            if !json && head.field(OWN_FIELD).is_none() {
                return Err(Refused::Form);
            }
        }
        Ok(())
    }

    fn is_own_host(&self, authority: &[u8], endpoints: &Endpoints) -> bool {
        let mut own = self.hosts.clone();
        own.push(endpoints.server_name.to_string());
        LocalHosts::new(own).holds(authority)
    }
}

/// Whether the request carries the token: as a bearer's (RFC 6750), or as the password of any user (RFC 7617), which is
/// what a browser asks for.
fn knows(head: &RequestHead, token: &str) -> bool {
    let Some((scheme, given)) = head.field("Authorization").and_then(split) else { return false };
    let given = if scheme.eq_ignore_ascii_case(b"Basic") {
        let decoded = BASE64_STANDARD.decode(given).unwrap_or_default();
        match decoded.iter().position(|&byte| byte == b':') {
            Some(colon) => decoded.get(colon + 1..).unwrap_or_default().to_vec(),
            None => return false,
        }
    } else if scheme.eq_ignore_ascii_case(b"Bearer") {
        given.to_vec()
    } else {
        return false;
    };
    // As long for a token that begins right as for any other.
    !token.is_empty() && bool::from(given.ct_eq(token.as_bytes()))
}

fn split(field: &[u8]) -> Option<(&[u8], &[u8])> {
    let space = field.iter().position(|&byte| byte == b' ')?;
    let (scheme, rest) = field.split_at_checked(space)?;
    Some((scheme, rest.trim_ascii()))
}

fn is_own_origin(head: &RequestHead) -> bool {
    let Some(origin) = head.field("Origin") else { return true };
    [&b"http://"[..], b"https://"].iter().any(|scheme| {
        origin.strip_prefix(*scheme).is_some_and(|at| at.eq_ignore_ascii_case(head.authority()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::application::testing::head;

    const JSON: (&str, &str) = ("Content-Type", "application/json");

    fn local() -> Endpoints {
        Endpoints { server_name: "127.0.0.1".into(), ..Endpoints::default() }
    }

    #[test]
    fn only_hosts_of_this_machine_are_meant_without_a_token() {
        let guard = Guard { token: None, hosts: vec!["box.lan".to_owned()] };
        for host in ["127.0.0.1:9191", "localhost", "LOCALHOST:1", "[::1]:9191", "127.9.9.9", "Box.lan:9191"]
        {
            assert_eq!(guard.check(&head("GET", "/", host, &[]), &local(), false), Ok(()), "{host}");
        }
        for host in ["", "evil.example", "evil.example:9191", "localhost.evil.example", "192.0.2.1", "[", ":"]
        {
            let refused = guard.check(&head("GET", "/", host, &[]), &local(), false);
            assert_eq!(refused, Err(Refused::Host), "{host}");
        }
        let unix = Endpoints { unix: true, ..local() };
        assert_eq!(guard.check(&head("GET", "/", "any", &[]), &unix, false), Ok(()));
    }

    #[test]
    fn the_token_is_asked_for_wherever_it_is_set_but_on_unix_sockets() {
        let guard = Guard { token: Some("sesame".to_owned()), hosts: Vec::new() };
        let ask =
            |fields: &[(&str, &str)]| guard.check(&head("GET", "/", "a.example", fields), &local(), false);
        assert_eq!(ask(&[("authorization", "Bearer sesame")]), Ok(()));
        assert_eq!(ask(&[("Authorization", "bearer  sesame")]), Ok(()));
        assert_eq!(ask(&[("Authorization", "Basic eDpzZXNhbWU=")]), Ok(()));
        for wrong in [
            "",
            "Bearer",
            "Bearer ",
            "Bearer sesam",
            "Bearer sesame2",
            "Basic sesame",
            "Basic c2VzYW1l",
            "Digest sesame",
        ] {
            assert_eq!(ask(&[("Authorization", wrong)]), Err(Refused::Token), "{wrong}");
        }
        assert_eq!(ask(&[]), Err(Refused::Token));
        let unix = Endpoints { unix: true, ..local() };
        assert_eq!(guard.check(&head("GET", "/", "any", &[]), &unix, false), Ok(()));
        let empty = Guard { token: Some(String::new()), hosts: Vec::new() };
        let asked = empty.check(&head("GET", "/", "a", &[("Authorization", "Bearer ")]), &local(), false);
        assert_eq!(asked, Err(Refused::Token));
    }

    #[test]
    fn what_changes_something_comes_from_no_other_site() {
        let guard = Guard::default();
        let host = "127.0.0.1:9191";
        let ask = |fields: &[(&str, &str)]| guard.check(&head("POST", "/", host, fields), &local(), true);
        assert_eq!(ask(&[JSON]), Ok(()));
        assert_eq!(ask(&[("Content-Type", "application/json; charset=utf-8")]), Ok(()));
        assert_eq!(ask(&[("X-Anygate", "1"), ("Origin", "http://127.0.0.1:9191")]), Ok(()));
        assert_eq!(ask(&[]), Err(Refused::Form));
        assert_eq!(ask(&[("Content-Type", "text/plain;application/json")]), Err(Refused::Form));
        for origin in ["http://evil.example", "null", "http://127.0.0.1:8000", "127.0.0.1:9191"] {
            assert_eq!(ask(&[JSON, ("Origin", origin)]), Err(Refused::Origin), "{origin}");
        }
        assert_eq!(ask(&[JSON, ("Sec-Fetch-Site", "same-site")]), Err(Refused::Origin));
    }
}
