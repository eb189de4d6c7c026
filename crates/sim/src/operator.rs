//! The operator: looks at what is stuck, and has it tried again or settles it by hand.

use protocol::log::Resolution;

use crate::network::Node;
use crate::wires::Notice;
use crate::world::{Event, MILLI, World};

impl World {
    pub(crate) fn on_operate(&mut self) {
        if self.calm {
            return;
        }
        let mean = self.conditions.operate;
        let next = self.random.between(mean / 4, 2 * mean) * MILLI;
        self.after(next, Event::Operate);
        let open = self.orders.applied().transactions().open();
        let stuck: Vec<_> =
            open.flat_map(|(id, record)| record.open_letters().map(move |letter| (id, letter.step))).collect();
        let instance = self.random.index(self.instances.len());
        if stuck.is_empty() || self.instances[instance].engine.is_none() || self.is_stalled(instance) {
            return;
        }
        let (id, step) = *self.random.pick(&stuck);
        let node = Node::Instance(instance);
        if self.random.chance(300) {
            self.note(node, |_| format!("an operator has {id} tried again"));
            self.engine(instance, |engine, _| _ = engine.retry(id));
            return;
        }
        // Settled by hand is what the operator says. The branch may be as it was, and its participant still asks.
        let at = self.clock_of(instance);
        let resolution = Resolution { step, operator: "operator".into(), reason: "by the books".into(), at };
        self.note(node, |_| format!("an operator settles step {step} of {id} by hand"));
        self.engine(instance, |engine, wires| {
            let notice = move |answer| Notice::Other(format!("resolution of {id}: {answer:?}"));
            engine.resolve(id, resolution, wires.notify(notice));
        });
    }
}
