//! A server inside a running program: one worker on a thread of this process.

use std::env;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anygate_config::{Concurrency, Plan};
use anygate_lock::Mutex;
use anygate_policy::route_metrics::RouteMetrics;
use anygate_policy::shared_memory::process_row;
use anygate_policy::shared_memory::route_table::RouteTable;
use anygate_server::{Ended, Events, Handle, Runner, Service, SharedRow, Tickets, Worker};
use anygate_supervisor::sockets::{self, Socket};
use pyo3::exceptions::{PyOSError, PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use pyo3::pyclass::{PyTraverseError, PyVisit};
use pyo3::types::PyDict;

use crate::connection_counts::ConnectionCounts;
use crate::loading::{certificates, warn_of_debug, wsgi};
use crate::logs::Logs;
use crate::refusal::Refusal;
use crate::{policies, python_logging, ready_check, settings};

/// The native half of `anygate.Server`, which documents it.
#[pyclass(frozen, subclass, module = "anygate._anygate")]
pub(crate) struct Server {
    application: Py<PyAny>,
    /// Is told how many connections there are.
    on_connection: Option<Py<PyAny>>,
    plan: Plan,
    running: Mutex<Option<Running>>,
    urls: Mutex<Vec<String>>,
}

struct Running {
    /// The process that it runs in. One that this forks has nothing of it.
    process: u32,
    handle: Handle,
    thread: JoinHandle<std::io::Result<Ended>>,
    sockets: Arc<Vec<Socket>>,
    /// What is counted, if the metrics have a path.
    counts: Option<SharedRow>,
    routes: Option<RouteTable>,
    /// The thread that tells how many connections there are.
    teller: Option<JoinHandle<()>>,
}

#[pymethods]
impl Server {
    #[new]
    #[pyo3(signature = (app, *, on_connection = None, **options))]
    fn new(
        py: Python<'_>,
        app: Py<PyAny>,
        on_connection: Option<Py<PyAny>>,
        options: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Self> {
        let settings = settings::from_keywords(options)?;
        let plan = Plan::check(&settings, &env::current_dir()?)
            .map_err(|wrong| PyValueError::new_err(wrong.to_string()))?;
        settings::warn_of_idle(py, &settings)?;
        if plan.workers_max() > 1 {
            let message = "workers: a Server is one worker inside this process; anygate.serve() starts more";
            return Err(PyValueError::new_err(message));
        }
        if plan.server.concurrency == Concurrency::Gevent {
            let message =
                "concurrency: a Server runs requests in threads; anygate.serve() supports greenlets";
            return Err(PyValueError::new_err(message));
        }
        if plan.admin.wants_assistant() {
            let message = "admin, uwsgi_stats, statsd, otlp: a Server has none of these; anygate.serve() has";
            return Err(PyValueError::new_err(message));
        }
        if plan.application.hooks.is_some() {
            let message = "hooks: a Server starts no processes; the command anygate calls them";
            return Err(PyValueError::new_err(message));
        }
        let process = &plan.process;
        if process.max_requests > 0 || process.worker_max_age.is_some() || process.worker_memory_max.is_some()
        {
            let message = "max_requests, worker_max_age, worker_memory_max: a Server is one worker inside this process, which \
                           cannot be replaced; anygate.serve() replaces workers";
            return Err(PyValueError::new_err(message));
        }
        Ok(Server {
            application: app,
            on_connection,
            plan,
            running: Mutex::default(),
            urls: Mutex::default(),
        })
    }

    /// An application may know its server. Whatever is between them can be cleared.
    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.on_connection)?;
        visit.call(&self.application)
    }

    fn start(&self, py: Python<'_>) -> PyResult<()> {
        let mut running = self.running.lock();
        if running.is_some() {
            return Err(PyRuntimeError::new_err("the server is running already"));
        }
        let logs = Logs::open(&self.plan, None).map_err(|refusal| PyOSError::new_err(refusal.to_string()))?;
        python_logging::begin(py, &self.plan.log)?;
        warn_of_debug(self.plan.application.debug);
        let sockets = sockets::open(&self.plan.binds, &self.plan.socket, false)
            .map_err(|error| PyOSError::new_err(error.to_string()))?;
        let sockets = Arc::new(sockets);
        let tickets = Tickets::new()
            .map_err(|error| PyOSError::new_err(format!("cannot generate random numbers: {error}")))?;
        let tls = certificates(&self.plan, &tickets)
            .map_err(|refusal| PyValueError::new_err(refusal.to_string()))?;
        let site =
            policies::prepare(&self.plan).map_err(|Refusal(_, message)| PyValueError::new_err(message))?;
        let (counts, routes) = (self.counts()?, policies::routes(&self.plan)?);
        let told =
            self.on_connection.as_ref().map(|function| ConnectionCounts::start(function.clone_ref(py)));
        let (connections, teller) = told.transpose()?.unzip();
        let site = site.map(|site| match &counts {
            Some(row) => {
                // What shows the queues must not keep the sockets open.
                let figures = policies::own_figures(row, routes.as_ref(), Arc::downgrade(&sockets));
                site.with_metrics(self.plan.local_hosts(), figures).site(0)
            }
            None => site.site(0),
        });
        let site = site.transpose();
        let site = site.map_err(|error| {
            PyOSError::new_err(policies::unprepared(&self.plan.origins, &error).to_string())
        })?;
        if let Some(site) = &site {
            ready_check::start(py, &self.plan.site.health, site.vitals().well())?;
        }
        let application = wsgi(py, self.application.clone_ref(py), &self.plan, false, false)?;
        let shared = |socket: &Socket| Ok((socket.protocol, socket.listener.try_clone()?));
        let shared = sockets.iter().map(shared).collect::<std::io::Result<Vec<_>>>()?;
        let runner = Runner::Threads(Arc::new(application), self.plan.server.threads);
        let access_log = logs.access_log();
        let service = Service {
            runner,
            access_log,
            reopen_logs: None,
            write_stacks: None,
            files: None,
            site,
            tls,
            counts: counts.clone(),
            tracer: None,
            routes: self
                .plan
                .admin
                .route_metrics
                .as_ref()
                .zip(routes.clone())
                .map(|(plan, table)| RouteMetrics::new(plan, table)),
            peers: connections.clone().map(|connections| connections as _),
            requests_max: None,
        };
        let (worker, handle) = Worker::new(&self.plan.server, shared, service, None)?;
        let tender = logs.tender();
        let work = move || {
            let ended = worker.run(Box::new(Keeping(logs)));
            if let Some(connections) = connections {
                connections.end();
            }
            tender.finish();
            ended
        };
        let thread = thread::Builder::new().name("anygate".to_owned()).spawn(work)?;
        *self.urls.lock() = sockets.iter().map(Socket::url).collect();
        *running =
            Some(Running { process: std::process::id(), handle, thread, sockets, counts, routes, teller });
        Ok(())
    }

    fn stop(&self, py: Python<'_>) -> PyResult<()> {
        let ended = py.detach(|| {
            // The lock is held for this line only: no thread waits for it while a worker drains.
            let running = self.running.lock().take();
            let here = running.filter(|running| running.process == std::process::id());
            let Some(Running { handle, thread, sockets, teller, .. }) = here else { return Ok(None) };
            sockets::close(&sockets);
            drop(sockets);
            handle.drain();
            let ended = thread.join().map(Some).map_err(|_| ())?;
            teller.map_or(Ok(()), JoinHandle::join).map_err(|_| ())?;
            Ok(ended)
        });
        match ended {
            Ok(None | Some(Ok(_))) => Ok(()),
            Ok(Some(Err(error))) => Err(error.into()),
            Err(()) => Err(PyRuntimeError::new_err("the server's thread failed; the error log says why")),
        }
    }

    fn metrics(&self) -> PyResult<String> {
        if self.plan.site.metrics.is_none() {
            return Err(PyRuntimeError::new_err("metrics are counted if metrics_path is set, and it is not"));
        }
        let figures = self.running.lock().as_ref().and_then(|running| {
            let Running { counts, routes, sockets, .. } = running;
            counts.as_ref().map(|row| policies::own_figures(row, routes.as_ref(), Arc::downgrade(sockets)))
        });
        let figures = figures.ok_or_else(|| PyRuntimeError::new_err("the server is not running"))?;
        Ok(figures())
    }

    #[getter]
    fn urls(&self) -> Vec<String> {
        self.urls.lock().clone()
    }
}

impl Server {
    /// The counters of a worker that starts, if they are shown.
    fn counts(&self) -> PyResult<Option<SharedRow>> {
        let wanted = self.plan.site.metrics.is_some();
        Ok(wanted.then(|| policies::shared(process_row::CELLS)).transpose()?)
    }
}

/// An embedded worker has no supervisor, and looks after its logs itself.
struct Keeping(Logs);

impl Events for Keeping {
    fn beat(&mut self, _traffic: bool, _held: Option<Duration>) {
        self.0.rotate();
        self.0.tender().tend();
    }
    fn draining(&mut self) {}
    fn retiring(&mut self) {}
}
