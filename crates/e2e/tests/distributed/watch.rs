//! The page of an order instance shows the processes that its configuration names.

use std::time::{Duration, Instant};

use e2e::client::PATIENCE;
use e2e::world::Shop as _;
use e2e::{Client, System};
use serde_json::Value;

/// A component that is gone, or back, is shown so soon.
const SEEN_WITHIN: Duration = Duration::from_secs(2);

fn snapshot(client: &mut Client) -> Value {
    client.get("/dashboard/snapshot").json()
}

/// The names of all instances, and how each fares.
fn states(snapshot: &Value) -> Vec<(String, String)> {
    let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let instances = snapshot["instances"].as_array().unwrap().iter();
    let mut states: Vec<_> = instances.map(|instance| (word(&instance["name"]), word(&instance["state"]))).collect();
    states.sort();
    states
}

/// Waits until `name` fares so, and says how long that took.
fn wait_until(client: &mut Client, name: &str, state: &str) -> Duration {
    let since = Instant::now();
    loop {
        let shown = snapshot(client);
        if states(&shown).contains(&(name.to_owned(), state.to_owned())) {
            return since.elapsed();
        }
        assert!(since.elapsed() < PATIENCE, "{name} is not shown as {state}: {shown}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn an_order_instance_shows_whom_its_configuration_names() {
    let mut system = System::start(1, &[]);
    let others: Vec<String> = system.services.iter().flatten().map(e2e::system::Instance::url).collect();
    let watched = format!("watch.instances={}", others.join(","));
    // They are shown by the address at which the configuration knows them.
    let [order, stock, payment] = [0, 1, 2].map(|service| others[service].strip_prefix("http://").unwrap().to_owned());
    let watcher = system.spawn_with(0, "order-2", &["--set", &watched]);
    let mut page = watcher.client();
    for name in ["order-2", &order, &stock, &payment] {
        wait_until(&mut page, name, "up");
    }
    assert_eq!(states(&snapshot(&mut page)).len(), 4, "nobody is shown twice");

    // What one instance did is counted on the page of another.
    let mut client = system.client();
    let (item, user) = (client.new_item(1_000, 30), client.new_user(100_000));
    let since = Instant::now();
    loop {
        let order = client.new_order(&user, &[(&item, 1)]);
        assert_eq!(client.check_out(&order).status, 200);
        let shown = snapshot(&mut page);
        if shown["rates"]["committed"].as_f64().unwrap() > 0.0 {
            break;
        }
        assert!(since.elapsed() < PATIENCE, "nothing is shown as committed: {shown}");
    }

    for (service, name) in [(1, &stock), (0, &order)] {
        system.services[service][0].kill();
        let seen = wait_until(&mut page, name, "down");
        assert!(seen <= SEEN_WITHIN, "{name} was shown as down after {seen:?}");
        system.restart(service);
        let seen = wait_until(&mut page, name, "up");
        assert!(seen <= SEEN_WITHIN, "{name} was shown as up after {seen:?}");
    }
    // None of the two is hidden by the other: all four are up at once.
    assert!(states(&snapshot(&mut page)).iter().all(|(_, state)| state == "up"));
    system.audit();
}
