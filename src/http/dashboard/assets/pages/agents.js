// The agents: found by kind, status and the beginning of their keys; pages by key, never all of them.

import { get, path, query } from "../api.js";
import { h } from "../dom.js";
import { count } from "../format.js";
import { ago, badge, button, empty, searchField, select, table, target, targetHref } from "../ui.js";

const PAGE = 50;
/** Pages that are looked through for agents of a status before a person is asked to go on. */
const LOOKS = 4;
const STATUSES = ["active", "idle", "starting", "restarting", "stopping", "passivated", "paused", "stopped", "quarantined"];
/** Those that only running agents have: the tree knows them. */
const LIVE = new Set(["active", "idle", "starting", "restarting", "stopping"]);

export default {
  title: "Agents",
  every: 3_000,
  wants: (event) => /^(agent|restart|state|mailbox)\./.test(event.event ?? ""),

  async load(params, page, signal) {
    const kinds = (await get("/kinds", { signal })).items.map((kind) => kind.kind);
    const chosen = params.kind ? [params.kind] : kinds;
    const find = params.find ?? "";
    if (find) return { kinds, ...(await byPrefix(chosen, find, params.status, signal)) };
    if (LIVE.has(params.status)) return { kinds, ...(await running(chosen, params, signal)) };
    const items = [];
    let cursor = params.cursor;
    for (let look = 0; look < LOOKS; look += 1) {
      const one = query("/agents", { kind: params.kind, status: params.status, cursor, limit: PAGE });
      const read = await get(one, { signal });
      items.push(...read.items);
      cursor = read.next_cursor;
      if (!cursor || items.length >= PAGE) break;
    }
    return { kinds, items, next: cursor };
  },

  view({ kinds, items, next }, params, page) {
    const filtered = params.kind || params.status || params.find;
    return [
      h(
        "div",
        { class: "filters" },
        searchField("Find a key by its beginning, or kind/key", params.find, (find) => page.with({ find, cursor: "" }), { width: "wide" }),
        select("Kind", params.kind ?? "", [["", "All kinds"], ...kinds.map((k) => [k, k])], (kind) => page.with({ kind, cursor: "" })),
        select("Status", params.status ?? "", [["", "Any status"], ...STATUSES.map((s) => [s, s])], (status) => page.with({ status, cursor: "" })),
        filtered && button("Clear", () => page.with({ kind: "", status: "", find: "", cursor: "" }), { kind: "quiet" }),
      ),
      table("Agents", COLUMNS, items, {
        key: (a) => `${a.kind}/${a.key}`,
        href: (a) => targetHref(`${a.kind}/${a.key}`),
        empty: filtered
          ? empty("No agent like that", next ? "None in what was looked through so far." : "Take away a filter, or write the beginning of a key.")
          : empty("No agents yet", "An agent comes to be with its first message: greenroom agents send KIND/KEY MESSAGE."),
      }),
      h(
        "div",
        { class: "pager" },
        params.cursor && button("First page", () => page.with({ cursor: "" }), { kind: "small" }),
        h("span", { class: "faint" }, `${count(items.length)} shown${next ? ", there are more" : ""}`),
        next && button("Next page", () => page.with({ cursor: next }), { kind: "small" }),
      ),
    ];
  },
};

const COLUMNS = [
  { name: "Agent", class: "grow", cell: (a) => target(`${a.kind}/${a.key}`) },
  { name: "Status", class: "w-state", cell: (a) => badge(a.status, a.reason) },
  { name: "Queue", class: "num w-num hide-s", cell: (a) => h("span", { class: a.mailbox.depth > 0 ? "" : "faint" }, count(a.mailbox.depth)) },
  { name: "Restarts", class: "num w-num hide-s", cell: (a) => h("span", { class: a.restarts > 0 ? "warn-text" : "faint" }, count(a.restarts)) },
  { name: "Version", class: "num w-num hide-s", cell: (a) => (a.version === undefined ? "–" : count(a.version)) },
  { name: "Committed", class: "w-time", cell: (a) => ago(a.updated_at) },
];

// Keys are in order: what begins with a text stands together, behind whatever comes before that text.
function before(text) {
  const last = [...text].at(-1);
  const code = last.codePointAt(0) - 1;
  // between the two halves of what is no character by itself there is nothing
  const one = String.fromCodePoint(code >= 0xd800 && code < 0xe000 ? 0xd7ff : code);
  return `${text.slice(0, -last.length)}${one}\u{10ffff}`;
}

async function byPrefix(kinds, find, status, signal) {
  const named = find.match(/^([a-z][a-z0-9_]*)\/(.*)$/);
  const [among, start] = named && kinds.includes(named[1]) ? [[named[1]], named[2]] : [kinds, find];
  const items = [];
  await Promise.all(
    among.map(async (kind) => {
      const cursor = start && `${kind}/${before(start)}`;
      const behind = await get(query("/agents", { kind, cursor, limit: PAGE }), { signal });
      items.push(...behind.items.filter((a) => a.key.startsWith(start)));
    }),
  );
  items.sort((a, b) => (a.kind + a.key < b.kind + b.key ? -1 : 1));
  return { items: items.filter((a) => !status || a.status === status).slice(0, 200), next: null };
}

// Those that run are few beside those that are kept: the tree lists them. It does not look into the store.
async function running(kinds, params, signal) {
  const items = [];
  for (const kind of kinds) {
    let cursor = null;
    for (let look = 0; look < LOOKS && items.length < PAGE; look += 1) {
      const read = await get(query(`/tree${path(kind)}`, { cursor, limit: 500 }), { signal });
      items.push(...read.items.filter((node) => node.status === params.status).map(agentOf));
      cursor = read.next_cursor;
      if (!cursor) break;
    }
  }
  return { items: items.slice(0, PAGE), next: null };
}

function agentOf({ name, status, depth, restarts }) {
  const cut = name.indexOf("/");
  return { kind: name.slice(0, cut), key: name.slice(cut + 1), status, mailbox: { depth }, restarts };
}
