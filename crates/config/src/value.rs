//! What the texts of options mean.

use std::time::Duration;

use crate::invalid::Invalid;
use crate::options::Kind;
use crate::units::{duration, duration_or_zero, plain_number, size};

/// A value of one option, of the type that its row says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// Of a flag.
    Flag(bool),
    /// Of a text, choice or path.
    Text(String),
    /// Of a list.
    List(Vec<String>),
    /// Of an integer, a size in bytes, or permission bits.
    Number(u64),
    /// Of a time.
    Duration(Duration),
}

impl Kind {
    /// Reads a value from text, as the command line and the environment give it.
    ///
    /// Errors: what is allowed; the caller knows what was given and where.
    pub fn read(self, text: &str) -> Result<Value, Invalid> {
        match self {
            Kind::Flag => match text.to_ascii_lowercase().as_str() {
                "1" | "true" | "yes" | "on" => Ok(Value::Flag(true)),
                "0" | "false" | "no" | "off" => Ok(Value::Flag(false)),
                _ => Err(Invalid::Kind(self)),
            },
            Kind::Text | Kind::Path => Ok(Value::Text(text.to_owned())),
            Kind::Choice(words) if words.contains(&text) => Ok(Value::Text(text.to_owned())),
            Kind::Choice(_) => Err(Invalid::Kind(self)),
            Kind::List => Ok(Value::List(
                text.split(',').map(str::trim).filter(|item| !item.is_empty()).map(str::to_owned).collect(),
            )),
            Kind::Integer { min, max } => in_range(plain_number(text), min, max).ok_or(Invalid::Kind(self)),
            Kind::AutoInteger { .. } | Kind::AutoSize { .. } if text == "auto" => {
                Ok(Value::Text(text.to_owned()))
            }
            Kind::AutoInteger { min, max } => {
                in_range(plain_number(text), min, max).ok_or(Invalid::Kind(self))
            }
            Kind::AutoSize { max } => in_range(size(text), 0, max).ok_or(Invalid::Kind(self)),
            Kind::Size { min, max } => in_range(size(text), min, max).ok_or(Invalid::Kind(self)),
            Kind::Duration => duration(text).map(Value::Duration).ok_or(Invalid::Kind(self)),
            Kind::TimeLimit => duration_or_zero(text).map(Value::Duration).ok_or(Invalid::Kind(self)),
            Kind::Mode => u64::from_str_radix(text.strip_prefix("0o").unwrap_or(text), 8)
                .ok()
                .filter(|&mode| mode <= 0o7777 && !text.starts_with('+'))
                .map(Value::Number)
                .ok_or(Invalid::Kind(self)),
        }
    }
}

fn in_range(number: Option<u64>, min: u64, max: u64) -> Option<Value> {
    number.filter(|number| (min..=max).contains(number)).map(Value::Number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_octal() {
        assert_eq!(Kind::Mode.read("660"), Ok(Value::Number(0o660)));
        assert_eq!(Kind::Mode.read("0o022"), Ok(Value::Number(0o022)));
        for bad in ["", "9", "u+x", "+660", "77777"] {
            assert!(Kind::Mode.read(bad).is_err(), "{bad}");
        }
    }
}
