// A form made from a JSON schema, with the raw JSON beside it.

import { h } from "./dom.js";

/** Schemas nest so deep before a part is written as JSON. */
const DEEPEST = 4;

/**
 * A form for `schema`: `{node, value()}`. `value()` throws with what cannot be read. What the form cannot show
 * is written as JSON, and so may be all of it.
 */
export function schemaForm(schema, { initial } = {}) {
  let raw = false;
  const form = field(schema, schema, null, 0, true, initial);
  const area = h("textarea", { class: "mono", rows: "8", spellcheck: "false", "aria-label": "JSON" });
  const slot = h("div", { class: "form-slot" }, form.node);
  const modes = ["Form", "JSON"].map((name) =>
    h("button", { type: "button", class: "tab", "aria-pressed": String(name === "Form"), on: { click: () => turn(name === "JSON") } }, name),
  );
  const turn = (to) => {
    if (to === raw) return;
    if (to) area.value = JSON.stringify(attempt(() => form.value()) ?? {}, null, 2);
    raw = to;
    slot.replaceChildren(raw ? area : form.node);
    modes.forEach((mode, n) => mode.setAttribute("aria-pressed", String((n === 1) === raw)));
  };
  const node = h("div", { class: "form" }, h("div", { class: "tabs small", role: "group", "aria-label": "How to write it" }, modes), slot);
  const value = () => (raw ? parse(area.value, "the JSON") : form.value());
  return { node, value };
}

function attempt(run) {
  try {
    return run();
  } catch {
    return undefined;
  }
}

function parse(text, what) {
  if (text.trim() === "") return undefined;
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new Error(`${what}: ${error.message}`);
  }
}

// A reference is followed; of "this or null" the one that is not null counts.
function resolve(schema, root) {
  let found = schema === true ? {} : schema;
  for (let n = 0; n < 8 && found?.$ref; n += 1) {
    const parts = found.$ref.replace(/^#\/?/, "").split("/").filter(Boolean);
    found = { ...parts.reduce((at, part) => at?.[part.replaceAll("~1", "/").replaceAll("~0", "~")], root), description: found.description };
  }
  const either = found?.anyOf ?? found?.oneOf;
  const some = either?.filter((one) => one.type !== "null");
  if (some?.length === 1 && either.length === 2) return { ...resolve(some[0], root), description: found.description, nullable: true };
  if (either?.every((one) => "const" in one)) return { ...found, enum: either.map((one) => one.const) };
  return found ?? {};
}

function kind(schema) {
  const types = [schema.type].flat().filter((type) => type && type !== "null");
  return types.length === 1 ? types[0] : null;
}

function field(given, root, name, depth, required, initial) {
  const schema = resolve(given, root);
  const start = initial ?? schema.default;
  if (schema.enum) return choice(schema, name, required, start);
  switch (depth > DEEPEST ? null : kind(schema)) {
    case "object":
      if (schema.properties) return group(schema, root, name, depth, required, start);
      return depth === 0 && !schema.additionalProperties ? nothing() : asJson(schema, name, required, start);
    case "string":
      return line(schema, name, required, start, "text", (text) => text);
    case "integer":
    case "number":
      return line(schema, name, required, start, "number", Number);
    case "boolean":
      return tick(schema, name, start);
    case "null":
      return nothing();
    default:
      return asJson(schema, name, required, start);
  }
}

function nothing() {
  return { node: h("p", { class: "faint" }, "It takes no fields."), value: () => undefined };
}

function labelled(schema, name, required, input, more) {
  return h(
    "label",
    { class: "form-field" },
    name !== null && h("span", { class: "form-name" }, name, !required && h("span", { class: "faint" }, " optional")),
    input,
    schema.description && h("span", { class: "faint form-note" }, schema.description),
    more,
  );
}

function line(schema, name, required, start, type, read) {
  const long = type === "text" && (schema.maxLength ?? 0) > 300;
  const props = { class: "input", value: start ?? "", spellcheck: "false", autocomplete: "off", required };
  const input = long
    ? h("textarea", { ...props, rows: "3" })
    : h("input", { ...props, type, step: type === "number" && kind(schema) !== "integer" ? "any" : null, min: schema.minimum, max: schema.maximum });
  const value = () => {
    if (input.value === "" && (type === "number" || !required)) {
      if (required) throw new Error(`${name ?? "it"} is missing`);
      return undefined;
    }
    return read(input.value);
  };
  return { node: labelled(schema, name, required, input), value };
}

function tick(schema, name, start) {
  const input = h("input", { type: "checkbox", checked: start === true });
  return { node: labelled(schema, name, true, input), value: () => input.checked };
}

function choice(schema, name, required, start) {
  const options = schema.enum.map((value, n) => h("option", { value: String(n) }, typeof value === "string" ? value : JSON.stringify(value)));
  const input = h("select", { class: "input" }, !required && h("option", { value: "" }, "–"), options);
  const at = schema.enum.indexOf(start);
  if (at >= 0) input.value = String(at);
  const value = () => (input.value === "" ? undefined : schema.enum[Number(input.value)]);
  return { node: labelled(schema, name, required, input), value };
}

function asJson(schema, name, required, start) {
  const area = h("textarea", { class: "mono", rows: "3", spellcheck: "false", placeholder: "JSON" });
  if (start !== undefined && start !== null) area.value = JSON.stringify(start, null, 2);
  const value = () => {
    const read = parse(area.value, name ?? "it");
    if (read === undefined && required && name !== null) throw new Error(`${name} is missing`);
    return read;
  };
  return { node: labelled(schema, name, required, area), value };
}

function group(schema, root, name, depth, required, start) {
  const needed = new Set(schema.required ?? []);
  const fields = Object.entries(schema.properties).map(([key, inner]) => [
    key,
    field(inner, root, key, depth + 1, needed.has(key), start?.[key]),
  ]);
  const parts = fields.map(([, one]) => one.node);
  const node = name === null ? h("div", { class: "form-group" }, parts) : h("fieldset", {}, h("legend", {}, name), parts);
  const value = () => {
    const said = {};
    for (const [key, one] of fields) {
      const inner = one.value();
      if (inner !== undefined) said[key] = inner;
    }
    return name !== null && !required && Object.keys(said).length === 0 ? undefined : said;
  };
  return { node, value };
}
