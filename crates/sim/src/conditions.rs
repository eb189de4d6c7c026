//! What a run is like: everything drawn from the seed before it starts.

use orchestrator::Choice;
use protocol::limits::MIN_RETENTION_MS;
use protocol::{Order, Pacing, Recovery};

use crate::random::Random;

/// The conditions of one run. Times in milliseconds unless they say otherwise; chances in thousandths.
#[derive(Debug, Clone)]
pub struct Conditions {
    /// Instances that share the order database.
    pub instances: usize,
    /// The protocol of checkouts.
    pub protocol: Choice,
    /// The order of a saga's steps.
    pub order: Order,
    /// Where a saga goes when in doubt.
    pub recovery: Recovery,
    /// Deadlines and retries.
    pub pacing: Pacing,
    /// Transactions in flight per instance.
    pub in_flight: usize,
    /// Transactions an instance drives before callers are turned away.
    pub unsettled: usize,
    /// Clients.
    pub clients: usize,
    /// What each of them does, so many times.
    pub operations: u32,
    /// Orders at the start.
    pub orders: u64,
    /// Items of stock.
    pub items: u64,
    /// Users.
    pub users: u64,
    /// Units of each item.
    pub stock: i64,
    /// Credit of each user.
    pub credit: i64,
    /// A message takes up to so many microseconds.
    pub delay: u64,
    /// Chance that a message is lost.
    pub loss: u64,
    /// Chance that a command to a participant comes twice.
    pub duplicate: u64,
    /// Chance that a message takes a thousand times as long.
    pub straggler: u64,
    /// A flush takes up to so many microseconds.
    pub flush: u64,
    /// Chance that something crashes at a point of which one knows that it is a bad one.
    pub strike: u64,
    /// Strikes are aimed: only an instance that has staged, and then those that recover what it left.
    pub aimed: bool,
    /// Mean time between faults; 0: there are none.
    pub fault_every: u64,
    /// Faults stop then.
    pub fault_until: u64,
    /// How far the clocks are apart at most.
    pub skew: u64,
    /// Mean time between two looks of the operator at what is stuck; 0: nobody looks.
    pub operate: u64,
    /// Mean time between two `batch_init`s; 0: there are none.
    pub reseed: u64,
    /// Finished transactions and final branches kept however old.
    pub keep: usize,
    /// How long they are kept at least, however many.
    pub retention: u64,
    /// How old a prepared branch is before its participant asks.
    pub termination_age: u64,
    /// How old an executed branch is before its participant asks.
    pub executed_age: u64,
}

impl Conditions {
    /// Draws the conditions of a run.
    pub fn draw(random: &mut Random) -> Self {
        let stormy = random.below(4);
        let pacing = Pacing {
            deadline: random.between(200, 2_500),
            attempt_timeout: random.between(50, 500),
            backoff_base: random.between(5, 50),
            backoff_cap: random.between(100, 1_000),
            attempts: random.between(2, 12) as u32,
            slow_pace: random.between(500, 4_000),
            release_wait: random.between(100, 1_000),
        };
        let drawn = Self {
            instances: random.between(1, 3) as usize,
            protocol: *random.pick(&[Choice::TwoPhase, Choice::TwoPhase, Choice::Saga, Choice::Saga, Choice::Auto]),
            order: *random.pick(&[Order::Parallel, Order::Parallel, Order::Sequential]),
            recovery: *random.pick(&[Recovery::Backward, Recovery::Backward, Recovery::Backward, Recovery::Forward]),
            pacing,
            in_flight: *random.pick(&[1, 3, 100]),
            unsettled: 0,
            clients: random.between(2, 6) as usize,
            operations: random.between(3, 10) as u32,
            orders: random.between(1, 5),
            items: random.between(1, 3),
            users: random.between(1, 3),
            stock: random.between(1, 12) as i64,
            credit: random.between(5, 60) as i64,
            delay: *random.pick(&[200, 2_000, 20_000, 100_000]),
            loss: *random.pick(&[0, 10, 50, 150]),
            duplicate: *random.pick(&[0, 50, 200]),
            straggler: *random.pick(&[0, 5, 30]),
            flush: *random.pick(&[100, 5_000, 50_000, 300_000]),
            strike: *random.pick(&[0, 0, 5, 20, 60]),
            aimed: false,
            fault_every: [0, 2_500, 1_200, 500][stormy as usize],
            fault_until: random.between(6_000, 20_000),
            skew: *random.pick(&[0, 50, 2_000]),
            operate: *random.pick(&[0, 300, 1_500]),
            reseed: *random.pick(&[0, 0, 0, 1_000, 4_000]),
            keep: random.below(4) as usize,
            retention: MIN_RETENTION_MS,
            termination_age: *random.pick(&[150, 600, 2_000, 6_000]),
            executed_age: *random.pick(&[150, 600, 2_000, 6_000]),
        };
        // Not drawn, so that what earlier seeds draw stays as it was.
        let drawn = Self { unsettled: if drawn.in_flight == 3 { 4 } else { 1_000 }, ..drawn };
        if random.chance(200) { drawn.cruel(random) } else { drawn }
    }

    /// Two-phase commit on a slow disk, with crashes aimed at the moments between readable and durable, and messages that arrive
    /// after everyone has stopped waiting for them. Here two faults meet in one transaction, and not only in one run.
    fn cruel(self, random: &mut Random) -> Self {
        let pacing = Pacing {
            deadline: random.between(100, 600),
            release_wait: random.between(20, 200),
            attempt_timeout: random.between(500, 1_500),
            ..self.pacing
        };
        Self {
            protocol: Choice::TwoPhase,
            pacing,
            delay: *random.pick(&[1_000, 5_000]),
            loss: *random.pick(&[0, 20]),
            straggler: random.between(50, 500),
            flush: *random.pick(&[50_000, 100_000, 400_000, 1_500_000]),
            strike: random.between(50, 500),
            aimed: random.chance(500),
            fault_every: 0,
            skew: 0,
            orders: random.between(4, 10),
            operations: 20,
            items: random.between(1, 2),
            // The participants do not find out by themselves.
            termination_age: 6_000,
            stock: 50,
            credit: 300,
            ..self
        }
    }
}
