//! Carries what an application returned to its response (PEP 3333, "Handling the Content-Length Header", "Optional
//! Platform-Specific File Handling"): blocks that are all there, blocks one by one, or a file.

use std::os::fd::OwnedFd;

use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::call::Call;
use crate::file_wrapper::{FileRest, FileWrapper};

/// Sends blocks that are all there, from a place on: nothing is gained by sending each as it comes. Returns where to go on
/// when there is room, `None` at the end.
pub(crate) fn blocks<'py>(
    call: &Call,
    count: usize,
    from: usize,
    block: impl Fn(usize) -> PyResult<Bound<'py, PyAny>>,
) -> PyResult<Option<usize>> {
    if from == 0 {
        call.start_before(Some(length(count, &block)?), || first(count, &block))?;
    }
    for index in from..count {
        if index > 0 && !call.has_room() {
            return Ok(Some(index));
        }
        call.write(bytes(&block(index)?)?)?;
    }
    Ok(None)
}

/// Bytes of all blocks together.
pub(crate) fn length<'py>(
    count: usize,
    block: &impl Fn(usize) -> PyResult<Bound<'py, PyAny>>,
) -> PyResult<u64> {
    let mut total = 0;
    for index in 0..count {
        total += bytes(&block(index)?)?.as_bytes().len() as u64;
    }
    Ok(total)
}

/// The beginning of the first block that is not empty.
pub(crate) fn first<'py>(
    count: usize,
    block: &impl Fn(usize) -> PyResult<Bound<'py, PyAny>>,
) -> PyResult<[u8; FIRST_BYTES]> {
    let mut first = [0; FIRST_BYTES];
    for index in 0..count {
        let block = block(index)?;
        let bytes = bytes(&block)?.as_bytes();
        if !bytes.is_empty() {
            first.iter_mut().zip(bytes).for_each(|(place, &byte)| *place = byte);
            break;
        }
    }
    Ok(first)
}

/// Bytes that tell how a body begins.
const FIRST_BYTES: usize = 24;

/// Sends each block as the application yields it. `anygate.greenlets` has the same loop for its calls.
pub(crate) fn deliver(call: &Call, iterable: &Bound<'_, PyAny>) -> PyResult<()> {
    if send_file(call, iterable)? {
        return Ok(());
    }
    let mut first = true;
    for block in iterable.try_iter()? {
        let block = block?;
        let block = bytes(&block)?;
        // PEP 3333: "if the server [...] knows that len(iterable) is 1, then it can compute the length".
        if !call.block(block, first && iterable.len().is_ok_and(|count| count == 1))? {
            break;
        }
        first &= block.as_bytes().is_empty();
    }
    call.start(Some(0), &[])
}

/// Sends what the application returned if it is a file that the kernel can send; says whether it was.
pub(crate) fn send_file(call: &Call, iterable: &Bound<'_, PyAny>) -> PyResult<bool> {
    let py = iterable.py();
    if let Ok(wrapper) = iterable.cast_exact::<FileWrapper>()
        && let Some(FileRest { file, offset, length }) = wrapper.get().rest(py)?
    {
        let announced = call.content_length();
        call.start(Some(length), &[])?;
        // PEP 3333: transmission ends at the announced length; a file that is shorter makes a broken response.
        let length = announced.map_or(length, |announced| announced.min(length));
        py.detach(|| call.on_response(|response| response.send_file(OwnedFd::from(file), offset, length)))?;
        return Ok(true);
    }
    if iterable.is_instance_of::<PyBytes>() {
        let message = "the application returned bytes; return a list of bytes, such as [body]";
        return Err(PyTypeError::new_err(message));
    }
    Ok(false)
}

/// A block as bytes.
///
/// Errors: TypeError for any other.
pub(crate) fn bytes<'a, 'py>(block: &'a Bound<'py, PyAny>) -> PyResult<&'a Bound<'py, PyBytes>> {
    block.cast::<PyBytes>().map_err(|_| {
        PyTypeError::new_err(format!("the application must yield bytes, not {}", block.get_type()))
    })
}
