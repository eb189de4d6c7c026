//! The suite of the port.

use std::sync::Arc;

use nats::{Mode, Options, Serving};
use orchestrator::{Done, Transport, conformance};
use protocol::{Command, Name, Reply};

use crate::support::{CORE, FILE, MEMORY, connect, options, runtime, server};

/// Both ends, which live as long as the transport.
struct Both<T> {
    transport: T,
    _serving: Vec<Serving>,
}

impl<T: Transport> Transport for Both<T> {
    fn knows(&self, service: &Name) -> bool {
        self.transport.knows(service)
    }

    fn is_connected(&self) -> bool {
        self.transport.is_connected()
    }

    fn send(&self, service: &Name, command: Command, done: Done<Reply>) {
        self.transport.send(service, command, done);
    }
}

fn passes(mode: Mode) {
    let server = server();
    let runtime = runtime();
    conformance::transport(|participants| {
        // A queue and a prefix of its own for every transport: what one leaves behind is none of another's business.
        let prefix = Name::new(&format!("t{}", fastrand::u32(..))).unwrap();
        let of = |instance| Options { prefix, ..options(&server, instance, mode) };
        let stock = connect(&runtime, of("stock-1"));
        let services: Vec<Name> = participants.keys().copied().collect();
        let serving = participants
            .into_iter()
            .map(|(service, participant)| runtime.block_on(stock.serve(service, participant)).unwrap());
        let serving = serving.collect();
        let order = connect(&runtime, of("order-1"));
        let transport = runtime.block_on(order.transport(services)).unwrap();
        Arc::new(Both { transport, _serving: serving })
    });
}

#[test]
fn the_transport_over_core_nats() {
    passes(CORE);
}

#[test]
fn the_transport_over_jetstream_in_memory() {
    passes(MEMORY);
}

#[test]
fn the_transport_over_jetstream_in_files() {
    passes(FILE);
}
