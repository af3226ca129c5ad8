//! What the texts of options mean.

use std::time::Duration;

use crate::options::Kind;

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
    /// Errors: a sentence that says what is allowed; the caller knows what was given and where.
    pub fn read(self, text: &str) -> Result<Value, String> {
        match self {
            Kind::Flag => match text.to_ascii_lowercase().as_str() {
                "1" | "true" | "yes" | "on" => Ok(Value::Flag(true)),
                "0" | "false" | "no" | "off" => Ok(Value::Flag(false)),
                _ => Err("must be true or false".to_owned()),
            },
            Kind::Text | Kind::Path => Ok(Value::Text(text.to_owned())),
            Kind::Choice(words) if words.contains(&text) => Ok(Value::Text(text.to_owned())),
            Kind::Choice(words) => Err(format!("must be one of {}", words.join(", "))),
            Kind::List => Ok(Value::List(
                text.split(',').map(str::trim).filter(|item| !item.is_empty()).map(str::to_owned).collect(),
            )),
            Kind::Integer { min, max } => {
                let allowed = || format!("must be a whole number from {min} to {max}");
                in_range(plain_number(text).ok_or_else(allowed)?, min, max).ok_or_else(allowed)
            }
            Kind::Size { min, max } => {
                let allowed = || {
                    format!(
                        "must be a size such as 65536, 64K, 1M or 1G, from {} to {}",
                        show_size(min),
                        show_size(max)
                    )
                };
                in_range(size(text).ok_or_else(allowed)?, min, max).ok_or_else(allowed)
            }
            Kind::Duration => duration(text)
                .map(Value::Duration)
                .ok_or_else(|| "must be a time above zero such as 30, 500ms, 30s, 2m or 1h".to_owned()),
            Kind::TimeLimit => duration_or_zero(text)
                .map(Value::Duration)
                .ok_or_else(|| "must be 0 or a time such as 30, 500ms, 30s, 2m or 1h".to_owned()),
            Kind::Mode => u64::from_str_radix(text.strip_prefix("0o").unwrap_or(text), 8)
                .ok()
                .filter(|&mode| mode <= 0o7777 && !text.starts_with('+'))
                .map(Value::Number)
                .ok_or_else(|| "must be permission bits in octal such as 660".to_owned()),
        }
    }
}

fn in_range(number: u64, min: u64, max: u64) -> Option<Value> {
    (min..=max).contains(&number).then_some(Value::Number(number))
}

fn plain_number(text: &str) -> Option<u64> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

fn size(text: &str) -> Option<u64> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kb" | "kib" => 1 << 10,
        "m" | "mb" | "mib" => 1 << 20,
        "g" | "gb" | "gib" => 1 << 30,
        "t" | "tb" | "tib" => 1u64 << 40,
        _ => return None,
    };
    plain_number(number).filter(|_| !number.is_empty())?.checked_mul(factor)
}

fn duration(text: &str) -> Option<Duration> {
    duration_or_zero(text).filter(|duration| !duration.is_zero())
}

fn duration_or_zero(text: &str) -> Option<Duration> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor = match unit.trim() {
        "ms" => 0.001,
        "" | "s" => 1.0,
        "m" | "min" => 60.0,
        "h" => 3600.0,
        "d" => 86400.0,
        _ => return None,
    };
    let number: f64 = number.parse().ok()?;
    // A year is more than any of them can mean.
    Duration::try_from_secs_f64(number * factor).ok().filter(|d| d.as_secs() <= 366 * 86400)
}

/// A size as a person would write it.
pub fn show_size(bytes: u64) -> String {
    for (unit, shift) in [("T", 40), ("G", 30), ("M", 20), ("K", 10)] {
        if bytes >= 1 << shift && bytes.is_multiple_of(1 << shift) {
            return format!("{}{unit}", bytes >> shift);
        }
    }
    bytes.to_string()
}

/// A time as a person would write it.
pub fn show_duration(duration: Duration) -> String {
    match (duration.as_secs(), duration.subsec_millis()) {
        (seconds, 0) => format!("{seconds}s"),
        (_, _) => format!("{}ms", duration.as_millis()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_times_are_read_as_people_write_them() {
        for (text, bytes) in
            [("0", 0), ("17", 17), ("64K", 65536), ("64 kb", 65536), ("1M", 1 << 20), ("2GiB", 2 << 30)]
        {
            assert_eq!(size(text), Some(bytes), "{text}");
        }
        for text in ["", "K", "-1", "+1", "1.5M", "1X", "99999999999999999999", "99999999999T"] {
            assert_eq!(size(text), None, "{text}");
        }
        for (text, millis) in
            [("30", 30_000), ("0.5", 500), ("500ms", 500), ("2m", 120_000), ("1h", 3_600_000)]
        {
            assert_eq!(duration(text), Some(Duration::from_millis(millis)), "{text}");
        }
        for text in ["", "0", "-1", "1x", "s", "1e9", "nan", "inf", "999999d"] {
            assert_eq!(duration(text), None, "{text}");
        }
        assert_eq!(show_size(65536), "64K");
        assert_eq!(show_size(1000), "1000");
        assert_eq!(show_duration(Duration::from_millis(1500)), "1500ms");
    }

    #[test]
    fn modes_are_octal() {
        assert_eq!(Kind::Mode.read("660"), Ok(Value::Number(0o660)));
        assert_eq!(Kind::Mode.read("0o022"), Ok(Value::Number(0o022)));
        for bad in ["", "9", "u+x", "+660", "77777"] {
            assert!(Kind::Mode.read(bad).is_err(), "{bad}");
        }
    }
}
