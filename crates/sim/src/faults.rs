//! Faults: crashes, stalls, cuts, at random and at the worst moments.

use crate::network::Node;
use crate::world::{Event, MILLI, World};

/// A moment at which a crash hurts most.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Moment {
    /// The orders have a stage, of this instance.
    Staged(usize),
    /// The orders have a decision, of this instance.
    Decided(usize),
    /// A participant has carried a command of an instance out.
    Applied(usize, usize),
    /// An instance has sent the first release of a transaction: what it rests on had better be irrevocable.
    Released(usize),
}

impl World {
    /// Something happens at random.
    pub(crate) fn on_fault(&mut self) {
        if self.calm {
            return;
        }
        let mean = self.conditions.fault_every;
        let next = self.random.between(mean / 4, 2 * mean) * MILLI;
        self.after(next, Event::Fault);
        let instance = Node::Instance(self.random.index(self.instances.len()));
        let ledger = Node::Ledger(self.random.index(2));
        match self.random.below(12) {
            0 | 1 => self.crash(instance),
            2 => self.crash(ledger),
            3 => self.crash(Node::Orders),
            4 => {
                self.crash(Node::Orders);
                self.crash(instance);
            }
            5 => self.power_failure(),
            6 | 7 => self.stall(instance),
            8 | 9 => self.cut(instance, Node::Orders),
            10 if self.random.chance(300) => self.cut_off(instance),
            10 => self.cut(instance, ledger),
            _ => self.cut(instance, Node::Clients),
        }
    }

    /// Now would be a bad moment: perhaps something happens.
    pub(crate) fn strike(&mut self, moment: Option<Moment>) {
        let Some(moment) = moment.filter(|_| !self.calm && self.random.chance(self.conditions.strike)) else { return };
        let choice = self.random.below(6);
        match moment {
            Moment::Staged(instance) if self.conditions.aimed => self.crash(Node::Instance(instance)),
            Moment::Decided(_) | Moment::Applied(..) if self.conditions.aimed => {}
            Moment::Staged(instance) | Moment::Decided(instance) => match choice {
                0 => self.crash(Node::Orders),
                1 => self.crash(Node::Instance(instance)),
                2 | 3 => self.blow(&[Node::Orders, Node::Instance(instance)]),
                4 => self.cut(Node::Instance(instance), Node::Orders),
                _ => self.stall(Node::Instance(instance)),
            },
            Moment::Released(instance) => self.blow(&[Node::Orders, Node::Instance(instance)]),
            Moment::Applied(participant, instance) => match choice {
                0 => self.crash(Node::Ledger(participant)),
                1 => self.crash(Node::Instance(instance)),
                2 => self.blow(&[Node::Ledger(participant), Node::Instance(instance)]),
                3 => self.blow(&[Node::Orders, Node::Instance(instance)]),
                4 => self.cut(Node::Instance(instance), Node::Ledger(participant)),
                _ => self.stall(Node::Instance(instance)),
            },
        }
    }

    /// These crash a little later, close together.
    fn blow(&mut self, nodes: &[Node]) {
        let soon = self.random.chance(700);
        let after = self.random.between(1, if soon { self.conditions.delay * 3 } else { self.conditions.flush });
        for &node in nodes {
            self.after(after, Event::Crash(node));
        }
    }

    fn power_failure(&mut self) {
        self.note(Node::Clients, |_| "the power fails".to_owned());
        for instance in 0..self.instances.len() {
            self.crash(Node::Instance(instance));
        }
        for node in [Node::Orders, Node::Ledger(0), Node::Ledger(1)] {
            self.crash(node);
        }
    }

    /// Crashes a process, and starts it again in a while.
    pub(crate) fn crash(&mut self, node: Node) {
        if self.calm {
            return;
        }
        match node {
            Node::Instance(number) if self.instances[number].engine.is_some() => {
                self.note(node, |_| "crashes".to_owned());
                self.instances[number].stop();
            }
            Node::Instance(_) | Node::Clients => return,
            database => self.crash_database(database),
        }
        let longest = if self.conditions.aimed { 300 } else { *self.random.pick(&[100, 1_500, 1_500, 1_500, 9_000]) };
        let down = self.random.between(5, longest) * MILLI;
        self.after(down, Event::Start(node));
    }

    fn stall(&mut self, node: Node) {
        let Node::Instance(number) = node else { return };
        if self.instances[number].engine.is_some() {
            let longest = if self.random.chance(500) { 9_000 } else { 1_000 };
            let micros = self.random.between(50, longest) * MILLI;
            self.note(node, |_| format!("stalls for {} ms", micros / MILLI));
            self.instances[number].stalled_until = self.schedule.now() + micros;
        }
    }

    fn cut(&mut self, a: Node, b: Node) {
        let until = self.schedule.now() + self.random.between(50, 6_000) * MILLI;
        let holds = self.random.chance(500);
        let how = if holds { "held back" } else { "lost" };
        self.note(a, |_| format!("is cut off from {b} until {} ms; messages are {how}", until / MILLI));
        self.network.cut(a, b, until, holds);
    }

    /// An instance loses what carries its commands, and not its log.
    fn cut_off(&mut self, instance: Node) {
        let until = self.schedule.now() + self.random.between(1_000, 20_000) * MILLI;
        self.note(instance, |_| format!("is cut off from all participants until {} ms", until / MILLI));
        for ledger in [0, 1] {
            self.network.cut(instance, Node::Ledger(ledger), until, false);
        }
    }

    /// Starts whatever is down.
    pub(crate) fn start(&mut self, node: Node) {
        match node {
            Node::Instance(number) => self.start_instance(number),
            Node::Clients => {}
            database => self.restart_database(database),
        }
    }

    pub(crate) fn restart_everything(&mut self) {
        for node in [Node::Orders, Node::Ledger(0), Node::Ledger(1)] {
            self.start(node);
        }
        for number in 0..self.instances.len() {
            let now = self.schedule.now();
            let instance = &mut self.instances[number];
            instance.stalled_until = instance.stalled_until.min(now);
            self.start(Node::Instance(number));
        }
    }
}
