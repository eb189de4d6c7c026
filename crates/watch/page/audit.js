// Whether money and stock agree: what the audit found last, and an audit now.

import { get, post } from "./api.js";
import { badge, clock, count, el, lasting, replace, say, words } from "./dom.js";
import { closed, isOpen, onGate } from "./gate.js";
import { listen } from "./live.js";

export function audit(panel) {
  const shut = el("div", {});
  const continuous = el("p", {}, "");
  const result = el("div", { id: "audit-result", "aria-live": "polite" });
  const button = el("button", { id: "audit-now", onclick: run }, "Run the audit now");
  const whole = el("div", {}, el("div", { class: "actions" }, button), result);
  panel.append(el("h2", {}, "Audit"),
    el("p", { class: "quiet" }, "What was charged must be what paid orders cost; what was sold must be what stands in them; no account may contradict itself, and no order the log."),
    el("section", { class: "card" }, el("h3", {}, "Continuously"), continuous),
    el("section", { class: "card" }, el("h3", {}, "Now"), shut, whole));
  async function run() {
    button.disabled = true;
    replace(result, el("p", { class: "quiet" }, "Looking at every account and every order…"));
    try {
      const began = performance.now();
      const report = await post("/admin/audit");
      replace(result, shown(report, performance.now() - began));
    } catch (problem) {
      const why = problem.status === 404 ? "this server audits nothing by itself: use `settle audit`" : problem.message;
      replace(result, el("p", { class: "notice", "data-level": "warning" }, why));
    }
    button.disabled = false;
  }
  const enter = () => {
    const open = isOpen() === "yes";
    replace(shut, open ? null : closed());
    whole.hidden = !open;
    // What the last audit found stands there until the next.
    if (open) get("/admin/audit").then((report) => report.at && result.childElementCount === 0 && replace(result, shown(report)), () => {});
  };
  enter();
  const ended = [onGate(enter), listen(({ snapshot }) => {
    const last = snapshot.audit;
    say(continuous, !last ? "No auditor runs continuously here, or it has not said anything yet."
      : `Last at ${clock(last.at)}${last.at ? ` (${lasting(snapshot.at - last.at)} ago)` : ""}: ${last.findings === 0 ? "nothing is off" : `${count(last.findings)} findings`}. ${count(last.checked)} accounts and orders looked at so far${last.complete ? "" : "; the first round is not complete"}.`);
  })];
  return () => ended.forEach((end) => end());
}

/** A finding, as one line: `{ "charged": { "user": "7", "off_by": -5 } }`. */
function line(finding) {
  if (typeof finding === "string") return finding;
  const [[kind, about]] = Object.entries(finding);
  const told = (value) => (value !== null && typeof value === "object" ? Object.entries(value).map(([name, it]) => `${words(name)} ${told(it)}`).join(", ") : String(value));
  return `${words(kind)}: ${told(about)}`;
}

function shown(report, millis) {
  const findings = report.findings ?? [];
  const total = report.off ?? findings.length;
  // While something is under way, one side has what the other has not yet.
  const verdict = total > 0 ? badge("bad", `${count(total)} findings`)
    : report.compared === false ? badge("warning", `Nothing is off; money and stock cannot be compared while transactions are open: ${count(report.open_transactions)}`)
      : badge("good", "Money and stock agree");
  const numbers = Object.entries(report).filter(([, value]) => typeof value === "number" || typeof value === "string");
  return [
    el("p", {}, verdict, millis === undefined ? "" : ` at ${clock(Date.now())}, after ${millis.toFixed(0)} ms`),
    el("dl", { class: "facts" }, numbers.map(([name, value]) => el("div", {}, el("dt", {}, words(name)), el("dd", {}, typeof value === "number" && value > 1e12 ? clock(value) : typeof value === "number" ? count(value) : value)))),
    total > 0 && el("ul", { class: "findings" }, findings.map((it) => el("li", {}, line(it)))),
  ];
}
