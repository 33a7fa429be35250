// The system: nodes, kinds, tools; configuration, tokens and audit stand in files of their own.

import { get, path, post } from "../api.js";
import { attempt, confirm } from "../dialog.js";
import { h } from "../dom.js";
import { count, duration } from "../format.js";
import { jsonTree } from "../json.js";
import { barred } from "../session.js";
import { ago, badge, button, card, empty, facts, tabs } from "../ui.js";
import { auditView, loadAudit, loadTokens, tokensView } from "./access.js";
import { configView, loadConfig } from "./config.js";
import { callDialog } from "./send.js";

const TABS = [["nodes", "Nodes"], ["kinds", "Kinds"], ["tools", "Tools"], ["config", "Configuration"], ["tokens", "Tokens"], ["audit", "Audit"]];

export default {
  title: "System",
  every: 5_000,
  wants: (event) => /^(node|store|cache|config)\./.test(event.event ?? ""),

  async load({ tab = "nodes", ...params }, page, signal) {
    const read = {
      nodes: async () => ({ nodes: (await get("/nodes", { signal })).items, status: await get("/status", { signal }) }),
      kinds: async () => ({ kinds: (await get("/kinds", { signal })).items }),
      tools: async () => ({ tools: (await get("/tools", { signal })).items }),
      config: () => loadConfig(signal),
      tokens: () => loadTokens(signal),
      audit: () => loadAudit(params, signal),
    };
    return (read[tab] ?? read.nodes)();
  },

  view(data, { tab = "nodes", find, ...params }, page) {
    const show = { nodes, kinds, tools, config: configView, tokens: tokensView, audit: auditView };
    return [
      tabs("System", TABS.map(([id, text]) => [text, id === "nodes" ? "#/system" : `#/system/${id}`]), tab === "nodes" ? "#/system" : `#/system/${tab}`),
      (show[tab] ?? nodes)(data, { ...params, find: (find ?? "").toLowerCase() }, page),
    ];
  },
};

function nodes({ nodes: list, status }) {
  const { store, cache } = status;
  const strategies = Object.entries(cache.strategies ?? {});
  return [
    h("div", { class: "cards" }, list.map((node) => member(node))),
    h(
      "div",
      { class: "two" },
      card(
        "Store",
        badge(store.up ? "up" : "down"),
        facts([
          ["Kind", store.kind],
          ["Commits", count(store.commits)],
          ["Units", count(store.units)],
          ["Units a commit", store.commits > 0 ? (store.units / store.commits).toFixed(1) : null],
          ["Waiting", count(store.waiting)],
          ["Fenced", count(store.fenced)],
          ["Connections", store.pool ? `${store.pool.size} of ${store.pool.max}, ${store.pool.idle} idle` : null],
          ["Waiting for one", store.pool ? count(store.pool.waiting) : null],
        ]),
      ),
      card(
        "Cache",
        badge(cache.up ? "up" : "down"),
        facts([
          ["Kind", cache.kind],
          ["Because", cache.reason],
          ["Found", count(cache.hits)],
          ["Not found", count(cache.misses)],
          ...strategies.map(([name, of]) => [name.replaceAll("_", " "), `${count(of.hits)} of ${count(of.hits + of.misses)}`]),
        ]),
      ),
    ),
  ];
}

function member(node) {
  return card(
    node.name,
    [
      node.this && h("span", { class: "pill" }, "this one"),
      badge(node.status),
      node.this && button("Stop the node…", () => end(node), { kind: "small", barred: barred("admin") }),
    ],
    facts([
      ["Boot", h("span", { class: "mono" }, node.id), true],
      ["URL", node.url],
      ["Started", ago(node.started_at)],
      ["Lease", node.lease_until ? ago(node.lease_until) : "the data directory’s lock", !node.lease_until],
      ["Partitions", `${count(node.partitions.length)} of 64`],
    ]),
  );
}

function end(node) {
  const what = "It takes no more work, finishes what runs, commits, and ends. Whatever started it may start it again; nothing that was acknowledged is lost.";
  confirm(`Stop ${node.name}?`, what, "Stop the node", () => post(path("nodes", node.id, "stop")), { danger: true });
}

function pauseButton(name, paused, page) {
  const turn = (action) => attempt(() => post(path("kinds", name, action)), `the tasks of ${name}: ${action}d`).then(() => page.refresh());
  const barrier = barred("operate");
  if (paused) return button("Resume its tasks", () => turn("resume"), { kind: "small", barred: barrier });
  const ask = () => confirm(`Pause the tasks of ${name}?`, "None of them is started until they are resumed, on any node. Those that run go on; messages that are asked or told are handled as before.", "Pause", () => turn("pause"));
  return button("Pause its tasks", ask, { kind: "small", barred: barrier });
}

// Of a tool that has crashed too often: its tasks are resumed with it.
function resumeButton(tool, page) {
  const turn = () => attempt(() => post(path("kinds", `tool:${tool.name}`, "resume")), `${tool.name} takes calls again`).then(() => page.refresh());
  return button("Resume", turn, { kind: "small", barred: barred("operate") });
}

function kinds({ kinds: list }, { name }, page) {
  if (list.length === 0) return empty("No kinds", "The program registers none.");
  return list.map((kind) =>
    h(
      "section",
      { class: "card", key: kind.kind },
      h("div", { class: "card-head" }, h("h2", {}, kind.kind), kind.paused && badge("paused"), h("div", { class: "side-note" }, h("a", { href: `#/agents?kind=${kind.kind}` }, "its agents"), pauseButton(kind.kind, kind.paused, page))),
      facts([["State’s schema version", count(kind.version)], ["Persistence", kind.persistence.replaceAll("_", " ")], ["Messages", count(kind.messages.length)]]),
      h("details", { open: name === kind.kind }, h("summary", {}, "Messages and their schemas"), kind.messages.map(message)),
    ),
  );
}

function message(info) {
  return h(
    "details",
    { class: "inner", key: info.name },
    h("summary", {}, h("code", {}, info.name), info.read_only && h("span", { class: "pill" }, "reads only"), h("span", { class: "faint" }, ` ${info.schema.description ?? ""}`)),
    h("div", { class: "three" }, [["Message", info.schema], ["Reply", info.reply], ["Refusal", info.refusal]].map(([title, schema]) => h("div", {}, h("h3", {}, title), jsonTree(schema, 1)))),
  );
}

function tools({ tools: list }, { name }, page) {
  if (list.length === 0) return empty("No tools", "The program registers none.");
  return list.map((tool) =>
    h(
      "section",
      { class: name === tool.name ? "card marked" : "card", key: tool.name },
      h(
        "div",
        { class: "card-head" },
        h("h2", {}, tool.name),
        h("span", { class: "pill", title: "what repeating a call does" }, tool.effect),
        tool.paused && badge("paused"),
        tool.reason && badge(tool.status, tool.reason),
        h("div", { class: "side-note" }, button("Call…", () => callDialog(tool, () => page.refresh()), { kind: "small", barred: barred("operate") }), tool.reason ? resumeButton(tool, page) : pauseButton(`tool:${tool.name}`, tool.paused, page)),
      ),
      facts([
        ["Stopped", tool.reason],
        ["Running", [count(tool.running), tool.concurrency && h("span", { class: "faint" }, ` of ${count(tool.concurrency)}`)]],
        ["Waiting", count(tool.waiting)],
        ["Calls", count(tool.calls)],
        ["Failed", tool.failed > 0 ? h("span", { class: "warn-text" }, count(tool.failed)) : "0"],
        ["Crashed", tool.crashed > 0 ? h("span", { class: "bad-text" }, count(tool.crashed)) : "0"],
        ["Time for one", duration(tool.timeout_ms)],
      ]),
      h("details", { class: "inner" }, h("summary", {}, "Schemas"), h("div", { class: "three" }, h("div", {}, h("h3", {}, "Input"), jsonTree(tool.input, 1)), h("div", {}, h("h3", {}, "Output"), jsonTree(tool.output, 1)))),
    ),
  );
}
