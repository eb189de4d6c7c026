//! What the clients were told against what is there.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::bail;
use load::audit::{Ids, Reading, Snapshot, Verdict, check, fetch};
use load::client::{Answer, Client, Doubt, Target};
use load::contract::{Id, Order};
use shop::faults::Point;
use tokio::runtime::Runtime;

use super::clients::Heard;
use crate::config::Service;

/// Orders to check out: more than a day of trouble needs.
pub(super) const ORDERS: u64 = 1_000_000;
const ITEMS: u64 = 50;
const USERS: u64 = 100;
const PRICE: i64 = 7;
const STOCK: i64 = 1_000_000;
const CREDIT: i64 = 1_000_000_000;
/// Item 0 and user 0 are soon at an end, so that there are refusals of either side, and with them aborts.
const SCARCE: i64 = 25;
const POOR: i64 = 70;
/// How long one request may take while nothing is broken.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often a state that does not match yet is read again.
const AGAIN: Duration = Duration::from_millis(250);
/// Connections that read.
const READERS: usize = 16;

/// What is known of the shop.
pub(super) struct Books {
    runtime: Runtime,
    target: Arc<Target>,
    start: Snapshot,
    /// The last answer of every order.
    answers: HashMap<Id, Answer>,
    /// Orders found to be paid in earlier events.
    paid: BTreeMap<Id, Order>,
}

/// How it went after an event.
pub(super) struct Settled {
    /// When nothing was under way and the books matched; `None`: not in time.
    pub(super) at: Option<Instant>,
    /// The last look.
    pub(super) verdict: Verdict,
}

impl Books {
    /// Fills the shop.
    pub(super) fn open(target: Arc<Target>) -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let mut books =
            Self { runtime, target, start: Snapshot::default(), answers: HashMap::new(), paid: BTreeMap::new() };
        books.post(&format!("/stock/batch_init/{ITEMS}/{STOCK}/{PRICE}"))?;
        books.post(&format!("/payment/batch_init/{USERS}/{CREDIT}"))?;
        books.post(&format!("/orders/batch_init/{ORDERS}/{ITEMS}/{USERS}/{PRICE}"))?;
        books.post(&format!("/stock/subtract/0/{}", STOCK - SCARCE))?;
        books.post(&format!("/payment/pay/0/{}", CREDIT - POOR))?;
        books.start = books.read(Ids::batch(0, ITEMS, USERS))?;
        Ok(books)
    }

    fn client(&self) -> Client {
        Client::new(Arc::clone(&self.target), PATIENCE)
    }

    fn post(&self, path: &str) -> anyhow::Result<()> {
        self.runtime.block_on(post(&self.target, PATIENCE, path))
    }

    fn read(&self, mut ids: Ids) -> anyhow::Result<Snapshot> {
        let reading = Reading { connections: READERS, timeout: PATIENCE };
        Ok(self.runtime.block_on(fetch(&self.target, &mut ids, reading))?)
    }

    /// Sets a fault on every instance of a service.
    pub(super) fn set_fault(&self, service: Service, point: Point, action: &str, times: u32) -> anyhow::Result<()> {
        let path = format!("/{}/fault/set?point={point}&action={action}&times={times}", service.section());
        self.runtime.block_on(async {
            let mut client = self.client();
            match client.post(format_args!("{path}")).await {
                // The instance may have come to the point, and ended, before it could answer.
                Answer::Accepted | Answer::Unknown(_) => Ok(()),
                other => bail!(
                    "POST {path} {} {}: faults need `--chaos` where the system is started; or choose other events with --only",
                    in_words(other),
                    String::from_utf8_lossy(client.body())
                ),
            }
        })
    }

    /// Takes all faults back.
    pub(super) fn clear_faults(&self) -> anyhow::Result<()> {
        self.runtime.block_on(clear_faults(&self.target, PATIENCE))
    }

    /// Transactions that are called stuck.
    pub(super) fn stuck(&self) -> anyhow::Result<u64> {
        self.runtime.block_on(async {
            let mut client = self.client();
            let answer = client.get(format_args!("/orders/dlq/status")).await;
            let body: serde_json::Value = serde_json::from_slice(client.body()).unwrap_or_default();
            match (answer, body["count"].as_u64()) {
                (Answer::Accepted, Some(count)) => Ok(count),
                _ => bail!("GET /orders/dlq/status {} {body}", in_words(answer)),
            }
        })
    }

    /// Takes note of what was heard, asks again for what nobody answered, and looks until nothing is under way and everything matches.
    pub(super) fn settle(
        &mut self,
        heard: &[Heard],
        mut open: Vec<u64>,
        patience: Duration,
        unsettled: impl Fn() -> anyhow::Result<Option<u64>>,
    ) -> anyhow::Result<Settled> {
        let mut touched: BTreeSet<Id> = BTreeSet::new();
        for Heard { order, answer, .. } in heard {
            let id: Id = order.to_string().into();
            touched.insert(Id::clone(&id));
            self.answers.insert(id, *answer);
        }
        let until = Instant::now() + patience;
        loop {
            open = self.ask_again(open);
            let verdict = self.look(&touched);
            let still = unsettled()?;
            let now = Instant::now();
            match verdict {
                Ok((verdict, end)) => {
                    let done = verdict.is_clean() && open.is_empty() && still == Some(0);
                    if done || now > until {
                        self.paid.extend(end.orders.into_iter().filter(|(_, order)| order.paid));
                        return Ok(Settled { at: done.then_some(now), verdict });
                    }
                }
                // Not to be read yet is not settled yet.
                Err(error) if now > until => return Err(error),
                Err(_) => {}
            }
            std::thread::sleep(AGAIN);
        }
    }

    /// Asks again for these orders; returns those that got no answer still.
    fn ask_again(&mut self, open: Vec<u64>) -> Vec<u64> {
        let mut left = vec![];
        for order in open {
            let answer =
                self.runtime.block_on(async { self.client().post(format_args!("/orders/checkout/{order}")).await });
            match answer {
                Answer::Unknown(_) | Answer::Unsent => left.push(order),
                known => _ = self.answers.insert(order.to_string().into(), known),
            }
        }
        left
    }

    /// Compares the orders of this event and all accounts with what is known.
    fn look(&self, touched: &BTreeSet<Id>) -> anyhow::Result<(Verdict, Snapshot)> {
        let ids = Ids { orders: touched.iter().map(Id::clone).collect(), ..Ids::batch(0, ITEMS, USERS) };
        let mut end = self.read(ids)?;
        for (id, order) in &self.paid {
            end.orders.entry(Id::clone(id)).or_insert_with(|| order.clone());
        }
        let seen = |id: &Id| touched.contains(id) || self.paid.contains_key(id);
        let answers = self.answers.iter().filter(|(id, _)| seen(id)).map(|(id, answer)| (Id::clone(id), *answer));
        Ok((check(&self.start, &answers.collect(), &end), end))
    }

    /// Reads every order that was ever begun, and all accounts, and compares them with all answers.
    pub(super) fn audit_everything(&self, begun: u64) -> anyhow::Result<Verdict> {
        let end = self.read(Ids::batch(begun.min(ORDERS), ITEMS, USERS))?;
        Ok(check(&self.start, &self.answers, &end))
    }
}

/// Takes all faults back, with this patience for each of the requests.
///
/// # Errors
/// If a service does not say that it has.
pub(super) async fn clear_faults(target: &Arc<Target>, patience: Duration) -> anyhow::Result<()> {
    post(target, patience, "/stock/fault/clear").await?;
    post(target, patience, "/payment/fault/clear").await
}

async fn post(target: &Arc<Target>, patience: Duration, path: &str) -> anyhow::Result<()> {
    let mut client = Client::new(Arc::clone(target), patience);
    match client.post(format_args!("{path}")).await {
        Answer::Accepted => Ok(()),
        other => bail!("POST {path} {} {}", in_words(other), String::from_utf8_lossy(client.body())),
    }
}

/// An answer other than the one that was wanted, behind the request.
fn in_words(answer: Answer) -> String {
    match answer {
        Answer::Accepted => "was answered, but not as it should be:".to_owned(),
        Answer::Refused(status) => format!("was answered {status}:"),
        Answer::Unsent => "could not be sent: nobody listens there. `settle doctor` looks why".to_owned(),
        Answer::Unknown(Doubt::Status(status)) => format!("was answered {status}:"),
        Answer::Unknown(Doubt::Timeout) => "got no answer in time: `settle doctor` looks why".to_owned(),
        Answer::Unknown(doubt) => format!("got no answer that can be used ({doubt:?}): `settle doctor` looks why"),
    }
}
