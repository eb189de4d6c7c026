//! The order side: commands out, replies in.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use orchestrator::{Done, Transport};
use protocol::{Command, Name, Reply, Unknown, Verb};

use crate::error::StartError;
use crate::link::{Nats, Shared, check_identity};
use crate::options::Mode;
use crate::outbox::{Lane, Outgoing, Way};
use crate::pending::{Lost, Waiting};
use crate::statistics::count;
use crate::streams::{self, When};
use crate::wire;

/// Sends commands to services over NATS. An [`orchestrator::Transport`].
#[derive(Clone)]
pub struct NatsTransport {
    nats: Nats,
    services: Arc<BTreeMap<Name, Arc<Lane>>>,
}

impl std::fmt::Debug for NatsTransport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NatsTransport").field("services", &self.services).finish_non_exhaustive()
    }
}

impl Nats {
    /// A transport to these services. In JetStream mode their queues are made, if they are not there, and made again whenever they are gone.
    ///
    /// # Errors
    /// If a queue cannot be made, or is another than is needed.
    pub async fn transport(&self, services: impl IntoIterator<Item = Name>) -> Result<NatsTransport, StartError> {
        let shared = &self.shared;
        let services: BTreeMap<Name, Arc<Lane>> =
            services.into_iter().map(|service| (service, Lane::new(shared.names.command(service)))).collect();
        if matches!(shared.options.mode, Mode::JetStream { .. }) {
            for service in services.keys() {
                streams::at_start(shared, || streams::command_stream(shared, *service, When::Start)).await?;
            }
            let (shared, names) = (Arc::clone(shared), services.keys().copied().collect());
            self.keep(tokio::spawn(async move { keep_streams(&shared, names).await }));
        }
        Ok(NatsTransport { nats: self.clone(), services: Arc::new(services) })
    }
}

/// Looks after the streams, whenever there is a new connection or one was found to be missing; for ever.
async fn keep_streams(shared: &Shared, services: Vec<Name>) {
    let mut connections = shared.connections.clone();
    connections.mark_unchanged();
    loop {
        tokio::select! {
            changed = connections.changed() => if changed.is_err() { return },
            () = shared.missing.notified() => {}
        }
        let broken = shared.broken.lock().take();
        if let Some(stream) = broken {
            streams::remove_broken(shared, &stream).await;
        }
        for service in &services {
            streams::until_there(shared, || streams::command_stream(shared, *service, When::Repair)).await;
        }
        // A server that is asked for a stream too often has no time for it.
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

impl NatsTransport {
    /// Says for which participant the commands for a service are, before the first of them: the identity of its database, by which it
    /// [goes](Nats::go_by).
    ///
    /// # Errors
    /// If that is longer than 64 bytes, another was named before, or there is no such service.
    pub fn address(&self, service: &Name, identity: &str) -> Result<(), StartError> {
        check_identity(identity)?;
        if self.services.get(service).is_some_and(|lane| lane.address(identity)) {
            return Ok(());
        }
        let why = format!("commands for {service} are for another than {identity}, or go nowhere");
        Err(StartError::Option { option: "identity", why })
    }
}

impl Transport for NatsTransport {
    fn knows(&self, service: &Name) -> bool {
        self.services.contains_key(service)
    }

    fn is_connected(&self) -> bool {
        self.nats.shared.is_connected()
    }

    fn send(&self, service: &Name, command: Command, done: Done<Reply>) {
        let shared = &self.nats.shared;
        let give_up = |waiting: Waiting| waiting.give_up(Lost::Unreachable, &shared.statistics);
        let Some(lane) = self.services.get(service) else {
            count(&shared.statistics.unreachable);
            return done(Reply::Unknown(Unknown::Unreachable));
        };
        let waiting = Waiting::Command(done, lane.place());
        let payload = match wire::encode(&command) {
            Ok(payload) => payload,
            Err(error) => {
                tracing::error!(transaction = %command.branch.transaction, step = command.branch.step, %error, "a command cannot be sent");
                return give_up(waiting);
            }
        };
        if !shared.is_connected() {
            return give_up(waiting);
        }
        let trace = shared.options.tracing.as_ref().and_then(|tracing| tracing.outgoing());
        let now = Instant::now();
        let until = now + shared.options.timeout;
        // Whoever wanted the transaction has been answered.
        let patient = (command.verb == Verb::Commit).then_some(now);
        match shared.pending.put(until, waiting) {
            Ok(id) => {
                shared.send(Outgoing { id, until, payload, trace, way: Way::Command(Arc::clone(lane)), patient });
            }
            Err(waiting) => give_up(waiting),
        }
    }
}
