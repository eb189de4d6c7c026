//! The world as a [`stateright::Model`]: what can happen next, and what must hold.

use std::fmt;

use protocol::{BranchState, Effect, Event, Reply, Timestamp, Unknown, Verb};
use stateright::{Model, Property};

use crate::configuration::Configuration;
use crate::parts::{ATTEMPT_OVER, ENTROPY, LATE, NOW};
use crate::world::{Instance, Message, Side, World, Write};

/// One configuration, with at most one deliberate bug.
#[derive(Debug, Clone)]
pub(crate) struct Checked {
    pub(crate) configuration: Configuration,
    #[cfg(test)]
    pub(crate) mutation: Option<protocol::simulation::Mutation>,
}

/// What happens.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Happening {
    Deliver(Message),
    Lose(Message),
    /// The transport gives up waiting for this command's reply.
    GiveUp {
        side: Side,
        step: u8,
        verb: Verb,
    },
    Wake(Side, Timestamp),
    /// The log carries out an instance's oldest call.
    Append(Side),
    /// The same, but the call breaks; whether it was carried out.
    BreakCall(Side, bool),
    AppendStray(usize),
    LoseStray(usize),
    Flush,
    CrashProcess,
    CrashInstance(Side),
    CrashLog,
    Start(Side),
    /// An instance that drives nothing finds a transaction of its own unfinished.
    TakeUp(Side),
    TakeOver,
    LookUp(Side),
    /// A participant asks the log what became of its branch.
    Ask(u8),
    ForgetBranch(u8),
    ForgetInLog,
    End,
}

/// Something that happens, with what the world is afterwards: worked out once, so that only what changes anything is an action.
#[derive(Clone)]
pub(crate) struct Happened {
    pub(crate) what: Happening,
    after: Box<World>,
}

impl PartialEq for Happened {
    fn eq(&self, other: &Self) -> bool {
        self.what == other.what
    }
}

impl fmt::Debug for Happened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.what.fmt(f)
    }
}

impl Checked {
    pub(crate) fn new(configuration: Configuration) -> Self {
        Self {
            configuration,
            #[cfg(test)]
            mutation: None,
        }
    }

    /// Deliberate bugs are switched per thread, and the checker has threads of its own.
    fn switch_mutation(&self) {
        #[cfg(test)]
        protocol::simulation::activate(self.mutation);
    }

    /// Whatever happens as long as nothing goes wrong.
    fn progress(&self, world: &World, found: &mut Vec<Happened>) {
        let configuration = &self.configuration;
        let mut happen = |what: Happening, change: &dyn Fn(&mut World)| push(world, found, what, change);
        for message in &world.messages {
            happen(Happening::Deliver(message.clone()), &|after| after.deliver(message.clone(), configuration));
        }
        for side in Side::BOTH {
            if !world.calls[side as usize].is_empty() {
                happen(Happening::Append(side), &|after| {
                    if let Some(write) = after.calls[side as usize].pop_front() {
                        let caller = after.driver(side).is_some().then_some(side);
                        after.append(caller, write, configuration);
                    }
                });
            }
            match &world.instances[side as usize] {
                Instance::Down => happen(Happening::Start(side), &|after| after.start(side, configuration)),
                Instance::Relinquished { .. } => {
                    happen(Happening::LookUp(side), &|after| after.look_up(side, configuration));
                }
                Instance::Idle => {
                    let quiet = world.calls[side as usize].is_empty() && world.unflushed.is_empty();
                    if quiet && world.has_left_overs(side) {
                        happen(Happening::TakeUp(side), &|after| after.take_up(side, configuration));
                    }
                }
                Instance::Driving(_) => {}
            }
        }
        for at in 0..world.stray_calls.len() {
            happen(Happening::AppendStray(at), &|after| {
                let write = after.stray_calls.remove(at);
                after.append(None, write, configuration);
            });
        }
        if !world.unflushed.is_empty() {
            happen(Happening::Flush, &|after| after.flush(configuration));
        }
        for side in Side::BOTH {
            wake(world, side, found);
        }
    }

    /// Faults, each as often as the configuration lets it.
    fn faults(&self, world: &World, found: &mut Vec<Happened>) {
        let configuration = &self.configuration;
        let mut happen = |what: Happening, change: &dyn Fn(&mut World)| push(world, found, what, change);
        let left = &world.left;
        if left.losses > 0 {
            for message in &world.messages {
                let lossy = !matches!(message, Message::Logged { .. } | Message::Command { from: None, .. });
                if lossy {
                    happen(Happening::Lose(message.clone()), &|after| {
                        after.left.losses -= 1;
                        after.messages.remove(message);
                    });
                }
            }
        }
        for side in Side::BOTH {
            if left.broken_calls > 0 && !world.calls[side as usize].is_empty() {
                for carried_out in [false, true] {
                    happen(Happening::BreakCall(side, carried_out), &|after| {
                        after.left.broken_calls -= 1;
                        if let Some(write) = after.calls[side as usize].pop_front() {
                            after.break_call(side, &write);
                            if carried_out {
                                after.append(None, write, configuration);
                            }
                        }
                    });
                }
            }
            let up = !matches!(world.instances[side as usize], Instance::Down);
            // An idle B that crashes is no news.
            let busy = side == Side::A || !matches!(world.instances[side as usize], Instance::Idle);
            if left.instance_crashes > 0 && up && busy {
                happen(Happening::CrashInstance(side), &|after| {
                    after.left.instance_crashes -= 1;
                    after.crash_instance(side);
                });
            }
        }
        if left.process_crashes > 0 {
            happen(Happening::CrashProcess, &|after| {
                after.left.process_crashes -= 1;
                after.crash_process();
            });
        }
        if left.log_crashes > 0 && !world.unflushed.is_empty() {
            happen(Happening::CrashLog, &|after| {
                after.left.log_crashes -= 1;
                after.crash_log();
            });
        }
        if left.take_overs > 0 && matches!(world.instances[Side::B as usize], Instance::Idle) {
            happen(Happening::TakeOver, &|after| {
                after.left.take_overs -= 1;
                after.take_over(configuration);
            });
        }
        for at in 0..world.stray_calls.len() {
            happen(Happening::LoseStray(at), &|after| {
                after.stray_calls.remove(at);
            });
        }
        if configuration.unknowns {
            for message in &world.messages {
                if let Message::Command { from: Some(side), step, verb } = *message {
                    happen(Happening::GiveUp { side, step, verb }, &|after| {
                        after.hand(side, NOW, Event::Replied { step, verb, reply: Reply::Unknown(Unknown::Timeout) });
                    });
                }
            }
        }
        if configuration.forgets {
            for (step, participant) in (0_u8..).zip(&world.participants) {
                if participant.state().is_some() {
                    happen(Happening::ForgetBranch(step), &|after| after.participants[usize::from(step)].forget());
                }
            }
            if world.unflushed.is_empty() {
                happen(Happening::ForgetInLog, &|after| {
                    after.append(None, Write::Forget, configuration);
                    after.flush(configuration);
                });
            }
        }
    }

    /// Participants ask about their open branches.
    fn asks(&self, world: &World, found: &mut Vec<Happened>) {
        // While something is not flushed, the answer would have to wait for it: that is the same as asking later.
        for (step, participant) in (0_u8..).zip(&world.participants) {
            let told =
                world.messages.iter().any(|message| matches!(message, Message::Told { step: to, .. } if *to == step));
            if participant.open().is_some() && world.unflushed.is_empty() && !told {
                push(world, found, Happening::Ask(step), &|after| {
                    after.append(None, Write::Ask(step), &self.configuration);
                });
            }
        }
    }
}

/// Adds what happens if it changes anything.
fn push(world: &World, found: &mut Vec<Happened>, what: Happening, change: &dyn Fn(&mut World)) {
    let mut after = Box::new(world.clone());
    change(&mut after);
    if *after != *world {
        found.push(Happened { what, after });
    }
}

/// A timer of an instance's coordinator runs out: the earliest one that does more than to send again what is still on its way; and
/// the deadline, at any moment before a decision.
fn wake(world: &World, side: Side, found: &mut Vec<Happened>) {
    let Some(driver) = world.driver(side) else { return };
    let Some(next) = driver.coordinator.next_wake() else { return };
    let is_news = |now: &Timestamp| {
        let mut effects = Vec::new();
        driver.coordinator.clone().handle(*now, Event::Wake, ENTROPY, &mut effects);
        effects.iter().any(|effect| match *effect {
            Effect::Send { step, verb, .. } => {
                !world.messages.contains(&Message::Command { from: Some(side), step, verb })
            }
            _ => true,
        })
    };
    let first = [next, ATTEMPT_OVER.max(next), LATE.max(next)].into_iter().find(is_news);
    let undecided = matches!(driver.coordinator.state(), "voting" | "staging" | "executing");
    let deadline = Some(LATE).filter(|late| undecided && first != Some(*late) && is_news(late));
    for now in first.into_iter().chain(deadline) {
        push(world, found, Happening::Wake(side, now), &|after| after.hand(side, now, Event::Wake));
    }
}

impl Model for Checked {
    type State = World;
    type Action = Happened;

    fn init_states(&self) -> Vec<World> {
        self.switch_mutation();
        vec![World::begin(&self.configuration)]
    }

    fn actions(&self, world: &World, found: &mut Vec<Happened>) {
        self.switch_mutation();
        if world.ended {
            return;
        }
        self.progress(world, found);
        if found.is_empty() || self.configuration.eager_asks {
            self.asks(world, found);
        }
        if found.is_empty() {
            push(world, found, Happening::End, &|after| after.ended = true);
        }
        self.faults(world, found);
    }

    fn next_state(&self, _: &World, happened: Happened) -> Option<World> {
        Some(*happened.after)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let mut properties = vec![
            Property::always("no branch committed beside one aborted", |_, world: &World| {
                let is = |wanted| world.chronicle.fates.iter().flatten().any(|fate| wanted == *fate);
                !is(BranchState::Committed) || !(is(BranchState::Aborted) || is(BranchState::Compensated))
            }),
            Property::always("what a caller was told stays true", told_truly),
            Property::always("no command contradicts its branch", |_, world: &World| !world.chronicle.violated),
            Property::always("at most one durable decision", |_, world: &World| !world.chronicle.decided_twice),
            Property::always("accounts are conserved, and hold what their branches say", is_conserved),
            Property::always("what is finished is done everywhere", is_finished_everywhere),
            Property::always("what ends is settled", |model: &Self, world: &World| {
                !world.ended || model.is_settled(world)
            }),
            Property::sometimes("an abort", |_, world: &World| world.ended && world.chronicle.decided == Some(false)),
        ];
        if !self.configuration.is_refused() {
            properties.push(Property::sometimes("a commit", |_, world: &World| {
                world.ended && world.chronicle.decided == Some(true)
            }));
        }
        let faults = &self.configuration.faults;
        if faults.process_crashes + faults.instance_crashes + faults.take_overs > 0 {
            let backward = self.configuration.transaction.recovery == protocol::Recovery::Backward;
            let refused = self.configuration.is_refused();
            if refused || backward {
                properties.push(Property::sometimes("recovery aborts", |_, world: &World| {
                    world.ended && world.chronicle.recovered && world.chronicle.decided == Some(false)
                }));
            }
            let always_aborts = refused || backward && self.configuration.is_saga();
            if !always_aborts {
                properties.push(Property::sometimes("recovery commits", |_, world: &World| {
                    world.ended && world.chronicle.recovered && world.chronicle.decided == Some(true)
                }));
            }
            if !self.configuration.is_saga() {
                properties.push(Property::sometimes("a tombstone", |_, world: &World| world.chronicle.entombed));
            }
        }
        // Only what finishes a branch becomes a dead letter; a forward saga that nobody refuses sends nothing of the kind.
        let finishes =
            self.configuration.is_refused() || self.configuration.transaction.recovery == protocol::Recovery::Backward;
        if faults.losses > 1 && finishes {
            properties.push(Property::sometimes("a dead letter", |_, world: &World| world.chronicle.dead_letter));
        }
        properties
    }
}

fn told_truly(checked: &Checked, world: &World) -> bool {
    let chronicle = &world.chronicle;
    let stands = |fate: &Option<BranchState>| match fate {
        Some(BranchState::Prepared | BranchState::Committed) => !checked.configuration.is_saga(),
        Some(BranchState::Executed) => checked.configuration.is_saga(),
        _ => false,
    };
    let committed = chronicle.decided != Some(false) && chronicle.fates.iter().all(stands);
    let undone = chronicle.decided != Some(true) && !chronicle.fates.contains(&Some(BranchState::Committed));
    (!chronicle.told_committed || committed) && (!chronicle.told_undone || undone)
}

/// A finished transaction that was staged needs no more help from anyone, not even from a participant that asks.
fn is_finished_everywhere(_: &Checked, world: &World) -> bool {
    let staged = world.disk.record().filter(|record| record.transaction.is_some() && record.finished.is_some());
    let Some(decision) = staged.and_then(|record| record.decision()) else { return true };
    world.chronicle.fates.iter().all(|fate| match fate {
        Some(BranchState::Committed | BranchState::Executed) => decision.is_commit(),
        Some(BranchState::Prepared) => false,
        Some(BranchState::Aborted | BranchState::Compensated) | None => !decision.is_commit(),
    })
}

fn is_conserved(_: &Checked, world: &World) -> bool {
    world.participants.iter().zip(&world.chronicle.fates).all(|(participant, fate)| {
        let (held, settled) = match fate {
            Some(BranchState::Prepared) => (crate::parts::AMOUNT, 0),
            Some(BranchState::Committed | BranchState::Executed) => (0, crate::parts::AMOUNT),
            Some(BranchState::Aborted | BranchState::Compensated) | None => (0, 0),
        };
        let account = participant.account();
        (account.held, account.settled) == (held, settled) && participant.is_sound()
    })
}

impl Checked {
    /// Every branch is as decided, everyone has been told, and the log has nothing left to do.
    fn is_settled(&self, world: &World) -> bool {
        let chronicle = &world.chronicle;
        let commit = chronicle.decided == Some(true);
        let branches = chronicle.fates.iter().all(|fate| match fate {
            Some(BranchState::Committed | BranchState::Executed) => commit,
            Some(BranchState::Prepared) => false,
            Some(BranchState::Aborted | BranchState::Compensated) | None => !commit,
        });
        let left = &self.configuration.faults;
        let caller_died =
            world.left.process_crashes < left.process_crashes || world.left.instance_crashes < left.instance_crashes;
        let told = caller_died || chronicle.told_committed || chronicle.told_undone || chronicle.told_in_doubt;
        let idle = world.instances.iter().all(|instance| *instance == Instance::Idle);
        let finished = world.disk.record().is_none_or(|record| record.finished.is_some());
        branches && told && idle && finished
    }
}
