//! The grammar of access log formats: text with atoms such as `%(h)s`, as gunicorn spells them. Reading a format checks
//! it; what each atom becomes for a request is `policy::access_log`'s.

use std::fmt;

/// One part of a format with atoms of type `A`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece<A> {
    /// Copied as it is.
    Text(String),
    /// Filled in for each line.
    Atom(A),
}

/// Value that is filled in for a message of the error log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MessageAtom {
    /// `time`: as `2026-11-27T22:23:01.000000Z`.
    Time,
    /// `level`: the severity, in capitals.
    Level,
    /// `pid`: the process number.
    Pid,
    /// `message`: the text.
    Message,
}

/// Value that is filled in for a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Atom {
    /// `h`: the client's address.
    RemoteAddr,
    /// `l`: always `-`.
    Dash,
    /// `u`: the user of Basic credentials.
    User,
    /// `t`: when the response began, as `[10/Oct/2000:13:55:36 +0000]`, in UTC.
    Time,
    /// `r`: the request line.
    RequestLine,
    /// `m`: the method.
    Method,
    /// `U`: the path without the query.
    Path,
    /// `q`: the query.
    Query,
    /// `H`: the protocol.
    Protocol,
    /// `s`: the status.
    Status,
    /// `B`: bytes of body.
    Bytes,
    /// `b`: the same, or `-` for none.
    BytesOrDash,
    /// `f`: the Referer field.
    Referer,
    /// `a`: the User-Agent field.
    UserAgent,
    /// `T`: whole seconds that the response took.
    Seconds,
    /// `M`: milliseconds.
    Milliseconds,
    /// `D`: microseconds.
    Microseconds,
    /// `L`: seconds with six decimals.
    DecimalSeconds,
    /// `p`: the worker's process number.
    Pid,
    /// `{name}i`: a field of the request.
    RequestField(String),
    /// `{name}o`: a field of the response.
    ResponseField(String),
}

/// Apache's combined format.
pub const COMBINED: &str = r#"%(h)s %(l)s %(u)s %(t)s "%(r)s" %(s)s %(b)s "%(f)s" "%(a)s""#;

/// The Common Log Format: the same without referrer and user agent.
pub const COMMON: &str = r#"%(h)s %(l)s %(u)s %(t)s "%(r)s" %(s)s %(b)s"#;

/// Fault of the user in a format.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FormatError {
    /// A `%` is not part of an atom; the text that follows.
    NoAtom(String),
    /// There is no atom of this name.
    UnknownAtom(String),
    /// Messages would have no text.
    NoMessage,
}

impl fmt::Display for FormatError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FormatError::NoAtom(after) => {
                write!(
                    f,
                    "has a % that is not part of an atom such as %(h)s, before {after:?}; write %% for a %"
                )
            }
            FormatError::UnknownAtom(name) => match python_name(name) {
                Some(atom) => write!(f, "has no atom %({name})s; write {atom}"),
                None => write!(f, "has no atom %({name})s; see docs/settings.md"),
            },
            FormatError::NoMessage => f.write_str("must be text, json, or a format with %(message)s"),
        }
    }
}

/// What to write instead of an atom of Python's `logging`.
fn python_name(name: &str) -> Option<&'static str> {
    Some(match name {
        "asctime" | "created" => "%(time)s",
        "levelname" | "levelno" => "%(level)s",
        "process" => "%(pid)s",
        _ => return None,
    })
}

/// Reads a format of the access log.
///
/// Errors: an atom that does not exist or is not closed.
pub fn read(format: &str) -> Result<Vec<Piece<Atom>>, FormatError> {
    pieces(format, atom)
}

/// Reads a format of messages.
///
/// Errors: as [`read`], or a format without the message.
pub fn read_message(format: &str) -> Result<Vec<Piece<MessageAtom>>, FormatError> {
    let pieces = pieces(format, |name| {
        Some(match name {
            "time" => MessageAtom::Time,
            "level" => MessageAtom::Level,
            "pid" => MessageAtom::Pid,
            "message" => MessageAtom::Message,
            _ => return None,
        })
    })?;
    if !pieces.contains(&Piece::Atom(MessageAtom::Message)) {
        return Err(FormatError::NoMessage);
    }
    Ok(pieces)
}

fn pieces<A>(format: &str, atom: impl Fn(&str) -> Option<A>) -> Result<Vec<Piece<A>>, FormatError> {
    let mut pieces = Vec::new();
    let mut rest = format;
    while let Some((text, after)) = rest.split_once('%') {
        push_text(&mut pieces, text);
        if let Some(after) = after.strip_prefix('%') {
            push_text(&mut pieces, "%");
            rest = after;
            continue;
        }
        let inner = after.strip_prefix('(').and_then(|after| after.split_once(")s"));
        let Some((name, after)) = inner else {
            return Err(FormatError::NoAtom(after.to_owned()));
        };
        pieces.push(Piece::Atom(atom(name).ok_or_else(|| FormatError::UnknownAtom(name.to_owned()))?));
        rest = after;
    }
    push_text(&mut pieces, rest);
    Ok(pieces)
}

fn push_text<A>(pieces: &mut Vec<Piece<A>>, text: &str) {
    match pieces.last_mut() {
        _ if text.is_empty() => {}
        Some(Piece::Text(last)) => last.push_str(text),
        _ => pieces.push(Piece::Text(text.to_owned())),
    }
}

fn atom(name: &str) -> Option<Atom> {
    Some(match name {
        "h" => Atom::RemoteAddr,
        "l" => Atom::Dash,
        "u" => Atom::User,
        "t" => Atom::Time,
        "r" => Atom::RequestLine,
        "m" => Atom::Method,
        "U" => Atom::Path,
        "q" => Atom::Query,
        "H" => Atom::Protocol,
        "s" => Atom::Status,
        "B" => Atom::Bytes,
        "b" => Atom::BytesOrDash,
        "f" => Atom::Referer,
        "a" => Atom::UserAgent,
        "T" => Atom::Seconds,
        "M" => Atom::Milliseconds,
        "D" => Atom::Microseconds,
        "L" => Atom::DecimalSeconds,
        "p" => Atom::Pid,
        _ => {
            let (name, kind) = name.strip_prefix('{')?.split_once('}')?;
            match kind {
                _ if name.is_empty() => return None,
                "i" => Atom::RequestField(name.to_owned()),
                "o" => Atom::ResponseField(name.to_owned()),
                _ => return None,
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_are_text_and_atoms() {
        let pieces = read("%(h)s 100%% \"%({X-Id}i)s\"").unwrap();
        assert_eq!(
            pieces,
            [
                Piece::Atom(Atom::RemoteAddr),
                Piece::Text(" 100% \"".to_owned()),
                Piece::Atom(Atom::RequestField("X-Id".to_owned())),
                Piece::Text("\"".to_owned()),
            ]
        );
        assert_eq!(read(COMBINED).unwrap().len(), 18);
        assert!(read(COMBINED).unwrap().starts_with(&read(COMMON).unwrap()));
    }

    #[test]
    fn a_format_of_messages_has_the_message() {
        let pieces = read_message("%(time)s [%(pid)s] %(level)s: %(message)s").unwrap();
        assert_eq!(pieces.len(), 7);
        assert_eq!(read_message("xml"), Err(FormatError::NoMessage));
        let error = read_message("%(asctime)s %(message)s").unwrap_err();
        assert_eq!(error.to_string(), "has no atom %(asctime)s; write %(time)s");
        assert_eq!(read_message("%(h)s %(message)s"), Err(FormatError::UnknownAtom("h".to_owned())));
    }

    #[test]
    fn wrong_atoms_are_named() {
        assert_eq!(read("%(z)s"), Err(FormatError::UnknownAtom("z".to_owned())));
        for bad in ["%", "%h", "%(h", "%({}i)s", "%({a}x)s", "100% sure"] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }
}
