//! A trip: a seat on a train, a bed in a hotel and a ticket for the opera, at three services. All of it or none of it.
//!
//! `cargo run -p settle-orchestrator --example trip`

use std::error::Error;
use std::sync::Arc;

use ledger::{EntityId, Entry, entries};
use orchestrator::memory::{MemoryLedger, MemoryLog};
use orchestrator::{Builder, Choice, Definition, InProcess, Name, Options, Outcome, Payload, Step};

const TRAIN: Name = Name::literal("train");
const HOTEL: Name = Name::literal("hotel");
const OPERA: Name = Name::literal("opera");
const TRIP: Name = Name::literal("trip");

/// What every service sells: account 0 holds the places left on Friday.
const FRIDAY: EntityId = EntityId::number(0);

/// A service with so many places left. Yours would keep them in a database of its own, and implement `Participant`.
fn service(places: i64) -> Arc<MemoryLedger> {
    Arc::new(MemoryLedger::with_accounts([(FRIDAY, places)]))
}

/// One step: so many places at one service.
fn book(service: Name, places: i64) -> Result<Step, Box<dyn Error>> {
    Ok(Step { service, payload: entries::encode(&[Entry { account: FRIDAY, amount: places }])? })
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let (train, hotel, opera) = (service(100), service(10), service(3));
    let transport =
        InProcess::default().with(TRAIN, train.clone()).with(HOTEL, hotel.clone()).with(OPERA, opera.clone());
    let orchestrator =
        Builder::new(Options::new(Name::literal("office")), Arc::new(MemoryLog::default()), Arc::new(transport))
            .define(Definition::new(TRIP, [TRAIN, HOTEL, OPERA]).with_protocol(Choice::TwoPhase))
            .start()
            .await?;

    for party in [2, 2, 1] {
        let steps = vec![book(TRAIN, party)?, book(HOTEL, party)?, book(OPERA, party)?];
        let services: Vec<Name> = steps.iter().map(|step| step.service).collect();
        match orchestrator.execute(TRIP, steps, Payload::EMPTY).await? {
            (id, Outcome::Committed) => println!("{party} people travel ({id})"),
            (_, Outcome::Refused { step, refusal }) => {
                println!("{party} people stay at home: {} said {refusal}", services[usize::from(step)]);
            }
            (id, other) => println!("{party} people wait ({id}): {other:?}"),
        }
    }

    orchestrator.drain(std::time::Duration::from_secs(5)).await;
    for (name, service, places) in [(TRAIN, train, 100), (HOTEL, hotel, 10), (OPERA, opera, 3)] {
        let friday = service.read(|ledger| ledger.account(FRIDAY).copied()).ok_or("no account for Friday")?;
        println!("{name}: {} of {places} places sold, {} held, {} left", friday.settled, friday.held, friday.available);
        assert_eq!((friday.settled, friday.held), (3, 0), "two trips were sold and one was not");
    }
    Ok(())
}
