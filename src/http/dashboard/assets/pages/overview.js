// The overview: how the node is, why, and what to do.

import { counters, get } from "../api.js";
import { h } from "../dom.js";
import { count, duration, plural, short, size, words } from "../format.js";
import { events } from "../live.js";
import { sparkline } from "../spark.js";
import { ago, badge, card, command, empty, facts, icon, subject, tone } from "../ui.js";
import { eventLine } from "./logs.js";

/** Looks that are remembered for the rates: three minutes of them. */
const KEPT = 60;
/** The least time between two of them, in milliseconds: a node has much to count. */
const LOOK_EVERY = 2_900;
/** What rates are made of: `[what, unit, of(look)]`. */
const RATES = [
  ["Messages", "/s", (look) => look.greenroom_messages_total],
  ["Task attempts", "/s", (look) => look.greenroom_task_attempts_total],
  ["Commits", "/s", (look) => look.commits],
];
const WORDS = { ok: "All is well", degraded: "Somebody should look", down: "Not serving" };
const looks = [];
let boot = "";

export default {
  title: "Overview",
  every: 3_000,
  wants: () => true,

  async load(_, page, signal) {
    const due = looks.length === 0 || performance.now() - looks.at(-1).at >= LOOK_EVERY;
    const [status, sums] = await Promise.all([
      get("/status", { signal }),
      due && counters(["greenroom_messages_total", "greenroom_task_attempts_total"], { signal }),
    ]);
    if (boot !== status.node.id) looks.length = 0;
    boot = status.node.id;
    if (sums) looks.push({ at: performance.now(), ...sums, commits: status.store.commits });
    if (looks.length > KEPT) looks.shift();
    const recent = events().length > 0 ? events().slice(0, 8) : await lastEvents(signal);
    return { status, recent };
  },

  view({ status, recent }) {
    return [
      verdict(status),
      h("div", { class: "tiles" }, RATES.map(rate), crashTile(status)),
      h("div", { class: "two" }, agentsCard(status), tasksCard(status)),
      h("div", { class: "two" }, crashesCard(status), eventsCard(recent)),
      h("div", { class: "two" }, storeCard(status), nodeCard(status)),
    ];
  },
};

// Without a stream of events the log has them.
async function lastEvents(signal) {
  const { items } = await get("/logs?level=info&tail=60", { signal });
  return items.filter((item) => item.event !== "log").reverse().slice(0, 8);
}

function verdict({ verdict: word, reasons }) {
  return h(
    "section",
    { class: `verdict ${tone(word)}`, "aria-label": `verdict: ${word}` },
    h(
      "div",
      { class: "verdict-word" },
      h("span", { class: "lamp", "aria-hidden": "true" }),
      h("strong", {}, WORDS[word] ?? word),
      badge(word),
    ),
    reasons.length > 0 && h("ul", { class: "reasons" }, reasons.map(reason)),
  );
}

function reason({ code, message, since, remedy }) {
  return h(
    "li",
    { key: `${code} ${message}` },
    h("div", { class: "reason-what" }, linked(message), h("span", { class: "faint" }, " since ", ago(since))),
    remedyLine(remedy),
  );
}

// The first word of some messages is whom they are about.
function linked(message) {
  const first = message.match(/^([a-z][a-z0-9_]*\/\S+)( .*)$/);
  return first ? [subject(first[1]), first[2]] : message;
}

// The commands in it can be copied: each ends where something is said of it.
function remedyLine(remedy) {
  const pieces = remedy.split(/(greenroom .+?(?= (?:tells|shows|says) |[;,] |$))/);
  return h("div", { class: "remedy" }, "→ ", pieces.map((piece, n) => (n % 2 === 1 ? command(piece) : piece)));
}

function rate([name, unit, of]) {
  const values = [];
  for (let n = 1; n < looks.length; n += 1) {
    const seconds = (looks[n].at - looks[n - 1].at) / 1_000;
    values.push(Math.max(0, (of(looks[n]) - of(looks[n - 1])) / seconds));
  }
  const now = values.length > 0 ? short(Math.round(values.at(-1) * 10) / 10) : "–";
  return h(
    "div",
    { class: "tile card" },
    h("span", { class: "tile-name" }, name),
    h("span", { class: "tile-value" }, now, h("small", {}, unit)),
    sparkline(values, KEPT),
  );
}

function crashTile({ crashes }) {
  const n = crashes.last_hour;
  return h(
    "a",
    { class: "tile card", href: "#/crashes" },
    h("span", { class: "tile-name" }, "Crashes in the last hour"),
    h("span", { class: `tile-value ${n > 0 ? "warn-text" : ""}` }, count(n)),
    h("span", { class: "faint" }, n > 0 ? ["last ", ago(crashes.recent[0]?.at)] : "none"),
  );
}

function bars(counts, href) {
  const all = Object.entries(counts);
  const sum = all.reduce((n, [, value]) => n + value, 0);
  return [
    h(
      "div",
      { class: "stack", "aria-hidden": "true" },
      all.map(([state, n]) => h("span", { class: tone(state), style: { "flex-grow": String(Math.max(n, sum / 60)) } })),
    ),
    h(
      "ul",
      { class: "legend" },
      all.map(([state, n]) =>
        h("li", { key: state }, h("a", { href: href(state) }, badge(state), h("span", { class: "num" }, count(n)))),
      ),
    ),
  ];
}

function agentsCard({ agents }) {
  const none = h("p", { class: "faint" }, "No agent yet: the first message to one makes it.");
  const filled = Object.keys(agents).length > 0;
  const side = h("a", { href: "#/agents" }, "all agents");
  return card("Agents", side, filled ? bars(agents, (status) => `#/agents?status=${status}`) : none);
}

function tasksCard({ tasks }) {
  const none = h("p", { class: "faint" }, "No task yet: greenroom tasks submit makes one.");
  const filled = Object.keys(tasks).length > 0;
  const href = (state) => (state === "failed" ? "#/tasks/dead" : `#/tasks?state=${state}`);
  return card("Tasks", h("a", { href: "#/tasks" }, "all tasks"), filled ? bars(tasks, href) : none);
}

function crashesCard({ crashes }) {
  const rows = crashes.recent.slice(0, 6).map((crash) =>
    h(
      "li",
      { key: crash.id, "data-href": `#/crashes/${crash.id}`, tabindex: "-1" },
      h("a", { href: `#/crashes/${crash.id}`, class: "line-main" }, crash.reason.message || words(crash.reason.kind)),
      h("span", { class: "line-side" }, crash.times > 1 && `${count(crash.times)} × `, subject(crash.subject), " ", ago(crash.at)),
    ),
  );
  const none = h("p", { class: "faint" }, icon("leaf"), "Nothing has crashed since the node started.");
  return card("Recent crashes", h("a", { href: "#/crashes" }, "by site"), rows.length > 0 ? h("ul", { class: "lines" }, rows) : none);
}

function eventsCard(recent) {
  const none = empty("Quiet", "Nothing has happened yet.");
  const list = recent.length > 0 ? h("ul", { class: "lines events" }, recent.map(eventLine)) : none;
  return card("Recent events", h("a", { href: "#/logs" }, "log"), list);
}

function storeCard({ store, cache }) {
  const asked = cache.hits + cache.misses;
  return card(
    "Store and cache",
    null,
    facts([
      ["Store", [store.kind, " ", badge(store.up ? "up" : "down")]],
      ["Commits", plural(store.commits, "commit")],
      ["Units in them", count(store.units)],
      ["States written", size(store.state_bytes)],
      ["Waiting to commit", count(store.waiting)],
      ["Fenced", store.fenced > 0 ? h("span", { class: "warn-text" }, count(store.fenced)) : "0"],
      ["Cache", [cache.kind, " ", badge(cache.up ? "up" : "down")]],
      ["Found in it", asked > 0 ? `${((100 * cache.hits) / asked).toFixed(1)} % of ${short(asked)}` : "not asked yet"],
    ]),
  );
}

function nodeCard({ node, version }) {
  return card(
    "Node",
    h("a", { href: "#/system" }, "system"),
    facts([
      ["Name", node.name],
      ["Version", version],
      ["Up for", h("span", { title: node.started_at }, duration(node.uptime_ms))],
      ["Memory", size(node.rss_bytes)],
      ["Process", h("span", { class: "mono" }, node.pid)],
      ["Boot", h("span", { class: "mono" }, node.id), true],
    ]),
  );
}
