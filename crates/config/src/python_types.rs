//! Types of keyword arguments, for type checkers of Python: the text of `python/anygate/options.py`.

use std::fmt::Write;

use crate::help::capitalised;
use crate::options::{APP, CONFIG, Kind, OPTIONS, Opt, works_under_any_server};

const HEAD: &str = "\
\"\"\"Types of options: ``serve(app, **options: Unpack[Options])``.

``make docs`` generates this file from the table in ``crates/config/src/options/``. ``None`` leaves an option as it is.
\"\"\"

from __future__ import annotations

from os import PathLike
from typing import Literal, TypedDict

#: A text or a path.
Text = str | PathLike[str]
#: Several texts.
Texts = Text | list[str] | list[PathLike[str]] | list[Text] | tuple[Text, ...]
";

const POLICIES: &str = "

class PolicyOptions(TypedDict, total=False):
    \"\"\"Options of the policies around an application, which work under any server.\"\"\"
";

const ALL: &str = "

class Options(PolicyOptions, total=False):
    \"\"\"Every option.\"\"\"
";

/// Returns the text of `python/anygate/options.py`.
pub fn python_types() -> String {
    // The application is an argument of its own, and the file is read by the program that starts anygate.
    let options = || OPTIONS.iter().filter(|option| !APP.is(option) && !CONFIG.is(option));
    let mut text = HEAD.to_owned();
    text.push_str(POLICIES);
    options()
        .filter(|option| works_under_any_server(option.name))
        .for_each(|option| write(&mut text, option));
    text.push_str(ALL);
    options()
        .filter(|option| !works_under_any_server(option.name))
        .for_each(|option| write(&mut text, option));
    text
}

fn write(text: &mut String, option: &Opt) {
    let value = match option.kind {
        Kind::Flag => "bool | None".to_owned(),
        Kind::Text | Kind::Path => "Text | None".to_owned(),
        Kind::Choice(words) => choice(words),
        Kind::List => "Texts | None".to_owned(),
        Kind::Integer { .. } => "int | None".to_owned(),
        Kind::AutoInteger { .. } => "int | Literal[\"auto\"] | None".to_owned(),
        Kind::AutoSize { .. } | Kind::Size { .. } => "int | str | None".to_owned(),
        Kind::Duration | Kind::TimeLimit => "float | str | None".to_owned(),
        Kind::Mode => "str | None".to_owned(),
    };
    let _ = write!(
        text,
        "\n    {}: {value}\n    \"\"\"{}.\"\"\"\n",
        option.name,
        capitalised(option.help).replace('\\', "\\\\")
    );
}

/// One of several words or `None`, broken where they do not fit on a line.
fn choice(words: &[&str]) -> String {
    let words: Vec<String> = words.iter().map(|word| format!("\"{word}\"")).collect();
    let line = words.join(", ");
    if line.len() < 80 {
        format!("Literal[{line}, None]")
    } else {
        format!("Literal[\n        {},\n        None,\n    ]", words.join(",\n        "))
    }
}
