// Whether money and stock agree: what the continuous audit says, and an audit now.

import { get, post } from "./api.js";
import { badge, clock, count, el, lasting, replace, rows, say, table, words } from "./dom.js";
import { closed, isOpen, onGate } from "./gate.js";
import { listen, live } from "./live.js";
import { poll } from "./transactions.js";

/** So often it looks for a moment at which nothing is under way; the server itself waits two seconds each time. */
const TRIES = 4;
const BETWEEN = 500;

const NAMES = {
  by: "Whose word it is", runs: "Full passes", at: "The last ended at", checked: "Looked at", postponed: "Comparisons put off in the last pass",
  trouble: "Why a pass was given up", paid_orders: "Paid orders", paid_cost: "What they cost", items: "Items", users: "Users", open_transactions: "Transactions under way",
};

/** What each of the two says, so that neither seems to contradict the other. */
const ASSERTS = {
  continuously: "It goes from account to account and compares each with its paid orders at a moment when nothing of that account is under way: “money and stock agree”, also at the top of this page, means that every account it could compare so does.",
  now: "It looks at every account at once and compares the sums with all paid orders, which is possible only while no transaction at all is under way: while one is, it says of each account whether that adds up in itself, and leaves the comparison to the continuous audit.",
};

const things = (n, thing) => `${count(n)} ${thing}${n === 1 ? "" : "s"}`;
const are = (n, thing) => `${things(n, thing)} ${n === 1 ? "is" : "are"}`;

export function audit(panel) {
  const shut = el("div", {});
  const continuous = el("p", {}, "");
  const word = el("div", { id: "audit-continuous" });
  const result = el("div", { id: "audit-result", "aria-live": "polite" });
  const button = el("button", { id: "audit-now", onclick: run }, "Run the audit now");
  const whole = el("div", {}, el("div", { class: "actions" }, button), result);
  panel.append(el("h2", {}, "Audit"),
    el("p", { class: "quiet" }, "What was charged must be what paid orders cost; what was sold must be what stands in them; no account may contradict itself, and no order the log."),
    el("section", { class: "card" }, el("h3", {}, "Continuously"), el("p", { class: "quiet" }, ASSERTS.continuously), continuous, word),
    el("section", { class: "card" }, el("h3", {}, "Now"), el("p", { class: "quiet" }, ASSERTS.now), shut, whole));
  let over = false;
  let last = null;
  async function run() {
    button.disabled = true;
    replace(result, el("p", { class: "quiet" }, "Looking at every account and every order…"));
    try {
      const began = performance.now();
      for (let left = TRIES - 1; !over; left -= 1) {
        const report = await post("/admin/audit");
        const again = !report.compared && report.off === 0 && left > 0;
        replace(result, ofNow(report, performance.now() - began, again, last));
        if (!again) break;
        await new Promise((done) => { setTimeout(done, BETWEEN); });
      }
    } catch (problem) {
      const why = problem.status === 404 ? "this server audits nothing by itself: use `settle audit`" : problem.message;
      replace(result, el("p", { class: "notice", "data-level": "warning" }, why));
    }
    button.disabled = false;
  }
  let print = "";
  async function look() {
    if (isOpen() !== "yes") return;
    try {
      last = await get("/admin/audit");
    } catch {
      // Nobody leads, or this server has no auditor: the figures above say as much.
      last = null;
    }
    // What is being read is left alone unless something else is off.
    const fresh = JSON.stringify(last?.findings ?? null) + (last?.at ? "" : "none") + (last?.trouble ?? "");
    if (fresh === print) return tell(last);
    print = fresh;
    replace(word, last?.at ? [facts(last), findings(last.findings, last.off)] : null);
  }
  function tell(report) {
    for (const [name, value] of Object.entries(report ?? {})) {
      const shown = word.querySelector(`[data-name="${CSS.escape(name)}"]`);
      if (shown) say(shown, fact(value));
    }
  }
  const polled = poll(look);
  const enter = () => {
    const open = isOpen() === "yes";
    replace(shut, open ? null : closed());
    whole.hidden = !open;
    polled.now();
  };
  enter();
  const ended = [onGate(enter), listen(({ snapshot }) => {
    const said = snapshot.audit;
    say(continuous, !said ? "No auditor runs continuously here, or it has not said anything yet."
      : said.complete ? `Last at ${clock(said.at)} (${lasting(snapshot.at - said.at)} ago): ${said.findings === 0 ? "nothing is off" : `${are(said.findings, "thing")} off`}. ${count(said.checked)} accounts and orders looked at so far.`
        : `No pass has ended yet; ${said.findings === 0 ? "nothing found so far" : `${are(said.findings, "thing")} off already`}: ${count(said.checked)} accounts and orders looked at.`);
  })];
  return () => {
    over = true;
    polled.end();
    ended.forEach((end) => end());
  };
}

const fact = (value) => (typeof value === "number" ? (value > 1e12 ? clock(value) : count(value)) : value);

function facts(report) {
  const told = Object.entries(report).filter(([name, value]) => name in NAMES && value !== null);
  return el("dl", { class: "facts" }, told.map(([name, value]) => el("div", {}, el("dt", {}, NAMES[name]), el("dd", { "data-name": name }, fact(value)))));
}

/** What is off, in words; since when, and the transactions that it may go back to, where that is known. */
function findings(list, all) {
  if (list.length === 0) return null;
  return el("div", { class: "findings" },
    list.map((it) => el("article", { class: "finding" },
      el("h4", {}, it.text),
      el("p", { class: "quiet" }, it.since ? `Since ${clock(it.since)}. ` : "The continuous audit has not met it yet. ",
        it.transactions?.length ? "It may go back to these, the likeliest first:" : it.since ? "No transaction is remembered that it may go back to." : "It says which transactions it may go back to."),
      it.transactions?.length > 0 && named(it))),
    all > list.length && el("p", {}, `The first ${count(list.length)} of ${count(all)} are shown.`));
}

function named(found) {
  const whole = table(`Transactions: ${found.text}`, ["Transaction", "Order", "Step", "Branch", "Caused it"]);
  rows(whole.body, found.transactions, (it) => `${it.transaction} ${it.step}`, (it) => el("tr", {},
    el("th", { scope: "row" }, el("a", { class: "id", href: `#/transactions/${it.transaction}` }, it.transaction)),
    el("td", {}, it.order ? el("a", { class: "id short", href: `#/shop/order/${it.order}` }, it.order) : "–"),
    el("td", {}, `${it.step}, ${it.service}`),
    el("td", {}, words(it.branch) || "–"),
    el("td", {}, it.caused ? badge("bad", "yes") : "perhaps")));
  return whole.element;
}

function ofNow(report, millis, again, continuous) {
  // The continuous audit knows more of what both have found.
  const known = new Map((continuous?.findings ?? []).map((it) => [JSON.stringify(it.finding), it]));
  const found = report.findings.map((it, at) => known.get(JSON.stringify(it)) ?? { text: report.texts[at] });
  const when = ` at ${clock(Date.now())}, after ${millis < 1000 ? `${millis.toFixed(0)} ms` : `${(millis / 1000).toFixed(1)} s`}`;
  const verdict = report.off > 0 ? badge("bad", `${are(report.off, "thing")} off`) : report.compared ? badge("good", "Money and stock agree") : badge("warning", "Not compared");
  return [
    el("p", {}, verdict, when),
    report.off === 0 && !report.compared && el("p", {}, unseen(report, again)),
    facts(report),
    findings(found, report.off),
  ];
}

/** Why orders were not compared with accounts, and what comes of it. */
function unseen({ open_transactions: open }, again) {
  const why = open > 0 ? `${are(open, "transaction")} under way` : "transactions came and went while it looked";
  const instead = live.snapshot?.audit?.complete && live.snapshot.audit.findings === 0 ? " That does not contradict the continuous audit above: account by account it found nothing off." : "";
  return `Every account adds up in itself. All of them at once could not be compared with the orders, since ${why}. ${again ? "It is tried again…"
    : `It was tried several times: run it again when ${open > 0 ? "nothing is under way" : "less is going on"}.`}${instead}`;
}
