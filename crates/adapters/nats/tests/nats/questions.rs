//! Questions between services.

use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use nats::{Bytes, Options, To, Unanswered};
use orchestrator::Done;
use protocol::Name;
use protocol::limits::MAX_MESSAGE_BYTES;
use servers::wait_until;

use crate::support::{CORE, PATIENCE, STOCK, connect, options, read, runtime, server};

type Answer = Done<Option<Vec<u8>>>;

/// Says the question backwards.
fn backwards(question: Bytes, done: Answer) {
    done(Some(question.iter().rev().copied().collect()));
}

#[test]
fn a_question_to_a_service_and_one_to_an_instance_find_their_answers() {
    let (server, runtime) = (server(), runtime());
    let asker = connect(&runtime, options(&server, "order.1", CORE));
    let mut serving = vec![];
    for instance in ["stock.1", "stock.2"] {
        let nats = connect(&runtime, options(&server, instance, CORE));
        let says = move |_: Bytes, done: Answer| done(Some(instance.as_bytes().to_vec()));
        serving.push(runtime.block_on(nats.answer(STOCK, Arc::new(says))).unwrap());
    }
    let ask = |to| runtime.block_on(asker.ask(to, b"who?", PATIENCE));
    for instance in ["stock.1", "stock.2"] {
        assert_eq!(ask(To::Instance(Name::new(instance).unwrap())).unwrap(), instance.as_bytes());
    }
    let mut heard = std::collections::BTreeSet::new();
    assert!(wait_until(PATIENCE, || {
        heard.insert(ask(To::Service(STOCK)).unwrap());
        heard.len() == 2
    }));
    assert_eq!(ask(To::Service(Name::literal("payment"))), Err(Unanswered::Nobody));
    assert_eq!(ask(To::Instance(Name::literal("stock.3"))), Err(Unanswered::Nobody));
    assert_eq!(read(&asker.statistics().unanswered), 2);
}

#[test]
fn what_a_service_is_told_reaches_each_of_its_instances_once_and_nobody_else() {
    let (server, runtime) = (server(), runtime());
    let teller = connect(&runtime, options(&server, "stock-0", CORE));
    let (heard, mut serving) = (Arc::new(Mutex::new(vec![])), vec![]);
    for (instance, service) in [("stock-1", STOCK), ("stock-2", STOCK), ("payment-1", Name::literal("payment"))] {
        let nats = connect(&runtime, options(&server, instance, CORE));
        let heard = Arc::clone(&heard);
        let hears = move |news: Bytes, done: Answer| {
            heard.lock().unwrap().push((instance, news.to_vec()));
            done(None);
        };
        serving.push(runtime.block_on(nats.answer(service, Arc::new(hears))).unwrap());
    }
    for news in [b"a", b"b"] {
        runtime.block_on(teller.tell(STOCK, news)).unwrap();
    }
    assert!(wait_until(PATIENCE, || heard.lock().unwrap().len() >= 4));
    let mut heard = heard.lock().unwrap().clone();
    heard.sort();
    let expected = [("stock-1", "a"), ("stock-1", "b"), ("stock-2", "a"), ("stock-2", "b")];
    assert_eq!(heard, expected.map(|(instance, news)| (instance, news.as_bytes().to_vec())));
    drop(server);
    assert!(wait_until(PATIENCE, || runtime.block_on(teller.tell(STOCK, b"c")).is_err()));
}

#[test]
fn questions_of_all_lengths_pass_and_longer_ones_are_refused() {
    let (server, runtime) = (server(), runtime());
    let asker = connect(&runtime, options(&server, "order-1", CORE));
    let answerer = connect(&runtime, options(&server, "stock-1", CORE));
    let _serving = runtime.block_on(answerer.answer(STOCK, Arc::new(backwards))).unwrap();
    let ask = |length: usize| {
        let question: Vec<u8> = (0..length).map(|n| n as u8).collect();
        let answer = runtime.block_on(asker.ask(To::Service(STOCK), &question, PATIENCE));
        answer.map(|answer| answer.iter().rev().copied().collect::<Vec<u8>>() == question)
    };
    for length in [0, 1, 1000, MAX_MESSAGE_BYTES - 2] {
        assert_eq!(ask(length), Ok(true), "{length} bytes");
    }
    assert_eq!(ask(MAX_MESSAGE_BYTES - 1), Err(Unanswered::Failed), "an answer of that length does not pass");
    assert_eq!(ask(MAX_MESSAGE_BYTES), Err(Unanswered::TooLong));
}

#[test]
fn no_answer_is_told_from_a_slow_one() {
    let (server, runtime) = (server(), runtime());
    let asker = connect(&runtime, options(&server, "order-1", CORE));
    let answerer = connect(&runtime, options(&server, "stock-1", CORE));
    let held: Arc<Mutex<Vec<Answer>>> = Arc::default();
    let keeps = Arc::clone(&held);
    let odd = move |question: Bytes, done: Answer| match &question[..] {
        b"none" => done(None),
        b"dropped" => drop(done),
        b"panic" => panic!("as the test wants it"),
        b"slow" => keeps.lock().unwrap().push(done),
        _ => backwards(question, done),
    };
    let _serving = runtime.block_on(answerer.answer(STOCK, Arc::new(odd))).unwrap();
    let ask = |question: &[u8], timeout| runtime.block_on(asker.ask(To::Service(STOCK), question, timeout));
    for question in ["none", "dropped", "panic"] {
        assert_eq!(ask(question.as_bytes(), PATIENCE), Err(Unanswered::Failed), "{question}");
    }
    let short = Duration::from_millis(100);
    let began = Instant::now();
    assert_eq!(ask(b"slow", short), Err(Unanswered::Timeout));
    assert!(began.elapsed() >= short);
    assert_eq!(&ask(b"abc", PATIENCE).unwrap()[..], b"cba");
    // An answer that comes long after the question, but within its time, is one.
    let (send, heard) = channel();
    asker.ask_then(
        To::Instance(Name::literal("stock-1")),
        b"slow",
        PATIENCE,
        Box::new(move |answer| _ = send.send(answer)),
    );
    assert!(wait_until(PATIENCE, || held.lock().unwrap().len() == 2));
    held.lock().unwrap().pop().unwrap()(Some(b"paid".to_vec()));
    assert_eq!(&heard.recv_timeout(PATIENCE).unwrap().unwrap()[..], b"paid");
}

#[test]
fn who_has_too_many_questions_turns_them_away_at_once() {
    let (server, runtime) = (server(), runtime());
    let asker = connect(&runtime, options(&server, "order-1", CORE));
    let answerer = connect(&runtime, Options { in_flight: 1, ..options(&server, "stock-1", CORE) });
    let held: Arc<Mutex<Vec<Answer>>> = Arc::default();
    let keeps = Arc::clone(&held);
    let slow = move |_: Bytes, done: Answer| keeps.lock().unwrap().push(done);
    let _serving = runtime.block_on(answerer.answer(STOCK, Arc::new(slow))).unwrap();
    let (send, heard) = channel();
    asker.ask_then(To::Service(STOCK), b"", PATIENCE, Box::new(move |answer| _ = send.send(answer)));
    assert!(wait_until(PATIENCE, || held.lock().unwrap().len() == 1));
    let second = runtime.block_on(asker.ask(To::Service(STOCK), b"", PATIENCE));
    assert_eq!(second, Err(Unanswered::Failed));
    assert_eq!(read(&answerer.statistics().turned_away), 1);
    held.lock().unwrap().pop().unwrap()(Some(vec![]));
    assert!(heard.recv_timeout(PATIENCE).unwrap().is_ok());
}
