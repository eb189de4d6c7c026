//! One connection to a server that has said who it is.

use std::time::Duration;

use redis::io::tcp::TcpSettings;
use redis::{Connection, ConnectionAddr, IntoConnectionInfo, RedisConnectionInfo, Value};

use crate::error::OpenError;
use crate::options::{Credentials, Durability, Options, host_and_port};
use crate::script::{Script, Words};

/// A connection to a server: one that [opened](Link::open) is a master that gives what was asked for.
pub(crate) struct Link {
    connection: Connection,
    pub(crate) address: String,
    /// The server process: another after a restart.
    pub(crate) run_id: String,
    /// How many replicas were in touch when the connection was made.
    pub(crate) replicas: u32,
}

/// What a store says of itself.
pub(crate) struct Identity {
    /// The name that it was given when it was opened first; `None` if it never was.
    pub(crate) identity: Option<String>,
    /// What is kept in it.
    pub(crate) kind: Option<String>,
}

/// Why a connection is of no use any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Broken(pub(crate) String);

/// Connects, without a question asked.
pub(crate) fn connect(address: &str, credentials: &Credentials, patience: Duration) -> Result<Connection, OpenError> {
    let unreachable =
        |error: redis::RedisError| OpenError::Unreachable { address: address.to_owned(), why: error.to_string() };
    let (host, port) = host_and_port(address)?;
    let mut who = RedisConnectionInfo::default();
    if let Some(username) = &credentials.username {
        who = who.set_username(username);
    }
    if let Some(password) = &credentials.password {
        who = who.set_password(password);
    }
    // A batch is one write, but a large one leaves in several segments: none of them may wait for an acknowledgement.
    let settings = TcpSettings::default().set_nodelay(true);
    let info = ConnectionAddr::Tcp(host, port).into_connection_info().map_err(unreachable)?;
    let info = info.set_redis_settings(who).set_tcp_settings(settings);
    let client = redis::Client::open(info).map_err(unreachable)?;
    let connection = client.get_connection_with_timeout(patience).map_err(unreachable)?;
    connection.set_read_timeout(Some(patience)).map_err(unreachable)?;
    connection.set_write_timeout(Some(patience)).map_err(unreachable)?;
    Ok(connection)
}

impl Link {
    /// Connects to `address` and asks the server who it is and what it does with what it is told. Whatever comes later is sent to this
    /// process and no other: when it ends, so does the connection.
    pub(crate) fn open(address: &str, options: &Options) -> Result<Self, OpenError> {
        let mut link = Self::introduce(address, options)?;
        if let Some(shortcoming) = link.shortcomings(options)?.into_iter().next() {
            return Err(shortcoming);
        }
        // The answer to a batch comes once its replicas have it.
        let patience = options.wait + options.patience;
        let unreachable =
            |error: redis::RedisError| OpenError::Unreachable { address: address.to_owned(), why: error.to_string() };
        link.connection.set_read_timeout(Some(patience)).map_err(unreachable)?;
        Ok(link)
    }

    /// Connects and asks the server who it is, whatever it may be good for.
    pub(crate) fn introduce(address: &str, options: &Options) -> Result<Self, OpenError> {
        let connection = connect(address, &options.credentials, options.patience)?;
        let mut link = Self { connection, address: address.to_owned(), run_id: String::new(), replicas: 0 };
        let server = link.info("server")?;
        link.run_id = field(&server, "run_id").unwrap_or_default().to_owned();
        // Until then it refuses commands that it knows.
        if field(&link.info("persistence")?, "loading") == Some("1") {
            return Err(OpenError::Loading { address: link.address });
        }
        let replication = link.info("replication")?;
        let in_touch = |line: &&str| line.starts_with("slave") && line.contains("state=online");
        link.replicas = u32::try_from(replication.lines().filter(in_touch).count()).unwrap_or(u32::MAX);
        Ok(link)
    }

    /// Everything for which the server is not good enough, the worst first.
    ///
    /// # Errors
    /// If it does not say.
    pub(crate) fn shortcomings(&mut self, options: &Options) -> Result<Vec<OpenError>, OpenError> {
        let address = self.address.clone();
        let mut found = Vec::from_iter(self.check_role()?);
        if field(&self.info("server")?, "redis_mode") == Some("cluster") {
            found.push(OpenError::Cluster { address: address.clone() });
        }
        found.extend(self.losses(options)?);
        if matches!(options.durability, Durability::Replicated { .. }) {
            match self.ask(Words::new().word("WAIT").word("0").word("1"))? {
                Value::Int(_) => {}
                other => found.push(OpenError::NoWait { address, said: shown(&other) }),
            }
        }
        Ok(found)
    }

    /// How the server would lose what it is told, whether it is a master or may become one.
    ///
    /// # Errors
    /// If it does not say.
    pub(crate) fn losses(&mut self, options: &Options) -> Result<Vec<OpenError>, OpenError> {
        let mut found = Vec::new();
        let address = self.address.clone();
        let policy = self.setting("maxmemory-policy")?;
        if policy.starts_with("allkeys") && self.setting("maxmemory")? != "0" {
            found.push(OpenError::Evicts { address: address.clone(), policy });
        }
        if options.durability != Durability::Memory {
            // The last one holds even `always` off, for as long as the file is rewritten.
            let settings = [("appendonly", "yes"), ("appendfsync", "always"), ("no-appendfsync-on-rewrite", "no")];
            for (setting, wanted) in settings {
                let is = self.setting(setting)?;
                if is != wanted {
                    found.push(OpenError::NotDurable { address: address.clone(), setting, found: is, wanted });
                }
            }
        }
        Ok(found)
    }

    /// How many replicas acknowledge within `wait` whatever they were sent before, up to as many as were in touch; `None` if the server may
    /// not be asked. What is published goes to them, and is kept nowhere.
    ///
    /// # Errors
    /// If it does not say.
    pub(crate) fn acknowledged(&mut self, wait: Duration, patience: Duration) -> Result<Option<u32>, OpenError> {
        let unreachable = |address: &str, why: String| OpenError::Unreachable { address: address.to_owned(), why };
        let longer = self.connection.set_read_timeout(Some(wait + patience));
        longer.map_err(|error| unreachable(&self.address, error.to_string()))?;
        if let Value::ServerError(_) = self.ask(Words::new().word("PUBLISH").word("settle:doctor").word(""))? {
            return Ok(None);
        }
        let (replicas, wait) = (i64::from(self.replicas), i64::try_from(wait.as_millis()).unwrap_or(i64::MAX));
        match self.ask(Words::new().word("WAIT").number(replicas).number(wait))? {
            Value::Int(count) => Ok(Some(u32::try_from(count).unwrap_or(0))),
            _ => Ok(None),
        }
    }

    fn check_role(&mut self) -> Result<Option<OpenError>, OpenError> {
        let answer = self.ask(Words::new().word("ROLE"))?;
        let role = match &answer {
            Value::Array(parts) => parts.first().map(shown).unwrap_or_default(),
            other => return Err(self.silent("ROLE", other)),
        };
        Ok((role != "master").then(|| OpenError::NotMaster { address: self.address.clone(), role }))
    }

    pub(crate) fn info(&mut self, section: &'static str) -> Result<String, OpenError> {
        match self.ask(Words::new().word("INFO").word(section))? {
            text @ (Value::BulkString(_) | Value::VerbatimString { .. } | Value::SimpleString(_)) => Ok(shown(&text)),
            other => Err(self.silent("INFO", &other)),
        }
    }

    pub(crate) fn setting(&mut self, name: &'static str) -> Result<String, OpenError> {
        let answer = self.ask(Words::new().word("CONFIG").word("GET").word(name))?;
        match &answer {
            Value::Array(parts) if parts.len() == 2 => Ok(shown(&parts[1])),
            Value::Map(pairs) if pairs.len() == 1 => Ok(shown(&pairs[0].1)),
            other => Err(self.silent("CONFIG GET", other)),
        }
    }

    pub(crate) fn silent(&self, question: &'static str, said: &Value) -> OpenError {
        OpenError::Silent { address: self.address.clone(), question, said: shown(said) }
    }

    /// Sends one command and returns its answer, which may be an error that the server told.
    pub(crate) fn ask(&mut self, words: &Words) -> Result<Value, OpenError> {
        let mut bytes = Vec::new();
        words.write(&mut bytes);
        let answer = self.send(&bytes).and_then(|()| self.receive());
        answer.map_err(|Broken(why)| OpenError::Unreachable { address: self.address.clone(), why })
    }

    /// Gives the server scripts to keep.
    pub(crate) fn load_all(&mut self, scripts: &[&Script]) -> Result<(), OpenError> {
        scripts.iter().try_for_each(|script| self.load(script))
    }

    fn load(&mut self, script: &Script) -> Result<(), OpenError> {
        match self.ask(Words::new().word("SCRIPT").word("LOAD").word(&script.text))? {
            Value::BulkString(hash) if hash == script.hash.as_bytes() => Ok(()),
            other => Err(self.silent("SCRIPT LOAD", &other)),
        }
    }

    /// Writes bytes. After an error some of them may have arrived.
    pub(crate) fn send(&mut self, bytes: &[u8]) -> Result<(), Broken> {
        self.connection.send_packed_command(bytes).map_err(|error| Broken(error.to_string()))
    }

    /// Reads one answer; an error that the server told is an answer too.
    pub(crate) fn receive(&mut self) -> Result<Value, Broken> {
        loop {
            match self.connection.recv_response() {
                Ok(Value::Push { .. }) => {}
                Ok(value) => return Ok(value),
                Err(error) => return Err(Broken(error.to_string())),
            }
        }
    }

    /// What the store says of itself.
    pub(crate) fn identity(&mut self, base: &str) -> Result<Identity, OpenError> {
        let question = "HMGET";
        match self.ask(Words::new().word(question).word(&format!("{base}meta")).word("identity").word("kind"))? {
            Value::Array(parts) if parts.len() == 2 => {
                let text = |part: &Value| (*part != Value::Nil).then(|| shown(part));
                Ok(Identity { identity: text(&parts[0]), kind: text(&parts[1]) })
            }
            other => Err(self.silent(question, &other)),
        }
    }
}

pub(crate) fn field<'a>(info: &'a str, name: &str) -> Option<&'a str> {
    info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
}

/// A value as people read it.
pub(crate) fn shown(value: &Value) -> String {
    match value {
        Value::BulkString(text) => String::from_utf8_lossy(text).into_owned(),
        Value::SimpleString(text) | Value::VerbatimString { text, .. } => text.clone(),
        Value::Int(number) => number.to_string(),
        Value::Okay => "OK".to_owned(),
        Value::ServerError(error) => format!("{} {}", error.code(), error.details().unwrap_or_default()),
        other => format!("{other:?}"),
    }
}
