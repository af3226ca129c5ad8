//! What users say, and what a plan makes of it.

use std::path::Path;
use std::time::Duration;

use super::address::bind;
use crate::invalid::Invalid;
use crate::options::{self, Kind};
use crate::{
    Bind, BindAddress, CertificateSource, LogTarget, Origin, Plan, Protocol, Settings, SyslogAddress,
};

fn tcp(host: &str, port: u16) -> Result<Bind, Invalid> {
    Ok(http(BindAddress::Tcp { host: host.to_owned(), port }))
}

fn http(address: BindAddress) -> Bind {
    Bind { protocol: Protocol::Http, address }
}

#[test]
fn addresses_have_these_forms() {
    let bind = |text| bind(text, Path::new("/site"), Protocol::Http);
    assert_eq!(bind("127.0.0.1:8000"), tcp("127.0.0.1", 8000));
    assert_eq!(bind("localhost:0"), tcp("localhost", 0));
    assert_eq!(bind(":80"), tcp("0.0.0.0", 80));
    assert_eq!(bind("8000"), tcp("127.0.0.1", 8000));
    assert_eq!(bind("[::1]:8000"), tcp("::1", 8000));
    assert_eq!(bind("[fe80::1%eth0]:1"), tcp("fe80::1%eth0", 1));
    assert_eq!(bind("http://a:1/"), tcp("a", 1));
    let unix = |path: &str| BindAddress::Unix(path.into());
    assert_eq!(bind("unix:/run/x.sock"), Ok(http(unix("/run/x.sock"))));
    assert_eq!(bind("unix:///run/x.sock"), Ok(http(unix("/run/x.sock"))));
    assert_eq!(bind("unix:x.sock"), Ok(http(unix("/site/x.sock"))));
    assert_eq!(bind("http+unix:x.sock"), Ok(http(unix("/site/x.sock"))));
    assert_eq!(bind("fd://3"), Ok(http(BindAddress::Fd(3))));
    let spoken = |protocol, address| Ok(Bind { protocol, address });
    let local = BindAddress::Tcp { host: "127.0.0.1".to_owned(), port: 4000 };
    assert_eq!(bind("scgi://127.0.0.1:4000"), spoken(Protocol::Scgi, local));
    assert_eq!(bind("fastcgi+unix:/run/x.sock"), spoken(Protocol::FastCgi, unix("/run/x.sock")));
    assert_eq!(bind("fastcgi+unix:///run/x"), spoken(Protocol::FastCgi, unix("/run/x")));
    assert_eq!(bind("uwsgi+fd://3"), spoken(Protocol::Uwsgi, BindAddress::Fd(3)));
    assert_eq!(bind("SCGI+unix:/run/x"), spoken(Protocol::Scgi, unix("/run/x")));
    assert_eq!(bind("uwsgi:4000"), tcp("uwsgi", 4000));
    for (bad, right) in [
        ("uwsgi:127.0.0.1:4000", "must be written uwsgi://127.0.0.1:4000"),
        ("scgi:unix:/run/x", "must be written scgi+unix:/run/x"),
        ("a:1,b:2", "must be one address; commas separate several only in a variable"),
        (
            "unix:@x",
            "names an abstract socket, which has no permissions and is not supported; write unix:./@NAME for a file",
        ),
    ] {
        assert_eq!(bind(bad).unwrap_err().to_string(), right);
    }
    for bad in [
        "",
        "a",
        "a:",
        "a:b",
        "a:70000",
        "::1",
        "[::1]",
        "[x]:1",
        "[::1]8000",
        "fd://1",
        "fd://x",
        "unix:",
        "ftp://a:1",
        "scgi+udp:1",
        "scgi+udp://a:1",
        "scgi://",
        "ftp+unix:/x",
        "a:+1",
    ] {
        assert!(bind(bad).is_err(), "{bad}");
    }
}

#[test]
fn a_host_and_port_without_a_protocol_speak_the_default() {
    let protocol = |text| bind(text, Path::new("/site"), Protocol::Https).map(|bind| bind.protocol);
    for text in ["127.0.0.1:1", "[::1]:1", ":1", "1", "https://a:1"] {
        assert_eq!(protocol(text), Ok(Protocol::Https), "{text}");
    }
    for text in ["http://a:1", "unix:/x", "unix:///x", "http+unix:/x", "fd://3"] {
        assert_eq!(protocol(text), Ok(Protocol::Http), "{text}");
    }
    assert_eq!(protocol("scgi://a:1"), Ok(Protocol::Scgi));
}

#[test]
fn admin_addresses_are_checked() {
    let check = |name: &str, text: &str| {
        let mut settings = Settings::default();
        settings.set_json(name, &serde_json::Value::from(text), crate::Origin::Argument).unwrap();
        Plan::check(&settings, Path::new("/run")).map(|plan| plan.admin).map_err(|wrong| wrong.to_string())
    };
    assert_eq!(check("admin", "http://127.0.0.1:9191/").unwrap(), check("admin", "127.0.0.1:9191").unwrap());
    assert_eq!(
        check("admin", "unix:a.sock").unwrap().binds(),
        [Bind { protocol: Protocol::Http, address: BindAddress::Unix("/run/a.sock".into()) }]
    );
    assert!(!check("statsd_prefix", "x").unwrap().is_wanted());
    assert!(check("uwsgi_stats", "localhost:1717").unwrap().is_wanted());
    assert!(check("uwsgi_stats", "0.0.0.0:1717").unwrap_err().contains("loopback"));
    assert_eq!(check("statsd", "127.0.0.1:8125").unwrap().statsd.unwrap().prefix, "anygate.");
    for wrong in ["unix:a.sock", "127.0.0.1:0", "nowhere"] {
        assert!(check("statsd", wrong).unwrap_err().contains("must be host:port"), "{wrong}");
    }
}

#[test]
fn logs_go_to_many_places() {
    let log =
        |text: &str| checked(&[("access_log", &[text])], Path::new("/site")).map(|plan| plan.log.access_log);
    let local = |path: &str| LogTarget::Syslog(SyslogAddress::Local(path.into()));
    let udp = |host: &str, port| LogTarget::Syslog(SyslogAddress::Udp { host: host.to_owned(), port });
    for (text, target) in [
        ("-", LogTarget::Stdout),
        ("a.log", LogTarget::File("/site/a.log".into())),
        ("/dev/stdout", LogTarget::Stdout),
        ("/dev/fd/2", LogTarget::Stderr),
        ("./syslog", LogTarget::File("/site/./syslog".into())),
        ("a:b", LogTarget::File("/site/a:b".into())),
        ("syslog", local("/dev/log")),
        ("syslog:./x.sock", local("/site/./x.sock")),
        ("syslog:/run/x", local("/run/x")),
        ("syslog:logs.example:514", udp("logs.example", 514)),
        ("syslog:[::1]:514", udp("::1", 514)),
        ("journald", LogTarget::Journald("/run/systemd/journal/socket".into())),
        ("journald:x.sock", LogTarget::Journald("/site/x.sock".into())),
    ] {
        assert_eq!(log(text), Ok(vec![target]), "{text}");
    }
    assert_eq!(log(""), Ok(Vec::new()));
    for wrong in ["syslog:example", "syslog:example:0", "syslog:a:b:c"] {
        assert!(log(wrong).unwrap_err().contains("must be syslog, syslog:host:port"), "{wrong}");
    }
}

#[test]
fn facilities_have_the_numbers_of_the_protocol() {
    let facility = |name: &str| {
        checked(&[("syslog_facility", &[name])], Path::new("/")).unwrap().log.syslog_facility.number()
    };
    let numbers = ["user", "daemon", "local0", "local7"].map(facility);
    assert_eq!(numbers, [1, 3, 16, 23]);
}

#[test]
fn the_defaults_are_a_plan() {
    let plan = Plan::check(&Settings::default(), Path::new("/")).unwrap();
    assert_eq!(plan.binds, [tcp("127.0.0.1", 8000).unwrap()]);
    assert_eq!((plan.workers, plan.server.threads), (1, 8));
    assert_eq!(plan.server.reading.limits.body_max_bytes, 1 << 30);
    assert_eq!(plan.server.timeouts.keepalive, Duration::from_secs(75));
}

fn checked(options: &[(&str, &[&str])], folder: &Path) -> Result<Plan, String> {
    let mut settings = Settings::default();
    for (name, values) in options {
        let option = crate::options::find(name).unwrap();
        match option.kind {
            Kind::List => {
                let items = values.iter().map(|value| (*value).to_owned()).collect();
                settings.set_list(option, items, crate::settings::Origin::CommandLine);
            }
            _ => settings.set_text(option, values[0], crate::settings::Origin::CommandLine).unwrap(),
        }
    }
    Plan::check(&settings, folder).map_err(|wrong| wrong.to_string())
}

#[test]
fn functions_are_named_with_their_module() {
    let on_error =
        |text: &str| checked(&[("on_error", &[text])], Path::new("/")).map(|plan| plan.application.on_error);
    assert_eq!(on_error("site.errors:tell"), Ok(Some("site.errors:tell".to_owned())));
    assert_eq!(on_error(""), Ok(None));
    for wrong in ["tell", ":tell", "site:", "site:tell()"] {
        let error = on_error(wrong).unwrap_err();
        assert!(error.starts_with(&format!("--on-error: {wrong:?} must be module:function")), "{error}");
    }
}

#[test]
fn hooks_are_a_module_or_a_file_seen_from_the_start() {
    let hooks =
        |text: &str| checked(&[("hooks", &[text])], Path::new("/srv")).map(|plan| plan.application.hooks);
    for (text, meant) in [
        ("site.hooks", "site.hooks"),
        ("gunicorn.conf.py", "/srv/gunicorn.conf.py"),
        ("conf/hooks", "/srv/conf/hooks"),
        ("/etc/hooks.py", "/etc/hooks.py"),
    ] {
        assert_eq!(hooks(text), Ok(Some(meant.to_owned())));
    }
    for wrong in ["site.hooks:post_fork", "my hooks", "1st", ".hooks"] {
        let error = hooks(wrong).unwrap_err();
        assert!(error.starts_with(&format!("--hooks: {wrong:?} must be a module or")), "{error}");
    }
}

#[test]
fn keys_belong_to_certificates_in_order() {
    let folder = std::env::temp_dir().join(format!("anygate-plan-{}", std::process::id()));
    std::fs::create_dir_all(folder.join("folder")).unwrap();
    for name in ["a", "b", "a.key", "b.key"] {
        std::fs::write(folder.join(name), "").unwrap();
    }
    let certificates = |c: &[&str], k: &[&str]| {
        checked(&[("ssl_certificate", c), ("ssl_private_key", k)], &folder)
            .map(|plan| plan.tls.map(|tls| tls.certificates))
    };
    let files = |certificate: &str, key: &str| CertificateSource::Files {
        certificate: folder.join(certificate),
        key: folder.join(key),
    };
    let whole = CertificateSource::Folder(folder.join("folder"));
    assert_eq!(certificates(&[], &[]), Ok(None));
    assert_eq!(certificates(&["a"], &[]), Ok(Some(vec![files("a", "a")])));
    assert_eq!(
        certificates(&["a", "folder", "b"], &["a.key", "b.key"]),
        Ok(Some(vec![files("a", "a.key"), whole, files("b", "b.key")]))
    );
    for (c, k, message) in [
        (&["a", "b"][..], &["a.key"][..], "given 1 times for 2"),
        (&["folder"], &["a.key"], "given 1 times for 0"),
        (&[], &["a.key"], "needs --ssl-certificate, its certificate"),
        (&["c"], &[], "no file or directory"),
        (&["a"], &["c"], "no file"),
    ] {
        let error = certificates(c, k).unwrap_err();
        assert!(error.contains(message), "{error}");
    }
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn addresses_without_a_protocol_serve_https_unless_another_one_says_https() {
    let file = file!();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap();
    let protocols = |options: &[(&str, &[&str])]| {
        let plan = checked(&[&[("ssl_certificate", &[file][..])], options].concat(), folder).unwrap();
        plan.binds.iter().map(|bind| bind.protocol).collect::<Vec<_>>()
    };
    let (http, https) = (Protocol::Http, Protocol::Https);
    assert_eq!(protocols(&[("bind", &["a:1", "scgi://a:2"])]), [https, Protocol::Scgi]);
    assert_eq!(protocols(&[("bind", &["a:1", "http://a:2"])]), [https, http]);
    assert_eq!(protocols(&[("bind", &["a:1", "https://a:2"])]), [http, https]);
    assert_eq!(protocols(&[("bind", &["https://a:2", ":1", "fd://3"])]), [https, http, http]);
    assert_eq!(protocols(&[("bind", &["https://a:2"]), ("port", &["1"])]), [https, http]);
}

#[test]
fn redirects_are_on_the_hosts_of_https() {
    let file = file!();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap();
    let binds = |binds: &[&str], place: &str| {
        let options = [("ssl_certificate", &[file][..]), ("bind", binds), ("redirect_https", &[place])];
        let plan = checked(&options, folder)?;
        let all = plan.binds.into_iter().filter(|bind| bind.protocol == Protocol::Redirect);
        Ok::<_, String>(all.map(|bind| bind.address).collect::<Vec<_>>())
    };
    let at = |host: &str, port| BindAddress::Tcp { host: host.to_owned(), port };
    assert_eq!(binds(&["a:443", "[::1]:443", "http://b:1"], "80"), Ok(vec![at("a", 80), at("::1", 80)]));
    assert_eq!(binds(&["a:443", "a:444"], "80"), Ok(vec![at("a", 80)]));
    assert_eq!(binds(&["a:443"], "b:80"), Ok(vec![at("b", 80)]));
    for (given, place, message) in [
        (&["http://a:1"][..], "80", "needs an address that serves HTTPS"),
        (&["a:443", "http://a:80"], "80", "is already in use"),
        (&["https+unix:x"], "80", "must be an address"),
        (&["a:443"], "https", "must be host:port"),
        (&["a:443"], "65536", "from 0 to 65535"),
    ] {
        let error = binds(given, place).unwrap_err();
        assert!(error.contains(message), "{error}");
    }
}

#[test]
fn options_are_named_as_in_the_place_where_they_were_given() {
    let file = |name: &str| Origin::File(name.into());
    for (origin, other, message) in [
        (Origin::CommandLine, None, "--admin: needs --admin-token-file"),
        (Origin::CommandLine, Some(file("a.toml")), "--admin: needs admin_token_file in a.toml"),
        (Origin::Environment, None, "ANYGATE_ADMIN: needs ANYGATE_ADMIN_TOKEN_FILE"),
        (Origin::Environment, Some(Origin::CommandLine), "ANYGATE_ADMIN: needs --admin-token-file"),
        (file("a.toml"), Some(file("a.toml")), "a.toml: admin: needs admin_token_file"),
        (Origin::Argument, None, "admin: needs admin_token_file"),
    ] {
        let mut settings = Settings::default();
        settings.set_text(options::ADMIN.option(), "localhost:1", origin).unwrap();
        if let Some(other) = other {
            settings.set_text(options::ADMIN_TOKEN_FILE.option(), "token", other).unwrap();
        }
        let origins = Plan::check(&settings, Path::new("/")).unwrap().origins;
        let needed = origins.name(options::ADMIN_TOKEN_FILE, options::ADMIN);
        assert_eq!(origins.wrong(options::ADMIN, format!("needs {needed}")).to_string(), message);
    }
}

#[test]
fn addresses_of_a_layer_replace_those_below_it() {
    let file = || Origin::File("anygate.toml".into());
    for (given, expected) in [
        (vec![("bind", ":1", file()), ("port", "2", Origin::CommandLine)], vec!["port"]),
        (vec![("bind", ":1", file()), ("scgi", "false", Origin::CommandLine)], vec!["bind"]),
        (
            vec![("port", "1", file()), ("ip", "0.0.0.0", file()), ("bind", ":2", Origin::Environment)],
            vec!["bind"],
        ),
        (vec![("ip", "0.0.0.0", file()), ("port", "2", Origin::CommandLine)], vec!["ip", "port"]),
        (vec![("bind", ":1", Origin::CommandLine), ("port", "2", Origin::CommandLine)], vec!["bind", "port"]),
    ] {
        let mut settings = Settings::default();
        for (name, text, origin) in given {
            settings.set_text(options::find(name).unwrap(), text, origin).unwrap();
        }
        settings.settle_addresses();
        let left: Vec<_> = ["bind", "ip", "port", "scgi"]
            .into_iter()
            .filter(|name| settings.given(options::find(name).unwrap()).is_some())
            .collect();
        assert_eq!(left, expected);
    }
}

#[test]
fn options_that_need_another_one_are_named_with_it() {
    let set = |name: &str, text: &str, origin: Origin| {
        let mut settings = Settings::default();
        settings.set_text(options::find(name).unwrap(), text, origin).unwrap();
        settings
    };
    let alone = set("max_requests_jitter", "9", Origin::CommandLine);
    assert_eq!(alone.idle(), ["--max-requests-jitter: has no effect without --max-requests"]);
    let mut both = alone.clone();
    both.set_text(options::find("max_requests").unwrap(), "99", Origin::Environment).unwrap();
    assert_eq!(both.idle(), Vec::<String>::new());
    // What is off, or as it is anyway, needs nothing; variables may be meant for several servers.
    assert_eq!(set("max_requests_jitter", "9", Origin::Environment).idle(), Vec::<String>::new());
    assert_eq!(set("max_requests_jitter", "0", Origin::CommandLine).idle(), Vec::<String>::new());
    let kept = set("log_rotate_keep", "77", Origin::File("a.toml".into()));
    assert_eq!(
        kept.idle(),
        ["a.toml: log_rotate_keep: has no effect without log_rotate_size or log_rotate_interval"]
    );
    for option in options::OPTIONS {
        for needed in option.needs {
            assert!(options::find(needed).is_some_and(|other| other.name != option.name), "{}", option.name);
        }
    }
}
