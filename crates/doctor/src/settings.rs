//! The settings on a machine: numbers that do not fit each other, and what is shown or believed to or of strangers.

use std::time::Duration;

use anygate_config::{Bind, BindAddress, Plan, Protocol, Source};

use crate::finding::Finding;
use crate::machine::Machine;

/// Bodies up to this size may lie in memory.
const SMALL_BODY: u64 = 64 << 20;
/// More workers than this for each processor only take turns.
const WORKERS_PER_PROCESSOR: usize = 4;

/// Looks at all of them.
pub fn check(plan: &Plan, machine: &Machine) -> Vec<Finding> {
    let mut found = Vec::new();
    numbers(plan, machine, &mut found);
    memory(plan, machine, &mut found);
    for bind in &plan.binds {
        address(plan, bind, &mut found);
    }
    shown(plan, &mut found);
    if let Some(installed) = machine.installed.filter(|installed| machine.now < *installed) {
        let behind = installed.duration_since(machine.now).unwrap_or_default();
        found.push(Finding::new(
            "clock",
            format!(
                "the clock is {} behind the installation of anygate: certificates, caches and jobs go by it",
                days(behind)
            ),
            "timedatectl set-ntp true",
        ));
    }
    found
}

/// Files, connections, processors and times.
fn numbers(plan: &Plan, machine: &Machine, found: &mut Vec<Finding>) {
    let connections = u64::try_from(plan.server.connections_max).unwrap_or(u64::MAX);
    // A quarter of the descriptors is the application's.
    let needed = connections.saturating_add(connections / 3);
    let files = plan.process.limits.open_files_max.or(machine.open_files);
    if let Some(files) = files.filter(|files| *files < needed) {
        found.push(Finding::new(
            "open files",
            format!("a worker may open {files} files: it keeps {} connections, not connections_max = {connections}", files / 4 * 3),
            format!("ulimit -Hn {needed}, LimitNOFILE={needed} under systemd, or --connections-max {}", files / 4 * 3),
        ));
    }
    let backlog = u64::from(plan.socket.backlog);
    if let Some(most) = machine.somaxconn.filter(|most| *most < backlog) {
        found.push(Finding::new(
            "somaxconn",
            format!("the kernel keeps {most} connections that wait to be accepted, not backlog = {backlog}: more are refused"),
            format!("sysctl -w net.core.somaxconn={backlog}, or --backlog {most}"),
        ));
    }
    let (workers, processors) = (plan.workers_max(), machine.processors);
    if workers > processors * WORKERS_PER_PROCESSOR {
        found.push(Finding::new(
            "workers",
            format!(
                "{workers} workers share {processors} {}: they take memory and wait for each other",
                plural(processors, "processor")
            ),
            format!("--workers {}, and --threads for calls that wait", processors.max(1) * 2),
        ));
    } else if workers == 1 && processors >= WORKERS_PER_PROCESSOR && !plan.process.reload {
        found.push(Finding::new(
            "workers",
            format!("one worker runs Python on one of {processors} processors"),
            "--workers auto",
        ));
    }
    let graceful = plan.process.graceful_timeout;
    if let Some(longest) = plan.server.call_limits.request_timeout.filter(|longest| *longest > graceful) {
        found.push(Finding::new(
            "graceful_timeout",
            format!("requests may take {longest:?}, but a stop or a reload cuts them off after {graceful:?}"),
            format!("--graceful-timeout {}", longest.as_secs()),
        ));
    }
}

/// Memory of workers, and of files that lie in it.
fn memory(plan: &Plan, machine: &Machine, found: &mut Vec<Finding>) {
    let workers = u64::try_from(plan.workers_max()).unwrap_or(u64::MAX);
    if let (Some(each), Some(memory)) = (plan.process.worker_memory_max, machine.memory)
        && each.saturating_mul(workers) > memory
    {
        found.push(Finding::new(
            "worker_memory_max",
            format!(
                "{workers} {} of {} may take more than the {} that there are: the kernel kills one before it is replaced",
                plural(plan.workers_max(), "worker"),
                size(each),
                size(memory)
            ),
            "--worker-memory-max auto",
        ));
    }
    let folder = plan.server.reading.temp_dir.clone().unwrap_or_else(std::env::temp_dir);
    let body = plan.server.reading.limits.body_max_bytes;
    if body > SMALL_BODY && machine.is_in_memory(&folder) {
        found.push(Finding::new(
            "temp_dir",
            format!(
                "{} lies in memory, and so do bodies of up to {} that are stored there",
                folder.display(),
                size(body)
            ),
            "--temp-dir /var/tmp, or a smaller --body-max-bytes",
        ));
    }
}

/// Whom an address is open to, and who is believed there.
fn address(plan: &Plan, bind: &Bind, found: &mut Vec<Finding>) {
    let proxies = &plan.server.forwarding.proxies;
    match &bind.address {
        BindAddress::Tcp { host, port } if !is_loopback(host) => {
            let shown = format!("{}://{host}:{port}", bind.protocol.scheme());
            if bind.protocol == Protocol::Http && proxies.is_empty() && !plan.server.reading.proxy_protocol {
                found.push(Finding::new(
                    "bind",
                    format!("{shown} is open to all, without TLS, and no front server is trusted: passwords and cookies can be read on the way, and X-Forwarded-For is ignored"),
                    "--ssl-certificate and --ssl-private-key, or --bind 127.0.0.1:PORT, or --trusted-proxies with the address of the front server",
                ));
            } else if !bind.protocol.is_http() {
                found.push(Finding::new(
                    "bind",
                    format!("all that reach {shown} can say who their client is: {} has no fields that only a front server sets", bind.protocol.scheme()),
                    format!("--bind {}://127.0.0.1:{port}, or a unix socket", bind.protocol.scheme()),
                ));
            }
        }
        BindAddress::Unix(path)
            if bind.protocol == Protocol::Http
                && !proxies.contains(&Source::Unix)
                && !plan.server.reading.proxy_protocol =>
        {
            found.push(Finding::new(
                "trusted_proxies",
                format!("X-Forwarded-For of the front server at unix:{} is ignored: no request has the address of its client", path.display()),
                "--trusted-proxies unix",
            ));
        }
        _ => {}
    }
}

/// What clients may see.
fn shown(plan: &Plan, found: &mut Vec<Finding>) {
    let is_open = plan.binds.iter().any(|bind| match &bind.address {
        BindAddress::Tcp { host, .. } => !is_loopback(host),
        BindAddress::Unix(_) | BindAddress::Fd(_) => true,
    });
    if plan.application.debug {
        found.push(Finding::new(
            "debug",
            "tracebacks, with their values, are shown to clients on this machine",
            "--no-debug",
        ));
    }
    if plan.process.reload && is_open {
        found.push(Finding::new(
            "reload",
            "workers are replaced at each save of a file, and request_timeout does not apply",
            "--no-reload where others use the site",
        ));
    }
}

pub(crate) fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn plural(count: usize, word: &str) -> String {
    if count == 1 { word.to_owned() } else { format!("{word}s") }
}

/// Returns a number of bytes as people read it.
pub fn size(bytes: u64) -> String {
    match bytes {
        _ if bytes >= 1 << 30 => format!("{:.1} GiB", bytes as f64 / f64::from(1 << 30)),
        _ if bytes >= 1 << 20 => format!("{} MiB", bytes >> 20),
        _ if bytes >= 1 << 10 => format!("{} KiB", bytes >> 10),
        _ => format!("{bytes} bytes"),
    }
}

fn days(time: Duration) -> String {
    let days = time.as_secs() / 86400;
    if days > 0 {
        format!("{days} {}", if days == 1 { "day" } else { "days" })
    } else {
        format!("{} seconds", time.as_secs())
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::SystemTime;

    use anygate_config::{Origin, Settings};

    use super::*;

    /// A machine on which nothing hurts.
    fn machine() -> Machine {
        Machine {
            open_files: Some(1 << 20),
            somaxconn: Some(4096),
            processors: 2,
            memory: Some(8 << 30),
            in_memory: Vec::new(),
            on_disk: vec!["/".into()],
            now: SystemTime::now(),
            installed: None,
        }
    }

    fn plan(given: &[(&str, serde_json::Value)]) -> Plan {
        let mut settings = Settings::default();
        for (name, value) in given {
            settings.set_json(name, value, Origin::CommandLine).unwrap();
        }
        Plan::check(&settings, Path::new("/")).unwrap()
    }

    fn topics(given: &[(&str, serde_json::Value)], machine: &Machine) -> Vec<String> {
        check(&plan(given), machine).into_iter().map(|finding| finding.topic).collect()
    }

    #[test]
    fn nothing_is_found_where_nothing_hurts() {
        assert_eq!(topics(&[], &machine()), [""; 0]);
    }

    #[test]
    fn what_will_hurt_is_found_and_what_will_not_is_not() {
        for (given, hurts, fits) in [
            ("bind", serde_json::json!(["0.0.0.0:80"]), serde_json::json!(["127.0.0.1:80"])),
            ("bind", serde_json::json!(["scgi://[::]:4000"]), serde_json::json!(["scgi://localhost:4000"])),
            ("debug", serde_json::json!(true), serde_json::json!(false)),
            ("worker_memory_max", serde_json::json!("9G"), serde_json::json!("1G")),
            ("workers", serde_json::json!(9), serde_json::json!(8)),
            ("graceful_timeout", serde_json::json!("1s"), serde_json::json!("1m")),
            ("open files", serde_json::json!(1000), serde_json::json!(100_000)),
            ("trusted_proxies", serde_json::json!(["10.0.0.1"]), serde_json::json!(["unix"])),
        ] {
            for (value, is_found) in [(hurts, true), (fits, false)] {
                let given_too = match given {
                    "open files" => vec![("open_files_max", value.clone())],
                    "graceful_timeout" => {
                        vec![("graceful_timeout", value.clone()), ("request_timeout", "30s".into())]
                    }
                    "trusted_proxies" => vec![
                        ("trusted_proxies", value.clone()),
                        ("bind", serde_json::json!(["unix:/run/a.sock"])),
                    ],
                    _ => vec![(given, value.clone())],
                };
                let found = topics(&given_too, &machine());
                assert_eq!(found.contains(&given.to_owned()), is_found, "{given} {value}: {found:?}");
            }
        }
    }

    #[test]
    fn what_the_machine_lacks_is_found() {
        for (topic, worse) in [
            ("open files", Machine { open_files: Some(1024), ..machine() }),
            ("somaxconn", Machine { somaxconn: Some(128), ..machine() }),
            ("workers", Machine { processors: 8, ..machine() }),
            (
                "temp_dir",
                Machine {
                    in_memory: vec!["/".into(), std::env::temp_dir()],
                    on_disk: Vec::new(),
                    ..machine()
                },
            ),
            (
                "clock",
                Machine {
                    installed: Some(SystemTime::now() + Duration::from_secs(86400 * 400)),
                    ..machine()
                },
            ),
        ] {
            assert_eq!(topics(&[], &worse), [topic]);
        }
    }

    #[test]
    fn a_trusted_front_server_may_speak_http() {
        let given = [
            ("bind", serde_json::json!(["0.0.0.0:80"])),
            ("trusted_proxies", serde_json::json!(["10.0.0.1"])),
        ];
        assert_eq!(topics(&given, &machine()), [""; 0]);
    }
}
