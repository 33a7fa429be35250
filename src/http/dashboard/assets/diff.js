// What differs between two JSON values, by path.

import { h } from "./dom.js";
import { count } from "./format.js";
import { jsonLine } from "./json.js";

/** Differences that are shown. */
const MOST = 300;

/** The differences as `[{path, how: "added" | "removed" | "changed", before?, after?}]`. */
export function differences(before, after, path = "", found = []) {
  if (found.length > MOST) return found;
  if (isBranch(before) && isBranch(after) && Array.isArray(before) === Array.isArray(after)) {
    for (const name of new Set([...Object.keys(before), ...Object.keys(after)])) {
      const place = Array.isArray(before) ? `${path}[${name}]` : `${path}.${name}`;
      if (!Object.hasOwn(after, name)) found.push({ path: place, how: "removed", before: before[name] });
      else if (!Object.hasOwn(before, name)) found.push({ path: place, how: "added", after: after[name] });
      else differences(before[name], after[name], place, found);
      if (found.length > MOST) break;
    }
  } else if (JSON.stringify(before) !== JSON.stringify(after)) {
    found.push({ path: path || ".", how: "changed", before, after });
  }
  return found;
}

function isBranch(value) {
  return value !== null && typeof value === "object";
}

/** The differences as a table. */
export function diffTable(before, after) {
  const found = differences(before, after);
  if (found.length === 0) return h("p", { class: "faint" }, "The two states are the same.");
  const row = ({ path, how, ...sides }) =>
    h(
      "tr",
      { class: how, key: path },
      h("td", { class: "mark", "aria-label": how }, { added: "+", removed: "−", changed: "~" }[how]),
      h("td", { class: "mono path" }, path.replace(/^\./, "") || "(all)"),
      h("td", { class: "mono before" }, how === "added" ? "" : jsonLine(sides.before)),
      h("td", { class: "mono after" }, how === "removed" ? "" : jsonLine(sides.after)),
    );
  return h(
    "div",
    { class: "scroll" },
    h(
      "table",
      { class: "diff", "aria-label": "Differences" },
      h("thead", {}, h("tr", {}, h("th", {}, ""), h("th", { scope: "col" }, "Path"), h("th", { scope: "col" }, "Before"), h("th", { scope: "col" }, "After"))),
      h("tbody", {}, found.slice(0, MOST).map(row)),
    ),
    found.length > MOST && h("p", { class: "faint" }, `The first ${count(MOST)} differences.`),
  );
}
