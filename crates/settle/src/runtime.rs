//! The runtime of a server: so many threads for requests and messages, and none that the work is handed on to for nothing.

use std::io;
use std::num::NonZero;

use tokio::runtime::{Builder, Runtime};

/// The most threads that can be asked for.
pub(crate) const MAX_THREADS: usize = 64;

/// A runtime with so many threads. If it is but one, that is the caller's own: there is no other to be woken.
///
/// # Errors
/// If the operating system has no threads, or no descriptors, to give.
pub(crate) fn of(threads: usize) -> io::Result<Runtime> {
    match threads {
        0 | 1 => Builder::new_current_thread().enable_all().build(),
        several => Builder::new_multi_thread().worker_threads(several).enable_all().build(),
    }
}

/// How many processors there are; 1 if nobody knows.
pub(crate) fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, NonZero::get)
}
