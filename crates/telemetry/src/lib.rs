//! What a process tells of itself while it works: logs, and where they belong.
//!
//! ```text
//!   tracing::warn!(…) ──► filter (changed at run time) ──► lines ──► standard error: JSON, or for people on a terminal
//!                                                            ▲
//!                                   the trace and the order of what this thread is at (Scope)
//! ```
//!
//! | file       | what it is                                                            |
//! |------------|------------------------------------------------------------------------|
//! | `logs.rs`  | the filter, how it is changed, what is never written                  |
//! | `line.rs`  | an event as a line                                                    |
//! | `scope.rs` | what a thread is at: a trace, an order                                |
//! | `traces/`  | spans, and where they go                                              |
//! | `ids.rs`   | ids of traces and spans, and the W3C's `traceparent`                  |

mod ids;
mod line;
pub mod logs;
mod scope;
pub mod traces;

pub use ids::{SpanId, TraceContext, TraceId};
pub use scope::Scope;
