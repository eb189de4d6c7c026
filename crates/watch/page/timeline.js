// One transaction's life, as it is told at /admin/transactions/{id}.

import { badge, birth, clock, el, lasting, words } from "./dom.js";

const TITLES = {
  staged: "staged in the log",
  agreed: "agreed",
  refused: "refused",
  unanswered: "did not answer in time",
  waiting: "has not answered yet",
  decided: "decided",
  taken_over: "taken over",
  resumed: "taken up again",
  dead_letter: "became a dead letter",
  retried: "tried again by an operator",
  resolved: "settled by hand",
  acknowledged: "acknowledged",
  finished: "finished: nothing is left to do",
};
const LEVELS = { refused: "warning", unanswered: "warning", taken_over: "warning", resumed: "warning", waiting: "warning", dead_letter: "bad", resolved: "warning", agreed: "good", acknowledged: "good", finished: "good" };
const STANDINGS = { undecided: ["warning", "undecided"], settling: ["warning", "settling"], stuck: ["bad", "stuck"], finished: ["good", "finished"] };

/** Where a transaction stands, as a badge. */
export function standing(view) {
  const [level, text] = STANDINGS[view.standing] ?? ["warning", view.standing];
  return badge(level, text);
}

/** What was decided: `commit`, `abort`, or nothing yet. */
export function decision(view) {
  const decided = view.record.decided?.[0];
  if (!decided) return "–";
  return decided === "commit" ? "commit" : "abort";
}

export const protocol = (view) => view.record.transaction?.protocol ?? "–";

export function timeline(view) {
  const began = birth(view.id);
  return el("ol", { class: "timeline" }, view.timeline.map((it) => el("li", { "data-level": LEVELS[it.what] ?? "calm", "data-what": it.what },
    el("span", { class: "when" }, it.at ? el("time", { title: clock(it.at, true) }, it.at === began ? clock(it.at) : `+${span(it.at - began)}`) : el("span", { class: "quiet" }, it.what === "waiting" ? "now" : "time not kept")),
    el("span", { class: "what" },
      it.service && el("strong", {}, `${it.service} `), it.what === "decided" ? `decided: ${it.detail}` : TITLES[it.what] ?? words(it.what),
      it.attempt ? el("span", { class: "quiet" }, ` · attempt ${it.attempt}`) : null,
      it.by ? el("span", { class: "quiet" }, ` · by ${it.by}`) : null,
      it.detail && it.what !== "decided" ? el("span", { class: "detail" }, it.next ? `${it.detail}; next ${clock(it.next)}` : it.detail) : null))));
}

const span = (millis) => (millis < 10_000 ? `${millis} ms` : lasting(millis));
