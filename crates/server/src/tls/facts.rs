//! What the application learns of a session: the variables of Apache's mod_ssl that applications know.

use pkcs8::der::pem::{self, LineEnding};
use rustls::{CipherSuite, ProtocolVersion, ServerConnection};
use x509_parser::asn1_rs::ToDer;
use x509_parser::prelude::{FromDer, X509Certificate, X509Name};
use x509_parser::time::ASN1Time;
use x509_parser::x509::AttributeTypeAndValue;

/// OpenSSL's names of attributes.
const ATTRIBUTES: &[(&str, &str)] = &[
    ("2.5.4.3", "CN"),
    ("2.5.4.4", "SN"),
    ("2.5.4.5", "serialNumber"),
    ("2.5.4.6", "C"),
    ("2.5.4.7", "L"),
    ("2.5.4.8", "ST"),
    ("2.5.4.9", "street"),
    ("2.5.4.10", "O"),
    ("2.5.4.11", "OU"),
    ("2.5.4.12", "title"),
    ("2.5.4.42", "GN"),
    ("2.5.4.43", "initials"),
    ("2.5.4.97", "organizationIdentifier"),
    ("0.9.2342.19200300.100.1.1", "UID"),
    ("0.9.2342.19200300.100.1.25", "DC"),
    ("1.2.840.113549.1.9.1", "emailAddress"),
];
const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// The variables of a session whose handshake is over. A client certificate among them was verified.
pub(crate) fn variables(session: &ServerConnection) -> Vec<(&'static str, String)> {
    let mut variables = Vec::new();
    if let Some(version) = session.protocol_version() {
        variables.push(("SSL_PROTOCOL", version_name(version)));
    }
    if let Some(suite) = session.negotiated_cipher_suite() {
        variables.push(("SSL_CIPHER", cipher_name(suite.suite())));
    }
    if let Some(name) = session.server_name() {
        variables.push(("SSL_TLS_SNI", name.to_owned()));
    }
    let own = session.peer_certificates().and_then(<[_]>::first);
    variables.push(("SSL_CLIENT_VERIFY", if own.is_some() { "SUCCESS" } else { "NONE" }.to_owned()));
    if let Some(der) = own {
        // rustls has parsed it already, so nothing can fail here; what did would be missing, not wrong.
        if let Ok((_, certificate)) = X509Certificate::from_der(der) {
            let validity = certificate.validity();
            variables.push(("SSL_CLIENT_S_DN", name(certificate.subject())));
            variables.push(("SSL_CLIENT_I_DN", name(certificate.issuer())));
            variables.push(("SSL_CLIENT_M_SERIAL", serial(certificate.raw_serial())));
            variables.push(("SSL_CLIENT_V_START", date(&validity.not_before)));
            variables.push(("SSL_CLIENT_V_END", date(&validity.not_after)));
        }
        if let Ok(text) = pem::encode_string("CERTIFICATE", LineEnding::LF, der) {
            variables.push(("SSL_CLIENT_CERT", text));
        }
    }
    variables
}

fn version_name(version: ProtocolVersion) -> String {
    match version {
        ProtocolVersion::TLSv1_2 => "TLSv1.2".to_owned(),
        ProtocolVersion::TLSv1_3 => "TLSv1.3".to_owned(),
        other => format!("{other:?}"),
    }
}

/// As OpenSSL calls it: the name of the registry for TLS 1.3, its own for TLS 1.2.
fn cipher_name(suite: CipherSuite) -> String {
    let name = match suite {
        CipherSuite::TLS13_AES_128_GCM_SHA256 => "TLS_AES_128_GCM_SHA256",
        CipherSuite::TLS13_AES_256_GCM_SHA384 => "TLS_AES_256_GCM_SHA384",
        CipherSuite::TLS13_CHACHA20_POLY1305_SHA256 => "TLS_CHACHA20_POLY1305_SHA256",
        CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256 => "ECDHE-ECDSA-AES128-GCM-SHA256",
        CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384 => "ECDHE-ECDSA-AES256-GCM-SHA384",
        CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256 => "ECDHE-ECDSA-CHACHA20-POLY1305",
        CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256 => "ECDHE-RSA-AES128-GCM-SHA256",
        CipherSuite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384 => "ECDHE-RSA-AES256-GCM-SHA384",
        CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256 => "ECDHE-RSA-CHACHA20-POLY1305",
        other => return format!("{other:?}"),
    };
    name.to_owned()
}

/// A name as RFC 2253 writes it: the last part first, with commas.
fn name(name: &X509Name<'_>) -> String {
    let parts: Vec<String> =
        name.iter_rdn().map(|part| part.iter().map(attribute).collect::<Vec<_>>().join("+")).collect();
    parts.into_iter().rev().collect::<Vec<_>>().join(",")
}

fn attribute(attribute: &AttributeTypeAndValue<'_>) -> String {
    let number = attribute.attr_type().to_id_string();
    let known = ATTRIBUTES.iter().find(|(known, _)| *known == number).map(|(_, name)| *name);
    match (known, attribute.as_str()) {
        (Some(name), Ok(value)) => format!("{name}={}", escaped(value)),
        // Section 2.4: otherwise the value is that of its DER, in hexadecimal digits.
        (name, _) => {
            let der = attribute.attr_value().to_der_vec().unwrap_or_default();
            format!("{}=#{}", name.unwrap_or(&number), hexadecimal(&der))
        }
    }
}

/// Section 2.4; letters that are not ASCII stay.
fn escaped(value: &str) -> String {
    let last = value.chars().count().saturating_sub(1);
    let mut text = String::with_capacity(value.len());
    for (place, letter) in value.chars().enumerate() {
        match letter {
            ',' | '+' | '"' | '\\' | '<' | '>' | ';' => text.extend(['\\', letter]),
            '#' if place == 0 => text.push_str("\\#"),
            ' ' if place == 0 || place == last => text.push_str("\\ "),
            letter if letter.is_ascii_control() => text.push_str(&format!("\\{:02X}", u32::from(letter))),
            letter => text.push(letter),
        }
    }
    text
}

/// In hexadecimal digits, without the zero that only says that the number is not negative.
fn serial(bytes: &[u8]) -> String {
    hexadecimal(match bytes {
        [0, rest @ ..] if !rest.is_empty() => rest,
        bytes => bytes,
    })
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02X}")).collect()
}

/// `Nov 21 16:38:58 2026 GMT`.
fn date(time: &ASN1Time) -> String {
    let at = time.to_datetime();
    let (hour, minute, second) = at.to_hms();
    let month = usize::from(u8::from(at.month())).checked_sub(1).and_then(|month| MONTHS.get(month));
    let month = month.copied().unwrap_or_default();
    format!("{month} {:2} {hour:02}:{minute:02}:{second:02} {} GMT", at.day(), at.year())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_escaped() {
        for (value, text) in [
            ("a b", "a b"),
            (" a ", "\\ a\\ "),
            ("#a#", "\\#a#"),
            ("a,b+c\"d\\e<f>g;h=i", "a\\,b\\+c\\\"d\\\\e\\<f\\>g\\;h=i"),
            ("a\0b\r\n\x7f", "a\\00b\\0D\\0A\\7F"),
            ("\u{e9}", "\u{e9}"),
            (" ", "\\ "),
            ("", ""),
        ] {
            assert_eq!(escaped(value), text);
        }
    }

    #[test]
    fn serials_are_numbers() {
        assert_eq!(serial(&[0, 0x9a, 1]), "9A01");
        assert_eq!(serial(&[0x0f]), "0F");
        assert_eq!(serial(&[0]), "00");
    }
}
