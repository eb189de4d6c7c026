//! Ledgers and the transaction log in Redis or Valkey, for services that run as processes of their own, any number of instances each.
//!
//! ```text
//!   callers' threads                the store's thread                               the server
//!   ────────────────                ──────────────────                               ──────────
//!   submit ──► queue (bounded) ──► all that waits, as one pipeline:
//!                                   EVALSHA of many …        [HINCRBY WAIT n] ────► each call in one step
//!                                                                                    flush of the append-only file
//!                                                                                    [n replicas acknowledge]
//!   done(reply) ◄────────────────── answers everyone in it ◄──────────────────────── answers
//!
//!   who is the master?   ◄── one address, or every Sentinel: `+switch-master` at once, a question each second
//! ```
//!
//! | type            | what it is                                                                                                |
//! |-----------------|-----------------------------------------------------------------------------------------------------------|
//! | [`ScriptStore`] | a store whose commands are scripts: the machinery, and no word of what is kept                            |
//! | [`RedisLedger`] | an [`orchestrator::LedgerStore`] in one: stock, payment                                                   |
//! | [`RedisLog`]    | an [`orchestrator::Log`] in one; with the application's own data, scripts and part of stage and decision, if it has such |
//!
//! **One call takes many commands.** Those of one script that stand next to each other in a batch are one call, of at most
//! [`MAX_JOINED`](protocol::limits::MAX_JOINED): it reads what all of them are about, carries each out behind the one before, and writes what
//! has changed with one command of the server for each table, so that a replica is sent few commands, too. One that cannot be carried out does not concern
//! the others.
//!
//! What a command does is decided by a script, so in one step; the script's word is that of [`ledger::Ledger`] and of
//! [`protocol::log::LogState`], with which tests compare it on random histories. The barrier's table is not written a second time: every command
//! carries its verb's column of [`protocol::barrier`], and the script looks the branch's state up in it. What the log is told of transactions,
//! decisions and letters goes through the scripts as bytes that they do not read.
//!
//! # What an answer rests on
//!
//! | [`Durability`] | before the answer                                    | survives                                   | needs                                  |
//! |----------------|------------------------------------------------------|--------------------------------------------|----------------------------------------|
//! | `Memory`       | the script ran                                       | nothing                                    |                                        |
//! | `Fsync`        | and the master flushed it                            | the end of the process, a power cut        | `appendonly yes`, `appendfsync always` |
//! | `Replicated`   | and `n` replicas have it                             | the loss of any `n` machines               | and `WAIT`, and `n` replicas in touch  |
//!
//! What is needed is asked for at the start and on every connection, and a server that does not give it is refused by name. So is one that
//! throws keys away when its memory is full, a node of a cluster, and a replica.
//!
//! **Under Sentinel** a failover promotes whichever replica is left: what *that* one has is what is left. With
//! [`Failover::LosesNothing`], which is the default, every replica that Sentinel knows must therefore have a write before it is
//! acknowledged. The price: while one of them is away, nothing is acknowledged. With fewer, or below `Replicated`, an acknowledged prepare can be
//! lost, and a paid order with it; that must be asked for in as many words ([`Failover::MayLoseAcknowledgedWrites`]). In between lies `n` = 1 of
//! 2: Sentinel prefers the replica that has more, so that the loss of the master alone costs nothing as a rule, but a
//! network that parts master and one replica from the rest can.
//!
//! **A decision of the log may be told earlier**, when its script has run and its replicas are still being waited for
//! ([`orchestrator::Log::decide`], `readable`): what it rests on, the stage and every vote, is durable already. Only where that cannot be lost: at
//! `Replicated`, and under Sentinel only with [`Failover::LosesNothing`]. Elsewhere it is told when it is durable.
//!
//! Reads go to the master, in the same pipeline and behind the same `WAIT`: what is shown is as durable as what is acknowledged. No replica
//! is ever asked, for there is nothing here that may be stale: prices change with `Replace`, and the rest with every command.
//!
//! # What happens when
//!
//! | what                                          | those under way            | those that come                                              |
//! |-----------------------------------------------|----------------------------|--------------------------------------------------------------|
//! | the connection breaks, the server is silent   | unknown, the whole batch   | not done, until there is a connection                        |
//! | too few replicas acknowledge in time          | unknown, the whole batch   | sent, and unknown as long as that lasts                      |
//! | Sentinel names another master                 | unknown, the whole batch   | sent to it, once it has said that it is a master and keeps this store |
//! | the old master wakes up, demoted              | unknown: no replica of it  | its connection is dropped                                    |
//! | the server forgot the scripts                 | loaded and sent again: they certainly did not run; not done if others that ran have overtaken them | |
//! | the server turns a script away (`READONLY`, `OOM`, `LOADING`, …) | not done: it is so before the first write |                             |
//! | the server lost its data                      | unknown                    | never again: [`stopped`](orchestrator::LedgerStore::stopped) |
//! | the queue is full                             |                            | not done                                                     |
//!
//! *Unknown* is never "no", and nothing is sent again blindly: a branch's command goes through the barrier again, a client's change has its
//! idempotency key. The identity that a store is given when it is opened first tells a server that lost its data from one that has it.
//!
//! # Keys
//!
//! All begin with `{settle:SERVICE:PARTITION}:`. The tag in braces keeps them on one node of a cluster, should there be one. There is one
//! partition, 0. Scripts name keys that are not in their `KEYS`, which a cluster allows as long as the tag is the same.
//!
//! | key                     | what it is                                                                                          |
//! |-------------------------|-----------------------------------------------------------------------------------------------------|
//! | `meta`                  | hash: `identity`, `kind`, `batches`                                                                 |
//!
//! A ledger's:
//!
//! | key                     | what it is                                                                                          |
//! |-------------------------|-----------------------------------------------------------------------------------------------------|
//! | `meta`                  | hash: `floor`, `seeds` and their sum `seeded_high`, `seeded_low`                                     |
//! | `accounts`              | hash: of each account generation, seed and balances, in binary, and its price                        |
//! | `past`                  | hash: what the predecessors of replaced accounts came to                                             |
//! | `branches`              | hash: a branch's state in a letter; behind it its entries while it is open, or why it was refused     |
//! | `prepared`, `executed`  | sorted sets: open branches by birth                                                                 |
//! | `finals`                | list: final branches, in the order in which they became so                                          |
//! | `keys`, `key_order`     | hash and list: idempotency keys, with the first answers; their times, each with its key             |
//!
//! Every store's `meta` also has its `kind` and `identity`, and what its service has noted once and for all (`note_once`).
//!
//! A log's. Two hashes hold all transactions, so that one command of the server reads or writes hundreds of them, and a remembered one
//! takes some 250 bytes:
//!
//! | key                     | what it is                                                                                          |
//! |-------------------------|-----------------------------------------------------------------------------------------------------|
//! | `meta`                  | hash: `floor`, `youngest` (the youngest birth of a finished one), `forgotten` (how many)             |
//! | `records`               | hash: of each transaction owner, decision, end, the application's note, and itself without payloads |
//! | `payloads`              | hash: the payloads of unfinished ones                                                               |
//! | `open`                  | sorted set: unfinished ones by id, and so by birth                                                  |
//! | `finished`              | list: finished ones and tombstones with their times, in the order in which they became so           |
//! | `by_hand`               | sorted set: those that an operator settled, which are never forgotten                               |
//! | `letters`, `resolutions`| hashes: dead letters, and what operators did                                                        |
//! | `instances`             | hash: of each instance the epoch, and when its lease lapses                                         |
//!
//! **Replacing** a million accounts writes one line into `seeds`: from then on an account that nobody has touched is what the line says, and
//! is written down when it first changes. What its predecessor had settled is kept in `past`, for the audit.
//!
//! **Numbers.** A script computes in doubles. Every amount, price and balance is at most 2^53 − 1 in size, and those a double holds exactly; a
//! balance that would go beyond (repeated repairs could) is refused before anything is written. Sums without a bound are kept in two
//! parts.

pub mod answers;
mod error;
mod examine;
mod keys;
mod ledger_store;
mod link;
mod log_store;
mod options;
mod queue;
mod replicas;
mod script;
mod sentinel;
mod statistics;
mod store;
mod writer;

pub use error::OpenError;
pub use examine::{Examined, examine, meta};
pub use keys::{KEYS_LUA, key_words};
pub use ledger_store::RedisLedger;
pub use log_store::{ClaimWords, EndedPage, LOG_LUA, LogScripts, RedisLog};
pub use options::{Credentials, Durability, Failover, Options, Place};
pub use queue::Answers;
pub use redis::Value;
pub use script::{Script, Words};
pub use statistics::{BUCKETS, Statistics};
pub use store::{ScriptStore, not_done};
