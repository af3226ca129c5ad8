//! One transmission, and what its outcome means
//! (<https://opentelemetry.io/docs/specs/otlp/#otlphttp-response>).

use std::fs;
use std::io::{self, Write};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anygate_config::{Endpoint, VERSION};
use flate2::Compression;
use flate2::write::GzEncoder;
use prost::Message;
use ureq::Agent;
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, TlsProvider, parse_pem};

use crate::messages::ExportResponse;

/// Most of a response that is read.
const RESPONSE_MAX_BYTES: u64 = 64 * 1024;

/// What became of a transmission.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Sent {
    /// The collector has it, but for so many items that it did not want, and why.
    Accepted(u64, String),
    /// Another try may go well, after this time if the collector said so.
    Later(Option<Duration>, String),
    /// Another try would not.
    Refused(String),
}

/// Sends to one address.
pub(crate) struct Client {
    agent: Agent,
    endpoint: Endpoint,
}

impl Client {
    /// Errors: certificates cannot be read.
    pub(crate) fn new(endpoint: &Endpoint) -> io::Result<Client> {
        let mut config = Agent::config_builder()
            .timeout_global(Some(endpoint.timeout))
            .http_status_as_error(false)
            .max_redirects(0)
            .user_agent(format!("OTel-OTLP-Exporter-anygate/{VERSION}"));
        if endpoint.url.starts_with("https:") {
            let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
            let tls = TlsConfig::builder()
                .provider(TlsProvider::Rustls)
                .unversioned_rustls_crypto_provider(provider)
                .root_certs(RootCerts::Specific(Arc::new(certificates(endpoint)?)));
            config = config.tls_config(tls.build());
        }
        Ok(Client { agent: config.build().into(), endpoint: endpoint.clone() })
    }

    /// Sends a message. It may take as long as the time limit says.
    pub(crate) fn send(&self, message: &[u8]) -> Sent {
        match self.try_send(message) {
            Ok(sent) => sent,
            Err(error) => Sent::Later(None, error.to_string()),
        }
    }

    fn try_send(&self, message: &[u8]) -> Result<Sent, ureq::Error> {
        let mut request = self.agent.post(&self.endpoint.url).content_type("application/x-protobuf");
        for (name, value) in &self.endpoint.headers {
            request = request.header(name, value);
        }
        let mut response = match self.endpoint.gzip {
            true => request.header("Content-Encoding", "gzip").send(&compressed(message)?)?,
            false => request.send(message)?,
        };
        let status = response.status().as_u16();
        let after = response.headers().get("retry-after").and_then(|after| retry_after(after.to_str().ok()?));
        let body = response.body_mut().with_config().limit(RESPONSE_MAX_BYTES).read_to_vec();
        Ok(match status {
            // What cannot be understood of it does not change that it was taken.
            200..300 => {
                let partial =
                    body.ok().and_then(|body| ExportResponse::decode(body.as_slice()).ok()?.partial_success);
                let partial = partial.unwrap_or_default();
                Sent::Accepted(partial.rejected.try_into().unwrap_or_default(), partial.error_message)
            }
            429 | 502..=504 => Sent::Later(after, format!("its response is {status}")),
            _ => Sent::Refused(format!("its response is {status}")),
        })
    }
}

/// The certificates that a collector's may be signed with.
fn certificates(endpoint: &Endpoint) -> io::Result<Vec<Certificate<'static>>> {
    let Some(path) = &endpoint.certificate else {
        let found = rustls_native_certs::load_native_certs();
        return match found.errors.into_iter().next() {
            Some(error) if found.certs.is_empty() => Err(io::Error::other(error.to_string())),
            _ => Ok(found.certs.iter().map(|der| Certificate::from_der(der).to_owned()).collect()),
        };
    };
    let named = |error: String| io::Error::other(format!("{}: {error}", path.display()));
    let pem = fs::read(path).map_err(|error| named(error.to_string()))?;
    let mut certificates = Vec::new();
    for item in parse_pem(&pem) {
        if let PemItem::Certificate(certificate) = item.map_err(|error| named(error.to_string()))? {
            certificates.push(certificate);
        }
    }
    if certificates.is_empty() {
        Err(named("there is no certificate in it".to_owned()))
    } else {
        Ok(certificates)
    }
}

fn compressed(message: &[u8]) -> io::Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(message)?;
    encoder.finish()
}

/// RFC 9110 section 10.2.3: seconds, or a date.
fn retry_after(text: &str) -> Option<Duration> {
    match text.trim().parse() {
        Ok(seconds) => Some(Duration::from_secs(seconds)),
        Err(_) => httpdate::parse_http_date(text).ok()?.duration_since(SystemTime::now()).ok(),
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;
    use std::thread;

    use super::*;
    use crate::messages::PartialSuccess;

    fn endpoint(url: String) -> Endpoint {
        let headers = vec![("api-key".to_owned(), "secret".to_owned())];
        Endpoint { url, headers, timeout: Duration::from_secs(60), gzip: false, certificate: None }
    }

    /// What is made of a response, and the request that got it.
    fn sent(response: Vec<u8>, gzip: bool) -> (Sent, Vec<u8>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/v1/traces", listener.local_addr().unwrap());
        let server = thread::spawn(move || {
            let (mut client, _) = listener.accept().unwrap();
            let mut request = vec![0; 4096];
            let mut length = 0;
            // The message is the last of it.
            while !request[..length].windows(4).any(|part| part == b"\r\n\r\n")
                || request[..length].ends_with(b"\r\n\r\n")
            {
                length += client.read(&mut request[length..]).unwrap();
            }
            client.write_all(&response).unwrap();
            request.truncate(length);
            request
        });
        let client = Client::new(&Endpoint { gzip, ..endpoint(url) }).unwrap();
        let sent = client.send(b"message");
        (sent, server.join().unwrap())
    }

    fn response(status: &str, fields: &str, body: &[u8]) -> Vec<u8> {
        let head = format!("HTTP/1.1 {status}\r\n{fields}Content-Length: {}\r\n\r\n", body.len());
        [head.as_bytes(), body].concat()
    }

    #[test]
    fn responses_say_whether_to_try_again() {
        let partial = PartialSuccess { rejected: 3, error_message: "too old".to_owned() };
        let partial = ExportResponse { partial_success: Some(partial) }.encode_to_vec();
        let later = |after: Option<u64>, status: u16| {
            Sent::Later(after.map(Duration::from_secs), format!("its response is {status}"))
        };
        for (status, fields, body, expected) in [
            ("200 OK", "", &b""[..], Sent::Accepted(0, String::new())),
            ("202 Accepted", "", b"no protobuf", Sent::Accepted(0, String::new())),
            ("200 OK", "", &partial, Sent::Accepted(3, "too old".to_owned())),
            ("429 Too Many Requests", "Retry-After: 7\r\n", b"", later(Some(7), 429)),
            ("503 Service Unavailable", "", b"", later(None, 503)),
            ("400 Bad Request", "", b"", Sent::Refused("its response is 400".to_owned())),
            ("301 Moved", "Location: /elsewhere\r\n", b"", Sent::Refused("its response is 301".to_owned())),
        ] {
            assert_eq!(sent(response(status, fields, body), false).0, expected, "{status}");
        }
        let nobody = Client::new(&endpoint("http://127.0.0.1:1/v1/traces".to_owned())).unwrap();
        assert!(matches!(nobody.send(b""), Sent::Later(None, _)));
    }

    #[test]
    fn messages_have_their_fields_and_may_be_compressed() {
        let (_, request) = sent(response("200 OK", "", b""), false);
        let text = String::from_utf8_lossy(&request).to_lowercase();
        for part in ["post /v1/traces http/1.1", "content-type: application/x-protobuf", "api-key: secret"] {
            assert!(text.contains(part), "{text}");
        }
        assert!(text.ends_with("\r\n\r\nmessage"));
        let (_, request) = sent(response("200 OK", "", b""), true);
        assert!(String::from_utf8_lossy(&request).to_lowercase().contains("content-encoding: gzip"));
    }

    #[test]
    fn a_date_says_when_to_try_again() {
        assert_eq!(retry_after("12"), Some(Duration::from_secs(12)));
        let later = SystemTime::now() + Duration::from_secs(3600);
        assert!(retry_after(&httpdate::fmt_http_date(later)).unwrap() > Duration::from_secs(60));
        assert_eq!(retry_after("soon"), None);
    }

    #[test]
    fn files_without_certificates_are_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let endpoint = Endpoint {
            certificate: Some(file.path().to_owned()),
            ..endpoint("https://127.0.0.1:1".to_owned())
        };
        let error = Client::new(&endpoint).err().unwrap().to_string();
        assert!(error.contains("there is no certificate in it"), "{error}");
    }
}
