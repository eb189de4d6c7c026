//! Measures recovery: leaves 10,000 transactions in doubt behind (staged, prepared everywhere, undecided, as a crash would) and
//! times how long the shop takes until each is committed and settled.
//!
//! `cargo run --release -p settle-shop --example recovery -- [TRANSACTIONS]`

use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use embedded::Store;
use ledger::{Account, EntityId, Ledger, LedgerCommand};
use orchestrator::{Clock, SystemClock};
use protocol::log::{LogCommand, LogReply, Writer};
use protocol::{Name, Order, Protocol, Recovery, Transaction, TransactionId, Verb};
use shop::checkout::{CHECKOUT, Claim, STOCK, steps};
use shop::orders::{Line, OrderBook, OrdersCommand, OrdersReply};
use shop::{Config, Shop};

/// Submits commands and waits until all are durable.
fn all<M: embedded::Machine>(store: &Store<M>, commands: Vec<M::Command>) -> Result<Vec<M::Reply>, Box<dyn Error>> {
    let (send, receive) = channel();
    store.submit_all(commands, move |replies| _ = send.send(replies));
    Ok(receive.recv()?.into_iter().collect::<Result<_, _>>()?)
}

fn leave_in_doubt(data: &Path, count: u64) -> Result<(), Box<dyn Error>> {
    let options = embedded::Options::default();
    let (orders, _) = Store::<OrderBook>::open(&data.join("orders"), options.clone())?;
    let (stock, _) = Store::<Ledger>::open(&data.join("stock"), options.clone())?;
    let (payment, _) = Store::<Ledger>::open(&data.join("payment"), options)?;
    let now = SystemClock::default().now();
    let register = LogCommand::Register { instance: Name::literal("shop"), now, lease: u64::MAX };
    let registered = all(&orders, vec![OrdersCommand::Log(register)])?;
    let Some(OrdersReply::Log(LogReply::Registered(epoch))) = registered.into_iter().next() else {
        return Err("the log did not register the instance".into());
    };
    let writer = Writer { instance: Name::literal("shop"), epoch };
    for (store, amount) in [(&stock, 2), (&payment, 2)] {
        all(store, vec![LedgerCommand::Replace { count, available: amount, price: 1 }])?;
    }
    let (mut staged, mut holds) = (Vec::new(), [Vec::new(), Vec::new()]);
    for n in 0..count {
        let order = EntityId::number(n);
        let line = Line { item: order, quantity: 2, price: 1 };
        staged.push(OrdersCommand::Create { order, user: order, key: None });
        staged.push(OrdersCommand::AddItem { order, line, key: None });
        let version = 2 * n + 2;
        let picture = shop::orders::Order {
            user: order,
            lines: vec![line].into(),
            state: shop::orders::OrderState::Open,
            version,
        };
        let mut random = [0; 16];
        random[..8].copy_from_slice(&n.to_be_bytes());
        let transaction = Transaction {
            id: TransactionId::new(now, random),
            definition: CHECKOUT,
            protocol: Protocol::TwoPhase,
            order: Order::Parallel,
            recovery: Recovery::Backward,
            steps: steps(&picture)?.into(),
            context: Claim { order, version }.encode()?,
        };
        for (step, part) in transaction.positions().zip(transaction.steps.iter()) {
            let command = transaction.command(step, Verb::Prepare).ok_or("the step is its own")?;
            holds[usize::from(part.service != STOCK)].push(LedgerCommand::Branch(command));
        }
        staged.push(OrdersCommand::Log(LogCommand::Stage { writer, transaction: Arc::new(transaction) }));
    }
    let replies = all(&orders, staged)?;
    let staged = replies.iter().filter(|reply| matches!(reply, OrdersReply::Log(LogReply::Staged))).count();
    assert_eq!(staged as u64, count, "every transaction is staged");
    let [stock_holds, payment_holds] = holds;
    all(&stock, stock_holds)?;
    all(&payment, payment_holds)?;
    orders.close()?;
    stock.close()?;
    payment.close()?;
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let count: u64 = std::env::args().nth(1).map_or(Ok(10_000), |text| text.parse())?;
    let data = std::env::temp_dir().join(format!("settle-recovery-{}", std::process::id()));
    std::fs::create_dir_all(&data)?;
    leave_in_doubt(&data, count)?;
    let began = Instant::now();
    let config = Config { data: data.clone(), ..Config::default() };
    let (shop, _) = Shop::open(config).await?;
    let serving = began.elapsed();
    while shop.orchestrator().engine().is_busy() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let settled = began.elapsed();
    let paid = shop.orders().read(|book| book.paid().orders)?;
    let sold = |ledger: &Ledger| ledger.accounts().filter(|(_, account)| is_sold(account)).count();
    let (items, users) = (shop.ledgers().stock.read(sold)?, shop.ledgers().payment.read(sold)?);
    assert_eq!((paid, items as u64, users as u64), (count, count, count), "all of them are committed, everywhere");
    shop.shut_down(Duration::from_secs(10)).await;
    std::fs::remove_dir_all(&data)?;
    println!(
        "{{\"transactions\":{count},\"serving_seconds\":{:.3},\"settled_seconds\":{:.3}}}",
        serving.as_secs_f64(),
        settled.as_secs_f64()
    );
    Ok(())
}

fn is_sold(account: &Account) -> bool {
    account.settled == 2 && account.held == 0 && account.available == 0
}
