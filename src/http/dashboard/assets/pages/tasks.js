// The tasks: filtered, newest first, a page at a time.

import { get, query } from "../api.js";
import { h } from "../dom.js";
import { count } from "../format.js";
import { ago, badge, button, empty, searchField, select, table, tabs, target, task } from "../ui.js";

const PAGE = 50;
const STATES = ["blocked", "scheduled", "ready", "running", "waiting", "parked", "succeeded", "failed", "cancelled", "outcome_unknown"];

export default {
  title: "Tasks",
  every: 3_000,
  wants: (event) => event.event?.startsWith("task."),

  async load({ state, target, tag, cursor }, page, signal) {
    const [list, status] = await Promise.all([
      get(query("/tasks", { state, target, tag, cursor, limit: PAGE }), { signal }),
      get("/status", { signal }),
    ]);
    return { ...list, counts: status.tasks };
  },

  view({ items, next_cursor, counts }, params, page) {
    const filtered = params.state || params.target || params.tag;
    const states = STATES.map((s) => [s, counts[s] ? `${s.replace("_", " ")} (${count(counts[s])})` : s.replace("_", " ")]);
    return [
      taskTabs("#/tasks", counts),
      h(
        "div",
        { class: "filters" },
        searchField("Target: kind/key, kind/*, tool:name", params.target, (target) => page.with({ target, cursor: "" }), { width: "wide" }),
        select("State", params.state ?? "", [["", "Any state"], ...states], (state) => page.with({ state, cursor: "" })),
        searchField("Label", params.tag, (tag) => page.with({ tag, cursor: "" })),
        filtered && button("Clear", () => page.with({ state: "", target: "", tag: "", cursor: "" }), { kind: "quiet" }),
      ),
      taskTable(
        items,
        filtered
          ? empty("No task like that", "Take away a filter. What ended long ago has been forgotten: tasks.retention says when.")
          : empty("No tasks yet", "greenroom tasks submit KIND/KEY MESSAGE accepts one."),
      ),
      h(
        "div",
        { class: "pager" },
        params.cursor && button("Newest", () => page.with({ cursor: "" }), { kind: "small" }),
        h("span", { class: "faint" }, `${count(items.length)} shown${next_cursor ? ", there are older ones" : ""}`),
        next_cursor && button("Older", () => page.with({ cursor: next_cursor }), { kind: "small" }),
      ),
    ];
  },
};

/** The tabs that tasks, dead letters and schedules share. */
export function taskTabs(current, counts) {
  const dead = counts?.failed ? count(counts.failed) : null;
  return tabs("Tasks", [["All", "#/tasks"], ["Dead letters", "#/tasks/dead", dead], ["Schedules", "#/tasks/schedules"]], current);
}

/** A table of tasks. */
export function taskTable(items, none) {
  return table("Tasks", COLUMNS, items, { key: (t) => t.id, href: (t) => `#/tasks/${t.id}`, empty: none });
}

const COLUMNS = [
  { name: "Task", class: "w-id hide-s", cell: (t) => task(t.id) },
  { name: "State", class: "w-state", cell: (t) => h("a", { href: `#/tasks/${t.id}` }, badge(t.state, t.error?.message)) },
  { name: "Target", class: "grow", cell: (t) => target(t.target) },
  { name: "Message", class: "w-message hide-s", cell: (t) => t.message ?? h("span", { class: "faint" }, "–") },
  { name: "Attempt", class: "num w-num hide-s", cell: (t) => [t.attempt, h("span", { class: "faint" }, `/${t.max_attempts}`)] },
  { name: "Accepted", class: "w-time", cell: (t) => ago(t.created_at) },
  { name: "Ended", class: "w-time hide-s", cell: (t) => ago(t.finished_at) },
];
