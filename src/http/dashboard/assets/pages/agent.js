// One agent: how it is, what it remembers and remembered, what waits for it, what happened to it.

import { agentPath, get, post, query } from "../api.js";
import { confirm } from "../dialog.js";
import { diffTable } from "../diff.js";
import { h } from "../dom.js";
import { count, duration, plural, size } from "../format.js";
import { jsonTree } from "../json.js";
import { barred } from "../session.js";
import { ago, badge, button, card, empty, facts, select, subject, tabs, targetHref } from "../ui.js";
import { eventLine } from "./logs.js";
import { drop, edit, rollBack } from "./repair.js";
import { sendDialog } from "./send.js";
import { taskTable } from "./tasks.js";

const TABS = ["state", "history", "tasks", "events"];

/** What each action does, told before it is done. */
const ACTIONS = {
  pause: ["Pause", "Its messages and tasks wait until it is resumed. A turn that runs is finished.", false],
  resume: ["Resume", "What waits is handled, in the order in which it came.", false],
  restart: ["Restart", "It leaves memory and starts anew from its last committed state, with a fresh budget of restarts. What waits stays. A turn that does not end within five seconds is cut short and undone.", false],
  stop: ["Stop", "It ends after its present turn, which is cut short and undone where it takes longer than five seconds, and stays ended until somebody restarts it. Messages that wait or come are refused, tells among them are dropped, its tasks are parked. Its state is kept.", true],
  quarantine: ["Quarantine", "It is taken out of service: messages are refused and tasks parked until it is released. A turn that does not end within five seconds is cut short and undone. Its state is kept as it is.", true],
  release: ["Release", "Its state is read; if that works, the quarantine ends and what was parked runs.", false],
};
/** Which actions fit which status. */
const FITTING = {
  paused: ["resume", "restart", "stop", "quarantine"],
  stopped: ["restart", "quarantine"],
  quarantined: ["release", "stop"],
};
const USUAL = ["pause", "restart", "stop", "quarantine"];
/** Actions that keep what waits, and may clear it. */
const CLEARS = new Set(["restart", "pause"]);

export default {
  title: ({ kind, key }) => `${kind}/${key}`,
  every: 2_500,
  wants: (event, { kind, key }) => event.subject === `${kind}/${key}`,

  async load({ kind, key, tab = "state", version, against }, page, signal) {
    const name = `${kind}/${key}`;
    const agent = await get(agentPath(name), { signal });
    const read = {
      state: () => states(name, agent, version, against, signal),
      history: () => get(agentPath(name, "snapshots"), { signal }).then((l) => ({ snapshots: l.items })),
      tasks: () => get(query("/tasks", { target: name, limit: 50 }), { signal }).then((l) => ({ tasks: l.items })),
      events: () => get(query("/logs", { subject: name, tail: 100 }), { signal }).then((l) => ({ lines: l.items.reverse() })),
    };
    return { agent, name, ...(await (read[tab] ?? read.state)()) };
  },

  tools({ kind, key }, page) {
    const agent = page.data?.agent;
    const no = barred("operate");
    const acts = (FITTING[agent?.status] ?? USUAL).map((action) =>
      button(ACTIONS[action][0], () => act(page, `${kind}/${key}`, action), { barred: no, kind: "quiet" }),
    );
    return [agent && acts, button("Send a message", () => sendDialog(kind, key, () => page.refresh()), { kind: "primary", barred: no })];
  },

  view(data, { kind, key, tab = "state" }, page) {
    const base = targetHref(data.name);
    const list = TABS.map((name) => [name[0].toUpperCase() + name.slice(1), name === "state" ? base : `${base}/${name}`]);
    const show = { state: stateView, history: historyView, tasks: tasksView, events: eventsView };
    return [head(data.agent), tabs(`${kind}/${key}`, list, tab === "state" ? base : `${base}/${tab}`), (show[tab] ?? stateView)(data, page)];
  },
};

function head(agent) {
  const { mailbox } = agent;
  return h(
    "div",
    { class: "card" },
    facts([
      ["Status", badge(agent.status)],
      ["Because", agent.reason, true],
      ["Handles", agent.message && [agent.message, h("span", { class: "faint" }, ` for ${duration(agent.since_ms)}`)]],
      ["Mailbox", [count(mailbox.depth), h("span", { class: "faint" }, ` of ${count(mailbox.capacity)}`)]],
      ["Refused since", mailbox.refused > 0 && [plural(mailbox.refused, "message"), h("span", { class: "faint" }, ", the last "), ago(mailbox.refused_at)]],
      ["Restarts", agent.restarts > 0 ? h("span", { class: "warn-text" }, count(agent.restarts)) : "0"],
      ["Version", count(agent.version)],
      ["State", agent.state_bytes === undefined ? "none yet" : size(agent.state_bytes)],
      ["Last commit", ago(agent.updated_at)],
      ["First commit", ago(agent.created_at)],
      ["Node", h("span", { class: "mono", title: agent.node }, agent.node ? agent.node.slice(0, 8) : "nobody")],
      ["Epoch", count(agent.epoch)],
    ]),
    agent.children?.length > 0 && h("p", {}, h("span", { class: "faint" }, "Ends with it: "), agent.children.slice(0, 20).map((child) => [subject(child), " "]), agent.children.length > 20 && `and ${agent.children.length - 20} more`),
  );
}

async function states(name, agent, version, against, signal) {
  if (!agent.version) return { state: null, snapshots: [] };
  const at = (v) => get(query(agentPath(name, "state"), { version: v }), { signal });
  // A version that went meanwhile, or cannot be read, is told in its place.
  const careful = (v) => at(v).catch((error) => ({ error }));
  const [kept, state, other] = await Promise.all([
    get(agentPath(name, "snapshots"), { signal }),
    careful(version),
    against ? careful(against) : null,
  ]);
  return { state, other, snapshots: kept.items };
}

function stateView({ name, state, other, snapshots }, page) {
  if (!state) return empty("No state yet", "It is written with the first turn that commits.");
  const { version, against } = page.params;
  const options = snapshots.map((s) => [String(s.version), `version ${count(s.version)}`]);
  const side = h(
    "div",
    { class: "filters tight" },
    select("Version", version ?? "", [["", "now"], ...options], (v) => page.with({ version: v })),
    h("span", { class: "faint" }, "against"),
    select("Against", against ?? "", [["", "nothing"], ...options], (v) => page.with({ against: v })),
    !version && state.version && button("Edit…", () => edit(page, name, state), { kind: "small", barred: barred("admin") }),
  );
  if (state.error) return card("State", side, h("p", { class: "form-error" }, state.error.message));
  return [
    card(`State at version ${count(state.version)}`, side, jsonTree(state.state)),
    other && card(`From version ${count(against)} to ${count(state.version)}`, null, other.error ? h("p", { class: "form-error" }, other.error.message) : diffTable(other.state, state.state)),
  ];
}

function historyView({ agent, name, snapshots }, page) {
  if (snapshots.length === 0) return empty("No versions yet", "Some of an agent’s versions are kept: at most one a minute, the last eight.");
  const base = targetHref(name);
  const no = barred("operate");
  const row = (s, n) =>
    h(
      "li",
      { key: s.version },
      h("span", { class: "line-main" }, h("strong", {}, `version ${count(s.version)}`), s.version === agent.version && h("span", { class: "pill" }, "now")),
      h(
        "span",
        { class: "line-side" },
        size(s.bytes),
        " · ",
        ago(s.at),
        h("a", { class: "button small", href: `${base}?version=${s.version}` }, "Look"),
        snapshots[n + 1] && h("a", { class: "button small", href: `${base}?version=${s.version}&against=${snapshots[n + 1].version}` }, "What changed"),
        s.version !== agent.version && button("Go back to it…", () => rollBack(page, name, s.version, agent.version), { kind: "small", barred: barred("admin") }),
        agent.status === "quarantined" && button("Release with it", () => release(page, name, s.version), { kind: "small", barred: no }),
      ),
    );
  return [
    card("Kept versions", plural(snapshots.length, "version"), h("ul", { class: "lines" }, snapshots.map(row))),
    h("div", {}, button("Delete this agent…", () => drop(name), { kind: "small bad", barred: barred("admin") })),
  ];
}

function release(page, name, version) {
  const what = `The state of version ${version} is written as its next one, and the quarantine ends. The state that could not be read is kept as well.`;
  confirm(`Release ${name} with version ${version}`, what, "Release", async () => {
    await post(agentPath(name, "release"), { version });
    page.refresh();
  });
}

function tasksView({ tasks, name }) {
  const none = empty("No tasks for it", `greenroom tasks submit ${name} MESSAGE gives it one.`);
  return taskTable(tasks, none);
}

function eventsView({ lines }) {
  if (lines.length === 0) return empty("Nothing in the log", "The node keeps its last 2,048 records; none of them is about this agent.");
  return card("In the log", h("span", { class: "faint" }, "of the node’s last 2,048 records"), h("ul", { class: "lines events" }, lines.map(eventLine)));
}

function act(page, name, action) {
  const [label, what, danger] = ACTIONS[action];
  const clear = h("input", { type: "checkbox" });
  const waiting = page.data.agent.mailbox.depth;
  const also = CLEARS.has(action) && h("label", { class: "check" }, clear, h("span", {}, `Clear its mailbox as well (${plural(waiting, "message")} now): what waits is answered with a refusal and does not run. Tasks are never lost.`));
  confirm(`${label} ${name}?`, h("div", {}, h("p", {}, what), also), label, async () => {
    await post(query(agentPath(name, action), { clear: clear.checked ? "true" : "" }));
    page.refresh();
  }, { danger });
}
