//! The name of the calling thread, which Linux shows as that of the process. The text of the command line stays as it is.

use std::ffi::CStr;
use std::io;

/// Sets the short name.
pub(crate) fn set_short(name: &CStr) -> io::Result<()> {
    #[cfg(target_vendor = "apple")]
    // SAFETY: the name ends with NUL, and outlives the call.
    let failed = unsafe { libc::pthread_setname_np(name.as_ptr()) };
    #[cfg(not(target_vendor = "apple"))]
    let failed = {
        let bytes = name.to_bytes();
        let bytes = bytes.get(..NAME_MAX).unwrap_or(bytes);
        let name = std::ffi::CString::new(bytes)?;
        // SAFETY: takes nothing.
        let own = unsafe { libc::pthread_self() };
        // SAFETY: the thread is the calling one; the name ends with NUL, and outlives the call.
        unsafe { libc::pthread_setname_np(own, name.as_ptr()) }
    };
    if failed == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(failed)) }
}

/// Longest name that the C library takes (pthread_setname_np(3)).
#[cfg(not(target_vendor = "apple"))]
const NAME_MAX: usize = 15;

/// The text of the command line stays as it is.
pub(crate) fn write(_title: &[u8]) {}
