//! An environ as a request's head, what became of that in the environ again, and a response's head for `start_response`.

use std::borrow::Cow;
use std::net::SocketAddr;

use anygate_proto::application::Endpoints;
use anygate_proto::cgi::{self, Decoded, Mount};
use anygate_proto::head::{RequestHead, ResponseHead};
use anygate_wsgi::ffi::{latin1, latin1_bytes};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyString};

/// Variables that say something about a request, beside its fields. Some servers put those of the machine beside them.
const VARIABLES: [&[u8]; 12] = [
    b"CONTENT_LENGTH",
    b"CONTENT_TYPE",
    b"PATH_INFO",
    b"QUERY_STRING",
    b"REMOTE_ADDR",
    b"REMOTE_PORT",
    b"REQUEST_METHOD",
    b"REQUEST_URI",
    b"SCRIPT_NAME",
    b"SERVER_NAME",
    b"SERVER_PORT",
    b"SERVER_PROTOCOL",
];

/// Takes the port out of a REMOTE_ADDR, where some servers put it: `192.0.2.1:4711`, `[2001:db8::1]:4711`.
pub(super) fn part_peer(environ: &Bound<'_, PyDict>) -> PyResult<()> {
    let Some(peer) = environ.get_item("REMOTE_ADDR")? else { return Ok(()) };
    let Ok(peer) = peer.extract::<String>() else { return Ok(()) };
    // The address of a socket as it is written, which an address without a port is not.
    if let Ok(peer) = peer.parse::<SocketAddr>() {
        environ.set_item("REMOTE_ADDR", peer.ip().to_canonical().to_string())?;
        environ.set_item("REMOTE_PORT", peer.port().to_string())?;
    }
    Ok(())
}

/// Returns the address of the peer, as far as an environ says it.
pub(super) fn peer(environ: &Bound<'_, PyDict>) -> PyResult<String> {
    environ.get_item("REMOTE_ADDR")?.map_or(Ok(String::new()), |peer| Ok(peer.extract().unwrap_or_default()))
}

/// Whether its server has taken off the fields in which proxies name clients, so that it is not known whether there was one.
///
/// waitress does, unless it was told otherwise, and shows itself by its connection.
pub(super) fn hides_proxies(environ: &Bound<'_, PyDict>) -> PyResult<bool> {
    let Some(connection) = environ.get_item("waitress.client_disconnected")? else { return Ok(false) };
    let clears = || -> PyResult<bool> {
        connection.getattr("__self__")?.getattr("adj")?.getattr("clear_untrusted_proxy_headers")?.is_truthy()
    };
    // One that is built otherwise may do so, too.
    Ok(clears().unwrap_or(true))
}

/// Reads the request that an environ describes.
///
/// Errors: it describes none, as for a front server's.
pub(super) fn read(environ: &Bound<'_, PyDict>, head: &mut RequestHead) -> Result<Decoded, cgi::Error> {
    let variable = |name: &str| environ.get_item(name).ok().flatten()?.cast_into::<PyString>().ok();
    let mut variables = Vec::with_capacity(environ.len());
    for (name, value) in environ.iter() {
        if let (Ok(name), Ok(value)) = (name.cast_into::<PyString>(), value.cast_into::<PyString>()) {
            let is_wanted = latin1_bytes(&name)
                .is_some_and(|name| name.starts_with(b"HTTP_") || VARIABLES.contains(&name));
            if is_wanted {
                variables.push((name, value));
            }
        }
    }
    let mut add = |name, value| variables.push((PyString::intern(environ.py(), name), value));
    // As front servers call them.
    if let Some(scheme) = variable("wsgi.url_scheme") {
        add("REQUEST_SCHEME", scheme);
    }
    if let (None, Some(target)) = (variable("REQUEST_URI"), variable("RAW_URI")) {
        add("REQUEST_URI", target);
    }
    let bytes: Vec<_> = variables.iter().map(|(name, value)| (octets(name), octets(value))).collect();
    let peer = variable("REMOTE_ADDR").map(|peer| peer.to_string_lossy().into_owned()).unwrap_or_default();
    let unnamed = if peer.is_empty() || peer.starts_with("unix") {
        // A peer without an address is on a unix socket.
        Endpoints::local()
    } else {
        // Unless it has an address, nothing is known of it: it must not pass for a trusted peer.
        Endpoints { unix: false, remote_addr: "0.0.0.0".into(), ..Endpoints::local() }
    };
    let variables = bytes.iter().map(|(name, value)| (name.as_ref(), value.as_ref()));
    let decoded = cgi::decode(variables, &Mount::AsGiven, &unnamed, head)?;
    // That the body's length is not known matters to some.
    if let Some(coding) =
        variable("HTTP_TRANSFER_ENCODING").filter(|coding| !coding.is_empty().unwrap_or(true))
    {
        let (name, value) = (head.push_text(b"transfer-encoding")?, head.push_text(&octets(&coding))?);
        head.push_field(name, value);
    }
    Ok(decoded)
}

/// Whether the client spoke TLS, as far as the server knows.
pub(super) fn is_https(environ: &Bound<'_, PyDict>) -> PyResult<bool> {
    environ.get_item("wsgi.url_scheme")?.map_or(Ok(false), |scheme| scheme.eq("https"))
}

/// The bytes of a native string (PEP 3333, "Unicode Issues"); of a server that breaks the rule, those of UTF-8.
fn octets<'a>(text: &'a Bound<'_, PyString>) -> Cow<'a, [u8]> {
    match latin1_bytes(text) {
        Some(bytes) => Cow::Borrowed(bytes),
        None => Cow::Owned(text.to_string_lossy().into_owned().into_bytes()),
    }
}

/// Puts fields that differ into the environ.
pub(super) fn tell_fields(
    environ: &Bound<'_, PyDict>,
    before: &RequestHead,
    head: &RequestHead,
) -> PyResult<()> {
    let py = environ.py();
    for (name, _) in before.fields().filter(|(name, _)| value(head, name).is_none()) {
        environ.call_method1(intern!(py, "pop"), (key(py, name)?, py.None()))?;
    }
    for (name, new) in head.fields().filter(|(name, new)| value(before, name) != Some(*new)) {
        environ.set_item(key(py, name)?, latin1(py, new)?)?;
    }
    Ok(())
}

/// Puts the path and the query that a rule has changed into the environ.
pub(super) fn tell_path(
    environ: &Bound<'_, PyDict>,
    before: &RequestHead,
    head: &RequestHead,
) -> PyResult<()> {
    let py = environ.py();
    if head.path() != before.path() {
        environ.set_item("PATH_INFO", latin1(py, head.path())?)?;
        environ.set_item("SCRIPT_NAME", latin1(py, head.script_name())?)?;
    }
    if head.query() != before.query() {
        environ.set_item("QUERY_STRING", latin1(py, head.query())?)?;
    }
    Ok(())
}

/// Puts into the environ who the user is, if the policies have found out. What the server says of that does not count then.
pub(super) fn tell_user(environ: &Bound<'_, PyDict>, head: &RequestHead) -> PyResult<()> {
    let py = environ.py();
    // Variables of the server are not in the head.
    if head.variables().next().is_some() {
        environ.call_method1(intern!(py, "pop"), (intern!(py, "REMOTE_USER"), py.None()))?;
    }
    for (name, value) in head.variables() {
        environ.set_item(latin1(py, name)?, latin1(py, value)?)?;
    }
    Ok(())
}

fn value<'h>(head: &'h RequestHead, name: &[u8]) -> Option<&'h [u8]> {
    let mut fields = head.fields().filter(|(other, _)| other.eq_ignore_ascii_case(name));
    fields.next().map(|(_, value)| value)
}

/// Puts what trusted proxies said into the environ.
pub(super) fn tell_ends(
    environ: &Bound<'_, PyDict>,
    before: &RequestHead,
    head: &RequestHead,
    endpoints: &Endpoints,
) -> PyResult<()> {
    let py = environ.py();
    environ.set_item("REMOTE_ADDR", endpoints.remote_addr.as_str())?;
    if endpoints.remote_port.is_empty() {
        environ.call_method1(intern!(py, "pop"), ("REMOTE_PORT", py.None()))?;
    } else {
        environ.set_item("REMOTE_PORT", endpoints.remote_port.as_str())?;
    }
    environ.set_item("SERVER_PORT", endpoints.server_port.as_str())?;
    environ.set_item("wsgi.url_scheme", if endpoints.https { "https" } else { "http" })?;
    if endpoints.https {
        environ.set_item("HTTPS", "on")?;
    }
    if head.authority() != before.authority() {
        environ.set_item("HTTP_HOST", latin1(py, head.authority())?)?;
    }
    environ.set_item("SCRIPT_NAME", latin1(py, head.script_name())?)
}

/// `x-request-id` to `HTTP_X_REQUEST_ID`.
fn key<'py>(py: Python<'py>, name: &[u8]) -> PyResult<Bound<'py, PyString>> {
    let upper = name.iter().map(|byte| if *byte == b'-' { b'_' } else { byte.to_ascii_uppercase() });
    latin1(py, &b"HTTP_".iter().copied().chain(upper).collect::<Vec<_>>())
}

/// Status and headers as `start_response` takes them.
pub(super) fn head_in_python<'py>(
    py: Python<'py>,
    head: &ResponseHead,
) -> PyResult<(Bound<'py, PyString>, Bound<'py, PyList>)> {
    let status = [head.status().to_string().as_bytes(), b" ", head.reason()].concat();
    let headers = PyList::empty(py);
    for (name, value) in head.fields() {
        headers.append((latin1(py, name)?, latin1(py, value)?))?;
    }
    Ok((latin1(py, &status)?, headers))
}
