//! waitress: its command line, and its settings in a file of Paste.

use serde_json::{Value, json};

use crate::address::plain;
use crate::draft::{Draft, Entry, Position, Refused};

/// Options that have no value; each has an opposite that begins with `no-`.
const FLAGS: &[&str] = &[
    "call",
    "expose_tracebacks",
    "ipv4",
    "ipv6",
    "asyncore_use_poll",
    "log_socket_errors",
    "log_untrusted_proxy_headers",
    "clear_untrusted_proxy_headers",
];

/// Imports the words behind `waitress-serve`.
pub(crate) fn command(words: &[String], position: &Position) -> Result<Draft, Refused> {
    let mut entries = Vec::new();
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let Some(long) = word.strip_prefix("--") else {
            entries.push(entry(position, "app", word, word));
            continue;
        };
        match long.split_once('=') {
            Some((name, value)) => entries.push(entry(position, name, value, word)),
            None => {
                let name = long.replace('-', "_");
                match name.strip_prefix("no_").filter(|name| FLAGS.contains(name)) {
                    Some(name) => entries.push(entry(position, name, "false", word)),
                    None if FLAGS.contains(&name.as_str()) => {
                        entries.push(entry(position, &name, "true", word))
                    }
                    None => {
                        let value = words.next();
                        let value =
                            value.ok_or_else(|| position.refuse(format_args!("{word} needs a value")))?;
                        entries.push(entry(position, &name, value, &format!("{word} {value}")));
                    }
                }
            }
        }
    }
    map(&entries, position)
}

fn entry(position: &Position, name: &str, value: &str, typed: &str) -> Entry {
    let key = name.replace('-', "_");
    Entry { position: position.clone(), key, value: value.to_owned(), typed: typed.to_owned() }
}

/// Makes our settings of all.
pub(crate) fn map(entries: &[Entry], position: &Position) -> Result<Draft, Refused> {
    let mut draft = Draft::default();
    let last =
        |key: &str| entries.iter().rev().find(|entry| entry.key == key).map(|entry| entry.value.clone());
    for entry in entries {
        match entry.key.as_str() {
            "app" => {
                let call = last("call").is_some_and(|value| value == "true") && !entry.value.ends_with(')');
                let target = if call { format!("{}()", entry.value) } else { entry.value.clone() };
                draft.map(entry, "app", json!(target))?;
            }
            "call" if entry.is_on() => draft.needless(entry, "app has parentheses"),
            "listen" => {
                let addresses: Vec<_> =
                    entry.value.split_whitespace().map(|text| plain(text, str::to_owned)).collect();
                draft.map(entry, "bind", json!(addresses))?;
            }
            "host" | "port" => {
                let host = last("host").unwrap_or_else(|| "0.0.0.0".to_owned());
                let host = if host == "*" { "0.0.0.0".to_owned() } else { host };
                let host = if host.contains(':') { format!("[{host}]") } else { host };
                let port = last("port").unwrap_or_else(|| "8080".to_owned());
                draft.map(entry, "bind", json!([format!("{host}:{port}")]))?;
            }
            "unix_socket" => draft.map(entry, "bind", json!([format!("unix:{}", entry.value)]))?,
            "ipv4" | "ipv6" => draft.needless(entry, "the address says it"),
            "trusted_proxy" => draft.trust(entry, &entry.value, None)?,
            "trusted_proxy_count" => {
                draft.change(entry, &[], "proxies are those of trusted_proxies, however many there are")?;
            }
            "trusted_proxy_headers" => {
                let kind = if entry.value.split_whitespace().any(|name| name == "forwarded") {
                    "forwarded"
                } else {
                    "x-forwarded"
                };
                draft.map(entry, "forwarded_header", json!(kind))?;
            }
            "url_scheme" if entry.value == "http" => draft.needless(entry, "it is what clients use"),
            "channel_timeout" => {
                let seconds = json!(entry.number()?.max(1));
                let names = ["keepalive_timeout", "body_timeout", "write_timeout"];
                let values = names.map(|name| (name, seconds.clone()));
                draft.change(
                    entry,
                    &values,
                    "it limits how long a connection is idle in each of its states",
                )?;
            }
            "cleanup_interval" => {
                draft.needless(entry, "connections are closed as soon as their time is over")
            }
            "max_request_header_size" => {
                let bytes = entry.number()?.clamp(256, 16 << 20);
                draft.map(entry, "fields_max_bytes", json!(bytes))?;
            }
            "outbuf_overflow" | "outbuf_high_watermark" => {
                let bytes = entry.number()?.clamp(4096, 1 << 30);
                draft.map(entry, "response_memory_max_bytes", json!(bytes))?;
            }
            "inbuf_overflow" => {
                draft
                    .needless(entry, "bodies are received, in memory and files, before the application runs");
            }
            "ident" | "server_name" => draft.map(entry, "server_header", json!(entry.value))?,
            "send_bytes" => draft.needless(entry, "as much as the client takes is sent at once"),
            "use" => draft.needless(entry, "the server is anygate"),
            _ => draft.by_table(entry, true)?,
        }
    }
    defaults(&mut draft, position)?;
    Ok(draft)
}

/// What waitress does unless it is told otherwise.
fn defaults(draft: &mut Draft, position: &Position) -> Result<(), Refused> {
    let default = |typed: &str| entry(position, "", "", &format!("{typed} (waitress' default)"));
    if !draft.has("threads") {
        draft.map(&default("threads = 4"), "threads", json!(4))?;
    }
    if !draft.has("bind") {
        draft.map(&default("listen = 0.0.0.0:8080"), "bind", Value::from(vec!["0.0.0.0:8080"]))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_line_becomes_ours() {
        let words = "--listen=*:8041 --threads 6 --url-prefix=/app --no-expose-tracebacks --call flfac:make";
        let words: Vec<String> = words.split(' ').map(str::to_owned).collect();
        let draft = command(&words, &Position::whole("command line")).unwrap();
        let expected = json!({
            "bind": ["0.0.0.0:8041"], "threads": 6, "script_name": "/app", "debug": false, "app": "flfac:make()",
        });
        assert_eq!(Value::Object(draft.values), expected);
    }
}
