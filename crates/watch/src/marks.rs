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
//! | a breaker                                | `the breaker of stock opened`, `… closed` |
//!
//! An instance that was never seen up is not "back" when it comes up, and whoever leads at first is no news.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::limits::{MARK_AGE_MS, MAX_MARKS};
use crate::snapshot::{Mark, Snapshot, State};

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
            for it in &now.breakers {
                if before.breakers.iter().any(|was| was.service == it.service && was.open != it.open) {
                    let word = if it.open { "opened" } else { "closed" };
                    news.push(format!("the breaker of {} {word}", it.service));
                }
            }
        }
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
