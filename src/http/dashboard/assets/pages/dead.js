// Dead letters: what failed for good, brought back one by one or by a filter.

import { get, post, query } from "../api.js";
import { attempt, confirm, toast } from "../dialog.js";
import { h } from "../dom.js";
import { count, plural } from "../format.js";
import { barred } from "../session.js";
import { ago, button, empty, searchField, select, table, target, task } from "../ui.js";
import { taskTabs } from "./tasks.js";

const PAGE = 50;

export default {
  title: "Dead letters",
  every: 4_000,
  wants: (event) => ["task.failed", "task.retry", "message.dead_letter"].includes(event.event),

  async load({ state = "failed", target, tag, cursor }, page, signal) {
    const [list, status] = await Promise.all([
      get(query("/tasks", { state, target, tag, cursor, limit: PAGE }), { signal }),
      get("/status", { signal }),
    ]);
    return { ...list, counts: status.tasks };
  },

  tools(params, page) {
    return button("Retry these…", () => retryMany(params, page), { kind: "primary", barred: barred("operate") });
  },

  view({ items, next_cursor, counts }, params, page) {
    const no = barred("operate");
    const again = (t) => attempt(() => post(`/tasks/${t.id}/retry`), `${t.target} is tried again`).then(() => page.refresh());
    const columns = [
      { name: "Task", class: "w-id hide-s", cell: (t) => task(t.id) },
      { name: "Target", class: "w-target", cell: (t) => target(t.target) },
      { name: "Why", class: "grow", cell: (t) => h("a", { href: `#/tasks/${t.id}`, class: "why", title: t.error?.message }, t.error && h("code", {}, t.error.code), " ", t.error?.message ?? "cancelled") },
      { name: "Attempts", class: "num w-num hide-s", cell: (t) => count(t.attempt) },
      { name: "Ended", class: "w-time hide-s", cell: (t) => ago(t.finished_at) },
      { name: "", class: "w-act", cell: (t) => button("Retry", () => again(t), { kind: "small", barred: no }) },
    ];
    return [
      taskTabs("#/tasks/dead", counts),
      h(
        "div",
        { class: "filters" },
        searchField("Target: kind/key or tool:name", params.target, (target) => page.with({ target, cursor: "" }), { width: "wide" }),
        select("State", params.state ?? "failed", [["failed", "failed"], ["cancelled", "cancelled"]], (state) => page.with({ state, cursor: "" })),
        searchField("Label", params.tag, (tag) => page.with({ tag, cursor: "" })),
      ),
      table("Dead letters", columns, items, {
        key: (t) => t.id,
        href: (t) => `#/tasks/${t.id}`,
        empty: empty("No dead letters", "What fails for good is kept here, with its message, until it is brought back or tasks.retention is over."),
      }),
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

// First counted, then done; each call goes on where the one before ended.
async function retryMany({ state, target, tag }, page) {
  const filter = Object.fromEntries(Object.entries({ state, target, tag }).filter(([, value]) => value));
  const found = await attempt(() => post("/tasks/retry", { filter, dry_run: true }));
  if (!found) return;
  if (found.count === 0) return void toast("There is none to retry.");
  const most = found.next_cursor ? `at least ${plural(found.count, "task")}` : plural(found.count, "task");
  const which = Object.entries(filter).map(([name, value]) => `${name} ${value}`).join(", ") || "all that failed";
  confirm(
    `Retry ${most}?`,
    h("div", {}, h("p", {}, "Which: ", h("strong", {}, which), "."), h("p", {}, "Each begins anew, with all its attempts, behind what waits already.")),
    `Retry ${most}`,
    async () => {
      let [done, cursor] = [0, undefined];
      do {
        const some = await post("/tasks/retry", { filter, ...(cursor && { cursor }) });
        done += some.count;
        cursor = some.next_cursor;
      } while (cursor);
      toast(`${plural(done, "task")} brought back`);
      page.refresh();
    },
  );
}
