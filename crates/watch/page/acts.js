// What operators do to a transaction: try it again, or settle a step of it by hand.

import { operator, post } from "./api.js";
import { el, words } from "./dom.js";
import { keepName, nameField } from "./gate.js";

/** Shows a dialog; resolves to what its form says, or to `null`. */
function dialog(title, fields, verb, level) {
  return new Promise((resolve) => {
    let said = null;
    const form = el("form", { method: "dialog", onsubmit: () => { said = Object.fromEntries(new FormData(form)); } },
      el("h2", { id: "dialog-title" }, title), fields,
      el("div", { class: "actions" }, el("button", { type: "button", class: "quiet", onclick: () => box.close() }, "Cancel"), el("button", { class: level }, verb)));
    const box = el("dialog", { "aria-labelledby": "dialog-title", onclose: () => {
      box.remove();
      resolve(said);
    } }, form);
    document.body.append(box);
    box.showModal();
  });
}

/** The steps of a transaction that wait for a person. */
export function openSteps(view) {
  const resolved = (letter) => view.record.resolutions.some((it) => it.step === letter.step && it.at >= letter.at);
  return view.record.finished ? [] : view.record.letters.filter((letter) => !resolved(letter));
}

export const service = (view, step) => view.record.transaction?.steps[step]?.service ?? `step ${step}`;

async function retry(view) {
  if (!operator()) {
    const said = await dialog("Who are you?", [
      el("p", {}, "The trail keeps who had a transaction tried again. Your name is asked for once, and remembered by this browser."),
      nameField("retry-operator"),
    ], "Retry now");
    if (!said) return null;
    keepName(said.operator);
  }
  await post(`/admin/transactions/${view.id}/retry`, { operator: operator() });
  return "Sent again. If the cause is mended, it finishes in a moment.";
}

async function resolve(view) {
  const letters = openSteps(view);
  const said = await dialog("Settle a step by hand", [
    el("p", {}, "This counts one step as acknowledged, so that the transaction can finish without its service. It changes no balance, and no decision. Do it only when the service cannot come back; else mend the cause and retry."),
    el("div", { class: "field" }, el("label", { for: "resolve-step" }, "Step"),
      el("select", { id: "resolve-step", name: "step" }, letters.map((it) => el("option", { value: it.step }, `${it.step}: ${service(view, it.step)} did not acknowledge ${words(it.verb)}`)))),
    nameField("resolve-operator"),
    el("div", { class: "field" }, el("label", { for: "resolve-reason" }, "What was done about it, and why it is right"),
      el("textarea", { id: "resolve-reason", name: "reason", rows: 3, required: true, maxlength: 1000, placeholder: "ticket 4711: …" })),
  ], "Settle by hand", "danger");
  if (!said) return null;
  keepName(said.operator);
  await post(`/admin/transactions/${view.id}/resolve`, { step: Number(said.step), operator: operator(), reason: said.reason.trim() });
  return "Settled by hand. It is in the trail, with your name and reason.";
}

/** What came of the last act on each transaction, for as long as somebody may want to read it: what it stood in is drawn anew meanwhile. */
const outcomes = new Map();
const READABLE = 30_000;

/** Buttons for what can be done to a transaction; `done` is told afterwards what came of it. */
export function buttons(view, done) {
  if (view.standing === "finished") return null;
  const word = el("p", { class: "outcome", role: "status" });
  const tell = () => {
    const last = outcomes.get(view.id);
    if (!last || Date.now() - last.at > READABLE) return;
    word.dataset.level = last.level;
    word.textContent = last.text;
  };
  tell();
  const act = (how) => async (event) => {
    event.target.disabled = true;
    try {
      const told = await how(view);
      if (told) outcomes.set(view.id, { at: Date.now(), level: "good", text: told });
    } catch (problem) {
      outcomes.set(view.id, { at: Date.now(), level: "bad", text: problem.message });
    }
    tell();
    event.target.disabled = false;
    done(outcomes.get(view.id));
  };
  return el("div", { class: "acts" },
    el("div", { class: "actions" },
      el("button", { "data-act": "retry", onclick: act(retry) }, "Retry now"),
      openSteps(view).length > 0 && el("button", { class: "quiet", "data-act": "resolve", onclick: act(resolve) }, "Settle by hand…")), word);
}
