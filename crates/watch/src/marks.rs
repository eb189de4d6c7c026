//! What happened, found by comparing one snapshot with the one before it.
//!
//! | what changed                             | the mark                     |
//! |------------------------------------------|------------------------------|
//! | an instance that was up is down          | `order-1 is down`; how it ended, if that is known: `order-1 was killed (SIGKILL)` |
//! | … is frozen, draining                    | `order-1 is frozen`          |
//! | one that was not is up                   | `order-1 is back`            |
//! | its process is another one, or a young one at the first look | `order-1 started`, at the time that it tells |
//! | recovery took transactions up            | `order-1 took up 149 transactions that were left unfinished` |
//! | another instance leads                   | `order-2 leads`              |
//! | a replica is master                      | `redis-stock-2 is master`    |
//! | how often the protocol of a definition changed | `checkout: 2pc → saga`; `checkout: the protocol changed 3 times, now saga` |
//! | how often a breaker opened               | `the breaker of stock opened`, `… closed`; `stock: breaker opened 3 times, now closed` |
//! | transactions are stuck                   | `40 transactions became stuck: payment does not acknowledge`; `nothing is stuck any more; 40 transactions were` |
//! | faults that are set                      | `faults set: payment before prepare`, `faults cleared: …` |
//! | how often faults struck                  | `a fault struck: payment before prepare: fails`; `a fault struck 20 times: …` |
//! | what the audit found                     | `the audit found 1 thing that is off`, `… nothing is off any more` |
//! | somebody left a [note](crate::notes)     | its words: `settle chaos, 3 of 13: freeze the shop` |
//! | whoever watched before came to its end   | `settle serve was killed, or crashed`, `… was told to stop`, `… ended by an injected fault: stock after prepare` |
//! | whoever watches looked at nothing for long | `settle serve stood still for about 5 s` |
//!
//! What happens again and again is one mark, which moves on: a breaker that flaps pushes nothing else out. But two stories are two marks, each with its
//! own begin:
//!
//! | of                | a mark ends                                                                                            |
//! |-------------------|--------------------------------------------------------------------------------------------------------|
//! | a fault           | when it did not strike for ten seconds, when it is cleared, when a process that it strikes in is started |
//! | a protocol        | when it did not change for a minute, whoever is started meanwhile: under faults it goes there and back |
//! | recovery          | when it took nothing up for ten seconds, when its process is started                                   |
//! | what is stuck     | when nothing is                                                                                        |
//! | a breaker         | never: it opens and closes for as long as its service is away, whoever is started meanwhile            |
//!
//! An instance that was never seen up is not "back" when it comes up, and whoever leads at first is no news.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use serde::{Deserialize, Serialize};

use crate::limits::{DEAD_LETTER_AGE_MS, MARK_AGE_MS, MAX_MARKS, PROTOCOL_STORY_MS, SAME_STORY_MS};
use crate::snapshot::{Definition, Fault, Instance, Kind, Mark, Snapshot, State};
use crate::words::{digits, do_not, number, stuck};

/// What was told, and what it takes to go on telling from there.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Told {
    /// The oldest first.
    pub(crate) marks: VecDeque<Mark>,
    /// By topic: how often what may happen again and again did, since its mark that moves on began.
    times: BTreeMap<String, u64>,
    /// By topic: when that mark began. Marks of the topic that are older are other stories.
    #[serde(default)]
    began: BTreeMap<String, u64>,
}

impl Told {
    /// Keeps these alone, and no more than there may be.
    pub(crate) fn keep(&mut self, these: impl Fn(&Mark) -> bool) {
        self.marks.retain(these);
        let surplus = self.marks.len().saturating_sub(MAX_MARKS);
        self.marks.drain(..surplus);
        let is_told = |topic: &String| self.marks.iter().any(|mark| mark.topic.as_ref() == Some(topic));
        self.times.retain(|topic, _| is_told(topic));
        self.began.retain(|topic, _| is_told(topic));
    }

    /// What happens from now on is another story in these topics.
    fn end(&mut self, topics: impl Fn(&str) -> bool) {
        self.times.retain(|topic, _| !topics(topic));
        self.began.retain(|topic, _| !topics(topic));
    }
}

/// What is told under this is stuck.
const STUCK: &str = "stuck";

/// The marks of the last ten minutes.
#[derive(Debug, Clone, Default)]
pub struct Marks {
    told: Told,
    /// When whoever watched before came to its end; 0 if nobody did.
    ended: u64,
    /// Instances that were seen up.
    seen_up: BTreeSet<String>,
    /// When the process of each instance began, as far as it was told.
    started: BTreeMap<String, u64>,
    /// Who led last; it may be nobody for a moment.
    leader: Option<String>,
    /// The most that were stuck since some are.
    most_stuck: u64,
    /// When a branch of each service became a dead letter last, as long as no word of what is stuck has named it.
    unacknowledged: BTreeMap<String, u64>,
    /// The services that the word of what is stuck has named.
    unacknowledging: BTreeSet<String>,
}

impl Marks {
    /// Goes on from what was told before, by one whose end was at this time, and is told in these words.
    pub(crate) fn resume(&mut self, told: Told, ended: u64, words: String) {
        (self.told, self.ended) = (told, ended);
        self.told.marks.push_back(Mark::new(ended, words));
    }

    /// Tells something that no snapshot shows.
    pub(crate) fn tell(&mut self, at: u64, what: String) {
        self.told.marks.push_back(Mark::new(at, what));
    }

    /// Tells what somebody said, if it was not told before: whoever starts reads all notes.
    pub(crate) fn note(&mut self, at: u64, what: String) {
        let marks = &mut self.told.marks;
        if !marks.iter().any(|mark| mark.at == at && mark.what == what) {
            marks.insert(marks.partition_point(|mark| mark.at <= at), Mark::new(at, what));
        }
    }

    /// What was told.
    pub(crate) fn told(&self) -> &Told {
        &self.told
    }

    /// Compares, and gives what is to be shown with `now`.
    pub fn follow(&mut self, before: Option<&Snapshot>, now: &Snapshot) -> Vec<Mark> {
        let at = now.at;
        let mut news = vec![];
        self.starts(now);
        self.recovered(before, now);
        self.set(before, now);
        if let Some(before) = before {
            self.instances(before, now, &mut news);
            self.ends(before, now);
            self.protocols(before, now);
            self.breakers(before, now);
            self.struck(before, now);
            self.dead_letters(before, now);
        }
        self.stuck(before, now, &mut news);
        self.cleared(before, now, &mut news);
        findings(before, now, &mut news);
        let up = now.instances.iter().filter(|it| it.state == State::Up).map(|it| it.name.clone());
        self.seen_up.extend(up);
        // One that is not spoken of any more is not waited for.
        self.seen_up.retain(|name| now.instances.iter().any(|it| it.name == *name));
        if let Some(leader) = &now.leader {
            if self.leader.as_ref().is_some_and(|was| was != leader) {
                news.push(format!("{leader} leads"));
            }
            self.leader = Some(leader.clone());
        }
        self.told.marks.extend(news.into_iter().map(|what| Mark::new(at, what)));
        self.told.keep(|mark| mark.at + MARK_AGE_MS >= at);
        self.told.marks.iter().cloned().collect()
    }

    /// Something that may happen again and again: the first time is told as `once`, further ones in one mark with it.
    fn repeat(&mut self, at: u64, topic: String, happened: u64, once: &[String], often: impl Fn(u64) -> String) {
        let of_topic = |mark: &Mark| mark.topic.as_ref() == Some(&topic);
        let times = self.told.times.entry(topic.clone()).or_default();
        *times += happened;
        let began = *self.told.began.entry(topic.clone()).or_insert_with(|| {
            // Whoever watched before may not have said when.
            let first = self.told.marks.iter().find(|mark| *times > happened && of_topic(mark));
            first.map_or(at, |mark| mark.since)
        });
        let (what, since) = if *times > 1 {
            self.told.marks.retain(|mark| !of_topic(mark) || mark.since < began);
            (vec![often(*times)], began)
        } else {
            (once.to_vec(), at)
        };
        self.told.marks.extend(what.into_iter().map(|what| Mark { at, since, what, topic: Some(topic.clone()) }));
    }

    /// The same, of what is another story if it last happened too long ago.
    fn repeat_soon(&mut self, at: u64, topic: String, happened: u64, once: &[String], often: impl Fn(u64) -> String) {
        self.repeat_within(SAME_STORY_MS, at, topic, happened, once, often);
    }

    /// The same, where so many milliseconds are too long.
    fn repeat_within(
        &mut self,
        story_ms: u64,
        at: u64,
        topic: String,
        happened: u64,
        once: &[String],
        often: impl Fn(u64) -> String,
    ) {
        let last = self.told.marks.iter().rfind(|mark| mark.topic.as_ref() == Some(&topic));
        if last.is_none_or(|last| last.at + story_ms < at) {
            self.told.end(|other| other == topic);
        }
        self.repeat(at, topic, happened, once, often);
    }

    /// What each instance took up. One that is heard for the first time brings what it counted before, which is news if it has just started: a
    /// process takes up what another left behind when it starts.
    fn recovered(&mut self, before: Option<&Snapshot>, now: &Snapshot) {
        for it in &now.instances {
            let was = before.and_then(|before| before.instances.iter().find(|was| was.name == it.name));
            let known = was.filter(|was| was.started.is_some());
            let is_young = it.started.is_some_and(|started| started.saturating_add(MARK_AGE_MS) >= now.at);
            let (at, risen) = match (known, it.started) {
                (Some(was), _) => (now.at, it.recovered.saturating_sub(was.recovered)),
                (None, Some(started)) if is_young => (self.began(it, started, now), it.recovered),
                (None, _) => (now.at, 0),
            };
            if risen > 0 {
                let words = |count| {
                    let (these, were) = (number(count, "transaction"), if count == 1 { "was" } else { "were" });
                    format!("{} took up {these} that {were} left unfinished", it.name)
                };
                self.repeat_soon(at, format!("recovery by {}", it.name), risen, &[words(risen)], words);
                self.told.marks.make_contiguous().sort_by_key(|mark| mark.at);
            }
        }
    }

    /// By how often they changed: what changes there and back between two looks is seen, too.
    fn protocols(&mut self, before: &Snapshot, now: &Snapshot) {
        let coordinates = |it: &&Instance| matches!(it.kind, Kind::Shop | Kind::Order) && it.state == State::Up;
        let coordinators = now.instances.iter().filter(coordinates).count().max(1) as u64;
        for it in &now.definitions {
            let Some(was) = before.definitions.iter().find(|was| was.name == it.name) else { continue };
            // Each instance changes by itself, and what most of them do is told.
            let risen =
                if heard_first(before, now) { 0 } else { it.switches.saturating_sub(was.switches) / coordinators };
            let has_changed = it.protocol != was.protocol;
            let times = risen.max(has_changed.into());
            if has_changed || times > 1 {
                let Definition { name, protocol, .. } = it;
                let once = format!("{name}: {} → {protocol}", was.protocol);
                let often = |times| format!("{name}: the protocol changed {} times, now {protocol}", digits(times));
                self.repeat_within(PROTOCOL_STORY_MS, now.at, format!("protocol of {name}"), times, &[once], often);
            }
        }
    }

    /// By how often they opened: what opens and closes between two looks is seen, too.
    fn breakers(&mut self, before: &Snapshot, now: &Snapshot) {
        for it in &now.breakers {
            let Some(was) = before.breakers.iter().find(|was| was.service == it.service) else { continue };
            let risen = if heard_first(before, now) { 0 } else { it.trips.saturating_sub(was.trips) };
            let opened = risen.max((it.open && !was.open).into());
            let has_closed = !it.open && (was.open || opened > 0);
            if opened > 0 || has_closed {
                let service = &it.service;
                let mut once = vec![];
                once.extend((opened > 0).then(|| format!("the breaker of {service} opened")));
                once.extend(has_closed.then(|| format!("the breaker of {service} closed")));
                let state = if it.open { "open" } else { "closed" };
                let often = |times| format!("{service}: breaker opened {} times, now {state}", digits(times));
                self.repeat(now.at, format!("breaker of {service}"), opened, &once, often);
            }
        }
    }

    /// By how often they did: what is used up between two looks is seen, too.
    fn struck(&mut self, before: &Snapshot, now: &Snapshot) {
        for it in &now.struck {
            let was = before.struck.iter().find(|was| was.fault == it.fault).map_or(0, |was| was.times);
            let times = if heard_first(before, now) { 0 } else { it.times.saturating_sub(was) };
            if times > 0 {
                let words = &it.fault.words;
                let once = format!("a fault struck: {words}");
                let often = |times| format!("a fault struck {} times: {words}", digits(times));
                self.repeat_soon(now.at, struck_topic(&it.fault), times, &[once], often);
            }
        }
    }

    /// A process that is younger than the marks which are kept has its start among them: whoever opens the page behind a restart is told of it.
    fn starts(&mut self, now: &Snapshot) {
        for it in &now.instances {
            let Some(started) = it.started.filter(|started| self.started.get(&it.name) != Some(started)) else {
                continue;
            };
            self.started.insert(it.name.clone(), started);
            self.told.end(|topic| ends_with(it, topic));
            if started.saturating_add(MARK_AGE_MS) >= now.at {
                let started = self.began(it, started, now);
                let place = self.told.marks.partition_point(|mark| mark.at <= started);
                self.told.marks.insert(place, Mark::new(started, format!("{} started", it.name)));
            }
        }
        self.started.retain(|name, _| now.instances.iter().any(|it| it.name == *name));
    }

    /// When the process of an instance began, on the time line of the marks. When the one before it came to its end, is known to a second only.
    fn began(&self, of: &Instance, started: u64, now: &Snapshot) -> u64 {
        started.min(now.at).max(self.ended(&of.name))
    }

    /// When the process of an instance was told to have ended last; 0 if that was not told.
    fn ended(&self, name: &str) -> u64 {
        let topic = Some(end_topic(name));
        self.told.marks.iter().rfind(|mark| mark.topic == topic).map_or(self.ended, |mark| mark.at)
    }

    /// They get stuck one after the other, and are one mark, which moves on.
    fn stuck(&mut self, before: Option<&Snapshot>, now: &Snapshot, news: &mut Vec<String>) {
        // The leader counts them, and one that has just begun to lead may not have.
        let Some(counted) = now.stuck.filter(|_| before.is_none_or(|before| before.leader == now.leader)) else {
            return;
        };
        let risen = counted > self.most_stuck;
        self.most_stuck = self.most_stuck.max(counted);
        let transactions =
            |count| if count == 1 { "1 transaction".to_owned() } else { format!("{} transactions", stuck(count)) };
        match counted {
            0 if self.most_stuck > 0 => {
                let were = if self.most_stuck == 1 { "was" } else { "were" };
                news.push(format!("nothing is stuck any more; {} {were}", transactions(self.most_stuck)));
                self.most_stuck = 0;
                self.unacknowledging.clear();
                self.told.end(|topic| topic == STUCK);
            }
            // Whoever begins to watch does not know since when.
            _ if !risen || before.is_none() => {}
            count => {
                self.unacknowledging.extend(std::mem::take(&mut self.unacknowledged).into_keys());
                let services: Vec<&str> = self.unacknowledging.iter().map(String::as_str).collect();
                let why =
                    if services.is_empty() { String::new() } else { format!(": {}", do_not(&services, "acknowledge")) };
                let what = format!("{} became stuck{why}", transactions(count));
                self.repeat(now.at, STUCK.to_owned(), 1, std::slice::from_ref(&what), |_| what.clone());
            }
        }
    }

    /// Notes which services did not acknowledge of late.
    fn dead_letters(&mut self, before: &Snapshot, now: &Snapshot) {
        self.unacknowledged.retain(|_, at| *at + DEAD_LETTER_AGE_MS >= now.at);
        for it in &now.services {
            let was = before.services.iter().find(|was| was.service == it.service).map_or(0, |was| was.dead_letters);
            if it.dead_letters > was && !heard_first(before, now) {
                self.unacknowledged.insert(it.service.clone(), now.at);
            }
        }
    }

    /// Which faults are set that were not. It is told before what they do.
    fn set(&mut self, before: Option<&Snapshot>, now: &Snapshot) {
        let before = before.map_or(&[][..], |before| &before.faults);
        let set: Vec<&str> = now.faults.iter().filter(|it| !before.contains(it)).map(|it| &*it.words).collect();
        if !set.is_empty() {
            self.tell(now.at, format!("faults set: {}", set.join(", ")));
        }
    }

    /// Which are not any more. What another has replaced is not cleared: something is set there all the while.
    fn cleared(&mut self, before: Option<&Snapshot>, now: &Snapshot, news: &mut Vec<String>) {
        let before = before.map_or(&[][..], |before| &before.faults);
        let gone: Vec<&Fault> = before.iter().filter(|was| !now.faults.contains(was)).collect();
        self.told.end(|topic| gone.iter().any(|was| struck_topic(was) == topic));
        let is_set = |was: &Fault| now.faults.iter().any(|it| it.is_where(was));
        let cleared: Vec<&str> = gone.into_iter().filter(|was| !is_set(was)).map(|was| &*was.words).collect();
        if !cleared.is_empty() {
            news.push(format!("faults cleared: {}", cleared.join(", ")));
        }
    }

    /// Who is down. How its process ended may be known a moment later than that it does not answer.
    fn ends(&mut self, before: &Snapshot, now: &Snapshot) {
        for it in now.instances.iter().filter(|it| it.state == State::Down) {
            let Some(was) = before.instances.iter().find(|was| was.name == it.name) else { continue };
            let (name, topic) = (&it.name, Some(end_topic(&it.name)));
            let how = it.ended.clone().unwrap_or_else(|| format!("is {}", State::Down.words()));
            let what = format!("{name} {how}");
            if was.state != State::Down {
                self.told.marks.push_back(Mark { at: now.at, since: now.at, what, topic });
            } else if was.ended.is_none()
                && it.ended.is_some()
                && let Some(told) = self.told.marks.iter_mut().rfind(|mark| mark.topic == topic)
            {
                told.what = what;
            }
        }
    }

    fn instances(&self, before: &Snapshot, now: &Snapshot, news: &mut Vec<String>) {
        for it in &now.instances {
            let Some(was) = before.instances.iter().find(|was| was.name == it.name) else { continue };
            let name = &it.name;
            if was.state != it.state {
                match it.state {
                    State::Up if self.seen_up.contains(name) => news.push(format!("{name} is back")),
                    State::Frozen | State::Draining => news.push(format!("{name} is {}", it.state.words())),
                    State::Up | State::Starting | State::Down => {}
                }
            }
            let (was, is) = (was.role.as_deref(), it.role.as_deref());
            if is == Some("master") && was == Some("replica") {
                news.push(format!("{name} is master"));
            }
        }
    }
}

/// Whether somebody is heard for the first time, who brings what was counted before.
fn heard_first(before: &Snapshot, now: &Snapshot) -> bool {
    let said =
        |snapshot: &Snapshot, name: &str| snapshot.instances.iter().any(|it| it.name == *name && it.started.is_some());
    now.instances.iter().any(|it| it.started.is_some() && !said(before, &it.name))
}

/// What the end of an instance is told under.
fn end_topic(name: &str) -> String {
    format!("end of {name}")
}

/// What a fault that strikes again and again is told under, by chance or not.
fn struck_topic(fault: &Fault) -> String {
    let Fault { service, point, action, .. } = fault;
    format!("struck: {service} {point} {action}")
}

/// Whether a start of this instance begins another story in a topic.
fn ends_with(started: &Instance, topic: &str) -> bool {
    let here = |service: &str| topic.starts_with(&format!("struck: {service} "));
    let strikes = match started.kind {
        Kind::Shop => topic.starts_with("struck: "),
        Kind::Stock => here("stock"),
        Kind::Payment => here("payment"),
        _ => false,
    };
    strikes || topic == format!("recovery by {}", started.name)
}

fn findings(before: Option<&Snapshot>, now: &Snapshot, news: &mut Vec<String>) {
    let count = |snapshot: &Snapshot| snapshot.audit.map_or(0, |audit| audit.findings);
    match (before.map_or(0, count), count(now)) {
        (was, is) if was == is => {}
        (_, 0) => news.push("the audit: nothing is off any more".to_owned()),
        (0, 1) => news.push("the audit found 1 thing that is off".to_owned()),
        (0, is) => news.push(format!("the audit found {} that are off", number(is, "thing"))),
        (_, is) => news.push(format!(
            "the audit: {} off by now",
            if is == 1 { "1 thing is".to_owned() } else { format!("{} are", number(is, "thing")) }
        )),
    }
}
