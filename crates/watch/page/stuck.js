// What waits for a person, and what persons did.

import { get } from "./api.js";
import { buttons, openSteps, service } from "./acts.js";
import { badge, clock, el, lasting, replace, rows, say, table, words } from "./dom.js";
import { closed, isOpen, nameField, onGate } from "./gate.js";
import { decision } from "./timeline.js";
import { poll, showOnly } from "./transactions.js";

/** So many are shown at a time: a cause that is mended settles the others, too. */
const SHOWN = 20;
const MOST = 100;
/** Whatever settles as it should is settled by then. Milliseconds. */
const LONG = 1000;

export function stuck(panel) {
  const shut = el("div", {});
  const word = el("p", { class: "quiet", role: "status" }, "Looking…");
  // What came of the last act stands here, too: the card of a transaction that is stuck no more is gone.
  const said = el("p", { class: "outcome", role: "status", id: "last-act" });
  const settling = el("span", {});
  const underWay = el("p", { id: "under-way", hidden: true }, settling, el("a", { href: "#/transactions", onclick: () => showOnly("settling") }, "See which"));
  const cards = el("div", { class: "cards" });
  const trail = table("What operators did, the latest first", ["When", "Who", "What", "Transaction", "Why", "Outcome"], { class: "wide" });
  const more = el("p", { hidden: true }, `The latest ${SHOWN} are shown. `, el("a", { href: "#/transactions" }, "Find the others"), " by their state.");
  const none = el("p", { class: "quiet" }, "Operators have done nothing yet.");
  const whole = el("div", {}, el("div", { class: "filters" }, nameField("trail-operator")), word, underWay, said, cards, more,
    el("section", { class: "card" }, el("h2", {}, "Audit trail"), el("p", { class: "quiet" }, "Every retry and every resolution by an operator is written down before it is done, and kept with the orders."), none, trail.element));
  panel.append(el("h2", {}, "Stuck and dead letters"), shut, whole);
  async function look() {
    replace(shut, isOpen() === "yes" ? null : closed());
    whole.hidden = isOpen() !== "yes";
    if (whole.hidden) return;
    try {
      const [views, late, entries] = await Promise.all([get(`/admin/transactions?state=stuck&limit=${MOST}`), get(`/admin/transactions?state=settling&min_age_ms=${LONG}&limit=${MOST}`), get("/admin/trail?limit=100")]);
      say(word, views.length === 0 ? "Nothing is stuck. Nobody needs to do anything." : `${transactionsAre(views.length)} stuck: decided, and a service does not acknowledge. Each is still tried every ten seconds; nothing is lost.`);
      underWay.hidden = late.length === 0;
      say(settling, `${transactionsAre(late.length)} still settling: the decision stands, and what a service has not acknowledged yet is sent again by itself. `);
      rows(cards, views.slice(0, SHOWN).map((it) => ({ ...it, age_ms: 0 })), (it) => it.id, card);
      more.hidden = views.length <= SHOWN;
      rows(trail.body, entries, (it) => it.number, entry);
      none.hidden = entries.length > 0;
      trail.element.hidden = entries.length === 0;
    } catch (problem) {
      say(word, problem.message);
    }
  }
  function card(view) {
    return el("article", { class: "card stuck-one" },
      el("h3", {}, el("a", { class: "id", href: `#/transactions/${view.id}` }, view.id)),
      el("p", {}, "Order ", named("order", view.order), " of user ", named("user", view.user), ", decided ", el("strong", {}, decision(view)), ", driven by ", view.record.owner ?? "nobody"),
      el("p", { class: "told" }, answered(view)),
      openSteps(view).map((letter) => {
        const sending = view.sendings.find((it) => it.step === letter.step);
        return el("dl", { class: "facts" },
          fact("At stake", atStake(view, letter)),
          fact("Why", el("strong", {}, service(view, letter.step)), ` does not acknowledge ${words(letter.verb)}: ${letter.error}`),
          fact("Since", `${clock(letter.at)} (${lasting(Date.now() - letter.at)} ago), after ${letter.attempts} attempts`),
          fact("Next attempt", sending?.next ? `${clock(sending.next)}, number ${sending.attempts + 1}` : "when whoever drives it is back"));
      }), buttons(view, (outcome) => {
        polled.now();
        if (!outcome) return;
        said.dataset.level = outcome.level;
        replace(said, `${outcome.text} `, el("a", { class: "id", href: `#/transactions/${view.id}` }, view.id));
      }));
  }
  const fact = (name, ...value) => el("div", {}, el("dt", {}, name), el("dd", {}, value));
  const polled = poll(look);
  const ended = onGate(() => polled.now());
  return () => { polled.end(); ended(); };
}

const transactionsAre = (n) => (n === 1 ? "1 transaction is" : `${n < MOST ? n : `${MOST} or more`} transactions are`);

const named = (kind, id) => (id ? el("a", { class: "id", href: `#/shop/${kind}/${id}` }, id) : "–");

/** What the customer knows of it. Whoever took it over, or found it behind a crash, had nobody waiting for the answer. */
function answered({ record }) {
  const [decided] = record.decided ?? [];
  const alone = (record.history?.handovers ?? []).some((it) => !it.decided) || ["recovered", "never_staged"].includes(decided?.abort);
  if (!decided) return "The customer was told that it is in doubt, or waits.";
  if (decided === "commit") return alone ? "The order is paid. Whoever drove it was gone when that was decided: the customer may have had no answer, and is told so when he asks again." : "The customer was told that the order is paid.";
  return alone ? "It failed, and the order can be checked out again. Whoever drove it was gone when that was decided: the customer may have had no answer." : "The customer was told that it failed.";
}

/** What a step that is not acknowledged leaves open, and how much of it. */
const OPEN = {
  commit: (at, all) => `Held at ${at}, and not captured yet: ${all}.`,
  abort: (at, all) => `What ${at} may hold for it is not released yet: at most ${all}.`,
  compensate: (at, all) => `What ${at} may have done for it is not undone yet: at most ${all}.`,
  execute: (at, all) => `Nobody knows yet whether ${at} has done it: ${all}.`,
};

function atStake(view, { step, verb }) {
  const open = OPEN[verb] ?? ((at, all) => `Nobody knows yet what ${at} did of it: ${all}.`);
  return open(service(view, step), view.parts?.[step] ?? "the log does not say how much");
}

const entry = ({ note, outcome }) => el("tr", {},
  el("td", {}, el("time", { title: clock(note.at, true) }, clock(note.at))),
  el("td", {}, note.operator),
  el("td", {}, note.step === null ? note.act : `${note.act} step ${note.step}`),
  el("td", {}, el("a", { class: "id short", href: `#/transactions/${note.transaction}` }, note.transaction)),
  el("td", {}, note.reason ?? "–"),
  el("td", {}, outcome === null ? badge("warning", "not known: look at the transaction") : outcome));
