// Who is there? The page before the dashboard.

import { h } from "./dom.js";
import { login } from "./session.js";

/** Asks for a token in `root`, and calls `entered()` when there is a good one. `ended`: there was a session. */
export function loginPage(root, entered, ended) {
  const field = h("input", { type: "password", id: "token", name: "token", autocomplete: "current-password", required: true, spellcheck: "false" });
  const told = h("p", { class: "form-error", role: "alert", hidden: true });
  const go = h("button", { class: "button primary" }, "Sign in");
  const tell = (text) => {
    told.replaceChildren(text);
    told.hidden = false;
  };
  const submit = async (event) => {
    event.preventDefault();
    go.disabled = true;
    try {
      if (await login(field.value.trim())) return void entered();
      tell("The node does not know this token.");
    } catch (error) {
      tell(error instanceof TypeError ? "The node does not answer." : `The node cannot look this token up: ${error.message}.`);
    }
    go.disabled = false;
    field.select();
  };
  root.replaceChildren(
    h(
      "main",
      { class: "login", id: "main", tabindex: "-1" },
      h(
        "form",
        { class: "card", on: { submit } },
        h("div", { class: "brand" }, h("span", { class: "logo", "aria-hidden": "true" }), "Greenroom"),
        ended && h("p", { role: "status" }, "Your session has ended, or the node has started anew. Sign in, and you are where you were."),
        h("label", { for: "token" }, "Token"),
        field,
        told,
        go,
        h("p", { class: "faint" }, "It stands in the file ", h("code", {}, "token"), " of the node’s data directory; ", h("code", {}, "greenroom login"), " prints a link that needs none."),
      ),
    ),
  );
  field.focus();
}
