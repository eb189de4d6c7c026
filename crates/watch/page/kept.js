// What this browser keeps of what somebody chose: for good, or for one tab. One that is told to keep nothing refuses even to be asked; then it is
// remembered until the page is left.

export const FOR_GOOD = "localStorage";
export const FOR_THIS_TAB = "sessionStorage";

const memory = new Map();

function store(where) {
  try {
    return window[where];
  } catch {
    return null;
  }
}

export const recall = (where, key) => memory.get(key) ?? store(where)?.getItem(key) ?? null;

/** Keeps a text; an empty one is as good as none. */
export function keep(where, key, value) {
  memory.set(key, value);
  try {
    store(where)?.setItem(key, value);
  } catch {
    // It is full, or has none.
  }
}
