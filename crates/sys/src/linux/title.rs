//! The names of a process where the kernel shows them.

use std::ffi::CStr;
use std::fs;
use std::io;
use std::sync::OnceLock;

/// Where the arguments of this process lie: first address and length.
static ARGUMENTS: OnceLock<Option<(usize, usize)>> = OnceLock::new();

/// Sets the short name.
pub(crate) fn set_short(name: &CStr) -> io::Result<()> {
    Ok(rustix::thread::set_name(name)?)
}

/// Overwrites the arguments, of which each user has a copy: Python's `sys.argv` and `sys.orig_argv`, Rust's
/// `args` as owned strings. The last byte stays zero, so a pointer into them ends there at the latest.
pub(crate) fn write(title: &[u8]) {
    let Some((start, length)) = *ARGUMENTS.get_or_init(find) else { return };
    let room = length.saturating_sub(1);
    for at in 0..room {
        let byte = title.get(at).copied().unwrap_or(0);
        // SAFETY: the kernel says that this process's arguments lie there, on the stack of its first thread, which stays mapped
        // and writable; `at` is inside of them.
        unsafe { std::ptr::with_exposed_provenance_mut::<u8>(start + at).write_volatile(byte) };
    }
}

/// Finds the arguments (arg_start and arg_end of proc_pid_stat(5)), if they lie where they can be written.
fn find() -> Option<(usize, usize)> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    // The name before the last bracket may contain anything; the field behind it is the third.
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace().skip(45);
    let start: usize = fields.next()?.parse().ok()?;
    let end: usize = fields.next()?.parse().ok()?;
    // A tool that runs this program inside of itself, such as valgrind, has its own arguments there, which it still reads.
    // SAFETY: the C library sets it before `main`, and nothing of ours changes it.
    if unsafe { program_invocation_name }.expose_provenance() != start {
        return None;
    }
    let maps = fs::read_to_string("/proc/self/maps").ok()?;
    let is_writable = maps.lines().any(|line| {
        let Some((range, rest)) = line.split_once(' ') else { return false };
        let Some((low, high)) = range.split_once('-') else { return false };
        let address = |text| usize::from_str_radix(text, 16);
        let (Ok(low), Ok(high)) = (address(low), address(high)) else { return false };
        low <= start && end <= high && rest.starts_with("rw")
    });
    (is_writable && start < end).then(|| (start, end - start))
}

unsafe extern "C" {
    /// The first argument of this program, where the C library found it (program_invocation_name(3)).
    static program_invocation_name: *const std::ffi::c_char;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_what_was_set() {
        let before = fs::read("/proc/self/cmdline").unwrap();
        write(b"it: works");
        let title = fs::read("/proc/self/cmdline").unwrap();
        assert_eq!((title.starts_with(b"it: works\0"), title.len()), (true, before.len()));
        write(&[b'x'; 1 << 16]);
        let cut = fs::read("/proc/self/cmdline").unwrap();
        assert_eq!((cut.len(), cut.last()), (before.len(), Some(&0)));
        write(&before);
    }
}
