//! Configurations of front servers: what makes anygate wrong behind them. One file for each syntax, with what is looked for in it.
//!
//! The readers are tolerant: what they do not know they pass over, since the front server itself checks its file (`nginx -t`).
//! * [`directive`]: what a file consists of. * [`site`]: what must be known of anygate. * [`nginx`], [`lighttpd`],
//!   [`apache`], [`haproxy`], [`caddy`].

mod apache;
mod caddy;
mod directive;
mod haproxy;
mod lighttpd;
mod nginx;
mod site;
#[cfg(test)]
mod tests;

use std::fmt;
use std::io;
use std::path::Path;

use crate::finding::Finding;
use directive::Source;
pub use site::Site;

/// Why a file cannot be looked at.
#[derive(Debug)]
pub enum FrontError {
    /// It cannot be read.
    Unreadable(String, io::Error),
    /// It is of none of the servers.
    Unknown(String),
}

impl fmt::Display for FrontError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FrontError::Unreadable(path, error) => write!(f, "{path}: {error}"),
            FrontError::Unknown(path) => {
                write!(
                    f,
                    "{path}: is not recognised as a configuration of nginx, lighttpd, Apache, HAProxy or Caddy that passes requests on"
                )
            }
        }
    }
}

impl std::error::Error for FrontError {}

/// Looks at a file. `shown`: its name as the user wrote it.
///
/// Errors: it cannot be read, or is of no server that is known.
pub fn check(path: &Path, shown: &str, site: &Site) -> Result<Vec<Finding>, FrontError> {
    let bytes = std::fs::read(path).map_err(|error| FrontError::Unreadable(shown.to_owned(), error))?;
    let text = String::from_utf8_lossy(&bytes);
    let source = Source { text: &text, shown, path };
    let check = server_of(&text).ok_or_else(|| FrontError::Unknown(shown.to_owned()))?;
    Ok(check(&source, site))
}

type Check = fn(&Source<'_>, &Site) -> Vec<Finding>;

/// Which server reads such a text, by words that only it has: nginx has several directives in a line.
fn server_of(text: &str) -> Option<Check> {
    let lines = || text.lines().map(str::trim).filter(|line| !line.starts_with('#'));
    let words = |line| str::split(line, [' ', '\t', '{', '(', ';']).filter(|word| !word.is_empty());
    let begins =
        |marks: &[&str]| lines().filter_map(|line| words(line).next()).any(|word| marks.contains(&word));
    let has = |marks: &[&str]| lines().flat_map(words).any(|word| marks.contains(&word));
    const NGINX: [&str; 6] =
        ["proxy_pass", "uwsgi_pass", "scgi_pass", "fastcgi_pass", "server_name", "upstream"];
    const APACHE: [&str; 5] = ["ProxyPass", "ProxyPassMatch", "<VirtualHost", "BalancerMember", "LoadModule"];
    const LIGHTTPD: [&str; 5] =
        ["proxy.server", "scgi.server", "fastcgi.server", "server.modules", "server.document-root"];
    if has(&NGINX) {
        Some(nginx::check)
    } else if begins(&APACHE) {
        Some(apache::check)
    } else if begins(&["frontend", "backend", "defaults", "listen"]) {
        Some(haproxy::check)
    } else if begins(&LIGHTTPD) {
        Some(lighttpd::check)
    } else {
        has(&["reverse_proxy"]).then_some(caddy::check)
    }
}
