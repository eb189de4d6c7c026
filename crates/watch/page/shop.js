// Orders, users and items as any client sees them; an order's life; and a test order, made and checked out from here.

import { get, post } from "./api.js";
import { count, el, replace, say } from "./dom.js";
import { isOpen } from "./gate.js";
import { live } from "./live.js";
import { decision, standing, timeline } from "./timeline.js";

/** How soon an order that is under way is asked for again. Milliseconds. */
const AGAIN = 500;

const KINDS = { order: ["Order", "/orders/find/"], user: ["User", "/payment/find_user/"], item: ["Item", "/stock/find/"] };

export function shop(panel, kind, id) {
  const result = el("div", { "aria-live": "polite" });
  const search = (name) => {
    const field = el("input", { id: `find-${name}`, name: "id", required: true, autocomplete: "off", spellcheck: "false", value: kind === name ? id : "" });
    return el("form", { class: "field", onsubmit: (event) => {
      event.preventDefault();
      const target = `#/shop/${name}/${encodeURIComponent(field.value.trim())}`;
      if (location.hash === target) show(name, field.value.trim());
      else location.hash = target;
    } }, el("label", { for: `find-${name}` }, `Find ${name === "item" ? "an" : name === "order" ? "an" : "a"} ${name}`), el("div", { class: "inline" }, field, el("button", { class: "quiet" }, "Find")));
  };
  panel.append(el("h2", {}, "Shop"), el("div", { class: "filters" }, ["order", "user", "item"].map(search)), result, testOrder((order) => { location.hash = `#/shop/order/${order}`; }));
  let left = false;
  let asked = 0;
  async function show(name, text) {
    const [title, path] = KINDS[name];
    asked += 1;
    const mine = asked;
    try {
      const found = await get(path + encodeURIComponent(text));
      replace(result, el("section", { class: "card", id: "found" }, el("h3", {}, `${title} `, el("span", { class: "id" }, text)), el("div", { id: "facts" }, SHOWN[name](found)), name === "order" && el("div", { id: "life" })));
      // What is under way is looked at until it is settled.
      for (let settled = name !== "order"; !settled;) {
        settled = await life(text, result.querySelector("#life"));
        if (settled) break;
        await new Promise((done) => { setTimeout(done, AGAIN); });
        if (left || mine !== asked) break;
        replace(result.querySelector("#facts"), SHOWN[name](await get(path + encodeURIComponent(text))));
      }
    } catch (problem) {
      replace(result, el("p", { class: "notice", id: "found", "data-level": "warning" }, problem.message));
    }
  }
  if (KINDS[kind] && id) show(kind, id);
  return () => { left = true; };
}

const fact = (name, ...value) => el("div", {}, el("dt", {}, name), el("dd", {}, value));

const SHOWN = {
  order: (it) => el("dl", { class: "facts" }, fact("State", it.paid ? "paid" : "not paid"), fact("User", el("a", { href: `#/shop/user/${it.user_id}` }, it.user_id)), fact("Total", count(it.total_cost)),
    fact("Items", it.items.length === 0 ? "none" : el("ul", {}, it.items.map(([item, units]) => el("li", {}, `${count(units)} × item `, el("a", { href: `#/shop/item/${item}` }, item)))))),
  user: (it) => el("dl", { class: "facts" }, fact("Credit", count(it.credit))),
  item: (it) => el("dl", { class: "facts" }, fact("Stock", count(it.stock)), fact("Price", count(it.price))),
};

/** Every checkout of an order that the log still knows; whether all of it is settled. */
async function life(order, place) {
  const nothing = (why) => {
    replace(place, el("p", { class: "quiet" }, why));
    return true;
  };
  if (isOpen() !== "yes") return nothing("Its checkouts are for operators to see.");
  const views = await get(`/admin/transactions?order=${encodeURIComponent(order)}`);
  if (views.length === 0) return nothing("No checkout of it is remembered: none was begun, or it is long finished.");
  const whole = await Promise.all(views.slice(0, 5).map((it) => get(`/admin/transactions/${it.id}`)));
  replace(place, el("h3", {}, "Its checkouts, the latest first"), whole.map((it) => el("article", { class: "checkout" },
    el("p", {}, el("a", { class: "id", href: `#/transactions/${it.id}` }, it.id), " ", standing(it), ` ${decision(it)}`), timeline(it))));
  return whole.every((it) => it.standing === "finished");
}

/** The steps of the last test order and their times: its order is shown at once, and they stay to be read. */
const log = el("ol", { class: "steps", "aria-live": "polite" });

function testOrder(open) {
  const number = (id, label, value) => el("div", { class: "field" }, el("label", { for: id }, label), el("input", { id, name: id, type: "number", min: 0, max: 1_000_000, value, required: true }));
  const step = async (text, work) => {
    const state = el("span", { class: "badge", "data-level": "warning" }, "…");
    log.append(el("li", {}, state, ` ${text}`));
    try {
      const began = performance.now();
      const answer = await work();
      state.dataset.level = "good";
      say(state, "done");
      log.lastChild.append(el("span", { class: "quiet" }, ` after ${(performance.now() - began).toFixed(0)} ms`));
      return answer;
    } catch (problem) {
      state.dataset.level = "bad";
      say(state, "refused");
      log.lastChild.append(el("span", { class: "detail" }, problem.message));
      throw problem;
    }
  };
  const run = async (form) => {
    const [price, units, stock, credit] = ["price", "units", "stock", "credit"].map((name) => Number(form.elements[`test-${name}`].value));
    const { user_id: user } = await step("a user", () => post("/payment/create_user"));
    if (credit > 0) await step(`${count(credit)} credit`, () => post(`/payment/add_funds/${user}/${credit}`));
    const { item_id: item } = await step(`an item at ${count(price)}`, () => post(`/stock/item/create/${price}`));
    if (stock > 0) await step(`${count(stock)} in stock`, () => post(`/stock/add/${item}/${stock}`));
    const { order_id: order } = await step("an order", () => post(`/orders/create/${user}`));
    await step(`${count(units)} of the item in it`, () => post(`/orders/addItem/${order}/${item}/${units}`));
    try {
      await step("checkout", () => post(`/orders/checkout/${order}`));
    } finally {
      log.lastChild.append(" · ", el("a", { href: `#/shop/order/${order}` }, "see the order"));
    }
    open(order);
  };
  const button = el("button", {}, "Place it and check out");
  return el("section", { class: "card" }, el("h2", {}, "A test order"),
    el("p", { class: "quiet" }, "Makes a user, an item and an order of their own, and checks the order out; they stay in the shop. Give less credit or stock than it takes to see a refusal.", live.snapshot?.production ? " This is production: they are real records." : ""),
    el("form", { class: "filters", id: "test-order", onsubmit: async (event) => {
      event.preventDefault();
      log.replaceChildren();
      button.disabled = true;
      await run(event.target).catch(() => {});
      button.disabled = false;
    } }, number("test-price", "Price", 5), number("test-units", "Units", 1), number("test-stock", "Stock", 10), number("test-credit", "Credit", 100), button), log);
}
