//! What is done to the system: who is hit, and how; and how long checkouts may stand still for it.

use std::time::Duration;

use shop::faults::Point;

use crate::config::Service;
use crate::gateway::program;
use crate::up::plan::Kind;

/// Who is hit. Looked up when the event begins: roles move.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Who {
    /// The order instance that looks after the log for all.
    Leader,
    /// Another order instance.
    Follower,
    /// Any component of this kind.
    Any(Kind),
    /// The component of this kind and number, the first being 1.
    Number(Kind, u32),
    /// The master of a service's database.
    Master(Service),
    /// One of its replicas, the first being 1.
    Replica(Service, u32),
}

/// How.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum How {
    /// `kill -9`, and started again as soon as the supervisor does; a master with replicas only once one of these has been promoted, as if its
    /// machine took that long to come back.
    Kill,
    /// `kill -9`, and started again as soon as the supervisor does, a master too.
    Restart,
    /// `kill -9`, and not started again for a while.
    Lose,
    /// SIGSTOP for a while: its connections stay, and nothing answers.
    Freeze,
    /// Parted from everybody by its proxy for a while: its connections stay, and nothing passes.
    Part,
}

impl How {
    /// Whether it lasts for as long as it is told to.
    pub(super) fn lasts(self) -> bool {
        matches!(self, Self::Lose | Self::Freeze | Self::Part)
    }
}

/// One thing that happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Act {
    /// A component is hit.
    Hit(Who, How),
    /// An instance of the service ends by itself when it comes to this point, once.
    Crash(Service, Point),
    /// This point answers with errors, though the work is done, so many times.
    Err(Service, Point, u32),
}

/// How long no checkout may succeed when a service, the gateway or a Sentinel is hit.
const SERVICE_GOAL: Duration = Duration::from_secs(5);
/// The same when a database or the broker is.
const SERVER_GOAL: Duration = Duration::from_secs(10);

impl Act {
    /// How long no checkout may succeed for this, if what lasts lasts for `down`.
    ///
    /// Checkouts need every database and the broker, replicas included, and the gateway: if one of these is away for a given time, that comes on top.
    fn goal(self, down: Duration) -> Duration {
        let Self::Hit(who, how) = self else { return SERVICE_GOAL };
        let (goal, needed) = match who {
            Who::Leader | Who::Follower => (SERVICE_GOAL, false),
            Who::Any(kind) | Who::Number(kind, _) => match kind {
                Kind::Order | Kind::Stock | Kind::Payment | Kind::Sentinel | Kind::Prometheus => (SERVICE_GOAL, false),
                Kind::Gateway | Kind::Shop => (SERVICE_GOAL, true),
                Kind::Nats | Kind::Redis => (SERVER_GOAL, true),
            },
            Who::Master(_) | Who::Replica(..) => (SERVER_GOAL, true),
        };
        if needed && how.lasts() { goal + down } else { goal }
    }
}

/// Things that happen one after another, a second apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Event(pub(super) Vec<Act>);

impl Event {
    /// How long no checkout may succeed, if what lasts lasts for `down`: as for the worst of what happens.
    pub(super) fn goal(&self, down: Duration) -> Duration {
        self.0.iter().map(|act| act.goal(down)).max().unwrap_or_default()
    }

    /// Whether something in it lasts for a given time.
    pub(super) fn lasts(&self) -> bool {
        self.0.iter().any(|act| matches!(act, Act::Hit(_, how) if how.lasts()))
    }

    /// Whether faults are injected in it.
    pub(super) fn injects(&self) -> bool {
        self.0.iter().any(|act| !matches!(act, Act::Hit(..)))
    }
}

impl std::fmt::Display for Event {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (n, act) in self.0.iter().enumerate() {
            if n > 0 {
                f.write_str(", then ")?;
            }
            match act {
                Act::Hit(who, how) => {
                    let how = match how {
                        How::Kill => "kill",
                        How::Restart => "kill and restart",
                        How::Lose => "lose",
                        How::Freeze => "freeze",
                        How::Part => "part",
                    };
                    write!(f, "{how} {who}")?;
                }
                Act::Crash(service, point) => write!(f, "{} crashes {point}", service.section())?,
                Act::Err(service, point, times) => write!(f, "{} errs {point} ×{times}", service.section())?,
            }
        }
        Ok(())
    }
}

impl std::fmt::Display for Who {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let named = |kind: Kind| match kind {
            Kind::Nats => "NATS",
            Kind::Redis => "Redis server",
            Kind::Sentinel => "Sentinel",
            Kind::Order => "order instance",
            Kind::Stock => "stock instance",
            Kind::Payment => "payment instance",
            Kind::Gateway => "gateway",
            Kind::Prometheus => "Prometheus",
            Kind::Shop => "shop",
        };
        match *self {
            Self::Leader => f.write_str("the leader"),
            Self::Follower => f.write_str("an order instance"),
            Self::Any(Kind::Nats) => f.write_str("NATS"),
            Self::Any(Kind::Gateway) => f.write_str("the gateway"),
            Self::Any(Kind::Shop) => f.write_str("the shop"),
            Self::Any(kind) => write!(f, "a {}", named(kind)),
            Self::Number(kind, n) => write!(f, "{} {n}", named(kind)),
            Self::Master(service) => write!(f, "the master of {}", service.section()),
            Self::Replica(service, n) => write!(f, "replica {n} of {}", service.section()),
        }
    }
}

fn one(who: Who, how: How) -> Event {
    Event(vec![Act::Hit(who, how)])
}

/// How many there are of what a schedule hits one by one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Shape {
    /// Whether it is one process, and so nothing of what follows.
    pub(super) shop: bool,
    /// Instances of each service.
    pub(super) instances: u32,
    /// Replicas of each master.
    pub(super) replicas: u32,
    /// Sentinels.
    pub(super) sentinels: u32,
    /// Whether databases and broker can be parted from the others.
    pub(super) proxied: bool,
}

impl Shape {
    /// What `settle up --proxied` starts.
    pub(super) const USUAL: Self = Self { shop: false, instances: 2, replicas: 2, sentinels: 3, proxied: true };
    /// What `settle serve` starts.
    pub(super) const ONE_PROCESS: Self = Self { shop: true, instances: 0, replicas: 0, sentinels: 0, proxied: false };
}

/// Everything once: every component killed; each kind lost for a while or frozen; two in cascade; partitions, where there are proxies; a fault at every
/// point.
pub(super) fn schedule(shape: Shape) -> Vec<Event> {
    let mut events = if shape.shop {
        [How::Kill, How::Lose, How::Freeze].map(|how| one(Who::Any(Kind::Shop), how)).into()
    } else {
        hits(shape)
    };
    for (n, point) in Point::all().enumerate() {
        let service = if n % 2 == 0 { Service::Stock } else { Service::Payment };
        events.push(Event(vec![Act::Crash(service, point)]));
        events.push(Event(vec![Act::Err(service, point, 20)]));
    }
    events
}

/// The part of it that hits processes of a distributed system.
fn hits(shape: Shape) -> Vec<Event> {
    use How::{Freeze, Kill, Lose, Part, Restart};
    let mut events = vec![];
    for service in Service::ALL {
        events.extend((1..=shape.instances).map(|n| one(Who::Number(Kind::of(service), n), Kill)));
    }
    events.push(one(Who::Leader, Kill));
    events.extend(Service::ALL.map(|service| one(Who::Master(service), Kill)));
    for service in Service::ALL {
        events.extend((1..=shape.replicas).map(|n| one(Who::Replica(service, n), Kill)));
    }
    events.extend((1..=shape.sentinels).map(|n| one(Who::Number(Kind::Sentinel, n), Kill)));
    events.extend([one(Who::Any(Kind::Nats), Kill), one(Who::Any(Kind::Gateway), Kill)]);
    events.push(one(Who::Master(Service::Stock), Restart));
    events
        .extend([Who::Follower, Who::Leader, Who::Any(Kind::Stock), Who::Any(Kind::Payment)].map(|who| one(who, Lose)));
    events.extend(
        [
            Who::Leader,
            Who::Any(Kind::Stock),
            Who::Any(Kind::Payment),
            Who::Master(Service::Payment),
            Who::Any(Kind::Nats),
        ]
        .map(|who| one(who, Freeze)),
    );
    events.extend([
        Event(vec![Act::Hit(Who::Leader, Kill), Act::Hit(Who::Master(Service::Stock), Kill)]),
        Event(vec![Act::Hit(Who::Any(Kind::Nats), Kill), Act::Hit(Who::Any(Kind::Payment), Kill)]),
        Event(vec![Act::Hit(Who::Master(Service::Orders), Kill), Act::Hit(Who::Leader, Kill)]),
    ]);
    if shape.proxied {
        // Not a replica: it connects to its master, so its own proxy does not part it from that.
        events.extend(Service::ALL.map(|service| one(Who::Master(service), Part)));
        events.push(one(Who::Any(Kind::Nats), Part));
    }
    events
}

/// An event at random; one in four is two in cascade.
pub(super) fn random(random: &mut fastrand::Rng, shape: Shape) -> Event {
    let all = schedule(shape);
    let mut event = all[random.usize(..all.len())].clone();
    if random.u8(..4) == 0 {
        event.0.extend(all[random.usize(..all.len())].0.clone());
    }
    event
}

/// The name of the component of a kind and number.
pub(super) fn name(kind: Kind, number: u32) -> String {
    match kind.service() {
        Some(service) => format!("{}-{number}", program(service)),
        None if kind == Kind::Sentinel => format!("sentinel-{number}"),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_schedule_kills_every_component_and_hits_every_point() {
        let acts: Vec<Act> = schedule(Shape::USUAL).into_iter().flat_map(|event| event.0).collect();
        let killed = |who| acts.contains(&Act::Hit(who, How::Kill));
        assert!(killed(Who::Leader) && killed(Who::Any(Kind::Nats)) && killed(Who::Any(Kind::Gateway)));
        for service in Service::ALL {
            assert!((1..=2).all(|n| killed(Who::Number(Kind::of(service), n))), "{service:?}");
            assert!(killed(Who::Master(service)) && (1..=2).all(|n| killed(Who::Replica(service, n))), "{service:?}");
        }
        assert!((1..=3).all(|n| killed(Who::Number(Kind::Sentinel, n))));
        for point in Point::all() {
            assert!(acts.iter().any(|act| matches!(act, Act::Crash(_, at) if *at == point)), "{point}");
            assert!(acts.iter().any(|act| matches!(act, Act::Err(_, at, _) if *at == point)), "{point}");
        }
        for how in [How::Restart, How::Lose, How::Freeze, How::Part] {
            assert!(acts.iter().any(|act| matches!(act, Act::Hit(_, hit) if *hit == how)), "{how:?}");
        }
        // A small system has nobody of some kinds.
        let small = schedule(Shape { instances: 1, replicas: 0, sentinels: 0, shop: false, proxied: false });
        let missing =
            |act: &Act| matches!(act, Act::Hit(Who::Replica(..) | Who::Number(_, 2..), _) | Act::Hit(_, How::Part));
        assert!(!small.iter().flat_map(|event| &event.0).any(missing));
        assert!(!small.iter().any(|event| event.to_string().contains("Sentinel")));
    }

    #[test]
    fn a_goal_is_that_of_the_worst_and_what_is_needed_and_away_comes_on_top() {
        let down = Duration::from_secs(7);
        let goal = |acts: &[Act]| Event(acts.to_vec()).goal(down).as_secs();
        let (leader, master) = (Who::Leader, Who::Master(Service::Stock));
        assert_eq!(goal(&[Act::Hit(leader, How::Kill)]), 5);
        assert_eq!(goal(&[Act::Hit(leader, How::Freeze)]), 5, "another one serves");
        assert_eq!(goal(&[Act::Hit(Who::Any(Kind::Gateway), How::Kill)]), 5);
        assert_eq!(goal(&[Act::Hit(master, How::Kill)]), 10);
        assert_eq!(goal(&[Act::Hit(master, How::Freeze)]), 17);
        assert_eq!(goal(&[Act::Hit(leader, How::Kill), Act::Hit(master, How::Kill)]), 10);
    }
}
