//! Participants in the same process.

use std::collections::BTreeMap;
use std::sync::Arc;

use protocol::{Command, Name, Reply, Unknown};

use crate::ports::{Done, Participant, Transport};

/// Hands commands to participants by a call.
#[derive(Default, Clone)]
pub struct InProcess {
    participants: BTreeMap<Name, Arc<dyn Participant>>,
}

impl InProcess {
    /// Adds a participant under the name of its service.
    #[must_use]
    pub fn with(mut self, service: Name, participant: Arc<dyn Participant>) -> Self {
        self.participants.insert(service, participant);
        self
    }
}

impl Transport for InProcess {
    fn knows(&self, service: &Name) -> bool {
        self.participants.contains_key(service)
    }

    fn is_connected(&self) -> bool {
        true
    }

    fn send(&self, service: &Name, command: Command, done: Done<Reply>) {
        match self.participants.get(service) {
            Some(participant) => participant.handle(command, done),
            None => done(Reply::Unknown(Unknown::Unreachable)),
        }
    }
}
