// Dead letters: what failed for good, brought back or dismissed, one by one or by a filter.

import { get, post, query } from "../api.js";
import { attempt, confirm, toast } from "../dialog.js";
import { h } from "../dom.js";
import { count, plural } from "../format.js";
import { barred } from "../session.js";
import { ago, button, empty, searchField, select, table, target, task } from "../ui.js";
import { retry } from "./task.js";
import { taskTabs } from "./tasks.js";

const PAGE = 50;

export default {
  title: "Dead letters",
  every: 4_000,
  wants: (event) => ["task.failed", "task.retry", "message.dead_letter", "operator.acted"].includes(event.event),

  async load({ state = "failed", target, tag, cursor }, page, signal) {
    const [list, status] = await Promise.all([
      get(query("/tasks", { state, target, tag, cursor, limit: PAGE }), { signal }),
      get("/status", { signal }),
    ]);
    return { ...list, counts: status.tasks };
  },

  tools(params, page) {
    const no = barred("operate");
    const made = [button("Retry these…", () => sweep(RETRY, params, page), { kind: "primary", barred: no })];
    // what was cancelled is no dead letter
    if ((params.state ?? "failed") === "failed") made.push(button("Dismiss these…", () => sweep(DISMISS, params, page), { kind: "quiet", barred: no }));
    return made;
  },

  view({ items, next_cursor, counts }, params, page) {
    const no = barred("operate");
    const atOnce = (t) => attempt(() => post(`/tasks/${t.id}/retry`), `${t.target} is tried again`).then(() => page.refresh());
    // what takes its node down when it runs is not tried by one click
    const again = (t) => (t.error?.code === "poison" ? retry(page, t) : atOnce(t));
    const rest = (t) => attempt(() => post(`/tasks/${t.id}/dismiss`), `${t.target} is dismissed`).then(() => page.refresh());
    const columns = [
      { name: "Task", class: "w-id hide-s", cell: (t) => task(t.id) },
      { name: "Target", class: "w-target", cell: (t) => target(t.target) },
      { name: "Why", class: "grow", cell: (t) => h("a", { href: `#/tasks/${t.id}`, class: "why", title: t.error?.message }, t.error && h("code", {}, t.error.code), " ", t.error?.message ?? "cancelled") },
      { name: "Attempts", class: "num w-num hide-s", cell: (t) => count(t.attempt) },
      { name: "Ended", class: "w-time hide-s", cell: (t) => ago(t.finished_at) },
      { name: "", class: "w-acts", cell: (t) => [button("Retry", () => again(t), { kind: "small", barred: no }), t.state === "failed" && button("Dismiss", () => rest(t), { kind: "small quiet", barred: no })] },
    ];
    return [
      taskTabs("#/tasks/dead", counts),
      h(
        "div",
        { class: "filters" },
        searchField("Target: kind/key, kind/*, tool:name", params.target, (target) => page.with({ target, cursor: "" }), { width: "wide" }),
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

const RETRY = {
  at: "/tasks/retry",
  verb: "Retry",
  done: "brought back",
  what: "Each begins anew, with all its attempts, behind what waits already.",
};
const DISMISS = {
  at: "/tasks/dismiss",
  verb: "Dismiss",
  done: "dismissed",
  what: "They are cancelled, with their errors and histories, and are forgotten when tasks.retention is over. Until then each can be tried again.",
};

// First counted, then done; each call goes on where the one before ended.
async function sweep({ at, verb, done, what }, { state, target, tag }, page) {
  const wanted = { ...(verb === "Retry" && { state }), target, tag };
  const filter = Object.fromEntries(Object.entries(wanted).filter(([, value]) => value));
  const found = await attempt(() => post(at, { filter, dry_run: true }));
  if (!found) return;
  const left = found.left_out > 0 && `${plural(found.left_out, "task")} that took the node down, left out: retry such a one by itself.`;
  if (found.count === 0) return void toast(`There is none to ${verb.toLowerCase()}.${left ? ` ${left}` : ""}`);
  const most = found.next_cursor ? `at least ${plural(found.count, "task")}` : plural(found.count, "task");
  const which = Object.entries(filter).map(([name, value]) => `${name} ${value}`).join(", ") || "all that failed";
  confirm(
    `${verb} ${most}?`,
    h("div", {}, h("p", {}, "Which: ", h("strong", {}, which), "."), h("p", {}, what), left && h("p", {}, left)),
    `${verb} ${most}`,
    async () => {
      let [count, cursor] = [0, undefined];
      do {
        const some = await post(at, { filter, ...(cursor && { cursor }) });
        count += some.count;
        cursor = some.next_cursor;
      } while (cursor);
      toast(`${plural(count, "task")} ${done}`);
      page.refresh();
    },
    { danger: verb === "Dismiss" },
  );
}
