//! Reads a [`Snapshot`] over HTTP, many connections at a time.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use serde::de::DeserializeOwned;
use tokio::task::{JoinSet, LocalSet};

use super::{Ids, Snapshot};
use crate::LoadError;
use crate::client::{Answer, Client, Doubt, Segment, Target};
use crate::contract::{Id, Kind, problem_code};

/// How often a read is tried before it counts as an error. Reads change nothing, so they may be repeated.
const READ_ATTEMPTS: usize = 3;

/// How reading a snapshot goes about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reading {
    /// How many connections read at the same time; at least 1.
    pub connections: usize,
    /// The time limit of each read.
    pub timeout: Duration,
}

/// Reads the orders, and then the items and users of `ids` *and* those that the orders name; `ids` then holds them
/// too. What the server answers 4xx for is left out of the snapshot.
///
/// Runs on the thread that waits for it: use a current-thread runtime.
///
/// # Errors
/// [`LoadError::Unreadable`] when a read got no usable answer in three attempts.
pub async fn fetch(target: &Arc<Target>, ids: &mut Ids, reading: Reading) -> Result<Snapshot, LoadError> {
    let orders = fetch_kind(target, Kind::Order, &ids.orders, reading).await?;
    ids.add_named_by(&orders);
    let items = fetch_kind(target, Kind::Item, &ids.items, reading).await?;
    let users = fetch_kind(target, Kind::User, &ids.users, reading).await?;
    Ok(Snapshot { orders, items, users })
}

async fn fetch_kind<T: DeserializeOwned + 'static>(
    target: &Arc<Target>,
    kind: Kind,
    ids: &[Id],
    reading: Reading,
) -> Result<BTreeMap<Id, T>, LoadError> {
    let work =
        Rc::new(Work { ids: ids.to_vec(), next: Cell::new(0), found: RefCell::new(Vec::with_capacity(ids.len())) });
    LocalSet::new()
        .run_until(async {
            let mut readers = JoinSet::new();
            for _ in 0..reading.connections.clamp(1, ids.len().max(1)) {
                let client = Client::new(Arc::clone(target), reading.timeout);
                readers.spawn_local(read_all(client, kind, Rc::clone(&work)));
            }
            while let Some(ended) = readers.join_next().await {
                ended.map_err(|e| LoadError::Internal(e.to_string()))??;
            }
            Ok(work.found.take().into_iter().collect())
        })
        .await
}

/// What the readers of one kind share: the ids, the place of the next one, and what was found.
struct Work<T> {
    ids: Vec<Id>,
    next: Cell<usize>,
    found: RefCell<Vec<(Id, T)>>,
}

async fn read_all<T: DeserializeOwned>(mut client: Client, kind: Kind, work: Rc<Work<T>>) -> Result<(), LoadError> {
    while let Some(id) = work.ids.get(work.next.get()) {
        work.next.set(work.next.get() + 1);
        if let Some(value) = read_one(&mut client, kind, id).await? {
            work.found.borrow_mut().push((id.clone(), value));
        }
    }
    Ok(())
}

async fn read_one<T: DeserializeOwned>(client: &mut Client, kind: Kind, id: &Id) -> Result<Option<T>, LoadError> {
    let mut problem = String::new();
    for _ in 0..READ_ATTEMPTS {
        let segment = Segment(id);
        let answer = match kind {
            Kind::Order => client.get(format_args!("/orders/find/{segment}")).await,
            Kind::Item => client.get(format_args!("/stock/find/{segment}")).await,
            Kind::User => client.get(format_args!("/payment/find_user/{segment}")).await,
        };
        match answer {
            Answer::Refused(404 | 400) => return Ok(None),
            Answer::Accepted => match serde_json::from_slice(client.body()) {
                Ok(value) => return Ok(Some(value)),
                Err(e) => problem = format!("the answer {:?} is not one: {e}", String::from_utf8_lossy(client.body())),
            },
            Answer::Refused(status) | Answer::Unknown(Doubt::Status(status)) => {
                problem = match problem_code(client.body()) {
                    Some(code) => format!("answered {status} {code}"),
                    None => format!("answered {status}"),
                };
            }
            Answer::Unknown(doubt) => problem = doubt.name().to_owned(),
            Answer::Unsent if client.found_nobody() => problem = "nobody listens any more".to_owned(),
            Answer::Unsent => problem = "no connection".to_owned(),
        }
    }
    Err(LoadError::Unreadable { kind, id: id.clone(), problem })
}
