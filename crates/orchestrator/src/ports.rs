//! What the orchestrator needs of the world. An adapter implements these; nothing else touches a socket, a disk or a clock.
//!
//! The ports take callbacks instead of returning futures: a store that completes a batch of 64 commands on one thread calls 64
//! functions, and wakes nobody. It also lets the simulator drive the very same engine on one thread.

use std::sync::atomic::{AtomicU64, Ordering};

use protocol::limits::MAX_CLOCK_LEAD_MS;
use protocol::log::{Lease, LogCommand, LogReply, Record, Standing};
use protocol::{Command, Name, Reply, Timestamp, TransactionId};

/// A callback that is called exactly once.
pub type Done<T> = Box<dyn FnOnce(T) + Send>;

/// Nobody knows whether the log carried the command out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the transaction log gave no answer: {0}")]
pub struct LogError(pub String);

/// The transaction log: [`protocol::log::LogState`] kept durable.
///
/// A log that several processes share goes by a clock of its own for leases, whatever time a command names: see [`LogAnswer::Open`].
///
/// Contract, checked by [`crate::conformance`]: commands of one caller are applied in the order of the calls; each is applied at most
/// once, never retried blindly; an answer is given once everything it rests on is durable (save the `readable` one of a decision);
/// an error means *unknown*. A stage that certainly never left may be answered as refused: [`StageRefusal::NotSent`](protocol::log::StageRefusal).
pub trait Log: Send + Sync + 'static {
    /// Applies a command; `done` is called when it is durable.
    fn append(&self, command: LogCommand, done: Done<Result<LogReply, LogError>>);

    /// Applies a decision. Both are called with the answer: `readable` as soon as the decision is the one that stands, `durable` once it
    /// is flushed. Either may come first.
    fn decide(
        &self,
        command: LogCommand,
        readable: Done<Result<LogReply, LogError>>,
        durable: Done<Result<LogReply, LogError>>,
    );

    /// Reads what is durable.
    fn read(&self, query: LogQuery, done: Done<Result<LogAnswer, LogError>>);
}

/// A question to the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogQuery {
    /// Every unfinished transaction, and the instances.
    Open,
    /// One transaction.
    Transaction(TransactionId),
    /// Transactions by where they stand, the latest first.
    Listing {
        /// Where they stand; `None`: anywhere.
        standing: Option<Standing>,
        /// How many at most.
        limit: usize,
    },
}

/// The log's answer to a question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogAnswer {
    /// To [`LogQuery::Open`].
    Open {
        /// The unfinished transactions, oldest first.
        records: Vec<(TransactionId, Record)>,
        /// The instances.
        instances: Vec<(Name, Lease)>,
        /// The time by which their leases go, if that is the log's own clock; `None`: whoever asks goes by its own.
        now: Option<Timestamp>,
    },
    /// To [`LogQuery::Transaction`].
    Transaction(Option<Box<Record>>),
    /// To [`LogQuery::Listing`].
    Listing(Vec<(TransactionId, Record)>),
}

/// Answers a query from the state. For adapters that hold a [`protocol::log::LogState`] in memory.
pub fn answer(state: &protocol::log::LogState, query: LogQuery) -> LogAnswer {
    let owned = |(id, record): (TransactionId, &Record)| (id, record.clone());
    match query {
        LogQuery::Open => LogAnswer::Open {
            records: state.open().map(owned).collect(),
            instances: state.instances().iter().map(|(name, lease)| (*name, *lease)).collect(),
            now: None,
        },
        LogQuery::Transaction(id) => LogAnswer::Transaction(state.get(id).cloned().map(Box::new)),
        LogQuery::Listing { standing, limit } => {
            let mut found: Vec<_> = state.open().collect();
            found.reverse();
            let wanted = |(_, record): &(TransactionId, &Record)| standing.is_none_or(|s| record.standing() == s);
            // Only who asks for finished ones has the many finished ones looked through.
            let finished = matches!(standing, None | Some(Standing::Finished)).then(|| state.finished());
            let all = found.into_iter().chain(finished.into_iter().flatten());
            LogAnswer::Listing(all.filter(wanted).take(limit).map(owned).collect())
        }
    }
}

/// The way to the participants.
pub trait Transport: Send + Sync + 'static {
    /// Whether the service can be addressed at all.
    fn knows(&self, service: &Name) -> bool;

    /// Whether commands can leave this process. If none can for [`CUT_OFF_MS`](protocol::limits::CUT_OFF_MS), another instance is given what this one has
    /// not settled.
    fn is_connected(&self) -> bool;

    /// Sends a command to a service. `done` is called exactly once: with the participant's answer, or with
    /// [`Reply::Unknown`] when none came in the transport's own time-out. Messages may be lost, doubled, and overtake each other.
    fn send(&self, service: &Name, command: Command, done: Done<Reply>);
}

/// A participant: a service's own part, in this process or behind a transport.
pub trait Participant: Send + Sync + 'static {
    /// Carries a command out, as [`protocol::barrier`] says, and answers when that is durable.
    fn handle(&self, command: Command, done: Done<Reply>);
}

/// Time.
pub trait Clock: Send + Sync + 'static {
    /// Milliseconds since the Unix epoch. May differ from other machines' clocks; need not be monotonic across restarts.
    fn now(&self) -> Timestamp;

    /// Microseconds since any fixed point: monotonic, for measuring.
    fn micros(&self) -> u64;
}

/// The machine's clock: the wall clock at start-up, carried on by the monotonic one, so that a step of the wall clock moves no deadline. It may
/// [follow](Self::follow) another.
#[derive(Debug)]
pub struct SystemClock {
    started: std::time::Instant,
    coarse_started: u64,
    epoch_millis: u64,
    /// How far another clock is ahead of this one. Milliseconds.
    ahead: AtomicU64,
}

/// Monotonic milliseconds that are right to a tick of the kernel, 10 ms at most: asked for some ten times in every transaction, they must
/// cost nothing. Deadlines and leases are coarser by far.
#[cfg(target_os = "linux")]
fn coarse_millis() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::MonotonicCoarse);
    let (seconds, nanos) = (u64::try_from(now.tv_sec).unwrap_or(0), u64::try_from(now.tv_nsec).unwrap_or(0));
    seconds.saturating_mul(1000).saturating_add(nanos / 1_000_000)
}

#[cfg(not(target_os = "linux"))]
fn coarse_millis() -> u64 {
    static SINCE: std::sync::LazyLock<std::time::Instant> = std::sync::LazyLock::new(std::time::Instant::now);
    u64::try_from(SINCE.elapsed().as_millis()).unwrap_or(u64::MAX)
}

impl Default for SystemClock {
    fn default() -> Self {
        let since_epoch = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        let epoch_millis = u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX);
        Self {
            started: std::time::Instant::now(),
            coarse_started: coarse_millis(),
            epoch_millis,
            ahead: AtomicU64::new(0),
        }
    }
}

impl SystemClock {
    /// The machine's clock, or one that starts behind `known` if the machine's is late: ids that are born now must be younger than those
    /// that are remembered, or forgotten, or they would be refused as expired.
    pub fn later_than(known: Timestamp) -> Self {
        let machine = Self::default();
        Self { epoch_millis: machine.epoch_millis.max(known.0.saturating_add(1)), ..machine }
    }
}

/// The clock of a database, and what it knows of, contradict each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "a transaction was born {0} ms after the time by the database's own clock: the clock of the database's machine was set back, or an instance's was \
     ahead. If the database's is late now, set it right; or wait: an instance starts once the database's time has come within {MAX_CLOCK_LEAD_MS} ms of that \
     birth. Instances that run go on: leave them alone until then"
)]
pub struct ClockBehind(pub u64);

impl SystemClock {
    /// A clock for one of several processes that share a database: begins at the `database`'s time, however wrong the machine's own is; or right
    /// behind the birth that is the youngest `known` there, if that is later.
    ///
    /// # Errors
    /// [`ClockBehind`], if it is later by more than [`MAX_CLOCK_LEAD_MS`]: going on from there would carry somebody's wrong clock on.
    pub fn shared(database: Timestamp, known: Timestamp) -> Result<Self, ClockBehind> {
        let lead = known.since(database);
        if lead > MAX_CLOCK_LEAD_MS {
            return Err(ClockBehind(lead));
        }
        Ok(Self { epoch_millis: database.max(known.plus(1)).0, ..Self::default() })
    }

    /// Follows the `database`'s clock as long as that is ahead, as the births of transactions do; once it no longer is, this clock is again where it would
    /// be. So it may go back, if that does: ages are taken by it, nothing is born. Returns by how much the database's is ahead, or, below zero, behind.
    pub fn follow(&self, database: Timestamp) -> i64 {
        let own = self.own_time();
        self.ahead.store(database.since(own), Ordering::Relaxed);
        let signed = |millis: u64| i64::try_from(millis).unwrap_or(i64::MAX);
        signed(database.since(own)) - signed(own.since(database))
    }

    /// The time without following anybody.
    fn own_time(&self) -> Timestamp {
        Timestamp(self.epoch_millis).plus(coarse_millis().saturating_sub(self.coarse_started))
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        self.own_time().plus(self.ahead.load(Ordering::Relaxed))
    }

    fn micros(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_was_set_back_goes_on_from_what_is_known() {
        let known = SystemClock::default().now().plus(3_600_000);
        assert!(SystemClock::later_than(known).now() > known);
        let machine = SystemClock::default().now();
        assert!(SystemClock::later_than(Timestamp(5)).now() >= machine, "and a right one is left alone");
    }

    #[test]
    fn a_clock_follows_one_that_is_ahead_for_as_long_as_it_is() {
        let clock = SystemClock::default();
        let began = clock.now();
        let gone = |clock: &SystemClock| clock.now().since(began);
        assert!((600_000..610_000).contains(&clock.follow(began.plus(600_000))));
        assert!((600_000..610_000).contains(&gone(&clock)));
        assert!((600_000..610_000).contains(&clock.follow(began.plus(600_000))), "it is not ahead of what it follows");
        assert!(clock.follow(began.minus(600_000)) <= -600_000);
        assert!(gone(&clock) < 10_000 && clock.now() >= began, "it never follows one back");
    }

    #[test]
    fn a_shared_clock_goes_by_the_database_and_jumps_so_far_at_most() {
        let machine = SystemClock::default().now();
        for database in [machine.minus(3_600_000), machine.plus(3_600_000)] {
            let begins = |known| SystemClock::shared(database, known).map(|clock| clock.now().since(database));
            assert!(begins(Timestamp(0)).unwrap() < 10_000, "not the machine's");
            assert!((30_001..40_000).contains(&begins(database.plus(30_000)).unwrap()));
            assert!(begins(database.plus(MAX_CLOCK_LEAD_MS)).is_ok());
            assert_eq!(begins(database.plus(MAX_CLOCK_LEAD_MS + 1)), Err(ClockBehind(MAX_CLOCK_LEAD_MS + 1)));
        }
    }
}
