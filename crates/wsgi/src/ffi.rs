//! The only unsafe code of the bridge.

use std::fs::File;
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, RawFd};
use std::ptr::NonNull;

use anygate_lock::Mutex;
use anygate_proto::application::Response;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::string::PyStringData;
use pyo3::types::{PyBytes, PyDict, PyString};

/// Copies up to this size are made without letting other threads run.
const COPY_BYTES: usize = 128 * 1024;

/// Bytes as Python's "native string" of PEP 3333: each byte is the character of that number (ISO-8859-1).
///
/// Errors: out of memory.
pub fn latin1<'py>(py: Python<'py>, bytes: &[u8]) -> PyResult<Bound<'py, PyString>> {
    let length = ffi::Py_ssize_t::try_from(bytes.len())?;
    if bytes.len() < 2 {
        // SAFETY: the pointer and length are of one slice, which is only read; NULL asks for strict errors, which Latin-1
        // has none of. The interpreter has all strings of one character, and makes no second one.
        let text = unsafe { ffi::PyUnicode_DecodeLatin1(bytes.as_ptr().cast(), length, std::ptr::null()) };
        // SAFETY: the call gives a new reference, or NULL with an exception set.
        let text = unsafe { Bound::from_owned_ptr_or_err(py, text) }?;
        return Ok(text.cast_into()?);
    }
    // The call above would look at each byte by itself.
    let highest = if bytes.is_ascii() { 0x7f } else { 0xff };
    // SAFETY: the calling thread is attached, as the argument proves; a string of a highest character below U+0100 has one
    // byte for each.
    let text = unsafe { ffi::PyUnicode_New(length, highest) };
    // SAFETY: the call gives a new reference, or NULL with an exception set.
    let text = unsafe { Bound::from_owned_ptr_or_err(py, text) }?;
    // SAFETY: it is a string.
    let place = unsafe { ffi::PyUnicode_DATA(text.as_ptr()) };
    // SAFETY: it has so many bytes, and nothing else knows of it before this function returns. What is copied does not
    // overlap with a new object.
    unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), place.cast(), bytes.len()) };
    Ok(text.cast_into()?)
}

/// Puts a value into a dictionary unless there is one under that key, which is returned then.
///
/// Errors: out of memory, or the key cannot be looked up.
pub(crate) fn set_default<'py>(
    dict: &Bound<'py, PyDict>,
    key: &Py<PyString>,
    value: &Bound<'py, PyString>,
) -> PyResult<Option<Bound<'py, PyAny>>> {
    let before = dict.len();
    // SAFETY: all are live objects, and the first is a dictionary.
    let found = unsafe { ffi::PyDict_SetDefault(dict.as_ptr(), key.as_ptr(), value.as_ptr()) };
    // SAFETY: the call gives a reference that is the dictionary's, or NULL with an exception set.
    let found = unsafe { Bound::from_borrowed_ptr_or_err(dict.py(), found) }?;
    // The one that there was may be the same object, as all strings of one character are.
    Ok((dict.len() == before).then_some(found))
}

/// The bytes of a native string; `None` when a character is above U+00FF.
pub fn latin1_bytes<'a>(text: &'a Bound<'_, PyString>) -> Option<&'a [u8]> {
    // SAFETY: the interpreters that we build for keep the layout that this relies on (it is tested below), and a string
    // never changes. A string is kept in the narrowest form, so only Latin-1 text has one byte a character.
    match unsafe { text.data() } {
        Ok(PyStringData::Ucs1(bytes)) => Some(bytes),
        _ => None,
    }
}

/// A copy of `bytes`. Other threads run while a long one is made.
///
/// Errors: out of memory.
pub(crate) fn bytes<'py>(py: Python<'py>, bytes: &[u8]) -> PyResult<Bound<'py, PyBytes>> {
    if bytes.len() <= COPY_BYTES {
        return Ok(PyBytes::new(py, bytes));
    }
    let length = ffi::Py_ssize_t::try_from(bytes.len())?;
    // SAFETY: NULL asks for an object whose bytes are not set.
    let made = unsafe { ffi::PyBytes_FromStringAndSize(std::ptr::null(), length) };
    // SAFETY: the call gives a new reference, or NULL with an exception set.
    let made = unsafe { Bound::from_owned_ptr_or_err(py, made) }?;
    // SAFETY: it is a bytes object.
    let place = unsafe { ffi::PyBytes_AsString(made.as_ptr()) };
    // SAFETY: the object has so many bytes, and nothing else knows of it before this function returns.
    let place = unsafe { std::slice::from_raw_parts_mut(place.cast::<MaybeUninit<u8>>(), bytes.len()) };
    py.detach(|| {
        // SAFETY: both have the same length, and a new object does not overlap with what is copied.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), place.as_mut_ptr().cast(), bytes.len()) };
    });
    Ok(made.cast_into()?)
}

/// Another owner for the open file that `fd` names.
pub(crate) fn duplicate(fd: RawFd) -> Option<File> {
    if fd < 0 {
        return None;
    }
    // SAFETY: the borrow ends with this function; a number that names no open file makes the call fail, and nothing is
    // closed by a borrow.
    let borrowed = unsafe { BorrowedFd::borrow_raw(fd) };
    borrowed.try_clone_to_owned().ok().map(File::from)
}

type ErasedResponse = NonNull<dyn Response + Send>;

/// A response that Python objects may use as long as its call lasts: `write()` is an object that an application can
/// keep, but the response it writes to lives on the stack of an app thread.
#[derive(Default)]
pub(crate) struct Loan(Mutex<Option<Lent>>);

struct Lent(ErasedResponse);

// SAFETY: the response is `Send`, and the mutex around the pointer lets one thread at a time use it.
unsafe impl Send for Lent {}

/// Ends the loan however the work ends.
struct EndOfLoan<'a>(&'a Loan);

impl Drop for EndOfLoan<'_> {
    fn drop(&mut self) {
        *self.0.0.lock() = None;
    }
}

impl Loan {
    /// Lends `response` while `work` runs. When it has returned the response is not used any more.
    ///
    /// A caller of [`with`](Self::with) must not wait for the interpreter inside it, since the end of the loan waits
    /// for them while it is attached.
    pub(crate) fn during<R>(&self, response: &mut (dyn Response + Send), work: impl FnOnce() -> R) -> R {
        // SAFETY: only the lifetime changes. The pointer is used by `with` alone, under the mutex, and is gone before
        // this function returns or unwinds (`EndOfLoan`), that is before the borrow of `response` ends.
        let erased = unsafe {
            std::mem::transmute::<NonNull<dyn Response + Send + '_>, ErasedResponse>(NonNull::from(response))
        };
        *self.0.lock() = Some(Lent(erased));
        let _end = EndOfLoan(self);
        work()
    }

    /// Uses the response; `None` when its call is over.
    pub(crate) fn with<R>(&self, work: impl FnOnce(&mut (dyn Response + Send)) -> R) -> Option<R> {
        let mut lent = self.0.lock();
        let lent = lent.as_mut()?;
        // SAFETY: `during` has not ended, since that takes the mutex which we hold, so the response is alive; and the
        // mutex makes this the only reference.
        Some(work(unsafe { lent.0.as_mut() }))
    }
}

/// Whether `object` is a generator of Python's own.
pub(crate) fn is_generator(object: &Bound<'_, PyAny>) -> bool {
    // SAFETY: the pointer is that of a live object, whose type is looked at.
    unsafe { ffi::PyGen_CheckExact(object.as_ptr()) != 0 }
}

/// A context for context variables, which the calling thread is in while this lives.
pub(crate) struct Context<'py>(Bound<'py, PyAny>);

impl<'py> Context<'py> {
    /// Enters a new one, in which no variable is set.
    ///
    /// Errors: out of memory.
    pub(crate) fn enter(py: Python<'py>) -> PyResult<Self> {
        // SAFETY: the calling thread is attached, as the argument proves.
        let context = unsafe { ffi::PyContext_New() };
        // SAFETY: the call gives a new reference, or NULL with an exception set.
        let context = unsafe { Bound::from_owned_ptr_or_err(py, context) }?;
        // SAFETY: it is a context, and no thread is in it.
        if unsafe { ffi::PyContext_Enter(context.as_ptr()) } != 0 {
            return Err(PyErr::fetch(py));
        }
        Ok(Context(context))
    }
}

impl Drop for Context<'_> {
    fn drop(&mut self) {
        // SAFETY: it is a context. One that is not the thread's current one, because the application has entered another for
        // good, makes the call fail.
        if unsafe { ffi::PyContext_Exit(self.0.as_ptr()) } != 0 {
            let error = PyErr::fetch(self.0.py());
            tracing::warn!("the application has left a context entered at the end of a request: {error}");
        }
    }
}

/// Python's identifier of a thread.
pub type ThreadNumber = std::ffi::c_ulong;

/// The calling thread's number, as Python's own modules know it.
pub fn thread(_py: Python<'_>) -> ThreadNumber {
    // SAFETY: the call has no conditions; the calling thread is attached anyway.
    unsafe { ffi::PyThread_get_thread_ident() }
}

/// Has `exception`, a class, raised in a thread when it next runs Python; `None` takes back what has not been raised.
/// Nothing happens if there is no such thread.
pub fn raise_in_thread(_py: Python<'_>, thread: ThreadNumber, exception: Option<&Bound<'_, PyAny>>) {
    let exception = exception.map_or(std::ptr::null_mut(), Bound::as_ptr);
    let Ok(thread) = std::ffi::c_long::try_from(thread) else { return };
    // SAFETY: the calling thread is attached, as the argument proves; the class is borrowed for the call, which keeps a
    // reference of its own, and NULL is what takes an exception back.
    unsafe { ffi::PyThreadState_SetAsyncExc(thread, exception) };
}

/// What the interpreter must do around a fork of its process. Called by the thread that forks, attached throughout.
pub fn before_fork(_py: Python<'_>) {
    // SAFETY: the calling thread is attached, as the argument proves.
    unsafe { ffi::PyOS_BeforeFork() }
}

/// See [`before_fork`]; in the old process, also when the fork failed.
pub fn after_fork_in_parent(_py: Python<'_>) {
    // SAFETY: as above; this thread called `before_fork`.
    unsafe { ffi::PyOS_AfterFork_Parent() }
}

/// See [`before_fork`]; in the new process.
pub fn after_fork_in_child(_py: Python<'_>) {
    // SAFETY: as above; this is the thread that forked, the only one that the child has.
    unsafe { ffi::PyOS_AfterFork_Child() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn native_strings_are_bytes_and_back() {
        Python::initialize();
        Python::attach(|py| {
            let all: Vec<u8> = (0..=255).collect();
            for bytes in [&b""[..], b"a", b"\xe9", b"GET", b"\xe9a", &all] {
                let text = latin1(py, bytes).unwrap();
                assert_eq!(latin1_bytes(&text), Some(bytes));
            }
            assert_eq!(latin1_bytes(&PyString::new(py, "a\u{100}")), None);
            assert_eq!(latin1_bytes(&PyString::new(py, "\u{1f600}")), None);
        });
    }

    #[test]
    fn copies_of_all_lengths_are_equal() {
        Python::initialize();
        Python::attach(|py| {
            for length in [0, 1, COPY_BYTES, COPY_BYTES + 1, 1 << 20] {
                let original: Vec<u8> = (0..=255).cycle().take(length).collect();
                assert!(bytes(py, &original).unwrap().as_bytes() == original);
            }
        });
    }

    #[test]
    fn descriptors_that_are_not_open_have_no_owner() {
        assert!(duplicate(-1).is_none());
        assert!(duplicate(1_000_000).is_none());
        assert!(duplicate(0).is_some() || duplicate(1).is_some() || duplicate(2).is_some());
    }
}
