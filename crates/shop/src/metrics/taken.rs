//! What is counted elsewhere, and taken in before it is told: by stores, the orchestrator, faults and brokers.

use protocol::{Name, Protocol};

use super::observed::protocol_word;
use super::{DefinitionFigures, Metrics, OrchestratorFigures, StoreFigures, by_service, clamp, labels};
use crate::faults::{ALWAYS, Fault, Faults, Point};

impl Metrics {
    /// Takes the figures of a store in.
    pub fn store(&self, service: &str, figures: &StoreFigures) {
        let labels = labels([("service", service)]);
        self.store_up.get_or_create(&labels).set(figures.up.into());
        self.store_flushes.get_or_create(&labels).tell(figures.flushes);
        self.store_commands.get_or_create(&labels).tell(figures.commands);
        if figures.connections > 0 {
            self.store_connections.get_or_create(&labels).tell(figures.connections);
        }
        if let Some(unknown) = figures.unknown {
            self.store_unknown.get_or_create(&labels).tell(unknown);
        }
        if let Some(failovers) = figures.failovers {
            self.store_failovers.get_or_create(&labels).tell(failovers);
        }
        if let Some(bytes) = figures.disk_bytes {
            self.store_disk_bytes.get_or_create(&labels).set(clamp(bytes));
        }
        if let Some(batches) = &figures.batches {
            let commands = self.store_batch_commands.get_or_create_owned(&labels);
            commands.tell(figures.commands as f64, 1.0, &batches.commands);
            self.store_flush_seconds.get_or_create(&labels).tell(batches.seconds, 1e-6, &batches.microseconds);
        }
    }

    /// Takes the figures of the orchestrator in.
    pub fn orchestrator(&self, figures: &OrchestratorFigures) {
        self.in_flight.set(clamp(figures.in_flight as u64));
        self.queued.set(clamp(figures.queued as u64));
        self.unsettled.set(clamp(figures.unsettled as u64));
        self.in_doubt.set(clamp(figures.in_doubt as u64));
        if figures.leader {
            if let Some(stuck) = figures.stuck {
                self.stuck.know(clamp(stuck as u64));
            }
            // It has begun to look, and found nothing yet.
            self.audit_findings.begin_with(0);
            self.audit_ended.begin_with(0);
        } else {
            self.stuck.know_no_longer();
            self.audits_no_longer();
        }
        self.leader.set(figures.leader.into());
        self.epoch.set(clamp(figures.epoch));
        for (service, open) in &figures.breakers {
            self.breaker_open.get_or_create(&by_service(service)).set((*open).into());
        }
        for DefinitionFigures { definition, protocol: used, fixed, abort_percent } in &figures.definitions {
            let of = labels([("definition", definition.as_str())]);
            self.abort_percent.get_or_create(&of).set(clamp(*abort_percent as u64));
            self.protocol_fixed.get_or_create(&of).set((*fixed).into());
            for protocol in [Protocol::TwoPhase, Protocol::Saga] {
                let of = labels([("definition", definition.as_str()), ("protocol", protocol_word(protocol))]);
                self.protocol.get_or_create(&of).set((protocol == *used).into());
            }
        }
    }

    /// Takes in which faults are set at a service, if any may be.
    pub fn faults(&self, service: &Name, faults: &Faults) {
        if !faults.enabled() {
            return;
        }
        for (point, action, times) in faults.struck() {
            let of = labels([("service", service.as_str()), ("point", &point.to_string()), ("action", action)]);
            self.faults_struck.get_or_create(&of).tell(times);
        }
        let rules = faults.rules();
        for point in Point::all().map(|point| point.to_string()) {
            let set = rules.get(&point).map(|rule| (rule.fault.action(), f64::from(rule.percent.min(ALWAYS)) / 100.0));
            for action in Fault::ACTIONS {
                let of = labels([("service", service.as_str()), ("point", &point), ("action", action)]);
                let share = set.filter(|(does, _)| *does == action).map_or(0.0, |(_, share)| share);
                self.faults_set.get_or_create(&of).set(share);
            }
        }
    }

    /// Takes in how the connection to a broker fares, and how often what happened.
    pub fn broker(&self, broker: &str, up: bool, events: &[(&'static str, u64)]) {
        self.broker_up.get_or_create(&labels([("broker", broker)])).set(up.into());
        for (event, count) in events {
            self.broker_events.get_or_create(&labels([("broker", broker), ("event", event)])).tell(*count);
        }
    }
}
