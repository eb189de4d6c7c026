//! Operators of the distributed system: whichever order instance they ask.

use std::process::Output;
use std::time::{Duration, Instant};

use e2e::System;
use e2e::http::Response;
use e2e::world::Shop as _;

const NAMES: [&str; 2] = ["order-1", "order-2"];
/// Longer than a lease, its renewal and all attempts.
const PATIENCE: Duration = Duration::from_secs(20);

pub(super) fn fine(output: &Output) -> String {
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {said}", output.status);
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// The transactions in a state, as an instance lists them.
fn listed(system: &System, name: &str, state: &str) -> Vec<serde_json::Value> {
    let told = fine(&system.operate(name, &["tx", "list", "--state", state, "--json"]));
    told.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The one transaction in a state, as soon as there is one.
fn the_one(system: &System, name: &str, state: &str) -> serde_json::Value {
    let until = Instant::now() + PATIENCE;
    loop {
        match listed(system, name, state).as_slice() {
            [one] => return one.clone(),
            found => assert!(found.is_empty() && Instant::now() < until, "{name}, {state}: {found:?}"),
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

struct Stuck {
    system: System,
    id: String,
    item: String,
    user: String,
}

/// A system whose first order instance has told a client that an order is paid; and payment does not acknowledge that.
fn stuck() -> Stuck {
    let system = System::start(2, &["--chaos", "--protocol", "2pc", "--attempts", "3"]);
    let mut client = system.client();
    let (item, user) = (client.new_item(10, 30), client.new_user(100));
    let order = client.new_order(&user, &[(&item, 1)]);
    client.done("/payment/fault/set?point=before_commit&action=error");
    system.wait_for_fault(2, "before_commit", true);
    let Response { status, .. } = system.services[0][0].client().check_out(&order);
    assert_eq!(status, 200);
    let ids = NAMES.map(|name| the_one(&system, name, "stuck")["id"].as_str().unwrap().to_owned());
    assert_eq!(ids[0], ids[1]);
    let [id, _] = ids;
    Stuck { system, id, item, user }
}

impl Stuck {
    fn tx(&self, name: &str, arguments: &[&str]) -> String {
        fine(&self.system.operate(name, &[&["tx"], arguments].concat()))
    }

    /// In the end the accounts are right, and the books say so.
    fn settles_to_the_last_cent(&self) {
        let mut client = self.system.client();
        let until = Instant::now() + PATIENCE;
        let mut audit = self.system.audit_databases();
        while !audit.status.success() {
            assert!(Instant::now() < until, "{}", String::from_utf8_lossy(&audit.stdout));
            std::thread::sleep(Duration::from_millis(200));
            audit = self.system.audit_databases();
        }
        assert!(fine(&audit).starts_with("Audit OK: 1 paid order for 30"), "{}", fine(&audit));
        assert_eq!((client.stock(&self.item), client.credit(&self.user)), (9, 70));
    }
}

#[test]
fn a_stuck_transaction_is_seen_and_tried_again_from_any_order_instance() {
    let stuck = stuck();
    for name in NAMES {
        let told = stuck.tx(name, &["show", &stuck.id]);
        assert!(
            told.contains("step 1 (payment) became a dead letter · attempt 3: commit was not acknowledged"),
            "{told}"
        );
        assert!(told.contains("its coordinator is committing"), "{name} knows who drives it: {told}");
        assert!(stuck.tx(name, &["retry", &stuck.id]).contains("Sent again"));
    }
    assert_eq!(listed(&stuck.system, NAMES[1], "stuck").len(), 1, "the fault is still there");
    stuck.system.client().done("/payment/fault/clear");
    stuck.system.wait_for_fault(2, "before_commit", false);
    let retried = stuck.system.operate(NAMES[1], &["tx", "retry", &stuck.id]);
    let said = String::from_utf8_lossy(&retried.stderr).into_owned();
    // What the retry before sent again may have come to payment behind the clearing: then it is done, and that is said.
    assert!(retried.status.success() || said.contains("is finished"), "{said}");
    let record = the_one(&stuck.system, NAMES[1], "finished")["record"].clone();
    let parked_for = record["finished"].as_u64().unwrap() - record["letters"][0]["at"].as_u64().unwrap();
    assert!(parked_for < 8_000, "the retry did nothing: it took {parked_for} ms");
    stuck.settles_to_the_last_cent();
    let again = stuck.system.operate(NAMES[1], &["tx", "retry", &stuck.id]);
    assert!(String::from_utf8_lossy(&again.stderr).contains("is finished"), "{again:?}");
}

#[test]
fn a_resolution_at_another_instance_is_heeded_by_the_one_that_drives_it() {
    let stuck = stuck();
    let resolve = ["resolve", &stuck.id, "--step", "1", "--operator", "ann", "--reason", "ticket 4711"];
    let wrong = stuck
        .system
        .operate(NAMES[1], &["tx", "resolve", &stuck.id, "--step", "0", "--operator", "ann", "--reason", "x"]);
    assert!(String::from_utf8_lossy(&wrong.stderr).contains("is no dead letter"), "{wrong:?}");
    assert!(stuck.tx(NAMES[1], &resolve).contains("By ann"));
    the_one(&stuck.system, NAMES[0], "finished");
    for name in NAMES {
        let told = stuck.tx(name, &["show", &stuck.id]);
        assert!(told.contains("step 1 (payment) settled by hand · by ann: ticket 4711"), "{told}");
        assert_eq!(listed(&stuck.system, name, "stuck").len(), 0);
    }
    // The fault is still there: payment does its part when it asks.
    stuck.settles_to_the_last_cent();
}

#[test]
fn a_resolution_stands_when_its_instance_is_gone_and_another_takes_the_transaction_over() {
    let mut stuck = stuck();
    stuck.system.orders()[0].kill();
    stuck.system.orders().remove(0);
    stuck.system.route();
    let retried = stuck.system.operate(NAMES[1], &["tx", "retry", &stuck.id]);
    let said = String::from_utf8_lossy(&retried.stderr).into_owned();
    assert!(said.contains("order-1") && said.contains("takes the transaction over"), "{said}");
    let resolve = ["resolve", &stuck.id, "--step", "1", "--operator", "ann", "--reason", "ticket 4711"];
    assert!(stuck.tx(NAMES[1], &resolve).contains("By ann"));
    let record = the_one(&stuck.system, NAMES[1], "finished")["record"].clone();
    assert_eq!(record["owner"], "order-2");
    assert_eq!(record["letters"].as_array().unwrap().len(), 1, "it is not written off once more: {record}");
    assert_eq!(record["resolutions"][0]["reason"], "ticket 4711");
    let told = stuck.tx(NAMES[1], &["show", &stuck.id]);
    let ends = [
        "staged in the log · by order-1",
        "decided: commit · by order-1",
        "taken over · by order-2: order-1 had it",
        "· by order-2",
    ];
    let mut lines = told.lines();
    for end in ends {
        assert!(lines.any(|line| line.contains(end)), "`{end}` is missing, or not where it belongs, in: {told}");
    }
    stuck.settles_to_the_last_cent();
}

#[test]
fn whoever_lost_a_transaction_and_finishes_it_is_told_with_its_attempts() {
    let mut stuck = stuck();
    let id = stuck.id.clone();
    stuck.system.orders()[0].freeze();
    stuck.system.route();
    let until = Instant::now() + PATIENCE;
    while the_one(&stuck.system, NAMES[1], "stuck")["record"]["owner"] != "order-2" {
        assert!(Instant::now() < until, "nobody takes it over");
        std::thread::sleep(Duration::from_millis(50));
    }
    // It drives the transaction on, under an epoch that is not the one it began under.
    stuck.system.orders()[0].thaw();
    while stuck.system.orders()[0].client().try_send("GET", "/health", &[], "").is_ok_and(|it| it.status != 200) {
        assert!(Instant::now() < until, "it does not come back");
        std::thread::sleep(Duration::from_millis(50));
    }
    stuck.system.client().done("/payment/fault/clear");
    stuck.system.wait_for_fault(2, "before_commit", false);
    let operated = stuck.system.operate(NAMES[0], &["tx", "retry", &id]);
    assert!(operated.status.success() || String::from_utf8_lossy(&operated.stderr).contains("is finished"));
    let record = the_one(&stuck.system, NAMES[1], "finished")["record"].clone();
    let tries = record["history"]["tries"].as_array().unwrap();
    assert!(tries.iter().any(|it| it["verb"] == "commit" && it["step"] == 1), "{record}");
    let told = stuck.tx(NAMES[1], &["show", &id]);
    let owner = record["owner"].as_str().unwrap();
    for words in
        [&format!("· by {owner}"), "taken over · by order-2", "step 1 (payment) acknowledged · attempt ", " counted: "]
    {
        assert!(told.contains(words), "`{words}` is missing in: {told}");
    }
    stuck.settles_to_the_last_cent();
}

#[test]
fn a_service_takes_faults_from_a_page_under_a_name_that_its_configuration_gives_it() {
    let system = System::start(1, &["--chaos", "--set", "hosts=shop.example"]);
    let clears = |path: &str, host: &str| {
        let page = format!("host: {host}\r\norigin: http://{host}\r\nsec-fetch-site: same-origin\r\n");
        let request = format!("POST {path} HTTP/1.1\r\n{page}content-length: 0\r\n\r\n");
        let mut stream = std::net::TcpStream::connect(system.address()).unwrap();
        e2e::http::exchange(&mut stream, request.as_bytes()).unwrap()
    };
    for path in ["/stock/fault/clear", "/payment/fault/clear"] {
        assert_eq!(clears(path, "shop.example:8000").status, 200, "{path}");
        let refused = clears(path, "evil.example");
        assert_eq!((refused.status, refused.member("code").as_deref()), (403, Some("strange_host")), "{path}");
    }
}
