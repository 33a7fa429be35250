// One task: what is known, how it went, what it wrote, whose child it is, and what can be done.

import { get, post, path } from "../api.js";
import { dag } from "../dag.js";
import { STAY, confirm, dialog, toast } from "../dialog.js";
import { h } from "../dom.js";
import { clock, count, duration, exact, plural, tail } from "../format.js";
import { jsonTree } from "../json.js";
import { barred } from "../session.js";
import { timeline } from "../timeline.js";
import { ago, badge, button, card, facts, target, task as taskLink } from "../ui.js";

/** Lines of its log that are read at once. */
const LINES = 500;
const FINAL = new Set(["succeeded", "failed", "cancelled"]);

export default {
  title: ({ id }) => `Task ${tail(id)}`,
  every: 2_000,
  wants: (event, { id }) => event.subject === `task:${id}`,

  async load({ id }, page, signal) {
    const at = path("tasks", id);
    const [task, history, logs, family] = await Promise.all([
      get(at, { signal }),
      get(`${at}/history`, { signal }),
      get(`${at}/logs?limit=${LINES}`, { signal }),
      get(`${at}/family`, { signal }),
    ]);
    return { task, history: history.items, logs, family };
  },

  tools({ id }, page) {
    const task = page.data?.task;
    if (!task) return null;
    const no = barred("operate");
    const made = [];
    if (task.target.startsWith("tool:") && !FINAL.has(task.state)) made.push(button("Signal…", () => signal(page, task), { barred: no }));
    if (task.state === "outcome_unknown") made.push(button("Say what happened…", () => resolve(page, task), { kind: "primary", barred: no }));
    if (["failed", "cancelled", "outcome_unknown"].includes(task.state)) made.push(button("Retry", () => retry(page, task), { kind: task.state === "failed" ? "primary" : "", barred: no }));
    if (task.state === "failed") made.push(button("Dismiss", () => dismiss(page, task), { barred: no }));
    if (!FINAL.has(task.state) || task.state === "failed") made.push(button("Input", () => showInput(task), { kind: "quiet" }));
    if (!FINAL.has(task.state)) made.push(button("Cancel", () => cancel(page, task), { kind: "quiet", barred: no }));
    return made;
  },

  view({ task, history, logs, family }) {
    return [
      overview(task),
      task.error && errorCard(task.error),
      card("How it went", plural(history.length, "event"), timeline(task, history)),
      task.result !== undefined && card("Result", null, jsonTree(task.result)),
      family.tasks.length > 1 && card("Family", family.more ? "part of it" : plural(family.tasks.length, "task"), dag(family, task.id)),
      logs.items.length > 0 && card("What it wrote", plural(logs.items.length, "line"), lines(logs)),
    ];
  },
};

function overview(task) {
  return h(
    "div",
    { class: "card" },
    task.progress && progress(task.progress),
    facts([
      ["State", badge(task.state)],
      ["Target", target(task.target)],
      ["Message", task.message],
      ["Attempt", [count(task.attempt), h("span", { class: "faint" }, ` of ${count(task.max_attempts)}`)]],
      ["Lost", task.lost > 0 ? h("span", { class: "warn-text" }, count(task.lost)) : null],
      ["Priority", task.priority === 0 ? null : String(task.priority)],
      ["Accepted", ago(task.created_at)],
      ["Runs", !FINAL.has(task.state) && task.run_at !== task.created_at ? ago(task.run_at) : null],
      ["Began", task.started_at ? ago(task.started_at) : null],
      ["Ended", task.finished_at ? ago(task.finished_at) : null],
      ["Waits for", task.waits?.length ? task.waits.map(wait) : null, true],
      ["Waits for", task.waiting_for ? prerequisites(task) : null, true],
      ["Expires", task.expires_at ? ago(task.expires_at) : null],
      ["Time-out", task.timeout_ms === undefined ? null : duration(task.timeout_ms)],
      ["If a prerequisite fails", task.on_parent_failed === "run" ? "it runs all the same" : null],
      ["Notifies", task.notify ? [target(task.notify.target), h("span", { class: "faint" }, ` ${task.notify.message}`)] : null],
      ["Submitted by", task.parent ? taskLink(task.parent) : null],
      ["Batch", task.batch ? h("span", { class: "mono" }, task.batch) : null, true],
      ["Labels", task.tags?.length ? task.tags.map((tag) => h("a", { class: "pill", href: `#/tasks?tag=${encodeURIComponent(tag)}` }, tag)) : null],
      ["Idempotency key", task.idempotency_key ? h("span", { class: "mono" }, task.idempotency_key) : null],
      ["Node", task.node ? h("span", { class: "mono", title: task.node }, task.node.slice(0, 8)) : null],
      ["Id", h("span", { class: "mono" }, task.id), true],
    ]),
  );
}

function wait({ signal, batch, until }) {
  const what = signal ? ["the signal ", h("code", {}, signal)] : ["the end of batch ", h("span", { class: "mono" }, batch)];
  return h("div", {}, what, until && [h("span", { class: "faint" }, ", at the latest "), ago(until)]);
}

function prerequisites({ prerequisites = [], waiting_for }) {
  const one = ({ id, target: whose, state }) => h("div", {}, taskLink(id), " ", badge(state), " ", target(whose));
  const more = waiting_for - prerequisites.length;
  return [plural(waiting_for, "task"), prerequisites.map(one), more > 0 && prerequisites.length > 0 && h("div", { class: "faint" }, `and ${count(more)} more`)];
}

function progress(said) {
  const part = typeof said === "number" ? said : (said.fraction ?? said.done ?? said.progress);
  const text = typeof said === "object" ? (said.note ?? said.text ?? said.message) : null;
  if (typeof part !== "number") return h("div", { class: "progress-text" }, jsonTree(said));
  const share = Math.max(0, Math.min(1, part));
  return h(
    "div",
    { class: "progress" },
    h("progress", { max: "1", value: share, "aria-label": "progress" }),
    h("span", { class: "num" }, `${Math.round(share * 100)} %`),
    text && h("span", { class: "faint" }, text),
  );
}

function errorCard(error) {
  return card(
    "Error",
    h("code", {}, error.code),
    h("p", { class: "error-message" }, error.message),
    error.chain?.length > 0 && h("ol", { class: "chain", "aria-label": "causes" }, error.chain.map((cause) => h("li", {}, cause))),
    error.refusal !== undefined && jsonTree(error.refusal),
    error.crash_id && h("p", {}, h("a", { href: `#/crashes/${error.crash_id}` }, "The crash report")),
  );
}

function lines({ items, next_cursor }) {
  const row = (line) =>
    h("li", { key: line.n, class: `log-line ${line.level}` }, h("time", { class: "mono faint", title: exact(line.at) }, clock(line.at)), h("span", { class: `level ${line.level}` }, line.level), h("span", { class: "log-text" }, line.text));
  return [h("ul", { class: "log" }, items.map(row)), next_cursor && h("p", { class: "faint" }, `The first ${count(LINES)} lines; greenroom tasks show has them all.`)];
}

function cancel(page, task) {
  const running = task.state === "running";
  const what = running ? "Its attempt is asked to end, and what it has done so far of its turn is undone. Tasks that come after it are cancelled with it, unless they say otherwise." : "It will not run. Tasks that come after it are cancelled with it, unless they say otherwise.";
  confirm(`Cancel this task for ${task.target}?`, what, "Cancel the task", async () => {
    await post(path("tasks", task.id, "cancel"));
    page.refresh();
  }, { danger: true });
}

export function retry(page, task) {
  const unsure = task.state === "outcome_unknown";
  const poison = task.error?.code === "poison";
  const what = unsure
    ? "Its effect may have happened already: another attempt may make it happen twice. Retry only where you know that it has not."
    : poison
      ? "It took its node down each time it ran, and will again until the program is mended."
      : "It begins anew, with all its attempts, behind what waits already.";
  confirm(`Retry this task for ${task.target}?`, what, "Retry", async () => {
    await post(path("tasks", task.id, "retry"));
    toast("It is tried again");
    page.refresh();
  }, { danger: unsure || poison });
}

function dismiss(page, task) {
  const what = "It is cancelled, with its error and its history, and is no dead letter any more. Until tasks.retention is over it can be tried again.";
  confirm(`Dismiss this task for ${task.target}?`, what, "Dismiss", async () => {
    await post(path("tasks", task.id, "dismiss"));
    toast("It is dismissed");
    page.refresh();
  });
}

/** What it was given may be long, or not for every eye: it is read when somebody asks for it. */
async function showInput(task) {
  const { input } = await get(`${path("tasks", task.id)}?input=true`);
  const shown = input === undefined ? h("p", {}, "It is not kept any more.") : jsonTree(input);
  dialog("Input", shown, [], { wide: true, leave: "Close" });
}

function resolve(page, task) {
  const result = h("textarea", { class: "mono", rows: "3", "aria-label": "Result as JSON", placeholder: "null" });
  const why = h("input", { class: "input", "aria-label": "Why it failed" });
  const say = async (body) => {
    await post(path("tasks", task.id, "resolve"), body);
    page.refresh();
  };
  dialog(
    "What happened?",
    h(
      "div",
      { class: "form" },
      h("p", {}, "An effect that is to happen once was interrupted, so nobody but a person can know. Look where it would show, and say what you found: whoever submitted the task hears of it."),
      h("label", { class: "form-field" }, h("span", { class: "form-name" }, "It happened, with this result (JSON)"), result),
      h("label", { class: "form-field" }, h("span", { class: "form-name" }, "Or it did not: why"), why),
    ),
    [
      { label: "It failed", kind: "bad", run: () => say({ failed: why.value || "an operator said so" }) },
      { label: "It succeeded", kind: "primary", run: () => say({ succeeded: JSON.parse(result.value.trim() || "null") }) },
    ],
  );
}

function signal(page, task) {
  const names = [...new Set((task.waits ?? []).map((wait) => wait.signal).filter(Boolean))];
  const name = h("input", { class: "input", required: true, spellcheck: "false", list: "signal-names", value: names[0] });
  const body = h("textarea", { class: "mono", rows: "4", placeholder: "null" });
  dialog(
    "Send a signal",
    h(
      "div",
      { class: "form" },
      h("p", {}, "A task that waits for it goes on; one that does not yet will find it."),
      h("label", { class: "form-field" }, h("span", { class: "form-name" }, "Name"), name),
      h("datalist", { id: "signal-names" }, names.map((value) => h("option", {}, value))),
      h("label", { class: "form-field" }, h("span", { class: "form-name" }, "What it says (JSON)"), body),
    ),
    [
      {
        label: "Send",
        kind: "primary",
        run: async () => {
          if (!name.reportValidity()) return STAY;
          await post(path("tasks", task.id, "signals", name.value.trim()), JSON.parse(body.value.trim() || "null"));
          page.refresh();
          return undefined;
        },
      },
    ],
  );
}
