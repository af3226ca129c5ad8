//! Commands that uWSGI gives to a shell.

use anygate_config::quoting;

/// Characters that a shell has a meaning for.
const SHELL: &[char] = &['|', '&', ';', '<', '>', '$', '`', '*', '?', '~', '(', ')', '{', '}', '\n'];

/// A command as words, of a shell if it needs one.
///
/// Errors: a quotation has no end.
pub(super) fn words(text: &str) -> Result<Vec<String>, quoting::Unfinished> {
    let text = text.trim();
    match text.contains(SHELL) {
        true => Ok(vec!["/bin/sh".to_owned(), "-c".to_owned(), text.to_owned()]),
        false => quoting::split(text),
    }
}

/// The name of its program, without folders.
pub(super) fn program(words: &[String]) -> String {
    let program = words.iter().find(|word| !word.starts_with('-')).map(String::as_str).unwrap_or_default();
    program.rsplit('/').next().unwrap_or_default().to_owned()
}
