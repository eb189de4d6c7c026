//! Every key that a configuration may have: its kind, its default, and what is allowed, in words.

/// What a key's value is, which tells how it is read from text: an environment variable or a flag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Text,
    /// One text, or several: in text they are parted by commas.
    List,
    Whole,
    /// A number that need not be whole.
    Number,
    Switch,
}

/// One key.
#[derive(Debug, Clone, Copy)]
pub(super) struct Key {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    /// As it would be written in an environment variable; empty if there is none.
    pub(super) default: &'static str,
    /// For people who gave something else.
    pub(super) allowed: &'static str,
}

const fn key(name: &'static str, kind: Kind, default: &'static str, allowed: &'static str) -> Key {
    Key { name, kind, default, allowed }
}

/// The keys that stand in no section.
pub(super) const TOP: &[Key] = &[
    key("instance", Kind::Text, "", "1 to 23 of the characters a-z A-Z 0-9 . _ -, and no other instance's"),
    key("listen", Kind::Text, "127.0.0.1:8001", "an IP address and a port, such as 127.0.0.1:8001 or 0.0.0.0:8001"),
    key(
        "hosts",
        Kind::List,
        "",
        "names such as shop.example.com, without http:// and without a port, at most 64 of them",
    ),
    key("protocol", Kind::Text, "auto", "auto, 2pc or saga"),
    key("production", Kind::Switch, "false", "true or false"),
    key("chaos", Kind::Switch, "false", "true or false, and not together with production"),
    key("attempts", Kind::Whole, "20", "1 to 1000"),
    key("threads", Kind::Whole, "0", "0 to 64; 0 is half as many as there are processors"),
    key("log_format", Kind::Text, "auto", "auto, json or pretty"),
];

/// The keys of `[nats]`.
pub(super) const NATS: &[Key] = &[
    key("url", Kind::List, "nats://127.0.0.1:4222", "1 to 15 addresses like nats://HOST:PORT, without a password"),
    key("prefix", Kind::Text, "settle", "a name that no other system on these servers has"),
    key("mode", Kind::Text, "jetstream", "jetstream or core"),
    key("storage", Kind::Text, "memory", "memory or file"),
    key("replicas", Kind::Whole, "1", "1, 3 or 5"),
    key("username", Kind::Text, "", "a text"),
    key("password_file", Kind::Text, "", "the path of a file that holds the password"),
];

/// The keys of `[admin]`.
pub(super) const ADMIN: &[Key] = &[
    key(
        "listen",
        Kind::Text,
        "",
        "the path of a Unix socket, or an IP address and a port; a password with any but a loopback address",
    ),
    key("password_file", Kind::Text, "", "the path of a file that holds the password"),
];

/// The keys of `[watch]`.
pub(super) const WATCH: &[Key] = &[key(
    "instances",
    Kind::List,
    "",
    "base URLs of other processes such as http://10.0.0.7:8001, or order-2=http://10.0.0.7:8001 to give one a name, at most 64 of them",
)];

/// The keys of `[telemetry]`.
pub(super) const TELEMETRY: &[Key] = &[
    key("endpoint", Kind::Text, "", "http://HOST:PORT of what takes OTLP; without it nothing is traced"),
    key("protocol", Kind::Text, "grpc", "grpc or http"),
    key("sample_ratio", Kind::Number, "0.01", "0 to 1"),
    key("slow_ms", Kind::Whole, "1000", "a number of milliseconds"),
    key(
        "trace_url",
        Kind::Text,
        "",
        "where the back end shows a trace, such as http://127.0.0.1:16686/trace/{trace_id}; the page links there",
    ),
    key(
        "service",
        Kind::Text,
        "",
        "the service's name in traces; settle-order, settle-stock or settle-payment unless given",
    ),
];

/// The keys of `[orders]`, `[stock]` and `[payment]`.
pub(super) const STORE: &[Key] = &[
    key("redis", Kind::Text, "", "HOST:PORT of a server; or leave it out, and give sentinels and master"),
    key("sentinels", Kind::List, "", "HOST:PORT of each Sentinel, 1 to 15 of them"),
    key("master", Kind::Text, "", "the name by which the Sentinels know the master"),
    key("durability", Kind::Text, "replicated", "memory, fsync or replicated"),
    key("replicas", Kind::Whole, "1", "1 to 100"),
    key("may_lose_acknowledged_writes", Kind::Switch, "false", "true or false"),
    key("wait_ms", Kind::Whole, "1000", "10 to 60000"),
    key("patience_ms", Kind::Whole, "1000", "10 to 60000"),
    key("username", Kind::Text, "", "a text"),
    key("password_file", Kind::Text, "", "the path of a file that holds the password"),
];

/// The sections and their keys.
pub(super) const SECTIONS: &[(&str, &[Key])] = &[
    ("nats", NATS),
    ("telemetry", TELEMETRY),
    ("admin", ADMIN),
    ("watch", WATCH),
    ("orders", STORE),
    ("stock", STORE),
    ("payment", STORE),
];

/// The key of this path, such as `orders.redis`.
pub(super) fn find(path: &str) -> Option<&'static Key> {
    let (keys, name) = match path.split_once('.') {
        None => (TOP, path),
        Some((section, name)) => (SECTIONS.iter().find(|(known, _)| *known == section)?.1, name),
    };
    keys.iter().find(|key| key.name == name)
}

/// Every path, in the order of the tables.
pub(super) fn paths() -> impl Iterator<Item = (String, &'static Key)> {
    let top = TOP.iter().map(|key| (key.name.to_owned(), key));
    let sections = SECTIONS
        .iter()
        .flat_map(|(section, keys)| keys.iter().map(move |key| (format!("{section}.{}", key.name), key)));
    top.chain(sections)
}

/// The environment variable of a path.
pub(super) fn variable(path: &str) -> String {
    format!("SETTLE_{}", path.replace('.', "__").to_uppercase())
}
