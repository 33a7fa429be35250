// Tokens, and what was done with them: the audit log.

import { get, path, post, query, remove } from "../api.js";
import { STAY, confirm, dialog } from "../dialog.js";
import { h } from "../dom.js";
import { jsonLine } from "../json.js";
import { barred } from "../session.js";
import { ago, badge, button, empty, searchField, subject, table } from "../ui.js";

const PAGE = 100;

/** Reads the tokens. */
export async function loadTokens(signal) {
  const no = barred("admin");
  return no ? { refused: no } : get("/tokens", { signal });
}

/** Shows them. */
export function tokensView({ items, refused }, _, page) {
  if (refused) return empty("Tokens are not shown", `That ${refused}.`);
  const columns = [
    { name: "Name", class: "grow", cell: (t) => t.name },
    { name: "Scope", class: "w-state", cell: (t) => h("span", { class: "pill" }, t.scope) },
    { name: "Made", class: "w-time hide-s", cell: (t) => ago(t.created_at) },
    { name: "Last used", class: "w-time", cell: (t) => ago(t.last_used, "never") },
    { name: "Ends", class: "w-time hide-s", cell: (t) => ago(t.expires_at, "never") },
    { name: "", class: "w-act", cell: (t) => button("Remove", () => drop(t, page), { kind: "small bad" }) },
  ];
  return [
    h("div", { class: "filters" }, button("Add a token…", () => add(page), { kind: "primary" }), h("span", { class: "faint" }, "The node’s own token, in its data directory, is not in this list.")),
    table("Tokens", columns, items, { key: (t) => t.name, empty: empty("No further tokens", "Give people and programs tokens of their own: what each of them does is told apart in the audit log.") }),
  ];
}

function drop(token, page) {
  confirm(`Remove the token ${token.name}?`, "Whoever shows it is refused from now on, and the sessions that were begun with it end.", "Remove", async () => {
    await remove(path("tokens", token.name));
    page.refresh();
  }, { danger: true });
}

function add(page) {
  const name = h("input", { class: "input", required: true, spellcheck: "false", autocomplete: "off" });
  const scope = h("select", { class: "input" }, ["read", "operate", "admin"].map((one) => h("option", { value: one }, one)));
  const time = h("input", { class: "input", placeholder: "30d", spellcheck: "false", autocomplete: "off" });
  const shown = h("div", {});
  const field = (label, input, note) => h("label", { class: "form-field" }, h("span", { class: "form-name" }, label), input, h("span", { class: "faint form-note" }, note));
  const make = async () => {
    const made = await post("/tokens", { name: name.value.trim(), scope: scope.value, ...(time.value.trim() && { expires_in: time.value.trim() }) });
    shown.replaceChildren(h("p", {}, "This is shown once: ", h("code", {}, made.token)));
    page.refresh();
    return STAY;
  };
  dialog(
    "Add a token",
    h(
      "div",
      { class: "form" },
      field("Name", name, "Who it is: it stands in the audit log."),
      field("Scope", scope, "read: look; operate: act on agents and tasks; admin: all."),
      field("For how long", time, "Such as 30d; until it is removed where nothing is written."),
      shown,
    ),
    [{ label: "Add", kind: "primary", run: make }],
    { leave: "Close" },
  );
}

/** Reads the audit log. */
export function loadAudit({ who, cursor }, signal) {
  return get(query("/audit", { who, cursor, limit: PAGE }), { signal });
}

/** Shows it. */
export function auditView({ items, next_cursor }, { who, cursor }, page) {
  const columns = [
    { name: "When", class: "w-time", cell: (a) => ago(a.at) },
    { name: "Who", class: "w-time", cell: (a) => h("span", { title: a.by }, a.who) },
    { name: "What", class: "grow", cell: (a) => [h("span", { class: "stack-main" }, a.action), h("span", { class: "stack-sub" }, subject(a.subject))] },
    { name: "Came to", class: "w-num", cell: (a) => (a.outcome ? badge(a.outcome) : h("span", { class: "faint" }, "not known")) },
    { name: "Before → after", class: "grow hide-s mono", cell: (a) => [a.before !== null && jsonLine(a.before, 80), a.after !== null && h("span", { title: jsonLine(a.after, 400) }, ` → ${jsonLine(a.after, 80)}`)] },
  ];
  return [
    h("div", { class: "filters" }, searchField("Who: the name of a token", who, (name) => page.with({ who: name, cursor: "" }), { width: "wide" })),
    table("Audit", columns, items, { key: (a) => a.id, empty: empty("Nothing yet", "What operators do is written here: who, what, when, before and after.") }),
    h("div", { class: "pager" }, cursor && button("Newest", () => page.with({ cursor: "" }), { kind: "small" }), next_cursor && button("Older", () => page.with({ cursor: next_cursor }), { kind: "small" })),
  ];
}
