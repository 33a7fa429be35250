// How a task went: a bar of its waiting and running, and its events below.

import { h, svg } from "./dom.js";
import { duration, exact, words } from "./format.js";
import { ago, tone } from "./ui.js";

/** What a task is at after an event, in the bar's terms. */
const AFTER = {
  accepted: "wait", ready: "wait", released: "wait", retried: "wait", unparked: "wait", resumed: "wait", signalled: "wait",
  started: "busy",
  retry: "back", rescued: "back", broken_off: "back", waiting: "hold", parked: "hold", outcome_unknown: "hold",
  succeeded: "end", failed: "end", cancelled: "end",
};
const GOES_ON = new Set(["cancel_requested", "signalled"]);
const NAMES = { wait: "waits for its turn", busy: "runs", back: "waits for another attempt", hold: "is held", end: "" };

/** The bar and the list. `history` is oldest first. */
export function timeline(task, history) {
  if (history.length === 0) return h("p", { class: "faint" }, "Nothing is known of it.");
  return [bar(task, history), h("ol", { class: "timeline" }, history.map((event, n) => line(event, history[n - 1])))];
}

function line(event, before) {
  const gap = before ? new Date(event.at) - new Date(before.at) : 0;
  return h(
    "li",
    { key: `${event.at} ${event.event}` },
    h("span", { class: `dot ${mark(event.event)}`, "aria-hidden": "true" }),
    h("strong", {}, words(event.event)),
    event.attempt > 0 && h("span", { class: "faint" }, `attempt ${event.attempt}`),
    event.detail && h("span", { class: "detail" }, event.detail),
    h("span", { class: "line-side" }, before && h("span", { class: "faint num", title: "after the event before" }, `+${duration(gap)}`), ago(event.at)),
  );
}

function mark(name) {
  if (name === "started") return "busy";
  if (name === "retry" || name === "rescued" || name === "broken_off") return "warn";
  return tone(name);
}

function bar(task, history) {
  const start = new Date(history[0].at).getTime();
  const ended = task.finished_at ? new Date(task.finished_at).getTime() : Date.now();
  const whole = Math.max(1, ended - start);
  let how = "wait";
  const parts = history.map((event, n) => {
    // what runs goes on when it is asked to end, or sent a signal
    how = how === "busy" && GOES_ON.has(event.event) ? how : (AFTER[event.event] ?? "wait");
    const from = new Date(event.at).getTime();
    const to = n + 1 < history.length ? new Date(history[n + 1].at).getTime() : ended;
    return { how, from, to: Math.max(from, to) };
  });
  const x = (at) => (((at - start) / whole) * 1_000).toFixed(1);
  const shown = parts.filter((part) => part.how !== "end" && part.to > part.from);
  return h(
    "div",
    { class: "gantt" },
    svg(
      "svg",
      { viewBox: "0 0 1000 14", preserveAspectRatio: "none", role: "img", "aria-label": `took ${duration(whole)} so far` },
      svg("rect", { x: 0, y: 0, width: 1000, height: 14, class: "gantt-ground" }),
      shown.map((part) => {
        const width = Math.max(2, x(part.to) - x(part.from));
        const title = `${NAMES[part.how]} ${duration(part.to - part.from)}, from ${exact(part.from)}`;
        return svg("rect", { x: x(part.from), y: 0, width, height: 14, class: `gantt-${part.how}` }, svg("title", {}, title));
      }),
    ),
    h("div", { class: "gantt-legend faint" }, h("span", {}, duration(whole), task.finished_at ? " in all" : " so far"), ["wait", "busy", "back", "hold"].filter((how) => shown.some((part) => part.how === how)).map((how) => h("span", {}, h("i", { class: `swatch ${how}`, "aria-hidden": "true" }), NAMES[how]))),
  );
}
