//! Names of hosts that rules are about.

/// Names of hosts, in lower case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostPattern {
    /// This one.
    Exact(String),
    /// Every name below this one, which begins with a dot.
    Below(String),
}

impl HostPattern {
    /// Whether it is for the host of an authority: in any case, with or without a port, and with the dot at the end that names may
    /// have.
    pub fn matches(&self, authority: &[u8]) -> bool {
        let Ok(authority) = std::str::from_utf8(authority) else { return false };
        let host = match authority.rsplit_once(':') {
            // The colons of an IPv6 address are in brackets.
            Some((host, port)) if !port.ends_with(']') => host,
            _ => authority,
        };
        let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
        match self {
            HostPattern::Exact(name) => host == *name,
            HostPattern::Below(end) => host.len() > end.len() && host.ends_with(end.as_str()),
        }
    }
}
