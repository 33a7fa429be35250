// The schedules: what is submitted again and again, when it was last and comes next.

import { get, path, post, remove } from "../api.js";
import { attempt, confirm, dialog } from "../dialog.js";
import { h } from "../dom.js";
import { exact, words } from "../format.js";
import { barred } from "../session.js";
import { ago, badge, button, empty, facts, target } from "../ui.js";
import { taskTabs } from "./tasks.js";

export default {
  title: "Schedules",
  every: 4_000,
  wants: (event) => event.event?.startsWith("schedule."),

  async load(_, page, signal) {
    const [list, status] = await Promise.all([get("/schedules", { signal }), get("/status", { signal })]);
    return { items: list.items, counts: status.tasks };
  },

  tools(_, page) {
    return button("Add a schedule…", () => add(page), { kind: "primary", barred: barred("operate") });
  },

  view({ items, counts }, _, page) {
    const none = empty("No schedules", "A schedule submits a task at its times: add one here, or have the program declare it.");
    return [taskTabs("#/tasks/schedules", counts), items.length > 0 ? items.map((one) => show(one, page)) : none];
  },
};

function show(one, page) {
  const no = barred("operate");
  const at = (action) => path("schedules", one.name, action);
  const turn = (action, told) => attempt(() => post(at(action)), told).then(() => page.refresh());
  const acts = [
    button("Run now", () => turn("run", `${one.name} has a task now`), { kind: "small", barred: no }),
    one.paused
      ? button("Resume", () => turn("resume", `${one.name} goes on`), { kind: "small", barred: no })
      : button("Pause", () => turn("pause", `${one.name} is held up`), { kind: "small", barred: no }),
    button("Remove", () => drop(one, page), { kind: "small bad", barred: no ?? (one.origin === "program" ? "the program declares it: pause it, or take it out there" : null) }),
  ];
  const upcoming = one.upcoming.slice(1).map((moment) => exact(moment)).join("\n");
  return h(
    "section",
    { class: "card schedule", key: one.name },
    h("div", { class: "card-head" }, h("h2", {}, one.name), one.paused && badge("paused"), h("div", { class: "side-note" }, acts)),
    facts([
      ["When", h("code", {}, one.cron)],
      ["Next", one.next_at ? h("span", { title: upcoming && `then:\n${upcoming}` }, ago(one.next_at)) : h("span", { class: "faint" }, one.paused ? "held up" : "never")],
      ["Last", one.last_at ? [ago(one.last_at), " ", one.last_task && h("a", { href: `#/tasks/${one.last_task}` }, one.last_task_state ? badge(one.last_task_state) : "its task")] : h("span", { class: "faint" }, "not yet")],
      ["For", target(one.target)],
      ["Message", one.message],
      ["While the last one runs", words(one.overlap)],
      ["What was missed", words(typeof one.misfire === "string" ? one.misfire : JSON.stringify(one.misfire))],
      ["Declared by", one.origin],
    ]),
  );
}

function drop(one, page) {
  confirm(`Remove ${one.name}?`, "It submits no more tasks. Those that it has submitted stay.", "Remove", async () => {
    await remove(path("schedules", one.name));
    page.refresh();
  }, { danger: true });
}

function add(page) {
  const input = (props) => h("input", { class: "input", spellcheck: "false", autocomplete: "off", ...props });
  const [name, cron, to, message] = [input({ required: true }), input({ required: true, placeholder: "0 3 * * * Europe/Berlin, or every 10m" }), input({ required: true, placeholder: "kind/key or tool:name" }), input({})];
  const body = h("textarea", { class: "mono", rows: "3", placeholder: "{}" });
  const line = (label, field, note) => h("label", { class: "form-field" }, h("span", { class: "form-name" }, label), field, note && h("span", { class: "faint form-note" }, note));
  dialog(
    "Add a schedule",
    h(
      "div",
      { class: "form" },
      line("Name", name),
      line("When", cron, "Cron with 5 fields, or 6 with seconds first, and a time zone; or an interval."),
      line("Target", to),
      line("Message", message, "For an agent: which of its messages."),
      line("Input (JSON)", body),
    ),
    [
      {
        label: "Add",
        kind: "primary",
        run: async () => {
          const text = body.value.trim();
          await post("/schedules", {
            name: name.value.trim(),
            cron: cron.value.trim(),
            target: to.value.trim(),
            ...(message.value.trim() && { message: message.value.trim() }),
            ...(text && { input: JSON.parse(text) }),
          });
          page.refresh();
        },
      },
    ],
  );
}
