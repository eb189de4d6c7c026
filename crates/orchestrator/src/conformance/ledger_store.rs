//! The suite of [`LedgerStore`].

use std::collections::BTreeMap;
use std::sync::Arc;

use ledger::{
    Account, Change, Denial, EntityId, Entry, IdempotencyKey, LedgerCommand, LedgerReply, Totals, UNKNOWN_ACCOUNT,
    entries,
};
use protocol::limits::{MAX_AMOUNT, MAX_BATCH};
use protocol::{BranchId, BranchState, Command, Payload, Refusal, Reply, Timestamp, TransactionId, Verb};

use super::{ledger_participant, slot, take};
use crate::ledger_store::{LedgerAnswer, LedgerAudit, LedgerQuery, LedgerStore};
use crate::ports::{Done, Participant};

fn submit(store: &dyn LedgerStore, command: LedgerCommand) -> LedgerReply {
    let (done, answer) = slot();
    store.submit(command, done);
    take(&answer).expect("a healthy store answers")
}

fn read(store: &dyn LedgerStore, query: LedgerQuery) -> LedgerAnswer {
    let (done, answer) = slot();
    store.read(query, done);
    take(&answer).expect("a healthy store answers")
}

fn account(store: &dyn LedgerStore, n: u64) -> Option<Account> {
    match read(store, LedgerQuery::Account(EntityId::number(n))) {
        LedgerAnswer::Account(found) => found,
        other => panic!("asked for an account, answered {other:?}"),
    }
}

fn audit(store: &dyn LedgerStore) -> LedgerAudit {
    match read(store, LedgerQuery::Audit) {
        LedgerAnswer::Audit(found) => *found,
        other => panic!("asked for an audit, answered {other:?}"),
    }
}

fn open(store: &dyn LedgerStore, prepared_before: u64, executed_before: u64, limit: usize) -> Vec<(u8, BranchState)> {
    let (prepared_before, executed_before) = (Timestamp(prepared_before), Timestamp(executed_before));
    match read(store, LedgerQuery::Open { prepared_before, executed_before, limit }) {
        LedgerAnswer::Open(found) => {
            found.into_iter().map(|(id, state)| (id.transaction.as_bytes()[15], state)).collect()
        }
        other => panic!("asked for open branches, answered {other:?}"),
    }
}

fn id(birth: u64, tag: u8) -> BranchId {
    BranchId { transaction: TransactionId::new(Timestamp(birth), [tag; 16]), step: tag % 16 }
}

fn branch(store: &dyn LedgerStore, id: BranchId, verb: Verb, wanted: &[(u64, i64)]) -> Reply {
    let wanted: Vec<Entry> =
        wanted.iter().map(|&(account, amount)| Entry { account: EntityId::number(account), amount }).collect();
    let payload = entries::encode(&wanted).expect("entries can be encoded");
    match submit(store, LedgerCommand::Branch(Command { branch: id, verb, payload })) {
        LedgerReply::Branch { reply, .. } => reply,
        other => panic!("a branch's command is answered by its branch, not by {other:?}"),
    }
}

fn change(store: &dyn LedgerStore, change: Change) -> LedgerReply {
    submit(store, LedgerCommand::Change { change, key: None })
}

/// A store as the participant that it stands for.
struct AsParticipant<S: ?Sized>(Arc<S>);

impl<S: LedgerStore + ?Sized> Participant for AsParticipant<S> {
    fn handle(&self, command: Command, done: Done<Reply>) {
        self.0.submit(
            LedgerCommand::Branch(command),
            Box::new(move |answer| match answer {
                Ok(LedgerReply::Branch { reply, .. }) => done(reply),
                Ok(_) | Err(_) => done(Reply::Unknown(protocol::Unknown::Failed)),
            }),
        );
    }
}

/// Every rule of a ledger's database: the barrier of [`ledger_participant`], and all that is no branch. `fresh` makes an empty one.
///
/// # Panics
/// If the database breaks one.
pub fn ledger_store(fresh: impl Fn() -> Arc<dyn LedgerStore>) {
    ledger_participant(|| {
        let store = fresh();
        let account = EntityId::number(1);
        change(&*store, Change::Open { account, price: 0 });
        change(&*store, Change::Credit { account, amount: 1 });
        Arc::new(AsParticipant(store))
    });
    changes(&*fresh());
    keys(&*fresh());
    branches(&*fresh());
    forgetting(&*fresh());
    replacing(&*fresh());
    many_at_once(&fresh());
}

fn changes(store: &dyn LedgerStore) {
    let (one, two) = (EntityId::number(1), EntityId::number(2));
    let opened = Account { price: 7, ..Account::default() };
    assert_eq!(account(store, 1), None);
    assert_eq!(change(store, Change::Open { account: one, price: 7 }), LedgerReply::Account(one, opened));
    assert_eq!(change(store, Change::Open { account: one, price: 9 }), LedgerReply::Account(one, opened), "a repeat");
    let full = Account { available: MAX_AMOUNT, credited: MAX_AMOUNT, ..opened };
    let fill = Change::Credit { account: one, amount: MAX_AMOUNT };
    assert_eq!(change(store, fill), LedgerReply::Account(one, full), "to the last unit");
    let over = Change::Credit { account: one, amount: 1 };
    assert_eq!(change(store, over), LedgerReply::Denied(Denial::Overflow));
    let left = Account { available: MAX_AMOUNT - 2, debited: 2, ..full };
    assert_eq!(change(store, Change::Debit { account: one, amount: 2 }), LedgerReply::Account(one, left));
    let all = Change::Debit { account: one, amount: MAX_AMOUNT };
    assert_eq!(change(store, all), LedgerReply::Denied(Denial::Insufficient));
    for lost in [Change::Credit { account: two, amount: 1 }, Change::Debit { account: two, amount: 1 }] {
        assert_eq!(change(store, lost), LedgerReply::Denied(Denial::UnknownAccount));
    }
    assert_eq!(account(store, 1), Some(left));
    let uuid = "0190b6e2-7c1f-7c3a-8f00-000000000001".parse().expect("an id");
    let named = change(store, Change::Open { account: uuid, price: 1 });
    assert_eq!(named, LedgerReply::Account(uuid, Account { price: 1, ..Account::default() }));
    assert_eq!(audit(store).accounts, 2);
}

fn keys(store: &dyn LedgerStore) {
    let key = |text: &str, fingerprint| Some(IdempotencyKey { key: text.into(), fingerprint, at: Timestamp(7) });
    let (one, two) = (EntityId::number(1), EntityId::number(2));
    let credit = Change::Credit { account: one, amount: 5 };
    let keyed = |change, key| submit(store, LedgerCommand::Change { change, key });
    assert_eq!(keyed(credit, key("k", 1)), LedgerReply::Denied(Denial::UnknownAccount));
    let opened = keyed(Change::Open { account: one, price: 3 }, key("open", u64::MAX));
    let again = keyed(Change::Open { account: two, price: 3 }, key("open", u64::MAX));
    assert_eq!(again, opened, "the repeat hears of the account that the first one opened");
    let first = keyed(credit, key("k", 1));
    assert!(matches!(first, LedgerReply::Account(..)), "a refusal is not remembered: {first:?}");
    change(store, Change::Credit { account: one, amount: 1 });
    assert_eq!(keyed(credit, key("k", 1)), first, "a repeat gets the first answer");
    assert_eq!(keyed(credit, key("k", 2)), LedgerReply::KeyReused);
    assert_eq!(account(store, 1).map(|account| account.available), Some(6));
    assert_eq!(account(store, 2), None);
}

fn branches(store: &dyn LedgerStore) {
    submit(store, LedgerCommand::Replace { count: 3, available: 10, price: 1 });
    assert_eq!(branch(store, id(20, 2), Verb::Prepare, &[(0, 4), (1, 10)]), Reply::Done(BranchState::Prepared));
    assert_eq!(branch(store, id(10, 1), Verb::Execute, &[(0, 6)]), Reply::Done(BranchState::Executed));
    let lacking = Reply::Refused(Refusal::new(ledger::INSUFFICIENT, "1"));
    assert_eq!(branch(store, id(30, 3), Verb::Prepare, &[(2, 1), (1, 1)]), lacking, "all of it or none of it");
    let nobody = Reply::Refused(Refusal::new(UNKNOWN_ACCOUNT, "3"));
    assert_eq!(branch(store, id(30, 4), Verb::Execute, &[(3, 1)]), nobody);
    let malformed = Command { branch: id(30, 5), verb: Verb::Prepare, payload: Payload::EMPTY };
    let reply = submit(store, LedgerCommand::Branch(malformed));
    assert!(
        matches!(&reply, LedgerReply::Branch { reply: Reply::Refused(why), .. } if why.code == entries::MALFORMED),
        "{reply:?}"
    );
    assert_eq!(account(store, 2).map(|account| account.held), Some(0), "what was refused holds nothing");
    let (prepared, executed) = ((2, BranchState::Prepared), (1, BranchState::Executed));
    assert_eq!(open(store, u64::MAX, u64::MAX, 10), [executed, prepared], "oldest first");
    assert_eq!(open(store, u64::MAX, u64::MAX, 1), [executed], "no more than asked for");
    assert_eq!(open(store, u64::MAX, 0, 10), [prepared]);
    assert_eq!(open(store, 20, 11, 10), [executed], "born before, not at");
    let seen = read(store, LedgerQuery::Branches(vec![id(20, 2), id(99, 9), id(30, 3)]));
    let LedgerAnswer::Branches(seen) = seen else { panic!("asked for branches, answered {seen:?}") };
    let entry = |account, amount| Entry { account: EntityId::number(account), amount };
    assert_eq!(seen.len(), 3);
    assert_eq!(seen[0].as_ref().map(|found| &*found.entries), Some(&[entry(0, 4), entry(1, 10)][..]));
    assert_eq!(seen[1], None);
    let refused = seen[2].as_ref().and_then(|found| found.refusal.as_ref()).map(|why| &*why.detail);
    assert_eq!(refused, Some("1"));
    assert_eq!(submit(store, LedgerCommand::Replace { count: 1, available: 0, price: 0 }), LedgerReply::Busy(2));
    // The branch is open, so its entries are known: a participant's own termination sends no payload.
    let bare = Command { branch: id(20, 2), verb: Verb::Commit, payload: Payload::EMPTY };
    let done = LedgerReply::Branch { reply: Reply::Done(BranchState::Committed), repaired: false };
    assert_eq!(submit(store, LedgerCommand::Branch(bare)), done);
    let retire = LedgerCommand::Retire(vec![id(10, 1), id(20, 2), id(99, 9)]);
    assert_eq!(submit(store, retire), LedgerReply::Done);
    assert_eq!(open(store, u64::MAX, u64::MAX, 10), []);
    assert_eq!(read(store, LedgerQuery::Youngest), LedgerAnswer::Youngest(Timestamp(30)));
    let found = audit(store);
    assert_eq!(found.discrepancies, []);
    assert_eq!(found.settled, BTreeMap::from([(EntityId::number(0), 10), (EntityId::number(1), 10)]));
    let reply = submit(
        store,
        LedgerCommand::Branch(Command {
            branch: id(40, 6),
            verb: Verb::Commit,
            payload: entries::encode(&[entry(1, 3)]).expect("entries can be encoded"),
        }),
    );
    assert_eq!(reply, LedgerReply::Branch { reply: Reply::Done(BranchState::Committed), repaired: true });
    assert_eq!(account(store, 1).map(|account| (account.available, account.settled)), Some((-3, 13)));
    assert_eq!(audit(store).discrepancies.len(), 1, "an account that a repair overdrew is off");
}

fn forgetting(store: &dyn LedgerStore) {
    submit(store, LedgerCommand::Replace { count: 1, available: 10, price: 1 });
    let forget = |born_before, keep, spare_since| {
        let (born_before, spare_since) = (Timestamp(born_before), Timestamp(spare_since));
        submit(store, LedgerCommand::Forget { born_before, keep, spare_since })
    };
    for n in 1..=4_u8 {
        assert_eq!(branch(store, id(10 * u64::from(n), n), Verb::Abort, &[(0, 1)]), Reply::Done(BranchState::Aborted));
    }
    branch(store, id(5, 9), Verb::Prepare, &[(0, 1)]);
    assert_eq!(forget(15, 100, 0), LedgerReply::Done);
    let expired = Reply::Refused(Refusal::new(Refusal::EXPIRED, ""));
    assert_eq!(branch(store, id(10, 1), Verb::Prepare, &[(0, 1)]), expired);
    assert_eq!(
        branch(store, id(9, 8), Verb::Commit, &[(0, 1)]),
        Reply::Done(BranchState::Committed),
        "below the floor"
    );
    assert_eq!(
        branch(store, id(5, 9), Verb::Prepare, &[(0, 1)]),
        Reply::Done(BranchState::Prepared),
        "an open one stays"
    );
    assert_eq!(branch(store, id(20, 2), Verb::Inquire, &[(0, 1)]), Reply::Done(BranchState::Aborted));
    assert_eq!(forget(0, 1, 35), LedgerReply::Done);
    assert_eq!(branch(store, id(30, 3), Verb::Prepare, &[(0, 1)]), expired, "one too many, and old enough");
    let aborted = Reply::Refused(Refusal::new(Refusal::ABORTED, ""));
    assert_eq!(branch(store, id(40, 4), Verb::Prepare, &[(0, 1)]), aborted, "kept");
    assert_eq!(forget(u64::MAX, 0, u64::MAX), LedgerReply::Done);
    assert_eq!(open(store, u64::MAX, u64::MAX, 10), [(9, BranchState::Prepared)], "an open one is never forgotten");
    assert_eq!(read(store, LedgerQuery::Youngest), LedgerAnswer::Youngest(Timestamp(40)));
}

fn replacing(store: &dyn LedgerStore) {
    let replace = |count, available| submit(store, LedgerCommand::Replace { count, available, price: 2 });
    let nothing_changed = audit(store);
    for (count, available) in [(MAX_BATCH + 1, 1), (1, -1), (1, MAX_AMOUNT + 1)] {
        assert_eq!(replace(count, available), LedgerReply::Denied(Denial::Overflow));
    }
    assert_eq!(audit(store), nothing_changed);
    assert_eq!(replace(5, MAX_AMOUNT), LedgerReply::Done);
    branch(store, id(10, 1), Verb::Execute, &[(4, 8), (0, 9)]);
    submit(store, LedgerCommand::Retire(vec![id(10, 1)]));
    change(store, Change::Debit { account: EntityId::number(0), amount: 1 });
    assert_eq!(replace(2, 3), LedgerReply::Done);
    let fresh = Account { available: 3, credited: 3, price: 2, ..Account::default() };
    assert_eq!(account(store, 0), Some(fresh), "history and all");
    assert_eq!(account(store, 4).map(|account| account.settled), Some(8), "beyond the count nothing changes");
    branch(store, id(11, 2), Verb::Execute, &[(0, 1)]);
    submit(store, LedgerCommand::Retire(vec![id(11, 2)]));
    let max = i128::from(MAX_AMOUNT);
    let expected = Totals { available: 5 * max - 18 + 6 - 1, held: 0, settled: 18, credited: 5 * max + 6, debited: 1 };
    let found = audit(store);
    assert_eq!((found.accounts, found.totals), (5, expected), "what was replaced still counts");
    assert_eq!(found.settled, BTreeMap::from([(EntityId::number(0), 10), (EntityId::number(4), 8)]));
    assert_eq!(found.discrepancies, []);
}

/// Many at once from several threads: every one is answered once, and none is lost or done twice.
fn many_at_once(store: &Arc<dyn LedgerStore>) {
    const THREADS: u8 = 4;
    const EACH: u8 = 50;
    submit(&**store, LedgerCommand::Replace { count: 2, available: 1_000, price: 1 });
    let prepare = |store: Arc<dyn LedgerStore>, thread: u8| {
        let answers: Vec<_> = (0..EACH)
            .map(|n| {
                let payload = entries::encode(&[Entry { account: EntityId::number(1), amount: 3 }]);
                let command = Command {
                    branch: BranchId { transaction: id(100 + u64::from(n), thread).transaction, step: 0 },
                    verb: Verb::Prepare,
                    payload: payload.expect("entries can be encoded"),
                };
                let (done, answer) = slot();
                store.submit(LedgerCommand::Branch(command), done);
                answer
            })
            .collect();
        answers.iter().filter(|answer| matches!(take(answer), Ok(LedgerReply::Branch { .. }))).count()
    };
    let threads: Vec<_> = (0..THREADS)
        .map(|thread| {
            let store = Arc::clone(store);
            std::thread::spawn(move || prepare(store, thread))
        })
        .collect();
    let answered: usize = threads.into_iter().map(|thread| thread.join().expect("the thread ends well")).sum();
    assert_eq!(answered, usize::from(THREADS) * usize::from(EACH));
    let held = i64::from(THREADS) * i64::from(EACH) * 3;
    assert_eq!(account(&**store, 1).map(|account| (account.held, account.available)), Some((held, 1_000 - held)));
    assert_eq!(audit(&**store).discrepancies, []);
}
