// The keyboard: where its keys lead. `?` shows them.

import { h } from "./dom.js";
import { dialog } from "./dialog.js";

/** `g` and then … */
export const PLACES = {
  o: ["overview", "#/"],
  s: ["supervision tree", "#/tree"],
  a: ["agents", "#/agents"],
  t: ["tasks", "#/tasks"],
  d: ["dead letters", "#/tasks/dead"],
  c: ["crashes", "#/crashes"],
  l: ["logs", "#/logs"],
  y: ["system", "#/system"],
};

/** How long `g` waits for the next key, in milliseconds. */
const PATIENCE = 1_200;

let prefix = 0;

/** Listens for keys, as long as the page stands. */
export function listen() {
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.target.closest("input, textarea, select, [contenteditable]")) {
      if (event.key === "Escape") leave(event.target);
      return;
    }
    if (document.querySelector("dialog[open]")) return;
    if (act(event.key, event)) event.preventDefault();
  });
}

function act(key, event) {
  const since = performance.now() - prefix;
  prefix = 0;
  if (since < PATIENCE && PLACES[key]) {
    location.hash = PLACES[key][1];
    return true;
  }
  switch (key) {
    case "g":
      prefix = performance.now();
      return true;
    case "?":
      help();
      return true;
    case "/":
      return focusOn(document.querySelector("main input[type=search]"));
    case "j":
      return step(1);
    case "k":
      return step(-1);
    case "Enter": {
      const row = event.target.closest("[data-href]");
      if (row && event.target === row) location.hash = row.dataset.href;
      return Boolean(row) && event.target === row;
    }
    default:
      return false;
  }
}

// What was typed and not searched for is not searched for by leaving.
function leave(field) {
  if (field.type === "search") field.value = field.$props?.value ?? "";
  field.blur();
}

function focusOn(node) {
  node?.focus();
  node?.select?.();
  return Boolean(node);
}

/** From row to row of the page's lists. */
function step(by) {
  const rows = [...document.querySelectorAll("main [data-href]")].filter((row) => row.offsetParent !== null);
  const at = rows.indexOf(document.activeElement.closest?.("[data-href]"));
  const next = rows[at < 0 ? (by > 0 ? 0 : rows.length - 1) : at + by];
  next?.focus();
  next?.scrollIntoView({ block: "nearest" });
  return Boolean(next);
}

/** Shows the keys. */
export function help() {
  const line = (keys, what) =>
    h("div", {}, h("dt", {}, keys.map((key) => h("kbd", {}, key))), h("dd", {}, what));
  const places = Object.entries(PLACES).map(([key, [what]]) => line(["g", key], what));
  const rest = [
    line(["/"], "search"),
    line(["j"], "next row"),
    line(["k"], "row before"),
    line(["Enter"], "open the row"),
    line(["Esc"], "leave a field, close a dialog"),
    line(["?"], "these keys"),
  ];
  dialog("Keys", h("dl", { class: "keys" }, places, rest), []);
}
