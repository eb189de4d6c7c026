use std::path::Path;

use super::*;

fn in_file(text: &str) -> (tempfile::TempDir, ConfigArgs) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("settle.toml");
    std::fs::write(&file, text).unwrap();
    (folder, ConfigArgs::of_file(file))
}

fn load(text: &str, environment: &[(&str, &str)], flags: &[&str]) -> Result<Config, String> {
    use clap::Parser;
    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        args: ConfigArgs,
    }
    let (_folder, of_file) = in_file(text);
    let mut args = Cli::try_parse_from(std::iter::once(&"settle").chain(flags)).unwrap().args;
    args.config.clone_from(&of_file.config);
    let file = args.config.as_deref().unwrap_or(Path::new("")).display().to_string();
    let environment: Vec<_> = environment.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect();
    let loaded = args.load_with(&environment);
    loaded.map_err(|error| error.to_string().replace(&file, "FILE"))
}

const STOCK: &str = "[stock]\nredis = \"127.0.0.1:6379\"\n";

#[test]
fn the_example_is_valid_and_stands_in_deploy_too() {
    let deployed = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/settle.example.toml");
    assert_eq!(std::fs::read_to_string(deployed).unwrap(), EXAMPLE);
    let config = load(EXAMPLE, &[], &[]).unwrap();
    for service in Service::ALL {
        config.redis(service).unwrap();
    }
}

#[test]
fn the_example_has_every_key_with_its_default() {
    for (path, key) in keys::paths() {
        let section = path.split_once('.').map(|(section, _)| section);
        // The other databases have the keys of the first.
        if matches!(section, Some("stock" | "payment")) {
            continue;
        }
        let lines: Vec<&str> = match section {
            None => EXAMPLE.lines().take_while(|line| !line.starts_with('[')).collect(),
            Some(section) => EXAMPLE
                .split(&format!("\n[{section}]\n"))
                .nth(1)
                .unwrap()
                .lines()
                .take_while(|l| !l.starts_with('['))
                .collect(),
        };
        let given =
            lines.iter().find_map(|line| line.trim_start_matches("# ").strip_prefix(&format!("{} = ", key.name)));
        // The example shows Sentinels, so no address of a server.
        if path == "orders.redis" {
            continue;
        }
        let given = given.unwrap_or_else(|| panic!("the example lacks `{path}`"));
        if !key.default.is_empty() && path != "orders.replicas" {
            assert_eq!(given.trim_matches('"'), key.default, "`{path}` in the example is not its default");
        }
    }
}

#[test]
fn defaults_are_those_that_lose_nothing() {
    let config = load(STOCK, &[], &[]).unwrap();
    assert_eq!((config.protocol, config.production, config.chaos, config.attempts), (Protocol::Auto, false, false, 20));
    assert_eq!(config.listen, "127.0.0.1:8001".parse().unwrap());
    let stock = config.redis(Service::Stock).unwrap();
    assert_eq!(stock.durability, redis_store::Durability::Replicated { replicas: 1 });
    assert_eq!(stock.failover, Failover::LosesNothing);
    assert_eq!(stock.place, Place::Standalone { address: "127.0.0.1:6379".to_owned() });
    let missing = config.redis(Service::Orders).unwrap_err().to_string();
    assert!(missing.contains("`orders.redis`, or `orders.sentinels` and `orders.master`"), "{missing}");
    // Two starts are two instances.
    assert_ne!(config.instance, load(STOCK, &[], &[]).unwrap().instance);
}

#[test]
fn a_flag_goes_over_the_environment_and_that_over_the_file() {
    let file = format!("attempts = 3\nlisten = \"127.0.0.1:1\"\ninstance = \"a\"\n{STOCK}");
    let environment = [("SETTLE_LISTEN", "127.0.0.1:2"), ("SETTLE_INSTANCE", "007"), ("SETTLE_LOG", "debug")];
    let config = load(&file, &environment, &["--instance", "c", "--chaos"]).unwrap();
    assert_eq!(config.attempts, 3);
    assert_eq!(config.listen.port(), 2);
    assert_eq!((config.instance.as_str(), config.chaos), ("c", true));
    assert_eq!(load(&file, &environment, &[]).unwrap().instance.as_str(), "007");
    let hosts = [("SETTLE_HOSTS", "shop.example, orders.example")];
    assert_eq!(load(&file, &hosts, &[]).unwrap().hosts, ["shop.example", "orders.example"]);
    let environment = [("SETTLE_ORDERS__SENTINELS", "a:1, b:2"), ("SETTLE_ORDERS__MASTER", "orders")];
    let config = load(&file, &environment, &["--set", "orders.replicas=2"]).unwrap();
    let orders = config.redis(Service::Orders).unwrap();
    let sentinels = vec!["a:1".to_owned(), "b:2".to_owned()];
    assert_eq!(orders.place, Place::Sentinel { sentinels, master: "orders".to_owned() });
    assert_eq!(orders.durability, redis_store::Durability::Replicated { replicas: 2 });
}

/// (file, environment, flags, what is said)
type Wrong = (&'static str, &'static [(&'static str, &'static str)], &'static [&'static str], &'static str);

const WRONG: &[Wrong] = &[
    ("instnce = \"a\"", &[], &[], "unknown key `instnce` in FILE: did you mean `instance`?"),
    ("[mysql]\nurl = \"x\"", &[], &[], "unknown key `mysql` in FILE: `settle config example` shows all there are"),
    (
        "",
        &[("SETTLE_STOCK__REPLICA", "1")],
        &[],
        "unknown key `stock.replica` in the environment variable SETTLE_STOCK__REPLICA: did you mean `stock.replicas`?",
    ),
    ("", &[], &["--set", "x=1"], "unknown key `x` in the flag --set: `settle config example` shows all there are"),
    ("", &[], &["--set", "x"], "--set x: expected KEY=VALUE, such as stock.durability=fsync"),
    ("attempts = 0", &[], &[], "`attempts` in FILE: is `0`; allowed: 1 to 1000"),
    ("attempts = 1001", &[], &[], "`attempts` in FILE: is `1001`; allowed: 1 to 1000"),
    ("attempts = -1", &[], &[], "`attempts` in FILE: is `-1`; allowed: 1 to 1000"),
    (
        "threads = 65",
        &[],
        &[],
        "`threads` in FILE: is `65`; allowed: 0 to 64; 0 is half as many as there are processors",
    ),
    (
        "",
        &[("SETTLE_ATTEMPTS", "many")],
        &[],
        "`attempts` in the environment variable SETTLE_ATTEMPTS is `many`; allowed: 1 to 1000",
    ),
    (
        "",
        &[("SETTLE_CHAOS", "maybe")],
        &[],
        "`chaos` in the environment variable SETTLE_CHAOS is `maybe`; allowed: true or false, and not together with production",
    ),
    ("chaos = true\nproduction = true", &[], &[], "`chaos` in FILE: excludes `production`"),
    (
        "listen = \"localhost\"",
        &[],
        &[],
        "`listen` in FILE: is `localhost`; allowed: an IP address and a port, such as 127.0.0.1:8001 or 0.0.0.0:8001",
    ),
    (
        "hosts = [\"shop.example\", \"http://shop.example\"]",
        &[],
        &[],
        "`hosts` in FILE: is `http://shop.example`; allowed: names such as shop.example.com, without http:// and without a port, at most 64 of them",
    ),
    (
        "hosts = \"shop.example:8001\"",
        &[],
        &[],
        "`hosts` in FILE: is `shop.example:8001`; allowed: names such as shop.example.com, without http:// and without a port, at most 64 of them",
    ),
    (
        "hosts = [\"\"]",
        &[],
        &[],
        "`hosts` in FILE: is ``; allowed: names such as shop.example.com, without http:// and without a port, at most 64 of them",
    ),
    ("protocol = \"3pc\"", &[], &[], "`protocol` in FILE: is `3pc`; allowed: auto, 2pc or saga"),
    (
        "instance = \"a b\"",
        &[],
        &[],
        "`instance` in FILE: is `a b`; allowed: 1 to 23 of the characters a-z A-Z 0-9 . _ -, and no other instance's",
    ),
    ("orders = 3", &[], &[], "`orders` in FILE must be a section: [orders]"),
    (
        "[orders]\nredis = \"a:1\"\npassword = \"x\"",
        &[],
        &[],
        "`orders.password` in FILE: a secret does not belong there; set SETTLE_ORDERS__PASSWORD, or give `password_file`",
    ),
    (
        "",
        &[],
        &["--set", "orders.password=x"],
        "the flag --set: everybody can read a command line; set SETTLE_ORDERS__PASSWORD instead",
    ),
    (
        "[orders]\nredis = \"a:1\"\nmaster = \"m\"",
        &[],
        &[],
        "`orders.redis` in FILE: excludes `sentinels` and `master`: give one or the others",
    ),
    (
        "[orders]\nreplicas = 1",
        &[],
        &[],
        "[orders] does not say where the database is: give `redis`, or `sentinels` and `master`",
    ),
    (
        "[orders]\nsentinels = [\"a:1\"]",
        &[],
        &[],
        "[orders] has `sentinels` but no `master`: the name by which the Sentinels know the master",
    ),
    (
        "[orders]\nsentinels = []\nmaster = \"m\"",
        &[],
        &[],
        "`orders.sentinels` in FILE: is `0`; allowed: HOST:PORT of each Sentinel, 1 to 15 of them",
    ),
    (
        "[orders]\nsentinels = \"a\"\nmaster = \"m\"",
        &[],
        &[],
        "`orders.sentinels` in FILE: is `a`; allowed: HOST:PORT of each Sentinel, 1 to 15 of them",
    ),
    (
        "[orders]\nredis = \"redis://a:1\"",
        &[],
        &[],
        "`orders.redis` in FILE: is `redis://a:1`; allowed: HOST:PORT of a server; or leave it out, and give sentinels and master",
    ),
    (
        "[orders]\nredis = \"a:0\"",
        &[],
        &[],
        "`orders.redis` in FILE: is `a:0`; allowed: HOST:PORT of a server; or leave it out, and give sentinels and master",
    ),
    ("[orders]\nredis = \"a:1\"\nreplicas = 0", &[], &[], "`orders.replicas` in FILE: is `0`; allowed: 1 to 100"),
    ("[orders]\nredis = \"a:1\"\nwait_ms = 9", &[], &[], "`orders.wait_ms` in FILE: is `9`; allowed: 10 to 60000"),
    (
        "[orders]\nredis = \"a:1\"\npatience_ms = 60001",
        &[],
        &[],
        "`orders.patience_ms` in FILE: is `60001`; allowed: 10 to 60000",
    ),
    (
        "[nats]\nurl = \"nats://u:p@a:1\"",
        &[],
        &[],
        "`nats.url` in FILE: holds a user or a password: give `nats.username` and set SETTLE_NATS__PASSWORD",
    ),
    (
        "[nats]\nurl = []",
        &[],
        &[],
        "`nats.url` in FILE: is `0`; allowed: 1 to 15 addresses like nats://HOST:PORT, without a password",
    ),
    (
        "[nats]\nprefix = \"a b\"",
        &[],
        &[],
        "`nats.prefix` in FILE: `a b` is not a name: expected 1 to 23 of the characters a-z A-Z 0-9 . _ -; allowed: a name that no other system on these servers has",
    ),
    ("[nats]\nreplicas = 2", &[], &[], "`nats.replicas` in FILE: is `2`; allowed: 1, 3 or 5"),
    ("[nats]\nmode = \"kafka\"", &[], &[], "`nats.mode` in FILE: is `kafka`; allowed: jetstream or core"),
    (
        "[nats]\npassword_file = \"/nowhere/at/all\"",
        &[],
        &[],
        "`nats.password_file`: cannot read /nowhere/at/all: No such file or directory (os error 2)",
    ),
];

#[test]
fn what_is_wrong_is_told_with_its_key_its_source_and_what_is_allowed() {
    for (file, environment, flags, expected) in WRONG {
        let said = load(file, environment, flags).expect_err(expected);
        assert_eq!(&said, expected, "for {file:?} {environment:?} {flags:?}");
    }
}

#[test]
fn everything_wrong_is_told_at_once() {
    let said = load("attempts = 0\n[nats]\nreplicas = 2\n[stock]\nredis = \"x\"", &[], &[]).unwrap_err();
    assert_eq!(said.lines().count(), 3, "{said}");
    let said = load("a = 1\nb = 2", &[("SETTLE_C", "3")], &["--set", "d=4"]).unwrap_err();
    assert_eq!(said.lines().count(), 4, "{said}");
    assert!(load("this is no TOML", &[], &[]).unwrap_err().starts_with("FILE is not TOML:"));
}

#[test]
fn a_value_of_a_wrong_kind_hides_nothing_else_that_is_wrong() {
    let text = "threads = -1\nprotocol = \"3pc\"\nlog_format = \"xml\"\nlisten = \"8000\"\nattempts = -4\nhost = 1\nhosts = 7\n\
                chaos = true\nproduction = true\n[nats]\nreplicas = 7\n[orders]\nredis = 1\nmastr = \"x\"\n[stock]\nmaster = \"s\"\n";
    let said = load(text, &[("SETTLE_TELEMETRY__SAMPLE_RATIO", "half")], &["--set", "x=1"]).unwrap_err();
    let named = |key: &str| said.matches(&format!("`{key}`")).count();
    let wrong = [
        "threads",
        "protocol",
        "log_format",
        "listen",
        "attempts",
        "host",
        "nats.replicas",
        "orders.redis",
        "orders.mastr",
        "telemetry.sample_ratio",
        "x",
        "chaos",
    ];
    for key in wrong {
        assert_eq!(named(key), 1, "{key}: {said}");
    }
    assert!(said.contains("`hosts` in FILE: expected a text or a list of texts; allowed:"), "{said}");
    assert!(said.contains("`stock.sentinels`: is `0`; allowed:"), "{said}");
    assert!(!said.contains("stand-in"), "{said}");
}

#[test]
fn under_sentinel_nothing_below_replicated_goes_unless_loss_is_asked_for() {
    let watched = "[orders]\nsentinels = [\"a:1\"]\nmaster = \"m\"\n";
    assert!(load(watched, &[], &[]).is_ok());
    for durability in ["fsync", "memory"] {
        let file = format!("{watched}durability = \"{durability}\"\n");
        let said = load(&file, &[], &[]).unwrap_err();
        assert!(said.starts_with("`orders.durability` in FILE: replicas are told of a write after"), "{said}");
        let lenient = load(&format!("{file}may_lose_acknowledged_writes = true\n"), &[], &[]).unwrap();
        assert_eq!(lenient.redis(Service::Orders).unwrap().failover, Failover::MayLoseAcknowledgedWrites);
        // One server that stays the master loses nothing by failing over.
        assert!(load(&format!("[orders]\nredis = \"a:1\"\ndurability = \"{durability}\"\n"), &[], &[]).is_ok());
    }
}

#[test]
fn passwords_come_from_the_environment_or_a_file_and_are_never_shown() {
    let given = [("SETTLE_STOCK__PASSWORD", "12345"), ("SETTLE_NATS__PASSWORD", "[se,cret]")];
    let config = load(STOCK, &given, &[]).unwrap();
    assert_eq!(config.redis(Service::Stock).unwrap().credentials.password.as_deref(), Some("12345"));
    assert_eq!(config.nats.password(), Some("[se,cret]"));
    let shown = format!("{config:?}");
    assert!(!shown.contains("12345") && !shown.contains("se,cret"), "{shown}");

    let folder = tempfile::tempdir().unwrap();
    let secret = folder.path().join("secret");
    std::fs::write(&secret, "from file\n").unwrap();
    let file = format!("{STOCK}password_file = {:?}\n", secret.display().to_string());
    let config = load(&file, &[], &[]).unwrap();
    assert_eq!(config.redis(Service::Stock).unwrap().credentials.password.as_deref(), Some("from file"));
    let both = load(&file, &given, &[]).unwrap_err();
    assert!(both.starts_with("SETTLE_STOCK__PASSWORD and `stock.password_file`"), "{both}");
}

#[test]
fn a_door_that_anybody_could_open_needs_a_password() {
    let door = |listen: &str, environment: &[(&str, &str)]| {
        load(&format!("{STOCK}[admin]\nlisten = \"{listen}\"\n"), environment, &[]).map(|config| config.door())
    };
    let password = [("SETTLE_ADMIN__PASSWORD", "sesame")];
    let at = |address: &str, password: Option<&str>| {
        Ok(Some(Door::Address(address.parse().unwrap(), password.map(str::to_owned))))
    };
    assert_eq!(door("admin.sock", &[]), Ok(Some(Door::Socket(PathBuf::from("admin.sock")))));
    assert_eq!(door("127.0.0.1:9001", &[]), at("127.0.0.1:9001", None));
    assert_eq!(door("[::1]:9001", &password), at("[::1]:9001", Some("sesame")));
    assert_eq!(door("0.0.0.0:9001", &password), at("0.0.0.0:9001", Some("sesame")));
    let refused = door("0.0.0.0:9001", &[]).unwrap_err();
    assert!(refused.contains("`admin.listen`") && refused.contains("SETTLE_ADMIN__PASSWORD"), "{refused}");
    assert!(door("", &[]).unwrap_err().contains("[admin] has no `listen`"));
    assert_eq!(
        load(STOCK, &password, &[]).map(|config| config.door()),
        Ok(None),
        "nobody is let in unless somebody says so"
    );
    let written = load(&format!("{STOCK}[admin]\nlisten = \"a.sock\"\npassword = \"sesame\"\n"), &[], &[]);
    assert!(written.unwrap_err().contains("a secret does not belong there"));
}

#[test]
fn whom_a_page_shows_are_base_urls() {
    let of = |list: &str| load(&format!("{STOCK}[watch]\ninstances = {list}"), &[], &[]);
    let config = of("[\"http://127.0.0.1:8002\", \"http://stock-1:8011/stock\"]").unwrap();
    assert_eq!(config.watched(), ["http://127.0.0.1:8002", "http://stock-1:8011/stock"]);
    assert!(load(STOCK, &[], &[]).unwrap().watched().is_empty());
    let given = load(STOCK, &[("SETTLE_WATCH__INSTANCES", "http://a:1,http://b:2")], &[]).unwrap();
    assert_eq!(given.watched(), ["http://a:1", "http://b:2"]);
    let said = of("[\"127.0.0.1:8002\"]").unwrap_err();
    assert_eq!(
        said,
        "`watch.instances` in FILE: is `127.0.0.1:8002`; allowed: base URLs of other processes such as http://10.0.0.7:8001, or order-2=http://10.0.0.7:8001 to give one a name, at most 64 of them"
    );
    let many = format!("{:?}", vec!["http://a:1"; 65]);
    assert!(of(&many).unwrap_err().contains("is `65`; allowed"));
}

#[test]
fn where_traces_are_shown_is_an_address_with_a_place_for_the_id() {
    let of = |url: &str| load(&format!("{STOCK}[telemetry]\ntrace_url = \"{url}\""), &[], &[]);
    let config = of("https://traces.example/{trace_id}").unwrap();
    assert_eq!(config.trace_url(), Some("https://traces.example/{trace_id}"));
    assert_eq!(of("").unwrap().trace_url(), None);
    for wrong in ["ftp://traces.example/{trace_id}", "https://traces.example/", "traces.example/{trace_id}"] {
        let said = of(wrong).unwrap_err();
        assert!(said.starts_with("`telemetry.trace_url` in FILE: is `") && said.contains("such as http://"), "{said}");
    }
}
