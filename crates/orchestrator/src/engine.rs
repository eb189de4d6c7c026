//! The driver: carries the coordinators' effects out, and hands what comes of them back in.
//!
//! ```text
//!   begin ──► admission ──► Coordinator::begin ──► effects ─┬─► Log        (stage, decide, finish, park)
//!                                ▲                          ├─► Transport  (commands)
//!                                │ events                   └─► waiters    (the outcome)
//!                                └───────────────────────────── callbacks, tick
//! ```
//!
//! Nothing here decides about money: the coordinator does. No thread and no timer is started here either; whoever owns an engine
//! calls [`Engine::tick`] every few milliseconds while it is busy. So the simulator can drive it, alone, on one thread.

mod tick;

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Ordering};

use parking_lot::Mutex;

use protocol::coordinator::Failure;
use protocol::limits::LEASE_MS;
use protocol::log::{DeadLetter, LogCommand, LogReply, Tries, Writer};
use protocol::message::bounded;
use protocol::policy::Policy;
use protocol::transaction::Oversized;
use protocol::{
    BranchId, Coordinator, Decision, Effect, Epoch, Event, Name, Outcome, Pacing, Payload, Protocol, Reply, Step,
    Timestamp, Transaction, TransactionId, Verb,
};

use crate::admission::{Admission, Capacity};
use crate::definition::{BadDefinition, Choice, Definition};
use crate::entropy::{GOLDEN, InEights, mix};
use crate::follower::{Followed, Follower, Mark, Origin};
use crate::gates::{Gates, Pass};
use crate::observe::{Observation, Observer};
use crate::options::Options;
use crate::ports::{Clock, Done, Log, LogError, Transport};

/// Why nothing was begun. Nothing is held anywhere; the same request may be made again at once. [`TurnedAway::Lost`] alone does not know.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TurnedAway {
    /// Too many transactions are in flight and too many callers queue, or too many are answered and not settled, or the instance is
    /// shutting down.
    #[error("overloaded: try again later")]
    Overloaded,
    /// A participant's breaker is open.
    #[error("service `{0}` is unavailable")]
    Unavailable(Name),
    /// The instance does not serve yet: it has not registered with its log.
    #[error("this instance has not recovered yet")]
    NotReady,
    /// The engine went away without an answer. Unlike the others this one says nothing about what was begun: recovery settles it, and the
    /// log knows.
    #[error("the orchestrator stopped before it could say what became of the transaction")]
    Lost,
    /// There is no definition of that name, or a step is for a service that it doesn't name.
    #[error("no definition `{0}` with these services")]
    Undefined(Name),
    /// The transaction exceeds a limit.
    #[error(transparent)]
    Oversized(#[from] Oversized),
}

/// What becomes of a request to execute a transaction.
pub type Executed = Result<(TransactionId, Outcome), TurnedAway>;

pub(crate) struct Defined {
    pub(crate) definition: Definition,
    pub(crate) policy: Mutex<Policy>,
}

/// One transaction that this engine drives.
pub(crate) struct Live {
    pub(crate) id: TransactionId,
    pub(crate) transaction: Arc<Transaction>,
    pub(crate) writer: Writer,
    began: u64,
    /// It holds a place among the transactions in flight until it is answered.
    pub(crate) admitted: bool,
    /// When it wants to be woken. Milliseconds; `u64::MAX`: never.
    wake: AtomicU64,
    /// The probes that it has not used yet, if it took any.
    pass: Option<Mutex<Option<Pass>>>,
    pub(crate) follower: Option<Arc<dyn Follower>>,
    pub(crate) state: Mutex<LiveState>,
}

pub(crate) struct LiveState {
    pub(crate) coordinator: Coordinator,
    /// Who had it executed.
    caller: Option<Done<Executed>>,
    /// Who else waits for its outcome.
    pub(crate) waiters: Vec<Done<Outcome>>,
    pub(crate) outcome: Option<Outcome>,
    /// Waits for another owner's decision until then.
    pub(crate) relinquished: Option<Timestamp>,
    /// Where the jitter of its retries comes from.
    entropy: u64,
    /// What took more than one attempt, yet to be told to the log.
    pub(crate) tries: Vec<Tries>,
}

thread_local! {
    /// An empty list of effects, kept for its memory.
    static EFFECTS: Cell<Vec<Effect>> = const { Cell::new(Vec::new()) };
}

impl Live {
    fn service(&self, step: u8) -> Option<Name> {
        self.transaction.steps.get(usize::from(step)).map(|step| step.service)
    }
}

type Shard = Mutex<BTreeMap<TransactionId, Arc<Live>>>;
const SHARDS: usize = 16;
/// Drives the transactions of one instance.
pub struct Engine {
    pub(crate) options: Options,
    pub(crate) log: Arc<dyn Log>,
    pub(crate) transport: Arc<dyn Transport>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) observer: Arc<dyn Observer>,
    pub(crate) definitions: BTreeMap<Name, Defined>,
    pub(crate) gates: Arc<Gates>,
    pub(crate) admission: Admission,
    pub(crate) shards: [Shard; SHARDS],
    /// How many those hold.
    pub(crate) driven: AtomicUsize,
    entropy: AtomicU64,
    ids: InEights,
    /// The epoch this engine appends under; 0 before it has registered.
    pub(crate) epoch: AtomicU64,
    pub(crate) finished: Mutex<Vec<TransactionId>>,
    /// Until when they wait for more.
    finish_at: AtomicU64,
    pub(crate) recovery: Arc<Mutex<crate::recovery::Recovering>>,
    pub(crate) upkeep: Mutex<crate::recovery::Upkeep>,
    pub(crate) draining: AtomicBool,
    /// How far the log's clock is ahead of ours, if it has one. Milliseconds.
    pub(crate) log_ahead: AtomicI64,
}

impl Engine {
    /// Makes an engine. It turns everyone away until it has [registered](Engine::register) with its log.
    ///
    /// # Errors
    /// If a definition can't work.
    pub fn new(
        options: Options,
        definitions: Vec<Definition>,
        log: Arc<dyn Log>,
        transport: Arc<dyn Transport>,
        clock: Arc<dyn Clock>,
        observer: Arc<dyn Observer>,
    ) -> Result<Arc<Self>, BadDefinition> {
        let mut defined = BTreeMap::new();
        let mut services = BTreeSet::new();
        for definition in definitions {
            definition.check()?;
            for service in &definition.services {
                if !transport.knows(service) {
                    return Err(BadDefinition::UnknownService { definition: definition.name, service: *service });
                }
                services.insert(*service);
            }
            let name = definition.name;
            if defined.insert(name, Defined { definition, policy: Mutex::default() }).is_some() {
                return Err(BadDefinition::Twice(name));
            }
        }
        let capacity =
            Capacity { in_flight: options.in_flight, queued: options.queued, queue_deadline: options.queue_deadline };
        Ok(Arc::new(Self {
            entropy: AtomicU64::new(options.seed),
            ids: InEights::new(mix(options.seed)),
            options,
            log,
            transport,
            clock,
            observer,
            definitions: defined,
            gates: Gates::new(services),
            admission: Admission::new(capacity),
            shards: std::array::from_fn(|_| Mutex::default()),
            driven: AtomicUsize::new(0),
            epoch: AtomicU64::new(0),
            finished: Mutex::default(),
            finish_at: AtomicU64::new(0),
            recovery: Arc::default(),
            upkeep: Mutex::default(),
            draining: AtomicBool::new(false),
            log_ahead: AtomicI64::new(0),
        }))
    }

    /// Executes a transaction: `done` is called once with what became of it.
    ///
    /// `context` is the application's note, for a log that lives with the application's data.
    pub fn execute(self: &Arc<Self>, definition: Name, steps: Vec<Step>, context: Payload, done: Done<Executed>) {
        let engine = Arc::clone(self);
        let origin = self.observer.origin();
        let start = move |admitted: bool| {
            if !admitted {
                return engine.turn_away(definition, TurnedAway::Overloaded, done);
            }
            match engine.plan(definition, steps, context) {
                Ok((transaction, pacing, pass)) => engine.begin(transaction, (pacing, pass), origin, done),
                Err(why) => {
                    engine.admission.leave();
                    engine.turn_away(definition, why, done);
                }
            }
        };
        self.admission.enter(self.clock.now(), start);
    }

    fn turn_away(&self, definition: Name, why: TurnedAway, done: Done<Executed>) {
        self.observer.observe(&Observation::TurnedAway { definition, why: &why });
        done(Err(why));
    }

    fn plan(&self, name: Name, steps: Vec<Step>, context: Payload) -> Result<(Transaction, Pacing, Pass), TurnedAway> {
        let defined = self.definitions.get(&name).ok_or(TurnedAway::Undefined(name))?;
        let definition = &defined.definition;
        if steps.iter().any(|step| !definition.services.contains(&step.service)) {
            return Err(TurnedAway::Undefined(name));
        }
        if self.epoch.load(Ordering::Acquire) == 0 {
            return Err(TurnedAway::NotReady);
        }
        if self.driven.load(Ordering::Relaxed) >= self.options.unsettled {
            return Err(TurnedAway::Overloaded);
        }
        let now = self.clock.now();
        let pass = self.gates.admit(&steps, now).map_err(TurnedAway::Unavailable)?;
        let protocol = match definition.protocol {
            Choice::TwoPhase => Protocol::TwoPhase,
            Choice::Saga => Protocol::Saga,
            Choice::Auto => defined.policy.lock().choose(pass.is_probe()),
        };
        let transaction = Transaction {
            id: TransactionId::new(self.in_log(now), self.ids.draw()),
            definition: name,
            protocol,
            order: definition.order,
            recovery: definition.recovery,
            steps: steps.into(),
            context,
        };
        transaction.check()?;
        Ok((transaction, definition.pacing, pass))
    }

    /// Fresh randomness, without a lock; the same seed gives the same numbers.
    pub(crate) fn random(&self) -> u64 {
        mix(self.entropy.fetch_add(GOLDEN, Ordering::Relaxed).wrapping_add(GOLDEN))
    }

    pub(crate) fn writer(&self) -> Writer {
        Writer { instance: self.options.instance, epoch: Epoch(self.epoch.load(Ordering::Acquire)) }
    }

    /// Whether it drives a transaction of its own. Those of its earlier epochs were taken over.
    pub(crate) fn has_unsettled(&self) -> bool {
        let writer = self.writer();
        self.shards.iter().any(|shard| shard.lock().values().any(|live| live.writer == writer))
    }

    pub(crate) fn pacing(&self, definition: &Name) -> Pacing {
        self.definitions.get(definition).map(|defined| defined.definition.pacing).unwrap_or_default()
    }

    fn begin(
        self: &Arc<Self>,
        transaction: Transaction,
        (pacing, pass): (Pacing, Pass),
        origin: Origin,
        done: Done<Executed>,
    ) {
        let transaction = Arc::new(transaction);
        let (id, definition, protocol) = (transaction.id, transaction.definition, transaction.protocol);
        self.observer.observe(&Observation::Began { id, definition, protocol });
        let mut effects = EFFECTS.take();
        let coordinator = Coordinator::begin(transaction, pacing, self.clock.now(), &mut effects);
        let live = self.adopt(coordinator, Some(pass).filter(Pass::is_probe), Some((origin, done)));
        self.carry_out(&live, effects, false);
    }

    /// Puts a coordinator among the live ones. With a caller, it holds a place among those in flight until that one is answered.
    pub(crate) fn adopt(
        &self,
        coordinator: Coordinator,
        pass: Option<Pass>,
        caller: Option<(Origin, Done<Executed>)>,
    ) -> Arc<Live> {
        let transaction = Arc::clone(coordinator.transaction());
        let wake = coordinator.next_wake().map_or(u64::MAX, |at| at.0);
        let admitted = caller.is_some();
        let (origin, caller) = caller.map_or((None, None), |(origin, done)| (origin, Some(done)));
        let steps = transaction.steps.len();
        let follower = self.observer.follow(&Followed { transaction: &transaction, recovered: !admitted }, origin);
        let (waiters, outcome, relinquished, tries) = (Vec::new(), None, None, Vec::new());
        let state = LiveState { coordinator, caller, waiters, outcome, relinquished, entropy: self.random(), tries };
        let live = Arc::new(Live {
            id: transaction.id,
            transaction,
            writer: self.writer(),
            began: self.clock.micros(),
            admitted,
            wake: AtomicU64::new(wake),
            pass: pass.map(|pass| Mutex::new(Some(pass))),
            follower,
            state: Mutex::new(state),
        });
        live.mark(&Mark::Began { steps });
        if self.shard(live.id).lock().insert(live.id, Arc::clone(&live)).is_none() {
            self.driven.fetch_add(1, Ordering::Relaxed);
        }
        live
    }

    fn shard(&self, id: TransactionId) -> &Shard {
        &self.shards[usize::from(id.as_bytes()[15]) % SHARDS]
    }

    pub(crate) fn live(&self, id: TransactionId) -> Option<Arc<Live>> {
        self.shard(id).lock().get(&id).cloned()
    }

    /// Hands an event to a coordinator and carries out what comes of it.
    pub(crate) fn handle(self: &Arc<Self>, live: &Arc<Live>, event: Event) {
        self.handle_all(live, [event]);
    }

    /// Hands events that came together to a coordinator, in their order, and carries out what comes of them.
    fn handle_all<const N: usize>(self: &Arc<Self>, live: &Arc<Live>, events: [Event; N]) {
        let mut effects = EFFECTS.take();
        let (over, tries) = {
            let mut state = live.state.lock();
            let now = self.clock.now();
            for event in events {
                state.entropy = state.entropy.wrapping_add(GOLDEN);
                let entropy = mix(state.entropy);
                state.coordinator.handle(now, event, entropy, &mut effects);
            }
            // A relinquished one is woken to look the decision up; its coordinator would never have it woken again.
            if state.relinquished.is_none() {
                let wake = state.coordinator.next_wake().map_or(u64::MAX, |at| at.0);
                live.wake.store(wake, Ordering::Relaxed);
            }
            // The attempts of what is over: the votes when it is decided, the acknowledgements when it is finished.
            if effects.iter().any(|effect| matches!(effect, Effect::Decide(_) | Effect::Finish)) {
                let LiveState { coordinator, tries, .. } = &mut *state;
                tries.extend(coordinator.tries());
            }
            let told = if effects.contains(&Effect::Finish) { std::mem::take(&mut state.tries) } else { Vec::new() };
            (state.coordinator.is_over(), told)
        };
        // As its finish is: by this instance under its present epoch, though another may have taken the transaction over meanwhile.
        if !tries.is_empty() {
            self.log.append(LogCommand::Tried { writer: self.writer(), id: live.id, tries }, Box::new(|_| {}));
        }
        // Nothing is begun behind these: a probe that is left is for somebody else.
        let last = |effect: &Effect| matches!(effect, Effect::Decide(_) | Effect::Answer(_) | Effect::Relinquish);
        if let Some(pass) = live.pass.as_ref().filter(|_| effects.iter().any(last)) {
            drop(pass.lock().take());
        }
        self.carry_out(live, effects, over);
    }

    /// Carries effects out, in their order, with no lock held: a port may call back at once, on this very thread.
    /// `over`: the coordinator has nothing left to do.
    pub(crate) fn carry_out(self: &Arc<Self>, live: &Arc<Live>, mut effects: Vec<Effect>, over: bool) {
        // Where the log is asked now and then what is unfinished.
        let finishing = self.options.lease != u64::MAX && effects.contains(&Effect::Finish);
        for effect in effects.drain(..) {
            match effect {
                Effect::Stage => self.stage(live),
                Effect::Send { step, verb, attempt } => self.send(live, step, verb, attempt),
                Effect::Decide(decision) => self.decide(live, decision),
                Effect::Answer(outcome) => self.answer(live, outcome),
                Effect::Finish => self.finished.lock().push(live.id),
                Effect::DeadLetter { step, verb, attempts, why } => self.dead_letter(live, (step, verb), attempts, why),
                Effect::Alarm { step, verb, state } => {
                    let Some(service) = live.service(step) else { continue };
                    let branch = BranchId { transaction: live.id, step };
                    live.telling(&*self.observer, || {
                        tracing::error!(transaction = %live.id, step, participant = %service, %verb, ?state,
                            "the participant's branch contradicts the protocol; nothing was changed. \
                             Look at the transaction with `settle tx show`");
                    });
                    self.observer.observe(&Observation::Violation { branch, service, verb, state });
                }
                Effect::Relinquish => self.relinquish(live),
            }
        }
        EFFECTS.set(effects);
        if over {
            self.let_go(live, finishing);
        }
    }

    /// Drives it no longer. Whether it did: a late callback must not let go of what has been taken up anew under the same id.
    fn let_go(&self, live: &Live, finishing: bool) -> bool {
        let mut shard = self.shard(live.id).lock();
        let driven = shard.get(&live.id).is_some_and(|driven| std::ptr::eq(Arc::as_ptr(driven), live));
        if driven {
            shard.remove(&live.id);
            drop(shard);
            live.mark(&Mark::LetGo);
            self.driven.fetch_sub(1, Ordering::Relaxed);
            self.recovery.lock().lets_go(live.id, finishing);
        }
        driven
    }

    fn stage(self: &Arc<Self>, live: &Arc<Live>) {
        let command = LogCommand::Stage { writer: live.writer, transaction: Arc::clone(&live.transaction) };
        let (engine, of) = (Arc::clone(self), Arc::clone(live));
        let staged = move |answer: Result<LogReply, LogError>| {
            let event = match answer {
                Ok(LogReply::Staged) => Event::Staged(Ok(())),
                Ok(LogReply::StageRefused(refusal)) => Event::Staged(Err(refusal)),
                Ok(_) | Err(_) => Event::StageUnknown,
            };
            of.mark(&Mark::Staged(if let Event::Staged(answer) = &event { Some(answer.is_ok()) } else { None }));
            engine.handle(&of, event);
        };
        live.mark(&Mark::Staging);
        self.log.append(command, Box::new(staged));
    }

    fn decide(self: &Arc<Self>, live: &Arc<Live>, decision: Decision) {
        let command =
            LogCommand::Decide { writer: live.writer, id: live.id, decision, now: self.in_log(self.clock.now()) };
        let (engine, of) = (Arc::clone(self), Arc::clone(live));
        let readable = move |answer: Result<LogReply, LogError>| {
            if let Ok(LogReply::Decided { decision, .. }) = &answer {
                of.mark(&Mark::Decided(decision));
            }
            let event = match answer {
                Ok(LogReply::Decided { decision, .. }) => Event::Decided(decision),
                Ok(LogReply::NotStaged) => Event::NotStaged,
                Ok(LogReply::Fenced) => Event::Fenced,
                Ok(_) | Err(_) => Event::DecideUnknown,
            };
            engine.handle(&of, event);
        };
        let (engine, of) = (Arc::clone(self), Arc::clone(live));
        let durable = move |answer: Result<LogReply, LogError>| match answer {
            Ok(LogReply::Decided { decision, .. }) => {
                of.mark(&Mark::Durable);
                // No news, unless the flush was faster than the call that told us.
                engine.handle_all(&of, [Event::Decided(decision), Event::DecisionDurable]);
            }
            Ok(_) => {}
            Err(_) => engine.handle(&of, Event::DecideUnknown),
        };
        live.mark(&Mark::Deciding);
        self.log.decide(command, Box::new(readable), Box::new(durable));
    }

    fn send(self: &Arc<Self>, live: &Arc<Live>, step: u8, verb: Verb, attempt: u32) {
        let (Some(service), Some(command)) = (live.service(step), live.transaction.command(step, verb)) else { return };
        if let Some(pass) = live.pass.as_ref().filter(|_| verb.begins())
            && let Some(pass) = &mut *pass.lock()
        {
            pass.use_up(&service);
        }
        let (engine, of, branch) = (Arc::clone(self), Arc::clone(live), command.branch);
        let replied = move |reply: Reply| {
            engine.observer.observe(&Observation::Replied { branch, service, verb, attempt, reply: &reply });
            of.mark(&Mark::Replied { step, service, verb, attempt, reply: &reply });
            engine.tell_breaker(&service, (verb, attempt), &reply);
            engine.handle(&of, Event::Replied { step, verb, reply });
        };
        live.mark(&Mark::Sent { step, service, verb, attempt });
        live.sending((step, verb, attempt), || self.transport.send(&service, command, Box::new(replied)));
    }

    fn tell_breaker(&self, service: &Name, asked: (Verb, u32), reply: &Reply) {
        if self.gates.hear(service, asked, reply, || self.clock.now()) {
            tracing::warn!(participant = %service, "breaker opened: transactions that need the service are turned away");
            self.observer.observe(&Observation::BreakerOpened { service: *service });
        }
    }

    fn answer(&self, live: &Live, outcome: Outcome) {
        let (caller, waiters) = {
            let mut state = live.state.lock();
            state.outcome = Some(outcome.clone());
            (state.caller.take(), std::mem::take(&mut state.waiters))
        };
        let Transaction { id, definition, protocol, .. } = *live.transaction;
        let micros = self.clock.micros().saturating_sub(live.began);
        let recovered = !live.admitted;
        self.observer.observe(&Observation::Answered {
            id,
            definition,
            protocol,
            outcome: &outcome,
            recovered,
            micros,
        });
        live.mark(&Mark::Answered { outcome: &outcome, micros });
        if live.admitted {
            self.learn(definition, &outcome);
            self.admission.leave();
        }
        for waiter in waiters {
            waiter(outcome.clone());
        }
        if let Some(caller) = caller {
            caller(Ok((id, outcome)));
        }
    }

    /// Takes an outcome into the adaptive choice. A conflict in the application's own data says nothing about the participants.
    fn learn(&self, definition: Name, outcome: &Outcome) {
        let Some(defined) = self.definitions.get(&definition) else { return };
        let aborted = match outcome {
            Outcome::Committed => false,
            Outcome::Refused { .. } | Outcome::RolledBack { .. } => true,
            Outcome::Conflict(_) | Outcome::InDoubt => return,
        };
        let mut policy = defined.policy.lock();
        let switches = policy.switches();
        policy.record(aborted);
        if policy.switches() != switches && defined.definition.protocol == Choice::Auto {
            let protocol = policy.choose(false);
            drop(policy);
            // Near the threshold it changes many times a second: a counter tells how often.
            tracing::debug!(%definition, %protocol, "the abort rate changed the protocol");
            self.observer.observe(&Observation::Switched { definition, protocol });
        }
    }

    fn dead_letter(&self, live: &Arc<Live>, (step, verb): (u8, Verb), attempts: u32, why: Failure) {
        let Some(service) = live.service(step) else { return };
        if live.writer != self.writer() {
            // Taken over since: whoever has it now says so if it is stuck.
            return;
        }
        let error = match why {
            Failure::Unknown(unknown) => format!("{service}: {unknown}"),
            Failure::Violation(state) => format!("{service}: says that the branch is {state:?}"),
        };
        live.telling(&*self.observer, || {
            tracing::error!(transaction = %live.id, step, participant = %service, %verb, attempts, error,
                "the branch is stuck: it is still tried at a slow pace. See `settle tx list --state stuck`");
        });
        live.mark(&Mark::Stuck { step });
        let branch = BranchId { transaction: live.id, step };
        self.observer.observe(&Observation::DeadLetter { branch, service, verb, error: &error });
        let letter =
            DeadLetter { step, verb, attempts, error: bounded(&error).into(), at: self.in_log(self.clock.now()) };
        let command = LogCommand::Park { writer: live.writer, id: live.id, letter };
        self.log.append(command, Box::new(|_| {}));
    }

    /// Another owner has the transaction: what it decides is looked up until then.
    fn relinquish(&self, live: &Live) {
        let mut state = live.state.lock();
        let now = self.clock.now();
        state.relinquished = Some(now.plus(2 * LEASE_MS));
        live.wake.store(now.0, Ordering::Relaxed);
    }

    /// The transactions that this engine drives, for [`crate::recovery`].
    pub(crate) fn drives(&self, id: TransactionId) -> bool {
        self.shard(id).lock().contains_key(&id)
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.flush_finished();
    }
}

/// For use in [`crate::recovery`] only.
pub(crate) type Pending = VecDeque<(TransactionId, protocol::recovery::Resume, Vec<u8>, Arc<Transaction>)>;
