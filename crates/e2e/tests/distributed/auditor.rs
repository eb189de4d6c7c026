//! The continuous audit: what was planted is found and named, by the leader alone; nothing is found that was not planted.

use std::time::{Duration, Instant};

use e2e::client::PATIENCE;
use e2e::world::{Shop as _, Size};
use e2e::{System, World};
use serde_json::{Value, json};

/// Asks an order instance for the audit's last word.
fn word(system: &System, name: &str) -> Option<Value> {
    let answer = system.ask_operator(name, "GET", "/admin/audit").ok()?;
    (answer.status == 200).then(|| answer.json())
}

/// Waits until the audit's last word is such.
fn wait_for(system: &System, name: &str, such: impl Fn(&Value) -> bool) -> Value {
    let until = Instant::now() + 3 * PATIENCE;
    loop {
        let last = word(system, name);
        match last {
            Some(last) if such(&last) => return last,
            last => assert!(Instant::now() < until, "the audit's last word: {last:?}"),
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// A figure of an order instance, if it exports it.
fn figure(system: &System, name: &str, metric: &str) -> Option<f64> {
    let instance = system.services[0].iter().find(|instance| instance.name() == name).unwrap();
    let text = instance.client().get("/metrics").body;
    let line = text.lines().find(|line| line.starts_with(&format!("{metric} ")))?;
    Some(line.rsplit(' ').next().unwrap().parse().unwrap())
}

/// Runs Lua on a database (0 orders, 1 stock, 2 payment), and shows what it answers.
fn behind_its_back(system: &System, database: usize, lua: &str) -> String {
    let told = system.databases[database].ask(&format!("EVAL \"{lua}\" 0")).unwrap();
    assert!(!told.starts_with('-'), "{told}");
    told.lines().nth(1).unwrap_or_default().to_owned()
}

#[test]
fn planted_losses_are_found_and_named_by_the_leader_whoever_is_asked() {
    let mut system = System::start(2, &["--chaos"]);
    let mut client = system.client();
    let item = client.new_item(100, 30);
    let users = [client.new_user(1_000), client.new_user(1_000), client.new_user(1_000)];
    let orders = users.each_ref().map(|user| client.new_order(user, &[(&item, 2)]));
    for order in &orders[..2] {
        assert_eq!(client.check_out(order).status, 200);
    }
    let clean =
        wait_for(&system, "order-1", |last| last["runs"].as_u64() >= Some(2) && last["checked"].as_u64() > Some(4));
    assert_eq!((&clean["off"], &clean["complete"]), (&0.into(), &true.into()), "{clean}");
    let leader = clean["by"].as_str().unwrap().to_owned();
    let other = if leader == "order-1" { "order-2" } else { "order-1" };
    assert_eq!(figure(&system, &leader, "settle_audit_findings"), Some(0.0));
    assert!(figure(&system, &leader, "settle_audit_last_timestamp_seconds") > Some(1e9));
    let now = |name: &str| system.ask_operator(name, "POST", "/admin/audit").unwrap();
    for name in [&*leader, other] {
        let until = Instant::now() + PATIENCE;
        while now(name).json()["compared"] != true {
            assert!(Instant::now() < until, "it does not come to rest: {:?}", now(name));
        }
        let report = now(name).json();
        assert_eq!(
            (&report["off"], &report["paid_orders"], &report["users"]),
            (&0.into(), &2.into(), &3.into()),
            "{report}"
        );
    }

    // An account is changed.
    let change = format!(
        "local k,u='{{settle:payment:0}}:accounts','{}' local v=redis.call('HGET',k,u) \
         local g,s,a,h,t,c,d,p=struct.unpack('<ddddddd',v) \
         redis.call('HSET',k,u,struct.pack('<ddddddd',g,s,a+60,h,t,c,d)..string.sub(v,p)) return 'done'",
        users[0]
    );
    behind_its_back(&system, 2, &change);
    // An order is marked as paid that was not charged.
    let never = "7fa1fb5e-f4e1-781f-bf69-451d9074786a";
    let mark = format!(
        "local k,o='{{settle:orders:0}}:orders','{}' local v=string.gsub(redis.call('HGET',k,o),'|o|','|p{never}|',1) \
         redis.call('HSET',k,o,v) return v",
        orders[2]
    );
    behind_its_back(&system, 0, &mark);
    // A branch that was committed at stock is aborted at payment.
    let read =
        format!("return string.match(redis.call('HGET','{{settle:orders:0}}:orders','{}'),'|p([^|]*)|')", orders[1]);
    let transaction = behind_its_back(&system, 0, &read);
    behind_its_back(
        &system,
        2,
        &format!("return tostring(redis.call('HSET','{{settle:payment:0}}:branches','{transaction}/01','a'))"),
    );

    // The order that was never charged is off in itself, and in the sums of its user and its item.
    let last = wait_for(&system, other, |last| last["off"] == 5);
    assert_eq!(last["by"], *leader, "{last}");
    let found = |what: &str| {
        let all = last["findings"].as_array().unwrap();
        all.iter()
            .find(|found| found["text"].as_str().unwrap().contains(what))
            .unwrap_or_else(|| panic!("{what}: {last}"))
    };
    let account = found(&format!("payment account {} does not add up: off by -60", users[0]));
    let named = |found: &Value, what: [&str; 2]| what.map(|what| found["transactions"][0][what].clone());
    assert_eq!(named(account, ["order", "branch"]), [json!(orders[0]), json!("committed")], "{account}");
    let order = found(&format!("order {} is paid by transaction {never}", orders[2]));
    assert_eq!(named(order, ["transaction", "branch"]), [json!(never), json!("missing")], "{order}");
    let charged = found(&format!("user {} was charged 60 less", users[2]));
    assert_eq!(named(charged, ["transaction", "caused"]), [json!(never), json!(true)], "{charged}");
    found(&format!("item {item}: 2 units fewer were sold"));
    let branch =
        found(&format!("transaction {transaction} was committed, and its branch at payment (step 1) is aborted"));
    assert_eq!(named(branch, ["order", "caused"]), [json!(orders[1]), json!(true)], "{branch}");
    assert_eq!(figure(&system, &leader, "settle_audit_findings"), Some(5.0));
    assert_eq!(figure(&system, other, "settle_audit_findings"), None, "the leader alone knows");
    assert_eq!(figure(&system, other, "settle_audit_runs_total"), Some(0.0), "the leader alone audits");
    let report = now(other).json();
    assert_eq!(
        (&report["off"], &report["compared"]),
        (&4.into(), &true.into()),
        "a branch is the continuous audit's: {report}"
    );

    // Each is said once, at error level, however often it is seen.
    let runs = last["runs"].as_u64().unwrap();
    wait_for(&system, other, |last| last["runs"].as_u64() > Some(runs + 1));
    let instance = system.services[0].iter().find(|instance| instance.name() == leader).unwrap();
    let said = instance.said();
    let errors: Vec<&str> =
        said.lines().filter(|line| line.contains("\"level\":\"error\"") && line.contains("the audit found")).collect();
    assert_eq!(errors.len(), 5, "{said}");
    assert!(
        errors.iter().any(|line| line.contains(&transaction) && line.contains("step 1 at payment: aborted")),
        "{said}"
    );

    // Whoever leads next goes on, and finds the same.
    let at = system.orders().iter().position(|instance| instance.name() == leader).unwrap();
    let mut victim = system.orders().remove(at);
    victim.kill();
    let next = wait_for(&system, other, |last| last["by"] == other && last["off"] == 5);
    assert!(next["runs"].as_u64() >= Some(2), "{next}");
    assert_eq!(figure(&system, other, "settle_audit_findings"), Some(5.0));
    // What is mended is found no longer.
    let mend = change.replace("a+60", "a-60");
    behind_its_back(&system, 2, &mend);
    wait_for(&system, other, |last| last["off"] == 4);
}

#[test]
fn no_false_alarm_under_load_while_instances_and_databases_are_killed() {
    let mut system = System::start(2, &["--chaos"]);
    let mut world = World::seed(&mut system.client(), Size { items: 20, users: 50, orders: 5_000 });
    let looked = |system: &System, name: &str| {
        let last = word(system, name);
        if let Some(last) = &last {
            assert_eq!(last["off"], 0, "{last}");
        }
        last.map_or(0, |last| last["checked"].as_u64().unwrap())
    };
    let mut checked = 0;
    for round in 0..3 {
        let address = system.address();
        world.load(address, 8, || {
            let until = Instant::now() + Duration::from_secs(4);
            match round {
                0 => {
                    let mut victim = system.orders().remove(0);
                    victim.kill();
                    system.route();
                    system.add(0, "order-3");
                }
                1 => {
                    let mut victim = system.services[1].remove(0);
                    victim.kill();
                    system.route();
                    system.add(1, "stock-3");
                }
                _ => {
                    system.databases[2].kill().unwrap();
                    system.databases[2].restart().unwrap();
                }
            }
            while Instant::now() < until {
                for name in ["order-2", "order-3"] {
                    checked += looked(&system, name);
                }
                std::thread::sleep(Duration::from_millis(50));
            }
        });
        world.verify(&system);
    }
    assert!(checked > 1_000, "it looked at {checked} only");
    let runs = wait_for(&system, "order-2", |last| last["runs"].as_u64() > Some(0))["runs"].as_u64().unwrap();
    let last = wait_for(&system, "order-2", |last| last["runs"].as_u64() > Some(runs + 2) && last["complete"] == true);
    assert_eq!(last["off"], 0, "{last}");
}
