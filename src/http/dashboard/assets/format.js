// Numbers, sizes and times as a person reads them.

const UNITS = [
  ["year", 31_536_000],
  ["month", 2_592_000],
  ["day", 86_400],
  ["h", 3_600],
  ["min", 60],
];

/** 12345 → `12,345`. */
export function count(n) {
  return Number(n ?? 0).toLocaleString("en");
}

/** At most four figures: `812`, `12.3k`, `4.51M`. */
export function short(n) {
  const value = Number(n ?? 0);
  if (Math.abs(value) < 1_000) return Number.isInteger(value) ? String(value) : value.toFixed(value < 10 ? 1 : 0);
  for (const [unit, size] of [["M", 1e6], ["k", 1e3]]) {
    if (Math.abs(value) >= size) return `${trim(value / size)}${unit}`;
  }
  return String(value);
}

function trim(value) {
  return value >= 100 ? value.toFixed(0) : value >= 10 ? value.toFixed(1) : value.toFixed(2);
}

/** Bytes: `1.4 MiB`. */
export function size(bytes) {
  let value = Number(bytes ?? 0);
  for (const unit of ["B", "KiB", "MiB", "GiB"]) {
    if (value < 1024 || unit === "GiB") return unit === "B" ? `${value} B` : `${trim(value)} ${unit}`;
    value /= 1024;
  }
}

/** A duration in milliseconds: `340 ms`, `2.4 s`, `3 min 20 s`. */
export function duration(ms) {
  if (ms === null || ms === undefined) return "";
  if (ms < 1_000) return `${Math.round(ms)} ms`;
  const s = ms / 1_000;
  if (s < 60) return `${s < 10 ? s.toFixed(1) : Math.round(s)} s`;
  for (const [unit, one, part, small] of [["d", 86_400, "h", 3_600], ["h", 3_600, "min", 60], ["min", 60, "s", 1]]) {
    if (s < one) continue;
    const rest = Math.floor((s % one) / small);
    return `${Math.floor(s / one)} ${unit}${rest > 0 ? ` ${rest} ${part}` : ""}`;
  }
  return "";
}

/** `3 min ago`, `in 2 h`, `now`. */
export function relative(at, now = Date.now()) {
  const seconds = (new Date(at).getTime() - now) / 1_000;
  const past = seconds < 0;
  const far = Math.abs(seconds);
  if (far < 1.5) return "now";
  let text = `${Math.round(far)} s`;
  for (const [unit, one] of UNITS) {
    if (far >= one * 0.99) {
      const n = Math.max(1, Math.round(far / one));
      text = `${n} ${unit}${one >= 86_400 && n > 1 ? "s" : ""}`;
      break;
    }
  }
  return past ? `${text} ago` : `in ${text}`;
}

/** The exact moment, for titles: in the reader's zone and in UTC. */
export function exact(at) {
  const date = new Date(at);
  if (Number.isNaN(date.getTime())) return String(at);
  return `${date.toLocaleString()} (${date.toISOString()})`;
}

/** The time of day with milliseconds, as logs have it, in UTC. */
export function clock(at) {
  return new Date(at).toISOString().slice(11, 23);
}

/** An id in short: what tells UUIDv7s of one moment apart stands at their end. */
export function tail(id) {
  return String(id).slice(-8);
}

/** `outcome_unknown` → `outcome unknown`. */
export function words(name) {
  return String(name).replaceAll("_", " ");
}

/** `1 task`, `2 tasks`. */
export function plural(n, one, many = `${one}s`) {
  return `${count(n)} ${Number(n) === 1 ? one : many}`;
}
