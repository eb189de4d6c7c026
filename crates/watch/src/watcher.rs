//! The thread that looks once a second, and who listens.
//!
//! It has a thread of its own, with a runtime of its own, so that a look never holds up a request.

use std::collections::VecDeque;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use tokio::sync::{Semaphore, oneshot, watch};
use tokio::time::MissedTickBehavior;

use crate::collector::{Collector, Seen, Titles};
use crate::diary::Diary;
use crate::limits::{EVERY_MS, MAX_LISTENERS, MAX_POINTS, STANDSTILL_MS};
use crate::notes::{Note, Notes};
use crate::snapshot::{Answers, History, Point, Snapshot};

/// What is told of the watched system, and does not change.
pub type About = Titles;

/// Looks at everybody.
pub trait Source: Send + 'static {
    /// What is seen now; it should take less than [`PATIENCE_MS`](crate::limits::PATIENCE_MS). `watched`: whether somebody looks at
    /// what comes of it. If nobody does, what is costly may be looked at less often.
    fn look(&mut self, watched: bool) -> impl Future<Output = Vec<Seen>>;

    /// What was answered, or brought to its end, from `since` (in milliseconds since 1970) until this process began to serve, if there is a log that
    /// tells: whoever was killed was not looked at in its last second. By default nothing is known.
    fn answered_since(&mut self, _since: u64) -> Answers {
        Answers::default()
    }

    /// Waits until there is reason to look at once, instead of with the next second. By default there never is.
    fn news(&mut self) -> impl Future<Output = ()> {
        std::future::pending()
    }
}

/// What is known, for whoever asks. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Watch(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    latest: watch::Sender<Arc<Snapshot>>,
    points: Mutex<VecDeque<Point>>,
    places: Arc<Semaphore>,
    born: Instant,
    /// When somebody asked last, in milliseconds since `born`, and one.
    asked: AtomicU64,
}

/// The thread. Dropped, it ends with its present look.
#[derive(Debug)]
#[must_use]
pub struct Watching {
    _stop: oneshot::Sender<()>,
}

/// How much sooner than in a second a look in turn may be. Milliseconds.
const TOLERANCE_MS: u64 = 200;
/// For how long somebody who asked for a snapshot counts as looking. Milliseconds.
const INTEREST_MS: u64 = 3 * EVERY_MS;

impl Watch {
    /// Begins to look. With a diary, it goes on from what stands there; with notes, it tells them.
    ///
    /// # Errors
    /// If the system has no thread to give.
    pub fn start(
        about: About,
        mut source: impl Source,
        mut diary: Option<Diary>,
        mut notes: Option<Notes>,
    ) -> std::io::Result<(Self, Watching)> {
        let mut collector = Collector::new(about);
        let points = diary.as_ref().map(|diary| resume(diary, &mut collector, &mut source)).unwrap_or_default();
        // Whoever listens from the first moment on hears of nothing that is less than it was.
        let watch = Self::of(collector.blank(now()));
        watch.0.points.lock().extend(points);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (stop, mut stopped) = oneshot::channel();
        let told = watch.clone();
        let looking = move || async move {
            let mut every = tokio::time::interval(Duration::from_millis(EVERY_MS));
            every.set_missed_tick_behavior(MissedTickBehavior::Delay);
            let mut looked = (now(), Instant::now());
            loop {
                tokio::select! {
                    _ = every.tick() => {}
                    () = source.news() => {}
                }
                let silent = u64::try_from(looked.1.elapsed().as_millis()).unwrap_or(u64::MAX);
                if silent > STANDSTILL_MS {
                    collector.stood_still(looked.0, silent);
                    // What was asked before, and answered meanwhile, would look as if it had not been: the others were there all the time.
                    _ = source.look(told.is_watched()).await;
                }
                let seen = source.look(told.is_watched()).await;
                looked = (now(), Instant::now());
                for Note { at, what } in notes.as_mut().map(Notes::news).unwrap_or_default() {
                    collector.note(at, what);
                }
                let point = told.tell(collector.look(looked.0, seen));
                if let Some(diary) = &mut diary {
                    diary.write(point, || told.history().points, collector.told().clone());
                }
            }
        };
        std::thread::Builder::new().name("watch".to_owned()).spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    () = looking() => {}
                    _ = &mut stopped => {}
                }
            });
        })?;
        Ok((watch, Watching { _stop: stop }))
    }

    /// One that knows this much, and is told the rest.
    pub(crate) fn of(first: Snapshot) -> Self {
        Self(Arc::new(Inner {
            latest: watch::Sender::new(Arc::new(first)),
            points: Mutex::default(),
            places: Arc::new(Semaphore::new(MAX_LISTENERS)),
            born: Instant::now(),
            asked: AtomicU64::new(0),
        }))
    }

    /// Tells everybody, and gives the point that this adds to the history.
    pub(crate) fn tell(&self, snapshot: Snapshot) -> Option<Point> {
        let mut points = self.0.points.lock();
        // A look out of turn adds none: points are a second apart.
        let is_due = points.back().is_none_or(|last| last.at + EVERY_MS - TOLERANCE_MS <= snapshot.at);
        let point = is_due.then(|| keep(&mut points, &snapshot));
        drop(points);
        self.0.latest.send_replace(Arc::new(snapshot));
        point
    }

    /// What is known now.
    pub fn latest(&self) -> Arc<Snapshot> {
        self.0.asked.store(self.millis() + 1, Ordering::Relaxed);
        Arc::clone(&self.0.latest.borrow())
    }

    /// The last ten minutes.
    pub fn history(&self) -> History {
        History { every_ms: EVERY_MS, points: self.0.points.lock().iter().copied().collect() }
    }

    /// Whether somebody listens, or asked a moment ago.
    pub fn is_watched(&self) -> bool {
        let asked = self.0.asked.load(Ordering::Relaxed);
        self.0.latest.receiver_count() > 0 || (asked > 0 && self.millis() < asked + INTEREST_MS)
    }

    /// To hear of every snapshot, or of the newest if one is slow.
    pub(crate) fn listen(&self) -> watch::Receiver<Arc<Snapshot>> {
        self.0.latest.subscribe()
    }

    pub(crate) fn places(&self) -> Arc<Semaphore> {
        Arc::clone(&self.0.places)
    }

    fn millis(&self) -> u64 {
        u64::try_from(self.0.born.elapsed().as_millis()).unwrap_or(u64::MAX - INTEREST_MS - 1)
    }
}

/// Has a collector go on from what stands in a diary, and gives the points in it.
fn resume(diary: &Diary, collector: &mut Collector, source: &mut impl Source) -> Vec<Point> {
    let now = now();
    let before = diary.read(now);
    if let Some(last) = before.points.last() {
        let answered = last.answers.and(source.answered_since(last.at));
        collector.resume(before.marks, (last.at + EVERY_MS).min(now), before.ended.as_ref(), answered);
    }
    before.points
}

fn keep(points: &mut VecDeque<Point>, snapshot: &Snapshot) -> Point {
    if points.len() >= MAX_POINTS {
        points.pop_front();
    }
    let point = Point::of(snapshot);
    points.push_back(point);
    point
}

/// The time, in milliseconds since 1970.
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sees nothing, and knows of a log.
    struct Silent;

    impl Source for Silent {
        async fn look(&mut self, _watched: bool) -> Vec<Seen> {
            std::future::pending().await
        }

        fn answered_since(&mut self, _since: u64) -> Answers {
            Answers { committed: 7, ..Answers::default() }
        }
    }

    #[test]
    fn whoever_asks_a_process_that_was_started_again_before_its_first_look_is_told_no_less_than_before() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("watch.jsonl");
        let mut snapshot = Collector::new(About::default()).blank(now());
        snapshot.answers.committed = 100_000;
        let point = Point::of(&snapshot);
        Diary::at(&path).write(Some(point), || vec![point], crate::marks::Told::default());
        let (watch, _watching) = Watch::start(About::default(), Silent, Some(Diary::at(&path)), None).unwrap();
        assert_eq!(watch.latest().answers.committed, 100_007);
        assert_eq!(watch.history().points, [point]);
    }
}
