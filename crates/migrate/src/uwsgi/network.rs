//! uWSGI's addresses, TLS, proxies and limits of requests.

use serde_json::{Value, json};

use super::migration::Uwsgi;
use crate::address::{plain, with_protocol};
use crate::draft::{Draft, Entry, Refused, Verdict};

/// An address of uWSGI as `bind` has it: without a colon it is the path of a unix socket.
pub(super) fn address(draft: &Draft, text: &str) -> String {
    let text = text.trim();
    let is_path = text.starts_with(['/', '.']) || !text.contains(':');
    if is_path { format!("unix:{}", draft.path(text)) } else { plain(text, |path| draft.path(path)) }
}

/// Maps an option, if it is one of these.
pub(super) fn map(uwsgi: &mut Uwsgi, entry: &Entry) -> Result<bool, Refused> {
    let protocol = match entry.key.as_str() {
        "http" | "httprouter" | "http_socket" | "http11_socket" => "http",
        "https" | "https2" | "https_socket" => return https(uwsgi, entry).map(|()| true),
        "socket" | "uwsgi_socket" => match uwsgi.value(&["protocol", "socket_protocol"]).as_deref() {
            Some("http") => "http",
            Some("fastcgi") => "fastcgi",
            Some("scgi") => "scgi",
            _ => "uwsgi",
        },
        "fastcgi_socket" => "fastcgi",
        "scgi_socket" => "scgi",
        _ => return requests(uwsgi, entry),
    };
    let text = match entry.value.strip_prefix('=') {
        // It is a number of a shared socket.
        Some(number) => match shared(uwsgi, number) {
            Some(address) => address,
            None => return Err(entry.refuse(format_args!("there is no {number}. shared-socket"))),
        },
        None => entry.value.clone(),
    };
    if text.starts_with('@') {
        uwsgi.draft.missing(entry, "sockets in the abstract namespace are not supported: name a path");
        return Ok(true);
    }
    let bind = with_protocol(protocol, &address(&uwsgi.draft, &text));
    let bind = ("bind", Value::from(bind));
    // It is for a proxy on this machine, and passes on what that says of its clients.
    let values = match entry.key.as_str() {
        "http_socket" | "http11_socket" if !uwsgi.draft.has("trusted_proxies") => {
            vec![bind, ("trusted_proxies", json!(["127.0.0.1", "::1", "unix"]))]
        }
        _ => vec![bind],
    };
    uwsgi.draft.note(entry, Verdict::Mapped, &values)?;
    Ok(true)
}

/// The address of a shared socket.
fn shared(uwsgi: &Uwsgi, number: &str) -> Option<String> {
    let number: usize = number.split(',').next()?.parse().ok()?;
    let mut shared = uwsgi.entries.iter().filter(|entry| entry.key == "shared_socket");
    shared.nth(number).map(|entry| entry.value.clone())
}

/// `ADDRESS,CERTIFICATE,KEY[,CIPHERS[,CA]]`.
fn https(uwsgi: &mut Uwsgi, entry: &Entry) -> Result<(), Refused> {
    let parts: Vec<&str> = entry.value.split(',').map(str::trim).collect();
    let [position, certificate, key, more @ ..] = parts.as_slice() else {
        return Err(entry.refuse("must be ADDRESS,CERTIFICATE,KEY"));
    };
    let text = match position.strip_prefix('=') {
        Some(number) => shared(uwsgi, number)
            .ok_or_else(|| entry.refuse(format_args!("there is no {number}. shared-socket")))?,
        None => (*position).to_owned(),
    };
    let mut values = vec![
        ("bind", Value::from(format!("https://{}", address(&uwsgi.draft, &text)))),
        ("ssl_certificate", Value::from(uwsgi.draft.path(certificate))),
        ("ssl_private_key", Value::from(uwsgi.draft.path(key))),
    ];
    if let Some(authority) = more.get(1).filter(|text| !text.is_empty()) {
        let is_required = !authority.starts_with('!');
        values.push(("client_ca", Value::from(uwsgi.draft.path(authority.trim_start_matches('!')))));
        values.push(("client_cert", Value::from(if is_required { "optional" } else { "required" })));
    }
    match more.first().filter(|text| !text.is_empty()) {
        Some(_) => {
            uwsgi.draft.change(entry, &values, "ciphers are always the strong ones of TLS 1.2 and 1.3")
        }
        None => uwsgi.draft.note(entry, Verdict::Mapped, &values),
    }
}

/// What belongs to addresses and to requests.
fn requests(uwsgi: &mut Uwsgi, entry: &Entry) -> Result<bool, Refused> {
    let draft = &mut uwsgi.draft;
    match entry.key.as_str() {
        "shared_socket" => draft.needless(entry, "the option that names its number has the address"),
        "protocol" | "socket_protocol" => draft.needless(entry, "each address has its protocol"),
        "listen" => draft.map(entry, "backlog", json!(entry.number()?))?,
        "chmod_socket" | "chmod" => {
            let mode = if matches!(entry.value.as_str(), "true" | "") { "666" } else { &entry.value };
            draft.map(entry, "socket_mode", Value::from(mode))?;
        }
        "http_to" => draft.needless(entry, "requests go to the application without a router between"),
        "http_to_https" => {
            let to = plain(&entry.value, str::to_owned);
            draft.map(entry, "redirect_https", Value::from(to))?;
        }
        "http_keepalive" => match entry.value.parse::<u64>() {
            Ok(seconds) if seconds > 1 => draft.map(entry, "keepalive_timeout", json!(seconds))?,
            _ => draft.needless(entry, "connections are kept open between requests"),
        },
        "http_timeout" | "socket_timeout" => {
            let values =
                [("body_timeout", json!(entry.number()?)), ("write_timeout", json!(entry.number()?))];
            draft.change(entry, &values, "it limits how long a client sends or takes nothing")?;
        }
        "buffer_size" => {
            let bytes = entry.number()?.clamp(256, 16 << 20);
            draft.map(entry, "fields_max_bytes", json!(bytes))?;
        }
        "max_vars" => {
            draft.change(
                entry,
                &[("fields_max", json!(entry.number()?))],
                "it counts fields, not all variables",
            )?;
        }
        "post_buffering" | "post_buffering_bufsize" => {
            draft.needless(entry, "bodies are received, in memory and files, before the application runs");
        }
        "enable_proxy_protocol" | "http_enable_proxy_protocol" => {
            draft.missing(entry, "use proxy_protocol with trusted_proxies, the addresses of the proxies");
        }
        "log_x_forwarded_for" => {
            let values = [("trusted_proxies", json!(["127.0.0.1", "::1", "unix"]))];
            draft.change(entry, &values, "only proxies that are trusted are believed")?;
        }
        "http_websockets" => draft.needless(entry, "connections may become WebSockets"),
        _ => return Ok(false),
    }
    Ok(true)
}
