//! What happens when an application fails: its exception goes to the error log, then to the function that the site named
//! for that (`on_error`), and, where the site is being worked on (`debug`), to the client, in place of the server's page
//! for errors. `anygate.greenlets` calls the site's function for its requests itself.

use anygate_proto::application::{Endpoints, Failed, LongCall, Request, Response};
use anygate_proto::head::{RequestHead, ResponseHead};
use anygate_proto::local_host::LocalHosts;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString};

use crate::call::Call;
use crate::input::is_of_client;
use crate::interrupt::is_interruption;
use crate::options::Options;
use crate::websocket::WebSocket;

/// Handling of failures that the site has configured.
pub(crate) struct Failures {
    /// Is told of them.
    pub(crate) on_error: Option<Py<PyAny>>,
    /// Is called when a request takes too long.
    pub(crate) on_overdue: Option<Py<PyAny>>,
    /// Clients on this machine see them, under these names of it.
    debug: Option<LocalHosts>,
    /// The page may load scripts of this server.
    page_reload: bool,
}

/// A request, as far as its failure is about it.
#[derive(Clone, Copy)]
pub(crate) struct FailedRequest<'a> {
    pub(crate) head: &'a RequestHead,
    endpoints: &'a Endpoints,
    hidden_client: bool,
}

impl<'a> From<&Request<'a>> for FailedRequest<'a> {
    fn from(request: &Request<'a>) -> Self {
        let Request { head, endpoints, hidden_client, .. } = *request;
        FailedRequest { head, endpoints, hidden_client }
    }
}

impl FailedRequest<'_> {
    /// Whether its client is on this machine, and means it.
    fn is_local(&self, hosts: &LocalHosts) -> bool {
        hosts.hold_client(self.head, self.endpoints, self.hidden_client)
    }
}

impl Failures {
    /// As the options of an application say.
    pub(crate) fn of(options: &mut Options) -> Failures {
        let Options { on_error, on_overdue, debug, page_reload, .. } = options;
        Failures {
            on_error: on_error.take(),
            on_overdue: on_overdue.take(),
            debug: debug.take(),
            page_reload: *page_reload,
        }
    }

    /// Tells the site that a request takes too long.
    pub(crate) fn overdue(&self, py: Python<'_>, long: &LongCall) {
        if let Some(on_overdue) = self.on_overdue.as_ref().filter(|_| long.is_overdue)
            && let Err(error) = on_overdue.call0(py)
        {
            log(py, &error, "what it does about requests that take too long failed");
        }
    }

    /// The page that shows an exception, if the client may see it.
    pub(crate) fn page(
        &self,
        py: Python<'_>,
        call: &Call,
        error: &PyErr,
        asked: FailedRequest<'_>,
    ) -> Option<Page> {
        let concerns_client = call.is_disconnected() || is_interruption(py, error) || is_of_client(py, error);
        (!concerns_client && self.debug.as_ref().is_some_and(|hosts| asked.is_local(hosts)))
            .then(|| Page::new(py, error, asked.head, self.page_reload))
    }

    /// Tells the site's function of an exception, as an `except` clause of it would.
    pub(crate) fn tell(&self, environ: &Bound<'_, PyDict>, error: &PyErr) {
        let (py, Some(on_error)) = (environ.py(), &self.on_error) else { return };
        let tell = || -> PyResult<()> {
            let error = error.clone_ref(py).into_value(py);
            py.import("anygate.failures")?.call_method1(intern!(py, "tell"), (error, on_error, environ))?;
            Ok(())
        };
        // Of one that took too long there is nothing more to say.
        if let Err(second) = tell()
            && !is_interruption(py, &second)
        {
            log(py, &second, "its on_error failed");
        }
    }
}

/// A response that shows an exception.
pub struct Page {
    head: ResponseHead,
    body: Vec<u8>,
}

impl Page {
    /// Formats an exception for the client of a request; `page_reload`: the page may load a script of this server.
    pub fn new(py: Python<'_>, error: &PyErr, request: &RequestHead, page_reload: bool) -> Page {
        let text = traceback(py, error);
        let html = accepts_html(request.field("accept").unwrap_or_default());
        let (kind, body) = match html {
            true => ("text/html; charset=utf-8", html_page(&heading(py, error), &text, request)),
            false => ("text/plain; charset=utf-8", format!("{STATUS}\n\n{text}")),
        };
        // The page brings its style along, and nothing else.
        let policy = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'";
        let reloading = format!("{policy}; script-src 'self'; connect-src 'self'");
        let fields = [
            ("Content-Type", kind),
            ("Cache-Control", "no-store"),
            ("Vary", "Accept"),
            ("X-Content-Type-Options", "nosniff"),
            ("Content-Security-Policy", if page_reload { &reloading } else { policy }),
        ];
        let mut head = ResponseHead::new();
        let mut built = head.set_status_line(STATUS.as_bytes());
        for (name, value) in fields {
            built = built.and_then(|()| head.push_field(name.as_bytes(), value.as_bytes()));
        }
        debug_assert!(built.is_ok(), "our own pages are valid");
        Page { head, body: body.into_bytes() }
    }

    /// Responses with it, if nothing was started; fails as the application did if not.
    pub fn send(&self, response: &mut (dyn Response + Send)) -> Result<(), Failed> {
        if response.started() {
            return Err(Failed);
        }
        let length = self.body.len() as u64;
        let sent = response.start(&self.head, Some(length)).and_then(|()| response.write(&self.body));
        // A client that is gone misses nothing.
        sent.map_err(|_| Failed)
    }
}

const STATUS: &str = "500 Internal Server Error";

/// Whether `Accept` names HTML with any weight but zero (RFC 9110 section 12.5.1). Browsers name it; `*/*` is a program.
fn accepts_html(accept: &[u8]) -> bool {
    accept.split(|&byte| byte == b',').any(|range| {
        let mut parts = range.split(|&byte| byte == b';').map(<[u8]>::trim_ascii);
        let is_html = parts.next().is_some_and(|name| name.eq_ignore_ascii_case(b"text/html"));
        let refused = |part: &[u8]| match part {
            [b'q' | b'Q', b'=', weight @ ..] => weight.iter().all(|byte| b"0.".contains(byte)),
            _ => false,
        };
        is_html && !parts.any(refused)
    })
}

/// It fits a telephone's screen as well, and is light or dark as the browser is.
fn html_page(heading: &str, text: &str, request: &RequestHead) -> String {
    let method = request.method().escape_ascii().to_string();
    let target = request.target().escape_ascii().to_string();
    let (heading, text, method, target) = (escape(heading), escape(text), escape(&method), escape(&target));
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n<title>{heading}</title>\n\
         <style>body{{font:1rem/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}}\
         h1{{font-size:1.25rem;font-weight:600}}pre{{font:.8125rem/1.6 ui-monospace,monospace;padding:1rem;\
         border:1px solid color-mix(in srgb,currentColor 25%,transparent);border-radius:.5rem}}\
         h1,p,pre{{white-space:pre-wrap;overflow-wrap:anywhere}}p{{opacity:.75}}</style>\n</head>\n<body>\n\
         <h1>{heading}</h1>\n<p>{method} {target}</p>\n<pre>{text}</pre>\n\
         <p>Shown to clients on this machine only, because debug or reload is on.</p>\n</body>\n</html>\n"
    )
}

/// Text that means nothing to HTML.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len() + text.len() / 8);
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            other => escaped.push(other),
        }
    }
    escaped
}

/// Calls a method without arguments as an `except` clause of `error` would, so that `sys.exc_info()` has it.
///
/// Errors: what the method raises.
pub(crate) fn call_within(error: &PyErr, method: &Bound<'_, PyAny>) -> PyResult<()> {
    let py = method.py();
    let error = error.clone_ref(py).into_value(py);
    py.import("anygate.failures")?.call_method1("handle", (error, method))?;
    Ok(())
}

/// A call has failed: has that logged, unless it was said before or the application is not at fault. Returns whether the
/// site's function is to know of it.
pub(crate) fn settle(
    py: Python<'_>,
    call: &Call,
    websocket: Option<&WebSocket>,
    error: &PyErr,
    log: impl FnOnce(&PyErr),
) -> bool {
    // It took too long, which was said then.
    if is_interruption(py, error) {
        return true;
    }
    // The client went away; the application was only told so.
    if call.is_disconnected() || websocket.is_some_and(|websocket| websocket.is_end(py, error)) {
        return false;
    }
    if is_of_client(py, error) {
        let text = error.value(py).to_string();
        py.detach(|| tracing::info!("a request ended early: {text}"));
        return false;
    }
    log(error);
    true
}

/// Describes a failed request for the log.
pub(crate) fn failed(head: &RequestHead) -> String {
    format!("{} {} failed", head.method().escape_ascii(), head.target().escape_ascii())
}

/// Closing a response has failed: says why. `also`: the response has failed before.
pub(crate) fn settle_closing(py: Python<'_>, error: &PyErr, also: bool, log: impl FnOnce(&PyErr, &str)) {
    // As in `settle`.
    if !is_interruption(py, error) {
        let what =
            if also { "close() of its response failed as well" } else { "close() of its response failed" };
        log(error, what);
    }
}

/// Writes an exception with its traceback to the error log.
pub(crate) fn log(py: Python<'_>, error: &PyErr, what: &str) {
    let text = traceback(py, error);
    py.detach(|| say(what, &text));
}

/// The same when its traceback is there already.
pub(crate) fn say(what: &str, traceback: &str) {
    tracing::error!("the application failed: {what}\n{}", traceback.trim_end());
}

/// An exception with its traceback, its causes and the members of its group.
pub(crate) fn traceback(py: Python<'_>, error: &PyErr) -> String {
    let text = py.import("anygate.failures").and_then(|module| {
        let error = error.clone_ref(py).into_value(py);
        let text = module.call_method1(intern!(py, "formatted"), (error,))?;
        Ok(text.cast::<PyString>()?.to_string_lossy().into_owned())
    });
    // Formatting runs the application's own code (`__str__`, `__repr__`) and may fail like any of it.
    text.unwrap_or_else(|_| format!("{} (its traceback cannot be shown)", error.get_type(py)))
}

/// An exception alone: its class and what it says.
fn heading(py: Python<'_>, error: &PyErr) -> String {
    let lines = py.import("traceback").and_then(|module| {
        let error = (error.get_type(py), error.value(py));
        joined(&module.call_method1(intern!(py, "format_exception_only"), error)?)
    });
    // As above.
    lines.map_or_else(|_| error.get_type(py).to_string(), |text| text.trim_end().to_owned())
}

fn joined(lines: &Bound<'_, PyAny>) -> PyResult<String> {
    let mut text = String::new();
    for line in lines.try_iter()? {
        text.push_str(&line?.cast::<PyString>()?.to_string_lossy());
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn browsers_get_html_and_programs_text() {
        for (accept, expected) in [
            ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", true),
            ("text/plain, Text/HTML;level=1;q=0.1", true),
            ("*/*", false),
            ("text/*", false),
            ("", false),
            ("text/html;q=0", false),
            ("text/html; q=0.000, */*", false),
            ("application/json, text/htmlx", false),
        ] {
            assert_eq!(accepts_html(accept.as_bytes()), expected, "{accept:?}");
        }
    }

    #[test]
    fn nothing_in_a_page_of_an_exception_means_anything_to_html() {
        let page = html_page("<b>&\"'", "</pre><script>", &RequestHead::default());
        assert!(page.contains("<h1>&lt;b&gt;&amp;&quot;&#39;</h1>"));
        assert!(page.contains("<pre>&lt;/pre&gt;&lt;script&gt;</pre>"));
    }
}
