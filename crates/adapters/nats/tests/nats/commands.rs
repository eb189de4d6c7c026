//! What happens to commands while the servers are well.

use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use nats::{Options, TraceContext, Tracing};
use orchestrator::Done;
use protocol::limits::GATHER_COMMITS_MS;
use protocol::{Command, Name, Reply, Unknown, Verb};
use servers::wait_until;

use crate::support::{
    CORE, DONE, Doing, FILE, MEMORY, PATIENCE, STOCK, Way, command, connect, options, raw, reaches, read, send, server,
    willing,
};

#[test]
fn instances_share_the_commands() {
    for mode in [CORE, MEMORY] {
        let server = server();
        let (one, two) = (willing(), willing());
        let way = Way::new(&options(&server, "order-1", mode), one.clone());
        let _second = way.runtime.block_on(way.stock.serve(STOCK, two.clone())).unwrap();
        let mut number = 0;
        let both = wait_until(PATIENCE, || {
            let waves: Vec<_> = (0..50).map(|n| way.send(number + n)).collect();
            number += 50;
            assert!(waves.iter().all(|answer| answer.recv_timeout(PATIENCE) == Ok(DONE)));
            one.total() >= 100 && two.total() >= 100
        });
        assert!(both, "{mode:?}: one did {}, the other {}", one.total(), two.total());
        assert_eq!(one.total() + two.total(), number, "{mode:?}: and none was done twice while nobody is slow");
    }
}

#[test]
fn commands_for_another_database_are_not_carried_out() {
    for mode in [CORE, MEMORY] {
        let server = server();
        let participant = willing();
        let way = Way::new(&options(&server, "order-1", mode), participant.clone());
        way.stock.go_by("ours").unwrap();
        way.transport.address(&STOCK, "ours").unwrap();
        let stranger = connect(&way.runtime, options(&server, "order-2", mode));
        let theirs = way.runtime.block_on(stranger.transport([STOCK])).unwrap();
        theirs.address(&STOCK, "theirs").unwrap();
        assert_eq!(send(&theirs, command(1)).recv_timeout(PATIENCE), Ok(Reply::Unknown(Unknown::Failed)), "{mode:?}");
        assert_eq!(way.ask(2), DONE);
        assert_eq!((participant.total(), read(&way.stock.statistics().misdirected)), (1, 1), "{mode:?}");
        assert_eq!(read(&way.stock.statistics().failed), 0, "it is not the participant's fault");
        assert!(way.stock.go_by("ours").is_ok() && way.stock.go_by("theirs").is_err());
        assert!(theirs.address(&STOCK, "theirs").is_ok() && theirs.address(&STOCK, "ours").is_err());
        assert!(stranger.go_by(&"x".repeat(65)).is_err());
    }
}

#[test]
fn what_is_under_way_is_bounded_and_the_rest_waits() {
    for mode in [CORE, MEMORY] {
        let server = server();
        let held: Arc<Mutex<Vec<Done<Reply>>>> = Arc::default();
        let keeps = Arc::clone(&held);
        let participant = Doing::new(move |_, done: Done<Reply>| keeps.lock().unwrap().push(done));
        let options = Options { in_flight: 3, timeout: PATIENCE, ..options(&server, "order-1", mode) };
        let way = Way::new(&options, participant.clone());
        let answers: Vec<_> = (0..20).map(|number| way.send(number)).collect();
        let mut answered = 0;
        while answered < 20 {
            assert!(wait_until(PATIENCE, || held.lock().unwrap().len() == 3.min(20 - answered)), "{mode:?}");
            // A command beyond the bound would have been handed over by now, or in one of the rounds to come.
            assert!(read(&way.stock.statistics().working) <= 3);
            let done = held.lock().unwrap().remove(0);
            done(DONE);
            answered += 1;
            assert!(reaches(&way.order.statistics().replied, answered as u64));
            assert!(held.lock().unwrap().len() <= 3, "{mode:?}");
        }
        assert!(answers.iter().all(|answer| answer.recv_timeout(PATIENCE) == Ok(DONE)));
        assert_eq!(participant.total(), 20);
    }
}

#[test]
fn many_commands_at_once_are_few_messages_and_a_lone_one_does_not_wait() {
    for mode in [CORE, MEMORY] {
        let server = server();
        let participant = willing();
        let way = Way::new(&options(&server, "order-1", mode), participant.clone());
        let answers: Vec<_> = (0..2_000).map(|number| way.send(number)).collect();
        assert!(answers.iter().all(|answer| answer.recv_timeout(PATIENCE) == Ok(DONE)), "{mode:?}");
        assert_eq!(participant.total(), 2_000);
        let statistics = way.order.statistics();
        assert_eq!(read(&statistics.sent), 2_000);
        assert!(read(&statistics.messages) < 500, "{mode:?}: {} messages", read(&statistics.messages));
        let before = read(&statistics.messages);
        for number in 0..20 {
            assert_eq!(way.ask(10_000 + number), DONE);
        }
        assert_eq!(read(&statistics.messages), before + 20, "{mode:?}: one after the other, each at once");
    }
}

#[test]
fn a_commit_goes_along_with_what_somebody_waits_for_or_by_itself_after_a_while() {
    for mode in [CORE, MEMORY] {
        let server = server();
        let way = Way::new(&options(&server, "order-1", mode), willing());
        let messages = || read(&way.order.statistics().messages);
        let commit = |number| send(&*way.transport, Command { verb: Verb::Commit, ..command(number) });
        let patience = Duration::from_millis(GATHER_COMMITS_MS);
        let began = Instant::now();
        assert_eq!(commit(1).recv_timeout(PATIENCE), Ok(DONE), "{mode:?}");
        assert!(began.elapsed() >= patience && messages() == 1, "{mode:?}: {:?}", began.elapsed());
        let mut number = 10;
        let together = wait_until(PATIENCE, || {
            let (before, began) = (messages(), Instant::now());
            let mut answers: Vec<_> = (0..5).map(|n| commit(number + n)).collect();
            // So long that they would be gone, if they went by themselves.
            std::thread::sleep(patience / 5);
            answers.push(way.send(number + 5));
            number += 6;
            let in_time = began.elapsed() < patience / 2;
            assert!(answers.iter().all(|answer| answer.recv_timeout(PATIENCE) == Ok(DONE)), "{mode:?}");
            // A machine that is busy elsewhere proves nothing.
            if in_time {
                assert_eq!(messages(), before + 1, "{mode:?}: all in one");
            }
            in_time
        });
        assert!(together, "{mode:?}: this machine is too slow to tell");
    }
}

#[test]
fn one_slow_command_does_not_hold_up_those_it_came_with() {
    for mode in [CORE, MEMORY] {
        let server = server();
        let held: Arc<Mutex<Vec<Done<Reply>>>> = Arc::default();
        let keeps = Arc::clone(&held);
        let slow_for_one = Doing::new(
            move |number, done: Done<Reply>| {
                if number == 7 { keeps.lock().unwrap().push(done) } else { done(DONE) }
            },
        );
        let way = Way::new(&Options { timeout: PATIENCE, ..options(&server, "order-1", mode) }, slow_for_one);
        let answers: Vec<_> = (0..100).map(|number| way.send(number)).collect();
        for (number, answer) in answers.iter().enumerate().filter(|(number, _)| *number != 7) {
            assert_eq!(answer.recv_timeout(PATIENCE), Ok(DONE), "{mode:?}: {number}");
        }
        assert!(answers[7].try_recv().is_err());
        // And those that come later.
        assert_eq!(way.ask(200), DONE);
        held.lock().unwrap().pop().unwrap()(DONE);
        assert_eq!(answers[7].recv_timeout(PATIENCE), Ok(DONE));
    }
}

#[test]
fn slow_work_is_not_given_to_another_while_its_instance_lives() {
    let server = server();
    let held: Arc<Mutex<Vec<Done<Reply>>>> = Arc::default();
    let keeps = Arc::clone(&held);
    let slow = Doing::new(move |_, done: Done<Reply>| keeps.lock().unwrap().push(done));
    let ack_wait = Duration::from_millis(150);
    let options = Options { ack_wait, timeout: PATIENCE, ..options(&server, "order-1", MEMORY) };
    let way = Way::new(&options, slow.clone());
    let answer = way.send(1);
    assert!(wait_until(PATIENCE, || slow.total() == 1));
    // Many times the wait for an acknowledgement, as the commands that go by tell: each is sent when the one before was answered.
    let quick = willing();
    let _second = way.runtime.block_on(way.stock.serve(STOCK, quick.clone())).unwrap();
    let since = std::time::Instant::now();
    assert!(wait_until(PATIENCE, || since.elapsed() > 5 * ack_wait));
    assert_eq!((slow.total(), quick.times(1)), (1, 0), "it said that it was at work");
    assert_eq!(read(&way.stock.statistics().redelivered), 0);
    held.lock().unwrap().pop().unwrap()(DONE);
    assert_eq!(answer.recv_timeout(PATIENCE), Ok(DONE));
}

#[test]
fn what_a_dead_instance_had_in_hand_is_given_to_another() {
    let server = server();
    let holds: Arc<Mutex<Vec<Done<Reply>>>> = Arc::default();
    let keeps = Arc::clone(&holds);
    let doomed = Doing::new(move |_, done: Done<Reply>| keeps.lock().unwrap().push(done));
    let options = Options { timeout: PATIENCE, ..options(&server, "order-1", FILE) };
    let mut way = Way::new(&options, doomed.clone());
    let answer = way.send(1);
    assert!(wait_until(PATIENCE, || doomed.total() == 1));
    // Its tasks end as those of a killed process would: without an answer or an acknowledgement.
    drop(way.serving.take());
    let heir = willing();
    let other = connect(&way.runtime, Options { instance: Name::literal("stock-2"), ..options.clone() });
    let _serving = way.runtime.block_on(other.serve(STOCK, heir.clone())).unwrap();
    assert_eq!(answer.recv_timeout(PATIENCE), Ok(DONE));
    assert_eq!(heir.times(1), 1);
    assert_eq!(read(&other.statistics().redelivered), 1);
}

#[test]
fn a_retry_of_the_same_command_gets_through() {
    for mode in [CORE, MEMORY, FILE] {
        let server = server();
        let participant = willing();
        let way = Way::new(&options(&server, "order-1", mode), participant.clone());
        for _ in 0..3 {
            assert_eq!(way.ask(7), DONE);
        }
        assert_eq!(participant.times(7), 3, "{mode:?}: nothing between the two ends may swallow a retry");
    }
}

#[test]
fn a_late_answer_is_dropped_and_counted() {
    for mode in [CORE, MEMORY] {
        let server = server();
        let (hand, held) = channel::<Done<Reply>>();
        let hand = Mutex::new(hand);
        let slow = Doing::new(move |_, done: Done<Reply>| _ = hand.lock().unwrap().send(done));
        let timeout = Duration::from_millis(200);
        let way = Way::new(&Options { timeout, ..options(&server, "order-1", mode) }, slow);
        assert_eq!(way.ask(1), Reply::Unknown(Unknown::Timeout));
        held.recv_timeout(PATIENCE).unwrap()(DONE);
        assert!(reaches(&way.order.statistics().late, 1), "{mode:?}");
        assert_eq!(read(&way.order.statistics().timed_out), 1);
        assert_eq!(read(&way.order.statistics().pending), 0);
    }
}

#[test]
fn a_participant_that_panics_or_forgets_to_answer_is_answered_for() {
    for mode in [CORE, MEMORY] {
        let server = server();
        let odd = Doing::new(|number, done: Done<Reply>| match number {
            1 => panic!("as the test wants it"),
            2 => drop(done),
            _ => done(DONE),
        });
        let options = Options { in_flight: 1, timeout: PATIENCE, ..options(&server, "order-1", mode) };
        let way = Way::new(&options, odd.clone());
        for (number, reply) in [(1, Reply::Unknown(Unknown::Failed)), (2, Reply::Unknown(Unknown::Failed)), (3, DONE)] {
            assert_eq!(way.ask(number), reply, "{mode:?}");
        }
        assert_eq!(read(&way.stock.statistics().failed), 2);
        assert_eq!(odd.total(), 3, "the coordinator tries again, not the queue");
    }
}

#[test]
fn too_many_that_wait_for_an_answer_are_unreachable_at_once() {
    let server = server();
    let held: Arc<Mutex<Vec<Done<Reply>>>> = Arc::default();
    let keeps = Arc::clone(&held);
    let slow = Doing::new(move |_, done: Done<Reply>| keeps.lock().unwrap().push(done));
    let way = Way::new(&Options { pending: 2, timeout: PATIENCE, ..options(&server, "order-1", MEMORY) }, slow);
    let kept = [way.send(1), way.send(2)];
    assert_eq!(way.ask(3), Reply::Unknown(Unknown::Unreachable));
    assert!(wait_until(PATIENCE, || held.lock().unwrap().len() == 2));
    for done in held.lock().unwrap().drain(..) {
        done(DONE);
    }
    assert!(kept.iter().all(|answer| answer.recv_timeout(PATIENCE) == Ok(DONE)));
}

#[test]
fn a_full_queue_refuses_at_once() {
    let server = server();
    let options = Options { backlog: 5, timeout: PATIENCE, ..options(&server, "order-1", MEMORY) };
    let mut way = Way::new(&options, willing());
    drop(way.serving.take());
    // Each in a message of its own: it is messages that are counted.
    let mut waiting = Vec::new();
    for number in 0..5 {
        waiting.push(way.send(number));
        assert!(reaches(&way.order.statistics().messages, number + 1));
    }
    assert_eq!(way.ask(6), Reply::Unknown(Unknown::Unreachable), "refused by the server");
    assert_eq!(read(&way.order.statistics().refused), 1);
    // What did get in waits for an instance.
    let late = willing();
    let _serving = way.runtime.block_on(way.stock.serve(STOCK, late)).unwrap();
    assert!(waiting.iter().all(|answer| answer.recv_timeout(PATIENCE) == Ok(DONE)));
}

#[test]
fn what_waited_too_long_in_the_queue_is_thrown_away() {
    let server = server();
    let timeout = Duration::from_millis(200);
    let options = Options { timeout, ack_wait: timeout, ..options(&server, "order-1", MEMORY) };
    let mut way = Way::new(&options, willing());
    drop(way.serving.take());
    assert_eq!(way.ask(1), Reply::Unknown(Unknown::Timeout));
    let (_, jetstream) = raw(&way.runtime, &server);
    let left = || {
        let stream = way.runtime.block_on(jetstream.get_stream("settle-command-stock")).unwrap();
        stream.cached_info().state.messages
    };
    assert!(wait_until(PATIENCE, || left() == 0), "the queue forgets it");
    let late = willing();
    let _serving = way.runtime.block_on(way.stock.serve(STOCK, late.clone())).unwrap();
    assert_eq!(way.ask(2), DONE);
    assert_eq!(late.times(1), 0);
}

#[test]
fn a_stop_waits_for_what_is_in_hand() {
    for mode in [CORE, MEMORY] {
        let server = server();
        let (hand, held) = channel::<Done<Reply>>();
        let hand = Mutex::new(hand);
        let slow = Doing::new(move |_, done: Done<Reply>| _ = hand.lock().unwrap().send(done));
        let mut way = Way::new(&Options { timeout: PATIENCE, ..options(&server, "order-1", mode) }, slow);
        let answer = way.send(1);
        let done = held.recv_timeout(PATIENCE).unwrap();
        let stopping = way.runtime.spawn(way.serving.take().unwrap().stop());
        assert!(!stopping.is_finished());
        done(DONE);
        assert!(way.runtime.block_on(stopping).unwrap(), "{mode:?}: all of it was answered");
        assert_eq!(answer.recv_timeout(PATIENCE), Ok(DONE));
    }
}

#[test]
fn the_last_handle_tells_everybody_who_waits() {
    let server = server();
    let held: Arc<Mutex<Vec<Done<Reply>>>> = Arc::default();
    let keeps = Arc::clone(&held);
    let slow = Doing::new(move |_, done: Done<Reply>| keeps.lock().unwrap().push(done));
    let way = Way::new(&Options { timeout: PATIENCE, ..options(&server, "order-1", MEMORY) }, slow.clone());
    let answer = way.send(1);
    assert!(wait_until(PATIENCE, || slow.total() == 1));
    let Way { order, transport, .. } = &way;
    assert!(order.is_connected() && Arc::strong_count(transport) == 1);
    drop(way);
    assert_eq!(answer.recv_timeout(PATIENCE), Ok(Reply::Unknown(Unknown::Unreachable)));
}

/// Hands a number along, and keeps what came in.
#[derive(Default)]
struct Trace {
    heard: Mutex<Vec<TraceContext>>,
}

impl Tracing for Trace {
    fn outgoing(&self) -> Option<TraceContext> {
        TraceContext::new("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", Some("settle=1"))
    }

    fn incoming(&self, context: &TraceContext, work: &mut dyn FnMut()) {
        self.heard.lock().unwrap().push(context.clone());
        work();
    }
}

#[test]
fn traces_go_along() {
    for mode in [CORE, MEMORY] {
        let server = server();
        let trace = Arc::new(Trace::default());
        let options = Options { tracing: Some(trace.clone()), ..options(&server, "order-1", mode) };
        let way = Way::new(&options, willing());
        assert_eq!(way.ask(1), DONE);
        assert_eq!(*trace.heard.lock().unwrap(), [trace.outgoing().unwrap()], "{mode:?}");
    }
}
