//! Messages that cannot be read.

use std::sync::{Arc, Mutex};

use async_nats::jetstream;
use futures_util::StreamExt as _;
use nats::{DeadLetter, Options, Unreadable};
use protocol::{Reply, Unknown};
use servers::wait_until;

use crate::support::{CORE, DONE, FILE, PATIENCE, Way, command, options, raw, reaches, read, server, willing};

/// Options under which the dead letters are noted.
fn noting(options: Options) -> (Options, Arc<Mutex<Vec<DeadLetter>>>) {
    let letters: Arc<Mutex<Vec<DeadLetter>>> = Arc::default();
    let noted = Arc::clone(&letters);
    let hook = move |letter: &DeadLetter| noted.lock().unwrap().push(letter.clone());
    (Options { on_dead_letter: Some(Arc::new(hook)), ..options }, letters)
}

#[test]
fn a_message_that_cannot_be_read_is_kept_whole_and_then_acknowledged() {
    let server = server();
    let (options, letters) = noting(options(&server, "order-1", FILE));
    let way = Way::new(&options, willing());
    let (_, jetstream) = raw(&way.runtime, &server);
    let mut of_version_9 = vec![9];
    of_version_9.extend(command(1).payload.as_slice());
    for poison in [&b"\x02\xff\xff\xff"[..], b"", &of_version_9] {
        let publish = jetstream.publish("settle.command.stock", poison.to_vec().into());
        way.runtime.block_on(async { publish.await.unwrap().await }).unwrap();
    }
    assert!(wait_until(PATIENCE, || letters.lock().unwrap().len() == 3));
    assert!(letters.lock().unwrap().iter().any(|letter| letter.why == Unreadable::Version { found: 9, known: 3 }));
    assert!(letters.lock().unwrap().iter().all(|letter| letter.kept && letter.service.as_str() == "stock"));
    assert_eq!(read(&way.stock.statistics().poison), 3);
    let kept = way.runtime.block_on(async {
        let stream = jetstream.get_stream("settle-dead").await.unwrap();
        let consumer = stream.create_consumer(jetstream::consumer::pull::Config::default()).await.unwrap();
        let messages = consumer.fetch().max_messages(10).messages().await.unwrap();
        messages.map(|message| message.unwrap().payload.to_vec()).collect::<Vec<_>>().await
    });
    assert_eq!(kept.len(), 3);
    assert!(kept.contains(&of_version_9) && kept.contains(&b"\x02\xff\xff\xff".to_vec()) && kept.contains(&vec![]));
    let left = || {
        let stream = way.runtime.block_on(jetstream.get_stream("settle-command-stock")).unwrap();
        stream.cached_info().state.messages
    };
    assert!(wait_until(PATIENCE, || left() == 0), "and acknowledged");
    assert_eq!(way.ask(2), DONE, "the others are not held up");
}

/// A message of commands, as another sender would make it.
fn message(inbox: &str, commands: &[(u64, Vec<u8>)]) -> Vec<u8> {
    let mut bytes = postcard::to_extend(&("", inbox), vec![3]).unwrap();
    for (number, command) in commands {
        let trace: Option<(&str, Option<&str>)> = None;
        bytes = postcard::to_extend(&(number, trace, &command[..]), bytes).unwrap();
    }
    bytes
}

fn encoded(number: u64) -> Vec<u8> {
    postcard::to_extend(&command(number), vec![1]).unwrap()
}

#[test]
fn of_many_commands_only_the_poison_is_a_dead_letter() {
    let server = server();
    let (options, letters) = noting(options(&server, "order-1", FILE));
    let participant = willing();
    let way = Way::new(&options, participant.clone());
    let (client, jetstream) = raw(&way.runtime, &server);
    let poison = b"\x09poison".to_vec();
    let commands = [(11, encoded(1)), (12, poison.clone()), (13, encoded(3)), (14, vec![])];
    let replies = way.runtime.block_on(async {
        let mut inbox = client.subscribe("settle.reply.test.b").await.unwrap();
        client.flush().await.unwrap();
        let publish = jetstream.publish("settle.command.stock", message("settle.reply.test.b", &commands).into());
        publish.await.unwrap().await.unwrap();
        let mut replies = std::collections::BTreeMap::new();
        while replies.len() < 4 {
            let message = tokio::time::timeout(PATIENCE, inbox.next()).await.unwrap().unwrap().payload;
            assert_eq!(message[0], 2);
            let mut rest = &message[1..];
            while !rest.is_empty() {
                let ((number, reply), behind): ((u64, Vec<u8>), _) = postcard::take_from_bytes(rest).unwrap();
                assert!(replies.insert(number, postcard::from_bytes::<Reply>(&reply[1..]).unwrap()).is_none());
                rest = behind;
            }
        }
        replies
    });
    let failed = Reply::Unknown(Unknown::Failed);
    assert_eq!(replies.into_values().collect::<Vec<_>>(), [DONE, failed.clone(), DONE, failed]);
    assert_eq!((participant.times(1), participant.times(3), participant.total()), (1, 1, 2));
    assert!(wait_until(PATIENCE, || letters.lock().unwrap().len() == 2));
    let mut kept: Vec<Vec<u8>> = letters.lock().unwrap().iter().map(|letter| letter.bytes.to_vec()).collect();
    kept.sort();
    assert_eq!(kept, [vec![], poison], "each of them, and nothing of the others");
    let left = || {
        let stream = way.runtime.block_on(jetstream.get_stream("settle-command-stock")).unwrap();
        stream.cached_info().state.messages
    };
    assert!(wait_until(PATIENCE, || left() == 0), "and then the message is acknowledged");
    let kept = way.runtime.block_on(jetstream.get_stream("settle-dead")).unwrap().cached_info().state.messages;
    assert_eq!(kept, 2);
}

#[test]
fn a_dead_letter_that_cannot_be_kept_is_not_acknowledged() {
    let server = server();
    let (options, letters) = noting(options(&server, "order-1", FILE));
    let options = Options { timeout: PATIENCE, ..options };
    let way = Way::new(&options, willing());
    let (_, jetstream) = raw(&way.runtime, &server);
    // A stream that takes nothing more, as a full disk would.
    way.runtime.block_on(async {
        let mut stream = jetstream.get_stream("settle-dead").await.unwrap();
        let mut config = stream.info().await.unwrap().config.clone();
        config.discard = jetstream::stream::DiscardPolicy::New;
        config.max_bytes = 1;
        jetstream.update_stream(&config).await.unwrap();
        jetstream.publish("settle.command.stock", "poison".into()).await.unwrap().await.unwrap();
    });
    let statistics = way.stock.statistics();
    assert!(reaches(&statistics.letters_failed, 2), "it comes again");
    assert!(read(&statistics.redelivered) >= 1);
    assert!(letters.lock().unwrap().is_empty());
    way.runtime.block_on(jetstream.delete_stream("settle-dead")).unwrap();
    assert!(wait_until(PATIENCE, || letters.lock().unwrap().len() == 1), "until it could be kept");
    let mut stream = way.runtime.block_on(jetstream.get_stream("settle-command-stock")).unwrap();
    assert!(wait_until(PATIENCE, || way.runtime.block_on(stream.info()).unwrap().state.messages == 0));
    let kept = way.runtime.block_on(jetstream.get_stream("settle-dead")).unwrap().cached_info().state.messages;
    assert_eq!(kept, 1);
}

#[test]
fn without_jetstream_the_hook_has_it() {
    let server = servers::nats::Server::start_with(false, &[]).unwrap();
    let (options, letters) = noting(options(&server, "order-1", CORE));
    let way = Way::new(&options, willing());
    let (client, _) = raw(&way.runtime, &server);
    way.runtime.block_on(async {
        client.publish("settle.command.stock", "poison".into()).await.unwrap();
        client.flush().await.unwrap();
    });
    assert!(wait_until(PATIENCE, || letters.lock().unwrap().len() == 1));
    let letter = letters.lock().unwrap().remove(0);
    assert_eq!((&letter.bytes[..], letter.kept), (&b"poison"[..], false));
    assert_eq!(way.ask(1), DONE);
}

#[test]
fn whoever_sent_it_hears_that_nothing_is_known() {
    let server = server();
    let (options, _) = noting(options(&server, "order-1", CORE));
    let way = Way::new(&options, willing());
    let (client, _) = raw(&way.runtime, &server);
    // A sender of another version, whose inbox lies where answers may go.
    let heard = way.runtime.block_on(async {
        let mut inbox = client.subscribe("settle.reply.test.r1").await.unwrap();
        client.publish_with_reply("settle.command.stock", "settle.reply.test.r1", "\x09".into()).await.unwrap();
        inbox.next().await.unwrap().payload
    });
    let failed = Reply::Unknown(Unknown::Failed);
    assert_eq!(heard[0], 1);
    assert_eq!(postcard::from_bytes::<Reply>(&heard[1..]).unwrap(), failed);
}

#[test]
fn nobody_makes_a_participant_publish_where_no_answers_go() {
    let server = server();
    let way = Way::new(&options(&server, "order-1", CORE), willing());
    let (client, _) = raw(&way.runtime, &server);
    way.runtime.block_on(async {
        let mut trap = client.subscribe("elsewhere").await.unwrap();
        client.publish_with_reply("settle.command.stock", "elsewhere", "poison".into()).await.unwrap();
        client.flush().await.unwrap();
        let statistics = way.stock.statistics().clone();
        tokio::task::spawn_blocking(move || assert!(reaches(&statistics.poison, 1))).await.unwrap();
        // An answer to a command that came later has gone out after the one that must not.
        let (order, stock) = (way.transport.clone(), way.stock.clone());
        let answered =
            tokio::task::spawn_blocking(move || crate::support::send(&*order, command(1)).recv_timeout(PATIENCE));
        assert_eq!(answered.await.unwrap(), Ok(DONE));
        stock.flush().await;
        client.publish("elsewhere", "the end".into()).await.unwrap();
        assert_eq!(trap.next().await.unwrap().payload, "the end");
    });
}
