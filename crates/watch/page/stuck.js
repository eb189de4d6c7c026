// What waits for a person, and what persons did.

import { get } from "./api.js";
import { buttons, openSteps, service } from "./acts.js";
import { badge, clock, el, lasting, replace, rows, say, table, words } from "./dom.js";
import { closed, isOpen, nameField, onGate } from "./gate.js";
import { poll } from "./transactions.js";

/** So many are shown at a time: a cause that is mended settles the others, too. */
const SHOWN = 20;
const MOST = 100;

export function stuck(panel) {
  const shut = el("div", {});
  const word = el("p", { class: "quiet", role: "status" }, "Looking…");
  // What came of the last act stands here, too: the card of a transaction that is stuck no more is gone.
  const said = el("p", { class: "outcome", role: "status", id: "last-act" });
  const cards = el("div", { class: "cards" });
  const trail = table("What operators did, the latest first", ["When", "Who", "What", "Transaction", "Why", "Outcome"], { class: "wide" });
  const more = el("p", { hidden: true }, `The latest ${SHOWN} are shown. `, el("a", { href: "#/transactions" }, "Find the others"), " by their state.");
  const none = el("p", { class: "quiet" }, "Operators have done nothing yet.");
  const whole = el("div", {}, el("div", { class: "filters" }, nameField("trail-operator")), word, said, cards, more,
    el("section", { class: "card" }, el("h2", {}, "Audit trail"), el("p", { class: "quiet" }, "Every retry and every resolution by an operator is written down before it is done, and kept with the orders."), none, trail.element));
  panel.append(el("h2", {}, "Stuck and dead letters"), shut, whole);
  async function look() {
    replace(shut, isOpen() === "yes" ? null : closed());
    whole.hidden = isOpen() !== "yes";
    if (whole.hidden) return;
    try {
      const [views, entries] = await Promise.all([get(`/admin/transactions?state=stuck&limit=${MOST}`), get("/admin/trail?limit=100")]);
      say(word, views.length === 0 ? "Nothing is stuck. Nobody needs to do anything." : `${views.length === 1 ? "1 transaction is" : `${views.length < MOST ? views.length : `${MOST} or more`} transactions are`} stuck: decided, and a service does not acknowledge. Each is still tried every ten seconds; nothing is lost.`);
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
      el("p", {}, "Order ", view.order ? el("a", { href: `#/shop/order/${view.order}` }, view.order) : "–", ", decided ", el("strong", {}, view.record.decided?.[0] === "commit" ? "commit" : "abort"), ", driven by ", view.record.owner ?? "nobody"),
      openSteps(view).map((letter) => {
        const sending = view.sendings.find((it) => it.step === letter.step);
        return el("dl", { class: "facts" },
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

const entry = ({ note, outcome }) => el("tr", {},
  el("td", {}, el("time", { title: clock(note.at, true) }, clock(note.at))),
  el("td", {}, note.operator),
  el("td", {}, note.step === null ? note.act : `${note.act} step ${note.step}`),
  el("td", {}, el("a", { class: "id short", href: `#/transactions/${note.transaction}` }, note.transaction)),
  el("td", {}, note.reason ?? "–"),
  el("td", {}, outcome === null ? badge("warning", "not known: look at the transaction") : outcome));
