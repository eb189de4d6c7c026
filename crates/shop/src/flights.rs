//! One checkout of an order at a time: whoever comes while one is in flight waits for it, and gets the same answer.
//!
//! The claim in the log alone would keep a second charge out. But a second checkout that begins beside the first may hold the user's
//! credit for the moment until its claim fails, and so have the first one refused.

use std::collections::HashMap;
use std::sync::Arc;

use ledger::EntityId;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::problem::Problem;

/// How a checkout ended.
pub(crate) type Landed = Result<(), Problem>;

/// The checkouts in flight in this process, by their order, with those who wait for them.
#[derive(Debug, Default, Clone)]
pub(crate) struct Flights {
    waiting: Arc<Mutex<HashMap<EntityId, Vec<oneshot::Sender<Landed>>>>>,
}

/// What someone who wants an order checked out is.
pub(crate) enum Boarding {
    /// The one who does it.
    Pilot(Pilot),
    /// One who waits. The sender is dropped if the pilot's client hangs up: then try again.
    Passenger(oneshot::Receiver<Landed>),
}

/// Does the checkout, and tells the others. Dropped without landing, it leaves the flight to one of them.
pub(crate) struct Pilot {
    flights: Flights,
    order: EntityId,
    landed: bool,
}

impl Flights {
    /// Joins the checkout of an order that is in flight, or begins one.
    pub(crate) fn board(&self, order: EntityId) -> Boarding {
        let mut waiting = self.waiting.lock();
        if let Some(others) = waiting.get_mut(&order) {
            let (send, receive) = oneshot::channel();
            others.push(send);
            return Boarding::Passenger(receive);
        }
        waiting.insert(order, Vec::new());
        Boarding::Pilot(Pilot { flights: self.clone(), order, landed: false })
    }
}

impl Pilot {
    /// Tells everyone who waits.
    pub(crate) fn land(mut self, landed: &Landed) {
        let others = self.flights.waiting.lock().remove(&self.order);
        self.landed = true;
        for other in others.into_iter().flatten() {
            _ = other.send(landed.clone());
        }
    }
}

impl Drop for Pilot {
    fn drop(&mut self) {
        if !self.landed {
            self.flights.waiting.lock().remove(&self.order);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_get_the_pilots_answer_and_a_lost_pilot_is_replaced() {
        let flights = Flights::default();
        let order = EntityId::number(7);
        let Boarding::Pilot(pilot) = flights.board(order) else { panic!("the first one flies") };
        let Boarding::Passenger(first) = flights.board(order) else { panic!("the second one waits") };
        assert!(matches!(flights.board(EntityId::number(8)), Boarding::Pilot(_)), "another order is another flight");
        pilot.land(&Err(Problem::bad_argument("no")));
        assert!(first.blocking_recv().unwrap().is_err());
        let Boarding::Pilot(pilot) = flights.board(order) else { panic!("the next one flies") };
        let Boarding::Passenger(second) = flights.board(order) else { panic!("and has a passenger") };
        drop(pilot);
        assert!(second.blocking_recv().is_err(), "the passenger hears that nobody flies");
        assert!(matches!(flights.board(order), Boarding::Pilot(_)));
    }
}
