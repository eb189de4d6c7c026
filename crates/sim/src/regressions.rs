//! Bugs that the simulator or the model checker has found, each as the shortest history that shows it.
//!
//! They drive the real coordinators and the real engine by hand, so that they keep meaning what they say however the
//! simulator's own weather changes.

use std::sync::Arc;

use ledger::{EntityId, Entry, entries};
use orchestrator::{Choice, Engine, Executed, LogAnswer, Options};
use protocol::log::{LogCommand, LogReply, LogState, Writer};
use protocol::recovery::Resume;
use protocol::{
    BranchState, Cause, Coordinator, Decision, Effect, Epoch, Event, Name, Order, Outcome, Pacing, Payload, Protocol,
    Recovery, Refusal, Reply, Step, Timestamp, Transaction, TransactionId, Unknown, Verb,
};
use shop::checkout::{CHECKOUT, STOCK, definition};

use crate::wires::{Notice, Out, Wires};

const NOW: Timestamp = Timestamp(1_000_000);

fn steps() -> Vec<Step> {
    let payload = entries::encode(&[Entry { account: EntityId::number(0), amount: 1 }]).unwrap();
    vec![Step { service: STOCK, payload }]
}

fn transaction(protocol: Protocol, recovery: Recovery) -> Arc<Transaction> {
    Arc::new(Transaction {
        id: TransactionId::new(NOW, [7; 16]),
        definition: CHECKOUT,
        protocol,
        order: Order::Parallel,
        recovery,
        steps: steps().into(),
        context: Payload::EMPTY,
    })
}

/// A coordinator, driven by hand.
struct Driven {
    coordinator: Coordinator,
    now: Timestamp,
}

impl Driven {
    fn begin(protocol: Protocol, recovery: Recovery) -> Self {
        let coordinator = Coordinator::begin(transaction(protocol, recovery), Pacing::default(), NOW, &mut Vec::new());
        Self { coordinator, now: NOW }
    }

    fn hear(&mut self, event: Event) -> Vec<Effect> {
        let mut effects = Vec::new();
        self.coordinator.handle(self.now, event, 1, &mut effects);
        effects
    }

    /// Everything that comes of waking it whenever it wants to be woken, for so many milliseconds.
    fn wait(&mut self, millis: u64) -> Vec<Effect> {
        let until = self.now.plus(millis);
        let mut effects = Vec::new();
        while let Some(at) = self.coordinator.next_wake().filter(|at| *at <= until) {
            self.now = self.now.max(at).plus(1);
            self.coordinator.handle(self.now, Event::Wake, 1, &mut effects);
            if self.now > until {
                break;
            }
        }
        self.now = until;
        effects
    }

    fn replies(&mut self, verb: Verb, reply: Reply) -> Vec<Effect> {
        self.hear(Event::Replied { step: 0, verb, reply })
    }
}

fn unavailable() -> Decision {
    Decision::Abort(Cause::Unavailable { step: None })
}

fn answers(effects: &[Effect]) -> bool {
    effects.iter().any(|effect| matches!(effect, Effect::Answer(_)))
}

fn sends(effects: &[Effect], wanted: Verb) -> bool {
    effects.iter().any(|effect| matches!(effect, Effect::Send { verb, .. } if *verb == wanted))
}

/// Found by the checker on the specification: a stalled owner took "expired" for a refusal and told its client so, after another
/// owner had committed the transaction and everybody had forgotten it.
#[test]
fn an_expired_branch_is_no_vote() {
    let mut driven = Driven::begin(Protocol::TwoPhase, Recovery::Backward);
    driven.hear(Event::Staged(Ok(())));
    let effects = driven.replies(Verb::Prepare, Reply::Refused(Refusal::new(Refusal::EXPIRED, "")));
    assert_eq!(effects, [], "neither a decision nor an answer");
    assert!(driven.wait(3_000).contains(&Effect::Decide(Decision::Abort(Cause::Unavailable { step: Some(0) }))));
    assert_eq!(driven.hear(Event::Fenced), [Effect::Relinquish], "the log says that it has no say any more");
}

/// Seed 5321 of the first soak: a forward saga that had done nothing yet answered "rolled back" while its abort was only readable.
/// The log crashed, recovery executed, and the order was paid.
#[test]
fn a_forward_saga_answers_an_abort_only_when_it_is_durable() {
    let mut driven = Driven::begin(Protocol::Saga, Recovery::Forward);
    driven.hear(Event::StageUnknown);
    assert!(!answers(&driven.hear(Event::Decided(unavailable()))));
    assert!(!answers(&driven.wait(5_000)), "however long it waits");
    assert!(answers(&driven.hear(Event::DecisionDurable)));
}

/// The same, one step later: a compensation on its way overtakes recovery, which has committed meanwhile.
#[test]
fn a_forward_saga_compensates_only_when_its_abort_is_irrevocable() {
    let mut driven = Driven::begin(Protocol::Saga, Recovery::Forward);
    driven.hear(Event::Staged(Ok(())));
    let expired = driven.replies(Verb::Execute, Reply::Refused(Refusal::new(Refusal::EXPIRED, "")));
    assert!(matches!(expired.as_slice(), [Effect::Decide(Decision::Abort(_))]));
    assert_eq!(driven.hear(Event::Decided(unavailable())), [], "readable only: nothing is sent");
    assert_eq!(driven.wait(5_000), [], "neither a compensation nor an execution");
    assert!(sends(&driven.hear(Event::DecisionDurable), Verb::Compensate));
}

/// Seed 1296: recovery of a forward saga executed an expired branch again and again, for ever.
#[test]
fn a_forward_saga_gives_up_an_expired_branch() {
    let (mut effects, pacing) = (Vec::new(), Pacing::default());
    let saga = transaction(Protocol::Saga, Recovery::Forward);
    let coordinator = Coordinator::resume(saga, pacing, &Resume::Execute, NOW, &mut effects);
    let mut driven = Driven { coordinator, now: NOW };
    let effects = driven.replies(Verb::Execute, Reply::Refused(Refusal::new(Refusal::EXPIRED, "")));
    assert!(matches!(effects.as_slice(), [Effect::Decide(Decision::Abort(_))]), "the log knows: {effects:?}");
}

/// Seed 29581: a saga's commit was readable, the log crashed and lost it, another owner aborted and compensated; asking again, the
/// first owner was told "Abort", looked only at "durable", and told its client "paid".
#[test]
fn a_saga_whose_commit_was_taken_back_does_not_answer_committed() {
    let mut driven = Driven::begin(Protocol::Saga, Recovery::Backward);
    driven.hear(Event::Staged(Ok(())));
    driven.replies(Verb::Execute, Reply::Done(BranchState::Executed));
    driven.hear(Event::Decided(Decision::Commit));
    driven.hear(Event::DecideUnknown);
    assert!(driven.wait(5_000).contains(&Effect::Decide(Decision::Commit)));
    let mut effects = driven.hear(Event::Decided(Decision::Abort(Cause::Recovered)));
    effects.extend(driven.hear(Event::DecisionDurable));
    effects.extend(driven.replies(Verb::Compensate, Reply::Done(BranchState::Compensated)));
    assert!(effects.contains(&Effect::Answer(Outcome::RolledBack { step: None })), "{effects:?}");
}

/// The same in two-phase commit, the other way round: an abort that was only readable, and recovery committed.
#[test]
fn an_abort_that_was_taken_back_does_not_release_what_is_committed() {
    let mut driven = Driven::begin(Protocol::TwoPhase, Recovery::Backward);
    driven.hear(Event::StageUnknown);
    driven.hear(Event::Decided(unavailable()));
    driven.hear(Event::DecideUnknown);
    driven.wait(5_000);
    let mut effects = driven.hear(Event::Decided(Decision::Commit));
    effects.extend(driven.hear(Event::DecisionDurable));
    assert!(effects.contains(&Effect::Answer(Outcome::Committed)), "{effects:?}");
    assert!(sends(&effects, Verb::Commit) && !sends(&effects, Verb::Abort), "{effects:?}");
}

/// Seed 1029: the durable half of a decision failed before the readable half came; nobody asked again, and the transaction stayed
/// where it was for ever.
#[test]
fn a_decision_whose_durable_half_failed_first_is_asked_for_again() {
    for protocol in [Protocol::TwoPhase, Protocol::Saga] {
        let mut driven = Driven::begin(protocol, Recovery::Backward);
        driven.hear(Event::StageUnknown);
        driven.hear(Event::DecideUnknown);
        driven.hear(Event::Decided(unavailable()));
        assert!(driven.wait(5_000).contains(&Effect::Decide(unavailable())), "{protocol}");
    }
}

/// The same for a coordinator that is overruled by the readable half (seed 876570882027122).
#[test]
fn an_overruled_decision_whose_durable_half_failed_first_is_asked_for_again() {
    let mut driven = Driven::begin(Protocol::TwoPhase, Recovery::Backward);
    driven.hear(Event::StageUnknown);
    driven.hear(Event::Decided(unavailable()));
    driven.hear(Event::DecideUnknown);
    driven.hear(Event::Decided(Decision::Commit));
    assert!(driven.wait(5_000).contains(&Effect::Decide(Decision::Commit)));
}

/// Seed 4366: asking again for a decision that a crash of the log had taken back, a coordinator was told that it is fenced, and
/// took no notice.
#[test]
fn who_is_fenced_before_the_decision_is_durable_relinquishes() {
    for protocol in [Protocol::TwoPhase, Protocol::Saga] {
        let mut driven = Driven::begin(protocol, Recovery::Backward);
        driven.hear(Event::StageUnknown);
        driven.hear(Event::Decided(unavailable()));
        assert_eq!(driven.hear(Event::Fenced), [Effect::Relinquish], "{protocol}");
    }
}

/// An engine with its ports, driven by hand, whose log is a [`LogState`].
struct Shop {
    engine: Arc<Engine>,
    wires: Arc<Wires>,
    log: LogState,
    /// Commands sent and not answered.
    sent: Vec<orchestrator::Done<Reply>>,
    answers: Vec<(TransactionId, Outcome)>,
    now: Timestamp,
}

const HERE: Name = Name::literal("here");
const THERE: Name = Name::literal("there");

impl Shop {
    fn start(protocol: Choice) -> Self {
        let wires: Arc<Wires> = Arc::default();
        wires.set_clock(NOW, 0);
        let options = Options { seed: 1, ..Options::new(HERE) };
        let (log, transport, clock, observer) = (wires.clone(), wires.clone(), wires.clone(), wires.clone());
        let engine = Engine::new(options, vec![definition(protocol)], log, transport, clock, observer).unwrap();
        let mut shop =
            Self { engine, wires, log: LogState::default(), sent: Vec::new(), answers: Vec::new(), now: NOW };
        shop.engine.register(Box::new(|result| result.unwrap()));
        shop.settle();
        shop
    }

    /// Answers everything that the engine asks of the log, at once; keeps what it sends.
    fn settle(&mut self) {
        loop {
            let outs = self.wires.take();
            if outs.is_empty() {
                return;
            }
            for out in outs {
                match out {
                    Out::Append(command, done) => done(Ok(self.log.apply(&command).0)),
                    Out::Decide(command, readable, durable) => {
                        let (reply, _) = self.log.apply(&command);
                        readable(Ok(reply.clone()));
                        durable(Ok(reply));
                    }
                    Out::Read(query, done) => done(Ok(orchestrator::answer(&self.log, query))),
                    Out::Send(_, _, done) => self.sent.push(done),
                    Out::Notice(Notice::Answered(id, outcome)) => self.answers.push((id, outcome)),
                    Out::Notice(_) => {}
                }
            }
        }
    }

    fn execute(&mut self) -> TransactionId {
        self.engine.execute(CHECKOUT, steps(), Payload::EMPTY, Box::new(|_: Executed| {}));
        self.settle();
        let LogAnswer::Open { records, .. } = orchestrator::answer(&self.log, orchestrator::LogQuery::Open) else {
            panic!("the answer is to the question");
        };
        records[0].0
    }

    /// Time passes, a hundredth of a second at a time.
    fn wait(&mut self, millis: u64) {
        for _ in 0..millis / 10 {
            self.now = self.now.plus(10);
            self.wires.set_clock(self.now, 0);
            self.engine.tick();
            self.settle();
        }
    }

    /// Another instance takes over, without this one's knowing.
    fn taken_over(&mut self) -> Writer {
        let register = LogCommand::Register { instance: THERE, now: self.now, lease: 1_000 };
        let (LogReply::Registered(epoch), _) = self.log.apply(&register) else { panic!("it registers") };
        let writer = Writer { instance: THERE, epoch };
        let late = self.now.plus(60_000);
        let (reply, _) = self.log.apply(&LogCommand::TakeOver { writer, from: HERE, now: late });
        assert_eq!(reply, LogReply::Taken(1));
        writer
    }
}

/// Seed 278: a late reply to a relinquished transaction put its timer off for ever; its client was never answered, and recovery
/// left the transaction alone, as something that is being driven.
#[test]
fn a_late_reply_does_not_put_a_relinquished_transaction_to_sleep() {
    let mut shop = Shop::start(Choice::TwoPhase);
    let id = shop.execute();
    let writer = shop.taken_over();
    let prepared = shop.sent.remove(0);
    prepared(Reply::Done(BranchState::Prepared));
    shop.settle();
    assert_eq!(shop.engine.state_of(id), Some("relinquished"));
    for late in std::mem::take(&mut shop.sent) {
        late(Reply::Unknown(Unknown::Timeout));
    }
    shop.engine.retry(id);
    shop.log.apply(&LogCommand::Decide { writer, id, decision: Decision::Commit, now: shop.now });
    shop.wait(1_000);
    assert_eq!(shop.answers, [(id, Outcome::Committed)]);
    assert_eq!(shop.engine.live_count(), 0);
}

/// A panic of the second soak: of two look-ups under way, the first gave the transaction up as in doubt; recovery took it up anew;
/// the second then let go of that, and answered a second time, for a place among those in flight that it no longer held.
#[test]
fn a_late_look_up_does_not_let_go_of_what_was_taken_up_anew() {
    let mut shop = Shop::start(Choice::TwoPhase);
    let id = shop.execute();
    shop.taken_over();
    shop.sent.remove(0)(Reply::Done(BranchState::Prepared));
    shop.settle();
    // Two look-ups, neither of which is answered yet.
    let mut look_ups = Vec::new();
    while look_ups.len() < 2 {
        shop.now = shop.now.plus(60);
        shop.wires.set_clock(shop.now, 0);
        shop.engine.tick();
        for out in shop.wires.take() {
            match out {
                Out::Read(query, done) => look_ups.push((query, done)),
                Out::Append(LogCommand::Forget { .. }, _) | Out::Notice(_) => {}
                other => drop(other),
            }
        }
    }
    shop.now = shop.now.plus(60_000);
    shop.wires.set_clock(shop.now, 0);
    let (query, first) = look_ups.remove(0);
    first(Ok(orchestrator::answer(&shop.log, query)));
    shop.settle();
    assert_eq!(shop.answers, [(id, Outcome::InDoubt)]);
    // Now the transaction comes back to this instance.
    let register = LogCommand::Register { instance: HERE, now: shop.now, lease: u64::MAX };
    shop.log.apply(&register);
    let taker = Writer { instance: HERE, epoch: Epoch(3) };
    shop.log.apply(&LogCommand::TakeOver { writer: taker, from: THERE, now: shop.now });
    shop.engine.register(Box::new(|_| {}));
    shop.settle();
    let driven = shop.engine.live_count();
    let (query, second) = look_ups.remove(0);
    second(Ok(orchestrator::answer(&shop.log, query)));
    shop.settle();
    assert_eq!(shop.answers.len(), 1, "answered once");
    assert_eq!((driven, shop.engine.live_count()), (1, 1), "and still driven");
}

/// Seed 34158 (with another timing): recovery read the log just before a transaction of its own engine was decided and finished, and took it
/// up again afterwards: a forward saga executed once more behind its own end.
#[test]
fn recovery_does_not_take_up_what_was_finished_while_it_read() {
    let mut shop = Shop::start(Choice::TwoPhase);
    let id = shop.execute();
    shop.engine.register(Box::new(|_| {}));
    let mut read = None;
    while read.is_none() {
        for out in shop.wires.take() {
            match out {
                // The same epoch as before: as after a renewal.
                Out::Append(LogCommand::Register { .. }, done) => done(Ok(LogReply::Registered(Epoch(1)))),
                Out::Read(query, done) => read = Some((orchestrator::answer(&shop.log, query), done)),
                _ => {}
            }
        }
    }
    shop.sent.remove(0)(Reply::Done(BranchState::Prepared));
    shop.settle();
    shop.sent.remove(0)(Reply::Done(BranchState::Committed));
    shop.settle();
    assert_eq!((shop.answers.as_slice(), shop.engine.live_count()), ([(id, Outcome::Committed)].as_slice(), 0));
    let (stale, done) = read.expect("recovery reads the log");
    done(Ok(stale));
    shop.settle();
    assert_eq!((shop.engine.live_count(), shop.sent.len()), (0, 0), "nothing is begun again");
}
