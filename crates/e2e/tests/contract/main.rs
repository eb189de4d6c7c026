//! The HTTP contract, line by line and rule by rule, against the real binary.
//!
//! | file          | what it shows                                                              |
//! |---------------|----------------------------------------------------------------------------|
//! | `orders`      | create, find, addItem                                                      |
//! | `ledgers`     | stock and payment: create, find, add, subtract, pay                        |
//! | `arguments`   | numbers that are none, sums that overflow, ids of nothing                  |
//! | `checkout`    | what a checkout answers, and that the answer is final                      |
//! | `connections` | one connection, whatever comes on it in whatever pieces                     |
//! | `idempotency` | keys                                                                       |
//! | `batch_init`  | seeding                                                                    |
//! | `operations`  | health, metrics, dead letters                                              |
//! | `operators`   | who is let in, what they see and do, and that it is kept                   |
//! | `faults`      | every fault at every point under both protocols                            |
//! | `nonsense`    | whatever else may arrive                                                   |

#![allow(clippy::unwrap_used, reason = "in a test a broken expectation is a failed test")]

mod arguments;
mod batch_init;
mod checkout;
mod connections;
mod faults;
mod idempotency;
mod ledgers;
mod nonsense;
mod operations;
mod operators;
mod orders;

use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, Weak};

use e2e::http::Response;
use e2e::{Client, Server};
use serde_json::Value;

/// The largest amount: every reader of JSON holds it exactly.
const MAX_AMOUNT: i64 = (1 << 53) - 1;

/// A server that tests share which run at the same time and touch only what they made themselves.
fn shared() -> Arc<Server> {
    static SHARED: Mutex<Weak<Server>> = Mutex::new(Weak::new());
    let mut shared = SHARED.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if let Some(server) = shared.upgrade() {
        return server;
    }
    let server = Arc::new(Server::start(&[]));
    *shared = Arc::downgrade(&server);
    server
}

/// A client of the shared server, which it keeps alive.
struct Visitor {
    client: Client,
    _server: Arc<Server>,
}

impl Deref for Visitor {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

impl DerefMut for Visitor {
    fn deref_mut(&mut self) -> &mut Client {
        &mut self.client
    }
}

fn visitor() -> Visitor {
    let server = shared();
    Visitor { client: server.client(), _server: server }
}

/// 200 with exactly this text.
#[track_caller]
fn assert_text(answer: &Response, text: &str) {
    assert_eq!((answer.status, answer.body.as_str()), (200, text));
    assert!(answer.header("content-type").starts_with("text/plain"), "{answer:?}");
}

/// 200 with exactly these members.
#[track_caller]
fn assert_json(answer: &Response, members: &Value) {
    assert_eq!((answer.status, &answer.json()), (200, members));
    assert_eq!(answer.header("content-type"), "application/json");
}

/// A refusal as problem details, with these ids among its members.
#[track_caller]
fn assert_refused(answer: &Response, status: u16, code: &str, ids: &[(&str, &str)]) {
    assert_eq!(answer.status, status, "{answer:?}");
    assert_eq!(answer.header("content-type"), "application/problem+json", "{answer:?}");
    let problem = answer.json();
    assert_eq!((problem["code"].as_str(), problem["status"].as_u64()), (Some(code), Some(status.into())), "{problem}");
    for member in ["type", "title", "detail"] {
        assert!(problem[member].as_str().is_some_and(|text| !text.is_empty()), "{member} of {problem}");
    }
    for (member, id) in ids {
        assert_eq!(problem[*member], **id, "{problem}");
    }
}
