// JSON as a person reads it: folded, a part at a time.

import { h, visible } from "./dom.js";
import { count } from "./format.js";

/** Members that are shown before a person asks for more. */
const FIRST = 100;
/** Characters of a text that are. */
const LONG = 500;

/** A value as a tree. `depth`: so many levels are open at first. */
export function jsonTree(value, depth = 2) {
  return h("div", { class: "json", keep: true, key: hash(value) }, part(null, value, depth));
}

// What is the same stays as it was opened.
function hash(value) {
  const text = JSON.stringify(value) ?? "undefined";
  let sum = 0;
  for (let n = 0; n < text.length; n += 1) sum = (sum * 31 + text.charCodeAt(n)) | 0;
  return `${text.length}.${sum}`;
}

function part(name, value, depth) {
  const label = name === null ? null : [h("span", { class: "json-key" }, name), ": "];
  if (value === null || typeof value !== "object") return h("div", { class: "json-line" }, label, scalar(value));
  const entries = Array.isArray(value) ? value.map((v, n) => [n, v]) : Object.entries(value);
  const [open, close] = Array.isArray(value) ? ["[", "]"] : ["{", "}"];
  if (entries.length === 0) return h("div", { class: "json-line" }, label, open + close);
  const inside = h("div", { class: "json-inside" });
  const fill = () => {
    if (inside.childNodes.length === 0) more(inside, entries, 0, depth - 1);
  };
  const box = h(
    "details",
    { open: depth > 0, on: { toggle: () => box.open && fill() } },
    h("summary", {}, label, open, h("span", { class: "faint json-note" }, ` ${count(entries.length)} `), close),
    inside,
  );
  if (depth > 0) fill();
  return box;
}

function more(inside, entries, from, depth) {
  for (const [name, value] of entries.slice(from, from + FIRST)) inside.append(part(name, value, depth));
  const left = entries.length - from - FIRST;
  if (left <= 0) return;
  const next = h(
    "button",
    { type: "button", class: "button small", on: { click: () => (next.remove(), more(inside, entries, from + FIRST, depth)) } },
    `${count(left)} more`,
  );
  inside.append(next);
}

function scalar(value) {
  const kind = value === null ? "null" : typeof value;
  const text = kind === "string" ? JSON.stringify(value) : String(value);
  const node = h("span", { class: `json-${kind}` }, text.slice(0, LONG));
  if (text.length <= LONG) return node;
  const rest = h("button", { type: "button", class: "button small", on: { click: () => node.replaceChildren(visible(text)) } }, `all ${count(text.length)} characters`);
  node.append("… ", rest);
  return node;
}

/** A value as one short line. */
export function jsonLine(value, most = 160) {
  const text = JSON.stringify(value) ?? "";
  return text.length > most ? `${text.slice(0, most)}…` : text;
}
