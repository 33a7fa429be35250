// The node's API: requests, and what goes wrong with them.

import { authorise, lapsed } from "./session.js";

/** The node gave no answer. */
export class Lost extends Error {}

/** The node refused: an RFC 9457 problem document. */
export class Problem extends Error {
  constructor(status, document) {
    super(document.detail || document.title || `status ${status}`);
    this.status = status;
    this.code = document.code ?? "";
    this.errors = document.errors ?? [];
    this.refusal = document.refusal;
    this.crash = document.crash_id;
  }
}

/** How long a page waits for what it reads, in milliseconds: a node that hangs is as good as gone. */
const PATIENCE = 8_000;

const watchers = new Set();

/** Calls `told(reached)` after each request that was answered, and after each that was not. */
export function onReach(told) {
  watchers.add(told);
}

/** Sends a request under `/api/v1` and returns the answer. Throws `Problem`, `Lost`, or that it was given up. */
export async function send(method, path, { body, headers, signal, root = "/api/v1", patience = PATIENCE } = {}) {
  const all = { Accept: "application/json", ...authorise(method), ...headers };
  if (body !== undefined) all["Content-Type"] = "application/json";
  let answer;
  try {
    answer = await fetch(root + path, {
      method,
      headers: all,
      body: body === undefined ? undefined : JSON.stringify(body),
      signal: within(method, signal, patience),
      cache: "no-store",
      credentials: "same-origin",
    });
  } catch (error) {
    if (signal?.aborted) throw error;
    watchers.forEach((told) => told(false));
    throw new Lost("the node does not answer");
  }
  watchers.forEach((told) => told(true));
  if (answer.status === 401) lapsed();
  if (!answer.ok) throw new Problem(answer.status, await answer.json().catch(() => ({})));
  return answer;
}

// What changes something may take its time; to read does not.
function within(method, signal, patience) {
  if (method !== "GET" || patience === 0) return signal;
  const late = AbortSignal.timeout(patience);
  return signal ? AbortSignal.any([signal, late]) : late;
}

async function json(answer) {
  const text = await answer.text();
  return text === "" ? null : JSON.parse(text);
}

/** `GET`, as JSON. */
export async function get(path, options) {
  return json(await send("GET", path, options));
}

/** `POST`, as JSON. */
export async function post(path, body, options) {
  return json(await send("POST", path, { ...options, body }));
}

/** `DELETE`. */
export async function remove(path, options) {
  return json(await send("DELETE", path, options));
}

/** A path from parts, each encoded: `path("agents", kind, key)`. */
export function path(...parts) {
  return parts.map((part) => `/${encodeURIComponent(part)}`).join("");
}

/** `path?query`, without what is empty. */
export function query(base, values) {
  const said = new URLSearchParams();
  for (const [name, value] of Object.entries(values)) {
    if (value !== undefined && value !== null && value !== "") said.set(name, value);
  }
  const text = said.toString();
  return text ? `${base}?${text}` : base;
}

/** The path of an agent by its subject, `kind/key`. */
export function agentPath(subject, ...more) {
  const cut = subject.indexOf("/");
  return path("agents", subject.slice(0, cut), subject.slice(cut + 1), ...more);
}

/** The sums of the counters of one name in `/metrics`, by one label (or all under `""`). */
export async function counters(names, options) {
  const answer = await send("GET", "/metrics", { ...options, root: "" });
  const sums = Object.fromEntries(names.map((name) => [name, 0]));
  for (const line of (await answer.text()).split("\n")) {
    const name = line.slice(0, line.search(/[{ ]/));
    if (name in sums) sums[name] += Number(line.slice(line.lastIndexOf(" ") + 1)) || 0;
  }
  return sums;
}
