// What asks and what answers: dialogs before something is done, and short notes of what was.

import { h } from "./dom.js";
import { button, iconButton } from "./ui.js";

/** What an action answers with that leaves its dialog open. */
export const STAY = Symbol("stay");

/**
 * Opens a dialog. `content` may be nodes; `actions`: `[{label, kind, run}]`, of which `run` may throw: what it
 * says is shown, and the dialog stays. It is closed when `run` is done, unless that answers with `STAY`.
 */
export function dialog(title, content, actions, { wide = false, leave = "Cancel" } = {}) {
  const told = h("p", { class: "form-error", role: "alert", hidden: true });
  const close = () => box.close();
  const buttons = actions.map(({ label, kind = "", run }) => {
    const made = button(label, async () => {
      told.hidden = true;
      made.disabled = true;
      try {
        if ((await run?.()) !== STAY) close();
      } catch (error) {
        told.replaceChildren(explain(error));
        told.hidden = false;
      }
      made.disabled = false;
    }, { kind });
    return made;
  });
  const id = `dialog-${Math.random().toString(36).slice(2)}`;
  const keydown = (event) => {
    if (event.key !== "Enter" || event.target.nodeName !== "INPUT" || buttons.length === 0) return;
    event.preventDefault();
    buttons.at(-1).click();
  };
  const box = h(
    "dialog",
    { class: wide ? "dialog wide" : "dialog", "aria-labelledby": id, on: { close: () => box.remove(), keydown } },
    h("div", { class: "dialog-head" }, h("h2", { id }, title), iconButton("close", "Close", close)),
    h("div", { class: "dialog-body" }, content, told),
    h("div", { class: "dialog-foot" }, button(actions.length > 0 ? leave : "Close", close), buttons),
  );
  document.body.append(box);
  box.showModal();
  // What is asked for first; where nothing is, the way out.
  const first = box.querySelector(".dialog-body :is(input, select, textarea)") ?? box.querySelector(".dialog-foot button");
  first.focus();
  return box;
}

/** An error as nodes: its message, and the places it speaks of. */
export function explain(error) {
  const places = (error.errors ?? []).filter((e) => e.pointer);
  return h(
    "span",
    {},
    error.message,
    places.length > 0 && h("ul", {}, places.map((e) => h("li", {}, h("code", {}, e.pointer), ` ${e.detail}`))),
  );
}

/** Asks before something is done: `what` says what will happen, `run` does it. */
export function confirm(title, what, label, run, { danger = false } = {}) {
  const text = typeof what === "string" ? h("p", {}, what) : what;
  return dialog(title, text, [{ label, kind: danger ? "danger" : "primary", run }]);
}

/** A short note at the foot of the page. */
export function toast(text, { bad = false } = {}) {
  const place = document.getElementById("toasts");
  const made = h("div", { class: bad ? "toast bad" : "toast" }, text);
  place.append(made);
  setTimeout(() => made.remove(), bad ? 9_000 : 4_500);
}

/** Does something at once, and notes how it went. */
export async function attempt(run, done) {
  try {
    const answer = await run();
    if (done) toast(typeof done === "function" ? done(answer) : done);
    return answer;
  } catch (error) {
    toast(error.message, { bad: true });
    return undefined;
  }
}
