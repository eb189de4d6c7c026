//! The operators' tools against the real server: what they print, what they change, and their exit codes.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use std::process::Stdio;

use common::{Folder, fine, journal_cat, settle, stderr, stdout, stuck, unusable};
use embedded::Store;
use ledger::{EntityId, Entry, Ledger, LedgerCommand, entries};
use protocol::{BranchId, Timestamp, TransactionId, Verb};
use serde_json::Value;

#[test]
fn a_finished_transaction_is_told_whole_live_and_offline() {
    let folder = Folder::new();
    let server = folder.serve(&["--protocol", "2pc"]);
    server.seed();
    server.must("/orders/checkout/0");
    let id = folder.the_one("finished");

    let tell = || {
        let listed = fine(&folder.tool(&["tx", "list"]));
        assert!(listed.lines().any(|line| line.starts_with(&id) && line.contains("finished   commit")), "{listed}");
        assert_eq!(fine(&folder.tool(&["tx", "list", "--state", "stuck"])), "No stuck transactions.\n");
        let told = fine(&folder.tool(&["tx", "show", &id]));
        for words in [
            "a checkout of order 0, by two-phase commit",
            "step 0, stock: 2 of item 0",
            "step 1, payment: 10 from user 0",
            "staged in the log · by shop",
            "step 1 (payment) agreed",
            "decided: commit · by shop",
            "step 0 (stock) acknowledged: commit: what it held is taken for good",
            "finished: nothing is left to do · by shop",
        ] {
            assert!(told.contains(words), "`{words}` is missing in: {told}");
        }
        let json: Value = serde_json::from_str(&fine(&folder.tool(&["tx", "show", &id, "--json"]))).unwrap();
        assert_eq!(json["record"]["transaction"]["claim"]["order"], "0");
        assert_eq!(json["record"]["transaction"]["steps"][1]["entries"][0]["amount"], 10);
        assert_eq!(json["state"], "finished");
        told
    };
    tell();
    unusable(&folder.tool(&["tx", "retry", &id]), &["finished", "nothing to try again"]);
    unusable(
        &folder.tool(&["tx", "resolve", &id, "--step", "1", "--reason", "because", "--operator", "ann"]),
        &["no dead letter"],
    );
    let live = tell();
    assert!(live.contains("tried again by an operator"), "what came to nothing is told, too: {live}");
    server.stop();
    assert_eq!(tell(), live);
    unusable(&folder.tool(&["tx", "retry", &id]), &["no shop is running", "settle serve --data"]);
    unusable(
        &folder.tool(&["tx", "show", "0190b6e2-7c1f-7c3a-8f00-000000000000"]),
        &["there is no transaction `0190b6e2-7c1f-7c3a-8f00-000000000000`"],
    );
}

#[test]
fn a_refusal_is_told_in_words_whether_the_shop_runs_or_not() {
    let folder = Folder::new();
    let server = folder.serve(&["--protocol", "2pc"]);
    server.seed();
    server.must("/payment/pay/0/995");
    let (status, _) = server.post("/orders/checkout/0");
    assert_eq!(status, 409);
    let id = folder.the_one("finished");
    let tell = || {
        let told = fine(&folder.tool(&["tx", "show", &id]));
        for words in [
            "step 1 (payment) refused: user 0 has not enough credit",
            "decided: abort",
            "step 0 (stock) acknowledged: abort: if it held anything, that is released",
            "finished: nothing is left to do",
        ] {
            assert!(told.contains(words), "`{words}` is missing in: {told}");
        }
    };
    tell();
    server.stop();
    tell();
}

#[test]
fn a_stuck_transaction_is_settled_by_a_retry_once_the_cause_is_mended() {
    let (folder, server, id) = stuck();
    let told = fine(&folder.tool(&["tx", "show", &id]));
    let dead =
        "step 1 (payment) became a dead letter · attempt 2: commit was not acknowledged: payment: its store failed";
    assert!(told.contains(dead), "{told}");
    assert!(told.contains("step 1 (payment) has not answered yet · attempt "), "{told}");
    assert!(told.contains(": commit; the last attempt: its store failed; next 20"), "{told}");
    assert!(told.contains(&format!("settle tx retry {id}")), "{told}");
    let audit = folder.tool(&["audit", "--wait", "0"]);
    assert_eq!(audit.status.code(), Some(2), "an audit that could not compare must not say that all is well");
    assert!(stdout(&audit).contains("1 transaction is not settled yet"), "{}", stdout(&audit));

    server.must("/payment/fault/clear");
    fine(&folder.tool(&["tx", "retry", &id]));
    assert_eq!(folder.the_one("finished"), id);
    let tell = || fine(&folder.tool(&["tx", "show", &id]));
    let told = tell();
    for words in [dead, "tried again by an operator · by ", "step 1 (payment) acknowledged · attempt "] {
        assert!(told.contains(words), "`{words}` is missing in: {told}");
    }
    assert!(told.contains("; an attempt before: its store failed"), "{told}");
    let record = &folder.transactions(&[])[0]["record"];
    let parked_for = record["finished"].as_u64().unwrap() - record["letters"][0]["at"].as_u64().unwrap();
    assert!(parked_for < protocol::Pacing::default().slow_pace, "the retry did nothing: it took {parked_for} ms");
    assert!(fine(&folder.tool(&["audit"])).starts_with("Audit OK: 1 paid order for 10"));
    server.stop();
    assert_eq!(tell(), told, "and the same of the folder");
}

#[test]
fn a_deed_has_the_name_of_the_systems_user_unless_another_is_told() {
    let (folder, _server, id) = stuck();
    let retry = |user: Option<&str>, flags: &[&str]| {
        let mut command = settle();
        command.args(["tx", "retry", &id]).args(flags).arg("--data").arg(folder.data());
        let output = match user {
            Some(user) => command.env("USER", user).output(),
            None => command.env_remove("USER").output(),
        };
        fine(&output.unwrap());
        let latest: Value =
            serde_json::from_str(&fine(&folder.tool(&["tx", "trail", "--json", "--limit", "1"]))).unwrap();
        latest["note"]["operator"].as_str().unwrap().to_owned()
    };
    assert_eq!(retry(Some("zoe"), &[]), "zoe");
    assert_eq!(retry(Some("zoe"), &["--operator", "ann"]), "ann");
    let owner = std::process::Command::new("id").arg("-un").output().unwrap();
    let owner = fine(&owner).trim().to_owned();
    assert_eq!(retry(None, &[]), owner);
    assert_eq!(retry(Some(""), &["--operator", ""]), owner);
    let resolve = ["tx", "resolve", &id, "--step", "1", "--reason", "ticket 4711", "--data"];
    let resolved = settle().args(resolve).arg(folder.data()).env_remove("USER").output().unwrap();
    assert!(fine(&resolved).contains(&format!("By {owner}: ticket 4711")));
}

#[test]
fn a_resolution_is_kept_with_who_and_why() {
    let (folder, server, id) = stuck();
    let resolve = |reason: &[&str]| {
        let flags = [&["tx", "resolve", &id, "--step", "1", "--operator", "ann"], reason].concat();
        folder.tool(&flags)
    };
    unusable(&resolve(&[]), &["without a reason"]);
    assert_eq!(folder.the_one("stuck"), id);
    assert!(fine(&resolve(&["--reason", "payment is gone for good, ticket 4711"])).contains("By ann"));
    assert_eq!(folder.the_one("finished"), id);
    let told = fine(&folder.tool(&["tx", "show", &id]));
    assert!(
        told.contains("step 1 (payment) settled by hand · by ann: payment is gone for good, ticket 4711"),
        "{told}"
    );
    // Payment has not done its part yet, and will not for some seconds: the books say so, in the right place.
    drop(server);
    let audit = folder.tool(&["audit"]);
    assert_eq!(audit.status.code(), Some(1));
    assert!(stdout(&audit).contains("user 0 was charged 10 less"), "{}", stdout(&audit));
}

#[test]
fn a_journal_is_printed_as_json_with_the_claim_while_the_shop_runs() {
    let folder = Folder::new();
    let server = folder.serve(&["--protocol", "2pc"]);
    server.seed();
    server.must("/orders/checkout/0");
    let id = folder.the_one("finished");
    let lines = |store: &str, flags: &[&str]| -> Vec<Value> {
        let text = fine(&journal_cat(&folder.data().join(store), flags));
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let orders = lines("orders", &[]);
    let sequences: Vec<u64> = orders.iter().map(|line| line["sequence"].as_u64().unwrap()).collect();
    assert!(sequences.iter().copied().eq(1..=sequences.len() as u64), "{sequences:?}");
    let staged = orders.iter().map(|line| &line["command"]["log"]["stage"]["transaction"]).find(|it| it.is_object());
    let staged = staged.expect("a checkout stages a transaction");
    assert_eq!(staged["id"], id.as_str());
    assert_eq!(staged["claim"]["order"], "0");
    assert_eq!(staged["steps"][0]["entries"][0]["account"], "0");

    let prepared = lines("payment", &[]);
    assert!(prepared.iter().any(|line| line["command"]["branch"]["entries"][0]["amount"] == 10), "{prepared:?}");
    let some = lines("orders", &["--from", "2", "--limit", "2"]);
    assert_eq!(some.iter().map(|line| line["sequence"].as_u64().unwrap()).collect::<Vec<_>>(), [2, 3]);
    unusable(&journal_cat(&folder.data(), &[]), &["three stores", "/orders"]);
    unusable(&journal_cat(folder.folder.path(), &[]), &["no journal-"]);

    // Whoever reads may stop reading: more lines than a pipe holds, and nobody to take them.
    for _ in 0..300 {
        server.must("/payment/add_funds/0/1");
    }
    let mut child = settle()
        .args(["journal", "cat"])
        .arg(folder.data().join("payment"))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let closed = child.wait_with_output().unwrap();
    assert_eq!((closed.status.code(), stderr(&closed)), (Some(0), String::new()));
    server.stop();
}

#[test]
fn sound_books_are_ok_and_tampered_ones_are_not() {
    let folder = Folder::new();
    let server = folder.serve(&["--protocol", "2pc"]);
    server.seed();
    server.must("/orders/checkout/0");
    assert!(fine(&folder.tool(&["audit"])).starts_with("Audit OK: 1 paid order for 10 in all; 1 item and 1 user"));
    let url = format!("http://{}", server.address);
    let over_http = ["audit", "--url", &url, "--orders", "1", "--items", "1", "--users", "1", "--stock", "100"];
    fine(&settle().args(over_http).args(["--credit", "1000"]).output().unwrap());
    let off = settle().args(over_http).args(["--credit", "1001"]).output().unwrap();
    assert_eq!(off.status.code(), Some(1), "{}", stdout(&off));
    server.stop();
    fine(&folder.tool(&["audit"]));

    // A commit of a branch that no order stands behind: the ledger captures it, and the books no longer match.
    let (payment, _) = Store::<Ledger>::open(&folder.data().join("payment"), embedded::Options::default()).unwrap();
    let millis = std::time::UNIX_EPOCH.elapsed().unwrap().as_millis();
    let transaction = TransactionId::new(Timestamp(u64::try_from(millis).unwrap()), [7; 16]);
    let payload = entries::encode(&[Entry { account: EntityId::number(0), amount: 7 }]).unwrap();
    let branch = BranchId { transaction, step: 1 };
    payment.submit(LedgerCommand::Branch(protocol::Command { branch, verb: Verb::Commit, payload }), |_| {});
    payment.close().unwrap();

    let found = "user 0 was charged 7 more than the paid orders cost";
    let offline = folder.tool(&["audit"]);
    assert_eq!(offline.status.code(), Some(1));
    assert!(stdout(&offline).contains(found), "{}", stdout(&offline));
    let server = folder.serve(&[]);
    let live = folder.tool(&["audit"]);
    assert_eq!((live.status.code(), stdout(&live)), (Some(1), stdout(&offline)));
    let json: Value = serde_json::from_str(&stdout(&folder.tool(&["audit", "--json"]))).unwrap();
    assert_eq!(json["findings"][0]["charged"], serde_json::json!({ "user": "0", "off_by": 7 }));
    server.stop();
}

#[test]
fn a_folder_serves_one_shop_at_a_time() {
    let folder = Folder::new();
    let server = folder.serve(&[]);
    let second = settle().args(["serve", "--listen", "127.0.0.1:0", "--data"]).arg(folder.data()).output().unwrap();
    let holder = format!("in use by process {}", server.child.id());
    unusable(&second, &["orders", &holder, "stop it first"]);
    // The first goes on as if nothing had been.
    server.must("/payment/create_user");
    fine(&folder.tool(&["tx", "list"]));
    server.stop();
}

#[test]
fn a_damaged_journal_is_refused_with_file_and_offset() {
    let folder = Folder::new();
    let server = folder.serve(&[]);
    server.seed();
    server.stop();
    let payment = folder.data().join("payment");
    let segment = payment.join("journal-00000000000000000001.seg");
    let mut bytes = std::fs::read(&segment).unwrap();
    // In the first batch, which begins at the second sector.
    bytes[512 + 40] ^= 1;
    std::fs::write(&segment, &bytes).unwrap();

    let words = [segment.to_str().unwrap(), "is damaged at byte 512", "put the whole folder back from a copy"];
    let serve = settle().args(["serve", "--listen", "127.0.0.1:0", "--data"]).arg(folder.data()).output().unwrap();
    unusable(&serve, &words);
    unusable(&folder.tool(&["audit"]), &words);
    unusable(&journal_cat(&payment, &[]), &words);
    assert_eq!(std::fs::read(&segment).unwrap(), bytes, "nothing in the folder was changed");
}
