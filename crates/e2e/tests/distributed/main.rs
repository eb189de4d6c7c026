//! The services as processes of their own, two of each: every rule that one process keeps, they keep together.

#![allow(clippy::unwrap_used, reason = "in a test a broken expectation is a failed test")]

mod auditor;
mod joining;
mod operators;
mod recovery;
mod watch;

use std::time::{Duration, Instant};

use e2e::gate::Gate;
use e2e::system::Instance;
use e2e::world::{Heard, Shop as _, Size};
use e2e::{System, World};

#[test]
fn the_contract_holds_whichever_instance_is_asked() {
    let system = System::start(2, &["--chaos"]);
    let mut client = system.client();
    let (item, user) = (client.new_item(10, 30), client.new_user(100));
    let order = client.new_order(&user, &[(&item, 2)]);
    assert_eq!(client.order(&order).total_cost, 60);
    assert_eq!(client.check_out(&order).body, "Checkout successful");
    for _ in 0..4 {
        assert!(client.order(&order).paid);
        assert_eq!((client.stock(&item), client.credit(&user)), (8, 40));
        assert_eq!(client.check_out(&order).status, 200, "a paid order is paid, and charged once");
    }
    let dear = client.new_order(&user, &[(&item, 2)]);
    let refused = client.check_out(&dear);
    assert_eq!((refused.status, refused.member("code").as_deref()), (409, Some("insufficient_credit")));
    assert_eq!((client.stock(&item), client.credit(&user)), (8, 40), "what was held is released");
    client.done(&format!("/payment/add_funds/{user}/20"));
    assert_eq!(client.check_out(&dear).status, 200, "a failure is not cached");
    client.done(&format!("/payment/add_funds/{user}/1000"));
    let scarce = client.new_order(&user, &[(&item, 7)]);
    let refused = client.check_out(&scarce);
    assert_eq!((refused.status, refused.member("code").as_deref()), (409, Some("insufficient_stock")));
    for (target, status) in [
        ("/orders/checkout/nobody", 404),
        ("/orders/checkout/4711", 404),
        ("/stock/subtract/4711/1", 404),
        ("/stock/add/x/0", 400),
        ("/payment/pay/4711/-1", 400),
    ] {
        assert_eq!(client.post(target).status, status, "{target}");
    }
    let unknown = client.post(&format!("/orders/addItem/{scarce}/4711/1"));
    assert_eq!((unknown.status, unknown.member("code").as_deref()), (404, Some("item_not_found")));
    for (service, segment) in system.services.iter().zip(["orders", "stock", "payment"]) {
        for instance in service {
            let mut client = instance.client();
            for path in ["/health".to_owned(), format!("/{segment}/health"), "/health/deep".to_owned()] {
                assert_eq!(client.get(&path).member("status").as_deref(), Some("ok"), "{} {path}", instance.name());
            }
            assert!(client.get(&format!("/{segment}/metrics")).body.contains("settle_http_requests"));
            // Each describes its own routes, with and without its name before them.
            for path in ["/openapi.json".to_owned(), format!("/{segment}/openapi.json")] {
                let described = client.get(&path).json();
                let find = if segment == "payment" { "/find_user/{user}" } else { "/find/{order}" };
                let find = if segment == "stock" { "/find/{item}" } else { find };
                assert!(described["paths"][find]["get"].is_object(), "{} {path}: {described}", instance.name());
                assert_eq!(described["servers"][0]["url"], format!("/{segment}"));
            }
        }
    }
    // Who began to lead before the other was there learns of it with its next renewal.
    let leads = |order: &&Instance| order.client().get("/health/deep").json()["leader"] == true;
    let until = Instant::now() + Duration::from_secs(10);
    while system.services[0].iter().filter(leads).count() != 1 {
        assert!(Instant::now() < until, "not one of two leads");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn twins_on_two_instances_get_one_answer_and_one_charge() {
    let system = System::start(2, &["--chaos"]);
    let mut client = system.client();
    let item = client.new_item(1_000, 30);
    for (credit, status) in [(1_000, 200), (10, 409)] {
        for _ in 0..10 {
            let user = client.new_user(credit);
            let order = client.new_order(&user, &[(&item, 1)]);
            let answers: Vec<_> = std::thread::scope(|scope| {
                let asking = |twin: usize| {
                    let (order, instance) = (&order, &system.services[0][twin % 2]);
                    scope.spawn(move || instance.client().check_out(order))
                };
                let asked: Vec<_> = (0..6).map(asking).collect();
                asked.into_iter().map(|twin| twin.join().unwrap()).collect()
            });
            assert!(answers.iter().all(|answer| answer.status == status), "{answers:?}");
            assert_eq!(client.credit(&user), if status == 200 { credit - 30 } else { credit });
        }
    }
}

/// Each twin may find the other's hold in its way, and hear of that before it hears that the order is claimed. Then both may be refused, as
/// whoever came second would be; but who was refused must never find the order paid.
#[test]
fn no_twin_is_refused_an_order_that_the_other_pays_with_all_of_the_credit() {
    let system = System::start(2, &["--protocol", "2pc"]);
    let mut client = system.client();
    for _ in 0..150 {
        let (item, user) = (client.new_item(1, 30), client.new_user(30));
        let order = client.new_order(&user, &[(&item, 1)]);
        let mut twins = [0, 1].map(|twin: usize| system.services[0][twin].client());
        for twin in &mut twins {
            twin.begin("POST", &format!("/orders/checkout/{order}")).unwrap();
        }
        let statuses = twins.map(|mut twin| twin.hear().unwrap().status);
        let paid = client.order(&order).paid;
        assert!(statuses.iter().all(|status| *status == if paid { 200 } else { 409 }), "{statuses:?}, paid: {paid}");
        assert_eq!((client.stock(&item), client.credit(&user)), if paid { (0, 0) } else { (1, 30) });
    }
}

/// How often an order instance has heard that payment refuses.
fn refusals(instance: &Instance) -> u64 {
    let metrics = instance.client().get("/orders/metrics").body;
    let refused = |line: &&str| {
        line.contains("participant_commands") && line.contains("\"payment\"") && line.contains("\"refused\"")
    };
    metrics.lines().filter(refused).filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum()
}

/// One twin has prepared everything but is not decided; the other begins without knowing of it, and hears of the credit that the first one
/// holds before it hears that the order is claimed.
#[test]
fn a_twin_whose_refusal_overtakes_the_claim_of_the_other_gives_the_answer_of_that_one() {
    let system = System::start(1, &["--chaos", "--protocol", "2pc"]);
    let gates = [0, 1].map(|_| Gate::before(system.databases[0].address().parse().unwrap()));
    let behind = |twin: usize| {
        let way = format!("orders.redis={}", gates[twin].address());
        system.spawn_with(0, &format!("order-behind-{twin}"), &["--set", &way])
    };
    let twins = [behind(0), behind(1)];
    let mut client = system.client();
    let patience = Duration::from_secs(10);
    // A machine that is slow for a moment may break a connection on which answers are held back. Then nobody knows, and it is done again.
    for _ in 0..5 {
        let (item, user) = (client.new_item(5, 30), client.new_user(30));
        let order = client.new_order(&user, &[(&item, 1)]);
        let before = refusals(&twins[1]);
        let mut clients = [0, 1].map(|twin: usize| twins[twin].client());
        for twin in 0..2 {
            gates[twin].hold(&user);
            clients[twin].begin("POST", &format!("/orders/checkout/{order}")).unwrap();
        }
        assert!(gates.iter().all(|gate| gate.holds(patience)), "both read the order while it is open");
        client.done("/stock/fault/set?point=before_prepare&action=delay&delay_ms=1500&times=1");
        gates[0].open();
        let wait_until = |what: &str, mut condition: Box<dyn FnMut() -> bool + '_>| {
            let until = Instant::now() + patience;
            while !condition() {
                assert!(Instant::now() < until, "waited in vain: {what}");
            }
        };
        wait_until("the first one holds the credit", Box::new(|| system.client().credit(&user) == 0));
        let staged = || system.databases[0].ask("ZCARD {settle:orders:0}:open").unwrap().trim() == ":1";
        wait_until("the first one has claimed the order", Box::new(staged));
        gates[1].pass_one();
        wait_until("the second one is refused", Box::new(|| refusals(&twins[1]) > before));
        gates[1].open();
        let statuses = clients.map(|mut twin| twin.hear().unwrap().status);
        client.done("/stock/fault/clear");
        assert_eq!(statuses[0], 200);
        assert!(client.order(&order).paid);
        assert_eq!((client.stock(&item), client.credit(&user)), (4, 0), "and charged once");
        if statuses[1] != 504 {
            assert_eq!(statuses[1], 200, "a refused twin found the order paid");
            return;
        }
    }
    panic!("nobody knew in five attempts");
}

#[test]
fn an_order_that_changed_at_another_instance_is_paid_as_it_is_now() {
    let system = System::start(2, &[]);
    let mut client = system.client();
    let mut instances = [0, 1].map(|n: usize| system.services[0][n].client());
    let item = client.new_item(1_000, 30);
    for round in 0..10 {
        let user = client.new_user(100);
        let order = instances[0].new_order(&user, &[(&item, 1)]);
        instances[1].done(&format!("/orders/addItem/{order}/{item}/2"));
        assert_eq!(instances[round % 2].check_out(&order).status, 200);
        assert_eq!((client.order(&order).total_cost, client.credit(&user)), (90, 10));
    }
    // Nor is what it was refused for.
    let user = client.new_user(50);
    let order = instances[0].new_order(&user, &[(&item, 2)]);
    assert_eq!(instances[0].check_out(&order).status, 409);
    client.done(&format!("/payment/add_funds/{user}/50"));
    assert_eq!(instances[0].check_out(&order).status, 200);
    assert!(system.audit_databases().status.success());
}

/// An instance that begins nothing, because a participant is gone, says so of what it has looked at, and not of what it has seen some time ago.
#[test]
fn an_order_paid_at_another_instance_is_paid_where_nothing_can_be_begun() {
    let mut system = System::start(2, &[]);
    let mut client = system.client();
    let mut instances = [0, 1].map(|n: usize| system.services[0][n].client());
    let (item, user) = (client.new_item(1_000, 30), client.new_user(100));
    let order = instances[0].new_order(&user, &[(&item, 1)]);
    let others: Vec<_> = (0..20).map(|_| instances[0].new_order(&user, &[(&item, 1)])).collect();
    assert_eq!(instances[1].check_out(&order).status, 200);
    for payment in &mut system.services[2] {
        payment.kill();
    }
    // Those that wait for payment in vain open its breaker.
    let (waiting, left) = others.split_at(12);
    std::thread::scope(|scope| {
        let asked = waiting.iter().map(|other| scope.spawn(|| system.services[0][0].client().check_out(other)));
        let asked: Vec<_> = asked.collect();
        // It is not to look as if it had stood still.
        while !asked.iter().all(std::thread::ScopedJoinHandle::is_finished) {
            _ = instances[0].order(&waiting[0]);
        }
    });
    let is_turned_away = |other: &String| {
        let heard = instances[0].check_out(other);
        heard.status == 424 && heard.body.contains("nothing was begun")
    };
    assert!(left.iter().any(is_turned_away), "the breaker stays closed");
    assert_eq!(instances[0].check_out(&order).status, 200);
}

/// An instance begins with an order as it has seen it last, and another has replaced it meanwhile: the participants may refuse what it was before the log
/// says that it is another.
#[test]
fn a_refusal_of_what_an_order_no_longer_is_is_nobodys_answer() {
    let system = System::start(1, &["--chaos", "--protocol", "2pc"]);
    let gate = Gate::before(system.databases[0].address().parse().unwrap());
    let way = format!("orders.redis={}", gate.address());
    let behind = system.spawn_with(0, "order-behind", &["--set", &way]);
    let mut client = system.client();
    // A machine that is slow for a moment may break a connection on which an answer is held back. Then it is done again.
    for _ in 0..5 {
        client.done("/stock/batch_init/10/1000/1");
        client.done("/payment/batch_init/10/30");
        client.done("/orders/batch_init/10/10/10/100");
        assert_eq!(behind.client().check_out("0").status, 409, "too dear");
        client.done("/orders/batch_init/10/10/10/1");
        let (before, mut asking) = (refusals(&behind), behind.client());
        gate.hold("order_changed");
        asking.begin("POST", "/orders/checkout/1").unwrap();
        assert!(gate.holds(Duration::from_secs(10)), "it began with the order as it was");
        let until = Instant::now() + Duration::from_secs(10);
        while refusals(&behind) == before {
            assert!(Instant::now() < until, "the order as it was is not refused");
        }
        gate.open();
        let status = asking.hear().unwrap().status;
        if status != 504 {
            assert_eq!(status, 200);
            assert_eq!((client.order("1").paid, client.order("1").total_cost), (true, 2));
            return;
        }
    }
    panic!("nobody knew in five attempts");
}

#[test]
fn nobody_calls_a_paid_order_unpaid_while_its_database_is_away() {
    let mut system = System::start(1, &[]);
    let mut client = system.client();
    let (item, user) = (client.new_item(5, 30), client.new_user(100));
    let order = client.new_order(&user, &[(&item, 1)]);
    let target = format!("/orders/checkout/{order}");
    let key: &[(&str, &str)] = &[("idempotency-key", "once")];
    assert_eq!(client.try_send("POST", &target, key, "").unwrap().status, 200);
    system.databases[0].kill().unwrap();
    for headers in [&[][..], key] {
        let answer = client.try_send("POST", &target, headers, "").unwrap();
        assert_eq!(answer.member("code").as_deref(), Some("in_doubt"), "{headers:?}: {answer:?}");
        assert_eq!(answer.status, 504);
    }
}

#[test]
fn a_twin_waits_for_a_checkout_that_another_instance_takes_long_over() {
    let system = System::start(2, &["--chaos", "--protocol", "2pc"]);
    let mut client = system.client();
    let (item, user) = (client.new_item(5, 30), client.new_user(100));
    let order = client.new_order(&user, &[(&item, 1)]);
    client.done("/stock/fault/set?point=before_prepare&action=delay&delay_ms=1200&times=1");
    system.wait_for_fault(1, "before_prepare", true);
    let (first, second) = std::thread::scope(|scope| {
        let first = scope.spawn(|| system.services[0][0].client().check_out(&order));
        let until = Instant::now() + Duration::from_secs(10);
        while system.prepared() == 0 {
            assert!(Instant::now() < until, "the first one prepares nothing");
        }
        assert!(!system.services[0][1].client().order(&order).paid, "nobody was told that it is");
        let began = Instant::now();
        let second = system.services[0][1].client().check_out(&order);
        assert!(began.elapsed() > Duration::from_millis(200), "it waits for the first one");
        (first.join().unwrap(), second)
    });
    assert_eq!((first.status, second.status), (200, 200), "{first:?} {second:?}");
    assert_eq!((client.stock(&item), client.credit(&user)), (4, 70));
}

#[test]
fn load_of_every_kind_leaves_no_cent_and_no_item_off() {
    let system = System::start(2, &[]);
    for scenario in [
        &["--scenario", "consistency", "--connections", "200"][..],
        &["--scenario", "mixed", "--orders", "2000", "--duration", "3s", "--connections", "16"],
        &["--scenario", "sold-out", "--orders", "500", "--items", "5", "--connections", "32"],
    ] {
        let ended = system.load(scenario);
        let said = [ended.stdout, ended.stderr].concat();
        assert!(ended.status.success(), "{scenario:?} {}: {}", ended.status, String::from_utf8_lossy(&said));
    }
}

#[test]
fn a_fault_that_is_set_at_one_instance_is_set_at_all() {
    let system = System::start(2, &["--chaos"]);
    system.services[1][0].client().done("/stock/fault/set?point=before_prepare&action=error&times=3");
    let rules = |instance: usize| system.services[1][instance].client().get("/stock/fault/rules").json();
    let until = Instant::now() + Duration::from_secs(5);
    while rules(1)["rules"]["before_prepare"]["times"] != 3 {
        assert!(Instant::now() < until, "the other instance does not hear of it: {}", rules(1));
    }
    assert_eq!(rules(0)["rules"]["before_prepare"]["times"], 3, "and it is not set twice");
    system.services[1][1].client().done("/stock/fault/clear");
    while rules(0)["rules"]["before_prepare"] != serde_json::Value::Null {
        assert!(Instant::now() < until, "the other instance does not hear of it: {}", rules(0));
    }
}

#[test]
fn checkouts_of_a_killed_order_instance_are_finished_by_another() {
    for protocol in ["2pc", "saga"] {
        let mut system = System::start(2, &["--protocol", protocol]);
        let mut world = World::seed(&mut system.client(), Size { items: 20, users: 50, orders: 50_000 });
        for round in 0..3 {
            let address = system.address();
            let mut victim = system.orders().remove(0);
            world.load_while(address, 8, || {
                std::thread::sleep(Duration::from_millis(700));
                victim.kill();
                std::thread::sleep(Duration::from_millis(300));
            });
            drop(victim);
            system.route();
            world.ask_again(&system);
            system.add(0, &format!("order-again-{round}"));
            world.verify(&system);
        }
        world.verify_everything(&system);
        println!("{protocol}: {} paid, {} refused", world.count(Heard::Paid), world.count(Heard::Refused));
        assert!(world.count(Heard::Paid) > 100);
    }
}

#[test]
fn kills_of_stock_and_payment_instances_lose_nothing() {
    let mut system = System::start(2, &[]);
    let mut world = World::seed(&mut system.client(), Size { items: 20, users: 50, orders: 50_000 });
    for (service, name) in [(1, "stock-3"), (2, "payment-3")] {
        let address = system.address();
        let mut victim = system.services[service].remove(0);
        world.load_while(address, 8, || {
            std::thread::sleep(Duration::from_millis(500));
            victim.kill();
            std::thread::sleep(Duration::from_millis(500));
        });
        drop(victim);
        system.add(service, name);
        world.ask_again(&system);
        world.verify(&system);
    }
    world.verify_everything(&system);
    assert!(world.count(Heard::Paid) > 100);
}

#[test]
fn a_drained_instance_answers_everybody_and_leaves_nothing_behind() {
    let mut system = System::start(2, &[]);
    let mut world = World::seed(&mut system.client(), Size { items: 20, users: 50, orders: 50_000 });
    let address = system.address();
    let mut leaving = system.orders().remove(0);
    let ended = world.load_while(address, 8, || {
        std::thread::sleep(Duration::from_millis(300));
        leaving.tell_to_end();
        let mut client = leaving.client();
        let mut health = || client.try_send("GET", "/health", &[], "").unwrap();
        let (until, mut draining) = (Instant::now() + Duration::from_millis(900), health());
        while draining.status == 200 && Instant::now() < until {
            draining = health();
        }
        assert_eq!((draining.status, draining.member("status").as_deref()), (503, Some("draining")));
        // As HAProxy does when it has seen that.
        system.route();
        leaving.wait()
    });
    assert!(ended.success(), "{ended}");
    assert!(leaving.said().contains("finishing what is in hand") && !leaving.said().contains("not everything"));
    assert_eq!(world.count(Heard::Nothing), 0, "nobody was cut off");
    world.verify_everything(&system);
}

#[test]
fn services_wait_for_their_servers_and_say_so() {
    let mut system = System::start(1, &[]);
    system.databases[1].kill().unwrap();
    let early = system.spawn(1, "stock-early");
    let until = Instant::now() + Duration::from_secs(20);
    while !early.said().contains("waiting for it") {
        assert!(Instant::now() < until, "{}", early.said());
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(!early.serves());
    system.databases[1].restart().unwrap();
    early.wait_until_it_serves();
    assert_eq!(early.client().get("/health").status, 200);
    let item = early.client().new_item(3, 1);
    // The other instance's connection broke: it finds that out, and makes a new one.
    let until = Instant::now() + Duration::from_secs(10);
    while system.client().get(&format!("/stock/find/{item}")).status != 200 {
        assert!(Instant::now() < until, "the instance that was there does not go on");
        std::thread::sleep(Duration::from_millis(50));
    }
}
