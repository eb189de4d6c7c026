//! What happened, found by comparing one snapshot with the one before it.
//!
//! | what changed                             | the mark                     |
//! |------------------------------------------|------------------------------|
//! | an instance that was up is down          | `order-1 is down`            |
//! | … is frozen, draining                    | `order-1 is frozen`          |
//! | one that was not is up                   | `order-1 is back`            |
//! | its process is another one, or a young one at the first look | `order-1 started`, at the time that it tells |
//! | another instance leads                   | `order-2 leads`              |
//! | a replica is master                      | `redis-stock-2 is master`    |
//! | the protocol of a definition             | `checkout: 2pc → saga`       |
//! | how often a breaker opened               | `the breaker of stock opened`, `… opened 3 times`, `… closed` |
//! | transactions are stuck                   | `40 transactions became stuck`; ten times as many; `0 stuck again` |
//! | faults that are set                      | `faults set: payment before prepare`, `faults cleared: …` |
//! | what the audit found                     | `the audit found 1 thing that is off`, `… nothing is off any more` |
//!
//! An instance that was never seen up is not "back" when it comes up, and whoever leads at first is no news.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::limits::{MARK_AGE_MS, MAX_MARKS};
use crate::snapshot::{Fault, Mark, Snapshot, State};
use crate::words::{number, stuck, stuck_are};

/// The marks of the last ten minutes.
#[derive(Debug, Clone, Default)]
pub struct Marks {
    kept: VecDeque<Mark>,
    /// Instances that were seen up.
    seen_up: BTreeSet<String>,
    /// When the process of each instance began, as far as it was told.
    started: BTreeMap<String, u64>,
    /// Who led last; it may be nobody for a moment.
    leader: Option<String>,
    /// How many were stuck when that was told last.
    stuck: u64,
    /// The most that were since.
    most_stuck: u64,
}

impl Marks {
    /// Compares, and gives what is to be shown with `now`.
    pub fn follow(&mut self, before: Option<&Snapshot>, now: &Snapshot) -> Vec<Mark> {
        let at = now.at;
        let mut news = vec![];
        self.starts(now);
        if let Some(before) = before {
            self.instances(before, now, &mut news);
            for it in &now.definitions {
                if let Some(was) =
                    before.definitions.iter().find(|was| was.name == it.name && was.protocol != it.protocol)
                {
                    news.push(format!("{}: {} → {}", it.name, was.protocol, it.protocol));
                }
            }
            breakers(before, now, &mut news);
        }
        self.stuck(before, now, &mut news);
        faults(before, now, &mut news);
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
        self.kept.extend(news.into_iter().map(|what| Mark { at, what }));
        while self.kept.len() > MAX_MARKS || self.kept.front().is_some_and(|mark| mark.at + MARK_AGE_MS < at) {
            self.kept.pop_front();
        }
        self.kept.iter().cloned().collect()
    }

    /// A process that is younger than the marks which are kept has its start among them: whoever opens the page behind a restart is told of it.
    fn starts(&mut self, now: &Snapshot) {
        for it in &now.instances {
            let Some(started) = it.started.filter(|started| self.started.get(&it.name) != Some(started)) else {
                continue;
            };
            self.started.insert(it.name.clone(), started);
            let started = started.min(now.at);
            if started.saturating_add(MARK_AGE_MS) >= now.at {
                let place = self.kept.partition_point(|mark| mark.at <= started);
                self.kept.insert(place, Mark { at: started, what: format!("{} started", it.name) });
            }
        }
        self.started.retain(|name, _| now.instances.iter().any(|it| it.name == *name));
    }

    /// They get stuck one after the other: told are the first, and whenever they are ten times as many.
    fn stuck(&mut self, before: Option<&Snapshot>, now: &Snapshot, news: &mut Vec<String>) {
        // The leader counts them, and one that has just begun to lead may not have.
        let Some(counted) = now.stuck.filter(|_| before.is_none_or(|before| before.leader == now.leader)) else {
            return;
        };
        self.most_stuck = self.most_stuck.max(counted);
        match (self.stuck, counted) {
            (0, 0) => {}
            (_, 0) => {
                news.push(format!("0 stuck again, after {} at most", stuck(self.most_stuck)));
                (self.stuck, self.most_stuck) = (0, 0);
            }
            // Whoever begins to watch does not know since when.
            (0, count) if before.is_none() => self.stuck = count,
            (0, count) => {
                let things =
                    if count == 1 { "1 transaction".to_owned() } else { format!("{} transactions", stuck(count)) };
                news.push(format!("{things} became stuck"));
                self.stuck = count;
            }
            (told, count) if count >= told.saturating_mul(10) => {
                news.push(format!("{} stuck by now", stuck_are(count)));
                self.stuck = count;
            }
            _ => {}
        }
    }

    fn instances(&self, before: &Snapshot, now: &Snapshot, news: &mut Vec<String>) {
        for it in &now.instances {
            let Some(was) = before.instances.iter().find(|was| was.name == it.name) else { continue };
            let name = &it.name;
            if was.state != it.state {
                match it.state {
                    State::Up if self.seen_up.contains(name) => news.push(format!("{name} is back")),
                    State::Down | State::Frozen | State::Draining => {
                        news.push(format!("{name} is {}", it.state.words()));
                    }
                    State::Up | State::Starting => {}
                }
            }
            let (was, is) = (was.role.as_deref(), it.role.as_deref());
            if is == Some("master") && was == Some("replica") {
                news.push(format!("{name} is master"));
            }
        }
    }
}

/// By how often they opened: what opens and closes between two looks is seen, too.
fn breakers(before: &Snapshot, now: &Snapshot, news: &mut Vec<String>) {
    let said =
        |snapshot: &Snapshot, name: &str| snapshot.instances.iter().any(|it| it.name == *name && it.started.is_some());
    // One that is heard for the first time brings what it counted before.
    let heard_first = now.instances.iter().any(|it| it.started.is_some() && !said(before, &it.name));
    for it in &now.breakers {
        let Some(was) = before.breakers.iter().find(|was| was.service == it.service) else { continue };
        let risen = if heard_first { 0 } else { it.trips.saturating_sub(was.trips) };
        let opened = risen.max((it.open && !was.open).into());
        match opened {
            0 => {}
            1 => news.push(format!("the breaker of {} opened", it.service)),
            times => news.push(format!("the breaker of {} opened {times} times", it.service)),
        }
        if !it.open && (was.open || opened > 0) {
            news.push(format!("the breaker of {} closed", it.service));
        }
    }
}

fn faults(before: Option<&Snapshot>, now: &Snapshot, news: &mut Vec<String>) {
    let before = before.map_or(&[][..], |before| &before.faults);
    let mut tell = |what: &str, these: &[Fault], those: &[Fault]| {
        let other: Vec<String> = these.iter().filter(|it| !those.contains(it)).map(Fault::words).collect();
        if !other.is_empty() {
            news.push(format!("faults {what}: {}", other.join(", ")));
        }
    };
    tell("set", &now.faults, before);
    tell("cleared", before, &now.faults);
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
