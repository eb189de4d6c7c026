//! Commands out of a stream: asked for as there is room, so that what is not asked for stays with the server, for other instances.
//!
//! ```text
//!   room for n more ──► "up to n, within a second" ──► server
//!                                                       │ messages of commands
//!        ◄──────────────────────────────────────────────┤
//!                                                       │ 408: the second is over, m of them did not come
//!        ◄──────────────────────────────────────────────┘ 409, 503: the consumer, or the stream, is gone
//! ```

use std::time::Duration;

use async_nats::{Message, StatusCode, Subscriber};
use futures_util::StreamExt as _;
use tokio::time::Instant;

use crate::error::StartError;
use crate::serve::{Counter, Stop};
use crate::statistics::count;
use crate::streams::{self, When};

/// How long the server keeps a request. Milliseconds.
const EXPIRES_MS: u64 = 1_000;
/// How long after its end a request may go without the server's word that it is over, before it is made anew. That word may be missing: what is
/// wanted is then no longer known to the server, and commands would lie in the queue.
const GRACE: Duration = Duration::from_millis(EXPIRES_MS + 50);
/// How long nothing at all may be heard before it is looked whether the stream is there.
const LOST_AFTER: Duration = Duration::from_millis(EXPIRES_MS + 500);
/// In which header the server says how many messages of a request did not come.
const LEFT: &str = "Nats-Pending-Messages";

pub(crate) struct Pull {
    inbox: String,
    commands: Subscriber,
    next: String,
    /// How many messages the server was asked for and has not sent.
    wanted: usize,
    /// When the last word came.
    heard: Instant,
    /// When the last request was made. The ones before it are over before it is.
    asked: Instant,
    /// Whether that one's end went by without a word.
    overdue: bool,
}

/// What a message from the server is.
enum Word {
    Command,
    /// So many will not come.
    Left(usize),
    /// None of them will come, but ask again.
    Void,
    /// There is nobody to ask.
    Gone,
    Nothing,
}

fn word(message: &Message) -> Word {
    let Some(status) = message.status else { return Word::Command };
    let says = |text: &str| message.description.as_deref().is_some_and(|description| description.contains(text));
    match status {
        StatusCode::TIMEOUT => {
            let left = message.headers.as_ref().and_then(|headers| headers.get(LEFT));
            left.and_then(|left| left.as_str().parse().ok()).map_or(Word::Void, Word::Left)
        }
        StatusCode::REQUEST_TERMINATED if says("Deleted") || says("deleted") => Word::Gone,
        StatusCode::NO_RESPONDERS => Word::Gone,
        StatusCode::REQUEST_TERMINATED | StatusCode::NOT_FOUND => Word::Void,
        _ => Word::Nothing,
    }
}

/// Whether the server says that it gave the message to somebody before: `$JS.ACK.stream.consumer.DELIVERED.…`, with two words more before the
/// stream from 2.10 on, if it has a domain.
fn is_redelivered(acknowledge: &str) -> bool {
    let words: Vec<&str> = acknowledge.split('.').collect();
    let at = if words.len() >= 11 { 6 } else { 4 };
    words.get(at).is_some_and(|delivered| *delivered != "1")
}

impl Pull {
    pub(crate) async fn start(counter: &Counter) -> Result<Self, StartError> {
        let shared = &counter.shared;
        let inbox = shared.names.pull();
        let commands =
            shared.client.subscribe(inbox.clone()).await.map_err(|error| shared.refused("subscribe", error))?;
        let stream = shared.names.command_stream(counter.service);
        let next = format!("$JS.API.CONSUMER.MSG.NEXT.{stream}.{}", crate::names::GROUP);
        let now = Instant::now();
        Ok(Self { inbox, commands, next, wanted: 0, heard: now, asked: now, overdue: false })
    }

    /// Takes commands until it is stopped.
    pub(crate) async fn run(mut self, counter: Counter, mut stop: Stop) {
        let mut connections = counter.shared.connections.clone();
        connections.mark_unchanged();
        loop {
            self.ask(&counter).await;
            tokio::select! {
                biased;
                () = stop.stopped() => break,
                changed = connections.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    self.repair(&counter).await;
                }
                message = self.commands.next() => match message {
                    Some(message) => self.hear(&counter, message).await,
                    None => return,
                },
                () = counter.desk.freed(), if self.is_short(&counter) => {}
                () = tokio::time::sleep_until(self.heard + LOST_AFTER), if self.wanted > 0 => self.repair(&counter).await,
                () = tokio::time::sleep_until(self.asked + GRACE), if self.wanted > 0 => {
                    (self.wanted, self.overdue) = (0, true);
                }
            }
        }
        // What the server still hands out goes to nobody, and after a while to another instance.
        _ = self.commands.unsubscribe().await;
    }

    /// Whether fewer are asked for than there should be. Requests cost the server, so they are made for a quarter of the room at least.
    fn is_short(&self, counter: &Counter) -> bool {
        self.wanted < counter.shared.options.in_flight.div_ceil(4)
    }

    /// Asks for as many as there is room for.
    async fn ask(&mut self, counter: &Counter) {
        let room = counter.desk.free().saturating_sub(self.wanted);
        if room == 0 || !self.is_short(counter) || !counter.shared.is_connected() {
            return;
        }
        let request = format!("{{\"batch\":{room},\"expires\":{}}}", EXPIRES_MS * 1_000_000);
        let asked = counter.shared.client.publish_with_reply(self.next.clone(), self.inbox.clone(), request.into());
        if asked.await.is_ok() {
            self.asked = Instant::now();
            // A server that says nothing at all is not given longer by being asked again.
            if self.wanted == 0 && !self.overdue {
                self.heard = self.asked;
            }
            self.wanted += room;
        }
    }

    async fn hear(&mut self, counter: &Counter, mut message: Message) {
        (self.heard, self.overdue) = (Instant::now(), false);
        match word(&message) {
            Word::Command => {
                self.wanted = self.wanted.saturating_sub(1);
                let acknowledge = message.reply.take();
                if acknowledge.as_ref().is_some_and(|subject| is_redelivered(subject)) {
                    count(&counter.shared.statistics.redelivered);
                }
                counter.take_in(message, acknowledge).await;
            }
            Word::Left(left) => self.wanted = self.wanted.saturating_sub(left),
            Word::Void => self.wanted = 0,
            Word::Gone => self.repair(counter).await,
            Word::Nothing => {}
        }
    }

    /// Sees that stream and consumer are there, and begins anew.
    async fn repair(&mut self, counter: &Counter) {
        let shared = &counter.shared;
        if shared.is_connected() {
            streams::until_there(shared, || streams::everything(shared, counter.service, When::Repair)).await;
        }
        (self.wanted, self.heard, self.overdue) = (0, Instant::now(), false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_delivery_is_told_from_a_first() {
        for (subject, again) in [
            ("$JS.ACK.settle-command-stock.instances.1.7.7.1790000000000000000.0", false),
            ("$JS.ACK.settle-command-stock.instances.2.7.8.1790000000000000000.0", true),
            ("$JS.ACK.hub.ACCOUNT.settle-command-stock.instances.1.7.7.1790000000000000000.0", false),
            ("$JS.ACK.hub.ACCOUNT.settle-command-stock.instances.3.7.7.1790000000000000000.0.xyz", true),
            ("", false),
        ] {
            assert_eq!(is_redelivered(subject), again, "{subject}");
        }
    }
}
