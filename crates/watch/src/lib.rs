//! What a person who watches sees: a page, `settle top`, and the figures behind both.
//!
//! ```text
//!   texts of /metrics ──► openmetrics ──► figures ──► Collector (each second: rates, percentiles, marks) ──► Snapshot ──► verdict
//!     in process, or over HTTP (scrape)                 keeps ten minutes of points                            │
//!                                                                                                              ├─► GET /dashboard/snapshot
//!                                              Watch: a thread of its own, once a second ──────────────────────┼─► GET /dashboard/events
//!                                                                                                              └─► settle top
//!   page/{index.html, style.css, *.js} ── include_str! ──► GET /, GET /dashboard/{file}
//! ```
//!
//! It knows nothing of the insides of a shop. It reads the very figures that processes export, so that the page, `settle top` and Prometheus
//! cannot disagree.
//!
//! | file             | what it is                                                          |
//! |------------------|---------------------------------------------------------------------|
//! | [`openmetrics`]  | the text format of metrics, read                                    |
//! | [`figures`]      | what of it is of interest here                                      |
//! | [`counters`]     | counters that begin anew when their process does; rates out of them |
//! | [`percentiles`]  | percentiles out of the buckets of histograms                        |
//! | [`snapshot`]     | what is known of a system at one moment                             |
//! | [`verdict`]      | whether all is well, in a sentence: a table, a pure function        |
//! | [`marks`]        | what happened: an instance is gone, the protocol changed            |
//! | [`words`]        | numbers as people read them                                         |
//! | [`collector`]    | one look after the other, made into snapshots                       |
//! | [`diary`]        | what was seen, in a file, for the next process                      |
//! | [`notes`]        | what others say that they do here, such as `settle chaos`           |
//! | [`watcher`]      | the thread that looks once a second, and who listens                |
//! | [`scrape`]       | asks another process over HTTP                                      |
//! | [`http`]         | the routes                                                          |
//! | [`assets`]       | the files of the page                                               |
//! | [`limits`]       | every maximum                                                       |

pub mod assets;
pub mod collector;
pub mod counters;
pub mod diary;
pub mod figures;
pub mod http;
pub mod limits;
pub mod marks;
pub mod notes;
pub mod openmetrics;
pub mod percentiles;
pub mod scrape;
pub mod snapshot;
pub mod verdict;
pub mod watcher;
pub mod words;

pub use collector::{Collector, Seen};
pub use diary::Diary;
pub use http::OperatorsOf;
pub use notes::Notes;
pub use snapshot::{Allowed, Answers, Kind, Operators, Snapshot, State};
pub use watcher::{About, Source, Watch, Watching};
