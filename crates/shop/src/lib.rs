//! The shop: orders, stock and payment behind the public HTTP contract.
//!
//! | file            | what it is                                                                |
//! |-----------------|---------------------------------------------------------------------------|
//! | [`orders`]      | orders and the transaction log, one pure state machine                    |
//! | [`checkout`]    | the checkout, defined once: its services, its steps, its claim            |
//! | [`audit`]       | every paid order against both ledgers                                     |
//! | [`auditor`]     | the same all the time, a page at a time, while checkouts run             |
//! | [`server`]      | the wiring: three databases, three services, one orchestrator             |
//! | `*_http`        | thin handlers: arguments in, a command to a store, an answer or a problem |
//! | [`serve_connection`] | plain checkouts straight from the socket; the rest to hyper          |
//! | `single`        | one thread for all checkouts                                              |
//! | [`Front`]       | counts and measures every other request, and hands it to the router       |
//! | [`participant`] | stock and payment as the orchestrator's participants                      |
//! | [`order_service`] | the order service, wherever its database is                             |
//! | [`ledger_service`] | stock and payment beside that: termination, retention                  |
//! | [`ports`]       | what the services need of each other, in one process or over a wire       |
//! | [`order_store`] | the port of the orders' database, its suite, and the embedded store as one    |
//! | [`redis_orders`] | the same port on Redis, for order services that are processes of their own |
//! | [`ledger_store`] | the embedded store as the orchestrator's port of a ledger's database         |
//! | [`faults`]      | fault injection at a participant                                          |
//! | [`questions`]   | what the services ask each other, as bytes, and who answers               |
//! | [`vitals`]      | health and metrics                                                        |
//! | [`openapi`]     | each route with its description, and the document made of that            |
//! | [`answered`]    | what the log says of checkouts that nobody counted                       |
//! | [`admin`]       | the operators' door                                                       |
//! | [`trail`]       | what operators did, kept with the orders                                  |
//! | [`guard`]       | who may use what is the operators', and what browsers may not do for other sites |
//! | [`log_level`]   | what is logged, changed at that door                                      |
//! | [`problem`]     | failures as problem details                                               |
//! | [`metrics`]     | counters and histograms                                                   |

pub mod admin;
pub mod answered;
pub mod audit;
pub mod auditor;
pub mod checkout;
mod checkout_http;
mod connection;
pub mod faults;
mod flights;
mod front;
pub mod guard;
mod http1;
mod label;
mod ledger_http;
pub mod ledger_service;
pub mod ledger_store;
pub mod log_level;
pub mod metrics;
pub mod openapi;
pub mod order_service;
pub mod order_store;
pub mod orders;
mod orders_http;
pub mod participant;
mod payment_http;
pub mod ports;
pub mod problem;
pub mod questions;
pub mod redis_orders;
mod request;
mod rewound;
pub mod server;
mod single;
mod stock_http;
pub mod store;
pub mod trail;
pub mod vitals;

pub use connection::serve_connection;
pub use front::Front;
pub use server::{Config, Found, OpenShopError, Shop};
