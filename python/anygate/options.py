"""Types of options: ``serve(app, **options: Unpack[Options])``.

``make docs`` generates this file from the table in ``crates/config/src/options/``. ``None`` leaves an option as it is.
"""

from __future__ import annotations

from os import PathLike
from typing import Literal, TypedDict

#: A text or a path.
Text = str | PathLike[str]
#: Several texts.
Texts = Text | list[str] | list[PathLike[str]] | list[Text] | tuple[Text, ...]


class PolicyOptions(TypedDict, total=False):
    """Options of the policies around an application, which work under any server."""

    pythonpath: Texts | None
    """Directory to add to Python's module search path (repeatable)."""

    debug: bool | None
    """Show tracebacks of failed requests to clients on this machine."""

    local_hosts: Texts | None
    """Host names of this machine, for local pages (repeatable)."""

    on_error: Text | None
    """Function to call for each failed request."""

    trusted_proxies: Texts | None
    """Proxy whose forwarding fields are trusted (repeatable)."""

    forwarded_header: Literal["x-forwarded", "forwarded", None]
    """Forwarding fields that trusted proxies set: x-forwarded, forwarded."""

    body_max_bytes: int | str | None
    """Maximum size of a request body, chunked or not (413)."""

    basic_auth: Texts | None
    """Require a user and password from an htpasswd file at and below a path (repeatable)."""

    basic_auth_realm: Text | None
    """Name of the protected area that browsers show when they ask for a password."""

    forward_auth: Texts | None
    """Have another server authenticate requests at and below a path (repeatable)."""

    forward_auth_fields: Texts | None
    """Response field of forward_auth that identifies the user (repeatable)."""

    forward_auth_timeout: float | str | None
    """Maximum time for a response of forward_auth; then the client gets 503."""

    redirect: Texts | None
    """Redirect requests: [STATUS ][HOST]FROM TO (repeatable)."""

    rewrite: Texts | None
    """Change the path that static files and the application see: [HOST]FROM TO (repeatable)."""

    allow: Texts | None
    """Client address or network to allow; others get 403 (repeatable)."""

    deny: Texts | None
    """Client address or network to deny with 403 (repeatable)."""

    rate_limit: Texts | None
    """Maximum request rate per client: [PATH ]N/TIME[ burst N][ by FIELD] (repeatable)."""

    requests_per_client_max: Texts | None
    """Maximum concurrent requests per client: [PATH ]N[ by FIELD] (repeatable)."""

    body_limits: Texts | None
    """Maximum size of a request body at and below a path (413; repeatable)."""

    health_path: Text | None
    """Path of the health check: 200 while the server runs."""

    ready_path: Text | None
    """Path of the readiness check: 200 when ready for requests, else 503."""

    ready_check: Text | None
    """Function of the application that checks whether it is ready."""

    ready_check_interval: float | str | None
    """Time between two calls of ready_check."""

    ready_check_timeout: float | str | None
    """Maximum time for a call of ready_check; then it has failed."""

    security_headers: Literal["off", "default", "strict", None]
    """Security fields to add to responses: off, default, strict."""

    security_header: Texts | None
    """Security field to add, change or omit, as NAME: VALUE (repeatable)."""

    cors_origins: Texts | None
    """Origin whose pages may read responses (CORS; repeatable)."""

    cors_methods: Texts | None
    """Method that pages of cors_origins may use (repeatable)."""

    cors_headers: Texts | None
    """Request field that pages of cors_origins may set; *: all (repeatable)."""

    cors_exposed_headers: Texts | None
    """Response field that pages of cors_origins may read (repeatable)."""

    cors_credentials: bool | None
    """Let pages of cors_origins send their user's cookies."""

    cors_max_age: float | str | None
    """Time for browsers to cache preflight results; 0: browser's default."""

    compression: bool | None
    """Compress responses for clients that accept it."""

    compression_codings: Texts | None
    """Compression to use, best first: zstd, br, gzip (repeatable)."""

    compression_types: Texts | None
    """Media type of responses to compress (repeatable)."""

    compression_min_bytes: int | str | None
    """Minimum size of responses to compress."""

    compression_excluded_paths: Texts | None
    """Path at and below which responses are not compressed (repeatable)."""

    error_pages: Text | None
    """Error pages in the client's format: on, or a directory with pages."""

    request_id: bool | None
    """Give each request an identifier (X-Request-Id)."""

    trace_context: bool | None
    """Give each request a trace context (W3C traceparent)."""

    static: Texts | None
    """Serve paths below a prefix from files in a directory (repeatable)."""

    sendfile_root: Text | None
    """Directory of files that the application may name in X-Sendfile or X-Accel-Redirect."""

    static_index: Texts | None
    """File to serve for a directory (repeatable)."""

    static_fallback: Text | None
    """File to serve to browsers when a page is not found."""

    static_listing: bool | None
    """List the files of directories without an index file."""

    static_symlinks: bool | None
    """Follow symbolic links that lead out of the directory."""

    static_fall_through: bool | None
    """Pass requests for missing files to the application, not 404."""

    static_max_age: float | str | None
    """Time for clients to cache files; 0: no Cache-Control field."""

    static_immutable: Texts | None
    """Pattern of files that never change (repeatable)."""

    static_types: Texts | None
    """Media type of files with a file name extension (repeatable)."""

    cache: Texts | None
    """Cache responses at and below a path (repeatable)."""

    cache_max_bytes: int | str | None
    """Memory for cached responses, per worker."""

    cache_entry_max_bytes: int | str | None
    """Maximum size of a cached response."""

    cache_obey_clients: bool | None
    """Let clients bypass the cache."""

    shared: Text | None
    """Redis server through which servers share rate limits, cache and cron jobs."""

    shared_prefix: Text | None
    """Prefix of keys in Redis, for sites that share one Redis server."""

    shared_timeout: float | str | None
    """Maximum time for one request to Redis."""

    access_log: Texts | None
    """Access log: a line per request to FILE; -: stdout."""

    access_log_format: Text | None
    """Access log format: combined, common, json, web2py, or text with %(h)s."""

    slow_request: float | str | None
    """Log requests that run longer, with their stack; 0: never."""

    metrics_path: Text | None
    """Path of the metrics within the site, for clients that may see them."""

    metrics_allow: Texts | None
    """Networks whose clients may see metrics_path, instead of this machine (repeatable)."""

    route_metrics: Texts | None
    """Routes whose requests, errors and times are counted apart (repeatable)."""

    statsd: Text | None
    """StatsD server that metrics are sent to every 10 seconds."""

    statsd_prefix: Text | None
    """Prefix of metric names sent to StatsD."""

    statsd_tags: bool | None
    """Send labels as DogStatsD tags, not as part of metric names."""


class Options(PolicyOptions, total=False):
    """Every option."""

    server: Text | None
    """Server to run; see anygate servers."""

    server_option: Texts | None
    """Option that only the other server knows, such as connection_limit=500 for waitress."""

    web2py: Text | None
    """Directory of the web2py site to serve."""

    password: Text | None
    """Web2py administrator password for this port."""

    chdir: Text | None
    """Working directory to change to before the application is loaded."""

    virtualenv: Text | None
    """Virtual environment whose packages the application uses."""

    env: Texts | None
    """Environment variable of the application (repeatable)."""

    preload: bool | None
    """Import the application once, before workers are forked."""

    uwsgi_module: bool | None
    """Provide uWSGI's functions as the module `uwsgi`."""

    hooks: Text | None
    """Module whose functions are called when the server starts, forks, reloads or ends."""

    script_name: Text | None
    """Path at which the application is mounted (SCRIPT_NAME)."""

    bind: Texts | None
    """Listen on host:port, unix:PATH, fd://N (repeatable)."""

    scgi: bool | None
    """Listen for SCGI on 127.0.0.1:4000."""

    proxy_protocol: bool | None
    """Expect the PROXY protocol (v1, v2) from trusted proxies."""

    ip: Text | None
    """IP address to listen on, with --port."""

    port: int | None
    """Port to listen on, with --ip."""

    backlog: int | None
    """Maximum number of connections waiting to be accepted."""

    socket_mode: str | None
    """Permissions of unix sockets, in octal."""

    socket_owner: Text | None
    """Owner of unix sockets, optionally with a group."""

    ssl_certificate: Texts | None
    """TLS certificate: a PEM file or a directory of them (repeatable)."""

    ssl_private_key: Texts | None
    """Private key (PEM file) of a certificate without one (repeatable)."""

    ssl_key_password_file: Text | None
    """File with the password of encrypted private keys."""

    client_ca: Text | None
    """CA certificates (PEM file) for checking client certificates."""

    client_cert: Literal["required", "optional", None]
    """Client certificate with client_ca: required or optional."""

    redirect_https: Text | None
    """Plain HTTP port that redirects clients to HTTPS."""

    workers: int | Literal["auto"] | None
    """Number of worker processes, or auto."""

    workers_min: int | None
    """Number of workers that stay when the load is low."""

    workers_max: int | None
    """Number of workers up to which more are started under load."""

    workers_cool_down: float | str | None
    """Time of lower load after which there are fewer workers."""

    threads: int | None
    """Number of application threads per worker."""

    concurrency: Literal["threads", "gevent", None]
    """How a worker runs requests concurrently: threads or gevent."""

    greenlets: int | None
    """Maximum number of concurrent requests per worker, with gevent."""

    gevent_patch: Texts | None
    """Part of the standard library that gevent patches; none: all (repeatable)."""

    drain_delay: float | str | None
    """Time after TERM in which new connections are still accepted."""

    graceful_timeout: float | str | None
    """Maximum time for a stopping worker to finish its requests."""

    reload_mode: Literal["beside", "rolling", None]
    """How new workers replace old ones: beside, rolling."""

    touch_reload: Texts | None
    """File whose modification triggers a reload, as HUP does (repeatable)."""

    reload: bool | None
    """Reload when a file of the application is saved, for development."""

    reload_files: Texts | None
    """File, folder or glob that reload watches, too (repeatable)."""

    worker_timeout: float | str | None
    """Time without a sign of life after which a worker is replaced."""

    worker_start_timeout: float | str | None
    """Maximum time for a worker to import the application."""

    max_requests: int | None
    """Number of requests after which a worker is replaced; 0: never."""

    max_requests_jitter: int | None
    """Maximum random addition to max_requests, for each worker."""

    worker_max_age: float | str | None
    """Time after which a worker is replaced; 0: never."""

    worker_memory_max: int | str | None
    """Resident memory above which a worker is replaced; 0: no limit."""

    worker_address_space_max: int | str | None
    """Limit of a worker's address space (RLIMIT_AS)."""

    worker_cpu_time_max: float | str | None
    """Processor time after which a worker is ended (RLIMIT_CPU); 0: no limit."""

    open_files_max: int | None
    """Limit of open files for each process (RLIMIT_NOFILE)."""

    core_size_max: int | str | None
    """Limit of the core dump of a worker that crashes (RLIMIT_CORE)."""

    nice: int | None
    """Amount by which the priority of workers is lower than anygate's."""

    cpu_affinity: int | None
    """Number of processors that each worker is bound to; 0: all."""

    no_new_privs: bool | None
    """Keep programs that the application starts from gaining privileges."""

    cron_mode: Literal["hard", "soft", "external", "none", None]
    """When jobs run: hard (by the clock), soft, external, none."""

    cron_state: Text | None
    """File that records which jobs have run."""

    user: Text | None
    """User that workers run as (name or number)."""

    group: Text | None
    """Group that workers run as (name or number)."""

    umask: str | None
    """Umask of workers: permissions removed from new files, in octal."""

    proc_name: Text | None
    """Name of the processes in ps and top."""

    daemon: bool | None
    """Run in the background, without a terminal."""

    pid_file: Text | None
    """File for the supervisor's process ID."""

    gc_freeze: bool | None
    """Exclude what the application has imported from garbage collection."""

    gc_threshold: Texts | None
    """Thresholds of garbage collection, up to three numbers; 0: no automatic collection."""

    gc_collect_interval: float | str | None
    """Interval at which each worker collects all garbage; 0: never."""

    recursion_limit: int | None
    """Maximum depth of Python's stack, instead of 1000."""

    thread_stack_size: int | str | None
    """Stack size of the threads that Python starts, including those that run requests."""

    request_timeout: float | str | None
    """Maximum time for the application to handle a request; 0: no limit."""

    queue_timeout: float | str | None
    """Maximum time for a request to wait for a thread or greenlet (503)."""

    request_line_max_bytes: int | str | None
    """Maximum length of a request line (414)."""

    fields_max: int | None
    """Maximum number of header fields per request (431)."""

    fields_max_bytes: int | str | None
    """Maximum total size of a request's header fields (431)."""

    chunk_extensions_max_bytes: int | str | None
    """Maximum total size of chunk extensions per request body (400)."""

    bodies_memory_max_bytes: int | str | None
    """Memory of each worker that buffers request bodies; others go to files."""

    response_memory_max_bytes: int | str | None
    """Memory that buffers a response; the rest goes to a file."""

    response_spool_max_bytes: int | str | None
    """Maximum size of the temporary file that buffers a response."""

    temp_dir: Text | None
    """Directory for temporary files."""

    header_timeout: float | str | None
    """Maximum time to receive a request head, from its first byte (408)."""

    body_timeout: float | str | None
    """Maximum time between two parts of a request body (408)."""

    body_rate_min_bytes: int | str | None
    """Minimum size of request bodies per second on the whole, after body_timeout (408); 0: none."""

    keepalive_timeout: float | str | None
    """Maximum idle time of a connection between requests."""

    write_timeout: float | str | None
    """Maximum time for a client to accept no data of its response."""

    requests_per_connection_max: int | None
    """Maximum number of requests per connection; 0: no limit."""

    connections_max: int | None
    """Maximum number of open connections per worker."""

    stream_paths: Texts | None
    """Path below which bodies are streamed, not buffered (repeatable)."""

    websocket_message_max_bytes: int | str | None
    """Maximum size of a WebSocket message after decompression."""

    websocket_compression: bool | None
    """Compress WebSocket messages if the client offers it."""

    websocket_over_http2: bool | None
    """Accept WebSockets over HTTP/2 (RFC 8441)."""

    websocket_origins: Texts | None
    """Origin of another site whose pages may open WebSockets; *: all (repeatable)."""

    websocket_accept_after: float | str | None
    """Time after which a WebSocket that the application has taken and not used is accepted; 0: only by use."""

    websocket_ping_interval: float | str | None
    """Time of silence after which a WebSocket client is sent a ping."""

    websocket_ping_timeout: float | str | None
    """Maximum time for a WebSocket client to respond to a ping."""

    server_header: Text | None
    """Value of the Server field in responses; empty: no field."""

    queue_max: int | Literal["auto"] | None
    """Maximum number of requests per worker waiting for a thread or greenlet (503); 0: no limit."""

    connections_per_client_max: int | None
    """Maximum number of open connections per client address; 0: no limit."""

    error_log: Texts | None
    """Destination of errors and other messages; -: stderr."""

    error_log_format: Text | None
    """Error log format: text, json (one object per message), or text with %(message)s."""

    log_level: Literal["critical", "error", "warn", "info", "debug", None]
    """Minimum severity of messages to log: critical, error, warn, info, debug."""

    logging: bool | None
    """Write a line per request to httpserver.log."""

    profiler: Text | None
    """Directory for request profiles; see /__profile__."""

    log_rotate_size: int | str | None
    """Size at which a log file is rotated; 0: never."""

    log_rotate_interval: float | str | None
    """Interval at which log files are rotated; 0: never."""

    log_rotate_name: Text | None
    """Name of a rotated log file, with {name} and the time."""

    log_rotate_keep: int | None
    """Number of rotated files to keep per log."""

    log_rotate_gzip: bool | None
    """Compress rotated log files, as NAME.gz."""

    syslog_facility: Literal[
        "daemon",
        "user",
        "local0",
        "local1",
        "local2",
        "local3",
        "local4",
        "local5",
        "local6",
        "local7",
        None,
    ]
    """Syslog facility of messages."""

    python_logging: bool | None
    """Pass messages to Python's logging.getLogger("anygate") instead of the error log."""

    log_config: Text | None
    """Configuration of Python's logging: .ini or .conf, .toml, .yaml or .json."""

    log_resources: float | str | None
    """Interval at which CPU seconds, open files and memory of each worker are logged; 0: never."""

    admin: Text | None
    """Address of status page, metrics and API."""

    admin_token_file: Text | None
    """File with the token that requests to the admin address need."""

    uwsgi_stats: Text | None
    """Address of statistics in uWSGI's format, for uwsgitop."""

    otlp: Text | None
    """OpenTelemetry collector that spans of requests and metrics are sent to."""
