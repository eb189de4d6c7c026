//! A shop in memory that speaks the contract: correct by default, and wrong in exactly one way on request.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::Ipv4Addr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes, HttpBody};
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use clap::Parser;
use hyper::body::Frame;
use load::LoadArgs;
use serde_json::json;

/// In which way the shop is wrong. An order's fault strikes when that order is checked out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) enum Fault {
    #[default]
    None,
    /// Takes the money twice.
    ChargeTwice(&'static str),
    /// Takes one unit more of the order's first item than it sells.
    LoseUnit(&'static str),
    /// Answers 200 and does nothing.
    SayPaid(&'static str),
    /// Sells and answers 400.
    SayRefused(&'static str),
    /// Sells and breaks the connection in the middle of the answer.
    BreakOff(&'static str),
    /// Does not sell and breaks the connection in the middle of the answer.
    BreakOffUnsold(&'static str),
    /// Does nothing and answers 500.
    InternalError(&'static str),
    /// Sells one order more than there is stock, without touching the stock.
    Oversell,
    /// Stalls everything once, when this many requests have arrived.
    StallOnce { at: u64, time: Duration },
    /// Answers 424 instead of showing this order.
    Unreadable(&'static str),
    /// Ids are JSON numbers, and an order's items an object.
    LooseTypes,
}

struct Order {
    paid: bool,
    user: String,
    items: Vec<(String, i64)>,
    total: i64,
}

#[derive(Default)]
struct Shop {
    fault: Fault,
    orders: HashMap<String, Order>,
    /// Stock and price.
    items: HashMap<String, (i64, i64)>,
    users: HashMap<String, i64>,
    requests: u64,
    checkouts: u64,
    oversold: bool,
}

/// A running shop; it stops when dropped.
pub(crate) struct Server {
    pub(crate) url: String,
    shop: Shared,
    runtime: Mutex<Option<tokio::runtime::Runtime>>,
}

type Shared = Arc<Mutex<Shop>>;

impl Server {
    pub(crate) fn start(fault: Fault) -> Self {
        let shop: Shared = Arc::new(Mutex::new(Shop { fault, ..Shop::default() }));
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = runtime.block_on(tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))).unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let app = router(Arc::clone(&shop));
        runtime.spawn(async move { axum::serve(listener, app).await });
        Self { url, shop, runtime: Mutex::new(Some(runtime)) }
    }

    /// The flags of a small run against this server, and then `flags`.
    pub(crate) fn args(&self, flags: &str) -> LoadArgs {
        #[derive(Parser)]
        struct Cli {
            #[command(flatten)]
            args: LoadArgs,
        }
        let small = format!("load --url {} --quiet", self.url);
        let words = small.split_whitespace().chain(flags.split_whitespace());
        let mut args = Cli::try_parse_from(words).unwrap().args;
        args.connections.get_or_insert(8);
        args
    }

    /// How many checkouts arrived.
    pub(crate) fn checkouts(&self) -> u64 {
        self.shop.lock().unwrap().checkouts
    }

    /// Ends it as if it were killed: nobody listens any more.
    pub(crate) fn kill(&self) {
        let runtime = self.runtime.lock().unwrap().take();
        runtime.into_iter().for_each(tokio::runtime::Runtime::shutdown_background);
    }

    /// How many requests of any kind arrived.
    pub(crate) fn requests(&self) -> u64 {
        self.shop.lock().unwrap().requests
    }

    /// Changes an item's stock behind the contract's back.
    pub(crate) fn set_stock(&self, item: &str, stock: i64) {
        self.shop.lock().unwrap().items.get_mut(item).unwrap().0 = stock;
    }

    /// The user of an order, and what it costs.
    pub(crate) fn payer(&self, order: &str) -> (String, i64) {
        let shop = self.shop.lock().unwrap();
        (shop.orders[order].user.clone(), shop.orders[order].total)
    }

    /// The first item of an order.
    pub(crate) fn first_item(&self, order: &str) -> String {
        self.shop.lock().unwrap().orders[order].items[0].0.clone()
    }
}

fn router(shop: Shared) -> Router {
    Router::new()
        .route("/orders/create/{user}", post(create_order))
        .route("/orders/find/{order}", get(find_order))
        .route("/orders/addItem/{order}/{item}/{quantity}", post(add_item))
        .route("/orders/checkout/{order}", post(checkout))
        .route("/orders/batch_init/{n}/{items}/{users}/{price}", post(batch_orders))
        .route("/stock/item/create/{price}", post(create_item))
        .route("/stock/find/{item}", get(find_item))
        .route("/stock/add/{item}/{amount}", post(add_stock))
        .route("/stock/batch_init/{n}/{stock}/{price}", post(batch_items))
        .route("/payment/create_user", post(create_user))
        .route("/payment/find_user/{user}", get(find_user))
        .route("/payment/add_funds/{user}/{amount}", post(add_funds))
        .route("/payment/batch_init/{n}/{credit}", post(batch_users))
        .route("/fixed", get(|| async { "fixed" }).post(|| async { "fixed" }))
        .layer(axum::middleware::from_fn_with_state(Arc::clone(&shop), stall))
        .with_state(shop)
}

async fn stall(State(shop): State<Shared>, request: axum::extract::Request, next: axum::middleware::Next) -> Response {
    let time = {
        let mut shop = shop.lock().unwrap();
        shop.requests += 1;
        match shop.fault {
            Fault::StallOnce { at, time } if shop.requests == at => Some(time),
            _ => None,
        }
    };
    if let Some(time) = time {
        // On purpose the blocking kind: the only worker thread stands still, and with it the whole server.
        std::thread::sleep(time);
    }
    next.run(request).await
}

fn lock(shop: &Shared) -> MutexGuard<'_, Shop> {
    shop.lock().unwrap()
}

fn refuse(status: u16, code: &str) -> Response {
    let body = json!({"status": status, "code": code}).to_string();
    (StatusCode::from_u16(status).unwrap(), body).into_response()
}

fn created(field: &str, id: usize, fault: &Fault) -> Response {
    let id = if *fault == Fault::LooseTypes { json!(id) } else { json!(id.to_string()) };
    axum::Json(json!({field: id})).into_response()
}

async fn create_order(State(shop): State<Shared>, Path(user): Path<String>) -> Response {
    let shop = &mut *lock(&shop);
    let id = shop.orders.len();
    shop.orders.insert(id.to_string(), Order { paid: false, user, items: vec![], total: 0 });
    created("order_id", id, &shop.fault)
}

async fn find_order(State(shop): State<Shared>, Path(id): Path<String>) -> Response {
    let shop = lock(&shop);
    if matches!(shop.fault, Fault::Unreadable(order) if order == id) {
        return refuse(424, "order_unavailable");
    }
    let Some(order) = shop.orders.get(&id) else {
        return refuse(404, "order_not_found");
    };
    let body = if shop.fault == Fault::LooseTypes {
        let items: serde_json::Map<_, _> =
            order.items.iter().map(|(item, quantity)| (item.clone(), json!(quantity))).collect();
        let user: u64 = order.user.parse().unwrap();
        json!({"paid": order.paid, "items": items, "user_id": user, "total_cost": order.total.to_string()})
    } else {
        json!({"order_id": id, "paid": order.paid, "items": order.items, "user_id": order.user,
               "total_cost": order.total})
    };
    axum::Json(body).into_response()
}

async fn add_item(State(shop): State<Shared>, Path((id, item, quantity)): Path<(String, String, i64)>) -> Response {
    let shop = &mut *lock(&shop);
    let Some(&(_, price)) = shop.items.get(&item) else {
        return refuse(404, "item_not_found");
    };
    let Some(order) = shop.orders.get_mut(&id) else {
        return refuse(404, "order_not_found");
    };
    match order.items.iter_mut().find(|(known, _)| *known == item) {
        Some((_, units)) => *units += quantity,
        None => order.items.push((item, quantity)),
    }
    order.total += price * quantity;
    "added".into_response()
}

async fn checkout(State(shop): State<Shared>, Path(id): Path<String>) -> Response {
    let shop = &mut *lock(&shop);
    shop.checkouts += 1;
    let fault = shop.fault.clone();
    let strikes = |order: &str| order == id;
    match fault {
        Fault::SayPaid(order) if strikes(order) => return "Checkout successful".into_response(),
        Fault::InternalError(order) if strikes(order) => {
            return StatusCode::INTERNAL_SERVER_ERROR.into_response();
        }
        Fault::BreakOffUnsold(order) if strikes(order) => return broken_off(),
        _ => {}
    }
    let Some(order) = shop.orders.get_mut(&id) else {
        return refuse(404, "order_not_found");
    };
    if order.paid {
        return "Checkout successful".into_response();
    }
    let is_sold_out = order.items.iter().any(|(item, units)| shop.items[item].0 < *units);
    if is_sold_out && (fault != Fault::Oversell || shop.oversold) {
        return refuse(409, "insufficient_stock");
    }
    let credit = shop.users.get_mut(&order.user).unwrap();
    if *credit < order.total {
        return refuse(409, "insufficient_credit");
    }
    *credit -= order.total;
    order.paid = true;
    if is_sold_out {
        shop.oversold = true;
    } else {
        for (item, units) in &order.items {
            shop.items.get_mut(item).unwrap().0 -= units;
        }
    }
    match fault {
        Fault::ChargeTwice(order_id) if strikes(order_id) => *credit -= order.total,
        Fault::LoseUnit(order_id) if strikes(order_id) => {
            shop.items.get_mut(&order.items[0].0).unwrap().0 -= 1;
        }
        Fault::SayRefused(order_id) if strikes(order_id) => return refuse(400, "rolled_back"),
        Fault::BreakOff(order_id) if strikes(order_id) => return broken_off(),
        _ => {}
    }
    "Checkout successful".into_response()
}

/// An answer that ends in the middle: the connection closes before the promised length is there.
fn broken_off() -> Response {
    struct Half(bool);
    impl HttpBody for Half {
        type Data = Bytes;
        type Error = std::io::Error;
        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, std::io::Error>>> {
            let is_first = !std::mem::replace(&mut self.0, true);
            Poll::Ready(Some(if is_first {
                Ok(Frame::data(Bytes::from_static(b"Checkout succ")))
            } else {
                Err(std::io::Error::other("broken off"))
            }))
        }
    }
    ([("content-length", "19")], Body::new(Half(false))).into_response()
}

async fn batch_orders(
    State(shop): State<Shared>,
    Path((n, items, users, price)): Path<(usize, usize, usize, i64)>,
) -> Result<Response, Infallible> {
    let shop = &mut *lock(&shop);
    for id in 0..n {
        // Two different items where there are two, and the same one twice where there is one.
        let (one, two) = (id % items, (id / 2 + 1) % items);
        let lines =
            if one == two { vec![(one.to_string(), 2)] } else { vec![(one.to_string(), 1), (two.to_string(), 1)] };
        let order = Order { paid: false, user: (id % users).to_string(), items: lines, total: 2 * price };
        shop.orders.insert(id.to_string(), order);
    }
    Ok("Batch init for orders successful".into_response())
}

async fn create_item(State(shop): State<Shared>, Path(price): Path<i64>) -> Response {
    let shop = &mut *lock(&shop);
    let id = shop.items.len();
    shop.items.insert(id.to_string(), (0, price));
    created("item_id", id, &shop.fault)
}

async fn find_item(State(shop): State<Shared>, Path(id): Path<String>) -> Response {
    match lock(&shop).items.get(&id) {
        Some((stock, price)) => axum::Json(json!({"stock": stock, "price": price})).into_response(),
        None => refuse(404, "item_not_found"),
    }
}

async fn add_stock(State(shop): State<Shared>, Path((id, amount)): Path<(String, i64)>) -> Response {
    match lock(&shop).items.get_mut(&id) {
        Some((stock, _)) => *stock += amount,
        None => return refuse(404, "item_not_found"),
    }
    "updated".into_response()
}

async fn batch_items(State(shop): State<Shared>, Path((n, stock, price)): Path<(usize, i64, i64)>) -> Response {
    lock(&shop).items.extend((0..n).map(|id| (id.to_string(), (stock, price))));
    "Batch init for stock successful".into_response()
}

async fn create_user(State(shop): State<Shared>) -> Response {
    let shop = &mut *lock(&shop);
    let id = shop.users.len();
    shop.users.insert(id.to_string(), 0);
    created("user_id", id, &shop.fault)
}

async fn find_user(State(shop): State<Shared>, Path(id): Path<String>) -> Response {
    match lock(&shop).users.get(&id) {
        Some(credit) => axum::Json(json!({"user_id": id, "credit": credit})).into_response(),
        None => refuse(404, "user_not_found"),
    }
}

async fn add_funds(State(shop): State<Shared>, Path((id, amount)): Path<(String, i64)>) -> Response {
    match lock(&shop).users.get_mut(&id) {
        Some(credit) => *credit += amount,
        None => return refuse(404, "user_not_found"),
    }
    "updated".into_response()
}

async fn batch_users(State(shop): State<Shared>, Path((n, credit)): Path<(usize, i64)>) -> Response {
    lock(&shop).users.extend((0..n).map(|id| (id.to_string(), credit)));
    "Batch init for users successful".into_response()
}
