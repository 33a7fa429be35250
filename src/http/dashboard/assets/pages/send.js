// Saying something to an agent or a tool: a form made from the schema, and what came back.

import { agentPath, get, path, post, query } from "../api.js";
import { STAY, dialog, explain, toast } from "../dialog.js";
import { h } from "../dom.js";
import { schemaForm } from "../form.js";
import { jsonTree } from "../json.js";

/** How a message is sent, and what that means. */
const MODES = {
  ask: "Ask: it is handled now, and the reply comes when the turn has committed.",
  submit: "Submit: a task, which survives a crash of the node.",
  tell: "Tell: without a receipt; it is lost where the node is.",
};

/** Opens the dialog that sends `kind/key` a message. `sent()` is called after each. */
export async function sendDialog(kind, key, sent) {
  let info;
  try {
    info = await get(path("kinds", kind));
  } catch (error) {
    return toast(error.message, { bad: true });
  }
  let message = info.messages[0];
  let form = schemaForm(message.schema);
  const slot = h("div", {}, form.node);
  const pick = h(
    "select",
    { class: "input", id: "send-message", on: { change: () => choose(pick.value) } },
    info.messages.map((m) => h("option", { value: m.name }, m.read_only ? `${m.name} (reads only)` : m.name)),
  );
  const note = h("span", { class: "faint form-note" }, MODES.ask);
  const mode = h(
    "select",
    { class: "input", on: { change: () => note.replaceChildren(MODES[mode.value]) } },
    Object.keys(MODES).map((name) => h("option", { value: name }, name)),
  );
  const reply = answerBox();
  const choose = (name) => {
    message = info.messages.find((m) => m.name === name);
    form = schemaForm(message.schema);
    slot.replaceChildren(form.node);
    reply.clear();
  };
  const send = async () => {
    const how = mode.value;
    const url = query(agentPath(`${kind}/${key}`, "messages", message.name), { mode: how });
    await reply.show(async () => {
      const answer = await post(url, form.value() ?? {});
      if (how === "submit") return h("p", {}, "Accepted as ", h("a", { href: `#/tasks/${answer.id}` }, answer.id), ".");
      return how === "tell" ? h("p", {}, "Told.") : jsonTree(answer);
    });
    sent();
    return STAY;
  };
  return dialog(
    `Send to ${kind}/${key}`,
    h(
      "div",
      { class: "form" },
      h("label", { class: "form-field" }, h("span", { class: "form-name" }, "Message"), pick),
      slot,
      h("label", { class: "form-field" }, h("span", { class: "form-name" }, "How"), mode, note),
      reply.node,
    ),
    [{ label: "Send", kind: "primary", run: send }],
    { wide: true, leave: "Close" },
  );
}

/** Opens the dialog that calls a tool. */
export function callDialog(tool, called) {
  const form = schemaForm(tool.input);
  const reply = answerBox();
  const call = async () => {
    await reply.show(async () => jsonTree(await post(path("tools", tool.name, "call"), form.value() ?? {})));
    called();
    return STAY;
  };
  const note = tool.effect === "once" && h("p", {}, "What it does is done once: the call becomes a task, and is waited for.");
  return dialog(`Call ${tool.name}`, h("div", { class: "form" }, note, form.node, reply.node), [{ label: "Call", kind: "primary", run: call }], { wide: true, leave: "Close" });
}

function answerBox() {
  const node = h("div", { class: "answer", role: "status", "aria-live": "polite" });
  const clear = () => node.replaceChildren();
  const show = async (run) => {
    node.replaceChildren(h("p", { class: "faint" }, "…"));
    const began = performance.now();
    try {
      const answer = await run();
      const took = Math.round(performance.now() - began);
      node.replaceChildren(h("div", { class: "answer-head faint" }, `answered after ${took} ms`), answer);
    } catch (error) {
      const refusal = error.refusal !== undefined && jsonTree(error.refusal);
      const crash = error.crash && h("p", {}, h("a", { href: `#/crashes/${error.crash}` }, "the crash"));
      node.replaceChildren(h("div", { class: "form-error" }, explain(error)), ...[refusal, crash].filter(Boolean));
    }
  };
  return { node, clear, show };
}
