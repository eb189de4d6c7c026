//! One look after the other, made into snapshots. It has no clock and asks nobody: a look is handed in.

use std::collections::{BTreeMap, BTreeSet};

use crate::counters::{Counters, Rise};
use crate::diary::End;
use crate::figures::{Bound, Counter, Figures, Outcome};
use crate::limits::{ANY_WINDOW_MS, EVERY_MS, LATENCY_WINDOW_MS, MAX_WORDS, RATE_WINDOW_MS, SAME_STORY_MS};
use crate::marks::{Marks, Told};
use crate::percentiles::percentile;
use crate::snapshot::{
    Answers, Audit, Breaker, Definition, Fault, Instance, Kind, Latency, Level, Operators, Rates, Service, Snapshot,
    State, Store, Struck, Verdict,
};
use crate::verdict::verdict;

/// Before the role of one that has it no more.
const WAS: &str = "was ";

/// What was seen of one instance.
#[derive(Debug, Clone, PartialEq)]
pub struct Seen {
    /// Its name: no other's.
    pub name: String,
    /// What it is.
    pub kind: Kind,
    /// How it is.
    pub state: State,
    /// `master` or `replica`; who leads is known from the figures.
    pub role: Option<String>,
    /// Why it is not up, in a sentence.
    pub detail: Option<String>,
    /// See [`Instance::ended`](crate::snapshot::Instance::ended).
    pub ended: Option<String>,
    /// What it says of itself, if it was asked and answered.
    pub figures: Option<Figures>,
    /// Seconds of processor time, if somebody else knows them better than the figures.
    pub processor_seconds: Option<f64>,
    /// Resident memory, likewise.
    pub memory_bytes: Option<u64>,
}

impl Seen {
    /// One of which nothing is known but how it is.
    pub fn new(name: impl Into<String>, kind: Kind, state: State) -> Self {
        let name = name.into();
        let (role, detail, ended, figures, processor_seconds, memory_bytes) = (None, None, None, None, None, None);
        Self { name, kind, state, role, detail, ended, figures, processor_seconds, memory_bytes }
    }
}

/// What is told of the watched system, and does not change.
#[derive(Debug, Clone, Default)]
pub struct Titles {
    /// See [`Snapshot::title`].
    pub title: String,
    /// See [`Snapshot::version`].
    pub version: String,
    /// See [`Snapshot::chaos`].
    pub chaos: bool,
    /// See [`Snapshot::production`].
    pub production: bool,
    /// See [`Snapshot::trace_url`].
    pub trace_url: Option<String>,
}

/// What is remembered of one instance.
#[derive(Debug, Default)]
struct Memory {
    state: Option<State>,
    since: u64,
    counters: Counters,
    /// What it said last, whether or not it is up.
    figures: Option<Figures>,
    /// Processor time as somebody else told it, for figures of processes that have none: the time, and the seconds.
    processor: Option<(u64, f64)>,
    processor_before: Option<(u64, f64)>,
    /// What it was when it was up last, if that is told.
    role: Option<String>,
    /// How many checkouts it had answered at the last look, if there was one.
    answers: Option<Answers>,
}

impl Memory {
    fn answered(&self) -> Answers {
        let count = |outcome| self.counters.total(&Counter::Outcome(outcome)) as u64;
        Answers {
            committed: count(Outcome::Committed),
            refused: count(Outcome::Refused) + count(Outcome::Conflict),
            rolled_back: count(Outcome::RolledBack),
            in_doubt: count(Outcome::InDoubt),
            turned_away: count(Outcome::TurnedAway),
        }
    }
}

/// Makes snapshots.
#[derive(Debug, Default)]
pub struct Collector {
    titles: Titles,
    known: BTreeMap<String, Memory>,
    /// What all of them answered, as far as was watched.
    answers: Answers,
    protocols: BTreeMap<String, String>,
    marks: Marks,
    in_doubt_since: Option<u64>,
    audit: Option<Audit>,
    last: Option<Snapshot>,
}

impl Collector {
    /// One that has seen nothing.
    pub fn new(titles: Titles) -> Self {
        Self { titles, ..Self::default() }
    }

    /// Goes on from what was told by a process before this one, which was seen at this time for the last time, and from what it and recovery had
    /// `answered` by the start of this one. `how` it came to its end, if it could say so.
    pub(crate) fn resume(&mut self, told: Told, ended: u64, how: Option<&End>, answered: Answers) {
        self.answers = answered;
        let how = match how {
            Some(End::Fault(which)) => format!("ended by an injected fault: {which}"),
            Some(End::Told) => "was told to stop".to_owned(),
            None => "was killed, or crashed".to_owned(),
        };
        self.marks.resume(told, ended, format!("{} {how}", self.titles.title));
    }

    /// This process stood still: at this time it looked, and then not for so many milliseconds. It stopped half way to the next look, in the middle of
    /// all cases.
    pub(crate) fn stood_still(&mut self, looked: u64, ms: u64) {
        let seconds = (ms.saturating_sub(EVERY_MS / 2) + 500) / 1_000;
        let since = looked + EVERY_MS / 2;
        self.marks.tell(since, format!("{} stood still for about {seconds} s", self.titles.title));
    }

    /// Somebody said this, at a time in milliseconds since 1970.
    pub(crate) fn note(&mut self, at: u64, what: String) {
        self.marks.note(at, what);
    }

    /// What was told of what happened.
    pub(crate) fn told(&self) -> &Told {
        self.marks.told()
    }

    /// What is known before anything was seen.
    pub fn blank(&self, at: u64) -> Snapshot {
        let Titles { title, version, chaos, production, trace_url } = self.titles.clone();
        let operators = Operators::no("nobody has asked");
        let verdict = Verdict { level: Level::Unknown, text: "Nothing was seen yet".to_owned() };
        let (rates, answers, latency_ms) = (Rates::default(), self.answers, Latency::default());
        let [in_flight, queued, unsettled, in_doubt, dead_letters, violations, repairs] = [0; 7];
        let (definitions, breakers, services, faults, struck) = (vec![], vec![], vec![], vec![], vec![]);
        let (instances, stores, marks) = (vec![], vec![], vec![]);
        let (audit, leader, stuck) = (None, None, None);
        #[rustfmt::skip]
        let snapshot = Snapshot {
            at, title, version, verdict, audit, rates, answers, latency_ms, definitions, in_flight, queued, unsettled, in_doubt, stuck, dead_letters,
            violations, repairs, breakers, services, faults, struck, leader, instances, stores, marks, operators, chaos, production,
            trace_url,
        };
        snapshot
    }

    /// Takes a look in, at a time in milliseconds since 1970, and says what is known now. A time before the last one counts as that.
    pub fn look(&mut self, at: u64, seen: Vec<Seen>) -> Snapshot {
        let at = self.last.as_ref().map_or(at, |last| last.at.max(at));
        self.known.retain(|name, _| seen.iter().any(|it| it.name == *name));
        let instances: Vec<Instance> = seen.into_iter().map(|it| self.remember(at, it)).collect();
        let mut now = self.blank(at);
        now.leader = self.leader(&instances);
        now.instances = instances;
        for it in &mut now.instances {
            if now.leader.as_ref() == Some(&it.name) && it.role.is_none() {
                it.role = Some("leader".to_owned());
            }
            self.qualify(it);
        }
        self.sums(&mut now);
        self.traffic(&mut now);
        self.definitions(&mut now);
        self.breakers(&mut now);
        self.services(&mut now);
        self.stores(&mut now);
        self.audited(&mut now);
        self.in_doubt_since = (now.in_doubt > 0).then(|| self.in_doubt_since.unwrap_or(at));
        now.verdict = verdict(&now, self.in_doubt_since.map_or(0, |since| at - since));
        now.marks = self.marks.follow(self.last.as_ref(), &now);
        self.last = Some(now.clone());
        now
    }

    fn remember(&mut self, at: u64, seen: Seen) -> Instance {
        let Seen { name, kind, state, role, detail, ended, figures, processor_seconds, memory_bytes } = seen;
        let memory = self.known.entry(name.clone()).or_default();
        if memory.state != Some(state) {
            (memory.state, memory.since) = (Some(state), at);
        }
        if let Some(figures) = figures {
            memory.counters.take(at, &figures);
            // What one that is new here answered before is not ours to count, unless it began a moment ago.
            let is_young = (figures.started * 1e3) as u64 + SAME_STORY_MS >= at;
            let (now, fresh) = (memory.answered(), if is_young { Some(Answers::default()) } else { None });
            self.answers.rise(memory.answers.or(fresh).unwrap_or(now), now);
            memory.answers = Some(now);
            memory.figures = Some(figures);
        }
        memory.processor_before = memory.processor;
        memory.processor = processor_seconds.map(|seconds| (at, seconds));
        let told = memory.figures.as_ref().filter(|_| state == State::Up);
        let cpu_percent = match (memory.processor_before, memory.processor) {
            // Less than before: another process.
            (Some((since, before)), Some((at, now))) if at > since && now >= before => {
                Some((now - before) * 1e5 / (at - since) as f64)
            }
            (_, Some(_)) => None,
            (_, None) => told.and_then(|_| memory.counters.lately(at, RATE_WINDOW_MS)).map(|rise| {
                // The clock ticks a hundred times a second.
                rise.rate(&Counter::Processor) * 100.0
            }),
        };
        let memory_bytes = memory_bytes.or_else(|| told.and_then(|told| told.memory_bytes));
        let began = memory.figures.as_ref().map(|said| (said.started * 1e3) as u64);
        Instance {
            since: memory.since,
            started: began.filter(|began| *began > 0),
            cpu_percent: cpu_percent.map(tidy),
            name,
            kind,
            state,
            role,
            detail,
            ended,
            memory_bytes,
            recovered: memory.counters.total(&Counter::Recovered) as u64,
        }
    }

    /// Whoever does not answer is nothing any more, and what it was tells why another is that now.
    fn qualify(&mut self, instance: &mut Instance) {
        let Some(memory) = self.known.get_mut(&instance.name) else { return };
        match instance.state {
            State::Up => memory.role.clone_from(&instance.role),
            State::Down | State::Frozen => {
                let role = instance.role.take().or_else(|| memory.role.clone());
                instance.role = role.map(|role| if role.starts_with(WAS) { role } else { format!("{WAS}{role}") });
            }
            State::Draining | State::Starting => {}
        }
    }

    /// Instances that are up, with what they said last.
    fn up<'a>(&'a self, instances: &'a [Instance]) -> impl Iterator<Item = (&'a Instance, &'a Figures)> {
        instances.iter().filter(|it| matches!(it.state, State::Up | State::Draining)).filter_map(|it| {
            let figures = self.known.get(&it.name)?.figures.as_ref()?;
            Some((it, figures))
        })
    }

    /// Whoever says that it leads; of two, the one of before: the other has just begun, or has not heard yet.
    fn leader(&self, instances: &[Instance]) -> Option<String> {
        let leading: Vec<&str> =
            self.up(instances).filter(|(_, said)| said.leads).map(|(it, _)| it.name.as_str()).collect();
        let before = self.last.as_ref().and_then(|last| last.leader.as_deref());
        before.filter(|name| leading.contains(name)).or(leading.first().copied()).map(str::to_owned)
    }

    fn sums(&self, now: &mut Snapshot) {
        let up = || self.up(&now.instances).map(|(_, figures)| figures);
        let total = |counter| self.known.values().map(|it| it.counters.total(&counter)).sum::<f64>() as u64;
        now.in_flight = up().map(|it| it.in_flight).sum();
        now.queued = up().map(|it| it.queued).sum();
        now.unsettled = up().map(|it| it.unsettled).sum();
        now.in_doubt = up().map(|it| it.in_doubt).sum();
        // The leader counts them for all.
        now.stuck = up().filter_map(|it| it.stuck).max();
        now.violations = total(Counter::Violations);
        now.repairs = total(Counter::Repairs);
    }

    fn rises(&self, at: u64, window: u64) -> impl Iterator<Item = Rise<'_>> {
        self.known.values().filter_map(move |it| it.counters.lately(at, window))
    }

    fn traffic(&self, now: &mut Snapshot) {
        let rate = |counter: Counter| tidy(self.rises(now.at, RATE_WINDOW_MS).map(|rise| rise.rate(&counter)).sum());
        let outcome = |outcome| rate(Counter::Outcome(outcome));
        now.rates = Rates {
            committed: outcome(Outcome::Committed),
            refused: outcome(Outcome::Refused),
            conflict: outcome(Outcome::Conflict),
            rolled_back: outcome(Outcome::RolledBack),
            in_doubt: outcome(Outcome::InDoubt),
            turned_away: outcome(Outcome::TurnedAway),
            requests: rate(Counter::Requests),
            errors: rate(Counter::Errors),
        };
        let answered = |counter: &Counter| if let Counter::Answered(bound) = counter { Some(*bound) } else { None };
        let buckets = sum_of_buckets(self.rises(now.at, LATENCY_WINDOW_MS), answered);
        let newest = sum_of_buckets(self.rises(now.at, ANY_WINDOW_MS), answered);
        let ms = |buckets: &[(f64, f64)], share| percentile(buckets, share).map(|seconds| tidy(seconds * 1e3));
        let [p50, p90, p99, p999] = [0.5, 0.9, 0.99, 0.999].map(|share| ms(&buckets, share));
        now.latency_ms = Latency { p50, p90, p99, p999, slowest: ms(&newest, 1.0) };
    }

    fn definitions(&mut self, now: &mut Snapshot) {
        let mut votes: BTreeMap<&str, BTreeMap<&str, usize>> = BTreeMap::new();
        let mut aborts: BTreeMap<&str, Vec<u64>> = BTreeMap::new();
        for (_, figures) in self.up(&now.instances) {
            for (name, protocol) in &figures.protocols {
                *votes.entry(name).or_default().entry(protocol).or_default() += 1;
            }
            for (name, percent) in &figures.abort_percents {
                aborts.entry(name).or_default().push(*percent);
            }
        }
        let mut definitions = vec![];
        for (name, votes) in votes.into_iter().take(MAX_WORDS) {
            let before = self.protocols.get(name).map(String::as_str);
            // Of as many, the one of before: instances change one after the other.
            let most = votes.iter().max_by_key(|(protocol, votes)| (**votes, Some(**protocol) == before));
            let Some((protocol, _)) = most else { continue };
            let aborts = aborts.get(name).map_or(&[][..], Vec::as_slice);
            let switches = self.known.values().map(|it| it.counters.total(&Counter::Switches(name.to_owned())));
            definitions.push(Definition {
                name: name.to_owned(),
                protocol: (*protocol).to_owned(),
                fixed: self.up(&now.instances).any(|(_, figures)| figures.fixed.get(name) == Some(&true)),
                abort_percent: aborts.iter().sum::<u64>().checked_div(aborts.len() as u64).unwrap_or_default(),
                switches: switches.sum::<f64>() as u64,
            });
        }
        self.protocols = definitions.iter().map(|it| (it.name.clone(), it.protocol.clone())).collect();
        now.definitions = definitions;
    }

    fn breakers(&self, now: &mut Snapshot) {
        let mut open: BTreeMap<&str, bool> = BTreeMap::new();
        for (service, is_open) in self.up(&now.instances).flat_map(|(_, figures)| &figures.breakers) {
            *open.entry(service).or_default() |= is_open;
        }
        let trips = |service: &str| {
            let counter = Counter::Trips(service.to_owned());
            self.known.values().map(|it| it.counters.total(&counter)).sum::<f64>() as u64
        };
        let breaker =
            |(service, open): (&str, bool)| Breaker { service: service.to_owned(), open, trips: trips(service) };
        now.breakers = open.into_iter().take(MAX_WORDS).map(breaker).collect();
    }

    fn services(&self, now: &mut Snapshot) {
        let mut services: BTreeMap<&str, Service> = BTreeMap::new();
        for rise in self.rises(now.at, RATE_WINDOW_MS) {
            for counter in rise.all().map(|(counter, _)| counter) {
                let (Counter::Asked(name) | Counter::Unanswered(name) | Counter::Retried(name)) = counter else {
                    continue;
                };
                let of = services.entry(name).or_default();
                match counter {
                    Counter::Asked(_) => of.commands += rise.rate(counter),
                    Counter::Unanswered(_) => of.unanswered += rise.rate(counter),
                    _ => of.retries += rise.rate(counter),
                }
            }
        }
        for (counter, count) in self.known.values().flat_map(|it| it.counters.totals()) {
            if let Counter::DeadLetters(name) = counter {
                services.entry(name).or_default().dead_letters += count as u64;
            }
        }
        now.dead_letters = services.values().map(|of| of.dead_letters).sum();
        let told = |(name, of): (&str, Service)| Service {
            service: name.to_owned(),
            dead_letters: of.dead_letters,
            commands: tidy(of.commands),
            unanswered: tidy(of.unanswered),
            retries: tidy(of.retries),
        };
        now.services = services.into_iter().take(MAX_WORDS).map(told).collect();
        // Each instance of a service says the same.
        let set: BTreeSet<&Fault> = self.up(&now.instances).flat_map(|(_, figures)| &figures.faults).collect();
        now.faults = set.into_iter().take(MAX_WORDS).cloned().collect();
        let mut struck: BTreeMap<&Fault, f64> = BTreeMap::new();
        for (counter, times) in self.known.values().flat_map(|it| it.counters.totals()) {
            if let Counter::Struck(fault) = counter {
                *struck.entry(fault).or_default() += times;
            }
        }
        let told = |(fault, times): (&Fault, f64)| Struck { fault: fault.clone(), times: times as u64 };
        now.struck = struck.into_iter().take(MAX_WORDS).map(told).collect();
    }

    fn stores(&self, now: &mut Snapshot) {
        let mut stores = vec![];
        for (it, figures) in self.up(&now.instances) {
            let Some(memory) = self.known.get(&it.name) else { continue };
            let rise = memory.counters.lately(now.at, RATE_WINDOW_MS);
            for (service, up) in &figures.stores {
                let lately =
                    |counter: Counter| rise.map_or((0.0, 0.0), |rise| (rise.of(&counter), rise.rate(&counter)));
                let (batches, flushes) = lately(Counter::Flushes(service.clone()));
                let (commands_in_all, commands) = lately(Counter::Commands(service.clone()));
                let flushed = |counter: &Counter| match counter {
                    Counter::Flushed(of, bound) if of == service => Some(*bound),
                    _ => None,
                };
                let buckets = sum_of_buckets(memory.counters.lately(now.at, LATENCY_WINDOW_MS).into_iter(), flushed);
                stores.push(Store {
                    service: service.clone(),
                    instance: it.name.clone(),
                    up: *up,
                    flushes: tidy(flushes),
                    commands: tidy(commands),
                    flush_p99_ms: percentile(&buckets, 0.99).map(|seconds| tidy(seconds * 1e3)),
                    batch_mean: (batches > 0.0).then(|| tidy(commands_in_all / batches)),
                });
            }
        }
        now.stores = stores;
    }

    /// The latest word of any instance, also of one that is gone by now.
    fn audited(&mut self, now: &mut Snapshot) {
        let checked = self.known.values().map(|it| it.counters.total(&Counter::Audited)).sum::<f64>() as u64;
        let said = self.known.values().filter_map(|it| it.figures.as_ref()?.audit);
        // One that has never finished says nothing against one that has.
        if let Some(said) =
            said.max_by(|a, b| (a.runs > 0, a.at).partial_cmp(&(b.runs > 0, b.at)).unwrap_or(std::cmp::Ordering::Equal))
        {
            let at = (said.at * 1e3) as u64;
            let known = self.audit.filter(|before| before.complete && before.at > at);
            let fresh = Audit { at, checked, findings: said.findings, complete: said.runs > 0 };
            self.audit = Some(known.unwrap_or(fresh));
        }
        now.audit = self.audit;
    }
}

/// The buckets of one histogram, added up over instances, each bound with how many were at most that.
fn sum_of_buckets<'a>(
    rises: impl Iterator<Item = Rise<'a>>,
    bound: impl Fn(&Counter) -> Option<Bound>,
) -> Vec<(f64, f64)> {
    let mut buckets: BTreeMap<Bound, f64> = BTreeMap::new();
    for rise in rises {
        for (counter, risen) in rise.all() {
            if let Some(bound) = bound(counter) {
                *buckets.entry(bound).or_default() += risen;
            }
        }
    }
    buckets.into_iter().map(|(bound, count)| (bound.number(), count)).collect()
}

/// To two digits behind the point: nobody reads more, and every listener is sent them.
fn tidy(number: f64) -> f64 {
    // The sum of no numbers is -0, and adding 0 makes it 0.
    let rounded = (number * 100.0).round() / 100.0 + 0.0;
    if rounded.is_finite() { rounded } else { 0.0 }
}

#[cfg(test)]
mod tests;
