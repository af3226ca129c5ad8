//! Opens the sockets of a plan, before anything else starts. All or none: the first that fails ends it.

use std::fmt;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};

use anygate_config::{Bind, BindAddress, Protocol, SocketPlan};
use anygate_sys::{Address, BindError, Families, Listener, UnixOptions, identity};

/// A listening socket, and what is spoken there.
#[derive(Debug)]
pub struct Socket {
    /// What clients, or the front server, speak.
    pub protocol: Protocol,
    /// The socket.
    pub listener: Listener,
    /// It is the assistant's, not the workers'.
    pub admin: bool,
}

impl Socket {
    /// The address as a URL: `http://127.0.0.1:8000`, `unix:/run/x.sock`, `scgi+unix:/run/x.sock`.
    pub fn url(&self) -> String {
        let protocol = if self.protocol == Protocol::Redirect { Protocol::Http } else { self.protocol };
        let (scheme, address) = (protocol.scheme(), self.listener.local());
        match (address, protocol) {
            (Address::Inet(address), _) => format!("{scheme}://{address}"),
            (Address::Unix(_), Protocol::Http) => address.to_string(),
            (Address::Unix(_), _) => format!("{scheme}+{address}"),
        }
    }
}

/// Opens every bind. `admin`: for the assistant.
///
/// Errors: the first bind that failed, why, and what to do.
pub fn open(binds: &[Bind], plan: &SocketPlan, admin: bool) -> Result<Vec<Socket>, OpenError> {
    let mut sockets = Vec::new();
    for bind in binds {
        let protocol = bind.protocol;
        match open_one(&bind.address, families(&bind.address, binds), plan) {
            Ok(opened) => {
                sockets.extend(opened.into_iter().map(|listener| Socket { protocol, listener, admin }))
            }
            Err(error) => {
                close(&sockets);
                return Err(error);
            }
        }
    }
    Ok(sockets)
}

/// Takes over the sockets that a service manager left from descriptor 3 on (sd_listen_fds(3)). One whose name is that of a
/// protocol speaks it, all others speak `protocol`.
///
/// Errors: one of them is no listening socket.
pub fn activated(names: &[String], protocol: Protocol) -> Result<Vec<Socket>, OpenError> {
    let take = |(fd, name): (i32, &String)| {
        let protocol = Protocol::of_scheme(name).unwrap_or(protocol);
        let listener = Listener::take_over(fd).map_err(|error| OpenError::Activated { number: fd, error })?;
        Ok(Socket { protocol, listener, admin: false })
    };
    (3..).zip(names).map(take).collect()
}

/// Lets no further connection come, so that none comes between the last look of a worker and its close, which would reset
/// it.
pub(crate) fn refuse_newcomers(sockets: &[Socket]) {
    for Socket { listener, .. } in sockets {
        if let Err(error) = listener.refuse_newcomers() {
            tracing::debug!("{} still takes connections: {error}", listener.local());
        }
    }
}

/// Removes the files of unix sockets. The sockets close with the last process that has them.
pub fn close(sockets: &[Socket]) {
    for Socket { listener, .. } in sockets {
        if let Err(error) = listener.remove_file() {
            tracing::warn!("cannot remove the socket {}: {error}", listener.local());
        }
    }
}

/// `[::]` takes IPv4 clients as well, as everywhere, unless another bind has the same port for them.
fn families(address: &BindAddress, binds: &[Bind]) -> Families {
    let BindAddress::Tcp { port, .. } = address else { return Families::System };
    let shared = binds.iter().any(|other| {
        matches!(&other.address, BindAddress::Tcp { host, port: same }
            if same == port && *port != 0 && !host.contains(':'))
    });
    if shared { Families::Apart } else { Families::System }
}

fn open_one(
    address: &BindAddress,
    families: Families,
    plan: &SocketPlan,
) -> Result<Vec<Listener>, OpenError> {
    match address {
        BindAddress::Tcp { host, port } => tcp(host, *port, families, plan.backlog),
        BindAddress::Unix(path) => unix(path, plan).map(|listener| vec![listener]),
        BindAddress::Fd(number) => Listener::adopt(*number)
            .map(|listener| vec![listener])
            .map_err(|error| OpenError::Descriptor { number: *number, error }),
    }
}

/// A name may stand for several addresses (`localhost`: IPv4 and IPv6); all that this machine has are bound.
fn tcp(host: &str, port: u16, families: Families, backlog: u32) -> Result<Vec<Listener>, OpenError> {
    let shown = if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
    let addresses: Vec<SocketAddr> = (host, port)
        .to_socket_addrs()
        .map_err(|error| OpenError::Unresolved { address: shown.clone(), host: host.to_owned(), error })?
        .collect();
    let mut listeners: Vec<Listener> = Vec::new();
    let mut failure = None;
    let mut port = port;
    for mut address in addresses {
        // With port 0 the second family takes the port that the system chose for the first.
        address.set_port(port);
        match Listener::bind_tcp(address, families, backlog) {
            Ok(listener) => {
                if let Address::Inet(local) = listener.local() {
                    port = local.port();
                }
                listeners.push(listener);
            }
            Err(error) if is_absent(&error) => failure = Some(error),
            Err(error) => return Err(OpenError::Tcp { address: shown, port, error }),
        }
    }
    match failure {
        Some(error) if listeners.is_empty() => Err(OpenError::Tcp { address: shown, port, error }),
        _ => Ok(listeners),
    }
}

/// The machine does not have this address, or not this family.
fn is_absent(error: &BindError) -> bool {
    matches!(error, BindError::System(error)
        if matches!(error.kind(), io::ErrorKind::AddrNotAvailable | io::ErrorKind::Unsupported))
}

/// Reason why a bind cannot be opened.
#[derive(Debug)]
pub enum OpenError {
    /// The setting names a host that has no address.
    Unresolved {
        /// Host and port.
        address: String,
        /// The host alone.
        host: String,
        /// Error of the resolver.
        error: io::Error,
    },
    /// The machine refuses a TCP address.
    Tcp {
        /// Host and port.
        address: String,
        /// The port alone.
        port: u16,
        /// Why.
        error: BindError,
    },
    /// The machine refuses the path of a unix socket, or something else is there.
    Unix {
        /// The path.
        path: PathBuf,
        /// Why.
        error: BindError,
    },
    /// The program that starts anygate did not open the descriptor.
    Descriptor {
        /// Its number.
        number: i32,
        /// Why.
        error: BindError,
    },
    /// The service manager left something else than a listening socket.
    Activated {
        /// Number of the descriptor.
        number: i32,
        /// Why.
        error: BindError,
    },
    /// The setting `socket_owner` names a user or group that does not exist.
    UnknownOwner {
        /// `user` or `group`.
        kind: &'static str,
        /// Its name.
        name: String,
    },
    /// The system cannot look up users or groups.
    Owner(io::Error),
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OpenError::Unresolved { address, host, error } => {
                write!(f, "cannot listen on {address}: {host:?} cannot be resolved: {error}")
            }
            OpenError::Tcp { address, port, error } => {
                write!(f, "cannot listen on {address}: {error}{}", tcp_advice(*port, error))
            }
            OpenError::Unix { path, error } => {
                let advice = match error {
                    BindError::Live => "; stop it or choose another path",
                    BindError::NotASocket => "; remove it or choose another path",
                    BindError::TooLong(_) => "; choose a shorter one",
                    _ => "",
                };
                write!(f, "cannot listen on unix:{}: {error}{advice}", path.display())
            }
            OpenError::Descriptor { number, error } => write!(
                f,
                "cannot listen on fd://{number}: {error}; the program that starts anygate must open it"
            ),
            OpenError::Activated { number, error } => {
                write!(f, "cannot listen on descriptor {number} of LISTEN_FDS: {error}")
            }
            OpenError::UnknownOwner { kind, name } => write!(f, "there is no {kind} {name:?}"),
            OpenError::Owner(error) => error.fmt(f),
        }
    }
}

fn tcp_advice(port: u16, error: &BindError) -> &'static str {
    match error {
        BindError::System(error) => match error.kind() {
            io::ErrorKind::AddrInUse => "; stop what uses it or choose another port (--port, --bind)",
            io::ErrorKind::AddrNotAvailable => "; see `ip address` for those it has",
            io::ErrorKind::PermissionDenied if port < 1024 => {
                "; ports below 1024 need root or CAP_NET_BIND_SERVICE: choose another (--port, --bind)"
            }
            _ => "",
        },
        _ => "",
    }
}

fn unix(path: &Path, plan: &SocketPlan) -> Result<Listener, OpenError> {
    let mut options = UnixOptions { mode: plan.unix_mode, uid: None, gid: None };
    if let Some((user, group)) = &plan.unix_owner {
        let unknown = |kind, name: &str| OpenError::UnknownOwner { kind, name: name.to_owned() };
        if !user.is_empty() {
            let found = identity::user(user).map_err(OpenError::Owner)?;
            options.uid = Some(found.ok_or_else(|| unknown("user", user))?.uid);
        }
        if let Some(group) = group {
            let found = identity::group(group).map_err(OpenError::Owner)?;
            options.gid = Some(found.ok_or_else(|| unknown("group", group))?);
        }
    }
    Listener::bind_unix(path, options, plan.backlog)
        .map_err(|error| OpenError::Unix { path: path.to_owned(), error })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAN: SocketPlan = SocketPlan { backlog: 8, unix_mode: None, unix_owner: None };

    fn http(address: BindAddress) -> Bind {
        Bind { protocol: Protocol::Http, address }
    }

    fn local(port: u16) -> Bind {
        http(BindAddress::Tcp { host: "127.0.0.1".to_owned(), port })
    }

    #[test]
    fn a_port_in_use_is_named_with_advice() {
        let first = open(&[local(0)], &PLAN, false).unwrap();
        let Address::Inet(address) = first[0].listener.local() else { panic!() };
        let error = open(&[local(address.port())], &PLAN, false).unwrap_err().to_string();
        assert!(
            error.contains(&address.to_string()) && error.contains("in use") && error.contains("--port"),
            "{error}"
        );
    }

    #[test]
    fn nothing_stays_when_one_of_several_fails() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.sock");
        let wrong = http(BindAddress::Unix(dir.path().join("missing/b.sock")));
        assert!(open(&[http(BindAddress::Unix(path.clone())), wrong], &PLAN, false).is_err());
        assert!(!path.exists());
    }

    #[test]
    fn unknown_owners_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let plan = SocketPlan { unix_owner: Some(("no-such-user".to_owned(), None)), ..PLAN };
        let error = open(&[http(BindAddress::Unix(dir.path().join("a.sock")))], &plan, false)
            .unwrap_err()
            .to_string();
        assert!(error.contains("no-such-user"), "{error}");
    }
}
