//! Why a store in Redis did not open, told so that a person can act on it.

/// Why a store did not open. Nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// An option is out of its bounds.
    #[error("option {option}: {why}")]
    Option {
        /// The option's name.
        option: &'static str,
        /// Its bounds, and what was given.
        why: String,
    },
    /// The server, or every Sentinel, could not be reached.
    #[error("{address} cannot be reached: {why}. Is it running, and is the address right?")]
    Unreachable {
        /// Where it should be.
        address: String,
        /// What happened.
        why: String,
    },
    /// No Sentinel that answered knows a master of that name.
    #[error("no Sentinel names a master `{master}`: {why}. Check the name in `sentinel monitor`")]
    NoMaster {
        /// The name that was asked for.
        master: String,
        /// What each of them said.
        why: String,
    },
    /// The server is no master.
    #[error("{address} is not a master but says `{role}`: give the master's address, or those of its Sentinels")]
    NotMaster {
        /// The server.
        address: String,
        /// Its own word for what it is.
        role: String,
    },
    /// The server was started, and is reading its data.
    #[error("{address} is still loading its data: it serves when it has")]
    Loading {
        /// The server.
        address: String,
    },
    /// The server refused a question that must be asked before anything is trusted to it.
    #[error("{address} does not answer `{question}`: {said}. Settle must be allowed to ask it")]
    Silent {
        /// The server.
        address: String,
        /// What was asked.
        question: &'static str,
        /// Its answer.
        said: String,
    },
    /// The server does not flush before it answers.
    #[error(
        "{address} has `{setting} {found}`, so what it acknowledges may be lost: set `{setting} {wanted}`, or ask for \
         durability `memory` if that loss is acceptable"
    )]
    NotDurable {
        /// The server.
        address: String,
        /// The setting.
        setting: &'static str,
        /// Its value.
        found: String,
        /// The value that is needed.
        wanted: &'static str,
    },
    /// The server cannot say whether its replicas have what it was told.
    #[error(
        "{address} has no `WAIT`, which durability `replicated` rests on ({said}): use Redis or Valkey, or ask for `fsync`"
    )]
    NoWait {
        /// The server.
        address: String,
        /// Its answer.
        said: String,
    },
    /// Fewer replicas follow the master than must acknowledge every write.
    #[error(
        "{address} has {found} replicas in touch and {wanted} must acknowledge every write: start more, or ask for fewer"
    )]
    TooFewReplicas {
        /// The master.
        address: String,
        /// How many must acknowledge.
        wanted: u32,
        /// How many do.
        found: u32,
    },
    /// The server throws keys away when its memory is full.
    #[error(
        "{address} has `maxmemory-policy {policy}` and would throw accounts away when its memory is full: set `noeviction`"
    )]
    Evicts {
        /// The server.
        address: String,
        /// The policy.
        policy: String,
    },
    /// The server is a node of a cluster.
    #[error(
        "{address} is a node of a Redis Cluster, which is not supported: use a master with replicas under Sentinel"
    )]
    Cluster {
        /// The server.
        address: String,
    },
    /// A failover could lose what was acknowledged, and nobody said that it may.
    #[error(
        "a failover by Sentinel could lose acknowledged writes: {why}. {remedy}, or say in as many words that a failover may lose \
         acknowledged writes"
    )]
    MayLose {
        /// How.
        why: String,
        /// What to change.
        remedy: String,
    },
    /// The server holds another store than it did, or none any more.
    #[error(
        "{address} is not the store that was opened: it should hold `{expected}` and holds {found}. It has lost its data, or another \
         server has taken its place: put the data back; a start anew accepts what is there"
    )]
    Strange {
        /// The server.
        address: String,
        /// The identity that was there at the start.
        expected: String,
        /// What is there now.
        found: String,
    },
    /// Something else is kept under the keys of this store, or in another way.
    #[error(
        "{address} keeps `{found}` under `{base}`, and this program would keep `{wanted}` there: give each service a server or a name of \
         its own, or use the program that wrote it"
    )]
    AnotherKind {
        /// The server.
        address: String,
        /// What the keys begin with.
        base: String,
        /// What is kept there.
        found: String,
        /// What should be.
        wanted: &'static str,
    },
    /// The operating system refused a thread.
    #[error("cannot start a thread: {0}")]
    Thread(String),
}
