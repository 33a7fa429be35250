// What pages are made of: badges, times, tables, tabs, tiles, empty states, skeletons.

import { h, svg } from "./dom.js";
import { exact, relative, tail, words } from "./format.js";

/** How each state looks: `good`, `busy`, `wait`, `warn`, `bad`, `calm`. */
const TONES = {
  ok: "good", active: "good", succeeded: "good", up: "good",
  running: "busy", starting: "busy", restarting: "warn",
  ready: "wait", scheduled: "wait", blocked: "wait", waiting: "wait",
  degraded: "warn", parked: "warn", paused: "warn", suspended: "warn", outcome_unknown: "warn", warn: "warn",
  stopping: "warn",
  down: "bad", failed: "bad", quarantined: "bad", stopped: "bad", expired: "bad", error: "bad", critical: "bad",
};

/** The tone of a state. */
export function tone(state) {
  return TONES[state] ?? "calm";
}

/** A state as a coloured word: never by colour alone. */
export function badge(state, title) {
  return h("span", { class: `badge ${tone(state)}`, title }, h("i", { "aria-hidden": "true" }), words(state));
}

/** A moment as a relative time, exact in the title. It is kept up to date. */
export function ago(at, none = "–") {
  if (!at) return h("span", { class: "faint" }, none);
  return h("time", { datetime: new Date(at).toISOString(), title: exact(at), class: "ago" }, relative(at));
}

/** Brings every relative time up to date. */
export function tick() {
  for (const time of document.querySelectorAll("time.ago")) {
    const text = relative(time.dateTime);
    if (time.textContent !== text) time.textContent = text;
  }
}

/** The place of a target: an agent's page, or a tool's. */
export function targetHref(target) {
  if (target.startsWith("tool:")) return `#/system/tools/${encodeURIComponent(target.slice(5))}`;
  const cut = target.indexOf("/");
  return `#/agents/${encodeURIComponent(target.slice(0, cut))}/${encodeURIComponent(target.slice(cut + 1))}`;
}

/** The place of what a log record is about; null where it has none. */
export function subjectHref(subject) {
  if (!subject) return null;
  if (subject.startsWith("task:")) return `#/tasks/${subject.slice(5)}`;
  if (subject.startsWith("schedule:")) return "#/tasks/schedules";
  return subject.startsWith("tool:") || subject.includes("/") ? targetHref(subject) : null;
}

/** A target as a link, its kind fainter than its key. */
export function target(name) {
  return h("a", { href: targetHref(name), class: "target", title: name }, pieces(name));
}

/** A subject as a link, where it has a place. */
export function subject(name) {
  const href = subjectHref(name);
  if (!href) return h("span", { class: "target" }, name);
  const text = name.startsWith("task:") ? `task:${tail(name)}` : name;
  return h("a", { href, class: "target", title: name }, pieces(text));
}

function pieces(name) {
  const cut = name.startsWith("tool:") || name.startsWith("task:") ? name.indexOf(":") : name.indexOf("/");
  return [h("span", { class: "faint" }, name.slice(0, cut + 1)), h("bdi", {}, name.slice(cut + 1))];
}

/** A task's id, short, as a link. */
export function task(id) {
  return h("a", { href: `#/tasks/${id}`, class: "mono id", title: id }, tail(id));
}

/** A button. `barred`: why it cannot be used. */
export function button(label, click, { kind = "", barred = null, title, icon: sign } = {}) {
  const props = { type: "button", class: `button ${kind}`, disabled: Boolean(barred), title: barred ?? title };
  return h("button", { ...props, on: { click } }, sign && icon(sign), label);
}

/**
 * A table. `columns`: `[{name, class, cell(row)}]`; `key(row)` and, to open a row by keyboard, `href(row)`.
 */
export function table(label, columns, rows, { key, href, empty } = {}) {
  if (rows.length === 0 && empty) return empty;
  const open = (event) => {
    const goes = event.target.closest("a, button, input, label") || getSelection()?.toString();
    if (!goes) location.hash = event.currentTarget.dataset.href;
  };
  const head = columns.map((c) => h("th", { scope: "col", class: c.class }, c.name));
  const body = rows.map((row) =>
    h(
      "tr",
      { key: key?.(row), "data-href": href?.(row), tabindex: href ? "-1" : null, class: href ? "row" : null, on: href ? { click: open } : {} },
      columns.map((c) => h("td", { class: c.class }, c.cell(row))),
    ),
  );
  return h(
    "div",
    { class: "scroll card flush" },
    h("table", { "aria-label": label }, h("thead", {}, h("tr", {}, head)), h("tbody", {}, body)),
  );
}

/** Tabs that are links: `[[label, href, count?]]`. */
export function tabs(label, items, current) {
  const one = ([text, href, n]) =>
    h(
      "a",
      { href, class: "tab", "aria-current": href === current ? "page" : null },
      text,
      n !== undefined && n !== null && h("span", { class: "pill" }, n),
    );
  return h("nav", { class: "tabs", "aria-label": label }, items.map(one));
}

/** A page's part with a heading. */
export function section(title, ...content) {
  return h("section", { class: "section" }, title && h("h2", {}, title), content);
}

/** A card with a heading, and what stands at its right. */
export function card(title, side, ...content) {
  return h(
    "section",
    { class: "card" },
    h("div", { class: "card-head" }, h("h2", {}, title), side && h("div", { class: "side-note" }, side)),
    content,
  );
}

/** Facts: `[[name, value, wide?]]`; empty ones are left out, wide ones take two places. */
export function facts(pairs) {
  const shown = pairs.filter(([, value]) => value !== null && value !== undefined && value !== "" && value !== false);
  const one = ([name, value, wide]) => h("div", { class: wide ? "wide" : null }, h("dt", {}, name), h("dd", {}, value));
  return h("dl", { class: "facts" }, shown.map(one));
}

/** Nothing is here: why, and what to do next. */
export function empty(title, text, ...more) {
  return h("div", { class: "empty card" }, icon("leaf"), h("strong", {}, title), h("p", {}, text), more);
}

/** What a page looks like before it has anything. */
export function skeleton(rows = 8) {
  const lines = Array.from({ length: rows }, () => h("div", { class: "bone" }));
  return h("div", { class: "skeleton card", "aria-busy": "true", "aria-label": "loading" }, lines);
}

/** Something went wrong: what, and a way on. */
export function trouble(error, again) {
  return h(
    "div",
    { class: "empty card", role: "alert" },
    icon("alert"),
    h("strong", {}, error.status === 404 ? "Not here" : "This cannot be shown"),
    h("p", {}, error.message),
    again && button("Try again", again),
  );
}

/** A command for the terminal, to be copied. */
export function command(text) {
  const copy = () => navigator.clipboard?.writeText(text);
  return h("span", { class: "command" }, h("code", {}, text), iconButton("copy", "Copy", copy));
}

/** A button that is a sign alone. */
export function iconButton(sign, label, click) {
  return h("button", { type: "button", class: "icon-button", "aria-label": label, title: label, on: { click } }, icon(sign));
}

/** A choice: `[[value, label]]`. */
export function select(label, value, options, change) {
  const on = { change: (event) => change(event.target.value) };
  const list = options.map(([v, text]) => h("option", { value: v }, text));
  return h("label", { class: "field" }, h("span", { class: "hidden" }, label), h("select", { value, on }, list));
}

/** A field to search with; Enter or leaving it searches. `/` leads to the first of a page. */
export function searchField(label, value, change, { live = false, width } = {}) {
  const heard = (event) => change(event.target.value.trim());
  // `search` comes when the field is emptied by its own cross
  const on = live ? { input: heard } : { change: heard, search: heard };
  const props = { type: "search", placeholder: label, "aria-label": label, value: value ?? "", on };
  return h("label", { class: `field search ${width ?? ""}` }, icon("search"), h("input", { ...props, spellcheck: "false", autocomplete: "off" }));
}

const SHAPES = {
  overview: "M3 12h4l3-8 4 16 3-8h4",
  tree: "M6 4v12a3 3 0 0 0 3 3h3M6 9h6M16 9h4M16 19h4M4 4h4",
  agents: "M12 12a4 4 0 1 0 0-8 4 4 0 0 0 0 8zM4 21c0-4 4-6 8-6s8 2 8 6",
  tasks: "M4 6l2 2 3-4M4 13l2 2 3-4M4 20l2 2 3-4M13 6h7M13 13h7M13 20h7",
  crashes: "M13 2 4 14h7l-1 8 9-12h-7z",
  logs: "M4 5h16M4 10h10M4 15h16M4 20h8",
  system: "M4 4h16v6H4zM4 14h16v6H4zM8 7h.01M8 17h.01",
  search: "M11 18a7 7 0 1 0 0-14 7 7 0 0 0 0 14zM20 20l-4-4",
  copy: "M9 9h11v11H9zM5 15H4V4h11v1",
  alert: "M12 3 2 20h20zM12 10v4M12 17h.01",
  leaf: "M5 20C4 10 10 4 20 4c0 10-6 16-14 14M5 20c2-5 5-8 9-10",
  sun: "M12 16a4 4 0 1 0 0-8 4 4 0 0 0 0 8zM12 2v2M12 20v2M4.9 4.9l1.4 1.4M17.7 17.7l1.4 1.4M2 12h2M20 12h2M4.9 19.1l1.4-1.4M17.7 6.3l1.4-1.4",
  moon: "M20 14A8 8 0 1 1 10 4a6.5 6.5 0 0 0 10 10z",
  out: "M10 4H5v16h5M14 8l4 4-4 4M18 12H9",
  keys: "M3 6h18v12H3zM7 10h.01M11 10h.01M15 10h.01M7 14h10",
  chevron: "M9 6l6 6-6 6",
  close: "M6 6l12 12M18 6 6 18",
};

/** A sign. */
export function icon(name) {
  const stroke = { fill: "none", stroke: "currentColor", "stroke-width": "1.75", "stroke-linecap": "round", "stroke-linejoin": "round" };
  return svg("svg", { viewBox: "0 0 24 24", class: "icon", "aria-hidden": "true", ...stroke }, svg("path", { d: SHAPES[name] }));
}
