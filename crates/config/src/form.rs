//! How options are written in each of the places where they can be set.
//!
//! In texts `{workers}` is the name of an option in the form of the place where it is to be set, and
//! `{concurrency=gevent}` an option with its value.

use crate::options;

/// Where an option is to be set, which decides how its name is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// On the command line.
    Flag,
    /// In a file.
    Key,
    /// In the environment.
    Variable,
    /// In a call from Python.
    Argument,
}

/// Replaces `{option}` and `{option=value}`.
pub(crate) fn filled(text: &str, form: Form) -> String {
    let mut pieces = text.split('{');
    let mut all = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        let (placeholder, rest) = piece.split_once('}').unwrap_or((piece, ""));
        all.push_str(&written(placeholder, form));
        all.push_str(rest);
    }
    all
}

/// An option, or `option=value`, as it is written in a place.
pub(crate) fn written(placeholder: &str, form: Form) -> String {
    let (name, value) = match placeholder.split_once('=') {
        Some((name, value)) => (name, Some(value)),
        None => (placeholder, None),
    };
    let Some(option) = options::find(name) else { return placeholder.to_owned() };
    match (form, value) {
        (Form::Flag, None) => option.flag(),
        (Form::Flag, Some(value)) => format!("{} {value}", option.flag()),
        (Form::Variable, None) => option.variable(),
        (Form::Variable, Some(value)) => format!("{}={value}", option.variable()),
        (Form::Key | Form::Argument, None) => option.name.to_owned(),
        (Form::Key, Some(value)) => format!("{} = {:?}", option.name, value.trim_matches('\'')),
        (Form::Argument, Some(value)) => format!("{}={:?}", option.name, value.trim_matches('\'')),
    }
}
