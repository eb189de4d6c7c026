//! What operators did survives the server's end, and is every instance's.

use protocol::{Timestamp, TransactionId};
use servers::redis::{Persistence, Server};
use shop::order_store::{OrdersAnswer, OrdersQuery};
use shop::orders::{OrdersCommand, OrdersReply};
use shop::trail::{Act, Entry, Note};

use crate::support::{open, options, query, submit};

fn note(operator: &str) -> Note {
    Note {
        at: Timestamp(7),
        operator: operator.into(),
        act: Act::Resolve,
        transaction: TransactionId::new(Timestamp(1), [2; 16]),
        step: Some(1),
        reason: Some("ticket 4711".into()),
    }
}

#[test]
fn the_operators_trail_survives_a_kill_of_the_server() {
    let mut server = Server::start(Persistence::Always).unwrap();
    let [ann, bob] = ["ann", "bob"].map(note);
    {
        let (one, other) = (open(&options(&server)), open(&options(&server)));
        assert_eq!(submit(&one, OrdersCommand::Note(ann.clone())), Ok(OrdersReply::Noted(1)));
        assert_eq!(submit(&other, OrdersCommand::Note(bob.clone())), Ok(OrdersReply::Noted(2)));
        let outcome = OrdersCommand::NoteOutcome { number: 1, outcome: "resolved".into() };
        assert_eq!(submit(&other, outcome), Ok(OrdersReply::Done), "whichever instance says so");
    }
    server.kill().unwrap();
    server.restart().unwrap();
    let again = open(&options(&server));
    let entries = [
        Entry { number: 2, note: bob, outcome: None },
        Entry { number: 1, note: ann, outcome: Some("resolved".into()) },
    ];
    assert_eq!(query(&again, OrdersQuery::Trail(10)), Ok(OrdersAnswer::Trail(entries.to_vec())));
    assert_eq!(submit(&again, OrdersCommand::Note(note("cid"))), Ok(OrdersReply::Noted(3)), "no number is given twice");
}
