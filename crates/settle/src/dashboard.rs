//! What a process shows of itself, and of others: where the crate `watch` gets its figures from.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use futures_util::future::{join, join_all};
use protocol::Timestamp;
use shop::answered::Answered;
use shop::faults::tell_before_crash;
use shop::guard::{Door, Peer};
use shop::server::Shop;
use shop::vitals::{Ailment, Vitals};
use watch::figures::Figures;
use watch::limits::PATIENCE_MS;
use watch::openmetrics::parse;
use watch::scrape::Instance;
use watch::{
    About, Allowed, Answers, Diary, Kind, Notes, Operators, OperatorsOf, Seen, Source, State, Watch, Watching,
};

use crate::config::Config;

/// The file in a data folder with what the page showed.
const DIARY: &str = "watch.jsonl";

/// What is told of what is watched.
pub(crate) fn about(title: impl Into<String>) -> About {
    About { title: title.into(), version: env!("CARGO_PKG_VERSION").to_owned(), ..About::default() }
}

/// Begins to watch, and to write down what is seen in the data folder, if there is one, for the process after this one.
pub(crate) fn of_process(about: About, source: impl Source, data: Option<&Path>) -> anyhow::Result<(Watch, Watching)> {
    let diary = data.map(|data| Diary::at(data.join(DIARY)));
    Watch::start(about, source, diary, data.map(Notes::of)).context("cannot start the thread that watches")
}

/// Has the diary in a data folder say that this process was told to stop: the last that is written there.
pub(crate) fn note_stop(data: &Path) {
    Diary::note_stop(&data.join(DIARY));
}

/// Has the diary in a data folder say which fault ended this process, if one does.
pub(crate) fn note_crashes(data: &Path) {
    let diary = data.join(DIARY);
    tell_before_crash(move |service, point| {
        Diary::note_end(&diary, &format!("{service} {}", point.to_string().replace('_', " ")));
    });
}

/// Begins to watch an order instance that listens at this port, and whom its configuration names.
pub(crate) fn of_order(config: &Config, port: u16, vitals: Arc<dyn Vitals>) -> anyhow::Result<(Watch, Watching)> {
    let name = config.instance.to_string();
    let trace_url = config.trace_url().filter(|_| config.traces().is_some()).map(str::to_owned);
    let about = About { chaos: config.chaos, production: config.production, trace_url, ..about(&*name) };
    let others = config.watched().iter().map(|url| {
        let instance = Instance::at(url).map_err(anyhow::Error::msg)?;
        Ok(instance.asked_from(port))
    });
    let others = others.collect::<anyhow::Result<Vec<_>>>()?;
    of_process(about, Own::new(name, Kind::Order, vitals).with(others), None)
}

/// Lets operators in whom a door admits.
pub(crate) fn operators_at(door: Door) -> OperatorsOf {
    Arc::new(move |parts| {
        let peer = parts.extensions.get::<Peer>().map(|peer| peer.0);
        let (allowed, why) = door.standing(peer, &parts.headers);
        let allowed = match allowed {
            shop::guard::Allowed::Yes => Allowed::Yes,
            shop::guard::Allowed::Password => Allowed::Password,
            shop::guard::Allowed::No => Allowed::No,
        };
        Operators { allowed, why: why.map(str::to_owned) }
    })
}

/// This process, whose figures need no request; and others, which are asked for theirs.
pub(crate) struct Own {
    name: String,
    kind: Kind,
    vitals: Arc<dyn Vitals>,
    others: Vec<Instance>,
    /// What was answered since a time in milliseconds since 1970, as the log says.
    answered: Option<Box<dyn Fn(u64) -> Answers + Send>>,
}

impl Own {
    pub(crate) fn new(name: impl Into<String>, kind: Kind, vitals: Arc<dyn Vitals>) -> Self {
        Self { name: name.into(), kind, vitals, others: vec![], answered: None }
    }

    /// The process of a shop, whose log tells what the one before it answered.
    pub(crate) fn of_shop(shop: &Shop) -> Self {
        let log = shop.clone();
        let answered = move |since| {
            let Answered { committed, refused, undone } = log.answered_since(Timestamp(since));
            Answers { committed, refused, rolled_back: undone, ..Answers::default() }
        };
        Self { answered: Some(Box::new(answered)), ..Self::new("shop", Kind::Shop, Arc::new(shop.clone())) }
    }

    /// With these beside it.
    pub(crate) fn with(self, others: Vec<Instance>) -> Self {
        Self { others, ..self }
    }
}

impl Source for Own {
    async fn look(&mut self, _watched: bool) -> Vec<Seen> {
        let Self { name, kind, vitals, others, .. } = self;
        let own = async {
            let (state, detail) = match vitals.ailment() {
                None => (State::Up, None),
                Some(Ailment { status: "draining", detail }) => (State::Draining, Some(detail)),
                Some(Ailment { detail, .. }) => (State::Down, Some(detail)),
            };
            let text = tokio::time::timeout(Duration::from_millis(PATIENCE_MS), vitals.figures()).await;
            let figures = text.ok().map(|text| Figures::of(&parse(&text)));
            Seen { detail, figures, ..Seen::new(&**name, *kind, state) }
        };
        let (mut own, seen) = join(own, join_all(others.iter_mut().map(Instance::look))).await;
        // A list for all instances has this one, too, under the name that it is known by.
        if let Some(myself) = others.iter().find(|other| other.is_own()) {
            myself.name().clone_into(&mut own.name);
        }
        let of_others = seen.into_iter().zip(&*others).filter(|(_, other)| !other.is_own());
        std::iter::once(own).chain(of_others.map(|(seen, _)| seen)).collect()
    }

    fn answered_since(&mut self, since: u64) -> Answers {
        self.answered.as_ref().map(|log| log(since)).unwrap_or_default()
    }
}
