// Who is looking, and what they may do. The session itself is a cookie that no script can read.

const RANK = { read: 1, operate: 2, admin: 3 };
const SAFE = new Set(["GET", "HEAD"]);

let who = null;
let onLapse = () => {};

/** What a request that changes something must show beside the cookie: another site's page cannot know it. */
export function authorise(method) {
  return who?.csrf && !SAFE.has(method) ? { "X-CSRF-Token": who.csrf } : {};
}

/** Calls `told()` when the node knows us no longer. */
export function whenLapsed(told) {
  onLapse = told;
}

/** A request was answered with 401. */
export function lapsed() {
  who = null;
  onLapse();
}

/** Finds out who is looking; null: nobody the node knows. Throws where the node does not answer. */
export async function find() {
  const answer = await fetch("/api/v1/me", { cache: "no-store" });
  if (!answer.ok && answer.status !== 401) throw new Error(`status ${answer.status}`);
  who = answer.ok ? await answer.json() : null;
  return who;
}

/** Signs in; false: the token is not one of the node's. */
export async function login(token) {
  const headers = { "Content-Type": "application/json" };
  const answer = await fetch("/login", { method: "POST", headers, body: JSON.stringify({ token }) });
  if (answer.status === 401) return false;
  if (!answer.ok) throw new Error(`status ${answer.status}`);
  return Boolean(await find());
}

/** Signs out. */
export async function logout() {
  await fetch("/logout", { method: "POST", headers: authorise("POST") });
  who = null;
}

/** Who is looking: `{name, scope, expires_at}`. */
export function me() {
  return who;
}

/** Why this person may not do what needs `scope`; null where they may. */
export function barred(scope) {
  if ((RANK[who?.scope] ?? 0) >= RANK[scope]) return null;
  return `needs the scope “${scope}”; this token has “${who?.scope ?? "none"}”`;
}
