//! A look at a service's database for people who want to know why it does not do what it should, or will not one day.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use protocol::Name;
use redis::Value;

use crate::error::OpenError;
use crate::link::{Link, field, shown};
use crate::options::{Durability, Options, Place};
use crate::script::Words;
use crate::sentinel::{Compass, word};

/// Fewer Sentinels cannot lose one and agree.
const SENTINELS: u32 = 3;
/// A master that is silent for longer than this holds every checkout up.
const LONG_DEATH: u64 = 5_000;

/// What was found.
#[derive(Debug, Default)]
pub struct Examined {
    /// What is as it is, each in a line.
    pub facts: Vec<String>,
    /// Why a store would not open, or not be written to.
    pub problems: Vec<String>,
    /// What works now and will not when something fails.
    pub warnings: Vec<String>,
    /// By how much the server's clock is ahead of this machine's, in milliseconds; negative: behind.
    pub ahead: Option<i64>,
    /// The server's folder, if it runs on this machine and says so.
    pub folder: Option<String>,
}

/// Looks at a database. Changes nothing.
pub fn examine(options: &Options) -> Examined {
    let mut examined = Examined::default();
    if let Err(error) = options.check() {
        examined.problems.push(error.to_string());
        return examined;
    }
    let known = match &options.place {
        Place::Sentinel { sentinels, master } => examined.sentinels(sentinels, master, options.patience),
        Place::Standalone { .. } => Vec::new(),
    };
    let looked = Compass::new(options).and_then(|compass| {
        let seat = compass.seat()?;
        if let Err(error) = compass.check_failover(options) {
            examined.problems.push(error.to_string());
        }
        let mut master = Link::introduce(&seat.address, options)?;
        examined.server(&mut master, options)?;
        examined.replicas(&mut master, known, options)
    });
    if let Err(error) = looked {
        examined.problems.push(error.to_string());
    }
    examined
}

/// What the store of a service says of itself, by field: its identity, its kind, and what its service has noted. Nothing, if it is new. Changes nothing.
///
/// # Errors
/// If it cannot be reached, or is no such store.
pub fn meta(service: Name, options: &Options) -> Result<BTreeMap<String, String>, OpenError> {
    let seat = Compass::new(options)?.seat()?;
    let mut master = Link::introduce(&seat.address, options)?;
    let question = "HGETALL";
    match master.ask(Words::new().word(question).word(&format!("{{settle:{service}:0}}:meta")))? {
        Value::Array(parts) => Ok(parts.chunks_exact(2).map(|pair| (shown(&pair[0]), shown(&pair[1]))).collect()),
        Value::Map(pairs) => Ok(pairs.iter().map(|(field, value)| (shown(field), shown(value))).collect()),
        other => Err(master.silent(question, &other)),
    }
}

impl Examined {
    /// Looks at the Sentinels, and says which replicas they know.
    fn sentinels(&mut self, sentinels: &[String], master: &str, patience: Duration) -> Vec<String> {
        let (mut known, mut replicas) = (0, Vec::new());
        for address in sentinels {
            match word(address, master, patience) {
                Ok(word) => {
                    known = known.max(word.sentinels);
                    replicas.extend(word.replicas);
                    if word.quorum > word.sentinels / 2 + 1 || word.quorum < 2 {
                        let (quorum, of) = (word.quorum, word.sentinels);
                        self.warnings.push(format!(
                            "Sentinel {address} calls `{master}` dead once {quorum} of {of} agree: set the quorum in `sentinel monitor` to a \
                             majority, {}",
                            of / 2 + 1
                        ));
                    }
                    if word.down_after > LONG_DEATH {
                        self.warnings.push(format!(
                            "Sentinel {address} waits {} ms before it calls `{master}` dead, and checkouts wait as long: set `sentinel \
                             down-after-milliseconds {master} 2000`",
                            word.down_after
                        ));
                    }
                }
                Err(why) => self.warnings.push(format!(
                    "Sentinel {address} does not answer for `{master}`: {why}. Start it, or take it off the list"
                )),
            }
        }
        if known > 0 && known < SENTINELS {
            self.warnings.push(format!(
                "{known} Sentinels watch `{master}`: with fewer than {SENTINELS}, the loss of one leaves none to agree with. Start more"
            ));
        }
        replicas
    }

    fn server(&mut self, link: &mut Link, options: &Options) -> Result<(), OpenError> {
        self.problems.extend(link.shortcomings(options)?.iter().map(ToString::to_string));
        if let Durability::Replicated { replicas: wanted } = options.durability
            && link.replicas < wanted
        {
            let (address, found) = (link.address.clone(), link.replicas);
            self.problems.push(OpenError::TooFewReplicas { address, wanted, found }.to_string());
        }
        let server = link.info("server")?;
        let version = field(&server, "redis_version").unwrap_or("unknown").to_owned();
        self.facts.push(format!("{} runs version {version}, with {} replicas in touch", link.address, link.replicas));
        let persistence = link.info("persistence")?;
        if field(&persistence, "aof_last_write_status").is_some_and(|status| status != "ok") {
            self.problems
                .push(format!("{} could not write its append-only file: look at its disk and its log", link.address));
        }
        let memory = link.info("memory")?;
        let number = |name: &str| field(&memory, name).and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
        let (used, most) = (number("used_memory"), number("maxmemory"));
        if most > 0 && used / 9 >= most / 10 {
            self.problems.push(format!(
                "{} uses {used} of the {most} bytes that `maxmemory` allows; at the end of them writes are refused: raise it",
                link.address
            ));
        }
        let clients = link.info("clients")?;
        let number = |name: &str| field(&clients, name).and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
        let (here, most) = (number("connected_clients"), number("maxclients"));
        if most > 0 && here.saturating_mul(10) >= most.saturating_mul(9) {
            self.warnings.push(format!(
                "{} has {here} of the {most} connections that `maxclients` allows; beyond them services are turned away: raise it",
                link.address
            ));
        }
        // Nobody has a script by this name: whoever may run some is told so.
        let script = "0".repeat(40);
        if let Value::ServerError(error) = link.ask(Words::new().word("EVALSHA").word(&script).word("0"))?
            && error.code() != "NOSCRIPT"
        {
            self.problems.push(format!(
                "{} lets nobody run scripts under these credentials, and everything that is written is written by one: {error}. Allow the user \
                 `+@scripting`",
                link.address
            ));
        }
        if is_here(&link.address) {
            self.folder = match link.ask(Words::new().word("CONFIG").word("GET").word("dir"))? {
                Value::Array(parts) => parts.get(1).map(shown),
                Value::Map(pairs) => pairs.first().map(|(_, folder)| shown(folder)),
                // It may be renamed, or forbidden.
                _ => None,
            };
        }
        if let Value::Array(parts) = link.ask(Words::new().word("TIME"))?
            && let [seconds, micros] = &*parts
            && let (Ok(seconds), Ok(micros)) = (shown(seconds).parse::<i64>(), shown(micros).parse::<i64>())
        {
            let here = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
            self.ahead = Some(seconds * 1000 + micros / 1000 - i64::try_from(here).unwrap_or(i64::MAX));
        }
        Ok(())
    }
}

/// Whether `HOST:PORT` is on this machine.
fn is_here(address: &str) -> bool {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host).trim_matches(['[', ']']);
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|host| host.is_loopback())
}
