// The dashboard: who is looking, where they are, and the frame around every page.

import { h } from "./dom.js";
import * as keys from "./keys.js";
import * as live from "./live.js";
import { Page } from "./page.js";
import { find, logout, me, whenLapsed } from "./session.js";
import { loginPage } from "./login.js";
import { switchTheme, theme } from "./theme.js";
import { ago, icon, iconButton, tick } from "./ui.js";

import agent from "./pages/agent.js";
import agents from "./pages/agents.js";
import crashes, { crash } from "./pages/crashes.js";
import dead from "./pages/dead.js";
import logs from "./pages/logs.js";
import overview from "./pages/overview.js";
import schedules from "./pages/schedules.js";
import system from "./pages/system.js";
import task from "./pages/task.js";
import tasks from "./pages/tasks.js";
import tree from "./pages/tree.js";

/** Where each path leads: parts that begin with `:` are taken from it. */
const ROUTES = [
  ["/", overview],
  ["/tree", tree],
  ["/agents", agents],
  ["/agents/:kind/:key", agent],
  ["/agents/:kind/:key/:tab", agent],
  ["/tasks", tasks],
  ["/tasks/dead", dead],
  ["/tasks/schedules", schedules],
  ["/tasks/:id", task],
  ["/crashes", crashes],
  ["/crashes/:id", crash],
  ["/logs", logs],
  ["/system", system],
  ["/system/:tab", system],
  ["/system/:tab/:name", system],
];

const PLACES = [
  ["Overview", "#/", "overview"],
  ["Tree", "#/tree", "tree"],
  ["Agents", "#/agents", "agents"],
  ["Tasks", "#/tasks", "tasks"],
  ["Crashes", "#/crashes", "crashes"],
  ["Logs", "#/logs", "logs"],
  ["System", "#/system", "system"],
];

const root = document.getElementById("app");
let page = null;
/** Whether somebody had signed in since the page was loaded. */
let wasKnown = false;

/** The place in the address: its page, its path, what stands behind the `?`, and that with the path's parts. */
function place() {
  const text = location.hash.replace(/^#/, "") || "/";
  const [path, query] = [text.split("?")[0], text.split("?").slice(1).join("?")];
  const said = Object.fromEntries(new URLSearchParams(query));
  for (const [pattern, module] of ROUTES) {
    const found = match(pattern, path);
    if (found) return { module, path, said, params: { ...said, ...found } };
  }
  return { module: overview, path: "/", said: {}, params: {} };
}

function match(pattern, path) {
  const [wanted, given] = [pattern.split("/"), path.split("/")];
  if (wanted.length !== given.length) return null;
  const params = {};
  for (const [n, part] of wanted.entries()) {
    if (part.startsWith(":")) {
      try {
        params[part.slice(1)] = decodeURIComponent(given[n]);
      } catch {
        return null;
      }
    } else if (part !== given[n]) return null;
  }
  return params;
}

function frame() {
  const links = PLACES.map(([name, href, sign]) =>
    h("a", { href, class: "place", "data-place": sign }, icon(sign), h("span", {}, name)),
  );
  const lightOrDark = iconButton(theme() === "dark" ? "sun" : "moon", "Light or dark", () => {
    switchTheme();
    lightOrDark.replaceChildren(icon(theme() === "dark" ? "sun" : "moon"));
  });
  root.replaceChildren(
    h(
      "aside",
      { class: "side" },
      h("a", { href: "#/", class: "brand" }, h("span", { class: "logo", "aria-hidden": "true" }), "Greenroom"),
      h("nav", { class: "places", "aria-label": "Pages" }, links),
      h(
        "div",
        { class: "side-foot" },
        h("span", { class: "who", title: `scope: ${me().scope}` }, me().name),
        iconButton("keys", "Keys (?)", keys.help),
        lightOrDark,
        iconButton("out", "Sign out", leave),
      ),
    ),
    h(
      "div",
      { class: "stage" },
      h("div", { id: "banner", role: "alert", hidden: true }),
      h("header", { class: "top" }, h("h1", { id: "title" }), h("div", { id: "age", class: "age" }), h("div", { id: "tools", class: "tools" })),
      h("main", { id: "main", tabindex: "-1", "aria-labelledby": "title" }),
    ),
  );
}

async function leave() {
  await logout();
  wasKnown = false;
  live.stop();
  enter();
}

function go() {
  const at = place();
  const { module, path } = at;
  if (page?.module === module && page.path === path) {
    page.turn(at);
  } else {
    page?.end();
    page = new Page(at);
    document.getElementById("main").scrollTop = 0;
    window.scrollTo(0, 0);
  }
  for (const link of root.querySelectorAll("[data-place]")) {
    const here = link.getAttribute("href") === "#/" ? path === "/" : `#${path}`.startsWith(link.getAttribute("href"));
    if (here) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
}

function banner() {
  const bar = document.getElementById("banner");
  if (!bar) return;
  bar.hidden = live.link.lost === null;
  if (live.link.lost === null) return;
  bar.replaceChildren(
    h("strong", {}, "The connection to the node is lost. "),
    "What you see is from ",
    ago(live.link.seen),
    "; it is tried again by itself.",
  );
}

live.onLink((_, changed) => {
  if (!changed) return;
  banner();
  if (live.link.lost === null) page?.refresh();
});

/** Shows the dashboard, or asks who is looking. */
async function enter() {
  page?.end();
  page = null;
  let known;
  try {
    known = await find();
  } catch {
    root.replaceChildren(h("p", { class: "noscript" }, "The node does not answer. It is tried again by itself."));
    return void setTimeout(enter, 1_000);
  }
  if (!known) return loginPage(root, enter, wasKnown);
  wasKnown = true;
  frame();
  live.start();
  go();
  return undefined;
}

whenLapsed(() => {
  if (page) {
    live.stop();
    enter();
  }
});

theme();
keys.listen();
window.addEventListener("hashchange", () => page && go());
document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault();
  document.getElementById("main")?.focus();
});
setInterval(tick, 1_000);
enter();
