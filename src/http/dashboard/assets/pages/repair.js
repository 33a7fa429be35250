// An agent's state written by a person: edited, rolled back, deleted. Each asks first and says what happens.

import { agentPath, post, query, remove, send } from "../api.js";
import { confirm, dialog, toast } from "../dialog.js";
import { h } from "../dom.js";
import { count } from "../format.js";

/** Opens the state as JSON; what is written becomes the next version, if this is still the present one. */
export function edit(page, name, { version, state }) {
  const area = h("textarea", { class: "mono", rows: "16", spellcheck: "false", "aria-label": "The state as JSON" });
  area.value = JSON.stringify(state, null, 2);
  const write = async () => {
    const body = JSON.parse(area.value);
    const answer = await send("PUT", agentPath(name, "state"), { body, headers: { "If-Match": `"${version}"` } });
    toast(`${name} is at version ${count((await answer.json()).version)}`);
    page.refresh();
  };
  const what = `It becomes the next version, if ${count(version)} is still the present one, and the agent starts anew from it. It is read dry first: what the agent could not read is refused.`;
  dialog(`Edit the state of ${name}`, h("div", { class: "form" }, h("p", {}, what), area), [{ label: "Write it", kind: "danger", run: write }], { wide: true });
}

/** Goes on from the state of a kept version. */
export function rollBack(page, name, version, present) {
  const what = `The state of version ${count(version)} is written as the next one, and the agent starts anew from it. What it did since then stays done elsewhere: messages that it sent, tasks that it submitted. Version ${count(present)} is kept.`;
  confirm(`Roll ${name} back to version ${count(version)}?`, what, "Roll back", async () => {
    await post(agentPath(name, "rollback"), { to: version }, { headers: { "If-Match": `"${present}"` } });
    page.refresh();
  }, { danger: true });
}

/** Deletes an agent. */
export function drop(name) {
  const cancel = h("input", { type: "checkbox" });
  const also = h("label", { class: "check" }, cancel, h("span", {}, "Cancel the tasks that wait for it as well. Otherwise it is refused while there are any."));
  const what = h("div", {}, h("p", {}, "Its state and its kept versions are gone for good. The next message to it starts it anew, with nothing."), also);
  confirm(`Delete ${name}?`, what, "Delete for good", async () => {
    await remove(query(agentPath(name), { cancel_tasks: cancel.checked ? "true" : "" }));
    toast(`${name} is deleted`);
    location.hash = "#/agents";
  }, { danger: true });
}
