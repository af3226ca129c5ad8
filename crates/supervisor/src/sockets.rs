//! Opens the sockets of a plan, before anything else starts. All or none: the first that fails ends it.

use std::net::{SocketAddr, ToSocketAddrs};
use std::path::Path;

use anygate_config::{Bind, BindAddress, Protocol, SocketPlan};
use anygate_sys::{Address, BindError, Families, Listener, UnixOptions, process};

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
/// Errors: one line that says which bind failed, why, and what to do.
pub fn open(binds: &[Bind], plan: &SocketPlan, admin: bool) -> Result<Vec<Socket>, String> {
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

fn open_one(address: &BindAddress, families: Families, plan: &SocketPlan) -> Result<Vec<Listener>, String> {
    match address {
        BindAddress::Tcp { host, port } => tcp(host, *port, families, plan.backlog),
        BindAddress::Unix(path) => unix(path, plan).map(|listener| vec![listener]),
        BindAddress::Fd(number) => Listener::adopt(*number).map(|listener| vec![listener]).map_err(|error| {
            format!("cannot listen on fd://{number}: {error}; the program that starts anygate must open it")
        }),
    }
}

/// A name may stand for several addresses (`localhost`: IPv4 and IPv6); all that this machine has are bound.
fn tcp(host: &str, port: u16, families: Families, backlog: u32) -> Result<Vec<Listener>, String> {
    let shown = if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
    let addresses: Vec<SocketAddr> = (host, port)
        .to_socket_addrs()
        .map_err(|error| format!("cannot listen on {shown}: {host:?} cannot be resolved: {error}"))?
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
            Err(error) => return Err(tcp_error(&shown, port, &error)),
        }
    }
    match failure {
        Some(error) if listeners.is_empty() => Err(tcp_error(&shown, port, &error)),
        _ => Ok(listeners),
    }
}

/// The machine does not have this address, or not this family.
fn is_absent(error: &BindError) -> bool {
    matches!(error, BindError::System(error)
        if matches!(error.kind(), std::io::ErrorKind::AddrNotAvailable | std::io::ErrorKind::Unsupported))
}

fn tcp_error(shown: &str, port: u16, error: &BindError) -> String {
    let advice = match error {
        BindError::System(error) => match error.kind() {
            std::io::ErrorKind::AddrInUse => "; stop what uses it or choose another port (--port, --bind)",
            std::io::ErrorKind::AddrNotAvailable => "; see `ip address` for those it has",
            std::io::ErrorKind::PermissionDenied if port < 1024 => {
                "; ports below 1024 need root or CAP_NET_BIND_SERVICE: choose another (--port, --bind)"
            }
            _ => "",
        },
        _ => "",
    };
    format!("cannot listen on {shown}: {error}{advice}")
}

fn unix(path: &Path, plan: &SocketPlan) -> Result<Listener, String> {
    let shown = path.display();
    let mut options = UnixOptions { mode: plan.unix_mode, uid: None, gid: None };
    if let Some((user, group)) = &plan.unix_owner {
        let unknown = |kind: &str, name: &str| format!("socket_owner: there is no {kind} {name:?}");
        if !user.is_empty() {
            let found = process::user(user).map_err(|error| format!("socket_owner: {error}"))?;
            options.uid = Some(found.ok_or_else(|| unknown("user", user))?.uid);
        }
        if let Some(group) = group {
            let found = process::group(group).map_err(|error| format!("socket_owner: {error}"))?;
            options.gid = Some(found.ok_or_else(|| unknown("group", group))?);
        }
    }
    Listener::bind_unix(path, options, plan.backlog).map_err(|error| {
        let advice = match &error {
            BindError::Live => "; stop it or choose another path",
            BindError::NotASocket => "; remove it or choose another path",
            BindError::TooLong(_) => "; choose a shorter one",
            _ => "",
        };
        format!("cannot listen on unix:{shown}: {error}{advice}")
    })
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
        let error = open(&[local(address.port())], &PLAN, false).unwrap_err();
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
        let plan = SocketPlan { unix_owner: Some(("nobody-such".to_owned(), None)), ..PLAN };
        let error = open(&[http(BindAddress::Unix(dir.path().join("a.sock")))], &plan, false).unwrap_err();
        assert!(error.contains("nobody-such"), "{error}");
    }
}
