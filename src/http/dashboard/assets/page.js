// One page on the stage: read, shown, read again; its age and its tools in the head.
//
// A page's module is `{title, load, view, every?, wants?, tools?, bones?, begin?}`:
// - `load(params, page)` reads what it shows; anew every `every` milliseconds (0: never), when an event comes
//   that it `wants(event, params)`, and after actions;
// - `view(data, params, page)` makes its nodes from that; what is the same as before stays in the document;
// - `tools(params, page)`: what stands in the head; `begin(page)`: called once, answers with how to end it.

import { h, show } from "./dom.js";
import { link, onEvent } from "./live.js";
import { ago, skeleton, trouble } from "./ui.js";

/** How often a page is read that says nothing of that, in milliseconds. */
const EVERY = 4_000;
/** The least time between two readings that events cause. */
const EVENTS_EVERY = 700;

export class Page {
  constructor({ module, path, said, params }) {
    Object.assign(this, { module, path, said, params, data: undefined, error: null, read: 0, over: false });
    /** What a person opened or chose on this page, and is in no address. */
    this.kept = {};
    this.main = document.getElementById("main");
    this.main.replaceChildren((module.bones ?? skeleton)());
    this.head();
    this.unhear = onEvent((event) => this.hear(event));
    this.unseen = () => document.hidden || this.refresh();
    document.addEventListener("visibilitychange", this.unseen);
    this.ending = module.begin?.(this);
    this.refresh();
  }

  /** The page is left. */
  end() {
    this.over = true;
    this.control?.abort();
    clearTimeout(this.timer);
    clearTimeout(this.soon);
    document.removeEventListener("visibilitychange", this.unseen);
    this.unhear();
    this.ending?.();
  }

  /** The same page with other parameters: filters, tabs. */
  turn({ said, params }) {
    Object.assign(this, { said, params });
    this.kept.more = undefined;
    this.head();
    this.main.classList.add("stale");
    this.refresh();
  }

  /** Goes to the same path with these parameters; empty ones go. */
  with(patch) {
    const said = new URLSearchParams();
    for (const [name, value] of Object.entries({ ...this.said, ...patch })) {
      if (value !== "" && value !== null && value !== undefined) said.set(name, value);
    }
    const text = said.toString();
    location.hash = `#${this.path}${text ? `?${text}` : ""}`;
  }

  hear(event) {
    // Nobody looks: when somebody does again, it is read anew.
    if (document.hidden) return;
    if (!(event.event === "gap" || this.module.wants?.(event, this.params)) || this.soon) return;
    const wait = Math.max(60, this.read + EVENTS_EVERY - Date.now());
    this.soon = setTimeout(() => {
      this.soon = 0;
      this.refresh();
    }, wait);
  }

  /** Reads it anew, and shows it. */
  async refresh() {
    clearTimeout(this.timer);
    this.control?.abort();
    const control = (this.control = new AbortController());
    const every = this.module.every ?? EVERY;
    try {
      const data = await this.module.load(this.params, this, control.signal);
      if (this.over || control !== this.control) return;
      Object.assign(this, { data, error: null, read: Date.now() });
    } catch (error) {
      if (this.over || control !== this.control || control.signal.aborted) return;
      // What was there stays; the banner tells that it is old.
      if (link.lost === null || this.data === undefined) this.error = error;
    }
    this.redraw();
    if (every > 0) this.timer = setTimeout(() => (document.hidden ? null : this.refresh()), every);
  }

  /** Shows it again from what was read last. */
  redraw() {
    if (this.over) return;
    this.main.classList.remove("stale");
    const { module, params } = this;
    if (this.error) {
      show(this.main, trouble(this.error, () => this.refresh()));
    } else if (this.data !== undefined) {
      show(this.main, h("div", { class: "page", key: this.path }, module.view(this.data, params, this)));
    }
    this.head();
  }

  head() {
    const name = typeof this.module.title === "function" ? this.module.title(this.params) : this.module.title;
    const title = document.getElementById("title");
    const text = h("span", {}, name).textContent;
    if (title.textContent !== text) title.replaceChildren(text);
    document.title = `${text} · Greenroom`;
    const age = document.getElementById("age");
    const word = link.streaming || this.module.every === 0 ? "live ·" : "updated";
    age.replaceChildren(
      h("i", { class: link.lost === null ? "beat" : "beat off", "aria-hidden": "true" }),
      this.read > 0 ? h("span", {}, `${word} `, ago(this.read)) : "…",
    );
    const tools = document.getElementById("tools");
    show(tools, h("div", {}, this.module.tools?.(this.params, this)));
  }
}
