//! Fills the shop before a run, and says which ids the run is about.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::{JoinSet, LocalSet};

use crate::LoadError;
use crate::args::Plan;
use crate::audit::{Ids, batch_ids};
use crate::client::{Answer, Client, Segment};
use crate::contract::{Id, created_id};
use crate::scenario::{Queue, Scenario, Work};

/// A server may take this long to make a batch, whatever the limit of a measured request is.
const BATCH_TIMEOUT: Duration = Duration::from_mins(2);
/// Connections that make the accounts of the consistency scenario.
const SEEDERS: u64 = 32;

/// A shop that is ready for a run.
#[derive(Debug)]
pub struct Prepared {
    /// What the connections share.
    pub work: Work,
    /// What the audit reads; none of it for a fixed request.
    pub ids: Ids,
}

/// Fills the shop as the plan says (nothing is written with `--no-seed`) and lists what the run is about.
///
/// # Errors
/// [`LoadError::Unreachable`] without a server, [`LoadError::Seed`] when it does not answer 2xx.
pub async fn prepare(plan: &Plan) -> Result<Prepared, LoadError> {
    let sizes = plan.sizes;
    let mut client = Client::new(Arc::clone(&plan.target), plan.timeout);
    client.connect().await?;
    match &plan.scenario {
        Scenario::Fixed { method, path } => {
            let work = Work::Fixed { method: *method, path: Arc::clone(path) };
            return Ok(Prepared { work, ids: Ids::default() });
        }
        Scenario::Consistency => return one_by_one(plan).await,
        Scenario::Uniform | Scenario::HotItem | Scenario::SoldOut | Scenario::Mixed => {}
    }
    let is_mixed = plan.scenario == Scenario::Mixed;
    if plan.seeds {
        let mut client = Client::new(Arc::clone(&plan.target), BATCH_TIMEOUT.max(plan.timeout));
        let (orders, items, users) = (sizes.orders, sizes.items, sizes.users);
        let (stock, credit, price) = (sizes.stock, sizes.credit, sizes.price);
        post(&mut client, format_args!("/stock/batch_init/{items}/{stock}/{price}")).await?;
        post(&mut client, format_args!("/payment/batch_init/{users}/{credit}")).await?;
        if !is_mixed {
            post(&mut client, format_args!("/orders/batch_init/{orders}/{items}/{users}/{price}")).await?;
        }
    }
    if is_mixed {
        let ids = Ids::batch(0, sizes.items, sizes.users);
        return Ok(Prepared { work: Work::Mixed { users: ids.users.clone(), items: ids.items.clone() }, ids });
    }
    let ids = Ids::batch(sizes.orders, sizes.items, sizes.users);
    let mut sequence = batch_ids(sizes.orders);
    fastrand::Rng::with_seed(plan.random_seed).shuffle(&mut sequence);
    Ok(Prepared { work: Work::Checkouts(Queue::new(sequence)), ids })
}

/// One item, and an order of one unit for each of many users, with the ordinary endpoints.
async fn one_by_one(plan: &Plan) -> Result<Prepared, LoadError> {
    let sizes = plan.sizes;
    let mut client = Client::new(Arc::clone(&plan.target), plan.timeout);
    let item = create(&mut client, format_args!("/stock/item/create/{}", sizes.price), "item_id").await?;
    if sizes.stock > 0 {
        post(&mut client, format_args!("/stock/add/{}/{}", Segment(&item), sizes.stock)).await?;
    }
    let left = Rc::new(Cell::new(sizes.orders));
    let ids = Rc::new(RefCell::new(Ids { items: vec![item.clone()], ..Ids::default() }));
    LocalSet::new()
        .run_until(async {
            let mut seeders = JoinSet::new();
            for _ in 0..SEEDERS.min(sizes.orders) {
                let client = Client::new(Arc::clone(&plan.target), plan.timeout);
                let (item, left, ids) = (item.clone(), Rc::clone(&left), Rc::clone(&ids));
                seeders.spawn_local(make_orders(client, item, sizes.credit, left, ids));
            }
            while let Some(ended) = seeders.join_next().await {
                ended.map_err(|e| LoadError::Internal(e.to_string()))??;
            }
            Ok::<(), LoadError>(())
        })
        .await?;
    let ids = ids.take();
    Ok(Prepared { work: Work::Checkouts(Queue::new(ids.orders.clone())), ids })
}

/// Makes users with an order each until none is left to make.
async fn make_orders(
    mut client: Client,
    item: Id,
    credit: i64,
    left: Rc<Cell<u64>>,
    ids: Rc<RefCell<Ids>>,
) -> Result<(), LoadError> {
    while let Some(after) = left.get().checked_sub(1) {
        left.set(after);
        let user = create(&mut client, format_args!("/payment/create_user"), "user_id").await?;
        if credit > 0 {
            post(&mut client, format_args!("/payment/add_funds/{}/{credit}", Segment(&user))).await?;
        }
        let order = create(&mut client, format_args!("/orders/create/{}", Segment(&user)), "order_id").await?;
        let path = format_args!("/orders/addItem/{}/{}/1", Segment(&order), Segment(&item));
        post(&mut client, path).await?;
        let mut ids = ids.borrow_mut();
        ids.users.push(user);
        ids.orders.push(order);
    }
    Ok(())
}

/// Sends a request that has to succeed. It is not repeated: the server may have carried it out.
async fn post(client: &mut Client, path: fmt::Arguments<'_>) -> Result<(), LoadError> {
    let answer = match client.post(path).await {
        Answer::Accepted => return Ok(()),
        Answer::Refused(status) => format!("{status}: {}", excerpt(client.body())),
        Answer::Unknown(crate::client::Doubt::Status(status)) => {
            format!("{status}: {}", excerpt(client.body()))
        }
        Answer::Unknown(doubt) => format!("by nothing usable ({})", doubt.name()),
        Answer::Unsent => "by nobody: no connection".to_owned(),
    };
    Err(LoadError::Seed { request: format!("POST {path}"), answer })
}

async fn create(client: &mut Client, path: fmt::Arguments<'_>, field: &str) -> Result<Id, LoadError> {
    post(client, path).await?;
    created_id(client.body(), field).ok_or_else(|| LoadError::Seed {
        request: format!("POST {path}"),
        answer: format!("2xx, but without {field:?}: {}", excerpt(client.body())),
    })
}

/// The beginning of a body, for a message.
fn excerpt(body: &[u8]) -> String {
    String::from_utf8_lossy(&body[..body.len().min(300)]).into_owned()
}
