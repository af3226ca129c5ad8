//! Folders whose changes are reported.

use std::ffi::OsString;

pub use crate::os::folders::Folders;

/// Number of a folder that is watched. A folder that is watched again, by whatever path, keeps its number.
pub type FolderId = i32;

/// Change in a folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A file was written, or put in the place of another.
    File(FolderId, OsString),
    /// A folder was made or moved there.
    Folder(FolderId, OsString),
    /// The folder is watched no more: it was removed.
    Gone(FolderId),
    /// There were too many changes to report all of them.
    Overflow,
}
