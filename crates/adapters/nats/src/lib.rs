//! Commands and questions between services that are processes of their own, over NATS.
//!
//! ```text
//!   order instance                          NATS                              stock instance (any number)
//!   ──────────────                          ────                              ───────────────────────────
//!   send ──► pending (bounded, timed) ──► settle.command.stock ──► up to n ──► Participant::handle
//!            ▲     one task sends many     a work queue, or one hop             │ done(reply), on any thread
//!            │     in one message                                               ▼
//!            └──── one inbox, an id each ◄── settle.reply.RANDOM.b ◄────────── replies, then acknowledge
//!
//!   ask ───► pending ───────────────────► settle.question.stock ─────────────► Answerer (one of the instances)
//!                                         settle.at.order-1 ─────────────────► Answerer (that instance)
//! ```
//!
//! [`Nats::connect`] once a process. On the order side, [`Nats::transport`] is an [`orchestrator::Transport`]; on the side of a service
//! [`Nats::serve`] hands commands to an [`orchestrator::Participant`]. [`Nats::ask`] and [`Nats::answer`] carry bytes that this crate does not
//! read.
//!
//! NATS is a way, not a record. Nothing rests on a message having been stored: the transaction log and the ledgers are the records, the coordinator
//! sends again what is not answered, and the barrier makes that harmless.
//!
//! # What happens when
//!
//! | what                                         | commands under way                         | commands that come                        |
//! |----------------------------------------------|--------------------------------------------|-------------------------------------------|
//! | no answer within [`Options::timeout`]        | unknown: timeout; a late answer is counted |                                           |
//! | no connection, a full send queue, too many pending |                                      | unknown: unreachable, at once             |
//! | nobody serves (`Core`)                       |                                            | unknown: unreachable, at once             |
//! | nobody serves (`JetStream`)                  | wait for an instance up to twice the time-out, then thrown away | the same             |
//! | the service's queue is full                  |                                            | unknown: unreachable, at once             |
//! | the participant is slow                      | up to [`Options::in_flight`] at an instance; it tells the server that it is at work | wait in the queue |
//! | the participant panics or forgets to answer  | unknown: its store failed                  |                                           |
//! | an instance dies (`JetStream`)               | to another instance, after [`Options::ack_wait`] | to the others                       |
//! | an instance dies (`Core`)                    | unknown: timeout                           | to the others                             |
//! | the server dies, or restarts                 | unknown; queues in files keep theirs       | unreachable, until it is there again      |
//! | the server stands still                      | unknown: timeout                           | unreachable, after three [`Options::ping`]s |
//! | a stream or consumer is deleted              | unknown                                    | unreachable, until it is made again: by itself, at once in memory, after half a second in files |
//! | a message cannot be read                     | kept as a [`DeadLetter`]; unknown: failed, or timeout if its frame is broken |                                           |
//!
//! A callback is called exactly once, in each of these. *Unknown* is never "no".
//!
//! **Together.** Commands for one service go up to 64 in a message. One that comes while none is under way goes at once; otherwise it waits for
//! an answer, for 64, or for four milliseconds, whichever is first. A commit, for which nobody waits, goes along with what somebody waits for, or after
//! ten milliseconds. Each stands behind its length, so one that cannot be read does not concern its
//! neighbours. Replies go together as well, those that are there: a slow command does not hold the others' up.
//!
//! **Acknowledged last.** A message is acknowledged after the participant's last callback, so after its work is durable, behind the replies. **A dead
//! letter** is acknowledged when its stream (`settle-dead`, in files, the latest 10,000 for 30 days) has acknowledged it; until then it comes
//! again, as long as its queue keeps it. Without JetStream only [`Options::on_dead_letter`] and the log have it.
//!
//! **Nothing is deduplicated on the way of a command.** A retry is byte for byte the command that it repeats, and it must get through: the
//! first one's answer may be lost. A doubled command costs one look into the barrier. Dead letters do carry a `Nats-Msg-Id`, made
//! of the message's stream, place and time: one that is given out twice is kept once.
//!
//! **Old commands.** What waits in the client library when a connection ends is sent on the next one; what a frozen instance had taken
//! is carried out when it wakes. The barrier knows what became of those branches: a late `Prepare` finds its branch aborted, or forgotten.
//!
//! **Rolling updates.** Every message begins with a version. One that is unknown is a dead letter that names it.
//!
//! # Which mode
//!
//! | | [`Mode::Core`] | [`Mode::JetStream`] in memory | [`Mode::JetStream`] in files |
//! |---|---|---|---|
//! | needs | any NATS server | JetStream | JetStream and a disk |
//! | while no instance serves | turned away at once: checkouts fail fast | commands wait a second or two: a restart of a service costs no checkout | the same |
//! | an instance takes what it can do | no: the server picks one at random | yes: it asks for as many as it has room for | yes |
//! | a restart of the server | loses what is under way | loses what is under way | keeps what is in the queue |
//! | replicas | | 1 to 5 | 1 to 5 |
//!
//! `Core` when every microsecond counts and instances are alike. `JetStream` in memory, the default, when instances come and go. In files: only
//! if the servers restart often; it makes nothing safer.
//!
//! Measured with `cargo run --release -p settle-nats --example measure`: both ends and nats-server 2.9 on one machine of two processors that
//! was busy with other work too, with one command in each message, as a lone caller's are. The ratios carry over, the figures do not: with many under
//! way, many go in a message now. Commands a second (and the median in µs):
//!
//! | under way | core           | JetStream in memory | JetStream in files |
//! |-----------|----------------|---------------------|--------------------|
//! | 1         | 12,700 (70)    | 5,300 (143)         | 3,900 (223)        |
//! | 16        | 73,800 (192)   | 24,500 (541)        | 18,700 (680)       |
//! | 64        | 91,200 (616)   | 35,600 (1,528)      | 28,300 (1,980)     |
//! | 256       | 143,300 (1,567) | 43,000 (5,497)     | 29,500 (8,139)     |
//!
//! In the whole system, where commands go together and the databases cost most, the mode makes little difference: with `Core` a checkout took 0.96 of
//! the processor time of all processes that it took with `JetStream` in memory, at 16 connections and at 64, which is within the noise.
//!
//! A publisher that waits for the server's word on each command before the next gets 18,000 to 21,000 of them in a second, alone, and
//! 60,000 to 100,000 with 64 of its kind; one that does not wait gets 300,000 to 400,000 in. The transport does not wait: the server's word comes to the
//! inbox by itself.
//!
//! # Traces
//!
//! With [`Options::tracing`] the W3C's `traceparent` and `tracestate` go along with commands and questions; without it nothing is spent on them.

mod ask;
mod dead;
mod desk;
mod error;
mod examine;
mod link;
mod names;
mod on_the_way;
mod options;
mod outbox;
mod pending;
mod pull;
mod serve;
mod statistics;
mod streams;
mod trace;
mod transport;
mod wire;

pub use ask::{Answerer, To};
pub use bytes::Bytes;
pub use dead::DeadLetter;
pub use error::{StartError, Unanswered, Unreadable};
pub use link::Nats;
pub use options::{Credentials, DeadLetterHook, Mode, Options, Storage, Tls};
pub use serve::Serving;
pub use statistics::Statistics;
pub use trace::{TraceContext, Tracing};
pub use transport::NatsTransport;
