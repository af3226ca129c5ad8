//! Options of status, metrics and control of a running server, and of the settings themselves.

use std::path::PathBuf;

use super::key::rows;
use super::opt::{BASE, Kind, Opt, Section};

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
    STATSD: Option<String> = Opt {
        name: "statsd",
        foreign_names: &["statsd_host"],
        metavar: "HOST:PORT",
        help: "StatsD server that metrics are sent to every 10 seconds",
        ..CONTROL
    },
    STATSD_PREFIX: String = Opt {
        name: "statsd_prefix",
        default: "anygate.",
        metavar: "TEXT",
        help: "prefix of metric names sent to StatsD",
        ..CONTROL
    },
    STATSD_TAGS: bool = Opt {
        name: "statsd_tags",
        foreign_names: &["dogstatsd_tags"],
        kind: Kind::Flag,
        default: "false",
        help: "send labels as DogStatsD tags, not as part of metric names",
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
