//! uWSGI's format of lines of requests, in atoms of ours.

/// What stands for each variable of uWSGI.
const VARIABLES: &[(&str, &str)] = &[
    ("method", "%(m)s"),
    ("uri", "%(U)s"),
    ("proto", "%(H)s"),
    ("host", "%({host}i)s"),
    ("uagent", "%(a)s"),
    ("referer", "%(f)s"),
    ("user", "%(u)s"),
    ("addr", "%(h)s"),
    ("status", "%(s)s"),
    ("msecs", "%(M)s"),
    ("micros", "%(D)s"),
    ("secs", "%(T)s"),
    ("pid", "%(p)s"),
    ("size", "%(B)s"),
    ("rsize", "%(B)s"),
    ("ltime", "%(t)s"),
    ("ctime", "%(t)s"),
    ("time", "%(t)s"),
    ("ftime", "%(t)s"),
];

/// Phrases that belong together.
const PHRASES: &[(&str, &str)] = &[
    ("%(method) %(uri) %(proto)", "%(r)s"),
    ("[%(ltime)]", "%(t)s"),
    ("[%(ctime)]", "%(t)s"),
    ("[%(ftime)]", "%(t)s"),
    ("%(uri)", "%(U)s"),
];

/// A variable of uWSGI that no atom of ours stands for.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct UnknownVariable(pub(super) String);

/// Returns the format in atoms of ours.
pub(super) fn ours(format: &str) -> Result<String, UnknownVariable> {
    let mut text = format.to_owned();
    for (theirs, ours) in PHRASES {
        text = text.replace(theirs, ours);
    }
    let mut all = String::new();
    let mut rest = text.as_str();
    while let Some((before, after)) = rest.split_once('%') {
        all.push_str(before);
        let Some((name, after)) = after.strip_prefix('(').and_then(|after| after.split_once(')')) else {
            all.push_str("%%");
            rest = after;
            continue;
        };
        if let (1 | 3.., Some(after)) = (name.len(), after.strip_prefix('s'))
            && (name.len() == 1 || name.starts_with('{'))
        {
            // It is one of ours, which a phrase has become.
            all.push_str(&format!("%({name})s"));
            rest = after;
            continue;
        }
        let field = name.strip_prefix("var.HTTP_");
        match VARIABLES.iter().find(|(theirs, _)| *theirs == name) {
            Some((_, ours)) => all.push_str(ours),
            None => match field {
                Some(field) => {
                    all.push_str(&format!("%({{{}}}i)s", field.to_lowercase().replace('_', "-")));
                }
                None => return Err(UnknownVariable(name.to_owned())),
            },
        }
        rest = after;
    }
    all.push_str(rest);
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_say_the_same() {
        let combined = r#"%(addr) - %(user) [%(ltime)] "%(method) %(uri) %(proto)" %(status) %(size) "%(referer)" "%(uagent)""#;
        let expected = r#"%(h)s - %(u)s %(t)s "%(r)s" %(s)s %(B)s "%(f)s" "%(a)s""#;
        assert_eq!(ours(combined).as_deref(), Ok(expected));
        assert_eq!(
            ours("%(var.HTTP_X_REAL_IP) 100% %(msecs)s").as_deref(),
            Ok("%({x-real-ip}i)s 100%% %(M)ss")
        );
        assert_eq!(ours("%(addr) %(epoch)"), Err(UnknownVariable("epoch".to_owned())));
        for format in [combined, "%(host) %(micros) %"] {
            assert!(anygate_config::log_format::read(&ours(format).unwrap()).is_ok());
        }
    }
}
