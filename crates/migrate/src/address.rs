//! Addresses as other servers write them, as `bind` has them.

/// An address that uWSGI, gunicorn and others accept, without protocol: `127.0.0.1:8000`, `:8000`, `unix:PATH`, `fd://3`.
/// `path` makes the path of a socket.
pub(crate) fn plain(text: &str, path: impl Fn(&str) -> String) -> String {
    let text = text.trim();
    if let Some(socket) = text.strip_prefix("unix:") {
        return format!("unix:{}", path(socket.strip_prefix("//").unwrap_or(socket)));
    }
    let text = text.strip_prefix("tcp://").or_else(|| text.strip_prefix("http://")).unwrap_or(text);
    if let Some(port) = text.strip_prefix("*:") {
        return format!("0.0.0.0:{port}");
    }
    text.to_owned()
}

/// The same with a protocol of a gateway before it.
pub(crate) fn with_protocol(protocol: &str, address: &str) -> String {
    match (protocol, address.split_once(':')) {
        ("http", _) => address.to_owned(),
        (_, Some(("unix" | "fd", _))) => format!("{protocol}+{address}"),
        _ => format!("{protocol}://{address}"),
    }
}

/// Peers that `*` stands for, where a trusted proxy says who the client is: those that the public cannot be.
const PRIVATE: [&str; 7] =
    ["127.0.0.0/8", "::1", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7", "unix"];

/// A list of addresses of proxies, separated by commas or spaces.
pub(crate) fn proxies(text: &str) -> Vec<String> {
    let items = text.split([',', ' ']).map(str::trim).filter(|item| !item.is_empty());
    let mut all = Vec::new();
    for item in items {
        match item {
            "*" => all.extend(PRIVATE.map(str::to_owned)),
            "localhost" => all.extend(["127.0.0.1", "::1"].map(str::to_owned)),
            other => all.push(other.to_owned()),
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_written_as_bind_has_them() {
        let path = |path: &str| format!("/srv/{path}");
        for (text, ours) in [
            ("127.0.0.1:8000", "127.0.0.1:8000"),
            (":8000", ":8000"),
            ("*:8000", "0.0.0.0:8000"),
            ("[::1]:80", "[::1]:80"),
            ("tcp://127.0.0.1:80", "127.0.0.1:80"),
            ("unix:a.sock", "unix:/srv/a.sock"),
            ("fd://3", "fd://3"),
        ] {
            assert_eq!(plain(text, path), ours);
        }
        assert_eq!(with_protocol("uwsgi", "127.0.0.1:1"), "uwsgi://127.0.0.1:1");
        assert_eq!(with_protocol("scgi", "unix:/a"), "scgi+unix:/a");
        assert_eq!(with_protocol("uwsgi", "fd://3"), "uwsgi+fd://3");
        assert_eq!(proxies("192.0.2.1, localhost"), ["192.0.2.1", "127.0.0.1", "::1"]);
        let all = proxies("*");
        assert!(all.contains(&"10.0.0.0/8".to_owned()) && !all.contains(&"0.0.0.0/0".to_owned()));
    }
}
