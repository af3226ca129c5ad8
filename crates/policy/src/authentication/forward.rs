//! Requests that another server authenticates: what it is asked, and what becomes of its response. Any doubt keeps the client
//! out.

use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};

use anygate_config::site::ForwardAuthPlan;
use anygate_lock::Mutex;
use anygate_proto::head::{RequestHead, ResponseHead};
use std::time::Duration;

use super::subrequest::{NoResponse, Response, Server};
use crate::network::Client;
use crate::refusal::Refusal;

/// When those who cannot be authenticated now may come again.
const RETRY_AFTER: Duration = Duration::from_secs(5);
/// Fields of a request that are about its connection, its body, or a condition on the application's response; and those that
/// say something which only we can know.
const OWN: [&str; 24] = [
    "accept-encoding",
    "connection",
    "content-encoding",
    "content-length",
    "expect",
    "forwarded",
    "host",
    "http2-settings",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-range",
    "if-unmodified-since",
    "keep-alive",
    "proxy",
    "proxy-authorization",
    "proxy-connection",
    "range",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "via",
    "x-real-ip",
];
/// Beginnings of names of more such fields.
const OWN_BEGINNINGS: [&str; 3] = ["sec-websocket-", "x-forwarded-", "x-original-"];
/// Fields of a response that go to the client.
const PASSED_ON: [&str; 9] = [
    "cache-control",
    "content-language",
    "content-type",
    "expires",
    "location",
    "retry-after",
    "set-cookie",
    "vary",
    "www-authenticate",
];

/// An area for which another server is asked.
#[derive(Debug)]
pub(super) struct Forward {
    plan: ForwardAuthPlan,
    server: Server,
    /// The server has failed since it was last well.
    is_failing: AtomicBool,
    /// What was last said about that.
    trouble: Mutex<Option<String>>,
}

/// What the client gets instead of the application's response.
#[derive(Debug)]
pub(crate) enum Denied {
    /// A response of ours.
    Refused(Refusal),
    /// The response of the other server.
    Told(ResponseHead, Vec<u8>),
}

impl From<Refusal> for Denied {
    fn from(refusal: Refusal) -> Self {
        Denied::Refused(refusal)
    }
}

/// What the other server says of a request that may come in.
#[derive(Debug, Default)]
pub(super) struct Admitted {
    /// Who the user is: fields of the request.
    pub(super) identity: Vec<(String, Vec<u8>)>,
    /// Values of Set-Cookie for the client.
    pub(super) cookies: Vec<Vec<u8>>,
}

impl Forward {
    pub(super) fn new(plan: &ForwardAuthPlan) -> Forward {
        Forward {
            plan: plan.clone(),
            server: Server::new(&plan.address),
            is_failing: AtomicBool::new(false),
            trouble: Mutex::default(),
        }
    }

    /// Names of the fields that say who the user is, that of the user first.
    pub(super) fn fields(&self) -> &[String] {
        &self.plan.fields
    }

    /// Asks about a request, and waits for the response.
    pub(super) fn check(&self, head: &RequestHead, client: Client, https: bool) -> Result<Admitted, Denied> {
        let request = self.request(head, client, https);
        let response = self.server.ask(self.plan.timeout, &request, |status| status >= 300);
        let denied = match response {
            Ok(response) if (200..300).contains(&response.status) => {
                self.recovered();
                return Ok(self.passed(response));
            }
            Ok(response) if (300..500).contains(&response.status) => match told(response) {
                Some(told) => {
                    self.recovered();
                    return Err(told);
                }
                None => {
                    self.failed("its response cannot be passed on".to_owned());
                    Refusal::bad_gateway()
                }
            },
            Ok(response) => {
                self.failed(format!("it responded with {}", response.status));
                Refusal::bad_gateway()
            }
            Err(error) => {
                self.failed(error.to_string());
                match error {
                    NoResponse::Malformed => Refusal::bad_gateway(),
                    NoResponse::Io(_) | NoResponse::Timeout => Refusal::unavailable(RETRY_AFTER),
                }
            }
        };
        Err(denied.into())
    }

    /// The question: what the client sent, without its body.
    fn request(&self, head: &RequestHead, client: Client, https: bool) -> Vec<u8> {
        let mut text = Vec::new();
        let mut push = |parts: &[&[u8]]| parts.iter().for_each(|part| text.extend_from_slice(part));
        push(&[b"GET ", self.plan.target.as_bytes(), b" HTTP/1.1\r\nHost: ", self.plan.host.as_bytes()]);
        push(&[b"\r\n"]);
        let (method, host, target) = (head.method(), head.authority(), target(head));
        let scheme: &[u8] = if https { b"https" } else { b"http" };
        for name in ["X-Forwarded-Method", "X-Original-Method"] {
            push(&[name.as_bytes(), b": ", method, b"\r\n"]);
        }
        push(&[b"X-Forwarded-Proto: ", scheme, b"\r\nX-Forwarded-Host: ", host]);
        push(&[b"\r\nX-Forwarded-Uri: ", &target]);
        push(&[b"\r\nX-Original-URL: ", scheme, b"://", host, &target, b"\r\n"]);
        if let Client::Address(address) = client {
            push(&[b"X-Forwarded-For: ", address.to_string().as_bytes(), b"\r\n"]);
        }
        let named = named_by_connection(head);
        for (name, value) in head.fields() {
            let is_named = named.iter().any(|other| name.eq_ignore_ascii_case(other));
            // Values have no line ends (see `RequestHead`); if that ever fails, nothing of them may become a field.
            let is_value = !value.iter().any(|byte| matches!(byte, b'\r' | b'\n' | 0));
            if !is_own(name) && !is_named && is_value {
                push(&[name, b": ", value, b"\r\n"]);
            }
        }
        push(&[b"\r\n"]);
        text
    }

    fn passed(&self, response: Response) -> Admitted {
        let mut told = Admitted::default();
        let own = |name: &str| self.plan.fields.iter().find(|own| own.eq_ignore_ascii_case(name)).cloned();
        for (name, value) in response.fields {
            let value = value.trim_ascii().to_vec();
            if name.eq_ignore_ascii_case("set-cookie") {
                told.cookies.push(value.clone());
            }
            if let Some(own) = own(&name) {
                told.identity.push((own, value));
            }
        }
        told
    }

    /// Logs each cause once.
    fn failed(&self, trouble: String) {
        self.is_failing.store(true, Ordering::Relaxed);
        let mut last = self.trouble.lock();
        if last.as_ref() != Some(&trouble) {
            tracing::error!(
                "forward_auth: cannot ask {}: {trouble}; nobody gets in meanwhile",
                self.plan.host
            );
            *last = Some(trouble);
        }
    }

    fn recovered(&self) {
        if self.is_failing.swap(false, Ordering::Relaxed) {
            tracing::info!("forward_auth: {} responds again", self.plan.host);
            *self.trouble.lock() = None;
        }
    }
}

/// The response for the client; `None` if it is none.
fn told(response: Response) -> Option<Denied> {
    let mut head = ResponseHead::new();
    let line = format!("{} {}", response.status, response.reason);
    head.set_status_line(line.trim_end().as_bytes()).ok()?;
    for (name, value) in &response.fields {
        if PASSED_ON.iter().any(|known| name.eq_ignore_ascii_case(known)) {
            head.push_field(name.as_bytes(), value).ok()?;
        }
    }
    Some(Denied::Told(head, response.body))
}

fn is_own(name: &[u8]) -> bool {
    // An underscore may be read as a hyphen.
    let is = |own: &str| same(name, own.as_bytes());
    let begins = |own: &&str| name.get(..own.len()).is_some_and(|start| same(start, own.as_bytes()));
    OWN.iter().any(|own| is(own)) || OWN_BEGINNINGS.iter().any(begins)
}

/// Whether a field is that of a name, be it spelled with underscores.
pub(super) fn same(name: &[u8], other: &[u8]) -> bool {
    let plain = |byte: &u8| if *byte == b'_' { b'-' } else { byte.to_ascii_lowercase() };
    name.len() == other.len() && name.iter().map(plain).eq(other.iter().map(plain))
}

/// Names of fields that are about the connection only (RFC 9110 section 7.6.1).
fn named_by_connection(head: &RequestHead) -> Vec<&[u8]> {
    let fields = head.fields().filter(|(name, _)| name.eq_ignore_ascii_case(b"connection"));
    fields.flat_map(|(_, value)| value.split(|&byte| byte == b',').map(<[u8]>::trim_ascii)).collect()
}

/// The path and query that the application sees, as a target.
fn target(head: &RequestHead) -> Vec<u8> {
    if let Some(own) = head.own_target()
        && own.iter().all(u8::is_ascii_graphic)
    {
        return own.to_vec();
    }
    let mut target = Vec::new();
    let mut push = |bytes: &[u8], kept: &[u8]| {
        for byte in bytes {
            if byte.is_ascii_alphanumeric() || kept.contains(byte) {
                target.push(*byte);
            } else {
                // Writing to memory cannot fail.
                let _ = write!(target, "%{byte:02X}");
            }
        }
    };
    let mount = head.script_name();
    push(mount.strip_prefix(head.prefix()).unwrap_or(mount), b"-._~/!$&'()*+,;=:@");
    push(head.path(), b"-._~/!$&'()*+,;=:@");
    if !head.query().is_empty() {
        push(b"?", b"?");
        push(head.query(), b"-._~/!$&'()*+,;=:@?%");
    }
    target
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures;
    use anygate_config::site::ServerAddress;
    use std::net::IpAddr;

    fn forward() -> Forward {
        Forward::new(&ForwardAuthPlan {
            prefix: "/".to_owned(),
            address: ServerAddress::Unix("/nowhere/auth".into()),
            host: "auth".to_owned(),
            target: "/verify".to_owned(),
            fields: vec!["Remote-User".to_owned(), "Remote-Groups".to_owned()],
            timeout: Duration::from_secs(5),
        })
    }

    #[test]
    fn a_request_is_described_and_not_repeated() {
        let fields = [
            ("Cookie", "session=1"),
            ("X-Forwarded-Uri", "/public"),
            ("X_Forwarded_Uri", "/public"),
            ("x-original-url", "http://a/public"),
            ("Connection", "close, X-Mine"),
            ("X-Mine", "1"),
            ("Content-Length", "5"),
            ("Transfer-Encoding", "chunked"),
            ("Sec-WebSocket-Key", "x"),
            ("If-None-Match", "*"),
            ("Accept-Encoding", "gzip"),
            ("X-Split", "a\r\nRemote-User: root"),
        ];
        let mut head = fixtures::request("POST", "/a%20b?c=d", &fields);
        let host = head.push_text(b"site.example").unwrap();
        head.set_authority(host);
        let client = Client::from(IpAddr::from([192, 0, 2, 1]));
        assert_eq!(
            String::from_utf8(forward().request(&head, client, true)).unwrap(),
            "GET /verify HTTP/1.1\r\nHost: auth\r\n\
             X-Forwarded-Method: POST\r\nX-Original-Method: POST\r\n\
             X-Forwarded-Proto: https\r\nX-Forwarded-Host: site.example\r\nX-Forwarded-Uri: /a%20b?c=d\r\n\
             X-Original-URL: https://site.example/a%20b?c=d\r\nX-Forwarded-For: 192.0.2.1\r\n\
             Cookie: session=1\r\n\r\n"
        );
    }

    #[test]
    fn the_target_is_what_the_application_sees() {
        let mut head = fixtures::request("GET", "/public", &[]);
        let path = head.push_text(b"/admin \r\n\xff").unwrap();
        head.set_path(path);
        assert_eq!(target(&head), b"/admin%20%0D%0A%FF");
        let query = head.push_text(b"a=%20 b").unwrap();
        head.set_query(query);
        assert_eq!(target(&head), b"/admin%20%0D%0A%FF?a=%20%20b");
    }

    #[test]
    fn only_named_fields_identify() {
        let field = |name: &str, value: &str| (name.to_owned(), value.as_bytes().to_vec());
        let mut fields =
            vec![field("remote-user", " joe "), field("X-Admin", "1"), field("REMOTE-GROUPS", "a")];
        fields.push(field("set-cookie", "a=b"));
        let response = Response { status: 200, fields, ..Response::default() };
        let told = forward().passed(response);
        assert_eq!(told.identity, [field("Remote-User", "joe"), field("Remote-Groups", "a")]);
        assert_eq!(told.cookies, [b"a=b"]);
    }

    #[test]
    fn a_server_that_is_not_there_keeps_clients_out() {
        let denied = forward().check(&fixtures::request("GET", "/", &[]), Client::Unix, false);
        assert!(matches!(denied, Err(Denied::Refused(refusal)) if refusal.head().status() == 503));
    }
}
