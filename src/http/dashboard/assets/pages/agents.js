// The agents: found by kind, status and the beginning of their keys; pages by key, never all of them.

import { get, query } from "../api.js";
import { h } from "../dom.js";
import { count } from "../format.js";
import { ago, badge, button, empty, searchField, select, table, target, targetHref } from "../ui.js";

const PAGE = 50;
/** Pages that are looked through for agents of a status before a person is asked to go on. */
const LOOKS = 4;
/** How many are read at once where few of them may be meant. */
const WIDE = 500;
const STATUSES = ["active", "idle", "starting", "restarting", "stopping", "passivated", "elsewhere", "paused", "stopped", "quarantined"];

export default {
  title: "Agents",
  every: 3_000,
  wants: (event) => /^(agent|restart|state|mailbox)\./.test(event.event ?? ""),

  async load(params, page, signal) {
    const kinds = (await get("/kinds", { signal })).items.map((kind) => kind.kind);
    const chosen = params.kind ? [params.kind] : kinds;
    const find = params.find ?? "";
    if (find) return { kinds, ...(await byPrefix(chosen, find, params, signal)) };
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
          ? next
            ? empty("None so far", "There are more to look through: the next page goes on.")
            : empty("No agent like that", "Take away a filter, or write the beginning of a key.")
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

// Each kind is looked at from the prefix, or from where the last page ended; what a page has no room for begins the
// next one.
async function byPrefix(kinds, find, { status, cursor: from }, signal) {
  const named = find.match(/^([a-z][a-z0-9_]*)\/(.*)$/);
  const [among, start] = named && kinds.includes(named[1]) ? [[named[1]], named[2]] : [kinds, find];
  const begun = from?.split("/")[0] ?? "";
  const left = [...among].sort().filter((kind) => kind >= begun);
  const found = await Promise.all(left.map((kind) => ofKind(kind, start, status, kind === begun ? from : null, signal)));
  const items = [];
  for (const { kind, own, next } of found) {
    if (items.length >= PAGE && (own.length > 0 || next)) return { items, next: `${kind}/${before(start)}` };
    items.push(...own);
    if (next) return { items, next };
  }
  return { items, next: null };
}

// The agents of a kind whose keys begin so: a page of them, and where the next one begins if there may be more.
async function ofKind(kind, start, status, from, signal) {
  const own = [];
  let cursor = from ?? (start && `${kind}/${before(start)}`);
  for (let look = 0; look < LOOKS; look += 1) {
    const read = await get(query("/agents", { kind, status, cursor, limit: status ? WIDE : PAGE }), { signal });
    const fitting = read.items.filter((a) => a.key.startsWith(start));
    const room = PAGE - own.length;
    own.push(...fitting.slice(0, room));
    if (fitting.length > room) return { kind, own, next: `${kind}/${own.at(-1).key}` };
    cursor = read.next_cursor?.startsWith(`${kind}/${start}`) ? read.next_cursor : null;
    if (!cursor || own.length >= PAGE) break;
  }
  return { kind, own, next: cursor };
}
