//! Sizes and times as people write them.

use std::time::Duration;

pub(crate) fn plain_number(text: &str) -> Option<u64> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

pub(crate) fn size(text: &str) -> Option<u64> {
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

pub(crate) fn duration(text: &str) -> Option<Duration> {
    duration_or_zero(text).filter(|duration| !duration.is_zero())
}

pub(crate) fn duration_or_zero(text: &str) -> Option<Duration> {
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
pub(crate) fn show_size(bytes: u64) -> String {
    for (unit, shift) in [("T", 40), ("G", 30), ("M", 20), ("K", 10)] {
        if bytes >= 1 << shift && bytes.is_multiple_of(1 << shift) {
            return format!("{}{unit}", bytes >> shift);
        }
    }
    bytes.to_string()
}

/// A time as a person would write it.
pub(crate) fn show_duration(duration: Duration) -> String {
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
}
