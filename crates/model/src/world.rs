//! One state of the checked world, and how what the coordinators and the log do changes it.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use ledger::{Termination, terminate};
use protocol::log::{LogCommand, LogReply, StageRefusal, Verdict, Writer};
use protocol::recovery::{Resume, plan};
use protocol::{BranchId, BranchState, Coordinator, Decision, Effect, Event, Name, Outcome, Reply, Timestamp, Verb};

use crate::configuration::{Configuration, Faults};
use crate::parts::{ENTROPY, LATE, Log, NOW, Participant};

/// One of the two instances.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Side {
    /// Begins the transaction.
    A,
    /// May take it over.
    B,
}

impl Side {
    pub(crate) const BOTH: [Self; 2] = [Self::A, Self::B];

    pub(crate) fn name(self) -> Name {
        match self {
            Self::A => const { Name::literal("a") },
            Self::B => const { Name::literal("b") },
        }
    }
}

/// An instance.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) enum Instance {
    /// It runs, and does not drive the transaction.
    Idle,
    /// It drives the transaction.
    Driving(Arc<Driver>),
    /// It was fenced, and looks up what another has decided. Whether its caller still waits for an answer.
    Relinquished { answered: bool },
    /// It crashed, and has yet to start again.
    Down,
}

/// A coordinator under the epoch that it was begun under.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) struct Driver {
    pub(crate) writer: Writer,
    pub(crate) coordinator: Coordinator,
}

/// A change of the log, by whom.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Write {
    Stage(Writer),
    Decide(Writer, Decision),
    Finish(Writer),
    /// A participant asks, for the branch of this step.
    Ask(u8),
    Forget,
}

/// A change that the log has made but not flushed, and who hears of the flush.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Unflushed {
    write: Write,
    tell: Option<Message>,
    /// What is told if the log crashes first: to a caller, a broken call is an unknown.
    or_else: Option<Message>,
}

/// Something on its way. Commands, replies and verdicts stay on their way for ever, and so arrive at any time, in any order, as often
/// as they like; a message that is never taken was lost or is late. What the log tells a caller arrives once, in any order.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Message {
    /// To a participant; `from`: whose answer it is to be, if that coordinator is still there.
    Command { from: Option<Side>, step: u8, verb: Verb },
    /// To the coordinator that sent the command.
    Reply { to: Side, step: u8, verb: Verb, reply: Reply },
    /// From the log to the caller.
    Logged { to: Side, news: News },
    /// From the log to the participant that asked.
    Told { step: u8, verdict: Verdict },
}

/// What the log tells a caller.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum News {
    Staged(Result<(), StageRefusal>),
    StageUnknown,
    Readable(Decision),
    Durable(Decision),
    NotStaged,
    Fenced,
    DecideUnknown,
}

impl News {
    /// As the engine hands it to the coordinator.
    fn events(self) -> Vec<Event> {
        match self {
            Self::Staged(result) => vec![Event::Staged(result)],
            Self::StageUnknown => vec![Event::StageUnknown],
            Self::Readable(decision) => vec![Event::Decided(decision)],
            Self::Durable(decision) => vec![Event::Decided(decision), Event::DecisionDurable],
            Self::NotStaged => vec![Event::NotStaged],
            Self::Fenced => vec![Event::Fenced],
            Self::DecideUnknown => vec![Event::DecideUnknown],
        }
    }
}

/// What has ever happened, for the properties. Nothing in the world reads it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub(crate) struct Chronicle {
    /// A caller was told that it is committed.
    pub(crate) told_committed: bool,
    /// A caller was told that nothing took effect.
    pub(crate) told_undone: bool,
    pub(crate) told_in_doubt: bool,
    /// A participant answered with a violation, the ledger repaired, or a coordinator raised an alarm.
    pub(crate) violated: bool,
    /// The last decision that was durable; whether it was to commit.
    pub(crate) decided: Option<bool>,
    /// A durable decision was followed by the contrary.
    pub(crate) decided_twice: bool,
    /// A crash or a takeover found the transaction undecided.
    pub(crate) recovered: bool,
    /// A participant asked about a transaction that was never staged.
    pub(crate) entombed: bool,
    /// Retries of a branch ran out.
    pub(crate) dead_letter: bool,
    /// What each branch was last seen to be, whether or not its participant has forgotten it since.
    pub(crate) fates: Vec<Option<BranchState>>,
}

/// One state of everything.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) struct World {
    pub(crate) instances: [Instance; 2],
    /// Calls that have not reached the log yet, in their order.
    pub(crate) calls: [VecDeque<Write>; 2],
    /// Calls of coordinators that are no more; they may still arrive.
    pub(crate) stray_calls: Vec<Write>,
    /// The log as it is on disk.
    pub(crate) disk: Log,
    /// What the log has done since.
    pub(crate) unflushed: VecDeque<Unflushed>,
    pub(crate) messages: BTreeSet<Message>,
    pub(crate) participants: Vec<Participant>,
    /// Faults that may still happen.
    pub(crate) left: Faults,
    pub(crate) chronicle: Chronicle,
    /// Nothing can happen any more but another fault.
    pub(crate) ended: bool,
}

impl World {
    /// Both instances are registered, and A has just begun.
    pub(crate) fn begin(configuration: &Configuration) -> Self {
        let transaction = &configuration.transaction;
        let mut disk = Log::new(transaction.id);
        for (side, lease) in [(Side::A, 100), (Side::B, u64::MAX)] {
            disk.apply(&LogCommand::Register { instance: side.name(), now: NOW, lease });
        }
        let participants: Vec<_> = transaction
            .positions()
            .zip(&configuration.available)
            .map(|(step, available)| Participant::new(BranchId { transaction: transaction.id, step }, *available))
            .collect();
        let chronicle = Chronicle { fates: vec![None; participants.len()], ..Chronicle::default() };
        let mut world = Self {
            instances: [Instance::Idle, Instance::Idle],
            calls: [VecDeque::new(), VecDeque::new()],
            stray_calls: Vec::new(),
            disk,
            unflushed: VecDeque::new(),
            messages: BTreeSet::new(),
            participants,
            left: configuration.faults.clone(),
            chronicle,
            ended: false,
        };
        let writer = world.disk.writer(Side::A.name()).expect("A has registered");
        let mut effects = Vec::new();
        let coordinator = Coordinator::begin(Arc::clone(transaction), configuration.pacing, NOW, &mut effects);
        world.instances[Side::A as usize] = Instance::Driving(Arc::new(Driver { writer, coordinator }));
        world.carry_out(Side::A, effects);
        world
    }

    pub(crate) fn driver(&self, side: Side) -> Option<&Driver> {
        match &self.instances[side as usize] {
            Instance::Driving(driver) => Some(driver),
            _ => None,
        }
    }

    /// The log as its callers see it: what is on disk, and what is not flushed yet.
    fn log(&self, configuration: &Configuration) -> Log {
        let mut log = self.disk.clone();
        for entry in &self.unflushed {
            log.apply(&command(&entry.write, configuration));
        }
        log
    }

    /// Hands an event to an instance's coordinator, if it has one.
    pub(crate) fn hand(&mut self, side: Side, now: Timestamp, event: Event) {
        let mut effects = Vec::new();
        if let Instance::Driving(driver) = &mut self.instances[side as usize] {
            Arc::make_mut(driver).coordinator.handle(now, event, ENTROPY, &mut effects);
        }
        self.carry_out(side, effects);
    }

    /// What the engine does with effects.
    fn carry_out(&mut self, side: Side, effects: Vec<Effect>) {
        let Some(driver) = self.driver(side) else { return };
        let writer = driver.writer;
        let (over, answered) = (driver.coordinator.is_over(), driver.coordinator.is_answered());
        let mut relinquished = false;
        for effect in effects {
            match effect {
                Effect::Stage => self.calls[side as usize].push_back(Write::Stage(writer)),
                Effect::Decide(decision) => self.calls[side as usize].push_back(Write::Decide(writer, decision)),
                Effect::Finish => self.calls[side as usize].push_back(Write::Finish(writer)),
                Effect::Send { step, verb, attempt } => {
                    if attempt == 1 {
                        self.forget_earlier_verbs(side, step, verb);
                    }
                    self.messages.insert(Message::Command { from: Some(side), step, verb });
                }
                Effect::Answer(outcome) => self.tell(&outcome),
                Effect::DeadLetter { .. } => self.chronicle.dead_letter = true,
                Effect::Alarm { .. } => self.chronicle.violated = true,
                Effect::Relinquish => relinquished = true,
            }
        }
        if over || relinquished {
            self.forget_coordinator(side);
            self.instances[side as usize] =
                if relinquished { Instance::Relinquished { answered } } else { Instance::Idle };
        }
    }

    fn tell(&mut self, outcome: &Outcome) {
        match outcome {
            Outcome::Committed => self.chronicle.told_committed = true,
            Outcome::Refused { .. } | Outcome::Conflict(_) | Outcome::RolledBack { .. } => {
                self.chronicle.told_undone = true;
            }
            Outcome::InDoubt => self.chronicle.told_in_doubt = true,
        }
    }

    /// Nobody is there any more to hear answers; what was sent still arrives.
    fn forget_coordinator(&mut self, side: Side) {
        self.messages = std::mem::take(&mut self.messages)
            .into_iter()
            .filter_map(|message| match message {
                Message::Command { from: Some(from), step, verb } if from == side => {
                    Some(Message::Command { from: None, step, verb })
                }
                Message::Reply { to, .. } | Message::Logged { to, .. } if to == side => None,
                other => Some(other),
            })
            .collect();
        let to_side = |message: &Option<Message>| matches!(message, Some(Message::Reply { to, .. } | Message::Logged { to, .. }) if *to == side);
        for entry in &mut self.unflushed {
            if to_side(&entry.tell) || to_side(&entry.or_else) {
                (entry.tell, entry.or_else) = (None, None);
            }
        }
    }

    /// A coordinator that begins to deliver a verb to a step never looks at answers to another again.
    fn forget_earlier_verbs(&mut self, side: Side, step: u8, verb: Verb) {
        let earlier: Vec<_> = self
            .messages
            .iter()
            .filter(|message| match message {
                Message::Command { from, step: to, verb: sent } => *from == Some(side) && *to == step && *sent != verb,
                Message::Reply { to, step: from, verb: sent, .. } => *to == side && *from == step && *sent != verb,
                Message::Logged { .. } | Message::Told { .. } => false,
            })
            .cloned()
            .collect();
        for message in earlier {
            self.messages.remove(&message);
            if let Message::Command { step, verb, .. } = message {
                self.messages.insert(Message::Command { from: None, step, verb });
            }
        }
    }

    pub(crate) fn deliver(&mut self, message: Message, configuration: &Configuration) {
        match message {
            Message::Command { from, step, verb } => {
                let Some(reply) = self.at_participant(step, verb, configuration) else { return };
                if let Some(to) = from {
                    self.messages.insert(Message::Reply { to, step, verb, reply });
                }
            }
            Message::Reply { to, step, verb, reply } => self.hand(to, NOW, Event::Replied { step, verb, reply }),
            Message::Logged { to, ref news } => {
                self.messages.remove(&message);
                for event in news.clone().events() {
                    self.hand(to, NOW, event);
                }
            }
            Message::Told { step, verdict } => {
                let Some(open) = self.participants.get(usize::from(step)).and_then(Participant::open) else { return };
                match terminate(open, verdict) {
                    Some(Termination::Apply(verb)) => {
                        self.at_participant(step, verb, configuration);
                    }
                    Some(Termination::Retire) => self.participants[usize::from(step)].retire(),
                    None => {}
                }
            }
        }
    }

    fn at_participant(&mut self, step: u8, verb: Verb, configuration: &Configuration) -> Option<Reply> {
        let participant = self.participants.get_mut(usize::from(step))?;
        let (reply, repaired) = participant.carry_out(&configuration.transaction, verb)?;
        self.chronicle.violated |= repaired || matches!(reply, Reply::Violation(_));
        let state = participant.state();
        if state.is_some() {
            self.chronicle.fates[usize::from(step)] = state;
        }
        Some(reply)
    }

    /// The log carries a call out. It is readable at once, and durable when it is flushed.
    pub(crate) fn append(&mut self, caller: Option<Side>, write: Write, configuration: &Configuration) {
        let mut log = self.log(configuration);
        let (reply, changed) = log.apply(&command(&write, configuration));
        let logged = |to: Side, news: News| Message::Logged { to, news };
        let (mut readable, mut tell, mut or_else) = (None, None, None);
        match (reply, caller) {
            (LogReply::Staged, Some(to)) => {
                (tell, or_else) = (Some(logged(to, News::Staged(Ok(())))), Some(logged(to, News::StageUnknown)));
            }
            (LogReply::StageRefused(why), Some(to)) => {
                (tell, or_else) = (Some(logged(to, News::Staged(Err(why)))), Some(logged(to, News::StageUnknown)));
            }
            (LogReply::Decided { decision, .. }, Some(to)) => {
                readable = Some(logged(to, News::Readable(decision.clone())));
                (tell, or_else) = (Some(logged(to, News::Durable(decision))), Some(logged(to, News::DecideUnknown)));
            }
            (LogReply::NotStaged, Some(to)) => readable = Some(logged(to, News::NotStaged)),
            (LogReply::Fenced, Some(to)) if matches!(write, Write::Decide(..)) => {
                readable = Some(logged(to, News::Fenced));
            }
            (LogReply::Verdicts(verdicts), _) => {
                if let (Write::Ask(step), Some(verdict)) = (&write, verdicts.first()) {
                    tell = Some(Message::Told { step: *step, verdict: *verdict });
                    self.chronicle.entombed |= changed;
                }
            }
            _ => {}
        }
        if self.unflushed.is_empty() && !changed {
            // It rests on nothing that is not on disk.
            self.messages.extend(tell.or(readable));
        } else {
            self.messages.extend(readable);
            if changed || tell.is_some() {
                self.unflushed.push_back(Unflushed { write, tell, or_else });
            }
        }
    }

    /// The oldest change reaches the disk.
    pub(crate) fn flush(&mut self, configuration: &Configuration) {
        let Some(entry) = self.unflushed.pop_front() else { return };
        self.disk.apply(&command(&entry.write, configuration));
        self.messages.extend(entry.tell);
        self.note_decision();
    }

    fn note_decision(&mut self) {
        if let Some(decision) = self.disk.record().and_then(|record| record.decision()) {
            let commit = decision.is_commit();
            self.chronicle.decided_twice |= self.chronicle.decided.is_some_and(|before| before != commit);
            self.chronicle.decided = Some(commit);
        }
    }

    fn flush_all(&mut self, configuration: &Configuration) {
        while !self.unflushed.is_empty() {
            self.flush(configuration);
        }
    }

    /// The log loses what is not flushed, and starts again. Its callers learn that their calls broke.
    pub(crate) fn crash_log(&mut self) {
        let lost = std::mem::take(&mut self.unflushed);
        self.messages.extend(lost.into_iter().filter_map(|entry| entry.or_else));
    }

    /// The log could not be called: nobody knows whether it carried the call out.
    pub(crate) fn break_call(&mut self, side: Side, write: &Write) {
        let news = match write {
            Write::Stage(_) => News::StageUnknown,
            Write::Decide(..) => News::DecideUnknown,
            Write::Finish(_) | Write::Ask(_) | Write::Forget => return,
        };
        if self.driver(side).is_some() {
            self.messages.insert(Message::Logged { to: side, news });
        }
    }

    /// An instance crashes. Calls that it made may still reach the log.
    pub(crate) fn crash_instance(&mut self, side: Side) {
        self.forget_coordinator(side);
        self.instances[side as usize] = Instance::Down;
        let calls = std::mem::take(&mut self.calls[side as usize]);
        self.stray_calls.extend(calls);
    }

    /// Everything crashes but the participants: for a log that lives in the coordinator's process.
    pub(crate) fn crash_process(&mut self) {
        for side in Side::BOTH {
            // An idle B that crashes is no news.
            if side == Side::A || matches!(self.instances[side as usize], Instance::Driving(_)) {
                self.crash_instance(side);
            }
        }
        self.unflushed.clear();
        self.stray_calls.clear();
    }

    /// The instance registers under a new epoch and takes up what it left behind.
    pub(crate) fn start(&mut self, side: Side, configuration: &Configuration) {
        self.flush_all(configuration);
        // B never lapses; A's lease is short, so that B can take over whenever it likes.
        let lease = if side == Side::A { 100 } else { u64::MAX };
        self.disk.apply(&LogCommand::Register { instance: side.name(), now: NOW, lease });
        self.instances[side as usize] = Instance::Idle;
        self.take_up(side, configuration);
    }

    /// Whether an instance that drives nothing would find something to take up.
    pub(crate) fn has_left_overs(&self, side: Side) -> bool {
        !plan(self.disk.state().open(), &side.name()).is_empty()
    }

    /// Takes up what the log has for this instance, as planned by [`plan`].
    pub(crate) fn take_up(&mut self, side: Side, configuration: &Configuration) {
        let planned = plan(self.disk.state().open(), &side.name());
        let Some((_, resume)) = planned.into_iter().next() else { return };
        let transaction = self.disk.record().and_then(|record| record.transaction.clone());
        let (Some(transaction), Some(writer)) = (transaction, self.disk.writer(side.name())) else { return };
        self.chronicle.recovered |= !matches!(resume, Resume::Settle(_));
        let mut effects = Vec::new();
        let coordinator = Coordinator::resume(transaction, configuration.pacing, &resume, NOW, &mut effects);
        self.instances[side as usize] = Instance::Driving(Arc::new(Driver { writer, coordinator }));
        self.carry_out(side, effects);
    }

    /// B takes over what A owns; A's lease has lapsed, whether A is dead or only slow.
    pub(crate) fn take_over(&mut self, configuration: &Configuration) {
        let Some(writer) = self.disk.writer(Side::B.name()) else { return };
        self.flush_all(configuration);
        self.disk.apply(&LogCommand::TakeOver { writer, from: Side::A.name(), now: LATE });
        self.take_up(Side::B, configuration);
    }

    /// A relinquished instance reads what was decided; if the log knows nothing, it asks, which makes sure that there will be nothing.
    pub(crate) fn look_up(&mut self, side: Side, configuration: &Configuration) {
        let Instance::Relinquished { answered } = self.instances[side as usize] else { return };
        let outcome = match self.disk.record() {
            Some(record) => match record.decision() {
                Some(decision) => Outcome::from(decision),
                None => return,
            },
            None => {
                self.flush_all(configuration);
                let (reply, changed) = self.disk.apply(&command(&Write::Ask(0), configuration));
                self.chronicle.entombed |= changed;
                self.note_decision();
                match reply {
                    LogReply::Verdicts(verdicts) if verdicts == [Verdict::Aborted] => {
                        Outcome::RolledBack { step: None }
                    }
                    LogReply::Verdicts(verdicts) if verdicts == [Verdict::Forgotten] => Outcome::InDoubt,
                    _ => return,
                }
            }
        };
        if !answered {
            self.tell(&outcome);
        }
        self.instances[side as usize] = Instance::Idle;
    }
}

/// The log's command for a write.
fn command(write: &Write, configuration: &Configuration) -> LogCommand {
    let id = configuration.transaction.id;
    match write {
        Write::Stage(writer) => {
            LogCommand::Stage { writer: *writer, transaction: Arc::clone(&configuration.transaction) }
        }
        Write::Decide(writer, decision) => {
            LogCommand::Decide { writer: *writer, id, decision: decision.clone(), now: NOW }
        }
        Write::Finish(writer) => LogCommand::Finish { writer: *writer, ids: vec![id], now: NOW },
        Write::Ask(_) => LogCommand::Ask { ids: vec![id], now: NOW },
        Write::Forget => LogCommand::Forget { finished_before: LATE, keep: 0, spare_since: LATE },
    }
}
