//! The native half of `anygate.wsgihandler`: what is around an application under a server of another package. The application is
//! called by Python (`anygate.middleware`), for the reason that [`Steps`] says.
//!
//! * [`Site`]: what is around. [`Exchange`]: one request with its response. * `request`: environ and head.
//!   * `buffered_response`: response that the server has not taken.
//!   * `process`: what one process has. `process_rows`: which process counts where. `counting`: what all have counted.

mod buffered_response;
mod counting;
mod exchange;
mod process;
mod process_rows;
mod request;

use std::env;
use std::ffi::CString;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use anygate_config::options::{self, protects_under_own_server, works_under_any_server};
use anygate_config::plan::server::WEB2PY_TRUSTED_PROXIES;
use anygate_config::site::HealthPlan;
use anygate_config::{LogPlan, Origins, Plan, RouteMetricsPlan, Settings, StatsdPlan, file};
use anygate_lock::Mutex;
use anygate_policy::forwarded::{self, Applied, Forwarding};
use anygate_policy::metrics_page::Figures;
use anygate_policy::policies::{self, Arrival, Prepared, Surroundings};
use anygate_policy::route_metrics::RouteMetrics;
use anygate_proto::application::Endpoints;
use anygate_proto::cgi::Decoded;
use anygate_proto::head::RequestHead;
use anygate_proto::local_host::LocalHosts;
use anygate_server::{Call, CallRecords};
use anygate_wsgi::HIDDEN_CLIENT;
use pyo3::exceptions::{PyOSError, PyRuntimeError, PyRuntimeWarning, PyTypeError, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyDict};

use crate::loading::warn_of_debug;
use crate::logs::Logs;
use crate::policies::{shared, unprepared};
use crate::statsd::Push;
use crate::{forks, logs, ready_check, settings};
use counting::Counting;
pub(crate) use exchange::Exchange;
use exchange::ReceivedRequest;
use process::{CallLocations, ServingProcess, Upkeep};
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
    /// The access log; its error log is never used.
    logs: Logs,
    pythonpath: Vec<PathBuf>,
    /// `module:function` that is told of failed requests.
    on_error: Option<String>,
    debug: Option<LocalHosts>,
    slow_request: Option<Duration>,
    statsd: Option<StatsdPlan>,
    route_metrics: Option<RouteMetricsPlan>,
    rows: Rows,
    /// What processes have counted, if anything is to tell it.
    counting: Option<Counting>,
    /// The process that made this object.
    maker: u32,
    /// The process that made the last one, and what it made. The lock is never held while the interpreter is let go,
    /// so that no thread has it when a process forks.
    made: Mutex<Option<(u32, Arc<ServingProcess>)>>,
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
        // The command has warned of its options.
        let is_command = folder.is_some();
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
        if !is_command {
            settings::warn_of_idle(py, &settings)?;
        }
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
        let mut prepared = Prepared::new(&plan.site, surroundings, &shared)
            .map_err(|error| PyValueError::new_err(unprepared(&plan.origins, &error).to_string()))?;
        let rows = Rows::new(shared(PROCESSES).map_err(PyOSError::new_err)?);
        let is_counted = plan.site.metrics.is_some() || plan.admin.statsd.is_some();
        let counting = is_counted
            .then(|| Counting::new(rows.clone(), PROCESSES, plan.admin.route_metrics.is_some()))
            .transpose();
        let counting = counting.map_err(PyOSError::new_err)?;
        if let Some(counting) = counting.clone() {
            let figures: Figures = Arc::new(move || counting.prometheus());
            prepared = prepared.with_metrics(plan.local_hosts(), figures);
        }
        let logs = Logs::of_access(&plan).map_err(|refusal| PyValueError::new_err(refusal.to_string()))?;
        forks::hold_logs(py, &logs)?;
        Ok(Site {
            prepared,
            logs,
            debug: plan.application.debug.then(|| LocalHosts::new(plan.local_hosts())),
            slow_request: plan.server.call_limits.slow_request,
            statsd: plan.admin.statsd,
            route_metrics: plan.admin.route_metrics,
            counting,
            maker: std::process::id(),
            forwarding: Forwarding::new(plan.server.forwarding),
            health: plan.site.health,
            log: plan.log,
            pythonpath: plan.application.pythonpath,
            on_error: plan.application.on_error,
            rows,
            made: Mutex::default(),
        })
    }

    /// Folders to look for modules in.
    #[getter]
    fn pythonpath(&self) -> Vec<PathBuf> {
        self.pythonpath.clone()
    }

    /// `module:function` that is told of failed requests.
    #[getter]
    fn on_error(&self) -> Option<String> {
        self.on_error.clone()
    }

    /// The metrics of all processes in Prometheus' text format.
    ///
    /// Errors: they are not counted.
    fn metrics(&self) -> PyResult<String> {
        let Some(counting) = &self.counting else {
            let message = "metrics are counted if metrics_path or statsd is set, and neither is";
            return Err(PyRuntimeError::new_err(message));
        };
        if let Some((_, process)) = self.made.lock().as_ref().filter(|(of, _)| *of == std::process::id()) {
            process.upkeep.show();
        }
        Ok(counting.prometheus())
    }

    /// The process ends: sends and writes what waits.
    fn end(&self, py: Python<'_>) {
        let made = self.made.lock().as_ref().filter(|(of, _)| *of == std::process::id()).cloned();
        let Some((_, process)) = made else { return };
        py.detach(|| {
            process.upkeep.show();
            if let Some(push) = &process.push {
                push.send();
            }
            process.upkeep.logs.finish();
        });
    }

    /// Takes a request in; `None` if nothing is to be done about its response. `environ` becomes what the application is to
    /// see.
    fn ask(&self, py: Python<'_>, environ: &Bound<'_, PyDict>) -> PyResult<Option<Exchange>> {
        let process = self.of_process(environ)?;
        request::part_peer(environ)?;
        let mut head = RequestHead::default();
        let Decoded { length, mut endpoints, .. } = match request::read(environ, &mut head) {
            Ok(decoded) => decoded,
            Err(error) => {
                let https = request::is_https(environ)?;
                let endpoints =
                    Endpoints { remote_addr: request::peer(environ)?.into(), ..Endpoints::default() };
                let received = ReceivedRequest {
                    process: Arc::clone(&process),
                    head,
                    endpoints,
                    hidden_client: true,
                    length: None,
                };
                return Exchange::refuse(received, https, error.status()).map(Some);
            }
        };
        let before = head.clone();
        let is_trusted = self.forwarding.trusts(&endpoints);
        let applied = if self.forwarding.is_empty() {
            Applied::Nothing
        } else {
            self.forwarding.apply(&mut head, &endpoints)
        };
        let hidden_client = applied.hides_client(&head, &endpoints) || request::hides_proxies(environ)?;
        environ.set_item(HIDDEN_CLIENT, hidden_client)?;
        if let Applied::Believed { ends, .. } = applied {
            endpoints = ends;
            request::tell_ends(environ, &before, &head, &endpoints)?;
        }
        let arrival = Arrival {
            head: &mut head,
            endpoints: &endpoints,
            is_trusted,
            length,
            reloads: false,
            hidden_client,
        };
        let admitted = Call::admit(Some(&process.policies), arrival);
        let received =
            ReceivedRequest { process: Arc::clone(&process), head, endpoints, hidden_client, length };
        let call = match admitted {
            Ok(call) => call,
            Err(response) => return Exchange::of_policies(received, *response).map(Some),
        };
        if let (Some(max), Some(_), None) = (
            process.policies.body_max_bytes(&received.head),
            received.head.field("transfer-encoding"),
            length,
        ) {
            limit(environ, max)?;
        }
        request::tell_path(environ, &before, &received.head)?;
        if !call.has_policies() && process.is_idle() {
            request::tell_fields(environ, &before, &received.head)?;
            return Ok(None);
        }
        let exchange = Exchange::begin(py, received, call)?;
        exchange.tell_fields(environ, &before)?;
        Ok(Some(exchange))
    }
}

impl Site {
    /// Returns what this process has.
    fn of_process(&self, environ: &Bound<'_, PyDict>) -> PyResult<Arc<ServingProcess>> {
        let number = std::process::id();
        if let Some((of, process)) = &*self.made.lock()
            && *of == number
        {
            return Ok(Arc::clone(process));
        }
        let py = environ.py();
        let greenlets: bool =
            py.import("anygate.middleware")?.call_method0(intern!(py, "has_greenlets"))?.extract()?;
        let is = |name| environ.get_item(name).map(|is| is.is_some_and(|is| is.is_truthy().unwrap_or(false)));
        let (threads, processes) = (is("wsgi.multithread")?, is("wsgi.multiprocess")?);
        let mut made = self.made.lock();
        if let Some((of, process)) = &*made
            && *of == number
        {
            return Ok(Arc::clone(process));
        }
        // A server that is our own has its log already.
        logs::start(&self.log, &Origins::default(), None)
            .map_err(|refusal| PyOSError::new_err(refusal.to_string()))?;
        // With one thread for all requests, the response that a request waits for would never come.
        let waiting_max = if threads && !greenlets { WAITING_MAX } else { 0 };
        let process = Arc::new(self.serving(number, waiting_max, greenlets)?);
        process.watch().map_err(PyOSError::new_err)?;
        if let Some((_, of_parent)) = made.replace((number, Arc::clone(&process))) {
            // Its connections and its locks are those of the process that this one was forked from.
            std::mem::forget(of_parent);
        }
        drop(made);
        warn_of_debug(self.debug.is_some());
        if (self.debug.is_some() || self.counting.is_some()) && request::hides_proxies(environ)? {
            tracing::warn!(
                "waitress removes the fields of proxies, so that no client counts as one on this machine: serve with \
                 clear_untrusted_proxy_headers=False"
            );
        }
        if self.counting.is_some() && processes && self.maker == number {
            tracing::warn!(
                "metrics_path shows the metrics of one process, whichever responds: let the server load the application \
                 before it forks its processes (gunicorn --preload), or send them to StatsD"
            );
        }
        self.check_ready(py, &process.policies, greenlets);
        Ok(process)
    }

    /// Makes what a process has.
    fn serving(&self, number: u32, waiting_max: usize, has_greenlets: bool) -> PyResult<ServingProcess> {
        let place = self.rows.claim(number, &|row| {
            if let Some(counting) = &self.counting {
                counting.retire(row);
            }
        });
        let policies = self
            .prepared
            .with_waiting_max(waiting_max)
            .site(place)
            .map_err(|error| PyOSError::new_err(unprepared(&Origins::default(), &error).to_string()))?;
        let row = self.counting.as_ref().map(|counting| counting.row(place));
        let push = self.statsd.clone().zip(self.counting.clone()).map(|(plan, counting)| {
            Push::start(plan, Box::new(move || counting.sends(number).then(|| counting.totals())))
        });
        let push = push.transpose().map_err(PyOSError::new_err)?;
        let table = self.counting.as_ref().and_then(|counting| counting.routes().cloned());
        let routes =
            self.route_metrics.as_ref().zip(table).map(|(plan, table)| RouteMetrics::new(plan, table));
        let records = CallRecords::new(row.clone(), routes, self.logs.access_log(), self.slow_request);
        if let Some(row) = row.clone() {
            logs::show_in(row);
        }
        Ok(ServingProcess {
            policies,
            records,
            debug: self.debug.clone(),
            locations: CallLocations::new(has_greenlets),
            upkeep: Upkeep::new(row, self.logs.tender()),
            push,
        })
    }

    /// Has the site's own check asked, beside the requests. This one waits for its first response, unless it would keep all
    /// others of the process waiting, too.
    fn check_ready(&self, py: Python<'_>, site: &policies::ProcessPolicies, greenlets: bool) {
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
        None => forwarded::is_passed_on(&head) || request::hides_proxies(environ)?,
    };
    let host = head.authority();
    Ok(!is_hidden && (host.is_empty() || LocalHosts::new(hosts).holds(host)))
}
