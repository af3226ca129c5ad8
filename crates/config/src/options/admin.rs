//! Options of status, metrics and control of a running server, and of the settings themselves.

use std::path::PathBuf;

use super::key::rows;
use super::opt::{BASE, Kind, Opt, Reach, Section};

const CONTROL: Opt = Opt { section: Section::Admin, ..BASE };

rows! {
    ADMIN: Option<String> = Opt {
        name: "admin",
        foreign_names: &["metrics", "metrics_port", "stats_http"],
        metavar: "ADDRESS",
        common: true,
        help: "address of status page, metrics and API",
        details: "`host:port` or `unix:PATH`. A separate process serves it, whatever the workers do. Loopback addresses and unix sockets require \
                  no authentication; on any other address every request needs the token of `admin_token_file`. See \
                  [the guide](guide/admin.md).",
        ..CONTROL
    },
    ADMIN_TOKEN_FILE: Option<PathBuf> = Opt {
        name: "admin_token_file",
        needs: &["admin"],
        kind: Kind::Path,
        metavar: "FILE",
        help: "file with the token that requests to the admin address need",
        details: "The first line is the token. If the file does not exist, a token is generated, written to it with \
                  access for its owner only, and shown once. Clients send the token as `Authorization: Bearer TOKEN`, \
                  or as the password of any user. On unix sockets the permissions of the socket apply instead.",
        ..CONTROL
    },
    UWSGI_STATS: Option<String> = Opt {
        name: "uwsgi_stats",
        foreign_names: &["stats", "stats_server"],
        metavar: "ADDRESS",
        help: "address of statistics in uWSGI's format, for uwsgitop",
        details: "A loopback address or a unix socket. Every client that connects gets the JSON that uWSGI's `stats` \
                  option sends.",
        ..CONTROL
    },
    METRICS_PATH: Option<String> = Opt {
        name: "metrics_path",
        metavar: "PATH",
        reach: Reach::AnyServer,
        help: "path of the metrics within the site, for clients that may see them",
        details: "For example `/metrics`, in Prometheus' text format. Clients on this machine may see them (as in `debug`), or \
                  those of `metrics_allow`; all others get 403. The admin address has the same metrics without a path of \
                  the site. See [the guide](guide/admin.md).",
        ..CONTROL
    },
    METRICS_ALLOW: Vec<String> = Opt {
        name: "metrics_allow",
        kind: Kind::List,
        metavar: "ADDRESS",
        reach: Reach::AnyServer,
        help: "networks whose clients may see metrics_path, instead of this machine (repeatable)",
        details: "`10.0.0.0/8`, `2001:db8::/32`, or `unix` for clients on unix sockets. The client is the one that \
                  `trusted_proxies` name; clients of a proxy that is not trusted never see them.",
        ..CONTROL
    },
    ROUTE_METRICS: Vec<String> = Opt {
        name: "route_metrics",
        kind: Kind::List,
        metavar: "app|PATTERN",
        reach: Reach::AnyServer,
        needs: &["admin", "metrics_path", "statsd", "otlp"],
        help: "routes whose requests, errors and times are counted apart (repeatable)",
        details: "`app`: the route that the application names in `environ[\"anygate.route\"]`, such as `/users/<id>`. A pattern, \
                  such as `/users/*/orders`: requests whose path has this form and whose route the application does not name; `*` is \
                  one whole segment, and `/**` at the end is anything below. The first pattern counts. Up to 256 routes have \
                  figures of their own; more are counted as `other`. Clients name none. See \
                  [the guide](guide/admin.md#routes).",
        ..CONTROL
    },
    STATSD: Option<String> = Opt {
        name: "statsd",
        foreign_names: &["statsd_host"],
        metavar: "HOST:PORT",
        reach: Reach::AnyServer,
        help: "StatsD server that metrics are sent to every 10 seconds",
        ..CONTROL
    },
    STATSD_PREFIX: String = Opt {
        name: "statsd_prefix",
        needs: &["statsd"],
        default: "anygate.",
        metavar: "TEXT",
        reach: Reach::AnyServer,
        help: "prefix of metric names sent to StatsD",
        ..CONTROL
    },
    STATSD_TAGS: bool = Opt {
        name: "statsd_tags",
        needs: &["statsd"],
        foreign_names: &["dogstatsd_tags"],
        kind: Kind::Flag,
        default: "false",
        reach: Reach::AnyServer,
        help: "send labels as DogStatsD tags, not as part of metric names",
        ..CONTROL
    },
    OTLP: Option<String> = Opt {
        name: "otlp",
        foreign_names: &["otlp_endpoint", "opentelemetry"],
        metavar: "URL|auto",
        help: "OpenTelemetry collector that spans of requests and metrics are sent to",
        details: "`http://collector:4318` or `https://...`: the address of a collector that receives OTLP over HTTP; \
                  `/v1/traces` and `/v1/metrics` are appended. `auto`: the address in the variables \
                  `OTEL_EXPORTER_OTLP_ENDPOINT`, `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT` and \
                  `OTEL_EXPORTER_OTLP_METRICS_ENDPOINT`, `http://localhost:4318` if there are none. The other variables of \
                  OpenTelemetry (`OTEL_SERVICE_NAME`, `OTEL_TRACES_SAMPLER`, ...) hold in both cases. Variables \
                  alone turn nothing on. See [the guide](guide/tracing.md).",
        ..CONTROL
    },
    CONFIG: Option<PathBuf> = Opt {
        name: "config",
        kind: Kind::Path,
        metavar: "FILE",
        section: Section::Settings,
        help: "settings file: .toml, .yaml or .json",
        details: "If not given: the first of `anygate.toml`, `anygate.yaml`, `anygate.yml` and `anygate.json` that \
                  exists in the directory in which anygate is started. This option cannot be set in a file. Files of \
                  uWSGI, gunicorn, Unit, mod_wsgi and Paste, and a `Procfile`, are read as they are: see [the \
                  guide](guide/moving.md).",
        ..CONTROL
    },
}
