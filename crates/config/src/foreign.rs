//! Options of other servers, which users type here out of habit, and what to use instead. A table: gunicorn, uWSGI, uvicorn,
//! waitress, hypercorn and granian. Names that mean the same here are not in it; an option that is the same under another name
//! has that name in its own row ([`Opt::foreign_names`](options::Opt::foreign_names)).
//! Importers of the files of other servers read all of it, too.

use crate::form::{Form, filled, written};
use crate::options::{self, Opt};

/// What to use instead.
#[derive(Clone, Copy, Debug)]
enum Instead {
    /// Something that has the same effect.
    Use(&'static str),
    /// The effect is always there.
    Always(&'static str),
    /// There is nothing like it, for this reason.
    Nothing(&'static str),
}

use Instead::{Always, Nothing, Use};

const OTHER_FILE: Instead = Use(
    "{config=FILE}, which reads files of other servers, too, and anygate's own, as `anygate config --print` shows them",
);
const PASTE: Instead =
    Use("the argument APP, as in `anygate 'paste.deploy:loadapp(\"config:/path/to/production.ini\")'`");
const MODULE: Instead = Use("the argument APP, as in `anygate myapp:app`");
const CIPHERS: Instead = Nothing("TLS 1.2 and 1.3 with their strong ciphers are always used");
const ASGI: Instead = Nothing("it is for ASGI; anygate serves WSGI applications");
const ENVIRONMENT: Instead = Use("the environment that anygate is started in: `NAME=value anygate ...`");
const LOG_CONFIG: Instead = Use("{log_config=FILE} and {python_logging}");
const STRICT: Instead = Nothing("requests that two servers could read differently are always refused");
/// Names of gunicorn's server hooks, as far as `hooks` calls them.
pub const GUNICORN_HOOKS: [&str; 15] = [
    "on_starting",
    "on_reload",
    "when_ready",
    "pre_fork",
    "post_fork",
    "post_worker_init",
    "pre_exec",
    "pre_request",
    "post_request",
    "child_exit",
    "worker_exit",
    "worker_abort",
    "worker_int",
    "nworkers_changed",
    "on_exit",
];
const HOOKS: Instead = Use("{hooks=FILE}, a Python file with functions of these names");

/// Options of others that are none here: their names, with `_`, and what to use instead.
const TABLE: &[(&[&str], Instead)] = &[
    // Addresses.
    (&["http", "http_socket", "insecure_bind", "endpoint"], Use("{bind=HOST:PORT}")),
    (
        &["https", "https_socket", "shared_socket", "quic_bind"],
        Use("{bind=HOST:PORT} with {ssl_certificate} and {ssl_private_key}"),
    ),
    (
        &["socket", "uwsgi_socket"],
        Use("{bind=uwsgi://HOST:PORT} or {bind=uwsgi+unix:PATH}; for HTTP {bind=HOST:PORT}"),
    ),
    (&["fastcgi_socket", "fastcgi"], Use("{bind=fastcgi://HOST:PORT} or {bind=fastcgi+unix:PATH}")),
    (&["scgi_socket"], Use("{bind=scgi://HOST:PORT} or {bind=scgi+unix:PATH}")),
    (
        &["listen"],
        Use("{bind=HOST:PORT} for an address, {backlog} for the length of the queue of connections"),
    ),
    (&["uds", "unix_socket"], Use("{bind=unix:PATH}")),
    (&["fd"], Use("{bind=fd://N}")),
    (&["reuse_port", "thunder_lock"], Always("workers share the listening sockets")),
    (
        &["url_scheme", "secure_scheme_headers", "forwarder_headers", "trusted_proxy_headers"],
        Use("{trusted_proxies}, with {forwarded_header} for their kind of fields"),
    ),
    (
        &["proxy_headers", "trusted_proxy_count", "log_x_forwarded_for"],
        Use("{trusted_proxies}, the addresses of the proxies"),
    ),
    (
        &["no_proxy_headers", "clear_untrusted_proxy_headers", "log_untrusted_proxy_headers"],
        Always("forwarding fields are removed from the requests of all but {trusted_proxies}"),
    ),
    (&["proxy_allow_from", "proxy_allow_ips"], Use("{trusted_proxies} with {proxy_protocol}")),
    // TLS.
    (
        &["cert_reqs", "ssl_cert_reqs", "ssl_client_verify", "verify_mode"],
        Use("{client_cert=required} with {client_ca}"),
    ),
    (
        &[
            "ciphers",
            "ssl_ciphers",
            "ssl_version",
            "ssl_protocol_min",
            "ssl_crl",
            "do_handshake_on_connect",
            "suppress_ragged_eofs",
        ],
        CIPHERS,
    ),
    // The application.
    (&["wsgi_file", "file", "module", "wsgi", "wsgi_app", "callable", "application", "target"], MODULE),
    (&["factory", "call"], Use("the argument APP with parentheses, as in `anygate 'myapp:create_app()'`")),
    (&["env_file", "env_files"], ENVIRONMENT),
    (&["paste", "paster", "raw_paste_global_conf", "paste_config"], PASTE),
    (
        &[
            "interface",
            "lifespan",
            "ws",
            "no_ws",
            "loop",
            "task_impl",
            "runtime_mode",
            "runtime_threads",
            "runtime_blocking_threads",
            "asyncio",
        ],
        ASGI,
    ),
    (&["lazy_apps", "lazy"], Always("workers import the application themselves, unless {preload} is set")),
    (&["need_app"], Always("without an application anygate ends with exit code 3")),
    (
        &[
            "single_interpreter",
            "py_call_osafterfork",
            "close_on_exec",
            "plugin",
            "plugins",
            "strict",
            "honour_stdin",
        ],
        Always("there is nothing to set"),
    ),
    (
        &["reload_engine", "reload_exclude", "reload_delay", "noreload"],
        Nothing("{reload} watches the files that are imported, and only them"),
    ),
    (&["touch_chain_reload"], Use("{touch_reload} with {reload_mode=rolling}")),
    (&["check_config", "show_config"], Use("`anygate config --check`")),
    (&["print_config", "dump_config"], Use("`anygate config --print`")),
    // Processes and threads.
    (
        &["worker_class", "gevent", "gevent_monkey_patch", "worker_type"],
        Use("{concurrency=gevent} for greenlets; threads are the default"),
    ),
    (&["async", "ugreen", "greenlet"], Use("{concurrency=gevent} with {greenlets=N}")),
    (
        &["worker_connections"],
        Use("{greenlets} with {concurrency=gevent}, {connections_max} for connections"),
    ),
    (&["enable_threads", "with_threads", "threaded", "T"], Always("{threads} sets how many there are")),
    (
        &["master", "no_orphans", "die_on_term", "M", "respawn_failed_workers"],
        Always("a supervisor watches the workers, and TERM ends them all"),
    ),
    (&["vacuum"], Always("unix sockets and the pid file are removed at the end")),
    (&["d"], Use("{daemon} with {error_log=FILE}")),
    (&["auto_procname"], Always("processes are called by what they do, after {proc_name}")),
    (&["min_worker_lifetime"], Always("workers are replaced one after another")),
    (&["reload_on_as"], Use("{worker_memory_max}, which measures resident memory")),
    (
        &["cheaper_algo", "cheaper_step", "cheaper_overload", "autoscale"],
        Use("{workers_min} and {workers_max}: the number of workers follows the load"),
    ),
    (
        &["spooler", "mule", "mules", "farm", "emperor", "vassal", "offload_threads"],
        Nothing("anygate runs no programs but the application, its cron jobs and its daemons"),
    ),
    (
        &["attach_daemon", "attach_daemon2", "smart_attach_daemon", "smart_attach_daemon2"],
        Use("a [[daemon]] table in anygate.toml"),
    ),
    (&["cron2", "unique_cron"], Use("a [[cron]] table in anygate.toml")),
    (&GUNICORN_HOOKS, HOOKS),
    // Times.
    (
        &["socket_timeout", "so_send_timeout", "z"],
        Use("{write_timeout} for responses, {body_timeout} for requests"),
    ),
    (
        &["channel_timeout", "cleanup_interval"],
        Use("{keepalive_timeout}, {header_timeout}, {body_timeout} and {write_timeout}"),
    ),
    // Limits.
    (
        &["http_websockets"],
        Use("`anygate.websocket` in the application, or {uwsgi_module} for uWSGI's functions"),
    ),
    (
        &["http_auto_chunked", "http_chunked_input", "http_raw_body", "wsgi_manage_chunked_input"],
        Always("chunked requests and responses are handled"),
    ),
    (
        &[
            "permit_obsolete_folding",
            "permit_unconventional_http_method",
            "permit_unconventional_http_version",
            "casefold_http_method",
            "strip_header_spaces",
            "header_map",
        ],
        STRICT,
    ),
    (
        &[
            "no_sendfile",
            "recv_bytes",
            "channel_request_lookahead",
            "asyncore_loop_timeout",
            "asyncore_use_poll",
            "log_socket_errors",
            "http1_pipeline_flush",
            "ws_max_queue",
            "memory_report",
        ],
        Nothing("there is nothing to set"),
    ),
    // Responses.
    (&["static_map", "check_static", "static_path_mount", "static_path_route"], Use("{static=/PATH=DIR}")),
    (&["header", "add_header"], Use("{security_header='NAME: VALUE'}")),
    (
        &["ident", "server_name", "no_server_header"],
        Use("{server_header=TEXT}; an empty text leaves the field out"),
    ),
    (&["date_header", "no_date_header"], Always("responses have a Date field, as HTTP asks of them")),
    // Logs.
    (&["verbose", "v"], Use("{log_level=debug}")),
    (&["quiet", "q", "no_log"], Use("{log_level=error}")),
    (&["disable_logging", "no_access_log", "L"], Always("requests are only logged when {access_log} is set")),
    (&["log_config_json", "logconfig", "logconfig_dict", "logger_class"], LOG_CONFIG),
    (&["log_syslog", "log_syslog_to", "syslog"], Use("{error_log=syslog}")),
    (
        &[
            "capture_output",
            "enable_stdio_inheritance",
            "log_master",
            "threaded_logger",
            "use_colors",
            "no_use_colors",
            "log_syslog_prefix",
            "disable_redirect_access_to_syslog",
        ],
        Always("what the application prints goes where anygate's own output goes"),
    ),
    (&["spew"], Use("{profiler}")),
    // uWSGI's own.
    (
        &[
            "ignore_sigpipe",
            "ignore_write_errors",
            "disable_write_exception",
            "write_errors_tolerance",
            "write_errors_exception_only",
        ],
        Always("a client that leaves is no error of the application"),
    ),
    (
        &[
            "so_keepalive",
            "tcp_nodelay",
            "no_defer_accept",
            "freebind",
            "http_manage_expect",
            "honour_range",
            "reaper",
        ],
        Always("it is done without an option"),
    ),
    (
        &["static_gzip", "static_gzip_all", "static_gzip_dir", "static_gzip_ext", "static_gzip_prefix"],
        Always("files that were compressed before, such as a.css.gz, are sent to clients that accept them"),
    ),
    (&["harakiri_verbose"], Always("the stack of a request that takes too long is logged")),
    (&["wsgi_env_behaviour", "wsgi_env_behavior"], Always("each request has an environ of its own")),
    (
        &[
            "master_as_root",
            "drop_after_init",
            "drop_after_apps",
            "no_initgroups",
            "immediate_uid",
            "immediate_gid",
        ],
        Always("the supervisor keeps its privileges, and workers have those of {user}"),
    ),
    (
        &[
            "py_executable",
            "py_sys_executable",
            "py_programname",
            "binary_path",
            "no_default_app",
            "autoload",
            "no_server",
        ],
        Always("anygate runs in Python"),
    ),
    (&["catch_exceptions"], Use("{debug}, for clients on this machine")),
    (&["py_tracebacker"], Use("`anygate ctl stacks`, with {admin}")),
    (&["master_fifo"], Use("`anygate ctl`, with {admin}")),
    (&["log_reopen", "touch_logreopen"], Use("`kill -USR1`, which opens logs anew")),
    (&["touch_logrotate", "log_truncate"], Use("{log_rotate_size} or {log_rotate_interval}")),
    (&["log_encoder", "log_req_encoder"], Use("{access_log_format=json}")),
    (&["error_page_403", "error_page_404", "error_page_500"], Use("{error_pages=DIR}")),
    (&["http_auto_gzip"], Use("{compression}")),
    (&["ini_paste", "ini_paste_logged", "paste_logger", "pecan"], PASTE),
    (
        &[
            "import",
            "pyimport",
            "py_import",
            "python_import",
            "shared_import",
            "shared_pyimport",
            "eval",
            "pyrun",
            "pyargv",
        ],
        Nothing("the application imports and runs what it needs"),
    ),
    (
        &[
            "sharedarea",
            "queue",
            "locks",
            "lock_engine",
            "signal",
            "timer",
            "rbtimer",
            "cache_store",
            "py_sharedarea",
        ],
        Nothing("it is for functions of the module uwsgi, see {uwsgi_module}"),
    ),
    (
        &[
            "chroot",
            "cgroup",
            "namespace",
            "unshare",
            "jailed",
            "limit_nproc",
            "ksm",
            "never_swap",
            "pivot_root",
        ],
        Nothing("systemd or a container confines processes"),
    ),
    (&["idle", "cheap", "die_on_idle"], Nothing("workers do not end while nobody sends requests")),
    (
        &["route", "route_uri", "route_host", "route_run", "final_route"],
        Use("{redirect=RULE} or {rewrite=RULE}; the application decides about more"),
    ),
    (
        &[
            "subscribe_to",
            "fastrouter",
            "legion",
            "zerg",
            "carbon",
            "snmp",
            "vhost",
            "emperor_stats",
            "vassals_dir",
        ],
        Nothing("one server serves one application"),
    ),
    (&["skip_atexit", "skip_atexit_teardown"], Nothing("a worker ends as a program of Python does")),
    // Settings.
    (&["ini", "xml", "yaml", "json", "x", "config_file", "settings", "conf"], OTHER_FILE),
];

/// What corresponds to an option of another server.
#[derive(Clone, Debug)]
pub enum Counterpart {
    /// This option has the same meaning.
    Same(&'static Opt),
    /// Something that has the same effect, as a file of settings has it.
    Instead(String),
    /// The effect is always there, for this reason.
    Always(String),
    /// There is nothing like it, for this reason.
    Nothing(String),
}

/// Returns what corresponds to an option of another server, if it is known. `name` has `_` between words.
pub fn counterpart(name: &str) -> Option<Counterpart> {
    if let Some(option) = options::OPTIONS.iter().find(|option| option.foreign_names.contains(&name)) {
        return Some(Counterpart::Same(option));
    }
    let (_, instead) = TABLE.iter().find(|(names, _)| names.contains(&name))?;
    Some(match *instead {
        Use(text) => Counterpart::Instead(filled(text, Form::Key)),
        Always(text) => Counterpart::Always(filled(text, Form::Key)),
        Nothing(text) => Counterpart::Nothing(filled(text, Form::Key)),
    })
}

/// Returns what to use instead of an option of another server, as the end of a sentence. `name` has `_` between words.
pub(crate) fn hint(name: &str, form: Form) -> Option<String> {
    let name = name.replace('-', "_");
    let name = if name.chars().count() == 1 { name } else { name.to_lowercase() };
    if let Some(option) = options::OPTIONS.iter().find(|option| option.foreign_names.contains(&name.as_str()))
    {
        return Some(format!("did you mean {}?", written(option.name, form)));
    }
    let (_, instead) = TABLE.iter().find(|(names, _)| names.contains(&name.as_str()))?;
    Some(match *instead {
        Use(text) => format!("use {}", filled(text, form)),
        Always(text) => format!("it is not needed: {}", filled(text, form)),
        Nothing(text) => format!("nothing corresponds to it: {}", filled(text, form)),
    })
}

/// Options of others whose values are addresses, and the protocols of gateways that are spoken there.
const ADDRESSES: &[(&[&str], Option<&str>)] = &[
    (&["http", "http_socket", "insecure_bind", "endpoint", "listen", "uds", "unix_socket"], None),
    (&["socket", "uwsgi_socket"], Some("uwsgi")),
    (&["fastcgi_socket", "fastcgi"], Some("fastcgi")),
    (&["scgi_socket"], Some("scgi")),
];

/// The same for an option that was given with a value: an address is repeated as `bind` has it.
pub(crate) fn hint_with(name: &str, value: Option<&str>, form: Form) -> Option<String> {
    let plain = name.replace('-', "_").to_lowercase();
    let protocol = ADDRESSES.iter().find(|(names, _)| names.contains(&plain.as_str()));
    match (protocol, value.and_then(as_bind)) {
        (Some((_, protocol)), Some(address)) => Some(use_bind(&address, *protocol, form)),
        _ => hint(name, form),
    }
}

/// Says that an address belongs to `bind`, for HTTP and for the protocol of a gateway.
pub(crate) fn use_bind(address: &str, gateway: Option<&str>, form: Form) -> String {
    let http = written(&format!("bind={address}"), form);
    match gateway {
        None => format!("use {http}"),
        Some(scheme) => {
            let sign = if address.starts_with("unix:") { "+" } else { "://" };
            let other = written(&format!("bind={scheme}{sign}{address}"), form);
            format!("use {http} for HTTP, {other} for {scheme}")
        }
    }
}

/// The value of `bind` for an address as uWSGI, gunicorn and others write it: a port, a host and a port, the path of a unix
/// socket. `None` for all else.
pub(crate) fn as_bind(text: &str) -> Option<String> {
    let text =
        ["http://", "tcp://", "tcp:"].iter().find_map(|scheme| text.strip_prefix(scheme)).unwrap_or(text);
    if let Some(path) = text.strip_prefix("unix:") {
        return Some(format!("unix:{}", path.strip_prefix("//").unwrap_or(path)));
    }
    if text.starts_with("fd://") {
        return Some(text.to_owned());
    }
    let is_port = |port: &str| port.starts_with(|c: char| c.is_ascii_digit()) && port.parse::<u16>().is_ok();
    if is_port(text) {
        return Some(format!(":{text}"));
    }
    if let Some((host, port)) = text.rsplit_once(':')
        && is_port(port)
        && !host.contains('/')
    {
        return Some(format!("{}:{port}", if host == "*" { "" } else { host }));
    }
    let is_path = text.contains('/') || text.ends_with(".sock") || text.ends_with(".socket");
    (is_path && !text.contains(':')).then(|| format!("unix:{text}"))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn each_row_names_options_that_exist_and_no_name_that_is_ours() {
        let mut seen = BTreeSet::new();
        let ours = options::OPTIONS.iter().map(|option| option.foreign_names);
        for names in TABLE.iter().map(|(names, _)| *names).chain(ours) {
            for name in names {
                assert!(seen.insert(name), "{name} is there twice");
                assert!(options::find(name).is_none(), "{name} is an option");
                assert!(!options::OPTIONS.iter().any(|option| {
                    option.short.into_iter().chain(option.old_short).any(|short| short.to_string() == *name)
                }));
            }
        }
        for (_, instead) in TABLE {
            let (Use(text) | Always(text) | Nothing(text)) = instead;
            for placeholder in text.split('{').skip(1) {
                let placeholder = placeholder.split_once('}').expect(text).0;
                let name = placeholder.split('=').next().unwrap();
                assert!(options::find(name).is_some(), "{name} in {text}");
            }
        }
    }

    #[test]
    fn addresses_are_repeated_as_bind_has_them() {
        for (name, value, said) in [
            ("http", ":8000", "use --bind :8000"),
            ("http-socket", "127.0.0.1:9000", "use --bind 127.0.0.1:9000"),
            ("uds", "/run/a.sock", "use --bind unix:/run/a.sock"),
            ("unix-socket", "a.sock", "use --bind unix:a.sock"),
            ("listen", "*:8080", "use --bind :8080"),
            (
                "socket",
                "/tmp/a.sock",
                "use --bind unix:/tmp/a.sock for HTTP, --bind uwsgi+unix:/tmp/a.sock for uwsgi",
            ),
            ("uwsgi-socket", ":3031", "use --bind :3031 for HTTP, --bind uwsgi://:3031 for uwsgi"),
            ("scgi_socket", ":4000", "use --bind :4000 for HTTP, --bind scgi://:4000 for scgi"),
            // What is no address.
            ("http", "app:app", "use --bind HOST:PORT"),
            ("timeout", ":8000", "did you mean --request-timeout?"),
        ] {
            assert_eq!(hint_with(name, Some(value), Form::Flag).unwrap(), said, "{name} {value}");
        }
        assert_eq!(hint_with("http", None, Form::Flag).unwrap(), "use --bind HOST:PORT");
        assert_eq!(hint_with("uds", Some("/a.sock"), Form::Key).unwrap(), "use bind = \"unix:/a.sock\"");
        let names = ADDRESSES.iter().flat_map(|(names, _)| names.iter());
        for name in names {
            assert!(
                TABLE.iter().any(|(others, _)| others.contains(name)),
                "{name} has no hint without a value"
            );
        }
    }

    #[test]
    fn options_are_written_as_in_the_place_where_they_are_to_be_set() {
        assert_eq!(hint("timeout", Form::Flag).unwrap(), "did you mean --request-timeout?");
        assert_eq!(hint("ssl-certfile", Form::Key).unwrap(), "did you mean ssl_certificate?");
        assert_eq!(hint("ACCESS_LOGFILE", Form::Variable).unwrap(), "did you mean ANYGATE_ACCESS_LOG?");
        assert_eq!(hint("uds", Form::Flag).unwrap(), "use --bind unix:PATH");
        assert_eq!(hint("uds", Form::Key).unwrap(), "use bind = \"unix:PATH\"");
        assert_eq!(hint("uds", Form::Argument).unwrap(), "use bind=\"unix:PATH\"");
        assert_eq!(hint("header", Form::Flag).unwrap(), "use --security-header 'NAME: VALUE'");
        assert!(hint("M", Form::Flag).is_some());
        assert!(hint("zzz", Form::Flag).is_none());
    }
}
