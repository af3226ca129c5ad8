//! What a configuration consists of: directives, each with its words, its place, and what is inside its braces or tags.

use std::iter::Peekable;
use std::path::Path;
use std::str::Chars;

use crate::finding::Finding;

/// The text of a file, and what it is called.
pub(super) struct Source<'a> {
    pub(super) text: &'a str,
    pub(super) shown: &'a str,
    pub(super) path: &'a Path,
}

/// A directive.
#[derive(Clone, Debug, Default)]
pub(super) struct Directive {
    pub(super) name: String,
    pub(super) words: Vec<String>,
    pub(super) inside: Vec<Directive>,
    file: String,
    line: usize,
}

impl Directive {
    pub(super) fn new(name: impl Into<String>, words: Vec<String>, file: &str, line: usize) -> Directive {
        Directive { name: name.into(), words, inside: Vec::new(), file: file.to_owned(), line }
    }

    /// The word at a position, or nothing.
    pub(super) fn word(&self, position: usize) -> &str {
        self.words.get(position).map_or("", String::as_str)
    }

    /// Whether a word is among its own.
    pub(super) fn has(&self, word: &str) -> bool {
        self.words.iter().any(|one| one == word)
    }

    /// The value of a word such as `timeout=30`.
    pub(super) fn value(&self, name: &str) -> Option<&str> {
        self.words.iter().find_map(|word| word.strip_prefix(name)?.strip_prefix('='))
    }

    /// The directives inside that have a name, whatever its case.
    pub(super) fn named<'a>(&'a self, name: &'a str) -> impl DoubleEndedIterator<Item = &'a Directive> {
        self.inside.iter().filter(move |one| one.name.eq_ignore_ascii_case(name))
    }

    /// A finding at its place.
    pub(super) fn finding(&self, problem: impl Into<String>, cure: impl Into<String>) -> Finding {
        Finding {
            file: Some(self.file.clone()),
            line: Some(self.line),
            ..Finding::new(&self.name, problem, cure)
        }
    }

    /// Calls a function for every directive below this one, with those that it lies in, this one first.
    pub(super) fn visit<'a>(&'a self, seen: &mut dyn FnMut(&[&'a Directive], &'a Directive)) {
        fn go<'a>(around: &mut Vec<&'a Directive>, seen: &mut dyn FnMut(&[&'a Directive], &'a Directive)) {
            let Some(last) = around.last().copied() else { return };
            for one in &last.inside {
                seen(around, one);
                around.push(one);
                go(around, seen);
                around.pop();
            }
        }
        go(&mut vec![self], seen);
    }
}

/// A word of a text in the syntax of nginx and Caddy, or one of its marks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Token {
    Word(String),
    Open,
    Close,
    /// `;`
    End,
    /// The end of a line.
    Line,
}

/// Splits a text into words, quoted ones as one, and marks, each with its line. Comments begin with `#` where a word could. Braces
/// and semicolons are marks where they stand alone, which is how Caddy has them, or anywhere, as for nginx.
pub(super) fn tokens(text: &str, are_marks_anywhere: bool) -> Vec<(Token, usize)> {
    let mut tokens = Vec::new();
    let mut letters = text.chars().peekable();
    let mut line = 1;
    while let Some(&letter) = letters.peek() {
        match letter {
            '\n' => {
                letters.next();
                tokens.push((Token::Line, line));
                line += 1;
            }
            _ if letter.is_whitespace() => {
                letters.next();
            }
            '#' => while letters.next_if(|letter| *letter != '\n').is_some() {},
            '{' | '}' | ';' if are_marks_anywhere => {
                letters.next();
                tokens.push((mark(letter), line));
            }
            _ => {
                let at = line;
                let (word, is_quoted) = word(&mut letters, &mut line, are_marks_anywhere);
                let token = match word.as_str() {
                    "{" if !is_quoted => Token::Open,
                    "}" if !is_quoted => Token::Close,
                    _ => Token::Word(word),
                };
                tokens.push((token, at));
            }
        }
    }
    tokens.push((Token::Line, line));
    tokens
}

/// Reads a word, and says whether it was quoted.
fn word(letters: &mut Peekable<Chars<'_>>, line: &mut usize, are_marks_anywhere: bool) -> (String, bool) {
    let mut word = String::new();
    let quote = letters.next_if(|letter| matches!(letter, '"' | '\'' | '`'));
    while let Some(letter) = letters.next_if(|letter| match quote {
        Some(quote) => *letter != quote,
        // A brace behind a dollar sign belongs to the name of a variable: ${name}.
        None if are_marks_anywhere && *letter == '{' => word.ends_with('$'),
        None => !(letter.is_whitespace() || are_marks_anywhere && matches!(letter, ';' | '}')),
    }) {
        match letter {
            '\\' => {
                let next = letters.next();
                if next == Some('\n') {
                    *line += 1;
                    continue;
                }
                if next != quote {
                    word.push(letter);
                }
                word.extend(next);
                continue;
            }
            '{' if quote.is_none() && are_marks_anywhere => {
                word.push(letter);
                while let Some(letter) = letters.next_if(|letter| *letter != '\n') {
                    word.push(letter);
                    if letter == '}' {
                        break;
                    }
                }
                continue;
            }
            '\n' => *line += 1,
            _ => {}
        }
        word.push(letter);
    }
    if quote.is_some() {
        letters.next();
    }
    (word, quote.is_some())
}

fn mark(letter: char) -> Token {
    match letter {
        '{' => Token::Open,
        '}' => Token::Close,
        _ => Token::End,
    }
}

/// Makes directives of tokens: words up to an end, with what is in the braces behind them.
pub(super) fn tree(tokens: &[(Token, usize)], ends: &Token, file: &str) -> Vec<Directive> {
    let mut around: Vec<Vec<Directive>> = vec![Vec::new()];
    let mut words: Vec<(String, usize)> = Vec::new();
    let close = |around: &mut Vec<Vec<Directive>>, words: &mut Vec<(String, usize)>, is_block: bool| {
        let mut taken = words.drain(..);
        let first = taken.next();
        // A block without a name is Caddy's, for global options.
        let Some((name, line)) = first.or_else(|| is_block.then(|| (String::new(), 1))) else { return };
        let directive = Directive::new(name, taken.map(|(word, _)| word).collect(), file, line);
        if let Some(level) = around.last_mut() {
            level.push(directive);
        }
    };
    for (token, line) in tokens {
        match token {
            Token::Word(word) => words.push((word.clone(), *line)),
            Token::Open => {
                close(&mut around, &mut words, true);
                around.push(Vec::new());
            }
            Token::Close => {
                close(&mut around, &mut words, false);
                if let Some(inside) = (around.len() > 1).then(|| around.pop()).flatten()
                    && let Some(block) = around.last_mut().and_then(|level| level.last_mut())
                {
                    block.inside = inside;
                }
            }
            one if one == ends => close(&mut around, &mut words, false),
            Token::End | Token::Line => {}
        }
    }
    close(&mut around, &mut words, false);
    // What was not closed is closed by the end of the file.
    while let Some(inside) = (around.len() > 1).then(|| around.pop()).flatten() {
        if let Some(block) = around.last_mut().and_then(|level| level.last_mut()) {
            block.inside = inside;
        }
    }
    around.pop().unwrap_or_default()
}

/// Reads `1m`, `8k`, `1g` or bytes.
pub(super) fn bytes(text: &str) -> Option<u64> {
    let digits = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let number: u64 = digits.parse().ok()?;
    let unit = text.get(digits.len()..)?.to_ascii_lowercase();
    let factor = match unit.trim_end_matches('b').trim_end_matches('i') {
        "" => 1,
        "k" => 1 << 10,
        "m" => 1 << 20,
        "g" => 1 << 30,
        _ => return None,
    };
    number.checked_mul(factor)
}

/// Reads `60`, `60s`, `500ms`, `5m`, `1h`; a number alone counts `unit`s of milliseconds.
pub(super) fn milliseconds(text: &str, unit: u64) -> Option<u64> {
    let digits = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let number: u64 = digits.parse().ok()?;
    let factor = match text.get(digits.len()..)? {
        "" => unit,
        "ms" => 1,
        "s" => 1000,
        "m" | "min" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    number.checked_mul(factor)
}
