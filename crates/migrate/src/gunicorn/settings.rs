//! The settings of gunicorn with their names on its command line: a table.

use serde_json::Value as Json;

use crate::draft::{Entry, Position};

/// One setting as it was made.
#[derive(Clone, Debug)]
pub(crate) struct Setting {
    pub(crate) position: Position,
    pub(crate) name: String,
    pub(crate) value: Json,
    pub(crate) typed: String,
}

impl Setting {
    pub(super) fn entry(&self) -> Entry {
        let value = match &self.value {
            Json::String(text) => text.clone(),
            other => other.to_string(),
        };
        Entry { position: self.position.clone(), key: self.name.clone(), value, typed: self.typed.clone() }
    }
}

/// How a setting is written on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Takes {
    /// With a value.
    Value,
    /// Alone.
    Flag,
    /// With a value, as often as needed.
    List,
}

use Takes::{Flag, List, Value};

/// Name of a setting, its names on the command line, with `_`, and how it is written there.
pub(super) const SETTINGS: &[(&str, &[&str], Takes)] = &[
    ("wsgi_app", &[], Value),
    ("bind", &["b", "bind"], List),
    ("backlog", &["backlog"], Value),
    ("workers", &["w", "workers"], Value),
    ("worker_class", &["k", "worker_class"], Value),
    ("threads", &["threads"], Value),
    ("worker_connections", &["worker_connections"], Value),
    ("max_requests", &["max_requests"], Value),
    ("max_requests_jitter", &["max_requests_jitter"], Value),
    ("timeout", &["t", "timeout"], Value),
    ("graceful_timeout", &["graceful_timeout"], Value),
    ("keepalive", &["keep_alive"], Value),
    ("limit_request_line", &["limit_request_line"], Value),
    ("limit_request_fields", &["limit_request_fields"], Value),
    ("limit_request_field_size", &["limit_request_field_size"], Value),
    ("reload", &["reload"], Flag),
    ("reload_engine", &["reload_engine"], Value),
    ("reload_extra_files", &["reload_extra_file"], List),
    ("spew", &["spew"], Flag),
    ("check_config", &["check_config"], Flag),
    ("print_config", &["print_config"], Flag),
    ("preload_app", &["preload"], Flag),
    ("sendfile", &["no_sendfile"], Flag),
    ("reuse_port", &["reuse_port"], Flag),
    ("chdir", &["chdir"], Value),
    ("daemon", &["D", "daemon"], Flag),
    ("raw_env", &["e", "env"], List),
    ("pidfile", &["p", "pid"], Value),
    ("worker_tmp_dir", &["worker_tmp_dir"], Value),
    ("user", &["u", "user"], Value),
    ("group", &["g", "group"], Value),
    ("umask", &["m", "umask"], Value),
    ("initgroups", &["initgroups"], Flag),
    ("tmp_upload_dir", &[], Value),
    ("secure_scheme_headers", &[], Value),
    ("forwarded_allow_ips", &["forwarded_allow_ips"], Value),
    ("accesslog", &["access_logfile"], Value),
    ("disable_redirect_access_to_syslog", &["disable_redirect_access_to_syslog"], Flag),
    ("access_log_format", &["access_logformat"], Value),
    ("errorlog", &["error_logfile", "log_file"], Value),
    ("loglevel", &["log_level"], Value),
    ("capture_output", &["capture_output"], Flag),
    ("logger_class", &["logger_class"], Value),
    ("logconfig", &["log_config"], Value),
    ("logconfig_dict", &[], Value),
    ("logconfig_json", &["log_config_json"], Value),
    ("syslog_addr", &["log_syslog_to"], Value),
    ("syslog", &["log_syslog"], Flag),
    ("syslog_prefix", &["log_syslog_prefix"], Value),
    ("syslog_facility", &["log_syslog_facility"], Value),
    ("enable_stdio_inheritance", &["R", "enable_stdio_inheritance"], Flag),
    ("statsd_host", &["statsd_host"], Value),
    ("dogstatsd_tags", &["dogstatsd_tags"], Value),
    ("statsd_prefix", &["statsd_prefix"], Value),
    ("enable_backlog_metric", &["enable_backlog_metric"], Flag),
    ("proc_name", &["n", "name"], Value),
    ("default_proc_name", &[], Value),
    ("pythonpath", &["pythonpath"], Value),
    ("paste", &["paste", "paster"], Value),
    ("on_starting", &[], Value),
    ("on_reload", &[], Value),
    ("when_ready", &[], Value),
    ("pre_fork", &[], Value),
    ("post_fork", &[], Value),
    ("post_worker_init", &[], Value),
    ("worker_int", &[], Value),
    ("worker_abort", &[], Value),
    ("pre_exec", &[], Value),
    ("pre_request", &[], Value),
    ("post_request", &[], Value),
    ("child_exit", &[], Value),
    ("worker_exit", &[], Value),
    ("nworkers_changed", &[], Value),
    ("on_exit", &[], Value),
    ("ssl_context", &[], Value),
    ("proxy_protocol", &["proxy_protocol"], Value),
    ("proxy_allow_ips", &["proxy_allow_from"], Value),
    ("protocol", &["protocol"], Value),
    ("uwsgi_allow_ips", &["uwsgi_allow_from"], Value),
    ("keyfile", &["keyfile"], Value),
    ("certfile", &["certfile"], Value),
    ("ssl_version", &["ssl_version"], Value),
    ("cert_reqs", &["cert_reqs"], Value),
    ("ca_certs", &["ca_certs"], Value),
    ("suppress_ragged_eofs", &["suppress_ragged_eofs"], Flag),
    ("do_handshake_on_connect", &["do_handshake_on_connect"], Flag),
    ("ciphers", &["ciphers"], Value),
    ("http_protocols", &["http_protocols"], Value),
    ("http2_cleartext", &["http2_cleartext"], Value),
    ("http2_max_concurrent_streams", &["http2_max_concurrent_streams"], Value),
    ("http2_initial_window_size", &["http2_initial_window_size"], Value),
    ("http2_max_frame_size", &["http2_max_frame_size"], Value),
    ("http2_max_header_list_size", &["http2_max_header_list_size"], Value),
    ("raw_paste_global_conf", &["paste_global"], List),
    ("permit_obsolete_folding", &["permit_obsolete_folding"], Flag),
    ("strip_header_spaces", &["strip_header_spaces"], Flag),
    ("permit_unconventional_http_method", &["permit_unconventional_http_method"], Flag),
    ("permit_unconventional_http_version", &["permit_unconventional_http_version"], Flag),
    ("casefold_http_method", &["casefold_http_method"], Flag),
    ("forwarder_headers", &["forwarder_headers"], Value),
    ("header_map", &["header_map"], Value),
    ("asgi_loop", &["asgi_loop"], Value),
    ("asgi_lifespan", &["asgi_lifespan"], Value),
    ("asgi_disconnect_grace_period", &["asgi_disconnect_grace_period"], Value),
    ("websocket_max_message_size", &["websocket_max_message_size"], Value),
    ("http_parser", &["http_parser"], Value),
    ("root_path", &["root_path"], Value),
    ("dirty_apps", &["dirty_app"], List),
    ("dirty_workers", &["dirty_workers"], Value),
    ("dirty_timeout", &["dirty_timeout"], Value),
    ("dirty_threads", &["dirty_threads"], Value),
    ("dirty_graceful_timeout", &["dirty_graceful_timeout"], Value),
    ("on_dirty_starting", &[], Value),
    ("dirty_post_fork", &[], Value),
    ("dirty_worker_init", &[], Value),
    ("dirty_worker_exit", &[], Value),
    ("control_socket", &["control_socket"], Value),
    ("control_socket_mode", &["control_socket_mode"], Value),
    ("control_socket_disable", &["no_control_socket"], Flag),
];
