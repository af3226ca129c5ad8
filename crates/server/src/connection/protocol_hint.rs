//! Which protocol a peer speaks to a socket that expects another one, so that the log tells what is wrong with a front
//! server's configuration.

use anygate_config::Protocol;

/// What to do about a peer whose first bytes are of another protocol than `expected`; `None` if they are not, or if it
/// cannot be told.
pub(crate) fn advice(bytes: &[u8], expected: Protocol) -> Option<String> {
    let spoken = guess(bytes)?;
    let fits = spoken == expected || spoken == Protocol::Http && expected.is_http();
    let (name, other) = (name(spoken), name(expected));
    (!fits).then(|| {
        format!(
            "it seems to speak {name}: bind {}:// for it, or configure it to speak {other}",
            spoken.scheme()
        )
    })
}

fn guess(bytes: &[u8]) -> Option<Protocol> {
    match bytes {
        // A record that begins a request or asks for values, a packet for modifier1 0, a record of a handshake.
        [1, 1 | 9, ..] => Some(Protocol::FastCgi),
        [0, _, _, 0, ..] => Some(Protocol::Uwsgi),
        [0x16, 3, ..] => Some(Protocol::Https),
        [b'0'..=b'9', ..] => {
            let colon = bytes.iter().position(|byte| !byte.is_ascii_digit())?;
            (bytes.get(colon) == Some(&b':')).then_some(Protocol::Scgi)
        }
        [b'A'..=b'Z', ..] => {
            let space = bytes.iter().position(|byte| !byte.is_ascii_uppercase())?;
            (bytes.get(space) == Some(&b' ')).then_some(Protocol::Http)
        }
        _ => None,
    }
}

fn name(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Http | Protocol::Redirect | Protocol::Routed => "HTTP",
        Protocol::Https => "HTTPS",
        Protocol::Scgi => "SCGI",
        Protocol::FastCgi => "FastCGI",
        Protocol::Uwsgi => "uwsgi",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_bytes_tell_the_protocol() {
        let cases: [(&[u8], Option<Protocol>); 12] = [
            (b"\x01\x01\x00\x01\x00\x08\x00\x00", Some(Protocol::FastCgi)),
            (b"\x00\x10\x01\x00\x0e\x00REQUEST_METHOD", Some(Protocol::Uwsgi)),
            (b"\x16\x03\x01\x02\x00", Some(Protocol::Https)),
            (b"345:CONTENT_LENGTH\x000\x00", Some(Protocol::Scgi)),
            (b"GET / HTTP/1.1\r\n", Some(Protocol::Http)),
            (b"PRI * HTTP/2.0\r\n", Some(Protocol::Http)),
            (b"345", None),
            (b"345 ", None),
            (b"GET", None),
            (b"get / HTTP/1.1\r\n", None),
            (b"\x00", None),
            (b"", None),
        ];
        for (bytes, expected) in cases {
            assert_eq!(guess(bytes), expected, "{}", bytes.escape_ascii());
        }
    }

    #[test]
    fn clients_of_the_expected_protocol_get_no_hint() {
        for expected in [Protocol::Http, Protocol::Https, Protocol::Redirect] {
            assert_eq!(advice(b"GET / HTTP/1.1\r\n", expected), None);
        }
        assert_eq!(advice(b"1:", Protocol::Scgi), None);
        assert_eq!(
            advice(b"1:", Protocol::Http).as_deref(),
            Some("it seems to speak SCGI: bind scgi:// for it, or configure it to speak HTTP")
        );
        assert!(
            advice(b"\x16\x03\x01", Protocol::Http).is_some_and(|advice| advice.contains("bind https://"))
        );
        assert!(
            advice(b"GET / HTTP/1.1\r\n", Protocol::Uwsgi)
                .is_some_and(|advice| advice.contains("bind http://"))
        );
    }
}
