// Up to ten minutes as a drawing: lines or stacked areas, the marks of what happened, and what each second was, under the pointer or the arrow keys.

import { clock, count, el, replace, rows, say, svg } from "./dom.js";
import { FOR_GOOD, keep, recall } from "./kept.js";

const HEIGHT = 168;
const PAD = { left: 46, right: 10, top: 16, bottom: 20 };
const MINUTE = 60_000;
/** What is drawn begins with the first point, but never so late that less is seen. */
const SHORTEST = MINUTE;
/** Three minutes unless another is chosen: what goes wrong now is seen beside how it was before, and is not dwarfed by a burst that is long over. */
const SPANS = [[1, "1 min"], [3, "3 min"], [10, "10 min"]];
const USUAL = 3;
const KEY = "settle.span";
/** Two points further apart than this are not joined: nobody knows what was between. */
const GAP = 5000;

/** Where a logarithmic scale begins: nothing that is drawn so is less. */
const FLOOR = 0.1;

/** Marks that are closer to each other than this are one, with their number beside it. Pixels: a finger hits it. */
const APART = 24;

let serial = 0;

/** How many minutes are seen, in all charts alike; this browser remembers it. */
const seen = { minutes: SPANS.map(([minutes]) => minutes).find((it) => String(it) === recall(FOR_GOOD, KEY)) ?? USUAL, charts: new Set() };

/** Chooses how many minutes are seen. */
export function spanSwitch() {
  const name = `span-${(serial += 1)}`;
  const choose = (minutes) => () => {
    seen.minutes = minutes;
    keep(FOR_GOOD, KEY, String(minutes));
    for (const redraw of seen.charts) redraw();
  };
  return el("fieldset", { class: "spans" }, el("legend", {}, "The last"),
    SPANS.map(([minutes, label]) => el("label", {}, el("input", { type: "radio", name, value: minutes, checked: minutes === seen.minutes, onchange: choose(minutes) }), el("span", {}, label))));
}

/** The next nice number above: 1, 2, 5 × 10ⁿ. */
function nice(n) {
  if (n <= 0) return 1;
  const power = 10 ** Math.floor(Math.log10(n));
  return [1, 2, 5, 10].map((it) => it * power).find((it) => it >= n) ?? n;
}

/**
 * A chart. `series`: `{ key, label, tone, format, means }`, `format` if it is another one, `means` what the label does not say; `stacked`; `log`: a logarithmic scale from a tenth; `least`: the scale reaches at least so high;
 * `format`; `limits`: `{ at, label }` are lines; `hot`: above it lines turn red; `totals`: of rates, how much that was altogether;
 * `onmark`: what becomes of marks that somebody wants to know more of; `stops`: the Tab key stops at them. Of several charts one is enough.
 */
export function chart({ title, about, series, stacked = false, log = false, least = 1, format = String, limits = [], hot = null, totals = false, onmark = null, stops = false }) {
  const id = `chart-${(serial += 1)}`;
  const explained = series.map(({ means }) => means).filter(Boolean).join(" ");
  const drawing = svg("svg", { class: "drawing", role: "img", tabindex: "0", "aria-labelledby": `${id}-title ${id}-now`, "aria-describedby": explained ? `${id}-means` : null });
  const now = el("p", { class: "unseen", id: `${id}-now` });
  const values = new Map();
  const legend = el("ul", { class: "legend" }, series.map(({ key, label, tone, means }) => {
    const value = el("span", { class: "value" }, "–");
    values.set(key, value);
    const entry = [el("span", { class: `swatch ${tone}`, "aria-hidden": "true" }), el("span", { class: means ? "explained" : null }, label), " ", value];
    // Not of the row: a title would be read instead of what stands in it.
    return el("li", {}, means ? el("span", { title: means, "aria-description": means }, entry) : entry);
  }));
  const note = el("span", { class: "quiet" }, about);
  const tip = el("p", { class: "tip", hidden: true });
  const sum = totals ? el("p", { class: "totals" }) : null;
  const happened = el("ol", { class: "marks", "aria-label": "What happened meanwhile" });
  const element = el("figure", { class: "chart" },
    el("figcaption", {}, el("h3", { id: `${id}-title` }, title), note),
    legend, sum, el("div", { class: "canvas" }, drawing, happened, tip), now,
    // For whoever comes to the drawing with the keys: no pointer rests on a name there.
    explained ? el("p", { id: `${id}-means`, hidden: true }, explained) : null);

  let all = { points: [], marks: [] };
  let state = { points: [], marks: [], since: -SHORTEST, until: 0 };
  let picked = null;

  /** What is seen of all that is known. */
  function look() {
    const { points, marks } = all;
    const until = points.at(-1)?.at ?? Date.now();
    const span = Math.min(seen.minutes * MINUTE, Math.max(SHORTEST, until - (points[0]?.at ?? until)));
    const since = until - span;
    state = { points: points.filter((it) => it.at >= since), marks: marks.filter((it) => it.at >= since && it.at <= until), since, until };
    if (sum) say(sum, altogether());
    draw();
  }

  /**
   * What was counted from point to point: rates do not add up over seconds in which nobody looked. What began anew counts from nothing. What came between the first
   * point that is seen and one long before it, as behind a stop, is not of these minutes.
   */
  function altogether() {
    const { points, until } = state;
    const first = all.points.findIndex((it) => it.at >= state.since);
    const isJoined = first > 0 && all.points[first].at - all.points[first - 1].at <= GAP;
    const counted = all.points.slice(isJoined ? first - 1 : Math.max(0, first)).map((it) => it.answers ?? {});
    const came = (key) => counted.reduce((sum, { [key]: now = 0 }, n) => sum + (n === 0 ? 0 : now - (now >= (counted[n - 1][key] ?? 0) ? counted[n - 1][key] ?? 0 : 0)), 0);
    const sums = series.map(({ key, label }, at) => [came(key), label, at]);
    const told = sums.filter(([n, , at]) => n > 0 || at === 0).map(([n, label]) => `${count(n)} ${label}`);
    const isWhole = until - points[0]?.at > seen.minutes * MINUTE - GAP;
    const when = isWhole ? (seen.minutes === 1 ? "In this minute" : `In these ${seen.minutes} minutes`) : `Since ${clock(points[0]?.at)}`;
    return points.length === 0 ? "Nothing yet" : `${when}: about ${told.join(" · ")}`;
  }

  const top = () => {
    const sums = state.points.map((it) => (stacked ? series.reduce((sum, { key }) => sum + (it[key] ?? 0), 0) : Math.max(...series.map(({ key }) => it[key] ?? 0))));
    return nice(Math.max(least, ...sums));
  };

  function draw() {
    const width = Math.max(260, drawing.parentElement?.clientWidth || 480);
    const high = top();
    const span = state.until - state.since;
    const x = (at) => PAD.left + ((at - state.since) / span) * (width - PAD.left - PAD.right);
    const part = (n) => (log ? Math.log10(Math.max(n, FLOOR) / FLOOR) / Math.log10(Math.max(high, 10) / FLOOR) : n / high);
    const y = (n) => HEIGHT - PAD.bottom - Math.min(1, part(n)) * (HEIGHT - PAD.top - PAD.bottom);
    const { points } = state;
    drawing.setAttribute("viewBox", `0 0 ${width} ${HEIGHT}`);
    const parts = [];
    const ticks = log ? [FLOOR, 1, 10, 100, 1000, 10_000].filter((it) => it <= Math.max(high, 10)) : [0, high / 2, high];
    for (const tick of ticks) {
      parts.push(svg("line", { class: "grid", x1: PAD.left, x2: width - PAD.right, y1: y(tick), y2: y(tick) }));
      parts.push(svg("text", { class: "axis", x: PAD.left - 6, y: y(tick) + 4, "text-anchor": "end" }, format(tick)));
    }
    const minutes = span / MINUTE;
    const step = width < 420 ? Math.ceil(minutes / 2) : Math.ceil(minutes / 5);
    for (let ago = 0; ago <= minutes; ago += step) {
      const at = x(state.until - ago * MINUTE);
      const anchor = ago === 0 ? "end" : at < PAD.left + 20 ? "start" : "middle";
      parts.push(svg("text", { class: "axis", x: at, y: HEIGHT - 4, "text-anchor": anchor }, ago === 0 ? "now" : `−${ago} min`));
    }
    const runs = [];
    for (const it of points) {
      const run = runs.at(-1);
      if (run && it.at - run.at(-1).at <= GAP) run.push(it);
      else runs.push([it]);
    }
    if (hot !== null) {
      const reach = y(hot);
      parts.push(svg("defs", {}, svg("linearGradient", { id: `${id}-heat`, gradientUnits: "userSpaceOnUse", x1: 0, x2: 0, y1: 0, y2: HEIGHT },
        svg("stop", { class: "stop-bad", offset: reach / HEIGHT }), svg("stop", { class: "stop-good", offset: reach / HEIGHT }))));
      if (reach > PAD.top + 1) parts.push(svg("rect", { class: "hot", x: PAD.left, y: PAD.top, width: width - PAD.left - PAD.right, height: reach - PAD.top }));
    }
    for (const { at, label } of limits.filter((it) => it.at <= high)) {
      parts.push(svg("line", { class: "limit", x1: PAD.left, x2: width - PAD.right, y1: y(at), y2: y(at) }));
      parts.push(svg("text", { class: "axis limit-name", x: PAD.left + 4, y: y(at) - 4 }, label));
    }
    if (stacked) parts.push(...areas(runs, x, y));
    else parts.push(...lines(runs, x, y));
    mark(x);
    const chosen = picked === null ? null : points.reduce((best, it) => (best && Math.abs(best.at - picked) <= Math.abs(it.at - picked) ? best : it), null);
    if (chosen) parts.push(svg("line", { class: "cursor", x1: x(chosen.at), x2: x(chosen.at), y1: PAD.top, y2: HEIGHT - PAD.bottom }));
    replace(drawing, parts);
    tell(chosen, points, chosen && x(chosen.at) / width);
  }

  /** At the edge: however much happened, the curves are seen. They are no part of the drawing: what is pointed at, or has the focus, outlives the second. */
  function mark(x) {
    const groups = [];
    for (const it of state.marks) {
      const last = groups.at(-1);
      if (last && x(it.at) - x(last[0].at) < APART) last.push(it);
      else groups.push([it]);
    }
    rows(happened, groups, ([first]) => `${first.at} ${first.what}`, (group) => {
      const lines = group.map((it) => `${clock(it.at)} ${it.what}`);
      const sign = [el("span", { class: "mark", "aria-hidden": "true" }), group.length > 1 && el("span", { class: "many", "aria-hidden": "true" }, count(group.length))];
      const name = group.length === 1 ? lines[0] : `${count(group.length)} things: ${lines.join("; ")}`;
      const attributes = { title: lines.join("\n"), class: "marked" };
      return el("li", {}, onmark
        ? el("button", { ...attributes, type: "button", tabindex: stops ? null : "-1", "data-act": "mark", "aria-label": name, onfocus: () => onmark(group, false), onclick: () => onmark(group, true) }, sign)
        : el("span", attributes, sign, el("span", { class: "unseen" }, name)));
    });
    for (const [at, group] of groups.entries()) happened.children[at].style.left = `${x(group[0].at).toFixed(1)}px`;
  }

  function lines(runs, x, y) {
    return series.toReversed().map(({ key, tone }) => {
      let path = "";
      for (const run of runs) {
        let pen = false;
        for (const it of run) {
          if (it[key] === null || it[key] === undefined) pen = false;
          else {
            path += `${pen ? "L" : "M"}${x(it.at).toFixed(1)} ${y(it[key]).toFixed(1)}${pen ? "" : "h.01"}`;
            pen = true;
          }
        }
      }
      return svg("path", { class: `line ${tone}`, d: path, stroke: hot === null ? null : `url(#${id}-heat)` });
    });
  }

  function areas(runs, x, y) {
    const paths = [];
    for (const [index, { tone }] of series.entries()) {
      const upTo = (it, n) => series.slice(0, n).reduce((sum, { key }) => sum + (it[key] ?? 0), 0);
      let path = "";
      for (const run of runs) {
        const over = run.map((it) => `${x(it.at).toFixed(1)} ${y(upTo(it, index + 1)).toFixed(1)}`);
        const under = run.map((it) => `${x(it.at).toFixed(1)} ${y(upTo(it, index)).toFixed(1)}`).toReversed();
        path += `M${over.join("L")}L${under.join("L")}Z`;
      }
      paths.push(svg("path", { class: `area ${tone}`, d: path }));
    }
    return paths;
  }

  function tell(chosen, points, share) {
    const shown = chosen ?? points.at(-1);
    const said = series.map(({ key, label, format: own = format }) => ({ key, label, value: shown ? own(shown[key]) : "–" }));
    for (const { key, value } of said) values.get(key).textContent = value;
    now.textContent = shown ? `${chosen ? clock(chosen.at) : "Now"}: ${said.map(({ label, value }) => `${label} ${value}`).join(", ")}` : "Nothing yet";
    tip.hidden = !chosen;
    if (chosen) {
      const marked = state.marks.filter((it) => Math.abs(it.at - chosen.at) < 3000).map((it) => it.what);
      tip.textContent = [clock(chosen.at), ...marked].join(" · ");
      tip.classList.toggle("left", share > 0.5);
    }
  }

  drawing.addEventListener("pointermove", (event) => {
    const box = drawing.getBoundingClientRect();
    const width = Math.max(260, box.width);
    const share = (event.clientX - box.left - PAD.left) / (width - PAD.left - PAD.right);
    picked = state.since + Math.min(1, Math.max(0, share)) * (state.until - state.since);
    draw();
  });
  drawing.addEventListener("pointerleave", () => unpick());
  drawing.addEventListener("blur", () => unpick());
  drawing.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -5000, ArrowRight: 5000, Home: -Infinity, End: Infinity }[event.key];
    if (step) {
      event.preventDefault();
      picked = Math.min(state.until, Math.max(state.since, (picked ?? state.until) + step));
      draw();
    } else if (event.key === "Escape") unpick();
  });
  function unpick() {
    if (picked !== null) {
      picked = null;
      draw();
    }
  }
  new ResizeObserver(() => draw()).observe(drawing);

  return {
    element,
    /** Sets what is said of it, and its lines. */
    bound(to) {
      say(note, to.about);
      limits = to.limits;
    },
    update(points, marks) {
      all = { points, marks };
      look();
    },
    /** Follows the switch; returns what ends that. */
    follow() {
      seen.charts.add(look);
      return () => seen.charts.delete(look);
    },
  };
}
