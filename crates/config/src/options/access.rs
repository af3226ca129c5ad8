//! Options of authentication (who may come in, by password or by the word of another server) and of routing (which paths become
//! which others). All of them are off by default.

use std::time::Duration;

use super::key::rows;
use super::opt::{BASE, Kind, Opt, Reach, Section};

const ACCESS: Opt = Opt { section: Section::Access, reach: Reach::AnyServer, ..BASE };

rows! {
    BASIC_AUTH: Vec<String> = Opt {
        name: "basic_auth",
        foreign_names: &["auth_basic_user_file"],
        kind: Kind::List,
        metavar: "PATH=FILE",
        help: "require a user and password from an htpasswd file at and below a path (repeatable)",
        details: "`/=site.htpasswd` protects everything, `/admin=admin.htpasswd` protects `/admin` and what is below it; \
                  the longest matching path applies. Passwords are hashed with bcrypt or Argon2 (`htpasswd -B`); weaker \
                  hashes and plain text are refused. A change of the file is noticed within a second; as long as the \
                  file cannot be read, nobody gets in. Health checks need no password. The application gets REMOTE_USER \
                  and AUTH_TYPE. See [the guide](guide/access.md).",
        ..ACCESS
    },
    BASIC_AUTH_REALM: String = Opt {
        name: "basic_auth_realm",
        needs: &["basic_auth"],
        foreign_names: &["auth_basic"],
        default: "Restricted",
        metavar: "TEXT",
        help: "name of the protected area that browsers show when they ask for a password",
        ..ACCESS
    },
    FORWARD_AUTH: Vec<String> = Opt {
        name: "forward_auth",
        foreign_names: &["auth_request"],
        kind: Kind::List,
        metavar: "PATH=URL",
        help: "have another server authenticate requests at and below a path (repeatable)",
        details: "`/=http://127.0.0.1:9091/verify`, `/admin=http+unix:/run/auth.sock:/verify`: each request is first \
                  described to that URL, as Traefik's ForwardAuth and nginx's auth_request do. A 2xx response lets it \
                  pass; any other up to 499 goes to the client, such as a redirect to a login page. If that server \
                  fails, nobody gets in (502, 503). The longest matching path applies. See [the guide](guide/access.md).",
        ..ACCESS
    },
    FORWARD_AUTH_FIELDS: Vec<String> = Opt {
        name: "forward_auth_fields",
        needs: &["forward_auth"],
        kind: Kind::List,
        default: "Remote-User",
        metavar: "NAME",
        help: "response field of forward_auth that identifies the user (repeatable)",
        details: "The application gets these fields of the 2xx response in the request, and the value of the first one as \
                  REMOTE_USER. Fields of these names that clients send are always removed, at all paths.",
        ..ACCESS
    },
    FORWARD_AUTH_TIMEOUT: Duration = Opt {
        name: "forward_auth_timeout",
        needs: &["forward_auth"],
        kind: Kind::Duration,
        default: "5s",
        metavar: "TIME",
        help: "maximum time for a response of forward_auth; then the client gets 503",
        ..ACCESS
    },
    REDIRECT: Vec<String> = Opt {
        name: "redirect",
        foreign_names: &["return", "redirectmatch"],
        kind: Kind::List,
        metavar: "RULE",
        help: "redirect requests: [STATUS ][HOST]FROM TO (repeatable)",
        details: "`/old /new`: from `/old` to `/new` and from `/old/x` to `/new/x`. `301 www.example.org/ \
                  https://example.org/`: from one host to another. `~^/blog/([0-9]+)$ /posts/$1`: `~` begins a regular \
                  expression, of which `$1` is the first group. The status is 301, 302 (default), 303, 307 or 308. The \
                  query is kept; a `?` at the end of TO drops it. The first rule that fits applies. See \
                  [the guide](guide/access.md).",
        ..ACCESS
    },
    REWRITE: Vec<String> = Opt {
        name: "rewrite",
        kind: Kind::List,
        metavar: "RULE",
        help: "change the path that static files and the application see: [HOST]FROM TO (repeatable)",
        details: "In the form of `redirect`, without a status and for paths of the same site: `~^/user/([0-9]+)$ \
                  /users?id=$1`. PATH_INFO and QUERY_STRING change, REQUEST_URI does not. Access lists and authentication \
                  apply to both paths. The first rule that fits applies.",
        ..ACCESS
    },
}
