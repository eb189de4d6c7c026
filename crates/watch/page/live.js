// What the server says of itself once a second; and that it says nothing, which is news, too.

import { lasting, outage } from "./dom.js";

const KEPT = 600;
/** Longer than this without a word: nobody knows how it goes; and nobody is there. Milliseconds. A server that is well speaks every second. */
const SILENCE = { lost: 1700, gone: 4000 };
/** How long until the next attempt: short at first, since how long nobody was there is known no better than this. */
const AGAIN = { soon: 250, later: 1000 };
/** A server that has been gone for so long is asked less often. */
const LONG = 60_000;
/** So far apart are the words of a server that is well: one that fell silent did so half of it behind its last word, give or take as much. */
const EVERY = 1000;

/** `marks`: what happened, as any server of the last ten minutes told it, and what only this page can know. */
export const live = { snapshot: null, points: [], marks: [], lastWord: 0, lost: false };
let gone = false;
/** What is known of an outage, by this page's own clock: `since` it noticed that the connection broke, or it guesses that there was silence, `until` it was open again. */
let out = { since: 0, until: 0, guessed: false };

const listeners = new Set();

/** Calls `listener` whenever there is news; returns what ends that. */
export function listen(listener) {
  listeners.add(listener);
  if (live.snapshot) listener(live);
  return () => listeners.delete(listener);
}

const tell = () => listeners.forEach((listener) => listener(live));

function point(snapshot) {
  const { rates, latency_ms: latency } = snapshot;
  return {
    at: snapshot.at,
    committed: rates.committed,
    refused: rates.refused + rates.conflict,
    rolled_back: rates.rolled_back,
    in_doubt: rates.in_doubt,
    turned_away: rates.turned_away,
    p50: latency.p50,
    p99: latency.p99,
    p999: latency.p999,
    slowest: latency.slowest,
    abort_percent: Math.max(0, ...snapshot.definitions.map((it) => it.abort_percent)),
    in_flight: snapshot.in_flight,
    queued: snapshot.queued,
    answers: snapshot.answers,
  };
}

/** What is drawn of answers: those of the second itself, where they were counted at both of its ends. A rate is the mean of some seconds. */
const COUNTED = ["committed", "refused", "turned_away", "rolled_back", "in_doubt"];
/** Milliseconds between two looks: less is too short for a rate, and more is no second. */
const LOOKS = { least: 500, most: 2500 };

function exactly(it, n, points) {
  const before = points[n - 1];
  const ms = it.at - before?.at;
  if (!(ms >= LOOKS.least && ms < LOOKS.most) || !it.answers || !before.answers) return it;
  const came = COUNTED.map((key) => [key, ((it.answers[key] - before.answers[key]) * 1000) / ms]);
  return came.every(([, n]) => n >= 0) ? { ...it, ...Object.fromEntries(came) } : it;
}

function add(points) {
  const first = points[0]?.at ?? Infinity;
  // What a server knew that has restarted since is kept: it forgot, the page did not.
  const kept = live.points.filter((it) => it.at < first);
  const all = [...kept.slice(-1), ...points].map(exactly);
  live.points = [...kept, ...all.slice(kept.length > 0 ? 1 : 0)].slice(-KEPT);
}

/**
 * Takes marks in that are not known yet. A server that was started again forgot what happened before; this page did not. What happened again and
 * again takes the place of all that was said of it.
 */
function mark(news) {
  const repeated = news.filter((it) => it.topic);
  const replaced = (old) => repeated.some((it) => it.topic === old.topic && it.since <= old.at);
  const known = new Map([...live.marks.filter((it) => !replaced(it)), ...news].map((it) => [`${it.at} ${it.what}`, it]));
  const newest = Math.max(0, ...[...known.values()].map((it) => it.at));
  const since = (live.snapshot?.at ?? newest) - KEPT * 1000;
  live.marks = [...known.values()].filter((it) => it.at >= since).sort((a, b) => a.at - b.at);
}

let source = null;
let timer = 0;

function connect() {
  source?.close();
  source = new EventSource("/dashboard/events");
  source.addEventListener("open", () => { out.until = Date.now(); });
  source.addEventListener("history", (event) => add(JSON.parse(event.data).points));
  source.addEventListener("snapshot", (event) => {
    const snapshot = JSON.parse(event.data);
    const before = live.snapshot;
    // Of a server that is back the first word may be its last one from before.
    if (gone && before && snapshot.at === before.at) return;
    live.snapshot = snapshot;
    live.lastWord = Date.now();
    mark(gone && before ? [...snapshot.marks, { at: snapshot.at, what: `the server answers again, after ${howLong()}` }] : snapshot.marks);
    live.lost = gone = false;
    const last = live.points.at(-1);
    if (!last || snapshot.at > last.at) add([point(snapshot)]);
    tell();
  });
  source.addEventListener("error", lose);
}

const silence = () => (live.lastWord ? Date.now() - live.lastWord : 0);

/** Words have a second in between, and would make an outage up to two seconds longer than it was; the connection breaks at once, unless the server is frozen. */
function howLong() {
  const { since, until, guessed } = out;
  return guessed ? `about ${lasting(until - since)}` : outage(until - since);
}

function lose() {
  source?.close();
  if (!gone) {
    // What breaks behind a silence does not begin there.
    const guessed = silence() > SILENCE.lost;
    out = { since: guessed ? live.lastWord + EVERY / 2 : Date.now(), until: 0, guessed };
  }
  if (!gone && live.snapshot) mark([{ at: live.snapshot.at, what: "no word from the server from here on" }]);
  live.lost = gone = true;
  tell();
  clearTimeout(timer);
  timer = setTimeout(connect, Date.now() - out.since > LONG ? AGAIN.later : AGAIN.soon);
}

/** Begins to listen, and begins again whenever the server has gone. */
export function start() {
  connect();
  // Frozen, it neither speaks nor closes the connection.
  setInterval(() => {
    if (silence() > SILENCE.gone && !gone) {
      lose();
    } else if (silence() > SILENCE.lost && !live.lost) {
      live.lost = true;
      tell();
    }
  }, 100);
  setInterval(() => live.lost && tell(), 1000);
  // A laptop that wakes up does not wait for the timer.
  addEventListener("online", connect);
}
