//! The grammar of names of rotated logs: `{name}.%Y%m%d-%H%M%S`. A name that was made can be recognised, so that only what
//! was rotated is ever deleted.

use std::fmt;

/// Pattern of the names of rotated logs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackupName(Vec<Piece>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    /// Name of the log.
    Name,
    /// The same without its extension.
    Stem,
    /// The extension with its dot, or nothing.
    Extension,
    /// A part of the time, by its letter in `strftime`.
    Time(char),
}

/// Fault of the user in a pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NameError {
    /// It names a directory.
    Directory,
    /// It names no log.
    NoName,
    /// It is the name of the log itself.
    OwnName,
    /// It looks as if it were compressed.
    Compressed,
    /// Something in it has no meaning.
    Unknown(String),
}

impl fmt::Display for NameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NameError::Directory => f.write_str("has a /: rotated files stay in the directory of the log"),
            NameError::NoName => f.write_str("must contain {name} or {stem}, the name of the log"),
            NameError::OwnName => f.write_str("is the name of the log itself; add a date such as %Y%m%d"),
            NameError::Compressed => f.write_str("must not end in .gz; log_rotate_gzip compresses"),
            NameError::Unknown(what) => write!(
                f,
                "has {what:?}, which means nothing: there are {{name}}, {{stem}}, {{extension}}, %Y, %m, %d, %H, %M, %S and %%"
            ),
        }
    }
}

/// Time and number of a rotated file: the smallest is the oldest.
pub type Age = (String, u64);

impl Default for BackupName {
    fn default() -> Self {
        let time = |letters: &str| letters.chars().map(Piece::Time).collect::<Vec<_>>();
        let text = |text: &str| vec![Piece::Text(text.to_owned())];
        BackupName([vec![Piece::Name], text("."), time("Ymd"), text("-"), time("HMS")].concat())
    }
}

impl BackupName {
    /// Reads a pattern.
    ///
    /// Errors: what is wrong with it.
    pub fn read(pattern: &str) -> Result<BackupName, NameError> {
        let mut pieces = Vec::new();
        let mut rest = pattern;
        while let Some(at) = rest.find(['%', '{']) {
            let (text, special) = rest.split_at(at);
            push_text(&mut pieces, text);
            let (piece, after) = special_piece(special)?;
            match piece {
                Piece::Text(text) => push_text(&mut pieces, &text),
                piece => pieces.push(piece),
            }
            rest = after;
        }
        push_text(&mut pieces, rest);
        let is_there = |wanted: &Piece| pieces.contains(wanted);
        if pattern.contains('/') {
            Err(NameError::Directory)
        } else if !is_there(&Piece::Name) && !is_there(&Piece::Stem) {
            Err(NameError::NoName)
        } else if matches!(pieces.as_slice(), [Piece::Name] | [Piece::Stem] | [Piece::Stem, Piece::Extension])
        {
            Err(NameError::OwnName)
        } else if pattern.ends_with(".gz") {
            Err(NameError::Compressed)
        } else {
            Ok(BackupName(pieces))
        }
    }

    /// Makes the name of a log called `own`. `time` returns the digits of a part of the time.
    pub fn make(&self, own: &str, time: impl Fn(char) -> String) -> String {
        let (stem, extension) = parts(own);
        self.0
            .iter()
            .map(|piece| match piece {
                Piece::Text(text) => text.clone(),
                Piece::Name => own.to_owned(),
                Piece::Stem => stem.to_owned(),
                Piece::Extension => extension.to_owned(),
                Piece::Time(letter) => time(*letter),
            })
            .collect()
    }

    /// Returns the age that a name of this pattern says; `None` for the name of anything else.
    pub fn age(&self, own: &str, name: &str) -> Option<Age> {
        let (stem, extension) = parts(own);
        let mut rest = name;
        let mut times = Vec::new();
        for piece in &self.0 {
            rest = match piece {
                Piece::Text(text) => rest.strip_prefix(text.as_str())?,
                Piece::Name => rest.strip_prefix(own)?,
                Piece::Stem => rest.strip_prefix(stem)?,
                Piece::Extension => rest.strip_prefix(extension)?,
                Piece::Time(letter) => {
                    let (digits, after) = rest.split_at_checked(if *letter == 'Y' { 4 } else { 2 })?;
                    if !digits.bytes().all(|digit| digit.is_ascii_digit()) {
                        return None;
                    }
                    times.push((PARTS.find(*letter)?, digits));
                    after
                }
            };
        }
        times.sort_unstable();
        let time = times.into_iter().map(|(_, digits)| digits).collect();
        match rest.strip_prefix('.') {
            None if rest.is_empty() => Some((time, 0)),
            Some(number) if number.bytes().all(|digit| digit.is_ascii_digit()) => {
                Some((time, number.parse().ok()?))
            }
            _ => None,
        }
    }
}

/// Parts of the time, the largest first.
const PARTS: &str = "YmdHMS";

fn special_piece(text: &str) -> Result<(Piece, &str), NameError> {
    for (name, piece) in [("{name}", Piece::Name), ("{stem}", Piece::Stem), ("{extension}", Piece::Extension)]
    {
        if let Some(after) = text.strip_prefix(name) {
            return Ok((piece, after));
        }
    }
    let mut characters = text.chars();
    match (characters.next(), characters.next()) {
        (Some('%'), Some('%')) => Ok((Piece::Text("%".to_owned()), characters.as_str())),
        (Some('%'), Some(letter)) if PARTS.contains(letter) => Ok((Piece::Time(letter), characters.as_str())),
        _ => Err(NameError::Unknown(text.chars().take(if text.starts_with('%') { 2 } else { 12 }).collect())),
    }
}

fn push_text(pieces: &mut Vec<Piece>, text: &str) {
    match pieces.last_mut() {
        _ if text.is_empty() => {}
        Some(Piece::Text(last)) => last.push_str(text),
        _ => pieces.push(Piece::Text(text.to_owned())),
    }
}

/// A name without its extension, and that with its dot.
fn parts(name: &str) -> (&str, &str) {
    match name.rfind('.') {
        Some(at) if at > 0 => name.split_at(at),
        _ => (name, ""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at_midnight(letter: char) -> String {
        match letter {
            'Y' => "2025".to_owned(),
            'm' => "12".to_owned(),
            'd' => "31".to_owned(),
            _ => "00".to_owned(),
        }
    }

    #[test]
    fn names_that_were_made_are_recognised() {
        for (pattern, own, name, age) in [
            ("{name}.%Y%m%d-%H%M%S", "a.log", "a.log.20251231-000000", "20251231000000"),
            ("{stem}-%Y-%m-%d{extension}", "a.log", "a-2025-12-31.log", "20251231"),
            ("{stem}_%d.%m.%Y{extension}", "log", "log_31.12.2025", "20251231"),
            ("{name}.old", "a.log", "a.log.old", ""),
            ("100%%{name}%Y", "a.log", "100%a.log2025", "2025"),
        ] {
            let read = BackupName::read(pattern).unwrap();
            assert_eq!(read.make(own, at_midnight), name);
            assert_eq!(read.age(own, name), Some((age.to_owned(), 0)), "{pattern}");
            assert_eq!(read.age(own, &format!("{name}.12")), Some((age.to_owned(), 12)), "{pattern}");
            for other in [own, "b.log", &format!("{name}x"), &format!("{name}."), &format!("x{name}"), ""] {
                assert_eq!(read.age(own, other), None, "{pattern} {other}");
            }
        }
        let default = BackupName::read("{name}.%Y%m%d-%H%M%S").unwrap();
        assert_eq!(default, BackupName::default());
        for other in ["a.log.2025-101-000000", "a.log.20250101", "a.log.1", "a.log.\u{e9}0250101-000000"] {
            assert_eq!(default.age("a.log", other), None, "{other}");
        }
    }

    #[test]
    fn names_that_would_be_mistaken_are_refused() {
        for (pattern, error) in [
            ("old/{name}.%Y", NameError::Directory),
            ("%Y%m%d", NameError::NoName),
            ("{name}", NameError::OwnName),
            ("{stem}{extension}", NameError::OwnName),
            ("{name}.gz", NameError::Compressed),
            ("{name}.%s", NameError::Unknown("%s".to_owned())),
            ("{name}%", NameError::Unknown("%".to_owned())),
            ("{names}", NameError::Unknown("{names}".to_owned())),
        ] {
            assert_eq!(BackupName::read(pattern), Err(error), "{pattern}");
        }
    }
}
