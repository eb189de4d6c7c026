//! What the orchestrator does, counted as it does it.

use orchestrator::{Observation, Observer, outcome_word};
use protocol::{Protocol, Reply, Transaction};

use super::{Metrics, by_service, labels};

fn result_word(reply: &Reply) -> &'static str {
    match reply {
        Reply::Done(_) => "done",
        Reply::Refused(_) => "refused",
        Reply::Violation(_) => "violation",
        Reply::Unknown(_) => "unknown",
    }
}

pub(super) fn protocol_word(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::TwoPhase => "2pc",
        Protocol::Saga => "saga",
    }
}

fn away_word(why: &orchestrator::TurnedAway) -> &'static str {
    match why {
        orchestrator::TurnedAway::Overloaded => "overloaded",
        orchestrator::TurnedAway::Unavailable(_) => "unavailable",
        orchestrator::TurnedAway::NotReady => "not_ready",
        _ => "other",
    }
}

impl Observer for Metrics {
    fn observe(&self, observation: &Observation<'_>) {
        match observation {
            // Nobody heard it here. One that was taken over from an instance which lives on is answered there, and would be counted twice.
            Observation::Answered { recovered: true, .. } => {}
            Observation::Answered { definition, protocol, outcome, micros, .. } => {
                let outcome = outcome_word(outcome);
                let make = || {
                    let protocol = protocol_word(*protocol);
                    let of = [("definition", definition.as_str()), ("protocol", protocol), ("outcome", outcome)];
                    let of = labels(of);
                    (
                        self.transaction_counts.get_or_create_owned(&of),
                        self.transaction_durations.get_or_create_owned(&of),
                    )
                };
                self.transactions.with((*definition, *protocol, outcome), make, |(counter, durations)| {
                    counter.inc();
                    durations.observe(*micros as f64 / 1e6);
                });
            }
            Observation::Replied { service, verb, attempt, reply, .. } => {
                if *attempt > 1 {
                    self.retries.get_or_create(&by_service(service)).inc();
                }
                let result = result_word(reply);
                let make = || {
                    let of = [("service", service.as_str()), ("verb", verb.as_str()), ("result", result)];
                    self.command_counts.get_or_create_owned(&labels(of))
                };
                self.commands.with((*service, *verb, result), make, |counter| _ = counter.inc());
            }
            Observation::TurnedAway { definition, why } => {
                let of = labels([("definition", definition.as_str()), ("why", away_word(why))]);
                self.turned_away.get_or_create(&of).inc();
            }
            Observation::Violation { service, .. } => _ = self.violations.get_or_create(&by_service(service)).inc(),
            Observation::DeadLetter { service, .. } => _ = self.dead_letters.get_or_create(&by_service(service)).inc(),
            Observation::BreakerOpened { service } => _ = self.breaker_trips.get_or_create(&by_service(service)).inc(),
            Observation::Switched { definition, .. } => {
                self.protocol_switches.get_or_create(&labels([("definition", definition.as_str())])).inc();
            }
            Observation::Recovering { transactions } => {
                self.recoveries.inc();
                self.recovered.inc_by(*transactions as u64);
            }
            Observation::TookOver { .. } => _ = self.takeovers.inc(),
            Observation::Fenced => _ = self.fenced.inc(),
            _ => {}
        }
    }

    fn within(&self, transaction: &Transaction, work: &mut dyn FnMut()) {
        crate::checkout::within(transaction, work);
    }
}
