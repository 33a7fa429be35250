// The log: its tail as it comes, filtered, held up, searched.
//
// Lines come by a request that waits for the next one; this page adds them to what stands there, and so is
// drawn by hand rather than anew.

import { get, query } from "../api.js";
import { h } from "../dom.js";
import { clock, exact, plural } from "../format.js";
import { jsonTree } from "../json.js";
import { ago, button, searchField, select, subject } from "../ui.js";

/** Lines that are kept, and that stand in the document. */
const KEPT = 2_000;
const LEVELS = ["debug", "info", "warn", "error", "critical"];
/** How long a request waits for the next line, at most. */
const WAIT_MS = 30_000;
/** Members of a record that have a place of their own. */
const OWN = new Set(["ts", "level", "event", "msg", "node", "boot", "subject", "hint", "seq", "module"]);

/** What a record says beside its event: its text, or its facts. */
export function saying(record) {
  const facts = Object.entries(record).filter(([name]) => !OWN.has(name));
  const told = facts.map(([name, value]) => fact(name, value)).join(" ");
  const worded = record.msg && record.msg !== record.event.replaceAll(/[._]/g, " ") ? record.msg : "";
  // What was put into words has its facts in them: the whole record shows them again.
  return worded && record.event !== "log" ? worded : [worded, told].filter(Boolean).join("  ");
}

function fact(name, value) {
  if (value === null) return "";
  if (typeof value === "object" && !Array.isArray(value)) {
    return Object.entries(value).map(([part, inner]) => fact(`${name}.${part}`, inner)).join(" ");
  }
  const text = typeof value === "string" ? value : JSON.stringify(value);
  return `${name}=${/[\s"=]/.test(text) || text === "" ? JSON.stringify(text) : text}`;
}

/** A record in short, for lists of events. */
export function eventLine(record) {
  return h(
    "li",
    { key: record.seq ?? `${record.ts} ${record.event} ${record.subject}` },
    h("span", { class: `level ${record.level}`, title: record.level }, record.level),
    h("span", { class: "line-main" }, h("strong", {}, record.event), " ", record.subject && subject(record.subject), " ", h("span", { class: "faint" }, saying(record))),
    h("span", { class: "line-side" }, ago(record.ts)),
  );
}

export default {
  title: "Logs",
  every: 0,

  begin(page) {
    const tail = new Tail(page);
    page.kept.tail = tail;
    return () => tail.end();
  },

  load(params, page) {
    page.kept.tail.follow(params);
    return params;
  },

  tools(_, page) {
    const tail = page.kept.tail;
    if (!tail) return null;
    return button(tail.held ? `Go on${tail.missed ? ` (${tail.missed} new)` : ""}` : "Pause", () => tail.hold(!tail.held), { kind: tail.held ? "primary" : "" });
  },

  view(params, _, page) {
    return [
      h(
        "div",
        { class: "filters" },
        searchField("Search within", params.find, (find) => page.kept.tail.search(find), { live: true, width: "wide" }),
        select("Level", params.level ?? "info", LEVELS.map((l) => [l, l === "debug" ? "everything" : l === "critical" ? l : `${l} and graver`]), (level) => page.with({ level })),
        searchField("Follow a subject: kind/key, task:ID, tool:NAME", params.subject, (subject) => page.with({ subject }), { width: "wide" }),
        params.subject && button("Follow all", () => page.with({ subject: "" }), { kind: "quiet" }),
      ),
      page.kept.tail.node,
    ];
  },
};

/** The tail of the log. */
class Tail {
  constructor(page) {
    Object.assign(this, { page, records: [], held: false, missed: 0, find: "", run: 0 });
    this.list = h("ul", { class: "log", role: "log", "aria-label": "Log records", "aria-live": "off", tabindex: "0" });
    this.note = h("p", { class: "faint log-note" });
    this.node = h("div", { class: "card flush log-box", key: "tail", keep: true }, this.list, this.note);
  }

  end() {
    this.run += 1;
    this.control?.abort();
  }

  /** Begins anew with these filters, unless they are the same. */
  follow({ level = "info", subject: about = "" }) {
    const wanted = `${level} ${about}`;
    if (this.wanted === wanted) return;
    this.end();
    Object.assign(this, { wanted, records: [], missed: 0 });
    this.list.replaceChildren();
    this.read(this.run, level, about);
  }

  async read(mine, level, about) {
    let after;
    while (mine === this.run) {
      this.control = new AbortController();
      try {
        const filter = { level: level === "debug" ? "" : level, subject: about, tail: 500, after, wait: after === undefined ? "" : "20s" };
        const { items, boot, last } = await get(query("/logs", filter), { signal: this.control.signal, patience: WAIT_MS });
        if (mine !== this.run) return;
        // Numbers begin anew with each boot.
        after = `${boot}:${last}`;
        this.take(items);
        this.page.read = Date.now();
        this.page.head();
      } catch (error) {
        if (mine !== this.run || error.status === 401) return;
        await new Promise((done) => setTimeout(done, 1_000));
      }
    }
  }

  take(items) {
    this.records.push(...items);
    this.records.splice(0, Math.max(0, this.records.length - KEPT));
    if (this.held) this.missed += items.length;
    else this.draw(items);
    this.tell();
  }

  /** Adds what is wanted of these; the end stays in sight where it was. */
  draw(items) {
    const box = this.list;
    const low = box.scrollHeight - box.scrollTop - box.clientHeight < 40;
    box.append(...items.filter((record) => this.shows(record)).map((record) => line(record)));
    while (box.childNodes.length > KEPT) box.firstChild.remove();
    if (low) this.bottom();
  }

  bottom() {
    const down = () => (this.list.scrollTop = this.list.scrollHeight);
    down();
    // What is not in the document yet has no height.
    if (!this.list.isConnected) requestAnimationFrame(down);
  }

  shows(record) {
    return this.find === "" || JSON.stringify(record).toLowerCase().includes(this.find);
  }

  search(find) {
    this.find = find.toLowerCase();
    this.list.replaceChildren();
    this.draw(this.records.slice(0, this.records.length - this.missed));
    this.bottom();
    this.tell();
  }

  hold(held) {
    this.held = held;
    if (!held) {
      this.draw(this.records.slice(this.records.length - this.missed));
      this.missed = 0;
      this.bottom();
    }
    this.tell();
    this.page.head();
  }

  tell() {
    const shown = this.list.childNodes.length;
    const text = this.records.length === 0 ? "Nothing yet: what comes is added here." : `${plural(shown, "record")} shown${this.held ? `, held up; ${this.missed} new` : ", newest last"}`;
    this.note.replaceChildren(text);
    if (this.held) this.page.head();
  }
}

function line(record) {
  const whole = h("div", { class: "log-whole" });
  const open = () => {
    if (whole.childNodes.length > 0) whole.replaceChildren();
    else whole.append(jsonTree(record, 3));
    more.setAttribute("aria-expanded", String(whole.childNodes.length > 0));
  };
  const more = h("button", { type: "button", class: "log-more", "aria-expanded": "false", "aria-label": "the whole record", on: { click: open } }, "…");
  const follow = record.subject && h("a", { class: "log-follow", href: `#/logs?subject=${encodeURIComponent(record.subject)}`, title: "follow it" }, "⌖");
  return h(
    "li",
    { class: `log-line ${record.level}` },
    h("time", { class: "mono faint", title: exact(record.ts) }, clock(record.ts)),
    h("span", { class: `level ${record.level}` }, record.level),
    h("span", { class: "log-text" }, h("strong", {}, record.event === "log" ? (record.module ?? "log") : record.event), " ", record.subject && [subject(record.subject), follow], " ", saying(record), record.hint && h("span", { class: "faint" }, ` → ${record.hint}`)),
    more,
    whole,
  );
}
