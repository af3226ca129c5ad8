//! `environ`: one dictionary for each request (PEP 3333, "environ Variables"; RFC 3875 section 4.1). What is the same
//! for all requests, and for all of a connection, is copied from a template; keys are made once.

use std::collections::HashMap;

use anygate_proto::application::{Endpoints, Request};
use anygate_proto::head::{RequestHead, Version};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString};

use crate::ffi::{latin1, set_default};
use crate::ignored_fields::tell_of_underscore;
use crate::input::InputStream;

/// Field names that clients and front servers send most, in the spelling of HTTP/1.1 clients; the lower case that others
/// send is added.
const COMMON_FIELDS: &[&str] = &[
    "Accept",
    "Accept-Charset",
    "Accept-Encoding",
    "Accept-Language",
    "Access-Control-Request-Headers",
    "Access-Control-Request-Method",
    "Authorization",
    "Cache-Control",
    "Connection",
    "Content-Encoding",
    "Content-Length",
    "Content-Type",
    "Cookie",
    "DNT",
    "Date",
    "Expect",
    "Forwarded",
    "Host",
    "If-Match",
    "If-Modified-Since",
    "If-None-Match",
    "If-Range",
    "If-Unmodified-Since",
    "Keep-Alive",
    "Origin",
    "Pragma",
    "Priority",
    "Proxy",
    "Range",
    "Referer",
    "Sec-CH-UA",
    "Sec-CH-UA-Mobile",
    "Sec-CH-UA-Platform",
    "Sec-Fetch-Dest",
    "Sec-Fetch-Mode",
    "Sec-Fetch-Site",
    "Sec-Fetch-User",
    "TE",
    "Traceparent",
    "Transfer-Encoding",
    "Upgrade-Insecure-Requests",
    "User-Agent",
    "Via",
    "X-CSRF-Token",
    "X-CSRFToken",
    "X-Forwarded-For",
    "X-Forwarded-Host",
    "X-Forwarded-Port",
    "X-Forwarded-Proto",
    "X-Real-IP",
    "X-Request-ID",
    "X-Requested-With",
];

/// Variables that front servers add most. A client may send a field of such a name, which is not this variable: keys for
/// variables and places for fields are looked up apart.
const COMMON_VARIABLES: &[&str] = &[
    "AUTH_TYPE",
    "CONTEXT_DOCUMENT_ROOT",
    "CONTEXT_PREFIX",
    "DOCUMENT_ROOT",
    "DOCUMENT_URI",
    "PATH_TRANSLATED",
    "REDIRECT_STATUS",
    "REDIRECT_URI",
    "REMOTE_USER",
    "SCRIPT_FILENAME",
    "SERVER_ADDR",
    "SERVER_ADMIN",
    "SERVER_SIGNATURE",
];

/// Key of whether REMOTE_ADDR may be that of a proxy, with a client behind it that is not known.
pub const HIDDEN_CLIENT: &str = "anygate.hidden_client";

/// Decision about a field.
enum FieldRule {
    /// The application does not see it.
    Nowhere,
    /// A key of the dictionary.
    Key(Py<PyString>),
}

/// Makes environs.
pub(crate) struct Environs {
    template: Py<PyDict>,
    names: Names,
    /// Decisions about the fields of clients, by name as received.
    places: HashMap<Box<[u8]>, FieldRule, foldhash::fast::RandomState>,
    /// Keys for the variables of front servers.
    variables: HashMap<&'static [u8], Py<PyString>, foldhash::fast::RandomState>,
    methods: Vec<(&'static [u8], Py<PyString>)>,
}

/// The template of one connection's requests, kept with the connection.
struct ConnectionTemplate {
    environ: Py<PyDict>,
    /// The host that it has, which clients hardly ever change.
    host: Box<[u8]>,
}

macro_rules! names {
    ($($field:ident = $name:expr,)*) => {
        struct Names { $($field: Py<PyString>,)* }

        impl Names {
            fn new(py: Python<'_>) -> Self {
                Names { $($field: PyString::intern(py, $name).unbind(),)* }
            }
        }
    };
}

names! {
    request_method = "REQUEST_METHOD",
    script_name = "SCRIPT_NAME",
    path_info = "PATH_INFO",
    query_string = "QUERY_STRING",
    request_uri = "REQUEST_URI",
    raw_uri = "RAW_URI",
    content_length = "CONTENT_LENGTH",
    http_host = "HTTP_HOST",
    http_cookie = "HTTP_COOKIE",
    server_protocol = "SERVER_PROTOCOL",
    server_name = "SERVER_NAME",
    server_port = "SERVER_PORT",
    remote_addr = "REMOTE_ADDR",
    remote_port = "REMOTE_PORT",
    url_scheme = "wsgi.url_scheme",
    https = "HTTPS",
    input = "wsgi.input",
    hidden_client = HIDDEN_CLIENT,
}

impl Environs {
    /// `template` holds what is the same for every request.
    pub(crate) fn new(py: Python<'_>, template: Bound<'_, PyDict>) -> PyResult<Self> {
        let names = Names::new(py);
        let mut places = HashMap::default();
        for name in COMMON_FIELDS {
            for name in [name.as_bytes().to_vec(), name.to_ascii_lowercase().into_bytes()] {
                let place = place(py, &name)?;
                places.insert(name.into_boxed_slice(), place);
            }
        }
        let text = |text: &str| PyString::intern(py, text).unbind();
        // What most requests have is in the template, so that only the difference must be set.
        template.set_item(&names.request_method, text("GET"))?;
        template.set_item(&names.script_name, "")?;
        template.set_item(&names.path_info, "/")?;
        template.set_item(&names.query_string, "")?;
        template.set_item(&names.request_uri, "/")?;
        template.set_item(&names.raw_uri, "/")?;
        template.set_item(&names.server_protocol, text(Version::Http11.as_str()))?;
        template.set_item(&names.url_scheme, text("http"))?;
        template.set_item(&names.input, Bound::new(py, InputStream::new(None))?)?;
        template.set_item(&names.hidden_client, false)?;
        make_room(&template)?;
        let methods = ["POST", "HEAD", "PUT", "DELETE", "PATCH", "OPTIONS"];
        Ok(Environs {
            template: template.unbind(),
            names,
            places,
            variables: COMMON_VARIABLES.iter().map(|name| (name.as_bytes(), text(name))).collect(),
            methods: methods.iter().map(|method| (method.as_bytes(), text(method))).collect(),
        })
    }

    /// The dictionary of one request.
    pub(crate) fn make<'py>(&self, py: Python<'py>, request: Request<'_>) -> PyResult<Bound<'py, PyDict>> {
        let Request { head, body, endpoints, hidden_client, .. } = request;
        let names = &self.names;
        // RFC 9112 section 3.2.2: an absolute-form target outranks the Host field.
        let host = head.authority();
        let (environ, has_host) = match endpoints.kept.get::<ConnectionTemplate>() {
            Some(template) => (template.environ.bind(py).copy()?, *template.host == *host),
            None => {
                let template = self.connection_template(py, endpoints)?;
                if !host.is_empty() {
                    template.set_item(&names.http_host, latin1(py, host)?)?;
                }
                if endpoints.of_one_request {
                    (template, true)
                } else {
                    let environ = template.copy()?;
                    let host = host.into();
                    endpoints.kept.set(ConnectionTemplate { environ: template.unbind(), host });
                    (environ, true)
                }
            }
        };
        match has_host {
            true => {}
            false if host.is_empty() => environ.del_item(&names.http_host)?,
            false => environ.set_item(&names.http_host, latin1(py, host)?)?,
        }
        if hidden_client {
            environ.set_item(&names.hidden_client, true)?;
        }
        if head.method() != b"GET" {
            match self.methods.iter().find(|(method, _)| *method == head.method()) {
                Some((_, method)) => environ.set_item(&names.request_method, method)?,
                None => environ.set_item(&names.request_method, latin1(py, head.method())?)?,
            }
        }
        if head.version() != Version::Http11 {
            environ.set_item(&names.server_protocol, PyString::intern(py, head.version().as_str()))?;
        }
        if head.target() != b"/" {
            let target = latin1(py, head.target())?;
            environ.set_item(&names.raw_uri, &target)?;
            environ.set_item(&names.request_uri, &target)?;
            if head.path() == head.target() {
                environ.set_item(&names.path_info, target)?;
            }
        }
        if head.path() != head.target() {
            environ.set_item(&names.path_info, latin1(py, head.path())?)?;
        }
        if !head.query().is_empty() {
            environ.set_item(&names.query_string, latin1(py, head.query())?)?;
        }
        if !head.script_name().is_empty() {
            environ.set_item(&names.script_name, latin1(py, head.script_name())?)?;
        }
        for (name, value) in head.variables() {
            match self.variables.get(name) {
                Some(key) => environ.set_item(key, latin1(py, value)?)?,
                None => environ.set_item(latin1(py, name)?, latin1(py, value)?)?,
            }
        }
        let framed = self.fields(&environ, head)?;
        // The length is that of the body as it was received, so it is true for chunked bodies too.
        match body {
            Some(body) => {
                if let Some(length) = body.length() {
                    environ.set_item(&names.content_length, length.to_string())?;
                }
                environ.set_item(&names.input, Bound::new(py, InputStream::new(Some(body)))?)?;
            }
            None if framed => environ.set_item(&names.content_length, "0")?,
            None => {}
        }
        Ok(environ)
    }

    /// Returns the part of the environ that all requests of a connection share.
    fn connection_template<'py>(
        &self,
        py: Python<'py>,
        endpoints: &Endpoints,
    ) -> PyResult<Bound<'py, PyDict>> {
        let template = self.template.bind(py).copy()?;
        let names = &self.names;
        template.set_item(&names.server_name, endpoints.server_name.as_str())?;
        template.set_item(&names.server_port, endpoints.server_port.as_str())?;
        template.set_item(&names.remote_addr, endpoints.remote_addr.as_str())?;
        if !endpoints.remote_port.is_empty() {
            template.set_item(&names.remote_port, endpoints.remote_port.as_str())?;
        }
        if endpoints.https {
            template.set_item(&names.url_scheme, "https")?;
            template.set_item(&names.https, "on")?;
        }
        for (name, value) in &endpoints.variables {
            template.set_item(PyString::intern(py, name), latin1(py, value.as_bytes())?)?;
        }
        Ok(template)
    }

    /// Adds the fields; says whether the request named a length, be it zero.
    fn fields(&self, environ: &Bound<'_, PyDict>, head: &RequestHead) -> PyResult<bool> {
        let py = environ.py();
        let mut framed = false;
        for (name, value) in head.fields() {
            let fresh;
            let place = match self.places.get(name) {
                Some(place) => place,
                None => {
                    fresh = place(py, name)?;
                    &fresh
                }
            };
            let FieldRule::Key(key) = place else {
                framed |= is_framing(name);
                continue;
            };
            let value = latin1(py, value)?;
            // RFC 9110 section 5.3: repeated fields are one, with commas; cookies are joined as RFC 6265 section 5.4 writes
            // them.
            if let Some(before) = set_default(environ, key, &value)? {
                let separator = if key.is(&self.names.http_cookie) { "; " } else { ", " };
                environ.set_item(key, before.add(separator)?.add(value)?)?;
            }
        }
        Ok(framed)
    }
}

/// Gives a dictionary room for the keys of a request, which its copies keep: else each of them would have to grow.
fn make_room(template: &Bound<'_, PyDict>) -> PyResult<()> {
    let size = || template.call_method0("__sizeof__")?.extract::<usize>();
    let before = size()?;
    let mut added = Vec::new();
    // One that lost a third of its keys would not be copied as a whole any more.
    for number in 0..template.len() / 2 {
        if size()? > before {
            break;
        }
        let key = format!("room {number}");
        template.set_item(&key, template.py().None())?;
        added.push(key);
    }
    added.iter().try_for_each(|key| template.del_item(key))
}

/// Where a field goes.
///
/// Names with `_` go nowhere, since `X_User` would be taken for `X-User`; nor does `Proxy`, which would become HTTP_PROXY
/// (CVE-2016-1000110). Framing is the server's affair, and the host is set from the request's authority.
fn place(py: Python<'_>, name: &[u8]) -> PyResult<FieldRule> {
    let is = |other: &str| name.eq_ignore_ascii_case(other.as_bytes());
    if name.contains(&b'_') {
        tell_of_underscore(name);
        return Ok(FieldRule::Nowhere);
    }
    if is("proxy") || is("host") || is_framing(name) {
        return Ok(FieldRule::Nowhere);
    }
    if is("content-type") {
        return Ok(FieldRule::Key(PyString::intern(py, "CONTENT_TYPE").unbind()));
    }
    let mut key = b"HTTP_".to_vec();
    key.extend(name.iter().map(|byte| if *byte == b'-' { b'_' } else { byte.to_ascii_uppercase() }));
    let key = match std::str::from_utf8(&key) {
        Ok(text) => PyString::intern(py, text),
        Err(_) => latin1(py, &key)?,
    };
    Ok(FieldRule::Key(key.unbind()))
}

fn is_framing(name: &[u8]) -> bool {
    name.eq_ignore_ascii_case(b"content-length") || name.eq_ignore_ascii_case(b"transfer-encoding")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_of_a_template_with_room_need_not_grow() {
        Python::initialize();
        Python::attach(|py| {
            let template = PyDict::new(py);
            for number in 0..18 {
                template.set_item(format!("key {number}"), number).unwrap();
            }
            make_room(&template).unwrap();
            assert_eq!(template.len(), 18);
            let copy = template.copy().unwrap();
            let size = || copy.call_method0("__sizeof__").unwrap().extract::<usize>().unwrap();
            let before = size();
            for number in 0..12 {
                copy.set_item(format!("field {number}"), number).unwrap();
            }
            assert_eq!(size(), before);
        });
    }
}
