// The configuration: what is in force and where it came from; changes of it, whole or not at all.

import { send } from "../api.js";
import { STAY, dialog, toast } from "../dialog.js";
import { h } from "../dom.js";
import { jsonLine } from "../json.js";
import { barred } from "../session.js";
import { badge, button, empty, searchField, table } from "../ui.js";

/** Reads it, with the tag by which a change says what it was made upon. */
export async function loadConfig(signal) {
  const answer = await send("GET", "/config", { signal });
  return { ...(await answer.json()), tag: answer.headers.get("ETag") };
}

/** Shows it; `find` in lower case. */
export function configView({ items, needs_restart, tag }, { find }, page) {
  const no = barred("admin");
  const waits = new Set(needs_restart);
  const shown = items.filter((one) => `${one.key} ${jsonLine(one.value)} ${one.origin}`.toLowerCase().includes(find));
  const columns = [
    { name: "Key", class: "grow mono", cell: (c) => c.key },
    { name: "Value", class: "grow mono", cell: (c) => [text(c.value), waits.has(c.key) && badge("waiting", "in force after a restart")] },
    { name: "From", class: "w-origin", cell: (c) => (c.origin === "default" ? h("span", { class: "faint" }, "default") : h("span", { class: "pill" }, c.origin)) },
    { name: "", class: "w-act hide-s", cell: (c) => button("Change", () => change({ ...c, waits: waits.has(c.key) }, tag, page), { kind: "small", barred: no }) },
  ];
  return [
    waits.size > 0 && h("p", { class: "warn-text" }, `In force after a restart: ${needs_restart.join(", ")}`),
    h("div", { class: "filters" }, searchField("Find a key, a value or an origin", find, (text) => page.with({ find: text }), { live: true, width: "wide" })),
    table("Configuration", columns, shown, { key: (c) => c.key, empty: empty("No such key", "Take away the filter to see them all.") }),
  ];
}

/** How often a change is made again that met changes of other keys alone. */
const TRIES = 3;

/** How a key is now. */
async function look(key) {
  const { items, needs_restart, tag } = await loadConfig();
  const found = items.find((one) => one.key === key);
  return { value: found?.value ?? null, origin: found?.origin ?? "nowhere", waits: needs_restart.includes(key), tag };
}

function text(value) {
  return typeof value === "string" ? value : jsonLine(value);
}

/** A dotted key, of which parts may stand in quotes, as the merge patch that sets it. */
function patch(key, value) {
  const parts = [...key.matchAll(/"([^"]*)"|[^.]+/g)].map(([whole, quoted]) => quoted ?? whole);
  return parts.reduceRight((inner, part) => ({ [part]: inner }), value);
}

// What can be read as JSON is; anything else is text, as in `--set`.
function read(written) {
  try {
    return JSON.parse(written);
  } catch {
    return written;
  }
}

// Whether what is kept may be another value than the one that is shown.
const isHidden = ({ waits, origin }) => waits || !["default", "config set", "nowhere"].includes(origin);

// What is changed is the value that was seen: where somebody else has changed it meanwhile, it is told and not
// written over, until that value has been seen too.
function change({ key, value, origin, waits }, tag, page) {
  const secret = value === "***";
  const field = h("input", { class: "input mono", value: secret ? "" : text(value), spellcheck: "false", autocomplete: "off" });
  const told = h("p", { class: "faint" });
  let seen = { value, origin, waits, tag };
  const put = async (to, dry_run) => {
    const request = () => ({ body: patch(key, to), headers: { "If-Match": seen.tag } });
    for (let n = 0; ; n += 1) {
      try {
        const answer = await send("PATCH", `/config${dry_run ? "?dry_run=true" : ""}`, request());
        return await answer.json();
      } catch (error) {
        if (error.status !== 412 || n === TRIES) throw error;
        const before = seen;
        seen = await look(key);
        if (jsonLine(seen.value) !== jsonLine(before.value) || seen.origin !== before.origin) {
          page.refresh();
          throw new Error(`Somebody has changed it meanwhile: it is ${text(seen.value)} now, from ${seen.origin}. Nothing was written; to write over that, do it again.`);
        }
        // what waits for a restart, or is overruled here, is not shown, and so may have been changed unseen
        if (isHidden(seen) || isHidden(before)) {
          page.refresh();
          throw new Error("Somebody has changed settings meanwhile, and may be this one: what is to be in force after a restart, or is overruled here, is not shown. Nothing was written; to write over that, do it again.");
        }
      }
    }
  };
  const say = (applied) => {
    const beyond = applied.overruled.map((one) => `; ${one.key} is also set by ${one.by}, which overrides it`).join("");
    if (applied.changed.length === 0) return `nothing changes${beyond}`;
    return `${applied.needs_restart.includes(key) ? "in force after a restart" : "in force at once"}${beyond}`;
  };
  const run = (to) => async () => {
    toast(`${key}: ${say(await put(to(), false))}`);
    page.refresh();
  };
  const check = async () => {
    told.replaceChildren(`It would be ${say(await put(read(field.value), true))}.`);
    return STAY;
  };
  const actions = [
    { label: "Try", run: check },
    { label: "Change", kind: "primary", run: run(() => read(field.value)) },
  ];
  // a null in a merge patch takes away what was kept
  if (origin === "config set") actions.unshift({ label: "Take back", run: run(() => null) });
  dialog(key, h("div", { class: "form" }, h("label", { class: "form-field" }, h("span", { class: "form-name" }, "Value"), field), h("p", {}, "It is kept in the store, for all nodes that share it, and refused whole where it is wrong."), told), actions);
}
