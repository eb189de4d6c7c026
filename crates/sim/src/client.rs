//! Clients: they check out each other's orders, change them meanwhile, and try again when they got no answer.

use ledger::{EntityId, IdempotencyKey};
use shop::orders::OrdersCommand;

use crate::network::Node;
use crate::world::{Event, MILLI, World};

/// A client does one thing after another.
#[derive(Debug)]
pub(crate) struct Client {
    left: u32,
    /// The request it waits for.
    waiting: Option<u64>,
    /// The order it was checking out when it got no useful answer.
    retry: Option<EntityId>,
    /// The change that it sent under a key and got no answer to.
    again: Option<OrdersCommand>,
}

impl Client {
    pub(crate) fn new(operations: u32) -> Self {
        Self { left: operations, waiting: None, retry: None, again: None }
    }

    pub(crate) fn is_done(&self) -> bool {
        self.left == 0 && self.waiting.is_none()
    }
}

impl World {
    pub(crate) fn act(&mut self, client: usize) {
        if self.clients[client].left == 0 || self.clients[client].waiting.is_some() {
            return;
        }
        self.clients[client].left -= 1;
        let request = self.serial();
        self.clients[client].waiting = Some(request);
        // Orders made of late are more interesting than those paid long ago.
        let recent = self.random.below(self.orders_made.min(4));
        let order = EntityId::number(self.orders_made - 1 - recent);
        let retry = self.clients[client].retry.take();
        let again = self.clients[client].again.take();
        match self.random.below(100) {
            _ if again.is_some() => self.edit(client, request, again),
            _ if retry.is_some() => self.check_out(client, request, retry.unwrap_or(order)),
            0..65 => {
                self.check_out(client, request, order);
                // Somebody changes the order at the same moment.
                if self.random.chance(250) {
                    let command = self.add_item(order);
                    let nobody = self.serial();
                    self.send(Node::Clients, Node::Orders, Event::Edit { client, request: nobody, command });
                }
            }
            65..80 => {
                let command = self.add_item(order);
                self.edit(client, request, Some(command));
            }
            _ => {
                let mut commands = self.new_order();
                let last = commands.pop();
                for command in commands {
                    let unheard = self.serial();
                    self.after(1, Event::Edit { client, request: unheard, command });
                }
                self.edit(client, request, last);
            }
        }
        let patience = self.random.between(1_000, 8_000) * MILLI;
        self.after(patience, Event::Answered { client, request, status: None });
    }

    /// Sends a change, perhaps under a key; then it is sent again if there is no answer.
    fn edit(&mut self, client: usize, request: u64, command: Option<OrdersCommand>) {
        let Some(mut command) = command else { return };
        if let OrdersCommand::Create { key, .. } | OrdersCommand::AddItem { key, .. } = &mut command {
            if key.is_none() && self.random.chance(500) {
                *key = Some(IdempotencyKey {
                    key: format!("request-{request}").into(),
                    fingerprint: request,
                    at: self.true_time(),
                });
            }
            if key.is_some() {
                self.clients[client].again = Some(command.clone());
                if self.random.chance(self.conditions.duplicate) {
                    let after = self.random.between(1, 3_000) * MILLI;
                    self.after(after, Event::Edit { client, request, command: command.clone() });
                }
            }
        }
        self.send(Node::Clients, Node::Orders, Event::Edit { client, request, command });
    }

    /// Where an item was lost, somebody may add another one, and check the order out.
    pub(crate) fn make_up_for_the_lost(&mut self) {
        for order in std::mem::take(&mut self.bereft) {
            if !self.random.chance(500) {
                continue;
            }
            let (command, instance) = (self.add_item(order), self.random.index(self.instances.len()));
            let [edit, checkout] = [(); 2].map(|()| self.serial());
            self.after(1, Event::Edit { client: 0, request: edit, command });
            let event = Event::Checkout { instance, client: 0, request: checkout, order };
            let soon = self.random.between(1, 300) * MILLI;
            self.after(soon, event);
        }
    }

    fn check_out(&mut self, client: usize, request: u64, order: EntityId) {
        let instance = self.random.index(self.instances.len());
        self.clients[client].retry = Some(order);
        let event = Event::Checkout { instance, client, request, order };
        self.send(Node::Clients, Node::Instance(instance), event);
    }

    pub(crate) fn on_answered(&mut self, client: usize, request: u64, status: Option<&'static str>) {
        if self.clients[client].waiting != Some(request) {
            return;
        }
        self.clients[client].waiting = None;
        match status {
            None => {
                self.note(Node::Clients, |_| format!("client {client} got no answer to request {request}"));
                *self.oracle.answers.entry("no answer").or_default() += 1;
            }
            Some("edited" | "edit refused") => {
                self.clients[client].retry = None;
                self.clients[client].again = None;
            }
            Some("paid" | "refused" | "no such order") => self.clients[client].retry = None,
            Some(_) => {}
        }
        if self.random.chance(300) {
            self.clients[client].retry = None;
        }
        let pause = self.random.between(1, 1_500) * MILLI;
        self.after(pause, Event::Act(client));
    }
}
