//! `settle doctor` names what is wrong, whatever it is: each test has one thing wrong with it.

#![allow(clippy::unwrap_used, reason = "in a test a broken expectation is a failed test")]

mod common;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use common::Folder;
use rustix::process::{Pid, Signal, kill_process};
use servers::redis::{Persistence, Sentinel, Server};
use servers::{Process, free_port, nats, wait_until};
use tempfile::TempDir;

/// A service's servers, all as they should be.
struct Healthy {
    redis: Server,
    nats: nats::Server,
    folder: TempDir,
}

impl Healthy {
    fn start() -> Self {
        Self::with(Server::start(Persistence::Always).unwrap())
    }

    fn with(redis: Server) -> Self {
        Self { redis, nats: nats::Server::start().unwrap(), folder: tempfile::tempdir().unwrap() }
    }

    /// The configuration of a stock instance that takes any port, with one line more in its section.
    fn configuration(&self, more: &str) -> String {
        let (redis, nats) = (self.redis.address(), self.nats.address());
        format!(
            "listen = \"127.0.0.1:0\"\n[nats]\nurl = \"{nats}\"\n\n[stock]\nredis = \"{redis}\"\ndurability = \"fsync\"\n{more}\n"
        )
    }

    /// The same, at an address.
    fn at(&self, listen: &str) -> String {
        self.configuration("").replace("127.0.0.1:0", listen)
    }

    /// The same of an order instance, with operators at a place of their own.
    fn with_operators_at(&self, listen: &str) -> String {
        self.configuration("").replace("[stock]", &format!("[admin]\nlisten = \"{listen}\"\n\n[orders]"))
    }

    /// A service with this configuration, which listens at this place.
    fn run(&self, service: &str, configuration: &str, place: &str) -> Process {
        let file = self.folder.path().join("running.toml");
        std::fs::write(&file, configuration).unwrap();
        let mut command = common::settle();
        command.arg(service).arg("--config").arg(&file);
        let mut process = Process::start(service, &mut command, &self.folder.path().join("output.log")).unwrap();
        process.wait_until_ready(common::PATIENCE, || is_served(place)).unwrap();
        process
    }

    fn doctor(&self, configuration: &str) -> (i32, String) {
        let file = self.folder.path().join("settle.toml");
        std::fs::write(&file, configuration).unwrap();
        doctor(&["--config", file.to_str().unwrap()])
    }
}

/// The program, told nothing by the environment.
fn bare() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_settle"));
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("SETTLE_")) {
        command.env_remove(name);
    }
    command
}

fn doctor(words: &[&str]) -> (i32, String) {
    said(bare().arg("doctor").args(words))
}

fn said(command: &mut Command) -> (i32, String) {
    let output = command.output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap();
    (output.status.code().unwrap(), text)
}

#[track_caller]
fn assert_finds(verdict: &str, (code, text): (i32, String), expected: &str) {
    let found = text.lines().find(|line| line.starts_with(verdict) && line.contains(expected));
    assert!(found.is_some(), "no line `{verdict} … {expected}` in\n{text}");
    assert_eq!(code, i32::from(verdict == "WRONG"), "{text}");
}

#[test]
fn nothing_is_wrong_with_what_is_as_it_should_be() {
    let healthy = Healthy::start();
    let (code, text) = healthy.doctor(&healthy.configuration(""));
    assert_eq!(code, 0, "{text}");
    assert!(!text.contains("WRONG") && text.contains("Nothing is wrong"), "{text}");
}

#[test]
fn an_unknown_key() {
    let healthy = Healthy::start();
    assert_finds("WRONG", healthy.doctor(&healthy.configuration("durabilty = \"fsync\"")), "durabilty");
}

#[test]
fn a_database_that_is_not_there() {
    let healthy = Healthy::start();
    let nobody = format!("127.0.0.1:{}", free_port().unwrap());
    let configuration = healthy.configuration("").replace(&healthy.redis.address(), &nobody);
    assert_finds("WRONG", healthy.doctor(&configuration), &format!("{nobody} cannot be reached"));
}

#[test]
fn a_database_that_wants_a_password() {
    let healthy = Healthy::start();
    healthy.redis.ask("CONFIG SET requirepass secret").unwrap();
    assert_finds("WRONG", healthy.doctor(&healthy.configuration("")), "NOAUTH");
}

#[test]
fn a_database_that_writes_nothing_down() {
    let healthy = Healthy::with(Server::start(Persistence::None).unwrap());
    let (code, text) = healthy.doctor(&healthy.configuration(""));
    assert!(text.contains("set `appendfsync always`"), "all that is wrong is told: {text}");
    assert_finds("WRONG", (code, text), "set `appendonly yes`");
}

#[test]
fn a_database_that_flushes_once_a_second() {
    let healthy = Healthy::with(Server::start(Persistence::EverySecond).unwrap());
    assert_finds("WRONG", healthy.doctor(&healthy.configuration("")), "set `appendfsync always`");
}

#[test]
fn a_database_that_throws_accounts_away() {
    let healthy = Healthy::start();
    healthy.redis.ask("CONFIG SET maxmemory 100mb").unwrap();
    healthy.redis.ask("CONFIG SET maxmemory-policy allkeys-lru").unwrap();
    assert_finds("WRONG", healthy.doctor(&healthy.configuration("")), "set `noeviction`");
}

#[test]
fn a_database_whose_memory_is_at_its_end() {
    let healthy = Healthy::start();
    healthy.redis.ask("CONFIG SET maxmemory 1mb").unwrap();
    assert_finds("WRONG", healthy.doctor(&healthy.configuration("")), "`maxmemory` allows");
}

#[test]
fn a_database_that_soon_turns_connections_away() {
    let healthy = Healthy::start();
    healthy.redis.ask("CONFIG SET maxclients 2").unwrap();
    let _one_more = TcpStream::connect(healthy.redis.address()).unwrap();
    assert_finds("warning", healthy.doctor(&healthy.configuration("")), "`maxclients` allows");
}

#[test]
fn a_database_that_lets_nobody_run_scripts() {
    let healthy = Healthy::start();
    healthy.redis.ask("ACL SETUSER default -@scripting").unwrap();
    assert_finds("WRONG", healthy.doctor(&healthy.configuration("")), "Allow the user `+@scripting`");
}

#[test]
fn a_database_that_does_not_flush_while_it_rewrites_its_file() {
    let healthy = Healthy::start();
    healthy.redis.ask("CONFIG SET no-appendfsync-on-rewrite yes").unwrap();
    assert_finds("WRONG", healthy.doctor(&healthy.configuration("")), "set `no-appendfsync-on-rewrite no`");
}

#[test]
fn a_database_that_refuses_writes_for_want_of_replicas() {
    let (healthy, _replica) = with_a_replica(Persistence::Always);
    healthy.redis.ask("CONFIG SET min-replicas-to-write 1").unwrap();
    let (code, text) = healthy.doctor(&healthy.configuration(""));
    assert_eq!(code, 0, "one is there: {text}");
    healthy.redis.ask("CONFIG SET min-replicas-to-write 2").unwrap();
    assert_finds("WRONG", healthy.doctor(&healthy.configuration("")), "refuses every write: `min-replicas-to-write 2`");
}

#[test]
fn too_few_replicas() {
    let healthy = Healthy::start();
    let configuration = healthy.configuration("replicas = 2").replace("\"fsync\"", "\"replicated\"");
    assert_finds("WRONG", healthy.doctor(&configuration), "has 0 replicas in touch and 2 must acknowledge");
}

#[test]
fn a_replica_in_the_place_of_a_master() {
    let master = Server::start(Persistence::Always).unwrap();
    let healthy = Healthy::with(master.start_replica(Persistence::Always).unwrap());
    assert_finds("WRONG", healthy.doctor(&healthy.configuration("")), "is not a master but says `slave`");
}

/// Healthy servers, and a replica that the master is in touch with.
fn with_a_replica(persistence: Persistence) -> (Healthy, Server) {
    let healthy = Healthy::start();
    let replica = healthy.redis.start_replica(persistence).unwrap();
    let in_touch = || healthy.redis.ask("INFO replication").unwrap().contains("state=online");
    assert!(wait_until(Duration::from_secs(30), in_touch), "the replica finds its master");
    (healthy, replica)
}

#[test]
fn nothing_is_wrong_with_a_replica_that_is_as_it_should_be() {
    let (healthy, replica) = with_a_replica(Persistence::Always);
    // A busy machine's replica takes its time.
    let patient = healthy.configuration("wait_ms = 10000\npatience_ms = 10000");
    let (code, text) = healthy.doctor(&patient.replace("\"fsync\"", "\"replicated\""));
    assert_eq!(code, 0, "{text}");
    assert!(!text.contains(&replica.address()) && text.contains("Nothing is wrong"), "{text}");
}

#[test]
fn a_replica_that_writes_nothing_down() {
    let (healthy, replica) = with_a_replica(Persistence::None);
    let expected = format!("{} has `appendonly no`", replica.address());
    assert_finds("warning", healthy.doctor(&healthy.configuration("")), &expected);
    let replicated = healthy.configuration("").replace("\"fsync\"", "\"replicated\"");
    assert_finds("WRONG", healthy.doctor(&replicated), &expected);
}

#[test]
fn a_replica_that_would_throw_accounts_away_as_the_master() {
    let (healthy, replica) = with_a_replica(Persistence::Always);
    replica.ask("CONFIG SET maxmemory 100mb").unwrap();
    replica.ask("CONFIG SET maxmemory-policy allkeys-lru").unwrap();
    let sentinel = Sentinel::start("stock", &healthy.redis, 1, Duration::from_secs(2)).unwrap();
    let knows = || sentinel.ask("SENTINEL REPLICAS stock").unwrap().contains(&replica.port().to_string());
    assert!(wait_until(Duration::from_secs(30), knows), "the Sentinel finds the replica");
    let expected = format!("{} has `maxmemory-policy allkeys-lru`", replica.address());
    assert_finds("WRONG", healthy.doctor(&by_sentinels(&healthy, &[sentinel.address()], "stock")), &expected);
}

#[test]
fn a_replica_that_only_the_sentinels_know() {
    let (healthy, mut replica) = with_a_replica(Persistence::Always);
    let sentinel = Sentinel::start("stock", &healthy.redis, 1, Duration::from_secs(2)).unwrap();
    let knows = || sentinel.ask("SENTINEL REPLICAS stock").unwrap().contains(&replica.port().to_string());
    assert!(wait_until(Duration::from_secs(30), knows), "the Sentinel finds the replica");
    replica.kill().unwrap();
    let gone = || !healthy.redis.ask("INFO replication").unwrap().contains("slave0");
    assert!(wait_until(Duration::from_secs(30), gone), "the master misses its replica");
    let expected = format!("a replica cannot be looked at: {} cannot be reached", replica.address());
    assert_finds("warning", healthy.doctor(&by_sentinels(&healthy, &[sentinel.address()], "stock")), &expected);
}

#[test]
fn a_replica_that_stands_still() {
    let (healthy, mut replica) = with_a_replica(Persistence::Always);
    replica.process().freeze().unwrap();
    let expected = "has 1 replicas in touch, and 0 of them acknowledge within 1000 ms";
    assert_finds("warning", healthy.doctor(&healthy.configuration("")), expected);
    let replicated = healthy.configuration("").replace("\"fsync\"", "\"replicated\"");
    assert_finds("WRONG", healthy.doctor(&replicated), expected);
}

/// The configuration by Sentinels, under which a master is known by that name.
fn by_sentinels(healthy: &Healthy, sentinels: &[String], master: &str) -> String {
    let sentinels: Vec<String> = sentinels.iter().map(|address| format!("\"{address}\"")).collect();
    let place =
        format!("sentinels = [{}]\nmaster = \"{master}\"\nmay_lose_acknowledged_writes = true", sentinels.join(", "));
    healthy.configuration("").replace(&format!("redis = \"{}\"", healthy.redis.address()), &place)
}

#[test]
fn a_master_that_no_sentinel_knows() {
    let healthy = Healthy::start();
    let sentinel = Sentinel::start("stock", &healthy.redis, 1, Duration::from_secs(2)).unwrap();
    let configuration = by_sentinels(&healthy, &[sentinel.address()], "stocks");
    assert_finds("WRONG", healthy.doctor(&configuration), "no Sentinel names a master `stocks`");
}

#[test]
fn a_sentinel_that_is_gone_one_alone_and_one_that_waits_for_long() {
    let healthy = Healthy::start();
    let sentinel = Sentinel::start("stock", &healthy.redis, 1, Duration::from_secs(30)).unwrap();
    let nobody = format!("127.0.0.1:{}", free_port().unwrap());
    let (code, text) = healthy.doctor(&by_sentinels(&healthy, &[sentinel.address(), nobody.clone()], "stock"));
    for expected in [
        &*format!("Sentinel {nobody} does not answer"),
        "1 Sentinels watch `stock`",
        "down-after-milliseconds",
        "set the quorum",
    ] {
        assert_finds("warning", (code, text.clone()), expected);
    }
}

#[test]
fn a_broker_that_is_not_there() {
    let healthy = Healthy::start();
    let nobody = format!("nats://127.0.0.1:{}", free_port().unwrap());
    let configuration = healthy.configuration("").replace(&healthy.nats.address(), &nobody);
    assert_finds("WRONG", healthy.doctor(&configuration), "no NATS server at");
}

#[test]
fn a_broker_without_jetstream() {
    let mut healthy = Healthy::start();
    healthy.nats = nats::Server::start_with(false, &[]).unwrap();
    assert_finds("WRONG", healthy.doctor(&healthy.configuration("")), "has no JetStream");
}

/// Whether the broker can be used, when its JetStream has this much room.
fn with_a_broker_of(room: &str, jetstream: &str) -> (i32, String) {
    let mut healthy = Healthy::start();
    let file = healthy.folder.path().join("nats.conf");
    std::fs::write(&file, format!("jetstream {{ {room} }}")).unwrap();
    healthy.nats = nats::Server::start_with(true, &["--config", file.to_str().unwrap()]).unwrap();
    let configuration = healthy.configuration("").replace("\n\n[stock]", &format!("\n{jetstream}\n\n[stock]"));
    let found = healthy.doctor(&configuration);
    assert!(has_no_streams(&healthy.nats), "what it asks leaves nothing behind");
    found
}

fn has_no_streams(broker: &nats::Server) -> bool {
    let mut stream = TcpStream::connect(("127.0.0.1", broker.port())).unwrap();
    stream.set_read_timeout(Some(common::PATIENCE)).unwrap();
    stream.write_all(b"CONNECT {\"verbose\":false}\r\nSUB answers 1\r\nPUB $JS.API.INFO answers 0\r\n\r\n").unwrap();
    let lines = BufReader::new(stream).lines().map_while(Result::ok);
    lines.into_iter().find(|line| line.contains("account_info")).is_some_and(|line| line.contains("\"streams\":0"))
}

#[test]
fn a_broker_without_room_for_what_waits() {
    let streams = "would not keep `settle-command-stock`, `settle-command-payment`, 2048 MiB at most, in memory";
    for memory in ["64MB", "1500MB"] {
        assert_finds("WRONG", with_a_broker_of(&format!("max_memory_store: {memory}"), ""), streams);
    }
    assert_finds("WRONG", with_a_broker_of("max_file_store: 100MB", ""), "would not keep `settle-dead`, 256 MiB");
    let room = "max_memory_store: 2GB, max_file_store: 300MB";
    let (code, text) = with_a_broker_of(room, "");
    assert_eq!(code, 0, "just enough: {text}");
    assert_finds("WRONG", with_a_broker_of(room, "storage = \"file\""), "2304 MiB at most, in files");
}

#[test]
fn a_broker_whose_queue_is_kept_elsewhere() {
    let healthy = Healthy::start();
    let place = format!("127.0.0.1:{}", free_port().unwrap());
    // An order instance makes the queues of both ledgers.
    let orders = healthy.at(&place).replace("[stock]", "[orders]");
    let _orders = healthy.run("order", &orders, &place);
    let elsewhere = healthy.configuration("").replace("\n\n[stock]", "\nstorage = \"file\"\n\n[stock]");
    assert_finds(
        "WRONG",
        healthy.doctor(&elsewhere),
        "stream `settle-command-stock` has storage Memory, and File is needed",
    );
}

#[test]
fn a_broker_alone_that_should_keep_replicas() {
    assert_finds("WRONG", with_a_broker_of("", "replicas = 3"), "cannot keep 3 replicas of stream");
}

#[test]
fn two_services_in_one_database() {
    let healthy = Healthy::start();
    let both = format!(
        "{}[payment]\nredis = \"{}\"\ndurability = \"fsync\"\n",
        healthy.configuration(""),
        healthy.redis.address()
    );
    assert_finds("warning", healthy.doctor(&both), "in the same place as that of stock");
}

#[test]
fn links_to_traces_that_nobody_makes() {
    let healthy = Healthy::start();
    let url = "trace_url = \"http://127.0.0.1:16686/trace/{trace_id}\"";
    let linked = |endpoint: &str| healthy.configuration("") + &format!("\n[telemetry]\n{endpoint}{url}\n");
    assert_finds("warning", healthy.doctor(&linked("")), "the page links to none, since nothing is traced");
    let (_, text) = healthy.doctor(&linked("endpoint = \"http://127.0.0.1:9\"\n"));
    assert!(
        text.contains("ok       traces: they go to http://127.0.0.1:9, and the page links to http://127"),
        "{text}"
    );
}

#[test]
fn figures_and_traces_where_nobody_is() {
    let healthy = Healthy::start();
    let nobody = || format!("127.0.0.1:{}", free_port().unwrap());
    let (instance, back_end) = (nobody(), nobody());
    let both = healthy.configuration("")
        + &format!("\n[watch]\ninstances = \"http://{instance}\"\n[telemetry]\nendpoint = \"http://{back_end}\"\n");
    let found = healthy.doctor(&both);
    assert_finds("warning", found.clone(), &format!("watch.instances: nobody can be reached at {instance}"));
    assert_finds("warning", found, &format!("traces: nobody can be reached at {back_end}"));
}

#[test]
fn a_port_that_somebody_else_has() {
    let healthy = Healthy::start();
    let taken = healthy.redis.address();
    assert_finds("WRONG", healthy.doctor(&healthy.at(&taken)), "listen: whoever listens on");
    let folder = Folder::new();
    let shop = folder.serve(&[]);
    let another = format!("listen: somebody else listens on {}", shop.address);
    assert_finds("WRONG", healthy.doctor(&healthy.at(&shop.address)), &another);
    let admin = format!("admin.listen: somebody else listens on {}", shop.address);
    assert_finds("WRONG", healthy.doctor(&healthy.with_operators_at(&shop.address)), &admin);
}

#[test]
fn one_port_for_requests_and_operators() {
    let healthy = Healthy::start();
    let place = format!("127.0.0.1:{}", free_port().unwrap());
    let twice = healthy.with_operators_at(&place).replace("127.0.0.1:0", &place);
    assert_finds("WRONG", healthy.doctor(&twice), "admin.listen: ");
}

#[test]
fn a_socket_without_a_folder_or_in_one_that_cannot_be_written_to() {
    let healthy = Healthy::start();
    let operators_at = |path: &Path| healthy.doctor(&healthy.with_operators_at(path.to_str().unwrap()));
    let folder = healthy.folder.path();
    assert_finds("WRONG", operators_at(&folder.join("missing/admin.sock")), "admin.listen: there is no folder");
    let file = folder.join("precious");
    std::fs::write(&file, "precious").unwrap();
    assert_finds("WRONG", operators_at(&file), "is no socket");
    let (code, text) = operators_at(&folder.join("admin.sock"));
    assert_eq!(code, 0, "{text}");
}

#[test]
fn a_port_and_a_socket_that_the_service_itself_has() {
    let healthy = Healthy::start();
    let place = format!("127.0.0.1:{}", free_port().unwrap());
    for (service, configuration) in [
        ("stock", healthy.at(&place)),
        ("order", healthy.with_operators_at("/SOCKET").replace("127.0.0.1:0", &place)),
        (
            "order",
            healthy.with_operators_at(&format!("127.0.0.1:{}", free_port().unwrap())).replace("127.0.0.1:0", &place),
        ),
    ] {
        let socket = healthy.folder.path().join("admin.sock");
        let configuration = configuration.replace("/SOCKET", socket.to_str().unwrap());
        let process = healthy.run(service, &configuration, &place);
        let (code, text) = healthy.doctor(&configuration);
        assert_eq!(code, 0, "{text}");
        assert!(text.contains("taken by the service itself"), "{text}");
        if configuration.contains("[admin]") {
            assert!(
                text.lines().any(|line| line.starts_with("ok       admin.listen") && line.contains("taken by")),
                "{text}"
            );
        }
        process.freeze().unwrap();
        assert_finds("WRONG", healthy.doctor(&configuration), "it stands still");
    }
}

/// Whether a service takes requests.
fn is_served(place: &str) -> bool {
    let ask = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect(place)?;
        stream.set_read_timeout(Some(Duration::from_secs(1)))?;
        stream.write_all(b"GET /health HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    ask().is_ok_and(|answer| answer.contains(" 200 "))
}

#[test]
fn faults_for_everybody() {
    let healthy = Healthy::start();
    let open = healthy.at("0.0.0.0:0\"\nchaos = true\n#");
    assert_finds("warning", healthy.doctor(&open), "faults can be injected by whoever reaches 0.0.0.0:0");
}

#[test]
fn a_password_for_everybody() {
    let healthy = Healthy::start();
    healthy.redis.ask("CONFIG SET requirepass secret").unwrap();
    let file = healthy.folder.path().join("password");
    std::fs::write(&file, "secret\n").unwrap();
    std::fs::set_permissions(&file, PermissionsExt::from_mode(0o644)).unwrap();
    let configuration = healthy.configuration(&format!("password_file = \"{}\"", file.display()));
    assert_finds("WRONG", healthy.doctor(&configuration), "chmod 600");
}

#[test]
fn a_data_folder_in_memory() {
    if Path::new("/dev/shm").is_dir() {
        let folder = tempfile::tempdir_in("/dev/shm").unwrap();
        assert_finds("WRONG", doctor(&["--data", folder.path().join("data").to_str().unwrap()]), "is in memory");
    }
}

#[test]
fn a_shop_that_stands_still() {
    let folder = Folder::new();
    let shop = folder.serve(&[]);
    let data = folder.data();
    let look = || doctor(&["--data", data.to_str().unwrap()]);
    let (code, text) = look();
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("ok       shop: it runs, and answers"), "{text}");
    let process = Pid::from_child(&shop.child);
    kill_process(process, Signal::STOP).unwrap();
    let found = look();
    kill_process(process, Signal::CONT).unwrap();
    assert_finds("WRONG", found, &format!("process {} stands still", shop.child.id()));
}

/// What is said of a shop that is told this by its environment.
fn told(environment: &[(&str, &str)]) -> (i32, String) {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let mut command = bare();
    command.env("SETTLE_DATA", folder.path().join("data")).envs(environment.iter().copied());
    said(command.arg("doctor"))
}

#[test]
fn an_environment_that_a_shop_does_not_start_with_or_should_not() {
    let (code, text) = told(&[("SETTLE_LISTEN", "127.0.0.1:0")]);
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("Nothing is wrong.") && text.contains("listen: 127.0.0.1:0 is free"), "{text}");
    let (code, text) = told(&[("SETTLE_PROTOCOL", "3pc")]);
    assert!(code == 2 && text.contains("invalid value '3pc' for '--protocol"), "{text}");
    let both = [("SETTLE_CHAOS", "1"), ("SETTLE_PRODUCTION", "1")];
    assert_finds("WRONG", told(&both), "SETTLE_CHAOS and SETTLE_PRODUCTION");
    assert_finds("warning", told(&[("SETTLE_DURABILITY", "memory")]), "a power cut takes back what was answered");
    let open = [("SETTLE_CHAOS", "1"), ("SETTLE_LISTEN", "0.0.0.0:0")];
    assert_finds("warning", told(&open), "SETTLE_CHAOS lets whoever reaches 0.0.0.0:0 inject faults");
    let folder = Folder::new();
    let shop = folder.serve(&[]);
    assert_finds("warning", told(&[("SETTLE_LISTEN", &shop.address)]), "listen: a shop cannot listen on");
    let data = folder.data();
    let own = said(bare().env("SETTLE_LISTEN", &shop.address).args(["doctor", "--data"]).arg(data));
    assert_finds("ok", own, "is taken; the shop runs");
}

#[test]
fn a_data_folder_that_is_none() {
    let file = tempfile::NamedTempFile::new().unwrap();
    assert_finds("WRONG", doctor(&["--data", file.path().to_str().unwrap()]), "is no folder");
}

#[test]
fn a_shop_that_is_held_down() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("hold-shop"), "").unwrap();
    assert_finds("warning", doctor(&["--data", folder.path().to_str().unwrap()]), "is not started again");
}

#[test]
fn a_data_folder_for_everybody() {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o755)).unwrap();
    assert_finds("warning", doctor(&["--data", folder.path().to_str().unwrap()]), "chmod 700");
}

#[test]
fn findings_as_json() {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let (code, text) = doctor(&["--json", "--data", folder.path().to_str().unwrap()]);
    let report: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!((code, &report["wrong"]), (0, &serde_json::json!(0)), "{text}");
    assert!(report["findings"].as_array().unwrap().iter().any(|finding| finding["about"] == "disk"), "{text}");
}

#[test]
fn what_is_well_is_told_too() {
    let healthy = Healthy::start();
    let (code, text) = healthy.doctor(&healthy.configuration(""));
    assert_eq!(code, 0, "{text}");
    for line in ["ok       stock database: its clock and this machine's agree to within ", "ok       disk: "] {
        assert!(text.lines().any(|found| found.starts_with(line)), "no `{line}` in\n{text}");
    }
}
