// How it goes: the figures of now, up to ten minutes of them, what happened, and who is there.

import { chart, spanSwitch } from "./chart.js";
import { atMost, badge, bytes, clock, count, el, lasting, ms, rate, rows, say, stuckText, table } from "./dom.js";
import { listen } from "./live.js";

const PROTOCOLS = { "2pc": ["2PC", "two-phase commit"], saga: ["Saga", "done at once, undone if refused"] };
const STATES = { up: "good", down: "bad", draining: "warning", starting: "warning", frozen: "bad" };

/** What each kind of answer to a checkout means. */
const MEANS = {
  committed: "Committed: the order is paid, and its items are taken from the stock.",
  refused: "Refused: a business answer. There was too little stock or credit, or the order was changed meanwhile.",
  turned_away: "Turned away: before anything began, since too much was under way or a service did not answer.",
  rolled_back: "Undone: begun, then rolled back, since a service did not answer.",
  in_doubt: "In doubt: the answer said that the outcome is not known yet. A client whose connection broke in a crash has no answer, and is not counted: the server cannot know of it.",
};

/** The charts that the overview and the chaos tab share. */
export const throughput = (onmark) => chart({
  onmark,
  stops: true,
  totals: true,
  title: "Checkouts a second",
  series: [
    { key: "committed", label: "committed", tone: "tone-good", means: MEANS.committed },
    { key: "refused", label: "refused", tone: "tone-calm", means: MEANS.refused },
    { key: "turned_away", label: "turned away", tone: "tone-warning", means: MEANS.turned_away },
    { key: "rolled_back", label: "undone", tone: "tone-undone", means: MEANS.rolled_back },
    { key: "in_doubt", label: "in doubt", tone: "tone-bad", means: MEANS.in_doubt },
  ],
  stacked: true,
  least: 10,
  format: rate,
});

export const latency = (onmark) => chart({
  onmark,
  title: "Latency",
  about: "of checkouts from their arrival here, by a logarithmic scale",
  series: [
    { key: "p50", label: "p50", tone: "tone-p50" },
    { key: "p99", label: "p99", tone: "tone-p99" },
    { key: "p999", label: "p99.9", tone: "tone-p999" },
    { key: "slowest", label: "slowest of its second", tone: "tone-slowest", format: atMost },
  ],
  log: true,
  least: 2000,
  format: ms,
  limits: [{ at: 1000, label: "1 s" }],
  hot: 1000,
});

/** Where the protocol changes, if it may. */
const SWITCHES = { about: "of the last hundred; sagas from 10 %, two-phase commit from 5 %", limits: [{ at: 10, label: "saga from here" }, { at: 5, label: "" }] };

const aborts = (onmark) => chart({
  onmark,
  title: "Abort rate",
  ...SWITCHES,
  series: [{ key: "abort_percent", label: "aborted", tone: "tone-calm" }],
  least: 20,
  format: (n) => `${count(n)} %`,
});

const load = (onmark) => chart({
  onmark,
  title: "In flight and queued",
  series: [
    { key: "in_flight", label: "in flight", tone: "tone-calm" },
    { key: "queued", label: "queued", tone: "tone-warning" },
  ],
  least: 10,
  format: count,
});

/** Over how long the percentiles are taken. */
const LATELY = 10_000;

/** The slowest answer among those that the percentiles are of; `null` if there was none. */
function slowestLately(points) {
  const since = (points.at(-1)?.at ?? 0) - LATELY;
  return points.filter((it) => it.at > since).reduce((most, { slowest }) => (most === null || slowest > most ? slowest ?? most : most), null);
}

/** The latest are told at once; so many that the charts above them stay in sight. */
const NEWEST = 8;

/** The tab that says more of it, by the words that the server has for it. */
const ELSEWHERE = [
  [/\bstuck\b/, "stuck"],
  [/^the audit\b/, "audit"],
  [/^faults? |^a fault |\binjected fault\b/, "chaos"],
];

/** What happened, the latest first; `pick` shows some of it. */
function whatHappened() {
  const list = el("ol", { class: "news", id: "news" });
  const nothing = el("p", { class: "quiet" }, "Nothing, as far as somebody looked.");
  const all = el("button", { type: "button", class: "quiet small", "aria-controls": "news", onclick: () => {
    isWhole = !isWhole;
    draw();
  } });
  const element = el("section", { class: "card" }, el("h2", {}, "What happened ", el("span", { class: "quiet scope" }, "in the last ten minutes")), nothing, list, el("div", { class: "actions" }, all));
  let told = [];
  let isWhole = false;
  let picked = new Set();
  const key = (it) => `${it.at} ${it.what}`;
  function draw() {
    nothing.hidden = told.length > 0;
    all.hidden = told.length <= NEWEST;
    all.setAttribute("aria-expanded", String(isWhole));
    say(all, isWhole ? "Show fewer" : `Show all ${count(told.length)}`);
    rows(list, isWhole ? told : told.slice(0, NEWEST), key, line);
  }
  function line(it) {
    return el("li", { class: it.isPicked ? "picked" : null },
      el("time", {}, it.since < it.at ? `${clock(it.since)}–${clock(it.at)}` : clock(it.at)), " ", it.tab ? el("a", { href: `#/${it.tab}`, "data-act": "tab" }, it.what) : it.what);
  }
  return { element,
    update(marks, hasChaos) {
      const tabs = ELSEWHERE.filter(([, tab]) => tab !== "chaos" || hasChaos);
      told = marks.toReversed().map((it) => ({ ...it, tab: tabs.find(([words]) => words.test(it.what))?.[1], isPicked: picked.has(key(it)) }));
      draw();
    },
    /** Somebody wants to know more of these; whoever walks by with the keys alone is not taken away. */
    pick(marks, go) {
      picked = new Set(marks.map(key));
      told = told.map((it) => ({ ...it, isPicked: picked.has(key(it)) }));
      isWhole ||= told.slice(NEWEST).some((it) => it.isPicked);
      draw();
      if (go) list.querySelector(".picked")?.scrollIntoView({ block: "center" });
    } };
}

/** Longer than this without a full pass is news: the verdict says so, too. */
const STALE = 3_600_000;

/** How old the word is that money and stock agree, and what it says: a value, more, and a level. */
function audited({ at, audit, stuck, in_doubt }) {
  if (!audit) return ["not yet", "no word from an auditor"];
  const ago = audit.at ? `${lasting(at - audit.at)} ago` : "not yet";
  if (audit.findings > 0) return [`${count(audit.findings)} ${audit.findings === 1 ? "thing" : "things"} off`, audit.at ? ago : "and not through yet", "bad"];
  if (!audit.complete) return ["not yet", `under way: ${count(audit.checked)} looked at`];
  if (at - audit.at > STALE) return [ago, "books agreed then", "warning"];
  return [ago, stuck > 0 || in_doubt > 0 ? "all that is settled agrees" : "books agree", "good"];
}

function tile(label) {
  const value = el("dd", {}, "–");
  const more = el("dd", { class: "quiet" }, "");
  return { element: el("div", { class: "tile" }, el("dt", {}, label), value, more), set(text, rest = "", level = "") {
    say(value, text);
    say(more, rest);
    value.dataset.level = level;
  } };
}

/** What services answer, and do not; the chaos tab has it, too. */
export function services() {
  const whole = table("Services", ["Service", "Breaker", "#Opened", "#Commands/s", "#No answer/s", "#Sent again/s"]);
  return { element: whole.element, update(snapshot, lost) {
    const names = new Set([...snapshot.breakers, ...snapshot.services].map((it) => it.service));
    const of = (list, name) => list.find((it) => it.service === name);
    const all = [...names].sort().map((name) => ({ name, lost, breaker: of(snapshot.breakers, name), asked: of(snapshot.services, name) }));
    rows(whole.body, all, (it) => it.name, ({ name, breaker, asked }) => el("tr", {},
      el("th", { scope: "row" }, name),
      el("td", {}, lost ? badge("unknown", "not known") : breaker ? badge(breaker.open ? "bad" : "good", breaker.open ? "open" : "closed") : "–"),
      el("td", { class: "number" }, count(breaker?.trips)),
      el("td", { class: "number" }, rate(asked?.commands)),
      el("td", { class: "number" }, asked?.unanswered > 0 ? badge("warning", rate(asked.unanswered)) : rate(asked?.unanswered)),
      el("td", { class: "number" }, asked?.retries > 0 ? badge("warning", rate(asked.retries)) : rate(asked?.retries))));
  } };
}

export function overview(panel) {
  const tiles = {
    committed: tile("Committed a second"),
    refused: tile("Refused a second"),
    away: tile("Turned away a second"),
    p99: tile("p99"),
    aborts: tile("Aborted"),
    protocol: tile("Protocol"),
    load: tile("In flight"),
    stuck: tile("Stuck"),
    leader: tile("Leader"),
    audited: tile("Audited"),
  };
  const news = whatHappened();
  const charts = [throughput, latency, aborts, load].map((make) => make(news.pick));
  const instances = table("Instances", ["Name", "State", "Role", "Since", "Started at", "#CPU", "#Memory", "Detail"]);
  const stores = table("Databases", ["Service", "Seen from", "State", "#Flushes/s", "#Commands/s", "#Flush p99", "#Batch"]);
  const participants = services();
  const alarms = el("p", { class: "notice", "data-level": "bad", hidden: true });
  panel.append(
    alarms,
    el("dl", { class: "tiles" }, Object.values(tiles).map((it) => it.element)),
    spanSwitch(),
    el("section", { class: "charts", "aria-label": "The last minutes" }, charts.map((it) => it.element)),
    news.element,
    el("section", { class: "card" }, el("h2", {}, "Instances"), instances.element),
    el("div", { class: "pair" },
      el("section", { class: "card" }, el("h2", {}, "Databases"), stores.element),
      el("section", { class: "card" }, el("h2", {}, "Services"), participants.element)));

  const ends = charts.map((it) => it.follow());
  ends.push(listen(({ snapshot, points, marks, lost }) => {
    const { rates, latency_ms: l, definitions } = snapshot;
    tiles.committed.set(rate(rates.committed), `mean of 5 s; ${rate(rates.requests)} requests a second`);
    tiles.refused.set(rate(rates.refused + rates.conflict), "business answers");
    const failed = rates.turned_away + rates.rolled_back + rates.in_doubt;
    tiles.away.set(rate(rates.turned_away), rates.rolled_back + rates.in_doubt > 0 ? `${rate(rates.rolled_back)} undone, ${rate(rates.in_doubt)} in doubt` : "before anything began", failed > 0 ? (rates.committed + rates.refused + rates.conflict > 0 ? "warning" : "bad") : "");
    // What was slow and is over worries nobody: see the verdict.
    const isAsked = snapshot.in_flight + snapshot.queued > 0 || rates.committed + rates.refused + rates.conflict + rates.rolled_back + rates.in_doubt > 0;
    tiles.p99.set(ms(l.p99), `p50 ${ms(l.p50)}, p99.9 ${ms(l.p999)}, slowest ${atMost(slowestLately(points))}`, l.p99 === null ? "" : l.p99 <= 1000 ? "good" : isAsked ? "bad" : "");
    const [first] = definitions;
    tiles.aborts.set(first ? `${first.abort_percent} %` : "–", "of the last hundred");
    const [protocol, meaning] = PROTOCOLS[first?.protocol] ?? [first?.protocol ?? "–", ""];
    tiles.protocol.set(protocol, first ? `${meaning}, ${first.fixed ? "fixed by configuration" : first.switches === 1 ? "1 switch" : `${count(first.switches)} switches`}` : "");
    tiles.load.set(count(snapshot.in_flight), `${count(snapshot.queued)} queued, ${count(snapshot.unsettled)} unsettled`);
    tiles.stuck.set(stuckText(snapshot.stuck), snapshot.stuck === null ? "the leader knows" : `${count(snapshot.in_doubt)} in doubt`, snapshot.stuck === null ? "" : snapshot.stuck > 0 ? "bad" : "good");
    tiles.leader.set(snapshot.leader ?? "nobody", `${snapshot.instances.filter((it) => it.state === "up").length} of ${snapshot.instances.length} instances up`, snapshot.leader ? "" : "warning");
    tiles.audited.set(...audited(snapshot));
    const grave = [[snapshot.violations, "commands contradicted their branch (violations)"], [snapshot.repairs, "commits found no prepared branch (repairs)"]].filter(([n]) => n > 0);
    alarms.hidden = grave.length === 0;
    say(alarms, grave.map(([n, what]) => `${count(n)} ${what}`).join("; ") + (grave.length ? ": a store lost data, or there is a bug. See docs/operating.md." : ""));
    charts[2].bound(first?.fixed ? { about: "of the last hundred", limits: [] } : SWITCHES);
    for (const it of charts) it.update(points, marks);
    news.update(marks, snapshot.chaos);
    const seen = (level, text) => (lost ? badge("unknown", "not known") : badge(level, text));
    rows(instances.body, snapshot.instances.map((it) => ({ ...it, lost, cpu_percent: it.cpu_percent === null ? null : Math.round(it.cpu_percent), ago: lasting(snapshot.at - it.since) })), (it) => it.name, (it) => el("tr", {},
      el("th", { scope: "row" }, it.name, " ", el("span", { class: "quiet" }, it.kind)),
      el("td", {}, seen(STATES[it.state] ?? "warning", it.state)),
      el("td", {}, it.role ?? ""),
      el("td", { class: "unbroken", title: clock(it.since) }, it.ago),
      el("td", { class: "unbroken" }, it.started ? clock(it.started) : "–"),
      el("td", { class: "number" }, it.cpu_percent === null ? "–" : `${it.cpu_percent} %`),
      el("td", { class: "number" }, bytes(it.memory_bytes)),
      el("td", {}, it.detail ?? "")));
    rows(stores.body, snapshot.stores.map((it) => ({ ...it, lost })), (it) => `${it.service} ${it.instance}`, (it) => el("tr", {},
      el("th", { scope: "row" }, it.service),
      el("td", {}, it.instance),
      el("td", {}, seen(it.up ? "good" : "bad", it.up ? "up" : "down")),
      el("td", { class: "number" }, rate(it.flushes)),
      el("td", { class: "number" }, rate(it.commands)),
      el("td", { class: "number" }, ms(it.flush_p99_ms)),
      el("td", { class: "number" }, it.batch_mean === null ? "–" : it.batch_mean.toFixed(1))));
    participants.update(snapshot, lost);
  }));
  return () => ends.forEach((end) => end());
}
