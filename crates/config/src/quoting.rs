//! Splits a command into words without a shell, as `shlex.split(command)` of Python does.

/// Why a command has no words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unfinished {
    /// A quotation mark without its second one.
    Quotation,
    /// A backslash at the end.
    Escape,
}

enum Inside {
    Nothing,
    Single,
    Double,
}

/// The words of `text`. A `#` begins no comment; within double quotes a backslash escapes itself and the quote only.
///
/// Errors: the text ends inside a quotation or after a backslash.
pub fn split(text: &str) -> Result<Vec<String>, Unfinished> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut inside = Inside::Nothing;
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match (&inside, character) {
            (Inside::Nothing, ' ' | '\t' | '\r' | '\n') => words.extend(word.take()),
            (Inside::Nothing, '\'') => inside = Inside::Single,
            (Inside::Nothing, '"') => inside = Inside::Double,
            (Inside::Single, '\'') | (Inside::Double, '"') => inside = Inside::Nothing,
            (Inside::Nothing, '\\') => {
                word.get_or_insert_default().push(characters.next().ok_or(Unfinished::Escape)?);
            }
            (Inside::Double, '\\') => {
                let next = characters.next().ok_or(Unfinished::Escape)?;
                let word = word.get_or_insert_default();
                if !matches!(next, '"' | '\\') {
                    word.push('\\');
                }
                word.push(next);
            }
            (_, other) => word.get_or_insert_default().push(other),
        }
        if !matches!(inside, Inside::Nothing) {
            // Quotes make a word, even an empty one.
            word.get_or_insert_default();
        }
    }
    match inside {
        Inside::Nothing => {
            words.extend(word);
            Ok(words)
        }
        Inside::Single | Inside::Double => Err(Unfinished::Quotation),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_those_of_python() {
        let table: &[(&str, &[&str])] = &[
            ("a b\tc", &["a", "b", "c"]),
            ("  a  ", &["a"]),
            ("'a b' \"c d\"", &["a b", "c d"]),
            ("a'b'\"c\"", &["abc"]),
            ("'' \"\"", &["", ""]),
            (r"a\ b \'", &["a b", "'"]),
            (r#""\"\\\n\$""#, &[r#""\\n\$"#]),
            (r"'\n'", &[r"\n"]),
            ("echo #no comment $HOME > x", &["echo", "#no", "comment", "$HOME", ">", "x"]),
        ];
        for (text, expected) in table {
            assert_eq!(split(text).unwrap(), *expected, "{text}");
        }
        assert_eq!(split("a 'b"), Err(Unfinished::Quotation));
        assert_eq!(split("\"b"), Err(Unfinished::Quotation));
        assert_eq!(split("a\\"), Err(Unfinished::Escape));
    }
}
