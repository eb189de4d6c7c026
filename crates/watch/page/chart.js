// Up to ten minutes as a drawing: lines or stacked areas, the marks of what happened, and what each second was, under the pointer or the arrow keys.

import { clock, el, replace, say, svg } from "./dom.js";

const HEIGHT = 168;
const PAD = { left: 46, right: 10, top: 10, bottom: 20 };
const MINUTE = 60_000;
/** From the first point on, as far as that is neither shorter nor longer. */
const SPANS = { shortest: MINUTE, longest: 10 * MINUTE };
/** Two points further apart than this are not joined: nobody knows what was between. */
const GAP = 5000;

/** Where a logarithmic scale begins: nothing that is drawn so is less. */
const FLOOR = 0.1;

let serial = 0;

/** The next nice number above: 1, 2, 5 × 10ⁿ. */
function nice(n) {
  if (n <= 0) return 1;
  const power = 10 ** Math.floor(Math.log10(n));
  return [1, 2, 5, 10].map((it) => it * power).find((it) => it >= n) ?? n;
}

/**
 * A chart. `series`: `{ key, label, tone }`; `stacked`; `log`: a logarithmic scale from a tenth; `least`: the scale reaches at least so high;
 * `format`; `limits`: `{ at, label }` are lines; `hot`: above it lines turn red.
 */
export function chart({ title, about, series, stacked = false, log = false, least = 1, format = String, limits = [], hot = null }) {
  const id = `chart-${(serial += 1)}`;
  const drawing = svg("svg", { class: "drawing", role: "img", tabindex: "0", "aria-labelledby": `${id}-title ${id}-now` });
  const now = el("p", { class: "unseen", id: `${id}-now` });
  const values = new Map();
  const legend = el("ul", { class: "legend" }, series.map(({ key, label, tone }) => {
    const value = el("span", { class: "value" }, "–");
    values.set(key, value);
    return el("li", {}, el("span", { class: `swatch ${tone}`, "aria-hidden": "true" }), `${label} `, value);
  }));
  const note = el("span", { class: "quiet" }, about);
  const tip = el("p", { class: "tip", hidden: true });
  const element = el("figure", { class: "chart" },
    el("figcaption", {}, el("h3", { id: `${id}-title` }, title), note),
    legend, el("div", { class: "canvas" }, drawing, tip), now);

  let state = { points: [], marks: [], since: -SPANS.shortest, until: 0 };
  let picked = null;

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
    const points = state.points.filter((it) => it.at >= state.since);
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
    // At the edge: however much happened, the curves are seen.
    for (const { at, what } of state.marks.filter((it) => it.at >= state.since && it.at <= state.until)) {
      parts.push(svg("path", { class: "mark", d: `M${x(at) - 3} ${PAD.top - 8}h6l-3 7z` }, svg("title", {}, `${clock(at)} ${what}`)));
    }
    const chosen = picked === null ? null : points.reduce((best, it) => (best && Math.abs(best.at - picked) <= Math.abs(it.at - picked) ? best : it), null);
    if (chosen) parts.push(svg("line", { class: "cursor", x1: x(chosen.at), x2: x(chosen.at), y1: PAD.top, y2: HEIGHT - PAD.bottom }));
    replace(drawing, parts);
    tell(chosen, points, chosen && x(chosen.at) / width);
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
    for (const { key } of series) values.get(key).textContent = shown ? format(shown[key]) : "–";
    now.textContent = shown ? `${chosen ? clock(chosen.at) : "Now"}: ${series.map(({ key, label }) => `${label} ${format(shown[key])}`).join(", ")}` : "Nothing yet";
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
    const step = { ArrowLeft: -5000, ArrowRight: 5000, Home: -SPANS.longest, End: SPANS.longest }[event.key];
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
      const until = points.at(-1)?.at ?? Date.now();
      const span = Math.min(SPANS.longest, Math.max(SPANS.shortest, until - (points[0]?.at ?? until)));
      state = { points, marks, since: until - span, until };
      draw();
    },
  };
}
