// Requests to this server. A password that an operator gave is kept for this tab only.

import { FOR_GOOD, FOR_THIS_TAB, keep, recall } from "./kept.js";

const KEY = "settle.password";
const NAME = "settle.operator";

export const password = () => recall(FOR_THIS_TAB, KEY) ?? "";
export const keepPassword = (word) => keep(FOR_THIS_TAB, KEY, word);
export const operator = () => recall(FOR_GOOD, NAME) ?? "";
export const keepOperator = (name) => keep(FOR_GOOD, NAME, name);

/** Why a request came to nothing, in the server's words. */
export class Problem extends Error {
  constructor(status, code, detail) {
    super(detail);
    this.status = status;
    this.code = code;
  }
}

/** Asks, and gives the answer: an object, or a text. */
export async function ask(method, path, body) {
  const headers = { accept: "application/json" };
  if (body !== undefined) headers["content-type"] = "application/json";
  if (password() && path.startsWith("/admin")) headers.authorization = `Bearer ${password()}`;
  let answer;
  try {
    answer = await fetch(path, { method, headers, body: body === undefined ? undefined : JSON.stringify(body), cache: "no-store" });
  } catch {
    throw new Problem(0, "unreachable", "the server does not answer");
  }
  const text = await answer.text();
  let value = text;
  try {
    value = JSON.parse(text);
  } catch {
    // A text is an answer, too.
  }
  if (!answer.ok) throw new Problem(answer.status, value?.code ?? "failed", value?.detail ?? `the server answered ${answer.status}`);
  return value;
}

export const get = (path) => ask("GET", path);
export const post = (path, body) => ask("POST", path, body);

/** A path with a query, of what is given. */
export function query(path, given) {
  const parts = Object.entries(given).filter(([, value]) => value !== "" && value !== null && value !== undefined);
  return parts.length ? `${path}?${new URLSearchParams(parts)}` : path;
}
