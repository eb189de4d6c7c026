// Faults, set and cleared at run time, and their effect beside them.

import { get, post, query } from "./api.js";
import { spanSwitch } from "./chart.js";
import { badge, el, rows, say, table } from "./dom.js";
import { listen } from "./live.js";
import { latency, services, throughput } from "./overview.js";
import { poll } from "./transactions.js";

const SERVICES = ["stock", "payment"];
const POINTS = ["prepare", "commit", "abort", "execute", "compensate"].flatMap((verb) => [`before_${verb}`, `after_${verb}`]);
const ACTIONS = { error: "answer with an error", error_after: "do it, and answer with an error", delay: "wait", crash: "crash the process" };
const PRESETS = [
  ["20 % of prepares at payment fail", { service: "payment", point: "before_prepare", action: "error", percent: 20 }],
  ["stock takes 300 ms for every prepare", { service: "stock", point: "before_prepare", action: "delay", delay_ms: 300, percent: 100 }],
  ["payment does not acknowledge commits", { service: "payment", point: "before_commit", action: "error", percent: 100 }],
];

/** A rule in words. */
export function told({ times, percent, ...fault }) {
  const delay = fault.delay?.ms;
  const name = delay === undefined ? Object.keys(fault)[0]?.replace("error_afterwards", "error_after") ?? "?" : "delay";
  const what = delay === undefined ? ACTIONS[name] ?? name : `wait ${delay} ms`;
  return `${what}${percent ? `, in ${percent} % of cases` : ""}${times === null ? "" : times === 1 ? ", once more" : `, ${times} more times`}`;
}

export function chaos(panel) {
  const word = el("p", { class: "outcome", role: "status" });
  const field = (id, label, control) => el("div", { class: "field", id: `field-${id}` }, el("label", { for: id }, label), control);
  const choose = (id, options) => el("select", { id, name: id.replace("fault-", ""), onchange: match }, options.map(([value, text]) => el("option", { value }, text)));
  const number = (id, value, attributes) => el("input", { id, name: id.replace("fault-", ""), type: "number", value, ...attributes });
  const form = el("form", { class: "filters", id: "fault", onsubmit: (event) => {
    event.preventDefault();
    const { service, action, delay_ms, times, percent, point } = Object.fromEntries(new FormData(form));
    act(() => post(query(`/${service}/fault/set`, { point, action, delay_ms: action === "delay" ? delay_ms : "", times, percent: percent === "100" ? "" : percent })), `Set at ${service}, ${point}.`);
  } },
  field("fault-service", "Service", choose("fault-service", SERVICES.map((it) => [it, it]))),
  field("fault-point", "Point", choose("fault-point", POINTS.map((it) => [it, it.replace("_", " ")]))),
  field("fault-action", "What happens", choose("fault-action", Object.entries(ACTIONS))),
  field("fault-delay_ms", "Milliseconds", number("fault-delay_ms", 300, { min: 1, max: 60_000 })),
  field("fault-percent", "Percent of cases", number("fault-percent", 100, { min: 1, max: 100 })),
  field("fault-times", "How often (empty: always)", number("fault-times", "", { min: 1 })),
  el("button", { class: "danger" }, "Set"));
  function match() {
    form.querySelector("#field-fault-delay_ms").hidden = form.elements.action.value !== "delay";
  }
  match();
  const presets = el("div", { class: "actions" }, PRESETS.map(([text, values]) => el("button", { type: "button", class: "quiet", onclick: () => {
    for (const [name, value] of Object.entries(values)) form.elements[name].value = value;
    match();
    form.requestSubmit();
  } }, text)));
  const set = table("Faults that are set", ["Service", "Point", "What happens", ""]);
  const none = el("p", { class: "quiet" }, "Looking…");
  const charts = [throughput(), latency()];
  const effect = services();
  panel.append(el("h2", {}, "Chaos"),
    el("p", { class: "quiet" }, "Faults at the participants, in every instance of a service at once. Whatever you set, no cent and no item may be lost: run the audit afterwards."),
    el("section", { class: "card" }, el("h3", {}, "Set a fault"), presets, form, word),
    el("section", { class: "card" }, el("h3", {}, "Faults that are set"), none, set.element,
      el("div", { class: "actions" }, el("button", { class: "quiet", id: "clear-all", onclick: () => act(() => Promise.all(SERVICES.map((it) => post(`/${it}/fault/clear`))), "All cleared.") }, "Clear all"))),
    el("section", { class: "card" }, el("h3", {}, "What services answer"), effect.element),
    spanSwitch(),
    el("section", { class: "charts", "aria-label": "The effect" }, charts.map((it) => it.element)));
  async function act(how, done) {
    try {
      await how();
      word.dataset.level = "good";
      say(word, done);
    } catch (problem) {
      word.dataset.level = "bad";
      say(word, problem.message);
    }
    polled.now();
  }
  async function look() {
    let refused = null;
    const found = await Promise.all(SERVICES.map(async (service) => {
      try {
        const { rules } = await get(`/${service}/fault/rules`);
        return Object.entries(rules).map(([point, rule]) => ({ service, point, rule }));
      } catch (problem) {
        if (problem.code === "strange_host") refused = problem.message;
        return [];
      }
    }));
    say(none, refused ?? "No fault is set.");
    const all = found.flat();
    none.hidden = all.length > 0;
    set.element.hidden = all.length === 0;
    rows(set.body, all, (it) => `${it.service} ${it.point}`, ({ service, point, rule }) => el("tr", {},
      el("th", { scope: "row" }, service), el("td", {}, point.replace("_", " ")), el("td", {}, badge("warning", told(rule))),
      el("td", {}, el("button", { class: "quiet small", "data-act": "clear", "aria-label": `Clear ${point} at ${service}`, onclick: () => act(() => post(`/${service}/fault/clear?point=${point}`), `Cleared at ${service}, ${point}.`) }, "Clear"))));
  }
  const polled = poll(look);
  const ends = charts.map((it) => it.follow());
  ends.push(polled.end, listen(({ snapshot, points, marks, lost }) => {
    charts.forEach((it) => it.update(points, marks));
    effect.update(snapshot, lost);
  }));
  return () => ends.forEach((end) => end());
}
