//! The shop's calls as a client of the contract makes them, over one connection that is kept alive.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use crate::http::{self, Response};

/// How long an answer may take. Longer than anything the server waits for.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A client.
#[derive(Debug)]
pub struct Client {
    address: SocketAddr,
    stream: Option<TcpStream>,
}

/// An order as `/orders/find` shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// Whether it is paid.
    pub paid: bool,
    /// Units by item.
    pub items: BTreeMap<String, i64>,
    /// Whose it is.
    pub user: String,
    /// What it costs.
    pub total_cost: i64,
}

impl Client {
    /// A client of the server at `address`; it connects when it has something to say.
    pub fn new(address: SocketAddr) -> Self {
        Self { address, stream: None }
    }

    /// Sends a request and reads its answer.
    ///
    /// # Errors
    /// If no answer came: nobody knows then whether the request was carried out. The next request uses another connection.
    pub fn try_send(
        &mut self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> io::Result<Response> {
        self.write(&http::request(method, target, headers, body))?;
        self.hear()
    }

    /// Sends a request without a body, whose answer is [heard](Self::hear) later.
    ///
    /// # Errors
    /// If it can't be sent.
    pub fn begin(&mut self, method: &str, target: &str) -> io::Result<()> {
        self.write(&http::request(method, target, &[], ""))
    }

    fn write(&mut self, request: &[u8]) -> io::Result<()> {
        let mut stream = match self.stream.take() {
            Some(stream) => stream,
            None => {
                let stream = TcpStream::connect(self.address)?;
                stream.set_nodelay(true)?;
                stream.set_read_timeout(Some(PATIENCE))?;
                stream
            }
        };
        stream.write_all(request)?;
        self.stream = Some(stream);
        Ok(())
    }

    /// Reads the answer to the request that was sent last.
    ///
    /// # Errors
    /// As [`try_send`](Self::try_send), and if nothing was sent.
    pub fn hear(&mut self) -> io::Result<Response> {
        let mut stream = self.stream.take().ok_or(io::ErrorKind::NotConnected)?;
        let response = http::read_response(&mut stream)?;
        if response.header("connection") != "close" {
            self.stream = Some(stream);
        }
        Ok(response)
    }

    /// The same, where an answer must come, and where it must not be the server's fault.
    ///
    /// # Panics
    /// Without an answer, or on a 5xx.
    pub fn send(&mut self, method: &str, target: &str, headers: &[(&str, &str)], body: &str) -> Response {
        let answer = self.try_send(method, target, headers, body);
        let answer = answer.unwrap_or_else(|error| panic!("{method} {target} was not answered: {error}"));
        assert!(answer.status < 500, "{method} {target}: {answer:?}");
        answer
    }

    /// GET, as [`send`](Self::send).
    pub fn get(&mut self, target: &str) -> Response {
        self.send("GET", target, &[], "")
    }

    /// POST without a body, as [`send`](Self::send).
    pub fn post(&mut self, target: &str) -> Response {
        self.send("POST", target, &[], "")
    }

    /// POST under an idempotency key.
    pub fn post_keyed(&mut self, target: &str, key: &str) -> Response {
        self.send("POST", target, &[("idempotency-key", key)], "")
    }

    /// A POST that must succeed.
    ///
    /// # Panics
    /// If it does not.
    pub fn done(&mut self, target: &str) -> Response {
        let answer = self.post(target);
        assert_eq!(answer.status, 200, "{target}: {answer:?}");
        answer
    }

    fn made(&mut self, target: &str, member: &str) -> String {
        self.done(target).member(member).unwrap_or_else(|| panic!("{target} gives no {member}"))
    }

    /// A new item with so much stock.
    pub fn new_item(&mut self, stock: i64, price: i64) -> String {
        let item = self.made(&format!("/stock/item/create/{price}"), "item_id");
        if stock > 0 {
            self.done(&format!("/stock/add/{item}/{stock}"));
        }
        item
    }

    /// A new user with so much credit.
    pub fn new_user(&mut self, credit: i64) -> String {
        let user = self.made("/payment/create_user", "user_id");
        if credit > 0 {
            self.done(&format!("/payment/add_funds/{user}/{credit}"));
        }
        user
    }

    /// A new order with these items.
    pub fn new_order(&mut self, user: &str, items: &[(&str, i64)]) -> String {
        let order = self.made(&format!("/orders/create/{user}"), "order_id");
        for (item, quantity) in items {
            self.done(&format!("/orders/addItem/{order}/{item}/{quantity}"));
        }
        order
    }

    /// Checks an order out.
    pub fn check_out(&mut self, order: &str) -> Response {
        self.post(&format!("/orders/checkout/{order}"))
    }

    fn number(&mut self, target: &str, member: &str) -> i64 {
        let answer = self.get(target);
        assert_eq!(answer.status, 200, "{target}: {answer:?}");
        answer.json()[member].as_i64().unwrap_or_else(|| panic!("{target} shows no {member}: {answer:?}"))
    }

    /// An item's stock.
    pub fn stock(&mut self, item: &str) -> i64 {
        self.number(&format!("/stock/find/{item}"), "stock")
    }

    /// A user's credit.
    pub fn credit(&mut self, user: &str) -> i64 {
        self.number(&format!("/payment/find_user/{user}"), "credit")
    }

    /// An order.
    pub fn order(&mut self, order: &str) -> Order {
        let answer = self.get(&format!("/orders/find/{order}"));
        assert_eq!(answer.status, 200, "{order}: {answer:?}");
        let found = answer.json();
        let item = |pair: &serde_json::Value| (pair[0].as_str().unwrap().to_owned(), pair[1].as_i64().unwrap());
        Order {
            paid: found["paid"].as_bool().unwrap(),
            items: found["items"].as_array().unwrap().iter().map(item).collect(),
            user: found["user_id"].as_str().unwrap().to_owned(),
            total_cost: found["total_cost"].as_i64().unwrap(),
        }
    }

    /// Waits until nothing is under way any more: every checkout that was answered is settled.
    ///
    /// # Panics
    /// If that takes too long.
    pub fn wait_until_settled(&mut self) {
        let until = Instant::now() + PATIENCE;
        loop {
            let answer = self.try_send("GET", "/health/deep", &[], "").unwrap();
            if answer.json()["unsettled"] == 0 {
                return;
            }
            assert!(Instant::now() < until, "it does not settle: {answer:?}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// Checks the orders out, all at the same time, each over a connection of its own: every request is sent before the first answer is
/// read. Gives the answers, in order.
///
/// # Panics
/// If an order is not answered.
pub fn check_out_at_once(address: SocketAddr, orders: &[impl AsRef<str>]) -> Vec<Response> {
    crate::allow_many_connections();
    let mut clients: Vec<Client> = orders.iter().map(|_| Client::new(address)).collect();
    for client in &mut clients {
        client.get("/health");
    }
    for (client, order) in clients.iter_mut().zip(orders) {
        client.begin("POST", &format!("/orders/checkout/{}", order.as_ref())).unwrap();
    }
    let hear = |(client, order): (&mut Client, _)| {
        client.hear().unwrap_or_else(|error| panic!("order {} was not answered: {error}", AsRef::as_ref(order)))
    };
    clients.iter_mut().zip(orders).map(hear).collect()
}
