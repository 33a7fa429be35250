// What reaches us by itself: the node's events, and whether the node is there at all.
//
// Events come over `/events` as a stream that goes on where it broke off. Whether it stands or not, the
// visible page is read again every few seconds: an event makes that happen at once.

import { onReach, send } from "./api.js";

/** So many events are kept to look back on. */
const KEPT = 200;
/** Events that are asked for to begin with. */
const TAIL = 50;
/** A stream that says nothing for so long has broken off: it says every 15 s that it is there. */
const SILENCE = 40_000;
/** How long a lost node is left alone, at first and at most, in milliseconds. */
const PATIENCE = [500, 5_000];

/** What is known of the connection. */
export const link = { lost: null, streaming: false, seen: Date.now() };

const recent = [];
const listeners = new Set();
const changes = new Set();
let run = 0;
let last = "";

/** The last events, newest first. */
export function events() {
  return recent;
}

/** Calls `told(event)` for each event; the answer ends that. */
export function onEvent(told) {
  listeners.add(told);
  return () => listeners.delete(told);
}

/** Calls `told(link)` when the connection is lost, or back. */
export function onLink(told) {
  changes.add(told);
}

function turn(patch) {
  const before = link.lost === null;
  Object.assign(link, patch);
  changes.forEach((told) => told(link, before !== (link.lost === null)));
}

onReach((reached) => {
  if (reached) {
    link.seen = Date.now();
    if (link.lost !== null) turn({ lost: null });
  } else if (link.lost === null) {
    turn({ lost: Date.now() });
    knock(PATIENCE[0]);
  }
});

// Asks again and again whether the node is back: what is asked for needs no token.
function knock(pause) {
  setTimeout(async () => {
    if (link.lost === null) return;
    await send("GET", "/health/live", { root: "" }).catch(() => {});
    if (link.lost !== null) knock(Math.min(pause * 1.5, PATIENCE[1]));
  }, pause);
}

/** Begins to listen, in the place of whatever listened before. */
export function start() {
  run += 1;
  stream(run);
}

/** Listens no more. */
export function stop() {
  run += 1;
  turn({ streaming: false });
}

async function stream(mine) {
  let pause = PATIENCE[0];
  while (mine === run) {
    try {
      const headers = { Accept: "text/event-stream", ...(last && { "Last-Event-ID": last }) };
      const answer = await send("GET", last ? "/events" : `/events?tail=${TAIL}`, { headers, patience: 0 });
      turn({ streaming: true });
      pause = PATIENCE[0];
      await read(answer.body, () => mine === run);
    } catch (error) {
      if (error.status === 401) break;
    }
    if (mine !== run) return;
    turn({ streaming: false });
    await new Promise((done) => setTimeout(done, pause));
    pause = Math.min(pause * 2, PATIENCE[1]);
  }
}

async function read(body, wanted) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const silent = setTimeout(() => reader.cancel().catch(() => {}), SILENCE);
    const { value, done } = await reader.read();
    clearTimeout(silent);
    if (done || !wanted()) return void reader.cancel().catch(() => {});
    link.seen = Date.now();
    const blocks = (rest + value).split(/\r?\n\r?\n/);
    rest = blocks.pop();
    blocks.forEach(take);
  }
}

function take(block) {
  const said = { event: "message", data: [] };
  for (const line of block.split(/\r?\n/)) {
    const cut = line.indexOf(":");
    const [name, value] = cut < 0 ? [line, ""] : [line.slice(0, cut), line.slice(cut + 1).replace(/^ /, "")];
    if (name === "data") said.data.push(value);
    else if (name === "id") last = value;
    else if (name === "event") said.event = value;
  }
  if (said.event === "gap") return listeners.forEach((told) => told({ event: "gap" }));
  if (said.data.length === 0) return;
  try {
    note(JSON.parse(said.data.join("\n")));
  } catch {
    // What is not JSON is no event of ours.
  }
}

/** Takes in an event, from wherever it comes. */
export function note(event) {
  recent.unshift(event);
  recent.length = Math.min(recent.length, KEPT);
  listeners.forEach((told) => told(event));
}
