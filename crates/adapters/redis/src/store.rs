//! A store of scripts: what is kept on the server, and what the scripts do with it, is the business of whoever opens it.

use std::fmt;
use std::sync::{Arc, LazyLock};

use orchestrator::{Done, StoreFailure};
use parking_lot::Mutex;
use protocol::{Name, Timestamp};
use redis::Value;

use crate::answers::{Unreadable, only, text, wants_more, words};
use crate::error::OpenError;
use crate::options::Options;
use crate::queue::{Answers, Job, Shared};
use crate::script::{Script, Words, call};
use crate::statistics::Statistics;
use crate::writer::{Names, Writer};

/// What the server's clock says, in milliseconds.
static CLOCK: LazyLock<Script> = LazyLock::new(|| {
    Script::new(&["local t = redis.call('TIME') return string.format('%.0f', t[1] * 1000 + math.floor(t[2] / 1000))"])
});

/// Notes a word under a name, once; and says what stands there.
static NOTE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(&[
        "if ARGV[2] then redis.call('HSETNX', KEYS[1], ARGV[1], ARGV[2]) end return redis.call('HGET', KEYS[1], ARGV[1])",
    ])
});

/// A store whose commands are scripts, over one connection. A clone is another handle to the same connection; any number of processes may
/// have the same store open.
///
/// What is submitted by one caller is applied in the order of its calls, each call at most once. **Callbacks** run on the store's own thread, or on the
/// calling one before the call returns. Every batch waits while one runs: hand the answer on and return.
#[derive(Clone)]
pub struct ScriptStore {
    writer: Arc<Writer>,
    base: Arc<str>,
}

impl fmt::Debug for ScriptStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScriptStore").field("base", &self.base).finish_non_exhaustive()
    }
}

impl ScriptStore {
    /// Opens the store of `service`: connects, asks the server whether it gives what `options` ask for, and gives it the scripts. An empty
    /// server holds an empty store. `kind` says what is kept, and the version of how: whoever says otherwise is refused.
    ///
    /// # Errors
    /// [`OpenError`]: an option is out of bounds, nobody answers, the server cannot give what was asked for, or keeps something else.
    pub fn open(
        service: Name,
        kind: &'static str,
        scripts: Vec<&'static Script>,
        options: &Options,
    ) -> Result<Self, OpenError> {
        // One partition: what one script touches must be on one node, and a partition is what a node has.
        let base: Arc<str> = format!("{{settle:{service}:0}}:").into();
        let scripts = scripts.into_iter().chain([&*CLOCK, &*NOTE]).collect();
        let writer = Writer::open(&Names { service, kind, base: Arc::clone(&base) }, scripts, options)?;
        Ok(Self { writer: Arc::new(writer), base })
    }

    /// A call of `script`, to which its arguments are to be added.
    pub fn call(&self, script: &Script) -> Words {
        call(script, &self.base)
    }

    /// Has calls carried out, in their order; others' scripts may run between them. `done` gets the answer to each of them.
    pub fn submit(&self, calls: Vec<Words>, done: Done<Answers>) {
        self.shared().submit(Job::new(calls, done));
    }

    /// The same; and `readable` is called before `done`, or never, with what the server answered and may not be durable yet. Never if a
    /// failover could take back what such an answer rests on.
    pub fn submit_readable(&self, calls: Vec<Words>, readable: Done<Vec<Value>>, done: Done<Answers>) {
        self.shared().submit(Job { readable: Some(readable), ..Job::new(calls, done) });
    }

    /// Has calls carried out with which something goes on that was just answered: there is room for them however many wait.
    pub fn go_on(&self, calls: Vec<Words>, done: Done<Answers>) {
        self.shared().go_on(Job::new(calls, done));
    }

    /// Carries a command out: makes its `calls`, again as long as one of them answers that there is more to do, and reads the last answers as
    /// the `reply`. A command without calls is done, and its reply read from nothing.
    pub fn carry_out<R: Send + 'static>(
        &self,
        calls: impl Fn() -> Result<Vec<Words>, StoreFailure> + Send + 'static,
        reply: impl FnOnce(&[Value]) -> Result<R, Unreadable> + Send + 'static,
        done: Done<Result<R, StoreFailure>>,
    ) {
        carry_out(Arc::clone(self.shared()), calls, reply, done, Shared::submit);
    }

    /// Asks. A question changes nothing: one that got no answer was not done.
    pub fn ask<R: Send + 'static>(
        &self,
        calls: Vec<Words>,
        read: impl FnOnce(Vec<Value>) -> Result<R, Unreadable> + Send + 'static,
        done: Done<Result<R, StoreFailure>>,
    ) {
        self.submit(calls, Box::new(answering(read, done)));
    }

    /// The same as [`ask`](Self::ask), for a look that something durable follows: what it is told may not be durable yet.
    pub fn peek<R: Send + 'static>(
        &self,
        calls: Vec<Words>,
        read: impl FnOnce(Vec<Value>) -> Result<R, Unreadable> + Send + 'static,
        done: Done<Result<R, StoreFailure>>,
    ) {
        // Whoever comes first takes it.
        let waiting = Arc::new(Mutex::new(Some(answering(read, done))));
        let early = Arc::clone(&waiting);
        let readable = move |values: Vec<Value>| {
            let waiting = early.lock().take();
            if let Some(done) = waiting {
                done(Ok(values));
            }
        };
        let durable = move |answer: Answers| {
            let waiting = waiting.lock().take();
            if let Some(done) = waiting {
                done(answer);
            }
        };
        let job = Job { readable: Some(Box::new(readable)), peeks: true, ..Job::new(calls, Box::new(durable)) };
        self.shared().submit(job);
    }

    /// The time by the server's clock, which is the same for all processes that have the store open.
    pub fn time(&self, done: Done<Result<Timestamp, StoreFailure>>) {
        let read = |values: Vec<Value>| match words(only(&values)?)?.as_slice() {
            [Some(now)] => now.parse().map(Timestamp).map_err(|_| Unreadable(format!("no time: {now}"))),
            other => Err(Unreadable(format!("no time: {other:?}"))),
        };
        self.ask(vec![self.call(&CLOCK)], read, done);
    }

    /// What tells this store from every other: it is given to a new one, and lost with what a store keeps.
    pub fn identity(&self) -> &str {
        &self.writer.identity
    }

    /// Has a `word` noted under a name for good, unless one is; `done` gets the one that stands, when that is durable.
    pub fn note_once(&self, name: &str, word: &str, done: Done<Result<String, StoreFailure>>) {
        let mut call = self.call(&NOTE);
        call.word(name).word(word);
        let noted = |values: &[Value]| {
            let stands = text(only(values)?)?.ok_or_else(|| Unreadable("what was noted is gone".to_owned()))?;
            Ok(stands.to_owned())
        };
        self.carry_out(move || Ok(vec![call.clone()]), noted, done);
    }

    /// What was noted under a name, if anything was.
    pub fn noted(&self, name: &str, done: Done<Result<Option<String>, StoreFailure>>) {
        let mut call = self.call(&NOTE);
        call.word(name);
        self.ask(vec![call], |values| Ok(text(only(&values)?)?.map(str::to_owned)), done);
    }

    /// Sends what waits, ends the thread, and answers whatever comes later with a failure.
    pub fn close(&self) {
        self.writer.close();
    }

    /// The number of the connection that was made last: a callback that is called with the server's answer finds that over which the answer came. A
    /// connection leads to one run of one master, so what was seen over it stays true there: nothing is lost between two of its commands, as may be between
    /// two connections what nobody was told is durable. (Save where a server without Sentinels is made a replica, and a master again, by hand, between two
    /// commands.) Scripts that take many commands are told it, too.
    pub fn connection(&self) -> u64 {
        self.shared().connection()
    }

    /// What the store has done since it was opened.
    pub fn statistics(&self) -> Statistics {
        self.shared().statistics()
    }

    /// Why there is no connection to a master that can be used, if the last attempt to make one failed.
    pub fn trouble(&self) -> Option<String> {
        self.shared().trouble()
    }

    /// Why the store will never answer again, if that is so: the server lost its data.
    pub fn stopped(&self) -> Option<String> {
        self.shared().stopped()
    }

    pub(crate) fn base(&self) -> &Arc<str> {
        &self.base
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.writer.shared
    }
}

/// What a failure means to somebody who only asked.
pub fn not_done(failure: StoreFailure) -> StoreFailure {
    match failure {
        StoreFailure::Unknown(why) | StoreFailure::NotDone(why) => StoreFailure::NotDone(why),
    }
}

/// Reads the answers to a question for whoever asked it.
fn answering<R>(
    read: impl FnOnce(Vec<Value>) -> Result<R, Unreadable>,
    done: Done<Result<R, StoreFailure>>,
) -> impl FnOnce(Answers) {
    move |answer| {
        let values = answer.map_err(not_done);
        done(values.and_then(|values| read(values).map_err(|Unreadable(why)| StoreFailure::NotDone(why))));
    }
}

fn carry_out<R: Send + 'static>(
    shared: Arc<Shared>,
    calls: impl Fn() -> Result<Vec<Words>, StoreFailure> + Send + 'static,
    reply: impl FnOnce(&[Value]) -> Result<R, Unreadable> + Send + 'static,
    done: Done<Result<R, StoreFailure>>,
    send: fn(&Shared, Job),
) {
    // It was carried out, and this program cannot tell how.
    let unreadable = |Unreadable(why)| StoreFailure::Unknown(why);
    let made = match calls() {
        Ok(made) if made.is_empty() => return done(reply(&[]).map_err(unreadable)),
        Ok(made) => made,
        Err(failure) => return done(Err(failure)),
    };
    let rest = Arc::clone(&shared);
    let answered = move |answer: Answers| match answer {
        Ok(values) if values.iter().any(wants_more) => carry_out(rest, calls, reply, done, Shared::go_on),
        Ok(values) => done(reply(&values).map_err(unreadable)),
        Err(failure) => done(Err(failure)),
    };
    send(&shared, Job::new(made, Box::new(answered)));
}
