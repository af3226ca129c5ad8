//! Request targets (RFC 9112 section 3.2) and hosts (RFC 3986 section 3.2.2).

use memchr::memchr;

use super::Error;

/// The parts of a target, as sent.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Target<'t> {
    /// Of an absolute-form only.
    pub(crate) authority: Option<&'t str>,
    pub(crate) path: &'t str,
    pub(crate) query: &'t str,
}

/// Takes a target apart.
///
/// Errors: not one of the forms that an origin server serves, or a byte that no URI may hold (RFC 3986: neither
/// controls nor bytes beyond ASCII), or a fragment, which a client never sends.
pub(crate) fn parse<'t>(method: &str, target: &'t str) -> Result<Target<'t>, Error> {
    if method == "CONNECT" {
        return Err(Error::Connect);
    }
    // All bytes are looked at, many at a time: targets are hardly ever wrong.
    if !target.bytes().fold(true, |good, byte| good & byte.is_ascii_graphic() & (byte != b'#')) {
        return Err(Error::Target);
    }
    // asterisk-form: "only used for a server-wide OPTIONS request".
    if target == "*" {
        return if method == "OPTIONS" {
            Ok(Target { authority: None, path: "*", query: "" })
        } else {
            Err(Error::Target)
        };
    }
    if target.starts_with('/') {
        let (path, query) = split_query(target);
        return Ok(Target { authority: None, path, query });
    }
    // absolute-form.
    let (scheme, rest) = target.split_once("://").ok_or(Error::Target)?;
    if !scheme.eq_ignore_ascii_case("http") && !scheme.eq_ignore_ascii_case("https") {
        return Err(Error::Target);
    }
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, rest) = rest.split_at_checked(end).ok_or(Error::Target)?;
    check_host(authority.as_bytes()).map_err(|_| Error::Target)?;
    let (path, query) = split_query(rest);
    let path = match path {
        // Section 3.2.4: an OPTIONS for an absolute URI without path and query is one for the whole server.
        "" if method == "OPTIONS" && query.is_empty() => "*",
        "" => "/",
        path => path,
    };
    Ok(Target { authority: Some(authority), path, query })
}

fn split_query(target: &str) -> (&str, &str) {
    let (path, rest) = target.split_at(memchr(b'?', target.as_bytes()).unwrap_or(target.len()));
    (path, rest.strip_prefix('?').unwrap_or(rest))
}

/// Checks `uri-host [ ":" port ]` (RFC 9110 section 7.2), not empty: section 4.2.1 wants a URI with an empty host refused.
pub(crate) fn check_host(host: &[u8]) -> Result<(), Error> {
    let (name, port) = match host.split_first() {
        Some((b'[', rest)) => {
            let end = rest.iter().position(|&byte| byte == b']').ok_or(Error::Host)?;
            let (literal, rest) = rest.split_at_checked(end).ok_or(Error::Host)?;
            let literal = std::str::from_utf8(literal).map_err(|_| Error::Host)?;
            if literal.parse::<std::net::Ipv6Addr>().is_err() {
                return Err(Error::Host);
            }
            (None, rest.strip_prefix(b"]").unwrap_or_default())
        }
        _ => {
            let end = memchr(b':', host).unwrap_or(host.len());
            let (name, rest) = host.split_at_checked(end).ok_or(Error::Host)?;
            (Some(name), rest)
        }
    };
    if let Some(name) = name
        && (name.is_empty() || !name.iter().fold(true, |good, &byte| good & is_host_byte(byte)))
    {
        return Err(Error::Host);
    }
    match port.split_first() {
        None => Ok(()),
        Some((b':', [])) => Ok(()),
        Some((b':', digits))
            if digits.len() <= 5 && super::number(digits).is_some_and(|port| port <= 65535) =>
        {
            Ok(())
        }
        Some(_) => Err(Error::Host),
    }
}

/// Whether each byte may stand in a `reg-name` without percent-encoding, which no name that can be looked up has: unreserved
/// and sub-delims. Every byte of the host of every request is looked up here.
#[expect(clippy::indexing_slicing, reason = "in a constant an index out of range does not compile")]
const HOST_BYTES: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0_u8;
    while byte < 128 {
        table[byte as usize] = byte.is_ascii_alphanumeric()
            || matches!(
                byte,
                b'-' | b'.'
                    | b'_'
                    | b'~'
                    | b'!'
                    | b'$'
                    | b'&'
                    | b'\''
                    | b'('
                    | b')'
                    | b'*'
                    | b'+'
                    | b','
                    | b';'
                    | b'='
            );
        byte += 1;
    }
    table
};

fn is_host_byte(byte: u8) -> bool {
    HOST_BYTES.get(usize::from(byte)).copied().unwrap_or_default()
}

/// Decodes `%XX`. A percent sign without two hexadecimal digits stays as it is, as in every WSGI server; a path with
/// NUL is refused, because everything behind us that is written in C would cut it there.
pub(crate) fn percent_decode(path: &str) -> Result<Vec<u8>, Error> {
    let mut decoded = Vec::with_capacity(path.len());
    let mut rest = path.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        let escaped = match (byte, tail) {
            (b'%', [high, low, ..]) => hex(*high).zip(hex(*low)).map(|(high, low)| high << 4 | low),
            _ => None,
        };
        rest = match escaped {
            Some(0) => return Err(Error::Target),
            Some(value) => {
                decoded.push(value);
                tail.get(2..).unwrap_or_default()
            }
            None => {
                decoded.push(byte);
                tail
            }
        };
    }
    Ok(decoded)
}

/// The value of one hexadecimal digit.
pub(crate) fn hex(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_follow_the_grammar() {
        for good in
            ["a", "a.b", "a_b", "127.0.0.1:80", "[::1]", "[::1]:8000", "a:", "xn--e1afmkfd.example:65535"]
        {
            assert_eq!(check_host(good.as_bytes()), Ok(()), "{good}");
        }
        for bad in [
            "", ":80", "a b", "a/b", "a@b", "a:b", "a:80:80", "a:65536", "a:+80", "[::1", "[a]", "[::1]x",
            "[::1]:x", "a\\b", "a%41", "\u{e9}", "a<b",
        ] {
            assert_eq!(check_host(bad.as_bytes()), Err(Error::Host), "{bad}");
        }
    }

    #[test]
    fn targets_have_four_forms_of_which_one_is_refused() {
        let parts = |method, target| parse(method, target).map(|t| (t.authority, t.path, t.query));
        assert_eq!(parts("GET", "/a?b?c"), Ok((None, "/a", "b?c")));
        assert_eq!(parts("GET", "//a"), Ok((None, "//a", "")));
        assert_eq!(parts("OPTIONS", "*"), Ok((None, "*", "")));
        assert_eq!(parts("OPTIONS", "http://a"), Ok((Some("a"), "*", "")));
        assert_eq!(parts("GET", "HTTPS://a:1/b"), Ok((Some("a:1"), "/b", "")));
        for (method, bad) in [
            ("GET", "*"),
            ("GET", "a"),
            ("GET", "a:80"),
            ("GET", "ftp://a/"),
            ("GET", "http:///a"),
            ("GET", "http://u@a/"),
            ("GET", "/a#b"),
            ("GET", "/\u{e9}"),
            ("GET", "/\x7f"),
        ] {
            assert_eq!(parts(method, bad), Err(Error::Target), "{bad}");
        }
        assert_eq!(parts("CONNECT", "a:80"), Err(Error::Connect));
    }

    #[test]
    fn escapes_are_decoded_once_and_nul_is_refused() {
        assert_eq!(percent_decode("/%41%2f%2F%C3%a9").unwrap(), b"/A//\xc3\xa9");
        assert_eq!(percent_decode("/%2541").unwrap(), b"/%41");
        assert_eq!(percent_decode("/100%/%zz%4").unwrap(), b"/100%/%zz%4");
        assert_eq!(percent_decode("/a%00b"), Err(Error::Target));
    }
}
