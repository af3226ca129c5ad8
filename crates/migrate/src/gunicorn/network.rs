//! gunicorn's addresses, TLS, proxies and limits of requests.

use serde_json::{Value, json};

use super::migration::{Gunicorn, number};
use super::settings::Setting;
use crate::address::{plain, proxies, with_protocol};
use crate::draft::{Entry, Refused, Verdict};

/// Maps a setting, if it is one of these.
pub(super) fn map(gunicorn: &mut Gunicorn, setting: &Setting, entry: &Entry) -> Result<bool, Refused> {
    match setting.name.as_str() {
        "bind" => bind(gunicorn, setting, entry)?,
        "protocol" => gunicorn.draft.needless(entry, "bind has the protocol of each address"),
        "forwarded_allow_ips" => {
            let how = "REMOTE_ADDR is the address of the client, not of the proxy";
            gunicorn.draft.trust(entry, &entry.value, Some(how))?;
        }
        "secure_scheme_headers" => scheme(gunicorn, setting, entry)?,
        "forwarder_headers" => {
            gunicorn.draft.needless(entry, "X-Forwarded-Proto and its like are taken from trusted_proxies");
        }
        "proxy_protocol" if matches!(entry.value.as_str(), "off" | "false") => {
            gunicorn.draft.needless(entry, "it is off");
        }
        "proxy_protocol" => {
            let allowed = gunicorn.text("proxy_allow_ips").unwrap_or("127.0.0.1,::1");
            let values =
                [("proxy_protocol", Value::Bool(true)), ("trusted_proxies", json!(proxies(allowed)))];
            gunicorn.draft.note(entry, Verdict::Mapped, &values)?;
        }
        "proxy_allow_ips" => match gunicorn.text("proxy_protocol") {
            Some("off") | None if gunicorn.value("proxy_protocol") != Some(&Value::Bool(true)) => {
                gunicorn.draft.needless(entry, "proxy_protocol is off");
            }
            _ => gunicorn.draft.trust(entry, &entry.value, None)?,
        },
        "uwsgi_allow_ips" => {
            gunicorn.draft.missing(entry, "use allow, or an address that only the front server reaches");
        }
        "limit_request_line" => {
            let bytes = entry.number()?;
            let bytes = if bytes == 0 { 1 << 20 } else { bytes.clamp(64, 1 << 20) };
            gunicorn.draft.map(entry, "request_line_max_bytes", json!(bytes))?;
        }
        "limit_request_fields" => {
            gunicorn.draft.map(entry, "fields_max", json!(entry.number()?.clamp(1, 10_000)))?;
        }
        "limit_request_field_size" => {
            // One field may be as large as all together here.
            let bytes = number(&setting.value).unwrap_or_default();
            let bytes = if bytes == 0 { 16 << 20 } else { bytes.clamp(1 << 16, 16 << 20) };
            gunicorn.draft.change(
                entry,
                &[("fields_max_bytes", json!(bytes))],
                "it limits all fields together",
            )?;
        }
        "certfile" | "keyfile" | "ca_certs" => {
            let option = match setting.name.as_str() {
                "certfile" => "ssl_certificate",
                "keyfile" => "ssl_private_key",
                _ => "client_ca",
            };
            let path = gunicorn.draft.path(&entry.value);
            gunicorn.draft.map(entry, option, json!(path))?;
        }
        "cert_reqs" => match number(&setting.value) {
            Some(2) => gunicorn.draft.map(entry, "client_cert", json!("required"))?,
            Some(1) => gunicorn.draft.map(entry, "client_cert", json!("optional"))?,
            _ => gunicorn.draft.needless(entry, "clients are asked for certificates only with client_ca"),
        },
        "ssl_context" => {
            gunicorn.draft.missing(entry, "TLS is not Python's: use ssl_certificate and its like")
        }
        name if name.starts_with("http2_") || name == "http_protocols" || name == "http_parser" => {
            gunicorn.draft.needless(entry, "HTTP/1.1 and HTTP/2 are always accepted");
        }
        _ => return Ok(false),
    }
    Ok(true)
}

/// The fields by which a proxy says that its client came over TLS; one of them is known here.
fn scheme(gunicorn: &mut Gunicorn, setting: &Setting, entry: &Entry) -> Result<(), Refused> {
    let fields = setting.value.get("table").and_then(Value::as_object).cloned().unwrap_or_default();
    let is_known =
        |name: &str, value: &Value| name.eq_ignore_ascii_case("X-Forwarded-Proto") && value == "https";
    let is_same = fields.iter().any(|(name, value)| is_known(name, value));
    match (is_same, fields.len()) {
        (true, 1) => gunicorn.draft.needless(entry, "trusted_proxies say it by X-Forwarded-Proto"),
        (true, _) => {
            let how = "trusted_proxies say it by X-Forwarded-Proto, and by no other field";
            gunicorn.draft.change(entry, &[], how)?;
        }
        (false, _) => gunicorn.draft.missing(
            entry,
            "have the proxy set X-Forwarded-Proto to http or https, or Forwarded with forwarded_header",
        ),
    }
    Ok(())
}

/// One address or several.
fn bind(gunicorn: &mut Gunicorn, setting: &Setting, entry: &Entry) -> Result<(), Refused> {
    let protocol = match gunicorn.text("protocol") {
        Some("uwsgi") => "uwsgi",
        _ => "http",
    };
    let all = match &setting.value {
        Value::Array(items) => items.clone(),
        item => vec![item.clone()],
    };
    let draft = &mut gunicorn.draft;
    let addresses = all.iter().filter_map(Value::as_str).flat_map(|text| text.split(','));
    let addresses: Vec<_> = addresses
        .map(|text| {
            let address = plain(text, |path| draft.path(path));
            // A name alone has gunicorn's port; a port alone is one of all addresses.
            let address = match address.contains(':') {
                true => address,
                false if address.bytes().all(|byte| byte.is_ascii_digit()) => format!(":{address}"),
                false => format!("{address}:8000"),
            };
            with_protocol(protocol, &address)
        })
        .collect();
    draft.values.remove("bind");
    draft.map(entry, "bind", json!(addresses))
}
