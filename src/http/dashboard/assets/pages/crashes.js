// The crashes: by site, and one of them whole.

import { get, path, query } from "../api.js";
import { h } from "../dom.js";
import { count, duration, plural, size, words } from "../format.js";
import { ago, badge, button, card, empty, facts, subject, table } from "../ui.js";

const PAGE = 50;
const HOW = { panic: "panicked", timeout: "ran past its deadline", start: "could not start", state: "its state could not be kept" };

export default {
  title: "Crashes",
  every: 4_000,
  wants: (event) => event.event === "agent.crashed",

  load({ cursor }, page, signal) {
    return get(query("/crashes/groups", { cursor, limit: PAGE }), { signal });
  },

  view({ items, next_cursor }, params, page) {
    const none = empty("Nothing has crashed", "Panics, deadlines and states that could not be kept are told here, those of one place in the code together.");
    return [
      table("Crashes by site", COLUMNS, items, { key: (g) => g.id, href: (g) => `#/crashes/${g.id}`, empty: none }),
      (next_cursor || params.cursor) &&
        h(
          "div",
          { class: "pager" },
          params.cursor && button("Latest", () => page.with({ cursor: "" }), { kind: "small" }),
          next_cursor && button("Earlier", () => page.with({ cursor: next_cursor }), { kind: "small" }),
        ),
    ];
  },
};

const COLUMNS = [
  {
    name: "Site",
    class: "grow",
    cell: (g) => [
      h("a", { href: `#/crashes/${g.id}`, class: "stack-main" }, h("strong", {}, g.kind), " ", HOW[g.reason] ?? words(g.reason), " ", h("code", {}, g.site)),
      h("span", { class: "stack-sub why" }, g.last_crash.reason.message),
    ],
  },
  { name: "Crashes", class: "num w-num", cell: (g) => count(g.count) },
  { name: "Last", class: "w-time", cell: (g) => ago(g.last) },
  { name: "First", class: "w-time hide-s", cell: (g) => ago(g.first) },
  { name: "Last on", class: "w-target hide-s", cell: (g) => subject(g.last_crash.subject) },
  { name: "Then", class: "w-then hide-s", cell: (g) => decision(g.last_crash, true) },
];

function decision({ decision: { action, attempt, attempts, delay_ms }, max_restarts, within_ms }, brief) {
  const within = duration(within_ms);
  switch (action) {
    case "restart":
      return brief ? `restart ${attempt} of ${max_restarts}` : `restart ${attempt} of ${max_restarts} within ${within}, after ${duration(delay_ms)}`;
    case "exceeded":
      return brief ? badge("stopped") : `stopped: ${plural(attempts, "restart")} within ${within} are the limit`;
    case "leave":
      return brief ? "not restarted" : "it is not restarted: its policy says so";
    default:
      return words(action);
  }
}

/** Crashes of one site that are listed beside one of them. */
const ALIKE = 20;

function isAlike(one, other) {
  const kind = (crash) => crash.subject.split("/")[0];
  return kind(one) === kind(other) && one.reason.kind === other.reason.kind && one.reason.site === other.reason.site;
}

const EACH = [
  { name: "When", class: "w-time", cell: (c) => h("a", { href: `#/crashes/${c.id}` }, ago(c.at)) },
  { name: "Agent", class: "w-target", cell: (c) => subject(c.subject) },
  { name: "What it said", class: "grow", cell: (c) => h("span", { class: "why", title: c.reason.message }, c.reason.message) },
  { name: "Message", class: "w-state hide-s", cell: (c) => h("span", { title: c.message_id }, c.message_type ?? "–") },
  { name: "Size", class: "num w-num hide-s", cell: (c) => (c.message_bytes === undefined ? "–" : size(c.message_bytes)) },
  { name: "State", class: "num w-num hide-s", cell: (c) => (c.version > 0 ? `v${c.version}` : "–") },
  { name: "Then", class: "w-then hide-s", cell: (c) => decision(c, true) },
];

/** One crash, or the last one of a site. */
export const crash = {
  title: "Crash",
  every: 10_000,
  wants: (event) => event.event === "agent.crashed",

  async load({ id }, page, signal) {
    const [found, last] = await Promise.all([get(path("crashes", id), { signal }), get("/crashes", { signal })]);
    return { found, alike: last.items.filter((other) => isAlike(found, other)).slice(0, ALIKE) };
  },

  view({ found, alike }) {
    const { group } = found;
    const lost = found.lost ?? (found.version > 0 ? `nothing: the state of version ${count(found.version)} was restored` : "nothing: it had not committed yet, and starts afresh");
    return [
      h(
        "section",
        { class: "card crash" },
        h("div", { class: "crash-head" }, subject(found.subject), " ", h("span", {}, HOW[found.reason.kind] ?? words(found.reason.kind)), " ", ago(found.at)),
        h("p", { class: "error-message" }, found.reason.message || "It said nothing."),
        facts([
          ["Where", found.reason.site && h("code", {}, found.reason.site), true],
          ["On the message", found.message_type && h("code", {}, found.message_type)],
          ["Its id", found.message_id && h("span", { class: "mono" }, found.message_id), true],
          ["Its size", found.message_bytes !== undefined ? size(found.message_bytes) : null],
          ["In a row", found.repeat > 1 ? h("span", { class: "warn-text" }, `${count(found.repeat)} without a turn that went well`) : null],
          ["State", found.version > 0 ? `version ${count(found.version)}` : "none yet"],
          ["Lost", lost, true],
          ["Then", decision(found, false), true],
          ["Id", h("span", { class: "mono" }, found.id), true],
        ]),
      ),
      group && card("All of this site", h("a", { href: "#/crashes" }, "all sites"), facts([["Crashes", count(group.count)], ["First", ago(group.first)], ["Last", ago(group.last)]])),
      alike.length > 1 && table("The last ones of this site", EACH, alike, { key: (c) => c.id, href: (c) => `#/crashes/${c.id}` }),
      card("Backtrace", null, found.backtrace ? h("pre", { class: "backtrace" }, found.backtrace) : h("p", { class: "faint" }, "None is known: it is looked for once a site, where the crash was a panic.")),
    ];
  },
};
