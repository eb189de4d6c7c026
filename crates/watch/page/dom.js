// Elements made of data. Text is always set as text: nothing that comes from the server is ever read as markup.

/** Makes an element: `el("button", { class: "quiet", onclick: f }, "Retry")`. */
export function el(name, attributes = {}, ...children) {
  return fill(document.createElement(name), attributes, children);
}

/** The same for SVG. */
export function svg(name, attributes = {}, ...children) {
  return fill(document.createElementNS("http://www.w3.org/2000/svg", name), attributes, children);
}

function fill(node, attributes, children) {
  for (const [key, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else node.setAttribute(key, value === true ? "" : String(value));
  }
  put(node, children);
  return node;
}

/** Adds texts and elements, and whatever lists of them are made of. */
export function put(node, children) {
  for (const child of [children].flat(Infinity)) {
    if (child === null || child === undefined || child === false) continue;
    node.append(child instanceof Node ? child : String(child));
  }
}

/** Puts children in place of those that were there. */
export function replace(node, ...children) {
  node.replaceChildren();
  put(node, children);
}

/** Sets a text, if it is another one. */
export function say(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/**
 * Keeps rows in step with a list. A row whose item has not changed is left alone, so that what is focused or selected stays so.
 */
export function rows(parent, items, keyOf, make) {
  const old = new Map([...parent.children].map((row) => [row.dataset.key, row]));
  let before = parent.firstChild;
  for (const item of items) {
    const key = String(keyOf(item));
    const print = JSON.stringify(item);
    let row = old.get(key);
    old.delete(key);
    if (!row || row.print !== print) {
      const fresh = make(item);
      if (parent.heads) label(fresh, parent.heads);
      fresh.dataset.key = key;
      fresh.print = print;
      if (row) {
        const held = row.contains(document.activeElement) ? document.activeElement.dataset.act : undefined;
        if (row === before) before = fresh;
        row.replaceWith(fresh);
        if (held) fresh.querySelector(`[data-act="${CSS.escape(held)}"]`)?.focus();
      }
      row = fresh;
    }
    if (row === before) before = row.nextSibling;
    else parent.insertBefore(row, before);
  }
  for (const row of old.values()) row.remove();
}

/** What is longer stands in a line of its own where a row is a block. Letters. */
const LONG = 16;

/** Where there is no room for columns, a row is a block, and each value stands behind the head of its column. */
function label(row, heads) {
  for (const [at, cell] of [...row.children].entries()) {
    cell.dataset.head = heads[at] ?? "";
    if (cell.textContent.length > LONG) cell.dataset.long = "";
  }
}

/** A table with these heads; its body is returned with it. */
export function table(caption, heads, attributes = {}) {
  const body = el("tbody");
  const head = heads.map((text) => el("th", { scope: "col", class: text.startsWith("#") ? "number" : null }, text.replace("#", "")));
  body.heads = heads.map((text) => text.replace("#", ""));
  const whole = el("table", attributes, el("caption", { class: "unseen" }, caption), el("thead", {}, el("tr", {}, head)), body);
  return { body, element: el("div", { class: "scrolls", role: "region", "aria-label": caption, tabindex: "0" }, whole) };
}

/** A word with a colour that says the same. */
export const badge = (level, text) => el("span", { class: "badge", "data-level": level }, text);

const counting = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });

export const count = (n) => (n === null || n === undefined ? "–" : counting.format(n));

/** A number of stuck transactions: no more than a thousand are counted. */
export const stuckText = (n) => (n >= 1000 ? `${count(n)} or more` : count(n));

/** A rate: small ones with a decimal. */
export const rate = (n) => (n === null || n === undefined ? "–" : n > 0 && n < 10 ? n.toFixed(1) : counting.format(n));

export function ms(n) {
  if (n === null || n === undefined) return "–";
  if (n >= 10_000) return `${(n / 1000).toFixed(0)} s`;
  if (n >= 1000) return `${(n / 1000).toFixed(2)} s`;
  return n >= 100 ? `${n.toFixed(0)} ms` : n >= 10 ? `${n.toFixed(0)} ms` : `${n.toFixed(1)} ms`;
}

/** Beyond the last bound of a histogram's buckets it tells that bound. Milliseconds. */
const LAST = 30_000;

/** What is known only as the upper bound of its bucket: to the two digits that such a bound has. */
export function atMost(n) {
  if (n === null || n === undefined) return "–";
  if (n >= LAST) return "about 30 s or more";
  const [value, unit] = n >= 1000 ? [n / 1000, "s"] : [n, "ms"];
  const two = Number(value.toPrecision(2));
  return `≤ ${two < 100 ? two.toPrecision(2) : two} ${unit}`;
}

export function bytes(n) {
  if (n === null || n === undefined) return "–";
  return n >= 2 ** 30 ? `${(n / 2 ** 30).toFixed(1)} GiB` : `${(n / 2 ** 20).toFixed(0)} MiB`;
}

/** A time of day; with the day, if it is another one. */
export function clock(at, millis = false) {
  if (!at) return "–";
  const date = new Date(at);
  const two = (n, width = 2) => String(n).padStart(width, "0");
  const time = `${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}`;
  const day = date.toDateString() === new Date().toDateString() ? "" : `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())} `;
  return day + time + (millis ? `.${two(date.getMilliseconds(), 3)}` : "");
}

/** How long, in one or two units. */
export function lasting(millis) {
  const seconds = Math.max(0, Math.round(millis / 1000));
  if (seconds < 60) return `${seconds} s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return `${minutes} min ${seconds % 60} s`;
  const hours = Math.floor(minutes / 60);
  return hours < 48 ? `${hours} h ${minutes % 60} min` : `${Math.floor(hours / 24)} days`;
}

/** How long nobody was there: what is short, to the tenth. */
export const outage = (millis) => (millis < 9950 ? `${(Math.max(0, millis) / 1000).toFixed(1)} s` : lasting(millis));

/** The birth that a transaction's id carries. */
export const birth = (id) => Number.parseInt(id.replaceAll("-", "").slice(0, 12), 16);

/** `dead_letter` as words. */
export const words = (code) => String(code).replaceAll("_", " ");
