//! The supervisor's assistant: it serves the admin address and sends metrics, for all processes. No Python runs in it.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use anygate_admin::history::STEP;
use anygate_admin::processes::totals;
use anygate_admin::{About, Admin, AppReport, Guard, History, Processes, Worker as Shown, uwsgi};
use anygate_config::{AppRoute, BindAddress, Order, Plan, Protocol, VERSION, options};
use anygate_lock::Mutex;
use anygate_policy::cache::Cache;
use anygate_policy::shared_memory::process_row::ProcessRow;
use anygate_policy::shared_memory::route_table::RouteTable;
use anygate_server::{Events, Runner, Service, Supervision, Worker};
use anygate_supervisor::sockets::{self, Socket};
use anygate_supervisor::{AssistantContext, Orders, Tree};
use anygate_sys::Address;

use crate::app_admin;
use crate::logs;
use crate::refusal::{Refusal, say};
use crate::statsd::{Figures, Push};
use crate::telemetry::{self, Telemetry};

/// A client of uWSGI's statistics that takes nothing for so long gets no more.
const STATS_TIMEOUT: Duration = Duration::from_secs(1);
/// A worker that does not write down its stacks within this time is given up,
const STACKS_MAX: Duration = Duration::from_secs(4);
/// and one that wrote nothing more for so long has written everything.
const STACKS_QUIET: Duration = Duration::from_millis(100);

/// Inputs of the assistant besides its context.
pub(crate) struct Assistant {
    pub(crate) token: Option<String>,
    pub(crate) since: SystemTime,
    pub(crate) supervisor: u64,
    /// File into which workers write their stacks.
    pub(crate) stacks: File,
    /// What is sent to a collector, if anything is.
    pub(crate) telemetry: Option<Telemetry>,
}

impl Assistant {
    /// Prepares what the assistant needs, in the supervisor; `None` if no option needs one.
    pub(crate) fn prepare(plan: &Plan) -> Result<Option<Assistant>, Refusal> {
        if !plan.admin.wants_assistant() {
            return Ok(None);
        }
        let token = token(plan)?;
        // Each write is to go to the end, wherever that is: the file is emptied before each use. Its name goes at once.
        let file = tempfile::Builder::new().append(true).tempfile();
        let file = file.and_then(|file| file.as_file().try_clone());
        let stacks =
            file.map_err(|error| Refusal::machine(format!("cannot create a temporary file: {error}")))?;
        let supervisor = u64::from(std::process::id());
        let telemetry = Telemetry::prepare(plan)?;
        Ok(Some(Assistant { token, since: SystemTime::now(), supervisor, stacks, telemetry }))
    }

    /// Opens the assistant's sockets.
    ///
    /// Errors: one line that says why not.
    pub(crate) fn open(&self, plan: &Plan) -> Result<Vec<Socket>, Refusal> {
        // Access to the site's own sockets is no permission to control it.
        let own =
            anygate_config::SocketPlan { unix_mode: Some(0o600), unix_owner: None, ..plan.socket.clone() };
        let opened = sockets::open(&plan.admin.binds(), &own, true).map_err(Refusal::machine)?;
        let exposed = opened.iter().find(|socket| !is_local(socket.listener.local()));
        match exposed {
            Some(socket) if self.token.is_none() || socket.protocol != Protocol::Http => {
                let at = socket.listener.local().to_string();
                sockets::close(&opened);
                let reason = format!(
                    "other machines can reach {at}: name a file for the token, which is created if it does not exist: {}",
                    plan.origins.name(options::ADMIN_TOKEN_FILE, options::ADMIN)
                );
                Err(Refusal::usage(plan.origins.wrong(options::ADMIN, reason)))
            }
            _ => Ok(opened),
        }
    }

    /// Lives as the assistant.
    pub(crate) fn live(
        &self,
        plan: &Plan,
        cache: Option<Arc<Cache>>,
        routes: Option<RouteTable>,
        context: AssistantContext,
    ) -> io::Result<()> {
        let AssistantContext { sockets, signals, told, tree, orders } = context;
        let about =
            About { version: VERSION, since: self.since, pid: self.supervisor, log_level: plan.log.level };
        let hosts = match &plan.admin.address {
            Some(BindAddress::Tcp { host, .. }) => vec![host.clone()],
            _ => Vec::new(),
        };
        let stacks = self.stacks.try_clone()?;
        let processes: Arc<dyn Processes> = Arc::new(BoardProcesses {
            tree: tree.clone(),
            orders,
            stacks: Mutex::new(stacks),
            routes,
            apps: plan.application.routes.clone(),
        });
        let (own, stats): (Vec<Socket>, Vec<Socket>) =
            sockets.into_iter().partition(|socket| socket.protocol == Protocol::Http);
        for socket in stats {
            serve_stats(&socket, about.clone(), Arc::clone(&processes))?;
        }
        let figures = || {
            let processes = Arc::clone(&processes);
            Box::new(move || Some(totals(processes.as_ref()))) as Figures
        };
        let push = plan.admin.statsd.clone().map(|plan| Push::start(plan, figures())).transpose()?;
        let exporter = match &self.telemetry {
            None => None,
            Some(telemetry) => {
                let seen = (tree.clone(), Arc::clone(&processes));
                let exporter = telemetry.start(plan, self.supervisor, self.since, seen)?;
                Some((exporter, telemetry::again(&told)?, Arc::clone(&processes)))
            }
        };
        let patience = plan.process.graceful_timeout;
        let history = Arc::new(History::new(processes.as_ref(), SystemTime::now()));
        keep_history(Arc::clone(&history), Arc::clone(&processes))?;
        let admin_sockets = own.into_iter().map(|socket| (socket.protocol, socket.listener)).collect();
        let admin = Admin::new(about, Guard { token: self.token.clone(), hosts }, processes, cache, history);
        let plan = plan.server.for_admin();
        let service = Service {
            site: None,
            runner: Runner::Threads(Arc::new(admin), plan.threads),
            access_log: None,
            reopen_logs: Some(Box::new(logs::reopen)),
            write_stacks: None,
            files: None,
            tls: None,
            counts: None,
            tracer: None,
            routes: None,
            peers: None,
            requests_max: None,
        };
        // A signal from elsewhere is for the supervisor.
        let supervision = Supervision {
            signals,
            orders: told,
            signalled: Box::new(|| ()),
            broken_off: Box::new(|| ()),
            ending: Box::new(|| ()),
        };
        let (worker, _handle) = Worker::new(&plan, admin_sockets, service, Some(supervision))?;
        worker.run(Box::new(Following(tree)))?;
        if let Some(push) = push {
            push.send();
        }
        if let Some((exporter, told, processes)) = exporter {
            telemetry::finish(exporter, &told, processes.as_ref(), patience);
        }
        Ok(())
    }
}

/// The token that clients must know. One that does not exist yet is made and shown.
fn token(plan: &Plan) -> Result<Option<String>, Refusal> {
    let Some(path) = &plan.admin.token_file else { return Ok(None) };
    let wrong = |reason: String| plan.origins.wrong(options::ADMIN_TOKEN_FILE, reason);
    let failed = |error: io::Error| Refusal::machine(wrong(format!("{}: {error}", path.display())));
    let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    match made {
        Ok(mut file) => {
            let mut bytes = [0; 24];
            getrandom::fill(&mut bytes).map_err(|error| failed(error.into()))?;
            let token: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            file.write_all(format!("{token}\n").as_bytes()).map_err(failed)?;
            say(&format!("anygate: the token of the admin address is {token} (it is in {})", path.display()));
            Ok(Some(token))
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let text = std::fs::read_to_string(path).map_err(failed)?;
            let token = text.trim_start_matches('\u{feff}').lines().next().unwrap_or_default().trim();
            if token.len() < 16 {
                let shown = path.display();
                return Err(Refusal::usage(wrong(format!(
                    "the token in {shown} is shorter than 16 characters; delete the file to have one generated"
                ))));
            }
            Ok(Some(token.to_owned()))
        }
        Err(error) => Err(failed(error)),
    }
}

/// Whether only this machine can reach an address.
fn is_local(address: &Address) -> bool {
    match address {
        Address::Inet(address) => address.ip().is_loopback(),
        Address::Unix(_) => true,
    }
}

/// The processes as the supervisor's board shows them.
struct BoardProcesses {
    tree: Tree,
    orders: Orders,
    stacks: Mutex<File>,
    routes: Option<RouteTable>,
    /// Applications of a router.
    apps: Vec<AppRoute>,
}

impl Processes for BoardProcesses {
    fn workers(&self) -> Vec<Shown<'_>> {
        self.tree.workers().map(shown).collect()
    }

    fn others(&self) -> [ProcessRow<'_>; 2] {
        self.tree.others().map(ProcessRow)
    }

    fn routes(&self) -> Option<&RouteTable> {
        self.routes.as_ref()
    }

    fn order(&self, order: Order) -> io::Result<()> {
        self.orders.give(order)
    }

    fn stacks(&self, pid: u64) -> io::Result<String> {
        let Ok(pid) = pid.try_into() else { return Ok(String::new()) };
        // One at a time: all workers write into the same file.
        let file = self.stacks.lock();
        file.set_len(0)?;
        self.orders.give(Order::Stacks(pid))?;
        let asked = Instant::now();
        let (mut length, mut grown) = (0, asked);
        while asked.elapsed() < STACKS_MAX && (length == 0 || grown.elapsed() < STACKS_QUIET) {
            thread::sleep(Duration::from_millis(10));
            let now = file.metadata()?.len();
            if now != length {
                (length, grown) = (now, Instant::now());
            }
        }
        let mut bytes = vec![0; usize::try_from(length).unwrap_or_default()];
        file.read_exact_at(&mut bytes, 0)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    fn ask_apps(&self, method: &str, target: &str) -> Vec<AppReport> {
        app_admin::ask(&self.apps, method, target)
    }
}

fn shown(worker: anygate_supervisor::Worker<'_>) -> Shown<'_> {
    Shown {
        number: worker.number,
        pid: worker.pid,
        since: worker.since,
        stage: worker.stage,
        row: ProcessRow(worker.counts),
    }
}

/// The assistant keeps to the level of messages that is wanted of all.
struct Following(Tree);

impl Events for Following {
    fn beat(&mut self, _traffic: bool, _held: Option<Duration>) {
        logs::tend();
        let [supervisor, _] = self.0.others();
        logs::follow(ProcessRow(supervisor));
    }

    fn draining(&mut self) {}

    fn retiring(&mut self) {}
}

/// Adds a step to the history each time that one is over.
fn keep_history(history: Arc<History>, processes: Arc<dyn Processes>) -> io::Result<()> {
    let work = move || {
        loop {
            thread::sleep(STEP);
            history.sample(processes.as_ref(), SystemTime::now());
        }
    };
    thread::Builder::new().name("history".to_owned()).spawn(work).map(|_| ())
}

/// Sends uWSGI's statistics to each client that connects, one after another.
fn serve_stats(socket: &Socket, about: About, processes: Arc<dyn Processes>) -> io::Result<()> {
    let fd = socket.listener.as_fd().try_clone_to_owned()?;
    let text = move || format!("{}\n", uwsgi::stats(&about, processes.as_ref()));
    let thread = thread::Builder::new().name("uwsgi-stats".to_owned());
    if let Address::Unix(_) = socket.listener.local() {
        let listener = UnixListener::from(fd);
        listener.set_nonblocking(false)?;
        let limit = |client: &UnixStream| client.set_write_timeout(Some(STATS_TIMEOUT));
        thread.spawn(move || listener.incoming().for_each(|client| give(client, limit, &text)))?;
    } else {
        let listener = TcpListener::from(fd);
        listener.set_nonblocking(false)?;
        let limit = |client: &TcpStream| client.set_write_timeout(Some(STATS_TIMEOUT));
        thread.spawn(move || listener.incoming().for_each(|client| give(client, limit, &text)))?;
    }
    Ok(())
}

fn give<C: Write>(client: io::Result<C>, limit: impl Fn(&C) -> io::Result<()>, text: impl Fn() -> String) {
    let given = client.and_then(|mut client| {
        limit(&client)?;
        client.write_all(text().as_bytes())
    });
    if let Err(error) = given {
        tracing::debug!("a client did not get uWSGI's statistics: {error}");
        // What keeps clients from being accepted, such as too many open files, may be over soon.
        thread::sleep(Duration::from_millis(10));
    }
}
