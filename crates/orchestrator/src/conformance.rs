//! The suites that every adapter must pass. An adapter's tests call them with a way to make a fresh, empty instance.

mod ledger_store;
mod transport;

use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use ledger::{EntityId, Entry, entries};
use protocol::limits::MAX_LEASE_MS;
use protocol::log::{LogCommand, LogReply, Resolution, StageRefusal, Standing, Tries, Verdict, Writer};
use protocol::{
    BranchId, BranchState, Cause, Command, Decision, Name, Order, Payload, Protocol, Recovery, Reply, Step, Timestamp,
    Transaction, TransactionId, Unknown, Verb,
};

use crate::ports::{Done, Log, LogAnswer, LogQuery, Participant};

pub use ledger_store::ledger_store;
pub use transport::transport;

/// A lease that stands for as long as a suite takes. Milliseconds.
const STANDS: u64 = MAX_LEASE_MS;
/// Longer than a millisecond, by any clock.
const A_MOMENT: Duration = Duration::from_millis(5);
/// How long a call may take before the suite calls it lost.
const PATIENCE: Duration = Duration::from_secs(10);

/// Makes a callback and the place where its answer arrives.
fn slot<T: Send + 'static>() -> (Done<T>, Receiver<T>) {
    let (send, receive) = channel();
    (Box::new(move |value| _ = send.send(value)), receive)
}

fn take<T>(receive: &Receiver<T>) -> T {
    receive.recv_timeout(PATIENCE).expect("every call is answered, once and in time")
}

fn append(log: &dyn Log, command: LogCommand) -> LogReply {
    let (done, answer) = slot();
    log.append(command, done);
    take(&answer).expect("a healthy log answers")
}

fn decide(log: &dyn Log, writer: Writer, id: TransactionId, decision: Decision) -> LogReply {
    let ((readable, first), (durable, second)) = (slot(), slot());
    log.decide(LogCommand::Decide { writer, id, decision, now: Timestamp(3) }, readable, durable);
    let readable = take(&first).expect("a healthy log answers");
    let durable = take(&second).expect("a healthy log answers");
    assert_eq!(readable, durable, "what was readable is what became durable");
    readable
}

fn read(log: &dyn Log, query: LogQuery) -> LogAnswer {
    let (done, answer) = slot();
    log.read(query, done);
    take(&answer).expect("a healthy log answers")
}

fn transaction(birth: u64, tag: u8) -> Transaction {
    Transaction {
        id: TransactionId::new(Timestamp(birth), [tag; 16]),
        definition: Name::literal("suite"),
        protocol: Protocol::TwoPhase,
        order: Order::Parallel,
        recovery: Recovery::Backward,
        steps: [Step { service: Name::literal("one"), payload: Payload::from(&[1, 2, 3][..]) }].into(),
        context: Payload::EMPTY,
    }
}

fn register(log: &dyn Log, instance: &'static str, now: u64) -> Writer {
    let instance = Name::literal(instance);
    match append(log, LogCommand::Register { instance, now: Timestamp(now), lease: STANDS }) {
        LogReply::Registered(epoch) => Writer { instance, epoch },
        other => panic!("registering answers with an epoch, not {other:?}"),
    }
}

fn stage(log: &dyn Log, writer: Writer, transaction: &Transaction) -> LogReply {
    append(log, LogCommand::Stage { writer, transaction: Arc::new(transaction.clone()) })
}

/// Every rule of the log's table. `fresh` makes an empty log.
///
/// # Panics
/// If the log breaks one.
pub fn log(fresh: impl Fn() -> Arc<dyn Log>) {
    let abort = || Decision::Abort(Cause::Recovered);
    let verdicts = |log: &dyn Log, ids: Vec<TransactionId>| append(log, LogCommand::Ask { ids, now: Timestamp(4) });

    // Staged once, decided once; a repeat gets the decision that stands.
    let store = fresh();
    let writer = register(&*store, "a", 0);
    let first = transaction(10, 1);
    assert_eq!(stage(&*store, writer, &first), LogReply::Staged);
    assert_eq!(stage(&*store, writer, &first), LogReply::Staged, "a repeat is a repeat");
    assert_eq!(verdicts(&*store, vec![first.id]), LogReply::Verdicts(vec![Verdict::Pending]));
    let committed = decide(&*store, writer, first.id, Decision::Commit);
    assert_eq!(committed, LogReply::Decided { decision: Decision::Commit, first: true });
    let again = decide(&*store, writer, first.id, abort());
    assert_eq!(again, LogReply::Decided { decision: Decision::Commit, first: false }, "compare and set");
    assert_eq!(stage(&*store, writer, &first), LogReply::StageRefused(StageRefusal::Decided));

    // A tombstone, by a decision or by a question, makes a late stage fail.
    let late = transaction(11, 2);
    assert_eq!(decide(&*store, writer, late.id, Decision::Commit), LogReply::NotStaged);
    assert_eq!(decide(&*store, writer, late.id, abort()), LogReply::Decided { decision: abort(), first: true });
    assert_eq!(stage(&*store, writer, &late), LogReply::StageRefused(StageRefusal::Decided));
    let asked = transaction(12, 3);
    assert_eq!(
        verdicts(&*store, vec![asked.id, first.id]),
        LogReply::Verdicts(vec![Verdict::Aborted, Verdict::Committed])
    );
    assert_eq!(stage(&*store, writer, &asked), LogReply::StageRefused(StageRefusal::Decided));

    // A lease that stands is left alone; one that lapsed is taken, and its owner fenced.
    let open = transaction(13, 4);
    assert_eq!(stage(&*store, writer, &open), LogReply::Staged);
    let taker = register(&*store, "b", 500);
    assert!(taker.epoch > writer.epoch, "no epoch is given twice");
    let take_over = |now| LogCommand::TakeOver { writer: taker, from: writer.instance, now: Timestamp(now) };
    assert_eq!(append(&*store, take_over(STANDS)), LogReply::StillAlive);
    // Whether the log goes by our time or by its own, this lapses with the next millisecond.
    let resign = LogCommand::Renew { writer, now: Timestamp(STANDS), lease: 0 };
    assert_eq!(append(&*store, resign), LogReply::Done);
    std::thread::sleep(A_MOMENT);
    assert_eq!(append(&*store, take_over(STANDS + 1)), LogReply::Taken(2), "the undecided and the unfinished one");
    assert_eq!(stage(&*store, writer, &transaction(14, 5)), LogReply::StageRefused(StageRefusal::Fenced));
    assert_eq!(decide(&*store, writer, open.id, Decision::Commit), LogReply::Fenced);
    assert_eq!(decide(&*store, taker, open.id, abort()), LogReply::Decided { decision: abort(), first: true });
    let renew = LogCommand::Renew { writer, now: Timestamp(STANDS + 2), lease: STANDS };
    assert_eq!(append(&*store, renew), LogReply::Fenced);
    let record = |id| match read(&*store, LogQuery::Transaction(id)) {
        LogAnswer::Transaction(Some(record)) => *record,
        other => panic!("the log answers about {id} with its record, not {other:?}"),
    };
    let hands = |id| [record(id).staged_by(), record(id).decided_by(), record(id).owner].map(Option::unwrap);
    assert_eq!(hands(first.id), [writer.instance, writer.instance, taker.instance], "it was decided before");
    assert_eq!(hands(open.id), [writer.instance, taker.instance, taker.instance]);
    let tries = |verb, attempts| Tries { step: 0, verb, attempts, answered: true, why: Unknown::Failed };
    let tried = |writer, tries| LogCommand::Tried { writer, id: open.id, tries };
    assert_eq!(append(&*store, tried(writer, vec![tries(Verb::Abort, 2)])), LogReply::Fenced);
    assert_eq!(append(&*store, tried(taker, vec![])), LogReply::Done);
    assert_eq!(append(&*store, tried(taker, vec![tries(Verb::Abort, 2), tries(Verb::Prepare, 3)])), LogReply::Done);
    assert_eq!(append(&*store, tried(taker, vec![tries(Verb::Abort, 4)])), LogReply::Done);
    let told = [tries(Verb::Prepare, 3), tries(Verb::Abort, 4)];
    assert_eq!(record(open.id).tries(), told, "what is told again takes the place of what was told");
    let listed = |log: &dyn Log| match read(log, LogQuery::Open) {
        LogAnswer::Open { instances, .. } => instances.into_iter().map(|(name, _)| name).collect::<Vec<_>>(),
        other => panic!("what is open is answered with that, not {other:?}"),
    };
    // Its name may stay until another has a higher epoch.
    let third = register(&*store, "c", 500);
    assert_eq!(listed(&*store), [taker.instance, third.instance], "who has nothing left is dropped");
    assert_eq!(append(&*store, take_over(STANDS + 2)), LogReply::NotFound);
    let back = register(&*store, "a", 500);
    assert!(back.epoch > third.epoch, "and who comes back gets an epoch that nobody ever had");
    assert_eq!(stage(&*store, writer, &transaction(15, 8)), LogReply::StageRefused(StageRefusal::Fenced));

    // Who starts again takes up its own.
    let taker = register(&*store, "b", 500);
    let hands_of = |id| record(id).handovers().iter().map(|it| (it.from, it.decided)).collect::<Vec<_>>();
    assert_eq!(hands_of(open.id), [(writer.instance, false), (taker.instance, true)]);
    assert_eq!(hands(open.id), [writer.instance, taker.instance, taker.instance]);

    // A dead letter makes it stuck until someone resolves it.
    let letter = protocol::log::DeadLetter {
        step: 0,
        verb: Verb::Abort,
        attempts: 20,
        error: "unreachable".into(),
        at: Timestamp(5),
    };
    append(&*store, LogCommand::Park { writer: taker, id: open.id, letter });
    let stuck = LogQuery::Listing { standing: Some(Standing::Stuck), limit: 10 };
    assert!(matches!(read(&*store, stuck), LogAnswer::Listing(found) if found.len() == 1 && found[0].0 == open.id));
    let resolution = Resolution { step: 0, operator: "someone".into(), reason: "seen to".into(), at: Timestamp(6) };
    let resolve = LogCommand::Resolve { id: open.id, resolution };
    assert_eq!(append(&*store, resolve.clone()), LogReply::Done);
    assert_eq!(append(&*store, resolve), LogReply::NotStuck, "it is resolved once");

    // Finished, then forgotten: what is below the floor is neither staged nor entombed.
    let finish = LogCommand::Finish { writer: taker, ids: vec![first.id, open.id], now: Timestamp(7) };
    assert_eq!(append(&*store, finish), LogReply::Done);
    assert!(matches!(read(&*store, LogQuery::Open), LogAnswer::Open { records, .. } if records.is_empty()));
    assert_eq!(hands(open.id), [writer.instance, taker.instance, taker.instance], "the end takes nothing of it away");
    assert_eq!(append(&*store, tried(taker, vec![tries(Verb::Abort, 9)])), LogReply::NotFound, "it is finished");
    assert_eq!(record(open.id).tries(), told);
    let forget =
        |before: u64| LogCommand::Forget { finished_before: Timestamp(before), keep: 100, spare_since: Timestamp(0) };
    append(&*store, forget(1));
    assert_eq!(verdicts(&*store, vec![first.id]), LogReply::Verdicts(vec![Verdict::Committed]));
    append(&*store, forget(100));
    assert_eq!(verdicts(&*store, vec![first.id]), LogReply::Verdicts(vec![Verdict::Forgotten]));
    let by_hand = LogReply::Verdicts(vec![Verdict::Aborted]);
    assert_eq!(verdicts(&*store, vec![open.id]), by_hand, "its branch was away, and may still come and ask");
    assert_eq!(stage(&*store, taker, &transaction(9, 6)), LogReply::StageRefused(StageRefusal::Expired));
    assert_eq!(read(&*store, LogQuery::Transaction(first.id)), LogAnswer::Transaction(None));

    // A restart under the same name raises the epoch.
    let restarted = register(&*store, "b", 2000);
    assert!(restarted.epoch > taker.epoch);
    assert_eq!(stage(&*store, taker, &transaction(20, 7)), LogReply::StageRefused(StageRefusal::Fenced));
}

/// The barrier, cell by cell, at a participant that keeps a ledger. `fresh` makes one whose account 1 has 1 available, and nothing else.
///
/// # Panics
/// If the participant breaks a rule.
pub fn ledger_participant(fresh: impl Fn() -> Arc<dyn Participant>) {
    use BranchState::{Aborted, Committed, Compensated, Executed, Prepared};
    let payload = |account: u64| {
        entries::encode(&[Entry { account: EntityId::number(account), amount: 1 }]).expect("entries can be encoded")
    };
    let ask = |participant: &dyn Participant, tag: u8, verb: Verb, account: u64| {
        let branch = BranchId { transaction: TransactionId::new(Timestamp(1000), [tag; 16]), step: 0 };
        let (done, answer) = slot();
        participant.handle(Command { branch, verb, payload: payload(account) }, done);
        take(&answer)
    };
    let sequence = |verbs: &[Verb], expected: &[Reply]| {
        let participant = fresh();
        let heard: Vec<Reply> = verbs.iter().map(|&verb| ask(&*participant, 1, verb, 1)).collect();
        assert_eq!(heard, expected, "{verbs:?}");
    };
    let done = Reply::Done;
    let aborted = || Reply::Refused(protocol::Refusal::new(protocol::Refusal::ABORTED, ""));
    use Verb::{Abort, Commit, Compensate, Execute, Inquire, Prepare};
    sequence(
        &[Prepare, Prepare, Commit, Commit, Prepare, Inquire, Abort],
        &[
            done(Prepared),
            done(Prepared),
            done(Committed),
            done(Committed),
            done(Committed),
            done(Committed),
            Reply::Violation(Committed),
        ],
    );
    sequence(
        &[Prepare, Abort, Abort, Prepare, Commit, Inquire],
        &[done(Prepared), done(Aborted), done(Aborted), aborted(), Reply::Violation(Aborted), done(Aborted)],
    );
    sequence(&[Abort, Prepare, Execute], &[done(Aborted), aborted(), aborted()]);
    sequence(&[Inquire, Prepare], &[done(Aborted), aborted()]);
    sequence(&[Prepare, Inquire, Commit], &[done(Prepared), done(Prepared), done(Committed)]);
    sequence(
        &[Execute, Execute, Inquire, Compensate, Compensate, Execute],
        &[done(Executed), done(Executed), done(Executed), done(Compensated), done(Compensated), aborted()],
    );
    sequence(&[Compensate, Execute, Prepare], &[done(Compensated), aborted(), aborted()]);
    sequence(&[Commit, Commit], &[done(Committed), done(Committed)]);
    sequence(
        &[Prepare, Execute, Compensate],
        &[done(Prepared), Reply::Violation(Prepared), Reply::Violation(Prepared)],
    );
    sequence(&[Execute, Abort, Commit], &[done(Executed), Reply::Violation(Executed), Reply::Violation(Executed)]);

    // The branch that took the last unit is repeated, not refused; another branch is refused, and stays so.
    let participant = fresh();
    assert_eq!(ask(&*participant, 1, Prepare, 1), done(Prepared));
    assert_eq!(ask(&*participant, 1, Prepare, 1), done(Prepared));
    let refused = ask(&*participant, 2, Prepare, 1);
    assert!(matches!(&refused, Reply::Refused(why) if &*why.detail == "1"), "{refused:?}");
    assert_eq!(ask(&*participant, 1, Abort, 1), done(Aborted));
    assert_eq!(ask(&*participant, 2, Prepare, 1), refused, "a refusal is remembered");
    assert_eq!(ask(&*participant, 3, Prepare, 1), done(Prepared), "and what was released can be held again");
    assert!(matches!(ask(&*participant, 4, Prepare, 99), Reply::Refused(_)), "there is no such account");
}
