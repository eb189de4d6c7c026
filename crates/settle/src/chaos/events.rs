//! What is done to the system: who is hit, and how.

use shop::faults::Point;

use crate::config::Service;
use crate::up::plan::Kind;

/// Who is hit. Looked up when the event begins: roles move.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Who {
    /// The order instance that looks after the log for all.
    Leader,
    /// Another order instance.
    Follower,
    /// Any instance of this kind.
    Any(Kind),
    /// The master of a service's database.
    Master(Service),
    /// One of its replicas.
    Replica(Service),
}

/// How.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum How {
    /// `kill -9`, and not started again for a while.
    Kill,
    /// `kill -9`, and started again at once.
    Restart,
    /// SIGSTOP for a while: its connections stay, and nothing answers.
    Freeze,
    /// Parted from everybody by its proxy for a while: its connections stay, and nothing passes.
    Part,
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

/// Things that happen one after another, a second apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Event(pub(super) Vec<Act>);

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
                        How::Freeze => "freeze",
                        How::Part => "part",
                    };
                    write!(f, "{how} ")?;
                    match who {
                        Who::Leader => f.write_str("the leader")?,
                        Who::Follower => f.write_str("an order instance")?,
                        Who::Any(Kind::Gateway) => f.write_str("the gateway")?,
                        Who::Any(Kind::Nats) => f.write_str("NATS")?,
                        Who::Any(Kind::Sentinel) => f.write_str("a Sentinel")?,
                        Who::Any(Kind::Stock) => f.write_str("a stock instance")?,
                        Who::Any(Kind::Payment) => f.write_str("a payment instance")?,
                        Who::Any(kind) => write!(f, "{kind:?}")?,
                        Who::Master(service) => write!(f, "the master of {}", service.section())?,
                        Who::Replica(service) => write!(f, "a replica of {}", service.section())?,
                    }
                }
                Act::Crash(service, point) => write!(f, "{} crashes {point}", service.section())?,
                Act::Err(service, point, times) => write!(f, "{} errs {point} ×{times}", service.section())?,
            }
        }
        Ok(())
    }
}

fn one(who: Who, how: How) -> Event {
    Event(vec![Act::Hit(who, how)])
}

/// Everything once: every kind of component killed and frozen, two in cascade, a fault at every point; and partitions, where there are proxies.
pub(super) fn schedule(proxied: bool) -> Vec<Event> {
    use How::{Freeze, Kill, Restart};
    let mut events = vec![
        one(Who::Follower, Kill),
        one(Who::Leader, Kill),
        one(Who::Leader, Freeze),
        one(Who::Leader, Restart),
        one(Who::Any(Kind::Stock), Kill),
        one(Who::Any(Kind::Payment), Kill),
        one(Who::Any(Kind::Payment), Freeze),
    ];
    events.extend(Service::ALL.map(|service| one(Who::Master(service), Kill)));
    events.push(one(Who::Master(Service::Payment), Freeze));
    events.push(one(Who::Master(Service::Stock), Restart));
    events.extend(Service::ALL.map(|service| one(Who::Replica(service), Kill)));
    events.extend([
        one(Who::Any(Kind::Sentinel), Kill),
        one(Who::Any(Kind::Nats), Kill),
        one(Who::Any(Kind::Nats), Freeze),
        one(Who::Any(Kind::Gateway), Kill),
        Event(vec![Act::Hit(Who::Leader, Kill), Act::Hit(Who::Master(Service::Stock), Kill)]),
        Event(vec![Act::Hit(Who::Any(Kind::Nats), Kill), Act::Hit(Who::Any(Kind::Payment), Kill)]),
        Event(vec![Act::Hit(Who::Master(Service::Orders), Kill), Act::Hit(Who::Leader, Kill)]),
    ]);
    if proxied {
        events.extend(Service::ALL.map(|service| one(Who::Master(service), How::Part)));
        // Not a replica: it connects to its master, so its own proxy does not part it from that.
        events.push(one(Who::Any(Kind::Nats), How::Part));
    }
    for (n, point) in Point::all().enumerate() {
        let service = if n % 2 == 0 { Service::Stock } else { Service::Payment };
        events.push(Event(vec![Act::Crash(service, point)]));
        events.push(Event(vec![Act::Err(service, point, 20)]));
    }
    events
}

/// An event at random; one in four is two in cascade.
pub(super) fn random(random: &mut fastrand::Rng, proxied: bool) -> Event {
    let all = schedule(proxied);
    let mut event = all[random.usize(..all.len())].clone();
    if random.u8(..4) == 0 {
        event.0.extend(all[random.usize(..all.len())].0.clone());
    }
    event
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_schedule_hits_every_kind_of_component_and_every_point() {
        let acts: Vec<Act> = schedule(true).into_iter().flat_map(|event| event.0).collect();
        let hits = |who| acts.iter().any(|act| matches!(act, Act::Hit(hit, _) if *hit == who));
        assert!(hits(Who::Leader) && hits(Who::Follower));
        for kind in [Kind::Nats, Kind::Sentinel, Kind::Stock, Kind::Payment, Kind::Gateway] {
            assert!(hits(Who::Any(kind)), "{kind:?}");
        }
        for service in Service::ALL {
            assert!(hits(Who::Master(service)) && hits(Who::Replica(service)), "{service:?}");
        }
        for point in Point::all() {
            assert!(acts.iter().any(|act| matches!(act, Act::Crash(_, at) if *at == point)), "{point}");
        }
    }
}
