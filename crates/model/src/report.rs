//! Runs a check and tells people what came of it.

use std::fmt;
use std::time::{Duration, Instant};

use stateright::{Checker, Expectation, HasDiscoveries, Model};

use crate::configuration::Configuration;
use crate::model::{Checked, Happened, Happening};
use crate::world::{Instance, Message, News, Side, World};

/// What came of one check.
pub(crate) struct Verdict {
    pub(crate) states: usize,
    pub(crate) unique: usize,
    pub(crate) depth: usize,
    pub(crate) took: Duration,
    /// Properties that hold always, and examples that were found.
    pub(crate) held: usize,
    /// Properties that were broken, and examples that were not found.
    pub(crate) failed: Vec<&'static str>,
}

/// Checks a configuration exhaustively, or until a property is broken.
pub(crate) fn check(checked: Checked) -> Verdict {
    let started = Instant::now();
    let checker = checked.checker().threads(2).finish_when(HasDiscoveries::AnyFailures).spawn_dfs().join();
    let discoveries = checker.discoveries();
    let properties = checker.model().properties();
    let fails = |name: &str, expectation: &Expectation| {
        discoveries.contains_key(name) != matches!(expectation, Expectation::Sometimes)
    };
    let broken = properties
        .iter()
        .any(|property| matches!(property.expectation, Expectation::Always) && discoveries.contains_key(property.name));
    let failed: Vec<_> = properties
        .iter()
        // A search that stopped at a counterexample says nothing about examples that it had not come to.
        .filter(|property| !broken || matches!(property.expectation, Expectation::Always))
        .filter(|property| fails(property.name, &property.expectation))
        .map(|property| property.name)
        .collect();
    Verdict {
        states: checker.state_count(),
        unique: checker.unique_state_count(),
        depth: checker.max_depth(),
        took: started.elapsed(),
        held: properties.len() - failed.len(),
        failed,
    }
}

/// The shortest way to break a property, told step by step; `None` if there is none.
pub(crate) fn shortest_counterexample(configuration: &Configuration) -> Option<String> {
    let mut shortest = None;
    let mut bound = usize::MAX;
    // A search goes on for a while after its first find and may end with a longer one: search again below what was found.
    while let Some((name, path)) = counterexample_below(bound, configuration) {
        bound = path.len();
        shortest = Some((name, path));
    }
    let (name, path) = shortest?;
    let mut told = format!("broken: {name}\n");
    let mut before = String::new();
    for (at, (world, action)) in path.into_iter().enumerate() {
        let now = summary(&world);
        if now != before {
            told.push_str(&format!("         {now}\n"));
        }
        before = now;
        if let Some(action) = action {
            told.push_str(&format!("  {:>3}. {}\n", at + 1, action.what));
        }
    }
    Some(told)
}

/// A path of fewer than `bound` states that breaks a property.
#[allow(clippy::type_complexity, reason = "the checker's own path, taken apart")]
fn counterexample_below(
    bound: usize,
    configuration: &Configuration,
) -> Option<(&'static str, Vec<(World, Option<Happened>)>)> {
    let checked = Checked::new(configuration.clone());
    let search = checked.checker().finish_when(HasDiscoveries::AnyFailures).target_max_depth(bound);
    let checker = search.spawn_bfs().join();
    let properties = checker.model().properties();
    let broken = |name: &str| {
        properties.iter().any(|property| property.name == name && property.expectation == Expectation::Always)
    };
    let paths = checker.discoveries().into_iter().filter(|(name, _)| broken(name));
    paths.map(|(name, path)| (name, path.into_vec())).min_by_key(|(_, path)| path.len())
}

fn summary(world: &World) -> String {
    let instance = |side: Side| match &world.instances[side as usize] {
        Instance::Idle => "idle",
        Instance::Driving(driver) => driver.coordinator.state(),
        Instance::Relinquished { .. } => "relinquished",
        Instance::Down => "down",
    };
    let disk = match world.disk.record() {
        None => "nothing".to_owned(),
        Some(record) => match record.decision() {
            None => "staged".to_owned(),
            Some(decision) => {
                let finished = if record.finished.is_some() { ", finished" } else { "" };
                format!("{}{finished}", if decision.is_commit() { "commit" } else { "abort" })
            }
        },
    };
    let branches: Vec<_> = world
        .participants
        .iter()
        .map(|participant| participant.state().map_or("-".to_owned(), |state| format!("{state:?}").to_lowercase()))
        .collect();
    let told = match (world.chronicle.told_committed, world.chronicle.told_undone) {
        (false, false) => "nothing",
        (true, false) => "committed",
        (false, true) => "undone",
        (true, true) => "committed AND undone",
    };
    format!(
        "[A {}, B {} | disk: {disk}, {} unflushed | branches: {} | caller was told: {told}]",
        instance(Side::A),
        instance(Side::B),
        world.unflushed.len(),
        branches.join(", "),
    )
}

impl fmt::Display for Happening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Deliver(message) => message.fmt(f),
            Self::Lose(message) => write!(f, "LOST: {message}"),
            Self::GiveUp { side, step, verb } => {
                write!(f, "{side:?}'s transport gives up waiting for the reply to {verb} of branch {step}")
            }
            Self::Wake(side, at) => write!(f, "{side:?}'s timers up to {} run out", at.0),
            Self::Append(side) => write!(f, "the log carries out {side:?}'s oldest call"),
            Self::BreakCall(side, true) => write!(f, "the log carries out {side:?}'s oldest call, but the CALL BREAKS"),
            Self::BreakCall(side, false) => {
                write!(f, "{side:?}'s oldest call to the log BREAKS before it is carried out")
            }
            Self::AppendStray(at) => write!(f, "the log carries out call {at} of a coordinator that is no more"),
            Self::LoseStray(at) => write!(f, "call {at} of a coordinator that is no more never reaches the log"),
            Self::Flush => f.write_str("the log flushes its oldest change"),
            Self::CrashProcess => f.write_str("CRASH of coordinator and log; what is not flushed is lost"),
            Self::CrashInstance(side) => write!(f, "CRASH of {side:?}"),
            Self::CrashLog => f.write_str("CRASH of the log alone; what is not flushed is lost"),
            Self::Start(side) => write!(f, "{side:?} starts again and takes up what it left behind"),
            Self::TakeUp(side) => write!(f, "{side:?} finds a transaction of its own unfinished"),
            Self::TakeOver => f.write_str("B TAKES OVER what A owns"),
            Self::LookUp(side) => write!(f, "{side:?} looks up what another owner has decided"),
            Self::Ask(step) => write!(f, "participant {step} asks the log"),
            Self::ForgetBranch(step) => write!(f, "participant {step} forgets its final branch"),
            Self::ForgetInLog => f.write_str("the log forgets what is finished"),
            Self::End => f.write_str("nothing more can happen"),
        }
    }
}

impl fmt::Display for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Command { from: Some(from), step, verb } => write!(f, "participant {step} gets {from:?}'s {verb}"),
            Self::Command { from: None, step, verb } => write!(f, "participant {step} gets a late {verb}"),
            Self::Reply { to, step, verb, reply } => {
                write!(f, "{to:?} hears from participant {step}, asked to {verb}: {reply:?}")
            }
            Self::Logged { to, news } => write!(f, "{to:?} hears from the log: {news}"),
            Self::Told { step, verdict } => write!(f, "participant {step} hears from the log: {verdict:?}"),
        }
    }
}

impl fmt::Display for News {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Staged(Ok(())) => f.write_str("the stage is durable"),
            Self::Staged(Err(why)) => write!(f, "the stage is refused: {why:?}"),
            Self::StageUnknown => f.write_str("the call to stage broke"),
            Self::Readable(decision) => write!(f, "{decision:?} stands"),
            Self::Durable(decision) => write!(f, "{decision:?} stands and is durable"),
            Self::NotStaged => f.write_str("there is nothing to commit"),
            Self::Fenced => f.write_str("fenced"),
            Self::DecideUnknown => f.write_str("the call to decide broke, or its flush did"),
        }
    }
}
