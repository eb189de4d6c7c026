// Whether whoever looks at this page may act as an operator; and how to get in, if not.

import { Problem, get, keepPassword, operator, keepOperator, password } from "./api.js";
import { el, replace } from "./dom.js";
import { listen, live } from "./live.js";

const watchers = new Set();
const gate = { open: null, why: null };
let asked = "";

/** Whether operators' actions are to be offered. `null`: nobody knows yet. */
export const isOpen = () => gate.open;
export const why = () => gate.why;

/** Calls `watcher` when that changes; returns what ends it. */
export function onGate(watcher) {
  watchers.add(watcher);
  return () => watchers.delete(watcher);
}

function set(open, because) {
  if (gate.open === open && gate.why === because) return;
  gate.open = open;
  gate.why = because;
  for (const watcher of watchers) watcher();
  show();
}

/** With a password there is only one way to know whether it is right. */
async function tryPassword() {
  try {
    await get("/admin/trail?limit=1");
    set("yes", null);
  } catch (problem) {
    if (problem.status === 401) {
      keepPassword("");
      set("password", "that password is wrong. Try again.");
    } else if (!(problem instanceof Problem) || problem.status !== 0) set("no", problem.message);
  }
}

function show() {
  const bar = document.getElementById("gate");
  bar.hidden = gate.open === "yes" || gate.open === null;
  if (bar.hidden) return;
  const words = [el("p", {}, el("strong", {}, "Operators only. "), "You see the figures; transactions, retries, resolutions and the audit are for operators: ", gate.why ?? "")];
  if (gate.open === "password") {
    const field = el("input", { type: "password", id: "password", autocomplete: "current-password", required: true });
    words.push(el("form", { class: "inline", onsubmit: (event) => {
      event.preventDefault();
      keepPassword(field.value);
      tryPassword().then(() => gate.open === "password" && document.getElementById("password").select());
    } }, el("label", { for: "password" }, "Password"), field, el("button", {}, "Let me in")));
  }
  replace(bar, words);
}

export function startGate() {
  listen(({ snapshot }) => {
    const { allowed, why: because } = snapshot.operators;
    const now = `${allowed} ${because}`;
    if (now === asked && !live.lost) return;
    asked = now;
    if (allowed === "password" && password()) tryPassword();
    else set(allowed, because);
  });
}

/** A field for the operator's name, which the trail keeps. */
export function nameField(id) {
  return el("div", { class: "field" }, el("label", { for: id }, "Your name, for the trail"),
    el("input", { id, name: "operator", value: operator(), required: true, pattern: ".*\\S.*", title: "Your name", maxlength: 100, autocomplete: "username", onchange: (event) => keepName(event.target.value) }));
}

/** Keeps the operator's name, wherever it was written, and shows it wherever it is asked for. */
export function keepName(name) {
  keepOperator(name.trim());
  for (const field of document.getElementsByName("operator")) field.value = operator();
}

/** In place of what only operators may see. */
export const closed = () => el("p", { class: "notice" }, el("strong", {}, "Operators only. "), gate.why ?? "It is not known yet whether you are let in.");
