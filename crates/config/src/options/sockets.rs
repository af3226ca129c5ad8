//! Options of listening sockets, TLS and front servers.

use std::path::PathBuf;

use super::choices::{ClientCert, ForwardedHeader};
use super::key::rows;
use super::opt::{BASE, Kind, Opt, Reach, Section};

const SOCKET: Opt = Opt { section: Section::Sockets, ..BASE };

rows! {
    BIND: Vec<String> = Opt {
        name: "bind",
        short: Some('b'),
        kind: Kind::List,
        metavar: "ADDRESS",
        common: true,
        help: "listen on host:port, unix:PATH, fd://N (repeatable)",
        details: "`host:port`, `:port` (all IPv4 addresses), `port` (on 127.0.0.1), `[IPv6]:port`, \
                  `unix:/path/to.sock`, or `fd://3` (a listening socket that anygate inherits; `fd://0` if a front \
                  server starts it as a FastCGI program). Port 0 lets the system choose a port. Without any address \
                  anygate listens on `127.0.0.1:8000`, or at all addresses on the port that a hosting platform names in the \
                  variable PORT. The protocol is HTTP, or HTTPS if a certificate is configured, \
                  unless another one precedes the address: `scgi://host:port`, `fastcgi://host:port`, \
                  `uwsgi://host:port`, and likewise `scgi+unix:/path/to.sock`, `scgi+fd://3`. Addresses on the command line \
                  replace those of the environment and of the file, and those of the environment replace the file's.",
        ..SOCKET
    },
    SCGI: bool = Opt {
        name: "scgi",
        kind: Kind::Flag,
        default: "false",
        help: "listen for SCGI on 127.0.0.1:4000",
        details: "Short for `--bind scgi://127.0.0.1:4000`. `--ip` and `--port` then set the address and port of that \
                  listener.",
        ..SOCKET
    },
    TRUSTED_PROXIES: Vec<String> = Opt {
        name: "trusted_proxies",
        foreign_names: &["forwarded_allow_ips", "trusted_proxy", "trusted_hosts"],
        reach: Reach::AnyServer,
        kind: Kind::List,
        metavar: "ADDRESS",
        help: "proxy whose forwarding fields are trusted (repeatable)",
        details: "An IP address, a network (`10.0.0.0/8`, `fd00::/8`), or `unix` (any peer on a unix socket). The \
                  forwarding fields, chosen with `forwarded_header`, then set REMOTE_ADDR, wsgi.url_scheme, HTTP_HOST, \
                  SERVER_PORT and SCRIPT_NAME. The client is the right-most address that is not itself a trusted \
                  proxy. Forwarded, X-Forwarded-* and X-Real-IP are removed from the requests of all other peers.",
        ..SOCKET
    },
    FORWARDED_HEADER: ForwardedHeader = Opt {
        name: "forwarded_header",
        reach: Reach::AnyServer,
        kind: Kind::Choice(ForwardedHeader::WORDS),
        default: "x-forwarded",
        metavar: "KIND",
        help: "forwarding fields that trusted proxies set: x-forwarded, forwarded",
        details: "Only one kind is trusted, because a proxy that sets one kind passes on what its client wrote into \
                  the other. The other kind is removed. `x-forwarded`: X-Forwarded-For, -Proto, -Ssl, -Host, -Port and \
                  -Prefix. `forwarded`: Forwarded (RFC 7239).",
        ..SOCKET
    },
    PROXY_PROTOCOL: bool = Opt {
        name: "proxy_protocol",
        requires: Some(("trusted_proxies", "the peers whose preface is trusted")),
        kind: Kind::Flag,
        default: "false",
        help: "expect the PROXY protocol (v1, v2) from trusted proxies",
        details: "Each connection from `trusted_proxies` must begin with a preface of the PROXY protocol, which names \
                  the client. Connections from all other peers must not.",
        ..SOCKET
    },
    IP: Option<String> = Opt {
        name: "ip",
        foreign_names: &["host", "hostname", "address", "addr"],
        short: Some('i'),
        metavar: "IP",
        common: true,
        help: "IP address to listen on, with --port",
        details: "`--ip` and `--port` together add one address to those of `--bind`, and replace a `bind` of the file. If \
                  only one of them is given, the other is 127.0.0.1 or 8000.",
        ..SOCKET
    },
    PORT: Option<u16> = Opt {
        name: "port",
        short: Some('p'),
        kind: Kind::Integer { min: 0, max: 65535 },
        metavar: "PORT",
        common: true,
        help: "port to listen on, with --ip",
        ..SOCKET
    },
    BACKLOG: u32 = Opt {
        name: "backlog",
        kind: Kind::Integer { min: 1, max: 1 << 20 },
        default: "2048",
        metavar: "N",
        help: "maximum number of connections waiting to be accepted",
        details: "For each listening socket. The system may limit it further (`net.core.somaxconn`).",
        ..SOCKET
    },
    SOCKET_MODE: Option<u32> = Opt {
        name: "socket_mode",
        foreign_names: &["chmod_socket", "unix_socket_perms", "uds_permissions", "C"],
        kind: Kind::Mode,
        metavar: "MODE",
        help: "permissions of unix sockets, in octal",
        details: "For example `660`. If not set, the umask decides.",
        ..SOCKET
    },
    SOCKET_OWNER: Option<String> = Opt {
        name: "socket_owner",
        foreign_names: &["chown_socket"],
        metavar: "USER[:GROUP]",
        help: "owner of unix sockets, optionally with a group",
        ..SOCKET
    },
    SSL_CERTIFICATE: Vec<String> = Opt {
        name: "ssl_certificate",
        foreign_names: &["certfile", "ssl_certfile", "ssl_cert", "cert", "certificate"],
        short: Some('c'),
        kind: Kind::List,
        metavar: "PATH",
        help: "TLS certificate: a PEM file or a directory of them (repeatable)",
        details: "A file with the certificate and its chain, and with the private key unless `ssl_private_key` is set. \
                  Each client gets the certificate for the name that it asks for (SNI), else one with a matching \
                  wildcard, else the first. A directory stands for every `NAME.pem` or `NAME.crt` with a `NAME.key` \
                  beside it, and every `NAME/fullchain.pem` with `NAME/privkey.pem`, as certbot writes them. The \
                  content of `NAME.ocsp` beside a certificate is stapled as its OCSP response. With a certificate, \
                  addresses without a protocol serve HTTPS (TLS 1.2 and 1.3), unless another address is given as \
                  `https://host:port`; `http://host:port` and unix sockets do not. Changed files are loaded within \
                  seconds. See [the guide](guide/tls.md).",
        ..SOCKET
    },
    SSL_PRIVATE_KEY: Vec<String> = Opt {
        name: "ssl_private_key",
        requires: Some(("ssl_certificate", "its certificate")),
        foreign_names: &["keyfile", "ssl_keyfile", "ssl_key", "key", "private_key"],
        short: Some('k'),
        kind: Kind::List,
        metavar: "FILE",
        help: "private key (PEM file) of a certificate without one (repeatable)",
        details: "As many as there are files in `ssl_certificate`, in the same order; or none, if each of those \
                  contains its key.",
        ..SOCKET
    },
    SSL_KEY_PASSWORD_FILE: Option<PathBuf> = Opt {
        name: "ssl_key_password_file",
        requires: Some(("ssl_certificate", "the certificate of the server")),
        foreign_names: &["ssl_keyfile_password", "keyfile_password", "ssl_password"],
        kind: Kind::Path,
        metavar: "FILE",
        help: "file with the password of encrypted private keys",
        details: "The first line is the password.",
        ..SOCKET
    },
    CLIENT_CA: Option<PathBuf> = Opt {
        name: "client_ca",
        requires: Some(("ssl_certificate", "the certificate of the server")),
        foreign_names: &["ca_certs", "ssl_ca_certs", "ssl_ca"],
        kind: Kind::Path,
        metavar: "FILE",
        help: "CA certificates (PEM file) for checking client certificates",
        details: "Clients are asked for a certificate that one of these CAs has issued. The environ then has \
                  SSL_CLIENT_VERIFY, SSL_CLIENT_S_DN, SSL_CLIENT_I_DN, SSL_CLIENT_M_SERIAL, SSL_CLIENT_V_START, \
                  SSL_CLIENT_V_END and SSL_CLIENT_CERT, as under Apache.",
        ..SOCKET
    },
    CLIENT_CERT: ClientCert = Opt {
        name: "client_cert",
        requires: Some(("client_ca", "the CAs of client certificates")),
        kind: Kind::Choice(ClientCert::WORDS),
        default: "required",
        metavar: "WHEN",
        help: "client certificate with client_ca: required or optional",
        details: "`optional`: SSL_CLIENT_VERIFY is `NONE` for clients without a certificate. An invalid certificate is \
                  rejected in both cases.",
        ..SOCKET
    },
    REDIRECT_HTTPS: Option<String> = Opt {
        name: "redirect_https",
        foreign_names: &["http_to_https"],
        metavar: "PORT",
        help: "plain HTTP port that redirects clients to HTTPS",
        details: "A port, on the hosts that serve HTTPS, or an address as for `bind`. Every request is redirected to \
                  the same host and target, at the first port that serves HTTPS: with 301 for GET and HEAD, with 308 \
                  for other methods.",
        ..SOCKET
    },
}
