//! Imported settings as a file of ours, with a comment on each option of the other server.

use std::fmt::Write;

use serde_json::Value;

use crate::draft::{Draft, Outcome, Verdict};

/// Returns the file. `title` says where the settings are from.
pub(crate) fn toml(draft: &Draft, title: &str) -> String {
    let mut text = format!("# Settings of anygate, made from {title}.\n");
    text.push_str(
        "# Each option is mapped (the same here), changed, not needed, or without counterpart.\n\n",
    );
    for (number, outcome) in draft.outcomes.iter().enumerate() {
        let _ = writeln!(text, "{}", comment(outcome));
        for option in &outcome.options {
            let is_later = draft
                .outcomes
                .get(number + 1..)
                .is_some_and(|later| later.iter().any(|other| other.options.contains(option)));
            if let (false, Some(value)) = (is_later, draft.values.get(*option)) {
                let _ = writeln!(text, "{option} = {}", shown(value));
            }
        }
    }
    for (heading, table) in &draft.tables {
        let _ = writeln!(text, "\n{heading}");
        for (key, value) in table.as_object().into_iter().flatten() {
            let _ = writeln!(text, "{key} = {}", shown(value));
        }
    }
    text
}

fn comment(outcome: &Outcome) -> String {
    let verdict = match &outcome.verdict {
        Verdict::Mapped => "mapped".to_owned(),
        Verdict::Changed(how) => format!("changed: {how}"),
        Verdict::Needless(why) => format!("not needed: {why}"),
        Verdict::Missing(why) => format!("without counterpart: {why}"),
    };
    let to = match outcome.options.as_slice() {
        [] => String::new(),
        options => format!(" to {}", options.join(" and ")),
    };
    let verdict = match verdict.split_once(':') {
        Some((word, rest)) => format!("{word}{to}:{rest}"),
        None => format!("{verdict}{to}"),
    };
    format!("# {}: {} -- {verdict}", outcome.position, one_line(&outcome.typed))
}

/// What goes into a comment: no line ends, no control characters.
pub(crate) fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// A value as TOML has it.
fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => toml::Value::String(text.clone()).to_string(),
        Value::Array(items) => format!("[{}]", items.iter().map(shown).collect::<Vec<_>>().join(", ")),
        Value::Object(table) => {
            let pairs: Vec<String> =
                table.iter().map(|(key, value)| format!("{key} = {}", shown(value))).collect();
            format!("{{ {} }}", pairs.join(", "))
        }
        other => other.to_string(),
    }
}

/// A line for each option that has no effect.
pub(crate) fn warnings(draft: &Draft) -> Vec<String> {
    let missing = draft.outcomes.iter().filter_map(|outcome| match &outcome.verdict {
        Verdict::Missing(why) => {
            Some(format!("{}: {} has no effect: {why}", outcome.position, one_line(&outcome.typed)))
        }
        _ => None,
    });
    missing.collect()
}
