//! Fault injection at a participant: what to do before or after which verb. Off unless switched on when the shop starts.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock, OnceLock};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex, MutexGuard};
use protocol::Verb;
use serde::{Deserialize, Serialize};

/// The longest delay that can be injected. Milliseconds.
pub const MAX_DELAY_MS: u64 = 60_000;
/// A fault with this rate strikes every time. Percent.
pub const ALWAYS: u8 = 100;

/// Before the work, or after it and before the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Moment {
    /// Nothing has been done yet.
    Before,
    /// The work is done, durably, and not answered.
    After,
}

/// Where a fault strikes: `before_prepare`, `after_commit`, …
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Point {
    /// Before or after the work.
    pub moment: Moment,
    /// Which work.
    pub verb: Verb,
}

impl Point {
    /// Every point at which a fault can strike.
    pub fn all() -> impl Iterator<Item = Self> {
        const VERBS: [Verb; 5] = [Verb::Prepare, Verb::Commit, Verb::Abort, Verb::Execute, Verb::Compensate];
        [Moment::Before, Moment::After].into_iter().flat_map(|moment| VERBS.map(|verb| Self { moment, verb }))
    }
}

impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let moment = match self.moment {
            Moment::Before => "before",
            Moment::After => "after",
        };
        write!(f, "{moment}_{}", self.verb)
    }
}

impl FromStr for Point {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::all().find(|point| point.to_string() == text).ok_or_else(|| {
            let points: Vec<String> = Self::all().map(|point| point.to_string()).collect();
            format!("there is no fault point of that name; there are {}", points.join(", "))
        })
    }
}

impl From<Point> for String {
    fn from(point: Point) -> Self {
        point.to_string()
    }
}

impl TryFrom<String> for Point {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

/// What happens there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// The process ends at once, as by `kill -9`.
    Crash,
    /// It goes on after this time.
    Delay {
        /// Milliseconds, up to [`MAX_DELAY_MS`].
        ms: u64,
    },
    /// The answer is an error. Before the work: it is not done.
    Error,
    /// The work is done, and the answer is an error all the same.
    ErrorAfterwards,
}

impl Fault {
    /// What every fault is called when it is set.
    pub const ACTIONS: [&str; 4] = ["crash", "delay", "error", "error_after"];

    /// What this one is called.
    pub fn action(self) -> &'static str {
        match self {
            Self::Crash => "crash",
            Self::Delay { .. } => "delay",
            Self::Error => "error",
            Self::ErrorAfterwards => "error_after",
        }
    }
}

/// A fault at a point, for a number of times.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Rule {
    /// What happens.
    #[serde(flatten)]
    pub fault: Fault,
    /// How many times yet; `None`: until it is cleared.
    pub times: Option<u64>,
    /// In how many of a hundred cases, by chance: 1 to [`ALWAYS`].
    #[serde(skip_serializing_if = "is_always")]
    pub percent: u8,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
fn is_always(percent: &u8) -> bool {
    *percent >= ALWAYS
}

impl Rule {
    /// A fault that strikes every time.
    pub fn always(fault: Fault, times: Option<u64>) -> Self {
        Self { fault, times, percent: ALWAYS }
    }
}

/// A change of the faults to inject, as instances of a service tell each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FaultChange {
    /// Set what happens at a point.
    Set {
        /// Where.
        point: Point,
        /// What.
        fault: Fault,
        /// How many times in each instance; `None`: until it is cleared.
        times: Option<u64>,
        /// In how many of a hundred cases: 1 to [`ALWAYS`].
        percent: u8,
    },
    /// Clear one point, or all.
    Clear {
        /// Which.
        point: Option<Point>,
    },
}

/// The faults of one service.
#[derive(Debug)]
pub struct Faults {
    enabled: bool,
    armed: AtomicBool,
    rules: Mutex<BTreeMap<Point, Rule>>,
    /// How often what struck where.
    struck: Mutex<BTreeMap<(Point, &'static str), u64>>,
    chance: Mutex<Chance>,
}

/// Xorshift (Marsaglia, 2003): a fault's rate needs no better dice.
#[derive(Debug)]
struct Chance(u64);

impl Chance {
    /// Begins anywhere.
    fn somewhere() -> Self {
        Self(std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), 0) | 1)
    }

    /// Whether it happens that happens in `percent` of a hundred cases.
    fn strikes(&mut self, percent: u8) -> bool {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 32) % 100 < u64::from(percent)
    }
}

impl Faults {
    /// No faults; whether any may be set.
    pub fn new(enabled: bool) -> Self {
        let chance = Mutex::new(Chance::somewhere());
        Self { enabled, armed: AtomicBool::new(false), rules: Mutex::default(), struck: Mutex::default(), chance }
    }

    /// Whether faults may be set.
    pub fn enabled(&self) -> bool {
        self.enabled
    }

    /// Does as a change says.
    pub fn change(&self, change: &FaultChange) {
        match change {
            FaultChange::Set { point, fault, times, percent } => {
                self.set(*point, Rule { fault: *fault, times: *times, percent: *percent });
            }
            FaultChange::Clear { point } => self.clear(*point),
        }
    }

    /// Sets what happens at a point, in place of what was set there.
    pub fn set(&self, point: Point, rule: Rule) {
        if self.enabled {
            self.rules.lock().insert(point, rule);
            self.armed.store(true, Ordering::Release);
        }
    }

    /// Clears one point, or all.
    pub fn clear(&self, point: Option<Point>) {
        let mut rules = self.rules.lock();
        match point {
            Some(point) => _ = rules.remove(&point),
            None => rules.clear(),
        }
        self.armed.store(!rules.is_empty(), Ordering::Release);
    }

    /// What is set.
    pub fn rules(&self) -> BTreeMap<String, Rule> {
        self.rules.lock().iter().map(|(point, rule)| (point.to_string(), *rule)).collect()
    }

    /// The fault that strikes at this point now, which uses up one of its times.
    pub fn strike(&self, moment: Moment, verb: Verb) -> Option<Fault> {
        if !self.armed.load(Ordering::Acquire) {
            return None;
        }
        let point = Point { moment, verb };
        let mut rules = self.rules.lock();
        let rule = rules.get_mut(&point)?;
        let fault = rule.fault;
        if !is_always(&rule.percent) && !self.chance.lock().strikes(rule.percent) {
            return None;
        }
        if let Some(times) = &mut rule.times {
            *times -= 1;
            if *times == 0 {
                rules.remove(&point);
            }
        }
        *self.struck.lock().entry((point, fault.action())).or_default() += 1;
        Some(fault)
    }

    /// How often what struck where, ever: point, action, times.
    pub fn struck(&self) -> Vec<(Point, &'static str, u64)> {
        self.struck.lock().iter().map(|((point, action), times)| (*point, *action, *times)).collect()
    }
}

/// Who is told where a fault is about to end the process: a service, and a point there.
type LastWords = Box<dyn Fn(&str, Point) + Send + Sync>;

static LAST_WORDS: OnceLock<LastWords> = OnceLock::new();

/// Has somebody told before a fault ends this process. Only the first call has an effect. Whoever is told must not wait for anything.
pub fn tell_before_crash(told: impl Fn(&str, Point) + Send + Sync + 'static) {
    _ = LAST_WORDS.set(Box::new(told));
}

/// Ends the process as `kill -9` would, once it is said that a fault did it: nothing is flushed or closed.
pub fn crash(service: &str, moment: Moment, verb: Verb) -> ! {
    let point = Point { moment, verb };
    tracing::warn!(participant = service, %point, "an injected fault ends this process");
    if let Some(tell) = LAST_WORDS.get() {
        tell(service, point);
    }
    let itself = rustix::process::getpid();
    _ = rustix::process::kill_process(itself, rustix::process::Signal::KILL);
    std::process::abort()
}

/// What goes on later: by when, and in which order it came, for two may be due at once.
type Alarms = BTreeMap<(Instant, u64), Box<dyn FnOnce() + Send>>;

/// One thread waits for all injected delays, however many there are.
#[derive(Default)]
struct Timer {
    alarms: Mutex<(Alarms, u64)>,
    earlier: Condvar,
}

impl Timer {
    fn run(&self) {
        let mut alarms = self.alarms.lock();
        loop {
            match alarms.0.first_key_value().map(|((due, _), _)| *due) {
                None => self.earlier.wait(&mut alarms),
                Some(due) if due > Instant::now() => _ = self.earlier.wait_until(&mut alarms, due),
                Some(_) => {
                    let Some((_, go_on)) = alarms.0.pop_first() else { continue };
                    // What goes on may itself be delayed again.
                    MutexGuard::unlocked(&mut alarms, go_on);
                }
            }
        }
    }
}

/// Goes on after a time, on a thread that all injected delays share: nothing else comes here, never the hot path.
pub fn later(ms: u64, go_on: impl FnOnce() + Send + 'static) {
    static TIMER: LazyLock<Arc<Timer>> = LazyLock::new(|| {
        let timer = Arc::<Timer>::default();
        let waits = Arc::clone(&timer);
        std::thread::spawn(move || waits.run());
        timer
    });
    let mut alarms = TIMER.alarms.lock();
    alarms.1 += 1;
    let key = (Instant::now() + Duration::from_millis(ms), alarms.1);
    alarms.0.insert(key, Box::new(go_on));
    drop(alarms);
    TIMER.earlier.notify_one();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_point_has_a_name_that_reads_back() {
        assert_eq!(Point::all().count(), 10);
        for point in Point::all() {
            assert_eq!(point.to_string().parse(), Ok(point));
        }
        assert!("before_lunch".parse::<Point>().is_err());
    }

    #[test]
    fn a_fault_strikes_as_often_as_it_was_set_for() {
        let faults = Faults::new(true);
        let point = Point { moment: Moment::Before, verb: Verb::Commit };
        faults.set(point, Rule::always(Fault::Error, Some(2)));
        let strikes = |_| faults.strike(Moment::Before, Verb::Commit).is_some();
        assert_eq!((0..3).map(strikes).collect::<Vec<_>>(), [true, true, false]);
        assert!(faults.rules().is_empty());
    }

    #[test]
    fn a_fault_with_a_rate_strikes_about_so_often_and_only_strikes_use_up_its_times() {
        let point = Point { moment: Moment::Before, verb: Verb::Prepare };
        for seed in 1..20 {
            let mut faults = Faults::new(true);
            faults.chance = Mutex::new(Chance(seed * 0x9e37_79b9));
            faults.set(point, Rule { fault: Fault::Error, times: None, percent: 20 });
            let strikes = (0..5_000).filter(|_| faults.strike(Moment::Before, Verb::Prepare).is_some()).count();
            assert!((850..1_150).contains(&strikes), "seed {seed}: {strikes} of 5000");
            faults.set(point, Rule { fault: Fault::Error, times: Some(3), percent: 20 });
            let strikes = (0..1_000).filter(|_| faults.strike(Moment::Before, Verb::Prepare).is_some()).count();
            assert_eq!(strikes, 3, "seed {seed}");
        }
    }

    #[test]
    fn a_rate_is_shown_only_where_there_is_one() {
        let shown =
            |percent| serde_json::to_string(&Rule { fault: Fault::Delay { ms: 5 }, times: None, percent }).unwrap();
        assert_eq!(shown(ALWAYS), r#"{"delay":{"ms":5},"times":null}"#);
        assert_eq!(shown(20), r#"{"delay":{"ms":5},"times":null,"percent":20}"#);
    }

    #[test]
    fn delays_end_in_the_order_of_their_time_and_one_may_begin_another() {
        let (tell, hear) = std::sync::mpsc::channel();
        let began = Instant::now();
        for ms in [90, 30, 60] {
            let tell = tell.clone();
            later(ms, move || {
                let again = tell.clone();
                tell.send(ms).unwrap();
                later(100, move || again.send(ms + 100).unwrap());
            });
        }
        let heard: Vec<u64> = (0..6).map(|_| hear.recv().unwrap()).collect();
        assert_eq!(heard, [30, 60, 90, 130, 160, 190]);
        assert!(began.elapsed() >= Duration::from_millis(190));
    }

    #[test]
    fn a_change_does_what_it_says() {
        let (faults, point) = (Faults::new(true), Point { moment: Moment::After, verb: Verb::Execute });
        let fault = Fault::Delay { ms: 5 };
        faults.change(&FaultChange::Set { point, fault, times: Some(2), percent: ALWAYS });
        assert_eq!(faults.strike(Moment::After, Verb::Execute), Some(fault));
        faults.change(&FaultChange::Clear { point: Some(point) });
        assert_eq!(faults.strike(Moment::After, Verb::Execute), None);
    }

    #[test]
    fn nothing_can_be_set_unless_enabled() {
        let faults = Faults::new(false);
        faults.set(Point { moment: Moment::Before, verb: Verb::Commit }, Rule::always(Fault::Crash, None));
        assert_eq!(faults.strike(Moment::Before, Verb::Commit), None);
    }
}
