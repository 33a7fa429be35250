// The supervision tree: who watches over whom, and what each is at.
//
// The first look brings a few children of each; the rest of a kind come a page at a time.

import { get, path, query } from "../api.js";
import { h } from "../dom.js";
import { count, duration, plural } from "../format.js";
import { badge, button, icon, searchField, targetHref, tone } from "../ui.js";

/** Children that are read with the tree, and with each further page. */
const PAGE = 50;

export default {
  title: "Supervision tree",
  every: 3_000,
  wants: (event) => event.event?.startsWith("agent.") || event.event?.startsWith("restart."),

  async load(params, page, signal) {
    const tree = await get(query("/tree", { children: PAGE }), { signal });
    const pages = (page.kept.pages ??= {});
    // What was leafed through is read again, so that it lives as the rest does.
    await Promise.all(
      Object.entries(pages).map(async ([kind, shown]) => {
        const url = query(`/tree${path(kind)}`, { limit: shown.limit, cursor: shown.after });
        shown.page = await get(url, { signal });
      }),
    );
    return tree;
  },

  view(tree, params, page) {
    const find = (params.find ?? "").toLowerCase();
    return [
      h(
        "div",
        { class: "filters" },
        searchField("Filter what is shown", params.find, (text) => page.with({ find: text })),
        h("span", { class: "faint" }, told(tree)),
      ),
      h("div", { class: "card flush scroll" }, heads(), h("ul", { class: "tree", role: "tree", "aria-label": "Supervision tree" }, node(tree, 0, find, page))),
    ];
  },
};

// How much there is: what waits is counted in all lanes, whatever is shown of them.
function told(tree) {
  let [agents, waiting] = [0, 0];
  const look = (node) => {
    if (node.role === "kind") {
      agents += node.children.length + node.more;
      waiting += node.depth;
    } else node.children.forEach(look);
  };
  look(tree);
  return `${plural(agents, "agent")}, ${plural(waiting, "message")} waiting`;
}

function heads() {
  return h(
    "div",
    { class: "tree-line tree-head", "aria-hidden": "true" },
    h("span", { class: "tree-name" }, "Name"),
    h("span", { class: "tree-state" }, "State"),
    h("span", { class: "tree-num" }, "Queue"),
    h("span", { class: "tree-num" }, "Restarts"),
    h("span", { class: "tree-now" }, "At work on"),
  );
}

function node(what, depth, find, page) {
  const name = `${what.role}:${what.name}`;
  const kinds = what.role === "kind";
  const shown = kinds ? page.kept.pages[what.name] : null;
  const all = shown?.page ? shown.page.items : what.children;
  const below = find ? all.filter((child) => holds(child, find)) : all;
  const has = all.length > 0 || what.more > 0;
  const closed = (page.kept.closed ??= new Set());
  const open = has && (find !== "" || !closed.has(name));
  const turn = () => {
    if (closed.has(name)) closed.delete(name);
    else closed.add(name);
    page.redraw();
  };
  return h(
    "li",
    { key: name, role: "treeitem", "aria-expanded": has ? String(open) : null },
    line(what, depth, has && turn, open),
    open && h("ul", { role: "group" }, below.map((child) => node(child, depth + 1, find, page)), kinds && leaf(what, shown, depth + 1, page)),
  );
}

function holds(what, find) {
  return what.name.toLowerCase().includes(find) || what.children.some((child) => holds(child, find));
}

function line(what, depth, turn, open) {
  const href = { agent: () => targetHref(what.name), tool: () => targetHref(`tool:${what.name}`), task: () => `#/tasks/${what.name}` }[what.role]?.();
  const name = href ? h("a", { href, title: what.name }, what.name) : h("strong", {}, what.name);
  const arrow = turn
    ? h("button", { type: "button", class: open ? "twist open" : "twist", "aria-label": open ? "Close" : "Open", on: { click: turn } }, icon("chevron"))
    : h("span", { class: "twist" });
  const since = what.since_ms === null || what.since_ms === undefined ? null : duration(what.since_ms);
  return h(
    "div",
    { class: "tree-line", "data-href": href, tabindex: href ? "-1" : null },
    h("span", { class: "tree-name", style: { "padding-left": `${depth * 18}px` } }, arrow, h("span", { class: "role" }, what.role), name),
    h("span", { class: "tree-state" }, badge(what.status)),
    h("span", { class: `tree-num num ${what.depth > 0 ? "" : "faint"}` }, count(what.depth)),
    h("span", { class: `tree-num num ${what.restarts > 0 ? "warn-text" : "faint"}` }, count(what.restarts)),
    h("span", { class: `tree-now ${tone(what.status)}` }, what.message ?? what.current ?? "", since && h("span", { class: "faint" }, ` for ${since}`)),
  );
}

// The foot of a kind: how many more there are, and the way to them.
function leaf(what, shown, depth, page) {
  const turn = (patch) => {
    page.kept.pages[what.name] = { limit: PAGE, ...patch };
    page.refresh();
  };
  const next = shown?.page ? shown.page.next_cursor : what.more > 0 ? what.children.at(-1)?.name.split("/").slice(1).join("/") : null;
  if (!next && !shown) return null;
  return h(
    "li",
    { key: "foot", class: "tree-foot", role: "none" },
    h(
      "div",
      { style: { "padding-left": `${depth * 18 + 22}px` } },
      h("span", { class: "faint" }, `${plural(what.children.length + what.more, "agent")}`),
      shown && button("First page", () => (delete page.kept.pages[what.name], page.refresh()), { kind: "small" }),
      next && button("Next page", () => turn({ after: next }), { kind: "small" }),
    ),
  );
}
