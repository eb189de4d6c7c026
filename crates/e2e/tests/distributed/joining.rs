//! Databases that do not belong together: nothing moves between them.

use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use e2e::client::PATIENCE;
use e2e::http::Response;
use e2e::world::Shop as _;
use e2e::{Client, Instance, System};
use servers::redis::{self, Persistence};

/// A database in which there is nothing yet.
fn empty() -> redis::Server {
    redis::Server::start(Persistence::Always).unwrap()
}

fn at(section: &str, database: &redis::Server) -> String {
    format!("{section}.redis={}", database.address())
}

/// A customer with 100, and an order of one item of 30.
fn customer(client: &mut Client) -> (String, String) {
    let (item, user) = (client.new_item(10, 30), client.new_user(100));
    let order = client.new_order(&user, &[(&item, 1)]);
    (user, order)
}

fn assert_refused(answer: &Response) {
    let code = answer.member("code");
    assert_eq!((answer.status, code.as_deref()), (424, Some("service_unavailable")), "{answer:?}");
    assert!(!answer.header("retry-after").is_empty(), "{answer:?}");
}

fn wait_until_paid(client: &mut Client, order: &str) {
    let until = Instant::now() + PATIENCE;
    while client.check_out(order).status != 200 {
        assert!(Instant::now() < until, "{order} is not paid");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Begins to check an order out, and comes back when stock is prepared and payment takes its time.
pub(super) fn check_out_until_payment_waits(system: &System, order: &str) -> JoinHandle<()> {
    system.client().done("/payment/fault/set?point=before_prepare&action=delay&delay_ms=3000");
    let (address, target) = (system.address(), format!("/orders/checkout/{order}"));
    let waiting = std::thread::spawn(move || _ = Client::new(address).try_send("POST", &target, &[], ""));
    let until = Instant::now() + PATIENCE;
    let prepared = || system.services[1][0].client().try_send("GET", "/health/deep", &[], "").unwrap().json();
    while prepared()["prepared"] != 1 {
        assert!(Instant::now() < until, "stock prepares nothing");
        std::thread::sleep(Duration::from_millis(10));
    }
    waiting
}

#[test]
fn a_ledger_that_the_orders_do_not_know_takes_no_command() {
    let mut system = System::start(1, &[]);
    let mut client = system.client();
    let (user, order) = customer(&mut client);
    assert_eq!(client.check_out(&order).status, 200);
    // As when the server of payment comes back without its files, and the service is started again.
    system.services[2][0].kill();
    let lost = empty();
    let mut wrong = system.spawn_aside(2, "payment-2", &["--set", &at("payment", &lost)]);
    assert_eq!(wrong.wait().code(), Some(1), "{}", wrong.said());
    let said = wrong.said();
    assert!(said.contains("the payment database is another one") && said.contains("ledger:payment"), "{said}");
    // Where no order instance is there to say so, it answers nothing from what it has.
    system.orders()[0].kill();
    let alone = system.spawn_with(2, "payment-3", &["--set", &at("payment", &lost)]);
    for (method, target) in [("GET", "find_user/"), ("POST", "add_funds/")] {
        let more = if method == "POST" { "/5" } else { "" };
        let answer = alone.client().send(method, &format!("/payment/{target}{user}{more}"), &[], "");
        assert_refused(&answer);
    }
    assert_eq!(alone.client().get("/payment/health").status, 200, "it lives");
    drop(alone);
    [0, 2].into_iter().for_each(|service| system.restart(service));
    let mut client = system.client();
    assert_eq!(client.credit(&user), 70);
    let (_, another) = customer(&mut client);
    wait_until_paid(&mut client, &another);
    system.audit();
}

#[test]
fn orders_that_the_ledgers_do_not_belong_to_send_no_command() {
    let mut system = System::start(1, &[]);
    let mut client = system.client();
    let (user, order) = customer(&mut client);
    let staging = empty();
    let set = at("orders", &staging);
    let mut wrong = system.spawn_aside(0, "order-2", &["--set", &set]);
    assert_eq!(wrong.wait().code(), Some(1), "{}", wrong.said());
    assert!(
        wrong.said().contains("belongs to other orders") && wrong.said().contains("nats.prefix"),
        "{}",
        wrong.said()
    );
    // Where no ledger is there to say so, it serves, and has nobody to send anything to.
    system.services[1][0].kill();
    system.services[2][0].kill();
    let mut wrong = system.spawn_with(0, "order-3", &["--set", &set]);
    let mut stray = wrong.client();
    let health = stray.try_send("GET", "/health/deep", &[], "").unwrap();
    assert_eq!(health.json()["services"]["payment"], "down");
    let strays = stray.new_order(&user, &[]);
    assert!(stray.check_out(&strays).status >= 400);
    // The ledgers come back, and know whose they are, whichever order instance hears them.
    [1, 2].into_iter().for_each(|service| system.restart(service));
    assert_eq!(wrong.wait().code(), Some(1), "{}", wrong.said());
    assert!(wrong.said().contains("belongs to other orders"), "{}", wrong.said());
    let mut client = system.client();
    assert_eq!(client.credit(&user), 100);
    wait_until_paid(&mut client, &order);
    assert_eq!(client.credit(&user), 70);
    system.audit();
}

#[test]
fn a_ledger_that_has_belonged_to_orders_goes_on_while_none_of_them_answers() {
    let mut system = System::start(1, &[]);
    let mut client = system.client();
    let (user, order) = customer(&mut client);
    system.orders()[0].kill();
    system.services[2][0].kill();
    let back = system.services[2].remove(0).restart();
    back.wait_until_it_is_ready();
    system.services[2].push(back);
    system.restart(0);
    let mut client = system.client();
    wait_until_paid(&mut client, &order);
    assert_eq!(client.credit(&user), 70);
    system.audit();
}

#[test]
fn nor_does_it_wait_for_one_that_is_frozen() {
    let mut system = System::start(1, &[]);
    let user = system.client().new_user(100);
    system.services[2][0].kill();
    system.services[0][0].freeze();
    let back = system.services[2].remove(0).restart();
    assert_eq!(back.client().credit(&user), 100);
    system.services[2].push(back);
    system.services[0][0].thaw();
    system.audit();
}

/// Found by a stranger: recovery waited for ledgers that were asked whose they are only behind it.
#[test]
fn an_order_instance_that_was_killed_in_the_middle_comes_back_by_itself() {
    let mut system = System::start(1, &["--chaos", "--protocol", "2pc"]);
    let mut client = system.client();
    let (user, order) = customer(&mut client);
    let waiting = check_out_until_payment_waits(&system, &order);
    system.orders()[0].kill();
    waiting.join().unwrap();
    client.done("/payment/fault/clear");
    system.restart(0);
    let mut client = system.client();
    wait_until_paid(&mut client, &order);
    assert_eq!(client.credit(&user), 70);
    system.audit();
}

/// A second system on the same broker, with a prefix of its own, as the arguments that its databases are told by.
fn staging(system: &System, databases: &[redis::Server; 3]) -> (Vec<String>, [Instance; 3]) {
    let at = ["orders", "stock", "payment"].iter().zip(databases).map(|(section, database)| at(section, database));
    let at: Vec<String> = at.flat_map(|at| ["--set".to_owned(), at]).collect();
    let mut set: Vec<&str> = at.iter().map(String::as_str).collect();
    set.extend(["--set", "nats.prefix=staging"]);
    let instances = [0, 1, 2].map(|service| system.spawn_with(service, &format!("staging-{service}"), &set));
    instances.iter().for_each(Instance::wait_until_it_is_ready);
    (at, instances)
}

/// Those who look at the books of one system with the payment of another are told.
fn assert_told_apart(system: &System, payment: &redis::Server) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("mixed.toml");
    let section = |name: &str, database: &redis::Server| {
        format!("[{name}]\nredis = \"{}\"\ndurability = \"fsync\"\n", database.address())
    };
    let [orders, stock] = [("orders", 0), ("stock", 1)].map(|(name, at)| section(name, &system.databases[at]));
    let nats = format!("[nats]\nurl = \"{}\"\n", system.broker.address());
    std::fs::write(&file, [orders, stock, section("payment", payment), nats].concat()).unwrap();
    for (command, code) in [("audit", 2), ("doctor", 1)] {
        let output = e2e::settle(command, &["--config", file.to_str().unwrap()]).output().unwrap();
        let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        assert!(said.contains("the orders know another payment database"), "{command}: {said}");
        assert_eq!(output.status.code(), Some(code), "{command}: {said}");
    }
}

#[test]
fn a_ledger_of_another_system_carries_out_none_of_these_commands() {
    let mut system = System::start(1, &["--protocol", "2pc"]);
    let databases = [empty(), empty(), empty()];
    let (at, instances) = staging(&system, &databases);
    drop(instances);
    assert_told_apart(&system, &databases[2]);
    // The other system's payment comes without its prefix while nobody is there to say that it is a stranger.
    system.orders()[0].kill();
    let at: Vec<&str> = at.iter().map(String::as_str).collect();
    let stranger = system.spawn_with(2, "stranger", &at);
    stranger.wait_until_it_is_ready();
    system.restart(0);
    let mut client = system.client();
    // On a slow machine it may hear that it is a stranger, and stop, before it is given anything.
    let turned_away = || {
        ["commands for another database come", "belongs to other orders"]
            .iter()
            .any(|word| stranger.said().contains(word))
    };
    let until = Instant::now() + PATIENCE;
    let mut paid = 0;
    while paid < 10 || !turned_away() {
        assert!(Instant::now() < until, "the stranger is given no command");
        let (user, order) = customer(&mut client);
        assert_eq!(client.check_out(&order).status, 200);
        assert_eq!(client.credit(&user), 70);
        paid += 1;
    }
    system.audit();
}

#[test]
fn a_ledger_with_the_database_of_another_system_does_not_serve_from_it() {
    let mut system = System::start(1, &[]);
    let databases = [empty(), empty(), empty()];
    drop(staging(&system, &databases));
    let wrong = ["--set", &at("payment", &databases[2])];
    let mut refused = system.spawn_aside(2, "payment-2", &wrong);
    assert_eq!(refused.wait().code(), Some(1), "{}", refused.said());
    assert!(refused.said().contains("belongs to other orders"), "{}", refused.said());
    // Where nobody is there to say so, it goes on alone; and stops as soon as somebody is.
    system.orders()[0].kill();
    let mut alone = system.spawn_with(2, "payment-3", &wrong);
    alone.wait_until_it_is_ready();
    system.restart(0);
    assert_eq!(alone.wait().code(), Some(1), "{}", alone.said());
    assert!(alone.said().contains("belongs to other orders"), "{}", alone.said());
    let mut client = system.client();
    let (user, order) = customer(&mut client);
    wait_until_paid(&mut client, &order);
    assert_eq!(client.credit(&user), 70);
    system.audit();
}

/// Found by a stranger: both carried out the commands, and customers were charged in both.
#[test]
fn a_ledger_that_was_given_up_and_comes_back_is_sent_nothing() {
    let mut system = System::start(1, &["--chaos", "--protocol", "2pc"]);
    let mut client = system.client();
    let (_, order) = customer(&mut client);
    // In the middle of a checkout, payment is gone for good, with what it held.
    let waiting = check_out_until_payment_waits(&system, &order);
    system.services[2][0].kill();
    system.orders()[0].kill();
    waiting.join().unwrap();
    // As its successor is told to do.
    system.databases[0].ask("HDEL {settle:orders:0}:meta ledger:payment").unwrap();
    let successor = empty();
    let heir = system.spawn_aside(2, "payment-2", &["--set", &at("payment", &successor)]);
    system.restart(0);
    heir.wait_until_it_is_ready();
    system.services[0][0].client().wait_until_settled();
    // The first one is back, while nobody is there to say that it was given up.
    system.orders()[0].kill();
    let mut first = system.services[2].remove(0).restart();
    first.wait_until_it_is_ready();
    // The only one that answers is no reason for the orders to stop.
    heir.freeze();
    let orders = system.services[0].remove(0).restart();
    heir.thaw();
    system.services[0].push(orders);
    system.services[2].push(heir);
    system.route();
    let mut client = system.client();
    for _ in 0..20 {
        let (user, order) = customer(&mut client);
        wait_until_paid(&mut client, &order);
        assert_eq!(client.credit(&user), 70);
    }
    assert_eq!(first.wait().code(), Some(1), "{}", first.said());
    assert!(first.said().contains("is another one"), "{}", first.said());
    assert!(!first.said().contains("captured anew"), "{}", first.said());
    system.wait_until_settled();
}

/// Found by a stranger: the ledgers of the one stopped while only the other's orders answered, and then the orders did.
#[test]
fn two_systems_that_share_a_broker_unawares_both_go_on() {
    let mut system = System::start(1, &["--protocol", "2pc"]);
    let databases = [empty(), empty(), empty()];
    let (at, instances) = staging(&system, &databases);
    drop(instances);
    databases[0].ask("HSET {settle:orders:0}:meta prefix settle").unwrap();
    let at: Vec<&str> = at.iter().map(String::as_str).collect();
    let theirs = [0, 1, 2].map(|service| system.spawn_aside(service, &format!("theirs-{service}"), &at));
    theirs.iter().for_each(Instance::wait_until_it_serves);
    theirs.iter().for_each(Instance::wait_until_it_is_ready);
    system.orders()[0].kill();
    // For longer than only strangers may answer somebody who does not know yet whose it is: those who do serve on, all the while.
    let until = Instant::now() + Duration::from_secs(5);
    while Instant::now() < until {
        for ledger in [&system.services[1][0], &system.services[2][0]] {
            assert_eq!(ledger.client().get("/health").status, 200, "{}", ledger.said());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    system.restart(0);
    let mut client = system.client();
    let (item, user) = (client.new_item(10, 30), client.new_user(100));
    let order = client.new_order(&user, &[]);
    // The price may be asked of the other's stock, which does not say.
    let add = format!("/orders/addItem/{order}/{item}/1");
    let until = Instant::now() + PATIENCE;
    while client.try_send("POST", &add, &[("idempotency-key", "once")], "").unwrap().status != 200 {
        assert!(Instant::now() < until, "nobody tells the price");
    }
    wait_until_paid(&mut client, &order);
    assert_eq!(client.credit(&user), 70);
    system.audit();
}

#[test]
fn orders_are_not_led_from_under_another_prefix() {
    let mut system = System::start(1, &[]);
    let mut stray = system.spawn_aside(0, "order-2", &["--set", "nats.prefix=staging"]);
    assert_eq!(stray.wait().code(), Some(2), "{}", stray.said());
    assert!(stray.said().contains("HSET {settle:orders:0}:meta prefix staging"), "{}", stray.said());
    system.orders()[0].kill();
    system.restart(0);
    let mut client = system.client();
    let (_, order) = customer(&mut client);
    wait_until_paid(&mut client, &order);
    system.audit();
}

#[test]
fn two_systems_with_prefixes_of_their_own_share_a_broker() {
    let system = System::start(1, &[]);
    let databases = [empty(), empty(), empty()];
    let (_, staging) = staging(&system, &databases);
    let [mut orders, mut stock, mut payment] = [0, 1, 2].map(|service: usize| staging[service].client());
    let (item, user) = (stock.new_item(10, 30), payment.new_user(100));
    let order = orders.new_order(&user, &[(&item, 1)]);
    wait_until_paid(&mut orders, &order);
    assert_eq!((stock.stock(&item), payment.credit(&user)), (9, 70));
    let mut client = system.client();
    let (user, order) = customer(&mut client);
    assert_eq!(client.check_out(&order).status, 200);
    assert_eq!(client.credit(&user), 70);
    assert_eq!(system.client().get(&format!("/payment/find_user/{user}")).status, 200);
    assert_eq!(payment.get(&format!("/payment/find_user/{user}")).status, 404);
    system.audit();
}
