//! The rules of the way to the participants.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};

use parking_lot::Mutex;
use protocol::limits::{MAX_PAYLOAD_BYTES, MAX_TEXT_BYTES};
use protocol::{
    BranchId, BranchState, Command, Name, Payload, Refusal, Reply, Timestamp, TransactionId, Unknown, Verb,
};

use super::{PATIENCE, slot, take};
use crate::ports::{Done, Participant, Transport};

const ONE: Name = Name::literal("one");
const OTHER: Name = Name::literal("an.other-one_2");
const NOBODY: Name = Name::literal("nobody");

/// Every rule of the transport's contract. `connect` makes a transport to these participants, each under the name of its service, and to nobody
/// else; none of them may have to wait for its commands longer than the transport's own time-out.
///
/// # Panics
/// If the transport breaks one.
pub fn transport(connect: impl Fn(BTreeMap<Name, Arc<dyn Participant>>) -> Arc<dyn Transport>) {
    unknown_services(&*connect(BTreeMap::from([(ONE, Arc::new(Echo) as Arc<dyn Participant>)])));
    replies(&connect);
    payloads(&connect);
    each_service_gets_its_own(&connect);
    answers_in_any_order(&connect);
    many_at_once(&connect(BTreeMap::from([(ONE, Arc::new(Echo) as Arc<dyn Participant>)])));
}

fn command(number: u64, verb: Verb, payload: Payload) -> Command {
    let mut random = [0; 16];
    random[..8].copy_from_slice(&number.to_be_bytes());
    let transaction = TransactionId::new(Timestamp(1_000_000 + number), random);
    Command { branch: BranchId { transaction, step: (number % 16) as u8 }, verb, payload }
}

fn send(transport: &dyn Transport, service: Name, command: Command) -> Receiver<Reply> {
    let (done, answer) = slot();
    transport.send(&service, command, done);
    answer
}

/// The one answer; and that its callback is gone afterwards.
fn only(answer: &Receiver<Reply>) -> Reply {
    let reply = take(answer);
    assert_eq!(answer.recv_timeout(PATIENCE), Err(RecvTimeoutError::Disconnected), "a callback is called and dropped");
    reply
}

/// Refuses everything, with what it was told as the reason.
struct Echo;

fn echo(command: &Command) -> Reply {
    let sum = command.payload.as_slice().iter().fold(0_u64, |sum, byte| sum.wrapping_mul(31) + u64::from(*byte));
    let length = command.payload.as_slice().len();
    Reply::Refused(Refusal::new(Name::literal("echo"), &format!("{} {} {length} {sum}", command.branch, command.verb)))
}

impl Participant for Echo {
    fn handle(&self, command: Command, done: Done<Reply>) {
        let reply = echo(&command);
        done(reply);
    }
}

/// A participant that is a function.
struct Does<F>(F);

impl<F: Fn(Command, Done<Reply>) + Send + Sync + 'static> Participant for Does<F> {
    fn handle(&self, command: Command, done: Done<Reply>) {
        (self.0)(command, done);
    }
}

fn unknown_services(transport: &dyn Transport) {
    assert!(transport.knows(&ONE));
    assert!(!transport.knows(&NOBODY));
    let answer = send(transport, NOBODY, command(1, Verb::Prepare, Payload::EMPTY));
    assert_eq!(
        only(&answer),
        Reply::Unknown(Unknown::Unreachable),
        "whom nobody knows nobody reaches; that is no refusal"
    );
}

/// Each reply arrives as it was given: above all, what is unknown stays unknown, and a refusal a refusal.
fn replies(connect: &impl Fn(BTreeMap<Name, Arc<dyn Participant>>) -> Arc<dyn Transport>) {
    let states = [
        BranchState::Prepared,
        BranchState::Committed,
        BranchState::Aborted,
        BranchState::Executed,
        BranchState::Compensated,
    ];
    let long = "\u{fc}".repeat(MAX_TEXT_BYTES / 2);
    let all: Vec<Reply> = (states.iter().map(|state| Reply::Done(*state)))
        .chain(states.iter().map(|state| Reply::Violation(*state)))
        .chain([Unknown::Timeout, Unknown::Unreachable, Unknown::Failed].map(Reply::Unknown))
        .chain(["", "17", &long].map(|detail| Reply::Refused(Refusal::new(Name::literal("no"), detail))))
        .collect();
    let script = all.clone();
    let answers = move |command: Command, done: Done<Reply>| {
        done(script[usize::from(command.payload.as_slice()[0])].clone());
    };
    let transport = connect(BTreeMap::from([(ONE, Arc::new(Does(answers)) as Arc<dyn Participant>)]));
    for (at, reply) in all.into_iter().enumerate() {
        let command = command(at as u64, Verb::Prepare, Payload::from(vec![at as u8]));
        assert_eq!(only(&send(&*transport, ONE, command)), reply);
    }
    assert!(transport.is_connected(), "commands go through");
}

/// Each command arrives as it was sent, up to the largest.
fn payloads(connect: &impl Fn(BTreeMap<Name, Arc<dyn Participant>>) -> Arc<dyn Transport>) {
    let heard = Arc::new(Mutex::new(Vec::new()));
    let told = Arc::clone(&heard);
    let hears = move |command: Command, done: Done<Reply>| {
        told.lock().push(command);
        done(Reply::Done(BranchState::Prepared));
    };
    let transport = connect(BTreeMap::from([(ONE, Arc::new(Does(hears)) as Arc<dyn Participant>)]));
    for (at, length) in [0, 1, 255, 4096, MAX_PAYLOAD_BYTES].into_iter().enumerate() {
        for verb in Verb::ALL {
            // Every byte there is, line ends and zeros included.
            let bytes: Vec<u8> = (0..length).map(|n| (n % 256) as u8).collect();
            let command = command(at as u64, verb, Payload::from(bytes));
            assert_eq!(
                only(&send(&*transport, ONE, command.clone())),
                Reply::Done(BranchState::Prepared),
                "{length} bytes"
            );
            assert!(heard.lock().contains(&command), "{verb} with {length} bytes arrives as it was sent");
        }
    }
}

fn each_service_gets_its_own(connect: &impl Fn(BTreeMap<Name, Arc<dyn Participant>>) -> Arc<dyn Transport>) {
    let says =
        |state| Arc::new(Does(move |_: Command, done: Done<Reply>| done(Reply::Done(state)))) as Arc<dyn Participant>;
    let transport = connect(BTreeMap::from([(ONE, says(BranchState::Prepared)), (OTHER, says(BranchState::Executed))]));
    let ask = |service| only(&send(&*transport, service, command(1, Verb::Inquire, Payload::EMPTY)));
    assert_eq!(ask(ONE), Reply::Done(BranchState::Prepared));
    assert_eq!(ask(OTHER), Reply::Done(BranchState::Executed));
}

/// A participant answers later, from a thread of its own, the last command first: each answer still finds its command.
fn answers_in_any_order(connect: &impl Fn(BTreeMap<Name, Arc<dyn Participant>>) -> Arc<dyn Transport>) {
    const MANY: usize = 20;
    type Held = BTreeMap<BranchId, (Command, Done<Reply>)>;
    let held: Arc<Mutex<Held>> = Arc::default();
    let holds = move |command: Command, done: Done<Reply>| {
        let mut held = held.lock();
        // Messages may be doubled.
        held.insert(command.branch, (command, done));
        if held.len() == MANY {
            let all = std::mem::take(&mut *held);
            std::thread::spawn(move || {
                for (command, done) in all.into_values().rev() {
                    done(echo(&command));
                }
            });
        }
    };
    let transport = connect(BTreeMap::from([(ONE, Arc::new(Does(holds)) as Arc<dyn Participant>)]));
    let sent: Vec<_> = (0..MANY as u64)
        .map(|number| {
            let command = command(number, Verb::Prepare, Payload::EMPTY);
            (command.clone(), send(&*transport, ONE, command))
        })
        .collect();
    for (command, answer) in sent {
        assert_eq!(only(&answer), echo(&command));
    }
}

/// Many at once from several threads: each is answered once, with its own answer.
fn many_at_once(transport: &Arc<dyn Transport>) {
    const THREADS: u64 = 4;
    const EACH: u64 = 100;
    let threads: Vec<_> = (0..THREADS)
        .map(|thread| {
            let transport = Arc::clone(transport);
            std::thread::spawn(move || {
                let sent: Vec<_> = (0..EACH)
                    .map(|n| {
                        let command =
                            command(thread * EACH + n, Verb::Execute, Payload::from(vec![n as u8; n as usize]));
                        (command.clone(), send(&*transport, ONE, command))
                    })
                    .collect();
                sent.iter().all(|(command, answer)| only(answer) == echo(command))
            })
        })
        .collect();
    assert!(threads.into_iter().all(|thread| thread.join().expect("the thread ends well")));
}
