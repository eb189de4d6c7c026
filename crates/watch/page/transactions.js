// Transactions: a list by state, service, order, user and age; and one of them as a timeline.

import { get, query } from "./api.js";
import { buttons } from "./acts.js";
import { clock, birth, el, lasting, replace, rows, say, table } from "./dom.js";
import { closed, isOpen, onGate } from "./gate.js";
import { live } from "./live.js";
import { decision, protocol, standing, timeline } from "./timeline.js";

const EVERY = 2000;
const AGES = [["", "any age"], ["1000", "older than 1 s"], ["10000", "older than 10 s"], ["60000", "older than 1 min"], ["600000", "older than 10 min"], ["3600000", "older than 1 h"]];
const NO_FILTER = { state: "", service: "", order: "", user: "", min_age_ms: "" };
const kept = { ...NO_FILTER, limit: "50" };
/** How ids of transactions are written; those of orders may be, too. */
const WRITTEN = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/i;
const NUMBER = /^\d{1,20}$/;

/** Asks again and again while the page is looked at; returns what ends that. */
export function poll(look) {
  let over = false;
  let timer = 0;
  const turn = async () => {
    clearTimeout(timer);
    if (!document.hidden && !live.lost) await look();
    if (!over) timer = setTimeout(turn, EVERY);
  };
  turn();
  return { now: turn, end: () => { over = true; clearTimeout(timer); } };
}

/** The list shows those that stand so, and no other filter, when it is opened next. */
export const showOnly = (state) => Object.assign(kept, NO_FILTER, { state });

function select(id, label, options, change) {
  const field = el("select", { id, name: id, onchange: change }, options.map(([value, text]) => el("option", { value, selected: kept[id] === value }, text)));
  return el("div", { class: "field" }, el("label", { for: id }, label), field);
}

function input(id, label, change) {
  return el("div", { class: "field" }, el("label", { for: id }, label), el("input", { id, name: id, value: kept[id], autocomplete: "off", spellcheck: "false", oninput: change }));
}

export function transactions(panel, id) {
  return id ? one(panel, id) : list(panel);
}

function list(panel) {
  const found = table("Transactions, unfinished ones first, the latest first of each", ["Transaction", "State", "Decision", "Protocol", "Order", "User", "Instance", "#Age"], { class: "wide" });
  const word = el("p", { class: "quiet", role: "status" }, "Looking…");
  const shut = el("div", {});
  const form = el("form", { class: "filters", "aria-label": "Filters", onsubmit: (event) => event.preventDefault() },
    select("state", "State", [["", "any state"], ["undecided", "undecided"], ["settling", "settling"], ["stuck", "stuck"], ["finished", "finished"]], change),
    select("service", "Service", [["", "any service"], ["stock", "stock"], ["payment", "payment"]], change),
    input("order", "Order", change), input("user", "User", change),
    select("min_age_ms", "Age", AGES, change),
    el("button", { type: "button", class: "quiet", onclick: () => choose({}) }, "Clear"));
  const whole = el("div", { class: "card" }, lookUp((order) => choose({ order })), form, word, found.element);
  panel.append(el("h2", {}, "Transactions"), shut, whole);
  function choose(these) {
    Object.assign(kept, NO_FILTER, these);
    form.reset();
    for (const field of form.elements) if (field.name in kept) field.value = kept[field.name];
    polled.now();
  }
  function change(event) {
    kept[event.target.name] = event.target.value.trim();
    polled.now();
  }
  async function look() {
    replace(shut, isOpen() === "yes" ? null : closed());
    whole.hidden = isOpen() !== "yes";
    if (whole.hidden) return;
    try {
      const views = await get(query("/admin/transactions", kept));
      say(word, views.length === 0 ? "None. Finished ones are forgotten after a while." : `${views.length} ${views.length === 1 ? "transaction" : "transactions"}${views.length >= Number(kept.limit) ? "; there may be more" : ""}`);
      rows(found.body, views.map((it) => ({ ...it, sendings: null, age_ms: lasting(it.age_ms) })), (it) => it.id, row);
    } catch (problem) {
      say(word, problem.message);
    }
  }
  const polled = poll(look);
  const ended = onGate(() => polled.now());
  return () => { polled.end(); ended(); };
}

/** Goes to the transaction with an id, or to those of the order with it, which `list` shows. */
function lookUp(list) {
  const field = el("input", { id: "look-up", name: "look-up", autocomplete: "off", spellcheck: "false", required: true, maxlength: 100, "aria-describedby": "looked-up" });
  const word = el("p", { id: "looked-up", class: "outcome", "data-level": "bad", "aria-live": "polite" });
  const find = async () => {
    // Whatever was copied around it.
    const id = field.value.toLowerCase().replace(/^[^0-9a-z]+|[^0-9a-z]+$/g, "");
    if (!WRITTEN.test(id) && !NUMBER.test(id)) return "That is no id. One of a transaction has 36 characters, such as 01a1fb84-5c00-7a31-9d52-0c6f1e2b3a44.";
    const ofOrder = await get(query("/admin/transactions", { order: id, limit: "2" }));
    if (ofOrder.length > 1) list(id);
    else if (ofOrder.length === 1) location.hash = `#/transactions/${ofOrder[0].id}`;
    else if (WRITTEN.test(id)) location.hash = `#/transactions/${id}`;
    else return `No transaction of an order ${id} is remembered: no checkout of it was begun, or it is long finished.`;
    return "";
  };
  return el("form", { class: "field", id: "look-up-form", onsubmit: async (event) => {
    event.preventDefault();
    say(word, "");
    say(word, await find().catch((problem) => problem.message));
  } }, el("label", { for: "look-up" }, "Look up the id of a transaction, or of an order"), el("div", { class: "inline" }, field, el("button", { class: "quiet" }, "Show")), word);
}

const row = (view) => el("tr", {},
  el("th", { scope: "row" }, el("a", { class: "id", href: `#/transactions/${view.id}`, title: view.id, "data-act": "open" }, view.id)),
  el("td", {}, standing(view)),
  el("td", {}, decision(view)),
  el("td", {}, protocol(view)),
  el("td", {}, view.order ? el("a", { class: "id short", href: `#/shop/order/${view.order}` }, view.order) : "–"),
  el("td", {}, view.user ? el("a", { class: "id short", href: `#/shop/user/${view.user}` }, view.user) : "–"),
  el("td", {}, view.record.owner ?? "–"),
  el("td", { class: "number" }, view.age_ms));

function one(panel, id) {
  const back = el("a", { href: "#/transactions", class: "back" }, "All transactions");
  const whole = el("div", { class: "card" }, el("p", { class: "quiet", role: "status" }, "Looking…"));
  panel.append(back, el("h2", {}, "Transaction ", el("span", { class: "id" }, id)), whole);
  let print = "";
  async function look() {
    if (isOpen() !== "yes") {
      print = "";
      return replace(whole, closed());
    }
    try {
      const view = await get(`/admin/transactions/${encodeURIComponent(id)}`);
      const fresh = JSON.stringify({ ...view, age_ms: 0 });
      // Nothing new: what is being read, or typed, is left alone.
      if (fresh === print) return;
      print = fresh;
      replace(whole, shown(view));
    } catch (problem) {
      print = "";
      replace(whole, el("p", { class: "notice", "data-level": "warning" }, problem.message));
    }
  }
  function shown(view) {
    const fact = (name, ...value) => el("div", {}, el("dt", {}, name), el("dd", {}, value));
    const shownAt = live.snapshot?.trace_url;
    const link = shownAt && view.trace && el("a", { href: shownAt.replace("{trace_id}", view.trace.id), rel: "noreferrer" }, "open");
    return [
      el("dl", { class: "facts" },
        fact("State", standing(view)), fact("Decision", decision(view)), fact("Protocol", protocol(view)),
        fact("Born", clock(birth(view.id), true)), fact(view.record.finished ? "Finished by" : "Driven by", view.record.owner ?? "–"),
        fact("Coordinator", view.driven ?? (view.standing === "finished" ? "done" : "nobody at this moment: recovery takes it up")),
        fact("Order", view.order ? el("a", { href: `#/shop/order/${view.order}` }, view.order) : "–"),
        fact("User", view.user ? el("a", { href: `#/shop/user/${view.user}` }, view.user) : "–"),
        link && fact("Trace", view.trace.certain ? link : ["if it was kept: ", link])),
      buttons(view, () => polled.now()),
      el("h3", {}, "What happened"), timeline(view)];
  }
  const polled = poll(look);
  const ended = onGate(() => polled.now());
  const leave = (event) => {
    if (event.key === "Escape" && !document.querySelector("dialog[open]")) location.hash = "#/transactions";
  };
  addEventListener("keydown", leave);
  return () => { polled.end(); ended(); removeEventListener("keydown", leave); };
}
