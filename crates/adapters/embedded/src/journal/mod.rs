//! journal docs
pub(crate) mod format;
pub(crate) mod reader;
pub(crate) mod writer;

/// A segment's file name.
pub(crate) fn segment_file(first: u64) -> String {
    format!("journal-{first:020}.seg")
}
