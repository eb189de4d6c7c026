//! Where the store is, and how much may be lost.

use std::fmt;
use std::time::Duration;

use protocol::limits::{MAX_SENTINELS, MAX_STORE_BATCH};

use crate::error::OpenError;

/// Where the server is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// One server, which stays the master whatever happens.
    Standalone {
        /// `host:port`.
        address: String,
    },
    /// The master that Sentinels name.
    Sentinel {
        /// `host:port` of each Sentinel: all of them, 1 to [`MAX_SENTINELS`].
        sentinels: Vec<String>,
        /// The name they know the master by.
        master: String,
    },
}

/// What an answer rests on. Each level includes those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Durability {
    /// The master has it in memory. For tests and comparisons.
    Memory,
    /// The master has flushed it to its append-only file.
    #[default]
    Fsync,
    /// And so many replicas have it.
    Replicated {
        /// How many replicas must have acknowledged: at least 1.
        replicas: u32,
    },
}

/// What a failover may cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Failover {
    /// Nothing that was acknowledged: every replica that Sentinel knows has it before it is.
    #[default]
    LosesNothing,
    /// The writes acknowledged last. A checkout that was answered "paid" may then find its charge gone, and is repaired with an alarm
    /// at best.
    MayLoseAcknowledgedWrites,
}

/// Who Settle is to the servers. Sentinels are asked without credentials.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Credentials {
    /// The user, if it is not the default one.
    pub username: Option<String>,
    /// The password, if one is needed.
    pub password: Option<String>,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let password = self.password.as_ref().map(|_| "hidden");
        f.debug_struct("Credentials").field("username", &self.username).field("password", &password).finish()
    }
}

/// How a store is reached and kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Where it is.
    pub place: Place,
    /// Who Settle is there.
    pub credentials: Credentials,
    /// What an answer rests on; [`Durability::Fsync`] unless told.
    pub durability: Durability,
    /// What a failover may cost; nothing unless told.
    pub failover: Failover,
    /// How long replicas may take to acknowledge a batch before it is unknown: 10 ms to 60 s; 1 s unless told.
    pub wait: Duration,
    /// How long a connection, or an answer beyond `wait`, may take: 10 ms to 60 s; 1 s unless told.
    pub patience: Duration,
    /// Scripts sent at once: 1 to [`MAX_STORE_BATCH`], which it is unless told.
    pub batch: usize,
}

impl Options {
    /// The defaults, for a server in one place.
    pub fn new(place: Place) -> Self {
        Self {
            place,
            credentials: Credentials::default(),
            durability: Durability::default(),
            failover: Failover::default(),
            wait: Duration::from_secs(1),
            patience: Duration::from_secs(1),
            batch: MAX_STORE_BATCH,
        }
    }

    /// Whether a decision may be told of as soon as the master has applied it, before its replicas have it.
    ///
    /// What such an answer rests on is durable already (the stage and every vote), and must not be lost: so not where a failover may
    /// promote a replica that lacks it. Below `Replicated` the answer comes when it is durable anyway.
    pub(crate) fn tells_early(&self) -> bool {
        let followed = matches!(self.place, Place::Standalone { .. }) || self.failover == Failover::LosesNothing;
        followed && matches!(self.durability, Durability::Replicated { .. })
    }

    pub(crate) fn check(&self) -> Result<(), OpenError> {
        let wrong = |option, why: String| Err(OpenError::Option { option, why });
        let times = Duration::from_millis(10)..=Duration::from_secs(60);
        for (option, time) in [("wait", self.wait), ("patience", self.patience)] {
            if !times.contains(&time) {
                return wrong(option, format!("must be 10 ms to 60 s, is {time:?}"));
            }
        }
        if !(1..=MAX_STORE_BATCH).contains(&self.batch) {
            return wrong("batch", format!("must be 1 to {MAX_STORE_BATCH}, is {}", self.batch));
        }
        if self.durability == (Durability::Replicated { replicas: 0 }) {
            return wrong("replicas", "must be at least 1; to have none, ask for `fsync`".to_owned());
        }
        match &self.place {
            Place::Standalone { address } => _ = host_and_port(address)?,
            Place::Sentinel { sentinels, master } => {
                if !(1..=MAX_SENTINELS).contains(&sentinels.len()) || master.is_empty() {
                    let why = format!("needs the master's name and 1 to {MAX_SENTINELS} addresses");
                    return wrong("sentinels", why);
                }
                for address in sentinels {
                    host_and_port(address)?;
                }
                if self.failover == Failover::LosesNothing && !matches!(self.durability, Durability::Replicated { .. })
                {
                    return Err(OpenError::MayLose {
                        why: "replicas are told of a write after it is acknowledged".to_owned(),
                        remedy: "Ask for durability `replicated`".to_owned(),
                    });
                }
            }
        }
        Ok(())
    }
}

/// Parts `host:port`.
pub(crate) fn host_and_port(address: &str) -> Result<(String, u16), OpenError> {
    let parted = address.rsplit_once(':').and_then(|(host, port)| Some((host, port.parse::<u16>().ok()?)));
    match parted {
        Some((host, port)) if !host.is_empty() => Ok((host.trim_matches(['[', ']']).to_owned(), port)),
        _ => Err(OpenError::Option { option: "address", why: format!("`{address}` is not host:port") }),
    }
}
