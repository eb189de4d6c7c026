//! Starts that fail say what is missing.

use std::time::{Duration, Instant};

use nats::{Credentials, Mode, Nats, Options, StartError, Storage};
use protocol::Name;
use servers::nats::Server;

use crate::support::{CORE, FILE, MEMORY, STOCK, connect, options, raw, runtime, server, willing};

fn refused(options: Options) -> StartError {
    runtime().block_on(Nats::connect(options)).unwrap_err()
}

#[test]
fn a_server_that_is_not_there_is_waited_for_and_then_named() {
    let port = servers::free_port().unwrap();
    let patience = Duration::from_millis(300);
    let options = Options { patience, ..Options::new(Name::literal("here"), format!("nats://127.0.0.1:{port}")) };
    let began = Instant::now();
    let error = refused(options);
    assert!(began.elapsed() >= patience && began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    assert!(matches!(error, StartError::Unreachable { .. }), "{error}");
    assert!(error.to_string().contains(&port.to_string()));
}

#[test]
fn a_server_that_comes_late_is_found() {
    let mut server = server();
    let options = options(&server, "here", MEMORY);
    server.kill().unwrap();
    let runtime = runtime();
    let connecting = runtime.spawn(Nats::connect(options));
    server.restart().unwrap();
    assert!(runtime.block_on(connecting).unwrap().unwrap().is_connected());
}

#[test]
fn a_frozen_server_does_not_hang_the_start() {
    let server = server();
    server.freeze().unwrap();
    let error = refused(Options { patience: Duration::from_millis(300), ..options(&server, "here", CORE) });
    assert!(matches!(error, StartError::Unreachable { .. }), "{error}");
}

#[test]
fn missing_jetstream_is_named_and_core_does_without() {
    let server = Server::start_with(false, &[]).unwrap();
    let error = refused(options(&server, "here", MEMORY));
    assert!(matches!(error, StartError::NoJetStream { .. }), "{error}");
    assert!(error.to_string().contains("-js"), "{error}");
    assert!(connect(&runtime(), options(&server, "here", CORE)).is_connected());
}

#[test]
fn replicas_that_one_server_cannot_keep_are_named() {
    let (server, runtime) = (server(), runtime());
    let mode = Mode::JetStream { storage: Storage::File, replicas: 3 };
    let nats = connect(&runtime, options(&server, "here", mode));
    let error = runtime.block_on(nats.transport([STOCK])).unwrap_err();
    assert!(matches!(error, StartError::Replicas { replicas: 3, .. }), "{error}");
}

#[test]
fn a_stream_that_is_there_and_is_another_is_named() {
    let (server, runtime) = (server(), runtime());
    let first = connect(&runtime, options(&server, "one", MEMORY));
    runtime.block_on(first.transport([STOCK])).unwrap();
    let second = connect(&runtime, options(&server, "two", FILE));
    let error = runtime.block_on(second.serve(STOCK, willing())).unwrap_err();
    assert!(matches!(error, StartError::Strange { setting: "storage", .. }), "{error}");
}

#[test]
fn limits_that_were_changed_are_changed_in_place() {
    let (server, runtime) = (server(), runtime());
    for backlog in [1000, 2000] {
        let nats = connect(&runtime, Options { backlog, ..options(&server, "one", FILE) });
        runtime.block_on(nats.transport([STOCK])).unwrap();
    }
    let (_, jetstream) = raw(&runtime, &server);
    let stream = runtime.block_on(jetstream.get_stream("settle-command-stock"));
    assert_eq!(stream.unwrap().cached_info().config.max_messages, 2000);
}

#[test]
fn wrong_credentials_are_refused_at_once_and_not_shown() {
    let server = Server::start_with(true, &["--user", "settle", "--pass", "s3cret"]).unwrap();
    let with = |password: &str| {
        let credentials = Credentials::Password { user: "settle".to_owned(), password: password.to_owned() };
        Options { credentials, ..options(&server, "here", MEMORY) }
    };
    let began = Instant::now();
    let error = refused(with("wr0ng"));
    assert!(matches!(error, StartError::Refused { .. }), "{error}");
    assert!(began.elapsed() < Duration::from_secs(5) && !error.to_string().contains("wr0ng"));
    assert!(matches!(refused(options(&server, "here", MEMORY)), StartError::Refused { .. }));
    assert!(connect(&runtime(), with("s3cret")).is_connected());
}

#[test]
fn a_token_lets_in() {
    let server = Server::start_with(true, &["--auth", "t0ken"]).unwrap();
    let credentials = Credentials::Token("t0ken".to_owned());
    assert!(connect(&runtime(), Options { credentials, ..options(&server, "here", MEMORY) }).is_connected());
}

#[test]
fn a_server_that_must_encrypt_and_does_not_is_refused() {
    let server = server();
    let tls = nats::Tls { required: true, ..nats::Tls::default() };
    let options = Options { tls, patience: Duration::from_millis(500), ..options(&server, "here", CORE) };
    let error = refused(options);
    assert!(matches!(error, StartError::Unusable { .. } | StartError::Unreachable { .. }), "{error}");
}

#[test]
fn a_server_that_takes_small_messages_only_is_refused() {
    let server = server();
    let file = server.folder().join("small.conf");
    std::fs::write(&file, "max_payload: 65536\n").unwrap();
    let small = Server::start_with(true, &["--config", &file.display().to_string()]).unwrap();
    let error = refused(options(&small, "here", CORE));
    assert!(matches!(error, StartError::SmallMessages { found: 65536, .. }), "{error}");
}

#[test]
fn services_that_start_at_the_same_moment_do_not_refuse_each_others_streams() {
    for _ in 0..20 {
        let (server, runtime) = (server(), runtime());
        let services = ["stock", "payment", "orders", "a", "b", "c"].map(Name::literal);
        let ends = services.map(|service| connect(&runtime, options(&server, service.as_str(), MEMORY)));
        let serving = ends.iter().zip(services).map(|(end, service)| {
            let end = end.clone();
            runtime.spawn(async move { end.serve(service, willing()).await.map(|_| ()) })
        });
        for started in serving.collect::<Vec<_>>() {
            runtime.block_on(started).unwrap().unwrap();
        }
    }
}
