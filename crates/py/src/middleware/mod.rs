//! The native half of `anygate.wsgihandler`: what is around an application under a server of another package. The application is
//! called by Python (`anygate.middleware`), for the reason that [`Steps`] says.
//!
//! * [`Site`]: what is around. [`Exchange`]: one request with its response. * `request`: environ and head.
//!   * `buffered_response`: what was answered and the server has not taken. * `process_rows`: which process counts where.

mod buffered_response;
mod process_rows;
mod request;

use std::env;
use std::ffi::CString;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;

use anygate_config::options::{self, protects_under_own_server, works_under_any_server};
use anygate_config::plan::server::WEB2PY_TRUSTED_PROXIES;
use anygate_config::site::HealthPlan;
use anygate_config::{LogPlan, Plan, Settings, file};
use anygate_lock::{Mutex, MutexGuard};
use anygate_policy::forwarded::{self, Applied, Forwarding};
use anygate_policy::policies::{self, Arrival, Prepared, Surroundings};
use anygate_proto::application::{Failed, Response};
use anygate_proto::cgi::Decoded;
use anygate_proto::head::RequestHead;
use anygate_proto::local_host::LocalHosts;
use anygate_server::{Call, error_response};
use anygate_wsgi::{FileWrapper, HIDDEN_CLIENT, Lender, Steps};
use pyo3::exceptions::{PyOSError, PyRuntimeWarning, PyTypeError, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyBytes, PyDict, PyList, PyString};

use crate::policies::shared;
use crate::{logs, ready_check, settings};
use buffered_response::BufferedResponse;
use process_rows::Rows;

/// Processes that are counted apart at the same time.
const PROCESSES: usize = 128;
/// Threads of a process that may wait for another request's response. Servers have more, but do not say how many.
const WAITING_MAX: usize = 4;

/// Policies around an application.
#[pyclass(frozen, module = "anygate._anygate")]
pub(crate) struct Site {
    prepared: Prepared,
    forwarding: Forwarding,
    health: HealthPlan,
    log: LogPlan,
    pythonpath: Vec<PathBuf>,
    rows: Rows,
    /// The process that made the last one, and what it made. The lock is never held while the interpreter is let go,
    /// so that no thread has it when a process forks.
    made: Mutex<Option<(u32, Arc<policies::ProcessPolicies>)>>,
}

#[pymethods]
impl Site {
    /// Relative paths begin in `folder`, or in the current one. `is_web2py`: the application is a web2py site, which needs
    /// what [`WEB2PY_TRUSTED_PROXIES`] says.
    #[new]
    #[pyo3(signature = (config = None, folder = None, is_web2py = false, /, **options))]
    fn new(
        py: Python<'_>,
        config: Option<PathBuf>,
        folder: Option<PathBuf>,
        is_web2py: bool,
        options: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Self> {
        let folder = folder.map_or_else(env::current_dir, Ok)?;
        let keywords = settings::from_keywords(options)?;
        let mut settings = Settings::default();
        if is_web2py {
            let unless_set = PyDict::new(py);
            unless_set.set_item(options::TRUSTED_PROXIES.name(), WEB2PY_TRUSTED_PROXIES)?;
            settings.add(&settings::from_keywords(Some(&unless_set))?);
        }
        if let Some(config) = config {
            let mut given = Settings::default();
            file::read(&folder.join(&config), &config, &mut given)
                .map_err(|wrong| PyValueError::new_err(wrong.to_string()))?;
            settings.add(&given);
        }
        ignore(py, &settings, &keywords)?;
        settings.add(&keywords);
        let settings = settings.only(works_under_any_server);
        let mut plan =
            Plan::check(&settings, &folder).map_err(|wrong| PyValueError::new_err(wrong.to_string()))?;
        let body_max_bytes = plan.server.reading.limits.body_max_bytes;
        let limits = &mut plan.site.limits.body_limits;
        if settings.given(options::BODY_MAX_BYTES.option()).is_some() && limits.is_empty() {
            limits.push(("/".to_owned(), body_max_bytes));
        }
        let surroundings = Surroundings {
            processes: PROCESSES,
            // It is known when there are requests.
            waiting_max: 0,
            body_max_bytes,
            proxies: Vec::new(),
        };
        let prepared = Prepared::new(&plan.site, surroundings, &shared)
            .map_err(|error| PyValueError::new_err(error.to_string()))?;
        Ok(Site {
            prepared,
            forwarding: Forwarding::new(plan.server.forwarding),
            health: plan.site.health,
            log: plan.log,
            pythonpath: plan.application.pythonpath,
            rows: Rows::new(shared(PROCESSES).map_err(PyOSError::new_err)?),
            made: Mutex::default(),
        })
    }

    /// Folders to look for modules in.
    #[getter]
    fn pythonpath(&self) -> Vec<PathBuf> {
        self.pythonpath.clone()
    }

    /// Takes a request in; `None` if nothing is to be done about its response. `environ` becomes what the application is to
    /// see.
    fn ask(&self, py: Python<'_>, environ: &Bound<'_, PyDict>) -> PyResult<Option<Exchange>> {
        let site = self.of_process(environ)?;
        request::part_peer(environ)?;
        let mut head = RequestHead::default();
        let Decoded { length, mut endpoints, .. } = match request::read(environ, &mut head) {
            Ok(decoded) => decoded,
            Err(error) => {
                let https = request::is_https(environ)?;
                return refuse(&site, head, https, error.status()).map(Some);
            }
        };
        let before = head.clone();
        let is_trusted = self.forwarding.trusts(&endpoints);
        let applied = if self.forwarding.is_empty() {
            Applied::Nothing
        } else {
            self.forwarding.apply(&mut head, &endpoints)
        };
        environ.set_item(HIDDEN_CLIENT, applied.hides_client(&head, &endpoints))?;
        if let Applied::Believed { ends, .. } = applied {
            endpoints = ends;
            request::tell_ends(environ, &before, &head, &endpoints)?;
        }
        let arrival = Arrival { head: &mut head, endpoints: &endpoints, is_trusted, length };
        let mut call = match Call::admit(Some(&site), arrival) {
            Ok(call) => call,
            Err(response) => {
                let mut out = BufferedResponse::new(&head);
                response.send(&head, &mut out).map_err(|error| PyOSError::new_err(error.to_string()))?;
                return Ok(Some(Exchange::new(None, head, out)));
            }
        };
        if let (Some(max), Some(_), None) =
            (site.body_max_bytes(&head), head.field("transfer-encoding"), length)
        {
            limit(environ, max)?;
        }
        if !call.has_policies() {
            request::tell_fields(environ, &before, &head)?;
            return Ok(None);
        }
        let mut out = BufferedResponse::new(&head);
        let answered = py.detach(|| {
            call.prepare(&mut head);
            out.spool(true);
            let answered = call.answer_in_place(None, &head, &mut out);
            out.spool(false);
            answered
        });
        Ok(Some(match answered {
            Some(Ok(())) => Exchange::new(None, head, out),
            Some(Err(Failed)) => return Err(PyOSError::new_err("cannot send a cached response or a file")),
            None => {
                request::tell_fields(environ, &before, &head)?;
                Exchange::new(Some(call), head, out)
            }
        }))
    }
}

impl Site {
    /// Returns the policies of this process.
    fn of_process(&self, environ: &Bound<'_, PyDict>) -> PyResult<Arc<policies::ProcessPolicies>> {
        let process = std::process::id();
        if let Some((of, site)) = &*lock(&self.made)
            && *of == process
        {
            return Ok(Arc::clone(site));
        }
        let py = environ.py();
        let greenlets: bool =
            py.import("anygate.middleware")?.call_method0(intern!(py, "has_greenlets"))?.extract()?;
        let threads =
            environ.get_item("wsgi.multithread")?.is_some_and(|many| many.is_truthy().unwrap_or(false));
        let mut made = lock(&self.made);
        if let Some((of, site)) = &*made
            && *of == process
        {
            return Ok(Arc::clone(site));
        }
        // A server that is our own has its log already.
        logs::start(&self.log, None).map_err(|refusal| PyOSError::new_err(refusal.to_string()))?;
        // With one thread for all requests, the response that a request waits for would never come.
        let waiting_max = if threads && !greenlets { WAITING_MAX } else { 0 };
        let prepared = self.prepared.with_waiting_max(waiting_max);
        let site =
            prepared.site(self.rows.claim(process)).map_err(|error| PyOSError::new_err(error.to_string()))?;
        if let Some((_, of_parent)) = made.replace((process, Arc::clone(&site))) {
            // Its connections and its locks are those of the process that this one was forked from.
            std::mem::forget(of_parent);
        }
        drop(made);
        self.watch(py, &site, greenlets);
        Ok(site)
    }

    /// Has the site's own check asked, beside the requests. This one waits for its first response, unless it would keep all
    /// others of the process waiting, too.
    fn watch(&self, py: Python<'_>, site: &policies::ProcessPolicies, greenlets: bool) {
        if self.health.ready_check.is_none() {
            return;
        }
        let (health, well) = (self.health.clone(), site.vitals().well());
        let ask = move |py: Python<'_>| {
            if let Err(error) = ready_check::start(py, &health, Arc::clone(&well)) {
                well.store(false, Ordering::Release);
                tracing::error!("{}", error.value(py));
            }
        };
        if !greenlets {
            return ask(py);
        }
        let beside = thread::Builder::new().name("ready-check".to_owned()).spawn(move || Python::attach(ask));
        if let Err(error) = beside {
            site.vitals().well().store(false, Ordering::Release);
            tracing::error!("ready_check: {error}");
        }
    }
}

/// Refuses options that have no effect here, and warns of those in a file that would protect the application.
fn ignore(py: Python<'_>, file: &Settings, keywords: &Settings) -> PyResult<()> {
    if let Some(name) = keywords.names().find(|name| !works_under_any_server(name)) {
        let message = format!("{name}: needs anygate's own server, and another one serves here");
        return Err(PyTypeError::new_err(message));
    }
    // The file may be for our own server as well, but these protect something.
    for name in file.names().filter(|name| protects_under_own_server(name)) {
        let message =
            format!("{name} has no effect: it needs anygate's own server, and another one serves here");
        let message = CString::new(message).map_err(|error| PyValueError::new_err(error.to_string()))?;
        PyErr::warn(py, &py.get_type::<PyRuntimeWarning>(), &message, 2)?;
    }
    Ok(())
}

/// Lets the application read no more of a body of unknown length.
fn limit(environ: &Bound<'_, PyDict>, max: u64) -> PyResult<()> {
    let Some(input) = environ.get_item("wsgi.input")? else { return Ok(()) };
    let limited = environ
        .py()
        .import("anygate.middleware")?
        .call_method1(intern!(environ.py(), "LimitedInput"), (input, max))?;
    environ.set_item("wsgi.input", limited)
}

/// The response to a request that is none.
fn refuse(
    site: &policies::ProcessPolicies,
    request: RequestHead,
    https: bool,
    status: u16,
) -> PyResult<Exchange> {
    let (head, body) = error_response(Some(site), &request, false, https, status);
    let mut out = BufferedResponse::new(&request);
    let sent = out.start(&head, Some(body.len() as u64)).and_then(|()| out.write(&body));
    sent.map_err(|error| PyOSError::new_err(error.to_string()))?;
    Ok(Exchange::new(None, request, out))
}

/// Whether a page that only users of this machine may see can be shown, as far as its host and what stands between client and
/// server tell. `hosts` mean this machine besides.
#[pyfunction]
#[pyo3(signature = (environ, hosts, /))]
pub(crate) fn is_for_this_machine(environ: &Bound<'_, PyDict>, hosts: Vec<String>) -> PyResult<bool> {
    let mut head = RequestHead::default();
    // Input that is no request has no client.
    let Ok(_) = request::read(environ, &mut head) else { return Ok(false) };
    let is_hidden = match environ.get_item(HIDDEN_CLIENT)? {
        Some(hidden) => !hidden.is(PyBool::new(environ.py(), false)),
        None => forwarded::is_passed_on(&head),
    };
    let host = head.authority();
    Ok(!is_hidden && (host.is_empty() || LocalHosts::new(hosts).holds(host)))
}

/// One request with its response.
#[pyclass(frozen, module = "anygate._anygate")]
pub(crate) struct Exchange {
    inner: Arc<Held>,
    steps: Steps,
}

struct Held(Mutex<Inner>);

struct Inner {
    /// Until the response is over.
    call: Option<Call>,
    head: RequestHead,
    out: BufferedResponse,
}

impl Held {
    fn passes_on(&self) -> bool {
        let Inner { call, out, .. } = &*lock(&self.0);
        call.as_ref().is_some_and(Call::passes_on) && !out.is_head_request()
    }
}

impl Lender for Held {
    fn lend(&self, work: &mut dyn FnMut(&mut (dyn Response + Send))) {
        let Inner { call, head, out } = &mut *lock(&self.0);
        if let Some(call) = call {
            call.respond(head, out, |out| work(out));
        }
    }
}

#[pymethods]
impl Exchange {
    /// Returns the request's name in the error log, until its response is complete; `None` if it has none.
    #[getter]
    fn name(&self) -> Option<String> {
        lock(&self.inner.0).call.as_ref()?.name()
    }

    /// The client's response is there, whatever becomes of the application's.
    #[getter]
    fn is_answered(&self) -> bool {
        lock(&self.inner.0).out.is_started()
    }

    /// The application is to be asked.
    #[getter]
    fn is_open(&self) -> bool {
        lock(&self.inner.0).call.is_some()
    }

    /// The application may make something else of the connection, in a way that is its server's.
    #[getter]
    fn is_upgrade(&self) -> bool {
        let inner = lock(&self.inner.0);
        inner.head.field("upgrade").is_some_and(|name| name.eq_ignore_ascii_case(b"websocket"))
    }

    /// From now on blocks need not be given here: they go on as they are.
    #[getter]
    fn passes_on(&self) -> bool {
        self.inner.passes_on()
    }

    /// What `start_response` does, but for its result.
    #[pyo3(signature = (status, response_headers, exc_info, /))]
    fn start(
        &self,
        status: &Bound<'_, PyAny>,
        response_headers: &Bound<'_, PyAny>,
        exc_info: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        self.steps.begin(status, response_headers, exc_info)
    }

    /// Takes what the application gives to `write`.
    #[pyo3(signature = (data, /))]
    fn write(&self, data: &Bound<'_, PyAny>) -> PyResult<()> {
        self.steps.write(data)
    }

    /// Takes one block. `whole`: it is all of the body.
    #[pyo3(signature = (block, whole, /))]
    fn block(&self, block: &Bound<'_, PyAny>, whole: bool) -> PyResult<()> {
        self.steps.block(block, whole)
    }

    /// Takes the blocks of a list or a tuple, unless they go on as they are; says whether it took them.
    #[pyo3(signature = (blocks, /))]
    fn blocks(&self, blocks: &Bound<'_, PyAny>) -> PyResult<bool> {
        self.steps.blocks(blocks, || !self.inner.passes_on())
    }

    /// Returns the head of a response that is a file, if the application has set it.
    #[pyo3(signature = (file, /))]
    fn file(&self, file: &Bound<'_, FileWrapper>) -> PyResult<()> {
        self.steps.file(file)
    }

    /// All blocks were given.
    fn end_of_blocks(&self) -> PyResult<()> {
        self.steps.end_of_blocks()
    }

    /// Ends the response; returns whether it is whole. Where the application failed it is if there is something to be said
    /// in its place.
    #[pyo3(signature = (failed, /))]
    fn finish(&self, py: Python<'_>, failed: bool) -> bool {
        py.detach(|| {
            let Inner { call, head, out } = &mut *lock(&self.inner.0);
            let Some(call) = call.take() else { return false };
            call.end(head, if failed { Err(Failed) } else { Ok(()) }, out).is_ok()
        })
    }

    /// Responses that the request body is too large; returns whether that was possible.
    fn refuse_body(&self) -> bool {
        let Inner { call, head, out } = &mut *lock(&self.inner.0);
        call.take().is_some_and(|call| call.refuse_body(head, out).is_ok())
    }

    /// Lets go of what accompanies the request; nothing more comes of it.
    fn end(&self) {
        lock(&self.inner.0).call = None;
    }

    /// Status and headers for the server, once they are there, and once only.
    fn head<'py>(&self, py: Python<'py>) -> PyResult<Option<(Bound<'py, PyString>, Bound<'py, PyList>)>> {
        let Some(head) = lock(&self.inner.0).out.take_head() else { return Ok(None) };
        request::head_in_python(py, &head).map(Some)
    }

    /// Bytes of the body that are there; none if there are none.
    fn take<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        let take = || lock(&self.inner.0).out.take();
        let is_read = lock(&self.inner.0).out.reads_next();
        Ok(PyBytes::new(py, &if is_read { py.detach(take) } else { take() }?))
    }
}

impl Exchange {
    fn new(call: Option<Call>, head: RequestHead, out: BufferedResponse) -> Exchange {
        let inner = Arc::new(Held(Mutex::new(Inner { call, head, out })));
        let steps = Steps::new(Arc::clone(&inner) as Arc<dyn Lender>);
        Exchange { inner, steps }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock()
}
