//! One response in steps, for an application that another server calls with something of ours in between. Python calls the
//! application and gives here what comes back, for the reason that is said of [`greenlets`](crate::greenlets): such
//! servers have greenlets, too.

use std::sync::Arc;

use pyo3::prelude::*;
use pyo3::types::{PyList, PyTuple};

use crate::call::{Call, Lender};
use crate::delivery::{bytes, first, length};
use crate::file_wrapper::FileWrapper;
use crate::start_response::begin;

/// One response of an application.
pub struct Steps(Call);

impl Steps {
    /// A response into a response that `lender` has.
    pub fn new(lender: Arc<dyn Lender>) -> Steps {
        Steps(Call::lent_by(lender))
    }

    /// What `start_response` does, but for its result.
    pub fn begin(
        &self,
        status: &Bound<'_, PyAny>,
        response_headers: &Bound<'_, PyAny>,
        exc_info: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        begin(&self.0, status, Some(response_headers), exc_info)
    }

    /// Takes what the application gives to `write`.
    pub fn write(&self, data: &Bound<'_, PyAny>) -> PyResult<()> {
        self.0.written(data)
    }

    /// Takes one block. `whole`: it is all of the body.
    pub fn block(&self, block: &Bound<'_, PyAny>, whole: bool) -> PyResult<()> {
        self.0.block(bytes(block)?, whole).map(|_| ())
    }

    /// Takes the blocks of a list or a tuple, unless they are not `wanted` when the head has been given; says whether
    /// they were.
    pub fn blocks(&self, iterable: &Bound<'_, PyAny>, wanted: impl FnOnce() -> bool) -> PyResult<bool> {
        if let Ok(list) = iterable.cast_exact::<PyList>() {
            return self.all(list.len(), |index| list.get_item(index), wanted);
        }
        let tuple = iterable.cast::<PyTuple>()?;
        self.all(tuple.len(), |index| tuple.get_item(index), wanted)
    }

    fn all<'py>(
        &self,
        count: usize,
        block: impl Fn(usize) -> PyResult<Bound<'py, PyAny>>,
        wanted: impl FnOnce() -> bool,
    ) -> PyResult<bool> {
        self.0.start_before(Some(length(count, &block)?), || first(count, &block))?;
        if !wanted() {
            return Ok(false);
        }
        for index in 0..count {
            self.0.write(bytes(&block(index)?)?)?;
        }
        Ok(true)
    }

    /// Takes the head of a response that is a file, if the application has set it; returns the file's length, if that is known.
    pub fn file(&self, file: &Bound<'_, FileWrapper>) -> PyResult<Option<u64>> {
        let length = file.get().rest(file.py())?.map(|rest| rest.length);
        if self.0.has_head() {
            self.0.start(length, &[])?;
        }
        Ok(length)
    }

    /// All blocks were given.
    pub fn end_of_blocks(&self) -> PyResult<()> {
        self.0.start(Some(0), &[])
    }
}
