// The page: its tabs, what the address says, and the head that stands above all of it.

import { audit } from "./audit.js";
import { chaos } from "./chaos.js";
import { clock, el, lasting, say, stuckText } from "./dom.js";
import { startGate } from "./gate.js";
import { listen, live, start } from "./live.js";
import { overview } from "./overview.js";
import { shop } from "./shop.js";
import { stuck } from "./stuck.js";
import { transactions } from "./transactions.js";

const TABS = [
  ["overview", "Overview", overview],
  ["transactions", "Transactions", transactions],
  ["stuck", "Stuck and dead letters", stuck],
  ["shop", "Shop", shop],
  ["chaos", "Chaos", chaos],
  ["audit", "Audit", audit],
];
const LEVELS = { good: "All is well", warning: "Somebody should look", bad: "Somebody must look, now", unknown: "Nobody knows" };

const panel = document.getElementById("panel");
const tabs = document.getElementById("tabs");
let leave = () => {};
let shown = "";

for (const [name, text] of TABS) {
  const marks = name === "stuck" ? el("span", { class: "count", id: "stuck-count", hidden: true }) : null;
  tabs.append(el("a", { role: "tab", id: `tab-${name}`, href: `#/${name}`, "aria-controls": "panel", "aria-selected": "false", tabindex: "-1", hidden: name === "chaos" }, name === "stuck" ? ["Stuck", el("span", { class: "roomy" }, " and dead letters")] : text, marks));
}

tabs.addEventListener("keydown", (event) => {
  const there = [...tabs.children].filter((tab) => !tab.hidden);
  const at = there.indexOf(document.activeElement);
  const to = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: there.length - 1 }[event.key];
  if (to === undefined || at < 0) return;
  event.preventDefault();
  const tab = there[(to + there.length) % there.length];
  location.hash = tab.getAttribute("href");
  tab.focus();
});

/** `#/transactions/ID` as its parts. */
const parts = () => location.hash.replace(/^#\/?/, "").split("/").filter(Boolean).map((it) => {
  try {
    return decodeURIComponent(it);
  } catch {
    return it;
  }
});

function route() {
  if (location.hash === "#panel") {
    // The browser has moved the focus there as a rule; and whoever was quick may have gone on from there before this is told.
    if (!panel.contains(document.activeElement)) panel.focus();
    return;
  }
  const [name = "overview", ...rest] = parts();
  const found = TABS.find(([known]) => known === name) ?? TABS[0];
  // Nobody knows yet whether there is chaos.
  const [tab, text, draw] = found[0] === "chaos" && live.snapshot && !live.snapshot.chaos ? TABS[0] : found;
  leave();
  panel.replaceChildren();
  panel.setAttribute("aria-labelledby", `tab-${tab}`);
  for (const one of tabs.children) {
    const chosen = one.id === `tab-${tab}`;
    one.setAttribute("aria-selected", String(chosen));
    one.tabIndex = chosen ? 0 : -1;
    if (chosen) one.scrollIntoView({ block: "nearest", inline: "nearest" });
  }
  shown = text;
  leave = draw(panel, ...rest) ?? (() => {});
  head(live);
}

const verdict = document.getElementById("verdict");
let gist = "";
/** Numbers that are not part of a name, such as order-1. */
const FIGURES = /(?<![\w-])\d[\d,.]*/g;

function head({ snapshot, lost, lastWord }) {
  const connection = document.getElementById("connection");
  const word = lost ? (lastWord ? `no word from the server since ${clock(lastWord)}; trying again` : "the server does not answer; trying again") : snapshot ? "live" : "connecting";
  say(connection, word);
  connection.dataset.state = lost ? "lost" : snapshot ? "live" : "waiting";
  document.body.classList.toggle("lost", lost);
  const stale = document.getElementById("stale");
  stale.hidden = !lost || !snapshot;
  if (!snapshot) {
    if (lost) say(document.getElementById("verdict-text"), "The server does not answer: nobody knows how the shop fares");
    return;
  }
  say(stale, `What is shown is how it was at ${clock(snapshot.at)}. It may be otherwise by now.`);
  say(document.getElementById("title"), `${snapshot.title} ${snapshot.version}${snapshot.production ? " · production" : ""}`);
  // What was well when it was seen last may not be any more.
  const now = lost ? { level: "unknown", text: `No word from the shop for ${lasting(Date.now() - lastWord)}: nobody knows how it fares` } : snapshot.verdict;
  say(document.getElementById("verdict-text"), now.text);
  verdict.dataset.level = now.level;
  const { level } = now;
  // Only a change is worth interrupting somebody who listens, and a figure changes every second.
  const fresh = `${level} ${now.text.split(" · ")[0].replace(FIGURES, "")}`;
  if (fresh !== gist) {
    gist = fresh;
    say(document.getElementById("verdict-news"), `${LEVELS[level]}: ${now.text}`);
  }
  document.title = `${{ good: "", warning: "! ", bad: "!! ", unknown: "? " }[level] ?? ""}${shown} · Settle`;
  const faults = document.getElementById("faults");
  faults.hidden = snapshot.faults.length === 0;
  say(faults, `Faults are injected: ${snapshot.faults.map((it) => it.words).join(", ")}`);
  const stuckCount = document.getElementById("stuck-count");
  stuckCount.hidden = !snapshot.stuck;
  say(stuckCount, stuckText(snapshot.stuck));
  const chaosTab = document.getElementById("tab-chaos");
  if (chaosTab.hidden === snapshot.chaos) chaosTab.hidden = !snapshot.chaos;
}

addEventListener("hashchange", route);
listen(head);
startGate();
route();
start();
