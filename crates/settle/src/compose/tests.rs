//! The compose files, read as a container engine would read them, against the configuration's schema and the gateway's files.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::*;
use crate::config::read_variables;

fn deploy() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy")
}

fn parsed(profile: Profile) -> Value {
    let file = deploy().join(format!("compose/{}.yml", profile.name()));
    let text = std::fs::read_to_string(&file).unwrap_or_default();
    let name = profile.name();
    assert!(text == profile.compose(), "settle config compose {name} > deploy/compose/{name}.yml");
    serde_saphyr::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

fn services(file: &Value) -> BTreeMap<&str, &Value> {
    file["services"].as_object().unwrap().iter().map(|(name, service)| (name.as_str(), service)).collect()
}

/// What an engine puts for `${NAME:-default}` when NAME is not set.
fn substituted(text: &str) -> String {
    match text.strip_prefix("${").and_then(|rest| rest.strip_suffix('}')) {
        Some(inner) => inner.split_once(":-").map_or(String::new(), |(_, default)| default.to_owned()),
        None => text.to_owned(),
    }
}

#[test]
fn every_service_would_start_with_its_environment() {
    for profile in Profile::ALL {
        let file = parsed(profile);
        let services = services(&file);
        for service in Service::ALL {
            let it = services[program(service)];
            assert_eq!(it["command"], serde_json::json!([program(service)]));
            let environment: Vec<(String, String)> = it["environment"]
                .as_object()
                .unwrap()
                .iter()
                .map(|(name, text)| (name.clone(), substituted(text.as_str().unwrap())))
                .collect();
            let config = read_variables(&environment).unwrap_or_else(|error| panic!("{}: {error}", profile.name()));
            assert_eq!(config.listen.port(), PORT_IN_CONTAINER);
            assert!(config.listen.ip().is_unspecified(), "others must reach it");
            if service == Service::Orders {
                assert_eq!(config.trace_url(), Some("http://127.0.0.1:16686/trace/{trace_id}"));
            }
            let options = config.redis(service).unwrap();
            let places: Vec<String> = match options.place {
                redis_store::Place::Standalone { address } => vec![address],
                redis_store::Place::Sentinel { sentinels, .. } => sentinels,
            };
            let brokers = config.nats.url.iter().map(|url| url.trim_start_matches("nats://").to_owned());
            for address in places.into_iter().chain(brokers) {
                let (host, port) = address.split_once(':').unwrap();
                let server = services.get(host).unwrap_or_else(|| panic!("{}: nobody is `{host}`", profile.name()));
                let expected = match host.split('-').next().unwrap() {
                    "redis" => "6379",
                    "sentinel" => "26379",
                    _ => "4222",
                };
                assert_eq!(port, expected);
                assert!(it["depends_on"][host].is_object(), "{} does not wait for {host}: {server}", program(service));
            }
        }
    }
}

#[test]
fn the_gateway_knows_as_many_instances_as_there_are() {
    for profile in Profile::ALL {
        let file = parsed(profile);
        let services = services(&file);
        let mounted = services["gateway"]["volumes"][0].as_str().unwrap().split(':').next().unwrap().to_owned();
        let configuration = std::fs::read_to_string(deploy().join("compose").join(mounted)).unwrap();
        let mut known = std::collections::BTreeSet::new();
        for line in configuration.lines().filter_map(|line| line.trim().strip_prefix("server-template ")) {
            let words: Vec<&str> = line.split(' ').collect();
            let (host, port) = words[2].split_once(':').unwrap();
            assert_eq!(services[host]["deploy"]["replicas"].to_string(), words[1], "{} {host}", profile.name());
            assert_eq!(port, PORT_IN_CONTAINER.to_string());
            known.insert(host.to_owned());
        }
        assert_eq!(known.len(), Service::ALL.len());
        assert!(configuration.contains("bind *:8000") && configuration.contains("bind *:8404"));
    }
}

/// The page is for this machine, knows everybody by the name that the engine gives the container, and lets operators in by a password alone.
#[test]
fn the_page_of_an_order_instance_is_reached_from_this_machine_and_shows_everybody() {
    for profile in Profile::ALL {
        let file = parsed(profile);
        let services = services(&file);
        let engine = include_str!("../../../../deploy/compose/.env");
        assert!(engine.contains(&format!("\nCOMPOSE_PROJECT_NAME={PROJECT}\n")), "an engine names containers by it");
        let many = profile.instances(Service::Orders);
        let host = if many == 1 { "8001".to_owned() } else { format!("8001-{}", 8000 + many) };
        assert_eq!(services["order"]["ports"], serde_json::json!([format!("127.0.0.1:{host}:{PORT_IN_CONTAINER}")]));
        let environment = services["order"]["environment"].as_object().unwrap();
        assert_eq!(substituted(environment["SETTLE_ADMIN__PASSWORD"].as_str().unwrap()), "");
        let shown: Vec<&str> = environment["SETTLE_WATCH__INSTANCES"].as_str().unwrap().split(',').collect();
        let mut containers = vec![];
        for name in Service::ALL.map(program) {
            let replicas = services[name]["deploy"]["replicas"].as_u64().unwrap();
            containers
                .extend((1..=replicas).map(|n| format!("{name}-{n}=http://settle-{name}-{n}:{PORT_IN_CONTAINER}")));
        }
        assert_eq!(shown, containers);
        for name in ["stock", "payment"] {
            assert!(services[name]["ports"].is_null(), "{name} is reached through the gateway alone");
        }
    }
}

#[test]
fn everything_is_pinned_limited_looked_after_and_kept() {
    for profile in Profile::ALL {
        let file = parsed(profile);
        let volumes = file["volumes"].as_object().unwrap();
        for (name, service) in services(&file) {
            let image = service["image"].as_str().unwrap();
            let version = image.split_once(':').map_or("", |(_, version)| version);
            assert!(version.matches('.').count() >= 2, "{name}: {image} is not pinned");
            let limits = &service["deploy"]["resources"]["limits"];
            assert!(limits["cpus"].is_string() && limits["memory"].is_string(), "{name} has no limits");
            assert!(service["healthcheck"]["test"].is_array(), "{name} has no health check");
            assert_eq!(service["restart"], "unless-stopped", "{name}");
            assert_eq!(service["cap_drop"], serde_json::json!(["ALL"]), "{name}");
            for volume in service["volumes"].as_array().into_iter().flatten() {
                let (from, _) = volume.as_str().unwrap().split_once(':').unwrap();
                assert!(from.starts_with("..") || volumes.contains_key(from), "{name}: no volume {from}");
            }
            for needed in service["depends_on"].as_object().into_iter().flat_map(|map| map.keys()) {
                assert!(services(&file).contains_key(needed.as_str()), "{name} waits for {needed}, whom nobody is");
            }
            if image.starts_with("redis") {
                let script = service["command"][2].as_str().unwrap();
                assert!(script.contains("if [ ! -f /data/"), "{name} forgets who is master");
                // What the shell is to substitute is written with two.
                assert!(!script.replace("$$", "").contains('$'), "{name}: an engine would substitute");
                assert!(name.starts_with("sentinel") || script.contains("\nappendfsync always\n"), "{script}");
                assert!(volumes.contains_key(name), "{name} keeps nothing");
            }
        }
    }
}

#[test]
fn the_image_is_built_by_the_compiler_that_the_workspace_asks_for_and_runs_as_nobody_special() {
    let text = std::fs::read_to_string(deploy().join("Dockerfile")).unwrap();
    let compiler = format!("FROM rust:{}", env!("CARGO_PKG_RUST_VERSION"));
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines.iter().any(|line| line.starts_with(&compiler)), "{compiler}");
    let last = lines.iter().rposition(|line| line.starts_with("FROM ")).unwrap();
    let users: Vec<&str> = lines[last..].iter().filter_map(|line| line.strip_prefix("USER ")).collect();
    assert_eq!(users, ["10001:10001"]);
}

/// Runs what a database does before it starts, where `redis-cli` answers as `cli` does, a shell script. Gives what it says in the end.
fn follows(cli: &str) -> String {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().unwrap();
    for (program, script) in [("redis-cli", cli), ("timeout", "shift\nexec \"$@\""), ("sleep", "echo waits >> $0.log")]
    {
        let file = folder.path().join(program);
        std::fs::write(&file, format!("#!/bin/sh\n{script}\n")).unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    let script = super::follow("orders", "redis-orders-1", "echo follows $$master; exit") + "echo starts as it was";
    let path = format!("{}:{}", folder.path().display(), std::env::var("PATH").unwrap());
    let ran = std::process::Command::new("sh").args(["-ec", &script.replace("$$", "$")]).env("PATH", path).output();
    let ran = ran.unwrap();
    let waited = std::fs::read_to_string(folder.path().join("sleep.log")).unwrap_or_default();
    waited + &String::from_utf8(ran.stdout).unwrap() + &String::from_utf8(ran.stderr).unwrap()
}

#[test]
fn a_database_that_was_replaced_while_it_was_away_comes_back_as_a_replica() {
    // `redis-cli -h sentinel-N -p 26379 sentinel WHAT orders`.
    let named = |who: &str, flags: &str| {
        format!(
            "case $6 in get-*) echo {who}; echo 6379;; master) echo name; echo orders; echo flags; echo {flags};; esac"
        )
    };
    assert_eq!(follows(&named("redis-orders-1", "master")), "starts as it was\n");
    assert_eq!(follows(&named("redis-orders-3", "master")), "follows redis-orders-3\n");
    assert_eq!(follows("exit 1"), "starts as it was\n", "there is no Sentinel yet");
    let split = format!(
        "if [ $2 = sentinel-2 ]; then {}; else {}; fi",
        named("redis-orders-2", "master"),
        named("redis-orders-1", "master")
    );
    assert_eq!(follows(&split), "starts as it was\n", "one alone may be of yesterday");
    let doubted = follows(&named("redis-orders-1", "s_down,master"));
    assert_eq!(doubted, "waits\n".repeat(8) + "starts as it was\n", "and nobody replaces it");
}

#[test]
fn the_profile_for_observability_has_what_it_shows_and_is_not_there_unasked() {
    for profile in Profile::ALL {
        let file = parsed(profile);
        let services = services(&file);
        for name in ["jaeger", "prometheus", "grafana"] {
            assert_eq!(services[name]["profiles"], serde_json::json!(["observability"]), "{name}");
        }
        for (name, service) in &services {
            let mounts = service["volumes"].as_array().into_iter().flatten().map(|volume| volume.as_str().unwrap());
            for from in mounts.filter(|mount| mount.starts_with("..")).map(|mount| mount.split(':').next().unwrap()) {
                assert!(deploy().join("compose").join(from).is_file(), "{name}: there is no {from}");
            }
        }
        for service in Service::ALL {
            let environment = &services[program(service)]["environment"];
            assert_eq!(
                substituted(environment["OTEL_EXPORTER_OTLP_ENDPOINT"].as_str().unwrap()),
                "",
                "off unless asked for"
            );
        }
    }
    let read = |name: &str| std::fs::read_to_string(deploy().join("observability/compose").join(name)).unwrap();
    let scraped: Value = serde_saphyr::from_str(&read("prometheus.yml")).unwrap();
    let names = &scraped["scrape_configs"][0]["dns_sd_configs"][0];
    let expected: Vec<&str> = Service::ALL.into_iter().map(program).collect();
    assert_eq!(
        (&names["names"], &names["port"]),
        (&serde_json::json!(expected), &serde_json::json!(PORT_IN_CONTAINER))
    );
    assert!(
        read("datasources.yml").contains("http://prometheus:9090")
            && read("datasources.yml").contains("http://jaeger:16686")
    );
}
