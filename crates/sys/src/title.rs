//! What `ps` and `top` call this process: the text of its command line (/proc/PID/cmdline), which lies in its own memory, and
//! its name of at most 15 bytes (/proc/PID/comm).

use std::ffi::CString;
use std::io;

use crate::os::title as os;

/// The longest name (PR_SET_NAME, prctl(2)).
const NAME_MAX: usize = 15;

/// Calls this process `name: role`, and for a short name `name-short`. A title that is longer than the command line was is cut.
///
/// Errors: the system refuses the short name.
pub fn set(name: &str, role: &str, short: &str) -> io::Result<()> {
    os::write(format!("{name}: {role}").as_bytes());
    let text = short_name(name, short);
    os::set_short(&text)
}

/// The short name: of the first part as much as there is room for.
fn short_name(name: &str, short: &str) -> CString {
    let behind = if short.is_empty() { String::new() } else { format!("-{short}") };
    let mut end = NAME_MAX.saturating_sub(behind.len()).min(name.len());
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    let text = format!("{}{behind}", name.get(..end).unwrap_or_default());
    CString::new(text.replace('\0', "")).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_name_keeps_the_role() {
        for (name, role, short) in [
            ("anygate", "", "anygate"),
            ("anygate", "w2", "anygate-w2"),
            ("anygate", "template", "anygat-template"),
            ("a-very-long-name-indeed", "assistant", "a-ver-assistant"),
            ("ééééééééé", "w2", "éééééé-w2"),
        ] {
            assert_eq!(short_name(name, role).to_str(), Ok(short));
        }
    }
}
